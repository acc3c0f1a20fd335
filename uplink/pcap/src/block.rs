//! Writing pcapng (draft-ietf-opsawg-pcapng, sections 4.1 to 4.6) into memory, little-endian, times in nanoseconds.

use fabnic_port::Direction;

pub(crate) const SECTION: u32 = 0x0a0d_0d0a;
pub(crate) const BYTE_ORDER: u32 = 0x1a2b_3c4d;
pub(crate) const INTERFACE: u32 = 1;
pub(crate) const ENHANCED_PACKET: u32 = 6;
const INTERFACE_STATISTICS: u32 = 5;
/// LINKTYPE_ETHERNET.
pub(crate) const ETHERNET: u16 = 1;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// The longest comment that is written, in bytes; longer ones are cut.
pub(crate) const MAX_COMMENT: usize = 160;
/// Bytes that a packet block takes besides the packet, at most: fixed fields, padding, comment, flags, end.
pub(crate) const PACKET_OVERHEAD: usize = 28 + 3 + (4 + MAX_COMMENT) + 8 + 4 + 4;

/// A block being written; its two length fields are filled in at the end.
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u32) -> Block<'a> {
        let start = out.len();
        out.extend(kind.to_le_bytes());
        out.extend([0; 4]);
        Block { out, start }
    }

    fn u16(&mut self, value: u16) {
        self.out.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend(value.to_le_bytes());
    }

    /// A time or counter in two halves, the upper one first (section 4.3 and 4.6).
    fn halves(&mut self, value: u64) {
        self.u32((value >> 32) as u32);
        self.u32(value as u32);
    }

    fn pad(&mut self) {
        let len = (self.out.len() - self.start).next_multiple_of(4);
        self.out.resize(self.start + len, 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
        self.u16(code);
        self.u16(value.len() as u16);
        self.out.extend(value);
        self.pad();
    }

    fn counter(&mut self, code: u16, value: u64) {
        self.option(code, &value.to_le_bytes());
    }

    fn time(&mut self, code: u16, value: u64) {
        self.u16(code);
        self.u16(8);
        self.halves(value);
    }

    fn end(mut self) {
        let len = (self.out.len() - self.start + 4) as u32;
        self.u32(len);
        if let Some(field) = self.out.get_mut(self.start + 4..self.start + 8) {
            field.copy_from_slice(&len.to_le_bytes());
        }
    }

    fn end_options(mut self) {
        self.u16(OPT_END);
        self.u16(0);
        self.end();
    }
}

/// The beginning of a file.
pub(crate) fn section(out: &mut Vec<u8>) {
    let mut block = Block::begin(out, SECTION);
    block.u32(BYTE_ORDER);
    block.u16(1);
    block.u16(0);
    // Section length: not known.
    block.u32(u32::MAX);
    block.u32(u32::MAX);
    block.option(SHB_USERAPPL, concat!("fabnic ", env!("CARGO_PKG_VERSION")).as_bytes());
    block.end_options();
}

/// An interface; they are numbered from 0 in the order in which they come.
pub(crate) fn interface(out: &mut Vec<u8>, name: &str, snaplen: u32) {
    let mut block = Block::begin(out, INTERFACE);
    block.u16(ETHERNET);
    block.u16(0);
    block.u32(snaplen);
    block.option(IF_NAME, name.as_bytes());
    // 10^-9 seconds.
    block.option(IF_TSRESOL, &[9]);
    block.end_options();
}

/// What is written of a packet besides its bytes.
pub(crate) struct PacketInfo<'a> {
    pub(crate) interface: u32,
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) original_len: u32,
    pub(crate) direction: Direction,
    /// Empty for none.
    pub(crate) comment: &'a str,
}

/// A packet of which `captured` bytes are kept; `fill` writes them.
pub(crate) fn packet(
    out: &mut Vec<u8>,
    info: &PacketInfo<'_>,
    captured: usize,
    fill: impl FnOnce(&mut [u8]) -> usize,
) {
    let mut block = Block::begin(out, ENHANCED_PACKET);
    block.u32(info.interface);
    block.halves(info.time);
    let len_at = block.out.len();
    block.u32(captured as u32);
    block.u32(info.original_len);
    let start = block.out.len();
    block.out.resize(start + captured, 0);
    let got = block.out.get_mut(start..).map_or(0, fill).min(captured);
    if got < captured {
        // The sender's memory went; keep what there was.
        block.out.truncate(start + got);
        if let Some(field) = block.out.get_mut(len_at..len_at + 4) {
            field.copy_from_slice(&(got as u32).to_le_bytes());
        }
    }
    block.pad();
    if !info.comment.is_empty() {
        block.option(OPT_COMMENT, cut(info.comment, MAX_COMMENT).as_bytes());
    }
    let direction: u32 = match info.direction {
        Direction::In => 1,
        Direction::Out => 2,
    };
    block.option(EPB_FLAGS, &direction.to_le_bytes());
    block.end_options();
}

/// What an interface saw: times in nanoseconds since 1970, packets that were offered, and those that were not kept.
pub(crate) fn statistics(
    out: &mut Vec<u8>,
    interface: u32,
    start: u64,
    end: u64,
    received: u64,
    dropped: u64,
) {
    let mut block = Block::begin(out, INTERFACE_STATISTICS);
    block.u32(interface);
    block.halves(end);
    block.time(ISB_STARTTIME, start);
    block.time(ISB_ENDTIME, end);
    block.counter(ISB_IFRECV, received);
    block.counter(ISB_IFDROP, dropped);
    block.end_options();
}

/// The longest beginning of at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
