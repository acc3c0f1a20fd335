//! Shaping where nothing is stored: a sender over its rate, or out of turn, is left unread.
//!
//! The switch keeps no packet, so it has no queue to shape. It does not need one: what a sender may not send yet waits in
//! the sender's own ring, in its own memory, and its driver sees a full ring, as with a slow wire. What is needed is to
//! decide whose ring is read next, and how much of it:
//!
//! ```text
//!                          +-- in debt (max_tx_rate, group): not before ...
//!   queues with a backlog -+-- guaranteed: below min_tx_rate ---------- by priority, in turn by weight  (first)
//!                          +-- best effort ---------------------------- by priority, in turn by weight  (then)
//!                                                                                |
//!   worker: read a burst of at most so many frames  <---- Scheduler -------------'
//!           what was read is charged to: port, group, guarantee, turn, share of a congested receiver
//! ```
//!
//! * [`limit`]: rates. A burst may overdraw; the queue is put off until the debt is paid.
//! * [`schedule`]: whose turn it is: guarantees, strict priorities, weights by deficit round robin.
//! * [`share`]: senders to one congested port. Where a frame goes is only known when it has been read; a sender whose
//!   frames mostly go to a port of which it has had its share is put off, one whose frames go there in part loses those
//!   that are over its share.
//!
//! What it cannot do: order packets inside a ring (the guest's own queues and qdisc do that), shape what comes from a wire
//! (a meter polices it), or share a CPU between queues of different workers: turns are each worker's own, rates are common.

mod limit;
mod schedule;
mod share;

pub use limit::Rate;
pub(crate) use limit::RateLimiter;
pub use schedule::{DEFAULT_WEIGHT, PRIORITIES};
pub(crate) use schedule::{PortShaper, Scheduler, ShaperSettings, Toward};
pub(crate) use share::{Admission, FairShare};
