//! The other side: guest drivers, front ends, packet builders, the reference switch, fabnic-pktgen.
//!
//! # Role
//!
//! Everything in the house that faces a guest is tested by the guest that lives here. It is made of the same memory
//! crate as the house and of nothing else of it, so that an error in our device side is not repeated in the driver that
//! checks it.
//!
//! ```text
//!   fabnic-pktgen       traffic, loss, latency, against any vhost-user back end
//!       |
//!   guest::Session      one guest's connection, in the order of a real front end
//!       |         \
//!   front_end      driver            vhost-user messages / rings: split, packed; NetDriver; light guests
//!       |         /
//!   memory::GuestMemory              memfds, shared with the back end
//!
//!   e1000               a driver for the 82540EM, over whatever carries its register accesses
//!   vfio                the VMM's part of vfio-user, to carry them: for it and for `fabnic-avf-driver`
//!   packets             frames to send
//!   endpoint            as much of a host as ping needs
//!   reference           what a switch must do with them, slow and obvious
//!   rule_mix            large sets of rules, and packets that they match
//! ```

pub mod driver;
pub mod e1000;
pub mod endpoint;
pub mod features;
pub mod front_end;
pub mod guest;
pub mod memory;
pub mod packets;
pub mod reference;
pub mod rule_mix;
pub mod vfio;
