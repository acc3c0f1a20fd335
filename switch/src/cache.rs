//! The flow cache: what the stages decided for a flow, under its exact key.
//!
//! Each worker has one; nothing in it is shared. An entry is one cache line, a set is four of them. An entry is good
//! while the topology's generation and the two FDB versions it was made under are the current ones; a stale entry is
//! simply decided anew when it is next hit. That is not looked at for each frame: an entry that was found good carries
//! the worker's *stamp*, which changes when anything at all changes, and is good as long as the two are equal. When a
//! set overflows with live entries, the worker makes the cache larger between two bursts, up to its limit: the new one
//! starts empty, which costs each flow one walk.

use fabnic_port::DropReason;
use fabnic_wire::Vid;
use zerocopy::FromZeros;

use crate::fdb::{Fdb, Version};
use crate::key::Key;

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
    /// The FDB versions it depends on.
    pub(crate) src: Version,
    pub(crate) dst: Version,
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

    /// The decision, if it is good now. `refresh`: ticks after which the flow's source must be refreshed in the FDB.
    #[inline(always)]
    pub(crate) fn good(&mut self, fdb: &Fdb, when: When, refresh: u32) -> Option<Outcome> {
        (self.stamp == when.stamp || self.revalidate(fdb, when, refresh)).then_some(self.outcome)
    }

    /// Looks at all that the decision depends on, and stamps the entry if it is good.
    #[inline(never)]
    fn revalidate(&mut self, fdb: &Fdb, when: When, refresh: u32) -> bool {
        let good = self.generation == when.generation
            && fdb.version(self.src_slot) == self.src_value
            && fdb.version(self.dst_slot) == self.dst_value
            && when.tick.wrapping_sub(self.seen) < refresh;
        if good {
            self.stamp = when.stamp;
        }
        good
    }
}

/// A decision, packed: the target in the low half, the VLAN above it, the reason above that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub(crate) struct Outcome(u64);

impl Outcome {
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
                DropReason::ALL.get(usize::from((self.0 >> 48) as u8)).copied().unwrap_or(DropReason::Stopped),
            ),
            index => Target::Port(index),
        }
    }
}

/// Where a cache keeps its sets, for the loop that asks for their lines.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    sets: &'a [[Entry; WAYS]],
    mask: u32,
    secret: [u64; 2],
}

impl Places<'_> {
    /// The place of a key; its memory is on its way when this returns.
    #[inline(always)]
    pub(crate) fn place(&self, key: &Key) -> u32 {
        let place = key.hash(&self.secret) as u32 & self.mask;
        if let Some([first, ..]) = self.sets.get(place as usize) {
            fabnic_memory::prefetch(first);
        }
        place
    }
}

/// The cache of one worker.
pub(crate) struct FlowCache {
    sets: Vec<[Entry; WAYS]>,
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

    /// What tells where keys have their places.
    #[inline(always)]
    pub(crate) fn places(&self) -> Places<'_> {
        // A power of two of at most 2^26; without any set every place is outside.
        Places { sets: &self.sets, mask: (self.sets.len() as u32).wrapping_sub(1), secret: self.secret }
    }

    /// The entry of a key, stale or not.
    #[inline(always)]
    pub(crate) fn find(&mut self, place: u32, key: &Key) -> Option<&mut Entry> {
        let [first, others @ ..] = self.sets.get_mut(place as usize)?;
        if first.is(key) {
            return Some(first);
        }
        others.iter_mut().find(|entry| entry.is(key))
    }

    /// Remembers a decision, and gives it packed. In a full set it takes the place of a stale entry, else of any.
    pub(crate) fn insert(&mut self, place: u32, key: &Key, decision: &Decision, when: When) -> Outcome {
        let outcome = Outcome::new(decision.target, decision.vlan);
        self.victim = (self.victim + 1) % WAYS;
        let victim = self.victim;
        let Some(set) = self.sets.get_mut(place as usize) else { return outcome };
        let own = set.iter().position(|entry| entry.is(key));
        let free = || set.iter().position(|entry| entry.generation != when.generation);
        let way = own.or_else(free).unwrap_or_else(|| {
            self.crowded += 1;
            victim
        });
        let Some(entry) = set.get_mut(way) else { return outcome };
        *entry = Entry {
            front: key.front,
            back: key.back,
            outcome,
            stamp: when.stamp,
            tag: key.tag,
            generation: when.generation,
            src_slot: decision.src.slot,
            src_value: decision.src.value,
            dst_slot: decision.dst.slot,
            dst_value: decision.dst.value,
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

/// Zeroed memory straight from the system: pages that are never hit are never touched. Empty if there is none to be had.
fn table(sets: usize) -> Vec<[Entry; WAYS]> {
    <[Entry; WAYS]>::new_vec_zeroed(sets).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key { front: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), back: n, tag: 0 }
    }

    fn decision(index: u32) -> Decision {
        Decision {
            target: Target::Port(index),
            vlan: Vid::DEFAULT,
            src: Version { slot: 1, value: 2 },
            dst: Version { slot: 3, value: 4 },
        }
    }

    #[test]
    fn finds_what_was_put_in_and_grows_when_crowded() {
        let mut cache = FlowCache::new(1 << 16, [3, 5]);
        let first = cache.capacity();
        for round in 0..4 {
            for n in 1..20_000 {
                let place = cache.places().place(&key(n));
                cache.insert(
                    place,
                    &key(n),
                    &decision(n as u32),
                    When { generation: 1, tick: round, stamp: 1 },
                );
            }
            cache.grow_if_crowded();
        }
        assert!(cache.capacity() > first && cache.capacity() <= 1 << 16);
        let mut found = 0;
        for n in 1..20_000 {
            let place = cache.places().place(&key(n));
            if let Some(entry) = cache.find(place, &key(n)) {
                assert_eq!(entry.outcome.target(), Target::Port(n as u32));
                assert_eq!(entry.stamp, 1);
                assert_eq!((entry.src_value, entry.dst_slot, entry.generation), (2, 3, 1));
                found += 1;
            }
        }
        assert!(found > 19_000, "{found} of 19999 flows fit into {}", cache.capacity());
        let place = cache.places().place(&key(30_000));
        assert!(cache.find(place, &key(30_000)).is_none());
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
