//! Learns the source address on the port it came from.
//!
//! The decision depends on the source's version: when the address moves to another port, or is forgotten, the next
//! frame of the flow walks the stages again and teaches it anew. Where there was no room for the address, the decision
//! depends on that instead.

use super::{Step, Walk};

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    if walk.ingress.settings.learning && !walk.dry {
        walk.src_version =
            walk.tables.fdb.learn(walk.vlan, walk.src, walk.ingress.port.id, &walk.ingress.quota, walk.now);
    }
    let (src, learning) = (walk.src, walk.ingress.settings.learning);
    walk.note(|| {
        format!("{src} is {}", if learning { "learned on the port" } else { "not learned: learning is off" })
    });
    Step::Next
}
