//! The demo with real VMs.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use fabnic_lab::{Daemon, DaemonConfig, GuestKernel, Lab, Namespace, Nic, Vm, VmSpec, WorkDir};

use super::steps::Steps;
use crate::cargo::release_dir;

/// The VMs, and the host's end of the TAP uplink, in one IP subnet of the range kept for benchmarks (RFC 2544).
const HOST_IP: &str = "198.18.0.254";
const VM_IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
const VM_MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
const VLAN: &str = "vlan = { access = 10 }";
const TAP: &str = "tap0";
const IPERF_SECONDS: u32 = 4;

pub(super) fn show(lab: &Lab, keep: bool, steps: &mut Steps) -> Result<()> {
    let dir = WorkDir::new("fabnic-demo.", false)?;
    let host = Namespace::create("demo")?;
    let mut daemon = None;
    steps.run("start fabnicd with two virtio-net ports and a TAP uplink", |_| {
        daemon = Some(start_daemon(dir.path(), &host)?);
        Ok(String::new())
    })?;
    let daemon = daemon.context("no daemon")?;
    let mut vms = boot(lab, dir.path(), steps)?;

    let [vm1, vm2] = &mut vms;
    steps.run("give the VMs addresses", |_| {
        for (vm, ip) in [&mut *vm1, &mut *vm2].into_iter().zip(VM_IPS) {
            vm.sh(&format!("ip addr add {ip}/24 dev eth0 && ip link set eth0 up"))?;
        }
        host.ip(&["addr", "add", &format!("{HOST_IP}/24"), "dev", TAP])?;
        host.ip(&["link", "set", TAP, "up"])?;
        Ok(format!("{} = {}, {} = {}, host = {HOST_IP}", vm1.name(), VM_IPS[0], vm2.name(), VM_IPS[1]))
    })?;
    steps.measure("ping vm1 to vm2", "ms", |_| ping(vm1, VM_IPS[1]))?;
    steps.measure("ping vm2 to vm1", "ms", |_| ping(vm2, VM_IPS[0]))?;
    steps.measure("ping vm1 to the host", "ms", |_| ping(vm1, HOST_IP))?;
    steps.measure("ping vm2 to the host", "ms", |_| ping(vm2, HOST_IP))?;

    vm2.sh("iperf3 -s -D")?;
    let server = lab.program("iperf3").args(["-s", "-B", HOST_IP]).in_netns(host.name()).spawn()?;
    let before = Instant::now();
    let counters = delivered(&daemon)?;
    steps.measure("iperf3 vm1 to vm2", "Mbit/s", |_| iperf(vm1, VM_IPS[1], ""))?;
    steps.measure("iperf3 vm2 to vm1", "Mbit/s", |_| iperf(vm1, VM_IPS[1], "-R"))?;
    steps.measure("iperf3 vm1 to the host", "Mbit/s", |_| iperf(vm1, HOST_IP, ""))?;
    steps.measure("iperf3 the host to vm2", "Mbit/s", |_| iperf(vm2, HOST_IP, "-R"))?;
    let seconds = before.elapsed().as_secs_f64();
    let frames = delivered(&daemon)? - counters;
    steps.measure("frames that the switch delivered meanwhile", "frames/s", |_| {
        anyhow::ensure!(frames > 0.0, "the switch counted no frame");
        Ok(frames / seconds)
    })?;
    drop(server);

    for (title, command) in [
        ("ports", ["port", "show"]),
        ("forwarding database", ["fdb", "show"]),
        ("counters and drop reasons", ["stats", "show"]),
        ("workers", ["worker", "show"]),
    ] {
        println!("\n{title}: fabnic {}\n{}", command.join(" "), daemon.fabnic(&command)?.trim_end());
    }
    println!();
    steps.run("check the forwarding database and the counters", |_| check(&daemon))?;

    if keep {
        wait_for_enter(&vms, dir.path(), &host)?;
    }
    steps.run("stop everything", |_| {
        for vm in vms {
            vm.power_off()?;
        }
        daemon.stop()?;
        drop(host);
        Ok(String::new())
    })
}

fn start_daemon(dir: &Path, host: &Namespace) -> Result<Daemon> {
    let mut config = DaemonConfig::new(dir, &[super::worker_cpu()]);
    for (index, mac) in VM_MACS.iter().enumerate() {
        let name = format!("vm{}", index + 1);
        config = config.virtio_net(&name, &dir.join(format!("{name}.sock")), "server", mac, VLAN);
    }
    let config = config.tap("up0", TAP, VLAN);
    Daemon::start(&release_dir(), dir, &config, Some(host.name()))
}

fn boot(lab: &Lab, dir: &Path, steps: &mut Steps) -> Result<[Vm; 2]> {
    let spec = |index: usize, kernel, packed| {
        let name = format!("vm{}", index + 1);
        let mut nic = Nic::new(dir.join(format!("{name}.sock")), VM_MACS[index]);
        nic.packed = packed;
        VmSpec::new(&name, kernel).with_nic(nic)
    };
    let mut vms = None;
    steps.run("boot two Debian VMs, vm1 with split rings, vm2 with packed rings", |step| {
        let mut vm1 = Vm::start(lab, &spec(0, GuestKernel::Linux6_12, false), dir)?;
        let mut vm2 = Vm::start(lab, &spec(1, GuestKernel::Linux7, true), dir)?;
        step.say("waiting for their init");
        vm1.wait_ready()?;
        vm2.wait_ready()?;
        let kernels = format!("kernels {} and {}", vm1.kernel_version(), vm2.kernel_version());
        vms = Some([vm1, vm2]);
        Ok(kernels)
    })?;
    vms.context("no VMs")
}

/// The average round trip of ten pings, in ms.
fn ping(vm: &mut Vm, to: &str) -> Result<f64> {
    let text = vm.sh(&format!("ping -c 10 -i 0.2 -W 2 {to}"))?;
    if !text.contains("10 packets received") {
        bail!("pings were lost: {text}");
    }
    let times = text.rsplit('=').next().context("ping gave no times")?;
    let average = times.split('/').nth(1).context("ping gave no average")?;
    average.trim().parse().with_context(|| format!("ping gave no average: {text}"))
}

/// What the receiver of an iperf3 run saw, in Mbit/s.
fn iperf(vm: &mut Vm, to: &str, more: &str) -> Result<f64> {
    let text = vm.sh(&format!("iperf3 -J -t {IPERF_SECONDS} -c {to} {more}"))?;
    let result: serde_json::Value = serde_json::from_str(&text).context("iperf3 gave no JSON")?;
    let bps = result["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 gave no rate")?;
    anyhow::ensure!(bps > 0.0, "iperf3 moved nothing");
    Ok(bps / 1e6)
}

fn delivered(daemon: &Daemon) -> Result<f64> {
    daemon.ask(&["stats", "show"])?["totals"]["delivered"]
        .as_f64()
        .context("the daemon counts no delivered frames")
}

/// Every VM's address is learned at its port, and what was received is what was delivered and dropped.
fn check(daemon: &Daemon) -> Result<String> {
    let fdb = daemon.ask(&["fdb", "show"])?;
    let entries = fdb["entries"].as_array().or_else(|| fdb.as_array()).context("the daemon shows no FDB")?;
    for (index, mac) in VM_MACS.iter().enumerate() {
        let port = format!("vm{}", index + 1);
        if !entries.iter().any(|entry| entry["mac"] == *mac && entry["port"] == *port) {
            bail!("{mac} was not learned at {port}: {fdb}");
        }
    }
    let totals = &daemon.ask(&["stats", "show"])?["totals"];
    let number = |name: &str| totals[name].as_u64().with_context(|| format!("no count of {name} frames"));
    let (received, replicated) = (number("received")?, number("replicated")?);
    let (delivered, dropped) = (number("delivered")?, number("dropped")?);
    // The four are read while the VMs may still say something.
    let (came, went) = (received + replicated, delivered + dropped);
    if came.abs_diff(went) > 64 {
        bail!(
            "received {received} + replicated {replicated} is not delivered {delivered} + dropped {dropped}"
        );
    }
    Ok(format!("{} addresses; {received} received, {delivered} delivered, {dropped} dropped", entries.len()))
}

fn wait_for_enter(vms: &[Vm; 2], dir: &Path, host: &Namespace) -> Result<()> {
    println!("Everything keeps running. From another terminal:");
    for vm in vms {
        println!("  log into {}:   cargo xtask lab console {}", vm.name(), vm.console_socket().display());
    }
    println!(
        "  ask the daemon: {} --api {} port show",
        release_dir().join("fabnic").display(),
        dir.join("api.sock").display()
    );
    println!("  be the host:    ip netns exec {} ping {}", host.name(), VM_IPS[0]);
    println!("Press Enter to stop it all.");
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).context("cannot read from the terminal")?;
    if read == 0 {
        // No terminal: stay until we are killed; everything ends with us.
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    Ok(())
}
