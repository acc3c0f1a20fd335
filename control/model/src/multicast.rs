//! Multicast: how a VLAN is watched, and what a port has to do with it.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{
    Refusal,
    refusal::{Path, Step},
};

/// How the switch snoops in a VLAN, and how it asks where it is the querier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Snooping {
    /// Where frames to groups go that nobody has joined: `routers` (to the ports of multicast routers), `flood` (to the
    /// whole VLAN) or `drop`.
    pub unregistered: Unregistered,
    /// Ports behind which there are multicast routers in this VLAN, beside those that show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<String>,
    /// IPv4 source of the switch's own queries; unless said, the first IPv4 address of `gateway`, or else 0.0.0.0, which
    /// gives way to every querier that has an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub querier_ip: Option<Ipv4Addr>,
    /// IPv6 source of the switch's own queries, a link-local address; unless said, the first such address of `gateway`. With
    /// none there are no queries of MLD.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub querier_ip6: Option<Ipv6Addr>,
    /// Version of IGMP that the switch asks with, 2 or 3.
    #[schemars(range(min = 2, max = 3))]
    #[schema(minimum = 2, maximum = 3)]
    pub igmp_version: u8,
    /// Version of MLD that the switch asks with, 1 or 2.
    #[schemars(range(min = 1, max = 2))]
    #[schema(minimum = 1, maximum = 2)]
    pub mld_version: u8,
    /// How many messages in a row may be lost, plus one: 1 to 7.
    #[schemars(range(min = 1, max = 7))]
    #[schema(minimum = 1, maximum = 7)]
    pub robustness: u8,
    /// Seconds between two general queries, 1 to 31744.
    #[schemars(range(min = 1, max = 31744))]
    #[schema(minimum = 1, maximum = 31744)]
    pub query_interval: u32,
    /// Milliseconds that hosts may take to answer a general query, 100 to 25500; less than the interval.
    #[schemars(range(min = 100, max = 25500))]
    #[schema(minimum = 100, maximum = 25500)]
    pub max_response_ms: u32,
    /// Milliseconds that hosts may take to answer when somebody left, and between two such queries, 100 to 25500.
    #[schemars(range(min = 100, max = 25500))]
    #[schema(minimum = 100, maximum = 25500)]
    pub last_member_interval_ms: u32,
    /// Most memberships and sources together in the VLAN, 1 to 1048576.
    #[schemars(range(min = 1, max = 1_048_576))]
    #[schema(minimum = 1, maximum = 1_048_576)]
    pub limit: u32,
}

impl Default for Snooping {
    fn default() -> Self {
        Self {
            unregistered: Unregistered::default(),
            routers: Vec::new(),
            querier_ip: None,
            querier_ip6: None,
            igmp_version: 3,
            mld_version: 2,
            robustness: 2,
            query_interval: 125,
            max_response_ms: 10_000,
            last_member_interval_ms: 1_000,
            limit: 16384,
        }
    }
}

/// Where frames go to groups that nobody has joined.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Unregistered {
    /// To the ports of multicast routers.
    #[default]
    Routers,
    /// To the whole VLAN.
    Flood,
    /// To nobody.
    Drop,
}

/// What a port has to do with multicast, in VLANs in which the switch snoops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Multicast {
    /// Whether there is a multicast router behind the port: `auto` (it shows by what it says), `always`, or `never` (what
    /// only routers say is dropped).
    pub router: RouterPort,
    /// Whether there is only one host behind the port: what it leaves is gone at once, and nobody else is asked.
    pub fast_leave: bool,
    /// Most memberships and sources together of the port in one VLAN, 0 to 1048576.
    #[schemars(range(max = 1_048_576))]
    #[schema(maximum = 1_048_576)]
    pub limit: u32,
}

impl Default for Multicast {
    fn default() -> Self {
        Self { router: RouterPort::default(), fast_leave: false, limit: 256 }
    }
}

/// Whether there is a multicast router behind a port.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RouterPort {
    /// It shows.
    #[default]
    Auto,
    /// There is one.
    Always,
    /// There is none.
    Never,
}

/// The most entries that anything may have.
const MOST_ENTRIES: u32 = 1 << 20;

impl Snooping {
    /// The rules within one table; those about ports are the configuration's.
    pub(crate) fn check(&self, at: &[Step], found: &mut Vec<Refusal>) {
        let key = |key: &str| -> Path { at.iter().cloned().chain([Step::Key(key.into())]).collect() };
        let mut range = |name: &str, value: u32, min: u32, max: u32| {
            if !(min..=max).contains(&value) {
                let problem = format!("{value} is out of range");
                found.push(Refusal::at(key(name), problem, format!("{min} to {max}")));
            }
        };
        range("igmp_version", self.igmp_version.into(), 2, 3);
        range("mld_version", self.mld_version.into(), 1, 2);
        range("robustness", self.robustness.into(), 1, 7);
        range("query_interval", self.query_interval, 1, 31744);
        range("max_response_ms", self.max_response_ms, 100, 25500);
        range("last_member_interval_ms", self.last_member_interval_ms, 100, 25500);
        range("limit", self.limit, 1, MOST_ENTRIES);
        // RFC 3376, section 8.3.
        if self.max_response_ms >= self.query_interval.saturating_mul(1000) {
            let problem = "hosts would still answer one query when the next one comes";
            found.push(Refusal::at(
                key("max_response_ms"),
                problem,
                "less than the interval between queries",
            ));
        }
        if let Some(address) = self.querier_ip.filter(|ip| ip.is_multicast() || ip.is_broadcast()) {
            let problem = format!("nobody can have {address}");
            found.push(Refusal::at(key("querier_ip"), problem, "a unicast address, or 0.0.0.0"));
        }
        if let Some(address) = self.querier_ip6.filter(|ip| !ip.is_unicast_link_local()) {
            let problem = format!("{address} is not of the link");
            found.push(Refusal::at(
                key("querier_ip6"),
                problem,
                "an address of fe80::/10 (RFC 3810, section 5.1.14)",
            ));
        }
    }
}

impl Multicast {
    /// The rules within one table.
    pub(crate) fn check(&self, at: &[Step], found: &mut Vec<Refusal>) {
        if self.limit > MOST_ENTRIES {
            let path = at.iter().cloned().chain([Step::Key("limit".into())]).collect::<Path>();
            found.push(Refusal::at(
                path,
                format!("{} is out of range", self.limit),
                format!("at most {MOST_ENTRIES}"),
            ));
        }
    }
}
