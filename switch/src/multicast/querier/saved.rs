//! Who asks, as a record and back.

use fabnic_port::PortId;
use fabnic_saved as records;

use super::{Millis, Other, Querier};
use crate::multicast::saved::{later, until};

impl Querier {
    /// The querier's part of a side's record.
    pub(crate) fn save(&self, to: &mut records::MulticastSide, now: Millis) {
        to.other = self.other.map(|other| records::OtherQuerier {
            address: other.address,
            port: other.port.0,
            left_ms: until(other.until, now),
            robustness: other.robustness,
            interval_s: other.interval_s,
            max_response_ms: other.max_response_ms,
        });
        if self.is_own() {
            (to.next_in_ms, to.startup) = (until(self.next, now), self.startup);
        }
        to.known_in_ms = self.known_from.map(|from| until(from, now));
    }

    /// Goes on from there. `other`: the port of the other querier, if it is to be believed still.
    pub(crate) fn restore(
        &mut self,
        saved: &records::MulticastSide,
        other: Option<(&records::OtherQuerier, PortId)>,
        passed: Millis,
        now: Millis,
    ) {
        if self.other.is_none()
            && let Some((other, port)) = other
        {
            self.other = Some(Other {
                address: other.address,
                port,
                until: later(other.left_ms, passed, now),
                robustness: other.robustness,
                interval_s: other.interval_s,
                max_response_ms: other.max_response_ms,
            });
        }
        if self.is_own() {
            self.next = self.next.max(later(saved.next_in_ms, passed, now));
            self.startup = self.startup.min(saved.startup);
        }
        if self.own.is_none() && self.other.is_none() {
            return;
        }
        if let Some(known_in) = saved.known_in_ms {
            let from = later(known_in, passed, now);
            self.known_from = Some(self.known_from.map_or(from, |known| known.min(from)));
        }
    }
}
