//! Unmodified Linux guests, of three kernels, through what their administrators do to them.

use anyhow::{Context as _, Result};
use fabnic_lab::{Daemon, GuestKernel, Namespace, Nic, Vm, VmSpec};
use fabnic_system::{Rig, Totals, cpus, mac, worker_cpu};

const IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
const QUEUES: u16 = 2;

/// Two VMs, the first with split rings, the second with packed ones.
fn boot(rig: &Rig, kernel: GuestKernel, listen: bool) -> Result<[Vm; 2]> {
    let spec = |index: usize| {
        let mut nic = Nic::new(rig.path(&format!("s{index}")), &mac(index));
        nic.queues = QUEUES;
        nic.packed = index == 1;
        nic.listen = listen;
        let mut spec = VmSpec::new(&format!("vm{index}"), kernel).with_nic(nic);
        spec.cpus = QUEUES;
        spec
    };
    // Both boot at the same time.
    let mut first = Vm::start(rig.lab(), &spec(0), rig.dir())?;
    let mut second = Vm::start(rig.lab(), &spec(1), rig.dir())?;
    first.wait_ready()?;
    second.wait_ready()?;
    Ok([first, second])
}

fn daemon(rig: &Rig, workers: &[usize], role: &str) -> Result<Daemon> {
    let mut config = rig.config(workers);
    for index in 0..2 {
        let more = format!("vlan = {{ access = 10 }}\nqueues = {QUEUES}\nmtu = 9000");
        config = config.virtio_net(
            &format!("vm{index}"),
            &rig.path(&format!("s{index}")),
            role,
            &mac(index),
            &more,
        );
    }
    rig.daemon(&config)
}

fn address(vm: &mut Vm, index: usize, mtu: u32) -> Result<()> {
    vm.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 mtu {mtu} up", IPS[index])).map(|_| ())
}

/// Every ping is answered, after one that may be lost while the other side comes up.
fn ping(vm: &mut Vm, to: &str, more: &str) -> Result<()> {
    vm.sh(&format!("ping -c 1 -W 20 {to} >/dev/null; ping -c 5 -i 0.2 -W 20 {more} {to}"))
        .and_then(|text| {
            anyhow::ensure!(text.contains("5 packets received"), "pings were lost: {text}");
            Ok(())
        })
        .with_context(|| format!("{} pings {to}", vm.name()))
}

/// TCP in both directions, with whatever offloads the driver negotiated. How fast is a benchmark's question.
fn tcp(vms: &mut [Vm; 2]) -> Result<()> {
    let [first, second] = vms;
    second.sh("killall iperf3 2>/dev/null; iperf3 -s -D")?;
    transfer(first, IPS[1])
}

/// Moves some megabytes to and from an iperf3 server.
fn transfer(vm: &mut Vm, to: &str) -> Result<()> {
    for direction in ["", "-R"] {
        let text = vm.sh(&format!("iperf3 -J -n 8M -c {to} {direction}"))?;
        let result: serde_json::Value = serde_json::from_str(&text).context("iperf3 gave no JSON")?;
        let bytes = result["end"]["sum_received"]["bytes"].as_f64().context("iperf3 gave no count")?;
        anyhow::ensure!(bytes > 4e6, "of 8 MiB {bytes} bytes came ({direction:?})");
    }
    Ok(())
}

/// What an administrator does to a NIC, on a pair of VMs that must talk to each other after each of it.
fn life(rig: &Rig, kernel: GuestKernel) -> Result<()> {
    let daemon = daemon(rig, &[worker_cpu()], "server")?;
    let mut vms = boot(rig, kernel, false)?;
    eprintln!("  kernel {}", vms[0].kernel_version());
    for (index, vm) in vms.iter_mut().enumerate() {
        address(vm, index, 1500)?;
        let driver = vm.sh("ethtool -i eth0 | head -1")?;
        assert_eq!(driver, "driver: virtio_net");
    }
    ping(&mut vms[0], IPS[1], "")?;
    tcp(&mut vms)?;
    let features = vms[0].sh("ethtool -k eth0")?;
    assert!(features.contains("tcp-segmentation-offload: on"), "no TSO was negotiated:\n{features}");

    eprintln!("  ethtool -L");
    for queues in [QUEUES, 1, QUEUES] {
        for vm in &mut vms {
            vm.sh(&format!("ethtool -L eth0 combined {queues}"))?;
        }
        ping(&mut vms[0], IPS[1], "")?;
        tcp(&mut vms)?;
    }

    eprintln!("  MTU");
    for vm in &mut vms {
        vm.sh("ip link set eth0 mtu 9000")?;
    }
    ping(&mut vms[0], IPS[1], "-s 8900")?;
    tcp(&mut vms)?;

    eprintln!("  module reload");
    for index in 0..2 {
        vms[index].sh("rmmod virtio_net && modprobe virtio_net && sleep 1")?;
        address(&mut vms[index], index, 1500)?;
        ping(&mut vms[1 - index], IPS[index], "")?;
    }
    tcp(&mut vms)?;

    eprintln!("  reboot");
    for round in 0..2 {
        for index in 0..2 {
            vms[index].reboot().with_context(|| format!("reboot {round} of vm{index}"))?;
            address(&mut vms[index], index, 1500)?;
            ping(&mut vms[1 - index], IPS[index], "")?;
        }
    }
    tcp(&mut vms)?;
    for vm in vms {
        vm.power_off()?;
    }
    Totals::settle(&daemon)?;
    daemon.stop()
}

#[test]
fn kernel_6_1_lives_through_everything() -> Result<()> {
    let Some(rig) = Rig::new("kernel 6.1")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux6_1)
}

#[test]
fn kernel_6_12_lives_through_everything() -> Result<()> {
    let Some(rig) = Rig::new("kernel 6.12")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux6_12)
}

#[test]
fn kernel_7_lives_through_everything() -> Result<()> {
    let Some(rig) = Rig::new("kernel 7.x")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux7)
}

#[test]
fn many_workers_and_client_role() -> Result<()> {
    let Some(rig) = Rig::new("many workers")? else { return Ok(()) };
    // As many workers as there are CPUs, up to four.
    let workers: Vec<usize> = (0..cpus().min(4)).collect();
    let daemon = daemon(&rig, &workers, "client")?;
    let mut vms = boot(&rig, GuestKernel::Linux6_12, true)?;
    for (index, vm) in vms.iter_mut().enumerate() {
        address(vm, index, 1500)?;
        vm.sh(&format!("ethtool -L eth0 combined {QUEUES}"))?;
    }
    ping(&mut vms[0], IPS[1], "")?;
    tcp(&mut vms)?;
    let shown = daemon.ask(&["worker", "show"])?;
    assert_eq!(shown.as_array().map(Vec::len), Some(workers.len()), "{shown}");
    for vm in vms {
        vm.power_off()?;
    }
    Totals::settle(&daemon)?;
    daemon.stop()
}

#[test]
fn vms_reach_the_host_through_a_tap_uplink() -> Result<()> {
    let Some(rig) = Rig::new("tap uplink")? else { return Ok(()) };
    let host = Namespace::create("test")?;
    let vlan = "vlan = { access = 10 }";
    let config = rig
        .config(&[worker_cpu()])
        .virtio_net("vm0", &rig.path("s0"), "server", &mac(0), vlan)
        .tap("up0", "tap0", vlan);
    let daemon = rig.daemon_in(&host, &config)?;
    host.ip(&["addr", "add", "198.18.0.254/24", "dev", "tap0"])?;
    host.ip(&["link", "set", "tap0", "up"])?;
    let spec = VmSpec::new("vm0", GuestKernel::Linux7).with_nic(Nic::new(rig.path("s0"), &mac(0)));
    let mut vm = Vm::boot(rig.lab(), &spec, rig.dir())?;
    address(&mut vm, 0, 1500)?;
    ping(&mut vm, "198.18.0.254", "")?;
    let _server =
        rig.lab().program("iperf3").args(["-s", "-B", "198.18.0.254"]).in_netns(host.name()).spawn()?;
    vm.sh("sleep 2")?;
    transfer(&mut vm, "198.18.0.254")?;
    vm.power_off()?;
    daemon.stop()
}
