//! PCI functions that exist only in software: what a fabricated device is to whoever carries it to a VM.
//!
//! # Role
//!
//! ```text
//!   VMM --- transport (vfio-user: sockets, file descriptors, eventfds)
//!              |  owns the configuration space, decodes messages, keeps the DMA map
//!              |                                    ^
//!              v Function: BAR access, reset, memory | Interrupts: vectors, the INTx line
//!           model (nic/avf, nic/e1000: registers, rings; no sockets, no threads, no clock of its own)
//! ```
//!
//! A model is a [`Function`]: it describes itself ([`Description`]), answers accesses to its BARs and is told which
//! memory it may reach. What it cannot do by itself it asks of the transport through [`Interrupts`]. The transport calls
//! a function from one thread at a time; the queues that a model puts into a port are used by workers meanwhile.
//!
//! [`ConfigSpace`] is the part of a transport that is the same for each of them: the registers that a description
//! implies, their masks, and what a write to them means ([`Effects`]). [`ConfigSpace::lspci`] shows it in the words of
//! `lspci -vvv`.
//!
//! # Life cycle
//!
//! 1. A transport is given a function when its port is made, and calls [`Function::attach`] when a VMM connects.
//! 2. [`Function::set_memory`] follows each change of the DMA map and of the bus master bit.
//! 3. [`Function::read`] and [`Function::write`] carry the driver's accesses, in their order.
//! 4. [`Function::reset`] is a function-level reset, a device reset, or the end of the VMM.
//!
//! # Invariants
//!
//! * The map that the VMM gives is the function's IOMMU: nothing outside it is reached. Without bus mastering there is no
//!   map at all.
//! * When [`Function::set_memory`] or [`Function::reset`] returns, no queue of the function uses what was before.
//! * A register of configuration space has a mask for each bit: writable, cleared by writing 1, or read-only.
//! * A function never fails: a driver that breaks the rules stops its port with a reason, and registers go on to answer.

mod check;
mod config_space;
mod description;
mod function;
mod lspci;
pub mod registers;

pub use check::DescriptionError;
pub use config_space::{ConfigSpace, Effects, PowerState};
pub use description::{Bar, Description, Express, Msix, Pin};
pub use function::{Function, Interrupts, Reset, SharedBar, SoftwareInterrupts};
pub use lspci::Lspci;
