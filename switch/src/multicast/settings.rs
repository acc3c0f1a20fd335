//! What configuration says of multicast: of each VLAN in which groups are watched, and of each port.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabnic_port::PortId;
use fabnic_wire::{MacAddr, Vid};

/// Where frames to a group go that nobody has joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unregistered {
    /// To the ports behind which there are multicast routers (RFC 4541, section 2.1.2, rule 3).
    #[default]
    Routers,
    /// To the whole VLAN.
    Flood,
    /// To nobody: not even to routers, which do not learn so that there is a sender.
    Drop,
}

/// The switch asks by itself who listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerierSettings {
    /// Source address of its queries.
    pub mac: MacAddr,
    /// IPv4 source of IGMP queries; `None`: no IGMP querier. With 0.0.0.0 it gives way to every querier with an address,
    /// and hosts answer all the same (RFC 4541, section 2.1.1).
    pub v4: Option<Ipv4Addr>,
    /// IPv6 source of MLD queries, a link-local address; `None`: no MLD querier.
    pub v6: Option<Ipv6Addr>,
    /// IGMP version of its queries: 2 or 3.
    pub igmp_version: u8,
    /// MLD version of its queries: 1 or 2.
    pub mld_version: u8,
}

/// A port that gets a group without having asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticGroup {
    /// The group.
    pub group: IpAddr,
    /// The port.
    pub port: PortId,
}

/// A VLAN in which the switch watches who listens to which group, and delivers accordingly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanSnooping {
    /// The VLAN.
    pub vlan: Vid,
    /// The switch's own querier, if it is to have one.
    pub querier: Option<QuerierSettings>,
    /// Frames to groups that nobody has joined.
    pub unregistered: Unregistered,
    /// Ports behind which there are multicast routers in this VLAN, beside those of [`RouterPort::Always`].
    pub routers: Vec<PortId>,
    /// Lost messages that are outlived: RFC 3376, section 8.1. 1 to 7.
    pub robustness: u8,
    /// Seconds between two general queries: section 8.2.
    pub query_interval_s: u32,
    /// Milliseconds that hosts may take to answer one: section 8.3.
    pub max_response_ms: u32,
    /// Milliseconds that hosts may take to answer when somebody left: section 8.8.
    pub last_member_interval_ms: u32,
    /// The most memberships and sources together, of all ports of the VLAN.
    pub max_entries: u32,
    /// Ports that get a group whether they asked for it or not.
    pub static_groups: Vec<StaticGroup>,
}

impl VlanSnooping {
    /// Snooping with the RFCs' times, without a querier.
    pub fn new(vlan: Vid) -> VlanSnooping {
        VlanSnooping {
            vlan,
            querier: None,
            unregistered: Unregistered::default(),
            routers: Vec::new(),
            robustness: 2,
            query_interval_s: 125,
            max_response_ms: 10_000,
            last_member_interval_ms: 1_000,
            max_entries: 1 << 14,
            static_groups: Vec::new(),
        }
    }
}

/// Whether there is a multicast router behind a port: it gets all groups and all reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouterPort {
    /// It shows by its queries, by PIM's Hello and by multicast router discovery.
    #[default]
    Auto,
    /// There is one.
    Always,
    /// There is none, and nobody there may say otherwise: queries and routers' messages from the port are dropped.
    Never,
}

/// What configuration says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMulticast {
    /// Whether there is a multicast router behind it.
    pub router: RouterPort,
    /// There is one host behind the port: when it leaves a group, nobody else need be asked.
    pub fast_leave: bool,
    /// The most memberships and sources together in one VLAN.
    pub max_entries: u32,
}

impl Default for PortMulticast {
    fn default() -> PortMulticast {
        PortMulticast { router: RouterPort::Auto, fast_leave: false, max_entries: 256 }
    }
}
