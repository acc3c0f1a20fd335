//! Whether the receiving port takes the packet, and the connection that it makes or belongs to.
//!
//! ```text
//!   sender's zone    receiver's zone
//!   Z                Z or none          one connection, in Z
//!   none             Y                  one connection, in Y, counted on the receiver
//!   Z                Y                  two; the second sees the packet as the first has translated it
//! ```
//!
//! A packet that is `new` and comes this far makes a connection, as with netfilter: what was dropped before made none. A
//! flooded frame makes one in its sender's zone only; which ports take a copy is asked for each copy.

use fabnic_port::DropReason;
use fabnic_wire::{Fields, Offload};

use super::{Step, Walk};
use crate::cache::Target;
use crate::conntrack::{Connected, CtState, Nat, Packet, Refusal, Standing, Tracking};
use crate::plan::{Op, Side};
use crate::rules::CtAction;

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    let (ingress, topology) = (walk.ingress, walk.topology);
    let (said, other) = (walk.ct.clone(), walk.other_zone.clone());
    let sender = other.as_ref().or(ingress.tracking.as_ref());
    let receiver = match walk.target {
        Some(Target::Port(index)) => topology.member(index).and_then(|member| member.tracking.as_ref()),
        _ => None,
    };
    if sender.is_none() && receiver.is_none() {
        return Step::Next;
    }
    let packet = Packet::new(walk.fields, walk.head, walk.len);
    let same_zone = matches!((sender, receiver), (Some(one), Some(other)) if one.zone.id == other.zone.id);
    let of_ports = match said.as_deref().and_then(|said| said.nat.as_ref()) {
        Some(_) => None,
        None => nat_of_ports(sender.filter(|_| other.is_none()), receiver.filter(|_| same_zone), walk.fields),
    };
    let wanted = Wanted::of(said.as_deref(), of_ports.as_ref(), other.is_some());
    if let (Some(receiver), Some(seen), true) = (receiver, walk.sender_seen, same_zone)
        && !receiver.takes(seen.state, walk.fields)
    {
        return Step::drop(DropReason::CtUnsolicited);
    }
    let mut first = None;
    if let (Some(tracking), Some(seen)) = (sender, walk.sender_seen) {
        match connect(walk, tracking, &seen, (walk.fields, &packet), &wanted) {
            Ok(connected) => first = connected,
            Err(reason) => return Step::drop(reason),
        }
    }
    let mut second = None;
    if let Some(tracking) = receiver.filter(|_| !same_zone) {
        let mut room = [0; fabnic_port::HEAD];
        let mut seen = walk.receiver_seen;
        let (mut fields, mut head) = (walk.current, walk.head);
        if let Some(connected) = first.filter(|connected| connected.translated) {
            let Some(place) = room.get_mut(..walk.head.len()) else { return Step::Next };
            place.copy_from_slice(walk.head);
            if !tracking.table.translate(connected.handle, walk.fields, place, &Offload::PLAIN) {
                return Step::drop(DropReason::NatUnreachable);
            }
            (fields, head) = (Fields::of(place).unwrap_or(walk.current), &*place);
            if connected.version.is_some() {
                // Translated just now.
                let packet = Packet::new(&fields, head, walk.len);
                seen = Some(tracking.table.lookup(&tracking.zone, &fields, &packet, walk.now));
            }
        }
        let packet = Packet::new(&fields, head, walk.len);
        if let Some(seen) = seen.filter(|seen| !seen.state.is_empty()) {
            if seen.of_packet {
                walk.do_not_remember();
            }
            walk.receiver_seen = Some(seen);
            if seen.state.contains(CtState::INVALID) {
                if !walk.dry {
                    tracking.zone.count_invalid();
                }
                if tracking.settings.drop_invalid {
                    return Step::drop(DropReason::CtInvalid);
                }
            }
            if !tracking.takes(seen.state, &fields) {
                return Step::drop(DropReason::CtUnsolicited);
            }
            let nat = nat_of_ports(None, Some(tracking), &fields);
            let wanted = Wanted { nat: nat.as_ref(), ..Wanted::JUST_MADE };
            match connect(walk, tracking, &seen, (&fields, &packet), &wanted) {
                Ok(connected) => second = connected,
                Err(reason) => return Step::drop(reason),
            }
        }
    }
    // First what the sender's zone does, then what rules have set, then what the receiver's does.
    if first.is_some_and(|connected| connected.translated) {
        walk.push_first(Op::Translate(Side::Sender));
    }
    if second.is_some_and(|connected| connected.translated) {
        walk.push(Op::Translate(Side::Receiver));
    }
    let number = |connected: Option<Connected>| connected.map_or(0, |connected| connected.handle.get());
    walk.set_handles([number(first), number(second)]);
    // Read behind what was changed here: our own change is no reason to decide again, and nobody has seen the packet yet. But
    // rules may decide otherwise on the next packet by a mark or a translation, which this one's connection had not.
    for (seen, connected) in [(&mut walk.sender_seen, first), (&mut walk.receiver_seen, second)] {
        if let (Some(seen), Some(Connected { version: Some(version), translated: false, .. })) =
            (seen, connected)
            && wanted.mark.unwrap_or(0) == 0
        {
            seen.version = version;
        }
    }
    Step::Next
}

/// What is to become of a connection.
struct Wanted<'a> {
    /// It is made, if the packet is new.
    commit: bool,
    mark: Option<u32>,
    nat: Option<&'a Nat>,
}

impl<'a> Wanted<'a> {
    const JUST_MADE: Wanted<'static> = Wanted { commit: true, mark: None, nat: None };

    /// What a rule said, and where it said nothing the ports; `other`: the zone is not the sender's.
    fn of(said: Option<&'a CtAction>, of_ports: Option<&'a Nat>, other: bool) -> Wanted<'a> {
        Wanted {
            commit: said.is_some() || !other,
            mark: said.and_then(|said| said.mark),
            nat: said.and_then(|said| said.nat.as_ref()).or(of_ports),
        }
    }
}

/// How ports translate a connection in one zone: the one that opens it, and the one that it is opened to.
fn nat_of_ports(opens: Option<&Tracking>, opened: Option<&Tracking>, fields: &Fields) -> Option<Nat> {
    let mut nat = opens.and_then(|tracking| tracking.opens(fields));
    if let Some(destination) = opened.and_then(|tracking| tracking.is_opened(fields)) {
        nat.get_or_insert_default().destination = Some(destination);
    }
    nat
}

/// The connection of a packet that was seen like this, made if it is new.
fn connect(
    walk: &Walk<'_>,
    tracking: &Tracking,
    seen: &Standing,
    (fields, packet): (&Fields, &Packet<'_>),
    wanted: &Wanted<'_>,
) -> Result<Option<Connected>, DropReason> {
    let commit = || {
        let (zone, owner) = (&tracking.zone, &tracking.owner);
        tracking.table.commit(zone, owner, fields, packet, wanted.nat, wanted.mark, walk.now)
    };
    if let Some(handle) = seen.handle {
        if wanted.mark.is_some_and(|mark| mark != seen.mark) && !walk.dry {
            // Errors about it, and later fragments, mark nothing.
            let _ = commit();
        }
        let translated = seen.state.intersects(CtState::SNAT | CtState::DNAT);
        return Ok(Some(Connected { handle, translated, version: None }));
    }
    if !seen.state.contains(CtState::NEW) || walk.dry || !wanted.commit {
        return Ok(None);
    }
    match commit() {
        Ok(made) => Ok(Some(made)),
        Err(Refusal::Invalid) => Err(DropReason::CtInvalid),
        Err(Refusal::Full) => Err(DropReason::CtLimit),
        Err(Refusal::TenantFull) => Err(DropReason::CtTenantLimit),
        Err(Refusal::Exhausted) => Err(DropReason::NatExhausted),
    }
}
