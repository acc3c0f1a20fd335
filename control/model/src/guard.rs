//! What a port's traffic is checked for: sources, neighbours, servers that it must not play.

use serde::{Deserialize, Serialize};

use crate::{
    Mac, Port, Refusal,
    refusal::{Path, Step},
    rule::value::Prefix,
};

/// What frames from a port are checked for. Every check has a drop reason of its own name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Servers, routers and bridges are behind the port: nothing that it sends is checked, and what its DHCP servers say
    /// is believed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
    /// MAC addresses of the port besides its own `mac`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mac: Vec<Mac>,
    /// Addresses and prefixes that the port may use as sources, claim by ARP and announce as a neighbour.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<Prefix>,
    /// An access port may send no VLAN tag but one with VLAN 0, and no port one tag behind another.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub vlan: bool,
    /// The source of an IPv4 packet must be the port's: of `ip`, or learned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ipv4: bool,
    /// The source of an IPv6 packet must be the port's: of `ip`, or learned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
    /// The sender in an ARP packet must be the frame's source, and its address the port's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub arp: bool,
    /// Neighbour solicitations and advertisements must name the frame's source, and claim only what is the port's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nd: bool,
    /// The port may not speak as a DHCP server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dhcp_server: bool,
    /// The port may not speak as a DHCPv6 server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dhcp6_server: bool,
    /// The port may not send router advertisements and redirects.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ra: bool,
    /// Spanning tree messages from the port: `off` (dropped as every reserved destination), `drop` (and counted as
    /// `bpdu_guard`), `stop` (the same, and the port is stopped).
    #[serde(skip_serializing_if = "Bpdu::is_off")]
    pub bpdu: Bpdu,
    /// Addresses that trusted DHCP servers give to clients behind the port become the port's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub learn_dhcp: bool,
    /// Addresses that trusted DHCPv6 servers give to clients behind the port become the port's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub learn_dhcp6: bool,
    /// IPv6 prefixes of which, and of link-local addresses, the port may claim those that nobody else has (RFC 6620). An
    /// empty list: link-local addresses only. Not given: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slaac: Option<Vec<Prefix>>,
    /// Most addresses that are learned on the port.
    pub max_bindings: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            trusted: false,
            mac: Vec::new(),
            ip: Vec::new(),
            vlan: false,
            ipv4: false,
            ipv6: false,
            arp: false,
            nd: false,
            dhcp_server: false,
            dhcp6_server: false,
            ra: false,
            bpdu: Bpdu::Off,
            learn_dhcp: false,
            learn_dhcp6: false,
            slaac: None,
            max_bindings: 64,
        }
    }
}

/// What is done with spanning tree messages.
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
pub enum Bpdu {
    /// Nothing of its own.
    #[default]
    Off,
    /// They are dropped, and counted.
    Drop,
    /// The same, and the port is stopped until its other side is reset.
    Stop,
}

impl Bpdu {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

impl Guard {
    pub(crate) fn check(&self, port: &Port, key: &dyn Fn(&str) -> Path, found: &mut Vec<Refusal>) {
        let within =
            |name: &str| -> Path { key("guard").into_iter().chain([Step::Key(name.into())]).collect() };
        if let Some(mac) = self.mac.iter().find(|mac| !mac.is_station()) {
            let problem = format!("{mac} cannot be a station's address");
            found.push(Refusal::at(within("mac"), problem, "a unicast address that is not all zero"));
        }
        let has_mac = port.effective_mac().is_some() || !self.mac.is_empty();
        if port.spoofchk == Some(true) && !has_mac {
            let problem = "it is not known which addresses the port has";
            found.push(Refusal::at(key("spoofchk"), problem, "guard = { mac = [..] }"));
        }
        if let Some(prefix) = self.slaac.iter().flatten().find(|prefix| prefix.is_ipv4()) {
            found.push(Refusal::at(within("slaac"), format!("{prefix} is of IPv4"), "IPv6 prefixes"));
        }
        if self.ip.len() > 4096 {
            let problem = format!("{} addresses are given", self.ip.len());
            found.push(Refusal::at(within("ip"), problem, "at most 4096"));
        }
    }
}
