//! The engine with ports that keep what they get, under a virtual time.

use std::sync::Arc;

use fabnic_memory::{Hint, Map};
use fabnic_port::{Egress, Fault, PortId, PortKind};
use fabnic_wire::MacAddr;
use parking_lot::Mutex;

use super::*;
use crate::switch::Shared;
use crate::{PortSettings, SwitchConfig, VlanMode};

/// Frames that a port got.
type Got = Arc<Mutex<Vec<Vec<u8>>>>;

/// An egress queue that keeps up to `room` frames.
struct Keep {
    got: Got,
    room: usize,
}

impl Egress for Keep {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for (done, &index) in picks.iter().enumerate() {
            let mut got = self.got.lock();
            if got.len() >= self.room {
                tally.drop(DropReason::RingFull, picks.len() - done);
                break;
            }
            let mut bytes = vec![0; burst.frames()[usize::from(index)].len() as usize];
            let n = burst.copy_out(index.into(), &mut bytes);
            assert_eq!(n, bytes.len());
            tally.deliver(n as u32);
            got.push(bytes);
        }
        Ok(())
    }
}

pub(super) struct Bench {
    shared: Shared,
    engine: Engine,
    ports: Vec<(Arc<Port>, PortSettings)>,
    got: Vec<Got>,
    received: u64,
    memory: Arc<Map>,
}

impl Bench {
    pub(super) fn new(settings: Vec<PortSettings>, ageing: u64) -> Bench {
        let config =
            SwitchConfig { ageing: std::time::Duration::from_secs(ageing), ..SwitchConfig::default() };
        let shared = Shared::new(&config);
        let engine = shared.engine();
        let (mut ports, mut got) = (Vec::new(), Vec::new());
        for (settings, id) in settings.into_iter().zip(1..) {
            let port = Arc::new(Port::new(PortId(id), &format!("p{id}"), PortKind::Loopback, 1));
            let frames = Got::default();
            port.egress()[0].install(Box::new(Keep { got: Arc::clone(&frames), room: usize::MAX }));
            port.refresh_egress();
            ports.push((port, settings));
            got.push(frames);
        }
        let (memory, _) = Map::anonymous(1 << 20).unwrap();
        let mut bench = Bench { shared, engine, ports, got, received: 0, memory };
        bench.publish();
        bench
    }

    pub(super) fn publish(&mut self) {
        self.publish_with(None);
    }

    pub(super) fn publish_with(&mut self, policy: Option<crate::Policy>) {
        let (topology, _) = self.shared.publish(self.ports.clone(), policy);
        self.engine.adopt(&topology);
    }

    /// Sends frames from one port in one burst.
    pub(super) fn send(&mut self, from: usize, frames: &[&[u8]], now: u32) {
        let topology = self.shared.topology.load_full();
        let mut burst = Burst::new();
        burst.begin(&self.memory);
        for (frame, at) in frames.iter().zip((0..).step_by(16384)) {
            let slice = self.memory.translate(at, frame.len() as u32 + 12, &mut Hint::default()).unwrap();
            self.memory.write(&slice, 12, frame);
            let first = burst.slices().len();
            burst.slices_mut().push(slice);
            burst.push(first, 1, 12, frame.len() as u32).unwrap();
        }
        self.received += frames.len() as u64;
        let index = topology.index_of(self.ports[from].0.id).unwrap();
        let at = Moment { topology: &topology, tables: &self.shared.tables, now, now_ns: 0 };
        self.engine.process(&at, index, &mut burst);
    }

    /// What each port got since the last call.
    pub(super) fn take(&self) -> Vec<Vec<Vec<u8>>> {
        self.got.iter().map(|got| core::mem::take(&mut *got.lock())).collect()
    }

    pub(super) fn age(&self, now: u32) {
        self.shared.age(now);
    }

    fn assert_balance(&self) {
        let ports = self.ports.iter().map(|(port, _)| &**port);
        let totals = crate::SwitchTotals::sum(ports, self.engine.counters.replicated);
        assert_eq!(self.received + totals.replicated, totals.delivered + totals.dropped, "{totals:?}");
    }

    fn drops(&self, port: usize) -> Vec<(&'static str, u64)> {
        let port = &self.ports[port].0;
        crate::drops(&port.rx_drops)
            .chain(crate::drops(&port.tx_drops))
            .map(|(r, n)| (r.label(), n))
            .collect()
    }
}

/// A queue that fails before it has looked at the burst.
struct Broken;

impl Ingress for Broken {
    fn backlog(&mut self) -> usize {
        1
    }
    fn receive(&mut self, _burst: &mut Burst) -> Result<(), Fault> {
        Err(Fault("broken".to_owned()))
    }
    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }
    fn arm(&mut self) -> bool {
        false
    }
    fn disarm(&mut self) {}
    fn wake(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}

#[test]
fn a_queue_that_fails_sends_no_frames_of_another() {
    let mut bench = Bench::new(vec![PortSettings::default(); 3], 300);
    let mut burst = Burst::new();
    burst.begin(&bench.memory);
    burst.push_bytes(&frame(mac(9), mac(1), None, 60)).unwrap();
    let topology = bench.shared.topology.load_full();
    let at = Moment { topology: &topology, tables: &bench.shared.tables, now: 0, now_ns: 0 };
    let port = Arc::clone(&bench.ports[1].0);
    let index = topology.index_of(port.id).unwrap();
    let (frames, failed) = bench.engine.serve(&at, index, &port.ingress()[0], &mut Broken, &mut burst);
    assert_eq!((frames, failed.is_err()), (0, true));
    assert!(bench.take().iter().all(Vec::is_empty), "the burst held a frame of the first port");
    assert_eq!(bench.shared.tables.fdb.len(), 0);
}

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(dst: [u8; 6], src: [u8; 6], tag: Option<u16>, len: usize) -> Vec<u8> {
    let mut bytes = [&dst[..], &src[..]].concat();
    if let Some(tci) = tag {
        bytes.extend([0x81, 0]);
        bytes.extend(tci.to_be_bytes());
    }
    bytes.extend([8, 0]);
    bytes.extend((bytes.len()..len).map(|i| i as u8));
    bytes
}

fn access(vid: u16) -> PortSettings {
    PortSettings { vlan: VlanMode::Access(Vid::new(vid).unwrap()), ..PortSettings::default() }
}

fn trunk(vlans: &[u16], native: Option<u16>) -> PortSettings {
    let vid = |n: u16| Vid::new(n).unwrap();
    let vlan = VlanMode::Trunk { vlans: vlans.iter().copied().map(vid).collect(), native: native.map(vid) };
    PortSettings { vlan, ..PortSettings::default() }
}

#[test]
fn floods_learns_and_then_sends_to_one() {
    let mut bench = Bench::new(vec![access(1); 3], 300);
    let (a, b) = (frame(mac(2), mac(1), None, 60), frame(mac(1), mac(2), None, 1500));
    bench.send(0, &[&a], 0);
    assert_eq!(bench.take(), [vec![], vec![a.clone()], vec![a.clone()]]);
    bench.send(1, &[&b, &b], 0);
    assert_eq!(bench.take(), [vec![b.clone(), b.clone()], vec![], vec![]]);
    bench.send(0, &[&a], 0);
    assert_eq!(bench.take(), [vec![], vec![a.clone()], vec![]], "the flooded flow was decided anew");
    bench.send(2, &[&frame(mac(9), mac(2), None, 60)], 1);
    bench.take();
    bench.send(0, &[&a], 1);
    assert_eq!(bench.take(), [vec![], vec![], vec![a.clone()]], "the address has moved");
    bench.age(1000);
    bench.send(0, &[&a], 1000);
    assert_eq!(bench.take(), [vec![], vec![a.clone()], vec![a.clone()]], "the address has aged out");
    bench.assert_balance();
}

#[test]
fn a_burst_parts_ways_and_keeps_order() {
    let mut bench = Bench::new(vec![access(1); 4], 300);
    for port in 1..4 {
        bench.send(port, &[&frame(mac(99), mac(port as u8), None, 60)], 0);
    }
    bench.take();
    let frames: Vec<Vec<u8>> = (0..64_u8)
        .map(|i| {
            let dst = if i % 7 == 0 { [0xff; 6] } else { mac(1 + i % 3) };
            frame(dst, mac(50), None, 60 + usize::from(i) * 20)
        })
        .collect();
    bench.send(0, &frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), 0);
    let got = bench.take();
    for port in 1..4_u8 {
        let unicast = frames.iter().filter(|f| f[..6] == mac(port));
        let broadcast = frames.iter().filter(|f| f[0] == 0xff);
        let expected: Vec<_> = unicast.chain(broadcast).cloned().collect();
        assert_eq!(got[usize::from(port)], expected);
    }
    assert!(got[0].is_empty());
    bench.assert_balance();
}

#[test]
fn tags_are_pushed_and_popped_for_each_copy() {
    let mut bench =
        Bench::new(vec![access(10), access(10), trunk(&[10, 20], None), trunk(&[20], Some(10))], 300);
    let plain = frame([0xff; 6], mac(1), None, 200);
    let tagged = |tci| frame([0xff; 6], mac(1), Some(tci), 204);
    let body = |bytes: &[u8]| bytes[bytes.len() - 180..].to_vec();
    bench.send(0, &[&plain], 0);
    let got = bench.take();
    assert_eq!((&got[1][0], &got[3][0]), (&plain, &plain));
    assert_eq!(got[2][0][..18], tagged(10)[..18]);
    assert_eq!(body(&got[2][0]), body(&plain));
    // From a trunk, with priority: it is kept where the frame leaves tagged.
    bench.send(2, &[&tagged(0xa00a)], 0);
    let got = bench.take();
    assert_eq!(got[0][0][..14], plain[..14]);
    assert_eq!(got[0][0].len(), 200);
    assert_eq!(got[3][0].len(), 200, "native");
    bench.send(3, &[&frame([0xff; 6], mac(4), Some(0x6014), 100)], 0);
    let got = bench.take();
    assert!(got[0].is_empty() && got[1].is_empty());
    assert_eq!(got[2][0], frame([0xff; 6], mac(4), Some(0x6014), 100));
    // Priority tag: counts as untagged.
    bench.send(0, &[&tagged(0xe000)], 0);
    let got = bench.take();
    assert_eq!(got[1][0].len(), 200);
    assert_eq!(got[2][0][14..16], 0xe00a_u16.to_be_bytes());
    bench.send(2, &[&plain], 0);
    bench.send(2, &[&tagged(30)], 0);
    bench.send(0, &[&tagged(20)], 0);
    assert_eq!(bench.take().concat(), Vec::<Vec<u8>>::new());
    assert_eq!(bench.drops(2), [("vlan_not_allowed", 1), ("untagged_not_allowed", 1)]);
    assert_eq!(bench.drops(0), [("vlan_not_allowed", 1)]);
    bench.assert_balance();
}

#[test]
fn what_is_not_delivered_has_a_reason() {
    let small = PortSettings { mtu: 500, ..access(1) };
    let closed = PortSettings { enabled: false, ..access(1) };
    let mut bench = Bench::new(vec![access(1), small, closed, access(1)], 300);
    bench.send(1, &[&frame(mac(99), mac(2), None, 60)], 0);
    bench.take();
    bench.send(0, &[&frame(mac(2), mac(1), None, 514), &frame(mac(2), mac(1), None, 515)], 0);
    assert_eq!(bench.take()[1].len(), 1);
    assert_eq!(bench.drops(1), [("egress_mtu", 1)]);
    bench.send(1, &[&frame(mac(1), mac(2), None, 515)], 0);
    bench.send(2, &[&frame(mac(1), mac(3), None, 60)], 0);
    bench.send(0, &[&frame(mac(2), [1, 0, 0, 0, 0, 9], None, 60)], 0);
    bench.send(0, &[&frame([1, 0x80, 0xc2, 0, 0, 3], mac(1), None, 60)], 0);
    bench.send(0, &[&frame(mac(1), mac(1), None, 60)], 0);
    bench.send(0, &[&[1, 2, 3]], 0);
    assert_eq!(bench.take().concat(), Vec::<Vec<u8>>::new());
    assert_eq!(
        bench.drops(0),
        [("runt", 1), ("bad_source", 1), ("reserved_destination", 1), ("same_port", 1)]
    );
    assert_eq!(bench.drops(2), [("ingress_disabled", 1)]);
    bench.ports[3].0.egress()[0].remove();
    bench.ports[3].0.refresh_egress();
    bench.ports[1].1.enabled = false;
    bench.publish();
    bench.send(0, &[&frame(mac(2), mac(1), None, 60), &frame([0xff; 6], mac(1), None, 60)], 0);
    assert_eq!(bench.take().concat(), Vec::<Vec<u8>>::new());
    assert_eq!(bench.drops(1), [("ingress_mtu", 1), ("egress_disabled", 1), ("egress_mtu", 1)]);
    assert_eq!(bench.drops(3), [("not_ready", 1)]);
    bench.assert_balance();
}

#[test]
fn settings_that_change_change_cached_flows_at_once() {
    let mut bench = Bench::new(vec![access(1), access(1)], 300);
    let (a, b) = (frame(mac(2), mac(1), None, 60), frame(mac(1), mac(2), None, 60));
    for _ in 0..3 {
        bench.send(0, &[&a], 0);
        bench.send(1, &[&b], 0);
    }
    bench.take();
    bench.ports[1].1 = access(2);
    bench.publish();
    bench.send(0, &[&a], 0);
    bench.send(1, &[&b], 0);
    assert_eq!(bench.take().concat(), Vec::<Vec<u8>>::new());
    assert_eq!(bench.drops(0), [("no_member", 1)]);
    let gone = bench.ports.remove(1);
    bench.got.remove(1);
    bench.publish();
    assert!(bench.shared.tables.fdb.entries().iter().all(|entry| entry.port != gone.0.id));
    assert_eq!(MacAddr::new(mac(1)), bench.shared.tables.fdb.entries()[0].mac);
}

#[test]
fn a_capture_sees_what_came_in_and_what_went_out_with_the_verdict() {
    type Seen = Mutex<Vec<(Direction, String, usize)>>;
    struct Sink(Seen);
    impl fabnic_port::CaptureSink for Sink {
        fn is_active(&self) -> bool {
            true
        }
        fn offer(&self, burst: &Burst, index: usize, direction: Direction, verdict: Verdict<'_>) {
            let len = burst.frames()[index].len() as usize;
            self.0.lock().push((direction, verdict.to_string(), len));
        }
    }
    let mut bench =
        Bench::new(vec![access(10), trunk(&[10], None), PortSettings { mtu: 100, ..access(10) }], 300);
    let sinks: Vec<_> = (0..3).map(|_| Arc::new(Sink(Mutex::default()))).collect();
    for (sink, (port, _)) in sinks.iter().zip(&bench.ports) {
        port.captures.add(Arc::clone(sink) as _);
    }
    bench.send(0, &[&frame([0xff; 6], mac(1), None, 200), &frame([0xff; 6], [0; 6], None, 60)], 0);
    bench.send(1, &[&frame(mac(1), mac(2), Some(10), 204)], 0);
    let seen = |port: usize| core::mem::take(&mut *sinks[port].0.lock());
    let of = |direction, verdict: &str, len| (direction, verdict.to_owned(), len);
    let (a, b, c) = (seen(0), seen(1), seen(2));
    assert_eq!(
        a,
        [
            of(Direction::In, "flooded to 2 ports", 200),
            of(Direction::In, "dropped: bad_source", 60),
            of(Direction::Out, "delivered", 200)
        ]
    );
    assert_eq!(b, [of(Direction::Out, "delivered", 204), of(Direction::In, "forwarded to p1", 204)]);
    assert_eq!(c, [of(Direction::Out, "dropped: egress_mtu", 200)]);
    bench.assert_balance();
}

fn mirror(target: u32) -> crate::MirrorSettings {
    crate::MirrorSettings {
        name: "m".to_owned(),
        target: PortId(target),
        ingress: Vec::new(),
        egress: Vec::new(),
        vlans: Vec::new(),
        snap: None,
        sample: 1,
    }
}

#[test]
fn mirrors_copy_what_they_are_told_to_and_take_nothing_away() {
    // Ports have the numbers 1 to 4; the last one is the mirrors' target and in a VLAN of its own, with a small MTU.
    let target = PortSettings { mtu: 100, ..access(99) };
    let mut bench = Bench::new(vec![access(10), access(10), trunk(&[10, 20], None), target], 300);
    let (a, b) = (frame(mac(2), mac(1), None, 300), frame(mac(1), mac(2), None, 200));
    bench.send(0, &[&a], 0);
    bench.send(1, &[&b], 0);
    bench.take();
    let with = |settings| crate::Policy { mirrors: vec![settings], ..crate::Policy::default() };

    bench.publish_with(Some(with(crate::MirrorSettings { ingress: vec![PortId(1)], ..mirror(4) })));
    bench.send(0, &[&a, &a], 0);
    bench.send(1, &[&b], 0);
    let got = bench.take();
    assert_eq!(
        (&got[1], &got[3]),
        (&vec![a.clone(); 2], &vec![a.clone(); 2]),
        "as it came, whatever its length"
    );
    assert_eq!(got[0], [b]);

    // What is dropped was still received.
    bench.send(0, &[&frame(mac(1), mac(1), None, 60)], 0);
    assert_eq!(bench.take()[3].len(), 1);

    bench.publish_with(Some(with(crate::MirrorSettings { egress: vec![PortId(3)], ..mirror(4) })));
    bench.send(0, &[&frame([0xff; 6], mac(1), None, 100)], 0);
    let got = bench.take();
    assert_eq!(got[2], got[3], "as it leaves, with its tag");
    assert_eq!(got[3][0].len(), 104);

    let twenty = Vid::new(20).unwrap();
    bench.publish_with(Some(with(crate::MirrorSettings {
        vlans: vec![twenty],
        snap: Some(64),
        ..mirror(4)
    })));
    let tagged = |vid| frame([0xff; 6], mac(3), Some(vid), 500);
    bench.send(2, &[&tagged(10), &tagged(20), &tagged(20)], 0);
    let got = bench.take();
    assert_eq!(got[3], [&tagged(20)[..64], &tagged(20)[..64]]);
    assert_eq!(got[0].len(), 1, "VLAN 10");

    bench.publish_with(Some(with(crate::MirrorSettings {
        ingress: vec![PortId(1)],
        sample: 3,
        ..mirror(4)
    })));
    bench.send(0, &[&a, &a, &a, &a], 0);
    bench.send(0, &[&a, &a, &a], 0);
    assert_eq!(bench.take()[3].len(), 3);

    // A target that is full loses copies; the mirrored port loses nothing.
    bench.ports[3].0.egress()[0].install(Box::new(Keep { got: Got::default(), room: 0 }));
    bench.send(0, &[&a; 64].map(Vec::as_slice), 0);
    let got = bench.take();
    assert_eq!((got[1].len(), got[3].len()), (64, 0));
    assert!(bench.drops(3).contains(&("ring_full", 21)), "{:?}", bench.drops(3));
    bench.assert_balance();
}

#[test]
fn dropped_frames_are_kept_for_whoever_asks_why() {
    let mut bench = Bench::new(vec![access(1), PortSettings { enabled: false, ..access(1) }], 300);
    let own = frame(mac(1), mac(1), None, 60);
    bench.send(0, &[&own], 7);
    let drops = bench.ports[0].0.recent_drops.list();
    assert_eq!((drops[0].second, drops[0].reason, &drops[0].head), (7, DropReason::SamePort, &own));
    bench.ports[1].1.enabled = true;
    bench.publish();
    bench.ports[1].0.egress()[0].install(Box::new(Keep { got: Got::default(), room: 0 }));
    bench.send(0, &[&frame(mac(9), mac(1), None, 300)], 8);
    let drops = bench.ports[1].0.recent_drops.list();
    assert_eq!((drops[0].direction, drops[0].reason), (Direction::Out, DropReason::RingFull));
    assert_eq!((drops[0].len, drops[0].head.len()), (300, 128));
}

#[test]
fn own_frames_leave_as_others_do_and_are_counted() {
    let bench = Bench::new(vec![access(10), trunk(&[10], None), PortSettings { mtu: 68, ..access(10) }], 300);
    let bytes = frame([0xff; 6], mac(77), None, 1000);
    let vlan = Vid::new(10).unwrap();
    for port in 1..4 {
        assert!(bench.shared.inject(PortId(port), vlan, &bytes));
    }
    assert!(!bench.shared.inject(PortId(9), vlan, &bytes), "no such port");
    assert!(!bench.shared.inject(PortId(1), vlan, &[0; 3000]), "too long");
    let got = bench.take();
    assert_eq!((&got[0], got[1][0].len(), got[2].len()), (&vec![bytes], 1004, 0));
    assert_eq!(got[1][0][12..16], [0x81, 0, 0, 10]);
    assert_eq!(bench.drops(2), [("egress_mtu", 1)]);
    let ports = bench.ports.iter().map(|(port, _)| &**port);
    assert!(
        crate::SwitchTotals::sum(ports, bench.shared.originated.load(core::sync::atomic::Ordering::Relaxed))
            .balance()
    );
}

fn rule(
    id: u64,
    domain: crate::Domain,
    direction: crate::Direction,
    terms: &[crate::Term],
    actions: &[crate::Action],
) -> crate::Change {
    crate::Change::Add(crate::RuleSpec {
        id: crate::RuleId(id),
        domain,
        direction,
        group: 0,
        priority: 10,
        name: format!("r{id}"),
        matches: vec![crate::Match::new(terms.iter().copied())],
        actions: actions.to_vec(),
    })
}

/// UDP over IPv4 from 10.0.0.1 to 10.0.0.2.
fn datagram(dst: [u8; 6], src: [u8; 6], ports: (u16, u16)) -> Vec<u8> {
    fabnic_testkit::packets::Packet::ethernet(dst, src)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
        .udp(ports.0, ports.1)
        .size(100)
        .build()
}

#[test]
fn rules_of_both_domains_and_directions_have_their_say_in_order() {
    use crate::{Action, Direction, Domain, RuleId, Set, Term};
    let tenant = |settings: PortSettings, number| PortSettings { tenant: Some(number), ..settings };
    let mut bench = Bench::new(vec![tenant(access(1), 1), tenant(access(1), 2), access(1)], 300);
    bench.send(1, &[&frame(mac(9), mac(2), None, 60)], 0);
    bench.take();
    let (web, dns) = (datagram(mac(2), mac(1), (1000, 80)), datagram(mac(2), mac(1), (1000, 53)));
    let port = |n| Term::DstPort { min: n, max: n };
    let (infra, one, two) = (Domain::Infrastructure, Domain::Tenant(1), Domain::Tenant(2));
    let change = |bench: &mut Bench, changes: &[crate::Change]| {
        let rules = std::sync::Arc::clone(&bench.shared.tables.rules);
        let mut widened = false;
        rules.apply(changes, |_| widened = true).unwrap();
        if widened {
            bench.publish();
        }
    };
    // Counted by a rule that lets everything on.
    change(&mut bench, &[rule(1, infra, Direction::In, &[], &[Action::Continue])]);
    bench.send(0, &[&web, &dns], 0);
    assert_eq!(bench.take()[1], [web.clone(), dns.clone()]);
    // A tenant's own rule, of the port that it comes from; nobody else's.
    change(&mut bench, &[rule(2, one, Direction::In, &[port(80)], &[Action::Drop])]);
    change(&mut bench, &[rule(2, two, Direction::In, &[port(53)], &[Action::Drop])]);
    bench.send(0, &[&web, &dns, &web], 1);
    assert_eq!(bench.take()[1], std::slice::from_ref(&dns));
    assert_eq!(bench.drops(0), [("rule_tenant", 2)]);
    // On the way out, of the port that it goes to; and infrastructure has the last word.
    change(&mut bench, &[rule(3, two, Direction::Out, &[port(53)], &[Action::Set(Set::DstPort(5353))])]);
    bench.send(0, &[&dns], 1);
    let got = bench.take();
    assert_eq!(got[1], [datagram(mac(2), mac(1), (1000, 5353))], "rewritten, with its checksum");
    change(&mut bench, &[rule(4, infra, Direction::Out, &[port(5353)], &[Action::Drop])]);
    bench.send(0, &[&dns], 1);
    assert!(bench.take().concat().is_empty());
    assert_eq!(bench.drops(0), [("rule_infrastructure", 1), ("rule_tenant", 2)]);
    // A flooded frame is asked for each copy: port 3 is no tenant's, so nothing rewrites what goes there.
    let all = datagram([0xff; 6], mac(1), (1000, 53));
    bench.send(0, &[&all], 1);
    let got = bench.take();
    assert_eq!((&got[1], &got[2]), (&vec![], &vec![all]));
    assert_eq!(bench.drops(1), [("rule_infrastructure", 1)]);
    bench.engine.housekeeping(&bench.shared.tables, 2);
    let seen = |domain, id| bench.shared.tables.rules.get(domain, RuleId(id)).unwrap().counts.packets;
    assert_eq!((seen(infra, 1), seen(one, 2), seen(two, 3), seen(infra, 4)), (8, 2, 3, 2));
    bench.assert_balance();
}

#[test]
fn a_changed_rule_costs_the_flows_that_it_is_about_and_no_others() {
    use crate::{Action, Direction, Domain, Term};
    let mut bench = Bench::new(vec![access(1); 3], 300);
    bench.send(1, &[&frame(mac(9), mac(2), None, 60)], 0);
    bench.take();
    let port = |n| Term::DstPort { min: n, max: n };
    let apply = |bench: &mut Bench, change: crate::Change| {
        let rules = std::sync::Arc::clone(&bench.shared.tables.rules);
        let mut widened = false;
        rules.apply(&[change], |_| widened = true).unwrap();
        if widened {
            bench.publish();
        }
    };
    apply(&mut bench, rule(1, Domain::Infrastructure, Direction::In, &[port(1)], &[Action::Drop]));
    let flows: Vec<_> = (80..90).map(|n| datagram(mac(2), mac(1), (1000, n))).collect();
    let send = |bench: &mut Bench| {
        bench.send(0, &flows.iter().map(Vec::as_slice).collect::<Vec<_>>(), 0);
        bench.take()[1].len()
    };
    assert_eq!(send(&mut bench), 10);
    let before = bench.engine.counters.misses;
    assert_eq!(send(&mut bench), 10);
    assert_eq!(bench.engine.counters.misses, before);
    apply(&mut bench, rule(2, Domain::Infrastructure, Direction::In, &[port(85)], &[Action::Drop]));
    assert_eq!(send(&mut bench), 9);
    assert_eq!(bench.engine.counters.misses, before + 1, "one flow was decided anew");
    apply(&mut bench, crate::Change::Remove { domain: Domain::Infrastructure, id: crate::RuleId(2) });
    assert_eq!(send(&mut bench), 10);
    assert_eq!(bench.engine.counters.misses, before + 2);
}

#[test]
fn meters_of_ports_tenants_rules_and_floods_drop_what_is_over_their_rates() {
    use crate::{
        Action, Direction, Domain, MeterSettings, NamedMeter, StormLimit, StormSettings, TenantPolicy, Term,
        Unit,
    };
    let packets = |burst| MeterSettings::policer(Unit::Packets, 1000, burst);
    let limit = StormLimit { unit: Unit::Packets, rate: 1000, burst: 3 };
    let storm = StormSettings { broadcast: Some(limit), ..StormSettings::default() };
    let sender = PortSettings { police_ingress: Some(packets(10)), tenant: Some(1), ..access(1) };
    let other = PortSettings { tenant: Some(1), storm, ..access(1) };
    let receiver = PortSettings { police_egress: Some(packets(30)), ..access(1) };
    let mut bench = Bench::new(vec![sender, other, receiver], 300);
    let meters = vec![NamedMeter { name: "slow".to_owned(), settings: packets(2), parent: None }];
    bench.publish_with(Some(crate::Policy { meters, ..crate::Policy::default() }));
    bench.send(2, &[&frame(mac(9), mac(3), None, 60)], 0);
    bench.take();
    let to = |dst, n| vec![frame(dst, mac(1), None, 60); n];
    let send = |bench: &mut Bench, port: usize, frames: &[Vec<u8>]| {
        bench.send(port, &frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), 0);
        bench.take()[2].len()
    };
    assert_eq!(send(&mut bench, 0, &to(mac(3), 16)), 10, "the port's own burst");
    assert_eq!(bench.drops(0), [("metered", 6)]);
    // The receiver's meter, which 10 frames have passed, holds for unicast and floods.
    assert_eq!(send(&mut bench, 1, &to(mac(3), 30)), 20);
    assert_eq!(bench.drops(2), [("metered", 10)]);
    bench.ports[2].1.police_egress = None;
    bench.publish();
    assert_eq!(send(&mut bench, 1, &to([0xff; 6], 10)), 3);
    assert_eq!(bench.drops(1), [("storm_broadcast", 7)]);
    // A tenant's meter over those of its ports.
    let tenants = vec![TenantPolicy { tenant: 1, police_ingress: Some(packets(5)), max_tx_rate: None }];
    let named = vec![NamedMeter { name: "slow".to_owned(), settings: packets(2), parent: None }];
    bench.publish_with(Some(crate::Policy { meters: named, tenants, ..crate::Policy::default() }));
    assert_eq!(send(&mut bench, 1, &to(mac(3), 4)), 4);
    assert_eq!(send(&mut bench, 0, &to(mac(3), 4)), 0, "the port's meter is empty still");
    bench.ports[0].1.police_ingress = None;
    bench.publish();
    assert_eq!(send(&mut bench, 0, &to(mac(3), 4)), 1, "of the tenant's five");
    // A meter that a rule names.
    bench.publish_with(Some(crate::Policy {
        meters: vec![NamedMeter { name: "slow".to_owned(), settings: packets(2), parent: None }],
        ..crate::Policy::default()
    }));
    let rules = Arc::clone(&bench.shared.tables.rules);
    let slow = Action::Meter("slow".to_owned());
    rules
        .apply(
            &[rule(
                1,
                Domain::Infrastructure,
                Direction::In,
                &[Term::dst_mac(MacAddr::new(mac(3)))],
                &[slow],
            )],
            |_| (),
        )
        .unwrap();
    bench.publish();
    assert_eq!(send(&mut bench, 0, &to(mac(3), 5)), 2);
    let stats = |bench: &Bench, name: &str| {
        let topology = bench.shared.topology.load_full();
        let place = crate::MeterPlace::Named(name.to_owned());
        let found = topology.meters.all().find(|(at, _)| *at == place).map(|(_, meter)| meter.stats());
        found.map(|stats| (stats.green.packets, stats.red.packets, stats.refused_by_other.packets))
    };
    assert_eq!(stats(&bench, "slow"), Some((2, 3, 0)));
    // The meter over it has less, and the one under it pays nothing for what that refuses.
    let over = NamedMeter { name: "over".to_owned(), settings: packets(3), parent: None };
    let under =
        NamedMeter { name: "under".to_owned(), settings: packets(8), parent: Some("over".to_owned()) };
    bench.publish_with(Some(crate::Policy { meters: vec![under, over], ..crate::Policy::default() }));
    let remove = |id| crate::Change::Remove { domain: Domain::Infrastructure, id: crate::RuleId(id) };
    let sent = [Term::dst_mac(MacAddr::new(mac(3)))];
    let chained = [Action::Meter("under".to_owned())];
    let chained = rule(3, Domain::Infrastructure, Direction::In, &sent, &chained);
    rules.apply(&[remove(1), chained], |_| ()).unwrap();
    assert_eq!(send(&mut bench, 0, &to(mac(3), 5)), 3);
    assert_eq!((stats(&bench, "under"), stats(&bench, "over")), (Some((3, 0, 2)), Some((3, 2, 0))));
    // A rule's own, which keeps its tokens when only the rest of the rule changes.
    let police = |priority, burst| {
        let sent = [Term::dst_mac(MacAddr::new(mac(3)))];
        let actions = [Action::Police(packets(burst))];
        let mut change = rule(2, Domain::Infrastructure, Direction::In, &sent, &actions);
        if let crate::Change::Put(spec) | crate::Change::Add(spec) = &mut change {
            spec.priority = priority;
        }
        match change {
            crate::Change::Add(spec) => crate::Change::Put(spec),
            change => change,
        }
    };
    rules.apply(&[remove(3), police(2, 4)], |_| ()).unwrap();
    assert_eq!(send(&mut bench, 0, &to(mac(3), 6)), 4);
    rules.apply(&[police(3, 4)], |_| ()).unwrap();
    assert_eq!(send(&mut bench, 0, &to(mac(3), 1)), 0);
    rules.apply(&[police(3, 2)], |_| ()).unwrap();
    assert_eq!(send(&mut bench, 0, &to(mac(3), 4)), 2, "another meter");
    let (name, meter) = &rules.policers()[0];
    assert_eq!((name.as_str(), meter.stats().red.packets), ("r2", 2));
    let wrong = crate::MeterSettings {
        algorithm: crate::Algorithm::SingleRate { cir: 1, cbs: 0, ebs: 0 },
        ..packets(1)
    };
    let mut change = police(3, 1);
    if let crate::Change::Put(spec) = &mut change {
        spec.actions = vec![Action::Police(wrong)];
    }
    let error = rules.apply(&[change], |_| ()).unwrap_err();
    assert_eq!(error.source, crate::RuleError::Meter(crate::MeterError::NoBurst));
    bench.assert_balance();
}
