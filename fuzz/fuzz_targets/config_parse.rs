#![no_main]

#[path = "../../control/model/tests/fuzz/config_parse.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
