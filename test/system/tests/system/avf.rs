//! What an administrator can change on an Adaptive Virtual Function while it runs, with the stock driver: after each of
//! it the guest still reaches its neighbour, and the kernel has nothing to say.

use anyhow::{Context as _, Result};
use fabnic_lab::{GuestKernel, Nic, Vm, VmSpec};
use fabnic_system::{Rig, Totals, mac, worker_cpu};

const IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
const VLAN: &str = "vlan = { access = 10 }";

fn ping(vm: &mut Vm, after: &str) -> Result<()> {
    let up = "for i in $(seq 200); do [ \"$(cat /sys/class/net/eth0/carrier 2>/dev/null)\" = 1 ] && break; sleep 0.1; done";
    let text = vm.sh(&format!("{up}; ping -c 1 -W 20 {0} >/dev/null; ping -c 3 -i 0.2 -W 20 {0}", IPS[1]))?;
    anyhow::ensure!(text.contains("3 packets received"), "after {after}: {text}");
    Ok(())
}

fn settings(rig: &Rig, kernel: GuestKernel) -> Result<()> {
    let more = format!("{VLAN}\nqueues = 4\ntrust = true");
    let config = rig.config(&[worker_cpu()]).pci("vm0", "avf", &rig.path("s0"), &mac(0), &more).virtio_net(
        "vm1",
        &rig.path("s1"),
        "server",
        &mac(1),
        VLAN,
    );
    let daemon = rig.daemon(&config)?;
    let mut spec = VmSpec::new("vm0", kernel).with_nic(Nic::vfio_user(rig.path("s0")));
    spec.cpus = 2;
    let mut guest = Vm::start(rig.lab(), &spec, rig.dir())?;
    let spec = VmSpec::new("vm1", kernel).with_nic(Nic::new(rig.path("s1"), &mac(1)));
    let mut other = Vm::start(rig.lab(), &spec, rig.dir())?;
    guest.wait_ready()?;
    other.wait_ready()?;
    other.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up; iperf3 -s -D", IPS[1]))?;
    guest
        .sh("modprobe iavf; for i in $(seq 100); do [ -e /sys/class/net/eth0 ] && break; sleep 0.1; done")?;
    guest.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up", IPS[0]))?;
    ping(&mut guest, "the start")?;

    for offload in ["tx", "tso", "gso", "rx", "rxhash", "sg", "rxvlan", "txvlan"] {
        for state in ["off", "on"] {
            guest.sh(&format!("ethtool -K eth0 {offload} {state} || true"))?;
            ping(&mut guest, &format!("{offload} {state}"))?;
            if matches!(offload, "tx" | "tso" | "rx" | "sg") {
                let sent = format!(
                    "iperf3 -n 500K -c {0} >/dev/null && iperf3 -R -n 500K -c {0} >/dev/null",
                    IPS[1]
                );
                guest.sh(&sent).with_context(|| format!("TCP after {offload} {state}"))?;
            }
        }
    }
    for change in [
        "ethtool -G eth0 rx 128 tx 256",
        "ethtool -L eth0 combined 1",
        "ethtool -L eth0 combined 2",
        "ethtool -C eth0 adaptive-rx off rx-usecs 20",
        "ethtool -C eth0 rx-usecs 0",
        "ethtool -C eth0 adaptive-rx on",
        "ethtool -X eth0 equal 1",
        "ethtool -X eth0 default",
        "ip link set eth0 mtu 1400",
        "ip link set eth0 mtu 1500",
        "ip link set eth0 promisc on",
        "ip link set eth0 promisc off",
    ] {
        // Debian's 6.1 waits for its own reset with a lock held that the reset needs, and says "busy" after 5 s; the
        // change is made all the same.
        let is_busy = matches!(kernel, GuestKernel::Linux6_1);
        // A newer driver takes ethtool's "leave the transformation alone" for one that needs advanced RSS.
        let forgive = if is_busy || change.starts_with("ethtool -X") { " || true" } else { "" };
        guest.sh(&format!("{change}{forgive}")).with_context(|| change.to_owned())?;
        ping(&mut guest, change)?;
    }
    guest.sh("ping -f -q -w 3 198.18.0.2 >/dev/null & for i in 1 2 3; do echo 1 > /sys/class/net/eth0/device/reset; sleep 1; done; wait")
        .context("function-level resets under load")?;
    ping(&mut guest, "function-level resets")?;
    guest.sh("for i in $(seq 30); do ip link set eth0 down; ip link set eth0 up; done")?;
    ping(&mut guest, "30 times down and up")?;
    let words = "Hang|WARNING|BUG:|Oops|transmit timed out|failed|Never saw|never finished|invalid";
    let said = guest.sh(&format!("dmesg | grep -iE 'iavf|eth0|NETDEV' | grep -E '{words}' || true"))?;
    anyhow::ensure!(said.is_empty(), "the kernel complains:\n{said}");
    guest.power_off()?;
    other.power_off()?;
    Totals::settle(&daemon)?;
    daemon.stop()
}

#[test]
fn settings_with_kernel_6_1() -> Result<()> {
    let Some(rig) = Rig::new("avf settings, kernel 6.1")? else { return Ok(()) };
    settings(&rig, GuestKernel::Linux6_1)
}

#[test]
fn settings_with_kernel_7() -> Result<()> {
    let Some(rig) = Rig::new("avf settings, kernel 7.x")? else { return Ok(()) };
    settings(&rig, GuestKernel::Linux7)
}
