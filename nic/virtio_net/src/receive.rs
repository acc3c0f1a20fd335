//! The queue that a guest receives on.
//!
//! The buffers for all frames of a call are taken at once, and while bursts are full one call ahead, so that their first
//! lines are ours before the frames are written. The usual frame needs one buffer and nothing finished: its virtio header and private head are
//! written, then the rest is copied from the sender's memory. A frame that is larger and needs nothing finished fills as many
//! buffers as it takes, all of them in one loop. Everything else (checksums, segments) takes the way over [`finish`].
//!
//! Used entries are published once, at the end, with one decision whether to interrupt. A frame is delivered whole or
//! not at all: when buffers run out in the middle of one, those that it had are given back.

use fabnic_memory::{Cursor, Map, Slice, copy};
use fabnic_port::finish::{Accepts, CannotFinish, HEADERS, Piece, finish};
use fabnic_port::{BURST, Burst, DropReason, Egress, Fault, Frame, HEADER_ROOM, Tally};
use fabnic_virtqueue::{Chain, MAX_CHAIN, Ring};
use fabnic_wire::offload::{DATA_VALID, HEADER_LEN, NEEDS_CSUM};

use crate::Features;
use crate::queue::{Queue, QueueSetup};

/// Bytes of the virtio header, as lengths in rings are.
const HEADER: u32 = HEADER_LEN as u32;

/// Bytes of a frame that are asked for ahead: a standard one's. A longer copy gets ahead of itself.
const ANNOUNCED: u32 = 1536;

/// What to expect of a buffer of which nothing is known yet: one for a standard frame.
const USUAL_BUFFER: u32 = 1526;

/// The virtio header of a frame that nothing is left to be done on and that one buffer is used for. It does not go by way
/// of the frame's headroom: what was just stored piece by piece cannot be loaded as a whole until the stores are done, and
/// the copy would wait for that.
const PLAIN_HEADER: [u8; HEADER_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A guest's receive ring, to which the switch delivers.
#[derive(Debug)]
pub struct Receive<R: Ring> {
    pub(crate) queue: Queue<R>,
    accepts: Accepts,
    mergeable: bool,
    /// Flags of the virtio header that the driver understands.
    flags: u8,
    /// Kicks are asked for until the driver has given the first buffer.
    awaits_first: bool,
    buffers: Buffers,
}

/// The buffers of one call; between calls those that were taken ahead for the next.
#[derive(Debug)]
struct Buffers {
    chains: Vec<Chain>,
    /// Those of the chains, in their order without gaps.
    slices: Vec<Slice>,
    /// Chains that hold something.
    filled: usize,
    /// The driver wants an interrupt.
    call: bool,
}

/// Chains for one frame: all but the last are filled by it.
struct Reserved {
    count: usize,
    /// Bytes that go into the last one.
    last: u32,
}

/// Why a frame did not go.
enum Refusal {
    /// No more buffers: nothing behind it can go either.
    Full,
    /// This one only.
    Drop(DropReason),
    /// The guest broke the rules.
    Fault(Fault),
}

impl From<CannotFinish> for Refusal {
    fn from(_: CannotFinish) -> Refusal {
        Refusal::Drop(DropReason::CannotSegment)
    }
}

impl<R: Ring> Receive<R> {
    /// Opens the ring.
    ///
    /// # Errors
    /// The ring is not what the layout demands, or not in the guest's memory.
    pub fn open(setup: QueueSetup) -> Result<Receive<R>, Fault> {
        let features = setup.features;
        let size = usize::from(setup.ring.size);
        let has = |feature| features.contains(feature);
        let mut queue: Queue<R> = Queue::open(setup)?;
        queue.ring.arm();
        Ok(Receive {
            queue,
            accepts: Accepts {
                csum: has(Features::GUEST_CSUM),
                tso4: has(Features::GUEST_TSO4),
                tso6: has(Features::GUEST_TSO6),
                ecn: has(Features::GUEST_ECN),
                uso4: has(Features::GUEST_USO4),
                uso6: has(Features::GUEST_USO6),
            },
            mergeable: has(Features::MRG_RXBUF),
            flags: if has(Features::GUEST_CSUM) { NEEDS_CSUM | DATA_VALID } else { 0 },
            awaits_first: true,
            buffers: Buffers {
                chains: Vec::with_capacity(size),
                slices: Vec::with_capacity(size + 2 * MAX_CHAIN),
                filled: 0,
                call: false,
            },
        })
    }

    /// Gives back what was taken ahead: before anything about the queue changes, and before its position is told.
    pub(crate) fn give_back(&mut self) {
        let Buffers { chains, slices, .. } = &mut self.buffers;
        self.queue.ring.give_back(chains);
        chains.clear();
        slices.clear();
    }

    fn deliver_all(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        let missing = picks.len().saturating_sub(self.buffers.chains.len());
        if missing > 0 {
            self.take(missing)?;
        }
        let mut left = picks;
        while let Some(pick) = left.first() {
            let Some((frames, slices, source)) = burst.parts() else {
                return self.deliver_private(burst, left, tally);
            };
            let before = left.len();
            left = self.place_short(frames, left, tally);
            left = self.place_long(frames, slices, source, left, tally);
            if left.len() < before {
                continue;
            }
            let Some(frame) = frames.get(usize::from(*pick)) else { break };
            let is_whole = self.mergeable && self.accepts.takes(&frame.offload(), frame.head());
            let placed = match is_whole {
                true => self.place_large(frame, slices, source),
                false => self.place_any(frame, slices, source),
            };
            match placed {
                Ok(()) => tally.deliver(frame.len()),
                Err(Refusal::Drop(reason)) => tally.drop(reason, 1),
                Err(Refusal::Full) => {
                    tally.drop(DropReason::RingFull, left.len());
                    return Ok(());
                }
                Err(Refusal::Fault(fault)) => return Err(fault),
            }
            left = left.get(1..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Delivers frames that are private as a whole and need one buffer and nothing finished, up to the first that is
    /// not so. Gives those that are left.
    #[inline(never)]
    fn place_short<'a>(&mut self, frames: &[Frame], picks: &'a [u8], tally: &mut Tally) -> &'a [u8] {
        let Buffers { chains, slices, filled, .. } = &mut self.buffers;
        let chains = chains.get_mut(*filled..).unwrap_or(&mut []);
        // As long as chains have one buffer each, their buffers lie side by side.
        let first = chains.first().map_or(0, |chain| chain.first as usize);
        let targets = slices.get(first..).unwrap_or(&[]);
        let (map, is_logging) = (&*self.queue.map, self.queue.ring.is_logging());
        let reach = map.reach();
        let (mut placed, mut bytes) = (0, 0);
        for ((pick, chain), target) in picks.iter().zip(chains).zip(targets) {
            let frame = frames.get(usize::from(*pick)).and_then(Frame::plain_whole);
            let Some(frame) = frame.filter(|_| chain.count == 1) else { break };
            if !reach.write_both(target, &PLAIN_HEADER, frame) {
                break;
            }
            let len = frame.len() as u32;
            if is_logging {
                self.queue.ring.log_written(map, target, HEADER + len);
            }
            chain.len = HEADER + len;
            bytes += u64::from(len);
            placed += 1;
        }
        *filled += placed;
        tally.deliver_all(placed, bytes);
        picks.get(placed..).unwrap_or(&[])
    }

    /// As [`Receive::place_short`], for frames whose rest lies in the sender's memory.
    fn place_long<'a>(
        &mut self,
        frames: &[Frame],
        slices: &[Slice],
        source: &Map,
        picks: &'a [u8],
        tally: &mut Tally,
    ) -> &'a [u8] {
        let mut left = picks;
        while let [pick, others @ ..] = left {
            let Some(frame) = frames.get(usize::from(*pick)).filter(|frame| !frame.is_private()) else {
                break;
            };
            // Frames of a burst are alike: one behind a long one is likely to be long.
            if let Some(next) = others.first().and_then(|next| frames.get(usize::from(*next))) {
                Self::announce(next, slices, source);
            }
            if !self.place(frame, slices, source) {
                break;
            }
            tally.deliver(frame.len());
            left = others;
        }
        left
    }

    /// Asks for the lines that a frame will be copied from, while the frame before it is copied. The first ones are on their
    /// way since its buffer was taken. The lines that it will be copied to are not asked for: it was tried, and what they
    /// take from the loads is more than the stores, which nothing waits for, gain.
    #[inline(always)]
    fn announce(frame: &Frame, slices: &[Slice], source: &Map) {
        let (own, skip) = frame.rest_slices(slices);
        let Some(from) = own.first() else { return };
        for at in (0..frame.rest_len().min(ANNOUNCED)).step_by(64) {
            source.prefetch_at(from, skip + at);
        }
    }

    /// The frames of a burst without a sender's memory: they are private as a whole.
    #[cold]
    fn deliver_private(&mut self, burst: &Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        let map = std::sync::Arc::clone(&self.queue.map);
        for (index, pick) in picks.iter().enumerate() {
            let Some(frame) = burst.frames().get(usize::from(*pick)) else { continue };
            match self.place_any(frame, &[], &map) {
                Ok(()) => tally.deliver(frame.len()),
                Err(Refusal::Drop(reason)) => tally.drop(reason, 1),
                Err(Refusal::Full) => {
                    tally.drop(DropReason::RingFull, picks.len() - index);
                    return Ok(());
                }
                Err(Refusal::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Takes up to `count` chains more. Gives how many there were.
    #[inline(always)]
    fn take(&mut self, count: usize) -> Result<usize, Fault> {
        let Buffers { chains, slices, .. } = &mut self.buffers;
        self.queue.ring.take::<true>(count, slices, chains).map_err(|error| Fault(error.to_string()))
    }

    /// Delivers a frame that needs one buffer and nothing finished; `false`, and nothing done, if it is not so.
    #[inline(always)]
    fn place(&mut self, frame: &Frame, slices: &[Slice], source: &Map) -> bool {
        let Buffers { chains, slices: targets, filled, .. } = &mut self.buffers;
        let Some(chain) = chains.get_mut(*filled) else { return false };
        let (need, offload) = (HEADER + frame.len(), frame.offload());
        if chain.count != 1 || chain.len < need || !offload.is_plain() {
            return false;
        }
        let Some(target) = targets.get(chain.first as usize) else { return false };
        let map = &*self.queue.map;
        let head = frame.head();
        let mut header = PLAIN_HEADER;
        if let Some(flags) = header.first_mut() {
            *flags = offload.flags & self.flags;
        }
        if !map.reach().write_both(target, &header, head) {
            return false;
        }
        let rest = frame.rest_len();
        let at = HEADER + head.len() as u32;
        let (own, skip) = frame.rest_slices(slices);
        match own {
            [one] if one.len() >= skip + rest => {
                copy(source, &one.part(skip, rest), map, &target.part(at, rest));
            }
            _ => {
                let to = [target.part(at, rest)];
                Cursor::new(&to).copy_from(map, source, &mut frame.rest(slices), rest);
            }
        }
        if self.queue.ring.is_logging() {
            self.queue.ring.log_written(map, target, need);
        }
        chain.len = need;
        *filled += 1;
        true
    }

    /// Delivers a frame that needs nothing finished into as many buffers as it fills.
    #[inline(never)]
    fn place_large(&mut self, frame: &Frame, slices: &[Slice], source: &Map) -> Result<(), Refusal> {
        let need = HEADER + frame.len();
        let Reserved { count, last } = self.reserve(need, true)?;
        let Buffers { chains, slices: targets, filled, .. } = &mut self.buffers;
        let own = chains.get_mut(*filled..*filled + count).unwrap_or(&mut []);
        let [first, ..] = own else { return Err(Refusal::Full) };
        let first = first.first as usize;
        let [.., end] = own else { return Err(Refusal::Full) };
        // All buffers but the last are filled.
        end.len = last;
        let targets = targets.get(first..(end.first + end.count) as usize).unwrap_or(&[]);
        let map = &*self.queue.map;

        let mut offload = frame.offload();
        offload.flags &= self.flags;
        let (header, head) = (offload.encode(count as u16), frame.head());
        let mut to = Cursor::new(targets);
        if targets.first().is_some_and(|first| map.reach().write_both(first, &header, head)) {
            to.skip(HEADER + head.len() as u32);
        } else {
            to.write(map, &header);
            to.write(map, head);
        }
        let rest = frame.rest_len();
        if to.copy_from(map, source, &mut frame.rest(slices), rest) != rest {
            return Err(CannotFinish.into());
        }
        if self.queue.ring.is_logging() {
            self.queue.log_pieces(targets, need);
        }
        *filled += count;
        Ok(())
    }

    /// Delivers any frame, finished as far as the receiver needs it.
    #[inline(never)]
    fn place_any(&mut self, frame: &Frame, slices: &[Slice], source: &Map) -> Result<(), Refusal> {
        let before = self.buffers.filled;
        let accepts = self.accepts;
        // A flush in the first piece empties the buffers, so that what was before is gone with them.
        let mut first = true;
        let mut start = before;
        let result = finish(frame, slices, source, &accepts, |piece| {
            let reserved = self.reserve(HEADER + piece.len() as u32, first)?;
            if core::mem::replace(&mut first, false) {
                start = self.buffers.filled;
            }
            self.write(piece, &reserved)
        });
        if result.is_err() {
            self.roll_back(start.min(self.buffers.filled));
        }
        result
    }

    /// Gives back all chains but the first `keep`. What was written into the others is void, and so are their lengths.
    fn roll_back(&mut self, keep: usize) {
        let Buffers { chains, slices, filled, .. } = &mut self.buffers;
        if let Some(void) = chains.get(keep..)
            && let Some(first) = void.first()
        {
            self.queue.ring.give_back(void);
            slices.truncate(first.first as usize);
            chains.truncate(keep);
        }
        *filled = keep;
    }

    /// Sees to it that the next chains have room for `need` bytes.
    #[inline]
    fn reserve(&mut self, need: u32, may_flush: bool) -> Result<Reserved, Refusal> {
        let (mut count, mut room) = (0, 0_u64);
        loop {
            let chains = self.buffers.chains.get(self.buffers.filled + count..).unwrap_or(&[]);
            // The usual case by the shortest way: one good buffer after the other, and the last one has room to spare.
            if self.mergeable && (count > 0 || chains.first().is_some_and(|chain| chain.len >= HEADER)) {
                for chain in chains {
                    let before = room;
                    room += u64::from(chain.len);
                    count += 1;
                    if room >= u64::from(need) {
                        return Ok(Reserved { count, last: (u64::from(need) - before) as u32 });
                    }
                }
            }
            let Some(chain) = self.buffers.chains.get(self.buffers.filled + count) else {
                let missing = u64::from(need).saturating_sub(room);
                // Of the last one only as much may be said as a frame took up.
                let last = self.buffers.chains.iter().rev().take(2).map(|chain| chain.len);
                let usual = last.max().unwrap_or(USUAL_BUFFER).max(HEADER);
                let more = missing.div_ceil(u64::from(usual)).max(1);
                let more = usize::try_from(more).unwrap_or(usize::MAX);
                if self.take(more).map_err(Refusal::Fault)? > 0 {
                    continue;
                }
                // None left; or no room to hold more, which is made by publishing.
                if may_flush && self.buffers.filled > 0 && self.queue.ring.backlog() > 0 {
                    self.settle();
                    (count, room) = (0, 0);
                    continue;
                }
                return Err(Refusal::Full);
            };
            if !self.mergeable {
                return match chain.len >= need {
                    true => Ok(Reserved { count: 1, last: need }),
                    false => Err(Refusal::Drop(DropReason::BufferTooSmall)),
                };
            }
            let len = chain.len;
            return Err(Refusal::Fault(Fault(format!(
                "receive buffer of {len} bytes, expected at least {HEADER} for the virtio-net header"
            ))));
        }
    }

    /// Writes a piece into the chains that were reserved for it.
    fn write(&mut self, piece: &Piece<'_>, reserved: &Reserved) -> Result<(), Refusal> {
        let count = reserved.count;
        let Buffers { chains, slices, filled, .. } = &mut self.buffers;
        let Some(own) = chains.get_mut(*filled..*filled + count) else { return Err(Refusal::Full) };
        let first = own.first().map_or(0, |chain| chain.first as usize);
        let end = own.last().map_or(0, |chain| (chain.first + chain.count) as usize);
        let targets = slices.get(first..end).unwrap_or(&[]);
        let map = &*self.queue.map;

        let header_len = piece.header_len();
        let mut payload = Cursor::new(targets);
        payload.skip(HEADER + header_len as u32);
        let sum = piece.copy_payload(&mut payload, map).ok_or(CannotFinish)?;
        let mut head = [0_u8; HEADER_ROOM + HEADERS];
        let (header, headers) = head.split_at_mut(HEADER_ROOM);
        let mut offload = piece.write_headers(headers, sum)?;
        offload.flags &= self.flags;
        header.copy_from_slice(&offload.encode(count as u16));
        let run = head.get(..HEADER_ROOM + header_len).ok_or(CannotFinish)?;
        if Cursor::new(targets).write(map, run) != run.len() {
            return Err(CannotFinish.into());
        }

        if let Some(last) = own.last_mut() {
            last.len = reserved.last;
        }
        if self.queue.ring.is_logging() {
            self.queue.log_pieces(targets, HEADER + piece.len() as u32);
        }
        *filled += count;
        Ok(())
    }

    /// Publishes what was filled and gives back the rest.
    #[inline(always)]
    fn settle(&mut self) {
        let Buffers { chains, slices, filled, call } = &mut self.buffers;
        if let Some((used, rest)) = chains.split_at_checked(*filled) {
            *call |= self.queue.ring.publish::<true>(used);
            self.queue.ring.give_back(rest);
        }
        chains.clear();
        slices.clear();
        *filled = 0;
    }
}

impl<R: Ring> Egress for Receive<R> {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        self.queue.check_memory()?;
        if !self.queue.enabled {
            tally.drop(DropReason::NotReady, picks.len());
            return Ok(());
        }
        let result = self.deliver_all(burst, picks, tally);
        if self.awaits_first && self.buffers.filled > 0 {
            self.awaits_first = false;
            self.queue.ring.disarm();
        }
        self.settle();
        if picks.len() == BURST {
            // A sender that fills bursts goes on: the lines of the next one's buffers come from the guest's CPU meanwhile.
            let Buffers { chains, slices, .. } = &mut self.buffers;
            self.queue.ring.take_ahead::<true>(BURST, slices, chains);
        }
        if core::mem::take(&mut self.buffers.call) {
            tally.calls += u64::from(self.queue.call());
        }
        result
    }

    fn in_use(&mut self) -> bool {
        self.queue.enabled && self.queue.ring.in_use()
    }
}
