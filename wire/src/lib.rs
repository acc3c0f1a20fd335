//! What packets look like: header views, checksums, segmentation, hashes.
//!
//! Everything in the house that looks at the bytes of a frame does it with this crate. It knows Ethernet, VLAN
//! tags, ARP, IPv4, IPv6, TCP, UDP and ICMP, and the metadata ([`offload::Offload`]) that says which part of a
//! frame its sender left unfinished. It knows nothing of rings, ports, memory or sockets.
//!
//! ```text
//!   head: &[u8]  the private copy of a frame's first bytes
//!   | dst | src | tag | tag | type | IPv4/IPv6 + options | TCP/UDP | payload ....
//!   0     6     12    16    l3-2   l3                     l4        hdr_len
//! ```
//!
//! # Invariants
//! - No function panics, whatever bytes it is given; every loop has a bound that does not come from the bytes.
//! - No function allocates, apart from [`std::fmt::Display`] into whatever the caller formats into.
//! - Offsets are counted from the first byte of the destination MAC address.
//! - A *head* may be shorter than the frame. What lies behind its end is unknown, not absent: parsing says so
//!   (`None`, or an error with the offset that was needed) and never guesses.

pub mod arp;
pub mod build;
pub mod checksum;
pub mod dhcp;
pub mod dhcp6;
pub mod ethernet;
pub mod fields;
pub mod hash;
pub mod igmp;
pub mod ip;
pub mod layers;
pub mod lldp;
pub mod mac;
pub mod membership;
pub mod mld;
pub mod nd;
pub mod offload;
pub mod parse;
pub mod pretty;
pub mod segment;
pub mod transport;

mod bytes;

pub use ethernet::{EtherType, Tci, Vid};
pub use fields::Fields;
pub use hash::flow_hash;
pub use ip::IpProtocol;
pub use layers::Layers;
pub use mac::MacAddr;
pub use offload::{Offload, OffloadError};
pub use parse::{FlowFields, FlowFlags, L2Key};
pub use pretty::Pretty;
