//! Snooping against the reference's listeners: random joins, leaves, queries, data and time.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use fabnic_port::{DropReason, Port, PortId};
use fabnic_switch::{
    InlineSwitch, Policy, PortMulticast, PortSettings, QuerierSettings, QuerierState, RouterPort,
    StaticGroup, SwitchConfig, Unregistered, VlanSnooping,
};
use fabnic_testkit::reference::multicast::{self, Kind, Vlan};
use fabnic_wire::membership::{self, Message, Packet};
use fabnic_wire::{MacAddr, Vid};
use proptest::prelude::*;

mod bench;

use bench::{Connected, Frames, connect};

struct Bench {
    switch: InlineSwitch,
    ports: Vec<(Arc<Port>, PortSettings)>,
    snooping: VlanSnooping,
    waiting: Vec<Frames>,
    got: Vec<Frames>,
}

const VLAN: Vid = Vid::DEFAULT;
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

fn querier(v4: Ipv4Addr) -> Option<QuerierSettings> {
    Some(QuerierSettings {
        mac: MacAddr([2, 0, 0, 0, 9, 9]),
        v4: Some(v4),
        v6: Some("fe80::99".parse().unwrap()),
        igmp_version: 3,
        mld_version: 2,
    })
}

impl Bench {
    fn new(settings: Vec<PortMulticast>, snooping: VlanSnooping) -> Bench {
        let mut bench = Bench {
            switch: InlineSwitch::new(&SwitchConfig::default()),
            ports: Vec::new(),
            snooping: snooping.clone(),
            waiting: Vec::new(),
            got: Vec::new(),
        };
        for (multicast, id) in settings.into_iter().zip(0..) {
            let Connected { port, waiting, got } = connect(PortId(id));
            bench.ports.push((port, PortSettings { multicast, ..PortSettings::default() }));
            bench.waiting.push(waiting);
            bench.got.push(got);
        }
        bench.configure(snooping);
        bench
    }

    fn configure(&mut self, snooping: VlanSnooping) {
        self.snooping = snooping.clone();
        let policy = Policy { multicast: vec![snooping], ..Policy::default() };
        self.switch.configure(self.ports.clone(), policy);
    }

    /// Another switch goes on from the state of this one.
    fn restart(&mut self) {
        let saved = bench::restart::save(&mut self.switch, None);
        let now = self.switch.now_ns();
        self.switch = InlineSwitch::new(&SwitchConfig::default());
        self.switch.tick_ns(now);
        for (index, (place, _)) in self.ports.iter_mut().enumerate() {
            let Connected { port, waiting, got } = connect(place.id);
            (*place, self.waiting[index], self.got[index]) = (port, waiting, got);
        }
        self.configure(self.snooping.clone());
        let report =
            bench::restart::restore(&self.switch, &saved, Duration::ZERO, true, &|n| Some(PortId(n)));
        assert!(report.lost.is_empty(), "{report:?}");
        let again = bench::restart::save(&mut self.switch, None);
        assert_eq!(bench::restart::records(&again), bench::restart::records(&saved));
    }

    /// Sends a frame and gives the ports that got it; what else waited there is forgotten.
    fn send(&mut self, from: usize, frame: &[u8]) -> BTreeSet<usize> {
        (0..self.got.len()).for_each(|port| self.got[port].lock().clear());
        self.waiting[from].lock().push(frame.to_vec());
        assert_eq!(self.switch.poll(PortId(from as u32), 0), Ok(1));
        let got = |port: &usize| self.got[*port].lock().iter().any(|got| got == frame);
        (0..self.got.len()).filter(got).collect()
    }

    fn drops(&self, port: usize, reason: DropReason) -> u64 {
        self.ports[port].0.rx_drops.get(reason)
    }
}

fn sum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x46, 0, 0, 0, 0, 0, 0, 0, 1, protocol, 0, 0];
    header[2..4].copy_from_slice(&(24 + payload.len() as u16).to_be_bytes());
    header.extend(from.octets().into_iter().chain(to.octets()).chain([0x94, 4, 0, 0]));
    let checksum = sum(&header);
    header[10..12].copy_from_slice(&checksum);
    let to = to.octets();
    let mac = [1, 0, 0x5e, to[1] & 0x7f, to[2], to[3]];
    [&mac[..], &[2, 0, 0, 0, 0, from.octets()[3]], &[8, 0], &header, payload].concat()
}

fn igmp(from: Ipv4Addr, to: Ipv4Addr, mut message: Vec<u8>) -> Vec<u8> {
    let checksum = sum(&message);
    message[2..4].copy_from_slice(&checksum);
    ipv4(from, to, 2, &message)
}

fn group(n: u32) -> Ipv4Addr {
    // The first two share an Ethernet address.
    [Ipv4Addr::new(239, 1, 1, 1), Ipv4Addr::new(238, 129, 1, 1), Ipv4Addr::new(239, 1, 1, 2)][n as usize % 3]
}

fn source(n: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, n as u8)
}

fn host(port: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, port as u8)
}

fn old(kind: u8, code: u8, port: usize, to: Ipv4Addr, about: Ipv4Addr) -> Vec<u8> {
    igmp(host(port), to, [&[kind, code, 0, 0][..], &about.octets()].concat())
}

fn record(port: usize, kind: Kind, about: Ipv4Addr, sources: &BTreeSet<u32>) -> Vec<u8> {
    let kind = match kind {
        Kind::IsIn => 1,
        Kind::IsEx => 2,
        Kind::ToIn => 3,
        Kind::ToEx => 4,
        Kind::Allow => 5,
        Kind::Block => 6,
    };
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, sources.len() as u8];
    message.extend(about.octets());
    message.extend(sources.iter().flat_map(|n| source(*n).octets()));
    igmp(host(port), Ipv4Addr::new(224, 0, 0, 22), message)
}

fn data(from: u32, to: Ipv4Addr) -> Vec<u8> {
    ipv4(source(from), to, 17, &[0x12, 0x34, 0x56, 0x78, 0, 12, 0, 0, 1, 2, 3, 4])
}

fn query(from: Ipv4Addr, about: Option<Ipv4Addr>) -> Vec<u8> {
    let (to, about, code) = match about {
        Some(about) => (about, about, 10),
        None => (Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::UNSPECIFIED, 100),
    };
    igmp(from, to, [&[0x11, code, 0, 0][..], &about.octets()].concat())
}

#[derive(Clone, Debug)]
enum Step {
    Record { port: usize, kind: Kind, group: u32, sources: BTreeSet<u32> },
    Join { port: usize, group: u32 },
    Leave { port: usize, group: u32 },
    Query { port: usize, from: u8, group: Option<u32> },
    Data { port: usize, group: u32, source: u32 },
    Wait(u32),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let kind =
        prop::sample::select(vec![Kind::IsIn, Kind::IsEx, Kind::ToIn, Kind::ToEx, Kind::Allow, Kind::Block]);
    let sources = prop::collection::btree_set(1..5_u32, 0..4);
    prop_oneof![
        8 => (0..5_usize, kind, 0..3_u32, sources)
            .prop_map(|(port, kind, group, sources)| Step::Record { port, kind, group, sources }),
        3 => (0..5_usize, 0..3_u32).prop_map(|(port, group)| Step::Join { port, group }),
        2 => (0..5_usize, 0..3_u32).prop_map(|(port, group)| Step::Leave { port, group }),
        3 => (0..5_usize, prop_oneof![Just(0_u8), 1..255_u8], prop::option::of(0..3_u32))
            .prop_map(|(port, from, group)| Step::Query { port, from, group }),
        12 => (0..5_usize, 0..3_u32, 1..6_u32).prop_map(|(port, group, source)| Step::Data { port, group, source }),
        6 => prop_oneof![3 => 1..4_u32, 1 => 5..60_u32].prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn groups_go_to_who_listens(
        own in any::<bool>(),
        fast in prop::collection::btree_set(0..5_usize, 0..2),
        fixed in prop::collection::btree_set(0..5_usize, 0..2),
        unregistered in prop::sample::select(vec![Unregistered::Routers, Unregistered::Flood, Unregistered::Drop]),
        (robustness, last_interval) in (1..4_u8, prop::sample::select(vec![500_u32, 1000, 3000])),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let settings = (0..5).map(|port| PortMulticast { fast_leave: fast.contains(&port), ..PortMulticast::default() });
        let mut snooping = VlanSnooping {
            query_interval_s: 20,
            unregistered,
            robustness,
            last_member_interval_ms: last_interval,
            // One of the VLAN, as configuration says; the port itself says nothing.
            routers: fixed.iter().map(|port| PortId(*port as u32)).collect(),
            ..VlanSnooping::new(VLAN)
        };
        if own {
            snooping.querier = querier(OWN);
        }
        let mut bench = Bench::new(settings.collect(), snooping);
        let mut reference = Vlan::new(own.then(|| OWN.to_bits()), fast, 20);
        reference.fixed = fixed;
        (reference.robustness, reference.last_interval) = (robustness.into(), last_interval.into());
        reference.unregistered = match unregistered {
            Unregistered::Routers => multicast::Unregistered::Routers,
            Unregistered::Flood => multicast::Unregistered::Everywhere,
            Unregistered::Drop => multicast::Unregistered::Nobody,
        };
        let mut now = 0_u32;
        bench.switch.tick(0);
        let others = |port: usize| (0..5).filter(move |other| *other != port).collect::<BTreeSet<_>>();
        for step in steps {
            let ms = u64::from(now) * 1000;
            match step {
                Step::Record { port, kind, group: n, sources } => {
                    let sent = bench.send(port, &record(port, kind, group(n), &sources));
                    prop_assert_eq!(sent, &reference.routers() & &others(port), "reports go to routers");
                    let named = sources.iter().map(|n| source(*n).to_bits()).collect();
                    reference.record(port, kind, group(n).to_bits(), &named, ms);
                }
                Step::Join { port, group: n } => {
                    let sent = bench.send(port, &old(0x16, 0, port, group(n), group(n)));
                    prop_assert_eq!(sent, &reference.routers() & &others(port));
                    reference.report_v2(port, group(n).to_bits(), ms);
                }
                Step::Leave { port, group: n } => {
                    bench.send(port, &old(0x17, 0, port, Ipv4Addr::new(224, 0, 0, 2), group(n)));
                    reference.leave(port, group(n).to_bits(), ms);
                }
                Step::Query { port, from, group: about } => {
                    let from = if from == 0 { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::new(10, 0, 0, from) };
                    let sent = bench.send(port, &query(from, about.map(group)));
                    prop_assert_eq!(sent, others(port), "queries go everywhere");
                    reference.query(port, from.to_bits(), about.map(|n| group(n).to_bits()), ms);
                }
                Step::Data { port, group: n, source: from } => {
                    let expected = reference.goes_to(group(n).to_bits(), source(from).to_bits());
                    let expected = &expected.unwrap_or_else(|| others(port)) & &others(port);
                    prop_assert_eq!(bench.send(port, &data(from, group(n))), expected, "at {} s", now);
                }
                Step::Wait(seconds) => {
                    now += seconds;
                    bench.switch.tick(now);
                    reference.advance(u64::from(now) * 1000);
                }
                Step::Restart => bench.restart(),
            }
        }
        prop_assert!(bench.switch.totals().balance());
    }
}

fn mld(port: usize, to: [u8; 16], mut message: Vec<u8>) -> Vec<u8> {
    let mut from = [0; 16];
    (from[0], from[1], from[15]) = (0xfe, 0x80, port as u8 + 1);
    let pseudo = [&from[..], &to, &[0, 0, 0, message.len() as u8, 0, 0, 0, 58]].concat();
    let checksum = sum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&checksum);
    let header = [0x60, 0, 0, 0, 0, message.len() as u8 + 8, 0, 1];
    let mac = [&[0x33, 0x33][..], &to[12..]].concat();
    [
        &mac[..],
        &[2, 0, 0, 0, 0, port as u8],
        &[0x86, 0xdd],
        &header,
        &from,
        &to,
        &[58, 0, 5, 2, 0, 0, 1, 0],
        &message,
    ]
    .concat()
}

#[test]
fn listeners_of_ipv6_too() {
    let mut bench = known(vec![PortMulticast::default(); 4], |_| {});
    let group = *b"\xff\x05\0\0\0\0\0\0\0\0\0\0\0\0\x12\x34";
    let data = |port: u8| {
        let mut from = [0xfd; 16];
        from[15] = port;
        let header = [0x60, 0, 0, 0, 0, 8, 17, 9];
        let mac = [0x33, 0x33, 0, 0, 0x12, 0x34, 2, 0, 0, 0, 0, 0x50, 0x86, 0xdd];
        [&mac[..], &header, &from, &group, &[0, 1, 0, 2, 0, 8, 0, 0]].concat()
    };
    assert_eq!(bench.send(0, &data(1)), BTreeSet::new());
    bench.send(1, &mld(1, group, [&[131, 0, 0, 0, 0, 0, 0, 0][..], &group].concat()));
    assert_eq!(bench.send(0, &data(1)), BTreeSet::from([1]));
    // Version 2: one source only.
    let mut source = [0xfd; 16];
    source[15] = 7;
    let report = [&[143, 0, 0, 0, 0, 0, 0, 1, 3, 0, 0, 1][..], &group, &source].concat();
    bench.send(2, &mld(2, *b"\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x16", report));
    assert_eq!(bench.send(0, &data(1)), BTreeSet::from([1]));
    assert_eq!(bench.send(0, &data(7)), BTreeSet::from([1, 2]));
    // Solicitations and echoes to a group are frames to it, whatever a report's flow looks like.
    let echo = mld(1, group, vec![128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.send(1, &echo), BTreeSet::new());
    let seen = bench.switch.multicast(VLAN).unwrap();
    assert_eq!((seen.stats.reports, seen.groups[0].members.len()), (2, 2));
    bench.send(
        1,
        &mld(
            1,
            *b"\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x02",
            [&[132, 0, 0, 0, 0, 0, 0, 0][..], &group].concat(),
        ),
    );
    bench.switch.tick(14);
    assert_eq!(bench.send(0, &data(1)), BTreeSet::new());
    assert!(bench.switch.totals().balance());
}

/// A VLAN in which the switch asks and 11 seconds have passed: listeners are known.
fn known(settings: Vec<PortMulticast>, change: impl FnOnce(&mut VlanSnooping)) -> Bench {
    let mut snooping = VlanSnooping { querier: querier(OWN), ..VlanSnooping::new(VLAN) };
    change(&mut snooping);
    let mut bench = Bench::new(settings, snooping);
    bench.switch.tick(0);
    bench.switch.tick(11);
    bench
}

#[test]
fn the_switch_asks_and_asks_again_when_somebody_leaves() {
    let mut bench = Bench::new(
        vec![PortMulticast::default(); 3],
        VlanSnooping { querier: querier(OWN), ..VlanSnooping::new(VLAN) },
    );
    let queries = |bench: &Bench, port: usize| -> Vec<(Option<String>, bool)> {
        let frames = core::mem::take(&mut *bench.got[port].lock());
        let read = frames.iter().filter_map(|frame| match Packet::of(frame).unwrap() {
            Packet { source, message: Message::Query(query), .. } => {
                Some((query.group.map(|group| group.to_string()), source.is_ipv4()))
            }
            _ => None,
        });
        read.collect()
    };
    bench.switch.tick(0);
    assert_eq!(queries(&bench, 0), [(None, true), (None, false)]);
    bench.switch.tick(32);
    assert_eq!(queries(&bench, 1).len(), 4, "the second comes after a quarter of the interval");
    bench.switch.tick(33);
    assert_eq!(bench.send(0, &data(1, group(0))), BTreeSet::new());
    assert_eq!(bench.drops(0, DropReason::NoListener), 1);
    bench.send(1, &old(0x16, 0, 1, group(0), group(0)));
    assert_eq!(bench.drops(1, DropReason::ReportSnooped), 1);
    assert_eq!(bench.send(0, &data(1, group(0))), BTreeSet::from([1]));
    assert_eq!(
        bench.send(0, &data(1, group(1))),
        BTreeSet::new(),
        "another group with the same Ethernet address"
    );
    (0..3).for_each(|port| drop(queries(&bench, port)));
    bench.send(1, &old(0x17, 0, 1, Ipv4Addr::new(224, 0, 0, 2), group(0)));
    bench.switch.tick_ns(33_200_000_000);
    bench.switch.tick_ns(34_300_000_000);
    assert_eq!(queries(&bench, 1), vec![(Some("239.1.1.1".to_owned()), true); 2]);
    assert_eq!(queries(&bench, 2), [], "only where somebody left");
    assert_eq!(bench.send(0, &data(1, group(0))), BTreeSet::from([1]), "not known yet");
    bench.switch.tick(35);
    assert_eq!(bench.send(0, &data(1, group(0))), BTreeSet::new());
    let seen = bench.switch.multicast(VLAN).unwrap();
    assert_eq!(
        (seen.igmp.querier, seen.igmp.restricts, seen.groups.len()),
        (QuerierState::Own(OWN.into()), true, 0)
    );
    assert_eq!((seen.stats.reports, seen.stats.leaves), (1, 1));
    assert!(bench.switch.totals().balance());
}

#[test]
fn what_always_goes_everywhere_does_and_settings_are_followed() {
    let two = BTreeSet::from([1, 2]);
    let mut bench = known(vec![PortMulticast::default(); 3], |_| {});
    assert_eq!(bench.send(0, &data(1, Ipv4Addr::new(224, 0, 0, 251))), two);
    let mut other = data(1, group(0));
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert_eq!(bench.send(0, &other), two, "not IP");
    let mut bench = known(vec![PortMulticast::default(); 3], |s| s.unregistered = Unregistered::Flood);
    assert_eq!(bench.send(0, &data(1, group(0))), two);
    let router = PortMulticast { router: RouterPort::Always, ..PortMulticast::default() };
    let never = PortMulticast { router: RouterPort::Never, ..PortMulticast::default() };
    let mut bench = known(vec![never, router, PortMulticast::default()], |s| {
        s.static_groups.push(StaticGroup { group: group(0).into(), port: PortId(2) });
    });
    assert_eq!(bench.send(0, &data(1, group(0))), two, "the router and the static listener");
    assert_eq!(bench.send(0, &data(1, group(2))), BTreeSet::from([1]));
    assert_eq!(bench.send(0, &query(Ipv4Addr::new(10, 0, 0, 1), None)), BTreeSet::new());
    assert_eq!(bench.drops(0, DropReason::NotARouter), 1);
    assert_eq!(bench.send(2, &record(2, Kind::ToEx, group(2), &BTreeSet::new())), BTreeSet::from([1]));
}

#[test]
fn damaged_messages_and_too_many_groups_are_refused_and_counted() {
    let few = PortMulticast { max_entries: 3, ..PortMulticast::default() };
    let mut bench = known(vec![few; 3], |_| {});
    let mut damaged = old(0x16, 0, 1, group(0), group(0));
    *damaged.last_mut().unwrap() ^= 1;
    bench.send(1, &damaged);
    assert_eq!(bench.drops(1, DropReason::BadMembership), 1);
    for n in 0..10 {
        let group = Ipv4Addr::new(239, 9, 9, n);
        bench.send(1, &old(0x16, 0, 1, group, group));
    }
    let seen = bench.switch.multicast(VLAN).unwrap();
    assert_eq!((seen.groups.len(), seen.stats.refused), (3, 7));
    assert_eq!(seen.stats.malformed[membership::Refusal::Checksum as usize], 1);
    // A report longer than the private head of a frame.
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, 100];
    for n in 0..100 {
        message.extend([3, 0, 0, 0, 239, 9, 9, n]);
    }
    bench.send(1, &igmp(host(1), Ipv4Addr::new(224, 0, 0, 22), message));
    let seen = |bench: &Bench| bench.switch.multicast(VLAN).unwrap().groups.len();
    assert_eq!(seen(&bench), 3);
    bench.switch.tick(14);
    assert_eq!(seen(&bench), 0, "all of its hundred records were read");
}

#[test]
fn ports_that_go_and_vlans_that_are_no_longer_watched_are_forgotten() {
    let mut bench = known(vec![PortMulticast::default(); 3], |_| {});
    bench.send(1, &old(0x16, 0, 1, group(0), group(0)));
    bench.send(2, &old(0x16, 0, 2, group(0), group(0)));
    assert_eq!(bench.send(0, &data(1, group(0))), BTreeSet::from([1, 2]));
    bench.ports.truncate(2);
    bench.switch.set_ports(bench.ports.clone());
    assert_eq!(bench.send(0, &data(1, group(0))), BTreeSet::from([1]));
    assert_eq!(bench.switch.multicast(VLAN).unwrap().groups[0].members.len(), 1);
    bench.switch.configure(bench.ports.clone(), Policy::default());
    assert_eq!(bench.send(0, &data(1, group(2))), BTreeSet::from([1]), "everywhere again");
    assert_eq!(bench.switch.multicast(VLAN), None);
}
