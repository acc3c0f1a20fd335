//! How far apart two CPUs are: the round trip of one cache line.
//!
//! Two virtual CPUs that share an L3 are some 100 ns apart, others 400 ns, and a host may move them every few
//! seconds. Every figure of two CPUs that work together doubles or halves with it, so a window of a benchmark
//! counts only if the distance was the same before and after.

use std::{
    process::ExitCode,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use fabnic_lab::{Launch, output};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Round trips below this many nanoseconds are between CPUs that share a cache.
pub(crate) const NEAR_NS: u64 = 200;

/// Slices of one measurement; the median of them is its result.
const SLICES: usize = 7;
const SLICE: Duration = Duration::from_millis(1);
/// Round trips between two looks at the clock.
const CHUNK: u64 = 200;

/// Arguments of the hidden command that measures, under a real-time priority of its own.
#[derive(Args)]
pub(crate) struct ProbeArgs {
    /// One CPU
    a: usize,
    /// The other
    b: usize,
}

/// Measures the round trip between two CPUs, in nanoseconds, above whatever polls on them.
pub(crate) fn round_trip_ns(a: usize, b: usize) -> Result<u64> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut launch = Launch::on_host("chrt");
    launch.args(["-f", "50"]).arg(program).arg("probe-distance").arg(a.to_string()).arg(b.to_string());
    output(&launch)?.trim().parse().context("the distance probe said something else than a number")
}

/// The hidden command.
pub(crate) fn probe(args: &ProbeArgs) -> Result<ExitCode> {
    println!("{}", measure(args.a, args.b)?);
    Ok(ExitCode::SUCCESS)
}

/// Binds the calling thread to one CPU.
pub(crate) fn bind_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot bind a thread to CPU {cpu}"))
}

fn measure(a: usize, b: usize) -> Result<u64> {
    /// Tells the other thread to end.
    const END: u64 = u64::MAX;
    let line = AtomicU64::new(0);
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            let bound = bind_to(b);
            start.wait();
            bound?;
            let mut expected = 1;
            loop {
                match line.load(Ordering::Acquire) {
                    END => return Ok(()),
                    value if value == expected => {
                        line.store(expected + 1, Ordering::Release);
                        expected += 2;
                    }
                    _ => std::hint::spin_loop(),
                }
            }
        });
        let bound = bind_to(a);
        start.wait();
        // A thread that could not be bound never answers.
        let answers = bound.is_ok() && !echo.is_finished();
        let mut slices = Vec::with_capacity(SLICES);
        let mut value = 0;
        let give_up = Instant::now() + Duration::from_secs(2);
        'slices: while answers && slices.len() < SLICES {
            let began = Instant::now();
            let mut trips = 0;
            while began.elapsed() < SLICE {
                for _ in 0..CHUNK {
                    line.store(value + 1, Ordering::Release);
                    value += 2;
                    let mut spins = 0_u32;
                    while line.load(Ordering::Acquire) != value {
                        spins += 1;
                        if spins.is_multiple_of(100_000) && Instant::now() > give_up {
                            break 'slices;
                        }
                        std::hint::spin_loop();
                    }
                }
                trips += CHUNK;
            }
            slices.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX) / trips);
        }
        line.store(END, Ordering::Release);
        match echo.join() {
            Ok(result) => result?,
            Err(_) => anyhow::bail!("the distance probe's other thread panicked"),
        }
        bound?;
        slices.sort_unstable();
        slices.get(slices.len() / 2).copied().context("the distance probe got no answer")
    })
}
