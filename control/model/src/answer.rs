//! What the switch answers by itself: neighbours, DHCP, routers, echo, LLDP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::multicast::Snooping;
use crate::{
    Mac, Refusal, Vid,
    refusal::{Path, Step},
    rule::value::Prefix,
    word::{WordError, word},
};

/// Who the switch is as a server and router when nothing is said: locally administered.
pub const SERVER_MAC: Mac = Mac([0x02, 0xfa, 0xb0, 0, 0, 1]);

/// What the switch answers on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// ARP requests for known addresses are answered for their owners, and not flooded (RFC 9161).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub arp: bool,
    /// Neighbour solicitations for known addresses are answered for their owners, and not flooded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nd: bool,
    /// DHCP is answered from this, and the port's requests go nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Dhcp>,
    /// DHCPv6 is answered from this, and the port's requests go nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp6: Option<Dhcp6>,
    /// The port is shown this router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ra: Option<Router>,
    /// LLDP on the port's link: `off`, `receive`, `transmit` or `both`.
    #[serde(skip_serializing_if = "LldpMode::is_off")]
    pub lldp: LldpMode,
    /// Most answers that the port gets in a second; 0: no limit. What is asked beyond is dropped.
    pub rate: u32,
}

impl Default for Answer {
    fn default() -> Self {
        Self { arp: false, nd: false, dhcp: None, dhcp6: None, ra: None, lldp: LldpMode::Off, rate: 100 }
    }
}

/// Which way LLDP goes.
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
pub enum LldpMode {
    /// No way: what comes is dropped as every reserved destination is.
    #[default]
    Off,
    /// The neighbour's announcements are kept.
    Receive,
    /// The switch announces itself.
    Transmit,
    /// Both.
    Both,
}

impl LldpMode {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// A port's DHCP lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dhcp {
    /// Address that the port's client gets.
    #[schema(value_type = String)]
    pub address: Ipv4Addr,
    /// Length of its subnet's prefix, 1 to 32.
    #[serde(default = "subnet")]
    pub prefix_length: u8,
    /// IPv4 address of the server that the switch plays. ARP for it is answered too.
    #[schema(value_type = String)]
    pub server: Ipv4Addr,
    /// MAC address of the server; one of the switch's own unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_mac: Option<Mac>,
    /// Default router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, at most 63.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<Ipv4Addr>,
    /// Domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Name of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// MTU of the client's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Routes beside the default one, at most 27: `["10.0.0.0/8 via 192.168.1.9"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Seconds for which the address is the client's.
    #[serde(default = "lease")]
    pub lease: u32,
}

const fn subnet() -> u8 {
    24
}
const fn lease() -> u32 {
    86_400
}
const fn valid() -> u32 {
    2_592_000
}
const fn preferred() -> u32 {
    604_800
}

/// A route that a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where it leads.
    pub to: Prefix,
    /// Over which router.
    pub via: Ipv4Addr,
}

word!(Route, "A route", "10.0.0.0/8 via 192.168.1.9");

impl std::str::FromStr for Route {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::no("route", text, "PREFIX via ROUTER, both of IPv4");
        let (to, via) = text.split_once(" via ").ok_or_else(wrong)?;
        let to: Prefix = to.trim().parse().map_err(|_| wrong())?;
        let via = via.trim().parse().map_err(|_| wrong())?;
        if to.is_ipv4() { Ok(Self { to, via }) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} via {}", self.to, self.via)
    }
}

/// A port's DHCPv6 address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dhcp6 {
    /// Address that the port's client gets; none: configuration only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<Ipv6Addr>,
    /// MAC address of the server that the switch plays; one of the switch's own unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_mac: Option<Mac>,
    /// Name servers, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<Ipv6Addr>,
    /// Seconds for which the address is preferred.
    #[serde(default = "preferred")]
    pub preferred: u32,
    /// Seconds for which it is valid.
    #[serde(default = "valid")]
    pub valid: u32,
}

/// A router that a port is shown (RFC 4861).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Router {
    /// MAC address of the router; one of the switch's own unless said. Its link-local address follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Seconds for which it is a default router; 0: it is none.
    pub lifetime: u16,
    /// Hop limit for the hosts; 0: not said.
    pub hop_limit: u8,
    /// Hosts get their addresses by DHCPv6.
    pub managed: bool,
    /// Hosts get other configuration by DHCPv6.
    pub other: bool,
    /// MTU of the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Prefixes of the link, of which hosts make addresses themselves, at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
    /// Name servers, at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<Ipv6Addr>,
    /// Seconds between two advertisements that nobody asked for; 0: none.
    pub interval: u16,
}

impl Default for Router {
    fn default() -> Self {
        Self {
            mac: None,
            lifetime: 1800,
            hop_limit: 64,
            managed: false,
            other: false,
            mtu: None,
            prefixes: Vec::new(),
            dns: Vec::new(),
            interval: 200,
        }
    }
}

/// A VLAN's addresses of the switch's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VlanTable {
    /// The VLAN.
    pub id: Vid,
    /// Addresses that the switch has in the VLAN: ARP, neighbour solicitations and echo requests for them are answered on
    /// every port of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub gateway: Vec<IpAddr>,
    /// MAC address with which it has them; one of the switch's own unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mac: Option<Mac>,
    /// Whether the switch watches, by IGMP and MLD, who listens to which multicast group, and sends groups to nobody else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snooping: bool,
    /// Whether the switch asks by itself who listens, where it snoops and nobody else asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub querier: bool,
    /// How it snoops and asks: `{ unregistered = "drop", query_interval = 60 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast: Option<Snooping>,
    /// Ports that get a group whether anybody behind them asks for it or not, where the switch snoops:
    /// `[{ group = "239.1.1.1", port = "up0" }]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mdb: Vec<StaticMember>,
}

/// A port that gets a multicast group by configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticMember {
    /// The group, by its IPv4 or IPv6 address; not one of 224.0.0.0/24, ff01::1 or ff02::1, which go to the whole VLAN.
    #[schema(value_type = String)]
    pub group: IpAddr,
    /// Name of the port.
    pub port: String,
}

impl StaticMember {
    /// Most static members of a VLAN.
    pub const MOST: usize = 4096;

    /// Whether the group is one that has listeners: those of the link itself go to the whole VLAN (RFC 4541).
    #[must_use]
    pub fn is_of_listeners(&self) -> bool {
        match self.group {
            IpAddr::V4(group) => group.is_multicast() && !matches!(group.octets(), [224, 0, 0, _]),
            IpAddr::V6(group) => {
                group.is_multicast() && !matches!(group.segments(), [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1])
            }
        }
    }
}

/// What LLDP says of the switch, on the ports whose `answer.lldp` transmits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lldp {
    /// MAC address that is the chassis, and the source of what is sent.
    pub chassis: Mac,
    /// Name of the switch, at most 255 bytes.
    pub name: String,
    /// What it is, at most 255 bytes.
    pub description: String,
    /// Seconds between two announcements, 1 to 3600; they are good for four times as long.
    #[schemars(range(min = 1, max = 3600))]
    pub interval: u16,
}

impl Default for Lldp {
    fn default() -> Self {
        Self { chassis: SERVER_MAC, name: "fabnic".into(), description: "Fabnic".into(), interval: 30 }
    }
}

impl Lldp {
    /// Whether all of it is as by default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Answer {
    pub(crate) fn check(&self, key: &dyn Fn(&str) -> Path, found: &mut Vec<Refusal>) {
        let mut refuse = |table: &str, name: &str, problem: String, expected: &str| {
            let steps = [Step::Key(table.into()), Step::Key(name.into())];
            found.push(Refusal::at(key("answer").into_iter().chain(steps).collect(), problem, expected));
        };
        let few = |n: usize, most: usize| (n > most).then(|| format!("{n} are given"));
        if let Some(dhcp) = &self.dhcp {
            if !(1..=32).contains(&dhcp.prefix_length) {
                refuse("dhcp", "prefix_length", format!("{} is out of range", dhcp.prefix_length), "1 to 32");
            }
            if let Some(problem) = few(dhcp.dns.len(), 63) {
                refuse("dhcp", "dns", problem, "at most 63");
            }
            if let Some(problem) = few(dhcp.routes.len(), 27) {
                refuse("dhcp", "routes", problem, "at most 27");
            }
            for (name, text) in [("domain", &dhcp.domain), ("host_name", &dhcp.host_name)] {
                if let Some(text) = text.as_ref().filter(|text| text.is_empty() || text.len() > 255) {
                    refuse("dhcp", name, format!("{} bytes are given", text.len()), "1 to 255");
                }
            }
        }
        if let Some(dhcp6) = &self.dhcp6 {
            if let Some(problem) = few(dhcp6.dns.len(), 8) {
                refuse("dhcp6", "dns", problem, "at most 8");
            }
            if dhcp6.preferred > dhcp6.valid {
                refuse(
                    "dhcp6",
                    "preferred",
                    "an address is preferred longer than it is valid".into(),
                    "at most `valid`",
                );
            }
        }
        if let Some(router) = &self.ra {
            if let Some(problem) = few(router.dns.len(), 8) {
                refuse("ra", "dns", problem, "at most 8");
            }
            if let Some(problem) = few(router.prefixes.len(), 8) {
                refuse("ra", "prefixes", problem, "at most 8");
            }
            if let Some(prefix) = router.prefixes.iter().find(|prefix| prefix.is_ipv4()) {
                refuse("ra", "prefixes", format!("{prefix} is of IPv4"), "IPv6 prefixes");
            }
        }
    }
}
