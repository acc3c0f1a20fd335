use proptest::prelude::*;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress};

use super::*;

fn discover(options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; DhcpHeader::LEN];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    bytes[236..240].copy_from_slice(&COOKIE.to_be_bytes());
    bytes.extend_from_slice(options);
    bytes
}

/// The options of one area, slowly: by index.
fn obvious(area: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut at, mut found) = (0, Vec::new());
    while at < area.len() {
        match area[at] {
            0 => at += 1,
            255 => break,
            code => {
                let Some(len) = area.get(at + 1).map(|len| usize::from(*len)) else { break };
                if at + 2 + len > area.len() {
                    break;
                }
                found.push((code, area[at + 2..at + 2 + len].to_vec()));
                at += 2 + len;
            }
        }
    }
    found
}

#[test]
fn options_may_lie_in_file_and_sname() {
    let mut bytes = discover(&[52, 1, 3, 0, 0, 12, 1, b'a', 255, 12, 1, b'x']);
    bytes[44..50].copy_from_slice(&[53, 1, 3, 255, 9, 9]);
    bytes[108..114].copy_from_slice(&[0, 50, 4, 10, 0, 0]);
    bytes[114] = 7;
    let message = DhcpMessage::parse(&bytes).unwrap();
    assert_eq!(message.message_type(), Some(DhcpType::REQUEST));
    assert_eq!(message.address(option::REQUESTED_ADDRESS), Some(Ipv4Addr::new(10, 0, 0, 7)));
    assert_eq!(message.option(12), Some(&b"a"[..]));
    assert_eq!(message.options().count(), 4);
    bytes[242] = 0;
    assert_eq!(DhcpMessage::parse(&bytes).unwrap().message_type(), None, "not without the overload");
    bytes[239] = 0;
    assert!(DhcpMessage::parse(&bytes).is_none(), "BOOTP");
    assert!(DhcpMessage::parse(&bytes[..239]).is_none());
}

#[test]
fn smoltcp_reads_a_reply() {
    let request = discover(&[53, 1, 1, 61, 3, 1, 2, 3, 80, 0, 255]);
    let request = DhcpMessage::parse(&request).unwrap();
    let mut bytes = [0; 600];
    let mut to = Writer::new(&mut bytes);
    let (address, server) = (Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::new(10, 0, 0, 1));
    reply(&mut to, &request, DhcpType::OFFER, address, server, |options| {
        options.put(option::MASK, &[255, 255, 255, 0]);
        options.addresses(option::ROUTERS, &[server]);
        options.addresses(option::DNS, &[server, Ipv4Addr::new(9, 9, 9, 9)]);
        options.addresses(42, &[]);
        options.number(option::LEASE_TIME, 3600);
        options.routes(&[
            (Ipv4Addr::UNSPECIFIED, 0, server),
            (Ipv4Addr::new(10, 17, 128, 0), 17, Ipv4Addr::new(10, 0, 0, 2)),
        ]);
    });
    let len = to.finish().unwrap();
    assert!(len >= 300);
    let packet = DhcpPacket::new_checked(&bytes[..len]).unwrap();
    let theirs = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(theirs.message_type, DhcpMessageType::Offer);
    assert_eq!(theirs.transaction_id, 0x1234_5678);
    assert_eq!(theirs.client_hardware_address, EthernetAddress([2, 0, 0, 0, 0, 9]));
    assert_eq!((theirs.your_ip, theirs.server_identifier), (address, Some(server)));
    assert_eq!((theirs.router, theirs.lease_duration), (Some(server), Some(3600)));
    assert_eq!(theirs.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
    assert_eq!(theirs.dns_servers.unwrap().len(), 2);
    let ours = DhcpMessage::parse(&bytes[..len]).unwrap();
    assert_eq!(ours.option(option::CLIENT_ID), Some(&[1, 2, 3][..]));
    // RFC 3442: no bytes of a default route, three of a /17.
    let routes = [0, 10, 0, 0, 1, 17, 10, 17, 128, 10, 0, 0, 2];
    assert_eq!(ours.option(option::CLASSLESS_ROUTES), Some(&routes[..]));
    assert_eq!(ours.option(42), None);
}

#[test]
fn what_smoltcp_writes_is_read() {
    let repr = DhcpRepr {
        message_type: DhcpMessageType::Ack,
        transaction_id: 7,
        secs: 0,
        client_hardware_address: EthernetAddress([2, 0, 0, 0, 0, 9]),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::new(10, 0, 0, 7),
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(Ipv4Addr::new(10, 0, 0, 1)),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(77),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).unwrap();
    let ours = DhcpMessage::parse(&bytes).unwrap();
    assert_eq!((ours.message_type(), ours.lease_time()), (Some(DhcpType::ACK), Some(77)));
    assert_eq!((ours.header.xid.get(), ours.header.yiaddr), (7, [10, 0, 0, 7]));
    assert_eq!(ours.header.flags.get(), DhcpHeader::BROADCAST);
    assert_eq!(ours.address(option::SERVER), Some(Ipv4Addr::new(10, 0, 0, 1)));
}

proptest! {
    #[test]
    fn options_are_those_of_an_obvious_reader(
        options in prop::collection::vec(prop_oneof![3 => 0..8_u8, 1 => any::<u8>()], 0..80),
    ) {
        // An overload option would add areas: it is tested above.
        let options: Vec<u8> = options.into_iter().map(|byte| if byte == 52 { 53 } else { byte }).collect();
        let bytes = discover(&options);
        let message = DhcpMessage::parse(&bytes).unwrap();
        let ours: Vec<_> = message.options().map(|(code, value)| (code, value.to_vec())).collect();
        prop_assert_eq!(ours, obvious(&options));
    }

    #[test]
    fn no_bytes_are_too_strange(mut bytes in prop::collection::vec(any::<u8>(), 0..400), cookie: bool) {
        if let (true, Some(place)) = (cookie, bytes.get_mut(236..240)) {
            place.copy_from_slice(&COOKIE.to_be_bytes());
        }
        if let Some(place) = bytes.get_mut(1..3) {
            place.copy_from_slice(&[1, 6]);
        }
        if let Some(message) = DhcpMessage::parse(&bytes) {
            prop_assert!(message.options().count() <= MAX_OPTIONS);
            let mut out = [0; 1000];
            let mut to = Writer::new(&mut out);
            reply(&mut to, &message, DhcpType::NAK, Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, |_| ());
            let len = to.finish().unwrap();
            let again = DhcpMessage::parse(&out[..len]).unwrap();
            prop_assert_eq!(again.message_type(), Some(DhcpType::NAK));
            prop_assert_eq!(again.header.xid, message.header.xid);
        }
    }
}
