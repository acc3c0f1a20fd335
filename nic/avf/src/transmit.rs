//! The queue that a guest transmits on.
//!
//! Descriptors lie in the guest's memory, 16 bytes each: a packet is an optional context descriptor and the buffers up to
//! the one marked as its end. Each is read once. A packet that is not there as a whole yet is left for later. Descriptors
//! that ask for it (RS) are written back as done when the burst was delivered, so when their buffers may be used again.
//!
//! The usual packet is one descriptor that asks for nothing. Those are read in runs, while bursts are full one burst ahead,
//! so that the first lines of their frames have come by the time they are copied (see [`Transmit::take_plain`]).
//!
//! What a guest sends is judged on the private bytes. A frame that must not go on stays in the burst with its reason. A
//! ring that hardware would call malicious (descriptors of no type, buffers outside the guest's memory, a tail outside
//! the ring) ends the port.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use fabnic_avf_spec::receive::Cast;
use fabnic_avf_spec::transmit::{Context, Data, cmd, dtype};
use fabnic_memory::{AddressSpace, Hint, Map, Slice, Table};
use fabnic_port::{BURST, Burst, DropReason, Fault, Frame, Ingress, MAX_FRAME, MAX_SLICES};

use crate::doorbell::Doorbells;
use crate::filter::{cast, number};
use crate::interrupts::{Side, Vectors};
use crate::offload::{is_plain, prepare};
use crate::stats::{Counters, Counts};

/// Bytes of an Ethernet header: a shorter frame has nothing to decide on.
const SHORTEST: u32 = 14;
/// Buffers of one packet. Hardware takes 8 for each segment; a packet with more than this is dropped.
const MAX_BUFFERS: usize = 512;
/// VLAN tags are put in behind the addresses.
const TAG_AT: usize = 12;

/// Bits of the second word of a data descriptor that make a packet plain: its only one, with nothing to be put in, computed
/// or held back. The network header may be IPv4 whose checksum is right; the bit of IPv6 is also in "compute it".
const PLAIN_MASK: u64 = 0xf | ((cmd::EOP | cmd::IL2TAG1 | cmd::DUMMY | cmd::L4_MASK | cmd::IPV6) as u64) << 4;
const PLAIN: u64 = dtype::DATA | (cmd::EOP as u64) << 4;
/// Bytes that a plain packet has at least.
const PLAIN_LEAST: u32 = 16;

/// What the control side says of what may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendRules {
    /// Source addresses that may be used; all if there is no list.
    pub(crate) sources: Option<Vec<u64>>,
    /// Tags may be put in.
    pub(crate) insert: bool,
    /// Large UDP frames may be sent.
    pub(crate) uso: bool,
}

/// What a transmit queue is made of.
#[derive(Debug)]
pub(crate) struct TransmitSetup {
    pub(crate) queue: usize,
    pub(crate) map: Arc<Map>,
    /// Bus address of the ring.
    pub(crate) ring: u64,
    /// Descriptors in it.
    pub(crate) len: u16,
    /// The next one to be read.
    pub(crate) next: u16,
    pub(crate) rules: SendRules,
    pub(crate) doorbells: Arc<Doorbells>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) counters: Arc<Counters>,
}

/// A guest's transmit ring, from which the switch receives.
#[derive(Debug)]
pub(crate) struct Transmit {
    queue: usize,
    map: Arc<Map>,
    hint: Hint,
    descriptors: Table<[u64; 2]>,
    /// The same memory, by words.
    words: Table<u64>,
    len: u16,
    /// The next descriptor to be read: behind those that were taken ahead.
    next: u16,
    /// Packets of the burst after the one in flight, as far as they were taken ahead.
    ahead: Ahead,
    /// The tail at which a packet without an end was found.
    stalled: Option<u16>,
    /// Descriptors to be written back when the burst is done.
    report: Vec<u16>,
    counts: Counts,
    pub(crate) rules: SendRules,
    doorbells: Arc<Doorbells>,
    vectors: Arc<Vectors>,
    counters: Arc<Counters>,
}

/// Packets of one descriptor each, taken before their burst.
#[derive(Debug, Default)]
struct Ahead {
    slices: Vec<Slice>,
    /// Descriptors among them that are to be written back.
    report: Vec<u16>,
}

/// What of a packet was read so far.
#[derive(Default)]
struct Packet {
    context: Option<Context>,
    data: Option<Data>,
    buffers: usize,
    len: u64,
    done: bool,
}

impl Transmit {
    /// Opens the ring.
    ///
    /// # Errors
    /// It is not in the guest's memory.
    pub(crate) fn open(setup: TransmitSetup) -> Result<Transmit, Fault> {
        let TransmitSetup { queue, map, ring, len, next, rules, doorbells, vectors, counters } = setup;
        let outside = |error| {
            counters.fault();
            Fault(format!("transmit ring {queue}: {error}"))
        };
        let no_event = |error| Fault(format!("transmit queue {queue}: no eventfd: {error}"));
        doorbells.open(queue).map_err(no_event)?;
        let descriptors = map.table(AddressSpace::Guest, ring, usize::from(len)).map_err(outside)?;
        let words = map.table(AddressSpace::Guest, ring, 2 * usize::from(len)).map_err(outside)?;
        Ok(Transmit {
            queue,
            map,
            hint: Hint::default(),
            descriptors,
            words,
            len,
            next: if next < len { next } else { 0 },
            ahead: Ahead { slices: Vec::with_capacity(BURST), report: Vec::with_capacity(usize::from(len)) },
            stalled: None,
            report: Vec::with_capacity(usize::from(len)),
            counts: Counts::default(),
            rules,
            doorbells,
            vectors,
            counters,
        })
    }

    /// The next packet's descriptor: where another queue on this ring goes on. What was taken ahead is read again there.
    pub(crate) fn position(&self) -> u16 {
        // One descriptor each, and less than a burst of them.
        let ahead = u16::try_from(self.ahead.slices.len()).unwrap_or(0);
        if self.next >= ahead { self.next - ahead } else { self.next + self.len - ahead }
    }

    #[inline(always)]
    fn waiting(&self, tail: u16) -> u16 {
        if tail >= self.next { tail - self.next } else { tail + self.len - self.next }
    }

    #[cold]
    fn broken(&self, what: &str) -> Fault {
        Fault(format!("transmit queue {} at descriptor {}: {what}", self.queue, self.next))
    }

    /// Takes packets of one descriptor of which nothing is asked, as long as they are such, at most `most`; asks for their
    /// frames' first lines. Their buffers go to `slices`, what is to be written back to `report`.
    #[inline(never)]
    fn take_plain(&mut self, most: usize, tail: u16, slices: &mut Vec<Slice>, report: &mut Vec<u16>) {
        let window = self.map.window(&self.hint);
        let run = usize::from(self.waiting(tail)).min(most);
        let mut at = self.next;
        for _ in 0..run {
            let words = self.descriptors.load(usize::from(at));
            let len = data_len(words[1]);
            if words[1] & PLAIN_MASK != PLAIN || len < PLAIN_LEAST {
                break;
            }
            let Some(slice) = window.slice(words[0], len) else { break };
            self.map.prefetch(&slice);
            if len > 64 {
                self.map.prefetch_at(&slice, 64);
            }
            slices.push(slice);
            if words[1] & u64::from(cmd::RS) << 4 != 0 {
                report.push(at);
            }
            at = if at + 1 == self.len { 0 } else { at + 1 };
        }
        self.next = at;
    }

    /// Makes frames of buffers of plain packets: the burst's slices from `first` on.
    #[inline(never)]
    fn fill_plain(&mut self, burst: &mut Burst, first: usize) {
        let Transmit { counts, rules, .. } = self;
        let sources = rules.sources.as_deref();
        let (mut frames, mut bytes) = (0, 0);
        burst.fill_run::<0>(first, core::iter::repeat(true), |frame| {
            let Some([t0, t1, t2, t3, t4, t5, s0, s1, s2, s3, s4, s5, ..]) = frame.plain_start().copied()
            else {
                return;
            };
            let to = number([t0, t1, t2, t3, t4, t5]);
            if sources.is_some_and(|sources| !sources.contains(&number([s0, s1, s2, s3, s4, s5]))) {
                frame.mark(DropReason::BadSource);
                counts.discards += 1;
            } else if to & 1 != 0 {
                counts.pass(cast(to), frame.len());
            } else {
                frames += 1;
                bytes += u64::from(frame.len());
            }
        });
        counts.pass_all(Cast::Unicast, frames, bytes);
    }

    /// Reads one packet from `at` on, its buffers into the burst's slices. Gives where it ends.
    #[inline]
    fn read(&mut self, mut at: u16, tail: u16, burst: &mut Burst, packet: &mut Packet) -> Result<u16, Fault> {
        let window = self.map.window(&self.hint);
        while at != tail {
            let words = self.descriptors.load(usize::from(at));
            let index = at;
            at = if at + 1 == self.len { 0 } else { at + 1 };
            match words[1] & 0xf {
                dtype::DATA => {
                    let data = Data::parse(words[1]);
                    if data.cmd & cmd::RS != 0 {
                        self.report.push(index);
                    }
                    packet.data.get_or_insert(data);
                    packet.len += u64::from(data.len);
                    if data.len > 0 {
                        packet.buffers += 1;
                        if packet.buffers <= MAX_BUFFERS {
                            self.take_buffer(words[0], data.len, &window, burst)?;
                        }
                    }
                    if data.cmd & cmd::EOP != 0 {
                        packet.done = true;
                        return Ok(at);
                    }
                }
                dtype::CONTEXT if packet.data.is_none() => packet.context = Some(Context::parse(words)),
                dtype::CONTEXT => return Err(self.broken("a context descriptor in the middle of a packet")),
                // Virtual functions program filters by message.
                dtype::FILTER if packet.data.is_none() => {}
                kind => {
                    return Err(
                        self.broken(&format!("a descriptor of type {kind}, expected data or context"))
                    );
                }
            }
        }
        Ok(at)
    }

    #[inline(always)]
    fn take_buffer(
        &mut self,
        addr: u64,
        len: u16,
        window: &fabnic_memory::Window,
        burst: &mut Burst,
    ) -> Result<(), Fault> {
        let slices = burst.slices_mut();
        if let Some(slice) = window.slice(addr, len.into()) {
            slices.push(slice);
            return Ok(());
        }
        // Another region, or a buffer that goes on in the next one: two pieces at the most, 16 KiB being less than any.
        let whole = self.map.translate_pieces(addr, len.into(), &mut self.hint, |piece| {
            slices.push(piece);
            slices.len() < MAX_SLICES
        });
        if whole {
            return Ok(());
        }
        self.counters.fault();
        Err(self.broken(&format!("a buffer of {len} bytes at {addr:#x} is not in the guest's memory")))
    }

    /// Takes packets up to the tail or until the burst is full.
    fn gather(&mut self, burst: &mut Burst, tail: u16) -> Result<(), Fault> {
        let mut first = 0;
        loop {
            // The usual ones in a run; behind one that is not, as many as come again.
            let missing = burst.room().saturating_sub(burst.slices().len() - first);
            let mut report = core::mem::take(&mut self.report);
            self.take_plain(missing, tail, burst.slices_mut(), &mut report);
            self.report = report;
            self.fill_plain(burst, first);
            if burst.room() == 0 || self.next == tail {
                return Ok(());
            }
            first = burst.slices().len();
            if first + 2 * MAX_BUFFERS > MAX_SLICES {
                return Ok(());
            }
            let reported = self.report.len();
            let mut packet = Packet::default();
            let at = self.read(self.next, tail, burst, &mut packet)?;
            if !packet.done {
                if self.waiting(tail) + 1 >= self.len {
                    return Err(self.broken("a packet as long as the ring, without an end"));
                }
                // The rest will come.
                burst.slices_mut().truncate(first);
                self.report.truncate(reported);
                self.stalled = Some(tail);
                return Ok(());
            }
            self.next = at;
            self.push(burst, first, &packet);
            first = burst.slices().len();
        }
    }

    /// Makes a frame of a packet whose buffers are the burst's slices from `first` on.
    #[inline]
    fn push(&mut self, burst: &mut Burst, first: usize, packet: &Packet) {
        let Some(data) = packet.data else { return };
        if data.cmd & cmd::DUMMY != 0 {
            burst.slices_mut().truncate(first);
            return;
        }
        let index = burst.len();
        let count = burst.slices().len() - first;
        let reason = match u32::try_from(packet.len) {
            _ if packet.buffers > MAX_BUFFERS => Some(DropReason::Oversize),
            Ok(len) if len < SHORTEST => Some(DropReason::Runt),
            Ok(len) if len <= MAX_FRAME => None,
            _ => Some(DropReason::Oversize),
        };
        // What is not looked at needs no bytes; its length counts.
        let len = u32::try_from(packet.len).unwrap_or(u32::MAX);
        if let Some(reason) = reason {
            burst.slices_mut().truncate(first);
            if let Some(frame) = burst.push_bytes(&[]) {
                frame.mark(reason);
                self.counts.errors += 1;
            }
            return;
        }
        if burst.push(first, count, 0, len).is_none() {
            return;
        }
        let Some((frame, slices, source)) = burst.frame_and_source(index) else { return };
        let result = match is_plain(&data, packet.context.as_ref()) {
            true => Ok(()),
            false => prepare(frame, slices, source, &data, packet.context.as_ref()),
        };
        let result = result.and_then(|()| finish(frame, &self.rules, &data));
        match result {
            Ok(()) => {
                let to = frame.head().first_chunk().copied().map_or(0, number);
                self.counts.pass(cast(to), len);
            }
            Err(reason) => {
                frame.mark(reason);
                match reason {
                    DropReason::BadSource => self.counts.discards += 1,
                    _ => self.counts.errors += 1,
                }
            }
        }
    }
}

/// Bytes of a data descriptor's buffer.
#[inline(always)]
fn data_len(second: u64) -> u32 {
    u32::from(Data::parse(second).len)
}

/// The rules of the port, and the tag.
#[inline]
fn finish(frame: &mut Frame, rules: &SendRules, data: &Data) -> Result<(), DropReason> {
    if let Some(sources) = &rules.sources {
        let from = frame.head().get(6..).and_then(<[u8]>::first_chunk).copied().map_or(0, number);
        if !sources.contains(&from) {
            return Err(DropReason::BadSource);
        }
    }
    if frame.offload().gso_kind() == fabnic_wire::offload::GSO_UDP_L4 && !rules.uso {
        return Err(DropReason::BadOffload);
    }
    if data.cmd & cmd::IL2TAG1 != 0 {
        if !rules.insert {
            return Err(DropReason::BadOffload);
        }
        let Some(room) = frame.insert(TAG_AT, 4) else { return Err(DropReason::BadOffload) };
        let [high, low] = data.tag.to_be_bytes();
        room.copy_from_slice(&[0x81, 0, high, low]);
        frame.shift_offload(4);
    }
    Ok(())
}

impl Ingress for Transmit {
    #[inline]
    fn backlog(&mut self) -> usize {
        let tail = self.doorbells.transmit(self.queue);
        if tail >= self.len {
            // `receive` says what is wrong with it.
            return 1;
        }
        let ahead = self.ahead.slices.len();
        if self.stalled == Some(tail) { ahead } else { ahead + usize::from(self.waiting(tail)) }
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        self.report.clear();
        if self.map.faulted() {
            return Err(self.broken("a memory file of the guest was truncated while it was in use"));
        }
        // All that is before the tail was written before it: one look for the whole burst.
        let tail = self.doorbells.transmit(self.queue);
        if tail >= self.len {
            return Err(self.broken(&format!("the tail is {tail}, expected less than {}", self.len)));
        }
        // What was taken ahead comes first, and its lines have come.
        burst.slices_mut().append(&mut self.ahead.slices);
        core::mem::swap(&mut self.report, &mut self.ahead.report);
        if burst.slices().is_empty() && self.stalled == Some(tail) {
            return Ok(());
        }
        if self.stalled != Some(tail) {
            self.stalled = None;
            self.gather(burst, tail)?;
        } else {
            self.fill_plain(burst, 0);
        }
        if burst.len() == BURST {
            // The lines of the next burst's frames come from the guest's CPU while this burst is in work.
            let Ahead { mut slices, mut report } = core::mem::take(&mut self.ahead);
            self.take_plain(BURST, tail, &mut slices, &mut report);
            self.ahead = Ahead { slices, report };
        }
        if burst.is_empty() && !self.report.is_empty() {
            // Nobody completes what holds no frame.
            self.complete(burst);
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        for index in &self.report {
            // Only the second word: the first is the driver's.
            self.words.store_release(2 * usize::from(*index) + 1, dtype::DONE.to_le());
        }
        let reported = !self.report.is_empty();
        self.report.clear();
        self.counters.settle(&core::mem::take(&mut self.counts));
        if reported { self.vectors.cause(Side::Transmit, self.queue) } else { 0 }
    }

    fn arm(&mut self) -> bool {
        let wakes = self.doorbells.arm(self.queue);
        !wakes || self.backlog() > 0 || self.map.faulted()
    }

    fn disarm(&mut self) {
        self.doorbells.disarm(self.queue);
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.doorbells.wake(self.queue)
    }
}
