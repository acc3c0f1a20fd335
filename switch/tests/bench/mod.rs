//! A switch without threads whose ports are the test's: it sends frames from them, and keeps what they get.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part of it; a test")]

pub(crate) mod restart;

use core::time::Duration;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use fabnic_memory::{Hint, Map};
use fabnic_port::{Burst, Egress, Fault, Ingress, Port, PortId, PortKind, Tally};
use fabnic_switch::{InlineSwitch, Policy, PortSettings, SwitchConfig, drops};
use parking_lot::Mutex;

pub(crate) type Frames = Arc<Mutex<Vec<Vec<u8>>>>;

/// Hands out the frames that a test gave it, from memory of its own, as a guest does.
struct Source {
    waiting: Frames,
    map: Arc<Map>,
}

impl Ingress for Source {
    fn backlog(&mut self) -> usize {
        self.waiting.lock().len()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        for (frame, at) in self.waiting.lock().drain(..).zip((0..).step_by(4096)) {
            let slice = self.map.translate(at, frame.len() as u32 + 12, &mut Hint::default()).unwrap();
            self.map.write(&slice, 12, &frame);
            let first = burst.slices().len();
            burst.slices_mut().push(slice);
            burst.push(first, 1, 12, frame.len() as u32).unwrap();
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Keeps what is delivered.
struct Sink(Frames);

impl Egress for Sink {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for &pick in picks {
            let mut bytes = vec![0; burst.frames()[usize::from(pick)].len() as usize];
            assert_eq!(burst.copy_out(pick.into(), &mut bytes), bytes.len());
            tally.deliver(bytes.len() as u32);
            self.0.lock().push(bytes);
        }
        Ok(())
    }
}

/// A port of the test's.
pub(crate) struct Connected {
    pub(crate) port: Arc<Port>,
    /// What it is to send.
    pub(crate) waiting: Frames,
    /// What was delivered to it.
    pub(crate) got: Frames,
}

/// Makes a port with one queue each way, up to 64 frames of up to 4084 bytes a burst.
pub(crate) fn connect(id: PortId) -> Connected {
    let port = Arc::new(Port::new(id, &format!("p{}", id.0), PortKind::Loopback, 1));
    let (waiting, got) = (Frames::default(), Frames::default());
    let (map, _) = Map::anonymous(64 * 4096).unwrap();
    port.ingress()[0].install(Box::new(Source { waiting: Arc::clone(&waiting), map }));
    port.egress()[0].install(Box::new(Sink(Arc::clone(&got))));
    port.refresh_egress();
    Connected { port, waiting, got }
}

/// The switch and its ports.
pub(crate) struct Bench {
    pub(crate) switch: InlineSwitch,
    pub(crate) ports: Vec<Arc<Port>>,
    waiting: Vec<Frames>,
    got: Vec<Frames>,
    config: SwitchConfig,
    settings: Vec<PortSettings>,
    policy: Policy,
}

impl Bench {
    pub(crate) fn new(config: &SwitchConfig, ports: Vec<PortSettings>, policy: Policy) -> Bench {
        Bench::at(0, config, ports, policy)
    }

    /// One that is configured at this time, in nanoseconds.
    pub(crate) fn at(now_ns: u64, config: &SwitchConfig, ports: Vec<PortSettings>, policy: Policy) -> Bench {
        let mut bench = Bench {
            switch: InlineSwitch::new(config),
            ports: Vec::new(),
            waiting: Vec::new(),
            got: Vec::new(),
            config: config.clone(),
            settings: Vec::new(),
            policy,
        };
        if now_ns > 0 {
            bench.switch.tick_ns(now_ns);
        }
        for id in 0..ports.len() as u32 {
            let Connected { port, waiting, got } = connect(PortId(id));
            bench.ports.push(port);
            bench.waiting.push(waiting);
            bench.got.push(got);
        }
        bench.configure(ports);
        bench
    }

    pub(crate) fn configure(&mut self, ports: Vec<PortSettings>) {
        self.settings.clone_from(&ports);
        let ports = self.ports.iter().cloned().zip(ports).collect();
        self.switch.configure(ports, self.policy.clone());
    }

    /// Another switch takes the place of this one, with new ports of the same names, and goes on from its state as it was
    /// saved; `rules` makes the rules that are configured. Gives the state, after it was seen that the other one has it.
    pub(crate) fn restart(&mut self, rules: impl FnOnce(&mut InlineSwitch)) -> Vec<u8> {
        let saved = restart::save(&mut self.switch, None);
        let now = self.switch.now_ns();
        self.switch = InlineSwitch::new(&self.config);
        self.switch.tick_ns(now);
        for (index, place) in self.ports.iter_mut().enumerate() {
            let Connected { port, waiting, got } = connect(place.id);
            // What was delivered and not looked at is the host's.
            got.lock().append(&mut self.got[index].lock());
            (*place, self.waiting[index], self.got[index]) = (port, waiting, got);
        }
        self.configure(self.settings.clone());
        rules(&mut self.switch);
        let same = |number| Some(PortId(number));
        let report = restart::restore(&self.switch, &saved, Duration::ZERO, true, &same);
        assert!(report.lost.is_empty(), "{report:?}");
        let again = restart::save(&mut self.switch, None);
        assert_eq!(restart::records(&again), restart::records(&saved), "saved, restored and saved again");
        saved
    }

    /// Sends frames from a port, as one burst.
    pub(crate) fn send(&mut self, port: usize, frames: &[Vec<u8>]) {
        self.waiting[port].lock().extend(frames.iter().cloned());
        assert_eq!(self.switch.poll(self.ports[port].id, 0), Ok(frames.len()));
    }

    /// What a port got since the last time.
    pub(crate) fn take(&mut self, port: usize) -> Vec<Vec<u8>> {
        core::mem::take(&mut *self.got[port].lock())
    }

    /// All drops, by reason.
    pub(crate) fn reasons(&self) -> BTreeMap<&'static str, u64> {
        let mut reasons = BTreeMap::new();
        for port in &self.ports {
            for (reason, count) in drops(&port.rx_drops).chain(drops(&port.tx_drops)) {
                *reasons.entry(reason.label()).or_default() += count;
            }
        }
        reasons
    }
}
