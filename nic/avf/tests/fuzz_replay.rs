//! Everything that fuzzing found worth keeping, replayed without the fuzzer; and as much as there is time for.

#[path = "fuzz/avf_guest.rs"]
mod avf_guest;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[test]
fn avf_guest() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/avf_guest");
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{} has only {} inputs", corpus.display(), inputs.len());
    let (mut records, mut frames) = (0, 0);
    for input in inputs {
        println!("{}", input.display());
        let (more, delivered) = avf_guest::run(&fs::read(&input).expect("a readable corpus file"));
        records += more;
        frames += delivered;
    }
    assert!(records > 50, "the corpus has hardly a record in it");
    assert!(frames > 20, "the corpus delivers {frames} frames");
}

/// Records that are likely to get somewhere.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let record = prop_oneof![
        2 => any_bytes(12),
        1 => Just(vec![4, 0xff, 0xff, 0xff, 0xff]),
        2 => (1_u8..3).prop_map(|format| vec![5, format]),
        2 => (any::<u8>(), any_bytes(100)).prop_map(|(opcode, body)| {
            [vec![6, opcode % 64, body.len() as u8], body].concat()
        }),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(queue, tail)| vec![7, queue, tail]),
        6 => any_bytes(6).prop_map(|body| [vec![8], body].concat()),
        4 => any_bytes(6).prop_map(|body| [vec![9], body].concat()),
        4 => Just(vec![10]),
        1 => any::<u8>().prop_map(|on| vec![12, on]),
    ];
    (any::<u8>(), prop::collection::vec(record, 0..60))
        .prop_map(|(setup, records)| [vec![setup | 16], records.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_guest_that_does_anything_harms_nobody(data in records()) {
        avf_guest::run(&data);
    }

    #[test]
    fn nor_does_noise(data in prop::collection::vec(any::<u8>(), 0..600)) {
        avf_guest::run(&data);
    }
}
