//! The forwarding database: which address is behind which port, per VLAN.
//!
//! Shared by all workers. It is off the fast path: a worker comes here when its flow cache misses, and once a tick for
//! each flow that is alive, to keep its source from ageing out. The table is cut into shards, each behind its own lock.
//!
//! What a flow cache may remember of it is guarded by [`crate::versions`]: learning, moving, forgetting an address raises
//! the counter that it falls on; a cached decision holds the counters of its source and its destination.
//!
//! # Who may move
//! ```text
//!   learned --another port--> moves there, counted; too often in a window: frozen where it is (`damping`)
//!   sticky  --another port--> stays as long as it lives; ages out like a learned one
//!   static  --another port--> stays, and does not age
//! ```
//! An address that may not move is no reason to drop the frame that said so: it goes on, and nothing is learned.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::{MacAddr, Vid};
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use parking_lot::Mutex;
use std::hash::BuildHasher;

use crate::damping::{Damping, Freeze, MoveDamping, Moves};
use crate::stats::FdbStats;
use crate::versions::{Version, Versions};

const SHARDS: usize = 256;

/// Seconds since the switch was started, as the pipeline counts time.
pub(crate) type Tick = u32;

/// How an entry came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbKind {
    /// From a frame's source address; moves with its station, and ages out.
    Learned,
    /// Learned on a port whose addresses stick ([`crate::PortSettings::sticky`]): ages out, but never moves.
    Sticky,
    /// By configuration; stays, and is never moved by learning.
    Static,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The VLAN.
    pub vlan: Vid,
    /// The address.
    pub mac: MacAddr,
    /// The port it is behind.
    pub port: PortId,
    /// How it came to be.
    pub kind: FdbKind,
    /// Second, since the start, at which it was last seen as a source.
    pub seen: u32,
    /// How often it changed its port.
    pub moves: u32,
    /// Second, since the start, until which it is held on its port because it moved too often.
    pub frozen_until: Option<u32>,
    /// Its moves of late.
    pub(crate) lately: Moves,
}

impl FdbEntry {
    fn new(vlan: Vid, mac: MacAddr, port: PortId, kind: FdbKind, seen: Tick) -> FdbEntry {
        FdbEntry { vlan, mac, port, kind, seen, moves: 0, frozen_until: None, lately: Moves::default() }
    }

    fn key(&self) -> u64 {
        key(self.vlan, self.mac)
    }
}

fn key(vlan: Vid, mac: MacAddr) -> u64 {
    (u64::from(vlan.get()) << 48) | mac.to_u64()
}

/// Why an entry could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FdbError {
    /// The table is full.
    #[error("the forwarding database holds {max} entries, its limit")]
    Full {
        /// The limit.
        max: u32,
    },
    /// Not the address of one station.
    #[error("{mac} is a multicast address or zero, expected the address of one station")]
    NotUnicast {
        /// The address.
        mac: MacAddr,
    },
}

/// Why an address was not learned.
enum NoRoom {
    OnPort,
    InTable,
}

/// What a port has learned and may learn.
#[derive(Debug, Default)]
pub(crate) struct PortQuota {
    learned: AtomicU32,
    limit: AtomicU32,
    /// What is learned here sticks.
    sticky: AtomicBool,
}

impl PortQuota {
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(crate) fn set_sticky(&self, sticky: bool) {
        self.sticky.store(sticky, Ordering::Relaxed);
    }

    /// What an address learned here becomes.
    fn kind(&self) -> FdbKind {
        if self.sticky.load(Ordering::Relaxed) { FdbKind::Sticky } else { FdbKind::Learned }
    }

    /// Takes one place, if there is one.
    fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let take = |learned: u32| (learned < limit).then(|| learned + 1);
        self.learned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self) {
        let less = |learned: u32| learned.checked_sub(1);
        // At zero there is nothing to give back: the quota was made anew for a port that came again.
        let _ = self.learned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The forwarding database.
pub struct Fdb {
    shards: Box<[Mutex<HashTable<FdbEntry>>]>,
    versions: Arc<Versions>,
    quotas: Mutex<HashMap<PortId, Arc<PortQuota>>>,
    /// Entries in all shards together.
    count: PortQuota,
    max: u32,
    damping: Damping,
    hasher: RandomState,
}

impl core::fmt::Debug for Fdb {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Fdb").field("entries", &self.len()).field("max", &self.max).finish_non_exhaustive()
    }
}

impl Fdb {
    /// An empty table for at most `max` entries.
    pub fn new(max: u32) -> Fdb {
        Fdb::with_versions(max, Arc::new(Versions::new()))
    }

    /// An empty table whose changes raise these versions.
    pub(crate) fn with_versions(max: u32, versions: Arc<Versions>) -> Fdb {
        let count = PortQuota::default();
        count.set_limit(max);
        Fdb {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            versions,
            quotas: Mutex::default(),
            count,
            max,
            damping: Damping::default(),
            hasher: RandomState::default(),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.count.learned.load(Ordering::Relaxed) as usize
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn quota(&self, port: PortId) -> Arc<PortQuota> {
        Arc::clone(self.quotas.lock().entry(port).or_default())
    }

    fn shard(&self, hash: u64) -> &Mutex<HashTable<FdbEntry>> {
        // SHARDS is a power of two, so that the index is always inside; the fallback is for the compiler.
        self.shards.get((hash >> 56) as usize % SHARDS).unwrap_or(&self.shards[0])
    }

    /// The counter of an address now. To be read *before* the address is looked up.
    pub(crate) fn version_of(&self, vlan: Vid, mac: MacAddr) -> Version {
        self.versions.of(self.hasher.hash_one(key(vlan, mac)))
    }

    /// Where an address is.
    pub fn lookup(&self, vlan: Vid, mac: MacAddr) -> Option<FdbEntry> {
        let key = key(vlan, mac);
        let hash = self.hasher.hash_one(key);
        self.shard(hash).lock().find(hash, |entry| entry.key() == key).copied()
    }

    /// What changes when a place becomes free on a port, or in the table where it was full.
    fn room_hash(&self, port: Option<PortId>) -> u64 {
        self.hasher.hash_one(port.map_or(u64::MAX, |port| u64::MAX - 1 - u64::from(port.0)))
    }

    fn touch_room(&self, port: Option<PortId>) {
        self.versions.raise(self.room_hash(port));
    }

    /// Notes that an address was seen as a source on a port. A static entry stays as it is, a sticky or a frozen one stays
    /// where it is; a full table or a port at its limit learns nothing. Gives the version on which it depends that this need
    /// not be done again.
    pub(crate) fn learn(
        &self,
        vlan: Vid,
        mac: MacAddr,
        port: PortId,
        quota: &PortQuota,
        now: Tick,
    ) -> Version {
        let room = |port| self.versions.of(self.room_hash(port));
        // Both are read before it is tried, so that a place that becomes free meanwhile is noticed.
        let (room_on_port, room_in_table) = (room(Some(port)), room(None));
        match self.try_learn(vlan, mac, port, quota, now) {
            // Read afterwards: our own change is no reason to decide again. If somebody else moved the address in
            // between, the flow keeps its decision until its source is refreshed: it concerns ageing only.
            Ok(()) => self.version_of(vlan, mac),
            Err(NoRoom::OnPort) => {
                self.damping.full_ports.add(1);
                room_on_port
            }
            Err(NoRoom::InTable) => {
                self.damping.full_table.add(1);
                room_in_table
            }
        }
    }

    fn try_learn(
        &self,
        vlan: Vid,
        mac: MacAddr,
        port: PortId,
        quota: &PortQuota,
        now: Tick,
    ) -> Result<(), NoRoom> {
        let key = key(vlan, mac);
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).lock();
        match shard.entry(hash, |entry| entry.key() == key, |entry| self.hasher.hash_one(entry.key())) {
            Slot::Occupied(mut slot) => {
                let entry = slot.get_mut();
                if entry.kind == FdbKind::Static {
                    return Ok(());
                }
                if entry.port != port {
                    if entry.kind == FdbKind::Sticky {
                        self.damping.refused.add(1);
                        return Ok(());
                    }
                    if !quota.take() {
                        return Err(NoRoom::OnPort);
                    }
                    if self.must_stay(entry, port, now) {
                        quota.give_back();
                        self.damping.refused.add(1);
                        return Ok(());
                    }
                    let before = core::mem::replace(&mut entry.port, port);
                    entry.moves = entry.moves.saturating_add(1);
                    entry.frozen_until = None;
                    self.damping.moved(&mut entry.lately, now);
                    self.versions.raise(hash);
                    self.quota(before).give_back();
                    self.touch_room(Some(before));
                }
                (entry.seen, entry.kind) = (now, quota.kind());
            }
            Slot::Vacant(slot) => {
                if !quota.take() {
                    return Err(NoRoom::OnPort);
                }
                if !self.count.take() {
                    quota.give_back();
                    return Err(NoRoom::InTable);
                }
                slot.insert(FdbEntry::new(vlan, mac, port, quota.kind(), now));
                self.damping.learned.add(1);
                self.versions.raise(hash);
            }
        }
        Ok(())
    }

    /// Makes a static entry, in the place of any other for the address.
    pub fn add_static(&self, vlan: Vid, mac: MacAddr, port: PortId) -> Result<(), FdbError> {
        if !mac.is_unicast() || mac.is_zero() {
            return Err(FdbError::NotUnicast { mac });
        }
        let key = key(vlan, mac);
        let hash = self.hasher.hash_one(key);
        let mut entry = FdbEntry::new(vlan, mac, port, FdbKind::Static, 0);
        let mut shard = self.shard(hash).lock();
        match shard.entry(hash, |held| held.key() == key, |held| self.hasher.hash_one(held.key())) {
            Slot::Occupied(mut slot) => {
                entry.moves = slot.get().moves;
                let before = core::mem::replace(slot.get_mut(), entry);
                if before.kind != FdbKind::Static {
                    self.quota(before.port).give_back();
                    self.touch_room(Some(before.port));
                }
            }
            Slot::Vacant(slot) => {
                if !self.count.take() {
                    return Err(FdbError::Full { max: self.max });
                }
                slot.insert(entry);
            }
        }
        self.versions.raise(hash);
        Ok(())
    }

    /// Removes the entry of an address; gives it.
    pub fn remove(&self, vlan: Vid, mac: MacAddr) -> Option<FdbEntry> {
        let key = key(vlan, mac);
        let hash = self.hasher.hash_one(key);
        let entry = match self.shard(hash).lock().find_entry(hash, |entry| entry.key() == key) {
            Ok(found) => found.remove().0,
            Err(_) => return None,
        };
        self.forgotten(hash, &entry);
        Some(entry)
    }

    fn forgotten(&self, hash: u64, entry: &FdbEntry) {
        self.versions.raise(hash);
        self.count.give_back();
        self.touch_room(None);
        if entry.kind != FdbKind::Static {
            self.quota(entry.port).give_back();
            self.touch_room(Some(entry.port));
        }
    }

    /// Removes all entries of which `gone` says so; gives how many. Locks one shard at a time.
    pub fn remove_where(&self, mut gone: impl FnMut(&FdbEntry) -> bool) -> usize {
        let mut removed = Vec::new();
        let mut total = 0;
        for shard in &self.shards {
            shard.lock().extract_if(|entry| gone(entry)).for_each(|entry| removed.push(entry));
            total += removed.len();
            for entry in removed.drain(..) {
                self.forgotten(self.hasher.hash_one(entry.key()), &entry);
            }
        }
        total
    }

    /// Removes learned entries that were last seen more than `ageing` seconds before `now`.
    pub(crate) fn age(&self, now: Tick, ageing: u32) -> usize {
        let gone = self
            .remove_where(|entry| entry.kind != FdbKind::Static && now.saturating_sub(entry.seen) > ageing);
        self.damping.aged.add(gone as u64);
        gone
    }

    /// Whether an address may not move to `wanted` because it moved too often. Freezes it, if this is the move too many.
    fn must_stay(&self, entry: &mut FdbEntry, wanted: PortId, now: Tick) -> bool {
        if entry.frozen_until.is_some_and(|until| now < until) {
            return true;
        }
        let key = entry.key();
        let Some(until) = self.damping.judge(&mut entry.lately, key, now) else { return false };
        entry.frozen_until = Some(until);
        self.damping.report(Freeze {
            vlan: entry.vlan,
            mac: entry.mac,
            port: entry.port,
            wanted,
            at: now,
            until,
        });
        true
    }

    /// Lets addresses move again whose time has come. What was decided while they were frozen is decided anew.
    pub(crate) fn thaw(&self, now: Tick) {
        while let Some(key) = self.damping.due(now) {
            self.versions.raise(self.hasher.hash_one(key));
        }
    }

    /// Changes when addresses that keep moving are held where they are; `None`: never. Those that are held stay so for
    /// their time.
    pub fn set_damping(&self, damping: Option<MoveDamping>) {
        self.damping.set(damping);
    }

    /// What was counted since the start.
    pub fn stats(&self) -> FdbStats {
        self.damping.stats()
    }

    /// The last addresses that were frozen, oldest first; at most [`crate::FREEZES_KEPT`].
    pub fn freezes(&self) -> Vec<Freeze> {
        self.damping.freezes()
    }

    /// Removes everything that points to one of these ports, and their quotas. For ports that are no more.
    pub(crate) fn remove_ports(&self, ports: &HashSet<PortId>) {
        if !ports.is_empty() {
            self.remove_where(|entry| ports.contains(&entry.port));
            self.quotas.lock().retain(|port, _| !ports.contains(port));
        }
    }

    /// All entries, in no particular order. Locks one shard at a time.
    pub fn entries(&self) -> Vec<FdbEntry> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(shard.lock().iter());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vid(n: u16) -> Vid {
        Vid::new(n).unwrap()
    }

    fn mac(n: u64) -> MacAddr {
        MacAddr::from_u64(0x0200_0000_0000 | n)
    }

    fn table(max: u32, limit: u32) -> (Fdb, Arc<PortQuota>, Arc<PortQuota>) {
        let fdb = Fdb::new(max);
        let (a, b) = (fdb.quota(PortId(1)), fdb.quota(PortId(2)));
        a.set_limit(limit);
        b.set_limit(limit);
        (fdb, a, b)
    }

    #[test]
    fn learns_moves_and_ages() {
        let (fdb, a, b) = table(100, 100);
        let before = fdb.version_of(vid(1), mac(1));
        fdb.learn(vid(1), mac(1), PortId(1), &a, 5);
        assert_ne!(fdb.version_of(vid(1), mac(1)), before);
        assert_eq!(fdb.lookup(vid(1), mac(1)).unwrap().port, PortId(1));
        assert!(fdb.lookup(vid(2), mac(1)).is_none(), "per VLAN");
        let before = fdb.version_of(vid(1), mac(1));
        fdb.learn(vid(1), mac(1), PortId(1), &a, 9);
        assert_eq!(fdb.version_of(vid(1), mac(1)), before, "seen again changes no decision");
        fdb.learn(vid(1), mac(1), PortId(2), &b, 10);
        assert_ne!(fdb.version_of(vid(1), mac(1)), before);
        let entry = fdb.lookup(vid(1), mac(1)).unwrap();
        assert_eq!((entry.port, entry.moves, entry.seen), (PortId(2), 1, 10));
        assert_eq!(fdb.age(310, 300), 0);
        assert_eq!(fdb.age(311, 300), 1);
        assert!(fdb.is_empty());
    }

    #[test]
    fn limits_hold_for_a_port_and_for_all() {
        let (fdb, a, b) = table(15, 10);
        for n in 0..20 {
            fdb.learn(vid(1), mac(n), PortId(1), &a, 0);
        }
        assert_eq!(fdb.len(), 10);
        for n in 20..40 {
            fdb.learn(vid(1), mac(n), PortId(2), &b, 0);
        }
        assert_eq!(fdb.len(), 15);
        assert_eq!(fdb.add_static(vid(1), mac(50), PortId(1)), Err(FdbError::Full { max: 15 }));
        fdb.remove(vid(1), mac(0)).unwrap();
        fdb.learn(vid(1), mac(60), PortId(1), &a, 0);
        assert_eq!(
            fdb.lookup(vid(1), mac(60)).unwrap().port,
            PortId(1),
            "a place that was given back is free"
        );
        fdb.remove_ports(&HashSet::from([PortId(1)]));
        assert_eq!(fdb.len(), 5);
    }

    #[test]
    fn static_entries_stay() {
        let (fdb, a, _) = table(10, 10);
        fdb.learn(vid(1), mac(1), PortId(1), &a, 0);
        fdb.add_static(vid(1), mac(1), PortId(2)).unwrap();
        fdb.learn(vid(1), mac(1), PortId(1), &a, 1);
        assert_eq!(fdb.lookup(vid(1), mac(1)).unwrap().port, PortId(2));
        assert_eq!(fdb.age(1_000_000, 1), 0);
        assert_eq!(fdb.len(), 1);
        let group = MacAddr::from_u64(0x0100_5e00_0001);
        assert_eq!(fdb.add_static(vid(1), group, PortId(2)), Err(FdbError::NotUnicast { mac: group }));
    }
}
