//! The two guests of a benchmark, both on one CPU: DPDK's own drivers, or Fabnic's light ones.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use fabnic_lab::{Child, Lab};
use serde::Serialize;

use super::peer::{GUEST_CPU, sockets, with_huge_pages};

/// Rings of the guests: of virtio-net, or of one of the PCI cards that only Fabnic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ring {
    Split,
    Packed,
    Avf,
    E1000,
}

impl Ring {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Packed => "packed",
            Self::Avf => "avf",
            Self::E1000 => "e1000",
        }
    }

    /// The card, as configurations name it.
    pub(crate) fn nic(self) -> &'static str {
        match self {
            Self::Split | Self::Packed => "virtio-net",
            Self::Avf => "avf",
            Self::E1000 => "e1000",
        }
    }

    /// Whether it is a card over vfio-user.
    pub(crate) fn is_card(self) -> bool {
        matches!(self, Self::Avf | Self::E1000)
    }
}

/// What two guests saw in one window, both together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Rates {
    /// Frames received a second.
    pub(crate) rx_pps: f64,
    /// Bits of the frames received a second, without preamble and gap.
    pub(crate) rx_bps: f64,
    /// Whether the guests wanted to send more than the switch took: then the switch is the limit.
    pub(crate) switch_limits: bool,
}

/// DPDK's testpmd as both guests, each with a virtio-user port, sending all the time (flowgen).
#[derive(Debug)]
pub(crate) struct DpdkGuests {
    child: Child,
    log: PathBuf,
    size: u32,
    /// Bytes of the log that were used.
    read: usize,
    dropped: u64,
}

impl DpdkGuests {
    /// Starts the guests on the sockets of `dir`. A guest that listens is ready only when the switch has come.
    pub(crate) fn spawn(
        lab: &Lab,
        dir: &Path,
        listen: bool,
        ring: Ring,
        size: u32,
        flows: u32,
    ) -> Result<Self> {
        let log = dir.join("guests.log");
        let mut launch = with_huge_pages(lab, "stdbuf");
        launch.args(["-oL", "dpdk-testpmd"]);
        launch.arg("--lcores").arg(format!("0@{GUEST_CPU},1@{GUEST_CPU}"));
        launch.args(["--no-pci", "-m", "512", "--single-file-segments", "--file-prefix=fabnic-guests"]);
        for (index, socket) in sockets(dir).iter().enumerate() {
            launch.arg(format!(
                "--vdev=net_virtio_user{index},path={},queue_size=1024,mac=02:00:00:00:00:0{}{}{}",
                socket.display(),
                index + 1,
                if listen { ",server=1" } else { "" },
                if ring == Ring::Packed { ",packed_vq=1" } else { "" },
            ));
        }
        launch.args(["--", "-i", "--nb-cores=1", "--txd=1024", "--rxd=1024"]);
        launch.arg(format!("--flowgen-flows={flows}"));
        launch.args(["--eth-peer=0,02:00:00:00:00:02", "--eth-peer=1,02:00:00:00:00:01"]);
        launch.with_stdin().log_to(&log);
        let mut child = launch.spawn()?;
        if listen {
            let ready = sockets(dir);
            child.wait_until("its sockets", Duration::from_secs(40), || {
                // The second socket may come only when the first guest has its switch.
                ready.first().is_some_and(|socket| socket.exists())
            })?;
        }
        Ok(Self { child, log, size, read: 0, dropped: 0 })
    }

    /// Starts their traffic.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.expect("testpmd> ", Duration::from_secs(40))?;
        self.say("set fwd flowgen")?;
        self.say(&format!("set txpkts {}", self.size))?;
        self.say("start")?;
        self.rates()?;
        Ok(())
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin().context("the guests have no input")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).context("the guests take no more commands")
    }

    /// Waits until the log has `text` after what was read, and gives what came up to its end.
    fn expect(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let (log, read) = (self.log.clone(), self.read);
        let mut seen = String::new();
        let mut end = 0;
        self.child.wait_until(&format!("{text:?}"), timeout, || {
            let bytes = std::fs::read(&log).unwrap_or_default();
            seen = String::from_utf8_lossy(bytes.get(read..).unwrap_or_default()).into_owned();
            seen.find(text).is_some_and(|at| {
                end = at + text.len();
                true
            })
        })?;
        seen.truncate(end);
        self.read += end;
        Ok(seen)
    }

    /// The rates since the last call, by the guests' own clock.
    pub(crate) fn rates(&mut self) -> Result<Rates> {
        // The end of an answer is known by the complaint about what follows it.
        let mark = "fabnic_mark";
        self.say("show port stats all")?;
        self.say(mark)?;
        let text = self.expect("Command not found", Duration::from_secs(10))?;
        let sum = |name: &str| -> u64 {
            text.split(name)
                .skip(1)
                .filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .sum()
        };
        if !text.contains("Rx-pps:") {
            bail!("the guests gave no statistics: {text}");
        }
        let dropped = sum("TX-dropped:");
        let switch_limits = dropped > self.dropped;
        self.dropped = dropped;
        Ok(Rates { rx_pps: sum("Rx-pps:") as f64, rx_bps: sum("Rx-bps:") as f64, switch_limits })
    }
}
