//! The queue that the guest transmits on (SDM 3.3).
//!
//! A burst goes like this: descriptors from the head on are read once each. The usual packet is one descriptor that asks for
//! nothing: those are taken in runs ([`Transmit::take_plain`]). Of the others, context descriptors are remembered and data
//! descriptors gathered until one ends a packet. Then each packet becomes a frame: its head becomes private (its lines were
//! asked for when its descriptors were read, so that the copies run one behind the other without waiting), what the
//! descriptors ask for is turned into what the switch understands ([`offload`]), the rest stays where it is. When the
//! switch is done, [`Ingress::complete`] writes back the descriptors that want it, moves the head register, and interrupts
//! once.
//!
//! A packet whose end is not there yet waits in the ring: its descriptors are read again when the tail has moved.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use fabnic_memory::{DirtyLog, Hint, Map};
use fabnic_port::{BURST, Burst, DropReason, Fault, Frame, Ingress, MAX_FRAME, MAX_SLICES, Port, Tally};
use fabnic_wire::ethernet::{ETHERNET_LEN, TAG_LEN, TAG_OFFSET};

use crate::receive::Receive;
use crate::ring::{DescriptorRing, Position, Side};
use crate::shared::Shared;
use crate::spec::FCS_LEN;
use crate::spec::descriptor::{
    Buffer, Command, Context, DESCRIPTOR_LEN, Kind, TRANSMIT_DONE, TRANSMIT_STATUS, Transmit as Descriptor,
};
use crate::spec::register::{Cause, Ctrl, TXDCTL_LOW_SHIFT, ring, statistics};
use crate::state::{Reader, StateError, Writer};
use crate::statistics::{Traffic, Way};

pub(crate) mod offload;

/// The most descriptors of one burst.
const MAX_DESCRIPTORS: usize = 1024;
/// The most descriptors of one packet. Hardware has no such limit; 64 KiB in pages take 17, and the smallest pieces that a
/// driver of this part makes are far from it.
const MAX_PIECES: usize = 256;
/// The most slices that a piece becomes, as it may go on in the next region of memory.
const SLICES_A_PIECE: usize = 2;

/// Bits of a command, where they are in the second word of a descriptor.
const fn in_second(command: Command) -> u64 {
    (command.bits() as u64) << 24
}

/// A packet of one legacy descriptor of which nothing is asked but its FCS.
const PLAIN: u64 = in_second(Command::EOP.union(Command::IFCS));
const PLAIN_MASK: u64 = PLAIN | in_second(Command::IC_TSE.union(Command::DEXT).union(Command::VLE));
/// Bytes that one has at least.
const PLAIN_LEAST: u32 = 16;
/// It is to be written back; at some time.
const REPORT: u64 = in_second(Command::RS.union(Command::RPS));
const DELAYED: u64 = in_second(Command::IDE);

/// What the queue remembers from packet to packet, and what goes on in its successor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carry {
    /// Of segmentation and of checksums (SDM 3.3.6: they are kept apart).
    segmentation: Context,
    checksum: Context,
    /// A packet that is too long is being passed over, up to its end.
    passing_over: bool,
}

/// A descriptor that is to be written back.
#[derive(Clone, Copy, Debug)]
struct WriteBack {
    at: u32,
    word: u64,
}

/// A packet whose end was not seen yet.
#[derive(Debug)]
struct Packet {
    /// What its first descriptor says.
    first: Buffer,
    /// The context that counts for it.
    context: Context,
    /// Its first slice.
    slice: usize,
    pieces: usize,
    len: u32,
    /// The tag that is to be inserted.
    tag: Option<u16>,
    /// Where it began, to return to.
    at: u32,
    write_backs: usize,
}

/// A packet that is whole.
#[derive(Clone, Copy, Debug)]
struct Whole {
    /// Its first slice, and how many it has.
    slice: usize,
    count: usize,
    len: u32,
    kind: WholeKind,
}

#[derive(Clone, Copy, Debug)]
enum WholeKind {
    /// As it is.
    Plain,
    /// With something to be done.
    Special(Special),
    /// It was passed over.
    TooLong,
}

/// What is to be done on a packet.
#[derive(Clone, Copy, Debug)]
struct Special {
    first: Buffer,
    context: Context,
    tag: Option<u16>,
}

/// A guest's transmit ring, from which the switch receives.
#[derive(Debug)]
pub(crate) struct Transmit {
    shared: Arc<Shared>,
    port: Arc<Port>,
    map: Arc<Map>,
    ring: DescriptorRing,
    hint: Hint,
    pub(crate) carry: Carry,
    generation: u32,
    ctrl: Ctrl,
    vet: u16,
    /// Descriptors up to here are in the burst in flight.
    done: Option<u32>,
    /// The packets of a burst, before they are frames.
    packets: Vec<Whole>,
    write_backs: Vec<WriteBack>,
    /// One of them is to be told of at once.
    in_haste: bool,
    /// With this tail the ring ends within a packet.
    waits_at: Option<u32>,
    traffic: Traffic,
    segmented: u64,
    refused: u64,
    tally: Tally,
}

impl Transmit {
    pub(crate) fn new(shared: Arc<Shared>, port: Arc<Port>, map: Arc<Map>, carry: Carry) -> Transmit {
        let log = shared.log();
        Transmit {
            shared,
            port,
            map,
            ring: DescriptorRing::new(Side::Transmit, log),
            hint: Hint::default(),
            carry,
            generation: 0,
            ctrl: Ctrl::empty(),
            vet: 0,
            done: None,
            packets: Vec::with_capacity(BURST),
            write_backs: Vec::with_capacity(MAX_DESCRIPTORS),
            in_haste: false,
            waits_at: None,
            traffic: Traffic::default(),
            segmented: 0,
            refused: 0,
            tally: Tally::default(),
        }
    }

    /// Begins, changes or ends the logging of writes.
    pub(crate) fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.ring.set_log(log);
    }

    /// Reads descriptors and makes frames.
    fn gather(&mut self, burst: &mut Burst, position: Position) -> Result<(), Fault> {
        let (mut at, mut seen) = (position.head, 0);
        loop {
            at = self.take_plain(burst, at, position);
            let is_full = burst.slices().len() + MAX_PIECES * SLICES_A_PIECE > MAX_SLICES;
            if at == position.tail || burst.room() == 0 || is_full || seen >= MAX_DESCRIPTORS {
                break;
            }
            let before = at;
            let result = self.gather_others(burst, position, &mut at, &mut seen);
            self.make_frames(burst);
            if result.is_err() || at == before {
                self.done = (at != position.head).then_some(at);
                return result;
            }
        }
        self.done = (at != position.head).then_some(at);
        Ok(())
    }

    /// Makes frames of packets of one descriptor of which nothing is asked, as most are, from `at` on as long as they are
    /// such. Gives where they end.
    #[inline(never)]
    fn take_plain(&mut self, burst: &mut Burst, mut at: u32, position: Position) -> u32 {
        let Transmit { ring, map, hint, write_backs, in_haste, traffic, carry, .. } = self;
        let Some((descriptors, _)) = ring.tables() else { return at };
        if carry.passing_over {
            return at;
        }
        let (window, first, room) = (map.window(hint), burst.slices().len(), burst.room());
        let slices = burst.slices_mut();
        descriptors.prefetch(at as usize);
        while at != position.tail && slices.len() - first < room {
            // Four to a line.
            if at.is_multiple_of(4) {
                descriptors.prefetch(at as usize + 8);
            }
            let [addr, second] = descriptors.load(at as usize).map(u64::from_le);
            // A legacy one: its length has 16 bits.
            let len = (second & 0xffff) as u32;
            if second & PLAIN_MASK != PLAIN || len < PLAIN_LEAST {
                break;
            }
            let Some(slice) = window.slice(addr, len) else { break };
            map.prefetch(&slice);
            if len > 64 {
                map.prefetch_at(&slice, 64);
            }
            slices.push(slice);
            if second & REPORT != 0 {
                *in_haste |= second & DELAYED == 0;
                write_backs.push(WriteBack { at, word: second & !TRANSMIT_STATUS | TRANSMIT_DONE });
            }
            at = position.next(at);
        }
        burst.fill_run::<0>(first, core::iter::repeat(true), |frame| {
            let len = frame.len();
            match frame.plain_start() {
                Some([first, ..]) if first & 1 == 0 => traffic.count_unicast(len, 1),
                _ => traffic.count(frame.head(), len, 1),
            }
        });
        at
    }

    /// Gathers packets that are not plain, from `at` on: one at least, and those behind it.
    #[inline(never)]
    fn gather_others(
        &mut self,
        burst: &mut Burst,
        position: Position,
        at_now: &mut u32,
        seen: &mut usize,
    ) -> Result<(), Fault> {
        let mut at = *at_now;
        let mut packet: Option<Packet> = None;
        let mut result = Ok(());
        self.packets.clear();
        let room = burst.room();
        while at != position.tail && *seen < MAX_DESCRIPTORS && self.packets.len() < room {
            if packet.is_none() && burst.slices().len() + MAX_PIECES * SLICES_A_PIECE > MAX_SLICES {
                break;
            }
            let next = position.next(at);
            // Four to a line.
            if next.is_multiple_of(4) {
                self.ring.prefetch(next);
            }
            let words = self.ring.load(at);
            if packet.is_none() && !self.packets.is_empty() && words[1] & PLAIN_MASK == PLAIN {
                break;
            }
            *seen += 1;
            match Descriptor::decode(words) {
                Descriptor::Context(context, command) => {
                    self.note(at, words, command);
                    match context.tse {
                        true => self.carry.segmentation = context,
                        false => self.carry.checksum = context,
                    }
                    if let Some(packet) = &mut packet {
                        packet.pieces += 1;
                        if packet.pieces > MAX_PIECES {
                            // As a packet of too many buffers: else nothing would ever move on.
                            self.carry.passing_over = true;
                            burst.slices_mut().truncate(packet.slice);
                        }
                    }
                }
                Descriptor::Buffer(buffer) => {
                    let open = packet.get_or_insert_with(|| self.begin(&buffer, at, burst.slices().len()));
                    self.note(at, words, buffer.command);
                    if let Err(fault) = self.add(open, &buffer, at, burst) {
                        result = Err(fault);
                        break;
                    }
                    if buffer.command.contains(Command::EOP)
                        && let Some(whole) = packet.take()
                    {
                        self.end(&whole, &buffer, burst);
                    }
                }
            }
            at = next;
        }
        if let Some(rest) = packet
            && !self.carry.passing_over
        {
            // Its end is not there: it stays in the ring.
            burst.slices_mut().truncate(rest.slice);
            self.write_backs.truncate(rest.write_backs);
            if result.is_ok() && at == position.tail {
                if position.available(rest.at) + 1 >= position.len {
                    let len = position.len;
                    result = Err(Fault(format!(
                        "transmit ring: all {len} descriptors are one packet without an end, expected EOP"
                    )));
                }
                self.waits_at = Some(position.tail);
            }
            at = rest.at;
        }
        *at_now = at;
        result
    }

    /// Notes that a descriptor is to be written back, if it is.
    #[inline]
    fn note(&mut self, at: u32, [_, second]: [u64; 2], command: Command) {
        if command.intersects(Command::RS | Command::RPS) {
            self.in_haste |= !command.contains(Command::IDE);
            self.write_backs.push(WriteBack { at, word: second & !TRANSMIT_STATUS | TRANSMIT_DONE });
        }
    }

    fn begin(&self, first: &Buffer, at: u32, slice: usize) -> Packet {
        let segmented = matches!(first.kind, Kind::Data(_)) && first.command.contains(Command::IC_TSE);
        Packet {
            first: *first,
            context: if segmented { self.carry.segmentation } else { self.carry.checksum },
            slice,
            pieces: 0,
            len: 0,
            tag: None,
            at,
            write_backs: self.write_backs.len(),
        }
    }

    /// Adds a buffer to a packet.
    #[inline]
    fn add(&mut self, packet: &mut Packet, buffer: &Buffer, at: u32, burst: &mut Burst) -> Result<(), Fault> {
        packet.pieces += 1;
        packet.len = packet.len.saturating_add(buffer.len);
        if buffer.command.contains(Command::VLE) {
            packet.tag = Some(buffer.special);
        }
        if packet.len > MAX_FRAME + FCS_LEN || packet.pieces > MAX_PIECES {
            self.carry.passing_over = true;
            burst.slices_mut().truncate(packet.slice);
        }
        if self.carry.passing_over || buffer.len == 0 {
            return Ok(());
        }
        let Buffer { addr, len, .. } = *buffer;
        if let Some(slice) = self.map.translate(addr, len, &mut self.hint) {
            burst.slices_mut().push(slice);
            return Ok(());
        }
        // It goes on in the next region, or it is outside.
        let slices = burst.slices_mut();
        let most = slices.len() + SLICES_A_PIECE;
        let inside = self.map.translate_pieces(addr, len, &mut self.hint, |slice| {
            let fits = slices.len() < most;
            if fits {
                slices.push(slice);
            }
            fits
        });
        if inside {
            return Ok(());
        }
        self.shared.count_fault();
        Err(Fault(format!(
            "transmit ring: descriptor {at}: {len} bytes at {addr:#x} are not in the guest's memory"
        )))
    }

    /// A packet is whole with this buffer.
    fn end(&mut self, packet: &Packet, last: &Buffer, burst: &Burst) {
        let slice = packet.slice;
        let own = burst.slices().get(slice..).unwrap_or(&[]);
        if core::mem::take(&mut self.carry.passing_over) {
            self.packets.push(Whole { slice, count: 0, len: 0, kind: WholeKind::TooLong });
            return;
        }
        if let Some(first) = own.first() {
            self.map.prefetch(first);
            self.map.prefetch_at(first, 64);
        }
        // Without IFCS the driver brought the FCS along.
        let fcs = if last.command.contains(Command::IFCS) { 0 } else { FCS_LEN };
        let asks = match packet.first.kind {
            Kind::Legacy(_) => false,
            Kind::Data(options) => options != 0,
        };
        let tag = packet.tag.filter(|_| self.ctrl.contains(Ctrl::VME));
        let kind = match asks || packet.first.command.contains(Command::IC_TSE) || tag.is_some() {
            true => WholeKind::Special(Special { first: packet.first, context: packet.context, tag }),
            false => WholeKind::Plain,
        };
        self.packets.push(Whole { slice, count: own.len(), len: packet.len.saturating_sub(fcs), kind });
    }

    /// Makes frames of the packets that were gathered.
    fn make_frames(&mut self, burst: &mut Burst) {
        for number in 0..self.packets.len() {
            let index = burst.len();
            let Some(Whole { slice, count, len, kind }) = self.packets.get(number).copied() else { break };
            let Some(frame) = burst.push(slice, count, 0, len) else { break };
            match kind {
                WholeKind::TooLong => {
                    self.refused += 1;
                    frame.mark(DropReason::Oversize);
                }
                _ if len < ETHERNET_LEN as u32 => frame.mark(DropReason::Runt),
                WholeKind::Plain => self.traffic.count(frame.head(), len, 1),
                WholeKind::Special(special) => self.finish_special(&special, burst, index),
            }
        }
    }

    /// What is not a plain frame: checksums, segments, tags.
    #[inline(never)]
    fn finish_special(&mut self, special: &Special, burst: &mut Burst, index: usize) {
        let Some((frame, slices, source)) = burst.frame_and_source(index) else { return };
        if let Err(reason) = offload::apply(&special.first, &special.context, frame, slices, source) {
            self.refused += 1;
            frame.mark(reason);
            return;
        }
        if let Some(tci) = special.tag {
            insert_tag(frame, self.vet, tci);
        }
        self.count(burst.frames().get(index));
    }

    /// Counts a frame as the segments that it would have been on a wire.
    fn count(&mut self, frame: Option<&Frame>) {
        let Some(frame) = frame else { return };
        let offload = frame.offload();
        let headers = u32::from(offload.hdr_len);
        let mss = u32::from(offload.gso_size);
        let (Some(payload), true) = (frame.len().checked_sub(headers), offload.is_gso() && mss > 0) else {
            return self.traffic.count(frame.head(), frame.len(), 1);
        };
        self.segmented += 1;
        let last = match payload % mss {
            0 => mss,
            rest => rest,
        };
        self.traffic.count(frame.head(), headers + mss, u64::from(payload.div_ceil(mss).saturating_sub(1)));
        self.traffic.count(frame.head(), headers + last, 1);
    }

    /// Delivers what was sent to the own receive queue. Nobody else gets it.
    #[cold]
    fn loop_back(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        let port = Arc::clone(&self.port);
        let Some(cell) = port.egress().first() else { return Ok(()) };
        let mut guard = cell.lock();
        let queue: Option<&mut dyn core::any::Any> = match guard.as_mut() {
            Some(queue) => Some(queue.as_mut()),
            None => None,
        };
        let Some(receive) = queue.and_then(|queue| queue.downcast_mut::<Receive>()) else { return Ok(()) };
        let mut picks = [0_u8; BURST];
        let mut count = 0;
        for (index, frame) in (0..).zip(burst.frames()) {
            if frame.marked().is_none()
                && let Some(pick) = picks.get_mut(count)
            {
                *pick = index;
                count += 1;
            }
        }
        receive.deliver_looped(burst, picks.get(..count).unwrap_or(&[]), &mut self.tally)?;
        self.tally.clear();
        Ok(())
    }

    /// Gives descriptors back. Gives the number of interrupts.
    fn settle(&mut self) -> u32 {
        let Some(head) = self.done.take() else { return 0 };
        let mut causes = Cause::empty();
        if !self.write_backs.is_empty() {
            causes |= Cause::TXDW;
            self.shared.set_may_delay_transmit(!core::mem::take(&mut self.in_haste));
        }
        for WriteBack { at, word } in self.write_backs.drain(..) {
            self.ring.write_back(at, word);
        }
        self.ring.flush_log();
        let pages = &self.shared.pages;
        pages.set_head(Side::Transmit, head);
        if pages.tail(Side::Transmit) == head {
            causes |= Cause::TXQE;
        }
        let low = (pages.register(Side::Transmit, ring::CONTROL) >> TXDCTL_LOW_SHIFT) * 8;
        if low > 0 && self.left(head) <= low {
            causes |= Cause::TXD_LOW;
        }
        let statistics = &self.shared.statistics;
        self.traffic.settle(statistics, Way::Transmitted);
        statistics.add(statistics::TSCTC, core::mem::take(&mut self.segmented));
        statistics.add(statistics::TSCTFC, core::mem::take(&mut self.refused));
        u32::from(self.shared.line.raise(causes))
    }

    /// Descriptors that the device still has.
    fn left(&self, head: u32) -> u32 {
        let pages = &self.shared.pages;
        let len = pages.register(Side::Transmit, ring::LENGTH) / DESCRIPTOR_LEN;
        let tail = pages.tail(Side::Transmit);
        if tail >= head { tail - head } else { (tail + len).saturating_sub(head) }
    }
}

/// Puts a tag behind the addresses.
fn insert_tag(frame: &mut Frame, tpid: u16, tci: u16) {
    let Some(room) = frame.insert(TAG_OFFSET, TAG_LEN) else { return };
    let ([t0, t1], [i0, i1]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    room.copy_from_slice(&[t0, t1, i0, i1]);
    frame.shift_offload(TAG_LEN as i16);
}

impl Carry {
    pub(crate) fn save(&self, to: &mut Writer) {
        for context in [&self.segmentation, &self.checksum] {
            for word in context.encode() {
                to.u64(word);
            }
        }
        to.flag(self.passing_over);
    }

    pub(crate) fn restore(from: &mut Reader<'_>) -> Result<Carry, StateError> {
        let mut context = || match Descriptor::decode([from.u64()?, from.u64()?]) {
            Descriptor::Context(context, _) => Ok(context),
            Descriptor::Buffer(_) => Ok(Context::default()),
        };
        let (segmentation, checksum) = (context()?, context()?);
        Ok(Carry { segmentation, checksum, passing_over: from.flag()? })
    }
}

impl Ingress for Transmit {
    #[inline]
    fn backlog(&mut self) -> usize {
        let pages = &self.shared.pages;
        let (head, tail) = (pages.head(Side::Transmit), pages.tail(Side::Transmit));
        // A ring without a length has nothing, whatever its tail says: nobody is to wait for it awake.
        let length = pages.register(Side::Transmit, ring::LENGTH) & ring::LENGTH_MASK;
        if head == tail || self.waits_at == Some(tail) || length == 0 {
            return 0;
        }
        // Behind the wrap it is not known how many; some.
        tail.checked_sub(head).map_or(1, |n| n as usize)
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        if self.map.faulted() {
            return Err(Fault("a memory file of the guest was truncated while it was in use".to_owned()));
        }
        let Transmit { shared, generation, ctrl, vet, .. } = self;
        shared.renew(generation, |filter| (*ctrl, *vet) = (filter.ctrl, filter.vet));
        self.waits_at = None;
        let Some(position) = self.ring.look(&self.shared, &self.map)? else { return Ok(()) };
        let mut result = self.gather(burst, position);
        if self.shared.is_looped() && !burst.is_empty() {
            result = result.and(self.loop_back(burst));
            burst.begin(&self.map);
        }
        if burst.is_empty() {
            // Nobody completes what holds no frame.
            self.settle();
        }
        result
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        self.settle()
    }

    fn arm(&mut self) -> bool {
        self.shared.doorbell.arm();
        // Lost memory reads as zero, so as an empty ring: `receive` is where it is said.
        self.backlog() > 0 || self.map.faulted()
    }

    fn disarm(&mut self) {
        self.shared.doorbell.disarm();
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.shared.doorbell.wake()
    }
}
