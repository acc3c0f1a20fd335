//! The driver's receive queue.

use std::sync::Arc;

use fabnic_avf_spec::receive::{DESCRIPTOR, Found, rxdid};
use fabnic_avf_spec::registers::QRX_TAIL;
use fabnic_memory::{Map, Slice, Table};

use crate::arena::Arena;
use crate::{Bus, Error};

/// Words of a descriptor.
pub(crate) const WORDS: usize = DESCRIPTOR / 8;
/// Real cards want tails in steps of this.
pub(crate) const STEP: u16 = 8;

/// A frame that came, as long as its buffers are not posted again.
#[derive(Debug)]
pub struct Received<'a> {
    map: &'a Map,
    /// What the device found out.
    pub found: Found,
    /// Its bytes, in order.
    pub pieces: &'a [Slice],
}

impl Received<'_> {
    /// Bytes of it.
    #[expect(clippy::len_without_is_empty, reason = "a frame is not a collection")]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len() as usize).sum()
    }

    /// A copy of its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        let mut at = 0;
        for piece in self.pieces {
            at += bytes.get_mut(at..).map_or(0, |rest| self.map.read(piece, 0, rest));
        }
        bytes
    }
}

/// A receive ring with a buffer for each descriptor.
#[derive(Debug)]
pub struct Receive {
    pub(crate) queue: u16,
    pub(crate) map: Arc<Map>,
    pub(crate) ring: u64,
    pub(crate) words: Table<u64>,
    pub(crate) buffers: Vec<(u64, Slice)>,
    pub(crate) len: u16,
    pub(crate) buffer_len: u16,
    pub(crate) format: u8,
    /// The next descriptor to be looked at, and the first that is not posted.
    pub(crate) next: u16,
    pub(crate) posted: u16,
    /// The first that never was.
    pub(crate) fresh: u16,
    pieces: Vec<Slice>,
}

impl Receive {
    pub(crate) fn new(
        arena: &mut Arena,
        queue: u16,
        len: u16,
        buffer_len: u16,
        format: u8,
    ) -> Result<Receive, Error> {
        let (ring, words) = arena.table(WORDS * usize::from(len))?;
        let buffers = arena.buffers(len, buffer_len)?;
        let map = Arc::clone(arena.map());
        let pieces = Vec::with_capacity(usize::from(len));
        Ok(Receive {
            queue,
            map,
            ring,
            words,
            buffers,
            len,
            buffer_len,
            format,
            next: 0,
            posted: 0,
            fresh: 0,
            pieces,
        })
    }

    pub(crate) fn after(&self, at: u16) -> u16 {
        if at + 1 >= self.len { 0 } else { at + 1 }
    }

    /// Buffers that are not posted. One descriptor always stays free.
    pub(crate) fn free(&self) -> u16 {
        let posted = if self.posted >= self.next {
            self.posted - self.next
        } else {
            self.posted + self.len - self.next
        };
        self.len - 1 - posted
    }

    /// Posts as many buffers as there are, in steps, and tells the device.
    pub fn refill(&mut self, bus: &mut dyn Bus) {
        let count = self.free() / STEP * STEP;
        self.refill_some(bus, count);
    }

    /// Posts up to so many buffers, and tells the device.
    pub fn refill_some(&mut self, bus: &mut dyn Bus, count: u16) {
        let count = count.min(self.free());
        for _ in 0..count {
            let at = usize::from(self.posted);
            let Some((addr, _)) = self.buffers.get(at) else { return };
            self.words.store(WORDS * at, addr.to_le());
            self.words.store(WORDS * at + 1, 0);
            self.fresh = self.fresh.max(self.posted + 1);
            self.posted = self.after(self.posted);
        }
        if count > 0 {
            bus.write(QRX_TAIL + 4 * u64::from(self.queue), self.posted.into());
        }
    }

    /// Takes the next frame, if it is there as a whole, and gives it to `with`.
    pub fn receive<R>(&mut self, with: impl FnOnce(Received<'_>) -> R) -> Option<R> {
        self.pieces.clear();
        let mut at = self.next;
        loop {
            if at == self.posted {
                return None;
            }
            let place = WORDS * usize::from(at);
            let second = u64::from_le(self.words.load_acquire(place + 1));
            let word = |n: usize| u64::from_le(self.words.load(place + n));
            let words = [word(0), second, word(2), word(3)];
            let (len, found) = match self.format {
                rxdid::LEGACY_32 => Found::parse_legacy(words),
                _ => Found::parse_flexible(words),
            }?;
            let (_, buffer) = self.buffers.get(usize::from(at))?;
            self.pieces.push(buffer.part(0, len.into()));
            at = self.after(at);
            if let Some(found) = found {
                self.next = at;
                return Some(with(Received { map: &self.map, found, pieces: &self.pieces }));
            }
        }
    }
}
