//! Up to [`BURST`] frames of one sender.

use std::sync::Arc;

use fabnic_memory::{Map, Reach, Slice};

use crate::frame::{Frame, HEAD, HEADER_ROOM, MAX_FRAME, SHORTEST_START};

/// The most frames in a burst.
pub const BURST: usize = 64;
/// The most slices that the frames of a burst lie in together; a burst ends early when a longest chain would not fit.
pub const MAX_SLICES: usize = 4096;

/// Up to [`BURST`] frames that one queue received: made once by each worker and filled again and again. Nothing is
/// allocated after [`Burst::new`].
#[derive(Debug)]
pub struct Burst {
    frames: Box<[Frame]>,
    len: usize,
    wanted: usize,
    slices: Vec<Slice>,
    source: Option<Arc<Map>>,
}

impl Default for Burst {
    fn default() -> Burst {
        Burst::new()
    }
}

impl Burst {
    /// Room for a burst.
    pub fn new() -> Burst {
        Burst {
            frames: vec![Frame::EMPTY; BURST].into_boxed_slice(),
            len: 0,
            wanted: BURST,
            slices: Vec::with_capacity(MAX_SLICES),
            source: None,
        }
    }

    /// Empties the burst for frames whose rest lies in `source`.
    #[inline]
    pub fn begin(&mut self, source: &Arc<Map>) {
        self.clear();
        if !self.source.as_ref().is_some_and(|held| Arc::ptr_eq(held, source)) {
            self.source = Some(Arc::clone(source));
        }
    }

    /// Empties the burst. What it held cannot be taken for another queue's.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.len = 0;
        self.slices.clear();
    }

    /// Empties the burst and lets go of the sender's memory.
    pub fn release(&mut self) {
        self.clear();
        self.source = None;
    }

    /// Number of frames.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no frame.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Frames that are wanted and not there yet.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.wanted.saturating_sub(self.len)
    }

    /// Says how many frames a queue should receive at most, from now on; at least 1 and at most [`BURST`]. A queue that has
    /// already taken more from its ring may bring them.
    #[inline]
    pub fn set_wanted(&mut self, frames: usize) {
        self.wanted = frames.clamp(1, BURST);
    }

    /// How many frames a queue should receive at most.
    #[inline(always)]
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// The list that senders put their slices into, before [`Burst::push`]. At most [`MAX_SLICES`] in all.
    #[inline(always)]
    pub fn slices_mut(&mut self) -> &mut Vec<Slice> {
        &mut self.slices
    }

    /// The slices that the frames lie in.
    #[inline(always)]
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// The memory that the slices lie in.
    #[inline(always)]
    pub fn source(&self) -> Option<&Arc<Map>> {
        self.source.as_ref()
    }

    /// The frames.
    #[inline(always)]
    pub fn frames(&self) -> &[Frame] {
        self.frames.get(..self.len).unwrap_or(&[])
    }

    /// The frames, to be changed.
    #[inline(always)]
    pub fn frames_mut(&mut self) -> &mut [Frame] {
        self.frames.get_mut(..self.len).unwrap_or(&mut [])
    }

    /// One frame, with what is needed to reach its rest: the slices and the map.
    #[inline(always)]
    pub fn frame_and_source(&mut self, index: usize) -> Option<(&mut Frame, &[Slice], &Map)> {
        let (frames, slices, source) = self.parts()?;
        Some((frames.get_mut(index)?, slices, source))
    }

    /// Adds a frame, as [`Filler::push`] does. `None` if the burst is full.
    #[inline(always)]
    pub fn push(&mut self, first: usize, count: usize, header: usize, len: u32) -> Option<&mut Frame> {
        self.filler()?.push(first, count, header, len)
    }

    /// What adds frame after frame from the slices that are there now. `None` of a burst without a sender's memory.
    #[inline(always)]
    pub fn filler(&mut self) -> Option<Filler<'_>> {
        let Burst { frames, len, slices, source, .. } = self;
        let free = frames.get_mut(*len..)?.iter_mut();
        let source = source.as_deref()?;
        Some(Filler { free, len, slices, source, reach: source.reach() })
    }

    /// Adds frames that lie in one slice each, side by side from slice `first` on, behind `HEADER` bytes of the sender's own
    /// (at most [`HEADER_ROOM`]): as long as `plain` says that the next is such a one, and it is neither too short for a
    /// look at its headers nor longer than [`MAX_FRAME`]. `look` sees each. Gives how many. The others are for
    /// [`Filler::push`].
    #[inline(always)]
    pub fn fill_run<const HEADER: usize>(
        &mut self,
        first: usize,
        plain: impl Iterator<Item = bool>,
        mut look: impl FnMut(&mut Frame),
    ) -> usize {
        let Some(reach) = self.source.as_deref().map(Map::reach) else { return 0 };
        let frames = self.frames.get_mut(self.len..).unwrap_or(&mut []);
        let slices = self.slices.get(first..).unwrap_or(&[]);
        let mut added = 0;
        for ((frame, slice), plain) in frames.iter_mut().zip(slices).zip(plain) {
            // Of another map's slice the length is beyond all bounds.
            let len = reach.len_or_more(slice).wrapping_sub(HEADER as u64);
            if !plain || !(SHORTEST_START as u64..=u64::from(MAX_FRAME)).contains(&len) {
                break;
            }
            let head = HEAD.min(len as usize);
            let room = frame.reset(len as u32, HEADER, head);
            if !reach.read_exact(slice, room) {
                break;
            }
            if len as usize > head {
                frame.set_rest(first + added, 1, HEADER + head);
            }
            look(frame);
            added += 1;
        }
        self.len += added;
        added
    }

    /// All that it takes to deliver frames: the frames, the slices that their rests lie in, and the memory of those.
    /// `None` of a burst without a sender's memory.
    #[inline(always)]
    pub fn parts(&mut self) -> Option<(&mut [Frame], &[Slice], &Map)> {
        let source = self.source.as_deref()?;
        Some((self.frames.get_mut(..self.len)?, &self.slices, source))
    }

    /// Adds a frame that is private as a whole (at most [`HEAD`] bytes), for ports without memory of a guest.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Option<&mut Frame> {
        let len = u32::try_from(bytes.len()).ok().filter(|len| *len as usize <= HEAD)?;
        let frame = self.frames.get_mut(self.len)?;
        self.len += 1;
        frame.reset(len, 0, bytes.len()).copy_from_slice(bytes);
        Some(frame)
    }

    /// Copies a whole frame, head and rest, to `to`; gives how many bytes there were. For captures and tests.
    pub fn copy_out(&self, index: usize, to: &mut [u8]) -> usize {
        let Some(frame) = self.frames().get(index) else { return 0 };
        let head = frame.head();
        let n = head.len().min(to.len());
        let (front, back) = to.split_at_mut(n);
        front.copy_from_slice(head.get(..n).unwrap_or(&[]));
        let rest = back.len().min(frame.rest_len() as usize);
        match (&self.source, back.get_mut(..rest)) {
            (Some(map), Some(back)) => n + frame.rest(&self.slices).read(map, back),
            _ => n,
        }
    }
}

/// Adds frames to a [`Burst`].
#[derive(Debug)]
pub struct Filler<'a> {
    free: core::slice::IterMut<'a, Frame>,
    len: &'a mut usize,
    slices: &'a [Slice],
    source: &'a Map,
    reach: Reach<'a>,
}

impl<'a> Filler<'a> {
    /// Adds a frame that lies in the `count` slices from `first` on, behind `header` bytes of the sender's own (at most
    /// [`HEADER_ROOM`]); `len` is without them. Header and head are copied here, once; the header can then be read with
    /// [`Frame::sender_header`]. `None` if the burst is full.
    #[inline(always)]
    pub fn push(&mut self, first: usize, count: usize, header: usize, len: u32) -> Option<&'a mut Frame> {
        let frame = self.free.next()?;
        *self.len += 1;
        let head = HEAD.min(len as usize);
        let header = header.min(HEADER_ROOM);
        let room = frame.reset(len, header, head);
        let mut got = room.len();
        // One piece, as senders of small frames have it.
        if count != 1 || !self.slices.get(first).is_some_and(|one| self.reach.read_exact(one, room)) {
            got = read_pieces(self.source, self.slices, first, count, room);
        }
        debug_assert_eq!(got, header + head, "the sender's slices are shorter than it said");
        frame.set_rest(first, count, got);
        Some(frame)
    }
}

#[inline(never)]
fn read_pieces(source: &Map, slices: &[Slice], first: usize, count: usize, to: &mut [u8]) -> usize {
    let own = slices.get(first..first.saturating_add(count)).unwrap_or(&[]);
    fabnic_memory::Cursor::new(own).read(source, to)
}
