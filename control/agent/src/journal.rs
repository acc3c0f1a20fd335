//! Changes since the state file was written, one line each.
//!
//! Writing a state of a hundred thousand rules takes a good part of a second, and a change of one rule should take less
//! than one of a thousandth. So small changes are appended to a *journal* beside the state file, and the state file is
//! written anew now and then. Each journal has a number, and the state file says from which number on journals have to be
//! replayed on it:
//!
//! ```text
//!   state.toml  "# journal: 7"  --+-- state.toml.journal-7 --+-- state.toml.journal-8 ...   = what runs
//!                                 |                          |
//!   state.toml is written anew:   begins with journal 9 (begun before the state was taken), and 7 and 8 are removed
//! ```
//!
//! Whenever the daemon dies, what is there adds up: journals that the state file already has are below its number, and
//! no number is left out.
//!
//! A line is a checksum and the changes as JSON. It is written by one system call before the change is answered, so it
//! outlives the daemon, however that ends; to outlive the host it is brought to the disk within a second. A line that the
//! end of the daemon cut short was not answered yet and does not count.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fabnic_model::Change;

use crate::replace;

/// Longest line that is read: a change of a whole group of addresses fits many times.
const LONGEST: usize = 64 << 20;

/// FNV-1a, 64 bits: finds what a crash cut short; nobody gains by a collision in his own file.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The journal with a number, beside the state file.
pub(crate) fn path(state: &Path, number: u64) -> PathBuf {
    let mut name = state.to_owned().into_os_string();
    name.push(format!(".journal-{number}"));
    name.into()
}

/// A journal that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Bytes of whole lines.
    len: u64,
}

impl Journal {
    /// Begins a journal; one that is there already is emptied.
    pub(crate) fn begin(path: &Path) -> io::Result<Journal> {
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Journal { file, len: 0 })
    }

    /// Appends one line. On an error nothing of it is left, or the journal must not be written any more.
    pub(crate) fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        let json = serde_json::to_vec(changes).map_err(io::Error::other)?;
        let mut line = format!("{:016x} ", checksum(&json)).into_bytes();
        line.extend_from_slice(&json);
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            use std::io::Seek as _;
            // What was written of the line would spoil the next.
            self.file.set_len(self.len)?;
            self.file.seek(io::SeekFrom::Start(self.len))?;
            return Err(error);
        }
        self.len += u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Bytes written.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Another handle of the file, to bring it to the disk without holding anything up.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The changes of each line.
    pub(crate) lines: Vec<Vec<Change>>,
    /// What is wrong with it beyond a last line that was cut short.
    pub(crate) problem: Option<String>,
}

/// Reads a journal. `None` when there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Replay>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(of_bytes(&bytes)))
}

fn of_bytes(bytes: &[u8]) -> Replay {
    let mut replay = Replay::default();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        match read_line(line) {
            Some(changes) => replay.lines.push(changes),
            None => {
                let number = replay.lines.len() + 1;
                replay.problem =
                    Some(format!("line {number} is damaged; it and what comes after it is lost"));
                break;
            }
        }
    }
    replay
}

fn read_line(line: &[u8]) -> Option<Vec<Change>> {
    let (sum, json) = line.split_at_checked(17).filter(|(_, json)| json.len() <= LONGEST)?;
    let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
    if u64::from_str_radix(sum, 16).ok()? != checksum(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Removes the journals from one number up to, without, another.
pub(crate) fn remove(state: &Path, from: u64, to: u64) {
    for number in from..to {
        match fs::remove_file(path(state, number)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, number, "an old journal cannot be removed"),
        }
    }
}

/// Removes all journals of a state that does not count any more.
pub(crate) fn remove_all(state: &Path) {
    let directory = replace::directory(state);
    let Some(name) = state.file_name().and_then(|name| name.to_str()) else { return };
    let prefix = format!("{name}.journal-");
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix))
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, "a journal of a state that does not count cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use fabnic_model::Rule;

    use super::*;

    fn line(name: &str) -> Vec<Change> {
        vec![Change::RuleAdd { rule: Rule::named(name).into() }]
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir.path().join("state.toml"), 3);
        assert!(read(&path).unwrap().is_none());
        let mut journal = Journal::begin(&path).unwrap();
        for name in ["a", "b", "c"] {
            journal.append(&line(name)).unwrap();
        }
        let replay = read(&path).unwrap().unwrap();
        assert_eq!(replay.lines, [line("a"), line("b"), line("c")]);
        assert!(replay.problem.is_none());
        assert_eq!(journal.len(), fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn wherever_it_is_cut_what_is_whole_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir.path().join("state.toml"), 1);
        let mut journal = Journal::begin(&path).unwrap();
        let mut ends = vec![0];
        for name in ["a", "b", "c"] {
            journal.append(&line(name)).unwrap();
            ends.push(journal.len());
        }
        let bytes = fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            let replay = of_bytes(&bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
            assert_eq!(replay.lines.len(), whole, "cut at {cut}");
            assert!(replay.problem.is_none());
        }
    }

    #[test]
    fn damage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir.path().join("state.toml"), 1);
        let mut journal = Journal::begin(&path).unwrap();
        journal.append(&line("a")).unwrap();
        journal.append(&line("b")).unwrap();
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x01;
            let replay = of_bytes(&damaged);
            // Everything that is taken is as it was written. A newline that is gone makes two lines one.
            assert!(replay.lines.len() < 2, "byte {at}");
            assert!(replay.lines.is_empty() || replay.lines[0] == line("a"), "byte {at}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        if Path::new("/dev/full").exists() {
            let mut journal =
                Journal { file: File::options().write(true).open("/dev/full").unwrap(), len: 0 };
            assert!(journal.append(&line("a")).is_err());
        }
    }
}
