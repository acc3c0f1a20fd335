//! Which frames a port is sent: its receive filter.
//!
//! Three say something about it, and a copy goes out only if none of them minds:
//!
//! ```text
//!   flooding     flood, mcast_flood, bcast_flood: is the port one of those that such frames go to at all?
//!   lists        unicast, multicast: the addresses that may reach the port
//!   the guest    what its NIC's driver asked for (GuestFilter), of frames that are flooded
//! ```
//!
//! The first are those of `bridge link` and, like there, make the port no receiver of the frame: nothing is counted. What
//! a list or the guest refuses is a copy that was dropped, `filtered`. The guest's lists are looked at for flooded frames
//! only: a frame to an address that is known to be behind the port goes there, and the NIC itself drops what its driver
//! does not want. So a guest that bridges for others loses nothing but what nobody could tell is for it.
//!
//! A driver's promiscuous mode counts on a trusted port only (`trust` of `ip link set vf`): else any guest could make the
//! switch show it what is flooded for others. Its "all groups" mode always counts: groups are no secret.

use std::sync::Arc;

use fabnic_port::Port;
use fabnic_wire::MacAddr;

/// A set of addresses. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MacSet(Arc<[MacAddr]>);

impl FromIterator<MacAddr> for MacSet {
    fn from_iter<I: IntoIterator<Item = MacAddr>>(addresses: I) -> MacSet {
        let mut sorted: Vec<MacAddr> = addresses.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        MacSet(sorted.into())
    }
}

impl MacSet {
    /// Whether the address is in the set.
    pub fn contains(&self, address: MacAddr) -> bool {
        self.0.binary_search(&address).is_ok()
    }

    /// The addresses, ascending.
    pub fn iter(&self) -> impl Iterator<Item = MacAddr> + '_ {
        self.0.iter().copied()
    }
}

/// What configuration says of what a port is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveFilter {
    /// Unicast to addresses that the switch does not know is flooded to the port.
    pub flood: bool,
    /// Multicast is flooded to the port.
    pub mcast_flood: bool,
    /// Broadcast is flooded to the port.
    pub bcast_flood: bool,
    /// The only unicast addresses whose frames may reach the port, known or flooded; `None`: any.
    pub unicast: Option<MacSet>,
    /// The only groups whose frames may reach the port; `None`: any. Broadcast is no group here.
    pub multicast: Option<MacSet>,
    /// Whether the guest's own lists are looked at, where its NIC has some.
    pub guest_lists: bool,
    /// Whether the guest may be promiscuous.
    pub trust: bool,
}

impl Default for ReceiveFilter {
    fn default() -> ReceiveFilter {
        ReceiveFilter {
            flood: true,
            mcast_flood: true,
            bcast_flood: true,
            unicast: None,
            multicast: None,
            guest_lists: true,
            trust: false,
        }
    }
}

/// What becomes of a flooded frame's copy to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flooded {
    /// It goes there.
    Goes,
    /// There is none: the port is none of those that such frames are flooded to.
    NotFor,
    /// It is dropped, because of a list or the guest.
    Filtered,
}

impl ReceiveFilter {
    /// Whether configuration leaves everything open.
    pub(crate) fn is_open(&self) -> bool {
        self.flood
            && self.mcast_flood
            && self.bcast_flood
            && self.unicast.is_none()
            && self.multicast.is_none()
    }

    /// Whether frames like one to this address are flooded to the port.
    pub(crate) fn is_flooded(&self, to: MacAddr) -> bool {
        match (to.is_broadcast(), to.is_multicast()) {
            (true, _) => self.bcast_flood,
            (false, true) => self.mcast_flood,
            (false, false) => self.flood,
        }
    }

    /// Whether the lists let a frame to this address reach the port.
    pub(crate) fn lets_through(&self, to: MacAddr) -> bool {
        let list = match (to.is_broadcast(), to.is_multicast()) {
            (true, _) => return true,
            (false, true) => &self.multicast,
            (false, false) => &self.unicast,
        };
        list.as_ref().is_none_or(|list| list.contains(to))
    }

    /// What becomes of the copy of a flooded frame to this address.
    pub(crate) fn judge(&self, port: &Port, to: MacAddr) -> Flooded {
        if !self.is_flooded(to) {
            return Flooded::NotFor;
        }
        let wanted = |port: &Port| {
            port.guest_filter.look(|filter| filter.is_none_or(|filter| filter.takes(to, self.trust)))
        };
        if !self.lets_through(to) || (self.guest_lists && !wanted(port)) {
            return Flooded::Filtered;
        }
        Flooded::Goes
    }
}

#[cfg(test)]
mod tests {
    use fabnic_port::{GuestFilter, PortId, PortKind};

    use super::*;

    const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const GROUP: MacAddr = MacAddr([1, 0, 0x5e, 0, 0, 1]);
    const DROPPED: Flooded = Flooded::Filtered;

    fn port() -> Port {
        Port::new(PortId(1), "p", PortKind::Loopback, 1)
    }

    #[test]
    fn flooding_is_of_three_kinds() {
        let (port, open) = (port(), ReceiveFilter::default());
        assert!(open.is_open());
        for (filter, closed) in [
            (ReceiveFilter { flood: false, ..open.clone() }, STATION),
            (ReceiveFilter { mcast_flood: false, ..open.clone() }, GROUP),
            (ReceiveFilter { bcast_flood: false, ..open.clone() }, MacAddr::BROADCAST),
        ] {
            for to in [STATION, GROUP, MacAddr::BROADCAST] {
                let expected = if to == closed { Flooded::NotFor } else { Flooded::Goes };
                assert_eq!(filter.judge(&port, to), expected);
                assert!(filter.lets_through(to) && !filter.is_open());
            }
        }
    }

    #[test]
    fn lists_bind_their_kind() {
        let (port, open) = (port(), ReceiveFilter::default());
        let listed = ReceiveFilter { unicast: Some([STATION].into_iter().collect()), ..open.clone() };
        assert_eq!(listed.judge(&port, STATION), Flooded::Goes);
        assert_eq!(listed.judge(&port, OTHER), DROPPED);
        assert_eq!(listed.judge(&port, GROUP), Flooded::Goes);
        let none = ReceiveFilter { multicast: Some(MacSet::default()), ..open };
        assert_eq!(none.judge(&port, GROUP), DROPPED);
        assert_eq!(none.judge(&port, MacAddr::BROADCAST), Flooded::Goes);
    }

    #[test]
    fn the_guest_says_what_it_wants_and_trust_what_it_may() {
        let (port, open) = (port(), ReceiveFilter::default());
        let own = GuestFilter { addresses: vec![STATION], broadcast: true, ..GuestFilter::default() };
        port.guest_filter.set(Some(own.clone()));
        assert_eq!(open.judge(&port, STATION), Flooded::Goes);
        assert_eq!((open.judge(&port, OTHER), open.judge(&port, GROUP)), (DROPPED, DROPPED));
        port.guest_filter.set(Some(GuestFilter { all_unicast: true, ..own }));
        assert_eq!(open.judge(&port, OTHER), DROPPED);
        assert_eq!(ReceiveFilter { trust: true, ..open.clone() }.judge(&port, OTHER), Flooded::Goes);
        assert_eq!(ReceiveFilter { guest_lists: false, ..open }.judge(&port, GROUP), Flooded::Goes);
    }
}
