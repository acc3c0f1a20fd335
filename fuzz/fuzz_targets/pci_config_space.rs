#![no_main]

#[path = "../../guest/pci/tests/fuzz/pci_config_space.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    body::run(data);
});
