//! The queue that the guest receives on (SDM 3.2).
//!
//! Descriptors between head and tail are the device's; each is read once. The usual frame needs one buffer and nothing
//! finished: its private head is written, then the rest is copied from the sender's memory. Everything else (several
//! buffers, checksums, segments, tags to be stripped) takes the way over [`finish`]. A descriptor's status is written when
//! its bytes are there, the head register once a burst, and there is one decision to interrupt.
//!
//! The 82540EM has no receive coalescing: whatever a sender left to be done is finished in software, and what was summed
//! up on the way is told to the driver as a checksum that was checked.

use std::sync::Arc;

use fabnic_memory::{Cursor, DirtyLog, Hint, Map, Slice, copy};
use fabnic_port::finish::{Accepts, CannotFinish, HEADERS, Piece, finish};
use fabnic_port::{BURST, Burst, DropReason, Egress, Fault, Frame, Tally};
use fabnic_wire::checksum::ipv4_header_is_valid;
use fabnic_wire::ethernet::{TAG_LEN, TAG_OFFSET};
use fabnic_wire::layers::{Fragment, Network};
use fabnic_wire::offload::DATA_VALID;
use fabnic_wire::{IpProtocol, Layers, Offload};

use crate::filter::{ADDRESSES, Filter, Verdict};
use crate::ring::{DescriptorRing, Position, Side};
use crate::shared::Shared;
use crate::spec::descriptor::{ReceiveStatus, receive_done};
use crate::spec::register::{Cause, RXCSUM_IPOFL, RXCSUM_TUOFL, Rctl, statistics};
use crate::spec::{FCS_LEN, LONGEST_LARGE, LONGEST_STANDARD, SHORTEST_FRAME};
use crate::statistics::{Traffic, Way};

/// What is written behind a frame: the padding of a short one, and its FCS, which nobody looks at.
const ZEROS: [u8; 64] = [0; 64];

/// The most buffers of a frame: the longest in the smallest.
const MAX_BUFFERS: usize = LONGEST_LARGE.div_ceil(256) as usize;

/// A guest's receive ring, to which the switch delivers.
#[derive(Debug)]
pub(crate) struct Receive {
    shared: Arc<Shared>,
    map: Arc<Map>,
    ring: DescriptorRing,
    hint: Hint,
    filter: Filter,
    generation: u32,
    /// Where the ring stands in this burst, and the next descriptor.
    position: Position,
    at: u32,
    /// Buffer addresses of descriptors from the head on that were read ahead, and the buffers; empty where one is not inside
    /// of one region.
    ahead: [u64; BURST],
    ahead_len: u32,
    ahead_targets: [Slice; BURST],
    /// The first `exact_len` are addresses that the filter takes as they are.
    exact: [u64; ADDRESSES],
    exact_len: usize,
    /// Room for the buffers of a frame.
    targets: Vec<Slice>,
    buffers: Vec<(u32, u32)>,
    traffic: Traffic,
    missed: u64,
    oversize: u64,
}

/// Why a frame did not go.
enum Refusal {
    Drop(DropReason),
    Fault(Fault),
}

impl From<CannotFinish> for Refusal {
    fn from(_: CannotFinish) -> Refusal {
        Refusal::Drop(DropReason::CannotSegment)
    }
}

/// What the driver is told of a frame.
#[derive(Clone, Copy)]
struct Told {
    status: ReceiveStatus,
    /// The tag that is to be stripped.
    strip: Option<u16>,
}

impl Receive {
    pub(crate) fn new(shared: Arc<Shared>, map: Arc<Map>) -> Receive {
        let log = shared.log();
        Receive {
            shared,
            map,
            ring: DescriptorRing::new(Side::Receive, log),
            hint: Hint::default(),
            filter: Filter::default(),
            generation: 0,
            position: Position { head: 0, tail: 0, len: 0 },
            at: 0,
            ahead: [0; BURST],
            ahead_len: 0,
            ahead_targets: [Slice::EMPTY; BURST],
            exact: [0; ADDRESSES],
            exact_len: 0,
            targets: Vec::with_capacity(2 * MAX_BUFFERS),
            buffers: Vec::with_capacity(MAX_BUFFERS),
            traffic: Traffic::default(),
            missed: 0,
            oversize: 0,
        }
    }

    /// Begins, changes or ends the logging of writes.
    pub(crate) fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.ring.set_log(log);
    }

    /// Delivers frames that the device itself sent.
    pub(crate) fn deliver_looped(
        &mut self,
        burst: &mut Burst,
        picks: &[u8],
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        if self.map.faulted() {
            return Err(Fault("a memory file of the guest was truncated while it was in use".to_owned()));
        }
        let Receive { shared, filter, generation, exact, exact_len, .. } = self;
        shared.renew(generation, |newest| {
            filter.clone_from(newest);
            let places = exact.iter_mut().zip(newest.exact()).map(|(place, address)| *place = address);
            *exact_len = places.count();
        });
        self.position = match self.ring.look(&self.shared, &self.map)? {
            Some(position) => position,
            None => Position { head: 0, tail: 0, len: 0 },
        };
        self.at = self.position.head;
        self.look_ahead(burst, picks);
        let result = self.deliver_all(burst, picks, tally);
        self.settle(tally);
        result
    }

    /// Reads the descriptors of so many frames, if each needs one, and asks for their buffers: so that these are on their
    /// way while the first frames are written.
    #[inline(never)]
    fn look_ahead(&mut self, burst: &Burst, picks: &[u8]) {
        let mut at = self.position.head;
        self.ahead_len = 0;
        let Some((descriptors, _)) = self.ring.tables() else { return };
        let size = self.filter.rctl.buffer_len();
        let is_long = picks.first().and_then(|pick| burst.frames().get(usize::from(*pick)));
        let is_long = is_long.is_some_and(|frame| frame.len() > 60);
        let mut window = self.map.window(&self.hint);
        for ((place, target), _) in self.ahead.iter_mut().zip(&mut self.ahead_targets).zip(picks) {
            if at == self.position.tail {
                break;
            }
            let [addr, _] = descriptors.load(at as usize).map(u64::from_le);
            (*place, *target) = (addr, Slice::EMPTY);
            self.ahead_len += 1;
            // A null descriptor has no buffer (SDM 3.2.3).
            if addr != 0 {
                let found = window.slice(addr, size).or_else(|| {
                    let found = self.map.translate(addr, size, &mut self.hint);
                    window = self.map.window(&self.hint);
                    found
                });
                *target = found.unwrap_or(Slice::EMPTY);
                self.map.prefetch_write_at(target, 0);
                // Frames of a burst are alike.
                if is_long {
                    self.map.prefetch_write_at(target, 64);
                }
            }
            at = self.position.next(at);
        }
    }

    /// The buffer of a descriptor, read once.
    #[inline]
    fn buffer(&self, at: u32) -> u64 {
        let index = if at >= self.position.head {
            at - self.position.head
        } else {
            at + self.position.len - self.position.head
        };
        match self.ahead.get(index as usize) {
            Some(addr) if index < self.ahead_len => *addr,
            _ => self.ring.load(at)[0],
        }
    }

    fn deliver_all(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        let mut left = picks;
        loop {
            if let Some((frames, slices, source)) = burst.parts() {
                let placed = self.place_run(frames, slices, source, left, tally);
                left = left.get(placed..).unwrap_or(&[]);
            }
            let [pick, others @ ..] = left else { return Ok(()) };
            left = others;
            let pick = usize::from(*pick);
            let placed = match burst.frame_and_source(pick) {
                Some((frame, slices, source)) => self.place(frame, slices, source),
                // Private as a whole, of a sender without memory.
                None => {
                    let Some(frame) = burst.frames().get(pick) else { continue };
                    let map = Arc::clone(&self.map);
                    self.place(frame, &[], &map)
                }
            };
            match placed {
                Ok(len) => tally.deliver(len),
                Err(Refusal::Drop(reason)) => tally.drop(reason, 1),
                Err(Refusal::Fault(fault)) => return Err(fault),
            }
        }
    }

    /// Delivers frames that nothing is left to be done on, that are for this station alone, need one buffer and have no tag
    /// that matters, up to the first that is not such or for which no buffer was taken ahead. Gives how many.
    #[inline(never)]
    fn place_run(
        &mut self,
        frames: &[Frame],
        slices: &[Slice],
        source: &Map,
        picks: &[u8],
        tally: &mut Tally,
    ) -> usize {
        let Receive { map, ring, filter, position, traffic, .. } = self;
        let Some((_, words)) = ring.tables().filter(|_| !ring.is_logging()) else { return 0 };
        let (rctl, reach) = (filter.rctl, map.reach());
        let takes_all = rctl.contains(Rctl::UPE);
        let tag = (rctl.contains(Rctl::VFE) || filter.strips()).then(|| filter.vet.to_be());
        let fcs = if rctl.contains(Rctl::SECRC) { 0 } else { FCS_LEN };
        let longest = (longest(rctl) - FCS_LEN).min(rctl.buffer_len().saturating_sub(fcs));
        let exact = self.exact.get(..self.exact_len).unwrap_or(&[]);
        let done = ReceiveStatus::IXSM | ReceiveStatus::DD | ReceiveStatus::EOP;

        let ahead = position.available(position.head) - position.available(self.at);
        let targets = self.ahead_targets.get(ahead as usize..self.ahead_len as usize).unwrap_or(&[]);
        let (mut at, mut placed, mut bytes) = (self.at, 0, 0);
        for (pick, target) in picks.iter().zip(targets) {
            let Some(frame) = frames.get(usize::from(*pick)) else { break };
            let Some(start) = frame.plain_start() else { break };
            let [t0, t1, t2, t3, t4, t5, .., e0, e1, _, _] = *start;
            let to = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, 0, 0]);
            let mut status = done;
            if to & 1 != 0 {
                break;
            }
            if !exact.contains(&to) {
                if !takes_all {
                    break;
                }
                status |= ReceiveStatus::PIF;
            }
            let len = frame.len();
            if len > longest || tag == Some(u16::from_ne_bytes([e0, e1])) {
                break;
            }
            if !reach.write_both(target, &[], frame.head()) {
                break;
            }
            if !frame.is_private() {
                if let Some(next) = picks.get(placed + 1).and_then(|next| frames.get(usize::from(*next))) {
                    announce(next, slices, source);
                }
                copy_rest(map, frame, slices, source, target);
            }
            // The padding of a short one, and the FCS.
            let total = len.max(SHORTEST_FRAME) + fcs;
            match total - len {
                0 => {}
                FCS_LEN => _ = reach.write(target, len, &[0; FCS_LEN as usize]),
                more => _ = reach.write(target, len, ZEROS.get(..more as usize).unwrap_or(&ZEROS)),
            }
            let word = receive_done((total & 0xffff) as u16, status, 0);
            words.store_release(2 * at as usize + 1, word.to_le());
            at = position.next(at);
            traffic.count_unicast(len, 1);
            placed += 1;
            bytes += u64::from(len);
        }
        self.at = at;
        tally.deliver_all(placed, bytes);
        placed
    }

    /// Delivers a frame; gives its length.
    #[inline]
    fn place(&mut self, frame: &Frame, slices: &[Slice], source: &Map) -> Result<u32, Refusal> {
        let head = frame.head();
        let mut status = ReceiveStatus::empty();
        match self.filter.judge(head) {
            Verdict::Exact => {}
            Verdict::Inexact => status |= ReceiveStatus::PIF,
            Verdict::Refused => return Err(Refusal::Drop(DropReason::Filtered)),
        }
        let strip = if self.filter.strips() { self.filter.tag(head).map(|tci| tci.0) } else { None };
        let told = Told { status, strip };
        if strip.is_some() || !frame.offload().is_plain() || !self.place_plain(frame, slices, source, told)? {
            self.place_any(frame, slices, source, told)?;
        }
        Ok(frame.len())
    }

    /// Bytes that a frame of `len` bytes takes in buffers, before a tag is stripped. Or it is too long.
    #[inline]
    fn length(&mut self, len: u32) -> Result<u32, Refusal> {
        let wire = len.max(SHORTEST_FRAME) + FCS_LEN;
        let rctl = self.filter.rctl;
        if wire > longest(rctl) {
            self.oversize += 1;
            return Err(Refusal::Drop(DropReason::BufferTooSmall));
        }
        Ok(if rctl.contains(Rctl::SECRC) { wire - FCS_LEN } else { wire })
    }

    fn no_buffer(&mut self) -> Refusal {
        self.missed += 1;
        Refusal::Drop(DropReason::RingFull)
    }

    /// Delivers a frame that needs nothing special; `false`, and nothing done, if it does.
    #[inline]
    fn place_plain(
        &mut self,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        told: Told,
    ) -> Result<bool, Refusal> {
        let total = self.length(frame.len())?;
        if total > self.filter.rctl.buffer_len() {
            return Ok(false);
        }
        if self.at == self.position.tail {
            return Err(self.no_buffer());
        }
        let addr = self.buffer(self.at);
        if addr == 0 {
            return Ok(false);
        }
        let Some(target) = self.map.translate(addr, total, &mut self.hint) else { return Ok(false) };
        let next = self.position.next(self.at);
        let map = &*self.map;
        let head = frame.head();
        if map.write(&target, 0, head) != head.len() {
            return Ok(false);
        }
        copy_rest(map, frame, slices, source, &target);
        let behind = ZEROS.get(..(total - frame.len()) as usize).unwrap_or(&ZEROS);
        map.write(&target, frame.len(), behind);
        if self.ring.is_logging() {
            self.ring.log_written(map, &target, total);
        }
        let checked =
            if frame.offload().flags & DATA_VALID != 0 { self.checked(head) } else { ReceiveStatus::IXSM };
        let status = told.status | checked | ReceiveStatus::DD | ReceiveStatus::EOP;
        self.ring.write_back(self.at, receive_done((total & 0xffff) as u16, status, 0));
        self.at = next;
        self.traffic.count(head, frame.len(), 1);
        Ok(true)
    }

    /// What is said of checksums that are known to be right.
    fn checked(&self, head: &[u8]) -> ReceiveStatus {
        let mut status = ReceiveStatus::empty();
        let Some(Layers { l3, ip: Some(ip), .. }) = Layers::of(head) else { return ReceiveStatus::IXSM };
        let is_l4 = matches!(ip.protocol, IpProtocol::TCP | IpProtocol::UDP) && ip.fragment == Fragment::No;
        if is_l4 && self.filter.rxcsum & RXCSUM_TUOFL != 0 {
            status |= ReceiveStatus::TCPCS;
        }
        if ip.network == Network::V4 && self.filter.rxcsum & RXCSUM_IPOFL != 0 {
            match head.get(usize::from(l3)..usize::from(ip.l4)) {
                Some(header) if ipv4_header_is_valid(header) => status |= ReceiveStatus::IPCS,
                // Wrong: the driver finds out by itself.
                _ => return ReceiveStatus::IXSM,
            }
        }
        if status.is_empty() { ReceiveStatus::IXSM } else { status }
    }

    /// Delivers any frame, finished in software.
    #[inline(never)]
    fn place_any(
        &mut self,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        told: Told,
    ) -> Result<(), Refusal> {
        self.expect_room(frame)?;
        let is_summed = !frame.offload().is_plain() || frame.offload().flags & DATA_VALID != 0;
        finish(frame, slices, source, &Accepts::default(), |piece| self.place_piece(piece, told, is_summed))
    }

    /// Refuses a large frame whose segments do not all fit, unless they never would.
    fn expect_room(&mut self, frame: &Frame) -> Result<(), Refusal> {
        let Offload { gso_size, hdr_len, .. } = frame.offload();
        if !frame.offload().is_gso() || gso_size == 0 {
            return Ok(());
        }
        let segments = frame.len().saturating_sub(u32::from(hdr_len)).div_ceil(u32::from(gso_size));
        let longest = u32::from(hdr_len) + u32::from(gso_size) + FCS_LEN;
        let need = segments.saturating_mul(longest.div_ceil(self.filter.rctl.buffer_len()));
        let is_too_many = need > self.position.available(self.at) && need < self.position.len;
        if is_too_many { Err(self.no_buffer()) } else { Ok(()) }
    }

    /// Finds buffers for `total` bytes: their descriptors and places go to `buffers` and `targets`. Gives the descriptor
    /// behind them.
    fn reserve(&mut self, total: u32) -> Result<u32, Refusal> {
        self.targets.clear();
        self.buffers.clear();
        let size = self.filter.rctl.buffer_len();
        let (mut at, mut left, mut nulls) = (self.at, total, 0);
        while left > 0 {
            if at == self.position.tail || self.buffers.len() + nulls >= 2 * MAX_BUFFERS {
                return Err(self.no_buffer());
            }
            let addr = self.buffer(at);
            if addr == 0 {
                // A null descriptor is passed over (SDM 3.2.3), for good if no frame has begun.
                self.ring.write_back(at, receive_done(0, ReceiveStatus::DD, 0));
                if self.buffers.is_empty() {
                    self.at = self.position.next(at);
                } else {
                    nulls += 1;
                }
            } else {
                let len = left.min(size);
                let Receive { map, targets, hint, .. } = self;
                if !map.translate_pieces(addr, len, hint, |slice| {
                    let fits = targets.len() < targets.capacity();
                    if fits {
                        targets.push(slice);
                    }
                    fits
                }) {
                    self.shared.count_fault();
                    return Err(Refusal::Fault(Fault(format!(
                        "receive ring: descriptor {at}: {len} bytes at {addr:#x} are not in the guest's memory"
                    ))));
                }
                self.buffers.push((at, len));
                left -= len;
            }
            at = self.position.next(at);
        }
        Ok(at)
    }

    /// Writes a piece into the next buffers.
    fn place_piece(&mut self, piece: &Piece<'_>, told: Told, is_summed: bool) -> Result<(), Refusal> {
        let len = u32::try_from(piece.len()).map_err(|_| CannotFinish)?;
        let cut = if told.strip.is_some() { TAG_LEN } else { 0 };
        let full = self.length(len)?;
        let total = full.saturating_sub(cut as u32);
        let next = self.reserve(total)?;
        let map = &*self.map;

        let mut payload = Cursor::new(&self.targets);
        let header_len = piece.header_len();
        payload.skip(header_len.saturating_sub(cut) as u32);
        let sum = piece.copy_payload(&mut payload, map).ok_or(CannotFinish)?;
        payload.write(map, ZEROS.get(..(full - len) as usize).unwrap_or(&ZEROS));
        let mut bytes = [0_u8; HEADERS];
        piece.write_headers(&mut bytes, sum)?;
        let head = bytes.get_mut(..header_len).ok_or(CannotFinish)?;
        let checked = if is_summed { self.checked(head) } else { ReceiveStatus::IXSM };
        self.traffic.count(head, len, 1);
        if cut > 0 {
            head.copy_within(..TAG_OFFSET, TAG_LEN);
        }
        let head = bytes.get(cut..header_len).ok_or(CannotFinish)?;
        if Cursor::new(&self.targets).write(map, head) != head.len() {
            return Err(CannotFinish.into());
        }

        if self.ring.is_logging() {
            for target in &self.targets {
                self.ring.log_written(map, target, target.len());
            }
        }
        let mut done = told.status | checked | ReceiveStatus::EOP;
        done.set(ReceiveStatus::VP, told.strip.is_some());
        let last = self.buffers.len().saturating_sub(1);
        for (number, (at, len)) in self.buffers.iter().enumerate() {
            let status = if number == last { done } else { ReceiveStatus::empty() } | ReceiveStatus::DD;
            let special = if number == last { told.strip.unwrap_or(0) } else { 0 };
            // A buffer has 16384 bytes at the most.
            self.ring.write_back(*at, receive_done((*len & 0xffff) as u16, status, special));
        }
        self.at = next;
        Ok(())
    }

    /// Publishes what was done and decides whether to interrupt.
    fn settle(&mut self, tally: &mut Tally) {
        let mut causes = Cause::empty();
        let position = self.position;
        self.ring.flush_log();
        if self.at != position.head {
            self.shared.pages.set_head(Side::Receive, self.at);
            causes |= Cause::RXT0;
            if position.available(self.at) <= position.len >> self.filter.rctl.threshold_shift() {
                causes |= Cause::RXDMT0;
            }
        }
        let statistics = &self.shared.statistics;
        self.traffic.settle(statistics, Way::Received);
        if self.missed > 0 {
            causes |= Cause::RXO;
            statistics.add(statistics::MPC, self.missed);
            statistics.add(statistics::RNBC, self.missed);
        }
        statistics.add(statistics::ROC, self.oversize);
        (self.missed, self.oversize) = (0, 0);
        if !causes.is_empty() {
            tally.calls += u64::from(self.shared.line.raise(causes));
        }
    }
}

/// Bytes of the longest frame that is taken, with its FCS.
fn longest(rctl: Rctl) -> u32 {
    if rctl.intersects(Rctl::LPE | Rctl::SBP) { LONGEST_LARGE } else { LONGEST_STANDARD }
}

/// Copies what is not private of a frame behind its head.
#[inline(always)]
fn copy_rest(map: &Map, frame: &Frame, slices: &[Slice], source: &Map, target: &Slice) {
    let rest = frame.rest_len();
    if rest == 0 {
        return;
    }
    let to = target.part(frame.len() - rest, rest);
    let (own, skip) = frame.rest_slices(slices);
    match own {
        [one] if one.len() >= skip + rest => {
            copy(source, &one.part(skip, rest), map, &to);
        }
        _ => {
            Cursor::new(&[to]).copy_from(map, source, &mut frame.rest(slices), rest);
        }
    }
}

/// Bytes of a frame that are asked for ahead: a standard one's. A longer copy gets ahead of itself.
const COPIED_AHEAD: u32 = 1536;

/// Asks for the lines that a frame will be copied from, while the frame before it is copied.
#[inline(always)]
fn announce(frame: &Frame, slices: &[Slice], source: &Map) {
    let (own, skip) = frame.rest_slices(slices);
    if let Some(from) = own.first() {
        for at in (0..frame.rest_len().min(COPIED_AHEAD)).step_by(64) {
            source.prefetch_at(from, skip + at);
        }
    }
}

impl Egress for Receive {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        if !self.shared.is_receiving() {
            tally.drop(DropReason::NotReady, picks.len());
            return Ok(());
        }
        self.deliver_looped(burst, picks, tally)
    }
}
