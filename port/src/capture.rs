//! Looking at what passes a port: the worker's side of a capture.
//!
//! A port has one [`CaptureSlot`]. While nobody captures, it costs the worker one load a burst. While somebody does, the
//! worker offers each frame with what became of it:
//!
//! ```text
//!   receive -> decide --offer(In, forwarded | flooded | dropped)--> rewrite -> deliver one by one --offer(Out, ...)
//!                        |                                                       |
//!                        +-----------------> CaptureSlot --> CaptureSink <-------+
//! ```
//!
//! A frame that comes in is offered after the decision and before it is rewritten, so that the capture shows what the
//! sender sent. A frame that goes out is offered as the receiver gets it; [`CaptureSlot::deliver`] does that.
//!
//! A sink never blocks: what it cannot take at once it counts as lost.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{Burst, DropReason, Egress, Fault, Tally};

/// Which way a frame goes, seen from the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the port into the switch.
    In,
    /// From the switch to the port.
    Out,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It came in and was forwarded to the port of this name.
    Forwarded(&'a str),
    /// It came in and was sent to so many ports.
    Flooded(u32),
    /// It went out and was taken.
    Delivered,
    /// It ended here.
    Dropped(DropReason),
}

impl core::fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Verdict::Forwarded(port) => write!(f, "forwarded to {port}"),
            Verdict::Flooded(1) => f.write_str("flooded to 1 port"),
            Verdict::Flooded(ports) => write!(f, "flooded to {ports} ports"),
            Verdict::Delivered => f.write_str("delivered"),
            Verdict::Dropped(reason) => write!(f, "dropped: {reason}"),
        }
    }
}

/// Where captured frames go. Called by workers, several at a time: it must neither block nor allocate.
pub trait CaptureSink: Send + Sync {
    /// `false` when the capture is over; the sink may then be taken off its port.
    fn is_active(&self) -> bool;

    /// Takes a copy of a frame of the burst, or counts it as lost.
    fn offer(&self, burst: &Burst, index: usize, direction: Direction, verdict: Verdict<'_>);
}

/// The captures of one port.
#[derive(Default)]
pub struct CaptureSlot {
    is_active: AtomicBool,
    sinks: ArcSwap<Vec<Arc<dyn CaptureSink>>>,
}

impl core::fmt::Debug for CaptureSlot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CaptureSlot").field("is_active", &self.is_active).finish_non_exhaustive()
    }
}

impl CaptureSlot {
    /// Whether somebody captures: to be asked before anything else here.
    #[inline(always)]
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    /// Offers a frame to everybody who captures.
    #[cold]
    pub fn offer(&self, burst: &Burst, index: usize, direction: Direction, verdict: Verdict<'_>) {
        for sink in self.sinks.load().iter() {
            if sink.is_active() {
                sink.offer(burst, index, direction, verdict);
            }
        }
    }

    /// As [`Egress::deliver`], frame by frame, and offers each with what became of it. For a port that is captured, in
    /// place of `deliver`.
    ///
    /// # Errors
    /// The queue's fault. The frame that met it and those behind it are counted as `Stopped` if the queue did not count
    /// them, so that the tally is complete.
    #[cold]
    pub fn deliver(
        &self,
        queue: &mut dyn Egress,
        burst: &mut Burst,
        picks: &[u8],
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        for (done, pick) in picks.iter().enumerate() {
            let mut one = Tally::default();
            let result = queue.deliver(burst, core::slice::from_ref(pick), &mut one);
            if one.frames == 0 && one.dropped() == 0 {
                one.drop(DropReason::Stopped, 1);
            }
            let reason = DropReason::ALL.iter().copied().find(|reason| one.dropped_for(*reason) > 0);
            let verdict = reason.map_or(Verdict::Delivered, Verdict::Dropped);
            self.offer(burst, usize::from(*pick), Direction::Out, verdict);
            tally.frames += one.frames;
            tally.bytes += one.bytes;
            tally.calls += one.calls;
            if let Some(reason) = reason {
                tally.drop(reason, 1);
            }
            if let Err(fault) = result {
                tally.drop(DropReason::Stopped, picks.len() - done - 1);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Begins to offer to `sink`, and forgets sinks whose capture is over.
    pub fn add(&self, sink: Arc<dyn CaptureSink>) {
        self.change(|sinks| sinks.push(Arc::clone(&sink)));
    }

    /// Forgets the sinks whose capture is over.
    pub fn prune(&self) {
        self.change(|_| ());
    }

    fn change(&self, change: impl Fn(&mut Vec<Arc<dyn CaptureSink>>)) {
        self.sinks.rcu(|old| {
            let mut sinks = Vec::clone(old);
            change(&mut sinks);
            sinks.retain(|sink| sink.is_active());
            sinks
        });
        // Two changes at once may store in any order; the later load sees what both made.
        self.is_active.store(!self.sinks.load().is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicBool, Ordering};
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::{CaptureSink, CaptureSlot, Direction, Verdict};
    use crate::{Burst, DropReason, Egress, Fault, Tally};

    #[derive(Default)]
    struct Notes {
        over: AtomicBool,
        notes: Mutex<Vec<(usize, Direction, String)>>,
    }

    impl CaptureSink for Notes {
        fn is_active(&self) -> bool {
            !self.over.load(Ordering::Relaxed)
        }
        fn offer(&self, _: &Burst, index: usize, direction: Direction, verdict: Verdict<'_>) {
            self.notes.lock().push((index, direction, verdict.to_string()));
        }
    }

    /// Takes frames with an even index, is full for odd ones, and breaks at 6.
    struct Odd;

    impl Egress for Odd {
        fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
            for pick in picks {
                match pick {
                    6 => return Err(Fault("six".to_owned())),
                    n if n % 2 == 0 => tally.deliver(burst.frames()[usize::from(*n)].len()),
                    _ => tally.drop(DropReason::RingFull, 1),
                }
            }
            Ok(())
        }
    }

    fn burst() -> Burst {
        let mut burst = Burst::new();
        for len in 14..24 {
            burst.push_bytes(&vec![0; len]).unwrap();
        }
        burst
    }

    #[test]
    fn each_frame_is_offered_with_its_own_verdict() {
        let slot = CaptureSlot::default();
        assert!(!slot.is_active());
        let notes = Arc::new(Notes::default());
        slot.add(notes.clone());
        assert!(slot.is_active());
        let mut tally = Tally::default();
        slot.deliver(&mut Odd, &mut burst(), &[0, 3, 2], &mut tally).unwrap();
        assert_eq!((tally.frames, tally.bytes), (2, 14 + 16));
        assert_eq!(tally.dropped_for(DropReason::RingFull), 1);
        let expected = [(0, "delivered"), (3, "dropped: ring_full"), (2, "delivered")];
        let got = core::mem::take(&mut *notes.notes.lock());
        for ((index, verdict), got) in expected.iter().zip(&got) {
            assert_eq!((index, Direction::Out, *verdict), (&got.0, got.1, got.2.as_str()));
        }
        assert_eq!(got.len(), 3);
    }

    #[test]
    fn a_fault_leaves_the_tally_complete() {
        let slot = CaptureSlot::default();
        let mut tally = Tally::default();
        slot.deliver(&mut Odd, &mut burst(), &[0, 6, 2, 4], &mut tally).unwrap_err();
        assert_eq!(tally.frames + tally.dropped(), 4);
        assert_eq!(tally.dropped_for(DropReason::Stopped), 3);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let slot = CaptureSlot::default();
        let (first, second) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
        slot.add(first.clone());
        slot.add(second.clone());
        first.over.store(true, Ordering::Relaxed);
        slot.offer(&burst(), 1, Direction::In, Verdict::Flooded(3));
        assert!(first.notes.lock().is_empty());
        assert_eq!(*second.notes.lock(), [(1, Direction::In, "flooded to 3 ports".to_owned())]);
        slot.prune();
        assert!(slot.is_active());
        assert_eq!(Arc::strong_count(&first), 1);
        second.over.store(true, Ordering::Relaxed);
        slot.prune();
        assert!(!slot.is_active());
    }
}
