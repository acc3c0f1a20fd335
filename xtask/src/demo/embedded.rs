//! The demo without VMs: two guests in user space, with Fabnic's own virtio driver.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use fabnic_lab::{Daemon, DaemonConfig, WorkDir};
use serde_json::Value;

use super::steps::Steps;
use crate::cargo::release_dir;

const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

pub(super) fn show(steps: &mut Steps) -> Result<()> {
    let dir = WorkDir::new("fabnic-demo.", false)?;
    let mut daemon = None;
    steps.run("start fabnicd with two virtio-net ports", |_| {
        let mut config = DaemonConfig::new(dir.path(), &[super::worker_cpu()]);
        for (index, mac) in MACS.iter().enumerate() {
            let socket = dir.path().join(format!("guest{index}.sock"));
            config =
                config.virtio_net(&format!("guest{index}"), &socket, "server", mac, "vlan = { access = 10 }");
        }
        daemon = Some(Daemon::start(&release_dir(), dir.path(), &config, None)?);
        Ok(String::new())
    })?;
    let daemon = daemon.context("no daemon")?;
    for (ring, name) in [("split", "traffic with split rings"), ("packed", "traffic with packed rings")] {
        steps.measure(name, "Mpps", |_| traffic(dir.path(), ring))?;
    }
    for command in [["port", "show"], ["fdb", "show"], ["stats", "show"], ["worker", "show"]] {
        println!("\nfabnic {}\n{}", command.join(" "), daemon.fabnic(&command)?.trim_end());
    }
    println!();
    steps.run("stop everything", |_| {
        daemon.stop()?;
        Ok(String::new())
    })
}

/// Two guests that send to each other for three seconds; gives what both received.
fn traffic(dir: &std::path::Path, ring: &str) -> Result<f64> {
    let mut command = Command::new(release_dir().join("fabnic-pktgen"));
    command.arg("run");
    for (index, mac) in MACS.iter().enumerate() {
        command.arg("--port").arg(format!(
            "socket={},role=client,ring={ring},queue-size=1024,mac={mac},peer={}",
            dir.join(format!("guest{index}.sock")).display(),
            MACS[1 - index]
        ));
    }
    command.args(["--cpu", "0", "--mode", "seq", "--size", "64", "--flows", "64", "--rate", "100000"]);
    command.args(["--warmup", "1", "--window", "1", "--windows", "2", "--json"]);
    let output = command.output().context("cannot start fabnic-pktgen")?;
    if !output.status.success() {
        bail!("fabnic-pktgen failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let windows: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|value| value.get("window").is_some())
        .collect();
    let rates =
        windows.iter().filter_map(|window| Some(window["rx_frames"].as_f64()? / window["seconds"].as_f64()?));
    let best = rates.fold(0.0, f64::max);
    anyhow::ensure!(best > 0.0, "the guests received nothing: {text}");
    Ok(best / 1e6)
}
