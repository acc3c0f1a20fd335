//! Messages built by hand from the RFCs' figures, and damaged ones.

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

const SRC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// An IPv4 packet with router alert around an IGMP message, whose checksum is filled in.
fn igmp_frame(destination: [u8; 4], mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&message).ones_complement().to_be();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let group = mac_of(IpAddr::from(destination)).octets();
    let options = etherparse::Ipv4Options::try_from(&[0x94, 4, 0, 0][..]).unwrap();
    let mut header = etherparse::Ipv4Header::new(
        message.len() as u16,
        1,
        etherparse::IpNumber::IGMP,
        [10, 0, 0, 7],
        destination,
    )
    .unwrap();
    header.options = options;
    header.total_len += 4;
    header.header_checksum = header.calc_header_checksum();
    [&group[..], &SRC, &[8, 0], &header.to_bytes(), &message].concat()
}

fn mld_frame(source: Ipv6Addr, destination: Ipv6Addr, hops: u8, mut message: Vec<u8>) -> Vec<u8> {
    let mut frame = Vec::new();
    message[2..4].fill(0);
    let sum = etherparse::Icmpv6Type::Unknown {
        type_u8: message[0],
        code_u8: message[1],
        bytes5to8: *message[4..].first_chunk().unwrap(),
    }
    .calc_checksum(source.octets(), destination.octets(), &message[8..])
    .unwrap();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let alert =
        etherparse::Ipv6RawExtHeader::new_raw(etherparse::IpNumber::IPV6_ICMP, &[5, 2, 0, 0, 1, 0]).unwrap();
    PacketBuilder::ethernet2(SRC, mac_of(destination.into()).octets())
        .ip(etherparse::IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                hop_limit: hops,
                source: source.octets(),
                destination: destination.octets(),
                ..Default::default()
            },
            etherparse::Ipv6Extensions { hop_by_hop_options: Some(alert), ..Default::default() },
        ))
        .write(&mut frame, etherparse::IpNumber::IPV6_ICMP, &message)
        .unwrap();
    frame
}

fn read(frame: &[u8]) -> Result<Message<'_>, Refusal> {
    assert!(is_membership(&Fields::of(frame).unwrap()));
    Packet::of(frame).map(|packet| packet.message)
}

fn v4(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x12, 0x3456);

#[test]
fn igmp_of_all_versions() {
    let group = [239, 1, 2, 3];
    let of = |kind: u8, code: u8| [&[kind, code, 0, 0][..], &group].concat();
    assert_eq!(
        read(&igmp_frame(group, of(0x12, 0))),
        Ok(Message::Report { version: 1, group: v4("239.1.2.3") })
    );
    assert_eq!(
        read(&igmp_frame(group, of(0x16, 0))),
        Ok(Message::Report { version: 2, group: v4("239.1.2.3") })
    );
    assert_eq!(read(&igmp_frame([224, 0, 0, 2], of(0x17, 0))), Ok(Message::Leave { group: v4("239.1.2.3") }));
    let asked = |code, len: usize, more: &[u8]| {
        let mut message = [&of(0x11, code)[..], more].concat();
        message.resize(len, 0);
        igmp_frame([224, 0, 0, 1], message)
    };
    let frame = asked(0, 8, &[]);
    let Ok(Message::Query(query)) = read(&frame) else { panic!() };
    assert_eq!((query.version, query.group, query.max_response_ms), (1, Some(v4("239.1.2.3")), 10_000));
    let frame = asked(55, 8, &[]);
    let Ok(Message::Query(query)) = read(&frame) else { panic!() };
    assert_eq!((query.version, query.max_response_ms), (2, 5500));
    let frame = asked(0x8f, 20, &[0x0a, 0x7d, 0, 2, 10, 0, 0, 1, 10, 0, 0, 2]);
    let Ok(Message::Query(query)) = read(&frame) else { panic!() };
    assert_eq!((query.version, query.max_response_ms, query.suppress), (3, (0x1f << 3) * 100, true));
    assert_eq!((query.robustness, query.interval_s), (2, 125));
    assert_eq!(query.sources.collect::<Vec<_>>(), [v4("10.0.0.1"), v4("10.0.0.2")]);
    assert_eq!(read(&asked(10, 10, &[])), Err(Refusal::QueryLength));
    assert_eq!(read(&asked(10, 16, &[0, 0, 0, 2])), Err(Refusal::Truncated));
    assert_eq!(
        read(&igmp_frame([10, 0, 0, 1], [0x16, 0, 0, 0, 10, 0, 0, 1].to_vec())),
        Err(Refusal::NotAGroup)
    );
    assert_eq!(read(&igmp_frame(group, of(0x99, 0))), Ok(Message::Other(0x99)));
    assert_eq!(read(&igmp_frame([224, 0, 0, 106], of(0x30, 20))), Ok(Message::Router));
}

#[test]
fn reports_with_records() {
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, 3];
    message.extend([4, 0, 0, 0, 239, 0, 0, 1]);
    // A kind that is not known, with auxiliary data: passed over.
    message.extend([77, 1, 0, 0, 239, 0, 0, 9, 1, 2, 3, 4]);
    message.extend([3, 0, 0, 1, 239, 0, 0, 2, 10, 0, 0, 1]);
    let frame = igmp_frame([224, 0, 0, 22], message.clone());
    let Ok(Message::Records(records)) = read(&frame) else { panic!() };
    let records: Vec<_> = records.map(|r| (r.kind, r.group, r.sources.collect::<Vec<_>>())).collect();
    assert_eq!(
        records,
        [
            (RecordKind::ToExclude, v4("239.0.0.1"), vec![]),
            (RecordKind::ToInclude, v4("239.0.0.2"), vec![v4("10.0.0.1")])
        ]
    );
    message[7] = 4;
    assert_eq!(read(&igmp_frame([224, 0, 0, 22], message)), Err(Refusal::Truncated));
    let mut message = vec![143, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 1];
    message.extend(GROUP6.octets());
    message.extend(HOST.octets());
    let to = "ff02::16".parse().unwrap();
    let frame = mld_frame(Ipv6Addr::UNSPECIFIED, to, 1, message.clone());
    let Ok(Message::Records(mut records)) = read(&frame) else { panic!() };
    let record = records.next().unwrap();
    assert_eq!((record.kind, record.group), (RecordKind::Block, GROUP6.into()));
    assert_eq!(record.sources.collect::<Vec<_>>(), [IpAddr::from(HOST)]);
    assert_eq!(read(&mld_frame(HOST, to, 2, message.clone())), Err(Refusal::HopLimit));
    assert_eq!(read(&mld_frame(GROUP6, to, 1, message)), Err(Refusal::Source));
}

#[test]
fn mld_of_both_versions() {
    let of = |kind: u8, code: [u8; 2], more: &[u8]| {
        [&[kind, 0, 0, 0, code[0], code[1], 0, 0][..], &GROUP6.octets(), more].concat()
    };
    let report = mld_frame(HOST, GROUP6, 1, of(131, [0, 0], &[]));
    assert_eq!(read(&report), Ok(Message::Report { version: 1, group: GROUP6.into() }));
    let done = mld_frame(HOST, "ff02::2".parse().unwrap(), 1, of(132, [0, 0], &[]));
    assert_eq!(read(&done), Ok(Message::Leave { group: GROUP6.into() }));
    let frame = mld_frame(HOST, GROUP6, 1, of(130, [0x10, 0], &[]));
    let Ok(Message::Query(query)) = read(&frame) else { panic!() };
    assert_eq!((query.version, query.max_response_ms), (1, 4096));
    let frame =
        mld_frame(HOST, GROUP6, 1, of(130, [0x80, 1], &[&[2, 0x80, 0, 1][..], &HOST.octets()].concat()));
    let Ok(Message::Query(query)) = read(&frame) else { panic!() };
    assert_eq!((query.version, query.max_response_ms, query.interval_s), (2, 0x1001 << 3, 128));
    assert_eq!(query.sources.collect::<Vec<_>>(), [IpAddr::from(HOST)]);
    assert_eq!(
        read(&mld_frame(Ipv6Addr::UNSPECIFIED, GROUP6, 1, of(130, [0, 1], &[]))),
        Err(Refusal::Source)
    );
    // The alert turned into padding.
    let mut bare = report;
    bare[56..60].copy_from_slice(&[1, 2, 0, 0]);
    assert_eq!(read(&bare), Err(Refusal::RouterAlert));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let frames = [
        igmp_frame([239, 1, 2, 3], [0x16, 0, 0, 0, 239, 1, 2, 3].to_vec()),
        mld_frame(HOST, GROUP6, 1, [&[131, 0, 0, 0, 0, 0, 0, 0][..], &GROUP6.octets()].concat()),
    ];
    for frame in frames {
        let from = if frame[12] == 8 { 14 + 24 } else { 14 + 40 + 8 };
        assert!(Packet::of(&frame).is_ok());
        for bit in from * 8..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Packet::of(&damaged).unwrap_err(), Refusal::Checksum, "bit {bit}");
        }
        for len in 0..frame.len() {
            assert!(Packet::of(&frame[..len]).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn a_router_says_hello() {
    let mut hello = vec![0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105];
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&hello).ones_complement().to_be();
    hello[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(SRC, [1, 0, 0x5e, 0, 0, 13])
        .ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header::new(0, 1, etherparse::IpNumber(103), [10, 0, 0, 1], [224, 0, 0, 13])
                .unwrap(),
            Default::default(),
        ))
        .write(&mut frame, etherparse::IpNumber(103), &hello)
        .unwrap();
    assert_eq!(read(&frame), Ok(Message::Router));
    *frame.last_mut().unwrap() ^= 1;
    assert_eq!(read(&frame), Err(Refusal::Checksum));
}

#[test]
fn own_queries_are_read_as_they_were_meant() {
    let ours = |source: IpAddr, version, group: Option<IpAddr>, sources| QueryFrame {
        mac: MacAddr(SRC),
        source,
        version,
        group,
        sources,
        max_response_ms: 10_000,
        suppress: true,
        robustness: 3,
        interval_s: 125,
    };
    let (some4, some6) = ([v4("10.1.1.1"), v4("10.1.1.2")], [IpAddr::from(HOST)]);
    let cases = [
        ours(v4("0.0.0.0"), 2, None, &[]),
        ours(v4("10.0.0.1"), 3, None, &[]),
        ours(v4("10.0.0.1"), 3, Some(v4("239.129.2.3")), &some4),
        ours(HOST.into(), 1, None, &[]),
        ours(HOST.into(), 2, Some(GROUP6.into()), &some6),
    ];
    for query in cases {
        let frame = query.to_bytes();
        assert!(frame.len() >= 60);
        assert!(etherparse::SlicedPacket::from_ethernet(&frame).is_ok());
        let packet = Packet::of(&frame).unwrap();
        assert!(is_membership(&Fields::of(&frame).unwrap()));
        assert_eq!(packet.source, query.source);
        let Message::Query(read) = packet.message else { panic!("{packet:?}") };
        assert_eq!((read.version, read.group, read.max_response_ms), (query.version, query.group, 10_000));
        let highest = query.version == if query.source.is_ipv4() { 3 } else { 2 };
        let told = if highest { (true, 3, 125) } else { (false, 0, 0) };
        assert_eq!((read.suppress, read.robustness, read.interval_s), told);
        assert_eq!(read.sources.collect::<Vec<_>>(), query.sources);
        assert_eq!(&frame[..6], &mac_of(packet.destination).octets());
    }
}

#[test]
fn thirty_two_groups_share_an_address() {
    assert_eq!(mac_of(v4("239.129.2.3")), mac_of(v4("224.1.2.3")));
    assert_eq!(mac_of(v4("239.129.2.3")), MacAddr([1, 0, 0x5e, 1, 2, 3]));
    assert_eq!(mac_of(GROUP6.into()), MacAddr([0x33, 0x33, 0, 0x12, 0x34, 0x56]));
}

#[test]
fn codes_of_times() {
    for code in 0..=255_u8 {
        assert_eq!(encode8(decode8(code)), code);
    }
    assert_eq!((encode8(129), decode8(encode8(40_000))), (128, 31_744));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), v6 in any::<bool>(), fix in any::<bool>()) {
        let frame = if fix && bytes.len() >= 8 {
            // What passes the checksum.
            if v6 { mld_frame(HOST, GROUP6, 1, bytes.clone()) } else { igmp_frame([224, 0, 0, 22], bytes.clone()) }
        } else {
            bytes.clone()
        };
        if let Ok(packet) = Packet::of(&frame)
            && let Message::Records(records) = packet.message
        {
            let sources: usize = records.map(|record| record.sources.count()).sum();
            prop_assert!(sources <= frame.len() / 4);
        }
    }
}
