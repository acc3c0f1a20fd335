//! Transmit descriptors: 16 bytes, two words (`iavf_txrx.h`, "Tx descriptors").

/// Bytes of a descriptor.
pub const DESCRIPTOR: usize = 16;

/// Types of descriptors, bits 3:0 of the second word.
pub mod dtype {
    /// A buffer.
    pub const DATA: u64 = 0;
    /// What holds for the whole packet.
    pub const CONTEXT: u64 = 1;
    /// Flow director programming, which virtual functions do by message.
    pub const FILTER: u64 = 8;
    /// Written back: done.
    pub const DONE: u64 = 0xf;
}

/// Command bits of a data descriptor, from bit 4 of the second word on.
pub mod cmd {
    /// End of packet.
    pub const EOP: u16 = 0x001;
    /// Report status.
    pub const RS: u16 = 0x002;
    /// Insert the frame check sequence.
    pub const ICRC: u16 = 0x004;
    /// Insert L2TAG1 as a VLAN tag.
    pub const IL2TAG1: u16 = 0x008;
    /// Process, but do not send.
    pub const DUMMY: u16 = 0x010;
    /// Network header: none.
    pub const IP_MASK: u16 = 0x060;
    /// Network header: IPv6.
    pub const IPV6: u16 = 0x020;
    /// Network header: IPv4, its checksum is right.
    pub const IPV4: u16 = 0x040;
    /// Network header: IPv4, its checksum is to be computed.
    pub const IPV4_CSUM: u16 = 0x060;
    /// Transport header: none.
    pub const L4_MASK: u16 = 0x300;
    /// Transport header: TCP.
    pub const TCP: u16 = 0x100;
    /// Transport header: SCTP.
    pub const SCTP: u16 = 0x200;
    /// Transport header: UDP.
    pub const UDP: u16 = 0x300;
}

/// Command bits of a context descriptor, from bit 4 of the second word on.
pub mod context_cmd {
    /// Segment.
    pub const TSO: u16 = 0x01;
    /// Insert L2TAG2 as a VLAN tag.
    pub const IL2TAG2: u16 = 0x04;
}

/// The second word of a data descriptor, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// See [`cmd`].
    pub cmd: u16,
    /// Bytes of the Ethernet header with its tags; even.
    pub mac_len: u16,
    /// Bytes of the network header; a multiple of 4.
    pub ip_len: u16,
    /// Bytes of the transport header; a multiple of 4.
    pub l4_len: u16,
    /// Bytes in the buffer, 14 bits.
    pub len: u16,
    /// VLAN tag.
    pub tag: u16,
}

/// `bits` bits of a word, at most 16.
#[expect(clippy::cast_possible_truncation, reason = "masked")]
#[inline(always)]
const fn field(word: u64, shift: u32, bits: u32) -> u16 {
    ((word >> shift) & ((1 << bits) - 1)) as u16
}

impl Data {
    /// Takes a second word apart whose type is [`dtype::DATA`].
    #[inline(always)]
    pub const fn parse(word: u64) -> Data {
        Data {
            cmd: field(word, 4, 12),
            mac_len: field(word, 16, 7) * 2,
            ip_len: field(word, 23, 7) * 4,
            l4_len: field(word, 30, 4) * 4,
            len: field(word, 34, 14),
            tag: field(word, 48, 16),
        }
    }

    /// The second word.
    pub const fn encode(&self) -> u64 {
        dtype::DATA
            | (self.cmd as u64 & 0xfff) << 4
            | ((self.mac_len as u64 / 2) & 0x7f) << 16
            | ((self.ip_len as u64 / 4) & 0x7f) << 23
            | ((self.l4_len as u64 / 4) & 0xf) << 30
            | (self.len as u64 & 0x3fff) << 34
            | (self.tag as u64) << 48
    }
}

/// A context descriptor, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// See [`context_cmd`].
    pub cmd: u16,
    /// Outer IP and tunnel: not zero if the packet is in a tunnel.
    pub tunnel: u16,
    /// Second VLAN tag.
    pub tag: u16,
    /// Payload bytes of the whole large frame, 18 bits.
    pub payload: u32,
    /// Payload bytes of each segment, 14 bits.
    pub mss: u16,
}

impl Context {
    /// Takes both words apart.
    #[inline]
    pub const fn parse(words: [u64; 2]) -> Context {
        Context {
            cmd: field(words[1], 4, 7),
            tunnel: field(words[0], 0, 2) | field(words[0], 9, 2) << 2,
            tag: field(words[0], 32, 16),
            payload: ((words[1] >> 30) & 0x3_ffff) as u32,
            mss: field(words[1], 50, 14),
        }
    }

    /// Both words, without a tunnel.
    pub const fn encode(&self) -> [u64; 2] {
        let second = dtype::CONTEXT
            | (self.cmd as u64 & 0x7f) << 4
            | (self.payload as u64 & 0x3_ffff) << 30
            | (self.mss as u64 & 0x3fff) << 50;
        [(self.tag as u64) << 32, second]
    }
}
