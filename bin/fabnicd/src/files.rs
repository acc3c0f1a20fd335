//! Which files the daemon may reach (landlock).
//!
//! A daemon that parses what guests write should not be able to read the host's secrets if a guest finds a hole. After
//! the configuration is read it may reach:
//!
//! | what | how |
//! |---|---|
//! | directories of the API, of sockets that are listened on, of the state, of saved state, of captures, `--allow-dir` | read, write, make sockets and files |
//! | the configuration file's directory | read |
//! | files that are replayed | read |
//! | `/dev/net/tun` | read, write, control |
//! | `/dev/null`, `/dev/urandom`, CPU and network device tables in `/sys`, its own process in `/proc`, its own program | read |
//!
//! and nothing else; no TCP port either. Descriptors that VMMs pass are not affected: rights go with opening. What the
//! kernel cannot enforce is left out, and said.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fabnic_model::{Config, Role};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, make_bitflags,
};

/// The version whose rights are restricted, if the kernel knows them (Linux 6.10).
const VERSION: ABI = ABI::V5;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const WRITE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | RemoveFile | MakeReg | MakeSock | Truncate});
const DEVICE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev});

/// What a daemon with this configuration has to reach.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    devices: Vec<PathBuf>,
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

impl Needs {
    pub(crate) fn of(
        config: &Config,
        config_file: &Path,
        kept: [Option<&Path>; 2],
        allowed: &[PathBuf],
    ) -> Needs {
        let mut needs = Needs {
            read: [
                "/proc/self",
                "/sys/devices/system",
                "/sys/class/net",
                "/sys/devices/virtual/net",
                "/dev/urandom",
            ]
            .map(PathBuf::from)
            .to_vec(),
            write: allowed.to_vec(),
            devices: ["/dev/net/tun", "/dev/null"].map(PathBuf::from).to_vec(),
        };
        needs.read.push(directory_of(config_file));
        // For the names in a panic's backtrace.
        needs.read.extend(std::env::current_exe().ok());
        needs.write.push(directory_of(Path::new(&config.daemon.api)));
        needs.write.extend(kept.into_iter().flatten().map(directory_of));
        for port in &config.port {
            if let Some(vhost_user) = port.vhost_user.as_ref().filter(|v| v.role == Role::Server) {
                needs.write.push(directory_of(Path::new(&vhost_user.socket)));
            }
            if let Some(vhost_user) = port.vhost_user.as_ref().filter(|v| v.role == Role::Client) {
                // Watched for the VMM's socket to appear.
                needs.read.push(directory_of(Path::new(&vhost_user.socket)));
            }
            if let Some(vfio_user) = &port.vfio_user {
                needs.write.push(directory_of(Path::new(&vfio_user.socket)));
            }
            needs.write.extend(port.capture.as_deref().map(|file| directory_of(Path::new(file))));
            needs.read.extend(port.replay.as_deref().map(PathBuf::from));
        }
        for socket in config.tenant.iter().filter_map(|tenant| tenant.socket.as_deref()) {
            needs.write.push(directory_of(Path::new(socket)));
        }
        for list in [&mut needs.read, &mut needs.write] {
            list.sort();
            list.dedup();
        }
        needs
    }

    /// The directories in which sockets and files may be made, for people to read.
    pub(crate) fn writable(&self) -> String {
        let shown: Vec<_> = self.write.iter().take(8).map(|path| path.display().to_string()).collect();
        let more = self.write.len().saturating_sub(shown.len());
        if more == 0 { shown.join(" ") } else { format!("{} and {more} more", shown.join(" ")) }
    }
}

/// Gives up all other files, for this thread and those it will start. Says what is in force.
pub(crate) fn restrict_to(needs: &Needs) -> Result<String> {
    let all = AccessFs::from_all(VERSION);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|rules| rules.handle_access(AccessNet::from_all(VERSION)))
        .and_then(Ruleset::create)
        .context("cannot make landlock rules")?;
    for (paths, access) in [(&needs.read, READ), (&needs.write, WRITE), (&needs.devices, DEVICE)] {
        for path in paths {
            // What is not there need not be reached; a directory that must be there is missed by whoever needs it.
            let Ok(descriptor) = PathFd::new(path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(VERSION) };
            rules = rules
                .add_rule(PathBeneath::new(descriptor, access))
                .with_context(|| format!("cannot make a landlock rule for {}", path.display()))?;
        }
    }
    let status: RestrictionStatus = rules.restrict_self().context("cannot enforce landlock rules")?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "in force".into(),
        RulesetStatus::PartiallyEnforced => "in force as far as this kernel's landlock goes".into(),
        RulesetStatus::NotEnforced => "not in force: this kernel has no landlock".into(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sockets_and_files_decide_what_is_needed() {
        let config = fabnic_model::parse(
            r#"
            [daemon]
            api = "/run/a/api.sock"
            [[port]]
            name = "vm1"
            nic = "virtio-net"
            vhost_user = { socket = "/run/b/vm1.sock" }
            [[port]]
            name = "vm2"
            nic = "virtio-net"
            vhost_user = { socket = "/run/c/vm2.sock", role = "client" }
            [[port]]
            name = "vm3"
            nic = "e1000"
            vfio_user = { socket = "/run/d/vm3.sock" }
            [[port]]
            name = "pcap"
            uplink = "pcap"
            replay = "/data/in.pcap"
            capture = "/out/out.pcapng"
            "#,
        )
        .unwrap();
        let needs = Needs::of(
            &config,
            Path::new("/etc/fabnic/f.toml"),
            [Some(Path::new("state.toml")), Some(Path::new("/var/lib/f/switch.state"))],
            &["/more".into()],
        );
        assert_eq!(
            needs.write,
            ["/more", "/out", "/run/a", "/run/b", "/run/d", "/var/lib/f", "."]
                .map(PathBuf::from)
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        for path in ["/etc/fabnic", "/data/in.pcap", "/run/c"] {
            assert!(needs.read.contains(&path.into()), "{path}");
        }
    }

    #[test]
    fn what_is_not_needed_is_out_of_reach() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        fs::create_dir(&ours).unwrap();
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("secret"), "x").unwrap();
        // Landlock is a thread's own: this one only.
        std::thread::spawn(move || {
            let needs = Needs { write: vec![ours.clone(), dir.path().join("missing")], ..Needs::default() };
            let said = restrict_to(&needs).unwrap();
            fs::write(ours.join("file"), "x").unwrap();
            std::os::unix::net::UnixListener::bind(ours.join("socket")).unwrap();
            fs::remove_file(ours.join("socket")).unwrap();
            let read = fs::read(theirs.join("secret"));
            let wrote = fs::write(theirs.join("new"), "x");
            assert_eq!((read.is_err(), wrote.is_err()), (said == "in force", said == "in force"), "{said}");
        })
        .join()
        .unwrap();
    }
}
