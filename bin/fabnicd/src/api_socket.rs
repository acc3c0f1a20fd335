//! The API's socket: one daemon at a time.
//!
//! A Unix socket outlives a daemon that was killed, so that "the path exists" says nothing. What does is a lock on a
//! file beside it, which the kernel lets go with its holder: whoever has the lock may remove the socket and bind its
//! own. The lock file holds the process ID for people to read, and stays where it is, since removing it would let two
//! daemons lock two files of one name.

use std::fs::{self, File};
use std::io::{Read, Seek as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, Mode, flock};

/// The bound socket, and the right to it. Dropped, the path is free.
#[derive(Debug)]
pub(crate) struct ApiSocket {
    path: PathBuf,
    _lock: File,
}

/// Takes the lock, removes what a killed daemon left, and binds the socket, for its owner only.
pub(crate) fn bind(path: &Path) -> Result<(ApiSocket, UnixListener)> {
    make_directory_of(path)?;
    let lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot look at the API socket {}", path.display())),
        Ok(there) if !there.file_type().is_socket() => {
            bail!("{} is there and is no socket; expected a path that is free for the API", path.display())
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            bail!("another program listens on {}; end it, or set another [daemon] api", path.display())
        }
        Ok(_) => {
            tracing::debug!(socket = %path.display(), "removing the API socket of a daemon that is gone");
            fs::remove_file(path)
                .with_context(|| format!("cannot remove the stale API socket {}", path.display()))?;
        }
    }
    // There is one thread, so that the mask is this call's alone.
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.with_context(|| format!("cannot listen on the API socket {}", path.display()))?;
    listener.set_nonblocking(true).context("cannot make the API socket non-blocking")?;
    Ok((ApiSocket { path: path.to_owned(), _lock: lock }, listener))
}

/// `/run/fabnic` is gone after each boot; nobody but the daemon would make it.
fn make_directory_of(path: &Path) -> Result<()> {
    let Some(directory) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    match fs::create_dir(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("cannot make the directory {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn lock(socket: &Path) -> Result<File> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open the lock file {}", path.display()))?;
    if let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if e != rustix::io::Errno::WOULDBLOCK {
            return Err(e).with_context(|| format!("cannot lock {}", path.display()));
        }
        let mut pid = String::new();
        // Only to be told; the file may be empty when the other is just starting.
        let _ = Read::take(&file, 16).read_to_string(&mut pid);
        let who = match pid.trim() {
            "" => "another fabnicd".to_owned(),
            pid => format!("fabnicd with process ID {pid}"),
        };
        bail!("{who} serves {} already; end it, or set another [daemon] api", socket.display());
    }
    let write =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        // Gone or not removable: the next daemon deals with it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/api.sock");
        let (first, listener) = bind(&path).unwrap();
        let refused = bind(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("process ID {}", std::process::id())), "{refused}");
        assert!(UnixStream::connect(&path).is_ok(), "the first one is still served");
        drop((first, listener));
        bind(&path).unwrap();
    }

    #[test]
    fn takes_over_from_the_dead_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        // A socket whose listener is gone, as after kill -9.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind(&path).unwrap());
        let foreign = UnixListener::bind(&path).unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("another program listens"));
        drop(foreign);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("is no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
