//! Typed views of ring memory: bounds and alignment are checked once, when the ring is set up.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use crate::kernel;
use crate::map::Map;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
    impl Sealed for [u32; 2] {}
    impl Sealed for [u64; 2] {}
    impl Sealed for [u64; 4] {}
}

/// What a ring can be made of: words of 16, 32 and 64 bits, entries of two 32-bit words, descriptors of two and of four
/// 64-bit words, in the host's byte order (virtio is little endian; callers convert with `from_le`, which costs nothing on x86).
pub trait Plain: sealed::Sealed + Copy + Default + Send + Sync + 'static {
    /// Loads one item; a pair, or four, word by word, each exactly once.
    ///
    /// # Safety
    /// `p` must be valid for atomic access and aligned for the type's widest word.
    #[doc(hidden)]
    unsafe fn load(p: NonNull<Self>, order: Ordering) -> Self;
    /// Stores one item; of several words the *second* is stored last, with the given ordering: in a descriptor it holds the
    /// flags.
    ///
    /// # Safety
    /// As for `load`.
    #[doc(hidden)]
    unsafe fn store(p: NonNull<Self>, value: Self, order: Ordering);
}

macro_rules! plain {
    ($word:ty, $atomic:ty) => {
        impl Plain for $word {
            #[inline(always)]
            unsafe fn load(p: NonNull<Self>, order: Ordering) -> Self {
                // SAFETY: the caller's promise; guest memory is only ever accessed through atomics or raw copies.
                unsafe { <$atomic>::from_ptr(p.as_ptr()).load(order) }
            }
            #[inline(always)]
            unsafe fn store(p: NonNull<Self>, value: Self, order: Ordering) {
                // SAFETY: as above.
                unsafe { <$atomic>::from_ptr(p.as_ptr()).store(value, order) }
            }
        }
    };
}
plain!(u16, AtomicU16);
plain!(u32, AtomicU32);
plain!(u64, AtomicU64);

macro_rules! plain_pair {
    ($word:ty) => {
        impl Plain for [$word; 2] {
            #[inline(always)]
            unsafe fn load(p: NonNull<Self>, order: Ordering) -> Self {
                // SAFETY: the caller's promise covers both words.
                unsafe {
                    let words = p.cast::<$word>();
                    // The flags of a packed descriptor are in the second word: it is read first, so that `Acquire`
                    // orders the rest behind it.
                    let second = <$word>::load(words.add(1), order);
                    [<$word>::load(words, Ordering::Relaxed), second]
                }
            }
            #[inline(always)]
            unsafe fn store(p: NonNull<Self>, value: Self, order: Ordering) {
                // SAFETY: the caller's promise covers both words.
                unsafe {
                    let words = p.cast::<$word>();
                    <$word>::store(words, value[0], Ordering::Relaxed);
                    <$word>::store(words.add(1), value[1], order);
                }
            }
        }
    };
}
plain_pair!(u32);
plain_pair!(u64);

impl Plain for [u64; 4] {
    #[inline(always)]
    unsafe fn load(p: NonNull<Self>, order: Ordering) -> Self {
        // SAFETY: the caller's promise covers all words. The second one is read first, as in a pair.
        unsafe {
            let words = p.cast::<u64>();
            let second = <u64>::load(words.add(1), order);
            let word = |n| <u64>::load(words.add(n), Ordering::Relaxed);
            [word(0), second, word(2), word(3)]
        }
    }

    #[inline(always)]
    unsafe fn store(p: NonNull<Self>, value: Self, order: Ordering) {
        let [first, second, third, fourth] = value;
        // SAFETY: the caller's promise covers all words.
        unsafe {
            let words = p.cast::<u64>();
            <u64>::store(words, first, Ordering::Relaxed);
            <u64>::store(words.add(2), third, Ordering::Relaxed);
            <u64>::store(words.add(3), fourth, Ordering::Relaxed);
            <u64>::store(words.add(1), second, order);
        }
    }
}

impl Table<[u64; 4]> {
    /// Loads the first word of an item, unordered: the address in a descriptor that was not used yet.
    #[inline(always)]
    pub fn first(&self, index: usize) -> u64 {
        match self.at(index) {
            // SAFETY: `at` gave a place inside the table, aligned for words.
            Some(p) => unsafe { u64::load(p.cast(), Ordering::Relaxed) },
            None => 0,
        }
    }
}

/// `len` items of type `T` in guest memory. Keeps its map alive.
///
/// Indexes are ours, not the guest's (callers mask them), but an index past the end is harmless all the same: it loads
/// the default and stores nothing.
pub struct Table<T: Plain> {
    base: NonNull<T>,
    len: usize,
    map: Arc<Map>,
    _items: PhantomData<T>,
}

// SAFETY: a table is an address inside a mapping that the Arc keeps alive; all access is atomic.
unsafe impl<T: Plain> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Table<T> {}

impl<T: Plain> core::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Table").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T: Plain> Clone for Table<T> {
    fn clone(&self) -> Table<T> {
        Table { base: self.base, len: self.len, map: Arc::clone(&self.map), _items: PhantomData }
    }
}

impl<T: Plain> Table<T> {
    /// # Safety
    /// `base` must be aligned for `T`'s words and valid for `len` items for as long as `map` lives.
    pub(crate) unsafe fn new(base: NonNull<T>, len: usize, map: Arc<Map>) -> Table<T> {
        Table { base, len, map, _items: PhantomData }
    }

    /// Number of items.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The map that the table lies in.
    #[inline(always)]
    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }

    #[inline(always)]
    fn at(&self, index: usize) -> Option<NonNull<T>> {
        // SAFETY: below `len`, so inside the run that `new` was promised.
        (index < self.len).then(|| unsafe { self.base.add(index) })
    }

    /// The place of an item, for atomics that are not a load or a store.
    pub(crate) fn place(&self, index: usize) -> Option<NonNull<T>> {
        self.at(index)
    }

    /// Loads an item, unordered.
    #[inline(always)]
    pub fn load(&self, index: usize) -> T {
        self.load_ordered(index, Ordering::Relaxed)
    }

    /// Loads an item; what is read after it is read after it.
    #[inline(always)]
    pub fn load_acquire(&self, index: usize) -> T {
        self.load_ordered(index, Ordering::Acquire)
    }

    #[inline(always)]
    fn load_ordered(&self, index: usize, order: Ordering) -> T {
        match self.at(index) {
            // SAFETY: `at` gave a place inside the table; alignment was checked when the table was made.
            Some(p) => unsafe { T::load(p, order) },
            None => T::default(),
        }
    }

    /// Stores an item, unordered.
    #[inline(always)]
    pub fn store(&self, index: usize, value: T) {
        self.store_ordered(index, value, Ordering::Relaxed);
    }

    /// Stores an item; what was written before it is seen before it.
    #[inline(always)]
    pub fn store_release(&self, index: usize, value: T) {
        self.store_ordered(index, value, Ordering::Release);
    }

    #[inline(always)]
    fn store_ordered(&self, index: usize, value: T, order: Ordering) {
        if let Some(p) = self.at(index) {
            // SAFETY: as for `load_ordered`.
            unsafe { T::store(p, value, order) }
        }
    }

    /// Hints that the item will be used soon.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        kernel::prefetch_read(self.base.as_ptr().wrapping_add(index).cast());
    }

    /// Hints that the item will be written soon: its line is fetched and taken from who has it in one go.
    #[inline(always)]
    pub fn prefetch_write(&self, index: usize) {
        kernel::prefetch_write(self.base.as_ptr().wrapping_add(index).cast());
    }
}
