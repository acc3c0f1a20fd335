//! Learns the source address on the port it came from.
//!
//! The decision depends on the source's version: when the address moves to another port, or is forgotten, the next
//! frame of the flow walks the stages again and teaches it anew.

use super::{Step, Walk};

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if walk.ingress.settings.learning {
        walk.fdb.learn(walk.vlan, walk.src, walk.ingress.port.id, &walk.ingress.quota, walk.now);
        // Read after learning: our own change is no reason to decide again. If somebody else moved the address in
        // between, the flow keeps its decision until the next tick refreshes its source: it concerns ageing only.
        walk.src_version = walk.fdb.version_of(walk.vlan, walk.src);
    }
    Step::Next
}
