//! Ethernet II and 802.1Q/802.1ad tags (IEEE 802.3 section 3, IEEE 802.1Q section 9).

use std::fmt;

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use crate::MacAddr;

/// Bytes of an untagged Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Bytes that one VLAN tag adds.
pub const TAG_LEN: usize = 4;
/// Where the first tag (or, untagged, the EtherType) begins.
pub const TAG_OFFSET: usize = 12;
/// Shortest frame of the wire without its FCS; shorter ones are padded there, not between guests.
pub const MIN_FRAME_LEN: usize = 60;

/// What follows an Ethernet header. An open set: unknown values survive.
#[derive(Copy, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: EtherType = EtherType(0x0800);
    /// ARP.
    pub const ARP: EtherType = EtherType(0x0806);
    /// RARP, which a vhost-user back end sends to announce a VM that moved.
    pub const RARP: EtherType = EtherType(0x8035);
    /// IPv6.
    pub const IPV6: EtherType = EtherType(0x86dd);
    /// 802.1Q customer tag.
    pub const VLAN: EtherType = EtherType(0x8100);
    /// 802.1ad service tag.
    pub const QINQ: EtherType = EtherType(0x88a8);
    /// Service tag of equipment from before 802.1ad.
    pub const QINQ_LEGACY: EtherType = EtherType(0x9100);
    /// MPLS unicast.
    pub const MPLS: EtherType = EtherType(0x8847);
    /// LACP and the other slow protocols.
    pub const SLOW: EtherType = EtherType(0x8809);
    /// LLDP.
    pub const LLDP: EtherType = EtherType(0x88cc);

    /// A tag follows, and then another EtherType.
    #[inline]
    pub const fn is_tag(self) -> bool {
        matches!(self, EtherType::VLAN | EtherType::QINQ | EtherType::QINQ_LEGACY)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A VLAN identifier that can be configured: 1 to 4094 (IEEE 802.1Q table 9-2 reserves 0 and 4095).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vid(u16);

/// A number that is no VLAN identifier.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
#[error("VLAN {0} is out of range, expected 1 to 4094")]
pub struct InvalidVid(pub u16);

impl Vid {
    /// The PVID a bridge port has when nothing else is configured.
    pub const DEFAULT: Vid = Vid(1);
    /// Lowest.
    pub const MIN: Vid = Vid(1);
    /// Highest.
    pub const MAX: Vid = Vid(4094);

    /// Checks the range.
    ///
    /// # Errors
    /// 0 and anything above 4094.
    pub const fn new(vid: u16) -> Result<Self, InvalidVid> {
        if vid >= 1 && vid <= 4094 { Ok(Vid(vid)) } else { Err(InvalidVid(vid)) }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Vid {
    type Error = InvalidVid;

    fn try_from(vid: u16) -> Result<Self, InvalidVid> {
        Vid::new(vid)
    }
}

impl From<Vid> for u16 {
    #[inline]
    fn from(vid: Vid) -> u16 {
        vid.0
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Tag control information: priority (3 bits), drop eligible (1 bit), VLAN (12 bits).
#[derive(Copy, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tci(pub u16);

impl Tci {
    /// The bits of the VLAN identifier.
    pub const VID_MASK: u16 = 0x0fff;

    /// From its parts; the priority is cut to its 3 bits.
    #[inline]
    pub const fn new(vid: Vid, pcp: u8, dei: bool) -> Self {
        Tci(vid.0 | ((dei as u16) << 12) | (((pcp & 7) as u16) << 13))
    }

    /// The 12 bits of the VLAN identifier as they are: 0 (priority tag) and 4095 (reserved) included.
    #[inline]
    pub const fn vid_bits(self) -> u16 {
        self.0 & Self::VID_MASK
    }

    /// The VLAN, unless the tag only carries a priority (0) or the reserved 4095.
    #[inline]
    pub const fn vid(self) -> Option<Vid> {
        match Vid::new(self.vid_bits()) {
            Ok(vid) => Some(vid),
            Err(_) => None,
        }
    }

    /// Priority code point, 0 to 7.
    #[inline]
    pub const fn pcp(self) -> u8 {
        // Three bits remain.
        (self.0 >> 13) as u8
    }

    /// Drop eligible indicator.
    #[inline]
    pub const fn dei(self) -> bool {
        self.0 & 0x1000 != 0
    }

    /// The same priority in another VLAN.
    #[inline]
    #[must_use]
    pub const fn with_vid(self, vid: Vid) -> Self {
        Tci((self.0 & !Self::VID_MASK) | vid.0)
    }
}

impl fmt::Debug for Tci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/p{}{}", self.vid_bits(), self.pcp(), if self.dei() { "d" } else { "" })
    }
}

/// An Ethernet header without tags.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// EtherType, or the tag protocol identifier of the first tag, or (below 1536) an 802.3 length.
    pub ethertype: U16,
}

/// A tag as it lies in the frame behind its TPID: the TCI and the EtherType of what follows.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TagHeader {
    /// Tag control information.
    pub tci: U16,
    /// What follows.
    pub ethertype: U16,
}

impl EthernetHeader {
    /// The header and what follows, or nothing if there are fewer than 14 bytes.
    #[inline]
    pub fn split(frame: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(frame).ok()
    }

    /// The EtherType as a type.
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        EtherType(self.ethertype.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vid_range() {
        assert_eq!(Vid::new(0), Err(InvalidVid(0)));
        assert_eq!(Vid::new(4095), Err(InvalidVid(4095)));
        assert_eq!(Vid::new(4094).map(Vid::get), Ok(4094));
    }

    #[test]
    fn tci_parts() {
        let tci = Tci::new(Vid::MAX, 5, true);
        assert_eq!(tci.0, 0xbffe);
        assert_eq!((tci.vid_bits(), tci.pcp(), tci.dei()), (4094, 5, true));
        assert_eq!(tci.with_vid(Vid::MIN).0, 0xb001);
        assert_eq!(Tci(0xe000).vid(), None);
        assert_eq!(format!("{tci:?}"), "4094/p5d");
    }
}
