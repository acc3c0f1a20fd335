//! A guest's RAM, made here and shared with the back end.
//!
//! The regions are memfds, on ordinary or on huge pages, laid out with gaps between them and with user addresses that
//! differ from the guest addresses, so that a back end that mixes the two up is found out. Memory is handed out once and
//! never taken back: a guest lives as long as its memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_memory::{AddressSpace, Hint, Map, MapError, Plain, RegionSpec, Slice, Table};
use rustix::fs::{FallocateFlags, MemfdFlags};

/// Where the first region begins, guest-physical.
const FIRST: u64 = 0x4000_0000;
/// What user addresses are ahead of guest addresses.
const USER: u64 = 0x7e00_0000_0000;
const HUGE_PAGE: u64 = 2 << 20;

/// What the memory is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Pages of 4 KiB.
    #[default]
    Ordinary,
    /// Pages of 2 MiB; an error if the machine has too few of them free.
    Huge,
    /// Pages of 2 MiB if there are enough, else ordinary ones.
    HugeIfFree,
}

/// Why memory could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The kernel refused.
    #[error("{len:#x} bytes of guest memory ({backing:?} pages) cannot be had")]
    Kernel {
        /// How much was asked for.
        len: u64,
        /// Of what.
        backing: Backing,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// It could not be mapped, or an address is outside.
    #[error(transparent)]
    Map(#[from] MapError),
    /// All regions are used up.
    #[error("guest memory is used up: {len:#x} bytes with alignment {align:#x} do not fit any region")]
    Full {
        /// How much was asked for.
        len: u64,
        /// With which alignment.
        align: u64,
    },
    /// An access outside the memory.
    #[error("{len:#x} bytes at guest address {addr:#x} are outside the guest's memory")]
    Outside {
        /// First address.
        addr: u64,
        /// Length.
        len: u32,
    },
}

/// One region as the back end is told of it.
#[derive(Debug)]
pub struct Region {
    /// First guest-physical address.
    pub guest_addr: u64,
    /// First address in the front end's address space, in which ring addresses are given.
    pub user_addr: u64,
    /// Bytes.
    pub len: u64,
    /// The file; the region begins at its first byte.
    pub file: OwnedFd,
    used: u64,
}

/// The memory of one guest.
#[derive(Debug)]
pub struct GuestMemory {
    map: Arc<Map>,
    regions: Vec<Region>,
    backing: Backing,
}

impl GuestMemory {
    /// One region of `len` bytes (rounded up to whole pages).
    pub fn new(len: u64, backing: Backing) -> Result<GuestMemory, MemoryError> {
        GuestMemory::with_regions(&[len], backing)
    }

    /// Several regions, with gaps between them.
    pub fn with_regions(lens: &[u64], backing: Backing) -> Result<GuestMemory, MemoryError> {
        match backing {
            Backing::HugeIfFree => GuestMemory::build(lens, Backing::Huge)
                .or_else(|_| GuestMemory::build(lens, Backing::Ordinary)),
            exactly => GuestMemory::build(lens, exactly),
        }
    }

    fn build(lens: &[u64], backing: Backing) -> Result<GuestMemory, MemoryError> {
        let mut regions: Vec<Region> = Vec::new();
        let mut specs = Vec::new();
        let mut at = FIRST;
        for len in lens {
            let len = len.next_multiple_of(HUGE_PAGE).max(HUGE_PAGE);
            let kernel = |source| MemoryError::Kernel { len, backing, source };
            let mut flags = MemfdFlags::CLOEXEC;
            if backing == Backing::Huge {
                flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
            }
            let file = rustix::fs::memfd_create("guest", flags).map_err(kernel)?;
            rustix::fs::ftruncate(&file, len).map_err(kernel)?;
            if backing == Backing::Huge {
                // Takes the pages now: a pool that is too small says so here, not by SIGBUS later.
                rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len).map_err(kernel)?;
            }
            let shared = file.try_clone().map_err(|_| kernel(rustix::io::Errno::MFILE))?;
            let user_addr = USER + at;
            specs.push(RegionSpec { guest_addr: at, user_addr, len, offset: 0, file });
            regions.push(Region { guest_addr: at, user_addr, len, file: shared, used: 0 });
            at += 2 * len;
        }
        Ok(GuestMemory { map: Map::new(specs)?, regions, backing })
    }

    /// What it is made of: of [`Backing::HugeIfFree`], what was found.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// The map, for slices and copies.
    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// The regions as the back end is told of them.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// A region's file.
    pub fn file(&self, region: usize) -> Option<BorrowedFd<'_>> {
        self.regions.get(region).map(|region| region.file.as_fd())
    }

    /// The next `len` bytes that nobody has; `align` is a power of two. Gives the guest-physical address.
    pub fn allocate(&mut self, len: u64, align: u64) -> Result<u64, MemoryError> {
        let fits = |region: &Region| {
            let start = region.used.next_multiple_of(align);
            (start + len <= region.len).then_some(start)
        };
        let found = self.regions.iter_mut().find_map(|region| Some((fits(region)?, region)));
        let Some((start, region)) = found else { return Err(MemoryError::Full { len, align }) };
        region.used = start + len;
        Ok(region.guest_addr + start)
    }

    /// As [`GuestMemory::allocate`], in a given region only: for guests whose buffers lie all over.
    pub fn allocate_in(&mut self, region: usize, len: u64, align: u64) -> Result<u64, MemoryError> {
        let full = MemoryError::Full { len, align };
        let Some(region) = self.regions.get_mut(region) else { return Err(full) };
        let start = region.used.next_multiple_of(align);
        if start + len > region.len {
            return Err(full);
        }
        region.used = start + len;
        Ok(region.guest_addr + start)
    }

    /// The address in the front end's address space, in which vhost-user wants rings.
    pub fn user_address(&self, guest_addr: u64) -> u64 {
        let region = self.regions.iter().find(|r| guest_addr.wrapping_sub(r.guest_addr) < r.len);
        // An address outside keeps its place relative to the first region, so that lies stay lies.
        region.map_or(guest_addr.wrapping_add(USER), |r| guest_addr - r.guest_addr + r.user_addr)
    }

    /// A ring or any other typed view.
    pub fn table<T: Plain>(&self, guest_addr: u64, len: usize) -> Result<Table<T>, MemoryError> {
        Ok(self.map.table(AddressSpace::Guest, guest_addr, len)?)
    }

    /// A run of bytes.
    pub fn slice(&self, guest_addr: u64, len: u32) -> Result<Slice, MemoryError> {
        self.map
            .translate(guest_addr, len, &mut Hint::default())
            .ok_or(MemoryError::Outside { addr: guest_addr, len })
    }

    /// Writes bytes.
    pub fn write(&self, guest_addr: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let slice = self.slice(guest_addr, len)?;
        self.map.write(&slice, 0, bytes);
        Ok(())
    }

    /// Reads bytes.
    pub fn read(&self, guest_addr: u64, to: &mut [u8]) -> Result<(), MemoryError> {
        let len = u32::try_from(to.len()).unwrap_or(u32::MAX);
        let slice = self.slice(guest_addr, len)?;
        self.map.read(&slice, 0, to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_do_not_overlap_and_end() {
        let mut memory = GuestMemory::with_regions(&[2 << 20, 2 << 20], Backing::Ordinary).unwrap();
        let a = memory.allocate(100, 64).unwrap();
        let b = memory.allocate(100, 64).unwrap();
        assert_eq!(b - a, 128);
        let c = memory.allocate(2 << 20, 4096).unwrap();
        assert_eq!(c, memory.regions()[1].guest_addr);
        assert!(memory.allocate(2 << 20, 1).is_err());
        memory.write(c, b"hello").unwrap();
        let mut back = [0; 5];
        memory.read(c, &mut back).unwrap();
        assert_eq!(&back, b"hello");
        // The gap behind the first region belongs to nobody.
        assert!(memory.read(memory.regions()[0].guest_addr + (2 << 20), &mut back).is_err());
    }

    #[test]
    fn user_addresses_follow_their_region() {
        let memory = GuestMemory::with_regions(&[2 << 20, 2 << 20], Backing::Ordinary).unwrap();
        let second = &memory.regions()[1];
        assert_eq!(memory.user_address(second.guest_addr + 5), second.user_addr + 5);
        assert_ne!(second.user_addr, second.guest_addr);
    }
}
