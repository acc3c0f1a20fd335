//! What looking up large rule sets costs (`fabnic_testkit::rule_mix`). Memory is of the first set of a size only: later ones use
//! what earlier ones gave back. Figures are printed, nothing is asserted about time:
//! `cargo test --profile quick -p fabnic-switch --lib -- --ignored --nocapture measure`.

#![allow(clippy::print_stdout, reason = "figures are for people")]

use std::time::Instant;

use fabnic_testkit::rule_mix::{Dice, Family, FiveFields, generate};

use super::*;
use crate::rules::classifier::Classifier;

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
    RuleSpec { priority: id as u32, ..rule(id as u64, terms) }
}

/// A packet that a rule matches; another rule may come before it.
fn key(made: &FiveFields, dice: &mut Dice) -> Key {
    let packet = made.packet(dice);
    let mut fields = Fields { ethertype: EtherType::IPV4, ttl: 64, ..Fields::default() };
    let flow = &mut fields.flow;
    flow.flags = FlowFlags(5);
    flow.src[..4].copy_from_slice(&packet.src.to_be_bytes());
    flow.dst[..4].copy_from_slice(&packet.dst.to_be_bytes());
    (flow.src_port, flow.dst_port) = (packet.src_port, packet.dst_port);
    flow.protocol_number = packet.protocol;
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
        let specs: Vec<_> = made.iter().enumerate().map(|(id, made)| Change::Add(spec(made, id))).collect();
        let keys: Vec<Key> =
            (0..20_000).map(|_| key(&made[dice.below(made.len() as u64) as usize], &mut dice)).collect();
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
    let specs: Vec<_> = made.iter().enumerate().map(|(id, made)| Change::Add(spec(made, id))).collect();
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
