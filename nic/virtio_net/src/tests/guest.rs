//! A guest with one queue pair: memory, a driver for each ring, and the device's two queues.

use std::collections::HashMap;
use std::sync::Arc;

use fabnic_memory::{Hint, Map};
use fabnic_port::{Egress, Ingress};
use fabnic_virtqueue::RingConfig;
use fabnic_virtqueue::driver::{Buffer, Driver, Used};
use fabnic_wire::Offload;

use crate::{Features, QueueSetup, open_receive, open_transmit};

/// How a guest's rings are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) packed: bool,
    pub(crate) event_idx: bool,
    pub(crate) in_order: bool,
    pub(crate) indirect: bool,
    pub(crate) mergeable: bool,
    pub(crate) size: u16,
}

/// Memory of one chain: its table, then its buffers.
const AREA: u64 = 0x40000;
const TABLE: u64 = 0x2000;
/// As many chains have memory of their own in each ring.
const AREAS: u64 = 256;
const RINGS: u64 = 0x10_0000;

pub(crate) struct Guest {
    pub(crate) map: Arc<Map>,
    pub(crate) transmit: Box<dyn Ingress>,
    pub(crate) receive: Box<dyn Egress>,
    pub(crate) sender: Driver,
    pub(crate) receiver: Driver,
    layout: Layout,
    features: Features,
    /// Buffers of the chains that the receiver offered, by token.
    offered: HashMap<u64, Vec<Buffer>>,
}

impl Guest {
    pub(crate) fn new(layout: Layout, mut features: Features) -> Guest {
        let (map, _) = Map::anonymous(2 * RINGS + 2 * AREAS * AREA).unwrap();
        features.set(Features::MRG_RXBUF, layout.mergeable);
        let config = Guest::ring_config(layout);
        let sender = Driver::new(&map, 0, config);
        let receiver = Driver::new(&map, RINGS, config);
        let setup = |driver: &Driver| Guest::setup(&map, driver.config(), features);
        let transmit = open_transmit(setup(&sender)).unwrap();
        let receive = open_receive(setup(&receiver)).unwrap();
        Guest { map, transmit, receive, sender, receiver, layout, features, offered: HashMap::new() }
    }

    /// A ring without a place.
    pub(crate) fn ring_config(layout: Layout) -> RingConfig {
        RingConfig {
            size: layout.size,
            packed: layout.packed,
            event_idx: layout.event_idx,
            in_order: layout.in_order,
            desc: 0,
            driver: 0,
            device: 0,
            base: 0,
        }
    }

    fn setup(map: &Arc<Map>, ring: RingConfig, features: Features) -> QueueSetup {
        QueueSetup { map: Arc::clone(map), ring, features, kick: None, call: None, log: None, log_used: None }
    }

    /// Another back end serves the sender's ring from now on.
    pub(crate) fn reopen_transmit(&mut self, base: u32) {
        let ring = RingConfig { base, ..self.sender.config() };
        self.transmit = open_transmit(Guest::setup(&self.map, ring, self.features)).unwrap();
    }

    /// Another back end serves the receiver's ring from now on.
    pub(crate) fn reopen_receive(&mut self, base: u32) {
        let ring = RingConfig { base, ..self.receiver.config() };
        self.receive = open_receive(Guest::setup(&self.map, ring, self.features)).unwrap();
    }

    fn area(ring: u64, token: u64) -> u64 {
        2 * RINGS + (ring * AREAS + token % AREAS) * AREA
    }

    /// Buffers of these lengths, apart from each other.
    fn buffers(area: u64, lens: impl Iterator<Item = usize>, writable: bool) -> Vec<Buffer> {
        let mut at = area + TABLE;
        let place = |len: usize| {
            let addr = at;
            at += len as u64 + 77;
            Buffer { addr, len: len as u32, writable }
        };
        let buffers: Vec<Buffer> = lens.map(place).collect();
        assert!(at <= area + AREA, "the chain is too large for this test");
        buffers
    }

    pub(crate) fn poke(&self, addr: u64, bytes: &[u8]) {
        let place = self.map.translate(addr, bytes.len() as u32, &mut Hint::default()).unwrap();
        self.map.write(&place, 0, bytes);
    }

    pub(crate) fn peek(&self, addr: u64, len: u32) -> Vec<u8> {
        let place = self.map.translate(addr, len, &mut Hint::default()).unwrap();
        let mut bytes = vec![0; len as usize];
        self.map.read(&place, 0, &mut bytes);
        bytes
    }

    /// Sends raw bytes, header included, cut into buffers of these lengths and a last one with what is left.
    pub(crate) fn send_raw(&mut self, bytes: &[u8], cuts: &[usize]) -> bool {
        let mut left = bytes.len();
        let mut lens = Vec::new();
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let len = cut.min(left);
            if len > 0 {
                lens.push(len);
            }
            left -= len;
        }
        let area = Guest::area(0, self.next_sent());
        let buffers = Guest::buffers(area, lens.into_iter(), false);
        if self.sender.outstanding() as u64 == AREAS {
            return false;
        }
        let mut at = 0;
        for buffer in &buffers {
            self.poke(buffer.addr, &bytes[at..at + buffer.len as usize]);
            at += buffer.len as usize;
        }
        let table = (self.layout.indirect && buffers.len() > 1).then_some(area);
        self.sender.offer(&buffers, table).is_some()
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, offload: &Offload, frame: &[u8], cuts: &[usize]) -> bool {
        let mut bytes = offload.encode(0).to_vec();
        bytes.extend(frame);
        self.send_raw(&bytes, cuts)
    }

    fn next_sent(&self) -> u64 {
        self.sender.offered()
    }

    /// Gives as many buffers of `len` bytes in `pieces` pieces as the ring takes.
    pub(crate) fn refill(&mut self, len: u32, pieces: usize) {
        while self.offer(len, pieces) {}
    }

    /// Gives one buffer.
    pub(crate) fn offer(&mut self, len: u32, pieces: usize) -> bool {
        if self.receiver.outstanding() as u64 == AREAS {
            return false;
        }
        let area = Guest::area(1, self.receiver.offered());
        let first = len as usize / pieces + len as usize % pieces;
        let lens = [first].into_iter().chain((1..pieces).map(|_| len as usize / pieces));
        let buffers = Guest::buffers(area, lens, true);
        let table = (self.layout.indirect && pieces > 1).then_some(area);
        match self.receiver.offer(&buffers, table) {
            Some(token) => {
                self.offered.insert(token, buffers);
                true
            }
            None => false,
        }
    }

    /// What arrived, with its header.
    pub(crate) fn received(&mut self) -> Vec<(Offload, Vec<u8>)> {
        let mut used = self.receiver.reap().into_iter();
        let mut frames = Vec::new();
        while let Some(first) = used.next() {
            let mut bytes = self.used_bytes(first);
            let header: [u8; 12] = bytes[..12].try_into().unwrap();
            let count = u16::from_le_bytes([header[10], header[11]]);
            assert!(count == 1 || (count > 1 && self.layout.mergeable), "num_buffers is {count}");
            for _ in 1..count {
                let next = used.next().expect("a frame arrives as a whole");
                bytes.extend(self.used_bytes(next));
            }
            frames.push((Offload::decode(&header), bytes.split_off(12)));
        }
        frames
    }

    fn used_bytes(&mut self, used: Used) -> Vec<u8> {
        let buffers = self.offered.remove(&used.token).expect("it was offered");
        let mut bytes: Vec<u8> =
            buffers.iter().flat_map(|buffer| self.peek(buffer.addr, buffer.len)).collect();
        assert!(bytes.len() >= used.len as usize, "no more was written than there was room for");
        bytes.truncate(used.len as usize);
        bytes
    }
}
