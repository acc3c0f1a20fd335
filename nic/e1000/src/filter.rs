//! Which frames are taken (SDM 3.2.1, 13.4.22, 13.5): by address and by VLAN.

use fabnic_port::{GroupHash, GuestFilter};
use fabnic_wire::ethernet::TAG_OFFSET;
use fabnic_wire::{MacAddr, Tci};

use crate::spec::register::{Ctrl, RAH_MASK, RAH_VALID, Rctl};
use crate::state::{Reader, StateError, Writer};

/// Words of the multicast and of the VLAN table.
pub(crate) const TABLE: usize = 128;
/// Receive addresses.
pub(crate) const ADDRESSES: usize = 16;

/// What decides about a frame; a copy of it is with the receive queue.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) rctl: Rctl,
    pub(crate) ctrl: Ctrl,
    /// EtherType of the tags.
    pub(crate) vet: u16,
    pub(crate) rxcsum: u32,
    /// Lower and upper half of each receive address, as in the registers.
    pub(crate) addresses: [[u32; 2]; ADDRESSES],
    pub(crate) multicast: [u32; TABLE],
    pub(crate) vlans: [u32; TABLE],
}

impl Default for Filter {
    fn default() -> Filter {
        Filter {
            rctl: Rctl::empty(),
            ctrl: Ctrl::empty(),
            vet: 0,
            rxcsum: 0,
            addresses: [[0; 2]; ADDRESSES],
            multicast: [0; TABLE],
            vlans: [0; TABLE],
        }
    }
}

/// What the filter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not for this station.
    Refused,
    /// For this station.
    Exact,
    /// Perhaps for this station: by the hash, or because all are taken.
    Inexact,
}

impl Filter {
    pub(crate) fn save(&self, to: &mut Writer) {
        for word in [self.rctl.bits(), self.ctrl.bits(), self.vet.into(), self.rxcsum] {
            to.u32(word);
        }
        self.addresses.as_flattened().iter().for_each(|word| to.u32(*word));
        self.multicast.iter().chain(&self.vlans).for_each(|word| to.u32(*word));
    }

    pub(crate) fn restore(from: &mut Reader<'_>) -> Result<Filter, StateError> {
        let mut filter = Filter {
            rctl: Rctl::from_bits_truncate(from.u32()?),
            ctrl: Ctrl::from_bits_retain(from.u32()?),
            vet: (from.u32()? & 0xffff) as u16,
            rxcsum: from.u32()?,
            ..Filter::default()
        };
        for [low, high] in &mut filter.addresses {
            (*low, *high) = (from.u32()?, from.u32()? & RAH_MASK);
        }
        for word in filter.multicast.iter_mut().chain(&mut filter.vlans) {
            *word = from.u32()?;
        }
        Ok(filter)
    }

    /// Whether a frame that begins with these bytes is taken.
    #[inline]
    pub(crate) fn judge(&self, head: &[u8]) -> Verdict {
        let Some(destination) = head.first_chunk::<6>() else { return Verdict::Refused };
        if self.rctl.contains(Rctl::VFE)
            && let Some(tci) = self.tag(head)
            && !bit(&self.vlans, tci.vid_bits().into())
        {
            return Verdict::Refused;
        }
        self.judge_address(*destination)
    }

    #[inline]
    fn judge_address(&self, destination: [u8; 6]) -> Verdict {
        let [a, b, c, d, e, f] = destination;
        if destination == [0xff; 6] {
            if self.rctl.contains(Rctl::BAM) {
                return Verdict::Exact;
            }
        } else {
            let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]));
            // RAH: the address, which address (0 for the destination), and whether it counts.
            let is_this =
                |[ral, rah]: &[u32; 2]| *ral == low && rah & (RAH_VALID | 0x3_ffff) == RAH_VALID | high;
            if self.addresses.iter().any(is_this) {
                return Verdict::Exact;
            }
        }
        if a & 1 == 0 {
            return if self.rctl.contains(Rctl::UPE) { Verdict::Inexact } else { Verdict::Refused };
        }
        let hash = (u32::from(u16::from_le_bytes([e, f])) >> self.rctl.hash_shift()) & 0xfff;
        match self.rctl.contains(Rctl::MPE) || bit(&self.multicast, hash) {
            true => Verdict::Inexact,
            false => Verdict::Refused,
        }
    }

    /// The same for whoever wants to know before a frame is brought, as far as addresses decide.
    pub(crate) fn as_guest_filter(&self) -> GuestFilter {
        let valid = self.addresses.iter().filter(|[_, high]| high & (RAH_VALID | 0x3_0000) == RAH_VALID);
        let address = |[low, high]: &[u32; 2]| {
            let ([a, b, c, d], [e, f, ..]) = (low.to_le_bytes(), high.to_le_bytes());
            MacAddr::new([a, b, c, d, e, f])
        };
        GuestFilter {
            addresses: valid.map(address).collect(),
            hash: Some(Box::new(GroupHash { buckets: self.multicast, shift: self.rctl.hash_shift() })),
            broadcast: self.rctl.contains(Rctl::BAM),
            all_unicast: self.rctl.contains(Rctl::UPE),
            all_multicast: self.rctl.contains(Rctl::MPE),
        }
    }

    /// The addresses that are received as they are, as numbers of which the first byte is the lowest.
    pub(crate) fn exact(&self) -> impl Iterator<Item = u64> {
        let valid = |[low, high]: &[u32; 2]| {
            let is_this = high & (RAH_VALID | 0x3_0000) == RAH_VALID;
            is_this.then_some(u64::from(high & 0xffff) << 32 | u64::from(*low))
        };
        self.addresses.iter().filter_map(valid)
    }

    /// The tag, if the frame has one of the kind that VET says.
    #[inline]
    pub(crate) fn tag(&self, head: &[u8]) -> Option<Tci> {
        let [t0, t1, i0, i1] = *head.get(TAG_OFFSET..)?.first_chunk::<4>()?;
        (u16::from_be_bytes([t0, t1]) == self.vet).then(|| Tci(u16::from_be_bytes([i0, i1])))
    }

    /// Whether tags are stripped.
    #[inline]
    pub(crate) fn strips(&self) -> bool {
        self.ctrl.contains(Ctrl::VME)
    }
}

#[inline]
fn bit(table: &[u32; TABLE], at: u32) -> bool {
    table.get(at as usize / 32).is_some_and(|word| word >> (at % 32) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
    const GROUP: [u8; 6] = [1, 0, 0x5e, 0x12, 0x34, 0x56];

    fn filter(rctl: Rctl) -> Filter {
        let mut filter = Filter { rctl, vet: 0x8100, ..Filter::default() };
        filter.addresses[0] = [u32::from_le_bytes([0x52, 0x54, 0, 1]), RAH_VALID | 0x0302];
        filter
    }

    fn judge(filter: &Filter, destination: [u8; 6]) -> Verdict {
        let verdict = filter.judge(&[&destination[..], &[2, 0, 0, 0, 0, 1, 8, 0]].concat());
        // What is told to others is the same.
        let takes = filter.as_guest_filter().takes(MacAddr::new(destination), true);
        assert_eq!(takes, verdict != Verdict::Refused, "{destination:?}");
        verdict
    }

    #[test]
    fn addresses_are_exact_and_modes_are_not() {
        let plain = filter(Rctl::EN);
        assert_eq!(judge(&plain, MAC), Verdict::Exact);
        for other in [[0xff; 6], GROUP, [0x52, 0x54, 0, 1, 2, 4], [0; 6]] {
            assert_eq!(judge(&plain, other), Verdict::Refused);
        }
        assert_eq!(judge(&filter(Rctl::BAM), [0xff; 6]), Verdict::Exact);
        assert_eq!(judge(&filter(Rctl::UPE), [2; 6]), Verdict::Inexact);
        assert_eq!(judge(&filter(Rctl::UPE), GROUP), Verdict::Refused);
        assert_eq!(judge(&filter(Rctl::MPE), GROUP), Verdict::Inexact);
        assert_eq!(judge(&filter(Rctl::MPE), [0xff; 6]), Verdict::Inexact);
        let mut off = filter(Rctl::EN);
        off.addresses[0][1] &= !RAH_VALID;
        assert_eq!(judge(&off, MAC), Verdict::Refused);
        off.addresses[15] = [u32::from_le_bytes([1, 0, 0x5e, 0x12]), RAH_VALID | 0x5634];
        assert_eq!(judge(&off, GROUP), Verdict::Exact, "a group can be a receive address");
    }

    #[test]
    fn the_hash_is_of_the_bits_that_mo_says() {
        // Bytes 4 and 5: 0x34, 0x56.
        for (mo, hash) in [(0, 0x563), (1, 0xac6), (2, 0x58d), (3, 0x634)] {
            let mut filter = filter(Rctl::from_bits_retain(mo << 12));
            assert_eq!(judge(&filter, GROUP), Verdict::Refused);
            filter.multicast[hash / 32] = 1 << (hash % 32);
            assert_eq!(judge(&filter, GROUP), Verdict::Inexact, "mo {mo}");
        }
    }

    #[test]
    fn vlans_are_filtered_where_that_is_on() {
        let frame = [&MAC[..], &[2, 0, 0, 0, 0, 1, 0x81, 0, 0x20, 0x65, 8, 0]].concat();
        let mut filter = filter(Rctl::VFE);
        assert_eq!(filter.judge(&frame), Verdict::Refused);
        assert_eq!(judge(&filter, MAC), Verdict::Exact, "no tag, no filter");
        filter.vlans[0x65 / 32] = 1 << (0x65 % 32);
        assert_eq!(filter.judge(&frame), Verdict::Exact);
        filter.vet = 0x88a8;
        filter.vlans = [0; TABLE];
        assert_eq!(filter.judge(&frame), Verdict::Exact, "not a tag of this kind");
    }
}
