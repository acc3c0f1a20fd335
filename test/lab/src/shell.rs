//! Commands in a guest, over its second serial port (see `guest-init.sh` for the other end).

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// What a command in a guest answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its exit status.
    pub status: i32,
    /// What it wrote, both streams.
    pub text: String,
}

/// The line to a guest's init.
#[derive(Debug)]
pub struct GuestShell {
    stream: UnixStream,
    /// Bytes that were read and not yet used.
    pending: Vec<u8>,
    next_id: u64,
}

impl GuestShell {
    /// Connects to the socket that QEMU made for the guest's second serial port.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_millis(50))).context("cannot set a read timeout")?;
        Ok(Self { stream, pending: Vec::new(), next_id: 1 })
    }

    /// Waits until init serves commands, after a boot or a reboot, and gives the kernel's version.
    ///
    /// # Errors
    /// If that does not come by `deadline`, or the guest's QEMU is gone.
    pub fn wait_ready(&mut self, deadline: Instant) -> Result<String> {
        loop {
            let line = self.read_line(deadline).context("the guest did not come up")?;
            if let Some(at) = line.find("@ready ") {
                return Ok(line.get(at + 7..).unwrap_or_default().trim().to_owned());
            }
        }
    }

    /// Sends a command and returns at once; [`GuestShell::finish`] fetches its reply.
    ///
    /// # Errors
    /// If the guest's QEMU is gone.
    pub fn start(&mut self, command: &str) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let line = format!("{id} {}\n", command.replace('\n', " "));
        self.stream.write_all(line.as_bytes()).context("the guest's serial line is closed")?;
        Ok(id)
    }

    /// Waits for the reply to a command that was started.
    ///
    /// # Errors
    /// If it does not come by `deadline`, or the guest's QEMU is gone.
    pub fn finish(&mut self, id: u64, deadline: Instant) -> Result<Reply> {
        let begin = format!("@begin {id}");
        let end = format!("@end {id} ");
        while self.read_line(deadline)? != begin {}
        let mut text = String::new();
        loop {
            let line = self.read_line(deadline)?;
            if let Some(status) = line.strip_prefix(&end) {
                let status = status.trim().parse().with_context(|| format!("a bad end line: {line}"))?;
                return Ok(Reply { status, text: text.trim_end().to_owned() });
            }
            text.push_str(&line);
            text.push('\n');
        }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// If the reply does not come within `timeout`. A failed command is no error: see [`Reply::status`].
    pub fn run(&mut self, command: &str, timeout: Duration) -> Result<Reply> {
        let id = self.start(command)?;
        self.finish(id, Instant::now() + timeout).with_context(|| format!("in the guest: {command}"))
    }

    fn read_line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            if let Some(at) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned());
            }
            if Instant::now() >= deadline {
                bail!("no answer in time (so far: {:?})", String::from_utf8_lossy(&self.pending));
            }
            let mut chunk = [0u8; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the guest's serial line was closed"),
                Ok(n) => self.pending.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("cannot read from the guest's serial line"),
            }
        }
    }
}
