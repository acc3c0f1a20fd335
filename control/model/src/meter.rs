//! Meters: rates that rules, ports and tenants are held to.

use serde::{Deserialize, Serialize};

use crate::{
    Refusal,
    rate::{Burst, Rate},
    refusal::{Path, Step},
};

/// A meter, which any number of rules and ports may share.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    /// Name, 1 to 63 of `a-z A-Z 0-9 _ . -`, not twice among meters.
    pub name: String,
    /// Tenant whose meter it is. Unless said, it is infrastructure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Committed rate: `10mbit`, or in packets `10kpps`.
    pub rate: Rate,
    /// What may come at once at that rate: `64k`, or `100p`. Unless said, what comes in 10 ms, and at least 64 KiB or 16
    /// packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// Peak rate, which contains the committed one: two rates, three colors (RFC 2698).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rate: Option<Rate>,
    /// Excess rate, beside the committed one: two rates, three colors (RFC 4115).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess_rate: Option<Rate>,
    /// What may come at once beyond `burst`: at the peak or excess rate, or, if there is neither, out of what the
    /// committed rate did not use: one rate, three colors (RFC 2697).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess_burst: Option<Burst>,
    /// Whether the color counts that the meter before gave the packet. False unless said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub color_aware: bool,
    /// What color a packet comes with, where colors count: `meters` for what the meter before gave it, `dscp` for the worse
    /// one of that and of its drop precedence (AFx1 is green, AFx2 yellow, AFx3 red, all else green; RFC 2597). `meters`
    /// unless said.
    #[serde(default, skip_serializing_if = "is_meters")]
    pub color_from: ColorFrom,
    /// Bytes counted for each packet beside its Ethernet frame: 24 for all that it takes of a wire. 0 unless said.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overhead: u8,
    /// What is done with yellow packets: `pass`, `drop`, or a DSCP that they get. `pass` unless said.
    #[serde(default, skip_serializing_if = "is_pass")]
    pub yellow: Conform,
    /// What is done with red packets: `drop`, `pass`, or a DSCP that they get. `drop` unless said.
    #[serde(default = "drop_it", skip_serializing_if = "is_drop")]
    pub red: Conform,
    /// Meter that is asked as well: a packet passes only if both let it. Four at most in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// Most meters in a row.
pub const MAX_CHAIN: usize = 4;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_pass(what: &Conform) -> bool {
    *what == Conform::Pass
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_drop(what: &Conform) -> bool {
    *what == Conform::Drop
}

const fn drop_it() -> Conform {
    Conform::Drop
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_meters(from: &ColorFrom) -> bool {
    *from == ColorFrom::Meters
}

/// Where the color comes from that a packet comes with.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ColorFrom {
    /// The meters before.
    #[default]
    Meters,
    /// The packet's DSCP as well.
    Dscp,
}

/// What becomes of packets of a color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Conform {
    /// They go on.
    #[default]
    Pass,
    /// They end.
    Drop,
    /// They go on with this DSCP, 0 to 63.
    Dscp(u8),
}

crate::word::word!(Conform, "What becomes of packets of a color", "drop");

impl std::str::FromStr for Conform {
    type Err = crate::word::WordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pass" => Ok(Self::Pass),
            "drop" => Ok(Self::Drop),
            _ => text.parse().ok().filter(|dscp| *dscp <= 63).map(Self::Dscp).ok_or_else(|| {
                crate::word::WordError::no("treatment", text, "pass, drop, or a DSCP from 0 to 63")
            }),
        }
    }
}

impl std::fmt::Display for Conform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Drop => f.write_str("drop"),
            Self::Dscp(dscp) => dscp.fmt(f),
        }
    }
}

impl Meter {
    /// The rules within one meter.
    pub(crate) fn check(&self, at: &[Step], found: &mut Vec<Refusal>) {
        let key = |key: &str| -> Path { at.iter().cloned().chain([Step::Key(key.into())]).collect() };
        let mut refuse = |name: &str, problem: String, expected: &str| {
            found.push(Refusal::at(key(name), problem, expected));
        };
        let is_packets = self.rate.is_packets();
        for (name, rate) in [("peak_rate", self.peak_rate), ("excess_rate", self.excess_rate)] {
            if rate.is_some_and(|rate| rate.is_packets() != is_packets) {
                refuse(
                    name,
                    format!("`{name}` is of another kind than `rate`"),
                    "both in bits, or both in packets",
                );
            }
        }
        for (name, burst) in [("burst", self.burst), ("excess_burst", self.excess_burst)] {
            if burst.is_some_and(|burst| matches!(burst, Burst::Packets(_)) != is_packets) {
                refuse(
                    name,
                    format!("`{name}` is of another kind than `rate`"),
                    "bytes with bits, packets with packets",
                );
            }
        }
        if self.color_from == ColorFrom::Dscp && !self.color_aware {
            let problem = "a color-blind meter has no use for the color that packets come with";
            refuse("color_from", problem.into(), "color_aware = true beside it");
        }
        if self.peak_rate.is_some() && self.excess_rate.is_some() {
            let expected = "peak_rate (RFC 2698) or excess_rate (RFC 4115)";
            refuse("excess_rate", "a meter has a peak rate or an excess rate, not both".into(), expected);
        }
        if let (Some(Rate::Bits(peak)), Rate::Bits(rate)) | (Some(Rate::Packets(peak)), Rate::Packets(rate)) =
            (self.peak_rate, self.rate)
            && peak < rate
        {
            refuse("peak_rate", "the peak rate is below `rate`".into(), "at least `rate`");
        }
    }
}
