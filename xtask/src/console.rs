//! A raw terminal on a VM's console socket.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};

/// Ctrl-], which ends the session, as in telnet.
const ESCAPE: u8 = 0x1d;

/// Puts the terminal back as it was.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("cannot set the terminal to raw mode")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _best_effort = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Copies both ways until Ctrl-], the end of the input, or the VM's end.
pub(crate) fn run(socket: &Path) -> Result<()> {
    let mut vm =
        UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    eprintln!("console of {} (Ctrl-] ends it, Enter shows the prompt)", socket.display());
    let _raw = RawTerminal::enter()?;
    let mut stdin = std::io::stdin().lock();
    let mut stdout = std::io::stdout().lock();
    let mut chunk = [0u8; 4096];
    loop {
        let (from_user, from_vm) = {
            let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&vm, PollFlags::IN)];
            poll(&mut fds, None).context("cannot wait for the console")?;
            (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
        };
        if from_vm {
            let n = vm.read(&mut chunk).context("cannot read from the console")?;
            if n == 0 {
                return Ok(());
            }
            stdout.write_all(chunk.get(..n).unwrap_or_default()).context("cannot write to the terminal")?;
            stdout.flush().context("cannot write to the terminal")?;
        }
        if from_user {
            let n = stdin.read(&mut chunk).context("cannot read from the terminal")?;
            let typed = chunk.get(..n).unwrap_or_default();
            if n == 0 || typed.contains(&ESCAPE) {
                return Ok(());
            }
            vm.write_all(typed).context("cannot write to the console")?;
        }
    }
}
