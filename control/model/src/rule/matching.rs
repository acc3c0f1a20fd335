//! What a rule looks at.

use serde::{Deserialize, Serialize};

use super::value::{
    Address, ArpOp, ByteRange, CtState, Fragment, IpProto, MacMask, MarkMask, PortRange, Prefix, Protocol,
    TcpFlags, Tos,
};
use crate::{Vid, word::WordError};

/// The keys, each a field, a word of the command line, and a place in the order in which they are written.
macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $key:ident: $type:ty $(as $schema:ty)?,)*) => {
        /// What a rule looks at, in the words of `tc flower`. A key that is not given may be anything; a packet has to
        /// agree with all that are.
        #[derive(
            Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
        )]
        #[serde(deny_unknown_fields, default)]
        pub struct Match {
            $(
                $(#[doc = $doc])+
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $key: Option<$type>,
            )*
        }

        impl Match {
            /// All keys, in the order in which they are written.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];

            /// Whether every packet agrees.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                $(self.$key.is_none())&&*
            }

            /// Reads the value of a key. `None` when there is no such key; `Some(Ok(false))` when it was given already.
            pub(super) fn read(&mut self, key: &str, text: &str) -> Option<Result<bool, WordError>> {
                match key {
                    $(
                        stringify!($key) => Some(
                            text.parse::<$type>()
                                .map_err(WordError::from)
                                .map(|value| self.$key.replace(value).is_none()),
                        ),
                    )*
                    _ => None,
                }
            }

            /// The keys that are given, with their values.
            pub(super) fn words(&self, mut say: impl FnMut(&'static str, &dyn std::fmt::Display)) {
                $(
                    if let Some(value) = &self.$key {
                        say(stringify!($key), value);
                    }
                )*
            }
        }
    };
}

keys! {
    /// Source address, with a mask as `/ff:ff:ff:00:00:00`.
    src_mac: MacMask,
    /// Destination address, with a mask as `/01:00:00:00:00:00`.
    dst_mac: MacMask,
    /// What the packet carries, by name (`ipv4`, `ipv6`, `arp`) or EtherType.
    protocol: Protocol,
    /// VLAN of the outer tag.
    vlan_id: Vid,
    /// Priority of the outer tag, 0 to 7, or a range.
    vlan_prio: ByteRange,
    /// VLAN of the inner tag.
    cvlan_id: Vid,
    /// Priority of the inner tag, 0 to 7, or a range.
    cvlan_prio: ByteRange,
    /// Protocol over IP: `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or a number.
    ip_proto: IpProto,
    /// IPv4 or IPv6 source: an address, a prefix, or `group:NAME`.
    src_ip: Address,
    /// IPv4 or IPv6 destination: an address, a prefix, or `group:NAME`.
    dst_ip: Address,
    /// Source port of TCP, UDP or SCTP, or a range as `1024-65535`.
    src_port: PortRange,
    /// Destination port of TCP, UDP or SCTP, or a range as `80-90`.
    dst_port: PortRange,
    /// TCP flags that are set, of those that are looked at: `syn/syn+ack`.
    tcp_flags: TcpFlags,
    /// Byte of differentiated services, with a mask as `0x10/0xfc`.
    ip_tos: Tos,
    /// Differentiated services code point, 0 to 63: the upper six bits of `ip_tos`.
    dscp: ByteRange,
    /// Time to live or hop limit, or a range.
    ip_ttl: ByteRange,
    /// Fragments: `frag`, `nofrag`, `firstfrag` or `nofirstfrag`.
    ip_flags: Fragment,
    /// Type of an ICMP or ICMPv6 message, or a range.
    icmp_type: ByteRange,
    /// Code of an ICMP or ICMPv6 message, or a range.
    icmp_code: ByteRange,
    /// ARP operation: `request`, `reply` or a number.
    arp_op: ArpOp,
    /// Sender's IPv4 address in an ARP packet, or a prefix.
    arp_sip: Prefix,
    /// Target's IPv4 address in an ARP packet, or a prefix.
    arp_tip: Prefix,
    /// Sender's MAC address in an ARP packet.
    arp_sha: MacMask,
    /// Target's MAC address in an ARP packet.
    arp_tha: MacMask,
    /// Address that a neighbour solicitation or advertisement is about, or a prefix.
    nd_target: Prefix,
    /// State of the packet's connection: `+trk+est-new`.
    ct_state: CtState,
    /// Mark of the packet's connection, with a mask as `0x1/0xff`.
    ct_mark: MarkMask,
    /// Mark that an earlier rule gave the packet, with a mask as `0x1/0xff`.
    mark: MarkMask,
}
