//! What rules do with connections and meters, against the reference switch: random rules that commit, mark and translate,
//! that ask for what a packet is and how its connection is marked, that police and charge meters with others over them, on
//! random ports in zones; random conversations, time, changes of rules in between.
//!
//! What each port receives, byte for byte, the reasons of all drops, what rules counted, and every connection with its state,
//! mark and translation must be the same. Frames of which the reference does not know which port the translation takes are
//! sent to neither.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use std::collections::BTreeMap;
use std::time::Duration;

use bench::Bench;
use etherparse::PacketBuilder;
use fabnic_port::PortId;
use fabnic_switch::{
    Action, Algorithm, Change, ColorAction, ColorAware, ConnectionEntry, CtAction, CtState, Direction,
    Domain, Incoming, Match, MeterSettings, NamedMeter, Nat, NatRange, OneToOne, Policy, PortSettings,
    PortTracking, RuleId, RuleSpec, Set, SwitchConfig, Term, Timeout, Unit, ZoneSettings,
};
use fabnic_testkit::reference::{self, connections, meters, rules as model};
use fabnic_wire::IpProtocol;
use model::{Field, Key};
use proptest::prelude::*;

const PORTS: usize = 4;

fn address(nat: [u8; 4]) -> NatRange {
    NatRange { first: nat.into(), last: nat.into(), ports: None }
}

fn settings(config: &reference::PortConfig) -> PortSettings {
    let tracking = config.tracking.as_ref().map(|it| PortTracking {
        zone: it.zone,
        limit: u32::try_from(it.limit).unwrap_or(u32::MAX),
        incoming: if it.answers_only { Incoming::Answers } else { Incoming::Any },
        drop_invalid: it.drop_invalid,
        nat: None,
        one_to_one: it
            .nat
            .map(|(inside, outside)| OneToOne { inside: inside.into(), outside: outside.into() }),
    });
    PortSettings { tracking, tenant: config.tenant, ..PortSettings::default() }
}

fn meter(meter: &meters::Meter) -> MeterSettings {
    MeterSettings {
        unit: if meter.packets { Unit::Packets } else { Unit::Bits },
        algorithm: match meter.kind {
            meters::Kind::Single(cir, cbs, ebs) => Algorithm::SingleRate { cir, cbs, ebs },
            meters::Kind::Two(cir, cbs, pir, pbs) => Algorithm::TwoRate { cir, cbs, pir, pbs },
            meters::Kind::Efficient(cir, cbs, eir, ebs) => Algorithm::TwoRateEfficient { cir, cbs, eir, ebs },
        },
        color_aware: match meter.aware {
            meters::Aware::No => ColorAware::No,
            meters::Aware::Meters => ColorAware::Meters,
            meters::Aware::Dscp => ColorAware::Dscp,
        },
        overhead: 0,
        yellow: match meter.yellow {
            meters::Yellow::Pass => ColorAction::Pass,
            meters::Yellow::Dscp(dscp) => ColorAction::SetDscp(dscp),
            meters::Yellow::Drop => ColorAction::Drop,
        },
        red: ColorAction::Drop,
    }
}

fn term(key: &Key) -> Term {
    let (min, max) = (key.min, key.max);
    let four = |value: u128| (value as u32).to_be_bytes();
    match key.field {
        Field::Ingress => Term::Ingress(PortId(min as u32)),
        Field::Egress => Term::Egress(PortId(min as u32)),
        Field::Mark => Term::Mark { value: min as u32, mask: key.mask as u32 },
        Field::Protocol => Term::Protocol(IpProtocol(min as u8)),
        Field::Src4 => Term::SrcIp4 { value: four(min), mask: four(key.mask) },
        Field::Dst4 => Term::DstIp4 { value: four(min), mask: four(key.mask) },
        Field::SrcPort => Term::SrcPort { min: min as u16, max: max as u16 },
        Field::DstPort => Term::DstPort { min: min as u16, max: max as u16 },
        Field::CtState => Term::CtState {
            value: CtState::from_bits_retain(min as u8),
            mask: CtState::from_bits_retain(key.mask as u8),
        },
        Field::CtZone => Term::CtZone(min as u16),
        Field::CtMark => Term::CtMark { value: min as u32, mask: key.mask as u32 },
        other => unreachable!("{other:?} is of another test"),
    }
}

fn action(action: &model::Action) -> Action {
    match *action {
        model::Action::Drop => Action::Drop,
        model::Action::Pass => Action::Pass,
        model::Action::Redirect(port) => Action::Redirect(PortId(port as u32)),
        model::Action::Goto(group) => Action::Goto(group),
        model::Action::Continue => Action::Continue,
        model::Action::Mark(mark) => Action::Mark { value: mark, mask: u32::MAX },
        model::Action::SetTos(tos) => Action::Set(Set::Tos { value: tos, mask: 0xff }),
        model::Action::Meter(number) => Action::Meter(format!("m{number}")),
        model::Action::Police(settings) => Action::Police(meter(&settings)),
        model::Action::Ct(ct) => Action::Ct(CtAction {
            zone: ct.zone,
            commit: ct.commit,
            mark: ct.mark,
            nat: ct.nat.map(|nat| Nat {
                source: nat.source.map(address),
                destination: nat.destination.map(address),
            }),
        }),
        other => unreachable!("{other:?} is of another test"),
    }
}

fn spec(rule: &model::Rule) -> RuleSpec {
    RuleSpec {
        id: RuleId(rule.id),
        domain: if rule.tenant == 0 { Domain::Infrastructure } else { Domain::Tenant(rule.tenant) },
        direction: if rule.out { Direction::Out } else { Direction::In },
        group: rule.group,
        priority: rule.priority,
        name: format!("rule{}", rule.id),
        matches: rule.any.iter().map(|keys| Match::new(keys.iter().map(term))).collect(),
        actions: rule.actions.iter().map(action).collect(),
    }
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

/// Meters that rules name, and which is over which.
#[derive(Clone, Debug)]
struct Named {
    meters: Vec<meters::Meter>,
    parents: BTreeMap<usize, usize>,
}

struct Pair {
    bench: Bench,
    reference: reference::Switch,
    reasons: BTreeMap<&'static str, u64>,
    now_ns: u64,
}

impl Pair {
    fn new(ports: Vec<reference::PortConfig>, named: &Named) -> Pair {
        let config = SwitchConfig { ageing: Duration::from_secs(100_000), ..SwitchConfig::default() };
        let list = named.meters.iter().enumerate().map(|(number, settings)| NamedMeter {
            name: format!("m{number}"),
            settings: meter(settings),
            parent: named.parents.get(&number).map(|over| format!("m{over}")),
        });
        let policy = Policy {
            zones: (0..4).map(|zone| (zone, zone_settings())).collect(),
            meters: list.collect(),
            ..Policy::default()
        };
        let mut reference = reference::Switch::new(reference::Config {
            ports: ports.clone(),
            ageing: 100_000,
            damping: None,
            rules: Vec::new(),
        });
        *reference.meters() = meters::Meters::new(
            named.meters.iter().enumerate().map(|(n, it)| (meters::Place::Named(n), *it)),
        );
        reference.meters().set_parents(named.parents.clone());
        let bench = Bench::new(&config, ports.iter().map(settings).collect(), policy);
        Pair { bench, reference, reasons: BTreeMap::new(), now_ns: 1_000_000_000 }
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        self.bench.switch.tick_ns(self.now_ns);
        self.reference.meters().set_time(self.now_ns);
    }

    fn now(&self) -> u32 {
        (self.now_ns / 1_000_000_000) as u32
    }

    fn send(&mut self, port: usize, frame: &[u8]) {
        self.pass(0);
        // Which port would a translation take that finds its own taken? The reference does not know.
        let now = self.now().into();
        if self.reference.clone().input(port, frame, now).refused == Some("unsure") {
            return;
        }
        let told = self.bench.switch.trace(self.bench.ports[port].id, frame).unwrap();
        let outcome = self.reference.input(port, frame, now);
        for reason in outcome.reasons() {
            *self.reasons.entry(reason).or_default() += 1;
        }
        let mut expected = vec![Vec::new(); PORTS];
        for (to, bytes) in outcome.delivered {
            expected[to].push(bytes);
        }
        self.bench.send(port, &[frame.to_vec()]);
        for (to, mut expected) in expected.into_iter().enumerate() {
            let mut got = self.bench.take(to);
            got.sort();
            expected.sort();
            assert_eq!(got, expected, "from {port} to {to}: {frame:02x?} ({told:#?})");
        }
        assert_eq!(self.bench.reasons(), self.reasons, "{frame:02x?} from {port}: {told:#?}");
        self.check(&told);
    }

    fn check(&mut self, told: &impl core::fmt::Debug) {
        let now = self.now();
        let mut expected: Vec<Known> =
            self.reference.connections(now.into()).all().iter().map(model_of).collect();
        let entries = self.bench.switch.conntrack().entries(now);
        let mut found: Vec<Known> = entries.iter().filter(|entry| entry.expires > 0).map(known).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{told:#?}");
        assert!(self.bench.switch.totals().balance());
    }

    /// Puts or removes a rule; if the switch refuses, the reference is left alone too.
    fn apply(&mut self, put: bool, rule: &model::Rule) {
        let id = RuleId(rule.id);
        let change = match put {
            true => Change::Put(spec(rule)),
            false => Change::Remove { domain: spec(rule).domain, id },
        };
        if self.bench.switch.change_rules(&[change]).is_ok() {
            let mut next = self.reference.config().clone();
            next.rules.retain(|other| (other.tenant, other.id) != (rule.tenant, rule.id));
            if put {
                next.rules.push(rule.clone());
            }
            self.reference.configure(next);
        }
    }
}

/// A connection: zone, owner, protocol, both ends of the first packet, both ends of answers, state, mark, packets.
type Known = (u16, usize, u8, [([u8; 4], u16); 4], &'static str, u32, [u64; 2]);

fn model_of(known: &connections::Connection) -> Known {
    let (from, to) = known.answers;
    let state = if known.answered { "est" } else { "new" };
    let ends = [known.asker, known.asked, from, to];
    (known.zone, known.owner, known.protocol, ends, state, known.mark, known.packets)
}

fn known(entry: &ConnectionEntry) -> Known {
    let four = |address: &[u8; 16]| *address.first_chunk().unwrap();
    let (ask, answer) = (&entry.original, &entry.reply);
    let is_icmp = ask.protocol == IpProtocol::ICMP;
    let to = |tuple: &fabnic_switch::Tuple| if is_icmp { tuple.src_port } else { tuple.dst_port };
    let ends = [
        (four(&ask.src), ask.src_port),
        (four(&ask.dst), to(ask)),
        (four(&answer.src), answer.src_port),
        (four(&answer.dst), to(answer)),
    ];
    let state = if entry.state.contains(CtState::ESTABLISHED) { "est" } else { "new" };
    (entry.zone, entry.port.0 as usize, ask.protocol.0, ends, state, entry.mark, entry.packets)
}

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn host(n: u8) -> [u8; 4] {
    [10, 0, 0, n]
}

/// What a host is outside, as a client and as a server.
fn outside(n: u8) -> [u8; 4] {
    [192, 0, 2, n]
}

fn server(n: u8) -> [u8; 4] {
    [198, 51, 100, n]
}

fn number(bytes: [u8; 4]) -> u128 {
    u32::from_be_bytes(bytes).into()
}

fn key(out: bool) -> impl Strategy<Value = Key> {
    let exact = |field: Field, value: u128| Key { field, mask: u128::MAX, min: value, max: value };
    let masked =
        |field: Field, mask: u128, value: u128| Key { field, mask, min: value & mask, max: value & mask };
    let words = prop::sample::select(vec![0x20_u8, 0x21, 0x22, 0x28, 0x30, 0x01, 0x02, 0x08, 0x10]);
    prop_oneof![
        2 => (words.clone(), words).prop_map(move |(mask, value)| {
            masked(Field::CtState, (mask | value).into(), value.into())
        }),
        2 => (0..3_u8, prop::sample::select(vec![0xff_u8, 1, 2])).prop_map(move |(mark, mask)| {
            masked(Field::CtMark, mask.into(), mark.into())
        }),
        1 => (0..4_u8).prop_map(move |zone| exact(Field::CtZone, zone.into())),
        1 => (0..PORTS as u8).prop_map(move |p| exact(if out { Field::Egress } else { Field::Ingress }, p.into())),
        1 => (0..3_u8).prop_map(move |mark| exact(Field::Mark, mark.into())),
        1 => prop::sample::select(vec![1_u8, 6, 17]).prop_map(move |p| exact(Field::Protocol, p.into())),
        1 => (0..PORTS as u8).prop_map(move |n| exact(Field::Src4, number(host(n)))),
        1 => (0..PORTS as u8).prop_map(move |n| exact(Field::Dst4, number(host(n)))),
        1 => Just(exact(Field::DstPort, 80)),
        1 => Just(exact(Field::SrcPort, 80)),
    ]
}

fn meter_settings() -> impl Strategy<Value = meters::Meter> {
    let rate = || prop_oneof![0_u64..20, 100_000_u64..10_000_000];
    let kind =
        (0_u8..3, rate(), 1_u64..300, rate(), 1_u64..300).prop_map(
            |(kind, cir, cbs, more, other)| match kind {
                0 => meters::Kind::Single(cir, cbs, other),
                1 => meters::Kind::Two(cir, cbs, cir + more, other),
                _ => meters::Kind::Efficient(cir, cbs, more, other),
            },
        );
    let aware = prop::sample::select(vec![meters::Aware::No, meters::Aware::Meters, meters::Aware::Dscp]);
    let yellow = prop_oneof![Just(meters::Yellow::Pass), Just(meters::Yellow::Drop)];
    (any::<bool>(), kind, aware, yellow).prop_map(|(packets, kind, aware, yellow)| meters::Meter {
        packets,
        kind,
        aware,
        yellow,
    })
}

/// Two meters under a third, which is under a fourth, or less of that.
fn named() -> impl Strategy<Value = Named> {
    let parents = prop::sample::subsequence(vec![(0, 2), (1, 2), (2, 3)], 0..=3);
    (prop::collection::vec(meter_settings(), 4), parents)
        .prop_map(|(meters, parents)| Named { meters, parents: parents.into_iter().collect() })
}

/// What a rule does to connections from this host, or to it: each has an address of its own, as a client and as a server.
fn ct(n: u8, may_translate: bool) -> impl Strategy<Value = model::Ct> {
    let nat = (prop::option::of(Just(outside(n))), prop::option::of(Just(server(n))))
        .prop_map(|(source, destination)| connections::Nat { source, destination });
    let zone = prop::option::weighted(0.5, 0..4_u16);
    (zone, prop::bool::weighted(0.8), prop::option::of(0..3_u32), prop::option::of(nat)).prop_map(
        move |(zone, commit, mark, nat)| model::Ct {
            zone,
            commit,
            mark: mark.filter(|_| commit),
            nat: nat.filter(|nat| commit && may_translate && *nat != connections::Nat::default()),
        },
    )
}

fn rule() -> impl Strategy<Value = model::Rule> {
    use model::Action::*;
    let place = (
        0..10_u64,
        0..3_u32,
        prop::bool::weighted(0.35),
        prop_oneof![4 => Just(0_u8), 1 => Just(1)],
        0..4_u32,
    );
    (place, 0..PORTS as u8).prop_flat_map(|((id, tenant, out, group, priority), n)| {
        let end = prop_oneof![
            1 => Just(Some(Drop)),
            2 => Just(Some(Pass)),
            3 => Just(Some(Continue)),
            1 => (0..PORTS).prop_map(|port| Some(Redirect(port))),
            1 => Just(Some(Goto(group + 1))),
        ];
        let connection =
            ct(n, tenant == 0).prop_map(move |ct| if out { Mark(ct.mark.unwrap_or(1)) } else { Ct(ct) });
        let some = prop_oneof![
            5 => connection,
            2 => (0..4_usize).prop_map(Meter),
            2 => meter_settings().prop_map(Police),
            1 => (0..3_u32).prop_map(Mark),
            1 => (0..16_u8).prop_map(|dscp| SetTos(dscp << 3)),
        ];
        let any = prop::collection::vec(prop::collection::vec(key(out), 0..3), 1..3);
        (any, prop::collection::vec(some, 0..3), end).prop_map(move |(mut any, mut actions, end)| {
            actions.extend(end);
            // A translation is of the connections of one host each: nobody's answers are another's.
            let of = |actions: &[model::Action]| {
                actions.iter().find_map(|action| if let Ct(ct) = action { ct.nat } else { None })
            };
            if let Some(nat) = of(&actions) {
                let field = if nat.source.is_some() { Field::Src4 } else { Field::Dst4 };
                let mine = Key { field, mask: u128::MAX, min: number(host(n)), max: number(host(n)) };
                any.iter_mut().for_each(|keys| keys.push(mine));
            }
            model::Rule { id, tenant, out, group, priority, any, actions }
        })
    })
}

/// A packet from one host to another, under its own address or the one that it was given.
fn frame() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let hosts = (0..PORTS as u8, 0..PORTS as u8, 0..6_u8, 0..6_u8, 0..20_u8);
    let rest =
        (0..6_u8, any::<bool>(), 0..2_u16, prop::sample::select(vec!["S", "SA", "A", "A", "FA"]), 0..6_usize);
    (hosts, rest).prop_map(|((from, to, src, dst, mac), (kind, back, port, flags, dscp))| {
        let address = |n: u8, which: u8| match which {
            0..4 => host(n),
            4 => outside(n),
            _ => server(n),
        };
        let ports = if back { (80, 1000 + port) } else { (1000 + port, 80) };
        let to_mac = if mac == 0 { [0xff; 6] } else { station(to) };
        let mut ip = etherparse::Ipv4Header::new(
            0,
            64,
            etherparse::IpNumber::UDP,
            address(from, src),
            address(to, dst),
        )
        .unwrap();
        ip.dscp = etherparse::IpDscp::try_new([0_u8, 10, 12, 14, 20, 46][dscp]).unwrap();
        let ip = etherparse::IpHeaders::Ipv4(ip, Default::default());
        let builder = PacketBuilder::ethernet2(station(from), to_mac).ip(ip);
        let mut frame = Vec::new();
        match kind {
            0 | 1 => builder.udp(ports.0, ports.1).write(&mut frame, b"payload"),
            2..5 => {
                let mut header = etherparse::TcpHeader::new(ports.0, ports.1, 1000, 1000);
                (header.syn, header.fin) = (flags.contains('S'), flags.contains('F'));
                header.ack = flags.contains('A');
                header.acknowledgment_number = u32::from(header.ack) * 77;
                builder.tcp_header(header).write(&mut frame, &[])
            }
            _ if back => builder.icmpv4_echo_reply(port, 1).write(&mut frame, b"ping"),
            _ => builder.icmpv4_echo_request(port, 1).write(&mut frame, b"ping"),
        }
        .unwrap();
        (from.into(), frame)
    })
}

#[derive(Clone, Debug)]
enum Step {
    /// Frames, the same twice now and then; nanoseconds between them.
    Send(Vec<(usize, Vec<u8>)>, bool, u64),
    Wait(u64),
    Apply(bool, model::Rule),
}

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![Just(0_u64), 0_u64..1_000_000, 0_u64..200_000_000];
    prop_oneof![
        6 => (prop::collection::vec(frame(), 1..8), any::<bool>(), gap)
            .prop_map(|(frames, again, gap)| Step::Send(frames, again, gap)),
        1 => (1..4_u64).prop_map(|times| Step::Wait(times * 50)),
        2 => (prop::bool::weighted(0.9), rule()).prop_map(|(put, rule)| Step::Apply(put, rule)),
    ]
}

fn tracking() -> impl Strategy<Value = Option<reference::Tracking>> {
    let limit = prop_oneof![6 => Just(1000_usize), 1 => 0..4_usize];
    let tracking = (0..3_u16, limit, prop::bool::weighted(0.2), prop::bool::weighted(0.6)).prop_map(
        |(zone, limit, answers_only, drop_invalid)| reference::Tracking {
            zone,
            limit,
            tenant: None,
            answers_only,
            drop_invalid,
            nat: None,
        },
    );
    prop::option::weighted(0.7, tracking)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn connections_and_meters_of_rules_are_those_of_the_reference(
        ports in prop::collection::vec((tracking(), prop::option::of(1..3_u32), prop::bool::weighted(0.3)), PORTS),
        named in named(),
        first in prop::collection::vec(rule(), 0..8),
        steps in prop::collection::vec(step(), 1..20),
    ) {
        let port = |(n, (tracking, tenant, translated)): (u8, (Option<reference::Tracking>, Option<u32>, bool))| {
            let nat = translated.then(|| (host(n), outside(n)));
            let tracking = tracking.map(|it| reference::Tracking { nat, ..it });
            reference::PortConfig { tracking, tenant, ..reference::PortConfig::default() }
        };
        let mut pair = Pair::new((0..).zip(ports).map(port).collect(), &named);
        // Everybody is known.
        for port in 0..PORTS {
            let hello = [&[0xff; 6][..], &station(port as u8), &[0x88, 0xb5], &[0; 46]].concat();
            pair.send(port, &hello);
        }
        first.iter().for_each(|rule| pair.apply(true, rule));
        for step in steps {
            match step {
                Step::Send(frames, again, gap) => {
                    for (from, frame) in frames {
                        for _ in 0..=usize::from(again) {
                            pair.pass(gap);
                            pair.send(from, &frame);
                        }
                    }
                }
                Step::Wait(seconds) => {
                    // To a whole number of fifties, so that nobody's time ends in the second that is asked about.
                    let now = u64::from(pair.now());
                    pair.pass(((now / 50 + 1 + seconds / 50) * 50 - now) * 1_000_000_000);
                }
                Step::Apply(put, rule) => pair.apply(put, &rule),
            }
        }
    }
}
