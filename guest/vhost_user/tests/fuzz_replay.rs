//! Everything that fuzzing found worth keeping, replayed without the fuzzer.

#[path = "fuzz/vhost_user_messages.rs"]
mod vhost_user_messages;

use std::fs;
use std::path::Path;

#[test]
fn vhost_user_messages() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/vhost_user_messages");
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{} has only {} inputs", corpus.display(), inputs.len());
    let mut messages = 0;
    for input in inputs {
        println!("{}", input.display());
        messages += vhost_user_messages::run(&fs::read(&input).expect("a readable corpus file"));
    }
    assert!(messages > 50, "the corpus has hardly a message in it");
}
