//! The one boundary: what NICs, uplinks and the switch agree on.
//!
//! # Role
//!
//! Everything that a frame can come from or go to is a [`Port`]: a VM's NIC, an uplink, a file. A port has queues that
//! the switch receives from ([`Ingress`]) and queues that it delivers to ([`Egress`]); both are called once per
//! [`Burst`], so that dynamic dispatch is paid once per up to [`BURST`] frames.
//!
//! ```text
//!   guest TX ring ---- Ingress::receive ----> Burst ---- switch ----> Egress::deliver ----> guest RX ring
//!   TAP read                                  |  up to 64 frames:                           TAP write
//!                                             |  private head + slices of the sender's memory
//!   guest TX ring <--- Ingress::complete -----+  everything delivered: buffers go back
//! ```
//!
//! A packet is never stored here. It lies in the sender's memory until it lies in the receiver's: a [`Frame`] holds a
//! private copy of the first bytes, and says where the rest lies. What is decided is decided on the private bytes, and
//! they are what the receiver gets.
//!
//! # Life cycle
//!
//! 1. Configuration makes a [`Port`]; it exists, with its counters, whether or not a VM is there.
//! 2. When a device becomes ready, its transport installs queues in the port's cells ([`Cell::install`]); the worker
//!    that owns the cell is told through its [`Poller`].
//! 3. The worker locks the ingress cell for one burst: receive, decide, deliver, complete. Delivering locks one egress
//!    cell at a time. No other order of locks exists: ingress before egress, never two of a kind.
//! 4. To stop or change a queue, take its lock ([`Cell::remove`], [`Cell::with`]): between bursts nothing is in flight.
//!
//! # Invariants
//!
//! * received + replicated = delivered + dropped, summed over all ports, whenever no burst is in flight; every drop has
//!   a [`DropReason`].
//! * Counters are written by whoever holds the cell's lock, and read by anybody.
//! * A [`Fault`] (a broken ring, lost memory) stops its own port, with a reason to read.

mod burst;
mod capture;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod counters;
mod decorate;
mod drop_reason;
pub mod finish;
mod frame;
mod guest_filter;
mod loopback;
mod port;
mod queue;
mod recent;

pub use burst::{BURST, Burst, Filler, MAX_SLICES};
pub use capture::{CaptureSink, CaptureSlot, Direction, Verdict};
pub use counters::{Counter, DropCounters, QueueCounters};
pub use decorate::{Faulty, Mishaps};
pub use drop_reason::DropReason;
pub use frame::{Frame, HEAD, HEADER_ROOM, HEADROOM, MAX_FRAME};
pub use guest_filter::{GROUP_BUCKETS, GroupHash, GuestFilter, GuestFilterSlot};
pub use loopback::{LoopbackEgress, LoopbackIngress, MAX_LOOPBACK, attach_loopback, loopback};
pub use port::{LinkState, MAX_QUEUES, Port, PortId, PortKind, Stopped};
pub use queue::{Cell, CellGuard, Egress, Fault, Ingress, Poller, Tally, Token};
pub use recent::{RecentDrop, RecentDrops};
