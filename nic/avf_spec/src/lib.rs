//! The Adaptive Virtual Function as types: what both sides of the interface agree on, and nothing that acts.
//!
//! # Role
//!
//! ```text
//!   fabnic-avf (the device)  ---\                       /--- registers     BAR0 offsets and bits
//!                                >--- this crate -------+--- mailbox       descriptors of the two control rings
//!   fabnic-avf-driver        ---/                       +--- virtchnl      messages in them
//!                                                       +--- transmit      descriptors of the data rings
//!                                                       \--- receive       and what a device writes back
//! ```
//!
//! # Sources
//!
//! * "AVF": Intel, *Ethernet Adaptive Virtual Function Specification*, and what the Linux driver (`iavf`, kernels 6.1 to
//!   7.x) and DPDK's poll mode driver write and read.
//! * "virtchnl": `include/linux/avf/virtchnl.h` of Linux, version 1.1.
//! * "IDPF": OASIS *Infrastructure Data-Plane Function*, whose register block for virtual functions is the same.
//!
//! # Invariants
//!
//! * Everything is little endian but what a message says is a header in wire order.
//! * Parsers take bytes of a stranger: they give `None` for what is too short or contradicts itself, and never more
//!   elements than the bytes hold. Lengths follow virtchnl's history: lists may be one element longer than they say.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod bytes;
pub mod mailbox;
pub mod packet_type;
pub mod receive;
pub mod registers;
pub mod transmit;
pub mod virtchnl;

/// Vendor and device: the Adaptive Virtual Function of every generation.
pub const PCI_ID: (u16, u16) = (0x8086, 0x1889);
/// Queue pairs that the base register block and the 16-bit maps of virtchnl reach.
pub const MAX_QUEUE_PAIRS: u16 = 16;
