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
use fabnic_port::{Burst, DropReason, Egress, Fault, Frame, Tally};
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
use crate::usual::{self, FlowCache};

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
        old
    }

    /// Whether there is no ring.
    pub(crate) fn is_empty(&self) -> bool {
        self.rings.iter().all(Option::is_none)
    }

    /// Delivers one frame, the usual one by the short way. `looked` has a bit for each ring whose tail was looked at in this burst.
    fn deliver_one(
        &mut self,
        frame: &Frame,
        slices: &[Slice],
        source: &Map,
        looked: &mut u32,
    ) -> Result<(), Refusal> {
        let head = frame.head();
        let to = head.first_chunk().copied().map_or(0, number);
        let cast = cast(to);
        let rules = &mut self.rules;
        if !rules.filter.takes(to, cast) {
            return Err(Refusal::Drop(DropReason::Filtered));
        }
        let len = frame.len() as usize;
        let is_plain = frame.offload().is_plain();
        if is_plain
            && rules.director.is_none()
            && let Some((kind, hash)) =
                usual::look(head, len, frame.offload().flags, &rules.hasher, &mut rules.flows)
        {
            let found = Found { packet_type: kind.packet_type, cast, hash: Some(hash), ..Found::default() };
            let wanted = rules.hasher.queue(hash);
            return self.fill(wanted, frame, slices, source, &Plan { found, kind, strip: false }, looked);
        }
        self.deliver_other(frame, slices, source, cast, looked)
    }

    /// Delivers any frame that passed the address filter.
    #[inline(never)]
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
            ring.look(&self.doorbells)?;
        }
        let result = if ring.place_usual(map, frame, slices, source, plan) {
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
        let own = Arc::clone(&self.map);
        for pick in picks {
            let index = usize::from(*pick);
            let result = match (burst.frames().get(index), burst.source()) {
                (Some(frame), Some(source)) => self.deliver_one(frame, burst.slices(), source, looked),
                // The frames of a burst without a sender's memory are private as a whole.
                (Some(frame), None) => self.deliver_one(frame, &[], &own, looked),
                (None, _) => continue,
            };
            match result {
                Ok(()) => tally.deliver(burst.frames().get(index).map_or(0, Frame::len)),
                Err(Refusal::Drop(reason)) => tally.drop(reason, 1),
                Err(Refusal::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}

impl Egress for Receive {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        if self.map.faulted() {
            return Err(Fault("a memory file of the guest was truncated while it was in use".to_owned()));
        }
        let mut looked = 0;
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
        }
        result
    }
}
