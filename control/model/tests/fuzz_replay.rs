//! Runs everything that fuzzing found, and the seeds it started from, through the body of the fuzz target.

use std::{fs, path::Path};

#[path = "fuzz/config_parse.rs"]
mod config_parse;
#[path = "fuzz/rule_text.rs"]
mod rule_text;

#[test]
fn config_parse() {
    replay("config_parse", config_parse::run);
}

#[test]
fn rule_text() {
    replay("rule_text", rule_text::run);
}

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
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
