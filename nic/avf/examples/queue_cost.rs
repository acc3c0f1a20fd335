//! What the two rings of a frame's way cost: take and complete on the sender's, deliver on the receiver's.
//!
//! `cargo run --profile quick -p fabnic-avf --example queue_cost [FILTER] [ROUNDS]`
//!
//! As `ring_cost` of `fabnic-virtio-net`, to be compared with it: both drivers run on the same thread, only the device's
//! side is timed, and given is what the fastest hundredth of all rounds reached, a round being one burst of 64.

use std::sync::Arc;

use fabnic_avf::{Avf, Settings};
use fabnic_avf_driver::{Driver, InProcess, Options, Work};
use fabnic_memory::Map;
use fabnic_memory::clock::{tsc, tsc_hz};
use fabnic_port::{BURST, Burst, Port, PortId, PortKind, Tally};

const MEMORY: u64 = 16 << 20;

struct Guest {
    port: Arc<Port>,
    driver: Driver<InProcess>,
}

impl Guest {
    fn new(mac: [u8; 6]) -> Guest {
        let port = Arc::new(Port::new(PortId(1), "vf", PortKind::Avf, 1));
        let avf = Avf::new(Arc::clone(&port), Settings { mac, ..Settings::default() }).expect("a function");
        let (map, _) = Map::anonymous(MEMORY).expect("memory");
        let bus = InProcess::new(Box::new(avf), map, MEMORY);
        let mut driver =
            Driver::open(bus, Options { ring_len: 256, ..Options::default() }).expect("a device");
        driver.start().expect("queues");
        Guest { port, driver }
    }
}

/// A frame of so many bytes: UDP over IPv4 with or without a checksum, or no IP at all.
fn frame(kind: &str, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if kind == "not IP" {
        frame.extend([0x88, 0xb5]);
        frame.resize(len, 7);
        return frame;
    }
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((len as u16 - 14).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 4, 0, 4, 1]);
    frame.extend((len as u16 - 34).to_be_bytes());
    // A wrong checksum is as much work as a right one.
    frame.extend(if kind == "UDP" { [0x12, 0x34] } else { [0, 0] });
    frame.resize(len, 7);
    frame
}

/// TSC cycles of each round: transmit (take, complete), receive.
fn measure(frame: &[u8], rounds: usize) -> (u64, u64) {
    let (mut a, mut b) = (Guest::new([2, 0, 0, 0, 0, 1]), Guest::new([2, 0, 0, 0, 0, 2]));
    let (mut burst, mut tally) = (Burst::new(), Tally::default());
    let picks: Vec<u8> = (0..BURST as u8).collect();
    let (mut transmit, mut receive) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for _ in 0..rounds {
        let (queue, bus) = a.driver.transmit(0).expect("a queue");
        queue.clean();
        (0..BURST).for_each(|_| assert!(queue.push(frame, &Work::default(), &[])));
        queue.ring(bus);
        let (mut ingress, mut egress) = (a.port.ingress()[0].lock(), b.port.egress()[0].lock());
        let (ingress, egress) = (ingress.as_mut().expect("a queue"), egress.as_mut().expect("a queue"));
        let start = tsc();
        ingress.receive(&mut burst).expect("receive");
        let taken = tsc();
        egress.deliver(&mut burst, &picks, &mut tally).expect("deliver");
        let delivered = tsc();
        ingress.complete(&burst);
        let end = tsc();
        assert_eq!(burst.len(), BURST);
        transmit.push((taken - start) + (end - delivered));
        receive.push(delivered - taken);
        let (queue, bus) = b.driver.receive(0).expect("a queue");
        while queue.receive(|_| ()).is_some() {}
        queue.refill(bus);
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
    println!("TSC {:.2} GHz, bursts of {BURST}, ring 256", hz as f64 / 1e9);
    println!("{:<28} {:>6}  {:>16}  {:>16}", "", "bytes", "transmit ns (cy)", "receive ns (cy)");
    for kind in ["UDP", "UDP without checksum", "not IP"] {
        for len in [64, 1514] {
            if !format!("{kind} {len}").contains(&filter) {
                continue;
            }
            let (transmit, receive) = measure(&frame(kind, len), rounds);
            let cost = |cycles: u64| {
                let cycles = cycles as f64 / BURST as f64;
                format!("{:.2} ({:.1})", cycles / hz as f64 * 1e9, cycles)
            };
            println!("{kind:<28} {len:>6}  {:>16}  {:>16}", cost(transmit), cost(receive));
        }
    }
}
