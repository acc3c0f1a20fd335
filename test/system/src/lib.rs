//! System tests: the real daemon between real VMs, DPDK and the kernel.
//!
//! A test takes a [`Rig`]: a folder, the lab, and the built programs, and starts what it needs on it. Nothing is
//! mocked. Tests share two CPUs and are run one at a time by `cargo xtask test`, which also builds the programs and
//! makes the lab. Without a lab a test is skipped and says so; in CI, or with `FABNIC_LAB_REQUIRED` set, it fails.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fabnic_lab::{Daemon, DaemonConfig, Lab, Namespace, WorkDir};

/// What a test works with.
#[derive(Debug)]
pub struct Rig {
    lab: Lab,
    programs: PathBuf,
    dir: WorkDir,
}

impl Rig {
    /// One for the test named `name`; `None` where there is no lab and nobody insists.
    ///
    /// # Errors
    /// If there is no lab, or no built programs, and `CI` or `FABNIC_LAB_REQUIRED` is set.
    pub fn new(name: &str) -> Result<Option<Self>> {
        let programs = programs();
        let lab = match Lab::open() {
            Ok(lab) if programs.join("fabnicd").is_file() => lab,
            outcome => {
                let reason = match outcome {
                    Ok(_) => format!("{} lacks fabnicd (`cargo build --release --bins`)", programs.display()),
                    Err(error) => format!("{error:#}"),
                };
                let required =
                    ["CI", "FABNIC_LAB_REQUIRED"].iter().any(|name| std::env::var_os(name).is_some());
                if required {
                    bail!("{name}: {reason}");
                }
                eprintln!("SKIPPED {name}: {reason}. `cargo xtask test` runs it.");
                return Ok(None);
            }
        };
        // Logs of a failed test are worth a look.
        let keep = std::env::var_os("FABNIC_KEEP").is_some();
        let dir = WorkDir::new("fabnic-test.", keep)?;
        Ok(Some(Self { lab, programs, dir }))
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The test's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A socket or file in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder with `fabnicd`, `fabnic` and `fabnic-pktgen`.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// An empty configuration whose workers run on these CPUs.
    pub fn config(&self, workers: &[usize]) -> DaemonConfig {
        DaemonConfig::new(self.dir(), workers)
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn daemon(&self, config: &DaemonConfig) -> Result<Daemon> {
        Daemon::start(&self.programs, self.dir(), config, None)
    }

    /// Starts the daemon in a network namespace.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn daemon_in(&self, namespace: &Namespace, config: &DaemonConfig) -> Result<Daemon> {
        Daemon::start(&self.programs, self.dir(), config, Some(namespace.name()))
    }
}

/// Where the programs were built.
fn programs() -> PathBuf {
    std::env::var_os("FABNIC_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release"), PathBuf::from)
}

/// The CPU for a single worker: the last one, since the first has the machine's interrupts.
pub fn worker_cpu() -> usize {
    cpus() - 1
}

/// CPUs of this machine.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The MAC address of guest `index`, as tests configure it.
pub fn mac(index: usize) -> String {
    format!("02:00:00:00:00:{:02x}", index + 1)
}

/// The switch's totals: every frame that came in is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Frames that ports received.
    pub received: u64,
    /// Copies made by flooding.
    pub replicated: u64,
    /// Frames and copies that were delivered.
    pub delivered: u64,
    /// Frames and copies that were dropped, with a reason.
    pub dropped: u64,
}

impl Totals {
    /// Reads them.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn read(daemon: &Daemon) -> Result<Self> {
        let stats = daemon.ask(&["stats", "show"])?;
        let number = |name: &str| {
            stats["totals"][name].as_u64().with_context(|| format!("the daemon counts no {name}"))
        };
        Ok(Self {
            received: number("received")?,
            replicated: number("replicated")?,
            delivered: number("delivered")?,
            dropped: number("dropped")?,
        })
    }

    /// Reads them when nothing moves any more, and fails if they do not add up.
    ///
    /// # Errors
    /// If they do not add up, or never stand still.
    pub fn settle(daemon: &Daemon) -> Result<Self> {
        let mut before = Self::read(daemon)?;
        for _ in 0..50 {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let now = Self::read(daemon)?;
            if now == before {
                if now.received + now.replicated != now.delivered + now.dropped {
                    bail!("counters do not add up: {now:?}");
                }
                no_interrupt_was_lost(daemon)?;
                return Ok(now);
            }
            before = now;
        }
        bail!("the counters never stand still: {before:?}")
    }
}

/// No driver's timer ever found work of which its card had not told it.
fn no_interrupt_was_lost(daemon: &Daemon) -> Result<()> {
    let ports = daemon.ask(&["port", "show"])?;
    for port in ports.as_array().context("the daemon shows no ports")? {
        if let Some(lost) = port["peer"]["pci"].get("lost_interrupts")
            && lost != 0
        {
            bail!("lost interrupts: {}", port["peer"]["pci"]);
        }
    }
    Ok(())
}

/// The counters of one port, `(received, delivered to it)`.
///
/// # Errors
/// If the daemon does not answer or has no such port.
pub fn port_frames(daemon: &Daemon, port: &str) -> Result<(u64, u64)> {
    let stats = daemon.ask(&["stats", "show"])?;
    let ports = stats["ports"].as_array().context("the daemon shows no ports")?;
    let port = ports.iter().find(|entry| entry["name"] == port).with_context(|| format!("no port {port}"))?;
    let number = |name: &str| port[name].as_u64().with_context(|| format!("a port without {name}"));
    Ok((number("rx_frames")?, number("tx_frames")?))
}
