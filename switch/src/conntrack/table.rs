//! The table of connections: found by either direction's tuple, bounded, forgotten in time.
//!
//! ```text
//!   shard = hash >> 58:  entries (slot numbers) by hash,  wheel of those whose original tuple falls on the shard
//!   quotas: table, zone, port        taken before a connection is made, given back when it is forgotten
//! ```
//!
//! A tuple and its reverse have the same hash, so a connection without translation is one entry; one with is two, in two
//! shards.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::{EtherType, Fields, FlowFlags, IpProtocol};
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use super::connection::{Direction, Handle, Live, MAX_SLOTS, Packet, Tracked};
use super::fragments::{Datagram, Fragments};
use super::related::{Carried, is_error};
use super::settings::{Owner, Quota, Zone, ZoneSettings};
use super::slab::Slab;
use super::state::CtState;
use super::tcp::Tcp;
use super::tuple::Tuple;
use super::wheel::Wheel;
use crate::versions::{Version, Versions};

mod commit;
mod list;
mod saved;
mod track;

pub use list::ConnectionPage;
pub(crate) use track::TrackedRun;

const SHARDS: usize = 64;

/// What the table has counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackCounters {
    /// Connections now.
    pub connections: u32,
    /// The most there have been at once.
    pub peak: u32,
    /// Refused because the table was full.
    pub refused: u64,
    /// Refused because no address and port were left to translate them to.
    pub exhausted: u64,
}

/// What a look-up found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) state: CtState,
    /// The connection's mark; 0 without one.
    pub(crate) mark: u32,
    /// Its connection, if packets are to be tracked on it.
    pub(crate) handle: Option<Handle>,
    /// What it depends on, read before it was looked up.
    pub(crate) version: Version,
    /// Holds for this packet only, not for the next of its flow.
    pub(crate) of_packet: bool,
}

/// What a commit made, or found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    pub(crate) handle: Handle,
    /// Packets are to be translated.
    pub(crate) translated: bool,
    /// Its version, if it was made just now.
    pub(crate) version: Option<Version>,
}

/// Why no connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The packet opens none.
    Invalid,
    /// Table, zone or port are at their limit.
    Full,
    /// The tenant of the port is at its limit.
    TenantFull,
    /// Every address and port to translate to is taken, or the range is of the other family.
    Exhausted,
}

/// A connection, under the hash of one of its tuples.
#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u32,
    hash: u32,
}

impl Entry {
    fn new(number: u32, hash: u64) -> Entry {
        Entry { number, hash: hash as u32 }
    }

    /// What the table spreads it by: the bits that the shard was not chosen by.
    fn spread(&self) -> u64 {
        u64::from(self.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashTable<Entry>,
    wheel: Wheel,
}

impl Shard {
    fn insert(&mut self, hash: u64, number: u32) {
        let entry = Entry::new(number, hash);
        self.entries.insert_unique(entry.spread(), entry, Entry::spread);
    }

    fn remove(&mut self, hash: u64, number: u32) {
        let entry = Entry::new(number, hash);
        let found = self
            .entries
            .find_entry(entry.spread(), |there| there.number == number && there.hash == entry.hash);
        if let Ok(found) = found {
            found.remove();
        }
    }
}

/// One or two shards, locked.
struct Locked<'a> {
    /// That of the original tuple.
    one: MutexGuard<'a, Shard>,
    /// That of the answers, if it is another.
    other: Option<MutexGuard<'a, Shard>>,
}

/// All connections of a switch.
#[derive(Debug)]
pub struct Conntrack {
    shards: Box<[Mutex<Shard>; SHARDS]>,
    slab: Slab,
    versions: Arc<Versions>,
    hasher: RandomState,
    fragments: Fragments,
    quota: Quota,
    zones: Mutex<Vec<Arc<Zone>>>,
    owners: Mutex<Vec<Owner>>,
    tenants: Mutex<HashMap<u32, Owner>>,
    exhausted: AtomicU64,
    /// The shard that [`Conntrack::expire`] goes on with.
    next: AtomicU64,
}

impl Conntrack {
    /// An empty table for at most `max` connections, whose changes raise these versions.
    pub(crate) fn new(max: u32, versions: Arc<Versions>) -> Conntrack {
        let quota = Quota::new(PortId(0));
        quota.set_limit(max.min(MAX_SLOTS - 1));
        Conntrack {
            shards: Box::new(core::array::from_fn(|_| Mutex::default())),
            slab: Slab::new(max),
            versions,
            hasher: RandomState::default(),
            fragments: Fragments::default(),
            quota,
            zones: Mutex::default(),
            owners: Mutex::default(),
            tenants: Mutex::default(),
            exhausted: AtomicU64::new(0),
            next: AtomicU64::new(0),
        }
    }

    /// The zone with this number, made with the default settings if there is none.
    pub fn zone(&self, id: u16) -> Arc<Zone> {
        let mut zones = self.zones.lock();
        match zones.binary_search_by_key(&id, |zone| zone.id) {
            Ok(at) => {
                zones.get(at).cloned().unwrap_or_else(|| Arc::new(Zone::new(id, &ZoneSettings::default())))
            }
            Err(at) => {
                let zone = Arc::new(Zone::new(id, &ZoneSettings::default()));
                zones.insert(at, Arc::clone(&zone));
                zone
            }
        }
    }

    /// Makes these the zones' settings; all others get the default.
    pub(crate) fn set_zones(&self, settings: &[(u16, ZoneSettings)]) {
        for (id, _) in settings {
            self.zone(*id);
        }
        for zone in self.zones() {
            let given = settings.iter().rev().find(|(id, _)| *id == zone.id);
            zone.set(&given.map(|(_, settings)| settings.clone()).unwrap_or_default());
        }
    }

    /// All zones that were ever asked for, ascending.
    pub fn zones(&self) -> Vec<Arc<Zone>> {
        self.zones.lock().clone()
    }

    /// What a port may have, and has.
    pub fn port(&self, port: PortId) -> Arc<Quota> {
        let mut owners = self.owners.lock();
        match owners.binary_search_by_key(&port, |owner| owner.port) {
            Ok(at) => owners.get(at).cloned().unwrap_or_else(|| Arc::new(Quota::new(port))),
            Err(at) => {
                let owner = Arc::new(Quota::new(port));
                owners.insert(at, Arc::clone(&owner));
                owner
            }
        }
    }

    /// What a port of a tenant may have, and has. A port that was another tenant's until now begins anew: its connections
    /// are forgotten.
    pub(crate) fn port_of(&self, port: PortId, tenant: Option<u32>) -> Owner {
        let now = self.port(port);
        if now.tenant == tenant {
            return now;
        }
        let new = Arc::new(Quota::under(port, tenant.map(|tenant| self.tenant(tenant))));
        {
            let mut owners = self.owners.lock();
            if let Ok(at) = owners.binary_search_by_key(&port, |owner| owner.port)
                && let Some(place) = owners.get_mut(at)
            {
                *place = Arc::clone(&new);
            }
        }
        self.flush(|entry| entry.port == port);
        new
    }

    /// What the ports of a tenant may have together, and have.
    pub fn tenant(&self, tenant: u32) -> Arc<Quota> {
        let mut tenants = self.tenants.lock();
        Arc::clone(tenants.entry(tenant).or_insert_with(|| Arc::new(Quota::of_tenant(tenant))))
    }

    /// Makes these the most connections of tenants; of others there is no limit.
    pub(crate) fn set_tenants(&self, limits: impl IntoIterator<Item = (u32, u32)>) {
        self.tenants.lock().values().for_each(|tenant| tenant.set_limit(u32::MAX));
        limits.into_iter().for_each(|(tenant, limit)| self.tenant(tenant).set_limit(limit));
    }

    /// Forgets a port: its connections and what it may have.
    pub(crate) fn remove_port(&self, port: PortId) {
        self.flush(|entry| entry.port == port);
        self.owners.lock().retain(|owner| owner.port != port);
    }

    /// Connections now.
    pub fn len(&self) -> usize {
        self.quota.used() as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it has counted.
    pub fn counters(&self) -> ConntrackCounters {
        ConntrackCounters {
            connections: self.quota.used(),
            peak: self.slab.used_ever(),
            refused: self.quota.refused(),
            exhausted: self.exhausted.load(Ordering::Relaxed),
        }
    }

    fn hash(&self, tuple: &Tuple) -> u64 {
        tuple.hash(&self.hasher)
    }

    fn shard_of(hash: u64) -> usize {
        (hash >> 58) as usize % SHARDS
    }

    fn shard(&self, index: usize) -> &Mutex<Shard> {
        // SHARDS is 64 and an index comes from six bits; the fallback is for the compiler.
        self.shards.get(index).unwrap_or(&self.shards[0])
    }

    /// The slot of a live connection with this tuple, and which direction of it that is.
    fn find(&self, shard: &Shard, hash: u64, tuple: &Tuple) -> Option<(u32, Direction)> {
        let wanted = Entry::new(0, hash);
        let mut found = None;
        shard.entries.find(wanted.spread(), |entry| {
            if entry.hash != wanted.hash {
                return false;
            }
            let Some(slot) = self.slab.slot(entry.number) else { return false };
            let inner = slot.inner.lock();
            let direction = inner.live.as_ref().and_then(|live| live.direction_of(tuple));
            found = direction.map(|direction| (entry.number, direction));
            found.is_some()
        })?;
        found
    }

    /// What a rule sees of a packet. Changes nothing.
    pub(crate) fn lookup(
        &self,
        zone: &Arc<Zone>,
        fields: &Fields,
        packet: &Packet<'_>,
        now: u32,
    ) -> Standing {
        let mut seen = Standing {
            state: CtState::empty(),
            mark: 0,
            handle: None,
            version: Version { slot: 0, value: self.versions.value(0) },
            of_packet: false,
        };
        let is_ip = matches!(fields.ethertype, EtherType::IPV4 | EtherType::IPV6);
        if !is_ip || is_housekeeping(fields) {
            return seen;
        }
        seen.state = CtState::TRACKED | CtState::INVALID;
        if fields.flow.flags.has(FlowFlags::LATER) {
            seen.of_packet = true;
            let datagram = Datagram::of(&fields.flow, packet.head, packet.l3, zone.id);
            let handle = datagram.and_then(|datagram| self.fragments.find(&datagram, now));
            if let Some((handle, state, mark)) = handle.and_then(|handle| self.by_handle(handle, now)) {
                (seen.handle, seen.state, seen.mark) = (Some(handle), state, mark);
            }
            return seen;
        }
        if is_error(fields) {
            seen.of_packet = true;
            if let Some((handle, state, mark)) = self.related(zone, fields, packet, now) {
                (seen.handle, seen.state, seen.mark) = (Some(handle), state, mark);
            }
            return seen;
        }
        let Some(tuple) = Tuple::of(fields, packet.head, zone.id) else { return seen };
        let hash = self.hash(&tuple);
        seen.version = self.versions.of(hash);
        // Identifiers do not tell flows apart.
        seen.of_packet = tuple.protocol.is_icmp();
        let shard = self.shard(Conntrack::shard_of(hash)).lock();
        if let Some((number, direction)) = self.find(&shard, hash, &tuple)
            && let Some(slot) = self.slab.slot(number)
            && slot.timed.deadline.load(Ordering::Relaxed) > now
        {
            let inner = slot.inner.lock();
            let tracked = inner.peek(direction, packet);
            let handle = Handle::new(number, inner.generation, direction);
            match (tracked, &inner.live) {
                (Tracked::Valid { .. } | Tracked::Last, Some(live)) => {
                    (seen.handle, seen.state, seen.mark) = (handle, inner.state(direction), live.mark);
                    return seen;
                }
                (Tracked::Invalid, Some(live)) => {
                    seen.mark = live.mark;
                    // The next packet of the flow may well be valid.
                    seen.of_packet = true;
                    return seen;
                }
                // Opened anew: as if it were not there.
                _ => {}
            }
        }
        // Of TCP it depends on the flags.
        seen.of_packet |= tuple.protocol == IpProtocol::TCP;
        if self.opens(zone, &tuple, packet).is_some() {
            seen.state = CtState::TRACKED | CtState::NEW;
        }
        seen
    }

    /// The protocol's state of a new connection, if the packet opens one.
    fn opens(&self, zone: &Zone, tuple: &Tuple, packet: &Packet<'_>) -> Option<Option<Tcp>> {
        if tuple.protocol == IpProtocol::TCP {
            return Tcp::new(&packet.segment()?, zone.loose()).map(Some);
        }
        tuple.may_open().then_some(None)
    }

    /// A live connection by its handle, as its packets see it.
    fn by_handle(&self, number: u32, now: u32) -> Option<(Handle, CtState, u32)> {
        let handle = Handle::from_number(number)?;
        let slot = self.slab.slot(handle.slot())?;
        let inner = slot.inner.lock();
        let live = inner.live.as_ref().filter(|_| handle.is_of(inner.generation))?;
        (slot.timed.deadline.load(Ordering::Relaxed) > now)
            .then(|| (handle, inner.state(handle.direction()), live.mark))
    }

    /// The connection that an ICMP error is about.
    fn related(
        &self,
        zone: &Zone,
        fields: &Fields,
        packet: &Packet<'_>,
        now: u32,
    ) -> Option<(Handle, CtState, u32)> {
        let carried = Carried::of(fields, packet.head, zone.id)?;
        // The error goes the other way.
        let tuple = carried.tuple.reversed();
        let hash = self.hash(&tuple);
        let shard = self.shard(Conntrack::shard_of(hash)).lock();
        let (number, direction) = self.find(&shard, hash, &tuple)?;
        let slot = self.slab.slot(number)?;
        let inner = slot.inner.lock();
        let live = inner.live.as_ref()?;
        if slot.timed.deadline.load(Ordering::Relaxed) <= now {
            return None;
        }
        let mut state = CtState::TRACKED | CtState::RELATED | inner.translation();
        state.set(CtState::REPLY, direction == Direction::Reply);
        Some((Handle::new(number, inner.generation, direction)?, state, live.mark))
    }

    /// Both directions' tuples mean something else now.
    fn changed(&self, original: &Tuple, reply: &Tuple) {
        let (one, other) = (self.hash(original), self.hash(reply));
        self.versions.raise(one);
        if other != one {
            self.versions.raise(other);
        }
    }

    fn lock_both(&self, hash: u64, answers: u64) -> Locked<'_> {
        let (one, other) = (Conntrack::shard_of(hash), Conntrack::shard_of(answers));
        if one == other {
            return Locked { one: self.shard(one).lock(), other: None };
        }
        if one < other {
            let one = self.shard(one).lock();
            return Locked { one, other: Some(self.shard(other).lock()) };
        }
        let other = self.shard(other).lock();
        Locked { one: self.shard(one).lock(), other: Some(other) }
    }

    /// Forgets a connection, if it is still the one that the handle was made for. Gives whether it did.
    fn forget(&self, handle: Handle) -> bool {
        let Some(slot) = self.slab.slot(handle.slot()) else { return false };
        let mut inner = slot.inner.lock();
        if !handle.is_of(inner.generation) {
            return false;
        }
        let Some(live) = inner.end() else { return false };
        drop(inner);
        self.bury(handle.slot(), &live);
        true
    }

    /// Takes an ended connection out of table and wheel, and gives its slot back.
    fn bury(&self, number: u32, live: &Live) {
        let (hash, answers) = (self.hash(&live.original), self.hash(&live.reply));
        let Locked { mut one, mut other } = self.lock_both(hash, answers);
        one.remove(hash, number);
        if answers != hash {
            match &mut other {
                Some(other) => other.remove(answers, number),
                None => one.remove(answers, number),
            }
        }
        one.wheel.remove(number, &self.slab);
        drop((one, other));
        self.slab.give_back(number);
        let quotas =
            [Some(&*live.owner), live.owner.over.as_deref(), Some(&live.zone.quota), Some(&self.quota)];
        quotas.into_iter().flatten().for_each(Quota::give_back);
        self.versions.raise(hash);
        if answers != hash {
            self.versions.raise(answers);
        }
    }

    /// Forgets connections whose time is over; looks at some `budget` of them at most, and goes on from there at the next
    /// call. Gives how many it forgot.
    pub(crate) fn expire(&self, now: u32, budget: usize) -> usize {
        let mut over = Vec::new();
        let mut budget = budget.max(1);
        let mut forgotten = 0;
        for _ in 0..SHARDS {
            let index = self.next.load(Ordering::Relaxed) as usize % SHARDS;
            budget = self.shard(index).lock().wheel.advance(now, budget, &self.slab, &mut over);
            for number in over.drain(..) {
                forgotten += usize::from(self.forget_if_over(index, number, now));
            }
            if budget == 0 {
                break;
            }
            self.next.fetch_add(1, Ordering::Relaxed);
        }
        forgotten
    }

    fn forget_if_over(&self, shard: usize, number: u32, now: u32) -> bool {
        let Some(slot) = self.slab.slot(number) else { return false };
        let mut inner = slot.inner.lock();
        if slot.timed.deadline.load(Ordering::Relaxed) > now {
            // A packet came meanwhile, or the slot was used again.
            drop(inner);
            let mut locked = self.shard(shard).lock();
            let original = slot.inner.lock().live.as_ref().map(|live| live.original);
            if original.is_some_and(|original| Conntrack::shard_of(self.hash(&original)) == shard) {
                locked.wheel.remove(number, &self.slab);
                locked.wheel.add(number, &self.slab);
            }
            return false;
        }
        let Some(live) = inner.end() else { return false };
        drop(inner);
        live.zone.expired.fetch_add(1, Ordering::Relaxed);
        self.bury(number, &live);
        true
    }
}

/// What stations of a link tell each other about the link itself: neighbour discovery and multicast listeners (RFC 4861,
/// RFC 3810), which no connection goes with.
fn is_housekeeping(fields: &Fields) -> bool {
    fields.flow.protocol() == IpProtocol::ICMPV6 && matches!(fields.flow.src_port, 130..=137 | 143)
}
