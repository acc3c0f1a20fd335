//! A token bucket in whole numbers, without drift.
//!
//! Tokens are bytes or packets. A bucket fills by a token at the moments k / rate, counted from its first use, as the
//! RFCs say it ("incremented by one CIR times per second"); what has come of the next token is kept as a *remainder* in
//! units so fine that nothing is ever rounded:
//!
//! ```text
//!   rate [bit/s] * time [ns] + remainder = tokens * 8 000 000 000 + new remainder      (packets: * 1 000 000 000)
//! ```
//!
//! So in any whole second exactly `rate` tokens come, whatever the rate and however often the bucket is looked at.
//!
//! A *frame longer than the bucket* would never find enough tokens; it goes when the bucket is full, and leaves it in
//! debt. A 64 KiB TSO frame does not starve behind a small burst size that way, and in the long run no byte more than
//! the rate passes. For all other frames the bucket is that of the RFCs.

use super::Unit;

/// Largest burst size, in bytes or packets (1 TiB): far beyond sense, and safe to add to.
pub(crate) const MAX_BURST: u64 = 1 << 40;

/// Fine units in a byte: a bit is a billion of them.
const FINE_A_BYTE: u64 = 8_000_000_000;
/// Fine units in a packet.
const FINE_A_PACKET: u64 = 1_000_000_000;

/// How fast tokens come: the rate, and what has come of the next token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    unit: Unit,
    /// Bits or packets a second: fine units a nanosecond.
    rate: u64,
    remainder: u64,
}

impl Source {
    pub(crate) fn new(unit: Unit, rate: u64) -> Source {
        Source { unit, rate, remainder: 0 }
    }

    fn fine(&self) -> u64 {
        match self.unit {
            Unit::Bits => FINE_A_BYTE,
            Unit::Packets => FINE_A_PACKET,
        }
    }

    /// Tokens that came in so many nanoseconds.
    #[inline]
    pub(crate) fn gain(&mut self, ns: u64) -> i64 {
        let come = self.rate.checked_mul(ns).and_then(|fine| fine.checked_add(self.remainder));
        let Some(come) = come else { return self.gain_much(ns) };
        // A match, so that both divisors are constants.
        let tokens = match self.unit {
            Unit::Bits => come / FINE_A_BYTE,
            Unit::Packets => come / FINE_A_PACKET,
        };
        self.remainder = come - tokens * self.fine();
        i64::try_from(tokens).unwrap_or(i64::MAX)
    }

    /// The same after a long time at a high rate.
    #[cold]
    fn gain_much(&mut self, ns: u64) -> i64 {
        let fine = u128::from(self.fine());
        let come = u128::from(self.rate) * u128::from(ns) + u128::from(self.remainder);
        self.remainder = u64::try_from(come % fine).unwrap_or(0);
        i64::try_from(come / fine).unwrap_or(i64::MAX)
    }

    /// What has come of the next token.
    pub(crate) fn remainder(&self) -> u64 {
        self.remainder
    }

    /// So much has come of the next token; never all of it.
    pub(crate) fn set_remainder(&mut self, remainder: u64) {
        self.remainder = remainder % self.fine();
    }

    /// Nanoseconds until so many tokens have come, rounded up. For ever, if the rate is 0.
    pub(crate) fn ns_until(&self, tokens: i64) -> u64 {
        let Ok(tokens) = u64::try_from(tokens) else { return 0 };
        if tokens == 0 {
            return 0;
        }
        if self.rate == 0 {
            return u64::MAX;
        }
        let missing = u128::from(tokens) * u128::from(self.fine()) - u128::from(self.remainder);
        u64::try_from(missing.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX)
    }
}

/// Tokens, at most `size`. Less than none is a debt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) tokens: i64,
    size: i64,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(size: u64) -> Bucket {
        let size = size.min(MAX_BURST) as i64;
        Bucket { tokens: size, size }
    }

    /// The same tokens, as far as they fit, in a bucket of another size.
    pub(crate) fn resized(self, size: u64) -> Bucket {
        let Bucket { size, .. } = Bucket::full(size);
        Bucket { tokens: self.tokens.min(size), size }
    }

    /// The most tokens.
    pub(crate) fn size(&self) -> i64 {
        self.size
    }

    /// Makes it hold so many tokens, as far as they fit; a debt is at most as large as the largest bucket.
    pub(crate) fn put(&mut self, tokens: i64) {
        self.tokens = tokens.clamp(-(MAX_BURST as i64), self.size);
    }

    /// Puts tokens in; gives those that did not fit.
    #[inline]
    pub(crate) fn add(&mut self, tokens: i64) -> i64 {
        let room = self.size.saturating_sub(self.tokens);
        let fits = tokens.min(room);
        self.tokens += fits;
        tokens - fits
    }

    /// Whether there are tokens for a frame, or for one that is longer than the bucket, as many as there can be.
    #[inline]
    pub(crate) fn holds(&self, tokens: i64) -> bool {
        self.size > 0 && self.tokens >= tokens.min(self.size)
    }

    /// Whether there are tokens for several frames that take this many together.
    #[inline]
    pub(crate) fn covers(&self, tokens: i64) -> bool {
        self.size > 0 && self.tokens >= tokens
    }

    /// Takes tokens out.
    #[inline]
    pub(crate) fn take(&mut self, tokens: i64) {
        self.tokens = self.tokens.saturating_sub(tokens);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_lost_at_the_ends_of_the_range() {
        // (unit, rate, tokens in a second)
        for (unit, rate, expected) in [
            (Unit::Packets, 1, 1),
            (Unit::Packets, 1_000_000_000, 1_000_000_000),
            (Unit::Bits, 8_000, 1_000),
            (Unit::Bits, 8, 1),
            (Unit::Bits, 400_000_000_000, 50_000_000_000),
            (Unit::Bits, 9_999_999, 1_249_999),
        ] {
            for step in [1_000_000_000, 1_000_000, 7_001, 999_983] {
                let mut source = Source::new(unit, rate);
                let (mut now, mut tokens) = (0, 0);
                while now < 1_000_000_000 {
                    let ns = step.min(1_000_000_000 - now);
                    tokens += source.gain(ns);
                    now += ns;
                }
                assert_eq!(tokens, expected, "{unit:?} at {rate} in steps of {step} ns");
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_far_ahead_fills_the_bucket_and_no_more() {
        let mut source = Source::new(Unit::Bits, u64::MAX);
        let mut bucket = Bucket::full(1000);
        bucket.take(1000);
        assert_eq!(bucket.add(source.gain(u64::MAX)), i64::MAX - 1000);
        assert_eq!(bucket.tokens, 1000);
    }

    #[test]
    fn a_frame_longer_than_the_bucket_goes_when_it_is_full_and_leaves_a_debt() {
        let mut bucket = Bucket::full(1000);
        assert!(bucket.holds(5000));
        bucket.take(5000);
        assert_eq!(bucket.tokens, -4000);
        bucket.add(4999);
        assert!(!bucket.holds(5000) && bucket.holds(999) && !bucket.holds(1000));
        bucket.add(1);
        assert!(bucket.holds(5000));
        assert!(!Bucket::full(0).holds(0), "what has no size lets nothing through");
    }

    proptest! {
        /// However time is cut, as many tokens come as one division says; and the forecast is exact.
        #[test]
        fn tokens_are_those_of_one_division(
            rate in prop_oneof![1_u64..100, 1_u64..1_000_000_000_000],
            bits: bool,
            steps in prop::collection::vec(prop_oneof![0_u64..2_000, 0_u64..3_000_000_000], 1..50),
        ) {
            let unit = if bits { Unit::Bits } else { Unit::Packets };
            let mut source = Source::new(unit, rate);
            let (mut now, mut tokens) = (0_u128, 0_i64);
            for ns in steps {
                let until = source.ns_until(3);
                let gained_in = |ns| {
                    let mut source = source;
                    source.gain(ns)
                };
                prop_assert!(gained_in(until) >= 3 && gained_in(until - 1) < 3);
                tokens += source.gain(ns);
                now += u128::from(ns);
                prop_assert_eq!(tokens as u128, u128::from(rate) * now / u128::from(source.fine()));
            }
        }
    }
}
