//! Steps 1 and 2 of a burst where something reads more of a frame than addresses and VLAN.
//!
//! The same as [`crate::flows`] does, with [`crate::deep`]'s keys: a frame gets an outcome and, besides, the number of a plan
//! ([`crate::plan`]) whose operations the engine carries out before it delivers. Frames one behind the other of one flow
//! cost one look-up, and are counted to it at once.

use fabnic_memory::{Map, Slice};
use fabnic_port::{BURST, Burst, DropReason, Frame};
use fabnic_wire::{Fields, Vid};

use crate::body::Body;
use crate::cache::{Outcome, Target};
use crate::conntrack::{Handle, Packet, Tracked};
use crate::deep::{DeepCache, DeepKey, Found, PLAIN, Read, Remember, Under};
use crate::engine::Moment;
use crate::flows::{Flows, Walked, size};
use crate::needs::Needs;
use crate::plan::{Op, Plans};
use crate::rules::{self, Connection, Input, Parties};
use crate::stage::{self, Seen};
use crate::topology::Member;

/// Where the frames of a burst lie behind their heads.
type Memory<'a> = (&'a [Slice], &'a Map);

/// One worker's deep flows, and what is to be done with the frames of the burst in work.
pub(crate) struct Deep {
    pub(crate) cache: DeepCache,
    pub(crate) plans: Plans,
    /// What was found for each frame of the burst.
    found: Box<[Found; BURST]>,
    /// Frames that have a plan, one bit each.
    pub(crate) worked: u64,
    /// Raised when the cache is to be forgotten as a whole.
    pub(crate) generation: u32,
    /// Generation of the topology that the cache is good for.
    of_topology: u32,
}

impl Deep {
    pub(crate) fn new(flow_cache_max: usize, secret: [u64; 2]) -> Deep {
        Deep {
            cache: DeepCache::new(flow_cache_max, secret),
            plans: Plans::new(),
            found: Box::new([Found::NOTHING; BURST]),
            worked: 0,
            generation: 1,
            of_topology: 0,
        }
    }

    /// What was found for a frame of the burst: its plan, and what that is told of its flow.
    #[inline(always)]
    pub(crate) fn found(&self, frame: usize) -> Found {
        self.found.get(frame).copied().unwrap_or(Found::NOTHING)
    }

    /// Takes up the marks of a flood that was put aside.
    pub(crate) fn recall(&mut self, marks: &[u32; BURST]) {
        for (found, mark) in self.found.iter_mut().zip(marks) {
            *found = Found { mark: *mark, ..Found::NOTHING };
        }
    }

    /// Forgets all flows and plans.
    fn forget(&mut self, now: u32) {
        self.plans.settle(now);
        self.plans.clear();
        self.generation = self.generation.wrapping_add(1).max(1);
    }

    /// Counts the frames of the burst to their flows, those of one flow one behind the other at once.
    #[inline(never)]
    fn count(&mut self, burst: &Burst) {
        let Deep { cache, found, .. } = self;
        let (mut place, mut frames, mut bytes) = (u32::MAX, 0, 0);
        for (frame, found) in burst.frames().iter().zip(found.iter()) {
            if found.place != place {
                cache.count(place, frames, bytes);
                (place, frames, bytes) = (found.place, 0, 0);
            }
            frames += 1;
            bytes += u64::from(frame.len());
        }
        cache.count(place, frames, bytes);
    }
}

/// Frames about which nothing is unusual: where they go, and what was seen on the way.
struct Run<'a> {
    limit: u32,
    ingress: u64,
    mask: &'a [u64; 8],
    /// TTL or TCP flags are read.
    more: bool,
    /// The last key that was looked up, and what was found.
    key: DeepKey,
    last: Found,
    any: u32,
    all: u32,
    longest: u32,
    bytes: u64,
    worked: u64,
}

impl Run<'_> {
    /// Goes on behind a frame that was decided otherwise.
    fn note(&mut self, index: usize, found: Found) {
        self.any |= found.outcome.way();
        self.all &= found.outcome.way();
        self.worked |= u64::from(found.plan != 0) << (index % BURST);
        self.key = NO_KEY;
    }

    /// Decides on frames up to the first that is unusual, or that the first entries of its set do not decide on. Gives
    /// how many.
    #[inline(never)]
    fn go(
        &mut self,
        done: usize,
        frames: &[Frame],
        places: &mut Places<'_>,
        cache: &DeepCache,
        stamp: u64,
    ) -> usize {
        let Run { limit, ingress, mask, more, .. } = *self;
        let (mut key, mut last) = (self.key, self.last);
        let (mut any, mut all, mut worked) = (self.any, self.all, 0_u64);
        let (mut longest, mut bytes) = (self.longest, self.bytes);
        let mut count = 0;
        let outcomes = places.outcomes.get_mut(done..).unwrap_or(&mut []);
        let founds = places.found.get_mut(done..).unwrap_or(&mut []);
        for ((frame, outcome), found) in frames.iter().zip(outcomes).zip(founds) {
            let size = frame.len();
            let Some(first) = frame.plain_chunk::<PLAIN>().filter(|_| size <= limit) else { break };
            let flags = if more { frame.head().get(47).copied() } else { None };
            let Some(this) = DeepKey::of_plain(first, ingress, mask, flags) else { break };
            if !this.is(&key) {
                let Some(looked_up) = cache.glance(&this, stamp) else { break };
                (key, last) = (this, looked_up);
            }
            any |= last.outcome.way();
            all &= last.outcome.way();
            worked |= u64::from(last.plan != 0) << count;
            *outcome = last.outcome;
            *found = last;
            longest = size.max(longest);
            bytes += u64::from(size);
            count += 1;
        }
        (self.key, self.last) = (key, last);
        (self.any, self.all) = (any, all);
        self.worked |= worked.checked_shl(done as u32).unwrap_or(0);
        (self.longest, self.bytes) = (longest, bytes);
        count
    }
}

/// Whether a packet goes with all these connections; it is counted on them.
#[inline]
fn goes_with(at: &Moment<'_>, frame: &Frame, handles: [u32; 2]) -> bool {
    let Some(packet) = Packet::of_frame(frame.head(), frame.len()) else { return false };
    handles.into_iter().filter_map(Handle::from_number).all(|handle| {
        matches!(at.tables.conntrack.track(handle, &packet, at.now), Tracked::Valid { .. } | Tracked::Last)
    })
}

/// The connection, if it is only one.
#[inline]
fn only(handles: [u32; 2]) -> Option<Handle> {
    match handles {
        [one, 0] | [0, one] => Handle::from_number(one),
        _ => None,
    }
}

/// No frame has this key: its flags contradict each other.
const NO_KEY: DeepKey = DeepKey([u64::MAX; 8]);

/// Where what was decided is kept.
struct Places<'a> {
    outcomes: &'a mut [Outcome; BURST],
    found: &'a mut [Found; BURST],
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
        if self.deep.cache.is_large() {
            self.look_ahead_deep((ingress.1, ingress.0.tpid), &at.topology.mask, burst);
        }
        let mut walked = Walked::default();
        let mut run = Run {
            limit: ingress.0.longest,
            ingress: u64::from(ingress.1) << 32,
            mask: &at.topology.mask,
            more: at.topology.needs.intersects(Needs::TTL | Needs::TCP_FLAGS),
            key: NO_KEY,
            last: Found::NOTHING,
            any: 0,
            all: u32::MAX,
            longest: 0,
            bytes: 0,
            worked: 0,
        };
        self.tagged = 0;
        let (frames, memory) = match burst.source().is_some() {
            true => match burst.parts() {
                Some((frames, slices, map)) => (frames, Some((slices, map))),
                None => return (None, walked),
            },
            false => (burst.frames_mut(), None),
        };
        let mut done = 0;
        while let Some(left) = frames.get_mut(done..).filter(|left| !left.is_empty()) {
            let mut places = Places { outcomes: &mut self.outcomes, found: &mut self.deep.found };
            done += run.go(done, left, &mut places, &self.deep.cache, self.stamp);
            let Some(frame) = frames.get_mut(done).filter(|_| done < BURST) else { break };
            run.bytes += u64::from(frame.len());
            let found = match self.special_deep(at, ingress, (frame, memory), done, &mut walked) {
                Some((size, found)) => {
                    run.longest = size.max(run.longest);
                    run.note(done, found);
                    found
                }
                None => {
                    run.note(done, Found::NOTHING);
                    // No way at all: the burst is not uniform.
                    (run.any, run.all) = (u32::MAX, 0);
                    Found::NOTHING
                }
            };
            if let (Some(outcome), Some(place)) = (self.outcomes.get_mut(done), self.deep.found.get_mut(done))
            {
                (*outcome, *place) = (found.outcome, found);
            }
            done += 1;
        }
        self.deep.worked = run.worked;
        if at.topology.needs.contains(Needs::CONNECTIONS)
            && !self.track(at, ingress, (frames, memory), &mut walked)
        {
            // Some have another way than was thought, or none.
            (run.any, run.all) = (u32::MAX, 0);
        }
        (self.longest, self.bytes) = (run.longest, run.bytes);
        if at.topology.needs.contains(Needs::FLOWS) {
            self.deep.count(burst);
        }
        let uniform = (run.any == run.all).then(|| self.outcome(0).map(|outcome| outcome.target()));
        (uniform.flatten(), walked)
    }

    /// Asks for the cache lines of the burst's flows.
    #[inline(never)]
    fn look_ahead_deep(&self, ingress: (u32, [u8; 2]), mask: &[u64; 8], burst: &Burst) {
        for frame in burst.frames() {
            if let Some(read) = DeepKey::read(frame, ingress, mask) {
                self.deep.cache.prefetch(&read.key);
            }
        }
    }

    /// Decides on a frame that is not as nearly all are. Gives its size; `None` if it is marked.
    #[inline(never)]
    fn special_deep(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        (frame, memory): (&mut Frame, Option<Memory<'_>>),
        index: usize,
        walked: &mut Walked,
    ) -> Option<(u32, Found)> {
        if frame.marked().is_some() {
            walked.gone += 1;
            return None;
        }
        let Some(read) = DeepKey::read(frame, (ingress.1, ingress.0.tpid), &at.topology.mask) else {
            frame.mark(DropReason::Runt);
            walked.gone += 1;
            return None;
        };
        if let Some(tci) = read.tci {
            self.tagged |= 1_u64 << (index % BURST);
            if let Some(tag) = self.tags.get_mut(index) {
                *tag = tci;
            }
        }
        let size = size(frame, read.tci.is_some());
        let too_long = size > ingress.0.longest;
        let found = self.look_up(at, ingress, (frame, memory), &read, too_long, walked);
        // Where there was no room for a plan, it is marked now.
        frame.marked().is_none().then_some((size, found))
    }

    /// Counts packets on their connections, those of one connection one behind the other at once. A packet that contradicts
    /// its connections, or whose connection has ended, is decided on by itself: what was decided for its flow is for packets
    /// that go with the connection. `false` if there was one.
    #[inline(never)]
    fn track(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        (frames, memory): (&mut [Frame], Option<Memory<'_>>),
        walked: &mut Walked,
    ) -> bool {
        let (mut done, mut all) = (0, true);
        while done < frames.len().min(BURST) {
            let handles = self.deep.found(done).handles;
            if handles == [0; 2] {
                done += 1;
                continue;
            }
            let mut good = false;
            if let Some(handle) = only(handles) {
                let others = self.deep.found.get(done + 1..).unwrap_or(&[]);
                let run = 1 + others.iter().take_while(|found| found.handles == handles).count();
                let run = frames.get(done..).map_or(&[][..], |left| left.get(..run).unwrap_or(left));
                let tracked = at.tables.conntrack.track_run(handle, run, at.now);
                done += tracked.valid;
                good = match tracked.then {
                    Some(then) => then == Tracked::Last,
                    None if tracked.valid > 0 => continue,
                    // One that is looked at by itself.
                    None => frames.get(done).is_some_and(|frame| goes_with(at, frame, handles)),
                };
            } else if let Some(frame) = frames.get(done) {
                good = goes_with(at, frame, handles);
            }
            if let Some(frame) = frames.get_mut(done).filter(|_| !good) {
                self.decide_again(at, ingress, (frame, memory), done, walked);
                all = false;
            }
            done += 1;
        }
        all
    }

    #[cold]
    fn decide_again(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        (frame, memory): (&mut Frame, Option<Memory<'_>>),
        index: usize,
        walked: &mut Walked,
    ) {
        let Some(read) = DeepKey::read(frame, (ingress.1, ingress.0.tpid), &at.topology.mask) else { return };
        let too_long = size(frame, read.tci.is_some()) > ingress.0.longest;
        let found = self.walk_deep(at, ingress, (frame, memory), &read, walked, too_long);
        if found.handles != [0; 2] && !goes_with(at, frame, found.handles) && frame.marked().is_none() {
            // Another worker has ended the connection this very moment.
            frame.mark(DropReason::CtInvalid);
        }
        if let (Some(outcome), Some(place)) = (self.outcomes.get_mut(index), self.deep.found.get_mut(index)) {
            (*outcome, *place) = (found.outcome, found);
        }
        // Where it is marked, the engine must see to it.
        let worked = found.plan != 0 || frame.marked().is_some();
        let bit = 1_u64 << (index % BURST);
        self.deep.worked = if worked { self.deep.worked | bit } else { self.deep.worked & !bit };
    }

    /// What is decided for a flow, from the cache or by a walk.
    fn look_up(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        (frame, memory): (&mut Frame, Option<Memory<'_>>),
        read: &Read,
        too_long: bool,
        walked: &mut Walked,
    ) -> Found {
        let rules = &at.tables.rules;
        let generation = self.deep.generation;
        let under = Under { generation, tick: at.now, stamp: self.stamp, epoch: self.epoch };
        let Deep { cache, plans, .. } = &mut self.deep;
        let judge = |made: u64, outcome: Outcome, plan: u32| {
            // Behind a rewrite rules saw other fields than the frame has.
            if plans.ops(plan)?.iter().any(|op| matches!(op, Op::Rewrite(_) | Op::Unjudged)) {
                return None;
            }
            let fields = Fields::of(frame.head())?;
            let egress = match outcome.target() {
                Target::Port(index) => Some(at.topology.member(index)?),
                Target::Flood | Target::Drop(_) => None,
            };
            let input = Input {
                fields: &fields,
                ingress: ingress.0.port.id,
                egress: egress.map(|member| member.port.id),
                vlan: Vid::new(outcome.vid()).ok()?,
                mark: 0,
                // Neither mark nor connection are compared.
                connection: Connection::default(),
            };
            let parties = Parties {
                ingress: ingress.0.settings.tenant,
                egress: egress.and_then(|member| member.settings.tenant),
            };
            rules.still_good(made, &rules::Key::of(&input), parties)
        };
        if !too_long
            && let Some(found) = cache.find(&read.key, &at.tables.versions, under, self.refresh, judge)
        {
            return found;
        }
        self.walk_deep(at, ingress, (frame, memory), read, walked, too_long)
    }

    fn walk_deep(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        (frame, memory): (&mut Frame, Option<Memory<'_>>),
        read: &Read,
        walked: &mut Walked,
        too_long: bool,
    ) -> Found {
        let under =
            Under { generation: self.deep.generation, tick: at.now, stamp: self.stamp, epoch: self.epoch };
        walked.misses += 1;
        let body = memory.map_or(Body::Unknown, |(slices, map)| Body::Memory(frame.rest(slices), map));
        let seen = Seen { body, ..Seen::head_only(frame, too_long) };
        let decision = stage::decide(at, ingress, &seen, &mut self.left, false);
        let outcome = Outcome::new(decision.target, decision.vlan);
        let Some(plan) = self.deep.plans.intern(&mut self.left.ops) else {
            // Too many at once: some 20 ms from now there is room again.
            frame.mark(DropReason::Overload);
            return Found::NOTHING;
        };
        let (handles, mark) = (self.left.handles, self.left.mark);
        let mut found = Found { outcome, plan, handles, mark, place: u32::MAX };
        if self.left.uncached {
            return found;
        }
        let remember = Remember { outcome, plan, handles, mark, depends: decision.depends };
        found.place = self.deep.cache.insert(&read.key, &remember, under);
        found
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
