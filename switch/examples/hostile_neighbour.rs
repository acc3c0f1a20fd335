//! What a hostile tenant costs its neighbours on the same worker: `cargo run --release -p fabnic-switch --example
//! hostile_neighbour [FRAMES]`, on a machine with two CPUs or more.
//!
//! A neighbour and infrastructure each send 500,000 frames a second (or FRAMES), less than their share of the worker; a hostile
//! tenant sends as much as is taken from it, each frame the worst that it can think of: another source address, another
//! connection, to an unknown destination, now and then a broadcast; and another thread changes its rules without a pause.
//! Windows with and without it take turns, and what counts is the median of the ratios of each pair of what the others
//! were delivered.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people")]

mod bench;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fabnic_memory::{Map, clock};
use fabnic_port::{BURST, Burst, Fault, Ingress, Port, PortId, PortKind};
use fabnic_switch::{
    Action, Change, Direction, Domain, Match, PortSettings, PortTracking, RuleId, RuleSpec, StormLimit,
    StormSettings, Switch, SwitchConfig, Term, Unit, VlanMode,
};
use fabnic_testkit::packets::{Packet, tcp};
use fabnic_wire::Vid;

use bench::{Sink, median, pin};

const WINDOW: Duration = Duration::from_millis(400);
const PAIRS: usize = 9;
const FLOWS: u16 = 256;

/// A port that sends.
struct Source {
    map: Arc<Map>,
    frames: Vec<Vec<u8>>,
    next: u64,
    /// Frames a second; 0: as many as are taken.
    rate: u64,
    /// When it sends in time, counts since then.
    begun: u64,
    is_hostile: bool,
    on: Arc<AtomicBool>,
}

impl Source {
    fn due(&self) -> usize {
        if !self.on.load(Ordering::Relaxed) {
            return 0;
        }
        if self.rate == 0 {
            return BURST;
        }
        let since = clock::nanoseconds(clock::tsc().wrapping_sub(self.begun));
        let due = (u128::from(since) * u128::from(self.rate) / 1_000_000_000) as u64;
        // What waits longer than a ring is long is lost, as a guest's would be.
        usize::try_from(due.saturating_sub(self.next)).unwrap_or(0)
    }
}

impl Ingress for Source {
    fn backlog(&mut self) -> usize {
        let due = self.due();
        if self.rate > 0 && due > 1024 {
            self.next += due as u64 - 1024;
        }
        due.min(1024)
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        for _ in 0..self.due().min(BURST).min(burst.wanted()) {
            let at = self.next as usize % self.frames.len();
            let Some(frame) = self.frames.get_mut(at) else { break };
            if self.is_hostile {
                // The source's lower half, the source port: another address and another connection each time.
                let number = (self.next as u32).to_be_bytes();
                frame[8..12].copy_from_slice(&number);
                frame[34..36].copy_from_slice(&number[2..]);
            }
            burst.push_bytes(frame);
            self.next += 1;
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        // It is never silent for long, as far as the worker is concerned.
        false
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn settings(tenant: Option<u32>, vlan: u16) -> PortSettings {
    let limit = |rate| Some(StormLimit { unit: Unit::Packets, rate, burst: 1000 });
    PortSettings {
        tenant,
        vlan: VlanMode::Access(Vid::new(vlan).unwrap()),
        tracking: tenant.map(|tenant| PortTracking {
            zone: tenant as u16,
            limit: 10_000,
            ..PortTracking::default()
        }),
        fdb_limit: 1000,
        storm: StormSettings {
            broadcast: limit(1000),
            multicast: limit(1000),
            unknown_unicast: limit(10_000),
        },
        ..PortSettings::default()
    }
}

fn mac(port: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, port]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rate = std::env::args().nth(1).map_or(500_000, |n| n.parse().unwrap());
    pin(0);
    let switch = Switch::start(SwitchConfig { workers: vec![1], ..SwitchConfig::default() })?;
    // Pairs of ports: hostile, neighbour, infrastructure.
    let owners = [Some(1), Some(2), None];
    let ports: Vec<_> = (0..6_u32)
        .map(|id| Arc::new(Port::new(PortId(id), &format!("p{id}"), PortKind::Loopback, 1)))
        .collect();
    let configured = ports.iter().zip(0..).map(|(port, id)| {
        let pair = usize::from(id as u16) / 2;
        (Arc::clone(port), settings(owners[pair], 10 + pair as u16))
    });
    switch.set_ports(configured.collect());
    let rule = |domain, id, terms, action| RuleSpec {
        id: RuleId(id),
        domain,
        direction: Direction::In,
        group: 0,
        priority: id as u32,
        name: format!("rule {id}"),
        matches: vec![Match::new(terms)],
        actions: vec![action],
    };
    let net = || Term::dst_net4([10, 0, 0, 0], 8);
    let all = [
        rule(Domain::Infrastructure, 1, vec![Term::DstPort { min: 6666, max: 6666 }], Action::Drop),
        rule(Domain::Tenant(1), 1, vec![net()], Action::Pass),
        rule(Domain::Tenant(2), 1, vec![net()], Action::Pass),
    ];
    switch.change_rules(&all.map(Change::Add))?;
    let on = Arc::new(AtomicBool::new(true));
    let hostile_on = Arc::new(AtomicBool::new(false));
    let mut counts = Vec::new();
    for (port, id) in ports.iter().zip(0_u8..) {
        let count = Arc::new(AtomicU64::new(0));
        port.egress()[0].install(Box::new(Sink(Arc::clone(&count))));
        port.refresh_egress();
        counts.push(count);
        let is_hostile = id == 0;
        if id == 1 {
            continue;
        }
        let frames = (0..FLOWS).map(|flow| {
            let to = match (is_hostile, flow) {
                (true, 0) => [0xff; 6],
                (true, _) => [2, 9, 9, 9, 9, 9],
                _ => mac(id ^ 1),
            };
            let frame = Packet::ethernet(to, mac(id)).ipv4([10, id, 0, 1], [10, id ^ 1, 0, 1]);
            match is_hostile {
                true => frame.tcp(flow, 80, 1, 0, tcp::SYN).size(64).build(),
                false => frame.udp(1000 + flow.min(9999), 2000).size(64).build(),
            }
        });
        let (map, _) = Map::anonymous(4096)?;
        let (rate, on) = if is_hostile { (0, &hostile_on) } else { (rate, &on) };
        port.ingress()[0].install(Box::new(Source {
            map,
            frames: frames.collect(),
            next: 0,
            rate,
            begun: clock::tsc(),
            is_hostile,
            on: Arc::clone(on),
        }));
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut ratios = [Vec::new(), Vec::new()];
    let mut quiet = [0.0; 2];
    let (mut taken, mut changed) = (Vec::new(), Vec::new());
    for window in 0..2 * PAIRS {
        let attacked = window % 2 == 1;
        hostile_on.store(attacked, Ordering::Relaxed);
        let received = || ports[0].ingress()[0].counters.frames.get();
        let of = |pair: usize| {
            counts[2 * pair].load(Ordering::Relaxed) + counts[2 * pair + 1].load(Ordering::Relaxed)
        };
        let (start, before, took) = (Instant::now(), [of(1), of(2)], received());
        let mut changes = 0_u64;
        while start.elapsed() < WINDOW {
            if !attacked {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let terms =
                if changes.is_multiple_of(2) { vec![] } else { vec![Term::dst_net4([10, 3, 0, 0], 24)] };
            let spec = rule(Domain::Tenant(1), 2 + changes % 100, terms, Action::Pass);
            switch.change_rules(&[Change::Put(spec)])?;
            changes += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        for pair in 0..2 {
            let rate = (of(pair + 1) - before[pair]) as f64 / seconds;
            if attacked {
                ratios[pair].push(rate / quiet[pair]);
            }
            quiet[pair] = rate;
        }
        if attacked {
            taken.push((received() - took) as f64 / seconds);
            changed.push(changes as f64 / seconds);
        }
    }
    let [neighbour, infrastructure] = ratios.map(median);
    println!(
        "of the hostile tenant, {:.2} million frames and {:.0} rule changes a second were taken",
        median(taken) / 1e6,
        median(changed)
    );
    println!("delivered with it / without it: neighbour {neighbour:.3}, infrastructure {infrastructure:.3}");
    println!("connections {}, addresses {}", switch.conntrack().len(), switch.fdb().len());
    Ok(())
}
