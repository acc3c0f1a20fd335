//! The worker's bell under loom: in every interleaving of two ringers and a worker, all mail is read. A wake-up that got
//! lost would leave the worker asleep, which loom reports as a deadlock.
#![allow(clippy::unwrap_used, reason = "a test")]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};
}
#[path = "../src/bell.rs"]
mod bell;

use bell::Bell;
use loom::sync::{Arc, Condvar, Mutex};

/// The eventfd: a count that a sleeper waits for.
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

#[test]
fn no_wake_up_is_lost() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Arc::new((Bell::new(), Event::default(), Mutex::new(0_u32)));
        let ringers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    let (bell, event, inbox) = &*shared;
                    *inbox.lock().unwrap() += 1;
                    if bell.ring() {
                        event.write();
                    }
                })
            })
            .collect();
        let (bell, event, inbox) = &*shared;
        let mut read = 0;
        while read < 2 {
            if bell.take() {
                read += core::mem::take(&mut *inbox.lock().unwrap());
                continue;
            }
            if bell.doze() {
                event.wait();
            }
            bell.wake();
        }
        for ringer in ringers {
            ringer.join().unwrap();
        }
    });
}
