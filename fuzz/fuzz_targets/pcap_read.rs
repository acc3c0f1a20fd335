#![no_main]

#[path = "../../uplink/pcap/tests/fuzz/pcap_read.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
