//! The guests' initramfs: busybox, iperf3, ethtool, ip, the network modules of one kernel, and our init. Beside it, what
//! only a few guests need and get in addition: `bridge`, `tc`, and the modules behind them.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{GuestKernel, Lab, Launch, Progress, cpio::Archive, kernel, output, tree};

const INIT: &str = include_str!("guest-init.sh");
/// A library that glibc loads by itself to end threads, which iperf3 does.
const LATE_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1";
/// What has a program write out each line at once, as `stdbuf` does, to read along.
const LINE_BUFFERING: &str = "/usr/libexec/coreutils/libstdbuf.so";
/// Changes whenever the archives must be made again.
const RECIPE: &str = "3";

/// One archive that a guest's initramfs is put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What every guest has.
    Base,
    /// Bridging, `tc` and connection tracking, with TAP devices to feed them.
    Networking,
    /// DPDK's testpmd, and VFIO by which it gets at cards.
    Dpdk,
}

impl Part {
    /// What there is for a kernel: DPDK is tried with the newest alone.
    pub(crate) fn of(kernel: GuestKernel) -> &'static [Self] {
        match kernel {
            GuestKernel::Linux7 => &[Self::Base, Self::Networking, Self::Dpdk],
            _ => &[Self::Base, Self::Networking],
        }
    }

    /// Its file in the kernel's folder.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Base => "initrd",
            Self::Networking => "networking",
            Self::Dpdk => "dpdk",
        }
    }

    /// Programs of the tree that busybox has no match for.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Base => &["/usr/bin/iperf3", "/usr/sbin/ethtool", "/usr/bin/ip", "/usr/bin/tcpdump"],
            Self::Networking => &["/usr/sbin/bridge", "/usr/sbin/tc"],
            Self::Dpdk => &["/usr/bin/dpdk-testpmd"],
        }
    }

    /// Modules that a guest may load. Only `virtio_net` must exist in every kernel: some have others built in.
    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Base => &[
                "virtio_net",
                "virtio_pci",
                "net_failover",
                "iavf",
                "e1000",
                "8021q",
                "pktgen",
                "af_packet_diag",
                "veth",
                "vxlan",
            ],
            Self::Networking => &[
                "tun",
                "bridge",
                "sch_ingress",
                "cls_flower",
                "cls_matchall",
                "act_csum",
                "act_ct",
                "act_gact",
                "act_mirred",
                "act_pedit",
                "act_skbedit",
                "act_vlan",
                "nf_conntrack",
                "nf_conntrack_ftp",
                "nf_defrag_ipv6",
            ],
            Self::Dpdk => &["vfio_pci", "vfio_iommu_type1"],
        }
    }

    fn stamp(self) -> String {
        // The init script is part of the recipe; a change of it must reach the guests.
        let sum = INIT.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{RECIPE} {:?} {:?} {sum:x}", self.programs(), self.modules())
    }

    fn is_ready(self, dir: &Path) -> bool {
        dir.join(self.file()).is_file()
            && std::fs::read_to_string(dir.join(format!("{}.recipe", self.file())))
                .is_ok_and(|recipe| recipe == self.stamp())
    }
}

pub(crate) fn is_ready(lab: &Lab, kernel: GuestKernel) -> bool {
    let dir = lab.guest_dir(kernel);
    Part::of(kernel).iter().all(|part| part.is_ready(&dir))
}

/// Makes the archives that a kernel lacks.
pub(crate) fn ensure(lab: &Lab, progress: &Progress) -> Result<()> {
    let all = GuestKernel::ALL.into_iter();
    for (kernel, &part) in all.flat_map(|kernel| Part::of(kernel).iter().map(move |part| (kernel, part))) {
        let dir = lab.guest_dir(kernel);
        if part.is_ready(&dir) {
            continue;
        }
        let step = progress.step(format!("make the {} of guest kernel {}", part.file(), kernel.name()));
        let partial = dir.join(format!("{}.partial", part.file()));
        build(lab, kernel, part, &partial)?;
        std::fs::rename(&partial, dir.join(part.file()))
            .context("cannot move an initramfs into its place")?;
        std::fs::write(dir.join(format!("{}.recipe", part.file())), part.stamp())
            .context("cannot stamp an initramfs")?;
        let bytes = std::fs::metadata(dir.join(part.file())).map(|m| m.len()).unwrap_or_default();
        step.done(format!("{} MB", bytes / 1_000_000));
    }
    Ok(())
}

fn build(lab: &Lab, kernel: GuestKernel, part: Part, out: &Path) -> Result<()> {
    let file = File::create(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    let mut libraries = BTreeSet::new();
    let mut wanted = part.modules().to_vec();
    match part {
        Part::Base => {
            archive.char_device("dev/console", 5, 1)?;
            archive.char_device("dev/null", 1, 3)?;
            archive.file("init", 0o755, INIT.as_bytes())?;
            archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n")?;
            archive.file("etc/group", 0o644, b"root:x:0:\n")?;
            archive.file("bin/busybox", 0o755, &read(&inside(&lab.tree(), "/bin/busybox")?)?)?;
            libraries.insert(LATE_LIBRARY.to_owned());
        }
        // Its index of modules takes the place of the first one.
        Part::Networking => wanted.extend(Part::Base.modules()),
        Part::Dpdk => {
            wanted.extend(Part::Base.modules());
            libraries.insert(plugin(lab, "librte_mempool_ring.so")?);
            libraries.insert(LINE_BUFFERING.to_owned());
        }
    }
    for program in part.programs() {
        let name = program.rsplit('/').next().unwrap_or(program);
        archive.file(&format!("opt/bin/{name}"), 0o755, &read(&inside(&lab.tree(), program)?)?)?;
        libraries.extend(shared_libraries(lab, program)?);
    }
    for library in libraries {
        archive.file(library.trim_start_matches('/'), 0o755, &read(&inside(&lab.tree(), &library)?)?)?;
    }

    for (path, bytes) in stage_modules(lab, kernel, &wanted)? {
        archive.file(&path, 0o644, &bytes)?;
    }
    archive.finish()?;
    Ok(())
}

/// Puts an initramfs together: what every guest has, on demand one thing more, and files of the machine, each under its
/// path in the guest. The kernel takes several archives one after the other; a later file takes an earlier one's place.
pub(crate) fn assemble(
    lab: &Lab,
    kernel: GuestKernel,
    more: Option<Part>,
    files: &[(String, PathBuf)],
    out: &Path,
) -> Result<()> {
    let dir = lab.guest_dir(kernel);
    let mut bytes = read(&dir.join(Part::Base.file()))?;
    if let Some(part) = more {
        bytes.extend(read(&dir.join(part.file()))?);
    }
    let mut archive = Archive::new(Vec::new());
    for (path, file) in files {
        archive.file(path.trim_start_matches('/'), 0o755, &read(file)?)?;
    }
    let mut out = File::create(out).with_context(|| format!("cannot create {}", out.display()))?;
    out.write_all(&bytes)
        .and_then(|()| out.write_all(&archive.finish()?))
        .context("cannot write an initramfs")
}

/// One of DPDK's drivers that no program is linked with.
fn plugin(lab: &Lab, name: &str) -> Result<String> {
    let text = output(lab.program("find").args(["/usr/lib/x86_64-linux-gnu/dpdk", "-name"]).arg(name))?;
    text.lines().next().map(str::to_owned).with_context(|| format!("DPDK has no {name}"))
}

/// The libraries a program of the tree is linked with, as paths inside the tree, the loader among them.
fn shared_libraries(lab: &Lab, program: &str) -> Result<Vec<String>> {
    let text = output(lab.program("ldd").arg(program))?;
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// The wanted modules and what they depend on, unpacked, with a fresh index, as initramfs paths.
fn stage_modules(lab: &Lab, kernel: GuestKernel, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let version = lab.kernel_version(kernel)?;
    let root = lab.guest_dir(kernel).join("root");
    let source =
        kernel::modules_dir(&root, &version).with_context(|| format!("no modules of kernel {version}"))?;
    let stage = lab.guest_dir(kernel).join("stage");
    tree::remove_dir(&stage)?;
    let target = stage.join("lib/modules").join(&version);
    std::fs::create_dir_all(&target).context("cannot make the modules' folder")?;
    // kmod looks below lib/ or usr/lib/, as it was built; both are this folder.
    std::fs::create_dir_all(stage.join("usr")).context("cannot make the modules' folder")?;
    std::os::unix::fs::symlink("../lib", stage.join("usr/lib")).context("cannot link the modules' folder")?;

    // An index over the whole set, to know what the wanted ones depend on.
    let inside = |path: &Path| -> Result<PathBuf> {
        let rest = path.strip_prefix(lab.root()).context("a path outside of the lab")?;
        Ok(Path::new("/mnt").join(rest))
    };
    for file in ["modules.builtin", "modules.order", "modules.builtin.modinfo"] {
        if source.join(file).is_file() {
            std::fs::copy(source.join(file), target.join(file))
                .with_context(|| format!("cannot copy {file}"))?;
        }
    }
    std::os::unix::fs::symlink(inside(&source)?.join("kernel"), target.join("kernel"))
        .context("cannot link the kernel's modules")?;
    output(lab.program("depmod").arg("-b").arg(inside(&stage)?).arg(&version))?;
    let index = std::fs::read_to_string(target.join("modules.dep")).context("depmod left no modules.dep")?;
    std::fs::remove_file(target.join("kernel")).context("cannot unlink the kernel's modules")?;

    for path in needed(&index, wanted)? {
        let bytes = output_bytes(&source.join(&path))?;
        let plain = path.trim_end_matches(".xz").trim_end_matches(".zst");
        let place = target.join(plain);
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent).context("cannot make a module's folder")?;
        }
        std::fs::write(&place, bytes).with_context(|| format!("cannot write {}", place.display()))?;
    }
    output(lab.program("depmod").arg("-b").arg(inside(&stage)?).arg(&version))?;

    let mut files = Vec::new();
    collect(&target, &format!("lib/modules/{version}"), &mut files)?;
    tree::remove_dir(&stage)?;
    Ok(files)
}

/// Paths of the wanted modules and all they depend on, from a `modules.dep`.
fn needed(index: &str, wanted: &[&str]) -> Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    for &wanted in wanted {
        let line = index.lines().find(|line| {
            let path = line.split(':').next().unwrap_or_default();
            let file = path.rsplit('/').next().unwrap_or_default();
            file.split('.').next().is_some_and(|stem| stem.replace('-', "_") == wanted)
        });
        match line {
            Some(line) => {
                let (path, dependencies) = line.split_once(':').unwrap_or((line, ""));
                paths.insert(path.to_owned());
                paths.extend(dependencies.split_whitespace().map(str::to_owned));
            }
            None if wanted == "virtio_net" => bail!("the kernel has no virtio_net module"),
            None => {}
        }
    }
    Ok(paths)
}

fn collect(dir: &Path, name: &str, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .with_context(|| format!("cannot list {}", dir.display()))?
        .collect::<Result<_, _>>()
        .with_context(|| format!("cannot list {}", dir.display()))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if path.is_dir() {
            collect(&path, &name, files)?;
        } else {
            files.push((name, read(&path)?));
        }
    }
    Ok(())
}

/// The real file behind a path of the tree, whose symbolic links are meant from inside it.
fn inside(tree: &Path, path: &str) -> Result<PathBuf> {
    let mut at = tree.join(path.trim_start_matches('/'));
    for _ in 0..8 {
        match std::fs::read_link(&at) {
            Ok(link) if link.is_absolute() => {
                at = tree.join(link.strip_prefix("/").unwrap_or(&link));
            }
            Ok(link) => at = at.parent().map(|dir| dir.join(&link)).context("a link without a folder")?,
            Err(_) => return Ok(at),
        }
    }
    bail!("{path} of the tree is a loop of symbolic links")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A module's bytes, unpacked if need be.
fn output_bytes(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return read(path),
    };
    Launch::on_host(program).arg("-dc").arg(path).capture_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_modules_come_with_what_they_need() {
        let index = "kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz kernel/drivers/net/net_failover.ko.xz\n\
                     kernel/drivers/net/dummy.ko.xz:\n\
                     kernel/net/core/failover.ko.xz:\n\
                     kernel/net/8021q/8021q.ko.xz: kernel/net/802/mrp.ko.xz\n";
        let wanted = Part::Base.modules();
        let paths: Vec<String> = needed(index, wanted).unwrap().into_iter().collect();
        assert_eq!(
            paths,
            [
                "kernel/drivers/net/net_failover.ko.xz",
                "kernel/drivers/net/virtio_net.ko.xz",
                "kernel/net/802/mrp.ko.xz",
                "kernel/net/8021q/8021q.ko.xz",
                "kernel/net/core/failover.ko.xz",
            ]
        );
        assert!(needed("kernel/drivers/net/dummy.ko:\n", wanted).is_err());
    }
}
