//! The driver's side of the mailbox.

use fabnic_avf_spec::mailbox::{DESCRIPTOR, Descriptor, MESSAGE, flags, opcode};
use fabnic_avf_spec::registers as reg;
use fabnic_memory::{Hint, Map, Slice};

use crate::arena::Arena;
use crate::{Bus, Error};

/// Descriptors of each ring.
const LEN: u16 = 32;
/// Bytes of a descriptor and of a buffer, as lengths in memory are.
const STEP: u64 = DESCRIPTOR as u64;

/// A message from the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) message: u32,
    pub(crate) status: i32,
    pub(crate) body: Vec<u8>,
}

/// Both rings.
#[derive(Debug)]
pub(crate) struct Mailbox {
    send: u64,
    receive: u64,
    send_buffers: Vec<(u64, Slice)>,
    receive_buffers: Vec<(u64, Slice)>,
    next_send: u16,
    next_receive: u16,
}

fn read(map: &Map, ring: u64, at: u16) -> Descriptor {
    let mut bytes = [0; DESCRIPTOR];
    if let Some(place) = map.translate(ring + u64::from(at) * STEP, 32, &mut Hint::default()) {
        map.read(&place, 0, &mut bytes);
    }
    Descriptor::parse(&bytes)
}

fn write(map: &Map, ring: u64, at: u16, descriptor: &Descriptor) {
    if let Some(place) = map.translate(ring + u64::from(at) * STEP, 32, &mut Hint::default()) {
        map.write(&place, 0, &descriptor.encode());
    }
}

impl Mailbox {
    /// Takes memory for the rings.
    pub(crate) fn new(arena: &mut Arena) -> Result<Mailbox, Error> {
        let message = u16::try_from(MESSAGE).unwrap_or(u16::MAX);
        Ok(Mailbox {
            send: arena.take(STEP * u64::from(LEN))?,
            receive: arena.take(STEP * u64::from(LEN))?,
            send_buffers: arena.buffers(LEN, message)?,
            receive_buffers: arena.buffers(LEN, message)?,
            next_send: 0,
            next_receive: 0,
        })
    }

    fn post(&self, map: &Map, at: u16) {
        let Some((address, _)) = self.receive_buffers.get(usize::from(at)) else { return };
        let posted = Descriptor {
            flags: flags::BUF | flags::LB,
            len: u16::try_from(MESSAGE).unwrap_or(u16::MAX),
            address: *address,
            ..Descriptor::default()
        };
        write(map, self.receive, at, &posted);
    }

    /// Tells the device where the rings are.
    pub(crate) fn open(&mut self, bus: &mut dyn Bus, map: &Map) {
        (self.next_send, self.next_receive) = (0, 0);
        for at in 0..LEN {
            write(map, self.send, at, &Descriptor::default());
            self.post(map, at);
        }
        let rings = [
            (self.send, reg::ATQH, reg::ATQT, reg::ATQBAL, reg::ATQBAH, reg::ATQLEN),
            (self.receive, reg::ARQH, reg::ARQT, reg::ARQBAL, reg::ARQBAH, reg::ARQLEN),
        ];
        for (ring, head, tail, low, high, len) in rings {
            bus.write(head, 0);
            bus.write(tail, 0);
            bus.write(low, u32::try_from(ring & 0xffff_ffff).unwrap_or(0));
            bus.write(high, u32::try_from(ring >> 32).unwrap_or(0));
            bus.write(len, u32::from(LEN) | reg::len::ENABLE);
        }
        bus.write(reg::ARQT, u32::from(LEN - 1));
    }

    /// Whether the device still knows the rings: it forgets them in a reset.
    pub(crate) fn is_open(bus: &mut dyn Bus) -> bool {
        bus.read(reg::ARQLEN) & reg::len::ENABLE != 0
    }

    /// Sends a message.
    pub(crate) fn send(
        &mut self,
        bus: &mut dyn Bus,
        map: &Map,
        message: u32,
        body: &[u8],
    ) -> Result<(), Error> {
        let at = self.next_send;
        let Some((address, place)) = self.send_buffers.get(usize::from(at)) else {
            return Err(Error::NoAnswer(message));
        };
        if map.write(place, 0, body) != body.len() {
            return Err(Error::Setup("the message is longer than a buffer of the mailbox"));
        }
        let mut flags = flags::SI;
        if !body.is_empty() {
            flags |= flags::BUF | flags::RD;
        }
        if body.len() > 512 {
            flags |= flags::LB;
        }
        let descriptor = Descriptor {
            flags,
            opcode: opcode::TO_PF,
            len: u16::try_from(body.len()).unwrap_or(0),
            message,
            address: *address,
            ..Descriptor::default()
        };
        write(map, self.send, at, &descriptor);
        self.next_send = (at + 1) % LEN;
        bus.write(reg::ATQT, u32::from(self.next_send));
        Ok(())
    }

    /// The next message from the device, if there is one.
    pub(crate) fn take(&mut self, bus: &mut dyn Bus, map: &Map) -> Option<Message> {
        let at = self.next_receive;
        let descriptor = read(map, self.receive, at);
        if descriptor.flags & flags::DD == 0 {
            return None;
        }
        let (_, place) = self.receive_buffers.get(usize::from(at))?;
        let len = if descriptor.flags & flags::BUF == 0 { 0 } else { usize::from(descriptor.len) };
        let mut body = vec![0; len.min(MESSAGE)];
        map.read(place, 0, &mut body);
        self.post(map, at);
        bus.write(reg::ARQT, u32::from(at));
        self.next_receive = (at + 1) % LEN;
        Some(Message { message: descriptor.message, status: descriptor.status, body })
    }
}
