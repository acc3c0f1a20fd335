//! Where the headers of a frame begin.
//!
//! [`Layers::of`] walks a head once, through up to two tags, IPv4 options and a bounded number of IPv6 extension
//! headers, and remembers the offsets. What needs more than the flow key (offload validation, segmentation, the
//! dissector) starts from it.

use crate::{
    EtherType, IpProtocol,
    bytes::{be16, u8_at},
    ethernet::{ETHERNET_LEN, TAG_LEN, TAG_OFFSET},
    ip::extension_len,
};

/// How many tags are looked through. A third one is an unknown EtherType.
pub const MAX_TAGS: u8 = 2;
/// How many IPv6 extension headers are looked through; RFC 8200 section 4.1 knows six kinds, of which one may
/// appear twice. More make the packet one without a known L4.
pub const MAX_EXTENSIONS: usize = 8;

/// Which internet protocol follows Ethernet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A packet's place among the fragments of a datagram.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// The whole datagram.
    #[default]
    No,
    /// The first one: the L4 header is here, the payload is not complete.
    First,
    /// A later one: no L4 header, the bytes at `l4` are payload.
    Later,
}

/// What follows Ethernet, with its offset.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The last EtherType, that of what lies at `l3`.
    pub ethertype: EtherType,
    /// Tags that were looked through, 0 to 2.
    pub tags: u8,
    /// Offset of the network header: 14, 18 or 22.
    pub l3: u16,
    /// The internet layer, if its whole header chain lies within the head and is well formed.
    pub ip: Option<IpLayer>,
}

/// The internet layer of a frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct IpLayer {
    /// IPv4 or IPv6.
    pub network: Network,
    /// What lies at `l4`.
    pub protocol: IpProtocol,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Offset of what follows the IP header with its options or extension headers.
    pub l4: u16,
}

impl Layers {
    /// Walks a head; nothing if there is not even an Ethernet header with its tags.
    pub fn of(head: &[u8]) -> Option<Layers> {
        let mut at = TAG_OFFSET;
        let mut ethertype = EtherType(be16(head, at)?);
        let mut tags = 0;
        while ethertype.is_tag() && tags < MAX_TAGS {
            at += TAG_LEN;
            ethertype = EtherType(be16(head, at)?);
            tags += 1;
        }
        let l3 = ETHERNET_LEN + TAG_LEN * usize::from(tags);
        let ip = match ethertype {
            EtherType::IPV4 => ipv4(head, l3),
            EtherType::IPV6 => ipv6(head, l3),
            _ => None,
        };
        Some(Layers { ethertype, tags, l3: u16::try_from(l3).ok()?, ip })
    }
}

/// Where the network header begins and what it is, through up to two tags; type 0 if that lies behind the head.
#[inline]
pub(crate) fn network(head: &[u8]) -> (usize, EtherType) {
    let mut l3 = ETHERNET_LEN;
    let mut ethertype = EtherType(be16(head, l3 - 2).unwrap_or(0));
    for _ in 0..MAX_TAGS {
        if !ethertype.is_tag() {
            break;
        }
        l3 += TAG_LEN;
        ethertype = EtherType(be16(head, l3 - 2).unwrap_or(0));
    }
    (l3, ethertype)
}

fn ipv4(head: &[u8], l3: usize) -> Option<IpLayer> {
    let version_ihl = u8_at(head, l3)?;
    let header_len = usize::from(version_ihl & 0xf) * 4;
    if version_ihl >> 4 != 4 || header_len < 20 {
        return None;
    }
    let flags_offset = be16(head, l3 + 6)?;
    let protocol = IpProtocol(u8_at(head, l3 + 9)?);
    let l4 = l3 + header_len;
    // The whole header, options included, must be in hand.
    head.get(..l4)?;
    let fragment = match (flags_offset & 0x1fff, flags_offset & 0x2000) {
        (0, 0) => Fragment::No,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    Some(IpLayer { network: Network::V4, protocol, fragment, l4: u16::try_from(l4).ok()? })
}

pub(crate) fn ipv6(head: &[u8], l3: usize) -> Option<IpLayer> {
    if u8_at(head, l3)? >> 4 != 6 {
        return None;
    }
    let mut protocol = IpProtocol(u8_at(head, l3 + 6)?);
    let mut at = l3 + 40;
    let mut fragment = Fragment::No;
    head.get(..at)?;
    for _ in 0..=MAX_EXTENSIONS {
        let rest = head.get(at..)?;
        if !protocol.is_extension() {
            let l4 = u16::try_from(at).ok()?;
            return Some(IpLayer { network: Network::V6, protocol, fragment, l4 });
        }
        let len = extension_len(protocol, rest)?;
        if protocol == IpProtocol::FRAGMENT {
            let offset_more = be16(rest, 2)?;
            fragment = match (offset_more & 0xfff8, offset_more & 1) {
                // An "atomic" fragment (RFC 6946) is a whole datagram.
                (0, 0) => fragment,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
        }
        protocol = IpProtocol(u8_at(rest, 0)?);
        at += len;
        head.get(..at)?;
        if fragment == Fragment::Later {
            // What follows is a piece out of the middle: its bytes are not headers.
            let l4 = u16::try_from(at).ok()?;
            return Some(IpLayer { network: Network::V6, protocol, fragment, l4 });
        }
    }
    None
}
