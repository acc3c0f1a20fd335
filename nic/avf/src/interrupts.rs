//! The interrupt block: vectors, what each is for, and the causes of vector 0.
//!
//! Shared by the register side, which one transport thread drives, and the queues, which workers drive. A cause that
//! meets a vector which is not enabled is kept (see [`Vector`]). WB_ON_ITR asks to write back without interrupting: this
//! device always writes back at once, so it is enough not to interrupt.
//!
//! # Intervals
//!
//! A driver that enables a vector while something is pending is under load: it would be interrupted again at once. There
//! the interval (ITR) counts: such an interrupt is held until that much time has passed since the last one which the
//! register side sent. It knows the time, from its transport; queues do not, and send what meets an idle driver at once.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::Arc;

use fabnic_avf_spec::registers::{ITRN, VECTORS, dyn_ctl, icr};
use fabnic_pci::Interrupts;
use parking_lot::RwLock;

use crate::doorbell::Doorbells;
use crate::queues::MAX_QUEUES;
use crate::vector::{Enabled, Vector};

/// A queue without a vector.
const UNMAPPED: u8 = u8::MAX;

/// Which of a pair's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Receive,
    Transmit,
}

/// All vectors of a function.
pub(crate) struct Vectors {
    vectors: [Vector; VECTORS as usize],
    /// Vectors of receive and of transmit queues.
    receive: [AtomicU8; MAX_QUEUES],
    transmit: [AtomicU8; MAX_QUEUES],
    icr01: AtomicU32,
    icr0_ena1: AtomicU32,
    /// Where intervals are kept.
    doorbells: Arc<Doorbells>,
    /// Taken for each interrupt that is sent: once a burst at the most.
    sink: RwLock<Option<Arc<dyn Interrupts>>>,
}

impl core::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Vectors").field("vectors", &self.vectors).finish_non_exhaustive()
    }
}

impl Vectors {
    pub(crate) fn new(doorbells: Arc<Doorbells>) -> Vectors {
        Vectors {
            vectors: core::array::from_fn(|_| Vector::new()),
            receive: [const { AtomicU8::new(UNMAPPED) }; MAX_QUEUES],
            transmit: [const { AtomicU8::new(UNMAPPED) }; MAX_QUEUES],
            icr01: AtomicU32::new(0),
            icr0_ena1: AtomicU32::new(0),
            doorbells,
            sink: RwLock::new(None),
        }
    }

    /// How to interrupt from now on.
    pub(crate) fn attach(&self, sink: Option<Arc<dyn Interrupts>>) {
        *self.sink.write() = sink;
    }

    /// Nothing enabled, nothing pending, no queue has a vector.
    pub(crate) fn reset(&self) {
        self.vectors.iter().for_each(Vector::reset);
        for vector in self.receive.iter().chain(&self.transmit) {
            vector.store(UNMAPPED, Ordering::Relaxed);
        }
        self.icr01.store(0, Ordering::Relaxed);
        self.icr0_ena1.store(0, Ordering::Relaxed);
    }

    fn of(&self, side: Side) -> &[AtomicU8; MAX_QUEUES] {
        match side {
            Side::Receive => &self.receive,
            Side::Transmit => &self.transmit,
        }
    }

    /// Gives a queue its vector.
    pub(crate) fn map(&self, side: Side, queue: usize, vector: u16) {
        if let (Some(place), Ok(vector)) = (self.of(side).get(queue), u8::try_from(vector)) {
            place.store(vector, Ordering::Relaxed);
        }
    }

    /// The queues of one side, one a bit, that have this vector.
    pub(crate) fn queues(&self, side: Side, vector: u16) -> u32 {
        let places = self.of(side).iter().enumerate();
        places.fold(0, |mask, (queue, place)| {
            mask | u32::from(u16::from(place.load(Ordering::Relaxed)) == vector) << queue
        })
    }

    /// Whether the driver waits for this vector, and nothing happened that it is to be told.
    pub(crate) fn is_waiting(&self, vector: u16) -> bool {
        self.vectors.get(usize::from(vector)).is_some_and(Vector::is_waiting)
    }

    /// A queue wrote something back. Gives the number of interrupts sent.
    #[inline]
    pub(crate) fn cause(&self, side: Side, queue: usize) -> u32 {
        let vector = self.of(side).get(queue).map_or(UNMAPPED, |vector| vector.load(Ordering::Relaxed));
        if vector == 0 {
            self.icr01.fetch_or(icr::QUEUE_0, Ordering::Release);
        }
        self.raise(vector.into())
    }

    /// The mailbox has a message, or the link changed.
    pub(crate) fn cause_other(&self, bits: u32) {
        self.icr01.fetch_or(bits, Ordering::Release);
        if self.icr0_ena1.load(Ordering::Relaxed) & bits != 0 {
            self.raise(0);
        }
    }

    #[inline]
    fn raise(&self, vector: u16) -> u32 {
        let Some(state) = self.vectors.get(usize::from(vector)) else { return 0 };
        if state.cause() { self.send(vector) } else { 0 }
    }

    #[inline(never)]
    fn send(&self, vector: u16) -> u32 {
        match &*self.sink.read() {
            Some(sink) => {
                sink.msix(vector);
                1
            }
            None => 0,
        }
    }

    /// The driver writes the control register of a vector.
    pub(crate) fn write_control(&self, vector: u16, value: u32, pauses: &mut Pauses) {
        let Some(state) = self.vectors.get(usize::from(vector)) else { return };
        let (index, interval) = dyn_ctl::itr(value);
        if let Some(place) = itr_register(index, vector).filter(|_| index != dyn_ctl::ITR_NONE) {
            self.doorbells.write(place, interval.into());
        }
        if value & dyn_ctl::INTENA_MSK != 0 || value & dyn_ctl::INTENA == 0 {
            if value & dyn_ctl::INTENA_MSK == 0 {
                state.disable();
            }
            if value & dyn_ctl::SWINT_TRIG != 0 && state.cause() {
                self.send(vector);
            }
            return;
        }
        // A trigger makes a cause first, so that one write can both enable and send. It is obeyed at once.
        let trigger = value & dyn_ctl::SWINT_TRIG != 0;
        if trigger && state.cause() {
            self.send(vector);
        }
        let until = pauses.until(vector, self.interval(vector)).filter(|_| !trigger);
        match state.enable(until.is_some()) {
            Enabled::Waiting => {}
            Enabled::Send => {
                pauses.sent(vector);
                self.send(vector);
            }
            Enabled::Held => pauses.hold(vector, until),
        }
    }

    /// The pause of a vector, in nanoseconds: that of receive queues, which drivers make the shorter one.
    fn interval(&self, vector: u16) -> u64 {
        itr_register(0, vector).map_or(0, |place| u64::from(self.doorbells.read(place) & 0xfff) * 2000)
    }

    /// Sends what was held until now.
    pub(crate) fn release(&self, pauses: &mut Pauses) {
        while let Some(vector) = pauses.take_due() {
            if self.vectors.get(usize::from(vector)).is_some_and(Vector::release) {
                pauses.sent(vector);
                self.send(vector);
            }
        }
    }

    /// What the driver reads of it.
    pub(crate) fn read_control(&self, vector: u16) -> u32 {
        let enabled = self.vectors.get(usize::from(vector)).is_some_and(Vector::is_enabled);
        if enabled { dyn_ctl::INTENA } else { 0 }
    }

    /// Reads and clears the causes of vector 0.
    pub(crate) fn take_causes(&self) -> u32 {
        self.icr01.swap(0, Ordering::AcqRel)
    }

    /// Reads which causes interrupt.
    pub(crate) fn enabled_causes(&self) -> u32 {
        self.icr0_ena1.load(Ordering::Relaxed)
    }

    /// Says which causes interrupt. One that is there already does so now.
    pub(crate) fn enable_causes(&self, bits: u32) {
        self.icr0_ena1.store(bits, Ordering::Relaxed);
        if self.icr01.load(Ordering::Relaxed) & bits & (icr::ADMINQ | icr::LINK) != 0 {
            self.raise(0);
        }
    }
}

/// ITRN\[index\] of a vector of queues.
fn itr_register(index: u32, vector: u16) -> Option<u64> {
    let at = u64::from(vector.checked_sub(1)?);
    (at < 16).then_some(ITRN + 0x40 * u64::from(index) + 4 * at)
}

/// What the register side knows of time: for each vector, when it sent an interrupt last, and until when one is held.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    now: u64,
    sent: [Option<u64>; VECTORS as usize],
    held: [Option<u64>; VECTORS as usize],
}

impl Pauses {
    /// It is `now`, in nanoseconds of the transport's clock.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Until when an interrupt must wait, if it must.
    fn until(&self, vector: u16, interval: u64) -> Option<u64> {
        let sent = (*self.sent.get(usize::from(vector))?)?;
        Some(sent.saturating_add(interval)).filter(|until| *until > self.now)
    }

    fn sent(&mut self, vector: u16) {
        if let Some(sent) = self.sent.get_mut(usize::from(vector)) {
            *sent = Some(self.now);
        }
    }

    fn hold(&mut self, vector: u16, until: Option<u64>) {
        if let Some(held) = self.held.get_mut(usize::from(vector)) {
            *held = until;
        }
    }

    /// When the next pause is over.
    pub(crate) fn next(&self) -> Option<u64> {
        self.held.iter().copied().flatten().min()
    }

    fn take_due(&mut self) -> Option<u16> {
        let now = self.now;
        let at = self.held.iter().position(|until| until.is_some_and(|until| until <= now))?;
        *self.held.get_mut(at)? = None;
        u16::try_from(at).ok()
    }

    /// Nothing was sent and nothing is held.
    pub(crate) fn reset(&mut self) {
        *self = Pauses { now: self.now, ..Pauses::default() };
    }
}
