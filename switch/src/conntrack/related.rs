//! ICMP errors: they carry the beginning of the packet that they are about (RFC 792, RFC 4443 section 2.4), and belong to
//! its connection.
//!
//! ```text
//!   | IP: router -> A | ICMP: type 3 .. | IP: A -> B | first 8 bytes of L4 ... |
//!   l3                l4                 inner l3     inner l4
//! ```
//!
//! # Invariants
//! - The error must go to where the carried packet came from, else it belongs to nothing.
//! - An error about an error, and one about a later fragment, belongs to nothing.

use fabnic_wire::{EtherType, Fields, FlowFields, IpProtocol, layers::Network};

use super::segment::l4_of;
use super::tuple::{Tuple, is_icmp_error};

/// The packet that an error carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    /// As it was on the wire when the error was made.
    pub(crate) tuple: Tuple,
    /// Offset of its IP header in the frame.
    pub(crate) l3: usize,
    /// And of what follows that.
    pub(crate) l4: usize,
}

/// Whether a packet is an ICMP error.
pub(crate) fn is_error(fields: &Fields) -> bool {
    let flow = &fields.flow;
    flow.protocol().is_icmp()
        && u8::try_from(flow.src_port).is_ok_and(|kind| is_icmp_error(flow.protocol(), kind))
        && flow.flags.has(fabnic_wire::FlowFlags::PORTS)
}

impl Carried {
    /// Reads what an error carries.
    pub(crate) fn of(fields: &Fields, head: &[u8], zone: u16) -> Option<Carried> {
        let l3 = usize::from(fields.l4?) + 8;
        let ethertype = match fields.flow.network()? {
            Network::V4 => EtherType::IPV4,
            Network::V6 => EtherType::IPV6,
        };
        let flow = FlowFields::at(head, l3, ethertype);
        let l4 = l4_of_carried(head, l3, &flow)?;
        let inner = Fields { flow, l4: Some(u16::try_from(l4).ok()?), ..*fields };
        if is_error(&inner) {
            return None;
        }
        let tuple = Tuple::of(&inner, head, zone)?;
        (tuple.src == fields.flow.dst).then_some(Carried { tuple, l3, l4 })
    }
}

/// Only without extension headers: an error has no room for them and ports besides.
fn l4_of_carried(head: &[u8], l3: usize, flow: &FlowFields) -> Option<usize> {
    match flow.network()? {
        Network::V4 => l4_of(head, l3),
        Network::V6 => {
            let next = IpProtocol(*head.get(l3 + 6)?);
            (!next.is_extension()).then_some(l3 + 40)
        }
    }
}
