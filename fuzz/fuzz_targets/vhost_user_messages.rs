#![no_main]

#[path = "../../guest/vhost_user/tests/fuzz/vhost_user_messages.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    body::run(data);
});
