//! What connection tracking reads of one TCP segment (RFC 9293 section 3.1), and of its options.
//!
//! ```text
//!   | IP ... | ports | seq | ack | off flags window | sum urg | options (0..40) | payload
//!   l3       l4                                                                 ^ length by the IP header
//! ```
//!
//! Everything comes from the private head. A head of 128 bytes holds the longest TCP header over IPv4 or IPv6 with two
//! tags; with long extension headers before it, the options may lie behind the head: then none are known, as if there
//! were none.
//!
//! # Invariants
//! - The payload's length is what the IP header says, within what the frame has: padding of short frames does not count,
//!   and a TSO frame counts as a whole.
//! - Options are walked in at most 40 steps, each of which moves on.

use fabnic_wire::Layers;
use fabnic_wire::transport::{TcpFlags, TcpHeader};
use zerocopy::FromBytes;

/// The largest shift of the window scale option (RFC 7323 section 2.3).
const MAX_SCALE: u8 = 14;

/// One segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    /// Sequence number of its first byte.
    pub(crate) seq: u32,
    /// Acknowledgment number; counts with ACK only.
    pub(crate) ack: u32,
    /// Sequence number behind its last byte; SYN and FIN count as one each.
    pub(crate) end: u32,
    /// The window as it is in the header, not scaled.
    pub(crate) window: u32,
    pub(crate) flags: TcpFlags,
    /// The options as far as they lie within the head.
    options: &'a [u8],
}

/// What a SYN's options say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SynOptions {
    /// Window scale (RFC 7323), if offered.
    pub(crate) scale: Option<u8>,
    /// Selective acknowledgment is permitted (RFC 2018).
    pub(crate) sack: bool,
}

/// Bytes from the network header to the end of its packet, within what the frame has.
#[inline(always)]
pub(crate) fn packet_len(head: &[u8], l3: usize, frame_len: u32) -> u32 {
    let room = frame_len.saturating_sub(u32::try_from(l3).unwrap_or(u32::MAX));
    let word = |at: usize| {
        head.get(l3 + at..)
            .and_then(<[u8]>::first_chunk)
            .map_or(0, |bytes| u32::from(u16::from_be_bytes(*bytes)))
    };
    let said = match head.get(l3).map(|byte| byte >> 4) {
        Some(4) => word(2),
        Some(6) => match word(4) {
            0 => 0,
            payload => payload + 40,
        },
        _ => 0,
    };
    // A length of 0 is that of a frame to be segmented whose whole does not fit into the field.
    if said == 0 { room } else { said.min(room) }
}

/// Where the header behind IP begins. The IP header's own length is looked at each time: frames of one flow may differ
/// in their options.
#[inline(always)]
pub(crate) fn l4_of(head: &[u8], l3: usize) -> Option<usize> {
    match head.get(l3)? {
        first if first >> 4 == 4 => {
            let len = usize::from(first & 0xf) * 4;
            (len >= 20).then_some(l3 + len)
        }
        first if first >> 4 == 6 => match head.get(l3 + 6)? {
            6 | 17 | 58 => Some(l3 + 40),
            _ => Layers::of(head)?.ip.map(|ip| usize::from(ip.l4)),
        },
        _ => None,
    }
}

impl<'a> Segment<'a> {
    /// Reads the segment whose headers begin at `l3` and `l4`. Nothing if the header is not there as a whole, does not
    /// fit into its packet, or has flags that no TCP sends together.
    #[inline(always)]
    pub(crate) fn read(head: &'a [u8], l3: usize, l4: usize, frame_len: u32) -> Option<Segment<'a>> {
        let bytes = head.get(l4..)?;
        let (header, rest) = TcpHeader::ref_from_prefix(bytes).ok()?;
        let header_len = header.header_len();
        let options_len = header_len.checked_sub(TcpHeader::LEN)?;
        let len = packet_len(head, l3, frame_len);
        let payload = len.checked_sub(u32::try_from(l4 - l3 + header_len).ok()?)?;
        let flags = header.flags;
        if !is_sensible(flags) {
            return None;
        }
        let counted = u32::from(flags.has(TcpFlags::SYN)) + u32::from(flags.has(TcpFlags::FIN));
        let seq = header.seq.get();
        Some(Segment {
            seq,
            ack: header.ack.get(),
            end: seq.wrapping_add(payload).wrapping_add(counted),
            window: header.window.get().into(),
            flags,
            options: rest.get(..options_len).unwrap_or(&[]),
        })
    }

    /// The options of a SYN. The first of a kind that is well formed counts up to the first that is not.
    pub(crate) fn syn_options(&self) -> SynOptions {
        let mut found = SynOptions::default();
        for (kind, data) in Options(self.options) {
            match (kind, data) {
                (3, [scale]) => found.scale = Some((*scale).min(MAX_SCALE)),
                (4, []) => found.sack = true,
                _ => {}
            }
        }
        found
    }

    /// The highest right edge of its SACK blocks, or the acknowledgment number.
    #[inline]
    pub(crate) fn sack(&self) -> u32 {
        // A timestamp and nothing else is what nearly every segment has.
        if self.options.is_empty() || matches!(self.options, [1, 1, 8, 10, ..] if self.options.len() == 12) {
            return self.ack;
        }
        let mut highest = self.ack;
        for (kind, data) in Options(self.options) {
            if kind == 5 && !data.is_empty() && data.len().is_multiple_of(8) {
                for block in data.as_chunks::<8>().0 {
                    let [.., a, b, c, d] = *block;
                    let edge = u32::from_be_bytes([a, b, c, d]);
                    if is_after(edge, highest) {
                        highest = edge;
                    }
                }
                break;
            }
        }
        highest
    }
}

/// `a` comes after `b` in the circle of sequence numbers.
#[inline(always)]
pub(crate) fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// Exactly one of: SYN, SYN+ACK, RST, RST+ACK, FIN+ACK, ACK. URG goes with data and SYN; PSH, ECE and CWR with all.
fn is_sensible(flags: TcpFlags) -> bool {
    const F: u8 = TcpFlags::FIN.0;
    const S: u8 = TcpFlags::SYN.0;
    const R: u8 = TcpFlags::RST.0;
    const A: u8 = TcpFlags::ACK.0;
    const U: u8 = TcpFlags::URG.0;
    let bits = flags.0 & (F | S | R | A | U);
    const SETS: [u8; 9] = [S, S | U, S | A, R, R | A, F | A, F | A | U, A, A | U];
    SETS.contains(&bits)
}

/// Walks TCP options: kind and data of each.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let (&kind, rest) = self.0.split_first()?;
            match kind {
                0 => return None,
                1 => self.0 = rest,
                _ => {
                    let (&len, rest) = rest.split_first()?;
                    // Shorter than itself, or longer than what is there: nothing behind it can be trusted.
                    let (data, rest) = rest.split_at_checked(usize::from(len).checked_sub(2)?)?;
                    self.0 = rest;
                    return Some((kind, data));
                }
            }
        }
    }
}
