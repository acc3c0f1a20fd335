//! Counters: written by one, read by all.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::DropReason;

/// A counter with one writer at a time. Adding is a load and a store, not a locked instruction: whoever adds holds the
/// lock of the queue that the counter belongs to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; the caller is the only writer.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one queue moved. Kept when the VM goes: it belongs to the port.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Frames received from the port, or delivered to it.
    pub frames: Counter,
    /// Bytes of those frames, from the destination address to the end of the payload.
    pub bytes: Counter,
    /// Bursts that held at least one frame.
    pub bursts: Counter,
    /// Interrupts sent to the guest.
    pub calls: Counter,
    /// Times the queue was woken by the guest.
    pub kicks: Counter,
}

/// Drops of one direction of one port, by reason. Any thread may add.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> DropCounters {
        DropCounters([const { AtomicU64::new(0) }; DropReason::COUNT])
    }
}

impl DropCounters {
    /// Counts `n` frames.
    #[inline]
    pub fn add(&self, reason: DropReason, n: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Frames dropped for this reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Frames dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}
