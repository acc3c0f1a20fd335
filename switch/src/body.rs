//! All bytes of a frame of which the stages see the first ones.
//!
//! Nearly every decision is made on the private head. A few messages that the switch reads are longer: DHCP, echo
//! requests, LLDP. Their rest lies in the sender's memory, and is read once, when a stage asks for it.
//!
//! What is read here may differ from what is delivered later, if the sender changes its memory in between. So it may
//! decide on what the switch itself takes or answers, and on what concerns the sender alone.

use fabnic_memory::{Cursor, Map};

/// What lies behind the head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    /// Nothing is known of it.
    Unknown,
    /// The whole frame, head included, is here.
    Bytes(&'a [u8]),
    /// The rest is here.
    Memory(Cursor<'a>, &'a Map),
}

impl Body<'_> {
    /// The whole frame of `len` bytes that begins with `head`, in `room`. `None` if there is not enough room, or not all of
    /// it is to be had.
    pub(crate) fn whole<'r>(&self, head: &[u8], len: u32, room: &'r mut [u8]) -> Option<&'r [u8]> {
        let room = room.get_mut(..len as usize)?;
        let (front, back) = room.split_at_mut_checked(head.len())?;
        front.copy_from_slice(head);
        let got = match *self {
            Body::Unknown => 0,
            Body::Bytes(bytes) => {
                let rest = bytes.get(head.len()..len as usize)?;
                back.copy_from_slice(rest);
                rest.len()
            }
            Body::Memory(mut rest, map) => rest.read(map, back),
        };
        (got == back.len()).then_some(room)
    }
}
