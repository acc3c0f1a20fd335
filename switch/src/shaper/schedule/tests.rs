//! A worker under a virtual clock, its senders, and what each should get by water-filling.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A sender: what it wants to send, and what it did.
struct Sender {
    /// Bits a second; the ring never runs out of more.
    demand: u64,
    frame: Charge,
    sent: u64,
}

impl Sender {
    fn waiting(&self, now: u64) -> usize {
        let made = u128::from(self.demand) * u128::from(now) / 8_000_000_000;
        let frames = (made as u64).saturating_sub(self.sent) / u64::from(self.frame.bytes);
        frames as usize
    }
}

/// What limits the senders together.
#[derive(Clone, Copy, Debug)]
enum Bottleneck {
    /// The worker's own time: so many bits a second.
    Cpu(u64),
    /// A group's rate; the worker is fast.
    Group(u64),
}

#[derive(Clone, Debug)]
struct Case {
    settings: ShaperSettings,
    demand: u64,
    frame: Charge,
    queues: usize,
}

fn case(settings: ShaperSettings) -> Case {
    Case { settings, demand: 100_000_000_000, frame: Charge::one(1000), queues: 1 }
}

fn weight(weight: u16) -> ShaperSettings {
    ShaperSettings { weight, ..ShaperSettings::default() }
}

/// Bits that each port sent in the second half of so many milliseconds, a second.
fn simulate(cases: &[Case], bottleneck: Bottleneck, ms: u64) -> Vec<u64> {
    let groups = match bottleneck {
        Bottleneck::Group(rate) => vec![Arc::new(RateLimiter::new(Rate::bits(rate)))],
        Bottleneck::Cpu(_) => Vec::new(),
    };
    let mut scheduler = Scheduler::default();
    let mut senders = Vec::new();
    for (port, case) in (0..).zip(cases) {
        let shaper = Arc::new(PortShaper::new(case.settings, groups.clone(), None));
        for _ in 0..case.queues {
            let slot = scheduler.add(port, Some(Arc::clone(&shaper)));
            assert_eq!(slot, senders.len());
            let demand = case.demand / case.queues as u64;
            senders.push((port as usize, Sender { demand, frame: case.frame, sent: 0 }));
        }
    }
    let (half, end) = (ms * 500_000, ms * 1_000_000);
    let mut at_half = None;
    let mut now = 0;
    while now < end {
        if now >= half && at_half.is_none() {
            at_half = Some(senders.iter().map(|(_, s)| s.sent).collect::<Vec<_>>());
        }
        let mut total = 0;
        scheduler.begin(now);
        while let Some(slot) = scheduler.next(now) {
            let (_, sender) = &mut senders[slot];
            let mut is_drained = false;
            for _ in 0..8 {
                let allowed = scheduler.allowance(slot, now);
                if allowed == 0 {
                    break;
                }
                let frames = allowed.min(sender.waiting(now));
                let n = frames as u32;
                let read = Charge { bytes: sender.frame.bytes * n, packets: sender.frame.packets * n };
                sender.sent += u64::from(read.bytes);
                total += frames;
                scheduler.charge(slot, now, read, frames);
                now += match bottleneck {
                    Bottleneck::Cpu(rate) => u64::from(read.bytes) * 8 * SECOND / rate,
                    Bottleneck::Group(_) => 10 * frames as u64,
                };
                if frames < allowed {
                    is_drained = true;
                    break;
                }
            }
            now += 50;
            scheduler.end_turn(slot, now, is_drained);
        }
        if total == 0 {
            now = scheduler.next_time().clamp(now + 2_000, now + 20_000);
        }
    }
    let at_half = at_half.unwrap_or_default();
    let mut ports = vec![0; cases.len()];
    for ((port, sender), before) in senders.iter().zip(at_half) {
        ports[*port] += (sender.sent - before) * 8 * 1000 / (ms / 2);
    }
    ports
}

/// What each should get: guarantees first, then by priority, within a priority by weight and up to what each wants.
fn expected(cases: &[Case], capacity: f64) -> Vec<f64> {
    let in_bits = |rate: Option<Rate>| rate.map(|rate| rate.per_second as f64);
    let wanted: Vec<f64> = cases
        .iter()
        .map(|case| (case.demand as f64).min(in_bits(case.settings.max_tx_rate).unwrap_or(f64::MAX)))
        .collect();
    let mut got: Vec<f64> = cases
        .iter()
        .zip(&wanted)
        .map(|(case, wanted)| in_bits(case.settings.min_tx_rate).unwrap_or(0.0).min(*wanted))
        .collect();
    let mut left = capacity - got.iter().sum::<f64>();
    for priority in (0..PRIORITIES).rev() {
        let mut open: Vec<usize> = (0..cases.len())
            .filter(|i| cases[*i].settings.priority == priority && wanted[*i] > got[*i])
            .collect();
        // Fill all alike; whoever has enough leaves.
        while left > 1.0 && !open.is_empty() {
            let weights: f64 = open.iter().map(|i| f64::from(cases[*i].settings.weight)).sum();
            let unit = |i: usize| f64::from(cases[i].settings.weight) / weights;
            let step = open.iter().map(|i| (wanted[*i] - got[*i]) / unit(*i)).fold(left, f64::min);
            for i in &open {
                got[*i] += step * unit(*i);
            }
            left -= step;
            open.retain(|i| wanted[*i] - got[*i] > 1.0);
        }
    }
    got
}

fn check(cases: &[Case], bottleneck: Bottleneck, ms: u64, tolerance: f64) {
    let (Bottleneck::Cpu(capacity) | Bottleneck::Group(capacity)) = bottleneck;
    let got = simulate(cases, bottleneck, ms);
    let expected = expected(cases, capacity as f64);
    for ((got, expected), case) in got.iter().zip(&expected).zip(cases) {
        let slack = tolerance * capacity as f64 + 0.01 * expected;
        assert!(
            (*got as f64 - expected).abs() <= slack,
            "{got} of {expected} for {case:?} under {bottleneck:?}; all: {cases:?}"
        );
    }
}

#[test]
fn equal_senders_get_the_same_whatever_their_frames() {
    let frames = [Charge::one(60), Charge::one(1514), Charge { bytes: 65_000, packets: 45 }];
    let cases: Vec<_> = frames.into_iter().map(|frame| Case { frame, ..case(weight(100)) }).collect();
    check(&cases, Bottleneck::Cpu(5_000_000_000), 400, 0.01);
    check(&cases, Bottleneck::Group(5_000_000_000), 400, 0.01);
}

#[test]
fn weights_are_shares() {
    let cases = [case(weight(100)), case(weight(200)), case(weight(700)), case(weight(1))];
    check(&cases, Bottleneck::Cpu(2_000_000_000), 400, 0.01);
    check(&cases, Bottleneck::Group(2_000_000_000), 400, 0.01);
}

#[test]
fn several_queues_of_a_port_have_one_weight() {
    let cases = [Case { queues: 4, ..case(weight(100)) }, case(weight(100))];
    check(&cases, Bottleneck::Cpu(1_000_000_000), 400, 0.01);
}

#[test]
fn priorities_are_strict_and_guarantees_come_first() {
    let with = |priority, min: Option<u64>, max: Option<u64>, demand| Case {
        demand,
        ..case(ShaperSettings {
            priority,
            min_tx_rate: min.map(Rate::bits),
            max_tx_rate: max.map(Rate::bits),
            ..ShaperSettings::default()
        })
    };
    let all = 100_000_000_000;
    // The first takes 300 M of 1 G by priority; the guarantee of the last comes before; the two others share the rest.
    let cases = [
        with(7, None, Some(300_000_000), all),
        with(3, None, None, all),
        with(3, None, None, 50_000_000),
        with(0, Some(200_000_000), None, all),
    ];
    let bottleneck = 1_000_000_000;
    assert_eq!(expected(&cases, 1e9), [3e8, 4.5e8, 5e7, 2e8]);
    check(&cases, Bottleneck::Cpu(bottleneck), 400, 0.01);
    check(&cases, Bottleneck::Group(bottleneck), 400, 0.01);
}

#[test]
fn an_idle_queue_that_had_overdrawn_does_not_stop_the_others() {
    let mut scheduler = Scheduler::default();
    let (heavy, other) = (scheduler.add(1, None), scheduler.add(2, None));
    scheduler.begin(0);
    assert_eq!(scheduler.next(0), Some(heavy));
    scheduler.charge(heavy, 0, Charge { bytes: 4_000_000, packets: 2_800 }, 64);
    scheduler.end_turn(heavy, 0, true);
    assert_eq!(scheduler.next(0), Some(other));
    scheduler.charge(other, 0, Charge { bytes: 60, packets: 1 }, 1);
    scheduler.end_turn(other, 0, true);
    // Each round both are looked at, though the first had overdrawn by 60 turns: the other has nothing left.
    for _ in 0..3 {
        scheduler.begin(1);
        let mut seen = Vec::new();
        while let Some(slot) = scheduler.next(1) {
            seen.push(slot);
            scheduler.end_turn(slot, 1, true);
        }
        seen.sort_unstable();
        assert_eq!(seen, [heavy, other]);
    }
    // One that has much left keeps its turn against the one that had overdrawn.
    scheduler.begin(2);
    let mut turns = 0;
    while let Some(slot) = scheduler.next(2) {
        if slot == other {
            scheduler.charge(slot, 2, Charge { bytes: 100_000, packets: 64 }, 64);
        }
        scheduler.end_turn(slot, 2, slot == heavy);
        turns += 1;
    }
    assert!(turns >= 1);
}

#[test]
fn slots_come_and_go_in_the_middle_of_a_round() {
    let mut scheduler = Scheduler::default();
    let slots: Vec<_> = (0..5).map(|port| scheduler.add(port, None)).collect();
    scheduler.begin(0);
    assert_eq!(scheduler.next(0), Some(slots[0]));
    scheduler.remove(slots[0]);
    scheduler.remove(slots[3]);
    scheduler.end_turn(slots[0], 0, true);
    assert_eq!(scheduler.allowance(slots[0], 0), 0);
    let mut rest = Vec::new();
    scheduler.begin(0);
    while let Some(slot) = scheduler.next(0) {
        scheduler.end_turn(slot, 0, true);
        rest.push(slot);
    }
    assert_eq!(rest, [slots[1], slots[2], slots[4]]);
    let again = scheduler.add(9, None);
    assert!([slots[0], slots[3]].contains(&again), "places are used again");
    scheduler.put_off(again, 1000);
    scheduler.begin(0);
    while let Some(slot) = scheduler.next(0) {
        assert_ne!(slot, again);
        scheduler.end_turn(slot, 0, true);
    }
    assert_eq!(scheduler.next_time(), 1000);
}

fn any_case() -> impl Strategy<Value = Case> {
    let frame = prop_oneof![
        (60_u32..1515).prop_map(Charge::one),
        (2_u32..45).prop_map(|packets| Charge { bytes: packets * 1448, packets }),
    ];
    let max = prop_oneof![2 => Just(None), 1 => (1_000_000_u64..800_000_000).prop_map(Some)];
    let min = prop_oneof![2 => Just(None), 1 => (1_000_000_u64..150_000_000).prop_map(Some)];
    let demand = prop_oneof![3 => Just(100_000_000_000_u64), 2 => 1_000_000_u64..400_000_000];
    (1_u16..1000, 0_u8..3, max, min, demand, frame, 1_usize..3).prop_map(
        |(weight, priority, max, min, demand, frame, queues)| Case {
            settings: ShaperSettings {
                max_tx_rate: max.map(Rate::bits),
                min_tx_rate: min.map(Rate::bits),
                weight,
                priority,
            },
            demand,
            frame,
            queues,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 40, ..ProptestConfig::default() })]

    /// Random senders at a bottleneck of 1 Gb/s get what water-filling says, to within 8 % of the bottleneck: a burst of 64 KiB
    /// frames takes 30 of the 400 ms.
    #[test]
    fn senders_get_what_is_due(cases in prop::collection::vec(any_case(), 1..6), by_group: bool) {
        let bottleneck = if by_group { Bottleneck::Group(1_000_000_000) } else { Bottleneck::Cpu(1_000_000_000) };
        check(&cases, bottleneck, 400, 0.08);
    }

    /// Alone, a sender sends its maximum to within 1 %, or a frame.
    #[test]
    fn a_maximum_is_kept(rate in 1_000_000_u64..20_000_000_000, bytes in 60_u32..1515, queues in 1_usize..4) {
        let settings = ShaperSettings { max_tx_rate: Some(Rate::bits(rate)), ..ShaperSettings::default() };
        let cases = [Case { frame: Charge::one(bytes), queues, ..case(settings) }];
        let got = simulate(&cases, Bottleneck::Cpu(100_000_000_000), 200)[0];
        let slack = rate / 100 + u64::from(bytes) * 80;
        prop_assert!(got.abs_diff(rate) <= slack, "{} of {}", got, rate);
    }
}
