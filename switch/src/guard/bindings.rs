//! Bindings: which address of the internet is behind which port, with which MAC address.
//!
//! The table is the switch's, one for all ports: a VLAN and an address have one owner. It says what a port may send
//! (`check`), and lets the switch answer ARP and neighbour solicitations for the owner (`answer`).
//!
//! # Who wins
//!
//! ```text
//!   static        by configuration          never replaced by what is learned
//!   dhcp, dhcp6   a trusted server said so  replaces what SLAAC claimed, and an older lease
//!   slaac         first come                replaces nothing (RFC 6620)
//! ```
//!
//! # Time and versions
//!
//! A learned binding ends with its lease; [`Bindings::expire`] removes what is due. A cached decision on a flow depends
//! on the [`Version`] of its source's slot, as it does on those of the FDB: the version is raised when the owner changes
//! and not when a lease is prolonged.
//!
//! # Invariants
//! * A port has at most as many learned bindings as its limit says, the table at most its own.
//! * The index of expiries holds exactly the bindings that expire.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::{MacAddr, Vid};
use foldhash::quality::RandomState;
use parking_lot::RwLock;

use crate::fdb::Tick;
use crate::versions::{Version, Versions};

/// How a binding came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BindingOrigin {
    /// Claimed by the first who used it (RFC 6620).
    Slaac,
    /// Given by a DHCP server.
    Dhcp,
    /// Given by a DHCPv6 server.
    Dhcp6,
    /// By configuration.
    Static,
}

impl BindingOrigin {
    fn rank(self) -> u8 {
        match self {
            BindingOrigin::Slaac => 0,
            BindingOrigin::Dhcp | BindingOrigin::Dhcp6 => 1,
            BindingOrigin::Static => 2,
        }
    }
}

/// One binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The VLAN.
    pub vlan: Vid,
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub port: PortId,
    /// With which MAC address.
    pub mac: MacAddr,
    /// How it came to be.
    pub origin: BindingOrigin,
    /// Second since the start at which it ends; `None`: it stays.
    pub expires: Option<u32>,
}

/// Why a binding was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// Somebody else has the address, with a better or an equal right.
    #[error("the address is bound to another port or MAC address")]
    Taken,
    /// The port has as many as it may have.
    #[error("the port has as many learned bindings as it may have")]
    PortFull,
    /// The table is full.
    #[error("the table of bindings is full")]
    TableFull,
}

type Key = (u16, IpAddr);

#[derive(Debug, Default)]
struct Table {
    bindings: HashMap<Key, Binding, RandomState>,
    expiries: BTreeSet<(Tick, Key)>,
    /// Learned bindings by port, and of all.
    learned: HashMap<PortId, u32>,
    all_learned: usize,
}

impl Table {
    fn take(&mut self, key: Key) -> Option<Binding> {
        let binding = self.bindings.remove(&key)?;
        if let Some(expires) = binding.expires {
            self.expiries.remove(&(expires, key));
        }
        if binding.origin != BindingOrigin::Static
            && let Some(count) = self.learned.get_mut(&binding.port)
        {
            *count = count.saturating_sub(1);
            self.all_learned = self.all_learned.saturating_sub(1);
            if *count == 0 {
                self.learned.remove(&binding.port);
            }
        }
        Some(binding)
    }

    fn put(&mut self, key: Key, binding: Binding) {
        if let Some(expires) = binding.expires {
            self.expiries.insert((expires, key));
        }
        if binding.origin != BindingOrigin::Static {
            *self.learned.entry(binding.port).or_default() += 1;
            self.all_learned += 1;
        }
        self.bindings.insert(key, binding);
    }

    fn learned(&self, port: PortId) -> u32 {
        self.learned.get(&port).copied().unwrap_or(0)
    }
}

/// The table of bindings.
pub struct Bindings {
    table: RwLock<Table>,
    versions: Arc<Versions>,
    max: usize,
    hasher: RandomState,
}

impl core::fmt::Debug for Bindings {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bindings")
            .field("bindings", &self.len())
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

fn key(vlan: Vid, address: IpAddr) -> Key {
    (vlan.get(), address)
}

impl Bindings {
    /// An empty table for at most `max` bindings, configured ones not counted, whose changes these counters tell.
    pub(crate) fn new(max: usize, versions: Arc<Versions>) -> Bindings {
        Bindings { table: RwLock::default(), versions, max, hasher: RandomState::default() }
    }

    /// Number of bindings.
    pub fn len(&self) -> usize {
        self.table.read().bindings.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who has an address.
    pub fn lookup(&self, vlan: Vid, address: IpAddr) -> Option<Binding> {
        self.table.read().bindings.get(&key(vlan, address)).copied()
    }

    /// All of them, in the order of VLANs and addresses.
    pub fn entries(&self) -> Vec<Binding> {
        let mut all: Vec<Binding> = self.table.read().bindings.values().copied().collect();
        all.sort_unstable_by_key(|binding| key(binding.vlan, binding.address));
        all
    }

    fn hash(&self, key: &Key) -> u64 {
        use core::hash::BuildHasher;
        self.hasher.hash_one(key)
    }

    /// The counter of an address now. To be read *before* the address is looked up.
    pub(crate) fn version_of(&self, vlan: Vid, address: IpAddr) -> Version {
        self.versions.of(self.hash(&key(vlan, address)))
    }

    fn raise(&self, key: &Key) {
        self.versions.raise(self.hash(key));
    }

    /// Makes a learned binding, or prolongs it, if whoever has the address has no better right. `limit` is the port's.
    ///
    /// # Errors
    /// Why it was not made.
    pub fn learn(&self, binding: Binding, limit: u32) -> Result<(), BindingError> {
        let key = key(binding.vlan, binding.address);
        let mut table = self.table.write();
        let held = table.bindings.get(&key).copied();
        let is_owner = |held: &Binding| (held.port, held.mac) == (binding.port, binding.mac);
        match held {
            Some(held) if is_owner(&held) => {
                if held.origin.rank() > binding.origin.rank() {
                    return Ok(());
                }
                // The owner is the same, so that no decision changes.
                table.take(key);
                table.put(key, binding);
                return Ok(());
            }
            Some(held) if held.origin.rank() > binding.origin.rank() => return Err(BindingError::Taken),
            Some(held) if held.origin == BindingOrigin::Slaac && binding.origin == BindingOrigin::Slaac => {
                return Err(BindingError::Taken);
            }
            Some(held) if held.origin == BindingOrigin::Static => return Err(BindingError::Taken),
            _ => {}
        }
        let own = held.filter(|held| held.port == binding.port).map_or(0, |_| 1);
        if table.learned(binding.port).saturating_sub(own) >= limit {
            return Err(BindingError::PortFull);
        }
        if held.is_none() && table.all_learned >= self.max {
            return Err(BindingError::TableFull);
        }
        table.take(key);
        table.put(key, binding);
        self.raise(&key);
        Ok(())
    }

    /// [`Bindings::learn`], if nobody has the address.
    pub(crate) fn learn_if_free(&self, binding: Binding, limit: u32) -> Result<(), BindingError> {
        match self.lookup(binding.vlan, binding.address) {
            Some(_) => Err(BindingError::Taken),
            None => self.learn(binding, limit),
        }
    }

    /// Whether [`Bindings::learn`] of a claim (SLAAC) would do, without doing it.
    pub(crate) fn could_claim(
        &self,
        vlan: Vid,
        mac: MacAddr,
        address: IpAddr,
        port: PortId,
        limit: u32,
    ) -> bool {
        let table = self.table.read();
        match table.bindings.get(&key(vlan, address)) {
            Some(held) => (held.port, held.mac) == (port, mac),
            None => table.learned(port) < limit,
        }
    }

    /// Removes the binding of an address if it was learned and belongs to this port and MAC address: it was given back.
    /// Whether there was one.
    pub(crate) fn give_back(&self, vlan: Vid, address: IpAddr, port: PortId, mac: MacAddr) -> bool {
        let key = key(vlan, address);
        let mut table = self.table.write();
        let held = table.bindings.get(&key).copied();
        let is_own = held
            .is_some_and(|held| held.origin != BindingOrigin::Static && (held.port, held.mac) == (port, mac));
        if is_own {
            table.take(key);
            self.raise(&key);
        }
        is_own
    }

    /// Removes the binding of an address, whoever has it; gives it. A configured one comes again with the next change of
    /// the configuration.
    pub fn remove(&self, vlan: Vid, address: IpAddr) -> Option<Binding> {
        let key = key(vlan, address);
        let removed = self.table.write().take(key);
        if removed.is_some() {
            self.raise(&key);
        }
        removed
    }

    /// Removes all learned bindings of which `gone` says so; gives how many.
    pub fn remove_where(&self, mut gone: impl FnMut(&Binding) -> bool) -> usize {
        let mut table = self.table.write();
        let due: Vec<Key> = table
            .bindings
            .iter()
            .filter(|(_, binding)| binding.origin != BindingOrigin::Static && gone(binding))
            .map(|(key, _)| *key)
            .collect();
        for key in &due {
            table.take(*key);
            self.raise(key);
        }
        due.len()
    }

    /// Removes what ends at `now` or before; gives how many.
    pub fn expire(&self, now: Tick) -> usize {
        // Nearly always nothing is due, and that is known without the lock of writers.
        if self.table.read().expiries.first().is_none_or(|(expires, _)| *expires > now) {
            return 0;
        }
        let mut table = self.table.write();
        let mut removed = 0;
        while let Some((expires, key)) = table.expiries.first().copied() {
            if expires > now {
                break;
            }
            table.take(key);
            self.raise(&key);
            removed += 1;
        }
        removed
    }

    /// Makes these the configured bindings, in the place of the ones before. One that is configured for two ports belongs
    /// to the first.
    pub(crate) fn configure(&self, wanted: impl IntoIterator<Item = Binding>) {
        let mut fresh: HashMap<Key, Binding, RandomState> = HashMap::default();
        for binding in wanted {
            fresh.entry(key(binding.vlan, binding.address)).or_insert(Binding {
                origin: BindingOrigin::Static,
                expires: None,
                ..binding
            });
        }
        let mut table = self.table.write();
        let gone: Vec<Key> = table
            .bindings
            .iter()
            .filter(|(key, held)| held.origin == BindingOrigin::Static && !fresh.contains_key(*key))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            table.take(key);
            self.raise(&key);
        }
        for (key, binding) in fresh {
            if table.bindings.get(&key) != Some(&binding) {
                table.take(key);
                table.put(key, binding);
                self.raise(&key);
            }
        }
    }

    /// Removes what was learned on a port that is no more.
    pub(crate) fn remove_port(&self, port: PortId) {
        self.remove_where(|binding| binding.port == port);
    }
}

#[cfg(test)]
mod tests;
