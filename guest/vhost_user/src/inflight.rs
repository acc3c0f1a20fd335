//! The area for in-flight records (GET_INFLIGHT_FD, SET_INFLIGHT_FD): what a back end leaves to its successor.
//!
//! A back end that completes out of order must record which descriptors it holds, so that the one that comes after a
//! crash can take them up again. Ours takes a burst, delivers it and gives it back in order, and holds nothing between
//! bursts. So no descriptor is ever marked in flight, and what the records say is: *begin at the used index*. That is
//! what [`crate::ring::position`] does, with or without the area. We write each region's header when the area is made,
//! and the used index when a ring starts and when it stops.
//!
//! What a crash in mid-burst costs is the same as without the area: frames that were delivered but not yet given back
//! are sent a second time, frames that were copied but not yet published are lost; at most one burst a ring.
//!
//! Layout: QEMU, docs/interop/vhost-user.rst, "Inflight I/O tracking".

use std::os::fd::OwnedFd;

use fabnic_memory::{AddressSpace, Map, MapError, RegionSpec, Table};
use rustix::fs::{MemfdFlags, SealFlags};
use vhost::vhost_user::message::VhostUserInflight;

use crate::message::Area;

/// Regions begin at multiples of this.
const ALIGN: u64 = 64;
/// Header and one record of a split ring's region, in bytes.
const SPLIT: (u64, u64) = (16, 16);
/// Header and one record of a packed ring's region, in bytes.
const PACKED: (u64, u64) = (32, 32);
const VERSION: u16 = 1;

/// 16-bit words of a region's header, by their place.
mod word {
    pub(super) const VERSION: usize = 4;
    pub(super) const DESC_NUM: usize = 5;
    /// Split only.
    pub(super) const USED_IDX: usize = 7;
}

fn region_len(size: u16, packed: bool) -> u64 {
    let (header, record) = if packed { PACKED } else { SPLIT };
    (header + record * u64::from(size)).next_multiple_of(ALIGN)
}

/// Makes an area for `rings` rings of `size` descriptors: a memfd that cannot shrink.
pub(crate) fn create(
    rings: u16,
    size: u16,
    packed: bool,
) -> rustix::io::Result<(OwnedFd, VhostUserInflight)> {
    let each = region_len(size, packed);
    let len = each * u64::from(rings);
    let file = rustix::fs::memfd_create("fabnic-inflight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, len)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let header = [VERSION.to_ne_bytes(), size.to_ne_bytes()];
    for ring in 0..u64::from(rings) {
        rustix::io::pwrite(&file, header.as_flattened(), ring * each + 8)?;
    }
    let area = VhostUserInflight { mmap_size: len, mmap_offset: 0, num_queues: rings, queue_size: size };
    Ok((file, area))
}

/// The area that the front end gave.
#[derive(Debug)]
pub(crate) struct Regions {
    words: Table<u16>,
    rings: u16,
    size: u16,
    len: u64,
}

impl Regions {
    pub(crate) fn open(area: Area, rings: u16, size: u16) -> Result<Regions, MapError> {
        let len = area.len;
        let spec = RegionSpec { guest_addr: 0, user_addr: 0, len, offset: area.offset, file: area.fd };
        let map = Map::new(vec![spec])?;
        let count = usize::try_from(len / 2).unwrap_or(0);
        Ok(Regions { words: map.table(AddressSpace::Guest, 0, count)?, rings, size, len })
    }

    /// Writes what a successor may rely on: this ring stands at this used index, and nothing is in flight.
    pub(crate) fn note(&self, ring: u16, packed: bool, base: u32) {
        let each = region_len(self.size, packed);
        // The front end's numbers need not fit its area: then nothing is written (a table ignores what is past its end).
        if ring >= self.rings || packed || each * u64::from(self.rings) > self.len {
            return;
        }
        let Ok(at) = usize::try_from(each / 2 * u64::from(ring)) else { return };
        let [low, high, ..] = base.to_le_bytes();
        self.words.store(at + word::VERSION, VERSION);
        self.words.store(at + word::DESC_NUM, self.size);
        self.words.store_release(at + word::USED_IDX, u16::from_le_bytes([low, high]));
    }
}
