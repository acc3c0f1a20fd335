//! Runs everything that fuzzing found, and the seeds it started from, through the bodies of the fuzz targets.

use std::{fs, path::Path};

#[path = "fuzz/control_parse.rs"]
mod control_parse;
#[path = "fuzz/frame_parse.rs"]
mod frame_parse;
#[path = "fuzz/membership_parse.rs"]
mod membership_parse;
#[path = "fuzz/offload_segment.rs"]
mod offload_segment;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a directory that can be listed").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 20, "{} has only {} inputs", corpus.display(), inputs.len());
    for input in inputs {
        // Shown only if the body panics: says which input it was.
        println!("{}", input.display());
        run(&fs::read(&input).expect("a readable corpus file"));
    }
}

#[test]
fn control_parse() {
    replay("control_parse", control_parse::run);
}

#[test]
fn frame_parse() {
    replay("frame_parse", frame_parse::run);
}

#[test]
fn membership_parse() {
    replay("membership_parse", membership_parse::run);
}

#[test]
fn offload_segment() {
    replay("offload_segment", offload_segment::run);
}
