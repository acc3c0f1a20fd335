//! What a packet is in the zones of the port that sends it and of the one that it goes to ([`crate::conntrack`]): `new`,
//! `est`, and so on.
//!
//! Only a look: whether a connection is made, and the packet counted on it, is decided when it is known where the packet
//! goes ([`super::admit`]).

use std::sync::Arc;

use fabnic_port::DropReason;
use fabnic_wire::{Fields, Offload};

use super::{Step, Walk};
use crate::cache::Target;
use crate::conntrack::{CtState, Packet, Tracking};
use crate::rules::{Connection, CtAction, Direction};

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    let Some(tracking) = &walk.ingress.tracking else { return Step::Next };
    let packet = Packet::new(walk.fields, walk.head, walk.len);
    let seen = tracking.table.lookup(&tracking.zone, walk.fields, &packet, walk.now);
    if seen.state.is_empty() {
        return Step::Next;
    }
    if seen.of_packet {
        walk.do_not_remember();
    }
    let zone = tracking.zone.id;
    walk.note(|| format!("zone {zone}: {}", seen.state));
    walk.sender_seen = Some(seen);
    if seen.state.contains(CtState::INVALID) {
        if !walk.dry {
            tracking.zone.count_invalid();
        }
        if tracking.settings.drop_invalid {
            return Step::drop(DropReason::CtInvalid);
        }
    }
    Step::Next
}

/// The same in the zone of the port that it goes to, if that is another. Also where a rule has sent it to another port than
/// it was to go to.
pub(super) fn run_out(walk: &mut Walk<'_>) -> Step {
    let topology = walk.topology;
    if let Some(seen) = walk.receiver_seen.take() {
        // What rules saw there still decides.
        walk.depend(seen.version);
    }
    let Some(Target::Port(index)) = walk.target else { return Step::Next };
    let Some(tracking) = topology.member(index).and_then(|member| member.tracking.as_ref()) else {
        return Step::Next;
    };
    let zone = tracking.zone.id;
    if walk.sender_zone().is_some_and(|sender| sender.zone.id == zone) {
        return Step::Next;
    }
    // As the sender's zone translates it, if that is known: a connection that is new is made at the very end.
    let mut room = [0; fabnic_port::HEAD];
    let translated = walk.translated(&mut room);
    let (fields, head) = match &translated {
        Some(head) => (Fields::of(head).unwrap_or(walk.current), &**head),
        None => (walk.current, walk.head),
    };
    let packet = Packet::new(&fields, head, walk.len);
    let seen = tracking.table.lookup(&tracking.zone, &fields, &packet, walk.now);
    if seen.state.is_empty() {
        return Step::Next;
    }
    if seen.of_packet {
        walk.do_not_remember();
    }
    walk.note(|| format!("zone {zone} of the receiver: {}", seen.state));
    walk.receiver_seen = Some(seen);
    Step::Next
}

impl Walk<'_> {
    /// What rules of a direction see of the packet's connection.
    pub(super) fn connection(&self, direction: Direction) -> Connection {
        if let (Direction::Out, Some(seen), Some(Target::Port(index))) =
            (direction, self.receiver_seen, self.target)
            && let Some(tracking) = self.topology.member(index).and_then(|member| member.tracking.as_ref())
        {
            return tracking.of(&seen);
        }
        match (self.sender_zone(), self.sender_seen) {
            (Some(tracking), Some(seen)) => tracking.of(&seen),
            _ => Connection::default(),
        }
    }

    /// The zone in which the packet is tracked at its sender: that which a rule said, or the port's.
    pub(super) fn sender_zone(&self) -> Option<&Tracking> {
        self.other_zone.as_ref().or(self.ingress.tracking.as_ref())
    }

    /// Does what a rule's `ct` says: looks the packet up in its zone, and keeps in mind what is to become of the connection.
    pub(super) fn track_as(&mut self, ct: &Arc<CtAction>) {
        let own = self.sender_zone().map(|tracking| tracking.zone.id);
        let zone = ct.zone.or(own).unwrap_or(0);
        if own != Some(zone) {
            // What rules saw before still decides.
            if let Some(seen) = self.sender_seen.take() {
                self.depend(seen.version);
            }
            self.ct = None;
            let tracking = {
                let ingress = self.ingress;
                Tracking::in_zone(zone, &self.tables.conntrack, ingress.port.id, ingress.settings.tenant)
            };
            let packet = Packet::new(self.fields, self.head, self.len);
            let seen = tracking.table.lookup(&tracking.zone, self.fields, &packet, self.now);
            self.other_zone = Some(tracking);
            if !seen.state.is_empty() {
                if seen.of_packet {
                    self.do_not_remember();
                }
                self.note(|| format!("zone {zone}: {}", seen.state));
                self.sender_seen = Some(seen);
            }
        }
        if ct.commit {
            self.ct = Some(Arc::clone(ct));
        }
    }

    /// The head as the sender's zone translates it, in `room`; nothing if it does not, or not yet.
    pub(super) fn translated<'r>(&self, room: &'r mut [u8]) -> Option<&'r [u8]> {
        let seen = self.sender_seen.filter(|seen| seen.state.intersects(CtState::SNAT | CtState::DNAT))?;
        let head = room.get_mut(..self.head.len())?;
        head.copy_from_slice(self.head);
        let table = &self.tables.conntrack;
        table.translate(seen.handle?, self.fields, head, &Offload::PLAIN).then_some(&*head)
    }
}
