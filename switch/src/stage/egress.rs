//! What is done to each copy on its way out: state, MTU, tag and priority of the receiving port.
//!
//! It is no part of the cached decision, because it is the same for all frames to a port and nearly always nothing.

use fabnic_port::{DropReason, Frame};
use fabnic_wire::{Tci, Vid};

use crate::topology::Member;

/// Why no frame at all may leave by this port now.
#[inline(always)]
pub(crate) fn closed(member: &Member) -> Option<DropReason> {
    if !member.settings.enabled {
        Some(DropReason::EgressDisabled)
    } else if member.port.is_stopped() {
        Some(DropReason::Stopped)
    } else {
        None
    }
}

/// The tag that a frame of this VLAN and priority (the upper four bits of the tag) leaves the port with, if any.
#[inline(always)]
pub(crate) fn tag(member: &Member, vlan: Vid, priority: u16) -> Option<Tci> {
    let settings = &member.settings;
    if !settings.vlan.leaves_tagged(vlan) {
        return None;
    }
    settings.vlan_translation.outward(vlan).map(|wire| Tci(priority).with_vid(wire))
}

/// Makes the frame leave with this tag, which begins with `tpid`, or none. `is_tagged` says how it is now. `false` if the
/// frame has no room for the tag, which a head always has.
pub(crate) fn set_tag(frame: &mut Frame, is_tagged: bool, tpid: [u8; 2], tag: Option<Tci>) -> bool {
    match (is_tagged, tag) {
        (false, None) => true,
        (true, None) => {
            let done = frame.remove(12, 4);
            if done {
                frame.shift_offload(-4);
            }
            done
        }
        (true, Some(tag)) => {
            let Some(place) = frame.head_mut().get_mut(12..16) else { return false };
            write_tag(place, tpid, tag);
            true
        }
        (false, Some(tag)) => {
            let Some(place) = frame.insert(12, 4) else { return false };
            write_tag(place, tpid, tag);
            frame.shift_offload(4);
            true
        }
    }
}

/// Writes four bytes.
fn write_tag(place: &mut [u8], tpid: [u8; 2], tag: Tci) {
    if let Some(place) = place.first_chunk_mut() {
        let ([a, b], [c, d]) = (tpid, tag.0.to_be_bytes());
        *place = [a, b, c, d];
    }
}
