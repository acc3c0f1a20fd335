//! What a cached decision depends on: counters that change when state changes by itself.
//!
//! Addresses are learned and move, bindings come by snooping, groups are joined, connections change their state. A decision
//! that was made from such state holds the counter that the state falls on, as it was; when it differs, the decision is
//! made anew. There is one counter for every so many pieces of state, so one change outdates a few cached flows, not all,
//! and nobody sweeps.
//!
//! # Invariants
//! * A counter is read *before* the state is looked up: a change in between makes the decision stale at once.
//! * [`Versions::changes`] differs after each change of any counter: while it stands, a decision that was good is good.

use core::sync::atomic::{AtomicU32, Ordering};

const SLOTS: usize = 16 * 1024;

/// One counter, as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) slot: u32,
    pub(crate) value: u32,
}

/// The counters; one set for a switch.
#[derive(Debug)]
pub(crate) struct Versions {
    slots: Box<[AtomicU32]>,
    changes: AtomicU32,
}

impl Versions {
    pub(crate) fn new() -> Versions {
        Versions { slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(), changes: AtomicU32::new(0) }
    }

    /// The counter that state with this hash falls on. The hash must be keyed: whoever chooses the state must not choose
    /// the slot.
    pub(crate) fn slot(hash: u64) -> u32 {
        (hash >> 24) as u32 % SLOTS as u32
    }

    /// A counter now.
    #[inline(always)]
    pub(crate) fn value(&self, slot: u32) -> u32 {
        self.slots.get(slot as usize).map_or(0, |slot| slot.load(Ordering::Acquire))
    }

    /// The counter of state with this hash, now. To be read before the state is looked up.
    pub(crate) fn of(&self, hash: u64) -> Version {
        let slot = Versions::slot(hash);
        Version { slot, value: self.value(slot) }
    }

    /// State with this hash changed.
    pub(crate) fn raise(&self, hash: u64) {
        if let Some(slot) = self.slots.get(Versions::slot(hash) as usize) {
            slot.fetch_add(1, Ordering::Release);
            // Behind it, so that whoever sees the new number sees the new version.
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// A number that changes after each change.
    #[inline(always)]
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_where_it_happened() {
        let versions = Versions::new();
        let (here, there) = (versions.of(1 << 24), versions.of(2 << 24));
        let before = versions.changes();
        versions.raise(1 << 24);
        assert_ne!(versions.of(1 << 24), here);
        assert_eq!(versions.of(2 << 24), there);
        assert_ne!(versions.changes(), before);
    }
}
