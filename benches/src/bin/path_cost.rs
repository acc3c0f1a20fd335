//! Drives the path a fixed number of times, for callgrind to count: `path_cost split|packed|avf|e1000 SIZE FLOWS ROUNDS
//! [plain|flows|all]`.
//!
//! Prints the number of frames that `Path::switch` moved; with `--toggle-collect='*Path*switch*'` callgrind counts what
//! that took. To standard error it says what a frame took by the clock, in one thread with everything in its caches: less
//! than between two CPUs, and good enough to compare two builds with.

use anyhow::{Context, Result, ensure};
use fabnic_benches::{Case, On, Path};
use fabnic_memory::clock;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<usize> {
        Ok(args
            .get(at)
            .context("usage: path_cost split|packed|avf|e1000 SIZE FLOWS ROUNDS [plain|flows|all]")?
            .parse()?)
    };
    let nic = args.first().map_or("", String::as_str).parse()?;
    let on = args.get(4).map_or(Ok(On::Plain), |on| on.parse())?;
    let flows = u32::try_from(number(2)?)?;
    let mut path = Path::new(Case { nic, size: number(1)?, flows, on })?;
    let (mut frames, mut cycles) = (0, Vec::new());
    for _ in 0..number(3)? {
        path.guests();
        let start = clock::tsc();
        let moved = path.switch();
        cycles.push(clock::tsc().wrapping_sub(start) / moved.max(1) as u64);
        frames += moved;
    }
    cycles.sort_unstable();
    eprintln!("{} TSC cycles a frame in the median round", cycles.get(cycles.len() / 2).unwrap_or(&0));
    ensure!(path.dropped() < 2 * 256 * 4, "{} frames were dropped", path.dropped());
    println!("{frames}");
    Ok(())
}
