//! A guest by the byte: registers and mailbox as a driver writes them, without any of the driver's or the device's types.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fabnic_avf::{Avf, Control, Settings};
use fabnic_memory::{Hint, Map};
use fabnic_pci::{Function, Interrupts};
use fabnic_port::Port;

pub(crate) const ATQBAH: u64 = 0x7800;
pub(crate) const ATQBAL: u64 = 0x7c00;
pub(crate) const ATQLEN: u64 = 0x6800;
pub(crate) const ATQH: u64 = 0x6400;
pub(crate) const ATQT: u64 = 0x8400;
pub(crate) const ARQBAH: u64 = 0x6000;
pub(crate) const ARQBAL: u64 = 0x6c00;
pub(crate) const ARQLEN: u64 = 0x8000;
pub(crate) const ARQH: u64 = 0x7400;
pub(crate) const ARQT: u64 = 0x7000;
pub(crate) const RSTAT: u64 = 0x8800;
pub(crate) const ICR01: u64 = 0x4800;
pub(crate) const ICR0_ENA1: u64 = 0x5000;
pub(crate) const DYN_CTL01: u64 = 0x5c00;
pub(crate) const ENABLE: u32 = 1 << 31;

/// In which order a driver sets up the mailbox, and how long its rings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Linux and DPDK: enabled before the bases are written; 32 descriptors each.
    Linux,
    /// VPP: bases first; 4 and 16.
    Vpp,
    /// OpenBSD: bases first; 256 each.
    OpenBsd,
}

#[derive(Default)]
struct Counts([AtomicU32; 32]);

impl Interrupts for Counts {
    fn msix(&self, vector: u16) {
        self.0[usize::from(vector)].fetch_add(1, Ordering::Relaxed);
    }
    fn intx(&self, _asserted: bool) {
        panic!("a virtual function has no pin");
    }
}

/// A message from the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) opcode: u32,
    pub(crate) status: i32,
    pub(crate) body: Vec<u8>,
}

/// A guest.
pub(crate) struct Raw {
    pub(crate) port: Arc<Port>,
    pub(crate) function: Avf,
    pub(crate) control: Control,
    pub(crate) map: Arc<Map>,
    counts: Arc<Counts>,
    style: Style,
    send: u16,
    receive: u16,
}

const SEND_RING: u64 = 0x1_0000;
const RECEIVE_RING: u64 = 0x2_0000;
const SEND_BUFFERS: u64 = 0x10_0000;
const RECEIVE_BUFFERS: u64 = 0x30_0000;

impl Raw {
    pub(crate) fn new(settings: Settings) -> Raw {
        let port = super::common::port(16);
        let (mut function, control) = super::common::function(&port, settings);
        let (map, _) = Map::anonymous(32 << 20).unwrap();
        let counts = Arc::new(Counts::default());
        function.attach(Arc::<Counts>::clone(&counts));
        function.set_memory(Some(Arc::clone(&map)));
        Raw { port, function, control, map, counts, style: Style::Linux, send: 0, receive: 0 }
    }

    pub(crate) fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.function.expire(0);
        self.function.read(0, offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        self.function.expire(0);
        self.function.write(0, offset, &value.to_le_bytes());
    }

    pub(crate) fn interrupts(&self, vector: usize) -> u32 {
        self.counts.0[vector].swap(0, Ordering::Relaxed)
    }

    pub(crate) fn poke(&self, addr: u64, bytes: &[u8]) {
        let place = self.map.translate(addr, bytes.len() as u32, &mut Hint::default()).unwrap();
        self.map.write(&place, 0, bytes);
    }

    pub(crate) fn peek(&self, addr: u64, len: usize) -> Vec<u8> {
        let place = self.map.translate(addr, len as u32, &mut Hint::default()).unwrap();
        let mut bytes = vec![0; len];
        self.map.read(&place, 0, &mut bytes);
        bytes
    }

    fn lens(&self) -> (u16, u16) {
        match self.style {
            Style::Linux => (32, 32),
            Style::Vpp => (4, 16),
            Style::OpenBsd => (256, 256),
        }
    }

    fn post(&self, at: u16) {
        let addr = RECEIVE_BUFFERS + u64::from(at) * 4096;
        let mut descriptor = [0; 32];
        descriptor[0..2].copy_from_slice(&0x1200_u16.to_le_bytes());
        descriptor[4..6].copy_from_slice(&4096_u16.to_le_bytes());
        descriptor[28..32].copy_from_slice(&(addr as u32).to_le_bytes());
        self.poke(RECEIVE_RING + u64::from(at) * 32, &descriptor);
    }

    /// Sets the mailbox up as a driver of this kind does.
    pub(crate) fn open(&mut self, style: Style) {
        self.style = style;
        (self.send, self.receive) = (0, 0);
        let (send, receive) = self.lens();
        (0..receive).for_each(|at| self.post(at));
        self.poke(SEND_RING, &vec![0; 32 * usize::from(send)]);
        let (atq, arq) = (u32::from(send) | ENABLE, u32::from(receive) | ENABLE);
        match style {
            Style::Linux => {
                for (head, tail, len, value, low, high, base) in [
                    (ATQH, ATQT, ATQLEN, atq, ATQBAL, ATQBAH, SEND_RING),
                    (ARQH, ARQT, ARQLEN, arq, ARQBAL, ARQBAH, RECEIVE_RING),
                ] {
                    self.write(head, 0);
                    self.write(tail, 0);
                    self.write(len, value);
                    self.write(low, base as u32);
                    self.write(high, 0);
                    assert_eq!(self.read(low), base as u32, "failed to init Admin Queue");
                }
                self.write(ARQT, 31);
            }
            Style::Vpp => {
                for (len, value, tail, head, low, high, base) in [
                    (ATQLEN, atq, ATQT, ATQH, ATQBAL, ATQBAH, SEND_RING),
                    (ARQLEN, arq, ARQT, ARQH, ARQBAL, ARQBAH, RECEIVE_RING),
                ] {
                    self.write(len, 0);
                    self.write(tail, 0);
                    self.write(head, 0);
                    self.write(low, base as u32);
                    self.write(high, 0);
                    self.write(len, value);
                }
                self.write(ARQT, 15);
            }
            Style::OpenBsd => {
                for register in [ATQH, ARQH, ATQT, ARQT] {
                    self.write(register, 0);
                }
                self.write(ATQBAL, SEND_RING as u32);
                self.write(ATQBAH, 0);
                self.write(ATQLEN, atq);
                self.write(ARQBAL, RECEIVE_RING as u32);
                self.write(ARQBAH, 0);
                self.write(ARQLEN, arq);
                self.write(ARQT, 255);
            }
        }
    }

    /// Sends a request; what comes back is for [`Raw::next`].
    pub(crate) fn post_request(&mut self, opcode: u32, body: &[u8]) {
        let (len, _) = self.lens();
        let slot = self.send;
        let addr = SEND_BUFFERS + u64::from(slot) * 4096;
        self.poke(addr, body);
        let mut flags = 0x2000_u16;
        if !body.is_empty() {
            flags |= 0x1400;
        }
        if body.len() > 512 {
            flags |= 0x200;
        }
        let mut descriptor = [0; 32];
        descriptor[0..2].copy_from_slice(&flags.to_le_bytes());
        descriptor[2..4].copy_from_slice(&0x0801_u16.to_le_bytes());
        descriptor[4..6].copy_from_slice(&(body.len() as u16).to_le_bytes());
        descriptor[8..12].copy_from_slice(&opcode.to_le_bytes());
        descriptor[28..32].copy_from_slice(&(addr as u32).to_le_bytes());
        self.poke(SEND_RING + u64::from(slot) * 32, &descriptor);
        self.send = (slot + 1) % len;
        self.write(ATQT, self.send.into());
        if self.read(ATQLEN) & ENABLE == 0 {
            // It was reset.
            return;
        }
        assert_eq!(self.read(ATQH), u32::from(self.send), "the head is what Linux looks at");
        let done = self.peek(SEND_RING + u64::from(slot) * 32, 32);
        let mut expected = descriptor;
        expected[0] |= 3;
        assert_eq!(done, expected, "done, complete, and nothing else changed");
    }

    /// The next message from the device.
    pub(crate) fn next(&mut self) -> Option<Reply> {
        let (_, len) = self.lens();
        let slot = self.receive;
        if self.read(ARQH) == u32::from(slot) {
            return None;
        }
        let descriptor = self.peek(RECEIVE_RING + u64::from(slot) * 32, 32);
        let half = |at: usize| u16::from_le_bytes([descriptor[at], descriptor[at + 1]]);
        let word = |at: usize| u32::from_le_bytes(descriptor[at..at + 4].try_into().unwrap());
        let size = half(4);
        let mut flags = 3;
        if size > 0 {
            flags |= 0x1000;
        }
        if size > 512 {
            flags |= 0x200;
        }
        assert_eq!((half(0), half(2), half(6)), (flags, 0x0802, 0));
        let addr = RECEIVE_BUFFERS + u64::from(slot) * 4096;
        assert_eq!(word(28), addr as u32, "the address stays");
        let body = self.peek(addr, size.into());
        let reply = Reply { opcode: word(8), status: word(12) as i32, body };
        self.post(slot);
        self.write(ARQT, slot.into());
        self.receive = (slot + 1) % len;
        Some(reply)
    }

    /// Sends a request and gives its reply; link events behind it are taken, too.
    pub(crate) fn ask(&mut self, opcode: u32, body: &[u8]) -> (i32, Vec<u8>) {
        self.post_request(opcode, body);
        let reply = self.next().unwrap_or_else(|| panic!("no reply to {opcode}"));
        assert_eq!(reply.opcode, opcode);
        while let Some(event) = self.next() {
            assert_eq!((event.opcode, event.status, event.body.len()), (17, 0, 16));
        }
        (reply.status, reply.body)
    }

    /// Sends a request that must succeed; gives the body of its reply.
    pub(crate) fn must(&mut self, opcode: u32, body: &[u8]) -> Vec<u8> {
        let (status, reply) = self.ask(opcode, body);
        assert_eq!(status, 0, "opcode {opcode}");
        reply
    }

    /// VERSION and GET_VF_RESOURCES with these capabilities. Gives what was granted.
    pub(crate) fn negotiate(&mut self, caps: u32) -> u32 {
        assert_eq!(self.must(1, &words(&[1, 1])), words(&[1, 1]));
        let resources = self.must(3, &words(&[caps]));
        assert_eq!(resources.len(), 36);
        u32::from_le_bytes(resources[8..12].try_into().unwrap())
    }
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(crate) fn halves(halves: &[u16]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_le_bytes()).collect()
}

/// One pair of CONFIG_VSI_QUEUES.
pub(crate) fn pair(id: u16, tx_len: u16, rx_len: u32, buffer: u32, max: u32, rxdid: u8) -> Vec<u8> {
    let (tx, rx) = (0x100_0000 + u64::from(id) * 0x4_0000, 0x108_0000 + u64::from(id) * 0x8_0000);
    let mut pair = halves(&[1, id, tx_len, 0]);
    pair.extend(tx.to_le_bytes());
    pair.extend(0_u64.to_le_bytes());
    pair.extend(halves(&[1, id]));
    pair.extend(words(&[rx_len]));
    pair.extend(halves(&[0, 0]));
    pair.extend(words(&[buffer, max]));
    pair.extend([0, rxdid, 0, 0]);
    pair.extend(rx.to_le_bytes());
    pair.extend([0; 8]);
    assert_eq!(pair.len(), 64);
    pair
}

/// CONFIG_VSI_QUEUES in its historical length, or in the exact one.
pub(crate) fn config_queues(pairs: &[Vec<u8>], exact: bool) -> Vec<u8> {
    let mut body = halves(&[1, pairs.len() as u16, 0, 0]);
    pairs.iter().for_each(|pair| body.extend(pair));
    if !exact {
        body.extend([0; 64]);
    }
    body
}
