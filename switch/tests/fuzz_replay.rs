//! Runs everything that fuzzing found, and the seeds it started from, through the bodies of the fuzz targets.

use std::{fs, path::Path};

#[path = "fuzz/saved_state.rs"]
mod saved_state;

#[test]
fn saved_state() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/saved_state");
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a directory that can be listed").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 20, "{} has only {} inputs", corpus.display(), inputs.len());
    for input in inputs {
        // Shown only if the body panics: says which input it was.
        println!("{}", input.display());
        saved_state::run(&fs::read(&input).expect("a readable corpus file"));
    }
}
