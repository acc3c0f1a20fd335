//! Folders that go away with us, however we end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::Janitor;

/// A new folder below `/tmp`, which the lab's programs see under the same path. It is removed when dropped, and
/// also when this process is killed.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _remove: Option<Janitor>,
}

impl WorkDir {
    /// Makes one whose name begins with `prefix`. With `keep` it stays.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(prefix: &str, keep: bool) -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(prefix)
            .disable_cleanup(true)
            .tempdir_in("/tmp")
            .context("cannot make a folder below /tmp")?
            .keep();
        // mkdtemp's names need no quoting.
        let remove = (!keep).then(|| Janitor::hire(&format!("rm -rf {}", path.display()))).transpose()?;
        Ok(Self { path, _remove: remove })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_away_with_all_that_is_in_it() {
        let dir = WorkDir::new("fabnic-workdir.", false).unwrap();
        let path = dir.path().to_owned();
        std::fs::create_dir(path.join("sub")).unwrap();
        std::fs::write(path.join("sub/file"), "x").unwrap();
        drop(dir);
        assert!(!path.exists());
    }
}
