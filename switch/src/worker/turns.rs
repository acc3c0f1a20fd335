//! A worker's rounds where something says when whose ring is read: rates, guarantees, priorities, weights, shares.
//!
//! ```text
//!   round: begin --> next: a queue --> allowance --> receive at most so many, deliver --> charge, and where it went
//!                      ^                   '------------ again, up to some bursts ------------'
//!                      '--- end of its turn
//! ```
//!
//! The decisions are the scheduler's ([`crate::shaper`]); here are the queues. Where no port has such settings the worker
//! does not come here, and goes round its queues as they stand.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use fabnic_memory::clock;
use fabnic_port::BURST;

use super::{BURSTS_A_VISIT, Visit, Worker, charge_of, gather};
use crate::engine::Moment;
use crate::shaper::Scheduler;
use crate::topology::Topology;

/// A worker that may read none of its queues for longer than this sleeps, in nanoseconds.
const WORTH_SLEEPING_NS: u64 = 100_000;

impl Worker {
    /// Gives all queues on the list to a new scheduler, or to none if the topology needs none.
    pub(super) fn schedule(&mut self, topology: &Topology) {
        self.scheduler = topology.is_shaped.then(Box::default);
        self.burst.set_wanted(BURST);
        let Some(scheduler) = &mut self.scheduler else { return };
        for queue in &mut self.active {
            let shaper = topology.member(queue.member).and_then(|member| member.meters.shaper.clone());
            queue.slot = scheduler.add(queue.token.port.0, shaper);
        }
    }

    /// Visits queues in the order and to the amount that the scheduler says; gives the frames moved, and how long there is
    /// certainly nothing to do.
    #[inline(never)]
    pub(super) fn round_in_turns(
        &mut self,
        topology: &Topology,
        mut scheduler: Box<Scheduler>,
    ) -> (u64, Duration) {
        let mut total = 0;
        let tsc = clock::tsc();
        let now = clock::nanoseconds(tsc);
        for queue in &self.active {
            let wait = queue.next_look.saturating_sub(tsc);
            scheduler.put_off(queue.slot, if wait == 0 { 0 } else { now + clock::nanoseconds(wait) });
        }
        scheduler.begin(now);
        let idle = match scheduler.is_idle() {
            true => scheduler.next_time().saturating_sub(now),
            false => 0,
        };
        let mut now = now;
        while let Some(slot) = scheduler.next(now) {
            let Some(index) = self.active.iter().position(|queue| queue.slot == slot) else { break };
            let visit =
                catch_unwind(AssertUnwindSafe(|| self.visit_in_turn(topology, index, &mut scheduler)));
            now = clock::nanoseconds(clock::tsc());
            match visit {
                Ok(Visit::Frames(frames)) => {
                    total += frames;
                    if self.engine.has_floods() {
                        total += self.slice(topology);
                    }
                }
                Ok(Visit::Nothing) => {}
                Ok(Visit::Leave) => {
                    scheduler.remove(slot);
                    self.leave(index);
                }
                Err(_) => {
                    scheduler.remove(slot);
                    self.panicked(topology, index);
                }
            }
        }
        if self.engine.has_floods() {
            total += self.slice(topology);
        }
        self.burst.set_wanted(BURST);
        self.scheduler = Some(scheduler);
        let idle = if idle > WORTH_SLEEPING_NS { Duration::from_nanos(idle) } else { Duration::ZERO };
        (total, idle)
    }

    fn visit_in_turn(&mut self, topology: &Topology, index: usize, scheduler: &mut Scheduler) -> Visit {
        let tsc = clock::tsc();
        let Some(queue) = self.active.get_mut(index) else { return Visit::Leave };
        let Some(member) = topology.member(queue.member) else { return Visit::Leave };
        let Some(cell) = member.port.ingress().get(usize::from(queue.token.queue)) else {
            return Visit::Leave;
        };
        if member.port.is_stopped() {
            return Visit::Leave;
        }
        let mut guard = cell.lock();
        let Some(ingress) = guard.as_mut() else { return Visit::Leave };
        let slot = queue.slot;
        let mut now_ns = clock::nanoseconds(tsc);
        if ingress.backlog() == 0
            && let Some(left) = super::nothing(queue, ingress.as_mut(), tsc, self.counts_a_us)
        {
            scheduler.end_turn(slot, now_ns, true);
            return left;
        }
        let (mut total, mut is_drained) = (0, false);
        for _ in 0..BURSTS_A_VISIT {
            let wanted = scheduler.allowance(slot, now_ns);
            if wanted == 0 {
                break;
            }
            self.burst.set_wanted(wanted);
            let now = self.switch.tick.load(Ordering::Relaxed);
            let at = Moment { topology, tables: &self.switch.tables, now, now_ns };
            let (frames, received) =
                self.engine.serve(&at, queue.member, cell, ingress.as_mut(), &mut self.burst);
            if frames > 0 {
                scheduler.charge(slot, now_ns, charge_of(&self.burst), frames);
                scheduler.heads(slot, self.engine.take_toward(), frames);
                self.shared.counters.burst(frames);
                total += frames as u64;
            }
            if let Err(fault) = received {
                tracing::warn!(port = %member.port.name, queue = queue.token.queue, %fault, "port stopped");
                member.port.stop(fault);
                return Visit::Leave;
            }
            is_drained = frames < wanted;
            if is_drained {
                break;
            }
            now_ns = clock::nanoseconds(clock::tsc());
        }
        scheduler.end_turn(slot, now_ns, is_drained);
        queue.next_look = 0;
        if total == 0 {
            return Visit::Nothing;
        }
        queue.last_frame = tsc;
        self.shared.counters.frames.add(total);
        queue.since_drain += total;
        if is_drained {
            gather(queue, self.counts_a_us);
        }
        Visit::Frames(total)
    }
}
