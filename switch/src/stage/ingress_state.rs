//! Administrative state of the sending port: a disabled port sends nothing.

use fabnic_port::DropReason;

use super::{Step, Walk};

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if walk.ingress.settings.enabled { Step::Next } else { Step::drop(DropReason::IngressDisabled) }
}
