//! A rate that a sender is held to: a token bucket that may be overdrawn.
//!
//! What a queue holds is only known when it has been read. So a sender may read while it has any credit at all; what it
//! read is charged afterwards, and may leave a *debt*. Until that is paid back the sender is left unread.
//!
//! ```text
//!   credit > 0 --> read a burst --> charge --> credit < 0: not before `until`
//! ```
//!
//! Debts are paid to the last byte (`meter::bucket` rounds nothing), so the rate is exact over any time that is long
//! against a burst, whatever the sizes of bursts and frames. Credit that was not used is kept for 5 ms: a worker that
//! looks late by less than that loses nothing, and a second begins with half a percent more at most. Once the credit is
//! used up, the sender waits until what comes in 50 us is there: a frame at a time would cost a visit each.

use parking_lot::Mutex;

use fabnic_port::Counter;

use crate::meter::{Bucket, Charge, Metered, Source, Unit};

mod saved;

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits or packets.
    pub unit: Unit,
    /// So many a second.
    pub per_second: u64,
}

impl Rate {
    /// Bits a second.
    pub fn bits(per_second: u64) -> Rate {
        Rate { unit: Unit::Bits, per_second }
    }

    /// Packets a second.
    pub fn packets(per_second: u64) -> Rate {
        Rate { unit: Unit::Packets, per_second }
    }

    /// Credit that is kept: a batch, and what comes in 5 ms more.
    fn depth(self) -> u64 {
        self.in_time(200).saturating_add(self.batch())
    }

    /// What is waited for: what comes in 50 us, and something in any case.
    fn batch(self) -> u64 {
        self.in_time(20_000).max(1)
    }

    /// What comes in so much of a second.
    fn in_time(self, part: u64) -> u64 {
        match self.unit {
            Unit::Bits => self.per_second / (8 * part),
            Unit::Packets => self.per_second / part,
        }
    }

    pub(super) fn tokens(self, charge: Charge) -> i64 {
        match self.unit {
            Unit::Bits => charge.bytes.into(),
            Unit::Packets => charge.packets.into(),
        }
    }
}

#[derive(Debug)]
struct Account {
    rate: Rate,
    source: Source,
    bucket: Bucket,
    /// The latest time seen.
    last: Option<u64>,
    /// The credit was used up, and there is not a batch yet.
    is_waiting: bool,
}

impl Account {
    fn refill(&mut self, now: u64) {
        let last = *self.last.get_or_insert(now);
        if now > last {
            self.bucket.add(self.source.gain(now - last));
            self.last = Some(now);
        } else if last - now > crate::meter::BACK_FOR_GOOD_NS {
            self.last = Some(now);
        }
    }
}

/// A rate and its credit. Shared by all workers that serve queues of the port, or ports of the group, that is held to it.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    account: Mutex<Account>,
    packets: Counter,
    bytes: Counter,
}

impl RateLimiter {
    /// With the credit of an idle sender.
    pub(crate) fn new(rate: Rate) -> RateLimiter {
        let account = Account {
            rate,
            source: Source::new(rate.unit, rate.per_second),
            bucket: Bucket::full(rate.depth()),
            last: None,
            is_waiting: false,
        };
        RateLimiter { account: Mutex::new(account), packets: Counter::default(), bytes: Counter::default() }
    }

    /// Changes the rate; a debt in the same unit stays.
    pub(crate) fn change(&self, rate: Rate) {
        let mut account = self.account.lock();
        account.bucket = match account.rate.unit == rate.unit {
            true => account.bucket.resized(rate.depth()),
            false => Bucket::full(rate.depth()),
        };
        (account.rate, account.source) = (rate, Source::new(rate.unit, rate.per_second));
    }

    /// The rate.
    pub(crate) fn rate(&self) -> Rate {
        self.account.lock().rate
    }

    /// What was charged.
    pub(crate) fn charged(&self) -> Metered {
        Metered { packets: self.packets.get(), bytes: self.bytes.get() }
    }

    /// The credit at a time, in bytes or packets; or the time (nanoseconds) when there will be some.
    ///
    /// # Errors
    /// There is none: the sender is to be left alone until then.
    pub(crate) fn credit(&self, now_ns: u64) -> Result<Credit, u64> {
        let mut account = self.account.lock();
        account.refill(now_ns);
        let tokens = account.bucket.tokens;
        let enough = i64::try_from(account.rate.batch()).unwrap_or(i64::MAX).min(account.bucket.size());
        account.is_waiting = tokens <= 0 || account.is_waiting && tokens < enough;
        if account.is_waiting {
            let wait = account.source.ns_until(enough.saturating_sub(tokens));
            return Err(account.last.unwrap_or(now_ns).saturating_add(wait));
        }
        Ok(Credit { unit: account.rate.unit, tokens })
    }

    /// Charges what was read.
    pub(crate) fn charge(&self, now_ns: u64, charge: Charge) {
        let mut account = self.account.lock();
        account.refill(now_ns);
        let tokens = account.rate.tokens(charge);
        account.bucket.take(tokens);
        self.packets.add(charge.packets.into());
        self.bytes.add(charge.bytes.into());
    }
}

/// What may be read before there is a debt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credit {
    /// Bytes or packets.
    pub unit: Unit,
    /// At least 1.
    pub tokens: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_debt_is_paid_to_the_byte() {
        let limiter = RateLimiter::new(Rate::bits(8_000));
        assert_eq!(limiter.credit(0).unwrap().tokens, 6);
        limiter.charge(0, Charge::one(1_515));
        // 1509 bytes of debt at 1000 bytes a second, and one of credit.
        assert_eq!(limiter.credit(0), Err(1_510 * 1_000_000));
        assert_eq!(limiter.credit(1_509_999_999), Err(1_510_000_000));
        assert_eq!(limiter.credit(1_510_000_000).unwrap().tokens, 1);
        limiter.change(Rate::bits(16_000));
        assert_eq!(limiter.credit(1_511_000_000).unwrap().tokens, 3);
        assert_eq!(limiter.charged(), Metered { packets: 1, bytes: 1_515 });
        let stopped = RateLimiter::new(Rate::packets(0));
        stopped.charge(0, Charge::one(60));
        assert_eq!(stopped.credit(SECOND), Err(u64::MAX), "never again");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// A backlogged sender, read by a worker that comes by at random times (but within 5 ms): in a second it sends its
        /// rate to within 1 % or one frame.
        #[test]
        fn a_sender_sends_its_rate(
            magnitude in 0_u32..=7,
            fraction in 1.0_f64..10.0,
            bits: bool,
            bytes in 60_u32..1515,
            segments in 1_u32..45,
            steps in prop::collection::vec(1_000_u64..4_900_000, 1..50),
        ) {
            let base = 10_f64.powi(magnitude as i32) * fraction;
            let rate = match bits {
                true => Rate::bits((base * 8_000.0) as u64),
                false => Rate::packets(base as u64),
            };
            let frame = Charge { bytes: bytes * segments, packets: segments };
            let limiter = RateLimiter::new(rate);
            // What an idle sender has saved goes first; then the second begins when there is credit again.
            limiter.charge(0, Charge { bytes: limiter.credit(0).unwrap().tokens as u32, packets: limiter.credit(0).unwrap().tokens as u32 });
            let start = limiter.credit(0).unwrap_err();
            let (mut now, mut sent) = (start, 0_u64);
            let mut steps = steps.iter().cycle();
            loop {
                while let Ok(credit) = limiter.credit(now) {
                    let frames = (credit.tokens / rate.tokens(frame)).clamp(1, 64) as u32;
                    let read = Charge { bytes: frame.bytes * frames, packets: frame.packets * frames };
                    limiter.charge(now, read);
                    sent += rate.tokens(read) as u64;
                }
                let until = limiter.credit(now).unwrap_err();
                now = until.max(now + steps.next().unwrap());
                if now >= start + SECOND {
                    break;
                }
            }
            let due = match rate.unit {
                Unit::Bits => rate.per_second / 8,
                Unit::Packets => rate.per_second,
            };
            prop_assert!(sent.abs_diff(due) <= due / 100 + rate.tokens(frame) as u64, "{} of {}", sent, due);
        }
    }
}
