//! A device for packed rings, one descriptor at a time, as section 2.8 of the specification tells it.

use std::sync::Arc;

use fabnic_memory::{AddressSpace, Map, Table};

use super::Seen;
use crate::driver::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Piece, RingOptions};
use crate::front_end::RingPlace;

pub(crate) struct PackedDevice {
    words: Table<u64>,
    driver_event: Table<u16>,
    device_event: Table<u16>,
    map: Arc<Map>,
    size: u16,
    event_idx: bool,
    next: (u16, bool),
    used: (u16, bool),
    /// Where `used` stood when it was last asked whether to call.
    asked: (u16, bool),
}

fn advance((slot, wrap): (u16, bool), by: u16, size: u16) -> (u16, bool) {
    if slot + by >= size { (slot + by - size, !wrap) } else { (slot + by, wrap) }
}

impl PackedDevice {
    pub(super) fn new(map: &Arc<Map>, options: &RingOptions, place: RingPlace) -> PackedDevice {
        let event = |at| map.table(AddressSpace::Guest, at, 2).unwrap();
        let words = map.table(AddressSpace::Guest, place.descriptors, 2 * usize::from(options.size));
        PackedDevice {
            words: words.unwrap(),
            driver_event: event(place.driver),
            device_event: event(place.device),
            map: Arc::clone(map),
            size: options.size,
            event_idx: options.event_idx,
            next: (0, true),
            used: (0, true),
            asked: (0, true),
        }
    }

    pub(super) fn base(&self) -> u32 {
        let bits = |(slot, wrap): (u16, bool)| u32::from(slot) | (u32::from(wrap) << 15);
        (bits(self.used) << 16) | bits(self.next)
    }

    pub(super) fn start_at(&mut self, base: u32) {
        let position = |bits: u32| ((bits & 0x7fff) as u16, bits & 0x8000 != 0);
        self.next = position(base);
        self.used = position(base >> 16);
        self.asked = self.used;
    }

    fn word(&self, addr: u64) -> u64 {
        self.map.table::<u64>(AddressSpace::Guest, addr, 1).expect("an address in memory").load(0)
    }

    fn descriptor(&self, slot: u16) -> (u64, u32, u16, u16) {
        let bits = self.words.load_acquire(2 * usize::from(slot) + 1);
        (self.words.load(2 * usize::from(slot)), bits as u32, (bits >> 32) as u16, (bits >> 48) as u16)
    }

    pub(super) fn take(&mut self) -> Option<Seen> {
        let (slot, wrap) = self.next;
        let (_, _, _, flags) = self.descriptor(slot);
        let available = (flags & 0x80 != 0) == wrap && (flags & 0x8000 != 0) != wrap;
        if !available {
            return None;
        }
        let mut pieces = Vec::new();
        let mut at = slot;
        loop {
            let (addr, len, id, flags) = self.descriptor(at);
            if flags & DESC_INDIRECT != 0 {
                for i in 0..u64::from(len / 16) {
                    let bits = self.word(addr + 16 * i + 8);
                    let writable = (bits >> 48) as u16 & DESC_WRITE != 0;
                    pieces.push(Piece { addr: self.word(addr + 16 * i), len: bits as u32, writable });
                }
            } else {
                pieces.push(Piece { addr, len, writable: flags & DESC_WRITE != 0 });
            }
            at = (at + 1) % self.size;
            if flags & DESC_NEXT == 0 {
                // The id of a chain is in its last descriptor.
                let slots = (at + self.size - slot - 1) % self.size + 1;
                self.next = advance(self.next, slots, self.size);
                return Some(Seen { id, slots, pieces });
            }
        }
    }

    pub(super) fn give(&mut self, seen: &Seen, len: u32) {
        let (slot, wrap) = self.used;
        let flags = if wrap { 0x8080 } else { 0 };
        let bits = flags << 48 | u64::from(seen.id) << 32 | u64::from(len);
        self.words.store_release(2 * usize::from(slot) + 1, bits);
        self.used = advance(self.used, seen.slots, self.size);
    }

    /// A used descriptor for each, the first one last and only when `finish` is called: as devices publish a batch.
    pub(super) fn give_first_last(&mut self, batch: &[(Seen, u32)]) -> impl FnOnce() + use<> {
        let before = self.used;
        let words = self.words.clone();
        let first = 2 * usize::from(before.0) + 1;
        let Some(((seen, len), rest)) = batch.split_first() else { panic!("a batch has a first") };
        self.used = advance(self.used, seen.slots, self.size);
        rest.iter().for_each(|(seen, len)| self.give(seen, *len));
        let flags = if before.1 { 0x8080 } else { 0 };
        let bits = (flags << 48) | (u64::from(seen.id) << 32) | u64::from(*len);
        move || words.store_release(first, bits)
    }

    /// One used descriptor for all of them.
    pub(super) fn give_batch(&mut self, batch: &[Seen], len: u32) {
        let before = self.used;
        let last = batch.last().expect("a batch");
        self.give(last, len);
        let slots = batch.iter().map(|seen| seen.slots).sum();
        self.used = advance(before, slots, self.size);
    }

    pub(super) fn ask_kicks(&mut self, on: bool) {
        let (slot, wrap) = self.next;
        if on && self.event_idx {
            self.device_event.store(0, slot | u16::from(wrap) << 15);
            self.device_event.store_release(1, 2);
        } else {
            self.device_event.store(1, u16::from(!on));
        }
    }

    pub(super) fn wants_call(&mut self) -> bool {
        let asked = core::mem::replace(&mut self.asked, self.used);
        match self.driver_event.load(1) & 3 {
            0 => true,
            2 => {
                // Walks from where it was last asked to where it is: was the wished position left behind?
                let bits = self.driver_event.load(0);
                let wished = (bits & 0x7fff, bits & 0x8000 != 0);
                let mut at = asked;
                while at != self.used {
                    if at == wished {
                        return true;
                    }
                    at = advance(at, 1, self.size);
                }
                false
            }
            _ => false,
        }
    }
}
