//! Queues and the cells they sit in.

use core::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};

use crate::{Burst, DropCounters, DropReason, PortId, QueueCounters};

/// A fault of the other side that ends its port: what was wrong, where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A queue that the switch receives from.
///
/// Called by one worker at a time, which holds the cell's lock from `receive` to `complete`.
pub trait Ingress: Any + Send {
    /// How many frames wait, as far as it costs next to nothing to know: one look at an index. 0 means none.
    fn backlog(&mut self) -> usize;

    /// Fills the burst with what waits, at most to its end. A frame that must not go on gets its `drop` reason and stays
    /// in the burst.
    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault>;

    /// Everything in the burst was delivered or dropped: gives the buffers back, with one publish and one decision
    /// whether to interrupt. Gives the number of interrupts sent.
    fn complete(&mut self, burst: &Burst) -> u32;

    /// Asks to be woken by [`Ingress::wake`] when something comes. `true` if something is already there: do not sleep.
    fn arm(&mut self) -> bool;

    /// No wake-ups needed: it is polled from now on.
    fn disarm(&mut self);

    /// The descriptor whose becoming readable wakes the queue. Watched edge-triggered and never read.
    fn wake(&self) -> Option<BorrowedFd<'_>>;
}

/// A queue that the switch delivers to.
pub trait Egress: Any + Send {
    /// Delivers the frames of the burst with these indexes, in order. What cannot be delivered is counted in the tally
    /// with its reason. Frames may be changed only in ways that leave them as they are for the next receiver.
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault>;

    /// Whether frames may be steered here: a driver that has never given a buffer does not use the queue.
    fn in_use(&mut self) -> bool {
        true
    }
}

/// What became of the frames of one `deliver`.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Frames delivered.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Interrupts sent.
    pub calls: u64,
    dropped: u64,
    drops: [u32; DropReason::COUNT],
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { frames: 0, bytes: 0, calls: 0, dropped: 0, drops: [0; DropReason::COUNT] }
    }
}

impl Tally {
    /// Counts one delivered frame.
    #[inline(always)]
    pub fn deliver(&mut self, bytes: u32) {
        self.frames += 1;
        self.bytes += u64::from(bytes);
    }

    /// Counts `frames` delivered frames of `bytes` together.
    #[inline(always)]
    pub fn deliver_all(&mut self, frames: usize, bytes: u64) {
        self.frames += frames as u64;
        self.bytes += bytes;
    }

    /// Counts `n` frames that were not.
    #[inline]
    pub fn drop(&mut self, reason: DropReason, n: usize) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += n as u32;
            self.dropped += n as u64;
        }
    }

    /// Frames not delivered, for any reason.
    #[inline(always)]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Frames not delivered for this reason.
    pub fn dropped_for(&self, reason: DropReason) -> u32 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }

    /// Starts anew, without counting.
    pub fn clear(&mut self) {
        if self.dropped > 0 {
            self.drops = [0; DropReason::COUNT];
            self.dropped = 0;
        }
        (self.frames, self.bytes, self.calls) = (0, 0, 0);
    }

    /// Adds everything to the counters of a queue, whose lock the caller holds, and of its port; and starts anew.
    #[inline]
    pub fn settle(&mut self, queue: &QueueCounters, port: &DropCounters) {
        if self.frames > 0 {
            queue.frames.add(self.frames);
            queue.bytes.add(self.bytes);
            queue.bursts.add(1);
            queue.calls.add(self.calls);
        }
        if self.dropped > 0 {
            for (reason, count) in DropReason::ALL.iter().zip(&self.drops) {
                if *count > 0 {
                    port.add(*reason, u64::from(*count));
                }
            }
        }
        self.clear();
    }
}

/// Names an ingress cell to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The port.
    pub port: PortId,
    /// The queue's number in the port.
    pub queue: u16,
}

/// Who polls an ingress cell: a worker, seen from the port.
pub trait Poller: Send + Sync {
    /// A queue was installed: watch `wake`, and look at the queue once now.
    fn adopt(&self, token: Token, wake: Option<BorrowedFd<'_>>);
    /// A queue goes: stop watching.
    fn release(&self, token: Token, wake: Option<BorrowedFd<'_>>);
}

/// A place for a queue: it stays when the queue goes, with its counters.
pub struct Cell<Q: ?Sized> {
    queue: Mutex<Option<Box<Q>>>,
    /// What went through.
    pub counters: QueueCounters,
    poller: OnceLock<(Token, Arc<dyn Poller>)>,
}

impl<Q: ?Sized> Default for Cell<Q> {
    fn default() -> Cell<Q> {
        Cell { queue: Mutex::new(None), counters: QueueCounters::default(), poller: OnceLock::new() }
    }
}

impl<Q: ?Sized> core::fmt::Debug for Cell<Q> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cell").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// The lock of a cell, held.
pub type CellGuard<'a, Q> = MutexGuard<'a, Option<Box<Q>>>;

impl<Q: ?Sized> Cell<Q> {
    /// Takes the lock. Short: a burst at the longest.
    #[inline(always)]
    pub fn lock(&self) -> CellGuard<'_, Q> {
        self.queue.lock()
    }

    /// Whether a queue is installed.
    pub fn is_installed(&self) -> bool {
        self.queue.lock().is_some()
    }
}

impl Cell<dyn Ingress> {
    /// Says who polls the cell; once.
    pub fn assign(&self, token: Token, poller: Arc<dyn Poller>) {
        if self.poller.set((token, poller)).is_ok()
            && let Some((token, poller)) = self.poller.get()
            && let Some(queue) = self.queue.lock().as_ref()
        {
            poller.adopt(*token, queue.wake());
        }
    }

    /// Puts a queue in; gives back the one that was there.
    pub fn install(&self, queue: Box<dyn Ingress>) -> Option<Box<dyn Ingress>> {
        let mut guard = self.queue.lock();
        let old = guard.take();
        if let Some((token, poller)) = self.poller.get() {
            if let Some(old) = &old {
                poller.release(*token, old.wake());
            }
            poller.adopt(*token, queue.wake());
        }
        *guard = Some(queue);
        old
    }

    /// Takes the queue out. When this returns, no frame of it is in flight.
    pub fn remove(&self) -> Option<Box<dyn Ingress>> {
        let mut guard = self.queue.lock();
        let old = guard.take();
        if let (Some(old), Some((token, poller))) = (&old, self.poller.get()) {
            poller.release(*token, old.wake());
        }
        old
    }

    /// Changes the queue in place, between two bursts. The worker looks at it again afterwards.
    pub fn with<R>(&self, change: impl FnOnce(&mut dyn Ingress) -> R) -> Option<R> {
        let mut guard = self.queue.lock();
        let queue = guard.as_mut()?;
        let poller = self.poller.get();
        if let Some((token, poller)) = poller {
            poller.release(*token, queue.wake());
        }
        let result = change(queue.as_mut());
        if let Some((token, poller)) = poller {
            poller.adopt(*token, queue.wake());
        }
        Some(result)
    }
}

impl Cell<dyn Egress> {
    /// Puts a queue in; gives back the one that was there. The port must be told ([`crate::Port::refresh_egress`]).
    pub fn install(&self, queue: Box<dyn Egress>) -> Option<Box<dyn Egress>> {
        self.queue.lock().replace(queue)
    }

    /// Takes the queue out. When this returns, nothing is being delivered to it.
    pub fn remove(&self) -> Option<Box<dyn Egress>> {
        self.queue.lock().take()
    }

    /// Changes the queue in place, between two bursts.
    pub fn with<R>(&self, change: impl FnOnce(&mut dyn Egress) -> R) -> Option<R> {
        self.queue.lock().as_mut().map(|queue| change(queue.as_mut()))
    }
}
