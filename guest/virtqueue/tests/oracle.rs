//! Rings that are nearly right, and often wholly: what fuzzing from random bytes seldom makes. They go through the
//! bodies of the fuzz targets, which hold the rings against `virtio-queue` and the specification.

use proptest::prelude::*;

#[path = "fuzz/ring_packed.rs"]
mod ring_packed;
use ring_packed::ring_split;

/// A descriptor of a ring of `size`: mostly a buffer in memory, a table at times, seldom nonsense.
fn descriptor(size: u16) -> impl Strategy<Value = [u8; 16]> {
    let addr = prop_oneof![40 => 0_u64..0xf00, 1 => any::<u64>()];
    let len = prop_oneof![40 => 0_u32..0x100, 1 => any::<u32>()];
    let flags = prop_oneof![
        8 => Just(0_u16), 6 => Just(1), 8 => Just(2), 4 => Just(3), 4 => Just(4), 1 => any::<u16>()
    ];
    let next = prop_oneof![20 => 0..size, 1 => any::<u16>()];
    (addr, len, flags, next).prop_map(|(addr, len, flags, next)| {
        // A table is within what is laid out in its shape below.
        let (addr, len) = if flags == 4 { (0x800 + addr % 0x78 * 16, len % 8 * 16) } else { (addr, len) };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        bytes
    })
}

/// The first bytes of a split input: ring at 0, tables from 0x800 on, available ring at [`ring_split::DRIVER`].
fn split() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..7).prop_flat_map(|log| {
        let size = 1_u16 << log;
        let entries = prop_oneof![20 => 0..size, 1 => any::<u16>()];
        (
            any::<u8>(),
            any::<u16>(),
            prop::collection::vec(descriptor(size), usize::from(size)),
            prop::collection::vec(descriptor(8), 64),
            0..size + 2,
            prop::collection::vec(entries, usize::from(size)),
            any::<u16>(),
        )
            .prop_map(move |(flags, start, ring, tables, ahead, entries, event)| {
                let mut bytes = vec![log, flags];
                bytes.extend(start.to_le_bytes());
                let mut memory = vec![0; ring_split::MEMORY as usize];
                memory[..16 * ring.len()].copy_from_slice(ring.as_flattened());
                memory[0x800..0xc00].copy_from_slice(tables.as_flattened());
                memory[0xc00..0x1000].copy_from_slice(tables.as_flattened());
                let at = ring_split::DRIVER as usize;
                memory[at + 2..at + 4].copy_from_slice(&ahead.to_le_bytes());
                for (index, entry) in entries.iter().enumerate() {
                    memory[at + 4 + 2 * index..][..2].copy_from_slice(&entry.to_le_bytes());
                }
                // Near what will be published, or anywhere.
                let event = if event & 0x8000 == 0 { start.wrapping_add(event % 40) } else { event };
                memory[at + 4 + 2 * entries.len()..][..2].copy_from_slice(&event.to_le_bytes());
                bytes.extend(memory);
                bytes
            })
    })
}

fn packed() -> impl Strategy<Value = Vec<u8>> {
    (1_u16..100).prop_flat_map(|size| {
        (
            any::<[u8; 2]>(),
            0..size,
            0..size + 1,
            prop::collection::vec((descriptor(size), 0..20_u8), usize::from(size)),
            prop::collection::vec(descriptor(8), 64),
        )
            .prop_map(move |([flags, lap], start, ahead, ring, tables)| {
                let mut memory = vec![0; 0x1000];
                let wrap = lap & 1 != 0;
                for by in 0..size {
                    // Available from the start on as far as it goes, used in the lap before behind that.
                    let index = (start + by) % size;
                    let lap = wrap != (start + by >= size);
                    let bits = match (by < ahead, lap) {
                        (true, true) => 0x80_u16,
                        (true, false) => 0x8000,
                        (false, true) => 0,
                        (false, false) => 0x8080,
                    };
                    let (descriptor, noise) = ring[usize::from(index)];
                    let place = &mut memory[16 * usize::from(index)..][..16];
                    place[..12].copy_from_slice(&descriptor[..12]);
                    // In this layout the id comes before the flags.
                    place[12..14].copy_from_slice(&descriptor[14..]);
                    let flags = u16::from_le_bytes([descriptor[12], descriptor[13]]) & 0x7f7f | bits;
                    place[14..].copy_from_slice(&(if noise == 0 { 0x80 } else { flags }).to_le_bytes());
                }
                for (index, descriptor) in tables.iter().enumerate() {
                    let place = &mut memory[0x800 + 16 * index..][..16];
                    place.copy_from_slice(descriptor);
                    place[12..].rotate_left(2);
                }
                let mut bytes = vec![size as u8, flags];
                bytes.extend((start | u16::from(wrap) << 15).to_le_bytes());
                bytes.extend(memory);
                bytes
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn split_rings_agree(input in split()) {
        ring_split::run(&input);
    }

    #[test]
    fn packed_rings_agree(input in packed()) {
        ring_packed::run(&input);
    }
}
