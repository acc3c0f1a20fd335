//! A frame as thirteen words that rules are compared with.
//!
//! ```text
//!   0 | dst MAC . EtherType |   4 | ...IPv6            |    8 | flags . outer TCI . inner TCI . VLAN |
//!   1 | src MAC . ARP op    |   5 | dst IP, ARP target |    9 | ND target, ARP sender MAC            |
//!   2 | ingress . egress    |   6 | ...IPv6            |   10 | ...        ARP target MAC            |
//!   3 | src IP, ARP sender  |   7 | ports proto tos    |   11 | mark . ct state . ct zone            |
//!                                 |   ttl tcp-flags    |   12 | ct mark                              |
//! ```
//!
//! Fields that no frame has together share a place; the flags say which it is. A compiled rule that reads a field also asks
//! for its flag, so that what is not there is never taken for a zero.

use fabnic_wire::{FlowFlags, IpProtocol, layers::Network};

use super::terms::Input;

/// Words in a key.
pub(crate) const WORDS: usize = 13;

/// From this word on, what rules before have left and what connections are: no part of the frame.
pub(crate) const MARK_WORD: u8 = 11;

/// Bits of the flags in word 8.
pub(crate) mod flag {
    /// IPv4 or IPv6, with a well-formed header.
    pub(crate) const IP: u16 = 1;
    /// IPv4.
    pub(crate) const V4: u16 = 2;
    /// IPv6.
    pub(crate) const V6: u16 = 4;
    /// The ports are there.
    pub(crate) const PORTS: u16 = 8;
    /// Type and code of ICMP or ICMPv6 are there.
    pub(crate) const ICMP: u16 = 16;
    /// TCP, with its ports.
    pub(crate) const TCP: u16 = 32;
    /// A fragment.
    pub(crate) const FRAGMENT: u16 = 64;
    /// One without L4 header.
    pub(crate) const LATER: u16 = 128;
    /// There is a tag.
    pub(crate) const TAG: u16 = 256;
    /// There are two.
    pub(crate) const INNER: u16 = 512;
    /// ARP for IPv4.
    pub(crate) const ARP: u16 = 1024;
    /// Neighbour solicitation or advertisement.
    pub(crate) const ND: u16 = 2048;
    /// The port that it leaves by is known.
    pub(crate) const EGRESS: u16 = 4096;
}

/// The words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u64; WORDS]);

/// Bytes as two words.
pub(crate) fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let whole = u128::from_be_bytes(bytes);
    ((whole >> 64) as u64, whole as u64)
}

impl Key {
    /// Of a frame.
    pub(crate) fn of(input: &Input<'_>) -> Key {
        let fields = input.fields;
        let flow = &fields.flow;
        let mut flags = 0;
        let mut set = |flag: u16, is: bool| flags |= if is { flag } else { 0 };
        let network = flow.network();
        set(flag::IP, network.is_some());
        set(flag::V4, network == Some(Network::V4));
        set(flag::V6, network == Some(Network::V6));
        let known = network.is_some() && flow.flags.has(FlowFlags::PORTS);
        let icmp = flow.protocol().is_icmp();
        set(flag::PORTS, known && !icmp);
        set(flag::ICMP, known && icmp);
        set(flag::TCP, known && flow.protocol() == IpProtocol::TCP);
        set(flag::FRAGMENT, flow.flags.has(FlowFlags::FRAGMENT));
        set(flag::LATER, flow.flags.has(FlowFlags::LATER));
        set(flag::TAG, fields.tag.is_some());
        set(flag::INNER, fields.inner.is_some());
        set(flag::ARP, fields.arp.is_some());
        set(flag::ND, fields.neighbour.is_some());
        set(flag::EGRESS, input.egress.is_some());
        let (mut src, mut dst) = (halves(flow.src), halves(flow.dst));
        let (mut operation, mut more) = (0, (0, 0));
        if let Some(arp) = &fields.arp {
            operation = arp.operation;
            src = (u64::from(u32::from_be_bytes(arp.sender_ip)) << 32, 0);
            dst = (u64::from(u32::from_be_bytes(arp.target_ip)) << 32, 0);
            more = (arp.sender_mac.to_u64() << 16, arp.target_mac.to_u64() << 16);
        }
        if let Some(neighbour) = &fields.neighbour {
            more = halves(neighbour.target);
        }
        let tci = |tag: Option<fabnic_wire::fields::Tag>| tag.map_or(0, |tag| u64::from(tag.tci.0));
        let l4 = u64::from(flow.src_port) << 48
            | u64::from(flow.dst_port) << 32
            | u64::from(flow.protocol_number) << 24
            | u64::from(flow.tos) << 16
            | u64::from(fields.ttl) << 8
            | u64::from(fields.tcp_flags.0);
        let tags = u64::from(flags) << 48
            | tci(fields.tag) << 32
            | tci(fields.inner) << 16
            | u64::from(input.vlan.get());
        Key([
            fields.dst.to_u64() << 16 | u64::from(fields.ethertype.0),
            fields.src.to_u64() << 16 | u64::from(operation),
            u64::from(input.ingress.0) << 32 | u64::from(input.egress.map_or(0, |port| port.0)),
            src.0,
            src.1,
            dst.0,
            dst.1,
            l4,
            tags,
            more.0,
            more.1,
            u64::from(input.mark)
                | u64::from(input.connection.state.bits()) << 32
                | u64::from(input.connection.zone) << 40,
            u64::from(input.connection.mark),
        ])
    }

    /// One word.
    #[inline(always)]
    pub(crate) fn word(&self, at: u8) -> u64 {
        self.0.get(usize::from(at)).copied().unwrap_or(0)
    }

    /// Source port, destination port, TTL.
    #[inline(always)]
    pub(crate) fn ranged(&self) -> (u16, u16, u8) {
        let [.., l4, _, _, _, _, _] = self.0;
        ((l4 >> 48) as u16, (l4 >> 32) as u16, (l4 >> 8) as u8)
    }
}

/// Bits of a key: which words of it, and which bits of those. Words without any bit are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    len: u8,
    at: [u8; WORDS],
    masks: [u64; WORDS],
}

impl Shape {
    pub(crate) fn of(mask: &[u64; WORDS]) -> Shape {
        let mut shape = Shape { len: 0, at: [0; WORDS], masks: [0; WORDS] };
        let used = mask.iter().zip(0_u8..).filter(|(mask, _)| **mask != 0);
        for ((place, at), (mask, word)) in shape.masks.iter_mut().zip(&mut shape.at).zip(used) {
            (*place, *at) = (*mask, word);
            shape.len += 1;
        }
        shape
    }

    /// Words and their bits.
    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        self.at.iter().copied().zip(self.masks.iter().copied()).take(usize::from(self.len))
    }

    /// How many words it has bits of.
    pub(crate) fn words(&self) -> usize {
        usize::from(self.len)
    }

    /// All words, those without bits too.
    pub(crate) fn spread(&self) -> [u64; WORDS] {
        let mut mask = [0; WORDS];
        for (at, bits) in self.iter() {
            if let Some(word) = mask.get_mut(usize::from(at)) {
                *word = bits;
            }
        }
        mask
    }

    /// A hash of these bits of a key, with a secret.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &Key, secret: &[u64; 2]) -> u64 {
        let mut hash = secret[0];
        for (at, mask) in self.iter() {
            let product = u128::from(hash ^ (key.word(at) & mask)) * u128::from(secret[1]);
            hash = (product >> 64) as u64 ^ (product as u64).rotate_left(u32::from(at) + 1);
        }
        hash ^ (hash >> 29)
    }
}
