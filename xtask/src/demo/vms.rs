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
const GUESTS: [Guest; 4] = [
    Guest { card: Card::Virtio { packed: false }, kernel: GuestKernel::Linux6_12 },
    Guest { card: Card::Virtio { packed: true }, kernel: GuestKernel::Linux7 },
    Guest { card: Card::Pci { nic: "avf", driver: "iavf" }, kernel: GuestKernel::Linux7 },
    Guest { card: Card::Pci { nic: "e1000", driver: "e1000" }, kernel: GuestKernel::Linux6_12 },
];
const VLAN: &str = "vlan = { access = 10 }";
const TAP: &str = "tap0";
const IPERF_SECONDS: u32 = 4;

/// A VM of the demo, without its place in [`GUESTS`].
struct Guest {
    card: Card,
    kernel: GuestKernel,
}

/// What the VM finds as its network card.
#[derive(Clone, Copy)]
enum Card {
    /// A para-virtual one, on vhost-user.
    Virtio { packed: bool },
    /// A PCI card that exists only in the daemon, on vfio-user, with the driver that the guest has for it.
    Pci { nic: &'static str, driver: &'static str },
}

fn name(index: usize) -> String {
    format!("vm{}", index + 1)
}

fn ip(index: usize) -> String {
    format!("198.18.0.{}", index + 1)
}

fn mac(index: usize) -> String {
    format!("02:00:00:00:00:{:02x}", index + 1)
}

pub(super) fn show(lab: &Lab, keep: bool, steps: &mut Steps) -> Result<()> {
    let dir = WorkDir::new("fabnic-demo.", false)?;
    let host = Namespace::create("demo")?;
    let mut daemon = None;
    steps.run("start fabnicd with ports of three kinds and a TAP uplink", |_| {
        daemon = Some(start_daemon(dir.path(), &host)?);
        Ok(String::new())
    })?;
    let daemon = daemon.context("no daemon")?;
    let mut vms = boot(lab, dir.path(), steps)?;

    steps.run("load drivers and give addresses", |_| {
        for (index, (vm, guest)) in vms.iter_mut().zip(&GUESTS).enumerate() {
            if let Card::Pci { driver, .. } = guest.card {
                load(vm, driver)?;
            }
            vm.sh(&format!("ip addr add {}/24 dev eth0 && ip link set eth0 up", ip(index)))?;
        }
        host.ip(&["addr", "add", &format!("{HOST_IP}/24"), "dev", TAP])?;
        host.ip(&["link", "set", TAP, "up"])?;
        Ok(format!("{} to {}, host = {HOST_IP}", ip(0), ip(GUESTS.len() - 1)))
    })?;
    for from in 0..GUESTS.len() {
        for to in (0..GUESTS.len()).filter(|to| *to != from) {
            steps.measure(&format!("ping {} to {}", name(from), name(to)), "ms", |_| {
                ping(vm(&mut vms, from)?, &ip(to))
            })?;
        }
        steps.measure(&format!("ping {} to the host", name(from)), "ms", |_| {
            ping(vm(&mut vms, from)?, HOST_IP)
        })?;
    }

    vm(&mut vms, 1)?.sh("iperf3 -s -D")?;
    let server = lab.program("iperf3").args(["-s", "-B", HOST_IP]).in_netns(host.name()).spawn()?;
    let before = Instant::now();
    let counters = delivered(&daemon)?;
    let server_ip = ip(1);
    for (from, to, title, more) in [
        (0, &*server_ip, "vm1 (virtio-net, split) to vm2 (virtio-net, packed)", ""),
        (0, &*server_ip, "vm2 to vm1", "-R"),
        (2, &*server_ip, "vm3 (AVF) to vm2", ""),
        (2, &*server_ip, "vm2 to vm3 (AVF)", "-R"),
        (3, &*server_ip, "vm4 (e1000) to vm2", ""),
        (3, &*server_ip, "vm2 to vm4 (e1000)", "-R"),
        (0, HOST_IP, "vm1 to the host", ""),
        (1, HOST_IP, "the host to vm2", "-R"),
    ] {
        steps.measure(&format!("iperf3 {title}"), "Mbit/s", |_| iperf(vm(&mut vms, from)?, to, more))?;
    }
    let seconds = before.elapsed().as_secs_f64();
    let frames = delivered(&daemon)? - counters;
    steps.measure("frames that the switch delivered meanwhile", "frames/s", |_| {
        anyhow::ensure!(frames > 0.0, "the switch counted no frame");
        Ok(frames / seconds)
    })?;
    drop(server);

    for (vm, guest) in vms.iter_mut().zip(&GUESTS) {
        if let Card::Pci { .. } = guest.card {
            let said = vm.sh("ethtool -i eth0 | head -n 5; ethtool -S eth0 | head -n 12")?;
            println!("\n{}: ethtool -i and -S\n{}", vm.name(), said.trim_end());
        }
    }
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
    for (index, guest) in GUESTS.iter().enumerate() {
        let (name, mac) = (name(index), mac(index));
        let socket = dir.join(format!("{name}.sock"));
        config = match guest.card {
            Card::Virtio { .. } => config.virtio_net(&name, &socket, "server", &mac, VLAN),
            Card::Pci { nic, .. } => config.pci(&name, nic, &socket, &mac, VLAN),
        };
    }
    let config = config.tap("up0", TAP, VLAN);
    Daemon::start(&release_dir(), dir, &config, Some(host.name()))
}

fn boot(lab: &Lab, dir: &Path, steps: &mut Steps) -> Result<Vec<Vm>> {
    let mut vms = Vec::new();
    let title = "boot four Debian VMs: virtio-net with split and with packed rings, AVF, e1000";
    steps.run(title, |step| {
        for (index, guest) in GUESTS.iter().enumerate() {
            let socket = dir.join(format!("{}.sock", name(index)));
            let nic = match guest.card {
                Card::Virtio { packed } => Nic { packed, ..Nic::new(socket, &mac(index)) },
                Card::Pci { .. } => Nic::vfio_user(socket),
            };
            vms.push(Vm::start(lab, &VmSpec::new(&name(index), guest.kernel).with_nic(nic), dir)?);
        }
        step.say("waiting for their init");
        let mut kernels = Vec::new();
        for vm in &mut vms {
            vm.wait_ready()?;
            kernels.push(vm.kernel_version().to_owned());
        }
        kernels.dedup();
        Ok(format!("kernels {}", kernels.join(", ")))
    })?;
    Ok(vms)
}

fn vm(vms: &mut [Vm], index: usize) -> Result<&mut Vm> {
    vms.get_mut(index).context("no such VM")
}

/// Loads the driver of a card and waits for its interface.
fn load(vm: &mut Vm, driver: &str) -> Result<()> {
    vm.sh(&format!(
        "modprobe {driver} && for i in $(seq 100); do [ -e /sys/class/net/eth0 ] && break; sleep 0.1; done"
    ))
    .map(|_| ())
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
    for index in 0..GUESTS.len() {
        let (port, mac) = (name(index), mac(index));
        if !entries.iter().any(|entry| entry["mac"] == mac.as_str() && entry["port"] == port.as_str()) {
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

fn wait_for_enter(vms: &[Vm], dir: &Path, host: &Namespace) -> Result<()> {
    println!("Everything keeps running. From another terminal:");
    for vm in vms {
        println!("  log into {}:   cargo xtask lab console {}", vm.name(), vm.console_socket().display());
    }
    println!(
        "  ask the daemon: {} --api {} port show",
        release_dir().join("fabnic").display(),
        dir.join("api.sock").display()
    );
    println!("  be the host:    ip netns exec {} ping {}", host.name(), ip(0));
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
