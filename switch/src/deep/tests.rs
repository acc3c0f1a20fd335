use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::deep_key::KeyMask;
use crate::needs::Needs;

const UNDER: Under = Under { generation: 1, tick: 0, stamp: 1, epoch: 0 };

fn key(number: u64) -> DeepKey {
    DeepKey([number, 0, 0, 0, 0, 0, 0, 1])
}

fn remember(handle: u32) -> Remember {
    let decided = Decided { outcome: Outcome::NOTHING, plan: 0, mark: 0, handles: [handle, 0] };
    Remember { decided, depends: [Version { slot: 0, value: 0 }; DEPENDENCIES], concern: None }
}

fn cache() -> DeepCache {
    let mut cache = DeepCache::new(1, [1, 2]);
    cache.prepare_steady();
    cache
}

fn found(place: u32, handle: u32) -> Found {
    Found { decided: remember(handle).decided, place }
}

#[test]
fn what_a_steady_flow_owes_is_paid_when_its_second_is_over() {
    let mut cache = cache();
    let place = cache.insert(&key(1), &remember(7), UNDER, |_, _| panic!("nothing is owed"));
    let frames = [found(place, 7)];
    assert_eq!(cache.untold(&frames, 0), 1, "its first packet is told");
    cache.becomes_steady((place, [7, 0]), (1, 60), 0);
    cache.count(place, 60);
    assert_eq!(cache.untold(&frames, 0), 0);
    cache.count(place, 100);
    cache.count(place, 200);
    cache.settle(Some(0), usize::MAX, |_, _| panic!("its second is not over"));
    let mut paid = Vec::new();
    cache.settle(Some(1), usize::MAX, |handles, owed| paid.push((handles, owed)));
    assert_eq!(paid, [([7, 0], Owed { frames: 2, bytes: 300 })]);
    assert!(cache.steady.is_empty());
    assert_eq!(cache.untold(&frames, 1), 1, "and the next packet is told again");
    cache.settle(None, usize::MAX, |_, _| panic!("it was paid"));
}

#[test]
fn a_flow_whose_place_another_has_taken_does_not_make_that_one_steady() {
    let mut cache = cache();
    let place = cache.insert(&key(1), &remember(7), UNDER, |_, _| {});
    cache.becomes_steady((place, [8, 0]), (1, 60), 0);
    assert_eq!(cache.untold(&[found(place, 7)], 0), 1);
}

#[test]
fn there_is_a_most_of_steady_flows() {
    let mut cache = DeepCache::new(1, [1, 2]);
    let place = cache.insert(&key(1), &remember(7), UNDER, |_, _| {});
    // Nobody made room.
    cache.becomes_steady((place, [7, 0]), (1, 60), 0);
    assert_eq!(cache.untold(&[found(place, 7)], 0), 1);
}

/// A flow of a port.
fn of_port(port: u64, number: u64) -> DeepKey {
    DeepKey([number, port << 32, 0, number.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0, 0, 0, 1])
}

fn holds(cache: &mut DeepCache, key: &DeepKey) -> bool {
    cache.find(key, &Versions::new(), UNDER, u32::MAX, |_| 0, |_, _| false).is_some()
}

#[test]
fn half_as_many_flows_as_places_all_fit() {
    let mut cache = DeepCache::new(1 << 12, [3, 5]);
    for _ in 0..4 {
        (0..2000).for_each(|n| _ = cache.insert(&of_port(1, n), &remember(0), UNDER, |_, _| {}));
        cache.grow_if_crowded(|_, _| {});
    }
    let kept = (0..2000).filter(|n| holds(&mut cache, &of_port(1, *n))).count();
    assert!(kept >= 1998, "{kept} of 2000 in {} places", cache.capacity());
}

/// A short key of a flow.
fn short(number: u64) -> ShortKey {
    let mut frame = [0; 64];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[23] = 17;
    frame[26..34].copy_from_slice(&number.to_be_bytes());
    ShortKey::of(frame.first_chunk().unwrap(), None, 0, &KeyMask::of(Needs::all())).unwrap()
}

#[test]
fn a_large_cache_is_looked_into_where_tags_say() {
    let mut cache = DeepCache::new(1 << 14, [3, 5]);
    let flows = 6000_u32;
    for _ in 0..4 {
        for n in 0..flows {
            cache.insert(&short(n.into()).into(), &remember(n), UNDER, |_, _| {});
        }
        cache.grow_if_crowded(|_, _| {});
    }
    assert!(cache.is_large());
    let mut found = 0;
    for n in 0..2 * flows {
        let key = short(n.into());
        let place = cache.look_ahead(cache.hash(&key.into()), true);
        if let Some((decided, at)) = cache.glance_at(place, &key, &UNDER, |_| 0) {
            assert_eq!(decided.handles, [n, 0], "of another flow");
            assert_eq!(at, place);
            found += 1;
        }
    }
    // Two flows of a set may have one tag.
    assert!((5980..=flows).contains(&found), "{found} of {flows}");
    let older = Under { stamp: 0, ..UNDER };
    let key = short(7);
    let place = cache.look_ahead(cache.hash(&key.into()), false);
    assert!(cache.glance_at(place, &key, &older, |_| 0).is_none(), "its stamp is another one");
}

proptest! {
    /// The first bit that is found is of an entry with the tag, and each entry with the tag is found.
    #[test]
    fn tags_are_found(tags in prop::array::uniform4(0_u64..4), wanted in 0_u64..4) {
        let mut held = Tags::default();
        let tag = |n: u64| Tags::tag(n << 25 | n << 57);
        for (way, n) in tags.iter().enumerate() {
            held.set(way, tag(3 - n));
            held.set(way, tag(*n));
        }
        let found = held.found(tag(wanted));
        for (way, n) in tags.iter().enumerate() {
            if *n == wanted {
                prop_assert!(found & 0x8000 << (16 * way) != 0);
            }
        }
        if found != 0 {
            prop_assert_eq!(tags[found.trailing_zeros() as usize / 16], wanted);
        }
        prop_assert_eq!(Tags::default().found(tag(wanted)), 0);
    }
}

#[test]
fn a_flood_of_flows_drives_out_itself() {
    let mut cache = DeepCache::new(1 << 10, [3, 5]);
    (0..100).for_each(|n| _ = cache.insert(&of_port(1, n), &remember(0), UNDER, |_, _| {}));
    for round in 1..20 {
        cache.grow_if_crowded(|_, _| {});
        let from = 1_000_000 * round;
        (from..from + 2000).for_each(|n| _ = cache.insert(&of_port(2, n), &remember(0), UNDER, |_, _| {}));
    }
    assert!(cache.capacity() <= 1 << 10);
    let kept = (0..100).filter(|n| holds(&mut cache, &of_port(1, *n))).count();
    assert!(kept >= 98, "{kept} of 100 flows of the other port");
}

#[test]
fn an_entry_is_two_cache_lines() {
    assert_eq!(core::mem::size_of::<Entry>(), 128);
}

#[derive(Clone, Debug)]
enum Step {
    /// So many packets of a flow, decided on anew or not.
    Send {
        flow: u32,
        packets: u8,
        anew: bool,
        steady: bool,
    },
    Second,
    Grow,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..3000_u32, 1..5_u8, any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(flow, packets, anew, steady)| Step::Send { flow, packets, anew, steady }),
        2 => Just(Step::Second),
        1 => Just(Step::Grow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is crowded out, grown or silent: in the end each connection was told of each packet, once.
    #[test]
    fn every_packet_is_told_once(steps in prop::collection::vec(step(), 1..3000)) {
        let mut cache = cache();
        let told = RefCell::new(vec![0_u64; 3000]);
        let pay = |handles: [u32; 2], owed: Owed| told.borrow_mut()[handles[0] as usize - 1] += u64::from(owed.frames);
        let mut sent = vec![0_u64; 3000];
        let versions = Versions::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Second => {
                    now += 1;
                    cache.settle(Some(now), 7, pay);
                }
                Step::Grow => cache.grow_if_crowded(pay),
                Step::Send { flow, packets, anew, steady } => {
                    let (handle, index) = (flow + 1, flow as usize);
                    let key = key(u64::from(flow) + 1);
                    let known = cache.find(&key, &versions, UNDER, u32::MAX, |_| 0, |_, _| false);
                    let place = match known {
                        Some(known) if !anew => known.place,
                        _ => cache.insert(&key, &remember(handle), UNDER, pay),
                    };
                    for _ in 0..packets {
                        if cache.untold(&[found(place, handle)], now) != 0 {
                            pay([handle, 0], cache.owed(place));
                            told.borrow_mut()[index] += 1;
                            match steady {
                                true => cache.becomes_steady((place, [handle, 0]), (1, 60), now),
                                false => cache.is_not_steady(place),
                            }
                        }
                        cache.count(place, 60);
                        sent[index] += 1;
                    }
                }
            }
        }
        cache.settle(None, usize::MAX, pay);
        prop_assert_eq!(told.into_inner(), sent);
    }
}
