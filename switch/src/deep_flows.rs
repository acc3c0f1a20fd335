//! Steps 1 and 2 of a burst where something reads more of a frame than addresses and VLAN.
//!
//! The same as [`crate::flows`] does, with [`crate::deep`]'s keys: a frame gets an outcome and, besides, the number of a plan
//! ([`crate::plan`]) whose operations the engine carries out before it delivers. Frames one behind the other of one flow
//! cost one look-up, and are counted to it at once.

use fabnic_port::{BURST, Burst, DropReason, Frame};

use crate::cache::{Outcome, Target};
use crate::deep::{DeepCache, DeepKey, Found, Read, Remember, Under};
use crate::engine::Moment;
use crate::flows::{Flows, Walked, size};
use crate::plan::Plans;
use crate::stage::{self, Seen, egress};
use crate::topology::Member;

/// One worker's deep flows, and what is to be done with the frames of the burst in work.
pub(crate) struct Deep {
    pub(crate) cache: DeepCache,
    pub(crate) plans: Plans,
    /// The plan of each frame.
    plan_of: Box<[u32; BURST]>,
    /// What its plan is told of the flow of each frame.
    handle_of: Box<[u32; BURST]>,
    /// Frames that have a plan, one bit each.
    pub(crate) worked: u64,
    /// Raised when the cache is to be forgotten as a whole.
    pub(crate) generation: u32,
    /// Generation of the topology that the cache is good for.
    of_topology: u32,
}

/// Frames of one flow, one behind the other.
struct Run {
    key: DeepKey,
    found: Found,
    frames: u64,
    bytes: u64,
}

impl Deep {
    pub(crate) fn new(flow_cache_max: usize, secret: [u64; 2]) -> Deep {
        Deep {
            cache: DeepCache::new(flow_cache_max, secret),
            plans: Plans::new(),
            plan_of: Box::new([0; BURST]),
            handle_of: Box::new([0; BURST]),
            worked: 0,
            generation: 1,
            of_topology: 0,
        }
    }

    /// The plan of a frame of the burst.
    #[inline(always)]
    pub(crate) fn plan(&self, frame: usize) -> u32 {
        self.plan_of.get(frame).copied().unwrap_or(0)
    }

    /// What its plan is told of its flow.
    #[inline(always)]
    #[expect(dead_code, reason = "for operations on connections")]
    pub(crate) fn handle(&self, frame: usize) -> u32 {
        self.handle_of.get(frame).copied().unwrap_or(0)
    }

    /// Forgets all flows and plans.
    fn forget(&mut self, now: u32) {
        self.plans.settle(now);
        self.plans.clear();
        self.generation = self.generation.wrapping_add(1).max(1);
    }

    fn settle(&mut self, run: Option<Run>) {
        if let Some(Run { found, frames, bytes, .. }) = run {
            self.cache.count(found.place, frames, bytes);
            self.plans.count(found.plan, frames, bytes);
        }
    }

    #[inline(always)]
    fn note(&mut self, frame: usize, found: &Found) {
        if let (Some(plan), Some(handle)) = (self.plan_of.get_mut(frame), self.handle_of.get_mut(frame)) {
            (*plan, *handle) = (found.plan, found.handle);
        }
        self.worked |= u64::from(found.plan != 0) << (frame % BURST);
    }
}

impl Flows {
    /// As [`Flows::decide`], by deep keys.
    #[inline(never)]
    pub(crate) fn decide_deep(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        burst: &mut Burst,
    ) -> (Option<Target>, Walked) {
        self.note_moment(at);
        if self.deep.of_topology != at.topology.generation {
            self.deep.of_topology = at.topology.generation;
            self.deep.forget(at.now);
        }
        let mask = &at.topology.mask;
        if self.deep.cache.is_large() {
            for frame in burst.frames() {
                if let Some(read) = DeepKey::read(frame, ingress.1, mask) {
                    self.deep.cache.prefetch(&read.key);
                }
            }
        }
        let limit = egress::longest(ingress.0);
        let (mut any, mut all) = (0, u32::MAX);
        let mut walked = Walked::default();
        let mut run: Option<Run> = None;
        (self.tagged, self.longest, self.bytes, self.deep.worked) = (0, 0, 0, 0);
        for (index, frame) in burst.frames_mut().iter_mut().enumerate() {
            let len = u64::from(frame.len());
            self.bytes += len;
            let read = match (frame.marked(), DeepKey::read(frame, ingress.1, mask)) {
                (None, Some(read)) => read,
                (marked, _) => {
                    if marked.is_none() {
                        frame.mark(DropReason::Runt);
                    }
                    walked.gone += 1;
                    // No way at all: the burst is not uniform.
                    (any, all) = (u32::MAX, 0);
                    self.put(index, Outcome::default());
                    self.deep.note(index, &Found::NOTHING);
                    continue;
                }
            };
            if let Some(tci) = read.tci {
                self.tagged |= 1_u64 << (index % BURST);
                if let Some(tag) = self.tags.get_mut(index) {
                    *tag = tci;
                }
            }
            let size = size(frame, read.tci.is_some());
            self.longest = size.max(self.longest);
            let found = match &mut run {
                Some(run) if run.key == read.key && size <= limit => {
                    run.frames += 1;
                    run.bytes += len;
                    run.found
                }
                _ => {
                    let ended = run.take();
                    self.deep.settle(ended);
                    let (found, remembered) =
                        self.look_up(at, ingress, frame, &read, size > limit, &mut walked);
                    let begun = Run { key: read.key, found, frames: 1, bytes: len };
                    if remembered {
                        run = Some(begun);
                    } else {
                        self.deep.settle(Some(begun));
                    }
                    found
                }
            };
            any |= found.outcome.way();
            all &= found.outcome.way();
            self.put(index, found.outcome);
            self.deep.note(index, &found);
        }
        self.deep.settle(run);
        let uniform = (any == all).then(|| self.outcome(0).map(|outcome| outcome.target()));
        (uniform.flatten(), walked)
    }

    /// What is decided for a flow, from the cache or by a walk, and whether it may be used for the next frame too.
    fn look_up(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        frame: &mut Frame,
        read: &Read,
        too_long: bool,
        walked: &mut Walked,
    ) -> (Found, bool) {
        let under = Under { generation: self.deep.generation, tick: at.now, stamp: self.stamp };
        if !too_long
            && let Some(found) = self.deep.cache.find(&read.key, &at.tables.versions, under, self.refresh)
        {
            return (found, true);
        }
        walked.misses += 1;
        let seen = Seen { head: frame.head(), len: frame.len(), too_long };
        let decision = stage::decide(at, ingress, &seen, &mut self.left, false);
        let outcome = Outcome::new(decision.target, decision.vlan);
        let Some(plan) = self.deep.plans.intern(&mut self.left.ops) else {
            // Too many at once: some 20 ms from now there is room again.
            frame.mark(DropReason::Overload);
            return (Found::NOTHING, false);
        };
        let mut found = Found { outcome, plan, handle: self.left.handle, place: u32::MAX };
        if self.left.uncached {
            return (found, false);
        }
        let remember = Remember { outcome, plan, handle: found.handle, depends: decision.depends };
        found.place = self.deep.cache.insert(&read.key, &remember, under);
        (found, true)
    }

    fn put(&mut self, frame: usize, outcome: Outcome) {
        if let Some(place) = self.outcomes.get_mut(frame) {
            *place = outcome;
        }
    }

    /// What is due now and then: counters are handed over, plans that are too many forgotten.
    pub(crate) fn housekeeping(&mut self, now: u32) {
        self.grow_if_crowded();
        self.deep.cache.grow_if_crowded();
        self.deep.plans.settle(now);
        if self.deep.plans.are_many() {
            self.deep.forget(now);
            self.stamp += 1;
        }
    }
}
