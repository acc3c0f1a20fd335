//! Packets, put together and finished by a slow and obvious reference.
#![allow(dead_code, reason = "each test uses some of it")]

/// Network and transport of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proto {
    Tcp,
    Udp,
    Sctp,
}

/// What a packet is like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) v6: bool,
    pub(crate) proto: Proto,
    /// IPv4 options in words of 4 bytes; TCP options likewise.
    pub(crate) ip_options: usize,
    pub(crate) tcp_options: usize,
    /// A tag in the frame itself.
    pub(crate) tag: Option<u16>,
    pub(crate) payload: usize,
    pub(crate) seed: u8,
    pub(crate) tcp_flags: u8,
}

/// A packet with all lengths and checksums right, and where its headers are.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) l3: usize,
    pub(crate) l4: usize,
    pub(crate) payload: usize,
    pub(crate) v6: bool,
    pub(crate) proto: Proto,
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

pub(crate) fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// RFC 1071, word by word.
pub(crate) fn sum(bytes: &[u8], from: u32) -> u16 {
    let mut sum = from;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

impl Packet {
    pub(crate) fn new(to: [u8; 6], from: [u8; 6], shape: &Shape) -> Packet {
        let mut bytes = [&to[..], &from[..]].concat();
        if let Some(tag) = shape.tag {
            bytes.extend([0x81, 0]);
            bytes.extend(tag.to_be_bytes());
        }
        bytes.extend(if shape.v6 { [0x86, 0xdd] } else { [8, 0] });
        let l3 = bytes.len();
        let number = match shape.proto {
            Proto::Tcp => 6,
            Proto::Udp => 17,
            Proto::Sctp => 132,
        };
        if shape.v6 {
            bytes.extend([0x60, 0, 0, 0, 0, 0, number, 64]);
            bytes.extend((0..32_u8).map(|n| (n * 7).wrapping_add(shape.seed)));
        } else {
            bytes.extend([0x45 + shape.ip_options as u8, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, number, 0, 0]);
            bytes.extend([10, 0, 0, shape.seed, 10, 0, 1, 2]);
            bytes.extend((0..4 * shape.ip_options).map(|_| 1));
        }
        let l4 = bytes.len();
        match shape.proto {
            Proto::Tcp => {
                bytes.extend([0x12, shape.seed, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8]);
                bytes.extend([(5 + shape.tcp_options as u8) << 4, shape.tcp_flags, 0x10, 0, 0, 0, 0, 0]);
                bytes.extend((0..4 * shape.tcp_options).map(|_| 1));
            }
            Proto::Udp => bytes.extend([0x12, shape.seed, 0, 53, 0, 0, 0, 0]),
            Proto::Sctp => bytes.extend([0x12, shape.seed, 0, 99, 1, 2, 3, 4, 0, 0, 0, 0]),
        }
        let payload = bytes.len();
        bytes.extend((0..shape.payload).map(|n| (n * 13 + n / 251) as u8 ^ shape.seed));
        let mut packet = Packet { bytes, l3, l4, payload, v6: shape.v6, proto: shape.proto };
        packet.finish();
        packet
    }

    fn l4_len(&self) -> u32 {
        (self.bytes.len() - self.l4) as u32
    }

    /// The sum of the pseudo header with this length.
    pub(crate) fn pseudo(&self, len: u32) -> u16 {
        let (addresses, number) = match self.v6 {
            true => (&self.bytes[self.l3 + 8..self.l3 + 40], self.bytes[self.l3 + 6]),
            false => (&self.bytes[self.l3 + 12..self.l3 + 20], self.bytes[self.l3 + 9]),
        };
        sum(addresses, u32::from(number) + (len >> 16) + (len & 0xffff))
    }

    pub(crate) fn checksum_at(&self) -> usize {
        self.l4
            + match self.proto {
                Proto::Tcp => 16,
                Proto::Udp => 6,
                Proto::Sctp => 8,
            }
    }

    /// Writes lengths and checksums.
    pub(crate) fn finish(&mut self) {
        let (l3, l4, len) = (self.l3, self.l4, self.bytes.len());
        if self.v6 {
            put16(&mut self.bytes, l3 + 4, (len - l3 - 40) as u16);
        } else {
            put16(&mut self.bytes, l3 + 2, (len - l3) as u16);
            put16(&mut self.bytes, l3 + 10, 0);
            let checksum = !sum(&self.bytes[l3..l4], 0);
            put16(&mut self.bytes, l3 + 10, checksum);
        }
        let at = self.checksum_at();
        if self.proto == Proto::Udp {
            put16(&mut self.bytes, l4 + 4, (len - l4) as u16);
        }
        if self.proto == Proto::Sctp {
            self.bytes[at..at + 4].fill(0);
            let crc = crc32c(&self.bytes[l4..]);
            self.bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
            return;
        }
        put16(&mut self.bytes, at, 0);
        let seed = self.pseudo(self.l4_len());
        let checksum = match !sum(&self.bytes[l4..], seed.into()) {
            0 if self.proto == Proto::Udp => 0xffff,
            checksum => checksum,
        };
        put16(&mut self.bytes, at, checksum);
    }

    /// As a driver hands it to a card that finishes it. `large`: the card segments it.
    pub(crate) fn unfinished(&self, ip_checksum: bool, large: bool) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let at = self.checksum_at();
        match self.proto {
            Proto::Sctp => bytes[at..at + 4].fill(0xaa),
            _ => {
                let seed = self.pseudo(if large { 0 } else { self.l4_len() });
                put16(&mut bytes, at, seed);
            }
        }
        if !self.v6 && (ip_checksum || large) {
            put16(&mut bytes, self.l3 + 10, 0);
        }
        if large {
            put16(&mut bytes, self.l3 + if self.v6 { 4 } else { 2 }, 0);
        }
        bytes
    }

    /// The packets that a card makes of it.
    pub(crate) fn segments(&self, mss: usize) -> Vec<Vec<u8>> {
        let parts: Vec<_> = self.bytes[self.payload..].chunks(mss).collect();
        let mut out = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let mut bytes = self.bytes[..self.payload].to_vec();
            bytes.extend(*part);
            if !self.v6 {
                let id = get16(&bytes, self.l3 + 4);
                put16(&mut bytes, self.l3 + 4, id.wrapping_add(n as u16));
            }
            if self.proto == Proto::Tcp {
                let at = self.l4 + 4;
                let seq = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) + (n * mss) as u32;
                bytes[at..at + 4].copy_from_slice(&seq.to_be_bytes());
                if n + 1 < parts.len() {
                    bytes[self.l4 + 13] &= !9;
                }
                if n > 0 {
                    bytes[self.l4 + 13] &= !0x80;
                }
            }
            let mut segment = Packet { bytes, ..self.clone() };
            segment.finish();
            out.push(segment.bytes);
        }
        out
    }
}
