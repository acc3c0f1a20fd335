//! Frames through a transmit queue, a burst and a receive queue, with a driver on either side.

mod guest;
mod offloads;
mod queues;

use fabnic_port::{Burst, DropReason, Tally};
use fabnic_wire::Offload;
use proptest::prelude::*;

use crate::Features;
use guest::{Guest, Layout};

/// Sends everything that waits from one guest to the other.
fn forward(from: &mut Guest, to: &mut Guest) -> Tally {
    let mut burst = Burst::new();
    let mut tally = Tally::default();
    loop {
        from.transmit.receive(&mut burst).unwrap();
        if burst.is_empty() {
            return tally;
        }
        let picks: Vec<u8> =
            (0..burst.len() as u8).filter(|i| burst.frames()[usize::from(*i)].marked().is_none()).collect();
        to.receive.deliver(&mut burst, &picks, &mut tally).unwrap();
        from.transmit.complete(&burst);
    }
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn layouts() -> impl Strategy<Value = Layout> {
    (any::<[bool; 5]>(), prop_oneof![Just(8_u16), Just(64), Just(256)]).prop_map(
        |([packed, event_idx, in_order, indirect, mergeable], size)| Layout {
            packed,
            event_idx,
            in_order,
            indirect,
            mergeable,
            size,
        },
    )
}

/// Sends these frames from one guest to the other, whose buffers are all given back to it before each burst.
fn exchange(a: &mut Guest, b: &mut Guest, frames: &[(Vec<u8>, &[usize])], buffer: u32, pieces: usize) {
    let (mut sent, mut got) = (0, Vec::new());
    let mut tally = Tally::default();
    while sent < frames.len() {
        let (bytes, cuts) = &frames[sent];
        if a.send(&Offload::PLAIN, bytes, cuts) {
            sent += 1;
            if sent < frames.len() {
                continue;
            }
        }
        b.refill(buffer, pieces);
        let one = forward(a, b);
        assert!(one.frames > 0, "nothing moves");
        tally.frames += one.frames;
        tally.bytes += one.bytes;
        tally.drop(DropReason::RingFull, one.dropped_for(DropReason::RingFull) as usize);
        a.sender.reap();
        assert_eq!(a.sender.outstanding(), 0, "all that was sent comes back");
        got.extend(b.received());
    }
    assert_eq!(tally.frames as usize, got.len());
    assert_eq!(tally.bytes as usize, got.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    assert_eq!(got.len() + tally.dropped() as usize, frames.len());
    // What a full ring dropped is missing; all else is there, in order.
    let mut expected = frames.iter();
    for (offload, bytes) in got {
        assert_eq!(offload, Offload::PLAIN);
        assert!(expected.any(|(sent, _)| *sent == bytes), "a frame was changed or overtaken");
    }
}

proptest! {
    #[test]
    fn what_is_sent_arrives(
        from in layouts(),
        to in layouts(),
        frames in prop::collection::vec((14_usize..6000, prop::collection::vec(1_usize..3000, 0..4)), 1..80),
        buffer in 1600_u32..5000,
        pieces in 1_usize..4,
    ) {
        // The smallest ring holds two chains of three pieces: the longest frame must fit them.
        let buffer = if to.mergeable { buffer.max(6100 / 2) } else { 6100 };
        let (mut a, mut b) = (Guest::new(from, Features::all()), Guest::new(to, Features::all()));
        let frames: Vec<_> = frames
            .iter()
            .enumerate()
            .map(|(index, (len, cuts))| (frame(*len, index as u8), &cuts[..]))
            .collect();
        exchange(&mut a, &mut b, &frames, buffer, pieces);
    }
}

/// How many buffers each of these frames fills, in order, until one does not find enough.
fn filled(buffers: &[u32], frames: &[usize]) -> Vec<usize> {
    let mut left = buffers;
    let mut counts = Vec::new();
    for len in frames {
        let mut room = 0;
        let count = left.iter().take_while(|buffer| {
            let is_needed = room < len + 12;
            room += **buffer as usize;
            is_needed
        });
        let count = count.count();
        if left.iter().take(count).map(|buffer| *buffer as usize).sum::<usize>() < len + 12 {
            break;
        }
        counts.push(count);
        left = &left[count..];
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn large_frames_fill_buffers_of_any_sizes(
        from in layouts(),
        to in layouts(),
        buffers in prop::collection::vec(
            prop_oneof![1 => 12_u32..40, 2 => 40_u32..300, 4 => 1500_u32..5000, 1 => 5000_u32..70_000],
            1..120,
        ),
        frames in prop::collection::vec(
            (
                prop_oneof![2 => 14_usize..300, 2 => 300_usize..5000, 2 => 5000_usize..65_000],
                prop::collection::vec(1_usize..20_000, 0..5),
            ),
            1..12,
        ),
        pieces in 1_usize..4,
        rounds in 1_usize..4,
    ) {
        let to = Layout { mergeable: true, size: to.size.max(64), ..to };
        let (mut a, mut b) = (Guest::new(from, Features::all()), Guest::new(to, Features::all()));
        // Buffers that were given back as if never taken come first in the next round.
        let mut waiting: Vec<u32> = Vec::new();
        for round in 0..rounds {
            waiting.extend(buffers.iter().take_while(|len| b.offer(**len, pieces)));
            let mut sent = Vec::new();
            for (index, (len, cuts)) in frames.iter().enumerate() {
                let bytes = frame(*len, (index + round) as u8);
                if !a.send(&Offload::PLAIN, &bytes, cuts) {
                    break;
                }
                sent.push(bytes);
            }
            let lens: Vec<usize> = sent.iter().map(Vec::len).collect();
            let counts = filled(&waiting, &lens);
            let tally = forward(&mut a, &mut b);
            let got: Vec<Vec<u8>> = b.received().into_iter().map(|(_, bytes)| bytes).collect();
            prop_assert_eq!(tally.frames as usize, counts.len());
            prop_assert_eq!(tally.dropped_for(DropReason::RingFull) as usize, sent.len() - counts.len());
            prop_assert!(got[..] == sent[..counts.len()], "what arrived is not what was sent");
            waiting.drain(..counts.iter().sum::<usize>());
            prop_assert_eq!(b.receiver.outstanding(), waiting.len());
            a.sender.reap();
            prop_assert_eq!(a.sender.outstanding(), 0);
        }
    }
}

#[test]
fn many_small_frames_go_round_the_rings() {
    for bits in 0..32_u8 {
        let bit = |n: u8| bits >> n & 1 == 1;
        let layout = Layout {
            packed: bit(0),
            event_idx: bit(1),
            in_order: bit(2),
            indirect: bit(3),
            mergeable: bit(4),
            size: 64,
        };
        let (mut a, mut b) = (Guest::new(layout, Features::all()), Guest::new(layout, Features::all()));
        let frames: Vec<_> = (0..1000).map(|i| (frame(60 + i % 100, i as u8), &[12_usize][..])).collect();
        exchange(&mut a, &mut b, &frames, 1600, 1);
    }
}
