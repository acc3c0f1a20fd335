//! Counters, from queues up to the switch.

use fabnic_api::{Counters, DropCounts, PortStats, QueueStats, SwitchTotals};
use fabnic_port::{DropCounters, DropReason, Port, QueueCounters};

fn drops(of: &DropCounters) -> DropCounts {
    DropReason::ALL
        .iter()
        .map(|&reason| (reason.label().to_owned(), of.get(reason)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn add_rx(to: &mut Counters, queue: &QueueCounters) {
    to.rx_frames += queue.frames.get();
    to.rx_bytes += queue.bytes.get();
    add_both(to, queue);
}

fn add_tx(to: &mut Counters, queue: &QueueCounters) {
    to.tx_frames += queue.frames.get();
    to.tx_bytes += queue.bytes.get();
    add_both(to, queue);
}

fn add_both(to: &mut Counters, queue: &QueueCounters) {
    to.bursts += queue.bursts.get();
    to.calls += queue.calls.get();
    to.kicks += queue.kicks.get();
}

/// What a port counted.
pub(crate) fn of_port(port: &Port) -> PortStats {
    let mut stats = PortStats { id: port.id.0, name: port.name.clone(), ..PortStats::default() };
    stats.counters.rx_drops = drops(&port.rx_drops);
    stats.counters.tx_drops = drops(&port.tx_drops);
    for (number, (ingress, egress)) in (0..).zip(port.ingress().iter().zip(port.egress())) {
        let mut pair = QueueStats { queue: number, counters: Counters::default() };
        add_rx(&mut pair.counters, &ingress.counters);
        add_tx(&mut pair.counters, &egress.counters);
        add_rx(&mut stats.counters, &ingress.counters);
        add_tx(&mut stats.counters, &egress.counters);
        let counters = &pair.counters;
        if [counters.bursts, counters.kicks, counters.calls].iter().any(|&count| count > 0) {
            stats.queues.push(pair);
        }
    }
    stats
}

/// Adds what one port counted to the sum of all.
pub(crate) fn add_port(to: &mut SwitchTotals, port: &PortStats) {
    let counters = &port.counters;
    to.received += counters.rx_frames;
    to.delivered += counters.tx_frames;
    for (reason, count) in counters.rx_drops.iter().chain(&counters.tx_drops) {
        *to.drops.entry(reason.clone()).or_default() += count;
        to.dropped += count;
    }
}

/// Adds sums to others.
pub(crate) fn add_totals(to: &mut SwitchTotals, more: &SwitchTotals) {
    to.received += more.received;
    to.delivered += more.delivered;
    to.dropped += more.dropped;
    for (reason, count) in &more.drops {
        *to.drops.entry(reason.clone()).or_default() += count;
    }
}
