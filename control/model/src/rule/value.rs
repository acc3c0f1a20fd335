//! What can stand behind a key of a rule's match, each in the words of `tc flower`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::{
    Mac,
    check::is_name,
    word::{WordError, word},
};

/// A number in decimal or, with `0x`, in hexadecimal.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        // `from_str_radix` would take a sign.
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

/// An Ethernet address, or those that agree with it where the mask has ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacMask {
    /// The address, zero where the mask is.
    pub mac: Mac,
    /// Bits that count.
    pub mask: Mac,
}

word!(MacMask, "An Ethernet address with an optional mask", "52:54:00:00:00:00/ff:ff:ff:00:00:00");

const ALL: Mac = Mac([0xff; 6]);

impl FromStr for MacMask {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || {
            WordError::no(
                "MAC address",
                text,
                "52:54:00:00:00:01, with a mask as /ff:ff:ff:00:00:00 or a length as /24",
            )
        };
        let (address, mask) = match text.split_once('/') {
            None => (text, ALL),
            Some((address, mask)) if mask.contains([':', '-']) => {
                (address, mask.parse().map_err(|_| wrong())?)
            }
            Some((address, bits)) => {
                let bits = number(bits).filter(|bits| *bits <= 48).ok_or_else(wrong)?;
                let mask = (!0_u64 << 16).checked_shl(u32::try_from(48 - bits).unwrap_or(0)).unwrap_or(0);
                let [a, b, c, d, e, g, ..] = mask.to_be_bytes();
                (address, Mac([a, b, c, d, e, g]))
            }
        };
        let Mac(bytes) = address.parse().map_err(|_| wrong())?;
        let mut masked = bytes;
        for (byte, mask) in masked.iter_mut().zip(mask.0) {
            *byte &= mask;
        }
        Ok(Self { mac: Mac(masked), mask })
    }
}

impl fmt::Display for MacMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mac)?;
        if self.mask == ALL { Ok(()) } else { write!(f, "/{}", self.mask) }
    }
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The first of them.
    pub address: IpAddr,
    /// Bits that are the same, 0 to 32 or 128.
    pub length: u8,
}

word!(Prefix, "An IP address or prefix", "10.0.0.0/8");

impl Prefix {
    /// One address alone.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, length }
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }
}

impl FromStr for Prefix {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong =
            || WordError::no("address or prefix", text, "such as 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32");
        let (address, length) = match text.split_once('/') {
            None => (text, None),
            Some((address, length)) => (address, Some(number(length).ok_or_else(wrong)?)),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(length) => u8::try_from(length).ok().filter(|l| *l <= most).ok_or_else(wrong)?,
        };
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
        };
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if *self == Self::host(self.address) { Ok(()) } else { write!(f, "/{}", self.length) }
    }
}

/// An address of a packet: a prefix, or any of a group's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Addresses that begin alike.
    Prefix(Prefix),
    /// Addresses of the `[[group]]` with this name.
    Group(String),
}

word!(Address, "An IP address, a prefix, or group:NAME", "group:web");

impl FromStr for Address {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text.strip_prefix("group:") {
            Some(name) if is_name(name) => Ok(Self::Group(name.to_owned())),
            Some(_) => Err(WordError::no("group", text, "group:NAME with the name of a [[group]]")),
            None => text.parse().map(Self::Prefix).map_err(|error: WordError| WordError {
                expected: "an address, a prefix such as 10.0.0.0/8, or group:NAME",
                ..error
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// A range of small numbers, both ends included: `80`, `80-90`.
macro_rules! range {
    ($(#[doc = $doc:literal])+ $type:ident, $number:ty, $what:literal, $expected:literal, $example:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $type {
            /// The lowest.
            pub low: $number,
            /// The highest.
            pub high: $number,
        }

        word!($type, $what, $example);

        impl FromStr for $type {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                let wrong = || WordError::no($what, text, $expected);
                let (low, high) = text.split_once('-').unwrap_or((text, text));
                let read = |text: &str| {
                    number(text).and_then(|n| <$number>::try_from(n).ok()).ok_or_else(wrong)
                };
                let (low, high) = (read(low)?, read(high)?);
                if low > high { Err(wrong()) } else { Ok(Self { low, high }) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.low)?;
                if self.low == self.high { Ok(()) } else { write!(f, "-{}", self.high) }
            }
        }
    };
}

range!(
    /// Ports of TCP, UDP or SCTP.
    PortRange, u16, "port or range of ports", "a port such as 80, or a range such as 80-90", "80-90"
);
range!(
    /// A byte, or a range of bytes: TTLs, ICMP types and codes.
    ByteRange, u8, "number or range", "a number from 0 to 255, or a range such as 1-5", "1-5"
);

/// A value where a mask has ones: `0x10/0xfc`.
macro_rules! masked {
    ($(#[doc = $doc:literal])+ $type:ident, $number:ty, $what:literal, $expected:literal, $example:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $type {
            /// The value, zero where the mask is.
            pub value: $number,
            /// Bits that count.
            pub mask: $number,
        }

        word!($type, $what, $example);

        impl FromStr for $type {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                let read = |text: &str| {
                    number(text)
                        .and_then(|n| <$number>::try_from(n).ok())
                        .ok_or_else(|| WordError::no($what, text, $expected))
                };
                let (value, mask) = match text.split_once('/') {
                    None => (read(text)?, <$number>::MAX),
                    Some((value, mask)) => (read(value)?, read(mask)?),
                };
                Ok(Self { value: value & mask, mask })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.mask == <$number>::MAX {
                    write!(f, "{}", self.value)
                } else {
                    write!(f, "{:#x}/{:#x}", self.value, self.mask)
                }
            }
        }
    };
}

masked!(
    /// The byte of differentiated services (RFC 2474).
    Tos, u8, "type of service", "a number from 0 to 255, with a mask as 0x10/0xfc", "0x10/0xfc"
);
masked!(
    /// A mark of the switch's own, on a packet or on its connection.
    MarkMask, u32, "mark", "a number of 32 bits, with a mask as 0x1/0xff", "0x1/0xff"
);

/// What a packet carries, by its EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocol(pub u16);

word!(Protocol, "An EtherType", "ipv4");

const ETHERTYPES: [(&str, u16); 6] =
    [("ipv4", 0x0800), ("ip", 0x0800), ("arp", 0x0806), ("ipv6", 0x86dd), ("lldp", 0x88cc), ("mpls", 0x8847)];

impl Protocol {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
}

impl FromStr for Protocol {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let named = ETHERTYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, n)| *n);
        let given = || number(text).and_then(|n| u16::try_from(n).ok()).filter(|n| *n >= 0x600);
        named.or_else(given).map(Self).ok_or_else(|| {
            WordError::no("EtherType", text, "ipv4, ipv6, arp, lldp, mpls, or a number from 0x600 to 0xffff")
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ETHERTYPES.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpProto(pub u8);

word!(IpProto, "A protocol over IP", "tcp");

/// Names that tc has for them.
const PROTOCOLS: [(&str, u8); 9] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("igmp", 2),
];

impl IpProto {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// ICMP of IPv4.
    pub const ICMP: Self = Self(1);
    /// ICMP of IPv6.
    pub const ICMPV6: Self = Self(58);

    /// Whether there are ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 132)
    }
}

impl FromStr for IpProto {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let named = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, n)| *n);
        let given = || number(text).and_then(|n| u8::try_from(n).ok());
        named.or_else(given).map(Self).ok_or_else(|| {
            WordError::no(
                "protocol",
                text,
                "tcp, udp, icmp, icmpv6, sctp, gre, esp, ah, igmp, or a number to 255",
            )
        })
    }
}

impl fmt::Display for IpProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// TCP flags that are set, among those that are looked at (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Flags that are set.
    pub value: u8,
    /// Flags that are looked at.
    pub mask: u8,
}

word!(TcpFlags, "TCP flags", "syn/syn+ack");

const FLAGS: [(&str, u8); 8] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

const TCP_FLAGS: &str =
    "flags as syn+ack, with those that are looked at as syn/syn+ack, or numbers as 0x02/0x12";

fn flags(text: &str) -> Option<u8> {
    if let Some(number) = number(text) {
        return u8::try_from(number).ok();
    }
    text.split('+').try_fold(0, |all, word| {
        FLAGS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, bit)| all | bit)
    })
}

impl FromStr for TcpFlags {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let read = |part: &str| flags(part).ok_or_else(|| WordError::no("set of TCP flags", text, TCP_FLAGS));
        let (value, mask) = match text.split_once('/') {
            // `syn` alone asks for SYN and says nothing of the others.
            None => (read(text)?, read(text)?),
            Some((value, mask)) => (read(value)?, read(mask)?),
        };
        if mask == 0 || value & !mask != 0 {
            let problem =
                format!("`{}` asks for a flag that is not looked at", crate::parse::shortened(text));
            return Err(WordError::because(problem, TCP_FLAGS));
        }
        Ok(Self { value, mask })
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn write(f: &mut fmt::Formatter<'_>, bits: u8) -> fmt::Result {
            let mut plus = "";
            for (name, _) in FLAGS.iter().filter(|(_, bit)| bits & bit != 0) {
                write!(f, "{plus}{name}")?;
                plus = "+";
            }
            if bits == 0 { f.write_str("0") } else { Ok(()) }
        }
        write(f, self.value)?;
        if self.value == self.mask {
            return Ok(());
        }
        f.write_str("/")?;
        write(f, self.mask)
    }
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// Any fragment.
    Any,
    /// No fragment.
    Not,
    /// The first one.
    First,
    /// A fragment that is not the first.
    Later,
}

word!(Fragment, "Which fragments", "nofrag");

const FRAGMENTS: [(&str, Fragment); 4] = [
    ("frag", Fragment::Any),
    ("nofrag", Fragment::Not),
    ("firstfrag", Fragment::First),
    ("nofirstfrag", Fragment::Later),
];

impl FromStr for Fragment {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let found = FRAGMENTS.iter().find(|(name, _)| *name == text).map(|(_, fragment)| *fragment);
        found.ok_or_else(|| WordError::no("kind of fragment", text, "frag, nofrag, firstfrag or nofirstfrag"))
    }
}

impl fmt::Display for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FRAGMENTS.iter().find(|(_, fragment)| fragment == self).map_or(Ok(()), |(name, _)| f.write_str(name))
    }
}

/// What an ARP packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpOp(pub u16);

word!(ArpOp, "An ARP operation", "request");

impl FromStr for ArpOp {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "request" => Ok(Self(1)),
            "reply" => Ok(Self(2)),
            _ => number(text)
                .and_then(|n| u16::try_from(n).ok())
                .map(Self)
                .ok_or_else(|| WordError::no("ARP operation", text, "request, reply or a number")),
        }
    }
}

impl fmt::Display for ArpOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("request"),
            2 => f.write_str("reply"),
            other => other.fmt(f),
        }
    }
}

/// What connection tracking says of a packet, in the words of `tc flower` and Open vSwitch: `+trk+est-new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CtState {
    /// What must be so.
    pub set: u8,
    /// What must not be so.
    pub unset: u8,
}

word!(CtState, "A state of connection tracking", "+trk+est");

impl CtState {
    /// The packet went through connection tracking.
    pub const TRK: u8 = 1;
    /// It is the first of a connection.
    pub const NEW: u8 = 2;
    /// Its connection was seen in both directions.
    pub const EST: u8 = 4;
    /// It belongs to another connection: an ICMP error about it.
    pub const REL: u8 = 8;
    /// It goes against the direction in which the connection was opened.
    pub const RPL: u8 = 16;
    /// It fits no connection.
    pub const INV: u8 = 32;
}

const STATES: [(&str, u8); 6] = [
    ("trk", CtState::TRK),
    ("new", CtState::NEW),
    ("est", CtState::EST),
    ("rel", CtState::REL),
    ("rpl", CtState::RPL),
    ("inv", CtState::INV),
];

impl FromStr for CtState {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || {
            WordError::no("state of a connection", text, "+ or - before each of trk, new, est, rel, rpl, inv")
        };
        let mut state = Self { set: 0, unset: 0 };
        let mut rest = text;
        while let Some(sign) = rest.chars().next() {
            let body = rest.strip_prefix(['+', '-']).ok_or_else(wrong)?;
            let (word, after) = body.split_at(body.find(['+', '-']).unwrap_or(body.len()));
            let bit = STATES.iter().find(|(name, _)| *name == word).map(|(_, bit)| *bit).ok_or_else(wrong)?;
            if (state.set | state.unset) & bit != 0 {
                return Err(wrong());
            }
            if sign == '+' {
                state.set |= bit
            } else {
                state.unset |= bit
            }
            rest = after;
        }
        if state.set | state.unset == 0 { Err(wrong()) } else { Ok(state) }
    }
}

impl fmt::Display for CtState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (sign, bits) in [("+", self.set), ("-", self.unset)] {
            for (name, _) in STATES.iter().filter(|(_, bit)| bits & bit != 0) {
                write!(f, "{sign}{name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads, and gives back as written.
    fn again<T: FromStr<Err = WordError> + fmt::Display + PartialEq + fmt::Debug>(text: &str) -> String {
        let value: T = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(value.to_string().parse::<T>().unwrap(), value, "{text}");
        value.to_string()
    }

    #[test]
    fn words_of_tc_have_one_form() {
        assert_eq!(again::<MacMask>("52-54-00-12-34-56/24"), "52:54:00:00:00:00/ff:ff:ff:00:00:00");
        assert_eq!(
            again::<MacMask>("01:00:00:00:00:00/01:00:00:00:00:00"),
            "01:00:00:00:00:00/01:00:00:00:00:00"
        );
        assert_eq!(again::<MacMask>("52:54:00:00:00:01/48"), "52:54:00:00:00:01");
        assert_eq!(again::<MacMask>("52:54:00:00:00:01/0"), "00:00:00:00:00:00/00:00:00:00:00:00");
        assert_eq!(again::<Prefix>("10.1.2.3/8"), "10.0.0.0/8");
        assert_eq!(again::<Prefix>("0.0.0.0/0"), "0.0.0.0/0");
        assert_eq!(again::<Prefix>("2001:db8::1/128"), "2001:db8::1");
        assert_eq!(again::<Address>("group:web"), "group:web");
        assert_eq!(again::<PortRange>("80-80"), "80");
        assert_eq!(again::<ByteRange>("1-5"), "1-5");
        assert_eq!(again::<Tos>("0x13/0xfc"), "0x10/0xfc");
        assert_eq!(again::<MarkMask>("7"), "7");
        assert_eq!(again::<Protocol>("IP"), "ipv4");
        assert_eq!(again::<Protocol>("0x88cc"), "lldp");
        assert_eq!(again::<IpProto>("6"), "tcp");
        assert_eq!(again::<TcpFlags>("syn"), "syn");
        assert_eq!(again::<TcpFlags>("0x02/0x12"), "syn/syn+ack");
        assert_eq!(again::<TcpFlags>("0/syn"), "0/syn");
        assert_eq!(again::<Fragment>("nofirstfrag"), "nofirstfrag");
        assert_eq!(again::<ArpOp>("1"), "request");
        assert_eq!(again::<CtState>("-new+trk+est"), "+trk+est-new");
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in ["52:54:00", "52:54:00:00:00:01/49", "52:54:00:00:00:01/", "/24"] {
            assert!(text.parse::<MacMask>().is_err(), "{text}");
        }
        for text in ["10.0.0.0/33", "::/129", "10.0.0", "10.0.0.0/-1", "/8", "10.0.0.1/+8"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        for text in ["90-80", "65536", "-", "80-", "+80", "0x"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
        for text in ["ack/syn", "0/0", "syn+", "fin+nothing"] {
            assert!(text.parse::<TcpFlags>().is_err(), "{text}");
        }
        for text in ["", "trk", "+trk-trk", "+", "+trk+what"] {
            assert!(text.parse::<CtState>().is_err(), "{text}");
        }
        for text in ["0x5ff", "ipx", "70000"] {
            assert!(text.parse::<Protocol>().is_err(), "{text}");
        }
        assert!("group:".parse::<Address>().is_err());
        assert!("group:a b".parse::<Address>().is_err());
    }
}
