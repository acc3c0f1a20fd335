//! Ethernet addresses.

use std::{fmt, str::FromStr};

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An Ethernet (EUI-48) address, in the order in which its bytes go over the wire.
///
/// ```
/// use fabnic_wire::MacAddr;
/// let mac: MacAddr = "52:54:00:00:00:01".parse()?;
/// assert_eq!(mac.to_string(), "52:54:00:00:00:01");
/// assert_eq!(mac.to_u64(), 0x5254_0000_0001);
/// # Ok::<(), fabnic_wire::mac::ParseMacError>(())
/// ```
#[derive(
    Copy,
    Clone,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// 00:00:00:00:00:00, never a valid source or destination.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// From its six bytes.
    #[inline]
    pub const fn new(bytes: [u8; 6]) -> Self {
        MacAddr(bytes)
    }

    /// The six bytes.
    #[inline]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// As a number: the first byte on the wire is the most significant of the 48 bits.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The reverse of [`MacAddr::to_u64`]; the upper 16 bits are ignored.
    #[inline]
    pub const fn from_u64(value: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        MacAddr([a, b, c, d, e, f])
    }

    /// The group bit is set (IEEE 802 section 8.2): multicast, and broadcast as its special case.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// All ones.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        self.to_u64() == 0xffff_ffff_ffff
    }

    /// An address a station can have: not a group address and not zero.
    #[inline]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !self.is_zero()
    }

    /// All zeros.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.to_u64() == 0
    }

    /// The locally-administered bit is set: not from a vendor's block.
    #[inline]
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }

    /// 01:80:c2:00:00:00 to 0f: link-local group addresses (STP, LACP, LLDP) that a bridge does not forward
    /// (IEEE 802.1Q section 8.6.3).
    #[inline]
    pub const fn is_link_local_group(self) -> bool {
        self.to_u64() & !0xf == 0x0180_c200_0000
    }
}

impl From<[u8; 6]> for MacAddr {
    #[inline]
    fn from(bytes: [u8; 6]) -> Self {
        MacAddr(bytes)
    }
}

impl From<MacAddr> for [u8; 6] {
    #[inline]
    fn from(mac: MacAddr) -> Self {
        mac.0
    }
}

impl From<MacAddr> for u64 {
    #[inline]
    fn from(mac: MacAddr) -> Self {
        mac.to_u64()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseMacError {
    /// Not six groups.
    #[error(
        "MAC address {text:?} has {found} groups, expected six pairs of hex digits like 52:54:00:12:34:56"
    )]
    Groups {
        /// What was given.
        text: String,
        /// How many groups it has.
        found: usize,
    },
    /// A group that is not two hex digits.
    #[error("MAC address {text:?}: {group:?} is not a pair of hex digits (expected like 52:54:00:12:34:56)")]
    Group {
        /// What was given.
        text: String,
        /// The group that is wrong.
        group: String,
    },
}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    /// Six pairs of hex digits, joined by `:` (or all by `-`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let found = text.split(separator).count();
        if found != 6 {
            return Err(ParseMacError::Groups { text: text.to_owned(), found });
        }
        let mut bytes = [0; 6];
        for (byte, group) in bytes.iter_mut().zip(text.split(separator)) {
            // from_str_radix alone would take "+1".
            let digits = group.len() == 2 && group.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(group, 16)
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| ParseMacError::Group { text: text.to_owned(), group: group.to_owned() })?;
        }
        Ok(MacAddr(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let mac = MacAddr([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
        assert_eq!("52:54:00:AB:cd:ef".parse(), Ok(mac));
        assert_eq!("52-54-00-ab-cd-ef".parse(), Ok(mac));
        assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
    }

    #[test]
    fn bad_text_is_refused() {
        for text in
            ["", "52", "52:54:00:00:00", "52:54:00:00:00:01:02", "52:54:00:00:00:+1", "52:54:00:00:00:1"]
        {
            assert!(text.parse::<MacAddr>().is_err(), "{text:?}");
        }
        assert!("52-54:00-00-00-01".parse::<MacAddr>().is_err());
        assert!("52:54:00:00:00:é".parse::<MacAddr>().is_err());
    }

    #[test]
    fn kinds() {
        assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
        let group = MacAddr([1, 0, 0x5e, 0, 0, 1]);
        assert!(group.is_multicast() && !group.is_broadcast() && !group.is_unicast());
        assert!(!MacAddr::ZERO.is_unicast() && MacAddr::ZERO.is_zero());
        assert!(MacAddr([0x52, 0x54, 0, 0, 0, 1]).is_unicast());
        assert!(MacAddr([1, 0x80, 0xc2, 0, 0, 0xe]).is_link_local_group());
        assert!(!MacAddr([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local_group());
    }
}
