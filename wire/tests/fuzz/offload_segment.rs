//! A virtio-net header and a frame, both of a guest's choice. What validation lets through keeps the promises of its
//! page: finishing a checksum changes nothing that the switch decides on, and segments are whole, correct frames.

use etherparse::{NetSlice, SlicedPacket, TransportSlice, err::packet::SliceError};
use fabnic_wire::{
    FlowFields, L2Key, Layers, Offload,
    checksum::{Sum, Verification, finish, ipv4_header_is_valid, verify},
    layers::Network,
    offload::{MAX_SEGMENTS, NEEDS_CSUM},
    segment::Segmentation,
};

/// Twelve bytes of header, one that says how long the head is, one for more payload, and the frame.
pub(crate) fn run(data: &[u8]) {
    let Some((header, rest)) = data.split_first_chunk() else { return };
    let Some((&[head_len, more], frame)) = rest.split_first_chunk() else { return };
    let mut frame = frame.to_vec();
    frame.extend((0..usize::from(more) * 40).map(|i| (i * 7) as u8));
    let given = Offload::decode(header);
    assert_eq!(&Offload::encode(&given, u16::from_le_bytes([header[10], header[11]])), header);
    let head_len = usize::from(head_len).min(frame.len());
    let Ok(offload) = given.validate(frame.len(), &frame[..head_len]) else { return };
    assert_eq!(offload.validate(frame.len(), &frame[..head_len]), Ok(offload));
    assert_eq!(offload.flags & !NEEDS_CSUM, 0);
    tag_comes_and_goes(&frame, head_len, &offload);
    if offload.is_gso() {
        segments(&frame, head_len, &offload);
    } else if offload.needs_csum() {
        checksum(frame, head_len, &offload);
    } else {
        assert_eq!(offload, Offload::PLAIN);
    }
}

fn tag_comes_and_goes(frame: &[u8], head_len: usize, offload: &Offload) {
    let Some(layers) = Layers::of(&frame[..head_len]) else { return };
    if offload.is_plain() || layers.tags >= 2 {
        return;
    }
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, [0x81, 0, 0, 10]);
    let mut shifted = *offload;
    shifted.shift(4);
    assert_eq!(shifted.validate(tagged.len(), &tagged[..head_len + 4]), Ok(shifted));
    shifted.shift(-4);
    assert_eq!(shifted, *offload);
}

fn checksum(mut frame: Vec<u8>, head_len: usize, offload: &Offload) {
    let before = (L2Key::of(&frame), FlowFields::of(&frame));
    let start = usize::from(offload.csum_start);
    let rest = Sum::of(&frame[head_len..]);
    finish(&mut frame[..head_len], offload, rest).expect("validated");
    assert_eq!((L2Key::of(&frame), FlowFields::of(&frame)), before);
    // With the pseudo header's sum taken as it came, nothing can be said of the result but that it has a fixed point.
    assert!(offload.csum_field().is_some_and(|field| field >= start && field + 2 <= head_len));
}

fn segments(frame: &[u8], head_len: usize, offload: &Offload) {
    let segmentation = match Segmentation::new(&frame[..head_len], frame.len(), offload) {
        Ok(segmentation) => segmentation,
        // Longer than an IP packet.
        Err(_) => {
            assert!(usize::from(offload.gso_size) + head_len > 65535);
            return;
        }
    };
    assert!((2..=MAX_SEGMENTS).contains(&segmentation.count()));
    let large = FlowFields::of(frame);
    let mut next = segmentation.header_len();
    let mut count = 0;
    for segment in segmentation.segments() {
        let payload = segment.payload();
        assert_eq!(payload.start, next);
        assert!(!payload.is_empty() && payload.len() <= usize::from(offload.gso_size));
        next = payload.end;
        count += 1;
        let mut out = vec![0; segment.len()];
        let headers = segment.write_complete(&mut out, Sum::of(&frame[payload.clone()])).expect("room");
        out[headers..].copy_from_slice(&frame[payload.clone()]);
        assert_eq!(FlowFields::of(&out), large);
        assert_ne!(verify(&out), Verification::Bad);
        etherparse_accepts(frame, &out, &segmentation, payload.start);

        let mut partial = vec![0; segment.len()];
        let left = segment.write_partial(&mut partial).expect("room");
        partial[headers..].copy_from_slice(&frame[payload.clone()]);
        assert_eq!(left.validate(partial.len(), &partial[..headers]), Ok(left));
        finish(&mut partial[..headers], &left, Sum::of(&frame[payload])).expect("validated");
        assert_eq!(partial, out);
    }
    assert_eq!((next, count), (frame.len(), segmentation.count()));
}

fn etherparse_accepts(large: &[u8], segment: &[u8], segmentation: &Segmentation<'_>, payload_start: usize) {
    let layers = Layers::of(segment).expect("segmented");
    let ip = layers.ip.expect("segmented");
    let l3 = usize::from(layers.l3);
    if ip.network == Network::V4 {
        assert!(ipv4_header_is_valid(&segment[l3..usize::from(ip.l4)]));
    }
    let packet = match SlicedPacket::from_ethernet(segment) {
        Ok(packet) => packet,
        // etherparse minds the order of extension headers, which we only repeat.
        Err(SliceError::Ipv6Exts(_)) => return,
        Err(error) => panic!("{error}"),
    };
    match packet.net {
        Some(NetSlice::Ipv4(v4)) => assert_eq!(usize::from(v4.header().total_len()), segment.len() - l3),
        Some(NetSlice::Ipv6(v6)) => {
            assert_eq!(usize::from(v6.header().payload_length()), segment.len() - l3 - 40);
        }
        _ => panic!("neither IPv4 nor IPv6"),
    }
    match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let l4 = usize::from(ip.l4);
            let seq = u32::from_be_bytes(*large[l4 + 4..].first_chunk().expect("segmented"));
            let offset = payload_start - segmentation.header_len();
            assert_eq!(tcp.sequence_number(), seq.wrapping_add(offset as u32));
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!(usize::from(udp.length()), segment.len() - usize::from(ip.l4))
        }
        other => panic!("neither TCP nor UDP: {other:?}"),
    }
}
