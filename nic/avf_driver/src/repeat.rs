//! Queues for measuring: packets that are written once and sent again and again, frames that are counted and given back.
//!
//! What is left of a driver when everything that can be done once is done once, so that the device is the limit. Of a
//! group of packets only the last one asks to be reported (RS), so that sending it again is one descriptor's second word
//! and the tail. Of a received frame one line is read.
//!
//! ```text
//!   transmit ring   | group | group | group | spare |      clean: the group that is done next
//!                     ^clean                  ^next        next: the one that is posted when it is
//! ```

use fabnic_avf_spec::receive::rxdid;
use fabnic_avf_spec::registers::QRX_TAIL;
use fabnic_avf_spec::transmit::{Context, Data, cmd, context_cmd, dtype};

use crate::receive::{Receive, STEP, WORDS};
use crate::transmit::{Transmit, Work};
use crate::{Bus, Error};

/// Groups that a ring of packets is cut into.
const GROUPS: u16 = 16;
/// How many frames ahead their first lines are asked for.
const AHEAD: u16 = 8;

/// What a transmit ring sends again and again.
#[derive(Debug)]
pub(crate) struct Again {
    /// Descriptors, and packets, of a group.
    descriptors: u16,
    packets: u16,
    /// The last second word of each group.
    last: Vec<u64>,
}

/// What was received and given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recycled {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Transmit {
    /// Fills the ring with packets, to be sent with [`Transmit::repeat`]: `frame` gives them, all of the same length, by
    /// number. Gives how many there are. The ring's length must be a power of two.
    ///
    /// # Errors
    /// They are too long for the ring's buffers.
    pub fn prepare(&mut self, work: &Work, mut frame: impl FnMut(u16) -> Vec<u8>) -> Result<u16, Error> {
        let most = usize::from(self.buffer_len);
        let context = u16::from(work.mss.is_some());
        let len = frame(0).len();
        let pieces = u16::try_from(len.div_ceil(most).max(1)).unwrap_or(u16::MAX);
        // As many descriptors for each as divide the ring.
        let each = pieces.saturating_add(context).next_power_of_two();
        if !self.len.is_power_of_two() || each == 0 || each > self.len / GROUPS {
            return Err(Error::Setup("packets do not fit the ring"));
        }
        let pieces = each - context;
        let piece = len.div_ceil(usize::from(pieces));
        let [mac_len, ip_len, l4_len] = work.lens;
        let descriptors = self.len / GROUPS;
        let mut last = Vec::new();
        self.next = 0;
        for packet in 0..self.len / each {
            let bytes = frame(packet);
            if let Some(mss) = work.mss {
                let headers: u32 = work.lens.iter().map(|len| u32::from(*len)).sum();
                let payload = u32::try_from(len).unwrap_or(0).saturating_sub(headers);
                let context = Context { cmd: context_cmd::TSO, payload, mss, ..Context::default() };
                self.put(context.encode());
            }
            for n in 0..pieces {
                let at = usize::from(n) * piece;
                let part = bytes.get(at..len.min(at + piece)).unwrap_or(&[]);
                let Some((addr, place)) = self.buffers.get(usize::from(self.next)).copied() else { break };
                self.map.write(&place, 0, part);
                let is_end = n + 1 == pieces;
                let is_last = (self.next + 1).is_multiple_of(descriptors);
                let end = if is_end { cmd::EOP } else { 0 } | if is_last { cmd::RS } else { 0 };
                let len = u16::try_from(part.len()).unwrap_or(0);
                let data = Data { cmd: work.cmd() | end, mac_len, ip_len, l4_len, len, tag: 0 };
                if is_last {
                    last.push(data.encode());
                }
                self.put([addr, data.encode()]);
            }
        }
        (self.clean, self.next) = (0, self.len - descriptors);
        self.again = Some(Again { descriptors, packets: descriptors / each, last });
        Ok(self.len / each)
    }

    /// Sends packets of [`Transmit::prepare`] that are done once more, in groups, until there are `most` or none. Gives how
    /// many were done.
    #[inline]
    pub fn repeat(&mut self, bus: &mut dyn Bus, most: u16) -> u16 {
        let Some(again) = &self.again else { return 0 };
        let (descriptors, mut sent) = (again.descriptors, 0);
        while sent < most {
            let end = usize::from(self.clean + descriptors - 1);
            if u64::from_le(self.descriptors.load_acquire(end)[1]) & 0xf != dtype::DONE {
                break;
            }
            let word = again.last.get(usize::from(self.clean / descriptors)).copied().unwrap_or(0);
            let [addr, _] = self.descriptors.load(end);
            self.descriptors.store(end, [addr, word.to_le()]);
            let mask = self.len - 1;
            (self.clean, self.next) = ((self.clean + descriptors) & mask, (self.next + descriptors) & mask);
            sent += again.packets;
        }
        if sent > 0 {
            self.ring(bus);
        }
        sent
    }
}

impl Receive {
    /// Takes frames, up to `most`, reads the first bytes of each, and gives their buffers back at once. Nothing is touched
    /// while fewer than `gather` descriptors are done.
    #[inline]
    pub fn recycle(&mut self, bus: &mut dyn Bus, gather: u16, most: u16) -> Recycled {
        let mut recycled = Recycled::default();
        let posted = self.len - 1 - self.free();
        let second = |at: u16| u64::from_le(self.words.load_acquire(WORDS * usize::from(at) + 1));
        let wrap = |at: u16| if at >= self.len { at - self.len } else { at };
        if posted == 0 || gather > posted || second(wrap(self.next + gather.max(1) - 1)) & 1 == 0 {
            return recycled;
        }
        let mut at = self.next;
        for _ in 0..posted.min(most) {
            let word = second(at);
            if word & 1 == 0 {
                break;
            }
            if let Some((_, buffer)) = self.buffers.get(usize::from(wrap(at + AHEAD))) {
                self.map.prefetch(buffer);
            }
            let place = WORDS * usize::from(at);
            let (len, is_last) = match self.format {
                rxdid::LEGACY_32 => (word >> 38, word & 2 != 0),
                _ => (u64::from_le(self.words.load(place)) >> 32, word & 2 != 0),
            };
            let Some((addr, buffer)) = self.buffers.get(usize::from(at)) else { break };
            let mut first = [0; 8];
            self.map.read(buffer, 0, &mut first);
            recycled.frames += u64::from(is_last && first != [0; 8]);
            recycled.bytes += len & 0x3fff;
            self.words.store(place, addr.to_le());
            self.words.store(place + 1, 0);
            at = wrap(at + 1);
        }
        self.next = at;
        // All but one, in steps.
        let tail = wrap(at + self.len - 1) / STEP * STEP;
        if tail != self.posted {
            // What lay between was given back long ago, but never since the start if it was not posted then.
            self.post_to(tail);
            bus.write(QRX_TAIL + 4 * u64::from(self.queue), tail.into());
        }
        recycled
    }

    /// Posts all descriptors before `tail`. Those that were posted before have their buffers already.
    fn post_to(&mut self, tail: u16) {
        while self.fresh < self.len && self.posted != tail {
            let at = usize::from(self.posted);
            if self.posted >= self.fresh
                && let Some((addr, _)) = self.buffers.get(at)
            {
                self.words.store(WORDS * at, addr.to_le());
                self.words.store(WORDS * at + 1, 0);
                self.fresh = self.posted + 1;
            }
            self.posted = self.after(self.posted);
        }
        self.posted = tail;
    }
}
