//! A port: a name, its queues, its counters.

use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use parking_lot::Mutex;

use crate::{CaptureSlot, Cell, DropCounters, Egress, Fault, GuestFilterSlot, Ingress, RecentDrops};

/// Number of a port, unique in a daemon for as long as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u32);

/// The most queue pairs of a port (vhost-user addresses 256 rings).
pub const MAX_QUEUES: usize = 128;

/// What kind of port it is; only for people to read and for defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A para-virtual NIC.
    VirtioNet,
    /// An emulated Intel 82540EM.
    E1000,
    /// An adaptive virtual function.
    Avf,
    /// A TAP device of the host.
    Tap,
    /// A capture file.
    Pcap,
    /// A port that gives back what it gets, for tests.
    Loopback,
}

impl PortKind {
    /// The name in configuration and output.
    pub const fn label(self) -> &'static str {
        match self {
            PortKind::VirtioNet => "virtio-net",
            PortKind::E1000 => "e1000",
            PortKind::Avf => "avf",
            PortKind::Tap => "tap",
            PortKind::Pcap => "pcap",
            PortKind::Loopback => "loopback",
        }
    }
}

/// Whether somebody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Queues are ready.
    Up,
    /// None is.
    Down,
}

/// A port that stopped itself: when its other side broke the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// What was wrong, where, and what was expected.
    pub reason: Fault,
}

/// A port. It exists because it was configured; VMs come and go on it.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub id: PortId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: PortKind,
    ingress: Box<[Cell<dyn Ingress>]>,
    egress: Box<[Cell<dyn Egress>]>,
    /// How many egress queues, from number 0 on, frames are steered to.
    egress_in_use: AtomicU16,
    /// Frames received from the port and dropped before they were forwarded.
    pub rx_drops: DropCounters,
    /// Copies of frames that could not be delivered to the port.
    pub tx_drops: DropCounters,
    /// The last frames that ended here.
    pub recent_drops: RecentDrops,
    /// Who looks at the frames that pass.
    pub captures: CaptureSlot,
    /// What the guest's own NIC takes, if it says so.
    pub guest_filter: GuestFilterSlot,
    is_stopped: AtomicBool,
    stopped: Mutex<Option<Stopped>>,
}

impl Port {
    /// A port with `queues` pairs of empty cells, at least one and at most [`MAX_QUEUES`].
    pub fn new(id: PortId, name: &str, kind: PortKind, queues: usize) -> Port {
        let queues = queues.clamp(1, MAX_QUEUES);
        Port {
            id,
            name: name.to_owned(),
            kind,
            ingress: (0..queues).map(|_| Cell::default()).collect(),
            egress: (0..queues).map(|_| Cell::default()).collect(),
            egress_in_use: AtomicU16::new(0),
            rx_drops: DropCounters::default(),
            tx_drops: DropCounters::default(),
            recent_drops: RecentDrops::default(),
            captures: CaptureSlot::default(),
            guest_filter: GuestFilterSlot::default(),
            is_stopped: AtomicBool::new(false),
            stopped: Mutex::new(None),
        }
    }

    /// Cells that the switch receives from.
    #[inline(always)]
    pub fn ingress(&self) -> &[Cell<dyn Ingress>] {
        &self.ingress
    }

    /// Cells that the switch delivers to.
    #[inline(always)]
    pub fn egress(&self) -> &[Cell<dyn Egress>] {
        &self.egress
    }

    /// How many egress queues frames are steered to: 0 means that nobody is there.
    #[inline(always)]
    pub fn egress_in_use(&self) -> usize {
        usize::from(self.egress_in_use.load(Ordering::Relaxed))
    }

    /// Counts the egress queues in use anew: the installed ones from 0 on, up to the first whose driver never gave it a
    /// buffer (the first itself always counts). To be called when queues come, go or begin to be filled.
    pub fn refresh_egress(&self) {
        let mut count = 0;
        for cell in &self.egress {
            let in_use = cell.lock().as_mut().is_some_and(|queue| queue.in_use() || count == 0);
            if !in_use {
                break;
            }
            count += 1;
        }
        self.egress_in_use.store(count, Ordering::Relaxed);
    }

    /// Whether somebody is there to deliver to.
    pub fn link(&self) -> LinkState {
        if self.egress_in_use() > 0 && !self.is_stopped() { LinkState::Up } else { LinkState::Down }
    }

    /// Stops the port: nothing is received from or delivered to it until [`Port::restart`]. The first reason stays.
    pub fn stop(&self, reason: Fault) {
        self.stopped.lock().get_or_insert(Stopped { reason });
        self.is_stopped.store(true, Ordering::Release);
    }

    /// Lets a stopped port go on: its other side was reset or replaced.
    pub fn restart(&self) {
        *self.stopped.lock() = None;
        self.is_stopped.store(false, Ordering::Release);
    }

    /// Whether the port stopped itself.
    #[inline(always)]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Why the port stopped itself, if it did.
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped.lock().clone()
    }
}
