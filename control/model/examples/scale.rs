//! What a large configuration costs: `cargo run --release -p fabnic-model --example scale [PORTS [RULES [FILE]]]`. With a
//! FILE, only writes the configuration there, to start a daemon with or to apply.
//!
//! 10,000 ports and 100,000 rules unless said: reading the text, checking it, comparing it with what runs, and changing
//! one rule of it.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people")]

use std::time::Instant;

use fabnic_model::{Change, Config, Desired, Domain, Edit, Group, Kind, Port, Role, Rule, diff, parse};
use serde_json::json;

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = run();
    println!("{what:<44} {:>10.3} ms", begun.elapsed().as_secs_f64() * 1e3);
    result
}

fn main() {
    let mut sizes = std::env::args().skip(1).take(2).map(|n| n.parse::<usize>().unwrap());
    let (ports, rules) = (sizes.next().unwrap_or(10_000), sizes.next().unwrap_or(100_000));
    let mut config = Config::default();
    for i in 0..ports {
        let name = format!("vm{i}");
        config.port.push(Port::virtio_net(&name, format!("/run/fabnic/{name}.sock"), Role::Server));
    }
    config.group.push(
        Group { name: "web".into(), tenant: None, addresses: vec!["10.0.0.0/8".parse().unwrap()] }.into(),
    );
    for i in 0..rules {
        let text = format!(
            "port vm{} prio {} ip_proto tcp src_ip 10.{}.{}.0/24 dst_ip group:web dst_port {} action pass",
            i % ports,
            i % 1000,
            i / 256 % 256,
            i % 256,
            i % 60_000 + 1
        );
        let words: Vec<&str> = text.split(' ').collect();
        config.rule.push(Rule::of_words(&format!("r{i}"), &words).unwrap().into());
    }
    if let Some(file) = std::env::args().nth(3) {
        return std::fs::write(file, config.to_toml().unwrap()).unwrap();
    }
    println!("{ports} ports, {rules} rules");
    timed("check", || config.check()).unwrap();
    let text = timed("write as TOML", || config.to_toml()).unwrap();
    println!("{:<44} {:>10.1} MiB", "its length", text.len() as f64 / f64::from(1 << 20));
    let read = timed("read the text and check it", || parse(&text)).unwrap();
    let empty = Config::default();
    assert_eq!(timed("compare with an empty configuration", || diff(&empty, &read)).len(), ports + rules + 1);
    assert!(timed("compare with the same configuration", || diff(&config, &read)).is_empty());
    let mut desired = timed("index", || Desired::new(read));
    timed("clone for whom it is shown", || desired.config().clone());
    let edit = |priority: u32| Edit::Set {
        kind: Kind::Rule,
        name: format!("r{}", rules / 2),
        patch: json!({ "priority": priority }),
    };
    let domain = Domain::Infrastructure;
    let mut change_one = |edit: &Edit| -> Change {
        let change = desired.plan(&domain, edit).unwrap().unwrap();
        desired.carry_out(&change);
        change
    };
    timed("change one rule", || change_one(&edit(5)));
    let name = format!("r{}", rules / 3);
    timed("remove one rule", || change_one(&Edit::Del { kind: Kind::Rule, name: name.clone() }));
    let value = json!({ "name": name, "port": "vm1", "match": { "dst_port": 80 }, "action": ["drop"] });
    timed("add one rule", || change_one(&Edit::Add { kind: Kind::Rule, value }));
}
