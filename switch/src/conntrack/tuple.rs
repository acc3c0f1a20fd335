//! What a connection is known by: zone, addresses, protocol, ports.
//!
//! ```text
//!             src      dst      sport    dport
//!   TCP, UDP  A        B        a        b          reversed: B A b a
//!   ICMP      A        B        id       type.code  reversed: B A id answer.code
//!   other     A        B        0        0          reversed: B A 0 0
//! ```
//!
//! The hash of a tuple is that of the two ends in a fixed order: a tuple and its reverse fall on the same place. So a
//! connection without translation is found in both directions by one entry of the table.

use core::hash::BuildHasher;
use core::net::IpAddr;

use fabnic_wire::transport::IcmpHeader;
use fabnic_wire::{Fields, FlowFlags, IpProtocol, layers::Network};

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Source port; identifier of ICMP.
    pub src_port: u16,
    /// Destination port; type (high byte) and code of ICMP.
    pub dst_port: u16,
    /// The zone.
    pub zone: u16,
    /// Protocol behind IP.
    pub protocol: IpProtocol,
    /// Whether the addresses are IPv6.
    pub v6: bool,
}

/// The type that answers a query, and whether this type is the query (RFC 792, RFC 950, RFC 4443).
fn icmp_answer(protocol: IpProtocol, kind: u8) -> Option<(u8, bool)> {
    Some(match (protocol, kind) {
        (IpProtocol::ICMP, IcmpHeader::ECHO_REQUEST) => (IcmpHeader::ECHO_REPLY, true),
        (IpProtocol::ICMP, IcmpHeader::ECHO_REPLY) => (IcmpHeader::ECHO_REQUEST, false),
        (IpProtocol::ICMP, 13 | 15 | 17) => (kind + 1, true),
        (IpProtocol::ICMP, 14 | 16 | 18) => (kind - 1, false),
        (IpProtocol::ICMPV6, IcmpHeader::ECHO_REQUEST_V6) => (IcmpHeader::ECHO_REPLY_V6, true),
        (IpProtocol::ICMPV6, IcmpHeader::ECHO_REPLY_V6) => (IcmpHeader::ECHO_REQUEST_V6, false),
        _ => return None,
    })
}

/// Whether a type of ICMP is an error about another packet.
pub(crate) fn is_icmp_error(protocol: IpProtocol, kind: u8) -> bool {
    match protocol {
        IpProtocol::ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        IpProtocol::ICMPV6 => matches!(kind, 1..=4),
        _ => false,
    }
}

impl Tuple {
    /// The source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.address(&self.src)
    }

    /// The destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.address(&self.dst)
    }

    fn address(&self, bytes: &[u8; 16]) -> IpAddr {
        match (self.v6, bytes.first_chunk::<4>()) {
            (false, Some(v4)) => IpAddr::from(*v4),
            _ => IpAddr::from(*bytes),
        }
    }

    /// The tuple of a packet, as it is in `zone`. Nothing if it is not IP, broken, a later fragment, or ICMP that is
    /// neither query nor answer.
    #[inline]
    pub(crate) fn of(fields: &Fields, head: &[u8], zone: u16) -> Option<Tuple> {
        let flow = &fields.flow;
        let network = flow.network()?;
        if flow.flags.has(FlowFlags::LATER) || flow.flags.has(FlowFlags::MALFORMED) {
            return None;
        }
        let protocol = flow.protocol();
        let ports = if protocol.is_icmp() {
            let [kind, code] = [u8::try_from(flow.src_port).ok()?, u8::try_from(flow.dst_port).ok()?];
            icmp_answer(protocol, kind)?;
            let at = usize::from(fields.l4?) + 4;
            let id = head.get(at..)?.first_chunk()?;
            (u16::from_be_bytes(*id), u16::from_be_bytes([kind, code]))
        } else if protocol.has_ports() {
            (flow.src_port, flow.dst_port)
        } else {
            (0, 0)
        };
        Some(Tuple {
            src: flow.src,
            dst: flow.dst,
            src_port: ports.0,
            dst_port: ports.1,
            zone,
            protocol,
            v6: network == Network::V6,
        })
    }

    /// The tuple of the answers.
    #[inline]
    #[must_use]
    pub(crate) fn reversed(&self) -> Tuple {
        let mut other =
            Tuple { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..*self };
        if self.protocol.is_icmp() {
            let [kind, code] = self.dst_port.to_be_bytes();
            let answer = icmp_answer(self.protocol, kind).map_or(kind, |(answer, _)| answer);
            other.src_port = self.src_port;
            other.dst_port = u16::from_be_bytes([answer, code]);
        }
        other
    }

    /// Whether a packet like this may open a connection: of ICMP only a query.
    pub(crate) fn may_open(&self) -> bool {
        let [kind, _] = self.dst_port.to_be_bytes();
        !self.protocol.is_icmp() || icmp_answer(self.protocol, kind).is_some_and(|(_, query)| query)
    }

    /// The port of the source, which translation may change: of ICMP, the identifier.
    pub(crate) fn source_port(&self) -> u16 {
        self.src_port
    }

    /// In the tuple of the answers: the port that the source is reached by.
    pub(crate) fn set_answered_port(&mut self, port: u16) {
        if self.protocol.is_icmp() { self.src_port = port } else { self.dst_port = port }
    }

    /// A hash that is the same for the reversed tuple.
    #[inline]
    pub(crate) fn hash(&self, hasher: &impl BuildHasher) -> u64 {
        let words = |address: &[u8; 16]| u128::from_ne_bytes(*address);
        let answered_by = if self.protocol.is_icmp() { self.src_port } else { self.dst_port };
        let (mut one, mut other) = ((words(&self.src), self.src_port), (words(&self.dst), answered_by));
        if one > other {
            core::mem::swap(&mut one, &mut other);
        }
        let rest = u64::from(one.1)
            | u64::from(other.1) << 16
            | u64::from(self.zone) << 32
            | u64::from(self.protocol.0) << 48
            | u64::from(self.v6) << 56;
        hasher.hash_one((one.0, other.0, rest))
    }
}
