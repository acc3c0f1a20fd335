//! Whose ring is read next: guarantees, strict priorities, weights.
//!
//! A round takes the queues that may be read now and sorts them into *bands*: those of ports below their guaranteed rate
//! first, then best effort; within both by priority, 7 first. The bands are served from the top, and a band only if none
//! above it was left with a backlog. Within a band of best effort the queues take turns by deficit round robin (Shreedhar
//! and Varghese, 1995), in the form where a turn may overdraw (surplus round robin), because the size of a frame is only
//! known when it has been read: a turn adds the queue's quantum to its deficit, it is read while that is above 0, and what
//! it has overdrawn it waits for in later turns.
//!
//! ```text
//!   begin --> next: slot --> allowance (frames) --> [worker reads a burst] --> charge --+
//!     ^         ^                 ^------------ as long as there is some ---------------+
//!     |         |                                                                       v
//!     |         +------------------------------------------------------- end_turn <-----+
//!     +-- None: every band done, or turns used up
//! ```
//!
//! One scheduler belongs to one worker and orders its queues. Rates (`max_tx_rate`, group, guarantee) are shared by all
//! workers that serve queues of the port. A port with several queues at a worker has one port's weight for all of them.
//!
//! # Invariants
//! * While any queue may be read and has a backlog, some queue is read (work-conserving).
//! * What a guarantee pays for is not counted against the turn: guaranteed bytes come on top of the share by weight.
//! * A round ends after [`TURNS_A_ROUND`] turns, and when a queue that was put off may be read again: what is of a higher
//!   band waits no longer than that.
//! * After the lists have grown to the number of queues, nothing is allocated.

use std::collections::HashMap;
use std::sync::Arc;

use fabnic_port::BURST;

use super::limit::{Rate, RateLimiter};
use super::share::FairShare;
use crate::meter::{Charge, Unit};

/// Number of priorities: 0 (last) to 7 (first).
pub const PRIORITIES: u8 = 8;
/// The weight of a port that has none configured.
pub const DEFAULT_WEIGHT: u16 = 100;
/// Bytes that a turn adds for each unit of weight: 64 KiB at the default.
const QUANTUM: i64 = 655;
/// Turns after which a round begins anew at the top.
const TURNS_A_ROUND: usize = 16;
/// Guaranteed and best effort, each with all priorities.
const BANDS: usize = 2 * PRIORITIES as usize;
/// The first band of best effort.
const BEST_EFFORT: usize = PRIORITIES as usize;
/// What a frame of a queue of which nothing is known is taken for.
const FIRST_GUESS: i64 = 1514;

/// What configuration says of what a port may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShaperSettings {
    /// It is read no faster than this (`max_tx_rate` of `ip link set vf`).
    pub(crate) max_tx_rate: Option<Rate>,
    /// Up to this it is read before all best effort (`min_tx_rate`). The sum over ports must be less than there is.
    pub(crate) min_tx_rate: Option<Rate>,
    /// Its share of what is left, against others of the same priority; at least 1.
    pub(crate) weight: u16,
    /// 7 is read before 6, and so on to 0. Strict: a lower one may starve.
    pub(crate) priority: u8,
}

impl Default for ShaperSettings {
    fn default() -> ShaperSettings {
        ShaperSettings { max_tx_rate: None, min_tx_rate: None, weight: DEFAULT_WEIGHT, priority: 0 }
    }
}

/// The sending side of a port: its settings, and the rates that its queues share.
#[derive(Debug)]
pub(crate) struct PortShaper {
    settings: ShaperSettings,
    max: Option<Arc<RateLimiter>>,
    min: Option<Arc<RateLimiter>>,
    groups: Vec<Arc<RateLimiter>>,
}

impl PortShaper {
    /// For a port of these groups (a tenant, an uplink), each of which limits all of its ports together. Where `old` has
    /// the same rates, they go on with their credit and debt, changed in place.
    pub(crate) fn new(
        settings: ShaperSettings,
        groups: Vec<Arc<RateLimiter>>,
        old: Option<&PortShaper>,
    ) -> PortShaper {
        let limiter = |rate: Option<Rate>, old: Option<&Arc<RateLimiter>>| {
            let rate = rate?;
            Some(match old {
                Some(old) => {
                    if old.rate() != rate {
                        old.change(rate);
                    }
                    Arc::clone(old)
                }
                None => Arc::new(RateLimiter::new(rate)),
            })
        };
        PortShaper {
            settings,
            max: limiter(settings.max_tx_rate, old.and_then(|old| old.max.as_ref())),
            min: limiter(settings.min_tx_rate, old.and_then(|old| old.min.as_ref())),
            groups,
        }
    }

    /// Whether there is anything to do: without, a port needs no scheduler.
    pub(crate) fn is_plain(&self) -> bool {
        self.settings == ShaperSettings::default() && self.groups.is_empty()
    }

    /// What the maximum rate has seen.
    pub(crate) fn max_limiter(&self) -> Option<&RateLimiter> {
        self.max.as_deref()
    }

    /// What the guarantee has paid for.
    pub(crate) fn min_limiter(&self) -> Option<&RateLimiter> {
        self.min.as_deref()
    }

    fn limits(&self) -> impl Iterator<Item = &RateLimiter> {
        self.max.iter().chain(&self.groups).map(|limiter| &**limiter)
    }

    /// How many frames of this mean size may be read; or when some may.
    fn allowance(&self, now: u64, mean: Charge) -> Result<usize, u64> {
        let mut frames = BURST;
        let mut until = 0;
        for limiter in self.limits() {
            match limiter.credit(now) {
                Ok(credit) => frames = frames.min(in_frames(credit.tokens, credit.unit, mean)),
                Err(then) => until = until.max(then),
            }
        }
        if until > 0 { Err(until) } else { Ok(frames) }
    }

    fn charge(&self, now: u64, charge: Charge) {
        for limiter in self.limits() {
            limiter.charge(now, charge);
        }
    }
}

/// Frames that so much is good for; at least 1, because a frame may overdraw.
fn in_frames(tokens: i64, unit: Unit, mean: Charge) -> usize {
    let each = Rate { unit, per_second: 0 }.tokens(mean).max(1);
    usize::try_from(tokens / each).unwrap_or(1).clamp(1, BURST)
}

/// The congested receiver that most frames of a burst go to.
#[derive(Debug)]
pub(crate) struct Toward {
    pub(crate) share: Arc<FairShare>,
    /// So many of them.
    pub(crate) frames: usize,
    /// They use up the sender's share.
    pub(crate) is_over: bool,
}

/// A queue, as the scheduler knows it.
#[derive(Debug)]
struct Slot {
    port: u32,
    shaper: Option<Arc<PortShaper>>,
    /// Bytes that it may still be read in its turn; below 0 what it has overdrawn.
    deficit: i64,
    /// Its quantum has been added and not used up.
    in_turn: bool,
    /// Its turn of this round is over: it goes behind the others.
    has_served: bool,
    /// Not to be read before.
    put_off: u64,
    /// What its frames were lately, a frame; bytes and packets.
    mean: Charge,
    /// The congested receiver that its frames mostly go to.
    toward: Option<Arc<FairShare>>,
}

impl Slot {
    fn settings(&self) -> ShaperSettings {
        self.shaper.as_ref().map(|shaper| shaper.settings).unwrap_or_default()
    }

    /// How many frames may be read of it by all that holds it back; or when some may.
    fn limit(&self, now: u64) -> Result<usize, u64> {
        if self.put_off > now {
            return Err(self.put_off);
        }
        let frames = match &self.shaper {
            Some(shaper) => shaper.allowance(now, self.mean)?,
            None => BURST,
        };
        match &self.toward {
            Some(share) => Ok(share.room(now, self.port, self.settings().weight, self.mean)?.min(frames)),
            None => Ok(frames),
        }
    }

    /// What it may do now: its band. Or when it may do something.
    fn band(&self, now: u64) -> Result<usize, u64> {
        self.limit(now)?;
        let Some(shaper) = &self.shaper else { return Ok(BANDS - 1) };
        let priority = usize::from((PRIORITIES - 1).saturating_sub(shaper.settings.priority));
        let is_guaranteed = shaper.min.as_ref().is_some_and(|min| min.credit(now).is_ok());
        Ok(if is_guaranteed { priority } else { BEST_EFFORT + priority })
    }
}

impl Slot {
    /// When its guarantee comes before the others again; the far future, if it does now or never.
    fn guaranteed_from(&self, now: u64) -> u64 {
        let min = self.shaper.as_ref().and_then(|shaper| shaper.min.as_ref());
        min.and_then(|min| min.credit(now).err()).unwrap_or(u64::MAX)
    }
}

/// The turns of one worker's queues.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Queues of each port.
    queues: HashMap<u32, i64>,
    /// Slots, the one that was read longest ago first.
    order: Vec<usize>,
    scratch: Vec<usize>,
    bands: [Vec<usize>; BANDS],
    /// Where the round is: the band, and the place in it.
    band: usize,
    place: usize,
    /// A queue of the band was left with a backlog that may be read.
    is_backlogged: bool,
    /// A queue of the band was left with a backlog, whether it may be read now or not.
    has_left: bool,
    /// Turns left in the round.
    turns: usize,
    /// Queues of the band that had overdrawn.
    skipped: Vec<usize>,
    /// When the first of those that may not be read now may be, or comes before the others.
    next_time: u64,
    /// Something was read in this turn.
    has_read: bool,
}

impl Scheduler {
    /// A queue of a port comes. Gives its slot.
    pub(crate) fn add(&mut self, port: u32, shaper: Option<Arc<PortShaper>>) -> usize {
        let slot = Slot {
            port,
            shaper,
            deficit: 0,
            in_turn: false,
            has_served: false,
            put_off: 0,
            mean: Charge { bytes: FIRST_GUESS as u32, packets: 1 },
            toward: None,
        };
        *self.queues.entry(port).or_default() += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(slot);
        }
        self.order.push(index);
        index
    }

    /// It goes.
    pub(crate) fn remove(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index).and_then(Option::take) else { return };
        if let Some(count) = self.queues.get_mut(&slot.port) {
            *count -= 1;
            if *count <= 0 {
                self.queues.remove(&slot.port);
            }
        }
        self.order.retain(|other| *other != index);
        for band in &mut self.bands {
            // A place in the round stays, and is passed over.
            band.retain(|other| *other != index);
        }
        self.skipped.retain(|other| *other != index);
        self.free.push(index);
    }

    /// It is not to be read before a time, for whatever reason.
    pub(crate) fn put_off(&mut self, index: usize, until: u64) {
        if let Some(slot) = self.slot_mut(index) {
            slot.put_off = until;
        }
    }

    fn slot(&self, index: usize) -> Option<&Slot> {
        self.slots.get(index)?.as_ref()
    }

    fn slot_mut(&mut self, index: usize) -> Option<&mut Slot> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// What a turn adds.
    fn quantum(&self, slot: &Slot) -> i64 {
        let queues = self.queues.get(&slot.port).copied().unwrap_or(1).max(1);
        (i64::from(slot.settings().weight.max(1)) * QUANTUM / queues).max(1)
    }

    /// Plans a round.
    pub(crate) fn begin(&mut self, now: u64) {
        for band in &mut self.bands {
            band.clear();
        }
        let Scheduler { slots, order, scratch, bands, next_time, .. } = self;
        *next_time = u64::MAX;
        scratch.clear();
        // Those that were read in the last round go behind the others.
        for served in [false, true] {
            let of_kind =
                |index: &usize| matches!(slots.get(*index), Some(Some(slot)) if slot.has_served == served);
            scratch.extend(order.iter().copied().filter(of_kind));
        }
        core::mem::swap(order, scratch);
        for index in order.iter() {
            let Some(Some(slot)) = slots.get_mut(*index) else { continue };
            slot.has_served = false;
            match slot.band(now) {
                Ok(band) => {
                    if let Some(band) = bands.get_mut(band) {
                        band.push(*index);
                    }
                    // Below its guarantee it is best effort as well.
                    if band < BEST_EFFORT
                        && let Some(band) = bands.get_mut(BEST_EFFORT + band)
                    {
                        band.push(*index);
                    }
                    *next_time = slot.guaranteed_from(now).min(*next_time);
                }
                Err(until) => *next_time = until.min(*next_time),
            }
        }
        (self.band, self.place, self.is_backlogged, self.has_left) = (0, 0, false, false);
        self.turns = TURNS_A_ROUND;
        self.skipped.clear();
    }

    /// The next queue of the round.
    pub(crate) fn next(&mut self, now: u64) -> Option<usize> {
        // Whoever may be read again may be of a higher band.
        while self.turns > 0 && now < self.next_time {
            let Some(index) = self.bands.get(self.band)?.get(self.place).copied() else {
                if !self.end_band() {
                    return None;
                }
                continue;
            };
            self.place += 1;
            let quantum = self.slot(index).map(|slot| self.quantum(slot));
            let is_guaranteed = self.band < BEST_EFFORT;
            let (Some(quantum), Some(slot)) = (quantum, self.slot_mut(index)) else { continue };
            // What it shares with others may be used up by now.
            match slot.band(now) {
                Ok(band) if is_guaranteed && band >= BEST_EFFORT => continue,
                Ok(_) => {}
                Err(until) => {
                    self.next_time = until.min(self.next_time);
                    continue;
                }
            }
            if !is_guaranteed {
                if !slot.in_turn {
                    slot.deficit = slot.deficit.saturating_add(quantum);
                    slot.in_turn = true;
                }
                if slot.deficit <= 0 {
                    // It has had its turn, with nothing to read.
                    (slot.in_turn, slot.has_served) = (false, true);
                    self.skipped.push(index);
                    continue;
                }
            }
            self.turns -= 1;
            self.has_read = false;
            return Some(index);
        }
        None
    }

    /// Goes on with the next band; or with those that had overdrawn, if nobody else of their band has anything left.
    /// `false`: the round is over.
    fn end_band(&mut self) -> bool {
        if !self.has_left && !self.skipped.is_empty() {
            // As many turns at once as it takes until one of them may be read.
            let turns = |slot: &Slot| slot.deficit.saturating_neg().max(0) / self.quantum(slot);
            let least =
                self.skipped.iter().filter_map(|index| self.slot(*index)).map(turns).min().unwrap_or(0);
            let mut again = core::mem::take(&mut self.skipped);
            for index in &again {
                let quantum = self.slot(*index).map_or(0, |slot| self.quantum(slot));
                if let Some(slot) = self.slot_mut(*index) {
                    slot.deficit = slot.deficit.saturating_add(quantum.saturating_mul(least));
                }
            }
            if let Some(band) = self.bands.get_mut(self.band) {
                core::mem::swap(band, &mut again);
            }
            again.clear();
            (self.skipped, self.place) = (again, 0);
            return true;
        }
        if self.is_backlogged || !self.skipped.is_empty() {
            return false;
        }
        (self.band, self.place, self.has_left) = (self.band + 1, 0, false);
        self.band < BANDS
    }

    /// How many frames may be read of it now, in one burst. 0: its turn is over.
    pub(crate) fn allowance(&mut self, index: usize, now: u64) -> usize {
        let is_guaranteed = self.band < BEST_EFFORT;
        let Some(slot) = self.slot(index) else { return 0 };
        let by_turn = match (is_guaranteed, &slot.shaper) {
            (false, _) if slot.deficit <= 0 => return 0,
            (false, _) => in_frames(slot.deficit, Unit::Bits, slot.mean),
            (true, Some(shaper)) => match shaper.min.as_ref().map(|min| min.credit(now)) {
                Some(Ok(credit)) => in_frames(credit.tokens, credit.unit, slot.mean),
                _ => return 0,
            },
            (true, None) => return 0,
        };
        // Somebody else may come first; the turn goes on afterwards.
        if self.has_read && now >= self.next_time {
            return 0;
        }
        match slot.limit(now) {
            Ok(frames) => frames.min(by_turn),
            Err(until) => {
                self.next_time = until.min(self.next_time);
                0
            }
        }
    }

    /// Charges a burst that was read.
    pub(crate) fn charge(&mut self, index: usize, now: u64, charge: Charge, frames: usize) {
        let is_guaranteed = self.band < BEST_EFFORT;
        self.has_read |= frames > 0;
        let Some(slot) = self.slot_mut(index) else { return };
        if let Some(shaper) = &slot.shaper {
            shaper.charge(now, charge);
            if let Some(min) = shaper.min.as_ref().filter(|_| is_guaranteed) {
                min.charge(now, charge);
            }
        }
        if !is_guaranteed {
            slot.deficit = slot.deficit.saturating_sub(charge.bytes.into());
        }
        if let Some(frames) = u32::try_from(frames).ok().filter(|frames| *frames > 0) {
            let smooth = |old: u32, new: u32| (old.saturating_add(new) / 2).max(1);
            slot.mean.bytes = smooth(slot.mean.bytes, charge.bytes / frames);
            slot.mean.packets = smooth(slot.mean.packets, charge.packets.div_ceil(frames));
        }
    }

    /// Of `frames` that were read, most went to a congested receiver, or not. From the first time that they are over the
    /// sender's share there, it is read no more than that.
    pub(crate) fn heads(&mut self, index: usize, toward: Option<Toward>, frames: usize) {
        let Some(slot) = self.slot_mut(index) else { return };
        let toward = toward.filter(|toward| toward.frames * 2 > frames && toward.share.is_active());
        let is_held = slot.toward.is_some();
        slot.toward = toward.filter(|toward| is_held || toward.is_over).map(|toward| toward.share);
    }

    /// The worker goes on to another queue; `is_drained` says whether this one was found empty.
    pub(crate) fn end_turn(&mut self, index: usize, now: u64, is_drained: bool) {
        let is_guaranteed = self.band < BEST_EFFORT;
        let now_in = self.slot(index).and_then(|slot| slot.band(now).ok());
        let again = self.slot(index).map_or(u64::MAX, |slot| slot.guaranteed_from(now));
        self.next_time = again.min(self.next_time);
        let may_go_on = !is_drained && now_in.is_some_and(|band| !is_guaranteed || band < BEST_EFFORT);
        self.is_backlogged |= may_go_on;
        self.has_left |= !is_drained;
        let Some(slot) = self.slot_mut(index) else { return };
        if is_drained {
            // What was not used is not saved; what was overdrawn stays.
            slot.deficit = slot.deficit.min(0);
        }
        let is_over = slot.deficit <= 0;
        slot.in_turn &= !is_over;
        // A turn that a rate cut short goes on in a later round, before the others; one that is long, at once.
        // What a guarantee pays for is no turn.
        slot.has_served |= is_over && !is_guaranteed;
        if may_go_on && (is_guaranteed || !is_over) {
            self.place = self.place.saturating_sub(1);
        }
    }

    /// Whether none may be read now, as the round was planned.
    pub(crate) fn is_idle(&self) -> bool {
        self.bands.iter().all(Vec::is_empty)
    }

    /// When the first of those that could not be read may be; the far future if there is none.
    pub(crate) fn next_time(&self) -> u64 {
        self.next_time
    }
}

#[cfg(test)]
mod tests;
