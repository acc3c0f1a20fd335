//! Which VLAN the frame is in (IEEE 802.1Q, section 6.9): by its tag, or by its port.
//!
//! A tag with VLAN 0 only carries a priority: the frame counts as untagged. An access port takes a tag of its own VLAN,
//! as Linux bridges do, and no other.

use fabnic_port::DropReason;

use super::{Step, Walk};

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    let vlan = match walk.tag {
        Some(tag) if tag.vid_bits() != 0 => {
            let allowed = tag.vid().filter(|vid| walk.ingress.settings.vlan.is_member(*vid));
            allowed.ok_or(DropReason::VlanNotAllowed)
        }
        _ => walk.ingress.untagged_vlan().ok_or(DropReason::UntaggedNotAllowed),
    };
    match vlan {
        Ok(vlan) => {
            walk.vlan = vlan;
            walk.note(|| format!("VLAN {vlan}"));
            Step::Next
        }
        Err(reason) => Step::drop(reason),
    }
}
