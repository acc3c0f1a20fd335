//! A user-space driver for Adaptive Virtual Functions: one driver for every generation of the card.
//!
//! # Role
//!
//! It does with the base what the base can, and uses the rest as far as it was granted. What carries its register
//! accesses and where its memory comes from is a [`Bus`]: a device model in the same process ([`InProcess`]), and with
//! the same few methods a vfio-user client or VFIO.
//!
//! ```text
//!   application --- Driver: reset, mailbox, negotiation, link, statistics
//!                     |-- Transmit  send: bytes and what is to be done with them
//!                     |-- Receive   receive: bytes and what was found out about them
//!                     v
//!                   Bus: registers, DMA memory, vectors
//! ```
//!
//! # Life cycle
//!
//! 1. [`Driver::open`] resets the function, sets up the mailbox, agrees on a version and on capabilities.
//! 2. [`Driver::start`] makes rings, posts buffers, tells the device, enables queues, and waits for the link event.
//! 3. [`Driver::transmit`] and [`Driver::receive`] give the queues; [`Driver::poll`] looks at the mailbox.
//! 4. [`Driver::was_reset`] tells of a reset by the device. Then everything is negotiated anew: [`Driver::reopen`].
//!
//! # Invariants
//!
//! * A device is believed no index: what it writes back is checked against what was posted.
//! * Rings and limits are those that real cards demand: bases on 128 bytes, lengths in steps of 32, receive tails in
//!   steps of 8, at most 8 descriptors a packet or segment, positions with every checksum request.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation))]

mod arena;
mod bus;
mod driver;
mod error;
mod mailbox;
mod receive;
mod repeat;
mod transmit;

pub use bus::{Bus, InProcess};
pub use driver::{ALL_CAPS, Driver, Link, Options};
pub use error::Error;
pub use fabnic_avf_spec as spec;
pub use receive::{Receive, Received};
pub use repeat::Recycled;
pub use transmit::{IpHeader, Transmit, TransportHeader, Work};
