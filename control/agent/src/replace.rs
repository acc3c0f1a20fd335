//! Files that take another's place: a reader finds the old one or the new one, never half of either.
//!
//! The new one is written under a name beside the old one's and brought to the disk; then [`put`] gives it the name.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The name of a file with something behind it: another one in the same directory.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Puts a file that is on the disk in the place of another.
///
/// # Errors
/// Before the rename, if it fails: then the new file is still there. Behind it, if the disk does not take the name.
pub(crate) fn put(new: &Path, path: &Path) -> io::Result<()> {
    fs::rename(new, path)?;
    // The rename is on the disk only when the directory is.
    File::open(directory(path))?.sync_all()
}

/// The directory that a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
