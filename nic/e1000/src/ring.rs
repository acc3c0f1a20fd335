//! The registers of the two rings, and the rings themselves.
//!
//! The registers lie in memory of their own, laid out as BAR 0 is, where a write that the transport carries, a driver that
//! has the page mapped, and the worker all see them. The worker reads what it needs of them once a burst, as it reads the
//! descriptors; nothing else remembers where a ring is.
//!
//! ```text
//!   driver --write, trapped or not--> page 0x2000: RDBAL RDBAH RDLEN RDH RDT ...   <-- worker: head
//!                                     page 0x3000: TDBAL TDBAH TDLEN TDH TDT ...   <-- worker: head
//! ```

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fabnic_memory::{AddressSpace, DirtyCache, DirtyLog, Map, MapError, Slice, Table};
use fabnic_port::Fault;

use crate::shared::Shared;
use crate::spec::descriptor::DESCRIPTOR_LEN;
use crate::spec::register::{FCRTH, RECEIVE_PAGE, RECEIVE_RING, TRANSMIT_PAGE, TRANSMIT_RING, ring};
use crate::spec::{BAR_LEN, register};
use crate::state::{Reader, StateError, Writer};

/// Which of the two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Receive,
    Transmit,
}

impl Side {
    const fn registers(self) -> u32 {
        match self {
            Side::Receive => RECEIVE_RING,
            Side::Transmit => TRANSMIT_RING,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Side::Receive => "receive ring",
            Side::Transmit => "transmit ring",
        }
    }
}

/// The two pages of ring registers.
#[derive(Debug)]
pub(crate) struct RingPages {
    words: Table<u32>,
    /// What a guest maps; only where it may.
    file: Option<OwnedFd>,
    /// Not all zero any more. A device that nobody uses takes no page.
    is_used: AtomicBool,
}

impl RingPages {
    /// Fresh ones, all zero.
    pub(crate) fn new(is_shared: bool) -> Result<RingPages, MapError> {
        // As long as the BAR, so that offsets are the same; only the two pages are ever touched.
        let (map, file) = Map::anonymous(u64::from(BAR_LEN))?;
        let words = map.table(AddressSpace::Guest, 0, BAR_LEN as usize / 4)?;
        Ok(RingPages { words, file: Some(file).filter(|_| is_shared), is_used: AtomicBool::new(is_shared) })
    }

    /// Whether a register lies here.
    pub(crate) const fn holds(offset: u32) -> bool {
        offset >= RECEIVE_PAGE && offset < TRANSMIT_PAGE + 0x1000
    }

    /// The file behind them, to be mapped by a guest.
    pub(crate) fn file(&self) -> Option<&OwnedFd> {
        self.file.as_ref()
    }

    pub(crate) fn read(&self, offset: u32) -> u32 {
        u32::from_le(self.words.load(offset as usize / 4))
    }

    /// A write of the driver that was trapped: bits that do not exist stay zero.
    pub(crate) fn write(&self, offset: u32, value: u32) {
        let within =
            |side: Side| offset.checked_sub(side.registers()).filter(|at| *at <= ring::ABSOLUTE_DELAY);
        let mask = match within(Side::Transmit).or_else(|| within(Side::Receive)) {
            Some(ring::BASE_LOW) => ring::BASE_MASK,
            Some(ring::LENGTH) => ring::LENGTH_MASK,
            Some(ring::HEAD | ring::TAIL | ring::DELAY | ring::ABSOLUTE_DELAY) => ring::INDEX_MASK,
            _ if offset == FCRTH || offset == register::FCRTL => 0x8000_fff8,
            _ => u32::MAX,
        };
        self.is_used.store(true, Ordering::Relaxed);
        self.words.store_release(offset as usize / 4, (value & mask).to_le());
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        (RECEIVE_PAGE..TRANSMIT_PAGE + 0x1000).step_by(4).for_each(|offset| to.u32(self.read(offset)));
    }

    pub(crate) fn restore(&self, from: &mut Reader<'_>) -> Result<(), StateError> {
        for offset in (RECEIVE_PAGE..TRANSMIT_PAGE + 0x1000).step_by(4) {
            self.write(offset, from.u32()?);
        }
        Ok(())
    }

    /// All zero again.
    pub(crate) fn reset(&self) {
        // Pages that a guest has mapped were written by it, for all that is known.
        if !self.is_used.swap(self.file.is_some(), Ordering::Relaxed) {
            return;
        }
        for offset in (RECEIVE_PAGE..TRANSMIT_PAGE + 0x1000).step_by(4) {
            self.words.store(offset as usize / 4, 0);
        }
    }

    pub(crate) fn register(&self, side: Side, at: u32) -> u32 {
        self.read(side.registers() + at)
    }

    /// The head register, set by the device when it is done with what lies before it.
    #[inline]
    pub(crate) fn set_head(&self, side: Side, head: u32) {
        self.words.store_release((side.registers() + ring::HEAD) as usize / 4, head.to_le());
    }

    /// The tail register. What the driver wrote before it is seen after it.
    #[inline]
    pub(crate) fn tail(&self, side: Side) -> u32 {
        u32::from_le(self.words.load_acquire((side.registers() + ring::TAIL) as usize / 4))
    }

    #[inline]
    pub(crate) fn head(&self, side: Side) -> u32 {
        self.register(side, ring::HEAD)
    }
}

/// Where a ring stands: `head` to `tail` is the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    /// Descriptors in the ring; both are below it.
    pub(crate) len: u32,
}

impl Position {
    /// Descriptors from `at` to the tail.
    #[inline]
    pub(crate) const fn available(&self, at: u32) -> u32 {
        if self.tail >= at { self.tail - at } else { self.tail + self.len - at }
    }

    /// The descriptor behind `at`.
    #[inline]
    pub(crate) const fn next(&self, at: u32) -> u32 {
        if at + 1 >= self.len { 0 } else { at + 1 }
    }
}

/// A ring in guest memory, found anew when the driver moves it.
#[derive(Debug)]
pub(crate) struct DescriptorRing {
    side: Side,
    place: (u64, u32),
    descriptors: Option<(Table<[u64; 2]>, Table<u64>)>,
    /// Notes what is written to guest memory, while that is wanted.
    log: Option<DirtyCache>,
}

impl DescriptorRing {
    pub(crate) fn new(side: Side, log: Option<Arc<DirtyLog>>) -> DescriptorRing {
        DescriptorRing { side, place: (0, 0), descriptors: None, log: log.map(DirtyCache::new) }
    }

    /// Begins, changes or ends logging.
    pub(crate) fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.flush_log();
        self.log = log.map(DirtyCache::new);
    }

    /// Notes that a buffer was written.
    #[inline]
    pub(crate) fn log_written(&mut self, map: &Map, slice: &Slice, len: u32) {
        if let Some(log) = &mut self.log {
            log.mark_slice(map, slice, len);
        }
    }

    /// Whether writes are logged.
    #[inline]
    pub(crate) fn is_logging(&self) -> bool {
        self.log.is_some()
    }

    /// Everything that was noted is in the log: before the head moves.
    #[inline]
    pub(crate) fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Where the ring stands, if it has a descriptor for the device.
    #[inline]
    pub(crate) fn look(&mut self, shared: &Shared, map: &Arc<Map>) -> Result<Option<Position>, Fault> {
        let pages = &shared.pages;
        let tail = pages.tail(self.side);
        let head = pages.head(self.side);
        if head == tail {
            return Ok(None);
        }
        let bytes = pages.register(self.side, ring::LENGTH) & ring::LENGTH_MASK;
        if bytes == 0 {
            return Ok(None);
        }
        let low = pages.register(self.side, ring::BASE_LOW) & ring::BASE_MASK;
        let base = u64::from(pages.register(self.side, ring::BASE_HIGH)) << 32 | u64::from(low);
        let len = bytes / DESCRIPTOR_LEN;
        if tail >= len || head >= len {
            return Err(self.beyond(head, tail, len));
        }
        if self.place != (base, len) || self.descriptors.is_none() {
            self.open(map, base, len).inspect_err(|_| shared.count_fault())?;
        }
        Ok(Some(Position { head, tail, len }))
    }

    #[cold]
    fn beyond(&self, head: u32, tail: u32, len: u32) -> Fault {
        let name = self.side.name();
        Fault(format!("{name}: head {head} and tail {tail}, expected both below its {len} descriptors"))
    }

    #[cold]
    fn open(&mut self, map: &Arc<Map>, base: u64, len: u32) -> Result<(), Fault> {
        self.descriptors = None;
        let fault = |error: MapError| Fault(format!("{}: {error}", self.side.name()));
        let count = len as usize;
        let descriptors = map.table(AddressSpace::Guest, base, count).map_err(fault)?;
        let words = map.table(AddressSpace::Guest, base, 2 * count).map_err(fault)?;
        self.descriptors = Some((descriptors, words));
        self.place = (base, len);
        Ok(())
    }

    /// The descriptors, and the same memory by words; for loops over many.
    #[inline]
    pub(crate) fn tables(&self) -> Option<&(Table<[u64; 2]>, Table<u64>)> {
        self.descriptors.as_ref()
    }

    /// A descriptor, read once.
    #[inline]
    pub(crate) fn load(&self, at: u32) -> [u64; 2] {
        match &self.descriptors {
            Some((descriptors, _)) => descriptors.load(at as usize).map(u64::from_le),
            None => [0; 2],
        }
    }

    /// Asks for a descriptor's line.
    #[inline]
    pub(crate) fn prefetch(&self, at: u32) {
        if let Some((descriptors, _)) = &self.descriptors {
            descriptors.prefetch(at as usize);
        }
    }

    /// Writes the second word of a descriptor, which has its status: everything that it tells of was written before.
    #[inline]
    pub(crate) fn write_back(&mut self, at: u32, word: u64) {
        if let Some((_, words)) = &self.descriptors {
            words.store_release(2 * at as usize + 1, word.to_le());
            if let Some(log) = &mut self.log {
                let (base, _) = self.place;
                log.mark(base + u64::from(at * DESCRIPTOR_LEN), DESCRIPTOR_LEN.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(pages: &RingPages, side: Side, base: u64, len: u32, head: u32, tail: u32) {
        let at = side.registers();
        pages.write(at + ring::BASE_LOW, (base & 0xffff_ffff) as u32);
        pages.write(at + ring::BASE_HIGH, (base >> 32) as u32);
        pages.write(at + ring::LENGTH, len);
        pages.write(at + ring::HEAD, head);
        pages.write(at + ring::TAIL, tail);
    }

    #[test]
    fn a_ring_is_looked_at_where_the_registers_say() {
        let (map, _) = Map::anonymous(0x1_0000).unwrap();
        let shared = Shared::new(true, false).unwrap();
        let pages = &shared.pages;
        for side in [Side::Receive, Side::Transmit] {
            let mut ring = DescriptorRing::new(side, None);
            assert_eq!(ring.look(&shared, &map).unwrap(), None);
            write(pages, side, 0x1000, 256, 14, 3);
            let position = ring.look(&shared, &map).unwrap().unwrap();
            assert_eq!(position, Position { head: 14, tail: 3, len: 16 });
            assert_eq!([position.available(14), position.next(15), position.next(3)], [5, 0, 4]);
            map.table(AddressSpace::Guest, 0x1000 + 14 * 16, 2).unwrap().store(1, 7_u64);
            assert_eq!(ring.load(14), [0, 7]);
            ring.write_back(14, 9);
            assert_eq!(ring.load(14), [0, 9]);
            // The driver moves it.
            write(pages, side, 0x2000, 128, 0, 1);
            assert_eq!(ring.look(&shared, &map).unwrap(), Some(Position { head: 0, tail: 1, len: 8 }));
            assert_eq!(ring.load(6), [0, 0]);
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let (map, _) = Map::anonymous(0x1_0000).unwrap();
        let shared = Shared::new(true, false).unwrap();
        let pages = &shared.pages;
        let mut ring = DescriptorRing::new(Side::Transmit, None);
        let mut fault = |base, len, head, tail| {
            write(pages, Side::Transmit, base, len, head, tail);
            ring.look(&shared, &map).unwrap_err().0
        };
        assert!(fault(0x1000, 128, 0, 8).contains("tail 8, expected both below its 8"));
        assert!(fault(0x1000, 128, 9, 1).contains("head 9"));
        assert!(fault(0x10_0000, 128, 0, 1).contains("0x100000"));
        assert!(fault(0xff80, 0x1000, 0, 1).contains("not inside one memory region"));
        assert!(fault(!0xf, 128, 0, 1).contains("transmit ring"));
        // Nothing to do is no fault, wherever it points.
        write(pages, Side::Transmit, 0x10_0000, 128, 0xffff, 0xffff);
        assert_eq!(ring.look(&shared, &map).unwrap(), None);
    }

    #[test]
    fn bits_that_do_not_exist_stay_zero() {
        let pages = RingPages::new(false).unwrap();
        let expected = [
            (0x2800, 0xffff_fff0),
            (0x2804, u32::MAX),
            (0x2808, 0xfff80),
            (0x2818, 0xffff),
            (0x3820, 0xffff),
        ];
        for (offset, bits) in expected {
            pages.write(offset, u32::MAX);
            assert_eq!(pages.read(offset), bits, "{offset:#x}");
        }
        pages.reset();
        assert!(expected.iter().all(|(offset, _)| pages.read(*offset) == 0));
    }
}
