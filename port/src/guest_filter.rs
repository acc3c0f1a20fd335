//! Which destinations the NIC of a port's guest takes: the guest's own lists.
//!
//! Drivers tell their NIC which addresses they want, with lists, with hash tables and with modes. The NIC drops what they
//! do not want. This is the same knowledge where the switch can look at it *before* it delivers: a frame that is flooded
//! to a thousand ports is not even taken to those that would throw it away.
//!
//! The NIC publishes a [`GuestFilter`] in the port's [`GuestFilterSlot`] whenever the driver changed something, and takes
//! it out when it receives nothing. A port whose NIC knows no lists has none, and takes everything.

use std::sync::Arc;

use core::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use fabnic_wire::MacAddr;

/// Buckets of a [`GroupHash`].
pub const GROUP_BUCKETS: usize = 4096;

/// Groups by hash: a NIC with a table instead of a list takes all that fall on a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupHash {
    /// One bit for each bucket.
    pub buckets: [u32; GROUP_BUCKETS / 32],
    /// A group's bucket is its last two bytes, the last one being the upper, shifted right by so many bits.
    pub shift: u32,
}

impl GroupHash {
    fn takes(&self, group: MacAddr) -> bool {
        let [.., low, high] = group.octets();
        let bucket = u32::from(u16::from_le_bytes([low, high])).checked_shr(self.shift).unwrap_or(0) & 0xfff;
        self.buckets.get(bucket as usize / 32).is_some_and(|word| word >> (bucket % 32) & 1 == 1)
    }
}

/// What a guest's NIC takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestFilter {
    /// Stations and groups, one by one.
    pub addresses: Vec<MacAddr>,
    /// Groups by hash, if the NIC has such a table.
    pub hash: Option<Box<GroupHash>>,
    /// Broadcast is taken whatever the lists say.
    pub broadcast: bool,
    /// All unicast: the promiscuous mode.
    pub all_unicast: bool,
    /// All groups.
    pub all_multicast: bool,
}

impl GuestFilter {
    /// Whether a frame to this address is taken. The promiscuous mode counts only if the port is trusted.
    pub fn takes(&self, to: MacAddr, trusted: bool) -> bool {
        let by_mode = match (to.is_broadcast(), to.is_multicast()) {
            (true, _) if self.broadcast => true,
            (_, true) => self.all_multicast || self.hash.as_ref().is_some_and(|hash| hash.takes(to)),
            (_, false) => self.all_unicast && trusted,
        };
        by_mode || self.addresses.contains(&to)
    }
}

/// Where a port's guest filter is found, if there is one.
#[derive(Debug, Default)]
pub struct GuestFilterSlot {
    is_set: AtomicBool,
    filter: ArcSwapOption<GuestFilter>,
}

impl GuestFilterSlot {
    /// Publishes a filter, or takes it out.
    pub fn set(&self, filter: Option<GuestFilter>) {
        let is_set = filter.is_some();
        self.filter.store(filter.map(Arc::new));
        // Whoever sees the flag without the filter, or the other way round, takes everything for a moment.
        self.is_set.store(is_set, Ordering::Relaxed);
    }

    /// Whether there is one: a look that costs nothing.
    #[inline(always)]
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Looks at the filter, if there is one.
    pub fn look<R>(&self, look: impl FnOnce(Option<&GuestFilter>) -> R) -> R {
        look(self.filter.load().as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const GROUP: MacAddr = MacAddr([1, 0, 0x5e, 0x12, 0x34, 0x56]);

    #[test]
    fn lists_modes_and_trust() {
        let own = GuestFilter { addresses: vec![STATION], broadcast: true, ..GuestFilter::default() };
        assert!(own.takes(STATION, false) && own.takes(MacAddr::BROADCAST, false));
        assert!(!own.takes(GROUP, true) && !own.takes(MacAddr([2; 6]), true));
        let promiscuous = GuestFilter { all_unicast: true, ..own.clone() };
        assert!(promiscuous.takes(MacAddr([2; 6]), true) && !promiscuous.takes(MacAddr([2; 6]), false));
        assert!(!promiscuous.takes(GROUP, true), "of unicast only");
        let groups = GuestFilter { all_multicast: true, ..GuestFilter::default() };
        assert!(groups.takes(GROUP, false) && groups.takes(MacAddr::BROADCAST, false));
        assert!(!groups.takes(STATION, true));
        let listed = GuestFilter { addresses: vec![MacAddr::BROADCAST, GROUP], ..GuestFilter::default() };
        assert!(listed.takes(MacAddr::BROADCAST, false) && listed.takes(GROUP, false));
    }

    #[test]
    fn groups_by_hash() {
        for (shift, bucket) in [(4, 0x563), (3, 0xac6), (2, 0x58d), (0, 0x634)] {
            let mut hash = GroupHash { buckets: [0; GROUP_BUCKETS / 32], shift };
            assert!(!hash.takes(GROUP));
            hash.buckets[bucket / 32] = 1 << (bucket % 32);
            assert!(hash.takes(GROUP), "shift {shift}");
        }
    }

    #[test]
    fn a_slot_is_filled_and_emptied() {
        let slot = GuestFilterSlot::default();
        assert!(!slot.is_set() && slot.look(|filter| filter.is_none()));
        slot.set(Some(GuestFilter::default()));
        assert!(
            slot.is_set() && slot.look(|filter| filter.is_some_and(|filter| !filter.takes(STATION, true)))
        );
        slot.set(None);
        assert!(!slot.is_set() && slot.look(|filter| filter.is_none()));
    }
}
