//! Light guests: `fabnic-pktgen`, whose drivers touch one line a packet, so that the switch is the limit.

use std::{io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use fabnic_lab::{Child, Launch};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    guests::Ring,
    peer::{GUEST_CPU, sockets},
};
use crate::cargo::release_dir;

/// What the light guests send.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) ring: Ring,
    /// Bytes of a frame, without checksum trailer; TSO frames are as large as they can be.
    pub(crate) size: u32,
    pub(crate) flows: u32,
    /// TSO frames, with a partial checksum.
    pub(crate) tso: bool,
    /// Frames a second from each guest; as many as go if `None`.
    pub(crate) rate: Option<u64>,
    /// Write and check sequence numbers and time stamps.
    pub(crate) sequence: bool,
}

/// Percentiles of the time from sending to receiving.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
}

/// One window, as `fabnic-pktgen --json` tells it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct PktgenWindow {
    pub(crate) seconds: f64,
    pub(crate) rx_frames: u64,
    pub(crate) rx_bytes: u64,
    #[serde(default)]
    pub(crate) lost: u64,
    /// Accesses by which a guest would leave its VM.
    #[serde(default)]
    pub(crate) exits: u64,
    #[serde(default)]
    pub(crate) latency_ns: Option<Latency>,
}

/// Both guests, running.
#[derive(Debug)]
pub(crate) struct LightGuests {
    child: Child,
    log: std::path::PathBuf,
    read: usize,
}

impl LightGuests {
    /// Starts them, with windows of `seconds`. They send all the time; a window begins when it is asked for.
    pub(crate) fn spawn(dir: &Path, listen: bool, traffic: &Traffic, seconds: f64) -> Result<Self> {
        let program = release_dir().join("fabnic-pktgen");
        if !program.is_file() {
            bail!("{} is not there; `cargo build --release -p fabnic-testkit` makes it", program.display());
        }
        let log = dir.join("guests.jsonl");
        let mut launch = Launch::on_host(program);
        launch.arg("run");
        // In pieces of a page a ring holds 64 large frames, 4 MiB, which is what may be on its way on a fast network. In larger
        // ones it would hold 512: 32 MiB, and the memory be measured.
        let piece = if traffic.tso { ",tx-piece=4096" } else { "" };
        for (index, socket) in sockets(dir).iter().enumerate() {
            let driver = match traffic.ring.is_card() {
                true => format!("nic={}", traffic.ring.nic()),
                false => format!(
                    "role={},ring={}{piece}",
                    if listen { "server" } else { "client" },
                    traffic.ring.name()
                ),
            };
            launch.arg("--port").arg(format!(
                "socket={},{driver},queue-size=1024,mac=02:00:00:00:00:0{},peer=02:00:00:00:00:0{}",
                socket.display(),
                index + 1,
                2 - index,
            ));
        }
        launch.arg("--cpu").arg(GUEST_CPU.to_string());
        launch.args(["--mode", if traffic.sequence { "seq" } else { "light" }]);
        launch.arg("--flows").arg(traffic.flows.to_string());
        if traffic.tso {
            launch.arg("--tso");
        } else {
            launch.arg("--size").arg(traffic.size.to_string());
        }
        if let Some(rate) = traffic.rate {
            launch.arg("--rate").arg(rate.to_string());
        }
        launch
            .args(["--interactive", "--patience", "40", "--warmup", "1", "--window"])
            .arg(seconds.to_string());
        launch.arg("--json").with_stdin().log_to(&log);
        let mut child = launch.spawn()?;
        if listen {
            let ready = sockets(dir);
            child.wait_until("its sockets", Duration::from_secs(20), || {
                ready.iter().all(|socket| socket.exists())
            })?;
        }
        Ok(Self { child, log, read: 0 })
    }

    /// Waits until they are connected and warm.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.line_with("ready", Duration::from_secs(60)).map(|_| ())
    }

    /// Measures a window.
    pub(crate) fn window(&mut self) -> Result<PktgenWindow> {
        let stdin = self.child.stdin().context("the guests have no input")?;
        writeln!(stdin, "window").and_then(|()| stdin.flush()).context("the guests take no more commands")?;
        let value = self.line_with("window", Duration::from_secs(60))?;
        serde_json::from_value(value).context("a window that is not understood")
    }

    /// The next line of JSON with a member of this name.
    fn line_with(&mut self, name: &str, timeout: Duration) -> Result<Value> {
        let (log, mut read) = (self.log.clone(), self.read);
        let mut found = None;
        self.child.wait_until(name, timeout, || {
            let bytes = std::fs::read(&log).unwrap_or_default();
            while let Some(rest) = bytes.get(read..)
                && let Some(end) = rest.iter().position(|byte| *byte == b'\n')
            {
                read += end + 1;
                // Its log lines share the file.
                let line = rest.get(..end).unwrap_or_default();
                found = serde_json::from_slice(line).ok().filter(|value: &Value| value.get(name).is_some());
                if found.is_some() {
                    return true;
                }
            }
            false
        })?;
        self.read = read;
        found.context("the guests said nothing")
    }
}
