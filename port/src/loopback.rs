//! A port that gives back what it gets: for tests and for measuring the switch alone.
//!
//! Frames are copied into a store of their own, of a fixed number of places, and come back in the order in which they
//! were delivered, with what was left to be done on them.
//!
//! ```text
//!   deliver --copy--> |place|place|place|  --receive--> Burst ... complete: places are free again
//! ```

use core::any::type_name;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_memory::{Cursor, Hint, Map, MapError, Slice};
use fabnic_wire::Offload;
use parking_lot::Mutex;
use rustix::event::EventfdFlags;

use crate::{Burst, DropReason, Egress, Fault, Ingress, MAX_FRAME, Port, Tally};

/// Bytes from one place to the next. Pages that no frame reached are never touched.
const PLACE: u64 = (MAX_FRAME as u64).next_multiple_of(4096);
/// The most places of a store.
pub const MAX_LOOPBACK: usize = 4096;

/// What lies in a place.
#[derive(Clone, Copy, Debug)]
struct Stored {
    place: u32,
    len: u32,
    offload: Offload,
}

#[derive(Debug)]
struct Store {
    free: Vec<u32>,
    waiting: VecDeque<Stored>,
    /// Received and not completed.
    lent: Vec<u32>,
    /// Somebody sleeps until something comes.
    armed: bool,
}

#[derive(Debug)]
struct Loop {
    map: Arc<Map>,
    store: Mutex<Store>,
    wake: OwnedFd,
}

/// The side that the switch receives from.
#[derive(Debug)]
pub struct LoopbackIngress(Arc<Loop>, Hint);

/// The side that the switch delivers to.
#[derive(Debug)]
pub struct LoopbackEgress(Arc<Loop>, Hint);

/// A loop with room for `depth` frames, at least one and at most [`MAX_LOOPBACK`].
///
/// # Errors
/// There is no memory, or no descriptor.
pub fn loopback(depth: usize) -> Result<(LoopbackIngress, LoopbackEgress), MapError> {
    let depth = u32::try_from(depth.clamp(1, MAX_LOOPBACK)).unwrap_or(1);
    let len = u64::from(depth) * PLACE;
    let (map, _) = Map::anonymous(len)?;
    let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|source| MapError::Kernel { guest_addr: 0, len, source })?;
    let store = Store {
        free: (0..depth).rev().collect(),
        waiting: VecDeque::with_capacity(depth as usize),
        lent: Vec::with_capacity(depth as usize),
        armed: false,
    };
    let shared = Arc::new(Loop { map, store: Mutex::new(store), wake });
    Ok((LoopbackIngress(Arc::clone(&shared), Hint::default()), LoopbackEgress(shared, Hint::default())))
}

/// Puts a loop of its own, `depth` frames deep, into each pair of the port's cells.
///
/// # Errors
/// There is no memory, or no descriptor.
pub fn attach_loopback(port: &Port, depth: usize) -> Result<(), MapError> {
    for (from, to) in port.ingress().iter().zip(port.egress()) {
        let (ingress, egress) = loopback(depth)?;
        to.install(Box::new(egress));
        from.install(Box::new(ingress));
    }
    port.refresh_egress();
    Ok(())
}

impl Loop {
    fn slice(&self, place: u32, len: u32, hint: &mut Hint) -> Slice {
        self.map.translate(u64::from(place) * PLACE, len, hint).unwrap_or(Slice::EMPTY)
    }

    /// Copies a frame to a place; `false` if the sender's memory does not hold all of it.
    fn store(&self, burst: &Burst, index: usize, to: Slice) -> bool {
        let Some(frame) = burst.frames().get(index) else { return false };
        let head = frame.head();
        if self.map.write(&to, 0, head) != head.len() {
            return false;
        }
        let rest = frame.rest_len();
        if rest == 0 {
            return true;
        }
        let Some(source) = burst.source() else { return false };
        let room = [to.part(frame.len() - rest, rest)];
        Cursor::new(&room).copy_from(&self.map, source, &mut frame.rest(burst.slices()), rest) == rest
    }
}

impl Ingress for LoopbackIngress {
    fn backlog(&mut self) -> usize {
        self.0.store.lock().waiting.len()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        let LoopbackIngress(shared, hint) = self;
        burst.begin(&shared.map);
        let mut store = shared.store.lock();
        while burst.room() > 0
            && let Some(stored) = store.waiting.pop_front()
        {
            store.lent.push(stored.place);
            let first = burst.slices().len();
            burst.slices_mut().push(shared.slice(stored.place, stored.len, hint));
            if let Some(frame) = burst.push(first, 1, 0, stored.len) {
                frame.set_offload(stored.offload);
            }
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        let mut store = self.0.store.lock();
        let Store { free, lent, .. } = &mut *store;
        free.append(lent);
        0
    }

    fn arm(&mut self) -> bool {
        let mut store = self.0.store.lock();
        store.armed = store.waiting.is_empty();
        !store.armed
    }

    fn disarm(&mut self) {
        self.0.store.lock().armed = false;
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.wake.as_fd())
    }
}

impl Egress for LoopbackEgress {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        let LoopbackEgress(shared, hint) = self;
        let mut store = shared.store.lock();
        for pick in picks {
            let index = usize::from(*pick);
            let Some(frame) = burst.frames().get(index) else {
                tally.drop(DropReason::Refused, 1);
                continue;
            };
            let (len, offload) = (frame.len(), frame.offload());
            if len > MAX_FRAME {
                tally.drop(DropReason::Oversize, 1);
                continue;
            }
            let Some(place) = store.free.pop() else {
                tally.drop(DropReason::RingFull, 1);
                continue;
            };
            if shared.store(burst, index, shared.slice(place, len, hint)) {
                store.waiting.push_back(Stored { place, len, offload });
                tally.deliver(len);
            } else {
                store.free.push(place);
                tally.drop(DropReason::Refused, 1);
            }
        }
        let kick = store.armed && !store.waiting.is_empty();
        if kick {
            store.armed = false;
            drop(store);
            // The counter cannot run full: it would take 2^64 wake-ups.
            rustix::io::write(&shared.wake, &1_u64.to_ne_bytes())
                .map_err(|errno| Fault(format!("{}: wake-up: {errno}", type_name::<Self>())))?;
            tally.calls += 1;
        }
        Ok(())
    }
}
