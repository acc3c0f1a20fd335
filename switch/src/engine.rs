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

use std::sync::{Arc, LazyLock};

use fabnic_port::{
    BURST, Burst, Cell, Direction, DropReason, Fault, Frame, Ingress, Port, PortId, Tally, Verdict,
};
use fabnic_wire::{EtherType, Fields, MacAddr, Tci, Vid, flow_hash};

use crate::switch::Tables;

use crate::cache::Target;
use crate::dress::Dress;
use crate::fdb::Tick;
use crate::floods::{self, Aside, Floods};
use crate::flows::{Flows, size};
use crate::meter::{Charge, Marking};
use crate::multicast::Recipients;
use crate::needs::Needs;
use crate::operate::rewrite_frame;
use crate::origin::Origin;
use crate::priority::PrioritySettings;
use crate::receive::Flooded;
use crate::rules::{Connection, RuleSet};
use crate::shaper::{Admission, FairShare, Toward};
use crate::stage::egress;
use crate::stage::rules::{Copied, FloodedCopy};
use crate::topology::{Member, Topology};

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

/// Frame indexes, up to a burst.
#[derive(Clone, Copy)]
pub(crate) struct Picks {
    frames: [u8; BURST],
    pub(crate) len: usize,
}

impl Picks {
    pub(crate) const NONE: Picks = Picks { frames: [0; BURST], len: 0 };

    /// Every frame of a full burst.
    const ALL: Picks = {
        let mut all = Picks { frames: [0; BURST], len: BURST };
        let mut index = 0;
        while index < BURST {
            all.frames[index] = index as u8;
            index += 1;
        }
        all
    };

    #[inline(always)]
    pub(crate) fn push(&mut self, frame: usize) {
        if let Some(place) = self.frames.get_mut(self.len) {
            *place = frame as u8;
            self.len += 1;
        }
    }

    /// One bit for each frame.
    fn mask(&self) -> u64 {
        self.as_slice().iter().fold(0, |mask, frame| mask | 1 << (usize::from(*frame) % BURST))
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.frames.get(..self.len).unwrap_or(&[])
    }
}

/// The frames of a burst by target.
struct Groups {
    /// For each port index, the number of its group plus one while a burst is grouped; else 0.
    of_port: Vec<u8>,
    ports: [u32; BURST],
    picks: Box<[Picks; BURST]>,
    used: usize,
}

impl Groups {
    fn clear(&mut self) {
        for port in self.ports.iter().take(self.used) {
            if let Some(group) = self.of_port.get_mut(*port as usize) {
                *group = 0;
            }
        }
        self.used = 0;
    }

    #[inline(always)]
    fn push(&mut self, port: u32, frame: usize) {
        let Some(group) = self.of_port.get_mut(port as usize) else { return };
        if *group == 0
            && let (Some(slot), Some(picks)) = (self.ports.get_mut(self.used), self.picks.get_mut(self.used))
        {
            *slot = port;
            picks.len = 0;
            self.used += 1;
            *group = self.used as u8;
        }
        if let Some(picks) = self.picks.get_mut(usize::from(*group).wrapping_sub(1)) {
            picks.push(frame);
        }
    }
}

/// Where frames are delivered from: the topology, and what their sender says of priorities.
type From<'a> = (&'a Topology, &'a PrioritySettings);

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

fn destination(frame: &Frame) -> MacAddr {
    frame.head().first_chunk().map_or(MacAddr::ZERO, |to| MacAddr(*to))
}

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
                self.deliver(
                    (topology, &member.settings.priority),
                    index,
                    &Picks { len: burst.len(), ..Picks::ALL },
                    burst,
                );
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

    /// Delivers frames to all members of their VLAN but the sender.
    fn flood(
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
    fn confined_to(&self, topology: &Topology, frame: u8) -> Option<&Arc<Recipients>> {
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
        let picks = Picks { len: frames, ..Picks::ALL };
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

/// What a frame said when it came, with this tag or none: now it may have one that was written for another port.
fn as_it_came(head: &[u8], is_tagged: bool, tag: Option<([u8; 2], Tci)>) -> Option<Fields> {
    let (addresses, rest) = head.split_at_checked(12)?;
    let rest = rest.get(if is_tagged { 4 } else { 0 }..)?;
    let tag = tag.map(|(tpid, tci)| [tpid, tci.0.to_be_bytes()].concat()).unwrap_or_default();
    Fields::of(&[addresses, &tag, rest].concat())
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
