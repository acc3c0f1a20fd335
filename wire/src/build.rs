//! Writing whole frames, for what the switch says itself: from Ethernet down to UDP, ICMP and ICMPv6.
//!
//! A [`Writer`] fills a slice of the caller's from the front and remembers whether everything fitted. The functions here
//! write a layer's header with empty lengths and checksum, let the caller write what follows, and then fill these in:
//!
//! ```text
//!   udp_v4(w, link, ip, ports, |w| ...)
//!     | Ethernet [tag] | IPv4  len?  sum? | UDP  len?  sum? | the caller's bytes ...
//!                              ^-----^----------^------^------- filled in at the end
//! ```
//!
//! # Invariants
//! - Nothing is written behind the slice. What does not fit makes [`Writer::finish`] give nothing: there are no half
//!   frames.
//! - Every frame is whole: lengths and checksums are those of the bytes that were written.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::IntoBytes;

use crate::{
    EtherType, IpProtocol, MacAddr, Tci,
    arp::ArpPacket,
    bytes::put16,
    checksum::{Sum, pseudo_header_v4, pseudo_header_v6},
};

/// Fills a slice from the front.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// An empty one that may fill the whole slice.
    pub fn new(bytes: &'a mut [u8]) -> Writer<'a> {
        Writer { bytes, len: 0, full: false }
    }

    /// Bytes written so far.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks a writer whether it is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What was written so far.
    pub fn written(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Appends bytes. If they do not all fit, none is written, and nothing fits from then on.
    pub fn put(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.len..).and_then(|room| room.get_mut(..bytes.len()));
        match room {
            Some(room) if !self.full => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.full = true,
        }
    }

    /// Appends a byte.
    pub fn put8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Appends a big-endian 16-bit field.
    pub fn put16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// Appends a big-endian 32-bit field.
    pub fn put32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Appends zeros until `len` bytes are written behind `from`.
    pub fn pad(&mut self, from: usize, len: usize) {
        let missing = len.saturating_sub(self.len.saturating_sub(from));
        // A writer never holds more than a frame: this ends.
        for _ in 0..missing {
            if self.full {
                break;
            }
            self.put8(0);
        }
    }

    /// Changes a 16-bit field that was written before; elsewhere nothing happens.
    pub fn patch16(&mut self, at: usize, value: u16) {
        if at + 2 <= self.len {
            put16(self.bytes, at, value);
        }
    }

    /// How many bytes there are, if all fitted.
    pub fn finish(self) -> Option<usize> {
        (!self.full).then_some(self.len)
    }

    /// Bytes from `at` on as the length of a 16-bit field; what is longer does not fit into any frame.
    fn since(&mut self, at: usize) -> u16 {
        u16::try_from(self.len.saturating_sub(at)).unwrap_or_else(|_| {
            self.full = true;
            0
        })
    }

    fn sum_since(&self, at: usize) -> Sum {
        Sum::of(self.written().get(at..).unwrap_or(&[]))
    }
}

/// The Ethernet header of a frame that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// The 802.1Q tag, if it has one.
    pub tag: Option<Tci>,
}

impl Link {
    /// Writes the header.
    pub fn write(&self, to: &mut Writer<'_>, ethertype: EtherType) {
        to.put(&self.dst.0);
        to.put(&self.src.0);
        if let Some(tag) = self.tag {
            to.put16(EtherType::VLAN.0);
            to.put16(tag.0);
        }
        to.put16(ethertype.0);
    }
}

/// The addresses and the lifetime of an IP header that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// An ARP frame.
pub fn arp(to: &mut Writer<'_>, link: &Link, packet: &ArpPacket) {
    link.write(to, EtherType::ARP);
    to.put(packet.as_bytes());
}

/// An IPv4 packet: no options, not to be fragmented, identification 0 as RFC 6864 section 4.1 has it for such ones.
pub fn ipv4(
    to: &mut Writer<'_>,
    link: &Link,
    route: &Route<Ipv4Addr>,
    protocol: IpProtocol,
    payload: impl FnOnce(&mut Writer<'_>),
) {
    link.write(to, EtherType::IPV4);
    let l3 = to.len();
    to.put(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, route.ttl, protocol.0, 0, 0]);
    to.put(&route.src.octets());
    to.put(&route.dst.octets());
    let l4 = to.len();
    payload(to);
    let len = to.since(l3);
    to.patch16(l3 + 2, len);
    let header = Sum::of(to.written().get(l3..l4).unwrap_or(&[]));
    to.patch16(l3 + 10, header.checksum());
}

/// An IPv6 packet without extension headers.
pub fn ipv6(
    to: &mut Writer<'_>,
    link: &Link,
    route: &Route<Ipv6Addr>,
    protocol: IpProtocol,
    payload: impl FnOnce(&mut Writer<'_>),
) {
    link.write(to, EtherType::IPV6);
    let l3 = to.len();
    to.put(&[0x60, 0, 0, 0, 0, 0, protocol.0, route.ttl]);
    to.put(&route.src.octets());
    to.put(&route.dst.octets());
    let l4 = to.len();
    payload(to);
    let len = to.since(l4);
    to.patch16(l3 + 4, len);
}

/// A UDP datagram over IPv4; `ports` are source and destination.
pub fn udp_v4(
    to: &mut Writer<'_>,
    link: &Link,
    route: &Route<Ipv4Addr>,
    ports: (u16, u16),
    payload: impl FnOnce(&mut Writer<'_>),
) {
    ipv4(to, link, route, IpProtocol::UDP, |to| {
        udp(to, ports, payload, |len| {
            pseudo_header_v4(route.src.octets(), route.dst.octets(), IpProtocol::UDP, len)
        });
    });
}

/// A UDP datagram over IPv6; `ports` are source and destination.
pub fn udp_v6(
    to: &mut Writer<'_>,
    link: &Link,
    route: &Route<Ipv6Addr>,
    ports: (u16, u16),
    payload: impl FnOnce(&mut Writer<'_>),
) {
    ipv6(to, link, route, IpProtocol::UDP, |to| {
        udp(to, ports, payload, |len| {
            pseudo_header_v6(route.src.octets(), route.dst.octets(), IpProtocol::UDP, len.into())
        });
    });
}

fn udp(
    to: &mut Writer<'_>,
    ports: (u16, u16),
    payload: impl FnOnce(&mut Writer<'_>),
    pseudo: impl FnOnce(u16) -> Sum,
) {
    let l4 = to.len();
    to.put16(ports.0);
    to.put16(ports.1);
    to.put32(0);
    payload(to);
    let len = to.since(l4);
    to.patch16(l4 + 4, len);
    let sum = pseudo(len) + to.sum_since(l4);
    to.patch16(l4 + 6, sum.udp_checksum());
}

/// An ICMP message over IPv4: type, code, and what follows the checksum.
pub fn icmp(
    to: &mut Writer<'_>,
    link: &Link,
    route: &Route<Ipv4Addr>,
    (kind, code): (u8, u8),
    body: impl FnOnce(&mut Writer<'_>),
) {
    ipv4(to, link, route, IpProtocol::ICMP, |to| {
        let l4 = to.len();
        to.put(&[kind, code, 0, 0]);
        body(to);
        let sum = to.sum_since(l4);
        to.patch16(l4 + 2, sum.checksum());
    });
}

/// An ICMPv6 message: type, code, and what follows the checksum.
pub fn icmp_v6(
    to: &mut Writer<'_>,
    link: &Link,
    route: &Route<Ipv6Addr>,
    (kind, code): (u8, u8),
    body: impl FnOnce(&mut Writer<'_>),
) {
    ipv6(to, link, route, IpProtocol::ICMPV6, |to| {
        let l4 = to.len();
        to.put(&[kind, code, 0, 0]);
        body(to);
        let len = to.since(l4);
        let pseudo = pseudo_header_v6(route.src.octets(), route.dst.octets(), IpProtocol::ICMPV6, len.into());
        let sum = pseudo + to.sum_since(l4);
        to.patch16(l4 + 2, sum.checksum());
    });
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::{
        Vid,
        checksum::{Verification, verify},
    };

    const LINK: Link = Link {
        dst: MacAddr([2, 0, 0, 0, 0, 1]),
        src: MacAddr([2, 0, 0, 0, 0, 2]),
        tag: Some(Tci::new(Vid::MAX, 3, false)),
    };

    fn v4() -> Route<Ipv4Addr> {
        Route { src: Ipv4Addr::new(10, 0, 0, 1), dst: Ipv4Addr::new(10, 0, 0, 2), ttl: 64 }
    }

    fn v6() -> Route<Ipv6Addr> {
        Route {
            src: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            dst: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            ttl: 255,
        }
    }

    fn frame(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut bytes = [0; 1514];
        let mut writer = Writer::new(&mut bytes);
        write(&mut writer);
        let len = writer.finish().unwrap();
        bytes[..len].to_vec()
    }

    #[test]
    fn etherparse_reads_what_was_written() {
        for size in [0, 1, 7, 300, 1400] {
            let payload = vec![0x5a; size];
            for over_v6 in [false, true] {
                let bytes = frame(|to| match over_v6 {
                    false => udp_v4(to, &LINK, &v4(), (67, 68), |to| to.put(&payload)),
                    true => udp_v6(to, &LINK, &v6(), (547, 546), |to| to.put(&payload)),
                });
                let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
                assert_eq!(sliced.vlan_ids()[0].value(), 4094);
                let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
                assert_eq!(udp.destination_port(), if over_v6 { 546 } else { 68 });
                assert_eq!(udp.payload(), payload);
                assert_eq!(verify(&bytes), Verification::Good);
                if let Some(NetSlice::Ipv4(ip)) = sliced.net {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    assert!(header.dont_fragment);
                }
            }
        }
        let echo = frame(|to| icmp(to, &LINK, &v4(), (0, 0), |to| to.put(b"\x12\x34\x00\x01abc")));
        assert_eq!(verify(&echo), Verification::Good);
        let echo = frame(|to| icmp_v6(to, &LINK, &v6(), (129, 0), |to| to.put(b"\x12\x34\x00\x01abc")));
        assert_eq!(verify(&echo), Verification::Good);
        let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ethernet(&echo).unwrap().transport else {
            panic!("no ICMPv6")
        };
        assert!(icmp.is_checksum_valid(v6().src.octets(), v6().dst.octets()));
    }

    #[test]
    fn what_does_not_fit_is_no_frame() {
        for room in 0..60 {
            let mut bytes = vec![0; room];
            let mut writer = Writer::new(&mut bytes);
            udp_v4(&mut writer, &LINK, &v4(), (1, 2), |to| to.put(b"0123456789abcdef"));
            // 18 + 20 + 8 + 16.
            assert_eq!(writer.finish(), None, "in {room} bytes");
        }
        let mut bytes = [0; 62];
        let mut writer = Writer::new(&mut bytes);
        udp_v4(&mut writer, &LINK, &v4(), (1, 2), |to| to.put(b"0123456789abcdef"));
        assert_eq!(writer.finish(), Some(62));
    }
}
