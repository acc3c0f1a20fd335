//! Mirrors: copies of what passes, for those who watch.

use serde::{Deserialize, Serialize};

use crate::{VlanSet, rule::PortNames};

/// A mirror. It takes what the ports and VLANs named here carry, and what rules send it with `mirror` and `sample`.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Name, 1 to 63 of `a-z A-Z 0-9 _ . -`, not twice among mirrors.
    pub name: String,
    /// Tenant whose mirror it is. Unless said, it is infrastructure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Port that gets the copies. For a file, a `pcap` uplink with `capture`.
    pub to: String,
    /// Ports whose frames are copied: a name or a list of names.
    #[serde(default, skip_serializing_if = "PortNames::is_empty")]
    pub port: PortNames,
    /// Which way, seen from the switch: `ingress` is what the ports send, `egress` what is delivered to them, `both`
    /// unless said.
    #[serde(default, skip_serializing_if = "MirrorDirection::is_both")]
    pub direction: MirrorDirection,
    /// VLANs of which everything that comes in is copied, whatever port it comes from.
    #[serde(default, skip_serializing_if = "VlanSet::is_empty")]
    pub vlan: VlanSet,
    /// Most bytes that are kept of a frame; all unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 14, max = 65535))]
    pub snaplen: Option<u32>,
    /// One in so many frames is copied; each unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sample: Option<u32>,
}

/// Which way frames go that are mirrored.
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
pub enum MirrorDirection {
    /// What ports send.
    Ingress,
    /// What is delivered to ports.
    Egress,
    /// Both.
    #[default]
    Both,
}

impl MirrorDirection {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Both => "both",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_both(&self) -> bool {
        *self == Self::Both
    }
}
