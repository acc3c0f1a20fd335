//! Huge pages for DPDK, given back afterwards.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::Janitor;

const NUMBER: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages of 2 MiB, on top of those that were there, as long as this lives.
#[derive(Debug)]
pub struct HugePages {
    _give_back: Janitor,
}

impl HugePages {
    /// Adds `wanted` pages.
    ///
    /// # Errors
    /// If the kernel has not that much memory in one piece each.
    pub fn reserve(wanted: u64) -> Result<Self> {
        let before = read(Path::new(NUMBER))?;
        // Others may add and give back in the meantime: what is given back is a number of pages, not a state.
        let give_back = Janitor::hire(&format!("echo $(( $(cat {NUMBER}) - {wanted} )) > {NUMBER}"))?;
        std::fs::write(NUMBER, (before + wanted).to_string())
            .with_context(|| format!("cannot write {NUMBER}"))?;
        let got = read(Path::new(NUMBER))?;
        if got < before + wanted {
            let short = before + wanted - got;
            bail!(
                "the kernel gave {short} huge pages less than the {wanted} that DPDK needs; free some memory"
            );
        }
        Ok(Self { _give_back: give_back })
    }
}

fn read(path: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no number", path.display()))
}
