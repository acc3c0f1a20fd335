//! Any bytes as IGMP, MLD or PIM: as a whole frame, and as a message whose frame and checksums are made right, so that its
//! contents are read. What is read lies in the bytes, and a query comes out again when it is written.

use std::net::IpAddr;

use fabnic_wire::checksum::{Sum, pseudo_header_v6};
use fabnic_wire::membership::{self, Message, Packet, QueryFrame, Refusal};
use fabnic_wire::{Fields, IpProtocol, MacAddr};

/// Longest message that is put into a frame.
const LONGEST: usize = 1400;
const SOURCE_V4: [u8; 4] = [10, 0, 0, 1];
const SOURCE_V6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const TO_V6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];

/// The first byte says as what the others are read.
pub(crate) fn run(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else { return };
    let message = &bytes[..bytes.len().min(LONGEST)];
    match which % 3 {
        0 => any_frame(bytes),
        1 => carried(&igmp_frame(message), message.len(), false),
        _ => carried(&mld_frame(message), message.len(), true),
    }
}

/// As it comes from a port.
fn any_frame(frame: &[u8]) {
    if Fields::of(frame).is_some_and(|fields| membership::is_membership(&fields))
        && let Ok(packet) = Packet::of(frame)
    {
        content(&packet, frame.len());
    }
    // Not asked for, and no harm either.
    let _ = Packet::of(frame);
}

fn carried(frame: &[u8], len: usize, is_v6: bool) {
    match Packet::of(frame) {
        Ok(packet) => {
            assert_eq!(packet.source.is_ipv6(), is_v6);
            content(&packet, len);
        }
        // All of these were made right; short messages have no checksum.
        Err(refused @ (Refusal::IpChecksum | Refusal::HopLimit | Refusal::RouterAlert | Refusal::Source)) => {
            panic!("{refused:?}")
        }
        Err(Refusal::Checksum) => assert!(len < 4),
        Err(_) => {}
    }
}

/// What a message says is no more than `len` bytes can say.
fn content(packet: &Packet<'_>, len: usize) {
    match packet.message {
        Message::Query(query) => {
            assert!(query.sources.len() * 4 <= len && query.robustness <= 7);
            assert!(query.group.is_none_or(|group| group.is_multicast()));
            again(packet);
        }
        Message::Report { group, .. } | Message::Leave { group } => assert!(group.is_multicast()),
        Message::Records(records) => {
            let mut told = 0;
            for record in records {
                assert_eq!(record.group.is_ipv6(), packet.source.is_ipv6());
                let width = if record.group.is_ipv6() { 16 } else { 4 };
                assert_eq!(record.sources.count(), record.sources.len());
                told += 4 + width + record.sources.len() * width;
            }
            assert!(told <= len);
        }
        Message::Router | Message::RouterGone | Message::Other(_) => {}
    }
}

/// A query that is written says what was read. Version 1 of IGMP is never written, nor a time that makes it one.
fn again(packet: &Packet<'_>) {
    let Message::Query(query) = packet.message else { return };
    let is_v6 = packet.source.is_ipv6();
    if !is_v6 && (query.version == 1 || query.max_response_ms == 0) {
        return;
    }
    let room = if is_v6 { 89 } else { 366 };
    let sources: Vec<IpAddr> = query.sources.take(room).collect();
    let written = QueryFrame {
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        source: if is_v6 { SOURCE_V6.into() } else { SOURCE_V4.into() },
        version: query.version,
        group: query.group,
        sources: &sources,
        max_response_ms: query.max_response_ms,
        suppress: query.suppress,
        robustness: query.robustness,
        interval_s: query.interval_s,
    }
    .to_bytes();
    assert!(written.len() <= 1514);
    let read = Packet::of(&written).expect("what was written");
    let Message::Query(other) = read.message else { panic!("{read:?}") };
    assert_eq!(
        (other.version, other.group, other.max_response_ms, other.suppress),
        (query.version, query.group, query.max_response_ms, query.suppress)
    );
    assert_eq!((other.robustness, other.interval_s), (query.robustness, query.interval_s));
    assert!(other.sources.eq(sources));
}

/// Puts a checksum at bytes 2 and 3, if there are any.
fn summed(message: &[u8], pseudo: Sum) -> Vec<u8> {
    let mut message = message.to_vec();
    if message.len() >= 4 {
        message[2..4].fill(0);
        let sum = (Sum::of(&message) + pseudo).checksum();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn igmp_frame(message: &[u8]) -> Vec<u8> {
    let mut header = vec![0x46, 0xc0];
    header.extend(u16::try_from(24 + message.len()).expect("it is short").to_be_bytes());
    header.extend([0, 0, 0x40, 0, 1, 2, 0, 0]);
    header.extend(SOURCE_V4);
    header.extend([224, 0, 0, 22, 0x94, 4, 0, 0]);
    let sum = Sum::of(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [1, 0, 0x5e, 0, 0, 22, 2, 0, 0, 0, 0, 1, 8, 0];
    [&ethernet, header.as_slice(), &summed(message, Sum::ZERO)].concat()
}

fn mld_frame(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("it is short");
    let pseudo = pseudo_header_v6(SOURCE_V6, TO_V6, IpProtocol::ICMPV6, len);
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(u16::try_from(8 + message.len()).expect("it is short").to_be_bytes());
    header.extend([0, 1]);
    header.extend(SOURCE_V6);
    header.extend(TO_V6);
    header.extend([IpProtocol::ICMPV6.0, 0, 5, 2, 0, 0, 1, 0]);
    let ethernet = [0x33, 0x33, 0, 0, 0, 0x16, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    [&ethernet, header.as_slice(), &summed(message, pseudo)].concat()
}
