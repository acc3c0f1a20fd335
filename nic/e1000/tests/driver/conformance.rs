//! The port's conformance suite: the two queues, with the driver as the world behind them.

use std::collections::VecDeque;

use fabnic_port::conformance::{Endpoint, Outside, check};
use fabnic_testkit::e1000::{Ask, Layout, reg};

use crate::guest::Guest;

struct Behind {
    guest: Guest,
    waiting: VecDeque<Vec<u8>>,
}

impl Outside for Behind {
    fn send(&mut self, frame: &[u8]) {
        self.guest.driver.reap().unwrap();
        self.guest.send(frame, &[frame.len() / 3], &Ask::default());
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        if self.waiting.is_empty() {
            self.guest.driver.interrupt();
            let frames = self.guest.driver.receive().unwrap();
            self.waiting.extend(frames.into_iter().map(|frame| frame.bytes));
        }
        self.waiting.pop_front()
    }
}

fn endpoint(buffer: u32) -> Endpoint {
    let layout = Layout {
        transmit: 512,
        receive: 1024,
        buffer,
        arena: 4 << 20,
        rctl: reg::RCTL_BAM | reg::RCTL_UPE | reg::RCTL_LPE,
        ..Layout::default()
    };
    let guest = Guest::new(1, layout);
    // Out of their cells: the suite plays the worker.
    let ingress = guest.port.ingress()[0].remove();
    let egress = guest.port.egress()[0].remove();
    Endpoint {
        ingress,
        egress,
        outside: Box::new(Behind { guest, waiting: VecDeque::new() }),
        // Shorter ones are padded; the suite takes four bytes out of some.
        lengths: 64..=16_380,
        depth: 100,
        wakes: true,
    }
}

#[test]
fn the_queues_conform() {
    check(|| endpoint(2048));
}

#[test]
fn the_queues_conform_with_large_buffers() {
    check(|| endpoint(4096));
}
