//! What the examples that measure share: a port that only counts, a thread's CPU, and the median of windows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fabnic_port::{Burst, Egress, Fault, Tally};

/// Counts what is delivered, and lets it go.
pub(crate) struct Sink(pub(crate) Arc<AtomicU64>);

impl Egress for Sink {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for &pick in picks {
            let Some(frame) = burst.frames().get(usize::from(pick)) else { continue };
            tally.deliver(frame.len());
        }
        // One worker writes: no locked instruction, which would be seen in what is measured.
        let seen = self.0.load(Ordering::Relaxed);
        self.0.store(seen + picks.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Pins this thread to a CPU.
pub(crate) fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// The middle one; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
