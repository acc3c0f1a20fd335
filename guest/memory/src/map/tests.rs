use super::*;
use crate::{Cursor, copy, copy_sum};

fn memfd(len: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, len).unwrap();
    file
}

fn spec(guest_addr: u64, len: u64) -> RegionSpec {
    RegionSpec { guest_addr, user_addr: guest_addr + 0x7000_0000_0000, len, offset: 0, file: memfd(len) }
}

fn slice(map: &Map, addr: u64, len: u32) -> Slice {
    map.translate(addr, len, &mut Hint::default()).unwrap()
}

#[test]
fn translates_only_what_is_inside_one_region() {
    let map = Map::new(vec![spec(0x10_0000, 0x2000), spec(0, 0x1000)]).unwrap();
    let mut hint = Hint::default();
    assert!(map.translate(0, 0x1000, &mut hint).is_some());
    assert!(map.translate(0, 0x1001, &mut hint).is_none());
    assert!(map.translate(0xfff, 1, &mut hint).is_some());
    assert!(map.translate(0x1000, 1, &mut hint).is_none());
    assert!(map.translate(0x10_1fff, 1, &mut hint).is_some());
    assert!(map.translate(0x10_1fff, 2, &mut hint).is_none());
    assert!(map.translate(u64::MAX, 1, &mut hint).is_none());
    assert!(map.translate(u64::MAX - 3, 8, &mut hint).is_none());
    assert!(map.translate(0xf_ffff, 2, &mut hint).is_none());
}

#[test]
fn neighbouring_regions_are_crossed_in_pieces() {
    let map = Map::new(vec![spec(0, 0x1000), spec(0x1000, 0x1000)]).unwrap();
    let mut hint = Hint::default();
    assert!(map.translate(0xff0, 0x20, &mut hint).is_none());
    let mut pieces = Vec::new();
    assert!(map.translate_pieces(0xff0, 0x20, &mut hint, |s| {
        pieces.push(s);
        true
    }));
    assert_eq!(pieces.iter().map(Slice::len).collect::<Vec<_>>(), [0x10, 0x10]);
    assert!(!map.translate_pieces(0x1ff0, 0x20, &mut hint, |_| true));
}

#[test]
fn refuses_tables_that_lie() {
    let short = RegionSpec { guest_addr: 0, user_addr: 0, len: 0x3000, offset: 0, file: memfd(0x2000) };
    assert!(matches!(Map::new(vec![short]), Err(MapError::ShortFile { need: 0x3000, have: 0x2000, .. })));
    assert!(matches!(Map::new(vec![spec(0, 0x2000), spec(0x1000, 0x1000)]), Err(MapError::Overlap { .. })));
    let wraps =
        RegionSpec { guest_addr: u64::MAX - 10, user_addr: 0, len: 0x1000, offset: 0, file: memfd(0x1000) };
    assert!(matches!(Map::new(vec![wraps]), Err(MapError::BadLength { .. })));
    let empty = RegionSpec { guest_addr: 0, user_addr: 0, len: 0, offset: 0, file: memfd(0x1000) };
    assert!(matches!(Map::new(vec![empty]), Err(MapError::BadLength { .. })));
    let many = (0..510).map(|i| spec(i * 0x1000, 0x1000)).collect();
    assert!(matches!(Map::new(many), Err(MapError::TooManyRegions { got: 510 })));
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let not_a_file = RegionSpec { guest_addr: 0, user_addr: 0, len: 4096, offset: 0, file: pipe };
    assert!(Map::new(vec![not_a_file]).is_err());
}

#[test]
fn a_region_may_begin_inside_its_file() {
    let file = memfd(0x5000);
    rustix::io::pwrite(&file, b"here", 0x1234).unwrap();
    let map = Map::new(vec![RegionSpec { guest_addr: 0, user_addr: 0, len: 0x1000, offset: 0x1234, file }])
        .unwrap();
    let mut bytes = [0; 4];
    assert_eq!(map.read(&slice(&map, 0, 4), 0, &mut bytes), 4);
    assert_eq!(&bytes, b"here");
}

#[test]
fn regions_come_and_go_while_the_old_map_lives() {
    let one = Map::new(vec![spec(0, 0x1000)]).unwrap();
    let two = one.with_region(spec(0x1000, 0x1000)).unwrap();
    assert!(matches!(two.with_region(spec(0x1800, 0x1000)), Err(MapError::Overlap { .. })));
    assert!(matches!(two.without_region(0, 1, 0x1000), Err(MapError::NoSuchRegion { .. })));
    let three = two.without_region(0, 0x7000_0000_0000, 0x1000).unwrap();
    assert!(three.translate(0, 1, &mut Hint::default()).is_none());
    let old = slice(&one, 0, 4);
    assert_eq!(two.read(&old, 0, &mut [0; 4]), 0, "a slice is of no use with another map");
    one.write(&old, 0, b"abcd");
    let mut bytes = [0; 4];
    two.read(&slice(&two, 0, 4), 0, &mut bytes);
    assert_eq!(&bytes, b"abcd", "the new map shares the mapping");
}

#[test]
fn tables_are_checked_once() {
    let map = Map::new(vec![spec(0x1000, 0x1000)]).unwrap();
    assert!(matches!(
        map.table::<u16>(AddressSpace::Guest, 0x1001, 4),
        Err(MapError::Misaligned { align: 2, .. })
    ));
    assert!(matches!(map.table::<[u64; 2]>(AddressSpace::Guest, 0x1f00, 17), Err(MapError::Outside { .. })));
    assert!(matches!(
        map.table::<u64>(AddressSpace::Guest, 0x1000, usize::MAX),
        Err(MapError::Outside { .. })
    ));
    let table = map.table::<[u64; 2]>(AddressSpace::User, 0x7000_0000_1f00, 16).unwrap();
    table.store_release(15, [1, 2]);
    assert_eq!(table.load_acquire(15), [1, 2]);
    table.store(16, [3, 4]);
    assert_eq!(table.load(16), [0, 0], "past the end: nothing stored, the default loaded");
}

#[test]
fn copies_every_length_and_touches_nothing_else() {
    let (a, _) = Map::anonymous(0x4000).unwrap();
    let (b, _) = Map::anonymous(0x4000).unwrap();
    let pattern: Vec<u8> = (0..0x4000_u32).map(|i| (i * 7 + i / 251) as u8).collect();
    a.write(&slice(&a, 0, 0x4000), 0, &pattern);
    for len in (0..300).chain([1000, 1514, 2047, 2048, 2049, 4096, 9000]) {
        b.write(&slice(&b, 0, 0x4000), 0, &[0xee; 0x4000]);
        let from = slice(&a, 3, len);
        let to = slice(&b, 5, len);
        assert_eq!(copy(&a, &from, &b, &to), len);
        let mut got = vec![0; 0x4000];
        b.read(&slice(&b, 0, 0x4000), 0, &mut got);
        let len = len as usize;
        assert_eq!(&got[5..5 + len], &pattern[3..3 + len]);
        assert!(got[..5].iter().chain(&got[5 + len..]).all(|&byte| byte == 0xee));
        let (done, sum) = copy_sum(&a, &from, &b, &to);
        assert_eq!(done as usize, len);
        assert_eq!(fold(sum), slow_sum(&pattern[3..3 + len]));
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn slow_sum(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(2).map(|c| u64::from(u16::from_ne_bytes([c[0], *c.get(1).unwrap_or(&0)]))).sum();
    fold(sum)
}

#[test]
fn cursors_cross_odd_splits() {
    let (a, _) = Map::anonymous(0x10000).unwrap();
    let (b, _) = Map::anonymous(0x10000).unwrap();
    let pattern: Vec<u8> = (0..6000_u32).map(|i| (i * 13 + i / 7) as u8).collect();
    a.write(&slice(&a, 0, 6000), 0, &pattern);
    let from: Vec<Slice> =
        [(0, 1), (1, 2), (3, 0), (3, 1000), (1003, 4997)].map(|(at, n)| slice(&a, at, n)).to_vec();
    let to: Vec<Slice> =
        [(0, 7), (100, 1500), (5000, 3), (8000, 9000)].map(|(at, n)| slice(&b, at, n)).to_vec();
    let (mut source, mut target) = (Cursor::new(&from), Cursor::new(&to));
    assert_eq!(source.remaining(), 6000);
    source.skip(2);
    let (done, sum) = target.copy_sum_from(&b, &a, &mut source, 9000);
    assert_eq!(done, 5998);
    assert_eq!(fold(sum), slow_sum(&pattern[2..]));
    assert_eq!(source.remaining(), 0);
    let mut back = vec![0; 6000];
    assert_eq!(Cursor::new(&to).read(&b, &mut back[..5998]), 5998);
    assert_eq!(&back[..5998], &pattern[2..]);
}

/// Numbers that look random and are the same in every run.
fn numbers(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(below.max(1))) as u32
    }
}

#[test]
fn copies_between_lists_cut_anyhow_are_those_of_one_run() {
    const ROOM: u32 = 0x8000;
    let rounds = if cfg!(miri) { 20 } else { 400 };
    let (a, b) = (Map::anonymous(ROOM.into()).unwrap().0, Map::anonymous(ROOM.into()).unwrap().0);
    let bytes: Vec<u8> = (0..ROOM).map(|i| (i * 7 + i / 256) as u8).collect();
    a.write(&slice(&a, 0, ROOM), 0, &bytes);
    for round in 0..rounds {
        let mut below = numbers(round);
        b.write(&slice(&b, 0, ROOM), 0, &vec![0xee; ROOM as usize]);
        // Pieces in order with gaps between them, empty ones too; now and then one that is not of this map.
        let mut cut = |map: &Map, other: &Map| {
            let (mut list, mut at) = (Vec::new(), below(50));
            for _ in 0..below(12) {
                let longest = if below(2) == 0 { 20 } else { 2000 };
                let len = below(longest);
                let is_foreign = below(60) == 0;
                list.push(slice(if is_foreign { other } else { map }, at.into(), len));
                at += len + below(100);
            }
            (list, below(30))
        };
        let (from, from_skip) = cut(&a, &b);
        let (to, to_skip) = cut(&b, &a);
        let n = below(20_000);
        let (mut source, mut target) = (Cursor::new(&from), Cursor::new(&to));
        source.skip(from_skip);
        target.skip(to_skip);
        // The model: byte after byte, up to the first slice of another map.
        let places = |list: &[Slice], map: &Map, skip: u32| -> Vec<u64> {
            let all = list.iter().flat_map(|one| (0..one.len()).map(move |i| (one, i)));
            all.skip(skip as usize)
                .map_while(|(one, i)| Some(map.guest_address(one)? + u64::from(i)))
                .collect()
        };
        let pairs: Vec<(u64, u64)> =
            places(&from, &a, from_skip).into_iter().zip(places(&to, &b, to_skip)).take(n as usize).collect();
        let mut expected = vec![0xee; ROOM as usize];
        pairs.iter().for_each(|(from, to)| expected[*to as usize] = bytes[*from as usize]);

        assert_eq!(target.copy_from(&b, &a, &mut source, n) as usize, pairs.len(), "round {round}");
        let mut got = vec![0; ROOM as usize];
        b.read(&slice(&b, 0, ROOM), 0, &mut got);
        assert!(got == expected, "round {round}");
        // Both cursors stand behind what was copied.
        let next = bytes.len().min(40);
        let mut tail = vec![0; next];
        let had = source.read(&a, &mut tail);
        let rest = places(&from, &a, from_skip).into_iter().skip(pairs.len()).take(next);
        let rest: Vec<u8> = rest.map(|from| bytes[from as usize]).collect();
        assert_eq!(tail[..had], rest[..had.min(rest.len())], "round {round}");
        assert_eq!(had, rest.len(), "round {round}");
    }
}

#[test]
fn a_list_may_be_copied_within_one_memory() {
    let (map, _) = Map::anonymous(0x4000).unwrap();
    let bytes: Vec<u8> = (0..0x1000_u32).map(|i| (i * 13 + i / 256) as u8).collect();
    map.write(&slice(&map, 0x100, 0x1000), 0, &bytes);
    // The target begins in the middle of the source.
    let (from, to) = ([slice(&map, 0x100, 0x1000)], [slice(&map, 0x180, 0x1000)]);
    assert_eq!(Cursor::new(&to).copy_from(&map, &map, &mut Cursor::new(&from), 0x1000), 0x1000);
    let mut got = vec![0; 0x1000];
    map.read(&to[0], 0, &mut got);
    assert!(got == bytes);
}

#[test]
fn a_truncated_file_costs_only_its_map() {
    let file = memfd(0x20_0000);
    let keep = file.try_clone().unwrap();
    let map =
        Map::new(vec![RegionSpec { guest_addr: 0, user_addr: 0, len: 0x20_0000, offset: 0, file }]).unwrap();
    let (other, _) = Map::anonymous(0x1000).unwrap();
    let all = slice(&map, 0, 0x20_0000);
    map.write(&all, 0x10_0000, b"x");
    rustix::fs::ftruncate(&keep, 0).unwrap();
    assert!(!map.faulted());
    let mut bytes = [1_u8; 64];
    assert_eq!(map.read(&all, 0x10_0000, &mut bytes), 64);
    assert_eq!(bytes, [0; 64], "lost bytes read as zeros");
    assert!(map.faulted());
    assert!(!other.faulted());
    map.write(&all, 0x1f_0000, b"no second fault");
    let table = map.table::<u16>(AddressSpace::Guest, 0, 8).unwrap();
    assert_eq!(table.load(3), 0);
}

#[test]
fn mapping_and_unmapping_in_many_threads_leaves_the_registry_whole() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..200 {
                    let file = memfd(0x4000);
                    let keep = file.try_clone().unwrap();
                    let map = Map::new(vec![RegionSpec {
                        guest_addr: 0,
                        user_addr: 0,
                        len: 0x4000,
                        offset: 0,
                        file,
                    }])
                    .unwrap();
                    if round % 3 == 0 {
                        rustix::fs::ftruncate(&keep, 0).unwrap();
                        map.read(&slice(&map, 0x1000, 8), 0, &mut [0; 8]);
                        assert!(map.faulted());
                    } else {
                        map.read(&slice(&map, 0x1000, 8), 0, &mut [0; 8]);
                        assert!(!map.faulted());
                    }
                }
            });
        }
    });
}

#[test]
fn a_window_knows_one_region_and_no_more() {
    let map = Map::new(vec![spec(0x10_0000, 0x2000), spec(0, 0x1000)]).unwrap();
    let mut hint = Hint::default();
    for addr in [0, 0x10_0000] {
        let found = map.translate(addr + 4, 8, &mut hint).unwrap();
        let window = map.window(&hint);
        assert_eq!(window.slice(addr + 4, 8), Some(found));
        assert_eq!(window.slice(addr, 0), None);
        assert_eq!(window.slice(addr.wrapping_sub(1), 2), None);
        assert_eq!(window.slice(addr ^ 0x10_0000, 8), None);
        assert_eq!(window.slice(u64::MAX, 1), None);
        assert_eq!(window.slice(addr, u32::MAX), None);
    }
    assert_eq!(map.window(&hint).slice(0x10_1fff, 1), Some(slice(&map, 0x10_1fff, 1)));
    assert_eq!(map.window(&hint).slice(0x10_1fff, 2), None);
    let empty = Map::new(vec![]).unwrap();
    assert_eq!(empty.window(&hint).slice(0, 1), None);
}

#[test]
fn header_and_body_are_written_together_or_not_at_all() {
    let map = Map::new(vec![spec(0, 0x1000)]).unwrap();
    let other = Map::new(vec![spec(0, 0x1000)]).unwrap();
    let body: Vec<u8> = (0..200).collect();
    for len in [0, 1, 16, 17, 64, 200] {
        let target = slice(&map, 100, 12 + len);
        let body = &body[..len as usize];
        assert!(map.reach().write_both(&target, &[7; 12], body));
        let mut got = vec![0; 12 + body.len()];
        assert_eq!(map.read(&target, 0, &mut got), got.len());
        assert_eq!((&got[..12], &got[12..]), (&[7; 12][..], body));
        assert!(!map.reach().write_both(&slice(&map, 100, 11 + len), &[8; 12], body));
        assert!(!other.reach().write_both(&target, &[8; 12], body));
        assert_eq!(map.read(&target, 0, &mut got), got.len());
        assert_eq!(got[0], 7, "nothing was written");
    }
}
