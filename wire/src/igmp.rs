//! IGMP: IPv4 hosts say which groups they listen to.
//!
//! Version 1 (RFC 1112, appendix I), 2 (RFC 2236), 3 (RFC 3376 and RFC 9776), and the messages of multicast router
//! discovery that came into the same protocol (RFC 4286). What they say is a [`Message`].
//!
//! ```text
//!   | type | max resp | checksum | group |                                       8 bytes: versions 1 and 2
//!                                        | S QRV | QQIC | n | source ...         query of version 3
//!   | 0x22 | reserved | checksum | reserved | n | record ...                     report of version 3
//! ```

use core::net::{IpAddr, Ipv4Addr};

use crate::bytes::{be16, put16, u8_at};
use crate::checksum::Sum;
use crate::membership::{
    Addresses, Message, Query, QueryFrame, Records, Refusal, address_at, asked_for, decode8, encode8,
    is_summed, sources_at,
};

/// Who listens?
pub const QUERY: u8 = 0x11;
/// Report of version 1.
pub const REPORT_V1: u8 = 0x12;
/// Report of version 2.
pub const REPORT_V2: u8 = 0x16;
/// Leave, of version 2.
pub const LEAVE: u8 = 0x17;
/// Report of version 3.
pub const REPORT_V3: u8 = 0x22;
/// Multicast Router Advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 0x30;
/// Multicast Router Termination.
pub const ROUTER_TERMINATION: u8 = 0x32;

/// 224.0.0.1, all systems.
pub const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

/// The most sources of a query in a frame of 1514 bytes.
const MOST_SOURCES: usize = 366;

/// Reads a message: the payload of an IP packet, no more.
pub(crate) fn read(message: &[u8]) -> Result<Message<'_>, Refusal> {
    let kind = u8_at(message, 0).filter(|_| message.len() >= 4).ok_or(Refusal::Truncated)?;
    if !is_summed(message, Sum::ZERO) {
        return Err(Refusal::Checksum);
    }
    let group = || address_at(message, 4, false).ok_or(Refusal::Truncated);
    let listened = || group().and_then(|group| asked_for(group)?.ok_or(Refusal::NotAGroup));
    Ok(match kind {
        QUERY => Message::Query(read_query(message)?),
        REPORT_V1 => Message::Report { version: 1, group: listened()? },
        REPORT_V2 => Message::Report { version: 2, group: listened()? },
        LEAVE => Message::Leave { group: listened()? },
        REPORT_V3 => {
            let (count, rest) = be16(message, 6).zip(message.get(8..)).ok_or(Refusal::Truncated)?;
            Message::Records(Records::new(count, rest, false)?)
        }
        ROUTER_ADVERTISEMENT => Message::Router,
        ROUTER_TERMINATION => Message::RouterGone,
        other => Message::Other(other),
    })
}

fn read_query(message: &[u8]) -> Result<Query<'_>, Refusal> {
    let group = asked_for(address_at(message, 4, false).ok_or(Refusal::Truncated)?)?;
    let code = u8_at(message, 1).unwrap_or(0);
    let mut query = Query {
        version: if code == 0 { 1 } else { 2 },
        group,
        // Version 1 knew no such time; its hosts wait up to 10 seconds (RFC 2236, section 4).
        max_response_ms: if code == 0 { 10_000 } else { u32::from(code) * 100 },
        suppress: false,
        robustness: 0,
        interval_s: 0,
        sources: Addresses::default(),
    };
    match message.len() {
        8 => Ok(query),
        ..12 => Err(Refusal::QueryLength),
        _ => {
            let flags = u8_at(message, 8).unwrap_or(0);
            query.version = 3;
            query.max_response_ms = decode8(code) * 100;
            (query.suppress, query.robustness) = (flags & 8 != 0, flags & 7);
            query.interval_s = decode8(u8_at(message, 9).unwrap_or(0));
            query.sources = sources_at(message, 12, be16(message, 10).unwrap_or(0), false)?;
            Ok(query)
        }
    }
}

/// Where a query goes, and its IPv4 packet: with router alert (RFC 2113), TTL 1, and the precedence of network control.
pub(crate) fn write_query(query: &QueryFrame<'_>, source: Ipv4Addr) -> (IpAddr, Vec<u8>) {
    let group = match query.group {
        Some(IpAddr::V4(group)) => Some(group),
        _ => None,
    };
    let mut message = vec![QUERY, 0, 0, 0];
    message.extend(group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    let tenths = query.max_response_ms.div_ceil(100);
    let code = if query.version >= 3 { encode8(tenths) } else { u8::try_from(tenths).unwrap_or(u8::MAX) };
    // Zero would make it a query of version 1.
    message.splice(1..2, [code.max(1)]);
    if query.version >= 3 {
        let sources = query.sources.iter().filter_map(|source| match source {
            IpAddr::V4(source) => Some(source.octets()),
            IpAddr::V6(_) => None,
        });
        let sources: Vec<_> = sources.take(MOST_SOURCES).collect();
        message.extend([query.flags(), encode8(query.interval_s)]);
        message.extend(u16::try_from(sources.len()).unwrap_or(0).to_be_bytes());
        message.extend(sources.concat());
    }
    let sum = Sum::of(&message).checksum();
    put16(&mut message, 2, sum);
    let destination = group.unwrap_or(ALL_SYSTEMS);
    let total = u16::try_from(24 + message.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x46, 0xc0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 1, 2, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend([0x94, 4, 0, 0]);
    let sum = Sum::of(&packet).checksum();
    put16(&mut packet, 10, sum);
    packet.extend(message);
    (destination.into(), packet)
}
