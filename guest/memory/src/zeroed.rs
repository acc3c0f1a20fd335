//! Large tables of our own: zeroed by the system as they are touched, and on huge pages where it has them.
//!
//! A table of a million flows is hundreds of megabytes. An allocator asked for zeroed memory with the alignment of a cache line
//! writes every byte of it before it returns, which would stop a worker for a tenth of a second; and on pages of 4 KiB every look
//! into it would miss the CPU's translations, too, which costs more than the line itself.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};
use zerocopy::FromZeros;

/// Smaller tables gain nothing from huge pages and would only waste most of one.
const HUGE_PAGE: usize = 2 << 20;
/// Alignment that every mapping has.
const PAGE: usize = 4096;

/// A slice of zeroed items in a mapping of its own.
#[derive(Debug)]
pub struct Zeroed<T: FromZeros> {
    items: NonNull<T>,
    len: usize,
}

impl<T: FromZeros> Zeroed<T> {
    /// The size of all items in bytes, if there is a mapping of such a size.
    fn bytes(len: usize) -> Option<usize> {
        len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok())
    }

    /// `len` items, all zero. Pages that are never touched are never there. `None` if the system has no memory for it.
    #[must_use]
    pub fn new(len: usize) -> Option<Self> {
        const {
            assert!(align_of::<T>() <= PAGE, "a mapping is aligned to a page only");
            assert!(!core::mem::needs_drop::<T>(), "a mapping drops no items");
        }
        let bytes = Self::bytes(len)?;
        if bytes == 0 {
            return Some(Self { items: NonNull::dangling(), len });
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .ok()?;
        if bytes >= HUGE_PAGE {
            // SAFETY: the mapping is ours, and the advice changes no byte of it. A kernel without huge pages refuses it.
            let _refused = unsafe { rustix::mm::madvise(start, bytes, Advice::LinuxHugepage) };
        }
        Some(Self { items: NonNull::new(start.cast())?, len })
    }
}

impl<T: FromZeros> Default for Zeroed<T> {
    /// No items, which takes no memory.
    fn default() -> Self {
        Self { items: NonNull::dangling(), len: 0 }
    }
}

impl<T: FromZeros> Drop for Zeroed<T> {
    fn drop(&mut self) {
        if let Some(bytes) = Self::bytes(self.len).filter(|bytes| *bytes > 0) {
            // SAFETY: the mapping that `new` made, of this size; nothing borrows it any more.
            let _never = unsafe { rustix::mm::munmap(self.items.as_ptr().cast(), bytes) };
        }
    }
}

impl<T: FromZeros> Deref for Zeroed<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` items lie in the mapping (or there is none and they have no size), aligned, valid since zeroed bytes are a
        // value of `T`, and borrowed as `self` is.
        unsafe { core::slice::from_raw_parts(self.items.as_ptr(), self.len) }
    }
}

impl<T: FromZeros> DerefMut for Zeroed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.items.as_ptr(), self.len) }
    }
}

// SAFETY: it owns its items as a `Vec` does.
unsafe impl<T: FromZeros + Send> Send for Zeroed<T> {}
// SAFETY: as above.
unsafe impl<T: FromZeros + Sync> Sync for Zeroed<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(FromZeros)]
    #[repr(C, align(64))]
    struct Line([u64; 8]);

    #[test]
    fn items_are_zero_aligned_and_kept() {
        for len in [1, 63, (4 << 20) / 64] {
            let mut table = Zeroed::<Line>::new(len).unwrap();
            assert_eq!(table.len(), len);
            assert!(table.iter().all(|line| line.0 == [0; 8]));
            assert_eq!(table.as_ptr() as usize % 64, 0);
            for (index, line) in (0..).zip(table.iter_mut()) {
                line.0[7] = index;
            }
            assert!((0..).zip(table.iter()).all(|(index, line)| line.0[7] == index));
        }
    }

    #[test]
    fn nothing_is_a_table_too_and_too_much_is_refused() {
        assert!(Zeroed::<Line>::new(0).unwrap().is_empty());
        assert!(Zeroed::<Line>::new(usize::MAX / 64).is_none());
        assert!(Zeroed::<Line>::new(usize::MAX).is_none());
        assert!(Zeroed::<u64>::new(1 << 59).is_none());
    }
}
