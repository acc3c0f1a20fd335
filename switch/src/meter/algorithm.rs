//! The three markers of the RFCs: how the buckets fill, what color they give, what they are charged.

use super::{Bucket, Color, MeterError, Source, Unit, bucket};

/// How colors are found. Rates are bits or packets a second, burst sizes bytes or packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// One rate, two burst sizes (RFC 2697, "srTCM"). Without excess burst size it is a plain policer.
    SingleRate {
        /// Committed information rate.
        cir: u64,
        /// Committed burst size.
        cbs: u64,
        /// Excess burst size.
        ebs: u64,
    },
    /// Two rates, of which the peak contains the committed one (RFC 2698, "trTCM").
    TwoRate {
        /// Committed information rate.
        cir: u64,
        /// Committed burst size.
        cbs: u64,
        /// Peak information rate; at least the committed one.
        pir: u64,
        /// Peak burst size.
        pbs: u64,
    },
    /// Two rates side by side (RFC 4115): yellow frames take nothing of the committed rate, and frames that come as yellow
    /// cannot use up what in-profile frames are due.
    TwoRateEfficient {
        /// Committed information rate.
        cir: u64,
        /// Committed burst size.
        cbs: u64,
        /// Excess information rate, on top of the committed one.
        eir: u64,
        /// Excess burst size.
        ebs: u64,
    },
}

impl Algorithm {
    /// What records know it by, together with the unit.
    pub(super) fn number(&self, unit: Unit) -> u8 {
        let algorithm = match self {
            Algorithm::SingleRate { .. } => 1,
            Algorithm::TwoRate { .. } => 2,
            Algorithm::TwoRateEfficient { .. } => 3,
        };
        algorithm + if unit == Unit::Packets { 16 } else { 0 }
    }

    pub(super) fn check(&self) -> Result<(), MeterError> {
        let (committed, other) = self.bursts();
        for size in [committed, other] {
            if size > bucket::MAX_BURST {
                return Err(MeterError::Burst(size));
            }
        }
        let never = match *self {
            Algorithm::TwoRate { cir, pir, .. } if pir < cir => {
                return Err(MeterError::PeakBelowCommitted { pir, cir });
            }
            // Whatever has no peak tokens is red.
            Algorithm::TwoRate { pbs, .. } => pbs == 0,
            _ => committed == 0 && other == 0,
        };
        if never { Err(MeterError::NoBurst) } else { Ok(()) }
    }

    fn bursts(&self) -> (u64, u64) {
        match *self {
            Algorithm::SingleRate { cbs, ebs, .. } | Algorithm::TwoRateEfficient { cbs, ebs, .. } => {
                (cbs, ebs)
            }
            Algorithm::TwoRate { cbs, pbs, .. } => (cbs, pbs),
        }
    }
}

/// The second bucket: what it is, and how it fills.
#[derive(Clone, Copy, Debug)]
enum Second {
    /// By what the first has no room for.
    Overflow(Bucket),
    /// By itself; green frames are charged to it too.
    Peak(Source, Bucket),
    /// By itself; only yellow frames are charged to it.
    Excess(Source, Bucket),
}

/// The buckets of a meter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets {
    source: Source,
    committed: Bucket,
    second: Second,
}

impl Buckets {
    pub(super) fn full(unit: Unit, algorithm: Algorithm) -> Buckets {
        let (first, other) = algorithm.bursts();
        let (cir, second) = match algorithm {
            Algorithm::SingleRate { cir, .. } => (cir, Second::Overflow(Bucket::full(other))),
            Algorithm::TwoRate { cir, pir, .. } => {
                (cir, Second::Peak(Source::new(unit, pir), Bucket::full(other)))
            }
            Algorithm::TwoRateEfficient { cir, eir, .. } => {
                (cir, Second::Excess(Source::new(unit, eir), Bucket::full(other)))
            }
        };
        Buckets { source: Source::new(unit, cir), committed: Bucket::full(first), second }
    }

    /// The buckets after a change of rates and sizes, of the same unit.
    pub(super) fn changed(&self, unit: Unit, algorithm: Algorithm) -> Buckets {
        let (first, other) = algorithm.bursts();
        let mut new = Buckets::full(unit, algorithm);
        let kept = match (&mut new.second, &self.second) {
            (Second::Overflow(bucket), Second::Overflow(old)) => Some((bucket, old)),
            (Second::Peak(_, bucket), Second::Peak(_, old)) => Some((bucket, old)),
            (Second::Excess(_, bucket), Second::Excess(_, old)) => Some((bucket, old)),
            _ => None,
        };
        if let Some((bucket, old)) = kept {
            *bucket = old.resized(other);
            new.committed = self.committed.resized(first);
        }
        new
    }

    /// Fills them with what came in so many nanoseconds.
    #[inline]
    pub(super) fn fill(&mut self, ns: u64) {
        let over = self.committed.add(self.source.gain(ns));
        match &mut self.second {
            Second::Overflow(excess) => {
                excess.add(over);
            }
            Second::Peak(source, bucket) | Second::Excess(source, bucket) => {
                bucket.add(source.gain(ns));
            }
        }
    }

    /// The color of a frame that came with one (green, where that does not count).
    #[inline]
    pub(super) fn color(&self, tokens: i64, came_as: Color) -> Color {
        if came_as == Color::Red {
            return Color::Red;
        }
        let committed = came_as == Color::Green && self.committed.holds(tokens);
        match &self.second {
            // RFC 2698: the peak is asked first.
            Second::Peak(_, peak) if !peak.holds(tokens) => Color::Red,
            Second::Peak(..) => match committed {
                true => Color::Green,
                false => Color::Yellow,
            },
            Second::Overflow(excess) | Second::Excess(_, excess) => match committed {
                true => Color::Green,
                false if excess.holds(tokens) => Color::Yellow,
                false => Color::Red,
            },
        }
    }

    /// Whether frames that take this many tokens together are all green, whatever their order: each finds at least its own
    /// tokens and those of the ones behind it.
    #[inline]
    pub(super) fn are_green(&self, tokens: i64) -> bool {
        let peak = match &self.second {
            Second::Peak(_, peak) => peak.covers(tokens),
            Second::Overflow(_) | Second::Excess(..) => true,
        };
        peak && self.committed.covers(tokens)
    }

    /// Charges a frame that got this color.
    #[inline]
    pub(super) fn take(&mut self, color: Color, tokens: i64) {
        match (color, &mut self.second) {
            (Color::Red, _) => {}
            (Color::Green, Second::Peak(_, peak)) => {
                self.committed.take(tokens);
                peak.take(tokens);
            }
            (Color::Green, _) => self.committed.take(tokens),
            (
                Color::Yellow,
                Second::Overflow(bucket) | Second::Peak(_, bucket) | Second::Excess(_, bucket),
            ) => {
                bucket.take(tokens);
            }
        }
    }
}

impl Buckets {
    /// Both buckets as records.
    pub(super) fn save(&self) -> [fabnic_saved::Bucket; 2] {
        let committed =
            fabnic_saved::Bucket { tokens: self.committed.tokens, remainder: self.source.remainder() };
        let other = match &self.second {
            Second::Overflow(bucket) => fabnic_saved::Bucket { tokens: bucket.tokens, remainder: 0 },
            Second::Peak(source, bucket) | Second::Excess(source, bucket) => {
                fabnic_saved::Bucket { tokens: bucket.tokens, remainder: source.remainder() }
            }
        };
        [committed, other]
    }

    /// Goes on from there, as far as the tokens fit.
    pub(super) fn restore(&mut self, [committed, other]: &[fabnic_saved::Bucket; 2]) {
        self.committed.put(committed.tokens);
        self.source.set_remainder(committed.remainder);
        match &mut self.second {
            Second::Overflow(bucket) => bucket.put(other.tokens),
            Second::Peak(source, bucket) | Second::Excess(source, bucket) => {
                bucket.put(other.tokens);
                source.set_remainder(other.remainder);
            }
        }
    }

    /// Tokens of the committed bucket, and of the other.
    pub(super) fn tokens(&self) -> (i64, i64) {
        let (Second::Overflow(other) | Second::Peak(_, other) | Second::Excess(_, other)) = &self.second;
        (self.committed.tokens, other.tokens)
    }
}
