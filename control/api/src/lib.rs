//! HTTP and JSON on a Unix socket, and metrics.
//!
//! The crate is the daemon's counter, not its back office: it knows paths, status codes, JSON, Prometheus' text and
//! the OpenAPI document, and turns each request into a few calls of one trait, [`Backend`], which the agent
//! implements. Every change of ports and static entries becomes "the running configuration with this changed", is
//! compared and applied as one ([`fabnic_model::diff()`]), so a single `POST` is as all-or-nothing as a whole file.
//!
//! ```text
//!   fabnic, curl, Prometheus            this crate                          the agent
//!   ───────────────────────  HTTP  ─────────────────────────  calls  ─────────────────────
//!   GET  /v1/ports             ──►  ports                       ──►  Backend::ports
//!   PATCH /v1/ports/vm1        ──►  config, edit, check, apply  ──►  Backend::config, apply
//!   GET  /v1/capture?port=vm1  ◄──  pcapng as it comes          ◄──  CaptureSender::try_send
//!   GET  /metrics              ──►  metrics                     ──►  Backend::stats, workers, ports
//! ```
//!
//! Each request is made for a *domain*, infrastructure or a tenant ([`door`] says how that is found out): it sees and changes
//! what is the domain's, and every change and refusal leaves an entry in the [`audit`] log.
//!
//! Life cycle: [`serve`] takes a listener that is already bound (the daemon binds it before it drops its rights),
//! answers until `shutdown` is ready, ends captures, gives requests in flight two seconds, and returns. Backend calls
//! may block: each runs on Tokio's blocking threads. Edits are made one after the other, so that two clients who
//! change a port each do not undo one another.
//!
//! Invariants: no request is larger than [`MAX_BODY`]; every answer that is not a success is an [`ErrorBody`]; a
//! backend that panics costs the one request; a capture client that does not read costs the capture its frames,
//! never a worker its time.

pub mod audit;
pub mod backend;
pub mod capture;
pub mod conn;
pub mod door;
pub mod error;
pub mod events;
pub mod mdb;
pub mod meters;
pub mod metrics;
pub mod policy;
mod policy_routes;
mod routes;
pub mod saved;
pub mod server;
pub mod types;

pub use audit::{Audit, AuditEntry, Who};
pub use backend::{ApplyError, Backend};
pub use capture::{CaptureSender, CaptureStream, SendError, capture_channel};
pub use conn::{
    ConnectionFilter, ConnectionPage, ConnectionSide, ConnectionStatus, ConntrackStatus, ZoneStatus,
};
pub use door::{TenantDoor, hash_of_token};
pub use error::ErrorBody;
pub use events::{Event, EventBus, EventKind};
pub use mdb::{
    MdbAdd, MdbCounters, MdbEntry, MdbFilter, MdbKind, MdbMode, MdbQuerier, MdbRouter, MdbSide, MdbSource,
    MdbVlan, MulticastCount, MulticastStatus,
};
pub use meters::{MeterFilter, MeterPlace, MeterStatus, TokenBucket};
pub use policy::{
    BindingFilter, BindingStatus, DropExplained, FlowFilter, FlowStatus, GroupStatus, LldpStatus, Members,
    MirrorStatus, Passed, RecentDrop, Refused, RuleEdit, RuleStatus, TenantStatus, TraceReport, TraceRequest,
    TraceStep, TraceTarget, WhyFilter,
};
pub use routes::openapi;
pub use saved::{MAX_PORT_STATE, StateRestored, StateSaved, StateStatus};
pub use server::{MAX_BODY, serve};
pub use types::{
    Applied, BURST_SIZES, CaptureDirection, CaptureRequest, Counters, DropCounts, FdbEntry, FdbFilter,
    FdbKind, FdbOfPort, FdbPage, FdbRefusals, FdbStatus, FdbTable, FlowCache, Forgotten, Health, LinkState,
    PciStatus, Peer, PortStats, PortStatus, QueuePairs, QueueStats, RingFormat, Stats, SwitchTotals,
    VlanMembership, WorkerStatus,
};
