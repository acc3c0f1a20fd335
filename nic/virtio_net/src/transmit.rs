//! The queue that a guest transmits on.
//!
//! A burst goes like this: the ring gives chains and their buffers, most of them one burst ahead, so that their first lines
//! have come by the time they are needed; each becomes a frame, whose header and first bytes
//! are copied to private memory (their lines were asked for when the chain was taken, so the copies run one behind the
//! other without waiting); the rest stays where it is. When the switch is done, [`Ingress::complete`] gives all chains
//! back at once.
//!
//! What a guest sends is judged on the private bytes. A frame that must not go on stays in the burst with its reason, so
//! that it is counted and its chain is given back as any other.

use std::os::fd::BorrowedFd;

use fabnic_memory::Slice;
use fabnic_port::{BURST, Burst, DropReason, Fault, Filler, Frame, Ingress, MAX_FRAME};
use fabnic_virtqueue::{Chain, Ring};
use fabnic_wire::Offload;
use fabnic_wire::offload::{GSO_NONE, HEADER_LEN, NEEDS_CSUM};

use crate::Features;
use crate::queue::{Queue, QueueSetup};

/// Bytes of an Ethernet header: a shorter frame has nothing to decide on.
const SHORTEST: u32 = 14;

/// A guest's transmit ring, from which the switch receives.
#[derive(Debug)]
pub struct Transmit<R: Ring> {
    pub(crate) queue: Queue<R>,
    /// The chains of the burst in flight, in its order.
    chains: Vec<Chain>,
    /// Those of the burst after it, as far as they were taken ahead, and their slices.
    ahead: (Vec<Chain>, Vec<Slice>),
}

impl<R: Ring> Transmit<R> {
    /// Opens the ring.
    ///
    /// # Errors
    /// The ring is not what the layout demands, or not in the guest's memory.
    pub fn open(setup: QueueSetup) -> Result<Transmit<R>, Fault> {
        Ok(Transmit {
            queue: Queue::open(setup)?,
            chains: Vec::with_capacity(BURST),
            ahead: (Vec::with_capacity(BURST), Vec::with_capacity(BURST)),
        })
    }

    /// Gives back what was taken ahead: before anything about the queue changes, and before its position is told.
    pub(crate) fn give_back(&mut self) {
        let (chains, slices) = &mut self.ahead;
        self.queue.ring.give_back(chains);
        chains.clear();
        slices.clear();
    }
}

impl<R: Ring> Ingress for Transmit<R> {
    #[inline]
    fn backlog(&mut self) -> usize {
        self.ahead.0.len() + self.queue.ring.backlog()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.queue.map);
        self.queue.check_memory()?;
        self.chains.clear();
        let (chains, slices) = &mut self.ahead;
        core::mem::swap(&mut self.chains, chains);
        burst.slices_mut().extend_from_slice(slices);
        slices.clear();
        let missing = burst.wanted().saturating_sub(self.chains.len());
        if missing > 0 {
            let taken = self.queue.ring.take::<false>(missing, burst.slices_mut(), &mut self.chains);
            if let Err(error) = taken {
                // What was taken ahead is good, but it comes to nothing: the port stops.
                self.queue.ring.give_back(&self.chains);
                self.chains.clear();
                return Err(Fault(error.to_string()));
            }
        }
        if self.chains.len() == BURST {
            // The lines of the next burst's frames come from the guest's CPU while this burst is in work.
            self.queue.ring.take_ahead::<false>(BURST, slices, chains);
        }
        fill(burst, &self.chains, self.queue.features);
        if !self.queue.enabled {
            for frame in burst.frames_mut() {
                frame.mark(DropReason::IngressDisabled);
            }
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        let wanted = self.queue.ring.publish::<false>(&self.chains);
        self.chains.clear();
        if wanted { self.queue.call() } else { 0 }
    }

    fn arm(&mut self) -> bool {
        // Lost memory reads as zero, so as an empty ring: `receive` is where it is said.
        !self.ahead.0.is_empty() || self.queue.ring.arm() || self.queue.map.faulted()
    }

    fn disarm(&mut self) {
        self.queue.ring.disarm();
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.queue.kick()
    }
}

/// Makes a frame of each chain.
#[inline(never)]
fn fill(burst: &mut Burst, chains: &[Chain], features: Features) {
    let mut left = chains;
    while let Some(chain) = left.first() {
        let plain = left.iter().map(|chain| chain.count == 1);
        let done = burst.fill_run::<HEADER_LEN>(chain.first as usize, plain, |frame| look(frame, features));
        left = left.get(done..).unwrap_or(&[]);
        let Some(chain) = left.first() else { break };
        let Some(mut filler) = burst.filler() else { return };
        push(&mut filler, chain, features);
        left = left.get(1..).unwrap_or(&[]);
    }
}

/// Makes a frame of a chain that is not one buffer with a frame of a usual length.
#[inline(never)]
fn push(burst: &mut Filler<'_>, chain: &Chain, features: Features) {
    let header = HEADER_LEN.min(chain.len as usize);
    let len = chain.len - header as u32;
    let Some(frame) = burst.push(chain.first as usize, chain.count as usize, header, len) else { return };
    // Without a whole virtio and Ethernet header there is nothing to look at, only to count.
    match len {
        ..SHORTEST => frame.mark(DropReason::Runt),
        SHORTEST..=MAX_FRAME => look(frame, features),
        _ => frame.mark(DropReason::Oversize),
    }
}

/// Looks at what the sender's header says.
#[inline(always)]
fn look(frame: &mut Frame, features: Features) {
    let [flags, gso_type, ..] = *frame.sender_header();
    if u16::from_le_bytes([flags & NEEDS_CSUM, gso_type]) != u16::from_le_bytes([0, GSO_NONE]) {
        judge(frame, features);
    }
}

/// What is left to be done, if it agrees with the frame and with what was negotiated.
#[inline(never)]
fn judge(frame: &mut Frame, features: Features) {
    let offload = Offload::decode(frame.sender_header());
    match offload.validate(frame.len() as usize, frame.head()) {
        Ok(offload) if features.may_send(&offload) => frame.set_offload(offload),
        _ => frame.mark(DropReason::BadOffload),
    }
}
