//! The port's conformance suite, for the function's queues with a driver behind them.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use common::{Guest, MAC_A};
use fabnic_avf::Settings;
use fabnic_avf_driver::{Options, Work};
use fabnic_port::conformance::{Endpoint, Outside, check};
use fabnic_port::{Burst, Egress, Fault, Ingress, Tally};

/// The guest, shared with the queues that were taken out of its cells.
struct Behind {
    guest: Arc<Mutex<Guest>>,
    waiting: VecDeque<Vec<u8>>,
}

impl Outside for Behind {
    fn send(&mut self, frame: &[u8]) {
        let mut guest = self.guest.lock().unwrap();
        let (transmit, bus) = guest.driver.transmit(0).unwrap();
        transmit.clean();
        assert!(transmit.push(frame, &Work::default(), &[13]), "no room for {} bytes", frame.len());
        transmit.ring(bus);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.guest.lock().unwrap().received(0).into_iter().map(|(_, bytes)| bytes));
        }
        self.waiting.pop_front()
    }
}

/// A queue that is taken out of its cell keeps its guest.
struct Held<Q: ?Sized>(Box<Q>, #[allow(dead_code, reason = "held")] Arc<Mutex<Guest>>);

impl Ingress for Held<dyn Ingress> {
    fn backlog(&mut self) -> usize {
        self.0.backlog()
    }
    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        self.0.receive(burst)
    }
    fn complete(&mut self, burst: &Burst) -> u32 {
        self.0.complete(burst)
    }
    fn arm(&mut self) -> bool {
        self.0.arm()
    }
    fn disarm(&mut self) {
        self.0.disarm();
    }
    fn wake(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.wake()
    }
}

impl Egress for Held<dyn Egress> {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        self.0.deliver(burst, picks, tally)
    }
}

fn endpoint(buffer_len: u16) -> Endpoint {
    let settings = Settings { mac: MAC_A, mtu: 9000, trust: true, ..Settings::default() };
    let options = Options { ring_len: 1024, buffer_len, ..Options::default() };
    let mut guest = Guest::start(settings, options);
    guest.driver.set_promiscuous(true, true).unwrap();
    let ingress = guest.port.ingress()[0].remove().unwrap();
    let egress = guest.port.egress()[0].remove().unwrap();
    let guest = Arc::new(Mutex::new(guest));
    Endpoint {
        ingress: Some(Box::new(Held(ingress, Arc::clone(&guest)))),
        egress: Some(Box::new(Held(egress, Arc::clone(&guest)))),
        outside: Box::new(Behind { guest, waiting: VecDeque::new() }),
        lengths: 14..=9018,
        // Whole frames of the longest kind fit the ring.
        depth: 1000 / (9018_usize.div_ceil(buffer_len.into()) + 1),
        wakes: true,
    }
}

#[test]
fn the_queues_conform() {
    check(|| endpoint(2048));
    check(|| endpoint(4096));
}
