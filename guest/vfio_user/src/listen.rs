//! The listening socket in the file system.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fabnic_pci::DescriptionError;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Front ends that may wait to be accepted.
const BACKLOG: i32 = 8;

/// Why an end point could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The path does not fit into a socket address.
    #[error("{}: a socket's path has at most 107 bytes", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// Somebody answers on the socket.
    #[error("{}: another program listens there", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket has the name.
    #[error("{}: there is a file of that name that is no socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{}: {doing}: {source}", path.display())]
    Kernel {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// The function contradicts itself.
    #[error("{}: {source}", path.display())]
    Description {
        /// The path.
        path: PathBuf,
        /// How.
        source: DescriptionError,
    },
    /// The reactor's thread has ended.
    #[error("{}: the vfio-user reactor has ended", path.display())]
    Ended {
        /// The path.
        path: PathBuf,
    },
}

/// A listening socket and the name it has.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the name, so that only our own is removed.
    identity: Option<(u64, u64)>,
}

fn identity(path: &Path) -> rustix::io::Result<(FileType, (u64, u64))> {
    let stat = rustix::fs::lstat(path)?;
    Ok((FileType::from_raw_mode(stat.st_mode), (stat.st_dev, stat.st_ino)))
}

fn address(path: &Path) -> Result<SocketAddrUnix, EndpointError> {
    SocketAddrUnix::new(path).map_err(|_| EndpointError::Path { path: path.to_owned() })
}

/// A non-blocking Unix stream socket.
fn stream() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

impl Listening {
    /// Binds and listens. A socket of that name on which nobody answers (left by a daemon that was killed) is replaced.
    pub(crate) fn open(path: &Path) -> Result<Listening, EndpointError> {
        let address = address(path)?;
        let kernel = |doing| {
            let path = path.to_owned();
            move |source| EndpointError::Kernel { path, doing, source }
        };
        let socket = stream().map_err(kernel("making a socket"))?;
        match rustix::net::bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                Listening::clear(path, &address)?;
                rustix::net::bind(&socket, &address).map_err(kernel("binding"))?;
            }
            bound => bound.map_err(kernel("binding"))?,
        }
        rustix::net::listen(&socket, BACKLOG).map_err(kernel("listening"))?;
        let identity = identity(path).ok().map(|(_, identity)| identity);
        Ok(Listening { socket, path: path.to_owned(), identity })
    }

    /// Removes a name that nobody answers to.
    fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), EndpointError> {
        let kernel = |doing, source| EndpointError::Kernel { path: path.to_owned(), doing, source };
        match identity(path) {
            Ok((FileType::Socket, _)) => {}
            Ok(_) => return Err(EndpointError::NotASocket { path: path.to_owned() }),
            Err(Errno::NOENT) => return Ok(()),
            Err(source) => return Err(kernel("looking at the old socket", source)),
        }
        let probe = stream().map_err(|source| kernel("making a socket", source))?;
        match rustix::net::connect(&probe, address) {
            Err(Errno::CONNREFUSED) => {}
            Err(Errno::NOENT) => return Ok(()),
            // Connected, or somebody's queue is full.
            Ok(()) | Err(Errno::AGAIN) => return Err(EndpointError::InUse { path: path.to_owned() }),
            Err(source) => return Err(kernel("trying the old socket", source)),
        }
        rustix::fs::unlink(path).map_err(|source| kernel("removing the old socket", source))
    }

    /// The next client that waits, as a non-blocking socket.
    pub(crate) fn accept(&self) -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        rustix::net::accept_with(&self.socket, flags)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path).ok().map(|(_, is)| is) == self.identity {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}
