//! A VLAN's groups, routers and queriers, as records and back.

use core::net::IpAddr;

use fabnic_port::PortId;
use fabnic_saved as records;
use fabnic_wire::Vid;

use super::{Family, Listener, MOST_SOURCES, MulticastStats, PortMulticast, Quota, VlanState, is_snooped};
use crate::multicast::listener::{FilterMode, Millis};
use crate::multicast::saved::{later, until};
use crate::saved::Lost;

impl MulticastStats {
    fn save(&self) -> Vec<u64> {
        let MulticastStats { queries, reports, leaves, routers, other, queries_sent, refused, malformed } =
            *self;
        let known = [queries, reports, leaves, routers, other, queries_sent, refused];
        known.into_iter().chain(malformed).collect()
    }

    fn go_on(&mut self, before: &[u64]) {
        let MulticastStats { queries, reports, leaves, routers, other, queries_sent, refused, malformed } =
            self;
        let known = [queries, reports, leaves, routers, other, queries_sent, refused];
        for (count, before) in known.into_iter().chain(malformed).zip(before) {
            *count = count.saturating_add(*before);
        }
    }
}

impl VlanState {
    /// All of it, or what is behind one port, but for the listeners.
    pub(crate) fn save(&self, vlan: Vid, of: Option<PortId>, now: Millis) -> records::MulticastVlan {
        let sides = Family::ALL.map(|family| {
            let side = self.side(family);
            let mut saved = records::MulticastSide::default();
            side.querier.save(&mut saved, now);
            let is_wanted = |port: PortId| of.is_none_or(|only| only == port);
            if let Some(only) = of {
                saved.other = saved.other.filter(|other| other.port == only.0);
                (saved.next_in_ms, saved.startup) = (0, 0);
                saved.known_in_ms = saved.known_in_ms.filter(|_| saved.other.is_some());
            }
            let learned =
                side.routers.iter().filter(|(port, until)| **until != Millis::MAX && is_wanted(**port));
            let router =
                |(port, end): (&PortId, &Millis)| records::Router { port: port.0, left_ms: until(*end, now) };
            saved.routers = learned.map(router).collect();
            saved
        });
        let counts = if of.is_none() { self.stats.save() } else { Vec::new() };
        records::MulticastVlan { vlan: vlan.get(), sides, counts }
    }

    /// The listeners, or those behind one port.
    pub(crate) fn save_listeners(
        &self,
        vlan: Vid,
        of: Option<PortId>,
        now: Millis,
    ) -> Vec<records::Listener> {
        let all = self.groups.iter().flat_map(|(group, entry)| {
            entry.ports.iter().map(move |(port, listener)| ((vlan, *group, *port), listener))
        });
        all.filter(|((.., port), _)| of.is_none_or(|only| only == *port))
            .filter_map(|(place, listener)| listener.save(place, now))
            .collect()
    }

    /// Goes on from there. `port` gives the port of a number, if it is here, a member, and may have a router behind it.
    pub(crate) fn restore(
        &mut self,
        saved: &records::MulticastVlan,
        port: impl Fn(u32) -> Option<PortId>,
        passed: Millis,
        now: Millis,
    ) {
        for (family, saved) in Family::ALL.into_iter().zip(&saved.sides) {
            let other = saved.other.as_ref().filter(|other| other.left_ms > passed);
            let other = other.filter(|other| Family::of(other.address) == family);
            let other = other.and_then(|other| Some((other, port(other.port)?)));
            let side = self.side_mut(family);
            for router in saved.routers.iter().filter(|router| router.left_ms > passed) {
                if let Some(port) = port(router.port) {
                    side.routers.entry(port).or_insert(later(router.left_ms, passed, now));
                }
            }
            side.querier.restore(saved, other, passed, now);
            side.is_known = side.querier.is_known(now);
            self.routers_changed(family);
        }
        self.stats.go_on(&saved.counts);
        self.due = 0;
    }

    /// Puts a listener in where none was reported.
    pub(crate) fn restore_listener(
        &mut self,
        port: PortId,
        settings: &PortMulticast,
        saved: &records::Listener,
        quota: &Quota,
        (passed, now): (Millis, Millis),
    ) -> Result<(), Lost> {
        let group = saved.group;
        let is_same_family = |address: &IpAddr| address.is_ipv4() == group.is_ipv4();
        let asked = &saved.source_question.sources;
        let sources = saved.sources.iter().map(|source| &source.address);
        if !group.is_multicast()
            || !is_snooped(group)
            || saved.sources.len() > MOST_SOURCES
            || asked.len() > MOST_SOURCES
            || !saved.group_question.sources.is_empty()
            || !sources.chain(asked).all(is_same_family)
        {
            return Err(Lost::Malformed);
        }
        let held = self.groups.get(&group).and_then(|group| group.ports.get(&port));
        let mut restored = Listener::new();
        if held.is_some_and(|held| held.mode != FilterMode::Include || !held.sources.is_empty()) {
            return Err(Lost::Taken);
        }
        restored.restore(saved, passed, now);
        if restored.is_nobody() {
            return Err(Lost::Expired);
        }
        let put = |listener: &mut Listener| {
            restored.is_static = listener.is_static;
            *listener = restored;
        };
        let fits = self.change(group, port, Some(settings.max_entries), quota, put);
        if fits { Ok(()) } else { Err(Lost::Limit) }
    }
}
