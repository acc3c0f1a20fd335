//! The driver's half of a packed virtqueue (virtio 1.x, section 2.8).

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use fabnic_memory::Table;

use super::{
    DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Indirect, Piece, RingError, RingOptions, Used, passes_event,
};
use crate::front_end::RingPlace;
use crate::memory::{GuestMemory, MemoryError};

/// Flag: available, if it differs from the one below and is the driver's wrap counter.
pub(super) const AVAIL: u16 = 1 << 7;
/// Flag: used, if it equals the one above and is the device's wrap counter.
pub(super) const USED: u16 = 1 << 15;

const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESCRIPTOR: u16 = 2;

/// What was given to the device under one id.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    /// Descriptors of the ring that it takes; 0: the device does not have it.
    descriptors: u16,
    token: u32,
    room: u32,
}

/// A place in the ring with its wrap counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    slot: u16,
    wrap: bool,
}

impl Position {
    const START: Position = Position { slot: 0, wrap: true };

    fn advance(&mut self, by: u16, size: u16) {
        self.slot += by;
        if self.slot >= size {
            self.slot -= size;
            self.wrap = !self.wrap;
        }
    }

    /// As in the event areas: bit 15 is the wrap counter.
    fn bits(self) -> u16 {
        self.slot | u16::from(self.wrap) << 15
    }
}

/// See [`super::Ring`] for the methods both formats have.
#[derive(Debug)]
pub struct PackedRing {
    options: RingOptions,
    place: RingPlace,
    ring: Table<[u64; 2]>,
    /// off_wrap, flags of the driver: when to call.
    driver_event: Table<u16>,
    /// off_wrap, flags of the device: when to kick.
    device_event: Table<u16>,
    indirect: Option<Indirect>,
    chains: Vec<Chain>,
    /// Free ids; not used with IN_ORDER, where the id is the slot.
    ids: Vec<u16>,
    /// Ids in the order in which they were given; only with IN_ORDER.
    order: VecDeque<u16>,
    /// Id and length of the last chain of a batch that is being handed out; only with IN_ORDER.
    batch: Option<(u16, u32)>,
    next: Position,
    seen: Position,
    free: u16,
    outstanding: u16,
    /// The first descriptor that was added since the last publish: it is written last.
    held: Option<(u16, [u64; 2])>,
    /// Descriptors added and descriptors kicked for, counted without end.
    added: u16,
    published: u16,
    kicked: u16,
}

impl PackedRing {
    /// A fresh ring at `place`.
    pub fn new(
        memory: &mut GuestMemory,
        options: RingOptions,
        place: RingPlace,
    ) -> Result<PackedRing, MemoryError> {
        let size = usize::from(options.size);
        let driver_event: Table<u16> = memory.table(place.driver, 2)?;
        driver_event.store(1, EVENT_DISABLE);
        Ok(PackedRing {
            place,
            ring: memory.table(place.descriptors, size)?,
            driver_event,
            device_event: memory.table(place.device, 2)?,
            indirect: Indirect::new(memory, &options)?,
            chains: vec![Chain::default(); size],
            ids: (0..options.size).rev().collect(),
            order: VecDeque::new(),
            batch: None,
            next: Position::START,
            seen: Position::START,
            free: options.size,
            outstanding: 0,
            held: None,
            added: 0,
            published: 0,
            kicked: 0,
            options,
        })
    }

    pub(super) fn place(&self) -> RingPlace {
        self.place
    }

    pub(super) fn options(&self) -> &RingOptions {
        &self.options
    }

    pub(super) fn free(&self) -> u16 {
        self.free
    }

    pub(super) fn outstanding(&self) -> u16 {
        self.outstanding
    }

    /// Both halves (available and used) stand where the device's last used chain ended.
    pub(super) fn base(&self) -> u32 {
        let bits = u32::from(self.seen.bits());
        bits << 16 | bits
    }

    fn availability(&self) -> u16 {
        if self.next.wrap { AVAIL } else { USED }
    }

    pub(super) fn add(&mut self, pieces: &[Piece], token: u32) -> bool {
        let indirect = self
            .indirect
            .as_ref()
            .is_some_and(|i| pieces.len() > 1 && pieces.len() <= usize::from(i.entries));
        let needed = if indirect { 1 } else { u16::try_from(pieces.len()).unwrap_or(u16::MAX) };
        if needed == 0 || needed > self.free {
            return false;
        }
        let id = if self.options.in_order { Some(self.next.slot) } else { self.ids.pop() };
        let Some(id) = id else { return false };
        self.free -= needed;
        if let (true, Some(tables)) = (indirect, &self.indirect) {
            for (i, piece) in pieces.iter().enumerate() {
                // In an indirect table only WRITE means something (section 2.8.7).
                let flags = if piece.writable { DESC_WRITE } else { 0 };
                tables.table.store(tables.index(id, i), [piece.addr, word(piece.len, 0, flags)]);
            }
            let len = u32::try_from(16 * pieces.len()).unwrap_or(u32::MAX);
            let flags = DESC_INDIRECT | self.availability();
            self.put([tables.address(id), word(len, id, flags)]);
        } else {
            for (i, piece) in pieces.iter().enumerate() {
                let mut flags = self.availability();
                if piece.writable {
                    flags |= DESC_WRITE;
                }
                if i + 1 < pieces.len() {
                    flags |= DESC_NEXT;
                }
                self.put([piece.addr, word(piece.len, id, flags)]);
            }
        }
        let room = pieces.iter().filter(|p| p.writable).map(|p| p.len).sum();
        if let Some(chain) = self.chains.get_mut(usize::from(id)) {
            *chain = Chain { descriptors: needed, token, room };
        }
        if self.options.in_order {
            self.order.push_back(id);
        }
        self.outstanding += 1;
        true
    }

    /// Writes one descriptor, or holds it if it is the first of its batch: the device stops at the first descriptor
    /// that is not available, so the whole batch appears with that one.
    fn put(&mut self, descriptor: [u64; 2]) {
        if self.held.is_none() {
            self.held = Some((self.next.slot, descriptor));
        } else {
            self.ring.store(usize::from(self.next.slot), descriptor);
        }
        self.next.advance(1, self.options.size);
        self.added = self.added.wrapping_add(1);
    }

    pub(super) fn publish(&mut self) -> bool {
        let Some((slot, descriptor)) = self.held.take() else { return false };
        self.ring.store_release(usize::from(slot), descriptor);
        self.published = self.added;
        fence(Ordering::SeqCst);
        self.wants_kick()
    }

    pub(super) fn wants_kick(&mut self) -> bool {
        if self.published == self.kicked || self.held.is_some() {
            return false;
        }
        let wanted = match self.device_event.load_acquire(1) & 3 {
            EVENT_ENABLE => true,
            EVENT_DESCRIPTOR if self.options.event_idx => {
                // The slot the device waits for, as a count: so far behind where we are (section 2.8.10).
                let bits = self.device_event.load(0);
                let (slot, wrap) = (bits & 0x7fff, bits & 0x8000 != 0);
                let next = self.next;
                let behind = if wrap == next.wrap {
                    next.slot.wrapping_sub(slot)
                } else {
                    next.slot.wrapping_add(self.options.size).wrapping_sub(slot)
                };
                let event = self.published.wrapping_sub(behind);
                passes_event(event, self.published, self.kicked)
            }
            _ => false,
        };
        if wanted {
            self.kicked = self.published;
        }
        wanted
    }

    pub(super) fn next_used(&mut self) -> Result<Option<Used>, RingError> {
        let (id, len) = match self.batch {
            Some(last) => last,
            None => {
                let [_, bits] = self.ring.load_acquire(usize::from(self.seen.slot));
                let flags = (bits >> 48) as u16;
                let used = (flags & USED != 0) == self.seen.wrap && (flags & AVAIL != 0) == self.seen.wrap;
                if !used || self.outstanding == 0 {
                    return Ok(None);
                }
                ((bits >> 32) as u16, bits as u32)
            }
        };
        if let Some(first) = self.order.front().copied().filter(|first| *first != id) {
            // One descriptor may stand for a batch, with the id of its last chain (section 2.8.6).
            if self.batch.is_none() && !self.order.contains(&id) {
                return Err(RingError::NotGiven { id: u32::from(id) });
            }
            self.batch = Some((id, len));
            let token = self.give_back(first, 0)?;
            return Ok(Some(Used { token, len: 0 }));
        }
        self.batch = None;
        let token = self.give_back(id, len)?;
        Ok(Some(Used { token, len }))
    }

    fn give_back(&mut self, id: u16, len: u32) -> Result<u32, RingError> {
        let wide = u32::from(id);
        let chain = self.chains.get_mut(usize::from(id)).ok_or(RingError::NotGiven { id: wide })?;
        let given = core::mem::take(chain);
        if given.descriptors == 0 {
            return Err(RingError::NotGiven { id: wide });
        }
        // A length on a chain without room means nothing; DPDK puts the frame's there.
        if len > given.room && given.room > 0 {
            return Err(RingError::TooLong { id: wide, len, room: given.room });
        }
        self.free += given.descriptors;
        self.outstanding -= 1;
        self.seen.advance(given.descriptors, self.options.size);
        if self.options.in_order {
            self.order.pop_front();
        } else {
            self.ids.push(id);
        }
        Ok(given.token)
    }

    pub(super) fn disable_calls(&mut self) {
        self.driver_event.store(1, EVENT_DISABLE);
    }

    pub(super) fn enable_calls(&mut self) -> bool {
        if self.options.event_idx {
            self.driver_event.store(0, self.seen.bits());
            self.driver_event.store_release(1, EVENT_DESCRIPTOR);
        } else {
            self.driver_event.store(1, EVENT_ENABLE);
        }
        fence(Ordering::SeqCst);
        let [_, bits] = self.ring.load_acquire(usize::from(self.seen.slot));
        let flags = (bits >> 48) as u16;
        let wrap = self.seen.wrap;
        self.outstanding > 0 && (flags & USED != 0) == wrap && (flags & AVAIL != 0) == wrap
    }
}

/// The second word of a descriptor (section 2.8.13): length, id, flags.
pub(super) fn word(len: u32, id: u16, flags: u16) -> u64 {
    u64::from(flags) << 48 | u64::from(id) << 32 | u64::from(len)
}
