//! What an engine does with frames that go to more than one port: copies for each, now or in slices ([`crate::floods`]).
//!
//! ```text
//!   flooded frames --> by VLAN, and by the ports they are confined to --> much? put aside, delivered in slices
//!                                                                     '--> for each port: filter, rules out, delivery
//! ```
//!
//! # Invariants
//! * The next copy is of the frame as it came: what rules wrote for one port is taken back.
//! * A frame that nobody gets is a drop of its sender's; of the others each copy beyond the first counts as replicated.

use std::sync::{Arc, LazyLock};

use fabnic_port::{BURST, Burst, Direction, DropReason, PortId, Tally};
use fabnic_wire::{EtherType, Fields, Tci, Vid};

use super::{Engine, From, Picks, destination, keep};
use crate::fdb::Tick;
use crate::floods::{self, Aside, Floods};
use crate::meter::Charge;
use crate::multicast::Recipients;
use crate::operate::rewrite_frame;
use crate::priority::PrioritySettings;
use crate::receive::Flooded;
use crate::rules::Connection;
use crate::stage::rules::{Copied, FloodedCopy};
use crate::topology::{Member, Topology};

/// Who sent a flooded frame.
#[derive(Clone, Copy)]
struct Sender {
    port: PortId,
    /// The kind of its tags.
    tpid: [u8; 2],
}

impl Sender {
    fn of(member: &Member) -> Sender {
        Sender { port: member.port.id, tpid: member.tpid }
    }
}

/// What a sender said of priorities that is no more.
static UNTOLD: LazyLock<PrioritySettings> = LazyLock::new(PrioritySettings::default);

/// Flooded frames that go to a port, those that it filters, and those that it did not ask for. Others are not flooded to
/// it at all.
#[inline(never)]
fn choose(member: &Member, picks: &Picks, burst: &Burst, now: Tick) -> [Picks; 3] {
    let [mut goes, mut filtered, mut unsolicited] = [Picks::NONE; 3];
    let tracking = member.tracking.as_ref();
    for &index in picks.as_slice() {
        let place = usize::from(index);
        let Some(frame) = burst.frames().get(place) else { continue };
        match member.settings.receive.judge(&member.port, destination(frame)) {
            Flooded::Goes if tracking.is_some_and(|it| !it.takes_copy(frame.head(), frame.len(), now)) => {
                unsolicited.push(place);
            }
            Flooded::Goes => goes.push(place),
            Flooded::Filtered => filtered.push(place),
            Flooded::NotFor => {}
        }
    }
    [goes, filtered, unsolicited]
}

impl Engine {
    /// Delivers frames to all members of their VLAN but the sender.
    pub(super) fn flood(
        &mut self,
        topology: &Topology,
        (sender, ingress): (&Member, u32),
        mut left: Picks,
        burst: &mut Burst,
        drops: &mut Tally,
    ) {
        while let Some(first) = left.as_slice().first().copied() {
            let vid = self.vid_of(first);
            let only = self.confined_to(topology, first).cloned();
            let (mut group, mut rest) = (Picks::NONE, Picks::NONE);
            for &index in left.as_slice() {
                let same = self.vid_of(index) == vid
                    && match (self.confined_to(topology, index), &only) {
                        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                        (one, other) => one.is_none() && other.is_none(),
                    };
                if same { group.push(index.into()) } else { rest.push(index.into()) }
            }
            left = rest;
            let Some(vlan) = vid else { continue };
            let only = only.as_deref();
            let reach = match only {
                Some(only) => only.indexes.len(),
                None => topology.flood(vlan).map_or(0, |all| all.reach(sender.settings.isolated)),
            };
            if self.floods.is_some() && self.put_aside((reach, only), sender, vlan, &group, burst, drops) {
                continue;
            }
            let all = group.mask();
            let (mut copies, mut reached) = (0_u64, 0_u64);
            let priority = &sender.settings.priority;
            for port in topology.reached((sender, ingress), vlan, only) {
                let for_it = self.flood_to((topology, priority), Sender::of(sender), port, &group, burst);
                copies += u64::from(for_it.count_ones());
                reached |= for_it;
            }
            // Of each frame the first copy is no further one.
            self.counters.replicated += copies - u64::from(reached.count_ones());
            if reached != all {
                for place in (0..BURST).filter(|place| all & !reached & 1 << place != 0) {
                    keep(&sender.port, self.now, Direction::In, DropReason::NoMember, burst, place);
                    drops.drop(DropReason::NoMember, 1);
                }
            }
        }
    }

    /// Delivers flooded frames to one port, as far as they are flooded to it. Gives those that had a copy, one bit each.
    #[inline(always)]
    fn flood_to(
        &mut self,
        from: From<'_>,
        sender: Sender,
        port: u32,
        picks: &Picks,
        burst: &mut Burst,
    ) -> u64 {
        let Some(member) = from.0.member(port) else { return 0 };
        if !member.is_choosy() {
            self.flood_by_rules((from, sender), port, member, picks, burst);
            return picks.mask();
        }
        let [goes, filtered, unsolicited] = choose(member, picks, burst, self.now);
        self.refuse(from.1, member, DropReason::Filtered, &filtered, burst);
        self.refuse(from.1, member, DropReason::CtUnsolicited, &unsolicited, burst);
        self.flood_by_rules((from, sender), port, member, &goes, burst);
        goes.mask() | filtered.mask() | unsolicited.mask()
    }

    /// Delivers copies of flooded frames, as rules of direction out let them.
    #[inline(always)]
    fn flood_by_rules(
        &mut self,
        (from, sender): (From<'_>, Sender),
        port: u32,
        member: &Member,
        picks: &Picks,
        burst: &mut Burst,
    ) {
        if self.rules.has_out() {
            for frame in picks.as_slice() {
                self.copy_by_rules((from, sender), port, member, *frame, burst);
            }
        } else {
            self.deliver(from, port, picks, burst);
        }
    }

    /// One copy of one frame.
    #[inline(never)]
    fn copy_by_rules(
        &mut self,
        (from, sender): (From<'_>, Sender),
        port: u32,
        member: &Member,
        index: u8,
        burst: &mut Burst,
    ) {
        let mut pick = Picks::NONE;
        pick.push(index.into());
        let place = usize::from(index);
        // Rules see the frame as it came, not as it was written for the port before.
        self.dress.take_off(burst);
        let (Some(frame), Some(vlan)) = (burst.frames().get(place), self.vid_of(index)) else { return };
        let tag = self.flows.tag(place).map(|tci| (sender.tpid, tci));
        let fields = as_it_came(frame.head(), self.dress.is_tagged(index), tag);
        let (len, Some(fields)) = (frame.len(), fields) else { return };
        let connection = member
            .tracking
            .as_ref()
            .map_or(Connection::default(), |it| it.connection(&fields, frame.head(), len, self.now));
        let copied = Copied {
            connection,
            fields: &fields,
            ingress: sender.port,
            vlan,
            mark: self.flows.deep.found(place).decided.mark,
            len,
            charge: Charge::of(frame),
            now: self.now,
            now_ns: self.now_ns,
        };
        let rules = Arc::clone(&self.rules);
        let answer = FloodedCopy::ask(&rules, from.0, member, &copied);
        for mirror in &answer.mirrors {
            self.mirror(from.0, mirror, &pick, burst);
        }
        if let Some(reason) = answer.refused {
            return self.refuse(from.1, member, reason, &pick, burst);
        }
        let to = answer.redirect.unwrap_or(port);
        if answer.rewrites.is_empty() {
            return self.deliver(from, to, &pick, burst);
        }
        // The other copies are of the frame as it was.
        let dressed = self.dress.state();
        let Some(before) = burst.frames().get(place).cloned() else { return };
        let mut failed = None;
        if let Some(frame) = burst.frames_mut().get_mut(place) {
            answer.rewrites.iter().for_each(|rewrite| rewrite_frame(rewrite, frame));
            failed = frame.marked();
        }
        match failed {
            Some(reason) => self.refuse(from.1, member, reason, &pick, burst),
            None => self.deliver(from, to, &pick, burst),
        }
        if let Some(frame) = burst.frames_mut().get_mut(place) {
            *frame = before;
        }
        self.dress.restore(dressed);
    }

    /// The ports of the VLAN that a flooded frame is confined to, if not to all.
    pub(super) fn confined_to(&self, topology: &Topology, frame: u8) -> Option<&Arc<Recipients>> {
        // Without the deep path there are no plans.
        if topology.needs.is_empty() {
            return None;
        }
        self.flows.deep.plans.recipients(self.flows.deep.found(frame.into()).decided.plan)
    }

    /// Keeps a flood for later, or drops it, if it is too much for now. `false`: it is to be delivered at once.
    #[inline(never)]
    fn put_aside(
        &mut self,
        (ports, only): (usize, Option<&Recipients>),
        member: &Member,
        vlan: Vid,
        group: &Picks,
        burst: &Burst,
        drops: &mut Tally,
    ) -> bool {
        let Engine { floods: Some(floods), flows, .. } = self else { return false };
        if !floods::is_much(burst, group.as_slice(), ports) && !floods.is_waiting(vlan) {
            return false;
        }
        let aside = Aside {
            vlan,
            from: member.port.id,
            picks: group.as_slice(),
            only: only.map(|only| &only.ids),
            tagged: self.dress.tagged(),
            came: &|frame| flows.tag(frame).map(|tag| tag.0),
            mark: &|frame| flows.deep.found(frame).decided.mark,
            longest: flows.longest,
        };
        if let Err(reason) = floods.put_aside(burst, &aside) {
            drops.drop(reason, group.len);
            if let Some(frame) = group.as_slice().last() {
                keep(&member.port, self.now, Direction::In, reason, burst, usize::from(*frame));
            }
        }
        true
    }

    /// Whether floods wait to be delivered.
    #[inline(always)]
    pub(crate) fn has_floods(&self) -> bool {
        self.floods.as_ref().is_some_and(|floods| !floods.is_empty())
    }

    /// Delivers one slice of the floods that wait, between two bursts. Gives the number of copies.
    #[inline(never)]
    pub(crate) fn deliver_slice(&mut self, topology: &Topology, now: Tick) -> u64 {
        let Some(mut floods) = self.floods.take() else { return 0 };
        self.now = now;
        let copies = if floods.begin(topology) { self.deliver_ports(topology, &mut floods) } else { 0 };
        self.floods = Some(floods);
        copies
    }

    fn deliver_ports(&mut self, topology: &Topology, floods: &mut Floods) -> u64 {
        let Some(mut current) = floods.current else { return 0 };
        let frames = floods.burst.len();
        self.flows.recall(&current, frames);
        self.dress.begin(current.tagged);
        let picks = Picks::first(frames);
        let sender = topology.index_of(current.from).and_then(|index| topology.member(index));
        let told =
            sender.map_or(Sender { port: current.from, tpid: EtherType::VLAN.0.to_be_bytes() }, Sender::of);
        let priority = sender.map_or(&*UNTOLD, |sender| &sender.settings.priority);
        let (mut copies, before) = (0, current.reached);
        for _ in 0..current.ports_a_slice {
            let Some(port) = floods.next_port() else { break };
            let for_it = self.flood_to((topology, priority), told, port, &picks, &mut floods.burst);
            copies += u64::from(for_it.count_ones());
            current.reached |= for_it;
        }
        // A frame is not kept between two slices with what was written for one port.
        self.dress.take_off(&mut floods.burst);
        current.tagged = self.dress.tagged();
        floods.current = Some(current);
        // Of each frame the first copy is no further one.
        self.counters.replicated += copies - u64::from((current.reached & !before).count_ones());
        if floods.is_done() {
            let nowhere = u64::from((picks.mask() & !current.reached).count_ones());
            if let (Some(member), true) = (sender, nowhere > 0) {
                member.port.rx_drops.add(DropReason::NoMember, nowhere);
            }
            floods.end();
        }
        copies
    }
}

/// What a frame said when it came, with this tag or none: now it may have one that was written for another port.
fn as_it_came(head: &[u8], is_tagged: bool, tag: Option<([u8; 2], Tci)>) -> Option<Fields> {
    let (addresses, rest) = head.split_at_checked(12)?;
    let rest = rest.get(if is_tagged { 4 } else { 0 }..)?;
    let tag = tag.map(|(tpid, tci)| [tpid, tci.0.to_be_bytes()].concat()).unwrap_or_default();
    Fields::of(&[addresses, &tag, rest].concat())
}
