//! Every combination of offloads, from a driver through two functions to another, against a software reference.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/packet.rs"]
mod packet;

use common::{Guest, MAC_A, MAC_B, forward};
use fabnic_avf::{Generation, Settings};
use fabnic_avf_driver::spec::packet_type;
use fabnic_avf_driver::{IpHeader, Options, TransportHeader, Work};
use fabnic_port::{Burst, DropReason};
use fabnic_wire::offload::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use packet::{Packet, Proto, Shape, get16};
use proptest::prelude::*;

fn shapes() -> impl Strategy<Value = Shape> {
    let proto = prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Sctp)];
    let tag = prop_oneof![3 => Just(None), 1 => (1_u16..4095).prop_map(Some)];
    (any::<bool>(), proto, 0_usize..3, 0_usize..5, tag, 0_usize..3000, any::<u8>(), any::<u8>()).prop_map(
        |(v6, proto, ip_options, tcp_options, tag, payload, seed, tcp_flags)| Shape {
            v6,
            proto,
            ip_options,
            tcp_options,
            tag,
            payload,
            seed,
            tcp_flags: tcp_flags & !2 | 0x10,
        },
    )
}

/// What is asked of the sending card for a packet.
fn work(packet: &Packet, checksum: bool, ip_checksum: bool) -> Work {
    Work {
        ip: match (packet.v6, ip_checksum) {
            (true, _) => IpHeader::V6,
            (false, true) => IpHeader::V4Checksum,
            (false, false) => IpHeader::V4,
        },
        transport: match packet.proto {
            _ if !checksum => TransportHeader::None,
            Proto::Tcp => TransportHeader::Tcp,
            Proto::Udp => TransportHeader::Udp,
            Proto::Sctp => TransportHeader::Sctp,
        },
        lens: [packet.l3 as u16, (packet.l4 - packet.l3) as u16, (packet.payload - packet.l4) as u16],
        ..Work::default()
    }
}

fn start(mac: [u8; 6], options: Options) -> Guest {
    Guest::start(Settings { mac, mtu: 9000, ..Settings::default() }, options)
}

fn send(guest: &mut Guest, bytes: &[u8], work: &Work, cuts: &[usize]) {
    let (transmit, bus) = guest.driver.transmit(0).unwrap();
    transmit.clean();
    assert!(transmit.push(bytes, work, cuts), "no room");
    transmit.ring(bus);
}

fn kind(packet: &Packet) -> u8 {
    let v4 = match packet.proto {
        Proto::Tcp => packet_type::IPV4_TCP,
        Proto::Udp => packet_type::IPV4_UDP,
        Proto::Sctp => packet_type::IPV4_SCTP,
    };
    if packet.v6 { v4 + packet_type::IPV6 } else { v4 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn checksums_are_finished_and_verified(
        shape in shapes(),
        checksum in any::<bool>(),
        ip_checksum in any::<bool>(),
        cuts in prop::collection::vec(1_usize..700, 0..5),
        buffer_len in prop_oneof![Just(512_u16), Just(1536), Just(2048), Just(4096)],
        insert in prop_oneof![2 => Just(None), 1 => (1_u16..0xffff).prop_map(Some)],
        strip in any::<bool>(),
    ) {
        let mut a = start(MAC_A, Options::default());
        let mut b = start(MAC_B, Options { buffer_len, ..Options::default() });
        b.driver.set_vlan_offloads(strip, false).unwrap();
        a.driver.set_vlan_offloads(false, true).unwrap();
        let packet = Packet::new(MAC_B, MAC_A, &shape);
        let bytes = match checksum {
            true => packet.unfinished(ip_checksum, false),
            false => {
                let mut bytes = packet.bytes.clone();
                if ip_checksum && !packet.v6 {
                    packet::put16(&mut bytes, packet.l3 + 10, 0x5555);
                }
                bytes
            }
        };
        let work = Work { tag: insert, ..work(&packet, checksum, ip_checksum) };
        send(&mut a, &bytes, &work, &cuts);
        let tally = forward(&a.port, &b.port);
        prop_assert_eq!(tally.frames, 1, "{:?}", tally);
        let got = b.received(0);
        prop_assert_eq!(got.len(), 1);
        let (found, received) = &got[0];
        // The outermost tag is what may be taken out.
        let mut expected = packet.bytes.clone();
        if let Some(tag) = insert {
            expected.splice(12..12, [0x81, 0, (tag >> 8) as u8, tag as u8]);
        }
        let outer = insert.or(shape.tag);
        let stripped = outer.filter(|tag| strip && tag & 0xfff != 0);
        if stripped.is_some() {
            expected.drain(12..16);
        }
        prop_assert_eq!(received, &expected);
        prop_assert_eq!(found.tag, stripped);
        prop_assert_eq!(found.packet_type, kind(&packet));
        prop_assert!(found.checked && !found.bad_ip && !found.bad_l4, "{:?}", found);
        prop_assert!(found.hash.is_some());
    }

    #[test]
    fn damage_is_noticed(shape in shapes(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut a = start(MAC_A, Options::default());
        let mut b = start(MAC_B, Options::default());
        let packet = Packet::new(MAC_B, MAC_A, &shape);
        let mut bytes = packet.bytes.clone();
        // In the transport's part, not where lengths are: a packet that says another one is another matter.
        let at = packet.l4 + at.index(bytes.len() - packet.l4);
        prop_assume!(packet.proto != Proto::Udp || !(packet.l4 + 4..packet.l4 + 8).contains(&at));
        bytes[at] ^= 1 << bit;
        send(&mut a, &bytes, &Work::default(), &[]);
        forward(&a.port, &b.port);
        let got = b.received(0);
        prop_assert_eq!(&got[0].1, &bytes);
        prop_assert!(got[0].0.checked && got[0].0.bad_l4 && !got[0].0.bad_ip, "{:?}", got[0].0);
    }

    #[test]
    fn large_frames_are_segmented(
        mut shape in shapes(),
        payload in 1_usize..65000,
        mss in 200_u16..2500,
        cuts in prop::collection::vec(1_usize..4096, 0..12),
        insert in prop_oneof![2 => Just(None), 1 => (1_u16..0xffff).prop_map(Some)],
    ) {
        if shape.proto == Proto::Sctp {
            shape.proto = Proto::Tcp;
        }
        shape.payload = payload.min(65535 - 120);
        let mut a = start(MAC_A, Options { buffer_len: 4096, ring_len: 128, ..Options::default() });
        let mut b = start(MAC_B, Options { ring_len: 1024, ..Options::default() });
        a.driver.set_vlan_offloads(false, true).unwrap();
        let packet = Packet::new(MAC_B, MAC_A, &shape);
        let work = Work { mss: Some(mss), tag: insert, ..work(&packet, true, true) };
        send(&mut a, &packet.unfinished(true, true), &work, &cuts);

        // What the switch sees: one frame, as of one packet, with all that is left to do.
        let mut burst = Burst::new();
        {
            let mut guard = a.port.ingress()[0].lock();
            let ingress = guard.as_mut().unwrap();
            ingress.receive(&mut burst).unwrap();
            let frame = &burst.frames()[0];
            prop_assert_eq!((burst.len(), frame.marked()), (1, None));
            let shift = if insert.is_some() { 4 } else { 0 };
            let large = shape.payload > mss.into();
            let kind = match (packet.proto, packet.v6) {
                _ if !large => 0,
                (Proto::Udp, _) => GSO_UDP_L4,
                (_, false) => GSO_TCPV4,
                (_, true) => GSO_TCPV6,
            };
            prop_assert_eq!(frame.offload().gso_kind(), kind);
            prop_assert_eq!(usize::from(frame.offload().csum_start), packet.l4 + shift);
            let mut seen = vec![0; frame.len() as usize];
            burst.copy_out(0, &mut seen);
            if shift > 0 {
                seen.drain(12..16);
            }
            let mut whole = packet.unfinished(false, false);
            let at = packet.checksum_at();
            prop_assert_eq!(get16(&seen, at), get16(&whole, at), "the seed");
            whole[at..at + 2].copy_from_slice(&seen[at..at + 2]);
            prop_assert_eq!(&seen, &whole);

            let mut tally = fabnic_port::Tally::default();
            b.port.egress()[0].lock().as_mut().unwrap().deliver(&mut burst, &[0], &mut tally).unwrap();
            prop_assert_eq!(tally.frames, 1, "{:?}", tally);
            ingress.complete(&burst);
        }
        let mut expected = packet.segments(mss.into());
        for segment in &mut expected {
            if let Some(tag) = insert {
                segment.splice(12..12, [0x81, 0, (tag >> 8) as u8, tag as u8]);
            }
        }
        let got = b.received(0);
        prop_assert_eq!(got.len(), expected.len());
        for ((found, bytes), expected) in got.iter().zip(&expected) {
            prop_assert_eq!(bytes, expected);
            prop_assert!(found.checked && !found.bad_ip && !found.bad_l4, "{:?}", found);
        }
    }
}

#[test]
fn padding_and_missing_checksums_are_no_errors() {
    let mut a = start(MAC_A, Options::default());
    let mut b = start(MAC_B, Options::default());
    for payload in [0, 3, 500] {
        let shape = Shape {
            v6: false,
            proto: Proto::Udp,
            ip_options: 0,
            tcp_options: 0,
            tag: None,
            payload,
            seed: 9,
            tcp_flags: 0,
        };
        let packet = Packet::new(MAC_B, MAC_A, &shape);
        let mut padded = packet.bytes.clone();
        padded.extend([0x77; 33]);
        let mut without = packet.bytes.clone();
        packet::put16(&mut without, packet.checksum_at(), 0);
        for bytes in [padded, without] {
            send(&mut a, &bytes, &Work::default(), &[]);
            forward(&a.port, &b.port);
            let got = b.received(0);
            assert_eq!(got[0].1, bytes);
            assert!(got[0].0.checked && !got[0].0.bad_l4, "{:?}", got[0].0);
        }
        let mut bad = packet.bytes.clone();
        bad[packet.l3 + 8] ^= 1;
        send(&mut a, &bad, &Work::default(), &[]);
        forward(&a.port, &b.port);
        assert!(b.received(0)[0].0.bad_ip);
    }
}

#[test]
fn the_frame_check_sequence_is_kept() {
    let mut a = start(MAC_A, Options::default());
    let mut b = start(MAC_B, Options { keep_crc: true, buffer_len: 512, ..Options::default() });
    for len in [60, 508, 509, 511, 512, 1500] {
        let bytes = common::frame(MAC_B, MAC_A, len, 5);
        send(&mut a, &bytes, &Work::default(), &[]);
        forward(&a.port, &b.port);
        let got = b.received(0);
        let (body, fcs) = got[0].1.split_at(len);
        assert_eq!(body, bytes);
        assert_eq!(fcs, packet::crc32(&bytes).to_le_bytes());
        assert!(got[0].0.fcs);
    }
}

#[test]
fn what_contradicts_its_frame_is_dropped() {
    let mut a = start(MAC_A, Options::default());
    let b = start(MAC_B, Options::default());
    let shape = Shape {
        v6: false,
        proto: Proto::Tcp,
        ip_options: 0,
        tcp_options: 0,
        tag: None,
        payload: 5000,
        seed: 9,
        tcp_flags: 0x10,
    };
    let packet = Packet::new(MAC_B, MAC_A, &shape);
    let right = Work { mss: Some(1000), ..work(&packet, true, true) };
    let wrongs = [
        Work { lens: [14, 24, 20], ..right },
        Work { lens: [18, 20, 20], ..right },
        Work { lens: [0, 0, 0], ..right },
        Work { lens: [254, 508, 60], ..right },
        Work { ip: IpHeader::V6, ..right },
        Work { transport: TransportHeader::Udp, ..right },
        Work { transport: TransportHeader::Sctp, ..right },
        Work { transport: TransportHeader::None, ..right },
        Work { mss: Some(0), ..right },
        Work { mss: Some(1), ..right },
        Work { tag: Some(7), ..right },
        Work { mss: None, transport: TransportHeader::Sctp, ..right },
    ];
    for wrong in wrongs {
        send(&mut a, &packet.unfinished(true, true), &wrong, &[]);
        let tally = forward(&a.port, &b.port);
        assert_eq!(tally.dropped_for(DropReason::BadOffload), 1, "{wrong:?}: {tally:?}");
    }
    send(&mut a, &[1; 13], &Work::default(), &[]);
    assert_eq!(forward(&a.port, &b.port).dropped_for(DropReason::Runt), 1);
    assert_eq!(a.driver.stats().unwrap().tx_errors, 13);
    send(&mut a, &packet.unfinished(true, true), &right, &[]);
    assert_eq!(forward(&a.port, &b.port).frames, 1);
    // Without the capability large UDP frames are not sent.
    let settings = Settings { mac: MAC_A, generation: Generation::Base, ..Settings::default() };
    let mut old = Guest::start(settings, Options::default());
    let packet = Packet::new(MAC_B, MAC_A, &Shape { proto: Proto::Udp, ..shape });
    let large = Work { mss: Some(1000), ..work(&packet, true, true) };
    send(&mut old, &packet.unfinished(true, true), &large, &[]);
    assert_eq!(forward(&old.port, &b.port).dropped_for(DropReason::BadOffload), 1);
}
