//! What a frame is, for its receive descriptor: the packet type, and which checksums can be looked at.

use fabnic_avf_spec::packet_type;
use fabnic_wire::checksum::{Sum, ipv4_header_is_valid, pseudo_header};
use fabnic_wire::layers::{Fragment, IpLayer, Network};
use fabnic_wire::offload::DATA_VALID;
use fabnic_wire::{EtherType, IpProtocol, Layers, Offload};

/// How the transport's checksum is found out. Offsets are those of the frame as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    /// It cannot be: the driver looks for itself.
    Unknown,
    /// There is none, or it is known to be right.
    Good,
    /// The sum over `len` bytes from `from` on, and `seed`, must be all ones.
    Sum { from: usize, len: usize, seed: Sum },
    /// CRC-32C over `len` bytes from `from` on.
    Sctp { from: usize, len: usize },
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) packet_type: u8,
    /// The IPv4 header checksum is wrong.
    pub(crate) bad_ip: bool,
    pub(crate) transport: Transport,
}

fn packet_type(layers: &Layers) -> u8 {
    let Some(ip) = layers.ip else {
        return match layers.ethertype {
            EtherType::ARP => packet_type::ARP,
            // Headers that were not understood: the driver looks for itself.
            EtherType::IPV4 | EtherType::IPV6 => packet_type::UNKNOWN,
            _ => packet_type::L2,
        };
    };
    let base = match (ip.fragment, ip.protocol) {
        (Fragment::First | Fragment::Later, _) => packet_type::IPV4_FRAGMENT,
        (_, IpProtocol::UDP) => packet_type::IPV4_UDP,
        (_, IpProtocol::TCP) => packet_type::IPV4_TCP,
        (_, IpProtocol::SCTP) => packet_type::IPV4_SCTP,
        (_, IpProtocol::ICMP) if ip.network == Network::V4 => packet_type::IPV4_ICMP,
        (_, IpProtocol::ICMPV6) if ip.network == Network::V6 => packet_type::IPV4_ICMP,
        _ => packet_type::IPV4,
    };
    if ip.network == Network::V6 { base + packet_type::IPV6 } else { base }
}

/// Bytes of the transport header and its payload, as the IP header says.
fn transport_len(head: &[u8], l3: usize, ip: &IpLayer) -> Option<usize> {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes(head.get(at..at + 2)?.try_into().ok()?)));
    let end = match ip.network {
        Network::V4 => l3 + word(l3 + 2)?,
        Network::V6 => l3 + 40 + word(l3 + 4)?,
    };
    end.checked_sub(usize::from(ip.l4))
}

/// Looks at a frame of `len` bytes with these first ones. `offload` is what its sender left to do: if that is the
/// checksum of this very header, it will be right when it is done.
#[inline]
pub(crate) fn classify(head: &[u8], len: usize, layers: &Layers, offload: &Offload) -> Kind {
    let packet_type = packet_type(layers);
    let l3 = usize::from(layers.l3);
    let Some(ip) = layers.ip else {
        return Kind { packet_type, bad_ip: false, transport: Transport::Unknown };
    };
    let l4 = usize::from(ip.l4);
    let bad_ip =
        ip.network == Network::V4 && !offload.is_gso() && !head.get(l3..l4).is_some_and(ipv4_header_is_valid);
    let transport = match (ip.fragment, ip.protocol) {
        (Fragment::No, IpProtocol::TCP | IpProtocol::UDP) => {
            if offload.needs_csum() {
                // Of another header, that of a tunnel's content, it says nothing.
                let own = usize::from(offload.csum_start) == l4;
                if own { Transport::Good } else { Transport::Unknown }
            } else if offload.flags & DATA_VALID != 0 {
                Transport::Good
            } else {
                sum(head, len, layers.l3, &ip).unwrap_or(Transport::Unknown)
            }
        }
        (Fragment::No, IpProtocol::SCTP) => match transport_len(head, l3, &ip) {
            Some(size) if size >= 12 && l4 + size <= len => Transport::Sctp { from: l4, len: size },
            _ => Transport::Unknown,
        },
        _ => Transport::Good,
    };
    Kind { packet_type, bad_ip, transport }
}

fn sum(head: &[u8], len: usize, l3: u16, ip: &IpLayer) -> Option<Transport> {
    let from = usize::from(ip.l4);
    let size = transport_len(head, l3.into(), ip)?;
    if size < ip.protocol.min_header_len() || from + size > len {
        return None;
    }
    if ip.protocol == IpProtocol::UDP {
        // No checksum, which only IPv4 allows; a length of its own that says something else is left to the driver.
        let udp = head.get(from..from + 8)?;
        if udp.get(6..8)? == [0, 0] {
            return Some(if ip.network == Network::V4 { Transport::Good } else { Transport::Unknown });
        }
        if usize::from(u16::from_be_bytes(udp.get(4..6)?.try_into().ok()?)) != size {
            return None;
        }
    }
    let seed = pseudo_header(head, l3, ip, u16::try_from(size).ok()?)?;
    Some(Transport::Sum { from, len: size, seed })
}
