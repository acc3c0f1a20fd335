//! The driver's half of a split virtqueue (virtio 1.x, section 2.7).

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use fabnic_memory::Table;

use super::{
    DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Indirect, Piece, RingError, RingOptions, Used, passes_event,
};
use crate::front_end::RingPlace;
use crate::memory::{GuestMemory, MemoryError};

/// available: do not call.
const NO_INTERRUPT: u16 = 1;
/// used: do not kick.
const NO_NOTIFY: u16 = 1;

/// What was given to the device under one head.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    /// Descriptors of the ring that it takes; 0: the device does not have it.
    descriptors: u16,
    token: u32,
    room: u32,
}

/// See [`super::Ring`] for the methods both formats have.
#[derive(Debug)]
pub struct SplitRing {
    options: RingOptions,
    place: RingPlace,
    descriptors: Table<[u64; 2]>,
    /// flags, idx, ring[size], used_event
    available: Table<u16>,
    /// flags, idx
    used: Table<u16>,
    /// id, len; twice size
    elements: Table<u32>,
    avail_event: Table<u16>,
    indirect: Option<Indirect>,
    chains: Vec<Chain>,
    /// Free descriptors; not used with IN_ORDER, where they are taken and come back in ring order.
    stack: Vec<u16>,
    /// Heads in the order in which they were given; only with IN_ORDER.
    order: VecDeque<u16>,
    /// Head and length of the last chain of a batch that is being handed out; only with IN_ORDER.
    batch: Option<(u16, u32)>,
    next_slot: u16,
    free: u16,
    outstanding: u16,
    added: u16,
    published: u16,
    kicked: u16,
    seen: u16,
}

impl SplitRing {
    /// A fresh ring at `place`.
    pub fn new(
        memory: &mut GuestMemory,
        options: RingOptions,
        place: RingPlace,
    ) -> Result<SplitRing, MemoryError> {
        let size = usize::from(options.size);
        let available: Table<u16> = memory.table(place.driver, 3 + size)?;
        available.store(0, NO_INTERRUPT);
        Ok(SplitRing {
            place,
            descriptors: memory.table(place.descriptors, size)?,
            available,
            used: memory.table(place.device, 2)?,
            elements: memory.table(place.device + 4, 2 * size)?,
            avail_event: memory.table(place.device + 4 + 8 * size as u64, 1)?,
            indirect: Indirect::new(memory, &options)?,
            chains: vec![Chain::default(); size],
            stack: (0..options.size).rev().collect(),
            order: VecDeque::new(),
            batch: None,
            next_slot: 0,
            free: options.size,
            outstanding: 0,
            added: 0,
            published: 0,
            kicked: 0,
            seen: 0,
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

    pub(super) fn base(&self) -> u32 {
        u32::from(self.seen)
    }

    fn take_slot(&mut self) -> u16 {
        if self.options.in_order {
            let slot = self.next_slot;
            self.next_slot = (slot + 1) % self.options.size;
            slot
        } else {
            self.stack.pop().unwrap_or_default()
        }
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
        self.free -= needed;
        let head = self.take_slot();
        if let (true, Some(tables)) = (indirect, &self.indirect) {
            for (i, piece) in pieces.iter().enumerate() {
                let next = (i + 1 < pieces.len()).then_some(i as u16 + 1);
                tables.table.store(tables.index(head, i), descriptor(piece, next));
            }
            let table = (u64::from(DESC_INDIRECT) << 32) | (16 * pieces.len() as u64);
            self.descriptors.store(usize::from(head), [tables.address(head), table]);
        } else {
            let mut slot = head;
            for (i, piece) in pieces.iter().enumerate() {
                let next = (i + 1 < pieces.len()).then(|| self.take_slot());
                self.descriptors.store(usize::from(slot), descriptor(piece, next));
                slot = next.unwrap_or(slot);
            }
        }
        let room = pieces.iter().filter(|p| p.writable).map(|p| p.len).sum();
        if let Some(chain) = self.chains.get_mut(usize::from(head)) {
            *chain = Chain { descriptors: needed, token, room };
        }
        if self.options.in_order {
            self.order.push_back(head);
        }
        self.available.store(2 + usize::from(self.added % self.options.size), head);
        self.added = self.added.wrapping_add(1);
        self.outstanding += 1;
        true
    }

    pub(super) fn publish(&mut self) -> bool {
        if self.added == self.published {
            return false;
        }
        self.published = self.added;
        self.available.store_release(1, self.added);
        // The device must see the index before its wish is read, or both sides wait (section 2.7.13.4.1).
        fence(Ordering::SeqCst);
        self.wants_kick()
    }

    pub(super) fn wants_kick(&mut self) -> bool {
        if self.published == self.kicked {
            return false;
        }
        let wanted = if self.options.event_idx {
            passes_event(self.avail_event.load(0), self.published, self.kicked)
        } else {
            self.used.load(0) & NO_NOTIFY == 0
        };
        if wanted {
            self.kicked = self.published;
        }
        wanted
    }

    pub(super) fn next_used(&mut self) -> Result<Option<Used>, RingError> {
        let used = self.used.load_acquire(1);
        let ahead = used.wrapping_sub(self.seen);
        if ahead == 0 {
            return Ok(None);
        }
        if ahead > self.outstanding {
            return Err(RingError::TooMany { used, ahead, given: self.outstanding });
        }
        let (head, len) = match self.batch {
            Some(last) => last,
            None => {
                let at = 2 * usize::from(self.seen % self.options.size);
                let id = self.elements.load(at);
                let head = u16::try_from(id).map_err(|_| RingError::NotGiven { id })?;
                (head, self.elements.load(at + 1))
            }
        };
        if let Some(first) = self.order.front().copied().filter(|first| *first != head) {
            // One entry may stand for a batch, with the id of its last chain, at the place of its first (2.7.9): those
            // before the last come first, without a length.
            let in_batch = self.batch.is_some() || self.order.iter().take(ahead.into()).any(|h| *h == head);
            if !in_batch {
                return Err(RingError::NotGiven { id: u32::from(head) });
            }
            self.batch = Some((head, len));
            let token = self.give_back(first, 0)?;
            self.order.pop_front();
            self.seen = self.seen.wrapping_add(1);
            return Ok(Some(Used { token, len: 0 }));
        }
        self.batch = None;
        let token = self.give_back(head, len)?;
        self.order.pop_front();
        self.seen = self.seen.wrapping_add(1);
        Ok(Some(Used { token, len }))
    }

    fn give_back(&mut self, head: u16, len: u32) -> Result<u32, RingError> {
        let id = u32::from(head);
        let chain = self.chains.get_mut(usize::from(head)).ok_or(RingError::NotGiven { id })?;
        let given = core::mem::take(chain);
        if given.descriptors == 0 {
            return Err(RingError::NotGiven { id });
        }
        // A length on a chain without room means nothing; DPDK puts the frame's there.
        if len > given.room && given.room > 0 {
            return Err(RingError::TooLong { id, len, room: given.room });
        }
        self.free += given.descriptors;
        self.outstanding -= 1;
        if !self.options.in_order {
            let mut slot = head;
            for _ in 0..given.descriptors {
                self.stack.push(slot);
                let [_, word] = self.descriptors.load(usize::from(slot));
                slot = (word >> 48) as u16 % self.options.size;
            }
        }
        Ok(given.token)
    }

    pub(super) fn disable_calls(&mut self) {
        self.available.store(0, NO_INTERRUPT);
        if self.options.event_idx {
            // As far behind as can be: half the numbers away from where the device is.
            let at = 2 + usize::from(self.options.size);
            self.available.store(at, self.seen.wrapping_sub(0x8000));
        }
    }

    pub(super) fn enable_calls(&mut self) -> bool {
        self.available.store(0, 0);
        self.available.store(2 + usize::from(self.options.size), self.seen);
        fence(Ordering::SeqCst);
        self.used.load_acquire(1) != self.seen
    }
}

/// A descriptor (section 2.7.5): address; length, flags, next.
fn descriptor(piece: &Piece, next: Option<u16>) -> [u64; 2] {
    let mut flags = if piece.writable { DESC_WRITE } else { 0 };
    if next.is_some() {
        flags |= DESC_NEXT;
    }
    let next = u64::from(next.unwrap_or_default());
    [piece.addr, next << 48 | u64::from(flags) << 32 | u64::from(piece.len)]
}
