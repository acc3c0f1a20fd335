//! What every [`Ingress`] and [`Egress`] must do: one suite, for all of them.
//!
//! An implementor's test makes an [`Endpoint`]: the two sides under test, and the [`Outside`] that plays the world behind
//! them (a guest's driver, the kernel, a file).
//!
//! ```text
//!   Outside::send    --> | Ingress::receive --> burst, checked byte by byte, complete
//!   Outside::receive <-- | Egress::deliver  <-- bursts in all shapes of memory, picks in all orders
//! ```
//!
//! [`check`] makes a fresh endpoint for each part of the suite and panics with what was expected when a part fails.
//! Enabled by the feature `conformance`, for dev-dependencies.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock};

use fabnic_memory::{Hint, Map};
use rustix::event::{Timespec, epoll};

use crate::{BURST, Burst, DropReason, Egress, HEAD, Ingress, Tally};

/// How long something that must come may take. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// EtherType of the frames that are sent (IEEE 802, local experimental 1): an outside may tell other traffic by it.
pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Room for a burst of the longest frames, in pieces with gaps between.
const ARENA: u64 = 16 << 20;

/// The world behind the endpoint.
pub trait Outside {
    /// Sends a frame that the ingress will give. Panics if it cannot: the suite never sends more than
    /// [`Endpoint::depth`] before it receives.
    fn send(&mut self, frame: &[u8]);

    /// The next frame that the egress delivered. Waits for one that is on its way; `None` when nothing more comes.
    fn receive(&mut self) -> Option<Vec<u8>>;
}

/// What is to be checked. A side that an implementor does not have is `None`.
pub struct Endpoint {
    /// The side that is received from.
    pub ingress: Option<Box<dyn Ingress>>,
    /// The side that is delivered to.
    pub egress: Option<Box<dyn Egress>>,
    /// What is behind them.
    pub outside: Box<dyn Outside>,
    /// Lengths of plain frames that pass, in bytes.
    pub lengths: RangeInclusive<usize>,
    /// How many frames of any of these lengths may be under way, each direction, before one must be taken.
    pub depth: usize,
    /// Whether the ingress can be slept upon: its wake descriptor tells of what the outside sends.
    pub wakes: bool,
}

impl core::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Endpoint")
            .field("lengths", &self.lengths)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// Checks an implementation. `make` gives a fresh endpoint each time.
///
/// # Panics
/// When it does not conform.
pub fn check(mut make: impl FnMut() -> Endpoint) {
    nothing_is_received_from_nobody(make());
    frames_are_received_in_order(make());
    frames_of_all_lengths_are_received(make());
    received_frames_stay_until_complete(make());
    no_more_is_received_than_is_wanted(make());
    an_armed_ingress_wakes(make());
    frames_of_all_lengths_and_shapes_are_delivered(make());
    any_picks_are_delivered_in_their_order(make());
    changed_heads_are_delivered(make());
    every_pick_is_delivered_or_counted(make());
}

/// Lengths worth trying: every short one, then some, with both sides of every power of two and page.
fn lengths_of(range: &RangeInclusive<usize>) -> Vec<usize> {
    let is_edge = |len: usize| (len + 2) % 4096 <= 4 || len.is_power_of_two();
    let last = *range.end();
    range.clone().filter(|len| *len < 2100 || len % 97 == 0 || is_edge(*len) || last - len < 3).collect()
}

/// A frame of its own: length and number tell it from all others, as far as there is room.
fn frame_of(len: usize, number: usize) -> Vec<u8> {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 0x9e37_79b9_u32;
        let word = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        core::iter::repeat_with(word).take(20_000).flat_map(u32::to_le_bytes).collect()
    });
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ETHERTYPE);
    frame.extend((number as u32).to_be_bytes());
    frame.extend((len as u32).to_be_bytes());
    frame.extend(&NOISE[number % 4096..][..len.saturating_sub(frame.len())]);
    frame.truncate(len);
    frame
}

fn whole(burst: &Burst, index: usize) -> Vec<u8> {
    let mut bytes = vec![0; burst.frames()[index].len() as usize];
    let n = burst.copy_out(index, &mut bytes);
    assert_eq!(n, bytes.len(), "frame {index} says more bytes than it has");
    bytes
}

#[track_caller]
fn assert_frame(got: &[u8], expected: &[u8], what: &str) {
    if got != expected {
        let at = got.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
        panic!("{what}: {} bytes, expected {}; they differ from byte {at} on", got.len(), expected.len());
    }
}

/// Receives until `count` frames came, in bursts that are completed, and checks each.
fn expect_frames(ingress: &mut dyn Ingress, burst: &mut Burst, expected: &[Vec<u8>]) {
    let begun = std::time::Instant::now();
    let mut got = 0;
    while got < expected.len() {
        assert!(begun.elapsed() < PATIENCE, "{got} of {} frames came", expected.len());
        // What waits is told, sooner or later.
        if ingress.backlog() == 0 {
            std::thread::yield_now();
            continue;
        }
        ingress.receive(burst).unwrap_or_else(|fault| panic!("receive: {fault}"));
        for index in 0..burst.len() {
            let frame = &burst.frames()[index];
            assert_eq!(frame.marked(), None, "frame {got} of {} bytes is marked", frame.len());
            assert!(frame.offload().is_plain(), "a plain frame came with {:?}", frame.offload());
            assert!(got < expected.len(), "more frames came than were sent");
            assert_frame(&whole(burst, index), &expected[got], "received");
            got += 1;
        }
        ingress.complete(burst);
    }
}

fn nothing_is_received_from_nobody(endpoint: Endpoint) {
    let Some(mut ingress) = endpoint.ingress else { return };
    let mut burst = Burst::new();
    for _ in 0..3 {
        // What was in the burst before is not in it afterwards.
        let _ = burst.push_bytes(&frame_of(60, 0));
        ingress.receive(&mut burst).unwrap_or_else(|fault| panic!("receive: {fault}"));
        assert!(burst.is_empty(), "{} frames that nobody sent", burst.len());
        ingress.complete(&burst);
    }
    assert_eq!(ingress.backlog(), 0);
}

fn frames_are_received_in_order(mut endpoint: Endpoint) {
    let Some(mut ingress) = endpoint.ingress else { return };
    let mut burst = Burst::new();
    let mut number = 0;
    // Often enough around that a buffer which is not given back is missed.
    while number < (4 * endpoint.depth).max(5 * BURST) {
        for size in [1, BURST - 1, BURST, 2 * BURST + 1] {
            let size = size.min(endpoint.depth);
            let frames: Vec<_> = (number..number + size).map(|n| frame_of(60 + n % 60, n)).collect();
            frames.iter().for_each(|frame| endpoint.outside.send(frame));
            expect_frames(ingress.as_mut(), &mut burst, &frames);
            number += size;
        }
    }
    ingress.receive(&mut burst).unwrap_or_else(|fault| panic!("receive: {fault}"));
    assert!(burst.is_empty(), "a frame came twice");
    ingress.complete(&burst);
}

fn no_more_is_received_than_is_wanted(mut endpoint: Endpoint) {
    let Some(mut ingress) = endpoint.ingress else { return };
    let mut burst = Burst::new();
    for (wanted, number) in [(1, 0), (3, 100), (BURST - 1, 200)] {
        burst.set_wanted(wanted);
        let size = (2 * wanted + 1).min(endpoint.depth);
        let frames: Vec<_> = (number..number + size).map(|n| frame_of(60, n)).collect();
        frames.iter().for_each(|frame| endpoint.outside.send(frame));
        let mut got = 0;
        let begun = std::time::Instant::now();
        while got < size {
            assert!(begun.elapsed() < PATIENCE, "{got} of {size} frames came");
            if ingress.backlog() == 0 {
                std::thread::yield_now();
                continue;
            }
            ingress.receive(&mut burst).unwrap_or_else(|fault| panic!("receive: {fault}"));
            assert!(burst.len() <= wanted, "{} frames where {wanted} were wanted", burst.len());
            for index in 0..burst.len() {
                assert_frame(&whole(&burst, index), &frames[got], "received");
                got += 1;
            }
            ingress.complete(&burst);
        }
    }
}

fn frames_of_all_lengths_are_received(mut endpoint: Endpoint) {
    let Some(mut ingress) = endpoint.ingress else { return };
    let mut burst = Burst::new();
    for lengths in lengths_of(&endpoint.lengths).chunks(endpoint.depth.min(20)) {
        let frames: Vec<_> = lengths.iter().map(|len| frame_of(*len, *len)).collect();
        frames.iter().for_each(|frame| endpoint.outside.send(frame));
        expect_frames(ingress.as_mut(), &mut burst, &frames);
    }
}

fn received_frames_stay_until_complete(mut endpoint: Endpoint) {
    let Some(mut ingress) = endpoint.ingress else { return };
    let mut burst = Burst::new();
    let long = (*endpoint.lengths.end()).min(1500);
    let count = endpoint.depth / 2;
    for round in 0..4 {
        let (first, second): (Vec<_>, Vec<_>) =
            (0..count).map(|n| (frame_of(long, 2 * n + round), frame_of(long, 2 * n + 1000))).unzip();
        first.iter().for_each(|frame| endpoint.outside.send(frame));
        let begun = std::time::Instant::now();
        let mut got = 0;
        while got < count {
            assert!(begun.elapsed() < PATIENCE, "{got} of {count} frames came");
            ingress.receive(&mut burst).unwrap_or_else(|fault| panic!("receive: {fault}"));
            // More is sent while the burst is in flight, once.
            if got == 0 && !burst.is_empty() {
                second.iter().for_each(|frame| endpoint.outside.send(frame));
            }
            for index in 0..burst.len().min(count - got) {
                assert_frame(&whole(&burst, index), &first[got + index], "in flight");
            }
            let more = burst.len().saturating_sub(count - got);
            for (index, expected) in (burst.len() - more..burst.len()).zip(&second) {
                assert_frame(&whole(&burst, index), expected, "in flight, behind");
            }
            got += burst.len();
            ingress.complete(&burst);
        }
        expect_frames(ingress.as_mut(), &mut burst, &second[got - count..]);
    }
}

fn an_armed_ingress_wakes(mut endpoint: Endpoint) {
    let (Some(mut ingress), true) = (endpoint.ingress, endpoint.wakes) else { return };
    let mut burst = Burst::new();
    let watch = Watch::new(ingress.as_ref());
    for round in 0..10 {
        while ingress.arm() {
            // It said that something is there.
            ingress.receive(&mut burst).unwrap_or_else(|fault| panic!("receive: {fault}"));
            assert!(burst.is_empty(), "a frame that nobody sent");
            ingress.complete(&burst);
        }
        // An edge that is left over from before must not be taken for the next one.
        watch.has_edge(Duration::ZERO);
        let frame = frame_of(60, round);
        endpoint.outside.send(&frame);
        assert!(watch.has_edge(PATIENCE), "not woken in round {round}");
        ingress.disarm();
        expect_frames(ingress.as_mut(), &mut burst, &[frame]);
        // What waits while somebody wants to sleep is told.
        endpoint.outside.send(&frame_of(61, round));
        let begun = std::time::Instant::now();
        while !ingress.arm() {
            assert!(begun.elapsed() < PATIENCE, "a frame waits, and arm says to sleep");
        }
        ingress.disarm();
        expect_frames(ingress.as_mut(), &mut burst, &[frame_of(61, round)]);
    }
}

/// Watches a queue as a worker does: edge-triggered, without ever reading.
struct Watch(OwnedFd);

impl Watch {
    fn new(ingress: &dyn Ingress) -> Watch {
        let Some(wake) = ingress.wake() else { panic!("no descriptor to be woken by") };
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap_or_else(|error| panic!("{error}"));
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&watch, wake, epoll::EventData::new_u64(0), flags)
            .unwrap_or_else(|error| panic!("{error}"));
        Watch(watch)
    }

    fn has_edge(&self, patience: Duration) -> bool {
        let mut events = Vec::with_capacity(1);
        let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
        matches!(epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), Some(&patience)), Ok(1..))
    }
}

/// Makes bursts out of bytes, in memory of a sender.
struct Sender {
    map: Arc<Map>,
    hint: Hint,
    at: u64,
}

impl Sender {
    fn new() -> Sender {
        let (map, _) = Map::anonymous(ARENA).unwrap_or_else(|error| panic!("{error}"));
        Sender { map, hint: Hint::default(), at: 0 }
    }

    fn begin(&mut self, burst: &mut Burst) {
        burst.begin(&self.map);
        self.at = 0;
    }

    /// Adds a frame that lies in pieces of `piece` bytes, the first one behind 12 bytes that do not belong to it.
    fn push(&mut self, burst: &mut Burst, frame: &[u8], piece: usize) {
        let first = burst.slices().len();
        let bytes = [&[0xee; 12], frame].concat();
        for part in bytes.chunks(piece.max(bytes.len().div_ceil(150))) {
            let slice = self.map.translate(self.at, part.len() as u32, &mut self.hint);
            let slice = slice.unwrap_or_else(|| panic!("the suite's own memory is too small"));
            self.map.write(&slice, 0, part);
            burst.slices_mut().push(slice);
            self.at += part.len() as u64 + 3;
        }
        let count = burst.slices().len() - first;
        assert!(burst.push(first, count, 12, frame.len() as u32).is_some(), "the burst is full");
    }
}

/// Delivers all frames of the burst and expects them outside, byte by byte, and unchanged in the burst.
fn deliver_and_expect(
    egress: &mut dyn Egress,
    outside: &mut dyn Outside,
    burst: &mut Burst,
    picks: &[u8],
    expected: &[Vec<u8>],
) {
    let before: Vec<_> = (0..burst.len()).map(|i| (whole(burst, i), burst.frames()[i].offload())).collect();
    let mut tally = Tally::default();
    egress.deliver(burst, picks, &mut tally).unwrap_or_else(|fault| panic!("deliver: {fault}"));
    assert_eq!((tally.frames, tally.dropped()), (picks.len() as u64, 0), "delivered and dropped: {tally:?}");
    let bytes: usize = expected.iter().map(Vec::len).sum();
    assert_eq!(tally.bytes, bytes as u64, "bytes in the tally");
    for (number, frame) in expected.iter().enumerate() {
        let Some(got) = outside.receive() else {
            panic!("delivered frame {number} of {} ({} bytes) did not arrive", expected.len(), frame.len())
        };
        assert_frame(&got, frame, "delivered");
    }
    for (index, (bytes, offload)) in before.iter().enumerate() {
        assert_frame(&whole(burst, index), bytes, "in the burst after deliver");
        assert_eq!(burst.frames()[index].offload(), *offload, "offload in the burst after deliver");
    }
}

fn frames_of_all_lengths_and_shapes_are_delivered(mut endpoint: Endpoint) {
    let Some(mut egress) = endpoint.egress else { return };
    let (mut sender, mut burst) = (Sender::new(), Burst::new());
    for (round, lengths) in lengths_of(&endpoint.lengths).chunks(endpoint.depth.min(20)).enumerate() {
        let frames: Vec<_> = lengths.iter().map(|len| frame_of(*len, *len)).collect();
        sender.begin(&mut burst);
        for (index, frame) in frames.iter().enumerate() {
            let pieces = [usize::MAX, 12, 4096, 13, 140, 1000, 5, 139, 141, 2048];
            match (round + index) % 11 {
                // Private as a whole, without memory.
                10 if frame.len() <= HEAD => assert!(burst.push_bytes(frame).is_some()),
                kind => sender.push(&mut burst, frame, pieces[kind % 10]),
            }
        }
        let picks: Vec<u8> = (0..frames.len() as u8).collect();
        deliver_and_expect(egress.as_mut(), endpoint.outside.as_mut(), &mut burst, &picks, &frames);
    }
}

fn any_picks_are_delivered_in_their_order(mut endpoint: Endpoint) {
    let Some(mut egress) = endpoint.egress else { return };
    let (mut sender, mut burst) = (Sender::new(), Burst::new());
    let long = (*endpoint.lengths.end()).min(700);
    let frames: Vec<_> = (0..BURST).map(|n| frame_of(if n % 3 == 0 { long } else { 60 + n }, n)).collect();
    sender.begin(&mut burst);
    frames.iter().enumerate().for_each(|(n, frame)| sender.push(&mut burst, frame, 100 + n));
    let all: Vec<u8> = (0..BURST as u8).collect();
    let backwards: Vec<u8> = all.iter().rev().copied().collect();
    let odd: Vec<u8> = all.iter().filter(|n| *n % 2 == 1).copied().collect();
    for picks in [&[][..], &[0], &[63], &[5, 5, 5], &[9, 3, 60, 3], &odd, &all, &backwards] {
        for picks in picks.chunks(endpoint.depth) {
            let expected: Vec<_> = picks.iter().map(|pick| frames[usize::from(*pick)].clone()).collect();
            deliver_and_expect(egress.as_mut(), endpoint.outside.as_mut(), &mut burst, picks, &expected);
        }
    }
}

fn changed_heads_are_delivered(mut endpoint: Endpoint) {
    let Some(mut egress) = endpoint.egress else { return };
    let (mut sender, mut burst) = (Sender::new(), Burst::new());
    let short = (*endpoint.lengths.start()).max(60);
    for len in [short, 64, 124, 125, 128, 129, 132, 133, 300, 1000] {
        sender.begin(&mut burst);
        let original = frame_of(len, len);
        (0..4).for_each(|_| sender.push(&mut burst, &original, 77));
        let tag = [0x81, 0, 0, 10];
        let tagged = [&original[..12], &tag, &original[12..]].concat();
        let shorter = [&original[..14], &original[18..]].concat();
        let frame = &mut burst.frames_mut()[1];
        frame
            .insert(12, 4)
            .map(|room| room.copy_from_slice(&tag))
            .unwrap_or_else(|| panic!("no room for a tag"));
        assert!(burst.frames_mut()[2].remove(14, 4), "nothing to remove");
        let (frame, slices, source) = burst.frame_and_source(3).unwrap_or_else(|| panic!("no frame"));
        frame.pull(200, source, slices);
        let expected = [original.clone(), tagged, shorter, original];
        let picks = [0, 1, 2, 3];
        for (picks, expected) in picks.chunks(endpoint.depth).zip(expected.chunks(endpoint.depth)) {
            deliver_and_expect(egress.as_mut(), endpoint.outside.as_mut(), &mut burst, picks, expected);
        }
    }
}

fn every_pick_is_delivered_or_counted(mut endpoint: Endpoint) {
    let Some(mut egress) = endpoint.egress else { return };
    let (mut sender, mut burst) = (Sender::new(), Burst::new());
    let picks: Vec<u8> = (0..BURST as u8).collect();
    for _ in 0..2 {
        // More than fits, where there is a bound: nobody takes anything meanwhile.
        let mut total = Tally::default();
        let mut delivered = Vec::new();
        for round in 0..8 {
            sender.begin(&mut burst);
            (0..BURST).for_each(|n| sender.push(&mut burst, &frame_of(60, round * BURST + n), 200));
            let mut tally = Tally::default();
            egress.deliver(&mut burst, &picks, &mut tally).unwrap_or_else(|fault| panic!("deliver: {fault}"));
            assert_eq!(tally.frames + tally.dropped(), picks.len() as u64, "{tally:?}");
            assert_eq!(tally.bytes, 60 * tally.frames, "{tally:?}");
            let by_reason: u32 = DropReason::ALL.iter().map(|reason| tally.dropped_for(*reason)).sum();
            assert_eq!(u64::from(by_reason), tally.dropped(), "drops by reason: {tally:?}");
            assert_eq!(
                tally.dropped_for(DropReason::RingFull),
                by_reason,
                "another reason than a full ring: {tally:?}"
            );
            delivered.push(tally.frames);
            total.frames += tally.frames;
        }
        assert!(total.frames >= endpoint.depth.min(8 * BURST) as u64, "fewer than the depth: {delivered:?}");
        let arrived = core::iter::from_fn(|| endpoint.outside.receive()).count();
        assert_eq!(
            arrived as u64, total.frames,
            "frames that arrived, and frames that were counted as delivered"
        );
    }
}

#[cfg(test)]
mod tests {
    use fabnic_wire::Offload;

    use std::collections::VecDeque;

    use super::{Endpoint, Outside, Sender, check, whole};
    use crate::{
        Burst, Egress, Fault, Faulty, Ingress, LoopbackEgress, LoopbackIngress, MAX_FRAME, Mishaps, Tally,
        loopback,
    };

    /// What a loopback port gets comes back by its other side: two of them make a way in and a way out.
    struct Behind {
        sender: Sender,
        burst: Burst,
        to_ingress: LoopbackEgress,
        from_egress: LoopbackIngress,
        waiting: VecDeque<Vec<u8>>,
    }

    impl Outside for Behind {
        fn send(&mut self, frame: &[u8]) {
            self.sender.begin(&mut self.burst);
            self.sender.push(&mut self.burst, frame, usize::MAX);
            let mut tally = Tally::default();
            self.to_ingress.deliver(&mut self.burst, &[0], &mut tally).unwrap();
            assert_eq!(tally.frames, 1);
        }

        fn receive(&mut self) -> Option<Vec<u8>> {
            if self.waiting.is_empty() {
                self.from_egress.receive(&mut self.burst).unwrap();
                self.waiting.extend((0..self.burst.len()).map(|index| whole(&self.burst, index)));
                self.from_egress.complete(&self.burst);
            }
            self.waiting.pop_front()
        }
    }

    fn looped(depth: usize, mishaps: Mishaps) -> Endpoint {
        let (ingress, to_ingress) = loopback(depth).unwrap();
        let (from_egress, egress) = loopback(depth).unwrap();
        Endpoint {
            ingress: Some(Box::new(Faulty::new(ingress, mishaps, 1))),
            egress: Some(Box::new(Faulty::new(egress, mishaps, 2))),
            outside: Box::new(Behind {
                sender: Sender::new(),
                burst: Burst::new(),
                to_ingress,
                from_egress,
                waiting: VecDeque::new(),
            }),
            lengths: 14..=MAX_FRAME as usize,
            depth,
            wakes: true,
        }
    }

    #[test]
    fn the_loopback_port_conforms() {
        for depth in [1, 150] {
            check(|| looped(depth, Mishaps::default()));
        }
    }

    #[test]
    fn what_goes_wrong_is_found() {
        let none = Mishaps::default();
        for mishaps in [
            Mishaps { lose: 300, ..none },
            Mishaps { reorder: 300, ..none },
            Mishaps { full: 300, ..none },
            Mishaps { corrupt: 300, ..none },
            Mishaps { break_after: Some(400), ..none },
        ] {
            let found = std::panic::catch_unwind(|| check(|| looped(150, mishaps)));
            assert!(found.is_err(), "passed with {mishaps:?}");
            let only_out = || Endpoint { ingress: None, ..looped(150, mishaps) };
            let found = std::panic::catch_unwind(|| check(only_out));
            assert!(found.is_err() || mishaps.corrupt > 0, "egress passed with {mishaps:?}");
        }
    }

    /// Does one thing wrong that no counter tells.
    struct Sly(LoopbackEgress, fn(&mut Burst, &[u8], &mut Tally));

    impl Egress for Sly {
        fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
            self.0.deliver(burst, picks, tally)?;
            (self.1)(burst, picks, tally);
            Ok(())
        }
    }

    #[test]
    fn what_is_hidden_is_found() {
        let wrongs: [fn(&mut Burst, &[u8], &mut Tally); 4] = [
            // The next receiver gets something else.
            |burst, picks, _| {
                let first = picks.first().map_or(0, |pick| usize::from(*pick));
                burst.frames_mut()[first].head_mut()[0] ^= 1;
            },
            |burst, _, _| {
                let changed = Offload { flags: 1, ..Offload::PLAIN };
                burst.frames_mut().iter_mut().for_each(|frame| frame.set_offload(changed));
            },
            |_, _, tally| tally.bytes += 1,
            |_, picks, tally| tally.frames += u64::from(picks.len() > 30),
        ];
        for (number, wrong) in wrongs.into_iter().enumerate() {
            let make = || {
                let (from_egress, egress) = loopback(150).unwrap();
                let (_, to_ingress) = loopback(1).unwrap();
                let (sender, burst, waiting) = (Sender::new(), Burst::new(), VecDeque::new());
                let outside = Behind { sender, burst, to_ingress, from_egress, waiting };
                Endpoint {
                    ingress: None,
                    egress: Some(Box::new(Sly(egress, wrong))),
                    outside: Box::new(outside),
                    lengths: 14..=MAX_FRAME as usize,
                    depth: 150,
                    wakes: false,
                }
            };
            assert!(std::panic::catch_unwind(|| check(make)).is_err(), "wrong {number} passed");
        }
    }
}
