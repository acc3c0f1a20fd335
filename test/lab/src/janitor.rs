//! Undoes what outlives a process: network namespaces, huge pages, folders.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

/// A shell that waits for our end, however it comes (return, panic, Ctrl-C, `kill -9`), then runs its commands.
///
/// It holds the reading end of a pipe whose writing end only we have. The kernel closes that end when we die, the
/// shell reads end-of-file, and cleans up. It is in a process group of its own, so Ctrl-C does not reach it.
#[derive(Debug)]
pub struct Janitor {
    shell: Child,
}

impl Janitor {
    /// Hires one that will run `script` with `/bin/sh` when this process ends or the `Janitor` is dropped.
    ///
    /// # Errors
    /// If the shell cannot be started.
    pub fn hire(script: &str) -> Result<Self> {
        let shell = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("trap '' INT TERM HUP\ncat >/dev/null\nsleep 0.1\n{script}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the clean-up shell")?;
        Ok(Self { shell })
    }

    /// Leaves everything as it is: the script never runs.
    pub fn dismiss(mut self) {
        let _gone = self.shell.kill();
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _status = self.shell.wait();
    }
}
