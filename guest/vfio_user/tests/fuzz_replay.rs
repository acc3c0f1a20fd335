//! Everything that fuzzing found worth keeping, replayed without the fuzzer; and a campaign of random messages.

#[path = "fuzz/vfio_user_messages.rs"]
mod vfio_user_messages;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[test]
fn vfio_user_messages() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/vfio_user_messages");
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{} has only {} inputs", corpus.display(), inputs.len());
    let mut messages = 0;
    for input in inputs {
        println!("{}", input.display());
        messages += vfio_user_messages::run(&fs::read(&input).expect("a readable corpus file"));
    }
    assert!(messages > 40, "the corpus has hardly a message in it");
}

/// Numbers that are near where things begin and end.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..40_u64,
        (0..24_u64).prop_map(|n| n * 4096),
        Just(0x2000),
        (0..64_u32).prop_map(|bit| 1 << bit),
        Just(u64::MAX),
        Just(u64::MAX - 0xfff),
    ]
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => number().prop_map(|n| (n as u32).to_ne_bytes().to_vec()),
        2 => number().prop_map(|n| n.to_ne_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..9),
    ]
}

/// A record of the fuzz target with a payload in the shape of a command's.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let word = |n: u64| (n as u32).to_ne_bytes().to_vec();
    let long = |n: u64| n.to_ne_bytes().to_vec();
    let payload = prop_oneof![
        (number(), number(), 0..16_u64).prop_map(move |(iova, size, flags)| {
            (2, [word(32), word(flags), long(0), long(iova), long(size)].concat())
        }),
        (number(), number(), 0..4_u64).prop_map(move |(iova, size, flags)| {
            (3, [word(24), word(flags), long(iova), long(size)].concat())
        }),
        (4..8_u8, 0..10_u64, number()).prop_map(move |(command, index, argsz)| {
            let tail = if command == 5 { vec![0; 20] } else { vec![0; 4] };
            (command, [word(argsz), word(0), word(index), tail].concat())
        }),
        (0..64_u64, 0..5_u64, number(), number()).prop_map(move |(flags, index, start, count)| {
            (8, [word(20), word(flags), word(index), word(start), word(count)].concat())
        }),
        (number(), 0..9_u64, number()).prop_map(move |(offset, region, count)| {
            (9, [long(offset), word(region), word(count)].concat())
        }),
        (number(), 0..9_u64, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(
            move |(offset, region, data)| {
                (10, [long(offset), word(region), word(data.len() as u64), data].concat())
            }
        ),
        (0..200_u64, proptest::collection::vec(any::<u8>(), 0..5)).prop_map(move |(offset, data)| {
            (10, [long(offset), word(7), word(data.len() as u64), data].concat())
        }),
        (0..12_u64, 1..8_u64, field(), field()).prop_map(move |(index, action, a, b)| {
            (16, [word(64), word(index | action << 16), a, b].concat())
        }),
        (17..19_u8, number(), field())
            .prop_map(move |(command, size, data)| (command, [word(size), word(size), data].concat())),
        (0..20_u8, proptest::collection::vec(field(), 0..6))
            .prop_map(|(command, fields)| (command, fields.concat())),
        Just((13, Vec::new())),
    ];
    (payload, any::<u8>(), prop_oneof![Just(0_u8), Just(0x10), Just(0x11), any::<u8>()]).prop_map(
        |((command, payload), kinds, flags)| {
            [vec![command, flags, kinds, payload.len() as u8], payload].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_campaign(setup in any::<u8>(), records in proptest::collection::vec(record(), 0..40)) {
        vfio_user_messages::run(&[vec![setup | 2], records.concat()].concat());
    }

    #[test]
    fn noise(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        vfio_user_messages::run(&data);
    }
}
