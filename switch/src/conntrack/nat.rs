//! Which addresses and ports a translated connection gets (RFC 2663, RFC 4787).
//!
//! ```text
//!   original   A:a -> V:80                     as packets of the first direction arrive
//!   SNAT       reply = V:80  -> N:a            the source becomes N, of a range; the port stays if it can
//!   DNAT       reply = S:8080 -> A:a           the destination becomes S, of a range
//!   both       reply = S:8080 -> N:a
//! ```
//!
//! A translation is nothing but another tuple of the answers: what a packet leaves as is the reverse of the other
//! direction's tuple. A client's address decides which address of a range it gets, so that all its connections have the
//! same one. A port that is taken (the tuple of the answers would be another connection's) is tried again with the next,
//! from a place that differs from connection to connection.
//!
//! # Invariants
//! - No two live connections of a zone have the same tuple of the answers.
//! - The number of tries is bounded; when they are over, the connection is refused, and counted.

use core::ops::RangeInclusive;
use std::net::IpAddr;

use fabnic_wire::IpProtocol;

use super::connection::{DNAT, SNAT};
use super::tuple::Tuple;

/// Ports that are tried before a connection is refused.
pub(crate) const TRIES: u32 = 512;

/// What addresses, and ports, a translation may choose from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NatRange {
    /// The lowest address.
    pub first: IpAddr,
    /// The highest address, of the same family.
    pub last: IpAddr,
    /// The ports (of ICMP: identifiers). None: of a source, the one it has, or if that is taken, another; of a
    /// destination, the one it has.
    pub ports: Option<RangeInclusive<u16>>,
}

/// How a connection is translated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nat {
    /// What its source becomes.
    pub source: Option<NatRange>,
    /// What its destination becomes.
    pub destination: Option<NatRange>,
}

impl NatRange {
    /// One address for a hash, if the range is of this family and not empty.
    fn address(&self, v6: bool, hash: u64) -> Option<[u8; 16]> {
        let pick = |first: u128, last: u128| {
            let count = last.checked_sub(first)?.saturating_add(1);
            first.checked_add(u128::from(hash) % count)
        };
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if !v6 => {
                let chosen = pick(first.to_bits().into(), last.to_bits().into())?;
                // In the first four bytes.
                Some((chosen << 96).to_be_bytes())
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if v6 => {
                Some(pick(first.to_bits(), last.to_bits())?.to_be_bytes())
            }
            _ => None,
        }
    }
}

/// Ports that a source may get that has no range of its own: of the same kind as its own.
fn usual_ports(port: u16) -> RangeInclusive<u16> {
    match port {
        0..512 => 1..=511,
        512..1024 => 600..=1023,
        _ => 1024..=65535,
    }
}

/// The `n`th of a range, in a circle.
fn nth(ports: &RangeInclusive<u16>, n: u64) -> Option<u16> {
    let (first, last) = (u64::from(*ports.start()), u64::from(*ports.end()));
    let count = last.checked_sub(first)? + 1;
    u16::try_from(first + n % count).ok()
}

impl Nat {
    /// The tuple of the answers at the given try, and the bits of the translation. `spread` is the same for all connections
    /// of a client, `start` differs for each. Nothing if there is nothing more to be tried.
    pub(crate) fn answers(
        &self,
        original: &Tuple,
        spread: u64,
        start: u64,
        attempt: u32,
    ) -> Option<(Tuple, u8)> {
        let mut reply = original.reversed();
        let has_ports = matches!(original.protocol, IpProtocol::TCP | IpProtocol::UDP);
        if let Some(to) = &self.destination {
            reply.src = to.address(original.v6, spread)?;
            if let Some(ports) = to.ports.as_ref().filter(|_| has_ports) {
                reply.src_port = nth(ports, spread >> 32)?;
            }
        }
        let mut range = None;
        if let Some(from) = &self.source {
            reply.dst = from.address(original.v6, spread)?;
            range.clone_from(&from.ports);
        }
        if has_ports || original.protocol.is_icmp() {
            let own = original.source_port();
            let stays = range.as_ref().is_none_or(|range| range.contains(&own));
            if attempt > 0 || !stays {
                let range = range.unwrap_or_else(|| usual_ports(own));
                if u64::from(attempt) > u64::from(range.end().saturating_sub(*range.start())) + 1 {
                    return None;
                }
                reply.set_answered_port(nth(&range, start.wrapping_add(attempt.into()))?);
            }
        } else if attempt > 0 {
            return None;
        }
        let plain = original.reversed();
        let mut bits = 0;
        let port_of_client =
            |tuple: &Tuple| if tuple.protocol.is_icmp() { tuple.src_port } else { tuple.dst_port };
        if reply.dst != plain.dst || port_of_client(&reply) != port_of_client(&plain) {
            bits |= SNAT;
        }
        if reply.src != plain.src || (has_ports && reply.src_port != plain.src_port) {
            bits |= DNAT;
        }
        Some((reply, bits))
    }
}
