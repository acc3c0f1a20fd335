//! What is to be done with the frames of a flow besides being sent somewhere.
//!
//! A decision is a target and a *plan*: an ordered list of operations that the stages pushed while the first frame of the
//! flow walked them. Many flows share a plan, because they met the same rules; so plans are kept once, by number, and a
//! cached flow holds the number. A burst's frames are worked on in runs of one plan, operation by operation, before they
//! are delivered.
//!
//! ```text
//!   walk --> [Count(rule 7), Meter(m1), Set(dscp 10), Mirror(up0)] --intern--> plan 12
//!   hit  --> plan 12 --> run of frames: Count: once;  Meter: each frame's color;  Set: each head;  Mirror: one delivery
//! ```
//!
//! # Invariants
//! * Plan 0 is the empty one.
//! * Two plans are the same when their operations are, and two operations when they are about the same shared object: what
//!   an operation holds besides must be part of [`Op::identity`].
//! * Counters are bumped in the plan and handed to their owners by [`Plans::settle`], now and then.

use std::collections::HashMap;
use std::sync::Arc;

use fabnic_port::DropReason;

use crate::meter::{Meter, MeterChain};
use crate::mirror::Mirror;
use crate::multicast::Recipients;
use crate::rules::{Identity, Rewrite, Sampler};

/// More plans than this are forgotten as a whole when there is time for it, with the flows that hold their numbers.
const MANY: usize = 1 << 16;
/// The most there can be.
const MOST: usize = 1 << 18;

/// Whose zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// That of the port that sends.
    Sender,
    /// That of the port that receives.
    Receiver,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Sends a copy of each frame, as it is now, to a mirror's target.
    Mirror(Arc<Mirror>),
    /// Sends a copy of one frame of so many to a mirror's target.
    Sample(Arc<Sampler>, Arc<Mirror>),
    /// Charges each frame to a meter; what it drops is dropped for this reason.
    Meter(Arc<Meter>, DropReason),
    /// Charges each frame to meters one over the other.
    Chain(Arc<MeterChain>),
    /// Counts each frame to a rule.
    Count(Arc<Identity>),
    /// Sets fields of each frame.
    Rewrite(Arc<Rewrite>),
    /// Nothing: the decision cannot be judged when rules change, only made anew.
    Unjudged,
    /// Of the ports of the VLAN only these get the flow's frames. Not carried out in its turn, but where frames are
    /// flooded.
    Replicate(Arc<Recipients>),
    /// Rewrites addresses and ports as the connections of the flow say.
    Translate(Side),
}

impl Op {
    /// The ports that a flood is confined to.
    pub(crate) fn recipients(&self) -> Option<&Arc<Recipients>> {
        match self {
            Op::Replicate(recipients) => Some(recipients),
            _ => None,
        }
    }

    /// Equal for operations that do the same.
    fn identity(&self) -> (u8, usize) {
        match self {
            Op::Mirror(mirror) => (1, Arc::as_ptr(mirror).addr()),
            Op::Sample(sampler, _) => (2, Arc::as_ptr(sampler).addr()),
            Op::Count(rule) => (3, Arc::as_ptr(rule).addr()),
            Op::Rewrite(rewrite) => (4, Arc::as_ptr(rewrite).addr()),
            Op::Unjudged => (0, 0),
            Op::Meter(meter, _) => (5, Arc::as_ptr(meter).addr()),
            Op::Chain(chain) => (6, Arc::as_ptr(chain).addr()),
            Op::Replicate(recipients) => (7, Arc::as_ptr(recipients).addr()),
            Op::Translate(side) => (8, *side as usize),
        }
    }

    /// Takes over what was counted for it: `frames` and `bytes` since the last time, until tick `now`.
    fn settle(&self, frames: u64, bytes: u64, now: u32) {
        match self {
            Op::Count(rule) => rule.stats.add(frames, bytes, now),
            Op::Mirror(_)
            | Op::Sample(..)
            | Op::Unjudged
            | Op::Rewrite(_)
            | Op::Meter(..)
            | Op::Chain(_)
            | Op::Replicate(_)
            | Op::Translate(_) => {}
        }
    }

    /// For people: what it does.
    pub(crate) fn describe(&self) -> String {
        match self {
            Op::Mirror(mirror) => format!("mirror to {}", mirror.settings.name),
            Op::Sample(sampler, mirror) => {
                format!("mirror one frame of {} to {}", sampler.every, mirror.settings.name)
            }
            Op::Count(rule) => format!("count to rule {} of {}", rule.name, rule.domain),
            Op::Rewrite(rewrite) => format!("set {rewrite:?}"),
            Op::Unjudged => "decide anew when rules change".to_owned(),
            Op::Meter(_, reason) => format!("meter, and drop what is over its rate as {reason}"),
            Op::Chain(chain) => match chain.meters() {
                [_] => format!("meter, and drop what is over its rate as {}", DropReason::Metered),
                several => format!("{} meters one over the other", several.len()),
            },
            Op::Replicate(recipients) => format!("replicate to {} ports", recipients.indexes.len()),
            Op::Translate(side) => match side {
                Side::Sender => "translate addresses and ports as the sender's zone says".to_owned(),
                Side::Receiver => "translate addresses and ports as the receiver's zone says".to_owned(),
            },
        }
    }
}

/// The operations of some flows, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ops: Arc<[Op]>,
    recipients: Option<Arc<Recipients>>,
    frames: u64,
    bytes: u64,
}

/// The plans of one worker.
#[derive(Debug)]
pub(crate) struct Plans {
    plans: Vec<Plan>,
    known: HashMap<Box<[(u8, usize)]>, u32>,
}

impl Plans {
    pub(crate) fn new() -> Plans {
        let mut plans = Plans { plans: Vec::new(), known: HashMap::new() };
        plans.clear();
        plans
    }

    /// The number of the plan with these operations, which are taken out of the list. `None` if there are too many plans.
    pub(crate) fn intern(&mut self, ops: &mut Vec<Op>) -> Option<u32> {
        if ops.is_empty() {
            return Some(0);
        }
        let identity: Box<[_]> = ops.iter().map(Op::identity).collect();
        if let Some(known) = self.known.get(&identity) {
            ops.clear();
            return Some(*known);
        }
        let number = u32::try_from(self.plans.len()).ok().filter(|_| self.plans.len() < MOST)?;
        let recipients = ops.iter().find_map(Op::recipients).cloned();
        self.plans.push(Plan { ops: ops.drain(..).collect(), recipients, frames: 0, bytes: 0 });
        self.known.insert(identity, number);
        Some(number)
    }

    /// The operations of a plan.
    #[inline(always)]
    pub(crate) fn ops(&self, plan: u32) -> Option<&Arc<[Op]>> {
        self.plans.get(plan as usize).map(|plan| &plan.ops)
    }

    /// The ports that a plan confines floods to.
    pub(crate) fn recipients(&self, plan: u32) -> Option<&Arc<Recipients>> {
        self.plans.get(plan as usize).and_then(|plan| plan.recipients.as_ref())
    }

    /// Counts a run of frames.
    #[inline(always)]
    pub(crate) fn count(&mut self, plan: u32, frames: u64, bytes: u64) {
        if let Some(plan) = self.plans.get_mut(plan as usize) {
            plan.frames += frames;
            plan.bytes += bytes;
        }
    }

    /// Hands what was counted to its owners.
    pub(crate) fn settle(&mut self, now: u32) {
        for plan in self.plans.iter_mut().filter(|plan| plan.frames > 0) {
            let (frames, bytes) = (core::mem::take(&mut plan.frames), core::mem::take(&mut plan.bytes));
            plan.ops.iter().for_each(|op| op.settle(frames, bytes, now));
        }
    }

    /// Whether it is time to forget them.
    pub(crate) fn are_many(&self) -> bool {
        self.plans.len() > MANY
    }

    /// Forgets all plans, which must have been settled; flows that hold their numbers must be forgotten too.
    pub(crate) fn clear(&mut self) {
        self.plans.clear();
        self.known.clear();
        self.plans.push(Plan { ops: Arc::from([]), recipients: None, frames: 0, bytes: 0 });
    }
}
