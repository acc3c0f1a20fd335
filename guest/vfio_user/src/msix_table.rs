//! The MSI-X table and its pending bits (PCI 3.0, sections 6.8.2.6 to 6.8.2.10).
//!
//! QEMU and Cloud Hypervisor keep the table themselves and tell us of it by eventfds. It is here so that a client which
//! does not, finds what hardware has: entries that hold what was written, masked at first, and pending bits.

use core::ops::Range;

use fabnic_pci::Msix;

use crate::interrupts::Events;

const ENTRY: usize = 16;
/// Offset of the vector control in an entry; bit 0 masks it.
const CONTROL: usize = 12;

#[derive(Debug)]
pub(crate) struct MsixTable {
    place: Msix,
    entries: Vec<u8>,
}

/// Where an access is.
enum Hit {
    Table(Range<usize>),
    Pending(usize),
}

impl MsixTable {
    pub(crate) fn new(place: Msix) -> MsixTable {
        let mut table = MsixTable { place, entries: vec![0; usize::from(place.vectors) * ENTRY] };
        table.reset();
        table
    }

    pub(crate) fn reset(&mut self) {
        self.entries.fill(0);
        for entry in self.entries.chunks_exact_mut(ENTRY) {
            if let Some(control) = entry.get_mut(CONTROL) {
                *control = 1;
            }
        }
    }

    /// All entries.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.entries
    }

    /// Takes over all entries; `false` if they are not as many.
    pub(crate) fn restore(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() == self.entries.len();
        if fits {
            self.entries.copy_from_slice(bytes);
        }
        fits
    }

    /// Both begin at multiples of 8, so that an aligned access is inside or outside and never both.
    fn hit(&self, bar: u8, offset: u64, len: usize) -> Option<Hit> {
        let within = |(place, start): (u8, u32), size: usize| {
            let at = usize::try_from(offset.checked_sub(start.into())?).ok()?;
            (bar == place && at.checked_add(len)? <= size).then_some(at)
        };
        if let Some(at) = within(self.place.table, self.entries.len()) {
            return Some(Hit::Table(at..at + len));
        }
        let words = usize::from(self.place.vectors).div_ceil(64);
        within(self.place.pending, words * 8).map(Hit::Pending)
    }

    /// Reads, if it is here.
    pub(crate) fn read(&self, events: &Events, bar: u8, offset: u64, data: &mut [u8]) -> bool {
        match self.hit(bar, offset, data.len()) {
            None => return false,
            Some(Hit::Table(range)) => {
                data.iter_mut()
                    .zip(self.entries.get(range).unwrap_or_default())
                    .for_each(|(to, from)| *to = *from);
            }
            Some(Hit::Pending(at)) => {
                let word = events.pending(at / 8).to_le_bytes();
                data.iter_mut().zip(word.iter().skip(at % 8)).for_each(|(to, from)| *to = *from);
            }
        }
        true
    }

    /// Writes, if it is here. Pending bits cannot be written.
    pub(crate) fn write(&mut self, bar: u8, offset: u64, data: &[u8]) -> bool {
        match self.hit(bar, offset, data.len()) {
            None => return false,
            Some(Hit::Table(range)) => {
                let place = self.entries.get_mut(range).unwrap_or_default();
                place.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
            }
            Some(Hit::Pending(_)) => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_memory_and_the_pending_bits_are_not() {
        let events = Events::new(17);
        let mut table = MsixTable::new(Msix { vectors: 17, table: (3, 0), pending: (3, 0x2000) });
        let read = |table: &MsixTable, offset| {
            let mut data = [0; 4];
            table.read(&events, 3, offset, &mut data).then(|| u32::from_le_bytes(data))
        };
        assert_eq!(read(&table, 12), Some(1), "masked at first");
        assert!(table.write(3, 0x104, &[1, 2, 3, 4]));
        assert_eq!(read(&table, 0x104), Some(0x0403_0201));
        assert_eq!(read(&table, 0x110), None, "behind the last vector");
        assert!(!table.write(0, 0, &[0; 4]) && !table.write(3, 0x1000, &[0; 4]));
        fabnic_pci::Interrupts::msix(&*events, 16);
        assert_eq!(read(&table, 0x2000), Some(1 << 16));
        assert!(table.write(3, 0x2000, &[0xff; 8]));
        assert_eq!((read(&table, 0x2000), read(&table, 0x2004)), (Some(1 << 16), Some(0)));
        table.reset();
        assert_eq!(read(&table, 0x104), Some(0));
    }
}
