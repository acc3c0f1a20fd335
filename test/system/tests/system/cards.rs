//! PCI cards that are plugged and unplugged.

use anyhow::{Context as _, Result};
use fabnic_lab::{GuestKernel, Nic, VmSpec};
use fabnic_system::{Rig, mac, worker_cpu};

use crate::guest::{self, address, end, load, ping};

const IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
const VLAN: &str = "vlan = { access = 10 }";

/// QEMU does not connect again to a daemon that died, but a card can be plugged anew. Not one with MSI-X: QEMU 11.1.2
/// aborts when it is unplugged.
#[test]
fn a_card_is_plugged_anew_after_the_daemon_died() -> Result<()> {
    let Some(rig) = Rig::new("card plugged anew")? else { return Ok(()) };
    let config = rig.config(&[worker_cpu()]).pci("vm0", "e1000", &rig.path("s0"), &mac(0), VLAN).virtio_net(
        "vm1",
        &rig.path("s1"),
        "server",
        &mac(1),
        VLAN,
    );
    let mut daemon = rig.daemon(&config)?;
    let mut nic = Nic::vfio_user(rig.path("s0"));
    nic.pluggable = true;
    let spec = |name: &str, nic: Nic| VmSpec::new(name, GuestKernel::Linux7).with_nic(nic);
    let second = spec("vm1", Nic::new(rig.path("s1"), &mac(1)));
    let [mut first, mut second] = guest::boot(&rig, &[spec("vm0", nic), second])?;
    address(&mut second, "eth0", IPS[1])?;
    load(&mut first, "e1000", "eth0", &mac(0))?;
    address(&mut first, "eth0", IPS[0])?;
    ping(&mut first, IPS[1], "")?;
    daemon.kill_and_restart()?;
    first.unplug(0)?;
    first.sh("[ ! -e /sys/class/net/eth0 ]").context("the card is still there")?;
    first.plug(0)?;
    load(&mut first, "e1000", "eth0", &mac(0))?;
    address(&mut first, "eth0", IPS[0])?;
    ping(&mut second, IPS[0], "")?;
    end(daemon, [first, second])
}
