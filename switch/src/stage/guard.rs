//! What the sender says of itself must be true: addresses, VLAN, roles (the checks of [`crate::guard`]).
//!
//! For plain packets the decision is the flow's, and depends on the version of the binding of its source. ARP, neighbour
//! discovery and DHCP are looked at frame by frame, and what DHCP says is learned here.

use super::{Step, Walk};
use crate::guard::check::Sender;
use crate::guard::datagram;
use crate::origin::LONGEST;
use crate::settings::VlanMode;

pub(super) fn run(walk: &mut Walk<'_>) -> Step {
    let settings = &walk.ingress.settings.guard;
    if !settings.mac && !settings.reads_packets() {
        return Step::Next;
    }
    let sender = Sender {
        port: walk.ingress.port.id,
        settings,
        is_access: matches!(walk.ingress.settings.vlan, VlanMode::Access(_)),
        protocol: walk.ingress.settings.vlan_protocol,
        vlan: walk.vlan,
        bindings: &walk.tables.bindings,
        now: walk.now,
        dry: walk.dry,
    };
    let fields = walk.fields;
    let findings = sender.check(fields, walk.head);
    if let Some(version) = findings.version {
        walk.depend(version);
    }
    if findings.is_own {
        walk.do_not_remember();
    }
    if let Some(reason) = findings.drop {
        walk.note(|| reason.explain().to_owned());
        return Step::drop(reason);
    }
    // What a customer's tag leads to is another link's, and the switch knows nothing of it.
    if !datagram::is_dhcp(fields) || !walk.is_of_vlan() {
        return Step::Next;
    }
    let served = &walk.ingress.settings.answer;
    let is_served = (served.dhcp.is_some() && datagram::is_to_dhcp_server(fields))
        || (served.dhcp6.is_some() && datagram::is_to_dhcp6_server(fields));
    if is_served && !settings.trusted {
        // The switch is the server: no other one will be asked.
        return Step::Next;
    }
    let mut room = [0; LONGEST];
    let frame = walk.whole(&mut room).unwrap_or(walk.head);
    match walk.tables.snooper.look(&sender, fields, frame) {
        Ok(()) => Step::Next,
        Err(reason) => {
            walk.note(|| reason.explain().to_owned());
            Step::drop(reason)
        }
    }
}
