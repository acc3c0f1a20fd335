//! The checks of what a port sends: its addresses, in every place where a frame names them, and the roles it plays.
//!
//! ```text
//!   trusted? --yes--> nothing is checked
//!     mac -> vlan -> hidden headers -> DHCP(v6) server, RA -> ARP | ND -> IPv4 | IPv6 source
//! ```
//!
//! # What cannot be read is not passed
//! A check that must know what a packet is (RA, ND, DHCPv6) drops what hides it: an IPv6 header chain that does not end
//! within the first fragment or is too long to be followed, or whose upper layer nobody knows on a link-local packet (RFC
//! 7113 section 3); a third VLAN tag; 802.2 SNAP around IP or ARP (CVE-2021-27853, -27854, -27861, -27862).
//!
//! # What is cached
//! Decisions about plain packets depend on the version of the source's binding and are the flow's. Those about ARP,
//! neighbour discovery and DHCP are each frame's own ([`Findings::is_own`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabnic_port::{DropReason, PortId};
use fabnic_wire::arp::ArpPacket;
use fabnic_wire::layers::Network;
use fabnic_wire::nd::{NdMessage, solicited_node};
use fabnic_wire::{EtherType, Fields, FlowFlags, IpProtocol, MacAddr, Vid, dhcp, nd};

use super::bindings::{Binding, BindingError, BindingOrigin, Bindings};
use super::datagram;
use super::settings::GuardSettings;
use crate::fdb::Tick;
use crate::settings::VlanProtocol;
use crate::versions::Version;

/// Seconds for which a claimed address is kept without being seen (RFC 6620 section 2.5, DEFAULT_LT is 300).
pub(crate) const CLAIM_LIFETIME: Tick = 300;
/// A claim is prolonged when it is older than this.
const CLAIM_REFRESH: Tick = 30;

/// Whose frame it is.
pub(crate) struct Sender<'a> {
    pub(crate) port: PortId,
    pub(crate) settings: &'a GuardSettings,
    /// The port has one VLAN and takes no tags.
    pub(crate) is_access: bool,
    /// What kind of tag its VLANs are told by.
    pub(crate) protocol: VlanProtocol,
    /// The VLAN that the frame is in.
    pub(crate) vlan: Vid,
    pub(crate) bindings: &'a Bindings,
    pub(crate) now: Tick,
    /// Nothing may be learned: somebody only asks what would happen.
    pub(crate) dry: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Why the frame ends here, if it does.
    pub(crate) drop: Option<DropReason>,
    /// The decision is good as long as this version stands; the bindings' versions are meant.
    pub(crate) version: Option<Version>,
    /// The decision is this frame's only.
    pub(crate) is_own: bool,
}

type Checked = Result<(), DropReason>;

fn require(good: bool, reason: DropReason) -> Checked {
    if good { Ok(()) } else { Err(reason) }
}

/// The packet's source.
pub(crate) fn source(fields: &Fields) -> Option<IpAddr> {
    address(fields, &fields.flow.src)
}

/// The packet's destination.
pub(crate) fn destination(fields: &Fields) -> Option<IpAddr> {
    address(fields, &fields.flow.dst)
}

fn address(fields: &Fields, octets: &[u8; 16]) -> Option<IpAddr> {
    Some(match fields.flow.network()? {
        Network::V4 => Ipv4Addr::from_octets(*octets.first_chunk()?).into(),
        Network::V6 => Ipv6Addr::from_octets(*octets).into(),
    })
}

impl Sender<'_> {
    /// Checks a frame. `frame` are its private bytes, which are what the receiver gets: a neighbour discovery message that
    /// does not lie in them as a whole cannot be vouched for, and is dropped as broken.
    pub(crate) fn check(&self, fields: &Fields, frame: &[u8]) -> Findings {
        let mut findings = Findings { drop: None, version: None, is_own: false };
        if self.settings.trusted {
            // What servers say is looked at each time.
            findings.is_own = datagram::is_dhcp(fields);
            return findings;
        }
        findings.is_own = self.settings.reads_packets()
            && (datagram::is_control(fields) || fields.ethertype.0 < 1536 || is_unknown(fields));
        findings.drop = self.checks(fields, frame, &mut findings.version).err();
        findings
    }

    fn checks(&self, fields: &Fields, frame: &[u8], version: &mut Option<Version>) -> Checked {
        let settings = self.settings;
        if settings.mac {
            require(settings.macs.contains(&fields.src), DropReason::MacSpoof)?;
        }
        if settings.vlan {
            require(!self.has_tag_of_its_own(fields), DropReason::VlanSpoof)?;
        }
        self.hidden(fields, frame)?;
        self.roles(fields)?;
        match fields.ethertype {
            EtherType::ARP | EtherType::RARP if settings.arp => self.arp(fields, frame)?,
            EtherType::IPV4 if settings.ipv4 => self.ipv4(fields, version)?,
            EtherType::IPV6 => {
                // First what the message is about: where both are wrong, that says more.
                let is_neighbour = datagram::icmp6_type(fields)
                    .is_some_and(|kind| matches!(kind, nd::kind::ROUTER_SOLICITATION..=nd::kind::REDIRECT));
                if settings.nd && is_neighbour {
                    self.neighbour(fields, frame)?;
                }
                if settings.ipv6 {
                    self.ipv6(fields, version)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether there is a tag that the port may not send. Where service tags tell VLANs, customers' are what is carried.
    fn has_tag_of_its_own(&self, fields: &Fields) -> bool {
        let Some(outer) = fields.tag else { return false };
        let carries = self.protocol == VlanProtocol::Dot1Ad;
        let is_carried = carries && outer.tpid == EtherType::VLAN;
        let chooses = self.is_access && outer.tci.vid_bits() != 0 && !is_carried;
        let may_have_inner = carries && outer.tpid == EtherType::QINQ;
        chooses || fields.inner.is_some_and(|inner| !(may_have_inner && inner.tpid == EtherType::VLAN))
    }

    fn hidden(&self, fields: &Fields, frame: &[u8]) -> Checked {
        let settings = self.settings;
        let looks_at_v6 = settings.ra || settings.nd || settings.dhcp6_server;
        if !(looks_at_v6 || settings.arp || settings.ipv4 || settings.ipv6 || settings.dhcp_server) {
            return Ok(());
        }
        let snap = || frame.get(fields.l3.into()..).is_some_and(|llc| llc.starts_with(&[0xaa, 0xaa, 3]));
        let is_wrapped = fields.ethertype.is_tag() || (fields.ethertype.0 < 1536 && snap());
        require(!is_wrapped, DropReason::HiddenHeaders)?;
        if looks_at_v6 && fields.ethertype == EtherType::IPV6 {
            require(!fields.flow.flags.has(FlowFlags::MALFORMED), DropReason::HiddenHeaders)?;
            // The hop limit is no part of a flow's key; such a decision is each frame's own.
            require(!(is_unknown(fields) && fields.ttl == 255), DropReason::HiddenHeaders)?;
        }
        Ok(())
    }

    /// Servers and routers.
    fn roles(&self, fields: &Fields) -> Checked {
        let settings = self.settings;
        if settings.dhcp_server {
            require(!datagram::is_from_dhcp_server(fields), DropReason::DhcpServer)?;
        }
        if settings.dhcp6_server {
            require(!datagram::is_from_dhcp6_server(fields), DropReason::Dhcp6Server)?;
        }
        if settings.ra {
            let kind = datagram::icmp6_type(fields);
            let is_router = matches!(kind, Some(nd::kind::ROUTER_ADVERTISEMENT | nd::kind::REDIRECT));
            require(!is_router, DropReason::RaGuard)?;
        }
        Ok(())
    }

    fn arp(&self, fields: &Fields, frame: &[u8]) -> Checked {
        let packet = datagram::arp(frame, fields).ok_or(DropReason::ArpSpoof)?;
        require(packet.sender_mac == fields.src, DropReason::ArpSpoof)?;
        if fields.ethertype == EtherType::RARP {
            // Announces or asks for itself, as a VM does that has moved.
            return require(packet.target_mac == fields.src, DropReason::ArpSpoof);
        }
        let sender = Ipv4Addr::from(packet.sender_ip);
        // Somebody who asks whether an address is free says nothing of himself (RFC 5227 section 2.1.1).
        let is_probe = sender.is_unspecified() && packet.operation.get() == ArpPacket::REQUEST;
        require(is_probe || self.is_bound(fields.src, sender.into(), &mut None), DropReason::ArpSpoof)
    }

    fn ipv4(&self, fields: &Fields, version: &mut Option<Version>) -> Checked {
        let Some(source @ IpAddr::V4(address)) = source(fields) else { return Err(DropReason::Ipv4Spoof) };
        if address.is_unspecified() {
            let is_discover = datagram::is_udp(fields)
                && (fields.flow.src_port, fields.flow.dst_port) == (dhcp::CLIENT_PORT, dhcp::SERVER_PORT);
            // A host without an address reports its groups from 0.0.0.0 (RFC 4541 section 2.1.1).
            let is_report = fields.flow.protocol() == IpProtocol(2);
            return require(is_discover || is_report, DropReason::Ipv4Spoof);
        }
        require(self.is_bound(fields.src, source, version), DropReason::Ipv4Spoof)
    }

    fn ipv6(&self, fields: &Fields, version: &mut Option<Version>) -> Checked {
        let Some(source @ IpAddr::V6(address)) = source(fields) else { return Err(DropReason::Ipv6Spoof) };
        if address.is_unspecified() {
            // Before a host has an address it looks for conflicts, solicits routers and reports groups (RFC 4861, 3590).
            let kind = datagram::icmp6_type(fields);
            let may = matches!(
                kind,
                Some(nd::kind::NEIGHBOR_SOLICITATION | nd::kind::ROUTER_SOLICITATION | 131 | 132 | 143)
            );
            return require(may, DropReason::Ipv6Spoof);
        }
        require(self.is_bound(fields.src, source, version), DropReason::Ipv6Spoof)
    }

    fn neighbour(&self, fields: &Fields, frame: &[u8]) -> Checked {
        let wrong = DropReason::NdSpoof;
        let icmp = datagram::icmp_message(frame, fields).ok_or(wrong)?;
        require(fields.ttl == 255, wrong)?;
        let (message, options) = NdMessage::parse(icmp).ok_or(wrong)?;
        require(options.clone().link_is(fields.src), wrong)?;
        let source = Ipv6Addr::from_octets(fields.flow.src);
        let is_bound = |address: Ipv6Addr| self.is_bound(fields.src, address.into(), &mut None);
        match message {
            NdMessage::NeighborSolicitation { target } if source.is_unspecified() => {
                // Duplicate address detection (RFC 4862 section 5.4.2).
                let to = Ipv6Addr::from_octets(fields.flow.dst);
                require(!options.has_source_link() && to == solicited_node(target), wrong)?;
                // Whoever has the address will defend it; one that the port may not have at all it need not ask about.
                require(is_bound(target) || self.settings.may_claim(target), wrong)
            }
            NdMessage::RouterSolicitation if source.is_unspecified() => {
                require(!options.has_source_link(), wrong)
            }
            NdMessage::NeighborSolicitation { target } => {
                require(!target.is_multicast() && is_bound(source), wrong)
            }
            NdMessage::RouterSolicitation => require(is_bound(source), wrong),
            NdMessage::NeighborAdvertisement { target, .. } => require(is_bound(target), wrong),
            // Without the RA guard a port may be a router.
            NdMessage::RouterAdvertisement(_) | NdMessage::Redirect { .. } => Ok(()),
        }
    }

    /// Whether the address is bound to the port with this MAC address. An address that nobody has is claimed, if the port
    /// may do that.
    fn is_bound(&self, mac: MacAddr, address: IpAddr, version: &mut Option<Version>) -> bool {
        if self.settings.is_configured(self.vlan, mac, address) {
            return true;
        }
        // Read before the look-up, so that a change in between is noticed.
        *version = Some(self.bindings.version_of(self.vlan, address));
        let held = self.bindings.lookup(self.vlan, address);
        if let Some(held) = held {
            let is_own = (held.port, held.mac) == (self.port, mac);
            let is_old = held.origin == BindingOrigin::Slaac
                && held
                    .expires
                    .is_some_and(|at| at.saturating_sub(self.now) < CLAIM_LIFETIME - CLAIM_REFRESH);
            if is_own && is_old {
                self.claim(mac, address);
            }
            return is_own;
        }
        let IpAddr::V6(v6) = address else { return false };
        self.settings.may_claim(v6) && self.claim(mac, address) && {
            // Our own change is no reason to decide again.
            *version = Some(self.bindings.version_of(self.vlan, address));
            true
        }
    }

    fn claim(&self, mac: MacAddr, address: IpAddr) -> bool {
        let limit = self.settings.max_bindings;
        if self.dry {
            return self.bindings.could_claim(self.vlan, mac, address, self.port, limit);
        }
        let binding = Binding {
            vlan: self.vlan,
            address,
            port: self.port,
            mac,
            origin: BindingOrigin::Slaac,
            expires: Some(self.now.saturating_add(CLAIM_LIFETIME)),
        };
        match self.bindings.learn(binding, limit) {
            Ok(()) => true,
            Err(BindingError::Taken | BindingError::PortFull | BindingError::TableFull) => false,
        }
    }
}

/// Whether it is an IPv6 packet on its own link, of a protocol that may hide another.
fn is_unknown(fields: &Fields) -> bool {
    fields.flow.network() == Some(Network::V6)
        && Ipv6Addr::from_octets(fields.flow.src).is_unicast_link_local()
        && !fields.flow.flags.has(FlowFlags::LATER)
        && !is_upper_layer(fields.flow.protocol())
}

/// Protocols that end an IPv6 header chain. What is none of them may be an extension header that hosts look through and we
/// do not know.
fn is_upper_layer(protocol: IpProtocol) -> bool {
    matches!(
        protocol,
        IpProtocol::TCP | IpProtocol::UDP | IpProtocol::ICMPV6 | IpProtocol::SCTP | IpProtocol::NO_NEXT
    ) || matches!(protocol.0, 4 | 33 | 41 | 46 | 47 | 50 | 88 | 89 | 103 | 112 | 115 | 136)
}

/// Whether it is a spanning tree message: of a bridge, of a provider's bridge, or of Cisco's per-VLAN kind.
pub(crate) fn is_bpdu(dst: MacAddr) -> bool {
    matches!(dst.octets(), [0x01, 0x80, 0xc2, 0, 0, 0x00 | 0x08] | [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd])
}

#[cfg(test)]
mod tests;
