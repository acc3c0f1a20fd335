#![no_main]

#[path = "../../wire/tests/fuzz/membership_parse.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
