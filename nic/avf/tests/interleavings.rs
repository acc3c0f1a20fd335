//! Vectors and bells under loom: in every interleaving no interrupt and no wake-up is lost. One that got lost would leave
//! the driver, or the worker, asleep with work to do.
#![allow(clippy::unwrap_used, dead_code, reason = "a test of parts of the crate")]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}
#[path = "../src/bell.rs"]
mod bell;
#[path = "../src/vector.rs"]
mod vector;

use bell::Bell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use vector::{Enabled, Vector};

/// What a sleeper waits for: a count, that of an eventfd or of messages that a VM got.
#[derive(Default)]
struct Event {
    count: Mutex<u32>,
    written: Condvar,
}

impl Event {
    fn write(&self) {
        *self.count.lock().unwrap() += 1;
        self.written.notify_one();
    }

    fn wait(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.written.wait(count).unwrap();
        }
        *count = 0;
    }
}

fn check(test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(test);
}

/// Two queues on one vector write descriptors back; a driver polls until there is nothing, enables the vector, sleeps.
#[test]
fn no_interrupt_is_lost() {
    check(|| {
        let shared = Arc::new((Vector::new(), Event::default(), [AtomicU32::new(0), AtomicU32::new(0)]));
        let queues: Vec<_> = (0..2)
            .map(|queue| {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    let (vector, event, rings) = &*shared;
                    rings[queue].store(1, Ordering::Release);
                    if vector.cause() {
                        event.write();
                    }
                })
            })
            .collect();
        let (vector, event, rings) = &*shared;
        let found = |ring: &AtomicU32| ring.load(Ordering::Acquire);
        while rings.iter().map(found).sum::<u32>() < 2 {
            // Nothing more was found: the driver waits. Enabling may send at once.
            if vector.enable(false) == Enabled::Send {
                event.write();
            }
            event.wait();
        }
        queues.into_iter().for_each(|queue| queue.join().unwrap());
    });
}

/// A driver that disables its vector while it polls is told afterwards what happened meanwhile.
#[test]
fn what_happens_while_disabled_is_told_when_enabled() {
    check(|| {
        let shared = Arc::new((Vector::new(), Event::default(), AtomicU32::new(0)));
        let (vector, event, ring) = &*shared;
        vector.enable(false);
        let queue = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                let (vector, event, ring) = &*shared;
                ring.store(1, Ordering::Release);
                if vector.cause() {
                    event.write();
                }
            })
        };
        vector.disable();
        if ring.load(Ordering::Acquire) == 0 {
            if vector.enable(false) == Enabled::Send {
                event.write();
            }
            event.wait();
            assert_eq!(ring.load(Ordering::Acquire), 1);
        }
        queue.join().unwrap();
    });
}

/// An interrupt that is held for a pause comes when that is over, whatever else happens meanwhile.
#[test]
fn a_held_interrupt_comes() {
    check(|| {
        let shared = Arc::new((Vector::new(), Event::default(), AtomicU32::new(0)));
        let queue = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                let (vector, event, ring) = &*shared;
                for at in 1..=2 {
                    ring.store(at, Ordering::Release);
                    if vector.cause() {
                        event.write();
                    }
                }
            })
        };
        let (vector, event, ring) = &*shared;
        while ring.load(Ordering::Acquire) < 2 {
            match vector.enable(true) {
                Enabled::Waiting => {}
                Enabled::Send => unreachable!("it was to be held"),
                Enabled::Held => {
                    if vector.release() {
                        event.write();
                    }
                }
            }
            event.wait();
        }
        queue.join().unwrap();
    });
}

/// A driver moves a tail twice; the queue goes to sleep when it saw nothing.
#[test]
fn no_tail_is_overslept() {
    check(|| {
        let shared = Arc::new((Bell::new(), Event::default(), AtomicU32::new(0)));
        let register_side = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                let (bell, event, tail) = &*shared;
                for at in 1..=2 {
                    tail.store(at, Ordering::Release);
                    if bell.ring() {
                        event.write();
                    }
                }
            })
        };
        let (bell, event, tail) = &*shared;
        let mut seen = 0;
        while seen < 2 {
            let now = tail.load(Ordering::Acquire);
            if now != seen {
                seen = now;
                continue;
            }
            bell.arm();
            if tail.load(Ordering::Acquire) == seen {
                event.wait();
            }
            bell.disarm();
        }
        register_side.join().unwrap();
    });
}
