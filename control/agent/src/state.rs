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
//! can still be undone; [`StateFile::commit`] renames it once the switch runs with the new state. A reader finds the old
//! file or the new one, never half of either. Small changes are appended to a journal instead ([`crate::journal`]).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fabnic_model::{Change, Config, Desired};

use crate::journal::{self, Journal};
use crate::replace::{self, beside};

/// Beginning of the line that says what a state grew from.
const BASE: &str = "# grew from: ";
/// Beginning of the line that says from which number on journals have to be replayed.
const JOURNAL: &str = "# journal: ";
/// Bytes of journals after which the state is written anew.
const COMPACT: u64 = 8 << 20;

/// The file, and what its state grows from.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    base: String,
    /// The journal that the file as it is begins with.
    oldest: u64,
    /// The journal that is written, or would be.
    number: u64,
    journal: Option<Journal>,
    /// Bytes of journals from `oldest` to `number`.
    journaled: u64,
    /// What runs is not what the file and the journals say: the next change has to write all of it.
    is_behind: bool,
}

/// What was found at the start.
#[derive(Debug)]
pub enum Found {
    /// No state: this is the first start.
    Nothing,
    /// A state that grew from the configuration file as it is.
    Current {
        /// The state.
        config: Box<Config>,
        /// What could not be read of it.
        problem: Option<String>,
    },
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
        StateFile {
            path: path.into(),
            base: base_line(config_file, text),
            oldest: 0,
            number: 0,
            journal: None,
            journaled: 0,
            // There is no file that a journal could stand beside.
            is_behind: true,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration file was read again: the state grows from this text from now on. Gives what undoes it.
    pub fn rebase(&mut self, config_file: &Path, text: &str) -> Base {
        Base(std::mem::replace(&mut self.base, base_line(config_file, text)))
    }

    /// Undoes a [`StateFile::rebase`].
    pub fn restore(&mut self, base: Base) {
        self.base = base.0;
    }

    /// Looks for the state that an earlier daemon left. What cannot be used is moved out of the way.
    ///
    /// # Errors
    /// When the file is there but cannot be read or moved.
    pub fn find(&mut self) -> io::Result<Found> {
        let text = match fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                journal::remove_all(&self.path);
                return Ok(Found::Nothing);
            }
            Err(e) => return Err(e),
        };
        // Both stand at the top; a text without them is not searched to its end for each.
        let mut head = text.lines().take(8);
        let base = head.clone().find(|line| line.starts_with(BASE));
        let number = head.find_map(|line| line.strip_prefix(JOURNAL)).and_then(|number| number.parse().ok());
        // Of a daemon that kept no journals.
        self.oldest = number.unwrap_or(0);
        match (base, fabnic_model::parse(&text)) {
            (Some(base), Ok(config)) if base == self.base => self.replay(config),
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

    /// Carries out on `config` what the journals hold.
    fn replay(&mut self, config: Config) -> io::Result<Found> {
        let before = config.clone();
        let mut desired = Desired::new(config);
        let mut problem = None;
        self.number = self.oldest;
        while let Some(replay) = journal::read(&journal::path(&self.path, self.number))? {
            self.number += 1;
            for changes in &replay.lines {
                desired.carry_out_all(changes);
            }
            if replay.problem.is_some() {
                problem = replay.problem;
                break;
            }
        }
        let mut config = desired.config().clone();
        if self.number > self.oldest
            && let Err(refused) = config.check()
        {
            problem = Some(format!("the changes in its journals do not fit it: {refused}"));
            config = before;
        }
        // With a problem the next change writes all of it, and the journals go.
        self.is_behind = problem.is_some();
        Ok(Found::Current { config: Box::new(config), problem })
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        let kept = beside(&self.path, ".old");
        fs::rename(&self.path, &kept)?;
        // They would be taken for those of the next state.
        journal::remove_all(&self.path);
        Ok(kept)
    }

    /// Writes the state beside the file, down to the disk, without putting it in place.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub fn prepare(&self, config: &Config) -> io::Result<Prepared> {
        self.draft(".new", self.number + 1).write(config)
    }

    /// What is needed to write a state that begins with this journal, apart from the state.
    fn draft(&self, suffix: &str, number: u64) -> Draft {
        Draft { new: beside(&self.path, suffix), base: self.base.clone(), number }
    }

    /// Puts a prepared state in place.
    ///
    /// # Errors
    /// When the file system refuses: then the old state is still there.
    pub fn commit(&mut self, prepared: Prepared) -> io::Result<()> {
        let number = prepared.number;
        if number < self.oldest {
            // A compaction that a whole state has overtaken.
            return Ok(());
        }
        if let Err(error) = prepared.put(&self.path) {
            self.is_behind = true;
            return Err(error);
        }
        journal::remove(&self.path, self.oldest, number);
        // Of a compaction that was under way, the number is the journal's that is written already.
        if number > self.number {
            (self.number, self.journal, self.journaled) = (number, None, 0);
        } else {
            self.journaled = self.journal.as_ref().map_or(0, Journal::len);
        }
        self.oldest = number;
        self.is_behind = false;
        Ok(())
    }

    /// Whether a change can be appended; otherwise the whole state has to be written.
    #[must_use]
    pub const fn takes_changes(&self) -> bool {
        !self.is_behind
    }

    /// Appends a change. When this returns, the change outlives the daemon; the host once the state file is synced.
    ///
    /// # Errors
    /// When it cannot be written; then it is not there.
    pub fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.journal.is_none() {
            self.journal = Some(Journal::begin(&journal::path(&self.path, self.number))?);
        }
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let before = journal.len();
        let result = journal.append(changes);
        if result.is_err() {
            // Whether the line is there in part is not known for sure.
            self.is_behind = true;
        }
        self.journaled += journal.len() - before;
        result
    }

    /// The journal's file, to be synced.
    pub(crate) fn handle(&self) -> Option<File> {
        self.journal.as_ref().and_then(|journal| journal.handle().ok())
    }

    /// When the journals are long enough for the state to be written anew: begins another journal, after which the state
    /// is to be taken, written by [`Draft::write`] and committed.
    pub(crate) fn begin_compaction(&mut self) -> Option<Draft> {
        if self.journaled < COMPACT || self.is_behind {
            return None;
        }
        match Journal::begin(&journal::path(&self.path, self.number + 1)) {
            Ok(journal) => {
                self.number += 1;
                self.journal = Some(journal);
                // Not again before as much has come again, should this one fail.
                self.journaled = 0;
                Some(self.draft(".compact", self.number))
            }
            Err(error) => {
                tracing::warn!(%error, "the journal grows: another cannot be begun");
                self.journaled = 0;
                None
            }
        }
    }
}

/// What a state grew from before [`StateFile::rebase`].
#[derive(Debug)]
pub struct Base(String);

/// A state that is to be written.
#[derive(Debug)]
pub(crate) struct Draft {
    new: PathBuf,
    base: String,
    number: u64,
}

impl Draft {
    /// Writes the state, down to the disk, without putting it in place.
    pub(crate) fn write(self, config: &Config) -> io::Result<Prepared> {
        let body = config.to_toml().map_err(|e| io::Error::other(e.to_string()))?;
        let mut text = String::with_capacity(body.len() + 256);
        // Writing to a String does not fail.
        let _ = writeln!(text, "# The running configuration of fabnicd, written by itself.");
        let _ = writeln!(text, "{}", self.base);
        let _ = writeln!(text, "{JOURNAL}{}", self.number);
        text.push_str(&body);

        let prepared = Prepared { new: Some(self.new.clone()), number: self.number };
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&self.new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(prepared)
    }
}

/// A state on the disk that is not yet in place. Dropped, it is gone.
#[derive(Debug)]
pub struct Prepared {
    new: Option<PathBuf>,
    number: u64,
}

impl Prepared {
    fn put(mut self, path: &Path) -> io::Result<()> {
        let Some(new) = self.new.take() else { return Ok(()) };
        replace::put(&new, path).inspect_err(|_| self.new = Some(new))
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

    fn save(state: &mut StateFile, config: &Config) {
        let prepared = state.prepare(config).unwrap();
        state.commit(prepared).unwrap();
    }

    fn rule(name: &str) -> Change {
        Change::RuleAdd { rule: fabnic_model::Rule::named(name).into() }
    }

    fn rules_found(path: &Path) -> usize {
        let mut state = StateFile::new(path, Path::new("c"), "text");
        let Found::Current { config, problem: None } = state.find().unwrap() else { panic!("not found") };
        config.rule.len()
    }

    #[test]
    fn appended_changes_count_in_whatever_step_the_daemon_dies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let mut state = StateFile::new(&path, Path::new("c"), "text");
        assert!(!state.takes_changes(), "there is nothing to append to");
        let mut desired = Desired::new(config(&["vm1"]));
        save(&mut state, desired.config());
        assert!(state.takes_changes());
        let append = |state: &mut StateFile, desired: &mut Desired, name: &str| {
            state.append(&[rule(name)]).unwrap();
            desired.carry_out(&rule(name));
        };
        append(&mut state, &mut desired, "a");
        append(&mut state, &mut desired, "b");
        assert_eq!(rules_found(&path), 2);

        // A compaction: the next journal is begun, more comes, the state is written, and put in place.
        state.journaled = COMPACT;
        let draft = state.begin_compaction().unwrap();
        let snapshot = desired.config().clone();
        assert_eq!(rules_found(&path), 2);
        append(&mut state, &mut desired, "c");
        assert_eq!(rules_found(&path), 3, "old state and two journals");
        let prepared = draft.write(&snapshot).unwrap();
        append(&mut state, &mut desired, "d");
        assert_eq!(rules_found(&path), 4);
        state.commit(prepared).unwrap();
        assert_eq!(rules_found(&path), 4, "new state and one journal");
        append(&mut state, &mut desired, "e");
        assert_eq!(rules_found(&path), 5);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "state and one journal");

        // The next daemon goes on.
        let mut next = StateFile::new(&path, Path::new("c"), "text");
        next.find().unwrap();
        next.append(&[rule("f")]).unwrap();
        assert_eq!(rules_found(&path), 6);
        save(&mut next, desired.config());
        assert_eq!(rules_found(&path), 5, "what is written as a whole is what counts");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_journal_is_said_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let mut state = StateFile::new(&path, Path::new("c"), "text");
        save(&mut state, &config(&["vm1"]));
        state.append(&[rule("a")]).unwrap();
        let journal = journal::path(&path, state.number);
        fs::write(&journal, [fs::read(&journal).unwrap(), b"rubbish\n".to_vec()].concat()).unwrap();
        let mut next = StateFile::new(&path, Path::new("c"), "text");
        let Found::Current { config, problem: Some(_) } = next.find().unwrap() else { panic!("not said") };
        assert_eq!(config.rule.len(), 1, "what is whole counts");
        assert!(!next.takes_changes());
    }

    #[test]
    fn comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateFile::new(dir.path().join("state.toml"), Path::new("/etc/fabnic.toml"), "text");
        assert!(matches!(state.find().unwrap(), Found::Nothing));
        let ours = config(&["vm1", "vm2"]);
        save(&mut state, &ours);
        let Found::Current { config: found, problem: None } = state.find().unwrap() else {
            panic!("not found")
        };
        assert_eq!(*found, ours);
    }

    #[test]
    fn not_committed_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateFile::new(dir.path().join("state.toml"), Path::new("c"), "text");
        save(&mut state, &config(&["vm1"]));
        drop(state.prepare(&config(&["vm1", "vm2"])).unwrap());
        let Found::Current { config: found, .. } = state.find().unwrap() else { panic!("not found") };
        assert_eq!(found.port.len(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn an_edited_configuration_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let mut state = StateFile::new(&path, Path::new("c"), "text");
        save(&mut state, &config(&["vm1"]));
        let mut edited = StateFile::new(&path, Path::new("c"), "text, edited");
        assert!(matches!(edited.find().unwrap(), Found::Outdated { .. }));
        assert!(dir.path().join("state.toml.old").exists());
        assert!(matches!(edited.find().unwrap(), Found::Nothing));
        edited.rebase(Path::new("c"), "text");
        save(&mut edited, &config(&["vm2"]));
        assert!(matches!(state.find().unwrap(), Found::Current { .. }));
    }

    #[test]
    fn rubbish_is_set_aside_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        let mut state = StateFile::new(&path, Path::new("c"), "text");
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
