//! Steps 1 and 2 of a burst: from frames to outcomes.
//!
//! ```text
//!   frames --> key --> place in the cache --> hit of this moment: one compare --> outcome of each
//!      |                                      +-- else revalidated, or walked ----^
//!      +-- special: tagged, large, short, marked (out of the line) ---------------^
//! ```
//!
//! What nearly every frame is (untagged, one segment, within the MTU, of a flow that was decided before) stays in one
//! loop ([`Run::go`]); what is not leaves it for a moment. While the cache is small it is in the CPU's; when it has grown,
//! another loop runs ahead and asks for the lines of all flows of the burst.

use fabnic_port::{BURST, Burst, DropReason, Frame};
use fabnic_wire::{EtherType, Tci};

use crate::cache::{FlowCache, Outcome, Target, When};
use crate::deep_flows::Deep;
use crate::engine::Moment;
use crate::fdb::Tick;
use crate::floods::Current;
use crate::key::{self, Key};
use crate::stage::{self, Left, Seen};
use crate::topology::Member;

/// EtherTypes of the tags by which ports tell VLANs.
const CUSTOMER: u16 = EtherType::VLAN.0;
const SERVICE: u16 = EtherType::QINQ.0;

/// Frames of a burst that were no hits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walked {
    /// The stages were walked for them.
    pub(crate) misses: u64,
    /// They were marked, and nothing was decided.
    pub(crate) gone: u64,
}

/// One worker's flows, and what became of those of the burst in work.
pub(crate) struct Flows {
    cache: FlowCache,
    pub(crate) outcomes: Box<[Outcome; BURST]>,
    /// The tag that each frame came with, as far as [`Flows::tagged`] says that it did.
    pub(crate) tags: Box<[u16; BURST]>,
    /// Which frames came with a tag, one bit each.
    pub(crate) tagged: u64,
    /// The longest size in the burst: see [`size`].
    pub(crate) longest: u32,
    /// Bytes in the burst.
    pub(crate) bytes: u64,
    /// What the stamp stands for: the topology's generation, the FDB's changes, the tick.
    moment: (u32, u32, Tick),
    /// The epoch of the rules in the burst in work. It is no part of the moment: most flows are not concerned by a rule that
    /// changes ([`crate::rules::Concerns`]).
    pub(crate) epoch: u64,
    /// Raised when the moment is another one. Looked at once a burst, so that a flow that was decided in a burst keeps its
    /// decision to the burst's end, whatever other workers learn meanwhile: else its frames could overtake each other.
    pub(crate) stamp: u64,
    /// Ticks after which a live flow refreshes its source in the FDB.
    pub(crate) refresh: Tick,
    /// Flows told apart by more than addresses and VLAN.
    pub(crate) deep: Deep,
    /// What walks leave behind.
    pub(crate) left: Left,
}

impl Flows {
    pub(crate) fn new(flow_cache_max: usize, secret: [u64; 2], refresh: Tick) -> Flows {
        Flows {
            cache: FlowCache::new(flow_cache_max, secret),
            outcomes: Box::new([Outcome::default(); BURST]),
            tags: Box::new([0; BURST]),
            tagged: 0,
            longest: 0,
            bytes: 0,
            moment: (0, 0, 0),
            epoch: 0,
            stamp: 0,
            refresh,
            deep: Deep::new(flow_cache_max, secret),
            left: Left::default(),
        }
    }

    /// Grows the cache if it has become crowded. May allocate.
    pub(crate) fn grow_if_crowded(&mut self) {
        self.cache.grow_if_crowded();
    }

    /// Flows that the cache can hold now.
    pub(crate) fn capacity(&self) -> usize {
        self.cache.capacity().max(self.deep.cache.capacity())
    }

    /// Raises the stamp if this moment is another one.
    pub(crate) fn note_moment(&mut self, at: &Moment<'_>) {
        self.epoch = at.tables.rules.epoch();
        let moment = (at.topology.generation, at.tables.versions.changes(), at.now);
        if moment != self.moment || self.stamp == 0 {
            self.moment = moment;
            self.stamp += 1;
        }
    }

    /// What was decided on a frame of the burst.
    #[inline(always)]
    pub(crate) fn outcome(&self, frame: usize) -> Option<Outcome> {
        self.outcomes.get(frame).copied()
    }

    /// The tag that it came with.
    #[inline(always)]
    pub(crate) fn tag(&self, frame: usize) -> Option<Tci> {
        match self.tagged & (1_u64 << (frame % BURST)) {
            0 => None,
            _ => self.tags.get(frame).map(|tci| Tci(*tci)),
        }
    }

    /// Takes up what was decided on the frames of a flood that was put aside.
    pub(crate) fn recall(&mut self, flood: &Current, frames: usize) {
        for outcome in self.outcomes.iter_mut().take(frames) {
            *outcome = Outcome::new(Target::Flood, flood.vlan);
        }
        self.deep.recall(&flood.marks);
        *self.tags = flood.tags;
        (self.tagged, self.longest) = (flood.came, flood.longest);
    }

    /// Decides on all frames. Gives the target if it is one port for all of them.
    pub(crate) fn decide(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        burst: &mut Burst,
    ) -> (Option<Target>, Walked) {
        self.note_moment(at);
        let when = When { generation: at.topology.generation, tick: at.now, stamp: self.stamp };
        if self.cache.is_large() {
            self.look_ahead(ingress.1, burst);
        }
        let mut walked = Walked::default();
        let mut run = Run::new(ingress);
        let customer = ingress.0.tpid == CUSTOMER.to_be_bytes();
        self.tagged = 0;
        let frames = burst.frames_mut();
        let mut done = 0;
        while let Some(left) = frames.get_mut(done..).filter(|left| !left.is_empty()) {
            let outcomes = self.outcomes.get_mut(done..).unwrap_or(&mut []);
            // Two loops, each with its EtherType in its instructions.
            done += match customer {
                true => run.go::<CUSTOMER>(left, outcomes, &self.cache, when.stamp),
                false => run.go::<SERVICE>(left, outcomes, &self.cache, when.stamp),
            };
            let (Some(frame), Some(_)) = (frames.get_mut(done), self.outcomes.get(done)) else { break };
            let special = self.special(at, ingress, when, frame, done, &mut walked);
            run.bytes += u64::from(frame.len());
            let outcome = match special {
                Some((size, outcome)) => {
                    run.longest = size.max(run.longest);
                    run.note(outcome);
                    outcome
                }
                None => {
                    // No way at all: the burst is not uniform.
                    (run.any, run.all) = (u32::MAX, 0);
                    Outcome::default()
                }
            };
            if let Some(place) = self.outcomes.get_mut(done) {
                *place = outcome;
            }
            done += 1;
        }
        (self.longest, self.bytes) = (run.longest, run.bytes);
        let uniform = (run.any == run.all).then(|| self.outcomes.first().map(Outcome::target));
        (uniform.flatten(), walked)
    }

    /// Asks for the cache lines of the burst's flows.
    #[inline(never)]
    fn look_ahead(&self, ingress: u32, burst: &Burst) {
        for frame in burst.frames() {
            if let Some(first) = frame.plain_start() {
                self.cache.prefetch(&Key::untagged(first, ingress));
            }
        }
    }

    /// Decides on a frame that is not as nearly all are. Gives its size; `None` if it is marked.
    #[inline(never)]
    fn special(
        &mut self,
        at: &Moment<'_>,
        ingress: (&Member, u32),
        when: When,
        frame: &mut Frame,
        index: usize,
        walked: &mut Walked,
    ) -> Option<(u32, Outcome)> {
        if frame.marked().is_some() {
            walked.gone += 1;
            return None;
        }
        let Some((key, tci)) = Key::read(frame, ingress.1, ingress.0.tpid) else {
            frame.mark(DropReason::Runt);
            walked.gone += 1;
            return None;
        };
        if key.is_tagged() {
            self.tagged |= 1_u64 << (index % BURST);
            if let Some(tag) = self.tags.get_mut(index) {
                *tag = tci;
            }
        }
        let size = size(frame, key.is_tagged());
        if size > ingress.0.longest {
            // The frame's own decision, not the flow's: it is not remembered.
            walked.misses += 1;
            let seen = Seen::head_only(frame, true);
            let decision = stage::decide(at, ingress, &seen, &mut self.left, false);
            return Some((size, Outcome::new(decision.target, decision.vlan)));
        }
        let outcome = self.cache.hit(&key, &at.tables.versions, when, self.refresh).unwrap_or_else(|| {
            walked.misses += 1;
            let seen = Seen::head_only(frame, false);
            let decision = stage::decide(at, ingress, &seen, &mut self.left, false);
            self.cache.insert(&key, &decision, when)
        });
        Some((size, outcome))
    }
}

/// Frames one behind the other about which nothing is unusual: where they go, and what was seen on the way.
struct Run {
    /// The longest frame that the sender may send.
    limit: u32,
    /// The index of the ingress port, where keys have it.
    ingress: u64,
    /// The last key that was looked up, and what was found.
    key: (u64, u64),
    last: Outcome,
    /// Bits that any frame's way has, and that all have: the same if all go the same way.
    any: u32,
    all: u32,
    longest: u32,
    bytes: u64,
}

impl Run {
    fn new(ingress: (&Member, u32)) -> Run {
        Run {
            limit: ingress.0.longest,
            ingress: u64::from(ingress.1) << 32,
            // No frame has this key: it is another port's.
            key: (0, !(u64::from(ingress.1) << 32)),
            last: Outcome::default(),
            any: 0,
            all: u32::MAX,
            longest: 0,
            bytes: 0,
        }
    }

    /// Goes on behind a frame that was decided otherwise.
    fn note(&mut self, outcome: Outcome) {
        self.any |= outcome.way();
        self.all &= outcome.way();
        // The next frame must not be taken for one of the flow before.
        self.key = (0, !self.ingress);
    }

    /// Decides on frames up to the first that is unusual, or that the first entries of its set do not decide on. Gives
    /// how many.
    #[inline(never)]
    fn go<const TPID: u16>(
        &mut self,
        frames: &[Frame],
        outcomes: &mut [Outcome],
        cache: &FlowCache,
        stamp: u64,
    ) -> usize {
        let cache = cache.view();
        let Run { limit, ingress, .. } = *self;
        let (mut key, mut last) = (self.key, self.last);
        let (mut any, mut all) = (self.any, self.all);
        let (mut longest, mut bytes) = (self.longest, self.bytes);
        let mut done = 0;
        for (frame, place) in frames.iter().zip(outcomes) {
            let size = frame.len();
            let Some(first) =
                frame.plain_start().filter(|first| size <= limit && !key::has_tag(first, TPID.to_be_bytes()))
            else {
                break;
            };
            let this = key::halves(first, ingress);
            if this != key {
                let Some(outcome) = cache.find(this, stamp) else { break };
                (key, last) = (this, outcome);
            }
            any |= last.way();
            all &= last.way();
            *place = last;
            longest = size.max(longest);
            bytes += u64::from(size);
            done += 1;
        }
        (self.key, self.last) = (key, last);
        (self.any, self.all, self.longest, self.bytes) = (any, all, longest, bytes);
        done
    }
}

/// Length of a frame without its tag; of a frame to be segmented, the length of its longest segment.
#[inline]
pub(crate) fn size(frame: &Frame, is_tagged: bool) -> u32 {
    let offload = frame.offload();
    let size = match offload.is_gso() {
        true => u32::from(offload.hdr_len) + u32::from(offload.gso_size),
        false => frame.len(),
    };
    if is_tagged { size.saturating_sub(4) } else { size }
}
