//! A frame in one line, for logs, capture comments and test failures.
//!
//! ```text
//! 52:54:00:00:00:01 > 52:54:00:00:00:02 vlan 10 p5 IPv4 10.0.0.1:43210 > 10.0.0.2:80 TCP [P.] seq 7 ack 9 win 502 len 2896 (2954 B, partial checksum 38+16, TSO4 1448)
//! 52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff ARP who-has 10.0.0.2 tell 10.0.0.1 (60 B)
//! ```
//!
//! It never fails: what is cut off or malformed is shown as far as it goes. Not for the data path.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use zerocopy::FromBytes;

use crate::{
    EtherType, IpProtocol, Layers, Offload, Tci,
    arp::ArpPacket,
    ethernet::{EthernetHeader, TAG_OFFSET, TagHeader},
    ip::{Ipv4Header, Ipv6Header},
    layers::{Fragment, IpLayer, Network},
    offload::{DATA_VALID, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4},
    transport::{IcmpHeader, TcpHeader, UdpHeader},
};

/// Shows a frame by its [`fmt::Display`].
#[derive(Copy, Clone, Debug)]
pub struct Pretty<'f> {
    head: &'f [u8],
    frame_len: usize,
    offload: Offload,
}

impl<'f> Pretty<'f> {
    /// A frame that is at hand as a whole and has nothing left to be done.
    pub const fn new(frame: &'f [u8]) -> Self {
        Pretty { head: frame, frame_len: frame.len(), offload: Offload::PLAIN }
    }

    /// A frame of which only the head is at hand, with its offload.
    pub const fn of_head(head: &'f [u8], frame_len: usize, offload: Offload) -> Self {
        Pretty { head, frame_len, offload }
    }
}

impl fmt::Display for Pretty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (EthernetHeader::split(self.head), Layers::of(self.head)) {
            (Some((ethernet, _)), Some(layers)) => {
                write!(f, "{} > {}", ethernet.src, ethernet.dst)?;
                tags(f, self.head, &layers)?;
                network(f, self.head, &layers)?;
            }
            _ => f.write_str("runt")?,
        }
        write!(f, " ({} B{})", self.frame_len, Left(&self.offload))
    }
}

fn tags(f: &mut fmt::Formatter<'_>, head: &[u8], layers: &Layers) -> fmt::Result {
    for tag in 0..usize::from(layers.tags) {
        let at = TAG_OFFSET + 4 * tag;
        let Some((header, _)) = head.get(at + 2..).and_then(|b| TagHeader::ref_from_prefix(b).ok()) else {
            break;
        };
        let tci = Tci(header.tci.get());
        let name = if head.get(at) == Some(&0x81) { "vlan" } else { "svlan" };
        write!(f, " {name} {}", tci.vid_bits())?;
        if tci.pcp() != 0 {
            write!(f, " p{}", tci.pcp())?;
        }
        if tci.dei() {
            f.write_str(" dei")?;
        }
    }
    Ok(())
}

fn network(f: &mut fmt::Formatter<'_>, head: &[u8], layers: &Layers) -> fmt::Result {
    let packet = head.get(usize::from(layers.l3)..).unwrap_or(&[]);
    match (layers.ethertype, layers.ip) {
        (EtherType::ARP | EtherType::RARP, _) => arp(f, packet, layers.ethertype),
        (_, Some(ip)) => {
            let l4 = head.get(usize::from(ip.l4)..).unwrap_or(&[]);
            match ip.network {
                Network::V4 => match Ipv4Header::split(packet) {
                    Some((header, ..)) => {
                        let len = usize::from(header.total_len.get()).saturating_sub(header.header_len());
                        let (src, dst) = (header.source(), header.destination());
                        f.write_str(" IPv4")?;
                        transport(f, src.into(), dst.into(), &ip, l4, len)?;
                        fragment(f, &ip, header.id.get().into(), header.fragment_offset())
                    }
                    None => f.write_str(" IPv4 malformed"),
                },
                Network::V6 => match Ipv6Header::split(packet) {
                    Some((header, _)) => {
                        let extensions =
                            usize::from(ip.l4).saturating_sub(usize::from(layers.l3) + Ipv6Header::LEN);
                        let len = usize::from(header.payload_len.get()).saturating_sub(extensions);
                        let (src, dst) = (header.source(), header.destination());
                        f.write_str(" IPv6")?;
                        transport(f, src.into(), dst.into(), &ip, l4, len)?;
                        fragment(f, &ip, 0, 0)
                    }
                    None => f.write_str(" IPv6 malformed"),
                },
            }
        }
        (EtherType::IPV4, None) => f.write_str(" IPv4 malformed or cut off"),
        (EtherType::IPV6, None) => f.write_str(" IPv6 malformed or cut off"),
        (EtherType::LLDP, None) => f.write_str(" LLDP"),
        (EtherType::SLOW, None) => f.write_str(" slow protocol"),
        (EtherType(len @ ..=1500), None) => write!(f, " 802.3 length {len}"),
        (other, None) => write!(f, " type {other}"),
    }
}

fn arp(f: &mut fmt::Formatter<'_>, packet: &[u8], ethertype: EtherType) -> fmt::Result {
    let name = if ethertype == EtherType::ARP { "ARP" } else { "RARP" };
    let Some(arp) = ArpPacket::parse(packet) else { return write!(f, " {name} malformed or not of IPv4") };
    let (sender, target) = (Ipv4Addr::from(arp.sender_ip), Ipv4Addr::from(arp.target_ip));
    match arp.operation.get() {
        ArpPacket::REQUEST => write!(f, " {name} who-has {target} tell {sender}"),
        ArpPacket::REPLY => write!(f, " {name} {sender} is-at {}", arp.sender_mac),
        ArpPacket::REVERSE_REQUEST => write!(f, " {name} who-is {} tell {}", arp.target_mac, arp.sender_mac),
        operation => write!(f, " {name} operation {operation}"),
    }
}

fn transport(
    f: &mut fmt::Formatter<'_>,
    src: Address,
    dst: Address,
    ip: &IpLayer,
    l4: &[u8],
    len: usize,
) -> fmt::Result {
    if ip.fragment == Fragment::Later {
        return write!(f, " {src} > {dst} {} len {len}", ip.protocol);
    }
    match ip.protocol {
        IpProtocol::TCP => match TcpHeader::ref_from_prefix(l4) {
            Ok((tcp, _)) => {
                let len = len.saturating_sub(tcp.header_len());
                let (src, dst) = (src.with(tcp.src_port.get()), dst.with(tcp.dst_port.get()));
                let (flags, seq, ack) = (tcp.flags, tcp.seq, tcp.ack);
                write!(f, " {src} > {dst} TCP [{flags}] seq {seq} ack {ack} win {} len {len}", tcp.window)
            }
            Err(_) => write!(f, " {src} > {dst} TCP cut off"),
        },
        IpProtocol::UDP => match UdpHeader::split(l4) {
            Some((udp, _)) => {
                let (src, dst) = (src.with(udp.src_port.get()), dst.with(udp.dst_port.get()));
                write!(f, " {src} > {dst} UDP len {}", len.saturating_sub(UdpHeader::LEN))
            }
            None => write!(f, " {src} > {dst} UDP cut off"),
        },
        IpProtocol::ICMP | IpProtocol::ICMPV6 => match IcmpHeader::split(l4) {
            Some((icmp, _)) => {
                write!(f, " {src} > {dst} {}", ip.protocol)?;
                let [id, seq] = icmp.rest;
                match (ip.network, icmp.kind) {
                    (Network::V4, IcmpHeader::ECHO_REQUEST) | (Network::V6, IcmpHeader::ECHO_REQUEST_V6) => {
                        write!(f, " echo request id {id} seq {seq}")
                    }
                    (Network::V4, IcmpHeader::ECHO_REPLY) | (Network::V6, IcmpHeader::ECHO_REPLY_V6) => {
                        write!(f, " echo reply id {id} seq {seq}")
                    }
                    (Network::V6, IcmpHeader::NEIGHBOR_SOLICITATION) => f.write_str(" neighbor solicitation"),
                    (Network::V6, IcmpHeader::NEIGHBOR_ADVERTISEMENT) => {
                        f.write_str(" neighbor advertisement")
                    }
                    (Network::V6, IcmpHeader::ROUTER_SOLICITATION) => f.write_str(" router solicitation"),
                    (Network::V6, IcmpHeader::ROUTER_ADVERTISEMENT) => f.write_str(" router advertisement"),
                    (_, kind) => write!(f, " type {kind} code {}", icmp.code),
                }?;
                write!(f, " len {len}")
            }
            None => write!(f, " {src} > {dst} {} cut off", ip.protocol),
        },
        protocol => write!(f, " {src} > {dst} {protocol} len {len}"),
    }
}

fn fragment(f: &mut fmt::Formatter<'_>, ip: &IpLayer, id: u32, offset: u16) -> fmt::Result {
    match (ip.fragment, ip.network) {
        (Fragment::No, _) => Ok(()),
        (Fragment::First, Network::V4) => write!(f, " first fragment of {id}"),
        (Fragment::Later, Network::V4) => write!(f, " fragment of {id} at {offset}"),
        (Fragment::First, Network::V6) => f.write_str(" first fragment"),
        (Fragment::Later, Network::V6) => f.write_str(" fragment"),
    }
}

/// An IP address, to be shown with a port or without.
#[derive(Copy, Clone)]
struct Address(std::net::IpAddr);

impl Address {
    fn with(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.0, port)
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Address(address.into())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Address(address.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What an offload leaves to be done; nothing for a plain frame.
struct Left<'o>(&'o Offload);

impl fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offload = self.0;
        if offload.needs_csum() {
            write!(f, ", partial checksum {}+{}", offload.csum_start, offload.csum_offset)?;
        }
        if offload.flags & DATA_VALID != 0 {
            f.write_str(", checksum verified")?;
        }
        let name = match offload.gso_kind() {
            GSO_NONE => return Ok(()),
            GSO_TCPV4 => "TSO4",
            GSO_TCPV6 => "TSO6",
            GSO_UDP => "UFO",
            GSO_UDP_L4 => "USO",
            other => return write!(f, ", gso type {other:#x}"),
        };
        write!(f, ", {name} {}", offload.gso_size)?;
        if offload.gso_type & GSO_ECN != 0 {
            f.write_str(" ECN")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::{MacAddr, arp::rarp_announce, offload::NEEDS_CSUM};

    #[test]
    fn one_line_each() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([0x52, 0x54, 0, 0, 0, 1], [0x52, 0x54, 0, 0, 0, 2])
            .single_vlan(10.try_into().unwrap())
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(43210, 80, 7, 502)
            .psh()
            .ack(9)
            .write(&mut frame, &[0; 100])
            .unwrap();
        frame[14] |= 0xa0;
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            gso_size: 50,
            csum_start: 38,
            csum_offset: 16,
            hdr_len: 58,
        };
        assert_eq!(
            Pretty::of_head(&frame[..64], frame.len(), offload).to_string(),
            "52:54:00:00:00:01 > 52:54:00:00:00:02 vlan 10 p5 IPv4 10.0.0.1:43210 > 10.0.0.2:80 TCP [P.] seq 7 ack 9 \
             win 502 len 100 (158 B, partial checksum 38+16, TSO4 50 ECN)"
        );

        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6([0; 16], [1; 16], 64)
            .icmpv6_echo_request(5, 6)
            .write(&mut frame, &[0; 8])
            .unwrap();
        assert_eq!(
            Pretty::new(&frame).to_string(),
            "02:02:02:02:02:02 > 04:04:04:04:04:04 IPv6 :: > 101:101:101:101:101:101:101:101 ICMPv6 echo request id 5 \
             seq 6 len 16 (70 B)"
        );

        assert_eq!(
            Pretty::new(&rarp_announce(MacAddr([2, 0, 0, 0, 0, 9]))).to_string(),
            "02:00:00:00:00:09 > ff:ff:ff:ff:ff:ff RARP who-is 02:00:00:00:00:09 tell 02:00:00:00:00:09 (60 B)"
        );
        assert_eq!(Pretty::new(&[1, 2, 3]).to_string(), "runt (3 B)");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_do(bytes: Vec<u8>, kind in 0_usize..4, header: [u8; 12]) {
            let mut frame = vec![0; 12];
            frame.extend([[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]][kind]);
            frame.extend(&bytes);
            let line = Pretty::of_head(&frame, frame.len(), Offload::decode(&header)).to_string();
            proptest::prop_assert!(!line.contains('\n'));
        }
    }
}
