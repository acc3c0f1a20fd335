//! `cargo xtask demo`: real Linux VMs with three kinds of NIC on one switch, on a machine that has nothing.
//!
//! ```text
//!   vm1 (virtio-net, split rings) ──vhost-user──┐
//!   vm2 (virtio-net, packed rings) ─vhost-user──┤
//!                                               fabnicd ──tap0── a network namespace, which stands for the host
//!   vm3 (AVF, driver iavf) ─────────vfio-user───┤
//!   vm4 (e1000) ────────────────────vfio-user───┘
//! ```
//!
//! The VMs' kernels and drivers are Debian's, unmodified. Nothing of the machine's own network is touched: the TAP
//! device is in a namespace of its own, and everything is gone afterwards, however the demo ends. Where no VM can be
//! had (no root, no packages), two embedded user-space guests take their place, and the demo says so.

mod embedded;
mod steps;
mod vms;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use fabnic_lab::{Lab, Progress};

use self::steps::Steps;

/// Arguments of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Write the steps and their results to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Leave everything running until Enter is pressed, and say how to log into the VMs
    #[arg(long)]
    keep: bool,
    /// Use embedded user-space guests instead of VMs
    #[arg(long)]
    embedded: bool,
}

pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let mut steps = Steps::new(Progress::new());
    let outcome = show(args, &mut steps);
    if let Err(error) = &outcome {
        eprintln!("error: {error:#}");
    }
    let ok = outcome.is_ok() && steps.all_ok();
    if let Some(path) = &args.json {
        std::fs::write(path, steps.json(ok)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("\ndemo: {}", if ok { "all well" } else { "FAILED" });
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(args: &DemoArgs, steps: &mut Steps) -> Result<()> {
    let lab = if args.embedded { None } else { lab(steps) };
    steps.run("build fabnicd, fabnic and fabnic-pktgen", |_| {
        crate::test::build_programs()?;
        Ok(String::new())
    })?;
    match lab {
        Some(lab) => vms::show(&lab, args.keep, steps),
        None => {
            println!(
                "  Real VMs are not to be had here: two embedded user-space guests (fabnic-pktgen) stand in."
            );
            embedded::show(steps)
        }
    }
}

/// The lab, or the reason why there is none.
fn lab(steps: &mut Steps) -> Option<Lab> {
    match Lab::ensure(steps.progress()) {
        Ok(lab) => {
            steps.note("lab ready", "");
            Some(lab)
        }
        Err(error) => {
            println!("  No lab: {error:#}");
            None
        }
    }
}

/// The last CPU: the first one has the machine's interrupts.
fn worker_cpu() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1)
}
