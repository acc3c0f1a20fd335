//! Guest kernels: three that Debian ships, unpacked from their packages.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{Lab, Progress, Step, mirror::Mirror, mirror::Releases, tree};

/// A stock kernel that guests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKernel {
    /// 6.1, of Debian 12 (bookworm).
    Linux6_1,
    /// 6.12, of Debian 13 (trixie).
    Linux6_12,
    /// The newest 7.x, of Debian 14 (forky).
    Linux7,
}

impl GuestKernel {
    /// Every kernel of the lab, oldest first.
    pub const ALL: [Self; 3] = [Self::Linux6_1, Self::Linux6_12, Self::Linux7];

    /// Its short name, also its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux6_1 => "6.1",
            Self::Linux6_12 => "6.12",
            Self::Linux7 => "7.x",
        }
    }

    fn release(self) -> &'static str {
        match self {
            Self::Linux6_1 => "bookworm",
            Self::Linux6_12 => "trixie",
            Self::Linux7 => "forky",
        }
    }

    /// How the package versions of this kernel begin.
    fn version_prefix(self) -> &'static str {
        match self {
            Self::Linux6_1 => "6.1.",
            Self::Linux6_12 => "6.12.",
            Self::Linux7 => "7.",
        }
    }
}

pub(crate) fn is_ready(lab: &Lab, kernel: GuestKernel) -> bool {
    lab.guest_dir(kernel).join("version").is_file()
}

/// What `uname -r` says in the guest.
pub(crate) fn version(lab: &Lab, kernel: GuestKernel) -> Result<String> {
    let path = lab.guest_dir(kernel).join("version");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Downloads and unpacks the kernels that are not there.
pub(crate) fn ensure(lab: &Lab, mirror: &Mirror, progress: &Progress) -> Result<()> {
    let wanted: Vec<GuestKernel> =
        GuestKernel::ALL.into_iter().filter(|kernel| !is_ready(lab, *kernel)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let step = progress.step("read the package lists of the guest kernels");
    let names: Vec<&str> = wanted.iter().map(|kernel| kernel.release()).collect();
    let lists = lab.root().join("apt");
    let releases = mirror.releases(&lists, &names, &step)?;
    step.done(names.join(", "));
    for kernel in wanted {
        let step = progress.step(format!("unpack guest kernel {}", kernel.name()));
        let version = unpack(lab, kernel, &releases, &step)?;
        step.done(version);
    }
    tree::remove_dir(&lists)
}

fn unpack(lab: &Lab, kernel: GuestKernel, releases: &Releases, step: &Step) -> Result<String> {
    let dir = lab.guest_dir(kernel);
    let partial = dir.with_extension("partial");
    tree::remove_dir(&partial)?;
    tree::remove_dir(&dir)?;
    let root = partial.join("root");
    std::fs::create_dir_all(&root).context("cannot make a kernel's folder")?;

    // The meta package names the real one; since 7.x that one is split into kernel image and modules.
    let (meta_version, depends) = releases
        .depends("linux-image-amd64")?
        .into_iter()
        .find(|(version, _)| version.starts_with(kernel.version_prefix()))
        .with_context(|| {
            format!("the archive has no linux-image-amd64 of version {}*", kernel.version_prefix())
        })?;
    let image =
        dependency(&depends, "linux-image-").with_context(|| format!("no kernel image in: {depends}"))?;
    let parts = releases
        .depends(&image)?
        .into_iter()
        .find(|(version, _)| *version == meta_version)
        .map(|(_, depends)| depends)
        .unwrap_or_default();
    match (dependency(&parts, "linux-binary-"), dependency(&parts, "linux-modules-")) {
        (Some(binary), Some(modules)) => {
            releases.unpack(&binary, &meta_version, &root, step)?;
            releases.unpack(&modules, &meta_version, &root, step)?;
        }
        _ => releases.unpack(&image, &meta_version, &root, step)?,
    }

    let version = image.trim_start_matches("linux-image-").to_owned();
    let vmlinuz = [
        format!("boot/vmlinuz-{version}"),
        format!("usr/lib/modules/{version}/vmlinuz"),
        format!("usr/lib/modules/{version}/vmlinuz.unsigned"),
    ]
    .into_iter()
    .map(|path| root.join(path))
    .find(|path| path.is_file());
    let Some(vmlinuz) = vmlinuz else {
        bail!("{image} {meta_version} holds no vmlinuz where one is looked for")
    };
    std::fs::rename(vmlinuz, partial.join("vmlinuz")).context("cannot move a kernel image")?;
    if modules_dir(&root, &version).is_none() {
        bail!("{image} {meta_version} holds no modules where they are looked for");
    }
    std::fs::write(partial.join("version"), &version).context("cannot write a kernel's version")?;
    std::fs::rename(&partial, &dir).context("cannot move a kernel into its place")?;
    Ok(version)
}

/// The modules of a kernel: merged-/usr packages have them below `usr/`.
pub(crate) fn modules_dir(root: &Path, version: &str) -> Option<PathBuf> {
    [root.join("lib/modules").join(version), root.join("usr/lib/modules").join(version)]
        .into_iter()
        .find(|dir| dir.join("kernel").is_dir())
}

/// The first package in a `Depends` field whose name begins with `prefix`.
fn dependency(depends: &str, prefix: &str) -> Option<String> {
    depends
        .split([',', '|'])
        .filter_map(|clause| clause.split_whitespace().next())
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_real_kernel_package_behind_the_meta_package() {
        let bookworm = "linux-image-6.1.0-50-amd64 (= 6.1.176-1)";
        assert_eq!(dependency(bookworm, "linux-image-").as_deref(), Some("linux-image-6.1.0-50-amd64"));
        let forky = "dracut | initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, \
                     linux-binary-7.2.12+deb14-amd64 (= 7.2.12-1), linux-modules-7.2.12+deb14-amd64 (= 7.2.12-1)";
        assert_eq!(dependency(forky, "linux-binary-").as_deref(), Some("linux-binary-7.2.12+deb14-amd64"));
        assert_eq!(dependency(forky, "linux-modules-").as_deref(), Some("linux-modules-7.2.12+deb14-amd64"));
        assert_eq!(dependency(forky, "linux-image-"), None);
    }
}
