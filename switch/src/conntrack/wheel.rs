//! When connections are to be forgotten: a timer wheel, one for each shard of the table.
//!
//! ```text
//!   slot:   0    1    2   ...  127        a slot is 2 seconds, the wheel 256
//!              ^cursor
//! ```
//!
//! A connection lies in the slot of its deadline, or, if that is farther than the wheel, in the last one. When its slot
//! comes round it is looked at: packets have moved most deadlines meanwhile, and those go round again. So a packet only
//! stores a new deadline, and each connection is looked at once in 256 seconds at most, whatever its time. Only a deadline
//! that comes much nearer, as when a connection closes, moves a connection to another slot.
//!
//! # Invariants
//! - A connection in the table is in the wheel, at the place that it says, or in the hands of who forgets it; one that is
//!   not in the table is in no wheel.
//! - A call looks at a bounded number of connections.

use core::sync::atomic::{AtomicU32, Ordering};

const SLOTS: u32 = 128;
/// Seconds of a slot.
const STEP: u32 = 2;
const NOWHERE: u32 = u32::MAX;
/// Bits for the place within a slot; as many as there can be connections.
const INDEX_BITS: u32 = 25;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

/// What a connection keeps for the wheel.
#[derive(Debug)]
pub(crate) struct Timed {
    /// The second from which on it is to be forgotten.
    pub(crate) deadline: AtomicU32,
    /// Slot, and place in it.
    place: AtomicU32,
    /// The second when it will be looked at.
    due: AtomicU32,
}

impl Default for Timed {
    fn default() -> Timed {
        Timed { deadline: AtomicU32::new(0), place: AtomicU32::new(NOWHERE), due: AtomicU32::new(0) }
    }
}

impl Timed {
    /// Whether its deadline has come so much nearer that it must be put elsewhere.
    #[inline]
    pub(crate) fn is_misplaced(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        deadline.saturating_add(3 * STEP) < self.due.load(Ordering::Relaxed)
    }
}

/// Where connections with a number are.
pub(crate) trait Numbered {
    fn timed(&self, number: u32) -> Option<&Timed>;
}

#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Box<[Vec<u32>]>,
    /// The step that is in work: every slot before it is done.
    cursor: u32,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), cursor: 0 }
    }
}

impl Wheel {
    /// Puts a connection where its deadline is.
    pub(crate) fn add(&mut self, number: u32, all: &impl Numbered) {
        let Some(timed) = all.timed(number) else { return };
        let due = (timed.deadline.load(Ordering::Relaxed) / STEP).saturating_add(1);
        let step = due.clamp(self.cursor.saturating_add(1), self.cursor.saturating_add(SLOTS - 1));
        let slot = step % SLOTS;
        let Some(items) = self.slots.get_mut(slot as usize) else { return };
        // Fewer connections than INDEX_BITS can count.
        let index = u32::try_from(items.len()).unwrap_or(INDEX_MASK) & INDEX_MASK;
        timed.place.store(slot << INDEX_BITS | index, Ordering::Relaxed);
        timed.due.store(step.saturating_mul(STEP), Ordering::Relaxed);
        items.push(number);
    }

    /// Takes a connection out. Gives whether it was in.
    pub(crate) fn remove(&mut self, number: u32, all: &impl Numbered) -> bool {
        let Some(timed) = all.timed(number) else { return false };
        let place = timed.place.swap(NOWHERE, Ordering::Relaxed);
        let index = (place & INDEX_MASK) as usize;
        let Some(items) = self.slots.get_mut((place >> INDEX_BITS) as usize) else { return false };
        if place == NOWHERE || items.get(index) != Some(&number) {
            return false;
        }
        items.swap_remove(index);
        if let Some(moved) = items.get(index).and_then(|moved| all.timed(*moved)) {
            moved.place.store(place, Ordering::Relaxed);
        }
        true
    }

    /// Looks at what is due, at most `budget` of them; takes out those that are to be forgotten, which the caller removes
    /// from the table or puts in again. Gives what is left of the budget.
    pub(crate) fn advance(
        &mut self,
        now: u32,
        mut budget: usize,
        all: &impl Numbered,
        over: &mut Vec<u32>,
    ) -> usize {
        let target = now / STEP;
        // After a long sleep one round is enough to have seen everything.
        self.cursor = self.cursor.max(target.saturating_sub(SLOTS));
        while self.cursor < target && budget > 0 {
            self.cursor += 1;
            let Some(items) = self.slots.get_mut((self.cursor % SLOTS) as usize) else { break };
            let left = items.len().saturating_sub(budget);
            let looked = items.split_off(left);
            budget -= looked.len();
            for number in looked {
                let Some(timed) = all.timed(number) else { continue };
                if timed.deadline.load(Ordering::Relaxed) <= now {
                    timed.place.store(NOWHERE, Ordering::Relaxed);
                    over.push(number);
                } else {
                    self.add(number, all);
                }
            }
            if left > 0 {
                self.cursor -= 1;
                break;
            }
        }
        budget
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct All(Vec<Timed>);

    impl Numbered for All {
        fn timed(&self, number: u32) -> Option<&Timed> {
            self.0.get(number as usize)
        }
    }

    proptest! {
        /// Against a plain list of deadlines: what is over is found within two slots, and nothing else, whatever is put
        /// in, taken out and moved meanwhile, and however small the budget.
        #[test]
        fn finds_what_is_over_and_nothing_else(
            steps in prop::collection::vec((0..5_u8, 0..20_u32, 0..900_u32), 1..200),
            budget in 1..10_usize,
        ) {
            let all = All((0..20).map(|_| Timed::default()).collect());
            let (mut wheel, mut inside, mut now) = (Wheel::default(), [false; 20], 0_u32);
            for (what, number, time) in steps {
                let at = number as usize;
                match what {
                    0 if !inside[at] => {
                        all.0[at].deadline.store(now + time, Ordering::Relaxed);
                        wheel.add(number, &all);
                        inside[at] = true;
                    }
                    1 => {
                        wheel.remove(number, &all);
                        inside[at] = false;
                    }
                    2 if inside[at] => {
                        all.0[at].deadline.store(now + time, Ordering::Relaxed);
                        if all.0[at].is_misplaced() {
                            wheel.remove(number, &all);
                            wheel.add(number, &all);
                        }
                    }
                    _ => {
                        now += time;
                        for _ in 0..1000 {
                            let mut over = Vec::new();
                            let left = wheel.advance(now, budget, &all, &mut over);
                            for number in over {
                                let at = number as usize;
                                prop_assert!(std::mem::replace(&mut inside[at], false));
                                prop_assert!(all.0[at].deadline.load(Ordering::Relaxed) <= now);
                            }
                            if left > 0 {
                                break;
                            }
                        }
                        for (at, inside) in inside.iter().enumerate() {
                            let deadline = all.0[at].deadline.load(Ordering::Relaxed);
                            prop_assert!(!inside || deadline + 5 * STEP > now, "{at}: {deadline} at {now}");
                        }
                    }
                }
            }
            let kept = wheel.slots.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(kept, inside.iter().filter(|inside| **inside).count());
        }
    }
}
