//! How often a port is answered: the generic cell rate algorithm (ITU-T I.371), without a lock.

use core::sync::atomic::{AtomicU64, Ordering};

/// Answers that may come at once when there were none for a while.
const BURST: u64 = 32;
const SECOND: u64 = 1_000_000_000;

/// A limit in answers a second. The time, in nanoseconds, is the caller's.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    /// When the next answer would be due if all came in their time: the theoretical arrival time.
    due: AtomicU64,
}

impl RateLimit {
    /// Whether one more may be given now; it is counted then. A `rate` of 0 is no limit.
    pub(crate) fn allows(&self, rate: u32, now_ns: u64) -> bool {
        if rate == 0 {
            return true;
        }
        let each = SECOND / u64::from(rate);
        let ahead = each.saturating_mul(BURST - 1);
        let next = |due: u64| {
            let due = due.max(now_ns);
            (due - now_ns <= ahead).then(|| due.saturating_add(each))
        };
        self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Whether [`RateLimit::allows`] would say so, without counting.
    pub(crate) fn would_allow(&self, rate: u32, now_ns: u64) -> bool {
        let ahead = SECOND.checked_div(rate.into()).unwrap_or(0).saturating_mul(BURST - 1);
        rate == 0 || self.due.load(Ordering::Relaxed).saturating_sub(now_ns) <= ahead
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn over_any_time_no_more_than_rate_and_burst(
            rate in 1..2000_u32,
            gaps in prop::collection::vec(0..3_000_000_u64, 1..400),
        ) {
            let limit = RateLimit::default();
            let (mut now, mut given) = (5 * SECOND, Vec::new());
            for gap in gaps {
                now += gap;
                let would = limit.would_allow(rate, now);
                let does = limit.allows(rate, now);
                prop_assert_eq!(would, does);
                if does {
                    given.push(now);
                }
            }
            for (i, from) in given.iter().enumerate() {
                for (n, to) in given[i..].iter().enumerate() {
                    let most = BURST as f64 + (to - from) as f64 * f64::from(rate) / SECOND as f64 + 0.01;
                    prop_assert!((n + 1) as f64 <= most, "{} answers in {} ns at {rate}/s", n + 1, to - from);
                }
            }
        }
    }

    #[test]
    fn in_time_all_are_given() {
        let limit = RateLimit::default();
        assert!((0..1000_u64).all(|n| limit.allows(100, n * SECOND / 100)));
        assert!((0..1000).all(|_| limit.allows(0, 0)));
        let burst = RateLimit::default();
        assert_eq!((0..100).filter(|_| burst.allows(100, 0)).count() as u64, BURST);
    }
}
