//! One frame: a private head and a reference to the rest.

use fabnic_memory::{Cursor, Map, Slice};
use fabnic_wire::Offload;

use crate::DropReason;

/// Private bytes kept free before the head: what tags and tunnel headers are pushed into.
pub const HEADROOM: usize = 64;
/// Bytes of a frame that become private when it is received; a frame that is not longer is private as a whole.
pub const HEAD: usize = 128;
/// Private bytes in all: a stage that must see more than [`HEAD`] pulls up to the end.
pub(crate) const PRIVATE: usize = 256;
/// The longest header that a receiver wants before a frame in one piece with it.
pub const HEADER_ROOM: usize = 12;
/// The longest frame: 64 KiB of IP behind an Ethernet header and two tags.
pub const MAX_FRAME: u32 = 65535 + 14 + 8;

/// One frame of a [`crate::Burst`].
///
/// ```text
///   bytes   |...headroom...|<header>|<- head ->|...|         private
///                          ^HEADROOM           ^end
///   rest    |skip|-------|  |------------|  |--|             slices of the sender's memory
/// ```
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Frame {
    len: u32,
    start: u16,
    end: u16,
    /// What is unusual about it, in one look: [`REST`], [`SHORT`], [`MOVED`], [`MARKED`], [`OFFLOAD`], [`PCP`]. What
    /// belongs to a bit that is not set means nothing: it is not even reset.
    unusual: u8,
    reason: DropReason,
    pcp: u8,
    offload: Offload,
    first: u32,
    count: u32,
    skip: u32,
    bytes: [u8; PRIVATE],
}

/// Not private as a whole: `first`, `count` and `skip` say where the rest lies.
const REST: u8 = 1;
/// Fewer than [`SHORTEST_START`] private bytes.
const SHORT: u8 = 2;
/// Private bytes were put in or taken out or pulled up.
const MOVED: u8 = 4;
/// Not to be delivered, for `reason`.
const MARKED: u8 = 8;
/// Something is left to be done, or known of a checksum: `offload`.
const OFFLOAD: u8 = 16;
/// The tag that it leaves with has the priority `pcp`, whatever ports say.
const PCP: u8 = 32;

/// Private bytes that a frame must have for [`Frame::plain_start`].
pub(crate) const SHORTEST_START: usize = 16;

impl Frame {
    pub(crate) const EMPTY: Frame = Frame {
        len: 0,
        start: HEADROOM as u16,
        end: HEADROOM as u16,
        unusual: SHORT,
        reason: DropReason::Runt,
        pcp: 0,
        offload: Offload::PLAIN,
        first: 0,
        count: 0,
        skip: 0,
        bytes: [0; PRIVATE],
    };

    /// Whole length in bytes, head and rest.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a frame of no bytes is a runt, not an empty collection")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The private bytes: the first ones of the frame.
    #[inline(always)]
    pub fn head(&self) -> &[u8] {
        self.bytes.get(usize::from(self.start)..usize::from(self.end)).unwrap_or(&[])
    }

    /// The private bytes, to be changed.
    #[inline(always)]
    pub fn head_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(usize::from(self.start)..usize::from(self.end)).unwrap_or(&mut [])
    }

    /// Why the frame must not be delivered, if so.
    #[inline(always)]
    pub fn marked(&self) -> Option<DropReason> {
        (self.unusual & MARKED != 0).then_some(self.reason)
    }

    /// Says that the frame must not be delivered, and why.
    pub fn mark(&mut self, reason: DropReason) {
        self.reason = reason;
        self.unusual |= MARKED;
    }

    /// The priority code point (IEEE 802.1Q, section 9.6) that a tag of the frame leaves with, if it was said for this frame.
    #[inline(always)]
    pub fn pcp(&self) -> Option<u8> {
        (self.unusual & PCP != 0).then_some(self.pcp)
    }

    /// Says which priority code point, 0 to 7, a tag of the frame leaves with.
    pub fn set_pcp(&mut self, pcp: u8) {
        self.pcp = pcp & 7;
        self.unusual |= PCP;
    }

    /// What the sender left to be done.
    #[inline(always)]
    pub fn offload(&self) -> Offload {
        if self.unusual & OFFLOAD == 0 { Offload::PLAIN } else { self.offload }
    }

    /// Says what is left to be done.
    pub fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
        self.unusual =
            if offload == Offload::PLAIN { self.unusual & !OFFLOAD } else { self.unusual | OFFLOAD };
    }

    /// Moves the offsets in what is left to be done with the headers: a tag came or went.
    pub fn shift_offload(&mut self, by: i16) {
        if self.unusual & OFFLOAD != 0 {
            self.offload.shift(by);
        }
    }

    /// The first 16 bytes of a frame that nothing is unusual about but its length: as it was received, not marked, nothing
    /// left to be done. For the parser's fast path.
    #[inline(always)]
    pub fn plain_start(&self) -> Option<&[u8; 16]> {
        if self.unusual & !REST == 0 { self.bytes.get(HEADROOM..)?.first_chunk() } else { None }
    }

    /// The first `N` bytes, at most [`HEAD`], of a frame that has so many and is otherwise as for [`Frame::plain_start`].
    #[inline(always)]
    pub fn plain_chunk<const N: usize>(&self) -> Option<&[u8; N]> {
        const { assert!(N <= HEAD) };
        if self.unusual & !REST == 0 && self.len as usize >= N {
            self.bytes.get(HEADROOM..)?.first_chunk()
        } else {
            None
        }
    }

    /// The whole frame, if it is private as a whole and nothing is unusual about it.
    #[inline(always)]
    pub fn plain_whole(&self) -> Option<&[u8]> {
        if self.unusual == 0 { self.bytes.get(HEADROOM..)?.get(..self.len as usize) } else { None }
    }

    /// Whether all of it is private.
    #[inline(always)]
    pub fn is_private(&self) -> bool {
        self.unusual & REST == 0
    }

    /// Bytes that are not private.
    #[inline(always)]
    pub fn rest_len(&self) -> u32 {
        self.len.saturating_sub(u32::from(self.end.wrapping_sub(self.start)))
    }

    /// The bytes that are not private, as places in the sender's memory; `slices` are the burst's.
    #[inline]
    pub fn rest<'a>(&self, slices: &'a [Slice]) -> Cursor<'a> {
        let (own, skip) = self.rest_slices(slices);
        let mut cursor = Cursor::new(own);
        cursor.skip(skip);
        cursor
    }

    /// The slices that the rest begins in, and how many of their first bytes do not belong to it.
    #[inline]
    pub fn rest_slices<'a>(&self, slices: &'a [Slice]) -> (&'a [Slice], u32) {
        if self.is_private() {
            return (&[], 0);
        }
        let first = self.first as usize;
        (slices.get(first..first.saturating_add(self.count as usize)).unwrap_or(&[]), self.skip)
    }

    /// Makes it a frame of `len` bytes of which `head` are private, and gives the room for `header` bytes of a sender's
    /// own header followed by the head.
    #[inline(always)]
    pub(crate) fn reset(&mut self, len: u32, header: usize, head: usize) -> &mut [u8] {
        self.len = len;
        self.start = HEADROOM as u16;
        let head = head.min(HEAD);
        self.end = (HEADROOM + head) as u16;
        self.unusual = (u8::from(len as usize > head) * REST) | (u8::from(head < SHORTEST_START) * SHORT);
        self.bytes.get_mut(HEADROOM - header.min(HEADER_ROOM)..HEADROOM + head).unwrap_or(&mut [])
    }

    /// Says where the rest lies: behind the first `skip` bytes of the `count` slices from `first` on.
    #[inline(always)]
    pub(crate) fn set_rest(&mut self, first: usize, count: usize, skip: usize) {
        (self.first, self.count, self.skip) = (first as u32, count as u32, skip as u32);
    }

    /// The sender's header that [`crate::Burst::push`] was told of.
    #[inline(always)]
    pub fn sender_header(&self) -> &[u8; HEADER_ROOM] {
        match self.bytes.get(HEADROOM - HEADER_ROOM..).and_then(<[u8]>::first_chunk) {
            Some(header) => header,
            None => &[0; HEADER_ROOM],
        }
    }

    /// Puts `header` before the head and gives both as one run: what a receiver that wants a header of its own writes.
    /// The headroom's last bytes are overwritten, the frame is unchanged.
    #[inline(always)]
    pub fn with_header(&mut self, header: &[u8; HEADER_ROOM]) -> &[u8] {
        let start = usize::from(self.start);
        let Some(from) = start.checked_sub(HEADER_ROOM) else { return &[] };
        if let Some(room) = self.bytes.get_mut(from..).and_then(<[u8]>::first_chunk_mut) {
            *room = *header;
        }
        self.bytes.get(from..usize::from(self.end)).unwrap_or(&[])
    }

    /// Opens `n` bytes after the first `at` private bytes, by moving those forward into the headroom, and gives them.
    /// `None`, and nothing changed, if there is no such place or no room.
    pub fn insert(&mut self, at: usize, n: usize) -> Option<&mut [u8]> {
        let start = usize::from(self.start);
        let new_start = start.checked_sub(n).filter(|new| *new >= HEADER_ROOM)?;
        if at > self.head().len() {
            return None;
        }
        self.bytes.copy_within(start..start + at, new_start);
        self.start = u16::try_from(new_start).ok()?;
        self.unusual |= MOVED;
        self.len = self.len.saturating_add(u32::try_from(n).ok()?);
        self.bytes.get_mut(new_start + at..new_start + at + n)
    }

    /// Takes `n` bytes out after the first `at`. `false`, and nothing changed, if they are not all private.
    pub fn remove(&mut self, at: usize, n: usize) -> bool {
        let start = usize::from(self.start);
        let Some(end) = at.checked_add(n).filter(|end| *end <= self.head().len()) else { return false };
        let (Ok(by), Ok(by_len)) = (u16::try_from(n), u32::try_from(n)) else { return false };
        self.bytes.copy_within(start..start + at, start + end - at);
        self.start += by;
        self.unusual |= MOVED;
        self.len = self.len.saturating_sub(by_len);
        true
    }

    /// Makes at least `want` bytes private, if the frame has them and the room is enough; gives the head.
    pub fn pull(&mut self, want: usize, map: &Map, slices: &[Slice]) -> &[u8] {
        let have = usize::from(self.end - self.start);
        let more = want.min(self.len as usize).saturating_sub(have).min(PRIVATE - usize::from(self.end));
        if more > 0 {
            let mut rest = self.rest(slices);
            let end = usize::from(self.end);
            if let Some(room) = self.bytes.get_mut(end..end + more) {
                let got = rest.read(map, room);
                self.end += u16::try_from(got).unwrap_or(0);
                self.skip += u32::try_from(got).unwrap_or(0);
                self.unusual |= MOVED;
                if self.rest_len() == 0 {
                    self.unusual &= !REST;
                }
            }
        }
        self.head()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fabnic_memory::{Hint, Map};

    use crate::{Burst, Frame, HEAD};

    fn burst_of(bytes: &[u8], split: &[u32]) -> (Burst, Arc<Map>) {
        let (map, _) = Map::anonymous(0x20000).unwrap();
        let mut burst = Burst::new();
        burst.begin(&map);
        let (mut at, mut done) = (0x1000_u64, 0_usize);
        let cuts = split.iter().map(|n| *n as usize).chain([usize::MAX]);
        for n in cuts {
            let n = n.min(bytes.len() - done);
            let slice = map.translate(at, n as u32, &mut Hint::default()).unwrap();
            map.write(&slice, 0, &bytes[done..done + n]);
            burst.slices_mut().push(slice);
            at += n as u64 + 100;
            done += n;
        }
        let count = burst.slices().len();
        burst.push(0, count, 12, bytes.len() as u32 - 12).unwrap();
        (burst, map)
    }

    fn whole(burst: &Burst) -> Vec<u8> {
        let mut bytes = vec![0; burst.frames()[0].len() as usize];
        assert_eq!(burst.copy_out(0, &mut bytes), bytes.len());
        bytes
    }

    #[test]
    fn a_frame_is_what_its_sender_wrote_however_it_is_split() {
        let bytes: Vec<u8> = (0..3000_u32).map(|i| (i * 31 + i / 256) as u8).collect();
        for len in [12 + 14, 12 + 60, 12 + 128, 12 + 129, 3000] {
            for split in [&[][..], &[12], &[5, 7], &[12, 100], &[13, 0, 1, 300], &[20]] {
                let (mut burst, map) = burst_of(&bytes[..len], split);
                assert_eq!(burst.frames()[0].sender_header()[..], bytes[..12]);
                assert_eq!(burst.frames()[0].head().len(), (len - 12).min(HEAD));
                assert_eq!(whole(&burst), bytes[12..len]);
                let (frame, slices, source) = burst.frame_and_source(0).unwrap();
                assert_eq!(source.id(), map.id());
                let head = frame.pull(150, source, slices).len();
                assert_eq!(head, (len - 12).min(150));
                assert_eq!(whole(&burst), bytes[12..len]);
            }
        }
    }

    #[test]
    fn bytes_are_put_in_and_taken_out_of_the_head() {
        let bytes: Vec<u8> = (0..400_u32).map(|i| i as u8).collect();
        let (mut burst, _map) = burst_of(&bytes, &[12]);
        let frame: &mut Frame = &mut burst.frames_mut()[0];
        frame.insert(12, 4).unwrap().copy_from_slice(b"tag!");
        let mut expected = bytes[12..24].to_vec();
        expected.extend(b"tag!");
        expected.extend(&bytes[24..]);
        assert_eq!(whole(&burst), expected);
        let frame = &mut burst.frames_mut()[0];
        assert!(frame.remove(12, 4));
        assert_eq!(whole(&burst), bytes[12..]);
        let frame = &mut burst.frames_mut()[0];
        assert!(!frame.remove(120, 9), "not private");
        assert!(frame.insert(200, 4).is_none(), "no such place");
        let room = (0..100).take_while(|_| frame.insert(12, 4).is_some()).count();
        assert_eq!(room, (crate::HEADROOM - crate::HEADER_ROOM) / 4, "room for a receiver's header stays");
        let header = [9; crate::HEADER_ROOM];
        let run = frame.with_header(&header).to_vec();
        assert_eq!(run[..12], header);
        assert_eq!(run[12..], *frame.head());
    }
}
