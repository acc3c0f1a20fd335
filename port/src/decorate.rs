//! Queues around queues: faults injected on purpose.
//!
//! A decorator is itself an [`Ingress`] or [`Egress`], so it can be put into any cell. What it does is decided by a seed,
//! so that a test that failed fails again.
//!
//! ```text
//!   cell --> Faulty<TapEgress> --> TapEgress
//!            loses, reorders, is full, breaks
//! ```

use std::os::fd::BorrowedFd;

use crate::{BURST, Burst, DropReason, Egress, Fault, Ingress, Tally};

/// How often what goes wrong. Chances are out of 65,536 and taken for each frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// A frame is lost: it is counted as `Injected`.
    pub lose: u16,
    /// A frame changes places with the next one of its burst. Egress only: the order of a received burst is its slots'.
    pub reorder: u16,
    /// A frame meets a full ring: it is counted as `RingFull`. Egress only.
    pub full: u16,
    /// One bit of a frame's first bytes is turned, behind the Ethernet header. Ingress only: an egress queue leaves
    /// frames as they are.
    pub corrupt: u16,
    /// The queue breaks for good after so many frames.
    pub break_after: Option<u64>,
}

/// A queue that goes wrong as it was told to.
#[derive(Debug)]
pub struct Faulty<Q> {
    queue: Q,
    mishaps: Mishaps,
    random: u64,
    frames: u64,
}

impl<Q> Faulty<Q> {
    /// Puts the mishaps around a queue. The same seed and the same frames give the same mishaps.
    pub fn new(queue: Q, mishaps: Mishaps, seed: u64) -> Faulty<Q> {
        // Xorshift knows no zero.
        Faulty { queue, mishaps, random: seed | 1 << 63, frames: 0 }
    }

    /// The queue inside.
    pub fn into_inner(self) -> Q {
        self.queue
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn happens(&mut self, chance: u16) -> bool {
        chance > 0 && self.random() >> 48 < u64::from(chance)
    }

    /// Counts frames; the fault when the queue's time is over.
    fn wear(&mut self, frames: usize) -> Result<(), Fault> {
        self.frames = self.frames.saturating_add(frames as u64);
        match self.mishaps.break_after {
            Some(last) if self.frames > last => {
                Err(Fault(format!("broken on purpose after {last} frames, as it was told to")))
            }
            _ => Ok(()),
        }
    }
}

impl<Q: Ingress> Ingress for Faulty<Q> {
    fn backlog(&mut self) -> usize {
        self.queue.backlog()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        self.queue.receive(burst)?;
        self.wear(burst.len())?;
        for index in 0..burst.len() {
            let lost = self.happens(self.mishaps.lose);
            let corrupt = self.happens(self.mishaps.corrupt).then(|| self.random());
            let Some(frame) = burst.frames_mut().get_mut(index) else { break };
            if lost && frame.marked().is_none() {
                frame.mark(DropReason::Injected);
            }
            let payload = frame.head_mut().get_mut(14..).unwrap_or(&mut []);
            if let Some(bit) = corrupt
                && let Some(place) = (bit as usize >> 3).checked_rem(payload.len())
                && let Some(byte) = payload.get_mut(place)
            {
                *byte ^= 1 << (bit & 7);
            }
        }
        Ok(())
    }

    fn complete(&mut self, burst: &Burst) -> u32 {
        self.queue.complete(burst)
    }

    fn arm(&mut self) -> bool {
        self.queue.arm()
    }

    fn disarm(&mut self) {
        self.queue.disarm();
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.queue.wake()
    }
}

impl<Q: Egress> Egress for Faulty<Q> {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        if let Err(fault) = self.wear(picks.len()) {
            tally.drop(DropReason::Stopped, picks.len());
            return Err(fault);
        }
        for picks in picks.chunks(BURST) {
            let (mut left, mut count) = ([0_u8; BURST], 0);
            for pick in picks {
                if self.happens(self.mishaps.lose) {
                    tally.drop(DropReason::Injected, 1);
                } else if self.happens(self.mishaps.full) {
                    tally.drop(DropReason::RingFull, 1);
                } else if let Some(place) = left.get_mut(count) {
                    *place = *pick;
                    count += 1;
                }
            }
            let left = left.get_mut(..count).unwrap_or(&mut []);
            for at in 1..left.len() {
                if self.happens(self.mishaps.reorder) {
                    left.swap(at - 1, at);
                }
            }
            if !left.is_empty() {
                self.queue.deliver(burst, left, tally)?;
            }
        }
        Ok(())
    }

    fn in_use(&mut self) -> bool {
        self.queue.in_use()
    }
}

#[cfg(test)]
mod tests {
    use super::{Faulty, Mishaps};
    use crate::{BURST, Burst, DropReason, Egress, Ingress, Tally, loopback};

    /// Sends 64 bursts of numbered frames through a loopback with these mishaps on its way out; gives the numbers that
    /// come back, and the tally.
    fn numbers_through(mishaps: Mishaps, seed: u64) -> (Vec<u8>, Tally) {
        let (mut ingress, egress) = loopback(BURST).unwrap();
        let mut egress = Faulty::new(egress, mishaps, seed);
        let (mut burst, mut back, mut tally, mut got) =
            (Burst::new(), Burst::new(), Tally::default(), vec![]);
        let picks: Vec<u8> = (0..BURST as u8).collect();
        for _ in 0..64 {
            burst.release();
            picks.iter().for_each(|number| assert!(burst.push_bytes(&[*number; 60]).is_some()));
            egress.deliver(&mut burst, &picks, &mut tally).unwrap();
            ingress.receive(&mut back).unwrap();
            got.extend(back.frames().iter().map(|frame| frame.head()[0]));
            ingress.complete(&back);
        }
        assert_eq!(tally.frames + tally.dropped(), 64 * BURST as u64);
        assert_eq!(tally.frames, got.len() as u64);
        (got, tally)
    }

    #[test]
    fn without_mishaps_nothing_happens() {
        let (got, tally) = numbers_through(Mishaps::default(), 1);
        assert_eq!(tally.dropped(), 0);
        assert!(got.iter().enumerate().all(|(i, n)| i % BURST == usize::from(*n)));
    }

    #[test]
    fn losses_are_counted_and_the_same_again_with_the_same_seed() {
        let mishaps = Mishaps { lose: 16_384, full: 8192, ..Mishaps::default() };
        let (got, tally) = numbers_through(mishaps, 7);
        assert_eq!(numbers_through(mishaps, 7).0, got);
        assert_ne!(numbers_through(mishaps, 8).0, got);
        // A quarter, and an eighth of the rest.
        assert!((900..1150).contains(&tally.dropped_for(DropReason::Injected)), "{tally:?}");
        assert!((300..470).contains(&tally.dropped_for(DropReason::RingFull)), "{tally:?}");
    }

    #[test]
    fn reordering_loses_nothing() {
        let (mut got, tally) = numbers_through(Mishaps { reorder: 8192, ..Mishaps::default() }, 3);
        assert_eq!(tally.dropped(), 0);
        assert!(!got.iter().enumerate().all(|(i, n)| i % BURST == usize::from(*n)), "nothing was reordered");
        got.sort_unstable();
        assert!(got.iter().enumerate().all(|(i, n)| i / 64 == usize::from(*n)));
    }

    #[test]
    fn what_is_received_is_marked_or_corrupt() {
        let (ingress, mut egress) = loopback(BURST).unwrap();
        let mishaps = Mishaps { lose: 16_384, corrupt: 16_384, ..Mishaps::default() };
        let mut ingress = Faulty::new(ingress, mishaps, 5);
        let (mut burst, mut tally, mut lost, mut corrupt) = (Burst::new(), Tally::default(), 0, 0);
        for _ in 0..64 {
            burst.release();
            (0..BURST).for_each(|_| assert!(burst.push_bytes(&[0; 60]).is_some()));
            let picks: Vec<u8> = (0..BURST as u8).collect();
            egress.deliver(&mut burst, &picks, &mut tally).unwrap();
            ingress.receive(&mut burst).unwrap();
            for frame in burst.frames() {
                lost += usize::from(frame.marked() == Some(DropReason::Injected));
                let bits: u32 = frame.head().iter().map(|byte| byte.count_ones()).sum();
                assert!(bits <= 1 && frame.head()[..14] == [0; 14]);
                corrupt += bits;
            }
            ingress.complete(&burst);
        }
        assert!((900..1150).contains(&lost), "{lost}");
        assert!((900..1150).contains(&corrupt), "{corrupt}");
    }

    #[test]
    fn a_queue_breaks_when_it_was_told_to() {
        let (ingress, egress) = loopback(BURST).unwrap();
        let mishaps = Mishaps { break_after: Some(10), ..Mishaps::default() };
        let (mut ingress, mut egress) = (Faulty::new(ingress, mishaps, 1), Faulty::new(egress, mishaps, 1));
        let mut burst = Burst::new();
        burst.push_bytes(&[0; 60]).unwrap();
        let mut tally = Tally::default();
        egress.deliver(&mut burst, &[0; 10], &mut tally).unwrap();
        let fault = egress.deliver(&mut burst, &[0; 3], &mut tally).unwrap_err();
        assert!(fault.0.contains("after 10 frames"), "{fault}");
        assert_eq!((tally.frames, tally.dropped_for(DropReason::Stopped)), (10, 3));
        ingress.receive(&mut burst).unwrap();
        ingress.complete(&burst);
        egress.into_inner().deliver(&mut burst, &[0], &mut tally).unwrap();
        ingress.receive(&mut burst).unwrap_err();
    }
}
