//! What a rule does.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    Mac, Vid,
    rate::Police,
    word::{WordError, word},
};

/// What a rule does with a packet. Several are done in their order; `drop`, `pass`, `redirect` and `goto` end them.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The packet ends here.
    Drop,
    /// The packet goes on to what comes after this domain's rules.
    Pass,
    /// Nothing but counting, which every rule does.
    Count,
    /// The packet goes to this port instead of where the switch would send it.
    Redirect(String),
    /// A copy goes to this `[[mirror]]`.
    Mirror(String),
    /// The rules of this group are tried next.
    Goto(u32),
    /// Fields are rewritten.
    Set(Box<Set>),
    /// This `[[meter]]` is asked.
    Meter(String),
    /// A meter of the rule's own: what is over the rate is dropped.
    Police(Police),
    /// A copy of one in so many packets goes to a `[[mirror]]`.
    Sample(Sample),
    /// Later rules see this mark.
    Mark(u32),
    /// Connection tracking.
    Ct(Box<Ct>),
}

impl Action {
    /// The words that begin an action on the command line.
    pub const WORDS: &'static [&'static str] = &[
        "drop", "pass", "count", "redirect", "mirror", "goto", "set", "meter", "police", "sample", "mark",
        "ct",
    ];

    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Drop | Self::Pass | Self::Redirect(_) | Self::Goto(_))
    }
}

/// Fields that are rewritten. Checksums follow.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Set {
    /// Destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_mac: Option<Mac>,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_mac: Option<Mac>,
    /// VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vid>,
    /// Priority (PCP) in the VLAN tag that the packet leaves with, 0 to 7, whatever the ports say of priorities. Where it
    /// leaves without tag, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_prio: Option<u8>,
    /// Differentiated services code point, 0 to 63.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
    /// Time to live or hop limit: `dec` takes one off and drops what has none left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// Source of an IPv4 or IPv6 packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    #[schema(value_type = Option<String>)]
    pub src_ip: Option<IpAddr>,
    /// Destination of an IPv4 or IPv6 packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    #[schema(value_type = Option<String>)]
    pub dst_ip: Option<IpAddr>,
    /// Source port of TCP or UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Destination port of TCP or UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
}

/// A time to live that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// One less.
    Dec,
    /// This.
    To(u8),
}

word!(Ttl, "A time to live", "dec");

impl FromStr for Ttl {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "dec" => Ok(Self::Dec),
            _ => text
                .parse()
                .map(Self::To)
                .map_err(|_| WordError::no("time to live", text, "dec, or a number from 0 to 255")),
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dec => f.write_str("dec"),
            Self::To(ttl) => ttl.fmt(f),
        }
    }
}

/// A sample of the packets.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// One in so many, on average.
    #[schemars(range(min = 1))]
    pub one_in: u32,
    /// Name of the `[[mirror]]` that gets the copies.
    pub mirror: String,
}

/// What connection tracking does.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Ct {
    /// A packet that opens a connection makes it, if it is let through; without, it is only looked up. In the port's own zone
    /// it is made in any case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub commit: bool,
    /// Zone in which the connection is known, 0 to 65535; that of the port unless said, or 0 where the port is not tracked.
    /// Later rules see the packet as it is there. A tenant's rules keep to the port's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    /// Mark of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ct_mark: Option<u32>,
    /// New sources, one of which the connection gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snat: Option<NatRange>,
    /// New destinations, one of which the connection gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnat: Option<NatRange>,
}

/// Addresses and ports to translate to: `203.0.113.1`, `203.0.113.1-203.0.113.9`, `203.0.113.1:1024-65535`,
/// `[2001:db8::1]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatRange {
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same kind.
    pub last: IpAddr,
    /// First and last port; any when not given.
    pub ports: Option<(u16, u16)>,
}

word!(NatRange, "Addresses and ports to translate to", "203.0.113.1:1024-65535");

impl FromStr for NatRange {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || {
            WordError::no(
                "range of addresses",
                text,
                "ADDRESS or ADDRESS-ADDRESS, with ports as 203.0.113.1:1024-65535 or [2001:db8::1]:80",
            )
        };
        let (addresses, ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (addresses, ports) = rest.split_once(']').ok_or_else(wrong)?;
                match ports.strip_prefix(':') {
                    Some(ports) => (addresses, Some(ports)),
                    None if ports.is_empty() => (addresses, None),
                    None => return Err(wrong()),
                }
            }
            // More than one colon is an IPv6 address.
            None => match text.split_once(':') {
                Some((addresses, ports)) if !ports.contains(':') => (addresses, Some(ports)),
                _ => (text, None),
            },
        };
        let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
        let (first, last): (IpAddr, IpAddr) =
            (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        let ports = match ports {
            None => None,
            Some(ports) => {
                let range: super::value::PortRange = ports.parse().map_err(|_| wrong())?;
                Some((range.low, range.high))
            }
        };
        if first.is_ipv4() != last.is_ipv4() || first > last {
            Err(wrong())
        } else {
            Ok(Self { first, last, ports })
        }
    }
}

impl fmt::Display for NatRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.first.is_ipv6() && self.ports.is_some();
        if brackets {
            f.write_str("[")?;
        }
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        if brackets {
            f.write_str("]")?;
        }
        match self.ports {
            Some((low, high)) if low == high => write!(f, ":{low}"),
            Some((low, high)) => write!(f, ":{low}-{high}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nat_ranges_are_read_as_written() {
        for text in [
            "203.0.113.1",
            "203.0.113.1-203.0.113.9",
            "203.0.113.1:80",
            "203.0.113.1-203.0.113.9:1024-65535",
            "2001:db8::1",
            "2001:db8::1-2001:db8::9",
            "[2001:db8::1]:80",
            "[2001:db8::1-2001:db8::9]:1-2",
        ] {
            let range: NatRange = text.parse().unwrap();
            assert_eq!(range.to_string(), text);
        }
        for text in
            ["", "203.0.113.9-203.0.113.1", "203.0.113.1-::1", "[::1", "[::1]80", "203.0.113.1:", "a:80"]
        {
            assert!(text.parse::<NatRange>().is_err(), "{text}");
        }
    }
}
