//! virtio-net: the para-virtual NIC (virtio 1.x, section 5.1).
//!
//! # Role
//!
//! The *model* ([`VirtioNet`]) says which features are offered, holds the configuration space and makes queues when a
//! transport has rings for them. The *queues* move frames between a guest's rings and the switch, whole bursts at a
//! time; they know rings ([`fabnic_virtqueue`]) and frames ([`fabnic_port`]), and no transport.
//!
//! ```text
//!   guest TX ring --> Transmit (Ingress) --> Burst --> switch --> Receive (Egress) --> guest RX ring
//!                     header and head                             header and head, then the rest,
//!                     become private                              in one copy from the sender's memory
//! ```
//!
//! # Life of a queue
//!
//! 1. The transport opens it ([`open_transmit`], [`open_receive`]) with map, ring and features, and the model puts it in
//!    the cell of its port. Both are compiled once for each ring layout.
//! 2. A worker receives and completes, or delivers.
//! 3. With the cell's lock held, the transport changes what it must ([`QueueControl`]): memory, notifications, log.
//! 4. It is taken out; [`QueueControl::base`] says where another back end goes on.
//!
//! # Invariants
//!
//! * A frame is judged on private bytes, which are those that the receiver gets.
//! * A frame is delivered whole or not at all. What a receiver did not negotiate is finished in software
//!   ([`fabnic_port::finish`]); what it did goes untouched.
//! * Each chain of a transmit ring is given back, whatever became of its frame.
//! * For one burst of a queue: one look at the ring's index, one publication, at most one interrupt; no allocation, and
//!   no system call but the interrupt's.

mod config_space;
mod features;
mod model;
mod queue;
mod receive;
mod transmit;

#[cfg(test)]
mod tests;

pub use features::Features;
pub use model::{NicSettings, OnRarp, Told, VirtioNet, VirtioNetConfig};
pub use queue::{QueueControl, QueueSetup, open_receive, open_transmit, receive_control, transmit_control};
pub use receive::Receive;
pub use transmit::Transmit;
