//! Unmodified Linux guests with PCI cards that exist only in the daemon, beside guests with virtio-net.

use anyhow::{Context as _, Result};
use fabnic_lab::{Daemon, GuestKernel, Nic, Vm, VmSpec};
use fabnic_system::{Rig, Totals, mac, worker_cpu};

const IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
const VLAN: &str = "vlan = { access = 10 }";

/// A guest with the card, and one with virtio-net.
fn boot(rig: &Rig, kernel: GuestKernel) -> Result<[Vm; 2]> {
    let spec = |index: usize, nic: Nic| VmSpec::new(&format!("vm{index}"), kernel).with_nic(nic);
    let mut first = Vm::start(rig.lab(), &spec(0, Nic::vfio_user(rig.path("s0"))), rig.dir())?;
    let mut second = Vm::start(rig.lab(), &spec(1, Nic::new(rig.path("s1"), &mac(1))), rig.dir())?;
    first.wait_ready()?;
    second.wait_ready()?;
    Ok([first, second])
}

fn daemon(rig: &Rig, nic: &str) -> Result<Daemon> {
    let config = rig.config(&[worker_cpu()]).pci("vm0", nic, &rig.path("s0"), &mac(0), VLAN).virtio_net(
        "vm1",
        &rig.path("s1"),
        "server",
        &mac(1),
        VLAN,
    );
    rig.daemon(&config)
}

fn address(vm: &mut Vm, index: usize) -> Result<()> {
    vm.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up", IPS[index])).map(|_| ())
}

/// Loads the card's driver, which must be the one and take the address that is configured.
fn load(vm: &mut Vm, driver: &str) -> Result<()> {
    vm.sh(&format!(
        "modprobe {driver} && for i in $(seq 100); do [ -e /sys/class/net/eth0 ] && break; sleep 0.1; done"
    ))?;
    let bound = vm.sh("ethtool -i eth0 | head -1")?;
    anyhow::ensure!(bound == format!("driver: {driver}"), "{bound}");
    let address = vm.sh("cat /sys/class/net/eth0/address")?;
    anyhow::ensure!(address == mac(0), "the card has {address}");
    self::address(vm, 0)
}

/// Every ping is answered, after one that may be lost while the other side comes up.
fn ping(vm: &mut Vm, to: &str, more: &str) -> Result<()> {
    let text = vm
        .sh(&format!("ping -c 1 -W 20 {to} >/dev/null; ping -c 5 -i 0.2 -W 20 {more} {to}"))
        .with_context(|| format!("{} pings {to}", vm.name()))?;
    anyhow::ensure!(text.contains("5 packets received"), "pings were lost: {text}");
    Ok(())
}

/// TCP in both directions, with whatever offloads the driver uses. How fast is a benchmark's question.
fn tcp(vms: &mut [Vm; 2]) -> Result<()> {
    let [first, second] = vms;
    second.sh("killall iperf3 2>/dev/null; iperf3 -s -D")?;
    for direction in ["", "-R"] {
        let text = first.sh(&format!("iperf3 -J -n 4M -c {} {direction}", IPS[1]))?;
        let result: serde_json::Value = serde_json::from_str(&text).context("iperf3 gave no JSON")?;
        let bytes = result["end"]["sum_received"]["bytes"].as_f64().context("iperf3 gave no count")?;
        anyhow::ensure!(bytes > 2e6, "of 4 MiB {bytes} bytes came ({direction:?})");
    }
    Ok(())
}

/// What the guest's kernel said that it should not have to say.
fn complaints(vm: &mut Vm, driver: &str) -> Result<()> {
    let words = "Hang|WARNING|BUG:|Oops|transmit timed out|failed|Error|error|invalid";
    let said =
        vm.sh(&format!("dmesg | grep -iE '{driver}|eth0|pci 0000|NETDEV' | grep -E '{words}' || true"))?;
    anyhow::ensure!(said.is_empty(), "{}: the kernel complains:\n{said}", vm.name());
    Ok(())
}

/// What `ethtool` changes, on a pair of VMs that must talk to each other after each of it.
fn settings(
    rig: &Rig,
    kernel: GuestKernel,
    nic: &str,
    driver: &str,
    mmap: bool,
    words: &[&str],
) -> Result<()> {
    let more = format!("{VLAN}\nmtu = 9000");
    let config = rig.config(&[worker_cpu()]).pci("vm0", nic, &rig.path("s0"), &mac(0), &more).virtio_net(
        "vm1",
        &rig.path("s1"),
        "server",
        &mac(1),
        &more,
    );
    let daemon = rig.daemon(&config)?;
    if mmap {
        let socket = rig.path("s0").display().to_string();
        daemon.fabnic(&["port", "set", "vm0", "vfio_user", &socket, "mmap", "on"])?;
    }
    let mut vms = boot(rig, kernel)?;
    address(&mut vms[1], 1)?;
    load(&mut vms[0], driver)?;
    tcp(&mut vms)?;
    for word in words {
        eprintln!("  {word}");
        let said = vms[0].sh(word)?;
        anyhow::ensure!(!said.contains("FAIL"), "{said}");
        // A driver may reset its card, and is not there for a moment.
        vms[0].sh(
            "for i in $(seq 100); do [ $(cat /sys/class/net/eth0/carrier) = 1 ] && break; sleep 0.1; done",
        )?;
        ping(&mut vms[0], IPS[1], "")?;
    }
    tcp(&mut vms)?;
    complaints(&mut vms[0], driver)?;
    let shown = daemon.ask(&["port", "show", "vm0"])?;
    anyhow::ensure!(shown["peer"]["pci"]["mmap"] == mmap, "{shown}");
    for vm in vms {
        vm.power_off()?;
    }
    Totals::settle(&daemon)?;
    daemon.stop()
}

/// What an administrator does to a card, on a pair of VMs that must talk to each other after each of it.
fn life(rig: &Rig, kernel: GuestKernel, nic: &str, driver: &str) -> Result<()> {
    let daemon = daemon(rig, nic)?;
    let mut vms = boot(rig, kernel)?;
    eprintln!("  kernel {}", vms[0].kernel_version());
    address(&mut vms[1], 1)?;
    load(&mut vms[0], driver)?;
    ping(&mut vms[0], IPS[1], "")?;
    ping(&mut vms[1], IPS[0], "-s 1400")?;
    tcp(&mut vms)?;
    let shown = daemon.ask(&["port", "show", "vm0"])?;
    let pci = &shown["peer"]["pci"];
    anyhow::ensure!(pci["bus_master"] == true && pci["faults"] == 0, "{shown}");

    eprintln!("  down and up");
    for _ in 0..5 {
        vms[0].sh("ip link set eth0 down; ip link set eth0 up")?;
    }
    ping(&mut vms[1], IPS[0], "")?;

    eprintln!("  link");
    daemon.fabnic(&["port", "set", "vm0", "state", "disable"])?;
    vms[0].sh("for i in $(seq 200); do [ $(cat /sys/class/net/eth0/carrier) = 0 ] && break; sleep 0.1; done; [ $(cat /sys/class/net/eth0/carrier) = 0 ]")
        .context("the guest never saw its link go")?;
    daemon.fabnic(&["port", "set", "vm0", "state", "auto"])?;
    vms[0].sh("for i in $(seq 200); do [ $(cat /sys/class/net/eth0/carrier) = 1 ] && break; sleep 0.1; done; [ $(cat /sys/class/net/eth0/carrier) = 1 ]")
        .context("the guest never saw its link come")?;
    ping(&mut vms[0], IPS[1], "")?;

    eprintln!("  module reload");
    vms[0].sh(&format!("rmmod {driver}"))?;
    load(&mut vms[0], driver)?;
    ping(&mut vms[0], IPS[1], "")?;
    tcp(&mut vms)?;
    complaints(&mut vms[0], driver)?;

    eprintln!("  reboot");
    for _ in 0..2 {
        vms[0].reboot()?;
        load(&mut vms[0], driver)?;
        ping(&mut vms[0], IPS[1], "")?;
    }
    tcp(&mut vms)?;
    complaints(&mut vms[0], driver)?;

    eprintln!("  another VM on the same port");
    let [mut first, second] = vms;
    first.qemu().kill();
    drop(first);
    let spec = VmSpec::new("again", kernel).with_nic(Nic::vfio_user(rig.path("s0")));
    let mut vms = [Vm::boot(rig.lab(), &spec, rig.dir())?, second];
    load(&mut vms[0], driver)?;
    ping(&mut vms[1], IPS[0], "")?;
    for vm in vms {
        vm.power_off()?;
    }
    Totals::settle(&daemon)?;
    daemon.stop()
}

#[test]
fn e1000_with_kernel_6_1() -> Result<()> {
    let Some(rig) = Rig::new("e1000, kernel 6.1")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux6_1, "e1000", "e1000")
}

#[test]
fn e1000_with_kernel_6_12() -> Result<()> {
    let Some(rig) = Rig::new("e1000, kernel 6.12")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux6_12, "e1000", "e1000")
}

#[test]
fn e1000_with_kernel_7() -> Result<()> {
    let Some(rig) = Rig::new("e1000, kernel 7.x")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux7, "e1000", "e1000")
}

#[test]
fn avf_with_kernel_6_1() -> Result<()> {
    let Some(rig) = Rig::new("avf, kernel 6.1")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux6_1, "avf", "iavf")
}

#[test]
fn avf_with_kernel_6_12() -> Result<()> {
    let Some(rig) = Rig::new("avf, kernel 6.12")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux6_12, "avf", "iavf")
}

#[test]
fn avf_with_kernel_7() -> Result<()> {
    let Some(rig) = Rig::new("avf, kernel 7.x")? else { return Ok(()) };
    life(&rig, GuestKernel::Linux7, "avf", "iavf")
}

const E1000_WORDS: &[&str] = &[
    "ethtool -t eth0 online",
    "ethtool -t eth0 offline",
    "ethtool -K eth0 tso off gso off tx off; ethtool -K eth0 rx off",
    "ethtool -K eth0 tx on sg on tso on gso on rx on",
    "ethtool -G eth0 rx 128 tx 512",
    "ip link set eth0 promisc on; ip link set eth0 promisc off",
    "ethtool -S eth0; ethtool -d eth0; ethtool -e eth0; true",
    "ethtool -r eth0",
];

#[test]
fn e1000_settings() -> Result<()> {
    let Some(rig) = Rig::new("e1000, ethtool")? else { return Ok(()) };
    settings(&rig, GuestKernel::Linux7, "e1000", "e1000", false, E1000_WORDS)
}

#[test]
fn e1000_with_mapped_doorbells() -> Result<()> {
    let Some(rig) = Rig::new("e1000, mapped doorbells")? else { return Ok(()) };
    settings(&rig, GuestKernel::Linux6_12, "e1000", "e1000", true, &E1000_WORDS[2..5])
}

const AVF_WORDS: &[&str] = &[
    "ethtool -L eth0 combined 1",
    "ethtool -G eth0 rx 256 tx 1024",
    "ethtool -K eth0 tso off gso off; ethtool -K eth0 tx off rx off",
    "ethtool -K eth0 tx on rx on sg on; ethtool -K eth0 tso on gso on",
    "ip link set eth0 mtu 4000; ip link set eth0 mtu 1500",
    "ip link set eth0 promisc on; ip link set eth0 promisc off",
    "ethtool -x eth0; ethtool -S eth0; ethtool -l eth0; ethtool -c eth0; true",
    "ethtool -C eth0 adaptive-rx off rx-usecs 50",
];

#[test]
fn avf_settings() -> Result<()> {
    let Some(rig) = Rig::new("avf, ethtool")? else { return Ok(()) };
    settings(&rig, GuestKernel::Linux7, "avf", "iavf", false, AVF_WORDS)
}

#[test]
fn avf_with_mapped_doorbells() -> Result<()> {
    let Some(rig) = Rig::new("avf, mapped doorbells")? else { return Ok(()) };
    settings(&rig, GuestKernel::Linux6_12, "avf", "iavf", true, &AVF_WORDS[..4])
}

/// QEMU does not connect again to a daemon that died, but a card can be plugged anew. Not one with MSI-X: QEMU 11.1.2
/// aborts when it is unplugged.
#[test]
fn a_card_is_plugged_anew_after_the_daemon_died() -> Result<()> {
    let Some(rig) = Rig::new("card plugged anew")? else { return Ok(()) };
    let mut daemon = daemon(&rig, "e1000")?;
    let mut nic = Nic::vfio_user(rig.path("s0"));
    nic.pluggable = true;
    let spec = |name: &str, nic: Nic| VmSpec::new(name, GuestKernel::Linux7).with_nic(nic);
    let mut first = Vm::start(rig.lab(), &spec("vm0", nic), rig.dir())?;
    let mut second = Vm::start(rig.lab(), &spec("vm1", Nic::new(rig.path("s1"), &mac(1))), rig.dir())?;
    first.wait_ready()?;
    second.wait_ready()?;
    address(&mut second, 1)?;
    load(&mut first, "e1000")?;
    ping(&mut first, IPS[1], "")?;
    daemon.kill_and_restart()?;
    first.unplug(0)?;
    first.sh("[ ! -e /sys/class/net/eth0 ]").context("the card is still there")?;
    first.plug(0)?;
    load(&mut first, "e1000")?;
    ping(&mut second, IPS[0], "")?;
    first.power_off()?;
    second.power_off()?;
    Totals::settle(&daemon)?;
    daemon.stop()
}
