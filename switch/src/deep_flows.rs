//! Steps 1 and 2 of a burst where something reads more of a frame than addresses and VLAN.
//!
//! The same as [`crate::flows`] does, with [`crate::deep`]'s keys: a frame gets an outcome and, besides, the number of a plan
//! ([`crate::plan`]) whose operations the engine carries out before it delivers, and is told to its connections, as far as
//! their protocol wants to see each packet.

use fabnic_memory::{Map, Slice};
use fabnic_port::{BURST, Burst, DropReason, Frame};
use fabnic_wire::{Fields, Vid};

use crate::body::Body;
use crate::cache::{Outcome, Target};
use crate::conntrack::{Conntrack, Handle, Packet, Tracked, TrackedRun};
use crate::deep::{Decided, DeepCache, Found, Owed, Remember, Under};
use crate::deep_key::{About, DeepKey, KeyMask, PLAIN, Read, ShortKey};
use crate::engine::Moment;
use crate::flows::{Flows, Walked, size};
use crate::needs::Needs;
use crate::plan::{Op, Plans};
use crate::rules::{self, Concerns, Connection, Input, Parties};
use crate::stage::{self, Seen};
use crate::topology::Member;

/// Steady flows that are looked at in one go between bursts: at most some 0.2 ms.
const SETTLED_AT_ONCE: usize = 2048;

/// Where the frames of a burst lie behind their heads.
type Memory<'a> = (&'a [Slice], &'a Map);

/// One worker's deep flows, and what is to be done with the frames of the burst in work.
pub(crate) struct Deep {
    pub(crate) cache: DeepCache,
    pub(crate) plans: Plans,
    /// What was found for each frame of the burst.
    found: Box<[Found; BURST]>,
    /// Where a large cache has the flow of each frame, as far as tags tell.
    ahead: Box<[u32; BURST]>,
    /// What the frames of the burst have in common.
    pub(crate) common: Common,
    /// Raised when the cache is to be forgotten as a whole.
    pub(crate) generation: u32,
    /// Generation of the topology that the cache is good for.
    of_topology: u32,
    /// What changes of rules concern all flows of the burst in work: [`Concerns::of_ingress`].
    concern: u32,
}

impl Deep {
    pub(crate) fn new(flow_cache_max: usize, secret: [u64; 2]) -> Deep {
        Deep {
            cache: DeepCache::new(flow_cache_max, secret),
            plans: Plans::new(),
            found: Box::new([Found::NOTHING; BURST]),
            ahead: Box::new([0; BURST]),
            common: Common::default(),
            generation: 1,
            of_topology: 0,
            concern: 0,
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
            *found = Found::NOTHING;
            found.decided.mark = *mark;
        }
        self.common = Common::default();
    }

    /// Forgets all flows and plans.
    fn forget(&mut self, now: u32) {
        self.plans.settle(now);
        self.plans.clear();
        self.generation = self.generation.wrapping_add(1).max(1);
    }

    /// How many frames from this one on are of the same flow; one, if it is not in the cache.
    #[inline]
    fn same_flow(&self, from: usize) -> usize {
        let left = self.found.get(from..).unwrap_or(&[]);
        match left.first() {
            Some(first) if first.place != u32::MAX => {
                left.iter().take_while(|found| found.place == first.place).count()
            }
            _ => 1,
        }
    }

    /// Those of some frames that are not of the flow at a place.
    fn without(&self, frames: u64, place: u32) -> u64 {
        let mut rest = frames;
        for (index, found) in self.found.iter().enumerate() {
            rest &= !(u64::from(found.place == place) << index);
        }
        rest
    }

    /// Takes frames of one flow into account on its connection, with what the flow owes it: those from `at` on, `count` of
    /// them, of a burst of which none is counted yet.
    fn track_run(
        &mut self,
        moment: &Moment<'_>,
        handle: Handle,
        (at, count): (usize, usize),
        frames: &[Frame],
    ) -> TrackedRun {
        let Found { decided, place } = self.found(at);
        let run = frames.get(at..at + count).unwrap_or(&[]);
        let Owed { frames: owed, bytes } = self.cache.owed(place);
        let (owed, plain) = ((owed.into(), bytes), self.common.is_plain);
        let tracked = moment.tables.conntrack.track_run(handle, (run, plain), owed, moment.now);
        if !tracked.steady {
            self.cache.is_not_steady(place);
            return tracked;
        }
        // Some of the flow may have gone before, and have been told one by one.
        let of_flow =
            frames.iter().zip(self.found.iter()).take(at + count).filter(|(_, found)| found.place == place);
        let told =
            of_flow.fold((0, 0), |(count, bytes), (frame, _)| (count + 1, bytes + u64::from(frame.len())));
        self.cache.becomes_steady((place, decided.handles), told, moment.now);
        tracked
    }

    /// Pays what flows owe to their connections: those that were steady before this second, or all.
    pub(crate) fn settle(&mut self, conntrack: &Conntrack, now: Option<u32>, budget: usize) {
        self.cache.settle(now, budget, |handles, owed| pay(conntrack, handles, owed));
    }

    /// How many frames of so many, from this one on, have the same plan; and that plan.
    pub(crate) fn same_plan(&self, from: usize, until: usize) -> (usize, u32) {
        let left = self.found.get(from..until).unwrap_or(&[]);
        match (self.common.plan, left.first()) {
            (Some(plan), _) => (left.len(), plan),
            (None, Some(first)) => {
                let plan = first.decided.plan;
                (left.iter().take_while(|found| found.decided.plan == plan).count(), plan)
            }
            (None, None) => (0, 0),
        }
    }

    /// Finds where the cache may have the burst's flows, and asks for these lines.
    #[inline(never)]
    fn look_ahead(&mut self, ingress: (u32, [u8; 2]), mask: &KeyMask, burst: &Burst, counting: bool) {
        let Deep { cache, ahead, .. } = self;
        let mut hashes = [0; BURST];
        for (frame, hash) in burst.frames().iter().zip(&mut hashes) {
            // A runt has no key, and is not looked for.
            let Some(read) = DeepKey::read(frame, ingress, mask) else { continue };
            *hash = cache.hash(&read.key);
            cache.ask_tags(*hash);
        }
        for (hash, ahead) in hashes.iter().zip(ahead.iter_mut()).take(burst.frames().len()) {
            *ahead = cache.look_ahead(*hash, counting);
        }
    }

    /// Counts the frames of the burst to their flows.
    #[inline(never)]
    fn count(&mut self, burst: &Burst) {
        let Deep { cache, found, .. } = self;
        for (frame, found) in burst.frames().iter().zip(found.iter()) {
            cache.count(found.place, frame.len());
        }
    }
}

/// What the frames of a burst have in common, told while they are looked up: where it is so, nothing needs to look at each
/// again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Common {
    /// Their plan.
    pub(crate) plan: Option<u32>,
    /// Some of them has a plan, or is marked.
    pub(crate) is_worked: bool,
    /// All of them are plain TCP or UDP over IPv4: one segment each, nothing left to be done to them, none marked.
    pub(crate) is_plain: bool,
}

/// Whether what was decided on some frames is all the same: the outcome, and plan with mark.
#[derive(Clone, Copy)]
struct Alike {
    any: [u64; 2],
    all: [u64; 2],
}

impl Alike {
    const NONE: Alike = Alike { any: [0; 2], all: [u64::MAX; 2] };

    #[inline(always)]
    fn note(&mut self, decided: &Decided) {
        for ((any, all), word) in self.any.iter_mut().zip(&mut self.all).zip(decided.words()) {
            *any |= word;
            *all &= word;
        }
    }

    /// The frames have no way in common.
    fn part(&mut self) {
        (self.any[0], self.all[0]) = (u64::MAX, 0);
    }

    /// They all go the same way.
    fn one_way(&self) -> bool {
        self.any[0] as u32 == self.all[0] as u32
    }

    fn plan(&self) -> Option<u32> {
        (self.any[1] == self.all[1]).then_some(self.any[1] as u32)
    }

    /// Some of them has a plan.
    fn is_worked(&self) -> bool {
        self.any[1] as u32 != 0
    }
}

/// Frames about which nothing is unusual: where they go, and what was seen on the way.
struct Run<'a> {
    limit: u32,
    ingress: u64,
    mask: &'a KeyMask,
    alike: Alike,
    longest: u32,
    bytes: u64,
}

impl Run<'_> {
    /// Decides on frames up to the first that is unusual, or that the first entries of its set do not decide on. Gives
    /// how many.
    #[inline(never)]
    fn go<const TCP_FLAGS: bool, const LARGE: bool>(
        &mut self,
        done: usize,
        frames: &[Frame],
        places: &mut Places<'_>,
        cache: &mut DeepCache,
        (under, sums): (&Under, &Sums<'_>),
    ) -> usize {
        let Run { limit, ingress, mask, mut alike, mut longest, mut bytes } = *self;
        let mut count = 0;
        let outcomes = places.outcomes.get_mut(done..).unwrap_or(&mut []);
        let founds = places.found.get_mut(done..).unwrap_or(&mut []);
        let ahead = places.ahead.get(done..).unwrap_or(&[]);
        for (((frame, outcome), found), ahead) in frames.iter().zip(outcomes).zip(founds).zip(ahead) {
            let size = frame.len();
            let Some(first) = frame.plain_chunk::<PLAIN>().filter(|_| size <= limit) else { break };
            let flags = if TCP_FLAGS { Some(frame.head()) } else { None };
            let Some(key) = ShortKey::of(first, flags, ingress, mask) else { break };
            let sum = |outcome| sums.of(&key.about(), outcome);
            let known = match LARGE {
                false => cache.glance(&key, under, sum),
                true => cache.glance_at(*ahead, &key, under, sum),
            };
            let Some((decided, place)) = known else { break };
            alike.note(decided);
            *outcome = decided.outcome;
            *found = Found { decided: *decided, place };
            longest = size.max(longest);
            bytes += u64::from(size);
            count += 1;
        }
        (self.alike, self.longest, self.bytes) = (alike, longest, bytes);
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

/// Tells a connection what went through one of its flows.
fn pay(conntrack: &Conntrack, handles: [u32; 2], owed: Owed) {
    if let Some(handle) = only(handles) {
        conntrack.credit(handle, (owed.frames.into(), owed.bytes));
    }
}

/// The bits of frames from this one on.
fn from(frame: usize) -> u64 {
    u32::try_from(frame).ok().and_then(|frame| u64::MAX.checked_shl(frame)).unwrap_or(0)
}

/// The connection, if it is only one.
#[inline]
fn only(handles: [u32; 2]) -> Option<Handle> {
    match handles {
        [one, 0] | [0, one] => Handle::from_number(one),
        _ => None,
    }
}

/// What changes of rules can concern the flows of a burst.
struct Sums<'a> {
    concerns: &'a Concerns,
    of_ingress: u32,
    /// The cells of the ports that frames leave by; without rules about that, none.
    egress: &'a [[u32; 2]],
}

impl<'a> Sums<'a> {
    fn new(at: &Moment<'a>, of_ingress: u32) -> Sums<'a> {
        let rules = &at.tables.rules;
        let egress: &[_] = if rules.has_out() { &at.topology.egress_cells } else { &[] };
        Sums { concerns: rules.concerns(), of_ingress, egress }
    }

    /// The sum of a flow, now.
    #[inline(always)]
    fn of(&self, flow: &About, outcome: Outcome) -> u32 {
        let egress = self.egress.get(outcome.way() as usize);
        let egress = egress.map_or(0, |cells| self.concerns.of_egress(*cells));
        self.of_ingress.wrapping_add(self.concerns.of_flow(flow)).wrapping_add(egress)
    }
}

/// Whether rules see of the frames of a plan what the frames have: behind a rewrite they do not.
fn is_judged(plans: &Plans, plan: u32) -> bool {
    plans.ops(plan).is_some_and(|ops| !ops.iter().any(|op| matches!(op, Op::Rewrite(_) | Op::Unjudged)))
}

/// Where what was decided is kept.
struct Places<'a> {
    outcomes: &'a mut [Outcome; BURST],
    found: &'a mut [Found; BURST],
    ahead: &'a [u32; BURST],
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
        let is_large = self.deep.cache.is_large();
        if is_large {
            let counting = at.topology.needs.intersects(Needs::FLOWS | Needs::CONNECTIONS);
            self.deep.look_ahead((ingress.1, ingress.0.tpid), &at.topology.mask, burst, counting);
        }
        let member = ingress.0;
        let concerns = at.tables.rules.concerns();
        self.deep.concern = concerns.of_ingress(member.port.id, member.settings.tenant);
        let sums = Sums::new(at, self.deep.concern);
        let generation = self.deep.generation;
        let under = Under { generation, tick: at.now, stamp: self.stamp, epoch: self.epoch };
        let mut walked = Walked::default();
        let mut run = Run {
            limit: ingress.0.longest,
            ingress: u64::from(ingress.1) << 32,
            mask: &at.topology.mask,
            alike: Alike::NONE,
            longest: 0,
            bytes: 0,
        };
        self.tagged = 0;
        let (frames, memory) = match burst.source().is_some() {
            true => match burst.parts() {
                Some((frames, slices, map)) => (frames, Some((slices, map))),
                None => return (None, walked),
            },
            false => (burst.frames_mut(), None),
        };
        let (mut done, mut plain, mut marked) = (0, 0, false);
        while let Some(left) = frames.get_mut(done..).filter(|left| !left.is_empty()) {
            let Deep { cache, found, ahead, .. } = &mut self.deep;
            let mut places = Places { outcomes: &mut self.outcomes, found, ahead };
            let went = match (at.topology.mask.tcp_flags, is_large) {
                (false, false) => run.go::<false, false>(done, left, &mut places, cache, (&under, &sums)),
                (false, true) => run.go::<false, true>(done, left, &mut places, cache, (&under, &sums)),
                (true, false) => run.go::<true, false>(done, left, &mut places, cache, (&under, &sums)),
                (true, true) => run.go::<true, true>(done, left, &mut places, cache, (&under, &sums)),
            };
            (done, plain) = (done + went, plain + went);
            let Some(frame) = frames.get_mut(done).filter(|_| done < BURST) else { break };
            run.bytes += u64::from(frame.len());
            let found = match self.special_deep(at, ingress, (frame, memory), done, &mut walked) {
                Some((size, found)) => {
                    run.longest = size.max(run.longest);
                    run.alike.note(&found.decided);
                    found
                }
                None => {
                    run.alike.note(&Found::NOTHING.decided);
                    // No way at all: the burst is not uniform.
                    run.alike.part();
                    marked = true;
                    Found::NOTHING
                }
            };
            if let (Some(outcome), Some(place)) = (self.outcomes.get_mut(done), self.deep.found.get_mut(done))
            {
                (*outcome, *place) = (found.decided.outcome, found);
            }
            done += 1;
        }
        let alike = run.alike;
        self.deep.common =
            Common { plan: alike.plan(), is_worked: alike.is_worked() || marked, is_plain: plain == done };
        let mut one_way = alike.one_way();
        if at.topology.needs.contains(Needs::CONNECTIONS)
            && !self.track(at, ingress, (frames, memory), &mut walked)
        {
            // Some have another way than was thought, or none.
            one_way = false;
        }
        (self.longest, self.bytes) = (run.longest, run.bytes);
        if at.topology.needs.intersects(Needs::FLOWS | Needs::CONNECTIONS) {
            self.deep.count(burst);
        }
        let uniform = one_way.then(|| self.outcome(0).map(|outcome| outcome.target()));
        (uniform.flatten(), walked)
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
        let mut all = true;
        let count = frames.len().min(BURST);
        let mut left = self.deep.cache.untold(self.deep.found.get(..count).unwrap_or(&[]), at.now);
        while left != 0 {
            let mut done = left.trailing_zeros() as usize;
            let Found { decided: Decided { handles, .. }, place } = self.deep.found(done);
            let mut good = false;
            if let Some(handle) = only(handles) {
                let same = self.deep.same_flow(done).min(count - done);
                let tracked = self.deep.track_run(at, handle, (done, same), frames);
                if tracked.steady {
                    // Also those further behind.
                    left = self.deep.without(left, place);
                    continue;
                }
                left &= from(done + tracked.valid);
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
            left &= from(done + 1);
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
        let handles = found.decided.handles;
        if handles != [0; 2] && !goes_with(at, frame, handles) && frame.marked().is_none() {
            // Another worker has ended the connection this very moment.
            frame.mark(DropReason::CtInvalid);
        }
        if let (Some(outcome), Some(place)) = (self.outcomes.get_mut(index), self.deep.found.get_mut(index)) {
            (*outcome, *place) = (found.decided.outcome, found);
        }
        // Where it is marked, the engine must see to it.
        let marked = frame.marked().is_some();
        let common = &mut self.deep.common;
        common.is_worked |= found.decided.plan != 0 || marked;
        common.is_plain &= !marked;
        common.plan = None;
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
        let sums = Sums::new(at, self.deep.concern);
        let Deep { cache, plans, .. } = &mut self.deep;
        let judge = |made: u64, Decided { outcome, plan, .. }: Decided| {
            // Behind a rewrite rules saw other fields than the frame has.
            if !is_judged(plans, plan) {
                return false;
            }
            let egress = match outcome.target() {
                Target::Port(index) => match at.topology.member(index) {
                    Some(member) => Some(member),
                    None => return false,
                },
                Target::Flood | Target::Drop(_) => None,
            };
            let parties = Parties {
                ingress: ingress.0.settings.tenant,
                egress: egress.and_then(|member| member.settings.tenant),
            };
            let flow = read.key.about();
            let cells = rules.concerns().of(
                &flow,
                (ingress.0.port.id, parties.ingress),
                egress.map(|member| (member.port.id, parties.egress)),
            );
            rules.still_good((made, under.epoch), (&flow, &cells), parties, || {
                let fields = Fields::of(frame.head())?;
                Some(rules::Key::of(&Input {
                    fields: &fields,
                    ingress: ingress.0.port.id,
                    egress: egress.map(|member| member.port.id),
                    vlan: Vid::new(outcome.vid()).ok()?,
                    mark: 0,
                    // Neither mark nor connection are compared.
                    connection: Connection::default(),
                }))
            })
        };
        if !too_long
            && let Some(found) = cache.find(
                &read.key,
                &at.tables.versions,
                under,
                self.refresh,
                |outcome| sums.of(&read.key.about(), outcome),
                judge,
            )
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
        let mut found = Found { decided: Decided { outcome, plan, mark, handles }, place: u32::MAX };
        if self.left.uncached {
            return found;
        }
        let sum = Sums::new(at, self.deep.concern).of(&read.key.about(), outcome);
        // Of a change that has begun by now, cells may be counted that the walk has not seen the rules of.
        let is_whole = at.tables.rules.concerns().begun() == self.epoch;
        let concern = Some(sum).filter(|_| is_whole && is_judged(&self.deep.plans, plan));
        let remember = Remember { decided: found.decided, depends: decision.depends, concern };
        let conntrack = &at.tables.conntrack;
        found.place = self.deep.cache.insert(&read.key, &remember, under, |handles, owed| {
            pay(conntrack, handles, owed);
        });
        found
    }

    /// What is due now and then: counters are handed over, plans that are too many forgotten.
    pub(crate) fn housekeeping(&mut self, conntrack: &Conntrack, now: u32) {
        self.grow_if_crowded();
        self.deep.settle(conntrack, Some(now), SETTLED_AT_ONCE);
        self.deep.cache.grow_if_crowded(|handles, owed| pay(conntrack, handles, owed));
        self.deep.plans.settle(now);
        if self.deep.plans.are_many() {
            self.deep.forget(now);
            self.stamp += 1;
        }
    }
}
