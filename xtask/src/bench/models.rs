//! `cargo xtask bench models`: the cards beside each other, with our own light drivers as guests.
//!
//! One CPU for the switch, one for both guests, over real sockets: virtio-net by vhost-user, the PCI cards by vfio-user with
//! their tails on mapped pages. Every card gets its turn in every round, as in [`super::paired`], and a ratio is the median
//! over rounds of neighbours in one. Exits are counted with tails that are not mapped too; memory and time of many ports
//! with all of them idle, once before and once after drivers attached.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use fabnic_lab::{HugePages, Lab, Launch, Progress, WorkDir};
use serde_json::{Value, json};

use super::{
    guests::Ring,
    light::Traffic,
    machine::Precedence,
    measure::{Case, Effort, Window, comparable, measure, median},
    peer::{GUEST_CPU, Peer, Switch},
    report::{cell, cpu_model},
    wants,
};
use crate::cargo::release_dir;

/// Arguments of `cargo xtask bench models`.
#[derive(Args)]
pub(crate) struct ModelsArgs {
    /// Write every window to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Windows to keep, for each card and round
    #[arg(long, default_value_t = 3)]
    windows: usize,
    /// Seconds of a window
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds: how often each card gets its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these parts (64, 1514, tso, latency, exits, memory)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Ports of which memory and time are measured
    #[arg(long, default_value_t = 256)]
    ports: u32,
}

const MODELS: [Ring; 4] = [Ring::Split, Ring::Packed, Ring::Avf, Ring::E1000];
/// What the others are compared with.
const BASE: usize = 1;
/// Frames a second from each guest when latency is measured.
const CALM: u64 = 20_000;
/// Pages of 2 MiB for both guests.
const HUGE_PAGES: u64 = 48;

/// Windows of one card in one case, round by round.
type Rounds = Vec<Vec<Window>>;

struct Part {
    name: &'static str,
    models: Vec<Rounds>,
}

impl Part {
    fn median(&self, model: usize, value: impl Fn(&Window) -> Option<f64>) -> Option<f64> {
        let windows: Vec<Window> = self.models.get(model)?.iter().flatten().copied().collect();
        median(comparable(&windows).iter().filter_map(value))
    }

    /// How much of the base's rate a card reaches: the median over rounds.
    fn ratio(&self, model: usize, value: impl Fn(&Window) -> f64 + Copy) -> Option<f64> {
        let rounds = |model: usize| -> Option<Vec<Option<f64>>> {
            let of = |windows: &Vec<Window>| median(comparable(windows).iter().map(value));
            Some(self.models.get(model)?.iter().map(of).collect())
        };
        let (own, base) = (rounds(model)?, rounds(BASE)?);
        median(own.into_iter().zip(base).filter_map(|(own, base)| Some(own? / base?)))
    }
}

/// What many idle ports cost.
#[derive(Clone, Copy, Debug, Default)]
struct Idle {
    /// Seconds until the daemon that was started with them served all.
    created: f64,
    /// KiB of memory for each, without and with a driver.
    bare: f64,
    attached: Option<f64>,
    /// Seconds until drivers were attached to all, one after the other.
    attaching: Option<f64>,
    /// Percent of a CPU that the daemon takes with all of them idle.
    cpu: f64,
}

pub(crate) fn run(args: &ModelsArgs) -> Result<ExitCode> {
    let progress = Progress::new();
    let lab = Lab::ensure(&progress)?;
    crate::test::build_programs()?;
    let _precedence = Precedence::take()?;
    let _pages = HugePages::reserve(HUGE_PAGES)?;
    let effort = Effort { windows: args.windows.max(1), seconds: args.seconds };
    let plain = |ring, size| Traffic { ring, size, flows: 64, tso: false, rate: None, sequence: false };
    let cases: [(&str, &dyn Fn(Ring) -> Case); 5] = [
        ("64", &|ring| Case::light(plain(ring, 64))),
        ("1514", &|ring| Case::light(plain(ring, 1514))),
        ("tso", &|ring| Case::light(Traffic { tso: true, ..plain(ring, 65_226) })),
        ("latency", &|ring| Case::light(Traffic { rate: Some(CALM), sequence: true, ..plain(ring, 64) })),
        ("exits", &|ring| Case { mapped: false, ..Case::light(plain(ring, 64)) }),
    ];
    let mut parts = Vec::new();
    for (name, case) in cases {
        if !wants(&args.only, name) {
            continue;
        }
        let mut part = Part { name, models: vec![Vec::new(); MODELS.len()] };
        for round in 0..args.rounds.max(1) {
            for (ring, rounds) in MODELS.iter().zip(&mut part.models) {
                let step = progress.step(format!("{name}: {} (round {})", ring.name(), round + 1));
                let windows = measure(&lab, Peer::Fabnic, &case(*ring), effort)?;
                let rate = median(comparable(&windows).iter().map(|window| window.pps)).unwrap_or_default();
                step.done(format!("{:.2} Mpps", rate / 1e6));
                rounds.push(windows);
            }
        }
        parts.push(part);
    }
    let mut idle = Vec::new();
    if wants(&args.only, "memory") {
        for ring in MODELS {
            let step = progress.step(format!("{} idle ports: {}", args.ports, ring.name()));
            idle.push(many(&lab, ring, args.ports)?);
            step.done("");
        }
    }
    print(&parts, &idle, args.ports);
    if let Some(path) = &args.json {
        let text =
            serde_json::to_string_pretty(&as_json(&parts, &idle, args)).context("cannot write JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a daemon with so many ports, and attaches drivers if they are AVFs.
fn many(lab: &Lab, ring: Ring, ports: u32) -> Result<Idle> {
    let traffic = Traffic { ring, size: 64, flows: 1, tso: false, rate: None, sequence: false };
    let start = |ports| -> Result<(WorkDir, Switch, f64)> {
        let dir = WorkDir::new("fabnic-models.", false)?;
        let began = Instant::now();
        let case = Case { idle_ports: ports, mapped: false, ..Case::light(traffic.clone()) };
        let switch = Switch::start(Peer::Fabnic, lab, dir.path(), &case)?;
        Ok((dir, switch, began.elapsed().as_secs_f64()))
    };
    let base = {
        let (_dir, switch, _) = start(0)?;
        memory(&switch)?
    };
    let (dir, switch, created) = start(ports)?;
    let each = |now: f64| (now - base) / f64::from(ports);
    let mut idle = Idle { created, bare: each(memory(&switch)?), ..Idle::default() };
    let _drivers = if ring == Ring::Avf {
        let (drivers, seconds) = attach(dir.path(), ports)?;
        (idle.attached, idle.attaching) = (Some(each(memory(&switch)?)), Some(seconds));
        Some(drivers)
    } else {
        None
    };
    let (before, since) = (cpu_ticks(&switch)?, Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    // Linux counts in hundredths of a second for programs, whatever its own clock.
    idle.cpu = (cpu_ticks(&switch)? - before) / since.elapsed().as_secs_f64();
    Ok(idle)
}

/// Attaches a driver to each idle port, from one program that then waits.
fn attach(dir: &Path, ports: u32) -> Result<(fabnic_lab::Child, f64)> {
    let log = dir.join("drivers.log");
    let mut launch = Launch::on_host(release_dir().join("fabnic-pktgen"));
    launch.args(["attach", "--nic", "avf", "--count"]).arg(ports.to_string());
    launch.arg("--cpu").arg(GUEST_CPU.to_string()).arg("--sockets").arg(dir.join("idle"));
    launch.with_stdin().log_to(&log);
    let began = Instant::now();
    let mut child = launch.spawn()?;
    child.wait_until("all drivers", Duration::from_secs(300), || {
        std::fs::read_to_string(&log).unwrap_or_default().contains("attached")
    })?;
    let seconds = began.elapsed().as_secs_f64();
    if let Some(stdin) = child.stdin() {
        stdin.flush().context("the drivers are gone")?;
    }
    Ok((child, seconds))
}

/// KiB that are the daemon's. Not its program's pages: how many of those count depends on who else runs it.
fn memory(switch: &Switch) -> Result<f64> {
    let path = format!("/proc/{}/smaps_rollup", switch.id().context("no daemon")?);
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let kib = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context(name.to_owned())?;
        line.split_whitespace().next().and_then(|word| word.parse().ok()).context("no number of KiB")
    };
    Ok(kib("Pss_Anon:")? + kib("Pss_Shmem:")?)
}

/// Hundredths of a second of CPU that the daemon took.
fn cpu_ticks(switch: &Switch) -> Result<f64> {
    let path = format!("/proc/{}/stat", switch.id().context("no daemon")?);
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // Behind the name: state is the first, user and system time the 12th and 13th.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|word| word.parse::<f64>().ok());
    ticks(11).zip(ticks(12)).map(|(user, system)| user + system).context("no times")
}

fn print(parts: &[Part], idle: &[Idle], ports: u32) {
    println!(
        "\n{:<10} {:<8} {:>9} {:>11} {:>9} {:>11} {:>9} {:>9} {:>11}",
        "case", "card", "Mpps", "of packed", "Gb/s", "cycles/pkt", "p50 us", "p99 us", "exits/pkt"
    );
    for part in parts {
        for (model, ring) in MODELS.iter().enumerate() {
            let is_large = part.name == "tso";
            let ratio = part.ratio(model, |window| if is_large { window.bps } else { window.pps });
            let latency = |pick: fn(&super::light::Latency) -> u64| {
                part.median(model, |window| Some(pick(window.latency_ns.as_ref()?) as f64 / 1e3))
            };
            println!(
                "{:<10} {:<8} {:>9} {:>11} {:>9} {:>11} {:>9} {:>9} {:>11}",
                part.name,
                ring.name(),
                cell(part.median(model, |window| Some(window.pps / 1e6)), 2),
                ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2} x")),
                cell(part.median(model, |window| Some(window.bps / 1e9)), 1),
                cell(part.median(model, |window| window.cycles_per_packet), 0),
                cell(latency(|l| l.p50), 1),
                cell(latency(|l| l.p99), 1),
                cell(part.median(model, |window| window.exits), 5),
            );
        }
    }
    if !idle.is_empty() {
        println!(
            "\n{ports} idle ports\n{:<8} {:>10} {:>10} {:>14} {:>12} {:>8}",
            "card", "created s", "KiB each", "with a driver", "attached s", "CPU %"
        );
    }
    for (ring, idle) in MODELS.iter().zip(idle) {
        println!(
            "{:<8} {:>10.2} {:>10.1} {:>14} {:>12} {:>8.2}",
            ring.name(),
            idle.created,
            idle.bare,
            cell(idle.attached, 1),
            cell(idle.attaching, 1),
            idle.cpu,
        );
    }
}

fn as_json(parts: &[Part], idle: &[Idle], args: &ModelsArgs) -> Value {
    let part = |part: &Part| {
        let models = MODELS.iter().zip(&part.models).enumerate().map(|(model, (ring, rounds))| {
            json!({
                "card": ring,
                "median_pps": part.median(model, |window| Some(window.pps)),
                "median_bps": part.median(model, |window| Some(window.bps)),
                "median_cycles_per_packet": part.median(model, |window| window.cycles_per_packet),
                "exits_per_packet": part.median(model, |window| window.exits),
                "of_packed_pps": part.ratio(model, |window| window.pps),
                "of_packed_bps": part.ratio(model, |window| window.bps),
                "rounds": rounds,
            })
        });
        json!({ "name": part.name, "cards": models.collect::<Vec<_>>() })
    };
    let many = MODELS.iter().zip(idle).map(|(ring, idle)| {
        json!({
            "card": ring,
            "ports": args.ports,
            "created_seconds": idle.created,
            "kib_each": idle.bare,
            "kib_each_with_driver": idle.attached,
            "attached_seconds": idle.attaching,
            "cpu_percent": idle.cpu,
        })
    });
    json!({
        "rounds": args.rounds,
        "windows": args.windows,
        "window_seconds": args.seconds,
        "cpu": cpu_model(),
        "cases": parts.iter().map(part).collect::<Vec<_>>(),
        "idle": many.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(pps: f64) -> Window {
        Window {
            pps,
            bps: 10.0 * pps,
            cycles_per_packet: None,
            latency_ns: None,
            distance_ns: [100, 100],
            switch_limits: None,
            lost: 0,
            exits: None,
        }
    }

    #[test]
    fn a_card_is_compared_within_its_round() {
        let rounds = |values: [f64; 3]| values.iter().map(|pps| vec![window(*pps)]).collect::<Rounds>();
        // The machine was twice as fast in the second round.
        let models = vec![vec![], rounds([10.0, 20.0, 10.0]), rounds([9.0, 18.0, 2.0]), vec![]];
        let part = Part { name: "64", models };
        assert_eq!(part.ratio(2, |window| window.pps), Some(0.9));
        assert_eq!(part.ratio(BASE, |window| window.bps), Some(1.0));
        assert_eq!(part.ratio(3, |window| window.pps), None);
    }
}
