//! What the switch says without being asked: LLDP announcements and router advertisements, when they are due.
//!
//! The keeper asks once a second. A port gets its first announcement when its link comes up, and then one every interval.

use std::collections::HashMap;

use fabnic_port::{LinkState, PortId};
use parking_lot::Mutex;

use crate::answer::{LONGEST, lldp, router};
use crate::fdb::Tick;
use crate::switch::Shared;
use crate::topology::{Member, Topology};

/// When a port's next ones are due; 0 for what it never had.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    lldp: Tick,
    router: Tick,
}

/// Of all ports.
#[derive(Debug, Default)]
pub(crate) struct Periodic(Mutex<HashMap<PortId, Due>>);

impl Shared {
    /// Sends what is due.
    pub(crate) fn announce(&self, now: Tick) {
        let topology = self.topology.load_full();
        let speaks = |member: &&Member| {
            let answer = &member.settings.answer;
            answer.lldp.transmits() || answer.router.as_ref().is_some_and(|router| router.interval > 0)
        };
        let mut due = self.periodic.0.lock();
        due.retain(|port, _| topology.index_of(*port).is_some());
        for member in topology.members.iter().filter(speaks) {
            let id = member.port.id;
            if member.port.link() == LinkState::Down || !member.settings.enabled {
                // When it comes up it is told at once.
                due.remove(&id);
                continue;
            }
            let next = due.entry(id).or_default();
            self.announce_lldp(&topology, member, &mut next.lldp, now);
            self.announce_router(member, &mut next.router, now);
        }
    }

    /// Lets the time of multicast listeners pass, and sends the queries that are due; as often as the keeper comes by.
    pub(crate) fn ask_listeners(&self, now_ns: u64) {
        for query in self.tables.multicast.advance(now_ns / 1_000_000) {
            match query.port {
                Some(port) => drop(self.inject(port, query.vlan, &query.bytes)),
                None => self.inject_everywhere(query.vlan, &query.bytes),
            }
        }
    }

    fn announce_lldp(&self, topology: &Topology, member: &Member, next: &mut Tick, now: Tick) {
        if !member.settings.answer.lldp.transmits() || *next > now {
            return;
        }
        let identity = &topology.lldp;
        *next = now.saturating_add(identity.interval.max(1).into());
        let mut out = [0; LONGEST];
        let of_port = (&*member.port.name, member.untagged_vlan(), member.settings.mtu);
        if let Some(len) = lldp::announcement(identity, of_port, lldp::time_to_live(identity), &mut out) {
            self.inject_as_is(member.port.id, out.get(..len).unwrap_or(&[]));
        }
    }

    fn announce_router(&self, member: &Member, next: &mut Tick, now: Tick) {
        let router = member.settings.answer.router.as_ref().filter(|router| router.interval > 0);
        let (Some(router), Some(vlan)) = (router, member.untagged_vlan()) else { return };
        if *next > now {
            return;
        }
        *next = now.saturating_add(router.interval.into());
        let mut out = [0; LONGEST];
        if let Some(len) = router::unsolicited(router, &mut out) {
            self.inject(member.port.id, vlan, out.get(..len).unwrap_or(&[]));
        }
    }
}
