//! What a rule can ask of a frame: the slow and obvious form.
//!
//! A [`Match`] is a list of [`Term`]s that must all hold; one without terms matches everything. It says what `tc flower`
//! can say of a frame up to L4, and [`Match::matches`] is what it means, term by term. The data path uses a compiled form
//! (`compile`), which property tests hold against this one.
//!
//! A term about a header that the frame does not have does not hold, whatever its mask: a term about ports does not hold
//! for a later fragment, one about IPv4 addresses not for ARP, and a prefix of length 0 still asks for the header.

use fabnic_port::PortId;
use fabnic_wire::{EtherType, Fields, FlowFlags, IpProtocol, MacAddr, Vid, layers::Network};

use crate::conntrack::CtState;

/// A frame with what the switch knows of it besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Everything that its head says.
    pub fields: &'a Fields,
    /// The port that it came from.
    pub ingress: PortId,
    /// The port that it is to leave by; not known in rules of direction in.
    pub egress: Option<PortId>,
    /// The VLAN that the switch has put it in.
    pub vlan: Vid,
    /// What a rule before has marked it with; 0 at first.
    pub mark: u32,
    /// What it is to its connection.
    pub connection: Connection,
}

/// What a packet is to its connection. Of rules of direction in, in the zone of the port that it came from; of direction
/// out, in that of the port that it is to leave by, or, where that is not tracked, the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Its state; none at all where it is not tracked.
    pub state: CtState,
    /// The zone; 0 where it is not tracked.
    pub zone: u16,
    /// The mark of its connection; 0 without one.
    pub mark: u32,
}

/// How a packet is fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragmented {
    /// It is no fragment: a whole IP packet.
    No,
    /// It is a fragment, first or later.
    Any,
    /// It is the first fragment, which has the L4 header.
    First,
    /// It is a later one.
    Later,
}

/// Something that must hold of a frame. Masks have a 1 for each bit that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// It came from this port.
    Ingress(PortId),
    /// It is to leave by this port; in rules of direction out only.
    Egress(PortId),
    /// The switch has put it in this VLAN, by its tag or by its port.
    Vlan(Vid),
    /// What a rule before has marked it with.
    Mark {
        /// The bits.
        value: u32,
        /// Which are compared.
        mask: u32,
    },
    /// What it is to its connection.
    CtState {
        /// The bits.
        value: CtState,
        /// Which are compared.
        mask: CtState,
    },
    /// It is tracked, in this zone.
    CtZone(u16),
    /// It is tracked, and its connection has this mark, or 0 without one.
    CtMark {
        /// The bits.
        value: u32,
        /// Which are compared.
        mask: u32,
    },
    /// Destination address.
    DstMac {
        /// The bits.
        value: MacAddr,
        /// Which are compared.
        mask: MacAddr,
    },
    /// Source address.
    SrcMac {
        /// The bits.
        value: MacAddr,
        /// Which are compared.
        mask: MacAddr,
    },
    /// What follows the tags.
    EtherType(EtherType),
    /// Whether it came with a tag, of either kind.
    Tagged(bool),
    /// The VLAN bits of the outer tag as it came, 0 to 4095.
    TagVid(u16),
    /// The priority of the outer tag, 0 to 7.
    TagPcp(u8),
    /// The VLAN bits of the inner tag, 0 to 4095.
    InnerVid(u16),
    /// The priority of the inner tag, 0 to 7.
    InnerPcp(u8),
    /// The protocol behind the IP header and its extensions.
    Protocol(IpProtocol),
    /// IPv4 source.
    SrcIp4 {
        /// The bits.
        value: [u8; 4],
        /// Which are compared; any bits, not only prefixes.
        mask: [u8; 4],
    },
    /// IPv4 destination.
    DstIp4 {
        /// The bits.
        value: [u8; 4],
        /// Which are compared.
        mask: [u8; 4],
    },
    /// IPv6 source.
    SrcIp6 {
        /// The bits.
        value: [u8; 16],
        /// Which are compared.
        mask: [u8; 16],
    },
    /// IPv6 destination.
    DstIp6 {
        /// The bits.
        value: [u8; 16],
        /// Which are compared.
        mask: [u8; 16],
    },
    /// Type of service or traffic class: DSCP in the upper six bits, ECN in the lower two.
    Tos {
        /// The bits.
        value: u8,
        /// Which are compared.
        mask: u8,
    },
    /// TTL or hop limit, both ends included.
    Ttl {
        /// The least.
        min: u8,
        /// The most.
        max: u8,
    },
    /// How it is fragmented.
    Fragment(Fragmented),
    /// Source port of TCP, UDP or SCTP, both ends included.
    SrcPort {
        /// The least.
        min: u16,
        /// The most.
        max: u16,
    },
    /// Destination port of TCP, UDP or SCTP, both ends included.
    DstPort {
        /// The least.
        min: u16,
        /// The most.
        max: u16,
    },
    /// TCP flags, FIN in the lowest bit.
    TcpFlags {
        /// The bits.
        value: u8,
        /// Which are compared.
        mask: u8,
    },
    /// Type of ICMP or ICMPv6, both ends included.
    IcmpType {
        /// The least.
        min: u8,
        /// The most.
        max: u8,
    },
    /// Code of ICMP or ICMPv6, both ends included.
    IcmpCode {
        /// The least.
        min: u8,
        /// The most.
        max: u8,
    },
    /// Operation of ARP: 1 request, 2 reply.
    ArpOperation(u16),
    /// Sender's address in ARP.
    ArpSenderIp {
        /// The bits.
        value: [u8; 4],
        /// Which are compared.
        mask: [u8; 4],
    },
    /// Target's address in ARP.
    ArpTargetIp {
        /// The bits.
        value: [u8; 4],
        /// Which are compared.
        mask: [u8; 4],
    },
    /// Sender's MAC address in ARP.
    ArpSenderMac {
        /// The bits.
        value: MacAddr,
        /// Which are compared.
        mask: MacAddr,
    },
    /// Target's MAC address in ARP.
    ArpTargetMac {
        /// The bits.
        value: MacAddr,
        /// Which are compared.
        mask: MacAddr,
    },
    /// The address that a neighbour solicitation or advertisement is about.
    NdTarget {
        /// The bits.
        value: [u8; 16],
        /// Which are compared.
        mask: [u8; 16],
    },
}

impl Term {
    /// An IPv4 source prefix.
    pub fn src_net4(address: [u8; 4], prefix: u8) -> Term {
        Term::SrcIp4 { value: address, mask: prefix4(prefix) }
    }

    /// An IPv4 destination prefix.
    pub fn dst_net4(address: [u8; 4], prefix: u8) -> Term {
        Term::DstIp4 { value: address, mask: prefix4(prefix) }
    }

    /// An IPv6 source prefix.
    pub fn src_net6(address: [u8; 16], prefix: u8) -> Term {
        Term::SrcIp6 { value: address, mask: prefix6(prefix) }
    }

    /// An IPv6 destination prefix.
    pub fn dst_net6(address: [u8; 16], prefix: u8) -> Term {
        Term::DstIp6 { value: address, mask: prefix6(prefix) }
    }

    /// Exactly this destination address.
    pub fn dst_mac(mac: MacAddr) -> Term {
        Term::DstMac { value: mac, mask: MacAddr::BROADCAST }
    }

    /// Exactly this source address.
    pub fn src_mac(mac: MacAddr) -> Term {
        Term::SrcMac { value: mac, mask: MacAddr::BROADCAST }
    }

    /// Whether it holds.
    pub fn holds(&self, input: &Input<'_>) -> bool {
        let fields = input.fields;
        let flow = &fields.flow;
        let v4 = flow.network() == Some(Network::V4);
        let v6 = flow.network() == Some(Network::V6);
        let is_ip = v4 || v6;
        let icmp = flow.protocol().is_icmp();
        let known = is_ip && flow.flags.has(FlowFlags::PORTS);
        match *self {
            Term::Ingress(port) => input.ingress == port,
            Term::Egress(port) => input.egress == Some(port),
            Term::Vlan(vlan) => input.vlan == vlan,
            Term::Mark { value, mask } => input.mark & mask == value & mask,
            Term::CtState { value, mask } => input.connection.state & mask == value & mask,
            Term::CtZone(zone) => {
                input.connection.state.contains(CtState::TRACKED) && input.connection.zone == zone
            }
            Term::CtMark { value, mask } => {
                input.connection.state.contains(CtState::TRACKED)
                    && input.connection.mark & mask == value & mask
            }
            Term::DstMac { value, mask } => same_mac(fields.dst, value, mask),
            Term::SrcMac { value, mask } => same_mac(fields.src, value, mask),
            Term::EtherType(ethertype) => fields.ethertype == ethertype,
            Term::Tagged(tagged) => fields.tag.is_some() == tagged,
            Term::TagVid(vid) => fields.tag.is_some_and(|tag| tag.tci.vid_bits() == vid),
            Term::TagPcp(pcp) => fields.tag.is_some_and(|tag| tag.tci.pcp() == pcp),
            Term::InnerVid(vid) => fields.inner.is_some_and(|tag| tag.tci.vid_bits() == vid),
            Term::InnerPcp(pcp) => fields.inner.is_some_and(|tag| tag.tci.pcp() == pcp),
            Term::Protocol(protocol) => is_ip && flow.protocol() == protocol,
            Term::SrcIp4 { value, mask } => v4 && same(&flow.src, &value, &mask),
            Term::DstIp4 { value, mask } => v4 && same(&flow.dst, &value, &mask),
            Term::SrcIp6 { value, mask } => v6 && same(&flow.src, &value, &mask),
            Term::DstIp6 { value, mask } => v6 && same(&flow.dst, &value, &mask),
            Term::Tos { value, mask } => is_ip && flow.tos & mask == value & mask,
            Term::Ttl { min, max } => is_ip && (min..=max).contains(&fields.ttl),
            Term::Fragment(kind) => {
                let (fragment, later) =
                    (flow.flags.has(FlowFlags::FRAGMENT), flow.flags.has(FlowFlags::LATER));
                is_ip
                    && match kind {
                        Fragmented::No => !fragment,
                        Fragmented::Any => fragment,
                        Fragmented::First => fragment && !later,
                        Fragmented::Later => later,
                    }
            }
            Term::SrcPort { min, max } => known && !icmp && (min..=max).contains(&flow.src_port),
            Term::DstPort { min, max } => known && !icmp && (min..=max).contains(&flow.dst_port),
            Term::TcpFlags { value, mask } => {
                known && flow.protocol() == IpProtocol::TCP && fields.tcp_flags.0 & mask == value & mask
            }
            Term::IcmpType { min, max } => {
                known && icmp && (u16::from(min)..=u16::from(max)).contains(&flow.src_port)
            }
            Term::IcmpCode { min, max } => {
                known && icmp && (u16::from(min)..=u16::from(max)).contains(&flow.dst_port)
            }
            Term::ArpOperation(operation) => fields.arp.is_some_and(|arp| arp.operation == operation),
            Term::ArpSenderIp { value, mask } => {
                fields.arp.is_some_and(|arp| same(&arp.sender_ip, &value, &mask))
            }
            Term::ArpTargetIp { value, mask } => {
                fields.arp.is_some_and(|arp| same(&arp.target_ip, &value, &mask))
            }
            Term::ArpSenderMac { value, mask } => {
                fields.arp.is_some_and(|arp| same_mac(arp.sender_mac, value, mask))
            }
            Term::ArpTargetMac { value, mask } => {
                fields.arp.is_some_and(|arp| same_mac(arp.target_mac, value, mask))
            }
            Term::NdTarget { value, mask } => {
                fields.neighbour.is_some_and(|neighbour| same(&neighbour.target, &value, &mask))
            }
        }
    }
}

/// Terms that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// In any order.
    pub terms: Vec<Term>,
}

impl Match {
    /// All of these.
    pub fn new(terms: impl IntoIterator<Item = Term>) -> Match {
        Match { terms: terms.into_iter().collect() }
    }

    /// Whether all terms hold.
    pub fn matches(&self, input: &Input<'_>) -> bool {
        self.terms.iter().all(|term| term.holds(input))
    }
}

/// The mask of an IPv4 prefix; longer than 32 counts as 32.
pub fn prefix4(len: u8) -> [u8; 4] {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0).to_be_bytes()
}

/// The mask of an IPv6 prefix; longer than 128 counts as 128.
pub fn prefix6(len: u8) -> [u8; 16] {
    u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0).to_be_bytes()
}

/// Compares as many bytes as the mask has.
fn same(bytes: &[u8], value: &[u8], mask: &[u8]) -> bool {
    bytes.iter().zip(value).zip(mask).all(|((byte, value), mask)| byte & mask == value & mask)
}

fn same_mac(mac: MacAddr, value: MacAddr, mask: MacAddr) -> bool {
    mac.to_u64() & mask.to_u64() == value.to_u64() & mask.to_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_prefixes() {
        assert_eq!((prefix4(0), prefix4(9), prefix4(32)), ([0; 4], [255, 128, 0, 0], [255; 4]));
        assert_eq!((prefix6(0), prefix6(128), prefix6(200)), ([0; 16], [255; 16], [255; 16]));
        assert_eq!(prefix6(65)[8], 128);
    }

    #[test]
    fn a_term_about_a_header_that_is_not_there_does_not_hold() {
        let fields = Fields::default();
        let connection = Connection { state: CtState::TRACKED | CtState::NEW, zone: 7, mark: 5 };
        let input = Input {
            fields: &fields,
            ingress: PortId(1),
            egress: None,
            vlan: Vid::DEFAULT,
            mark: 0,
            connection,
        };
        let state = |value| Match::new([Term::CtState { value, mask: CtState::NEW | CtState::INVALID }]);
        assert!(state(CtState::NEW).matches(&input) && !state(CtState::INVALID).matches(&input));
        assert!(Match::new([Term::CtZone(7)]).matches(&input));
        assert!(!Match::new([Term::CtZone(8)]).matches(&input));
        assert!(Match::new([Term::CtMark { value: 0xf5, mask: 0xf }]).matches(&input));
        assert!(!Match::new([Term::CtMark { value: 4, mask: u32::MAX }]).matches(&input));
        let untracked = Input { connection: Connection::default(), ..input };
        assert!(!Match::new([Term::CtZone(0)]).matches(&untracked));
        assert!(!Match::new([Term::CtMark { value: 0, mask: 0 }]).matches(&untracked));
        assert!(!state(CtState::NEW).matches(&untracked));
        for term in [
            Term::src_net4([0; 4], 0),
            Term::dst_net6([0; 16], 0),
            Term::Ttl { min: 0, max: 255 },
            Term::Tos { value: 0, mask: 0 },
            Term::Fragment(Fragmented::No),
            Term::SrcPort { min: 0, max: 65535 },
            Term::TcpFlags { value: 0, mask: 0 },
            Term::IcmpType { min: 0, max: 255 },
            Term::ArpSenderIp { value: [0; 4], mask: [0; 4] },
            Term::NdTarget { value: [0; 16], mask: [0; 16] },
            Term::TagVid(0),
            Term::InnerPcp(0),
            Term::Egress(PortId(0)),
            Term::Protocol(IpProtocol(0)),
        ] {
            assert!(!term.holds(&input), "{term:?}");
        }
        assert!(Match::default().matches(&input));
        assert!(Match::new([Term::Mark { value: 0, mask: u32::MAX }, Term::Tagged(false)]).matches(&input));
    }
}
