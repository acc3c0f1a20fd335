//! MLD: IPv6 hosts say which groups they listen to.
//!
//! Version 1 (RFC 2710) and 2 (RFC 3810), messages of ICMPv6, and the messages of multicast router discovery (RFC 4286).
//! What they say is a [`Message`].
//!
//! ```text
//!   | type | code | checksum | max resp | reserved | group |                     24 bytes: version 1
//!                                                          | S QRV | QQIC | n | source ...   query of version 2
//!   | 143 | reserved | checksum | reserved | n | record ...                      report of version 2
//! ```

use core::net::{IpAddr, Ipv6Addr};

use crate::IpProtocol;
use crate::bytes::{be16, put16, u8_at};
use crate::checksum::{Sum, pseudo_header_v6};
use crate::membership::{
    Addresses, Message, Query, QueryFrame, Records, Refusal, address_at, asked_for, decode8, encode8,
    is_summed, sources_at,
};

/// Who listens?
pub const QUERY: u8 = 130;
/// Report of version 1.
pub const REPORT_V1: u8 = 131;
/// Done, of version 1.
pub const DONE: u8 = 132;
/// Report of version 2.
pub const REPORT_V2: u8 = 143;
/// Multicast Router Advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 151;
/// Multicast Router Termination.
pub const ROUTER_TERMINATION: u8 = 153;

/// ff02::1, all nodes.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The most sources of a query in a frame of 1514 bytes (RFC 3810, section 5.1.10).
const MOST_SOURCES: usize = 89;

/// Whether an ICMPv6 message of this type is read here.
pub(crate) const fn is_type(kind: u8) -> bool {
    matches!(kind, QUERY | REPORT_V1 | DONE | REPORT_V2 | ROUTER_ADVERTISEMENT | ROUTER_TERMINATION)
}

/// Reads a message: what IPv6 and its extension headers carry, no more.
pub(crate) fn read(message: &[u8], pseudo: Sum) -> Result<Message<'_>, Refusal> {
    let kind = u8_at(message, 0).filter(|_| message.len() >= 4).ok_or(Refusal::Truncated)?;
    if !is_summed(message, pseudo) {
        return Err(Refusal::Checksum);
    }
    let group = || address_at(message, 8, true).ok_or(Refusal::Truncated);
    let listened = || group().and_then(|group| asked_for(group)?.ok_or(Refusal::NotAGroup));
    Ok(match kind {
        QUERY => Message::Query(read_query(message)?),
        REPORT_V1 => Message::Report { version: 1, group: listened()? },
        DONE => Message::Leave { group: listened()? },
        REPORT_V2 => {
            let (count, rest) = be16(message, 6).zip(message.get(8..)).ok_or(Refusal::Truncated)?;
            Message::Records(Records::new(count, rest, true)?)
        }
        ROUTER_ADVERTISEMENT => Message::Router,
        ROUTER_TERMINATION => Message::RouterGone,
        other => Message::Other(other),
    })
}

fn read_query(message: &[u8]) -> Result<Query<'_>, Refusal> {
    let group = asked_for(address_at(message, 8, true).ok_or(Refusal::Truncated)?)?;
    let code = be16(message, 4).unwrap_or(0);
    let mut query = Query {
        version: 1,
        group,
        max_response_ms: code.into(),
        suppress: false,
        robustness: 0,
        interval_s: 0,
        sources: Addresses::default(),
    };
    match message.len() {
        24 => Ok(query),
        ..28 => Err(Refusal::QueryLength),
        _ => {
            let flags = u8_at(message, 24).unwrap_or(0);
            query.version = 2;
            query.max_response_ms = decode16(code);
            (query.suppress, query.robustness) = (flags & 8 != 0, flags & 7);
            query.interval_s = decode8(u8_at(message, 25).unwrap_or(0));
            query.sources = sources_at(message, 28, be16(message, 26).unwrap_or(0), true)?;
            Ok(query)
        }
    }
}

/// The value behind a code of 16 bits: exponent and mantissa from 32768 on (RFC 3810, section 5.1.3).
const fn decode16(code: u16) -> u32 {
    match code {
        0..0x8000 => code as u32,
        _ => ((code & 0xfff) as u32 | 0x1000) << ((code >> 12 & 7) + 3),
    }
}

/// The code of the largest value that is not larger.
fn encode16(value: u32) -> u16 {
    if let Some(small) = u16::try_from(value).ok().filter(|small| *small < 0x8000) {
        return small;
    }
    let exponent = (0..8_u16).rev().find(|exponent| 0x1000_u32 << (exponent + 3) <= value).unwrap_or(0);
    let mantissa = (value >> (exponent + 3)).min(0x1fff) & 0xfff;
    0x8000 | exponent << 12 | u16::try_from(mantissa).unwrap_or(0xfff)
}

/// Where a query goes, and its IPv6 packet: with router alert (RFC 2711) and hop limit 1.
pub(crate) fn write_query(query: &QueryFrame<'_>, source: Ipv6Addr) -> (IpAddr, Vec<u8>) {
    let group = match query.group {
        Some(IpAddr::V6(group)) => Some(group),
        _ => None,
    };
    let ms = query.max_response_ms;
    let code = if query.version >= 2 { encode16(ms) } else { u16::try_from(ms).unwrap_or(u16::MAX) };
    let mut message = vec![QUERY, 0, 0, 0];
    message.extend(code.to_be_bytes());
    message.extend([0, 0]);
    message.extend(group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
    if query.version >= 2 {
        let sources = query.sources.iter().filter_map(|source| match source {
            IpAddr::V6(source) => Some(source.octets()),
            IpAddr::V4(_) => None,
        });
        let sources: Vec<_> = sources.take(MOST_SOURCES).collect();
        message.extend([query.flags(), encode8(query.interval_s)]);
        message.extend(u16::try_from(sources.len()).unwrap_or(0).to_be_bytes());
        message.extend(sources.concat());
    }
    let destination = group.unwrap_or(ALL_NODES);
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let pseudo = pseudo_header_v6(source.octets(), destination.octets(), IpProtocol::ICMPV6, len);
    let sum = (Sum::of(&message) + pseudo).checksum();
    put16(&mut message, 2, sum);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(message.len() + 8).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    // Hop-by-hop: router alert for MLD, and a PadN of two bytes.
    packet.extend([IpProtocol::ICMPV6.0, 0, 5, 2, 0, 0, 1, 0]);
    packet.extend(message);
    (destination.into(), packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_times_are_rounded_down() {
        for value in [0, 1, 32_767, 32_768, 32_775, 40_000, 1_000_000, 8_387_584, u32::MAX] {
            let code = encode16(value);
            assert!(decode16(code) <= value, "{value}: {code:#x} is {}", decode16(code));
            assert!(code == u16::MAX || decode16(code + 1) > value, "{value}: {code:#x}");
        }
    }
}
