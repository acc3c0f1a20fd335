//! What the API needs from the daemon.

use fabnic_model::{Change, Config, Domain, Edit, EditError, Refused, Tenant};

use crate::{
    BindingFilter, BindingStatus, CaptureRequest, CaptureStream, ConnectionFilter, ConnectionPage,
    ConntrackStatus, EventBus, FdbFilter, FdbPage, FdbStatus, FlowFilter, FlowStatus, Forgotten, GroupStatus,
    Health, LldpStatus, MdbFilter, MdbVlan, MeterFilter, MeterStatus, MirrorStatus, MulticastStatus,
    PortStatus, RecentDrop, RuleStatus, StateRestored, StateSaved, StateStatus, Stats, TenantStatus,
    TraceReport, TraceRequest, WorkerStatus,
};

/// Why a configuration was not applied. In every case nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The configuration is wrong, here: a CPU that the host does not have, a key that this daemon cannot change.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// One thing cannot be changed: it is not there, or there already, or not the domain's.
    #[error("{0}")]
    Edit(#[from] EditError),
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
    /// When it cannot be, or the domain may not make one of the changes; then the running configuration is as it was.
    fn apply(&self, domain: &Domain, desired: Config, dry_run: bool) -> Result<Vec<Change>, ApplyError>;

    /// Makes edits, all of them or none, and says what changed. The cost of those about rules and groups does not depend
    /// on how much else there is.
    ///
    /// # Errors
    /// As [`Backend::apply`].
    fn edit(&self, domain: &Domain, edits: &[Edit], dry_run: bool) -> Result<Vec<Change>, ApplyError>;

    /// The tenants, as configured.
    fn tenants(&self) -> Vec<Tenant>;

    /// The tenants that a domain may see, with what they have.
    fn tenant_status(&self, domain: &Domain) -> Vec<TenantStatus>;

    /// The rules that a domain may see.
    fn rules(&self, domain: &Domain) -> Vec<RuleStatus>;

    /// One of them, by the name that it has for the domain.
    fn rule(&self, domain: &Domain, name: &str) -> Option<RuleStatus>;

    /// The groups that a domain may see.
    fn groups(&self, domain: &Domain) -> Vec<GroupStatus>;

    /// The mirrors that a domain may see.
    fn mirrors(&self, domain: &Domain) -> Vec<MirrorStatus>;

    /// The flows with the most bytes that a domain may see, the largest first.
    fn flows(&self, domain: &Domain, filter: &FlowFilter) -> Vec<FlowStatus>;

    /// The bindings of addresses that a domain may see and that `filter` means.
    fn bindings(&self, domain: &Domain, filter: &BindingFilter) -> Vec<BindingStatus>;

    /// Forgets the *learned* bindings that `filter` means, and says how many there were.
    fn bindings_forget(&self, filter: &BindingFilter) -> u64;

    /// A page of the connections that a domain may see and that `filter` means.
    fn connections(&self, domain: &Domain, filter: &ConnectionFilter) -> ConnectionPage;

    /// Forgets the connections that a domain may see and that `filter` means, and says how many there were.
    fn connections_flush(&self, domain: &Domain, filter: &ConnectionFilter) -> u64;

    /// The table of connections.
    fn conntrack(&self) -> ConntrackStatus;

    /// What is known of saved state.
    fn state(&self) -> StateStatus;

    /// Saves state now.
    ///
    /// # Errors
    /// When it cannot be saved.
    fn state_save(&self) -> Result<StateSaved, ApplyError>;

    /// The state of one port, as bytes.
    ///
    /// # Errors
    /// When there is no such port, or it is too much.
    fn state_export(&self, port: &str) -> Result<Vec<u8>, ApplyError>;

    /// Takes in the state of a port, as another switch gave it.
    ///
    /// # Errors
    /// When the bytes are no state of one port, or the port is not there; then nothing has changed.
    fn state_import(&self, port: &str, bytes: &[u8]) -> Result<StateRestored, ApplyError>;

    /// The meters that a domain may see and that `filter` means.
    fn meters(&self, domain: &Domain, filter: &MeterFilter) -> Vec<MeterStatus>;

    /// The members of groups that a domain may see and that `filter` means.
    fn mdb(&self, domain: &Domain, filter: &MdbFilter) -> Vec<MdbVlan>;

    /// How many listen to how many groups, by VLAN.
    fn multicast(&self) -> Vec<MulticastStatus>;

    /// Neighbours that announced themselves by LLDP.
    fn lldp(&self) -> Vec<LldpStatus>;

    /// What would become of a frame.
    ///
    /// # Errors
    /// When the request makes no sense.
    fn trace(&self, request: &TraceRequest) -> Result<TraceReport, Refused>;

    /// Frames that were dropped lately at a port, the newest first. `None` when there is no such port.
    fn recent_drops(&self, port: &str) -> Option<Vec<RecentDrop>>;

    /// Where events go.
    fn events(&self) -> &EventBus;

    /// All ports, in the order of their numbers.
    fn ports(&self) -> Vec<PortStatus>;

    /// One port.
    fn port(&self, name: &str) -> Option<PortStatus> {
        self.ports().into_iter().find(|p| p.name == name)
    }

    /// FDB entries that `filter` means, sorted by VLAN and address, at most [`FdbFilter::limit`] of them, and how
    /// many there are.
    fn fdb(&self, filter: &FdbFilter) -> FdbPage;

    /// What the table did, and what it would not learn: of all, and of the ports that a domain may see.
    fn fdb_status(&self, domain: &Domain) -> FdbStatus;

    /// Forgets the *learned* entries that `filter` means and says how many there were. Static ones go by
    /// [`Backend::apply`].
    fn fdb_forget(&self, filter: &FdbFilter) -> u64;

    /// All counters. Totals and ports are taken together, as far as running workers allow.
    fn stats(&self) -> Stats;

    /// All workers, in the order of their numbers.
    fn workers(&self) -> Vec<WorkerStatus>;

    /// Starts a capture, a pcapng file from its first byte on, on a port that exists. It ends when the sender is
    /// dropped, and has to end when [`crate::CaptureSender`] says that nobody reads any more. `None` when there is no
    /// such port. Ports that the domain does not see are not named in it.
    fn capture(&self, domain: &Domain, request: &CaptureRequest) -> Option<CaptureStream>;
}

/// What [`Backend::fdb_forget`] and a removed static entry come to.
impl Forgotten {
    /// Whether nothing was there to go.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.removed == 0 && self.forgotten == 0
    }
}
