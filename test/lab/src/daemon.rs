//! A real `fabnicd`, its configuration, and the `fabnic` command line to ask it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{Child, Launch, output};

/// A configuration file in the making.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    text: String,
}

impl DaemonConfig {
    /// One with `workers` on these CPUs, and its API at `dir/api.sock`.
    pub fn new(dir: &Path, workers: &[usize]) -> Self {
        let api = dir.join("api.sock").display().to_string();
        Self { text: format!("[daemon]\napi = {api:?}\nworkers = {workers:?}\n") }
    }

    /// Adds a virtio-net port. `role` is the daemon's: `server` listens. `more` are more lines of the port's table.
    #[must_use]
    pub fn virtio_net(mut self, name: &str, socket: &Path, role: &str, mac: &str, more: &str) -> Self {
        let socket = socket.display().to_string();
        self.text.push_str(&format!(
            "\n[[port]]\nname = {name:?}\nnic = \"virtio-net\"\nvhost_user = {{ socket = {socket:?}, role = {role:?} }}\n\
             mac = {mac:?}\n{more}\n"
        ));
        self
    }

    /// Adds a PCI card (`nic`) on a vfio-user socket.
    #[must_use]
    pub fn pci(mut self, name: &str, nic: &str, socket: &Path, mac: &str, more: &str) -> Self {
        let socket = socket.display().to_string();
        self.text.push_str(&format!(
            "\n[[port]]\nname = {name:?}\nnic = {nic:?}\nvfio_user = {{ socket = {socket:?} }}\nmac = {mac:?}\n{more}\n"
        ));
        self
    }

    /// Adds a TAP uplink.
    #[must_use]
    pub fn tap(mut self, name: &str, device: &str, more: &str) -> Self {
        self.text.push_str(&format!(
            "\n[[port]]\nname = {name:?}\nuplink = \"tap\"\ndevice = {device:?}\n{more}\n"
        ));
        self
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    programs: PathBuf,
    dir: PathBuf,
    netns: Option<String>,
}

impl Daemon {
    /// Starts `programs/fabnicd` with its files in `dir`, and waits until it answers. With a namespace, TAP devices
    /// appear in there.
    ///
    /// # Errors
    /// If the programs are not built, or the daemon does not come up; the error has the end of its log.
    pub fn start(programs: &Path, dir: &Path, config: &DaemonConfig, netns: Option<&str>) -> Result<Self> {
        std::fs::write(dir.join("fabnic.toml"), config.text()).context("cannot write a configuration")?;
        Self::start_again(programs, dir, netns)
    }

    /// Starts it with the configuration that is in `dir` already.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_again(programs: &Path, dir: &Path, netns: Option<&str>) -> Result<Self> {
        let program = programs.join("fabnicd");
        if !program.is_file() {
            bail!("{} is not there; `cargo build --release --bins` makes it", program.display());
        }
        let mut launch = Launch::on_host(program);
        launch.arg("--config").arg(dir.join("fabnic.toml")).log_to(dir.join("fabnicd.log"));
        if let Some(netns) = netns {
            launch.in_netns(netns);
        }
        let mut daemon = Self {
            child: launch.spawn()?,
            programs: programs.to_owned(),
            dir: dir.to_owned(),
            netns: netns.map(str::to_owned),
        };
        let status = daemon.client(&["status", "--json"]);
        daemon
            .child
            .wait_until("an answer on its API", Duration::from_secs(20), || output(&status).is_ok())?;
        Ok(daemon)
    }

    fn client(&self, args: &[&str]) -> Launch {
        let mut launch = Launch::on_host(self.programs.join("fabnic"));
        launch.arg("--api").arg(self.dir.join("api.sock")).args(args);
        launch
    }

    /// Runs `fabnic ARGS` and gives what it printed.
    ///
    /// # Errors
    /// If it fails; the error has what it wrote.
    pub fn fabnic(&self, args: &[&str]) -> Result<String> {
        output(&self.client(args)).with_context(|| format!("fabnic {}", args.join(" ")))
    }

    /// Runs `fabnic ARGS --json`.
    ///
    /// # Errors
    /// If it fails or prints no JSON.
    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let text =
            output(self.client(args).arg("--json")).with_context(|| format!("fabnic {}", args.join(" ")))?;
        serde_json::from_str(&text)
            .with_context(|| format!("fabnic {} --json printed no JSON", args.join(" ")))
    }

    /// The process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills it as a crash would, and starts it again on the same configuration.
    ///
    /// # Errors
    /// If it does not come up again.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.child.kill();
        let again = Self::start_again(&self.programs, &self.dir, self.netns.as_deref())?;
        *self = again;
        Ok(())
    }

    /// Asks it to end, and fails unless it ends well and soon.
    ///
    /// # Errors
    /// If it does not end within ten seconds or its exit status is not 0; the error has the end of its log.
    pub fn stop(self) -> Result<()> {
        let log = self.dir.join("fabnicd.log");
        let status = self.child.terminate(Duration::from_secs(10))?;
        if !status.success() {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(25).collect();
            bail!(
                "fabnicd ended badly ({status}):\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        Ok(())
    }
}
