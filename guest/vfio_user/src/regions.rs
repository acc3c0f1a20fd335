//! Regions: what a client may read, write or map (vfio-user.rst, "VFIO_USER_DEVICE_GET_REGION_INFO").

use fabnic_pci::{Description, SharedBar};
use rustix::io::Errno;

use crate::error::Refusal;
use crate::fields::Payload;

/// Regions of a PCI device: six BARs, ROM, configuration space, VGA.
pub(crate) const REGIONS: u32 = 9;
/// The index of configuration space.
pub(crate) const CONFIG: u32 = 7;

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    Bar(u8),
    Config,
    /// Not there: of size 0.
    Absent,
}

impl Region {
    /// The region with this index.
    pub(crate) fn new(description: &Description, index: u32) -> Result<Region, Refusal> {
        if index >= REGIONS {
            return Err(Refusal::invalid(format!("region {index}"), "0 to 8"));
        }
        let bar = u8::try_from(index).ok().filter(|bar| size_of_bar(description, *bar) > 0);
        Ok(match (index, bar) {
            (CONFIG, _) => Region::Config,
            (_, Some(bar)) => Region::Bar(bar),
            _ => Region::Absent,
        })
    }

    /// Its size in bytes.
    pub(crate) fn size(self, description: &Description) -> u64 {
        match self {
            Region::Bar(bar) => size_of_bar(description, bar),
            Region::Config => u64::try_from(description.config_size()).unwrap_or(0),
            Region::Absent => 0,
        }
    }

    /// Refuses an access that is not inside.
    pub(crate) fn check(self, description: &Description, offset: u64, count: usize) -> Result<(), Refusal> {
        let size = self.size(description);
        let end = u64::try_from(count).ok().and_then(|count| offset.checked_add(count));
        if end.is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(Refusal::with(
            Errno::INVAL,
            format!("{count} bytes at {offset:#x} of {self:?}, which has {size:#x}"),
            "an access that ends within the region",
        ))
    }
}

fn size_of_bar(description: &Description, bar: u8) -> u64 {
    description.bars.get(usize::from(bar)).map_or(0, |bar| bar.size())
}

/// The answer to GET_REGION_INFO: Linux's `struct vfio_region_info`, and the sparse-mmap capability behind it if there
/// are pages to map and the client has room for it. Says also whether the file is to go along.
pub(crate) fn info(
    region: Region,
    description: &Description,
    index: u32,
    argsz: u32,
    shared: Option<&SharedBar>,
) -> (Payload, bool) {
    const FIXED: u32 = 32;
    const READ: u32 = 1;
    const WRITE: u32 = 1 << 1;
    const MMAP: u32 = 1 << 2;
    const CAPS: u32 = 1 << 3;
    let size = region.size(description);
    let shared = shared.filter(|shared| region == Region::Bar(shared.bar));
    let areas = shared.map_or(0, |shared| u32::try_from(shared.areas.len()).unwrap_or(0));
    let whole = if shared.is_some() {
        FIXED.saturating_add(16).saturating_add(areas.saturating_mul(16))
    } else {
        FIXED
    };
    let fits = argsz >= whole;
    let mut flags = if size > 0 { READ | WRITE } else { 0 };
    if shared.is_some() {
        flags |= MMAP | CAPS;
    }
    let with_caps = shared.filter(|_| fits);
    // Said even where it leads behind the end of this answer: QEMU looks at it before it asks again.
    let cap_offset = if shared.is_some() { FIXED } else { 0 };
    // The file begins where the region does.
    let mut payload = Payload::default().u32(whole).u32(flags).u32(index).u32(cap_offset).u64(size).u64(0);
    if let Some(shared) = with_caps {
        // Sparse mmap: id 1, version 1, no capability behind it.
        payload = payload.u32(1 | 1 << 16).u32(0).u32(areas).u32(0);
        for (offset, len) in &shared.areas {
            payload = payload.u64(*offset).u64(*len);
        }
    }
    (payload, with_caps.is_some())
}

/// An access in pieces as a bus would make them: each of 1, 2, 4 or 8 bytes, aligned to its size. What is such a piece
/// stays whole; longer ones are made of dwords.
pub(crate) fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, core::ops::Range<usize>)> {
    let aligned = |at: u64, size: usize| u64::try_from(size).is_ok_and(|size| at.is_multiple_of(size));
    let whole = matches!(len, 1 | 2 | 4 | 8) && aligned(offset, len);
    let mut done = 0_usize;
    core::iter::from_fn(move || {
        let at = offset.wrapping_add(u64::try_from(done).unwrap_or(0));
        let left = len.checked_sub(done).filter(|left| *left > 0)?;
        let size = if whole {
            len
        } else {
            [4, 2].into_iter().find(|size| *size <= left && aligned(at, *size)).unwrap_or(1)
        };
        let range = done..done + size;
        done += size;
        Some((at, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_cut_as_a_bus_would() {
        let cut = |offset, len| pieces(offset, len).map(|(at, range)| (at, range.len())).collect::<Vec<_>>();
        assert_eq!(cut(8, 8), [(8, 8)]);
        assert_eq!(cut(4, 8), [(4, 4), (8, 4)]);
        assert_eq!(cut(6, 2), [(6, 2)]);
        assert_eq!(cut(1, 4), [(1, 1), (2, 2), (4, 1)]);
        assert_eq!(cut(0, 11), [(0, 4), (4, 4), (8, 2), (10, 1)]);
        assert_eq!(cut(5, 0), []);
    }
}
