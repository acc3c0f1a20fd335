//! What the functions of the data path cost, in nanoseconds a call, on this machine now.
//!
//!     cargo run --release -p fabnic-wire --example wire_cost
//!
//! Each is run over a few hundred different heads that stay in the L1 cache; the best of several rounds is shown, since
//! everything that disturbs makes a round longer. For a look, not for a gate: instructions are what CI counts.

use std::{hint::black_box, time::Instant};

use fabnic_wire::{
    FlowFields, L2Key, Offload,
    checksum::Sum,
    flow_hash,
    hash::{HashTypes, MICROSOFT_KEY, Toeplitz},
    offload::{GSO_TCPV4, NEEDS_CSUM},
    segment::Segmentation,
};

const HEADS: usize = 256;
const ROUNDS: usize = 200;

/// TCP over IPv4, or UDP over IPv6; with a tag or not.
fn head(index: u8, tagged: bool, v6: bool) -> Vec<u8> {
    let mut head = vec![2, 0, 0, 0, 0, index, 2, 0, 0, 0, 1, index];
    if tagged {
        head.extend([0x81, 0, 0, 10]);
    }
    if v6 {
        head.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 17, 64]);
        head.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, index]);
        head.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, index]);
    } else {
        head.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, index, 10, 0, 1, index]);
    }
    head.extend([0x9c, index, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    head.resize(128, index);
    head
}

fn measure<R>(what: &str, heads: &[Vec<u8>], mut call: impl FnMut(&[u8]) -> R) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for head in heads {
            black_box(call(black_box(head)));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / heads.len() as f64);
    }
    println!("{what:32} {best:8.2} ns");
}

fn main() {
    let heads = |tagged, v6| -> Vec<_> { (0..HEADS).map(|i| head(i as u8, tagged, v6)).collect() };
    let sets = [
        ("IPv4/TCP", heads(false, false)),
        ("tagged IPv4/TCP", heads(true, false)),
        ("IPv6/UDP", heads(false, true)),
        ("tagged IPv6/UDP", heads(true, true)),
    ];
    let toeplitz = Toeplitz::new(&MICROSOFT_KEY);
    for (name, heads) in &sets {
        measure(&format!("L2Key, {name}"), heads, L2Key::of);
        measure(&format!("FlowFields, {name}"), heads, |head| {
            FlowFields::of(head).words().into_iter().fold(0, |digest: u64, word| digest.rotate_left(7) ^ word)
        });
        measure(&format!("flow_hash, {name}"), heads, flow_hash);
        measure(&format!("Toeplitz, {name}"), heads, |head| {
            toeplitz.hash_flow(&FlowFields::of(head), HashTypes::ALL)
        });
    }
    let tcp = &sets[0].1;
    let partial = Offload { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..Offload::PLAIN };
    let large = Offload { gso_type: GSO_TCPV4, gso_size: 1448, ..partial };
    measure("validate, plain", tcp, |head| Offload::PLAIN.validate(1514, head));
    measure("validate, partial checksum", tcp, |head| partial.validate(1514, head));
    measure("validate, TSO", tcp, |head| large.validate(60_000, head));
    measure("segment 60,000 B into 42", tcp, |head| {
        let segmentation = Segmentation::new(head, 60_000, &large).expect("valid");
        let mut out = [0; 128];
        let mut count = 0;
        for segment in segmentation.segments() {
            count += segment.write_complete(&mut out, Sum::from_word(7)).expect("room");
            black_box(&out);
        }
        count
    });
    for len in [20, 60, 1500, 65536] {
        let bytes = vec![vec![0x5a; len]; if len > 4096 { 8 } else { HEADS }];
        measure(&format!("sum of {len} B"), &bytes, Sum::of);
    }
}
