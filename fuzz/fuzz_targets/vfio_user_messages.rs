#![no_main]

#[path = "../../guest/vfio_user/tests/fuzz/vfio_user_messages.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    body::run(data);
});
