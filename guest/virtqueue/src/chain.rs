//! Chains, descriptors and the buffers behind them.

use fabnic_memory::{Hint, Map, Slice};

use crate::error::{Place, RingError};

/// The most descriptors of a chain, tables included, and the most slices that its buffers become. Linux and QEMU stay
/// at or below it; the ring's size limits chains without a table too.
pub const MAX_CHAIN: usize = 1024;

/// The buffer goes on in the descriptor `next`.
pub(crate) const NEXT: u16 = 1;
/// The buffer is the device's to write.
pub(crate) const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(crate) const INDIRECT: u16 = 4;

/// Bytes of a descriptor, in both layouts.
pub(crate) const DESCRIPTOR: usize = 16;

/// One chain that was taken from a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Chain {
    /// What the driver knows it by: the head's number in split rings, the buffer id in packed ones.
    pub id: u16,
    /// Entries of the ring that it takes up: 1 in split rings, all its descriptors in packed ones.
    pub entries: u16,
    /// Number of its slices.
    pub count: u32,
    /// Bytes in its slices together, at most `u32::MAX`. To be replaced by the number of bytes written before
    /// [`crate::Ring::publish`].
    pub len: u32,
    /// Its first slice in the list that [`crate::Ring::take`] filled.
    pub first: u32,
}

impl Chain {
    /// Its slices in the list that [`crate::Ring::take`] filled.
    #[inline(always)]
    pub fn slices<'a>(&self, slices: &'a [Slice]) -> &'a [Slice] {
        let first = self.first as usize;
        slices.get(first..first + self.count as usize).unwrap_or(&[])
    }
}

/// A descriptor as it lies in memory, loaded once. Split (section 2.7.5): address, length, flags, next. Packed (section
/// 2.8.13): address, length, buffer id, flags.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Descriptor([u64; 2]);

impl Descriptor {
    #[inline(always)]
    pub(crate) fn new(words: [u64; 2]) -> Descriptor {
        Descriptor([u64::from_le(words[0]), u64::from_le(words[1])])
    }

    /// Loads an entry of a table.
    #[inline]
    pub(crate) fn read(map: &Map, table: &Slice, index: u16) -> Descriptor {
        let mut words = [[0; 8]; 2];
        map.read(table, u32::from(index) * DESCRIPTOR as u32, words.as_flattened_mut());
        Descriptor(words.map(u64::from_le_bytes))
    }

    #[inline(always)]
    pub(crate) fn addr(self) -> u64 {
        self.0[0]
    }

    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        (self.0[1] & 0xffff_ffff) as u32
    }

    /// Bits 32 to 47: flags of a split descriptor, id of a packed one.
    #[inline(always)]
    pub(crate) fn third(self) -> u16 {
        ((self.0[1] >> 32) & 0xffff) as u16
    }

    /// Bits 48 to 63: next of a split descriptor, flags of a packed one.
    #[inline(always)]
    pub(crate) fn fourth(self) -> u16 {
        (self.0[1] >> 48) as u16
    }
}

/// The most chains that are taken step by step together.
pub(crate) const GROUP: usize = 64;
/// As many are tried behind a chain that could not be taken so.
pub(crate) const SMALL_GROUP: usize = 2;

/// Opens places for up to `count` chains of one buffer each at the end of both lists: the number of slices before them,
/// and the places to fill, from the first one on. What stays empty is to be cut off with [`close`].
#[inline(always)]
pub(crate) fn open<'a>(
    count: usize,
    slices: &'a mut Vec<Slice>,
    chains: &'a mut Vec<Chain>,
) -> (u32, core::iter::Zip<core::slice::IterMut<'a, Slice>, core::slice::IterMut<'a, Chain>>) {
    let (first, before) = (slices.len(), chains.len());
    slices.resize(first + count, Slice::EMPTY);
    chains.resize(before + count, Chain::default());
    let slices = slices.get_mut(first..).unwrap_or(&mut []);
    let chains = chains.get_mut(before..).unwrap_or(&mut []);
    (first as u32, slices.iter_mut().zip(chains))
}

/// Cuts off the last `unused` places that [`open`] made.
#[inline(always)]
pub(crate) fn close(unused: usize, slices: &mut Vec<Slice>, chains: &mut Vec<Chain>) {
    slices.truncate(slices.len().saturating_sub(unused));
    chains.truncate(chains.len().saturating_sub(unused));
}

/// Asks for the first bytes of a buffer: a virtio header and the headers behind it lie in two cache lines.
#[inline(always)]
pub(crate) fn prefetch_buffer<const WRITABLE: bool>(map: &Map, slice: &Slice) {
    if WRITABLE {
        map.prefetch_write_at(slice, 0);
        map.prefetch_write_at(slice, 64);
    } else {
        map.prefetch(slice);
        map.prefetch_at(slice, 64);
    }
}

/// Gathers the buffers of one chain, counting its descriptors.
pub(crate) struct Gather<'a> {
    pub(crate) map: &'a Map,
    pub(crate) hint: &'a mut Hint,
    pub(crate) slices: &'a mut Vec<Slice>,
    /// Where the chain begins.
    pub(crate) head: Place,
    first: usize,
    len: u64,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(map: &'a Map, hint: &'a mut Hint, slices: &'a mut Vec<Slice>, head: Place) -> Self {
        let first = slices.len();
        Gather { map, hint, slices, head, first, len: 0 }
    }

    /// Adds a buffer if it is of the wanted kind. One that is not in one region becomes several slices.
    #[inline]
    pub(crate) fn add<const WRITABLE: bool>(
        &mut self,
        flags: u16,
        place: Place,
        descriptor: Descriptor,
    ) -> Result<(), RingError> {
        let (addr, len) = (descriptor.addr(), descriptor.len());
        if (flags & WRITE != 0) != WRITABLE || len == 0 {
            return Ok(());
        }
        match self.map.translate(addr, len, self.hint) {
            Some(slice) if self.slices.len() - self.first < MAX_CHAIN => {
                prefetch_buffer::<WRITABLE>(self.map, &slice);
                self.slices.push(slice);
            }
            _ => self.add_pieces(place, addr, len)?,
        }
        self.len += u64::from(len);
        Ok(())
    }

    #[cold]
    fn add_pieces(&mut self, place: Place, addr: u64, len: u32) -> Result<(), RingError> {
        let (first, slices) = (self.first, &mut *self.slices);
        let mut room = true;
        let inside = self.map.translate_pieces(addr, len, self.hint, |slice| {
            room = slices.len() - first < MAX_CHAIN;
            if room {
                slices.push(slice);
            }
            room
        });
        if !room {
            return Err(RingError::TooLong { place: self.head, limit: MAX_CHAIN });
        }
        if !inside {
            return Err(RingError::Outside { place, addr, len });
        }
        Ok(())
    }

    /// Gives the chain that was gathered.
    pub(crate) fn finish(self, id: u16, entries: u16) -> Chain {
        Chain {
            id,
            entries,
            len: u32::try_from(self.len).unwrap_or(u32::MAX),
            first: u32::try_from(self.first).unwrap_or(u32::MAX),
            count: u32::try_from(self.slices.len() - self.first).unwrap_or(0),
        }
    }
}

/// The table that a descriptor refers to (section 2.7.5.3 and 2.8.7), and how many descriptors it holds.
pub(crate) fn translate_table(
    gather: &mut Gather<'_>,
    of: u16,
    descriptor: Descriptor,
) -> Result<(Slice, usize), RingError> {
    let (place, addr, len) = (Place::Descriptor(of), descriptor.addr(), descriptor.len());
    let limit = MAX_CHAIN * DESCRIPTOR;
    let bytes = len as usize;
    if bytes == 0 || !bytes.is_multiple_of(DESCRIPTOR) || bytes > limit {
        return Err(RingError::Table { place, len, limit });
    }
    let table =
        gather.map.translate(addr, len, gather.hint).ok_or(RingError::Outside { place, addr, len })?;
    gather.map.prefetch(&table);
    Ok((table, bytes / DESCRIPTOR))
}
