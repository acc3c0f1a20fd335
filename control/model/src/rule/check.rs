//! Whether a rule makes sense, and whether its domain may have it.

use super::{
    Action, Direction, Rule, Set,
    text::MOST_ACTIONS,
    value::{Address, ByteRange, IpProto, Prefix, Protocol},
};
use crate::{
    Refusal,
    check::is_name,
    parse::shortened,
    refusal::{Path, Step},
};

/// What names stand for, in the configuration in which a rule is to be.
pub(crate) trait Names {
    /// The tenant of a port, if there is the port.
    fn port(&self, name: &str) -> Option<Option<&str>>;
    /// Whether there is such a tenant.
    fn has_tenant(&self, name: &str) -> bool;
    /// Whether there is such a group in the domain.
    fn has_group(&self, tenant: Option<&str>, name: &str) -> bool;
    /// Whether there is such a meter in the domain.
    fn has_meter(&self, tenant: Option<&str>, name: &str) -> bool;
    /// Whether there is such a mirror in the domain.
    fn has_mirror(&self, tenant: Option<&str>, name: &str) -> bool;
}

/// The highest group.
const MOST_GROUP: u32 = 31;
/// Most ports of a rule.
const MOST_PORTS: usize = 4096;

struct Check<'a> {
    at: &'a [Step],
    found: &'a mut Vec<Refusal>,
}

impl Check<'_> {
    fn path(&self, keys: &[Step]) -> Path {
        self.at.iter().chain(keys).cloned().collect()
    }

    fn refuse(&mut self, key: &str, problem: impl Into<String>, expected: impl Into<String>) {
        self.refuse_at(&[Step::Key(key.into())], problem, expected);
    }

    fn refuse_match(&mut self, key: &str, problem: impl Into<String>, expected: impl Into<String>) {
        self.refuse_at(&[Step::Key("match".into()), Step::Key(key.into())], problem, expected);
    }

    fn refuse_action(&mut self, index: usize, problem: impl Into<String>, expected: impl Into<String>) {
        self.refuse_at(&[Step::Key("action".into()), Step::Element(index, None)], problem, expected);
    }

    fn refuse_at(&mut self, keys: &[Step], problem: impl Into<String>, expected: impl Into<String>) {
        let refusal = Refusal::at(self.path(keys), problem, expected);
        self.found.push(refusal);
    }
}

/// Whether addresses are of IPv4, as far as the rule says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn of(is_ipv4: bool) -> Self {
        if is_ipv4 { Self::V4 } else { Self::V6 }
    }
}

impl Rule {
    /// Finds what is wrong with a rule.
    pub(crate) fn check(&self, at: &[Step], names: &impl Names, found: &mut Vec<Refusal>) {
        let mut check = Check { at, found };
        if !is_name(&self.name) {
            let problem = format!("`{}` is no name for a rule", shortened(&self.name));
            check.refuse("name", problem, "1 to 63 of a-z A-Z 0-9 _ . -");
        }
        if let Some(tenant) = self.tenant.as_deref().filter(|tenant| !names.has_tenant(tenant)) {
            let problem = format!("there is no tenant `{}`", shortened(tenant));
            check.refuse("tenant", problem, "the name of a [[tenant]]");
        }
        if self.group > MOST_GROUP {
            check.refuse("group", format!("{} is out of range", self.group), format!("0 to {MOST_GROUP}"));
        }
        self.check_ports(&mut check, names);
        let family = self.check_match(&mut check, names);
        self.check_actions(&mut check, names, family);
    }

    fn check_ports(&self, check: &mut Check<'_>, names: &impl Names) {
        let ports = &self.port.0;
        if ports.len() > MOST_PORTS {
            check.refuse("port", format!("{} ports are named", ports.len()), format!("at most {MOST_PORTS}"));
            return;
        }
        for port in ports {
            self.check_port(check, names, port, &[Step::Key("port".into())]);
        }
        let mut sorted: Vec<&String> = ports.iter().collect();
        sorted.sort_unstable();
        if let Some([twice, _]) = sorted.array_windows().find(|[a, b]| a == b) {
            check.refuse("port", format!("port `{}` is named twice", shortened(twice)), "each port once");
        }
    }

    fn check_port(&self, check: &mut Check<'_>, names: &impl Names, port: &str, keys: &[Step]) {
        let known = names.port(port);
        // To a tenant, others' ports are not there.
        let is_there = known.is_some_and(|owner| self.tenant.is_none() || owner == self.tenant.as_deref());
        if !is_there {
            let (whose, expected) = match &self.tenant {
                None => (String::new(), "the name of a [[port]]".to_owned()),
                Some(tenant) => (
                    format!(" of tenant {}", shortened(tenant)),
                    format!("the name of a [[port]] with tenant = \"{}\"", shortened(tenant)),
                ),
            };
            check.refuse_at(keys, format!("there is no port `{}`{whose}", shortened(port)), expected);
        }
    }

    /// Gives the kind of IP that the rule is about, if it says.
    fn check_match(&self, check: &mut Check<'_>, names: &impl Names) -> Option<Family> {
        let m = &self.matching;
        let most = |check: &mut Check<'_>, key: &str, range: Option<ByteRange>, most: u8| {
            if let Some(range) = range.filter(|range| range.high > most) {
                check.refuse_match(key, format!("{range} is out of range"), format!("0 to {most}"));
            }
        };
        most(check, "vlan_prio", m.vlan_prio, 7);
        most(check, "cvlan_prio", m.cvlan_prio, 7);
        most(check, "dscp", m.dscp, 63);

        let mut family = match m.protocol {
            Some(Protocol::IPV4) => Some(Family::V4),
            Some(Protocol::IPV6) => Some(Family::V6),
            _ => None,
        };
        for (key, address) in [("src_ip", &m.src_ip), ("dst_ip", &m.dst_ip)] {
            match address {
                Some(Address::Group(group)) if !names.has_group(self.tenant.as_deref(), group) => {
                    let problem = format!("there is no group `{}`", shortened(group));
                    check.refuse_match(
                        key,
                        problem,
                        "group: and the name of a [[group]] of the rule's domain",
                    );
                }
                Some(Address::Prefix(prefix)) => {
                    let own = Family::of(prefix.is_ipv4());
                    if *family.get_or_insert(own) != own {
                        let problem = format!("{prefix} is of another kind than the rest of the match");
                        check.refuse_match(key, problem, "IPv4 or IPv6 throughout");
                    }
                }
                _ => {}
            }
        }
        match m.ip_proto {
            Some(IpProto::ICMP) if family == Some(Family::V6) => {
                check.refuse_match("ip_proto", "icmp is IPv4's", "icmpv6");
            }
            Some(IpProto::ICMPV6) if family == Some(Family::V4) => {
                check.refuse_match("ip_proto", "icmpv6 is IPv6's", "icmp");
            }
            _ => {}
        }
        self.check_layers(check);
        family
    }

    /// Keys that speak of what cannot be in such a packet.
    fn check_layers(&self, check: &mut Check<'_>) {
        let m = &self.matching;
        let no_v4 = |prefix: Option<Prefix>| prefix.is_some_and(|p| !p.is_ipv4());
        for (key, prefix) in [("arp_sip", m.arp_sip), ("arp_tip", m.arp_tip)] {
            if no_v4(prefix) {
                check.refuse_match(key, "ARP has IPv4 addresses only", "an IPv4 address or prefix");
            }
        }
        if m.nd_target.is_some_and(Prefix::is_ipv4) {
            check.refuse_match("nd_target", "neighbour discovery is IPv6's", "an IPv6 address or prefix");
        }
        let arp = [
            ("arp_op", m.arp_op.is_some()),
            ("arp_sip", m.arp_sip.is_some()),
            ("arp_tip", m.arp_tip.is_some()),
            ("arp_sha", m.arp_sha.is_some()),
            ("arp_tha", m.arp_tha.is_some()),
        ];
        let ip = [
            ("ip_proto", m.ip_proto.is_some()),
            ("src_ip", m.src_ip.is_some()),
            ("dst_ip", m.dst_ip.is_some()),
            ("src_port", m.src_port.is_some()),
            ("dst_port", m.dst_port.is_some()),
            ("tcp_flags", m.tcp_flags.is_some()),
            ("ip_tos", m.ip_tos.is_some()),
            ("dscp", m.dscp.is_some()),
            ("ip_ttl", m.ip_ttl.is_some()),
            ("ip_flags", m.ip_flags.is_some()),
            ("icmp_type", m.icmp_type.is_some()),
            ("icmp_code", m.icmp_code.is_some()),
            ("nd_target", m.nd_target.is_some()),
            ("ct_state", m.ct_state.is_some()),
            ("ct_mark", m.ct_mark.is_some()),
        ];
        let is_arp = m.protocol == Some(Protocol::ARP) || arp.iter().any(|(_, given)| *given);
        let first =
            |keys: &[(&'static str, bool)]| keys.iter().find(|(_, given)| *given).map(|(key, _)| *key);
        if is_arp && let Some(key) = first(&ip) {
            check.refuse_match(key, format!("an ARP packet has no `{key}`"), "keys of ARP, or keys of IP");
        }
        match m.protocol {
            Some(Protocol::IPV4 | Protocol::IPV6 | Protocol::ARP) | None => {}
            Some(other) => {
                if let Some(key) = first(&ip) {
                    let problem = format!("a packet of protocol {other} has no `{key}`");
                    check.refuse_match(key, problem, "protocol ipv4 or ipv6, or none");
                }
            }
        }
        if let Some(protocol @ (Protocol::IPV4 | Protocol::IPV6)) = m.protocol
            && let Some(key) = first(&arp)
        {
            check.refuse_match(
                key,
                format!("a packet of protocol {protocol} has no `{key}`"),
                "protocol arp",
            );
        }
        let Some(protocol) = m.ip_proto else { return };
        let is_icmp = matches!(protocol, IpProto::ICMP | IpProto::ICMPV6);
        for (key, given, fits) in [
            ("src_port", m.src_port.is_some(), protocol.has_ports()),
            ("dst_port", m.dst_port.is_some(), protocol.has_ports()),
            ("tcp_flags", m.tcp_flags.is_some(), protocol == IpProto::TCP),
            ("icmp_type", m.icmp_type.is_some(), is_icmp),
            ("icmp_code", m.icmp_code.is_some(), is_icmp),
            ("nd_target", m.nd_target.is_some(), protocol == IpProto::ICMPV6),
        ] {
            if given && !fits {
                let problem = format!("a packet of ip_proto {protocol} has no `{key}`");
                check.refuse_match(key, problem, "an ip_proto that has it, or none");
            }
        }
    }

    fn check_actions(&self, check: &mut Check<'_>, names: &impl Names, family: Option<Family>) {
        if self.action.is_empty() || self.action.len() > MOST_ACTIONS {
            let expected = format!("1 to {MOST_ACTIONS}, such as [\"drop\"]");
            check.refuse("action", format!("{} actions are given", self.action.len()), expected);
            return;
        }
        let tenant = self.tenant.as_deref();
        let last = self.action.len() - 1;
        for (index, action) in self.action.iter().enumerate() {
            if action.is_last() && index < last {
                let problem = format!("`{action}` ends the rule, and more comes after it");
                check.refuse_action(index, problem, "it as the last action");
            }
            let nameless = |what: &str, name: &str| format!("there is no {what} `{}`", shortened(name));
            match action {
                Action::Redirect(port) => {
                    if self.direction == Direction::Egress {
                        let problem = "a packet that is on its way out cannot be redirected";
                        check.refuse_action(index, problem, "direction = \"ingress\"");
                    }
                    let keys = [Step::Key("action".into()), Step::Element(index, None)];
                    self.check_port(check, names, port, &keys);
                }
                Action::Mirror(mirror) if !names.has_mirror(tenant, mirror) => {
                    let expected = "the name of a [[mirror]] of the rule's domain";
                    check.refuse_action(index, nameless("mirror", mirror), expected);
                }
                Action::Sample(sample) => {
                    if sample.one_in == 0 {
                        check.refuse_action(index, "one in 0 cannot be sampled", "a number from 1 up");
                    }
                    if !names.has_mirror(tenant, &sample.mirror) {
                        let expected = "the name of a [[mirror]] of the rule's domain";
                        check.refuse_action(index, nameless("mirror", &sample.mirror), expected);
                    }
                }
                Action::Meter(meter) if !names.has_meter(tenant, meter) => {
                    let expected = "the name of a [[meter]] of the rule's domain";
                    check.refuse_action(index, nameless("meter", meter), expected);
                }
                Action::Goto(group) if *group <= self.group => {
                    let problem = format!("group {group} is not above the rule's own, {}", self.group);
                    check.refuse_action(index, problem, "a group with a higher number, so that it ends");
                }
                Action::Goto(group) if *group > MOST_GROUP => {
                    check.refuse_action(
                        index,
                        format!("group {group} is out of range"),
                        format!("1 to {MOST_GROUP}"),
                    );
                }
                Action::Mark(_) if tenant.is_some() => {
                    let problem = "marks are infrastructure's: a tenant's rule cannot set one";
                    check.refuse_action(index, problem, "a rule of infrastructure");
                }
                Action::Set(set) => self.check_set(check, index, set, family),
                Action::Ct(ct) => {
                    if self.direction == Direction::Egress {
                        let problem = "connections are made where packets come in";
                        check.refuse_action(index, problem, "direction = \"ingress\"");
                    }
                    if let (Some(snat), Some(dnat)) = (ct.snat, ct.dnat)
                        && snat.first.is_ipv4() != dnat.first.is_ipv4()
                    {
                        let problem = "a packet cannot be translated from one kind of IP to the other";
                        check.refuse_action(index, problem, "IPv4 or IPv6 throughout");
                    }
                    let nat = ct.snat.is_some() || ct.dnat.is_some();
                    if (nat || ct.ct_mark.is_some()) && !ct.commit {
                        let problem = "a connection that is not kept can be neither translated nor marked";
                        check.refuse_action(index, problem, "ct commit");
                    }
                    for range in [ct.snat, ct.dnat].into_iter().flatten() {
                        let own = Family::of(range.first.is_ipv4());
                        if family.is_some_and(|family| family != own) {
                            let problem = format!("{range} is of another kind than the match");
                            check.refuse_action(index, problem, "IPv4 or IPv6 throughout");
                        }
                    }
                    if tenant.is_some() && ct.zone.is_some() {
                        let problem = "a tenant's connections are in the zone of the port";
                        check.refuse_action(index, problem, "no zone");
                    }
                    if tenant.is_some() && ct.snat.is_some() {
                        let problem = "a tenant's rule cannot change the source: what infrastructure checked is gone then";
                        check.refuse_action(index, problem, "a rule of infrastructure");
                    }
                }
                _ => {}
            }
        }
    }

    fn check_set(&self, check: &mut Check<'_>, index: usize, set: &Set, family: Option<Family>) {
        if *set == Set::default() {
            check.refuse_action(index, "`set` sets nothing", "fields with their values");
        }
        if set.vlan_prio.is_some_and(|prio| prio > 7) {
            check.refuse_action(index, "the VLAN priority is out of range", "0 to 7");
        }
        if set.dscp.is_some_and(|dscp| dscp > 63) {
            check.refuse_action(index, "the DSCP is out of range", "0 to 63");
        }
        if set.src_mac.is_some_and(|mac| !mac.is_station()) {
            check.refuse_action(index, "the source cannot be a group's address", "a unicast address");
        }
        let mut family = family;
        for address in [set.src_ip, set.dst_ip].into_iter().flatten() {
            let own = Family::of(address.is_ipv4());
            if *family.get_or_insert(own) != own {
                let problem = format!("{address} is of another kind than the rest of the rule");
                check.refuse_action(index, problem, "IPv4 or IPv6 throughout");
            }
        }
        let ports = set.src_port.is_some() || set.dst_port.is_some();
        if ports && self.matching.ip_proto.is_none_or(|protocol| !protocol.has_ports()) {
            check.refuse_action(
                index,
                "ports are set of packets that may have none",
                "match = { ip_proto = \"tcp\" } or \"udp\"",
            );
        }
        if self.tenant.is_some() && set.vlan_prio.is_some() {
            let problem = "a tenant's rule cannot change the VLAN priority: whose priority is believed infrastructure says";
            check.refuse_action(index, problem, "a rule of infrastructure");
        }
        if self.tenant.is_some() && (set.src_mac.is_some() || set.src_ip.is_some() || set.vlan.is_some()) {
            let problem = "a tenant's rule cannot change the source or the VLAN: what infrastructure checked is gone then";
            check.refuse_action(index, problem, "a rule of infrastructure");
        }
    }
}
