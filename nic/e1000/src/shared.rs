//! What the registers' side and the queues share.
//!
//! ```text
//!   transport's thread: E1000 ----+                      +---- Transmit, Receive: workers
//!                                 |      Shared          |
//!     settings, filter  --------> | generation + lock    | --> a copy, renewed when the generation changed
//!     ring registers    <-------> | pages                | <-> read once a burst
//!     TDT               --------> | doorbell             | --> eventfd, if somebody sleeps
//!     ICR, IMS          <-------> | interrupt line       | <-- causes
//!     statistics        <-------- | counters             | <-- counts
//! ```

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_memory::{DirtyLog, MapError};
use parking_lot::Mutex;
use rustix::event::EventfdFlags;

use crate::filter::Filter;
use crate::interrupt::InterruptLine;
use crate::phy::Phy;
use crate::ring::RingPages;
use crate::spec::register::Cause;
use crate::statistics::Statistics;

/// Wakes the worker that polls the transmit ring.
#[derive(Debug)]
pub(crate) struct Doorbell {
    event: OwnedFd,
    armed: AtomicBool,
    /// The guest writes the tail by itself: nobody could ring, so the queue is always polled.
    is_polled: bool,
}

impl Doorbell {
    /// The tail was written.
    pub(crate) fn ring(&self) {
        // The tail before the look at `armed`, as `arm` is before the look at the tail: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::Relaxed) {
            // The only error that can be is EAGAIN: the counter is full of rings, so it is readable.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Asks to be woken; the tail must be looked at afterwards.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    pub(crate) fn wake(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_polled).then(|| self.event.as_fd())
    }
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pages: RingPages,
    pub(crate) line: InterruptLine,
    pub(crate) statistics: Statistics,
    pub(crate) doorbell: Doorbell,
    filter: Mutex<Filter>,
    generation: AtomicU32,
    phy: Mutex<Phy>,
    link: AtomicBool,
    looped_in_phy: AtomicBool,
    looped_in_mac: AtomicBool,
    /// Where writes to guest memory are logged, while they are.
    log: Mutex<Option<Arc<DirtyLog>>>,
    /// Accesses outside the guest's memory that were refused.
    faults: AtomicU64,
    /// What was transmitted last asked for no haste (IDE).
    may_delay_transmit: AtomicBool,
}

impl Shared {
    pub(crate) fn new(carrier: bool, is_polled: bool) -> Result<Shared, MapError> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|source| MapError::Kernel { guest_addr: 0, len: 0, source })?;
        Ok(Shared {
            pages: RingPages::new(is_polled)?,
            line: InterruptLine::default(),
            statistics: Statistics::default(),
            doorbell: Doorbell { event, armed: AtomicBool::new(false), is_polled },
            filter: Mutex::default(),
            generation: AtomicU32::new(1),
            phy: Mutex::new(Phy::new(carrier)),
            link: AtomicBool::new(carrier),
            looped_in_phy: AtomicBool::new(false),
            looped_in_mac: AtomicBool::new(false),
            log: Mutex::new(None),
            faults: AtomicU64::new(0),
            may_delay_transmit: AtomicBool::new(false),
        })
    }

    /// What the filter's registers hold.
    pub(crate) fn filter<R>(&self, look: impl FnOnce(&Filter) -> R) -> R {
        look(&self.filter.lock())
    }

    /// Changes what the filter's registers hold.
    pub(crate) fn change_filter(&self, change: impl FnOnce(&mut Filter)) {
        let mut filter = self.filter.lock();
        change(&mut filter);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Renews a copy that is older than `generation`; `true` if it was.
    #[inline]
    pub(crate) fn renew(&self, generation: &mut u32, renew: impl FnOnce(&Filter)) -> bool {
        let newest = self.generation.load(Ordering::Acquire);
        if newest == *generation {
            return false;
        }
        // What changes between the two is copied now, and once more next time.
        renew(&self.filter.lock());
        *generation = newest;
        true
    }

    /// Does something with the PHY; the driver is told if the link changes by it.
    pub(crate) fn with_phy<R>(&self, change: impl FnOnce(&mut Phy) -> R) -> R {
        let mut phy = self.phy.lock();
        let before = phy.link();
        let result = change(&mut phy);
        let after = phy.link();
        self.link.store(after, Ordering::Relaxed);
        self.looped_in_phy.store(phy.is_looped(), Ordering::Relaxed);
        if before != after {
            self.line.raise(Cause::LSC);
        }
        result
    }

    /// Where writes to guest memory are logged.
    pub(crate) fn log(&self) -> Option<Arc<DirtyLog>> {
        self.log.lock().clone()
    }

    pub(crate) fn set_log(&self, log: Option<Arc<DirtyLog>>) {
        *self.log.lock() = log;
    }

    /// Counts a refused access to memory.
    pub(crate) fn count_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Whether the interrupts of what is transmitted may be delayed.
    pub(crate) fn may_delay_transmit(&self) -> bool {
        self.may_delay_transmit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_may_delay_transmit(&self, may: bool) {
        self.may_delay_transmit.store(may, Ordering::Relaxed);
    }

    /// RCTL says whether frames come back in the MAC or behind it.
    pub(crate) fn set_looped_in_mac(&self, looped: bool) {
        self.looped_in_mac.store(looped, Ordering::Relaxed);
    }

    /// Whether the link is up.
    pub(crate) fn has_link(&self) -> bool {
        self.link.load(Ordering::Relaxed)
    }

    /// Whether frames from outside are received.
    #[inline]
    pub(crate) fn is_receiving(&self) -> bool {
        self.has_link() && !self.is_looped()
    }

    /// Whether what is sent comes back, and nothing goes out.
    #[inline]
    pub(crate) fn is_looped(&self) -> bool {
        self.looped_in_phy.load(Ordering::Relaxed) || self.looped_in_mac.load(Ordering::Relaxed)
    }
}
