//! What tests do with Linux guests: boot two of them, bring interfaces up, ping, move TCP, and read what the kernel complains about.

use anyhow::{Context as _, Result, ensure};
use fabnic_lab::{Daemon, Vm, VmSpec};
use fabnic_system::{Rig, Totals};

/// The address of a VM on one of its links, each of which is a network of its own.
pub(crate) fn ip(vm: usize, link: usize) -> String {
    format!("198.18.{link}.{}", vm + 1)
}

/// Boots two VMs at the same time.
pub(crate) fn boot(rig: &Rig, specs: &[VmSpec; 2]) -> Result<[Vm; 2]> {
    let mut first = Vm::start(rig.lab(), &specs[0], rig.dir())?;
    let mut second = Vm::start(rig.lab(), &specs[1], rig.dir())?;
    first.wait_ready()?;
    second.wait_ready()?;
    Ok([first, second])
}

/// Ends both VMs, and the daemon when its counters add up.
pub(crate) fn end(daemon: Daemon, vms: [Vm; 2]) -> Result<()> {
    for vm in vms {
        vm.power_off()?;
    }
    Totals::settle(&daemon)?;
    daemon.stop()
}

/// Gives an interface its address and brings it up.
pub(crate) fn address(vm: &mut Vm, device: &str, ip: &str) -> Result<()> {
    vm.sh(&format!("ip addr add {ip}/24 dev {device}; ip link set {device} up")).map(|_| ())
}

/// Loads a card's driver. The interface that appears must be bound by it and have the MAC address that the port is
/// configured with.
pub(crate) fn load(vm: &mut Vm, driver: &str, device: &str, mac: &str) -> Result<()> {
    vm.sh(&format!(
        "modprobe {driver} && for i in $(seq 100); do [ -e /sys/class/net/{device} ] && break; sleep 0.1; done"
    ))?;
    let bound = vm.sh(&format!("ethtool -i {device} | head -1"))?;
    ensure!(bound == format!("driver: {driver}"), "{device}: {bound}, expected {driver}");
    let address = vm.sh(&format!("cat /sys/class/net/{device}/address"))?;
    ensure!(address == mac, "{device} has {address}, expected {mac}");
    Ok(())
}

/// Waits until the interface has a link, or has none.
pub(crate) fn wait_for_carrier(vm: &mut Vm, device: &str, carrier: bool) -> Result<()> {
    let wanted = u8::from(carrier);
    let is = format!("[ \"$(cat /sys/class/net/{device}/carrier 2>/dev/null)\" = {wanted} ]");
    vm.sh(&format!("for i in $(seq 200); do {is} && break; sleep 0.1; done; {is}"))
        .map(|_| ())
        .with_context(|| format!("the link of {device} was to become {wanted}"))
}

/// Every ping is answered, after one that may be lost while the other side comes up. `more` are more options of `ping`.
pub(crate) fn ping(vm: &mut Vm, to: &str, more: &str) -> Result<()> {
    let text = vm
        .sh(&format!("ping -c 1 -W 20 {to} >/dev/null; ping -c 5 -i 0.2 -W 20 {more} {to}"))
        .with_context(|| format!("{} pings {to}", vm.name()))?;
    ensure!(text.contains("5 packets received"), "pings were lost: {text}");
    Ok(())
}

/// Serves [`transfer`].
pub(crate) fn serve(vm: &mut Vm) -> Result<()> {
    vm.sh("killall iperf3 2>/dev/null; iperf3 -s -D").map(|_| ())
}

/// Moves `megabytes` of TCP to an iperf3 server and as many from it, with whatever offloads the driver uses. How fast is
/// a benchmark's question.
pub(crate) fn transfer(vm: &mut Vm, to: &str, megabytes: u32) -> Result<()> {
    for direction in ["", "-R"] {
        let text = vm
            .sh(&format!("iperf3 -J -n {megabytes}M -c {to} {direction}"))
            .with_context(|| format!("TCP of {} with {to} {direction}", vm.name()))?;
        let result: serde_json::Value = serde_json::from_str(&text).context("iperf3 gave no JSON")?;
        let bytes = result["end"]["sum_received"]["bytes"].as_f64().context("iperf3 gave no count")?;
        ensure!(
            bytes > f64::from(megabytes) * 0.5e6,
            "of {megabytes} MiB {bytes} bytes came ({direction:?})"
        );
    }
    Ok(())
}

/// Fails if the guest's kernel said of its network devices what it should not have to say.
pub(crate) fn complaints(vm: &mut Vm) -> Result<()> {
    let words =
        "Hang|WARNING|BUG:|Oops|transmit timed out|failed|Error|error|invalid|Never saw|never finished";
    let about = "iavf|e1000|virtio_net|eth[0-9]|pci 0000|NETDEV";
    let said = vm.sh(&format!("dmesg | grep -iE '{about}' | grep -E '{words}' || true"))?;
    ensure!(said.is_empty(), "{}: the kernel complains:\n{said}", vm.name());
    Ok(())
}
