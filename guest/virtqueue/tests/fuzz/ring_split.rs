//! A split ring of a guest's choice, byte for byte, held against a slow walk over the same bytes that follows the
//! specification line by line, and against rust-vmm's `virtio-queue`.

use std::sync::Arc;

use fabnic_memory::{Hint, Map, Slice};
use fabnic_virtqueue::{Chain, MAX_CHAIN, Ring, RingConfig, RingError, SplitRing};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes of the guest's memory.
pub(crate) const MEMORY: u64 = 0x1000;
/// Where the rings of [`run`] are; their bytes and all others are the input's.
pub(crate) const DRIVER: u64 = 0x400;
pub(crate) const DEVICE: u64 = 0x500;

/// One byte of size, one of flags, two where the ring stands, then the guest's memory from address 0 on.
pub(crate) fn run(data: &[u8]) {
    let Some((&[size, flags, low, high], memory)) = data.split_first_chunk() else { return };
    let config = RingConfig {
        size: 1 << (size % 7),
        packed: false,
        desc: 0,
        driver: DRIVER,
        device: DEVICE,
        event_idx: flags & 1 != 0,
        in_order: false,
        base: 0,
    };
    compare(&config, u16::from_le_bytes([low, high]), memory);
    survive(&config, flags, memory);
}

/// The same memory twice.
#[derive(Clone)]
struct Twins {
    ours: Arc<Map>,
    theirs: GuestMemoryMmap,
}

thread_local! {
    // Mapping it anew for each input is what most of the time would go into.
    static MAPPED: Twins = Twins {
        ours: Map::anonymous(MEMORY).expect("memory").0,
        theirs: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("memory"),
    };
}

impl Twins {
    /// Memory that begins with these bytes and has zeros behind them.
    fn new(bytes: &[u8]) -> Twins {
        let twins = MAPPED.with(Clone::clone);
        let mut all = bytes.get(..MEMORY as usize).unwrap_or(bytes).to_vec();
        all.resize(MEMORY as usize, 0);
        twins.write(0, &all);
        twins
    }

    fn write(&self, addr: u64, bytes: &[u8]) {
        let place = self.ours.translate(addr, bytes.len() as u32, &mut Hint::default()).expect("inside");
        self.ours.write(&place, 0, bytes);
        self.theirs.write_slice(bytes, GuestAddress(addr)).expect("inside");
    }

    fn number(&self, addr: u64, len: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let end = addr.checked_add(len as u64)?;
        if end > MEMORY {
            return None;
        }
        self.theirs.read_slice(&mut bytes[..len], GuestAddress(addr)).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn u16(&self, addr: u64) -> u16 {
        self.number(addr, 2).expect("inside") as u16
    }
}

/// What a chain is made of: buffers with address, length and whether the device may write it.
type Buffers = Vec<(u64, u32, bool)>;

/// The specification, step by step (sections 2.7.5 to 2.7.8). `None`: the driver broke a rule.
fn walk(twins: &Twins, config: &RingConfig, head: u16) -> Option<Buffers> {
    let mut buffers = Vec::new();
    let (mut table, mut limit, mut nested) = (config.desc, u32::from(config.size), false);
    let (mut index, mut steps) = (u32::from(head), 0);
    loop {
        if index >= limit || steps == limit {
            return None;
        }
        steps += 1;
        let at = table + 16 * u64::from(index);
        let (addr, len) = (twins.number(at, 8)?, twins.number(at + 8, 4)? as u32);
        let (flags, next) = (twins.u16(at + 12), twins.u16(at + 14));
        if flags & 4 != 0 {
            let is_table = len > 0 && len % 16 == 0 && len as usize / 16 <= MAX_CHAIN;
            if nested || flags & 1 != 0 || !is_table || addr.checked_add(u64::from(len))? > MEMORY {
                return None;
            }
            (table, limit, nested, index, steps) = (addr, len / 16, true, 0, 0);
            continue;
        }
        buffers.push((addr, len, flags & 2 != 0));
        if flags & 1 == 0 {
            return Some(buffers);
        }
        index = u32::from(next);
    }
}

/// Whether the buffers of a kind lie in memory.
fn are_inside(buffers: &Buffers, writable: bool) -> bool {
    buffers
        .iter()
        .filter(|(_, len, kind)| *kind == writable && *len > 0)
        .all(|(addr, len, _)| addr.checked_add(u64::from(*len)).is_some_and(|end| end <= MEMORY))
}

fn take<const WRITABLE: bool>(
    map: &Arc<Map>,
    config: &RingConfig,
) -> Result<(SplitRing, Vec<Chain>, Vec<Slice>), RingError> {
    let mut ring = SplitRing::open(map, config)?;
    let (mut slices, mut chains) = (Vec::with_capacity(64 * MAX_CHAIN), Vec::with_capacity(64));
    let count = ring.take::<WRITABLE>(64, &mut slices, &mut chains)?;
    assert_eq!(count, chains.len());
    Ok((ring, chains, slices))
}

/// Takes all that waits, uses it, and compares each step.
pub(crate) fn compare(config: &RingConfig, start: u16, memory: &[u8]) {
    let twins = Twins::new(memory);
    let size = config.size;
    // Both begin where the used index says; how far the driver is stays as the input has it, modulo a little more than
    // the ring's size.
    let ahead = twins.u16(config.driver + 2) % (size + 2);
    twins.write(config.device + 2, &start.to_le_bytes());
    twins.write(config.driver + 2, &start.wrapping_add(ahead).to_le_bytes());
    let config = RingConfig { base: u32::from(start), ..*config };

    let heads: Vec<u16> = (0..ahead)
        .map(|by| twins.u16(config.driver + 4 + 2 * u64::from(start.wrapping_add(by) % size)))
        .collect();
    let expected: Option<Vec<Buffers>> = heads
        .iter()
        .map(|head| walk(&twins, &config, *head))
        .collect::<Option<_>>()
        .filter(|_| ahead <= size);
    let check = |taken: Result<(SplitRing, Vec<Chain>, Vec<Slice>), RingError>, writable: bool| {
        let expected = expected.as_ref().filter(|all| all.iter().all(|one| are_inside(one, writable)));
        let (ring, chains, slices) = match (taken, expected) {
            (Ok(taken), Some(_)) => taken,
            (Err(_), None) => return None,
            (Ok(_), None) => panic!("a broken rule was not noticed"),
            (Err(error), Some(_)) => panic!("{error}"),
        };
        let ids: Vec<u16> = chains.iter().map(|chain| chain.id).collect();
        assert_eq!(ids, heads);
        for (chain, buffers) in chains.iter().zip(expected?) {
            let buffers = buffers.iter().filter(|(_, len, kind)| *kind == writable && *len > 0);
            let same = buffers.map(|(addr, len, _)| twins.ours.translate(*addr, *len, &mut Hint::default()));
            let same: Vec<Slice> = same.map(|slice| slice.expect("inside")).collect();
            assert_eq!(chain.slices(&slices), same);
            assert_eq!(u64::from(chain.len), same.iter().map(|slice| u64::from(slice.len())).sum::<u64>());
        }
        Some((ring, chains))
    };
    let readable = check(take::<false>(&twins.ours, &config), false);
    check(take::<true>(&twins.ours, &config), true);
    let Some((ring, chains)) = readable else { return };
    against_virtio_queue(&twins, &config, start, &expected.expect("just compared"), ring, &chains);
}

/// The parts of the contract on which `virtio-queue` agrees: it does not know what a guest must not do, so only what was
/// right so far gets here.
fn against_virtio_queue(
    twins: &Twins,
    config: &RingConfig,
    start: u16,
    expected: &[Buffers],
    mut ring: SplitRing,
    chains: &[Chain],
) {
    let mut queue = Queue::new(config.size).expect("a size that it takes");
    queue.try_set_desc_table_address(GuestAddress(config.desc)).expect("aligned");
    queue.try_set_avail_ring_address(GuestAddress(config.driver)).expect("aligned");
    queue.try_set_used_ring_address(GuestAddress(config.device)).expect("aligned");
    queue.set_event_idx(config.event_idx);
    queue.set_next_avail(start);
    queue.set_next_used(start);
    queue.set_ready(true);
    for (chain, buffers) in chains.iter().zip(expected) {
        let theirs = queue.pop_descriptor_chain(&twins.theirs).expect("as many chains");
        assert_eq!(theirs.head_index(), chain.id);
        let total: u64 = buffers.iter().map(|(_, len, _)| u64::from(*len)).sum();
        if total <= u64::from(u32::MAX) {
            let list = theirs.map(|d| (d.addr().0, d.len(), d.is_write_only()));
            assert_eq!(list.collect::<Buffers>(), *buffers);
        }
    }
    assert!(queue.pop_descriptor_chain(&twins.theirs).is_none());

    // Two publications, so that the second one's interrupt does not hang on there being a first.
    for half in [&chains[..chains.len() / 2], &chains[chains.len() / 2..]] {
        let is_first = half.first() == chains.first();
        let ours = ring.publish::<false>(half);
        for chain in half {
            queue.add_used(&twins.theirs, chain.id, 0).expect("a head of the ring");
        }
        let theirs = queue.needs_notification(&twins.theirs).expect("in memory");
        if config.event_idx && !half.is_empty() && !is_first {
            assert_eq!(ours, theirs, "interrupt");
        }
    }
    assert_eq!(ring.position(), u32::from(queue.next_avail()));
    assert_eq!(ring.arm(), queue.enable_notification(&twins.theirs).expect("in memory"));
    let all = twins.ours.translate(0, MEMORY as u32, &mut Hint::default()).expect("all of it");
    let (mut ours, mut theirs) = (vec![0; MEMORY as usize], vec![0; MEMORY as usize]);
    twins.ours.read(&all, 0, &mut ours);
    twins.theirs.read_slice(&mut theirs, GuestAddress(0)).expect("all of it");
    assert_eq!(ours, theirs, "what was written");
}

/// Whatever the input is, every call ends, and nothing grows.
pub(crate) fn survive(config: &RingConfig, seed: u8, memory: &[u8]) {
    let twins = Twins::new(memory);
    let Ok(mut ring) = SplitRing::open(&twins.ours, &RingConfig { in_order: seed & 2 != 0, ..*config })
    else {
        return;
    };
    drive(&mut ring, seed, &twins.ours);
}

/// A device that does all that devices do, in an order that the seed says.
pub(crate) fn drive<R: Ring>(ring: &mut R, seed: u8, map: &Map) {
    let (mut slices, mut chains) =
        (Vec::<Slice>::with_capacity(2 * MAX_CHAIN), Vec::<Chain>::with_capacity(64));
    let room = (slices.capacity(), chains.capacity());
    for round in 0..4_u8 {
        let step = seed.rotate_left(u32::from(round));
        slices.clear();
        chains.clear();
        let before = ring.position();
        let waits = ring.backlog();
        let taken = match step & 1 {
            0 => ring.take::<false>(usize::from(step % 65), &mut slices, &mut chains),
            _ => ring.take::<true>(usize::from(step % 65), &mut slices, &mut chains),
        };
        assert_eq!((slices.capacity(), chains.capacity()), room, "nothing grows");
        let Ok(count) = taken else {
            assert!(chains.is_empty() && slices.is_empty() && ring.position() == before, "nothing is taken");
            assert!(waits > 0, "an error is found by looking");
            return;
        };
        assert!(count == chains.len() && count <= usize::from(step % 65));
        for chain in &chains {
            let own = chain.slices(&slices);
            assert_eq!(own.len(), chain.count as usize);
            assert!(own.iter().all(|slice| map.owns(slice) && !slice.is_empty()));
        }
        let (used, rest) = chains.split_at(usize::from(step >> 4).min(chains.len()));
        ring.publish::<true>(used);
        ring.give_back(rest);
        match step & 2 {
            0 => ring.disarm(),
            _ => drop(ring.arm()),
        }
        ring.in_use();
    }
}
