//! Software segmentation (GSO): one large TCP or UDP frame becomes frames that any receiver takes.
//!
//! Large frames go from guest to guest whole. Only a receiver that did not negotiate them makes this necessary; then
//! the delivery asks for one segment after the other, writes its headers, and copies its part of the payload.
//!
//! ```text
//!   | headers | payload ............................ |   the frame, Offload { gso_size, .. }
//!              |--gso_size--|--gso_size--|---rest----|
//!   | headers' | part 0     |                            seq + 0,          CWR kept, FIN and PSH cleared
//!   | headers' | part 1     |                            seq + gso_size,   all three cleared
//!   | headers' | part 2     |                            seq + 2 gso_size, FIN and PSH kept
//! ```
//!
//! ```
//! # use fabnic_wire::{Offload, checksum::Sum, segment::Segmentation};
//! # fn deliver(frame: &[u8], offload: &Offload) -> Result<(), Box<dyn std::error::Error>> {
//! let segmentation = Segmentation::new(&frame[..frame.len().min(128)], frame.len(), offload)?;
//! for segment in segmentation.segments() {
//!     let mut out = [0; 2048];
//!     let payload = &frame[segment.payload()];
//!     // A receiver that finishes checksums itself gets `write_partial`, and the offload it returns.
//!     let len = segment.write_complete(&mut out, Sum::of(payload))?;
//!     out[len..segment.len()].copy_from_slice(payload);
//! }
//! # Ok(()) }
//! ```
//!
//! # What is changed in each segment
//! - IPv4: total length, identification (one more for each segment, also under DF, as Linux does: right for
//!   receivers that care and harmless for RFC 6864's atomic datagrams), header checksum. DF stays as it is.
//! - IPv6: payload length. Extension headers are repeated.
//! - TCP: sequence number, checksum; FIN and PSH stay only on the last segment, CWR only on the first (RFC 3168
//!   section 6.1.2: it answers one ECE). ECE and the ECN field of IP are repeated.
//! - UDP: length, checksum.
//!
//! # Invariants
//! - [`Segmentation::new`] validates; there are at least 2 and at most [`MAX_SEGMENTS`](crate::offload::MAX_SEGMENTS)
//!   segments, and none is longer than 65535 bytes of IP.
//! - The payload ranges are in order, touch each other and cover the payload.

use std::ops::Range;

use thiserror::Error;

use crate::{
    IpProtocol, Layers, Offload, OffloadError,
    bytes::{array, be16, put16},
    checksum::{Sum, pseudo_header},
    ip,
    layers::{IpLayer, Network},
    offload::NEEDS_CSUM,
    transport::TcpFlags,
};

/// A frame that cannot be segmented, or a segment that cannot be written.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// The offload contradicts the frame.
    #[error(transparent)]
    Offload(#[from] OffloadError),
    /// There is nothing to segment: the frame is one segment already.
    #[error("frame of {0} bytes is not larger than one segment")]
    NotLarge(usize),
    /// A segment would not fit an IP packet.
    #[error("gso_size {0} makes segments longer than an IP packet")]
    Oversize(u16),
    /// The caller's buffer is too short for the headers.
    #[error("segment headers of {needed} bytes do not fit a buffer of {room}")]
    Room {
        /// Bytes of headers.
        needed: usize,
        /// Bytes of the buffer.
        room: usize,
    },
}

/// A large frame, taken apart: what is the same for all its segments.
#[derive(Clone, Debug)]
pub struct Segmentation<'h> {
    headers: &'h [u8],
    frame_len: usize,
    gso_size: usize,
    l3: usize,
    ip: IpLayer,
    /// Of the IPv4 header without what changes.
    ip_sum: Sum,
    id: u16,
    /// Of the pseudo header without the length.
    pseudo_sum: Sum,
    /// Of the TCP or UDP header without what changes.
    l4_sum: Sum,
    seq: u32,
    /// TCP's data offset and flags.
    offset_flags: u16,
}

impl<'h> Segmentation<'h> {
    /// Takes a frame of `frame_len` bytes apart, of which `head` has at least all headers.
    ///
    /// # Errors
    /// The offload does not stand validation against these bytes, or there is only one segment.
    pub fn new(head: &'h [u8], frame_len: usize, offload: &Offload) -> Result<Self, SegmentError> {
        let offload = offload.validate(frame_len, head)?;
        if !offload.is_gso() {
            return Err(SegmentError::NotLarge(frame_len));
        }
        // Validation has seen both; the error is for the type checker.
        let gone = SegmentError::NotLarge(frame_len);
        let headers = head.get(..usize::from(offload.hdr_len)).ok_or(gone)?;
        let Some(Layers { l3, ip: Some(ip), .. }) = Layers::of(headers) else { return Err(gone) };
        let gso_size = usize::from(offload.gso_size);
        if headers.len() - usize::from(l3) + gso_size > usize::from(u16::MAX) {
            return Err(SegmentError::Oversize(offload.gso_size));
        }
        let mut segmentation = Segmentation {
            headers,
            frame_len,
            gso_size,
            l3: l3.into(),
            ip,
            ip_sum: Sum::ZERO,
            id: 0,
            pseudo_sum: Sum::ZERO,
            l4_sum: Sum::ZERO,
            seq: 0,
            offset_flags: 0,
        };
        segmentation.gather_sums().ok_or(gone)?;
        Ok(segmentation)
    }

    /// Bytes of headers before each segment's payload.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.headers.len()
    }

    /// Bytes of the longest segment's frame: all but perhaps the last have them.
    #[inline]
    pub const fn longest(&self) -> usize {
        self.headers.len() + self.gso_size
    }

    /// How many segments there are.
    #[inline]
    pub const fn count(&self) -> usize {
        self.payload_len().div_ceil(self.gso_size)
    }

    /// The segments, in order.
    #[inline]
    pub const fn segments(&self) -> Segments<'_> {
        Segments { of: self, offset: 0 }
    }

    #[inline]
    const fn payload_len(&self) -> usize {
        self.frame_len - self.headers.len()
    }

    fn gather_sums(&mut self) -> Option<()> {
        let (headers, l4) = (self.headers, usize::from(self.ip.l4));
        let word = |at| be16(headers, at).map(Sum::from_word);
        let field = l4 + usize::from(self.ip.protocol.checksum_offset()?);
        self.pseudo_sum = if self.ip.network == Network::V6 && ip::has_route(headers, self.l3) {
            // The sender knew the final destination; only the length in its sum is wrong for a segment.
            let len = u32::try_from(self.frame_len - l4).ok()?;
            word(field)? - Sum::from_word32(len)
        } else {
            pseudo_header(headers, u16::try_from(self.l3).ok()?, &self.ip, 0)?
        };
        if self.ip.network == Network::V4 {
            let header = Sum::of(headers.get(self.l3..l4)?);
            self.id = be16(headers, self.l3 + 4)?;
            self.ip_sum = header - word(self.l3 + 2)? - word(self.l3 + 4)? - word(self.l3 + 10)?;
        }
        let header = Sum::of(headers.get(l4..)?) - word(field)?;
        self.l4_sum = match self.ip.protocol {
            IpProtocol::TCP => {
                self.seq = u32::from_be_bytes(*array(headers, l4 + 4)?);
                self.offset_flags = be16(headers, l4 + 12)?;
                header - Sum::from_word32(self.seq) - Sum::from_word(self.offset_flags)
            }
            _ => header - word(l4 + 4)?,
        };
        Some(())
    }
}

/// An iterator over the segments of a frame.
#[derive(Clone, Debug)]
pub struct Segments<'s> {
    of: &'s Segmentation<'s>,
    offset: usize,
}

impl<'s> Iterator for Segments<'s> {
    type Item = Segment<'s>;

    #[inline]
    fn next(&mut self) -> Option<Segment<'s>> {
        let left = self.of.payload_len() - self.offset;
        if left == 0 {
            return None;
        }
        let segment = Segment { of: self.of, offset: self.offset, payload_len: left.min(self.of.gso_size) };
        self.offset += segment.payload_len;
        Some(segment)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.of.payload_len() - self.offset).div_ceil(self.of.gso_size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Segments<'_> {}

/// One segment.
#[derive(Copy, Clone, Debug)]
pub struct Segment<'s> {
    of: &'s Segmentation<'s>,
    offset: usize,
    payload_len: usize,
}

impl Segment<'_> {
    /// Where its payload lies in the large frame, counted from the frame's first byte.
    #[inline]
    pub const fn payload(&self) -> Range<usize> {
        let start = self.of.headers.len() + self.offset;
        start..start + self.payload_len
    }

    /// Bytes of its frame, headers and payload.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "no segment is empty")]
    pub const fn len(&self) -> usize {
        self.of.headers.len() + self.payload_len
    }

    /// Which one it is, from 0.
    #[inline]
    pub const fn index(&self) -> usize {
        self.offset / self.of.gso_size
    }

    /// The last one.
    #[inline]
    pub const fn is_last(&self) -> bool {
        self.offset + self.payload_len == self.of.payload_len()
    }

    /// Writes the headers with a partial checksum, for a receiver that finishes it, and returns the offload that goes
    /// with the segment. [`Segmentation::header_len`] bytes are written.
    ///
    /// # Errors
    /// `out` is too short.
    #[inline]
    pub fn write_partial(&self, out: &mut [u8]) -> Result<Offload, SegmentError> {
        let l4_len = self.l4_len();
        let (_, field) = self.write_all_but_checksum(out)?;
        let pseudo = self.of.pseudo_sum + Sum::from_word(l4_len);
        put16(out, field, pseudo.word());
        let csum_start = self.of.ip.l4;
        Ok(Offload {
            flags: NEEDS_CSUM,
            csum_start,
            csum_offset: self.of.ip.protocol.checksum_offset().unwrap_or(0),
            ..Offload::PLAIN
        })
    }

    /// Writes the headers with the whole checksum; `payload` is the sum of the bytes of [`Segment::payload`]. Returns
    /// how many bytes were written.
    ///
    /// # Errors
    /// `out` is too short.
    #[inline]
    pub fn write_complete(&self, out: &mut [u8], payload: Sum) -> Result<usize, SegmentError> {
        let l4_len = self.l4_len();
        let (changed, field) = self.write_all_but_checksum(out)?;
        let sum = self.of.pseudo_sum + Sum::from_word(l4_len) + self.of.l4_sum + changed + payload;
        let udp = self.of.ip.protocol == IpProtocol::UDP;
        put16(out, field, if udp { sum.udp_checksum() } else { sum.checksum() });
        Ok(self.of.headers.len())
    }

    /// Bytes of the L4 header and payload.
    #[inline]
    fn l4_len(&self) -> u16 {
        // `new` has seen that the longest fits.
        u16::try_from(self.len() - usize::from(self.of.ip.l4)).unwrap_or(u16::MAX)
    }

    /// Returns the sum of what is this segment's own in the L4 header, and the place of the checksum.
    #[inline]
    fn write_all_but_checksum(&self, out: &mut [u8]) -> Result<(Sum, usize), SegmentError> {
        let of = self.of;
        let (needed, room) = (of.headers.len(), out.len());
        let out = out.get_mut(..needed).ok_or(SegmentError::Room { needed, room })?;
        out.copy_from_slice(of.headers);
        let l4 = usize::from(of.ip.l4);
        let l4_len = self.l4_len();
        // Neither overflows: see `l4_len`.
        let ip_len = u16::try_from(self.len() - of.l3).unwrap_or(u16::MAX);
        match of.ip.network {
            Network::V4 => {
                // At most MAX_SEGMENTS.
                let id = of.id.wrapping_add((self.index() & 0xffff) as u16);
                put16(out, of.l3 + 2, ip_len);
                put16(out, of.l3 + 4, id);
                let sum = of.ip_sum + Sum::from_word(ip_len) + Sum::from_word(id);
                put16(out, of.l3 + 10, sum.checksum());
            }
            Network::V6 => put16(out, of.l3 + 4, ip_len.saturating_sub(40)),
        }
        let changed = match of.ip.protocol {
            IpProtocol::TCP => {
                // The payload is at most MAX_SEGMENTS times 65535 long: an offset fits.
                let seq = of.seq.wrapping_add((self.offset & 0xffff_ffff) as u32);
                let mut flags = of.offset_flags;
                if self.offset != 0 {
                    flags &= !u16::from(TcpFlags::CWR.0);
                }
                if !self.is_last() {
                    flags &= !u16::from(TcpFlags::FIN.0 | TcpFlags::PSH.0);
                }
                put16(out, l4 + 4, (seq >> 16) as u16);
                put16(out, l4 + 6, (seq & 0xffff) as u16);
                put16(out, l4 + 12, flags);
                Sum::from_word32(seq) + Sum::from_word(flags)
            }
            _ => {
                put16(out, l4 + 4, l4_len);
                Sum::from_word(l4_len)
            }
        };
        Ok((changed, l4 + usize::from(of.ip.protocol.checksum_offset().unwrap_or(0))))
    }
}

#[cfg(test)]
mod tests;
