//! What is for the other end of the link only (IEEE 802.1Q, table 8-1) and means something to the switch: LLDP is kept, and
//! a spanning tree message may cost the port its life (BPDU guard).
//!
//! Everything else that is addressed so goes on to the stage that drops it.

use fabnic_port::{DropReason, Fault};
use fabnic_wire::EtherType;

use super::{Step, Walk};
use crate::answer::lldp::Heard;
use crate::guard::BpduGuard;
use crate::guard::check::is_bpdu;
use crate::origin::LONGEST;

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    let settings = &walk.ingress.settings;
    if settings.guard.bpdu != BpduGuard::Off && !settings.guard.trusted && is_bpdu(walk.dst) {
        if settings.guard.bpdu == BpduGuard::Stop {
            walk.do_not_remember();
            if !walk.dry {
                let src = walk.src;
                walk.ingress.port.stop(Fault(format!("spanning tree message from {src} (BPDU guard)")));
            }
        }
        return Step::drop(DropReason::BpduGuard);
    }
    let is_lldp = walk.dst.is_link_local_group()
        && walk.fields.ethertype == EtherType::LLDP
        && walk.fields.tag.is_none()
        && walk.src.is_unicast();
    if !is_lldp || !settings.answer.lldp.receives() {
        return Step::Next;
    }
    walk.do_not_remember();
    if walk.dry {
        walk.note(|| "announcements of neighbours are kept".to_owned());
        return Step::drop(DropReason::Consumed);
    }
    let mut room = [0; LONGEST];
    let payload = walk.whole(&mut room).and_then(|frame| frame.get(walk.fields.l3.into()..)).unwrap_or(&[]);
    match walk.tables.neighbours.hear(walk.ingress.port.id, payload, walk.now) {
        Heard::Noted | Heard::Gone => Step::drop(DropReason::Consumed),
        Heard::TooMany | Heard::Broken => Step::Next,
    }
}
