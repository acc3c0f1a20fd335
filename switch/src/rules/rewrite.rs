//! Sets fields of a frame, with its checksums by difference (RFC 1624).
//!
//! ```text
//!   | dst | src | tags | IP: tos ttl [checksum] src dst | ports [checksum] ...
//!                             '--- header sum ---'---'  '--- L4 sum, with the addresses as pseudo header
//! ```
//!
//! Only what the private head holds is read or written. A checksum that was wrong stays wrong by as much: a rewritten frame
//! is not more trustworthy than it was.
//!
//! The VLAN and the priority of its tag are not in the head until a port writes them there ([`crate::dress`]): they are told
//! beside it.
//!
//! # What differs from frame to frame
//! * UDP's checksum 0 says that there is none (RFC 768, RFC 6935) and stays; one that becomes 0 is written 0xffff.
//! * A partial checksum (NEEDS_CSUM) holds the sum of the pseudo header: addresses change it, ports do not.
//! * A later fragment has no L4 header, so only its addresses change. The first one has the checksum of the whole.
//! * While an IPv6 packet is on a route, the checksum is of its last destination, not of the one in its header.

use fabnic_wire::{
    Fields, FlowFlags, IpProtocol, MacAddr, Offload, Vid, checksum::Sum, ip::has_route, layers::Network,
};

use super::rule::Set;

/// What is to become of the TTL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ttl {
    #[default]
    Keep,
    /// So much less.
    Less(u8),
    Set(u8),
}

/// Fields to be set, in one pass. The last of several settings of a field counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rewrite {
    dst_mac: Option<MacAddr>,
    src_mac: Option<MacAddr>,
    vlan: Option<Vid>,
    pcp: Option<u8>,
    src_ip4: Option<[u8; 4]>,
    dst_ip4: Option<[u8; 4]>,
    src_ip6: Option<[u8; 16]>,
    dst_ip6: Option<[u8; 16]>,
    /// Value and mask.
    tos: (u8, u8),
    ttl: Ttl,
    src_port: Option<u16>,
    dst_port: Option<u16>,
}

/// The frame cannot be rewritten: a checksum that must change lies behind what the switch holds of it, or in another
/// fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfReach;

impl Rewrite {
    pub(crate) fn set(&mut self, set: Set) {
        match set {
            Set::DstMac(mac) => self.dst_mac = Some(mac),
            Set::SrcMac(mac) => self.src_mac = Some(mac),
            Set::Vlan(vlan) => self.vlan = Some(vlan),
            Set::Pcp(pcp) => self.pcp = Some(pcp & 7),
            Set::SrcIp4(ip) => self.src_ip4 = Some(ip),
            Set::DstIp4(ip) => self.dst_ip4 = Some(ip),
            Set::SrcIp6(ip) => self.src_ip6 = Some(ip),
            Set::DstIp6(ip) => self.dst_ip6 = Some(ip),
            Set::Tos { value, mask } => {
                let (old, old_mask) = self.tos;
                self.tos = (old & !mask | value & mask, old_mask | mask);
            }
            Set::Ttl(ttl) => self.ttl = Ttl::Set(ttl),
            Set::DecTtl => {
                self.ttl = match self.ttl {
                    Ttl::Set(ttl) => Ttl::Set(ttl.saturating_sub(1)),
                    Ttl::Keep => Ttl::Less(1),
                    Ttl::Less(by) => Ttl::Less(by.saturating_add(1)),
                }
            }
            Set::SrcPort(port) => self.src_port = Some(port),
            Set::DstPort(port) => self.dst_port = Some(port),
        }
    }

    /// The VLAN that the frame is put in.
    pub(crate) fn vlan(&self) -> Option<Vid> {
        self.vlan
    }

    /// The priority of the tag that the frame leaves with.
    pub(crate) fn pcp(&self) -> Option<u8> {
        self.pcp
    }

    /// Whether the TTL decides on what becomes of the frame.
    pub(crate) fn reads_ttl(&self) -> bool {
        matches!(self.ttl, Ttl::Less(_))
    }

    /// What a later rule reads. `false` if the TTL of the frame does not allow it to go on.
    pub(crate) fn apply_to(&self, fields: &mut Fields) -> bool {
        fields.dst = self.dst_mac.unwrap_or(fields.dst);
        fields.src = self.src_mac.unwrap_or(fields.src);
        let flow = &mut fields.flow;
        let v4 = |place: &mut [u8; 16], ip: Option<[u8; 4]>| {
            if let (Some(ip), Some(place)) = (ip, place.first_chunk_mut()) {
                *place = ip;
            }
        };
        match flow.network() {
            None => return true,
            Some(Network::V4) => {
                v4(&mut flow.src, self.src_ip4);
                v4(&mut flow.dst, self.dst_ip4);
            }
            Some(Network::V6) => {
                flow.src = self.src_ip6.unwrap_or(flow.src);
                flow.dst = self.dst_ip6.unwrap_or(flow.dst);
            }
        }
        let (value, mask) = self.tos;
        flow.tos = flow.tos & !mask | value;
        if has_ports(fields) {
            fields.flow.src_port = self.src_port.unwrap_or(fields.flow.src_port);
            fields.flow.dst_port = self.dst_port.unwrap_or(fields.flow.dst_port);
        }
        match self.ttl {
            Ttl::Keep => true,
            Ttl::Set(ttl) => {
                fields.ttl = ttl;
                true
            }
            Ttl::Less(by) => {
                let goes_on = fields.ttl > by;
                fields.ttl = fields.ttl.saturating_sub(by);
                goes_on
            }
        }
    }

    /// Sets the fields in the head of a frame of `len` bytes. If the checksum cannot be kept right, nothing is changed.
    ///
    /// # Errors
    /// A checksum that must change is out of reach.
    pub(crate) fn apply(&self, head: &mut [u8], len: u32, offload: &Offload) -> Result<(), OutOfReach> {
        let Some(old) = Fields::of(head) else { return Ok(()) };
        let mut new = old;
        self.apply_to(&mut new);
        if let Some(network) = old.flow.network() {
            self.apply_ip(head, len, offload, network, &old, &new)?;
        }
        put(head, 0, &new.dst.octets());
        put(head, 6, &new.src.octets());
        Ok(())
    }

    fn apply_ip(
        &self,
        head: &mut [u8],
        len: u32,
        offload: &Offload,
        network: Network,
        old: &Fields,
        new: &Fields,
    ) -> Result<(), OutOfReach> {
        let l3 = usize::from(old.l3);
        let addresses = Sum::of(&new.flow.dst) - Sum::of(&old.flow.dst);
        // On a route, the pseudo header has the last destination.
        let kept = network == Network::V6 && old.flow.dst != new.flow.dst && has_route(head, l3);
        let pseudo =
            Sum::of(&new.flow.src) - Sum::of(&old.flow.src) + if kept { Sum::ZERO } else { addresses };
        let ports = Sum::from_word(new.flow.src_port) + Sum::from_word(new.flow.dst_port)
            - Sum::from_word(old.flow.src_port)
            - Sum::from_word(old.flow.dst_port);
        self.apply_l4(head, len, offload, old, new, (pseudo, ports))?;
        match network {
            Network::V4 => {
                let Some(header) = head.get_mut(l3..).and_then(<[u8]>::first_chunk_mut::<20>) else {
                    return Ok(());
                };
                let before = Sum::of(header);
                let sum = u16::from_be_bytes([header[10], header[11]]);
                header[1] = new.flow.tos;
                header[8] = new.ttl;
                put(header, 12, new.flow.src.get(..4).unwrap_or(&[]));
                put(header, 16, new.flow.dst.get(..4).unwrap_or(&[]));
                let sum = Sum::from_word(!sum) - before + Sum::of(header);
                put(header, 10, &sum.checksum().to_be_bytes());
            }
            Network::V6 => {
                if let Some([first, second]) = head.get_mut(l3..).and_then(<[u8]>::first_chunk_mut) {
                    *first = *first & 0xf0 | new.flow.tos >> 4;
                    *second = *second & 0x0f | new.flow.tos << 4;
                }
                put(head, l3 + 7, &[new.ttl]);
                put(head, l3 + 8, &new.flow.src);
                put(head, l3 + 24, &new.flow.dst);
            }
        }
        Ok(())
    }

    fn apply_l4(
        &self,
        head: &mut [u8],
        len: u32,
        offload: &Offload,
        old: &Fields,
        new: &Fields,
        (pseudo, ports): (Sum, Sum),
    ) -> Result<(), OutOfReach> {
        let Some(l4) = old.l4.map(usize::from) else { return Ok(()) };
        if old.flow.flags.has(FlowFlags::LATER) {
            return Ok(());
        }
        let protocol = old.flow.protocol();
        if let Some(offset) = protocol_checksum(protocol) {
            let field = l4 + offset;
            let same = Sum::ZERO == pseudo && Sum::ZERO == ports;
            match head.get(field..field + 2) {
                _ if same => {}
                // A first fragment that ends before its checksum has it in the next one.
                _ if !is_inside(head, old, field, offload) && old.flow.flags.has(FlowFlags::FRAGMENT) => {
                    return Err(OutOfReach);
                }
                _ if !is_inside(head, old, field, offload) => {}
                None if head.len() < len as usize => return Err(OutOfReach),
                None => {}
                Some(bytes) => {
                    let sum = bytes.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
                    let sum = if offload.csum_field() == Some(field) {
                        (Sum::from_word(sum) + pseudo).word()
                    } else if protocol == IpProtocol::UDP && sum == 0 {
                        0
                    } else {
                        let sum = Sum::from_word(!sum) + pseudo + ports;
                        if protocol == IpProtocol::UDP { sum.udp_checksum() } else { sum.checksum() }
                    };
                    put(head, field, &sum.to_be_bytes());
                }
            }
        }
        if has_ports(old) {
            put(head, l4, &new.flow.src_port.to_be_bytes());
            put(head, l4 + 2, &new.flow.dst_port.to_be_bytes());
        }
        Ok(())
    }
}

/// Where the checksum that the addresses are part of lies in a header.
fn protocol_checksum(protocol: IpProtocol) -> Option<usize> {
    match protocol {
        IpProtocol::TCP => Some(16),
        IpProtocol::UDP => Some(6),
        IpProtocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// Ports that can be set: SCTP's checksum is of another kind.
fn has_ports(fields: &Fields) -> bool {
    fields.flow.flags.has(FlowFlags::PORTS)
        && matches!(fields.flow.protocol(), IpProtocol::TCP | IpProtocol::UDP)
}

/// Whether a checksum field is part of the packet, not of the padding behind it. The lengths in headers to be segmented are
/// not to be relied on, but those headers are whole.
fn is_inside(head: &[u8], fields: &Fields, field: usize, offload: &Offload) -> bool {
    let l3 = usize::from(fields.l3);
    let be16 = |at: usize| {
        head.get(at..)
            .and_then(<[u8]>::first_chunk)
            .map_or(0, |bytes| usize::from(u16::from_be_bytes(*bytes)))
    };
    let end = match fields.flow.network() {
        Some(Network::V4) => l3 + be16(l3 + 2),
        // A length of 0 is that of a jumbogram (RFC 2675).
        Some(Network::V6) if be16(l3 + 4) == 0 => usize::MAX,
        Some(Network::V6) => l3 + 40 + be16(l3 + 4),
        None => return false,
    };
    offload.is_gso() || field + 2 <= end
}

fn put(head: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = head.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
