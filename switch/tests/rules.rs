//! Rules against the reference switch: random rules of the infrastructure and of two tenants, random traffic, changes in
//! between; on one side a classifier, cached decisions and operations on private heads, on the other a list and bytes.
//!
//! What each port receives, byte for byte, the reasons of all drops, and what each rule counted must be the same, and a
//! trace must tell what then happens.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use std::collections::BTreeMap;
use std::time::Duration;

use bench::Bench;
use fabnic_port::PortId;
use fabnic_switch::{Action, Change, Direction, Domain, Fragmented, Match, RuleId, RuleSpec, Set, Term};
use fabnic_switch::{Policy, PortSettings, PrioritySettings, SwitchConfig, VlanMode, VlanProtocol, Way};
use fabnic_testkit::reference::{self, rules as model};
use fabnic_wire::{EtherType, IpProtocol, MacAddr, Vid};
use model::{Field, Key};
use proptest::prelude::*;

fn vid(vlan: u16) -> Vid {
    Vid::new(vlan).unwrap()
}

fn domain(tenant: u32) -> Domain {
    if tenant == 0 { Domain::Infrastructure } else { Domain::Tenant(tenant) }
}

fn low(value: u128, bytes: usize) -> Vec<u8> {
    value.to_be_bytes()[16 - bytes..].to_vec()
}

/// What a key of the reference is in terms.
fn term(key: &Key) -> Term {
    let (min, max) = (key.min, key.max);
    let mac = |value: u128| MacAddr::new(low(value, 6).try_into().unwrap());
    let ip4 = |value: u128| <[u8; 4]>::try_from(low(value, 4)).unwrap();
    let ip6 = |value: u128| value.to_be_bytes();
    match key.field {
        Field::Ingress => Term::Ingress(PortId(min as u32)),
        Field::Egress => Term::Egress(PortId(min as u32)),
        Field::Vlan => Term::Vlan(vid(min as u16)),
        Field::Mark => Term::Mark { value: min as u32, mask: key.mask as u32 },
        Field::DstMac => Term::DstMac { value: mac(min), mask: mac(key.mask) },
        Field::SrcMac => Term::SrcMac { value: mac(min), mask: mac(key.mask) },
        Field::EtherType => Term::EtherType(EtherType(min as u16)),
        Field::Tagged => Term::Tagged(min == 1),
        Field::TagVid => Term::TagVid(min as u16),
        Field::TagPcp => Term::TagPcp(min as u8),
        Field::InnerVid => Term::InnerVid(min as u16),
        Field::Protocol => Term::Protocol(IpProtocol(min as u8)),
        Field::Src4 => Term::SrcIp4 { value: ip4(min), mask: ip4(key.mask) },
        Field::Dst4 => Term::DstIp4 { value: ip4(min), mask: ip4(key.mask) },
        Field::Src6 => Term::SrcIp6 { value: ip6(min), mask: ip6(key.mask) },
        Field::Dst6 => Term::DstIp6 { value: ip6(min), mask: ip6(key.mask) },
        Field::Tos => Term::Tos { value: min as u8, mask: key.mask as u8 },
        Field::Ttl => Term::Ttl { min: min as u8, max: max as u8 },
        Field::Fragment => Term::Fragment(match (min, max) {
            (0, 0) => Fragmented::No,
            (1, 1) => Fragmented::First,
            (2, 2) => Fragmented::Later,
            _ => Fragmented::Any,
        }),
        Field::SrcPort => Term::SrcPort { min: min as u16, max: max as u16 },
        Field::DstPort => Term::DstPort { min: min as u16, max: max as u16 },
        Field::TcpFlags => Term::TcpFlags { value: min as u8, mask: key.mask as u8 },
        Field::IcmpType => Term::IcmpType { min: min as u8, max: max as u8 },
        Field::IcmpCode => Term::IcmpCode { min: min as u8, max: max as u8 },
        Field::CtState | Field::CtZone | Field::CtMark => unreachable!("of another test"),
        Field::ArpOperation => Term::ArpOperation(min as u16),
        Field::ArpSender => Term::ArpSenderIp { value: ip4(min), mask: ip4(key.mask) },
        Field::ArpTarget => Term::ArpTargetIp { value: ip4(min), mask: ip4(key.mask) },
        Field::NdTarget => Term::NdTarget { value: ip6(min), mask: ip6(key.mask) },
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
        model::Action::SetDstMac(mac) => Action::Set(Set::DstMac(MacAddr::new(mac))),
        model::Action::SetSrcMac(mac) => Action::Set(Set::SrcMac(MacAddr::new(mac))),
        model::Action::SetPcp(pcp) => Action::Set(Set::Pcp(pcp)),
        model::Action::SetVlan(vlan) => Action::Set(Set::Vlan(vid(vlan))),
        model::Action::SetSrc4(ip) => Action::Set(Set::SrcIp4(ip)),
        model::Action::SetDst4(ip) => Action::Set(Set::DstIp4(ip)),
        model::Action::SetDst6(ip) => Action::Set(Set::DstIp6(ip)),
        model::Action::SetTos(tos) => Action::Set(Set::Tos { value: tos, mask: 0xff }),
        model::Action::DecTtl => Action::Set(Set::DecTtl),
        model::Action::SetSrcPort(port) => Action::Set(Set::SrcPort(port)),
        model::Action::SetDstPort(port) => Action::Set(Set::DstPort(port)),
        model::Action::Meter(_) | model::Action::Police(_) | model::Action::Ct(_) => {
            unreachable!("of another test")
        }
    }
}

fn spec(rule: &model::Rule) -> RuleSpec {
    RuleSpec {
        id: RuleId(rule.id),
        domain: domain(rule.tenant),
        direction: if rule.out { Direction::Out } else { Direction::In },
        group: rule.group,
        priority: rule.priority,
        name: "rule".to_owned(),
        matches: rule.any.iter().map(|keys| Match::new(keys.iter().map(term))).collect(),
        actions: rule.actions.iter().map(action).collect(),
    }
}

/// Both switches, side by side.
struct Pair {
    bench: Bench,
    reference: reference::Switch,
    reasons: BTreeMap<&'static str, u64>,
    /// What rules that are gone had counted.
    forgotten: BTreeMap<(u32, u64), u64>,
    now: u32,
}

impl Pair {
    fn new(ports: Vec<reference::PortConfig>) -> Pair {
        let settings = |config: &reference::PortConfig| PortSettings {
            vlan: match &config.vlan {
                reference::Vlan::Access(vlan) => VlanMode::Access(vid(*vlan)),
                reference::Vlan::Trunk { vlans, native } => VlanMode::Trunk {
                    vlans: vlans.iter().copied().map(vid).collect(),
                    native: native.map(vid),
                },
            },
            vlan_protocol: if config.service_tags { VlanProtocol::Dot1Ad } else { VlanProtocol::Dot1Q },
            priority: PrioritySettings { to_pcp: config.priority.to_pcp, ..PrioritySettings::default() },
            tenant: config.tenant,
            ..PortSettings::default()
        };
        let config = SwitchConfig { ageing: Duration::from_secs(10_000), ..SwitchConfig::default() };
        Pair {
            bench: Bench::new(&config, ports.iter().map(settings).collect(), Policy::default()),
            reference: reference::Switch::new(reference::Config {
                ports,
                ageing: 10_000,
                damping: None,
                rules: Vec::new(),
            }),
            reasons: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            now: 0,
        }
    }

    /// Puts or removes rules, all at once; if the switch refuses, the reference is left alone too.
    fn apply(&mut self, changes: &[(bool, model::Rule)]) {
        let mut next = self.reference.config().clone();
        let mut list = Vec::new();
        for (put, rule) in changes {
            next.rules.retain(|other| (other.tenant, other.id) != (rule.tenant, rule.id));
            if *put {
                next.rules.push(rule.clone());
                list.push(Change::Put(spec(rule)));
            } else {
                list.push(Change::Remove { domain: domain(rule.tenant), id: RuleId(rule.id) });
            }
        }
        self.settle();
        let before: Vec<_> =
            self.reference.config().rules.iter().map(|rule| (rule.tenant, rule.id)).collect();
        if self.bench.switch.change_rules(&list).is_ok() {
            // Removed in this transaction, even if it came back: its counters began anew.
            for (put, rule) in changes.iter().filter(|(put, _)| !put) {
                assert!(!put);
                let key = (rule.tenant, rule.id);
                let hits = self.reference.hits().get(&key).copied().unwrap_or(0);
                assert!(before.contains(&key) || changes.iter().any(|(put, new)| *put && new.id == rule.id));
                self.forgotten.insert(key, hits);
            }
            self.reference.configure(next);
        }
    }

    /// Workers hand over what they counted now and then.
    fn settle(&mut self) {
        self.now += 1;
        self.bench.switch.tick(self.now);
    }

    fn send(&mut self, port: usize, frames: &[Vec<u8>]) {
        for frame in frames {
            let told = self.bench.switch.trace(self.bench.ports[port].id, frame).unwrap();
            let outcome = self.reference.input(port, frame, self.now.into());
            for reason in outcome.reasons() {
                *self.reasons.entry(reason).or_default() += 1;
            }
            let mut expected = vec![Vec::new(); self.bench.ports.len()];
            for (to, bytes) in outcome.delivered {
                expected[to].push(bytes);
            }
            // Twice as likely a hit of the cache: the same frame comes again now and then.
            self.bench.send(port, core::slice::from_ref(frame));
            for (to, mut expected) in expected.into_iter().enumerate() {
                let mut got = self.bench.take(to);
                got.sort();
                expected.sort();
                assert_eq!(got, expected, "from {port} to {to}: {frame:02x?} ({told:#?})");
            }
            assert_eq!(self.bench.reasons(), self.reasons, "{frame:02x?} from {port}: {told:#?}");
            // A dry walk learns nothing, so it may not know where a rewritten source is.
            if let (Way::Dropped(reason), None) = (&told.way, outcome.refused) {
                assert!(reason.label() == "same_port", "{told:#?}");
            }
        }
    }

    fn check(&mut self) {
        self.settle();
        for view in self.bench.switch.rules().list(None) {
            let tenant = if let Domain::Tenant(tenant) = view.domain { tenant } else { 0 };
            let key = (tenant, view.id.0);
            let hits = self.reference.hits().get(&key).copied().unwrap_or(0);
            let gone = self.forgotten.get(&key).copied().unwrap_or(0);
            assert_eq!(view.counts.packets, hits - gone, "{view:?}");
            assert_eq!(view.counts.last_used.is_some(), hits > gone);
        }
        assert!(self.bench.switch.totals().balance());
    }
}

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn ip4(n: u8) -> [u8; 4] {
    [10, 0, n / 2, n]
}

fn ip6(n: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, n / 2, 0, 0, 0, 0, 0, 0, 0, n]
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn key(out: bool) -> impl Strategy<Value = Key> {
    let exact = |field: Field, value: u128| Key { field, mask: u128::MAX, min: value, max: value };
    let masked =
        |field: Field, mask: u128, value: u128| Key { field, mask, min: value & mask, max: value & mask };
    let n = || 0..5_u8;
    let l2 = prop_oneof![
        (0..4_u8).prop_map(move |p| exact(if out { Field::Egress } else { Field::Ingress }, p.into())),
        (0..4_u8).prop_map(move |p| exact(Field::Ingress, p.into())),
        (1..4_u16).prop_map(move |vlan| exact(Field::Vlan, vlan.into())),
        (0..3_u8, 0..4_u8).prop_map(move |(mark, mask)| masked(Field::Mark, mask.into(), mark.into())),
        n().prop_map(move |n| masked(Field::DstMac, 0xffff_ffff_ffff, number(&station(n)))),
        n().prop_map(move |n| masked(Field::SrcMac, 0xffff_ffff_fffe, number(&station(n)))),
        prop::sample::select(vec![0x0800_u16, 0x86dd, 0x0806])
            .prop_map(move |k| exact(Field::EtherType, k.into())),
        (0..2_u8).prop_map(move |is| exact(Field::Tagged, is.into())),
        (1..4_u8).prop_map(move |vid| exact(Field::TagVid, vid.into())),
        (0..3_u8).prop_map(move |pcp| exact(Field::TagPcp, pcp.into())),
        (1..3_u8).prop_map(move |vid| exact(Field::InnerVid, vid.into())),
    ];
    let prefix = |len: u32, of: u32| {
        let all = u128::MAX >> (128 - of);
        all & !(all.checked_shr(len).unwrap_or(0))
    };
    let l3 = prop_oneof![
        prop::sample::select(vec![1_u8, 6, 17, 58]).prop_map(move |p| exact(Field::Protocol, p.into())),
        (n(), 20..33_u32).prop_map(move |(n, len)| masked(Field::Src4, prefix(len, 32), number(&ip4(n)))),
        (n(), 20..33_u32).prop_map(move |(n, len)| masked(Field::Dst4, prefix(len, 32), number(&ip4(n)))),
        (n(), 50..129_u32).prop_map(move |(n, len)| masked(Field::Src6, prefix(len, 128), number(&ip6(n)))),
        (n(), 50..129_u32).prop_map(move |(n, len)| masked(Field::Dst6, prefix(len, 128), number(&ip6(n)))),
        (0..8_u8, any::<u8>()).prop_map(move |(tos, mask)| masked(Field::Tos, mask.into(), tos.into())),
        (0..3_u8, 0..70_u8).prop_map(|(min, more)| Key {
            field: Field::Ttl,
            mask: u128::MAX,
            min: min.into(),
            max: (min + more).into()
        }),
        (0..3_u8).prop_map(move |kind| exact(Field::Fragment, kind.into())),
    ];
    let range = |field: Field| {
        prop_oneof![
            (0..5_u16).prop_map(|n| (1000 + n, 1000 + n)),
            (0..5_u16).prop_map(|n| (1000 + n, 1003 + n)),
            Just((0, 1023)),
            Just((1002, 65535))
        ]
        .prop_map(move |(min, max)| Key { field, mask: u128::MAX, min: min.into(), max: max.into() })
    };
    let l4 = prop_oneof![
        range(Field::SrcPort),
        range(Field::DstPort),
        (any::<u8>(), 0..32_u8).prop_map(move |(v, mask)| masked(Field::TcpFlags, mask.into(), v.into())),
        (0..4_u8).prop_map(move |kind| exact(
            Field::IcmpType,
            if kind < 2 { kind.into() } else { 133 + u128::from(kind) }
        )),
        (0..2_u8).prop_map(move |code| exact(Field::IcmpCode, code.into())),
        (1..3_u8).prop_map(move |op| exact(Field::ArpOperation, op.into())),
        (n(), 20..33_u32).prop_map(move |(n, len)| masked(
            Field::ArpSender,
            prefix(len, 32),
            number(&ip4(n))
        )),
        (n(), 20..33_u32).prop_map(move |(n, len)| masked(
            Field::ArpTarget,
            prefix(len, 32),
            number(&ip4(n))
        )),
        n().prop_map(move |n| masked(Field::NdTarget, u128::MAX, number(&ip6(n)))),
    ];
    prop_oneof![2 => l2, 2 => l3, 2 => l4]
}

fn actions(out: bool, group: u8) -> impl Strategy<Value = Vec<model::Action>> {
    use model::Action::*;
    let end = prop_oneof![
        3 => Just(Some(Drop)),
        2 => Just(Some(Pass)),
        2 => Just(Some(Continue)),
        1 => (0..4_usize).prop_map(|port| Some(Redirect(port))),
        2 => (group + 1..4).prop_map(|group| Some(Goto(group))),
        2 => Just(None),
    ];
    let vlan = (1..4_u16).prop_map(move |vlan| if out { Mark(vlan.into()) } else { SetVlan(vlan) });
    let some = prop_oneof![
        3 => (0..3_u32).prop_map(Mark),
        1 => (0..5_u8).prop_map(|n| SetDstMac(station(n))),
        1 => (0..5_u8).prop_map(|n| SetSrcMac(station(n))),
        1 => vlan,
        2 => (0..8_u8).prop_map(SetPcp),
        1 => (0..5_u8).prop_map(|n| SetSrc4(ip4(n))),
        1 => (0..5_u8).prop_map(|n| SetDst4(ip4(n))),
        1 => (0..5_u8).prop_map(|n| SetDst6(ip6(n))),
        1 => (0..8_u8).prop_map(SetTos),
        1 => Just(DecTtl),
        1 => (1000..1005_u16).prop_map(SetSrcPort),
        1 => (1000..1005_u16).prop_map(SetDstPort),
    ];
    (prop::collection::vec(some, 0..3), end).prop_map(|(mut list, end)| {
        list.extend(end);
        list
    })
}

fn rule() -> impl Strategy<Value = model::Rule> {
    (0..8_u64, 0..3_u32, any::<bool>(), prop_oneof![4 => Just(0_u8), 1 => 1..3_u8], 0..4_u32).prop_flat_map(
        |(id, tenant, out, group, priority)| {
            let any = prop::collection::vec(prop::collection::vec(key(out), 0..3), 1..3);
            (any, actions(out, group)).prop_map(move |(any, actions)| model::Rule {
                id,
                tenant,
                out,
                group,
                priority,
                any,
                actions,
            })
        },
    )
}

/// Frames whose checksums are right, so that the reference can sum them up anew.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop_oneof![
        3 => Just(Vec::new()),
        2 => (1..4_u16, 0..3_u16).prop_map(|(vid, pcp)| vec![(0x8100_u16, vid | pcp << 13)]),
        1 => (1..4_u16, 1..3_u16).prop_map(|(outer, inner)| vec![(0x8100, outer), (0x8100, inner)]),
        1 => (1..4_u16).prop_map(|outer| vec![(0x88a8, outer)]),
    ];
    let l3 = (0..5_u8, 0..5_u8, 0..6_u8, 0..8_u8, prop_oneof![0..3_u8, Just(64)], 0..4_u8);
    let l4 = (1000..1005_u16, 1000..1005_u16, any::<u8>(), prop::collection::vec(any::<u8>(), 0..20));
    let dst = prop_oneof![6 => (0..5_u8).prop_map(station), 1 => Just([0xff; 6])];
    (dst, 0..5_u8, tags, l3, l4).prop_map(|(dst, src, tags, l3, l4)| {
        let mut frame = [dst, station(src)].concat();
        for (kind, tci) in tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        let (from, to, kind, tos, ttl, fragment) = l3;
        let (src_port, dst_port, flags, payload) = l4;
        if kind == 5 {
            frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + (flags & 1)]);
            frame.extend([station(src).as_slice(), &ip4(from), &[0; 6], &ip4(to)].concat());
            return frame;
        }
        let v6 = kind >= 3;
        let (protocol, mut body) = match kind {
            0 | 3 => {
                let mut tcp = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
                tcp.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 2, 0, 0, 0, 0, 0]);
                (6_u8, tcp)
            }
            1 => {
                let mut udp = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
                udp.extend((8 + payload.len() as u16).to_be_bytes());
                udp.extend([0, if flags & 1 == 1 { 1 } else { 0 }]);
                (17, udp)
            }
            2 => (1, vec![flags & 3, flags >> 7, 0, 0, 1, 2, 3, 4]),
            _ => (58, [&[135 + (flags & 1), 0, 0, 0, 0, 0, 0, 0], ip6(to).as_slice()].concat()),
        };
        body.extend(payload);
        if v6 {
            frame.extend([0x86, 0xdd, 0x60 | tos >> 4, tos << 4, 0, 0]);
            frame.extend((body.len() as u16).to_be_bytes());
            frame.extend([protocol, ttl]);
            frame.extend([ip6(from), ip6(to)].concat());
        } else {
            frame.extend([8, 0, 0x45, tos]);
            frame.extend((20 + body.len() as u16).to_be_bytes());
            // Later fragments only: of the first, the sum of the whole is not known.
            frame.extend([0, 7, 0, if fragment == 3 { 9 } else { 0 }, ttl, protocol, 0, 0]);
            frame.extend([ip4(from), ip4(to)].concat());
        }
        frame.extend(body);
        // The reference sums up: setting the TTL to what it is makes the sums right.
        let mut asked = model::Asked::new(&frame, 0, 1);
        let all = model::Rule {
            id: 0,
            tenant: 0,
            out: false,
            group: 0,
            priority: 0,
            any: vec![vec![]],
            actions: vec![model::Action::SetTos(tos)],
        };
        let mut aside = model::Aside { look: &|_| model::Seen::default(), charge: &mut |_, _| true };
        asked.ask(&[all], (0, false), &mut model::Hits::new(), &mut aside);
        asked.frame
    })
}

#[derive(Clone, Debug)]
enum Step {
    Send { port: usize, frames: Vec<Vec<u8>>, again: bool },
    Apply(Vec<(bool, model::Rule)>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_usize, prop::collection::vec(frame(), 1..12), any::<bool>())
            .prop_map(|(port, frames, again)| Step::Send { port, frames, again }),
        2 => prop::collection::vec((prop::bool::weighted(0.85), rule()), 1..6).prop_map(Step::Apply),
    ]
}

fn port() -> impl Strategy<Value = reference::PortConfig> {
    let vlan = prop_oneof![
        (1..4_u16).prop_map(reference::Vlan::Access),
        (prop::collection::btree_set(1..4_u16, 1..4), prop::option::of(1..4_u16))
            .prop_map(|(vlans, native)| reference::Vlan::Trunk { vlans, native }),
    ];
    (vlan, prop::option::of(1..3_u32), prop::bool::weighted(0.2), 0..8_u8).prop_map(
        |(vlan, tenant, service_tags, turn)| {
            let to_pcp = core::array::from_fn(|priority| (priority as u8 + turn) % 8);
            let priority = reference::Priority { to_pcp, ..reference::Priority::default() };
            reference::PortConfig { vlan, tenant, service_tags, priority, ..reference::PortConfig::default() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn rules_do_what_the_reference_does(
        ports in prop::collection::vec(port(), 4),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let mut pair = Pair::new(ports);
        let mut last = None;
        for step in steps {
            match step {
                Step::Send { port, frames, again } => {
                    pair.send(port, &frames);
                    if again {
                        pair.send(port, &frames);
                    }
                    last = Some((port, frames));
                }
                Step::Apply(changes) => {
                    pair.apply(&changes);
                    // Flows that were decided before: some decisions are still good, some are not.
                    if let Some((port, frames)) = &last {
                        pair.send(*port, frames);
                    }
                }
            }
        }
        pair.check();
    }
}

/// A priority that a rule gave a frame goes with it through all copies of a flood, also where they are delivered in slices.
#[test]
fn the_priority_of_a_tag_lasts_to_the_last_copy_of_a_flood() {
    let config = SwitchConfig::default();
    let trunk = PortSettings {
        vlan: VlanMode::Trunk { vlans: [1].map(vid).into_iter().collect(), native: None },
        ..PortSettings::default()
    };
    let access = PortSettings { vlan: VlanMode::Access(vid(1)), ..PortSettings::default() };
    let ports = (0..300).map(|port| if port % 3 == 0 { access.clone() } else { trunk.clone() }).collect();
    let mut bench = Bench::new(&config, ports, Policy::default());
    let exact = |field: Field, value: u128| Key { field, mask: u128::MAX, min: value, max: value };
    let rule = model::Rule {
        id: 1,
        tenant: 0,
        out: false,
        group: 0,
        priority: 1,
        any: vec![vec![exact(Field::SrcMac, number(&station(2)))]],
        actions: vec![model::Action::SetPcp(5)],
    };
    bench.switch.change_rules(&[Change::Put(spec(&rule))]).unwrap();
    // From an access port untagged, from a trunk with a tag of priority 3.
    for (from, tag) in [(0, &[][..]), (1, &[0x81, 0, 0x60, 1])] {
        let frame = |src: u8| [&[0xff; 6][..], &station(src), tag, &[0x88, 0xb5], &[src; 46]].concat();
        let frames: Vec<_> = (0..40).map(|n| frame(1 + n % 2)).collect();
        bench.send(from, &frames);
        assert!(bench.switch.deliver_slice() > 0, "it is too much for one go");
        while bench.switch.deliver_slice() > 0 {}
        for to in (0..300).filter(|to| *to != from) {
            let got = bench.take(to);
            assert_eq!(got.len(), 40);
            for copy in got {
                let pcp = match copy[11] {
                    2 => 5,
                    _ if tag.is_empty() => 0,
                    _ => 3,
                };
                let expected: &[u8] = if to % 3 == 0 { &[0x88, 0xb5] } else { &[0x81, 0, pcp << 5, 1] };
                assert_eq!(&copy[12..12 + expected.len()], expected, "to port {to}");
            }
        }
    }
}
