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

impl Needs {
    /// What of each word of a [`crate::deep::DeepKey`] tells flows apart.
    pub(crate) fn mask(self) -> [u64; 8] {
        let bits = |need: Needs, mask: u64| if self.contains(need) { mask } else { 0 };
        let third = 0x0fff_0000
            | bits(Needs::PRIORITY, 0xf000_0000)
            | bits(Needs::TYPE, 0x0c00_ffff_0000_ffff)
            | bits(Needs::TCP_FLAGS, 0x00ff_0000_0000_0000)
            | 0x0300_0000_0000_0000;
        let ip = bits(Needs::IP, u64::MAX);
        let last = bits(Needs::PORTS, 0xffff_ffff)
            | bits(Needs::IP, 0x00ff_00ff_0000_0000)
            | bits(Needs::TOS, 0x0000_ff00_0000_0000)
            | bits(Needs::TTL, 0xff00_0000_0000_0000);
        [u64::MAX, u64::MAX, third, ip, ip, ip, ip, last]
    }
}
