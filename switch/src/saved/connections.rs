//! Tracked connections, and what zones have counted.
//!
//! A connection counts in the limit of one port, but two may need it. When a port goes to another switch, it takes with it
//! its own connections and those of its zone that have an address of it at an end: the other end is elsewhere from then on,
//! and the port's side of it has to be known where the port is. There it counts in the limit of the port that came.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use fabnic_port::PortId;
use fabnic_saved::{self as records, Section};

use super::{Arrival, Chunks, Lost, Put, member};
use crate::fdb::Tick;
use crate::switch::Shared;
use crate::topology::Topology;

/// Records of a section: each takes some 230 bytes at most.
const MOST: usize = 2048;

fn address(bytes: &[u8; 16], v6: bool) -> IpAddr {
    match (v6, bytes.first_chunk::<4>()) {
        (false, Some(v4)) => IpAddr::from(*v4),
        _ => IpAddr::from(*bytes),
    }
}

impl Shared {
    pub(super) fn save_connections(
        &self,
        topology: &Topology,
        of: Option<PortId>,
        now: Tick,
        put: &mut Put<'_>,
    ) -> io::Result<()> {
        let mut chunks = Chunks::new(MOST, Section::Connections, put);
        let Some(port) = of else {
            self.tables.conntrack.save(now, &mut |connection| chunks.push(connection))?;
            return chunks.finish();
        };
        let zone = member(topology, port).ok().and_then(|member| Some(member.tracking.as_ref()?.zone.id));
        let bound = self.tables.bindings.entries().into_iter().filter(|binding| binding.port == port);
        let own: HashSet<IpAddr> = bound.map(|binding| binding.address).collect();
        self.tables.conntrack.save(now, &mut |connection| {
            let is_own = |bytes: &[u8; 16]| own.contains(&address(bytes, connection.v6));
            let records::Connection { original, reply, .. } = &connection;
            let ends = [&original.src, &original.dst, &reply.src, &reply.dst];
            let concerns = zone == Some(connection.zone) && ends.into_iter().any(is_own);
            if connection.port == port.0 || concerns {
                chunks.push(records::Connection { port: port.0, ..connection })?;
            }
            Ok(())
        })?;
        chunks.finish()
    }

    pub(super) fn restore_connection(
        &self,
        topology: &Topology,
        saved: &records::Connection,
        arrival: &Arrival<'_>,
        now: Tick,
    ) -> Result<(), Lost> {
        let port = arrival.port(saved.port)?;
        let tenant = member(topology, port)?.settings.tenant;
        let left_s = saved.left_s.checked_sub(arrival.seconds()).filter(|left| *left > 0);
        let saved = records::Connection {
            left_s: left_s.ok_or(Lost::Expired)?,
            age_s: saved.age_s.saturating_add(arrival.seconds()),
            ..*saved
        };
        let table = &self.tables.conntrack;
        table.restore(&saved, &table.port_of(port, tenant), arrival.is_still, now)
    }

    pub(super) fn save_zones(&self, put: &mut Put<'_>) -> io::Result<()> {
        let mut chunks = Chunks::new(MOST, Section::Zones, put);
        chunks.extend(self.tables.conntrack.zones().into_iter().map(|zone| {
            let counters = zone.counters();
            records::ZoneCounts {
                zone: zone.id,
                created: counters.created,
                expired: counters.expired,
                refused: counters.refused,
                invalid: counters.invalid,
            }
        }))?;
        chunks.finish()
    }

    /// A zone is there as soon as it is named.
    pub(super) fn restore_zone(&self, saved: &records::ZoneCounts) -> Result<(), Lost> {
        self.tables.conntrack.zone(saved.zone).go_on(saved);
        Ok(())
    }
}
