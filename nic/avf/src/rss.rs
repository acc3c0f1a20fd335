//! Receive side scaling: which queue a frame goes to, and the hash that the driver is told.
//!
//! The queue is `lut[hash & 63]`. What is hashed is said for each kind of packet (network and transport). A driver enables
//! packet types (HENA): addresses and ports of a transport, addresses of everything else and of fragments. Or it names
//! header stacks and fields, if that was granted. A packet whose kind has no fields is hashed as "other".

use fabnic_avf_spec::virtchnl::{RSS_KEY_LEN, RSS_LUT_LEN, RssConfig, RssHash, field, header};
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

/// What of a packet is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(crate) source: bool,
    pub(crate) destination: bool,
    pub(crate) source_port: bool,
    pub(crate) destination_port: bool,
    /// Both directions alike.
    pub(crate) symmetric: bool,
}

impl Inputs {
    fn is_empty(self) -> bool {
        !(self.source || self.destination || self.source_port || self.destination_port)
    }

    const fn addresses() -> Inputs {
        Inputs {
            source: true,
            destination: true,
            source_port: false,
            destination_port: false,
            symmetric: false,
        }
    }

    const fn all() -> Inputs {
        Inputs { source_port: true, destination_port: true, ..Inputs::addresses() }
    }
}

/// Kinds of packets of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Other,
    Tcp,
    Udp,
    Sctp,
    Fragment,
}

const KINDS: usize = 5;

/// What is hashed of each kind, for IPv4 and IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Types([[Inputs; KINDS]; 2]);

impl Types {
    /// As packet types say.
    pub(crate) fn of_hena(types: u64) -> Types {
        let mut all = Types::default();
        for (network, shift) in [(Network::V4, 0), (Network::V6, hena::V6_SHIFT)] {
            let has = |bits: u64| types & bits << shift != 0;
            for (kind, on, inputs) in [
                (Kind::Other, has(hena::OTHER), Inputs::addresses()),
                (Kind::Tcp, has(hena::TCP | hena::TCP_SYN), Inputs::all()),
                (Kind::Udp, has(hena::UDP | hena::UDP_UNICAST | hena::UDP_MULTICAST), Inputs::all()),
                (Kind::Sctp, has(hena::SCTP), Inputs::all()),
                (Kind::Fragment, has(hena::FRAGMENT), Inputs::addresses()),
            ] {
                if on && let Some(place) = all.place(network, kind) {
                    *place = inputs;
                }
            }
        }
        all
    }

    fn place(&mut self, network: Network, kind: Kind) -> Option<&mut Inputs> {
        self.0.get_mut(usize::from(network == Network::V6))?.get_mut(kind as usize)
    }

    fn get(&self, network: Network, kind: Kind) -> Inputs {
        let of = self.0.get(usize::from(network == Network::V6)).and_then(|kinds| kinds.get(kind as usize));
        of.copied().unwrap_or_default()
    }

    /// What a packet has hashed; its kind's, else that of "other".
    fn of(&self, ip: &IpLayer) -> Option<Inputs> {
        let kind = match (ip.fragment, ip.protocol) {
            (Fragment::First | Fragment::Later, _) => Kind::Fragment,
            (_, IpProtocol::TCP) => Kind::Tcp,
            (_, IpProtocol::UDP) => Kind::Udp,
            (_, IpProtocol::SCTP) => Kind::Sctp,
            _ => Kind::Other,
        };
        [kind, Kind::Other]
            .into_iter()
            .map(|kind| self.get(ip.network, kind))
            .find(|inputs| !inputs.is_empty())
    }

    /// Sets, or clears, what a header stack says. `None` if it is none of the kinds or names other fields.
    pub(crate) fn set_stack(&mut self, config: &RssConfig, on: bool) -> Option<()> {
        // The innermost headers (DPDK's default) are the outer ones of what is in no tunnel, and nobody looks into tunnels.
        if config.stack.tunnel_level > 1 {
            return None;
        }
        let (mut network, mut kind, mut inputs) = (None, Kind::Other, Inputs::default());
        let mut hashes_protocol = false;
        let ends = field::SOURCE | field::DESTINATION;
        for one in &config.stack.headers {
            match (one.kind, network) {
                (header::ETH | header::S_VLAN | header::C_VLAN, None) if one.fields == 0 => continue,
                (header::IPV4 | header::IPV6, None) if one.fields & !(ends | field::PROTOCOL) == 0 => {
                    hashes_protocol = one.fields & field::PROTOCOL != 0;
                    network = Some(if one.kind == header::IPV4 { Network::V4 } else { Network::V6 });
                    inputs.source = one.fields & field::SOURCE != 0;
                    inputs.destination = one.fields & field::DESTINATION != 0;
                    continue;
                }
                (header::TCP, Some(_)) if kind == Kind::Other => kind = Kind::Tcp,
                (header::UDP, Some(_)) if kind == Kind::Other => kind = Kind::Udp,
                (header::SCTP, Some(_)) if kind == Kind::Other => kind = Kind::Sctp,
                (header::IPV4_FRAGMENT, Some(Network::V4)) if kind == Kind::Other && one.fields == 0 => {
                    kind = Kind::Fragment;
                    continue;
                }
                (header::IPV6_FRAGMENT, Some(Network::V6)) if kind == Kind::Other && one.fields == 0 => {
                    kind = Kind::Fragment;
                    continue;
                }
                _ => return None,
            }
            if one.fields & !ends != 0 {
                return None;
            }
            inputs.source_port = one.fields & field::SOURCE != 0;
            inputs.destination_port = one.fields & field::DESTINATION != 0;
        }
        inputs.symmetric = match config.algorithm {
            algorithm if algorithm == u32::from(RssHash::TOEPLITZ) => false,
            algorithm if algorithm == u32::from(RssHash::SYMMETRIC) => true,
            _ => return None,
        };
        // The protocol tells packets of one kind not apart, but those of "other".
        if on && (inputs.is_empty() || hashes_protocol && kind == Kind::Other) {
            return None;
        }
        *self.place(network?, kind)? = if on { inputs } else { Inputs::default() };
        Some(())
    }
}

/// What a driver configured.
#[derive(Clone, Debug)]
pub(crate) struct Rss {
    pub(crate) key: [u8; RSS_KEY_LEN],
    pub(crate) lut: [u8; RSS_LUT_LEN],
    pub(crate) types: Types,
    pub(crate) symmetric: bool,
}

impl Rss {
    /// How it is before a driver says anything: all types, the key that everybody knows, the queues in turn.
    pub(crate) fn new(queues: u16) -> Rss {
        let mut key = [0; RSS_KEY_LEN];
        let known = fabnic_wire::hash::MICROSOFT_KEY;
        key.iter_mut().zip(known.iter().cycle()).for_each(|(to, from)| *to = *from);
        let types = Types::of_hena(DEFAULT_HENA);
        let mut rss = Rss { key, lut: [0; RSS_LUT_LEN], types, symmetric: false };
        let queues = u8::try_from(queues.max(1)).unwrap_or(u8::MAX);
        rss.lut.iter_mut().zip((0..queues).cycle()).for_each(|(entry, queue)| *entry = queue);
        rss
    }
}

/// The same, made ready for frames.
pub(crate) struct Hasher {
    toeplitz: Box<Toeplitz>,
    lut: [u8; RSS_LUT_LEN],
    types: Types,
    symmetric: bool,
    /// TCP, and UDP, over IPv4 are hashed with all their addresses and ports.
    usual: [bool; 2],
}

impl core::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Hasher").field("types", &self.types).finish_non_exhaustive()
    }
}

impl Hasher {
    pub(crate) fn new(rss: &Rss) -> Hasher {
        // The longest input is 36 bytes, so that 40 of the key's 52 count.
        let mut key = [0; 40];
        key.iter_mut().zip(rss.key).for_each(|(to, from)| *to = from);
        let usual = |kind| !rss.symmetric && rss.types.get(Network::V4, kind) == Inputs::all();
        Hasher {
            usual: [usual(Kind::Tcp), usual(Kind::Udp)],
            toeplitz: Box::new(Toeplitz::new(&key)),
            lut: rss.lut,
            types: rss.types,
            symmetric: rss.symmetric,
        }
    }

    /// The queue for a hash.
    #[inline(always)]
    pub(crate) fn queue(&self, hash: u32) -> usize {
        // 64 entries.
        self.lut.get((hash & 63) as usize).copied().map_or(0, usize::from)
    }

    /// Whether TCP, or UDP, over IPv4 is hashed as it usually is.
    #[inline(always)]
    pub(crate) fn is_usual(&self, tcp: bool) -> bool {
        let [of_tcp, of_udp] = self.usual;
        if tcp { of_tcp } else { of_udp }
    }

    /// The bare hash.
    pub(crate) fn toeplitz(&self, input: &[u8]) -> u32 {
        self.toeplitz.hash(input)
    }

    /// The hash of a packet, if its type has one. Ports that are not within the head do not count.
    #[inline]
    pub(crate) fn hash(&self, head: &[u8], l3: usize, ip: &IpLayer) -> Option<u32> {
        let inputs = self.types.of(ip)?;
        let mut input = [0_u8; TOEPLITZ_INPUT_LEN];
        let (at, len) = match ip.network {
            Network::V4 => (l3 + 12, 4),
            Network::V6 => (l3 + 8, 16),
        };
        // What does not count is left out, so that the rest moves up: as hardware's extraction does.
        let mut used = 0;
        let mut take = |on: bool, at: usize, len: usize| {
            if on
                && let Some(from) = head.get(at..at + len)
                && let Some(to) = input.get_mut(used..used + len)
            {
                to.copy_from_slice(from);
                used += len;
            }
        };
        take(inputs.source, at, len);
        take(inputs.destination, at + len, len);
        let l4 = usize::from(ip.l4);
        take(inputs.source_port, l4, 2);
        take(inputs.destination_port, l4 + 2, 2);
        let whole = inputs.source && inputs.destination;
        let input = input.get_mut(..used)?;
        if (self.symmetric || inputs.symmetric) && whole {
            fold(input, 2 * len);
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
