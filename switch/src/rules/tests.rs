//! The classifier and the rule set against the obvious walk over all rules.

use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::{
    EtherType, Fields, FlowFlags, IpProtocol, MacAddr, Vid,
    fields::{ArpFields, NeighbourFields, Tag},
    transport::TcpFlags,
};
use proptest::prelude::*;

use super::changed::Parties;
use super::classifier::{Classifier, MAX_STEPS};
use super::compile::compile;
use super::concern::Concerns;
use super::key::Key;
use super::set::RuleSet;
use super::*;
use crate::conntrack::CtState;
use crate::deep_key::About;

#[path = "measure.rs"]
mod measure;

#[derive(Clone, Debug)]
struct Sample {
    fields: Fields,
    ingress: PortId,
    egress: Option<PortId>,
    vlan: Vid,
    mark: u32,
    connection: Connection,
}

impl Sample {
    fn input(&self) -> Input<'_> {
        Input {
            fields: &self.fields,
            ingress: self.ingress,
            egress: self.egress,
            vlan: self.vlan,
            mark: self.mark,
            connection: self.connection,
        }
    }
}

fn few_mac() -> impl Strategy<Value = MacAddr> {
    (0..4_u8).prop_map(|n| MacAddr::new([2, 0, 0, 0, n / 2, n]))
}

fn few_ip4() -> impl Strategy<Value = [u8; 4]> {
    (0..2_u8, 0..3_u8, 0..4_u8).prop_map(|(b, c, d)| [10, b, c, d])
}

fn few_ip6() -> impl Strategy<Value = [u8; 16]> {
    (0..3_u8, 0..3_u8, 0..3_u8).prop_map(|(a, b, c)| [0xfe, 0x80, a, 0, 0, 0, 0, b, 0, 0, 0, 0, 0, 0, 0, c])
}

fn few_port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(22), Just(80), Just(443), 1020..1030_u16, any::<u16>()]
}

fn tag() -> impl Strategy<Value = Option<Tag>> {
    let tag = (0..3_u16, 0..3_u16, any::<bool>()).prop_map(|(vid, pcp, qinq)| Tag {
        tpid: if qinq { EtherType::QINQ } else { EtherType::VLAN },
        tci: fabnic_wire::Tci(vid | pcp << 13),
    });
    prop::option::of(tag)
}

/// What heads can say, made without a head: some contradict themselves, which must not matter.
fn fields() -> impl Strategy<Value = Fields> {
    let l2 = (few_mac(), few_mac(), tag(), tag());
    let l4 = (
        few_port(),
        few_port(),
        prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(132), Just(47)],
        0..8_u8,
        prop_oneof![Just(1_u8), Just(64), any::<u8>()],
        any::<u8>(),
    );
    let kind = prop_oneof![
        4 => (few_ip4(), few_ip4(), 0..8_u8).prop_map(|(src, dst, flags)| (0, src.to_vec(), dst.to_vec(), flags)),
        3 => (few_ip6(), few_ip6(), 0..8_u8).prop_map(|(src, dst, flags)| (1, src.to_vec(), dst.to_vec(), flags)),
        1 => (few_ip4(), few_ip4(), 0..3_u8).prop_map(|(src, dst, op)| (2, src.to_vec(), dst.to_vec(), op)),
        1 => Just((3, Vec::new(), Vec::new(), 0)),
    ];
    (l2, l4, kind, few_ip6(), few_mac()).prop_map(|(l2, l4, kind, target, mac)| {
        let (kind, src, dst, flags) = kind;
        let mut fields = Fields { dst: l2.0, src: l2.1, tag: l2.2, ..Fields::default() };
        fields.inner = l2.3.filter(|_| l2.2.is_some());
        let ethertypes = [EtherType::IPV4, EtherType::IPV6, EtherType::ARP, EtherType::LLDP];
        fields.ethertype = ethertypes[kind];
        if kind < 2 {
            let flow = &mut fields.flow;
            flow.src[..src.len()].copy_from_slice(&src);
            flow.dst[..dst.len()].copy_from_slice(&dst);
            flow.flags = FlowFlags(if kind == 0 { 1 } else { 3 });
            (flow.protocol_number, flow.tos, fields.ttl) = (l4.2, l4.3, l4.4);
            let extra = [0, 8, 24, 0, 0, 32, 0, 8][usize::from(flags)];
            flow.flags.0 |= extra;
            if extra & 48 == 0 && flow.protocol_number != 47 {
                flow.flags.0 |= 4;
                (flow.src_port, flow.dst_port) = (l4.0, l4.1);
                if flow.protocol().is_icmp() {
                    (flow.src_port, flow.dst_port) = (l4.0 & 0xff, l4.1 & 3);
                }
                if flow.protocol() == IpProtocol::TCP {
                    fields.tcp_flags = TcpFlags(l4.5);
                }
                if flow.protocol() == IpProtocol::ICMPV6 && kind == 1 {
                    fields.neighbour = Some(NeighbourFields { target, link_address: None });
                }
            }
        }
        if kind == 2 && flags > 0 {
            fields.arp = Some(ArpFields {
                operation: flags.into(),
                sender_mac: l2.1,
                sender_ip: src.try_into().unwrap_or_default(),
                target_mac: mac,
                target_ip: dst.try_into().unwrap_or_default(),
            });
        }
        fields
    })
}

fn ct_state() -> impl Strategy<Value = CtState> {
    any::<u8>().prop_map(CtState::from_bits_truncate)
}

fn connection() -> impl Strategy<Value = Connection> {
    let tracked = (ct_state(), 0..3_u16, 0..4_u32).prop_map(|(state, zone, mark)| Connection {
        state: state | CtState::TRACKED,
        zone,
        mark,
    });
    prop_oneof![Just(Connection::default()), tracked]
}

fn sample() -> impl Strategy<Value = Sample> {
    (fields(), 0..4_u32, prop::option::of(0..4_u32), 1..4_u16, 0..4_u32, connection()).prop_map(
        |(fields, ingress, egress, vlan, mark, connection)| Sample {
            connection,
            fields,
            ingress: PortId(ingress),
            egress: egress.map(PortId),
            vlan: Vid::new(vlan).unwrap(),
            mark,
        },
    )
}

fn mac_mask() -> impl Strategy<Value = MacAddr> {
    prop_oneof![
        Just(MacAddr::BROADCAST),
        Just(MacAddr::new([255, 255, 255, 255, 255, 0])),
        any::<[u8; 6]>().prop_map(MacAddr::new)
    ]
}

fn mask4() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![4 => (0..=32_u8).prop_map(prefix4), 1 => any::<[u8; 4]>()]
}

fn mask6() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![4 => (0..=128_u8).prop_map(prefix6), 1 => any::<[u8; 16]>()]
}

fn range() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![
        few_port().prop_map(|port| (port, port)),
        Just((1024, 65535)),
        Just((0, 1023)),
        Just((0, 65535)),
        (few_port(), few_port()).prop_map(|(a, b)| (a.min(b), a.max(b)))
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let byte = || range().prop_map(|(a, b)| ((a & 0xff).min(b & 0xff) as u8, (a & 0xff).max(b & 0xff) as u8));
    let l2 = prop_oneof![
        (0..4_u32).prop_map(|port| Term::Ingress(PortId(port))),
        (0..4_u32).prop_map(|port| Term::Egress(PortId(port))),
        (1..4_u16).prop_map(|vlan| Term::Vlan(Vid::new(vlan).unwrap())),
        (0..4_u32, 0..4_u32).prop_map(|(value, mask)| Term::Mark { value, mask }),
        (ct_state(), ct_state()).prop_map(|(value, mask)| Term::CtState { value, mask }),
        (0..3_u16).prop_map(Term::CtZone),
        (0..4_u32, 0..4_u32).prop_map(|(value, mask)| Term::CtMark { value, mask }),
        (few_mac(), mac_mask()).prop_map(|(value, mask)| Term::DstMac { value, mask }),
        (few_mac(), mac_mask()).prop_map(|(value, mask)| Term::SrcMac { value, mask }),
        prop::sample::select(vec![EtherType::IPV4, EtherType::IPV6, EtherType::ARP])
            .prop_map(Term::EtherType),
        any::<bool>().prop_map(Term::Tagged),
        (0..3_u16).prop_map(Term::TagVid),
        (0..3_u8).prop_map(Term::TagPcp),
        (0..3_u16).prop_map(Term::InnerVid),
        (0..3_u8).prop_map(Term::InnerPcp),
    ];
    let l3 = prop_oneof![
        prop::sample::select(vec![1_u8, 6, 17, 58]).prop_map(|p| Term::Protocol(IpProtocol(p))),
        (few_ip4(), mask4()).prop_map(|(value, mask)| Term::SrcIp4 { value, mask }),
        (few_ip4(), mask4()).prop_map(|(value, mask)| Term::DstIp4 { value, mask }),
        (few_ip6(), mask6()).prop_map(|(value, mask)| Term::SrcIp6 { value, mask }),
        (few_ip6(), mask6()).prop_map(|(value, mask)| Term::DstIp6 { value, mask }),
        (0..8_u8, any::<u8>()).prop_map(|(value, mask)| Term::Tos { value, mask }),
        byte().prop_map(|(min, max)| Term::Ttl { min, max }),
        prop::sample::select(vec![Fragmented::No, Fragmented::Any, Fragmented::First, Fragmented::Later])
            .prop_map(Term::Fragment),
        (few_ip6(), mask6()).prop_map(|(value, mask)| Term::NdTarget { value, mask }),
    ];
    let l4 = prop_oneof![
        range().prop_map(|(min, max)| Term::SrcPort { min, max }),
        range().prop_map(|(min, max)| Term::DstPort { min, max }),
        (any::<u8>(), any::<u8>()).prop_map(|(value, mask)| Term::TcpFlags { value, mask }),
        byte().prop_map(|(min, max)| Term::IcmpType { min, max }),
        byte().prop_map(|(min, max)| Term::IcmpCode { min, max }),
        (0..3_u16).prop_map(Term::ArpOperation),
        (few_ip4(), mask4()).prop_map(|(value, mask)| Term::ArpSenderIp { value, mask }),
        (few_ip4(), mask4()).prop_map(|(value, mask)| Term::ArpTargetIp { value, mask }),
        (few_mac(), mac_mask()).prop_map(|(value, mask)| Term::ArpSenderMac { value, mask }),
        (few_mac(), mac_mask()).prop_map(|(value, mask)| Term::ArpTargetMac { value, mask }),
    ];
    prop_oneof![2 => l2, 3 => l3, 3 => l4]
}

fn matched() -> impl Strategy<Value = Match> {
    prop::collection::vec(term(), 0..4).prop_map(Match::new)
}

fn spec() -> impl Strategy<Value = RuleSpec> {
    (0..200_u64, 0..5_u32, prop::collection::vec(matched(), 1..3)).prop_map(|(id, priority, matches)| {
        let (id, domain, direction) = (RuleId(id), Domain::Infrastructure, Direction::Out);
        RuleSpec {
            id,
            domain,
            direction,
            group: 0,
            priority,
            name: String::new(),
            matches,
            actions: vec![Action::Drop],
        }
    })
}

/// All that match, first the one that is to be found.
fn walk<'a>(specs: impl Iterator<Item = &'a RuleSpec>, sample: &Sample) -> Vec<(u32, u64)> {
    let matching = specs.filter(|spec| spec.matches.iter().any(|matched| matched.matches(&sample.input())));
    let mut ranks: Vec<_> = matching.map(|spec| (spec.priority, spec.id.0)).collect();
    ranks.sort_unstable();
    ranks
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(bool, RuleSpec)>),
    Look(Vec<Sample>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        prop::collection::vec((prop::bool::weighted(0.8), spec()), 1..30).prop_map(Step::Apply),
        prop::collection::vec(sample(), 1..20).prop_map(Step::Look),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_compiled_match_is_its_terms(matched in matched(), samples in prop::collection::vec(sample(), 20)) {
        let compiled = compile(&matched, Direction::Out, &mut |shape| Arc::new(shape));
        for sample in samples {
            let is = matched.matches(&sample.input());
            match &compiled {
                Ok((compiled, _)) => prop_assert_eq!(compiled.matches(&Key::of(&sample.input())), is, "{:?}", sample),
                Err(error) => prop_assert!(!is, "{error}: {sample:?}"),
            }
        }
    }

    #[test]
    fn what_is_found_is_what_a_walk_finds(steps in steps()) {
        let set = RuleSet::new([1, 2]);
        let mut held: std::collections::BTreeMap<u64, RuleSpec> = Default::default();
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    let mut next = held.clone();
                    let mut list = Vec::new();
                    for (put, spec) in changes {
                        if put {
                            next.insert(spec.id.0, spec.clone());
                            list.push(Change::Put(spec));
                        } else {
                            next.remove(&spec.id.0);
                            list.push(Change::Remove { domain: spec.domain, id: spec.id });
                        }
                    }
                    // All or nothing: an unknown rule or an impossible match in it refuses the whole.
                    if set.apply(&list, |_| {}).is_ok() {
                        held = next;
                    }
                    prop_assert_eq!(set.list(None).len(), held.len());
                    let matches: usize = held.values().map(|spec| spec.matches.len()).sum();
                    prop_assert_eq!(set.shape(Domain::Infrastructure, Direction::Out, 0).rules, matches);
                }
                Step::Look(samples) => {
                    for sample in samples {
                        let key = Key::of(&sample.input());
                        let side = set.read();
                        let mut found = Vec::new();
                        let mut after = None;
                        while let Some(rule) = side.find(Domain::Infrastructure, Direction::Out, 0, &key, after) {
                            found.push(rule.rank());
                            after = Some(rule.rank());
                        }
                        let expected = walk(held.values(), &sample);
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn a_decision_is_good_until_a_rule_that_matters_changes(
        first in prop::collection::vec(spec(), 1..10),
        then in prop::collection::vec(prop::collection::vec(spec(), 1..3), 1..6),
        samples in prop::collection::vec(sample(), 1..20),
    ) {
        let set = RuleSet::new([1, 2]);
        for spec in first {
            let _ = set.apply(&[Change::Put(spec)], |_| {});
        }
        let find = |sample: &Sample| {
            let key = Key::of(&sample.input());
            set.read().find(Domain::Infrastructure, Direction::Out, 0, &key, None).map(|rule| rule.rank())
        };
        let flow = |sample: &Sample| {
            let flow = &sample.fields.flow;
            let first = |address: [u8; 16]| (u128::from_be_bytes(address) >> 64) as u64;
            About { src: first(flow.src), dst: first(flow.dst), dst_port: flow.dst_port }
        };
        let sum = |sample: &Sample| {
            let concerns = set.concerns();
            let egress = sample.egress.map(|port| concerns.of_egress(Concerns::egress_cells(port, None)));
            concerns
                .of_ingress(sample.ingress, None)
                .wrapping_add(concerns.of_flow(&flow(sample)))
                .wrapping_add(egress.unwrap_or(0))
        };
        let made: Vec<_> = samples.iter().map(|sample| (set.epoch(), find(sample), sum(sample))).collect();
        for specs in then {
            let changes: Vec<_> = specs.into_iter().map(Change::Put).collect();
            let _ = set.apply(&changes, |_| {});
            for (sample, (epoch, decided, before)) in samples.iter().zip(&made) {
                let parties = Parties { ingress: None, egress: None };
                let egress = sample.egress.map(|port| (port, None));
                let cells = set.concerns().of(&flow(sample), (sample.ingress, None), egress);
                let key = || Some(Key::of(&sample.input()));
                let judged = set.still_good((*epoch, set.epoch()), (&flow(sample), &cells), parties, key);
                if judged {
                    prop_assert_eq!(find(sample), *decided);
                }
                if sum(sample) == *before {
                    prop_assert_eq!(find(sample), *decided);
                    prop_assert!(judged, "what is not in the sum is no concern");
                }
            }
        }
    }
}

fn rule(id: u64, terms: Vec<Term>) -> RuleSpec {
    RuleSpec {
        id: RuleId(id),
        domain: Domain::Tenant(1),
        direction: Direction::In,
        group: 0,
        priority: id as u32 % 7,
        name: format!("rule {id}"),
        matches: vec![Match::new(terms)],
        actions: vec![Action::Pass],
    }
}

#[test]
fn rules_that_would_make_a_look_up_long_are_refused() {
    // All in one chain: nothing but ranges tells them apart.
    let one_chain = (0..4_000_u16).map(|n| vec![Term::SrcPort { min: 1000 + n, max: 40_000 + n }]);
    // Masks of all kinds.
    let masks = (0..4_000_u32).map(|n| {
        let mask = n.wrapping_mul(0x9e37_79b9) | 1;
        vec![Term::SrcIp4 { value: n.to_be_bytes(), mask: mask.to_be_bytes() }]
    });
    for rules in [one_chain.collect::<Vec<_>>(), masks.collect()] {
        let set = RuleSet::new([1, 2]);
        let mut refused = None;
        for (id, terms) in (0..).zip(rules) {
            if let Err(error) = set.apply(&[Change::Add(rule(id, terms))], |_| {}) {
                refused = Some(error);
                break;
            }
        }
        let shape = set.shape(Domain::Tenant(1), Direction::In, 0);
        assert!(shape.steps <= MAX_STEPS, "{shape:?}");
        if let Some(error) = refused {
            assert!(matches!(error.source, RuleError::Irregular { .. }), "{error}");
            assert_eq!(set.count(Domain::Tenant(1)), shape.rules as u32);
        }
        assert!(shape.rules > 1000, "{shape:?}");
    }
}

#[test]
fn a_refused_transaction_leaves_nothing_behind() {
    let set = RuleSet::new([1, 2]);
    set.set_limit(Domain::Tenant(1), 3);
    set.apply(&[Change::Add(rule(1, vec![]))], |_| {}).unwrap();
    let epoch = set.epoch();
    let add = |id| Change::Add(rule(id, vec![Term::TagVid(id as u16)]));
    let refused = set.apply(&[add(2), add(3), add(4)], |_| {}).unwrap_err();
    assert_eq!((refused.index, refused.id), (2, RuleId(4)));
    assert_eq!(refused.source, RuleError::Quota { domain: Domain::Tenant(1), limit: 3 });
    let refused = set.apply(&[add(2), add(2)], |_| {}).unwrap_err();
    assert_eq!((refused.index, refused.source), (1, RuleError::Exists));
    assert_eq!((set.epoch(), set.count(Domain::Tenant(1)), set.list(None).len()), (epoch, 1, 1));
    assert_eq!(set.needs(), crate::Needs::PLANS);
    set.apply(&[Change::Remove { domain: Domain::Tenant(1), id: RuleId(1) }], |_| {}).unwrap();
    assert!(set.count(Domain::Tenant(1)) == 0 && set.needs().is_empty());
}

#[test]
fn statistics_outlive_a_replacement() {
    let set = RuleSet::new([1, 2]);
    set.apply(&[Change::Add(rule(1, vec![]))], |_| {}).unwrap();
    let key = Key::default();
    let find = || set.read().find(Domain::Tenant(1), Direction::In, 0, &key, None).cloned().unwrap();
    find().identity.stats.add(2, 120, 9);
    set.apply(&[Change::Put(rule(1, vec![Term::Tagged(false)]))], |_| {}).unwrap();
    find().identity.stats.add(1, 60, 10);
    let renamed = RuleSpec { name: "other".to_owned(), ..rule(1, vec![]) };
    set.apply(&[Change::Put(renamed)], |_| {}).unwrap();
    let counts = set.get(Domain::Tenant(1), RuleId(1)).unwrap().counts;
    assert_eq!(counts, RuleCounts { packets: 3, bytes: 180, last_used: Some(10) });
}

#[test]
fn lists_of_actions_are_checked() {
    let with = |actions: Vec<Action>| {
        RuleSet::new([1, 2]).apply(&[Change::Add(RuleSpec { actions, ..rule(1, vec![]) })], |_| {})
    };
    let refused = |actions| with(actions).unwrap_err().source;
    assert_eq!(refused(vec![Action::Drop, Action::Pass]), RuleError::BehindTheEnd(1));
    assert_eq!(refused(vec![Action::Goto(0)]), RuleError::GotoBack { from: 0, to: 0 });
    assert_eq!(refused(vec![Action::Goto(32)]), RuleError::Group(32));
    assert!(with(vec![Action::Mark { value: 1, mask: 1 }, Action::Goto(3)]).is_ok());
    let out = RuleSpec {
        direction: Direction::Out,
        actions: vec![Action::Set(Set::Vlan(Vid::DEFAULT))],
        ..rule(1, vec![])
    };
    let refused = RuleSet::new([1, 2]).apply(&[Change::Add(out)], |_| {}).unwrap_err();
    assert_eq!(refused.source, RuleError::VlanInDirectionOut);
}

#[test]
fn an_unmerged_classifier_finds_the_same() {
    let mut both = [Classifier::new([3, 5]), Classifier::unmerged([3, 5])];
    let set = RuleSet::new([1, 2]);
    for id in 0..300_u32 {
        let terms = vec![Term::src_net4(id.wrapping_mul(0x0101_4001).to_be_bytes(), (id % 33) as u8)];
        set.apply(&[Change::Add(rule(id.into(), terms))], |_| {}).unwrap();
    }
    for rank in set.list(None) {
        let mut fields = Fields { ethertype: EtherType::IPV4, ..Fields::default() };
        fields.flow.flags = FlowFlags::IP;
        fields.flow.src[..4].copy_from_slice(&(rank.id.0 as u32).wrapping_mul(0x0101_4001).to_be_bytes());
        let input = Input {
            fields: &fields,
            ingress: PortId(0),
            egress: None,
            vlan: Vid::DEFAULT,
            mark: 0,
            connection: Connection::default(),
        };
        let key = Key::of(&input);
        let side = set.read();
        let mut after = None;
        while let Some(rule) = side.find(Domain::Tenant(1), Direction::In, 0, &key, after) {
            after = Some(rule.rank());
            if rule.identity.id == rank.id {
                both.iter_mut().for_each(|classifier| classifier.insert(Arc::clone(rule)).unwrap());
            }
        }
        let [merged, unmerged] =
            both.each_ref().map(|classifier| classifier.find(&key, None).unwrap().rank());
        assert_eq!(merged, unmerged);
    }
    assert!(both[0].shape().tables < both[1].shape().tables, "{:?}", both.each_ref().map(Classifier::shape));
}
