//! The parser against etherparse.

use etherparse::{IpFragOffset, IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanSlice};
use proptest::prelude::*;

use super::*;
use crate::hash::flow_hash;

#[test]
fn l2_key_of_untagged_tagged_and_stacked() {
    let addresses = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let frame = |rest: &[u8]| [&addresses[..], rest].concat();
    let key = L2Key {
        dst: MacAddr([1, 2, 3, 4, 5, 6]),
        src: MacAddr([7, 8, 9, 10, 11, 12]),
        tag: None,
        ethertype: EtherType::IPV4,
    };
    assert_eq!(L2Key::of(&frame(&[8, 0])), Some(key));
    let tagged = L2Key { tag: Some(Tci(0x6064)), ..key };
    assert_eq!(L2Key::of(&frame(&[0x81, 0, 0x60, 0x64, 8, 0])), Some(tagged));
    assert_eq!(tagged.header_len(), 18);
    let service = L2Key { ethertype: EtherType::QINQ, ..key };
    assert_eq!(L2Key::of(&frame(&[0x88, 0xa8, 0x60, 0x64, 8, 0])), Some(service));
    let double = L2Key { ethertype: EtherType::VLAN, ..tagged };
    assert_eq!(L2Key::of(&frame(&[0x81, 0, 0x60, 0x64, 0x81, 0, 0, 1, 8, 0])), Some(double));
    assert_eq!(L2Key::of(&frame(&[8])), None);
    assert_eq!(L2Key::of(&frame(&[0x81, 0, 0, 1, 8])), None);
}

/// What etherparse makes of a frame, in our words.
fn oracle(frame: &[u8]) -> FlowFields {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let mut fields = FlowFields { flags: FlowFlags::IP, ..Default::default() };
    match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            fields.src[..4].copy_from_slice(&header.source());
            fields.dst[..4].copy_from_slice(&header.destination());
            fields.tos = header.dcp().value() << 2 | header.ecn().value();
            fields.protocol_number = ip.payload_ip_number().0;
            if header.is_fragmenting_payload() {
                fields.flags.0 |= FlowFlags::FRAGMENT.0;
                if header.fragments_offset().value() != 0 {
                    fields.flags.0 |= FlowFlags::LATER.0;
                }
            }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            fields.flags.0 |= FlowFlags::V6.0;
            fields.src = header.source();
            fields.dst = header.destination();
            fields.tos = header.traffic_class();
            fields.protocol_number = ip.payload().ip_number.0;
            for extension in ip.extensions().clone() {
                if let etherparse::Ipv6ExtensionSlice::Fragment(fragment) = extension
                    && fragment.is_fragmenting_payload()
                {
                    fields.flags.0 |= FlowFlags::FRAGMENT.0;
                    if fragment.fragment_offset() != IpFragOffset::ZERO {
                        fields.flags.0 |= FlowFlags::LATER.0;
                    }
                }
            }
        }
        other => panic!("{other:?}"),
    }
    let ports = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        Some(TransportSlice::Icmpv4(icmp)) => Some((icmp.type_u8().into(), icmp.code_u8().into())),
        Some(TransportSlice::Icmpv6(icmp)) => Some((icmp.type_u8().into(), icmp.code_u8().into())),
        Some(TransportSlice::Igmp(_)) | None => None,
    };
    if let Some((src, dst)) = ports {
        (fields.src_port, fields.dst_port) = (src, dst);
        fields.flags.0 |= FlowFlags::PORTS.0;
    }
    fields
}

#[derive(Clone, Debug)]
struct Shape {
    tags: u8,
    v6: bool,
    l4: u8,
    addresses: [u8; 32],
    ports: (u16, u16),
    tos: u8,
    payload: Vec<u8>,
    /// Words of IPv4 options; IPv6 hop-by-hop and destination options with so many 8-byte units.
    options: u8,
    /// Fragment offset in 8-byte units and "more fragments".
    fragment: Option<(u16, bool)>,
}

prop_compose! {
    fn shape()(
        tags in 0_u8..=2, v6: bool, l4 in 0_u8..4, addresses: [u8; 32], ports: (u16, u16), tos: u8,
        payload in prop::collection::vec(any::<u8>(), 8..64), options in 0_u8..=5,
        fragment in prop::option::weighted(0.3, (0_u16..100, any::<bool>())),
    ) -> Shape {
        Shape { tags, v6, l4, addresses, ports, tos, payload, options, fragment }
    }
}

fn build(shape: &Shape) -> Vec<u8> {
    let &Shape { tags, v6, l4, ref addresses, ports, tos, ref payload, options, fragment } = shape;
    let protocol = match (l4, v6) {
        (0, _) => IpNumber::TCP,
        (1, _) => IpNumber::UDP,
        (2, false) => IpNumber::ICMP,
        (2, true) => IpNumber::IPV6_ICMP,
        _ => IpNumber::GRE,
    };
    let mut l4_bytes = Vec::new();
    match l4 {
        0 => etherparse::TcpHeader::new(ports.0, ports.1, 1, 2).write(&mut l4_bytes).unwrap(),
        1 => etherparse::UdpHeader {
            source_port: ports.0,
            destination_port: ports.1,
            length: 8 + payload.len() as u16,
            checksum: 0,
        }
        .write(&mut l4_bytes)
        .unwrap(),
        // Types above 0xc0: etherparse wants exact lengths for some of those below.
        2 => l4_bytes.extend([ports.0 as u8 | 0xc0, ports.1 as u8, 0, 0]),
        _ => {}
    }
    l4_bytes.extend(payload);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in 0..tags {
        frame.extend(if tag == 0 && tags == 2 { [0x88, 0xa8] } else { [0x81, 0] });
        frame.extend([0x60, tag]);
    }
    if v6 {
        frame.extend(EtherType::IPV6.0.to_be_bytes());
        let mut extensions = Vec::new();
        let mut next_at = Vec::new();
        if options > 0 {
            next_at.push((0_u8, extensions.len()));
            extensions.extend([0, options - 1]);
            extensions.resize(extensions.len() + usize::from(options) * 8 - 2, 0);
        }
        if let Some((offset, more)) = fragment {
            next_at.push((44, extensions.len()));
            extensions.extend([0, 0]);
            extensions.extend((offset << 3 | u16::from(more)).to_be_bytes());
            extensions.extend([9, 9, 9, 9]);
        }
        // etherparse would look for extension headers in the middle of a datagram.
        if options > 3 && fragment.is_none_or(|(offset, _)| offset == 0) {
            next_at.push((60, extensions.len()));
            extensions.extend([0, 0, 1, 4, 0, 0, 0, 0]);
        }
        let mut next = protocol.0;
        for &(number, at) in next_at.iter().rev() {
            extensions[at] = next;
            next = number;
        }
        let len = (extensions.len() + l4_bytes.len()) as u16;
        frame.extend([0x60 | tos >> 4, tos << 4, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([next, 64]);
        frame.extend(addresses);
        frame.extend(extensions);
    } else {
        frame.extend(EtherType::IPV4.0.to_be_bytes());
        let mut ip = etherparse::Ipv4Header::new(
            l4_bytes.len() as u16,
            64,
            protocol,
            addresses[..4].try_into().unwrap(),
            addresses[16..20].try_into().unwrap(),
        )
        .unwrap();
        ip.dscp = (tos >> 2).try_into().unwrap();
        ip.ecn = (tos & 3).try_into().unwrap();
        ip.options = vec![1; usize::from(options) * 4].as_slice().try_into().unwrap();
        ip.set_payload_len(l4_bytes.len()).unwrap();
        if let Some((offset, more)) = fragment {
            ip.fragment_offset = offset.try_into().unwrap();
            ip.more_fragments = more;
            ip.dont_fragment = false;
        }
        ip.write(&mut frame).unwrap();
    }
    frame.extend(l4_bytes);
    frame
}

proptest! {
    #[test]
    fn fields_are_those_of_etherparse(shape in shape()) {
        let frame = build(&shape);
        let mut ours = FlowFields::of(&frame);
        let theirs = oracle(&frame);
        if theirs.flags.has(FlowFlags::FRAGMENT) && !theirs.flags.has(FlowFlags::PORTS) {
            // etherparse does not look for the ports of a first fragment.
            (ours.src_port, ours.dst_port) = (0, 0);
            ours.flags.0 &= !FlowFlags::PORTS.0;
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn tag_is_that_of_etherparse(shape in shape()) {
        let frame = build(&shape);
        let key = L2Key::of(&frame).unwrap();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let vlan = packet.vlan();
        match vlan {
            Some(VlanSlice::SingleVlan(tag)) => {
                prop_assert_eq!(key.tag.map(Tci::vid_bits), Some(tag.vlan_identifier().value()));
                prop_assert_eq!(key.ethertype.0, tag.ether_type().0);
            }
            // The outer one is a service tag here.
            Some(VlanSlice::DoubleVlan(_)) => prop_assert_eq!((key.tag, key.ethertype), (None, EtherType::QINQ)),
            None => prop_assert_eq!(key.tag, None),
        }
    }

    #[test]
    fn a_cut_head_never_invents_ports(shape in shape(), cut: prop::sample::Index) {
        let frame = build(&shape);
        let whole = FlowFields::of(&frame);
        let head = &frame[..cut.index(frame.len())];
        let fields = FlowFields::of(head);
        if fields.flags.has(FlowFlags::PORTS) {
            prop_assert_eq!(fields, whole);
        }
        if head.len() >= 22 && fields.flags != whole.flags {
            prop_assert!(fields.flags.has(FlowFlags::MALFORMED));
        }
        let _ = (L2Key::of(head), flow_hash(head));
    }

    #[test]
    fn any_bytes_do(bytes: Vec<u8>) {
        let _ = (L2Key::of(&bytes), FlowFields::of(&bytes), flow_hash(&bytes));
    }
}

#[test]
fn ports_of_a_built_packet() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1000, 2000)
        .write(&mut frame, &[1, 2, 3])
        .unwrap();
    let fields = FlowFields::of(&frame);
    assert_eq!((fields.src_port, fields.dst_port), (1000, 2000));
    assert_eq!(fields.protocol(), IpProtocol::UDP);
    assert_eq!(fields.network(), Some(Network::V4));
    assert_eq!(size_of::<FlowFields>(), 40);
}
