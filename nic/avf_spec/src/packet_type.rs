//! Packet types that receive descriptors name (the static table of `iavf_common.c`), as far as a frame without tunnels
//! has one.

/// Nothing known: drivers look for themselves.
pub const UNKNOWN: u8 = 0;
/// Ethernet.
pub const L2: u8 = 1;
/// ARP.
pub const ARP: u8 = 11;
/// IPv4: fragment.
pub const IPV4_FRAGMENT: u8 = 22;
/// IPv4: nothing below that is known.
pub const IPV4: u8 = 23;
/// IPv4: UDP.
pub const IPV4_UDP: u8 = 24;
/// IPv4: TCP.
pub const IPV4_TCP: u8 = 26;
/// IPv4: SCTP.
pub const IPV4_SCTP: u8 = 27;
/// IPv4: ICMP.
pub const IPV4_ICMP: u8 = 28;
/// What is to be added for the same over IPv6.
pub const IPV6: u8 = 66;
