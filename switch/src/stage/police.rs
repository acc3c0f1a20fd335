//! Meters of the sending port and of its tenant, and storm control (the algorithms are in [`crate::meter`]).
//!
//! They are operations of the flow's plan: each frame is charged when it passes, by its length and at its time.

use std::sync::Arc;

use fabnic_port::DropReason;

use super::{Step, Walk};
use crate::cache::Target;
use crate::meter::FloodKind;
use crate::plan::Op;

/// What the port sends in all.
pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if let Some(chain) = &walk.ingress.meters.ingress {
        walk.push(Op::Chain(Arc::clone(chain)));
    }
    Step::Next
}

/// What it floods.
pub(super) fn storm(walk: &mut Walk<'_>) -> Step {
    let is_flooded = walk.target == Some(Target::Flood);
    let Some(kind) = FloodKind::of(walk.dst, !is_flooded).filter(|_| is_flooded) else { return Step::Next };
    if let Some(meter) = walk.ingress.meters.storm.meter(kind) {
        let reason = match kind {
            FloodKind::Broadcast => DropReason::StormBroadcast,
            FloodKind::Multicast => DropReason::StormMulticast,
            FloodKind::UnknownUnicast => DropReason::StormUnknownUnicast,
        };
        walk.push(Op::Meter(Arc::clone(meter), reason));
    }
    Step::Next
}
