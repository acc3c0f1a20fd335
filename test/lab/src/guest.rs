//! The guests' initramfs: busybox, iperf3, ethtool, ip, the network modules of one kernel, and our init.

use std::{
    collections::BTreeSet,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{GuestKernel, Lab, Launch, Progress, cpio::Archive, kernel, output, tree};

const INIT: &str = include_str!("guest-init.sh");
/// Programs of the tree that busybox has no match for.
const PROGRAMS: [&str; 4] = ["/usr/bin/iperf3", "/usr/sbin/ethtool", "/usr/bin/ip", "/usr/bin/tcpdump"];
/// A library that glibc loads by itself to end threads, which iperf3 does.
const LATE_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1";
/// Modules that a guest may load. Only the first must exist in every kernel: some have virtio_pci built in.
const MODULES: [&str; 10] = [
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
];
/// Changes whenever the initramfs must be made again.
const RECIPE: &str = "3";

fn stamp() -> String {
    // The init script is part of the recipe; a change of it must reach the guests.
    let sum = INIT
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{RECIPE} {PROGRAMS:?} {MODULES:?} {sum:x}")
}

pub(crate) fn is_ready(lab: &Lab, kernel: GuestKernel) -> bool {
    let dir = lab.guest_dir(kernel);
    dir.join("initrd").is_file()
        && std::fs::read_to_string(dir.join("initrd.recipe")).is_ok_and(|recipe| recipe == stamp())
}

/// Makes the initramfs of every kernel that lacks one.
pub(crate) fn ensure(lab: &Lab, progress: &Progress) -> Result<()> {
    for kernel in GuestKernel::ALL {
        if is_ready(lab, kernel) {
            continue;
        }
        let step = progress.step(format!("make the initramfs of guest kernel {}", kernel.name()));
        let dir = lab.guest_dir(kernel);
        let partial = dir.join("initrd.partial");
        build(lab, kernel, &partial)?;
        std::fs::rename(&partial, dir.join("initrd")).context("cannot move an initramfs into its place")?;
        std::fs::write(dir.join("initrd.recipe"), stamp()).context("cannot stamp an initramfs")?;
        let bytes = std::fs::metadata(dir.join("initrd")).map(|m| m.len()).unwrap_or_default();
        step.done(format!("{} MB", bytes / 1_000_000));
    }
    Ok(())
}

fn build(lab: &Lab, kernel: GuestKernel, out: &Path) -> Result<()> {
    let file = File::create(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    archive.char_device("dev/console", 5, 1)?;
    archive.char_device("dev/null", 1, 3)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\n")?;
    archive.file("bin/busybox", 0o755, &read(&inside(&lab.tree(), "/bin/busybox")?)?)?;

    let mut libraries = BTreeSet::from([LATE_LIBRARY.to_owned()]);
    for program in PROGRAMS {
        let name = program.rsplit('/').next().unwrap_or(program);
        archive.file(&format!("opt/bin/{name}"), 0o755, &read(&inside(&lab.tree(), program)?)?)?;
        libraries.extend(shared_libraries(lab, program)?);
    }
    for library in libraries {
        archive.file(library.trim_start_matches('/'), 0o755, &read(&inside(&lab.tree(), &library)?)?)?;
    }

    let modules = stage_modules(lab, kernel)?;
    for (path, bytes) in modules {
        archive.file(&path, 0o644, &bytes)?;
    }
    archive.finish()?;
    Ok(())
}

/// The libraries a program of the tree is linked with, as paths inside the tree, the loader among them.
fn shared_libraries(lab: &Lab, program: &str) -> Result<Vec<String>> {
    let text = output(lab.program("ldd").arg(program))?;
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// The modules of [`MODULES`] and what they depend on, unpacked, with a fresh index, as initramfs paths.
fn stage_modules(lab: &Lab, kernel: GuestKernel) -> Result<Vec<(String, Vec<u8>)>> {
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

    for path in needed(&index)? {
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
fn needed(index: &str) -> Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    for wanted in MODULES {
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
        let paths: Vec<String> = needed(index).unwrap().into_iter().collect();
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
        assert!(needed("kernel/drivers/net/dummy.ko:\n").is_err());
    }
}
