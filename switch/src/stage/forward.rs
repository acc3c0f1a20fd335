//! Where the frame goes: to the port its destination is behind, or to all of its VLAN.

use fabnic_port::DropReason;

use super::{Step, Walk};
use crate::cache::Target;

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if walk.dst.is_multicast() {
        return Step::Done(Target::Flood);
    }
    // Read before the look-up: a change in between makes the decision stale at once, never wrong for long.
    walk.dst_version = walk.fdb.version_of(walk.vlan, walk.dst);
    let Some(entry) = walk.fdb.lookup(walk.vlan, walk.dst) else { return Step::Done(Target::Flood) };
    let Some(index) = walk.topology.index_of(entry.port) else { return Step::Done(Target::Flood) };
    if index == walk.ingress_index {
        return Step::drop(DropReason::SamePort);
    }
    let member = walk.topology.member(index).is_some_and(|member| member.settings.vlan.is_member(walk.vlan));
    if member { Step::Done(Target::Port(index)) } else { Step::drop(DropReason::NoMember) }
}
