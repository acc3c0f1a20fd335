use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscPrefixInfoFlags,
    NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags, RawHardwareAddress,
};

use super::*;
use crate::build::{Link, Route, icmp_v6};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 9]);

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn link_address() -> RawHardwareAddress {
    EthernetAddress(MAC.0).into()
}

/// The ICMPv6 message that we write.
fn written(kind: u8, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = [0; 600];
    let mut to = Writer::new(&mut bytes);
    let link = Link { dst: MAC, src: MAC, tag: None };
    let route = Route { src: address("fe80::1"), dst: address("fe80::2"), ttl: 255 };
    icmp_v6(&mut to, &link, &route, (kind, 0), body);
    let len = to.finish().unwrap();
    bytes[54..len].to_vec()
}

/// What smoltcp makes of it; it verifies the checksum.
fn by_smoltcp(bytes: &[u8]) -> NdiscRepr<'_> {
    let packet = Icmpv6Packet::new_checked(bytes).unwrap();
    let repr = Icmpv6Repr::parse(
        &address("fe80::1"),
        &address("fe80::2"),
        &packet,
        &ChecksumCapabilities::default(),
    );
    match repr.unwrap() {
        Icmpv6Repr::Ndisc(repr) => repr,
        other => panic!("{other:?}"),
    }
}

/// The ICMPv6 message that smoltcp writes.
fn emitted(repr: NdiscRepr<'_>) -> Vec<u8> {
    let repr = Icmpv6Repr::Ndisc(repr);
    let mut bytes = vec![0; repr.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(&mut bytes);
    repr.emit(&address("fe80::1"), &address("fe80::2"), &mut packet, &ChecksumCapabilities::default());
    bytes
}

#[test]
fn smoltcp_reads_and_writes_the_same_advertisements() {
    let target = address("2001:db8::7");
    let bytes = written(kind::NEIGHBOR_ADVERTISEMENT, |to| {
        let flags = AdvertisementFlags { router: false, solicited: true, override_known: true };
        put_neighbor_advertisement(to, flags, target);
        put_option(to, &NdOption::TargetLink(MAC));
    });
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    let theirs = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr: Some(link_address()) };
    assert_eq!(by_smoltcp(&bytes), theirs);
    assert_eq!(emitted(theirs), bytes);
    let (message, options) = NdMessage::parse(&bytes).unwrap();
    let flags = AdvertisementFlags { router: false, solicited: true, override_known: true };
    assert_eq!(message, NdMessage::NeighborAdvertisement { flags, target });
    assert!(options.clone().link_is(MAC) && !options.clone().link_is(MacAddr::ZERO));
    assert!(!options.has_source_link());
}

#[test]
fn smoltcp_reads_and_writes_the_same_solicitations() {
    let target = address("2001:db8::7");
    let bytes = written(kind::NEIGHBOR_SOLICITATION, |to| {
        put_neighbor_solicitation(to, target);
        put_option(to, &NdOption::SourceLink(MAC));
    });
    let theirs = NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(link_address()) };
    assert_eq!(by_smoltcp(&bytes), theirs);
    assert_eq!(emitted(theirs), bytes);
    let (message, options) = NdMessage::parse(&bytes).unwrap();
    assert_eq!(message, NdMessage::NeighborSolicitation { target });
    assert!(options.has_source_link());
    let rs = emitted(NdiscRepr::RouterSolicit { lladdr: Some(link_address()) });
    assert_eq!(NdMessage::parse(&rs).unwrap().0, NdMessage::RouterSolicitation);
}

#[test]
fn smoltcp_reads_a_router_advertisement() {
    let prefix = Prefix {
        prefix: address("2001:db8::"),
        len: 64,
        on_link: true,
        autonomous: true,
        valid: 7200,
        preferred: 3600,
    };
    let advertisement = RouterAdvertisement {
        hop_limit: 64,
        managed: true,
        lifetime: 1800,
        ..RouterAdvertisement::default()
    };
    let bytes = written(kind::ROUTER_ADVERTISEMENT, |to| {
        put_router_advertisement(to, &advertisement);
        for option in [NdOption::SourceLink(MAC), NdOption::Mtu(1400), NdOption::Prefix(prefix)] {
            put_option(to, &option);
        }
        put_rdnss(to, 600, &[address("2001:db8::53"), address("2001:db8::54")]);
    });
    let NdiscRepr::RouterAdvert { hop_limit, flags, lladdr, mtu, prefix_info, router_lifetime, .. } =
        by_smoltcp(&bytes)
    else {
        panic!("no router advertisement")
    };
    assert_eq!((hop_limit, mtu, lladdr), (64, Some(1400), Some(link_address())));
    assert_eq!(flags, NdiscRouterFlags::MANAGED);
    assert_eq!(router_lifetime.secs(), 1800);
    let theirs: NdiscPrefixInformation = prefix_info.unwrap();
    assert_eq!((theirs.prefix, theirs.prefix_len), (prefix.prefix, 64));
    assert_eq!(theirs.flags, NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF);
    assert_eq!((theirs.valid_lifetime.secs(), theirs.preferred_lifetime.secs()), (7200, 3600));
    let (message, options) = NdMessage::parse(&bytes).unwrap();
    assert_eq!(message, NdMessage::RouterAdvertisement(advertisement));
    let options: Vec<_> = options.collect();
    assert_eq!(options[..3], [NdOption::SourceLink(MAC), NdOption::Mtu(1400), NdOption::Prefix(prefix)]);
    assert!(matches!(options[3], NdOption::Other(25, bytes) if bytes.len() == 40));
}

#[test]
fn addresses_of_groups_and_links() {
    assert_eq!(solicited_node(address("2001:db8::12:3456")), address("ff02::1:ff12:3456"));
    assert_eq!(group_mac(address("ff02::1:ff12:3456")), MacAddr([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
    assert_eq!(link_local(MAC), address("fe80::5054:ff:fe00:9"));
}

#[test]
fn broken_options_make_no_message() {
    let mut bytes = written(kind::NEIGHBOR_SOLICITATION, |to| {
        put_neighbor_solicitation(to, address("fe80::7"));
        put_option(to, &NdOption::SourceLink(MAC));
    });
    assert!(NdMessage::parse(&bytes).is_some());
    bytes[25] = 0;
    assert!(NdMessage::parse(&bytes).is_none(), "length 0");
    bytes[25] = 2;
    assert!(NdMessage::parse(&bytes).is_none(), "cut off");
    assert!(NdMessage::parse(&bytes[..24]).is_some());
    assert!(NdMessage::parse(&bytes[..25]).is_none());
    assert!(NdMessage::parse(&bytes[..23]).is_none());
    bytes[1] = 1;
    assert!(NdMessage::parse(&bytes[..24]).is_none(), "code 1");
    let many = written(kind::ROUTER_SOLICITATION, |to| {
        to.put32(0);
        (0..65).for_each(|_| to.put(&[9, 1, 0, 0, 0, 0, 0, 0]));
    });
    assert!(NdMessage::parse(&many).is_none(), "too many");
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(mut bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200), kind in 133..138_u8) {
        if let Some([first, code]) = bytes.first_chunk_mut() {
            (*first, *code) = (kind, 0);
        }
        if let Some((_, options)) = NdMessage::parse(&bytes) {
            prop_assert!(options.clone().count() <= MAX_OPTIONS);
            let mut again = vec![0; 400];
            let mut to = Writer::new(&mut again);
            options.clone().for_each(|option| if let NdOption::Other(..) = option { put_option(&mut to, &option) });
            let _ = options.link_is(MAC);
        }
    }
}
