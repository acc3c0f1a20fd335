//! Rewritten frames against frames that etherparse builds with the new fields from scratch.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use fabnic_wire::checksum::{Verification, ipv4_header_is_valid, pseudo_header_v4, pseudo_header_v6, verify};
use fabnic_wire::offload::NEEDS_CSUM;
use proptest::prelude::*;

use super::*;

/// What a frame is built of.
#[derive(Clone, Debug)]
struct Made {
    macs: ([u8; 6], [u8; 6]),
    tags: usize,
    v6: bool,
    src: [u8; 16],
    dst: [u8; 16],
    tos: u8,
    ttl: u8,
    /// TCP, UDP, UDP without checksum (IPv4 only), ICMPv6 or ICMP, SCTP.
    kind: u8,
    ports: (u16, u16),
    payload: Vec<u8>,
}

impl Made {
    fn protocol(&self) -> IpProtocol {
        match self.kind {
            0 => IpProtocol::TCP,
            1 | 2 => IpProtocol::UDP,
            3 if self.v6 => IpProtocol::ICMPV6,
            3 => IpProtocol::ICMP,
            _ => IpProtocol::SCTP,
        }
    }

    /// The frame, with its L4 header at the place that is given too.
    fn build(&self) -> (Vec<u8>, usize) {
        let four = |address: &[u8; 16]| *address.first_chunk::<4>().unwrap();
        let mut l4 = match self.kind {
            0 => {
                let mut header = TcpHeader::new(self.ports.0, self.ports.1, 7, 512);
                header.checksum = match self.v6 {
                    false => header.calc_checksum_ipv4_raw(four(&self.src), four(&self.dst), &self.payload),
                    true => header.calc_checksum_ipv6_raw(self.src, self.dst, &self.payload),
                }
                .unwrap();
                header.to_bytes().to_vec()
            }
            1 | 2 => {
                let mut header = UdpHeader {
                    source_port: self.ports.0,
                    destination_port: self.ports.1,
                    length: 8 + self.payload.len() as u16,
                    checksum: 0,
                };
                if self.kind == 1 {
                    header.checksum = match self.v6 {
                        false => {
                            header.calc_checksum_ipv4_raw(four(&self.src), four(&self.dst), &self.payload)
                        }
                        true => header.calc_checksum_ipv6_raw(self.src, self.dst, &self.payload),
                    }
                    .unwrap();
                }
                header.to_bytes().to_vec()
            }
            3 if self.v6 => {
                let kind =
                    etherparse::Icmpv6Type::Unknown { type_u8: 200, code_u8: 1, bytes5to8: [1, 2, 3, 4] };
                kind.to_header(self.src, self.dst, &self.payload).unwrap().to_bytes().to_vec()
            }
            3 => etherparse::Icmpv4Header::with_checksum(
                etherparse::Icmpv4Type::Unknown { type_u8: 200, code_u8: 1, bytes5to8: [1, 2, 3, 4] },
                &self.payload,
            )
            .to_bytes()
            .to_vec(),
            _ => [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes(), [9; 2], [9; 2]].concat(),
        };
        l4.extend(&self.payload);
        let mut frame = [self.macs.0, self.macs.1].concat();
        for _ in 0..self.tags {
            frame.extend([0x81, 0, 0, 5]);
        }
        frame.extend(if self.v6 { [0x86, 0xdd] } else { [8, 0] });
        if self.v6 {
            let header = Ipv6Header {
                traffic_class: self.tos,
                payload_length: l4.len() as u16,
                next_header: IpNumber(self.protocol().0),
                hop_limit: self.ttl,
                source: self.src,
                destination: self.dst,
                ..Ipv6Header::default()
            };
            frame.extend(header.to_bytes());
        } else {
            let mut header = Ipv4Header::new(
                l4.len() as u16,
                self.ttl,
                IpNumber(self.protocol().0),
                four(&self.src),
                four(&self.dst),
            )
            .unwrap();
            header.dscp = etherparse::IpDscp::try_new(self.tos >> 2).unwrap();
            header.ecn = etherparse::IpEcn::try_new(self.tos & 3).unwrap();
            header.header_checksum = header.calc_header_checksum();
            frame.extend(header.to_bytes());
        }
        let at = frame.len();
        frame.extend(l4);
        (frame, at)
    }

    /// With the new fields.
    fn with(&self, sets: &[Set]) -> Made {
        let mut made = self.clone();
        let ported = matches!(self.kind, 0..=2);
        for set in sets {
            match *set {
                Set::DstMac(mac) => made.macs.0 = mac.octets(),
                Set::SrcMac(mac) => made.macs.1 = mac.octets(),
                Set::SrcIp4(ip) if !self.v6 => made.src[..4].copy_from_slice(&ip),
                Set::DstIp4(ip) if !self.v6 => made.dst[..4].copy_from_slice(&ip),
                Set::SrcIp6(ip) if self.v6 => made.src = ip,
                Set::DstIp6(ip) if self.v6 => made.dst = ip,
                Set::Tos { value, mask } => made.tos = made.tos & !mask | value & mask,
                Set::Ttl(ttl) => made.ttl = ttl,
                Set::DecTtl => made.ttl = made.ttl.saturating_sub(1),
                Set::SrcPort(port) if ported => made.ports.0 = port,
                Set::DstPort(port) if ported => made.ports.1 = port,
                _ => {}
            }
        }
        made
    }
}

fn made() -> impl Strategy<Value = Made> {
    let address = || prop_oneof![3 => any::<[u8; 16]>(), 1 => Just([0; 16]), 1 => Just([0xff; 16])];
    let l3 = (any::<bool>(), address(), address(), any::<u8>(), any::<u8>());
    let l4 = (0..5_u8, any::<(u16, u16)>(), prop::collection::vec(any::<u8>(), 0..40));
    (any::<([u8; 6], [u8; 6])>(), 0..3_usize, l3, l4).prop_map(|(macs, tags, l3, l4)| {
        let (v6, mut src, mut dst, tos, ttl) = l3;
        if !v6 {
            src[4..].fill(0);
            dst[4..].fill(0);
        }
        // Without its checksum, UDP over IPv6 is for tunnels.
        let (kind, ports, payload) = l4;
        Made { macs, tags, v6, src, dst, tos, ttl, kind, ports, payload }
    })
}

fn set() -> impl Strategy<Value = Set> {
    prop_oneof![
        any::<[u8; 6]>().prop_map(|mac| Set::DstMac(MacAddr::new(mac))),
        any::<[u8; 6]>().prop_map(|mac| Set::SrcMac(MacAddr::new(mac))),
        any::<[u8; 4]>().prop_map(Set::SrcIp4),
        any::<[u8; 4]>().prop_map(Set::DstIp4),
        any::<[u8; 16]>().prop_map(Set::SrcIp6),
        any::<[u8; 16]>().prop_map(Set::DstIp6),
        any::<(u8, u8)>().prop_map(|(value, mask)| Set::Tos { value, mask }),
        any::<u8>().prop_map(Set::Ttl),
        Just(Set::DecTtl),
        any::<u16>().prop_map(Set::SrcPort),
        any::<u16>().prop_map(Set::DstPort),
    ]
}

fn rewrite_of(sets: &[Set]) -> Rewrite {
    let mut rewrite = Rewrite::default();
    sets.iter().for_each(|set| rewrite.set(*set));
    rewrite
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_rewritten_frame_is_as_if_built_anew(made in made(), sets in prop::collection::vec(set(), 0..6)) {
        let (mut frame, l4) = made.build();
        let (expected, _) = made.with(&sets).build();
        rewrite_of(&sets).apply(&mut frame, expected.len() as u32, &Offload::PLAIN).unwrap();
        let mut fields = Fields::of(&made.build().0).unwrap();
        rewrite_of(&sets).apply_to(&mut fields);
        prop_assert_eq!(Fields::of(&frame).unwrap(), fields, "what later rules read is what the frame says");
        if frame != expected {
            // A checksum has two forms of zero; all else is the same.
            let field = l4 + protocol_checksum(made.protocol()).unwrap();
            prop_assert_eq!(verify(&frame), Verification::Good);
            for (at, (one, other)) in frame.iter().zip(&expected).enumerate() {
                prop_assert!(one == other || (field..field + 2).contains(&at), "byte {}", at);
            }
        }
        if !made.v6 {
            prop_assert!(ipv4_header_is_valid(&frame[l4 - 20..l4]));
        }
    }

    #[test]
    fn a_partial_checksum_stays_the_pseudo_headers(made in made(), sets in prop::collection::vec(set(), 0..6)) {
        prop_assume!(made.kind < 2 || made.kind == 3 && made.v6);
        let (mut frame, l4) = made.build();
        let offset = protocol_checksum(made.protocol()).unwrap();
        let len = (frame.len() - l4) as u16;
        let pseudo = |made: &Made| match made.v6 {
            true => pseudo_header_v6(made.src, made.dst, made.protocol(), len.into()),
            false => pseudo_header_v4(
                *made.src.first_chunk().unwrap(), *made.dst.first_chunk().unwrap(), made.protocol(), len,
            ),
        };
        put(&mut frame, l4 + offset, &pseudo(&made).word().to_be_bytes());
        let offload = Offload {
            flags: NEEDS_CSUM, csum_start: l4 as u16, csum_offset: offset as u16, ..Offload::PLAIN
        };
        let whole = frame.len() as u32;
        rewrite_of(&sets).apply(&mut frame, whole, &offload).unwrap();
        let found = u16::from_be_bytes([frame[l4 + offset], frame[l4 + offset + 1]]);
        prop_assert_eq!(Sum::from_word(found), pseudo(&made.with(&sets)));
    }

    #[test]
    fn only_the_addresses_of_a_later_fragment_change(made in made(), sets in prop::collection::vec(set(), 0..6)) {
        prop_assume!(!made.v6);
        let fragment = |made: &Made, payload: &[u8]| {
            let (mut frame, l4) = made.build();
            let mut header = Ipv4Header::from_slice(&frame[l4 - 20..]).unwrap().0;
            header.fragment_offset = IpFragOffset::try_new(100).unwrap();
            header.set_payload_len(payload.len()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            frame.truncate(l4 - 20);
            frame.extend(header.to_bytes());
            frame.extend(payload);
            frame
        };
        let mut frame = fragment(&made, &[7; 40]);
        let whole = frame.len() as u32;
        rewrite_of(&sets).apply(&mut frame, whole, &Offload::PLAIN).unwrap();
        prop_assert_eq!(frame, fragment(&made.with(&sets), &[7; 40]));
    }

    #[test]
    fn any_bytes_are_rewritten_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..128), kind in 0..4_usize, sets in prop::collection::vec(set(), 0..6), more in 0..100_u32) {
        if let Some(place) = bytes.get_mut(12..15) {
            place.copy_from_slice(&[[8, 0, 0x45], [0x86, 0xdd, 0x60], [0x81, 0, 0], [8, 0, 0x46]][kind]);
        }
        let before = bytes.clone();
        let whole = bytes.len() as u32 + more;
        let result = rewrite_of(&sets).apply(&mut bytes, whole, &Offload::PLAIN);
        prop_assert!(result.is_ok() || bytes == before, "a frame that is refused is left as it is");
    }
}

#[test]
fn a_first_fragment_without_its_checksum_is_refused() {
    let made = Made {
        macs: ([2; 6], [4; 6]),
        tags: 0,
        v6: false,
        src: [0; 16],
        dst: [0; 16],
        tos: 0,
        ttl: 9,
        kind: 0,
        ports: (1, 2),
        payload: vec![0; 20],
    };
    let (mut frame, l4) = made.build();
    let mut header = Ipv4Header::from_slice(&frame[l4 - 20..]).unwrap().0;
    header.more_fragments = true;
    header.set_payload_len(8).unwrap();
    frame.splice(l4 - 20..l4, header.to_bytes());
    let before = frame.clone();
    // Behind the 8 bytes there is padding, which must not be taken for the checksum.
    let whole = frame.len() as u32;
    let rewrite = rewrite_of(&[Set::SrcIp4([1, 2, 3, 4])]);
    assert_eq!(rewrite.apply(&mut frame, whole, &Offload::PLAIN), Err(OutOfReach));
    assert_eq!(frame, before);
    // What the checksum does not cover can be set.
    assert_eq!(rewrite_of(&[Set::Ttl(3)]).apply(&mut frame, whole, &Offload::PLAIN), Ok(()));
    assert_eq!(frame[22], 3);
}
