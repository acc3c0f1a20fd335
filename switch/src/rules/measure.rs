//! Rule sets as access lists, firewalls and IP chains have them, and what looking them up costs. Memory is of the first set of a size
//! only: later ones use what earlier ones gave back.
//!
//! After the published statistics of ClassBench (Taylor and Turner, IEEE/ACM ToN 2007): pairs of prefix lengths, classes of
//! ports (any, high, low, range, exact) and protocols differ by family; prefixes nest and repeat. Seeded, so that two runs
//! measure the same. Figures are printed, nothing is asserted about time:
//! `cargo test --profile quick -p fabnic-switch --lib -- --ignored --nocapture measure`.

#![allow(clippy::print_stdout, reason = "figures are for people")]

use std::time::Instant;

use super::*;
use crate::rules::classifier::Classifier;

/// A small generator of numbers (xorshift*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.roll() >> 32) % n.max(1)
    }

    /// One of these, by weight.
    fn pick<T: Copy>(&mut self, of: &[(u64, T)]) -> T {
        let mut left = self.below(of.iter().map(|(weight, _)| weight).sum());
        for (weight, value) in of {
            if left < *weight {
                return *value;
            }
            left -= weight;
        }
        of[0].1
    }
}

#[derive(Clone, Copy, Debug)]
enum Family {
    /// Access lists: destinations are precise, sources less so, ports mostly exact.
    Acl,
    /// Firewalls: many wildcards, on either side.
    Fw,
    /// IP chains: a mixture.
    Ipc,
}

#[derive(Clone, Copy)]
enum Ports {
    Any,
    High,
    Low,
    Range,
    Exact,
}

struct Made {
    src: (u32, u8),
    dst: (u32, u8),
    src_port: (u16, u16),
    dst_port: (u16, u16),
    protocol: Option<u8>,
}

/// Prefix lengths with their weights.
type Weighted = &'static [(u64, u8)];

fn generate(family: Family, count: usize, dice: &mut Dice) -> Vec<Made> {
    let lengths: (Weighted, Weighted) = match family {
        Family::Acl => (
            &[
                (10, 0),
                (4, 8),
                (8, 16),
                (6, 20),
                (5, 22),
                (8, 23),
                (20, 24),
                (6, 26),
                (6, 27),
                (8, 28),
                (5, 30),
                (30, 32),
            ],
            &[
                (2, 0),
                (4, 16),
                (4, 20),
                (5, 22),
                (8, 23),
                (25, 24),
                (6, 26),
                (6, 27),
                (8, 28),
                (4, 29),
                (5, 30),
                (40, 32),
            ],
        ),
        Family::Fw => (
            &[(45, 0), (3, 8), (5, 14), (6, 16), (4, 18), (4, 21), (10, 24), (4, 27), (4, 28), (25, 32)],
            &[(30, 0), (3, 8), (5, 15), (8, 16), (4, 19), (4, 22), (14, 24), (4, 26), (4, 28), (30, 32)],
        ),
        Family::Ipc => (
            &[
                (15, 0),
                (4, 8),
                (5, 13),
                (8, 16),
                (5, 19),
                (5, 21),
                (6, 22),
                (15, 24),
                (6, 26),
                (6, 28),
                (5, 30),
                (30, 32),
            ],
            &[
                (15, 0),
                (4, 8),
                (5, 12),
                (8, 16),
                (5, 18),
                (5, 20),
                (6, 23),
                (15, 24),
                (6, 25),
                (6, 27),
                (5, 29),
                (30, 32),
            ],
        ),
    };
    let (src_ports, dst_ports): (&[_], &[_]) = match family {
        Family::Acl => (
            &[(95, Ports::Any), (3, Ports::High), (1, Ports::Low), (1, Ports::Exact)],
            &[(30, Ports::Any), (5, Ports::High), (2, Ports::Low), (13, Ports::Range), (50, Ports::Exact)],
        ),
        Family::Fw => (
            &[(70, Ports::Any), (15, Ports::High), (2, Ports::Range), (13, Ports::Exact)],
            &[(35, Ports::Any), (10, Ports::High), (5, Ports::Low), (10, Ports::Range), (40, Ports::Exact)],
        ),
        Family::Ipc => (
            &[(70, Ports::Any), (8, Ports::High), (4, Ports::Low), (6, Ports::Range), (12, Ports::Exact)],
            &[(45, Ports::Any), (8, Ports::High), (4, Ports::Low), (10, Ports::Range), (33, Ports::Exact)],
        ),
    };
    let well_known = [
        20_u16, 21, 22, 23, 25, 53, 80, 110, 123, 143, 161, 389, 443, 445, 514, 993, 1433, 1521, 3306, 3389,
        5060, 8080,
    ];
    let ports = |class: Ports, dice: &mut Dice| match class {
        Ports::Any => (0, 65535),
        Ports::High => (1024, 65535),
        Ports::Low => (0, 1023),
        Ports::Range => {
            let first = dice.below(60_000) as u16;
            (first, first + 1 + dice.below(2000) as u16)
        }
        Ports::Exact => {
            let port = well_known[dice.below(well_known.len() as u64) as usize];
            let port = if dice.below(3) == 0 { dice.below(65536) as u16 } else { port };
            (port, port)
        }
    };
    // Networks that prefixes nest in, as sites have them.
    let sites: Vec<u32> = (0..count / 40 + 8).map(|_| dice.roll() as u32).collect();
    let prefix = |len: u8, dice: &mut Dice| {
        let site = sites[dice.below(sites.len() as u64) as usize];
        let address = site & 0xffff_c000 | dice.roll() as u32 & 0x3fff;
        (address & u32::from_be_bytes(prefix4(len)), len)
    };
    // No rule twice, and few that match whatever address: those are told apart by ports, of which there are not many.
    let mut known = std::collections::HashSet::new();
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let (src, dst) = (dice.pick(lengths.0), dice.pick(lengths.1));
        if src == 0 && dst == 0 && dice.below(50) != 0 {
            continue;
        }
        let made = Made {
            src: prefix(src, dice),
            dst: prefix(dst, dice),
            src_port: ports(dice.pick(src_ports), dice),
            dst_port: ports(dice.pick(dst_ports), dice),
            protocol: dice.pick(&[(70, Some(6)), (20, Some(17)), (10, None)]),
        };
        if known.insert((made.src, made.dst, made.src_port, made.dst_port, made.protocol)) {
            all.push(made);
        }
    }
    all
}

impl Made {
    fn spec(&self, id: usize) -> RuleSpec {
        let mut terms = vec![
            Term::src_net4(self.src.0.to_be_bytes(), self.src.1),
            Term::dst_net4(self.dst.0.to_be_bytes(), self.dst.1),
        ];
        if let Some(protocol) = self.protocol {
            terms.push(Term::Protocol(IpProtocol(protocol)));
            terms.push(Term::SrcPort { min: self.src_port.0, max: self.src_port.1 });
            terms.push(Term::DstPort { min: self.dst_port.0, max: self.dst_port.1 });
        }
        RuleSpec { priority: id as u32, ..rule(id as u64, terms) }
    }

    /// A packet that it matches; another rule may come before it.
    fn key(&self, dice: &mut Dice) -> Key {
        let mut fields = Fields { ethertype: EtherType::IPV4, ttl: 64, ..Fields::default() };
        let within = |(value, len): (u32, u8), dice: &mut Dice| {
            value | dice.roll() as u32 & !u32::from_be_bytes(prefix4(len))
        };
        let flow = &mut fields.flow;
        flow.flags = FlowFlags(5);
        flow.src[..4].copy_from_slice(&within(self.src, dice).to_be_bytes());
        flow.dst[..4].copy_from_slice(&within(self.dst, dice).to_be_bytes());
        let port =
            |(min, max): (u16, u16), dice: &mut Dice| min + dice.below(u64::from(max - min) + 1) as u16;
        (flow.src_port, flow.dst_port) = (port(self.src_port, dice), port(self.dst_port, dice));
        flow.protocol_number = self.protocol.unwrap_or(6);
        let input = Input {
            fields: &fields,
            ingress: PortId(1),
            egress: None,
            vlan: Vid::DEFAULT,
            mark: 0,
            connection: Connection::default(),
        };
        Key::of(&input)
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn nanoseconds(classifier: impl Fn(&Key) -> bool, keys: &[Key], limit: u128) -> f64 {
    let start = Instant::now();
    let mut done = 0_u64;
    let mut found = 0_u64;
    'all: loop {
        for chunk in keys.chunks(64) {
            found += chunk.iter().filter(|key| classifier(key)).count() as u64;
            done += chunk.len() as u64;
            if start.elapsed().as_millis() > limit {
                break 'all;
            }
        }
    }
    assert_eq!(found, done, "each packet is of some rule");
    start.elapsed().as_nanos() as f64 / done as f64
}

#[test]
#[ignore = "prints figures; to be run optimised"]
fn measure() {
    println!(
        "family   rules | tables  steps |   look-up ns  plain tuple space: tables  ns | bytes a rule | add a rule us"
    );
    for (family, count) in [
        (Family::Acl, 1000),
        (Family::Acl, 10_000),
        (Family::Acl, 100_000),
        (Family::Acl, 1_000_000),
        (Family::Fw, 100_000),
        (Family::Ipc, 100_000),
    ] {
        let mut dice = Dice(0x5eed);
        let made = generate(family, count, &mut dice);
        let specs: Vec<_> = made.iter().enumerate().map(|(id, made)| Change::Add(made.spec(id))).collect();
        let keys: Vec<Key> =
            (0..20_000).map(|_| made[dice.below(made.len() as u64) as usize].key(&mut dice)).collect();
        let set = RuleSet::new([0x1234_5677, 0x9e37_79b9_7f4a_7c15]);
        let (before, start) = (resident(), Instant::now());
        let mut refused = 0;
        for chunk in specs.chunks(1000) {
            if set.apply(chunk, |_| {}).is_err() {
                refused += chunk
                    .iter()
                    .filter(|change| set.apply(core::slice::from_ref(*change), |_| {}).is_err())
                    .count();
            }
        }
        let micros = start.elapsed().as_micros() as f64 / count as f64;
        let bytes = resident().saturating_sub(before) / count as u64;
        let shape = set.shape(Domain::Tenant(1), Direction::In, 0);
        let side = set.read();
        let merged = |key: &Key| side.find(Domain::Tenant(1), Direction::In, 0, key, None).is_some();
        let ours = nanoseconds(merged, &keys, if refused == 0 { 300 } else { 0 });
        let plain = if count <= 100_000 {
            let mut plain = Classifier::unmerged([0x1234_5677, 0x9e37_79b9_7f4a_7c15]);
            let rules = set.rules_of(Domain::Tenant(1));
            for rule in rules {
                plain.insert(rule).unwrap();
            }
            let ns = nanoseconds(|key| plain.find(key, None).is_some(), &keys, 300);
            format!("{:6} {ns:9.0} ({:.1}x)", plain.shape().tables, ns / ours)
        } else {
            String::new()
        };
        println!(
            "{family:?} {count:9} | {:4} {:5} | {ours:9.0}  {plain} | {bytes} | {micros:.2} refused {refused}",
            shape.tables, shape.steps
        );
    }
    // Changes one by one, as an operator's controller makes them.
    let made = generate(Family::Acl, 100_000, &mut Dice(7));
    let set = RuleSet::new([0x1234_5677, 0x9e37_79b9_7f4a_7c15]);
    let specs: Vec<_> = made.iter().enumerate().map(|(id, made)| Change::Add(made.spec(id))).collect();
    for chunk in specs.chunks(1000) {
        let _ = set.apply(chunk, |_| {});
    }
    let start = Instant::now();
    for id in 0..20_000_u64 {
        let _ = set.apply(&[Change::Remove { domain: Domain::Tenant(1), id: RuleId(id * 3) }], |_| {});
        let _ = set.apply(&specs[id as usize * 3..][..1], |_| {});
    }
    println!(
        "{:.0} changes a second, each a transaction, at 100,000 rules",
        40_000.0 / start.elapsed().as_secs_f64()
    );
}
