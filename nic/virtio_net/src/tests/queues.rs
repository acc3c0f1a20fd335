//! What a transport and a worker see of a queue: notifications, life cycle, hostile drivers, logging.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fabnic_memory::{DirtyLog, Hint, Map, RegionSpec};
use fabnic_port::{Burst, DropReason, Fault, Tally};
use fabnic_virtqueue::driver::{Buffer, Driver, Interrupts};
use fabnic_wire::Offload;
use rustix::event::{EventfdFlags, eventfd};

use super::guest::{Guest, Layout};
use super::{forward, frame};
use crate::{Features, QueueSetup, open_receive, open_transmit, receive_control, transmit_control};

fn every_layout(mut test: impl FnMut(Layout)) {
    for bits in 0..8_u8 {
        let bit = |n: u8| bits >> n & 1 == 1;
        test(Layout {
            packed: bit(0),
            event_idx: bit(1),
            in_order: bit(2),
            indirect: false,
            mergeable: true,
            size: 64,
        });
    }
}

fn event() -> (OwnedFd, OwnedFd) {
    let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    (fd.try_clone().unwrap(), fd)
}

/// How often it was written since this was last asked.
fn count(fd: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    match rustix::io::read(fd, &mut bytes) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

#[test]
fn a_queue_that_is_armed_misses_nothing() {
    every_layout(|layout| {
        let mut guest = Guest::new(layout, Features::all());
        let mut burst = Burst::new();
        for round in 0..300 {
            assert!(!guest.transmit.arm(), "nothing waits");
            assert!(guest.send(&Offload::PLAIN, &frame(60, 1), &[]));
            assert!(guest.sender.wants_kick(), "{layout:?}, round {round}");
            assert!(guest.transmit.arm(), "something waits");
            assert!(guest.transmit.backlog() > 0);
            guest.transmit.disarm();
            guest.sender.wants_kick();
            for _ in 0..3 {
                guest.send(&Offload::PLAIN, &frame(60, 1), &[]);
                assert!(!guest.sender.wants_kick(), "{layout:?}: nobody sleeps");
            }
            guest.transmit.receive(&mut burst).unwrap();
            guest.transmit.complete(&burst);
            assert_eq!(guest.sender.reap().len(), 4);
            assert_eq!(guest.transmit.backlog(), 0);
        }
    });
}

#[test]
fn interrupts_come_when_they_are_wanted() {
    every_layout(|layout| {
        let (mut a, mut b) = (Guest::new(layout, Features::all()), Guest::new(layout, Features::all()));
        let (call, sent) = event();
        transmit_control(&mut *a.transmit).unwrap().set_call(Some(call));
        let (call, received) = event();
        receive_control(&mut *b.receive).unwrap().set_call(Some(call));
        let mut go = |n: usize, want: Interrupts| {
            a.sender.want(want);
            b.receiver.want(want);
            (0..n).for_each(|_| assert!(a.send(&Offload::PLAIN, &frame(60, 1), &[])));
            b.refill(1600, 1);
            let tally = forward(&mut a, &mut b);
            let calls = (count(&sent), count(&received));
            assert_eq!(calls.1, tally.calls);
            assert_eq!((a.sender.reap().len(), b.received().len()), (n, n));
            calls
        };
        // The first publication may interrupt whatever the driver says, as nobody knows what it has seen.
        go(1, Interrupts::Always);
        for round in 0..200 {
            assert_eq!(go(1 + round % 7, Interrupts::Always), (1, 1), "{layout:?}: once for a burst");
            assert_eq!(go(1 + round % 5, Interrupts::Never), (0, 0), "{layout:?}");
            if layout.event_idx {
                assert_eq!(go(5, Interrupts::After(5)), (0, 0), "{layout:?}: not reached");
                assert_eq!(go(5, Interrupts::After(4)), (1, 1), "{layout:?}: reached by the last");
                assert_eq!(go(5, Interrupts::After(0)), (1, 1), "{layout:?}: reached by the first");
            }
        }
    });
}

#[test]
fn a_queue_goes_on_where_another_stopped() {
    every_layout(|layout| {
        let (mut a, mut b) = (Guest::new(layout, Features::all()), Guest::new(layout, Features::all()));
        for round in 0..40_u8 {
            for n in 0..30 {
                assert!(a.send(&Offload::PLAIN, &frame(60 + n, round), &[]));
            }
            b.refill(1600, 1);
            let tally = forward(&mut a, &mut b);
            assert_eq!(tally.frames, 30);
            a.sender.reap();
            let got = b.received();
            assert!(got.iter().enumerate().all(|(n, (_, bytes))| *bytes == frame(60 + n, round)));
            // The other back end knows the base only.
            let base = transmit_control(&mut *a.transmit).unwrap().base();
            a.reopen_transmit(base);
            let base = receive_control(&mut *b.receive).unwrap().base();
            b.reopen_receive(base);
        }
    });
}

#[test]
fn what_was_taken_ahead_is_given_back_when_another_goes_on() {
    every_layout(|layout| {
        let layout = Layout { size: 256, ..layout };
        let (mut a, mut b) = (Guest::new(layout, Features::all()), Guest::new(layout, Features::all()));
        let (mut burst, mut tally) = (Burst::new(), Tally::default());
        let (mut sent, mut got) = (0_usize, Vec::new());
        for round in 0..60_u8 {
            while a.send(&Offload::PLAIN, &frame(60 + sent % 9, sent as u8), &[]) {
                sent += 1;
            }
            b.refill(1600, 1);
            // Full bursts, so that both queues take ahead; and not all that waits.
            for _ in 0..1 + round % 3 {
                a.transmit.receive(&mut burst).unwrap();
                assert_eq!(burst.len(), 64);
                let picks: Vec<u8> = (0..64).collect();
                b.receive.deliver(&mut burst, &picks, &mut tally).unwrap();
                a.transmit.complete(&burst);
            }
            assert!(a.transmit.backlog() > 0 && a.transmit.arm(), "what was taken ahead waits too");
            a.transmit.disarm();
            let base = transmit_control(&mut *a.transmit).unwrap().base();
            let from = receive_control(&mut *b.receive).unwrap().base();
            if round % 2 == 0 {
                a.reopen_transmit(base);
                b.reopen_receive(from);
            }
            a.sender.reap();
            got.extend(b.received().into_iter().map(|(_, bytes)| bytes));
        }
        assert_eq!(tally.dropped(), 0);
        for (number, bytes) in got.iter().enumerate() {
            assert_eq!(*bytes, frame(60 + number % 9, number as u8), "{layout:?}: frame {number}");
        }
        assert_eq!(got.len() as u64, tally.frames);
    });
}

#[test]
fn frames_that_are_none_are_dropped_with_a_reason() {
    every_layout(|layout| {
        let mut guest = Guest::new(layout, Features::all());
        let mut header = Offload::PLAIN.encode(0).to_vec();
        header.extend(frame(13, 0));
        assert!(guest.send_raw(&header[..3], &[]));
        assert!(guest.send_raw(&header, &[7]));
        assert!(guest.send(&Offload::PLAIN, &frame(14, 0), &[]));
        assert!(guest.send(&Offload::PLAIN, &frame(65_557, 0), &[30_000, 30_000]));
        assert!(guest.send(&Offload::PLAIN, &frame(65_558, 0), &[]));
        // No byte that could be read, though a driver may not offer that to transmit.
        let buffer = Buffer { addr: 0x20_0000, len: 64, writable: true };
        assert!(guest.sender.offer(&[buffer], None).is_some());
        let mut burst = Burst::new();
        guest.transmit.receive(&mut burst).unwrap();
        let reasons: Vec<_> = burst.frames().iter().map(|frame| frame.marked()).collect();
        let (runt, oversize) = (Some(DropReason::Runt), Some(DropReason::Oversize));
        assert_eq!(reasons, [runt, runt, None, None, oversize, runt]);
        guest.transmit.complete(&burst);
        assert_eq!(guest.sender.reap().len(), 6);
    });
}

#[test]
fn a_disabled_queue_takes_and_drops_or_delivers_nothing() {
    every_layout(|layout| {
        let (mut a, mut b) = (Guest::new(layout, Features::all()), Guest::new(layout, Features::all()));
        transmit_control(&mut *a.transmit).unwrap().set_enabled(false);
        receive_control(&mut *b.receive).unwrap().set_enabled(false);
        b.refill(1600, 1);
        assert!(a.send(&Offload::PLAIN, &frame(60, 1), &[]));
        let mut burst = Burst::new();
        let mut tally = Tally::default();
        a.transmit.receive(&mut burst).unwrap();
        assert_eq!(burst.frames()[0].marked(), Some(DropReason::IngressDisabled));
        b.receive.deliver(&mut burst, &[0], &mut tally).unwrap();
        assert_eq!((tally.frames, tally.dropped_for(DropReason::NotReady)), (0, 1));
        a.transmit.complete(&burst);
        assert_eq!((a.sender.reap().len(), b.received().len()), (1, 0));
    });
}

#[test]
fn a_queue_is_in_use_once_it_was_given_a_buffer() {
    every_layout(|layout| {
        let mut guest = Guest::new(layout, Features::all());
        assert!(!guest.receive.in_use());
        guest.refill(1600, 1);
        assert!(guest.receiver.wants_kick(), "the first buffer is told of");
        assert!(guest.receive.in_use());
    });
}

#[test]
fn a_frame_without_room_leaves_no_trace() {
    for mergeable in [false, true] {
        every_layout(|layout| {
            let layout = Layout { mergeable, ..layout };
            let (mut a, mut b) = (Guest::new(layout, Features::all()), Guest::new(layout, Features::all()));
            for len in [60, 3000, 60] {
                assert!(a.send(&Offload::PLAIN, &frame(len, 3), &[]));
            }
            // One for the first, and not enough for the second.
            assert!(b.offer(1000, 1) && b.offer(1000, 1) && b.offer(1000, 1));
            let tally = forward(&mut a, &mut b);
            let got: Vec<_> = b.received().into_iter().map(|(_, bytes)| bytes).collect();
            if mergeable {
                // Out of buffers: what comes behind has to wait its turn, and is dropped as well.
                assert_eq!(got, [frame(60, 3)]);
                assert_eq!(tally.dropped_for(DropReason::RingFull), 2);
            } else {
                assert_eq!(got, [frame(60, 3), frame(60, 3)]);
                assert_eq!(tally.dropped_for(DropReason::BufferTooSmall), 1);
            }
            // The buffers that were not used are still there.
            let left = b.receiver.outstanding();
            assert_eq!(left, 3 - got.len());
            (0..left).for_each(|_| assert!(a.send(&Offload::PLAIN, &frame(700, 9), &[])));
            assert_eq!(forward(&mut a, &mut b).frames as usize, left);
            assert!(b.received().iter().all(|(_, bytes)| *bytes == frame(700, 9)));
        });
    }
}

#[test]
fn a_broken_ring_is_a_fault_that_says_where() {
    every_layout(|layout| {
        let mut guest = Guest::new(layout, Features::all());
        let buffer = Buffer { addr: 1 << 40, len: 64, writable: false };
        guest.sender.offer(&[buffer], None).unwrap();
        let Err(Fault(reason)) = guest.transmit.receive(&mut Burst::new()) else { panic!("a fault") };
        assert_eq!(reason, "descriptor 0: 64 bytes at 0x10000000000 are not in the guest's memory");

        let (mut a, mut b) = (Guest::new(layout, Features::all()), Guest::new(layout, Features::all()));
        b.receiver.offer(&[Buffer { addr: 0x20_0000, len: 5, writable: true }], None).unwrap();
        assert!(a.send(&Offload::PLAIN, &frame(60, 1), &[]));
        let mut burst = Burst::new();
        a.transmit.receive(&mut burst).unwrap();
        let Err(Fault(reason)) = b.receive.deliver(&mut burst, &[0], &mut Tally::default()) else {
            panic!("a fault")
        };
        assert_eq!(reason, "receive buffer of 5 bytes, expected at least 12 for the virtio-net header");
    });
}

/// Guest memory whose file can be mapped again, read and cut short.
fn memory(len: u64) -> (Arc<Map>, OwnedFd) {
    let file = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, len).unwrap();
    (mapped(&file, len), file)
}

fn mapped(file: &OwnedFd, len: u64) -> Arc<Map> {
    let file = file.try_clone().unwrap();
    Map::new(vec![RegionSpec { guest_addr: 0, user_addr: 0, len, offset: 0, file }]).unwrap()
}

fn setup(map: &Arc<Map>, driver: &Driver) -> QueueSetup {
    QueueSetup {
        map: Arc::clone(map),
        ring: driver.config(),
        features: Features::all(),
        kick: None,
        call: None,
        log: None,
        log_used: None,
    }
}

#[test]
fn memory_that_was_lost_is_a_fault_of_its_own_port() {
    let (map, file) = memory(0x10_0000);
    let layout = Guest::ring_config(Layout {
        packed: false,
        event_idx: false,
        in_order: false,
        indirect: false,
        mergeable: true,
        size: 64,
    });
    let mut driver = Driver::new(&map, 0, layout);
    let mut queue = open_transmit(setup(&map, &driver)).unwrap();
    driver.offer(&[Buffer { addr: 0x8_0000, len: 100, writable: false }], None).unwrap();
    rustix::fs::ftruncate(&file, 0x1_0000).unwrap();
    let mut burst = Burst::new();
    // The copy runs into the hole and survives; the next look says what happened.
    let first = queue.receive(&mut burst);
    queue.complete(&burst);
    let Err(Fault(reason)) = first.and_then(|()| queue.receive(&mut burst)) else { panic!("a fault") };
    assert_eq!(reason, "a memory file of the guest was truncated while it was in use");
}

#[test]
fn memory_that_is_lost_in_the_middle_of_a_large_frame_is_a_fault_of_its_own_port() {
    every_layout(|layout| {
        let (map, file) = memory(0x10_0000);
        let mut receiver = Driver::new(&map, 0, Guest::ring_config(layout));
        let mut receive = open_receive(setup(&map, &receiver)).unwrap();
        for n in 0..40 {
            receiver
                .offer(&[Buffer { addr: 0x4_0000 + n * 0x1000, len: 2000, writable: true }], None)
                .unwrap();
        }
        let mut a = Guest::new(layout, Features::all());
        assert!(a.send(&Offload::PLAIN, &frame(60_000, 1), &[20_000]));
        // The rings stay, and some of the buffers.
        rustix::fs::ftruncate(&file, 0x5_0000).unwrap();
        let (mut burst, mut tally) = (Burst::new(), Tally::default());
        a.transmit.receive(&mut burst).unwrap();
        // The copy runs into the hole and survives; the next look says what happened.
        let first = receive.deliver(&mut burst, &[0], &mut tally);
        let Err(Fault(reason)) = first.and_then(|()| receive.deliver(&mut burst, &[0], &mut tally)) else {
            panic!("a fault")
        };
        assert_eq!(reason, "a memory file of the guest was truncated while it was in use");
        // The sender's port is as it was.
        a.transmit.complete(&burst);
        assert_eq!(a.sender.reap().len(), 1);
        assert!(a.send(&Offload::PLAIN, &frame(60, 1), &[]));
        a.transmit.receive(&mut burst).unwrap();
        assert_eq!(burst.len(), 1);
    });
}

#[test]
fn a_queue_moves_to_another_map_between_bursts() {
    every_layout(|layout| {
        let len = 0x10_0000;
        let (map, file) = memory(len);
        let mut driver = Driver::new(&map, 0, Guest::ring_config(layout));
        let mut queue = open_transmit(setup(&map, &driver)).unwrap();
        let mut burst = Burst::new();
        for round in 0..100_u8 {
            let place = map.translate(0x8_0000 + 12, 60, &mut Hint::default()).unwrap();
            map.write(&place, 0, &frame(60, round));
            driver.offer(&[Buffer { addr: 0x8_0000, len: 72, writable: false }], None).unwrap();
            queue.receive(&mut burst).unwrap();
            assert_eq!(burst.frames()[0].head(), frame(60, round));
            queue.complete(&burst);
            assert_eq!(driver.reap().len(), 1);
            transmit_control(&mut *queue).unwrap().set_memory(mapped(&file, len)).unwrap();
        }
        let (small, _) = Map::anonymous(512).unwrap();
        let Err(Fault(reason)) = transmit_control(&mut *queue).unwrap().set_memory(small) else {
            panic!("a fault")
        };
        assert!(reason.contains("not inside one memory region"), "{reason}");
    });
}

#[test]
fn all_that_is_written_is_logged_and_nothing_else() {
    every_layout(|layout| {
        let len = 0x10_0000_u64;
        let (map, file) = memory(len);
        let (source, _) = Map::anonymous(0x1_0000).unwrap();
        let mut receiver = Driver::new(&map, 0, Guest::ring_config(layout));
        let mut sender = Driver::new(&source, 0, Guest::ring_config(layout));
        let bitmap = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&bitmap, 4096).unwrap();
        let log = DirtyLog::new(bitmap.try_clone().unwrap(), 0, 4096).unwrap();
        let mut transmit = open_transmit(setup(&source, &sender)).unwrap();
        let used = Some(receiver.config().device);
        let mut receive = open_receive(setup(&map, &receiver)).unwrap();
        receive_control(&mut *receive).unwrap().set_log(Some(log), used);
        let contents = || {
            let mut bytes = vec![0; len as usize];
            rustix::io::pread(&file, &mut bytes, 0).unwrap();
            bytes
        };
        let mut burst = Burst::new();
        let mut tally = Tally::default();
        for round in 0..100_u64 {
            for n in 0..3 {
                // Buffers across the border of two pages, too short for the whole frame.
                let addr = 0x4_0000 + (round * 3 + n) % 40 * 0x3000 - 500;
                receiver.offer(&[Buffer { addr, len: 1000, writable: true }], None).unwrap();
            }
            let place = source.translate(0x8000, 2000, &mut Hint::default()).unwrap();
            source.write(&place, 12, &frame(1988, round as u8 + 1));
            sender.offer(&[Buffer { addr: 0x8000, len: 2000, writable: false }], None).unwrap();
            sender.offer(&[Buffer { addr: 0x8000, len: 100, writable: false }], None).unwrap();
            let before = contents();
            rustix::io::pwrite(&bitmap, &[0; 4096], 0).unwrap();
            transmit.receive(&mut burst).unwrap();
            receive.deliver(&mut burst, &[0, 1], &mut tally).unwrap();
            transmit.complete(&burst);
            let after = contents();
            let mut bits = vec![0; 4096];
            rustix::io::pread(&bitmap, &mut bits, 0).unwrap();
            let pages = before.chunks(4096).zip(after.chunks(4096));
            for (page, (before, after)) in pages.enumerate() {
                let is_logged = bits[page / 8] >> (page % 8) & 1 == 1;
                assert!(is_logged || before == after, "{layout:?}: page {page} was written and not logged");
                let touched = [0x4_0000 - 4096, 0x4_0000 + 40 * 0x3000];
                let at = page * 4096;
                assert!(
                    !is_logged || at < 0x4000 || (at >= touched[0] && at < touched[1]),
                    "{layout:?}: page {page} was logged and not written"
                );
            }
            assert_eq!(receiver.reap().len(), 3);
            sender.reap();
        }
        assert_eq!(tally.frames, 200);
    });
}
