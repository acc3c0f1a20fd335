//! How workers get the reactor's attention for a function: a list of those that want it, and a descriptor that wakes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;

/// Who wants attention.
#[derive(Debug)]
pub(crate) struct Attention {
    wake: OwnedFd,
    /// Numbers of end points; each is in it once, because its session asks once until it was attended to.
    waiting: Mutex<Vec<u64>>,
}

impl Attention {
    /// `wake` is a non-blocking eventfd.
    pub(crate) fn new(wake: OwnedFd) -> Attention {
        Attention { wake, waiting: Mutex::new(Vec::new()) }
    }

    /// Wakes the thread. The counter is full only when it has long been woken.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Asks for an end point.
    pub(crate) fn ask(&self, id: u64) {
        self.waiting.lock().push(id);
        self.wake();
    }

    /// Those that asked since the last time.
    pub(crate) fn take(&self) -> Vec<u64> {
        core::mem::take(&mut *self.waiting.lock())
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
