//! Drives the path a fixed number of times, for callgrind to count: `path_cost split|packed SIZE FLOWS ROUNDS`.
//!
//! Prints the number of frames that `Path::switch` moved; with `--toggle-collect='*Path*switch*'` callgrind counts what
//! that took.

use anyhow::{Context, Result, ensure};
use fabnic_benches::{Case, Path};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<usize> {
        Ok(args.get(at).context("usage: path_cost split|packed SIZE FLOWS ROUNDS")?.parse()?)
    };
    let packed = args.first().is_some_and(|ring| ring == "packed");
    let flows = u32::try_from(number(2)?)?;
    let mut path = Path::new(Case { packed, in_order: false, size: number(1)?, flows })?;
    let mut frames = 0;
    for _ in 0..number(3)? {
        path.guests();
        frames += path.switch();
    }
    ensure!(path.dropped() < 2 * 256 * 4, "{} frames were dropped", path.dropped());
    println!("{frames}");
    Ok(())
}
