//! Rules, groups, mirrors, tenants and flows as the API shows them.

use std::collections::HashMap;
use std::sync::Arc;

use fabnic_api::{FlowFilter, FlowStatus, GroupStatus, MirrorStatus, Refused, RuleStatus, TenantStatus};
use fabnic_model::rule::value::{IpProto, Protocol};
use fabnic_model::tenant::Quota;
use fabnic_model::{Domain, Object, Rule};
use fabnic_switch::{FlowWay, RuleCounts, RuleId};

use crate::agent::Agent;
use crate::settings::model_mac;

fn shown(rule: &Rule, counts: Option<&RuleCounts>, now: u32) -> RuleStatus {
    let counts = counts.copied().unwrap_or_default();
    RuleStatus {
        id: rule.qualified(),
        text: rule.to_string(),
        rule: rule.clone(),
        frames: counts.packets,
        bytes: counts.bytes,
        last_used_seconds: counts.last_used.map(|at| now.saturating_sub(at).into()),
    }
}

impl Agent {
    pub(crate) fn show_rules(&self, domain: &Domain) -> Vec<RuleStatus> {
        // Taken first, shown without the lock: there may be a hundred thousand.
        let rules: Vec<(u64, Arc<Rule>)> = {
            let desired = self.desired.read();
            let seen = desired.numbered_rules().filter(|(_, rule)| domain.sees(rule.tenant()));
            seen.map(|(number, rule)| (number, Arc::clone(rule))).collect()
        };
        let counts: HashMap<u64, RuleCounts> =
            self.switch.rules().list(None).into_iter().map(|view| (view.id.0, view.counts)).collect();
        let now = self.switch.now();
        let mut list: Vec<RuleStatus> =
            rules.iter().map(|(number, rule)| shown(rule, counts.get(number), now)).collect();
        list.sort_by(|a, b| {
            let place = |r: &RuleStatus| {
                (r.rule.tenant.clone(), r.rule.direction as u8, r.rule.group, r.rule.priority)
            };
            place(a).cmp(&place(b))
        });
        list
    }

    pub(crate) fn show_rule(&self, domain: &Domain, name: &str) -> Option<RuleStatus> {
        let name = match domain.tenant() {
            Some(tenant) if !name.contains('/') => fabnic_model::qualified(Some(tenant), name),
            _ => name.to_owned(),
        };
        let (rule, number) = {
            let desired = self.desired.read();
            (desired.find_rule(&name).cloned()?, desired.rule_number(&name)?)
        };
        let tenant = rule.tenant().and_then(|tenant| self.running().tenants.get(tenant).copied());
        let switch_domain =
            tenant.map_or(fabnic_switch::Domain::Infrastructure, fabnic_switch::Domain::Tenant);
        let view = self.switch.rules().get(switch_domain, RuleId(number));
        domain
            .sees(rule.tenant())
            .then(|| shown(&rule, view.as_ref().map(|view| &view.counts), self.switch.now()))
    }

    pub(crate) fn show_groups(&self, domain: &Domain) -> Vec<GroupStatus> {
        let groups = self.desired.read().config().group.clone();
        let seen = groups.iter().filter(|group| domain.sees(group.tenant()));
        seen.map(|group| GroupStatus { id: group.qualified(), group: (**group).clone() }).collect()
    }

    pub(crate) fn show_mirrors(&self, domain: &Domain) -> Vec<MirrorStatus> {
        let running = self.switch.mirrors();
        let mirrors = self.desired.read().config().mirror.clone();
        let seen = mirrors.into_iter().filter(|mirror| domain.sees(mirror.tenant()));
        seen.map(|mirror| {
            let id = mirror.qualified();
            let stats = running.iter().find(|m| m.settings.name == id).map(|m| m.stats()).unwrap_or_default();
            MirrorStatus { id, mirror, seen: stats.seen, copied: stats.copied }
        })
        .collect()
    }

    pub(crate) fn show_tenants(&self, domain: &Domain) -> Vec<TenantStatus> {
        let running = self.running();
        let desired = self.desired.read();
        let config = desired.config();
        let seen = config.tenant.iter().filter(|tenant| domain.sees(Some(&tenant.name)));
        seen.map(|tenant| {
            let own = |owner: Option<&str>| owner == Some(tenant.name.as_str());
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let groups = || config.group.iter().filter(|group| own(group.tenant()));
            let number = running.tenants.get(&tenant.name).copied().unwrap_or(0);
            let (connections, fdb) =
                (self.switch.conntrack().tenant(number), self.switch.fdb().of_tenant(number));
            TenantStatus {
                name: tenant.name.clone(),
                socket: tenant.socket.clone(),
                uids: tenant.uids.clone(),
                has_token: tenant.token.is_some(),
                quota: tenant.quota,
                used: Quota {
                    rules: count(config.rule.iter().filter(|rule| own(rule.tenant())).count()),
                    groups: count(groups().count()),
                    addresses: count(groups().map(|group| group.addresses.len()).sum()),
                    meters: count(config.meter.iter().filter(|meter| own(meter.tenant())).count()),
                    mirrors: count(config.mirror.iter().filter(|mirror| own(mirror.tenant())).count()),
                    connections: connections.used(),
                    fdb_entries: fdb.learned,
                },
                refused: Refused { connections: connections.refused(), fdb_entries: fdb.refused },
                ports: config
                    .port
                    .iter()
                    .filter(|port| own(port.tenant.as_deref()))
                    .map(|port| port.name.clone())
                    .collect(),
            }
        })
        .collect()
    }

    pub(crate) fn show_flows(&self, domain: &Domain, filter: &FlowFilter) -> Vec<FlowStatus> {
        const UNLESS_SAID: usize = 64;
        let running = self.running();
        let mut list = Vec::new();
        for flow in self.switch.flows() {
            if list.len() >= filter.limit.unwrap_or(UNLESS_SAID) {
                break;
            }
            // A port that is gone by now had flows until then.
            let Some(entry) = running.by_id(flow.ingress) else { continue };
            let port = &entry.config;
            if !domain.sees(port.tenant.as_deref())
                || filter.port.as_ref().is_some_and(|name| *name != port.name)
            {
                continue;
            }
            let to = match flow.way {
                FlowWay::Flood => "flood".to_owned(),
                FlowWay::Drop(reason) => format!("drop {}", reason.label()),
                FlowWay::Port(id) => match running.by_id(id) {
                    Some(to) if domain.sees(to.config.tenant.as_deref()) => to.config.name.clone(),
                    Some(_) => "another domain's port".to_owned(),
                    None => continue,
                },
            };
            list.push(FlowStatus {
                port: port.name.clone(),
                src_mac: model_mac(flow.src),
                dst_mac: model_mac(flow.dst),
                vlan: flow.vlan,
                protocol: Protocol(flow.ethertype.0).to_string(),
                src_ip: flow.addresses.map(|(src, _)| src.to_string()),
                dst_ip: flow.addresses.map(|(_, dst)| dst.to_string()),
                ip_proto: flow.protocol.map(|protocol| IpProto(protocol.0).to_string()),
                src_port: flow.ports.map(|(src, _)| src),
                dst_port: flow.ports.map(|(_, dst)| dst),
                to,
                frames: flow.frames,
                bytes: flow.bytes,
            });
        }
        list
    }
}
