//! What survives the daemon: the running configuration, in a file.
//!
//! The daemon starts from a configuration file that people write and the daemon never touches. What is changed later,
//! by `fabnic port add`, `fabnic apply` or the API, is kept in a *state file*: the whole running configuration, after
//! a line that says which configuration file it grew from.
//!
//! ```text
//!   start:   state file there, grown from the configuration file as it is now?   yes ──► state
//!                                                                                no  ──► configuration file
//!   SIGHUP:  configuration file, as a whole; the state file grows from it anew
//! ```
//!
//! So a daemon that is killed comes back with all that it had accepted, and whoever edits the configuration file after
//! that has the last word: a state that grew from an older text is set aside as `FILE.old`, never merged.
//!
//! Life cycle of one change: [`StateFile::prepare`] writes and syncs a new file beside the old one, when everything
//! can still be undone; [`Prepared::commit`] renames it once the switch runs with the new state. A reader finds the old
//! file or the new one, never half of either.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fabnic_model::Config;

/// Beginning of the line that says what a state grew from.
const BASE: &str = "# grew from: ";

/// The file, and what its state grows from.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    base: String,
}

/// What was found at the start.
#[derive(Debug)]
pub enum Found {
    /// No state: this is the first start.
    Nothing,
    /// A state that grew from the configuration file as it is.
    Current(Box<Config>),
    /// A state that grew from another text; it is at the path now, out of the way.
    Outdated {
        /// Where it was put.
        kept: PathBuf,
    },
    /// Something that is no state; it is at the path now, out of the way.
    Unreadable {
        /// Where it was put.
        kept: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// FNV-1a, 64 bits: stable from build to build, and nobody gains by a collision in his own file.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn base_line(config_file: &Path, text: &str) -> String {
    // A newline in the path would end the comment.
    let path = config_file.display().to_string().replace(|c: char| c.is_control(), "?");
    format!("{BASE}{path} {:016x} {}", fingerprint(text), text.len())
}

impl StateFile {
    /// The state file at `path`, for a daemon that was configured by `text` out of `config_file`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, config_file: &Path, text: &str) -> StateFile {
        StateFile { path: path.into(), base: base_line(config_file, text) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration file was read again: the state grows from this text from now on.
    pub fn rebase(&mut self, config_file: &Path, text: &str) {
        self.base = base_line(config_file, text);
    }

    /// Looks for the state that an earlier daemon left. What cannot be used is moved out of the way.
    ///
    /// # Errors
    /// When the file is there but cannot be read or moved.
    pub fn find(&self) -> io::Result<Found> {
        let text = match fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(e) => return Err(e),
        };
        let base = text.lines().find(|line| line.starts_with(BASE));
        match (base, fabnic_model::parse(&text)) {
            (Some(base), Ok(config)) if base == self.base => Ok(Found::Current(Box::new(config))),
            (Some(_), Ok(_)) => Ok(Found::Outdated { kept: self.set_aside()? }),
            (base, parsed) => {
                let problem = match parsed {
                    Err(refused) => refused.to_string(),
                    Ok(_) => format!("the line `{}...` is missing", base.unwrap_or(BASE)),
                };
                Ok(Found::Unreadable { kept: self.set_aside()?, problem })
            }
        }
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        let kept = self.beside(".old");
        fs::rename(&self.path, &kept)?;
        Ok(kept)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Writes the state beside the file, down to the disk, without putting it in place.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub fn prepare(&self, config: &Config) -> io::Result<Prepared> {
        let body = config.to_toml().map_err(|e| io::Error::other(e.to_string()))?;
        let mut text = String::with_capacity(body.len() + 256);
        // Writing to a String does not fail.
        let _ = writeln!(text, "# The running configuration of fabnicd, written by itself at each change.");
        let _ = writeln!(text, "{}", self.base);
        text.push_str(&body);

        let new = self.beside(".new");
        let prepared = Prepared { new: Some(new.clone()), path: self.path.clone() };
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(prepared)
    }
}

/// A state on the disk that is not yet in place. Dropped, it is gone.
#[derive(Debug)]
pub struct Prepared {
    new: Option<PathBuf>,
    path: PathBuf,
}

impl Prepared {
    /// Puts it in place.
    ///
    /// # Errors
    /// When the file system refuses: then the old state is still there.
    pub fn commit(mut self) -> io::Result<()> {
        if let Some(new) = self.new.take()
            && let Err(e) = fs::rename(&new, &self.path)
        {
            self.new = Some(new);
            return Err(e);
        }
        // The rename is on the disk only when the directory is.
        let directory = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(new) = self.new.take() {
            // A file that is left over is overwritten by the next change.
            let _ = fs::remove_file(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use fabnic_model::{Port, Role};

    use super::*;

    fn config(ports: &[&str]) -> Config {
        let mut config = Config::default();
        for name in ports {
            let socket = format!("/run/fabnic/{name}.sock");
            config.port.push(Port::virtio_net(*name, socket, Role::Server));
        }
        config
    }

    #[test]
    fn comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFile::new(dir.path().join("state.toml"), Path::new("/etc/fabnic.toml"), "text");
        assert!(matches!(state.find().unwrap(), Found::Nothing));
        let ours = config(&["vm1", "vm2"]);
        state.prepare(&ours).unwrap().commit().unwrap();
        let Found::Current(found) = state.find().unwrap() else { panic!("not found") };
        assert_eq!(*found, ours);
    }

    #[test]
    fn not_committed_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFile::new(dir.path().join("state.toml"), Path::new("c"), "text");
        state.prepare(&config(&["vm1"])).unwrap().commit().unwrap();
        drop(state.prepare(&config(&["vm1", "vm2"])).unwrap());
        let Found::Current(found) = state.find().unwrap() else { panic!("not found") };
        assert_eq!(found.port.len(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn an_edited_configuration_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let state = StateFile::new(&path, Path::new("c"), "text");
        state.prepare(&config(&["vm1"])).unwrap().commit().unwrap();
        let mut edited = StateFile::new(&path, Path::new("c"), "text, edited");
        assert!(matches!(edited.find().unwrap(), Found::Outdated { .. }));
        assert!(dir.path().join("state.toml.old").exists());
        assert!(matches!(edited.find().unwrap(), Found::Nothing));
        edited.rebase(Path::new("c"), "text");
        edited.prepare(&config(&["vm2"])).unwrap().commit().unwrap();
        assert!(matches!(state.find().unwrap(), Found::Current(_)));
    }

    #[test]
    fn rubbish_is_set_aside_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let state = StateFile::new(&path, Path::new("c"), "text");
        for rubbish in [&b"\xff\xfe\x00"[..], b"[daemon]\n", b"# grew from: c\n[deamon]\n"] {
            fs::write(&path, rubbish).unwrap();
            let Found::Unreadable { problem, .. } = state.find().unwrap() else {
                panic!("taken for a state")
            };
            assert!(!problem.is_empty());
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        if Path::new("/dev/full").exists() {
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink("/dev/full", dir.path().join("state.toml.new")).unwrap();
            let state = StateFile::new(dir.path().join("state.toml"), Path::new("c"), "text");
            assert!(state.prepare(&config(&["vm1"])).is_err());
            assert!(!dir.path().join("state.toml").exists());
        }
    }
}
