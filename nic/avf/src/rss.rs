//! Receive side scaling: which queue a frame goes to, and the hash that the driver is told.
//!
//! The queue is `lut[hash & 63]`. What is hashed follows the enabled packet types (HENA), one bit for each kind: addresses
//! and ports where the type of the transport is enabled, else addresses where "other" is, and for fragments "fragment".

use fabnic_avf_spec::virtchnl::{RSS_KEY_LEN, RSS_LUT_LEN};
use fabnic_wire::IpProtocol;
use fabnic_wire::hash::{TOEPLITZ_INPUT_LEN, Toeplitz};
use fabnic_wire::layers::{Fragment, IpLayer, Network};

/// Bits of HENA for IPv4, and how far up those for IPv6 are.
mod hena {
    pub(super) const UDP: u64 = 1 << 31;
    pub(super) const UDP_UNICAST: u64 = 1 << 29;
    pub(super) const UDP_MULTICAST: u64 = 1 << 30;
    pub(super) const TCP_SYN: u64 = 1 << 32;
    pub(super) const TCP: u64 = 1 << 33;
    pub(super) const SCTP: u64 = 1 << 34;
    pub(super) const OTHER: u64 = 1 << 35;
    pub(super) const FRAGMENT: u64 = 1 << 36;
    pub(super) const V6_SHIFT: u32 = 10;
}

/// The types that the base has, and that are on at the start.
pub(crate) const DEFAULT_HENA: u64 = {
    let v4 = hena::UDP | hena::TCP | hena::SCTP | hena::OTHER | hena::FRAGMENT;
    v4 | v4 << hena::V6_SHIFT
};

/// All types that make a difference.
pub(crate) const SUPPORTED_HENA: u64 = {
    let v4 = hena::UDP_UNICAST | hena::UDP_MULTICAST | hena::TCP_SYN;
    DEFAULT_HENA | v4 | v4 << hena::V6_SHIFT
};

/// What a driver configured.
#[derive(Clone, Debug)]
pub(crate) struct Rss {
    pub(crate) key: [u8; RSS_KEY_LEN],
    pub(crate) lut: [u8; RSS_LUT_LEN],
    pub(crate) hena: u64,
    pub(crate) symmetric: bool,
}

impl Rss {
    /// How it is before a driver says anything: all types, the key that everybody knows, the queues in turn.
    pub(crate) fn new(queues: u16) -> Rss {
        let mut key = [0; RSS_KEY_LEN];
        let known = fabnic_wire::hash::MICROSOFT_KEY;
        key.iter_mut().zip(known.iter().cycle()).for_each(|(to, from)| *to = *from);
        let mut rss = Rss { key, lut: [0; RSS_LUT_LEN], hena: DEFAULT_HENA, symmetric: false };
        let queues = u8::try_from(queues.max(1)).unwrap_or(u8::MAX);
        rss.lut.iter_mut().zip((0..queues).cycle()).for_each(|(entry, queue)| *entry = queue);
        rss
    }
}

/// The same, made ready for frames.
pub(crate) struct Hasher {
    toeplitz: Box<Toeplitz>,
    lut: [u8; RSS_LUT_LEN],
    hena: u64,
    symmetric: bool,
}

impl core::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Hasher").field("hena", &self.hena).finish_non_exhaustive()
    }
}

impl Hasher {
    pub(crate) fn new(rss: &Rss) -> Hasher {
        // The longest input is 36 bytes, so that 40 of the key's 52 count.
        let mut key = [0; 40];
        key.iter_mut().zip(rss.key).for_each(|(to, from)| *to = from);
        Hasher {
            toeplitz: Box::new(Toeplitz::new(&key)),
            lut: rss.lut,
            hena: rss.hena,
            symmetric: rss.symmetric,
        }
    }

    /// The queue for a hash.
    #[inline(always)]
    pub(crate) fn queue(&self, hash: u32) -> usize {
        // 64 entries.
        self.lut.get((hash & 63) as usize).copied().map_or(0, usize::from)
    }

    /// Whether ports count; `None` if the packet is not hashed at all.
    fn with_ports(&self, ip: &IpLayer) -> Option<bool> {
        let shift = if ip.network == Network::V6 { hena::V6_SHIFT } else { 0 };
        let has = |bits: u64| self.hena & bits << shift != 0;
        if ip.fragment != Fragment::No {
            return (has(hena::FRAGMENT) || has(hena::OTHER)).then_some(false);
        }
        let ports = match ip.protocol {
            IpProtocol::TCP => has(hena::TCP | hena::TCP_SYN),
            IpProtocol::UDP => has(hena::UDP | hena::UDP_UNICAST | hena::UDP_MULTICAST),
            IpProtocol::SCTP => has(hena::SCTP),
            _ => false,
        };
        (ports || has(hena::OTHER)).then_some(ports)
    }

    /// The hash of a packet, if its type has one. Ports that are not within the head do not count.
    #[inline]
    pub(crate) fn hash(&self, head: &[u8], l3: usize, ip: &IpLayer) -> Option<u32> {
        let ports = self.with_ports(ip)?;
        let mut input = [0_u8; TOEPLITZ_INPUT_LEN];
        let (addresses, len) = match ip.network {
            Network::V4 => (head.get(l3 + 12..l3 + 20)?, 8),
            Network::V6 => (head.get(l3 + 8..l3 + 40)?, 32),
        };
        input.get_mut(..len)?.copy_from_slice(addresses);
        let mut used = len;
        let l4 = usize::from(ip.l4);
        if ports && let Some(ports) = head.get(l4..l4 + 4) {
            input.get_mut(len..len + 4)?.copy_from_slice(ports);
            used += 4;
        }
        let input = input.get_mut(..used)?;
        if self.symmetric {
            fold(input, len);
        }
        Some(self.toeplitz.hash(input))
    }
}

/// Source and destination, each replaced by both together: the same in both directions.
fn fold(input: &mut [u8], addresses: usize) {
    let (addresses, ports) = input.split_at_mut(addresses.min(input.len()));
    for both in [addresses, ports] {
        let (source, destination) = both.split_at_mut(both.len() / 2);
        for (a, b) in source.iter_mut().zip(destination) {
            *a ^= *b;
            *b = *a;
        }
    }
}
