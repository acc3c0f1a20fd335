//! The DMA windows that a client gives: the function's IOMMU.
//!
//! Windows without a file, and such as the device may not both read and write, are kept to the letter (nothing may be
//! mapped over them, and they are to be unmapped like any other) but hold no memory that the function reaches: whatever
//! a driver aims there is outside of the map. The former are ROMs and BARs of other devices, which a client offers by
//! messages; the latter, firmware that was made read-only.

use std::collections::BTreeMap;
use std::sync::Arc;

use fabnic_memory::{MAX_REGIONS, Map, MapError, RegionSpec};
use rustix::io::Errno;

use crate::error::Refusal;
use crate::memory_file;
use crate::message::DmaMap;

/// The most windows at a time.
pub(crate) const MAX_WINDOWS: usize = MAX_REGIONS;

/// The smallest page: everything is a multiple of it.
const PAGE: u64 = 4096;

#[derive(Clone, Copy, Debug)]
struct Window {
    size: u64,
    /// In the map.
    reachable: bool,
}

/// All windows, and the map of those that hold memory.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// By bus address.
    windows: BTreeMap<u64, Window>,
    map: Option<Arc<Map>>,
}

impl Windows {
    /// The memory that can be reached, if there is any.
    pub(crate) fn map(&self) -> Option<&Arc<Map>> {
        self.map.as_ref()
    }

    /// Windows, and how many of them hold memory that can be reached.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.windows.len(), self.map.as_ref().map_or(0, |map| map.regions()))
    }

    /// Adds a window.
    pub(crate) fn add(&mut self, request: DmaMap) -> Result<(), Refusal> {
        let DmaMap { readable, writable, offset, iova, size, file } = request;
        if [offset, iova, size].iter().any(|value| value % PAGE != 0) || size == 0 {
            return Err(Refusal::invalid(
                format!("a window at {iova:#x} of {size:#x} bytes, at {offset:#x} of its file"),
                "multiples of 4096, and at least one",
            ));
        }
        let Some(last) = iova.checked_add(size - 1) else {
            return Err(Refusal::invalid(
                format!("a window at {iova:#x} of {size:#x} bytes"),
                "one that ends below 2^64",
            ));
        };
        if let Some((start, window)) = self.windows.range(..=last).next_back()
            && start.saturating_add(window.size - 1) >= iova
        {
            return Err(Refusal::with(
                Errno::EXIST,
                format!(
                    "a window at {iova:#x} of {size:#x} bytes over the one at {start:#x} of {:#x}",
                    window.size
                ),
                "a place where none is",
            ));
        }
        if self.windows.len() >= MAX_WINDOWS {
            return Err(Refusal::with(Errno::NOSPC, "one window too many", "at most 509 (max_dma_maps)"));
        }
        let mut reachable = false;
        if let Some(file) = file.filter(|_| readable && writable) {
            memory_file::check(&file)?;
            let spec = RegionSpec { guest_addr: iova, user_addr: iova, len: size, offset, file };
            let map = match &self.map {
                Some(map) => map.with_region(spec),
                None => Map::new(vec![spec]),
            };
            self.map = Some(map.map_err(refuse)?);
            reachable = true;
        }
        self.windows.insert(iova, Window { size, reachable });
        Ok(())
    }

    /// Takes away the windows in a range; none of them may reach beyond it. Where a guest has a virtual IOMMU, QEMU asks for
    /// ranges as large as the guest's invalidations, whatever there is in them, as it may of the kernel's VFIO.
    pub(crate) fn remove(&mut self, iova: u64, size: u64) -> Result<(), Refusal> {
        let refusal = || {
            Refusal::with(
                Errno::NOENT,
                format!("no windows at {iova:#x} of {size:#x} bytes"),
                "windows that were mapped, and all of each",
            )
        };
        let last = size.checked_sub(1).and_then(|size| iova.checked_add(size)).ok_or_else(refusal)?;
        let end = |start: u64, window: &Window| start.saturating_add(window.size - 1);
        let mut inside = Vec::new();
        // From the last one downwards: windows do not overlap, so the first that ends before the range is behind all.
        for (start, window) in self.windows.range(..=last).rev() {
            if end(*start, window) < iova {
                break;
            }
            if *start < iova || end(*start, window) > last {
                return Err(refusal());
            }
            inside.push(*start);
        }
        for start in inside {
            let Some(window) = self.windows.remove(&start) else { continue };
            if window.reachable
                && let Some(map) = &self.map
            {
                let left = map.without_region(start, start, window.size).map_err(refuse)?;
                self.map = (left.regions() > 0).then_some(left);
            }
        }
        Ok(())
    }

    /// Takes all away.
    pub(crate) fn clear(&mut self) {
        self.windows.clear();
        self.map = None;
    }
}

fn refuse(error: MapError) -> Refusal {
    let errno = match &error {
        MapError::Overlap { .. } => Errno::EXIST,
        MapError::Kernel { source, .. } => *source,
        MapError::TooManyRegions { .. } => Errno::NOSPC,
        _ => Errno::INVAL,
    };
    Refusal::with(errno, error.to_string(), "memory that can be shared")
}
