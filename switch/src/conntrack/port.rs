//! Connection tracking of a port: which zone, how many connections, what may come in.

use std::net::IpAddr;
use std::sync::Arc;

use fabnic_wire::layers::Network;
use fabnic_wire::{Fields, IpProtocol};

use super::connection::Packet;
use super::nat::{Nat, NatRange};
use super::settings::{Owner, Zone};
use super::state::CtState;
use super::table::{Conntrack, Standing};
use crate::rules::Connection;

/// Which packets a port takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Incoming {
    /// All of them.
    #[default]
    Any,
    /// Only those of connections that the port opened: answers, and ICMP errors about its own packets. What is not IP
    /// passes, and so do neighbour discovery, IGMP, MLD and what DHCP servers send, which guards judge.
    Answers,
}

/// What configuration says of connections on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTracking {
    /// The zone that the port's packets are tracked in, both those that it sends and those that it receives; usually one
    /// for each tenant.
    pub zone: u16,
    /// The most connections that the port may have: those that it opens, and those that are opened to it from ports
    /// outside its zone.
    pub limit: u32,
    /// What it takes.
    pub incoming: Incoming,
    /// Whether packets that are `inv` are dropped. Otherwise they pass, and belong to no connection.
    pub drop_invalid: bool,
    /// How connections that the port opens are translated.
    pub nat: Option<Nat>,
    /// One address of the port's is another one to everybody else.
    pub one_to_one: Option<OneToOne>,
}

/// An address of a port, and the one that it is outside: connections that the port opens from the one come from the other,
/// and connections to the other go to the one (basic NAT, RFC 3022, section 2.1, in both directions). Both are of one
/// family, or nothing is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneToOne {
    /// The port's own.
    pub inside: IpAddr,
    /// What everybody else knows it by.
    pub outside: IpAddr,
}

/// An address as packets have it: IPv4 in the first four bytes.
fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn is(address: IpAddr, network: Option<Network>, of_packet: &[u8; 16]) -> bool {
    network == Some(if address.is_ipv4() { Network::V4 } else { Network::V6 }) && bytes(address) == *of_packet
}

fn only(address: IpAddr) -> NatRange {
    NatRange { first: address, last: address, ports: None }
}

impl Default for PortTracking {
    fn default() -> PortTracking {
        PortTracking {
            zone: 0,
            limit: u32::MAX,
            incoming: Incoming::Any,
            drop_invalid: true,
            nat: None,
            one_to_one: None,
        }
    }
}

/// The same, with what it refers to.
#[derive(Clone, Debug)]
pub(crate) struct Tracking {
    pub(crate) settings: PortTracking,
    pub(crate) table: Arc<Conntrack>,
    pub(crate) zone: Arc<Zone>,
    pub(crate) owner: Owner,
}

impl Tracking {
    /// What the settings say, in this table.
    pub(crate) fn new(
        settings: &PortTracking,
        table: &Arc<Conntrack>,
        port: fabnic_port::PortId,
        tenant: Option<u32>,
    ) -> Tracking {
        let owner = table.port_of(port, tenant);
        owner.set_limit(settings.limit);
        Tracking {
            settings: settings.clone(),
            table: Arc::clone(table),
            zone: table.zone(settings.zone),
            owner,
        }
    }

    /// What rules say that a port's packets are to be tracked in: another zone, in which they count in the port's limit all
    /// the same.
    pub(crate) fn in_zone(
        zone: u16,
        table: &Arc<Conntrack>,
        port: fabnic_port::PortId,
        tenant: Option<u32>,
    ) -> Tracking {
        let settings = PortTracking { zone, drop_invalid: false, ..PortTracking::default() };
        Tracking {
            settings,
            table: Arc::clone(table),
            zone: table.zone(zone),
            owner: table.port_of(port, tenant),
        }
    }

    /// How a connection that the port opens with this packet is translated, by the port's settings.
    pub(crate) fn opens(&self, fields: &Fields) -> Option<Nat> {
        let flow = &fields.flow;
        let own = self.settings.one_to_one.filter(|it| is(it.inside, flow.network(), &flow.src));
        match own {
            Some(own) => {
                let nat = self.settings.nat.clone().unwrap_or_default();
                Some(Nat { source: Some(only(own.outside)), ..nat })
            }
            None => self.settings.nat.clone(),
        }
    }

    /// What the destination becomes of a connection that is opened to the port with this packet.
    pub(crate) fn is_opened(&self, fields: &Fields) -> Option<NatRange> {
        let flow = &fields.flow;
        let own = self.settings.one_to_one.filter(|it| is(it.outside, flow.network(), &flow.dst));
        own.map(|own| only(own.inside))
    }

    /// Whether it does not take everything.
    pub(crate) fn asks(&self) -> bool {
        self.settings.incoming != Incoming::Any
    }

    /// Whether the port takes a packet that was seen like this.
    pub(crate) fn takes(&self, state: CtState, fields: &Fields) -> bool {
        self.settings.incoming == Incoming::Any
            || !state.contains(CtState::TRACKED)
            || state.intersects(CtState::ESTABLISHED | CtState::RELATED)
            || is_control(fields)
    }

    /// What a packet is in the port's zone, for rules.
    pub(crate) fn connection(&self, fields: &Fields, head: &[u8], len: u32, now: u32) -> Connection {
        let seen = self.table.lookup(&self.zone, fields, &Packet::new(fields, head, len), now);
        self.of(&seen)
    }

    /// What was seen in the port's zone, for rules.
    pub(crate) fn of(&self, seen: &Standing) -> Connection {
        let zone = if seen.state.is_empty() { 0 } else { self.zone.id };
        Connection { state: seen.state, zone, mark: seen.mark }
    }

    /// Whether it takes a copy of a flooded frame.
    pub(crate) fn takes_copy(&self, head: &[u8], len: u32, now: u32) -> bool {
        if self.settings.incoming == Incoming::Any {
            return true;
        }
        let Some(fields) = Fields::of(head) else { return true };
        let seen = self.table.lookup(&self.zone, &fields, &Packet::new(&fields, head, len), now);
        self.takes(seen.state, &fields)
    }
}

/// What tells hosts of their link, and comes unasked or to an address that was not asked from.
fn is_control(fields: &Fields) -> bool {
    let flow = &fields.flow;
    match flow.protocol() {
        // IGMP.
        IpProtocol(2) => true,
        IpProtocol::UDP => matches!((flow.src_port, flow.dst_port), (67, 68) | (547, 546)),
        _ => false,
    }
}
