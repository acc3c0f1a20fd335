//! Meters of the reference switch, from the text of RFC 2697, RFC 2698 and RFC 4115.
//!
//! # The rules
//!
//! 1. A bucket starts full. From the meter's first frame on it gets a token at each moment k / rate, one by one, unless it is
//!    full. With one rate (RFC 2697) a token for which the committed bucket has no room goes to the excess bucket.
//! 2. A frame takes as many tokens as it has bytes, without FCS, or one where packets are counted.
//! 3. The colors are those of the three RFCs. Beyond them: a frame that is longer than a bucket finds enough in it when the
//!    bucket is full, and leaves it that much below zero.
//! 4. What is dropped takes nothing. A frame that passes several meters takes of each, or, if one of them drops it, of none;
//!    one that is color-aware sees the worst color that those before it gave, and, if it reads that, the drop precedence of
//!    Assured Forwarding (RFC 2597): AFx1 is green, AFx2 yellow, AFx3 red, and what is none of these is green.
//! 5. A frame from a port passes the port's meter and then its tenant's, after the rules at ingress: `metered`. If it is to be
//!    flooded it then passes the port's meter for broadcast, multicast or unknown unicast: `storm_broadcast`,
//!    `storm_multicast`, `storm_unknown_unicast`. Each copy passes the meter of the port that it leaves by, as long as it is
//!    without its VLAN's tag: `metered`.
//!    What a rule names, with the meters over it, or has of its own, comes in the rule's turn: `metered`. It does not keep
//!    later rules from being asked, but for the copies of flooded frames.
//! 6. Yellow frames may be dropped, or get a DSCP, except at the port that they leave by.

use std::collections::BTreeMap;

/// How colors are found. Rates in bits (or packets) a second, sizes in bytes (or packets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 2697: CIR, CBS, EBS.
    Single(u64, u64, u64),
    /// RFC 2698: CIR, CBS, PIR, PBS.
    Two(u64, u64, u64, u64),
    /// RFC 4115: CIR, CBS, EIR, EBS.
    Efficient(u64, u64, u64, u64),
}

/// What is done with yellow frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yellow {
    /// Nothing.
    Pass,
    /// They get a DSCP.
    Dscp(u8),
    /// They are dropped.
    Drop,
}

/// Settings of a meter. Red frames are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Packets are counted, not bytes.
    pub packets: bool,
    /// How.
    pub kind: Kind,
    /// Which colors count that the frame comes with.
    pub aware: Aware,
    /// What is done with yellow.
    pub yellow: Yellow,
}

/// Which color of a frame a meter sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aware {
    /// None.
    No,
    /// That by earlier meters.
    Meters,
    /// The worse one of that and of its DSCP's.
    Dscp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Color {
    Green,
    Yellow,
    Red,
}

/// The code points of RFC 2597, section 6, by class, those of low, of medium and of high drop precedence.
const ASSURED: [[u8; 3]; 4] = [[10, 12, 14], [18, 20, 22], [26, 28, 30], [34, 36, 38]];

fn precedence(dscp: Option<u8>) -> Color {
    let is_in = |column: usize| dscp.is_some_and(|dscp| ASSURED.iter().any(|class| class[column] == dscp));
    if is_in(2) {
        Color::Red
    } else if is_in(1) {
        Color::Yellow
    } else {
        Color::Green
    }
}

/// Where a meter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// At what a port sends.
    Ingress(usize),
    /// At what is sent to a port.
    Egress(usize),
    /// At what all ports of a tenant send.
    Tenant(u32),
    /// At what a port floods: 0 broadcast, 1 multicast, 2 unknown unicast.
    Storm(usize, usize),
    /// In rules that name it by its number.
    Named(usize),
    /// In one rule, by tenant and number; the so manieth of that rule's own.
    Rule(u32, u64, usize),
}

/// Two buckets, and the times of the first frame and the last, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct State {
    tokens: [i128; 2],
    times: Option<(u128, u128)>,
}

/// The meters of a switch.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    meters: BTreeMap<Place, (Meter, State)>,
    /// Of meters that rules name, those over them.
    parents: BTreeMap<usize, usize>,
    now_ns: u128,
}

impl Meter {
    fn full(self) -> (Meter, State) {
        (self, State { tokens: self.sizes(), times: None })
    }

    fn sizes(&self) -> [i128; 2] {
        match self.kind {
            Kind::Single(_, cbs, other) | Kind::Two(_, cbs, _, other) | Kind::Efficient(_, cbs, _, other) => {
                [cbs.into(), other.into()]
            }
        }
    }

    /// Tokens of a rate that come at moments after `from` and up to `to`, both counted from the first frame.
    fn come(&self, rate: u64, from: u128, to: u128) -> u128 {
        let ns_tokens: u128 = if self.packets { 1_000_000_000 } else { 8_000_000_000 };
        u128::from(rate) * to / ns_tokens - u128::from(rate) * from / ns_tokens
    }

    fn fill(&self, state: &mut State, now: u128) {
        let (first, last) = state.times.unwrap_or((now, now));
        let (from, to) = (last - first, now.max(last) - first);
        state.times = Some((first, now.max(last)));
        let sizes = self.sizes();
        // Token by token, up to where all is full whatever comes.
        let enough = |place: usize| (sizes[place] - state.tokens[place]).max(0) as u128;
        let (c, other) = (enough(0), enough(1));
        match self.kind {
            Kind::Single(cir, ..) => {
                for _ in 0..self.come(cir, from, to).min(c + other) {
                    let place = usize::from(state.tokens[0] >= sizes[0]);
                    state.tokens[place] += i128::from(state.tokens[place] < sizes[place]);
                }
            }
            Kind::Two(cir, _, rate, _) | Kind::Efficient(cir, _, rate, _) => {
                state.tokens[0] += self.come(cir, from, to).min(c) as i128;
                state.tokens[1] += self.come(rate, from, to).min(other) as i128;
            }
        }
    }

    fn color(&self, state: &State, size: i128, came_as: Color) -> Color {
        let sizes = self.sizes();
        let has = |place: usize| {
            sizes[place] > 0 && (state.tokens[place] >= size || state.tokens[place] == sizes[place])
        };
        match (self.kind, came_as) {
            (_, Color::Red) => Color::Red,
            (Kind::Two(..), _) if !has(1) => Color::Red,
            (Kind::Two(..), Color::Yellow) => Color::Yellow,
            (Kind::Two(..), _) => {
                if has(0) {
                    Color::Green
                } else {
                    Color::Yellow
                }
            }
            (_, Color::Green) if has(0) => Color::Green,
            _ if has(1) => Color::Yellow,
            _ => Color::Red,
        }
    }

    fn take(&self, state: &mut State, size: i128, color: Color) {
        if color == Color::Green {
            state.tokens[0] -= size;
        }
        if color == Color::Yellow || (color == Color::Green && matches!(self.kind, Kind::Two(..))) {
            state.tokens[1] -= size;
        }
    }
}

impl Meters {
    /// These, with full buckets.
    pub fn new(meters: impl IntoIterator<Item = (Place, Meter)>) -> Meters {
        let meters = meters.into_iter().map(|(place, meter)| (place, meter.full())).collect();
        Meters { meters, ..Meters::default() }
    }

    /// Puts meters over others, by their numbers.
    pub fn set_parents(&mut self, parents: BTreeMap<usize, usize>) {
        self.parents = parents;
    }

    /// The meter of this number and those over it.
    pub(super) fn chain(&self, number: usize) -> Vec<Place> {
        let over = core::iter::successors(Some(number), |number| self.parents.get(number).copied());
        over.map(Place::Named).collect()
    }

    /// Makes these the meters of rules' own. One that is there with the same settings goes on.
    pub(super) fn set_of_rules(&mut self, wanted: &BTreeMap<Place, Meter>) {
        self.meters.retain(|place, (meter, _)| {
            !matches!(place, Place::Rule(..)) || wanted.get(place) == Some(&*meter)
        });
        for (place, meter) in wanted {
            self.meters.entry(*place).or_insert_with(|| meter.full());
        }
    }

    /// The time, in nanoseconds.
    pub fn set_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns.into();
    }

    /// A frame of so many bytes, and with this DSCP, passes the meters at these places, where there are any. Gives the DSCP that it gets; an error
    /// if it is dropped.
    #[expect(clippy::result_unit_err, reason = "the frame is dropped: there is nothing more to say")]
    pub fn pass(&mut self, places: &[Place], bytes: usize, came: Option<u8>) -> Result<Option<u8>, ()> {
        let (mut color, mut dscp, mut taken) = (Color::Green, None, Vec::new());
        let mut is_dropped = false;
        for place in places {
            let Some((meter, state)) = self.meters.get_mut(place) else { continue };
            meter.fill(state, self.now_ns);
            let size = if meter.packets { 1 } else { bytes as i128 };
            let came_as = match meter.aware {
                Aware::No => Color::Green,
                Aware::Meters => color,
                Aware::Dscp => color.max(precedence(came)),
            };
            let found = meter.color(state, size, came_as);
            color = color.max(found);
            match (found, meter.yellow) {
                (Color::Green, _) | (Color::Yellow, Yellow::Pass) => {}
                (Color::Yellow, Yellow::Dscp(value)) => dscp = Some(value),
                _ => is_dropped = true,
            }
            taken.push((*place, size, found));
        }
        if is_dropped {
            return Err(());
        }
        for (place, size, found) in taken {
            if let Some((meter, state)) = self.meters.get_mut(&place) {
                meter.take(state, size, found);
            }
        }
        Ok(dscp)
    }
}

/// The DSCP of an IP packet behind at most two tags.
pub(super) fn dscp_of(frame: &[u8]) -> Option<u8> {
    let at = |at: usize| frame.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let mut l3 = 14;
    while matches!(at(l3 - 2), Some(0x8100 | 0x88a8 | 0x9100)) && l3 < 22 {
        l3 += 4;
    }
    match at(l3 - 2) {
        Some(0x0800) if frame.len() >= l3 + 20 && frame[l3] >> 4 == 4 => Some(frame[l3 + 1] >> 2),
        Some(0x86dd) if frame.len() >= l3 + 40 && frame[l3] >> 4 == 6 => Some((at(l3)? >> 6 & 63) as u8),
        _ => None,
    }
}

/// Gives an IP packet behind at most one tag a DSCP.
pub(super) fn set_dscp(frame: &mut [u8], dscp: u8) {
    let at = |frame: &[u8], at: usize| frame.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let mut l3 = 14;
    while matches!(at(frame, l3 - 2), Some(0x8100 | 0x88a8)) {
        l3 += 4;
    }
    match at(frame, l3 - 2) {
        Some(0x0800) => {
            let Some(header) = frame.get_mut(l3..l3 + 20) else { return };
            header[1] = dscp << 2 | header[1] & 3;
            (header[10], header[11]) = (0, 0);
            let mut sum: u32 = header.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        Some(0x86dd) => {
            let Some(first) = frame.get_mut(l3..l3 + 2) else { return };
            first[0] = first[0] & 0xf0 | dscp >> 2;
            first[1] = first[1] & 0x3f | dscp << 6;
        }
        _ => {}
    }
}
