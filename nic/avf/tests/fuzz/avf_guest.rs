//! A guest that does anything: registers, memory, mailbox messages, descriptors, in any order, while frames come and go.
//!
//! The input is a list of records: a byte that says what, then its operands. What must hold, whatever comes: no panic, the
//! port's frames add up, what the mailbox keeps is bounded, and after a reset a well-behaved driver comes up.

use std::sync::Arc;

use fabnic_avf::{Avf, Generation, Settings};
use fabnic_memory::{Hint, Map};
use fabnic_pci::{Function, Interrupts, Reset};
use fabnic_port::{Burst, Port, PortId, PortKind, Tally};

/// Memory of the guest.
const MEMORY: u64 = 1 << 20;
/// Where rings and buffers of the mailbox are put when a record says "properly".
const SEND_RING: u32 = 0x1000;
const RECEIVE_RING: u32 = 0x2000;
const BODY: u32 = 0x4000;
const REPLIES: u32 = 0x1_0000;
/// Queue rings of a proper configuration.
const TX_RING: u64 = 0x4_0000;
const RX_RING: u64 = 0x5_0000;

struct Nobody;

impl Interrupts for Nobody {
    fn msix(&self, vector: u16) {
        assert!(vector < 17);
    }
    fn intx(&self, _asserted: bool) {
        panic!("a virtual function has no pin");
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> u32 {
        (0..4).fold(0, |word, _| word << 8 | u32::from(self.byte().unwrap_or(0)))
    }

    fn half(&mut self) -> u16 {
        (self.word() >> 16) as u16
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

struct Guest {
    function: Avf,
    port: Arc<Port>,
    map: Arc<Map>,
    send: u32,
    receive: u32,
    burst: Burst,
    /// Frames that were delivered.
    delivered: u64,
}

impl Guest {
    fn write(&mut self, offset: u64, value: u32) {
        self.function.expire(0);
        self.function.write(0, offset, &value.to_le_bytes());
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.function.expire(0);
        self.function.read(0, offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn poke(&self, addr: u64, bytes: &[u8]) {
        if let Some(place) = self.map.translate(addr, bytes.len() as u32, &mut Hint::default()) {
            self.map.write(&place, 0, bytes);
        }
    }

    fn open_mailbox(&mut self) {
        (self.send, self.receive) = (0, 0);
        for slot in 0..32 {
            self.post(slot);
        }
        for (offset, value) in [
            (0x6400, 0),
            (0x8400, 0),
            (0x6800, 32 | 1 << 31),
            (0x7c00, SEND_RING),
            (0x7800, 0),
            (0x7400, 0),
            (0x7000, 0),
            (0x8000, 32 | 1 << 31),
            (0x6c00, RECEIVE_RING),
            (0x6000, 0),
            (0x7000, 31),
        ] {
            self.write(offset, value);
        }
    }

    fn post(&self, slot: u32) {
        let mut descriptor = [0; 32];
        descriptor[..6].copy_from_slice(&[0, 0x12, 0, 0, 0, 0x10]);
        descriptor[28..].copy_from_slice(&(REPLIES + slot * 0x1000).to_le_bytes());
        self.poke((RECEIVE_RING + slot * 32).into(), &descriptor);
    }

    /// Sends a message; its replies are taken. Gives the status of the last.
    fn ask(&mut self, opcode: u32, body: &[u8]) -> Option<i32> {
        self.poke(BODY.into(), body);
        let mut descriptor = [0; 32];
        descriptor[..6].copy_from_slice(&[0, 0x14, 1, 8, body.len() as u8, (body.len() >> 8) as u8]);
        descriptor[8..12].copy_from_slice(&opcode.to_le_bytes());
        descriptor[28..].copy_from_slice(&BODY.to_le_bytes());
        self.poke((SEND_RING + self.send * 32).into(), &descriptor);
        self.send = (self.send + 1) % 32;
        self.write(0x8400, self.send);
        let mut status = None;
        for _ in 0..64 {
            if self.read(0x7400) == self.receive || self.read(0x8000) >> 31 == 0 {
                break;
            }
            let mut reply = [0; 32];
            let at = u64::from(RECEIVE_RING + self.receive * 32);
            if let Some(place) = self.map.translate(at, 32, &mut Hint::default()) {
                self.map.read(&place, 0, &mut reply);
            }
            let word =
                |at: usize| u32::from_le_bytes([reply[at], reply[at + 1], reply[at + 2], reply[at + 3]]);
            if word(8) == opcode {
                status = Some(word(12) as i32);
            }
            self.post(self.receive);
            self.write(0x7000, self.receive);
            self.receive = (self.receive + 1) % 32;
        }
        status
    }

    fn negotiate(&mut self, caps: u32) -> Option<i32> {
        self.open_mailbox();
        self.ask(1, &[1, 0, 0, 0, 1, 0, 0, 0]);
        self.ask(3, &caps.to_le_bytes())
    }

    /// Two queues on rings of 64 and of 32 descriptors.
    fn start_queues(&mut self, format: u8) -> Option<i32> {
        let mut body = vec![1, 0, 2, 0, 0, 0, 0, 0];
        for queue in 0..2_u8 {
            let len = 64 >> queue;
            body.extend([1, 0, queue, 0, len, 0, 0, 0]);
            body.extend((TX_RING + u64::from(queue) * 0x1000).to_le_bytes());
            body.extend([0; 8]);
            body.extend([1, 0, queue, 0, len, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0xee, 5, 0, 0]);
            body.extend([0, format, 0, 0]);
            body.extend((RX_RING + u64::from(queue) * 0x1000).to_le_bytes());
            body.extend([0; 8]);
        }
        let status = self.ask(6, &body);
        self.ask(7, &[1, 0, 1, 0, 1, 0, 3, 0, 3, 0, 0, 0, 1, 0]);
        self.ask(8, &[1, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0]);
        status
    }

    /// What a worker does: takes what is there and delivers it back to the same port, and a frame of its own.
    fn turn(&mut self) {
        if self.port.is_stopped() {
            return;
        }
        let mut fault = None;
        for cell in self.port.ingress() {
            let mut guard = cell.lock();
            let Some(ingress) = guard.as_mut() else { continue };
            if ingress.backlog() == 0 {
                continue;
            }
            if let Err(error) = ingress.receive(&mut self.burst) {
                fault = Some(error);
                break;
            }
            let picks: Vec<u8> = (0..self.burst.len() as u8)
                .filter(|n| self.burst.frames()[usize::from(*n)].marked().is_none())
                .collect();
            fault = fault.or(deliver(&self.port, &mut self.burst, &picks, &mut self.delivered));
            ingress.complete(&self.burst);
        }
        self.burst.release();
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 0, 0x45], &[7; 60]].concat();
        if self.burst.push_bytes(&frame).is_some() {
            fault = fault.or(deliver(&self.port, &mut self.burst, &[0, 0], &mut self.delivered));
        }
        if let Some(fault) = fault {
            assert!(!fault.0.is_empty());
            self.port.stop(fault);
        }
    }
}

fn deliver(port: &Port, burst: &mut Burst, picks: &[u8], delivered: &mut u64) -> Option<fabnic_port::Fault> {
    let mut guard = port.egress()[0].lock();
    let egress = guard.as_mut()?;
    let mut tally = Tally::default();
    match egress.deliver(burst, picks, &mut tally) {
        Ok(()) => {
            *delivered += tally.frames;
            assert_eq!(tally.frames + tally.dropped(), picks.len() as u64, "{tally:?}");
            None
        }
        Err(fault) => Some(fault),
    }
}

/// Runs the records; gives how many there were, and how many frames were delivered.
pub(crate) fn run(data: &[u8]) -> (usize, u64) {
    let mut input = Input(data);
    let Some(setup) = input.byte() else { return (0, 0) };
    let port = Arc::new(Port::new(PortId(1), "vf", PortKind::Avf, 2));
    let settings = Settings {
        mac: [2, 0, 0, 0, 0, 1],
        queues: 2,
        generation: Generation::of(setup % 3 + 1).unwrap_or(Generation::LATEST),
        trust: setup & 4 != 0,
        spoofchk: setup & 8 != 0,
        ..Settings::default()
    };
    let Ok(mut function) = Avf::new(Arc::clone(&port), settings) else { return (0, 0) };
    let Ok((map, _)) = Map::anonymous(MEMORY) else { return (0, 0) };
    function.attach(Arc::new(Nobody));
    function.set_memory(Some(Arc::clone(&map)));
    let mut guest = Guest { function, port, map, send: 0, receive: 0, burst: Burst::new(), delivered: 0 };
    if setup & 16 != 0 {
        guest.negotiate(u32::MAX);
    }
    let mut taken = 0;
    while let (Some(kind), true) = (input.byte(), taken < 200) {
        taken += 1;
        match kind % 14 {
            0 => {
                let offset = u64::from(input.half()) * 4;
                let value = input.word();
                guest.write(offset, value);
            }
            1 => drop(guest.read(u64::from(input.half()) * 4)),
            2 => {
                let (addr, len) = (input.word() & 0xf_ffff, input.byte().unwrap_or(0));
                let bytes = input.bytes(len.into());
                guest.poke(addr.into(), &bytes);
            }
            3 => guest.open_mailbox(),
            4 => {
                let caps = input.word();
                guest.negotiate(caps);
            }
            5 => drop(guest.start_queues(input.byte().unwrap_or(1))),
            6 => {
                let (opcode, len) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0));
                let body = input.bytes(len.into());
                guest.ask(opcode.into(), &body);
            }
            // A tail, likely within the ring.
            7 => {
                let (queue, tail) = (input.byte().unwrap_or(0) & 3, input.byte().unwrap_or(0));
                let register = [0x0000, 0x0004, 0x2000, 0x2004][usize::from(queue)];
                guest.write(register, u32::from(tail) & 0x3f);
            }
            // A transmit descriptor whose buffer is likely in memory.
            8 => {
                let (slot, second) = (input.byte().unwrap_or(0) & 63, input.word());
                let (low, high) = (u64::from(input.half()), u64::from(second));
                let mut words = (0x8_0000 + low).to_le_bytes().to_vec();
                words.extend((high << 32 | low & 0xfff0 | low >> 12 & 1).to_le_bytes());
                guest.poke(TX_RING + u64::from(slot) * 16, &words);
            }
            // A receive buffer, likely in memory.
            9 => {
                let (slot, at) = (input.byte().unwrap_or(0) & 63, input.word());
                guest.poke(RX_RING + u64::from(slot) * 32, &u64::from(at & 0x1f_ffff).to_le_bytes());
            }
            10 | 11 => guest.turn(),
            12 => {
                let memory =
                    if input.byte().unwrap_or(0) & 1 == 0 { None } else { Some(Arc::clone(&guest.map)) };
                guest.function.set_memory(memory);
            }
            _ => {
                let reset = match input.byte().unwrap_or(0) % 3 {
                    0 => Reset::FunctionLevel,
                    1 => Reset::Device,
                    _ => Reset::Disconnect,
                };
                guest.function.reset(reset);
                assert!(guest.port.ingress().iter().all(|cell| !cell.is_installed()));
                assert!(!guest.port.egress()[0].is_installed());
                assert!(!guest.port.is_stopped());
            }
        }
    }
    guest.turn();
    // Whatever was: the next driver finds a function as after power-on.
    guest.function.reset(Reset::Device);
    guest.function.set_memory(Some(Arc::clone(&guest.map)));
    assert_eq!(guest.read(0x8000), 0);
    assert_eq!(guest.negotiate(1), Some(0));
    assert_eq!(guest.start_queues(1), Some(0));
    assert!(guest.port.egress()[0].is_installed());
    (taken, guest.delivered)
}
