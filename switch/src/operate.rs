//! Carrying out plans, and mirrors: what an engine does with a burst between decision and delivery.

use std::sync::Arc;

use fabnic_port::{BURST, Burst, DropReason, Frame};
use fabnic_wire::Fields;

use crate::conntrack::Handle;
use crate::engine::{Engine, Moment, Picks, hand_over};
use crate::meter::{Charge, Color, Marking};
use crate::mirror::Mirror;
use crate::origin::LONGEST;
use crate::plan::{Op, Side};
use crate::rules::Rewrite;
use crate::stage::egress;
use crate::topology::{Member, Topology};

impl Engine {
    /// Carries out the plans of a burst, in runs of frames that share one. Gives whether a frame was marked as not to be
    /// delivered.
    #[inline(never)]
    pub(crate) fn operate(&mut self, at: &Moment<'_>, burst: &mut Burst) -> bool {
        let (mut index, mut marked) = (0, false);
        while index < burst.len() {
            let (same, plan) = self.flows.deep.same_plan(index, burst.len());
            let end = index + same.max(1);
            let run = burst.frames().get(index..end).unwrap_or(&[]);
            let (bytes, mut total) = self.amount(run, burst.len());
            if plan != 0 {
                self.flows.deep.plans.count(plan, run.len() as u64, bytes);
                if let Some(ops) = self.flows.deep.plans.ops(plan).cloned() {
                    for op in ops.iter() {
                        if self.carry_out(op, at, (index, end), total, burst) {
                            total = Charge::of_all(burst.frames().get(index..end).unwrap_or(&[]));
                        }
                    }
                }
            }
            marked |= total.is_none();
            index = end;
        }
        marked
    }

    /// Bytes of a run of a burst's frames, and their charge together if none is marked.
    #[inline]
    fn amount(&self, run: &[Frame], burst: usize) -> (u64, Option<Charge>) {
        let bytes = self.flows.bytes;
        if run.len() == burst
            && self.flows.deep.common.is_plain
            && let Ok(bytes) = u32::try_from(bytes)
        {
            return (bytes.into(), Some(Charge { bytes, packets: burst as u32 }));
        }
        (run.iter().map(|frame| u64::from(frame.len())).sum(), Charge::of_all(run))
    }

    /// One operation on the frames from `from` up to `end`, whose charge together is `total` if none is marked. Gives whether
    /// that may have changed.
    fn carry_out(
        &mut self,
        op: &Op,
        at: &Moment<'_>,
        (from, end): (usize, usize),
        total: Option<Charge>,
        burst: &mut Burst,
    ) -> bool {
        match op {
            Op::Mirror(mirror) => {
                let picks = unmarked(burst, from..end);
                self.mirror(at.topology, mirror, &picks, burst);
                false
            }
            Op::Translate(side) => {
                self.translate(at, *side, from, end, burst);
                true
            }
            Op::Sample(sampler, mirror) => {
                let all = unmarked(burst, from..end);
                let mut picks = Picks::NONE;
                all.as_slice()
                    .iter()
                    .filter(|_| sampler.takes())
                    .for_each(|frame| picks.push((*frame).into()));
                self.mirror(at.topology, mirror, &picks, burst);
                false
            }
            Op::Meter(meter, reason) => {
                let now_ns = self.now_ns;
                if total.is_some_and(|total| meter.charge_green(now_ns, total)) {
                    return false;
                }
                let run = burst.frames_mut().get_mut(from..end).unwrap_or(&mut []);
                charge(run, *reason, meter.reads_dscp(), |charges, markings| {
                    meter.charge_run(now_ns, charges, markings);
                });
                true
            }
            Op::Chain(chain) => {
                let now_ns = self.now_ns;
                if total.is_some_and(|total| chain.charge_green(now_ns, total)) {
                    return false;
                }
                let run = burst.frames_mut().get_mut(from..end).unwrap_or(&mut []);
                let metered = DropReason::Metered;
                charge(run, metered, chain.reads_dscp(), |charges, markings| {
                    chain.charge_run(now_ns, charges, markings);
                });
                true
            }
            Op::Rewrite(rewrite) => {
                for frame in burst.frames_mut().get_mut(from..end).unwrap_or(&mut []) {
                    rewrite_frame(rewrite, frame);
                }
                true
            }
            // The first two are counted for the whole run already, the last is done where frames are flooded.
            Op::Count(_) | Op::Unjudged | Op::Replicate(_) => false,
        }
    }

    /// Rewrites addresses and ports.
    #[inline(never)]
    fn translate(&mut self, at: &Moment<'_>, side: Side, from: usize, end: usize, burst: &mut Burst) {
        for (index, frame) in burst.frames_mut().iter_mut().enumerate().take(end).skip(from) {
            if frame.marked().is_some() {
                continue;
            }
            let offload = frame.offload();
            let [sender, receiver] = self.flows.deep.found(index).decided.handles;
            let number = if side == Side::Sender { sender } else { receiver };
            let Some(handle) = Handle::from_number(number) else { continue };
            let head = frame.head_mut();
            let done = Fields::of(head)
                .is_some_and(|fields| at.tables.conntrack.translate(handle, &fields, head, &offload));
            if !done {
                frame.mark(DropReason::NatUnreachable);
            }
        }
    }

    /// Shows a burst, as it came, to the mirrors of the port and of the VLANs that its frames are in.
    #[inline(never)]
    pub(crate) fn mirror_ingress(&mut self, topology: &Topology, member: &Member, burst: &mut Burst) {
        let all = unmarked(burst, 0..burst.len());
        for mirror in &member.mirror_ingress {
            self.mirror(topology, mirror, &all, burst);
        }
        for (vlan, mirror) in &topology.mirrors.by_vlan {
            let mut picks = Picks::NONE;
            for &frame in all.as_slice() {
                if self.flows.outcome(frame.into()).is_some_and(|outcome| outcome.vid() == vlan.get()) {
                    picks.push(frame.into());
                }
            }
            self.mirror(topology, mirror, &picks, burst);
        }
    }

    /// Shows frames, as they leave, to the mirrors of the port that they leave by.
    #[inline(never)]
    pub(crate) fn mirror_egress(
        &mut self,
        topology: &Topology,
        member: &Member,
        picks: &Picks,
        burst: &mut Burst,
    ) {
        for mirror in &member.mirror_egress {
            self.mirror(topology, mirror, picks, burst);
        }
    }

    /// Sends copies to a mirror's target.
    pub(crate) fn mirror(
        &mut self,
        topology: &Topology,
        mirror: &Arc<Mirror>,
        picks: &Picks,
        burst: &mut Burst,
    ) {
        let (first, every) = mirror.show(picks.len as u64);
        let snap = mirror.settings.snap.unwrap_or(u32::MAX);
        let (mut whole, mut cut) = (Picks::NONE, Picks::NONE);
        for &frame in picks.as_slice().iter().skip(first).step_by(every) {
            let fits = burst.frames().get(usize::from(frame)).is_some_and(|f| f.len() <= snap);
            if fits { whole.push(frame.into()) } else { cut.push(frame.into()) }
        }
        let Some(index) = topology.index_of(mirror.settings.target) else { return };
        let Some(target) = topology.member(index) else { return };
        let copies = (whole.len + cut.len) as u64;
        mirror.sent(copies);
        self.counters.replicated += copies;
        let port = &target.port;
        let queues = port.egress_in_use();
        let refused = egress::closed(target).or((queues == 0).then_some(DropReason::NotReady));
        if let Some(reason) = refused {
            port.tx_drops.add(reason, copies);
            return;
        }
        match queues {
            1 => hand_over(&mut self.tally, self.now, port, 0, whole.as_slice(), burst),
            _ => self.spread(port, queues, whole, burst),
        }
        for &frame in cut.as_slice() {
            let mut bytes = [0; LONGEST];
            let room = bytes.get_mut(..(snap as usize).min(LONGEST)).unwrap_or(&mut []);
            let len = burst.copy_out(frame.into(), room).min(room.len());
            let short = room.get(..len).unwrap_or(&[]);
            let now = self.now;
            let sent = self.cuts.as_mut().is_some_and(|cuts| {
                let pushed = cuts.push_as_is(index, short);
                cuts.send(topology, now);
                pushed
            });
            if !sent {
                port.tx_drops.add(DropReason::Overload, 1);
            }
        }
    }
}

/// Charges frames that are not marked to a meter one by one, and does what it says of each. `reads_dscp`: the colors that their
/// DSCPs stand for count.
#[inline(never)]
fn charge(
    frames: &mut [Frame],
    reason: DropReason,
    reads_dscp: bool,
    meter: impl FnOnce(&[Charge], &mut [Marking]),
) {
    let (mut charges, mut markings) = ([Charge::default(); BURST], [Marking::default(); BURST]);
    let count = frames.len().min(BURST);
    for ((frame, charge), marking) in frames.iter().zip(&mut charges).zip(&mut markings) {
        *charge = Charge::of(frame);
        marking.is_dropped = frame.marked().is_some();
        if reads_dscp {
            marking.came_as = Color::of_frame(frame);
        }
    }
    let (charges, markings) =
        (charges.get(..count).unwrap_or(&[]), markings.get_mut(..count).unwrap_or(&mut []));
    meter(charges, markings);
    for (frame, marking) in frames.iter_mut().zip(markings) {
        if marking.is_dropped {
            if frame.marked().is_none() {
                frame.mark(reason);
            }
        } else if let Some(dscp) = marking.dscp {
            let mut rewrite = Rewrite::default();
            rewrite.set(crate::rules::Set::Tos { value: dscp << 2, mask: 0xfc });
            rewrite_frame(&rewrite, frame);
        }
    }
}

/// Sets fields of a frame; one that cannot be rewritten is marked.
pub(crate) fn rewrite_frame(rewrite: &Rewrite, frame: &mut Frame) {
    if frame.marked().is_some() {
        return;
    }
    let (len, offload) = (frame.len(), frame.offload());
    if rewrite.apply(frame.head_mut(), len, &offload).is_err() {
        frame.mark(DropReason::CannotRewrite);
    }
    if let Some(pcp) = rewrite.pcp() {
        frame.set_pcp(pcp);
    }
}

/// The frames of a range that are not marked.
fn unmarked(burst: &Burst, range: core::ops::Range<usize>) -> Picks {
    let mut picks = Picks::NONE;
    for (index, frame) in burst.frames().iter().enumerate().take(range.end).skip(range.start) {
        if frame.marked().is_none() {
            picks.push(index);
        }
    }
    picks
}
