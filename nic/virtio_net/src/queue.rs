//! What a transmit and a receive queue have in common, and how a transport changes them while they are installed.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_memory::{DirtyLog, Map, Slice};
use fabnic_port::{Egress, Fault, Ingress};
use fabnic_virtqueue::{Journal, PackedRing, Ring, RingConfig, SplitRing};

use crate::{Features, Receive, Transmit};

/// Everything that a queue is made of.
#[derive(Debug)]
pub struct QueueSetup {
    /// The guest's memory.
    pub map: Arc<Map>,
    /// The ring in it.
    pub ring: RingConfig,
    /// What was negotiated. The ring's features are in `ring`.
    pub features: Features,
    /// Becomes readable when the driver kicks.
    pub kick: Option<OwnedFd>,
    /// Is written to interrupt the driver.
    pub call: Option<OwnedFd>,
    /// Where written pages are logged, while they are.
    pub log: Option<Arc<DirtyLog>>,
    /// The guest-physical address of the used ring, to log writes to it.
    pub log_used: Option<u64>,
}

/// What a transport does to a queue that is installed; to be called with its cell's lock held.
pub trait QueueControl {
    /// Where another back end has to go on (vhost-user GET_VRING_BASE).
    fn base(&self) -> u32;
    /// Goes on in another map of the same guest.
    ///
    /// # Errors
    /// The ring is not in that map: the queue stays with the old one and should be stopped.
    fn set_memory(&mut self, map: Arc<Map>) -> Result<(), Fault>;
    /// Replaces the way to interrupt the driver.
    fn set_call(&mut self, call: Option<OwnedFd>);
    /// Replaces the descriptor by which the driver kicks.
    fn set_kick(&mut self, kick: Option<OwnedFd>);
    /// Begins, changes or ends logging.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>, log_used: Option<u64>);
    /// Notes from now on where a packed ring stands, for a back end that comes after this one.
    fn set_journal(&mut self, journal: Option<Journal>);
    /// A queue that is disabled but started takes what the driver sends and drops it, and delivers nothing.
    fn set_enabled(&mut self, enabled: bool);
}

/// A ring with its memory and its file descriptors.
#[derive(Debug)]
pub(crate) struct Queue<R> {
    pub(crate) map: Arc<Map>,
    pub(crate) ring: R,
    pub(crate) features: Features,
    pub(crate) enabled: bool,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
}

impl<R: Ring> Queue<R> {
    pub(crate) fn open(setup: QueueSetup) -> Result<Queue<R>, Fault> {
        let mut ring = R::open(&setup.map, &setup.ring).map_err(|error| Fault(error.to_string()))?;
        ring.set_log(setup.log, setup.log_used);
        Ok(Queue {
            map: setup.map,
            ring,
            features: setup.features,
            enabled: true,
            kick: setup.kick,
            call: setup.call,
        })
    }

    /// A fault if the guest's memory was lost.
    #[inline(always)]
    pub(crate) fn check_memory(&self) -> Result<(), Fault> {
        if self.map.faulted() { Err(lost_memory()) } else { Ok(()) }
    }

    /// Interrupts the driver, if there is a way to. Gives the number of interrupts.
    #[inline]
    pub(crate) fn call(&self) -> u32 {
        let Some(call) = &self.call else { return 0 };
        // The only error that can be is EAGAIN: the counter is full of interrupts that were not taken yet.
        let _ = rustix::io::write(call, &1_u64.to_ne_bytes());
        1
    }

    /// Logs that the first `len` bytes of these buffers, one behind the other, were written.
    pub(crate) fn log_pieces(&mut self, buffers: &[Slice], len: u32) {
        let mut left = len;
        for buffer in buffers {
            let len = buffer.len().min(left);
            self.ring.log_written(&self.map, buffer, len);
            left -= len;
        }
    }

    pub(crate) fn kick(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.kick.as_ref().map(AsFd::as_fd)
    }
}

#[cold]
fn lost_memory() -> Fault {
    Fault("a memory file of the guest was truncated while it was in use".to_owned())
}

impl<R: Ring> QueueControl for Queue<R> {
    fn base(&self) -> u32 {
        self.ring.position()
    }

    fn set_memory(&mut self, map: Arc<Map>) -> Result<(), Fault> {
        self.ring.rebind(&map).map_err(|error| Fault(error.to_string()))?;
        self.map = map;
        Ok(())
    }

    fn set_call(&mut self, call: Option<OwnedFd>) {
        self.call = call;
    }

    fn set_kick(&mut self, kick: Option<OwnedFd>) {
        self.kick = kick;
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>, log_used: Option<u64>) {
        self.ring.set_log(log, log_used);
    }

    fn set_journal(&mut self, journal: Option<Journal>) {
        self.ring.set_journal(journal);
    }

    fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }
}

/// Opens a queue that the guest transmits on.
///
/// # Errors
/// The ring is not what the layout demands, or not in the guest's memory.
pub fn open_transmit(setup: QueueSetup) -> Result<Box<dyn Ingress>, Fault> {
    Ok(match setup.ring.packed {
        false => Box::new(Transmit::<SplitRing>::open(setup)?),
        true => Box::new(Transmit::<PackedRing>::open(setup)?),
    })
}

/// Opens a queue that the guest receives on.
///
/// # Errors
/// As for [`open_transmit`].
pub fn open_receive(setup: QueueSetup) -> Result<Box<dyn Egress>, Fault> {
    Ok(match setup.ring.packed {
        false => Box::new(Receive::<SplitRing>::open(setup)?),
        true => Box::new(Receive::<PackedRing>::open(setup)?),
    })
}

/// The controls of a queue that [`open_transmit`] made. What it had taken ahead is given back.
pub fn transmit_control(queue: &mut dyn Ingress) -> Option<&mut dyn QueueControl> {
    let queue: &mut dyn core::any::Any = queue;
    if queue.is::<Transmit<SplitRing>>() {
        let queue = queue.downcast_mut::<Transmit<SplitRing>>()?;
        queue.give_back();
        return Some(&mut queue.queue);
    }
    let queue = queue.downcast_mut::<Transmit<PackedRing>>()?;
    queue.give_back();
    Some(&mut queue.queue)
}

/// The controls of a queue that [`open_receive`] made. What it had taken ahead is given back.
pub fn receive_control(queue: &mut dyn Egress) -> Option<&mut dyn QueueControl> {
    let queue: &mut dyn core::any::Any = queue;
    if queue.is::<Receive<SplitRing>>() {
        let queue = queue.downcast_mut::<Receive<SplitRing>>()?;
        queue.give_back();
        return Some(&mut queue.queue);
    }
    let queue = queue.downcast_mut::<Receive<PackedRing>>()?;
    queue.give_back();
    Some(&mut queue.queue)
}
