//! The pipeline: what happens to the first frame of a flow, stage by stage.
//!
//! ```text
//!   frame --> ingress_state --> link_local --> addresses --> vlan --> mtu --> guard --+
//!     +-------------------------------------------------------------------------------+
//!     '--> track --> infra_in --> tenant_in --> police --> learn --> answer --> multicast --> forward --> storm --+
//!     +-----------------------------------------------------------------------------------------------------------+
//!     '--> track_out --> tenant_out --> infra_out --> admit --> Decision --> flow cache
//!                                                                                       |
//!                                    per copy, on every frame:                          v
//!                                    egress (state, MTU, tag)  <-- grouped by port <-- burst
//! ```
//!
//! Each stage is one file with one function over a [`Walk`]: it reads what is known of the flow, adds to it, and says
//! whether to go on. To add a feature, add a file, put it in [`STAGES`] with a sentence why it stands there, and add its
//! rule to the reference switch of the tests. A stage that reads more of the frame than addresses and VLAN must say so in
//! [`crate::Needs`]; one whose state changes by itself must give the decision a version to depend on ([`Walk::depend`]), as
//! `learn` and `forward` do; one that has something done with every frame of the flow pushes an operation
//! ([`Walk::push`]).

mod addresses;
mod admit;
mod answer;
pub(crate) mod egress;
mod forward;
mod guard;
mod ingress_state;
mod learn;
mod link_local;
mod mtu;
mod multicast;
mod police;
pub(crate) mod rules;
mod track;
mod vlan;

use std::sync::Arc;

use fabnic_port::{DropReason, Frame};
use fabnic_wire::{EtherType, Fields, MacAddr, Tci, Vid};

use crate::body::Body;
use crate::cache::{Decision, Target};
use crate::conntrack::{Standing, Tracking};
use crate::deep::DEPENDENCIES;
use crate::engine::Moment;
use crate::fdb::Tick;
use crate::origin::Origin;
use crate::plan::Op;
use crate::rules::CtAction;
use crate::switch::Tables;
use crate::topology::{Member, Topology};
use crate::trace::{Step as TraceStep, Steps};
use crate::versions::Version;

/// A frame that the stages decide on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Its private bytes.
    pub(crate) head: &'a [u8],
    /// Its whole length in bytes.
    pub(crate) len: u32,
    /// What lies behind the private bytes.
    pub(crate) body: Body<'a>,
    /// The sender left checksums or segmentation to others.
    pub(crate) is_unfinished: bool,
    /// It is longer than the ingress port's MTU. Such a decision is not cached: it is the frame's, not the flow's.
    pub(crate) too_long: bool,
}

impl<'a> Seen<'a> {
    /// A frame of which nothing is known behind its private bytes.
    pub(crate) fn head_only(frame: &'a Frame, too_long: bool) -> Seen<'a> {
        let offload = frame.offload();
        Seen {
            head: frame.head(),
            len: frame.len(),
            body: Body::Unknown,
            is_unfinished: offload.needs_csum() || offload.is_gso(),
            too_long,
        }
    }
}

/// What stages leave behind besides a decision; a worker has one and uses it again and again.
#[derive(Default)]
pub(crate) struct Left {
    /// What is to be done with the flow's frames.
    pub(crate) ops: Vec<Op>,
    /// The connections that the flow's packets are tracked on, by their handles; 0 for none.
    pub(crate) handles: [u32; 2],
    /// What rules have marked the flow with.
    pub(crate) mark: u32,
    /// The decision is this frame's only: nothing is remembered.
    pub(crate) uncached: bool,
    /// Answers of the switch's own. `None` where there is no memory for them.
    pub(crate) origin: Option<Origin>,
    /// What is told of the walk, if somebody wants to know.
    pub(crate) steps: Option<Steps>,
}

/// What is known of a flow while its first frame walks the stages.
pub(crate) struct Walk<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) tables: &'a Tables,
    /// Seconds since the start.
    pub(crate) now: Tick,
    /// Nanoseconds since some moment before the start.
    pub(crate) now_ns: u64,
    /// The port that the frame came from.
    pub(crate) ingress: &'a Member,
    /// Its index.
    pub(crate) ingress_index: u32,
    /// Everything that its head says.
    pub(crate) fields: &'a Fields,
    pub(crate) head: &'a [u8],
    pub(crate) len: u32,
    body: Body<'a>,
    /// The sender left checksums or segmentation to others.
    pub(crate) is_unfinished: bool,
    pub(crate) dst: MacAddr,
    pub(crate) src: MacAddr,
    /// The tag, if the frame came with one.
    pub(crate) tag: Option<Tci>,
    pub(crate) too_long: bool,
    /// What the packet is in the zone of its sender, from the stage `track` on.
    pub(crate) sender_seen: Option<Standing>,
    /// And in that of its receiver, if that is another.
    pub(crate) receiver_seen: Option<Standing>,
    /// The zone of the sender, where a rule said another than the port's.
    other_zone: Option<Tracking>,
    /// What a rule said of the connection in the sender's zone.
    ct: Option<Arc<CtAction>>,
    /// The VLAN; good from the stage `vlan` on.
    pub(crate) vlan: Vid,
    /// What rules have made of the fields.
    pub(crate) current: Fields,
    /// What rules have marked it with.
    pub(crate) mark: u32,
    /// Where a rule sends it, whatever its destination is behind.
    pub(crate) redirect: Option<u32>,
    /// Where it goes; good from the stage `forward` on.
    pub(crate) target: Option<Target>,
    pub(crate) src_version: Version,
    pub(crate) dst_version: Version,
    more_versions: [Version; DEPENDENCIES - 2],
    more: usize,
    /// Nobody is to notice: no address is learned, no connection made, nothing answered or counted.
    pub(crate) dry: bool,
    left: &'a mut Left,
}

impl Walk<'_> {
    /// Puts something before all that is to be done with each frame of the flow.
    pub(crate) fn push_first(&mut self, op: Op) {
        self.left.ops.insert(0, op);
    }

    /// Appends to what is to be done with each frame of the flow.
    pub(crate) fn push(&mut self, op: Op) {
        self.left.ops.push(op);
    }

    /// The decision is this frame's only; the next frame walks the stages again.
    pub(crate) fn do_not_remember(&mut self) {
        self.left.uncached = true;
    }

    /// The decision is good as long as this counter stands, which was read before the state behind it.
    pub(crate) fn depend(&mut self, version: Version) {
        match self.more_versions.get_mut(self.more) {
            Some(place) => {
                *place = version;
                self.more += 1;
            }
            // More than an entry holds.
            None => self.do_not_remember(),
        }
    }

    /// All bytes of the frame, in `room`. `None` if there is not enough room, or they are not to be had: where nothing reads
    /// further than [`crate::Needs`] of nothing.
    pub(crate) fn whole<'r>(&self, room: &'r mut [u8]) -> Option<&'r [u8]> {
        self.body.whole(self.head, self.len, room)
    }

    /// Whether the packet is right behind what told its VLAN: no other tag is in between.
    pub(crate) fn is_of_vlan(&self) -> bool {
        self.fields.inner.is_none() && self.fields.tag.is_some() == self.tag.is_some()
    }

    /// The connections that the flow's packets are tracked on.
    pub(crate) fn set_handles(&mut self, handles: [u32; 2]) {
        self.left.handles = handles;
    }

    /// Sends an untagged frame of the switch's own by the port with this index, in this VLAN, when the burst is done. `false`
    /// if there is no room, or nobody is to notice.
    pub(crate) fn send(&mut self, to: u32, vlan: Vid, bytes: &[u8]) -> bool {
        !self.dry && self.left.origin.as_mut().is_some_and(|origin| origin.push(to, vlan, bytes))
    }

    /// Tells whoever traces what a stage found.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.left.steps {
            steps.note(text());
        }
    }
}

/// What a stage says.
pub(crate) enum Step {
    /// Go on with the next stage.
    Next,
    /// Decided: it ends here.
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

/// The stages, in order. Places kept for what comes: tunnels' outer headers before `vlan`, LAG and tunnels' encapsulation
/// behind `infra_out`.
pub(crate) const STAGES: &[Stage] = &[
    Stage {
        name: "ingress_state",
        why: "first: a disabled port must not even be learned from",
        run: ingress_state::run,
    },
    Stage {
        name: "link_local",
        why: "before reserved destinations are dropped: here are those that mean something to the switch itself",
        run: link_local::run,
    },
    Stage {
        name: "addresses",
        why: "before anything is decided by addresses: impossible and reserved ones end here",
        run: addresses::run,
    },
    Stage { name: "vlan", why: "before learning: an address is learned in a VLAN", run: vlan::run },
    Stage { name: "mtu", why: "before learning: a frame that may not enter teaches nothing", run: mtu::run },
    Stage {
        name: "guard",
        why: "before anything is learned or decided by what the frame says: behind this it is true",
        run: guard::run,
    },
    Stage {
        name: "track",
        why: "before rules, which ask what a packet is to its connection; behind guards: its sender is who it says",
        run: track::run,
    },
    Stage {
        name: "infra_in",
        why: "before a tenant's rules, which never see what infrastructure drops",
        run: rules::infra_in,
    },
    Stage {
        name: "tenant_in",
        why: "before learning: what a rule drops teaches nothing, and what it rewrites is learned as rewritten",
        run: rules::tenant_in,
    },
    Stage {
        name: "police",
        why: "behind the rules of the way in: what they drop is not charged",
        run: police::run,
    },
    Stage {
        name: "learn",
        why: "before forwarding, so that a frame to its own source is recognised",
        run: learn::run,
    },
    Stage {
        name: "answer",
        why: "before forwarding: what the switch answers goes nowhere else",
        run: answer::run,
    },
    Stage {
        name: "multicast",
        why: "before forwarding, which sends groups to the whole VLAN; behind the guards and the rules on the way in, so that who may not speak joins nothing",
        run: multicast::run,
    },
    Stage { name: "forward", why: "by now the frame may go, and the question is where", run: forward::run },
    Stage {
        name: "storm",
        why: "behind forwarding: only now is it known what is flooded",
        run: police::storm,
    },
    Stage {
        name: "track_out",
        why: "before rules of the port that the frame goes to, which ask what the packet is in that port's zone",
        run: track::run_out,
    },
    Stage {
        name: "tenant_out",
        why: "behind forwarding: it is the rules of the port that the frame goes to",
        run: rules::tenant_out,
    },
    Stage {
        name: "infra_out",
        why: "behind all other rules: infrastructure has the last word",
        run: rules::infra_out,
    },
    Stage {
        name: "admit",
        why: "last: only a packet that is let through makes a connection",
        run: admit::run,
    },
];

/// The names of the stages, in order, each with the reason for its place.
pub fn stages() -> impl Iterator<Item = (&'static str, &'static str)> {
    STAGES.iter().map(|stage| (stage.name, stage.why))
}

/// The fields of a frame with a customer tag that is cut off, on a port with service tags: an EtherType that is not looked
/// behind. Runts do not come this far.
#[cold]
fn bare(head: &[u8]) -> Fields {
    let address = |at: usize| {
        head.get(at..).and_then(|rest| rest.first_chunk()).map_or(MacAddr::ZERO, |mac| MacAddr(*mac))
    };
    Fields { dst: address(0), src: address(6), ethertype: EtherType::VLAN, l3: 14, ..Fields::default() }
}

/// Walks all stages. `dry`: nobody is to notice.
pub(crate) fn decide(
    at: &Moment<'_>,
    ingress: (&Member, u32),
    seen: &Seen<'_>,
    left: &mut Left,
    dry: bool,
) -> Decision {
    let Moment { topology, tables, now, now_ns } = *at;
    left.ops.clear();
    (left.handles, left.uncached) = ([0; 2], seen.too_long);
    let fields = Fields::of(seen.head).unwrap_or_else(|| bare(seen.head));
    let tag = fields.tag.filter(|tag| tag.tpid.0.to_be_bytes() == ingress.0.tpid).map(|tag| tag.tci);
    // Even a decision that depends on nothing has versions: those of slot 0, as they are now.
    let none = Version { slot: 0, value: tables.versions.value(0) };
    let mut walk = Walk {
        topology,
        tables,
        now,
        now_ns,
        ingress: ingress.0,
        ingress_index: ingress.1,
        fields: &fields,
        head: seen.head,
        len: seen.len,
        body: seen.body,
        is_unfinished: seen.is_unfinished,
        dst: fields.dst,
        src: fields.src,
        tag,
        too_long: seen.too_long,
        sender_seen: None,
        receiver_seen: None,
        other_zone: None,
        ct: None,
        vlan: Vid::DEFAULT,
        current: fields,
        mark: 0,
        redirect: None,
        target: None,
        src_version: none,
        dst_version: none,
        more_versions: [none; DEPENDENCIES - 2],
        more: 0,
        dry,
        left,
    };
    let mut ended = None;
    for stage in STAGES {
        if let Some(steps) = &mut walk.left.steps {
            steps.begin(TraceStep { stage: stage.name, notes: Vec::new(), outcome: None });
        }
        if let Step::Done(decided) = (stage.run)(&mut walk) {
            ended = Some(decided);
            break;
        }
    }
    let target = ended.or(walk.target).unwrap_or(Target::Drop(DropReason::NoMember));
    walk.left.mark = walk.mark;
    for seen in [walk.sender_seen, walk.receiver_seen].into_iter().flatten() {
        walk.depend(seen.version);
    }
    let [third, fourth] = walk.more_versions;
    let depends = [walk.src_version, walk.dst_version, third, fourth];
    Decision { target, vlan: walk.vlan, depends }
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
