//! Counters of the switch, of ports and of rules, so that they go on from where they were.

use std::collections::HashMap;
use std::io;

use core::sync::atomic::Ordering;

use fabnic_port::{Counter, DropCounters, DropReason, PortId, QueueCounters};
use fabnic_saved::{self as records, Name, Section};

use super::{Arrival, Chunks, Lost, Put, member};
use crate::fdb::Tick;
use crate::refusals::FdbRefusals;
use crate::rules::{Domain, RuleId};
use crate::stats::drops;
use crate::switch::Shared;
use crate::topology::{Member, Topology};

/// Ports of a section: each takes some 20 KB at most, with 128 queue pairs.
const PORTS: usize = 48;
/// Rules, and mirrors, of a section: each takes some 300 bytes at most.
const MOST: usize = 2048;

fn queue(counters: &QueueCounters) -> records::QueueCounters {
    records::QueueCounters {
        frames: counters.frames.get(),
        bytes: counters.bytes.get(),
        bursts: counters.bursts.get(),
        calls: counters.calls.get(),
        kicks: counters.kicks.get(),
    }
}

/// To be called with the lock of the queue held: it is the counters' one writer's.
fn go_on(counters: &QueueCounters, before: &records::QueueCounters) {
    let add = |counter: &Counter, before: u64| counter.add(before);
    add(&counters.frames, before.frames);
    add(&counters.bytes, before.bytes);
    add(&counters.bursts, before.bursts);
    add(&counters.calls, before.calls);
    add(&counters.kicks, before.kicks);
}

fn reasons(of: &DropCounters) -> Vec<(records::Name, u64)> {
    drops(of).map(|(reason, count)| (Name::fitting(reason.label()), count)).collect()
}

fn causes(of: &FdbRefusals) -> Vec<(records::Name, u64)> {
    let some = of.iter().filter(|(_, count)| *count > 0);
    some.map(|(cause, count)| (Name::fitting(cause.label()), count)).collect()
}

/// Drops of reasons that there are no more are lost.
fn drops_go_on(counters: &DropCounters, before: &[(records::Name, u64)]) {
    for (name, count) in before {
        if let Some(reason) = DropReason::ALL.iter().find(|reason| reason.label() == name.as_str()) {
            counters.add(*reason, *count);
        }
    }
}

/// Without the queues behind the last one that moved something.
fn trimmed(mut queues: Vec<records::QueueCounters>) -> Vec<records::QueueCounters> {
    while queues.last() == Some(&records::QueueCounters::default()) {
        queues.pop();
    }
    queues
}

impl Shared {
    /// The switch's own. What workers have copied is told by whoever has them: [`records::Totals::replicated`].
    pub(super) fn saved_totals(&self) -> records::Totals {
        let fdb = self.tables.fdb.stats();
        let connections = self.tables.conntrack.counters();
        records::Totals {
            replicated: self.originated.load(Ordering::Relaxed),
            gone: records::Gone::default(),
            fdb: records::FdbTotals {
                learned: fdb.learned,
                moves: fdb.moves,
                freezes: fdb.freezes,
                aged: fdb.aged,
                refused: causes(&fdb.refused),
            },
            connections_refused: connections.refused,
            connections_exhausted: connections.exhausted,
        }
    }

    pub(super) fn restore_totals(&self, saved: &records::Totals) -> Result<(), Lost> {
        self.originated.fetch_add(saved.replicated, Ordering::Relaxed);
        self.tables.fdb.go_on(&saved.fdb);
        self.tables.conntrack.go_on(saved.connections_refused, saved.connections_exhausted);
        Ok(())
    }

    pub(super) fn save_port_counters(
        &self,
        topology: &Topology,
        of: Option<PortId>,
        put: &mut Put<'_>,
    ) -> io::Result<()> {
        let mut chunks = Chunks::new(PORTS, Section::PortCounters, put);
        let wanted = topology.members.iter().filter(|member| of.is_none_or(|port| port == member.port.id));
        chunks.extend(wanted.map(|member| self.saved_port(member)))?;
        chunks.finish()
    }

    fn saved_port(&self, member: &Member) -> records::PortCounters {
        let port = &member.port;
        let answers = member.answers.stats();
        records::PortCounters {
            port: port.id.0,
            rx: trimmed(port.ingress().iter().map(|cell| queue(&cell.counters)).collect()),
            tx: trimmed(port.egress().iter().map(|cell| queue(&cell.counters)).collect()),
            rx_drops: reasons(&port.rx_drops),
            tx_drops: reasons(&port.tx_drops),
            answers: [
                answers.arp,
                answers.nd,
                answers.dhcp,
                answers.dhcp6,
                answers.router,
                answers.echo,
                answers.limited,
            ],
            fdb_refused: self.tables.fdb.of_port(port.id).refused,
            fdb_refusals: causes(&self.tables.fdb.refusals_of(port.id)),
            connections_refused: self.tables.conntrack.port(port.id).refused(),
        }
    }

    pub(super) fn restore_port_counters(
        &self,
        topology: &Topology,
        saved: &records::PortCounters,
        arrival: &Arrival<'_>,
    ) -> Result<(), Lost> {
        let port = arrival.port(saved.port)?;
        let member = member(topology, port)?;
        let port = &member.port;
        // What queues moved that there are no more is counted with the last one: sums go on.
        let last = |queues: usize, index: usize| index.min(queues.saturating_sub(1));
        for (index, before) in saved.rx.iter().enumerate() {
            if let Some(cell) = port.ingress().get(last(port.ingress().len(), index)) {
                let _queue = cell.lock();
                go_on(&cell.counters, before);
            }
        }
        for (index, before) in saved.tx.iter().enumerate() {
            if let Some(cell) = port.egress().get(last(port.egress().len(), index)) {
                let _queue = cell.lock();
                go_on(&cell.counters, before);
            }
        }
        drops_go_on(&port.rx_drops, &saved.rx_drops);
        drops_go_on(&port.tx_drops, &saved.tx_drops);
        member.answers.go_on(&saved.answers);
        member.quota.go_on(saved.fdb_refused, &saved.fdb_refusals);
        self.tables.conntrack.port_of(port.id, member.settings.tenant).go_on(saved.connections_refused);
        Ok(())
    }

    pub(super) fn save_mirrors(&self, topology: &Topology, put: &mut Put<'_>) -> io::Result<()> {
        let mut chunks = Chunks::new(MOST, Section::Mirrors, put);
        chunks.extend(topology.mirrors.all.iter().map(|mirror| {
            let stats = mirror.stats();
            let name = Name::fitting(&mirror.settings.name);
            records::MirrorCounts { name, seen: stats.seen, copied: stats.copied }
        }))?;
        chunks.finish()
    }

    pub(super) fn save_rules(&self, now: Tick, put: &mut Put<'_>) -> io::Result<()> {
        let mut chunks = Chunks::new(MOST, Section::Rules, put);
        let used = self.tables.rules.list(None).into_iter().filter(|rule| rule.counts.last_used.is_some());
        chunks.extend(used.map(|rule| records::RuleCounts {
            tenant: match rule.domain {
                Domain::Infrastructure => None,
                Domain::Tenant(number) => Some(number),
            },
            number: rule.id.0,
            name: Name::fitting(&rule.name),
            packets: rule.counts.packets,
            bytes: rule.counts.bytes,
            used_age_s: rule.counts.last_used.map(|used| now.saturating_sub(used)),
        }))?;
        chunks.finish()
    }

    /// A rule is known again by its name; where its number is another, all are looked through, once for the section.
    pub(super) fn restore_rules(
        &self,
        list: &[records::RuleCounts],
        arrival: &Arrival<'_>,
        now: Tick,
        note: &mut dyn FnMut(Result<(), Lost>),
    ) {
        let rules = &self.tables.rules;
        let mut by_name: Option<HashMap<(Domain, String), RuleId>> = None;
        for saved in list {
            let domain = match saved.tenant {
                None => Some(Domain::Infrastructure),
                Some(number) => (arrival.tenant)(number).map(Domain::Tenant),
            };
            let Some(domain) = domain else {
                note(Err(Lost::Unconfigured));
                continue;
            };
            let used = saved.used_age_s.map(|age| now.saturating_sub(age.saturating_add(arrival.seconds())));
            let go_on = |id: RuleId| rules.go_on((domain, id), saved.name.as_str(), saved, used);
            let mut is_done = go_on(RuleId(saved.number));
            if !is_done {
                let all = by_name.get_or_insert_with(|| {
                    let views = rules.list(None).into_iter();
                    views.map(|view| ((view.domain, view.name), view.id)).collect()
                });
                let other = all.get(&(domain, saved.name.as_str().to_owned()));
                is_done = other.is_some_and(|id| go_on(*id));
            }
            note(if is_done { Ok(()) } else { Err(Lost::Unconfigured) });
        }
    }
}
