//! The queue that a guest receives on: all receive rings of a function behind one [`Egress`].
//!
//! Which ring a frame goes to is the guest's to say (RSS key and table), not the switch's. So the first egress cell of
//! the port holds all rings, and the others stay empty: the switch delivers to one queue, and this one spreads.
//!
//! For each frame: is it for this function at all, what is it, which ring, then into that ring's buffers. A frame that is
//! large or has a partial checksum is finished in software, in the pass that copies it: these descriptors cannot say
//! "checksum missing", and a router behind them would send it on. Of a large frame, the segments for which there are
//! buffers are delivered, as on a wire; if one is missing the frame counts as dropped.

use std::sync::Arc;

use fabnic_avf_spec::receive::{Cast, Found};
use fabnic_memory::{Map, Slice};
use fabnic_port::finish::{Accepts, finish};
use fabnic_port::{BURST, Burst, DropReason, Egress, Fault, Frame, Tally};
use fabnic_wire::Layers;

use crate::classify::{Kind, Transport, classify};
use crate::director::{Destination, Director};
use crate::doorbell::Doorbells;
use crate::filter::{Filter, cast, number};
use crate::interrupts::{Side, Vectors};
use crate::queues::MAX_QUEUES;
use crate::receive_ring::{Plan, Refusal, Ring};
use crate::rss::Hasher;
use crate::stats::Counts;
use crate::usual::{self, FlowCache, Looker, Usual};

/// What the control side says of what is received, and how.
#[derive(Debug)]
pub(crate) struct ReceiveRules {
    pub(crate) filter: Filter,
    pub(crate) hasher: Arc<Hasher>,
    pub(crate) flows: FlowCache,
    /// Tags are taken out.
    pub(crate) strip: bool,
    /// Flow director rules, if there are any.
    pub(crate) director: Option<Arc<Director>>,
}

/// All receive rings of a function.
#[derive(Debug)]
pub(crate) struct Receive {
    map: Arc<Map>,
    rings: [Option<Ring>; MAX_QUEUES],
    counts: [Counts; MAX_QUEUES],
    /// The lowest ring there is: for frames that the table sends to one that is not.
    lowest: usize,
    /// There is but that one.
    is_single: bool,
    /// The longest frame that a buffer of every ring takes as it is.
    longest: u32,
    /// Frames of the burst in work, and room for what the usual ones of them are.
    expected: usize,
    usual: Box<[Usual]>,
    pub(crate) rules: ReceiveRules,
    doorbells: Arc<Doorbells>,
    vectors: Arc<Vectors>,
}

impl Receive {
    pub(crate) fn new(
        map: Arc<Map>,
        rules: ReceiveRules,
        doorbells: Arc<Doorbells>,
        vectors: Arc<Vectors>,
    ) -> Receive {
        Receive {
            map,
            rings: [const { None }; MAX_QUEUES],
            counts: [Counts::default(); MAX_QUEUES],
            lowest: 0,
            is_single: false,
            longest: 0,
            expected: 0,
            usual: vec![Usual::default(); BURST].into(),
            rules,
            doorbells,
            vectors,
        }
    }

    /// Puts a ring in, or takes it out; gives the one that was there.
    pub(crate) fn set_ring(&mut self, queue: usize, ring: Option<Ring>) -> Option<Ring> {
        let place = self.rings.get_mut(queue)?;
        let old = core::mem::replace(place, ring);
        self.lowest = self.rings.iter().position(Option::is_some).unwrap_or(0);
        let rings = || self.rings.iter().flatten();
        self.is_single = rings().count() == 1;
        self.longest = rings().map(Ring::longest).min().unwrap_or(0);
        old
    }

    /// Whether there is no ring.
    pub(crate) fn is_empty(&self) -> bool {
        self.rings.iter().all(Option::is_none)
    }

    /// Looks at frames up to the first that is not usual, for our own address, and short enough for one buffer. What they are
    /// goes to `usual`. Gives how many there are.
    #[inline(never)]
    fn look(&mut self, frames: &[Frame], picks: &[u8], usual: &mut [Usual]) -> usize {
        let ReceiveRules { filter, hasher, flows, director, .. } = &mut self.rules;
        let mut count = 0;
        if director.is_some() {
            return count;
        }
        let mut looker = Looker::new(hasher, flows);
        let longest = self.longest as usize;
        // Bits in which an address may differ from our own: all but that of a group if all are taken.
        let own = filter.addresses.first().copied().unwrap_or(1);
        let (own, compared) = if filter.all_unicast { (0, 1) } else { (own, 0xffff_ffff_ffff) };
        for (pick, place) in picks.iter().zip(usual) {
            let Some(frame) = frames.get(usize::from(*pick)) else { break };
            let Some(start) = frame.plain_chunk::<{ usual::LOOKED }>() else { break };
            let to = start.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
            let len = frame.len() as usize;
            if len > longest || to & compared != own {
                break;
            }
            let Some(found) = looker.look(start, len) else { break };
            *place = found;
            count += 1;
        }
        count
    }

    /// Delivers frames that are usual, to the first of `picks` that is not. Gives how many of them were looked at.
    fn deliver_usual(
        &mut self,
        frames: &[Frame],
        from: (&[Slice], &Map),
        picks: &[u8],
        tally: &mut Tally,
        looked: &mut u32,
    ) -> Result<usize, Fault> {
        let mut usual = core::mem::take(&mut self.usual);
        let count = self.look(frames, picks, &mut usual);
        let found = usual.get(..count).unwrap_or(&[]);
        let result = self.place_all(frames, from, picks, found, tally, looked);
        self.usual = usual;
        result.map(|()| count)
    }

    /// Puts usual frames into their rings.
    fn place_all(
        &mut self,
        frames: &[Frame],
        (slices, source): (&[Slice], &Map),
        picks: &[u8],
        usual: &[Usual],
        tally: &mut Tally,
        looked: &mut u32,
    ) -> Result<(), Fault> {
        let mut done = 0;
        while let Some(first) = usual.get(done) {
            let left = usual.get(done..).unwrap_or(&[]);
            let queue = self.queue(first.hash);
            // With one ring all are for it.
            let run = match self.is_single {
                true => left.len(),
                false => left.iter().take_while(|one| self.queue(one.hash) == queue).count(),
            };
            let picks = picks.get(done..done + run).unwrap_or(&[]);
            let Receive { map, rings, counts, doorbells, .. } = self;
            let (Some(Some(ring)), Some(counts)) = (rings.get_mut(queue), counts.get_mut(queue)) else {
                tally.drop(DropReason::NotReady, run);
                done += run;
                continue;
            };
            if *looked & 1 << queue == 0 {
                *looked |= 1 << queue;
                ring.look(map, doorbells, self.expected)?;
            }
            if ring.taken() < run {
                ring.take_ahead(map, run);
            }
            let (placed, bytes) = ring.place_usual(map, (frames, slices, source), picks, left);
            counts.pass_all(Cast::Unicast, placed, bytes);
            tally.deliver_all(placed, bytes);
            done += placed;
            let missing = run - placed;
            if missing > 0 && ring.is_empty() {
                counts.discards += missing as u64;
                tally.drop(DropReason::RingFull, missing);
                done += missing;
            } else if missing > 0
                && let Some(frame) = picks.get(placed).and_then(|pick| frames.get(usize::from(*pick)))
            {
                // A buffer that is not inside of one region.
                self.deliver_any(frame, slices, source, tally, looked)?;
                done += 1;
            }
        }
        Ok(())
    }

    /// The ring for a hash.
    #[inline(always)]
    fn queue(&self, hash: u32) -> usize {
        let wanted = self.rules.hasher.queue(hash);
        if matches!(self.rings.get(wanted), Some(Some(_))) { wanted } else { self.lowest }
    }

    /// Delivers any frame, and counts it.
    fn deliver_any(
        &mut self,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        tally: &mut Tally,
        looked: &mut u32,
    ) -> Result<(), Fault> {
        match self.deliver_one(frame, slices, source, looked) {
            Ok(()) => tally.deliver(frame.len()),
            Err(Refusal::Drop(reason)) => tally.drop(reason, 1),
            Err(Refusal::Fault(fault)) => return Err(fault),
        }
        Ok(())
    }

    /// Delivers any frame.
    #[inline(never)]
    fn deliver_one(
        &mut self,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        looked: &mut u32,
    ) -> Result<(), Refusal> {
        let to = frame.head().first_chunk().copied().map_or(0, number);
        let cast = cast(to);
        if !self.rules.filter.takes(to, cast) {
            return Err(Refusal::Drop(DropReason::Filtered));
        }
        self.deliver_other(frame, slices, source, cast, looked)
    }

    /// Delivers any frame that passed the address filter.
    fn deliver_other(
        &mut self,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        cast: Cast,
        looked: &mut u32,
    ) -> Result<(), Refusal> {
        let (rules, head) = (&self.rules, frame.head());
        let tag = match head.get(12..16) {
            Some([0x81, 0, high, low]) => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        };
        if tag.is_some_and(|tag| !rules.filter.takes_tag(tag)) {
            return Err(Refusal::Drop(DropReason::Filtered));
        }
        // A tag that only has a priority stays: drivers ignore a VLAN id of 0 that was taken out.
        let strip = rules.strip && tag.is_some_and(|tag| tag & 0xfff != 0);
        let layers = Layers::of(head);
        let (kind, hash) = match &layers {
            Some(layers) => {
                let kind = classify(head, frame.len() as usize, layers, &frame.offload());
                let hash = layers.ip.and_then(|ip| rules.hasher.hash(head, layers.l3.into(), &ip));
                (kind, hash)
            }
            None => (Kind { packet_type: 0, bad_ip: false, transport: Transport::Unknown }, None),
        };
        let directed = match (&rules.director, &layers) {
            (Some(director), Some(layers)) => director.look(head, layers),
            _ => None,
        };
        let hashed = hash.unwrap_or(0);
        let wanted = match directed.map_or(Destination::PassThrough, |(destination, _)| destination) {
            Destination::Drop => return Err(Refusal::Drop(DropReason::Filtered)),
            Destination::PassThrough => hash.map_or(0, |hash| rules.hasher.queue(hash)),
            Destination::Queue(queue) => usize::from(queue),
            Destination::Region { first, width } => {
                usize::from(first) + usize::try_from(hashed & ((1 << (width & 15)) - 1)).unwrap_or(0)
            }
        };
        let found = Found {
            packet_type: kind.packet_type,
            cast,
            hash,
            tag: tag.filter(|_| strip),
            mark: directed.and_then(|(_, mark)| mark),
            ..Found::default()
        };
        self.fill(wanted, frame, slices, source, &Plan { found, kind, strip }, looked)
    }

    /// Puts a frame into a ring.
    #[inline(always)]
    fn fill(
        &mut self,
        wanted: usize,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        plan: &Plan,
        looked: &mut u32,
    ) -> Result<(), Refusal> {
        let queue = match self.rings.get(wanted) {
            Some(Some(_)) => wanted,
            _ => self.lowest,
        };
        let Some(Some(ring)) = self.rings.get_mut(queue) else {
            return Err(Refusal::Drop(DropReason::NotReady));
        };
        let map = &self.map;
        if *looked & 1 << queue == 0 {
            *looked |= 1 << queue;
            ring.look(map, &self.doorbells, self.expected)?;
        }
        let result = if frame.offload().is_plain() && ring.place_one(map, frame, slices, source, plan) {
            Ok(())
        } else if frame.offload().is_plain() {
            ring.place(map, frame, slices, source, plan)
        } else {
            finish(frame, slices, source, &Accepts::default(), |piece| ring.place_piece(map, piece, plan))
        };
        if let Some(counts) = self.counts.get_mut(queue) {
            match &result {
                Ok(()) => counts.pass(plan.found.cast, frame.len()),
                Err(_) => counts.discards += 1,
            }
        }
        result
    }

    fn deliver_all(
        &mut self,
        burst: &mut Burst,
        picks: &[u8],
        tally: &mut Tally,
        looked: &mut u32,
    ) -> Result<(), Fault> {
        match burst.parts() {
            Some((frames, slices, source)) => {
                self.deliver_frames(frames, slices, source, picks, tally, looked)
            }
            // The frames of a burst without a sender's memory are private as a whole.
            None => {
                let own = Arc::clone(&self.map);
                self.deliver_frames(burst.frames(), &[], &own, picks, tally, looked)
            }
        }
    }

    fn deliver_frames(
        &mut self,
        frames: &[Frame],
        slices: &[Slice],
        source: &Map,
        picks: &[u8],
        tally: &mut Tally,
        looked: &mut u32,
    ) -> Result<(), Fault> {
        let mut left = picks;
        loop {
            let done = self.deliver_usual(frames, (slices, source), left, tally, looked)?;
            let [pick, others @ ..] = left.get(done..).unwrap_or(&[]) else { return Ok(()) };
            left = others;
            if let Some(frame) = frames.get(usize::from(*pick)) {
                self.deliver_any(frame, slices, source, tally, looked)?;
            }
        }
    }
}

impl Egress for Receive {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        if self.map.faulted() {
            return Err(Fault("a memory file of the guest was truncated while it was in use".to_owned()));
        }
        let mut looked = 0;
        self.expected = picks.len();
        let result = self.deliver_all(burst, picks, tally, &mut looked);
        while looked != 0 {
            let queue = looked.trailing_zeros() as usize;
            looked &= looked - 1;
            let Some(counts) = self.counts.get_mut(queue) else { break };
            let counts = core::mem::take(counts);
            let Some(Some(ring)) = self.rings.get_mut(queue) else { continue };
            ring.counters.settle(&counts);
            if ring.take_written() {
                tally.calls += u64::from(self.vectors.cause(Side::Receive, queue));
            }
            if picks.len() == BURST {
                ring.expect_more(&self.map);
            }
        }
        result
    }
}
