//! Meters: three-color markers that say of each frame whether it keeps to a rate (RFC 2697, RFC 2698, RFC 4115).
//!
//! ```text
//!   frames of a burst --> Charge of each --> Meter::charge_run --> Marking of each: color, DSCP to set, or dropped
//!                         (segments count)      | one short lock: refill once, then frame by frame
//!                                               |
//!                        [committed bucket] [excess or peak bucket]   each filled by its own Source, exactly
//! ```
//!
//! | algorithm | green | yellow | red |
//! |---|---|---|---|
//! | single rate (RFC 2697) | C has tokens | E, which takes what C has no room for, has them | else |
//! | two rates (RFC 2698) | P and C have tokens | only P has them | P has none |
//! | two rates, efficient (RFC 4115) | C has tokens | E, filled at a rate of its own, has them | else |
//!
//! A *color-blind* meter judges by its buckets alone; a *color-aware* one never makes a frame better than it came: than the
//! meter before found it, or, where the meter says so, than its DSCP says too ([`Color::of_dscp`]). What is done with yellow and red frames is the meter's own: pass, set the
//! DSCP, drop. A meter is created by configuration, shared by whoever names it (ports, rules, several of each), and
//! changed in place; time is a parameter.
//!
//! # Invariants
//! * Frame by frame or a run at once: the same colors, the same buckets.
//! * A frame that is dropped takes no tokens, of this meter or of any other of its [`MeterChain`].
//! * In any whole second the frames that pass are at most what the rate says and one bucket; nothing is rounded
//!   (`bucket`).
//! * Time that goes back brings no tokens. A clock that went back for good, by more than a second, is taken as the new
//!   time; short steps back are other workers that read it a moment ago.
//!
//! # Lock
//! The buckets stand behind a lock that is held for the frames of one burst. Both buckets, their remainders and the time
//! change together, which no single atomic word holds; a run of frames pays for the lock once.

mod algorithm;
mod bucket;
mod chain;
mod saved;
mod storm;

use core::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use fabnic_port::{Counter, Frame};
use fabnic_wire::FlowFields;

pub use algorithm::Algorithm;
pub(crate) use bucket::{Bucket, Source};
pub use chain::MAX_CHAIN;
pub(crate) use chain::MeterChain;
pub(crate) use storm::StormControl;
pub use storm::{FloodKind, StormLimit, StormSettings};

use algorithm::Buckets;

/// A step back in time that is longer is taken for a clock that was set, in nanoseconds.
pub(crate) const BACK_FOR_GOOD_NS: u64 = 1_000_000_000;

/// The worst to the best that a meter says of a frame is red, yellow, green.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Color {
    /// Within the committed rate.
    #[default]
    Green,
    /// Beyond it, within the excess.
    Yellow,
    /// Beyond both.
    Red,
}

impl Color {
    /// The color that a code point stands for: the drop precedence of Assured Forwarding, where it is one of that (RFC 2597,
    /// section 6), else green. AFx1 is green, AFx2 yellow, AFx3 red.
    pub fn of_dscp(dscp: u8) -> Color {
        match (dscp >> 3, dscp & 7) {
            (1..=4, 0b100) => Color::Yellow,
            (1..=4, 0b110) => Color::Red,
            _ => Color::Green,
        }
    }

    /// The color that a type of service or traffic class stands for; green where there is none.
    pub(crate) fn of_tos(tos: Option<u8>) -> Color {
        tos.map_or(Color::Green, |tos| Color::of_dscp(tos >> 2))
    }

    /// The color that a frame comes with: by its IP header, behind at most two tags.
    pub(crate) fn of_frame(frame: &Frame) -> Color {
        let flow = FlowFields::of(frame.head());
        Color::of_tos(flow.network().map(|_| flow.tos))
    }
}

/// Which color counts beside a meter's own buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ColorAware {
    /// None: the meter is color-blind.
    #[default]
    No,
    /// The worst that the meters before it in a chain gave.
    Meters,
    /// The worse one of that and of what the DSCP stands for.
    Dscp,
}

/// What a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Rates in bits a second, burst sizes in bytes.
    Bits,
    /// Rates in packets a second, burst sizes in packets.
    Packets,
}

impl Unit {
    /// A burst size that suits a rate if none is given: what comes in 10 ms, and at least 64 KiB (16 packets), so that
    /// one large TSO frame fits.
    pub fn default_burst(self, rate: u64) -> u64 {
        let (in_10_ms, least) = match self {
            Unit::Bits => (rate / 800, 65_536),
            Unit::Packets => (rate / 100, 16),
        };
        in_10_ms.clamp(least, bucket::MAX_BURST)
    }
}

/// What becomes of frames of a color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ColorAction {
    /// They go on.
    #[default]
    Pass,
    /// They go on with this DSCP (0 to 63), if they are IP.
    SetDscp(u8),
    /// They end here.
    Drop,
}

/// What configuration says of a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MeterSettings {
    /// Bits or packets.
    pub unit: Unit,
    /// How colors are found, with its rates (bits or packets a second) and burst sizes (bytes or packets).
    pub algorithm: Algorithm,
    /// Which color counts that a frame comes with.
    pub color_aware: ColorAware,
    /// Bytes counted for each packet beside those of its Ethernet frame: 4 with the FCS, 24 for all that it takes of a
    /// wire.
    pub overhead: u8,
    /// What is done with yellow frames.
    pub yellow: ColorAction,
    /// What is done with red frames.
    pub red: ColorAction,
}

impl MeterSettings {
    /// One rate, one bucket, and the rest dropped: `police rate .. burst ..`.
    pub fn policer(unit: Unit, rate: u64, burst: u64) -> MeterSettings {
        MeterSettings {
            unit,
            algorithm: Algorithm::SingleRate { cir: rate, cbs: burst, ebs: 0 },
            color_aware: ColorAware::No,
            overhead: 0,
            yellow: ColorAction::Pass,
            red: ColorAction::Drop,
        }
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// What is wrong with which value.
    pub fn check(&self) -> Result<(), MeterError> {
        for action in [self.yellow, self.red] {
            if let ColorAction::SetDscp(dscp) = action
                && dscp > 63
            {
                return Err(MeterError::Dscp(dscp));
            }
        }
        self.algorithm.check()
    }

    fn action(&self, color: Color) -> ColorAction {
        match color {
            Color::Green => ColorAction::Pass,
            Color::Yellow => self.yellow,
            Color::Red => self.red,
        }
    }

    /// The tokens that a frame takes.
    #[inline]
    fn tokens(&self, charge: Charge) -> i64 {
        match self.unit {
            Unit::Bits => i64::from(charge.bytes) + i64::from(charge.packets) * i64::from(self.overhead),
            Unit::Packets => i64::from(charge.packets),
        }
    }
}

/// Settings of a meter that contradict themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// No burst size is greater than 0.
    #[error("meter: all burst sizes are 0; no frame would ever pass (expected at least one above 0)")]
    NoBurst,
    /// A burst size beyond all sense.
    #[error("meter: burst size {0} is too large (expected at most 2^40 bytes or packets)")]
    Burst(u64),
    /// PIR below CIR (RFC 2698, section 2).
    #[error("meter: peak rate {pir} is below the committed rate {cir} (expected at least that)")]
    PeakBelowCommitted {
        /// The peak information rate.
        pir: u64,
        /// The committed information rate.
        cir: u64,
    },
    /// Not six bits.
    #[error("meter: DSCP {0} does not exist (expected 0 to 63)")]
    Dscp(u8),
    /// Too many meters for one frame.
    #[error("meter chain: {0} meters, each frame can pass at most {MAX_CHAIN}")]
    ChainLength(usize),
    /// The same meter twice.
    #[error("meter chain: a meter is named twice; each frame is charged once by a meter")]
    Twice,
}

/// What a frame is charged.
///
/// Its bytes are those of the Ethernet frame without FCS, as it came (tags count). A frame that is still to be segmented
/// (TSO, USO) is charged what its segments will be: as many packets, and all headers again for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Bytes.
    pub bytes: u32,
    /// Packets.
    pub packets: u32,
}

impl Charge {
    /// Of a frame in one piece.
    #[inline]
    pub fn one(bytes: u32) -> Charge {
        Charge { bytes, packets: 1 }
    }

    /// Of several frames, none of which is marked. Nothing, if one is, or if they are too much for one charge.
    pub(crate) fn of_all(frames: &[Frame]) -> Option<Charge> {
        let mut total = Charge::default();
        for frame in frames {
            if frame.marked().is_some() {
                return None;
            }
            let Charge { bytes, packets } = Charge::of(frame);
            total.bytes = total.bytes.checked_add(bytes)?;
            total.packets = total.packets.checked_add(packets)?;
        }
        Some(total)
    }

    /// Of any frame.
    #[inline]
    pub fn of(frame: &Frame) -> Charge {
        let offload = frame.offload();
        if !offload.is_gso() {
            return Charge::one(frame.len());
        }
        let header = u32::from(offload.hdr_len);
        let payload = frame.len().saturating_sub(header);
        let packets = payload.div_ceil(u32::from(offload.gso_size).max(1)).max(1);
        Charge { bytes: frame.len().saturating_add((packets - 1).saturating_mul(header)), packets }
    }
}

/// What meters have said of a frame so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marking {
    /// Its color: the worst of them.
    pub color: Color,
    /// The color of its DSCP; asked for only by meters that [read it](ColorAware::Dscp).
    pub came_as: Color,
    /// The DSCP to set, by the last of them that wants one.
    pub dscp: Option<u8>,
    /// It is to be dropped; later meters do not see it.
    pub is_dropped: bool,
}

impl Marking {
    /// A frame that no meter has seen, with the color that it comes with.
    pub fn of(color: Color) -> Marking {
        Marking { color, ..Marking::default() }
    }

    #[inline]
    fn apply(&mut self, color: Color, action: ColorAction) {
        self.color = self.color.max(color);
        match action {
            ColorAction::Pass => {}
            ColorAction::SetDscp(dscp) => self.dscp = Some(dscp),
            ColorAction::Drop => self.is_dropped = true,
        }
    }
}

/// What a meter charged: packets as they will be on a wire (segments), and their bytes with the meter's overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A meter's numbers since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterStats {
    /// Found green.
    pub green: Metered,
    /// Found yellow.
    pub yellow: Metered,
    /// Found red.
    pub red: Metered,
    /// Good for this meter but refused by another of the chain: nothing was taken, and no color counted.
    pub refused_by_other: Metered,
}

/// A meter at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterState {
    /// What configuration says of it.
    pub settings: MeterSettings,
    /// Its numbers.
    pub stats: MeterStats,
    /// Tokens in the committed bucket, in bytes or packets; less than none is a debt.
    pub committed: i64,
    /// Tokens in the other bucket: peak or excess.
    pub other: i64,
}

#[derive(Debug, Default)]
struct Tallies {
    packets: [Counter; 4],
    bytes: [Counter; 4],
}

impl Tallies {
    /// Adds; the caller holds the meter's lock.
    #[inline]
    fn add(&self, place: usize, charge: Charge, overhead: u8) {
        if let (Some(packets), Some(bytes)) = (self.packets.get(place), self.bytes.get(place)) {
            packets.add(charge.packets.into());
            bytes.add(u64::from(charge.bytes) + u64::from(charge.packets) * u64::from(overhead));
        }
    }

    /// Numbers go on from what was counted before; the caller holds the meter's lock.
    fn go_on(&self, place: usize, before_packets: u64, before_bytes: u64) {
        if let (Some(packets), Some(bytes)) = (self.packets.get(place), self.bytes.get(place)) {
            packets.add(before_packets);
            bytes.add(before_bytes);
        }
    }

    fn read(&self, place: usize) -> Metered {
        let get = |counters: &[Counter; 4]| counters.get(place).map_or(0, Counter::get);
        Metered { packets: get(&self.packets), bytes: get(&self.bytes) }
    }
}

const REFUSED: usize = 3;

/// The changing part of a meter.
#[derive(Debug)]
struct State {
    settings: MeterSettings,
    buckets: Buckets,
    /// The latest time seen; `None` before the first frame.
    last: Option<u64>,
}

impl State {
    /// Fills the buckets up to now.
    #[inline]
    fn refill(&mut self, now: u64) {
        let Some(last) = self.last else {
            self.last = Some(now);
            return;
        };
        if now > last {
            self.buckets.fill(now - last);
            self.last = Some(now);
        } else if last - now > BACK_FOR_GOOD_NS {
            self.last = Some(now);
        }
    }

    /// Whether every frame of several that are this much together is green. No, where the color that they come with
    /// counts.
    #[inline]
    fn has_for_all(&self, total: Charge) -> bool {
        self.settings.color_aware == ColorAware::No && self.buckets.are_green(self.settings.tokens(total))
    }

    /// What this meter would say, and take.
    #[inline]
    fn look(&self, charge: Charge, marking: &Marking) -> (Color, ColorAction, i64) {
        let tokens = self.settings.tokens(charge);
        let came_as = match self.settings.color_aware {
            ColorAware::No => Color::Green,
            ColorAware::Meters => marking.color,
            ColorAware::Dscp => marking.color.max(marking.came_as),
        };
        let color = self.buckets.color(tokens, came_as);
        (color, self.settings.action(color), tokens)
    }
}

/// A meter.
#[derive(Debug)]
pub struct Meter {
    state: Mutex<State>,
    /// What the settings say of it; beside the lock, because it is asked before frames are charged.
    reads_dscp: AtomicBool,
    tallies: Tallies,
}

impl Meter {
    /// A meter with full buckets.
    ///
    /// # Errors
    /// The settings make no sense.
    pub fn new(settings: MeterSettings) -> Result<Meter, MeterError> {
        settings.check()?;
        let buckets = Buckets::full(settings.unit, settings.algorithm);
        Ok(Meter {
            state: Mutex::new(State { settings, buckets, last: None }),
            reads_dscp: AtomicBool::new(settings.color_aware == ColorAware::Dscp),
            tallies: Tallies::default(),
        })
    }

    /// Changes it in place. Counters go on; buckets keep their tokens as far as they fit, unless unit or algorithm are
    /// others: then they start full.
    ///
    /// # Errors
    /// The settings make no sense; nothing has changed.
    pub fn change(&self, settings: MeterSettings) -> Result<(), MeterError> {
        settings.check()?;
        let mut state = self.state.lock();
        state.buckets = match state.settings.unit == settings.unit {
            true => state.buckets.changed(settings.unit, settings.algorithm),
            false => Buckets::full(settings.unit, settings.algorithm),
        };
        state.settings = settings;
        self.reads_dscp.store(settings.color_aware == ColorAware::Dscp, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the colors of DSCPs count: then [`Marking::came_as`] has to be told.
    pub fn reads_dscp(&self) -> bool {
        self.reads_dscp.load(Ordering::Relaxed)
    }

    /// The settings.
    pub fn settings(&self) -> MeterSettings {
        self.state.lock().settings
    }

    /// The numbers. Each is right; those of a burst in work may be there in part.
    pub fn stats(&self) -> MeterStats {
        MeterStats {
            green: self.tallies.read(Color::Green as usize),
            yellow: self.tallies.read(Color::Yellow as usize),
            red: self.tallies.read(Color::Red as usize),
            refused_by_other: self.tallies.read(REFUSED),
        }
    }

    /// What it is at a time, which it is not moved on to.
    pub fn state(&self, now_ns: u64) -> MeterState {
        let (settings, mut buckets, last) = {
            let state = self.state.lock();
            (state.settings, state.buckets, state.last)
        };
        buckets.fill(last.map_or(0, |last| now_ns.saturating_sub(last)));
        let (committed, other) = buckets.tokens();
        MeterState { settings, stats: self.stats(), committed, other }
    }

    /// Charges one frame at a time in nanoseconds, on any clock that all callers share.
    pub fn charge(&self, now_ns: u64, charge: Charge, marking: &mut Marking) {
        self.charge_run(now_ns, &[charge], core::slice::from_mut(marking));
    }

    /// Charges frames as a whole, if that is the same as charging each: all are green, and pass. Else nothing is charged, and
    /// `false` given.
    pub(crate) fn charge_green(&self, now_ns: u64, total: Charge) -> bool {
        let mut state = self.state.lock();
        state.refill(now_ns);
        let good = state.has_for_all(total);
        if good {
            self.take_green(&mut state, total);
        }
        good
    }

    /// Takes the tokens of frames that are all green.
    #[inline]
    fn take_green(&self, state: &mut State, total: Charge) {
        let tokens = state.settings.tokens(total);
        state.buckets.take(Color::Green, tokens);
        self.tallies.add(Color::Green as usize, total, state.settings.overhead);
    }

    /// Charges frames one after the other, at one time and under one lock: the outcome is that of charging each alone.
    /// Frames that are already dropped are not charged.
    pub fn charge_run(&self, now_ns: u64, charges: &[Charge], markings: &mut [Marking]) {
        let mut state = self.state.lock();
        state.refill(now_ns);
        let overhead = state.settings.overhead;
        for (charge, marking) in charges.iter().zip(markings) {
            if marking.is_dropped {
                continue;
            }
            let (color, action, tokens) = state.look(*charge, marking);
            if action != ColorAction::Drop {
                state.buckets.take(color, tokens);
            }
            self.tallies.add(color as usize, *charge, overhead);
            marking.apply(color, action);
        }
    }
}

#[cfg(test)]
mod tests;
