//! Machines without a disk, which boot over the network through the switch from a host behind the uplink: DHCP, TFTP and
//! HTTP by the drivers of firmware and boot loaders, which are no kin of Linux's.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use fabnic_lab::{
    BOOT_SERVER, Boot, BootServer, Daemon, GuestKernel, Namespace, Nic, Vm, VmSpec, command_line,
};
use fabnic_system::{Rig, Totals, mac, worker_cpu};

use crate::guest::{address, ip, load, ping};

/// The smallest of the kernels: what is booted counts little here, how it comes much.
const KERNEL: GuestKernel = GuestKernel::Linux6_1;
const VLAN: &str = "vlan = { access = 10 }";

/// A host with a TAP uplink, the daemon, and what it serves.
struct House {
    daemon: Daemon,
    server: BootServer,
    host: Namespace,
}

/// A daemon with one card of each of these kinds, and a host behind its uplink whose script loads a kernel, its initramfs
/// and the next machine's driver by HTTP.
fn house(rig: &Rig, nics: &[&str]) -> Result<House> {
    let dir = rig.path("www");
    std::fs::create_dir_all(&dir)?;
    let guest = rig.lab().guest_dir(KERNEL);
    std::fs::copy(guest.join("vmlinuz"), dir.join("vmlinuz"))?;
    compress(&guest.join("initrd"), &dir.join("initrd"))?;
    let url = format!("http://{BOOT_SERVER}:8080");
    let script = format!(
        "#!ipxe\necho driven by ${{net0/chip}} ${{net0/mac}}\niseq ${{platform}} efi && goto firmware ||\n\
         kernel {url}/vmlinuz {line}\ninitrd {url}/initrd\nboot\n\
         :firmware\nimgfetch {url}/snponly.efi\nimgstat\necho all is here\npoweroff\n",
        line = command_line("booted")
    );
    std::fs::write(dir.join("boot.ipxe"), script)?;
    let host = Namespace::create("boot")?;
    let mut config = rig.config(&[worker_cpu()]).tap("up", "tap0", VLAN);
    for (index, nic) in nics.iter().enumerate() {
        config = config.pci(nic, nic, &rig.path(nic), &mac(index), VLAN);
    }
    let daemon = rig.daemon_in(&host, &config)?;
    let server = BootServer::start(rig.lab(), &host, "tap0", &dir)?;
    Ok(House { daemon, server, host })
}

/// Sending takes longer than unpacking.
fn compress(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (std::fs::File::open(from)?, std::fs::File::create(to)?);
    let status = Command::new("gzip").args(["-1", "-c"]).stdin(from).stdout(to).status()?;
    anyhow::ensure!(status.success(), "gzip failed");
    Ok(())
}

fn start(rig: &Rig, nic: &str, boot: Boot) -> Result<Vm> {
    let mut spec = VmSpec::new(&format!("{nic}-vm"), KERNEL).with_nic(Nic::vfio_user(rig.path(nic)));
    spec.boot = boot;
    Vm::start(rig.lab(), &spec, rig.dir())
}

/// The card that brought the kernel, in the state in which the boot loader left it, is Linux's now.
fn goes_on(vm: &mut Vm, driver: &str, index: usize) -> Result<()> {
    vm.wait_ready()?;
    load(vm, driver, "eth0", &mac(index))?;
    address(vm, "eth0", &ip(index, 0))?;
    ping(vm, BOOT_SERVER, "")
}

#[test]
fn linux_boots_by_ipxe_with_both_cards() -> Result<()> {
    let Some(rig) = Rig::new("network boot by iPXE")? else { return Ok(()) };
    let House { daemon, server, host } = house(&rig, &["e1000", "avf"])?;
    let mut first = start(&rig, "e1000", Boot::Rom)?;
    let mut second =
        start(&rig, "avf", Boot::Ipxe("dhcp && chain tftp://${next-server}/${filename}".to_owned()))?;
    for (index, (vm, chip, driver)) in
        [(&mut first, "82540em", "e1000"), (&mut second, "iavf", "iavf")].into_iter().enumerate()
    {
        vm.wait_console(&format!("driven by {chip}"))
            .and_then(|()| goes_on(vm, driver, index))
            .with_context(|| format!("the servers said:\n{}", server.log_tail()))?;
    }
    first.power_off()?;
    second.power_off()?;
    Totals::settle(&daemon)?;
    daemon.stop()?;
    drop(host);
    Ok(())
}

#[test]
fn uefi_firmware_boots_with_an_e1000() -> Result<()> {
    let Some(rig) = Rig::new("network boot by UEFI")? else { return Ok(()) };
    let House { daemon, server, host } = house(&rig, &["e1000"])?;
    let mut vm = start(&rig, "e1000", Boot::Uefi)?;
    // First the firmware's own PXE client by the ROM's driver, then iPXE by what the firmware offers (SNP).
    for words in ["PXE over IPv4", "NBP file downloaded successfully", "driven by SNP", "all is here"] {
        vm.wait_console(words).with_context(|| format!("the servers said:\n{}", server.log_tail()))?;
    }
    let status = vm.qemu().wait_exit(std::time::Duration::from_secs(60))?;
    anyhow::ensure!(status.success(), "QEMU ended badly: {status}");
    Totals::settle(&daemon)?;
    daemon.stop()?;
    drop(host);
    Ok(())
}
