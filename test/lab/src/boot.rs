//! What a VM boots from: a kernel that QEMU loads, or the network, by firmware and boot ROMs.
//!
//! ```text
//!   Kernel   QEMU ----------------------------------------------> Linux
//!   Rom      SeaBIOS --> the NIC's boot ROM (iPXE's driver) ----> what a server names
//!   Ipxe     QEMU --> iPXE with its own drivers ----------------> what its command says
//!   Uefi     OVMF --> the NIC's boot ROM (a UEFI driver) -------> what a server names
//! ```
//!
//! Whatever runs before Linux speaks to the first serial port. [`BootServer`] is the other side: DHCP, TFTP and HTTP.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::{Child, Lab, Launch, Namespace};

/// What a VM boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// The spec's kernel and initramfs, which QEMU loads.
    Kernel,
    /// Its first NIC, an e1000, whose boot ROM the BIOS calls.
    Rom,
    /// iPXE with all of its drivers, which QEMU loads, and which runs this command.
    Ipxe(String),
    /// Its first NIC, an e1000, whose boot ROM is a driver for UEFI firmware.
    Uefi,
}

impl Boot {
    /// The boot ROM of the first NIC, a file of the tree: those of iPXE for the e1000.
    pub(crate) fn rom(&self) -> Option<&'static str> {
        match self {
            Self::Kernel | Self::Ipxe(_) => None,
            Self::Rom => Some("/usr/share/qemu/pxe-e1000.rom"),
            Self::Uefi => Some("/usr/share/qemu/efi-e1000.rom"),
        }
    }

    /// QEMU's arguments for a boot that is not from a kernel. `variables` is where the firmware keeps what it remembers.
    pub(crate) fn prepare(&self, lab: &Lab, launch: &mut Launch, variables: &Path) -> Result<()> {
        match self {
            Self::Kernel | Self::Rom => {}
            Self::Ipxe(command) => {
                launch.args(["-kernel", "/usr/lib/ipxe/ipxe.lkrn", "-append"]).arg(command);
            }
            Self::Uefi => {
                let fresh = lab.tree().join("usr/share/OVMF/OVMF_VARS_4M.fd");
                std::fs::copy(fresh, variables).context("cannot copy the firmware's variables")?;
                for (unit, file) in [
                    ",readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd".to_owned(),
                    format!(",file={}", variables.display()),
                ]
                .iter()
                .enumerate()
                {
                    launch.arg("-drive").arg(format!("if=pflash,format=raw,unit={unit}{file}"));
                }
            }
        }
        Ok(())
    }
}

/// The address that a [`BootServer`] has, and that of the clients' network.
pub const BOOT_SERVER: &str = "198.18.0.254";

/// A host that boots others: it gives them addresses by DHCP, and files by TFTP and, at port 8080, by HTTP. Firmware is
/// sent to iPXE (`snponly.efi`), iPXE to a script (`boot.ipxe`).
#[derive(Debug)]
pub struct BootServer {
    dhcp: Child,
    http: Child,
}

impl BootServer {
    /// Serves the files of `dir` on `device`, an interface in `namespace`. Logs are beside that folder.
    ///
    /// # Errors
    /// If a server does not start.
    pub fn start(lab: &Lab, namespace: &Namespace, device: &str, dir: &Path) -> Result<Self> {
        namespace.ip(&["addr", "add", &format!("{BOOT_SERVER}/24"), "dev", device])?;
        namespace.ip(&["link", "set", device, "up"])?;
        std::fs::copy(lab.tree().join("usr/lib/ipxe/snponly.efi"), dir.join("snponly.efi"))
            .context("cannot copy iPXE to the served files")?;
        let log = dir.with_extension("dhcp.log");
        let mut launch = lab.program("dnsmasq");
        launch.args(["--no-daemon", "--conf-file=/dev/null", "--user=root", "--leasefile-ro", "--log-dhcp"]);
        launch.args(["--port=0", "--bind-dynamic", "--dhcp-range=198.18.0.10,198.18.0.99,1h"]);
        launch.args(["--enable-tftp", "--dhcp-userclass=set:ipxe,iPXE", "--dhcp-boot=tag:ipxe,boot.ipxe"]);
        launch.arg("--dhcp-boot=tag:!ipxe,snponly.efi");
        launch.arg(format!("--interface={device}")).arg(format!("--tftp-root={}", dir.display()));
        let mut dhcp = namespace.spawn(launch.log_to(&log))?;
        let mut launch = lab.program("busybox");
        launch.args(["httpd", "-f", "-v", "-p", &format!("{BOOT_SERVER}:8080"), "-h"]).arg(dir);
        let http = namespace.spawn(launch.log_to(dir.with_extension("http.log")))?;
        dhcp.wait_until("a server of files", Duration::from_secs(20), || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("TFTP root is"))
        })?;
        Ok(Self { dhcp, http })
    }

    /// What the servers said so far, for a test that fails.
    pub fn log_tail(&self) -> String {
        format!("{}{}", self.dhcp.log_tail(), self.http.log_tail())
    }
}
