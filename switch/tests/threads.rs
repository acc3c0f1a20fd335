//! The whole switch with real threads: several workers deliver into the same queues while queues come and go and the
//! topology changes. Frames carry a number for each sender, so that loss without a reason, repetition and reordering
//! are all seen.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fabnic_memory::Map;
use fabnic_port::{BURST, Burst, DropReason, Egress, Fault, Ingress, Port, PortId, PortKind, Tally};
use fabnic_switch::{PortSettings, Switch, SwitchConfig};
use rustix::event::{EventfdFlags, eventfd};

const PORTS: u32 = 6;

fn mac(port: u32) -> [u8; 6] {
    let [_, _, a, b] = port.to_be_bytes();
    [2, 0, 0, 0, a, b]
}

/// Sends to all other ports in turn, numbered, when it is asked to.
struct Sender {
    me: u32,
    queue: u8,
    next: u64,
    asked: Arc<AtomicU64>,
    wake: OwnedFd,
    map: Arc<Map>,
}

impl Sender {
    fn new(me: u32, queue: u8, asked: &Arc<AtomicU64>) -> Sender {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let (map, _) = Map::anonymous(4096).unwrap();
        Sender { me, queue, next: 0, asked: Arc::clone(asked), wake, map }
    }
}

impl Ingress for Sender {
    fn backlog(&mut self) -> usize {
        self.asked.load(Ordering::Relaxed) as usize
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        let waiting = self.asked.load(Ordering::Relaxed).min(BURST as u64);
        for _ in 0..waiting {
            let to = (self.next % u64::from(PORTS)) as u32;
            let mut frame = [0; 64];
            frame[..6].copy_from_slice(&if to == self.me { [0xff; 6] } else { mac(to) });
            frame[6..12].copy_from_slice(&mac(self.me));
            frame[20..28].copy_from_slice(&self.next.to_le_bytes());
            frame[28] = self.queue;
            burst.push_bytes(&frame).unwrap();
            self.next += 1;
        }
        self.asked.fetch_sub(waiting, Ordering::Relaxed);
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        self.asked.load(Ordering::SeqCst) > 0
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }
}

/// Checks what arrives: of each flow (both addresses and the sender's queue) the numbers rise.
#[derive(Default)]
struct Receiver {
    last: HashMap<(Vec<u8>, u8), u64>,
    got: Arc<AtomicU64>,
    disordered: Arc<AtomicU64>,
}

impl Egress for Receiver {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for &index in picks {
            let head = burst.frames()[usize::from(index)].head();
            let number = u64::from_le_bytes(head[20..28].try_into().unwrap());
            let flow = (head[..12].to_vec(), head[28]);
            if self.last.insert(flow, number).is_some_and(|last| last >= number) {
                self.disordered.fetch_add(1, Ordering::Relaxed);
            }
            self.got.fetch_add(1, Ordering::Relaxed);
            tally.deliver(64);
        }
        Ok(())
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    // Generous: it only bounds a hang.
    for _ in 0..60_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what}: not within a minute");
}

struct Lab {
    switch: Switch,
    ports: Vec<(Arc<Port>, PortSettings)>,
    asked: Vec<Arc<AtomicU64>>,
    got: Vec<Arc<AtomicU64>>,
    disordered: Arc<AtomicU64>,
}

impl Lab {
    fn new(workers: usize, queues: usize) -> Lab {
        let cpus = std::thread::available_parallelism().unwrap().get();
        let config =
            SwitchConfig { workers: (0..workers).map(|n| n % cpus).collect(), ..SwitchConfig::default() };
        let switch = Switch::start(config).unwrap();
        let disordered = Arc::new(AtomicU64::new(0));
        let mut lab = Lab { switch, ports: Vec::new(), asked: Vec::new(), got: Vec::new(), disordered };
        for id in 0..PORTS {
            let port = Arc::new(Port::new(PortId(id), &format!("p{id}"), PortKind::Loopback, queues));
            let got = Arc::new(AtomicU64::new(0));
            for (queue, (from, to)) in port.ingress().iter().zip(port.egress()).enumerate() {
                let asked = Arc::new(AtomicU64::new(0));
                from.install(Box::new(Sender::new(id, queue as u8, &asked)));
                let disordered = Arc::clone(&lab.disordered);
                to.install(Box::new(Receiver { got: Arc::clone(&got), disordered, ..Receiver::default() }));
                lab.asked.push(asked);
            }
            port.refresh_egress();
            lab.got.push(got);
            lab.ports.push((port, PortSettings::default()));
        }
        lab.switch.set_ports(lab.ports.clone());
        lab
    }

    /// Lets every queue send so many frames more, and kicks it.
    fn send(&self, frames: u64) {
        for asked in &self.asked {
            asked.fetch_add(frames, Ordering::SeqCst);
        }
        for cell in self.ports.iter().flat_map(|(port, _)| port.ingress()) {
            if let Some(queue) = cell.lock().as_ref() {
                rustix::io::write(queue.wake().unwrap(), &1_u64.to_ne_bytes()).unwrap();
            }
        }
    }

    fn drain(&self) {
        wait_until("all frames received", || {
            self.asked.iter().all(|asked| asked.load(Ordering::SeqCst) == 0)
        });
        wait_until("all frames accounted for", || self.switch.totals().balance());
    }
}

fn run(workers: usize, queues: usize) {
    let lab = Lab::new(workers, queues);
    let frames = 6_000;
    for _ in 0..5 {
        lab.send(frames);
        lab.drain();
    }
    let totals = lab.switch.totals();
    let sent = 5 * frames * u64::from(PORTS) * queues as u64;
    assert_eq!(totals.received, sent);
    assert_eq!(totals.dropped, 0, "{totals:?}");
    assert_eq!(lab.disordered.load(Ordering::Relaxed), 0);
    let delivered: u64 = lab.got.iter().map(|got| got.load(Ordering::Relaxed)).sum();
    assert_eq!(delivered, totals.delivered);
    let workers = lab.switch.workers();
    assert_eq!(workers.iter().map(|worker| worker.frames).sum::<u64>(), sent);
    assert!(workers.iter().all(|worker| worker.frames > 0), "every worker has a part of the queues");
}

#[test]
fn one_worker_moves_everything_in_order() {
    run(1, 1);
}

#[test]
fn four_workers_move_everything_in_order() {
    run(4, 3);
}

#[test]
fn frames_add_up_while_ports_and_queues_come_and_go() {
    let lab = Lab::new(3, 2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                lab.send(50);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        for round in 0..60_usize {
            let (port, settings) = &lab.ports[round % 3];
            // A queue is changed in place, and taken out and put back.
            let cell = &port.ingress()[round % 2];
            assert_eq!(cell.with(|queue| queue.backlog() < usize::MAX), Some(true));
            let queue = cell.remove().unwrap();
            let egress = port.egress()[0].remove().unwrap();
            port.refresh_egress();
            port.egress()[0].install(egress);
            cell.install(queue);
            port.refresh_egress();
            // Ports change their settings, all but one of them leave, and come back.
            let mut ports = lab.ports.clone();
            ports[5].1 = PortSettings { enabled: round % 2 == 0, ..settings.clone() };
            lab.switch.set_ports(ports);
            if round % 10 == 0 {
                lab.switch.set_ports(lab.ports[..5].to_vec());
                let before = lab.ports[5].0.ingress()[0].counters.frames.get();
                std::thread::sleep(Duration::from_millis(2));
                let after = lab.ports[5].0.ingress()[0].counters.frames.get();
                assert_eq!(before, after, "nothing is received from a port that has left");
                lab.switch.set_ports(lab.ports.clone());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    lab.switch.set_ports(lab.ports.clone());
    lab.send(1);
    lab.drain();
    assert!(lab.switch.totals().delivered > 0);
    assert_eq!(lab.disordered.load(Ordering::Relaxed), 0);
}

#[test]
fn a_panic_on_one_ports_burst_stops_that_port_only() {
    struct Broken(OwnedFd);
    impl Ingress for Broken {
        fn backlog(&mut self) -> usize {
            1
        }
        fn receive(&mut self, _burst: &mut Burst) -> Result<(), Fault> {
            panic!("a defect on purpose");
        }
        fn complete(&mut self, _burst: &Burst) -> u32 {
            0
        }
        fn arm(&mut self) -> bool {
            true
        }
        fn disarm(&mut self) {}
        fn wake(&self) -> Option<BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }
    }
    let lab = Lab::new(1, 1);
    lab.send(100);
    lab.drain();
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let healthy = lab.ports[0].0.ingress()[0].install(Box::new(Broken(wake)));
    wait_until("the port has stopped", || lab.ports[0].0.is_stopped());
    assert!(lab.ports[0].0.stopped().unwrap().reason.to_string().contains("panicked"));
    for asked in &lab.asked[1..] {
        asked.fetch_add(600, Ordering::SeqCst);
    }
    lab.send(0);
    lab.drain();
    assert!(lab.ports[0].0.tx_drops.get(DropReason::Stopped) > 0);
    assert_eq!(lab.switch.workers()[0].panics, 1);
    lab.ports[0].0.restart();
    lab.ports[0].0.ingress()[0].install(healthy.unwrap());
    lab.send(60);
    lab.drain();
}
