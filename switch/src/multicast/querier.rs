//! Who asks: the querier of one VLAN and protocol, the switch itself or another.
//!
//! ```text
//!   nobody --own address configured--> own: general queries, the first few in quick succession
//!     |                                 |  ^
//!     '---- query of another ----+      |  '-- other silent for the other-querier-present interval
//!                                v      v
//!                              other: lower address, or own is 0.0.0.0 (RFC 3376, section 6.6.2)
//! ```
//!
//! While nobody asks, nobody answers: what is known of members runs out although they listen. So memberships restrict
//! nothing until a querier is there and hosts have had their time to answer.

use core::net::IpAddr;

use fabnic_port::PortId;
use fabnic_wire::membership::Query;

use super::listener::{Millis, Times};
use super::settings::VlanSnooping;

mod saved;

/// A querier that is not the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) address: IpAddr,
    pub(crate) port: PortId,
    pub(crate) until: Millis,
    /// What it says of its times; of old versions nothing.
    robustness: u8,
    interval_s: u32,
    max_response_ms: u32,
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Querier {
    /// The switch's own address, if it is to ask.
    pub(crate) own: Option<IpAddr>,
    pub(crate) other: Option<Other>,
    /// When the next own query is due, and how many still come quickly.
    next: Millis,
    startup: u8,
    /// From when on who listens is known.
    known_from: Option<Millis>,
}

impl Querier {
    /// Whether the switch asks.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some() && self.other.is_none()
    }

    /// Whether there is a querier, and hosts have had their time to answer it.
    pub(crate) fn is_known(&self, now: Millis) -> bool {
        self.known_from.is_some_and(|from| from <= now)
    }

    /// Takes over the configuration.
    pub(crate) fn configure(&mut self, own: Option<IpAddr>, settings: &VlanSnooping, now: Millis) {
        if self.own != own {
            self.own = own;
            if self.is_own() {
                self.start(settings, now);
            }
        }
        if self.own.is_none() && self.other.is_none() {
            self.known_from = None;
        }
    }

    fn start(&mut self, settings: &VlanSnooping, now: Millis) {
        (self.next, self.startup) = (now, settings.robustness.max(1));
        self.known_from.get_or_insert(now + Millis::from(settings.max_response_ms));
    }

    /// A query came from a port.
    pub(crate) fn heard(
        &mut self,
        from: IpAddr,
        port: PortId,
        query: &Query<'_>,
        settings: &VlanSnooping,
        now: Millis,
    ) {
        let wins = match (&self.other, self.own) {
            // A query without an address takes no part in the election; it is a sign of life where there is no other.
            (None, Some(_)) if from.is_unspecified() => false,
            (None, Some(own)) => own.is_unspecified() || from < own,
            (None, None) => true,
            (Some(other), _) if other.address == from => true,
            (Some(other), _) if from.is_unspecified() => other.address.is_unspecified(),
            (Some(other), _) => other.address.is_unspecified() || from < other.address,
        };
        if !wins {
            return;
        }
        let general = query.group.is_none();
        let before = self.other.filter(|other| other.address == from);
        let max_response_ms = match before {
            Some(before) if !general => before.max_response_ms,
            _ if general => query.max_response_ms,
            _ => settings.max_response_ms,
        };
        let mut other = Other {
            address: from,
            port,
            until: 0,
            robustness: query.robustness,
            interval_s: query.interval_s,
            max_response_ms,
        };
        // Section 8.5: other querier present interval.
        let (robustness, interval) = other.times(settings);
        other.until = now + robustness * interval + Millis::from(max_response_ms / 2);
        self.other = Some(other);
        self.known_from.get_or_insert(now + Millis::from(max_response_ms));
    }

    /// Lets time pass. Gives whether a general query of the switch's own is due.
    pub(crate) fn advance(&mut self, settings: &VlanSnooping, now: Millis) -> bool {
        if self.other.is_some_and(|other| other.until <= now) {
            self.other = None;
            if self.is_own() {
                self.start(settings, now);
            } else {
                self.known_from = None;
            }
        }
        if !self.is_own() || self.next > now {
            return false;
        }
        let interval = Millis::from(settings.query_interval_s.max(1)) * 1000;
        self.startup = self.startup.saturating_sub(1);
        // Section 8.6: the first few come in a quarter of the interval.
        self.next = now + if self.startup > 0 { interval / 4 } else { interval };
        true
    }

    /// When something is due next. `is_known`: whether [`Querier::is_known`] was noticed.
    pub(crate) fn due(&self, is_known: bool) -> Millis {
        let other = self.other.map(|other| other.until);
        let own = self.is_own().then_some(self.next);
        let known = self.known_from.filter(|_| !is_known);
        [other, own, known].into_iter().flatten().min().unwrap_or(Millis::MAX)
    }

    /// How long what lasts now: the querier's values count.
    pub(crate) fn times(&self, settings: &VlanSnooping, now: Millis) -> Times {
        let own =
            (Millis::from(settings.robustness.max(1)), Millis::from(settings.query_interval_s.max(1)) * 1000);
        let (robustness, interval) = self.other.map_or(own, |other| other.times(settings));
        let response = self.other.map_or(settings.max_response_ms, |other| other.max_response_ms);
        let last_member_interval = Millis::from(settings.last_member_interval_ms.max(100));
        let count = settings.robustness.max(1);
        Times {
            now,
            membership: robustness * interval + Millis::from(response),
            last_member: last_member_interval * Millis::from(count),
            last_member_interval,
            last_member_count: count,
            asks: self.is_own(),
        }
    }
}

impl Other {
    /// Its robustness variable, and its query interval in milliseconds.
    fn times(&self, settings: &VlanSnooping) -> (Millis, Millis) {
        let robustness = if self.robustness == 0 { settings.robustness.max(1) } else { self.robustness };
        let interval = if self.interval_s == 0 { settings.query_interval_s.max(1) } else { self.interval_s };
        (robustness.into(), Millis::from(interval) * 1000)
    }
}
