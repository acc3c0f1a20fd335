//! DPDK's virtio-user driver, in all its receive and transmit paths.

use std::{io::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use fabnic_lab::{Child, Daemon, HugePages};
use fabnic_system::{Rig, Totals, mac, port_frames, worker_cpu};

/// The ten paths of DPDK's virtio driver: name, device arguments, EAL arguments.
const PATHS: [(&str, &str, &str); 10] = [
    ("split, mergeable, in order", "mrg_rxbuf=1,in_order=1", ""),
    ("split, in order", "mrg_rxbuf=0,in_order=1", ""),
    ("split, mergeable", "mrg_rxbuf=1,in_order=0", ""),
    ("split", "mrg_rxbuf=0,in_order=0,vectorized=0", ""),
    ("split, vectorised", "mrg_rxbuf=0,in_order=0,vectorized=1", ""),
    ("packed, mergeable", "packed_vq=1,mrg_rxbuf=1,in_order=0", ""),
    ("packed", "packed_vq=1,mrg_rxbuf=0,in_order=0", ""),
    ("packed, mergeable, in order", "packed_vq=1,mrg_rxbuf=1,in_order=1", ""),
    ("packed, in order", "packed_vq=1,mrg_rxbuf=0,in_order=1", ""),
    (
        "packed, vectorised",
        "packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1",
        "--force-max-simd-bitwidth=512",
    ),
];

/// Huge pages of 2 MiB for one testpmd.
const HUGE_PAGES: u64 = 300;

/// testpmd with two virtio-user ports that send to each other.
struct Testpmd {
    child: Child,
    log: PathBuf,
    read: usize,
    _pages: HugePages,
}

impl Testpmd {
    fn start(rig: &Rig, name: &str, device: &str, eal: &str, queues: u16) -> Result<Self> {
        let pages = HugePages::reserve(HUGE_PAGES)?;
        let log = rig.path(&format!("{name}.log"));
        let mut launch = rig.lab().program("stdbuf");
        launch.env("FABNIC_HUGETLBFS", "1").args(["-oL", "dpdk-testpmd", "--lcores", "0@0,1@0", "--no-pci"]);
        launch.args(["-m", "512", "--single-file-segments", "--file-prefix=fabnic-test"]);
        if !eal.is_empty() {
            launch.arg(eal);
        }
        for index in 0..2 {
            launch.arg(format!(
                "--vdev=net_virtio_user{index},path={},queue_size=256,queues={queues},mac={},{device}",
                rig.path(&format!("s{index}")).display(),
                mac(index),
            ));
        }
        launch.args(["--", "-i", "--nb-cores=1", "--txd=256", "--rxd=256", "--flowgen-flows=64"]);
        launch.arg(format!("--rxq={queues}")).arg(format!("--txq={queues}"));
        launch.arg(format!("--eth-peer=0,{}", mac(1))).arg(format!("--eth-peer=1,{}", mac(0)));
        launch.with_stdin().log_to(&log);
        let mut testpmd = Self { child: launch.spawn()?, log, read: 0, _pages: pages };
        testpmd.expect("testpmd> ")?;
        Ok(testpmd)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin().context("testpmd has no input")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).context("testpmd takes no more commands")
    }

    fn expect(&mut self, text: &str) -> Result<String> {
        let (log, read) = (self.log.clone(), self.read);
        let mut seen = String::new();
        let mut end = 0;
        self.child.wait_until(&format!("{text:?}"), Duration::from_secs(40), || {
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

    /// Sends a command and gives what it answered.
    fn ask(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        // What follows is no command; its complaint marks the end of the answer.
        self.say("fabnic_mark")?;
        self.expect("Command not found")
    }

    /// Frames that each port received since it was started.
    fn received(&mut self) -> Result<[u64; 2]> {
        let text = self.ask("show port stats all")?;
        let mut counts = text
            .split("RX-packets:")
            .skip(1)
            .filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        match (counts.next(), counts.next()) {
            (Some(first), Some(second)) => Ok([first, second]),
            _ => bail!("testpmd shows no statistics: {text}"),
        }
    }

    /// Waits until both ports have received `frames` more than they had.
    fn wait_for_traffic(&mut self, frames: u64) -> Result<()> {
        let before = self.received()?;
        let mut now = before;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(100));
            now = self.received()?;
            // A port that was stopped and started counts on.
            if now.iter().zip(before).all(|(now, before)| now.saturating_sub(before) >= frames) {
                return Ok(());
            }
        }
        bail!("ports stand still at {now:?} frames (before: {before:?})")
    }
}

fn daemon(rig: &Rig, queues: u16) -> Result<Daemon> {
    let mut config = rig.config(&[worker_cpu()]);
    for index in 0..2 {
        let more = format!("vlan = {{ access = 10 }}\nqueues = {queues}");
        config = config.virtio_net(
            &format!("guest{index}"),
            &rig.path(&format!("s{index}")),
            "server",
            &mac(index),
            &more,
        );
    }
    rig.daemon(&config)
}

#[test]
fn every_path_of_the_driver_moves_frames() -> Result<()> {
    let Some(rig) = Rig::new("dpdk paths")? else { return Ok(()) };
    let daemon = daemon(&rig, 1)?;
    for (index, (name, device, eal)) in PATHS.into_iter().enumerate() {
        eprintln!("  path: {name}");
        let mut testpmd = Testpmd::start(&rig, &format!("path{index}"), device, eal, 1)?;
        for command in ["set fwd flowgen", "set txpkts 200", "start"] {
            testpmd.say(command)?;
        }
        testpmd.wait_for_traffic(20_000).with_context(|| format!("path: {name}"))?;
        testpmd.say("stop")?;
        testpmd.say("set txpkts 1514")?;
        testpmd.say("start")?;
        testpmd.wait_for_traffic(10_000).with_context(|| format!("path with 1514 B: {name}"))?;
        testpmd.ask("stop")?;
        drop(testpmd);
        Totals::settle(&daemon).with_context(|| format!("path: {name}"))?;
    }
    let (from_first, to_first) = port_frames(&daemon, "guest0")?;
    assert!(from_first >= 300_000 && to_first >= 300_000, "the daemon counted {from_first}, {to_first}");
    daemon.stop()
}

#[test]
fn one_to_eight_queues() -> Result<()> {
    let Some(rig) = Rig::new("dpdk queues")? else { return Ok(()) };
    let daemon = daemon(&rig, 8)?;
    for queues in [1, 2, 3, 8] {
        for (ring, device) in [("split", "mrg_rxbuf=1"), ("packed", "mrg_rxbuf=1,packed_vq=1")] {
            eprintln!("  {queues} queues, {ring}");
            let mut testpmd = Testpmd::start(&rig, &format!("{ring}{queues}"), device, "", queues)?;
            testpmd.say("set fwd flowgen")?;
            testpmd.say("start")?;
            testpmd.wait_for_traffic(20_000).with_context(|| format!("{queues} {ring} queues"))?;
            testpmd.ask("stop")?;
        }
    }
    Totals::settle(&daemon)?;
    daemon.stop()
}

#[test]
fn ports_stop_and_start_in_a_loop() -> Result<()> {
    let Some(rig) = Rig::new("dpdk stop and start")? else { return Ok(()) };
    let daemon = daemon(&rig, 1)?;
    for (ring, device) in [("split", "mrg_rxbuf=1"), ("packed", "mrg_rxbuf=1,packed_vq=1")] {
        let mut testpmd = Testpmd::start(&rig, ring, device, "", 1)?;
        testpmd.say("set fwd flowgen")?;
        for round in 0..8 {
            testpmd.say("start")?;
            testpmd.wait_for_traffic(10_000).with_context(|| format!("{ring}, round {round}"))?;
            for command in ["stop", "port stop all", "port start all"] {
                testpmd.ask(command)?;
            }
        }
    }
    Totals::settle(&daemon)?;
    daemon.stop()
}
