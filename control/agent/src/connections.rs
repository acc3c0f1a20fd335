//! Connections that are tracked, as the API shows them.

use fabnic_api::{ConnectionFilter, ConnectionPage, ConnectionSide, ConnectionStatus, ConntrackStatus};
use fabnic_api::{Passed, ZoneStatus};
use fabnic_model::Domain;
use fabnic_model::rule::value::IpProto;
use fabnic_switch::{ConnectionEntry, Tuple};

use crate::agent::{Agent, Running};

/// Whether a connection is meant, and the domain's: that of the port whose limit it counts in.
fn is_meant(
    filter: &ConnectionFilter,
    domain: &Domain,
    ports: &Running,
    connection: &ConnectionEntry,
) -> bool {
    let (original, reply) = (&connection.original, &connection.reply);
    let has = |tuple: &Tuple, address| tuple.source() == address || tuple.destination() == address;
    filter.zone.is_none_or(|zone| zone == connection.zone)
        && filter.ip_proto.is_none_or(|protocol| protocol.0 == original.protocol.0)
        && filter.address.is_none_or(|address| has(original, address) || has(reply, address))
        && ports.by_id(connection.port).is_some_and(|entry| {
            domain.sees(entry.config.tenant.as_deref())
                && filter.port.as_ref().is_none_or(|name| *name == entry.config.name)
        })
}

fn side(tuple: &Tuple, frames: u64, bytes: u64) -> ConnectionSide {
    let is_icmp = tuple.protocol.is_icmp();
    let has_ports = IpProto(tuple.protocol.0).has_ports();
    ConnectionSide {
        src_ip: tuple.source(),
        dst_ip: tuple.destination(),
        src_port: has_ports.then_some(tuple.src_port),
        dst_port: has_ports.then_some(tuple.dst_port),
        icmp_id: is_icmp.then_some(tuple.src_port),
        passed: Passed { frames, bytes },
    }
}

fn shown(connection: &ConnectionEntry, port: String) -> ConnectionStatus {
    let ([there, back], [bytes_there, bytes_back]) = (connection.packets, connection.bytes);
    ConnectionStatus {
        zone: connection.zone,
        port,
        ip_proto: IpProto(connection.original.protocol.0).to_string(),
        state: connection.state.to_string(),
        tcp: connection.tcp.map(|state| state.label().to_owned()),
        assured: connection.assured,
        mark: connection.mark,
        original: side(&connection.original, there, bytes_there),
        reply: side(&connection.reply, back, bytes_back),
        expires_seconds: connection.expires,
        age_seconds: connection.age,
    }
}

impl Agent {
    pub(crate) fn show_connections(&self, domain: &Domain, filter: &ConnectionFilter) -> ConnectionPage {
        let running = self.running();
        let wanted = |entry: &ConnectionEntry| is_meant(filter, domain, &running, entry);
        let from = filter.from.unwrap_or(0);
        let page = self.switch.conntrack().page(self.switch.now(), from, filter.limit(), wanted);
        let entries = page
            .entries
            .iter()
            .filter_map(|entry| Some(shown(entry, running.by_id(entry.port)?.config.name.clone())));
        ConnectionPage { entries: entries.collect(), next: page.next }
    }

    pub(crate) fn flush_connections(&self, domain: &Domain, filter: &ConnectionFilter) -> u64 {
        let running = self.running();
        let gone = self.switch.conntrack().flush(|entry| is_meant(filter, domain, &running, entry));
        u64::try_from(gone).unwrap_or(u64::MAX)
    }

    pub(crate) fn show_conntrack(&self) -> ConntrackStatus {
        let table = self.switch.conntrack();
        let counters = table.counters();
        let zones = table.zones().into_iter().map(|zone| {
            let counters = zone.counters();
            ZoneStatus {
                zone: zone.id,
                connections: counters.connections.into(),
                created: counters.created,
                expired: counters.expired,
                refused: counters.refused,
                invalid: counters.invalid,
            }
        });
        ConntrackStatus {
            connections: counters.connections.into(),
            peak: counters.peak.into(),
            refused: counters.refused,
            exhausted: counters.exhausted,
            zones: zones.collect(),
        }
    }
}
