//! The usual frame: no tag, IPv4 without options, TCP or UDP, not a fragment. Everything lies at a known place, so that
//! what [`classify`](crate::classify) and [`Hasher`] find out step by step is found with a few loads. The answer is the
//! same; a frame that is not quite usual is left to them.

use fabnic_avf_spec::packet_type;
use fabnic_wire::IpProtocol;
use fabnic_wire::checksum::{fold, pseudo_header_v4};
use fabnic_wire::offload::DATA_VALID;

use crate::classify::{Kind, Transport};
use crate::rss::Hasher;

/// Bytes that are looked at: Ethernet, IPv4, and the first eight of the transport.
const LOOKED: usize = 42;
/// Where the transport begins.
const L4: usize = 34;

/// Flows whose hash is remembered.
const FLOWS: usize = 64;

/// Hashes of flows that were seen lately: computing one takes longer than all the rest.
#[derive(Debug)]
pub(crate) struct FlowCache {
    /// Addresses, ports, hash.
    entries: [(u64, u32, u32); FLOWS],
    /// Entries that hold something, one a bit.
    filled: u64,
}

impl FlowCache {
    pub(crate) fn new() -> FlowCache {
        FlowCache { entries: [(0, 0, 0); FLOWS], filled: 0 }
    }

    #[inline(always)]
    fn get(&mut self, addresses: u64, ports: u32, compute: impl FnOnce() -> u32) -> u32 {
        let mixed = (addresses ^ u64::from(ports).rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = mixed >> 58;
        let Some(entry) = usize::try_from(at).ok().and_then(|at| self.entries.get_mut(at)) else {
            return compute();
        };
        if self.filled & 1 << at == 0 || (entry.0, entry.1) != (addresses, ports) {
            *entry = (addresses, ports, compute());
            self.filled |= 1 << at;
        }
        entry.2
    }
}

/// What such a frame of `len` bytes is, and its hash; `None` if it is not one. `flags` are those of its offload, which has
/// nothing left to do.
#[inline(always)]
pub(crate) fn look(
    head: &[u8],
    len: usize,
    flags: u8,
    hasher: &Hasher,
    flows: &mut FlowCache,
) -> Option<(Kind, u32)> {
    let b: &[u8; LOOKED] = head.first_chunk()?;
    let word = |at: [u8; 4]| u32::from_le_bytes(at);
    let half = |at: [u8; 2]| u16::from_be_bytes(at);
    // IPv4, five words, no fragment.
    if [b[12], b[13], b[14]] != [8, 0, 0x45] || b[20] & 0x3f != 0 || b[21] != 0 {
        return None;
    }
    let protocol = IpProtocol(b[23]);
    let (packet_type, least) = match protocol {
        IpProtocol::UDP => (packet_type::IPV4_UDP, 8),
        IpProtocol::TCP => (packet_type::IPV4_TCP, 20),
        _ => return None,
    };
    if !hasher.is_usual(protocol) {
        return None;
    }
    let total = half([b[16], b[17]]);
    let size = total.checked_sub(20)?;
    let end = L4 + usize::from(size);
    if size < least || end > len {
        return None;
    }
    let (source, destination) = ([b[26], b[27], b[28], b[29]], [b[30], b[31], b[32], b[33]]);
    let header = u64::from(word([b[14], b[15], b[16], b[17]]))
        + u64::from(word([b[18], b[19], b[20], b[21]]))
        + u64::from(word([b[22], b[23], b[24], b[25]]))
        + u64::from(word(source))
        + u64::from(word(destination));
    let bad_ip = fold(header) != 0xffff;
    let is_udp = protocol == IpProtocol::UDP;
    let transport = if is_udp && half([b[38], b[39]]) != size {
        return None;
    } else if flags & DATA_VALID != 0 || (is_udp && [b[40], b[41]] == [0, 0]) {
        Transport::Good
    } else {
        Transport::Sum {
            from: L4,
            len: size.into(),
            seed: pseudo_header_v4(source, destination, protocol, size),
        }
    };
    let addresses = u64::from(word(source)) << 32 | u64::from(word(destination));
    let ports = word([b[34], b[35], b[36], b[37]]);
    let hash = flows.get(addresses, ports, || {
        let mut input = [0; 12];
        let all = source.into_iter().chain(destination).chain([b[34], b[35], b[36], b[37]]);
        input.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        hasher.toeplitz(&input)
    });
    Some((Kind { packet_type, bad_ip, transport }, hash))
}

#[cfg(test)]
mod tests {
    use fabnic_wire::{Layers, Offload};

    use super::{FlowCache, look};
    use crate::classify::{Transport, classify};
    use crate::rss::{Hasher, Rss};

    /// Every byte of a usual frame, with every bit of it turned and at many lengths: if this has an answer, it is the
    /// careful one's.
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
                    for flags in [0, 2] {
                        let Some((kind, hash)) = look(&frame, len, flags, &hasher, &mut flows) else {
                            continue;
                        };
                        answers += 1;
                        let layers = Layers::of(&frame).unwrap();
                        let offload = Offload { flags, ..Offload::PLAIN };
                        let long = classify(&frame, len, &layers, &offload);
                        assert_eq!((kind.packet_type, kind.bad_ip), (long.packet_type, long.bad_ip), "{bit}");
                        match (kind.transport, long.transport) {
                            (Transport::Good, Transport::Good) => {}
                            (
                                Transport::Sum { from, len, seed },
                                Transport::Sum { from: from2, len: len2, seed: seed2 },
                            ) => assert_eq!((from, len, seed), (from2, len2, seed2)),
                            other => panic!("{bit}: {other:?}"),
                        }
                        let ip = layers.ip.unwrap();
                        assert_eq!(hasher.hash(&frame, 14, &ip), Some(hash), "{bit}");
                    }
                }
            }
        }
        assert!(answers > 1000);
    }
}
