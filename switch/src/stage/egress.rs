//! What is done to each copy on its way out: state, MTU and tag of the receiving port.
//!
//! It is no part of the cached decision, because it is the same for all frames to a port and nearly always nothing.

use fabnic_port::{DropReason, Frame};
use fabnic_wire::{EtherType, Tci, Vid};

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

/// The longest frame, without tag, that may leave by this port.
#[inline(always)]
pub(crate) fn longest(member: &Member) -> u32 {
    member.settings.mtu.saturating_add(14)
}

/// The tag that a frame of this VLAN leaves the port with; `tci` is the one it came with, or 0.
#[inline(always)]
pub(crate) fn tag(member: &Member, vlan: Vid, tci: u16) -> Option<Tci> {
    member.settings.vlan.leaves_tagged(vlan).then(|| Tci(tci).with_vid(vlan))
}

/// Makes the frame leave with this tag, or none. `is_tagged` says how it is now. `false` if the frame has no room for
/// the tag, which a head always has.
pub(crate) fn set_tag(frame: &mut Frame, is_tagged: bool, tag: Option<Tci>) -> bool {
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
            let Some(place) = frame.head_mut().get_mut(14..16) else { return false };
            place.copy_from_slice(&tag.0.to_be_bytes());
            true
        }
        (false, Some(tag)) => {
            let Some(place) = frame.insert(12, 4) else { return false };
            let (kind, tci) = place.split_at_mut(2);
            kind.copy_from_slice(&EtherType::VLAN.0.to_be_bytes());
            tci.copy_from_slice(&tag.0.to_be_bytes());
            frame.shift_offload(4);
            true
        }
    }
}
