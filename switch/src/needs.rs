//! Which fields of a frame the configuration reads at all.
//!
//! A switch that forwards by addresses and VLANs tells its flows apart by those, and pays for no more. As soon as
//! something reads further (a rule, a guard, connection tracking), flows are told apart by as much as is read, and by no
//! more: two connections between the same stations share a cached decision unless something reads ports.

use bitflags::bitflags;

bitflags! {
    /// Fields that decisions depend on, beyond ingress port, addresses and the VLAN of the outer tag.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Needs: u16 {
        /// The EtherType behind the tags, and the inner tag.
        const TYPE = 1;
        /// Priority and drop eligibility of the outer tag.
        const PRIORITY = 2;
        /// IP addresses, protocol, fragmentation; sender and target of ARP by an uncached decision.
        const IP = 4;
        /// Ports, or type and code of ICMP.
        const PORTS = 8;
        /// DSCP and ECN.
        const TOS = 16;
        /// TTL or hop limit.
        const TTL = 32;
        /// TCP flags.
        const TCP_FLAGS = 64;
        /// Nothing more of the frame, but each flow is counted.
        const FLOWS = 128;
        /// Nothing more of the frame, but decisions with a plan.
        const PLANS = 256;
        /// Nothing of the frame, but what connections each packet belongs to.
        const CONNECTIONS = 1 << 15;
    }
}
