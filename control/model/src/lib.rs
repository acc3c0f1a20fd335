//! Desired state: the TOML file, its types, its checks, its difference to what runs.
//!
//! Everything that Fabnic is told, it is told as one [`Config`]: by the file that the daemon starts with, by
//! `fabnic apply`, or by an API call that changes one port (which is turned into "the running configuration with
//! this port changed"). There is no other way in, so there is one place where input is judged.
//!
//! ```text
//!   TOML text ──parse──┐                                     ┌── "port vm1: vlan access 10 -> access 20"
//!                      ├──► Config ──check──► Config ──diff──┤        Vec<Change>, each live / re-create / restart
//!   JSON (API) ──serde─┘        │                            └── applied as one, or not at all, by the agent
//!                               ▼
//!                     Refused: key, line, what is wrong, what was expected, did you mean
//! ```
//!
//! * [`config`] has the types, in exactly the shape of the file. Their doc comments *are* the reference in
//!   `docs/configuration.md` (module [`mod@reference`]).
//! * [`vlan`] and [`mac`] have the values that cannot be wrong once they exist.
//! * [`mod@parse`] turns text into a `Config` and says on which line it could not.
//! * [`mod@check`] has the rules that go across keys: duplicate names, keys that do not fit the port's kind, ranges.
//! * [`kind`] gives a port as what it is (`VirtioNet`, `Tap`, `Pcap`, `Loopback`) with all defaults filled in: what
//!   the agent works from.
//! * [`mod@diff`] lists what has to change; [`edit`] changes one port or one FDB entry of a configuration.
//!
//! Invariants: a `Config` that came out of [`parse::parse`] or passed [`Config::check`] can be read through
//! [`config::Port::kind`] without an error, and `diff::apply(running, &diff(running, desired))` equals `desired`.

pub mod answer;
pub mod check;
pub mod config;
pub mod conntrack;
pub mod desired;
pub mod diff;
pub mod edit;
pub mod group;
pub mod guard;
pub mod kind;
pub mod mac;
pub mod meter;
pub mod mirror;
pub mod multicast;
pub mod object;
pub mod parse;
pub mod priority;
pub mod rate;
pub mod reference;
pub mod refusal;
pub mod rule;
pub mod storm;
pub mod tenant;
pub mod vlan;
pub mod word;

pub use answer::{Answer, Lldp, StaticMember, VlanTable};
pub use config::{AdminState, Config, Daemon, Nic, Port, Role, StaticFdb, Uplink, VfioUser, VhostUser};
pub use conntrack::{Conntrack, PortNat, Zone};
pub use desired::{Desired, Edit, Kind};
pub use diff::{Change, Effect, FieldChange, apply, diff};
pub use edit::{EditError, config_from_json, port_from_json};
pub use group::Group;
pub use guard::Guard;
pub use kind::PortKind;
pub use mac::Mac;
pub use meter::Meter;
pub use mirror::Mirror;
pub use multicast::Multicast;
pub use object::{Object, qualified};
pub use parse::parse;
pub use priority::{Priority, VlanProto};
pub use rate::{Burst, Police, Rate};
pub use refusal::{Refusal, Refused};
pub use rule::Rule;
pub use storm::Storm;
pub use tenant::{Domain, Tenant};
pub use vlan::{Vid, Vlan, VlanSet};
pub use word::WordError;

/// Largest ring that a driver may set up when the configuration does not say.
pub const DEFAULT_QUEUE_SIZE: u16 = 4096;
/// Queue pairs of a `virtio-net` port when the configuration does not say.
pub const DEFAULT_QUEUES: u16 = 8;
/// Most queue pairs of a port: what virtio's control queue and every VMM can address (VIRTIO 1.3, 5.1.6.5.5).
pub const MAX_QUEUES: u16 = 128;
/// Most queue pairs of an `avf` port.
pub const MAX_AVF_QUEUES: u16 = 16;
/// The newest generation of cards that an `avf` port can pretend to be of.
pub const MAX_AVF_GENERATION: u8 = 4;
/// The generation where none is said.
pub const DEFAULT_AVF_GENERATION: u8 = 3;
/// Largest configuration text that is read, in bytes. 100,000 ports with all keys written out fit.
pub const MAX_TEXT: usize = 64 << 20;
