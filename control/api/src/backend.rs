//! What the API needs from the daemon.

use fabnic_model::{Change, Config, Refused};

use crate::{
    CaptureRequest, CaptureStream, FdbFilter, FdbPage, Forgotten, Health, PortStatus, Stats, WorkerStatus,
};

/// Why a configuration was not applied. In every case nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The configuration is wrong, here: a CPU that the host does not have, a key that this daemon cannot change.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The configuration is right, but the host did not let it happen: a socket in use, a device that is not there.
    #[error("{key}: {problem}")]
    Failed {
        /// The key that could not be brought about, such as `port[up0].device`.
        key: String,
        /// What went wrong, with the system's words.
        problem: String,
        /// What was expected, or what to do.
        expected: String,
    },
}

/// The running daemon, as the API sees it. Calls may block and may come from several threads at once.
pub trait Backend: Send + Sync + 'static {
    /// Whether the daemon works.
    fn health(&self) -> Health;

    /// The configuration that runs: the last one applied.
    fn config(&self) -> Config;

    /// Makes `desired`, which passed [`Config::check`], the configuration that runs, as a whole or not at all, and
    /// says what changed. With `dry_run` it says what would change and does nothing more than look.
    ///
    /// # Errors
    /// When it cannot be; then the running configuration is as it was.
    fn apply(&self, desired: Config, dry_run: bool) -> Result<Vec<Change>, ApplyError>;

    /// All ports, in the order of their numbers.
    fn ports(&self) -> Vec<PortStatus>;

    /// One port.
    fn port(&self, name: &str) -> Option<PortStatus> {
        self.ports().into_iter().find(|p| p.name == name)
    }

    /// FDB entries that `filter` means, sorted by VLAN and address, at most [`FdbFilter::limit`] of them, and how
    /// many there are.
    fn fdb(&self, filter: &FdbFilter) -> FdbPage;

    /// Forgets the *learned* entries that `filter` means and says how many there were. Static ones go by
    /// [`Backend::apply`].
    fn fdb_forget(&self, filter: &FdbFilter) -> u64;

    /// All counters. Totals and ports are taken together, as far as running workers allow.
    fn stats(&self) -> Stats;

    /// All workers, in the order of their numbers.
    fn workers(&self) -> Vec<WorkerStatus>;

    /// Starts a capture, a pcapng file from its first byte on, on a port that exists. It ends when the sender is
    /// dropped, and has to end when [`crate::CaptureSender`] says that nobody reads any more. `None` when there is no
    /// such port.
    fn capture(&self, request: &CaptureRequest) -> Option<CaptureStream>;
}

/// What [`Backend::fdb_forget`] and a removed static entry come to.
impl Forgotten {
    /// Whether nothing was there to go.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.removed == 0 && self.forgotten == 0
    }
}
