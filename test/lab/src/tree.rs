//! The forky tree: a QEMU with vfio-user, a current DPDK and Open vSwitch, and the tools that go into guests.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{Lab, Launch, Progress, mirror::Mirror};

/// What is installed on top of apt's minimal base. Changing this list rebuilds the tree.
const PACKAGES: &str = "qemu-system-x86,dpdk,dpdk-dev,openvswitch-switch-dpdk,iperf3,ethtool,tcpdump,ipxe,ipxe-qemu,\
                        socat,busybox-static,kmod,cpio,xz-utils,zstd,iproute2,iputils-ping,ovmf,dnsmasq-base";
const STAMP: &str = "etc/fabnic-lab-packages";

pub(crate) fn is_ready(lab: &Lab) -> bool {
    std::fs::read_to_string(lab.tree().join(STAMP)).is_ok_and(|stamp| stamp.trim() == PACKAGES)
}

/// Makes the tree if it is not there: one to five minutes, 680 MB.
pub(crate) fn ensure(lab: &Lab, mirror: &Mirror, progress: &Progress) -> Result<()> {
    if is_ready(lab) {
        return Ok(());
    }
    let step = progress.step("make the forky tree (QEMU, DPDK, Open vSwitch, iPXE, OVMF)");
    let partial = lab.root().join("tree.partial");
    remove_dir(&partial)?;
    remove_dir(&lab.tree())?;
    Launch::on_host("mmdebstrap")
        .args(["--mode=root", "--variant=minbase", "--aptopt=Acquire::Check-Valid-Until \"false\""])
        .arg(format!("--include={PACKAGES}"))
        .arg("forky")
        .arg(&partial)
        .arg(mirror.source_line("forky"))
        .run_in_step(&step)?;
    std::fs::write(partial.join(STAMP), PACKAGES).context("cannot stamp the tree")?;
    std::fs::rename(&partial, lab.tree()).context("cannot move the tree into its place")?;
    step.done("");
    Ok(())
}

pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
