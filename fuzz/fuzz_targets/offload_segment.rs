#![no_main]

#[path = "../../wire/tests/fuzz/offload_segment.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
