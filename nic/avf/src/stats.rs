//! What GET_STATS tells. Each side of each queue counts for itself; the counters outlive their queue.

use core::sync::atomic::{AtomicU64, Ordering};

use fabnic_avf_spec::receive::Cast;

/// Counters of one direction. One thread at a time adds, under the lock of the queue's cell; any may read.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    bytes: AtomicU64,
    casts: [AtomicU64; 3],
    discards: AtomicU64,
    errors: AtomicU64,
    faults: AtomicU64,
}

/// Their values, or what a burst adds to them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) bytes: u64,
    pub(crate) casts: [u64; 3],
    pub(crate) discards: u64,
    pub(crate) errors: u64,
}

impl Counts {
    /// A frame passed.
    #[inline(always)]
    pub(crate) fn pass(&mut self, cast: Cast, bytes: u32) {
        self.bytes += u64::from(bytes);
        if let Some(count) = self.casts.get_mut(cast as usize) {
            *count += 1;
        }
    }

    /// So many frames passed, of so many bytes together.
    #[inline(always)]
    pub(crate) fn pass_all(&mut self, cast: Cast, frames: usize, bytes: u64) {
        self.bytes += bytes;
        if let Some(count) = self.casts.get_mut(cast as usize) {
            *count += frames as u64;
        }
    }

    /// Adds others.
    pub(crate) fn add(&mut self, other: &Counts) {
        self.bytes += other.bytes;
        self.casts.iter_mut().zip(other.casts).for_each(|(to, n)| *to += n);
        self.discards += other.discards;
        self.errors += other.errors;
    }
}

impl Counters {
    fn all(&self) -> [&AtomicU64; 6] {
        let [unicast, multicast, broadcast] = &self.casts;
        [&self.bytes, unicast, multicast, broadcast, &self.discards, &self.errors]
    }

    /// Adds what a burst counted.
    pub(crate) fn settle(&self, counts: &Counts) {
        let [unicast, multicast, broadcast] = counts.casts;
        let more = [counts.bytes, unicast, multicast, broadcast, counts.discards, counts.errors];
        for (counter, n) in self.all().into_iter().zip(more) {
            if n > 0 {
                counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
            }
        }
    }

    /// Frames that passed.
    pub(crate) fn frames(&self) -> u64 {
        self.casts.iter().fold(0, |sum, cast| sum.wrapping_add(cast.load(Ordering::Relaxed)))
    }

    /// An address was not in the guest's memory.
    pub(crate) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// The values now.
    pub(crate) fn get(&self) -> Counts {
        let [bytes, unicast, multicast, broadcast, discards, errors] =
            self.all().map(|counter| counter.load(Ordering::Relaxed));
        Counts { bytes, casts: [unicast, multicast, broadcast], discards, errors }
    }
}
