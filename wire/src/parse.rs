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
    bytes::{array, be16},
    ethernet::{ETHERNET_LEN, TAG_LEN},
    layers::{self, Fragment, MAX_TAGS, Network},
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
        let mut at = ETHERNET_LEN;
        let mut ethertype = EtherType(be16(head, at - 2).unwrap_or(0));
        for _ in 0..MAX_TAGS {
            if !ethertype.is_tag() {
                break;
            }
            at += TAG_LEN;
            ethertype = EtherType(be16(head, at - 2).unwrap_or(0));
        }
        Self::at(head, at, ethertype)
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
        let [version_ihl, tos, _, _, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *header;
        let header_len = usize::from(version_ihl & 0xf) * 4;
        if version_ihl >> 4 != 4 || header_len < 20 {
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
        let fields = FlowFields {
            src: [s0, s1, s2, s3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            dst: [d0, d1, d2, d3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            protocol_number: protocol,
            tos,
            flags,
            ..Default::default()
        };
        fields.with_ports(head, l3 + header_len)
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
        let mut fields = FlowFields {
            src: *src,
            dst: *dst,
            protocol_number: next,
            tos: class0 << 4 | class1 >> 4,
            flags: FlowFlags::IP.with(FlowFlags::V6),
            ..Default::default()
        };
        if matches!(fields.protocol(), IpProtocol::TCP | IpProtocol::UDP) {
            return fields.with_ports(head, l3 + 40);
        }
        let Some(ip) = layers::ipv6(head, l3) else {
            fields.flags = fields.flags.with(FlowFlags::MALFORMED);
            return fields;
        };
        fields.protocol_number = ip.protocol.0;
        fields.flags = fields.flags.with(match ip.fragment {
            Fragment::No => FlowFlags(0),
            Fragment::First => FlowFlags::FRAGMENT,
            Fragment::Later => FlowFlags::FRAGMENT.with(FlowFlags::LATER),
        });
        fields.with_ports(head, ip.l4.into())
    }

    /// Adds what lies at `l4`.
    #[inline]
    fn with_ports(mut self, head: &[u8], l4: usize) -> FlowFields {
        let ports = match self.protocol() {
            _ if self.flags.has(FlowFlags::LATER) => head.get(..l4).map(|_| None),
            IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP => array(head, l4)
                .map(|&[s0, s1, d0, d1]| Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))),
            IpProtocol::ICMP | IpProtocol::ICMPV6 => {
                array(head, l4).map(|&[kind, code]| Some((u16::from(kind), u16::from(code))))
            }
            _ => head.get(..l4).map(|_| None),
        };
        match ports {
            Some(Some((src, dst))) => {
                (self.src_port, self.dst_port) = (src, dst);
                self.flags = self.flags.with(FlowFlags::PORTS);
            }
            Some(None) => {}
            None => self.flags = self.flags.with(FlowFlags::MALFORMED),
        }
        self
    }
}

#[cfg(test)]
mod tests;
