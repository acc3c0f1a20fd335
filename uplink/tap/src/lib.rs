//! TAP devices as ports: the way from the switch to the host's kernel.
//!
//! # Role
//!
//! A TAP device is a network interface whose wire is a file descriptor. What the kernel sends on the interface is read
//! here, and what is written here arrives in the kernel as if from a wire. Each packet is one `read` or one `write`;
//! before the frame goes a virtio-net header, so that 64 KiB frames and partial checksums pass untouched both ways.
//!
//! ```text
//!    kernel: tap0 --ring--> read  [vnet header|frame] --> arena of the queue --> Burst --> switch
//!            tap0 <-------- writev[vnet header|head][rest: slices of the sender's memory]  <--+
//! ```
//!
//! # Life cycle
//!
//! 1. [`Tap::open`] opens an existing device, or makes one that goes with the last descriptor (unless it is to
//!    persist), in the network namespace of the calling thread; and sets offloads, MTU, address and link as asked.
//! 2. [`Tap::attach`] puts one [`TapIngress`] and one [`TapEgress`] a queue into the cells of a port.
//! 3. The device goes when somebody deletes it: both sides then answer with a [`fabnic_port::Fault`] and the port
//!    stops. Opening and attaching again brings it back.
//! 4. [`Tap::detach`] takes the queues out. A device that was made here goes when the [`Tap`] goes as well.
//!
//! # Invariants
//!
//! * A frame from the kernel was read into memory of our own, so its bytes do not change while it is switched. Its
//!   header is checked as a guest's is ([`fabnic_wire::Offload::validate`]).
//! * One frame to the kernel is one system call; the bytes go from the sender's memory to the kernel without a copy in
//!   between, unless the frame lies in more pieces than one call takes or must be finished for a kernel that does not
//!   take it as it is ([`fabnic_port::finish`]).
//! * A queue without traffic costs one `poll` each 20 us while it is polled, and nothing while it is armed.
#![allow(unsafe_code)] // For the ioctls in `device` only; see layers.toml.

mod device;
mod queue;

pub use device::{Tap, TapConfig, TapError};
pub use queue::{TapEgress, TapIngress};
