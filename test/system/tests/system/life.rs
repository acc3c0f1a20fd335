//! Unmodified Linux guests, of three kernels, with every kind of NIC, through what their administrators do to them.
//!
//! ```text
//!   vm0 (the kernel's own drivers)          the daemon          vm1
//!     eth0 virtio_net, split, 2 queues  ----- VLAN 10 -----  eth0 virtio_net, packed, 2 queues
//!     eth1 iavf                         ----- VLAN 11 -----  eth1 virtio_net
//!     eth2 e1000                        ----- VLAN 12 -----  eth2 virtio_net
//! ```
//!
//! After each change the two reach each other over every link. One pair of VMs has all kinds, since booting is what takes
//! the time.

use anyhow::{Context as _, Result, ensure};
use fabnic_lab::{Daemon, GuestKernel, Nic, Vm, VmSpec};
use fabnic_system::{Rig, mac, worker_cpu};

use crate::guest::{self, address, complaints, end, ip, load, ping, serve, transfer, wait_for_carrier};

/// A NIC of vm0, by its place.
struct Link {
    /// As the port's configuration names it.
    nic: &'static str,
    driver: &'static str,
    device: &'static str,
    /// What `ethtool` and `ip` change on it.
    settings: &'static [&'static str],
}

const LINKS: [Link; 3] = [
    Link {
        nic: "virtio-net",
        driver: "virtio_net",
        device: "eth0",
        settings: &[
            "ethtool -L eth0 combined 1",
            "ethtool -L eth0 combined 2",
            "ethtool -K eth0 tx off; ethtool -K eth0 tx on tso on",
        ],
    },
    Link {
        nic: "avf",
        driver: "iavf",
        device: "eth1",
        settings: &[
            "ethtool -L eth1 combined 1",
            "ethtool -G eth1 rx 256 tx 1024",
            "ethtool -K eth1 tso off gso off; ethtool -K eth1 tx off rx off",
            "ethtool -K eth1 tx on rx on sg on; ethtool -K eth1 tso on gso on",
            "ip link set eth1 promisc on; ip link set eth1 promisc off",
            "ethtool -x eth1; ethtool -S eth1; ethtool -l eth1; ethtool -c eth1; true",
        ],
    },
    Link {
        nic: "e1000",
        driver: "e1000",
        device: "eth2",
        settings: &[
            "ethtool -t eth2 online",
            "ethtool -t eth2 offline",
            "ethtool -K eth2 tso off gso off tx off; ethtool -K eth2 rx off",
            "ethtool -K eth2 tx on sg on tso on gso on rx on",
            "ethtool -G eth2 rx 128 tx 512",
            "ip link set eth2 promisc on; ip link set eth2 promisc off",
            "ethtool -S eth2; ethtool -d eth2; ethtool -e eth2; true",
            "ethtool -r eth2",
        ],
    },
];

/// Queue pairs of the virtio link.
const QUEUES: u16 = 2;

fn mac_of(vm: usize, link: usize) -> String {
    mac(vm * LINKS.len() + link)
}

fn port(vm: usize, link: usize) -> String {
    format!("vm{vm}-{link}")
}

/// The daemon with all six ports. With `mmap`, the cards' doorbells are mapped into the VM.
fn daemon(rig: &Rig, mmap: bool) -> Result<Daemon> {
    let mut config = rig.config(&[worker_cpu()]);
    for vm in 0..2 {
        for (at, link) in LINKS.iter().enumerate() {
            let (name, mac) = (port(vm, at), mac_of(vm, at));
            let more = format!("vlan = {{ access = {} }}\nmtu = 9000", 10 + at);
            let socket = rig.path(&name);
            config = match (vm, at) {
                (_, 0) => {
                    let more = format!("{more}\nqueues = {QUEUES}");
                    config.virtio_net(&name, &socket, "server", &mac, &more)
                }
                (0, _) => config.pci(&name, link.nic, &socket, &mac, &more),
                _ => config.virtio_net(&name, &socket, "server", &mac, &more),
            };
        }
    }
    let daemon = rig.daemon(&config)?;
    for (at, link) in LINKS.iter().enumerate() {
        if mmap && link.driver != "virtio_net" {
            let (name, socket) = (port(0, at), rig.path(&port(0, at)).display().to_string());
            daemon.fabnic(&["port", "set", &name, "vfio_user", &socket, "mmap", "on"])?;
        }
    }
    Ok(daemon)
}

fn spec(rig: &Rig, vm: usize, kernel: GuestKernel) -> VmSpec {
    let mut spec = VmSpec::new(&format!("vm{vm}"), kernel);
    spec.cpus = QUEUES;
    spec.memory_mib = 384;
    for (at, link) in LINKS.iter().enumerate() {
        let socket = rig.path(&port(vm, at));
        spec = spec.with_nic(if vm == 0 && link.driver != "virtio_net" {
            Nic::vfio_user(socket)
        } else {
            let mut nic = Nic::new(socket, &mac_of(vm, at));
            nic.queues = if at == 0 { QUEUES } else { 1 };
            nic.packed = vm == 1 && at == 0;
            nic
        });
    }
    spec
}

/// Loads what is not loaded and brings all interfaces up.
fn come_up(vm: &mut Vm, index: usize) -> Result<()> {
    for (at, link) in LINKS.iter().enumerate() {
        let driver = if index == 0 { link.driver } else { "virtio_net" };
        load(vm, driver, link.device, &mac_of(index, at))?;
        address(vm, link.device, &ip(index, at))?;
    }
    Ok(())
}

fn boot(rig: &Rig, kernel: GuestKernel) -> Result<[Vm; 2]> {
    let mut vms = guest::boot(rig, &[spec(rig, 0, kernel), spec(rig, 1, kernel)])?;
    for (index, vm) in vms.iter_mut().enumerate() {
        come_up(vm, index)?;
    }
    serve(&mut vms[1])?;
    eprintln!("  kernel {}", vms[0].kernel_version());
    Ok(vms)
}

/// Pings over every link; `from` is the VM that asks.
fn all_ping(vms: &mut [Vm; 2], from: usize, more: &str) -> Result<()> {
    for (at, link) in LINKS.iter().enumerate() {
        ping(&mut vms[from], &ip(1 - from, at), more).with_context(|| link.nic.to_owned())?;
    }
    Ok(())
}

/// TCP both ways over every link.
fn all_transfer(vms: &mut [Vm; 2]) -> Result<()> {
    for (at, link) in LINKS.iter().enumerate() {
        transfer(&mut vms[0], &ip(1, at), 4).with_context(|| link.nic.to_owned())?;
    }
    Ok(())
}

/// What an administrator changes with `ethtool` and `ip` while it runs.
fn settings(vms: &mut [Vm; 2]) -> Result<()> {
    for (at, link) in LINKS.iter().enumerate() {
        for setting in link.settings {
            eprintln!("  {setting}");
            let said = vms[0].sh(setting)?;
            ensure!(!said.contains("FAIL"), "{said}");
            // A driver may reset its card, and is not there for a moment.
            wait_for_carrier(&mut vms[0], link.device, true)?;
            ping(&mut vms[0], &ip(1, at), "").with_context(|| format!("after {setting}"))?;
        }
    }
    eprintln!("  MTU");
    for (mtu, size) in [(9000, "-s 8900"), (1500, "")] {
        for (at, link) in LINKS.iter().enumerate() {
            for vm in vms.iter_mut() {
                vm.sh(&format!("ip link set {} mtu {mtu}", link.device))?;
            }
            wait_for_carrier(&mut vms[0], link.device, true)?;
            ping(&mut vms[0], &ip(1, at), size).with_context(|| format!("{}, MTU {mtu}", link.nic))?;
        }
        all_transfer(vms)?;
    }
    vms.iter_mut().try_for_each(complaints)
}

fn life(rig: &Rig, kernel: GuestKernel) -> Result<()> {
    let daemon = daemon(rig, false)?;
    let mut vms = boot(rig, kernel)?;
    all_ping(&mut vms, 0, "")?;
    all_ping(&mut vms, 1, "-s 1400")?;
    all_transfer(&mut vms)?;
    let features = vms[0].sh("ethtool -k eth0")?;
    ensure!(features.contains("tcp-segmentation-offload: on"), "no TSO was negotiated:\n{features}");
    for (at, _) in LINKS.iter().enumerate().skip(1) {
        let shown = daemon.ask(&["port", "show", &port(0, at)])?;
        let pci = &shown["peer"]["pci"];
        ensure!(pci["bus_master"] == true && pci["faults"] == 0, "{shown}");
    }

    eprintln!("  down and up");
    for link in &LINKS {
        vms[0].sh(&format!(
            "for i in $(seq 5); do ip link set {0} down; ip link set {0} up; done",
            link.device
        ))?;
    }
    all_ping(&mut vms, 1, "")?;

    eprintln!("  link");
    for (state, carrier) in [("disable", false), ("auto", true)] {
        for at in 0..LINKS.len() {
            daemon.fabnic(&["port", "set", &port(0, at), "state", state])?;
        }
        // QEMU does not ask a vhost-user back end for the link, and shows virtio's as always up.
        for link in &LINKS[1..] {
            wait_for_carrier(&mut vms[0], link.device, carrier)?;
        }
    }
    all_ping(&mut vms, 0, "")?;

    eprintln!("  module reload");
    for link in &LINKS {
        vms[0].sh(&format!("rmmod {}", link.driver))?;
    }
    come_up(&mut vms[0], 0)?;
    all_ping(&mut vms, 0, "")?;
    vms[1].sh("rmmod virtio_net")?;
    come_up(&mut vms[1], 1)?;
    serve(&mut vms[1])?;
    all_ping(&mut vms, 1, "")?;
    all_transfer(&mut vms)?;
    vms.iter_mut().try_for_each(complaints)?;

    eprintln!("  reboot");
    for index in [0, 1, 0] {
        vms[index].reboot().with_context(|| format!("reboot of vm{index}"))?;
        come_up(&mut vms[index], index)?;
        all_ping(&mut vms, 1 - index, "")?;
    }
    serve(&mut vms[1])?;
    all_transfer(&mut vms)?;
    vms.iter_mut().try_for_each(complaints)?;

    eprintln!("  another VM on the same ports");
    let [mut first, second] = vms;
    first.qemu().kill();
    drop(first);
    let mut again = spec(rig, 0, kernel);
    again.name = "again".to_owned();
    let mut vms = [Vm::boot(rig.lab(), &again, rig.dir())?, second];
    come_up(&mut vms[0], 0)?;
    all_ping(&mut vms, 1, "")?;
    end(daemon, vms)
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
fn every_setting_with_kernel_7() -> Result<()> {
    let Some(rig) = Rig::new("settings, kernel 7.x")? else { return Ok(()) };
    let daemon = daemon(&rig, false)?;
    let mut vms = boot(&rig, GuestKernel::Linux7)?;
    settings(&mut vms)?;
    end(daemon, vms)
}

#[test]
fn every_setting_with_mapped_doorbells() -> Result<()> {
    let Some(rig) = Rig::new("settings, mapped doorbells")? else { return Ok(()) };
    let daemon = daemon(&rig, true)?;
    let mut vms = boot(&rig, GuestKernel::Linux6_12)?;
    settings(&mut vms)?;
    for at in 1..LINKS.len() {
        let shown = daemon.ask(&["port", "show", &port(0, at)])?;
        ensure!(shown["peer"]["pci"]["mmap"] == true, "{shown}");
    }
    end(daemon, vms)
}
