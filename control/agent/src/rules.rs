//! From the words of rules to the switch's own.
//!
//! A rule of the file has one match; the switch's has as many as it takes: one for each port and for each address of a
//! group that it names. What the two are called differs little; where a key of the file may be a range and the switch
//! compares single values (priorities), the range becomes several matches as well.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use fabnic_api::ApplyError;
use fabnic_model::rule::value::{Address, ByteRange, Fragment, MacMask, Prefix};
use fabnic_model::rule::{
    Action as ModelAction, Ct, Direction as ModelDirection, NatRange, Set as ModelSet, Ttl,
};
use fabnic_model::{Desired, Object as _, Rule, qualified};
use fabnic_port::PortId;
use fabnic_switch::{
    Action, Change, CtAction, CtState, Direction, Domain, Fragmented, MAX_MATCHES, Match, Nat, RuleId,
    RuleSpec, Set, Switch, Term, prefix4, prefix6,
};
use fabnic_wire::{EtherType, IpProtocol, MacAddr};

use crate::settings::{mac, policer, vid};

/// Terms of which one has to hold, for each key that may be several.
type Choice = Vec<Vec<Term>>;

fn mac_term(mask: MacMask, term: fn(MacAddr, MacAddr) -> Term) -> Vec<Term> {
    vec![term(mac(mask.mac), mac(mask.mask))]
}

fn bytes(range: ByteRange) -> std::ops::RangeInclusive<u8> {
    range.low..=range.high
}

/// An address of a packet, of either kind of IP.
fn address(prefix: Prefix, is_source: bool) -> Vec<Term> {
    let term = match (prefix.address, is_source) {
        (IpAddr::V4(value), true) => Term::SrcIp4 { value: value.octets(), mask: prefix4(prefix.length) },
        (IpAddr::V4(value), false) => Term::DstIp4 { value: value.octets(), mask: prefix4(prefix.length) },
        (IpAddr::V6(value), true) => Term::SrcIp6 { value: value.octets(), mask: prefix6(prefix.length) },
        (IpAddr::V6(value), false) => Term::DstIp6 { value: value.octets(), mask: prefix6(prefix.length) },
    };
    vec![term]
}

fn arp(prefix: Prefix, term: fn([u8; 4], [u8; 4]) -> Term) -> Vec<Term> {
    match prefix.address {
        IpAddr::V4(value) => vec![term(value.octets(), prefix4(prefix.length))],
        IpAddr::V6(_) => Vec::new(),
    }
}

/// What names stand for while rules are made.
pub(crate) struct Scene<'a> {
    /// The configuration that is to run.
    pub(crate) desired: &'a Desired,
    /// The numbers of a port: of one that is made again, the old one and the new one.
    pub(crate) ports: &'a dyn Fn(&str) -> Vec<PortId>,
    /// The numbers of tenants.
    pub(crate) tenants: &'a HashMap<String, u32>,
}

/// Rules that may have to be told to the switch, by number: whose they are, and their qualified names.
#[derive(Debug, Default)]
pub(crate) struct Touched(BTreeMap<u64, (Option<String>, String)>);

impl Touched {
    /// This rule, which is in `desired`.
    pub(crate) fn rule(&mut self, desired: &Desired, name: &str) {
        if let (Some(number), Some(rule)) = (desired.rule_number(name), desired.find_rule(name)) {
            self.0.insert(number, (rule.tenant.clone(), name.to_owned()));
        }
    }

    /// All rules that speak of this group.
    pub(crate) fn users_of(&mut self, desired: &Desired, group: &fabnic_model::Group) {
        for (number, rule) in desired.rules_of_group(&group.qualified()) {
            self.0.insert(number, (rule.tenant.clone(), rule.qualified()));
        }
    }

    /// All rules that are not the same in both, or that speak of one of these ports, or of a group that changes.
    pub(crate) fn between(old: &Desired, new: &Desired, ports: &HashSet<&str>) -> Touched {
        let mut touched = Touched::default();
        let changed: HashSet<(Option<&str>, &str)> = new
            .config()
            .group
            .iter()
            .filter(|group| old.find_group(&group.qualified()) != Some(group))
            .map(|group| (group.tenant(), group.name()))
            .collect();
        for (number, rule) in new.numbered_rules() {
            let name = rule.qualified();
            let is_same =
                old.find_rule(&name).is_some_and(|before| Arc::ptr_eq(before, rule) || before == rule);
            let speaks = rule.port.0.iter().any(|port| ports.contains(port.as_str()))
                || rule.action.iter().any(
                    |action| matches!(action, ModelAction::Redirect(port) if ports.contains(port.as_str())),
                )
                || rule.groups().any(|group| changed.contains(&(rule.tenant(), group)));
            if !is_same || speaks {
                touched.0.insert(number, (rule.tenant.clone(), name));
            }
        }
        for (number, rule) in old.numbered_rules() {
            let name = rule.qualified();
            if new.rule_number(&name) != Some(number) {
                touched.0.insert(number, (rule.tenant.clone(), name));
            }
        }
        touched
    }
}

/// What the switch has to be told for the touched rules to be as they are desired.
pub(crate) fn changes(
    scene: &Scene<'_>,
    switch: &Switch,
    touched: &Touched,
) -> Result<Vec<Change>, ApplyError> {
    let mut changes = Vec::with_capacity(touched.0.len());
    for (&number, (tenant, name)) in &touched.0 {
        let domain = match tenant {
            None => Domain::Infrastructure,
            // A tenant has a number from the moment on in which anything is its own.
            Some(tenant) => Domain::Tenant(scene.tenants.get(tenant).copied().unwrap_or(u32::MAX)),
        };
        let rule = scene.desired.find_rule(name).filter(|_| scene.desired.rule_number(name) == Some(number));
        let spec = match rule {
            Some(rule) => spec(rule, number, domain, scene)?,
            None => None,
        };
        match spec {
            Some(spec) => changes.push(Change::Put(spec)),
            // A rule that nothing can match is not there.
            None if switch.rules().get(domain, RuleId(number)).is_some() => {
                changes.push(Change::Remove { domain, id: RuleId(number) });
            }
            None => {}
        }
    }
    Ok(changes)
}

/// Tells the switch.
pub(crate) fn tell(switch: &Switch, changes: &[Change]) -> Result<(), ApplyError> {
    if changes.is_empty() {
        return Ok(());
    }
    switch.change_rules(changes).map(|_| ()).map_err(|error| {
        let name = match changes.get(error.index) {
            Some(Change::Add(spec) | Change::Put(spec)) => spec.name.clone(),
            _ => String::new(),
        };
        ApplyError::Failed {
            key: format!("rule[{name}]"),
            problem: error.source.to_string(),
            expected: "a rule that the switch can take".into(),
        }
    })
}

/// A rule as the switch takes it. Names were checked. `None` of one that no packet can match.
fn spec(rule: &Rule, number: u64, domain: Domain, scene: &Scene<'_>) -> Result<Option<RuleSpec>, ApplyError> {
    let failed = |key: &str, problem: String, expected: String| ApplyError::Failed {
        key: format!("rule[{}].{key}", rule.name),
        problem,
        expected,
    };
    let matches = product(&choices(rule, scene)).ok_or_else(|| {
        let problem =
            "its ports, groups and ranges come to more combinations than a rule may have".to_owned();
        failed("match", problem, format!("at most {MAX_MATCHES}"))
    })?;
    if matches.is_empty() {
        return Ok(None);
    }
    let mut actions = Vec::new();
    for action in &rule.action {
        self::action(action, rule, scene, &mut actions).ok_or_else(|| {
            failed("action", format!("`{action}` is known, but not in this build"), "another action".into())
        })?;
    }
    // What only counts and marks goes on with the next rule.
    if !rule.action.iter().any(ModelAction::is_last) {
        actions.push(Action::Continue);
    }
    Ok(Some(RuleSpec {
        id: RuleId(number),
        domain,
        direction: match rule.direction {
            ModelDirection::Ingress => Direction::In,
            ModelDirection::Egress => Direction::Out,
        },
        // Checked: 31 at most.
        group: u8::try_from(rule.group).unwrap_or(u8::MAX),
        priority: rule.priority,
        name: rule.qualified(),
        matches,
        actions,
    }))
}

/// What each key of a rule asks for.
fn choices(rule: &Rule, scene: &Scene<'_>) -> Vec<Choice> {
    let m = &rule.matching;
    let mut all: Vec<Choice> = Vec::new();
    let mut one = |terms: Option<Vec<Term>>| all.extend(terms.map(|terms| vec![terms]));
    one(m.src_mac.map(|mask| mac_term(mask, |value, mask| Term::SrcMac { value, mask })));
    one(m.dst_mac.map(|mask| mac_term(mask, |value, mask| Term::DstMac { value, mask })));
    one(m.protocol.map(|protocol| vec![Term::EtherType(EtherType(protocol.0))]));
    one(m.vlan_id.map(|vlan| vec![Term::Vlan(vid(vlan))]));
    one(m.cvlan_id.map(|vlan| vec![Term::InnerVid(vlan.get())]));
    one(m.ip_proto.map(|protocol| vec![Term::Protocol(IpProtocol(protocol.0))]));
    one(m.src_port.map(|range| vec![Term::SrcPort { min: range.low, max: range.high }]));
    one(m.dst_port.map(|range| vec![Term::DstPort { min: range.low, max: range.high }]));
    one(m.tcp_flags.map(|flags| vec![Term::TcpFlags { value: flags.value, mask: flags.mask }]));
    one(m.ip_tos.map(|tos| vec![Term::Tos { value: tos.value, mask: tos.mask }]));
    one(m.ip_ttl.map(|range| vec![Term::Ttl { min: range.low, max: range.high }]));
    one(m.ip_flags.map(|fragment| {
        vec![Term::Fragment(match fragment {
            Fragment::Any => Fragmented::Any,
            Fragment::Not => Fragmented::No,
            Fragment::First => Fragmented::First,
            Fragment::Later => Fragmented::Later,
        })]
    }));
    one(m.icmp_type.map(|range| vec![Term::IcmpType { min: range.low, max: range.high }]));
    one(m.icmp_code.map(|range| vec![Term::IcmpCode { min: range.low, max: range.high }]));
    one(m.arp_op.map(|op| vec![Term::ArpOperation(op.0)]));
    one(m.arp_sip.map(|prefix| arp(prefix, |value, mask| Term::ArpSenderIp { value, mask })));
    one(m.arp_tip.map(|prefix| arp(prefix, |value, mask| Term::ArpTargetIp { value, mask })));
    one(m.arp_sha.map(|mask| mac_term(mask, |value, mask| Term::ArpSenderMac { value, mask })));
    one(m.arp_tha.map(|mask| mac_term(mask, |value, mask| Term::ArpTargetMac { value, mask })));
    one(m.nd_target.map(|prefix| match prefix.address {
        IpAddr::V6(value) => vec![Term::NdTarget { value: value.octets(), mask: prefix6(prefix.length) }],
        IpAddr::V4(_) => Vec::new(),
    }));
    one(m.ct_state.map(|state| vec![ct_term(state)]));
    one(m.ct_mark.map(|mark| vec![Term::CtMark { value: mark.value, mask: mark.mask }]));
    one(m.mark.map(|mark| vec![Term::Mark { value: mark.value, mask: mark.mask }]));

    let priorities =
        |range: ByteRange, term: fn(u8) -> Term| bytes(range).map(|value| vec![term(value)]).collect();
    all.extend(m.vlan_prio.map(|range| priorities(range, Term::TagPcp)));
    all.extend(m.cvlan_prio.map(|range| priorities(range, Term::InnerPcp)));
    let code_point = |dscp: u8| vec![Term::Tos { value: dscp << 2, mask: 0xfc }];
    all.extend(m.dscp.map(|range| bytes(range).map(code_point).collect()));
    for (given, is_source) in [(&m.src_ip, true), (&m.dst_ip, false)] {
        match given {
            None => {}
            Some(Address::Prefix(prefix)) => all.push(vec![address(*prefix, is_source)]),
            Some(Address::Group(name)) => {
                let group = scene.desired.find_group(&qualified(rule.tenant(), name));
                let addresses = group.map(|group| group.addresses.as_slice()).unwrap_or_default();
                all.push(addresses.iter().map(|prefix| address(*prefix, is_source)).collect());
            }
        }
    }
    if !rule.port.is_empty() {
        let term: fn(PortId) -> Term = match rule.direction {
            ModelDirection::Ingress => Term::Ingress,
            ModelDirection::Egress => Term::Egress,
        };
        let ids = rule.port.0.iter().flat_map(|name| (scene.ports)(name));
        all.push(ids.map(|id| vec![term(id)]).collect());
    }
    all
}

fn ct_term(state: fabnic_model::rule::value::CtState) -> Term {
    use fabnic_model::rule::value::CtState as Word;
    const BITS: [(u8, CtState); 6] = [
        (Word::TRK, CtState::TRACKED),
        (Word::NEW, CtState::NEW),
        (Word::EST, CtState::ESTABLISHED),
        (Word::REL, CtState::RELATED),
        (Word::RPL, CtState::REPLY),
        (Word::INV, CtState::INVALID),
    ];
    let bits = |words: u8| {
        let named = BITS.iter().filter(|(word, _)| words & word != 0);
        named.fold(CtState::empty(), |all, (_, bit)| all | *bit)
    };
    Term::CtState { value: bits(state.set), mask: bits(state.set | state.unset) }
}

/// Every combination of one of each. `None` when there are too many. A group without addresses matches nothing, and gives
/// no combination.
fn product(choices: &[Choice]) -> Option<Vec<Match>> {
    let count = choices.iter().try_fold(1_usize, |count, choice| count.checked_mul(choice.len()))?;
    if count > MAX_MATCHES {
        return None;
    }
    let mut combinations: Vec<Vec<Term>> = vec![Vec::new()];
    for choice in choices {
        combinations = combinations
            .iter()
            .flat_map(|so_far| choice.iter().map(move |terms| [so_far.as_slice(), terms].concat()))
            .collect();
    }
    Some(combinations.into_iter().map(Match::new).collect())
}

fn range(range: NatRange) -> fabnic_switch::NatRange {
    fabnic_switch::NatRange {
        first: range.first,
        last: range.last,
        ports: range.ports.map(|(low, high)| low..=high),
    }
}

/// What a rule says of connections.
fn connection(ct: &Ct) -> CtAction {
    let nat = Nat { source: ct.snat.map(range), destination: ct.dnat.map(range) };
    CtAction {
        zone: ct.zone,
        commit: ct.commit,
        mark: ct.ct_mark,
        nat: (nat != Nat::default()).then_some(nat),
    }
}

/// Appends what a rule does. `None` where a name stands for nothing.
fn action(action: &ModelAction, rule: &Rule, scene: &Scene<'_>, to: &mut Vec<Action>) -> Option<()> {
    let own = |name: &str| qualified(rule.tenant(), name);
    to.push(match action {
        ModelAction::Drop => Action::Drop,
        ModelAction::Pass => Action::Pass,
        // Every rule counts.
        ModelAction::Count => return Some(()),
        ModelAction::Redirect(port) => Action::Redirect(*(scene.ports)(port).last()?),
        ModelAction::Mirror(mirror) => Action::Mirror(own(mirror)),
        ModelAction::Goto(group) => Action::Goto(u8::try_from(*group).ok()?),
        ModelAction::Sample(sample) => Action::Sample { mirror: own(&sample.mirror), every: sample.one_in },
        ModelAction::Mark(mark) => Action::Mark { value: *mark, mask: u32::MAX },
        ModelAction::Set(fields) => {
            set(fields, to);
            return Some(());
        }
        ModelAction::Meter(meter) => Action::Meter(own(meter)),
        ModelAction::Police(police) => Action::Police(policer(*police)),
        ModelAction::Ct(ct) => Action::Ct(connection(ct)),
    });
    Some(())
}

fn set(fields: &ModelSet, to: &mut Vec<Action>) {
    let source = |address: IpAddr| match address {
        IpAddr::V4(address) => Set::SrcIp4(address.octets()),
        IpAddr::V6(address) => Set::SrcIp6(address.octets()),
    };
    let destination = |address: IpAddr| match address {
        IpAddr::V4(address) => Set::DstIp4(address.octets()),
        IpAddr::V6(address) => Set::DstIp6(address.octets()),
    };
    let ttl = |ttl: Ttl| match ttl {
        Ttl::Dec => Set::DecTtl,
        Ttl::To(ttl) => Set::Ttl(ttl),
    };
    let all = [
        fields.dst_mac.map(|address| Set::DstMac(mac(address))),
        fields.src_mac.map(|address| Set::SrcMac(mac(address))),
        fields.vlan.map(|vlan| Set::Vlan(vid(vlan))),
        fields.vlan_prio.map(Set::Pcp),
        fields.dscp.map(|dscp| Set::Tos { value: dscp << 2, mask: 0xfc }),
        fields.ttl.map(ttl),
        fields.src_ip.map(source),
        fields.dst_ip.map(destination),
        fields.src_port.map(Set::SrcPort),
        fields.dst_port.map(Set::DstPort),
    ];
    to.extend(all.into_iter().flatten().map(Action::Set));
}
