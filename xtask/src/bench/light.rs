//! Light guests: `fabnic-pktgen`, whose drivers touch one line a packet, so that the switch is the limit.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use fabnic_lab::{Child, Launch};
use serde::{Deserialize, Serialize};

use super::{
    guests::Ring,
    peer::{GUEST_CPU, sockets},
};
use crate::cargo::release_dir;

/// What the light guests send.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) ring: Ring,
    /// Bytes of a frame, without checksum trailer.
    pub(crate) size: u32,
    pub(crate) flows: u32,
    /// Frames of `size` are TSO frames, with a partial checksum.
    pub(crate) tso: bool,
    /// Frames a second, both guests together; as many as go if `None`.
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
    /// Starts them; they warm up for a second, then measure `windows` windows of `seconds` each.
    pub(crate) fn spawn(
        dir: &Path,
        listen: bool,
        traffic: &Traffic,
        seconds: f64,
        windows: usize,
    ) -> Result<Self> {
        let program = release_dir().join("fabnic-pktgen");
        if !program.is_file() {
            bail!("{} is not there; `cargo build --release -p fabnic-testkit` makes it", program.display());
        }
        let log = dir.join("guests.jsonl");
        let mut launch = Launch::on_host(program);
        launch.arg("run");
        for (index, socket) in sockets(dir).iter().enumerate() {
            launch.arg("--port").arg(format!(
                "socket={},role={},ring={},queue-size=1024,mac=02:00:00:00:00:0{},peer=02:00:00:00:00:0{}",
                socket.display(),
                if listen { "server" } else { "client" },
                traffic.ring.name(),
                index + 1,
                2 - index,
            ));
        }
        launch.arg("--cpu").arg(GUEST_CPU.to_string());
        launch.args(["--mode", if traffic.sequence { "seq" } else { "light" }]);
        launch.arg("--size").arg(traffic.size.to_string()).arg("--flows").arg(traffic.flows.to_string());
        if traffic.tso {
            launch.arg("--tso");
        }
        if let Some(rate) = traffic.rate {
            launch.arg("--rate").arg(rate.to_string());
        }
        launch.args(["--warmup", "1", "--window"]).arg(seconds.to_string());
        launch.arg("--windows").arg(windows.to_string()).arg("--json").log_to(&log);
        let mut child = launch.spawn()?;
        if listen {
            let ready = sockets(dir);
            child.wait_until("its sockets", Duration::from_secs(20), || {
                ready.iter().all(|socket| socket.exists())
            })?;
        }
        Ok(Self { child, log, read: 0 })
    }

    /// Waits for the next window; `None` after the last one.
    pub(crate) fn window(&mut self) -> Result<Option<PktgenWindow>> {
        loop {
            let bytes = std::fs::read(&self.log).unwrap_or_default();
            let rest = bytes.get(self.read..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                match self.child.exited()? {
                    Some(status) if status.success() => return Ok(None),
                    Some(_) => self.child.must_run()?,
                    None => std::thread::sleep(Duration::from_millis(2)),
                }
                continue;
            };
            let line = rest.get(..end).unwrap_or_default();
            self.read += end + 1;
            let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else {
                // Its log lines share the file.
                continue;
            };
            if value.get("summary").is_some() {
                return Ok(None);
            }
            if value.get("window").is_some() {
                return serde_json::from_value(value).context("a window that is not understood").map(Some);
            }
        }
    }
}
