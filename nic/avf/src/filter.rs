//! Which frames a function receives: its addresses, groups, promiscuous modes and VLANs.

use std::sync::Arc;

use fabnic_avf_spec::receive::Cast;
use fabnic_port::GuestFilter;
use fabnic_wire::MacAddr;

/// A set of VLAN ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VlanSet([u64; 64]);

impl VlanSet {
    pub(crate) const EMPTY: VlanSet = VlanSet([0; 64]);

    fn word(id: u16) -> (usize, u64) {
        (usize::from(id >> 6) & 63, 1 << (id & 63))
    }

    pub(crate) fn has(&self, id: u16) -> bool {
        let (word, bit) = VlanSet::word(id);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Adds or removes an id.
    pub(crate) fn set(&mut self, id: u16, member: bool) {
        let (word, bit) = VlanSet::word(id);
        if let Some(bits) = self.0.get_mut(word) {
            if member { *bits |= bit } else { *bits &= !bit }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }
}

/// The addresses, as numbers; the first six bytes of a frame are compared with one load.
pub(crate) fn number(addr: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = addr;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

const BROADCAST: u64 = 0xffff_ffff_ffff;

/// To whom a frame goes whose address is this number.
#[inline(always)]
pub(crate) fn cast(number: u64) -> Cast {
    if number & 1 == 0 {
        Cast::Unicast
    } else if number == BROADCAST {
        Cast::Broadcast
    } else {
        Cast::Multicast
    }
}

/// What is received. A copy of it is with the queues; a changed one replaces it between two bursts.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Unicast and multicast addresses; the function's own is the first.
    pub(crate) addresses: Vec<u64>,
    pub(crate) all_unicast: bool,
    pub(crate) all_multicast: bool,
    /// Tagged frames are received of these VLANs only, if any was ever named.
    pub(crate) vlans: Option<Arc<VlanSet>>,
}

impl Filter {
    /// Whether a frame to this address passes.
    #[inline(always)]
    pub(crate) fn takes(&self, number: u64, cast: Cast) -> bool {
        let all = match cast {
            Cast::Unicast => self.all_unicast,
            Cast::Multicast => self.all_multicast,
            Cast::Broadcast => true,
        };
        all || self.addresses.contains(&number)
    }

    /// The same for whoever wants to know before a frame is brought, as far as addresses decide.
    pub(crate) fn as_guest_filter(&self) -> GuestFilter {
        let address = |number: &u64| {
            let [a, b, c, d, e, f, ..] = number.to_le_bytes();
            MacAddr::new([a, b, c, d, e, f])
        };
        GuestFilter {
            addresses: self.addresses.iter().map(address).collect(),
            hash: None,
            broadcast: true,
            all_unicast: self.all_unicast,
            all_multicast: self.all_multicast,
        }
    }

    /// Whether a frame with this tag passes.
    #[inline(always)]
    pub(crate) fn takes_tag(&self, tci: u16) -> bool {
        let id = tci & 0xfff;
        id == 0 || self.all_unicast || self.vlans.as_ref().is_none_or(|vlans| vlans.has(id))
    }
}
