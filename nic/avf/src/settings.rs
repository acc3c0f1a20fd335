//! What the host says of a function, and what of it can change while a driver is there.

use core::sync::atomic::{AtomicU64, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_avf_spec::virtchnl::Caps;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

/// Which card a function pretends to be of: what it offers. A driver negotiates, so that one image runs on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// The base mode that every adaptive virtual function has: MAC and VLAN filters, VLAN offloads, RSS, checksums, TSO.
    Base,
    /// Also: polling without interrupts, link speed in Mbit/s, other numbers of queues, VLAN offloads of version 2, UDP
    /// segmentation.
    Second,
    /// Also: flexible receive descriptors, frames with their check sequence.
    Third,
    /// Also: RSS by header stacks, flow director rules.
    Fourth,
}

impl Generation {
    /// The newest.
    pub const LATEST: Generation = Generation::Fourth;

    /// The generation with a number, from 1 on.
    pub const fn of(number: u8) -> Option<Generation> {
        match number {
            1 => Some(Generation::Base),
            2 => Some(Generation::Second),
            3 => Some(Generation::Third),
            4 => Some(Generation::Fourth),
            _ => None,
        }
    }

    /// What it offers.
    pub const fn caps(self) -> Caps {
        let second = Caps::WB_ON_ITR
            .union(Caps::REQ_QUEUES)
            .union(Caps::ADV_LINK_SPEED)
            .union(Caps::VLAN_V2)
            .union(Caps::RX_POLLING)
            .union(Caps::USO);
        let third = Caps::RX_FLEX_DESC.union(Caps::CRC);
        let fourth = Caps::ADV_RSS_PF.union(Caps::FDIR_PF);
        match self {
            Generation::Base => Caps::BASE,
            Generation::Second => Caps::BASE.union(second),
            Generation::Third => Caps::BASE.union(second).union(third),
            Generation::Fourth => Caps::BASE.union(second).union(third).union(fourth),
        }
    }
}

/// What a function is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its address. Zero lets the driver choose one.
    pub mac: [u8; 6],
    /// The driver may use no other unicast address, unless it is trusted.
    pub fixed_mac: bool,
    /// Queue pairs, 1 to 16.
    pub queues: u16,
    /// What it offers.
    pub generation: Generation,
    /// The driver may be promiscuous, have any address and many filters.
    pub trust: bool,
    /// Frames from other addresses than its own are dropped.
    pub spoofchk: bool,
    /// Longest payload of a frame in bytes.
    pub mtu: u16,
    /// The link is up.
    pub link_up: bool,
    /// Its speed in Mbit/s, which limits nothing.
    pub speed: u32,
    /// The guest may map the pages of tail registers. Then its queues are polled for ever: they cannot sleep.
    pub share_doorbells: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mac: [0; 6],
            fixed_mac: false,
            queues: 1,
            generation: Generation::LATEST,
            trust: false,
            spoofchk: false,
            mtu: 1500,
            link_up: true,
            speed: 100_000,
            share_doorbells: false,
        }
    }
}

/// What can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) link_up: bool,
    pub(crate) speed: u32,
    pub(crate) trust: bool,
    pub(crate) spoofchk: bool,
    /// An address that the administrator gave anew.
    pub(crate) mac: Option<[u8; 6]>,
    /// How often a reset was asked for.
    pub(crate) resets: u64,
}

#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    changes: AtomicU64,
    event: OwnedFd,
}

/// Changes a function from outside, from any thread. It takes effect when its transport looks
/// ([`fabnic_pci::Function::wake`]).
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

impl Control {
    pub(crate) fn new(settings: &Settings) -> Result<Control, rustix::io::Errno> {
        let told = Told {
            link_up: settings.link_up,
            speed: settings.speed,
            trust: settings.trust,
            spoofchk: settings.spoofchk,
            mac: None,
            resets: 0,
        };
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Control(Arc::new(Shared { told: Mutex::new(told), changes: AtomicU64::new(0), event })))
    }

    fn change(&self, change: impl FnOnce(&mut Told)) {
        let mut told = self.0.told.lock();
        let before = *told;
        change(&mut told);
        if *told != before {
            // The only error that can be is EAGAIN: the counter is full, and so the descriptor readable.
            let _ = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
            // Behind it: who sees the new number finds the descriptor readable, and reads it; else it would stay so.
            self.0.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// The link comes or goes.
    pub fn set_link(&self, up: bool, speed: u32) {
        self.change(|told| (told.link_up, told.speed) = (up, speed));
    }

    /// Whether the driver is trusted.
    pub fn set_trust(&self, trust: bool) {
        self.change(|told| told.trust = trust);
    }

    /// Whether source addresses are checked.
    pub fn set_spoofchk(&self, spoofchk: bool) {
        self.change(|told| told.spoofchk = spoofchk);
    }

    /// Gives the function another address. Its driver learns it by a reset.
    pub fn set_mac(&self, mac: [u8; 6]) {
        self.change(|told| {
            told.mac = Some(mac);
            told.resets += 1;
        });
    }

    /// Resets the function, as the administrator of a card can: its driver negotiates anew.
    pub fn reset(&self) {
        self.change(|told| told.resets += 1);
    }

    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    pub(crate) fn told(&self) -> Told {
        let mut bytes = [0; 8];
        // Nothing to read is nothing to forget.
        let _ = rustix::io::read(&self.0.event, &mut bytes);
        *self.0.told.lock()
    }

    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
