//! Credit and counters of a rate, as a record and back.

use fabnic_saved as records;

use super::RateLimiter;
use crate::meter::Unit;

/// What a record says that its tokens are.
fn number(unit: Unit) -> u8 {
    if unit == Unit::Packets { 16 } else { 0 }
}

impl RateLimiter {
    /// What it is at this moment.
    pub(crate) fn save(&self, place: records::MeterPlace, now_ns: u64) -> records::Meter {
        let mut account = self.account.lock();
        let was_used = account.last.is_some();
        if was_used {
            account.refill(now_ns);
        }
        let remainder = account.source.remainder();
        let credit = records::Bucket { tokens: account.bucket.tokens, remainder };
        records::Meter {
            place,
            algorithm: number(account.rate.unit),
            buckets: was_used.then_some([credit, records::Bucket::default()]),
            is_waiting: account.is_waiting,
            counts: [(self.packets.get(), self.bytes.get()), (0, 0), (0, 0), (0, 0)],
        }
    }

    /// Goes on from there, so many nanoseconds later.
    pub(crate) fn restore(&self, saved: &records::Meter, counters: bool, passed_ns: u64, now_ns: u64) {
        let mut account = self.account.lock();
        if let Some([credit, _]) = &saved.buckets
            && saved.algorithm == number(account.rate.unit)
        {
            account.bucket.put(credit.tokens);
            account.source.set_remainder(credit.remainder);
            let gain = account.source.gain(passed_ns);
            account.bucket.add(gain);
            account.is_waiting = saved.is_waiting;
            account.last = Some(now_ns);
        }
        if counters {
            let (packets, bytes) = saved.counts[0];
            self.packets.add(packets);
            self.bytes.add(bytes);
        }
    }
}
