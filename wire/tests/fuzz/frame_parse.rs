//! Any bytes as a frame: every reader copes, they agree with each other and with etherparse, and a head that is cut off
//! never shows ports that the whole frame does not have.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use fabnic_wire::{
    EtherType, FlowFields, FlowFlags, IpProtocol, L2Key, Layers, Pretty,
    checksum::{Sum, Verification, verify},
    flow_hash,
    hash::{HashTypes, MICROSOFT_KEY, Toeplitz},
    layers::{Fragment, Network},
};

/// The first byte says where the head is cut off, the others are the frame.
pub(crate) fn run(data: &[u8]) {
    let Some((&cut, frame)) = data.split_first() else { return };
    agree(frame);
    cut_off(frame, frame.len().min(cut.into()));
    symmetric(frame);
    sums(frame);
    compare(frame);
    assert!(!Pretty::new(frame).to_string().contains('\n'));
}

fn agree(frame: &[u8]) {
    let (key, layers, fields) = (L2Key::of(frame), Layers::of(frame), FlowFields::of(frame));
    if let Some(layers) = layers {
        let key = key.expect("what has layers has a key");
        assert!(usize::from(layers.l3) >= key.header_len());
        if usize::from(layers.l3) == key.header_len() {
            assert_eq!(layers.ethertype, key.ethertype);
            assert_eq!(FlowFields::at(frame, key.header_len(), key.ethertype), fields);
        }
        match layers.ip {
            Some(ip) => {
                assert!(fields.flags.has(FlowFlags::IP));
                assert!(usize::from(ip.l4) <= frame.len());
                assert_eq!(fields.network(), Some(ip.network));
                assert_eq!(fields.protocol(), ip.protocol);
                assert_eq!(fields.flags.has(FlowFlags::FRAGMENT), ip.fragment != Fragment::No);
                assert_eq!(fields.flags.has(FlowFlags::LATER), ip.fragment == Fragment::Later);
            }
            None if matches!(layers.ethertype, EtherType::IPV4 | EtherType::IPV6) => {
                assert!(fields.flags.has(FlowFlags::MALFORMED));
            }
            None => assert_eq!(fields, FlowFields::default()),
        }
    }
    let ports = fields.flags.has(FlowFlags::PORTS);
    assert!(ports || (fields.src_port, fields.dst_port) == (0, 0));
    assert!(!(ports && fields.flags.has(FlowFlags::LATER)));
    assert_eq!(fields.reserved, 0);
    let _ = Toeplitz::new(&MICROSOFT_KEY).hash_flow(&fields, HashTypes::ALL);
}

fn cut_off(frame: &[u8], cut: usize) {
    let head = &frame[..cut];
    let (whole, part) = (FlowFields::of(frame), FlowFields::of(head));
    if part.flags.has(FlowFlags::PORTS) {
        assert_eq!(part, whole);
    }
    if let (Some(layers), Some(of_head)) = (Layers::of(frame), Layers::of(head)) {
        assert_eq!(layers.ethertype, of_head.ethertype);
        assert!(of_head.ip.is_none() || of_head.ip == layers.ip);
    }
    let _ = (flow_hash(head), Pretty::of_head(head, frame.len(), Default::default()).to_string());
}

/// Turns the frame round: both directions have the same hash.
fn symmetric(frame: &[u8]) {
    let Some(layers) = Layers::of(frame) else { return };
    let mut reply = frame.to_vec();
    let mut swap = |at: usize, len: usize| {
        if reply.len() >= at + 2 * len {
            let (one, other) = reply[at..at + 2 * len].split_at_mut(len);
            one.swap_with_slice(other);
        }
    };
    swap(0, 6);
    if let Some(ip) = layers.ip {
        let l3 = usize::from(layers.l3);
        match ip.network {
            Network::V4 => swap(l3 + 12, 4),
            Network::V6 => swap(l3 + 8, 16),
        }
        if ip.fragment != Fragment::Later
            && matches!(ip.protocol, IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP)
        {
            swap(ip.l4.into(), 2);
        }
        assert_eq!(flow_hash(frame), flow_hash(&reply));
    }
}

fn sums(frame: &[u8]) {
    let mut slow = 0_u32;
    for pair in frame.chunks(2) {
        slow += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        slow = (slow & 0xffff) + (slow >> 16);
    }
    assert_eq!(u32::from(Sum::of(frame).word()), slow);
}

/// What etherparse, strict about lengths, accepts, we read in the same way.
fn compare(frame: &[u8]) {
    let (Ok(packet), Some(layers)) = (SlicedPacket::from_ethernet(frame), Layers::of(frame)) else { return };
    if packet.link_exts.len() != usize::from(layers.tags) {
        // A third tag, or MACsec.
        return;
    }
    let ours = FlowFields::of(frame);
    let (addresses, tos) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let mut addresses = ([0; 16], [0; 16]);
            addresses.0[..4].copy_from_slice(&header.source());
            addresses.1[..4].copy_from_slice(&header.destination());
            (addresses, header.dcp().value() << 2 | header.ecn().value())
        }
        Some(NetSlice::Ipv6(ip)) => {
            ((ip.header().source(), ip.header().destination()), ip.header().traffic_class())
        }
        _ => return,
    };
    assert_eq!((ours.src, ours.dst), addresses);
    assert_eq!(ours.tos, tos);
    let (protocol, ports) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (IpProtocol::TCP, (tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => (IpProtocol::UDP, (udp.source_port(), udp.destination_port())),
        _ => return,
    };
    let Some(ip) = layers.ip.filter(|ip| ip.protocol == protocol) else {
        // etherparse looks through the authentication header of IPv4 and more extension headers than we do.
        return;
    };
    assert!(ours.flags.has(FlowFlags::PORTS));
    assert_eq!((ours.src_port, ours.dst_port), ports);
    if ip.fragment == Fragment::No {
        compare_checksum(frame, &packet);
    }
}

fn compare_checksum(frame: &[u8], packet: &SlicedPacket<'_>) {
    // etherparse cuts a UDP payload at the length in the UDP header: that checksum is compared elsewhere.
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return };
    let computed = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()),
        Some(NetSlice::Ipv6(ip)) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
        _ => return,
    };
    let (Ok(computed), present) = (computed, tcp.checksum()) else { return };
    // Both forms of zero are right.
    let good =
        computed == present || (computed, present) == (0, 0xffff) || (computed, present) == (0xffff, 0);
    match verify(frame) {
        Verification::Good => assert!(good, "{computed:#x} {present:#x}"),
        Verification::Bad => assert!(!good, "{computed:#x} {present:#x}"),
        // An IPv6 packet on a route, or a jumbogram.
        Verification::Unknown => {}
    }
}
