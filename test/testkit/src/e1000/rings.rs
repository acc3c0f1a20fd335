//! Descriptors: legacy, context and data ones to send, legacy ones to receive.

use super::{DriverError, Layout, RingMemory};
use crate::memory::{GuestMemory, MemoryError};

/// What is asked for with a frame. The default is a plain legacy frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// A context descriptor before it: its two words, with the command that asks for one.
    pub context: Option<[u64; 2]>,
    /// Data descriptors with these packet options; without, legacy ones.
    pub options: Option<u8>,
    /// The frame is to be segmented.
    pub tse: bool,
    /// Legacy: a checksum from the first place on goes to the second.
    pub checksum: Option<(u8, u8)>,
    /// A tag is to be inserted.
    pub tag: Option<u16>,
    /// The FCS is in the frame.
    pub own_fcs: bool,
    /// The interrupt may be delayed.
    pub ide: bool,
    /// No status is wanted.
    pub silent: bool,
}

/// Where a checksum is computed and goes to: first byte, field, last byte or 0.
pub type Place = (u8, u8, u16);

impl Ask {
    /// Asks for a checksum of the L4 header, and of an IP header if there is a place for it.
    pub fn checksums(ip: Option<Place>, l4: Option<(Place, bool)>) -> Ask {
        let tcp = l4.is_some_and(|(_, tcp)| tcp);
        let first = places(ip.unwrap_or_default(), l4.map_or((0, 0, 0), |(place, _)| place));
        let command = 1 << 29 | u64::from(tcp) << 24 | u64::from(ip.is_some()) << 25;
        Ask {
            context: Some([first, command]),
            options: Some(u8::from(ip.is_some()) | u8::from(l4.is_some()) << 1),
            ..Ask::default()
        }
    }

    /// Asks for segments of `mss` bytes behind `hdr_len` bytes of headers.
    pub fn segments(ip: Place, l4: Place, tcp: bool, v4: bool, hdr_len: u8, mss: u16, payload: u32) -> Ask {
        let command = u64::from(payload) & 0xf_ffff
            | 1 << 29
            | 1 << 26
            | u64::from(tcp) << 24
            | u64::from(v4) << 25
            | u64::from(hdr_len) << 40
            | u64::from(mss) << 48;
        Ask {
            context: Some([places(ip, l4), command]),
            options: Some(2 | u8::from(v4)),
            tse: true,
            ..Ask::default()
        }
    }
}

fn places(ip: Place, l4: Place) -> u64 {
    let half = |(start, field, end): Place| u64::from(start) | u64::from(field) << 8 | u64::from(end) << 16;
    half(ip) | half(l4) << 32
}

fn ring_memory(memory: &mut GuestMemory, count: u32, buffers: u64) -> Result<RingMemory, MemoryError> {
    let addr = memory.allocate(16 * u64::from(count), 4096)?;
    let at = memory.allocate(buffers, 4096)?;
    Ok(RingMemory {
        addr,
        descriptors: memory.table(addr, count as usize)?,
        buffers: at,
        slice: memory.slice(at, u32::try_from(buffers).unwrap_or(u32::MAX))?,
    })
}

#[derive(Debug)]
pub(super) struct TransmitRing {
    memory: RingMemory,
    count: u32,
    arena: u32,
    next: u32,
    clean: u32,
    /// The next byte of the arena.
    at: u32,
    /// What is sent again and again.
    again: Option<Again>,
}

/// Groups that a ring of packets is cut into.
const GROUPS: u32 = 16;

/// Packets that were written once: as `fabnic-avf-driver` has them, of a group only the last asks for its status.
#[derive(Debug)]
struct Again {
    /// Descriptors, and packets, of a group.
    descriptors: u32,
    packets: u32,
    /// The last second word of each group.
    last: Vec<u64>,
}

impl TransmitRing {
    pub(super) fn new(memory: &mut GuestMemory, layout: &Layout) -> Result<TransmitRing, MemoryError> {
        let count = layout.transmit;
        let memory = ring_memory(memory, count, layout.arena.into())?;
        Ok(TransmitRing { memory, count, arena: layout.arena, next: 0, clean: 0, at: 0, again: None })
    }

    pub(super) fn addr(&self) -> u64 {
        self.memory.addr
    }

    pub(super) fn tail(&self) -> u32 {
        self.next
    }

    pub(super) fn reset(&mut self) {
        (self.next, self.clean, self.at) = (0, 0, 0);
        (0..self.count as usize).for_each(|at| self.memory.descriptors.store(at, [0; 2]));
    }

    fn free(&self) -> u32 {
        let used = if self.next >= self.clean {
            self.next - self.clean
        } else {
            self.next + self.count - self.clean
        };
        self.count - 1 - used
    }

    pub(super) fn add_raw(&mut self, words: [u64; 2]) -> bool {
        if self.free() == 0 {
            return false;
        }
        self.memory.descriptors.store(self.next as usize, words);
        self.next = (self.next + 1) % self.count;
        true
    }

    pub(super) fn add(&mut self, memory: &GuestMemory, frame: &[u8], cuts: &[usize], ask: &Ask) -> bool {
        let mut pieces = Vec::new();
        let mut rest = frame;
        for cut in cuts {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        pieces.retain(|piece| !piece.is_empty());
        let needed = pieces.len() + usize::from(ask.context.is_some());
        let room = u32::try_from(frame.len() + 8 * pieces.len()).unwrap_or(u32::MAX);
        if self.free() < u32::try_from(needed).unwrap_or(u32::MAX) || room > self.arena / 2 {
            return false;
        }
        if let Some(context) = ask.context {
            self.add_raw(context);
        }
        let last = pieces.len().saturating_sub(1);
        for (number, piece) in pieces.iter().enumerate() {
            let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            // Odd places, and no piece goes round the end of the arena.
            if self.at + len + 7 > self.arena {
                self.at = 0;
            }
            memory.map().write(&self.memory.slice, self.at, piece);
            let addr = self.memory.buffers + u64::from(self.at);
            self.at += len + 3;
            self.add_raw([addr, describe(ask, len, number == last)]);
        }
        true
    }

    /// Fills the ring with packets, all of one length and each in so many descriptors that they divide the ring. Gives how many
    /// there are.
    pub(super) fn prepare(
        &mut self,
        memory: &GuestMemory,
        ask: &Ask,
        pieces: u32,
        mut frame: impl FnMut(u32) -> Vec<u8>,
    ) -> u32 {
        let context = u32::from(ask.context.is_some());
        let each = (pieces + context).next_power_of_two();
        let pieces = each - context;
        let descriptors = self.count / GROUPS;
        let mut last = Vec::new();
        self.next = 0;
        for packet in 0..self.count / each {
            let bytes = frame(packet);
            let len = bytes.len().div_ceil(pieces as usize).max(1);
            if let Some(context) = ask.context {
                self.put(context);
            }
            for (n, piece) in (1..).zip(bytes.chunks(len)) {
                let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                memory.map().write(&self.memory.slice, self.at, piece);
                let addr = self.memory.buffers + u64::from(self.at);
                // Whole lines, an odd number of them.
                self.at += (len.div_ceil(64) | 1) * 64;
                let is_last = (self.next + 1).is_multiple_of(descriptors);
                let word = describe(&Ask { silent: !is_last, ..*ask }, len, n == pieces);
                if is_last {
                    last.push(word);
                }
                self.put([addr, word]);
            }
        }
        (self.clean, self.next) = (0, self.count - descriptors);
        self.again = Some(Again { descriptors, packets: descriptors / each, last });
        self.count / each
    }

    fn put(&mut self, words: [u64; 2]) {
        self.memory.descriptors.store(self.next as usize, words);
        self.next = (self.next + 1) % self.count;
    }

    /// Makes groups of packets that are done available again, until there are `most` packets or none.
    pub(super) fn repeat(&mut self, most: u32) -> u32 {
        let Some(again) = &self.again else { return 0 };
        let mut sent = 0;
        while sent < most {
            let end = (self.clean + again.descriptors - 1) as usize;
            let [addr, word] = self.memory.descriptors.load_acquire(end);
            if word & 1 << 32 == 0 {
                break;
            }
            let word = again.last.get((self.clean / again.descriptors) as usize).copied().unwrap_or(0);
            self.memory.descriptors.store(end, [addr, word]);
            self.clean = (self.clean + again.descriptors) % self.count;
            self.next = (self.next + again.descriptors) % self.count;
            sent += again.packets;
        }
        sent
    }

    pub(super) fn reap(&mut self, head: u32) -> Result<u32, DriverError> {
        let given = (self.next + self.count - self.clean) % self.count;
        let done = (head + self.count - self.clean) % self.count;
        if head >= self.count || done > given {
            return Err(DriverError::Head { ring: "transmit", head, from: self.clean, to: self.next });
        }
        self.clean = head;
        Ok(given - done)
    }
}

/// The second word of a descriptor.
fn describe(ask: &Ask, len: u32, is_last: bool) -> u64 {
    let bit = |set: bool, bit: u32| u64::from(set) << bit;
    let mut word = u64::from(len)
        | bit(is_last, 24)
        | bit(!ask.own_fcs, 25)
        | bit(is_last && !ask.silent, 27)
        | bit(ask.tag.is_some(), 30)
        | bit(ask.ide, 31)
        | u64::from(ask.tag.unwrap_or(0)) << 48;
    match (ask.options, ask.checksum) {
        (Some(options), _) => {
            word |= 1 << 20 | 1 << 29 | bit(ask.tse, 26) | u64::from(options) << 40;
        }
        (None, Some((start, field))) => {
            word |= 1 << 26 | u64::from(field) << 16 | u64::from(start) << 40;
        }
        (None, None) => {}
    }
    word
}

/// A frame that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its bytes, with padding and without FCS.
    pub bytes: Vec<u8>,
    /// The tag that was stripped.
    pub tag: Option<u16>,
    /// The status byte of its last descriptor.
    pub status: u8,
    /// The errors byte of its last descriptor.
    pub errors: u8,
}

impl Received {
    /// The device says that the checksum of TCP or UDP is right.
    pub fn is_checked(&self) -> bool {
        self.status & 1 << 2 == 0 && self.status & 1 << 5 != 0 && self.errors == 0
    }
}

/// From one receive buffer to the next: an odd number of lines more than a power of two, which would put all first lines into
/// a few sets of every cache.
fn stride(layout: &Layout) -> u32 {
    layout.buffer + 64
}

#[derive(Debug)]
pub(super) struct ReceiveRing {
    memory: RingMemory,
    count: u32,
    next: u32,
    partial: Vec<u8>,
}

impl ReceiveRing {
    pub(super) fn new(memory: &mut GuestMemory, layout: &Layout) -> Result<ReceiveRing, MemoryError> {
        let buffers = u64::from(layout.receive) * u64::from(stride(layout));
        let memory = ring_memory(memory, layout.receive, buffers)?;
        Ok(ReceiveRing { memory, count: layout.receive, next: 0, partial: Vec::new() })
    }

    pub(super) fn addr(&self) -> u64 {
        self.memory.addr
    }

    fn give(&self, layout: &Layout, at: u32) {
        let addr = self.memory.buffers + u64::from(at) * u64::from(stride(layout));
        self.memory.descriptors.store(at as usize, [addr, 0]);
    }

    pub(super) fn reset(&mut self, _memory: &GuestMemory, layout: &Layout) -> Result<(), MemoryError> {
        self.next = 0;
        self.partial.clear();
        (0..self.count).for_each(|at| self.give(layout, at));
        Ok(())
    }

    /// Takes frames, up to `most` and if there are at least `gather`, reads the first bytes of each and gives their buffers
    /// back at once. Gives frames and bytes, and where the tail is to be if it moves.
    pub(super) fn recycle(
        &mut self,
        memory: &GuestMemory,
        layout: &Layout,
        gather: u32,
        most: u32,
    ) -> (u64, u64, Option<u32>) {
        let is_done = |word: u64| word & 1 << 32 != 0;
        let last = (self.next + gather.clamp(1, self.count - 1) - 1) % self.count;
        let (mut frames, mut bytes) = (0, 0);
        if !is_done(self.memory.descriptors.load_acquire(last as usize)[1]) {
            return (frames, bytes, None);
        }
        for _ in 0..most.min(self.count - 1) {
            let at = self.next;
            let [_, word] = self.memory.descriptors.load_acquire(at as usize);
            if !is_done(word) {
                break;
            }
            memory.map().prefetch_at(&self.memory.slice, (at + 8) % self.count * stride(layout));
            let mut first = [0; 8];
            memory.map().read(&self.memory.slice, at * stride(layout), &mut first);
            frames += u64::from(word & 1 << 33 != 0 && first != [0; 8]);
            bytes += word & 0xffff;
            self.give(layout, at);
            self.next = (at + 1) % self.count;
        }
        (frames, bytes, Some((self.next + self.count - 1) % self.count))
    }

    /// Frames that are whole, and where the tail is to be if it moves.
    pub(super) fn take(
        &mut self,
        memory: &GuestMemory,
        layout: &Layout,
    ) -> Result<(Vec<Received>, Option<u32>), DriverError> {
        let mut frames = Vec::new();
        let before = self.next;
        loop {
            let [_, word] = self.memory.descriptors.load_acquire(self.next as usize);
            let [l0, l1, _, _, status, errors, t0, t1] = word.to_le_bytes();
            if status & 1 == 0 {
                break;
            }
            let at = self.next;
            let len = u16::from_le_bytes([l0, l1]);
            if u32::from(len) > layout.buffer {
                return Err(DriverError::TooLong { at, len, room: layout.buffer });
            }
            let begin = self.partial.len();
            self.partial.resize(begin + usize::from(len), 0);
            let room = self.partial.get_mut(begin..).unwrap_or(&mut []);
            memory.map().read(&self.memory.slice, at * stride(layout), room);
            self.give(layout, at);
            self.next = (at + 1) % self.count;
            if status & 2 != 0 {
                let mut bytes = core::mem::take(&mut self.partial);
                if layout.rctl & super::reg::RCTL_SECRC == 0 {
                    bytes.truncate(bytes.len().saturating_sub(4));
                }
                let tag = (status & 8 != 0).then_some(u16::from_le_bytes([t0, t1]));
                frames.push(Received { bytes, tag, status, errors });
            }
        }
        let tail = (self.next + self.count - 1) % self.count;
        Ok((frames, (self.next != before).then_some(tail)))
    }
}
