//! Meters against the RFCs' own words, token by token; their exactness; several threads.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The RFCs, read slowly: every token is put into its bucket alone, at its own moment.
struct Model {
    settings: MeterSettings,
    /// C and E; or C and P.
    tokens: [i128; 2],
    /// When the first frame came.
    origin: Option<u128>,
    last: Option<u128>,
}

impl Model {
    fn new(settings: MeterSettings) -> Model {
        let sizes = Model::sizes(&settings);
        Model { settings, tokens: sizes, origin: None, last: None }
    }

    fn sizes(settings: &MeterSettings) -> [i128; 2] {
        match settings.algorithm {
            Algorithm::SingleRate { cbs, ebs, .. } | Algorithm::TwoRateEfficient { cbs, ebs, .. } => {
                [cbs.into(), ebs.into()]
            }
            Algorithm::TwoRate { cbs, pbs, .. } => [cbs.into(), pbs.into()],
        }
    }

    /// How many tokens of a rate come in a span. More than fill any bucket of these tests need not be counted.
    fn come(&self, rate: u64, from: u128, to: u128) -> u64 {
        let fine = match self.settings.unit {
            Unit::Bits => 8 * 1_000_000_000,
            Unit::Packets => 1_000_000_000,
        };
        let count = u128::from(rate) * to / fine - u128::from(rate) * from / fine;
        count.min(80_000) as u64
    }

    fn charge(&mut self, now: u128, charge: Charge, came_as: Color) -> Color {
        let [c_size, other_size] = Model::sizes(&self.settings);
        // The first frame sets the clock, and the tokens' moments are counted from there.
        let now = now - *self.origin.get_or_insert(now);
        let start = self.last.unwrap_or(now);
        self.last = Some(now.max(start));
        let now = now.max(start);
        match self.settings.algorithm {
            Algorithm::SingleRate { cir, .. } => {
                for _ in 0..self.come(cir, start, now) {
                    if self.tokens[0] < c_size {
                        self.tokens[0] += 1;
                    } else if self.tokens[1] < other_size {
                        self.tokens[1] += 1;
                    }
                }
            }
            Algorithm::TwoRate { cir, pir: other, .. }
            | Algorithm::TwoRateEfficient { cir, eir: other, .. } => {
                for (rate, place, size) in [(cir, 0, c_size), (other, 1, other_size)] {
                    for _ in 0..self.come(rate, start, now) {
                        if self.tokens[place] < size {
                            self.tokens[place] += 1;
                        }
                    }
                }
            }
        }
        let size: i128 = match self.settings.unit {
            Unit::Bits => {
                i128::from(charge.bytes) + i128::from(self.settings.overhead) * i128::from(charge.packets)
            }
            Unit::Packets => charge.packets.into(),
        };
        // Ours: what is longer than a bucket passes when it is full.
        let enough = |have: i128, of: i128| of > 0 && (have - size >= 0 || have == of);
        let came_as = if self.settings.color_aware == ColorAware::No { Color::Green } else { came_as };
        let c = enough(self.tokens[0], c_size);
        let other = enough(self.tokens[1], other_size);
        let color = match self.settings.algorithm {
            Algorithm::SingleRate { .. } | Algorithm::TwoRateEfficient { .. } => match came_as {
                Color::Green if c => Color::Green,
                Color::Green | Color::Yellow if other => Color::Yellow,
                _ => Color::Red,
            },
            Algorithm::TwoRate { .. } => {
                if came_as == Color::Red || !other {
                    Color::Red
                } else if came_as == Color::Yellow || !c {
                    Color::Yellow
                } else {
                    Color::Green
                }
            }
        };
        let action = if color == Color::Yellow { self.settings.yellow } else { self.settings.red };
        if color == Color::Green {
            self.tokens[0] -= size;
            if matches!(self.settings.algorithm, Algorithm::TwoRate { .. }) {
                self.tokens[1] -= size;
            }
        } else if color == Color::Yellow && action != ColorAction::Drop {
            self.tokens[1] -= size;
        }
        color
    }
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    let rate = || prop_oneof![0_u64..2_000, 8_000_u64..10_000_000, 0_u64..400_000_000_000];
    let burst = || prop_oneof![Just(0_u64), 1_u64..3_000, 3_000_u64..9_000];
    prop_oneof![
        (rate(), burst(), burst()).prop_map(|(cir, cbs, ebs)| Algorithm::SingleRate { cir, cbs, ebs }),
        (rate(), burst(), rate(), burst()).prop_map(|(cir, cbs, more, pbs)| Algorithm::TwoRate {
            cir,
            cbs,
            pir: cir + more,
            pbs
        }),
        (rate(), burst(), rate(), burst()).prop_map(|(cir, cbs, eir, ebs)| Algorithm::TwoRateEfficient {
            cir,
            cbs,
            eir,
            ebs
        }),
    ]
    .prop_filter("something must pass", |algorithm| algorithm.check().is_ok())
}

fn action() -> impl Strategy<Value = ColorAction> {
    prop_oneof![Just(ColorAction::Pass), Just(ColorAction::Drop), (0_u8..64).prop_map(ColorAction::SetDscp)]
}

fn settings() -> impl Strategy<Value = MeterSettings> {
    (
        any::<bool>(),
        algorithm(),
        prop::sample::select(vec![ColorAware::No, ColorAware::Meters, ColorAware::Dscp]),
        prop_oneof![Just(0_u8), Just(4), Just(24)],
        action(),
        action(),
    )
        .prop_map(|(bits, algorithm, color_aware, overhead, yellow, red)| MeterSettings {
            unit: if bits { Unit::Bits } else { Unit::Packets },
            algorithm,
            color_aware,
            overhead,
            yellow,
            red,
        })
}

fn color() -> impl Strategy<Value = Color> {
    prop_oneof![Just(Color::Green), Just(Color::Yellow), Just(Color::Red)]
}

fn charge() -> impl Strategy<Value = Charge> {
    prop_oneof![
        (14_u32..1515).prop_map(Charge::one),
        (1_u32..20).prop_map(|packets| Charge { bytes: packets * 1448, packets }),
    ]
}

/// Runs of frames, each with the time since the last run.
fn traffic() -> impl Strategy<Value = Vec<(u64, Vec<(Charge, Color)>)>> {
    let gap = prop_oneof![0_u64..3_000, 0_u64..20_000_000, 0_u64..3 * SECOND];
    prop::collection::vec((gap, prop::collection::vec((charge(), color()), 1..12)), 1..24)
}

/// In each second 500 packets of AF11, 3000 of AF12 and 3000 of AF13 to meters of 1000 packets a second and 2000 more, or at
/// most: what the color-aware modes of the RFCs let through of each, in the second that comes after the first.
#[test]
fn a_color_aware_meter_goes_by_the_drop_precedence() {
    let settings = |algorithm, color_aware| MeterSettings {
        unit: Unit::Packets,
        algorithm,
        color_aware,
        overhead: 0,
        yellow: ColorAction::Pass,
        red: ColorAction::Drop,
    };
    let single = Algorithm::SingleRate { cir: 1000, cbs: 10, ebs: 10 };
    let two = Algorithm::TwoRate { cir: 1000, cbs: 10, pir: 2000, pbs: 20 };
    let efficient = Algorithm::TwoRateEfficient { cir: 1000, cbs: 10, eir: 2000, ebs: 20 };
    for (algorithm, color_aware, expected) in [
        // What green leaves of the committed rate runs over into the excess bucket.
        (single, ColorAware::Dscp, [500, 500, 0]),
        // What green takes of the peak rate yellow does not get.
        (two, ColorAware::Dscp, [500, 1500, 0]),
        // The excess rate is yellow's own.
        (efficient, ColorAware::Dscp, [500, 2000, 0]),
    ] {
        let meter = Meter::new(settings(algorithm, color_aware)).unwrap();
        let mut passed = [0_u64; 3];
        for n in 0..13_000_u64 {
            let which = if n % 13 == 0 { 0 } else { 1 + n as usize % 2 };
            let came_as = [10, 12, 14].map(Color::of_dscp)[which];
            let mut marking = Marking { came_as, ..Marking::default() };
            meter.charge(n * SECOND / 6500, Charge::one(60), &mut marking);
            assert!(marking.color >= came_as, "no frame gets better");
            if n >= 6500 {
                passed[which] += u64::from(!marking.is_dropped);
            }
        }
        let differ = passed.iter().zip(expected).map(|(passed, expected)| passed.abs_diff(expected));
        assert!(differ.max() <= Some(10), "{algorithm:?}: {passed:?}");
    }
    // Without it, red packets have their part.
    for color_aware in [ColorAware::No, ColorAware::Meters] {
        let meter = Meter::new(settings(efficient, color_aware)).unwrap();
        let mut marking = Marking { came_as: Color::Red, ..Marking::default() };
        meter.charge(0, Charge::one(60), &mut marking);
        assert_eq!(marking.color, Color::Green);
    }
    assert_eq!([10, 20, 30, 38].map(Color::of_dscp), [Color::Green, Color::Yellow, Color::Red, Color::Red]);
    assert_eq!([0, 46, 8, 4, 44, 54, 63].map(Color::of_dscp), [Color::Green; 7]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// A run at once, frame by frame, and the RFCs token by token: all the same, actions and counters included.
    #[test]
    fn colors_are_those_of_the_rfcs(settings in settings(), traffic in traffic(), start in 0_u64..1 << 60) {
        let at_once = Meter::new(settings).unwrap();
        let one_by_one = Meter::new(settings).unwrap();
        let mut model = Model::new(settings);
        let mut expected_stats = [Metered::default(); 3];
        let mut now = 0_u64;
        for (gap, run) in traffic {
            now += gap;
            let charges: Vec<_> = run.iter().map(|(charge, _)| *charge).collect();
            let mut markings: Vec<_> = run.iter().map(|(_, color)| Marking::of(*color)).collect();
            at_once.charge_run(start + now, &charges, &mut markings);
            for ((charge, color), marking) in run.into_iter().zip(markings) {
                let mut single = Marking::of(color);
                one_by_one.charge(start + now, charge, &mut single);
                prop_assert_eq!(single, marking);
                let expected = model.charge(now.into(), charge, color);
                prop_assert_eq!(marking.color, expected.max(color));
                let action = match expected {
                    Color::Green => ColorAction::Pass,
                    Color::Yellow => settings.yellow,
                    Color::Red => settings.red,
                };
                prop_assert_eq!(marking.is_dropped, action == ColorAction::Drop);
                let dscp = if let ColorAction::SetDscp(dscp) = action { Some(dscp) } else { None };
                prop_assert_eq!(marking.dscp, dscp);
                let count = &mut expected_stats[expected as usize];
                count.packets += u64::from(charge.packets);
                count.bytes += u64::from(charge.bytes) + u64::from(charge.packets) * u64::from(settings.overhead);
            }
        }
        let [green, yellow, red] = expected_stats;
        let expected = MeterStats { green, yellow, red, ..MeterStats::default() };
        prop_assert_eq!(at_once.stats(), expected);
        prop_assert_eq!(one_by_one.stats(), expected);
    }

    /// Offered more than the rate in any pattern, what passes is the rate: within 1 %, over a second (or as long as
    /// 40 000 frames of this size take), after the first burst is used up.
    #[test]
    fn what_passes_is_the_rate(
        bits: bool,
        magnitude in 0_u32..=8,
        fraction in 1.0_f64..10.0,
        size in 60_u32..=1514,
        pattern in prop::collection::vec((1_u64..200, 1_usize..13), 1..20),
    ) {
        // 8 kbit/s to 400 Gb/s in frames of `size`; 1 pps to 1 Gpps.
        let base = 10_f64.powi(magnitude as i32) * fraction;
        let (unit, rate) = match bits {
            true => (Unit::Bits, ((base * 8_000.0) as u64).min(400_000_000_000)),
            false => (Unit::Packets, (base as u64).clamp(1, 1_000_000_000)),
        };
        let charge = Charge::one(size);
        let meter = Meter::new(MeterSettings::policer(unit, rate, unit.default_burst(rate))).unwrap();
        let (per_frame, per_second) = match unit {
            Unit::Bits => (u64::from(size), rate as f64 / 8.0),
            Unit::Packets => (1, rate as f64),
        };
        let frames_a_second = per_second / per_frame as f64;
        let window = if frames_a_second > 40_000.0 { (40_000.0 / frames_a_second * 1e9) as u64 } else { SECOND };
        // The first burst goes, and may be large.
        let mut large = Marking::default();
        meter.charge(0, Charge { bytes: u32::MAX, packets: u32::MAX }, &mut large);
        prop_assert!(!large.is_dropped);
        let tokens = i128::from(meter.state.lock().buckets.tokens().0);
        // The debt is paid back to the token.
        let fine = if bits { 8_000_000_000_i128 } else { 1_000_000_000 };
        let start = u64::try_from((-tokens * fine + i128::from(rate) - 1) / i128::from(rate)).unwrap();
        let (mut now, mut passed) = (start, 0_u64);
        // Steps are scaled so that every burst of the pattern is more than the rate.
        let ns_a_frame = 1e9 / frames_a_second;
        'window: for (gap, frames) in pattern.iter().cycle() {
            // Less time than the frames of the burst take, so that too much is offered; and less than the bucket holds.
            let step = ((*gap).min(*frames as u64) as f64 * ns_a_frame * 0.9) as u64;
            now += step.clamp(1, window / 2);
            if now >= start + window {
                break 'window;
            }
            let mut markings = [Marking::default(); 64];
            meter.charge_run(now, &vec![charge; frames + 1], &mut markings);
            passed += markings[..frames + 1].iter().filter(|m| !m.is_dropped).count() as u64 * per_frame;
        }
        // Up to the last charge at the window's end.
        let mut markings = [Marking::default(); 64];
        meter.charge_run(start + window, &[charge; 64], &mut markings);
        passed += markings.iter().filter(|m| !m.is_dropped).count() as u64 * per_frame;
        let due = per_second * window as f64 / 1e9;
        let slack = due * 0.01 + per_frame as f64;
        prop_assert!((passed as f64 - due).abs() <= slack, "passed {} of {} at {} {:?}", passed, due, rate, unit);
    }
}

#[test]
fn a_whole_second_at_the_top_of_the_range() {
    for (settings, charge, due) in [
        (
            MeterSettings::policer(Unit::Bits, 400_000_000_000, 8 << 20),
            Charge { bytes: 65_536, packets: 45 },
            50_000_000_000_u64,
        ),
        (
            MeterSettings::policer(Unit::Packets, 1_000_000_000, 1 << 18),
            Charge { bytes: 131_072, packets: 2048 },
            1_000_000_000,
        ),
    ] {
        let meter = Meter::new(settings).unwrap();
        // Runs of 40 large frames every 50 us are more than the rate: 52 GB, 1.6 G packets.
        for now in (0..SECOND).step_by(50_000) {
            meter.charge_run(now, &[charge; 40], &mut [Marking::default(); 40]);
        }
        let passed = settings.tokens(Charge::one(0)) as u64;
        let stats = meter.stats().green;
        let passed = if passed == 0 { stats.bytes } else { stats.packets };
        assert!(passed.abs_diff(due) <= due / 1000, "{passed} of {due}");
    }
}

#[test]
fn the_lowest_rates_are_exact_to_the_frame() {
    // One packet a second, offered a thousand a second: one passes in each second.
    let meter = Meter::new(MeterSettings::policer(Unit::Packets, 1, 1)).unwrap();
    let mut in_second = [0; 20];
    for ms in 0..20_000 {
        let mut marking = Marking::default();
        meter.charge(ms * 1_000_000, Charge::one(60), &mut marking);
        in_second[(ms / 1000) as usize] += usize::from(!marking.is_dropped);
    }
    assert_eq!(in_second, [1; 20]);
    // 8 kbit/s: 1000 bytes a second, ten frames of 100.
    let meter = Meter::new(MeterSettings::policer(Unit::Bits, 8_000, 1_000)).unwrap();
    let passed = (0..100_000_u64)
        .filter(|ms| {
            let mut marking = Marking::default();
            meter.charge(ms * 1_000_000, Charge::one(100), &mut marking);
            !marking.is_dropped
        })
        .count();
    assert_eq!(passed, 10 + 999, "a full bucket, and 99.999 seconds");
}

#[test]
fn time_that_goes_back_brings_nothing_and_stops_nothing() {
    let meter = Meter::new(MeterSettings::policer(Unit::Packets, 1_000, 1)).unwrap();
    let passes = |now| {
        let mut marking = Marking::default();
        meter.charge(now, Charge::one(60), &mut marking);
        !marking.is_dropped
    };
    let start = 100 * SECOND;
    assert!(passes(start) && !passes(start));
    assert!(!passes(start - 500_000), "another worker's slightly older time");
    assert!(!passes(start + 999_999), "the old time has not been counted twice");
    assert!(passes(start + 1_000_000));
    // Back for good: the meter goes on from there.
    assert!(!passes(5 * SECOND));
    assert!(!passes(5 * SECOND + 999_999) && passes(5 * SECOND + 1_000_000));
    // Far ahead: one bucket, not a century's tokens.
    assert!(passes(u64::MAX - 1) && !passes(u64::MAX - 1) && !passes(u64::MAX));
}

#[test]
fn a_large_frame_is_charged_what_its_segments_will_be() {
    use fabnic_port::Burst;
    use fabnic_wire::Offload;
    use fabnic_wire::offload::{GSO_TCPV4, NEEDS_CSUM};
    let (map, _) = fabnic_memory::Map::anonymous(0x20000).unwrap();
    let mut burst = Burst::new();
    burst.begin(&map);
    let slice = map.translate(0, 65_226, &mut fabnic_memory::Hint::default()).unwrap();
    burst.slices_mut().push(slice);
    let frame = burst.push(0, 1, 0, 65_226).unwrap();
    assert_eq!(Charge::of(frame), Charge::one(65_226));
    frame.set_offload(Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 66,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    });
    // 65160 bytes of payload in 45 segments, each with 66 bytes of headers.
    assert_eq!(Charge::of(frame), Charge { bytes: 65_160 + 45 * 66, packets: 45 });
    let settings = MeterSettings { overhead: 24, ..MeterSettings::policer(Unit::Bits, 1, 1) };
    assert_eq!(settings.tokens(Charge::of(frame)), 65_160 + 45 * 90);
}

#[test]
fn what_the_outer_meter_refuses_takes_nothing_of_the_inner() {
    let meter = |rate| Arc::new(Meter::new(MeterSettings::policer(Unit::Packets, rate, 10)).unwrap());
    let (port, tenant) = (meter(1), meter(1));
    let chain = MeterChain::new(vec![Arc::clone(&port), Arc::clone(&tenant)]).unwrap();
    let other = MeterChain::new(vec![meter(1), Arc::clone(&tenant)]).unwrap();
    let send = |chain: &MeterChain, n: usize| {
        let mut markings = vec![Marking::default(); n];
        chain.charge_run(0, &vec![Charge::one(60); n], &mut markings);
        markings.iter().filter(|marking| !marking.is_dropped).count()
    };
    assert_eq!(send(&other, 7), 7);
    assert_eq!(send(&chain, 20), 3, "what the tenant has left");
    assert_eq!(port.stats().green.packets, 3);
    assert_eq!(port.stats().red.packets, 0, "the tenant's refusals cost the port nothing: 7 tokens are left");
    assert_eq!(port.stats().refused_by_other.packets, 17);
}

#[test]
fn a_chain_of_a_port_over_its_rate_takes_nothing_of_its_tenant() {
    let meter = |burst| Arc::new(Meter::new(MeterSettings::policer(Unit::Packets, 1, burst)).unwrap());
    let tenant = meter(10);
    let chain = |burst| MeterChain::new(vec![meter(burst), Arc::clone(&tenant)]).unwrap();
    let passed = |chain: &MeterChain| {
        let mut markings = [Marking::default(); 20];
        chain.charge_run(0, &[Charge::one(60); 20], &mut markings);
        markings.iter().filter(|marking| !marking.is_dropped).count()
    };
    assert_eq!(passed(&chain(4)), 4);
    assert_eq!(passed(&chain(20)), 6);
    assert_eq!(tenant.stats().green.packets, 10);
}

#[test]
fn a_chain_refuses_what_makes_no_sense() {
    let meter = Arc::new(Meter::new(MeterSettings::policer(Unit::Bits, 1, 1)).unwrap());
    let twice = MeterChain::new(vec![Arc::clone(&meter), Arc::clone(&meter)]);
    assert_eq!(twice.unwrap_err(), MeterError::Twice);
    let five = (0..5).map(|_| Arc::new(Meter::new(meter.settings()).unwrap())).collect();
    assert_eq!(MeterChain::new(five).unwrap_err(), MeterError::ChainLength(5));
    let settings = |algorithm| MeterSettings { algorithm, ..meter.settings() };
    let wrong = |algorithm| Meter::new(settings(algorithm)).unwrap_err();
    assert_eq!(wrong(Algorithm::SingleRate { cir: 1, cbs: 0, ebs: 0 }), MeterError::NoBurst);
    assert_eq!(wrong(Algorithm::TwoRate { cir: 1, cbs: 1, pir: 1, pbs: 0 }), MeterError::NoBurst);
    assert_eq!(
        wrong(Algorithm::TwoRate { cir: 2, cbs: 1, pir: 1, pbs: 1 }),
        MeterError::PeakBelowCommitted { pir: 1, cir: 2 }
    );
    let dscp = MeterSettings { yellow: ColorAction::SetDscp(64), ..meter.settings() };
    assert_eq!(meter.change(dscp), Err(MeterError::Dscp(64)));
}

#[test]
fn a_meter_is_changed_in_place() {
    let meter = Meter::new(MeterSettings::policer(Unit::Packets, 10, 100)).unwrap();
    let send = |now, n: usize| {
        let mut markings = vec![Marking::default(); n];
        meter.charge_run(now, &vec![Charge::one(60); n], &mut markings);
        markings.iter().filter(|marking| !marking.is_dropped).count()
    };
    assert_eq!(send(0, 40), 40);
    meter.change(MeterSettings::policer(Unit::Packets, 1000, 50)).unwrap();
    assert_eq!(send(0, 100), 50, "60 tokens were left, 50 fit");
    assert_eq!(send(20_000_000, 100), 20);
    assert_eq!(meter.stats().green.packets, 110, "counters go on");
    meter.change(MeterSettings::policer(Unit::Bits, 8000, 600)).unwrap();
    assert_eq!(send(20_000_000, 100), 10, "another unit starts full");
}

#[test]
fn storm_control_has_a_meter_for_each_kind_that_is_limited() {
    let limit = |burst| Some(StormLimit { unit: Unit::Packets, rate: 1, burst });
    let settings = StormSettings { broadcast: limit(3), unknown_unicast: limit(5), multicast: None };
    let storm = StormControl::new(&settings, None).unwrap();
    let passed = |storm: &StormControl, dst: [u8; 6], is_known| {
        let kind = FloodKind::of(fabnic_wire::MacAddr::new(dst), is_known)?;
        let meter = storm.meter(kind)?;
        let mut markings = [Marking::default(); 10];
        meter.charge_run(0, &[Charge::one(60); 10], &mut markings);
        Some(markings.iter().filter(|marking| !marking.is_dropped).count())
    };
    assert_eq!(passed(&storm, [0xff; 6], false), Some(3));
    assert_eq!(passed(&storm, [1, 0, 0x5e, 0, 0, 9], false), None, "not limited");
    assert_eq!(passed(&storm, [2, 0, 0, 0, 0, 9], false), Some(5));
    assert_eq!(passed(&storm, [2, 0, 0, 0, 0, 9], true), None, "not flooded");
    let again = StormControl::new(&settings, Some(&storm)).unwrap();
    assert_eq!(passed(&again, [0xff; 6], false), Some(0), "the same meter goes on");
    assert_eq!(again.stats(FloodKind::Broadcast).unwrap().red.packets, 7 + 10);
    let wrong = StormSettings { multicast: limit(0), broadcast: limit(100), ..settings };
    assert!(StormControl::new(&wrong, Some(&storm)).is_err());
    assert_eq!(
        storm.meter(FloodKind::Broadcast).unwrap().settings().algorithm,
        Algorithm::SingleRate { cir: 1, cbs: 3, ebs: 0 }
    );
}

/// Four threads that share a meter and a (virtual) clock: together they pass the rate, and every frame is counted.
#[test]
fn several_threads_sum_up() {
    let rate = 10_000_000;
    let meter = Meter::new(MeterSettings::policer(Unit::Packets, rate, 1000)).unwrap();
    let tenant = Arc::new(Meter::new(MeterSettings::policer(Unit::Packets, rate / 2, 1000)).unwrap());
    let port = Arc::new(meter);
    let forth = MeterChain::new(vec![Arc::clone(&port), Arc::clone(&tenant)]).unwrap();
    let back = MeterChain::new(vec![Arc::clone(&tenant), Arc::clone(&port)]).unwrap();
    let clock = AtomicU64::new(0);
    let totals: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let chain = if thread % 2 == 0 { &forth } else { &back };
                let clock = &clock;
                scope.spawn(move || {
                    let (mut offered, mut passed) = (0, 0);
                    for run in 0..4_000_u64 {
                        let now = clock.fetch_add(1_000 + run % 3, Ordering::Relaxed);
                        let mut markings = [Marking::default(); 8];
                        chain.charge_run(now, &[Charge::one(60); 8], &mut markings);
                        offered += 8;
                        passed += markings.iter().filter(|marking| !marking.is_dropped).count() as u64;
                    }
                    (offered, passed)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let offered: u64 = totals.iter().map(|(offered, _)| offered).sum();
    let passed: u64 = totals.iter().map(|(_, passed)| passed).sum();
    let due = rate / 2 * clock.load(Ordering::Relaxed) / SECOND;
    assert!(passed <= due + 1000 && passed * 100 >= due * 99, "{passed} of {due}");
    let stats = tenant.stats();
    assert_eq!(stats.green.packets, passed);
    assert_eq!(stats.green.packets + stats.red.packets + stats.refused_by_other.packets, offered);
    assert_eq!(stats.green.bytes, passed * 60);
}

#[test]
fn a_look_shows_the_tokens_of_the_moment_and_moves_nothing() {
    let algorithm = Algorithm::TwoRate { cir: 8_000, cbs: 1_000, pir: 16_000, pbs: 3_000 };
    let meter = Meter::new(MeterSettings { algorithm, ..MeterSettings::policer(Unit::Bits, 0, 1) }).unwrap();
    let tokens = |now| (meter.state(now).committed, meter.state(now).other);
    assert_eq!(tokens(7 * SECOND), (1_000, 3_000), "full, and no frame came yet");
    meter.charge(10 * SECOND, Charge::one(900), &mut Marking::default());
    assert_eq!(tokens(10 * SECOND), (100, 2_100));
    assert_eq!(tokens(10 * SECOND + SECOND / 2), (600, 3_000), "500 and 1000 came, as far as they fit");
    assert_eq!(tokens(9 * SECOND), (100, 2_100), "time that goes back brings none");
    let mut marking = Marking::default();
    meter.charge(10 * SECOND, Charge::one(200), &mut marking);
    assert_eq!(marking.color, Color::Yellow, "looking filled nothing");
    let stats = meter.state(10 * SECOND).stats;
    assert_eq!((stats.green.bytes, stats.yellow.bytes, stats.red.bytes), (900, 200, 0));
}
