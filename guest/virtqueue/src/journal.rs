//! Where a packed ring stands, written where a successor finds it.
//!
//! A split ring tells by its used index what was given back. A packed ring does not: descriptors behind the first one of
//! a used chain look as if they were available, and a front end whose back end died knows no later position than the one
//! that it gave it. So the position is noted outside the ring, in memory that outlives the process: one store a burst,
//! *before* the burst is published, of both the position before it and the one after it. Which of the two holds is seen
//! in the ring: a burst is published by the flags of its first descriptor.
//!
//! ```text
//!   note (old, new)  ->  write used entries  ->  flags of the first one, at `old`
//!        killed here: old is not used, so `old` holds      killed here: `new` holds
//! ```

use std::sync::Arc;

use fabnic_memory::{AddressSpace, Map, Table};

use crate::packed::{AVAIL, USED};

const WRAP: u16 = 1 << 15;

/// A word that holds the position of one packed ring.
#[derive(Clone, Debug)]
pub struct Journal {
    words: Table<u64>,
    at: usize,
}

impl Journal {
    /// The word number `at` of `words`.
    pub fn new(words: Table<u64>, at: usize) -> Journal {
        Journal { words, at }
    }

    /// Says that a ring starts at a position: index in bits 0 to 14, wrap counter in bit 15.
    pub fn begin(&self, position: u16) {
        self.note(position, position);
    }

    /// Says that a burst is about to be published.
    #[inline(always)]
    pub(crate) fn note(&self, old: u16, new: u16) {
        self.words.store_release(self.at, u64::from(old) | u64::from(new) << 16);
    }

    /// Where the ring stands that has its descriptors at `desc` and the device's event structure at `device` (addresses of
    /// the front end). `None` if it does not look as if we had ever served it: its driver began anew.
    pub fn recover(&self, map: &Arc<Map>, desc: u64, device: u64, size: u16) -> Option<u16> {
        let [a, b, c, d, ..] = self.words.load_acquire(self.at).to_le_bytes();
        let (old, new) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        if old & !WRAP >= size || new & !WRAP >= size {
            return None;
        }
        let ring = map.table::<[u64; 2]>(AddressSpace::User, desc, usize::from(size)).ok()?;
        let words = |index: u16| ring.load_acquire(usize::from(index)).map(u64::from_le);
        let flags = |index: u16| {
            let [.., low, high] = words(index)[1].to_le_bytes();
            u16::from_le_bytes([low, high]) & (AVAIL | USED)
        };
        // Of a ring that was begun anew, each descriptor is either still blank or available in the first lap, and nobody
        // has said when the device wants kicks. We always have, and never by a zero.
        let event = map.table::<u32>(AddressSpace::User, device, 1).ok()?.load(0);
        if event == 0 && (0..size).all(|index| flags(index) == AVAIL || words(index) == [0, 0]) {
            return None;
        }
        let is_published = (flags(old & !WRAP) & USED != 0) == (old & WRAP != 0);
        Some(if is_published { new } else { old })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Buffer, Driver, footprint};
    use crate::{Chain, PackedRing, Ring, RingConfig};
    use fabnic_memory::Slice;
    use proptest::prelude::*;

    const SIZE: u16 = 8;
    const RING: u64 = 0x1000;

    fn config(in_order: bool) -> RingConfig {
        RingConfig {
            size: SIZE,
            packed: true,
            desc: 0,
            driver: 0,
            device: 0,
            event_idx: false,
            in_order,
            base: 0,
        }
    }

    /// Takes and publishes up to `count` chains; gives how many.
    fn work(ring: &mut PackedRing, count: usize, publish: bool) -> usize {
        let mut slices: Vec<Slice> = Vec::with_capacity(4096);
        let mut chains: Vec<Chain> = Vec::with_capacity(64);
        let taken = ring.take::<false>(count, &mut slices, &mut chains).unwrap();
        if publish {
            ring.publish::<false>(&chains);
        }
        taken
    }

    /// What a killed back end leaves: the words of the ring as they were before the burst was published.
    fn undo_publication(map: &Arc<Map>, desc: u64, at: u16, before: u64) {
        let words = map.table::<u64>(AddressSpace::User, desc, 2 * usize::from(SIZE)).unwrap();
        words.store(2 * usize::from(at & !WRAP) + 1, before);
    }

    proptest! {
        /// Bursts of chains of any length go through; at any point the back end dies, before or after its last burst
        /// became visible. The successor goes on exactly behind what the driver got back.
        #[test]
        fn a_successor_goes_on_where_the_driver_waits(
            in_order: bool,
            steps in prop::collection::vec((1_usize..4, 1_usize..4, any::<bool>()), 1..40),
            visible: bool,
        ) {
            let (map, _file) = Map::anonymous(1 << 20).unwrap();
            let mut driver = Driver::new(&map, RING, config(in_order));
            let config = driver.config();
            let journal = Journal::new(map.table(AddressSpace::User, RING + footprint(SIZE), 1).unwrap(), 0);
            let mut ring = PackedRing::open(&map, &config).unwrap();
            ring.set_journal(Some(journal.clone()));
            let start = ring.position();
            for (offers, length, reap) in steps {
                for _ in 0..offers {
                    let buffer = Buffer { addr: 0x80000, len: 64, writable: false };
                    driver.offer(&vec![buffer; length], None);
                }
                let before = ring.position();
                let at = (before & 0xffff) as u16;
                let words = map.table::<u64>(AddressSpace::User, config.desc, 2 * usize::from(SIZE)).unwrap();
                let word = words.load(2 * usize::from(at & !WRAP) + 1);
                if !ring.arm() {
                    continue;
                }
                let done = work(&mut ring, 2, true);
                let found = |expected: u32| -> Result<(), TestCaseError> {
                    match journal.recover(&map, config.desc, config.device, SIZE) {
                        Some(at) => prop_assert_eq!(u32::from(at), expected & 0xffff),
                        None => prop_assert!(false, "not recognised at {:#x}, begun at {:#x}", expected, start),
                    }
                    Ok(())
                };
                if done > 0 && !visible {
                    let after = words.load(2 * usize::from(at & !WRAP) + 1);
                    undo_publication(&map, config.desc, at, word);
                    found(before)?;
                    undo_publication(&map, config.desc, at, after);
                }
                if reap {
                    driver.reap();
                }
                found(ring.position())?;
            }
        }
    }

    #[test]
    fn a_ring_that_was_begun_anew_is_not_gone_on_with() {
        let (map, _file) = Map::anonymous(1 << 20).unwrap();
        let mut driver = Driver::new(&map, RING, config(false));
        let config = driver.config();
        let journal = Journal::new(map.table(AddressSpace::User, RING + footprint(SIZE), 1).unwrap(), 0);
        let mut ring = PackedRing::open(&map, &config).unwrap();
        ring.set_journal(Some(journal.clone()));
        let buffer = Buffer { addr: 0x80000, len: 64, writable: false };
        for _ in 0..11 {
            driver.offer(&[buffer], None);
            ring.disarm();
            work(&mut ring, 1, true);
            driver.reap();
        }
        assert_eq!(journal.recover(&map, config.desc, config.device, SIZE), Some(3));
        // The guest rebooted, and its driver has already filled half of the ring.
        let mut driver = Driver::new(&map, RING, config);
        assert_eq!(journal.recover(&map, config.desc, config.device, SIZE), None);
        for _ in 0..4 {
            driver.offer(&[buffer], None);
        }
        assert_eq!(journal.recover(&map, config.desc, config.device, SIZE), None);
    }

    #[test]
    fn a_spoilt_note_is_no_position() {
        let (map, _file) = Map::anonymous(1 << 20).unwrap();
        let words = map.table(AddressSpace::User, 0, 1).unwrap();
        let journal = Journal::new(words, 0);
        journal.note(SIZE, 0);
        assert_eq!(journal.recover(&map, RING, RING + 0x800, SIZE), None);
        journal.note(0, u16::MAX);
        assert_eq!(journal.recover(&map, RING, RING + 0x800, SIZE), None);
        journal.note(0, 0);
        assert_eq!(journal.recover(&map, 1 << 30, RING + 0x800, SIZE), None);
    }
}
