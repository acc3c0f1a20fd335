//! The usual frame: no tag, IPv4 without options, TCP or UDP, not a fragment. Everything lies at a known place, so that
//! what [`classify`](crate::classify) and [`Hasher`] find out step by step is found with a few loads. The answer is the
//! same; a frame that is not quite usual is left to them.

use fabnic_avf_spec::packet_type;
use fabnic_wire::IpProtocol;

use crate::rss::Hasher;

/// Bytes that are looked at: Ethernet, IPv4, and the first eight of the transport.
pub(crate) const LOOKED: usize = 42;
/// Where the transport begins.
pub(crate) const L4: usize = 34;

/// What such a frame is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usual {
    pub(crate) hash: u32,
    /// Bytes from [`L4`] on that the transport's checksum covers; 0 if there is no checksum.
    pub(crate) covered: u16,
    pub(crate) packet_type: u8,
    /// The IPv4 header checksum is wrong.
    pub(crate) bad_ip: bool,
    /// What the sum of the covered bytes begins with: the pseudo header's, in memory order, not folded.
    pub(crate) seed: u64,
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

/// What a frame of `len` bytes is that begins with these; `None` if it is not a usual one. Nothing is left to be done on it,
/// and nothing known of its checksums.
#[inline(always)]
pub(crate) fn look(b: &[u8; LOOKED], len: usize, hasher: &Hasher, flows: &mut FlowCache) -> Option<Usual> {
    // As they lie there, so little endian; the sums do not mind.
    let word = |at: usize| b.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |at| u32::from_le_bytes(*at));
    let long = |at: usize| b.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |at| u64::from_le_bytes(*at));
    // EtherType, IHL, TOS, length, identification; fragment, TTL, protocol, checksum, half an address; addresses.
    let (first, second, addresses) = (long(12), long(20), long(26));
    let l4 = word(38);
    // IPv4, five words, no fragment, and the protocol.
    if first & 0x00ff_ffff != 0x0045_0008 {
        return None;
    }
    let size_be = ((first >> 32) & 0xffff) as u16;
    let size = size_be.swap_bytes().checked_sub(20)?;
    let (packet_type, least, covered) = match second & 0xff00_ff3f {
        // UDP's own length says the same; without a checksum its field is zero.
        UDP if (l4 & 0xffff) as u16 == size.swap_bytes() => {
            (packet_type::IPV4_UDP, 8, if l4 >> 16 == 0 { 0 } else { size })
        }
        TCP => (packet_type::IPV4_TCP, 20, size),
        _ => return None,
    };
    if !hasher.is_usual(packet_type == packet_type::IPV4_TCP) || size < least || L4 + usize::from(size) > len
    {
        return None;
    }
    // Bytes 14 to 20 and 28 to 34, and those between.
    let bad_ip = !is_all_ones(add((first >> 16) + (addresses >> 16), second));
    let protocol = second >> 16 & 0xff00;
    let seed = add(addresses, protocol + u64::from(size.swap_bytes()));
    let hash = flows.get(addresses, word(34), hasher);
    Some(Usual { hash, covered, packet_type, bad_ip, seed })
}

/// Protocols, where they are in the word that is looked at.
const UDP: u64 = (IpProtocol::UDP.0 as u64) << 24;
const TCP: u64 = (IpProtocol::TCP.0 as u64) << 24;

#[cfg(test)]
mod tests {
    use fabnic_wire::checksum::Sum;
    use fabnic_wire::{Layers, Offload};

    use super::{FlowCache, L4, add, is_all_ones, look};
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
                    let Some(usual) = look(first, len, &hasher, &mut flows) else { continue };
                    answers += 1;
                    let layers = Layers::of(&frame).unwrap();
                    let long = classify(&frame, len, &layers, &Offload::PLAIN);
                    assert_eq!((usual.packet_type, usual.bad_ip), (long.packet_type, long.bad_ip), "{bit}");
                    match (usual.covered, long.transport) {
                        (0, Transport::Good) => {}
                        (covered, Transport::Sum { from, len, seed }) => {
                            let sum = Sum::from_memory_order(usual.seed);
                            assert_eq!((L4, usize::from(covered), sum), (from, len, seed));
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
