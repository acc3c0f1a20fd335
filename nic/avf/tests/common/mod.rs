//! Functions on ports, drivers on functions, and a switch of one line between them.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;

use fabnic_avf::{Avf, Control, Settings};
use fabnic_avf_driver::{Driver, InProcess, Options};
use fabnic_memory::Map;
use fabnic_port::{Burst, DropReason, Port, PortId, PortKind, Tally};

/// Memory of a guest.
pub(crate) const MEMORY: u64 = 64 << 20;
pub(crate) const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A function with its driver.
pub(crate) struct Guest {
    pub(crate) port: Arc<Port>,
    pub(crate) control: Control,
    pub(crate) driver: Driver<InProcess>,
}

pub(crate) fn port(queues: usize) -> Arc<Port> {
    Arc::new(Port::new(PortId(1), "vf", PortKind::Avf, queues))
}

/// A function and its handle.
pub(crate) fn function(port: &Arc<Port>, settings: Settings) -> (Avf, Control) {
    let avf = Avf::new(Arc::clone(port), settings).unwrap();
    let control = avf.control();
    (avf, control)
}

impl Guest {
    /// A guest whose driver agreed with its device, but has no queues yet.
    pub(crate) fn open(settings: Settings, options: Options) -> Guest {
        let port = port(16);
        let (avf, control) = function(&port, settings);
        let (map, _) = Map::anonymous(MEMORY).unwrap();
        let driver = Driver::open(InProcess::new(Box::new(avf), map, MEMORY), options).unwrap();
        Guest { port, control, driver }
    }

    /// A guest that runs.
    pub(crate) fn start(settings: Settings, options: Options) -> Guest {
        let mut guest = Guest::open(settings, options);
        guest.driver.start().unwrap();
        guest
    }

    pub(crate) fn a() -> Guest {
        Guest::start(Settings { mac: MAC_A, ..Settings::default() }, Options::default())
    }

    pub(crate) fn b() -> Guest {
        Guest::start(Settings { mac: MAC_B, ..Settings::default() }, Options::default())
    }

    /// Sends frames.
    pub(crate) fn send(&mut self, frames: &[&[u8]]) {
        let (transmit, bus) = self.driver.transmit(0).unwrap();
        transmit.clean();
        for frame in frames {
            assert!(transmit.push(frame, &Default::default(), &[]), "no room");
        }
        transmit.ring(bus);
    }

    /// Everything that came to a queue.
    pub(crate) fn received(
        &mut self,
        queue: usize,
    ) -> Vec<(fabnic_avf_driver::spec::receive::Found, Vec<u8>)> {
        let (receive, bus) = self.driver.receive(queue).unwrap();
        let frames = core::iter::from_fn(|| receive.receive(|frame| (frame.found, frame.to_vec()))).collect();
        receive.refill(bus);
        frames
    }
}

/// Sends everything that waits on one port to the other. Gives what became of it.
pub(crate) fn forward(from: &Port, to: &Port) -> Tally {
    let (mut burst, mut total) = (Burst::new(), Tally::default());
    for cell in from.ingress() {
        loop {
            let mut guard = cell.lock();
            let Some(ingress) = guard.as_mut() else { break };
            if ingress.backlog() == 0 {
                break;
            }
            ingress.receive(&mut burst).unwrap();
            let picks: Vec<u8> = (0..burst.len() as u8)
                .filter(|index| burst.frames()[usize::from(*index)].marked().is_none())
                .collect();
            for frame in burst.frames() {
                if let Some(reason) = frame.marked() {
                    total.drop(reason, 1);
                }
            }
            match to.egress()[0].lock().as_mut() {
                Some(egress) => egress.deliver(&mut burst, &picks, &mut total).unwrap(),
                None => total.drop(DropReason::NotReady, picks.len()),
            }
            ingress.complete(&burst);
        }
    }
    total
}

/// A frame of so many bytes from one address to another, of a local EtherType.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], len: usize, seed: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &[0x88, 0xb5]].concat();
    frame.extend((0..len.saturating_sub(14)).map(|n| (n * 31 + n / 256 + seed) as u8));
    frame
}
