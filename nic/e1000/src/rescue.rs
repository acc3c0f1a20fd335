//! Whether a driver had to help itself: interrupts that it asked for, and lost ones among them.
//!
//! Drivers set a ring's cause by a timer (Linux: RXDMT0 every two seconds), and whatever was forgotten is found. That hides
//! a lost interrupt, so it is counted. When a driver reads ICR the heads of its rings are noted, and what is done
//! afterwards leaves a cause in ICR. If it asks later and the heads have moved without a cause, nobody told of that; and if
//! it asks twice while the line is high and never reads ICR, the line did not reach it.

use fabnic_pci::SoftwareInterrupts;

use crate::spec::register::Cause;

/// Causes that a ring has.
const OF_RINGS: Cause =
    Cause::TXDW.union(Cause::TXQE).union(Cause::RXDMT0).union(Cause::RXO).union(Cause::RXT0);

/// Heads of the receive and the transmit ring.
pub(crate) type Heads = [u32; 2];

/// What is known, and the counts.
#[derive(Debug, Default)]
pub(crate) struct Rescues {
    told: Heads,
    /// The driver asked while the line was high, and has not read ICR since.
    unanswered: bool,
    count: SoftwareInterrupts,
}

impl Rescues {
    /// The counts, since the device was made.
    pub(crate) fn count(&self) -> SoftwareInterrupts {
        self.count
    }

    /// The driver knows the rings as they are now: it took the causes, or set the heads.
    pub(crate) fn tell(&mut self, heads: Heads) {
        (self.told, self.unanswered) = (heads, false);
    }

    /// The driver set `asked`. `look` gives the heads, and then the causes; `wait` ends when no burst stands between the two.
    pub(crate) fn ask(
        &mut self,
        asked: Cause,
        is_asserted: bool,
        look: impl Fn() -> (Heads, Cause),
        wait: impl FnOnce(),
    ) {
        if !asked.intersects(OF_RINGS) {
            return;
        }
        self.count.asked = self.count.asked.saturating_add(1);
        let is_untold = || {
            let (heads, causes) = look();
            heads != self.told && !causes.intersects(OF_RINGS)
        };
        let mut is_lost = is_asserted && self.unanswered;
        if is_untold() {
            wait();
            is_lost |= is_untold();
        }
        self.unanswered |= is_asserted;
        self.count.lost = self.count.lost.saturating_add(is_lost.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_without_a_cause_is_a_lost_interrupt() {
        let mut rescues = Rescues::default();
        let ask = |rescues: &mut Rescues, heads, causes| {
            rescues.ask(Cause::RXDMT0, false, || (heads, causes), || {});
            rescues.count().lost
        };
        assert_eq!(ask(&mut rescues, [0, 0], Cause::empty()), 0, "nothing happened");
        assert_eq!(ask(&mut rescues, [3, 0], Cause::RXT0), 0, "it is about to be told");
        rescues.tell([3, 0]);
        assert_eq!(ask(&mut rescues, [3, 0], Cause::empty()), 0, "it was told");
        assert_eq!(ask(&mut rescues, [4, 0], Cause::empty()), 1);
        rescues.tell([4, 0]);
        assert_eq!(ask(&mut rescues, [4, 9], Cause::LSC), 2, "another cause says nothing of rings");
        assert_eq!(rescues.count().asked, 5);
    }

    #[test]
    fn a_burst_that_is_in_work_is_waited_for() {
        let mut rescues = Rescues::default();
        let is_through = core::cell::Cell::new(false);
        let look = || ([1, 0], if is_through.get() { Cause::RXT0 } else { Cause::empty() });
        rescues.ask(Cause::RXDMT0, false, look, || is_through.set(true));
        assert_eq!(rescues.count(), SoftwareInterrupts { asked: 1, lost: 0 });
    }

    #[test]
    fn a_line_that_nobody_answers_is_a_lost_interrupt() {
        let mut rescues = Rescues::default();
        let look = || ([1, 0], Cause::RXT0);
        rescues.ask(Cause::RXDMT0, true, look, || {});
        rescues.tell([1, 0]);
        rescues.ask(Cause::RXDMT0, true, look, || {});
        assert_eq!(rescues.count().lost, 0);
        rescues.ask(Cause::RXDMT0, true, look, || {});
        assert_eq!(rescues.count().lost, 1);
        rescues.ask(Cause::LSC, true, look, || {});
        assert_eq!(rescues.count(), SoftwareInterrupts { asked: 3, lost: 1 }, "a link's cause is no rescue");
    }
}
