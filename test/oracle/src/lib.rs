//! The kernel as an oracle: its bridge and the switch get the same frames, and what leaves their ports is compared.
//!
//! # Role
//!
//! The reference switch of the testkit says what the switch must do as we understood the standards. The kernel's bridge
//! was understood by others, and has been in use for decades: where the two differ, one of us is wrong or the difference
//! is meant and written down (docs/switch-oracle.md).
//!
//! ```text
//!   frame --+--> tap0 ==== br0 ==== tap1, tap2 ... --read--> outputs of the kernel  --+
//!           |      (own network namespace, or a guest)                                +-- the same, or why not
//!           +--> port 0 -- InlineSwitch -- port 1, port 2 ... --> outputs of the switch --+
//! ```
//!
//! This machine's kernel may be built without what is asked of it. The tests of this crate compare what it has; those of
//! `fabnic-system` boot a guest with a stock kernel, which has it all, and compare there.
//!
//! # Invariants
//! * Nothing leaves the namespace, and nothing else sends in it: IPv6 is off, no interface has an address.
//! * A frame that is written to a TAP device has left the bridge's other ports when the write returns, so that nothing has
//!   to be waited for.

mod bridge;
mod conntrack;
mod dice;
mod fabric;
mod flower;
mod multicast;
mod namespace;
mod packets;
mod tc;
mod verdict;
mod vlans;

pub use bridge::{Bridge, BridgePort, Filtering};
pub use conntrack::compare_connections;
pub use fabric::Fabric;
pub use flower::compare_rules;
pub use multicast::compare_groups;
pub use namespace::{INSIDE, Inside, in_guest, in_namespace};
pub use verdict::{CASES, Verdict};
pub use vlans::{compare_vlans, settings};
