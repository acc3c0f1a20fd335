//! Fair shares of one congested receiver.
//!
//! Where a frame goes is known only when it has been read, so a sender cannot be left unread *for one destination*. What
//! can be known: that a receiver's ring was found full, and who sends to it. From the first full ring on, every sender to
//! that receiver has an account there, which fills at one common rate *f* times its weight. Who sends less than that is
//! never limited; who sends more is. And f is sought as TCP seeks its rate: down by an eighth when the ring was full, or by
//! as much as was lost, if that is more; up by a thirty-second in each millisecond in which it was not.
//!
//! ```text
//!   sender A (10 Gb/s) --> account: f ------ over: put off, or dropped
//!   sender B (1 Gb/s)  --> account: f, not used up ----------------------> ring --> receiver (2 Gb/s)
//!                                                                           |
//!          f: down <---- full ----------------------------------------------'      so f finds 1 Gb/s
//! ```
//!
//! That is max-min fairness: f settles where what the heavy senders may send and what the light ones do send fill the
//! receiver. What becomes of what is over:
//! * a sender that is over its share with a burst that mostly went there is read no more than its share from then on, as
//!   long as its bursts mostly go there: its frames wait in its own ring, none is lost ([`FairShare::room`]);
//! * of a sender that mostly sends elsewhere, the frames over its share are dropped, and the rest goes on.
//!
//! A frame counts its bytes and 256 more for each packet, about what a packet costs a receiver in comparison.
//!
//! What it cannot do: keep a held sender's few frames to other receivers from waiting with the rest; be fair in less than
//! some milliseconds; tell more than [`SENDERS`] senders apart (more share accounts); tell flows of one sender apart.
//! While f is sought some frames still meet a full ring: a few of a thousand, of whoever comes at that moment.

use core::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::meter::Charge;

/// Accounts of a receiver.
pub(crate) const SENDERS: usize = 64;
/// How often the common rate is thought over, in nanoseconds.
const EPOCH_NS: u64 = 1_000_000;
/// Epochs without a full ring, and without a sender over its share, after which the congestion is over.
const CALM_EPOCHS: u32 = 50;
/// What an account saves: so much time at its rate, in nanoseconds; and [`LEAST_SAVED`] at least.
const SAVED_NS: u64 = 100_000;
/// A few frames' cost.
const LEAST_SAVED: i64 = 8_192;
/// A sender is put off for at least so long, in nanoseconds, so that it pays to look again.
const LEAST_WAIT_NS: u64 = 20_000;
/// The lowest common rate, in cost a second: some 100 full-size frames.
const LEAST_RATE: u64 = 150_000;
/// What a packet costs beside its bytes.
const PACKET_COST: i64 = 256;
/// The weight that is measured against.
const UNIT_WEIGHT: u64 = super::DEFAULT_WEIGHT as u64;

/// What frames cost a receiver.
fn cost(charge: Charge) -> i64 {
    i64::from(charge.bytes) + i64::from(charge.packets) * PACKET_COST
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// The sender's number plus one; 0 of an account that nobody has.
    owner: u64,
    weight: u64,
    /// What it may send; below 0 what it has overdrawn.
    credit: i64,
    /// When it was last filled.
    last: u64,
    /// What it has sent in this epoch.
    sent: u64,
}

#[derive(Debug)]
struct Congestion {
    epoch: u64,
    /// Cost a second; `None` until the first epoch has shown what is about right.
    rate: Option<u64>,
    /// In this epoch: the ring was full; somebody was over his share.
    was_full: bool,
    was_over: bool,
    calm: u32,
    /// Frames that were let through in this epoch, and of those the ones that the ring had no room for.
    frames: u64,
    lost: u64,
    accounts: [Account; SENDERS],
}

impl Congestion {
    fn new(now: u64) -> Congestion {
        Congestion {
            epoch: now,
            rate: None,
            was_full: true,
            was_over: false,
            calm: 0,
            frames: 0,
            lost: 0,
            accounts: [Account::default(); SENDERS],
        }
    }

    /// Thinks the rate over if it is time. `false`: the congestion is over.
    fn advance(&mut self, now: u64) -> bool {
        // A clock that went back begins a new epoch.
        let spent = now.checked_sub(self.epoch).unwrap_or(EPOCH_NS);
        if spent < EPOCH_NS {
            return true;
        }
        self.epoch = now;
        self.calm = if self.was_full || self.was_over { 0 } else { self.calm.saturating_add(1) };
        // Nobody came for a long time.
        if self.calm > CALM_EPOCHS || spent > EPOCH_NS * u64::from(CALM_EPOCHS) {
            return false;
        }
        self.rate = Some(match self.rate {
            None => self.first_rate(spent),
            // It went down when the ring was found full; further, if more than an eighth was lost.
            Some(rate) if self.was_full => {
                let more = self.lost.saturating_mul(8) > self.frames;
                let kept = u128::from(rate) * 8 / 7 * self.kept() / 1024;
                if more { u64::try_from(kept).unwrap_or(rate).clamp(LEAST_RATE, rate) } else { rate }
            }
            Some(rate) => rate.saturating_add(rate / 32).min(u64::MAX >> 20),
        });
        (self.was_full, self.was_over, self.frames, self.lost) = (false, false, 0, 0);
        for account in &mut self.accounts {
            if account.sent == 0 {
                // Its owner is gone, or comes back to a new one.
                account.owner = 0;
            }
            account.sent = 0;
        }
        true
    }

    /// Which part of what was let through was delivered, in 1024ths; at least 1.
    fn kept(&self) -> u128 {
        let kept = u128::from(self.frames.saturating_sub(self.lost)) * 1024 / u128::from(self.frames.max(1));
        kept.clamp(1, 1024)
    }

    /// What was delivered while there were no shares, by what weight there was.
    fn first_rate(&self, spent: u64) -> u64 {
        let sent: u64 = self.accounts.iter().map(|account| account.sent).sum();
        let weights: u64 = self.accounts.iter().filter(|a| a.sent > 0).map(|a| a.weight).sum();
        let sent = u128::from(sent) * self.kept() / 1024;
        let rate = sent * 1_000_000_000 * u128::from(UNIT_WEIGHT)
            / (u128::from(spent.max(1)) * u128::from(weights.max(1)));
        u64::try_from(rate).unwrap_or(u64::MAX >> 20).max(LEAST_RATE)
    }

    /// The sender's account, filled up to now. One that is shared, if there are no more.
    fn account(&mut self, now: u64, sender: u32, weight: u16) -> Option<&mut Account> {
        let owner = u64::from(sender) + 1;
        let own = self.accounts.iter().position(|account| account.owner == owner);
        let free = || self.accounts.iter().position(|account| account.owner == 0);
        let index = own.or_else(free).unwrap_or(sender as usize % SENDERS);
        let rate = self.rate;
        let account = self.accounts.get_mut(index)?;
        if account.owner == 0 {
            let weight = u64::from(weight.max(1));
            *account = Account { owner, weight, credit: LEAST_SAVED, last: now, sent: 0 };
        }
        if let Some(rate) = rate {
            account.fill(now, rate);
        }
        Some(account)
    }
}

impl Account {
    /// Its rate, in cost a second.
    fn rate(&self, common: u64) -> u64 {
        (u128::from(common) * u128::from(self.weight) / u128::from(UNIT_WEIGHT)).clamp(1, 1 << 60) as u64
    }

    fn fill(&mut self, now: u64, common: u64) {
        let rate = self.rate(common);
        let Some(spent) = now.checked_sub(self.last) else {
            // Another worker was here a moment later, or the clock went back.
            if self.last - now > EPOCH_NS {
                self.last = now;
            }
            return;
        };
        let gain = u128::from(rate) * u128::from(spent) / 1_000_000_000;
        if gain == 0 {
            return;
        }
        let saved = u128::from(rate) * u128::from(SAVED_NS) / 1_000_000_000;
        let saved = i64::try_from(saved).unwrap_or(i64::MAX / 4).clamp(LEAST_SAVED, i64::MAX / 4);
        let gained = self.credit.saturating_add(i64::try_from(gain).unwrap_or(i64::MAX / 4));
        if gained >= saved {
            (self.credit, self.last) = (saved, now);
        } else {
            // What was less than one stays for the next time.
            let took = (gain * 1_000_000_000).div_ceil(u128::from(rate));
            self.credit = gained;
            self.last = self.last.saturating_add(u64::try_from(took).unwrap_or(spent)).min(now);
        }
    }

    /// When it has something again.
    fn until(&self, now: u64, common: u64) -> u64 {
        let missing = u128::from(1_i64.saturating_sub(self.credit).max(0).unsigned_abs());
        let wait = (missing * 1_000_000_000).div_ceil(u128::from(self.rate(common)));
        now.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX).max(LEAST_WAIT_NS))
    }
}

/// What may be delivered of some frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// So many of them, from the first on; the others are over the sender's share.
    pub admitted: usize,
    /// When the sender has a share again, if it is used up.
    pub until: Option<u64>,
}

impl Admission {
    /// No limit.
    const ALL: Admission = Admission { admitted: usize::MAX, until: None };
}

/// A receiver's shares. Costs one look at a flag while the receiver keeps up.
#[derive(Debug, Default)]
pub(crate) struct FairShare {
    is_active: AtomicBool,
    /// There since the receiver was first congested.
    congestion: Mutex<Option<Box<Congestion>>>,
}

impl FairShare {
    /// Whether the receiver is congested, and the others are to be called.
    #[inline(always)]
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    /// The receiver's ring was found full: so many frames were lost.
    #[cold]
    pub(crate) fn found_full(&self, now_ns: u64, lost: u64) {
        let mut guard = self.congestion.lock();
        match guard.as_deref_mut() {
            Some(congestion) if self.is_active() => {
                // Down at once, but once an epoch.
                if let Some(rate) = &mut congestion.rate
                    && !congestion.was_full
                {
                    *rate = (*rate - *rate / 8).max(LEAST_RATE);
                }
                congestion.was_full = true;
                congestion.lost = congestion.lost.saturating_add(lost);
            }
            Some(old) => *old = Congestion::new(now_ns),
            None => *guard = Some(Box::new(Congestion::new(now_ns))),
        }
        self.is_active.store(true, Ordering::Relaxed);
    }

    /// Charges frames that a sender wants to send to the receiver: how many of them may.
    pub(crate) fn admit(
        &self,
        now_ns: u64,
        sender: u32,
        weight: u16,
        charges: impl Iterator<Item = Charge>,
    ) -> Admission {
        let mut guard = self.congestion.lock();
        let Some(congestion) = guard.as_deref_mut() else { return Admission::ALL };
        if !congestion.advance(now_ns) {
            self.is_active.store(false, Ordering::Relaxed);
            return Admission::ALL;
        }
        let rate = congestion.rate;
        let Some(account) = congestion.account(now_ns, sender, weight) else { return Admission::ALL };
        let mut admitted = 0;
        for charge in charges {
            // Until the rate is known, everything goes, and is counted.
            if rate.is_some() && account.credit <= 0 {
                break;
            }
            let cost = cost(charge);
            if rate.is_some() {
                account.credit = account.credit.saturating_sub(cost);
            }
            account.sent = account.sent.saturating_add(cost.unsigned_abs());
            admitted += 1;
        }
        let until = rate.filter(|_| account.credit <= 0).map(|rate| account.until(now_ns, rate));
        congestion.frames = congestion.frames.saturating_add(admitted as u64);
        congestion.was_over |= until.is_some();
        Admission { admitted, until }
    }

    /// How many frames of this mean size, all of them to the receiver, a sender may be read; or when.
    ///
    /// # Errors
    /// None now: put it off until then.
    pub(crate) fn room(&self, now_ns: u64, sender: u32, weight: u16, mean: Charge) -> Result<usize, u64> {
        let mut guard = self.congestion.lock();
        let Some(congestion) = guard.as_deref_mut().filter(|_| self.is_active()) else {
            return Ok(usize::MAX);
        };
        let Some(rate) = congestion.rate else { return Ok(usize::MAX) };
        let Some(account) = congestion.account(now_ns, sender, weight) else { return Ok(usize::MAX) };
        match account.credit > 0 {
            true => Ok(usize::try_from(account.credit / cost(mean).max(1)).unwrap_or(usize::MAX).max(1)),
            false => Err(account.until(now_ns, rate)),
        }
    }

    /// The common rate now, in cost a second for the default weight, while the receiver is congested.
    pub(crate) fn common_rate(&self) -> Option<u64> {
        self.congestion.lock().as_ref().filter(|_| self.is_active())?.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u32 = 1000;

    /// A receiver with a ring that its driver empties at a steady rate, in batches of 64 as drivers do.
    struct Receiver {
        share: FairShare,
        ring: u64,
        depth: u64,
        /// Nanoseconds a frame.
        pace: u64,
        emptied: u64,
    }

    impl Receiver {
        fn new(depth: u64, pace: u64) -> Receiver {
            Receiver { share: FairShare::default(), ring: 0, depth, pace, emptied: 0 }
        }

        /// Gives how many were delivered.
        fn deliver(&mut self, now: u64, frames: u64, is_fair: bool) -> u64 {
            let batches = (now - self.emptied) / (64 * self.pace);
            self.emptied += batches * 64 * self.pace;
            self.ring = self.ring.saturating_sub(batches * 64);
            let fits = frames.min(self.depth - self.ring);
            self.ring += fits;
            if fits < frames && is_fair {
                self.share.found_full(now, frames - fits);
            }
            fits
        }
    }

    /// A sender whose frames come at a steady rate into a ring of 1024.
    #[derive(Default)]
    struct Sender {
        weight: u16,
        /// Nanoseconds a frame.
        pace: u64,
        /// How many of ten frames go to a receiver that is not congested.
        elsewhere: u64,
        /// Frames that were read.
        read: u64,
        ring: u64,
        filled: u64,
        put_off: u64,
        is_held: bool,
        /// What became of the frames to the congested receiver.
        delivered: u64,
        lost_full: u64,
        lost_over: u64,
        delivered_elsewhere: u64,
    }

    impl Sender {
        fn new(pace: u64) -> Sender {
            Sender { weight: 100, pace, ..Sender::default() }
        }

        fn visit(&mut self, id: u32, now: u64, receiver: &mut Receiver, is_fair: bool) -> u64 {
            let came = (now - self.filled) / self.pace;
            self.filled += came * self.pace;
            self.ring = (self.ring + came).min(1024);
            if now < self.put_off {
                return 0;
            }
            let mut frames = self.ring.min(64);
            if self.is_held {
                match receiver.share.room(now, id, self.weight, Charge::one(FRAME)) {
                    Ok(room) => frames = frames.min(room as u64),
                    Err(until) => {
                        self.put_off = until;
                        return 0;
                    }
                }
            }
            self.ring -= frames;
            let elsewhere = (0..frames).filter(|n| (self.read + n) % 10 < self.elsewhere).count() as u64;
            self.read += frames;
            self.delivered_elsewhere += elsewhere;
            let mut there = frames - elsewhere;
            if receiver.share.is_active() && there > 0 {
                let charges = (0..there).map(|_| Charge::one(FRAME));
                let Admission { admitted, until } = receiver.share.admit(now, id, self.weight, charges);
                let over = there.saturating_sub(admitted as u64);
                self.lost_over += over;
                there -= over;
                let is_most = (over + there) * 2 > frames;
                self.is_held = is_most && (self.is_held || until.is_some());
                self.put_off = until.filter(|_| self.is_held).unwrap_or(0);
            }
            let delivered = receiver.deliver(now, there, is_fair);
            self.delivered += delivered;
            self.lost_full += there - delivered;
            frames
        }
    }

    /// A worker that visits the senders in turn, 50 ns a frame and 200 ns a visit. The first half of the time is not
    /// counted.
    fn run(receiver: &mut Receiver, senders: &mut [Sender], ms: u64, is_fair: bool) {
        let (mut now, half, end) = (0, ms * 500_000, ms * 1_000_000);
        let mut is_counting = false;
        while now < end {
            if now >= half && !is_counting {
                is_counting = true;
                for s in senders.iter_mut() {
                    (s.delivered, s.lost_full, s.lost_over, s.delivered_elsewhere) = (0, 0, 0, 0);
                }
            }
            for (id, s) in (0..).zip(senders.iter_mut()) {
                now += 200 + 50 * s.visit(id, now, receiver, is_fair);
            }
        }
    }

    /// A light sender and two heavy ones to a receiver that takes one frame in 1000 ns: a third each would be more than the
    /// light one sends.
    fn light_and_heavy() -> Vec<Sender> {
        vec![Sender::new(4_000), Sender::new(150), Sender::new(400)]
    }

    #[test]
    fn without_shares_the_heaviest_takes_most() {
        let mut senders = light_and_heavy();
        run(&mut Receiver::new(256, 1_000), &mut senders, 200, false);
        // The light sender's 25 000 frames in 100 ms meet a ring that is nearly always full.
        assert!(senders[0].delivered < 10_000, "{}", senders[0].delivered);
        assert!(senders[1].delivered > 60_000, "{}", senders[1].delivered);
    }

    #[test]
    fn with_shares_the_light_sender_gets_all_and_the_heavy_ones_the_same() {
        for depth in [128, 256, 1024] {
            let mut senders = light_and_heavy();
            let mut receiver = Receiver::new(depth, 1_000);
            run(&mut receiver, &mut senders, 400, true);
            let got: Vec<_> = senders.iter().map(|s| s.delivered).collect();
            let [light, heavy, heavier] = got[..] else { panic!("three") };
            // Of 50 000 frames in 200 ms.
            assert!(light >= 49_000, "{got:?} at {depth}");
            assert!((60_000..=78_000).contains(&heavy) && (60_000..=78_000).contains(&heavier), "{got:?}");
            assert!(light + heavy + heavier >= 180_000, "{got:?}: the receiver is kept busy");
            // What was held back was not lost.
            let lost: u64 = senders.iter().map(|s| s.lost_over + s.lost_full).sum();
            assert!(lost < 8_000, "{lost}");
        }
    }

    #[test]
    fn shares_go_by_weight() {
        let mut senders = vec![Sender::new(200), Sender::new(200), Sender::new(200)];
        senders[1].weight = 200;
        senders[2].weight = 300;
        run(&mut Receiver::new(256, 1_000), &mut senders, 400, true);
        let unit = senders.iter().map(|s| s.delivered).sum::<u64>() / 6;
        for s in &senders {
            let due = unit * u64::from(s.weight) / 100;
            assert!(s.delivered.abs_diff(due) < due / 8, "{} of {due}", s.delivered);
        }
    }

    #[test]
    fn a_sender_that_sends_elsewhere_as_well_is_not_held() {
        let mut senders = vec![Sender::new(300), Sender::new(150)];
        senders[0].elsewhere = 7;
        run(&mut Receiver::new(256, 1_000), &mut senders, 400, true);
        let mixed = &senders[0];
        // 200 ms of a frame in 300 ns, seven of ten elsewhere: 466 666 frames; and half of what the receiver takes.
        assert!(mixed.delivered_elsewhere > 460_000, "{}", mixed.delivered_elsewhere);
        assert!((85_000..115_000).contains(&mixed.delivered), "{}", mixed.delivered);
        assert!(mixed.lost_over > 80_000, "over its share, and it was not held: {}", mixed.lost_over);
    }

    #[test]
    fn congestion_ends() {
        let mut receiver = Receiver::new(256, 1_000);
        run(&mut receiver, &mut light_and_heavy(), 100, true);
        assert!(receiver.share.is_active());
        assert!(receiver.share.common_rate().is_some());
        // The receiver became fast.
        receiver.pace = 10;
        receiver.emptied = 0;
        run(&mut receiver, &mut light_and_heavy(), 400, true);
        assert!(!receiver.share.is_active());
        assert_eq!(receiver.share.room(0, 1, 100, Charge::one(60)), Ok(usize::MAX));
    }

    #[test]
    fn more_senders_than_accounts_share_some() {
        let share = FairShare::default();
        share.found_full(0, 1);
        for now in 0..3_000 {
            for sender in 0..200 {
                let admission = share.admit(now * 1_000, sender, 100, core::iter::once(Charge::one(60)));
                assert!(admission.admitted <= 1);
            }
        }
        assert!(share.is_active() && share.common_rate().is_some());
    }
}
