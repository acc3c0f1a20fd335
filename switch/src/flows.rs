//! Steps 1 and 2 of a burst: from frames to outcomes.
//!
//! ```text
//!   frames --read--> key, place in the cache (its line on the way), size, tag --decide--> outcome of each
//!             |                                                                  ^
//!             +-- special: tagged, large, short, dropped (out of the line)       +-- hit of this moment: one compare
//!                                                                                +-- else revalidated, or walked
//! ```
//!
//! Two loops, so that the cache lines of all flows of a burst are on their way before the first is looked at. What nearly
//! every frame is (untagged, one segment, within the MTU, of a flow that was decided before) stays in the loops; what is
//! not leaves them by a call.

use fabnic_port::{BURST, Burst, DropReason, Frame};

use crate::cache::{FlowCache, Outcome, Target, When};
use crate::fdb::{Fdb, Tick};
use crate::key::{self, Key};
use crate::stage::{self, egress};
use crate::topology::{Member, Topology};

/// What was read of one frame.
#[derive(Clone, Copy, Default)]
struct Read {
    key: Key,
    place: u32,
    /// Length without tag; of a frame to be segmented, the length of its longest segment; 0 of one that is dropped.
    size: u32,
    tci: u16,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Same flow as the frame before it.
    #[default]
    Same,
    /// To be looked up.
    Fresh,
    /// Dropped already, or, if its size is beyond the MTU, to be decided by itself and not remembered.
    Special,
}

/// Of how many frames of a burst what was the case.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walked {
    /// The stages were walked.
    pub(crate) misses: u64,
    /// They were dropped before.
    pub(crate) gone: u64,
}

/// One worker's flows, and what became of those of the burst in work.
pub(crate) struct Flows {
    cache: FlowCache,
    reads: Box<[Read; BURST]>,
    outcomes: Box<[Outcome; BURST]>,
    /// Which frames came with a tag, one bit each.
    pub(crate) tagged: u64,
    /// The longest size in the burst.
    pub(crate) longest: u32,
    /// Bytes in the burst.
    pub(crate) bytes: u64,
    /// What the stamp stands for: the topology's generation, the FDB's changes, the tick.
    moment: (u32, u32, Tick),
    /// Raised when the moment is another one. Looked at once a burst, so that a flow that was decided in a burst keeps its
    /// decision to the burst's end, whatever other workers learn meanwhile: else its frames could overtake each other.
    stamp: u64,
    /// Ticks after which a live flow refreshes its source in the FDB.
    pub(crate) refresh: Tick,
}

impl Flows {
    pub(crate) fn new(flow_cache_max: usize, secret: [u64; 2], refresh: Tick) -> Flows {
        Flows {
            cache: FlowCache::new(flow_cache_max, secret),
            reads: Box::new([Read::default(); BURST]),
            outcomes: Box::new([Outcome::default(); BURST]),
            tagged: 0,
            longest: 0,
            bytes: 0,
            moment: (0, 0, 0),
            stamp: 0,
            refresh,
        }
    }

    /// Grows the cache if it has become crowded. May allocate.
    pub(crate) fn grow_if_crowded(&mut self) {
        self.cache.grow_if_crowded();
    }

    /// Flows that the cache can hold now.
    pub(crate) fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// What was decided on a frame of the burst.
    #[inline(always)]
    pub(crate) fn outcome(&self, frame: usize) -> Option<Outcome> {
        self.outcomes.get(frame).copied()
    }

    /// Its length without tag; of a frame to be segmented, the length of its longest segment.
    #[inline(always)]
    pub(crate) fn size(&self, frame: usize) -> u32 {
        self.reads.get(frame).map_or(0, |read| read.size)
    }

    /// The tag that it came with, or 0.
    #[inline(always)]
    pub(crate) fn tci(&self, frame: usize) -> u16 {
        self.reads.get(frame).map_or(0, |read| read.tci)
    }

    /// Step 1.
    #[inline(never)]
    pub(crate) fn read(&mut self, member: &Member, ingress: u32, burst: &mut Burst) {
        let limit = egress::longest(member);
        let cache = self.cache.places();
        // No frame has this key: it is another port's.
        let none = Key { front: 0, back: u64::from(!ingress) << 32, tag: 0 };
        let mut last = none;
        let (mut tagged, mut longest, mut bytes) = (0, 0, 0);
        for (index, (frame, read)) in burst.frames_mut().iter_mut().zip(self.reads.iter_mut()).enumerate() {
            let size = frame.len();
            bytes += u64::from(size);
            match frame.plain_start() {
                Some(first) if size <= limit && !key::has_tag(first) => {
                    longest = size.max(longest);
                    (read.size, read.tci) = (size, 0);
                    let key = Key::untagged(first, ingress);
                    if key == last {
                        read.state = State::Same;
                        continue;
                    }
                    (read.key, read.state) = (key, State::Fresh);
                    read.place = cache.place(&key);
                    last = key;
                }
                _ => {
                    *read = special(frame, ingress, limit);
                    tagged |= u64::from(read.key.is_tagged()) << index;
                    longest = read.size.max(longest);
                    if read.state == State::Special {
                        // The outcome before the next frame's will be this one's, not its flow's.
                        last = none;
                    } else if read.key == last {
                        read.state = State::Same;
                    } else {
                        read.place = cache.place(&read.key);
                        last = read.key;
                    }
                }
            }
        }
        (self.tagged, self.longest, self.bytes) = (tagged, longest, bytes);
    }

    /// Step 2. Gives the target if it is one port for all frames.
    #[inline(never)]
    pub(crate) fn decide(
        &mut self,
        topology: &Topology,
        fdb: &Fdb,
        now: Tick,
        ingress: (&Member, u32),
        frames: usize,
    ) -> (Option<Target>, Walked) {
        let moment = (topology.generation, fdb.changes(), now);
        if moment != self.moment || self.stamp == 0 {
            self.moment = moment;
            self.stamp += 1;
        }
        let when = When { generation: topology.generation, tick: now, stamp: self.stamp };
        let mut walked = Walked::default();
        let mut last = Outcome::default();
        // Equal at the end if all went the same way.
        let (mut lowest, mut highest) = (u32::MAX, 0);
        let reads = self.reads.get(..frames).unwrap_or(&[]);
        for (read, outcome) in reads.iter().zip(self.outcomes.iter_mut()) {
            if read.state == State::Fresh {
                let found = self.cache.find(read.place, &read.key);
                last = match found.and_then(|entry| entry.good(fdb, when, self.refresh)) {
                    Some(good) => good,
                    // A miss, something stale, or a flow whose source must be refreshed in the FDB, which the walk does
                    // too.
                    None => {
                        let decision = stage::decide(topology, fdb, now, ingress, &read.key, false);
                        walked.misses += 1;
                        self.cache.insert(read.place, &read.key, &decision, when)
                    }
                };
            } else if read.state == State::Special {
                if read.size == 0 {
                    // No way at all: the burst is not uniform.
                    (lowest, highest) = (0, u32::MAX);
                    walked.gone += 1;
                } else {
                    let decision = stage::decide(topology, fdb, now, ingress, &read.key, true);
                    walked.misses += 1;
                    last = Outcome::new(decision.target, decision.vlan);
                }
            }
            *outcome = last;
            lowest = lowest.min(last.way());
            highest = highest.max(last.way());
        }
        let uniform = (lowest == highest).then(|| self.outcomes.first().map(Outcome::target));
        (uniform.flatten(), walked)
    }
}

/// Reads a frame that is not as nearly all are.
#[inline(never)]
fn special(frame: &mut Frame, ingress: u32, limit: u32) -> Read {
    let gone = Read { state: State::Special, ..Read::default() };
    if frame.drop.is_some() {
        return gone;
    }
    let Some((key, tci)) = Key::read(frame, ingress) else {
        frame.drop = Some(DropReason::Runt);
        return gone;
    };
    let mut size = match frame.offload.is_gso() {
        true => u32::from(frame.offload.hdr_len) + u32::from(frame.offload.gso_size),
        false => frame.len(),
    };
    if key.is_tagged() {
        size = size.saturating_sub(4);
    }
    let state = if size > limit { State::Special } else { State::Fresh };
    Read { key, place: 0, size, tci, state }
}
