//! `cargo xtask check`: everything that can be said of the code without running it.

mod layers;
mod length;
mod licenses;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::cargo::{Metadata, cargo, root, run as run_command};

/// Arguments of `cargo xtask check`.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Only these checks (fmt, layers, licenses, length, clippy, doc)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// A check's name and what it does.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 6] = [
    ("fmt", fmt),
    ("layers", || layers::check(&Metadata::read()?)),
    ("licenses", || licenses::check(&Metadata::read()?)),
    ("length", length::check),
    ("clippy", clippy),
    ("doc", doc),
];

pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    for wanted in &args.only {
        if !CHECKS.iter().any(|(name, _)| name == wanted) {
            bail!("there is no check {wanted:?}");
        }
    }
    let failed = failures(|name| args.only.is_empty() || args.only.iter().any(|wanted| wanted == name));
    if failed.is_empty() {
        println!("check: all well");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("check: failed: {}", failed.join(", "));
        Ok(ExitCode::FAILURE)
    }
}

/// Runs the wanted checks, all of them even if one fails, and gives the names of the failed ones.
pub(crate) fn failures(wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if !wanted(name) {
            continue;
        }
        println!("check {name}");
        if let Err(error) = check() {
            println!("check {name} FAILED: {error:#}");
            failed.push(name);
        }
    }
    failed
}

fn fmt() -> Result<()> {
    run_command(&mut cargo(&["fmt", "--all", "--", "--check"]))?;
    // The fuzz targets are a workspace of their own.
    if root().join("fuzz/Cargo.toml").is_file() {
        run_command(&mut cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--", "--check"]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    run_command(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn doc() -> Result<()> {
    run_command(cargo(&["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
