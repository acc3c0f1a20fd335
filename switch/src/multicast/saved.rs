//! All VLANs, as records and back.

use fabnic_port::PortId;
use fabnic_saved as records;
use fabnic_wire::Vid;

use core::sync::atomic::Ordering;

use super::listener::Millis;
use super::{Multicast, PortMulticast};
use crate::saved::Lost;

/// The longest that a record may say that something lasts: no protocol says more than 7 times 8 hours.
const LONGEST: Millis = 3 * 24 * 3_600_000;

/// What is left until then.
pub(super) fn until(end: Millis, now: Millis) -> u64 {
    end.saturating_sub(now)
}

/// The moment at which what was left, so long ago, has run out; not before now.
pub(super) fn later(left: u64, passed: Millis, now: Millis) -> Millis {
    now.saturating_add(left.saturating_sub(passed).min(LONGEST))
}

impl Multicast {
    /// A VLAN and its listeners, of all ports or of one.
    pub(crate) fn save(
        &self,
        vlan: Vid,
        of: Option<PortId>,
    ) -> Option<(records::MulticastVlan, Vec<records::Listener>)> {
        let now = self.now.load(Ordering::Relaxed);
        self.with(vlan, |state, _| (state.save(vlan, of, now), state.save_listeners(vlan, of, now)))
    }

    /// A VLAN goes on, but for its listeners.
    pub(crate) fn restore(
        &self,
        vlan: Vid,
        saved: &records::MulticastVlan,
        port: impl Fn(u32) -> Option<PortId>,
        passed: Millis,
    ) -> Result<(), Lost> {
        let now = self.now.load(Ordering::Relaxed);
        self.with(vlan, |state, _| state.restore(saved, port, passed, now)).ok_or(Lost::Unconfigured)
    }

    /// A listener goes on.
    pub(crate) fn restore_listener(
        &self,
        vlan: Vid,
        (port, settings): (PortId, &PortMulticast),
        saved: &records::Listener,
        passed: Millis,
    ) -> Result<(), Lost> {
        let now = self.now.load(Ordering::Relaxed);
        let restore = self
            .with(vlan, |state, quota| state.restore_listener(port, settings, saved, quota, (passed, now)));
        restore.unwrap_or(Err(Lost::Unconfigured))
    }
}
