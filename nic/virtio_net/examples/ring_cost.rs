//! What the two rings of a frame's way cost: take and complete on the sender's, deliver on the receiver's.
//!
//! `cargo run --release -p fabnic-virtio-net --example ring_cost [FILTER] [ROUNDS]`
//!
//! Both drivers run on the same thread, so that every line is in the cache: a lower bound, good for comparing layouts
//! and for finding instructions that need not be. Only the device's side is timed. Given is what the
//! fastest hundredth of all rounds reached, a round being one burst of 64: on a machine with other work that says more than
//! the median.

use std::sync::Arc;

use fabnic_memory::clock::{tsc, tsc_hz};
use fabnic_memory::{Hint, Map};
use fabnic_port::{BURST, Burst, Egress, Ingress, Tally};
use fabnic_virtio_net::{Features, QueueSetup, open_receive, open_transmit};
use fabnic_virtqueue::RingConfig;
use fabnic_virtqueue::driver::{Buffer, Driver, Interrupts};

const RINGS: u64 = 0x10_0000;
/// From one buffer to the next, as in a pool of packet buffers: not a power of two.
const BUFFER: u64 = 2304;
const SIZE: u16 = 256;

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    packed: bool,
    in_order: bool,
    event_idx: bool,
    /// The virtio header has a descriptor of its own.
    apart: bool,
    frame: u32,
}

struct Guest {
    sender: Driver,
    receiver: Driver,
    transmit: Box<dyn Ingress>,
    receive: Box<dyn Egress>,
}

impl Guest {
    fn new(case: Case) -> Guest {
        let (map, _) = Map::anonymous(2 * RINGS + 4 * u64::from(SIZE) * BUFFER).expect("memory");
        let config = RingConfig {
            size: SIZE,
            packed: case.packed,
            event_idx: case.event_idx,
            in_order: case.in_order,
            desc: 0,
            driver: 0,
            device: 0,
            base: 0,
        };
        let mut sender = Driver::new(&map, 0, config);
        let mut receiver = Driver::new(&map, RINGS, config);
        sender.want(Interrupts::Never);
        receiver.want(Interrupts::Never);
        let setup = |driver: &Driver| QueueSetup {
            map: Arc::clone(&map),
            ring: driver.config(),
            features: Features::all(),
            kick: None,
            call: None,
            log: None,
            log_used: None,
        };
        let all = map.translate(2 * RINGS, u32::from(SIZE) * BUFFER as u32, &mut Hint::default());
        map.write(&all.expect("inside"), 0, &vec![0; usize::from(SIZE) * BUFFER as usize]);
        let transmit = open_transmit(setup(&sender)).expect("ring");
        let receive = open_receive(setup(&receiver)).expect("ring");
        Guest { sender, receiver, transmit, receive }
    }
}

fn place(ring: u64, token: u64) -> u64 {
    2 * RINGS + (ring * u64::from(SIZE) + token % u64::from(SIZE)) * BUFFER
}

/// TSC cycles of each round: transmit (take, complete), receive.
fn measure(case: Case, rounds: usize) -> (u64, u64) {
    let (mut a, mut b) = (Guest::new(case), Guest::new(case));
    let mut burst = Burst::new();
    let mut tally = Tally::default();
    let picks: Vec<u8> = (0..BURST as u8).collect();
    let (mut transmit, mut receive) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    a.transmit.disarm();
    for _ in 0..rounds {
        for _ in 0..BURST {
            let addr = place(0, a.sender.offered());
            let buffer = |addr, len| Buffer { addr, len, writable: false };
            let offered = match case.apart {
                true => a.sender.offer(&[buffer(addr, 12), buffer(addr + 64, case.frame)], None),
                false => a.sender.offer(&[buffer(addr + 52, case.frame + 12)], None),
            };
            assert!(offered.is_some());
        }
        while let Some(_token) = {
            let addr = place(1, b.receiver.offered());
            b.receiver.offer(&[Buffer { addr: addr + 52, len: 1526 + 12, writable: true }], None)
        } {}
        let start = tsc();
        a.transmit.receive(&mut burst).expect("receive");
        let taken = tsc();
        b.receive.deliver(&mut burst, &picks, &mut tally).expect("deliver");
        let delivered = tsc();
        a.transmit.complete(&burst);
        let end = tsc();
        assert_eq!(burst.len(), BURST);
        transmit.push((taken - start) + (end - delivered));
        receive.push(delivered - taken);
        a.sender.reap();
        b.receiver.reap();
    }
    assert_eq!(tally.frames as usize, rounds * BURST);
    let best = |values: &mut Vec<u64>| {
        values.sort_unstable();
        values[values.len() / 100]
    };
    (best(&mut transmit), best(&mut receive))
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let rounds = std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(5000);
    let hz = tsc_hz();
    println!("TSC {:.2} GHz, bursts of {BURST}, ring {SIZE}", hz as f64 / 1e9);
    println!("{:<28} {:>6}  {:>16}  {:>16}", "", "bytes", "transmit ns (cy)", "receive ns (cy)");
    let layouts = [
        ("split", false, false, false),
        ("split event-idx", false, false, true),
        ("split in-order", false, true, false),
        ("packed", true, false, false),
        ("packed event-idx", true, false, true),
        ("packed in-order", true, true, false),
    ];
    for (name, packed, in_order, event_idx) in layouts {
        for (frame, apart) in [(64, false), (64, true), (1514, false)] {
            let case = Case { name, packed, in_order, event_idx, apart, frame };
            let title = format!("{}{}", case.name, if apart { ", header apart" } else { "" });
            if !format!("{title} {frame}").contains(&filter) {
                continue;
            }
            let (transmit, receive) = measure(case, rounds);
            let cost = |cycles: u64| {
                let cycles = cycles as f64 / BURST as f64;
                format!("{:.2} ({:.1})", cycles / hz as f64 * 1e9, cycles)
            };
            println!("{title:<28} {frame:>6}  {:>16}  {:>16}", cost(transmit), cost(receive));
        }
    }
}
