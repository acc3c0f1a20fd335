//! Where the frame goes: to the port its destination is behind, or to all of its VLAN.

use fabnic_port::DropReason;

use super::{Step, Walk};
use crate::cache::Target;

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if let Some(index) = walk.redirect {
        return to(walk, Target::Port(index));
    }
    if walk.dst.is_multicast() {
        return to(walk, Target::Flood);
    }
    // Read before the look-up: a change in between makes the decision stale at once, never wrong for long.
    walk.dst_version = walk.tables.fdb.version_of(walk.vlan, walk.dst);
    let entry = walk.tables.fdb.lookup(walk.vlan, walk.dst);
    if walk.dry && walk.dst == walk.src && walk.ingress.settings.learning {
        // A walk that is not dry would have learned it.
        return Step::drop(DropReason::SamePort);
    }
    let Some(index) = entry.and_then(|entry| walk.topology.index_of(entry.port)) else {
        let dst = walk.dst;
        walk.note(|| format!("{dst} is not known"));
        return to(walk, Target::Flood);
    };
    if let Some(behind) = walk.topology.member(index) {
        let dst = walk.dst;
        walk.note(|| format!("{dst} is behind {}", behind.port.name));
    }
    if index == walk.ingress_index {
        return Step::drop(DropReason::SamePort);
    }
    let Some(member) = walk.topology.member(index).filter(|to| to.settings.vlan.is_member(walk.vlan)) else {
        return Step::drop(DropReason::NoMember);
    };
    if !member.settings.receive.lets_through(walk.dst) {
        return Step::drop(DropReason::Filtered);
    }
    if walk.ingress.settings.isolated && member.settings.isolated {
        return Step::drop(DropReason::Isolated);
    }
    to(walk, Target::Port(index))
}

/// It goes there, if rules let it.
fn to(walk: &mut Walk<'_>, target: Target) -> Step {
    walk.target = Some(target);
    Step::Next
}
