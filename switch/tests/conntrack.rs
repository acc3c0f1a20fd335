//! Connection tracking in the switch: against the reference switch on random settings and traffic, and what the reference
//! does not know: translation, windows, several zones on one way, cached flows.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use std::collections::BTreeMap;
use std::time::Duration;

use bench::Bench;
use etherparse::PacketBuilder;
use fabnic_switch::{
    Action, Change, ConnectionEntry, CtAction, CtState, Direction, Domain, Incoming, Match, Nat, NatRange,
    OneToOne, Policy, PortSettings, PortTracking, RuleId, RuleSpec, SwitchConfig, TcpState, TenantQuota,
    Term, Timeout, Way, ZoneSettings,
};
use fabnic_testkit::reference::{self, connections};
use fabnic_wire::checksum::{Verification, verify};
use fabnic_wire::{Fields, IpProtocol};
use proptest::prelude::*;

fn settings(config: &reference::PortConfig) -> PortSettings {
    let tracking = config.tracking.as_ref().map(|it| PortTracking {
        zone: it.zone,
        limit: it.limit as u32,
        incoming: if it.answers_only { Incoming::Answers } else { Incoming::Any },
        drop_invalid: it.drop_invalid,
        ..PortTracking::default()
    });
    PortSettings { tracking, tenant: config.tenant, ..PortSettings::default() }
}

/// Windows do not matter, and all states of TCP are kept as long as one another: what the reference knows.
fn zone_settings() -> ZoneSettings {
    let tcp = Timeout::ALL.iter().filter(|class| class.label().starts_with("tcp"));
    ZoneSettings {
        liberal: true,
        loose: false,
        timeouts: tcp.map(|class| (*class, 115)).collect(),
        ..ZoneSettings::default()
    }
}

struct Pair {
    bench: Bench,
    reference: reference::Switch,
    reasons: BTreeMap<&'static str, u64>,
    now: u32,
    /// The most connections of each tenant.
    limits: [usize; 2],
}

impl Pair {
    fn new(ports: Vec<reference::PortConfig>, limits: [usize; 2]) -> Pair {
        let config = SwitchConfig { ageing: Duration::from_secs(100_000), ..SwitchConfig::default() };
        let quota = |(tenant, limit): (u32, usize)| TenantQuota {
            tenant,
            connections: limit as u32,
            fdb_entries: u32::MAX,
        };
        let quotas = (1..).zip(limits).map(quota).collect();
        let policy = Policy {
            zones: (0..3).map(|zone| (zone, zone_settings())).collect(),
            quotas,
            ..Policy::default()
        };
        Pair {
            bench: Bench::new(&config, ports.iter().map(settings).collect(), policy),
            reference: reference::Switch::new(reference::Config {
                ports,
                ageing: 100_000,
                damping: None,
                rules: Vec::new(),
            }),
            reasons: BTreeMap::new(),
            now: 0,
            limits,
        }
    }

    /// One frame; `bursts`: so many times in one burst.
    fn send(&mut self, port: usize, frame: &[u8], times: usize) {
        let told = self.bench.switch.trace(self.bench.ports[port].id, frame).unwrap();
        let mut expected = vec![Vec::new(); self.bench.ports.len()];
        for time in 0..times {
            let outcome = self.reference.input(port, frame, self.now.into());
            if time == 0 && !matches!(outcome.refused, Some("ct_limit" | "ct_tenant_limit")) {
                let refused = match &told.way {
                    Way::Dropped(reason) => Some(reason.label()),
                    Way::Sent(_) => None,
                };
                assert_eq!(refused, outcome.refused, "a trace tells what happens: {told:#?}");
            }
            for reason in outcome.reasons() {
                *self.reasons.entry(reason).or_default() += 1;
            }
            for (to, bytes) in outcome.delivered {
                expected[to].push(bytes);
            }
        }
        self.bench.send(port, &vec![frame.to_vec(); times]);
        for (to, expected) in expected.into_iter().enumerate() {
            assert_eq!(self.bench.take(to), expected, "from {port} to {to}: {frame:02x?} ({told:#?})");
        }
        assert_eq!(self.bench.reasons(), self.reasons, "{frame:02x?} from {port}: {told:#?}");
        self.check();
        assert!(self.bench.switch.totals().balance());
    }

    fn check(&mut self) {
        let expected = self.reference.connections(self.now.into()).all().iter().map(|known| {
            let ports = |end: ([u8; 4], u16)| (end.0, end.1);
            let state = if known.answered { "est" } else { "new" };
            let tcp = known.tcp.to_owned();
            (
                known.zone,
                known.owner,
                known.protocol,
                ports(known.asker),
                ports(known.asked),
                state,
                tcp,
                known.packets,
            )
        });
        let mut expected: Vec<_> = expected.collect();
        let entries = self.bench.switch.conntrack().entries(self.now);
        let mut found: Vec<_> = entries.iter().filter(|entry| entry.expires > 0).map(known).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }

    fn wait(&mut self, seconds: u32) {
        self.now += seconds;
        self.bench.switch.tick(self.now);
        self.check();
    }

    /// Every other port is the first tenant's, the others are the second's.
    fn of_tenant(
        &self,
        port: usize,
        tracking: Option<connections::Tracking>,
    ) -> Option<connections::Tracking> {
        let tenant = (port % 2) as u32 + 1;
        tracking.map(|it| connections::Tracking { tenant: Some((tenant, self.limits[port % 2])), ..it })
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Send { port, frame, times } => self.send(port % self.bench.ports.len(), &frame, times),
            Step::Wait(times) => self.wait(times * 50),
            Step::Configure { port, tracking } => {
                let mut all = self.reference.config().clone();
                let port = port % all.ports.len();
                all.ports[port].tracking = self.of_tenant(port, tracking);
                self.bench.configure(all.ports.iter().map(settings).collect());
                self.reference.configure(all);
            }
            Step::Restart => {
                let limits: Vec<_> =
                    self.reference.config().ports.iter().map(|port| port.tracking.clone()).collect();
                let entries = self.bench.switch.conntrack().entries(self.now);
                let used = |port: usize| entries.iter().filter(|entry| entry.port.0 as usize == port).count();
                let fits = |(port, it): (usize, &Option<connections::Tracking>)| {
                    it.as_ref().is_none_or(|it| used(port) <= it.limit)
                };
                let of_tenant = |tenant: usize| {
                    (0..limits.len()).filter(|port| port % 2 == tenant).map(used).sum::<usize>()
                };
                // A limit that was lowered meanwhile costs a restart what is over it.
                if limits.iter().enumerate().all(fits) && (0..2).all(|it| of_tenant(it) <= self.limits[it]) {
                    self.bench.restart(|_| ());
                    self.check();
                }
            }
        }
    }
}

type Known = (u16, usize, u8, ([u8; 4], u16), ([u8; 4], u16), &'static str, String, [u64; 2]);

/// As the reference knows it.
fn known(entry: &ConnectionEntry) -> Known {
    let four = |address: &[u8; 16]| *address.first_chunk().unwrap();
    let tuple = &entry.original;
    let asked = match tuple.protocol {
        IpProtocol::ICMP => tuple.src_port,
        _ => tuple.dst_port,
    };
    let tcp = match entry.tcp {
        None => "",
        Some(TcpState::SynSent) => "SS",
        Some(TcpState::SynSent2) => "S2",
        Some(TcpState::SynRecv) => "SR",
        Some(TcpState::Established) => "ES",
        Some(TcpState::FinWait) => "FW",
        Some(TcpState::CloseWait) => "CW",
        Some(TcpState::LastAck) => "LA",
        Some(TcpState::TimeWait) => "TW",
        Some(TcpState::Close) => "CL",
    };
    let state = if entry.state.to_string().contains("est") { "est" } else { "new" };
    (
        entry.zone,
        entry.port.0 as usize,
        tuple.protocol.0,
        (four(&tuple.src), tuple.src_port),
        (four(&tuple.dst), asked),
        state,
        tcp.to_owned(),
        entry.packets,
    )
}

#[derive(Clone, Debug)]
enum Step {
    Send { port: usize, frame: Vec<u8>, times: usize },
    Wait(u32),
    Configure { port: usize, tracking: Option<connections::Tracking> },
    Restart,
}

fn tracking() -> impl Strategy<Value = Option<connections::Tracking>> {
    let limit = prop_oneof![4 => Just(1000_usize), 1 => 0..3_usize];
    let tracking = (0..3_u16, limit, prop::bool::weighted(0.3), prop::bool::weighted(0.7)).prop_map(
        |(zone, limit, answers_only, drop_invalid)| connections::Tracking {
            zone,
            limit,
            tenant: None,
            answers_only,
            drop_invalid,
            nat: None,
        },
    );
    prop::option::weighted(0.8, tracking)
}

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn host(n: u8) -> [u8; 4] {
    [10, 0, 0, n]
}

fn ethernet(from: u8, to: [u8; 6]) -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(station(from), to)
}

fn udp(from: u8, to: u8, ports: (u16, u16), mac: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet(from, mac).ipv4(host(from), host(to), 64).udp(ports.0, ports.1);
    builder.write(&mut frame, b"payload").unwrap();
    frame
}

fn tcp(from: u8, to: u8, ports: (u16, u16), flags: &str, mac: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::new();
    // An acknowledgment that never is that of a SYN.
    let mut header = etherparse::TcpHeader::new(ports.0, ports.1, 1000, 1000);
    header.syn = flags.contains('S');
    header.fin = flags.contains('F');
    header.ack = flags.contains('A');
    header.acknowledgment_number = u32::from(header.ack) * 77;
    ethernet(from, mac).ipv4(host(from), host(to), 64).tcp_header(header).write(&mut frame, &[]).unwrap();
    frame
}

fn echo(from: u8, to: u8, request: bool, id: u16, mac: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet(from, mac).ipv4(host(from), host(to), 64);
    let done = if request { builder.icmpv4_echo_request(id, 1) } else { builder.icmpv4_echo_reply(id, 1) };
    done.write(&mut frame, b"ping").unwrap();
    frame
}

/// An error to who sent a frame, about it.
fn error_about(frame: &[u8], from: u8, to: u8, mac: [u8; 6]) -> Vec<u8> {
    let mut error = Vec::new();
    let builder = ethernet(from, mac).ipv4(host(from), host(to), 64).icmpv4_raw(3, 1, [0; 4]);
    builder.write(&mut error, &frame[14..42]).unwrap();
    error
}

fn other(from: u8, to: u8, protocol: u8, mac: [u8; 6]) -> Vec<u8> {
    let mut frame = udp(from, to, (1, 2), mac);
    frame[23] = protocol;
    frame
}

/// Each station has a host, and stays behind its port.
fn step() -> impl Strategy<Value = Step> {
    let mac =
        |to: u8| prop_oneof![20 => Just(station(to)), 1 => Just([0xff; 6]), 1 => Just([1, 0, 0x5e, 0, 0, 5])];
    let flags = prop_oneof![
        3 => Just("S"), 3 => Just("SA"), 4 => Just("A"), 2 => Just("FA"), 1 => Just("SFA")
    ];
    let pair = (0..4_u8, 0..4_u8).prop_flat_map(move |(from, to)| (Just(from), Just(to), mac(to)));
    let frame = (pair, 0..8_u8, any::<bool>(), 0..2_u16, flags).prop_map(
        |((from, to, mac), kind, back, port, flags)| {
            let ports = if back { (80, 1000 + port) } else { (1000 + port, 80) };
            let frame = match kind {
                0 | 1 => udp(from, to, ports, mac),
                2..=4 => tcp(from, to, ports, flags, mac),
                5 => echo(from, to, !back, port, mac),
                6 => error_about(&udp(to, from, ports, mac), from, to, mac),
                _ => other(from, to, [2, 47, 1][usize::from(port) + usize::from(back)], mac),
            };
            (from, frame)
        },
    );
    prop_oneof![
        30 => (frame, prop_oneof![3 => Just(1_usize), 1 => 2..4_usize])
            .prop_map(|((from, frame), times)| Step::Send { port: from.into(), frame, times }),
        2 => (1..4_u32).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => (0..4_usize, tracking()).prop_map(|(port, tracking)| Step::Configure { port, tracking }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn is_the_reference_switch(
        ports in prop::collection::vec(tracking(), 4),
        learned in any::<bool>(),
        limits in prop_oneof![2 => Just([1000, 1000]), 1 => (0..5_usize, 0..5_usize).prop_map(<[usize; 2]>::from)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let port = |(index, tracking): (usize, Option<connections::Tracking>)| reference::PortConfig {
            tenant: Some((index % 2) as u32 + 1),
            tracking: tracking.map(|it| connections::Tracking {
                tenant: Some(((index % 2) as u32 + 1, limits[index % 2])),
                ..it
            }),
            ..reference::PortConfig::default()
        };
        let mut pair = Pair::new(ports.into_iter().enumerate().map(port).collect(), limits);
        if learned {
            for from in 0..4 {
                let mut frame = udp(from, from, (1, 1), [0xff; 6]);
                frame[12..14].copy_from_slice(&[8, 6]);
                pair.send(from.into(), &frame, 1);
            }
        }
        steps.into_iter().for_each(|step| pair.apply(step));
    }
}

fn range(first: [u8; 4], last: [u8; 4], ports: Option<core::ops::RangeInclusive<u16>>) -> NatRange {
    NatRange { first: first.into(), last: last.into(), ports }
}

/// Ports with this tracking, each with the station of its number behind it, known.
fn bench(tracking: Vec<Option<PortTracking>>, zones: Vec<(u16, ZoneSettings)>) -> Bench {
    let count = tracking.len();
    let ports = tracking.into_iter().map(|tracking| PortSettings { tracking, ..PortSettings::default() });
    let policy = Policy { zones, ..Policy::default() };
    let mut bench = Bench::new(&SwitchConfig::default(), ports.collect(), policy);
    for port in 0..count {
        let mut hello = udp(port as u8, port as u8, (1, 1), [0xff; 6]);
        hello[12..14].copy_from_slice(&[8, 6]);
        bench.send(port, &[hello]);
    }
    (0..count).for_each(|port| drop(bench.take(port)));
    bench
}

fn in_zone(zone: u16) -> Option<PortTracking> {
    Some(PortTracking { zone, ..PortTracking::default() })
}

fn ends(frame: &[u8]) -> ([u8; 4], [u8; 4], u16, u16) {
    let flow = Fields::of(frame).unwrap().flow;
    (*flow.src.first_chunk().unwrap(), *flow.dst.first_chunk().unwrap(), flow.src_port, flow.dst_port)
}

/// One frame from a port, and the one that another gets.
fn through(bench: &mut Bench, from: usize, frame: &[u8], to: usize) -> Option<Vec<u8>> {
    bench.send(from, &[frame.to_vec()]);
    let mut got = bench.take(to);
    assert!(got.len() <= 1);
    got.pop()
}

#[test]
fn what_a_port_opens_is_translated_and_its_answers_back() {
    let nat =
        Nat { source: Some(range([192, 0, 2, 1], [192, 0, 2, 1], Some(7000..=7001))), destination: None };
    let tracked = PortTracking { incoming: Incoming::Answers, nat: Some(nat), ..PortTracking::default() };
    let mut bench = bench(vec![Some(tracked), None], Vec::new());
    for round in 0..3 {
        let out = through(&mut bench, 0, &udp(0, 1, (5000, 53), station(1)), 1).unwrap();
        let (src, dst, port, to) = ends(&out);
        assert_eq!((src, dst, to), ([192, 0, 2, 1], host(1), 53));
        assert!((7000..=7001).contains(&port), "round {round}");
        assert_eq!(verify(&out), Verification::Good);
        let mut answer = udp(1, 0, (53, port), station(0));
        answer[30..34].copy_from_slice(&[192, 0, 2, 1]);
        answer[40..42].fill(0);
        answer[24..26].fill(0);
        let sum = fabnic_wire::checksum::Sum::of(&answer[14..34]).checksum();
        answer[24..26].copy_from_slice(&sum.to_be_bytes());
        let back = through(&mut bench, 1, &answer, 0).unwrap();
        assert_eq!(ends(&back), (host(1), host(0), 53, 5000));
        assert!(fabnic_wire::checksum::ipv4_header_is_valid(&back[14..34]));
        // What was not asked for, and what goes round the translation.
        assert_eq!(through(&mut bench, 1, &udp(1, 0, (53, 5000), station(0)), 0), None);
        assert_eq!(through(&mut bench, 1, &udp(1, 0, (54, port), station(0)), 0), None);
    }
    assert_eq!(bench.reasons().get("ct_unsolicited"), Some(&6));
    // The range has two ports.
    assert!(through(&mut bench, 0, &udp(0, 1, (5001, 53), station(1)), 1).is_some());
    assert_eq!(through(&mut bench, 0, &udp(0, 1, (5002, 53), station(1)), 1), None);
    assert_eq!(bench.reasons().get("nat_exhausted"), Some(&1));
    assert!(bench.switch.totals().balance());
}

#[test]
fn a_flow_that_is_cached_still_has_its_windows_checked() {
    let mut bench = bench(vec![in_zone(1), in_zone(1)], Vec::new());
    let segment = |from: u8, flags: &str, seq: u32, ack: u32, len: usize| {
        let ports = if from == 0 { (40_000, 80) } else { (80, 40_000) };
        let mut header = etherparse::TcpHeader::new(ports.0, ports.1, seq, 1000);
        header.syn = flags.contains('S');
        header.rst = flags.contains('R');
        header.ack = flags.contains('A');
        header.acknowledgment_number = ack;
        let mut frame = Vec::new();
        let to = 1 - from;
        let builder = ethernet(from, station(to)).ipv4(host(from), host(to), 64).tcp_header(header);
        builder.write(&mut frame, &vec![0; len]).unwrap();
        frame
    };
    assert!(through(&mut bench, 0, &segment(0, "S", 100, 0, 0), 1).is_some());
    assert!(through(&mut bench, 1, &segment(1, "SA", 500, 101, 0), 0).is_some());
    assert!(through(&mut bench, 0, &segment(0, "A", 101, 501, 0), 1).is_some());
    assert!(through(&mut bench, 1, &segment(1, "A", 501, 101, 0), 0).is_some());
    // One burst of one flow: the wrong ones are taken out of the middle, the others stay in order.
    let burst: Vec<_> = [
        segment(0, "A", 101, 501, 100),
        segment(0, "A", 5000, 501, 100),
        segment(0, "A", 201, 501, 100),
        segment(0, "A", 301, 9999, 0),
        segment(0, "R", 77, 0, 0),
        segment(0, "A", 301, 501, 100),
    ]
    .into();
    bench.send(0, &burst);
    assert_eq!(bench.take(1), [&burst[0], &burst[2], &burst[5]].map(Vec::clone));
    assert_eq!(bench.reasons().get("ct_invalid"), Some(&3));
    let entry = bench.switch.conntrack().entries(0).pop().unwrap();
    assert_eq!((entry.tcp, entry.packets), (Some(TcpState::Established), [5, 2]));
    assert_eq!(bench.switch.conntrack().zone(1).counters().invalid, 6, "seen on the flow, and by itself");
    // Closed and opened again within a burst.
    let burst = [segment(0, "R", 401, 0, 0), segment(0, "S", 70_000, 0, 0)];
    bench.send(0, &burst);
    assert_eq!(bench.take(1), burst);
    let entry = bench.switch.conntrack().entries(0).pop().unwrap();
    assert_eq!((entry.tcp, entry.packets), (Some(TcpState::SynSent), [1, 0]));
    assert!(bench.switch.totals().balance());
}

#[test]
fn a_frame_between_two_zones_is_a_connection_of_both() {
    let answers = |zone| Some(PortTracking { zone, incoming: Incoming::Answers, ..PortTracking::default() });
    let nat = Nat { source: Some(range([192, 0, 2, 1], [192, 0, 2, 1], None)), destination: None };
    let first =
        PortTracking { zone: 1, nat: Some(nat), incoming: Incoming::Answers, ..PortTracking::default() };
    let mut bench = bench(vec![Some(first), in_zone(2), answers(3)], Vec::new());
    let out = through(&mut bench, 0, &udp(0, 1, (5000, 53), station(1)), 1).unwrap();
    assert_eq!(ends(&out), ([192, 0, 2, 1], host(1), 5000, 53));
    let mut entries = bench.switch.conntrack().entries(0);
    entries.sort_by_key(|entry| entry.zone);
    let of: Vec<_> = entries.iter().map(|e| (e.zone, e.port.0, e.original.src[0], e.packets)).collect();
    assert_eq!(of, [(1, 0, 10, [1, 0]), (2, 1, 192, [1, 0])]);
    let mut answer = udp(1, 0, (53, 5000), station(0));
    answer[30..34].copy_from_slice(&[192, 0, 2, 1]);
    for _ in 0..3 {
        let back = through(&mut bench, 1, &answer, 0).unwrap();
        assert_eq!(ends(&back), (host(1), host(0), 53, 5000));
    }
    let packets: Vec<_> = bench.switch.conntrack().entries(0).iter().map(|e| e.packets).collect();
    assert_eq!(packets, [[1, 3], [1, 3]]);
    // The third port takes answers only, and asked nothing; the attempt leaves a connection that nobody answers.
    assert_eq!(through(&mut bench, 0, &udp(0, 2, (5000, 53), station(2)), 2), None);
    assert_eq!(bench.reasons(), [("ct_unsolicited", 1)].into());
    bench.switch.tick(200);
    assert!(bench.switch.conntrack().is_empty(), "forgotten by the switch's own tick");
}

#[test]
fn a_port_that_is_removed_leaves_no_connection() {
    let mut bench = bench(vec![in_zone(1), None], Vec::new());
    through(&mut bench, 0, &udp(0, 1, (5000, 53), station(1)), 1).unwrap();
    assert_eq!(bench.switch.conntrack().len(), 1);
    let rest = vec![(bench.ports[1].clone(), PortSettings::default())];
    bench.switch.set_ports(rest);
    assert!(bench.switch.conntrack().is_empty());
}

#[test]
fn a_tagged_frame_is_tracked_like_any_other() {
    use fabnic_switch::VlanMode;
    let vid = |n: u16| fabnic_wire::Vid::new(n).unwrap();
    let trunk = VlanMode::Trunk { vlans: [vid(1)].into_iter().collect(), native: None };
    let tracking = Some(PortTracking { incoming: Incoming::Answers, ..PortTracking::default() });
    let ports = vec![
        PortSettings { tracking, ..PortSettings::default() },
        PortSettings { vlan: trunk, ..PortSettings::default() },
    ];
    let mut bench = Bench::new(&SwitchConfig::default(), ports, Policy::default());
    let tag = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 1], &frame[12..]].concat();
    let (ask, answer) = (udp(0, 1, (5000, 53), station(1)), udp(1, 0, (53, 5000), station(0)));
    assert_eq!(through(&mut bench, 0, &ask, 1), Some(tag(&ask)));
    for _ in 0..3 {
        assert_eq!(through(&mut bench, 1, &tag(&answer), 0), Some(answer.clone()));
    }
    assert_eq!(through(&mut bench, 1, &tag(&udp(1, 0, (54, 5000), station(0))), 0), None);
    assert_eq!(bench.switch.conntrack().entries(0)[0].packets, [1, 3]);
}

/// What a security group is made of: rules of direction out by state, in the receiver's zone.
#[test]
fn rules_ask_for_states() {
    let rule = |id: u64, terms: Vec<Term>, action: Action| {
        Change::Add(RuleSpec {
            id: RuleId(id),
            domain: Domain::Infrastructure,
            direction: Direction::Out,
            group: 0,
            priority: id as u32,
            name: format!("rule {id}"),
            matches: vec![Match::new(terms)],
            actions: vec![action],
        })
    };
    let state = |bits| Term::CtState { value: bits, mask: bits };
    let to_vm = || Term::Egress(fabnic_port::PortId(1));
    // The sender is not tracked: the state is that of the receiver's zone.
    let mut bench = bench(vec![None, in_zone(5)], Vec::new());
    let changes = [
        rule(1, vec![to_vm(), Term::CtZone(5), state(CtState::ESTABLISHED)], Action::Pass),
        rule(2, vec![to_vm(), state(CtState::RELATED)], Action::Pass),
        rule(3, vec![to_vm(), state(CtState::NEW), Term::DstPort { min: 80, max: 80 }], Action::Pass),
        rule(4, vec![to_vm(), state(CtState::TRACKED)], Action::Drop),
    ];
    bench.switch.change_rules(&changes).unwrap();
    let (to_web, to_ssh) = (udp(0, 1, (1000, 80), station(1)), udp(0, 1, (1000, 22), station(1)));
    for _ in 0..3 {
        assert!(through(&mut bench, 0, &to_web, 1).is_some());
        assert!(through(&mut bench, 0, &to_ssh, 1).is_none());
    }
    assert_eq!(bench.switch.conntrack().len(), 1, "what a rule drops makes no connection");
    // The guest asks by itself: answers, and errors about what it asked, come in.
    let ask = udp(1, 0, (22, 1000), station(0));
    assert!(through(&mut bench, 1, &ask, 0).is_some());
    for _ in 0..3 {
        assert!(through(&mut bench, 0, &to_ssh, 1).is_some(), "it is an answer now");
    }
    assert!(through(&mut bench, 0, &error_about(&ask, 0, 1, station(1)), 1).is_some());
    assert!(
        through(&mut bench, 0, &error_about(&udp(1, 0, (23, 1), station(0)), 0, 1, station(1)), 1).is_none()
    );
    // Forgotten, it is none any more.
    bench.switch.conntrack().flush(|entry| entry.original.src_port == 22);
    assert!(through(&mut bench, 0, &to_ssh, 1).is_none());
    // Copies of flooded frames are asked about, too.
    let flooded = |ports| udp(0, 1, ports, station(9));
    assert!(through(&mut bench, 0, &flooded((1000, 22)), 1).is_none());
    assert!(through(&mut bench, 0, &flooded((1000, 80)), 1).is_some());
    // A rule that changes is asked at once.
    bench.switch.change_rules(&[rule(0, vec![to_vm(), state(CtState::NEW)], Action::Drop)]).unwrap();
    assert!(through(&mut bench, 0, &to_web, 1).is_none(), "nobody has answered that one");
    assert!(bench.switch.totals().balance());
}

/// What `ct` does: a zone of the rule's choice, a connection that is made because the rule says so, translated and marked.
#[test]
fn rules_commit_translate_and_mark() {
    let port = |n| Term::Ingress(fabnic_port::PortId(n));
    let rule = |id: u64, group: u8, terms: Vec<Term>, actions: Vec<Action>| {
        Change::Put(RuleSpec {
            id: RuleId(id),
            domain: Domain::Infrastructure,
            direction: Direction::In,
            group,
            priority: id as u32,
            name: format!("rule {id}"),
            matches: vec![Match::new(terms)],
            actions,
        })
    };
    let nat = Nat { source: Some(range([192, 0, 2, 1], [192, 0, 2, 1], None)), destination: None };
    let ask = |mark| {
        let ct = CtAction { zone: Some(7), commit: true, mark, nat: Some(nat.clone()) };
        rule(1, 0, vec![port(0), Term::DstPort { min: 53, max: 53 }], vec![Action::Ct(ct), Action::Pass])
    };
    let look = CtAction { zone: Some(7), ..CtAction::default() };
    let est = Term::CtState { value: CtState::ESTABLISHED, mask: CtState::ESTABLISHED };
    let marked = Term::CtMark { value: 5, mask: 0xff };
    let mut bench = bench(vec![None, None], Vec::new());
    let changes = [
        ask(Some(5)),
        rule(2, 0, vec![port(1)], vec![Action::Ct(look), Action::Goto(1)]),
        rule(3, 1, vec![est, marked, Term::CtZone(7)], vec![Action::Pass]),
        rule(4, 1, vec![Term::CtZone(7)], vec![Action::Drop]),
    ];
    bench.switch.change_rules(&changes).unwrap();
    let query = udp(0, 1, (5000, 53), station(1));
    let told = bench.switch.trace(bench.ports[0].id, &query).unwrap();
    assert!(matches!(told.way, Way::Sent(_)) && bench.switch.conntrack().is_empty(), "only a trace");
    let mut answer = udp(1, 0, (53, 5000), station(0));
    answer[30..34].copy_from_slice(&[192, 0, 2, 1]);
    assert_eq!(through(&mut bench, 1, &answer, 0), None, "nobody asked");
    for round in 0..3 {
        let out = through(&mut bench, 0, &query, 1).unwrap();
        assert_eq!(ends(&out), ([192, 0, 2, 1], host(1), 5000, 53), "round {round}");
        assert_eq!(verify(&out), Verification::Good);
        let back = through(&mut bench, 1, &answer, 0).unwrap();
        assert_eq!(ends(&back), (host(1), host(0), 53, 5000), "round {round}");
    }
    assert_eq!(through(&mut bench, 1, &udp(1, 0, (54, 5000), station(0)), 0), None);
    // Of what no rule says anything there is no connection, and what is only looked up makes none.
    assert_eq!(
        through(&mut bench, 0, &udp(0, 1, (5000, 54), station(1)), 1).map(|out| ends(&out).0),
        Some(host(0))
    );
    let known: Vec<_> = bench.switch.conntrack().entries(0).iter().map(known_by).collect();
    assert_eq!(known, [(7, fabnic_port::PortId(0), 5, [3, 3])]);
    // A rule that changes marks what is there with its next packet, and who asks for the mark hears of it at once.
    bench.switch.change_rules(&[ask(Some(6))]).unwrap();
    assert!(through(&mut bench, 1, &answer, 0).is_some(), "the mark is still the old one");
    assert!(through(&mut bench, 0, &query, 1).is_some());
    assert_eq!(bench.switch.conntrack().entries(0)[0].mark, 6);
    assert_eq!(through(&mut bench, 1, &answer, 0), None);
    bench.switch.change_rules(&[ask(None)]).unwrap();
    assert!(through(&mut bench, 0, &query, 1).is_some());
    assert_eq!(bench.switch.conntrack().entries(0)[0].mark, 6, "a rule that says nothing leaves it");
    let mut out = ask(None);
    if let Change::Put(spec) = &mut out {
        (spec.direction, spec.id) = (Direction::Out, RuleId(9));
        spec.matches = vec![Match::default()];
    }
    let refused = bench.switch.change_rules(&[out]).unwrap_err();
    assert_eq!(refused.source, fabnic_switch::RuleError::CtInDirectionOut);
    assert!(bench.switch.totals().balance());
}

fn known_by(entry: &ConnectionEntry) -> (u16, fabnic_port::PortId, u32, [u64; 2]) {
    (entry.zone, entry.port, entry.mark, entry.packets)
}

/// A port that is tracked in its own zone: a rule marks and translates what is made there anyway.
#[test]
fn rules_add_to_what_a_port_tracks() {
    let to = |n| range([10, 0, 0, n], [10, 0, 0, n], Some(8080..=8080));
    let nat = Nat { source: None, destination: Some(to(2)) };
    let ct = CtAction { zone: None, commit: true, mark: Some(9), nat: Some(nat) };
    let spec = RuleSpec {
        id: RuleId(1),
        domain: Domain::Infrastructure,
        direction: Direction::In,
        group: 0,
        priority: 1,
        name: "to the server".to_owned(),
        matches: vec![Match::new([Term::DstPort { min: 80, max: 80 }])],
        actions: vec![Action::Ct(ct), Action::Pass],
    };
    let mut bench = bench(vec![in_zone(3), in_zone(3)], Vec::new());
    bench.switch.change_rules(&[Change::Add(spec)]).unwrap();
    let out = through(&mut bench, 0, &udp(0, 1, (5000, 80), station(1)), 1).unwrap();
    assert_eq!(ends(&out), (host(0), [10, 0, 0, 2], 5000, 8080));
    let other = through(&mut bench, 0, &udp(0, 1, (5000, 81), station(1)), 1).unwrap();
    assert_eq!(ends(&other).3, 81);
    let mut marks: Vec<_> = bench.switch.conntrack().entries(0).iter().map(|e| (e.zone, e.mark)).collect();
    marks.sort_unstable();
    assert_eq!(marks, [(3, 0), (3, 9)]);
}

#[test]
fn ports_of_a_tenant_share_its_connections() {
    let tracked = |limit| Some(PortTracking { zone: 4, limit, ..PortTracking::default() });
    let of = |tenant, limit| PortSettings { tenant, tracking: tracked(limit), ..PortSettings::default() };
    let ports = vec![of(Some(1), 3), of(Some(1), 9), of(Some(2), 9), PortSettings::default()];
    let quota = |tenant, connections| TenantQuota { tenant, connections, fdb_entries: 100 };
    let policy = Policy { quotas: vec![quota(1, 5), quota(2, 2)], ..Policy::default() };
    let mut bench = Bench::new(&SwitchConfig::default(), ports.clone(), policy);
    bench.send(3, &[udp(3, 0, (1, 1), station(9))]);
    (0..3).for_each(|port| drop(bench.take(port)));
    let opened = |bench: &mut Bench, from: u8, count: u16| {
        let frames = (0..count).map(|n| udp(from, 3, (2000 + n, 53), station(3)));
        bench.send(from.into(), &frames.collect::<Vec<_>>());
        bench.take(3).len()
    };
    assert_eq!(opened(&mut bench, 0, 4), 3, "its own limit");
    assert_eq!(opened(&mut bench, 1, 4), 2, "its tenant's");
    assert_eq!(opened(&mut bench, 2, 1), 1, "the other tenant has nothing to do with it");
    assert_eq!(bench.reasons(), [("ct_limit", 1), ("ct_tenant_limit", 2)].into());
    let tenant = bench.switch.conntrack().tenant(1);
    assert_eq!((tenant.used(), tenant.refused()), (5, 2));
    // What ends makes room, of both.
    bench.switch.conntrack().flush(|entry| entry.original.src_port == 2000 && entry.port.0 == 0);
    assert_eq!((tenant.used(), bench.switch.conntrack().port(fabnic_port::PortId(0)).used()), (4, 2));
    // A port that becomes another tenant's leaves its connections behind.
    let mut changed = ports;
    changed[0].tenant = Some(2);
    bench.configure(changed);
    let other = bench.switch.conntrack().tenant(2);
    assert_eq!((tenant.used(), other.used()), (2, 1));
    assert_eq!(opened(&mut bench, 0, 3), 1);
    assert_eq!((tenant.used(), other.used(), bench.switch.conntrack().len()), (2, 2, 4));
    bench.switch.conntrack().flush(|_| true);
    assert_eq!((tenant.used(), other.used()), (0, 0));
}

/// A port's private address is a public one to everybody else, whoever asks first, and to its neighbours in the zone.
#[test]
fn one_address_stands_for_another_both_ways() {
    let own = OneToOne { inside: host(0).into(), outside: [192, 0, 2, 7].into() };
    let mapped = Some(PortTracking { zone: 1, one_to_one: Some(own), ..PortTracking::default() });
    for neighbour in [None, in_zone(1), in_zone(2)] {
        let mut bench = bench(vec![mapped.clone(), neighbour], Vec::new());
        let out = through(&mut bench, 0, &udp(0, 1, (5000, 53), station(1)), 1).unwrap();
        assert_eq!(ends(&out), ([192, 0, 2, 7], host(1), 5000, 53));
        assert_eq!(verify(&out), Verification::Good);
        let to_outside = |ports: (u16, u16)| {
            let mut frame = Vec::new();
            let builder = ethernet(1, station(0)).ipv4(host(1), [192, 0, 2, 7], 64).udp(ports.0, ports.1);
            builder.write(&mut frame, b"hello").unwrap();
            frame
        };
        // The answer, and a question of its own.
        let back = through(&mut bench, 1, &to_outside((53, 5000)), 0).unwrap();
        assert_eq!(ends(&back), (host(1), host(0), 53, 5000));
        let asked = through(&mut bench, 1, &to_outside((1234, 22)), 0).unwrap();
        assert_eq!(ends(&asked), (host(1), host(0), 1234, 22));
        let answered = through(&mut bench, 0, &udp(0, 1, (22, 1234), station(1)), 1).unwrap();
        assert_eq!(ends(&answered), ([192, 0, 2, 7], host(1), 22, 1234));
        assert_eq!(verify(&answered), Verification::Good);
        // What is not of the address stays as it is.
        let other = through(&mut bench, 0, &udp(3, 1, (5000, 53), station(1)), 1).unwrap();
        assert_eq!(ends(&other), (host(3), host(1), 5000, 53));
    }
}

/// What a rule sends to another port than it was to go to is judged by that port's connections.
#[test]
fn a_port_that_takes_answers_only_does_so_behind_a_rule_that_redirects() {
    let answers = |zone| Some(PortTracking { zone, incoming: Incoming::Answers, ..PortTracking::default() });
    let mut bench = bench(vec![None, None, answers(2)], Vec::new());
    let rule = |actions| RuleSpec {
        id: RuleId(1),
        domain: Domain::Infrastructure,
        direction: Direction::Out,
        group: 0,
        priority: 1,
        name: "r".to_owned(),
        matches: vec![Match::new([Term::Egress(fabnic_port::PortId(1))])],
        actions,
    };
    let redirect = rule(vec![Action::Redirect(fabnic_port::PortId(2))]);
    bench.switch.change_rules(&[Change::Put(redirect)]).unwrap();
    assert_eq!(through(&mut bench, 0, &udp(0, 1, (5000, 53), station(1)), 2), None);
    assert_eq!(bench.reasons().get("ct_unsolicited"), Some(&1));
    // What the port has asked for comes.
    assert!(through(&mut bench, 2, &udp(1, 0, (53, 5000), station(0)), 0).is_some());
    assert!(through(&mut bench, 0, &udp(0, 1, (5000, 53), station(1)), 2).is_some());
}
