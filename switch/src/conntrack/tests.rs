//! The bench that the tests of this module stand on: frames, and a table that is used as the pipeline uses it.

mod lossy;
mod model;
mod nat;
mod rate;
mod tables;
mod traces;

use etherparse::PacketBuilder;

use super::table::{Connected, Refusal, Standing};
use super::*;
use crate::versions::Versions;
use fabnic_port::PortId;
use fabnic_wire::{Fields, Offload};
use std::sync::Arc;

/// The two ends of most tests.
const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

struct Bed {
    ct: Conntrack,
    zone: Arc<Zone>,
    owner: Arc<Quota>,
    now: u32,
}

impl Bed {
    fn new(settings: &ZoneSettings) -> Bed {
        let ct = Conntrack::new(1000, Arc::new(Versions::new()));
        let zone = ct.zone(7);
        zone.set(settings);
        let owner = ct.port(PortId(3));
        Bed { ct, zone, owner, now: 1000 }
    }

    fn look(&self, frame: &[u8]) -> Standing {
        let fields = Fields::of(frame).unwrap();
        self.ct.lookup(&self.zone, &fields, &Packet::new(&fields, frame, frame.len() as u32), self.now)
    }

    fn commit(&self, frame: &[u8], nat: Option<&Nat>) -> Result<Connected, Refusal> {
        let fields = Fields::of(frame).unwrap();
        let packet = Packet::new(&fields, frame, frame.len() as u32);
        self.ct.commit(&self.zone, &self.owner, &fields, &packet, nat, None, self.now)
    }

    fn track(&self, handle: Handle, frame: &[u8]) -> Tracked {
        let fields = Fields::of(frame).unwrap();
        self.ct.track(handle, &Packet::new(&fields, frame, frame.len() as u32), self.now)
    }

    /// What rules that commit everything that is new do with a frame: what it was seen as, and how it leaves.
    fn pass_with(&self, frame: &[u8], nat: Option<&Nat>) -> (CtState, Vec<u8>) {
        let seen = self.look(frame);
        let handle = match seen.handle {
            None if seen.state.contains(CtState::NEW) => self.commit(frame, nat).ok().map(|made| made.handle),
            handle => handle,
        };
        let mut leaves = frame.to_vec();
        if let Some(handle) = handle {
            if !seen.state.contains(CtState::RELATED) {
                let tracked = self.track(handle, frame);
                assert!(
                    matches!(tracked, Tracked::Valid { .. } | Tracked::Last),
                    "{tracked:?} of what was seen as {}",
                    words(seen.state)
                );
            }
            let fields = Fields::of(frame).unwrap();
            let is_translated = self.look(frame).state.intersects(CtState::SNAT | CtState::DNAT);
            if is_translated {
                assert!(self.ct.translate(handle, &fields, &mut leaves, &Offload::PLAIN));
            }
        }
        (seen.state, leaves)
    }

    fn pass(&self, frame: &[u8]) -> String {
        words(self.pass_with(frame, None).0)
    }

    fn only(&self) -> ConnectionEntry {
        let entries = self.ct.entries(self.now);
        assert_eq!(entries.len(), 1);
        entries[0].clone()
    }

    fn tcp(&self) -> Option<TcpState> {
        self.ct.entries(self.now).first().and_then(|entry| entry.tcp)
    }
}

/// As in rules: `new`, `est`, with `+rpl` and so on; `trk` is left out where anything else is set.
fn words(state: CtState) -> String {
    let names = [
        (CtState::NEW, "new"),
        (CtState::ESTABLISHED, "est"),
        (CtState::RELATED, "rel"),
        (CtState::REPLY, "rpl"),
        (CtState::INVALID, "inv"),
        (CtState::SNAT, "snat"),
        (CtState::DNAT, "dnat"),
    ];
    let set: Vec<_> = names.iter().filter(|(bit, _)| state.contains(*bit)).map(|(_, name)| *name).collect();
    match (state.contains(CtState::TRACKED), set.is_empty()) {
        (false, true) => "untracked".to_owned(),
        (true, true) => "trk".to_owned(),
        _ => set.join("+"),
    }
}

/// A TCP segment, by its letters: S, A, F, R, P, U.
#[derive(Clone, Copy, Debug)]
struct Seg<'a> {
    flags: &'a str,
    seq: u32,
    ack: u32,
    len: usize,
    window: u16,
    options: &'a [u8],
    ports: (u16, u16),
}

fn seg(flags: &str, seq: u32, ack: u32, len: usize) -> Seg<'_> {
    Seg { flags, seq, ack, len, window: 1000, options: &[], ports: (40000, 80) }
}

impl Seg<'_> {
    /// As a frame from A to B, or, answering, from B to A.
    fn frame(&self, reply: bool) -> Vec<u8> {
        let (from, to) = if reply { (B, A) } else { (A, B) };
        let ports = if reply { (self.ports.1, self.ports.0) } else { self.ports };
        self.between(from, to, ports)
    }

    fn between(&self, from: [u8; 4], to: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
        let mut header = etherparse::TcpHeader::new(ports.0, ports.1, self.seq, self.window);
        header.set_options_raw(self.options).unwrap();
        header.syn = self.flags.contains('S');
        header.fin = self.flags.contains('F');
        header.rst = self.flags.contains('R');
        header.psh = self.flags.contains('P');
        header.urg = self.flags.contains('U');
        header.ack = self.flags.contains('A');
        header.acknowledgment_number = self.ack;
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(from, to, 64)
            .tcp_header(header)
            .write(&mut frame, &vec![0x5a; self.len])
            .unwrap();
        frame
    }
}

fn udp(from: [u8; 4], to: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64).udp(ports.0, ports.1);
    builder.write(&mut frame, b"payload").unwrap();
    frame
}

fn udp6(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let address = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let builder =
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(address(from), address(to), 64).udp(ports.0, ports.1);
    builder.write(&mut frame, b"payload").unwrap();
    frame
}

fn echo(from: [u8; 4], to: [u8; 4], request: bool, id: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
    if request {
        builder.icmpv4_echo_request(id, 1).write(&mut frame, b"ping").unwrap();
    } else {
        builder.icmpv4_echo_reply(id, 1).write(&mut frame, b"ping").unwrap();
    }
    frame
}

/// An ICMP error from a router about a frame, with so many bytes of what follows its IP header.
fn error_about(frame: &[u8], router: [u8; 4], to: [u8; 4], kind: u8, l4_bytes: usize) -> Vec<u8> {
    let carried = &frame[14..(34 + l4_bytes).min(frame.len())];
    let mut error = Vec::new();
    PacketBuilder::ethernet2([6; 6], [2; 6])
        .ipv4(router, to, 64)
        .icmpv4_raw(kind, 1, [0; 4])
        .write(&mut error, carried)
        .unwrap();
    error
}

/// Every checksum of the frame is right, those of a carried packet's IP header too.
fn assert_sums(frame: &[u8]) {
    use fabnic_wire::checksum::{Verification, ipv4_header_is_valid, verify};
    assert_eq!(verify(frame), Verification::Good);
    assert!(ipv4_header_is_valid(&frame[14..34]));
    let fields = Fields::of(frame).unwrap();
    if fields.flow.protocol() == fabnic_wire::IpProtocol::ICMP && matches!(fields.flow.src_port, 3 | 11) {
        assert!(ipv4_header_is_valid(&frame[42..62]), "the carried header");
    }
}
