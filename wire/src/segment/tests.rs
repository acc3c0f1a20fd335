//! Segmentation against the obvious slow way: headers taken apart, changed and put together by etherparse.

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, TcpHeader, UdpHeader};
use proptest::prelude::*;

use super::*;
use crate::{
    checksum::{Verification, finish, ipv4_header_is_valid, verify},
    offload::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4},
};

#[derive(Clone, Debug)]
enum Ip {
    V4(Ipv4Header),
    /// The header, and words of 8 bytes of hop-by-hop options.
    V6(etherparse::Ipv6Header, u8),
}

#[derive(Clone, Debug)]
enum L4 {
    Tcp(TcpHeader),
    Udp(u16, u16),
}

/// A large frame in parts.
#[derive(Clone, Debug)]
struct Large {
    tags: u8,
    ip: Ip,
    l4: L4,
    payload: Vec<u8>,
    gso_size: u16,
    gso_type: u8,
}

impl Large {
    fn hop_by_hop(&self) -> usize {
        match self.ip {
            Ip::V4(_) => 0,
            Ip::V6(_, units) => usize::from(units) * 8,
        }
    }

    /// One frame with this payload, by etherparse alone, with all checksums.
    fn frame(&self, ip: &Ip, l4: &L4, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.tags {
            frame.extend(if tag == 0 && self.tags == 2 { [0x88, 0xa8] } else { [0x81, 0] });
            frame.extend([0x60, tag]);
        }
        let l4_len = payload.len()
            + match l4 {
                L4::Tcp(tcp) => tcp.header_len(),
                L4::Udp(..) => 8,
            };
        let protocol = match l4 {
            L4::Tcp(_) => IpNumber::TCP,
            L4::Udp(..) => IpNumber::UDP,
        };
        let ip = match ip.clone() {
            Ip::V4(mut v4) => {
                v4.protocol = protocol;
                v4.set_payload_len(l4_len).unwrap();
                v4.header_checksum = v4.calc_header_checksum();
                frame.extend([8, 0]);
                frame.extend(v4.to_bytes());
                Ip::V4(v4)
            }
            Ip::V6(mut v6, units) => {
                v6.next_header = if units == 0 { protocol } else { IpNumber(0) };
                v6.payload_length = (self.hop_by_hop() + l4_len) as u16;
                frame.extend([0x86, 0xdd]);
                frame.extend(v6.to_bytes());
                if units > 0 {
                    frame.extend([protocol.0, units - 1]);
                    frame.resize(frame.len() + usize::from(units) * 8 - 2, 0);
                }
                Ip::V6(v6, units)
            }
        };
        match l4.clone() {
            L4::Tcp(mut tcp) => {
                tcp.checksum = match &ip {
                    Ip::V4(v4) => tcp.calc_checksum_ipv4(v4, payload),
                    Ip::V6(v6, _) => tcp.calc_checksum_ipv6(v6, payload),
                }
                .unwrap();
                frame.extend(tcp.to_bytes());
            }
            L4::Udp(src, dst) => {
                let udp = match &ip {
                    Ip::V4(v4) => UdpHeader::with_ipv4_checksum(src, dst, v4, payload),
                    Ip::V6(v6, _) => UdpHeader::with_ipv6_checksum(src, dst, v6, payload),
                }
                .unwrap();
                frame.extend(udp.to_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    /// The frame as a guest gives it. Its checksum field is that of a sender which puts nothing in.
    fn guest(&self) -> (Vec<u8>, Offload) {
        let frame = self.frame(&self.ip, &self.l4, &self.payload);
        let l4_len = match &self.l4 {
            L4::Tcp(tcp) => tcp.header_len(),
            L4::Udp(..) => 8,
        };
        let csum_start = (frame.len() - self.payload.len() - l4_len) as u16;
        let csum_offset = if matches!(self.l4, L4::Tcp(_)) { 16 } else { 6 };
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: self.gso_type,
            hdr_len: 0,
            gso_size: self.gso_size,
            csum_start,
            csum_offset,
        };
        (frame, offload)
    }

    /// The segments, the slow and obvious way.
    fn reference(&self) -> Vec<Vec<u8>> {
        let chunks: Vec<_> = self.payload.chunks(self.gso_size.into()).collect();
        let mut frames = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let mut ip = self.ip.clone();
            if let Ip::V4(v4) = &mut ip {
                v4.identification = v4.identification.wrapping_add(index as u16);
            }
            let mut l4 = self.l4.clone();
            if let L4::Tcp(tcp) = &mut l4 {
                tcp.sequence_number =
                    tcp.sequence_number.wrapping_add((index * usize::from(self.gso_size)) as u32);
                tcp.cwr &= index == 0;
                tcp.fin &= index == chunks.len() - 1;
                tcp.psh &= index == chunks.len() - 1;
            }
            frames.push(self.frame(&ip, &l4, chunk));
        }
        frames
    }
}

fn tcp() -> impl Strategy<Value = TcpHeader> {
    (any::<(u16, u16, u32, u16)>(), any::<[bool; 8]>(), 0_usize..=10).prop_map(
        |((src, dst, seq, window), flags, options)| {
            let mut tcp = TcpHeader::new(src, dst, seq, window);
            [tcp.ns, tcp.fin, tcp.psh, tcp.ack, tcp.urg, tcp.ece, tcp.cwr, _] = flags;
            tcp.set_options_raw(&vec![1; options * 4]).unwrap();
            tcp
        },
    )
}

fn ip() -> impl Strategy<Value = Ip> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<(u16, bool, u8)>(), 0_usize..=10).prop_map(
        |(src, dst, (id, df, tos), options)| {
            let mut v4 = Ipv4Header::new(0, 64, IpNumber::TCP, src, dst).unwrap();
            v4.identification = id;
            v4.dont_fragment = df;
            v4.dscp = (tos >> 2).try_into().unwrap();
            v4.ecn = (tos & 3).try_into().unwrap();
            v4.options = vec![1; options * 4].as_slice().try_into().unwrap();
            Ip::V4(v4)
        },
    );
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u8>(), 0_u32..1 << 20, 0_u8..4).prop_map(
        |(source, destination, traffic_class, label, units)| {
            let header = etherparse::Ipv6Header {
                traffic_class,
                flow_label: Ipv6FlowLabel::try_new(label).unwrap(),
                payload_length: 0,
                next_header: IpNumber::TCP,
                hop_limit: 64,
                source,
                destination,
            };
            Ip::V6(header, units)
        },
    );
    prop_oneof![v4, v6]
}

prop_compose! {
    fn large()(
        tags in 0_u8..=2, ip in ip(), tcp in prop::option::of(tcp()), ports: (u16, u16), ecn: bool,
        payload in prop::collection::vec(any::<u8>(), 2..5000), gso_size in 40_u16..2000,
    ) -> Large {
        let l4 = tcp.map_or(L4::Udp(ports.0, ports.1), L4::Tcp);
        let gso_type = match (&l4, &ip) {
            (L4::Udp(..), _) => GSO_UDP_L4,
            (_, Ip::V4(_)) => GSO_TCPV4,
            (_, Ip::V6(..)) => GSO_TCPV6,
        };
        let gso_type = if ecn && gso_type != GSO_UDP_L4 { gso_type | GSO_ECN } else { gso_type };
        let gso_size = gso_size.min(payload.len() as u16 - 1);
        Large { tags, ip, l4, payload, gso_size, gso_type }
    }
}

proptest! {
    #[test]
    fn segments_are_those_of_the_reference(large in large(), garbage: u16) {
        let (mut frame, offload) = large.guest();
        // What stands in the checksum field must not matter.
        let field = offload.csum_field().unwrap();
        frame[field..field + 2].copy_from_slice(&garbage.to_be_bytes());
        let head = &frame[..frame.len().min(192)];
        let segmentation = Segmentation::new(head, frame.len(), &offload).unwrap();
        let reference = large.reference();
        prop_assert_eq!(segmentation.count(), reference.len());
        prop_assert_eq!(segmentation.segments().len(), reference.len());
        let mut payload: Vec<u8> = Vec::new();
        for (segment, expected) in segmentation.segments().zip(&reference) {
            let part = &frame[segment.payload()];
            payload.extend(part);
            let mut out = vec![0xaa; segmentation.longest() + 7];
            let headers = segment.write_complete(&mut out, Sum::of(part)).unwrap();
            prop_assert_eq!(headers, segmentation.header_len());
            out[headers..segment.len()].copy_from_slice(part);
            prop_assert!(out[segment.len()..].iter().all(|&b| b == 0xaa));
            let complete = &out[..segment.len()];
            prop_assert_eq!(complete, &expected[..]);
            prop_assert_eq!(verify(complete), Verification::Good);

            // The partial checksum, finished by the receiver, gives the same bytes.
            let mut partial = vec![0; segment.len()];
            let left = segment.write_partial(&mut partial).unwrap();
            partial[headers..].copy_from_slice(part);
            prop_assert_eq!(left.validate(partial.len(), &partial), Ok(left));
            finish(&mut partial[..headers], &left, Sum::of(part)).unwrap();
            prop_assert_eq!(&partial, expected);

            prop_assert!(segment.len() <= segmentation.longest());
            prop_assert_eq!(segment.is_last(), segment.index() + 1 == reference.len());
        }
        prop_assert_eq!(payload, large.payload);
    }

    #[test]
    fn verification_is_etherparses(large in large(), flip: prop::sample::Index, bit in 0_u8..8) {
        let mut frame = large.frame(&large.ip, &large.l4, &large.payload);
        prop_assert_eq!(verify(&frame), Verification::Good);
        let start = usize::from(large.guest().1.csum_start);
        if let Ip::V4(_) = large.ip {
            let l3 = 14 + 4 * usize::from(large.tags);
            prop_assert!(ipv4_header_is_valid(&frame[l3..start]));
        }
        let at = start + flip.index(frame.len() - start);
        frame[at] ^= 1 << bit;
        // A checksum sees every single bit; a UDP checksum that became 0 is none.
        prop_assert_ne!(verify(&frame), Verification::Good);
    }

    #[test]
    fn any_bytes_do(head: Vec<u8>, more in 0_usize..70000, header: [u8; 12]) {
        let offload = Offload::decode(&header);
        if let Ok(segmentation) = Segmentation::new(&head, head.len() + more, &offload) {
            let mut out = [0; 512];
            for segment in segmentation.segments() {
                let _ = (segment.write_partial(&mut out), segment.write_complete(&mut out, Sum::ZERO));
            }
        }
    }
}

/// A frame with a routing header whose final destination only the sender's partial checksum knows.
#[test]
fn routing_header_keeps_the_senders_pseudo_header() {
    let last = [9_u8; 16];
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
    let payload: Vec<u8> = (0..3000_u32).map(|i| i as u8).collect();
    let l4_len = 8 + payload.len() as u32;
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((24 + l4_len as u16).to_be_bytes());
    frame.extend([43, 64]);
    frame.extend([1; 16]);
    frame.extend([2; 16]);
    frame.extend([17, 2, 2, 1, 0, 0, 0, 0]);
    frame.extend(last);
    let partial = crate::checksum::pseudo_header_v6([1; 16], last, IpProtocol::UDP, l4_len).word();
    frame.extend([0, 1, 0, 2]);
    frame.extend((l4_len as u16).to_be_bytes());
    frame.extend(partial.to_be_bytes());
    frame.extend(&payload);
    let offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_UDP_L4,
        gso_size: 1000,
        csum_start: 78,
        csum_offset: 6,
        ..Offload::PLAIN
    };
    let segmentation = Segmentation::new(&frame[..128], frame.len(), &offload).unwrap();
    assert_eq!(segmentation.count(), 3);
    for segment in segmentation.segments() {
        let part = &frame[segment.payload()];
        let mut out = [0; 128];
        let len = segment.write_complete(&mut out, Sum::of(part)).unwrap();
        let pseudo = crate::checksum::pseudo_header_v6([1; 16], last, IpProtocol::UDP, 1008);
        assert!((pseudo + Sum::of(&out[78..len]) + Sum::of(part)).is_valid());
    }
}

#[test]
fn what_cannot_be_segmented_says_so() {
    let large = Large {
        tags: 0,
        ip: Ip::V4(Ipv4Header::new(0, 64, IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap()),
        l4: L4::Tcp(TcpHeader::new(1, 2, 3, 4)),
        payload: vec![1; 3000],
        gso_size: 1448,
        gso_type: GSO_TCPV4,
    };
    let (frame, offload) = large.guest();
    let new = |len, offload: Offload| Segmentation::new(&frame[..128], len, &offload).err();
    assert_eq!(new(1000, offload), Some(SegmentError::NotLarge(1000)));
    assert_eq!(new(3054, Offload::PLAIN), Some(SegmentError::NotLarge(3054)));
    assert_eq!(new(140_000, Offload { gso_size: 65535, ..offload }), Some(SegmentError::Oversize(65535)));
    assert!(matches!(
        new(3054, Offload { gso_size: 0, ..offload }),
        Some(SegmentError::Offload(OffloadError::GsoSize))
    ));
    let segmentation = Segmentation::new(&frame[..128], frame.len(), &offload).unwrap();
    let first = segmentation.segments().next().unwrap();
    assert_eq!(first.write_partial(&mut [0; 53]), Err(SegmentError::Room { needed: 54, room: 53 }));
}
