//! A packed ring of a guest's choice, byte for byte. There is no other implementation to hold it against (rust-vmm has
//! none), so the first look is held against a slow walk over the same bytes; after it, every call has to end with
//! nothing grown.

use std::sync::Arc;

use fabnic_memory::{Hint, Map, Slice};
use fabnic_virtqueue::{Chain, MAX_CHAIN, PackedRing, Ring, RingConfig};

#[allow(dead_code, reason = "the fuzz target needs only the device that drives any ring")]
#[path = "ring_split.rs"]
pub(crate) mod ring_split;

const MEMORY: u64 = 0x1000;
const DRIVER: u64 = 0x700;
const DEVICE: u64 = 0x710;

thread_local! {
    // Mapping it anew for each input is what most of the time would go into.
    static MAPPED: Arc<Map> = Map::anonymous(MEMORY).expect("memory").0;
}

/// One byte of size, one of flags, two where the ring stands, then the guest's memory from address 0 on.
pub(crate) fn run(data: &[u8]) {
    let Some((&[size, flags, low, high], memory)) = data.split_first_chunk() else { return };
    let map = MAPPED.with(Arc::clone);
    let all = map.translate(0, MEMORY as u32, &mut Hint::default()).expect("all of it");
    map.write(&all, 0, &[0; MEMORY as usize]);
    map.write(&all, 0, memory);
    let position = u32::from(low) | u32::from(high) << 8;
    let config = RingConfig {
        size: u16::from(size) % 100,
        packed: true,
        desc: 0,
        driver: DRIVER,
        device: DEVICE,
        event_idx: flags & 1 != 0,
        in_order: flags & 2 != 0,
        base: position | position << 16,
    };
    let Ok(mut ring) = PackedRing::open(&map, &config) else {
        assert!(
            config.size == 0 || position & 0x7fff >= u32::from(config.size),
            "a ring that is right is opened"
        );
        return;
    };
    let position = ring.position();
    assert!(position & 0x7fff < u32::from(config.size) && position >> 16 == position & 0xffff);
    first_look::<false>(&map, &config, position);
    first_look::<true>(&map, &config, position);
    ring_split::drive(&mut ring, flags, &map);
}

fn number(map: &Map, addr: u64, len: usize) -> u64 {
    let mut bytes = [0; 8];
    let place = map.translate(addr, len as u32, &mut Hint::default()).expect("inside");
    map.read(&place, 0, &mut bytes[..len]);
    u64::from_le_bytes(bytes)
}

/// Address, length, id, flags.
fn descriptor(map: &Map, at: u64) -> (u64, u32, u16, u16) {
    let half = |by| number(map, at + by, 2) as u16;
    (number(map, at, 8), number(map, at + 8, 4) as u32, half(12), half(14))
}

/// Id, descriptors and buffers of the chain at a position; nothing if none is available there, an error if it breaks a
/// rule (sections 2.8.1 to 2.8.7).
type Walked = Result<Option<(u16, u16, Vec<(u64, u32, bool)>)>, ()>;

fn walk(map: &Map, size: u16, mut index: u16, wrap: bool) -> Walked {
    let (_, _, _, flags) = descriptor(map, 16 * u64::from(index));
    if ((flags & 0x80 != 0) != wrap) || ((flags & 0x8000 != 0) == wrap) {
        return Ok(None);
    }
    let mut buffers = Vec::new();
    for count in 1..=size {
        let (addr, len, id, flags) = descriptor(map, 16 * u64::from(index));
        if flags & 4 != 0 {
            let is_table = len > 0 && len % 16 == 0 && len as usize / 16 <= MAX_CHAIN;
            let inside = addr.checked_add(u64::from(len)).is_some_and(|end| end <= MEMORY);
            if count > 1 || flags & 1 != 0 || !is_table || !inside {
                return Err(());
            }
            for entry in 0..u64::from(len / 16) {
                let (addr, len, _, flags) = descriptor(map, addr + 16 * entry);
                if flags & 4 != 0 {
                    return Err(());
                }
                buffers.push((addr, len, flags & 2 != 0));
            }
            return Ok(Some((id, 1, buffers)));
        }
        buffers.push((addr, len, flags & 2 != 0));
        if flags & 1 == 0 {
            return Ok(Some((id, count, buffers)));
        }
        index = (index + 1) % size;
    }
    Err(())
}

/// The first chain, of the kind that is asked for.
fn first_look<const WRITABLE: bool>(map: &Arc<Map>, config: &RingConfig, position: u32) {
    let mut ring = PackedRing::open(map, config).expect("it was opened before");
    let (mut slices, mut chains) =
        (Vec::<Slice>::with_capacity(2 * MAX_CHAIN), Vec::<Chain>::with_capacity(1));
    let taken = ring.take::<WRITABLE>(1, &mut slices, &mut chains);
    let walked = walk(map, config.size, (position & 0x7fff) as u16, position & 0x8000 != 0);
    let inside = |buffers: &[(u64, u32, bool)]| -> Option<Vec<Slice>> {
        let wanted = buffers.iter().filter(|(_, len, kind)| *kind == WRITABLE && *len > 0);
        wanted.map(|(addr, len, _)| map.translate(*addr, *len, &mut Hint::default())).collect()
    };
    match (taken, walked) {
        (Ok(0), Ok(None)) => assert!(chains.is_empty()),
        (Ok(1), Ok(Some((id, entries, buffers)))) => {
            assert_eq!((chains[0].id, chains[0].entries), (id, entries));
            assert_eq!(Some(chains[0].slices(&slices)), inside(&buffers).as_deref());
        }
        (Err(_), Err(())) => {}
        (Err(error), Ok(Some((_, _, buffers)))) => assert!(inside(&buffers).is_none(), "{error}"),
        (taken, walked) => panic!("{taken:?}, expected {walked:?}"),
    }
}
