//! Flows told apart by more than addresses and VLAN: their exact key and their cache.
//!
//! The same idea as [`crate::cache`], with a wider key and a richer entry: a key of one cache line, and behind it, in the
//! second line, the decision with the plan that goes with it and up to four versions that it depends on.
//!
//! ```text
//!   line 1   key ([`crate::deep_key`])
//!   line 2   | stamp | outcome plan mark handles | generation seen | four slots | four values | epoch |
//! ```
//!
//! # Invariants
//! * An entry with an older generation is as good as empty: another topology, or plans that were forgotten since.
//! * Counters of a flow are beside the entries, not in them: they are written once for a run of frames.
//! * A flow is *steady* in the second in which its connection was told of one of its packets, and the next of them would do
//!   nothing but count (`conntrack`: no TCP). Those are counted here, and the connection is told in the next second. A flow that
//!   is steady is in the list of those; what is owed is paid before an entry is used for another decision.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::cache::Outcome;
use crate::deep_key::{DeepKey, ShortKey};
use crate::versions::{Version, Versions};

const WAYS: usize = 4;
const FIRST_SETS: usize = 256;

/// How many versions a decision may depend on.
pub(crate) const DEPENDENCIES: usize = 4;

/// What was decided on a flow, as far as its frames need it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Decided {
    pub(crate) outcome: Outcome,
    /// Number of its plan; 0: nothing to be done.
    pub(crate) plan: u32,
    /// What rules have marked its frames with.
    pub(crate) mark: u32,
    /// The connections that its packets are tracked on, by their handles; 0 for none.
    pub(crate) handles: [u32; 2],
}

impl Decided {
    /// Outcome; plan and mark; connections.
    #[inline(always)]
    pub(crate) fn words(&self) -> [u64; 3] {
        zerocopy::transmute!(*self)
    }
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remember {
    pub(crate) decided: Decided,
    pub(crate) depends: [Version; DEPENDENCIES],
}

/// Under what it was decided or is to be judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Under {
    pub(crate) generation: u32,
    pub(crate) tick: u32,
    pub(crate) stamp: u64,
    /// Epoch of the rules.
    pub(crate) epoch: u64,
}

/// A flow that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) decided: Decided,
    /// Where it is, for [`DeepCache::count`].
    pub(crate) place: u32,
}

impl Found {
    /// Nothing was decided, and nothing is to be done.
    pub(crate) const NOTHING: Found = Found {
        decided: Decided { outcome: Outcome::NOTHING, plan: 0, mark: 0, handles: [0; 2] },
        place: u32::MAX,
    };
}

/// Two cache lines.
#[derive(FromZeros)]
#[repr(C, align(64))]
struct Entry {
    key: DeepKey,
    /// The moment at which the entry was last found good.
    stamp: u64,
    decided: Decided,
    /// 0 in an entry that was never used.
    generation: u32,
    /// Tick at which the source was last refreshed in the FDB.
    seen: u32,
    slots: [u16; DEPENDENCIES],
    values: [u32; DEPENDENCIES],
    /// Lower half of the epoch of the rules that it was made under.
    epoch: u32,
}

impl Entry {
    /// Looks at all that the decision depends on, and stamps the entry if it is good. `judge` is asked about one that was made
    /// under an older epoch of the rules: whether it is good, and up to which epoch.
    fn revalidate(
        &mut self,
        versions: &Versions,
        under: Under,
        refresh: u32,
        judge: impl FnOnce(u64, &Entry) -> Option<u64>,
    ) -> bool {
        let current = |(slot, value): (&u16, &u32)| versions.value(u32::from(*slot)) == *value;
        let good = self.generation == under.generation
            && self.slots.iter().zip(&self.values).all(current)
            && under.tick.wrapping_sub(self.seen) < refresh;
        if !good {
            return false;
        }
        let behind = (under.epoch as u32).wrapping_sub(self.epoch);
        if behind != 0 {
            let Some(until) = judge(under.epoch.saturating_sub(behind.into()), self) else { return false };
            self.epoch = until as u32;
        }
        self.stamp = under.stamp;
        true
    }
}

/// What went through a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub(crate) struct FlowCount {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Of these the connection of a steady flow knows so many; lower half.
    told_frames: u32,
    /// The second in which the flow is steady, plus one; 0: it is not.
    steady: u32,
    told_bytes: u64,
}

impl FlowCount {
    fn owed(&self) -> Owed {
        if self.steady == 0 {
            return Owed::default();
        }
        let frames = (self.frames as u32).wrapping_sub(self.told_frames);
        Owed { frames, bytes: self.bytes.wrapping_sub(self.told_bytes) }
    }
}

/// What a connection was not told yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) frames: u32,
    pub(crate) bytes: u64,
}

/// The most flows that are steady at once: a packet of others is tracked by itself.
const MOST_STEADY: usize = 1 << 16;

/// The cache of one worker.
pub(crate) struct DeepCache {
    sets: Vec<[Entry; WAYS]>,
    /// By place.
    counts: Vec<FlowCount>,
    max_sets: usize,
    secret: [u64; 8],
    crowded: usize,
    victim: usize,
    /// Places of steady flows, and of some that were. Never grows beyond its first capacity.
    steady: Vec<u32>,
    /// Where [`DeepCache::settle`] goes on.
    cursor: usize,
}

impl DeepCache {
    /// A cache that may grow to hold `max` flows (rounded up to a power of two).
    pub(crate) fn new(max: usize, secret: [u64; 2]) -> DeepCache {
        let max_sets = (max / WAYS).clamp(FIRST_SETS, 1 << 25).next_power_of_two();
        // Eight out of two: a step of SplitMix64 for each.
        let mut state = secret[0] ^ secret[1].rotate_left(32);
        let secret = [(); 8].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        });
        let mut cache = DeepCache {
            sets: Vec::new(),
            counts: Vec::new(),
            max_sets,
            secret,
            crowded: 0,
            victim: 0,
            steady: Vec::new(),
            cursor: 0,
        };
        cache.resize(FIRST_SETS);
        cache
    }

    fn resize(&mut self, sets: usize) {
        // Zeroed memory straight from the system: pages that are never hit are never touched.
        let entries = <[Entry; WAYS]>::new_vec_zeroed(sets).unwrap_or_default();
        let counts = FlowCount::new_vec_zeroed(sets * WAYS).unwrap_or_default();
        if entries.len() == sets && counts.len() == sets * WAYS {
            (self.sets, self.counts) = (entries, counts);
        }
    }

    /// The set of a key with this hash, and the way in it that is looked at first: were that always the same one, a few
    /// flows would crowd into a few of the CPU's own cache lines.
    #[inline(always)]
    fn place(&self, hash: u64) -> (usize, usize) {
        (hash as usize & self.sets.len().wrapping_sub(1), (hash >> 60) as usize % WAYS)
    }

    /// Whether it is too large to be in the CPU's own caches.
    #[inline(always)]
    pub(crate) fn is_large(&self) -> bool {
        self.sets.len() > FIRST_SETS
    }

    /// Asks for the lines that a key is most likely in.
    #[inline(always)]
    pub(crate) fn prefetch(&self, key: &DeepKey) {
        let (set, way) = self.place(key.hash(&self.secret));
        if let Some(first) = self.sets.get(set).and_then(|set| set.get(way)) {
            fabnic_memory::prefetch(&first.key);
            fabnic_memory::prefetch(&first.stamp);
        }
    }

    /// What was decided for a key, if one of the first two entries that are looked at says so and is stamped.
    #[inline(always)]
    pub(crate) fn glance(&self, key: &ShortKey, stamp: u64) -> Option<(&Decided, u32)> {
        let (place, way) = self.place(key.hash(&self.secret));
        let set = self.sets.get(place)?;
        let look = |way: usize| {
            let entry = set.get(way)?;
            let good = entry.stamp == stamp && key.is_at(&entry.key);
            good.then_some((&entry.decided, (place * WAYS + way) as u32))
        };
        look(way).or_else(|| look(way ^ 1))
    }

    /// What was decided for a key, if it is good now. `judge`: see [`Entry::revalidate`].
    #[inline]
    pub(crate) fn find(
        &mut self,
        key: &DeepKey,
        versions: &Versions,
        under: Under,
        refresh: u32,
        judge: impl FnOnce(u64, Decided) -> Option<u64>,
    ) -> Option<Found> {
        let (place, _) = self.place(key.hash(&self.secret));
        let set = self.sets.get_mut(place)?;
        let way = set.iter().position(|entry| entry.key.is(key))?;
        let entry = set.get_mut(way)?;
        let judge = |epoch, entry: &Entry| judge(epoch, entry.decided);
        let good = entry.stamp == under.stamp || entry.revalidate(versions, under, refresh, judge);
        good.then_some(Found { decided: entry.decided, place: (place * WAYS + way) as u32 })
    }

    /// Remembers a decision; gives its place. In a full set it takes the place of a stale entry, else of any; what that owed
    /// to its connections is paid.
    pub(crate) fn insert(
        &mut self,
        key: &DeepKey,
        what: &Remember,
        under: Under,
        pay: impl FnOnce([u32; 2], Owed),
    ) -> u32 {
        let (place, first) = self.place(key.hash(&self.secret));
        self.victim = (self.victim + 1) % WAYS;
        let victim = self.victim;
        let Some(set) = self.sets.get_mut(place) else { return u32::MAX };
        let mut count = FlowCount::default();
        let own = set.iter().position(|entry| entry.key == *key && entry.generation != 0);
        let is_free = |way: &usize| set.get(*way).is_some_and(|entry| entry.generation != under.generation);
        let free = || (0..WAYS).map(|way| way ^ first).find(is_free);
        let way = own.or_else(free).unwrap_or_else(|| {
            self.crowded += 1;
            victim
        });
        let Some(entry) = set.get_mut(way) else { return u32::MAX };
        let place = place * WAYS + way;
        let Some(counted) = self.counts.get_mut(place) else { return u32::MAX };
        if counted.steady != 0 {
            pay(entry.decided.handles, counted.owed());
            counted.steady = 0;
        }
        if own.is_some() {
            count = *counted;
        }
        *counted = count;
        *entry = Entry {
            key: *key,
            stamp: under.stamp,
            decided: what.decided,
            generation: under.generation,
            seen: under.tick,
            slots: what.depends.map(|version| version.slot as u16),
            values: what.depends.map(|version| version.value),
            epoch: under.epoch as u32,
        };
        place as u32
    }

    /// Which frames, one bit each, are to be told to a connection: their flow is not steady this second.
    #[inline]
    pub(crate) fn untold(&self, frames: &[Found], now: u32) -> u64 {
        let steady = now.wrapping_add(1);
        let mut untold = 0;
        for (index, found) in frames.iter().enumerate() {
            let [.., handles] = found.decided.words();
            let is_steady = self.counts.get(found.place as usize).is_some_and(|count| count.steady == steady);
            untold |= u64::from(handles != 0 && !is_steady) << (index % 64);
        }
        untold
    }

    /// What the flow at a place owes to its connection.
    #[inline]
    pub(crate) fn owed(&self, place: u32) -> Owed {
        self.counts.get(place as usize).map_or(Owed::default(), FlowCount::owed)
    }

    /// The connection of the flow at a place was told of all that it owed, and of frames that will be counted yet: the next ones
    /// of this second need not be tracked. Not so, if another flow has taken the place meanwhile.
    pub(crate) fn becomes_steady(
        &mut self,
        (place, handles): (u32, [u32; 2]),
        (frames, bytes): (u32, u64),
        now: u32,
    ) {
        let at = place as usize;
        let entry = self.sets.get(at / WAYS).and_then(|set| set.get(at % WAYS));
        if entry.is_none_or(|entry| entry.decided.handles != handles) {
            return;
        }
        let Some(count) = self.counts.get_mut(at) else { return };
        if count.steady == 0 {
            if self.steady.len() == self.steady.capacity() {
                return;
            }
            self.steady.push(place);
        }
        count.steady = now.wrapping_add(1);
        count.told_frames = (count.frames as u32).wrapping_add(frames);
        count.told_bytes = count.bytes.wrapping_add(bytes);
    }

    /// Its packets are tracked from now on, each of them.
    pub(crate) fn is_not_steady(&mut self, place: u32) {
        if let Some(count) = self.counts.get_mut(place as usize) {
            count.steady = 0;
        }
    }

    /// Pays what flows owe that were steady before this second, or at all; looks at some `budget` of them at most. To be called
    /// between bursts.
    pub(crate) fn settle(&mut self, now: Option<u32>, budget: usize, mut pay: impl FnMut([u32; 2], Owed)) {
        let current = now.map(|now| now.wrapping_add(1));
        for _ in 0..budget.min(self.steady.len()) {
            if self.cursor >= self.steady.len() {
                self.cursor = 0;
            }
            let Some(place) = self.steady.get(self.cursor).map(|place| *place as usize) else { return };
            if let Some(count) = self.counts.get_mut(place) {
                if Some(count.steady) == current {
                    self.cursor += 1;
                    continue;
                }
                let entry = self.sets.get(place / WAYS).and_then(|set| set.get(place % WAYS));
                if count.steady != 0
                    && let Some(entry) = entry
                {
                    pay(entry.decided.handles, count.owed());
                    count.steady = 0;
                }
            }
            self.steady.swap_remove(self.cursor);
        }
    }

    /// Makes room for steady flows. Allocates.
    pub(crate) fn prepare_steady(&mut self) {
        if self.steady.capacity() == 0 {
            self.steady.reserve_exact(MOST_STEADY);
        }
    }

    /// Counts a frame to the flow at a place that [`DeepCache::find`] or [`DeepCache::insert`] gave.
    #[inline(always)]
    pub(crate) fn count(&mut self, place: u32, bytes: u32) {
        if let Some(count) = self.counts.get_mut(place as usize) {
            count.frames += 1;
            count.bytes += u64::from(bytes);
        }
    }

    /// Looks at the flows of `sets` sets from set `from` on that are of this generation and have counted. Gives where to
    /// go on; 0 at the end.
    pub(crate) fn visit(
        &self,
        from: usize,
        sets: usize,
        generation: u32,
        mut each: impl FnMut(&DeepKey, Outcome, FlowCount),
    ) -> usize {
        let end = from.saturating_add(sets).min(self.sets.len());
        let entries = self.sets.get(from..end).unwrap_or(&[]).iter().flatten();
        let counts = self.counts.get(from * WAYS..end * WAYS).unwrap_or(&[]);
        for (entry, count) in entries.zip(counts) {
            if entry.generation == generation && count.frames > 0 {
                each(&entry.key, entry.decided.outcome, *count);
            }
        }
        if end == self.sets.len() { 0 } else { end }
    }

    /// Grows if it has become crowded. Allocates: to be called between bursts, now and then.
    pub(crate) fn grow_if_crowded(&mut self, pay: impl FnMut([u32; 2], Owed)) {
        let sets = self.sets.len();
        if self.crowded > sets / 4 && sets < self.max_sets {
            self.settle(None, usize::MAX, pay);
            self.steady.clear();
            self.resize((sets * 4).min(self.max_sets));
        }
        self.crowded = 0;
    }

    /// Flows that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }
}

#[cfg(test)]
mod tests;
