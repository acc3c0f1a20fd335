//! The flow cache: what the stages decided for a flow, under its exact key.
//!
//! Each worker has one; nothing in it is shared. An entry is one cache line, a set is four of them. An entry is good
//! while the topology's generation and the two FDB versions it was made under are the current ones; a stale entry is
//! simply decided anew when it is next hit. That is not looked at for each frame: an entry that was found good carries
//! the worker's *stamp*, which changes when anything at all changes, and is good as long as the two are equal. When a
//! set overflows with live entries, the worker makes the cache larger between two bursts, up to its limit: the new one
//! starts empty, which costs each flow one walk.

use fabnic_memory::Zeroed;
use fabnic_port::DropReason;
use fabnic_wire::Vid;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::deep::DEPENDENCIES;
use crate::key::{self, Key};
use crate::versions::{Version, Versions};

const WAYS: usize = 4;
const FIRST_SETS: usize = 1024;

/// Where a flow's frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To one port, by its index in the topology.
    Port(u32),
    /// To all members of the VLAN but the sender.
    Flood,
    /// Nowhere.
    Drop(DropReason),
}

const FLOOD: u32 = u32::MAX;
const DROP: u32 = u32::MAX - 1;

/// What the stages decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) target: Target,
    /// The VLAN that the frame is in; for a frame dropped before that was known, any.
    pub(crate) vlan: Vid,
    /// What it depends on: the source's version, the destination's, and others.
    pub(crate) depends: [Version; DEPENDENCIES],
}

/// Under what a decision was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    /// The topology's generation.
    pub(crate) generation: u32,
    pub(crate) tick: u32,
    /// The stamp of the moment.
    pub(crate) stamp: u64,
}

/// One cached decision: a cache line.
#[derive(FromZeros)]
#[repr(C, align(64))]
pub(crate) struct Entry {
    front: u64,
    back: u64,
    outcome: Outcome,
    /// The moment at which the entry was last found good.
    stamp: u64,
    tag: u32,
    /// Generation of the topology; 0 in an entry that was never used.
    generation: u32,
    src_slot: u32,
    src_value: u32,
    dst_slot: u32,
    dst_value: u32,
    /// Tick at which the source was last refreshed in the FDB.
    seen: u32,
}

impl Entry {
    #[inline(always)]
    fn is(&self, key: &Key) -> bool {
        self.front == key.front && self.back == key.back && self.tag == key.tag
    }

    /// Looks at all that the decision depends on, and stamps the entry if it is good.
    fn revalidate(&mut self, versions: &Versions, when: When, refresh: u32) -> bool {
        let good = self.generation == when.generation
            && versions.value(self.src_slot) == self.src_value
            && versions.value(self.dst_slot) == self.dst_value
            && when.tick.wrapping_sub(self.seen) < refresh;
        if good {
            self.stamp = when.stamp;
        }
        good
    }
}

/// A decision, packed: the target in the low half, the VLAN above it, the reason above that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub(crate) struct Outcome(u64);

impl Outcome {
    pub(crate) const NOTHING: Outcome = Outcome(0);

    pub(crate) fn new(target: Target, vlan: Vid) -> Outcome {
        let (target, reason) = match target {
            Target::Port(index) => (index, 0),
            Target::Flood => (FLOOD, 0),
            Target::Drop(reason) => (DROP, reason as u8),
        };
        Outcome(u64::from(target) | (u64::from(vlan.get()) << 32) | (u64::from(reason) << 48))
    }

    /// A number that is equal for outcomes that go the same way.
    #[inline(always)]
    pub(crate) fn way(&self) -> u32 {
        self.0 as u32
    }

    /// The VLAN.
    #[inline(always)]
    pub(crate) fn vid(&self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline(always)]
    pub(crate) fn target(&self) -> Target {
        match self.way() {
            FLOOD => Target::Flood,
            DROP => Target::Drop(
                DropReason::ALL
                    .get(usize::from((self.0 >> 48) as u8))
                    .copied()
                    .unwrap_or(DropReason::Stopped),
            ),
            index => Target::Port(index),
        }
    }
}

/// A cache that is only looked at.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    sets: &'a [[Entry; WAYS]],
    mask: usize,
    secret: [u64; 2],
}

impl View<'_> {
    /// What was decided for a frame without tag, if one of its set's first two entries says so and is stamped.
    #[inline(always)]
    pub(crate) fn find(&self, (front, back): (u64, u64), stamp: u64) -> Option<Outcome> {
        let place = key::hash(front, back, &self.secret) as usize & self.mask;
        let [first, second, ..] = self.sets.get(place)?;
        let is = |entry: &Entry| {
            entry.front == front && entry.back == back && entry.tag == 0 && entry.stamp == stamp
        };
        if is(first) {
            return Some(first.outcome);
        }
        is(second).then_some(second.outcome)
    }
}

/// The cache of one worker.
pub(crate) struct FlowCache {
    sets: Zeroed<[Entry; WAYS]>,
    max_sets: usize,
    secret: [u64; 2],
    /// Live entries that had to make room since the cache last grew.
    crowded: usize,
    victim: usize,
}

impl FlowCache {
    /// A cache that may grow to hold `max` flows (rounded up to a power of two).
    pub(crate) fn new(max: usize, secret: [u64; 2]) -> FlowCache {
        let max_sets = (max / WAYS).clamp(FIRST_SETS, 1 << 26).next_power_of_two();
        FlowCache { sets: table(FIRST_SETS), max_sets, secret, crowded: 0, victim: 0 }
    }

    /// The place of a key.
    #[inline(always)]
    fn place(&self, key: &Key) -> usize {
        // A power of two; without any set every place is outside.
        key.hash(&self.secret) as usize & self.sets.len().wrapping_sub(1)
    }

    /// Whether it is too large to be in the CPU's own caches.
    #[inline(always)]
    pub(crate) fn is_large(&self) -> bool {
        self.sets.len() > FIRST_SETS
    }

    /// Asks for the line that a key is most likely in.
    #[inline(always)]
    pub(crate) fn prefetch(&self, key: &Key) {
        if let Some([first, ..]) = self.sets.get(self.place(key)) {
            fabnic_memory::prefetch(first);
        }
    }

    /// What the loop over plain frames needs of the cache.
    #[inline(always)]
    pub(crate) fn view(&self) -> View<'_> {
        View { sets: &self.sets, mask: self.sets.len().wrapping_sub(1), secret: self.secret }
    }

    /// What was decided for a key, if it is good now. `refresh`: ticks after which the flow's source must be refreshed in
    /// the FDB.
    pub(crate) fn hit(
        &mut self,
        key: &Key,
        versions: &Versions,
        when: When,
        refresh: u32,
    ) -> Option<Outcome> {
        let place = self.place(key);
        let entry = self.sets.get_mut(place)?.iter_mut().find(|entry| entry.is(key))?;
        (entry.stamp == when.stamp || entry.revalidate(versions, when, refresh)).then_some(entry.outcome)
    }

    /// Remembers a decision, and gives it packed. In a full set it takes the place of a stale entry, else of any.
    pub(crate) fn insert(&mut self, key: &Key, decision: &Decision, when: When) -> Outcome {
        let place = self.place(key);
        let outcome = Outcome::new(decision.target, decision.vlan);
        self.victim = (self.victim + 1) % WAYS;
        let victim = self.victim;
        let Some(set) = self.sets.get_mut(place) else { return outcome };
        let own = set.iter().position(|entry| entry.is(key));
        let free = || set.iter().position(|entry| entry.generation != when.generation);
        let way = own.or_else(free).unwrap_or_else(|| {
            self.crowded += 1;
            victim
        });
        let Some(entry) = set.get_mut(way) else { return outcome };
        // Nothing that is decided by addresses and VLAN depends on more than these two.
        let [src, dst, ..] = decision.depends;
        *entry = Entry {
            front: key.front,
            back: key.back,
            outcome,
            stamp: when.stamp,
            tag: key.tag,
            generation: when.generation,
            src_slot: src.slot,
            src_value: src.value,
            dst_slot: dst.slot,
            dst_value: dst.value,
            seen: when.tick,
        };
        outcome
    }

    /// Grows if it has become crowded. Allocates: to be called between bursts, now and then.
    pub(crate) fn grow_if_crowded(&mut self) {
        let sets = self.sets.len();
        if self.crowded > sets / 4 && sets < self.max_sets {
            let larger = table((sets * 4).min(self.max_sets));
            if !larger.is_empty() {
                self.sets = larger;
            }
        }
        self.crowded = 0;
    }

    /// Flows that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }
}

/// Empty if there is no memory to be had.
fn table(sets: usize) -> Zeroed<[Entry; WAYS]> {
    Zeroed::new(sets).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use fabnic_port::PortId;
    use fabnic_wire::MacAddr;

    use super::*;
    use crate::fdb::Fdb;

    const OTHER: Version = Version { slot: 0, value: 0 };

    fn key(n: u64) -> Key {
        Key { front: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), back: n, tag: 0 }
    }

    fn decision(index: u32) -> Decision {
        Decision {
            target: Target::Port(index),
            vlan: Vid::DEFAULT,
            depends: [Version { slot: 1, value: 2 }, Version { slot: 3, value: 4 }, OTHER, OTHER],
        }
    }

    #[test]
    fn finds_what_was_put_in_and_grows_when_crowded() {
        let mut cache = FlowCache::new(1 << 16, [3, 5]);
        let first = cache.capacity();
        for round in 0..4 {
            for n in 1..20_000 {
                cache.insert(&key(n), &decision(n as u32), When { generation: 1, tick: round, stamp: 1 });
            }
            cache.grow_if_crowded();
        }
        assert!(cache.capacity() > first && cache.capacity() <= 1 << 16);
        let (versions, when) = (Versions::new(), When { generation: 1, tick: 3, stamp: 1 });
        let mut found = 0;
        for n in 1..20_000 {
            if let Some(outcome) = cache.hit(&key(n), &versions, when, 30) {
                assert_eq!(outcome.target(), Target::Port(n as u32));
                found += 1;
            }
        }
        assert!(found > 19_000, "{found} of 19999 flows fit into {}", cache.capacity());
        assert_eq!(cache.hit(&key(30_000), &versions, when, 30), None);
    }

    #[test]
    fn an_entry_is_good_as_long_as_what_it_depends_on() {
        let mut cache = FlowCache::new(1 << 16, [3, 5]);
        let versions = std::sync::Arc::new(Versions::new());
        let fdb = Fdb::with_versions(10, versions.clone());
        let (vlan, mac) = (Vid::DEFAULT, MacAddr::new([2, 0, 0, 0, 0, 1]));
        let made = Decision {
            depends: [fdb.version_of(vlan, mac), fdb.version_of(vlan, MacAddr::BROADCAST), OTHER, OTHER],
            ..decision(7)
        };
        let when = |stamp, generation, tick| When { stamp, generation, tick };
        cache.insert(&key(1), &made, when(1, 1, 100));
        let mut hit = |when| cache.hit(&key(1), &versions, when, 30).map(|outcome| outcome.target());
        assert_eq!(hit(when(1, 1, 100)), Some(Target::Port(7)));
        assert_eq!(hit(when(2, 1, 129)), Some(Target::Port(7)), "nothing changed that it depends on");
        assert_eq!(hit(when(3, 1, 130)), None, "its source is to be refreshed");
        assert_eq!(hit(when(4, 2, 100)), None, "another topology");
        assert_eq!(hit(when(2, 1, 100)), Some(Target::Port(7)), "still stamped with 2");
        let quota = fdb.quota(PortId(1));
        quota.set_limit(1);
        fdb.learn(vlan, mac, PortId(1), &quota, 100);
        assert_eq!(hit(when(5, 1, 100)), None, "its source moved");
    }

    #[test]
    fn outcomes_keep_what_they_are_given() {
        for target in
            [Target::Port(0), Target::Port(70_000), Target::Flood, Target::Drop(DropReason::SamePort)]
        {
            let outcome = Outcome::new(target, Vid::MAX);
            assert_eq!((outcome.target(), outcome.vid()), (target, 4094));
        }
        assert_eq!(core::mem::size_of::<Entry>(), 64);
    }
}
