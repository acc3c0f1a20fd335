//! Two tenants, one of them hostile: it fills every table that it can reach and floods as it can, and the other tenant and
//! infrastructure do not notice. No clock of the wall: what is looked at is what is delivered, what is decided anew, how
//! large tables are, and the reason of each refusal.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use bench::Bench;
use fabnic_port::PortId;
use fabnic_switch::{
    Action, Change, Direction, Domain, FdbRefusal, Match, Policy, PortMulticast, PortSettings, PortTracking,
    RuleError, RuleId, RuleSpec, StormLimit, StormSettings, SwitchConfig, Term, Unit, VlanMode, VlanSnooping,
    ZoneSettings,
};
use fabnic_testkit::packets::{Packet, tcp};
use fabnic_wire::checksum::Sum;
use fabnic_wire::{IpProtocol, Vid};

const HOSTILE: Domain = Domain::Tenant(1);
/// Ports of the hostile tenant, of its neighbour, of infrastructure; behind them, more of the hostile tenant's.
const FIRST: usize = 0;
const NEIGHBOUR: [usize; 2] = [2, 3];
const INFRASTRUCTURE: [usize; 2] = [4, 5];
const CROWD: usize = 200;
const FDB_LIMIT: u32 = 100;
const CONNECTIONS: u32 = 50;
const RULES: u32 = 200;
const GROUPS: u32 = 64;
/// Flows of each pair of ports.
const FLOWS: u16 = 32;

fn vid(n: u16) -> Vid {
    Vid::new(n).unwrap()
}

fn settings(port: usize) -> PortSettings {
    let access = |vlan| PortSettings { vlan: VlanMode::Access(vid(vlan)), ..PortSettings::default() };
    let tracked = |zone, limit| Some(PortTracking { zone, limit, ..PortTracking::default() });
    if NEIGHBOUR.contains(&port) {
        return PortSettings { tenant: Some(2), tracking: tracked(2, 1000), ..access(20) };
    }
    if INFRASTRUCTURE.contains(&port) {
        return access(30);
    }
    let limit = |rate| Some(StormLimit { unit: Unit::Packets, rate, burst: 100 });
    PortSettings {
        tenant: Some(1),
        tracking: tracked(1, CONNECTIONS),
        fdb_limit: FDB_LIMIT,
        multicast: PortMulticast { max_entries: GROUPS, ..PortMulticast::default() },
        storm: StormSettings { unknown_unicast: limit(1000), ..StormSettings::default() },
        ..access(10)
    }
}

fn rule(domain: Domain, id: u64, terms: Vec<Term>, action: Action) -> RuleSpec {
    RuleSpec {
        id: RuleId(id),
        domain,
        direction: Direction::In,
        group: 0,
        priority: id as u32,
        name: format!("{domain} {id}"),
        matches: vec![Match::new(terms)],
        actions: vec![action],
    }
}

fn mac(port: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, port as u8]
}

/// A frame of one of a pair's flows.
fn flow([from, to]: [usize; 2], number: u16) -> Vec<u8> {
    let address = |port: usize| [10, port as u8, 0, 1];
    Packet::ethernet(mac(to), mac(from))
        .ipv4(address(from), address(to))
        .udp(1000 + number, 2000 + number)
        .build()
}

struct Test {
    bench: Bench,
    /// Frames of the others that were decided anew since the test began, beyond their first.
    anew: u64,
}

impl Test {
    fn new() -> Test {
        let config = SwitchConfig {
            fdb_max: 1000,
            connections_max: 2000,
            flow_cache_max: 1 << 12,
            ..SwitchConfig::default()
        };
        let zone = |zone| (zone, ZoneSettings { limit: 1000, ..ZoneSettings::default() });
        let policy = Policy {
            zones: vec![zone(1), zone(2)],
            multicast: vec![VlanSnooping { max_entries: 100, ..VlanSnooping::new(vid(10)) }],
            ..Policy::default()
        };
        let ports = (0..6 + CROWD).map(settings).collect();
        let mut test = Test { bench: Bench::new(&config, ports, policy), anew: 0 };
        test.bench.switch.rules().set_limit(HOSTILE, RULES);
        let net = |port: u8| Term::dst_net4([10, port, 0, 0], 16);
        let rules = [
            rule(Domain::Infrastructure, 1, vec![net(66)], Action::Drop),
            rule(Domain::Tenant(2), 1, vec![net(2)], Action::Pass),
            rule(Domain::Tenant(2), 2, vec![net(3)], Action::Pass),
            rule(Domain::Tenant(2), 3, vec![], Action::Drop),
        ];
        test.bench.switch.change_rules(&rules.map(Change::Add)).unwrap();
        let hello = Packet::ethernet(mac(0), mac(1)).ipv4([10, 1, 0, 1], [10, 0, 0, 1]).udp(1, 1).build();
        test.bench.send(1, &[hello]);
        test.others();
        test.others();
        test.anew = 0;
        test
    }

    /// Everybody else sends a frame of each flow, both ways: all of them arrive, and at once.
    fn others(&mut self) {
        let (_, before) = self.bench.switch.decided();
        for [one, other] in [NEIGHBOUR, INFRASTRUCTURE] {
            for pair in [[one, other], [other, one]] {
                let frames: Vec<_> = (0..FLOWS).map(|number| flow(pair, number)).collect();
                self.bench.send(pair[0], &frames);
                assert_eq!(self.bench.take(pair[1]), frames, "from {} to {}", pair[0], pair[1]);
            }
        }
        self.anew += self.bench.switch.decided().1 - before;
    }

    /// The hostile tenant sends frames, 64 at a time; after each burst the others do.
    fn hostile(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        let frames: Vec<_> = frames.into_iter().collect();
        for frames in frames.chunks(64) {
            self.bench.send(FIRST, frames);
            self.others();
        }
    }

    /// What is learned of the hostile tenant's falls on one of 16,384 versions, and outdates what depends on the same: now and
    /// then a pair's flows are decided anew, once. Were it all flows each time, it would be thousands.
    fn hardly_noticed(&self) {
        let most = 4 * 4 * u64::from(FLOWS);
        assert!(self.anew <= most, "{} decisions of others were made anew", self.anew);
    }

    fn reason(&self, label: &str) -> u64 {
        self.bench.reasons().get(label).copied().unwrap_or(0)
    }
}

#[test]
fn a_flood_of_addresses_fills_what_its_port_may_learn() {
    let mut test = Test::new();
    let known = test.bench.switch.fdb().len();
    test.hostile((0..4000_u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        let ethernet = Packet::ethernet([2, 8, 8, 8, 8, 8], [2, 9, 9, 9, high, low]);
        ethernet.ipv4([10, 0, 0, 1], [10, 1, 0, 1]).udp(1, 1).build()
    }));
    let (fdb, stats) = (test.bench.switch.fdb().len(), test.bench.switch.fdb().stats());
    assert_eq!(fdb - known, FDB_LIMIT as usize, "no more than the port may");
    let refused = stats.refused.get(FdbRefusal::PortLimit);
    assert_eq!(refused, 4000 - u64::from(FDB_LIMIT), "each that was not learned is counted");
    assert!(
        test.reason("storm_unknown_unicast") > 0,
        "unknown unicast is held to its rate: {:?}",
        test.bench.reasons()
    );
    test.hardly_noticed();
}

#[test]
fn connections_are_refused_beyond_the_ports_limit() {
    let mut test = Test::new();
    test.hostile((0..2000_u16).map(|n| {
        Packet::ethernet(mac(1), mac(0)).ipv4([10, 0, 0, 1], [10, 1, 0, 1]).tcp(n, 80, 1, 0, tcp::SYN).build()
    }));
    let connections = test.bench.switch.conntrack();
    let of_hostile = connections.entries(0).iter().filter(|entry| entry.zone == 1).count();
    assert_eq!(
        of_hostile,
        1 + CONNECTIONS as usize,
        "the one of its other port, and as many as this may have"
    );
    assert_eq!(test.reason("ct_limit"), 2000 - u64::from(CONNECTIONS));
    test.hardly_noticed();
    assert!(test.bench.switch.conntrack().len() <= 2000);
}

#[test]
fn groups_are_refused_beyond_the_ports_limit() {
    let mut test = Test::new();
    test.hostile((0..1000_u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        let group = [239, 7, high, low];
        let mut report = vec![0x16, 0, 0, 0];
        report.extend(group);
        let sum = Sum::of(&report).checksum();
        report[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut header = vec![0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 1];
        header.extend(group);
        header.extend([0x94, 4, 0, 0]);
        let sum = Sum::of(&header).checksum();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let ethernet = [1, 0, 0x5e, 7, high, low, 2, 0, 0, 0, 1, 0, 8, 0];
        [&ethernet[..], &header, &report].concat()
    }));
    let snooped = test.bench.switch.multicast(vid(10)).unwrap();
    assert!(snooped.groups.len() <= GROUPS as usize, "{} groups", snooped.groups.len());
    assert_eq!(snooped.stats.refused, 1000 - u64::from(GROUPS), "{:?}", snooped.stats);
    test.hardly_noticed();
}

#[test]
fn floods_to_many_ports_go_in_slices_and_others_in_between() {
    let mut test = Test::new();
    // Its address is learned before: that may fall on a version that a flow of others depends on, as flows on versions do.
    let first = Packet::ethernet(mac(1), mac(0)).ipv4([10, 0, 0, 1], [10, 1, 0, 1]).udp(1, 1).build();
    test.bench.send(FIRST, &[first]);
    test.others();
    test.anew = 0;
    let frame = Packet::ethernet([0xff; 6], mac(0)).ipv4([10, 0, 0, 1], [255; 4]).udp(1, 1).build();
    let mut copies = 0;
    for _ in 0..20 {
        for _ in 0..40 {
            test.bench.send(FIRST, &vec![frame.clone(); 64]);
        }
        // Between two slices, as a worker has it.
        for _ in 0..4 {
            let slice = test.bench.switch.deliver_slice();
            assert!(slice <= 4096, "a slice of {slice} copies");
            copies += slice;
            test.others();
        }
    }
    assert!(test.reason("flood_queue_full") > 0, "{:?}", test.bench.reasons());
    assert!(copies > 0);
    assert_eq!(test.anew, 0, "nothing changed that the others depend on");
}

#[test]
fn rules_are_refused_beyond_the_quota_and_their_changes_concern_nobody_else() {
    let mut test = Test::new();
    let mut refused = 0;
    for id in 1..1000 {
        let added = test.bench.switch.change_rules(&[Change::Add(rule(HOSTILE, id, vec![], Action::Drop))]);
        if let Err(error) = added {
            refused += 1;
            assert_eq!(error.source, RuleError::Quota { domain: HOSTILE, limit: RULES });
        }
    }
    assert_eq!((refused, test.bench.switch.rules().count(HOSTILE)), (999 - RULES, RULES));
    // Its first rules that read ports have all flows told apart by ports, once.
    let narrow = vec![Term::Protocol(IpProtocol::TCP), Term::DstPort { min: 2001, max: 2001 }];
    let spec = rule(HOSTILE, 1, narrow, Action::Drop);
    test.bench.switch.change_rules(&[Change::Put(spec)]).unwrap();
    test.others();
    test.anew = 0;
    // Changes without end, of rules about everything, about the neighbour's addresses, and about its ports.
    let (mut round, tcp) = (0, Term::Protocol(IpProtocol::TCP));
    let about: [Vec<Term>; 4] = [
        vec![],
        vec![Term::dst_net4([10, 3, 0, 0], 24)],
        vec![Term::Ingress(PortId(NEIGHBOUR[0] as u32))],
        vec![tcp, Term::DstPort { min: 2001, max: 2001 }],
    ];
    while round < 400 {
        for terms in &about {
            round += 1;
            let spec = rule(HOSTILE, round % u64::from(RULES) + 1, terms.clone(), Action::Drop);
            test.bench.switch.change_rules(&[Change::Put(spec)]).unwrap();
        }
        test.others();
    }
    assert_eq!(test.anew, 0, "no decision of others was made anew");
    // The only rule that reads a field comes and goes: flows are told apart by it once, not each time.
    for _ in 0..50 {
        let ttl = Term::Ttl { min: 0, max: 9 };
        for terms in [vec![ttl], vec![]] {
            let spec = rule(HOSTILE, 1, terms, Action::Drop);
            test.bench.switch.change_rules(&[Change::Put(spec)]).unwrap();
            test.others();
        }
    }
    assert_eq!(test.anew, 4 * u64::from(FLOWS), "each flow once");
    // A rule of infrastructure concerns them, at once.
    let spec = rule(Domain::Infrastructure, 2, vec![Term::dst_net4([10, 3, 0, 0], 24)], Action::Drop);
    test.bench.switch.change_rules(&[Change::Add(spec)]).unwrap();
    let dropped = test.reason("rule_infrastructure");
    test.bench.send(NEIGHBOUR[0], &[flow(NEIGHBOUR, 0)]);
    assert_eq!((test.reason("rule_infrastructure"), test.bench.take(NEIGHBOUR[1]).len()), (dropped + 1, 0));
}

#[test]
fn irregular_rules_are_refused_before_look_ups_get_long() {
    let mut test = Test::new();
    test.bench.switch.rules().set_limit(HOSTILE, 1 << 20);
    let mut refused = None;
    for id in 1..20_000_u64 {
        // None of them tells packets apart by more than the others do: all fall on one place.
        let terms = vec![Term::Mark { value: id as u32 & 1, mask: 1 }];
        let added = test.bench.switch.change_rules(&[Change::Add(rule(HOSTILE, id, terms, Action::Drop))]);
        if let Err(error) = added {
            refused = Some(error.source);
            break;
        }
    }
    assert!(matches!(refused, Some(RuleError::Irregular { limit: 2048, .. })), "{refused:?}");
    test.others();
    assert_eq!(test.anew, 0);
}

#[test]
fn the_switch_counts_every_frame_through_all_of_it() {
    let mut test = Test::new();
    test.hostile((0..500_u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        let to = if n % 2 == 0 { [0xff; 6] } else { [2, 8, 8, 8, high, low] };
        Packet::ethernet(to, [2, 9, 9, 9, low, high]).ipv4([10, 0, 0, 1], [10, 1, 0, 1]).udp(n, 1).build()
    }));
    while test.bench.switch.deliver_slice() > 0 {}
    let totals = test.bench.switch.totals();
    assert!(totals.balance(), "{totals:?}");
}
