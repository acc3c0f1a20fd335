//! Frames for tests.
//!
//! A [`Packet`] is put together layer by layer, from the outside in, and [`Packet::build`] fills in lengths and
//! checksums. Nothing here is fast.
//!
//! ```
//! use fabnic_testkit::packets::Packet;
//! let frame = Packet::ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
//!     .vlan(10, 0)
//!     .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
//!     .udp(1000, 2000)
//!     .payload(b"hello")
//!     .build();
//! assert_eq!(frame.len(), 14 + 4 + 20 + 8 + 5);
//! ```

use fabnic_wire::checksum::{Sum, pseudo_header_v4, pseudo_header_v6};
use fabnic_wire::ip::IpProtocol;

/// Broadcast.
pub const BROADCAST: [u8; 6] = [0xff; 6];

#[derive(Clone, Copy, Debug)]
enum Network {
    None,
    V4 { src: [u8; 4], dst: [u8; 4], ttl: u8, id: u16 },
    V6 { src: [u8; 16], dst: [u8; 16], hops: u8 },
}

#[derive(Clone, Debug)]
enum Transport {
    None,
    Udp { src: u16, dst: u16 },
    Tcp { src: u16, dst: u16, seq: u32, ack: u32, flags: u8, options: Vec<u8> },
    Icmp { kind: u8, code: u8, rest: u32 },
}

/// TCP flag.
pub mod tcp {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// PSH.
    pub const PSH: u8 = 8;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// A frame being put together.
#[derive(Clone, Debug)]
pub struct Packet {
    dst: [u8; 6],
    src: [u8; 6],
    /// TPID and TCI of each tag, outermost first.
    tags: Vec<(u16, u16)>,
    ethertype: Option<u16>,
    network: Network,
    transport: Transport,
    payload: Vec<u8>,
    pad: usize,
    partial: bool,
}

impl Packet {
    /// From `src` to `dst`.
    pub fn ethernet(dst: [u8; 6], src: [u8; 6]) -> Packet {
        Packet {
            dst,
            src,
            tags: Vec::new(),
            ethertype: None,
            network: Network::None,
            transport: Transport::None,
            payload: Vec::new(),
            pad: 0,
            partial: false,
        }
    }

    /// With an 802.1Q tag; call it again for one further in.
    pub fn vlan(self, vid: u16, pcp: u8) -> Packet {
        self.tag(0x8100, vid | u16::from(pcp) << 13)
    }

    /// With a tag of any kind.
    pub fn tag(mut self, tpid: u16, tci: u16) -> Packet {
        self.tags.push((tpid, tci));
        self
    }

    /// With this EtherType, whatever the payload is.
    pub fn ethertype(mut self, ethertype: u16) -> Packet {
        self.ethertype = Some(ethertype);
        self
    }

    /// IPv4.
    pub fn ipv4(mut self, src: [u8; 4], dst: [u8; 4]) -> Packet {
        self.network = Network::V4 { src, dst, ttl: 64, id: 0 };
        self
    }

    /// IPv6.
    pub fn ipv6(mut self, src: [u8; 16], dst: [u8; 16]) -> Packet {
        self.network = Network::V6 { src, dst, hops: 64 };
        self
    }

    /// UDP.
    pub fn udp(mut self, src: u16, dst: u16) -> Packet {
        self.transport = Transport::Udp { src, dst };
        self
    }

    /// TCP.
    pub fn tcp(mut self, src: u16, dst: u16, seq: u32, ack: u32, flags: u8) -> Packet {
        self.transport = Transport::Tcp { src, dst, seq, ack, flags, options: Vec::new() };
        self
    }

    /// TCP options, padded to a multiple of four bytes.
    pub fn tcp_options(mut self, bytes: &[u8]) -> Packet {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = bytes.to_vec();
            options.resize(bytes.len().next_multiple_of(4), 1);
        }
        self
    }

    /// ICMP over IPv4, ICMPv6 over IPv6. `rest` is the word behind the checksum.
    pub fn icmp(mut self, kind: u8, code: u8, rest: u32) -> Packet {
        self.transport = Transport::Icmp { kind, code, rest };
        self
    }

    /// The payload.
    pub fn payload(mut self, bytes: &[u8]) -> Packet {
        self.payload = bytes.to_vec();
        self
    }

    /// Makes the payload so long that the whole frame has `len` bytes (no shorter than its headers).
    pub fn size(mut self, len: usize) -> Packet {
        let headers = self.headers();
        self.payload.resize(len.saturating_sub(headers), 0);
        self
    }

    /// Zeros behind the packet up to `len` bytes, which belong to no layer: the padding of short frames.
    pub fn pad_to(mut self, len: usize) -> Packet {
        self.pad = len;
        self
    }

    /// Leaves the transport's checksum to the receiver: its field holds the pseudo header's sum (NEEDS_CSUM).
    pub fn partial_checksum(mut self) -> Packet {
        self.partial = true;
        self
    }

    /// Bytes before the payload.
    pub fn headers(&self) -> usize {
        self.l4() + self.transport_len()
    }

    /// Where the network header begins.
    pub fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the transport header begins.
    pub fn l4(&self) -> usize {
        self.l3()
            + match self.network {
                Network::None => 0,
                Network::V4 { .. } => 20,
                Network::V6 { .. } => 40,
            }
    }

    fn transport_len(&self) -> usize {
        match &self.transport {
            Transport::None => 0,
            Transport::Udp { .. } | Transport::Icmp { .. } => 8,
            Transport::Tcp { options, .. } => 20 + options.len(),
        }
    }

    fn protocol(&self) -> u8 {
        match (&self.transport, &self.network) {
            (Transport::Udp { .. }, _) => 17,
            (Transport::Tcp { .. }, _) => 6,
            (Transport::Icmp { .. }, Network::V6 { .. }) => 58,
            (Transport::Icmp { .. }, _) => 1,
            (Transport::None, _) => 59,
        }
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.headers() + self.payload.len());
        frame.extend_from_slice(&self.dst);
        frame.extend_from_slice(&self.src);
        for (tpid, tci) in &self.tags {
            frame.extend_from_slice(&tpid.to_be_bytes());
            frame.extend_from_slice(&tci.to_be_bytes());
        }
        let ethertype = self.ethertype.unwrap_or(match self.network {
            Network::V4 { .. } => 0x0800,
            Network::V6 { .. } => 0x86dd,
            Network::None => 0x88b5,
        });
        frame.extend_from_slice(&ethertype.to_be_bytes());
        let segment = self.transport_len() + self.payload.len();
        match self.network {
            Network::None => {}
            Network::V4 { src, dst, ttl, id } => {
                let mut header = [0; 20];
                let total = u16::try_from(20 + segment).unwrap_or(u16::MAX);
                header[0] = 0x45;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[8] = ttl;
                header[9] = self.protocol();
                header[12..16].copy_from_slice(&src);
                header[16..20].copy_from_slice(&dst);
                let sum = Sum::of(&header).checksum();
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend_from_slice(&header);
            }
            Network::V6 { src, dst, hops } => {
                let len = u16::try_from(segment).unwrap_or(0);
                frame.extend_from_slice(&[0x60, 0, 0, 0]);
                frame.extend_from_slice(&len.to_be_bytes());
                frame.extend_from_slice(&[self.protocol(), hops]);
                frame.extend_from_slice(&src);
                frame.extend_from_slice(&dst);
            }
        }
        let at = frame.len();
        let field = match &self.transport {
            Transport::None => None,
            Transport::Udp { src, dst } => {
                let len = u16::try_from(segment).unwrap_or(0);
                for half in [*src, *dst, len, 0] {
                    frame.extend_from_slice(&half.to_be_bytes());
                }
                Some(6)
            }
            Transport::Tcp { src, dst, seq, ack, flags, options } => {
                frame.extend_from_slice(&src.to_be_bytes());
                frame.extend_from_slice(&dst.to_be_bytes());
                frame.extend_from_slice(&seq.to_be_bytes());
                frame.extend_from_slice(&ack.to_be_bytes());
                let words = u8::try_from(5 + options.len() / 4).unwrap_or(15);
                frame.extend_from_slice(&[words << 4, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                frame.extend_from_slice(options);
                Some(16)
            }
            Transport::Icmp { kind, code, rest } => {
                frame.extend_from_slice(&[*kind, *code, 0, 0]);
                frame.extend_from_slice(&rest.to_be_bytes());
                Some(2)
            }
        };
        frame.extend_from_slice(&self.payload);
        if let Some(field) = field {
            let pseudo = self.pseudo_header(segment);
            let sum = if self.partial { pseudo } else { pseudo + Sum::of(&frame[at..]) };
            let value = match (self.partial, &self.transport) {
                (true, _) => sum.word(),
                (false, Transport::Udp { .. }) => sum.udp_checksum(),
                (false, _) => sum.checksum(),
            };
            frame[at + field..at + field + 2].copy_from_slice(&value.to_be_bytes());
        }
        if frame.len() < self.pad {
            frame.resize(self.pad, 0);
        }
        frame
    }

    fn pseudo_header(&self, segment: usize) -> Sum {
        let protocol = IpProtocol(self.protocol());
        match (self.network, &self.transport) {
            // ICMP over IPv4 has none.
            (Network::None, _) | (Network::V4 { .. }, Transport::Icmp { .. }) => Sum::ZERO,
            (Network::V4 { src, dst, .. }, _) => {
                pseudo_header_v4(src, dst, protocol, u16::try_from(segment).unwrap_or(u16::MAX))
            }
            (Network::V6 { src, dst, .. }, _) => {
                pseudo_header_v6(src, dst, protocol, u32::try_from(segment).unwrap_or(u32::MAX))
            }
        }
    }
}

/// A UDP frame of `size` bytes over IPv4.
pub fn udp(dst: [u8; 6], src: [u8; 6], flow: u16, size: usize) -> Vec<u8> {
    Packet::ethernet(dst, src).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(flow, 9).size(size).build()
}

/// "Who has `target`?", from `src` with address `sender`; broadcast.
pub fn arp_request(src: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    arp(BROADCAST, src, 1, src, sender, [0; 6], target)
}

/// "`sender` is at `src`", to `dst` with address `target`.
pub fn arp_reply(dst: [u8; 6], src: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    arp(dst, src, 2, src, sender, dst, target)
}

fn arp(
    dst: [u8; 6],
    src: [u8; 6],
    operation: u16,
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4];
    body.extend_from_slice(&operation.to_be_bytes());
    body.extend_from_slice(&sender_mac);
    body.extend_from_slice(&sender);
    body.extend_from_slice(&target_mac);
    body.extend_from_slice(&target);
    Packet::ethernet(dst, src).ethertype(0x0806).payload(&body).pad_to(60).build()
}

#[cfg(test)]
mod tests;
