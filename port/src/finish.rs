//! Finishing in software what a receiver cannot take: partial checksums and large frames.
//!
//! A frame that a receiver takes as it is goes untouched. For any other, [`finish`] gives the receiver's side one
//! [`Piece`] after the other, each a frame of its own. A piece is written payload first, because its checksum is summed
//! up while the payload is copied, and its headers, with the checksum, last:
//!
//! ```text
//!   copy_payload / read_payload  -> Sum      one pass over the bytes
//!   write_headers(out, Sum)      -> Offload  what the receiver is told of the piece
//! ```
//!
//! The frame itself is not changed: the next receiver may take it whole.

use fabnic_memory::{Cursor, Map, Slice};
use fabnic_wire::checksum::{self, Sum};
use fabnic_wire::layers::Network;
use fabnic_wire::offload::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use fabnic_wire::segment::{Segment, Segmentation};
use fabnic_wire::{Layers, Offload};

use crate::Frame;

/// The most bytes that [`Piece::write_headers`] writes.
pub const HEADERS: usize = crate::frame::PRIVATE;

/// What a receiver takes unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// Partial checksums. Without it nothing below counts.
    pub csum: bool,
    /// Large TCP frames over IPv4.
    pub tso4: bool,
    /// Large TCP frames over IPv6.
    pub tso6: bool,
    /// Large TCP frames with CWR set.
    pub ecn: bool,
    /// Large UDP frames over IPv4.
    pub uso4: bool,
    /// Large UDP frames over IPv6.
    pub uso6: bool,
}

impl Accepts {
    /// Everything.
    pub const ALL: Accepts =
        Accepts { csum: true, tso4: true, tso6: true, ecn: true, uso4: true, uso6: true };

    /// Whether a frame with this offload and these first bytes can be taken as it is.
    #[inline]
    pub fn takes(&self, offload: &Offload, head: &[u8]) -> bool {
        offload.is_plain() || (self.csum && self.takes_size(offload, head))
    }

    fn takes_size(&self, offload: &Offload, head: &[u8]) -> bool {
        let ecn = offload.gso_type & GSO_ECN == 0 || self.ecn;
        match offload.gso_kind() {
            GSO_NONE => true,
            GSO_TCPV4 => self.tso4 && ecn,
            GSO_TCPV6 => self.tso6 && ecn,
            // The type does not say over what.
            GSO_UDP_L4 if self.uso4 == self.uso6 => self.uso4,
            GSO_UDP_L4 => match Layers::of(head).and_then(|layers| layers.ip).map(|ip| ip.network) {
                Some(Network::V4) => self.uso4,
                Some(Network::V6) => self.uso6,
                None => false,
            },
            _ => false,
        }
    }
}

/// The frame's offload contradicts its bytes: it cannot be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame cannot be finished in software")]
pub struct CannotFinish;

/// One frame that a receiver gets.
#[derive(Debug)]
pub struct Piece<'a> {
    work: Work<'a>,
    /// The part of the payload that is private.
    private: &'a [u8],
    /// The part of the payload that is in the sender's memory: so many bytes from the cursor on.
    rest: Cursor<'a>,
    rest_len: u32,
    source: &'a Map,
}

#[derive(Debug)]
enum Work<'a> {
    /// All headers stay as they are; the payload is what is not private.
    Keep { head: &'a [u8], offload: Offload },
    /// The checksum is to be finished; the payload is what is not private.
    Checksum { head: &'a [u8], offload: Offload },
    /// A segment with a partial or a whole checksum.
    Segment { segment: Segment<'a>, header_len: usize, partial: bool },
}

impl Piece<'_> {
    /// Bytes of the piece as a frame.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "no piece is empty")]
    pub fn len(&self) -> usize {
        self.header_len() + self.private.len() + self.rest_len as usize
    }

    /// Bytes that [`Piece::write_headers`] writes; the payload follows them.
    #[inline]
    pub fn header_len(&self) -> usize {
        match &self.work {
            Work::Keep { head, .. } | Work::Checksum { head, .. } => head.len(),
            Work::Segment { header_len, .. } => *header_len,
        }
    }

    fn is_summed(&self) -> bool {
        match self.work {
            Work::Keep { .. } => false,
            Work::Checksum { .. } => true,
            Work::Segment { partial, .. } => !partial,
        }
    }

    /// Copies the payload to `to`, in one pass with its sum if that is needed. `None` if not all of it fits.
    pub fn copy_payload(&self, to: &mut Cursor<'_>, map: &Map) -> Option<Sum> {
        let mut rest = self.rest;
        if to.write(map, self.private) != self.private.len() {
            return None;
        }
        if !self.is_summed() {
            let done = to.copy_from(map, self.source, &mut rest, self.rest_len);
            return (done == self.rest_len).then_some(Sum::ZERO);
        }
        let (done, sum) = to.copy_sum_from(map, self.source, &mut rest, self.rest_len);
        let sum = Sum::from_memory_order(sum).at(self.private.len());
        (done == self.rest_len).then_some(Sum::of(self.private) + sum)
    }

    /// Reads the payload into private memory, with its sum. `None` if `to` is not exactly as long.
    pub fn read_payload(&self, to: &mut [u8]) -> Option<Sum> {
        let (private, rest) = to.split_at_mut_checked(self.private.len())?;
        private.copy_from_slice(self.private);
        let mut from = self.rest;
        if rest.len() != self.rest_len as usize || from.read(self.source, rest) != rest.len() {
            return None;
        }
        Some(if self.is_summed() { Sum::of(to) } else { Sum::ZERO })
    }

    /// Writes the headers into the first [`Piece::header_len`] bytes of `out` and gives what the receiver must be told.
    /// `payload` is the sum that the copy gave.
    ///
    /// # Errors
    /// `out` is too short, or the offload contradicts the bytes.
    pub fn write_headers(&self, out: &mut [u8], payload: Sum) -> Result<Offload, CannotFinish> {
        match &self.work {
            Work::Keep { head, offload } => {
                out.get_mut(..head.len()).ok_or(CannotFinish)?.copy_from_slice(head);
                Ok(*offload)
            }
            Work::Checksum { head, offload } => {
                let out = out.get_mut(..head.len()).ok_or(CannotFinish)?;
                out.copy_from_slice(head);
                checksum::finish(out, offload, payload).map_err(|_| CannotFinish)?;
                Ok(Offload::PLAIN)
            }
            Work::Segment { segment, partial: true, .. } => {
                segment.write_partial(out).map_err(|_| CannotFinish)
            }
            Work::Segment { segment, .. } => {
                segment.write_complete(out, payload).map_err(|_| CannotFinish)?;
                Ok(Offload::PLAIN)
            }
        }
    }
}

/// Gives the frames that a receiver gets instead of `frame`, in order: the frame itself if it takes it. `slices` and
/// `source` are those of the frame's burst.
///
/// # Errors
/// The first that `each` gives, or [`CannotFinish`].
pub fn finish<E: From<CannotFinish>>(
    frame: &Frame,
    slices: &[Slice],
    source: &Map,
    accepts: &Accepts,
    mut each: impl FnMut(&Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (head, offload) = (frame.head(), frame.offload());
    let rest = frame.rest(slices);
    let whole = |work| Piece { work, private: &[], rest, rest_len: frame.rest_len(), source };
    if accepts.takes(&offload, head) {
        return each(&whole(Work::Keep { head, offload }));
    }
    if !offload.is_gso() {
        return each(&whole(Work::Checksum { head, offload }));
    }
    let segmentation = Segmentation::new(head, frame.len() as usize, &offload).map_err(|_| CannotFinish)?;
    let header_len = segmentation.header_len();
    let mut rest = rest;
    for segment in segmentation.segments() {
        let range = segment.payload();
        // What of the payload is private, and what is not.
        let private = head.get(range.start.min(head.len())..range.end.min(head.len())).unwrap_or(&[]);
        let rest_len = u32::try_from(range.len() - private.len()).map_err(|_| CannotFinish)?;
        let work = Work::Segment { segment, header_len, partial: accepts.csum };
        each(&Piece { work, private, rest, rest_len, source })?;
        rest.skip(rest_len);
    }
    Ok(())
}
