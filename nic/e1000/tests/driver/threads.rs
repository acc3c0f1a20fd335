//! A worker and a transport at the same time: a driver that only moves when it is interrupted must never be left waiting,
//! and its queues may come and go meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fabnic_pci::Function;
use fabnic_port::Port;
use fabnic_testkit::e1000::{Ask, Layout, Registers, reg};
use fabnic_testkit::packets::Packet;

use crate::guest::{Guest, forward, mac};

/// Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Moves frames between two ports until told to stop.
fn worker(a: &Port, b: &Port, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let moved = forward(a, b).frames + forward(b, a).frames;
        if moved == 0 {
            std::thread::yield_now();
        }
    }
}

/// Runs `drive` beside a worker.
fn beside_a_worker(a: &Arc<Port>, b: &Arc<Port>, drive: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| worker(a, b, &stop));
        drive();
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn no_interrupt_is_lost() {
    let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
    for guest in [&mut a, &mut b] {
        guest.driver.registers.set(reg::ITR, 0);
    }
    let (to, from) = (Arc::clone(&a.port), Arc::clone(&b.port));
    beside_a_worker(&to, &from, || {
        let frame = |id: u8, to: u8| Packet::ethernet(mac(to), mac(id)).size(60).build();
        // What one gets it sends back, and does nothing else until it is interrupted.
        a.send(&frame(1, 2), &[], &Ask::default());
        let begun = Instant::now();
        let mut turns = 0;
        while turns < 4000 {
            assert!(begun.elapsed() < PATIENCE, "after {turns} frames nobody is interrupted any more");
            for (guest, id, other) in [(&mut a, 1, 2), (&mut b, 2, 1)] {
                if !guest.line.is_high() {
                    continue;
                }
                // The order of Linux: causes, mask, work, unmask.
                guest.driver.interrupt();
                guest.driver.registers.set(reg::IMC, u32::MAX);
                guest.driver.reap().unwrap();
                for _ in guest.driver.receive().unwrap() {
                    turns += 1;
                    guest.send(&frame(id, other), &[], &Ask::default());
                }
                guest.driver.registers.set(reg::IMS, reg::ICR_RXT0 | reg::ICR_TXDW);
            }
            std::thread::yield_now();
        }
    });
    assert_eq!((a.port.stopped(), b.port.stopped()), (None, None));
}

#[test]
fn queues_come_and_go_under_a_worker() {
    let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
    let maps = [&a, &b].map(|guest| crate::guest::shared_map(guest.driver.memory()));
    let (to, from) = (Arc::clone(&a.port), Arc::clone(&b.port));
    beside_a_worker(&to, &from, || {
        let frame = Packet::ethernet(mac(2), mac(1)).size(200).build();
        for round in 0..300 {
            for _ in 0..10 {
                a.driver.send(&frame, &[100], &Ask::default());
            }
            a.driver.kick();
            match round % 5 {
                0 => a.driver.up().unwrap(),
                1 => b.driver.up().unwrap(),
                2 => {
                    b.device().set_memory(None);
                    b.device().set_memory(Some(Arc::clone(&maps[1])));
                }
                3 => {
                    a.device().set_memory(None);
                    a.device().set_memory(Some(Arc::clone(&maps[0])));
                }
                _ => b.device().settings().set_link(round % 2 == 0),
            }
            a.driver.reap().unwrap();
            b.driver.receive().unwrap();
            a.driver.interrupt();
            b.driver.interrupt();
        }
    });
    assert_eq!((a.port.stopped(), b.port.stopped()), (None, None));
    // And everything still works.
    b.device().settings().set_link(true);
    for guest in [&mut a, &mut b] {
        guest.driver.up().unwrap();
    }
    a.send(&Packet::ethernet(mac(2), mac(1)).size(200).build(), &[], &Ask::default());
    assert_eq!(forward(&to, &from).frames, 1);
}
