//! Where the messages lie that guards and answers read: behind UDP and in ICMPv6.
//!
//! The bytes are cut where the IP and UDP headers say that the message ends, so that what is padded behind it is no part
//! of it. A message that is not all at hand is none.

use fabnic_wire::arp::ArpPacket;
use fabnic_wire::layers::Network;
use fabnic_wire::transport::UdpHeader;
use fabnic_wire::{EtherType, Fields, FlowFlags, IpProtocol, dhcp, dhcp6, nd};

fn be16(frame: &[u8], at: usize) -> Option<usize> {
    frame.get(at..)?.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
}

/// What the IP packet carries: from its L4 header to the end that the IP header gives.
pub(crate) fn l4<'a>(frame: &'a [u8], fields: &Fields) -> Option<&'a [u8]> {
    let (l3, l4) = (usize::from(fields.l3), usize::from(fields.l4?));
    let end = match fields.flow.network()? {
        Network::V4 => l3 + be16(frame, l3 + 2)?,
        Network::V6 => l3 + 40 + be16(frame, l3 + 4)?,
    };
    frame.get(l4..end)
}

/// The payload of a UDP datagram that is no fragment.
pub(crate) fn udp_payload<'a>(frame: &'a [u8], fields: &Fields) -> Option<&'a [u8]> {
    if !is_udp(fields) || fields.flow.flags.has(FlowFlags::FRAGMENT) {
        return None;
    }
    let datagram = l4(frame, fields)?;
    let (header, _) = UdpHeader::split(datagram)?;
    datagram.get(UdpHeader::LEN..usize::from(header.len.get()))
}

/// An ICMP or ICMPv6 message that is no fragment.
pub(crate) fn icmp_message<'a>(frame: &'a [u8], fields: &Fields) -> Option<&'a [u8]> {
    let is_whole = fields.flow.protocol().is_icmp() && !fields.flow.flags.has(FlowFlags::FRAGMENT);
    l4(frame, fields).filter(|_| is_whole)
}

/// The packet behind an ARP or RARP EtherType.
pub(crate) fn arp<'a>(frame: &'a [u8], fields: &Fields) -> Option<&'a ArpPacket> {
    ArpPacket::parse(frame.get(usize::from(fields.l3)..)?)
}

/// Whether it is UDP and its ports are known.
pub(crate) fn is_udp(fields: &Fields) -> bool {
    fields.flow.flags.has(FlowFlags::PORTS) && fields.flow.protocol() == IpProtocol::UDP
}

/// Type of an ICMPv6 message, if it is one and its type is known.
pub(crate) fn icmp6_type(fields: &Fields) -> Option<u8> {
    let is_known = fields.flow.flags.has(FlowFlags::PORTS) && fields.flow.network() == Some(Network::V6);
    (is_known && fields.flow.protocol() == IpProtocol::ICMPV6)
        .then(|| u8::try_from(fields.flow.src_port).ok())
        .flatten()
}

/// Towards a DHCP server, of IPv4.
pub(crate) fn is_to_dhcp_server(fields: &Fields) -> bool {
    is_v4_udp(fields) && fields.flow.dst_port == dhcp::SERVER_PORT
}

/// From a DHCP server, of IPv4: clients listen on no other port, and only servers and relays send from theirs.
pub(crate) fn is_from_dhcp_server(fields: &Fields) -> bool {
    is_v4_udp(fields)
        && (fields.flow.dst_port == dhcp::CLIENT_PORT || fields.flow.src_port == dhcp::SERVER_PORT)
}

/// Towards a DHCPv6 server.
pub(crate) fn is_to_dhcp6_server(fields: &Fields) -> bool {
    is_v6_udp(fields) && fields.flow.dst_port == dhcp6::SERVER_PORT
}

/// From a DHCPv6 server.
pub(crate) fn is_from_dhcp6_server(fields: &Fields) -> bool {
    is_v6_udp(fields)
        && (fields.flow.dst_port == dhcp6::CLIENT_PORT || fields.flow.src_port == dhcp6::SERVER_PORT)
}

fn is_v4_udp(fields: &Fields) -> bool {
    is_udp(fields) && fields.flow.network() == Some(Network::V4)
}

fn is_v6_udp(fields: &Fields) -> bool {
    is_udp(fields) && fields.flow.network() == Some(Network::V6)
}

/// Whether it is DHCP or DHCPv6, whichever way.
pub(crate) fn is_dhcp(fields: &Fields) -> bool {
    is_to_dhcp_server(fields)
        || is_from_dhcp_server(fields)
        || is_to_dhcp6_server(fields)
        || is_from_dhcp6_server(fields)
}

/// Whether it is of a protocol whose every message is looked at for itself: a decision on one says nothing of the next.
pub(crate) fn is_control(fields: &Fields) -> bool {
    matches!(fields.ethertype, EtherType::ARP | EtherType::RARP)
        || icmp6_type(fields)
            .is_some_and(|kind| matches!(kind, nd::kind::ROUTER_SOLICITATION..=nd::kind::REDIRECT))
        || is_dhcp(fields)
}
