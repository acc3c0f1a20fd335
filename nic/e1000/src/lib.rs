//! The Intel 82540EM: the NIC that every operating system has a driver for (8086:100e, "e1000").
//!
//! # Role
//!
//! [`E1000`] is a [`fabnic_pci::Function`]: a transport (vfio-user) gives it register accesses and memory, it gives a
//! [`fabnic_port::Port`] two queues. Nothing here knows sockets, threads or a clock.
//!
//! ```text
//!                 transport's thread                                  workers
//!
//!  BAR0, I/O --> model: CTRL, RCTL, TCTL, ... --+-- install, remove --> cells
//!                eeprom   Microwire, EERD       |
//!                phy      MDI, link             +--> shared: ring registers, filter, causes, statistics
//!                                                          ^               ^
//!  guest TX ring ----------------------------> transmit (Ingress) --> Burst --> switch
//!  guest RX ring <---------------------------- receive (Egress)  <----------- switch
//! ```
//!
//! The *spec* says what the data sheet says; the *model* is the register side; the *queues* work the rings in place: a
//! worker reads descriptors and tails from memory and is only told of a tail by a trap when it sleeps.
//!
//! # Life cycle
//!
//! 1. Configuration makes an [`E1000`] on a port and gives it to a transport. [`E1000Settings`] stays with who made it.
//! 2. A VMM comes ([`fabnic_pci::Function::attach`]) and gives memory. A port that had stopped itself may go on.
//! 3. The driver resets the device, sets up rings and enables them: queues are installed in the port's first cells.
//! 4. It disables them, resets the device, or its VMM goes: the queues are removed, and nothing is in flight.
//!
//! A device can be stopped, saved, and restored as another one: its whole state but the guest's memory is in the bytes that
//! [`fabnic_pci::Function::save`] gives.
//!
//! # Invariants
//!
//! * A driver's descriptor is read once for each decision; a frame is judged on private bytes, which the receiver gets.
//! * Every loop over a ring is bounded by a burst and by the ring. What cannot be is a [`fabnic_port::Fault`] of this port;
//!   registers answer on.
//! * The interrupt line is what causes and mask say, but for an interval in which it is held low.
//! * For one burst of a queue: one look at the tail, one move of the head, at most one interrupt; no allocation, no system
//!   call but the interrupt's.

mod eeprom;
mod filter;
mod interrupt;
mod model;
mod phy;
mod receive;
mod registers;
mod rescue;
mod ring;
mod shared;
pub mod spec;
mod state;
mod statistics;
mod transmit;

pub use model::{E1000, E1000Config, E1000Settings};
