//! The switch against the reference switch of the testkit: random configurations, random traffic, changes in between.
//!
//! Both get the same frames from the same ports at the same (virtual) time. What each port receives, byte for byte, the
//! reasons of all drops, and what the forwarding database knows must be the same.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, HashSet};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use fabnic_memory::{Hint, Map};
use fabnic_port::{Burst, Egress, Fault, Ingress, Port, PortId, PortKind, Tally};
use fabnic_switch::{FdbKind, InlineSwitch, Policy, PortSettings, SwitchConfig, VlanMode, Way, drops};
use fabnic_testkit::reference;
use fabnic_wire::{MacAddr, Vid};
use parking_lot::Mutex;
use proptest::prelude::*;

type Frames = Arc<Mutex<Vec<Vec<u8>>>>;

/// Hands out the frames that a test gave it, from memory of its own, as a guest does.
struct Source {
    waiting: Frames,
    map: Arc<Map>,
}

impl Ingress for Source {
    fn backlog(&mut self) -> usize {
        self.waiting.lock().len()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        for (frame, at) in self.waiting.lock().drain(..).zip((0..).step_by(4096)) {
            let slice = self.map.translate(at, frame.len() as u32 + 12, &mut Hint::default()).unwrap();
            self.map.write(&slice, 12, &frame);
            let first = burst.slices().len();
            burst.slices_mut().push(slice);
            burst.push(first, 1, 12, frame.len() as u32).unwrap();
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Keeps what is delivered.
struct Sink(Frames);

impl Egress for Sink {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for &pick in picks {
            let mut bytes = vec![0; burst.frames()[usize::from(pick)].len() as usize];
            assert_eq!(burst.copy_out(pick.into(), &mut bytes), bytes.len());
            tally.deliver(bytes.len() as u32);
            self.0.lock().push(bytes);
        }
        Ok(())
    }
}

/// Both switches, side by side.
struct Pair {
    switch: InlineSwitch,
    ports: Vec<Arc<Port>>,
    waiting: Vec<Frames>,
    got: Vec<Frames>,
    reference: reference::Switch,
    reasons: BTreeMap<&'static str, u64>,
    now: u32,
}

fn vid(vlan: u16) -> Vid {
    Vid::new(vlan).unwrap()
}

fn settings(config: &reference::PortConfig) -> PortSettings {
    let vlan = match &config.vlan {
        reference::Vlan::Access(vlan) => VlanMode::Access(vid(*vlan)),
        reference::Vlan::Trunk { vlans, native } => {
            VlanMode::Trunk { vlans: vlans.iter().copied().map(vid).collect(), native: native.map(vid) }
        }
    };
    PortSettings {
        enabled: config.enabled,
        mtu: config.mtu as u32,
        vlan,
        learning: config.learning,
        fdb_limit: u32::try_from(config.fdb_limit).unwrap_or(u32::MAX),
        ..PortSettings::default()
    }
}

impl Pair {
    /// `deep`: each flow up to its ports is told apart, which must not make a difference.
    fn new(config: reference::Config, deep: bool) -> Pair {
        let ageing = Duration::from_secs(config.ageing);
        let mut pair = Pair {
            switch: InlineSwitch::new(&SwitchConfig { ageing, ..SwitchConfig::default() }),
            ports: Vec::new(),
            waiting: Vec::new(),
            got: Vec::new(),
            reference: reference::Switch::new(config.clone()),
            reasons: BTreeMap::new(),
            now: 0,
        };
        pair.switch.configure(Vec::new(), Policy { flow_counters: deep, ..Policy::default() });
        for id in 0..config.ports.len() as u32 {
            let port = Arc::new(Port::new(PortId(id + 7), &format!("p{id}"), PortKind::Loopback, 1));
            let (waiting, got) = (Frames::default(), Frames::default());
            let (map, _) = Map::anonymous(64 * 4096).unwrap();
            port.ingress()[0].install(Box::new(Source { waiting: Arc::clone(&waiting), map }));
            port.egress()[0].install(Box::new(Sink(Arc::clone(&got))));
            port.refresh_egress();
            pair.ports.push(port);
            pair.waiting.push(waiting);
            pair.got.push(got);
        }
        pair.configure(config);
        pair
    }

    fn configure(&mut self, config: reference::Config) {
        let ports = self.ports.iter().cloned().zip(config.ports.iter().map(settings)).collect();
        self.switch.set_ports(ports);
        // What a port learned in a VLAN that it leaves is forgotten.
        let left: Vec<_> =
            self.reference.entries(self.now.into()).iter().map(|(key, entry)| (*key, *entry)).collect();
        for ((vlan, mac), entry) in left {
            if !entry.is_static && !config.ports[entry.port].vlan.is_member(vlan) {
                self.reference.remove(vlan, mac);
            }
        }
        self.reference.configure(config);
    }

    /// Sends frames from a port. A burst ends where a frame's decision could depend on what the burst itself taught: the
    /// switch keeps a flow's decision to the end of its burst, the reference does not know bursts.
    fn send(&mut self, port: usize, frames: &[Vec<u8>]) {
        let mut rest = frames;
        while !rest.is_empty() {
            let (mut seen_dst, mut seen_src) = (HashSet::new(), HashSet::new());
            let mut len = 0;
            for frame in rest.iter().take(64) {
                let (dst, src) = (frame.get(..6), frame.get(6..12));
                if (src.is_some() && seen_dst.contains(&src)) || (dst.is_some() && seen_src.contains(&dst)) {
                    break;
                }
                seen_dst.insert(dst);
                seen_src.insert(src);
                len += 1;
                if dst == src {
                    break;
                }
            }
            let (burst, more) = rest.split_at(len.max(1));
            rest = more;
            self.send_burst(port, burst);
        }
    }

    fn send_burst(&mut self, port: usize, frames: &[Vec<u8>]) {
        let mut expected: Vec<Vec<Vec<u8>>> = vec![Vec::new(); self.ports.len()];
        let first = frames.first().unwrap();
        let traced = self.switch.trace(self.ports[port].id, first).unwrap();
        assert_eq!(
            self.switch.trace(self.ports[port].id, first).as_ref(),
            Some(&traced),
            "a trace changes nothing"
        );
        let mut told = match traced.way {
            Way::Dropped(reason) => vec![(None, Some(reason.label()))],
            Way::Sent(to) => {
                to.iter().map(|(id, not)| (Some(id.0 as usize - 7), not.map(|not| not.label()))).collect()
            }
        };
        let outcome = self.reference.clone().input(port, first, self.now.into());
        let refused = outcome.refused.map(|reason| (None, Some(reason)));
        let delivered = outcome.delivered.iter().map(|(to, _)| (Some(*to), None));
        let dropped = outcome.dropped.iter().map(|(to, reason)| (Some(*to), Some(*reason)));
        let mut happens: Vec<_> = refused.into_iter().chain(delivered).chain(dropped).collect();
        told.sort();
        happens.sort();
        // Whether an address could still be learned is no matter of a trace either.
        let own = first.get(..6) == first.get(6..12);
        // Which side a disabled receiver is counted on is no matter of a trace.
        if happens != [(None, Some("egress_disabled"))] && !own {
            assert_eq!(told, happens, "a trace tells what happens: {:?}", traced.steps);
        }
        for frame in frames {
            let outcome = self.reference.input(port, frame, self.now.into());
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
            // Flooded frames of a burst go after the others.
            got.sort();
            expected.sort();
            assert_eq!(got, expected, "from port {port} to port {to}");
        }
    }

    fn check(&mut self) {
        let mut reasons = BTreeMap::new();
        for port in &self.ports {
            for (reason, count) in drops(&port.rx_drops).chain(drops(&port.tx_drops)) {
                *reasons.entry(reason.label()).or_default() += count;
            }
        }
        assert_eq!(reasons, self.reasons);
        let totals = self.switch.totals();
        assert!(totals.balance(), "{totals:?}");
        self.switch.tick(self.now);
        let known: BTreeMap<(u16, [u8; 6]), (u32, bool)> = self
            .switch
            .fdb()
            .entries()
            .into_iter()
            .map(|e| ((e.vlan.get(), e.mac.octets()), (e.port.0 - 7, e.kind == FdbKind::Static)))
            .collect();
        let expected: BTreeMap<_, _> = self
            .reference
            .entries(self.now.into())
            .iter()
            .map(|(key, entry)| (*key, (entry.port as u32, entry.is_static)))
            .collect();
        assert_eq!(known, expected);
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Send { port, frames } => {
                let port = port % self.ports.len();
                self.send(port, &frames);
            }
            Step::Wait(seconds) => {
                self.now += seconds;
                self.switch.tick(self.now);
            }
            Step::Static { vlan, mac, port } => {
                let port = port % self.ports.len();
                self.switch
                    .fdb()
                    .add_static(vid(vlan), MacAddr::new(station(mac)), self.ports[port].id)
                    .unwrap();
                self.reference.add_static(vlan, station(mac), port);
            }
            Step::Forget { vlan, mac } => {
                let known = self.switch.fdb().remove(vid(vlan), MacAddr::new(station(mac))).is_some();
                self.reference.entries(self.now.into());
                assert_eq!(self.reference.remove(vlan, station(mac)).is_some(), known);
            }
            Step::Configure { port, config } => {
                let mut all = self.reference.config().clone();
                let port = port % all.ports.len();
                all.ports[port] = config;
                self.configure(all);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send { port: usize, frames: Vec<Vec<u8>> },
    Wait(u32),
    Static { vlan: u16, mac: u8, port: usize },
    Forget { vlan: u16, mac: u8 },
    Configure { port: usize, config: reference::PortConfig },
}

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn vlan() -> impl Strategy<Value = reference::Vlan> {
    prop_oneof![
        (1..4_u16).prop_map(reference::Vlan::Access),
        (prop::collection::btree_set(1..5_u16, 0..4), prop::option::of(1..5_u16))
            .prop_map(|(vlans, native)| reference::Vlan::Trunk { vlans, native }),
    ]
}

fn port_config() -> impl Strategy<Value = reference::PortConfig> {
    let mtu = prop_oneof![3 => Just(1500_usize), 1 => 46..200_usize];
    let limit = prop_oneof![3 => Just(usize::MAX), 1 => 0..3_usize];
    (prop::bool::weighted(0.9), mtu, vlan(), prop::bool::weighted(0.9), limit).prop_map(
        |(enabled, mtu, vlan, learning, fdb_limit)| reference::PortConfig {
            enabled,
            mtu,
            vlan,
            learning,
            fdb_limit,
            ..reference::PortConfig::default()
        },
    )
}

fn address() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![
        12 => (0..6_u8).prop_map(station),
        2 => Just([0xff; 6]),
        1 => Just([1, 0, 0x5e, 0, 0, 1]),
        1 => (0..0x20_u8).prop_map(|n| [1, 0x80, 0xc2, 0, 0, n]),
        1 => Just([0; 6]),
        1 => any::<[u8; 6]>(),
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop::option::of((prop_oneof![8 => 0..6_u16, 1 => Just(4095), 1 => any::<u16>()], 0..16_u16));
    let len = prop_oneof![8 => 18..300_usize, 1 => 0..20_usize, 1 => Just(1514_usize)];
    (address(), address(), tag, len, any::<u8>()).prop_map(|(dst, src, tag, len, fill)| {
        let mut bytes = [dst, src].concat();
        if let Some((vid, priority)) = tag {
            bytes.extend([0x81, 0]);
            bytes.extend(((vid & 0xfff) | (priority << 12)).to_be_bytes());
        }
        bytes.extend([8, 0]);
        bytes.resize(len.max(bytes.len().min(20)), fill);
        bytes.truncate(len);
        bytes
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..5_usize, prop::collection::vec(frame(), 1..40)).prop_map(|(port, frames)| Step::Send { port, frames }),
        4 => (0..8_u32).prop_map(Step::Wait),
        1 => (1..5_u16, 0..6_u8, 0..5_usize).prop_map(|(vlan, mac, port)| Step::Static { vlan, mac, port }),
        1 => (1..5_u16, 0..6_u8).prop_map(|(vlan, mac)| Step::Forget { vlan, mac }),
        2 => (0..5_usize, port_config()).prop_map(|(port, config)| Step::Configure { port, config }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_switch_does_what_the_reference_does(
        ports in prop::collection::vec(port_config(), 2..6),
        ageing in 3..12_u64,
        deep in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut pair = Pair::new(reference::Config { ports, ageing }, deep);
        for step in steps {
            pair.apply(step);
        }
        pair.check();
    }
}
