//! Which priority frames of a port have, and how it is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Refusal, Vid,
    refusal::{Path, Step},
};

/// Whom a port believes about priorities, and how it writes them.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Priority {
    /// Whom to believe about frames that come in: `pcp` (the tag), `dscp` (the IP header) or `nothing`.
    pub trust: Trust,
    /// What a believed PCP becomes: eight priorities, of PCP 0 first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regenerate: Option<[u8; 8]>,
    /// What a believed DSCP becomes, where it is not its upper three bits: `{ 46 = 5 }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub from_dscp: BTreeMap<String, u8>,
    /// PCP that a priority leaves with, in the tag: eight, of priority 0 first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_pcp: Option<[u8; 8]>,
    /// DSCP that a priority leaves with: eight, of priority 0 first. Not given: as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_dscp: Option<[u8; 8]>,
}

/// Whom to believe about priorities.
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
pub enum Trust {
    /// The tag.
    #[default]
    Pcp,
    /// The IP header.
    Dscp,
    /// Nobody: all get the port's default, `qos`.
    Nothing,
}

/// Which kind of tag tells a port's VLANs.
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
pub enum VlanProto {
    /// Customer tags, EtherType 0x8100.
    #[default]
    #[serde(rename = "802.1q")]
    Dot1Q,
    /// Service tags, EtherType 0x88a8: customers' own tags go through as they are.
    #[serde(rename = "802.1ad")]
    Dot1Ad,
}

impl VlanProto {
    /// Whether it is the usual one.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::Dot1Q
    }
}

impl Priority {
    /// The priorities of DSCPs that are said.
    pub fn dscps(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        self.from_dscp.iter().filter_map(|(dscp, priority)| Some((dscp.parse().ok()?, *priority)))
    }

    pub(crate) fn check(&self, key: &dyn Fn(&str) -> Path, found: &mut Vec<Refusal>) {
        let mut refuse = |name: &str, problem: String, expected: &str| {
            found.push(Refusal::at(
                key("priority").into_iter().chain([Step::Key(name.into())]).collect(),
                problem,
                expected,
            ));
        };
        for (name, table, most) in
            [("regenerate", self.regenerate, 7), ("to_pcp", self.to_pcp, 7), ("to_dscp", self.to_dscp, 63)]
        {
            if let Some(value) = table.iter().flatten().find(|value| **value > most) {
                refuse(
                    name,
                    format!("{value} is out of range"),
                    if most == 7 { "0 to 7" } else { "0 to 63" },
                );
            }
        }
        for (dscp, priority) in &self.from_dscp {
            if dscp.parse::<u8>().map_or(true, |dscp| dscp > 63) || *priority > 7 {
                let problem =
                    format!("`{} = {priority}` is no priority of a DSCP", crate::parse::shortened(dscp));
                refuse("from_dscp", problem, "a DSCP from 0 to 63 and a priority from 0 to 7");
            }
        }
    }
}

/// The pairs of a `vlan_map`: number on the wire, VLAN of the switch.
pub(crate) fn translation(map: &BTreeMap<String, Vid>) -> Result<Vec<(Vid, Vid)>, String> {
    let mut pairs = Vec::with_capacity(map.len());
    let mut vlans = std::collections::HashSet::new();
    let mut wires = std::collections::HashSet::new();
    for (wire, vlan) in map {
        let number: Vid =
            wire.parse().map_err(|_| format!("`{}` is no VLAN", crate::parse::shortened(wire)))?;
        if !wires.insert(number) {
            return Err(format!("VLAN {number} on the wire is translated twice"));
        }
        if !vlans.insert(*vlan) {
            return Err(format!("two VLANs on the wire are translated to VLAN {vlan}"));
        }
        pairs.push((number, *vlan));
    }
    Ok(pairs)
}
