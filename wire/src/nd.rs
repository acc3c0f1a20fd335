//! Neighbor discovery (RFC 4861; RDNSS of RFC 8106): messages, options, and writing them.
//!
//! Everything here begins behind the checksum of an ICMPv6 header: [`NdMessage::parse`] is given the whole ICMPv6
//! message, the functions that write are the bodies for [`crate::build::icmp_v6`].
//!
//! # Invariants
//! - A message is read only if all its options are whole and none has length 0 (RFC 4861 section 4.6: discard it).
//! - At most [`MAX_OPTIONS`] options; a message with more is not read.

use std::net::Ipv6Addr;

use crate::{
    MacAddr,
    build::Writer,
    bytes::{array, be16, u8_at},
};

/// Types of ICMPv6 messages.
pub mod kind {
    /// Which routers are there?
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// A router is, with the link's parameters.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Who has this address?
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// Somebody has it.
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    /// There is a better first hop.
    pub const REDIRECT: u8 = 137;
}

/// All nodes of a link: ff02::1.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of a link: ff02::2.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The most options of a message.
pub const MAX_OPTIONS: usize = 64;

/// The group that whoever has the address listens to (RFC 4291 section 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a as u16, u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 group (RFC 2464 section 7).
pub const fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr::new([0x33, 0x33, a, b, c, d])
}

/// The link-local address that follows from an Ethernet address (RFC 4291 appendix A, RFC 4862 section 5.3).
pub const fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// What a router advertises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// Hop limit for the hosts; 0: not said.
    pub hop_limit: u8,
    /// Addresses by DHCPv6.
    pub managed: bool,
    /// Other configuration by DHCPv6.
    pub other: bool,
    /// Seconds for which it is a default router; 0: it is none.
    pub lifetime: u16,
    /// Milliseconds a neighbour is taken to be reachable; 0: not said.
    pub reachable_ms: u32,
    /// Milliseconds between solicitations; 0: not said.
    pub retransmit_ms: u32,
}

/// Flags of a neighbor advertisement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdvertisementFlags {
    /// The sender is a router.
    pub router: bool,
    /// It was asked for.
    pub solicited: bool,
    /// What is known already is to be replaced.
    pub override_known: bool,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdMessage {
    /// Type 133.
    RouterSolicitation,
    /// Type 134.
    RouterAdvertisement(RouterAdvertisement),
    /// Type 135.
    NeighborSolicitation {
        /// The address asked about.
        target: Ipv6Addr,
    },
    /// Type 136.
    NeighborAdvertisement {
        /// The flags.
        flags: AdvertisementFlags,
        /// The address that the sender has.
        target: Ipv6Addr,
    },
    /// Type 137.
    Redirect {
        /// The better first hop.
        target: Ipv6Addr,
        /// To where.
        destination: Ipv6Addr,
    },
}

impl NdMessage {
    /// Reads an ICMPv6 message. Nothing if it is none of neighbor discovery, is cut off, has a code other than 0 or
    /// broken options. Checksum and hop limit (255) are the caller's to check.
    pub fn parse(icmp: &[u8]) -> Option<(NdMessage, NdOptions<'_>)> {
        if u8_at(icmp, 1)? != 0 {
            return None;
        }
        let target = || array(icmp, 8).map(|octets| Ipv6Addr::from_octets(*octets));
        let (message, options) = match u8_at(icmp, 0)? {
            kind::ROUTER_SOLICITATION => (NdMessage::RouterSolicitation, 8),
            kind::ROUTER_ADVERTISEMENT => {
                let flags = u8_at(icmp, 5)?;
                let advertisement = RouterAdvertisement {
                    hop_limit: u8_at(icmp, 4)?,
                    managed: flags & 0x80 != 0,
                    other: flags & 0x40 != 0,
                    lifetime: be16(icmp, 6)?,
                    reachable_ms: u32::from_be_bytes(*array(icmp, 8)?),
                    retransmit_ms: u32::from_be_bytes(*array(icmp, 12)?),
                };
                (NdMessage::RouterAdvertisement(advertisement), 16)
            }
            kind::NEIGHBOR_SOLICITATION => (NdMessage::NeighborSolicitation { target: target()? }, 24),
            kind::NEIGHBOR_ADVERTISEMENT => {
                let flags = u8_at(icmp, 4)?;
                let flags = AdvertisementFlags {
                    router: flags & 0x80 != 0,
                    solicited: flags & 0x40 != 0,
                    override_known: flags & 0x20 != 0,
                };
                (NdMessage::NeighborAdvertisement { flags, target: target()? }, 24)
            }
            kind::REDIRECT => {
                let destination = Ipv6Addr::from_octets(*array(icmp, 24)?);
                (NdMessage::Redirect { target: target()?, destination }, 40)
            }
            _ => return None,
        };
        let options = NdOptions { rest: icmp.get(options..)?, left: MAX_OPTIONS };
        let mut walked = options.clone();
        walked.by_ref().for_each(drop);
        walked.rest.is_empty().then_some((message, options))
    }
}

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdOption<'a> {
    /// The sender's Ethernet address (type 1).
    SourceLink(MacAddr),
    /// The target's Ethernet address (type 2).
    TargetLink(MacAddr),
    /// A prefix (type 3).
    Prefix(Prefix),
    /// The link's MTU (type 5).
    Mtu(u32),
    /// Any other, or one of these with another length: type and all its bytes.
    Other(u8, &'a [u8]),
}

/// A prefix of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix.
    pub prefix: Ipv6Addr,
    /// Its length in bits.
    pub len: u8,
    /// Its addresses are on the link.
    pub on_link: bool,
    /// Hosts may make addresses of it themselves (SLAAC).
    pub autonomous: bool,
    /// Seconds; `u32::MAX`: for ever.
    pub valid: u32,
    /// Seconds; `u32::MAX`: for ever.
    pub preferred: u32,
}

/// Options, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NdOptions<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for NdOptions<'a> {
    type Item = NdOption<'a>;

    fn next(&mut self) -> Option<NdOption<'a>> {
        let len = usize::from(u8_at(self.rest, 1)?) * 8;
        if len == 0 || self.left == 0 {
            return None;
        }
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        (self.rest, self.left) = (rest, self.left - 1);
        let kind = *bytes.first()?;
        Some(match (kind, len) {
            (1, 8) => NdOption::SourceLink(MacAddr::new(*array(bytes, 2)?)),
            (2, 8) => NdOption::TargetLink(MacAddr::new(*array(bytes, 2)?)),
            (3, 32) => NdOption::Prefix(Prefix {
                len: u8_at(bytes, 2)?,
                on_link: u8_at(bytes, 3)? & 0x80 != 0,
                autonomous: u8_at(bytes, 3)? & 0x40 != 0,
                valid: u32::from_be_bytes(*array(bytes, 4)?),
                preferred: u32::from_be_bytes(*array(bytes, 8)?),
                prefix: Ipv6Addr::from_octets(*array(bytes, 16)?),
            }),
            (5, 8) => NdOption::Mtu(u32::from_be_bytes(*array(bytes, 4)?)),
            _ => NdOption::Other(kind, bytes),
        })
    }
}

impl NdOptions<'_> {
    /// Whether every link-layer address option says this address (and is one of Ethernet).
    pub fn link_is(self, mac: MacAddr) -> bool {
        let mut options = self;
        options.all(|option| match option {
            NdOption::SourceLink(found) | NdOption::TargetLink(found) => found == mac,
            NdOption::Other(1 | 2, _) => false,
            _ => true,
        })
    }

    /// Whether there is a source link-layer address.
    pub fn has_source_link(self) -> bool {
        let mut options = self;
        options.any(|option| matches!(option, NdOption::SourceLink(_) | NdOption::Other(1, _)))
    }
}

/// Body of a router advertisement; options follow.
pub fn put_router_advertisement(to: &mut Writer<'_>, advertisement: &RouterAdvertisement) {
    to.put8(advertisement.hop_limit);
    to.put8(u8::from(advertisement.managed) << 7 | u8::from(advertisement.other) << 6);
    to.put16(advertisement.lifetime);
    to.put32(advertisement.reachable_ms);
    to.put32(advertisement.retransmit_ms);
}

/// Body of a neighbor solicitation; options follow.
pub fn put_neighbor_solicitation(to: &mut Writer<'_>, target: Ipv6Addr) {
    to.put32(0);
    to.put(&target.octets());
}

/// Body of a neighbor advertisement; options follow.
pub fn put_neighbor_advertisement(to: &mut Writer<'_>, flags: AdvertisementFlags, target: Ipv6Addr) {
    let AdvertisementFlags { router, solicited, override_known } = flags;
    to.put8(u8::from(router) << 7 | u8::from(solicited) << 6 | u8::from(override_known) << 5);
    to.put(&[0; 3]);
    to.put(&target.octets());
}

/// An option; name servers are given with [`put_rdnss`].
pub fn put_option(to: &mut Writer<'_>, option: &NdOption<'_>) {
    match option {
        NdOption::SourceLink(mac) => {
            to.put(&[1, 1]);
            to.put(&mac.0);
        }
        NdOption::TargetLink(mac) => {
            to.put(&[2, 1]);
            to.put(&mac.0);
        }
        NdOption::Prefix(prefix) => {
            let flags = u8::from(prefix.on_link) << 7 | u8::from(prefix.autonomous) << 6;
            to.put(&[3, 4, prefix.len, flags]);
            to.put32(prefix.valid);
            to.put32(prefix.preferred);
            to.put32(0);
            to.put(&prefix.prefix.octets());
        }
        NdOption::Mtu(mtu) => {
            to.put(&[5, 1, 0, 0]);
            to.put32(*mtu);
        }
        NdOption::Other(_, bytes) => to.put(bytes),
    }
}

/// Recursive name servers (RFC 8106 section 5.1), at most 8; lifetime in seconds. None: no option.
pub fn put_rdnss(to: &mut Writer<'_>, lifetime: u32, servers: &[Ipv6Addr]) {
    let servers = servers.get(..8).unwrap_or(servers);
    if servers.is_empty() {
        return;
    }
    to.put8(25);
    to.put8(u8::try_from(1 + 2 * servers.len()).unwrap_or(1));
    to.put16(0);
    to.put32(lifetime);
    for server in servers {
        to.put(&server.octets());
    }
}

#[cfg(test)]
mod tests;
