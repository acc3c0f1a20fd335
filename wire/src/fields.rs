//! Everything of a head that a rule can name, in one value.
//!
//! [`FlowFields`] is what tells flows apart; rules, guards against spoofing and connection tracking read more: both tags,
//! TTL, TCP flags, the contents of ARP and of neighbour discovery, and where the headers begin. [`Fields::of`] reads it
//! all once, when the first frame of a flow walks the stages.
//!
//! ```text
//!   | dst | src | tag | inner | ethertype | ---- flow: addresses, protocol, ports, tos ---- | tcp_flags
//!   0     6     12    16      l3-2        l3        ttl                                     l4
//!                                         '- arp: operation, sender, target                '- neighbour: target, link address
//! ```
//!
//! # Invariants
//! - What is not there, or lies behind the head, is `None` or zero, and [`FlowFlags`] says which of the two.
//! - The walk over neighbour discovery's options has a bound of its own.

use zerocopy::FromBytes;

use crate::{
    EtherType, FlowFields, FlowFlags, IpProtocol, MacAddr, Tci,
    arp::ArpPacket,
    bytes::{array, be16, u8_at},
    ethernet::{ETHERNET_LEN, TAG_LEN},
    layers::{self, Network},
    transport::TcpFlags,
};

/// How many options of a neighbour discovery message are looked at.
const MAX_OPTIONS: usize = 8;

/// A VLAN tag with the EtherType that announces it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// 0x8100 or 0x88a8 (0x9100 of old equipment).
    pub tpid: EtherType,
    /// Priority, drop eligibility, VLAN.
    pub tci: Tci,
}

/// The contents of an ARP packet of IPv4 over Ethernet (RFC 826).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArpFields {
    /// 1: request, 2: reply.
    pub operation: u16,
    /// Sender's MAC address.
    pub sender_mac: MacAddr,
    /// Sender's IPv4 address.
    pub sender_ip: [u8; 4],
    /// Target's MAC address.
    pub target_mac: MacAddr,
    /// Target's IPv4 address.
    pub target_ip: [u8; 4],
}

/// The contents of a neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourFields {
    /// The address that it is about.
    pub target: [u8; 16],
    /// The link-layer address option: the source's in a solicitation, the target's in an advertisement.
    pub link_address: Option<MacAddr>,
}

/// What a head says, as far as rules can name it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// The outer tag, of either kind.
    pub tag: Option<Tag>,
    /// The tag behind it.
    pub inner: Option<Tag>,
    /// What follows the tags; of a frame with more than two tags, the third one's EtherType.
    pub ethertype: EtherType,
    /// The L3 and L4 key.
    pub flow: FlowFields,
    /// Time to live or hop limit; 0 where there is no IP header.
    pub ttl: u8,
    /// The TCP flags; none where there is no TCP header.
    pub tcp_flags: TcpFlags,
    /// Offset of the network header: 14, 18 or 22.
    pub l3: u16,
    /// Offset of what follows the IP header and its extensions, of an IP packet that is not malformed.
    pub l4: Option<u16>,
    /// If it is ARP.
    pub arp: Option<ArpFields>,
    /// If it is a neighbour solicitation or advertisement.
    pub neighbour: Option<NeighbourFields>,
}

impl Fields {
    /// Reads a head. Nothing if it is shorter than an Ethernet header, or than one with the customer tag that it announces.
    pub fn of(head: &[u8]) -> Option<Fields> {
        let (dst, rest) = MacAddr::read_from_prefix(head).ok()?;
        let (src, _) = MacAddr::read_from_prefix(rest).ok()?;
        let mut fields = Fields { dst, src, ..Fields::default() };
        let mut l3 = ETHERNET_LEN;
        fields.ethertype = EtherType(be16(head, l3 - 2)?);
        for place in [&mut fields.tag, &mut fields.inner] {
            if !fields.ethertype.is_tag() {
                break;
            }
            let (Some(tci), Some(next)) = (be16(head, l3), be16(head, l3 + TAG_LEN - 2)) else {
                // A customer tag without what it tags makes a runt; any other is an EtherType that is not looked behind.
                if l3 == ETHERNET_LEN && fields.ethertype == EtherType::VLAN {
                    return None;
                }
                break;
            };
            *place = Some(Tag { tpid: fields.ethertype, tci: Tci(tci) });
            l3 += TAG_LEN;
            fields.ethertype = EtherType(next);
        }
        fields.l3 = u16::try_from(l3).ok()?;
        match fields.ethertype {
            EtherType::IPV4 | EtherType::IPV6 => fields.read_ip(head, l3),
            EtherType::ARP => fields.arp = head.get(l3..).and_then(read_arp),
            _ => {}
        }
        Some(fields)
    }

    /// The VLAN bits of the outer tag.
    pub fn vid_bits(&self) -> Option<u16> {
        self.tag.map(|tag| tag.tci.vid_bits())
    }

    fn read_ip(&mut self, head: &[u8], l3: usize) {
        self.flow = FlowFields::at(head, l3, self.ethertype);
        let Some(network) = self.flow.network() else { return };
        let (ttl, l4) = match network {
            Network::V4 => {
                (u8_at(head, l3 + 8), u8_at(head, l3).map(|byte| l3 + usize::from(byte & 0xf) * 4))
            }
            Network::V6 => (u8_at(head, l3 + 7), layers::ipv6(head, l3).map(|ip| usize::from(ip.l4))),
        };
        self.ttl = ttl.unwrap_or(0);
        let Some(l4) = l4.filter(|at| *at <= head.len()) else { return };
        self.l4 = u16::try_from(l4).ok();
        if self.flow.flags.has(FlowFlags::LATER) {
            return;
        }
        match self.flow.protocol() {
            IpProtocol::TCP => self.tcp_flags = TcpFlags(u8_at(head, l4 + 13).unwrap_or(0)),
            IpProtocol::ICMPV6 if matches!(self.flow.src_port, 135 | 136) => {
                self.neighbour = read_neighbour(head, l4);
            }
            _ => {}
        }
    }
}

fn read_arp(bytes: &[u8]) -> Option<ArpFields> {
    let packet = ArpPacket::parse(bytes)?;
    Some(ArpFields {
        operation: packet.operation.get(),
        sender_mac: packet.sender_mac,
        sender_ip: packet.sender_ip,
        target_mac: packet.target_mac,
        target_ip: packet.target_ip,
    })
}

fn read_neighbour(head: &[u8], l4: usize) -> Option<NeighbourFields> {
    let target = *array::<16>(head, l4 + 8)?;
    // Option 1 is the source's link-layer address, option 2 the target's.
    let wanted = if u8_at(head, l4)? == 135 { 1 } else { 2 };
    let mut at = l4 + 24;
    let mut link_address = None;
    for _ in 0..MAX_OPTIONS {
        let Some(&[kind, words]) = array(head, at) else { break };
        if words == 0 {
            break;
        }
        if kind == wanted && words == 1 {
            link_address = array(head, at + 2).map(|mac| MacAddr::new(*mac));
            break;
        }
        at += usize::from(words) * 8;
    }
    Some(NeighbourFields { target, link_address })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::arp::rarp_announce;

    #[test]
    fn reads_tags_ttl_flags_and_offsets() {
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .double_vlan(100.try_into().unwrap(), 7.try_into().unwrap())
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 63)
            .tcp(1000, 80, 1, 1)
            .syn()
            .ack(7);
        let mut frame = Vec::new();
        packet.write(&mut frame, b"x").unwrap();
        let fields = Fields::of(&frame).unwrap();
        assert_eq!(fields.tag.map(|tag| (tag.tpid, tag.tci.vid_bits())), Some((EtherType::QINQ, 100)));
        assert_eq!(fields.inner.map(|tag| (tag.tpid, tag.tci.vid_bits())), Some((EtherType::VLAN, 7)));
        assert_eq!((fields.ethertype, fields.ttl, fields.tcp_flags), (EtherType::IPV4, 63, TcpFlags(0x12)));
        assert_eq!((fields.l3, fields.l4), (22, Some(42)));
        assert_eq!((fields.flow.src_port, fields.flow.dst_port), (1000, 80));
        assert_eq!(fields.flow, FlowFields::of(&frame));
        for cut in 14..22 {
            let short = Fields::of(&frame[..cut]).unwrap();
            assert_eq!((short.tag.is_some(), short.inner), (cut >= 18, None), "{cut} bytes");
        }
        frame[12..14].copy_from_slice(&[0x81, 0]);
        for cut in 0..18 {
            assert_eq!(Fields::of(&frame[..cut]), None, "{cut} bytes");
        }
    }

    #[test]
    fn reads_arp() {
        let mac = MacAddr::new([0x52, 0x54, 0, 0, 0, 9]);
        let mut frame = rarp_announce(mac);
        frame[12..14].copy_from_slice(&[8, 6]);
        let arp = Fields::of(&frame).unwrap().arp.unwrap();
        assert_eq!((arp.operation, arp.sender_mac, arp.target_mac), (3, mac, mac));
        assert_eq!(Fields::of(&frame[..41]).unwrap().arp, None);
    }

    #[test]
    fn reads_neighbour_discovery() {
        let (own, target) = ([0xfe; 16], [0xfd; 16]);
        for (kind, option) in [(135_u8, 1_u8), (136, 2)] {
            let body =
                [&[0; 4][..], &target, &[9, 1, 0, 0, 0, 0, 0, 0], &[option, 1, 2, 0, 0, 0, 0, 5]].concat();
            let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(own, target, 255);
            let mut frame = Vec::new();
            packet.icmpv6_raw(kind, 0, [0; 4]).write(&mut frame, &body[4..]).unwrap();
            let fields = Fields::of(&frame).unwrap();
            let neighbour = fields.neighbour.unwrap();
            assert_eq!((neighbour.target, fields.ttl), (target, 255));
            assert_eq!(neighbour.link_address, Some(MacAddr::new([2, 0, 0, 0, 0, 5])));
            // An option of length 0 ends the list instead of holding us for ever.
            let at = frame.len() - 15;
            frame[at] = 0;
            assert_eq!(Fields::of(&frame).unwrap().neighbour.unwrap().link_address, None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_the_flow_key_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..128), kind in 0..4_usize) {
            let mut bytes = bytes;
            if let Some(place) = bytes.get_mut(12..14) {
                place.copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0], [8, 6]][kind]);
            }
            if let Some(fields) = Fields::of(&bytes) {
                prop_assert_eq!(fields.flow, FlowFields::of(&bytes));
                prop_assert!(fields.l4.is_none_or(|at| usize::from(at) <= bytes.len()));
            }
        }
    }
}
