//! Hashes that choose a queue: the Toeplitz hash of receive side scaling, and a cheap symmetric one of our own.
//!
//! [`Toeplitz`] is what a guest asks for by name (virtio 1.x section 5.1.6.5.6, Microsoft's "RSS hashing types"): the
//! result is visible to it, so it must be exact. [`flow_hash`] is for our own choices: it is the same in both
//! directions of a flow, so that a reply meets the worker that has the request's state in its cache.

use crate::{
    EtherType, IpProtocol, L2Key,
    bytes::array,
    layers::{self, Network},
    parse::{FlowFields, FlowFlags},
};

/// Bytes of the key that Microsoft publishes and every driver sends.
pub const TOEPLITZ_KEY_LEN: usize = 40;
/// The longest input that such a key can hash: two IPv6 addresses and two ports.
pub const TOEPLITZ_INPUT_LEN: usize = 36;

/// The key of the "Verifying the RSS hash calculation" page, which many drivers use as it is.
pub const MICROSOFT_KEY: [u8; TOEPLITZ_KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// A key, unrolled: what each value of each half byte of the input adds to the hash. 4.5 KiB.
#[derive(Clone)]
pub struct Toeplitz {
    table: [[[u32; 16]; 2]; TOEPLITZ_INPUT_LEN],
}

impl Toeplitz {
    /// Unrolls a key.
    pub fn new(key: &[u8; TOEPLITZ_KEY_LEN]) -> Toeplitz {
        let mut table = [[[0; 16]; 2]; TOEPLITZ_INPUT_LEN];
        for (at, halves) in table.iter_mut().enumerate() {
            // The 40 key bits that the eight bits of input byte `at` select their 32-bit windows from.
            let window = key.iter().skip(at).take(5).fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
            for (half, values) in halves.iter_mut().enumerate() {
                for (value, entry) in values.iter_mut().enumerate() {
                    for bit in 0..4 {
                        if value & (8 >> bit) != 0 {
                            // Bit 0 is the most significant of the byte and takes the window's upper 32 bits.
                            *entry ^= ((window >> (8 - 4 * half - bit)) & 0xffff_ffff) as u32;
                        }
                    }
                }
            }
        }
        Toeplitz { table }
    }

    /// Hashes the input; bytes behind the 36th are ignored.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let mut hash = 0;
        for ([high, low], byte) in self.table.iter().zip(input) {
            hash ^= high[usize::from(byte >> 4)] ^ low[usize::from(byte & 0xf)];
        }
        hash
    }

    /// The hash of a packet under the types that a guest enabled, and which type it is; zero and
    /// [`HashReport::None`] if none of them fits.
    ///
    /// Ports count only if they are known; a fragment falls back to its addresses.
    pub fn hash_flow(&self, fields: &FlowFields, types: HashTypes) -> (u32, HashReport) {
        let Some(network) = fields.network() else { return (0, HashReport::None) };
        let (ip, tcp, udp, len) = match network {
            Network::V4 => (HashTypes::IPV4, HashTypes::TCPV4, HashTypes::UDPV4, 4),
            Network::V6 => (HashTypes::IPV6, HashTypes::TCPV6, HashTypes::UDPV6, 16),
        };
        let with_ports = match fields.protocol() {
            _ if fields.flags.has(FlowFlags::FRAGMENT) || !fields.flags.has(FlowFlags::PORTS) => None,
            IpProtocol::TCP if types.has(tcp) => Some(tcp),
            IpProtocol::UDP if types.has(udp) => Some(udp),
            _ => None,
        };
        let kind = match with_ports {
            Some(kind) => kind,
            None if types.has(ip) => ip,
            None => return (0, HashReport::None),
        };
        let mut input = [0; TOEPLITZ_INPUT_LEN];
        let ports = fields.src_port.to_be_bytes().into_iter().chain(fields.dst_port.to_be_bytes());
        let addresses = fields.src.iter().take(len).chain(fields.dst.iter().take(len)).copied();
        let mut used = 0;
        for (to, from) in input.iter_mut().zip(addresses.chain(ports.filter(|_| with_ports.is_some()))) {
            *to = from;
            used += 1;
        }
        (self.hash(input.get(..used).unwrap_or(&[])), HashReport::of(kind))
    }
}

/// What a guest wants hashed: VIRTIO_NET_RSS_HASH_TYPE_* (virtio 1.x section 5.1.6.5.6.4). The `_EX` types, which
/// take addresses out of extension headers, are not offered.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HashTypes(pub u32);

impl HashTypes {
    /// IPv4 addresses.
    pub const IPV4: HashTypes = HashTypes(1);
    /// IPv4 addresses and TCP ports.
    pub const TCPV4: HashTypes = HashTypes(2);
    /// IPv4 addresses and UDP ports.
    pub const UDPV4: HashTypes = HashTypes(4);
    /// IPv6 addresses.
    pub const IPV6: HashTypes = HashTypes(8);
    /// IPv6 addresses and TCP ports.
    pub const TCPV6: HashTypes = HashTypes(16);
    /// IPv6 addresses and UDP ports.
    pub const UDPV6: HashTypes = HashTypes(32);
    /// All of these.
    pub const ALL: HashTypes = HashTypes(63);

    /// All bits of `types` are set.
    #[inline]
    pub const fn has(self, types: HashTypes) -> bool {
        self.0 & types.0 == types.0
    }
}

/// What was hashed: VIRTIO_NET_HASH_REPORT_* (virtio 1.x section 5.1.6.4.2).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum HashReport {
    /// Nothing.
    #[default]
    None = 0,
    /// IPv4 addresses.
    Ipv4 = 1,
    /// IPv4 addresses and TCP ports.
    TcpV4 = 2,
    /// IPv4 addresses and UDP ports.
    UdpV4 = 3,
    /// IPv6 addresses.
    Ipv6 = 4,
    /// IPv6 addresses and TCP ports.
    TcpV6 = 5,
    /// IPv6 addresses and UDP ports.
    UdpV6 = 6,
}

impl HashReport {
    const fn of(kind: HashTypes) -> HashReport {
        match kind {
            HashTypes::IPV4 => HashReport::Ipv4,
            HashTypes::TCPV4 => HashReport::TcpV4,
            HashTypes::UDPV4 => HashReport::UdpV4,
            HashTypes::IPV6 => HashReport::Ipv6,
            HashTypes::TCPV6 => HashReport::TcpV6,
            HashTypes::UDPV6 => HashReport::UdpV6,
            _ => HashReport::None,
        }
    }
}

// Odd random constants: the fractional digits of pi.
const K0: u64 = 0x243f_6a88_85a3_08d3;
const K1: u64 = 0x1319_8a2e_0370_7345;
const K2: u64 = 0xa409_3822_299f_31d1;

/// A hash of a frame's flow that is the same in both directions.
///
/// From addresses, protocol and ports; of a fragment (the first included) from addresses and protocol, so that a
/// datagram stays together; of what is not IP from the MAC addresses and the type. Cheap and well spread, but not
/// keyed: do not use it where a sender who looks for collisions could do harm.
///
/// Under the same conditions as [`flow_hash_of`] of [`FlowFields::of`] the result is the same; this way is shorter.
#[inline]
pub fn flow_hash(head: &[u8]) -> u32 {
    let (l3, ethertype) = layers::network(head);
    match ethertype {
        EtherType::IPV4 => flow_hash_v4(head, l3),
        EtherType::IPV6 => flow_hash_v6(head, l3),
        _ => None,
    }
    .unwrap_or_else(|| flow_hash_slow(head))
}

#[inline]
fn flow_hash_v4(head: &[u8], l3: usize) -> Option<u32> {
    let [version_ihl, _, _, _, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *array::<20>(head, l3)?;
    if !(0x45..=0x4f).contains(&version_ihl) {
        return None;
    }
    let l4 = l3 + usize::from(version_ihl & 0xf) * 4;
    let whole = u16::from_be_bytes([f0, f1]) & 0x3fff == 0;
    let [p0, p1, p2, p3] = match array(head, l4) {
        Some(ports) if whole && IpProtocol(protocol).has_ports() => *ports,
        _ => [0; 4],
    };
    let (src, dst) = (u32::from_ne_bytes([s0, s1, s2, s3]), u32::from_ne_bytes([d0, d1, d2, d3]));
    Some(both(
        end_of_flow(src.into(), 0, u16::from_be_bytes([p0, p1])),
        end_of_flow(dst.into(), 0, u16::from_be_bytes([p2, p3])),
        protocol.into(),
    ))
}

/// Without extension headers.
#[inline]
fn flow_hash_v6(head: &[u8], l3: usize) -> Option<u32> {
    let header: &[u8; 44] = array(head, l3)?;
    let word = |at| array(header, at).map(|bytes| u64::from_ne_bytes(*bytes));
    let [version, _, _, _, _, _, next, ..] = *header;
    if version >> 4 != 6 || !IpProtocol(next).has_ports() {
        return None;
    }
    let [p0, p1, p2, p3] = *array(header, 40)?;
    Some(both(
        end_of_flow(word(8)?, word(16)?, u16::from_be_bytes([p0, p1])),
        end_of_flow(word(24)?, word(32)?, u16::from_be_bytes([p2, p3])),
        next.into(),
    ))
}

#[inline(never)]
fn flow_hash_slow(head: &[u8]) -> u32 {
    let fields = FlowFields::of(head);
    if fields.network().is_some() {
        return flow_hash_of(&fields);
    }
    let key = L2Key::of(head).unwrap_or_default();
    both(mix(key.src.to_u64(), K1), mix(key.dst.to_u64(), K1), u64::from(key.ethertype.0) << 8)
}

/// [`flow_hash`] of an IP packet whose fields are at hand.
#[inline]
pub fn flow_hash_of(fields: &FlowFields) -> u32 {
    let ports = fields.flags.has(FlowFlags::PORTS)
        && !fields.flags.has(FlowFlags::FRAGMENT)
        && fields.protocol().has_ports();
    let (src_port, dst_port) = if ports { (fields.src_port, fields.dst_port) } else { (0, 0) };
    let [s0, s1, d0, d1, _] = fields.words();
    both(end_of_flow(s0, s1, src_port), end_of_flow(d0, d1, dst_port), fields.protocol_number.into())
}

/// One end: an address, as two words in memory order, and a port.
#[inline]
fn end_of_flow(low: u64, high: u64, port: u16) -> u64 {
    mix(low ^ u64::from(port) << 48 ^ u64::from(port), high ^ K1)
}

/// Both ends, in either order, and the protocol.
#[inline]
fn both(one: u64, other: u64, protocol: u64) -> u32 {
    (mix(one.wrapping_add(other) ^ protocol, K2) >> 32) as u32
}

/// A folded multiplication.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ K0) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Verifying the RSS hash calculation": (destination, source, with IP only, with TCP).
    const VECTORS_V4: [(&str, &str, u32, u32); 5] = [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e8fc2, 0x51ccc178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718262a, 0xc626b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0a5de, 0x5c2b394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0x82989176, 0xafc7327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d1809c5, 0x10e828a2),
    ];
    const VECTORS_V6: [(&str, &str, u32, u32); 3] = [
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc18cd5, 0x40207d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c461c, 0xdde51bbf),
        (
            "[fe80::200:f8ff:fe21:67cf]:38024",
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            0x4b61e985,
            0x02d1feef,
        ),
    ];

    fn fields(src: &str, dst: &str) -> FlowFields {
        let (src, dst): (std::net::SocketAddr, std::net::SocketAddr) =
            (src.parse().unwrap(), dst.parse().unwrap());
        let mut fields = FlowFields {
            src_port: src.port(),
            dst_port: dst.port(),
            protocol_number: 6,
            flags: FlowFlags(FlowFlags::IP.0 | FlowFlags::PORTS.0),
            ..Default::default()
        };
        match (src.ip(), dst.ip()) {
            (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
                fields.src[..4].copy_from_slice(&src.octets());
                fields.dst[..4].copy_from_slice(&dst.octets());
            }
            (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
                fields.flags.0 |= FlowFlags::V6.0;
                fields.src = src.octets();
                fields.dst = dst.octets();
            }
            _ => panic!("mixed"),
        }
        fields
    }

    #[test]
    fn microsofts_vectors() {
        let toeplitz = Toeplitz::new(&MICROSOFT_KEY);
        for (dst, src, ip, tcp) in VECTORS_V4 {
            let fields = fields(src, dst);
            assert_eq!(toeplitz.hash_flow(&fields, HashTypes::IPV4), (ip, HashReport::Ipv4), "{src}");
            assert_eq!(toeplitz.hash_flow(&fields, HashTypes::ALL), (tcp, HashReport::TcpV4), "{src}");
        }
        for (dst, src, ip, tcp) in VECTORS_V6 {
            let fields = fields(src, dst);
            assert_eq!(toeplitz.hash_flow(&fields, HashTypes::IPV6), (ip, HashReport::Ipv6), "{src}");
            assert_eq!(toeplitz.hash_flow(&fields, HashTypes::ALL), (tcp, HashReport::TcpV6), "{src}");
        }
    }

    #[test]
    fn fragments_and_types_not_asked_for() {
        let toeplitz = Toeplitz::new(&MICROSOFT_KEY);
        let mut fields = fields("66.9.149.187:2794", "161.142.100.80:1766");
        assert_eq!(toeplitz.hash_flow(&fields, HashTypes::TCPV6), (0, HashReport::None));
        assert_eq!(toeplitz.hash_flow(&fields, HashTypes::UDPV4), (0, HashReport::None));
        fields.flags.0 |= FlowFlags::FRAGMENT.0;
        assert_eq!(toeplitz.hash_flow(&fields, HashTypes::ALL), (0x323e8fc2, HashReport::Ipv4));
    }

    /// The definition, bit by bit.
    fn slow_toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
        let mut hash = 0;
        for bit in 0..input.len() * 8 {
            if input[bit / 8] & (0x80 >> (bit % 8)) != 0 {
                for out in 0..32 {
                    let key_bit = bit + out;
                    hash ^= u32::from(key[key_bit / 8] >> (7 - key_bit % 8) & 1) << (31 - out);
                }
            }
        }
        hash
    }

    proptest::proptest! {
        #[test]
        fn table_is_definition(key: [u8; 40], input in proptest::collection::vec(0_u8.., 0..=36)) {
            assert_eq!(Toeplitz::new(&key).hash(&input), slow_toeplitz(&key, &input));
        }

        #[test]
        fn both_directions_are_equal(a: std::net::SocketAddrV6, b: std::net::SocketAddrV6) {
            let (a, b) = (a.to_string(), b.to_string());
            assert_eq!(flow_hash_of(&fields(&a, &b)), flow_hash_of(&fields(&b, &a)));
        }
    }

    proptest::proptest! {
        #[test]
        fn short_way_is_the_long_way(
            tags in 0_usize..=3, version_ihl in 0x43_u8..0x52, protocol in 0_usize..6, fragment in 0_usize..5,
            len in 0_usize..120, bytes: [u8; 32], v6: bool,
        ) {
            let mut head = bytes[..12].to_vec();
            for _ in 0..tags {
                head.extend([0x81, 0, 0, 1]);
            }
            let [f0, f1] = [[0, 0], [0x40, 0], [0x20, 0], [0, 1], [0x20, 8]][fragment];
            let protocol = [6, 17, 1, 58, 132, 47][protocol];
            if v6 {
                head.extend([0x86, 0xdd, version_ihl ^ 0x20, 0, 0, 0, 0, 40, protocol, 64]);
            } else {
                head.extend([8, 0, version_ihl, 0, 0, 40, 0, 0, f0, f1, 64, protocol, 0, 0]);
                head.extend(&bytes[..8]);
            }
            head.extend(bytes.repeat(3));
            head.truncate(len);
            let fields = FlowFields::of(&head);
            if fields.network().is_some() {
                assert_eq!(flow_hash(&head), flow_hash_of(&fields));
            } else {
                assert_eq!(flow_hash(&head), flow_hash_slow(&head));
            }
        }
    }

    #[test]
    fn flows_spread() {
        // Neighbouring addresses and ports, as a rack has them, over 16 queues: every queue gets close to its part.
        let mut queues = [0_u32; 16];
        for host in 0..64 {
            for port in 0..64 {
                let (src, dst) =
                    (format!("10.0.0.{host}:{}", 40000 + port), format!("10.0.0.{}:80", host ^ 1));
                queues[flow_hash_of(&fields(&src, &dst)) as usize % 16] += 1;
            }
        }
        assert!(queues.iter().all(|&flows| (128..512).contains(&flows)), "{queues:?}");
    }
}
