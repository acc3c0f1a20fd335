//! The machine's own Debian mirror, asked for other releases than the machine's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{Launch, Progress, Step, output, which};

/// Packages of the machine that building the lab and running it need, and a program of each.
const HOST_PACKAGES: [(&str, &str); 3] =
    [("mmdebstrap", "mmdebstrap"), ("iproute2", "ip"), ("xz-utils", "xz")];

/// A Debian package archive and where apt keeps what it knows of it.
pub(crate) struct Mirror {
    uri: String,
}

impl Mirror {
    /// Finds the archive that the machine's apt is set up with, after installing what building a lab needs.
    ///
    /// # Errors
    /// If there is no apt, or no Debian archive among its sources.
    pub(crate) fn detect(progress: &Progress) -> Result<Self> {
        if which("apt-get").is_none() {
            bail!("there is no apt-get on this machine; the lab is made from Debian packages");
        }
        let step = progress.step("look at the machine's packages");
        let mut uri = archive_uri()?;
        let missing: Vec<&str> = HOST_PACKAGES
            .iter()
            .filter(|(_, program)| which(program).is_none())
            .map(|(package, _)| *package)
            .collect();
        // Older keyrings lack the keys of newer releases; the mirror's lists say so only by a failed check.
        let keyring = Path::new("/usr/share/keyrings/debian-archive-trixie-automatic.gpg");
        if uri.is_none() || !missing.is_empty() || !keyring.exists() {
            step.say("apt-get update");
            apt_get(&["update"]).run_in_step(&step)?;
            uri = archive_uri()?;
            let mut install =
                apt_get(&["install", "-y", "--no-install-recommends", "debian-archive-keyring"]);
            install.args(&missing).run_in_step(&step)?;
        }
        let uri = uri.context("apt's sources name no Debian archive (see `apt-get indextargets`)")?;
        step.done(&uri);
        Ok(Self { uri })
    }

    /// The line of a sources list for one release of the archive.
    pub(crate) fn source_line(&self, release: &str) -> String {
        format!("deb {} {release} main", self.uri)
    }

    /// Package lists of other releases, kept apart from the machine's own.
    ///
    /// # Errors
    /// If the lists cannot be downloaded.
    pub(crate) fn releases(&self, dir: &Path, releases: &[&str], step: &Step) -> Result<Releases> {
        for sub in ["lists/partial", "cache/archives/partial", "deb"] {
            std::fs::create_dir_all(dir.join(sub))
                .with_context(|| format!("cannot make {}/{sub}", dir.display()))?;
        }
        let lines: String = releases.iter().map(|release| self.source_line(release) + "\n").collect();
        std::fs::write(dir.join("sources.list"), lines).context("cannot write a sources list")?;
        let releases = Releases { dir: dir.to_owned() };
        releases.apt("apt-get").arg("update").run_in_step(step)?;
        Ok(releases)
    }
}

fn apt_get(args: &[&str]) -> Launch {
    let mut launch = Launch::on_host("apt-get");
    launch.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    launch
}

/// The archive of the machine's own release, as apt itself understands its sources.
fn archive_uri() -> Result<Option<String>> {
    let text = output(Launch::on_host("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(ORIGIN)",
        "Created-By: Packages",
    ]))?;
    let mut archives = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, codename, origin) = (words.next()?, words.next()?, words.next()?);
        (origin == "Debian" && !codename.contains('-')).then(|| uri.trim_end_matches('/').to_owned())
    });
    Ok(archives.next())
}

/// Package lists of several releases of one archive.
pub(crate) struct Releases {
    dir: PathBuf,
}

impl Releases {
    fn apt(&self, program: &str) -> Launch {
        let mut launch = Launch::on_host(program);
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            // A mirror may stand still past its Valid-Until date; signatures are still checked.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            launch.arg("-o").arg(option);
        }
        launch
    }

    /// The `Depends` field of every version of `package`, each with its version.
    ///
    /// # Errors
    /// If no release has the package.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<(String, String)>> {
        let text = output(self.apt("apt-cache").args(["show", package]))?;
        Ok(text
            .split("\n\n")
            .filter_map(|record| {
                let field = |name: &str| {
                    record
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(|value| value.trim().to_owned())
                };
                Some((field("Version:")?, field("Depends:").unwrap_or_default()))
            })
            .collect())
    }

    /// Downloads `package` at `version` and unpacks it into `dir`.
    ///
    /// # Errors
    /// If it cannot be downloaded or unpacked.
    pub(crate) fn unpack(&self, package: &str, version: &str, dir: &Path, step: &Step) -> Result<()> {
        let debs = self.dir.join("deb");
        let wanted = format!("{package}={version}");
        let mut download = self.apt("apt-get");
        download.args(["download", &wanted]).current_dir(&debs).run_in_step(step)?;
        let prefix = format!("{package}_");
        for entry in std::fs::read_dir(&debs).context("cannot list downloaded packages")? {
            let entry = entry.context("cannot list downloaded packages")?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                step.say(&format!("unpacking {package}"));
                output(Launch::on_host("dpkg-deb").arg("-x").arg(entry.path()).arg(dir))?;
                std::fs::remove_file(entry.path()).context("cannot remove a downloaded package")?;
                return Ok(());
            }
        }
        bail!("apt-get download {wanted} left no file in {}", debs.display())
    }
}
