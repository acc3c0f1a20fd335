//! The sending port's MTU. What a TSO frame will be cut into counts, not the frame.

use fabnic_port::DropReason;

use super::{Step, Walk};

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if walk.too_long { Step::drop(DropReason::IngressMtu) } else { Step::Next }
}
