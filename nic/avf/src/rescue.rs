//! Whether a driver had to help itself: interrupts that it asked for, and lost ones among them.
//!
//! A driver's timer that sees a ring stand still asks for an interrupt (SWINT_TRIG), and whatever was forgotten is found.
//! That hides a lost interrupt, so it is counted. When a driver enables a vector it has looked at its rings, and what is
//! written back afterwards must send: the frames that had passed by then are noted. If it asks later while the vector still
//! waits, and more have passed, then nobody told of those.

use fabnic_avf_spec::registers::VECTORS;
use fabnic_pci::SoftwareInterrupts;

/// What a vector is, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The driver waits for it, and nothing happened that it is to be told.
    pub(crate) is_waiting: bool,
    /// Frames that passed its queues so far.
    pub(crate) passed: u64,
}

/// What is known of each vector, and the counts.
#[derive(Debug, Default)]
pub(crate) struct Rescues {
    /// Frames of a vector's queues when it was enabled last.
    told: [u64; VECTORS as usize],
    count: SoftwareInterrupts,
}

impl Rescues {
    /// The counts, since the function was made.
    pub(crate) fn count(&self) -> SoftwareInterrupts {
        self.count
    }

    /// The driver enabled a vector.
    pub(crate) fn enabled(&mut self, vector: u16, now: Moment) {
        if let Some(told) = self.told.get_mut(usize::from(vector)).filter(|_| now.is_waiting) {
            *told = now.passed;
        }
    }

    /// The driver asks for an interrupt. `wait` ends when no burst stands between what it wrote and its interrupt.
    pub(crate) fn asked(&mut self, vector: u16, look: impl Fn() -> Moment, wait: impl FnOnce()) {
        let Some(told) = self.told.get(usize::from(vector)) else { return };
        self.count.asked = self.count.asked.saturating_add(1);
        let is_untold = || {
            let now = look();
            now.is_waiting && now.passed != *told
        };
        if is_untold() {
            wait();
            self.count.lost = self.count.lost.saturating_add(is_untold().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_passed_while_a_vector_waited_are_a_lost_interrupt() {
        let mut rescues = Rescues::default();
        let waiting = |passed| Moment { is_waiting: true, passed };
        rescues.enabled(1, waiting(7));
        rescues.asked(1, || waiting(7), || {});
        assert_eq!(rescues.count(), SoftwareInterrupts { asked: 1, lost: 0 }, "nothing happened");
        rescues.asked(1, || Moment { is_waiting: false, passed: 9 }, || {});
        assert_eq!(
            rescues.count(),
            SoftwareInterrupts { asked: 2, lost: 0 },
            "it was told, or is about to be"
        );
        rescues.asked(1, || waiting(9), || {});
        assert_eq!(rescues.count(), SoftwareInterrupts { asked: 3, lost: 1 });
        rescues.enabled(1, Moment { is_waiting: false, passed: 9 });
        rescues.asked(1, || waiting(9), || {});
        assert_eq!(rescues.count().lost, 2, "it was not enabled to wait");
        rescues.enabled(1, waiting(9));
        rescues.asked(1, || waiting(9), || {});
        assert_eq!(rescues.count().lost, 2);
    }

    #[test]
    fn a_burst_that_is_in_work_is_waited_for() {
        let mut rescues = Rescues::default();
        let is_waiting = core::cell::Cell::new(true);
        let look = || Moment { is_waiting: is_waiting.get(), passed: 1 };
        rescues.asked(2, look, || is_waiting.set(false));
        assert_eq!(rescues.count(), SoftwareInterrupts { asked: 1, lost: 0 });
    }
}
