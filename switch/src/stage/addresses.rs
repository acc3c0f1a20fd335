//! Addresses that no frame of a station may have, and those that a bridge does not forward (IEEE 802.1Q, table 8-1).

use fabnic_port::DropReason;

use super::{Step, Walk};

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if !walk.src.is_unicast() {
        return Step::drop(DropReason::BadSource);
    }
    if walk.dst.is_link_local_group() {
        return Step::drop(DropReason::ReservedDestination);
    }
    Step::Next
}
