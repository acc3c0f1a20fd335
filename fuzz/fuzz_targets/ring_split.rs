#![no_main]

#[path = "../../guest/virtqueue/tests/fuzz/ring_split.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
