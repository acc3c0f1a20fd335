//! Flows told apart by more than addresses and VLAN: their exact key and their cache.
//!
//! The same idea as [`crate::cache`], with a wider key and a richer entry: a key of one cache line, and behind it, in the
//! second line, the decision with the plan that goes with it and up to four versions that it depends on.
//!
//! ```text
//!   line 1   | dst src[0..2] | src[2..6] ingress | type tags tcp-flags | IP src   | IP dst   | ports proto tos flags ttl |
//!   line 2   | stamp | outcome | generation plan handles seen | four slots | four values | epoch |
//! ```
//!
//! The words of the key are masked by what the configuration reads ([`crate::Needs`]).
//!
//! # Invariants
//! * An entry with an older generation is as good as empty: another topology, or plans that were forgotten since.
//! * Counters of a flow are beside the entries, not in them: they are written once for a run of frames.

use fabnic_port::Frame;
use fabnic_wire::{EtherType, FlowFields, FlowFlags, IpProtocol};
use zerocopy::FromZeros;

use crate::cache::Outcome;
use crate::versions::{Version, Versions};

const WAYS: usize = 4;
const FIRST_SETS: usize = 256;

/// How many versions a decision may depend on.
pub(crate) const DEPENDENCIES: usize = 4;

/// Bytes that [`DeepKey::of_plain`] looks at.
pub(crate) const PLAIN: usize = 38;

/// The exact key of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub(crate) struct DeepKey(pub(crate) [u64; 8]);

/// A key as it was read, with what else the reading told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) key: DeepKey,
    /// The outer tag as it came, if it is of the port's kind.
    pub(crate) tci: Option<u16>,
}

impl DeepKey {
    /// Reads the key of a frame that came by a port whose tags begin with `tpid`. `None` for a runt: shorter than an Ethernet
    /// header, or than one with such a tag that it announces.
    #[inline(always)]
    pub(crate) fn read(frame: &Frame, (ingress, tpid): (u32, [u8; 2]), mask: &[u64; 8]) -> Option<Read> {
        let head = frame.head();
        let first: &[u8; 14] = head.first_chunk()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *first;
        let front = u64::from_le_bytes([d0, d1, d2, d3, d4, d5, s0, s1]);
        let back = u64::from(u32::from_le_bytes([s2, s3, s4, s5])) | u64::from(ingress) << 32;
        let mut kind = EtherType(u16::from_be_bytes([t0, t1]));
        let (mut l3, mut tags, mut tci) = (14, 0_u64, None);
        if kind.is_tag() {
            (kind, l3, tags, tci) = read_tags(head, kind, EtherType(u16::from_be_bytes(tpid)))?;
        }
        let flow = FlowFields::at(head, l3, kind);
        let mut flags = 0;
        let mut ttl = 0;
        if mask[7] >> 56 != 0 || mask[2] & 0x00ff_0000_0000_0000 != 0 {
            (ttl, flags) = read_more(head, l3, kind, &flow);
        }
        let [a, b, c, d, last] = flow.words();
        let third = u64::from(kind.0) | tags | flags << 48;
        let words = [front, back, third, a, b, c, d, last | ttl << 56];
        let mut key = DeepKey(words);
        for (word, mask) in key.0.iter_mut().zip(mask) {
            *word &= mask;
        }
        Some(Read { key, tci })
    }

    /// The key of a frame that is what nearly all are: untagged IPv4 without options, not a fragment, TCP or UDP. `more`:
    /// TTL and TCP flags are read too. The same key as [`DeepKey::read`] gives.
    #[inline(always)]
    pub(crate) fn of_plain(
        first: &[u8; PLAIN],
        ingress: u64,
        mask: &[u64; 8],
        tcp_flags: Option<u8>,
    ) -> Option<DeepKey> {
        let word =
            |at: usize| first.get(at..).and_then(|rest| rest.first_chunk()).map(|b| u64::from_le_bytes(*b));
        let half =
            |at: usize| first.get(at..).and_then(|rest| rest.first_chunk()).map(|b| u32::from_le_bytes(*b));
        let (front, back) = (word(0)?, half(8)?);
        // EtherType, version and header length, TOS: one load.
        let (kind, fragment) = (half(12)?, half(20)?);
        let protocol = fragment >> 24;
        let is_plain = kind & 0x00ff_ffff == 0x0045_0008
            && fragment & 0xff3f == 0
            && (protocol == IpProtocol::TCP.0.into() || protocol == IpProtocol::UDP.0.into());
        if !is_plain {
            return None;
        }
        let (src, dst, ports) = (half(26)?, half(30)?, half(34)?);
        // Both ports in the CPU's order, the source's below.
        let ports = ports.swap_bytes().rotate_left(16);
        let tos = u64::from(kind >> 24);
        let known = u64::from(FlowFlags::IP.0 | FlowFlags::PORTS.0);
        let ttl = u64::from(fragment >> 16 & 0xff);
        let flags = tcp_flags.filter(|_| protocol == IpProtocol::TCP.0.into()).map_or(0, u64::from);
        let last = u64::from(ports) | u64::from(protocol) << 32 | tos << 40 | known << 48 | ttl << 56;
        let [_, _, third, ip, .., rest] = *mask;
        Some(DeepKey([
            front,
            u64::from(back) | ingress,
            (u64::from(EtherType::IPV4.0) | flags << 48) & third,
            u64::from(src) & ip,
            0,
            u64::from(dst) & ip,
            0,
            last & rest,
        ]))
    }

    /// Whether two keys are the same. What tells most keys apart first, the others in one go.
    #[inline(always)]
    pub(crate) fn is(&self, other: &DeepKey) -> bool {
        if self.0[7] != other.0[7] || self.0[0] != other.0[0] {
            return false;
        }
        let mut differs = 0;
        for (one, other) in self.0.iter().zip(&other.0) {
            differs |= one ^ other;
        }
        differs == 0
    }

    /// A hash with a secret: whoever chooses the fields cannot choose where they fall. The sum of products of UMAC's NH
    /// (RFC 4418), whose words each have a secret of their own.
    #[inline(always)]
    pub(crate) fn hash(&self, secret: &[u64; 8]) -> u64 {
        let [a, b, c, d, e, f, g, h] = self.0;
        let [s, t, u, v, w, x, y, z] = *secret;
        let product = |one: u64, its: u64, other: u64, others: u64| {
            u128::from(one.wrapping_add(its)) * u128::from(other.wrapping_add(others))
        };
        let sum = product(a, s, b, t)
            .wrapping_add(product(c, u, h, z))
            .wrapping_add(product(d, v, f, x))
            .wrapping_add(product(e, w, g, y));
        let folded = (sum >> 64) as u64 ^ sum as u64;
        folded ^ (folded >> 29)
    }
}

/// EtherType and place of what follows the tags; the tags as they stand in the third word; the outer tag, if it is of the
/// port's kind.
#[inline(never)]
fn read_tags(head: &[u8], outer: EtherType, own: EtherType) -> Option<(EtherType, usize, u64, Option<u16>)> {
    let Some(&[i0, i1, t0, t1]) = head.get(14..).and_then(<[u8]>::first_chunk) else {
        // A tag of another kind without what it tags is an EtherType that is not looked behind.
        return (outer != own).then_some((outer, 14, 0, None));
    };
    let tci = u16::from_be_bytes([i0, i1]);
    // A tag of one kind is another than one of another kind and the same number, and any is another than none.
    let number = |kind: EtherType| match kind {
        EtherType::VLAN => 1,
        EtherType::QINQ => 2,
        _ => 3,
    };
    let mut tags = u64::from(tci) << 16 | number(outer) << 56;
    let kind = EtherType(u16::from_be_bytes([t0, t1]));
    let outer = (outer == own).then_some(tci);
    if !kind.is_tag() {
        return Some((kind, 18, tags, outer));
    }
    let Some(&[i0, i1, t0, t1]) = head.get(18..).and_then(<[u8]>::first_chunk) else {
        return Some((kind, 18, tags, outer));
    };
    tags |= u64::from(u16::from_be_bytes([i0, i1])) << 32 | number(kind) << 58;
    Some((EtherType(u16::from_be_bytes([t0, t1])), 22, tags, outer))
}

/// TTL and TCP flags.
#[inline(never)]
fn read_more(head: &[u8], l3: usize, kind: EtherType, flow: &FlowFields) -> (u64, u64) {
    let byte = |at: usize| head.get(at).copied().map_or(0, u64::from);
    let ttl = match kind {
        EtherType::IPV4 => byte(l3 + 8),
        EtherType::IPV6 => byte(l3 + 7),
        _ => return (0, 0),
    };
    if flow.protocol() != IpProtocol::TCP {
        return (ttl, 0);
    }
    let flags = fabnic_wire::Fields::of(head).map_or(0, |fields| u64::from(fields.tcp_flags.0));
    (ttl, flags)
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remember {
    pub(crate) outcome: Outcome,
    /// Number of its plan; 0: nothing to be done.
    pub(crate) plan: u32,
    /// The connections that its packets are tracked on, by their handles; 0 for none.
    pub(crate) handles: [u32; 2],
    pub(crate) depends: [Version; DEPENDENCIES],
    /// What rules have marked it with.
    pub(crate) mark: u32,
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
    pub(crate) outcome: Outcome,
    pub(crate) plan: u32,
    pub(crate) handles: [u32; 2],
    /// What rules have marked its frames with.
    pub(crate) mark: u32,
    /// Where it is, for [`DeepCache::count`].
    pub(crate) place: u32,
}

impl Found {
    /// Nothing was decided, and nothing is to be done.
    pub(crate) const NOTHING: Found =
        Found { outcome: Outcome::NOTHING, plan: 0, handles: [0; 2], mark: 0, place: u32::MAX };
}

/// Two cache lines.
#[derive(FromZeros)]
#[repr(C, align(64))]
struct Entry {
    key: DeepKey,
    /// The moment at which the entry was last found good.
    stamp: u64,
    outcome: Outcome,
    /// 0 in an entry that was never used.
    generation: u32,
    plan: u32,
    /// The connections that its packets are tracked on; 0 for none.
    handles: [u32; 2],
    /// Tick at which the source was last refreshed in the FDB.
    seen: u32,
    slots: [u16; DEPENDENCIES],
    values: [u32; DEPENDENCIES],
    /// Lower half of the epoch of the rules that it was made under.
    epoch: u32,
    /// What rules have marked its frames with.
    mark: u32,
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
}

/// The cache of one worker.
pub(crate) struct DeepCache {
    sets: Vec<[Entry; WAYS]>,
    counts: Vec<[FlowCount; WAYS]>,
    max_sets: usize,
    secret: [u64; 8],
    crowded: usize,
    victim: usize,
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
        let mut cache =
            DeepCache { sets: Vec::new(), counts: Vec::new(), max_sets, secret, crowded: 0, victim: 0 };
        cache.resize(FIRST_SETS);
        cache
    }

    fn resize(&mut self, sets: usize) {
        // Zeroed memory straight from the system: pages that are never hit are never touched.
        let entries = <[Entry; WAYS]>::new_vec_zeroed(sets).unwrap_or_default();
        let counts = <[FlowCount; WAYS]>::new_vec_zeroed(sets).unwrap_or_default();
        if entries.len() == sets && counts.len() == sets {
            (self.sets, self.counts) = (entries, counts);
        }
    }

    /// The set of a key, and the way in it that is looked at first: were that always the same one, a few flows would crowd
    /// into a few of the CPU's own cache lines.
    #[inline(always)]
    fn place(&self, key: &DeepKey) -> (usize, usize) {
        let hash = key.hash(&self.secret);
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
        let (set, way) = self.place(key);
        if let Some(first) = self.sets.get(set).and_then(|set| set.get(way)) {
            fabnic_memory::prefetch(&first.key);
            fabnic_memory::prefetch(&first.stamp);
        }
    }

    /// What was decided for a key, if one of the first two entries that are looked at says so and is stamped.
    #[inline(always)]
    pub(crate) fn glance(&self, key: &DeepKey, stamp: u64) -> Option<Found> {
        let (place, way) = self.place(key);
        let set = self.sets.get(place)?;
        let look = |way: usize| {
            let entry = set.get(way)?;
            (entry.stamp == stamp && entry.key.is(key)).then(|| Found {
                outcome: entry.outcome,
                plan: entry.plan,
                handles: entry.handles,
                mark: entry.mark,
                place: (place * WAYS + way) as u32,
            })
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
        judge: impl FnOnce(u64, Outcome, u32) -> Option<u64>,
    ) -> Option<Found> {
        let (place, _) = self.place(key);
        let set = self.sets.get_mut(place)?;
        let way = set.iter().position(|entry| entry.key.is(key))?;
        let entry = set.get_mut(way)?;
        let judge = |epoch, entry: &Entry| judge(epoch, entry.outcome, entry.plan);
        let good = entry.stamp == under.stamp || entry.revalidate(versions, under, refresh, judge);
        good.then_some(Found {
            outcome: entry.outcome,
            plan: entry.plan,
            handles: entry.handles,
            mark: entry.mark,
            place: (place * WAYS + way) as u32,
        })
    }

    /// Remembers a decision. In a full set it takes the place of a stale entry, else of any.
    pub(crate) fn insert(&mut self, key: &DeepKey, what: &Remember, under: Under) -> u32 {
        let (place, first) = self.place(key);
        self.victim = (self.victim + 1) % WAYS;
        let victim = self.victim;
        let Some(set) = self.sets.get_mut(place) else { return u32::MAX };
        let own = set.iter().position(|entry| entry.key == *key && entry.generation != 0);
        let is_free = |way: &usize| set.get(*way).is_some_and(|entry| entry.generation != under.generation);
        let free = || (0..WAYS).map(|way| way ^ first).find(is_free);
        let way = own.or_else(free).unwrap_or_else(|| {
            self.crowded += 1;
            victim
        });
        let Some(entry) = set.get_mut(way) else { return u32::MAX };
        *entry = Entry {
            key: *key,
            stamp: under.stamp,
            outcome: what.outcome,
            generation: under.generation,
            plan: what.plan,
            handles: what.handles,
            seen: under.tick,
            slots: what.depends.map(|version| version.slot as u16),
            values: what.depends.map(|version| version.value),
            epoch: under.epoch as u32,
            mark: what.mark,
        };
        if own.is_none()
            && let Some(count) = self.counts.get_mut(place).and_then(|counts| counts.get_mut(way))
        {
            *count = FlowCount::default();
        }
        (place * WAYS + way) as u32
    }

    /// Counts a run of frames to the flow at a place that [`DeepCache::find`] or [`DeepCache::insert`] gave.
    #[inline(always)]
    pub(crate) fn count(&mut self, place: u32, frames: u64, bytes: u64) {
        let (set, way) = (place as usize / WAYS, place as usize % WAYS);
        if let Some(count) = self.counts.get_mut(set).and_then(|counts| counts.get_mut(way)) {
            count.frames += frames;
            count.bytes += bytes;
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
        let counts = self.counts.get(from..end).unwrap_or(&[]).iter().flatten();
        for (entry, count) in entries.zip(counts) {
            if entry.generation == generation && count.frames > 0 {
                each(&entry.key, entry.outcome, *count);
            }
        }
        if end == self.sets.len() { 0 } else { end }
    }

    /// Grows if it has become crowded. Allocates: to be called between bursts, now and then.
    pub(crate) fn grow_if_crowded(&mut self) {
        let sets = self.sets.len();
        if self.crowded > sets / 4 && sets < self.max_sets {
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
mod tests {
    use fabnic_memory::Map;
    use fabnic_port::Burst;
    use proptest::prelude::*;

    use super::*;
    use crate::needs::Needs;

    proptest! {
        #[test]
        fn the_short_way_reads_the_same_key(
            mut bytes in prop::collection::vec(any::<u8>(), 38..70),
            needs in any::<u16>(),
            plain in prop::collection::vec(any::<bool>(), 4),
        ) {
            // Nearly always a plain packet, now and then one that differs in one thing.
            let put = |bytes: &mut Vec<u8>, at: usize, with: &[u8]| bytes[at..at + with.len()].copy_from_slice(with);
            put(&mut bytes, 12, &[8, 0]);
            if plain[0] { bytes[14] = 0x45; }
            if plain[1] { bytes[20] &= 0xc0; bytes[21] = 0; }
            if plain[2] { bytes[23] = if bytes[23] & 1 == 0 { 6 } else { 17 }; }
            let needs = Needs::from_bits_truncate(needs);
            let mask = needs.mask();
            let (map, _) = Map::anonymous(4096).unwrap();
            let mut burst = Burst::new();
            burst.begin(&map);
            let frame = burst.push_bytes(&bytes).unwrap();
            let first = frame.plain_chunk::<PLAIN>().unwrap();
            let more = needs.intersects(Needs::TTL | Needs::TCP_FLAGS);
            let flags = if more { frame.head().get(47).copied() } else { None };
            let short = DeepKey::of_plain(first, 7 << 32, &mask, flags);
            let long = DeepKey::read(frame, (7, [0x81, 0]), &mask).unwrap();
            prop_assert_eq!(long.tci, None);
            match short {
                Some(short) => prop_assert_eq!(short, long.key),
                None => prop_assert!(!(plain[0] && plain[1] && plain[2])),
            }
        }
    }
}
