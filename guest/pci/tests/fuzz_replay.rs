//! Everything that fuzzing found worth keeping, replayed without the fuzzer.

#[path = "fuzz/pci_config_space.rs"]
mod pci_config_space;

use std::fs;
use std::path::Path;

#[test]
fn pci_config_space() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/pci_config_space");
    let mut accesses = 0;
    for entry in fs::read_dir(&corpus).expect("a corpus") {
        let input = entry.expect("a readable folder").path();
        println!("{}", input.display());
        accesses += pci_config_space::run(&fs::read(&input).expect("a readable corpus file"));
    }
    assert!(accesses > 20, "the corpus has hardly an access in it");
}
