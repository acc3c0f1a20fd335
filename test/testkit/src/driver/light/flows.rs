//! What tells the flows of a light guest apart, and how frames go through them.

use fabnic_memory::Table;

use super::HEADER;

/// Which fields of a frame tell flows apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowFields {
    /// UDP ports.
    #[default]
    Ip,
    /// Both MAC addresses.
    Mac,
}

/// Rewrites frames as they go out, when there are more flows than frames in the ring.
#[derive(Debug)]
pub(super) struct Walk {
    /// All transmit buffers in words of 16 bits.
    halves: Table<u16>,
    fields: FlowFields,
    flows: u32,
    next: u32,
}

impl Walk {
    /// Over `flows` flows, of which `next` comes next.
    pub(super) fn new(halves: Table<u16>, fields: FlowFields, flows: u32, next: u32) -> Walk {
        Walk { halves, fields, flows, next }
    }

    /// Gives the frame at byte `at` of the buffers (its virtio-net header, that is) the next flow's fields.
    #[inline]
    pub(super) fn step(&mut self, at: usize) {
        let flow = self.next;
        self.next = if flow + 1 >= self.flows { 0 } else { flow + 1 };
        let frame = (at + HEADER as usize) / 2;
        let put = |half: usize, bytes: [u8; 2]| self.halves.store(frame + half, u16::from_ne_bytes(bytes));
        match self.fields {
            FlowFields::Ip => {
                let (source, destination) = flow_ports(flow);
                put(17, source.to_be_bytes());
                put(18, destination.to_be_bytes());
            }
            FlowFields::Mac => {
                // Bytes 2, 3 and 4 of both addresses carry the flow; byte 5 tells the ports apart and stays.
                let [_, high, middle, low] = flow.to_be_bytes();
                for first in [1, 4] {
                    put(first, [high, middle]);
                    let [_, last] = self.halves.load(frame + first + 1).to_ne_bytes();
                    put(first + 1, [low, last]);
                }
            }
        }
    }
}

/// The UDP ports of a flow with [`FlowFields::Ip`].
pub fn flow_ports(flow: u32) -> (u16, u16) {
    let source = 0x4000 | (flow & 0x3fff);
    let destination = 0x1000_u32.wrapping_add(flow >> 14) & 0xffff;
    (source as u16, destination as u16)
}

/// A MAC address of a flow with [`FlowFields::Mac`]: the flow in bytes 2 to 4 of the port's own address.
pub fn flow_mac(base: [u8; 6], flow: u32) -> [u8; 6] {
    let [_, high, middle, low] = flow.to_be_bytes();
    let [a, b, .., f] = base;
    [a, b, high, middle, low, f]
}
