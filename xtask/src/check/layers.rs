//! Which crate uses which, against `layers.toml`; and which may hold unsafe code.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::cargo::{Metadata, root};

/// `layers.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layers {
    /// For each crate, in the order in which a packet meets them, those it may use.
    layers: toml::Table,
}

/// The rules, taken apart.
struct Rules {
    allowed: BTreeMap<String, BTreeSet<String>>,
    /// Place of each crate in the file, from the top.
    place: BTreeMap<String, usize>,
    unsafe_in: BTreeSet<String>,
    test_only: BTreeSet<String>,
}

/// What a crate of the workspace says of itself.
struct Crate {
    name: String,
    /// Crates of the workspace that it uses, and whether only in tests.
    uses: Vec<(String, bool)>,
    /// Whether the compiler refuses unsafe code in it.
    forbids_unsafe: bool,
}

pub(super) fn check(metadata: &Metadata) -> Result<()> {
    let rules = Rules::parse(&read("layers.toml")?)?;
    let workspace: toml::Table = read("Cargo.toml")?.parse().context("Cargo.toml")?;
    let workspace_forbids = lint(workspace.get("workspace").and_then(|w| w.get("lints"))) == Some("forbid");
    let mut crates = Vec::new();
    for (name, package) in metadata.members() {
        let manifest: toml::Table = std::fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("cannot read {}", package.manifest_path.display()))?
            .parse()
            .with_context(|| package.manifest_path.display().to_string())?;
        let lints = manifest.get("lints");
        let inherits = lints.and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool) == Some(true);
        crates.push(Crate {
            name: name.to_owned(),
            uses: package
                .dependencies
                .iter()
                .filter(|dependency| dependency.path.is_some())
                .map(|dependency| (dependency.name.clone(), dependency.kind.as_deref() == Some("dev")))
                .collect(),
            forbids_unsafe: if inherits { workspace_forbids } else { lint(lints) == Some("forbid") },
        });
    }
    let faults = rules.faults(&crates);
    if !faults.is_empty() {
        bail!("\n{}", faults.iter().map(|fault| format!("    {fault}\n")).collect::<String>());
    }
    Ok(())
}

fn read(path: &str) -> Result<String> {
    let path = root().join(path);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The level of `unsafe_code` in a `[lints]` table.
fn lint(lints: Option<&toml::Value>) -> Option<&str> {
    let level = lints?.get("rust")?.get("unsafe_code")?;
    level.as_str().or_else(|| level.get("level")?.as_str())
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let Layers { layers } = toml::from_str(text).context("layers.toml")?;
        let list = |value: &toml::Value| -> Result<BTreeSet<String>> {
            let items = value.as_array().context("layers.toml: a value that is no list")?;
            items
                .iter()
                .map(|item| {
                    item.as_str()
                        .map(str::to_owned)
                        .context("layers.toml: a list of something else than names")
                })
                .collect()
        };
        let mut rules = Self {
            allowed: BTreeMap::new(),
            place: BTreeMap::new(),
            unsafe_in: BTreeSet::new(),
            test_only: BTreeSet::new(),
        };
        // A toml table forgets the order of its keys; the text has it.
        let mut place = 0;
        for line in text.lines() {
            if let Some((name, _)) = line.split_once('=')
                && layers.contains_key(name.trim())
            {
                place += 1;
                rules.place.insert(name.trim().to_owned(), place);
            }
        }
        for (name, value) in &layers {
            match name.as_str() {
                "unsafe_in" => rules.unsafe_in = list(value)?,
                "test_only" => rules.test_only = list(value)?,
                _ => {
                    rules.allowed.insert(name.clone(), list(value)?);
                }
            }
        }
        Ok(rules)
    }

    fn faults(&self, crates: &[Crate]) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, allowed) in &self.allowed {
            if !crates.iter().any(|member| member.name == *name) {
                faults.push(format!("layers.toml names {name}, which is no crate of the workspace"));
            }
            for below in allowed {
                if self.place.get(below) >= self.place.get(name) {
                    faults
                        .push(format!("layers.toml: {name} may use {below}, which does not stand above it"));
                }
            }
        }
        for member in crates {
            let name = &member.name;
            let Some(allowed) = self.allowed.get(name) else {
                faults.push(format!("{name} is not in layers.toml"));
                continue;
            };
            for (used, in_tests) in &member.uses {
                let fine =
                    allowed.contains(used) || used == name || (*in_tests && self.test_only.contains(used));
                if !fine {
                    let how = if *in_tests { "uses in its tests" } else { "uses" };
                    faults.push(format!("{name} {how} {used}, which layers.toml does not allow"));
                }
            }
            if !member.forbids_unsafe && !self.unsafe_in.contains(name) {
                faults.push(format!(
                    "{name} does not forbid unsafe code, and is not in unsafe_in of layers.toml"
                ));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "[layers]\nwire = []\nport = [\"wire\"]\nswitch = [\"wire\", \"port\"]\nkit = [\"wire\"]\n\
                         unsafe_in = [\"wire\"]\ntest_only = [\"kit\"]\n";

    fn member(name: &str, uses: &[(&str, bool)], forbids_unsafe: bool) -> Crate {
        let uses = uses.iter().map(|(used, in_tests)| ((*used).to_owned(), *in_tests)).collect();
        Crate { name: name.to_owned(), uses, forbids_unsafe }
    }

    fn house() -> Vec<Crate> {
        vec![
            member("wire", &[("kit", true)], false),
            member("port", &[("wire", false)], true),
            member("switch", &[("port", false), ("kit", true)], true),
            member("kit", &[("wire", false)], true),
        ]
    }

    #[test]
    fn a_house_in_order_has_no_faults() {
        assert_eq!(Rules::parse(RULES).unwrap().faults(&house()), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_fault_is_named() {
        let rules = Rules::parse(RULES).unwrap();
        let mut crates = house();
        crates[1].uses.push(("switch".to_owned(), false));
        crates[2].uses.push(("kit".to_owned(), false));
        crates[3].forbids_unsafe = false;
        crates.push(member("cellar", &[], true));
        let faults = rules.faults(&crates);
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].contains("port uses switch"));
        assert!(faults[1].contains("switch uses kit"));
        assert!(faults[2].contains("kit does not forbid unsafe"));
        assert!(faults[3].contains("cellar is not in layers.toml"));
    }

    #[test]
    fn rules_point_upwards() {
        let rules = Rules::parse("[layers]\nwire = [\"port\"]\nport = []\n").unwrap();
        let crates = [member("wire", &[], true), member("port", &[], true)];
        let faults = rules.faults(&crates);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("does not stand above"));
    }
}
