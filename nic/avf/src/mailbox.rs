//! The mailbox: two rings of descriptors by which driver and device send each other messages.
//!
//! Nothing is done when a ring is enabled, because drivers say where it is only afterwards. Ring and buffers are looked
//! for when there is something to do: a doorbell, or a message to deliver. A request is taken, its descriptor given back
//! and the head moved on before it is answered. An answer that finds no buffer waits; while too many wait no request is
//! taken, so that what is kept has a bound.

use std::collections::VecDeque;
use std::sync::Arc;

use fabnic_avf_spec::mailbox::{DESCRIPTOR, Descriptor, MESSAGE, flags, opcode, retval};
use fabnic_avf_spec::registers as reg;
use fabnic_memory::{AddressSpace, Hint, Map, Slice};

/// Answers that wait before no more requests are taken.
const OUTBOX: usize = 32;
/// Bytes of a descriptor, as lengths in guest memory are.
const BYTES: u32 = 32;

/// Registers of one ring.
#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    base_low: u32,
    base_high: u32,
    len: u32,
    head: u32,
    tail: u32,
}

impl Ring {
    fn count(&self) -> u32 {
        self.len & reg::len::COUNT
    }

    /// Enabled, not broken, and with sensible indexes.
    fn is_usable(&self) -> bool {
        let count = self.count();
        self.len & (reg::len::ENABLE | reg::len::CRITICAL) == reg::len::ENABLE
            && self.head < count
            && self.tail < count
    }

    fn base(&self) -> u64 {
        u64::from(self.base_high) << 32 | u64::from(self.base_low)
    }

    /// The descriptor at the head: its address and its place.
    fn slot(&self, map: &Map) -> Option<(u64, Slice)> {
        let addr = self.base().checked_add(u64::from(self.head) * u64::from(BYTES))?;
        let place = map.translate(addr, BYTES, &mut Hint::default())?;
        Some((addr, place))
    }

    fn advance(&mut self) {
        self.head = if self.head + 1 >= self.count() { 0 } else { self.head + 1 };
    }

    /// Writes a descriptor back: its flags last, which say that it is done.
    fn write_back(map: &Arc<Map>, addr: u64, place: &Slice, descriptor: &Descriptor) -> bool {
        let bytes = descriptor.encode();
        let Some(behind) = bytes.get(2..) else { return false };
        map.write(&place.part(2, BYTES), 0, behind);
        match map.table::<u16>(AddressSpace::Guest, addr, 1) {
            Ok(flags) => flags.store_release(0, descriptor.flags.to_le()),
            Err(_) => return false,
        }
        true
    }
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// virtchnl opcode.
    pub(crate) message: u32,
    /// Bytes of its body, which are in the buffer.
    pub(crate) len: usize,
}

#[derive(Debug)]
struct Outgoing {
    message: u32,
    status: i32,
    body: Vec<u8>,
}

/// Both rings, and what waits.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    send: Ring,
    receive: Ring,
    outbox: VecDeque<Outgoing>,
    /// How often memory was not there.
    pub(crate) faults: u64,
}

impl Mailbox {
    /// Everything as after power-on.
    pub(crate) fn reset(&mut self) {
        *self = Mailbox { faults: self.faults, ..Mailbox::default() };
    }

    fn register(&mut self, offset: u64) -> Option<&mut u32> {
        let (send, receive) = (&mut self.send, &mut self.receive);
        Some(match offset {
            reg::ATQBAL => &mut send.base_low,
            reg::ATQBAH => &mut send.base_high,
            reg::ATQLEN => &mut send.len,
            reg::ATQH => &mut send.head,
            reg::ATQT => &mut send.tail,
            reg::ARQBAL => &mut receive.base_low,
            reg::ARQBAH => &mut receive.base_high,
            reg::ARQLEN => &mut receive.len,
            reg::ARQH => &mut receive.head,
            reg::ARQT => &mut receive.tail,
            _ => return None,
        })
    }

    /// Reads a register, if it is one of the mailbox's.
    pub(crate) fn read(&mut self, offset: u64) -> Option<u32> {
        self.register(offset).map(|register| *register)
    }

    /// Writes a register. `false` if it is none of the mailbox's.
    pub(crate) fn write(&mut self, offset: u64, value: u32) -> bool {
        let value = match offset {
            reg::ATQH | reg::ATQT | reg::ARQH | reg::ARQT => value & reg::len::COUNT,
            _ => value,
        };
        match self.register(offset) {
            Some(register) => *register = value,
            None => return false,
        }
        true
    }

    /// Whether the driver can be told anything.
    pub(crate) fn is_open(&self) -> bool {
        self.receive.len & reg::len::ENABLE != 0
    }

    /// Takes the next request; its body goes to `buffer`.
    pub(crate) fn take(&mut self, map: &Arc<Map>, buffer: &mut [u8; MESSAGE]) -> Option<Request> {
        // One round of the ring at the most: what else there is was put there meanwhile.
        for _ in 0..=self.send.count() {
            if !self.send.is_usable() || self.send.head == self.send.tail || self.outbox.len() >= OUTBOX {
                return None;
            }
            match self.take_one(map, buffer) {
                Some(Some(request)) => return Some(request),
                Some(None) => {}
                None => {
                    // Its memory is not there: hardware says so here and waits for the driver to set it up anew.
                    self.send.len |= reg::len::CRITICAL;
                    self.faults += 1;
                    return None;
                }
            }
        }
        None
    }

    fn take_one(&mut self, map: &Arc<Map>, buffer: &mut [u8; MESSAGE]) -> Option<Option<Request>> {
        let (addr, place) = self.send.slot(map)?;
        let mut bytes = [0; DESCRIPTOR];
        map.read(&place, 0, &mut bytes);
        let mut descriptor = Descriptor::parse(&bytes);
        let wanted = flags::BUF | flags::RD;
        let mut len = 0;
        if descriptor.flags & wanted == wanted {
            len = usize::from(descriptor.len).min(MESSAGE);
            let mut at = 0;
            let body = buffer.get_mut(..len)?;
            let whole = map.translate_pieces(
                descriptor.address,
                u32::try_from(len).ok()?,
                &mut Hint::default(),
                |piece| {
                    let got = body.get_mut(at..).map_or(0, |rest| map.read(&piece, 0, rest));
                    at += got;
                    got > 0
                },
            );
            if !whole {
                return None;
            }
        }
        descriptor.flags = descriptor.flags & !flags::ERR | flags::DD | flags::CMP;
        descriptor.retval = 0;
        let request = match descriptor.opcode {
            opcode::TO_PF => Some(Request { message: descriptor.message, len }),
            // The registers follow; there is nothing to keep until then.
            opcode::SHUTDOWN => None,
            _ => {
                descriptor.flags |= flags::ERR;
                descriptor.retval = retval::ESRCH;
                None
            }
        };
        if !Ring::write_back(map, addr, &place, &descriptor) {
            return None;
        }
        self.send.advance();
        Some(request)
    }

    /// Whether no more answers should be made until some were delivered.
    pub(crate) fn is_full(&self) -> bool {
        self.outbox.len() >= OUTBOX
    }

    /// A message for the driver, delivered by [`Mailbox::pump`].
    pub(crate) fn post(&mut self, message: u32, status: i32, body: Vec<u8>) {
        self.outbox.push_back(Outgoing { message, status, body });
    }

    /// Delivers what waits, as far as there are buffers. `true` if something was delivered.
    pub(crate) fn pump(&mut self, map: &Arc<Map>) -> bool {
        let mut any = false;
        while self.receive.is_usable() && self.receive.head != self.receive.tail {
            let Some(outgoing) = self.outbox.front() else { break };
            if deliver(&self.receive, map, outgoing).is_none() {
                self.receive.len |= reg::len::CRITICAL;
                self.faults += 1;
                break;
            }
            self.receive.advance();
            self.outbox.pop_front();
            any = true;
        }
        any
    }
}

fn deliver(ring: &Ring, map: &Arc<Map>, outgoing: &Outgoing) -> Option<()> {
    let (addr, place) = ring.slot(map)?;
    let mut bytes = [0; DESCRIPTOR];
    map.read(&place, 0, &mut bytes);
    let posted = Descriptor::parse(&bytes);
    let body = outgoing.body.get(..usize::from(posted.len)).unwrap_or(&outgoing.body);
    let mut at = 0;
    let len = u16::try_from(body.len()).ok()?;
    let whole = map.translate_pieces(posted.address, u32::from(len), &mut Hint::default(), |piece| {
        let done = body.get(at..).map_or(0, |rest| map.write(&piece, 0, rest));
        at += done;
        done > 0
    });
    if !whole {
        return None;
    }
    let mut flags = flags::DD | flags::CMP;
    if len > 0 {
        flags |= flags::BUF;
    }
    if len > 512 {
        flags |= flags::LB;
    }
    let descriptor = Descriptor {
        flags,
        opcode: opcode::TO_VF,
        len,
        retval: 0,
        message: outgoing.message,
        status: outgoing.status,
        param0: 0,
        param1: 0,
        address: posted.address,
    };
    Ring::write_back(map, addr, &place, &descriptor).then_some(())
}
