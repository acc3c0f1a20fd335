//! One VLAN: its groups with their listeners, its routers, its queriers.
//!
//! No lock and no clock: [`super::Multicast`] has the locks, the caller the time.
//!
//! # Invariants
//! * A group without a listener is not there. Entries (listeners and their sources) are counted, per port and in all, and
//!   what would go over a limit is refused as a whole record, and counted.
//! * Lists of ports are made when they are asked for, and kept as long as what they are made from stands.

use core::net::IpAddr;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::membership::{Message, Packet, Query, Records, Refusal};

use super::listener::{Ask, Listener, Millis, Times};
use super::querier::Querier;
use super::settings::{PortMulticast, Unregistered, VlanSnooping};
use super::{MulticastStats, Quota, Recipients};
use crate::topology::Topology;

mod saved;

/// The most sources of one listener.
pub(crate) const MOST_SOURCES: usize = 64;
/// The most sources of a group for which lists are kept.
const MOST_LISTS: usize = 64;
/// The most records of one report that are looked at.
const MOST_RECORDS: usize = 512;

/// One of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Igmp,
    Mld,
}

impl Family {
    pub(crate) const ALL: [Family; 2] = [Family::Igmp, Family::Mld];

    pub(crate) fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::Igmp } else { Family::Mld }
    }
}

/// Who listens to one group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) ports: BTreeMap<PortId, Listener>,
    /// Who gets a frame of a source; of any, under `None`.
    lists: HashMap<Option<IpAddr>, Arc<Recipients>>,
}

/// What one protocol knows of the VLAN.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Ports with routers behind them, and until when.
    pub(crate) routers: BTreeMap<PortId, Millis>,
    pub(crate) querier: Querier,
    /// Whether memberships restrict what is forwarded.
    pub(crate) is_known: bool,
    list: Option<Arc<Recipients>>,
}

/// A query that the switch is to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Send {
    /// To this port; `None`: to the whole VLAN.
    pub(crate) port: Option<PortId>,
    pub(crate) family: Family,
    pub(crate) group: Option<IpAddr>,
    pub(crate) ask: Ask,
}

/// What changed, for whoever decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Who gets frames of this group.
    Group(IpAddr),
    /// Where routers are, or whether memberships restrict.
    Side(Family),
}

/// The port that a message came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From<'a> {
    pub(crate) port: PortId,
    pub(crate) settings: &'a PortMulticast,
}

/// One VLAN.
#[derive(Debug)]
pub(crate) struct VlanState {
    pub(crate) settings: VlanSnooping,
    pub(crate) groups: HashMap<IpAddr, Group>,
    igmp: Side,
    mld: Side,
    /// Entries by port.
    pub(crate) used: HashMap<PortId, u32>,
    entries: u32,
    pub(crate) stats: MulticastStats,
    /// When something is due next: never later than it is.
    due: Millis,
    pub(crate) changes: Vec<Change>,
}

impl VlanState {
    pub(crate) fn new(settings: VlanSnooping) -> VlanState {
        VlanState {
            settings,
            groups: HashMap::new(),
            igmp: Side::default(),
            mld: Side::default(),
            used: HashMap::new(),
            entries: 0,
            stats: MulticastStats::default(),
            due: 0,
            changes: Vec::new(),
        }
    }

    pub(crate) fn side(&self, family: Family) -> &Side {
        if family == Family::Igmp { &self.igmp } else { &self.mld }
    }

    fn side_mut(&mut self, family: Family) -> &mut Side {
        if family == Family::Igmp { &mut self.igmp } else { &mut self.mld }
    }

    /// Takes over settings; `routers` are the ports that have one by configuration, `stays` says which ports are still
    /// members of the VLAN.
    pub(crate) fn configure(
        &mut self,
        settings: VlanSnooping,
        routers: &[PortId],
        stays: impl Fn(PortId) -> bool,
        quota: &Quota,
        now: Millis,
    ) {
        self.settings = settings;
        let own = self.settings.querier.as_ref();
        let (v4, v6) = (own.and_then(|own| own.v4), own.and_then(|own| own.v6));
        for (family, own) in [(Family::Igmp, v4.map(IpAddr::V4)), (Family::Mld, v6.map(IpAddr::V6))] {
            let settings = self.settings.clone();
            let side = self.side_mut(family);
            side.querier.configure(own, &settings, now);
            side.routers.retain(|port, until| *until != Millis::MAX && stays(*port));
            side.routers.extend(routers.iter().map(|port| (*port, Millis::MAX)));
            if side.querier.other.is_some_and(|other| !stays(other.port)) {
                side.querier.other = None;
                // As if it had been silent for long enough.
                side.querier.configure(None, &settings, now);
                side.querier.configure(own, &settings, now);
            }
            side.list = None;
            self.changes.push(Change::Side(family));
        }
        let wanted: Vec<(IpAddr, PortId)> = self
            .settings
            .static_groups
            .iter()
            .filter(|wanted| wanted.group.is_multicast() && stays(wanted.port))
            .map(|wanted| (wanted.group, wanted.port))
            .collect();
        let all: Vec<IpAddr> = self.groups.keys().copied().collect();
        for group in all {
            let ports = self.groups.get(&group).map(|group| group.ports.keys().copied().collect::<Vec<_>>());
            for port in ports.unwrap_or_default() {
                self.change(group, port, None, quota, |listener| {
                    if !stays(port) {
                        *listener = Listener::new();
                    }
                    listener.is_static = wanted.contains(&(group, port));
                });
            }
        }
        for (group, port) in wanted {
            self.change(group, port, None, quota, |listener| listener.is_static = true);
        }
        self.due = 0;
    }

    /// Gives back everything, before it is forgotten.
    pub(crate) fn clear(&mut self, quota: &Quota) {
        quota.give_back(self.entries);
        self.groups.clear();
        self.entries = 0;
    }

    /// Changes a listener, and notes what changed by that. `limit`: of the port's entries; `None` for what configuration
    /// does. `false` if it was refused.
    fn change(
        &mut self,
        group: IpAddr,
        port: PortId,
        limit: Option<u32>,
        quota: &Quota,
        change: impl FnOnce(&mut Listener),
    ) -> bool {
        let held = self.groups.get(&group).and_then(|group| group.ports.get(&port));
        let before = held.map_or(0, Listener::cost);
        let mut listener = held.cloned().unwrap_or_else(Listener::new);
        let wanted = listener.wants();
        change(&mut listener);
        let after = if listener.is_nobody() { 0 } else { listener.cost() };
        let used = self.used.get(&port).copied().unwrap_or(0);
        if after > before {
            let more = after - before;
            let fits = limit.is_none_or(|limit| {
                used.saturating_add(more) <= limit
                    && self.entries.saturating_add(more) <= self.settings.max_entries
                    && listener.sources.len() <= MOST_SOURCES
            });
            if !fits || !quota.take(more, limit.is_none()) {
                self.stats.refused += 1;
                return false;
            }
        } else {
            quota.give_back(before - after);
        }
        self.entries = (self.entries + after).saturating_sub(before);
        match (used + after).saturating_sub(before) {
            0 => drop(self.used.remove(&port)),
            used => drop(self.used.insert(port, used)),
        }
        self.due = self.due.min(listener.due());
        let differs = listener.wants() != wanted || (before == 0) != (after == 0);
        if after == 0 {
            if let Some(entry) = self.groups.get_mut(&group) {
                entry.ports.remove(&port);
                if entry.ports.is_empty() {
                    self.groups.remove(&group);
                }
            }
        } else {
            self.groups.entry(group).or_default().ports.insert(port, listener);
        }
        if differs {
            if let Some(entry) = self.groups.get_mut(&group) {
                entry.lists.clear();
            }
            self.changes.push(Change::Group(group));
        }
        true
    }

    /// A message came, and was read.
    pub(crate) fn heard(&mut self, from: From<'_>, packet: &Packet<'_>, quota: &Quota, now: Millis) {
        let family = Family::of(packet.destination);
        let times = self.side(family).querier.times(&self.settings, now);
        let limit = Some(from.settings.max_entries);
        match packet.message {
            Message::Query(query) => {
                self.stats.queries += 1;
                self.queried(from, packet.source, family, &query, now);
            }
            Message::Report { version, group } => {
                self.stats.reports += 1;
                // The oldest version that can leave is IGMPv2's and MLDv1's.
                let version = if family == Family::Mld { 2 } else { version };
                if is_snooped(group) {
                    self.change(group, from.port, limit, quota, |l| l.old_report(version, &times));
                }
            }
            Message::Leave { group } => {
                self.stats.leaves += 1;
                if self.groups.get(&group).is_some_and(|group| group.ports.contains_key(&from.port)) {
                    let fast = from.settings.fast_leave;
                    self.change(group, from.port, limit, quota, |l| l.leave(fast, &times));
                }
            }
            Message::Records(records) => {
                self.stats.reports += 1;
                self.recorded(from, records, quota, &times);
            }
            Message::Router => {
                self.stats.routers += 1;
                // PIM's default holdtime is 105 s, discovery's advertisements come every 20 s; the bridge takes 255 s.
                self.router(from, family, now + super::ROUTER_MS);
            }
            Message::RouterGone => {
                self.stats.routers += 1;
                let side = self.side_mut(family);
                if side.routers.get(&from.port).is_some_and(|until| *until != Millis::MAX) {
                    side.routers.remove(&from.port);
                    self.routers_changed(family);
                }
            }
            Message::Other(_) => self.stats.other += 1,
        }
        let side = self.side(family);
        self.due = self.due.min(side.querier.due(side.is_known));
    }

    /// A message was not believed.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        if let Some(count) = self.stats.malformed.get_mut(refusal as usize) {
            *count += 1;
        }
    }

    fn recorded(&mut self, from: From<'_>, records: Records<'_>, quota: &Quota, times: &Times) {
        let limit = Some(from.settings.max_entries);
        let mut named = Vec::new();
        for record in records.take(MOST_RECORDS) {
            if !is_snooped(record.group) || !record.group.is_multicast() {
                continue;
            }
            if record.sources.len() > MOST_SOURCES {
                self.stats.refused += 1;
                continue;
            }
            named.clear();
            named.extend(record.sources);
            self.change(record.group, from.port, limit, quota, |listener| {
                listener.record(record.kind, &named, from.settings.fast_leave, times);
            });
        }
    }

    fn queried(&mut self, from: From<'_>, source: IpAddr, family: Family, query: &Query<'_>, now: Millis) {
        let settings = self.settings.clone();
        let side = self.side_mut(family);
        side.querier.heard(source, from.port, query, &settings, now);
        let until = side.querier.other.filter(|other| other.address == source).map(|other| other.until);
        if !source.is_unspecified() {
            self.router(from, family, until.unwrap_or(now + super::ROUTER_MS));
        }
        // Section 6.6.1: whoever listens has to answer now.
        let Some(group) = query.group.filter(|_| !query.suppress) else { return };
        let mut times = self.side(family).querier.times(&settings, now);
        times.last_member = Millis::from(query.max_response_ms) * Millis::from(times.last_member_count);
        let sources: Vec<IpAddr> = query.sources.take(MOST_SOURCES).collect();
        let Some(entry) = self.groups.get_mut(&group) else { return };
        for listener in entry.ports.values_mut() {
            match sources.is_empty() {
                true => listener.shorten(&times),
                false => listener.shorten_sources(&sources, &times),
            }
            self.due = self.due.min(listener.due());
        }
    }

    fn router(&mut self, from: From<'_>, family: Family, until: Millis) {
        let side = self.side_mut(family);
        let held = side.routers.get(&from.port).copied();
        if held == Some(Millis::MAX) {
            return;
        }
        side.routers.insert(from.port, held.map_or(until, |held| held.max(until)));
        self.due = self.due.min(until);
        if held.is_none() {
            self.routers_changed(family);
        }
    }

    fn routers_changed(&mut self, family: Family) {
        self.side_mut(family).list = None;
        self.changes.push(Change::Side(family));
        for group in self.groups.values_mut() {
            group.lists.clear();
        }
    }

    /// Lets time pass, and gives what is to be sent.
    pub(crate) fn advance(&mut self, quota: &Quota, now: Millis) -> Vec<Send> {
        let mut send = Vec::new();
        if now < self.due {
            return send;
        }
        self.due = Millis::MAX;
        for family in Family::ALL {
            let settings = self.settings.clone();
            let side = self.side_mut(family);
            if side.querier.advance(&settings, now) {
                let ask = Ask { sources: Vec::new(), suppress: false };
                send.push(Send { port: None, family, group: None, ask });
            }
            let before = side.routers.len();
            side.routers.retain(|_, until| *until > now);
            let is_known = side.querier.is_known(now);
            if before != side.routers.len() || is_known != side.is_known {
                side.is_known = is_known;
                self.routers_changed(family);
            }
            let side = self.side(family);
            let routers = side.routers.values().copied().min().unwrap_or(Millis::MAX);
            self.due = self.due.min(side.querier.due(side.is_known)).min(routers);
        }
        let due = |group: &Group| group.ports.values().any(|listener| listener.due() <= now);
        let groups: Vec<IpAddr> = self.groups.iter().filter(|(_, g)| due(g)).map(|(ip, _)| *ip).collect();
        for group in groups {
            let times = self.side(Family::of(group)).querier.times(&self.settings, now);
            let Some(entry) = self.groups.get(&group) else { continue };
            let ports: Vec<PortId> = entry.ports.keys().copied().collect();
            for port in ports {
                let mut asks = Vec::new();
                self.change(group, port, None, quota, |listener| asks = listener.advance(&times));
                let family = Family::of(group);
                send.extend(asks.into_iter().map(|ask| Send {
                    port: Some(port),
                    family,
                    group: Some(group),
                    ask,
                }));
            }
        }
        let listeners = self.groups.values().flat_map(|group| group.ports.values());
        self.due = self.due.min(listeners.map(Listener::due).min().unwrap_or(Millis::MAX));
        self.stats.queries_sent += send.len() as u64;
        send
    }

    /// Who gets a frame to a group; `None`: the whole VLAN.
    pub(crate) fn members(
        &mut self,
        group: IpAddr,
        source: IpAddr,
        topology: &Topology,
    ) -> Option<Arc<Recipients>> {
        let family = Family::of(group);
        if !self.side(family).is_known {
            return None;
        }
        let Some(entry) = self.groups.get_mut(&group) else {
            return match self.settings.unregistered {
                Unregistered::Flood => None,
                Unregistered::Routers => Some(self.routers(family, topology)),
                Unregistered::Drop => {
                    Some(Arc::new(Recipients::new(Vec::new(), self.settings.vlan, topology)))
                }
            };
        };
        let key = entry.ports.values().any(|listener| !listener.takes_all()).then_some(source);
        if let Some(list) = entry.lists.get(&key)
            && list.generation == topology.generation
        {
            return Some(Arc::clone(list));
        }
        let listeners = entry.ports.iter().filter(|(_, listener)| listener.takes(source));
        let side = if family == Family::Igmp { &self.igmp } else { &self.mld };
        let ports = listeners.map(|(port, _)| *port).chain(side.routers.keys().copied());
        let list = Arc::new(Recipients::new(ports.collect(), self.settings.vlan, topology));
        if entry.lists.len() >= MOST_LISTS {
            entry.lists.clear();
        }
        entry.lists.insert(key, Arc::clone(&list));
        Some(list)
    }

    /// The ports with routers behind them.
    pub(crate) fn routers(&mut self, family: Family, topology: &Topology) -> Arc<Recipients> {
        let vlan = self.settings.vlan;
        let side = self.side_mut(family);
        match &side.list {
            Some(list) if list.generation == topology.generation => Arc::clone(list),
            _ => {
                let list = Arc::new(Recipients::new(side.routers.keys().copied().collect(), vlan, topology));
                side.list = Some(Arc::clone(&list));
                list
            }
        }
    }
}

/// Whether memberships of the group mean anything: not of those that always go to the whole VLAN.
pub(crate) fn is_snooped(group: IpAddr) -> bool {
    match group {
        // RFC 4541, section 2.1.2, rule 2.
        IpAddr::V4(group) => !matches!(group.octets(), [224, 0, 0, _]),
        // Section 3: all nodes of the link or the node.
        IpAddr::V6(group) => !matches!(group.segments(), [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1]),
    }
}
