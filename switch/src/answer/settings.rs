//! What configuration says the switch answers by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::nd::Prefix;
use fabnic_wire::{MacAddr, Vid};

use crate::guard::{Binding, BindingOrigin};
use crate::needs::Needs;

/// What the switch answers on a port. The default answers nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerSettings {
    /// ARP requests for bound addresses are answered for their owner, and not flooded (RFC 9161).
    pub arp: bool,
    /// The same with neighbour solicitations.
    pub nd: bool,
    /// DHCP is answered from this; the port's requests go nowhere else.
    pub dhcp: Option<Arc<DhcpSettings>>,
    /// DHCPv6 is answered from this; the port's requests go nowhere else.
    pub dhcp6: Option<Arc<Dhcp6Settings>>,
    /// The port is shown a router.
    pub router: Option<Arc<RouterSettings>>,
    /// LLDP on the port's link.
    pub lldp: LldpMode,
    /// The most answers that the port gets in a second; 0: no limit. What is asked beyond is dropped.
    pub rate: u32,
}

impl Default for AnswerSettings {
    fn default() -> AnswerSettings {
        AnswerSettings {
            arp: false,
            nd: false,
            dhcp: None,
            dhcp6: None,
            router: None,
            lldp: LldpMode::Off,
            rate: 100,
        }
    }
}

impl AnswerSettings {
    /// The addresses that the port's client gets by configuration are its own; `mac` is the port's.
    pub(crate) fn bindings(
        &self,
        port: PortId,
        untagged: Option<Vid>,
        mac: Option<MacAddr>,
    ) -> impl Iterator<Item = Binding> + use<> {
        let v4 = self.dhcp.as_ref().map(|dhcp| IpAddr::from(dhcp.address));
        let v6 = self.dhcp6.as_ref().and_then(|dhcp6| dhcp6.address).map(IpAddr::from);
        v4.into_iter().chain(v6).filter_map(move |address| {
            let (vlan, mac) = (untagged?, mac?);
            Some(Binding { vlan, address, port, mac, origin: BindingOrigin::Static, expires: None })
        })
    }

    /// What of a frame is read.
    pub(crate) fn needs(&self) -> Needs {
        let asks =
            self.arp || self.nd || self.dhcp.is_some() || self.dhcp6.is_some() || self.router.is_some();
        let packets = if asks { Needs::TYPE | Needs::IP | Needs::PORTS } else { Needs::empty() };
        // What a neighbour announces is looked at each time.
        let lldp = if self.lldp.receives() { Needs::TYPE } else { Needs::empty() };
        packets | lldp
    }
}

/// Which way LLDP goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Whether announcements are kept.
    pub fn receives(self) -> bool {
        matches!(self, LldpMode::Receive | LldpMode::Both)
    }

    /// Whether the switch announces itself.
    pub fn transmits(self) -> bool {
        matches!(self, LldpMode::Transmit | LldpMode::Both)
    }
}

/// A port's DHCP lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpSettings {
    /// The address that the port's client gets.
    pub address: Ipv4Addr,
    /// Length of its subnet's prefix in bits.
    pub prefix_len: u8,
    /// Who the switch is as a server: MAC address and IPv4 address. ARP for it is answered too.
    pub server: (MacAddr, Ipv4Addr),
    /// Default router.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, at most 63.
    pub dns: Vec<Ipv4Addr>,
    /// Domain, at most 255 bytes.
    pub domain: Option<String>,
    /// The client's name, at most 255 bytes.
    pub host_name: Option<String>,
    /// MTU of the client's interface in bytes.
    pub mtu: Option<u16>,
    /// Routes (RFC 3442): network, prefix length, router; at most 27 besides that of `gateway`.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Seconds; `u32::MAX`: for ever.
    pub lease: u32,
}

/// A port's DHCPv6 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp6Settings {
    /// The address that the port's client gets; `None`: configuration only.
    pub address: Option<Ipv6Addr>,
    /// Who the switch is as a server: its DUID and its link-local address follow from it.
    pub server_mac: MacAddr,
    /// Name servers, at most 8.
    pub dns: Vec<Ipv6Addr>,
    /// Seconds for which the address is preferred.
    pub preferred: u32,
    /// Seconds for which it is valid; `u32::MAX`: for ever.
    pub valid: u32,
}

/// The router that a port is shown (RFC 4861 section 6.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterSettings {
    /// Its MAC address; its link-local address follows from it.
    pub mac: MacAddr,
    /// Seconds for which it is a default router; 0: it is none.
    pub lifetime: u16,
    /// Hop limit for the hosts; 0: not said.
    pub hop_limit: u8,
    /// Addresses by DHCPv6.
    pub managed: bool,
    /// Other configuration by DHCPv6.
    pub other: bool,
    /// MTU of the link in bytes.
    pub mtu: Option<u32>,
    /// Prefixes, at most 8.
    pub prefixes: Vec<Prefix>,
    /// Name servers, at most 8.
    pub dns: Vec<Ipv6Addr>,
    /// Seconds between two advertisements that nobody asked for; 0: none.
    pub interval: u16,
}

/// Addresses that the switch has itself in a VLAN: ARP, neighbour solicitations and echo requests for them are answered on
/// every port of the VLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The VLAN.
    pub vlan: Vid,
    /// With which MAC address.
    pub mac: MacAddr,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

/// What LLDP says of the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LldpIdentity {
    /// Its chassis: a MAC address, also the source of what it sends.
    pub chassis: MacAddr,
    /// Its name, at most 255 bytes.
    pub name: String,
    /// What it is, at most 255 bytes.
    pub description: String,
    /// Seconds between two announcements (IEEE 802.1AB: 30); they are good for four times as long.
    pub interval: u16,
}

impl Default for LldpIdentity {
    fn default() -> LldpIdentity {
        LldpIdentity {
            chassis: MacAddr::new([0x02, 0xfa, 0xb0, 0, 0, 1]),
            name: "fabnic".to_owned(),
            description: concat!("Fabnic ", env!("CARGO_PKG_VERSION")).to_owned(),
            interval: 30,
        }
    }
}
