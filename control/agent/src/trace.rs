//! What would become of a frame, and what became of those that were dropped.

use std::fmt::Write as _;

use fabnic_api::{
    CaptureDirection, DropExplained, RecentDrop, TraceReport, TraceRequest, TraceStep, TraceTarget,
};
use fabnic_model::{Refusal, Refused};
use fabnic_port::{Direction, DropReason};
use fabnic_switch::{Step, Trace, Way};
use fabnic_wire::{Offload, Pretty};

use crate::agent::{Agent, Running};
use crate::packet;

fn explained(reason: DropReason) -> DropExplained {
    DropExplained { reason: reason.label().to_owned(), explanation: reason.explain().to_owned() }
}

fn step(step: &Step) -> TraceStep {
    TraceStep { stage: step.stage.to_owned(), notes: step.notes.clone(), outcome: step.outcome.clone() }
}

fn report(trace: &Trace, frame: String, ports: &Running) -> TraceReport {
    let (dropped, to) = match &trace.way {
        Way::Dropped(reason) => (Some(explained(*reason)), Vec::new()),
        Way::Sent(targets) => {
            let named = targets.iter().filter_map(|(id, dropped)| {
                let port = ports.by_id(*id)?.config.name.clone();
                Some(TraceTarget { port, dropped: dropped.map(explained) })
            });
            (None, named.collect())
        }
    };
    TraceReport {
        frame,
        steps: trace.steps.iter().map(step).collect(),
        vlan: trace.vlan.get(),
        operations: trace.operations.clone(),
        dropped,
        to,
    }
}

impl Agent {
    pub(crate) fn trace_frame(&self, request: &TraceRequest) -> Result<TraceReport, Refused> {
        let frame = match (&request.packet, &request.hex) {
            (Some(fields), None) => packet::build(fields)?,
            (None, Some(hex)) => packet::of_hex(hex)?,
            _ => {
                let problem = "a frame is given by its fields or by its bytes";
                return Err(Refused::one("packet", problem, "one of `packet` and `hex`"));
            }
        };
        let running = self.running();
        let trace = running.port_id(&request.port).and_then(|id| self.switch.trace(id, &frame));
        let trace = trace.ok_or_else(|| {
            let problem = format!("there is no port `{}`", request.port);
            Refused::from(Refusal::new("port", problem, "the name of a port"))
        })?;
        Ok(report(&trace, Pretty::new(&frame).to_string(), &running))
    }

    pub(crate) fn explain_drops(&self, name: &str) -> Option<Vec<RecentDrop>> {
        let running = self.running();
        let port = &running.find(name)?.live.port;
        let now = self.switch.now();
        let drops = port.recent_drops.list().into_iter().map(|drop| {
            // Which stage it was is found by sending it through the stages again, dry.
            let stage = match drop.direction {
                Direction::In => self.switch.trace(port.id, &drop.head).and_then(|trace| match trace.way {
                    Way::Dropped(reason) if reason == drop.reason => trace.steps.last().map(step),
                    _ => None,
                }),
                Direction::Out => None,
            };
            let length = usize::try_from(drop.len).unwrap_or(usize::MAX);
            RecentDrop {
                number: drop.number,
                seconds_ago: now.saturating_sub(drop.second).into(),
                direction: match drop.direction {
                    Direction::In => CaptureDirection::Rx,
                    Direction::Out => CaptureDirection::Tx,
                },
                dropped: explained(drop.reason),
                frame: Pretty::of_head(&drop.head, length, Offload::PLAIN).to_string(),
                length: drop.len,
                hex: drop.head.iter().fold(String::new(), |mut text, byte| {
                    // Writing to a string does not fail.
                    let _ = write!(text, "{byte:02x}");
                    text
                }),
                stage,
            }
        });
        Some(drops.collect())
    }
}
