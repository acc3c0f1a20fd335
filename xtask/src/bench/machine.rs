//! What a benchmark asks of the machine besides huge pages, given back afterwards: precedence.

use anyhow::{Context as _, Result};
use fabnic_lab::Janitor;

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
