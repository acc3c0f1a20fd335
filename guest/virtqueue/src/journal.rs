//! Where a packed ring stands, written where a successor finds it.
//!
//! A split ring tells by its used index what was given back. A packed ring does not: descriptors behind the first one of
//! a used chain look as if they were available, and a front end whose back end died knows no later position than the one
//! that it gave it. So the position is noted outside the ring, in memory that outlives the process: two stores a burst,
//! *before* it is published. Noted are the positions before and behind the burst and the used entry of its first chain,
//! whose flags are written last and publish all of it:
//!
//! ```text
//!   note      killed: nothing of the burst was given back, the position before it holds
//!   others    killed: some entries are written, and can not be taken back. The first one is written from the note, and
//!             the position behind the written ones holds. (So the burst's chains must have one descriptor each.)
//!   first     killed: the position behind the burst holds
//! ```
//!
//! Frames of a burst that was not given back are sent or received once more, or lost on their way to the guest.

use std::sync::Arc;

use fabnic_memory::{AddressSpace, Map, Table};

use crate::packed::{AVAIL, USED};

const WRAP: u16 = 1 << 15;

/// The place where the position of one packed ring is noted.
#[derive(Clone, Debug)]
pub struct Journal {
    words: Table<u64>,
    at: usize,
}

impl Journal {
    /// In `words`, from number `at` on; two words are used.
    pub fn new(words: Table<u64>, at: usize) -> Journal {
        Journal { words, at }
    }

    /// Says that a ring starts at a position: index in bits 0 to 14, wrap counter in bit 15.
    pub fn begin(&self, position: u16) {
        self.note(position, position, 0);
    }

    /// Says that a burst is about to be published, with this as the second word of its first used entry.
    #[inline(always)]
    pub(crate) fn note(&self, old: u16, new: u16, first: u64) {
        // The entry of the burst before is not needed any more: that one was published.
        self.words.store(self.at + 1, first);
        self.words.store_release(self.at, u64::from(old) | u64::from(new) << 16);
    }

    /// Where the ring stands that has its descriptors at `desc` and the device's event structure at `device` (addresses of
    /// the front end), after a burst that was published in part has been published as far as it was written. `None` if the
    /// ring does not look as if we had ever served it: its driver began anew.
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
        let is_used = |position: u16| (flags(position & !WRAP) & USED != 0) == (position & WRAP != 0);
        if old == new || is_used(old) {
            return Some(new);
        }
        let mut at = forward(old, size);
        if at == new || !is_used(at) {
            return Some(old);
        }
        while at != new && is_used(at) {
            at = forward(at, size);
        }
        let words = map.table::<u64>(AddressSpace::User, desc, 2 * usize::from(size)).ok()?;
        words.store_release(2 * usize::from(old & !WRAP) + 1, self.words.load(self.at + 1).to_le());
        Some(at)
    }
}

/// One descriptor further.
fn forward(position: u16, size: u16) -> u16 {
    let (index, wrap) = (position & !WRAP, position & WRAP);
    if index + 1 == size { wrap ^ WRAP } else { (index + 1) | wrap }
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

    /// Takes and publishes up to `count` chains; gives them.
    fn work(ring: &mut PackedRing, count: usize) -> Vec<Chain> {
        let mut slices: Vec<Slice> = Vec::with_capacity(4096);
        let mut chains: Vec<Chain> = Vec::with_capacity(64);
        ring.take::<false>(count, &mut slices, &mut chains).unwrap();
        ring.publish::<false>(&chains);
        chains
    }

    /// The words of the ring that used entries are written to.
    fn second_words(table: &Table<u64>) -> Vec<u64> {
        (0..usize::from(SIZE)).map(|index| table.load(2 * index + 1)).collect()
    }

    fn start(in_order: bool) -> (Arc<Map>, Driver, PackedRing, Journal) {
        let (map, _file) = Map::anonymous(1 << 20).unwrap();
        let driver = Driver::new(&map, RING, config(in_order));
        let journal = Journal::new(map.table(AddressSpace::User, RING + footprint(SIZE), 2).unwrap(), 0);
        let mut ring = PackedRing::open(&map, &driver.config()).unwrap();
        ring.set_journal(Some(journal.clone()));
        ring.disarm();
        (map, driver, ring, journal)
    }

    proptest! {
        /// Bursts of chains of any length go through, until the back end dies at some point of a publication. With its
        /// successor, the driver gets back each chain once and in order.
        #[test]
        fn nothing_is_lost_or_repeated_when_a_back_end_dies(
            in_order: bool,
            chained: bool,
            steps in prop::collection::vec((1_usize..4, 1_usize..4, 1_usize..6, any::<bool>()), 1..30),
            written in 0_usize..6,
        ) {
            let (map, mut driver, mut ring, journal) = start(in_order);
            let config = driver.config();
            let words: Table<u64> =
                map.table(AddressSpace::User, config.desc, 2 * usize::from(SIZE)).unwrap();
            let mut tokens = Vec::new();
            for (offers, length, count, reap) in steps {
                let length = if chained { length } else { 1 };
                for _ in 0..offers {
                    let buffer = Buffer { addr: 0x80000, len: 64, writable: false };
                    driver.offer(&vec![buffer; length], None);
                }
                let (before, old) = (second_words(&words), ring.position() & 0x7fff);
                let burst = work(&mut ring, count);
                let after = second_words(&words);
                // The burst is written as far as a dying back end may have: all but its last store, and less.
                let last = burst.iter().any(|chain| chain.entries > 1) && !in_order;
                let last = if last { burst.len().saturating_sub(1) } else { 0 };
                let skipped: u32 = burst.iter().take(last).map(|chain| u32::from(chain.entries)).sum();
                let first = ((old + skipped) % u32::from(SIZE)) as usize;
                let mut kept = 0;
                for by in 1..usize::from(SIZE) {
                    let index = (first + by) % usize::from(SIZE);
                    let is_written = before[index] != after[index];
                    if is_written && last == 0 {
                        kept += 1;
                        if kept > written {
                            words.store(2 * index + 1, before[index]);
                        }
                    }
                }
                words.store(2 * first + 1, before[first]);
                let found = journal.recover(&map, config.desc, config.device, SIZE);
                prop_assert!(found.is_some());
                let position = u32::from(found.unwrap());
                let base = position | position << 16;
                ring = PackedRing::open(&map, &RingConfig { base, ..config }).unwrap();
                prop_assert_eq!(ring.position(), base);
                ring.set_journal(Some(journal.clone()));
                while !work(&mut ring, 4).is_empty() {}
                if reap {
                    tokens.extend(driver.reap().iter().map(|used| used.token));
                }
            }
            while !work(&mut ring, 4).is_empty() {}
            tokens.extend(driver.reap().iter().map(|used| used.token));
            prop_assert_eq!(tokens, (0..driver.offered()).collect::<Vec<_>>());
        }

        /// Between bursts, and after any number of them, the noted position is the ring's.
        #[test]
        fn the_noted_position_is_the_ring_s(
            in_order: bool,
            steps in prop::collection::vec((1_usize..4, 1_usize..4, any::<bool>()), 1..40),
        ) {
            let (map, mut driver, mut ring, journal) = start(in_order);
            let config = driver.config();
            for (offers, length, reap) in steps {
                for _ in 0..offers {
                    let buffer = Buffer { addr: 0x80000, len: 64, writable: false };
                    driver.offer(&vec![buffer; length], None);
                }
                work(&mut ring, 2);
                if reap {
                    driver.reap();
                }
                let found = journal.recover(&map, config.desc, config.device, SIZE);
                prop_assert_eq!(found.map(u32::from), Some(ring.position() & 0xffff));
            }
        }
    }

    #[test]
    fn a_ring_that_was_begun_anew_is_not_gone_on_with() {
        let (map, mut driver, mut ring, journal) = start(false);
        let config = driver.config();
        let buffer = Buffer { addr: 0x80000, len: 64, writable: false };
        for _ in 0..11 {
            driver.offer(&[buffer], None);
            work(&mut ring, 1);
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
        let words = map.table(AddressSpace::User, 0, 2).unwrap();
        let journal = Journal::new(words, 0);
        journal.note(SIZE, 0, 0);
        assert_eq!(journal.recover(&map, RING, RING + 0x800, SIZE), None);
        journal.note(0, u16::MAX, 0);
        assert_eq!(journal.recover(&map, RING, RING + 0x800, SIZE), None);
        journal.note(0, 0, 0);
        assert_eq!(journal.recover(&map, 1 << 30, RING + 0x800, SIZE), None);
    }
}
