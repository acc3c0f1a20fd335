//! What would become of a frame, stage by stage, without sending it.
//!
//! A trace walks the stages as the first frame of a flow does, but dry: no address is learned, no connection made, nothing
//! answered or counted. Each stage may note what it found.

use fabnic_port::{DropReason, PortId};
use fabnic_wire::Vid;

/// What one stage did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stage, by the name of its file.
    pub stage: &'static str,
    /// What it found, in its words.
    pub notes: Vec<String>,
    /// What it decided, if the walk ended here.
    pub outcome: Option<String>,
}

/// Where the frame would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nowhere.
    Dropped(DropReason),
    /// To these ports, the sender not among them; each with the reason why it would not leave there, if so.
    Sent(Vec<(PortId, Option<DropReason>)>),
}

/// What would become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What the stages did, in order, up to the one that decided.
    pub steps: Vec<Step>,
    /// The VLAN that the frame is in, where that is known.
    pub vlan: Vid,
    /// What would be done with it, in order.
    pub operations: Vec<String>,
    /// Where it would go.
    pub way: Way,
}

/// The steps of a walk that is being traced.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<Step>);

impl Steps {
    pub(crate) fn begin(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(crate) fn note(&mut self, text: String) {
        if let Some(step) = self.0.last_mut() {
            step.notes.push(text);
        }
    }

    /// The steps, with what the last one decided.
    pub(crate) fn end(mut self, outcome: String) -> Vec<Step> {
        if let Some(step) = self.0.last_mut() {
            step.outcome = Some(outcome);
        }
        self.0
    }
}
