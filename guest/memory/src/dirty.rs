//! The dirty log: which guest pages were written, for live migration.
//!
//! The front end gives a bitmap (vhost-user SET_LOG_BASE), or the transport keeps one and is asked for it (vfio-user,
//! DMA logging): bit *n* stands for the 4 KiB at guest-physical *n* x 4096, whatever the host's page size. Bits are set by atomic OR, because several queues share words, and strictly *after*
//! the write they describe: a bit that is set too early may be taken and cleared before the write, which is then lost.
//! Each queue gathers its bits in a small [`DirtyCache`] and flushes it before the used index moves.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::map::{AddressSpace, Map, MapError, RegionSpec};
use crate::slice::Slice;
use crate::table::Table;

const PAGE_BITS: u32 = 12;

/// The bitmap that a front end shares.
#[derive(Debug)]
pub struct DirtyLog {
    words: Table<u64>,
    /// Writes outside the log: the guest page has no bit. Counted by its first occurrence only.
    overrun: AtomicBool,
}

impl DirtyLog {
    /// Maps `len` bytes of `file` from `offset` on. Bytes past the last whole 64-bit word are not used.
    pub fn new(file: OwnedFd, offset: u64, len: u64) -> Result<Arc<DirtyLog>, MapError> {
        let map = Map::new(vec![RegionSpec { guest_addr: 0, user_addr: 0, len, offset, file }])?;
        let words = usize::try_from(len / 8).unwrap_or(0);
        Ok(Arc::new(DirtyLog {
            words: map.table(AddressSpace::Guest, 0, words)?,
            overrun: AtomicBool::new(false),
        }))
    }

    /// A log of our own for the first `bytes` bytes of guest-physical addresses. It takes memory as pages are marked.
    pub fn anonymous(bytes: u64) -> Result<Arc<DirtyLog>, MapError> {
        let len = bytes.div_ceil(64 << PAGE_BITS).saturating_mul(8);
        let kernel = |source| MapError::Kernel { guest_addr: 0, len, source };
        let file = rustix::fs::memfd_create("fabnic-log", rustix::fs::MemfdFlags::CLOEXEC).map_err(kernel)?;
        rustix::fs::ftruncate(&file, len).map_err(kernel)?;
        DirtyLog::new(file, 0, len)
    }

    /// Takes bits of the 64 pages from 64 x `word` on: those of `mask` that are set, which they are not any more. `None`
    /// behind the end.
    pub fn take(&self, word: usize, mask: u64) -> Option<u64> {
        self.words.fetch_clear(word, mask).map(|bits| bits & mask)
    }

    /// Marks the pages of `len` bytes at guest-physical `addr` at once, without a cache: for rare writes.
    pub fn mark(&self, addr: u64, len: u64) {
        let Some(last) = len.checked_sub(1).and_then(|n| addr.checked_add(n)) else { return };
        for page in (addr >> PAGE_BITS)..=(last >> PAGE_BITS) {
            if !self.set(page / 64, 1 << (page % 64)) {
                return;
            }
        }
    }

    /// Whether a write had no bit in the log.
    pub fn overrun(&self) -> bool {
        self.overrun.load(Ordering::Relaxed)
    }

    fn set(&self, word: u64, bits: u64) -> bool {
        let done = usize::try_from(word).is_ok_and(|word| self.words.fetch_or(word, bits));
        if !done {
            self.overrun.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl Table<u64> {
    /// Clears bits atomically and gives what was there; `None` past the end.
    fn fetch_clear(&self, index: usize, bits: u64) -> Option<u64> {
        let p = self.place(index)?;
        // SAFETY: inside the table, aligned, mapped as long as the table lives.
        Some(unsafe { AtomicU64::from_ptr(NonNull::as_ptr(p)) }.fetch_and(!bits, Ordering::AcqRel))
    }

    /// Sets bits atomically; `false` past the end.
    fn fetch_or(&self, index: usize, bits: u64) -> bool {
        let Some(p) = self.place(index) else { return false };
        // SAFETY: inside the table, aligned, mapped as long as the table lives.
        unsafe { AtomicU64::from_ptr(NonNull::as_ptr(p)) }.fetch_or(bits, Ordering::Release);
        true
    }
}

const CACHED: usize = 32;

/// Bits of one queue that wait to be set.
#[derive(Debug)]
pub struct DirtyCache {
    log: Arc<DirtyLog>,
    entries: [(u64, u64); CACHED],
    used: usize,
}

impl DirtyCache {
    /// An empty cache before `log`.
    pub fn new(log: Arc<DirtyLog>) -> DirtyCache {
        DirtyCache { log, entries: [(0, 0); CACHED], used: 0 }
    }

    /// Notes that the first `len` bytes of `slice` were written.
    pub fn mark_slice(&mut self, map: &Map, slice: &Slice, len: u32) {
        if let Some(addr) = map.guest_address(slice) {
            self.mark(addr, u64::from(len.min(slice.len())));
        }
    }

    /// Notes that `len` bytes at guest-physical `addr` were written.
    pub fn mark(&mut self, addr: u64, len: u64) {
        let Some(last) = len.checked_sub(1).and_then(|n| addr.checked_add(n)) else { return };
        for page in (addr >> PAGE_BITS)..=(last >> PAGE_BITS) {
            let (word, bit) = (page / 64, 1 << (page % 64));
            let held = self.entries.iter_mut().take(self.used);
            if let Some(entry) = held.rev().find(|entry| entry.0 == word) {
                entry.1 |= bit;
                continue;
            }
            if self.used == CACHED {
                self.flush();
            }
            if let Some(entry) = self.entries.get_mut(self.used) {
                *entry = (word, bit);
                self.used += 1;
            }
        }
    }

    /// Sets all waiting bits. To be called after the writes and before the used index moves.
    pub fn flush(&mut self) {
        if self.used == 0 {
            return;
        }
        fence(Ordering::Release);
        for &(word, bits) in self.entries.iter().take(self.used) {
            self.log.set(word, bits);
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hint;

    fn log(bytes: u64) -> (Arc<DirtyLog>, OwnedFd) {
        let file = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, bytes.max(4096)).unwrap();
        (DirtyLog::new(file.try_clone().unwrap(), 0, bytes).unwrap(), file)
    }

    fn bits(file: &OwnedFd, bytes: usize) -> Vec<u64> {
        let mut raw = vec![0; bytes];
        rustix::io::pread(file, &mut raw, 0).unwrap();
        let bit = |i: &u64| raw[(*i / 8) as usize] >> (i % 8) & 1 == 1;
        (0..raw.len() as u64 * 8).filter(bit).collect()
    }

    #[test]
    fn pages_touched_are_marked_and_no_other() {
        let (log, file) = log(64);
        log.mark(0xfff, 2);
        log.mark(5 * 4096, 4096);
        log.mark(9 * 4096, 0);
        assert_eq!(bits(&file, 64), [0, 1, 5]);
        log.mark(u64::MAX, 5);
        log.mark(511 * 4096, 1);
        assert!(!log.overrun());
        log.mark(511 * 4096, 8192);
        assert!(log.overrun());
        assert_eq!(bits(&file, 64), [0, 1, 5, 511]);
    }

    #[test]
    fn bits_are_taken_once() {
        let log = DirtyLog::anonymous((64 << 12) + 1).unwrap();
        log.mark(0, 3 * 4096);
        log.mark(65 * 4096, 1);
        assert_eq!(log.take(0, 0b110), Some(0b110));
        assert_eq!(log.take(0, u64::MAX), Some(1));
        assert_eq!(
            (log.take(0, u64::MAX), log.take(1, u64::MAX), log.take(2, u64::MAX)),
            (Some(0), Some(2), None)
        );
        assert!(!log.overrun());
    }

    #[test]
    fn the_cache_sets_what_it_was_told_when_flushed() {
        let (log, file) = log(4096);
        let mut cache = DirtyCache::new(log);
        cache.mark(3 * 4096, 1);
        assert_eq!(bits(&file, 4096), [0_u64; 0]);
        cache.flush();
        assert_eq!(bits(&file, 4096), [3]);
        // More words than it holds: nothing is lost.
        for page in (0..100).map(|i| i * 64) {
            cache.mark(page * 4096, 1);
        }
        cache.flush();
        assert_eq!(bits(&file, 4096).len(), 101);
    }

    #[test]
    fn a_slice_is_marked_at_its_guest_address() {
        let (log, file) = log(64);
        let memory = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memory, 0x4000).unwrap();
        let spec = RegionSpec { guest_addr: 0x8000, user_addr: 0, len: 0x4000, offset: 0, file: memory };
        let map = Map::new(vec![spec]).unwrap();
        let mut cache = DirtyCache::new(log);
        let slice = map.translate(0x9ffe, 100, &mut Hint::default()).unwrap();
        cache.mark_slice(&map, &slice, 3);
        cache.flush();
        assert_eq!(bits(&file, 64), [9, 10]);
    }
}
