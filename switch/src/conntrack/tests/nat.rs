//! Translation: what packets leave as, both ways, with right checksums; and that it ends.

use std::net::IpAddr;

use fabnic_wire::checksum::Sum;
use fabnic_wire::{Layers, offload};
use proptest::prelude::*;

use super::*;

const N: [u8; 4] = [192, 0, 2, 1];

fn range(first: [u8; 4], last: [u8; 4], ports: Option<core::ops::RangeInclusive<u16>>) -> NatRange {
    NatRange { first: IpAddr::from(first), last: IpAddr::from(last), ports }
}

fn snat(ports: Option<core::ops::RangeInclusive<u16>>) -> Nat {
    Nat { source: Some(range(N, N, ports)), destination: None }
}

fn ends(frame: &[u8]) -> ([u8; 4], [u8; 4], u16, u16) {
    let fields = Fields::of(frame).unwrap();
    let four = |address: [u8; 16]| *address.first_chunk().unwrap();
    (four(fields.flow.src), four(fields.flow.dst), fields.flow.src_port, fields.flow.dst_port)
}

#[test]
fn a_source_is_translated_and_its_answers_back() {
    let bed = Bed::new(&ZoneSettings::default());
    let nat = snat(None);
    let (state, out) = bed.pass_with(&seg("S", 100, 0, 0).frame(false), Some(&nat));
    assert_eq!((words(state).as_str(), ends(&out)), ("new", (N, B, 40000, 80)));
    assert_sums(&out);
    let (state, back) = bed.pass_with(&seg("SA", 500, 101, 0).between(B, N, (80, 40000)), None);
    assert_eq!((words(state).as_str(), ends(&back)), ("est+rpl+snat", (B, A, 80, 40000)));
    assert_sums(&back);
    // A second client with the same port gets another one.
    let other = seg("S", 100, 0, 0).between([10, 0, 0, 9], B, (40000, 80));
    let (_, out) = bed.pass_with(&other, Some(&nat));
    let (src, _, port, _) = ends(&out);
    assert!(src == N && port >= 1024 && port != 40000);
    assert_sums(&out);
    let (_, back) = bed.pass_with(&seg("SA", 7, 101, 0).between(B, N, (80, port)), None);
    assert_eq!(ends(&back), (B, [10, 0, 0, 9], 80, 40000));
}

#[test]
fn a_destination_is_translated_too() {
    let bed = Bed::new(&ZoneSettings::default());
    let server = [10, 0, 7, 7];
    let nat = Nat {
        source: Some(range(N, N, Some(7000..=7000))),
        destination: Some(range(server, server, Some(8080..=8080))),
    };
    let (state, out) = bed.pass_with(&udp(A, B, (5000, 53)), Some(&nat));
    assert_eq!((words(state).as_str(), ends(&out)), ("new", (N, server, 7000, 8080)));
    assert_sums(&out);
    let (state, back) = bed.pass_with(&udp(server, N, (8080, 7000)), None);
    assert_eq!((words(state).as_str(), ends(&back)), ("est+rpl+snat+dnat", (B, A, 53, 5000)));
    assert_sums(&back);
    // The same server for every connection of a client, different ones for different clients.
    let many = Nat { source: None, destination: Some(range([10, 0, 7, 0], [10, 0, 7, 15], None)) };
    let server_of = |client: u8, port| {
        let (_, out) = bed.pass_with(&udp([10, 0, 3, client], B, (port, 80)), Some(&many));
        ends(&out).1
    };
    let servers: Vec<_> = (0..40).map(|client| server_of(client, 1)).collect();
    assert!(servers.iter().any(|server| *server != servers[0]));
    assert!((0..40).all(|client| server_of(client, 2) == servers[usize::from(client)]));
}

#[test]
fn identifiers_are_translated_like_ports() {
    let bed = Bed::new(&ZoneSettings::default());
    let id = |frame: &[u8]| u16::from_be_bytes([frame[38], frame[39]]);
    let (_, one) = bed.pass_with(&echo(A, B, true, 9), Some(&snat(None)));
    let (_, two) = bed.pass_with(&echo([10, 0, 0, 9], B, true, 9), Some(&snat(None)));
    assert_eq!(id(&one), 9);
    assert_ne!(id(&two), 9);
    assert_sums(&two);
    let (state, back) = bed.pass_with(&echo(B, N, false, id(&two)), None);
    assert_eq!((words(state).as_str(), ends(&back).1, id(&back)), ("est+rpl+snat", [10, 0, 0, 9], 9));
    assert_sums(&back);
}

#[test]
fn errors_are_translated_outside_and_inside() {
    let bed = Bed::new(&ZoneSettings::default());
    let server = [10, 0, 7, 7];
    let nat = Nat {
        source: Some(range(N, N, Some(7000..=7000))),
        destination: Some(range(server, server, Some(8080..=8080))),
    };
    for (original, len) in
        [(udp(A, B, (5000, 53)), 8), (udp(A, B, (5000, 53)), 100), (seg("S", 1, 0, 0).frame(false), 20)]
    {
        let (_, out) = bed.pass_with(&original, Some(&nat));
        let router = [10, 9, 9, 9];
        let error = error_about(&out, router, N, 3, len);
        let (state, seen) = bed.pass_with(&error, None);
        assert_eq!(words(state), "rel+rpl+snat+dnat");
        assert_sums(&seen);
        // To the client, hiding who the server is, about the packet that the client sent.
        assert_eq!((ends(&seen).0, ends(&seen).1), (B, A));
        assert_eq!(seen[42..62], original[14..34], "the carried IP header");
        assert_eq!(seen[62..66], original[34..38], "the carried ports");
        if len == 100 {
            assert_eq!(seen[62..], original[34..], "all of it");
        }
        bed.ct.flush(|_| true);
    }
    // Without destination translation, the router stays who it is.
    let (_, out) = bed.pass_with(&udp(A, B, (5000, 53)), Some(&snat(None)));
    let (_, seen) = bed.pass_with(&error_about(&out, [10, 9, 9, 9], N, 11, 8), None);
    assert_eq!((ends(&seen).0, ends(&seen).1), ([10, 9, 9, 9], A));
    assert_sums(&seen);
}

#[test]
fn ports_run_out() {
    let bed = Bed::new(&ZoneSettings::default());
    let nat = snat(Some(1000..=1009));
    let made = (0..20).filter(|n| bed.commit(&udp(A, B, (*n, 53)), Some(&nat)).is_ok()).count();
    assert_eq!((made, bed.ct.len(), bed.ct.counters().exhausted), (10, 10, 10));
    assert_eq!(bed.commit(&udp(A, B, (30, 53)), Some(&nat)).unwrap_err(), Refusal::Exhausted);
    // To another destination they are free.
    assert!(bed.commit(&udp(A, B, (1, 54)), Some(&nat)).is_ok());
    // A range of the other family.
    assert_eq!(bed.commit(&udp6(1, 2, (1, 2)), Some(&nat)).unwrap_err(), Refusal::Exhausted);
    let before = (bed.owner.used(), bed.ct.len());
    assert_eq!(before, (11, 11));
    // A protocol without ports has one try for each destination.
    let gre = |from| {
        let mut frame = udp(from, B, (1, 2));
        frame[23] = 47;
        frame
    };
    assert!(bed.commit(&gre(A), Some(&nat)).is_ok());
    assert_eq!(bed.commit(&gre([10, 0, 0, 9]), Some(&nat)).unwrap_err(), Refusal::Exhausted);
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    let bed = Bed::new(&ZoneSettings::default());
    let mut frame = udp(A, B, (5000, 53));
    frame[40..42].fill(0);
    let (_, out) = bed.pass_with(&frame, Some(&snat(Some(1..=1))));
    assert_eq!(ends(&out), (N, B, 1, 53));
    assert_eq!(out[40..42], [0, 0]);
}

#[test]
fn what_lies_behind_the_head_is_refused_not_guessed() {
    let bed = Bed::new(&ZoneSettings::default());
    let frame = seg("S", 100, 0, 0).frame(false);
    let made = bed.commit(&frame, Some(&snat(None))).unwrap();
    let fields = Fields::of(&frame).unwrap();
    for len in 0..52 {
        assert!(!bed.ct.translate(made.handle, &fields, &mut frame.clone()[..len], &Offload::PLAIN), "{len}");
    }
}

proptest! {
    /// Whatever the frame, its translation is what building it anew would give; and a partial checksum, finished
    /// afterwards, is right.
    #[test]
    fn checksums_by_difference_are_right(
        addresses: [[u8; 4]; 3], ports: [u16; 3], payload in prop::collection::vec(any::<u8>(), 0..40),
        tcp: bool, partial: bool,
    ) {
        let [from, to, translated] = addresses;
        let [source, destination, port] = ports;
        prop_assume!(port != 0);
        let bed = Bed::new(&ZoneSettings::default());
        let build = |from, source| {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
            if tcp {
                builder.tcp(source, destination, 1, 1000).syn().write(&mut frame, &payload).unwrap();
            } else {
                builder.udp(source, destination).write(&mut frame, &payload).unwrap();
            }
            frame
        };
        let (mut frame, expected) = (build(from, source), build(translated, port));
        let nat = Nat { source: Some(range(translated, translated, Some(port..=port))), destination: None };
        let made = bed.commit(&frame, Some(&nat)).unwrap();
        let mut work = Offload::PLAIN;
        let csum_offset = if tcp { 16 } else { 6 };
        if partial {
            let layers = Layers::of(&frame).unwrap();
            let ip = layers.ip.unwrap();
            let len = (frame.len() - 34) as u16;
            let seed = fabnic_wire::checksum::pseudo_header(&frame, layers.l3, &ip, len).unwrap();
            frame[34 + csum_offset..36 + csum_offset].copy_from_slice(&seed.word().to_be_bytes());
            work = Offload {
                flags: offload::NEEDS_CSUM, csum_start: 34, csum_offset: csum_offset as u16, ..Offload::PLAIN
            };
        }
        let fields = Fields::of(&frame).unwrap();
        if made.translated {
            prop_assert!(bed.ct.translate(made.handle, &fields, &mut frame, &work));
        } else {
            prop_assert!((from, source) == (translated, port));
        }
        fabnic_wire::checksum::finish(&mut frame, &work, Sum::ZERO).unwrap();
        prop_assert_eq!(frame, expected);
    }
}
