//! What tells flows apart where more than addresses and VLAN is read: two shapes of key, one for what nearly every frame
//! is, one for all others.
//!
//! ```text
//!   short   | dst src[0..2] | src[2..6] 0800 45 tos | tcp-flags . . ttl proto | ports ingress | IP src dst | 0 | 0 | 0 |
//!   wide    | dst src[0..2] | src[2..6] ingress | type tags tcp-flags | IP src  | IP dst  | ports proto tos flags WIDE ttl |
//! ```
//!
//! A short key is the frame's own bytes, taken in five loads: untagged TCP or UDP over IPv4 without options, not a
//! fragment. What is not read of it is masked out, as of the wide one ([`KeyMask`]).
//!
//! # Invariants
//! * The last word of a short key is zero, that of a wide one is not: no key of one shape is one of the other.
//! * Frames with one key are the same in everything that the configuration reads. (The reverse need not hold: a flow may have
//!   two keys, and is decided on twice then.)

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabnic_port::Frame;
use fabnic_wire::{EtherType, FlowFields, FlowFlags, IpProtocol, MacAddr};
use zerocopy::FromZeros;

use crate::needs::Needs;

/// Bytes that a short key is made of.
pub(crate) const PLAIN: usize = 38;
/// Where TCP has its flags, in a frame that has a short key.
const TCP_FLAGS_AT: usize = 47;

/// In the last word of every wide key; above the flags of [`FlowFields`].
const WIDE: u64 = 1 << 55;

/// The exact key of a flow, of either shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub(crate) struct DeepKey(pub(crate) [u64; 8]);

/// The words of a short key that are not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortKey([u64; 5]);

/// What of each word tells flows apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyMask {
    wide: [u64; 8],
    short: [u64; 5],
    /// TCP flags are read.
    pub(crate) tcp_flags: bool,
}

impl KeyMask {
    /// Of a configuration that reads this much.
    pub(crate) fn of(needs: Needs) -> KeyMask {
        let bits = |need: Needs, mask: u64| if needs.contains(need) { mask } else { 0 };
        let third = 0x0fff_0000
            | bits(Needs::PRIORITY, 0xf000_0000)
            | bits(Needs::TYPE, 0x0c00_ffff_0000_ffff)
            | bits(Needs::TCP_FLAGS, 0x00ff_0000_0000_0000)
            | 0x0300_0000_0000_0000;
        let ip = bits(Needs::IP, u64::MAX);
        let ports = bits(Needs::PORTS, 0xffff_ffff);
        let last = ports
            | bits(Needs::IP, 0x007f_00ff_0000_0000)
            | bits(Needs::TOS, 0x0000_ff00_0000_0000)
            | bits(Needs::TTL, 0xff00_0000_0000_0000)
            | WIDE;
        let short = [
            u64::MAX,
            0x00ff_ffff_ffff_ffff | bits(Needs::TOS, 0xff << 56),
            bits(Needs::TTL, 0xff << 48) | bits(Needs::IP, 0xff << 56),
            ports,
            ip,
        ];
        let wide = [u64::MAX, u64::MAX, third, ip, ip, ip, ip, last];
        KeyMask { wide, short, tcp_flags: needs.contains(Needs::TCP_FLAGS) }
    }
}

/// A key as it was read, with what else the reading told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) key: DeepKey,
    /// The outer tag as it came, if it is of the port's kind.
    pub(crate) tci: Option<u16>,
}

impl ShortKey {
    /// The key of a frame that has a short one. `ingress`: the port's index, shifted up by 32; `head`: nothing, where TCP flags
    /// are not read.
    #[inline(always)]
    pub(crate) fn of(
        first: &[u8; PLAIN],
        head: Option<&[u8]>,
        ingress: u64,
        mask: &KeyMask,
    ) -> Option<ShortKey> {
        let word =
            |at: usize| first.get(at..).and_then(|rest| rest.first_chunk()).map(|b| u64::from_le_bytes(*b));
        let (second, third) = (word(8)?, word(16)?);
        let protocol = third >> 56;
        // EtherType, version and header length; neither fragment offset nor more fragments.
        let is_plain = second >> 32 & 0x00ff_ffff == 0x0045_0008
            && third >> 32 & 0xff3f == 0
            && (protocol == u64::from(IpProtocol::TCP.0) || protocol == u64::from(IpProtocol::UDP.0));
        if !is_plain {
            return None;
        }
        let [_, type_and_tos, ttl_and_protocol, ports, ip] = mask.short;
        let mut third = third & ttl_and_protocol;
        if let Some(head) = head
            && protocol == u64::from(IpProtocol::TCP.0)
        {
            third |= head.get(TCP_FLAGS_AT).copied().map_or(0, u64::from);
        }
        // The last four bytes are the ports.
        let fourth = word(30)? >> 32 & ports | ingress;
        Some(ShortKey([word(0)?, second & type_and_tos, third, fourth, word(26)? & ip]))
    }

    /// Whether two keys are the same.
    #[inline(always)]
    pub(crate) fn is(&self, other: &ShortKey) -> bool {
        let [a, b, c, d, e] = self.0;
        let [f, g, h, i, j] = other.0;
        (a ^ f) | (b ^ g) | (c ^ h) | (d ^ i) | (e ^ j) == 0
    }

    /// Whether it is this one, in a table.
    #[inline(always)]
    pub(crate) fn is_at(&self, place: &DeepKey) -> bool {
        let [a, b, c, d, e, .., last] = place.0;
        self.is(&ShortKey([a, b, c, d, e])) && last == 0
    }

    /// As [`DeepKey::hash`] of the same key.
    #[inline(always)]
    pub(crate) fn hash(&self, secret: &[u64; 8]) -> u64 {
        let [a, b, c, d, e] = self.0;
        let [s, t, u, v, w, x, ..] = *secret;
        fold(product(a, s, b, t).wrapping_add(product(c, u, d, v)).wrapping_add(product(e, w, 0, x)))
    }
}

/// What of a flow decides which rules can be about it ([`crate::rules::Concerns`]), where it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// First eight bytes of the source address, the first of them on top. Of an IPv4 address, the lower half is zero.
    pub(crate) src: u64,
    /// The same of the destination.
    pub(crate) dst: u64,
    /// Destination port.
    pub(crate) dst_port: u16,
}

impl ShortKey {
    /// What rules can be about.
    #[inline(always)]
    pub(crate) fn about(&self) -> About {
        let [.., ports, ip] = self.0;
        About {
            src: ip.swap_bytes() & !0xffff_ffff,
            dst: u64::from((ip >> 32) as u32).swap_bytes(),
            dst_port: ((ports >> 16) as u16).swap_bytes(),
        }
    }
}

impl From<ShortKey> for DeepKey {
    fn from(ShortKey([a, b, c, d, e]): ShortKey) -> DeepKey {
        DeepKey([a, b, c, d, e, 0, 0, 0])
    }
}

/// One product of UMAC's NH (RFC 4418), whose words each have a secret of their own.
#[inline(always)]
fn product(one: u64, its: u64, other: u64, others: u64) -> u128 {
    u128::from(one.wrapping_add(its)) * u128::from(other.wrapping_add(others))
}

#[inline(always)]
fn fold(sum: u128) -> u64 {
    let folded = (sum >> 64) as u64 ^ sum as u64;
    folded ^ (folded >> 29)
}

/// What a key says of its flow, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyFields {
    pub(crate) dst: MacAddr,
    pub(crate) src: MacAddr,
    /// Index of the port that it comes from.
    pub(crate) ingress: u32,
    /// 0 if it is not read.
    pub(crate) ethertype: EtherType,
    /// Source and destination, of IP that is read.
    pub(crate) addresses: Option<(IpAddr, IpAddr)>,
    pub(crate) protocol: Option<IpProtocol>,
    /// Source and destination, or type and code.
    pub(crate) ports: Option<(u16, u16)>,
}

impl DeepKey {
    /// Reads the key of a frame that came by a port whose tags begin with `tpid`. `None` for a runt: shorter than an Ethernet
    /// header, or than one with such a tag that it announces.
    #[inline(always)]
    pub(crate) fn read(frame: &Frame, (ingress, tpid): (u32, [u8; 2]), mask: &KeyMask) -> Option<Read> {
        let head = frame.head();
        if let Some(first) = head.first_chunk()
            && let flags = mask.tcp_flags.then_some(head)
            && let Some(short) = ShortKey::of(first, flags, u64::from(ingress) << 32, mask)
        {
            return Some(Read { key: short.into(), tci: None });
        }
        let first: &[u8; 14] = head.first_chunk()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *first;
        let front = u64::from_le_bytes([d0, d1, d2, d3, d4, d5, s0, s1]);
        let back = u64::from(u32::from_le_bytes([s2, s3, s4, s5])) | u64::from(ingress) << 32;
        let mut kind = EtherType(u16::from_be_bytes([t0, t1]));
        let (mut l3, mut tags, mut tci) = (14, 0_u64, None);
        if kind.is_tag() {
            (kind, l3, tags, tci) = read_tags(head, kind, EtherType(u16::from_be_bytes(tpid)))?;
        }
        let flow = FlowFields::at(head, l3, kind);
        let mut flags = 0;
        let mut ttl = 0;
        if mask.wide[7] >> 56 != 0 || mask.tcp_flags {
            (ttl, flags) = read_more(head, l3, kind, &flow);
        }
        let [a, b, c, d, last] = flow.words();
        let third = u64::from(kind.0) | tags | flags << 48;
        let words = [front, back, third, a, b, c, d, last | ttl << 56 | WIDE];
        let mut key = DeepKey(words);
        for (word, mask) in key.0.iter_mut().zip(&mask.wide) {
            *word &= mask;
        }
        Some(Read { key, tci })
    }

    /// What rules can be about.
    #[inline]
    pub(crate) fn about(&self) -> About {
        let [a, b, c, d, e, f, _, last] = self.0;
        match self.is_wide() {
            true => About { src: d.swap_bytes(), dst: f.swap_bytes(), dst_port: (last >> 16) as u16 },
            false => ShortKey([a, b, c, d, e]).about(),
        }
    }

    /// The index of the port that it comes from.
    pub(crate) fn ingress(&self) -> u32 {
        let [_, second, _, fourth, ..] = self.0;
        ((if self.is_wide() { second } else { fourth }) >> 32) as u32
    }

    fn is_wide(&self) -> bool {
        self.0[7] != 0
    }

    /// Whether two keys are the same. What tells most keys apart first, the others in one go.
    #[inline(always)]
    pub(crate) fn is(&self, other: &DeepKey) -> bool {
        if self.0[7] != other.0[7] || self.0[0] != other.0[0] {
            return false;
        }
        let mut differs = 0;
        for (one, other) in self.0.iter().zip(&other.0) {
            differs |= one ^ other;
        }
        differs == 0
    }

    /// A hash with a secret: whoever chooses the fields cannot choose where they fall.
    #[inline(always)]
    pub(crate) fn hash(&self, secret: &[u64; 8]) -> u64 {
        let [a, b, c, d, e, f, g, h] = self.0;
        if !self.is_wide() {
            return ShortKey([a, b, c, d, e]).hash(secret);
        }
        let [s, t, u, v, w, x, y, z] = *secret;
        fold(
            product(a, s, b, t)
                .wrapping_add(product(c, u, h, z))
                .wrapping_add(product(d, v, f, x))
                .wrapping_add(product(e, w, g, y)),
        )
    }

    /// What it says, where this much is read.
    pub(crate) fn fields(&self, needs: Needs) -> KeyFields {
        let [front, second, third, a, b, c, d, last] = self.0;
        let [d0, d1, d2, d3, d4, d5, s0, s1] = front.to_le_bytes();
        let [s2, s3, s4, s5, ..] = second.to_le_bytes();
        let (dst, src) = (MacAddr::new([d0, d1, d2, d3, d4, d5]), MacAddr::new([s0, s1, s2, s3, s4, s5]));
        let (reads_ip, reads_ports) = (needs.contains(Needs::IP), needs.contains(Needs::PORTS));
        if !self.is_wide() {
            let [p0, p1, p2, p3, ..] = a.to_le_bytes();
            let [i0, i1, i2, i3, j0, j1, j2, j3] = b.to_le_bytes();
            let v4 = |bytes| IpAddr::V4(Ipv4Addr::from_octets(bytes));
            let ports = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([p2, p3]));
            return KeyFields {
                dst,
                src,
                ingress: (a >> 32) as u32,
                ethertype: EtherType::IPV4,
                addresses: reads_ip.then(|| (v4([i0, i1, i2, i3]), v4([j0, j1, j2, j3]))),
                protocol: reads_ip.then_some(IpProtocol((third >> 56) as u8)),
                ports: (reads_ip && reads_ports).then_some(ports),
            };
        }
        let flags = FlowFlags((last >> 48) as u8);
        let is_ip = reads_ip && flags.has(FlowFlags::IP);
        let address = |low: u64, high: u64| {
            let bytes = (u128::from(low) | u128::from(high) << 64).to_ne_bytes();
            let [a, b, c, d, ..] = bytes;
            match flags.has(FlowFlags::V6) {
                true => IpAddr::V6(Ipv6Addr::from(bytes)),
                false => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            }
        };
        let ports = (last as u16, (last >> 16) as u16);
        KeyFields {
            dst,
            src,
            ingress: (second >> 32) as u32,
            ethertype: EtherType(third as u16),
            addresses: is_ip.then(|| (address(a, b), address(c, d))),
            protocol: is_ip.then_some(IpProtocol((last >> 32) as u8)),
            ports: (is_ip && reads_ports && flags.has(FlowFlags::PORTS)).then_some(ports),
        }
    }
}

/// EtherType and place of what follows the tags; the tags as they stand in the third word; the outer tag, if it is of the
/// port's kind.
#[inline(never)]
fn read_tags(head: &[u8], outer: EtherType, own: EtherType) -> Option<(EtherType, usize, u64, Option<u16>)> {
    let Some(&[i0, i1, t0, t1]) = head.get(14..).and_then(<[u8]>::first_chunk) else {
        // A tag of another kind without what it tags is an EtherType that is not looked behind.
        return (outer != own).then_some((outer, 14, 0, None));
    };
    let tci = u16::from_be_bytes([i0, i1]);
    // A tag of one kind is another than one of another kind and the same number, and any is another than none.
    let number = |kind: EtherType| match kind {
        EtherType::VLAN => 1,
        EtherType::QINQ => 2,
        _ => 3,
    };
    let mut tags = u64::from(tci) << 16 | number(outer) << 56;
    let kind = EtherType(u16::from_be_bytes([t0, t1]));
    let outer = (outer == own).then_some(tci);
    if !kind.is_tag() {
        return Some((kind, 18, tags, outer));
    }
    let Some(&[i0, i1, t0, t1]) = head.get(18..).and_then(<[u8]>::first_chunk) else {
        return Some((kind, 18, tags, outer));
    };
    tags |= u64::from(u16::from_be_bytes([i0, i1])) << 32 | number(kind) << 58;
    Some((EtherType(u16::from_be_bytes([t0, t1])), 22, tags, outer))
}

/// TTL and TCP flags.
#[inline(never)]
fn read_more(head: &[u8], l3: usize, kind: EtherType, flow: &FlowFields) -> (u64, u64) {
    let byte = |at: usize| head.get(at).copied().map_or(0, u64::from);
    let ttl = match kind {
        EtherType::IPV4 => byte(l3 + 8),
        EtherType::IPV6 => byte(l3 + 7),
        _ => return (0, 0),
    };
    if flow.protocol() != IpProtocol::TCP {
        return (ttl, 0);
    }
    let flags = fabnic_wire::Fields::of(head).map_or(0, |fields| u64::from(fields.tcp_flags.0));
    (ttl, flags)
}

#[cfg(test)]
mod tests;
