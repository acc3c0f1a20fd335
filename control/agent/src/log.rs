//! Keeps the journal readable when a guest misbehaves on purpose.
//!
//! Whatever a guest does, somebody logs; a guest that does it a million times a second must not fill the disk or
//! drown what others have to say. [`LogLimit`] stands in front of the log as a filter: each pair of call site and port
//! has a token bucket of [`BURST`] messages that is refilled with one every [`REFILL`]. What was held back is counted,
//! and said once in a while by [`LogLimit::report`]. An event belongs to the port that its field `port` names; events
//! without one share the bucket of their call site. Everything is limited but `trace`, which nobody has on unless he
//! wants the flood.
//!
//! Invariant: at most [`MAX_BUCKETS`] buckets exist; beyond, ports share their call site's.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Messages of one call site about one port that pass at once.
const BURST: u32 = 20;
/// Time after which one more may pass.
const REFILL: Duration = Duration::from_secs(2);
/// Most pairs of call site and port that are told apart.
const MAX_BUCKETS: usize = 1 << 16;

/// The filter. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct LogLimit(Arc<Mutex<Buckets>>);

#[derive(Debug, Default)]
struct Buckets {
    of: HashMap<(Identifier, Box<str>), Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
    held_back: u64,
    site: &'static Metadata<'static>,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled);
        let earned = u32::try_from(passed.as_millis() / REFILL.as_millis()).unwrap_or(BURST);
        if self.tokens.saturating_add(earned) >= BURST {
            self.tokens = BURST;
            self.refilled = now;
        } else {
            self.tokens += earned;
            self.refilled += REFILL * earned;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => {
                self.held_back += 1;
                false
            }
        }
    }
}

impl LogLimit {
    /// A filter with full buckets.
    #[must_use]
    pub fn new() -> LogLimit {
        LogLimit::default()
    }

    /// Whether one more message of this call site about this port may pass now.
    fn admits(&self, site: &'static Metadata<'static>, port: &str, now: Instant) -> bool {
        let mut buckets = self.0.lock();
        let mut key = (site.callsite(), port.into());
        if buckets.of.len() >= MAX_BUCKETS && !buckets.of.contains_key(&key) {
            key.1 = "".into();
        }
        buckets
            .of
            .entry(key)
            .or_insert_with(|| Bucket { tokens: BURST, refilled: now, held_back: 0, site })
            .take(now)
    }

    /// Logs how much was held back since the last report. To be called every ten seconds or so.
    pub fn report(&self) {
        // Collected first: logging takes the lock.
        let held_back: Vec<_> = {
            let mut buckets = self.0.lock();
            buckets
                .of
                .iter_mut()
                .filter(|(_, bucket)| bucket.held_back > 0)
                .map(|((_, port), bucket)| (port.clone(), bucket.site, std::mem::take(&mut bucket.held_back)))
                .collect()
        };
        for (port, site, count) in held_back {
            let line = site.line().unwrap_or(0);
            let place = format!("{}:{line}", site.file().unwrap_or(site.target()));
            if port.is_empty() {
                tracing::warn!(count, place, level = %site.level(), "messages were held back");
            } else {
                tracing::warn!(port = %port, count, place, level = %site.level(), "messages were held back");
            }
        }
    }
}

/// Finds the port that an event is about.
#[derive(Default)]
struct PortOf(String);

impl Visit for PortOf {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "port" {
            self.0.push_str(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "port" {
            // Writing to a String does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for LogLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let site = event.metadata();
        if *site.level() == Level::TRACE {
            return true;
        }
        let mut port = PortOf::default();
        event.record(&mut port);
        self.admits(site, &port.0, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Journal(Arc<Mutex<Vec<u8>>>);

    impl Journal {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl io::Write for Journal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(limit: &LogLimit, scene: impl FnOnce()) -> Vec<String> {
        let journal = Journal::default();
        let to = journal.clone();
        let subscriber = tracing_subscriber::registry().with(limit.clone()).with(
            tracing_subscriber::fmt::layer().with_writer(move || to.clone()).with_ansi(false).without_time(),
        );
        tracing::subscriber::with_default(subscriber, scene);
        journal.lines()
    }

    #[test]
    fn one_port_floods_and_another_is_heard() {
        let limit = LogLimit::new();
        let lines = logged(&limit, || {
            for port in std::iter::repeat_n("bad", 1000).chain(["good"]) {
                tracing::warn!(port, "descriptor out of range");
            }
            limit.report();
        });
        assert_eq!(
            lines.iter().filter(|l| l.contains("out of range") && l.contains("bad")).count(),
            BURST as usize
        );
        assert_eq!(lines.iter().filter(|l| l.contains("out of range") && l.contains("good")).count(), 1);
        let report = lines.last().unwrap();
        assert!(
            report.contains("held back") && report.contains("bad") && report.contains("count=980"),
            "{report}"
        );
        assert!(logged(&limit, || limit.report()).is_empty(), "each message is reported once");
    }

    #[test]
    fn call_sites_do_not_share() {
        let limit = LogLimit::new();
        let lines = logged(&limit, || {
            for _ in 0..100 {
                tracing::info!(port = %"vm1", "first");
            }
            tracing::info!(port = %"vm1", "second");
        });
        assert_eq!(lines.iter().filter(|l| l.contains("second")).count(), 1);
    }

    #[test]
    fn tokens_come_back_with_time() {
        let limit = LogLimit::new();
        let site = {
            struct First(Mutex<Option<&'static Metadata<'static>>>);
            impl<S: Subscriber> Layer<S> for &'static First {
                fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                    *self.0.lock() = Some(event.metadata());
                }
            }
            static FIRST: First = First(Mutex::new(None));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(&FIRST), || {
                tracing::info!("here");
            });
            FIRST.0.lock().unwrap()
        };
        let start = Instant::now();
        let passed = |at: Duration| (0..1000).filter(|_| limit.admits(site, "p", start + at)).count();
        assert_eq!(passed(Duration::ZERO), BURST as usize);
        assert_eq!(passed(REFILL / 2), 0);
        assert_eq!(passed(REFILL), 1);
        assert_eq!(passed(REFILL * 4), 3);
        assert_eq!(passed(REFILL * 1_000_000), BURST as usize);
    }

    #[test]
    fn buckets_are_bounded() {
        let limit = LogLimit::new();
        logged(&limit, || {
            for port in 0..MAX_BUCKETS + 10 {
                tracing::info!(port, "hello");
            }
        });
        assert!(limit.0.lock().of.len() <= MAX_BUCKETS + 1);
    }
}
