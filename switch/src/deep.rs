//! Flows told apart by more than addresses and VLAN: their exact key and their cache.
//!
//! The same idea as [`crate::cache`], with a wider key and a richer entry: a key of one cache line, and behind it, in the
//! second line, the decision with the plan that goes with it and up to four versions that it depends on.
//!
//! ```text
//!   line 1   key ([`crate::deep_key`])
//!   line 2   | stamp | outcome plan mark handles | generation seen | four slots, sum of values | epoch, sum of cells |
//!
//!   tags     of a set: 16 bits of each entry's hash, 8 bytes that tell which of eight entries (128 bytes each) it can be
//! ```
//!
//! A small cache is in the CPU's own caches, and the first entries of a set are just looked at ([`DeepCache::glance`]). Of a
//! large one, the tags are: the burst's entries are found by them first and asked for all at once, and looked at then
//! ([`DeepCache::look_ahead`], [`DeepCache::glance_at`]).
//!
//! # Invariants
//! * An entry with an older generation is as good as empty: another topology, or plans that were forgotten since.
//! * Versions and cells only grow: a sum of them is the same if and only if all of them are. (32 bits: an entry is decided anew
//!   long before a sum could come round.)
//! * Counters of a flow are beside the entries, not in them: they are written once for a run of frames.
//! * An entry has the tag of its key. A tag may be without such an entry, and two entries of a set may have the same.
//! * A flow is *steady* in the second in which its connection was told of one of its packets, and the next of them would do
//!   nothing but count (`conntrack`: no TCP). Those are counted here, and the connection is told in the next second. A flow that
//!   is steady is in the list of those; what is owed is paid before an entry is used for another decision.

use fabnic_memory::Zeroed;
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
    /// The sum of what changes of rules can concern it, if there is one: [`crate::rules::Concerns`].
    pub(crate) concern: Option<u32>,
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
    /// The sum of their values.
    values: u32,
    /// Lower half of the epoch of the rules that it was last good under.
    epoch: u32,
    /// The sum of what changes of rules can concern it.
    concern: u32,
    /// Whether there is such a sum; 0 or 1.
    has_concern: u32,
}

impl Entry {
    /// Whether the rules that changed since the entry was last good do not concern it, as far as sums tell.
    #[inline(always)]
    fn is_unconcerned(&mut self, under: &Under, sum: impl FnOnce(Outcome) -> u32) -> bool {
        let good = self.has_concern != 0 && self.concern == sum(self.decided.outcome);
        if good {
            self.epoch = under.epoch as u32;
        }
        good
    }

    /// Looks at all that the decision depends on, and stamps the entry if it is good. Of one that was made under an older epoch
    /// of the rules `sum` gives what its sum is now, and, if that is another one, `judge` is asked whether it is good.
    fn revalidate(
        &mut self,
        versions: &Versions,
        under: Under,
        refresh: u32,
        sum: impl FnOnce(Outcome) -> u32,
        judge: impl FnOnce(u64, &Entry) -> bool,
    ) -> bool {
        let values = self.slots.iter().map(|slot| versions.value(u32::from(*slot)));
        let good = self.generation == under.generation
            && values.fold(0, u32::wrapping_add) == self.values
            && under.tick.wrapping_sub(self.seen) < refresh;
        if !good {
            return false;
        }
        let behind = (under.epoch as u32).wrapping_sub(self.epoch);
        if behind != 0 {
            let now = sum(self.decided.outcome);
            if !self.is_unconcerned(&under, |_| now) {
                if !judge(under.epoch.saturating_sub(behind.into()), self) {
                    return false;
                }
                (self.concern, self.has_concern, self.epoch) = (now, 1, under.epoch as u32);
            }
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

/// The tags of a set's entries, 16 bits each; 0 where there never was one.
#[derive(Clone, Copy, Default, FromZeros)]
#[repr(transparent)]
struct Tags(u64);

impl Tags {
    const LOWEST: u64 = 0x0001_0001_0001_0001;

    /// What of a hash does not say which set: 14 bits, and one that makes it another than 0.
    #[inline(always)]
    fn tag(hash: u64) -> u64 {
        0x8000 | hash >> 25 & 0x7f | hash >> 57 << 7
    }

    /// One bit in each 16 where the tag is this one, and perhaps in some above such a one.
    #[inline(always)]
    fn found(self, tag: u64) -> u64 {
        let differs = self.0 ^ (tag * Self::LOWEST);
        differs.wrapping_sub(Self::LOWEST) & !differs & Self::LOWEST << 15
    }

    fn set(&mut self, way: usize, tag: u64) {
        let shift = 16 * (way % WAYS);
        self.0 = self.0 & !(0xffff << shift) | tag << shift;
    }
}

/// The most flows that are steady at once: a packet of others is tracked by itself.
const MOST_STEADY: usize = 1 << 16;

/// Ports whose new flows are counted apart.
const PORTS: usize = 256;

/// The place of a flow's port among the counted.
fn port_of(key: &DeepKey) -> usize {
    key.ingress() as usize % PORTS
}

/// The cache of one worker.
pub(crate) struct DeepCache {
    sets: Zeroed<[Entry; WAYS]>,
    /// By set.
    tags: Zeroed<Tags>,
    /// By place.
    counts: Zeroed<FlowCount>,
    max_sets: usize,
    secret: [u64; 8],
    crowded: usize,
    /// How many flows were remembered lately, by the place of the port that they came from among as many.
    newcomers: Box<[u32; PORTS]>,
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
            sets: Zeroed::default(),
            tags: Zeroed::default(),
            counts: Zeroed::default(),
            max_sets,
            secret,
            crowded: 0,
            newcomers: Box::new([0; PORTS]),
            steady: Vec::new(),
            cursor: 0,
        };
        cache.resize(FIRST_SETS);
        cache
    }

    fn resize(&mut self, sets: usize) {
        let made = (Zeroed::new(sets), Zeroed::new(sets), Zeroed::new(sets * WAYS));
        if let (Some(entries), Some(tags), Some(counts)) = made {
            (self.sets, self.tags, self.counts) = (entries, tags, counts);
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

    /// The hash of a key.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &DeepKey) -> u64 {
        key.hash(&self.secret)
    }

    /// Asks for the tags of both sets that a key with this hash may be in.
    #[inline(always)]
    pub(crate) fn ask_tags(&self, hash: u64) {
        for set in self.places(hash) {
            if let Some(tags) = self.tags.get(set) {
                fabnic_memory::prefetch(tags);
            }
        }
    }

    /// The place at which the key with this hash is, if it is anywhere and no other one has its tag. Asks for the lines of
    /// the entry, and with `counting` for that of its counters.
    #[inline(always)]
    pub(crate) fn look_ahead(&self, hash: u64, counting: bool) -> u32 {
        let tag = Tags::tag(hash);
        let [one, other] = self.places(hash);
        let found = |set: usize| self.tags.get(set).map_or(0, |tags| tags.found(tag));
        // Without a branch: which of the two sets it is cannot be foretold.
        let (first, second) = (found(one), found(other));
        let (set, found) = core::hint::select_unpredictable(first != 0, (one, first), (other, second));
        let way = found.trailing_zeros() as usize / 16 % WAYS;
        if let Some(entry) = self.sets.get(set).and_then(|set| set.get(way)) {
            fabnic_memory::prefetch(&entry.key);
            fabnic_memory::prefetch(&entry.stamp);
        }
        let place = set * WAYS + way;
        if counting && let Some(count) = self.counts.get(place) {
            fabnic_memory::prefetch(count);
        }
        place as u32
    }

    /// As [`DeepCache::glance`], of the entry at a place that [`DeepCache::look_ahead`] has given.
    #[inline(always)]
    pub(crate) fn glance_at(
        &mut self,
        place: u32,
        key: &ShortKey,
        under: &Under,
        sum: impl FnOnce(Outcome) -> u32,
    ) -> Option<(&Decided, u32)> {
        let entry = self.sets.get_mut(place as usize / WAYS)?.get_mut(place as usize % WAYS)?;
        let good = entry.stamp == under.stamp
            && key.is_at(&entry.key)
            && (entry.epoch == under.epoch as u32 || entry.is_unconcerned(under, sum));
        good.then_some((&entry.decided, place))
    }

    /// What was decided for a key, if one of the first two entries that are looked at says so, is stamped, and is not concerned
    /// by rules that changed since. `sum`: see [`Entry::revalidate`].
    #[inline(always)]
    pub(crate) fn glance(
        &mut self,
        key: &ShortKey,
        under: &Under,
        sum: impl FnOnce(Outcome) -> u32,
    ) -> Option<(&Decided, u32)> {
        let (place, first) = self.place(key.hash(&self.secret));
        let set = self.sets.get_mut(place)?;
        let is = |way: usize| {
            set.get(way).is_some_and(|entry| entry.stamp == under.stamp && key.is_at(&entry.key))
        };
        let way = if is(first) {
            first
        } else if is(first ^ 1) {
            first ^ 1
        } else {
            return None;
        };
        let entry = set.get_mut(way)?;
        if entry.epoch != under.epoch as u32 && !entry.is_unconcerned(under, sum) {
            return None;
        }
        Some((&entry.decided, (place * WAYS + way) as u32))
    }

    /// The two sets that a key with this hash may be in: in the second, when the first is full.
    #[inline(always)]
    fn places(&self, hash: u64) -> [usize; 2] {
        [hash, hash >> 32].map(|hash| hash as usize & self.sets.len().wrapping_sub(1))
    }

    /// The set and the way that a key with this hash is at.
    fn seek(&self, key: &DeepKey, hash: u64) -> Option<(usize, usize)> {
        let tag = Tags::tag(hash);
        self.places(hash).into_iter().find_map(|place| {
            let set = self.sets.get(place)?;
            let mut found = self.tags.get(place)?.found(tag);
            while found != 0 {
                let way = found.trailing_zeros() as usize / 16;
                if set.get(way).is_some_and(|entry| entry.key.is(key)) {
                    return Some((place, way));
                }
                found &= found - 1;
            }
            None
        })
    }

    /// What was decided for a key, if it is good now. `sum` and `judge`: see [`Entry::revalidate`].
    #[inline]
    pub(crate) fn find(
        &mut self,
        key: &DeepKey,
        versions: &Versions,
        under: Under,
        refresh: u32,
        sum: impl FnOnce(Outcome) -> u32,
        judge: impl FnOnce(u64, Decided) -> bool,
    ) -> Option<Found> {
        let (place, way) = self.seek(key, key.hash(&self.secret))?;
        let entry = self.sets.get_mut(place)?.get_mut(way)?;
        let judge = |epoch, entry: &Entry| judge(epoch, entry.decided);
        let good = (entry.stamp == under.stamp && entry.epoch == under.epoch as u32)
            || entry.revalidate(versions, under, refresh, sum, judge);
        good.then_some(Found { decided: entry.decided, place: (place * WAYS + way) as u32 })
    }

    /// Remembers a decision; gives its place. In full sets it takes the place of a stale entry, else of one from the port that
    /// brought most new flows lately: a flood of flows drives out itself. Of these, of the one that was found good the longest
    /// ago. What that owed to its connections is paid.
    pub(crate) fn insert(
        &mut self,
        key: &DeepKey,
        what: &Remember,
        under: Under,
        pay: impl FnOnce([u32; 2], Owed),
    ) -> u32 {
        let hash = key.hash(&self.secret);
        let (_, first) = self.place(hash);
        let places = self.places(hash);
        if let Some(count) = self.newcomers.get_mut(port_of(key)) {
            *count = count.saturating_add(1);
        }
        let all = || places.into_iter().flat_map(|place| (0..WAYS).map(move |way| (place, way ^ first)));
        let entry = |(place, way): (usize, usize)| self.sets.get(place).and_then(|set| set.get(way));
        let is_free = |at: &(usize, usize)| entry(*at).is_some_and(|it| it.generation != under.generation);
        let own = self.seek(key, hash).filter(|at| entry(*at).is_some_and(|entry| entry.generation != 0));
        let mut is_crowded = false;
        let found = own.or_else(|| all().find(is_free)).or_else(|| {
            is_crowded = true;
            all().max_by_key(|at| {
                let entry = entry(*at);
                let newcomers = entry.and_then(|entry| self.newcomers.get(port_of(&entry.key)));
                (newcomers.copied(), core::cmp::Reverse(entry.map(|entry| entry.stamp)))
            })
        });
        self.crowded += usize::from(is_crowded);
        let Some((place, way)) = found else { return u32::MAX };
        let mut count = FlowCount::default();
        let Some(set) = self.sets.get_mut(place) else { return u32::MAX };
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
        if let Some(tags) = self.tags.get_mut(place / WAYS) {
            tags.set(way, Tags::tag(hash));
        }
        *entry = Entry {
            key: *key,
            stamp: under.stamp,
            decided: what.decided,
            generation: under.generation,
            seen: under.tick,
            slots: what.depends.map(|version| version.slot as u16),
            values: what.depends.iter().map(|version| version.value).fold(0, u32::wrapping_add),
            epoch: under.epoch as u32,
            concern: what.concern.unwrap_or(0),
            has_concern: what.concern.is_some().into(),
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
            self.crowded = 0;
        }
        // Of the last second or so: where a walk takes long, few entries a moment make room, however many are missing.
        self.crowded -= self.crowded / 64;
        self.newcomers.iter_mut().for_each(|count| *count /= 2);
    }

    /// Flows that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }
}

#[cfg(test)]
mod tests;
