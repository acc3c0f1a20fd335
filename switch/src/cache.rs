//! The flow cache: what the stages decided for a flow, under its exact key.
//!
//! Each worker has one; nothing in it is shared. An entry is one cache line, a set is four of them. An entry is good
//! while the topology's generation and the two FDB versions it was made under are the current ones; a stale entry is
//! simply decided anew when it is next hit. When a set overflows with live entries, the worker doubles the cache between
//! two bursts, up to its limit: the new one starts empty, which costs each flow one walk.

use fabnic_port::DropReason;
use fabnic_wire::Vid;
use zerocopy::FromZeros;

use crate::fdb::Version;
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
    /// The burst's number.
    pub(crate) burst: u32,
}

/// One cached decision: a cache line.
#[derive(FromZeros)]
#[repr(C, align(64))]
pub(crate) struct Entry {
    front: u64,
    back: u64,
    tag: u32,
    /// Generation of the topology; 0 in an entry that was never used.
    generation: u32,
    src_slot: u32,
    src_value: u32,
    dst_slot: u32,
    dst_value: u32,
    target: u32,
    vid: u16,
    reason: u8,
    /// Tick at which the source was last refreshed in the FDB.
    pub(crate) seen: u32,
    /// Number of the burst in which the entry was last found good.
    pub(crate) burst: u32,
}

impl Entry {
    #[inline(always)]
    fn is(&self, key: &Key) -> bool {
        self.front == key.front && self.back == key.back && self.tag == key.tag
    }

    #[inline(always)]
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    #[inline(always)]
    pub(crate) fn src(&self) -> Version {
        Version { slot: self.src_slot, value: self.src_value }
    }

    #[inline(always)]
    pub(crate) fn dst(&self) -> Version {
        Version { slot: self.dst_slot, value: self.dst_value }
    }

    /// The decision in the form in which bursts are grouped.
    #[inline(always)]
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome { target: self.target, vid: self.vid, reason: self.reason }
    }
}

/// A decision, packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    target: u32,
    pub(crate) vid: u16,
    reason: u8,
}

impl Outcome {
    pub(crate) fn new(target: Target, vlan: Vid) -> Outcome {
        let (target, reason) = match target {
            Target::Port(index) => (index, 0),
            Target::Flood => (FLOOD, 0),
            Target::Drop(reason) => (DROP, reason as u8),
        };
        Outcome { target, vid: vlan.get(), reason }
    }

    /// A number that is equal for outcomes that go the same way.
    #[inline(always)]
    pub(crate) fn way(&self) -> u32 {
        self.target
    }

    #[inline(always)]
    pub(crate) fn target(&self) -> Target {
        match self.target {
            FLOOD => Target::Flood,
            DROP => Target::Drop(
                DropReason::ALL.get(usize::from(self.reason)).copied().unwrap_or(DropReason::Stopped),
            ),
            index => Target::Port(index),
        }
    }
}

/// The cache of one worker.
pub(crate) struct FlowCache {
    entries: Vec<Entry>,
    sets: usize,
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
        FlowCache { entries: table(FIRST_SETS), sets: FIRST_SETS, max_sets, secret, crowded: 0, victim: 0 }
    }

    /// The place of a key; its memory is on its way when this returns.
    #[inline(always)]
    pub(crate) fn place(&self, key: &Key) -> usize {
        let place = (key.hash(&self.secret) as usize & (self.sets - 1)) * WAYS;
        if let Some(entry) = self.entries.get(place) {
            fabnic_memory::prefetch(entry);
        }
        place
    }

    /// The entry of a key, stale or not.
    #[inline(always)]
    pub(crate) fn find(&mut self, place: usize, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(place..place + WAYS)?.iter_mut().find(|entry| entry.is(key))
    }

    /// Remembers a decision. In a full set it takes the place of a stale entry, else of any.
    pub(crate) fn insert(&mut self, place: usize, key: &Key, decision: &Decision, when: When) {
        self.victim = (self.victim + 1) % WAYS;
        let victim = self.victim;
        let Some(set) = self.entries.get_mut(place..place + WAYS) else { return };
        let own = set.iter().position(|entry| entry.is(key));
        let free = || set.iter().position(|entry| entry.generation != when.generation);
        let way = own.or_else(free).unwrap_or_else(|| {
            self.crowded += 1;
            victim
        });
        let Some(entry) = set.get_mut(way) else { return };
        let Outcome { target, vid, reason } = Outcome::new(decision.target, decision.vlan);
        *entry = Entry {
            front: key.front,
            back: key.back,
            tag: key.tag,
            generation: when.generation,
            src_slot: decision.src.slot,
            src_value: decision.src.value,
            dst_slot: decision.dst.slot,
            dst_value: decision.dst.value,
            target,
            vid,
            reason,
            seen: when.tick,
            burst: when.burst,
        };
    }

    /// Grows if it has become crowded. Allocates: to be called between bursts, now and then.
    pub(crate) fn grow_if_crowded(&mut self) {
        if self.crowded > self.sets / 4 && self.sets < self.max_sets {
            self.sets = (self.sets * 4).min(self.max_sets);
            self.entries = table(self.sets);
        }
        self.crowded = 0;
    }

    /// Flows that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.sets * WAYS
    }
}

/// Zeroed memory straight from the system: pages that are never hit are never touched.
fn table(sets: usize) -> Vec<Entry> {
    Entry::new_vec_zeroed(sets * WAYS).unwrap_or_default()
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
                let place = cache.place(&key(n));
                cache.insert(
                    place,
                    &key(n),
                    &decision(n as u32),
                    When { generation: 1, tick: round, burst: 1 },
                );
            }
            cache.grow_if_crowded();
        }
        assert!(cache.capacity() > first && cache.capacity() <= 1 << 16);
        let mut found = 0;
        for n in 1..20_000 {
            let place = cache.place(&key(n));
            if let Some(entry) = cache.find(place, &key(n)) {
                assert_eq!(entry.outcome().target(), Target::Port(n as u32));
                assert_eq!((entry.src().value, entry.dst().slot, entry.generation()), (2, 3, 1));
                found += 1;
            }
        }
        assert!(found > 19_000, "{found} of 19999 flows fit into {}", cache.capacity());
        let place = cache.place(&key(30_000));
        assert!(cache.find(place, &key(30_000)).is_none());
    }

    #[test]
    fn outcomes_keep_what_they_are_given() {
        for target in
            [Target::Port(0), Target::Port(70_000), Target::Flood, Target::Drop(DropReason::SamePort)]
        {
            let outcome = Outcome::new(target, Vid::MAX);
            assert_eq!((outcome.target(), outcome.vid), (target, 4094));
        }
        assert_eq!(core::mem::size_of::<Entry>(), 64);
    }
}
