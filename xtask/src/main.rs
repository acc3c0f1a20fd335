//! The project's own commands: `cargo xtask demo`, `test`, `check`, `bench peers`, `lab`.
//!
//! Each command sets up what it needs, on a fresh Debian 12 machine too. What needs real VMs or peer switches
//! takes them from the lab (`test/lab`).

mod bench;
mod cargo;
mod check;
mod console;
mod demo;
mod lab_command;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Fabnic's own commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show it: real Linux VMs with three kinds of NIC on one switch, and an uplink to the host
    Demo(demo::DemoArgs),
    /// Run everything: lints, layers, docs, unit tests, system tests with real VMs and DPDK
    Test(test::TestArgs),
    /// Format, lints, layers, licences, docs
    Check(check::CheckArgs),
    /// Measure: `bench peers` against testpmd and Open vSwitch
    Bench(bench::BenchArgs),
    /// Measure the round trip of a cache line between two CPUs
    #[command(hide = true)]
    ProbeDistance(bench::distance::ProbeArgs),
    /// Measure a bare copy
    #[command(hide = true)]
    BareCopy(bench::single::CopyArgs),
    /// Make the lab: QEMU, DPDK, Open vSwitch and guest kernels, in a folder of their own
    Lab(lab_command::LabArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::ProbeDistance(args) => bench::distance::probe(&args),
        Command::BareCopy(args) => bench::single::copy(&args),
        Command::Lab(args) => lab_command::run(&args),
    }
}
