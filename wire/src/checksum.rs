//! The internet checksum (RFC 1071), its incremental update (RFC 1624), and partial checksums.
//!
//! A [`Sum`] is the ones' complement sum of 16-bit big-endian words, folded to 16 bits and *not* complemented.
//! Sums of pieces are added; a piece that lies at an odd offset of the whole is turned by [`Sum::at`] first. So the
//! sum of a payload can come from the pass that copies it, and is joined to that of the headers here.
//!
//! ```
//! use fabnic_wire::checksum::Sum;
//! let (whole, first, rest) = (b"hello world", b"hello", b" world");
//! assert_eq!(Sum::of(whole), Sum::of(first) + Sum::of(rest).at(first.len()));
//! ```
//!
//! # Partial checksums
//! Under NEEDS_CSUM the checksum field holds the sum of the pseudo header, not complemented. What is missing is the
//! sum from `csum_start` to the end of the frame, that field included; [`finish`] adds and complements it.

use std::ops::{Add, AddAssign, Sub};

use crate::{
    IpProtocol, Layers, Offload,
    bytes::{array, be16},
    ip::has_route,
    layers::{Fragment, IpLayer, Network},
    offload::OffloadError,
};

/// A folded ones' complement sum of 16-bit words in network order.
///
/// Zero has two forms (0x0000 and 0xffff) that compare as equal: they are the same number.
#[derive(Copy, Clone, Debug, Default)]
pub struct Sum(u16);

impl Sum {
    /// Of nothing.
    pub const ZERO: Sum = Sum(0);

    /// Of bytes that begin at an even offset of what is summed. An odd last byte is padded with zero.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        Sum(fold(sum_memory_order(bytes)).to_be())
    }

    /// Of 16-bit words added up in memory order (native endian) and not folded: what a copy loop gathers.
    #[inline]
    pub const fn from_memory_order(sum: u64) -> Sum {
        Sum(fold(sum).to_be())
    }

    /// From the value of a checksum field that is not complemented, or of any 16-bit word.
    #[inline]
    pub const fn from_word(word: u16) -> Sum {
        Sum(word)
    }

    /// From a 32-bit word, as two 16-bit words.
    #[inline]
    pub const fn from_word32(word: u32) -> Sum {
        Sum(fold(word as u64))
    }

    /// The 16-bit word.
    #[inline]
    pub const fn word(self) -> u16 {
        self.0
    }

    /// The sum of the same bytes when they lie at `offset` of the whole: an odd offset swaps the halves.
    #[inline]
    #[must_use]
    pub const fn at(self, offset: usize) -> Sum {
        if offset & 1 == 0 { self } else { Sum(self.0.swap_bytes()) }
    }

    /// What goes into the checksum field.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.0
    }

    /// What goes into UDP's checksum field, where 0 would mean that there is none (RFC 768).
    #[inline]
    pub const fn udp_checksum(self) -> u16 {
        match !self.0 {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// Whether bytes with a finished checksum among them, so summed, are intact.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 == 0xffff
    }
}

impl PartialEq for Sum {
    #[inline]
    fn eq(&self, other: &Sum) -> bool {
        self.0 == other.0 || matches!((self.0, other.0), (0, 0xffff) | (0xffff, 0))
    }
}

impl Eq for Sum {}

impl Add for Sum {
    type Output = Sum;

    #[inline]
    fn add(self, other: Sum) -> Sum {
        let (sum, carry) = self.0.overflowing_add(other.0);
        // After a carry the low half is at most 0xfffe.
        Sum(sum.wrapping_add(carry as u16))
    }
}

impl AddAssign for Sum {
    #[inline]
    fn add_assign(&mut self, other: Sum) {
        *self = *self + other;
    }
}

impl Sub for Sum {
    type Output = Sum;

    /// Takes words out again (adds their complement).
    #[inline]
    fn sub(self, other: Sum) -> Sum {
        self + Sum(!other.0)
    }
}

/// Folds an unfolded sum of 16-bit words to 16 bits.
#[inline]
pub const fn fold(sum: u64) -> u16 {
    // 64 -> 33 -> 32 (with carry) -> 17 -> 16 bits.
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// Adds up words in memory order. RFC 1071 section 2(B): the order of bytes does not matter until the end, so the
/// loop adds 32-bit halves of 64-bit words in lanes that the compiler turns into vectors. A lane gains less than
/// 2^32 a step: it cannot overflow below 2^32 steps, 128 GiB. For [`Sum::from_memory_order`], or to go on adding.
#[inline]
pub fn sum_memory_order(bytes: &[u8]) -> u64 {
    let halves = |word: u64| (word & 0xffff_ffff) + (word >> 32);
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut sum = 0;
    if !blocks.is_empty() {
        let mut lanes = [0_u64; 4];
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += halves(u64::from_ne_bytes(*word));
            }
        }
        sum = lanes.iter().map(|&lane| halves(lane)).sum();
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        sum += halves(u64::from_ne_bytes(*word));
    }
    if rest.is_empty() {
        return sum;
    }
    let last = match bytes.last_chunk::<8>() {
        // The last eight bytes, less those that were added already.
        Some(last) if cfg!(target_endian = "little") => u64::from_ne_bytes(*last) >> (64 - 8 * rest.len()),
        _ => {
            let mut last = [0; 8];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u64::from_ne_bytes(last)
        }
    };
    sum + halves(last)
}

/// A checksum field after a 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = (!checksum as u32) + (!old as u32) + (new as u32);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(((sum >> 16) + (sum & 0xffff)) as u16)
}

/// A checksum field after bytes under it, at an even offset, changed. The lengths may differ if the rest of what is
/// summed keeps its parity.
#[inline]
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let (old, new) = (Sum::of(old), Sum::of(new));
    update(checksum, old.word(), new.word())
}

/// The sum of an IPv4 pseudo header (RFC 9293 section 3.1). `len` is that of the L4 header and its payload.
#[inline]
pub fn pseudo_header_v4(src: [u8; 4], dst: [u8; 4], protocol: IpProtocol, len: u16) -> Sum {
    let sum = u64::from(u32::from_be_bytes(src))
        + u64::from(u32::from_be_bytes(dst))
        + u64::from(protocol.0)
        + u64::from(len);
    Sum(fold(sum))
}

/// The sum of an IPv6 pseudo header (RFC 8200 section 8.1). `protocol` is that of the L4 header, not the first
/// extension's.
#[inline]
pub fn pseudo_header_v6(src: [u8; 16], dst: [u8; 16], protocol: IpProtocol, len: u32) -> Sum {
    Sum::of(&src) + Sum::of(&dst) + Sum(u16::from(protocol.0)) + Sum::from_word32(len)
}

/// The pseudo header's sum for the L4 layer of a frame. A routing header's final destination is not looked up: the
/// sum is that of the addresses in the IP header.
pub fn pseudo_header(head: &[u8], l3: u16, ip: &IpLayer, len: u16) -> Option<Sum> {
    let l3 = usize::from(l3);
    Some(match ip.network {
        Network::V4 => pseudo_header_v4(*array(head, l3 + 12)?, *array(head, l3 + 16)?, ip.protocol, len),
        Network::V6 => {
            pseudo_header_v6(*array(head, l3 + 8)?, *array(head, l3 + 24)?, ip.protocol, len.into())
        }
    })
}

/// Finishes the partial checksum of a frame whose first bytes are `head` and whose remaining bytes have the sum
/// `rest` (counted from their own beginning). The frame needs no checksum afterwards; if it needed none before,
/// nothing happens.
///
/// # Errors
/// The checksum field or its start lies behind the head; a validated [`Offload`] never has that.
pub fn finish(head: &mut [u8], offload: &Offload, rest: Sum) -> Result<(), OffloadError> {
    if !offload.needs_csum() {
        return Ok(());
    }
    let (start, offset) = (offload.csum_start, offload.csum_offset);
    let end = usize::from(start) + usize::from(offset) + 2;
    let beyond = OffloadError::ChecksumBeyond { start, offset, end, available: head.len() };
    let covered = head.get(usize::from(start)..).ok_or(beyond)?;
    let sum = Sum::of(covered) + rest.at(covered.len());
    // The field of UDP is told by its place; no other protocol has one there.
    let checksum = if offset == 6 { sum.udp_checksum() } else { sum.checksum() };
    let field = head.get_mut(end - 2..end).ok_or(beyond)?;
    field.copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// The state of a frame's checksums.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Present and right.
    Good,
    /// Present and wrong.
    Bad,
    /// There is none, or it cannot be told from these bytes: another protocol, a fragment, an IPv6 packet with a route
    /// before it, lengths that disagree.
    Unknown,
}

/// Whether the header checksum of an IPv4 header, options included, is right.
#[inline]
pub fn ipv4_header_is_valid(header: &[u8]) -> bool {
    Sum::of(header).is_valid()
}

/// Verifies the L4 checksum (TCP, UDP, ICMP, ICMPv6) of a frame that is held as a whole.
///
/// Bytes behind the length that the IP header gives (padding of short frames) are not summed.
pub fn verify(frame: &[u8]) -> Verification {
    verify_inner(frame).unwrap_or(Verification::Unknown)
}

fn verify_inner(frame: &[u8]) -> Option<Verification> {
    let layers = Layers::of(frame)?;
    let ip = layers.ip.filter(|ip| ip.fragment == Fragment::No)?;
    let (l3, l4) = (usize::from(layers.l3), usize::from(ip.l4));
    if ip.network == Network::V6 && has_route(frame, l3) {
        return None;
    }
    let end = match ip.network {
        Network::V4 => l3 + usize::from(be16(frame, l3 + 2)?),
        Network::V6 => l3 + 40 + usize::from(be16(frame, l3 + 4)?),
    };
    let covered = frame.get(l4..end)?;
    let len = u16::try_from(covered.len()).ok()?;
    // Too short a packet has no checksum; a length of 0 is that of an IPv6 jumbogram.
    if covered.len() < ip.protocol.min_header_len() {
        return None;
    }
    let pseudo = match ip.protocol {
        IpProtocol::ICMP => Sum::ZERO,
        IpProtocol::UDP if be16(covered, 6)? == 0 => return None,
        IpProtocol::TCP | IpProtocol::UDP | IpProtocol::ICMPV6 => pseudo_header(frame, layers.l3, &ip, len)?,
        _ => return None,
    };
    Some(if (pseudo + Sum::of(covered)).is_valid() { Verification::Good } else { Verification::Bad })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::NEEDS_CSUM;

    /// RFC 1071 section 4.1, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0_u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn rfc_1071_example() {
        // Section 3: 0001 f203 f4f5 f6f7 sums to ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).word(), 0xddf2);
        assert_eq!(Sum::of(&bytes).checksum(), 0x220d);
    }

    #[test]
    fn rfc_1624_example() {
        // Section 4: the case that RFC 1141's equation gets wrong.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn folding_does_not_lose_carries() {
        for sum in
            [0, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_ffff_ffff, u64::MAX, u64::MAX - 1, 0xffff_fffe_ffff_ffff]
        {
            // Folding keeps the value modulo 0xffff.
            assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff, "{sum:#x}");
            assert_eq!(fold(sum) == 0, sum == 0);
        }
    }

    #[test]
    fn udp_never_says_none() {
        let mut head = [0_u8; 8];
        head[0] = 0xff;
        head[1] = 0xff;
        let offload = Offload { flags: NEEDS_CSUM, csum_offset: 6, ..Offload::PLAIN };
        finish(&mut head, &offload, Sum::ZERO).unwrap();
        assert_eq!(&head[6..], [0xff, 0xff]);
    }

    #[test]
    fn finish_refuses_what_it_does_not_hold() {
        let offload = Offload { flags: NEEDS_CSUM, csum_start: 30, csum_offset: 16, ..Offload::PLAIN };
        assert!(finish(&mut [0; 47], &offload, Sum::ZERO).is_err());
        assert!(finish(&mut [0; 20], &offload, Sum::ZERO).is_err());
        assert!(finish(&mut [0; 48], &offload, Sum::ZERO).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn fast_is_slow(bytes: Vec<u8>, split: proptest::sample::Index) {
            let sum = Sum::of(&bytes);
            assert_eq!(sum, Sum::from_word(slow(&bytes)));
            // Not only equal: the same form of zero.
            assert_eq!(sum.word(), slow(&bytes));
            let (a, b) = bytes.split_at(split.index(bytes.len() + 1));
            assert_eq!(sum, Sum::of(a) + Sum::of(b).at(a.len()));
            assert_eq!(sum - Sum::of(a), Sum::of(b).at(a.len()));
        }

        #[test]
        fn update_is_recomputation(mut bytes: [u8; 20], at in 0_usize..9, new: [u8; 2]) {
            let before = Sum::of(&bytes).checksum();
            let old = [bytes[2 * at], bytes[2 * at + 1]];
            bytes[2 * at..][..2].copy_from_slice(&new);
            let after = update_bytes(before, &old, &new);
            let recomputed = Sum::of(&bytes);
            assert_eq!(Sum::from_word(!after), recomputed);
        }

        #[test]
        fn finishing_makes_it_valid(mut frame in proptest::collection::vec(0_u8.., 60..300), start in 0_u16..20, offset in 0_u16..20, cut: proptest::sample::Index) {
            // Words are counted from the start: an odd offset has no checksum.
            let offset = offset & !1;
            let offload = Offload { flags: NEEDS_CSUM, csum_start: start, csum_offset: offset, ..Offload::PLAIN };
            let field = usize::from(start + offset);
            frame[field..field + 2].fill(0);
            let cut = 40 + cut.index(frame.len() - 39);
            let rest = Sum::of(&frame[cut..]);
            finish(&mut frame[..cut], &offload, rest).unwrap();
            assert!(Sum::of(&frame[usize::from(start)..]).is_valid());
        }
    }
}
