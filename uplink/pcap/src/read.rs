//! Reading pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), both byte orders, from bytes that are
//! not trusted.
//!
//! What is not needed (statistics, name resolution, options, blocks of other kinds) is skipped without being held.

use std::io::{self, Read};

use crate::block::{BYTE_ORDER, ENHANCED_PACKET, ETHERNET, INTERFACE, SECTION};

/// The longest packet that is read, in bytes; libpcap's own bound (MAXIMUM_SNAPLEN).
pub const MAX_PACKET: u32 = 262_144;
/// The longest block that is held: a packet and its options.
const MAX_BLOCK: u32 = MAX_PACKET + 65_536 * 4;
/// The most interfaces of a section.
const MAX_INTERFACES: usize = 65_536;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;
const NANOS: u64 = 1_000_000_000;

/// Which of the two formats a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// pcap, with times in microseconds or nanoseconds.
    Pcap,
    /// pcapng.
    Pcapng,
}

/// Why a file is not one that can be read: where (`at`, in bytes from its beginning), what, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system could not read.
    #[error("at byte {at}: {source}")]
    Io {
        /// Where.
        at: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The file ends in the middle of something.
    #[error("at byte {at}: the file ends within {what}")]
    Truncated {
        /// Where what is incomplete begins.
        at: u64,
        /// What is incomplete.
        what: &'static str,
    },
    /// Neither format begins so.
    #[error(
        "at byte 0: the file begins with {magic:#010x}, expected pcap (0xa1b2c3d4 or 0xa1b23c4d, either byte order) or pcapng (0x0a0d0d0a)"
    )]
    Magic {
        /// The first four bytes, as a little-endian number.
        magic: u32,
    },
    /// A version of the format that nobody has defined.
    #[error("at byte {at}: version {major}.{minor}, expected {expected}")]
    Version {
        /// Where.
        at: u64,
        /// Upper half.
        major: u16,
        /// Lower half.
        minor: u16,
        /// What is known.
        expected: &'static str,
    },
    /// Frames of something that is not Ethernet.
    #[error("at byte {at}: link type {link_type}, expected 1 (Ethernet)")]
    LinkType {
        /// Where.
        at: u64,
        /// The type found (LINKTYPE_*).
        link_type: u32,
    },
    /// A length that cannot be.
    #[error("at byte {at}: {what} of {len} bytes, expected {expected}")]
    Length {
        /// Where.
        at: u64,
        /// What has the length.
        what: &'static str,
        /// The length found.
        len: u32,
        /// What would have been possible.
        expected: &'static str,
    },
    /// The two lengths of a block differ.
    #[error("at byte {at}: a block of {head} bytes says {tail} at its end, expected the same")]
    Trailer {
        /// Where the block begins.
        at: u64,
        /// Length at its beginning.
        head: u32,
        /// Length at its end.
        tail: u32,
    },
    /// A byte-order magic that is none.
    #[error("at byte {at}: byte-order magic {magic:#010x}, expected 0x1a2b3c4d in either byte order")]
    ByteOrder {
        /// Where.
        at: u64,
        /// What was found, as a little-endian number.
        magic: u32,
    },
    /// A packet of an interface that was not described.
    #[error("at byte {at}: a packet of interface {interface}, the section has {known}")]
    Interface {
        /// Where.
        at: u64,
        /// The number used.
        interface: u32,
        /// Interfaces described so far.
        known: usize,
    },
    /// More interfaces than anybody needs.
    #[error("at byte {at}: more than {MAX_INTERFACES} interfaces in a section")]
    TooManyInterfaces {
        /// Where.
        at: u64,
    },
    /// A resolution of times that cannot be computed with.
    #[error(
        "at byte {at}: times in units of {base}^-{exponent} s, expected 10^-38 s or 2^-96 s at the finest"
    )]
    Resolution {
        /// Where.
        at: u64,
        /// 10 or 2.
        base: u8,
        /// The exponent found.
        exponent: u8,
    },
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was captured, in nanoseconds since 1970; 0 if the file does not say.
    pub time: u64,
    /// Its length on the wire, in bytes.
    pub original_len: u32,
    /// The bytes that were kept.
    pub bytes: &'a [u8],
}

/// How a time in units becomes nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Units in a second.
    units: u128,
    /// Seconds to be added.
    offset: i64,
}

impl Clock {
    fn nanoseconds(self, time: u64) -> u64 {
        let ns = u128::from(time) * u128::from(NANOS) / self.units.max(1);
        let ns = i128::try_from(ns).unwrap_or(i128::MAX);
        let all = ns.saturating_add(i128::from(self.offset) * i128::from(NANOS));
        u64::try_from(all.max(0)).unwrap_or(u64::MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    clock: Clock,
    snaplen: u32,
}

/// Reads packet by packet.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    /// Bytes read so far.
    at: u64,
    format: Format,
    big_endian: bool,
    /// Of a pcap file: units in a second. Of a pcapng section: its interfaces.
    units: u32,
    interfaces: Vec<Interface>,
    /// The block or packet at hand; grows to what is needed, within bounds.
    block: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of the file.
    ///
    /// # Errors
    /// It is none of the two formats, or the system cannot read.
    pub fn new(from: R) -> Result<Reader<R>, ReadError> {
        let mut reader = Reader {
            from,
            at: 0,
            format: Format::Pcap,
            big_endian: false,
            units: 0,
            interfaces: Vec::new(),
            block: Vec::new(),
        };
        let mut magic = [0; 4];
        reader.fill(&mut magic, "its magic number")?;
        (reader.big_endian, reader.units) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1_000_000),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1_000_000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1_000_000_000),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1_000_000_000),
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                reader.format = Format::Pcapng;
                reader.section(0)?;
                return Ok(reader);
            }
            other => return Err(ReadError::Magic { magic: u32::from_le_bytes(other) }),
        };
        reader.pcap_header()?;
        Ok(reader)
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The next packet; `None` at the end of the file.
    ///
    /// # Errors
    /// See [`ReadError`]. After an error nothing further can be read.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        match self.format {
            Format::Pcap => self.next_record(),
            Format::Pcapng => self.next_block(),
        }
    }

    fn pcap_header(&mut self) -> Result<(), ReadError> {
        let mut header = [0; 20];
        self.fill(&mut header, "the file's header")?;
        let (major, minor) = (self.u16(&header, 0), self.u16(&header, 2));
        if (major, minor) != (2, 4) {
            return Err(ReadError::Version { at: 4, major, minor, expected: "2.4" });
        }
        // The upper bits say whether frames carry their FCS.
        let link_type = self.u32(&header, 16) & 0x0fff_ffff;
        if link_type != u32::from(ETHERNET) {
            return Err(ReadError::LinkType { at: 20, link_type });
        }
        Ok(())
    }

    fn next_record(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        let at = self.at;
        let mut header = [0; 16];
        if !self.fill_or_end(&mut header, "a packet's header")? {
            return Ok(None);
        }
        let (seconds, fraction) = (self.u32(&header, 0), self.u32(&header, 4));
        let (len, original_len) = (self.u32(&header, 8), self.u32(&header, 12));
        if len > MAX_PACKET {
            let expected = "262144 at most";
            return Err(ReadError::Length { at: at + 8, what: "a packet", len, expected });
        }
        self.hold(len, "a packet")?;
        let fraction = u64::from(fraction) * (NANOS / u64::from(self.units.max(1)));
        let time = (u64::from(seconds) * NANOS).saturating_add(fraction);
        Ok(Some(Packet { time, original_len, bytes: &self.block }))
    }

    fn next_block(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        loop {
            let at = self.at;
            let mut kind = [0; 4];
            if !self.fill_or_end(&mut kind, "a block's type")? {
                return Ok(None);
            }
            let kind = self.u32(&kind, 0);
            if kind == SECTION {
                self.section(at)?;
                continue;
            }
            let mut len = [0; 4];
            self.fill(&mut len, "a block's length")?;
            let len = self.u32(&len, 0);
            let is_known = matches!(kind, INTERFACE | ENHANCED_PACKET | PACKET | SIMPLE_PACKET);
            if len < 12 || !len.is_multiple_of(4) || (is_known && len > MAX_BLOCK) {
                let expected = "a multiple of 4 from 12 on, in packets and interfaces 524288 at most";
                return Err(ReadError::Length { at: at + 4, what: "a block", len, expected });
            }
            if is_known {
                self.hold(len - 12, "a block")?;
            } else {
                self.skip(u64::from(len - 12), "a block")?;
            }
            let mut tail = [0; 4];
            self.fill(&mut tail, "a block's trailing length")?;
            let tail = self.u32(&tail, 0);
            if tail != len {
                return Err(ReadError::Trailer { at, head: len, tail });
            }
            let packet = match kind {
                INTERFACE => {
                    self.interface(at)?;
                    continue;
                }
                ENHANCED_PACKET => self.packet(at, false)?,
                PACKET => self.packet(at, true)?,
                SIMPLE_PACKET => self.simple_packet(at)?,
                _ => continue,
            };
            let Place { time, original_len, start, len } = packet;
            let bytes = self.block.get(start..start + len).unwrap_or(&[]);
            return Ok(Some(Packet { time, original_len, bytes }));
        }
    }

    /// A section header whose type has been read (section 4.1); the section's interfaces are numbered anew.
    fn section(&mut self, at: u64) -> Result<(), ReadError> {
        const WHAT: &str = "a section's header";
        let mut header = [0; 20];
        self.fill(&mut header, WHAT)?;
        self.big_endian = match header.get(4..8) {
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
            _ => {
                self.big_endian = false;
                return Err(ReadError::ByteOrder { at: at + 8, magic: self.u32(&header, 4) });
            }
        };
        debug_assert_eq!(self.u32(&header, 4), BYTE_ORDER);
        let len = self.u32(&header, 0);
        let (major, minor) = (self.u16(&header, 8), self.u16(&header, 10));
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(ReadError::Version { at: at + 12, major, minor, expected: "1.0 or 1.2" });
        }
        if len < 28 || !len.is_multiple_of(4) {
            let expected = "a multiple of 4 from 28 on";
            return Err(ReadError::Length { at: at + 4, what: WHAT, len, expected });
        }
        self.skip(u64::from(len - 28), WHAT)?;
        let mut tail = [0; 4];
        self.fill(&mut tail, WHAT)?;
        let tail = self.u32(&tail, 0);
        if tail != len {
            return Err(ReadError::Trailer { at, head: len, tail });
        }
        self.interfaces.clear();
        Ok(())
    }

    /// The interface description in `block` (section 4.2).
    fn interface(&mut self, at: u64) -> Result<(), ReadError> {
        let len = self.block.len() as u32;
        if len < 8 {
            let expected = "20 and more";
            return Err(ReadError::Length {
                at: at + 4,
                what: "an interface block",
                len: len + 12,
                expected,
            });
        }
        let link_type = self.u16(&self.block, 0);
        if link_type != ETHERNET {
            return Err(ReadError::LinkType { at: at + 8, link_type: u32::from(link_type) });
        }
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(ReadError::TooManyInterfaces { at });
        }
        let snaplen = self.u32(&self.block, 4);
        let mut clock = Clock { units: 1_000_000, offset: 0 };
        // Options end with the block at the latest; each takes at least four bytes of it.
        let mut options = self.block.get(8..).unwrap_or(&[]);
        while let Some((head, rest)) = options.split_first_chunk::<4>() {
            let (code, len) = (self.u16(head, 0), usize::from(self.u16(head, 2)));
            let Some(value) = rest.get(..len) else { break };
            match (code, value) {
                (0, _) => break,
                (IF_TSRESOL, [resolution, ..]) => {
                    let (base, exponent) =
                        if resolution & 0x80 == 0 { (10_u8, *resolution) } else { (2, resolution & 0x7f) };
                    let units = u128::from(base).checked_pow(u32::from(exponent));
                    clock.units = units
                        .filter(|_| base == 10 || exponent <= 96)
                        .ok_or(ReadError::Resolution { at, base, exponent })?;
                }
                (IF_TSOFFSET, value) => {
                    if let Some(value) = value.first_chunk::<8>() {
                        let big = i64::from_be_bytes(*value);
                        clock.offset = if self.big_endian { big } else { big.swap_bytes() };
                    }
                }
                _ => {}
            }
            options = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        }
        self.interfaces.push(Interface { clock, snaplen });
        Ok(())
    }

    /// The packet in `block`: an enhanced one (section 4.3) or one of the obsolete kind (appendix A).
    fn packet(&self, at: u64, obsolete: bool) -> Result<Place, ReadError> {
        let all = self.block.len() as u32;
        let Some(room) = all.checked_sub(20) else {
            let expected = "32 and more";
            return Err(ReadError::Length { at: at + 4, what: "a packet block", len: all + 12, expected });
        };
        let block = &self.block;
        let id = if obsolete { u32::from(self.u16(block, 0)) } else { self.u32(block, 0) };
        let interface = self.interface_of(at, id)?;
        let time = u64::from(self.u32(block, 4)) << 32 | u64::from(self.u32(block, 8));
        let (len, original_len) = (self.u32(block, 12), self.u32(block, 16));
        if len > room.min(MAX_PACKET) {
            let expected = "262144 at most, within its block";
            return Err(ReadError::Length { at: at + 20, what: "a packet", len, expected });
        }
        let time = interface.clock.nanoseconds(time);
        Ok(Place { time, original_len, start: 20, len: len as usize })
    }

    /// The packet in `block` of the simple kind (section 4.4): no time, always of the first interface.
    fn simple_packet(&self, at: u64) -> Result<Place, ReadError> {
        let all = self.block.len() as u32;
        let Some(room) = all.checked_sub(4) else {
            let expected = "16 and more";
            return Err(ReadError::Length { at: at + 4, what: "a packet block", len: all + 12, expected });
        };
        let interface = self.interface_of(at, 0)?;
        let original_len = self.u32(&self.block, 0);
        let snaplen = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
        let len = original_len.min(snaplen);
        if len > room.min(MAX_PACKET) {
            let expected = "262144 at most, within its block";
            return Err(ReadError::Length { at: at + 8, what: "a packet", len, expected });
        }
        Ok(Place { time: 0, original_len, start: 4, len: len as usize })
    }

    fn interface_of(&self, at: u64, interface: u32) -> Result<Interface, ReadError> {
        let known = self.interfaces.len();
        self.interfaces.get(interface as usize).copied().ok_or(ReadError::Interface {
            at: at + 8,
            interface,
            known,
        })
    }

    /// Reads `len` bytes, which the caller has bounded, into `block`.
    fn hold(&mut self, len: u32, what: &'static str) -> Result<(), ReadError> {
        let mut block = core::mem::take(&mut self.block);
        block.resize(len as usize, 0);
        let result = self.fill(&mut block, what);
        self.block = block;
        result
    }

    fn skip(&mut self, len: u64, what: &'static str) -> Result<(), ReadError> {
        let at = self.at;
        let skipped = io::copy(&mut (&mut self.from).take(len), &mut io::sink())
            .map_err(|source| ReadError::Io { at, source })?;
        self.at += skipped;
        if skipped < len { Err(ReadError::Truncated { at, what }) } else { Ok(()) }
    }

    fn fill(&mut self, to: &mut [u8], what: &'static str) -> Result<(), ReadError> {
        let at = self.at;
        if to.is_empty() || self.fill_or_end(to, what)? {
            Ok(())
        } else {
            Err(ReadError::Truncated { at, what })
        }
    }

    /// `false` if the file ends before the first byte.
    fn fill_or_end(&mut self, to: &mut [u8], what: &'static str) -> Result<bool, ReadError> {
        let at = self.at;
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.from.read(rest) {
                Ok(0) if done == 0 => return Ok(false),
                Ok(0) => return Err(ReadError::Truncated { at, what }),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ReadError::Io { at, source }),
            }
        }
        self.at += done as u64;
        Ok(true)
    }

    /// The field at `at` of bytes that the caller has measured; 0 behind their end.
    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        match bytes.get(at..).and_then(<[u8]>::first_chunk) {
            Some(field) if self.big_endian => u16::from_be_bytes(*field),
            Some(field) => u16::from_le_bytes(*field),
            None => 0,
        }
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        match bytes.get(at..).and_then(<[u8]>::first_chunk) {
            Some(field) if self.big_endian => u32::from_be_bytes(*field),
            Some(field) => u32::from_le_bytes(*field),
            None => 0,
        }
    }
}

/// Where in the block at hand a packet's bytes are.
struct Place {
    time: u64,
    original_len: u32,
    start: usize,
    len: usize,
}
