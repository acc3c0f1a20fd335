//! Rates, bursts and sizes, with the units of `tc(8)`: `10mbit`, `64k`; and in packets: `1kpps`, `100p`.

use std::{fmt, str::FromStr};

use crate::word::{WordError, word};

/// Largest rate in bits a second: 10 Tbit/s.
const MOST_BITS: u64 = 10_000_000_000_000;
/// Largest rate in packets a second.
const MOST_PACKETS: u64 = 10_000_000_000;
/// Largest burst, in bytes or packets.
const MOST_BURST: u64 = 1 << 32;

const RATE: &str =
    "a number with its unit: bit, kbit, mbit, gbit, tbit (a second, powers of 1000), pps, kpps or mpps";
const BURST: &str = "bytes as 1500, 64k or 1m (powers of 1024), or packets as 100p";

/// So much a second. A frame's bits are those of the frame as it enters the switch, without preamble and gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    /// Bits a second, 1 to 10^13.
    Bits(u64),
    /// Packets a second, 1 to 10^10.
    Packets(u64),
}

word!(Rate, "A rate", "10mbit");

const UNITS: [(&str, bool, u64); 8] = [
    ("tbit", true, 1_000_000_000_000),
    ("gbit", true, 1_000_000_000),
    ("mbit", true, 1_000_000),
    ("kbit", true, 1_000),
    ("bit", true, 1),
    ("mpps", false, 1_000_000),
    ("kpps", false, 1_000),
    ("pps", false, 1),
];

/// `number * unit` where the number may have a fraction that comes out even.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = format!("{whole}{fraction}").parse::<u64>().ok()?.checked_mul(unit)?;
    value.is_multiple_of(scale).then_some(value / scale)
}

impl FromStr for Rate {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::no("rate", text, RATE);
        let lower = text.trim().to_ascii_lowercase();
        let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit) = lower.split_at(end);
        let &(_, is_bits, unit) = UNITS.iter().find(|(name, ..)| *name == unit).ok_or_else(wrong)?;
        let value = scaled(number, unit).ok_or_else(wrong)?;
        let most = if is_bits { MOST_BITS } else { MOST_PACKETS };
        if !(1..=most).contains(&value) {
            return Err(wrong());
        }
        Ok(if is_bits { Self::Bits(value) } else { Self::Packets(value) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, is_bits) = match *self {
            Self::Bits(value) => (value, true),
            Self::Packets(value) => (value, false),
        };
        let even = UNITS.iter().find(|&&(_, bits, unit)| bits == is_bits && value.is_multiple_of(unit));
        // The last unit of each kind is 1, which is always even.
        match even {
            Some((name, _, unit)) => write!(f, "{}{name}", value / unit),
            None => write!(f, "{value}"),
        }
    }
}

impl Rate {
    /// Whether it counts packets.
    #[must_use]
    pub const fn is_packets(self) -> bool {
        matches!(self, Self::Packets(_))
    }
}

/// What may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Burst {
    /// Bytes.
    Bytes(u64),
    /// Packets.
    Packets(u64),
}

word!(Burst, "A burst", "64k");

const SIZES: [(&str, u64); 4] = [("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("", 1)];

impl FromStr for Burst {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::no("burst", text, BURST);
        let lower = text.trim().to_ascii_lowercase();
        let end = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let (number, unit) = lower.split_at(end);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (unit, is_packets) = match unit {
            "p" => (1, true),
            unit => {
                let unit = unit.strip_suffix('b').unwrap_or(unit);
                (SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1, false)
            }
        };
        let value = number.checked_mul(unit).filter(|v| (1..=MOST_BURST).contains(v)).ok_or_else(wrong)?;
        Ok(if is_packets { Self::Packets(value) } else { Self::Bytes(value) })
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Packets(value) => write!(f, "{value}p"),
            Self::Bytes(value) => match SIZES.iter().find(|(_, unit)| value.is_multiple_of(*unit)) {
                Some((name, unit)) => write!(f, "{}{name}", value / unit),
                None => write!(f, "{value}"),
            },
        }
    }
}

/// A rate with what may come at once: `10mbit burst 64k`. Without a burst it is what the rate brings in 10 ms, at least
/// 64 KiB or 16 packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Police {
    /// The rate.
    pub rate: Rate,
    /// The burst, of the rate's kind.
    pub burst: Option<Burst>,
}

word!(Police, "A rate with its burst", "10mbit burst 64k");

impl FromStr for Police {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        const EXPECTED: &str = "RATE or RATE burst SIZE, such as 10mbit burst 64k";
        let words: Vec<&str> = text.split_whitespace().take(4).collect();
        let (rate, burst) = match words.as_slice() {
            [rate] => (rate.parse()?, None),
            [rate, "burst", burst] => (rate.parse()?, Some(burst.parse()?)),
            _ => return Err(WordError::no("rate with a burst", text, EXPECTED)),
        };
        match (rate, burst) {
            (Rate::Bits(_), Some(Burst::Packets(_))) | (Rate::Packets(_), Some(Burst::Bytes(_))) => {
                Err(WordError::because(
                    format!("a rate in {rate} and a burst of another kind"),
                    "both in bytes, or both in packets",
                ))
            }
            _ => Ok(Self { rate, burst }),
        }
    }
}

impl fmt::Display for Police {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rate)?;
        self.burst.map_or(Ok(()), |burst| write!(f, " burst {burst}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_those_of_tc() {
        for (text, rate) in [
            ("10mbit", Rate::Bits(10_000_000)),
            ("2.5Gbit", Rate::Bits(2_500_000_000)),
            ("1bit", Rate::Bits(1)),
            ("1mpps", Rate::Packets(1_000_000)),
            ("100pps", Rate::Packets(100)),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap(), rate, "{text}");
        }
        for (text, burst) in [
            ("1500", Burst::Bytes(1500)),
            ("64k", Burst::Bytes(65536)),
            ("64kb", Burst::Bytes(65536)),
            ("100p", Burst::Packets(100)),
        ] {
            assert_eq!(text.parse::<Burst>().unwrap(), burst, "{text}");
        }
    }

    #[test]
    fn what_could_be_meant_in_two_ways_is_refused() {
        for text in ["100", "0mbit", "10", "1.5bit", "10mb", "-1kbit", "1e3kbit", "", "mbit", "20000tbit"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["", "k", "64q", "0", "99999999999g", "1.5k"] {
            assert!(text.parse::<Burst>().is_err(), "{text}");
        }
        assert!("10mbit burst 10p".parse::<Police>().is_err());
        assert!("10mbit 64k".parse::<Police>().is_err());
    }

    proptest! {
        #[test]
        fn is_read_as_written(bits in 1..=MOST_BITS, packets in 1..=MOST_PACKETS, burst in 1..=MOST_BURST) {
            for rate in [Rate::Bits(bits), Rate::Packets(packets)] {
                prop_assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
            }
            for police in [
                Police { rate: Rate::Bits(bits), burst: Some(Burst::Bytes(burst)) },
                Police { rate: Rate::Packets(packets), burst: Some(Burst::Packets(burst)) },
                Police { rate: Rate::Packets(packets), burst: None },
            ] {
                prop_assert_eq!(police.to_string().parse::<Police>().unwrap(), police);
            }
        }
    }
}
