//! Connection tracking: which packets belong together, and what may be expected of them.
//!
//! ```text
//!   packet --tuple--> shard (lock) --> slot (lock) --> state: new, est, rel, rpl, inv, snat, dnat
//!      |                                 ^
//!      |  first of a connection: commit -+- quotas, tuple of the answers (translation), both entries, wheel
//!      '- of a cached flow: handle ------'  track: TCP state and window, deadline, counters; translate
//! ```
//!
//! # Life cycle
//!
//! A look-up ([`Conntrack::lookup`]) only looks: the first packet of a connection is `new`, and nothing is remembered until
//! a rule commits it ([`Conntrack::commit`]). From then on every packet is tracked ([`Conntrack::track`]) by its handle; where
//! no state moves (all but TCP), the first of each second is, and the flow cache counts the others and tells later. A
//! connection is forgotten when no packet came for the time of its class ([`Timeout`]); [`Conntrack::expire`] does that, a
//! bounded piece at a time.
//!
//! # What is tracked
//!
//! TCP with its states and windows ([`tcp`]); UDP, one way, both ways, or a stream; ICMP and ICMPv6 queries by their
//! identifier; ICMP errors, which are `rel` to the connection of the packet that they carry; every other IP protocol by its
//! addresses. Of a fragmented datagram only the first fragment has ports: later ones are `inv`, unless they are recognised
//! by the first ([`fragments`]). Packets that are not IP, and neighbour discovery, are not tracked: no bit but `trk`.
//!
//! # Concurrency and memory
//!
//! All workers share it. The table is cut into shards by the hash of the tuple, which is the same for both directions; a
//! look-up takes a shard's lock and a slot's, tracking a slot's only. Order: shards ascending, then a slot. A connection
//! takes some 280 bytes in all, of a slab that grows to what was needed and is never larger than its limit.
//!
//! # Invariants
//! - Every live connection counts once in its zone's, its port's and the table's quota.
//! - Whatever a rule can see of a tuple changes together with the version of its hash.

mod connection;
mod fragments;
mod nat;
mod port;
mod related;
mod segment;
mod settings;
mod slab;
mod state;
mod table;
mod tcp;
mod translate;
mod tuple;
mod wheel;

#[cfg(test)]
mod tests;

pub use connection::{ConnectionEntry, Direction};
pub use nat::{Nat, NatRange};
pub use port::{Incoming, OneToOne, PortTracking};
pub use settings::{Quota, Timeout, Zone, ZoneCounters, ZoneSettings};
pub use state::CtState;
pub use table::{ConnectionPage, Conntrack, ConntrackCounters};
pub use tcp::TcpState;
pub use tuple::Tuple;

pub(crate) use connection::{Handle, Packet, Tracked};
pub(crate) use port::Tracking;
pub(crate) use table::{Connected, Refusal, Standing, TrackedRun};
