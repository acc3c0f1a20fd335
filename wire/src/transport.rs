//! TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792) and ICMPv6 (RFC 4443) header views.

use std::fmt;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

/// The fixed part of a TCP header.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: U16,
    /// Destination port.
    pub dst_port: U16,
    /// Sequence number of the first payload byte.
    pub seq: U32,
    /// Acknowledgment number.
    pub ack: U32,
    /// Data offset in 32-bit words (upper four bits), the AE flag (bit 0).
    pub data_offset: u8,
    /// The other flags.
    pub flags: TcpFlags,
    /// Receive window, before scaling.
    pub window: U16,
    /// Checksum.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl TcpHeader {
    /// Bytes without options.
    pub const LEN: usize = 20;

    /// The header, its options, and what follows. Nothing if the data offset is below 20 bytes or the slice ends
    /// before the options do.
    #[inline]
    pub fn split(bytes: &[u8]) -> Option<(&Self, &[u8], &[u8])> {
        let (header, rest) = Self::ref_from_prefix(bytes).ok()?;
        let options_len = header.header_len().checked_sub(Self::LEN)?;
        let (options, rest) = rest.split_at_checked(options_len)?;
        Some((header, options, rest))
    }

    /// Bytes of the header with its options.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }
}

/// The flags of a TCP header.
#[derive(
    Copy, Clone, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment number counts.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer counts.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// All of these flags are set.
    #[inline]
    pub const fn has(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl fmt::Display for TcpFlags {
    /// As tcpdump writes them: `S`, `F.`, `P.`, `.` for ACK, `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(TcpFlags, &str); 8] = [
            (TcpFlags::FIN, "F"),
            (TcpFlags::SYN, "S"),
            (TcpFlags::RST, "R"),
            (TcpFlags::PSH, "P"),
            (TcpFlags::ACK, "."),
            (TcpFlags::URG, "U"),
            (TcpFlags::ECE, "E"),
            (TcpFlags::CWR, "W"),
        ];
        if self.0 == 0 {
            return f.write_str("none");
        }
        LETTERS.iter().filter(|(flag, _)| self.has(*flag)).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A UDP header.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// Source port.
    pub src_port: U16,
    /// Destination port.
    pub dst_port: U16,
    /// Bytes of header and payload.
    pub len: U16,
    /// Checksum; 0 for none.
    pub checksum: U16,
}

impl UdpHeader {
    /// Bytes.
    pub const LEN: usize = 8;

    /// The header and what follows.
    #[inline]
    pub fn split(bytes: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(bytes).ok()
    }
}

/// The common part of ICMP and ICMPv6.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum; that of ICMPv6 covers a pseudo header.
    pub checksum: U16,
    /// Depends on the type; of an echo: identifier and sequence number.
    pub rest: [U16; 2],
}

impl IcmpHeader {
    /// Bytes.
    pub const LEN: usize = 8;
    /// ICMP type of an echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// ICMP type of an echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// ICMPv6 type of an echo request.
    pub const ECHO_REQUEST_V6: u8 = 128;
    /// ICMPv6 type of an echo reply.
    pub const ECHO_REPLY_V6: u8 = 129;
    /// ICMPv6 type of a router solicitation (RFC 4861).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// ICMPv6 type of a router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// ICMPv6 type of a neighbor solicitation.
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// ICMPv6 type of a neighbor advertisement.
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;

    /// The header and what follows.
    #[inline]
    pub fn split(bytes: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_view_is_that_of_etherparse() {
        let mut theirs = etherparse::TcpHeader::new(1000, 2000, 0x01020304, 500);
        theirs.syn = true;
        theirs.ack = true;
        theirs.set_options_raw(&[2, 4, 5, 0xb4]).unwrap();
        let mut bytes = theirs.to_bytes().to_vec();
        bytes.extend(*b"data");
        let (ours, options, rest) = TcpHeader::split(&bytes).unwrap();
        assert_eq!((ours.src_port.get(), ours.dst_port.get(), ours.seq.get()), (1000, 2000, 0x01020304));
        assert_eq!((options, rest), (&[2, 4, 5, 0xb4][..], &b"data"[..]));
        assert_eq!((ours.flags.to_string().as_str(), ours.window.get()), ("S.", 500));
        assert_eq!(TcpHeader::split(&bytes[..23]), None);
        assert_eq!(TcpHeader::split(&[0x40; 40]), None);
    }
}
