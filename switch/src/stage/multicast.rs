//! Where frames to a group go, in VLANs in which the switch snoops (RFC 4541): to who listens, and to routers.
//!
//! What hosts and routers say of groups (IGMP, MLD, PIM Hello, router discovery) is noted here, each frame of it: queries
//! go on to the whole VLAN, reports to the ports of routers only, so that no host is kept from reporting by another's
//! report. What is damaged goes nowhere (section 2.1.1, rule 5).
//!
//! Frames to groups are told apart by their IP addresses. Not to listeners only, but to the whole VLAN, go frames to groups
//! that are no IP (rule 2.1.2.5), to 224.0.0.0/24 and ff02::1 (rule 2), and all while no querier is known.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fabnic_port::DropReason;
use fabnic_wire::layers::Network;
use fabnic_wire::membership::{self, Message, Packet, Refusal};
use fabnic_wire::{FlowFields, IpProtocol};

use super::{Step, Walk};
use crate::multicast::vlan::{Family, is_snooped};
use crate::multicast::{Recipients, RouterPort, is_ip_group};
use crate::plan::Op;

/// The longest frame with a message: a report in a jumbo frame.
const LONGEST: usize = 9216;

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if walk.redirect.is_some() || !is_ip_group(walk.dst) || !walk.topology.is_snooped(walk.vlan) {
        return Step::Next;
    }
    let Some((source, group)) = addresses(&walk.current.flow).filter(|(_, group)| group.is_multicast())
    else {
        return Step::Next;
    };
    if matches!(walk.fields.flow.protocol(), IpProtocol(2) | IpProtocol::ICMPV6 | membership::PIM) {
        // Whether it is a message cannot be seen from what tells flows apart.
        walk.do_not_remember();
        if membership::is_membership(walk.fields) {
            return message(walk);
        }
    }
    if !is_snooped(group) {
        return Step::Next;
    }
    let Some(answer) = walk.tables.multicast.answer(walk.vlan, group, source, walk.topology) else {
        return Step::Next;
    };
    walk.dst_version = answer.of_group;
    walk.depend(answer.of_side);
    match answer.members {
        Some(members) => {
            walk.note(|| format!("{group} of {source} goes to {} ports", members.indexes.len()));
            send_to(walk, members, DropReason::NoListener)
        }
        None => {
            walk.note(|| format!("{group} goes to the whole VLAN"));
            Step::Next
        }
    }
}

/// Sends a frame to these ports but the sender; if there is none, drops it.
fn send_to(walk: &mut Walk<'_>, members: Arc<Recipients>, otherwise: DropReason) -> Step {
    if members.indexes.iter().all(|index| *index == walk.ingress_index) {
        return Step::drop(otherwise);
    }
    walk.push(Op::Replicate(members));
    Step::Next
}

fn message(walk: &mut Walk<'_>) -> Step {
    let mut room = [0; LONGEST];
    let packet = walk.whole(&mut room).ok_or(Refusal::Truncated).and_then(Packet::of);
    let (port, settings) = (walk.ingress.port.id, &walk.ingress.settings.multicast);
    let message = packet.as_ref().map(|packet| packet.message);
    let is_routers = matches!(message, Ok(Message::Query(_) | Message::Router | Message::RouterGone));
    if is_routers && settings.router == RouterPort::Never {
        return Step::drop(DropReason::NotARouter);
    }
    let now = walk.now_ns / 1_000_000;
    if !walk.dry {
        walk.tables.multicast.heard(
            walk.vlan,
            port,
            settings,
            packet.as_ref().map_err(|refusal| *refusal),
            now,
        );
    }
    match message {
        Ok(Message::Report { .. } | Message::Leave { .. } | Message::Records(_)) => {
            let family =
                if walk.fields.flow.network() == Some(Network::V4) { Family::Igmp } else { Family::Mld };
            walk.note(|| "a report: for routers only".to_owned());
            match walk.tables.multicast.routers(walk.vlan, family, walk.topology) {
                Some(members) => send_to(walk, members, DropReason::ReportSnooped),
                None => Step::Next,
            }
        }
        Ok(_) => Step::Next,
        Err(refusal) => {
            walk.note(|| format!("not a message to be believed: {}", refusal.label()));
            Step::drop(DropReason::BadMembership)
        }
    }
}

/// Source and destination, if it is IP.
fn addresses(flow: &FlowFields) -> Option<(IpAddr, IpAddr)> {
    let of = |bytes: &[u8; 16], network| match network {
        Network::V4 => bytes.first_chunk::<4>().map(|bytes| Ipv4Addr::from_octets(*bytes).into()),
        Network::V6 => Some(Ipv6Addr::from_octets(*bytes).into()),
    };
    let network = flow.network()?;
    Some((of(&flow.src, network)?, of(&flow.dst, network)?))
}
