//! A fabricated Intel Adaptive Virtual Function: the card that stock drivers (Linux `iavf`, DPDK, VPP, OpenBSD) bind to.
//!
//! # Role
//!
//! An AVF has a base that every generation of cards offers and everything else by negotiation, over a mailbox, with the
//! card's physical function. Here the physical function is this crate, and the card is a [`Port`](fabnic_port::Port).
//!
//! ```text
//!   transport thread                                         workers
//!   Function::read, write -- Avf (device.rs)
//!                             |  registers, mailbox
//!                             |  control: virtchnl requests, policy
//!                             v
//!                            Queues ---- install, remove, change -----> cells of the port
//!                                        (with the cell's lock)          |
//!            tails, ITRs (Doorbells) <------ polled ------- Transmit (Ingress) --> Burst --> switch
//!            vectors (Vectors) <------------- causes -----+ Receive (Egress) <------------- switch
//!                 |                                          |
//!                 v Interrupts::msix                         v guest's rings
//! ```
//!
//! # Life cycle
//!
//! 1. [`Avf::new`] makes the function for a port; a transport attaches interrupts and memory.
//! 2. The driver sets up the mailbox and asks: VERSION, GET_VF_RESOURCES. What was granted is what the rest of the
//!    session may use (`control/`).
//! 3. It says where rings are and enables queues: they come into the port's cells, and workers poll them.
//! 4. A reset, by message, by register, by the administrator or because the VMM went, takes all queues out and forgets
//!    the session. The function's address and number of queues outlive it.
//!
//! # Invariants
//!
//! * What is granted is what the data path does: [`Generation`] lists it. What was not granted is refused with the status
//!   that hardware gives.
//! * A driver that enables a vector after it found its rings empty never waits for what was written back in between
//!   (`vector.rs`).
//! * When DISABLE_QUEUES, a reset or [`fabnic_pci::Function::set_memory`] is answered, nothing of the queue is in flight.
//! * A descriptor is read once; a frame is judged on private bytes, which are those that the receiver gets; a receive
//!   descriptor is written when all bytes of its frame are.
//! * For one burst of a queue: one look at its tail, at most one interrupt; no allocation, and no system call but the
//!   interrupt's.
//! * A mailbox keeps a bounded number of answers; a driver that does not take them is not served.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation))]

mod bell;
mod classify;
mod control;
mod crc;
mod device;
mod director;
mod doorbell;
mod filter;
mod interrupts;
mod mailbox;
mod offload;
mod queues;
mod receive;
mod receive_ring;
mod rescue;
mod rss;
mod settings;
mod stats;
mod sync;
mod transmit;
mod usual;
mod vector;

pub use device::Avf;
pub use settings::{Control, Generation, Settings};
