//! Descriptors: 16 bytes each, little endian (SDM 3.2.3 and 3.3.3 to 3.3.7).

use bitflags::bitflags;

/// Bytes of a descriptor of either ring.
pub const DESCRIPTOR_LEN: u32 = 16;

bitflags! {
    /// The command byte of a transmit descriptor (SDM 3.3.3.1, 3.3.6, 3.3.7).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Command: u8 {
        /// End of packet. Of a context: TCP.
        const EOP = 1 << 0;
        /// The FCS is inserted. Of a context: IPv4.
        const IFCS = 1 << 1;
        /// Legacy: a checksum is inserted. Data and context: segmentation.
        const IC_TSE = 1 << 2;
        /// Report status.
        const RS = 1 << 3;
        /// Report packet sent.
        const RPS = 1 << 4;
        /// An extended descriptor: data or context.
        const DEXT = 1 << 5;
        /// A VLAN tag is inserted.
        const VLE = 1 << 6;
        /// The interrupt may be delayed.
        const IDE = 1 << 7;
    }
}

/// POPTS: the IP header's checksum is inserted.
pub const IXSM: u8 = 1 << 0;
/// POPTS: the checksum of TCP or UDP is inserted.
pub const TXSM: u8 = 1 << 1;

/// Where a checksum is computed and inserted: offsets from the frame's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumPlace {
    /// First byte that is summed (CSS).
    pub start: u8,
    /// Where the result goes (CSO).
    pub field: u8,
    /// Last byte that is summed; 0: to the end (CSE).
    pub end: u16,
}

/// A context descriptor (SDM 3.3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Of the IP header.
    pub ip: ChecksumPlace,
    /// Of TCP or UDP.
    pub l4: ChecksumPlace,
    /// TCP, else UDP.
    pub tcp: bool,
    /// IPv4, else IPv6.
    pub v4: bool,
    /// For segmentation, else for checksums only.
    pub tse: bool,
    /// Bytes of headers before the payload.
    pub hdr_len: u8,
    /// Bytes of payload of a segment.
    pub mss: u16,
}

impl Context {
    /// The two words of its descriptor.
    pub const fn encode(&self) -> [u64; 2] {
        const fn half(place: ChecksumPlace) -> u64 {
            place.start as u64 | (place.field as u64) << 8 | (place.end as u64) << 16
        }
        let command = Command::DEXT.bits()
            | if self.tcp { Command::EOP.bits() } else { 0 }
            | if self.v4 { Command::IFCS.bits() } else { 0 }
            | if self.tse { Command::IC_TSE.bits() } else { 0 };
        let second = (command as u64) << 24 | (self.hdr_len as u64) << 40 | (self.mss as u64) << 48;
        [half(self.ip) | half(self.l4) << 32, second]
    }
}

/// What a buffer of a frame is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A legacy descriptor, with the place of its checksum.
    Legacy(ChecksumPlace),
    /// An extended data descriptor, with its packet options (POPTS).
    Data(u8),
}

/// A buffer of a frame to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Bus address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// Command byte.
    pub command: Command,
    /// Legacy or data.
    pub kind: Kind,
    /// The tag's TCI, with [`Command::VLE`].
    pub special: u16,
}

/// A transmit descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Says how the following frames are to be treated.
    Context(Context, Command),
    /// A piece of a frame.
    Buffer(Buffer),
}

impl Transmit {
    /// Takes the two words of a descriptor apart.
    #[inline]
    pub const fn decode([first, second]: [u64; 2]) -> Transmit {
        let [b8, b9, b10, b11, _, b13, b14, b15] = second.to_le_bytes();
        let command = Command::from_bits_truncate(b11);
        let special = u16::from_le_bytes([b14, b15]);
        if !command.contains(Command::DEXT) {
            let place = ChecksumPlace { start: b13, field: b10, end: 0 };
            let len = u16::from_le_bytes([b8, b9]) as u32;
            return Transmit::Buffer(Buffer {
                addr: first,
                len,
                command,
                kind: Kind::Legacy(place),
                special,
            });
        }
        if b10 >> 4 == 0 {
            let [ipcss, ipcso, ipcse0, ipcse1, tucss, tucso, tucse0, tucse1] = first.to_le_bytes();
            let context = Context {
                ip: ChecksumPlace { start: ipcss, field: ipcso, end: u16::from_le_bytes([ipcse0, ipcse1]) },
                l4: ChecksumPlace { start: tucss, field: tucso, end: u16::from_le_bytes([tucse0, tucse1]) },
                tcp: command.contains(Command::EOP),
                v4: command.contains(Command::IFCS),
                tse: command.contains(Command::IC_TSE),
                hdr_len: b13,
                mss: special,
            };
            return Transmit::Context(context, command);
        }
        // DTYP 1 is data; the others are reserved and count as that.
        let len = u32::from_le_bytes([b8, b9, b10 & 0xf, 0]);
        Transmit::Buffer(Buffer { addr: first, len, command, kind: Kind::Data(b13), special })
    }
}

/// Status of a transmit descriptor: done (SDM 3.3.3.2).
pub const TRANSMIT_DONE: u64 = 1 << 32;
/// Status of a transmit descriptor: the bits that the device writes.
pub const TRANSMIT_STATUS: u64 = 0xf << 32;

bitflags! {
    /// Status of a receive descriptor (SDM 3.2.3.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ReceiveStatus: u8 {
        /// Done.
        const DD = 1 << 0;
        /// End of packet.
        const EOP = 1 << 1;
        /// Nothing is said of checksums.
        const IXSM = 1 << 2;
        /// The tag was stripped; special has it.
        const VP = 1 << 3;
        /// The checksum of TCP or UDP was checked.
        const TCPCS = 1 << 5;
        /// The checksum of the IP header was checked.
        const IPCS = 1 << 6;
        /// Passed a filter that is not exact.
        const PIF = 1 << 7;
    }
}

/// What the device writes into a receive descriptor: its second word.
#[inline]
pub const fn receive_done(len: u16, status: ReceiveStatus, special: u16) -> u64 {
    len as u64 | (status.bits() as u64) << 32 | (special as u64) << 48
}
