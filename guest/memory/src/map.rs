//! One guest's memory at one moment.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::fault;
use crate::slice::{MAX_SLICE, Slice};
use crate::table::{Plain, Table};

/// The most regions a map may have: what vhost-user back ends commonly answer to GET_MAX_MEM_SLOTS.
pub const MAX_REGIONS: usize = 509;

/// Ids of maps; 40 bits are in use by [`Slice`]. Never given twice.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
const LAST_ID: u64 = (1 << 40) - 1;

/// What a front end says of one region (vhost-user, "Memory region description").
#[derive(Debug)]
pub struct RegionSpec {
    /// First guest-physical address.
    pub guest_addr: u64,
    /// First address in the front end's own address space; ring addresses are given in it.
    pub user_addr: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where in the file the region begins, in bytes.
    pub offset: u64,
    /// The file.
    pub file: OwnedFd,
}

/// In which address space an address is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSpace {
    /// Guest-physical: descriptors.
    Guest,
    /// The front end's virtual addresses: rings in vhost-user messages.
    User,
}

/// Why memory could not be mapped or an address not be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// More regions than the map can hold.
    #[error("{got} memory regions, at most {MAX_REGIONS} are possible")]
    TooManyRegions {
        /// How many there would be.
        got: usize,
    },
    /// A region without bytes, or whose end wraps around.
    #[error("memory region at {guest_addr:#x}: a length of {len:#x} is not possible")]
    BadLength {
        /// The region's guest address.
        guest_addr: u64,
        /// The length that was claimed.
        len: u64,
    },
    /// Two regions claim the same guest address.
    #[error("memory regions at {first:#x} and {second:#x} overlap")]
    Overlap {
        /// The lower region's guest address.
        first: u64,
        /// The higher region's guest address.
        second: u64,
    },
    /// The file is shorter than the region claims.
    #[error("memory region at {guest_addr:#x} needs {need:#x} bytes of its file, which has {have:#x}")]
    ShortFile {
        /// The region's guest address.
        guest_addr: u64,
        /// Offset plus length.
        need: u64,
        /// The file's length.
        have: u64,
    },
    /// The kernel refused to map the file.
    #[error("memory region at {guest_addr:#x} of {len:#x} bytes could not be mapped: {source}")]
    Kernel {
        /// The region's guest address.
        guest_addr: u64,
        /// The region's length.
        len: u64,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// No region with this address and length.
    #[error("no memory region at {guest_addr:#x} with {len:#x} bytes")]
    NoSuchRegion {
        /// The guest address that was asked for.
        guest_addr: u64,
        /// The length that was asked for.
        len: u64,
    },
    /// A table does not lie inside one region.
    #[error("{bytes} bytes at {addr:#x} ({space:?} address) are not inside one memory region")]
    Outside {
        /// Where it was said to be.
        addr: u64,
        /// How long it is.
        bytes: usize,
        /// In which address space.
        space: AddressSpace,
    },
    /// A table is not aligned as its items need.
    #[error("{addr:#x} is not a multiple of {align}")]
    Misaligned {
        /// Where it was said to be.
        addr: u64,
        /// What its items need.
        align: usize,
    },
    /// All 2^40 ids are used up.
    #[error("no more memory maps can be made by this process")]
    Exhausted,
}

/// One mapped file range; unmapped when the last map that uses it goes.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    /// Whole length of the kernel mapping, which may start before and end behind the region.
    len: usize,
    registration: Option<fault::Registration>,
}

// SAFETY: an address range that nothing but the methods of Map touches, as atomics or raw copies.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Out of the registry before the address range may be used for something else.
        self.registration = None;
        // SAFETY: the range was mapped by `Mapping::new` and no map refers to it any more.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) } {
            debug_assert!(false, "munmap of our own mapping failed: {error}");
        }
    }
}

/// One region, in the form in which it is searched.
#[derive(Clone, Debug)]
struct Region {
    guest: u64,
    len: u64,
    host: NonNull<u8>,
    user: u64,
    /// Keeps the bytes mapped.
    _mapping: Arc<Mapping>,
}

impl Region {
    fn map(spec: RegionSpec, flag: &Arc<AtomicBool>) -> Result<Region, MapError> {
        let RegionSpec { guest_addr, user_addr, len, offset, file } = spec;
        let bad = || MapError::BadLength { guest_addr, len };
        if len == 0 || guest_addr.checked_add(len).is_none() || user_addr.checked_add(len).is_none() {
            return Err(bad());
        }
        let need = offset.checked_add(len).ok_or_else(bad)?;
        let kernel = |source| MapError::Kernel { guest_addr, len, source };
        let stat = rustix::fs::fstat(&file).map_err(kernel)?;
        let have = u64::try_from(stat.st_size).unwrap_or(0);
        if have < need {
            return Err(MapError::ShortFile { guest_addr, need, have });
        }
        // Files on huge pages can only be mapped from and to multiples of the page, which they report as block size.
        let page = u64::try_from(stat.st_blksize).unwrap_or(4096).max(4096);
        let page = if page.is_power_of_two() { page } else { 4096 };
        let start = offset & !(page - 1);
        let whole = need.checked_next_multiple_of(page).ok_or_else(bad)? - start;
        let whole = usize::try_from(whole).map_err(|_| bad())?;
        let skip = usize::try_from(offset - start).map_err(|_| bad())?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                whole,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                file.as_fd(),
                start,
            )
        }
        .map_err(kernel)?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(bad)?;
        let registration = fault::register(base.as_ptr() as usize, whole, Arc::clone(flag));
        let mapping = Arc::new(Mapping { base, len: whole, registration: Some(registration) });
        // SAFETY: `skip` plus the region's length is within the mapping.
        let host = unsafe { base.add(skip) };
        Ok(Region { guest: guest_addr, len, host, user: user_addr, _mapping: mapping })
    }

    /// The offset of `addr` if `[addr, addr + len)` lies in the region.
    #[inline(always)]
    fn offset(&self, start: u64, addr: u64, len: u64) -> Option<u64> {
        let offset = addr.wrapping_sub(start);
        (offset < self.len && len <= self.len - offset).then_some(offset)
    }
}

/// Where the last address was found; one for each queue, so that most translations look at one region only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hint(usize);

/// The region in which the last address was found, held ready for a run of translations: those that stay inside it cost
/// a few instructions each.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    guest: u64,
    len: u64,
    host: NonNull<u8>,
    map: u64,
}

impl Window {
    /// The run of `len` bytes at a guest-physical address. `None` if it is empty, longer than [`MAX_SLICE`], or not
    /// inside this region: [`Map::translate`] knows the others.
    #[inline(always)]
    pub fn slice(&self, addr: u64, len: u32) -> Option<Slice> {
        let offset = addr.wrapping_sub(self.guest);
        if offset >= self.len || u64::from(len) > self.len - offset || len.wrapping_sub(1) >= MAX_SLICE {
            return None;
        }
        // SAFETY: inside the region, as just checked; the slice carries the map's id, so that it is only ever used
        // together with the map, which keeps the region mapped.
        let ptr = unsafe { self.host.add(offset as usize) };
        Some(Slice::new(ptr, len, self.map))
    }
}

/// The regions of one guest, mapped. Immutable: a changed memory table is a new map.
#[derive(Debug)]
pub struct Map {
    id: u64,
    /// Sorted by guest address, not overlapping.
    regions: Box<[Region]>,
    flag: Arc<AtomicBool>,
}

// SAFETY: regions are addresses into mappings that are kept alive by the Arcs beside them; see the crate's page for how
// the bytes behind them are accessed.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps all regions of a memory table. On error nothing stays mapped.
    pub fn new(specs: Vec<RegionSpec>) -> Result<Arc<Map>, MapError> {
        if specs.len() > MAX_REGIONS {
            return Err(MapError::TooManyRegions { got: specs.len() });
        }
        let flag = Arc::new(AtomicBool::new(false));
        let regions =
            specs.into_iter().map(|spec| Region::map(spec, &flag)).collect::<Result<Vec<_>, _>>()?;
        Map::from_regions(regions, flag)
    }

    /// Memory of our own, `len` bytes at guest and user address 0: for ports whose frames lie in host memory, and for
    /// drivers in tests. The second value is the file, to be shared with a peer: it can change the bytes, and not the size.
    pub fn anonymous(len: u64) -> Result<(Arc<Map>, OwnedFd), MapError> {
        let kernel = |source| MapError::Kernel { guest_addr: 0, len, source };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("fabnic", flags).map_err(kernel)?;
        rustix::fs::ftruncate(&file, len).map_err(kernel)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(kernel)?;
        let shared = file.try_clone().map_err(|_| kernel(rustix::io::Errno::MFILE))?;
        let map = Map::new(vec![RegionSpec { guest_addr: 0, user_addr: 0, len, offset: 0, file }])?;
        Ok((map, shared))
    }

    fn from_regions(mut regions: Vec<Region>, flag: Arc<AtomicBool>) -> Result<Arc<Map>, MapError> {
        if regions.len() > MAX_REGIONS {
            return Err(MapError::TooManyRegions { got: regions.len() });
        }
        regions.sort_by_key(|region| region.guest);
        for (low, high) in regions.iter().zip(regions.iter().skip(1)) {
            if high.guest - low.guest < low.len {
                return Err(MapError::Overlap { first: low.guest, second: high.guest });
            }
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        if id > LAST_ID {
            // Stay above, so that no later id wraps into use again.
            NEXT_ID.store(LAST_ID + 1, Ordering::Relaxed);
            return Err(MapError::Exhausted);
        }
        Ok(Arc::new(Map { id, regions: regions.into_boxed_slice(), flag }))
    }

    /// This map with one region more (vhost-user ADD_MEM_REG). What was mapped stays mapped where it is.
    pub fn with_region(&self, spec: RegionSpec) -> Result<Arc<Map>, MapError> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(MapError::TooManyRegions { got: self.regions.len() + 1 });
        }
        let mut regions = self.regions.to_vec();
        regions.push(Region::map(spec, &self.flag)?);
        Map::from_regions(regions, Arc::clone(&self.flag))
    }

    /// This map without the region that has this guest address, user address and length (vhost-user REM_MEM_REG).
    pub fn without_region(&self, guest_addr: u64, user_addr: u64, len: u64) -> Result<Arc<Map>, MapError> {
        let gone = |r: &Region| r.guest == guest_addr && r.user == user_addr && r.len == len;
        if !self.regions.iter().any(gone) {
            return Err(MapError::NoSuchRegion { guest_addr, len });
        }
        let regions = self.regions.iter().filter(|r| !gone(r)).cloned().collect();
        Map::from_regions(regions, Arc::clone(&self.flag))
    }

    /// The identity that the map's slices carry.
    #[inline(always)]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Number of regions.
    pub fn regions(&self) -> usize {
        self.regions.len()
    }

    /// Bytes in all regions together.
    pub fn bytes(&self) -> u64 {
        self.regions.iter().map(|r| r.len).sum()
    }

    /// Whether a file shrank under the map: its bytes are lost and its port must stop.
    #[inline(always)]
    pub fn faulted(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// The run of `len` bytes at a guest-physical address, if it lies inside one region and is at most [`MAX_SLICE`].
    #[inline(always)]
    pub fn translate(&self, addr: u64, len: u32, hint: &mut Hint) -> Option<Slice> {
        if len > MAX_SLICE {
            return None;
        }
        if let Some(region) = self.regions.get(hint.0)
            && let Some(offset) = region.offset(region.guest, addr, u64::from(len))
        {
            return Some(self.slice(region, offset, len));
        }
        self.translate_search(addr, len, hint)
    }

    /// The region that the hint names, held ready. Of a map without regions it holds nothing.
    #[inline(always)]
    pub fn window(&self, hint: &Hint) -> Window {
        match self.regions.get(hint.0).or(self.regions.first()) {
            Some(region) => Window { guest: region.guest, len: region.len, host: region.host, map: self.id },
            None => Window { guest: 0, len: 0, host: NonNull::dangling(), map: self.id },
        }
    }

    #[cold]
    #[inline(never)]
    fn translate_search(&self, addr: u64, len: u32, hint: &mut Hint) -> Option<Slice> {
        let index = self.regions.partition_point(|r| r.guest <= addr).checked_sub(1)?;
        let region = self.regions.get(index)?;
        let offset = region.offset(region.guest, addr, u64::from(len))?;
        hint.0 = index;
        Some(self.slice(region, offset, len))
    }

    /// As [`Map::translate`] for runs of any length that may go on in the next region where that one follows without a
    /// gap: calls `each` with the pieces in order. `false` if a byte is outside or `each` said stop.
    pub fn translate_pieces(
        &self,
        mut addr: u64,
        mut len: u32,
        hint: &mut Hint,
        mut each: impl FnMut(Slice) -> bool,
    ) -> bool {
        while len > 0 {
            let Some(index) = self.regions.partition_point(|r| r.guest <= addr).checked_sub(1) else {
                return false;
            };
            let Some(region) = self.regions.get(index) else { return false };
            let Some(offset) = region.offset(region.guest, addr, 1) else { return false };
            let n = u32::try_from(region.len - offset).unwrap_or(u32::MAX).min(len).min(MAX_SLICE);
            hint.0 = index;
            if !each(self.slice(region, offset, n)) {
                return false;
            }
            addr += u64::from(n);
            len -= n;
        }
        true
    }

    #[inline(always)]
    fn slice(&self, region: &Region, offset: u64, len: u32) -> Slice {
        // SAFETY: the caller checked that [offset, offset + len) is in the region, which is mapped as long as the map is.
        let ptr = unsafe { region.host.add(offset as usize) };
        Slice::new(ptr, len, self.id)
    }

    /// The guest-physical address of a slice of this map; for the dirty log.
    pub(crate) fn guest_address(&self, slice: &Slice) -> Option<u64> {
        if !self.owns(slice) {
            return None;
        }
        let address = slice.address();
        self.regions.iter().find_map(|region| {
            let offset = (address as u64).checked_sub(region.host.as_ptr() as u64)?;
            (offset < region.len).then(|| region.guest + offset)
        })
    }

    /// The guest-physical address that belongs to an address of the front end.
    pub fn user_to_guest(&self, user_addr: u64) -> Option<u64> {
        self.regions.iter().find_map(|r| Some(r.guest + r.offset(r.user, user_addr, 1)?))
    }

    /// A view of `len` items at `addr`: the whole of it must lie inside one region and be aligned for its items (virtio
    /// 1.x, section 2.7 and 2.8: 16 bytes for descriptors, 2 for the available ring, 4 for the used ring).
    pub fn table<T: Plain>(
        self: &Arc<Map>,
        space: AddressSpace,
        addr: u64,
        len: usize,
    ) -> Result<Table<T>, MapError> {
        let align = core::mem::align_of::<T>();
        let bytes = len.saturating_mul(core::mem::size_of::<T>());
        let outside = MapError::Outside { addr, bytes, space };
        let found = self.regions.iter().find_map(|region| {
            let start = match space {
                AddressSpace::Guest => region.guest,
                AddressSpace::User => region.user,
            };
            Some((region, region.offset(start, addr, bytes as u64)?))
        });
        let Some((region, offset)) = found else { return Err(outside) };
        // SAFETY: inside the region.
        let base = unsafe { region.host.add(offset as usize) }.cast::<T>();
        if !base.is_aligned() {
            return Err(MapError::Misaligned { addr, align });
        }
        // SAFETY: inside the region for `len` items, aligned, and the Arc keeps the region mapped.
        Ok(unsafe { Table::new(base, len, Arc::clone(self)) })
    }
}

#[cfg(test)]
mod tests;
