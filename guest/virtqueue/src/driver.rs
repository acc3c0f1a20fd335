//! The other side: a driver for tests and measurements, written to be obvious and not to be fast.
//!
//! It keeps the rules of virtio 1.x for drivers, in both layouts and with every feature, and follows none of the
//! device's shortcuts, so that it can be held against it. Chains are known by a token that counts up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use fabnic_memory::{AddressSpace, Hint, Map, Table};

use crate::{RingConfig, passes};

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device may write it; otherwise it may read it.
    pub writable: bool,
}

/// A chain that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What [`Driver::offer`] gave.
    pub token: u64,
    /// Bytes written, as the device says.
    pub len: u32,
}

/// When the driver wants to be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// Whenever something was used.
    Always,
    /// Not at all.
    Never,
    /// When as many more as this were used (EVENT_IDX), counted from what was reaped; 0 is the next one.
    After(u16),
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    token: u64,
    id: u16,
    /// Ring descriptors that it takes up.
    entries: u16,
    /// The first one, for split rings.
    head: u16,
}

/// The driver's side of one ring.
#[derive(Debug)]
pub struct Driver {
    map: Arc<Map>,
    config: RingConfig,
    desc: Table<u64>,
    driver: Table<u16>,
    device: Table<u16>,
    outstanding: VecDeque<Outstanding>,
    /// Split: descriptors, packed: ids, that are free. In the order of the ring with IN_ORDER.
    free: VecDeque<u16>,
    /// Packed: descriptors that are free.
    room: u16,
    next_token: u64,
    /// Split: available and used index. Packed: position and wrap counter of both.
    avail: (u16, bool),
    used: (u16, bool),
    /// The available index or position when a kick was last thought about.
    kicked: (u16, bool),
}

/// Bytes that a ring of this size takes up, whatever its layout, rounded up to a page.
pub fn footprint(size: u16) -> u64 {
    let size = u64::from(size);
    (16 * size + 6 + 2 * size + 2 + 6 + 8 * size + 64).next_multiple_of(4096)
}

impl Driver {
    /// Lays out and clears a ring in memory whose user addresses are guest addresses too, from `at` on. The areas'
    /// addresses in `config` are not looked at.
    pub fn new(map: &Arc<Map>, at: u64, config: RingConfig) -> Driver {
        let size = u64::from(config.size);
        let driver = at + 16 * size;
        let device = (driver + 6 + 2 * size).next_multiple_of(4);
        let base = if config.packed { 0x8000_8000 } else { 0 };
        let config = RingConfig { desc: at, driver, device, base, ..config };
        let words = footprint(config.size) / 8;
        let all: Table<u64> = map.table(AddressSpace::User, at, words as usize).expect("room for the ring");
        (0..all.len()).for_each(|word| all.store(word, 0));
        let halves =
            |addr, bytes: u64| map.table(AddressSpace::User, addr, bytes as usize / 2).expect("in the room");
        Driver {
            map: Arc::clone(map),
            desc: map.table(AddressSpace::User, at, 2 * usize::from(config.size)).expect("in the room"),
            driver: halves(driver, 6 + 2 * size),
            device: halves(device, 6 + 8 * size),
            outstanding: VecDeque::with_capacity(usize::from(config.size)),
            free: (0..config.size).collect(),
            room: config.size,
            next_token: 0,
            avail: (0, true),
            used: (0, true),
            kicked: (0, true),
            config,
        }
    }

    /// What the device is to be opened with.
    pub fn config(&self) -> RingConfig {
        self.config
    }

    /// Chains that are with the device.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Chains that were ever offered: the next one's token.
    pub fn offered(&self) -> u64 {
        self.next_token
    }

    fn size(&self) -> u16 {
        self.config.size
    }

    fn write_descriptor(&self, index: u16, addr: u64, len: u32, third: u16, fourth: u16) {
        let index = 2 * usize::from(index);
        self.desc.store(index, addr.to_le());
        let word = u64::from(len) | u64::from(third) << 32 | u64::from(fourth) << 48;
        self.desc.store_release(index + 1, word.to_le());
    }

    /// Makes a chain available at once; through a table at guest address `table` if there is one. `None` if the ring has
    /// no room.
    pub fn offer(&mut self, buffers: &[Buffer], table: Option<u64>) -> Option<u64> {
        assert!(!buffers.is_empty(), "a chain has at least one buffer");
        let entries = if table.is_some() { 1 } else { u16::try_from(buffers.len()).ok()? };
        let outstanding = match self.config.packed {
            false => self.offer_split(buffers, table, entries)?,
            true => self.offer_packed(buffers, table, entries)?,
        };
        self.outstanding.push_back(outstanding);
        self.next_token += 1;
        Some(outstanding.token)
    }

    fn write_table(&self, table: u64, buffers: &[Buffer]) {
        for (index, buffer) in buffers.iter().enumerate() {
            let more = index + 1 < buffers.len();
            let flags = u64::from(buffer.writable) << 1;
            let tail = match self.config.packed {
                false => (flags | u64::from(more)) << 32 | if more { (index as u64 + 1) << 48 } else { 0 },
                true => flags << 48,
            };
            let words = [buffer.addr, u64::from(buffer.len) | tail];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let place = self
                .map
                .translate(table + 16 * index as u64, 16, &mut Hint::default())
                .expect("the table is in memory");
            self.map.write(&place, 0, &bytes);
        }
    }

    fn offer_split(&mut self, buffers: &[Buffer], table: Option<u64>, entries: u16) -> Option<Outstanding> {
        if self.free.len() < usize::from(entries) {
            return None;
        }
        let indexes: Vec<u16> = self.free.drain(..usize::from(entries)).collect();
        let head = indexes[0];
        if let Some(table) = table {
            self.write_table(table, buffers);
            self.write_descriptor(head, table, 16 * buffers.len() as u32, 4, 0);
        } else {
            for (place, (index, buffer)) in indexes.iter().zip(buffers).enumerate() {
                let next = indexes.get(place + 1);
                let flags = u16::from(next.is_some()) | u16::from(buffer.writable) << 1;
                self.write_descriptor(*index, buffer.addr, buffer.len, flags, next.copied().unwrap_or(0));
            }
        }
        let slot = usize::from(self.avail.0 % self.size());
        self.driver.store(2 + slot, head.to_le());
        self.avail.0 = self.avail.0.wrapping_add(1);
        self.driver.store_release(1, self.avail.0.to_le());
        Some(Outstanding { token: self.next_token, id: head, entries, head })
    }

    fn step(&self, position: (u16, bool), by: u16) -> (u16, bool) {
        let index = u32::from(position.0) + u32::from(by);
        match index >= u32::from(self.size()) {
            true => ((index - u32::from(self.size())) as u16, !position.1),
            false => (index as u16, position.1),
        }
    }

    fn offer_packed(&mut self, buffers: &[Buffer], table: Option<u64>, entries: u16) -> Option<Outstanding> {
        if self.room < entries {
            return None;
        }
        let id = self.free.pop_front()?;
        self.room -= entries;
        let available = |wrap: bool| if wrap { 1 << 7 } else { 1_u16 << 15 };
        let single;
        let (list, extra) = match table {
            Some(table) => {
                self.write_table(table, buffers);
                single = [Buffer { addr: table, len: 16 * buffers.len() as u32, writable: false }];
                (&single[..], 4)
            }
            None => (buffers, 0),
        };
        // From the last to the first: the first one's flags make all of them available (section 2.8.14).
        for (place, buffer) in list.iter().enumerate().rev() {
            let (index, wrap) = self.step(self.avail, place as u16);
            let more = u16::from(place + 1 < list.len());
            let flags = available(wrap) | more | u16::from(buffer.writable) << 1 | extra;
            self.write_descriptor(index, buffer.addr, buffer.len, id, flags);
        }
        let head = self.avail.0;
        self.avail = self.step(self.avail, entries);
        Some(Outstanding { token: self.next_token, id, entries, head })
    }

    /// Whether the device wants to be told of what was offered since this was last asked.
    pub fn wants_kick(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let (old, new) = (self.kicked, self.avail);
        self.kicked = new;
        if self.config.packed {
            let (position, flags) = (u16::from_le(self.device.load(0)), u16::from_le(self.device.load(1)));
            return match flags & 3 {
                0 => true,
                2 => self.is_between(position, old, new),
                _ => false,
            };
        }
        match self.config.event_idx {
            true => {
                let event = u16::from_le(self.device.load(2 + 4 * usize::from(self.size())));
                passes(event, new.0, old.0)
            }
            false => self.device.load(0) & 1 == 0,
        }
    }

    /// Whether the position is one of those from `old` up to, not including, `new`.
    fn is_between(&self, position: u16, old: (u16, bool), new: (u16, bool)) -> bool {
        let mut at = old;
        while at != new {
            if (at.0, at.1) == (position & 0x7fff, position & 0x8000 != 0) {
                return true;
            }
            at = self.step(at, 1);
        }
        false
    }

    /// Says when interrupts are wanted.
    pub fn want(&mut self, interrupts: Interrupts) {
        if self.config.packed {
            let (position, flags) = match interrupts {
                Interrupts::Always => (0, 0),
                Interrupts::Never => (0, 1),
                Interrupts::After(n) => {
                    let (index, wrap) = self.step(self.used, n);
                    (index | u16::from(wrap) << 15, 2)
                }
            };
            self.driver.store(0, u16::to_le(position));
            self.driver.store(1, u16::to_le(flags));
        } else if self.config.event_idx {
            let event = match interrupts {
                Interrupts::Always => self.used.0,
                Interrupts::Never => self.used.0.wrapping_sub(1),
                Interrupts::After(n) => self.used.0.wrapping_add(n),
            };
            self.driver.store(2 + usize::from(self.size()), event.to_le());
        } else {
            self.driver.store(0, u16::from(interrupts == Interrupts::Never).to_le());
        }
        fence(Ordering::SeqCst);
    }

    /// What came back, in order, since this was last asked.
    pub fn reap(&mut self) -> Vec<Used> {
        let mut all = Vec::new();
        while let Some((id, len)) = self.next_used() {
            let at = match self.outstanding.iter().position(|chain| chain.id == id) {
                Some(at) => at,
                None => panic!("the device used id {id}, which it does not have"),
            };
            // With IN_ORDER one entry stands for all chains up to its own.
            let first = if self.config.in_order { 0 } else { at };
            let batch: Vec<Outstanding> = self.outstanding.drain(first..=at).collect();
            for chain in &batch {
                self.release(chain);
                let last = chain.token == batch[batch.len() - 1].token;
                all.push(Used { token: chain.token, len: if last { len } else { 0 } });
            }
        }
        all
    }

    fn next_used(&self) -> Option<(u16, u32)> {
        if self.config.packed {
            let word = u64::from_le(self.desc.load_acquire(2 * usize::from(self.used.0) + 1));
            let flags = (word >> 48) as u16;
            let is = |bit: u16| (flags & bit != 0) == self.used.1;
            return (is(1 << 7) && is(1 << 15)).then_some(((word >> 32) as u16, word as u32));
        }
        if u16::from_le(self.device.load_acquire(1)) == self.used.0 {
            return None;
        }
        let at = 2 + 4 * usize::from(self.used.0 % self.size());
        let half = |by| u32::from(u16::from_le(self.device.load(at + by)));
        Some((half(0) as u16, half(2) | half(3) << 16))
    }

    fn release(&mut self, chain: &Outstanding) {
        if self.config.packed {
            self.free.push_back(chain.id);
            self.room += chain.entries;
            self.used = self.step(self.used, chain.entries);
            return;
        }
        self.used.0 = self.used.0.wrapping_add(1);
        let mut index = chain.head;
        for _ in 0..chain.entries {
            self.free.push_back(index);
            let word = u64::from_le(self.desc.load(2 * usize::from(index) + 1));
            index = (word >> 48) as u16;
        }
    }
}
