//! What one worker does with one burst: key, flow cache, decision, grouping, delivery. No threads, no clock: the tick is
//! a parameter, so that tests run it under a virtual time.
//!
//! ```text
//!   burst: up to 64 frames of one port
//!     1  key      of each frame: its place in the flow cache, size, tag             (1 and 2: `flows`)
//!     2  decide   hit: an outcome; miss: walk the stages, remember
//!     3  group    frames of one target together, in order
//!     4  deliver  per target: state, MTU, tag; choose the queue; lock it once; hand the group over
//! ```
//!
//! # Invariants
//! * Each frame ends as exactly one drop, or as one copy for each target, and every copy is delivered or dropped.
//! * Frames of one flow to one port keep their order: groups are filled in order, and one flow always has one queue.

use std::sync::Arc;

use fabnic_port::{BURST, Burst, Cell, Direction, DropReason, Fault, Frame, Ingress, Port, Tally, Verdict};
use fabnic_wire::{MacAddr, Vid, flow_hash};

use crate::cache::Target;
use crate::dress::Dress;
use crate::fdb::Tick;
use crate::floods::{self, Floods};
use crate::flows::{Flows, size};
use crate::meter::{Charge, Color, Marking};
use crate::needs::Needs;
use crate::origin::Origin;
use crate::priority::PrioritySettings;
use crate::rules::RuleSet;
use crate::shaper::{Admission, FairShare, Toward};
use crate::stage::egress;
use crate::switch::Tables;
use crate::topology::{Member, Topology};

mod flooding;
mod picks;

pub(crate) use picks::Picks;

use picks::Groups;

/// Counters of one worker's decisions. Written by the worker, copied out by it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineCounters {
    pub(crate) frames: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Copies made beyond the first of each frame.
    pub(crate) replicated: u64,
}

/// What all bursts of a moment have in common.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) tables: &'a Tables,
    /// Seconds since the start.
    pub(crate) now: Tick,
    /// Nanoseconds since some moment before the start.
    pub(crate) now_ns: u64,
}

/// One worker's part of the switch.
pub(crate) struct Engine {
    pub(crate) flows: Flows,
    dress: Dress,
    groups: Groups,
    pub(crate) tally: Tally,
    /// Where copies that a mirror cuts short lie.
    pub(crate) cuts: Option<Origin>,
    /// Floods that are too much for one go; `None` while there are few ports, or no memory.
    pub(crate) floods: Option<Box<Floods>>,
    pub(crate) counters: EngineCounters,
    /// Asked about each copy of a flooded frame.
    rules: Arc<RuleSet>,
    /// The second that the burst in work is of.
    pub(crate) now: Tick,
    /// The same in nanoseconds, on the clock of [`Moment::now_ns`].
    pub(crate) now_ns: u64,
    /// Index of the port that the burst in work came from.
    sender: u32,
    /// The congested receiver that frames of the burst went to, the one of most.
    toward: Option<Toward>,
}

/// Where frames are delivered from: the topology, and what their sender says of priorities.
type From<'a> = (&'a Topology, &'a PrioritySettings);

fn destination(frame: &Frame) -> MacAddr {
    frame.head().first_chunk().map_or(MacAddr::ZERO, |to| MacAddr(*to))
}

impl Engine {
    pub(crate) fn new(flow_cache_max: usize, secret: [u64; 2], refresh: Tick, rules: Arc<RuleSet>) -> Engine {
        Engine {
            flows: Flows::new(flow_cache_max, secret, refresh),
            dress: Dress::default(),
            groups: Groups {
                of_port: Vec::new(),
                ports: [0; BURST],
                picks: Box::new([Picks::NONE; BURST]),
                used: 0,
            },
            tally: Tally::default(),
            cuts: None,
            floods: None,
            counters: EngineCounters::default(),
            rules,
            now: 0,
            now_ns: 0,
            sender: 0,
            toward: None,
        }
    }

    /// Makes room for a new topology. Allocates.
    pub(crate) fn adopt(&mut self, topology: &Topology) {
        self.groups.of_port = vec![0; topology.members.len()];
        self.groups.used = 0;
        if self.floods.is_none() && topology.members.len() > floods::FEW_PORTS {
            self.floods = Floods::new()
                .inspect_err(|error| tracing::warn!(%error, "no memory to put floods aside"))
                .ok()
                .map(Box::new);
        }
        if let Some(floods) = &mut self.floods {
            floods.adopt(topology);
        }
        let make =
            || Origin::new().inspect_err(|error| tracing::warn!(%error, "no memory for own frames")).ok();
        // Only walks that read more than addresses and VLAN have anything to send.
        if !topology.needs.is_empty() && self.flows.left.origin.is_none() {
            self.flows.left.origin = make();
        }
        if topology.needs.contains(Needs::CONNECTIONS) {
            self.flows.deep.cache.prepare_steady();
        }
        if topology.mirrors.all.iter().any(|mirror| mirror.settings.snap.is_some()) && self.cuts.is_none() {
            self.cuts = make();
        }
    }

    /// What is due now and then, between bursts. May allocate.
    pub(crate) fn housekeeping(&mut self, tables: &Tables, now: Tick) {
        self.flows.housekeeping(&tables.conntrack, now);
    }

    /// Receives one burst from a queue of the port with this index, whose cell the caller has locked; delivers it and
    /// gives the buffers back. Gives the number of frames, also where the queue met a fault behind them.
    pub(crate) fn serve(
        &mut self,
        at: &Moment<'_>,
        index: u32,
        cell: &Cell<dyn Ingress>,
        ingress: &mut dyn Ingress,
        burst: &mut Burst,
    ) -> (usize, Result<(), Fault>) {
        // A queue that fails before it fills anything leaves the burst as it was: another port's frames.
        burst.clear();
        let received = ingress.receive(burst);
        let frames = burst.len();
        if frames > 0 {
            cell.counters.frames.add(frames as u64);
            cell.counters.bursts.add(1);
            self.process(at, index, burst);
            cell.counters.bytes.add(self.flows.bytes);
            cell.counters.calls.add(u64::from(ingress.complete(burst)));
        }
        (frames, received)
    }

    /// Decides on and delivers all frames of a burst that came from the port with this index.
    pub(crate) fn process(&mut self, at: &Moment<'_>, ingress: u32, burst: &mut Burst) {
        let topology = at.topology;
        (self.now, self.now_ns, self.sender) = (at.now, at.now_ns, ingress);
        let Some(member) = topology.member(ingress) else { return };
        self.counters.frames += burst.len() as u64;
        let deep = !topology.needs.is_empty();
        let (mut uniform, walked) = if deep {
            self.flows.decide_deep(at, (member, ingress), burst)
        } else {
            self.flows.decide(at, (member, ingress), burst)
        };
        self.dress.begin(self.flows.tagged);
        self.counters.misses += walked.misses;
        self.counters.hits += (burst.len() as u64).saturating_sub(walked.misses + walked.gone);
        if member.port.captures.is_active() {
            self.capture_ingress(topology, member, ingress, burst);
        }
        if !member.mirror_ingress.is_empty() || !topology.mirrors.by_vlan.is_empty() {
            self.mirror_ingress(topology, member, burst);
        }
        if deep && self.flows.deep.common.is_worked && self.operate(at, burst) {
            uniform = None;
        }
        match uniform {
            Some(Target::Port(index)) if topology.member(index).is_some() => {
                self.deliver((topology, &member.settings.priority), index, &Picks::first(burst.len()), burst);
            }
            _ => self.deliver_groups(topology, member, ingress, burst),
        }
        if deep && let Some(origin) = self.flows.left.origin.as_mut().filter(|origin| !origin.is_empty()) {
            self.counters.replicated += origin.send(topology, self.now);
        }
    }

    /// Shows whoever captures the sending port what came in and what was decided, before anything is rewritten.
    #[cold]
    fn capture_ingress(&self, topology: &Topology, member: &Member, ingress: u32, burst: &Burst) {
        for (index, frame) in burst.frames().iter().enumerate() {
            let Some(outcome) = self.flows.outcome(index) else { break };
            let verdict = match (frame.marked(), outcome.target()) {
                (Some(reason), _) | (None, Target::Drop(reason)) => Verdict::Dropped(reason),
                (None, Target::Port(port)) => match topology.member(port) {
                    Some(to) => Verdict::Forwarded(&to.port.name),
                    None => continue,
                },
                (None, Target::Flood) => {
                    let vlan = Vid::new(outcome.vid()).ok();
                    let only = u8::try_from(index).ok().and_then(|index| self.confined_to(topology, index));
                    let only = only.map(|only| &**only);
                    match vlan.map_or(0, |vlan| {
                        topology.flooded((member, ingress), vlan, destination(frame), only).count()
                    }) {
                        0 => Verdict::Dropped(DropReason::NoMember),
                        copies => Verdict::Flooded(u32::try_from(copies).unwrap_or(u32::MAX)),
                    }
                }
            };
            member.port.captures.offer(burst, index, Direction::In, verdict);
        }
    }

    /// Counts copies that may not leave by a port, and shows them, as they would have left, to whoever captures it.
    fn refuse(
        &mut self,
        from: &PrioritySettings,
        member: &Member,
        reason: DropReason,
        picks: &Picks,
        burst: &mut Burst,
    ) {
        let port = &member.port;
        port.tx_drops.add(reason, picks.len as u64);
        if let Some(frame) = picks.as_slice().last() {
            keep(port, self.now, Direction::Out, reason, burst, usize::from(*frame));
        }
        if port.captures.is_active() {
            self.write(from, member, picks, burst);
            for &index in picks.as_slice() {
                port.captures.offer(burst, index.into(), Direction::Out, Verdict::Dropped(reason));
            }
        }
    }

    /// Steps 3 and 4 where the frames part ways.
    fn deliver_groups(&mut self, topology: &Topology, member: &Member, ingress: u32, burst: &mut Burst) {
        let mut drops = core::mem::take(&mut self.tally);
        let mut flooded = Picks::NONE;
        let mut last = None;
        for (index, frame) in burst.frames_mut().iter_mut().enumerate() {
            if let Some(reason) = frame.marked() {
                drops.drop(reason, 1);
                last = Some((reason, index));
                continue;
            }
            let Some(outcome) = self.flows.outcome(index) else { continue };
            match outcome.target() {
                Target::Port(port) => self.groups.push(port, index),
                Target::Flood => flooded.push(index),
                Target::Drop(reason) => {
                    frame.mark(reason);
                    drops.drop(reason, 1);
                    last = Some((reason, index));
                }
            }
        }
        if let Some((reason, frame)) = last {
            keep(&member.port, self.now, Direction::In, reason, burst, frame);
        }
        for group in 0..self.groups.used {
            let (Some(port), Some(picks)) = (self.groups.ports.get(group), self.groups.picks.get(group))
            else {
                break;
            };
            let (port, picks) = (*port, *picks);
            self.deliver((topology, &member.settings.priority), port, &picks, burst);
        }
        self.groups.clear();
        if flooded.len > 0 {
            self.flood(topology, (member, ingress), flooded, burst, &mut drops);
        }
        self.settle_drops(&member.port, drops);
    }

    /// Counts what was dropped before it was forwarded.
    fn settle_drops(&mut self, port: &Port, mut drops: Tally) {
        for reason in DropReason::ALL {
            let count = drops.dropped_for(*reason);
            if count > 0 {
                port.rx_drops.add(*reason, u64::from(count));
            }
        }
        drops.clear();
        self.tally = drops;
    }

    fn vid_of(&self, frame: u8) -> Option<Vid> {
        Vid::new(self.flows.outcome(usize::from(frame))?.vid()).ok()
    }

    /// Step 4 for one port.
    #[inline(always)]
    fn deliver(&mut self, (topology, from): From<'_>, index: u32, picks: &Picks, burst: &mut Burst) {
        let Some(member) = topology.member(index) else { return };
        if let Some(reason) = egress::closed(member) {
            return self.refuse(from, member, reason, picks, burst);
        }
        if member.meters.at_egress() {
            return self.police_and_deliver((topology, from), member, picks, burst);
        }
        self.fit_and_deliver((topology, from), member, picks, burst);
    }

    /// Charges frames to the meter of the port that they go to, and to their sender's share of it; delivers those that may.
    #[inline(never)]
    fn police_and_deliver(
        &mut self,
        (topology, from): From<'_>,
        member: &Member,
        picks: &Picks,
        burst: &mut Burst,
    ) {
        let (mut fit, mut over) = (Picks::NONE, Picks::NONE);
        for &index in picks.as_slice() {
            let mut marking = Marking::default();
            if let (Some(frame), Some(meter)) =
                (burst.frames().get(usize::from(index)), &member.meters.egress)
            {
                // The tag that tells the VLAN is put on behind here, or still on from the last copy: it does not count.
                let tag = if self.dress.is_tagged(index) { 4 } else { 0 };
                let mut charge = Charge::of(frame);
                charge.bytes = charge.bytes.saturating_sub(tag * charge.packets);
                if meter.reads_dscp() {
                    marking.came_as = Color::of_tos(self.dress.tos(frame, index));
                }
                meter.charge(self.now_ns, charge, &mut marking);
            }
            if marking.is_dropped { over.push(index.into()) } else { fit.push(index.into()) }
        }
        self.refuse(from, member, DropReason::Metered, &over, burst);
        let Some(share) = &member.meters.share else {
            return self.fit_and_deliver((topology, from), member, &fit, burst);
        };
        let fit = self.admit((topology, from), member, share, fit, burst);
        let full = member.port.tx_drops.get(DropReason::RingFull);
        self.fit_and_deliver((topology, from), member, &fit, burst);
        // Others may deliver there at the same time: then it is they who lost some.
        let lost = member.port.tx_drops.get(DropReason::RingFull).saturating_sub(full);
        if lost > 0 {
            share.found_full(self.now_ns, lost);
        }
    }

    /// While a receiver is congested: those of some frames that are within their sender's share of it. The others are
    /// dropped.
    fn admit(
        &mut self,
        (topology, from): From<'_>,
        member: &Member,
        share: &Arc<FairShare>,
        picks: Picks,
        burst: &mut Burst,
    ) -> Picks {
        let Some(sender) = topology.member(self.sender).filter(|_| share.is_active() && picks.len > 0) else {
            return picks;
        };
        let weight = sender.settings.tx_weight;
        let frames = picks.as_slice().iter().filter_map(|frame| burst.frames().get(usize::from(*frame)));
        let Admission { admitted, until } =
            share.admit(self.now_ns, sender.port.id.0, weight, frames.map(Charge::of));
        if self.toward.as_ref().is_none_or(|toward| toward.frames < picks.len) {
            let share = Arc::clone(share);
            self.toward = Some(Toward { share, frames: picks.len, is_over: until.is_some() });
        }
        let (mut fit, mut over) = (Picks::NONE, Picks::NONE);
        for (number, frame) in picks.as_slice().iter().enumerate() {
            if number < admitted { fit.push((*frame).into()) } else { over.push((*frame).into()) }
        }
        self.refuse(from, member, DropReason::OverShare, &over, burst);
        fit
    }

    /// The congested receiver that most frames of the last burst went to.
    pub(crate) fn take_toward(&mut self) -> Option<Toward> {
        self.toward.take()
    }

    #[inline(always)]
    fn fit_and_deliver(
        &mut self,
        (topology, from): From<'_>,
        member: &Member,
        picks: &Picks,
        burst: &mut Burst,
    ) {
        let limit = member.longest;
        if self.flows.longest > limit {
            let (mut fit, mut too_long) = (Picks::NONE, Picks::NONE);
            for &frame in picks.as_slice() {
                let size = burst
                    .frames()
                    .get(usize::from(frame))
                    .map_or(0, |f| size(f, self.dress.is_tagged(frame)));
                let fits = size <= limit;
                if fits { fit.push(frame.into()) } else { too_long.push(frame.into()) }
            }
            self.refuse(from, member, DropReason::EgressMtu, &too_long, burst);
            return self.write_and_deliver((topology, from), member, &fit, burst);
        }
        self.write_and_deliver((topology, from), member, picks, burst);
    }

    #[inline(always)]
    fn write_and_deliver(
        &mut self,
        (topology, from): From<'_>,
        member: &Member,
        picks: &Picks,
        burst: &mut Burst,
    ) {
        // An access port among untagged frames has nothing to do here.
        if self.dress.differs != 0 || member.writes {
            self.write(from, member, picks, burst);
        }
        if !member.mirror_egress.is_empty() {
            self.mirror_egress(topology, member, picks, burst);
        }
        match member.port.egress_in_use() {
            0 => self.refuse(from, member, DropReason::NotReady, picks, burst),
            1 => hand_over(&mut self.tally, self.now, &member.port, 0, picks.as_slice(), burst),
            queues => self.spread(&member.port, queues, *picks, burst),
        }
    }

    /// Writes tags and priorities as this port wants them.
    #[inline(never)]
    fn write(&mut self, from: &PrioritySettings, member: &Member, picks: &Picks, burst: &mut Burst) {
        for &index in picks.as_slice() {
            let Some(vlan) = self.vid_of(index) else { continue };
            let Some(frame) = burst.frames_mut().get_mut(usize::from(index)) else { continue };
            self.dress.put_on(frame, index, (from, self.flows.tag(index.into())), (member, vlan));
        }
    }

    /// Chooses a queue for each flow.
    pub(crate) fn spread(&mut self, port: &Port, queues: usize, picks: Picks, burst: &mut Burst) {
        let mut queue_of = [0_u8; BURST];
        for &index in picks.as_slice() {
            if let (Some(queue), Some(frame)) =
                (queue_of.get_mut(usize::from(index)), burst.frames().get(usize::from(index)))
            {
                // The hash's upper bits times the number of queues: a spread without a division.
                *queue = ((u64::from(flow_hash(frame.head())) * queues as u64) >> 32) as u8;
            }
        }
        let queue = |frame: u8| queue_of.get(usize::from(frame)).copied().unwrap_or(0);
        let mut left = picks;
        while let Some(first) = left.as_slice().first().copied() {
            let chosen = queue(first);
            let (mut group, mut rest) = (Picks::NONE, Picks::NONE);
            for &index in left.as_slice() {
                if queue(index) == chosen { group.push(index.into()) } else { rest.push(index.into()) }
            }
            left = rest;
            hand_over(&mut self.tally, self.now, port, chosen.into(), group.as_slice(), burst);
        }
    }
}

/// Hands a group to a queue, under its lock.
#[inline(always)]
pub(crate) fn hand_over(
    tally: &mut Tally,
    now: Tick,
    port: &Port,
    queue: usize,
    picks: &[u8],
    burst: &mut Burst,
) {
    if picks.is_empty() {
        return;
    }
    let Some(cell) = port.egress().get(queue) else { return };
    let mut guard = cell.lock();
    match guard.as_mut() {
        Some(egress) => {
            let delivered = if port.captures.is_active() {
                port.captures.deliver(egress.as_mut(), burst, picks, tally)
            } else {
                egress.deliver(burst, picks, tally)
            };
            if let Err(fault) = delivered {
                port.stop(fault);
            }
            let missing = (picks.len() as u64).saturating_sub(tally.frames + tally.dropped());
            tally.drop(DropReason::Stopped, missing as usize);
        }
        None => tally.drop(DropReason::NotReady, picks.len()),
    }
    if tally.dropped() > 0 {
        // Which of them it was is not known; a ring that is full refuses the last.
        let reason = DropReason::ALL.iter().find(|reason| tally.dropped_for(**reason) > 0);
        if let (Some(reason), Some(pick)) = (reason, picks.last()) {
            keep(port, now, Direction::Out, *reason, burst, usize::from(*pick));
        }
    }
    tally.settle(&cell.counters, &port.tx_drops);
}

/// Keeps a dropped frame for whoever asks why.
#[cold]
fn keep(port: &Port, now: Tick, direction: Direction, reason: DropReason, burst: &Burst, frame: usize) {
    if let Some(frame) = burst.frames().get(frame) {
        port.recent_drops.keep(now, direction, reason, frame.len(), frame.head());
    }
}

#[cfg(test)]
mod tests;
