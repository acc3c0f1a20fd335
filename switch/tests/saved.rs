//! Saved state: a switch that was restarted does what one does that never was, a port finds its connections in another
//! switch, and what does not fit any more is dropped and counted. (`conntrack`, `guard`, `multicast` and `reference` restart
//! the switch in the middle of random traffic.)
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bench::Bench;
use bench::restart::{records, restore, save, sections};
use etherparse::PacketBuilder;
use fabnic_port::{DropReason, PortId};
use fabnic_saved::{Kind, Section};
use fabnic_switch::{
    Action, BoundAddress, Change, Direction, Domain, GuardSettings, Incoming, InlineSwitch, Lost, Match,
    MeterSettings, MirrorSettings, MoveDamping, NamedMeter, Nat, NatRange, Policy, PortSettings,
    PortTracking, QuerierSettings, Rate, Restored, RuleId, RuleSpec, SwitchConfig, TcpState, Term, Unit,
    VlanMode, VlanSnooping,
};
use fabnic_wire::{Fields, MacAddr, Vid};

/// What the ports are: two clients behind translation, a server, a port that listens to groups, one that is policed.
const CLIENT: usize = 0;
const SERVER: usize = 1;
const LISTENER: usize = 2;
const POLICED: usize = 3;
const PUBLIC: [u8; 4] = [192, 0, 2, 1];

fn station(port: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, port as u8 + 1]
}

fn host(port: usize) -> [u8; 4] {
    [10, 0, 0, port as u8 + 1]
}

fn same(number: u32) -> Option<PortId> {
    Some(PortId(number))
}

fn snat() -> Option<PortTracking> {
    let range = NatRange { first: PUBLIC.into(), last: PUBLIC.into(), ports: Some(20_000..=30_000) };
    let nat = Nat { source: Some(range), destination: None };
    Some(PortTracking { zone: 3, incoming: Incoming::Answers, nat: Some(nat), ..PortTracking::default() })
}

fn ports() -> Vec<PortSettings> {
    let plain = PortSettings::default;
    let police = MeterSettings::policer(Unit::Bits, 80_000, 3_000);
    vec![
        PortSettings { tracking: snat(), ..plain() },
        plain(),
        plain(),
        PortSettings { police_ingress: Some(police), max_tx_rate: Some(Rate::bits(8_000_000)), ..plain() },
    ]
}

fn policy() -> Policy {
    let own = QuerierSettings {
        mac: MacAddr::new([2, 0, 0, 0, 9, 9]),
        v4: Some(Ipv4Addr::new(10, 0, 0, 100)),
        v6: None,
        igmp_version: 3,
        mld_version: 2,
    };
    let named = MeterSettings::policer(Unit::Packets, 1, 5);
    Policy {
        multicast: vec![VlanSnooping { querier: Some(own), ..VlanSnooping::new(Vid::DEFAULT) }],
        meters: vec![NamedMeter { name: "slow".to_owned(), settings: named, parent: None }],
        mirrors: vec![MirrorSettings {
            name: "watch".to_owned(),
            target: PortId(LISTENER as u32),
            ingress: vec![PortId(SERVER as u32)],
            egress: Vec::new(),
            vlans: Vec::new(),
            snap: None,
            sample: 3,
        }],
        ..Policy::default()
    }
}

/// UDP to port 9 is metered, to port 7 counted.
fn rules(switch: &mut InlineSwitch) {
    let rule = |id: u64, port: u16, action: Action| {
        Change::Add(RuleSpec {
            id: RuleId(id),
            domain: Domain::Infrastructure,
            direction: Direction::In,
            group: 0,
            priority: 1,
            name: format!("udp to {port}"),
            matches: vec![Match::new([Term::DstPort { min: port, max: port }])],
            actions: vec![action, Action::Pass],
        })
    };
    let changes =
        [rule(1, 9, Action::Meter("slow".to_owned())), rule(2, 7, Action::Mark { value: 1, mask: 1 })];
    switch.change_rules(&changes).unwrap();
}

fn ethernet(from: usize, to: [u8; 6]) -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(station(from), to)
}

fn udp(from: usize, (src, dst): ([u8; 4], [u8; 4]), ports: (u16, u16), to: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet(from, to).ipv4(src, dst, 64).udp(ports.0, ports.1).write(&mut frame, &vec![0; len]).unwrap();
    frame
}

/// A segment; the scale of its window is that of its SYN.
struct Segment {
    from: usize,
    to: usize,
    ends: ([u8; 4], [u8; 4]),
    ports: (u16, u16),
    flags: &'static str,
    seq: u32,
    ack: u32,
    len: usize,
}

impl Segment {
    fn write(&self) -> Vec<u8> {
        let mut header = etherparse::TcpHeader::new(self.ports.0, self.ports.1, self.seq, 100);
        header.syn = self.flags.contains('S');
        header.rst = self.flags.contains('R');
        header.fin = self.flags.contains('F');
        header.ack = self.flags.contains('A');
        header.acknowledgment_number = self.ack;
        if header.syn {
            let scale = etherparse::TcpOptionElement::WindowScale(2);
            header.set_options(&[scale]).unwrap();
        }
        let mut frame = Vec::new();
        let builder = ethernet(self.from, station(self.to)).ipv4(self.ends.0, self.ends.1, 64);
        builder.tcp_header(header).write(&mut frame, &vec![0; self.len]).unwrap();
        frame
    }
}

fn client(flags: &'static str, seq: u32, ack: u32, len: usize) -> Vec<u8> {
    let ends = (host(CLIENT), host(SERVER));
    Segment { from: CLIENT, to: SERVER, ends, ports: (40_000, 80), flags, seq, ack, len }.write()
}

fn server(port: u16, flags: &'static str, seq: u32, ack: u32, len: usize) -> Vec<u8> {
    let ends = (host(SERVER), PUBLIC);
    Segment { from: SERVER, to: CLIENT, ends, ports: (80, port), flags, seq, ack, len }.write()
}

fn igmp_join(from: usize) -> Vec<u8> {
    let mut frame = [&[1, 0, 0x5e, 1, 1, 1][..], &station(from), &[8, 0]].concat();
    let mut ip = vec![0x46, 0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0];
    ip.extend([host(from), [239, 1, 1, 1], [0x94, 4, 0, 0]].concat());
    let sum = fabnic_wire::checksum::Sum::of(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut message = vec![0x16, 0, 0, 0, 239, 1, 1, 1];
    let sum = fabnic_wire::checksum::Sum::of(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend(message);
    frame
}

fn hello(port: usize) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &station(port), &[0x88, 0xb5]].concat();
    frame.resize(60, 0);
    frame
}

fn one(bench: &mut Bench, from: usize, frame: Vec<u8>, to: usize) -> Option<Vec<u8>> {
    bench.send(from, &[frame]);
    bench.take(to).pop()
}

fn source_port(frame: &[u8]) -> u16 {
    Fields::of(frame).unwrap().flow.src_port
}

fn config() -> SwitchConfig {
    SwitchConfig { damping: Some(MoveDamping::default()), ..SwitchConfig::default() }
}

/// A switch in which all is in use; gives the ports that TCP and UDP of the client are translated to.
fn busy() -> (Bench, u16, u16) {
    let mut bench = Bench::new(&config(), ports(), policy());
    rules(&mut bench.switch);
    bench.switch.tick(1_000);
    (0..4).for_each(|port| bench.send(port, &[hello(port)]));
    bench.send(LISTENER, &[igmp_join(LISTENER)]);
    (0..4).for_each(|port| drop(bench.take(port)));
    let syn = one(&mut bench, CLIENT, client("S", 100, 0, 0), SERVER).unwrap();
    let tcp = source_port(&syn);
    assert!(one(&mut bench, SERVER, server(tcp, "SA", 500, 101, 0), CLIENT).is_some());
    assert!(one(&mut bench, CLIENT, client("A", 101, 501, 0), SERVER).is_some());
    assert!(one(&mut bench, SERVER, server(tcp, "A", 501, 101, 200), CLIENT).is_some());
    let ask = udp(CLIENT, (host(CLIENT), host(SERVER)), (5000, 53), station(SERVER), 20);
    let dns = source_port(&one(&mut bench, CLIENT, ask, SERVER).unwrap());
    let dns_answer = udp(SERVER, (host(SERVER), PUBLIC), (53, dns), station(CLIENT), 20);
    assert!(one(&mut bench, SERVER, dns_answer, CLIENT).is_some());
    // Its bucket is nearly empty, and so is the meter's.
    let bulk = |port| udp(POLICED, (host(POLICED), host(SERVER)), (1, port), station(SERVER), 900);
    bench.send(POLICED, &[bulk(1), bulk(1)]);
    let small = |n| udp(LISTENER, (host(LISTENER), host(SERVER)), (n, 9), station(SERVER), 8);
    bench.send(LISTENER, &(0..4).map(small).collect::<Vec<_>>());
    bench.send(LISTENER, &[udp(LISTENER, (host(LISTENER), host(SERVER)), (1, 7), station(SERVER), 8)]);
    // A station moves twice, and back.
    let mut moved = hello(LISTENER);
    moved[6..12].copy_from_slice(&[2, 0, 0, 0, 7, 7]);
    for port in [LISTENER, SERVER, LISTENER] {
        bench.send(port, &[moved.clone()]);
    }
    bench.switch.tick(1_012);
    (0..4).for_each(|port| drop(bench.take(port)));
    (bench, tcp, dns)
}

/// What is sent to both, some of it wrong.
fn traffic(tcp: u16, dns: u16) -> Vec<(usize, Vec<u8>)> {
    let to_server = |port, n| udp(LISTENER, (host(LISTENER), host(SERVER)), (n, port), station(SERVER), 8);
    let bulk = udp(POLICED, (host(POLICED), host(SERVER)), (1, 1), station(SERVER), 900);
    let group = [1, 0, 0x5e, 1, 1, 1];
    let answer = |port| udp(SERVER, (host(SERVER), PUBLIC), (53, port), station(CLIENT), 20);
    vec![
        (CLIENT, client("A", 101, 701, 100)),
        // Behind the window of 400, before it, and of what was never sent.
        (CLIENT, client("A", 5_000, 701, 10)),
        (SERVER, server(tcp, "A", 701, 201, 100)),
        (SERVER, server(tcp, "A", 701, 9_999, 0)),
        (SERVER, server(tcp, "R", 70_000, 0, 0)),
        (SERVER, server(tcp ^ 1, "A", 701, 201, 0)),
        (SERVER, answer(dns)),
        (SERVER, answer(dns ^ 1)),
        (SERVER, udp(SERVER, (host(SERVER), [239, 1, 1, 1]), (1, 1), group, 8)),
        (POLICED, bulk.clone()),
        (POLICED, bulk.clone()),
        (POLICED, bulk.clone()),
        (POLICED, bulk),
        (LISTENER, to_server(9, 1)),
        (LISTENER, to_server(9, 2)),
        (LISTENER, to_server(9, 3)),
        (LISTENER, to_server(9, 4)),
        (LISTENER, to_server(9, 5)),
        (LISTENER, to_server(9, 6)),
        (LISTENER, to_server(7, 6)),
        (SERVER, hello(SERVER)),
        (SERVER, server(tcp, "A", 801, 201, 0)),
        (CLIENT, client("FA", 201, 801, 0)),
        (SERVER, server(tcp, "FA", 801, 202, 0)),
        (CLIENT, client("A", 202, 802, 0)),
    ]
}

#[test]
fn a_restarted_switch_does_what_one_does_that_never_was() {
    let (mut bench, tcp, dns) = busy();
    for passed in [0, 2] {
        let saved = save(&mut bench.switch, None);
        let kinds: Vec<Kind> = sections(&saved).iter().map(Section::kind).collect();
        for kind in [
            Kind::Totals,
            Kind::PortCounters,
            Kind::Fdb,
            Kind::Multicast,
            Kind::Listeners,
            Kind::Zones,
            Kind::Connections,
            Kind::Meters,
            Kind::Rules,
            Kind::Mirrors,
        ] {
            assert!(kinds.contains(&kind), "{kind:?} is saved");
        }
        let now = bench.switch.now_ns() + passed * 1_000_000_000;
        let mut twin = Bench::at(now, &config(), ports(), policy());
        rules(&mut twin.switch);
        let report = restore(&twin.switch, &saved, Duration::from_secs(passed), true, &same);
        assert!(report.lost.is_empty(), "{report:?}");
        bench.switch.tick_ns(now);
        twin.switch.tick_ns(now);
        for port in 0..4 {
            bench.take(port);
            twin.take(port);
        }
        for (at, (port, frame)) in traffic(tcp, dns).into_iter().enumerate() {
            // Only what goes on the same way in both is asked of the closing connection in the second round.
            bench.send(port, std::slice::from_ref(&frame));
            twin.send(port, &[frame]);
            for to in 0..4 {
                assert_eq!(twin.take(to), bench.take(to), "frame {at} to port {to}, after {passed} s");
            }
        }
        assert_eq!(twin.reasons(), bench.reasons());
        let reasons = bench.reasons();
        for reason in ["ct_invalid", "ct_unsolicited"] {
            assert!(reasons.contains_key(reason), "{reason}: {reasons:?}");
        }
        assert!(twin.switch.totals().balance());
        let (one, other) = (save(&mut bench.switch, None), save(&mut twin.switch, None));
        // Flows that were cached in the one are decided anew in the other, which sees their sources again.
        let but_ages = |bytes: &[u8]| {
            let all = records(bytes).into_iter();
            all.filter(|(kind, _)| *kind != Kind::Fdb).collect::<Vec<_>>()
        };
        for (other, one) in but_ages(&other).iter().zip(&but_ages(&one)) {
            assert_eq!(other, one, "and what is saved of it is the same");
        }
        // The next round is with what went on.
        bench = twin;
    }
}

#[test]
fn a_port_takes_its_connections_to_another_switch() {
    let (mut here, tcp, dns) = busy();
    let exported = save(&mut here.switch, Some(PortId(CLIENT as u32)));
    let kinds: Vec<Kind> = sections(&exported).iter().map(Section::kind).collect();
    assert!(!kinds.contains(&Kind::Totals) && !kinds.contains(&Kind::Rules), "only the port's: {kinds:?}");
    for section in sections(&exported) {
        if let Section::Fdb(list) = section {
            assert!(list.iter().all(|entry| entry.port == CLIENT as u32));
        }
    }

    // There the port is the last one, and the server is behind an uplink that is the first.
    let order = [SERVER, LISTENER, CLIENT];
    let mut there =
        Bench::new(&config(), order.map(|port| ports()[port].clone()).to_vec(), Policy::default());
    there.switch.tick(50_000);
    there.send(0, &[hello(SERVER)]);
    (0..3).for_each(|port| drop(there.take(port)));
    // Without its state the connection is unknown, and what comes for it is refused.
    let answer = server(tcp, "A", 701, 101, 100);
    assert_eq!(one(&mut there, 0, answer.clone(), 2), None);
    let arrives = |number: u32| (number == CLIENT as u32).then_some(PortId(2));
    let report = restore(&there.switch, &exported, Duration::from_secs(1), false, &arrives);
    assert!(report.lost.is_empty(), "{report:?}");
    assert_eq!(report.restored[&Kind::Connections], 2);
    let got = one(&mut there, 0, answer, 2).expect("it goes on");
    let flow = Fields::of(&got).unwrap().flow;
    assert_eq!((flow.dst[..4].to_vec(), flow.dst_port), (host(CLIENT).to_vec(), 40_000));
    let sent = one(&mut there, 2, client("A", 101, 801, 100), 0).expect("and back");
    assert_eq!(source_port(&sent), tcp, "with the same translation");
    assert_eq!(one(&mut there, 2, client("A", 9_000, 801, 10), 0), None, "windows are checked");
    assert_eq!(one(&mut there, 0, server(tcp, "A", 801, 9_999, 0), 2), None);
    assert_eq!(there.reasons().get("ct_invalid"), Some(&2));
    let dns_answer = udp(SERVER, (host(SERVER), PUBLIC), (53, dns), station(CLIENT), 20);
    assert!(one(&mut there, 0, dns_answer, 2).is_some());
    let entries = there.switch.conntrack().entries(50_000);
    let entry = entries.iter().find(|entry| entry.tcp.is_some()).unwrap();
    assert_eq!((entry.tcp, entry.port, entry.age), (Some(TcpState::Established), PortId(2), 13));
    assert_eq!(entry.packets, [3, 3], "two of each before, and one of each here");
    assert_eq!(there.switch.conntrack().port(PortId(2)).used(), 2);
    assert!(there.switch.totals().balance(), "what it moved elsewhere is not counted here");
    // Taken in twice, nothing is there twice.
    let again = restore(&there.switch, &exported, Duration::from_secs(1), false, &arrives);
    assert_eq!(again.lost[&(Kind::Connections, Lost::Taken)], 2);
    assert_eq!(there.switch.conntrack().len(), 2);
}

/// A connection that another port opened counts in that one's limit; a port that goes takes its side of it along.
#[test]
fn what_others_opened_to_a_port_goes_with_it() {
    let tracking = Some(PortTracking { zone: 1, ..PortTracking::default() });
    let guard = GuardSettings {
        addresses: [BoundAddress::one(IpAddr::from(host(1)))].into(),
        macs: [MacAddr::new(station(1))].into(),
        ..GuardSettings::default()
    };
    let port = |guard| PortSettings { tracking: tracking.clone(), guard, ..PortSettings::default() };
    let settings = vec![port(GuardSettings::default()), port(guard)];
    let mut here = Bench::new(&config(), settings.clone(), Policy::default());
    here.switch.tick(10);
    let ask = udp(0, (host(0), host(1)), (1000, 53), station(1), 8);
    here.send(0, &[ask]);
    assert_eq!(here.switch.conntrack().entries(10)[0].port, PortId(0));
    let exported = save(&mut here.switch, Some(PortId(1)));
    let mut there = Bench::new(&config(), settings, Policy::default());
    there.switch.tick(10);
    let report = restore(&there.switch, &exported, Duration::ZERO, false, &|n| (n == 1).then_some(PortId(1)));
    assert_eq!(report.restored[&Kind::Connections], 1);
    let entry = there.switch.conntrack().entries(10).pop().unwrap();
    assert_eq!((entry.port, entry.original.src_port), (PortId(1), 1000));
}

fn lost(report: &Restored, kind: Kind, why: Lost) -> u64 {
    report.lost.get(&(kind, why)).copied().unwrap_or(0)
}

#[test]
fn what_does_not_fit_any_more_is_dropped_and_counted() {
    let (mut bench, ..) = busy();
    let saved = save(&mut bench.switch, None);
    // The listener is gone, the client's limit is lower, the server is in another VLAN, the policed port may learn nothing;
    // no group is watched, no meter, mirror or rule is there.
    let mut settings = ports();
    settings[CLIENT].tracking = snat().map(|it| PortTracking { limit: 1, ..it });
    settings[SERVER].vlan = VlanMode::Access(Vid::new(2).unwrap());
    settings[POLICED].fdb_limit = 0;
    settings[POLICED].police_ingress = None;
    let mut other = Bench::new(&config(), settings.clone(), Policy::default());
    other.switch.tick(1_012);
    // Somebody else has the client's address meanwhile, by configuration.
    let (vlan, mac) = (Vid::DEFAULT, MacAddr::new(station(CLIENT)));
    other.switch.fdb().add_static(vlan, mac, PortId(POLICED as u32)).unwrap();
    let here = |number: u32| same(number).filter(|port| port.0 != LISTENER as u32);
    let report = restore(&other.switch, &saved, Duration::ZERO, true, &here);
    assert_eq!(lost(&report, Kind::Fdb, Lost::Unconfigured), 2, "the listener, and the one that moved there");
    assert_eq!(lost(&report, Kind::Fdb, Lost::NoMember), 1, "{report:?}");
    assert_eq!(lost(&report, Kind::Fdb, Lost::Limit), 1);
    assert_eq!(lost(&report, Kind::Fdb, Lost::Taken), 1);
    assert_eq!(lost(&report, Kind::Connections, Lost::Limit), 1);
    assert_eq!(report.restored[&Kind::Connections], 1);
    assert_eq!(lost(&report, Kind::Listeners, Lost::Unconfigured), 1);
    assert_eq!(lost(&report, Kind::Multicast, Lost::Unconfigured), 1);
    assert_eq!(lost(&report, Kind::Meters, Lost::Unconfigured), 2);
    assert_eq!(lost(&report, Kind::Rules, Lost::Unconfigured), 2);
    assert_eq!(lost(&report, Kind::Mirrors, Lost::Unconfigured), 1);
    assert_eq!(other.switch.fdb().lookup(vlan, mac).unwrap().port, PortId(POLICED as u32), "static stays");

    // After the longest of times nothing is there but counters.
    let mut late = Bench::new(&config(), ports(), policy());
    late.switch.tick(5_000_000);
    let report = restore(&late.switch, &saved, fabnic_saved::MAX_STOP, true, &same);
    assert_eq!(lost(&report, Kind::Fdb, Lost::Expired), 5);
    assert_eq!(lost(&report, Kind::Connections, Lost::Expired), 2);
    assert_eq!(lost(&report, Kind::Listeners, Lost::Expired), 1);
    assert!(late.switch.fdb().is_empty() && late.switch.conntrack().is_empty());
    assert_eq!(late.ports[SERVER].rx_drops.get(DropReason::CtInvalid), 0);
    assert!(late.ports[CLIENT].ingress()[0].counters.frames.get() > 0, "counters go on");
}

#[test]
fn leases_go_on_by_the_clock() {
    use fabnic_saved::{Binding, BindingOrigin};
    let binding = |last: u8, left_s| Binding {
        vlan: 1,
        address: IpAddr::from([10, 0, 0, last]),
        port: 0,
        mac: station(0),
        origin: BindingOrigin::Dhcp,
        left_s,
    };
    let guard = GuardSettings {
        addresses: [BoundAddress::one(IpAddr::from([10, 0, 0, 4]))].into(),
        macs: [MacAddr::new(station(1))].into(),
        ..GuardSettings::default()
    };
    let settings = vec![PortSettings::default(), PortSettings { guard, ..PortSettings::default() }];
    let mut bench = Bench::new(&config(), settings, Policy::default());
    bench.switch.tick(500);
    let list = vec![binding(1, Some(100)), binding(2, Some(60)), binding(3, None), binding(4, Some(100))];
    let mut report = Restored::default();
    let arrival = fabnic_switch::Arrival {
        port: &same,
        tenant: &Some,
        passed: Duration::from_secs(60),
        is_still: true,
        counters: true,
    };
    bench.switch.restore(&Section::Bindings(list), &arrival, &mut report);
    assert_eq!(report.restored[&Kind::Bindings], 2);
    assert_eq!(lost(&report, Kind::Bindings, Lost::Expired), 1);
    assert_eq!(lost(&report, Kind::Bindings, Lost::Taken), 1, "the address is another's by configuration");
    let known =
        |bench: &Bench| bench.switch.bindings().entries().iter().map(|b| b.expires).collect::<Vec<_>>();
    assert_eq!(known(&bench), [Some(540), None, None]);
    bench.switch.tick(540);
    assert_eq!(known(&bench), [None, None]);
}

/// Of a daemon that was killed: what is known of a connection is some seconds old.
#[test]
fn a_connection_that_went_on_meanwhile_goes_on() {
    for is_still in [false, true] {
        let (mut bench, tcp, _) = busy();
        let opening = Segment {
            from: CLIENT,
            to: SERVER,
            ends: (host(CLIENT), host(SERVER)),
            ports: (41_000, 80),
            flags: "S",
            seq: 7,
            ack: 0,
            len: 0,
        };
        assert!(one(&mut bench, CLIENT, opening.write(), SERVER).is_some());
        let saved = save(&mut bench.switch, None);
        let mut other = Bench::at(bench.switch.now_ns(), &config(), ports(), policy());
        let mut report = Restored::default();
        let arrival = fabnic_switch::Arrival {
            port: &same,
            tenant: &Some,
            passed: Duration::from_secs(5),
            is_still,
            counters: true,
        };
        for section in sections(&saved) {
            other.switch.restore(&section, &arrival, &mut report);
        }
        assert_eq!(lost(&report, Kind::Connections, Lost::Stale), u64::from(!is_still));
        // Far behind the window as it was saved.
        let later = one(&mut other, CLIENT, client("A", 80_101, 90_501, 100), SERVER);
        assert_eq!(later.is_some(), !is_still);
        assert_eq!(later.map(|frame| source_port(&frame)), (!is_still).then_some(tcp));
        assert_eq!(
            one(&mut other, SERVER, server(tcp, "A", 90_501, 80_201, 10), CLIENT).is_some(),
            !is_still
        );
    }
}
