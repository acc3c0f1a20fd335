//! The run: ports up, warm-up, windows, summary.

use std::io::BufRead;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fabnic_memory::clock;

use crate::card::CardTraffic;
use crate::light::LightTraffic;
use crate::options::{Mode, Nic, RunOptions};
use crate::seq::SeqTraffic;
use crate::window::{Latency, Report, Totals, Window};

/// A kind of traffic.
pub(crate) trait Traffic {
    /// Sends and receives until the clock says `until` (in counts of [`clock::tsc`]).
    fn drive(&mut self, until: u64) -> anyhow::Result<()>;
    /// What was counted since the start.
    fn totals(&mut self) -> Totals;
    /// Where the rings stand, in words, a line each.
    fn describe(&self) -> Vec<String>;
    /// Latencies since the last call; `None` if they are not measured.
    fn take_latency(&mut self) -> Option<Latency>;
    /// Latencies of all windows.
    fn all_latency(&self) -> Option<Latency>;
    /// Forgets the latencies since the last call.
    fn forget_latency(&mut self);
    /// Waits for what is under way and stops the rings. Gives the frames that never came, as far as they are not
    /// counted as lost already.
    fn finish(&mut self) -> anyhow::Result<u64>;
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    if let Some(cpu) = cpu {
        ensure!(cpu < rustix::thread::CpuSet::MAX_CPU, "CPU {cpu} does not exist");
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("pinning to CPU {cpu}"))?;
    }
    Ok(())
}

pub(crate) fn run(options: &RunOptions) -> anyhow::Result<()> {
    ensure!(options.flows >= 1, "--flows 0: expected at least 1");
    ensure!((14..=65550).contains(&options.size()), "--size {}: expected 14 to 65550", options.size());
    // Reads from a thread of its own: the traffic never waits for a line.
    let commands = options.interactive.then(commands);
    pin(options.cpu)?;
    clock::tsc_hz();
    let mut traffic: Box<dyn Traffic> = match options.mode {
        _ if options.ports.iter().any(|port| port.nic != Nic::VirtioNet) => {
            Box::new(CardTraffic::new(options)?)
        }
        Mode::Light => Box::new(LightTraffic::new(options)?),
        Mode::Seq => Box::new(SeqTraffic::new(options)?),
    };
    drive_for(traffic.as_mut(), options.warmup)?;
    traffic.forget_latency();
    let mut report = Report::new(options.json);
    match commands {
        None => {
            for i in 0..options.windows {
                report.window(window(traffic.as_mut(), i, options.window)?)?;
            }
        }
        Some(commands) => {
            let mut i = 0;
            if options.json {
                println!("{}", serde_json::json!({ "ready": true }));
            }
            // Between windows the traffic goes on, so that a window needs no warm-up.
            while let Some(line) = next_command(&commands, traffic.as_mut())? {
                let line = if line.trim() == "pause" { commands.recv().unwrap_or_default() } else { line };
                match line.trim() {
                    "window" => {
                        traffic.forget_latency();
                        report.window(window(traffic.as_mut(), i, options.window)?)?;
                        i += 1;
                    }
                    "quit" => break,
                    "" | "go" => {}
                    other => anyhow::bail!("{other:?} on standard input: expected window, pause, go or quit"),
                }
            }
        }
    }
    let missing = traffic.finish()?;
    report.finish(missing, traffic.all_latency())
}

fn drive_for(traffic: &mut dyn Traffic, seconds: f64) -> anyhow::Result<()> {
    traffic.drive(clock::tsc() + clock::counts(Duration::from_secs_f64(seconds)))
}

fn window(traffic: &mut dyn Traffic, index: u32, seconds: f64) -> anyhow::Result<Window> {
    let (before, start) = (traffic.totals(), Instant::now());
    drive_for(traffic, seconds)?;
    let (after, took) = (traffic.totals(), start.elapsed());
    let window = Window::new(index, took.as_secs_f64(), &before, &after, traffic.take_latency());
    if window.rx_frames == 0 {
        eprintln!("fabnic-pktgen: window {index}: nothing came");
        traffic.describe().iter().for_each(|line| eprintln!("  {line}"));
    }
    Ok(window)
}

/// The next line; the traffic goes on until it comes. `None` at the end.
fn next_command(
    commands: &mpsc::Receiver<String>,
    traffic: &mut dyn Traffic,
) -> anyhow::Result<Option<String>> {
    loop {
        match commands.try_recv() {
            Ok(line) => return Ok(Some(line)),
            Err(mpsc::TryRecvError::Disconnected) => return Ok(None),
            Err(mpsc::TryRecvError::Empty) => drive_for(traffic, 0.002)?,
        }
    }
}

/// Lines of standard input.
fn commands() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
