//! DMA memory, handed out from the front.

use std::sync::Arc;

use fabnic_memory::{AddressSpace, Hint, Map, Plain, Slice, Table};

use crate::Error;

/// What real cards want ring bases to be multiples of.
const ALIGN: u64 = 128;

/// The memory of a bus and how much of it is in use.
#[derive(Debug)]
pub(crate) struct Arena {
    map: Arc<Map>,
    end: u64,
    next: u64,
}

impl Arena {
    /// All bytes of a map from `start` on, which lie in one region.
    pub(crate) fn new(map: &Arc<Map>, start: u64, len: u64) -> Arena {
        Arena { map: Arc::clone(map), end: start.saturating_add(len), next: start }
    }

    /// The address of `len` bytes.
    pub(crate) fn take(&mut self, len: u64) -> Result<u64, Error> {
        let at = self.next.checked_next_multiple_of(ALIGN).ok_or(Error::NoMemory(len))?;
        let next = at.checked_add(len).filter(|next| *next <= self.end).ok_or(Error::NoMemory(len))?;
        self.next = next;
        Ok(at)
    }

    /// A table at a new address.
    pub(crate) fn table<T: Plain>(&mut self, items: usize) -> Result<(u64, Table<T>), Error> {
        let bytes = items.saturating_mul(size_of::<T>()) as u64;
        let at = self.take(bytes)?;
        let table = self.map.table(AddressSpace::Guest, at, items);
        Ok((at, table.map_err(|error| Error::Memory(error.to_string()))?))
    }

    /// `count` buffers of `len` bytes, one behind the other, an odd number of [`ALIGN`]s apart: first lines at a distance of a
    /// power of two would share a few sets of every cache, and drive each other out.
    pub(crate) fn buffers(&mut self, count: u16, len: u16) -> Result<Vec<(u64, Slice)>, Error> {
        let step = (u64::from(len).div_ceil(ALIGN) | 1) * ALIGN;
        let first = self.take(step * u64::from(count))?;
        (0..u64::from(count))
            .map(|n| {
                let at = first + n * step;
                let slice = self.map.translate(at, len.into(), &mut Hint::default());
                Ok((at, slice.ok_or_else(|| Error::Memory(format!("no buffer at {at:#x}")))?))
            })
            .collect()
    }

    pub(crate) fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// Where the next piece will be; [`Arena::rewind`] gives back what was taken since.
    pub(crate) fn mark(&self) -> u64 {
        self.next
    }

    pub(crate) fn rewind(&mut self, mark: u64) {
        self.next = mark.min(self.next);
    }
}
