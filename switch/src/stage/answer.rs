//! What the switch answers by itself ([`crate::answer`]): the question ends here, the answer goes back where it came from.

use fabnic_port::DropReason;
use fabnic_wire::checksum::{Verification, verify};

use super::{Step, Walk};
use crate::answer::{Answer, Answers, LONGEST, Question, may_concern};
use crate::origin;

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    let settings = &walk.ingress.settings.answer;
    let gateways = &walk.topology.gateways;
    // What a customer's tag leads to is another link's, and an answer would lose the tag.
    if !may_concern(settings, gateways, walk.fields) || !walk.is_of_vlan() {
        return Step::Next;
    }
    walk.do_not_remember();
    let mut room = [0; origin::LONGEST];
    let Some(frame) = walk.whole(&mut room) else { return Step::Next };
    // A broken message must not come back mended. What a sender left unfinished cannot be told from it, and is not broken.
    if !walk.is_unfinished && verify(frame) == Verification::Bad {
        return Step::Next;
    }
    let port = walk.ingress.port.id;
    let question = Question { port, settings, vlan: walk.vlan, fields: walk.fields, frame };
    let answers = Answers { bindings: &walk.tables.bindings, gateways, now_ns: walk.now_ns, dry: walk.dry };
    let topology = walk.topology;
    let is_there = |owner| {
        let member = topology.index_of(owner).and_then(|index| topology.member(index));
        member.is_some_and(|member| member.settings.enabled && member.port.egress_in_use() > 0)
    };
    let mut out = [0; LONGEST];
    match answers.answer(&question, &walk.ingress.answers, is_there, &mut out) {
        Answer::NotOurs => Step::Next,
        Answer::TooOften => Step::drop(DropReason::AnswerLimit),
        Answer::Silence(kind) => {
            walk.note(|| format!("{kind:?} ends here, without an answer"));
            Step::drop(DropReason::Consumed)
        }
        Answer::Reply(kind, len) => {
            walk.note(|| format!("{kind:?} is answered"));
            // Without room for an answer the question is lost, as it is on any busy link: the asker repeats it.
            walk.send(walk.ingress_index, walk.vlan, out.get(..len).unwrap_or(&[]));
            Step::drop(DropReason::Consumed)
        }
    }
}
