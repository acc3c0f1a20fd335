//! The agent as the API sees it.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use fabnic_api::{
    ApplyError, Backend, BindingFilter, BindingStatus, CaptureRequest, CaptureStream, ConnectionFilter,
    ConnectionPage, ConntrackStatus, EventBus, FdbEntry, FdbFilter, FdbKind, FdbOfPort, FdbPage, FdbRefusals,
    FdbStatus, FdbTable, FlowCache, FlowFilter, FlowStatus, GroupStatus, Health, LinkState, LldpStatus,
    MdbFilter, MdbVlan, MeterFilter, MeterStatus, MirrorStatus, MulticastStatus, PortStatus, QueuePairs,
    RecentDrop, RuleStatus, StateRestored, StateSaved, StateStatus, Stats, TenantStatus, TraceReport,
    TraceRequest, WorkerStatus,
};
use fabnic_model::{AdminState, Change, Config, Domain, Edit, Refused, Tenant};
use fabnic_switch::{FdbRefusal, WorkerStats};
use parking_lot::Mutex;

use crate::agent::{Agent, Entry, Running};
use crate::attachment::Attachment;
use crate::settings::{model_mac, model_vid, vid};
use crate::{capture, stats};

/// How long a worker with queues to poll may stand still before it is called stuck.
const STUCK: Duration = Duration::from_secs(2);

/// What was last seen of each worker: its cycles, and when they last changed.
#[derive(Debug, Default)]
pub(crate) struct Pulse(Mutex<Vec<(u64, Instant)>>);

impl Pulse {
    /// Workers that have queues to poll and do not move.
    fn stuck(&self, workers: &[WorkerStats], now: Instant) -> Vec<usize> {
        let mut seen = self.0.lock();
        let mut stuck = Vec::new();
        for (index, worker) in workers.iter().enumerate() {
            let cycles =
                worker.busy_cycles.wrapping_add(worker.idle_cycles).wrapping_add(worker.asleep_cycles);
            match seen.get_mut(index) {
                None => seen.push((cycles, now)),
                // A worker without active queues sleeps, for as long as nothing comes.
                Some(last) if last.0 != cycles || worker.active_queues == 0 => *last = (cycles, now),
                Some(last) if now.saturating_duration_since(last.1) > STUCK => stuck.push(worker.id),
                Some(_) => {}
            }
        }
        stuck
    }
}

fn status(entry: &Entry, learned: &dyn Fn(&Entry) -> u64, refused: u64) -> PortStatus {
    let (config, port) = (&entry.config, &entry.live.port);
    let attachment = entry.live.attachment.lock();
    let ready =
        port.ingress().iter().zip(port.egress()).filter(|(rx, tx)| rx.is_installed() && tx.is_installed());
    let ready = u16::try_from(ready.count()).unwrap_or(u16::MAX);
    let up = match config.state {
        AdminState::Disable => false,
        AdminState::Enable => !port.is_stopped(),
        AdminState::Auto => port.link() == fabnic_port::LinkState::Up,
    };
    let reason = port.stopped().map(|stopped| stopped.reason.0);
    PortStatus {
        id: port.id.0,
        name: config.name.clone(),
        tenant: config.tenant.clone(),
        kind: port.kind.label().to_owned(),
        state: config.state,
        link: if up { LinkState::Up } else { LinkState::Down },
        reason: reason.or_else(|| attachment.as_ref().and_then(|attachment| attachment.problem())),
        mac: config.effective_mac(),
        mtu: config.mtu,
        vlan: config.vlan.clone(),
        learning: config.learning,
        fdb_learned: learned(entry),
        fdb_limit: config.fdb_limit,
        fdb_refused: refused,
        queues: QueuePairs { configured: Attachment::queue_pairs(port), ready },
        peer: attachment.as_ref().and_then(|attachment| attachment.peer()),
    }
}

impl Agent {
    /// An FDB entry for people, `None` if its port is gone by now.
    fn fdb_entry(&self, names: &Running, entry: &fabnic_switch::FdbEntry) -> Option<FdbEntry> {
        let port = names.ports.binary_search_by_key(&entry.port, |e| e.live.port.id).ok();
        let port = port.and_then(|index| names.ports.get(index))?;
        let is_static = entry.kind == fabnic_switch::FdbKind::Static;
        Some(FdbEntry {
            vlan: model_vid(entry.vlan),
            mac: model_mac(entry.mac),
            port: port.config.name.clone(),
            kind: if is_static { FdbKind::Static } else { FdbKind::Learned },
            age_seconds: if is_static { 0 } else { self.switch.now().saturating_sub(entry.seen).into() },
            moves: entry.moves.into(),
        })
    }

    /// How many addresses were learned on each port now, by number.
    fn learned(&self) -> std::collections::HashMap<fabnic_port::PortId, u64> {
        let mut learned = std::collections::HashMap::new();
        for entry in self.switch.fdb().entries() {
            if entry.kind != fabnic_switch::FdbKind::Static {
                *learned.entry(entry.port).or_default() += 1;
            }
        }
        learned
    }
}

impl Backend for Agent {
    fn health(&self) -> Health {
        let running = self.running();
        let workers = self.switch.workers();
        let stuck = self.health.stuck(&workers, Instant::now());
        let reason = (!stuck.is_empty()).then(|| format!("workers that do not move: {stuck:?}"));
        let up = |entry: &&Entry| {
            entry.config.state != AdminState::Disable && entry.live.port.link() == fabnic_port::LinkState::Up
        };
        Health {
            healthy: reason.is_none(),
            reason,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ports: running.ports.len(),
            ports_up: running.ports.iter().filter(up).count(),
            workers: workers.len(),
        }
    }

    fn config(&self) -> Config {
        self.desired.read().config().clone()
    }

    fn apply(&self, domain: &Domain, desired: Config, dry_run: bool) -> Result<Vec<Change>, ApplyError> {
        self.apply_for(domain, desired, dry_run)
    }

    fn edit(&self, domain: &Domain, edits: &[Edit], dry_run: bool) -> Result<Vec<Change>, ApplyError> {
        Agent::edit(self, domain, edits, dry_run)
    }

    fn tenants(&self) -> Vec<Tenant> {
        self.desired.read().config().tenant.clone()
    }

    fn tenant_status(&self, domain: &Domain) -> Vec<TenantStatus> {
        self.show_tenants(domain)
    }

    fn rules(&self, domain: &Domain) -> Vec<RuleStatus> {
        self.show_rules(domain)
    }

    fn rule(&self, domain: &Domain, name: &str) -> Option<RuleStatus> {
        self.show_rule(domain, name)
    }

    fn groups(&self, domain: &Domain) -> Vec<GroupStatus> {
        self.show_groups(domain)
    }

    fn mirrors(&self, domain: &Domain) -> Vec<MirrorStatus> {
        self.show_mirrors(domain)
    }

    fn flows(&self, domain: &Domain, filter: &FlowFilter) -> Vec<FlowStatus> {
        self.show_flows(domain, filter)
    }

    fn bindings(&self, domain: &Domain, filter: &BindingFilter) -> Vec<BindingStatus> {
        self.show_bindings(domain, filter)
    }

    fn bindings_forget(&self, filter: &BindingFilter) -> u64 {
        self.forget_bindings(filter)
    }

    fn connections(&self, domain: &Domain, filter: &ConnectionFilter) -> ConnectionPage {
        self.show_connections(domain, filter)
    }

    fn connections_flush(&self, domain: &Domain, filter: &ConnectionFilter) -> u64 {
        self.flush_connections(domain, filter)
    }

    fn conntrack(&self) -> ConntrackStatus {
        self.show_conntrack()
    }

    fn state(&self) -> StateStatus {
        self.show_state()
    }

    fn state_save(&self) -> Result<StateSaved, ApplyError> {
        self.save_state()
    }

    fn state_export(&self, port: &str) -> Result<Vec<u8>, ApplyError> {
        self.export_port(port)
    }

    fn state_import(&self, port: &str, bytes: &[u8]) -> Result<StateRestored, ApplyError> {
        self.import_port(port, bytes)
    }

    fn meters(&self, domain: &Domain, filter: &MeterFilter) -> Vec<MeterStatus> {
        self.show_meters(domain, filter)
    }

    fn mdb(&self, domain: &Domain, filter: &MdbFilter) -> Vec<MdbVlan> {
        self.show_mdb(domain, filter)
    }

    fn multicast(&self) -> Vec<MulticastStatus> {
        self.count_multicast()
    }

    fn lldp(&self) -> Vec<LldpStatus> {
        self.show_lldp()
    }

    fn trace(&self, request: &TraceRequest) -> Result<TraceReport, Refused> {
        self.trace_frame(request)
    }

    fn recent_drops(&self, port: &str) -> Option<Vec<RecentDrop>> {
        self.explain_drops(port)
    }

    fn events(&self) -> &EventBus {
        &self.events
    }

    fn ports(&self) -> Vec<PortStatus> {
        let learned = self.learned();
        let learned = |entry: &Entry| learned.get(&entry.live.port.id).copied().unwrap_or(0);
        let refused = |entry: &Entry| self.switch.fdb().of_port(entry.live.port.id).refused;
        self.running().ports.iter().map(|entry| status(entry, &learned, refused(entry))).collect()
    }

    fn port(&self, name: &str) -> Option<PortStatus> {
        let running = self.running();
        let learned = self.learned();
        let learned = |entry: &Entry| learned.get(&entry.live.port.id).copied().unwrap_or(0);
        let refused = |entry: &Entry| self.switch.fdb().of_port(entry.live.port.id).refused;
        running.find(name).map(|entry| status(entry, &learned, refused(entry)))
    }

    fn fdb(&self, filter: &FdbFilter) -> FdbPage {
        let running = self.running();
        let port = filter.port.as_deref().map(|name| running.find(name).map(|entry| entry.live.port.id));
        let meant = |entry: &fabnic_switch::FdbEntry| {
            port.is_none_or(|port| port == Some(entry.port))
                && filter.vlan.is_none_or(|v| vid(v) == entry.vlan)
        };
        let mut found: Vec<_> = self.switch.fdb().entries();
        found.retain(meant);
        let mut entries: Vec<_> = found.iter().filter_map(|entry| self.fdb_entry(&running, entry)).collect();
        entries.retain(|entry| filter.matches(entry));
        let total = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let order = |a: &FdbEntry, b: &FdbEntry| -> Ordering { (a.vlan, a.mac).cmp(&(b.vlan, b.mac)) };
        let limit = filter.limit();
        if entries.len() > limit {
            // Only as much order as is shown: the table may hold a million.
            if limit > 0 {
                entries.select_nth_unstable_by(limit - 1, order);
            }
            entries.truncate(limit);
        }
        entries.sort_unstable_by(order);
        FdbPage { total, entries }
    }

    fn fdb_status(&self, domain: &Domain) -> FdbStatus {
        let fdb = self.switch.fdb();
        let refused = |refused: fabnic_switch::FdbRefusals| {
            let of = |cause| refused.get(cause);
            FdbRefusals {
                port_limit: of(FdbRefusal::PortLimit),
                tenant_limit: of(FdbRefusal::TenantLimit),
                table_full: of(FdbRefusal::TableFull),
                sticky: of(FdbRefusal::Sticky),
                frozen: of(FdbRefusal::Frozen),
                is_static: of(FdbRefusal::Static),
            }
        };
        let stats = fdb.stats();
        let table = FdbTable {
            entries: fdb.len() as u64,
            limit: fdb.max().into(),
            learned: stats.learned,
            moves: stats.moves,
            freezes: stats.freezes,
            aged: stats.aged,
            refused: refused(stats.refused),
        };
        let running = self.running();
        let ports = running.ports.iter().filter(|entry| domain.sees(entry.config.tenant.as_deref()));
        let ports = ports.map(|entry| FdbOfPort {
            port: entry.config.name.clone(),
            learned: fdb.of_port(entry.live.port.id).learned.into(),
            limit: entry.config.fdb_limit,
            refused: refused(fdb.refusals_of(entry.live.port.id)),
        });
        FdbStatus {
            table: domain.tenant().is_none().then_some(table),
            ports: ports.filter(|port| port.learned > 0 || port.refused != FdbRefusals::default()).collect(),
        }
    }

    fn fdb_forget(&self, filter: &FdbFilter) -> u64 {
        let running = self.running();
        let removed = self.switch.fdb().remove_where(|entry| {
            entry.kind != fabnic_switch::FdbKind::Static
                && self.fdb_entry(&running, entry).is_some_and(|entry| filter.matches(&entry))
        });
        u64::try_from(removed).unwrap_or(u64::MAX)
    }

    fn stats(&self) -> Stats {
        let running = self.running();
        let ports: Vec<_> = running.ports.iter().map(|entry| stats::of_port(&entry.live.port)).collect();
        let mut totals = running.gone.clone();
        for port in &ports {
            stats::add_port(&mut totals, port);
        }
        // The workers count it for all ports that ever were.
        totals.replicated = self.switch.totals().replicated;
        Stats { totals, ports }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let status = |worker: WorkerStats| WorkerStatus {
            id: u32::try_from(worker.id).unwrap_or(u32::MAX),
            cpu: worker.cpu.and_then(|cpu| u32::try_from(cpu).ok()),
            busy_cycles: worker.busy_cycles,
            idle_cycles: worker.idle_cycles.saturating_add(worker.asleep_cycles),
            sleeps: worker.sleeps,
            wakeups: worker.sleeps,
            packets: worker.frames,
            bursts: worker.bursts,
            cycles_per_packet: worker.cycles_per_frame().unwrap_or(0.0),
            burst_sizes: worker.burst_sizes,
            queues: worker.active_queues,
            flow_cache: FlowCache {
                hits: worker.flow_hits,
                misses: worker.flow_misses,
                capacity: worker.flow_capacity,
                ..FlowCache::default()
            },
            tsc_hz: worker.tsc_hz,
        };
        self.switch.workers().into_iter().map(status).collect()
    }

    fn capture(&self, domain: &Domain, request: &CaptureRequest) -> Option<CaptureStream> {
        capture::start(self, domain, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_with_queues_is_stuck() {
        let pulse = Pulse::default();
        let start = Instant::now();
        let worker = |cycles, active_queues| WorkerStats {
            busy_cycles: cycles,
            active_queues,
            ..WorkerStats::default()
        };
        assert!(pulse.stuck(&[worker(1, 1)], start).is_empty());
        assert!(pulse.stuck(&[worker(1, 1)], start + STUCK).is_empty(), "not yet");
        assert_eq!(pulse.stuck(&[worker(1, 1)], start + STUCK * 2), [0]);
        assert!(pulse.stuck(&[worker(2, 1)], start + STUCK * 3).is_empty(), "it moved");
        assert!(pulse.stuck(&[worker(2, 0)], start + STUCK * 9).is_empty(), "asleep");
        assert!(pulse.stuck(&[worker(2, 1)], start + STUCK * 10).is_empty(), "just woken");
    }
}
