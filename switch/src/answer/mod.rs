//! What the switch answers by itself, so that it need not be flooded, forwarded or served by a VM.
//!
//! ```text
//!   ARP, NS      for bound addresses and its own      neighbours      DHCP      for a port from its settings   dhcp
//!   RS           for a port from its settings         router          DHCPv6    the same                       dhcp6
//!   echo         for its own addresses                echo            LLDP      kept; and announced            lldp
//! ```
//!
//! [`Answers::answer`] is given a frame that passed the guards, and says what is to be done with it. An answer is a whole
//! frame without tag; the asker's port gives it the one that its VLAN has there. How often a port is answered has a limit ([`limit`]).
//!
//! # Invariants
//! * An answer goes to the port that asked, and nowhere else.
//! * There is no state of clients: the same question gets the same answer.

mod dhcp;
mod dhcp6;
mod echo;
mod limit;
pub(crate) mod lldp;
mod neighbours;
pub(crate) mod router;
pub(crate) mod settings;

use core::sync::atomic::{AtomicU64, Ordering};
use std::net::{IpAddr, Ipv6Addr};

use fabnic_port::PortId;
use fabnic_wire::build::Writer;
use fabnic_wire::{EtherType, Fields, MacAddr, Vid, nd};

pub use lldp::{LldpId, LldpNeighbour};
pub use settings::{
    AnswerSettings, Dhcp6Settings, DhcpSettings, Gateway, LldpIdentity, LldpMode, RouterSettings,
};

use crate::guard::{Bindings, datagram};
use limit::RateLimit;

/// The longest answer in bytes.
pub(crate) const LONGEST: usize = 1514;

/// A frame that may be answered.
pub(crate) struct Question<'a> {
    pub(crate) port: PortId,
    pub(crate) settings: &'a AnswerSettings,
    /// The VLAN that the frame is in.
    pub(crate) vlan: Vid,
    pub(crate) fields: &'a Fields,
    /// All of the frame.
    pub(crate) frame: &'a [u8],
}

/// What an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Arp,
    Nd,
    Dhcp,
    Dhcp6,
    Router,
    Echo,
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is none of the switch's: it goes on.
    NotOurs,
    /// It ends here, without an answer.
    Silence(Kind),
    /// It ends here, and so many bytes are the answer.
    Reply(Kind, usize),
    /// It ends here: the port asked too often.
    TooOften,
}

/// Answers given on a port since it came, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerStats {
    /// ARP replies.
    pub arp: u64,
    /// Neighbour advertisements.
    pub nd: u64,
    /// DHCP messages.
    pub dhcp: u64,
    /// DHCPv6 messages.
    pub dhcp6: u64,
    /// Router advertisements that were asked for.
    pub router: u64,
    /// Echo replies.
    pub echo: u64,
    /// Questions beyond the limit.
    pub limited: u64,
}

/// What is remembered of a port: it outlives topologies.
#[derive(Debug, Default)]
pub(crate) struct PortAnswers {
    limit: RateLimit,
    counts: [AtomicU64; 6],
    limited: AtomicU64,
}

impl PortAnswers {
    fn count(&self, kind: Kind) {
        if let Some(count) = self.counts.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counters go on from what was counted before: by kind, then what was beyond the limit.
    pub(crate) fn go_on(&self, before: &[u64; 7]) {
        for (count, before) in self.counts.iter().chain([&self.limited]).zip(before) {
            count.fetch_add(*before, Ordering::Relaxed);
        }
    }

    /// The counters.
    pub(crate) fn stats(&self) -> AnswerStats {
        let of = |kind: Kind| self.counts.get(kind as usize).map_or(0, |count| count.load(Ordering::Relaxed));
        AnswerStats {
            arp: of(Kind::Arp),
            nd: of(Kind::Nd),
            dhcp: of(Kind::Dhcp),
            dhcp6: of(Kind::Dhcp6),
            router: of(Kind::Router),
            echo: of(Kind::Echo),
            limited: self.limited.load(Ordering::Relaxed),
        }
    }
}

/// What answers are made of, besides a port's settings.
pub(crate) struct Answers<'a> {
    pub(crate) bindings: &'a Bindings,
    pub(crate) gateways: &'a [Gateway],
    pub(crate) now_ns: u64,
    /// Nothing may be counted: somebody only asks what would happen.
    pub(crate) dry: bool,
}

/// Whether a frame could be answered at all: a look at its kind only.
pub(crate) fn may_concern(settings: &AnswerSettings, gateways: &[Gateway], fields: &Fields) -> bool {
    let has_own = !gateways.is_empty()
        || settings.dhcp.is_some()
        || settings.dhcp6.is_some()
        || settings.router.is_some();
    let to_own = || is_echo(fields) && has_mac(settings, gateways, fields.dst);
    match fields.ethertype {
        EtherType::ARP => settings.arp || has_own,
        EtherType::IPV4 => {
            (settings.dhcp.is_some() && datagram::is_to_dhcp_server(fields)) || (has_own && to_own())
        }
        EtherType::IPV6 => match datagram::icmp6_type(fields) {
            Some(nd::kind::NEIGHBOR_SOLICITATION) => settings.nd || has_own,
            Some(nd::kind::ROUTER_SOLICITATION) => settings.router.is_some(),
            Some(_) => has_own && to_own(),
            None => settings.dhcp6.is_some() && datagram::is_to_dhcp6_server(fields),
        },
        _ => false,
    }
}

/// Whether the switch has something of its own with this MAC address on the port.
fn has_mac(settings: &AnswerSettings, gateways: &[Gateway], mac: MacAddr) -> bool {
    gateways.iter().any(|gateway| gateway.mac == mac)
        || settings.dhcp.as_ref().is_some_and(|dhcp| dhcp.server.0 == mac)
        || settings.dhcp6.as_ref().is_some_and(|dhcp6| dhcp6.server_mac == mac)
        || settings.router.as_ref().is_some_and(|router| router.mac == mac)
}

fn is_echo(fields: &Fields) -> bool {
    let is_known = fields.flow.flags.has(fabnic_wire::FlowFlags::PORTS) && fields.flow.protocol().is_icmp();
    is_known && matches!(fields.flow.src_port, 8 | 128)
}

impl Answers<'_> {
    /// Answers a frame into `out`, which has room for [`LONGEST`] bytes. `is_there` says whether a port is up.
    pub(crate) fn answer(
        &self,
        question: &Question<'_>,
        port: &PortAnswers,
        is_there: impl Fn(PortId) -> bool,
        out: &mut [u8],
    ) -> Answer {
        let settings = question.settings;
        let fields = question.fields;
        let answer = match fields.ethertype {
            EtherType::ARP => self.arp(question, is_there, out),
            EtherType::IPV4 => match &settings.dhcp {
                Some(dhcp) if datagram::is_to_dhcp_server(fields) => {
                    write(Kind::Dhcp, out, |to| dhcp::answer(question, dhcp, to))
                }
                _ => self.echo(question, out),
            },
            EtherType::IPV6 => match datagram::icmp6_type(fields) {
                Some(nd::kind::NEIGHBOR_SOLICITATION) => self.solicitation(question, is_there, out),
                Some(nd::kind::ROUTER_SOLICITATION) => self.router(question, out),
                Some(_) => self.echo(question, out),
                None => match &settings.dhcp6 {
                    Some(dhcp6) if datagram::is_to_dhcp6_server(fields) => {
                        write(Kind::Dhcp6, out, |to| dhcp6::answer(question, dhcp6, to))
                    }
                    _ => Answer::NotOurs,
                },
            },
            _ => Answer::NotOurs,
        };
        let Answer::Reply(kind, _) = answer else { return answer };
        if self.dry {
            return if port.limit.would_allow(settings.rate, self.now_ns) {
                answer
            } else {
                Answer::TooOften
            };
        }
        if !port.limit.allows(settings.rate, self.now_ns) {
            port.limited.fetch_add(1, Ordering::Relaxed);
            return Answer::TooOften;
        }
        port.count(kind);
        answer
    }

    fn arp(&self, question: &Question<'_>, is_there: impl Fn(PortId) -> bool, out: &mut [u8]) -> Answer {
        let Some((asked, request)) = neighbours::arp_request(question) else { return Answer::NotOurs };
        match self.owner(question, &asked, question.settings.arp, is_there) {
            Some(owner) => write(Kind::Arp, out, |to| {
                neighbours::arp_reply(request, owner, to);
                true
            }),
            None => Answer::NotOurs,
        }
    }

    fn solicitation(
        &self,
        question: &Question<'_>,
        is_there: impl Fn(PortId) -> bool,
        out: &mut [u8],
    ) -> Answer {
        let Some((asked, target)) = neighbours::solicitation(question) else { return Answer::NotOurs };
        match self.owner(question, &asked, question.settings.nd, is_there) {
            Some(owner) => write(Kind::Nd, out, |to| {
                neighbours::advertisement(question, target, owner, to);
                true
            }),
            None => Answer::NotOurs,
        }
    }

    fn owner(
        &self,
        question: &Question<'_>,
        asked: &neighbours::Asked,
        for_others: bool,
        is_there: impl Fn(PortId) -> bool,
    ) -> Option<neighbours::Owner> {
        let owner = neighbours::owner(question, self.bindings, self.gateways, is_there, asked.target)?;
        // The switch defends its own addresses, too.
        (owner.is_switch || (for_others && asked.by_proxy)).then_some(owner)
    }

    fn router(&self, question: &Question<'_>, out: &mut [u8]) -> Answer {
        let Some(router) = question.settings.router.as_ref().filter(|_| router::is_solicited(question))
        else {
            return Answer::NotOurs;
        };
        let asker = Ipv6Addr::from_octets(question.fields.flow.src);
        let to_whom = match asker.is_unspecified() {
            true => (nd::group_mac(nd::ALL_NODES), nd::ALL_NODES),
            false => (question.fields.src, asker),
        };
        write(Kind::Router, out, |to| {
            router::advertise(router, to_whom, to);
            true
        })
    }

    fn echo(&self, question: &Question<'_>, out: &mut [u8]) -> Answer {
        let own_mac = |address: IpAddr| neighbours::own_mac(question, self.gateways, address);
        let is_own = |mac: MacAddr| mac == question.fields.dst;
        if !echo::target(question).and_then(own_mac).is_some_and(is_own) {
            return Answer::NotOurs;
        }
        write(Kind::Echo, out, |to| echo::answer(question, to))
    }
}

fn write(kind: Kind, out: &mut [u8], body: impl FnOnce(&mut Writer<'_>) -> bool) -> Answer {
    let mut to = Writer::new(out);
    match body(&mut to) {
        true => to.finish().map_or(Answer::Silence(kind), |len| Answer::Reply(kind, len)),
        false => Answer::Silence(kind),
    }
}

#[cfg(test)]
mod tests;
