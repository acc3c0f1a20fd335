//! Packets for the tests of guards and answers.

use std::net::{Ipv4Addr, Ipv6Addr};

use fabnic_wire::arp::ArpPacket;
use fabnic_wire::build::{self, Link, Route, Writer};
use fabnic_wire::dhcp::DhcpHeader;
use fabnic_wire::nd::{self, AdvertisementFlags, NdOption};
use fabnic_wire::{EtherType, MacAddr};
use zerocopy::byteorder::network_endian::U16;

pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

pub(crate) fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub(crate) fn frame(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = [0; 1514];
    let mut to = Writer::new(&mut bytes);
    write(&mut to);
    let len = to.finish().unwrap();
    bytes[..len].to_vec()
}

pub(crate) fn link(src: MacAddr, dst: MacAddr) -> Link {
    Link { dst, src, tag: None }
}

pub(crate) fn arp(src: MacAddr, operation: u16, sender: (MacAddr, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpPacket {
        hardware_type: U16::new(1),
        protocol_type: U16::new(EtherType::IPV4.0),
        hardware_len: 6,
        protocol_len: 4,
        operation: U16::new(operation),
        sender_mac: sender.0,
        sender_ip: sender.1.octets(),
        target_mac: MacAddr::ZERO,
        target_ip: target.octets(),
    };
    frame(|to| build::arp(to, &link(src, MacAddr::BROADCAST), &packet))
}

pub(crate) fn udp4(src: MacAddr, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let route = Route { src: from.0, dst: to.0, ttl: 64 };
    let dst = if to.0.is_broadcast() { MacAddr::BROADCAST } else { mac(99) };
    frame(|w| build::udp_v4(w, &link(src, dst), &route, (from.1, to.1), |w| w.put(payload)))
}

pub(crate) fn udp6(src: MacAddr, from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let route = Route { src: from.0, dst: to.0, ttl: 64 };
    frame(|w| build::udp_v6(w, &link(src, mac(99)), &route, (from.1, to.1), |w| w.put(payload)))
}

/// An ICMPv6 message with hop limit 255.
pub(crate) fn icmp6(
    src: MacAddr,
    (from, to): (Ipv6Addr, Ipv6Addr),
    kind: u8,
    body: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let dst = if to.is_multicast() { nd::group_mac(to) } else { mac(99) };
    let route = Route { src: from, dst: to, ttl: 255 };
    frame(|w| build::icmp_v6(w, &link(src, dst), &route, (kind, 0), body))
}

pub(crate) fn solicitation(
    src: MacAddr,
    from: Ipv6Addr,
    target: Ipv6Addr,
    option: Option<MacAddr>,
) -> Vec<u8> {
    icmp6(src, (from, nd::solicited_node(target)), nd::kind::NEIGHBOR_SOLICITATION, |w| {
        nd::put_neighbor_solicitation(w, target);
        option.iter().for_each(|mac| nd::put_option(w, &NdOption::SourceLink(*mac)));
    })
}

pub(crate) fn advertisement(src: MacAddr, from: Ipv6Addr, target: Ipv6Addr, option: MacAddr) -> Vec<u8> {
    icmp6(src, (from, nd::ALL_NODES), nd::kind::NEIGHBOR_ADVERTISEMENT, |w| {
        nd::put_neighbor_advertisement(w, AdvertisementFlags::default(), target);
        nd::put_option(w, &NdOption::TargetLink(option));
    })
}

/// The payload of a DHCP message: `op`, transaction, `ciaddr`, `yiaddr`, client, options (the end is added).
pub(crate) fn dhcp(
    op: u8,
    xid: u32,
    addresses: (Ipv4Addr, Ipv4Addr),
    client: MacAddr,
    options: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; DhcpHeader::LEN];
    bytes[..3].copy_from_slice(&[op, 1, 6]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[12..16].copy_from_slice(&addresses.0.octets());
    bytes[16..20].copy_from_slice(&addresses.1.octets());
    bytes[28..34].copy_from_slice(&client.octets());
    bytes[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    bytes.extend_from_slice(options);
    bytes.push(255);
    bytes
}

/// A DHCP client's message.
pub(crate) fn dhcp_client(client: MacAddr, xid: u32, ciaddr: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let payload = dhcp(1, xid, (ciaddr, Ipv4Addr::UNSPECIFIED), client, options);
    udp4(client, (ciaddr, 68), (Ipv4Addr::BROADCAST, 67), &payload)
}

/// A DHCP server's message.
pub(crate) fn dhcp_server(client: MacAddr, xid: u32, given: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let payload = dhcp(2, xid, (Ipv4Addr::UNSPECIFIED, given), client, options);
    udp4(mac(99), (v4(1), 67), (Ipv4Addr::BROADCAST, 68), &payload)
}
