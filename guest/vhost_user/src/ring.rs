//! One ring, as far as the session knows it: what the front end said, and whether that is enough to begin.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fabnic_memory::{AddressSpace, Map, MapError};

use crate::message::RingAddr;

/// Virtio feature bit 34: the rings are packed.
pub(crate) const RING_PACKED: u64 = 1 << 34;

/// How a ring is kicked.
#[derive(Debug, Default)]
pub(crate) enum Kick {
    /// Not said yet: the ring cannot begin.
    #[default]
    Unset,
    /// "No descriptor": we look for ourselves.
    Poll,
    /// An eventfd.
    Fd(OwnedFd),
}

/// What the front end said of one ring.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub(crate) size: Option<u16>,
    pub(crate) addr: Option<RingAddr>,
    pub(crate) base: Option<u32>,
    /// What SET_VRING_BASE said last, unless the ring was stopped since and `base` is our own.
    pub(crate) said: Option<u32>,
    pub(crate) kick: Kick,
    pub(crate) call: Option<OwnedFd>,
    pub(crate) err: Option<OwnedFd>,
    /// What SET_VRING_ENABLE said, if it came.
    pub(crate) enabled: Option<bool>,
    pub(crate) running: bool,
    /// A back end that died may have died before it interrupted: to be done when there is a way to.
    pub(crate) owes_call: bool,
    /// Why the ring is not running although everything was said.
    pub(crate) problem: Option<String>,
}

impl Ring {
    /// Interrupts the driver if that is still to be done and can be.
    pub(crate) fn pay_call(&mut self) {
        if self.owes_call
            && self.running
            && let Some(call) = &self.call
        {
            // A counter that is full says the same.
            let _ = rustix::io::write(call, &1_u64.to_ne_bytes());
            self.owes_call = false;
        }
    }

    /// Whether everything is known that is needed to begin. A first kick is not waited for: drivers whose notifications
    /// are suppressed, and restored ones, may never kick.
    pub(crate) fn is_complete(&self) -> bool {
        self.size.is_some() && self.addr.is_some() && self.base.is_some() && !matches!(self.kick, Kick::Unset)
    }
}

/// Where to begin, from what the front end says and what lies in memory, unless the position of the ring was noted; see the
/// crate's page, "Positions".
///
/// Split: the used index in memory is what was really given back, so it wins over a base that differs. A front end that
/// lost its back end says the last index it heard of, and DPDK's virtio-user says 0 after every reconnect.
///
/// Packed: the available side counts for both sides, since nothing is in flight between back ends; virtio-user leaves the
/// used side 0.
pub(crate) fn position(map: &Arc<Map>, packed: bool, base: u32, device: u64) -> Result<u32, MapError> {
    if packed {
        let avail = base & 0xffff;
        return Ok(avail | avail << 16);
    }
    let used = map.table::<u16>(AddressSpace::User, device.wrapping_add(2), 1)?;
    Ok(u32::from(u16::from_le(used.load_acquire(0))))
}
