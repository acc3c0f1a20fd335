#![no_main]

#[path = "../../control/model/tests/fuzz/rule_text.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
