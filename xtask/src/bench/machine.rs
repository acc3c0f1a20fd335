//! What a benchmark asks of the machine, given back afterwards: huge pages for DPDK, and precedence.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use fabnic_lab::Janitor;

const NUMBER: &str = "/proc/sys/vm/nr_hugepages";

/// Precedence of this process and all it starts over whatever else runs on this machine.
///
/// Where the kernel shares the CPUs out by session first (`sched_autogroup`), a process's own niceness counts only
/// within its session. A benchmark measures two programs that poll; whoever compiles beside it must wait.
#[derive(Debug)]
pub(crate) struct Precedence {
    _restore: Option<Janitor>,
}

impl Precedence {
    /// Takes it, by niceness and, if the kernel has such groups, for the session.
    pub(crate) fn take() -> Result<Self> {
        const GROUP: &str = "/proc/self/autogroup";
        rustix::process::setpriority_process(None, -19).context("cannot raise the priority")?;
        let taken = std::fs::write(GROUP, "-19").is_ok();
        let restore = taken.then(|| Janitor::hire(&format!("echo 0 > {GROUP}"))).transpose()?;
        Ok(Self { _restore: restore })
    }
}

/// Huge pages of 2 MiB that are there as long as this lives.
#[derive(Debug)]
pub(crate) struct HugePages {
    _restore: Janitor,
}

impl HugePages {
    /// Makes sure that at least `wanted` pages are there.
    pub(crate) fn reserve(wanted: u64) -> Result<Self> {
        let before = read(Path::new(NUMBER))?;
        let restore = Janitor::hire(&format!("echo {before} > {NUMBER}"))?;
        if before < wanted {
            std::fs::write(NUMBER, wanted.to_string()).with_context(|| format!("cannot write {NUMBER}"))?;
            let got = read(Path::new(NUMBER))?;
            if got < wanted {
                bail!("the kernel gave {got} huge pages of the {wanted} that DPDK needs; free some memory");
            }
        }
        Ok(Self { _restore: restore })
    }
}

fn read(path: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no number", path.display()))
}
