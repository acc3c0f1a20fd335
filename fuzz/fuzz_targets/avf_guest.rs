#![no_main]

#[path = "../../nic/avf/tests/fuzz/avf_guest.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = body::run(data);
});
