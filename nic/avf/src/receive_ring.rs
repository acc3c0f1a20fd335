//! One receive ring: buffers that the driver posted, filled and written back.
//!
//! A frame takes consecutive descriptors, each buffer filled but the last. All its bytes are written before the first of
//! its descriptors is, and of each descriptor the word that says "done" is stored last: the driver never sees half a
//! frame that does not become a whole one.

use std::sync::Arc;

use fabnic_avf_spec::receive::{DESCRIPTOR, Found, rxdid};
use fabnic_memory::{AddressSpace, Cursor, Hint, Map, Slice, Table, copy, copy_sum};
use fabnic_port::finish::{HEADERS, Piece};
use fabnic_port::{DropReason, Fault, Frame};
use fabnic_wire::checksum::Sum;

use crate::classify::{Kind, Transport};
use crate::crc::Crc;
use crate::doorbell::Doorbells;
use crate::stats::Counters;

/// Words of a descriptor.
const WORDS: usize = DESCRIPTOR / 8;
/// Buffers that one frame may take: a longest frame in the smallest buffers that may be posted.
pub(crate) const MAX_BUFFERS: usize = 128;
/// Bytes of a frame check sequence.
const FCS: u32 = 4;

/// Why a frame did not go.
pub(crate) enum Refusal {
    /// This one only.
    Drop(DropReason),
    /// The guest broke the rules.
    Fault(Fault),
}

impl From<fabnic_port::finish::CannotFinish> for Refusal {
    fn from(_: fabnic_port::finish::CannotFinish) -> Refusal {
        Refusal::Drop(DropReason::CannotSegment)
    }
}

/// How a receive queue was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceiveConfig {
    /// Bus address of the ring.
    pub(crate) ring: u64,
    /// Descriptors in it.
    pub(crate) len: u16,
    /// Bytes of each buffer.
    pub(crate) buffer_len: u16,
    /// Longest frame.
    pub(crate) max_frame: u32,
    /// Format of descriptors.
    pub(crate) format: u8,
    /// Keep the FCS.
    pub(crate) keep_crc: bool,
}

/// What the descriptor will say that does not depend on the bytes, and what is to be done with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) found: Found,
    pub(crate) kind: Kind,
    /// The first tag is taken out.
    pub(crate) strip: bool,
}

/// Where a tag is, and how long.
const TAG: core::ops::Range<usize> = 12..16;

/// A receive ring.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: usize,
    words: Table<u64>,
    config: ReceiveConfig,
    /// The next descriptor to be filled.
    head: u16,
    /// The first that the driver has not posted; looked at once a burst.
    tail: u16,
    hint: Hint,
    /// The buffers of the frame in work.
    targets: Vec<Slice>,
    /// Something was written back since this was last asked.
    written: bool,
    pub(crate) counters: Arc<Counters>,
}

impl Ring {
    /// Opens a ring whose next descriptor is `head`.
    ///
    /// # Errors
    /// It is not in the guest's memory.
    pub(crate) fn open(
        queue: usize,
        map: &Arc<Map>,
        config: ReceiveConfig,
        head: u16,
        counters: Arc<Counters>,
    ) -> Result<Ring, Fault> {
        let words = map.table(AddressSpace::Guest, config.ring, WORDS * usize::from(config.len)).map_err(
            |error| {
                counters.fault();
                Fault(format!("receive ring {queue}: {error}"))
            },
        )?;
        let head = if head < config.len { head } else { 0 };
        Ok(Ring {
            queue,
            words,
            config,
            head,
            tail: head,
            hint: Hint::default(),
            targets: Vec::with_capacity(2 * MAX_BUFFERS),
            written: false,
            counters,
        })
    }

    /// The next descriptor to be filled.
    pub(crate) fn position(&self) -> u16 {
        self.head
    }

    /// Whether something was written back since this was last asked.
    pub(crate) fn take_written(&mut self) -> bool {
        core::mem::take(&mut self.written)
    }

    #[cold]
    fn broken(&self, what: &str) -> Refusal {
        Refusal::Fault(Fault(format!("receive queue {} at descriptor {}: {what}", self.queue, self.head)))
    }

    /// Looks at the tail, once a burst.
    pub(crate) fn look(&mut self, doorbells: &Doorbells) -> Result<(), Refusal> {
        let tail = doorbells.receive(self.queue);
        if tail >= self.config.len {
            return Err(self.broken(&format!("the tail is {tail}, expected less than {}", self.config.len)));
        }
        self.tail = tail;
        Ok(())
    }

    fn posted(&self) -> u16 {
        if self.tail >= self.head { self.tail - self.head } else { self.tail + self.config.len - self.head }
    }

    fn after(&self, at: u16) -> u16 {
        if at + 1 >= self.config.len { 0 } else { at + 1 }
    }

    /// Takes the buffers for `len` bytes. Gives how many.
    #[inline]
    fn reserve(&mut self, map: &Map, len: u32) -> Result<u16, Refusal> {
        self.targets.clear();
        let size = u32::from(self.config.buffer_len).max(1);
        let count = if len <= size { 1 } else { len.div_ceil(size) };
        if count > u32::from(self.posted()) {
            return Err(Refusal::Drop(DropReason::RingFull));
        }
        let Some(count) = u16::try_from(count).ok().filter(|count| usize::from(*count) <= MAX_BUFFERS) else {
            return Err(Refusal::Drop(DropReason::BufferTooSmall));
        };
        let (mut at, mut left) = (self.head, len);
        for _ in 0..count {
            let addr = u64::from_le(self.words.load(WORDS * usize::from(at)));
            let part = left.min(size);
            match map.translate(addr, part, &mut self.hint) {
                Some(slice) => self.targets.push(slice),
                None => self.reserve_pieces(map, addr, part)?,
            }
            left -= part;
            at = self.after(at);
        }
        Ok(count)
    }

    /// A buffer that goes on in the next region.
    #[cold]
    fn reserve_pieces(&mut self, map: &Map, addr: u64, len: u32) -> Result<(), Refusal> {
        let targets = &mut self.targets;
        let whole = map.translate_pieces(addr, len, &mut self.hint, |piece| {
            targets.push(piece);
            targets.len() < 2 * MAX_BUFFERS
        });
        if whole {
            return Ok(());
        }
        self.counters.fault();
        Err(self.broken(&format!("a buffer of {len} bytes at {addr:#x} is not in the guest's memory")))
    }

    /// Writes the descriptors of a frame whose bytes are written.
    #[inline]
    fn write_back(&mut self, count: u16, len: u32, found: &Found) {
        let size = u32::from(self.config.buffer_len).max(1);
        let mut left = len;
        self.written = true;
        for n in 1..=count {
            let last = n == count;
            let part = u16::try_from(left.min(size)).unwrap_or(0);
            let [first, second, third, fourth] = match self.config.format {
                rxdid::LEGACY_32 => found.legacy(part, last),
                format => found.flexible(format, part, last),
            };
            let at = WORDS * usize::from(self.head);
            self.words.store(at, first.to_le());
            self.words.store(at + 2, third.to_le());
            self.words.store(at + 3, fourth.to_le());
            self.words.store_release(at + 1, second.to_le());
            left -= u32::from(part);
            self.head = self.after(self.head);
        }
    }

    /// Bytes that a frame of `len` takes, if it is not too long.
    #[inline]
    fn size(&self, len: u32, strip: bool) -> Result<u32, Refusal> {
        if len > self.config.max_frame {
            return Err(Refusal::Drop(DropReason::EgressMtu));
        }
        let cut = if strip { 4 } else { 0 };
        Ok(len - cut + if self.config.keep_crc { FCS } else { 0 })
    }

    /// Delivers a frame that needs nothing but one buffer; `false`, and nothing done, if it needs more.
    #[inline(always)]
    pub(crate) fn place_usual(
        &mut self,
        map: &Map,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        plan: &Plan,
    ) -> bool {
        let (len, head, rest) = (frame.len(), frame.head(), frame.rest_len());
        let size = u16::try_from(len).unwrap_or(u16::MAX);
        let is_usual = frame.offload().is_plain() && !plan.strip && !self.config.keep_crc;
        if !is_usual
            || size > self.config.buffer_len
            || len > self.config.max_frame
            || self.head == self.tail
            || matches!(plan.kind.transport, Transport::Sctp { .. })
        {
            return false;
        }
        let at = WORDS * usize::from(self.head);
        let addr = u64::from_le(self.words.load(at));
        let Some(target) = map.translate(addr, len, &mut self.hint) else { return false };
        let (own, before) = frame.rest_slices(slices);
        let from = match own {
            [one] if one.len() >= before + rest => one.part(before, rest),
            _ if rest == 0 => Slice::EMPTY,
            _ => return false,
        };
        let to = target.part(len - rest, rest);
        let mut found = plan.found;
        found.bad_ip = plan.kind.bad_ip;
        found.checked = true;
        map.write(&target, 0, head);
        match plan.kind.transport {
            Transport::Sum { from: start, len: covered, seed } => {
                let end = (start + covered).min(head.len());
                let mut sum = seed + Sum::of(head.get(start..end).unwrap_or(&[]));
                let covered =
                    u32::try_from((start + covered).saturating_sub(head.len())).unwrap_or(0).min(rest);
                if covered > 0 {
                    let (_, more) = copy_sum(source, &from.part(0, covered), map, &to.part(0, covered));
                    sum += Sum::from_memory_order(more).at(head.len().saturating_sub(start));
                }
                if covered < rest {
                    copy(source, &from.part(covered, rest), map, &to.part(covered, rest));
                }
                found.bad_l4 = !sum.is_valid();
            }
            other => {
                found.checked = !matches!(other, Transport::Unknown);
                copy(source, &from, map, &to);
            }
        }
        let [first, second, third, fourth] = match self.config.format {
            rxdid::LEGACY_32 => found.legacy(size, true),
            format => found.flexible(format, size, true),
        };
        self.words.store(at, first.to_le());
        self.words.store(at + 2, third.to_le());
        self.words.store(at + 3, fourth.to_le());
        self.words.store_release(at + 1, second.to_le());
        self.head = self.after(self.head);
        self.written = true;
        true
    }

    /// Delivers a frame that nobody has to finish.
    #[inline]
    pub(crate) fn place(
        &mut self,
        map: &Map,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        plan: &Plan,
    ) -> Result<(), Refusal> {
        let total = self.size(frame.len(), plan.strip)?;
        let count = self.reserve(map, total)?;
        let head = frame.head();
        let rest = frame.rest_len();
        let at = self.write_head(map, head, plan.strip)?;
        let mut checked = true;
        let mut bad_l4 = false;
        match plan.kind.transport {
            Transport::Sum { from, len, seed } => {
                let end = (from + len).min(head.len());
                let sum = seed + Sum::of(head.get(from..end).unwrap_or(&[]));
                // What of the rest is covered; behind it there may be padding.
                let covered = u32::try_from((from + len).saturating_sub(head.len())).unwrap_or(0).min(rest);
                let sum = match covered {
                    0 => sum,
                    _ => {
                        let (mut to, mut from_rest) = (self.cursor(at), frame.rest(slices));
                        let (done, more) = to.copy_sum_from(map, source, &mut from_rest, covered);
                        if done != covered {
                            return Err(Refusal::Drop(DropReason::CannotSegment));
                        }
                        sum + Sum::from_memory_order(more).at(head.len().saturating_sub(from))
                    }
                };
                bad_l4 = !sum.is_valid();
                self.copy_rest(map, frame, slices, source, at, covered)?;
            }
            other => {
                self.copy_rest(map, frame, slices, source, at, 0)?;
                checked = !matches!(other, Transport::Unknown);
            }
        }
        self.done(map, count, total, plan, checked, bad_l4)
    }

    /// Delivers one piece of a frame that is finished for this receiver.
    pub(crate) fn place_piece(&mut self, map: &Map, piece: &Piece<'_>, plan: &Plan) -> Result<(), Refusal> {
        let len = u32::try_from(piece.len()).map_err(|_| Refusal::Drop(DropReason::Oversize))?;
        let total = self.size(len, plan.strip)?;
        let count = self.reserve(map, total)?;
        let header_len = piece.header_len();
        let at = u32::try_from(header_len).unwrap_or(u32::MAX) - if plan.strip { 4 } else { 0 };
        let sum = {
            let mut to = self.cursor(at);
            piece.copy_payload(&mut to, map).ok_or(fabnic_port::finish::CannotFinish)?
        };
        let mut headers = [0_u8; HEADERS];
        piece.write_headers(&mut headers, sum)?;
        self.write_head(map, headers.get(..header_len).unwrap_or(&[]), plan.strip)?;
        let checked = !matches!(plan.kind.transport, Transport::Unknown);
        self.done(map, count, total, plan, checked, false)
    }

    fn cursor(&self, at: u32) -> Cursor<'_> {
        let mut cursor = Cursor::new(&self.targets);
        cursor.skip(at);
        cursor
    }

    /// Writes the private bytes, less the tag if it is taken out. Gives how many.
    #[inline]
    fn write_head(&self, map: &Map, head: &[u8], strip: bool) -> Result<u32, Refusal> {
        let lost = || Refusal::Drop(DropReason::BufferTooSmall);
        let (front, back) = match strip {
            true => (head.get(..TAG.start).unwrap_or(&[]), head.get(TAG.end..).unwrap_or(&[])),
            false => (head, &[][..]),
        };
        let len = front.len() + back.len();
        match self.targets.as_slice() {
            [one] if one.len() as usize >= len => {
                map.write(one, 0, front);
                if strip {
                    map.write(one, u32::try_from(front.len()).unwrap_or(0), back);
                }
            }
            targets => {
                let mut cursor = Cursor::new(targets);
                if cursor.write(map, front) + cursor.write(map, back) != len {
                    return Err(lost());
                }
            }
        }
        u32::try_from(len).map_err(|_| lost())
    }

    /// Copies what is not private, less its first `skip` bytes, to `at` and behind.
    #[inline]
    fn copy_rest(
        &self,
        map: &Map,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        at: u32,
        skip: u32,
    ) -> Result<(), Refusal> {
        let rest = frame.rest_len() - skip;
        if rest == 0 {
            return Ok(());
        }
        let (own, before) = frame.rest_slices(slices);
        let done = match (own, self.targets.as_slice()) {
            ([from], [to]) => copy(source, &from.part(before + skip, rest), map, &to.part(at + skip, rest)),
            _ => {
                let mut from = frame.rest(slices);
                from.skip(skip);
                self.cursor(at + skip).copy_from(map, source, &mut from, rest)
            }
        };
        if done == rest { Ok(()) } else { Err(Refusal::Drop(DropReason::BufferTooSmall)) }
    }

    /// Everything is written but what needs all bytes, and the descriptors.
    #[inline]
    fn done(
        &mut self,
        map: &Map,
        count: u16,
        total: u32,
        plan: &Plan,
        checked: bool,
        bad_l4: bool,
    ) -> Result<(), Refusal> {
        let mut found = plan.found;
        (found.checked, found.bad_ip, found.bad_l4) = (checked, plan.kind.bad_ip, bad_l4);
        if let Transport::Sctp { from, len } = plan.kind.transport {
            found.bad_l4 = !self.sctp_is_valid(map, from - if plan.strip { 4 } else { 0 }, len);
        }
        if self.config.keep_crc {
            self.write_fcs(map, total)?;
            found.fcs = true;
        }
        self.write_back(count, total, &found);
        Ok(())
    }

    /// Reads back what was written, `len` bytes from `from` on, and goes on with the check. A driver that changes them
    /// meanwhile deceives nobody but itself.
    fn add_written(&self, map: &Map, crc: &mut Crc, from: usize, len: usize) {
        let mut cursor = self.cursor(u32::try_from(from).unwrap_or(u32::MAX));
        let (mut left, mut bounce) = (len, [0_u8; 1024]);
        while let Some(part) = bounce.get_mut(..left.min(1024)).filter(|part| !part.is_empty()) {
            let got = cursor.read(map, part);
            if got == 0 {
                return;
            }
            crc.add(part.get(..got).unwrap_or(&[]));
            left -= got;
        }
    }

    fn sctp_is_valid(&self, map: &Map, from: usize, len: usize) -> bool {
        let mut header = [0_u8; 12];
        let mut cursor = self.cursor(u32::try_from(from).unwrap_or(u32::MAX));
        if cursor.read(map, &mut header) != header.len() {
            return false;
        }
        let [fields @ .., a, b, c, d] = header;
        let fields: [u8; 8] = fields;
        let mut crc = Crc::castagnoli();
        crc.add(&fields);
        crc.add(&[0; 4]);
        self.add_written(map, &mut crc, from + 12, len.saturating_sub(12));
        crc.finish() == [a, b, c, d]
    }

    /// Frames here have no FCS: a driver that wants to see one gets the right one.
    fn write_fcs(&self, map: &Map, total: u32) -> Result<(), Refusal> {
        let at = total - FCS;
        let mut crc = Crc::ethernet();
        self.add_written(map, &mut crc, 0, usize::try_from(at).unwrap_or(0));
        let written = self.cursor(at).write(map, &crc.finish());
        if written == 4 { Ok(()) } else { Err(Refusal::Drop(DropReason::BufferTooSmall)) }
    }
}
