//! Why a frame ended here.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)*) => {
        /// Why a frame, or a copy of one, was not delivered. The documentation of each is what a user reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)*
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];
            /// How many there are.
            pub const COUNT: usize = DropReason::ALL.len();

            /// The name in counters, metrics and captures.
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$name => $label,)* }
            }

            /// One sentence for a person.
            pub const fn explain(self) -> &'static str {
                match self { $(DropReason::$name => concat!($($doc,)+).trim_ascii(),)* }
            }
        }
    };
}

reasons! {
    /// The sending port is disabled.
    IngressDisabled = "ingress_disabled",
    /// The frame is shorter than an Ethernet header, or its headers end before they should.
    Runt = "runt",
    /// The frame is longer than any frame may be.
    Oversize = "oversize",
    /// The sender's offload header contradicts the frame.
    BadOffload = "bad_offload",
    /// The source address is a multicast address or zero.
    BadSource = "bad_source",
    /// The destination is one of the addresses that a bridge must not forward (01:80:c2:00:00:00 to 0f).
    ReservedDestination = "reserved_destination",
    /// The frame has a VLAN tag and the port takes none, or not that one.
    VlanNotAllowed = "vlan_not_allowed",
    /// The frame has no VLAN tag and the port has no native VLAN.
    UntaggedNotAllowed = "untagged_not_allowed",
    /// The frame is longer than the sending port's MTU allows.
    IngressMtu = "ingress_mtu",
    /// The source MAC address is none of the port's (anti-spoof).
    MacSpoof = "mac_spoof",
    /// The frame has a VLAN tag of its own making: on a port that takes none, or one behind another (anti-spoof).
    VlanSpoof = "vlan_spoof",
    /// The IPv4 source address is not bound to the port (anti-spoof).
    Ipv4Spoof = "ipv4_spoof",
    /// The IPv6 source address is not bound to the port (anti-spoof).
    Ipv6Spoof = "ipv6_spoof",
    /// The sender in an ARP packet is not bound to the port, or the packet is broken (anti-spoof).
    ArpSpoof = "arp_spoof",
    /// A neighbour discovery message claims what is not bound to the port, or is broken (anti-spoof).
    NdSpoof = "nd_spoof",
    /// A DHCP client's message speaks for another client, or comes from a relay (anti-spoof).
    DhcpSpoof = "dhcp_spoof",
    /// A DHCP server's message from a port that is not trusted (DHCP-server guard).
    DhcpServer = "dhcp_server",
    /// A DHCPv6 server's message from a port that is not trusted (DHCPv6-server guard).
    Dhcp6Server = "dhcp6_server",
    /// A router advertisement or a redirect from a port that is not trusted (RA guard, RFC 6105).
    RaGuard = "ra_guard",
    /// What a guard must read is hidden: behind an IPv6 header chain that is cut off or too long, or in 802.2 (RFC 7113).
    HiddenHeaders = "hidden_headers",
    /// A spanning tree message from a port that must send none (BPDU guard).
    BpduGuard = "bpdu_guard",
    /// The port has as many bindings or open DHCP transactions as it may have.
    GuardLimit = "guard_limit",
    /// The switch itself was the receiver: it answered the frame, or kept what it says.
    Consumed = "consumed",
    /// The port asked the switch more often than it is answered.
    AnswerLimit = "answer_limit",
    /// The destination is the port that the frame came from.
    SamePort = "same_port",
    /// The packet belongs to no connection and opens none, or contradicts its connection.
    CtInvalid = "ct_invalid",
    /// The packet would open a connection, but its port, its zone or the switch has as many as it may have.
    CtLimit = "ct_limit",
    /// The packet would open a connection, but the tenant of its port has as many as it may have.
    CtTenantLimit = "ct_tenant_limit",
    /// The receiving port takes only what belongs to connections that it opened.
    CtUnsolicited = "ct_unsolicited",
    /// The packet would open a translated connection, but every address and port to translate it to is taken.
    NatExhausted = "nat_exhausted",
    /// What is to be translated of the packet lies behind the bytes of it that the switch holds.
    NatUnreachable = "nat_unreachable",
    /// No other port is a member of the frame's VLAN.
    NoMember = "no_member",
    /// Nobody listens to the multicast group, and there is no router that may want it.
    NoListener = "no_listener",
    /// The switch took note of the multicast report, and there is no router that it would have to go to.
    ReportSnooped = "report_snooped",
    /// A multicast query or a router's message, from a port behind which no router may be.
    NotARouter = "not_a_router",
    /// An IGMP or MLD message that is damaged or comes from where it may not come from.
    BadMembership = "bad_membership",
    /// Too many frames wait for their turn to be copied to the many ports of their VLAN.
    FloodQueueFull = "flood_queue_full",
    /// The sending and the receiving port are both isolated: such ports do not talk to each other.
    Isolated = "isolated",
    /// The receiving port is disabled.
    EgressDisabled = "egress_disabled",
    /// The frame is longer than the receiving port's MTU allows.
    EgressMtu = "egress_mtu",
    /// No queue of the receiving port is ready: nobody is connected, or the driver is not up.
    NotReady = "not_ready",
    /// The receiving port's filters, or those of its guest's NIC, take no frame to that address, or not of that VLAN.
    Filtered = "filtered",
    /// The receiver's ring has no free buffer.
    RingFull = "ring_full",
    /// The receiver's buffers are too small for the frame.
    BufferTooSmall = "buffer_too_small",
    /// The receiver cannot take the frame as it is, and it could not be finished in software.
    CannotSegment = "cannot_segment",
    /// The receiving port stopped because of a fault.
    Stopped = "stopped",
    /// The operating system refused the frame.
    Refused = "refused",
    /// It is over the rate of a meter: its port's, a rule's, its tenant's.
    Metered = "metered",
    /// The sending port is over its limit for broadcast.
    StormBroadcast = "storm_broadcast",
    /// The sending port is over its limit for multicast.
    StormMulticast = "storm_multicast",
    /// The sending port is over its limit for frames to stations of which it is not known where they are.
    StormUnknownUnicast = "storm_unknown_unicast",
    /// A rule of the infrastructure says so.
    RuleInfrastructure = "rule_infrastructure",
    /// A rule of the port's tenant says so.
    RuleTenant = "rule_tenant",
    /// A rule sends it to a port that is not there, not the tenant's, or not a member of its VLAN.
    RuleTarget = "rule_target",
    /// A rule lessens its TTL or hop limit, which is used up.
    TtlExceeded = "ttl_exceeded",
    /// A rule rewrites it, and a checksum that would have to change is out of reach.
    CannotRewrite = "cannot_rewrite",
    /// The receiver is congested, and the sender has had its share of it.
    OverShare = "over_share",
    /// The switch could not decide for the moment: more different sets of actions are in use than it keeps.
    Overload = "overload",
    /// A fault was injected on purpose.
    Injected = "injected",
}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn labels_are_distinct_and_explained() {
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::COUNT);
        assert!(DropReason::ALL.iter().all(|r| r.explain().ends_with('.')));
        assert!(DropReason::ALL.iter().enumerate().all(|(i, r)| *r as usize == i));
    }
}
