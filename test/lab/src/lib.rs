//! Real VMs, guest kernels and peer switches on one machine.
//!
//! Debian 12 has a QEMU, a DPDK and an Open vSwitch that are too old for what Fabnic is tested against, and a
//! test machine has no guest images at all. A [`Lab`] is a folder that has them: a Debian *forky* tree (QEMU,
//! boot ROMs and firmware, DPDK, Open vSwitch, iperf3, ethtool), and for each kernel of [`GuestKernel`] a kernel image and an initramfs
//! whose init listens for commands on a serial line.
//!
//! ```text
//!   /var/cache/fabnic-lab            ($FABNIC_LAB)
//!     tree/                          forky, made by mmdebstrap
//!     guest/6.1/{vmlinuz,initrd,networking}     bookworm
//!     guest/6.12/{vmlinuz,initrd,networking}    trixie
//!     guest/7.x/{vmlinuz,initrd,networking,dpdk}  forky
//! ```
//!
//! [`Lab::ensure`] makes what is missing, from nothing but root and the machine's own apt sources, and is free
//! when nothing is missing. [`Lab::open`] only looks. Everything is built beside its place and renamed into it,
//! so an interrupted run leaves no half lab behind.
//!
//! Programs of the tree run in a `chroot` inside a mount namespace of their own, in which the machine's `/tmp`,
//! `/run`, `/dev`, `/proc` and `/sys` are bound over the tree's: a socket below `/tmp` has the same path on both
//! sides, and nothing stays mounted. Every child is killed with the thread that started it, whatever ends that
//! thread, and what a child cannot undo by dying (huge pages, network namespaces) a [`Janitor`] undoes.

mod boot;
mod cpio;
mod daemon;
mod guest;
mod hugepages;
mod janitor;
mod kernel;
mod mirror;
mod netns;
mod process;
mod progress;
mod shell;
mod tree;
mod vm;
mod workdir;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

pub use crate::{
    boot::{BOOT_SERVER, Boot, BootServer},
    daemon::{Daemon, DaemonConfig},
    hugepages::HugePages,
    janitor::Janitor,
    kernel::GuestKernel,
    netns::Namespace,
    process::{Child, Launch, output, which},
    progress::{Progress, Step},
    shell::{GuestShell, Reply},
    vm::{Accel, Nic, Transport, Vm, VmSpec, command_line},
    workdir::WorkDir,
};

/// The folder with everything that real-VM tests, the demo and the peers benchmark need.
#[derive(Clone, Debug)]
pub struct Lab {
    root: PathBuf,
}

impl Lab {
    /// Where the lab lives: `$FABNIC_LAB`, or `/var/cache/fabnic-lab`.
    pub fn default_root() -> PathBuf {
        std::env::var_os("FABNIC_LAB").map_or_else(|| PathBuf::from("/var/cache/fabnic-lab"), PathBuf::from)
    }

    /// Opens the lab that is there.
    ///
    /// # Errors
    /// Says what is missing if the lab was never made, is of an older recipe, or this process is not root.
    pub fn open() -> Result<Self> {
        let lab = Self { root: Self::default_root() };
        if !rustix::process::geteuid().is_root() {
            bail!("the lab needs root (it uses chroot and mount namespaces)");
        }
        let missing = lab.missing();
        if !missing.is_empty() {
            bail!(
                "the lab at {} lacks: {}; `cargo xtask lab` makes it",
                lab.root.display(),
                missing.join(", ")
            );
        }
        Ok(lab)
    }

    /// Opens the lab, after making whatever is missing. Several processes may call this at once.
    ///
    /// # Errors
    /// If this process is not root, or apt cannot install or download what is needed.
    pub fn ensure(progress: &Progress) -> Result<Self> {
        let lab = Self { root: Self::default_root() };
        if !rustix::process::geteuid().is_root() {
            bail!("setting up the lab needs root (apt-get, mmdebstrap, chroot)");
        }
        if lab.missing().is_empty() {
            return Ok(lab);
        }
        std::fs::create_dir_all(&lab.root)
            .with_context(|| format!("cannot create the lab folder {}", lab.root.display()))?;
        let lock =
            std::fs::File::create(lab.root.join(".lock")).context("cannot create the lab's lock file")?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .context("cannot lock the lab folder")?;
        let mirror = mirror::Mirror::detect(progress)?;
        tree::ensure(&lab, &mirror, progress)?;
        kernel::ensure(&lab, &mirror, progress)?;
        guest::ensure(&lab, progress)?;
        Self::open()
    }

    /// The names of the parts that are not there yet.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !tree::is_ready(self) {
            missing.push("the forky tree".to_owned());
        }
        for kernel in GuestKernel::ALL {
            if !kernel::is_ready(self, kernel) {
                missing.push(format!("kernel {}", kernel.name()));
            } else if !guest::is_ready(self, kernel) {
                missing.push(format!("the initramfs of kernel {}", kernel.name()));
            }
        }
        missing
    }

    /// The lab's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The forky tree.
    pub fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    /// The exact version of a guest kernel, such as `6.1.0-50-amd64`.
    ///
    /// # Errors
    /// If that kernel is not in the lab.
    pub fn kernel_version(&self, kernel: GuestKernel) -> Result<String> {
        kernel::version(self, kernel)
    }

    /// The folder of a guest kernel: `vmlinuz`, `initrd`, `root/` with its modules.
    pub fn guest_dir(&self, kernel: GuestKernel) -> PathBuf {
        self.root.join("guest").join(kernel.name())
    }

    /// A program of the tree, ready to be given arguments.
    pub fn program(&self, program: &str) -> Launch {
        Launch::in_tree(self, program)
    }

    /// The version lines of what is in the lab, for `cargo xtask lab --show`.
    ///
    /// # Errors
    /// If a program of the tree does not start.
    pub fn versions(&self) -> Result<Vec<(String, String)>> {
        let mut versions = Vec::new();
        let script = "qemu-system-x86_64 --version | head -1; dpdk-testpmd -v 2>&1 | grep -i version | head -1; \
                      /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk --version | head -1; \
                      iperf3 --version | head -1";
        let text = output(self.program("/bin/sh").arg("-c").arg(script))?;
        for (name, line) in ["QEMU", "DPDK", "Open vSwitch", "iperf3"].into_iter().zip(text.lines()) {
            versions.push((name.to_owned(), line.trim().to_owned()));
        }
        for kernel in GuestKernel::ALL {
            versions.push((format!("guest kernel {}", kernel.name()), self.kernel_version(kernel)?));
        }
        Ok(versions)
    }
}
