//! Prometheus' text, made from one look at the backend.
//!
//! Nothing is registered ahead and nothing is counted here: on each scrape the counters are read once and written
//! down. There is a metric for each counter and a label for each drop reason, so that sums in PromQL obey the same
//! law as `/v1/stats`. Queues that never moved a frame are left out: 10,000 idle ports would be a megabyte of zeros.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

use crate::{
    BURST_SIZES, ConntrackStatus, Counters, DropCounts, FdbStatus, Health, LinkState, MdbCounters,
    MeterStatus, MirrorStatus, MulticastCount, MulticastStatus, Passed, PciStatus, PortStatus, StateStatus,
    Stats, TenantStatus, WorkerStatus, ZoneStatus,
};

/// One look at the backend.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The daemon.
    pub health: Health,
    /// Its ports.
    pub ports: Vec<PortStatus>,
    /// Their counters.
    pub stats: Stats,
    /// Its workers.
    pub workers: Vec<WorkerStatus>,
    /// Its mirrors.
    pub mirrors: Vec<MirrorStatus>,
    /// Its meters.
    pub meters: Vec<MeterStatus>,
    /// Its connections.
    pub conntrack: ConntrackStatus,
    /// Its VLANs in which it watches who listens.
    pub multicast: Vec<MulticastStatus>,
    /// Its forwarding database.
    pub fdb: FdbStatus,
    /// Its saved state.
    pub state: StateStatus,
    /// Its tenants.
    pub tenants: Vec<TenantStatus>,
}

/// The snapshot as OpenMetrics text.
#[must_use]
pub fn encode(snapshot: Snapshot) -> String {
    let mut registry = Registry::with_prefix("fabnic");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    // Writing to a string fails only when a formatter does, and none of ours do.
    if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
        tracing::error!("metrics could not be written");
    }
    text
}

/// Labels of one sample.
type Labels<'a> = Vec<(&'a str, String)>;

/// A counter of [`Counters`]: name, help, and how to read it.
type Counter = (&'static str, &'static str, fn(&Counters) -> u64);

const COUNTERS: [Counter; 7] = [
    ("rx_frames", "Frames received from the peer", |c| c.rx_frames),
    ("rx_bytes", "Bytes received from the peer", |c| c.rx_bytes),
    ("tx_frames", "Frames delivered to the peer", |c| c.tx_frames),
    ("tx_bytes", "Bytes delivered to the peer", |c| c.tx_bytes),
    ("bursts", "Bursts moved, both directions", |c| c.bursts),
    ("calls", "Interrupts sent to the peer", |c| c.calls),
    ("kicks", "Notifications received from the peer", |c| c.kicks),
];

type Drops = (&'static str, &'static str, fn(&Counters) -> &DropCounts);

const DROPS: [Drops; 2] = [
    ("rx_drops", "Frames received from the peer and dropped, by reason", |c| &c.rx_drops),
    ("tx_drops", "Frames bound for the peer and dropped, by reason", |c| &c.tx_drops),
];

fn counter(encoder: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: u64) -> fmt::Result {
    const NONE: Option<&Exemplar<[(&str, &str); 0], u64>> = None;
    if labels.is_empty() {
        return encoder.encode_counter(&value, NONE);
    }
    encoder.encode_family(labels)?.encode_counter(&value, NONE)
}

fn gauge(encoder: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: u64) -> fmt::Result {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    if labels.is_empty() {
        encoder.encode_gauge(&value)
    } else {
        encoder.encode_family(labels)?.encode_gauge(&value)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.daemon(&mut encoder)?;
        self.switch(&mut encoder)?;
        self.port_states(&mut encoder)?;
        self.port_counters(&mut encoder)?;
        self.queue_counters(&mut encoder)?;
        self.worker_counters(&mut encoder)?;
        self.mirror_counters(&mut encoder)?;
        self.meter_counters(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.multicast(&mut encoder)?;
        self.fdb(&mut encoder)?;
        self.saved_state(&mut encoder)?;
        self.tenants(&mut encoder)
    }
}

impl Snapshot {
    fn daemon(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        encoder
            .encode_descriptor("build", "Version of the daemon", None, MetricType::Info)?
            .encode_info(&vec![("version", self.health.version.clone())])?;
        let gauges = [
            ("healthy", "Whether the daemon works", u64::from(self.health.healthy)),
            ("uptime_seconds", "Seconds since the daemon started", self.health.uptime_seconds),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder.encode_descriptor(name, help, None, MetricType::Gauge)?, &Vec::new(), value)?;
        }
        Ok(())
    }

    fn switch(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let totals = &self.stats.totals;
        let counters = [
            ("switch_received_frames", "Frames received from all ports", totals.received),
            ("switch_replicated_frames", "Copies made beyond the first", totals.replicated),
            ("switch_delivered_frames", "Frames delivered to all ports", totals.delivered),
            ("switch_dropped_frames", "Frames dropped", totals.dropped),
        ];
        for (name, help, value) in counters {
            counter(
                &mut encoder.encode_descriptor(name, help, None, MetricType::Counter)?,
                &Vec::new(),
                value,
            )?;
        }
        let help = "Frames dropped, by reason";
        let mut family = encoder.encode_descriptor("switch_drops", help, None, MetricType::Counter)?;
        for (reason, &frames) in &totals.drops {
            counter(&mut family, &vec![("reason", reason.clone())], frames)?;
        }
        Ok(())
    }

    fn port_states(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type State = (&'static str, &'static str, fn(&PortStatus) -> Option<u64>);
        const STATES: [State; 6] = [
            ("port_link_up", "Whether frames can pass", |p| Some(u64::from(p.link == LinkState::Up))),
            ("port_stopped", "Whether a fault of the peer stopped the port", |p| {
                Some(u64::from(p.reason.is_some()))
            }),
            ("port_peer_connected", "Whether somebody is connected to the socket", |p| {
                p.peer.as_ref().map(|peer| u64::from(peer.connected))
            }),
            ("port_queue_pairs_ready", "Queue pairs set up by the peer", |p| Some(p.queues.ready.into())),
            ("port_mtu_bytes", "Largest layer-3 packet", |p| Some(p.mtu.into())),
            ("port_fdb_learned", "Addresses learned on the port", |p| Some(p.fdb_learned)),
        ];
        for (name, help, read) in STATES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for port in &self.ports {
                if let Some(value) = read(port) {
                    let labels = vec![("port", port.name.clone()), ("kind", port.kind.clone())];
                    gauge(&mut family, &labels, value)?;
                }
            }
        }
        let help = "Addresses that were not learned because the port has as many as it may have";
        let mut family = encoder.encode_descriptor("port_fdb_refused", help, None, MetricType::Counter)?;
        for port in &self.ports {
            counter(
                &mut family,
                &vec![("port", port.name.clone()), ("kind", port.kind.clone())],
                port.fdb_refused,
            )?;
        }
        let help = "Times that somebody connected to the socket";
        let mut family = encoder.encode_descriptor("port_connections", help, None, MetricType::Counter)?;
        for port in &self.ports {
            if let Some(peer) = &port.peer {
                let labels = vec![("port", port.name.clone()), ("kind", port.kind.clone())];
                counter(&mut family, &labels, peer.connections)?;
            }
        }
        self.port_cards(encoder)
    }

    fn port_cards(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Count = (&'static str, &'static str, fn(&PciStatus) -> u64);
        const COUNTS: [Count; 5] = [
            ("faults", "Accesses of the card to memory that is not shared, refused", |card| card.faults),
            ("register_reads", "Reads of registers that trapped the guest", |card| card.register_reads),
            ("register_writes", "Writes of registers that trapped the guest", |card| card.register_writes),
            ("software_interrupts", "Interrupts that the driver asked for by itself", |card| {
                card.software_interrupts
            }),
            ("lost_interrupts", "Software interrupts that found work which nobody had told of", |card| {
                card.lost_interrupts
            }),
        ];
        for (name, help, read) in COUNTS {
            let name = format!("port_card_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for port in &self.ports {
                if let Some(card) = port.peer.as_ref().and_then(|peer| peer.pci.as_ref()) {
                    let labels = vec![("port", port.name.clone()), ("kind", port.kind.clone())];
                    counter(&mut family, &labels, read(card))?;
                }
            }
        }
        Ok(())
    }

    fn port_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read) in COUNTERS {
            let name = format!("port_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for port in &self.stats.ports {
                counter(&mut family, &vec![("port", port.name.clone())], read(&port.counters))?;
            }
        }
        for (name, help, read) in DROPS {
            let name = format!("port_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for port in &self.stats.ports {
                for (reason, &frames) in read(&port.counters) {
                    counter(
                        &mut family,
                        &vec![("port", port.name.clone()), ("reason", reason.clone())],
                        frames,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn queue_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let queues = || {
            self.stats.ports.iter().flat_map(|port| {
                port.queues
                    .iter()
                    .filter(|queue| queue.counters != Counters::default())
                    .map(|queue| (port.name.clone(), queue.queue.to_string(), &queue.counters))
            })
        };
        for (name, help, read) in COUNTERS {
            let name = format!("queue_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (port, queue, counters) in queues() {
                counter(&mut family, &vec![("port", port), ("queue", queue)], read(counters))?;
            }
        }
        for (name, help, read) in DROPS {
            let name = format!("queue_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (port, queue, counters) in queues() {
                for (reason, &frames) in read(counters) {
                    let labels =
                        vec![("port", port.clone()), ("queue", queue.clone()), ("reason", reason.clone())];
                    counter(&mut family, &labels, frames)?;
                }
            }
        }
        Ok(())
    }

    fn mirror_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = (&'static str, &'static str, fn(&MirrorStatus) -> u64);
        const READS: [Read; 2] = [
            ("mirror_seen_frames", "Frames that the mirror was shown", |m| m.seen),
            ("mirror_copied_frames", "Copies sent to the mirror's target", |m| m.copied),
        ];
        for (name, help, read) in READS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for mirror in &self.mirrors {
                counter(&mut family, &vec![("mirror", mirror.id.clone())], read(mirror))?;
            }
        }
        Ok(())
    }

    fn meter_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = (&'static str, &'static str, fn(&Passed) -> u64);
        const READS: [Read; 2] = [
            ("meter_packets", "Packets that a meter judged, by color", |passed| passed.frames),
            ("meter_bytes", "Bytes that a meter judged, by color", |passed| passed.bytes),
        ];
        for (name, help, read) in READS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for meter in &self.meters {
                let colors = [
                    ("green", &meter.green),
                    ("yellow", &meter.yellow),
                    ("red", &meter.red),
                    ("refused_by_other", &meter.refused_by_other),
                ];
                for (color, passed) in colors {
                    let labels = vec![
                        ("meter", meter.id.clone()),
                        ("place", meter.place.as_str().to_owned()),
                        ("color", color.to_owned()),
                    ];
                    counter(&mut family, &labels, read(passed))?;
                }
            }
        }
        Ok(())
    }

    fn tenants(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = (&'static str, &'static str, fn(&TenantStatus) -> u64);
        const LEVELS: [Read; 2] = [
            ("tenant_connections", "Connections of a tenant's ports", |t| t.used.connections.into()),
            ("tenant_fdb_learned", "Addresses learned on a tenant's ports", |t| t.used.fdb_entries.into()),
        ];
        const READS: [Read; 2] = [
            ("tenant_connections_refused", "Connections over a tenant's quota", |t| t.refused.connections),
            ("tenant_fdb_refused", "Addresses not learned over a tenant's quota", |t| t.refused.fdb_entries),
        ];
        let labels = |tenant: &TenantStatus| vec![("tenant", tenant.name.clone())];
        for (name, help, read) in LEVELS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for tenant in &self.tenants {
                gauge(&mut family, &labels(tenant), read(tenant))?;
            }
        }
        for (name, help, read) in READS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for tenant in &self.tenants {
                counter(&mut family, &labels(tenant), read(tenant))?;
            }
        }
        Ok(())
    }

    fn fdb(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let table = self.fdb.table.clone().unwrap_or_default();
        let gauges = [
            ("fdb_entries", "Entries of the forwarding database", table.entries),
            ("fdb_entries_limit", "Most entries of the forwarding database", table.limit),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder.encode_descriptor(name, help, None, MetricType::Gauge)?, &Vec::new(), value)?;
        }
        let counters = [
            ("fdb_learned", "Addresses learned", table.learned),
            ("fdb_moves", "Times that an address changed its port", table.moves),
            ("fdb_freezes", "Times that an address was held because it moved too often", table.freezes),
            ("fdb_aged", "Addresses forgotten because they were not seen", table.aged),
        ];
        for (name, help, value) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter(&mut family, &Vec::new(), value)?;
        }
        let help = "Times that an address was not learned, by cause";
        let mut family = encoder.encode_descriptor("fdb_refusals", help, None, MetricType::Counter)?;
        for (cause, count) in table.refused.by_cause() {
            counter(&mut family, &vec![("cause", cause.to_owned())], count)?;
        }
        let help = "Times that an address that was seen on a port was not learned there, by cause";
        let mut family = encoder.encode_descriptor("port_fdb_refusals", help, None, MetricType::Counter)?;
        for port in &self.fdb.ports {
            for (cause, count) in port.refused.by_cause().into_iter().filter(|(_, count)| *count > 0) {
                counter(&mut family, &vec![("port", port.port.clone()), ("cause", cause.to_owned())], count)?;
            }
        }
        Ok(())
    }

    fn multicast(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Level = (&'static str, &'static str, fn(&MulticastCount) -> u64);
        const LEVELS: [Level; 5] = [
            ("multicast_groups", "Multicast groups that somebody listens to", |c| c.groups),
            ("multicast_members", "Ports that listen to groups, once for each group", |c| c.members),
            ("multicast_router_ports", "Ports with multicast routers behind them", |c| c.routers),
            ("multicast_restricts", "Whether groups go to their listeners only", |c| u64::from(c.restricts)),
            ("multicast_asks", "Whether the switch itself asks who listens", |c| u64::from(c.asks)),
        ];
        for (name, help, read) in LEVELS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for of in &self.multicast {
                for (protocol, count) in [("igmp", &of.igmp), ("mld", &of.mld)] {
                    let labels = vec![("vlan", of.vlan.to_string()), ("protocol", protocol.to_owned())];
                    gauge(&mut family, &labels, read(count))?;
                }
            }
        }
        type Read = (&'static str, &'static str, fn(&MdbCounters) -> u64);
        const READS: [Read; 8] = [
            ("multicast_queries_received", "Queries of IGMP and MLD received", |c| c.queries),
            ("multicast_queries_sent", "Queries of IGMP and MLD sent", |c| c.queries_sent),
            ("multicast_reports", "Reports of IGMP and MLD received", |c| c.reports),
            ("multicast_leaves", "Leaves of IGMP and MLD received", |c| c.leaves),
            ("multicast_router_signs", "Signs of multicast routers received", |c| c.routers),
            ("multicast_other", "Messages of IGMP of unknown types received", |c| c.other),
            ("multicast_refused", "Reports and records that would have gone over a limit", |c| c.refused),
            ("multicast_malformed", "Messages of IGMP and MLD that were not believed", |c| c.malformed),
        ];
        for (name, help, read) in READS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for of in &self.multicast {
                counter(&mut family, &vec![("vlan", of.vlan.to_string())], read(&of.counters))?;
            }
        }
        Ok(())
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let table = &self.conntrack;
        let help = "Connections that are tracked";
        let mut family = encoder.encode_descriptor("connections", help, None, MetricType::Gauge)?;
        gauge(&mut family, &Vec::new(), table.connections)?;
        let counters = [
            ("connections_refused", "Connections refused because the table was full", table.refused),
            ("connections_exhausted", "Connections that nothing was left to translate to", table.exhausted),
        ];
        for (name, help, value) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter(&mut family, &Vec::new(), value)?;
        }
        let zone = |zone: &ZoneStatus| vec![("zone", zone.zone.to_string())];
        let help = "Connections of a zone";
        let mut family = encoder.encode_descriptor("zone_connections", help, None, MetricType::Gauge)?;
        for of in &table.zones {
            gauge(&mut family, &zone(of), of.connections)?;
        }
        type Read = (&'static str, &'static str, fn(&ZoneStatus) -> u64);
        const READS: [Read; 4] = [
            ("zone_connections_created", "Connections made", |z| z.created),
            ("zone_connections_expired", "Connections forgotten in time", |z| z.expired),
            ("zone_connections_refused", "Connections refused because the zone was full", |z| z.refused),
            ("zone_invalid_packets", "Packets that fit no connection", |z| z.invalid),
        ];
        for (name, help, read) in READS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for of in &table.zones {
                counter(&mut family, &zone(of), read(of))?;
            }
        }
        Ok(())
    }

    fn saved_state(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let state = &self.state;
        let counters = [
            ("saved_state_saves", "Times that state was saved", state.saves),
            ("saved_state_failures", "Times that state could not be saved", state.failures),
        ];
        for (name, help, value) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter(&mut family, &Vec::new(), value)?;
        }
        if let Some(saved) = &state.saved {
            let gauges = [
                (
                    "saved_state_timestamp_seconds",
                    "When state was saved last, in seconds since 1970",
                    saved.at,
                ),
                ("saved_state_bytes", "Bytes that it took", saved.bytes),
                ("saved_state_milliseconds", "Milliseconds that it took", saved.milliseconds),
            ];
            for (name, help, value) in gauges {
                let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                gauge(&mut family, &Vec::new(), value)?;
            }
            let help = "Records that were saved last, by kind";
            let mut family =
                encoder.encode_descriptor("saved_state_records", help, None, MetricType::Gauge)?;
            for (kind, &count) in &saved.records {
                gauge(&mut family, &vec![("kind", kind.clone())], count)?;
            }
        }
        if let Some(restored) = &state.restored {
            let help = "Records that came back when the daemon started, by kind";
            let mut family =
                encoder.encode_descriptor("restored_state_records", help, None, MetricType::Gauge)?;
            for (kind, &count) in &restored.restored {
                gauge(&mut family, &vec![("kind", kind.clone())], count)?;
            }
            let help = "Records that did not, by kind and reason";
            let mut family =
                encoder.encode_descriptor("restored_state_lost", help, None, MetricType::Gauge)?;
            for (kind, reasons) in &restored.lost {
                for (reason, &count) in reasons {
                    gauge(&mut family, &vec![("kind", kind.clone()), ("reason", reason.clone())], count)?;
                }
            }
        }
        Ok(())
    }

    fn worker_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = (&'static str, &'static str, fn(&WorkerStatus) -> u64);
        const READS: [Read; 8] = [
            ("worker_busy_cycles", "TSC cycles spent on bursts", |w| w.busy_cycles),
            ("worker_idle_cycles", "TSC cycles spent on polling in vain and on sleeping", |w| w.idle_cycles),
            ("worker_sleeps", "Times that the worker went to sleep", |w| w.sleeps),
            ("worker_wakeups", "Times that something woke the worker", |w| w.wakeups),
            ("worker_packets", "Frames delivered or dropped", |w| w.packets),
            ("worker_bursts", "Bursts received", |w| w.bursts),
            ("worker_flow_cache_hits", "Frames whose flow was found", |w| w.flow_cache.hits),
            ("worker_flow_cache_misses", "Frames that walked the pipeline", |w| w.flow_cache.misses),
        ];
        const LEVELS: [Read; 4] = [
            ("worker_queues", "Queues that the worker polls", |w| w.queues),
            ("worker_flow_cache_entries", "Flows in the flow cache", |w| w.flow_cache.entries),
            ("worker_flow_cache_capacity", "Flows that the flow cache can hold", |w| w.flow_cache.capacity),
            ("worker_tsc_hertz", "Cycles of the TSC a second", |w| w.tsc_hz),
        ];
        let labels = |w: &WorkerStatus| {
            vec![("worker", w.id.to_string()), ("cpu", w.cpu.map(|c| c.to_string()).unwrap_or_default())]
        };
        for (name, help, read) in READS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for worker in &self.workers {
                counter(&mut family, &labels(worker), read(worker))?;
            }
        }
        for (name, help, read) in LEVELS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for worker in &self.workers {
                gauge(&mut family, &labels(worker), read(worker))?;
            }
        }
        let help = "Bursts received, by their size in frames";
        let mut family =
            encoder.encode_descriptor("worker_bursts_by_size", help, None, MetricType::Counter)?;
        for worker in &self.workers {
            for (size, &bursts) in BURST_SIZES.iter().zip(&worker.burst_sizes) {
                let mut labels = labels(worker);
                labels.push(("frames", (*size).to_owned()));
                counter(&mut family, &labels, bursts)?;
            }
        }
        Ok(())
    }
}
