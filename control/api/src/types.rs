//! What the API says: the JSON types.
//!
//! "rx" and "tx" are seen from the switch, as on the port of a physical switch: rx is what came *from* the port's
//! peer, tx is what was delivered *to* it. Counters start at zero when the port is made and only grow.

use std::collections::BTreeMap;

use fabnic_model::{AdminState, Change, Mac, Role, Vid, Vlan, VlanSet};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Frames dropped, by reason. The reasons are the words of `port`'s drop reasons, such as `ring_full`.
pub type DropCounts = BTreeMap<String, u64>;

fn drop_counts() -> utoipa::openapi::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("Frames dropped, by reason"))
        .additional_properties(Some(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0))))
        .build()
}

/// Whether the daemon works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Whether the configuration is applied and every worker has moved lately or sleeps.
    pub healthy: bool,
    /// What is wrong, when something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Version of the daemon.
    pub version: String,
    /// Process ID of the daemon.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Ports configured.
    pub ports: usize,
    /// Ports whose link is up.
    pub ports_up: usize,
    /// Worker threads.
    pub workers: usize,
}

/// Whether frames can pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// They can.
    Up,
    /// They cannot.
    Down,
}

/// Format of a virtqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RingFormat {
    /// Descriptor table, available and used ring (VIRTIO 1.3, 2.7).
    Split,
    /// One ring of descriptors (VIRTIO 1.3, 2.8).
    Packed,
}

/// A port as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortStatus {
    /// Number of the port. Another one after the port was re-created.
    pub id: u32,
    /// Name of the port.
    pub name: String,
    /// Tenant whose port it is; infrastructure's if nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `virtio-net`, `avf`, `e1000`, `tap`, `pcap` or `loopback`.
    pub kind: String,
    /// Configured link state.
    pub state: AdminState,
    /// Link state.
    pub link: LinkState,
    /// Why the port was stopped, when a fault of its peer stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// MAC address of the card that is offered; uplinks have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Largest layer-3 packet in a frame, in bytes.
    pub mtu: u16,
    /// VLANs.
    pub vlan: Vlan,
    /// Whether source addresses are learned.
    pub learning: bool,
    /// Addresses learned on the port now.
    pub fdb_learned: u64,
    /// Most addresses that are learned.
    pub fdb_limit: u32,
    /// Times that an address was not learned because the port had as many as it may have.
    #[serde(default)]
    pub fdb_refused: u64,
    /// Queue pairs.
    pub queues: QueuePairs,
    /// The other side of a socket; TAP, pcap and loopback have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

/// Queue pairs of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueuePairs {
    /// As configured: the most there can be.
    pub configured: u16,
    /// Set up and enabled by the peer, both rings of the pair.
    pub ready: u16,
}

/// The other side of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Path of the socket.
    pub socket: String,
    /// Who listens on it.
    pub role: Role,
    /// Whether somebody is connected.
    pub connected: bool,
    /// Times that somebody connected.
    #[serde(default)]
    pub connections: u64,
    /// Names of the features that were negotiated, such as `VIRTIO_NET_F_MRG_RXBUF`.
    pub features: Vec<String>,
    /// Format of its rings, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingFormat>,
    /// What the VM has made of a PCI card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciStatus>,
}

/// A PCI card in a VM, over vfio-user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PciStatus {
    /// Whether the driver lets the card access memory (the bus master bit).
    pub bus_master: bool,
    /// Bytes of guest memory that it can reach then.
    pub memory_bytes: u64,
    /// MSI-X vectors of the card; 0 if it has only INTx.
    pub vectors: u16,
    /// Vectors that the guest has unmasked.
    pub vectors_in_use: u16,
    /// Whether the guest writes doorbells without leaving the VM.
    pub mmap: bool,
    /// Accesses to memory that the VMM does not share, refused, since the port was made.
    pub faults: u64,
    /// Reads of registers that trapped the guest, since the port was made.
    #[serde(default)]
    pub register_reads: u64,
    /// Writes of registers that trapped the guest, since the port was made.
    #[serde(default)]
    pub register_writes: u64,
    /// Interrupts that the driver asked for by itself, because its timer wanted to know or saw a queue stand still.
    #[serde(default)]
    pub software_interrupts: u64,
    /// Those of them that found work of which no interrupt had told: a defect of the card.
    #[serde(default)]
    pub lost_interrupts: u64,
    /// Requests of the VMM that were refused, in this session.
    pub refused: u64,
    /// The last one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<String>,
}

/// How an FDB entry came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FdbKind {
    /// Seen as a source address.
    Learned,
    /// Configured.
    Static,
}

/// An entry of the forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbEntry {
    /// VLAN.
    pub vlan: Vid,
    /// Address of the station.
    pub mac: Mac,
    /// Name of the port behind which it is.
    pub port: String,
    /// How the entry came.
    pub kind: FdbKind,
    /// Seconds since it was last seen as a source address; 0 for a static entry.
    pub age_seconds: u64,
    /// Times that it moved from one port to another.
    pub moves: u64,
}

/// Which FDB entries are meant. All keys together; without any, all entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FdbFilter {
    /// Only of this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Only in this VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    pub vlan: Option<Vid>,
    /// Only this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub mac: Option<Mac>,
    /// Only learned or only static ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub kind: Option<FdbKind>,
    /// Most entries in the answer, up to 1048576; 1024 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl FdbFilter {
    /// Entries in an answer unless said.
    pub const DEFAULT_LIMIT: usize = 1024;
    /// Most entries in an answer.
    pub const MAX_LIMIT: usize = 1 << 20;

    /// Most entries in the answer, within bounds.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::DEFAULT_LIMIT).min(Self::MAX_LIMIT)
    }

    /// Whether an entry is meant.
    #[must_use]
    pub fn matches(&self, entry: &FdbEntry) -> bool {
        self.port.as_ref().is_none_or(|p| *p == entry.port)
            && self.vlan.is_none_or(|v| v == entry.vlan)
            && self.mac.is_none_or(|m| m == entry.mac)
            && self.kind.is_none_or(|k| k == entry.kind)
    }
}

/// FDB entries, as many as were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbPage {
    /// Entries that were meant, also those that are not in this answer.
    pub total: u64,
    /// Entries, sorted by VLAN and address.
    pub entries: Vec<FdbEntry>,
}

/// What the forwarding database did, and what it would not learn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbStatus {
    /// The whole table. Absent for tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<FdbTable>,
    /// Ports that have learned something, or would have.
    pub ports: Vec<FdbOfPort>,
}

/// The forwarding database as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbTable {
    /// Entries now, static ones among them.
    pub entries: u64,
    /// The most.
    pub limit: u64,
    /// Addresses that were learned; those that moved do not count again.
    pub learned: u64,
    /// Times that a learned address changed its port.
    pub moves: u64,
    /// Times that an address was held where it was because it moved too often.
    pub freezes: u64,
    /// Addresses that were forgotten because nobody had them any more.
    pub aged: u64,
    /// Times that an address was not learned.
    pub refused: FdbRefusals,
}

/// What a port has learned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbOfPort {
    /// Name of the port.
    pub port: String,
    /// Addresses now.
    pub learned: u64,
    /// The most.
    pub limit: u32,
    /// Times that an address that was seen on the port was not learned there.
    pub refused: FdbRefusals,
}

/// Times that an address was not learned where it was seen, by cause. A flow that goes on counts when it is decided on, not
/// for each frame; its frames go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbRefusals {
    /// The port had learned as many as it may.
    pub port_limit: u64,
    /// The ports of its tenant had.
    pub tenant_limit: u64,
    /// The table was full.
    pub table_full: u64,
    /// The address sticks to another port.
    pub sticky: u64,
    /// The address is held on another port, because it moved too often.
    pub frozen: u64,
    /// The address is another port's by configuration.
    #[serde(rename = "static")]
    pub is_static: u64,
}

impl FdbRefusals {
    /// By their names.
    #[must_use]
    pub const fn by_cause(&self) -> [(&'static str, u64); 6] {
        [
            ("port_limit", self.port_limit),
            ("tenant_limit", self.tenant_limit),
            ("table_full", self.table_full),
            ("sticky", self.sticky),
            ("frozen", self.frozen),
            ("static", self.is_static),
        ]
    }
}

/// How many learned FDB entries were forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forgotten {
    /// Static entries that were removed from the configuration.
    pub removed: u64,
    /// Learned entries that were forgotten.
    pub forgotten: u64,
}

/// A port's VLANs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VlanMembership {
    /// Name of the port.
    pub port: String,
    /// VLAN of frames without a tag, both ways. Absent: they are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvid: Option<Vid>,
    /// VLANs that pass tagged.
    pub tagged: VlanSet,
}

/// Counters of a port or of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Frames received from the peer, also those that were dropped.
    pub rx_frames: u64,
    /// Bytes in them, without virtio headers.
    pub rx_bytes: u64,
    /// Frames delivered to the peer.
    pub tx_frames: u64,
    /// Bytes in them, without virtio headers.
    pub tx_bytes: u64,
    /// Frames received from the peer and dropped before they had a destination, by reason.
    #[schema(schema_with = drop_counts)]
    pub rx_drops: DropCounts,
    /// Frames bound for the peer and dropped, by reason.
    #[schema(schema_with = drop_counts)]
    pub tx_drops: DropCounts,
    /// Bursts moved, in both directions.
    pub bursts: u64,
    /// Interrupts sent to the peer.
    pub calls: u64,
    /// Notifications received from the peer.
    pub kicks: u64,
}

/// Counters of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortStats {
    /// Number of the port.
    pub id: u32,
    /// Name of the port.
    pub name: String,
    /// Sums over the queues, and what was dropped before a queue was chosen.
    #[serde(flatten)]
    pub counters: Counters,
    /// Each queue pair that was ever used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueStats>,
}

/// Counters of a queue pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueStats {
    /// Number of the pair, from 0.
    pub queue: u16,
    /// Its counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Sums over the switch since it started, ports that are gone included.
///
/// The law: `received + replicated = delivered + dropped`, as soon as no frame is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SwitchTotals {
    /// Frames received from all ports.
    pub received: u64,
    /// Copies made beyond the first when a frame goes to several ports.
    pub replicated: u64,
    /// Frames delivered to all ports.
    pub delivered: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Frames dropped, by reason. Sums up to `dropped`.
    #[schema(schema_with = drop_counts)]
    pub drops: DropCounts,
}

impl SwitchTotals {
    /// Frames that are neither delivered nor dropped yet: `received + replicated - delivered - dropped`.
    #[must_use]
    pub fn in_flight(&self) -> i128 {
        i128::from(self.received) + i128::from(self.replicated)
            - i128::from(self.delivered)
            - i128::from(self.dropped)
    }
}

/// All counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Sums.
    pub totals: SwitchTotals,
    /// Each port.
    pub ports: Vec<PortStats>,
}

/// Sizes of the bursts that [`WorkerStatus::burst_sizes`] counts, in frames.
pub const BURST_SIZES: [&str; 7] = ["1", "2-3", "4-7", "8-15", "16-31", "32-63", "64"];

/// A worker's flow cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowCache {
    /// Frames whose flow was found.
    pub hits: u64,
    /// Frames that walked the pipeline.
    pub misses: u64,
    /// Flows in it now.
    pub entries: u64,
    /// Flows that it can hold.
    pub capacity: u64,
}

/// A thread that forwards packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    /// Number of the worker, from 0.
    pub id: u32,
    /// CPU to which it is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// TSC cycles spent on bursts.
    pub busy_cycles: u64,
    /// TSC cycles spent on polling in vain and on sleeping.
    pub idle_cycles: u64,
    /// Times that it went to sleep.
    pub sleeps: u64,
    /// Times that something woke it.
    pub wakeups: u64,
    /// Frames delivered or dropped.
    pub packets: u64,
    /// Bursts received.
    pub bursts: u64,
    /// Busy cycles a packet, since it started. Worked out from the two when the backend leaves it zero.
    #[serde(default)]
    pub cycles_per_packet: f64,
    /// Bursts by size: 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64 frames.
    pub burst_sizes: [u64; 7],
    /// Queues that it polls.
    #[serde(default)]
    pub queues: u64,
    /// Its flow cache.
    pub flow_cache: FlowCache,
    /// Cycles of the TSC a second.
    pub tsc_hz: u64,
}

/// What an apply did, or would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// Whether it was only asked what would be done.
    pub dry_run: bool,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// Which way a captured frame goes, seen from the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureDirection {
    /// From the peer.
    Rx,
    /// To the peer.
    Tx,
    /// Both.
    #[default]
    Both,
}

/// What is to be captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CaptureRequest {
    /// Name of the port.
    pub port: String,
    /// Most bytes kept of a frame, 1 to 262144; all unless said.
    #[serde(default = "CaptureRequest::max_snaplen")]
    #[param(minimum = 1, maximum = 262_144)]
    pub snaplen: u32,
    /// Which way.
    #[serde(default)]
    #[param(inline)]
    pub direction: CaptureDirection,
    /// End after so many frames; unless said, when the client goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl CaptureRequest {
    /// Longest piece of a frame that is kept, in bytes: what tcpdump takes for "all".
    pub const MAX_SNAPLEN: u32 = 262_144;

    const fn max_snaplen() -> u32 {
        Self::MAX_SNAPLEN
    }

    /// All frames of a port, both ways.
    #[must_use]
    pub fn all(port: impl Into<String>) -> Self {
        Self { port: port.into(), snaplen: Self::MAX_SNAPLEN, direction: CaptureDirection::Both, count: None }
    }
}
