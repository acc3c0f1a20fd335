//! Guards: what a port may say of itself.
//!
//! ```text
//!   settings   what configuration says of a port          check   the checks, one after the other
//!   bindings   who has which address, for how long        snoop   DHCP and DHCPv6 make bindings
//! ```
//!
//! The stage `guard` asks [`check`] for the first frame of a flow, and [`snoop`] for each DHCP message. Standards: RFC
//! 6620 (first come, first served), 7513 (SAVI for DHCP), 6105 and 7113 (RA guard), 7610 (DHCPv6 shield), 5227 (ARP
//! probes).

pub(crate) mod bindings;
pub(crate) mod check;
pub(crate) mod datagram;
#[cfg(test)]
pub(crate) mod packets;
pub(crate) mod settings;
pub(crate) mod snoop;

pub use bindings::{Binding, BindingError, BindingOrigin, Bindings};
pub use settings::{BoundAddress, BpduGuard, GuardSettings};
