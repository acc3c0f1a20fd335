//! Who listens to which group: what IGMP (RFC 1112, 2236, 3376, 9776) and MLD (RFC 2710, 3810) have in common.
//!
//! The two protocols say the same things with addresses of two lengths, so there is one form for what they say. A
//! [`Packet`] is read from a whole frame: what lies behind the private head of a frame counts too, because a message sums
//! itself, and a report may have many records.
//!
//! ```text
//!   | Ethernet, tags | IPv4, router alert            | IGMP: type code checksum group records |
//!   | Ethernet, tags | IPv6, hop-by-hop router alert | MLD:  type code checksum group records |
//! ```
//!
//! Two more messages tell a switch where multicast routers are: PIM's Hello (RFC 7761) and multicast router discovery's
//! Advertisement (RFC 4286); they are read here too.
//!
//! # Invariants
//! * A message whose checksum is wrong, or that ends before what it announces, is refused with the reason ([`Refusal`]).
//! * Records and sources are walked by iterators that the bytes at hand bound.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bytes::{array, be16, u8_at};
use crate::checksum::{self, Sum};
use crate::ip::{Ipv4Header, Ipv6Header};
use crate::layers::{self, Network};
use crate::{EtherType, Fields, FlowFlags, IpProtocol, MacAddr, igmp, mld};

/// Why a message is not believed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// It ends before what it announces, or its IP header does.
    Truncated,
    /// The IPv4 header's checksum is wrong.
    IpChecksum,
    /// The message's own checksum is wrong.
    Checksum,
    /// It is about an address that is no group.
    NotAGroup,
    /// A query that is longer than version 1 and 2 know and shorter than version 3 begins (RFC 3376, section 7.1).
    QueryLength,
    /// An MLD message from farther away than this link: its hop limit is not 1 (RFC 3810, section 5).
    HopLimit,
    /// An MLD message without the router alert option (RFC 3810, section 5).
    RouterAlert,
    /// An MLD message whose source is not a link-local address (nor, of a report, unspecified: RFC 3590).
    Source,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: &'static [Refusal] = &[
        Refusal::Truncated,
        Refusal::IpChecksum,
        Refusal::Checksum,
        Refusal::NotAGroup,
        Refusal::QueryLength,
        Refusal::HopLimit,
        Refusal::RouterAlert,
        Refusal::Source,
    ];

    /// The name in counters.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::Truncated => "truncated",
            Refusal::IpChecksum => "ip_checksum",
            Refusal::Checksum => "checksum",
            Refusal::NotAGroup => "not_a_group",
            Refusal::QueryLength => "query_length",
            Refusal::HopLimit => "hop_limit",
            Refusal::RouterAlert => "router_alert",
            Refusal::Source => "source",
        }
    }
}

/// What a group record says (RFC 3376, section 4.2.12; RFC 3810, section 5.2.12).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// MODE_IS_INCLUDE: listens to these sources.
    IsInclude,
    /// MODE_IS_EXCLUDE: listens to all sources but these.
    IsExclude,
    /// CHANGE_TO_INCLUDE_MODE: from now on to these sources.
    ToInclude,
    /// CHANGE_TO_EXCLUDE_MODE: from now on to all sources but these.
    ToExclude,
    /// ALLOW_NEW_SOURCES: to these too.
    Allow,
    /// BLOCK_OLD_SOURCES: to these no longer.
    Block,
}

impl RecordKind {
    const fn from_number(number: u8) -> Option<RecordKind> {
        Some(match number {
            1 => RecordKind::IsInclude,
            2 => RecordKind::IsExclude,
            3 => RecordKind::ToInclude,
            4 => RecordKind::ToExclude,
            5 => RecordKind::Allow,
            6 => RecordKind::Block,
            _ => return None,
        })
    }
}

/// Addresses one behind the other, all of 4 or all of 16 bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Addresses<'p> {
    bytes: &'p [u8],
    is_v6: bool,
}

impl Addresses<'_> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.bytes.len() / if self.is_v6 { 16 } else { 4 }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Iterator for Addresses<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        if self.is_v6 {
            let (address, rest) = self.bytes.split_first_chunk::<16>()?;
            self.bytes = rest;
            Some(Ipv6Addr::from_octets(*address).into())
        } else {
            let (address, rest) = self.bytes.split_first_chunk::<4>()?;
            self.bytes = rest;
            Some(Ipv4Addr::from_octets(*address).into())
        }
    }
}

/// One group of a version 3 (of MLD: 2) report.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Record<'p> {
    /// What is said.
    pub kind: RecordKind,
    /// Of which group.
    pub group: IpAddr,
    /// About which sources.
    pub sources: Addresses<'p>,
}

/// The records of a report. Records of a kind that is not known are passed over, as the RFCs say.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Records<'p> {
    left: u16,
    rest: &'p [u8],
    is_v6: bool,
}

impl<'p> Records<'p> {
    /// The records behind a report's header, all of which must be there.
    pub(crate) fn new(count: u16, rest: &'p [u8], is_v6: bool) -> Result<Records<'p>, Refusal> {
        let records = Records { left: count, rest, is_v6 };
        let mut walk = records;
        while walk.left > 0 {
            walk.take_one().ok_or(Refusal::Truncated)?;
        }
        Ok(records)
    }

    /// The next record, of whatever kind.
    fn take_one(&mut self) -> Option<(u8, IpAddr, Addresses<'p>)> {
        let width = if self.is_v6 { 16 } else { 4 };
        self.left = self.left.checked_sub(1)?;
        let kind = u8_at(self.rest, 0)?;
        let aux = usize::from(u8_at(self.rest, 1)?) * 4;
        let sources = usize::from(be16(self.rest, 2)?) * width;
        let mut group = Addresses { bytes: self.rest.get(4..4 + width)?, is_v6: self.is_v6 };
        let bytes = self.rest.get(4 + width..4 + width + sources)?;
        self.rest = self.rest.get(4 + width + sources + aux..)?;
        Some((kind, group.next()?, Addresses { bytes, is_v6: self.is_v6 }))
    }
}

impl<'p> Iterator for Records<'p> {
    type Item = Record<'p>;

    fn next(&mut self) -> Option<Record<'p>> {
        loop {
            let (kind, group, sources) = self.take_one()?;
            if let Some(kind) = RecordKind::from_number(kind) {
                return Some(Record { kind, group, sources });
            }
        }
    }
}

/// A query, of whatever version.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Query<'p> {
    /// 1 to 3 of IGMP, 1 or 2 of MLD.
    pub version: u8,
    /// The group that is asked for; `None`: all.
    pub group: Option<IpAddr>,
    /// How long hosts may wait with their answer, in milliseconds.
    pub max_response_ms: u32,
    /// Routers are not to lower their timers because of it (the S flag).
    pub suppress: bool,
    /// The querier's robustness variable; 0 if it is not told.
    pub robustness: u8,
    /// The querier's query interval in seconds; 0 if it is not told.
    pub interval_s: u32,
    /// The sources that are asked for, if any.
    pub sources: Addresses<'p>,
}

/// What a message says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Message<'p> {
    /// Who listens?
    Query(Query<'p>),
    /// The sender listens to the group; the version is 1 or 2 of IGMP, 1 of MLD.
    Report {
        /// The version.
        version: u8,
        /// The group.
        group: IpAddr,
    },
    /// The sender listens to the group no longer (IGMPv2 Leave, MLDv1 Done).
    Leave {
        /// The group.
        group: IpAddr,
    },
    /// A report of IGMPv3 or MLDv2.
    Records(Records<'p>),
    /// The sender is a multicast router: PIM Hello, or an Advertisement of multicast router discovery.
    Router,
    /// It is so no longer: a Termination of multicast router discovery.
    RouterGone,
    /// An IGMP message of a type that is not known: it is nobody's business but the receivers'.
    Other(u8),
}

/// A message with what IP says of it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Packet<'p> {
    /// Who sent it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// What it says.
    pub message: Message<'p>,
}

/// 224.0.0.13 and ff02::d, all PIM routers.
const ALL_PIM_ROUTERS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(224, 0, 0, 13), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xd));

/// Protocol number of PIM.
pub const PIM: IpProtocol = IpProtocol(103);

/// Whether a frame that begins like this carries a message that [`Packet::of`] reads; of a fragment: no.
pub fn is_membership(fields: &Fields) -> bool {
    let flow = &fields.flow;
    if flow.flags.has(FlowFlags::LATER) || fields.l4.is_none() {
        return false;
    }
    match (flow.network(), flow.protocol()) {
        (Some(Network::V4), IpProtocol(2)) => true,
        (Some(Network::V6), IpProtocol::ICMPV6) => mld::is_type(flow.src_port as u8),
        (Some(_), PIM) => {
            fields.dst == mac_of(ALL_PIM_ROUTERS.0.into()) || fields.dst == mac_of(ALL_PIM_ROUTERS.1.into())
        }
        _ => false,
    }
}

impl<'p> Packet<'p> {
    /// Reads a whole frame for which [`is_membership`] holds.
    ///
    /// # Errors
    /// Why the message is not to be believed.
    pub fn of(frame: &'p [u8]) -> Result<Packet<'p>, Refusal> {
        let (l3, ethertype) = layers::network(frame);
        let packet = frame.get(l3..).ok_or(Refusal::Truncated)?;
        match ethertype {
            EtherType::IPV4 => Packet::of_ipv4(packet),
            EtherType::IPV6 => Packet::of_ipv6(frame, l3, packet),
            _ => Err(Refusal::Truncated),
        }
    }

    fn of_ipv4(packet: &'p [u8]) -> Result<Packet<'p>, Refusal> {
        let (header, ..) = Ipv4Header::split(packet).ok_or(Refusal::Truncated)?;
        let header_len = header.header_len();
        if !checksum::ipv4_header_is_valid(packet.get(..header_len).unwrap_or(&[])) {
            return Err(Refusal::IpChecksum);
        }
        let payload = packet.get(header_len..header.total_len.get().into()).ok_or(Refusal::Truncated)?;
        let message = match IpProtocol(header.protocol) {
            PIM => read_pim(payload, Sum::ZERO)?,
            _ => igmp::read(payload)?,
        };
        Ok(Packet { source: header.source().into(), destination: header.destination().into(), message })
    }

    fn of_ipv6(frame: &'p [u8], l3: usize, packet: &'p [u8]) -> Result<Packet<'p>, Refusal> {
        let (header, rest) = Ipv6Header::split(packet).ok_or(Refusal::Truncated)?;
        let ip = layers::ipv6(frame, l3).ok_or(Refusal::Truncated)?;
        let l4 = usize::from(ip.l4).saturating_sub(l3 + Ipv6Header::LEN);
        let rest = rest.get(..header.payload_len.get().into()).ok_or(Refusal::Truncated)?;
        let (extensions, payload) = rest.split_at_checked(l4).ok_or(Refusal::Truncated)?;
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let pseudo = checksum::pseudo_header_v6(header.src, header.dst, ip.protocol, len);
        let source = header.source();
        let message = match ip.protocol {
            PIM => read_pim(payload, pseudo)?,
            _ => {
                let message = mld::read(payload, pseudo)?;
                // Discovery's messages come from a router's link-local address too (RFC 4286, section 3).
                if header.hop_limit != 1 {
                    return Err(Refusal::HopLimit);
                }
                if !has_router_alert(header, extensions) {
                    return Err(Refusal::RouterAlert);
                }
                let is_report =
                    matches!(message, Message::Report { .. } | Message::Leave { .. } | Message::Records(_));
                let may_send = source.is_unicast_link_local() || (is_report && source.is_unspecified());
                if !may_send {
                    return Err(Refusal::Source);
                }
                message
            }
        };
        Ok(Packet { source: source.into(), destination: header.destination().into(), message })
    }
}

/// Whether the hop-by-hop header, which comes first, has the router alert option (RFC 2711). MLD's value is 0.
fn has_router_alert(header: &Ipv6Header, extensions: &[u8]) -> bool {
    let Some(extension) = header.extensions(extensions).next() else { return false };
    if extension.kind != IpProtocol::HOP_BY_HOP {
        return false;
    }
    let mut options = extension.bytes.get(2..).unwrap_or(&[]);
    // An extension header is 2048 bytes at most, and each round takes at least one.
    while let Some((kind, rest)) = options.split_first() {
        // Pad1 is one byte.
        if *kind == 0 {
            options = rest;
            continue;
        }
        let Some((len, rest)) = rest.split_first() else { return false };
        if (*kind, *len) == (5, 2) {
            return true;
        }
        options = rest.get(usize::from(*len)..).unwrap_or(&[]);
    }
    false
}

/// PIM, of which only the Hello says something here (RFC 7761, section 4.9).
fn read_pim(message: &[u8], pseudo: Sum) -> Result<Message<'_>, Refusal> {
    let first = u8_at(message, 0).filter(|_| message.len() >= 4).ok_or(Refusal::Truncated)?;
    if first != 0x20 {
        return Ok(Message::Other(first));
    }
    if !is_summed(message, pseudo) {
        return Err(Refusal::Checksum);
    }
    Ok(Message::Router)
}

/// Whether a message with its checksum in it sums to nothing.
pub(crate) fn is_summed(message: &[u8], pseudo: Sum) -> bool {
    (Sum::of(message) + pseudo).checksum() == 0
}

/// An address of `is_v6`'s length.
pub(crate) fn address_at(bytes: &[u8], at: usize, is_v6: bool) -> Option<IpAddr> {
    match is_v6 {
        true => array::<16>(bytes, at).map(|a| Ipv6Addr::from_octets(*a).into()),
        false => array::<4>(bytes, at).map(|a| Ipv4Addr::from_octets(*a).into()),
    }
}

/// The sources of a query: `count` addresses at `at`.
pub(crate) fn sources_at(bytes: &[u8], at: usize, count: u16, is_v6: bool) -> Result<Addresses<'_>, Refusal> {
    let len = usize::from(count) * if is_v6 { 16 } else { 4 };
    let bytes = bytes.get(at..at + len).ok_or(Refusal::Truncated)?;
    Ok(Addresses { bytes, is_v6 })
}

/// A query's group: unspecified is none.
pub(crate) fn asked_for(group: IpAddr) -> Result<Option<IpAddr>, Refusal> {
    match (group.is_unspecified(), group.is_multicast()) {
        (true, _) => Ok(None),
        (_, true) => Ok(Some(group)),
        _ => Err(Refusal::NotAGroup),
    }
}

/// The value behind a code of 8 bits: exponent and mantissa from 128 on (RFC 3376, sections 4.1.1 and 4.1.7).
pub(crate) const fn decode8(code: u8) -> u32 {
    match code {
        0..128 => code as u32,
        _ => ((code & 0xf) as u32 | 0x10) << ((code >> 4 & 7) + 3),
    }
}

/// The code of the largest value that is not larger.
pub(crate) fn encode8(value: u32) -> u8 {
    (0..=u8::MAX).rev().find(|code| decode8(*code) <= value).unwrap_or(0)
}

/// The Ethernet address of a group (RFC 1112, section 6.4; RFC 2464, section 7). 32 groups of IPv4 share each.
pub const fn mac_of(group: IpAddr) -> MacAddr {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            MacAddr([1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            MacAddr([0x33, 0x33, a, b, c, d])
        }
    }
}

/// A query that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryFrame<'a> {
    /// Who asks. An IPv4 source may be 0.0.0.0: such a query takes no part in the election (RFC 4541, section 2.1.1).
    pub mac: MacAddr,
    /// Who asks; says whether it is IGMP or MLD.
    pub source: IpAddr,
    /// 2 or 3 of IGMP, 1 or 2 of MLD.
    pub version: u8,
    /// The group that is asked for; `None`: all.
    pub group: Option<IpAddr>,
    /// The sources that are asked for, of the highest version only.
    pub sources: &'a [IpAddr],
    /// How long hosts may wait with their answer, in milliseconds.
    pub max_response_ms: u32,
    /// Routers are not to lower their timers because of it.
    pub suppress: bool,
    /// The robustness variable; of more than 7 none is told.
    pub robustness: u8,
    /// The query interval in seconds.
    pub interval_s: u32,
}

impl QueryFrame<'_> {
    /// Its bytes, without a tag, padded to the shortest Ethernet frame. More sources than a frame of 1514 bytes has room
    /// for are left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (destination, packet) = match self.source {
            IpAddr::V4(source) => igmp::write_query(self, source),
            IpAddr::V6(source) => mld::write_query(self, source),
        };
        let ethertype = if self.source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let mut frame = [mac_of(destination).octets(), self.mac.octets()].concat();
        frame.extend(ethertype.0.to_be_bytes());
        frame.extend(packet);
        frame.resize(frame.len().max(crate::ethernet::MIN_FRAME_LEN), 0);
        frame
    }

    /// The S flag and the robustness variable as they go together in one byte.
    pub(crate) const fn flags(&self) -> u8 {
        let robustness = if self.robustness > 7 { 0 } else { self.robustness };
        (self.suppress as u8) << 3 | robustness
    }
}

#[cfg(test)]
mod tests;
