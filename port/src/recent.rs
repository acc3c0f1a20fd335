//! The last frames that ended at a port, kept for whoever asks why.
//!
//! Counters say how many frames were dropped and for which reason; this says which. A worker that drops shows one frame of
//! the burst, at most; what it finds locked it passes over, so that nobody waits.
//!
//! # Invariants
//! * Bounded: [`RecentDrops::KEPT`] frames a port, [`RecentDrops::BYTES`] bytes of each.

use parking_lot::Mutex;

use crate::{Direction, DropReason};

/// The first bytes of a frame that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentDrop {
    /// A number that grows with each drop that was kept.
    pub number: u64,
    /// Second, since the switch was started.
    pub second: u32,
    /// In: it came from the port and went no further. Out: it could not be delivered to the port.
    pub direction: Direction,
    /// Why.
    pub reason: DropReason,
    /// Its whole length in bytes.
    pub len: u32,
    /// Its first bytes.
    pub head: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u64,
    second: u32,
    direction: Direction,
    reason: DropReason,
    len: u32,
    kept: u8,
    head: [u8; RecentDrops::BYTES],
}

#[derive(Debug)]
struct Ring {
    slots: Vec<Slot>,
    next: u64,
}

/// The last frames that were dropped at a port.
#[derive(Debug)]
pub struct RecentDrops(Mutex<Ring>);

impl Default for RecentDrops {
    fn default() -> RecentDrops {
        RecentDrops(Mutex::new(Ring { slots: Vec::new(), next: 0 }))
    }
}

impl RecentDrops {
    /// How many are kept.
    pub const KEPT: usize = 32;
    /// How many bytes of each are kept.
    pub const BYTES: usize = 128;

    /// Keeps a frame in the place of the oldest. The first one of a port allocates.
    #[cold]
    pub fn keep(&self, second: u32, direction: Direction, reason: DropReason, len: u32, head: &[u8]) {
        let Some(mut ring) = self.0.try_lock() else { return };
        let number = ring.next;
        ring.next += 1;
        let mut slot =
            Slot { number, second, direction, reason, len, kept: 0, head: [0; RecentDrops::BYTES] };
        for (to, from) in slot.head.iter_mut().zip(head) {
            *to = *from;
            slot.kept += 1;
        }
        let place = (number % RecentDrops::KEPT as u64) as usize;
        if ring.slots.capacity() == 0 {
            ring.slots.reserve_exact(RecentDrops::KEPT);
        }
        match ring.slots.get_mut(place) {
            Some(old) => *old = slot,
            None => ring.slots.push(slot),
        }
    }

    /// What is kept, the newest first.
    pub fn list(&self) -> Vec<RecentDrop> {
        let mut all = self.0.lock().slots.clone();
        all.sort_unstable_by_key(|slot| core::cmp::Reverse(slot.number));
        all.iter()
            .map(|slot| RecentDrop {
                number: slot.number,
                second: slot.second,
                direction: slot.direction,
                reason: slot.reason,
                len: slot.len,
                head: slot.head.get(..usize::from(slot.kept)).unwrap_or(&[]).to_vec(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let drops = RecentDrops::default();
        assert!(drops.list().is_empty());
        for n in 0..40_u8 {
            drops.keep(n.into(), Direction::In, DropReason::NoMember, 300, &vec![n; usize::from(n) * 5]);
        }
        let list = drops.list();
        assert_eq!(list.len(), RecentDrops::KEPT);
        assert_eq!(
            list.iter().map(|drop| drop.number).collect::<Vec<_>>(),
            (8..40).rev().collect::<Vec<_>>()
        );
        assert_eq!(list[0].head, [39; 128]);
        assert_eq!(list[31].head, [8; 40]);
    }
}
