//! A frame made of the words of a rule's match: what `fabnic trace` sends through the stages.
//!
//! Each key has to have one value: a prefix of several addresses is no packet. What is not said is filled with what makes
//! a plain packet of it: a locally administered source, IPv4 if ports are given, documentation addresses (RFC 5737, RFC
//! 3849). Checksums are right, so that the frame can also be captured and replayed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabnic_model::rule::Match;
use fabnic_model::rule::value::{Address, ByteRange, IpProto, MacMask, PortRange, Prefix, Protocol};
use fabnic_model::{Mac, Refused};

const SRC_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const DST_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// Length of a frame without its FCS.
const SHORTEST: usize = 60;

fn refuse(key: &str, problem: impl Into<String>) -> Refused {
    Refused::one(format!("packet.{key}"), problem, "one value")
}

fn mac(key: &str, mac: Option<MacMask>, otherwise: Mac) -> Result<Mac, Refused> {
    match mac {
        None => Ok(otherwise),
        Some(mac) if mac.mask == Mac([0xff; 6]) => Ok(mac.mac),
        Some(mac) => Err(refuse(key, format!("{mac} is more than one address"))),
    }
}

fn one_address(key: &str, prefix: Prefix) -> Result<IpAddr, Refused> {
    if prefix == Prefix::host(prefix.address) {
        Ok(prefix.address)
    } else {
        Err(refuse(key, format!("{prefix} is more than one address")))
    }
}

fn ip(key: &str, address: Option<&Address>) -> Result<Option<IpAddr>, Refused> {
    match address {
        None => Ok(None),
        Some(Address::Prefix(prefix)) => one_address(key, *prefix).map(Some),
        Some(Address::Group(group)) => Err(refuse(key, format!("group {group} is more than one address"))),
    }
}

fn byte(key: &str, range: Option<ByteRange>, otherwise: u8) -> Result<u8, Refused> {
    match range {
        None => Ok(otherwise),
        Some(range) if range.low == range.high => Ok(range.low),
        Some(range) => Err(refuse(key, format!("{range} is more than one value"))),
    }
}

fn port(key: &str, range: Option<PortRange>, otherwise: u16) -> Result<u16, Refused> {
    match range {
        None => Ok(otherwise),
        Some(range) if range.low == range.high => Ok(range.low),
        Some(range) => Err(refuse(key, format!("{range} is more than one port"))),
    }
}

/// The frame of these fields.
pub(crate) fn build(fields: &Match) -> Result<Vec<u8>, Refused> {
    for (key, given) in [
        ("ct_state", fields.ct_state.is_some()),
        ("ct_mark", fields.ct_mark.is_some()),
        ("mark", fields.mark.is_some()),
        ("ip_flags", fields.ip_flags.is_some()),
    ] {
        if given {
            return Err(Refused::one(format!("packet.{key}"), "no packet carries it", "another key"));
        }
    }
    let mut frame = Vec::with_capacity(SHORTEST);
    frame.extend_from_slice(&mac("dst_mac", fields.dst_mac, DST_MAC)?.0);
    frame.extend_from_slice(&mac("src_mac", fields.src_mac, SRC_MAC)?.0);
    let tags = [
        (fields.vlan_id, byte("vlan_prio", fields.vlan_prio, 0)?, fields.vlan_prio.is_some()),
        (fields.cvlan_id, byte("cvlan_prio", fields.cvlan_prio, 0)?, fields.cvlan_prio.is_some()),
    ];
    let [_, (inner, _, inner_prio)] = tags;
    let is_double = inner.is_some() || inner_prio;
    for (place, (vlan, prio, has_prio)) in tags.into_iter().enumerate() {
        if vlan.is_none() && !has_prio && !(place == 0 && is_double) {
            continue;
        }
        let tpid: u16 = if place == 0 && is_double { 0x88a8 } else { 0x8100 };
        let tci = u16::from(prio & 7) << 13 | vlan.map_or(0, fabnic_model::Vid::get);
        frame.extend_from_slice(&tpid.to_be_bytes());
        frame.extend_from_slice(&tci.to_be_bytes());
    }
    let is_arp = fields.protocol == Some(Protocol::ARP)
        || fields.arp_op.is_some()
        || fields.arp_sip.is_some()
        || fields.arp_tip.is_some()
        || fields.arp_sha.is_some()
        || fields.arp_tha.is_some();
    match fields.protocol {
        _ if is_arp => arp(fields, &mut frame)?,
        Some(Protocol(other)) if ![Protocol::IPV4.0, Protocol::IPV6.0].contains(&other) => {
            frame.extend_from_slice(&other.to_be_bytes());
        }
        _ => internet(fields, &mut frame)?,
    }
    if frame.len() < SHORTEST {
        frame.resize(SHORTEST, 0);
    }
    Ok(frame)
}

fn arp(fields: &Match, frame: &mut Vec<u8>) -> Result<(), Refused> {
    let v4 = |key: &str, prefix: Option<Prefix>, otherwise: Ipv4Addr| match prefix {
        None => Ok(otherwise),
        Some(prefix) => match one_address(key, prefix)? {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(_) => Err(refuse(key, "ARP has IPv4 addresses only")),
        },
    };
    frame.extend_from_slice(&Protocol::ARP.0.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&fields.arp_op.map_or(1, |op| op.0).to_be_bytes());
    let sender = mac("arp_sha", fields.arp_sha, mac("src_mac", fields.src_mac, SRC_MAC)?)?;
    frame.extend_from_slice(&sender.0);
    frame.extend_from_slice(&v4("arp_sip", fields.arp_sip, Ipv4Addr::new(192, 0, 2, 1))?.octets());
    frame.extend_from_slice(&mac("arp_tha", fields.arp_tha, Mac([0; 6]))?.0);
    frame.extend_from_slice(&v4("arp_tip", fields.arp_tip, Ipv4Addr::new(192, 0, 2, 2))?.octets());
    Ok(())
}

fn internet(fields: &Match, frame: &mut Vec<u8>) -> Result<(), Refused> {
    let (src, dst) = (ip("src_ip", fields.src_ip.as_ref())?, ip("dst_ip", fields.dst_ip.as_ref())?);
    let asks_v6 = fields.protocol == Some(Protocol::IPV6)
        || fields.ip_proto == Some(IpProto::ICMPV6)
        || fields.nd_target.is_some()
        || src.or(dst).is_some_and(|address| address.is_ipv6());
    let (ours, theirs) = if asks_v6 {
        (
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
        )
    } else {
        (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)))
    };
    let (src, dst) = (src.unwrap_or(ours), dst.unwrap_or(theirs));
    let icmp = if asks_v6 { IpProto::ICMPV6 } else { IpProto::ICMP };
    let protocol = fields.ip_proto.unwrap_or(if fields.icmp_type.is_some() || fields.nd_target.is_some() {
        icmp
    } else if fields.src_port.is_some() || fields.dst_port.is_some() || fields.tcp_flags.is_some() {
        IpProto::TCP
    } else {
        IpProto(17)
    });
    let body = transport(fields, protocol)?;
    let tos = match (fields.ip_tos, fields.dscp) {
        (Some(tos), _) => tos.value,
        (None, dscp) => byte("dscp", dscp, 0)? << 2,
    };
    let ttl = byte("ip_ttl", fields.ip_ttl, 64)?;
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let l3 = frame.len() + 2;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend_from_slice(&Protocol::IPV4.0.to_be_bytes());
            frame.extend_from_slice(&[0x45, tos]);
            frame.extend_from_slice(&(length + 20).to_be_bytes());
            // Not to be fragmented; the checksum comes below.
            frame.extend_from_slice(&[0, 1, 0x40, 0, ttl, protocol.0, 0, 0]);
            frame.extend_from_slice(&src.octets());
            frame.extend_from_slice(&dst.octets());
            let sum = fabnic_wire::checksum::Sum::of(frame.get(l3..).unwrap_or_default()).checksum();
            if let Some(place) = frame.get_mut(l3 + 10..l3 + 12) {
                place.copy_from_slice(&sum.to_be_bytes());
            }
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend_from_slice(&Protocol::IPV6.0.to_be_bytes());
            frame.extend_from_slice(&[0x60 | tos >> 4, tos << 4, 0, 0]);
            frame.extend_from_slice(&length.to_be_bytes());
            frame.extend_from_slice(&[protocol.0, ttl]);
            frame.extend_from_slice(&src.octets());
            frame.extend_from_slice(&dst.octets());
        }
        _ => return Err(refuse("dst_ip", "source and destination are of two kinds")),
    }
    frame.extend_from_slice(&body);
    Ok(())
}

/// What IP carries, without checksums of TCP, UDP and ICMP: nothing in the switch looks at them on the way through.
fn transport(fields: &Match, protocol: IpProto) -> Result<Vec<u8>, Refused> {
    let mut body = Vec::new();
    match protocol {
        IpProto::TCP => {
            body.extend_from_slice(&port("src_port", fields.src_port, 40000)?.to_be_bytes());
            body.extend_from_slice(&port("dst_port", fields.dst_port, 80)?.to_be_bytes());
            body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50]);
            // A connection begins with SYN.
            body.push(fields.tcp_flags.map_or(0x02, |flags| flags.value));
            body.extend_from_slice(&[0xff, 0xff, 0, 0, 0, 0]);
        }
        protocol if protocol.has_ports() => {
            body.extend_from_slice(&port("src_port", fields.src_port, 40000)?.to_be_bytes());
            body.extend_from_slice(&port("dst_port", fields.dst_port, 9)?.to_be_bytes());
            body.extend_from_slice(&[0, 8, 0, 0]);
        }
        IpProto::ICMP | IpProto::ICMPV6 => {
            let echo = if protocol == IpProto::ICMP { 8 } else { 128 };
            let kind = if fields.nd_target.is_some() { 135 } else { echo };
            body.push(byte("icmp_type", fields.icmp_type, kind)?);
            body.push(byte("icmp_code", fields.icmp_code, 0)?);
            body.extend_from_slice(&[0, 0, 0, 1, 0, 1]);
            if let Some(target) = fields.nd_target {
                match one_address("nd_target", target)? {
                    IpAddr::V6(address) => body.extend_from_slice(&address.octets()),
                    IpAddr::V4(_) => return Err(refuse("nd_target", "neighbour discovery is IPv6's")),
                }
            }
        }
        _ => body.extend_from_slice(&[0; 8]),
    }
    Ok(body)
}

/// The bytes of a text of hexadecimal digits, blanks and colons between them allowed.
pub(crate) fn of_hex(text: &str) -> Result<Vec<u8>, Refused> {
    /// Larger than any frame.
    const MOST: usize = 65_600;
    let wrong =
        |problem: String| Refused::one("hex", problem, "hexadecimal digits in pairs, 14 to 65600 bytes");
    let digits: Vec<u8> =
        text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b':').take(2 * MOST + 2).collect();
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks(2) {
        let value = std::str::from_utf8(pair)
            .ok()
            .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = value.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(value.ok_or_else(|| wrong("there is something that is no pair of digits".into()))?);
    }
    if (14..=MOST).contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(wrong(format!("{} bytes are given", bytes.len())))
    }
}

#[cfg(test)]
mod tests {
    use fabnic_wire::{Fields, transport::TcpFlags};

    use super::*;

    fn fields(json: &str) -> Match {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_frame_says_what_was_said() {
        let frame = build(&fields(
            r#"{ "dst_mac": "52:54:00:00:00:02", "vlan_id": 10, "vlan_prio": 5, "ip_proto": "tcp", "src_ip": "10.0.0.1",
                 "dst_ip": "10.0.0.2", "dst_port": 443, "tcp_flags": "syn+ack", "dscp": 46, "ip_ttl": 3 }"#,
        ))
        .unwrap();
        let read = Fields::of(&frame).unwrap();
        assert_eq!(read.vid_bits(), Some(10));
        assert_eq!((read.flow.src_port, read.flow.dst_port, read.ttl), (40000, 443, 3));
        assert_eq!((read.tcp_flags, read.flow.tos >> 2), (TcpFlags(0x12), 46));
        assert!(fabnic_wire::checksum::ipv4_header_is_valid(&frame[18..38]));
    }

    #[test]
    fn arp_and_neighbours() {
        let frame =
            build(&fields(r#"{ "arp_op": "reply", "arp_sip": "10.0.0.1", "cvlan_id": 7, "vlan_id": 8 }"#))
                .unwrap();
        let read = Fields::of(&frame).unwrap();
        let arp = read.arp.unwrap();
        assert_eq!((arp.operation, arp.sender_ip), (2, [10, 0, 0, 1]));
        assert_eq!(read.inner.map(|tag| tag.tci.vid_bits()), Some(7));
        let frame = build(&fields(r#"{ "nd_target": "2001:db8::9" }"#)).unwrap();
        let target: Ipv6Addr = "2001:db8::9".parse().unwrap();
        assert_eq!(Fields::of(&frame).unwrap().neighbour.unwrap().target, target.octets());
    }

    #[test]
    fn what_is_more_than_one_packet_is_refused() {
        for json in [
            r#"{ "src_ip": "10.0.0.0/8" }"#,
            r#"{ "dst_ip": "group:web" }"#,
            r#"{ "dst_port": "80-90" }"#,
            r#"{ "src_mac": "52:54:00:00:00:00/24" }"#,
            r#"{ "ip_ttl": "1-2" }"#,
            r#"{ "ct_state": "+trk" }"#,
            r#"{ "src_ip": "10.0.0.1", "dst_ip": "::1" }"#,
        ] {
            assert!(build(&fields(json)).is_err(), "{json}");
        }
    }

    #[test]
    fn hexadecimal_digits() {
        assert_eq!(of_hex(&"0a ".repeat(14)).unwrap(), [10; 14]);
        assert_eq!(of_hex(&"0a:".repeat(14)).unwrap(), [10; 14]);
        for text in ["", "0a", "zz", &"0a".repeat(70_000), &format!("{}0", "0a".repeat(14))] {
            assert!(of_hex(text).is_err());
        }
    }
}
