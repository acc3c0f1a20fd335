//! Licences and origins of everything that is linked, against `deny.toml`.
//!
//! `deny.toml` is cargo-deny's own file. cargo-deny takes minutes to compile, which a fresh CI machine would pay
//! for each time; so the two lists that matter for distribution (`licenses.allow`, and crates.io as the only
//! source) are checked here from `cargo metadata`, and cargo-deny itself is run as well where it is installed.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use crate::cargo::{Metadata, cargo, root, run};

pub(super) fn check(metadata: &Metadata) -> Result<()> {
    let text = std::fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let table: toml::Table = text.parse().context("deny.toml")?;
    let allow: Vec<&str> = table
        .get("licenses")
        .and_then(|licenses| licenses.get("allow"))
        .and_then(toml::Value::as_array)
        .context("deny.toml: licenses.allow is missing")?
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        if let Some(source) = &package.source
            && source != "registry+https://github.com/rust-lang/crates.io-index"
        {
            faults.push(format!("{} {} comes from {source}", package.name, package.version));
        }
    }
    // `cargo metadata` also names optional packages that nothing turns on; `cargo tree` does not.
    let tree = [
        "tree",
        "--workspace",
        "--edges=normal,build,dev",
        "--prefix=none",
        "--no-dedupe",
        "--format={p}|{l}",
    ];
    let output = cargo(&tree).output().context("cannot start cargo tree")?;
    anyhow::ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let lines: BTreeSet<String> =
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    for line in lines {
        match line.split_once('|') {
            Some((package, "")) => faults.push(format!("{package} names no licence")),
            Some((_, license)) if is_allowed(license, &allow) => {}
            Some((package, license)) => faults.push(format!("{package} is under {license}")),
            // Between the trees of two members.
            None if line.is_empty() => {}
            None => faults.push(format!("cargo tree says {line:?}, which is not understood")),
        }
    }
    if !faults.is_empty() {
        bail!("\n{}", faults.iter().map(|fault| format!("    {fault}\n")).collect::<String>());
    }
    if fabnic_lab::which("cargo-deny").is_some() {
        run(&mut cargo(&["deny", "--log-level=error", "check", "licenses", "bans", "sources"]))?;
    }
    Ok(())
}

/// Whether an SPDX expression can be met with licences of the list. `/` is an old spelling of `OR`.
fn is_allowed(expression: &str, allow: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let allowed = any_of(&mut rest, allow);
    allowed && rest.is_empty()
}

fn any_of(words: &mut &[&str], allow: &[&str]) -> bool {
    let mut allowed = all_of(words, allow);
    while let [first, tail @ ..] = *words
        && *first == "OR"
    {
        *words = tail;
        // Both sides must be read even if the first is allowed.
        let next = all_of(words, allow);
        allowed = allowed || next;
    }
    allowed
}

fn all_of(words: &mut &[&str], allow: &[&str]) -> bool {
    let mut allowed = one(words, allow);
    while let [first, tail @ ..] = *words
        && *first == "AND"
    {
        *words = tail;
        let next = one(words, allow);
        allowed = allowed && next;
    }
    allowed
}

fn one(words: &mut &[&str], allow: &[&str]) -> bool {
    let [first, tail @ ..] = *words else { return false };
    *words = tail;
    if *first == "(" {
        let allowed = any_of(words, allow);
        return match *words {
            [")", tail @ ..] => {
                *words = tail;
                allowed
            }
            _ => false,
        };
    }
    let mut name = (*first).to_owned();
    if let ["WITH", exception, tail @ ..] = *words {
        name = format!("{name} WITH {exception}");
        *words = tail;
    }
    allow.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_met_or_not() {
        let allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "GPL-3.0 OR MIT",
            "MIT/GPL-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(is_allowed(good, &allow), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND OpenSSL",
            "",
            "(MIT",
            "MIT Apache-2.0",
            "GPL-2.0 WITH LLVM-exception",
        ] {
            assert!(!is_allowed(bad, &allow), "{bad}");
        }
    }
}
