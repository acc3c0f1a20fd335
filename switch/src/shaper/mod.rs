//! Shaping where nothing is stored: a sender over its rate is left unread.
//!
//! The switch keeps no packet, so it has no queue to shape. It does not need one: what a sender may not send yet waits in
//! the sender's own ring, in its own memory, and its driver sees a full ring, as with a slow wire.
//!
//! What it cannot do: order packets inside a ring (the guest's own queues and qdisc do that), or shape what comes from a
//! wire (a meter polices it). A rate is common to all queues of a port, whichever workers poll them.

mod limit;

pub use limit::Rate;
pub(crate) use limit::RateLimiter;
