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

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
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
use crate::refusals::{FdbRefusal, FdbRefusals, Refused};
use crate::stats::FdbStats;
use crate::versions::{Version, Versions};

mod saved;

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
    /// The tenant of the port has no room.
    OfTenant,
    InTable,
}

/// Where there may be no room.
#[derive(Clone, Copy)]
enum Room {
    InTable,
    OnPort(PortId),
    OfTenant(u32),
}

/// Addresses that were learned, and the most that may be.
#[derive(Debug, Default)]
struct Places {
    learned: AtomicU32,
    limit: AtomicU32,
    /// Addresses that were not learned because of the limit.
    refused: AtomicU64,
}

impl Places {
    fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes one, if there is one.
    fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let take = |learned: u32| (learned < limit).then(|| learned + 1);
        let took = self.learned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if !took {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        took
    }

    fn add(&self, more: u32) {
        self.learned.fetch_add(more, Ordering::Relaxed);
    }

    fn give_back(&self, less: u32) {
        let less = |learned: u32| Some(learned.saturating_sub(less));
        // At zero there is nothing to give back: the quota was made anew for a port that came again.
        let _ = self.learned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn numbers(&self) -> FdbQuota {
        FdbQuota {
            learned: self.learned.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// What somebody has learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbQuota {
    /// Addresses now.
    pub learned: u32,
    /// Times that an address was not learned because there were as many as there may be. A flow that goes on counts when it
    /// is decided on, not for each frame.
    pub refused: u64,
}

/// The places of a tenant, over those of its ports.
#[derive(Clone, Debug)]
struct Over {
    tenant: u32,
    places: Arc<Places>,
}

/// What a port has learned and may learn.
#[derive(Debug, Default)]
pub(crate) struct PortQuota {
    own: Places,
    /// Why addresses that were seen here were not learned.
    refused: Refused,
    /// What is learned here sticks.
    sticky: AtomicBool,
    /// Held while places are taken and given back: both are counted, or none.
    over: Mutex<Option<Over>>,
}

impl PortQuota {
    pub(crate) fn set_limit(&self, limit: u32) {
        self.own.set_limit(limit);
    }

    pub(crate) fn set_sticky(&self, sticky: bool) {
        self.sticky.store(sticky, Ordering::Relaxed);
    }

    /// What an address learned here becomes.
    fn kind(&self) -> FdbKind {
        if self.sticky.load(Ordering::Relaxed) { FdbKind::Sticky } else { FdbKind::Learned }
    }

    /// Refusals go on from what was counted before.
    pub(crate) fn go_on(&self, refused: u64, by_cause: &[(fabnic_saved::Name, u64)]) {
        self.own.refused.fetch_add(refused, Ordering::Relaxed);
        self.refused.go_on(by_cause);
    }

    fn tenant(&self) -> Option<u32> {
        self.over.lock().as_ref().map(|over| over.tenant)
    }

    /// What is learned here is another tenant's from now on.
    fn set_over(&self, new: Option<Over>) {
        let mut over = self.over.lock();
        let learned = self.own.learned.load(Ordering::Relaxed);
        if let Some(old) = &*over {
            old.places.give_back(learned);
        }
        if let Some(new) = &new {
            new.places.add(learned);
        }
        *over = new;
    }

    /// Takes one place for an address that was in a place of tenant `from`, if it was anywhere.
    fn take(&self, from: Option<u32>) -> Result<(), NoRoom> {
        let over = self.over.lock();
        if !self.own.take() {
            return Err(NoRoom::OnPort);
        }
        match &*over {
            Some(over) if from != Some(over.tenant) && !over.places.take() => {
                self.own.give_back(1);
                Err(NoRoom::OfTenant)
            }
            _ => Ok(()),
        }
    }

    /// Gives one place back of an address that goes to a place of tenant `to`, if it goes anywhere.
    fn give_back(&self, to: Option<u32>) {
        let over = self.over.lock();
        self.own.give_back(1);
        if let Some(over) = over.as_ref().filter(|over| to != Some(over.tenant)) {
            over.places.give_back(1);
        }
    }
}

/// The forwarding database.
pub struct Fdb {
    shards: Box<[Mutex<HashTable<FdbEntry>>]>,
    versions: Arc<Versions>,
    quotas: Mutex<HashMap<PortId, Arc<PortQuota>>>,
    tenants: Mutex<HashMap<u32, Arc<Places>>>,
    /// Entries in all shards together.
    count: Places,
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
        let count = Places::default();
        count.set_limit(max);
        Fdb {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            versions,
            quotas: Mutex::default(),
            tenants: Mutex::default(),
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

    /// Makes these the most addresses that the ports of tenants may learn together; of others there is no limit.
    pub(crate) fn set_tenants(&self, limits: impl IntoIterator<Item = (u32, u32)>) {
        let mut tenants = self.tenants.lock();
        tenants.values().for_each(|places| places.set_limit(u32::MAX));
        for (tenant, limit) in limits {
            tenants.entry(tenant).or_default().set_limit(limit);
            self.touch(Room::OfTenant(tenant));
        }
    }

    /// Whose the addresses are that are learned on a port.
    pub(crate) fn set_tenant(&self, quota: &PortQuota, tenant: Option<u32>) {
        if quota.tenant() == tenant {
            return;
        }
        let over = tenant.map(|tenant| {
            let mut tenants = self.tenants.lock();
            let fresh = || {
                let places = Places::default();
                places.set_limit(u32::MAX);
                Arc::new(places)
            };
            Over { tenant, places: Arc::clone(tenants.entry(tenant).or_insert_with(fresh)) }
        });
        quota.set_over(over);
    }

    /// What the ports of a tenant have learned together.
    pub fn of_tenant(&self, tenant: u32) -> FdbQuota {
        self.tenants.lock().get(&tenant).map(|places| places.numbers()).unwrap_or_default()
    }

    /// Why addresses that were seen on a port were not learned there.
    pub fn refusals_of(&self, port: PortId) -> FdbRefusals {
        self.quotas.lock().get(&port).map(|quota| quota.refused.read()).unwrap_or_default()
    }

    /// The most entries.
    pub fn max(&self) -> u32 {
        self.max
    }

    fn refuse(&self, quota: &PortQuota, cause: FdbRefusal) {
        quota.refused.count(cause);
        self.damping.refused.count(cause);
    }

    /// What a port has learned.
    pub fn of_port(&self, port: PortId) -> FdbQuota {
        self.quotas.lock().get(&port).map(|quota| quota.own.numbers()).unwrap_or_default()
    }

    fn hash(&self, key: u64) -> u64 {
        self.hasher.hash_one(key)
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

    /// What changes when a place becomes free where there was none.
    fn room_hash(&self, room: Room) -> u64 {
        self.hasher.hash_one(match room {
            Room::InTable => u64::MAX,
            Room::OnPort(port) => u64::MAX - 1 - u64::from(port.0),
            Room::OfTenant(tenant) => u64::MAX - (1 << 40) - u64::from(tenant),
        })
    }

    fn touch(&self, room: Room) {
        self.versions.raise(self.room_hash(room));
    }

    /// A place of a port is free again.
    fn touch_port(&self, port: PortId, quota: &PortQuota) {
        self.touch(Room::OnPort(port));
        if let Some(tenant) = quota.tenant() {
            self.touch(Room::OfTenant(tenant));
        }
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
        let room = |room| self.versions.of(self.room_hash(room));
        // All are read before it is tried, so that a place that becomes free meanwhile is noticed.
        let (room_on_port, room_in_table) = (room(Room::OnPort(port)), room(Room::InTable));
        let room_of_tenant = quota.tenant().map(|tenant| room(Room::OfTenant(tenant)));
        match self.try_learn(vlan, mac, port, quota, now) {
            // Read afterwards: our own change is no reason to decide again. If somebody else moved the address in
            // between, the flow keeps its decision until its source is refreshed: it concerns ageing only.
            Ok(()) => self.version_of(vlan, mac),
            Err(NoRoom::OnPort) => {
                self.refuse(quota, FdbRefusal::PortLimit);
                room_on_port
            }
            Err(NoRoom::OfTenant) => {
                self.refuse(quota, FdbRefusal::TenantLimit);
                // Another tenant's since just now: decided anew when the configuration that says so is in force.
                room_of_tenant.unwrap_or(room_on_port)
            }
            Err(NoRoom::InTable) => {
                self.refuse(quota, FdbRefusal::TableFull);
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
                    if entry.port != port {
                        self.refuse(quota, FdbRefusal::Static);
                    }
                    return Ok(());
                }
                if entry.port != port {
                    if entry.kind == FdbKind::Sticky {
                        self.refuse(quota, FdbRefusal::Sticky);
                        return Ok(());
                    }
                    let held = self.quota(entry.port);
                    quota.take(held.tenant())?;
                    if self.must_stay(entry, port, now) {
                        quota.give_back(held.tenant());
                        self.refuse(quota, FdbRefusal::Frozen);
                        return Ok(());
                    }
                    let before = core::mem::replace(&mut entry.port, port);
                    entry.moves = entry.moves.saturating_add(1);
                    entry.frozen_until = None;
                    self.damping.moved(&mut entry.lately, now);
                    self.versions.raise(hash);
                    held.give_back(quota.tenant());
                    self.touch_port(before, &held);
                }
                (entry.seen, entry.kind) = (now, quota.kind());
            }
            Slot::Vacant(slot) => {
                quota.take(None)?;
                if !self.count.take() {
                    quota.give_back(None);
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
                    let quota = self.quota(before.port);
                    quota.give_back(None);
                    self.touch_port(before.port, &quota);
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
        self.count.give_back(1);
        self.touch(Room::InTable);
        if entry.kind != FdbKind::Static {
            let quota = self.quota(entry.port);
            quota.give_back(None);
            self.touch_port(entry.port, &quota);
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
            let mut quotas = self.quotas.lock();
            for quota in ports.iter().filter_map(|port| quotas.remove(port)) {
                quota.set_over(None);
            }
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
    fn ports_of_a_tenant_share_its_places() {
        let (fdb, a, b) = table(100, 100);
        fdb.set_tenants([(7, 3)]);
        fdb.set_tenant(&a, Some(7));
        fdb.set_tenant(&b, Some(7));
        let learn = |n: u64, port: u32, quota: &PortQuota| {
            fdb.learn(vid(1), mac(n), PortId(port), quota, 1);
            fdb.lookup(vid(1), mac(n)).map(|entry| entry.port.0)
        };
        assert_eq!([learn(1, 1, &a), learn(2, 1, &a), learn(3, 2, &b)], [Some(1), Some(1), Some(2)]);
        assert_eq!((learn(4, 1, &a), learn(5, 2, &b)), (None, None));
        assert_eq!(fdb.of_tenant(7), FdbQuota { learned: 3, refused: 2 });
        assert_eq!(fdb.of_port(PortId(1)), FdbQuota { learned: 2, refused: 0 });
        // A station that moves between its ports takes no further place.
        assert_eq!(learn(1, 2, &b), Some(2));
        assert_eq!((fdb.of_tenant(7).learned, fdb.of_port(PortId(2)).learned), (3, 2));
        // A place that becomes free is noticed by who was refused.
        let refused = fdb.learn(vid(1), mac(4), PortId(1), &a, 1);
        assert_eq!(fdb.versions.of(fdb.room_hash(Room::OfTenant(7))), refused);
        fdb.remove(vid(1), mac(3));
        assert_ne!(fdb.versions.of(fdb.room_hash(Room::OfTenant(7))), refused);
        assert_eq!(learn(4, 1, &a), Some(1));
        // A port that becomes another's takes what it has learned with it; over a limit nothing is forgotten.
        fdb.set_tenant(&b, Some(8));
        assert_eq!((fdb.of_tenant(7).learned, fdb.of_tenant(8).learned), (2, 1));
        fdb.set_tenants([(7, 1), (8, 1)]);
        assert_eq!((learn(6, 1, &a), learn(6, 2, &b), fdb.len()), (None, None, 3));
        fdb.set_tenant(&b, None);
        assert_eq!((learn(6, 2, &b), fdb.of_tenant(8).learned), (Some(2), 0));
        fdb.remove_ports(&[PortId(1), PortId(2)].into_iter().collect());
        assert_eq!((fdb.of_tenant(7).learned, fdb.len()), (0, 0));
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
