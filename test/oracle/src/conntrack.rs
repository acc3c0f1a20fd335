//! Random conversations, given to the kernel's connection tracking (`act_ct`, asked by flower's `ct_state`) and to the
//! switch: what each says of every packet.
//!
//! ```text
//!   port 0, tracked --> ct zone 1 --> what it says, written into the source address --> port 1
//!   port 0          <-- what it says, written into the source address <-- ct zone 1 <-- port 1, not tracked
//! ```
//!
//! Both write the state into the packet, so frames are compared and nothing else. Each case has addresses of its own: what
//! earlier ones left in the tables does not matter. No time passes.
//!
//! What the two are meant to differ in is told in docs/switch-oracle.md, and left out here: checksums are right, because the
//! switch does not look at them; there are no fragments, which `act_ct` puts together, and no padding, which it cuts off.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use fabnic_port::PortId;
use fabnic_switch::{
    Action, Change, CtState, Direction, Domain, Incoming, Match, Policy, PortSettings, PortTracking, RuleId,
    RuleSpec, Set, SwitchConfig, TcpState, Term,
};
use fabnic_testkit::packets::{Packet, tcp};
use fabnic_wire::checksum::{Sum, pseudo_header_v4, pseudo_header_v6};
use fabnic_wire::ip::IpProtocol;
use fabnic_wire::{MacAddr, Vid};

use crate::dice::{Dice, bytes};
use crate::packets::station;
use crate::tc::Filters;
use crate::verdict::{Verdict, compare, same};
use crate::vlans::settings;
use crate::{Bridge, BridgePort, Fabric, Filtering, Inside};

/// What flower can ask for, and how the switch says it.
const STATES: [(&str, CtState); 6] = [
    ("+trk+new", CtState::NEW),
    ("+trk+est-rpl", CtState::ESTABLISHED),
    ("+trk+est+rpl", CtState::ESTABLISHED.union(CtState::REPLY)),
    ("+trk+rel-rpl", CtState::RELATED),
    ("+trk+rel+rpl", CtState::RELATED.union(CtState::REPLY)),
    ("+trk+inv", CtState::INVALID),
];

/// The source address that says a state.
fn says(state: usize) -> MacAddr {
    MacAddr::new([2, 0xff, 0, 0, 0, u8::try_from(state).unwrap_or(u8::MAX)])
}

/// The state that a frame says, for people.
fn said(frames: &[Vec<Vec<u8>>]) -> String {
    let one = |frame: &Vec<u8>| match frame.get(6..12) {
        Some([2, 0xff, 0, 0, 0, state]) => STATES.get(usize::from(*state)).map_or("?", |(words, _)| words),
        _ => "not tracked",
    };
    frames.iter().flatten().map(one).collect::<Vec<_>>().join(", ")
}

/// The kernel's filters. TCP (protocol 6: a guest has no names for protocols) connections get a helper that finds nothing to do: others `act_ct` puts into a flow table where
/// their windows are not looked at any more.
fn filters() -> Vec<String> {
    let mut filters = Vec::new();
    for (port, (version, protocol)) in (0..2).flat_map(|port| [(port, (4, "ip")), (port, (6, "ipv6"))]) {
        filters.push(format!(
            "tap{port} ingress protocol {protocol} pref {version} chain 0 flower ct_state -trk \
             action ct zone 1 pipe action goto chain 1"
        ));
        for (place, (words, _)) in STATES.iter().enumerate() {
            let helper = format!("helper ipv{version}-6-ftp ");
            let (new, rest) =
                (["action ct commit zone 1 ", &helper].concat(), "action ct commit zone 1 ".to_owned());
            let kinds =
                if place == 0 { vec![(" ip_proto tcp", new), ("", rest)] } else { vec![("", String::new())] };
            for (kind, (keys, commit)) in kinds.into_iter().enumerate() {
                let pipe = if commit.is_empty() { "" } else { "pipe " };
                filters.push(format!(
                    "tap{port} ingress protocol {protocol} pref {} chain 1 flower{keys} ct_state {words} \
                     action pedit ex munge eth src set {} pipe {commit}{pipe}action pass",
                    100 * version + 10 * place + kind,
                    says(place)
                ));
            }
        }
    }
    filters
}

/// The switch's rules: port 0 is the one that is tracked, as sender and as receiver.
fn rules() -> impl Iterator<Item = Change> {
    const ALL: CtState = CtState::NEW
        .union(CtState::ESTABLISHED)
        .union(CtState::RELATED)
        .union(CtState::REPLY)
        .union(CtState::INVALID);
    let sides = [(Direction::In, Term::Ingress(PortId(0))), (Direction::Out, Term::Egress(PortId(0)))];
    (0_u64..)
        .zip(sides.into_iter().flat_map(|side| STATES.iter().enumerate().map(move |state| (side, state))))
        .map(|(id, ((direction, at), (place, (_, value))))| {
            let state = Term::CtState { value: *value, mask: ALL };
            Change::Add(RuleSpec {
                id: RuleId(id),
                domain: Domain::Infrastructure,
                direction,
                group: 0,
                priority: 0,
                name: String::new(),
                matches: vec![Match::new([at, state])],
                actions: vec![Action::Set(Set::SrcMac(says(place)))],
            })
        })
}

/// A conversation's addresses: of IPv4 or IPv6, and of this case only.
#[derive(Clone, Copy, Debug)]
struct Hosts {
    case: u16,
    v6: bool,
}

impl Hosts {
    /// From a host to the other one.
    fn packet(self, from: usize) -> Packet {
        let [high, low] = self.case.to_be_bytes();
        let host = |n: usize| u8::try_from(n).unwrap_or(0);
        let (own, other) = (host(from), host(1 - from.min(1)));
        let packet = Packet::ethernet(station(other), station(own));
        if self.v6 {
            let ip = |n: u8| [0xfd, 0, 0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, n + 1];
            packet.ipv6(ip(own), ip(other))
        } else {
            packet.ipv4([10, high, low, own + 1], [10, high, low, other + 1])
        }
    }
}

/// One end of a TCP connection, as far as it keeps to the rules.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    next: u32,
    acked: u32,
    opened: bool,
}

/// Both, and what each sent last.
#[derive(Debug)]
struct Tcp {
    ends: [End; 2],
    last: [Vec<u8>; 2],
    ports: [u16; 2],
}

/// A frame to be sent from a port, and what it is.
#[derive(Debug)]
struct Step {
    from: usize,
    what: String,
    frame: Vec<u8>,
    /// Of TCP, and errors about it: the client's port, and flags.
    tcp: Option<(u16, u8)>,
}

impl Tcp {
    fn new(dice: &mut Dice<'_>, n: u16) -> Tcp {
        let mut end = || End {
            next: u32::from_be_bytes([dice.byte(), dice.byte(), 0xff, dice.byte()]),
            ..End::default()
        };
        Tcp { ends: [end(), end()], last: [Vec::new(), Vec::new()], ports: [2000 + n, 80] }
    }

    /// A segment: mostly what comes next, sometimes something else.
    fn step(&mut self, dice: &mut Dice<'_>, hosts: Hosts) -> Step {
        let from = usize::from(dice.below(2));
        let (own, other) =
            if from == 0 { (self.ends[0], self.ends[1]) } else { (self.ends[1], self.ends[0]) };
        if dice.chance(1)
            && let Some(frame) = self.last.get(from).filter(|frame| !frame.is_empty())
        {
            let flags = frame.get(14 + if hosts.v6 { 40 } else { 20 } + 13).copied().unwrap_or(0);
            return Step {
                from,
                what: "again".to_owned(),
                frame: frame.clone(),
                tcp: Some((self.ports[0], flags)),
            };
        }
        let opens = !own.opened || dice.below(16) == 15;
        let reply = other.opened;
        let (mut flags, mut len) = match dice.below(8) {
            _ if opens && !(own.opened || dice.chance(7)) => (tcp::ACK, 0),
            _ if opens && reply => (tcp::SYN | tcp::ACK, 0),
            _ if opens => (tcp::SYN, 0),
            0..3 => (tcp::ACK, 0),
            3..5 => (tcp::ACK | tcp::PSH, 1 + dice.below(40)),
            5 => (tcp::ACK | tcp::FIN, 0),
            6 => (tcp::RST | if dice.chance(4) { tcp::ACK } else { 0 }, 0),
            _ => (tcp::ACK, dice.below(2)),
        };
        if dice.below(16) == 15 {
            (flags, len) = (dice.byte() & 0x3f, dice.below(40));
        }
        let next = if opens && own.opened { own.next.wrapping_add(200_000) } else { own.next };
        let odd = [0, 1, u32::MAX, 100, 100_u32.wrapping_neg(), 70_000, 70_000_u32.wrapping_neg(), 1 << 30];
        let seq = next.wrapping_add(if dice.chance(1) { dice.of(&odd) } else { 0 });
        let ack = other.next.wrapping_add(if dice.chance(1) { dice.of(&odd) } else { 0 });
        let ack = if flags & tcp::ACK == 0 { 0 } else { ack };
        let window = dice.of(&[0xffff_u16, 0xffff, 1000, 10, 0]);
        let options: &[u8] = match (flags & tcp::SYN, dice.below(4)) {
            (0, _) => &[],
            (_, 0) => &[2, 4, 5, 0xb4],
            (_, 1) => &[2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7],
            (_, 2) => &[3, 3, 14, 4, 2],
            _ => &[],
        };
        let ports = [self.ports[from.min(1)], self.ports[1 - from.min(1)]];
        let payload = vec![7; usize::from(len)];
        let packet = hosts
            .packet(from)
            .tcp(ports[0], ports[1], seq, ack, flags)
            .tcp_options(options)
            .payload(&payload);
        let at = packet.l4();
        let mut frame = packet.build();
        set_window(&mut frame, packet.l3(), at, hosts.v6, window);
        // What it said, the other end has heard.
        let counts = u32::from(len) + u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        if let Some(end) = self.ends.get_mut(from) {
            end.next = seq.wrapping_add(counts);
            end.opened |= flags & tcp::SYN != 0 || flags & tcp::ACK != 0;
            end.acked = ack;
            end.opened &= flags & tcp::RST == 0;
        }
        if let Some(last) = self.last.get_mut(from) {
            last.clone_from(&frame);
        }
        let what = format!(
            "tcp {} -> {} flags {flags:02x} seq {seq} ack {ack} len {len} win {window} options {options:02x?}",
            ports[0], ports[1]
        );
        Step { from, what, frame, tcp: Some((self.ports[0], flags)) }
    }
}

/// Writes another window, and the checksum that goes with it.
fn set_window(frame: &mut [u8], l3: usize, l4: usize, v6: bool, window: u16) {
    let Some((head, segment)) = frame.split_at_mut_checked(l4) else { return };
    let (Some(ip), Ok(len)) = (head.get(l3..), u16::try_from(segment.len())) else { return };
    let pseudo = if v6 {
        let (Some(src), Some(dst)) = (ip.get(8..24), ip.get(24..40)) else { return };
        let (Ok(src), Ok(dst)) = (src.try_into(), dst.try_into()) else { return };
        pseudo_header_v6(src, dst, IpProtocol::TCP, len.into())
    } else {
        let (Some(src), Some(dst)) = (ip.get(12..16), ip.get(16..20)) else { return };
        let (Ok(src), Ok(dst)) = (src.try_into(), dst.try_into()) else { return };
        pseudo_header_v4(src, dst, IpProtocol::TCP, len)
    };
    let Some(field) = segment.get_mut(14..18) else { return };
    field.copy_from_slice(&[window.to_be_bytes(), [0, 0]].concat());
    let sum = (pseudo + Sum::of(segment)).checksum();
    if let Some(field) = segment.get_mut(16..18) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// UDP, echo and its answers, and errors about what was sent.
fn other(dice: &mut Dice<'_>, hosts: Hosts, sent: &[Step]) -> Step {
    let from = usize::from(dice.below(2));
    let packet = hosts.packet(from);
    let (what, packet) = match dice.below(8) {
        0..3 => {
            let ports = if from == 0 { (3000, 53) } else { (53, 3000) };
            ("udp".to_owned(), packet.udp(ports.0, ports.1).payload(&[1, 2, 3]))
        }
        3 | 4 => {
            let (ask, answer) = if hosts.v6 { (128, 129) } else { (8, 0) };
            let kind = if dice.chance(4) { answer } else { ask };
            (format!("icmp {kind}"), packet.icmp(kind, 0, 0x0007_0001 + u32::from(dice.below(2))))
        }
        _ => {
            // About one of the last packets, mostly from whom it was sent to.
            let back = usize::from(dice.below(4)) + 1;
            let about = sent.len().checked_sub(back).and_then(|at| sent.get(at));
            let from = about.map_or(from, |about| if dice.chance(7) { 1 - about.from } else { about.from });
            let quoted =
                about.and_then(|about| about.frame.get(14..about.frame.len().min(14 + 60))).unwrap_or(&[]);
            let (kind, code) = match (hosts.v6, dice.below(4)) {
                (false, 0) => (3, 3),
                (false, 1) => (11, 0),
                (false, 2) => (3, 4),
                (false, _) => (12, 0),
                (true, 0) => (1, 4),
                (true, 1) => (3, 0),
                (true, 2) => (2, 0),
                (true, _) => (4, 0),
            };
            let packet = hosts.packet(from).icmp(kind, code, 0).payload(quoted);
            let frame = packet.build();
            return Step {
                from,
                what: format!("error {kind}/{code} about the packet {back} before"),
                frame,
                tcp: about.and_then(|about| about.tcp).map(|(port, _)| (port, 0)),
            };
        }
    };
    Step { from, what, frame: packet.build(), tcp: None }
}

/// All that happens in a case.
fn conversation(case: u16, bytes: &[Vec<u8>]) -> Vec<Step> {
    let mut begin = Dice::new(bytes.first().map_or(&[], Vec::as_slice));
    let hosts = Hosts { case, v6: begin.chance(4) };
    let mut flows = [0, 1, 2, 3].map(|n| Tcp::new(&mut begin, n));
    let mut steps: Vec<Step> = Vec::new();
    for bytes in bytes.iter().skip(1) {
        let mut dice = Dice::new(bytes);
        let step = match flows.get_mut(dice.of(&[0_usize, 0, 1, 1, 2, 3, 4, 4])) {
            Some(flow) => flow.step(&mut dice, hosts),
            None => other(&mut dice, hosts, &steps),
        };
        steps.push(step);
    }
    steps
}

/// The state of the connection that the client has from this port, in the switch.
fn state(fabric: &mut Fabric, port: u16) -> Option<TcpState> {
    let entries = fabric.switch.conntrack().entries(0);
    entries.iter().find(|entry| [entry.original.src_port, entry.original.dst_port].contains(&port))?.tcp
}

/// What is meant to differ, or to leave the two in different states.
fn meant(step: &Step, before: Option<TcpState>, here: &str, there: &str) -> Option<&'static str> {
    let (_, flags) = step.tcp?;
    let ends = tcp::SYN | tcp::FIN | tcp::RST;
    match before {
        Some(TcpState::SynSent) if flags & tcp::RST != 0 && here == "+trk+inv" => {
            Some("refusal without its number")
        }
        Some(TcpState::Close | TcpState::TimeWait)
            if flags == tcp::SYN && here == "+trk+new" && here != there =>
        {
            Some("opened anew")
        }
        _ if flags & ends != 0 && here == "+trk+inv" && here == there => {
            Some("invalid, and remembered by the kernel")
        }
        _ => None,
    }
}

/// # Errors
/// If the two differ, with the smallest case in which they do.
pub fn compare_connections(inside: &Inside, cases: u32) -> Result<Verdict> {
    let mut bridge = Bridge::new(inside, 2)?;
    let port =
        BridgePort { tagged: Vec::new(), pvid: None, learning: false, isolated: false, flooded: [true; 3] };
    bridge.configure(Filtering::Off, 300, &vec![port.clone(); 2])?;
    let mut kernel = Filters::new(vec!["tap0".to_owned(), "tap1".to_owned()])?;
    kernel.replace(&filters())?;
    let plain = settings(&port, Filtering::Off);
    let tracking = PortTracking {
        zone: 1,
        limit: u32::MAX,
        incoming: Incoming::Any,
        drop_invalid: false,
        nat: None,
        one_to_one: None,
    };
    let tracked = PortSettings { tracking: Some(tracking), ..plain.clone() };
    let mut fabric = Fabric::with_policy(&SwitchConfig::default(), vec![tracked, plain], Policy::default())?;
    fabric.switch.change_rules(&rules().collect::<Vec<_>>())?;
    // Flooded packets open no connections to their receivers.
    for port in 0..2_u8 {
        let mac = MacAddr::new(station(port));
        bridge.pin(mac, None, port.into())?;
        fabric.switch.fdb().add_static(Vid::DEFAULT, mac, PortId(port.into()))?;
    }
    let mut number = 0_u16;
    let mut meanings = BTreeMap::new();
    let strategy = proptest::collection::vec(bytes(24), 20..60);
    let verdict = compare(cases, &strategy, |bytes, verdict| {
        number = number.checked_add(1).context("more cases than addresses")?;
        fabric.switch.conntrack().flush(|_| true);
        let steps = conversation(number, &bytes);
        let mut over: Vec<u16> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            if step.tcp.is_some_and(|(port, _)| over.contains(&port)) {
                continue;
            }
            let kernel = bridge.send(step.from, &step.frame)?;
            verdict.count(&kernel);
            let before = step.tcp.and_then(|(port, _)| state(&mut fabric, port));
            let own = fabric.send(step.from, &step.frame)?;
            let (here, there) = (said(&own), said(&kernel));
            if let (Some(why), Some((port, _))) = (meant(step, before, &here, &there), step.tcp) {
                // From here on they know different things of it.
                over.push(port);
                *meanings.entry(why).or_insert(0_u32) += 1;
                continue;
            }
            same(own, kernel, || {
                let mut story = String::new();
                for (n, step) in steps.iter().take(at + 1).enumerate() {
                    write!(story, "\n {n}: from {}: {}", step.from, step.what).ok();
                }
                format!("{story}\n the switch says {here}, the kernel {there}")
            })?;
        }
        Ok(())
    })?;
    println!("connections that were left alone where the two are meant to differ: {meanings:?}");
    Ok(verdict)
}
