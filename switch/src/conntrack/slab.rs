//! Where connections lie: slots with numbers, in chunks that are made when they are needed and kept.
//!
//! A number fits into a cached flow, where a reference would not; and a slot that is used again costs no allocation.
//!
//! # Invariants
//! - A slot is either in use or on the list of free ones, and there are never more than the slab was made for.

use std::sync::OnceLock;

use parking_lot::Mutex;

use super::connection::{MAX_SLOTS, Slot};
use super::wheel::{Numbered, Timed};

const CHUNK: u32 = 1024;

#[derive(Debug)]
pub(crate) struct Slab {
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
    max: u32,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Used before.
    list: Vec<u32>,
    /// Never used from here on.
    fresh: u32,
}

impl Slab {
    /// Room for `max` connections, at most [`MAX_SLOTS`]. No memory but 16 bytes for each 1024 of them.
    pub(crate) fn new(max: u32) -> Slab {
        let max = max.min(MAX_SLOTS - 1);
        Slab {
            chunks: (0..max.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            max,
            free: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn slot(&self, number: u32) -> Option<&Slot> {
        self.chunks.get((number / CHUNK) as usize)?.get()?.get((number % CHUNK) as usize)
    }

    /// A free slot's number. Makes a chunk where none is free: allocates, once for 1024 connections.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut free = self.free.lock();
        if let Some(number) = free.list.pop() {
            return Some(number);
        }
        let number = free.fresh;
        if number >= self.max {
            return None;
        }
        free.fresh += 1;
        drop(free);
        let chunk = self.chunks.get((number / CHUNK) as usize)?;
        chunk.get_or_init(|| (0..CHUNK).map(|_| Slot::default()).collect());
        Some(number)
    }

    pub(crate) fn give_back(&self, number: u32) {
        self.free.lock().list.push(number);
    }

    /// Slots that have ever been used.
    pub(crate) fn used_ever(&self) -> u32 {
        self.free.lock().fresh
    }
}

impl Numbered for Slab {
    fn timed(&self, number: u32) -> Option<&Timed> {
        self.slot(number).map(|slot| &slot.timed)
    }
}
