//! `cargo xtask bench instructions`: what a frame costs in instructions, against a budget that is checked in.
//!
//! Time on a shared machine says little; callgrind's count of instructions repeats. `path_cost` (in `benches/`) drives
//! two light guests and the switch in one thread, and only what the switch does is counted.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use fabnic_lab::which;

use crate::cargo::{cargo, release_dir, root, run as run_command};

/// Arguments of `cargo xtask bench instructions`.
#[derive(Args, Default)]
pub(crate) struct InstructionsArgs {
    /// Write what was counted as the new budget
    #[arg(long)]
    update: bool,
}

/// How much more than the budget is still within it, in percent: compilers differ a little.
const TOLERANCE: f64 = 3.0;
/// Rounds of two rings of 256 frames.
const ROUNDS: u32 = 100;

const BUDGET: &str = "benches/budget.toml";

/// Cases: the ring or card, bytes of a frame, flows, what is on.
const CASES: &[(&str, u32, u32, &str)] = &[
    ("split", 64, 64, "plain"),
    ("packed", 64, 64, "plain"),
    ("split", 1514, 64, "plain"),
    ("packed", 1514, 64, "plain"),
    ("split", TSO, 32, "plain"),
    ("packed", TSO, 32, "plain"),
    ("split", 64, 64, "flows"),
    ("split", 64, 64, "all"),
    ("avf", 64, 64, "plain"),
    ("avf", 1514, 64, "plain"),
    ("e1000", 64, 64, "plain"),
];

/// Bytes of a frame that is left to be segmented, in 32 receive buffers.
const TSO: u32 = 65_226;

/// Counts, and compares with the budget. Gives the number of cases.
pub(crate) fn run(args: &InstructionsArgs) -> Result<u64> {
    if which("valgrind").is_none() {
        let install = ["install", "-y", "--no-install-recommends", "valgrind"];
        run_command(Command::new("apt-get").arg("update"))
            .and_then(|()| run_command(Command::new("apt-get").args(install)))
            .context("valgrind is needed and could not be installed")?;
    }
    run_command(&mut cargo(&["build", "--release", "--package", "fabnic-benches"]))?;
    let file = root().join(BUDGET);
    let mut counted = BTreeMap::new();
    for (ring, size, flows, on) in CASES {
        let suffix = if *on == "plain" { String::new() } else { format!("_{on}") };
        counted.insert(format!("{ring}_{size}{suffix}"), count(ring, *size, *flows, on)?);
    }
    if args.update {
        let mut text = String::from(
            "# Instructions that the switch spends on a frame, guest to guest, ring to ring: `cargo xtask bench\n\
             # instructions` counts and compares, `--update` writes this file. More than 3 % above it fails.\n\n",
        );
        for (name, instructions) in &counted {
            text += &format!("{name} = {instructions:.1}\n");
        }
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let budget: BTreeMap<String, f64> =
        toml::from_str(&text).with_context(|| format!("in {}", file.display()))?;
    let mut over = Vec::new();
    println!("{:<16} {:>14} {:>10}", "path", "instructions", "budget");
    for (name, instructions) in &counted {
        let allowed = *budget.get(name).with_context(|| format!("{BUDGET} has no line for {name}"))?;
        println!("{name:<16} {instructions:>14.1} {allowed:>10.1}");
        if *instructions > allowed * (1.0 + TOLERANCE / 100.0) {
            over.push(format!(
                "{name} takes {instructions:.1} instructions a frame, the budget is {allowed:.1}"
            ));
        } else if *instructions < allowed * (1.0 - TOLERANCE / 100.0) {
            println!("{name} is well below its budget: `cargo xtask bench instructions --update` keeps that");
        }
    }
    ensure!(over.is_empty(), "{}", over.join("; "));
    Ok(counted.len() as u64)
}

/// Instructions a frame of one case.
fn count(ring: &str, size: u32, flows: u32, on: &str) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*Path*switch*"])
        .arg(release_dir().join("path_cost"))
        .args([ring.to_owned(), size.to_string(), flows.to_string(), ROUNDS.to_string(), on.to_owned()])
        .output()
        .context("cannot start valgrind")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("path_cost {ring} {size} failed under valgrind: {}", stderr.trim());
    }
    let frames: f64 = stdout.trim().parse().context("path_cost did not say how many frames it moved")?;
    let instructions = stderr
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .context("callgrind did not say what it collected")?
        .1;
    let instructions: f64 =
        instructions.trim().parse().context("callgrind collected something else than a number")?;
    ensure!(frames > 0.0 && instructions > 0.0, "nothing was counted for {ring} {size}");
    Ok(instructions / frames)
}
