//! The pipeline: what happens to the first frame of a flow, stage by stage.
//!
//! ```text
//!   frame --> ingress_state --> addresses --> vlan --> mtu --> learn --> forward --> Decision --> flow cache
//!                                                                                       |
//!                                    per copy, on every frame:                          v
//!                                    egress (state, MTU, tag)  <-- grouped by port <-- burst
//! ```
//!
//! Each stage is one file with one function over a [`Walk`]: it reads what is known of the flow, adds to it, and says
//! whether to go on. To add a feature, add a file, put it in [`STAGES`] with a sentence why it stands there, and add its
//! rule to the reference switch of the tests. A stage that reads more of the frame than [`Key`] holds must widen the
//! key; a stage whose state changes by itself must give the decision a version to depend on, as `learn` and `forward` do.

mod addresses;
pub(crate) mod egress;
mod forward;
mod ingress_state;
mod learn;
mod mtu;
mod vlan;

use fabnic_port::DropReason;
use fabnic_wire::{MacAddr, Tci, Vid};

use crate::cache::{Decision, Target};
use crate::engine::Moment;
use crate::fdb::{Fdb, Tick, Version};
use crate::key::Key;
use crate::topology::{Member, Topology};

/// What is known of a flow while its first frame walks the stages.
pub(crate) struct Walk<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) fdb: &'a Fdb,
    pub(crate) now: Tick,
    /// The port that the frame came from.
    pub(crate) ingress: &'a Member,
    /// Its index.
    pub(crate) ingress_index: u32,
    pub(crate) dst: MacAddr,
    pub(crate) src: MacAddr,
    /// The tag, if the frame came with one.
    pub(crate) tag: Option<Tci>,
    /// The frame is longer than the ingress port's MTU. Such a decision is not cached: it is the frame's, not the flow's.
    pub(crate) too_long: bool,
    /// The VLAN; good from the stage `vlan` on.
    pub(crate) vlan: Vid,
    pub(crate) src_version: Version,
    pub(crate) dst_version: Version,
}

/// What a stage says.
pub(crate) enum Step {
    /// Go on with the next stage.
    Next,
    /// Decided.
    Done(Target),
}

impl Step {
    fn drop(reason: DropReason) -> Step {
        Step::Done(Target::Drop(reason))
    }
}

/// One stage.
pub(crate) struct Stage {
    /// Its name, as in its file.
    pub(crate) name: &'static str,
    /// Why it stands where it stands.
    pub(crate) why: &'static str,
    run: fn(&mut Walk<'_>) -> Step,
}

/// The stages, in order. Places kept for what comes: port ACLs and anti-spoofing after `vlan`, tunnels' outer headers
/// before it, rules, connection tracking and meters between `learn` and `forward`, mirrors after `forward`.
pub(crate) const STAGES: &[Stage] = &[
    Stage {
        name: "ingress_state",
        why: "first: a disabled port must not even be learned from",
        run: ingress_state::run,
    },
    Stage {
        name: "addresses",
        why: "before anything is decided by addresses: impossible and reserved ones end here",
        run: addresses::run,
    },
    Stage { name: "vlan", why: "before learning: an address is learned in a VLAN", run: vlan::run },
    Stage { name: "mtu", why: "before learning: a frame that may not enter teaches nothing", run: mtu::run },
    Stage {
        name: "learn",
        why: "before forwarding, so that a frame to its own source is recognised",
        run: learn::run,
    },
    Stage {
        name: "forward",
        why: "last: by now the frame may go, and the question is where",
        run: forward::run,
    },
];

/// The names of the stages, in order, each with the reason for its place.
pub fn stages() -> impl Iterator<Item = (&'static str, &'static str)> {
    STAGES.iter().map(|stage| (stage.name, stage.why))
}

/// Walks all stages.
pub(crate) fn decide(at: &Moment<'_>, ingress: (&Member, u32), key: &Key, too_long: bool) -> Decision {
    let Moment { topology, fdb, now } = *at;
    let mut walk = Walk {
        topology,
        fdb,
        now,
        ingress: ingress.0,
        ingress_index: ingress.1,
        dst: key.dst(),
        src: key.src(),
        tag: key.is_tagged().then(|| Tci(key.vid_bits())),
        too_long,
        vlan: Vid::DEFAULT,
        src_version: Version::default(),
        dst_version: Version::default(),
    };
    // Even a decision that depends on no address has versions: those of slot 0, as they are now.
    walk.src_version.value = fdb.version(0);
    walk.dst_version.value = fdb.version(0);
    let mut target = Target::Drop(DropReason::NoMember);
    for stage in STAGES {
        if let Step::Done(decided) = (stage.run)(&mut walk) {
            target = decided;
            break;
        }
    }
    Decision { target, vlan: walk.vlan, src: walk.src_version, dst: walk.dst_version }
}

#[cfg(test)]
mod tests {
    use super::stages;

    #[test]
    fn every_stage_says_why_it_stands_there() {
        let mut names: Vec<_> = stages().map(|(name, _)| name).collect();
        assert!(stages().all(|(_, why)| !why.is_empty()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
