//! The usual frame: no tag, IPv4 without options, TCP or UDP, not a fragment. Everything lies at a known place, so that
//! what [`classify`](crate::classify) and [`Hasher`] find out step by step is found with a few loads. The answer is the
//! same; a frame that is not quite usual is left to them.

use fabnic_avf_spec::packet_type;
use fabnic_avf_spec::receive::{Found, rxdid};
use fabnic_wire::IpProtocol;

use crate::rss::Hasher;

/// Bytes that are looked at: Ethernet, IPv4, and the first eight of the transport.
pub(crate) const LOOKED: usize = 42;
/// Where the network header begins, and the transport.
const L3: u64 = 14;
const L4: usize = 34;
/// Where the sum begins: the addresses of the pseudo header.
pub(crate) const SUMMED: usize = 26;

/// What such a frame is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usual {
    /// The part of the pseudo header that is not in the frame as it is summed: protocol and length, in memory order. Its
    /// addresses lie before the transport, so that one run from [`SUMMED`] on is all the rest. All ones if there is no
    /// checksum.
    pub(crate) seed: u64,
    pub(crate) hash: u32,
    /// Where the bytes end that the transport's checksum covers; 0 if there is no checksum.
    pub(crate) end: u16,
    pub(crate) packet_type: u8,
    /// The IPv4 header checksum is wrong.
    pub(crate) bad_ip: bool,
}

impl Usual {
    /// The descriptor of such a frame, of which `sum` is the sum of all that is covered.
    #[inline(always)]
    pub(crate) fn describe(&self, format: u8, len: u64, sum: u64) -> [u64; 4] {
        let found = Found {
            packet_type: self.packet_type,
            checked: true,
            bad_ip: self.bad_ip,
            bad_l4: !is_all_ones(sum),
            hash: Some(self.hash),
            ..Found::default()
        };
        let words = match format {
            rxdid::LEGACY_32 => found.legacy((len & 0xffff) as u16, true),
            format => found.flexible(format, (len & 0xffff) as u16, true),
        };
        words.map(u64::to_le)
    }
}

/// Flows whose hash is remembered.
const FLOWS: usize = 64;

/// Hashes of flows that were seen lately: computing one takes longer than all the rest.
#[derive(Debug)]
pub(crate) struct FlowCache {
    /// Addresses, ports, hash. Those that hold nothing yet are right too: the hash of zeros is zero.
    entries: [(u64, u32, u32); FLOWS],
}

impl FlowCache {
    pub(crate) fn new() -> FlowCache {
        FlowCache { entries: [(0, 0, 0); FLOWS] }
    }

    #[inline(always)]
    fn get(&mut self, addresses: u64, ports: u32, hasher: &Hasher) -> u32 {
        let mixed = (addresses ^ u64::from(ports).rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Some(entry) = self.entries.get_mut((mixed >> 58) as usize) else { return 0 };
        if (entry.0, entry.1) != (addresses, ports) {
            *entry = (addresses, ports, compute(addresses, ports, hasher));
        }
        entry.2
    }
}

/// The hash of addresses and ports as they lie in a packet.
#[inline(never)]
fn compute(addresses: u64, ports: u32, hasher: &Hasher) -> u32 {
    let mut input = [0; 12];
    let all = addresses.to_le_bytes().into_iter().chain(ports.to_le_bytes());
    input.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    hasher.toeplitz(&input)
}

/// Adds sums of 16-bit words that are not folded: what does not fit comes in again at the low end (RFC 1071, 2^64 being
/// one more than a multiple of 2^16 - 1).
#[inline(always)]
pub(crate) fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

/// Whether a sum of 16-bit words, not folded and not of zeros only, is all ones when it is: a multiple of 2^16 - 1, as a
/// product with that number's inverse tells.
#[inline(always)]
pub(crate) fn is_all_ones(sum: u64) -> bool {
    const INVERSE: u64 = 0x0001_0001_0001_0001_u64.wrapping_neg();
    const { assert!(INVERSE.wrapping_mul(0xffff) == 1) };
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// The sum of 8 or more bytes that begin at an even place, as [`add`] adds; 0 of fewer.
#[inline(always)]
pub(crate) fn sum_run(bytes: &[u8]) -> u64 {
    let Some(last) = bytes.last_chunk::<8>() else { return 0 };
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let (words, rest) = bytes.as_chunks::<8>();
    let (pairs, single) = words.as_chunks::<2>();
    let (mut first, mut second) = (0, 0);
    for [a, b] in pairs {
        first = add(first, word(a));
        second = add(second, word(b));
    }
    if let [one] = single {
        first = add(first, word(one));
    }
    // The last eight bytes, less those that were added already.
    let tail = if rest.is_empty() { 0 } else { word(last) >> (64 - 8 * rest.len()) };
    add(add(first, second), tail)
}

/// What looks at frames: the hash and its memory, held ready for a burst.
#[derive(Debug)]
pub(crate) struct Looker<'a> {
    hasher: &'a Hasher,
    flows: &'a mut FlowCache,
    /// The hash of UDP and of TCP takes addresses and ports.
    udp: bool,
    tcp: bool,
}

impl<'a> Looker<'a> {
    pub(crate) fn new(hasher: &'a Hasher, flows: &'a mut FlowCache) -> Looker<'a> {
        Looker { udp: hasher.is_usual(false), tcp: hasher.is_usual(true), hasher, flows }
    }

    /// What a frame of `len` bytes is that begins with these; `None` if it is not a usual one. Nothing is left to be done on
    /// it, and nothing known of its checksums.
    #[inline(always)]
    pub(crate) fn look(&mut self, b: &[u8; LOOKED], len: usize) -> Option<Usual> {
        // As they lie there, so little endian; the sums do not mind.
        let word =
            |at: usize| b.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |at| u32::from_le_bytes(*at));
        let long =
            |at: usize| b.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |at| u64::from_le_bytes(*at));
        // EtherType, IHL, TOS, length, identification; fragment, TTL, protocol, checksum, half an address; addresses.
        let (first, second, addresses) = (long(12), long(20), long(26));
        let l4 = word(38);
        // IPv4, five words, no fragment, and the protocol.
        if first & 0x00ff_ffff != 0x0045_0008 {
            return None;
        }
        let total = u64::from((((first >> 32) & 0xffff) as u16).swap_bytes());
        let end = L3 + total;
        if end > len as u64 {
            return None;
        }
        // In memory order too; of a length below that of the header it is wrong, and the next comparisons say so.
        let size_be = ((total.wrapping_sub(L4 as u64 - L3) & 0xffff) as u16).swap_bytes();
        let (packet_type, is_summed) = match second & 0xff00_ff3f {
            // UDP's own length says the same; without a checksum its field is zero.
            UDP if self.udp && total >= 28 && (l4 & 0xffff) as u16 == size_be => {
                (packet_type::IPV4_UDP, l4 >> 16 != 0)
            }
            TCP if self.tcp && total >= 40 => (packet_type::IPV4_TCP, true),
            _ => return None,
        };
        // Bytes 14 to 20 and 28 to 34, and those between.
        let bad_ip = !is_all_ones(add((first >> 16) + (addresses >> 16), second));
        let protocol = second >> 16 & 0xff00;
        let hash = self.flows.get(addresses, word(34), self.hasher);
        let (seed, end) =
            if is_summed { (protocol + u64::from(size_be), (end & 0xffff) as u16) } else { (0xffff, 0) };
        Some(Usual { seed, hash, end, packet_type, bad_ip })
    }
}

/// Protocols, where they are in the word that is looked at.
const UDP: u64 = (IpProtocol::UDP.0 as u64) << 24;
const TCP: u64 = (IpProtocol::TCP.0 as u64) << 24;

#[cfg(test)]
mod tests {
    use fabnic_wire::checksum::Sum;
    use fabnic_wire::{Layers, Offload};

    use super::{FlowCache, L4, Looker, SUMMED, add, is_all_ones, sum_run};
    use crate::classify::{Transport, classify};
    use crate::rss::{Hasher, Rss};

    /// Every byte of a usual frame, with every bit of it turned and at many lengths: if this has an answer, it is the
    /// careful one's.
    #[test]
    fn sums_are_what_folding_makes_of_them() {
        let mut seed = 1_u64;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let (a, b) = (seed.rotate_left(17), seed | 1);
            assert_eq!(is_all_ones(a), Sum::from_memory_order(a).is_valid());
            let both = Sum::from_memory_order(a) + Sum::from_memory_order(b);
            assert_eq!(Sum::from_memory_order(add(a, b)), both);
            // And one that is.
            let valid = add(a, u64::from(!Sum::from_memory_order(a).word().to_be()));
            assert!(is_all_ones(valid));
        }
        assert!(is_all_ones(0xffff) && is_all_ones(u64::MAX) && !is_all_ones(0xfffe) && !is_all_ones(1));
    }

    #[test]
    fn a_run_is_summed_whatever_its_length() {
        let bytes: Vec<u8> = (0..120_u32).map(|i| (i * 151 + 0x80) as u8).collect();
        for len in 8..bytes.len() {
            let run = &bytes[..len];
            assert_eq!(Sum::from_memory_order(sum_run(run)), Sum::of(run), "{len}");
            assert_eq!(Sum::from_memory_order(sum_run(&vec![0xff; len])), Sum::of(&vec![0xff; len]));
        }
        assert_eq!(sum_run(&bytes[..7]), 0);
    }

    #[test]
    fn the_short_way_finds_what_the_long_one_finds() {
        let hasher = Hasher::new(&Rss::new(4));
        let mut flows = FlowCache::new();
        let mut answers = 0;
        for protocol in [6_u8, 17] {
            let mut frame =
                vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 86, 0, 1, 0x40, 0, 64, protocol];
            frame.extend([0x12, 0x34, 10, 0, 0, 1, 10, 0, 0, 2, 4, 0, 4, 1, 0, 66, 0x55, 0x66]);
            frame.resize(100, 7);
            for len in [41, 42, 60, 99, 100] {
                for bit in 0..len * 8 {
                    let mut frame = frame[..len].to_vec();
                    frame[bit / 8] ^= 1 << (bit % 8);
                    let Some(first) = frame.first_chunk() else { continue };
                    let Some(usual) = Looker::new(&hasher, &mut flows).look(first, len) else { continue };
                    answers += 1;
                    let layers = Layers::of(&frame).unwrap();
                    let long = classify(&frame, len, &layers, &Offload::PLAIN);
                    assert_eq!((usual.packet_type, usual.bad_ip), (long.packet_type, long.bad_ip), "{bit}");
                    match (usize::from(usual.end), long.transport) {
                        (0, Transport::Good) => assert!(is_all_ones(usual.seed)),
                        (end, Transport::Sum { from, len, seed }) => {
                            let sum = Sum::from_memory_order(usual.seed) + Sum::of(&frame[SUMMED..L4]);
                            assert_eq!((L4, end, sum), (from, from + len, seed));
                        }
                        other => panic!("{bit}: {other:?}"),
                    }
                    let ip = layers.ip.unwrap();
                    assert_eq!(hasher.hash(&frame, 14, &ip), Some(usual.hash), "{bit}");
                }
            }
        }
        assert!(answers > 1000);
    }
}
