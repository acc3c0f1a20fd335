#![no_main]

#[path = "../../nic/e1000/tests/fuzz/e1000_device.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
