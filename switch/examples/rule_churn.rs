//! What changes of rules cost the traffic beside them: `cargo run --release -p fabnic-switch --example rule_churn [FLOWS
//! [CHANGES [RULES]]]`, on a machine with two CPUs or more.
//!
//! One worker forwards as fast as it can, from memory of one port to another that only counts, through 100,000 rules of an
//! access list; each of the flows is of a rule that was picked at random. A second thread changes rules, picked at random
//! too, each change a transaction of its own: 60,000 a second unless said. Windows with and without changes take turns, and
//! what counts is the median of the ratios of each pair.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people")]

mod bench;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fabnic_memory::{Hint, Map, clock};
use fabnic_port::{BURST, Burst, Fault, Ingress, Port, PortId, PortKind};
use fabnic_switch::{
    Action, Change, Direction, Domain, Match, PortSettings, RuleId, RuleSpec, Switch, SwitchConfig, Term,
};
use fabnic_testkit::packets::{Packet, tcp};
use fabnic_testkit::rule_mix::{Dice, Family, FiveFields, generate};
use fabnic_wire::{IpProtocol, MacAddr, Vid};

use bench::{Sink, median, pin};

const WINDOW: Duration = Duration::from_millis(300);
const PAIRS: usize = 9;
const STRIDE: u64 = 128;

/// Sends the frames of all flows in turn, for ever.
struct Source {
    map: Arc<Map>,
    flows: u64,
    next: u64,
}

impl Ingress for Source {
    fn backlog(&mut self) -> usize {
        BURST
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        for _ in 0..BURST {
            let slice = self.map.translate(self.next * STRIDE, 64, &mut Hint::default());
            let slice = slice.ok_or_else(|| Fault("a frame outside of the memory".into()))?;
            let first = burst.slices().len();
            burst.slices_mut().push(slice);
            burst.push(first, 1, 0, 64);
            self.next = (self.next + 1) % self.flows;
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn spec(made: &FiveFields, id: usize) -> RuleSpec {
    let mut terms = vec![
        Term::src_net4(made.src.0.to_be_bytes(), made.src.1),
        Term::dst_net4(made.dst.0.to_be_bytes(), made.dst.1),
    ];
    if let Some(protocol) = made.protocol {
        terms.push(Term::Protocol(IpProtocol(protocol)));
        terms.push(Term::SrcPort { min: made.src_port.0, max: made.src_port.1 });
        terms.push(Term::DstPort { min: made.dst_port.0, max: made.dst_port.1 });
    }
    RuleSpec {
        id: RuleId(id as u64),
        domain: Domain::Tenant(1),
        direction: Direction::In,
        group: 0,
        priority: id as u32,
        name: format!("rule {id}"),
        matches: vec![Match::new(terms)],
        actions: vec![Action::Pass],
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|n| n.parse::<u64>().unwrap());
    let flows = numbers.next().unwrap_or(1000);
    let rate = numbers.next().unwrap_or(60_000);
    let rules = numbers.next().unwrap_or(100_000) as usize;
    pin(0);
    let mut dice = Dice(0x5eed);
    let made = generate(Family::Acl, rules, &mut dice);
    let specs: Vec<RuleSpec> = made.iter().enumerate().map(|(id, made)| spec(made, id)).collect();
    let macs = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
    let (map, _) = Map::anonymous(flows * STRIDE)?;
    for flow in 0..flows {
        let packet = made[dice.below(rules as u64) as usize].packet(&mut dice);
        let frame =
            Packet::ethernet(macs[1], macs[0]).ipv4(packet.src.to_be_bytes(), packet.dst.to_be_bytes());
        let frame = match packet.protocol {
            6 => frame.tcp(packet.src_port, packet.dst_port, 1, 1, tcp::ACK),
            _ => frame.udp(packet.src_port, packet.dst_port),
        };
        let slice = map.translate(flow * STRIDE, 64, &mut Hint::default()).ok_or("no such memory")?;
        map.write(&slice, 0, &frame.size(64).build());
    }
    let switch = Switch::start(SwitchConfig { workers: vec![1], ..SwitchConfig::default() })?;
    let ports = [0, 1].map(|id| Arc::new(Port::new(PortId(id), &format!("p{id}"), PortKind::Loopback, 1)));
    let settings = PortSettings { tenant: Some(1), ..PortSettings::default() };
    switch.set_ports(ports.iter().map(|port| (Arc::clone(port), settings.clone())).collect());
    switch.fdb().add_static(Vid::DEFAULT, MacAddr::new(macs[1]), PortId(1))?;
    let mut there = vec![false; rules];
    let mut refused = 0;
    for (id, spec) in specs.iter().enumerate() {
        there[id] = switch.change_rules(&[Change::Add(spec.clone())]).is_ok();
        refused += usize::from(!there[id]);
    }
    let delivered = Arc::new(AtomicU64::new(0));
    ports[1].egress()[0].install(Box::new(Sink(Arc::clone(&delivered))));
    ports[1].refresh_egress();
    ports[0].ingress()[0].install(Box::new(Source { map, flows, next: 0 }));
    // Until nearly all frames of a whole round are of flows that are known.
    let begun = Instant::now();
    let mut before = switch.workers().remove(0);
    while begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(200));
        let now = switch.workers().remove(0);
        let frames = now.frames - before.frames;
        if frames < flows {
            continue;
        }
        if (now.flow_misses - before.flow_misses) * 1000 < frames {
            break;
        }
        before = now;
    }
    println!("warm after {:.1} s", begun.elapsed().as_secs_f64());

    let hz = clock::tsc_hz() as f64;
    let (mut quiet, mut busy, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    let mut misses = [0.0; 2];
    for window in 0..2 * PAIRS {
        // In turn which of a pair comes first, so that what the machine does by itself falls on both.
        let changing = window % 4 == 1 || window % 4 == 2;
        let (start, before) = (Instant::now(), delivered.load(Ordering::Relaxed));
        let worker = switch.workers().remove(0);
        let mut changes = 0_u64;
        while start.elapsed() < WINDOW {
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
            if !changing || changes >= due {
                std::hint::spin_loop();
                continue;
            }
            let id = dice.below(rules as u64) as usize;
            let change = match there[id] {
                true => Change::Remove { domain: Domain::Tenant(1), id: RuleId(id as u64) },
                false => Change::Add(specs[id].clone()),
            };
            if switch.change_rules(&[change]).is_ok() {
                there[id] = !there[id];
            }
            changes += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        let rate = (delivered.load(Ordering::Relaxed) - before) as f64 / seconds;
        let after = switch.workers().remove(0);
        misses[usize::from(changing)] += (after.flow_misses - worker.flow_misses) as f64
            / (after.frames - worker.frames).max(1) as f64
            / PAIRS as f64;
        if changing {
            changed.push(changes as f64 / seconds);
            busy.push(rate);
            // What was taken away comes back, so that all windows see the same rules.
            for (id, there) in there.iter_mut().enumerate().filter(|(_, there)| !**there) {
                *there = switch.change_rules(&[Change::Add(specs[id].clone())]).is_ok();
            }
            std::thread::sleep(Duration::from_millis(300));
        } else {
            quiet.push(rate);
        }
    }
    let ratios = median(busy.iter().zip(&quiet).map(|(busy, quiet)| busy / quiet).collect());
    let (quiet, busy) = (median(quiet), median(busy));
    println!("{flows} flows, {} rules ({refused} were refused)", rules - refused);
    println!(
        "without changes  {:6.2} Mpps  {:5.0} cycles  {:.4} walks a frame",
        quiet / 1e6,
        hz / quiet,
        misses[0]
    );
    println!(
        "with changes     {:6.2} Mpps  {:5.0} cycles  {:.4} walks a frame",
        busy / 1e6,
        hz / busy,
        misses[1]
    );
    println!("changes a second {:8.0}   throughput with/without {:.3}", median(changed), ratios);
    Ok(())
}
