//! ARP and neighbour solicitations, answered by the switch: for addresses of its own, and for others' on their behalf.
//!
//! ```text
//!   who has 10.0.0.7? --+-- an address of the switch's (gateway, DHCP server, router) --> the switch has it
//!                       +-- bound to another port --> that one has it; its owner is not asked
//!                       '-- neither, or the asker looks for conflicts --> goes on, as without the switch
//! ```
//!
//! For others only what was asked of everybody is answered (RFC 9161 section 3.2): a unicast request tests whether the
//! owner is there, which only the owner can say. Who looks for conflicts (ARP probes and announcements, duplicate address
//! detection) is not answered for others either: the owner defends its address, and a proxy that answers for an owner
//! that moves would make it lose it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabnic_port::PortId;
use fabnic_wire::arp::ArpPacket;
use fabnic_wire::build::{self, Link, Route, Writer};
use fabnic_wire::nd::{self, AdvertisementFlags, NdMessage, NdOption};
use fabnic_wire::{EtherType, MacAddr};
use zerocopy::byteorder::network_endian::U16;

use super::Question;
use super::settings::Gateway;
use crate::guard::{BindingOrigin, Bindings, datagram};

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) mac: MacAddr,
    /// The switch itself.
    pub(super) is_switch: bool,
}

/// Who has an address, of those the switch may answer for; `is_there` says whether a port is up.
pub(super) fn owner(
    question: &Question<'_>,
    bindings: &Bindings,
    gateways: &[Gateway],
    is_there: impl Fn(PortId) -> bool,
    address: IpAddr,
) -> Option<Owner> {
    if let Some(mac) = own_mac(question, gateways, address) {
        return Some(Owner { mac, is_switch: true });
    }
    let held = bindings.lookup(question.vlan, address)?;
    // Behind the asker's own port the owner is asked without us; one that merely claimed an address may be gone.
    let is_known = held.port != question.port && held.origin != BindingOrigin::Slaac && is_there(held.port);
    is_known.then_some(Owner { mac: held.mac, is_switch: false })
}

/// The MAC address with which the switch itself has an address on the asker's port.
pub(super) fn own_mac(question: &Question<'_>, gateways: &[Gateway], address: IpAddr) -> Option<MacAddr> {
    let settings = question.settings;
    let of_gateway =
        |gateway: &&Gateway| gateway.vlan == question.vlan && gateway.addresses.contains(&address);
    if let Some(gateway) = gateways.iter().find(of_gateway) {
        return Some(gateway.mac);
    }
    match address {
        IpAddr::V4(v4) => settings.dhcp.as_ref().filter(|dhcp| dhcp.server.1 == v4).map(|dhcp| dhcp.server.0),
        IpAddr::V6(v6) => {
            let router = settings.router.as_ref().map(|router| router.mac);
            let server = settings.dhcp6.as_ref().map(|server| server.server_mac);
            router.into_iter().chain(server).find(|mac| nd::link_local(*mac) == v6)
        }
    }
}

/// What is asked by ARP, and whether of everybody.
pub(super) struct Asked {
    pub(super) target: IpAddr,
    /// Others may be answered for.
    pub(super) by_proxy: bool,
}

/// The address that an ARP request asks about.
pub(super) fn arp_request<'a>(question: &Question<'a>) -> Option<(Asked, &'a ArpPacket)> {
    let packet = datagram::arp(question.frame, question.fields)?;
    let is_request =
        question.fields.ethertype == EtherType::ARP && packet.operation.get() == ArpPacket::REQUEST;
    let is_search = packet.sender_ip != [0; 4] && packet.sender_ip != packet.target_ip;
    let by_proxy = is_search && question.fields.dst.is_broadcast();
    is_request.then_some((Asked { target: Ipv4Addr::from(packet.target_ip).into(), by_proxy }, packet))
}

/// Answers an ARP request (RFC 826).
pub(super) fn arp_reply(request: &ArpPacket, owner: Owner, to: &mut Writer<'_>) {
    let link = Link { dst: request.sender_mac, src: owner.mac, tag: None };
    let reply = ArpPacket {
        hardware_type: U16::new(1),
        protocol_type: U16::new(EtherType::IPV4.0),
        hardware_len: 6,
        protocol_len: 4,
        operation: U16::new(ArpPacket::REPLY),
        sender_mac: owner.mac,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
    };
    build::arp(to, &link, &reply);
}

/// The address that a neighbour solicitation asks about.
pub(super) fn solicitation(question: &Question<'_>) -> Option<(Asked, Ipv6Addr)> {
    let icmp = datagram::icmp_message(question.frame, question.fields)?;
    let Some((NdMessage::NeighborSolicitation { target }, options)) = NdMessage::parse(icmp) else {
        return None;
    };
    let source = Ipv6Addr::from_octets(question.fields.flow.src);
    let is_good =
        question.fields.ttl == 255 && options.link_is(question.fields.src) && !target.is_multicast();
    let by_proxy = !source.is_unspecified()
        && source != target
        && Ipv6Addr::from_octets(question.fields.flow.dst).is_multicast();
    is_good.then_some((Asked { target: target.into(), by_proxy }, target))
}

/// Answers a neighbour solicitation (RFC 4861 section 7.2.4). Who looks for conflicts is told by the group of all nodes.
pub(super) fn advertisement(question: &Question<'_>, target: Ipv6Addr, owner: Owner, to: &mut Writer<'_>) {
    let asker = Ipv6Addr::from_octets(question.fields.flow.src);
    let solicited = !asker.is_unspecified();
    let (dst, dst_mac) = match solicited {
        true => (asker, question.fields.src),
        false => (nd::ALL_NODES, nd::group_mac(nd::ALL_NODES)),
    };
    let link = Link { dst: dst_mac, src: owner.mac, tag: None };
    let route = Route { src: target, dst, ttl: 255 };
    // A proxy does not override what the owner says itself (RFC 4861 section 7.2.8).
    let flags = AdvertisementFlags { router: owner.is_switch, solicited, override_known: owner.is_switch };
    build::icmp_v6(to, &link, &route, (nd::kind::NEIGHBOR_ADVERTISEMENT, 0), |to| {
        nd::put_neighbor_advertisement(to, flags, target);
        nd::put_option(to, &NdOption::TargetLink(owner.mac));
    });
}
