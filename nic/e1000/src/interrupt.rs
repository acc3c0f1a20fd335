//! Interrupt causes, their mask, and the line (SDM 3.4, 13.4.17 to 13.4.21).
//!
//! Workers raise causes while the driver reads and masks them on the transport's thread. The line must follow in the
//! order of what was decided, so the state and the call that follows from it are under one lock, which nobody holds for
//! longer than a write to an eventfd.
//!
//! ```text
//!   causes (ICR) --and-- mask (IMS) --and not held off--> line
//! ```
//!
//! # Moderation
//!
//! When the driver takes an interrupt, so that the line falls, the next one is held off for the interval that ITR, or else
//! the absolute delay of what it was taken for, asks for. It begins there because that is an access of the transport's
//! thread, which knows the time and waits for the end; a worker that raises a cause meanwhile has nobody to tell. So the
//! first interrupt after a silence comes at once, where the part would wait for RDTR or TIDV.

use std::sync::Arc;

use fabnic_pci::Interrupts;
use parking_lot::Mutex;

use crate::spec::register::Cause;
use crate::state::{Reader, StateError, Writer};

/// When an interrupt was taken, and how long the next is to be held off, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) now: u64,
    /// ITR: whatever the cause was. 0: off.
    pub(crate) interval: u64,
    /// RADV: after RXT0.
    pub(crate) receive_delay: u64,
    /// TADV: after TXDW.
    pub(crate) transmit_delay: u64,
}

impl Taken {
    fn interval_after(&self, causes: Cause) -> u64 {
        if self.interval > 0 {
            return self.interval;
        }
        let delays = [(Cause::RXT0, self.receive_delay), (Cause::TXDW, self.transmit_delay)];
        let delays = delays.iter().filter(|(cause, delay)| causes.contains(*cause) && *delay > 0);
        delays.map(|(_, delay)| *delay).min().unwrap_or(0)
    }
}

/// Causes, mask and line.
#[derive(Default)]
pub(crate) struct InterruptLine(Mutex<State>);

#[derive(Default)]
struct State {
    causes: Cause,
    mask: Cause,
    asserted: bool,
    held_until: Option<u64>,
    /// The device stands still: the line does not change.
    is_stopped: bool,
    output: Option<Arc<dyn Interrupts>>,
}

impl core::fmt::Debug for InterruptLine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = self.0.lock();
        f.debug_struct("InterruptLine")
            .field("causes", &state.causes)
            .field("mask", &state.mask)
            .field("asserted", &state.asserted)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Lets the line follow; `true` if it rose.
    fn follow(&mut self) -> bool {
        if self.is_stopped {
            return false;
        }
        let wanted = self.causes.intersects(self.mask) && self.held_until.is_none();
        if wanted == self.asserted {
            return false;
        }
        self.asserted = wanted;
        if let Some(output) = &self.output {
            output.intx(wanted);
        }
        wanted
    }

    /// As [`State::follow`], after the driver has taken these causes.
    fn follow_taken(&mut self, causes: Cause, taken: Taken) {
        let was = self.asserted;
        self.follow();
        let interval = taken.interval_after(causes);
        if was && !self.asserted && interval > 0 {
            self.held_until = Some(taken.now.saturating_add(interval));
        }
    }
}

impl InterruptLine {
    /// Adds causes; `true` if the driver is interrupted by it.
    pub(crate) fn raise(&self, causes: Cause) -> bool {
        let mut state = self.0.lock();
        state.causes |= causes;
        state.follow()
    }

    /// The causes, which are gone afterwards (a read of ICR).
    pub(crate) fn take(&self, taken: Taken) -> Cause {
        let mut state = self.0.lock();
        let causes = core::mem::take(&mut state.causes);
        state.follow_taken(causes, taken);
        causes
    }

    /// Clears some causes (a write to ICR).
    pub(crate) fn clear(&self, causes: Cause, taken: Taken) {
        let mut state = self.0.lock();
        state.causes.remove(causes);
        state.follow_taken(causes, taken);
    }

    /// The causes, which stay (a read of ICS).
    pub(crate) fn causes(&self) -> Cause {
        self.0.lock().causes
    }

    /// Whether the line is high.
    pub(crate) fn is_asserted(&self) -> bool {
        self.0.lock().asserted
    }

    /// The mask.
    pub(crate) fn mask(&self) -> Cause {
        self.0.lock().mask
    }

    /// Lets causes through (IMS).
    pub(crate) fn unmask(&self, causes: Cause) {
        let mut state = self.0.lock();
        state.mask |= causes;
        state.follow();
    }

    /// Holds causes back (IMC).
    pub(crate) fn hide(&self, causes: Cause, taken: Taken) {
        let mut state = self.0.lock();
        state.mask.remove(causes);
        let pending = state.causes & causes;
        state.follow_taken(pending, taken);
    }

    /// Where interrupts go to from now on.
    pub(crate) fn attach(&self, output: Option<Arc<dyn Interrupts>>) {
        let mut state = self.0.lock();
        state.output = output;
        if state.asserted
            && let Some(output) = &state.output
        {
            output.intx(true);
        }
    }

    /// No causes, nothing let through, the line low.
    pub(crate) fn reset(&self) {
        let mut state = self.0.lock();
        (state.causes, state.mask) = (Cause::empty(), Cause::empty());
        state.held_until = None;
        state.follow();
    }

    /// The device stands still, or goes on.
    pub(crate) fn set_stopped(&self, is_stopped: bool) {
        let mut state = self.0.lock();
        state.is_stopped = is_stopped;
        state.follow();
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        let state = self.0.lock();
        to.u32(state.causes.bits());
        to.u32(state.mask.bits());
        to.flag(state.asserted);
        to.flag(state.held_until.is_some());
    }

    /// Takes another's state, while stopped. What was held off is due at `now`: clocks differ.
    pub(crate) fn restore(&self, from: &mut Reader<'_>, now: u64) -> Result<(), StateError> {
        let mut state = self.0.lock();
        state.causes = Cause::from_bits_truncate(from.u32()?);
        state.mask = Cause::from_bits_truncate(from.u32()?);
        state.asserted = from.flag()?;
        state.held_until = from.flag()?.then_some(now);
        Ok(())
    }

    /// When an interrupt is held off no longer.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.0.lock().held_until
    }

    /// Time went on.
    pub(crate) fn expire(&self, now: u64) {
        let mut state = self.0.lock();
        if state.held_until.is_some_and(|until| until <= now) {
            state.held_until = None;
            state.follow();
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Wire(AtomicBool);

    impl Interrupts for Wire {
        fn msix(&self, _vector: u16) {}
        fn intx(&self, asserted: bool) {
            assert_ne!(self.0.swap(asserted, Ordering::SeqCst), asserted, "a level that is no change");
        }
    }

    fn line() -> (InterruptLine, impl Fn() -> bool) {
        let (line, wire) = (InterruptLine::default(), Arc::new(Wire::default()));
        line.attach(Some(Arc::clone(&wire) as _));
        (line, move || wire.0.load(Ordering::SeqCst))
    }

    const NEVER_HELD: Taken = Taken { now: 0, interval: 0, receive_delay: 0, transmit_delay: 0 };

    fn held(now: u64, interval: u64) -> Taken {
        Taken { now, interval, ..NEVER_HELD }
    }

    #[test]
    fn the_line_is_what_causes_and_mask_say() {
        let (line, is_high) = line();
        assert!(!line.raise(Cause::RXT0) && !is_high());
        line.unmask(Cause::TXDW);
        assert!(!is_high());
        line.unmask(Cause::RXT0);
        assert!(is_high());
        assert!(!line.raise(Cause::TXDW), "it is high already");
        line.hide(Cause::RXT0, NEVER_HELD);
        assert!(is_high());
        line.clear(Cause::TXDW, NEVER_HELD);
        assert!(!is_high());
        line.unmask(Cause::RXT0);
        assert_eq!(line.take(NEVER_HELD), Cause::RXT0);
        assert!(!is_high() && line.causes().is_empty());
    }

    #[test]
    fn the_next_interrupt_is_held_off() {
        let (line, is_high) = line();
        line.unmask(Cause::all());
        assert!(line.raise(Cause::RXT0));
        line.take(held(1000, 500));
        assert_eq!(line.deadline(), Some(1500));
        assert!(!line.raise(Cause::RXT0) && !is_high());
        line.expire(1499);
        assert!(!is_high());
        line.expire(1500);
        assert!(is_high() && line.deadline().is_none());
        // What is read while the line is low holds nothing off.
        line.take(NEVER_HELD);
        line.take(held(2000, 500));
        assert_eq!(line.deadline(), None);
    }

    #[test]
    fn delays_count_for_what_they_are_of() {
        let (line, _) = line();
        line.unmask(Cause::all());
        let delays = Taken { now: 0, interval: 0, receive_delay: 300, transmit_delay: 100 };
        for (causes, until) in [
            (Cause::RXT0, Some(300)),
            (Cause::TXDW, Some(100)),
            (Cause::RXT0 | Cause::TXDW, Some(100)),
            (Cause::LSC, None),
        ] {
            line.raise(causes);
            line.take(delays);
            assert_eq!(line.deadline(), until, "{causes:?}");
            line.expire(300);
        }
    }

    #[test]
    fn a_reset_lets_the_line_fall() {
        let (line, is_high) = line();
        line.unmask(Cause::all());
        line.raise(Cause::LSC);
        line.reset();
        assert!(!is_high() && line.mask().is_empty());
    }
}
