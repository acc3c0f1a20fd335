//! What joins ports: an embedded switch with the features of a NIC's hardware e-switch.
//!
//! # Role
//!
//! The switch receives bursts from the ingress queues of its ports, decides for each frame where it goes, and delivers.
//! It knows nothing of NICs and uplinks: they meet it in `fabnic-port`.
//!
//! ```text
//!   Switch --- topology (ports and settings, immutable, published whole)
//!     |    --- FDB (shared by all)
//!     |    --- keeper (thread: tick, ageing)
//!     +--- worker (thread, pinned) --- its ingress queues, polled while active
//!              +--- engine: key -> flow cache -> [stages] -> plan -> group -> deliver
//!                           \_ one look-up a frame however many stages there are
//! ```
//!
//! # Life cycle
//!
//! [`Switch::start`] starts the workers; [`Switch::set_ports`] makes a list of ports the switch's ports, as often as
//! configuration changes; queues come and go in the ports' cells by themselves. [`Switch::stop`], or dropping it, ends
//! the workers.
//!
//! # Invariants
//!
//! * A queue is polled by one worker only. A worker holds one ingress lock, and at most one egress lock besides.
//! * The fast path allocates nothing, makes no system call and writes no log line.
//! * received + replicated = delivered + dropped ([`SwitchTotals`]).

mod answer;
mod bell;
mod body;
mod cache;
mod conntrack;
mod damping;
mod deep;
mod deep_flows;
mod deep_key;
mod dress;
mod engine;
mod fdb;
mod flood;
mod floods;
mod flows;
mod guard;
mod inline;
mod key;
mod meter;
mod metering;
mod mirror;
mod multicast;
mod needs;
mod operate;
mod origin;
mod periodic;
mod plan;
mod priority;
mod receive;
mod refusals;
mod rules;
mod saved;
mod settings;
mod shaper;
mod stage;
mod stats;
mod switch;
mod talkers;
mod topology;
mod trace;
mod translation;
mod versions;
mod worker;

/// The atomics of [`bell`], which its test replaces by loom's.
mod sync {
    pub(crate) use core::sync::atomic::{AtomicBool, Ordering, fence};
}

pub use answer::{
    AnswerSettings, AnswerStats, Dhcp6Settings, DhcpSettings, Gateway, LldpId, LldpIdentity, LldpMode,
    LldpNeighbour, RouterSettings,
};
pub use conntrack::{
    ConnectionEntry, ConnectionPage, Conntrack, ConntrackCounters, CtState, Direction as ConnectionDirection,
    Incoming, Nat, NatRange, OneToOne, PortTracking, Quota as ConnectionQuota, TcpState, Timeout, Tuple,
    Zone, ZoneCounters, ZoneSettings,
};
pub use damping::{FREEZES_KEPT, Freeze, MoveDamping};
pub use fdb::{Fdb, FdbEntry, FdbError, FdbKind, FdbQuota};
pub use guard::{Binding, BindingError, BindingOrigin, Bindings, BoundAddress, BpduGuard, GuardSettings};
pub use inline::InlineSwitch;
pub use meter::{
    Algorithm, Charge, Color, ColorAction, ColorAware, FloodKind, MAX_CHAIN, Marking, Meter, MeterError,
    MeterSettings, MeterState, MeterStats, Metered, StormLimit, StormSettings, Unit,
};
pub use metering::{MeterPlace, PortMeterStats};
pub use mirror::{Mirror, MirrorSettings, MirrorStats};
pub use multicast::{
    FilterMode, MOST_ENTRIES as MOST_MULTICAST_ENTRIES, MulticastCount, MulticastGroup, MulticastMember,
    MulticastNumbers, MulticastSide, MulticastStats, MulticastVlan, PortMulticast, QuerierSettings,
    QuerierState, RouterPort, StaticGroup, Unregistered, VlanSnooping,
};
pub use needs::Needs;
pub use origin::LONGEST as LONGEST_OWN_FRAME;
pub use priority::{PrioritySettings, SAME, Trust};
pub use receive::{MacSet, ReceiveFilter};
pub use refusals::{FdbRefusal, FdbRefusals};
pub use rules::{
    Action, Change, ClassifierShape, Connection, CtAction, Direction, Domain, Fragmented, Input, MAX_ACTIONS,
    MAX_GROUP, MAX_MATCHES, Match, RuleCounts, RuleError, RuleId, RuleSpec, RuleView, Rules, Set, Term,
    TransactionError, prefix4, prefix6,
};
pub use saved::{Arrival, FIRST_TICK, Lost, Put, Restored};
pub use settings::{
    NamedMeter, Policy, PortSettings, TenantPolicy, TenantQuota, VlanMode, VlanProtocol, VlanSet,
};
pub use shaper::{DEFAULT_WEIGHT, PRIORITIES, Rate};
pub use stage::stages;
pub use stats::{FdbStats, SwitchTotals, WorkerStats, drops};
pub use switch::{StartError, Switch, SwitchConfig};
pub use talkers::{FlowStats, FlowWay};
pub use trace::{Step, Trace, Way};
pub use translation::{TranslationError, VlanTranslation};
pub use worker::BURST_BUCKETS;
