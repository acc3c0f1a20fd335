//! Running cargo, and what `cargo metadata` tells of the workspace.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// A cargo command at the root of the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    // CARGO is the cargo that runs us, when it does.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root());
    command
}

/// Runs a command whose output goes straight to ours, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        bail!("`{} {}` failed ({status})", command.get_program().to_string_lossy(), words.join(" "));
    }
    Ok(())
}

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), Path::to_path_buf)
}

/// The folder of `fabnicd`, `fabnic` and `fabnic-pktgen`: `$FABNIC_BIN`, or where `cargo build --release` leaves
/// programs.
pub(crate) fn release_dir() -> PathBuf {
    built_elsewhere().unwrap_or_else(|| {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root().join("target"), PathBuf::from)
            .join("release")
    })
}

/// `$FABNIC_BIN`: programs that need no building.
pub(crate) fn built_elsewhere() -> Option<PathBuf> {
    std::env::var_os("FABNIC_BIN").map(PathBuf::from)
}

/// The part of `cargo metadata` that the checks read.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    /// Packages of the workspace and, unless asked not to, all they depend on.
    pub(crate) packages: Vec<Package>,
    /// Ids of the workspace's own.
    pub(crate) workspace_members: Vec<String>,
}

/// A package.
#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A line of a package's manifest.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None`: normal; else `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// Set for packages of the workspace.
    pub(crate) path: Option<PathBuf>,
}

impl Metadata {
    /// Reads it.
    pub(crate) fn read() -> Result<Self> {
        let output = cargo(&["metadata", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu"])
            .output()
            .context("cannot start cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("cannot read what cargo metadata says")
    }

    /// The workspace's own packages by name.
    pub(crate) fn members(&self) -> BTreeMap<&str, &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
            .map(|package| (package.name.as_str(), package))
            .collect()
    }
}
