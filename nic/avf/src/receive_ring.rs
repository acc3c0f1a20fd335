//! One receive ring: buffers that the driver posted, filled and written back.
//!
//! A frame takes consecutive descriptors, each buffer filled but the last. All its bytes are written before the first of
//! its descriptors is, and of each descriptor the word that says "done" is stored last: the driver never sees half a
//! frame that does not become a whole one.
//!
//! Buffers are taken ahead of frames, a burst at a time: their descriptors are read and translated in one loop, and their
//! first lines asked for. What is left of them when a burst ends is for the next one.
//!
//! ```text
//!   head                      head + ahead            tail
//!    |--- buffers[used..] -------|--- posted, not read --|
//! ```

use std::sync::Arc;

use fabnic_avf_spec::receive::{Found, rxdid};
use fabnic_memory::{AddressSpace, Cursor, Hint, Map, Slice, Table, copy, copy_sum};
use fabnic_port::finish::{HEADERS, Piece};
use fabnic_port::{BURST, DropReason, Fault, Frame};
use fabnic_wire::checksum::{Sum, sum_memory_order};

use crate::classify::{Kind, Transport};
use crate::crc::Crc;
use crate::doorbell::Doorbells;
use crate::stats::Counters;
use crate::usual::{SUMMED, Usual, add, is_all_ones, sum_run};

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

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::Fault(fault)
    }
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
    descriptors: Table<[u64; 4]>,
    config: ReceiveConfig,
    /// The next descriptor to be filled.
    head: u16,
    /// The first that the driver has not posted; looked at once a burst.
    tail: u16,
    hint: Hint,
    /// Buffers of the descriptors from the head on, from `used` on; empty where one is not inside of one region.
    buffers: Vec<Slice>,
    used: usize,
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
        let descriptors =
            map.table(AddressSpace::Guest, config.ring, config.len.into()).map_err(|error| {
                counters.fault();
                Fault(format!("receive ring {queue}: {error}"))
            })?;
        let head = if head < config.len { head } else { 0 };
        Ok(Ring {
            queue,
            descriptors,
            config,
            head,
            tail: head,
            hint: Hint::default(),
            buffers: Vec::with_capacity(2 * BURST),
            used: 0,
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
    fn broken(&self, what: &str) -> Fault {
        Fault(format!("receive queue {} at descriptor {}: {what}", self.queue, self.head))
    }

    /// Looks at the tail, once a burst, and takes buffers for so many frames of one buffer.
    pub(crate) fn look(&mut self, map: &Map, doorbells: &Doorbells, frames: usize) -> Result<(), Fault> {
        let tail = doorbells.receive(self.queue);
        if tail >= self.config.len {
            return Err(self.broken(&format!("the tail is {tail}, expected less than {}", self.config.len)));
        }
        self.tail = tail;
        // A tail that went back takes with it what it had given.
        self.buffers.truncate(self.used + usize::from(self.posted()));
        if self.buffers.len() - self.used < frames {
            self.take_ahead(map, frames);
        }
        Ok(())
    }

    /// Takes buffers until there are `frames` of them, as far as they are posted, and asks for their first lines.
    #[inline(never)]
    pub(crate) fn take_ahead(&mut self, map: &Map, frames: usize) {
        self.buffers.drain(..self.used);
        self.used = 0;
        let known = self.buffers.len();
        let missing = frames.min(usize::from(self.posted())).min(BURST).saturating_sub(known);
        let mut at = self.head + u16::try_from(known).unwrap_or(0);
        if at >= self.config.len {
            at -= self.config.len;
        }
        let size = u32::from(self.config.buffer_len);
        let mut window = map.window(&self.hint);
        for _ in 0..missing {
            let addr = u64::from_le(self.descriptors.first(at.into()));
            let buffer = match window.slice(addr, size) {
                Some(buffer) => buffer,
                None => {
                    let found = map.translate(addr, size, &mut self.hint);
                    window = map.window(&self.hint);
                    found.unwrap_or(Slice::EMPTY)
                }
            };
            map.prefetch_write_at(&buffer, 0);
            self.buffers.push(buffer);
            at = self.after(at);
        }
    }

    /// Frames will go on coming: takes the buffers of the next burst, so that their lines come meanwhile.
    pub(crate) fn expect_more(&mut self, map: &Map) {
        self.take_ahead(map, BURST);
        // And the descriptors behind them, two to a line.
        let mut at = usize::from(self.head) + self.buffers.len();
        for _ in 0..BURST / 2 {
            at = if at >= usize::from(self.config.len) { at - usize::from(self.config.len) } else { at };
            self.descriptors.prefetch_write(at);
            at += 2;
        }
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
        for n in 0..usize::from(count) {
            let part = left.min(size);
            match self.buffers.get(self.used + n) {
                Some(taken) if taken.len() >= part => self.targets.push(taken.part(0, part)),
                _ => {
                    let addr = u64::from_le(self.descriptors.first(at.into()));
                    match map.translate(addr, part, &mut self.hint) {
                        Some(slice) => self.targets.push(slice),
                        None => self.reserve_pieces(map, addr, part)?,
                    }
                }
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
        Err(self.broken(&format!("a buffer of {len} bytes at {addr:#x} is not in the guest's memory")).into())
    }

    /// Writes the descriptors of a frame whose bytes are written.
    #[inline]
    fn write_back(&mut self, count: u16, len: u32, found: &Found) {
        let size = u32::from(self.config.buffer_len).max(1);
        let mut left = len;
        for n in 1..=count {
            let last = n == count;
            let part = u16::try_from(left.min(size)).unwrap_or(0);
            self.store(found, part, last);
            left -= u32::from(part);
        }
    }

    /// Writes the descriptor at the head, and goes on behind it.
    #[inline(always)]
    fn store(&mut self, found: &Found, len: u16, last: bool) {
        let words = match self.config.format {
            rxdid::LEGACY_32 => found.legacy(len, last),
            format => found.flexible(format, len, last),
        };
        self.descriptors.store_release(self.head.into(), words.map(u64::to_le));
        self.head = self.after(self.head);
        self.used = (self.used + 1).min(self.buffers.len());
        self.written = true;
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

    /// The longest frame that one buffer takes as it is.
    pub(crate) fn longest(&self) -> u32 {
        if self.config.keep_crc { 0 } else { self.config.max_frame.min(self.config.buffer_len.into()) }
    }

    /// Buffers that are taken and not used.
    pub(crate) fn taken(&self) -> usize {
        self.buffers.len() - self.used
    }

    /// Whether nothing is posted.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Delivers usual frames that one buffer takes, up to the first for which there is no buffer at hand. Gives how many,
    /// and their bytes.
    pub(crate) fn place_usual(
        &mut self,
        map: &Map,
        (frames, slices, source): (&[Frame], &[Slice], &Map),
        picks: &[u8],
        all: &[Usual],
    ) -> (usize, u64) {
        let (mut placed, mut bytes) = (0, 0);
        loop {
            let before = placed;
            let (more, theirs) = self.place_short(map, frames, picks, all);
            (placed, bytes) = (placed + more, bytes + theirs);
            let (picks_left, left) = (picks.get(placed..).unwrap_or(&[]), all.get(placed..).unwrap_or(&[]));
            let (more, theirs) = self.place_long(map, (frames, slices, source), picks_left, left);
            (placed, bytes) = (placed + more, bytes + theirs);
            if placed == before || placed == picks.len() {
                self.written |= placed > 0;
                return (placed, bytes);
            }
        }
    }

    /// Frames that are private as a whole, up to the first that is not.
    #[inline(never)]
    fn place_short(&mut self, map: &Map, frames: &[Frame], picks: &[u8], all: &[Usual]) -> (usize, u64) {
        let reach = map.reach();
        let Ring { descriptors, config: ReceiveConfig { len: size, format, .. }, .. } = self;
        let targets = self.buffers.get(self.used..).unwrap_or(&[]);
        let (mut head, mut placed, mut bytes) = (self.head, 0, 0);
        for ((pick, usual), target) in picks.iter().zip(all).zip(targets) {
            let Some(whole) = frames.get(usize::from(*pick)).and_then(Frame::plain_whole) else { break };
            if !reach.write_both(target, &[], whole) {
                break;
            }
            let mut sum = usual.seed;
            if usual.end > 0 {
                sum = add(sum, sum_run(whole.get(SUMMED..usize::from(usual.end)).unwrap_or(&[])));
            }
            descriptors.store_release(head.into(), usual.describe(*format, whole.len() as u64, sum));
            head = if head + 1 >= *size { 0 } else { head + 1 };
            placed += 1;
            bytes += whole.len() as u64;
        }
        self.head = head;
        self.used += placed;
        (placed, bytes)
    }

    /// Frames whose rest lies in the sender's memory, up to the first that is not such.
    #[inline(never)]
    fn place_long(
        &mut self,
        map: &Map,
        (frames, slices, source): (&[Frame], &[Slice], &Map),
        picks: &[u8],
        all: &[Usual],
    ) -> (usize, u64) {
        let reach = map.reach();
        let Ring { descriptors, config: ReceiveConfig { len: size, format, .. }, .. } = self;
        let targets = self.buffers.get(self.used..).unwrap_or(&[]);
        let (mut head, mut placed, mut bytes) = (self.head, 0, 0);
        for ((pick, usual), target) in picks.iter().zip(all).zip(targets) {
            let frame = frames.get(usize::from(*pick)).filter(|frame| !frame.is_private());
            let Some(frame) = frame else { break };
            let own = frame.head();
            if !reach.write_both(target, &[], own) {
                break;
            }
            // Frames of a burst are alike: one behind a long one is likely to be long.
            if let Some(next) = picks.get(placed + 1).and_then(|next| frames.get(usize::from(*next))) {
                announce(next, slices, source);
            }
            let (mut sum, end) = (usual.seed, usize::from(usual.end));
            let behind = u32::try_from(end.saturating_sub(own.len())).unwrap_or(0);
            let more = copy_rest(map, frame, slices, source, target, behind);
            if end > 0 {
                let first = own.get(SUMMED..end.min(own.len())).unwrap_or(&[]);
                sum = add(add(sum, sum_memory_order(first)), more);
            }
            descriptors.store_release(head.into(), usual.describe(*format, frame.len().into(), sum));
            head = if head + 1 >= *size { 0 } else { head + 1 };
            placed += 1;
            bytes += u64::from(frame.len());
        }
        self.head = head;
        self.used += placed;
        (placed, bytes)
    }

    /// Delivers any frame that nobody has to finish, if it needs but the next buffer; `false`, and nothing done, if it is not
    /// so.
    #[inline]
    pub(crate) fn place_one(
        &mut self,
        map: &Map,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        plan: &Plan,
    ) -> bool {
        let (len, head) = (frame.len(), frame.head());
        let Some(target) = self.buffers.get(self.used).copied() else { return false };
        if plan.strip || len > self.longest() || len > target.len() {
            return false;
        }
        let covered = match plan.kind.transport {
            Transport::Sum { from, len, seed } => Covered { from, len, seed: seed.word().to_be().into() },
            Transport::Good | Transport::Unknown => Covered { from: 0, len: 0, seed: 0 },
            Transport::Sctp { .. } => return false,
        };
        // What lies behind the head is summed as if it began at an even place.
        if !frame.is_private() && covered.len > 0 && head.len() % 2 != covered.from % 2
            || !map.reach().write_both(&target, &[], head)
        {
            return false;
        }
        let mut sum = covered.of_head(head);
        if !frame.is_private() {
            sum = add(sum, copy_rest(map, frame, slices, source, &target, covered.behind(head)));
        }
        let found = Found {
            checked: !matches!(plan.kind.transport, Transport::Unknown),
            bad_ip: plan.kind.bad_ip,
            bad_l4: covered.len > 0 && !is_all_ones(sum),
            ..plan.found
        };
        self.store(&found, (len & 0xffff) as u16, true);
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

/// What a transport's checksum covers: `len` bytes from `from` on, and a sum to begin with, in memory order.
struct Covered {
    from: usize,
    len: usize,
    seed: u64,
}

impl Covered {
    /// The sum of what of it is in the head.
    #[inline(always)]
    fn of_head(&self, head: &[u8]) -> u64 {
        let end = (self.from + self.len).min(head.len());
        add(self.seed, sum_memory_order(head.get(self.from..end).unwrap_or(&[])))
    }

    /// Bytes of it that are behind the head.
    #[inline(always)]
    fn behind(&self, head: &[u8]) -> u32 {
        match self.len {
            0 => 0,
            len => u32::try_from((self.from + len).saturating_sub(head.len())).unwrap_or(0),
        }
    }
}

/// Copies what is not private of a frame behind its head, in `target`. Gives the sum of the first `summed` bytes of it: behind
/// them there may be padding.
#[inline(always)]
fn copy_rest(map: &Map, frame: &Frame, slices: &[Slice], source: &Map, target: &Slice, summed: u32) -> u64 {
    let rest = frame.rest_len();
    let to = target.part(frame.len() - rest, rest);
    let (own, before) = frame.rest_slices(slices);
    let from = match own {
        [one] if one.len() >= before + rest => one.part(before, rest),
        _ => return copy_pieces(map, frame, slices, source, &to, summed),
    };
    if summed == 0 {
        copy(source, &from, map, &to);
        return 0;
    }
    if summed >= rest {
        return copy_sum(source, &from, map, &to).1;
    }
    let (_, sum) = copy_sum(source, &from.part(0, summed), map, &to.part(0, summed));
    copy(source, &from.part(summed, rest), map, &to.part(summed, rest));
    sum
}

/// The same for a frame in several pieces.
#[inline(never)]
fn copy_pieces(map: &Map, frame: &Frame, slices: &[Slice], source: &Map, to: &Slice, summed: u32) -> u64 {
    let (mut rest, to) = (frame.rest(slices), [*to]);
    let mut to = Cursor::new(&to);
    let (_, sum) = to.copy_sum_from(map, source, &mut rest, summed);
    to.copy_from(map, source, &mut rest, frame.rest_len().saturating_sub(summed));
    sum
}

/// Bytes of a frame that are asked for ahead: a standard one's. A longer copy gets ahead of itself.
const ANNOUNCED: u32 = 1536;

/// Asks for the lines that a frame will be copied from, while the frame before it is copied. The first ones are on their
/// way since its buffer was taken.
#[inline(always)]
fn announce(frame: &Frame, slices: &[Slice], source: &Map) {
    let (own, skip) = frame.rest_slices(slices);
    let Some(from) = own.first() else { return };
    for at in (0..frame.rest_len().min(ANNOUNCED)).step_by(64) {
        source.prefetch_at(from, skip + at);
    }
}
