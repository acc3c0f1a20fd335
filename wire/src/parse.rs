//! What switching needs to know of a frame, in one pass over its head.
//!
//! [`L2Key`] is what every frame is looked at for; it costs a few loads. [`FlowFields`] goes up to the ports and is
//! the exact key of a flow: equal fields, equal decision.
//!
//! # Invariants
//! - A field that is not known is zero *and* its flag in [`FlowFlags`] says so. Bytes behind the head, of a later
//!   fragment or of a broken header never look like ports.
//! - `FlowFields` has no padding: it can be hashed and compared as bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    EtherType, IpProtocol, MacAddr, Tci,
    bytes::array,
    ethernet::{ETHERNET_LEN, TAG_LEN},
    layers::{self, Fragment, Network},
};

/// The addresses, the VLAN tag and the type of a frame.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct L2Key {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// The 802.1Q tag right behind the addresses. An 802.1ad service tag is not one: for a bridge of customer VLANs
    /// it is an EtherType like any other (IEEE 802.1Q section 5.10).
    pub tag: Option<Tci>,
    /// What follows the addresses and that tag.
    pub ethertype: EtherType,
}

impl L2Key {
    /// Reads the key; nothing if the frame is shorter than its Ethernet header.
    #[inline]
    pub fn of(head: &[u8]) -> Option<L2Key> {
        let fixed: &[u8; ETHERNET_LEN] = head.first_chunk()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *fixed;
        let ethertype = EtherType(u16::from_be_bytes([t0, t1]));
        let mut key = L2Key {
            dst: MacAddr([d0, d1, d2, d3, d4, d5]),
            src: MacAddr([s0, s1, s2, s3, s4, s5]),
            tag: None,
            ethertype,
        };
        if ethertype == EtherType::VLAN {
            let [i0, i1, t0, t1] = *array::<TAG_LEN>(head, ETHERNET_LEN)?;
            key.tag = Some(Tci(u16::from_be_bytes([i0, i1])));
            key.ethertype = EtherType(u16::from_be_bytes([t0, t1]));
        }
        Some(key)
    }

    /// Offset of what follows: 14, or 18 behind a tag.
    #[inline]
    pub const fn header_len(&self) -> usize {
        match self.tag {
            None => ETHERNET_LEN,
            Some(_) => ETHERNET_LEN + TAG_LEN,
        }
    }
}

/// What is known of a packet's L3 and L4.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct FlowFlags(pub u8);

impl FlowFlags {
    /// The IP header is there and well formed.
    pub const IP: FlowFlags = FlowFlags(1);
    /// It is IPv6.
    pub const V6: FlowFlags = FlowFlags(2);
    /// The ports (or ICMP type and code) are there.
    pub const PORTS: FlowFlags = FlowFlags(4);
    /// A fragment, first or later.
    pub const FRAGMENT: FlowFlags = FlowFlags(8);
    /// A fragment without L4 header.
    pub const LATER: FlowFlags = FlowFlags(16);
    /// The EtherType says IP, or the protocol has ports, but the header is cut off, broken or behind the head.
    pub const MALFORMED: FlowFlags = FlowFlags(32);

    /// All bits of `flags` are set.
    #[inline]
    pub const fn has(self, flags: FlowFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    #[inline]
    const fn with(self, flags: FlowFlags) -> FlowFlags {
        FlowFlags(self.0 | flags.0)
    }
}

/// The exact L3-L4 key of a flow. Zero for what is not IP.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowFields {
    /// Source address; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Destination address; IPv4 in the first four bytes.
    pub dst: [u8; 16],
    /// Source port of TCP, UDP and SCTP; type of ICMP.
    pub src_port: u16,
    /// Destination port; code of ICMP.
    pub dst_port: u16,
    /// The number behind [`FlowFields::protocol`].
    pub protocol_number: u8,
    /// Type of service or traffic class: DSCP (6 bits), ECN (2 bits).
    pub tos: u8,
    /// What of this is known.
    pub flags: FlowFlags,
    /// Always zero.
    pub reserved: u8,
}

impl FlowFields {
    /// Reads the fields of a frame, through up to two tags.
    #[inline]
    pub fn of(head: &[u8]) -> FlowFields {
        let (l3, ethertype) = layers::network(head);
        Self::at(head, l3, ethertype)
    }

    /// Reads the fields of a packet of type `ethertype` whose network header begins at `l3`, as after
    /// [`L2Key::header_len`].
    #[inline]
    pub fn at(head: &[u8], l3: usize, ethertype: EtherType) -> FlowFields {
        match ethertype {
            EtherType::IPV4 => Self::v4(head, l3),
            EtherType::IPV6 => Self::v6(head, l3),
            _ => FlowFields::default(),
        }
    }

    /// The protocol behind the IP header and its extensions.
    #[inline]
    pub const fn protocol(&self) -> IpProtocol {
        IpProtocol(self.protocol_number)
    }

    /// Differentiated services code point, 0 to 63.
    #[inline]
    pub const fn dscp(&self) -> u8 {
        self.tos >> 2
    }

    /// Explicit congestion notification, 0 to 3.
    #[inline]
    pub const fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// All fields as five words, the same for the same fields: to be hashed and compared. Cheaper than the bytes of a
    /// value that has just been put together, which would have to go through memory first.
    #[inline]
    pub const fn words(&self) -> [u64; 5] {
        let (src, dst) = (u128::from_ne_bytes(self.src), u128::from_ne_bytes(self.dst));
        // Shifts put every field at a place of its own.
        let ports = (self.src_port as u64) | ((self.dst_port as u64) << 16);
        let rest =
            (self.protocol_number as u64) << 32 | (self.tos as u64) << 40 | (self.flags.0 as u64) << 48;
        [src as u64, (src >> 64) as u64, dst as u64, (dst >> 64) as u64, ports | rest]
    }

    /// Which IP, if it is IP and well formed.
    #[inline]
    pub const fn network(&self) -> Option<Network> {
        match (self.flags.has(FlowFlags::IP), self.flags.has(FlowFlags::V6)) {
            (false, _) => None,
            (true, false) => Some(Network::V4),
            (true, true) => Some(Network::V6),
        }
    }

    /// An IP packet without a whole IP header.
    const BROKEN: FlowFields = FlowFields {
        src: [0; 16],
        dst: [0; 16],
        src_port: 0,
        dst_port: 0,
        protocol_number: 0,
        tos: 0,
        flags: FlowFlags::MALFORMED,
        reserved: 0,
    };

    #[inline]
    fn v4(head: &[u8], l3: usize) -> FlowFields {
        let Some(header) = array::<20>(head, l3) else { return Self::BROKEN };
        let [version_ihl, tos, _, _, _, _, f0, f1, _, protocol, ..] = *header;
        let header_len = usize::from(version_ihl & 0xf) * 4;
        // One comparison for both: the version must be 4 and the length at least 5 words.
        if !(0x45..=0x4f).contains(&version_ihl) {
            return Self::BROKEN;
        }
        let fragment = u16::from_be_bytes([f0, f1]) & 0x3fff;
        let mut flags = FlowFlags::IP;
        if fragment != 0 {
            flags = flags.with(FlowFlags::FRAGMENT);
            if fragment & 0x1fff != 0 {
                flags = flags.with(FlowFlags::LATER);
            }
        }
        let l4 = l4_fields(head, l3 + header_len, IpProtocol(protocol), flags);
        FlowFields {
            src: address_v4(header, 12),
            dst: address_v4(header, 16),
            src_port: l4.src_port,
            dst_port: l4.dst_port,
            protocol_number: protocol,
            tos,
            flags: l4.flags,
            reserved: 0,
        }
    }

    #[inline]
    fn v6(head: &[u8], l3: usize) -> FlowFields {
        let Some(header) = array::<40>(head, l3) else { return Self::BROKEN };
        let ([class0, class1, _, _, _, _, next, _], Some(src), Some(dst)) =
            (*header.first_chunk().unwrap_or(&[0; 8]), array(header, 8), array(header, 24))
        else {
            return Self::BROKEN;
        };
        if class0 >> 4 != 6 {
            return Self::BROKEN;
        }
        let mut flags = FlowFlags::IP.with(FlowFlags::V6);
        let (mut protocol, mut l4) = (IpProtocol(next), l3 + 40);
        // The usual case first; anything else may be a chain of extension headers.
        if !matches!(protocol, IpProtocol::TCP | IpProtocol::UDP) {
            match layers::ipv6(head, l3) {
                Some(ip) => {
                    (protocol, l4) = (ip.protocol, ip.l4.into());
                    flags = flags.with(match ip.fragment {
                        Fragment::No => FlowFlags(0),
                        Fragment::First => FlowFlags::FRAGMENT,
                        Fragment::Later => FlowFlags::FRAGMENT.with(FlowFlags::LATER),
                    });
                }
                // Behind any head: there is nothing to be read.
                None => l4 = usize::MAX,
            }
        }
        let l4 = l4_fields(head, l4, protocol, flags);
        FlowFields {
            src: *src,
            dst: *dst,
            src_port: l4.src_port,
            dst_port: l4.dst_port,
            protocol_number: protocol.0,
            tos: class0 << 4 | class1 >> 4,
            flags: l4.flags,
            reserved: 0,
        }
    }
}

struct L4Fields {
    src_port: u16,
    dst_port: u16,
    flags: FlowFlags,
}

/// What lies at `l4`, and the flags with what is known of it.
#[inline(always)]
fn l4_fields(head: &[u8], l4: usize, protocol: IpProtocol, flags: FlowFlags) -> L4Fields {
    let none = L4Fields { src_port: 0, dst_port: 0, flags };
    let cut_off = L4Fields { flags: flags.with(FlowFlags::MALFORMED), ..none };
    let with_ports = flags.with(FlowFlags::PORTS);
    if flags.has(FlowFlags::LATER) || !protocol.has_ports() {
        if protocol.is_icmp() && !flags.has(FlowFlags::LATER) {
            let Some(&[kind, code]) = array(head, l4) else { return cut_off };
            return L4Fields { src_port: kind.into(), dst_port: code.into(), flags: with_ports };
        }
        return if l4 <= head.len() { none } else { cut_off };
    }
    let Some(&[s0, s1, d0, d1]) = array(head, l4) else { return cut_off };
    L4Fields {
        src_port: u16::from_be_bytes([s0, s1]),
        dst_port: u16::from_be_bytes([d0, d1]),
        flags: with_ports,
    }
}

/// The four bytes at `at`, and twelve of zero.
#[inline(always)]
fn address_v4(header: &[u8; 20], at: usize) -> [u8; 16] {
    let mut address = [0; 16];
    if let (Some(to), Some(from)) = (address.first_chunk_mut::<4>(), array(header, at)) {
        *to = *from;
    }
    address
}

#[cfg(test)]
mod tests;
