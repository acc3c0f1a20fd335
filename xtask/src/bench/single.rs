//! Figures of Fabnic itself: TSO frames against a bare copy, latency at low load, many flows, idle ports.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use fabnic_lab::{Lab, Launch, Progress, output};

use super::{
    distance::bind_to,
    guests::Ring,
    light::Traffic,
    measure::{Case, Effort, Window, comparable, measure, median},
    peer::{Peer, SWITCH_CPU},
    report::{Figure, Report},
    wants,
};

/// Bytes of a TSO frame, as `fabnic-pktgen --tso` sends them.
const TSO_SIZE: u32 = 65_226;
/// Ports that are configured and idle.
const IDLE_PORTS: u32 = 1024;

/// Arguments of the hidden command that copies and does nothing else.
#[derive(Args)]
pub(crate) struct CopyArgs {
    /// CPU to copy on
    cpu: usize,
    /// Bytes of one copy
    size: usize,
    /// Buffers on each side, used one after the other
    buffers: usize,
}

/// The hidden command: bytes a second of copying from one ring of buffers to another.
pub(crate) fn copy(args: &CopyArgs) -> Result<ExitCode> {
    bind_to(args.cpu)?;
    let from: Vec<Vec<u8>> = (0..args.buffers.max(1)).map(|i| vec![i as u8; args.size]).collect();
    let mut to: Vec<Vec<u8>> = (0..args.buffers.max(1)).map(|_| vec![0u8; args.size]).collect();
    let mut rates = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let mut bytes = 0_usize;
        while began.elapsed() < Duration::from_millis(200) {
            for (from, to) in from.iter().zip(&mut to) {
                to.copy_from_slice(std::hint::black_box(from));
                std::hint::black_box(&to);
                bytes += args.size;
            }
        }
        rates.push(bytes as f64 / began.elapsed().as_secs_f64());
    }
    println!("{}", median(rates).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

/// Bits a second of a bare copy on the switch's CPU.
fn bare_copy_bps(size: u32, buffers: usize) -> Result<f64> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut launch = Launch::on_host(program);
    launch.arg("bare-copy").arg(SWITCH_CPU.to_string()).arg(size.to_string()).arg(buffers.to_string());
    let bytes: f64 = output(&launch)?.trim().parse().context("the copy said something else than a number")?;
    Ok(bytes * 8.0)
}

pub(crate) fn run(
    lab: &Lab,
    report: &mut Report,
    only: &[String],
    peers: &[Peer],
    effort: Effort,
    progress: &Progress,
) -> Result<()> {
    if !peers.contains(&Peer::Fabnic) {
        return Ok(());
    }
    let figures: [(&str, Measure); 4] =
        [("tso", tso), ("latency", latency), ("flows", flows), ("idle", idle)];
    for (name, figure) in figures {
        if !wants(only, name) {
            continue;
        }
        let step = progress.step(format!("figure: {name}"));
        let mut bench = Bench { lab, report, effort };
        match figure(&mut bench) {
            Ok(()) => step.done(""),
            Err(error) => {
                drop(step);
                eprintln!("    {error:#}");
            }
        }
    }
    Ok(())
}

/// Measures one figure or a few that belong together.
type Measure = fn(&mut Bench<'_>) -> Result<()>;

/// What a figure is measured with.
struct Bench<'a> {
    lab: &'a Lab,
    report: &'a mut Report,
    effort: Effort,
}

impl Bench<'_> {
    fn windows(&self, peer: Peer, traffic: Traffic, idle_ports: u32) -> Result<Vec<Window>> {
        let case = Case { idle_ports, ..Case::light(traffic) };
        Ok(comparable(&measure(self.lab, peer, &case, self.effort)?))
    }

    fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str, note: impl Into<String>) {
        self.report.figures.push(Figure { name: name.into(), value, unit, note: note.into() });
    }
}

fn plain(ring: Ring, size: u32) -> Traffic {
    Traffic { ring, size, flows: 64, tso: false, rate: None, sequence: false }
}

fn bps(windows: &[Window]) -> f64 {
    median(windows.iter().map(|window| window.bps)).unwrap_or_default()
}

fn cycles(windows: &[Window]) -> f64 {
    median(windows.iter().filter_map(|window| window.cycles_per_packet)).unwrap_or(f64::NAN)
}

/// 64 KiB frames from guest to guest, against a bare copy of as many bytes, and against Open vSwitch at 1514 B.
fn tso(bench: &mut Bench<'_>) -> Result<()> {
    let frames = Traffic { tso: true, ..plain(Ring::Split, TSO_SIZE) };
    let (mut ours, mut copies, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..2 {
        ours.push(bps(&bench.windows(Peer::Fabnic, frames.clone(), 0)?));
        // As many buffers as a guest's ring holds of this size (`LightGuests::spawn`).
        copies.push(bare_copy_bps(TSO_SIZE, 64)?);
        theirs.push(bps(&bench.windows(Peer::OvsNormal, plain(Ring::Split, 1514), 0)?));
    }
    let (ours, copy) = (median(ours).unwrap_or_default(), median(copies).unwrap_or_default());
    let theirs = median(theirs).unwrap_or_default();
    bench.figure("64 KiB TSO frames", ours / 1e9, "Gb/s", "");
    bench.figure("bare copy of 64 KiB on the switch's CPU", copy / 1e9, "Gb/s", "");
    bench.figure("TSO frames / bare copy", ours / copy, "x", "at least 0.5");
    bench.figure("TSO frames / ovs-normal at 1514 B", ours / theirs, "x", "at least 5");
    Ok(())
}

/// Latency at 1 % of the full rate, against testpmd, which polls as eagerly as one can.
fn latency(bench: &mut Bench<'_>) -> Result<()> {
    let full = bench.windows(Peer::Fabnic, plain(Ring::Split, 64), 0)?;
    let full = median(full.iter().map(|window| window.pps)).unwrap_or_default();
    let rate = (full / 200.0) as u64;
    for (name, rate) in [("1 % load", Some(rate)), ("100 packets/s", Some(100))] {
        let traffic = Traffic { rate, sequence: true, ..plain(Ring::Split, 64) };
        for peer in [Peer::Fabnic, Peer::Testpmd] {
            let windows = bench.windows(peer, traffic.clone(), 0)?;
            for (percentile, pick) in [
                ("p50", (|l: &super::light::Latency| l.p50) as fn(&super::light::Latency) -> u64),
                ("p99", |l| l.p99),
                ("p999", |l| l.p999),
            ] {
                let value = median(
                    windows.iter().filter_map(|window| Some(pick(window.latency_ns.as_ref()?) as f64)),
                );
                if let Some(value) = value {
                    bench.figure(
                        format!("latency at {name}, {}, {percentile}", peer.name()),
                        value / 1e3,
                        "us",
                        "",
                    );
                }
            }
        }
    }
    Ok(())
}

/// A million flows against 64.
fn flows(bench: &mut Bench<'_>) -> Result<()> {
    let few = cycles(&bench.windows(Peer::Fabnic, plain(Ring::Split, 64), 0)?);
    let many = Traffic { flows: 1_000_000, ..plain(Ring::Split, 64) };
    let many = cycles(&bench.windows(Peer::Fabnic, many, 0)?);
    bench.figure("cycles a packet, 64 flows", few, "cycles", "");
    bench.figure("cycles a packet, 1,000,000 flows", many, "cycles", "");
    bench.figure("1,000,000 flows / 64 flows", many / few, "x", "at most 2");
    Ok(())
}

/// Idle ports beside the two that work.
fn idle(bench: &mut Bench<'_>) -> Result<()> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        without.push(bps(&bench.windows(Peer::Fabnic, plain(Ring::Split, 64), 0)?));
        with.push(bps(&bench.windows(Peer::Fabnic, plain(Ring::Split, 64), IDLE_PORTS)?));
    }
    let loss = 1.0 - median(with).unwrap_or_default() / median(without).unwrap_or(f64::NAN);
    bench.figure(format!("throughput lost to {IDLE_PORTS} idle ports"), loss * 100.0, "%", "at most 2");
    Ok(())
}
