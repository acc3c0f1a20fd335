//! Which VLAN the frame is in (IEEE 802.1Q, section 6.9): by its tag, or by its port.
//!
//! A tag with VLAN 0 only carries a priority: the frame counts as untagged. An access port takes a tag of its own VLAN,
//! as Linux bridges do, and no other. What a tag is, the port says ([`crate::VlanProtocol`]), and which VLAN its number
//! stands for ([`crate::VlanTranslation`]).

use fabnic_port::DropReason;

use super::{Step, Walk};

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    let vlan = match walk.tag {
        Some(tag) if tag.vid_bits() != 0 => {
            let settings = &walk.ingress.settings;
            let vlan = tag.vid().and_then(|wire| settings.vlan_translation.inward(wire));
            vlan.filter(|vid| settings.vlan.is_member(*vid)).ok_or(DropReason::VlanNotAllowed)
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
