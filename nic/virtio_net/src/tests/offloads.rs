//! Partial checksums and large frames to receivers with any features. What arrives is judged by etherparse, or must be
//! what was sent where the receiver takes it as it is.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use fabnic_port::DropReason;
use fabnic_wire::Offload;
use fabnic_wire::checksum::{self, Sum};
use fabnic_wire::offload::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM};
use proptest::prelude::*;

use super::guest::{Guest, Layout};
use super::{forward, layouts};
use crate::Features;

/// A frame to be sent.
#[derive(Clone, Copy, Debug)]
struct Shape {
    tags: usize,
    v6: bool,
    udp: bool,
    cwr: bool,
    payload: usize,
    /// Payload bytes of a segment, if it is a large frame.
    gso_size: Option<u16>,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let payload = prop_oneof![3 => 0_usize..200, 3 => 0_usize..9000, 1 => 9000_usize..65000];
    let gso_size = prop::option::of(prop_oneof![Just(1448_u16), 300_u16..1448]);
    (0_usize..3, any::<[bool; 3]>(), payload, gso_size).prop_map(
        |(tags, [v6, udp, cwr], payload, gso_size)| Shape {
            tags,
            v6,
            udp,
            cwr: cwr && !udp && gso_size.is_some(),
            payload: if gso_size.is_none() { payload % 9000 } else { payload },
            gso_size,
        },
    )
}

impl Shape {
    fn payload(&self) -> Vec<u8> {
        (0..self.payload).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    fn l4(&self) -> usize {
        14 + 4 * self.tags + if self.v6 { 40 } else { 20 }
    }

    fn header_len(&self) -> usize {
        self.l4() + if self.udp { 8 } else { 20 }
    }

    fn field(&self) -> usize {
        self.l4() + if self.udp { 6 } else { 16 }
    }

    /// The whole frame with all checksums right.
    fn complete(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.tags {
            bytes.extend(if tag == 0 && self.tags == 2 { [0x88, 0xa8] } else { [0x81, 0] });
            bytes.extend([0, 5 + tag as u8]);
        }
        bytes.extend(if self.v6 { [0x86, 0xdd] } else { [8, 0] });
        let payload = self.payload();
        macro_rules! finish {
            ($ip:expr) => {
                match self.udp {
                    true => $ip.udp(1000, 2000).write(&mut bytes, &payload).unwrap(),
                    false => {
                        let tcp = $ip.tcp(1000, 2000, 0xffff_f000, 3000).ack(77).psh().fin();
                        // etherparse has no word for CWR here: the bit is set below.
                        tcp.write(&mut bytes, &payload).unwrap()
                    }
                }
            };
        }
        match self.v6 {
            true => finish!(PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)),
            false => finish!(PacketBuilder::ipv4([10, 1, 2, 3], [10, 1, 2, 4], 64)),
        }
        if self.cwr {
            let at = self.l4() + 13;
            let old = u16::from_be_bytes([bytes[at - 1], bytes[at]]);
            bytes[at] |= 0x80;
            let field = self.field();
            let checksum = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
            let new = checksum::update(checksum, old, old | 0x80);
            bytes[field..field + 2].copy_from_slice(&new.to_be_bytes());
        }
        bytes
    }

    /// The frame as a driver with offloads sends it.
    fn partial(&self) -> (Offload, Vec<u8>) {
        let mut bytes = self.complete();
        let (l4, field) = (self.l4(), self.field());
        bytes[field..field + 2].fill(0);
        let (addresses, proto) = match self.v6 {
            true => (l4 - 32..l4, if self.udp { 17_u8 } else { 6 }),
            false => (l4 - 8..l4, if self.udp { 17 } else { 6 }),
        };
        let len = Sum::from_word32((bytes.len() - l4) as u32);
        let pseudo = Sum::of(&bytes[addresses]) + Sum::from_word(u16::from(proto)) + len;
        bytes[field..field + 2].copy_from_slice(&pseudo.word().to_be_bytes());
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: match (self.gso_size, self.udp, self.v6) {
                (None, ..) => GSO_NONE,
                (_, true, _) => GSO_UDP_L4,
                (_, _, false) => GSO_TCPV4 | if self.cwr { GSO_ECN } else { 0 },
                (_, _, true) => GSO_TCPV6 | if self.cwr { GSO_ECN } else { 0 },
            },
            // A hint that is not to be believed.
            hdr_len: if self.gso_size.is_some() { 20 } else { 0 },
            gso_size: self.gso_size.unwrap_or(0),
            csum_start: l4 as u16,
            csum_offset: (field - l4) as u16,
        };
        (offload, bytes)
    }

    /// Whether it is larger than one segment.
    fn is_large(&self) -> bool {
        self.gso_size.is_some_and(|size| self.payload > usize::from(size))
    }

    /// Whether a driver with these features takes it as it is.
    fn is_taken(&self, features: Features) -> bool {
        let mut need = Features::GUEST_CSUM;
        if self.is_large() {
            need |= match (self.udp, self.v6) {
                (false, false) => Features::GUEST_TSO4,
                (false, true) => Features::GUEST_TSO6,
                (true, false) => Features::GUEST_USO4,
                (true, true) => Features::GUEST_USO6,
            };
            need.set(Features::GUEST_ECN, self.cwr);
        }
        features.contains(need)
    }
}

/// A frame that arrived: finished, if it was not, and judged. Gives the payload.
fn judge(shape: &Shape, offload: Offload, mut bytes: Vec<u8>, features: Features) -> Vec<u8> {
    assert!(!offload.is_gso());
    if offload.needs_csum() {
        assert!(features.contains(Features::GUEST_CSUM));
        assert_eq!(usize::from(offload.csum_start), shape.l4());
        let sum = Sum::of(&bytes[shape.l4()..]).checksum();
        let field = shape.field();
        bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let packet = SlicedPacket::from_ethernet(&bytes).expect("a packet");
    assert_eq!(packet.link_exts.len(), shape.tags);
    let ip = packet.net.expect("an IP packet");
    let transport = packet.transport.expect("TCP or UDP");
    if let NetSlice::Ipv4(ip) = &ip {
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    match (&ip, &transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let sum = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination());
            assert_eq!(tcp.checksum(), sum.unwrap());
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let sum = tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination());
            assert_eq!(tcp.checksum(), sum.unwrap());
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv4_raw(
                ip.header().source(),
                ip.header().destination(),
                udp.payload(),
            );
            assert_eq!(udp.checksum(), sum.unwrap());
            assert_eq!(usize::from(udp.length()), 8 + udp.payload().len());
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv6_raw(
                ip.header().source(),
                ip.header().destination(),
                udp.payload(),
            );
            assert_eq!(udp.checksum(), sum.unwrap());
        }
        other => panic!("not what was sent: {other:?}"),
    }
    match transport {
        TransportSlice::Tcp(tcp) => tcp.payload().to_vec(),
        TransportSlice::Udp(udp) => udp.payload().to_vec(),
        other => panic!("not what was sent: {other:?}"),
    }
}

fn receivers() -> impl Strategy<Value = Features> {
    any::<u64>().prop_map(|bits| {
        Features::from_bits_retain(bits)
            & (Features::GUEST_CSUM
                | Features::GUEST_TSO4
                | Features::GUEST_TSO6
                | Features::GUEST_ECN
                | Features::GUEST_USO4
                | Features::GUEST_USO6)
    })
}

fn check(shape: Shape, features: Features, from: Layout, to: Layout, cuts: &[usize], pieces: usize) {
    let (mut a, mut b) = (Guest::new(from, Features::all()), Guest::new(to, features));
    let (offload, bytes) = shape.partial();
    assert!(a.send(&offload, &bytes, cuts));
    b.refill(if to.mergeable { 2000 } else { 70_000 }, pieces);
    let tally = forward(&mut a, &mut b);
    let got = b.received();
    if tally.frames == 0 {
        let room = b.receiver.outstanding() * 2000;
        assert_eq!(tally.dropped_for(DropReason::RingFull), 1);
        assert!(room < bytes.len() + (1 + bytes.len() / 300) * 2000, "{room} bytes should have been enough");
        assert!(got.is_empty(), "nothing of a frame that was dropped arrives");
        return;
    }
    assert_eq!((tally.frames, tally.bytes), (1, bytes.len() as u64));
    if shape.is_taken(features) {
        let expected = Offload {
            hdr_len: if shape.is_large() { shape.header_len() as u16 } else { 0 },
            gso_size: if shape.is_large() { offload.gso_size } else { 0 },
            gso_type: if shape.is_large() { offload.gso_type } else { 0 },
            ..offload
        };
        assert_eq!(got, [(expected, bytes)]);
        return;
    }
    if !shape.is_large() {
        assert_eq!(got, [(Offload::PLAIN, shape.complete())]);
        return;
    }
    let size = usize::from(shape.gso_size.unwrap());
    assert_eq!(got.len(), shape.payload.div_ceil(size));
    let mut payload = Vec::new();
    for (index, (offload, bytes)) in got.into_iter().enumerate() {
        let part = judge(&shape, offload, bytes.clone(), features);
        assert!(part.len() <= size);
        if !shape.udp {
            let tcp = &bytes[shape.l4()..];
            let seq = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
            assert_eq!(seq, 0xffff_f000_u32.wrapping_add(payload.len() as u32));
            assert_eq!(tcp[13] & 0x80 != 0, shape.cwr && index == 0, "CWR");
        }
        payload.extend(part);
    }
    assert!(payload == shape.payload());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_receiver_gets_what_it_takes(
        shape in shapes(),
        features in receivers(),
        from in layouts(),
        to in layouts(),
        cuts in prop::collection::vec(1_usize..3000, 0..6),
        pieces in 1_usize..5,
    ) {
        let big = |layout| Layout { size: 256, ..layout };
        check(shape, features, big(from), big(to), &cuts, pieces);
    }
}

#[test]
fn every_feature_meets_every_frame() {
    let layout = Layout {
        packed: false,
        event_idx: false,
        in_order: false,
        indirect: true,
        mergeable: true,
        size: 256,
    };
    for bits in 0..64_u64 {
        let all = [
            Features::GUEST_CSUM,
            Features::GUEST_TSO4,
            Features::GUEST_TSO6,
            Features::GUEST_ECN,
            Features::GUEST_USO4,
            Features::GUEST_USO6,
        ];
        let features = all.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, f)| *f).collect();
        for kind in 0..16_u8 {
            let bit = |n: u8| kind >> n & 1 == 1;
            let shape = Shape {
                tags: usize::from(kind % 3),
                v6: bit(0),
                udp: bit(1),
                cwr: bit(2) && bit(3) && !bit(1),
                payload: 4001,
                gso_size: bit(3).then_some(1000),
            };
            check(shape, features, layout, layout, &[12, 100], 1);
        }
    }
}

#[test]
fn what_was_not_negotiated_or_is_not_true_is_dropped() {
    let layout = Layout {
        packed: true,
        event_idx: false,
        in_order: false,
        indirect: true,
        mergeable: true,
        size: 256,
    };
    let shape = Shape { tags: 1, v6: false, udp: false, cwr: false, payload: 4000, gso_size: Some(1000) };
    let (offload, bytes) = shape.partial();
    let lies = [
        (Features::all() - Features::HOST_TSO4, offload),
        (Features::all() - Features::CSUM, offload),
        (Features::all(), Offload { gso_type: GSO_TCPV6, ..offload }),
        (Features::all(), Offload { gso_size: 0, ..offload }),
        (Features::all(), Offload { csum_start: 14, ..offload }),
        (Features::all(), Offload { csum_start: 60_000, ..offload }),
        (Features::all(), Offload { flags: 0, ..offload }),
        (Features::all() - Features::HOST_ECN, Offload { gso_type: offload.gso_type | GSO_ECN, ..offload }),
    ];
    for (features, offload) in lies {
        let mut guest = Guest::new(layout, features);
        assert!(guest.send(&offload, &bytes, &[]));
        let mut burst = fabnic_port::Burst::new();
        guest.transmit.receive(&mut burst).unwrap();
        assert_eq!(burst.frames()[0].marked(), Some(DropReason::BadOffload), "{offload:?}");
        guest.transmit.complete(&burst);
        assert_eq!(guest.sender.reap().len(), 1, "its buffer comes back all the same");
    }
}
