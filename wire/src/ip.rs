//! IPv4 (RFC 791) and IPv6 (RFC 8200): protocol numbers and header views.
//!
//! A view is a reference into the frame: [`Ipv4Header::split`] checks version and lengths against the bytes at hand
//! once, and every accessor after it is a plain load.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

use crate::layers::MAX_EXTENSIONS;

/// The protocol that an IP header carries. An open set: unknown values survive.
#[derive(Copy, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// IPv6 hop-by-hop options; as an IPv4 protocol it is reserved.
    pub const HOP_BY_HOP: IpProtocol = IpProtocol(0);
    /// ICMP of IPv4.
    pub const ICMP: IpProtocol = IpProtocol(1);
    /// TCP.
    pub const TCP: IpProtocol = IpProtocol(6);
    /// UDP.
    pub const UDP: IpProtocol = IpProtocol(17);
    /// IPv6 routing header.
    pub const ROUTING: IpProtocol = IpProtocol(43);
    /// IPv6 fragment header.
    pub const FRAGMENT: IpProtocol = IpProtocol(44);
    /// Authentication header (RFC 4302), skipped like an extension header.
    pub const AH: IpProtocol = IpProtocol(51);
    /// ICMPv6.
    pub const ICMPV6: IpProtocol = IpProtocol(58);
    /// IPv6: nothing follows.
    pub const NO_NEXT: IpProtocol = IpProtocol(59);
    /// IPv6 destination options.
    pub const DEST_OPTIONS: IpProtocol = IpProtocol(60);
    /// SCTP.
    pub const SCTP: IpProtocol = IpProtocol(132);

    /// An IPv6 extension header that is looked through (AH among them).
    #[inline]
    pub const fn is_extension(self) -> bool {
        matches!(
            self,
            IpProtocol::HOP_BY_HOP
                | IpProtocol::ROUTING
                | IpProtocol::DEST_OPTIONS
                | IpProtocol::AH
                | IpProtocol::FRAGMENT
        )
    }

    /// The first four bytes of its header are two ports.
    #[inline]
    pub const fn has_ports(self) -> bool {
        matches!(self, IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP)
    }

    /// ICMP of either IP.
    #[inline]
    pub const fn is_icmp(self) -> bool {
        matches!(self, IpProtocol::ICMP | IpProtocol::ICMPV6)
    }

    /// Bytes that at least come before the payload; 0 for protocols that are not looked into. Every protocol of which
    /// [`crate::FlowFields`] reads something must be here: offload validation keeps checksums out of these bytes.
    #[inline]
    pub const fn min_header_len(self) -> usize {
        match self {
            IpProtocol::TCP => 20,
            IpProtocol::UDP => 8,
            IpProtocol::ICMP | IpProtocol::ICMPV6 => 4,
            IpProtocol::SCTP => 12,
            _ => 0,
        }
    }

    /// Where the checksum lies in the header of a protocol that sums itself with a pseudo header.
    #[inline]
    pub const fn checksum_offset(self) -> Option<u16> {
        match self {
            IpProtocol::TCP => Some(16),
            IpProtocol::UDP => Some(6),
            IpProtocol::ICMPV6 => Some(2),
            _ => None,
        }
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            IpProtocol::ICMP => f.write_str("ICMP"),
            IpProtocol::TCP => f.write_str("TCP"),
            IpProtocol::UDP => f.write_str("UDP"),
            IpProtocol::ICMPV6 => f.write_str("ICMPv6"),
            IpProtocol::SCTP => f.write_str("SCTP"),
            IpProtocol(number) => write!(f, "proto {number}"),
        }
    }
}

impl fmt::Debug for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The fixed part of an IPv4 header.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4) and header length in 32-bit words.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Flags (bit 14 DF, bit 13 MF) and fragment offset in 8-byte units.
    pub flags_offset: U16,
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: U16,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

impl Ipv4Header {
    /// Bytes without options.
    pub const LEN: usize = 20;
    /// Do not fragment.
    pub const DF: u16 = 0x4000;
    /// More fragments follow.
    pub const MF: u16 = 0x2000;

    /// The header, its options, and what follows them (to the end of the slice, not of the packet). Nothing if the
    /// version is not 4, the header length is below 20 or the slice ends before the options do.
    #[inline]
    pub fn split(packet: &[u8]) -> Option<(&Self, &[u8], &[u8])> {
        let (header, rest) = Self::ref_from_prefix(packet).ok()?;
        let options_len = header.header_len().checked_sub(Self::LEN)?;
        let (options, rest) = rest.split_at_checked(options_len)?;
        (header.version_ihl >> 4 == 4).then_some((header, options, rest))
    }

    /// Bytes of the header with its options.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0xf) as usize * 4
    }

    /// Do not fragment.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & Self::DF != 0
    }

    /// A fragment, the first included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_offset.get() & 0x3fff != 0
    }

    /// Fragment offset in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_offset.get() & 0x1fff) << 3
    }

    /// Source address.
    #[inline]
    pub const fn source(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.src;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.dst;
        Ipv4Addr::new(a, b, c, d)
    }
}

/// The fixed part of an IPv6 header.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (6), traffic class, flow label.
    pub version_class_label: U32,
    /// Bytes behind this header, extension headers included.
    pub payload_len: U16,
    /// What follows: a protocol or an extension header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

impl Ipv6Header {
    /// Bytes of the fixed header.
    pub const LEN: usize = 40;

    /// The header and what follows (to the end of the slice, not of the packet). Nothing if the version is not 6.
    #[inline]
    pub fn split(packet: &[u8]) -> Option<(&Self, &[u8])> {
        let (header, rest) = Self::ref_from_prefix(packet).ok()?;
        (header.version_class_label.get() >> 28 == 6).then_some((header, rest))
    }

    /// Traffic class: DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        let [first, second, _, _] = self.version_class_label.to_bytes();
        first << 4 | second >> 4
    }

    /// Flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        self.version_class_label.get() & 0xf_ffff
    }

    /// The extension headers in `rest`, which follows this header.
    #[inline]
    pub const fn extensions<'p>(&self, rest: &'p [u8]) -> Ipv6Extensions<'p> {
        Ipv6Extensions { next: IpProtocol(self.next_header), rest, left: MAX_EXTENSIONS }
    }

    /// Source address.
    #[inline]
    pub const fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.src)
    }

    /// Destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.dst)
    }
}

/// One IPv6 extension header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ipv6Extension<'p> {
    /// Which one.
    pub kind: IpProtocol,
    /// All its bytes; the first is the protocol of what follows.
    pub bytes: &'p [u8],
}

/// An iterator over IPv6 extension headers. It ends at the first header that is none (see
/// [`Ipv6Extensions::remainder`]), at one that is cut off, behind a fragment header that is not the first's, and after
/// [`MAX_EXTENSIONS`].
#[derive(Copy, Clone, Debug)]
pub struct Ipv6Extensions<'p> {
    next: IpProtocol,
    rest: &'p [u8],
    left: usize,
}

impl<'p> Ipv6Extensions<'p> {
    /// The protocol at which the iterator stands, and the bytes from there on.
    #[inline]
    pub const fn remainder(&self) -> (IpProtocol, &'p [u8]) {
        (self.next, self.rest)
    }
}

impl<'p> Iterator for Ipv6Extensions<'p> {
    type Item = Ipv6Extension<'p>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let kind = self.next;
        if self.left == 0 {
            return None;
        }
        let len = extension_len(kind, self.rest)?;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.left -= 1;
        self.rest = rest;
        self.next = IpProtocol(*bytes.first()?);
        if let (IpProtocol::FRAGMENT, &[_, _, high, low, ..]) = (kind, bytes)
            && u16::from_be_bytes([high, low]) & 0xfff8 != 0
        {
            // What follows comes out of the middle of a datagram.
            self.left = 0;
        }
        Some(Ipv6Extension { kind, bytes })
    }
}

/// Whether the IPv6 packet at `l3` is still on a route: its pseudo header is not of the destination in its header, but
/// of the last one in a routing header (RFC 8200 section 8.1).
pub fn has_route(head: &[u8], l3: usize) -> bool {
    let packet = head.get(l3..).unwrap_or(&[]);
    Ipv6Header::split(packet).is_some_and(|(header, rest)| {
        header
            .extensions(rest)
            .any(|e| e.kind == IpProtocol::ROUTING && e.bytes.get(3).is_some_and(|&left| left != 0))
    })
}

/// Bytes of the extension header at the start of `bytes`; nothing if `kind` is none or the length is not at hand.
#[inline]
pub(crate) fn extension_len(kind: IpProtocol, bytes: &[u8]) -> Option<usize> {
    match kind {
        IpProtocol::HOP_BY_HOP | IpProtocol::ROUTING | IpProtocol::DEST_OPTIONS => {
            Some((usize::from(*bytes.get(1)?) + 1) * 8)
        }
        // RFC 4302 section 2.2: in 32-bit words, minus 2.
        IpProtocol::AH => Some((usize::from(*bytes.get(1)?) + 2) * 4),
        IpProtocol::FRAGMENT => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_those_of_etherparse() {
        let mut theirs =
            etherparse::Ipv4Header::new(100, 63, etherparse::IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2])
                .unwrap();
        theirs.identification = 0x1234;
        theirs.dont_fragment = true;
        theirs.options = [1, 1, 1, 0].into();
        theirs.header_checksum = theirs.calc_header_checksum();
        let bytes = theirs.to_bytes();
        let (ours, options, rest) = Ipv4Header::split(&bytes).unwrap();
        assert_eq!((options, rest), (&[1, 1, 1, 0][..], &[][..]));
        assert_eq!((ours.total_len.get(), ours.ttl, ours.id.get()), (theirs.total_len, 63, 0x1234));
        assert!(ours.dont_fragment() && !ours.is_fragment());
        assert_eq!(ours.source(), Ipv4Addr::new(10, 0, 0, 1));
        assert!(crate::checksum::ipv4_header_is_valid(&bytes));
        assert_eq!(Ipv4Header::split(&bytes[..23]), None);
        assert_eq!(Ipv4Header::split(&[0x44; 40]), None);
        assert_eq!(Ipv4Header::split(&[0x65; 40]), None);
    }

    #[test]
    fn extensions_are_bounded() {
        let mut packet = vec![0x6a, 0xb1, 0x23, 0x45, 0, 0, 0, 64];
        packet.extend([1; 16]);
        packet.extend([2; 16]);
        packet.extend([0; 8 * 20]);
        let (header, rest) = Ipv6Header::split(&packet).unwrap();
        assert_eq!((header.traffic_class(), header.flow_label()), (0xab, 0x12345));
        // Hop-by-hop headers without end.
        assert_eq!(header.extensions(rest).count(), MAX_EXTENSIONS);
        // A destination option of 24 bytes, then a later fragment, then bytes that look like a header.
        let chain = [60, 2, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut bytes = chain.to_vec();
        bytes.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([60, 0, 0, 8, 0, 0, 0, 0]);
        bytes.extend([9; 16]);
        let mut extensions = header.extensions(&bytes);
        let kinds: Vec<_> = extensions.by_ref().map(|e| (e.kind, e.bytes.len())).collect();
        assert_eq!(
            kinds,
            [(IpProtocol::HOP_BY_HOP, 24), (IpProtocol::DEST_OPTIONS, 8), (IpProtocol::FRAGMENT, 8)]
        );
    }
}
