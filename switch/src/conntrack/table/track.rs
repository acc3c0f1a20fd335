//! Packets of connections that flows know: counted, checked against the windows, translated.
//!
//! ```text
//!   burst --> run of frames with one handle --> the slot's lock once --> each packet moves the connection on
//!                                                     |
//!                              what nearly none does: state changed, invalid, the last one --> `after`, without the lock
//! ```

use core::sync::atomic::Ordering;
use std::sync::Arc;

use fabnic_port::Frame;
use fabnic_wire::{Fields, FlowFlags, Offload};
use parking_lot::MutexGuard;

use super::Conntrack;
use crate::conntrack::connection::{Handle, Inner, Packet, PacketKind, Tracked};
use crate::conntrack::fragments::Datagram;
use crate::conntrack::related::{Carried, is_error};
use crate::conntrack::translate;

/// What became of packets of one flow, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrackedRun {
    /// So many, from the first on, go with the connection.
    pub(crate) valid: usize,
    /// What the one behind them was, if it does not: it was taken into account.
    pub(crate) then: Option<Tracked>,
    /// More of them in this second would do nothing but count.
    pub(crate) steady: bool,
}

impl Conntrack {
    /// Takes frames of a cached flow into account, up to the first that does not go with the connection any more. Those that
    /// are not plain (fragments, ICMP errors, marked ones) end the run without being looked at; `all_plain`: there are none.
    /// `owed` packets and bytes came before them and were not told yet.
    #[inline]
    pub(crate) fn track_run(
        &self,
        handle: Handle,
        (frames, all_plain): (&[Frame], bool),
        owed: (u64, u64),
        now: u32,
    ) -> TrackedRun {
        let none = TrackedRun { valid: 0, then: Some(Tracked::Stale), steady: false };
        let Some(slot) = self.slab.slot(handle.slot()) else { return none };
        let mut inner = slot.inner.lock();
        if !handle.is_of(inner.generation) {
            return none;
        }
        inner.credit(handle.direction(), owed);
        let (valid, seldom) = inner.run(&slot.timed, handle.direction(), (frames, all_plain), now);
        let Some((tracked, packet)) = seldom else {
            return TrackedRun { valid, then: None, steady: valid == frames.len() && inner.is_stateless() };
        };
        self.after(handle, inner, tracked, &packet, now);
        match tracked {
            Tracked::Valid { .. } => TrackedRun { valid: valid + 1, then: None, steady: false },
            _ => TrackedRun { valid, then: Some(tracked), steady: false },
        }
    }

    /// Counts packets and bytes that were not told when they came, if the connection is still there.
    pub(crate) fn credit(&self, handle: Handle, owed: (u64, u64)) {
        if let Some(slot) = self.slab.slot(handle.slot()) {
            let mut inner = slot.inner.lock();
            if handle.is_of(inner.generation) {
                inner.credit(handle.direction(), owed);
            }
        }
    }

    /// Takes a packet of a cached flow into account. `Stale` and `Last`: the connection is no more.
    #[inline]
    pub(crate) fn track(&self, handle: Handle, packet: &Packet<'_>, now: u32) -> Tracked {
        let Some(slot) = self.slab.slot(handle.slot()) else { return Tracked::Stale };
        let mut inner = slot.inner.lock();
        if !handle.is_of(inner.generation) {
            return Tracked::Stale;
        }
        let tracked = inner.packet(&slot.timed, handle.direction(), packet, now);
        if tracked == (Tracked::Valid { changed: false })
            && !slot.timed.is_misplaced()
            && packet.kind != PacketKind::FirstFragment
        {
            return tracked;
        }
        self.after(handle, inner, tracked, packet, now);
        tracked
    }

    /// What is seldom to be done after a packet.
    #[cold]
    fn after(
        &self,
        handle: Handle,
        inner: MutexGuard<'_, Inner>,
        tracked: Tracked,
        packet: &Packet<'_>,
        now: u32,
    ) {
        let Some((original, reply, zone)) =
            inner.live.as_ref().map(|live| (live.original, live.reply, Arc::clone(&live.zone)))
        else {
            return;
        };
        drop(inner);
        match tracked {
            Tracked::Stale | Tracked::Last => {
                if tracked == Tracked::Stale {
                    zone.expired.fetch_add(1, Ordering::Relaxed);
                }
                self.forget(handle);
                return;
            }
            Tracked::Invalid => {
                zone.invalid.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Tracked::Valid { changed } => {
                if changed {
                    self.changed(&original, &reply);
                }
            }
        }
        if packet.kind == PacketKind::FirstFragment
            && let Some(fields) = Fields::of(packet.head)
            && let Some(datagram) = Datagram::of(&fields.flow, packet.head, packet.l3, zone.id)
        {
            self.fragments.note(datagram, handle.get(), now);
        }
        let mut shard = self.shard(Conntrack::shard_of(self.hash(&original))).lock();
        // It may have been forgotten meanwhile, and the slot used again: then it was put where it belongs.
        let Some(slot) = self.slab.slot(handle.slot()) else { return };
        let same = {
            let inner = slot.inner.lock();
            handle.is_of(inner.generation) && inner.live.is_some()
        };
        if same && slot.timed.is_misplaced() && shard.wheel.remove(handle.slot(), &self.slab) {
            shard.wheel.add(handle.slot(), &self.slab);
        }
    }

    /// Rewrites a packet if its connection is translated. `false`: it cannot be, and must not go on as it is.
    pub(crate) fn translate(
        &self,
        handle: Handle,
        fields: &Fields,
        head: &mut [u8],
        offload: &Offload,
    ) -> bool {
        let direction = handle.direction();
        let tuples = self.slab.slot(handle.slot()).and_then(|slot| {
            let inner = slot.inner.lock();
            let live = inner.live.as_ref().filter(|_| handle.is_of(inner.generation))?;
            let (arrives, answers) = (*live.tuple(direction), *live.tuple(direction.other()));
            Some(inner.is_translated().then(|| (arrives, answers, live.translated(direction))))
        });
        // Two connections may share a plan of which one is not translated.
        let (arrives, answers, leaves) = match tuples {
            Some(Some(tuples)) => tuples,
            Some(None) => return true,
            None => return false,
        };
        let l3 = usize::from(fields.l3);
        if is_error(fields) {
            let zone = arrives.zone;
            let Some(carried) = Carried::of(fields, head, zone) else { return false };
            let keep_source = arrives.src == leaves.src;
            return translate::translate_error(head, l3, &carried, &answers, &leaves, keep_source, offload);
        }
        translate::translate(head, l3, fields.flow.flags.has(FlowFlags::LATER), offload, &leaves)
    }
}
