//! `cargo xtask bench peers`: Fabnic against testpmd and Open vSwitch, on the same two CPUs, with the same guests.
//!
//! One CPU for the switch, one for both guests, traffic both ways. Every switch gets its turn in every round
//! (A B C D A B C D), because the machine changes under us; a ratio compares neighbours of one round, and the
//! median of the rounds' ratios is what counts. Windows are short and kept only while both CPUs are near each
//! other (see [`distance`]).

pub(crate) mod distance;
mod guests;
pub(crate) mod instructions;
mod light;
mod machine;
mod measure;
mod models;
mod peer;
mod report;
pub(crate) mod single;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use fabnic_lab::{HugePages, Lab, Progress};

use self::{
    guests::Ring,
    light::Traffic,
    machine::Precedence,
    measure::{Case, Effort, GuestKind, case_name, comparable, measure, median},
    peer::Peer,
    report::{CaseReport, PeerReport, Report},
};

/// Arguments of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Throughput, cycles and latency against testpmd and Open vSwitch
    Peers(PeersArgs),
    /// The cards beside each other: throughput, cycles, latency, exits, memory
    Models(models::ModelsArgs),
    /// Instructions a frame, against the budget in benches/budget.toml
    Instructions(instructions::InstructionsArgs),
}

/// Arguments of `cargo xtask bench peers`.
#[derive(Args)]
pub(crate) struct PeersArgs {
    /// Write every window and every ratio to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Windows to keep, for each switch and round
    #[arg(long, default_value_t = 5)]
    windows: usize,
    /// Seconds of a window
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Rounds: how often each switch gets its turn
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Only cases whose name contains one of these (dpdk, light, 64, 1514, split, packed, tso, latency, flows, idle)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these switches (fabnic, testpmd, ovs-flow, ovs-normal)
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
}

/// Huge pages of 2 MiB that the hungriest pair of DPDK programs needs.
const HUGE_PAGES: u64 = 1200;

pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    match &args.what {
        What::Peers(args) => peers(args),
        What::Models(args) => models::run(args),
        What::Instructions(args) => instructions::run(args).map(|_| ExitCode::SUCCESS),
    }
}

fn peers(args: &PeersArgs) -> Result<ExitCode> {
    let progress = Progress::new();
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        bail!("the benchmark needs two CPUs: one for the switch, one for the guests");
    }
    let peers = wanted_peers(&args.peers)?;
    let lab = Lab::ensure(&progress)?;
    if peers.contains(&Peer::Fabnic) || wants(&args.only, "light") {
        crate::test::build_programs()?;
    }
    let _precedence = Precedence::take()?;
    let _pages = HugePages::reserve(HUGE_PAGES)?;
    let effort = Effort { windows: args.windows.max(1), seconds: args.seconds };
    let mut report = Report::new(args.rounds, effort);
    for guests in [GuestKind::Dpdk, GuestKind::Light] {
        for ring in [Ring::Split, Ring::Packed] {
            for size in [64, 1514] {
                let name = case_name(guests, size, ring);
                if !wants(&args.only, &name) {
                    continue;
                }
                let traffic = Traffic { ring, size, flows: 64, tso: false, rate: None, sequence: false };
                let case = Case { guests, ..Case::light(traffic) };
                report.cases.push(paired(&lab, &name, &case, &peers, effort, args.rounds, &progress)?);
            }
        }
    }
    single::run(&lab, &mut report, &args.only, &peers, effort, &progress)?;
    if report.cases.is_empty() && report.figures.is_empty() {
        bail!(
            "no case is named {}; expected words of names as in `--help`, or a whole name such as light-64-split",
            args.only.join(" or ")
        );
    }
    report.print();
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted_peers(names: &[String]) -> Result<Vec<Peer>> {
    if names.is_empty() {
        return Ok(Peer::ALL.to_vec());
    }
    names
        .iter()
        .map(|name| {
            Peer::ALL
                .into_iter()
                .find(|peer| peer.name() == name)
                .with_context(|| format!("no switch {name:?}"))
        })
        .collect()
}

/// Whether a case was asked for. Words are matched against the parts of its name.
fn wants(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|word| name == word || name.split('-').any(|part| part == word))
}

/// Measures all switches in one situation, round by round.
fn paired(
    lab: &Lab,
    name: &str,
    case: &Case,
    peers: &[Peer],
    effort: Effort,
    rounds: usize,
    progress: &Progress,
) -> Result<CaseReport> {
    let mut reports: Vec<PeerReport> = peers.iter().map(|peer| PeerReport::new(*peer)).collect();
    for round in 0..rounds {
        for report in &mut reports {
            let step =
                progress.step(format!("{name}: {} (round {} of {rounds})", report.peer.name(), round + 1));
            match measure(lab, report.peer, case, effort) {
                Ok(windows) => {
                    let kept = comparable(&windows);
                    let rate = median(kept.iter().map(|window| window.pps)).unwrap_or_default();
                    step.done(format!(
                        "{:.2} Mpps ({} of {} windows)",
                        rate / 1e6,
                        kept.len(),
                        windows.len()
                    ));
                    report.rounds.push(windows);
                }
                Err(error) => {
                    drop(step);
                    eprintln!("    {error:#}");
                    report.failures.push(format!("{error:#}"));
                    report.rounds.push(Vec::new());
                }
            }
        }
    }
    Ok(CaseReport { name: name.to_owned(), peers: reports })
}
