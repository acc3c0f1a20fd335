//! Tail registers: plain words that the guest writes, trapped or by itself.
//!
//! They lie in a file of their own, as large as BAR0, so that a transport can let the guest map their pages. Then nobody
//! is told of a write and the queues must be polled; else the register side stores the word and wakes a queue that
//! sleeps. The ITR registers lie in one of these pages and are kept in it too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use fabnic_avf_spec::registers::{BAR0_SIZE, QRX_TAIL, QTX_TAIL};
use fabnic_memory::{AddressSpace, Map, MapError, Table};
use rustix::event::{EventfdFlags, eventfd};

use crate::bell::Bell;
use crate::queues::MAX_QUEUES;

/// Bytes of a page that can be shared.
const PAGE: u64 = 4096;
/// Pages of plain storage: transmit tails; receive tails and ITRs.
pub(crate) const AREAS: [(u64, u64); 2] = [(QTX_TAIL, PAGE), (QRX_TAIL, PAGE)];
/// Bits of a tail.
const TAIL: u32 = 0x1fff;

/// What a transmit queue and the register side share.
#[derive(Debug, Default)]
struct Line {
    bell: Bell,
    /// Made when the queue is first used: a host with thousands of functions would run out of descriptors for queues that
    /// nobody has.
    event: OnceLock<OwnedFd>,
}

/// The tails of all queues.
#[derive(Debug)]
pub(crate) struct Doorbells {
    words: Table<u32>,
    /// What the guest maps, if it may have the pages mapped: then a queue that sleeps would not be woken. Else nobody needs
    /// it, and a host with thousands of functions would run out of descriptors.
    file: Option<OwnedFd>,
    lines: Box<[Line]>,
}

/// Why there are none.
#[derive(Debug)]
pub(crate) struct NoDoorbells(pub(crate) MapError);

impl Doorbells {
    /// Tails for so many transmit queues.
    pub(crate) fn new(queues: usize, shared: bool) -> Result<Arc<Doorbells>, NoDoorbells> {
        let (map, file) = Map::anonymous(BAR0_SIZE).map_err(NoDoorbells)?;
        let words = usize::try_from(BAR0_SIZE / 4).unwrap_or(0);
        let words = map.table(AddressSpace::Guest, 0, words).map_err(NoDoorbells)?;
        let lines = (0..queues.min(MAX_QUEUES)).map(|_| Line::default()).collect();
        Ok(Arc::new(Doorbells { words, file: Some(file).filter(|_| shared), lines }))
    }

    /// The file behind the pages, if they may be shared.
    pub(crate) fn file(&self) -> Option<OwnedFd> {
        self.file.as_ref()?.try_clone().ok()
    }

    /// Whether this register is one of the words here.
    pub(crate) fn holds(offset: u64) -> bool {
        AREAS.iter().any(|(start, len)| offset.wrapping_sub(*start) < *len)
    }

    fn index(offset: u64) -> usize {
        usize::try_from(offset / 4).unwrap_or(usize::MAX)
    }

    /// Reads a register.
    pub(crate) fn read(&self, offset: u64) -> u32 {
        u32::from_le(self.words.load(Doorbells::index(offset)))
    }

    /// Writes a register, and wakes the queue whose tail it is.
    pub(crate) fn write(&self, offset: u64, value: u32) {
        self.words.store_release(Doorbells::index(offset), value.to_le());
        let Some(line) = self.lines.get(Doorbells::index(offset.wrapping_sub(QTX_TAIL))) else { return };
        // A bell is armed by a queue that was opened, and so has its event.
        if line.bell.ring()
            && let Some(event) = line.event.get()
        {
            // The only error that can be is EAGAIN: the counter is full, and so the descriptor readable.
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }

    /// The tail of a transmit queue: what lies before it was written before it.
    #[inline(always)]
    pub(crate) fn transmit(&self, queue: usize) -> u16 {
        self.tail(Doorbells::index(QTX_TAIL) + queue)
    }

    /// The tail of a receive queue.
    #[inline(always)]
    pub(crate) fn receive(&self, queue: usize) -> u16 {
        self.tail(Doorbells::index(QRX_TAIL) + queue)
    }

    #[inline(always)]
    fn tail(&self, index: usize) -> u16 {
        u16::try_from(u32::from_le(self.words.load_acquire(index)) & TAIL).unwrap_or(0)
    }

    /// Forgets the tail of a transmit queue.
    pub(crate) fn clear_transmit(&self, queue: usize) {
        self.words.store(Doorbells::index(QTX_TAIL) + queue, 0);
    }

    /// Forgets the tail of a receive queue.
    pub(crate) fn clear_receive(&self, queue: usize) {
        self.words.store(Doorbells::index(QRX_TAIL) + queue, 0);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for (start, len) in AREAS {
            for offset in (start..start + len).step_by(4) {
                self.words.store(Doorbells::index(offset), 0);
            }
        }
    }

    /// The queue wants to sleep: it must look at its tail after this. `false` if nobody would wake it.
    pub(crate) fn arm(&self, queue: usize) -> bool {
        if let Some(line) = self.lines.get(queue) {
            line.bell.arm();
        }
        self.file.is_none()
    }

    /// The queue is polled.
    pub(crate) fn disarm(&self, queue: usize) {
        if let Some(line) = self.lines.get(queue) {
            line.bell.disarm();
        }
    }

    /// Makes what wakes the queue, if it was not made yet.
    ///
    /// # Errors
    /// No more file descriptors can be had.
    pub(crate) fn open(&self, queue: usize) -> Result<(), rustix::io::Errno> {
        if let Some(line) = self.lines.get(queue)
            && line.event.get().is_none()
        {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Only the register side opens queues: nobody else made one meanwhile.
            let _ = line.event.set(event);
        }
        Ok(())
    }

    /// What wakes the queue.
    pub(crate) fn wake(&self, queue: usize) -> Option<BorrowedFd<'_>> {
        self.lines.get(queue).and_then(|line| line.event.get()).map(AsFd::as_fd)
    }
}
