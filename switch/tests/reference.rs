//! The switch against the reference switch of the testkit: random configurations, random traffic, changes in between.
//!
//! Both get the same frames from the same ports at the same (virtual) time. What each port receives, byte for byte, the
//! reasons of all drops, and what the forwarding database knows must be the same.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fabnic_port::{GuestFilter, Port, PortId};
use fabnic_switch::{
    FdbKind, InlineSwitch, MacSet, MoveDamping, Policy, PortSettings, PrioritySettings, ReceiveFilter,
    SwitchConfig, Trust, VlanMode, VlanProtocol, VlanTranslation, Way, drops,
};
use fabnic_testkit::reference;
use fabnic_wire::{MacAddr, Vid};
use proptest::prelude::*;

mod bench;

use bench::{Connected, Frames, connect};

/// Both switches, side by side.
struct Pair {
    switch: InlineSwitch,
    ports: Vec<Arc<Port>>,
    waiting: Vec<Frames>,
    got: Vec<Frames>,
    reference: reference::Switch,
    reasons: BTreeMap<&'static str, u64>,
    now: u32,
    config: SwitchConfig,
    deep: bool,
    was_restarted: bool,
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
        sticky: config.sticky,
        isolated: config.isolated,
        vlan_protocol: if config.service_tags { VlanProtocol::Dot1Ad } else { VlanProtocol::Dot1Q },
        vlan_translation: VlanTranslation::new(config.translation.iter().map(|(a, b)| (vid(*a), vid(*b))))
            .unwrap(),
        priority: PrioritySettings {
            default: config.priority.default,
            trust: match config.priority.believes {
                reference::Believes::Tag => Trust::Pcp,
                reference::Believes::Dscp => Trust::Dscp,
                reference::Believes::Nobody => Trust::Nothing,
            },
            regenerate: config.priority.regenerate,
            from_dscp: Arc::new(config.priority.from_dscp.clone().try_into().unwrap()),
            to_pcp: config.priority.to_pcp,
            to_dscp: config.priority.to_dscp,
        },
        receive: {
            let [flood, mcast_flood, bcast_flood] = config.flooded;
            let [unicast, multicast] = config.lists.clone().map(|list| list.map(mac_set));
            let trust = config.trust;
            ReceiveFilter { flood, mcast_flood, bcast_flood, unicast, multicast, guest_lists: true, trust }
        },
        ..PortSettings::default()
    }
}

fn mac_set(addresses: BTreeSet<[u8; 6]>) -> MacSet {
    addresses.into_iter().map(MacAddr::new).collect()
}

fn guest_filter(guest: &reference::Guest) -> GuestFilter {
    GuestFilter {
        addresses: guest.addresses.iter().copied().map(MacAddr::new).collect(),
        hash: None,
        broadcast: true,
        all_unicast: guest.promiscuous,
        all_multicast: guest.all_multicast,
    }
}

impl Pair {
    /// `deep`: each flow up to its ports is told apart, which must not make a difference.
    fn new(config: reference::Config, deep: bool) -> Pair {
        let ageing = Duration::from_secs(config.ageing);
        let damping = config.damping.map(|damping| MoveDamping {
            moves: damping.moves as u32,
            window: damping.window as u32,
            hold: damping.hold as u32,
        });
        let switch = SwitchConfig { ageing, damping, ..SwitchConfig::default() };
        let mut pair = Pair {
            switch: InlineSwitch::new(&switch),
            ports: Vec::new(),
            waiting: Vec::new(),
            got: Vec::new(),
            reference: reference::Switch::new(config.clone()),
            reasons: BTreeMap::new(),
            now: 0,
            config: switch,
            deep,
            was_restarted: false,
        };
        pair.switch.configure(Vec::new(), Policy { flow_counters: deep, ..Policy::default() });
        for id in 0..config.ports.len() as u32 {
            let Connected { port, waiting, got } = connect(PortId(id + 7));
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
        for (port, config) in self.ports.iter().zip(&config.ports) {
            port.guest_filter.set(config.guest.as_ref().map(guest_filter));
        }
        // What a port learned in a VLAN that it leaves is forgotten.
        let left: Vec<_> =
            self.reference.entries(self.now.into()).iter().map(|(key, entry)| (*key, *entry)).collect();
        for ((vlan, mac), entry) in left {
            if !entry.is_static && !config.ports[entry.port].carries(vlan) {
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
        while self.switch.deliver_slice() > 0 {}
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
        let stats = self.switch.fdb().stats();
        assert_eq!(stats.freezes, self.reference.freezes());
        // What was told of the last ones is not saved.
        assert!(self.was_restarted || self.switch.fdb().freezes().len() as u64 == stats.freezes.min(64));
        // A flow counts when it is decided on, not for each frame: which causes there were is the same, not how often.
        let mut refused = BTreeSet::new();
        for (place, port) in self.ports.iter().enumerate() {
            let of_port = self.switch.fdb().refusals_of(port.id);
            refused.extend(of_port.iter().filter(|(_, n)| *n > 0).map(|(cause, _)| (place, cause.label())));
        }
        let expected: BTreeSet<_> = self.reference.refusals().keys().copied().collect();
        assert_eq!(refused, expected);
        let known: BTreeMap<(u16, [u8; 6]), (u32, FdbKind)> = self
            .switch
            .fdb()
            .entries()
            .into_iter()
            .map(|e| ((e.vlan.get(), e.mac.octets()), (e.port.0 - 7, e.kind)))
            .collect();
        let expected: BTreeMap<_, _> = self
            .reference
            .entries(self.now.into())
            .iter()
            .map(|(key, entry)| {
                let kind = match (entry.is_static, entry.is_sticky) {
                    (true, _) => FdbKind::Static,
                    (false, true) => FdbKind::Sticky,
                    (false, false) => FdbKind::Learned,
                };
                (*key, (entry.port as u32, kind))
            })
            .collect();
        assert_eq!(known, expected);
    }

    /// Another switch goes on from the state of this one, unless a limit was lowered below what is there.
    fn restart(&mut self) {
        let all = self.reference.config().clone();
        let entries = self.switch.fdb().entries();
        let learned = |port: &Arc<Port>| {
            entries.iter().filter(|entry| entry.kind != FdbKind::Static && entry.port == port.id).count()
        };
        if self.ports.iter().zip(&all.ports).any(|(port, config)| learned(port) > config.fdb_limit) {
            return;
        }
        let saved = bench::restart::save(&mut self.switch, None);
        self.switch = InlineSwitch::new(&self.config);
        self.switch.tick(self.now);
        self.switch.configure(Vec::new(), Policy { flow_counters: self.deep, ..Policy::default() });
        for (index, place) in self.ports.iter_mut().enumerate() {
            let Connected { port, waiting, got } = connect(place.id);
            (*place, self.waiting[index], self.got[index]) = (port, waiting, got);
        }
        self.configure(all);
        for entry in entries.iter().filter(|entry| entry.kind == FdbKind::Static) {
            self.switch.fdb().add_static(entry.vlan, entry.mac, entry.port).unwrap();
        }
        let same = |number| Some(PortId(number));
        let report = bench::restart::restore(&self.switch, &saved, Duration::ZERO, true, &same);
        assert!(report.lost.is_empty(), "{report:?}");
        let again = bench::restart::save(&mut self.switch, None);
        assert_eq!(bench::restart::records(&again), bench::restart::records(&saved));
        self.was_restarted = true;
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Restart => self.restart(),
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
                all.ports[port] = *config;
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
    Configure { port: usize, config: Box<reference::PortConfig> },
    Restart,
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
    let basis = (prop::bool::weighted(0.9), mtu, vlan(), prop::bool::weighted(0.9), limit);
    let flags = prop::array::uniform4(prop::bool::weighted(0.2));
    let translation = prop_oneof![3 => Just(BTreeMap::new()), 1 => translation()];
    (basis, flags, translation, priority(), receive()).prop_map(
        |((enabled, mtu, vlan, learning, fdb_limit), flags, translation, priority, receive)| {
            let ([sticky, isolated, service_tags, trust], (flooded, lists, guest)) = (flags, receive);
            reference::PortConfig {
                enabled,
                mtu,
                vlan,
                learning,
                fdb_limit,
                sticky,
                isolated,
                service_tags,
                translation,
                priority,
                flooded,
                lists,
                guest,
                trust,
                ..reference::PortConfig::default()
            }
        },
    )
}

/// Numbers on the wire for VLANs, none twice.
fn translation() -> impl Strategy<Value = BTreeMap<u16, u16>> {
    let all: Vec<u16> = (1..6).collect();
    let wire = prop::sample::subsequence(all.clone(), 0..4);
    (wire, Just(all).prop_shuffle()).prop_map(|(wire, vlans)| wire.into_iter().zip(vlans).collect())
}

fn priority() -> impl Strategy<Value = reference::Priority> {
    let believes = prop_oneof![
        Just(reference::Believes::Tag),
        Just(reference::Believes::Dscp),
        Just(reference::Believes::Nobody)
    ];
    // Maps from a few bytes, so that cases are quick to make and to shrink.
    let eight = |seed: u64, most: u8| seed.to_le_bytes().map(|byte| byte % most);
    let seeds = (any::<u64>(), any::<u64>(), any::<u64>(), prop::option::of(any::<u64>()));
    let priority = (0..8_u8, believes, seeds).prop_map(
        move |(default, believes, (regenerate, from_dscp, to_pcp, to_dscp))| reference::Priority {
            default,
            believes,
            regenerate: eight(regenerate, 8),
            from_dscp: (0..64).map(|dscp| (from_dscp.rotate_right(dscp) & 7) as u8).collect(),
            to_pcp: eight(to_pcp, 8),
            to_dscp: to_dscp.map(|seed| eight(seed, 64)),
        },
    );
    prop_oneof![1 => Just(reference::Priority::default()), 1 => priority]
}

type Receive = ([bool; 3], [Option<BTreeSet<[u8; 6]>>; 2], Option<reference::Guest>);

fn receive() -> impl Strategy<Value = Receive> {
    let list = || prop::collection::btree_set(address(), 0..8);
    let guest = (list(), any::<bool>(), any::<bool>()).prop_map(|(addresses, promiscuous, all_multicast)| {
        reference::Guest { addresses, promiscuous, all_multicast }
    });
    let lists = prop::array::uniform2(prop::option::weighted(0.3, list()));
    let receive = (prop::array::uniform3(prop::bool::weighted(0.7)), lists, prop::option::of(guest));
    prop_oneof![2 => Just(([true; 3], [None, None], None)), 1 => receive]
}

// Frames are made from plain numbers and not of unions: each union costs a random generator of its own, and frames are many.

fn address() -> impl Strategy<Value = [u8; 6]> {
    (0..18_u8, 0..0x20_u8, any::<[u8; 6]>()).prop_map(|(which, n, any)| match which {
        0..12 => station(n % 6),
        12..14 => [0xff; 6],
        14 => [1, 0, 0x5e, 0, 0, 1],
        15 => [1, 0x80, 0xc2, 0, 0, n],
        16 => [0; 6],
        _ => any,
    })
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let tag = (0..8_usize, 0..10_u8, any::<u16>()).prop_map(|(kind, which, tci)| {
        let kind = [0x8100_u16, 0x8100, 0x8100, 0x8100, 0x8100, 0x88a8, 0x88a8, 0x9100][kind];
        let vid = match which {
            0..8 => tci % 6,
            8 => 4095,
            _ => tci & 0xfff,
        };
        (kind, tci & 0xf000 | vid)
    });
    let tags = (0..8_usize, [tag.clone(), tag.clone(), tag])
        .prop_map(|(count, tags)| tags.into_iter().take([0, 0, 0, 1, 1, 1, 1, 3][count]).collect::<Vec<_>>());
    let kind = (0..4_u8, any::<(u16, u8)>()).prop_map(|(which, any)| match which {
        0..2 => (0x0800, 0x45),
        2 => (0x86dd, 0x6b),
        _ => any,
    });
    let len = (0..10_u8, 18..300_usize).prop_map(|(which, len)| match which {
        0..8 => len,
        8 => len % 20,
        _ => 1514,
    });
    (address(), address(), tags, kind, len, any::<u8>()).prop_map(
        |(dst, src, tags, (kind, first), len, fill)| {
            let mut bytes = [dst, src].concat();
            for (kind, tci) in tags {
                bytes.extend(kind.to_be_bytes());
                bytes.extend(tci.to_be_bytes());
            }
            bytes.extend(kind.to_be_bytes());
            bytes.push(first);
            bytes.resize(len.max(bytes.len().min(20)), fill);
            bytes.truncate(len);
            bytes
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..5_usize, prop::collection::vec(frame(), 1..40)).prop_map(|(port, frames)| Step::Send { port, frames }),
        4 => (0..8_u32).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => (1..5_u16, 0..6_u8, 0..5_usize).prop_map(|(vlan, mac, port)| Step::Static { vlan, mac, port }),
        1 => (1..5_u16, 0..6_u8).prop_map(|(vlan, mac)| Step::Forget { vlan, mac }),
        2 => (0..5_usize, port_config()).prop_map(|(port, config)| Step::Configure { port, config: Box::new(config) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_switch_does_what_the_reference_does(
        ports in prop::collection::vec(port_config(), 2..6),
        ageing in 3..12_u64,
        deep in any::<bool>(),
        damping in prop::option::of((0..4_u64, 1..10_u64, 1..10_u64)),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let damping =
            damping.map(|(moves, window, hold)| reference::Damping { moves, window, hold });
        let mut pair = Pair::new(reference::Config { ports, ageing, damping, rules: Vec::new() }, deep);
        for step in steps {
            pair.apply(step);
        }
        pair.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Where floods are put aside and delivered in slices.
    #[test]
    fn large_vlans_are_no_different(
        kinds in prop::collection::vec(port_config(), 2..6),
        count in 150..200_usize,
        deep in any::<bool>(),
        bursts in prop::collection::vec((0..5_usize, prop::collection::vec(frame(), 20..40)), 1..4),
    ) {
        let ports = kinds.into_iter().cycle().take(count).collect();
        let mut pair = Pair::new(reference::Config { ports, ageing: 10, damping: None, rules: Vec::new() }, deep);
        for (port, mut frames) in bursts {
            // To all, so that a burst is much work.
            for frame in &mut frames {
                frame.iter_mut().take(6).for_each(|byte| *byte = 0xff);
            }
            pair.apply(Step::Send { port, frames });
        }
        pair.check();
    }
}
