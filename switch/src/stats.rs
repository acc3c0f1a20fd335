//! What the switch counts, as one moment's numbers.

use core::sync::atomic::Ordering;

use fabnic_port::{DropReason, Port};

use crate::refusals::FdbRefusals;
use crate::worker::{BURST_BUCKETS, WorkerShared};

/// One worker's numbers since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Its number.
    pub id: usize,
    /// The CPU it is pinned to, if it is.
    pub cpu: Option<usize>,
    /// Counts of the time stamp counter in rounds that moved frames.
    pub busy_cycles: u64,
    /// Counts in rounds that moved none.
    pub idle_cycles: u64,
    /// Counts asleep.
    pub asleep_cycles: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Frames received.
    pub frames: u64,
    /// Bursts they came in.
    pub bursts: u64,
    /// Bursts by size: 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64.
    pub burst_sizes: [u64; BURST_BUCKETS],
    /// Frames decided by the flow cache.
    pub flow_hits: u64,
    /// Frames that walked the stages.
    pub flow_misses: u64,
    /// Flows that the cache can hold now; it grows.
    pub flow_capacity: u64,
    /// Queues polled now.
    pub active_queues: u64,
    /// Bursts that made it panic, each of which stopped a port.
    pub panics: u64,
    /// Counts of the time stamp counter in a second.
    pub tsc_hz: u64,
}

impl WorkerStats {
    pub(crate) fn read(worker: &WorkerShared, tsc_hz: u64) -> WorkerStats {
        let counters = &worker.counters;
        let mut burst_sizes = [0; BURST_BUCKETS];
        for (size, counter) in burst_sizes.iter_mut().zip(&counters.sizes) {
            *size = counter.get();
        }
        WorkerStats {
            id: worker.id,
            cpu: worker.cpu,
            busy_cycles: counters.busy.get(),
            idle_cycles: counters.idle.get(),
            asleep_cycles: counters.asleep.get(),
            sleeps: counters.sleeps.get(),
            frames: counters.frames.get(),
            bursts: counters.bursts.get(),
            burst_sizes,
            flow_hits: counters.hits.get(),
            flow_misses: counters.misses.get(),
            flow_capacity: counters.flows.load(Ordering::Relaxed).into(),
            active_queues: counters.active.load(Ordering::Relaxed).into(),
            panics: counters.panics.get(),
            tsc_hz,
        }
    }

    /// Counts of the time stamp counter that a frame cost while the worker was busy.
    pub fn cycles_per_frame(&self) -> Option<f64> {
        (self.frames > 0).then(|| self.busy_cycles as f64 / self.frames as f64)
    }
}

/// What the forwarding database did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbStats {
    /// Addresses that were learned; those that moved do not count again.
    pub learned: u64,
    /// Times a learned address changed its port.
    pub moves: u64,
    /// Times an address was frozen because it moved too often.
    pub freezes: u64,
    /// Addresses that aged out.
    pub aged: u64,
    /// Times an address was not learned where it was seen, by cause.
    pub refused: FdbRefusals,
}

/// Sums over all ports. When nothing is in flight, received + replicated = delivered + dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchTotals {
    /// Frames received from ports.
    pub received: u64,
    /// Copies made beyond the first of each frame, mirrored ones among them, and frames of the switch's own.
    pub replicated: u64,
    /// Copies delivered.
    pub delivered: u64,
    /// Frames and copies dropped.
    pub dropped: u64,
}

impl SwitchTotals {
    pub(crate) fn sum<'a>(ports: impl Iterator<Item = &'a Port>, replicated: u64) -> SwitchTotals {
        let mut totals = SwitchTotals { replicated, ..SwitchTotals::default() };
        for port in ports {
            totals.received += port.ingress().iter().map(|cell| cell.counters.frames.get()).sum::<u64>();
            totals.delivered += port.egress().iter().map(|cell| cell.counters.frames.get()).sum::<u64>();
            totals.dropped += port.rx_drops.total() + port.tx_drops.total();
        }
        totals
    }

    /// Whether the numbers add up.
    pub fn balance(&self) -> bool {
        self.received + self.replicated == self.delivered + self.dropped
    }
}

/// Drops of one direction of a port, those that are not zero.
pub fn drops(counters: &fabnic_port::DropCounters) -> impl Iterator<Item = (DropReason, u64)> + '_ {
    DropReason::ALL.iter().map(|reason| (*reason, counters.get(*reason))).filter(|(_, count)| *count > 0)
}
