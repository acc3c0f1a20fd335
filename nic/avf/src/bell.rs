//! How a transmit queue is told that its tail moved, without a system call while it is polled.
//!
//! ```text
//!   register side                     worker
//!   tail = n                          arm: armed = true
//!   ring: armed? then wake it              tail moved? then do not sleep
//! ```
//!
//! Either the register side sees that the worker sleeps, or the worker sees the new tail: each has a full fence between
//! its store and its load. `tests/interleavings.rs` tries all orders. The tail itself is guest memory or looks like it,
//! which is why it is not in here.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether a queue sleeps.
#[derive(Debug)]
pub(crate) struct Bell {
    armed: AtomicBool,
}

impl Default for Bell {
    fn default() -> Bell {
        Bell::new()
    }
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell { armed: AtomicBool::new(false) }
    }

    /// The tail was stored. `true`: the queue sleeps and must be woken.
    pub(crate) fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.armed.load(Ordering::Relaxed)
    }

    /// The queue wants to sleep; it must look at its tail once more after this.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The queue is polled.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}
