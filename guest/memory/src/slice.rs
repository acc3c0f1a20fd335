//! Checked runs of guest bytes, and the copies between them.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::kernel;
use crate::map::Map;

/// The longest run that one [`Slice`] can hold: 16 MiB less one byte. Longer buffers become several slices.
pub const MAX_SLICE: u32 = (1 << 24) - 1;

/// A run of bytes that lay inside one region of one [`Map`] when it was made.
///
/// It is two words, `Copy`, and says which map it came from: used with another map it is as if it were empty. It keeps
/// nothing alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    ptr: NonNull<u8>,
    /// Map id in the upper 40 bits, length in the lower 24.
    tag: u64,
}

// SAFETY: a slice is an address and a number. It is only dereferenced together with the map it came from, which is Sync.
unsafe impl Send for Slice {}
// SAFETY: as above.
unsafe impl Sync for Slice {}

impl Default for Slice {
    fn default() -> Slice {
        Slice::EMPTY
    }
}

impl Slice {
    /// No bytes of no map.
    pub const EMPTY: Slice = Slice { ptr: NonNull::dangling(), tag: 0 };

    /// `ptr` must be valid for `len` bytes for as long as the map with this id lives; `len` is at most [`MAX_SLICE`].
    #[inline(always)]
    pub(crate) fn new(ptr: NonNull<u8>, len: u32, map: u64) -> Slice {
        debug_assert!(len <= MAX_SLICE);
        Slice { ptr, tag: (map << 24) | u64::from(len) }
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        (self.tag & 0xff_ffff) as u32
    }

    /// Whether it holds no byte.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part from `at` on, at most `len` bytes of it; empty where the slice ends before.
    #[inline(always)]
    pub fn part(&self, at: u32, len: u32) -> Slice {
        let at = at.min(self.len());
        let len = len.min(self.len() - at);
        // SAFETY: `at` is at most the length, so the address stays within or one past the run.
        let ptr = unsafe { self.ptr.add(at as usize) };
        Slice { ptr, tag: (self.tag & !0xff_ffff) | u64::from(len) }
    }

    #[inline(always)]
    fn map_id(&self) -> u64 {
        self.tag >> 24
    }

    #[inline(always)]
    pub(crate) fn address(&self) -> usize {
        self.ptr.as_ptr() as usize
    }
}

impl Map {
    /// Whether the slice came from this map.
    #[inline(always)]
    pub fn owns(&self, slice: &Slice) -> bool {
        slice.map_id() == self.id()
    }

    /// Copies the slice's bytes from `at` on into `to`; gives how many there were. None for a slice of another map.
    #[inline(always)]
    pub fn read(&self, slice: &Slice, at: u32, to: &mut [u8]) -> usize {
        self.reach().read(slice, at, to)
    }

    /// Copies `from` to the slice's bytes from `at` on; gives how many fitted. None for a slice of another map.
    #[inline(always)]
    pub fn write(&self, slice: &Slice, at: u32, from: &[u8]) -> usize {
        self.reach().write(slice, at, from)
    }

    /// What a loop over many slices needs of the map, held ready: it is not loaded anew for each.
    #[inline(always)]
    pub fn reach(&self) -> Reach<'_> {
        Reach { tag: self.id() << 24, _map: PhantomData }
    }

    /// Hints that the slice's first bytes will be used soon.
    #[inline(always)]
    pub fn prefetch(&self, slice: &Slice) {
        kernel::prefetch_read(slice.ptr.as_ptr());
    }

    /// Hints that the bytes around `at` will be used soon.
    #[inline(always)]
    pub fn prefetch_at(&self, slice: &Slice, at: u32) {
        kernel::prefetch_read(slice.ptr.as_ptr().wrapping_add(at as usize));
    }

    /// Hints that the bytes around `at` will be written soon.
    #[inline(always)]
    pub fn prefetch_write_at(&self, slice: &Slice, at: u32) {
        kernel::prefetch_write(slice.ptr.as_ptr().wrapping_add(at as usize));
    }
}

/// The right to touch one map's bytes, for as long as the map is borrowed: [`Map::reach`].
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// The map's id, where slices have it.
    tag: u64,
    _map: PhantomData<&'a Map>,
}

impl Reach<'_> {
    /// Length of a slice of this map. Of another map's slice some number above [`MAX_SLICE`], so that one comparison with
    /// what is wanted tells both.
    #[inline(always)]
    pub fn len_or_more(self, slice: &Slice) -> u64 {
        // With the map's own number in the upper bits only the length is left.
        slice.tag ^ self.tag
    }

    /// Bytes of the slice from `at` on; 0 of another map's slice.
    #[inline(always)]
    fn room(self, slice: &Slice, at: u32) -> usize {
        let len = self.len_or_more(slice);
        if len > u64::from(MAX_SLICE) { 0 } else { (len as u32).saturating_sub(at) as usize }
    }

    /// As [`Map::read`].
    #[inline(always)]
    pub fn read(self, slice: &Slice, at: u32, to: &mut [u8]) -> usize {
        let n = to.len().min(self.room(slice, at));
        // SAFETY: the map lives, because it is borrowed, and is the slice's own, so [at, at + n) of it is mapped; `to` is
        // private and holds n.
        unsafe { kernel::copy(to.as_mut_ptr(), slice.ptr.as_ptr().wrapping_add(at as usize), n) };
        n
    }

    /// Fills `to` with the slice's first bytes. `false`, and nothing is read, if there are fewer or the slice is of
    /// another map.
    #[inline(always)]
    pub fn read_exact(self, slice: &Slice, to: &mut [u8]) -> bool {
        if self.room(slice, 0) < to.len() {
            return false;
        }
        // SAFETY: as for `read`.
        unsafe { kernel::copy(to.as_mut_ptr(), slice.ptr.as_ptr(), to.len()) };
        true
    }

    /// As [`Map::write`].
    #[inline(always)]
    pub fn write(self, slice: &Slice, at: u32, from: &[u8]) -> usize {
        let n = from.len().min(self.room(slice, at));
        // SAFETY: as for `read`, the other way.
        unsafe { kernel::copy(slice.ptr.as_ptr().wrapping_add(at as usize), from.as_ptr(), n) };
        n
    }

    /// Writes `header` to the slice's beginning and `body` behind it. `false`, and nothing is written, if they do not fit
    /// or the slice is of another map.
    #[inline(always)]
    pub fn write_both<const N: usize>(self, slice: &Slice, header: &[u8; N], body: &[u8]) -> bool {
        if self.room(slice, 0) < N + body.len() {
            return false;
        }
        // SAFETY: as for `write`: [0, N + body.len()) of the slice is mapped, both sources are private.
        unsafe {
            let to = slice.ptr.as_ptr();
            core::ptr::copy_nonoverlapping(header.as_ptr(), to, N);
            kernel::copy(to.add(N), body.as_ptr(), body.len());
        }
        true
    }
}

/// Copies as much of `from` as fits into `to`, guest to guest, each byte read and written once; gives how many bytes.
#[inline(always)]
pub fn copy(from_map: &Map, from: &Slice, to_map: &Map, to: &Slice) -> u32 {
    if !from_map.owns(from) || !to_map.owns(to) {
        return 0;
    }
    let n = from.len().min(to.len());
    if from_map.id() == to_map.id() {
        // One guest's own memory: source and target may be the same bytes.
        // SAFETY: both runs are mapped for n bytes; `ptr::copy` allows overlap.
        unsafe { core::ptr::copy(from.ptr.as_ptr(), to.ptr.as_ptr(), n as usize) };
    } else {
        // SAFETY: both runs are mapped for n bytes, in mappings of different maps, which share no addresses... unless
        // one map was made from the other and shares its mappings: then `from_map` and `to_map` have different ids but
        // may alias, which is why that case is told apart here.
        unsafe {
            if overlaps(from.address(), to.address(), n as usize) {
                core::ptr::copy(from.ptr.as_ptr(), to.ptr.as_ptr(), n as usize);
            } else {
                kernel::copy(to.ptr.as_ptr(), from.ptr.as_ptr(), n as usize);
            }
        }
    }
    n
}

#[inline(always)]
fn overlaps(a: usize, b: usize, n: usize) -> bool {
    a.abs_diff(b) < n
}

/// As [`copy`], and adds up the copied bytes as 16-bit words (RFC 1071, not folded, in memory order). Each source byte
/// is read once: what is summed is what is written.
#[inline]
pub fn copy_sum(from_map: &Map, from: &Slice, to_map: &Map, to: &Slice) -> (u32, u64) {
    if !from_map.owns(from) || !to_map.owns(to) {
        return (0, 0);
    }
    let n = from.len().min(to.len());
    // SAFETY: both maps live, because they are borrowed, and the slices are their own, so both runs are mapped for n bytes;
    // they may overlap.
    let sum = unsafe { kernel::copy_sum(to.ptr.as_ptr(), from.ptr.as_ptr(), n as usize) };
    (n, sum)
}

/// A place in a list of slices, for reading or writing it piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    slices: &'a [Slice],
    at: u32,
}

impl<'a> Cursor<'a> {
    /// At the first byte of `slices`.
    #[inline]
    pub fn new(slices: &'a [Slice]) -> Cursor<'a> {
        Cursor { slices, at: 0 }
    }

    /// Bytes from here to the end.
    pub fn remaining(&self) -> u64 {
        let all: u64 = self.slices.iter().map(|s| u64::from(s.len())).sum();
        all.saturating_sub(u64::from(self.at))
    }

    /// Moves on by `n` bytes, to the end at most.
    #[inline]
    pub fn skip(&mut self, mut n: u32) {
        while let Some(here) = self.here() {
            if n < here.len() {
                self.at += n;
                return;
            }
            n -= here.len();
            self.next_slice();
        }
    }

    /// What is left of the slice that the cursor is in; `None` at the end. Empty slices are passed over.
    #[inline]
    pub fn here(&mut self) -> Option<Slice> {
        while let Some(first) = self.slices.first() {
            if self.at < first.len() {
                return Some(first.part(self.at, MAX_SLICE));
            }
            self.next_slice();
        }
        None
    }

    #[inline]
    fn next_slice(&mut self) {
        self.slices = self.slices.get(1..).unwrap_or(&[]);
        self.at = 0;
    }

    /// Writes `bytes`; gives how many fitted.
    #[inline]
    pub fn write(&mut self, map: &Map, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(here) = self.here() else { break };
            let n = map.write(&here, 0, rest);
            if n == 0 {
                break;
            }
            self.at += n as u32;
            rest = rest.get(n..).unwrap_or(&[]);
        }
        bytes.len() - rest.len()
    }

    /// Reads into `to`; gives how many bytes there were.
    #[inline]
    pub fn read(&mut self, map: &Map, to: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(here) = self.here() else { break };
            let n = map.read(&here, 0, rest);
            if n == 0 {
                break;
            }
            self.at += n as u32;
            done += n;
        }
        done
    }

    /// Copies up to `n` bytes from another cursor, guest to guest; gives how many.
    ///
    /// One loop however the pieces of both sides lie to each other: what a frame in two pieces costs that fills 43 buffers is
    /// nearly the copies alone.
    #[inline]
    pub fn copy_from(&mut self, map: &Map, from_map: &Map, from: &mut Cursor<'_>, n: u32) -> u32 {
        let (reach, from_reach) = (map.reach(), from_map.reach());
        // Copies of the cursors, which need not be stored around each call of the copy.
        let (mut source, mut target, mut left) = (*from, *self, n as usize);
        while left > 0 {
            let (Some(read), Some(write)) = (source.slices.first(), target.slices.first()) else { break };
            let (has, room) = (from_reach.room(read, source.at), reach.room(write, target.at));
            let part = left.min(has).min(room);
            // SAFETY: both maps live, because they are borrowed, and the slices are their own if there is room at all, so
            // both runs of `part` bytes are mapped. They may overlap: in one guest's memory, or in mappings that two maps
            // share.
            unsafe {
                let to = write.ptr.as_ptr().wrapping_add(target.at as usize);
                core::ptr::copy(read.ptr.as_ptr().wrapping_add(source.at as usize).cast_const(), to, part);
            }
            source.at += part as u32;
            target.at += part as u32;
            left -= part;
            let (is_read, is_full) = (part == has, part == room);
            if is_read && !source.leave(read) || is_full && !target.leave(write) {
                break;
            }
        }
        (*from, *self) = (source, target);
        n - left as u32
    }

    /// Goes on to the next slice, because there is nothing more in this one for its map. `false` if it only seems so: it is
    /// of another map.
    #[inline(always)]
    fn leave(&mut self, here: &Slice) -> bool {
        let is_done = self.at >= here.len();
        if is_done {
            self.next_slice();
        }
        is_done
    }

    /// As [`Cursor::copy_from`], with the sum of the bytes as 16-bit words (not folded, memory order), as if they began
    /// at an even offset.
    pub fn copy_sum_from(&mut self, map: &Map, from_map: &Map, from: &mut Cursor<'_>, n: u32) -> (u32, u64) {
        let (mut total, mut odd) = (0_u64, false);
        let done = self.transfer(from, n, |source, target| {
            let (done, sum) = copy_sum(from_map, source, map, target);
            // A piece that starts at an odd place has its bytes in the other half of each word (RFC 1071, section 2).
            total += if odd { swap_halves(sum) } else { sum };
            odd ^= done % 2 == 1;
            done
        });
        (done, total)
    }

    #[inline]
    fn transfer(
        &mut self,
        from: &mut Cursor<'_>,
        n: u32,
        mut step: impl FnMut(&Slice, &Slice) -> u32,
    ) -> u32 {
        let mut left = n;
        while left > 0 {
            let (Some(source), Some(target)) = (from.here(), self.here()) else { break };
            let done = step(&source.part(0, left), &target);
            if done == 0 {
                break;
            }
            from.at += done;
            self.at += done;
            left -= done;
        }
        n - left
    }
}

/// Folds to 16 bits and swaps the bytes.
fn swap_halves(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u64::from((sum as u16).swap_bytes())
}
