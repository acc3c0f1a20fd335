//! Sockets of tenants: each tenant's own way to the API.
//!
//! They are bound here, as part of a change that is made as a whole or not at all, and handed to the API, which serves
//! them. A socket that an earlier daemon left is removed; one on which somebody listens is not ours, and the change fails.
//! Everybody may open a tenant's socket: who is answered there, the kernel and the tenant's token say.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use fabnic_api::{ApplyError, TenantDoor};
use fabnic_model::Tenant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Those that are open.
#[derive(Debug)]
pub(crate) struct Doors {
    /// Paths by tenant.
    open: HashMap<String, PathBuf>,
    to_api: UnboundedSender<TenantDoor>,
    receiver: Option<UnboundedReceiver<TenantDoor>>,
}

impl Default for Doors {
    fn default() -> Doors {
        let (to_api, receiver) = unbounded_channel();
        Doors { open: HashMap::new(), to_api, receiver: Some(receiver) }
    }
}

/// Those that a configuration has and that are not open yet. Dropped, they are gone.
#[derive(Debug, Default)]
pub(crate) struct NewDoors {
    bound: Vec<(String, PathBuf, UnixListener)>,
    /// Tenants whose doors close.
    closing: Vec<String>,
}

impl Drop for NewDoors {
    fn drop(&mut self) {
        for (_, path, _) in &self.bound {
            // Gone already, or for the next daemon to deal with.
            let _ = fs::remove_file(path);
        }
    }
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let opened = fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .and_then(|()| listener.set_nonblocking(true));
    if let Err(error) = opened {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(listener)
}

impl Doors {
    /// Binds what these tenants have and is not open.
    pub(crate) fn prepare(&self, tenants: &[Tenant]) -> Result<NewDoors, ApplyError> {
        let wanted: HashMap<&str, &Path> =
            tenants.iter().filter_map(|t| Some((t.name.as_str(), Path::new(t.socket.as_deref()?)))).collect();
        let mut new = NewDoors::default();
        let stays = |name: &str, path: &Path| wanted.get(name).is_some_and(|wanted| *wanted == path);
        new.closing
            .extend(self.open.iter().filter(|(name, path)| !stays(name, path)).map(|(name, _)| name.clone()));
        for (name, path) in wanted {
            if self.open.get(name).is_some_and(|open| open == path) {
                continue;
            }
            let listener = bind(path).map_err(|error| ApplyError::Failed {
                key: format!("tenant[{name}].socket"),
                problem: format!("{}: {error}", path.display()),
                expected:
                    "a path in a directory in which the daemon may make sockets (see fabnicd --allow-dir)"
                        .into(),
            })?;
            new.bound.push((name.to_owned(), path.to_owned(), listener));
        }
        Ok(new)
    }

    /// Opens what was prepared.
    pub(crate) fn open(&mut self, mut new: NewDoors) {
        for name in std::mem::take(&mut new.closing) {
            if let Some(path) = self.open.remove(&name) {
                // Nobody listens for it where the API is not served.
                let _ = self.to_api.send(TenantDoor::Closed { tenant: name });
                if !new.bound.iter().any(|(_, bound, _)| *bound == path) {
                    let _ = fs::remove_file(path);
                }
            }
        }
        for (tenant, path, listener) in std::mem::take(&mut new.bound) {
            let _ = self.to_api.send(TenantDoor::Open { tenant: tenant.clone(), listener });
            self.open.insert(tenant, path);
        }
    }

    /// Where doors come out, once.
    pub(crate) fn take_receiver(&mut self) -> Option<UnboundedReceiver<TenantDoor>> {
        self.receiver.take()
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        for path in self.open.values() {
            let _ = fs::remove_file(path);
        }
    }
}
