//! Meters and storm control of the switch against those of the reference switch; senders that are held, in turns and by
//! shares, under a virtual clock.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fabnic_memory::{Hint, Map};
use fabnic_port::{Burst, DropReason, Egress, Fault, Ingress, Port, PortId, PortKind, Tally};
use fabnic_switch::{Algorithm, ColorAction, ColorAware, MeterSettings, StormLimit, StormSettings, Unit};
use fabnic_switch::{InlineSwitch, Policy, PortSettings, Rate, SwitchConfig, TenantPolicy, VlanMode, drops};
use fabnic_testkit::reference::{self, meters};
use fabnic_wire::{MacAddr, Vid};
use meters::Place;
use parking_lot::Mutex;
use proptest::prelude::*;

mod bench;

use bench::{Connected, Frames, connect};

fn push(burst: &mut Burst, map: &Map, at: u64, frame: &[u8]) {
    let slice = map.translate(at, frame.len() as u32, &mut Hint::default()).unwrap();
    map.write(&slice, 0, frame);
    let first = burst.slices().len();
    burst.slices_mut().push(slice);
    burst.push(first, 1, 0, frame.len() as u32).unwrap();
}

const PORTS: usize = 4;

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// Both switches with the same meters.
struct Pair {
    switch: InlineSwitch,
    ports: Vec<Arc<Port>>,
    waiting: Vec<Frames>,
    got: Vec<Frames>,
    reference: reference::Switch,
    reasons: BTreeMap<&'static str, u64>,
    now_ns: u64,
}

fn settings(meter: &meters::Meter) -> MeterSettings {
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

fn limit(meter: &meters::Meter) -> StormLimit {
    let meters::Kind::Single(rate, burst, _) = meter.kind else { panic!("storm meters have one rate") };
    StormLimit { unit: if meter.packets { Unit::Packets } else { Unit::Bits }, rate, burst }
}

impl Pair {
    fn new(meters: &BTreeMap<Place, meters::Meter>) -> Pair {
        let configs = (0..PORTS).map(|port| reference::PortConfig {
            // The last one is a trunk: what goes to it is longer than what was metered.
            vlan: match port {
                3 => reference::Vlan::Trunk { vlans: [1].into(), native: None },
                _ => reference::Vlan::Access(1),
            },
            learning: false,
            tenant: Some(1 + port as u32 / 2),
            ..reference::PortConfig::default()
        });
        let config =
            reference::Config { ports: configs.collect(), ageing: 300, damping: None, rules: Vec::new() };
        let mut pair = Pair {
            switch: InlineSwitch::new(&SwitchConfig::default()),
            ports: Vec::new(),
            waiting: Vec::new(),
            got: Vec::new(),
            reference: reference::Switch::new(config),
            reasons: BTreeMap::new(),
            now_ns: 0,
        };
        let at = |place: Place| meters.get(&place).map(settings);
        let storm = |port: usize, kind: usize| meters.get(&Place::Storm(port, kind)).map(limit);
        let mut ports = Vec::new();
        for id in 0..PORTS {
            let Connected { port, waiting, got } = connect(PortId(id as u32 + 7));
            let vlan = match id {
                3 => VlanMode::Trunk { vlans: [Vid::DEFAULT].into_iter().collect(), native: None },
                _ => VlanMode::Access(Vid::DEFAULT),
            };
            let settings = PortSettings {
                vlan,
                learning: false,
                tenant: Some(1 + id as u32 / 2),
                police_ingress: at(Place::Ingress(id)),
                police_egress: at(Place::Egress(id)),
                storm: StormSettings {
                    broadcast: storm(id, 0),
                    multicast: storm(id, 1),
                    unknown_unicast: storm(id, 2),
                },
                ..PortSettings::default()
            };
            ports.push((Arc::clone(&port), settings));
            pair.ports.push(port);
            pair.waiting.push(waiting);
            pair.got.push(got);
        }
        let tenants = [1, 2].map(|tenant| TenantPolicy {
            tenant,
            police_ingress: at(Place::Tenant(tenant)),
            max_tx_rate: None,
        });
        pair.switch.configure(ports, Policy { tenants: tenants.to_vec(), ..Policy::default() });
        *pair.reference.meters() = meters::Meters::new(meters.iter().map(|(place, meter)| (*place, *meter)));
        for port in 0..PORTS {
            let mac = station(port as u8);
            pair.switch.fdb().add_static(Vid::DEFAULT, MacAddr::new(mac), pair.ports[port].id).unwrap();
            pair.reference.add_static(1, mac, port);
        }
        pair
    }

    fn send(&mut self, port: usize, frames: &[Vec<u8>]) {
        self.reference.meters().set_time(self.now_ns);
        self.switch.tick_ns(self.now_ns);
        let mut expected: Vec<Vec<Vec<u8>>> = vec![Vec::new(); PORTS];
        for frame in frames {
            let outcome = self.reference.input(port, frame, self.now_ns / 1_000_000_000);
            for reason in outcome.reasons() {
                *self.reasons.entry(reason).or_default() += 1;
            }
            for (to, bytes) in outcome.delivered {
                expected[to].push(bytes);
            }
        }
        self.waiting[port].lock().extend(frames.iter().cloned());
        assert_eq!(self.switch.poll(self.ports[port].id, 0), Ok(frames.len()));
        for (to, mut expected) in expected.into_iter().enumerate() {
            let mut got = core::mem::take(&mut *self.got[to].lock());
            got.sort();
            expected.sort();
            assert_eq!(got, expected, "from port {port} to port {to}");
        }
    }

    fn check(&self) {
        let mut reasons = BTreeMap::new();
        for port in &self.ports {
            for (reason, count) in drops(&port.rx_drops).chain(drops(&port.tx_drops)) {
                *reasons.entry(reason.label()).or_default() += count;
            }
        }
        assert_eq!(reasons, self.reasons);
        assert!(self.switch.totals().balance());
    }
}

/// Where a frame goes: a station, one that nobody knows, a group, all.
fn frame_of(src: usize, dst: u8, len: usize, kind: u8, tagged: bool) -> Vec<u8> {
    let dst = match dst {
        0..=3 => station(dst),
        4 => station(99),
        5 => [1, 0, 0x5e, 1, 2, 3],
        _ => [0xff; 6],
    };
    let mut frame = [dst, station(src as u8)].concat();
    // The trunk's frames are tagged.
    if src == 3 || tagged && kind == 9 {
        frame.extend([0x81, 0, 0x20, 1]);
    }
    // AF11, AF12, AF13, AF32, AF43, best effort, EF, and one whose class is none.
    let dscp = [10_u8, 12, 14, 28, 38, 0, 46, 52][usize::from(kind / 3 % 8)];
    match kind % 3 {
        0 => frame.extend([0x88, 0xb5]),
        1 => {
            frame.extend([
                0x08,
                0x00,
                0x45,
                dscp << 2 | 2,
                0,
                46,
                0,
                1,
                0,
                0,
                64,
                17,
                0,
                0,
                10,
                0,
                0,
                1,
                10,
                0,
                0,
                2,
            ]);
            let at = frame.len() - 20;
            let sum: u32 = frame[at..].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
            let sum = (sum & 0xffff) + (sum >> 16);
            frame[at + 10..at + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        _ => {
            frame.extend([0x86, 0xdd, 0x60 | dscp >> 2, dscp << 6 | 0x11, 2, 3, 0, 20, 59, 64]);
            frame.extend([0xfd; 32]);
        }
    }
    frame.resize(frame.len().max(len), 0x5a);
    frame
}

fn rate() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..2_000, 8_000_u64..10_000_000, 0_u64..10_000_000_000]
}

fn burst() -> impl Strategy<Value = u64> {
    prop_oneof![1_u64..10, 10_u64..5_000]
}

fn meter() -> impl Strategy<Value = meters::Meter> {
    let yellow = prop_oneof![
        Just(meters::Yellow::Pass),
        Just(meters::Yellow::Drop),
        (0_u8..64).prop_map(meters::Yellow::Dscp)
    ];
    let kind =
        (0_u8..3, rate(), burst(), rate(), burst()).prop_map(|(kind, cir, cbs, more, other)| match kind {
            0 => meters::Kind::Single(cir, cbs, other),
            1 => meters::Kind::Two(cir, cbs, cir + more, other),
            _ => meters::Kind::Efficient(cir, cbs, more, other),
        });
    let aware = prop::sample::select(vec![
        meters::Aware::No,
        meters::Aware::Meters,
        meters::Aware::Dscp,
        meters::Aware::Dscp,
    ]);
    (any::<bool>(), kind, aware, yellow).prop_map(|(packets, kind, aware, yellow)| meters::Meter {
        packets,
        kind,
        aware,
        yellow,
    })
}

fn places() -> impl Strategy<Value = BTreeMap<Place, meters::Meter>> {
    let place = (0_u8..4, 0..PORTS, 0_usize..3).prop_map(|(kind, port, flood)| match kind {
        0 => Place::Ingress(port),
        1 => Place::Egress(port),
        2 => Place::Tenant(1 + port as u32 / 2),
        _ => Place::Storm(port, flood),
    });
    prop::collection::vec((place, meter(), rate(), burst()), 1..10).prop_map(|all| {
        let fit = |(place, mut meter, rate, burst): (Place, meters::Meter, u64, u64)| {
            match place {
                // One rate, and nothing is marked.
                Place::Storm(..) => {
                    meter.kind = meters::Kind::Single(rate, burst, 0);
                    (meter.aware, meter.yellow) = (meters::Aware::No, meters::Yellow::Pass);
                }
                // Copies share their bytes.
                Place::Egress(_) if matches!(meter.yellow, meters::Yellow::Dscp(_)) => {
                    meter.yellow = meters::Yellow::Pass;
                }
                _ => {}
            }
            (place, meter)
        };
        all.into_iter().map(fit).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Random meters at random places, random traffic: what is delivered, byte for byte, and why the rest is not.
    #[test]
    fn the_switch_meters_as_the_reference_does(
        meters in places(),
        traffic in prop::collection::vec(
            (
                prop_oneof![0_u64..10_000, 0_u64..50_000_000, 0_u64..3_000_000_000],
                0..PORTS,
                prop::collection::vec((0_u8..7, 60_usize..1400, any::<u8>()), 1..24),
            ),
            1..24,
        ),
    ) {
        let mut pair = Pair::new(&meters);
        // Copies to one port are metered in another order than frames came, where some of a burst are flooded.
        let alone = meters.keys().any(|place| matches!(place, Place::Egress(_)));
        for (gap, port, frames) in traffic {
            pair.now_ns += gap;
            let frames: Vec<_> =
                frames.into_iter().map(|(dst, len, kind)| frame_of(port, dst, len, kind, false)).collect();
            if alone {
                frames.chunks(1).for_each(|frame| pair.send(port, frame));
            } else {
                pair.send(port, &frames);
            }
        }
        pair.check();
    }
}

/// A sender that always has more, or has a frame every so many nanoseconds.
struct Endless {
    map: Arc<Map>,
    frame: Vec<u8>,
    /// Nanoseconds a frame, and the clock; none: always more.
    pace: Option<(u64, Arc<AtomicU64>)>,
    made: u64,
}

impl Endless {
    fn ready(&self) -> usize {
        match &self.pace {
            None => usize::MAX,
            Some((pace, clock)) => (clock.load(Ordering::Relaxed) / pace).saturating_sub(self.made) as usize,
        }
    }
}

impl Ingress for Endless {
    fn backlog(&mut self) -> usize {
        self.ready()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        for number in 0..burst.wanted().min(self.ready()) {
            push(burst, &self.map, number as u64 * 4096, &self.frame);
            self.made += 1;
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Counts what is delivered, by sender; with a ring that is emptied at a pace, 64 frames at a time.
struct Counting {
    by_sender: Arc<Mutex<[u64; 8]>>,
    /// Nanoseconds a frame, and the clock.
    pace: Option<(u64, Arc<AtomicU64>)>,
    ring: u64,
    emptied: u64,
}

impl Egress for Counting {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        if let Some((pace, clock)) = &self.pace {
            let batches = (clock.load(Ordering::Relaxed) - self.emptied) / (64 * pace);
            self.emptied += batches * 64 * pace;
            self.ring = self.ring.saturating_sub(batches * 64);
        }
        for &pick in picks {
            let frame = &burst.frames()[usize::from(pick)];
            if self.pace.is_some() && self.ring >= 256 {
                tally.drop(DropReason::RingFull, 1);
                continue;
            }
            self.ring += 1;
            self.by_sender.lock()[usize::from(frame.head()[11])] += u64::from(frame.len());
            tally.deliver(frame.len());
        }
        Ok(())
    }
}

struct Turns {
    switch: InlineSwitch,
    ports: Vec<Arc<Port>>,
    got: Vec<Arc<Mutex<[u64; 8]>>>,
    clock: Arc<AtomicU64>,
}

/// A sender: its settings, where it sends (every so many frames are told apart by ports, not here), frame size, pace.
struct Sender {
    settings: PortSettings,
    to: usize,
    len: usize,
    pace: Option<u64>,
}

fn sender(to: usize, settings: PortSettings) -> Sender {
    Sender { settings, to, len: 1000, pace: None }
}

impl Turns {
    /// Senders, and behind them as many receivers as are named; `receiver` are the settings of those and the pace at which
    /// they take frames.
    fn new(senders: Vec<Sender>, receiver: (PortSettings, Option<u64>), tenants: Vec<TenantPolicy>) -> Turns {
        let clock = Arc::new(AtomicU64::new(0));
        let receivers = senders.iter().map(|sender| sender.to + 1).max().unwrap();
        let count = senders.len();
        let mut turns = Turns {
            switch: InlineSwitch::new(&SwitchConfig::default()),
            ports: Vec::new(),
            got: Vec::new(),
            clock: Arc::clone(&clock),
        };
        let mut ports = Vec::new();
        for (id, sender) in senders.iter().enumerate() {
            let port = Arc::new(Port::new(PortId(id as u32), &format!("s{id}"), PortKind::Loopback, 1));
            let (map, _) = Map::anonymous(64 * 4096).unwrap();
            let frame = frame_of(id, 0, sender.len, 0, false);
            let mut frame = frame;
            frame[..6].copy_from_slice(&station(100 + sender.to as u8));
            let pace = sender.pace.map(|pace| (pace, Arc::clone(&clock)));
            port.ingress()[0].install(Box::new(Endless { map, frame, pace, made: 0 }));
            ports.push((port, PortSettings { learning: false, ..sender.settings.clone() }));
        }
        for to in 0..receivers {
            let id = PortId((count + to) as u32);
            let port = Arc::new(Port::new(id, &format!("r{to}"), PortKind::Loopback, 1));
            let by_sender = Arc::new(Mutex::new([0; 8]));
            let pace = receiver.1.map(|pace| (pace, Arc::clone(&clock)));
            let sink = Counting { by_sender: Arc::clone(&by_sender), pace, ring: 0, emptied: 0 };
            port.egress()[0].install(Box::new(sink));
            port.refresh_egress();
            turns.got.push(by_sender);
            ports.push((port, PortSettings { learning: false, ..receiver.0.clone() }));
        }
        turns.ports = ports.iter().map(|(port, _)| Arc::clone(port)).collect();
        turns.switch.configure(ports, Policy { tenants, ..Policy::default() });
        for to in 0..receivers {
            let mac = MacAddr::new(station(100 + to as u8));
            turns.switch.fdb().add_static(Vid::DEFAULT, mac, turns.ports[count + to].id).unwrap();
        }
        turns
    }

    /// Rounds for so many milliseconds: each frame takes the worker 50 ns. Gives what each receiver got of each sender in the
    /// second half, in bits a second.
    fn run(&mut self, ms: u64) -> Vec<[u64; 8]> {
        let (half, end) = (ms * 500_000, ms * 1_000_000);
        let mut at_half = None;
        let mut now = 0;
        while now < end {
            if now >= half && at_half.is_none() {
                at_half = Some(self.got.iter().map(|got| *got.lock()).collect::<Vec<_>>());
            }
            self.clock.store(now, Ordering::Relaxed);
            self.switch.tick_ns(now);
            now += 2_000 + 50 * self.switch.round() as u64;
        }
        let mut bits = Vec::new();
        for (got, before) in self.got.iter().zip(at_half.unwrap()) {
            let mut now = *got.lock();
            now.iter_mut().zip(before).for_each(|(now, before)| *now = (*now - before) * 8 * 1000 / (ms / 2));
            bits.push(now);
        }
        bits
    }
}

fn is_near(got: u64, expected: u64, percent: u64) {
    assert!(got.abs_diff(expected) <= expected * percent / 100, "{got}, expected {expected}");
}

#[test]
fn senders_are_held_to_their_rates() {
    let max = |rate| PortSettings { max_tx_rate: Some(rate), ..PortSettings::default() };
    let senders = vec![
        sender(0, max(Rate::bits(10_000_000))),
        sender(0, max(Rate::bits(2_000_000_000))),
        sender(0, max(Rate::packets(5_000))),
        Sender { pace: Some(100_000), ..sender(0, PortSettings::default()) },
    ];
    let mut turns = Turns::new(senders, (PortSettings::default(), None), Vec::new());
    let [first, second, third, fourth, ..] = turns.run(400)[0];
    is_near(first, 10_000_000, 1);
    is_near(second, 2_000_000_000, 1);
    is_near(third, 40_000_000, 1);
    is_near(fourth, 80_000_000, 1);
    // Nothing of it was lost: it waited.
    assert!(turns.ports.iter().all(|port| port.rx_drops.total() + port.tx_drops.total() == 0));
    assert!(turns.switch.totals().balance());
}

#[test]
fn a_tenants_rate_goes_to_guarantees_priorities_and_weights() {
    let of = |min: Option<u64>, tx_weight, tx_priority| PortSettings {
        min_tx_rate: min.map(Rate::bits),
        tx_weight,
        tx_priority,
        tenant: Some(1),
        ..PortSettings::default()
    };
    let senders = vec![
        sender(0, of(None, 100, 3)),
        sender(0, of(None, 300, 3)),
        // Its guarantee, though it has the lowest priority.
        Sender { len: 300, ..sender(0, of(Some(100_000_000), 100, 0)) },
        // What little it has goes first.
        Sender { pace: Some(80_000), ..sender(0, of(None, 1, 7)) },
    ];
    let tenant =
        TenantPolicy { tenant: 1, police_ingress: None, max_tx_rate: Some(Rate::bits(1_000_000_000)) };
    let mut turns = Turns::new(senders, (PortSettings::default(), None), vec![tenant]);
    let [first, second, third, fourth, ..] = turns.run(400)[0];
    is_near(first, 200_000_000, 2);
    is_near(second, 600_000_000, 2);
    is_near(third, 100_000_000, 2);
    is_near(fourth, 100_000_000, 2);
}

#[test]
fn senders_to_a_congested_port_have_fair_shares() {
    let run = |fair_share| {
        let weight = |tx_weight| PortSettings { tx_weight, ..PortSettings::default() };
        let senders = vec![
            Sender { pace: Some(4_000), ..sender(0, weight(100)) },
            sender(0, weight(100)),
            sender(0, weight(200)),
        ];
        // A frame in 1000 ns: 8 Gb/s.
        let receiver = PortSettings { fair_share, ..PortSettings::default() };
        let mut turns = Turns::new(senders, (receiver, Some(1_000)), Vec::new());
        let got = turns.run(300)[0];
        assert!(turns.switch.totals().balance());
        (
            got,
            turns.ports[3].tx_drops.get(DropReason::RingFull),
            turns.ports[3].tx_drops.get(DropReason::OverShare),
        )
    };
    let ([light, ..], full, over) = run(false);
    assert!(light < 1_200_000_000, "without shares the light sender loses most of its 2 Gb/s: {light}");
    assert!(full > 1_000_000 && over == 0);
    let ([light, heavy, heavier, ..], full, over) = run(true);
    is_near(light, 2_000_000_000, 3);
    is_near(heavy, 2_000_000_000, 12);
    is_near(heavier, 4_000_000_000, 12);
    assert!(full + over < 30_000, "the others are held, and lose little: {full} and {over}");
}
