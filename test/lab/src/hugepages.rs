//! Huge pages for DPDK, given back afterwards.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::Janitor;

/// How often the kernel is asked before it is believed that there is no memory.
const ATTEMPTS: usize = 4;

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
        let mut got = 0;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                // A machine that was busy has its memory full of file pages, in small pieces: let go of them, and move
                // what is left together. Both are wishes: what counts is what the kernel gives then.
                let _dropped = std::fs::write("/proc/sys/vm/drop_caches", "1");
                let _moved = std::fs::write("/proc/sys/vm/compact_memory", "1");
            }
            std::fs::write(NUMBER, (before + wanted).to_string())
                .with_context(|| format!("cannot write {NUMBER}"))?;
            got = read(Path::new(NUMBER))?;
            if got >= before + wanted {
                break;
            }
        }
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
