//! One interrupt vector: a word that the register side and the queues change together (IDPF, "Interrupt Enable
//! Procedure").
//!
//! ```text
//!                 cause: send                      enable: send
//!      ENABLED -----------------> (nothing) <------------------ PENDING
//!         ^                        |     |                       ^  |
//!         +------------------------+     +-----------------------+  | enable, to be held
//!               enable                            cause             v
//!                                  ^------- release: send ------- both
//! ```
//!
//! An interrupt is sent when a cause meets an enabled vector, whichever comes second, and sending takes both away. So a
//! driver that looks at its rings, finds nothing and enables the vector again never waits for what was written back in
//! between: either that write-back's cause came first, and enabling sends, or it comes second, and sends itself. Each
//! step is one read-modify-write of one word, a release of what was written before it and an acquire of what the other
//! side wrote: `tests/interleavings.rs` tries all orders.
//!
//! Where the driver asked for a pause between interrupts (ITR), enabling a vector with something pending may hold it:
//! then it is the register side's to release it when the pause is over. Causes meanwhile add nothing.

use super::sync::{AtomicU32, Ordering};

/// The driver wants the next interrupt.
const ENABLED: u32 = 1;
/// Something happened that was not told yet.
const PENDING: u32 = 2;

/// What enabling a vector led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enabled {
    /// Nothing happened yet.
    Waiting,
    /// The interrupt is to be sent.
    Send,
    /// It is to be sent later, by [`Vector::release`].
    Held,
}

/// The state of a vector.
#[derive(Debug)]
pub(crate) struct Vector(AtomicU32);

impl Vector {
    pub(crate) fn new() -> Vector {
        Vector(AtomicU32::new(0))
    }

    /// Something happened, and was written where the driver looks. `true`: the interrupt is to be sent.
    ///
    /// The word is written even if that changes nothing: a mere look could be made before what was written is visible.
    #[inline]
    pub(crate) fn cause(&self) -> bool {
        self.change(|state| if state == ENABLED { 0 } else { state | PENDING }) == ENABLED
    }

    /// The driver wants the next interrupt. If something happened already it is to be sent at once, or, with `hold`, when
    /// the pause is over.
    pub(crate) fn enable(&self, hold: bool) -> Enabled {
        let before = self.change(|state| match state & PENDING != 0 {
            false => ENABLED,
            true if hold => ENABLED | PENDING,
            true => 0,
        });
        match before & PENDING != 0 {
            false => Enabled::Waiting,
            true if hold => Enabled::Held,
            true => Enabled::Send,
        }
    }

    /// The pause is over. `true`: the interrupt that was held is to be sent.
    pub(crate) fn release(&self) -> bool {
        let both = ENABLED | PENDING;
        self.change(|state| if state == both { 0 } else { state }) == both
    }

    /// The driver wants none. What happens is kept for when it does.
    pub(crate) fn disable(&self) {
        self.change(|state| state & !ENABLED);
    }

    /// Nothing is wanted and nothing happened.
    pub(crate) fn reset(&self) {
        self.change(|_| 0);
    }

    /// Whether the driver waits for an interrupt, and nothing happened that it is to be told.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Acquire) == ENABLED
    }

    /// Whether the driver wants an interrupt and none was sent since.
    pub(crate) fn is_enabled(&self) -> bool {
        self.0.load(Ordering::Relaxed) & ENABLED != 0
    }

    #[inline]
    fn change(&self, to: impl Fn(u32) -> u32) -> u32 {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            match self.0.compare_exchange_weak(state, to(state), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(before) => return before,
                Err(now) => state = now,
            }
        }
    }
}
