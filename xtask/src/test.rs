//! `cargo xtask test`: everything. Lints, layers, docs, unit and property tests, conformance, replay of what
//! fuzzing found, and the system tests with real VMs, DPDK and a real daemon.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Args;
use fabnic_lab::{Lab, Progress, which};

use crate::{
    bench::instructions::{self, InstructionsArgs},
    cargo::{built_elsewhere, cargo, release_dir, run as run_command},
    check,
};

/// Arguments of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Leave out what needs VMs, DPDK or root
    #[arg(long)]
    quick: bool,
}

/// Tests that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    let began = Instant::now();
    let mut total = Count::default();
    let mut failed_stages: Vec<String> = Vec::new();
    let mut stage = |name: &str, outcome: Result<Count>| match outcome {
        Ok(count) => {
            println!(
                "stage {name}: ok ({} passed), {:.0} s so far",
                count.passed,
                began.elapsed().as_secs_f64()
            );
            total.add(count);
        }
        Err(error) => {
            println!("stage {name}: FAILED: {error:#}");
            failed_stages.push(name.to_owned());
            total.failed += 1;
        }
    };

    let failed_checks = check::failures(|_| true);
    stage(
        "check",
        if failed_checks.is_empty() {
            Ok(Count::default())
        } else {
            Err(anyhow::anyhow!(failed_checks.join(", ")))
        },
    );
    stage("unit", unit());
    stage("doc tests", counted(&mut cargo(&["test", "--quiet", "--workspace", "--doc"])));
    if !args.quick {
        stage("system", system());
        let budget = instructions::run(&InstructionsArgs::default());
        stage("instructions", budget.map(|passed| Count { passed, ..Count::default() }));
    }

    for name in &failed_stages {
        println!("failed: {name}");
    }
    println!("total: {} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(if failed_stages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Unit, property, conformance and replay tests: all but the system tests.
fn unit() -> Result<Count> {
    let everything = ["--workspace", "--exclude", "fabnic-system", "--all-targets"];
    if which("cargo-nextest").is_some() {
        counted(cargo(&["nextest", "run", "--no-fail-fast", "--status-level=fail"]).args(everything))
    } else {
        counted(cargo(&["test", "--quiet", "--no-fail-fast"]).args(everything))
    }
}

/// Real VMs, real DPDK, a real daemon, one test at a time: they share two CPUs.
fn system() -> Result<Count> {
    Lab::ensure(&Progress::new())?;
    build_programs()?;
    counted(
        cargo(&[
            "test",
            "--package",
            "fabnic-system",
            "--no-fail-fast",
            "--",
            "--test-threads=1",
            "--nocapture",
        ])
        .env("FABNIC_BIN", release_dir())
        .env("FABNIC_LAB_REQUIRED", "1"),
    )
}

/// Builds what system tests, demo and benchmarks run, as it is shipped.
pub(crate) fn build_programs() -> Result<()> {
    if built_elsewhere().is_some() {
        return Ok(());
    }
    run_command(&mut cargo(&[
        "build",
        "--release",
        "--bins",
        "--package",
        "fabnicd",
        "--package",
        "fabnic",
        "--package",
        "fabnic-testkit",
    ]))
}

/// Runs a test command, shows what it writes, and counts what its closing lines say.
fn counted(command: &mut Command) -> Result<Count> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null());
    command.stdout(writer.try_clone().context("cannot share a pipe")?).stderr(writer);
    let mut child = command.spawn().context("cannot start cargo")?;
    // Our own writing ends must go, or the pipe never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut count = Count::default();
    let mut stdout = std::io::stdout();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read what the tests write")?;
        let line = String::from_utf8_lossy(&line);
        count.add(closing_line(&line).unwrap_or_default());
        writeln!(stdout, "{line}").context("cannot write")?;
    }
    let status = child.wait().context("cannot wait for cargo")?;
    anyhow::ensure!(status.success(), "{} failed ({status})", count.failed.max(1));
    Ok(count)
}

/// What a closing line of `cargo test` or nextest counts.
fn closing_line(line: &str) -> Option<Count> {
    let counts = if let Some(rest) = line.strip_prefix("test result: ") {
        rest.split_once(". ")?.1
    } else if line.trim_start().starts_with("Summary [") {
        line.split_once("run: ")?.1
    } else {
        return None;
    };
    let mut count = Count::default();
    for part in counts.split([',', ';', '(']) {
        let mut words = part.split_whitespace();
        let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match what.trim_end_matches([')', ';']) {
            "passed" => count.passed += number,
            "failed" => count.failed += number,
            "ignored" | "skipped" => count.skipped += number,
            _ => {}
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_understood() {
        let count = |passed, failed, skipped| Some(Count { passed, failed, skipped });
        assert_eq!(
            closing_line(
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s"
            ),
            count(12, 0, 1)
        );
        assert_eq!(
            closing_line("     Summary [   1.234s] 42 tests run: 40 passed (1 slow), 2 failed, 3 skipped"),
            count(40, 2, 3)
        );
        assert_eq!(closing_line("test it::works ... ok"), None);
    }
}
