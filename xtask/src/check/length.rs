//! Files that have grown to hold two ideas.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cargo::root;

/// Lines after which a file is named. It is a warning: a long table is one idea.
const LONG: usize = 800;

pub(super) fn check() -> Result<()> {
    let mut long = Vec::new();
    visit(&root(), &mut long)?;
    long.sort();
    for (lines, path) in long.iter().rev() {
        println!("warning: {path} has {lines} lines; past {LONG} it probably holds two ideas");
    }
    Ok(())
}

fn visit(dir: &Path, long: &mut Vec<(usize, String)>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                visit(&path, long)?;
            }
        } else if name.ends_with(".rs") {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let lines = text.lines().count();
            if lines > LONG {
                long.push((lines, path.strip_prefix(root()).unwrap_or(&path).display().to_string()));
            }
        }
    }
    Ok(())
}
