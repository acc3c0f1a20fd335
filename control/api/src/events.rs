//! What happens, for whoever listens: `GET /v1/events`, a line of JSON each.
//!
//! Events are for people and programs that want to know at once; what counts is in the counters, the configuration and
//! the audit log. So nobody waits for a listener: one that does not read misses events, and is told how many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fabnic_model::Domain;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::LinkState;

/// Events that a listener may be behind.
const KEPT: usize = 4096;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// The tenant whose affair it is; infrastructure's if nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A port's link came up or went down, or its peer's fault stopped it.
    Link {
        /// The port.
        port: String,
        /// How its link is now.
        link: LinkState,
        /// Why it was stopped, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The configuration changed.
    Applied {
        /// How many changes there were.
        changes: u64,
        /// The first of them.
        first: Vec<String>,
    },
    /// A domain was refused something.
    Refused {
        /// What it asked for.
        request: String,
        /// Why not.
        reason: String,
    },
    /// An address kept moving between ports and is held where it is.
    MacHeld {
        /// The address.
        mac: fabnic_model::Mac,
        /// Its VLAN.
        vlan: u16,
        /// Port on which it is held.
        port: String,
        /// Port on which it was seen.
        seen_on: String,
        /// Seconds for which it is held.
        seconds: u64,
    },
    /// Frames were dropped at a port since this was last said.
    Drops {
        /// The port.
        port: String,
        /// How many, by reason.
        drops: BTreeMap<String, u64>,
    },
    /// The listener was too slow and missed events.
    Missed {
        /// How many.
        events: u64,
    },
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where events go in and come out.
#[derive(Clone, Debug)]
pub struct EventBus(broadcast::Sender<Arc<Event>>);

impl Default for EventBus {
    fn default() -> Self {
        Self(broadcast::channel(KEPT).0)
    }
}

impl EventBus {
    /// Whether anybody listens: what costs something to find out need not be found out otherwise.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells what is infrastructure's affair.
    pub fn send(&self, kind: EventKind) {
        self.send_of(None, kind);
    }

    /// Tells what is a tenant's affair, and infrastructure's.
    pub fn send_of(&self, tenant: Option<&str>, kind: EventKind) {
        if self.is_heard() {
            let event = Event { time_ms: now_ms(), tenant: tenant.map(str::to_owned), kind };
            // Whoever listened may be gone by now.
            let _ = self.0.send(Arc::new(event));
        }
    }

    pub(crate) fn listen(&self, domain: Domain) -> Listener {
        Listener { receiver: self.0.subscribe(), domain }
    }
}

/// One who listens.
#[derive(Debug)]
pub(crate) struct Listener {
    receiver: broadcast::Receiver<Arc<Event>>,
    domain: Domain,
}

impl Listener {
    /// The next event that the domain may see, as a line. `None` when there will be none.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let event = match self.receiver.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(events)) => {
                    Arc::new(Event { time_ms: now_ms(), tenant: None, kind: EventKind::Missed { events } })
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            let missed = matches!(event.kind, EventKind::Missed { .. });
            if missed || self.domain.sees(event.tenant.as_deref()) {
                let mut line = serde_json::to_vec(&*event).ok()?;
                line.push(b'\n');
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(port: &str) -> EventKind {
        EventKind::Drops { port: port.into(), drops: BTreeMap::from([("ring_full".into(), 3)]) }
    }

    #[tokio::test]
    async fn a_domain_hears_its_own_only() {
        let bus = EventBus::default();
        assert!(!bus.is_heard());
        let mut infrastructure = bus.listen(Domain::Infrastructure);
        let mut blue = bus.listen(Domain::Tenant("blue".into()));
        bus.send_of(Some("red"), drops("r"));
        bus.send(drops("i"));
        bus.send_of(Some("blue"), drops("b"));
        let read = |line: Vec<u8>| serde_json::from_slice::<Event>(&line).unwrap();
        for port in ["r", "i", "b"] {
            assert_eq!(read(infrastructure.next().await.unwrap()).kind, drops(port));
        }
        assert_eq!(read(blue.next().await.unwrap()).kind, drops("b"));
    }

    #[tokio::test]
    async fn one_who_does_not_read_misses_and_is_told() {
        let bus = EventBus::default();
        let mut listener = bus.listen(Domain::Tenant("blue".into()));
        for _ in 0..KEPT + 5 {
            bus.send(drops("x"));
        }
        let line: Event = serde_json::from_slice(&listener.next().await.unwrap()).unwrap();
        assert_eq!(line.kind, EventKind::Missed { events: 5 });
    }
}
