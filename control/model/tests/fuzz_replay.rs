//! Runs everything that fuzzing found, and the seeds it started from, through the body of the fuzz target.

use std::{fs, path::Path};

#[path = "fuzz/config_parse.rs"]
mod config_parse;

#[test]
fn config_parse() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/config_parse");
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a directory that can be listed").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 20, "{} has only {} inputs", corpus.display(), inputs.len());
    for input in inputs {
        // Shown only if the body panics: says which input it was.
        println!("{}", input.display());
        config_parse::run(&fs::read(&input).expect("a readable corpus file"));
    }
}
