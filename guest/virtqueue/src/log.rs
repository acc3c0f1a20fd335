//! Logging what a ring writes to guest memory.

use std::sync::Arc;

use fabnic_memory::{DirtyCache, DirtyLog, Map, Slice};

/// The dirty log of one ring, while there is one.
#[derive(Debug, Default)]
pub(crate) struct Log {
    cache: Option<DirtyCache>,
}

impl Log {
    pub(crate) fn set(&mut self, log: Option<Arc<DirtyLog>>) {
        self.flush();
        self.cache = log.map(DirtyCache::new);
    }

    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.cache.is_some()
    }

    /// Notes bytes at a guest-physical address.
    #[inline(always)]
    pub(crate) fn mark(&mut self, addr: Option<u64>, offset: u64, len: u64) {
        if let Some(cache) = &mut self.cache {
            // An address that wraps around is in nobody's memory.
            if let Some(addr) = addr.and_then(|addr| addr.checked_add(offset)) {
                cache.mark(addr, len);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn mark_slice(&mut self, map: &Map, slice: &Slice, len: u32) {
        if let Some(cache) = &mut self.cache {
            cache.mark_slice(map, slice, len);
        }
    }

    #[inline(always)]
    pub(crate) fn flush(&mut self) {
        if let Some(cache) = &mut self.cache {
            cache.flush();
        }
    }
}
