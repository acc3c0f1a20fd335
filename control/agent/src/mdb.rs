//! Members of multicast groups, as the API shows them.

use fabnic_api::{
    MdbCounters, MdbEntry, MdbFilter, MdbKind, MdbMode, MdbQuerier, MdbRouter, MdbSide, MdbSource, MdbVlan,
    MulticastCount, MulticastStatus,
};
use fabnic_model::Domain;
use fabnic_port::PortId;
use fabnic_switch::{
    FilterMode, MulticastMember, MulticastNumbers, MulticastSide, MulticastStats, QuerierState,
};

use crate::agent::{Agent, Running};
use crate::settings::vid;

/// Ports as a domain sees them.
struct Seen<'a> {
    domain: &'a Domain,
    ports: &'a Running,
}

impl Seen<'_> {
    fn port(&self, id: PortId) -> Option<String> {
        let config = &self.ports.by_id(id)?.config;
        self.domain.sees(config.tenant.as_deref()).then(|| config.name.clone())
    }

    fn side(&self, side: &MulticastSide) -> MdbSide {
        let querier = match side.querier {
            QuerierState::Nobody => None,
            QuerierState::Own(address) => Some(MdbQuerier { address, port: None, expires_seconds: None }),
            QuerierState::Other { address, port, expires_ms } => {
                Some(MdbQuerier { address, port: self.port(port), expires_seconds: Some(expires_ms / 1000) })
            }
        };
        let routers = side.routers.iter().filter_map(|(port, expires_ms)| {
            Some(MdbRouter { port: self.port(*port)?, expires_seconds: expires_ms.map(|ms| ms / 1000) })
        });
        MdbSide { querier, restricts: side.restricts, routers: routers.collect() }
    }
}

fn entry(group: std::net::IpAddr, member: &MulticastMember, port: String) -> MdbEntry {
    let sources = member.sources.iter();
    MdbEntry {
        group,
        port,
        kind: if member.is_static { MdbKind::Static } else { MdbKind::Snooped },
        mode: match member.mode {
            // A static member gets all sources.
            _ if member.is_static => MdbMode::Exclude,
            FilterMode::Include => MdbMode::Include,
            FilterMode::Exclude => MdbMode::Exclude,
        },
        version: member.version,
        expires_seconds: member.expires_ms.map(|ms| ms / 1000),
        sources: sources
            .map(|(address, ms)| MdbSource { address: *address, expires_seconds: ms.map(|ms| ms / 1000) })
            .collect(),
    }
}

fn counters(stats: &MulticastStats) -> MdbCounters {
    MdbCounters {
        queries: stats.queries,
        reports: stats.reports,
        leaves: stats.leaves,
        routers: stats.routers,
        other: stats.other,
        queries_sent: stats.queries_sent,
        refused: stats.refused,
        malformed: stats.malformed.iter().sum(),
    }
}

fn count(count: &fabnic_switch::MulticastCount) -> MulticastCount {
    let fabnic_switch::MulticastCount { groups, members, routers, restricts, asks } = *count;
    MulticastCount { groups, members, routers, restricts, asks }
}

impl Agent {
    pub(crate) fn count_multicast(&self) -> Vec<MulticastStatus> {
        let numbers = self.switch.multicast_numbers().into_iter();
        let status = |of: MulticastNumbers| MulticastStatus {
            vlan: of.vlan.get(),
            igmp: count(&of.igmp),
            mld: count(&of.mld),
            counters: counters(&of.stats),
        };
        numbers.map(status).collect()
    }

    pub(crate) fn show_mdb(&self, domain: &Domain, filter: &MdbFilter) -> Vec<MdbVlan> {
        let running = self.running();
        let seen = Seen { domain, ports: &running };
        let mut room = filter.limit();
        let mut list = Vec::new();
        for vlan in self.switch.snooped_vlans() {
            if filter.vlan.is_some_and(|wanted| vid(wanted) != vlan) {
                continue;
            }
            // What a tenant has no port in, it need not know of.
            let is_member = |entry: &crate::agent::Entry| {
                let config = &entry.config;
                domain.sees(config.tenant.as_deref())
                    && config.vlan.is_member(crate::settings::model_vid(vlan))
            };
            if domain.tenant().is_some() && !running.ports.iter().any(is_member) {
                continue;
            }
            let Some(state) = self.switch.multicast(vlan) else { continue };
            let (mut entries, mut total) = (Vec::new(), 0);
            for group in &state.groups {
                if filter.group.is_some_and(|wanted| wanted != group.group) {
                    continue;
                }
                for member in &group.members {
                    let Some(port) = seen.port(member.port) else { continue };
                    if filter.port.as_ref().is_some_and(|wanted| *wanted != port) {
                        continue;
                    }
                    total += 1;
                    if room > 0 {
                        room -= 1;
                        entries.push(entry(group.group, member, port));
                    }
                }
            }
            list.push(MdbVlan {
                vlan: vlan.get(),
                igmp: seen.side(&state.igmp),
                mld: seen.side(&state.mld),
                total,
                entries,
                counters: domain.tenant().is_none().then(|| counters(&state.stats)),
            });
        }
        list
    }
}
