//! Child processes that never outlive us.
//!
//! A [`Launch`] is a command line in the making, of the machine or of the lab's tree. A [`Child`] is one that
//! runs: in a process group of its own, killed by the kernel when the thread that started it ends
//! (`setpriv --pdeathsig`, so no unsafe code here), and by [`Drop`] before that.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};

use crate::Lab;

/// Runs in the new mount namespace, before the program: binds the machine over the tree and enters it.
/// `$1` is the tree, `$2` the lab; then follow the program and its arguments.
const ENTER_TREE: &str = r#"
set -e
tree=$1 lab=$2
shift 2
for d in proc sys dev tmp run; do mount --rbind "/$d" "$tree/$d"; done
mount --bind "$lab" "$tree/mnt"
if [ -n "${FABNIC_HUGETLBFS:-}" ]; then
    mkdir -p "$tree/opt/huge"
    mount -t hugetlbfs -o pagesize=2M none "$tree/opt/huge"
fi
exec chroot "$tree" "$@"
"#;

/// A command line in the making.
#[derive(Debug)]
pub struct Launch {
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    program: String,
    netns: Option<String>,
    cpu: Option<usize>,
    log: Option<PathBuf>,
    dir: Option<PathBuf>,
    stdin: bool,
}

impl Launch {
    /// A program of the machine itself.
    pub fn on_host(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        Self {
            words: vec![program.to_owned()],
            env: Vec::new(),
            program: Path::new(program)
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            netns: None,
            cpu: None,
            log: None,
            dir: None,
            stdin: false,
        }
    }

    /// A program of the lab's tree. The lab itself is at `/mnt` there; `/tmp` and `/run` are the machine's.
    pub(crate) fn in_tree(lab: &Lab, program: &str) -> Self {
        let mut launch = Self::on_host("unshare");
        launch.program = program.rsplit('/').next().unwrap_or(program).to_owned();
        launch
            .arg("--mount")
            .arg("--propagation=private")
            .arg("--")
            .arg("/bin/sh")
            .arg("-c")
            .arg(ENTER_TREE)
            .arg("enter-tree")
            .arg(lab.tree())
            .arg(lab.root())
            .arg(program);
        launch.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        launch
    }

    /// Adds one argument.
    pub fn arg(&mut self, word: impl AsRef<OsStr>) -> &mut Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&mut self, words: I) -> &mut Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in a network namespace made by [`crate::Namespace`].
    pub fn in_netns(&mut self, name: &str) -> &mut Self {
        self.netns = Some(name.to_owned());
        self
    }

    /// Binds it to one CPU.
    pub fn on_cpu(&mut self, cpu: usize) -> &mut Self {
        self.cpu = Some(cpu);
        self
    }

    /// Sends its standard output and error to a file.
    pub fn log_to(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.log = Some(path.into());
        self
    }

    /// Runs it in a folder.
    pub fn current_dir(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.dir = Some(dir.into());
        self
    }

    /// Gives it a pipe as standard input ([`Child::stdin`]).
    pub fn with_stdin(&mut self) -> &mut Self {
        self.stdin = true;
        self
    }

    /// The program's short name, for messages.
    pub fn name(&self) -> &str {
        &self.program
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> =
            vec!["setpriv".into(), "--pdeathsig".into(), "KILL".into(), "--".into()];
        if let Some(cpu) = self.cpu {
            words.extend(["taskset".into(), "-c".into(), cpu.to_string().into()]);
        }
        if let Some(netns) = &self.netns {
            words.extend(["ip".into(), "netns".into(), "exec".into(), netns.into()]);
        }
        words.extend(self.words.iter().cloned());
        let mut command = Command::new(words.remove(0));
        command.args(words).process_group(0);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started or its log file cannot be made.
    pub fn spawn(&self) -> Result<Child> {
        let mut command = self.command();
        command.stdin(if self.stdin { Stdio::piped() } else { Stdio::null() });
        match &self.log {
            Some(path) => {
                let log = File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("cannot create the log file {}", path.display()))?;
                command.stdout(log.try_clone().context("cannot share a log file")?).stderr(log);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let inner = command.spawn().with_context(|| format!("cannot start {}", self.program))?;
        Ok(Child { inner, name: self.program.clone(), log: self.log.clone() })
    }

    /// Runs it to its end and gives what it wrote, both streams.
    ///
    /// # Errors
    /// Only if it cannot be started; a failed exit is in the status.
    pub fn capture(&self) -> Result<(ExitStatus, String, String)> {
        let output = self
            .command()
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.program))?;
        Ok((
            output.status,
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// Runs it to its end and gives the bytes of its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails.
    pub(crate) fn capture_bytes(&self) -> Result<Vec<u8>> {
        let output = self
            .command()
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.program))?;
        if !output.status.success() {
            bail!(
                "{} failed ({}): {}",
                self.program,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(output.stdout)
    }

    /// Runs it to its end, showing each line it writes as the step's message.
    ///
    /// # Errors
    /// If it cannot be started or fails; the error has its last lines.
    pub fn run_in_step(&self, step: &crate::Step) -> Result<()> {
        let mut command = self.command();
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("cannot share a pipe")?)
            .stderr(writer);
        let mut inner = command.spawn().with_context(|| format!("cannot start {}", self.program))?;
        drop(command);
        let mut tail = Tail::default();
        let mut reader = reader;
        let mut chunk = [0u8; 4096];
        while let Ok(n) = reader.read(&mut chunk) {
            if n == 0 {
                break;
            }
            tail.feed(chunk.get(..n).unwrap_or_default(), |line| step.say(line));
        }
        let status = inner.wait().with_context(|| format!("cannot wait for {}", self.program))?;
        if !status.success() {
            bail!("{} failed ({status}):\n{}", self.program, tail.text());
        }
        Ok(())
    }
}

/// The last lines of a program's output.
#[derive(Default)]
struct Tail {
    lines: std::collections::VecDeque<String>,
    partial: Vec<u8>,
}

impl Tail {
    fn feed(&mut self, bytes: &[u8], mut say: impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' {
                let line = String::from_utf8_lossy(&self.partial).trim().to_owned();
                self.partial.clear();
                if !line.is_empty() {
                    say(&line);
                    self.lines.push_back(line);
                    if self.lines.len() > 30 {
                        self.lines.pop_front();
                    }
                }
            } else if self.partial.len() < 4096 {
                self.partial.push(byte);
            }
        }
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("    {line}\n")).collect()
    }
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// If it cannot be started or fails; the error has what it wrote to standard error.
pub fn output(launch: &Launch) -> Result<String> {
    let (status, stdout, stderr) = launch.capture()?;
    if !status.success() {
        bail!("{} failed ({status}): {}{}", launch.program, stderr.trim(), stdout.trim());
    }
    Ok(stdout)
}

/// Where a program of the machine is, if it is in the path.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// A running child process, killed when dropped.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    name: String,
    log: Option<PathBuf>,
}

impl Child {
    /// Its process id. `setpriv`, `unshare` and `chroot` replace themselves, so it is the program's own.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.inner.id()).ok().and_then(Pid::from_raw).context("a process id out of range")
    }

    /// Its standard input, if [`Launch::with_stdin`] asked for one.
    pub fn stdin(&mut self) -> Option<&mut std::process::ChildStdin> {
        self.inner.stdin.as_mut()
    }

    /// Sends a signal to it and to whatever it started in its process group.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process_group(self.pid()?, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.inner.try_wait().with_context(|| format!("cannot look at {}", self.name))
    }

    /// Fails, with the end of its log, if it has ended.
    ///
    /// # Errors
    /// If it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!("{} ended ({status}):\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Waits until `ready` says yes, as long as the child lives and the deadline is not past.
    ///
    /// # Errors
    /// If the child ends or `timeout` passes; the error has the end of its log.
    pub fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !ready() {
            self.must_run()?;
            if Instant::now() >= deadline {
                bail!("{}: {what} did not come within {timeout:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If `timeout` passes first.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {timeout:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end (SIGTERM), waits, and gives its exit status.
    ///
    /// # Errors
    /// If it does not end within `timeout`; it is killed then.
    pub fn terminate(mut self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait_exit(timeout)
    }

    /// Kills it at once and reaps it.
    pub fn kill(&mut self) {
        if matches!(self.inner.try_wait(), Ok(None)) {
            if let Ok(pid) = self.pid() {
                let _gone = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            let _gone = self.inner.kill();
            let _status = self.inner.wait();
        }
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = self
            .log
            .as_ref()
            .and_then(|path| std::fs::read(path).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let skip = lines.len().saturating_sub(25);
        lines.iter().skip(skip).map(|line| format!("    {line}\n")).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
