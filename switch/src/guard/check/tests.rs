use std::sync::Arc;

use fabnic_wire::build::{self, Route};
use proptest::prelude::*;

use super::*;
use crate::guard::packets::*;
use crate::guard::{BoundAddress, GuardSettings};
use crate::versions::Versions;

/// Port 1 with MAC address 1, address 10.0.0.1 and fe80::1; port 2 has 10.0.0.2.
struct Bench {
    settings: GuardSettings,
    bindings: Bindings,
    now: Tick,
    dry: bool,
    protocol: VlanProtocol,
}

fn bench() -> Bench {
    let bindings = Bindings::new(100, Arc::new(Versions::new()));
    let addresses = [BoundAddress::one(v4(1).into()), BoundAddress::one(v6("2001:db8::1").into())];
    let settings =
        GuardSettings { addresses: addresses.into(), max_bindings: 2, ..GuardSettings::strict([mac(1)]) };
    bindings.configure([binding(2, mac(2), v4(2).into()), binding(2, mac(2), v6("2001:db8::2").into())]);
    Bench { settings, bindings, now: 100, dry: false, protocol: VlanProtocol::Dot1Q }
}

fn binding(port: u32, mac: MacAddr, address: IpAddr) -> Binding {
    Binding {
        vlan: Vid::DEFAULT,
        address,
        port: PortId(port),
        mac,
        origin: BindingOrigin::Static,
        expires: None,
    }
}

impl Bench {
    fn findings(&self, bytes: &[u8]) -> Findings {
        let sender = Sender {
            port: PortId(1),
            settings: &self.settings,
            is_access: true,
            protocol: self.protocol,
            vlan: Vid::DEFAULT,
            bindings: &self.bindings,
            now: self.now,
            dry: self.dry,
        };
        sender.check(&Fields::of(bytes).unwrap(), &bytes[..bytes.len().min(128)])
    }

    fn check(&self, bytes: &[u8]) -> Option<DropReason> {
        self.findings(bytes).drop
    }
}

fn data4(src: MacAddr, from: Ipv4Addr) -> Vec<u8> {
    udp4(src, (from, 1000), (v4(9), 2000), b"hello")
}

fn data6(src: MacAddr, from: Ipv6Addr) -> Vec<u8> {
    udp6(src, (from, 1000), (v6("2001:db8::9"), 2000), b"hello")
}

#[test]
fn sources_of_packets() {
    let bench = bench();
    assert_eq!(bench.check(&data4(mac(1), v4(1))), None);
    assert_eq!(bench.check(&data4(mac(2), v4(1))), Some(DropReason::MacSpoof));
    assert_eq!(bench.check(&data4(mac(1), v4(2))), Some(DropReason::Ipv4Spoof));
    assert_eq!(bench.check(&data4(mac(1), Ipv4Addr::UNSPECIFIED)), Some(DropReason::Ipv4Spoof));
    assert_eq!(bench.check(&dhcp_client(mac(1), 1, Ipv4Addr::UNSPECIFIED, &[53, 1, 1])), None);
    assert_eq!(bench.check(&data6(mac(1), v6("2001:db8::1"))), None);
    assert_eq!(bench.check(&data6(mac(1), v6("2001:db8::2"))), Some(DropReason::Ipv6Spoof));
    assert_eq!(bench.check(&data6(mac(1), Ipv6Addr::UNSPECIFIED)), Some(DropReason::Ipv6Spoof));
    // A configured address needs no version: it changes with the configuration only.
    assert_eq!(bench.findings(&data4(mac(1), v4(1))).version, None);
    let other = bench.findings(&data4(mac(1), v4(7)));
    assert_eq!(other.version, Some(bench.bindings.version_of(Vid::DEFAULT, v4(7).into())));
    assert!(!other.is_own);
    let mut broken = data4(mac(1), v4(1));
    broken[14] = 0x44;
    assert_eq!(bench.check(&broken), Some(DropReason::Ipv4Spoof), "a source that cannot be read");
    let trusted = GuardSettings { trusted: true, ..bench.settings.clone() };
    let trusted = Bench { settings: trusted, ..self::bench() };
    assert_eq!(trusted.check(&data4(mac(7), v4(7))), None);
    let off = Bench { settings: GuardSettings::default(), ..self::bench() };
    assert_eq!(off.check(&data4(mac(7), v4(7))), None);
}

#[test]
fn first_come_first_served() {
    let mut bench = bench();
    let (a, b, c) = (v6("fe80::a"), v6("fe80::b"), v6("fe80::c"));
    bench.dry = true;
    assert_eq!(bench.check(&data6(mac(1), a)), None);
    assert_eq!(bench.bindings.lookup(Vid::DEFAULT, a.into()), None, "a dry look claims nothing");
    bench.dry = false;
    assert_eq!(bench.check(&data6(mac(1), a)), None);
    let held = bench.bindings.lookup(Vid::DEFAULT, a.into()).unwrap();
    assert_eq!((held.port, held.expires), (PortId(1), Some(400)));
    let before = bench.bindings.version_of(Vid::DEFAULT, a.into());
    bench.now = 200;
    let findings = bench.findings(&data6(mac(1), a));
    assert_eq!((findings.drop, findings.version), (None, Some(before)), "prolonging changes no decision");
    assert_eq!(bench.bindings.lookup(Vid::DEFAULT, a.into()).unwrap().expires, Some(500));
    // Port 2 has b already; c is the second of two; then it is enough.
    let claim = Binding { origin: BindingOrigin::Slaac, expires: Some(900), ..binding(2, mac(2), b.into()) };
    bench.bindings.learn(claim, 9).unwrap();
    assert_eq!(bench.check(&data6(mac(1), b)), Some(DropReason::Ipv6Spoof));
    assert_eq!(bench.check(&data6(mac(1), c)), None);
    assert_eq!(bench.check(&data6(mac(1), v6("fe80::d"))), Some(DropReason::Ipv6Spoof), "over the limit");
    assert_eq!(
        bench.check(&data6(mac(1), v6("2001:db8::77"))),
        Some(DropReason::Ipv6Spoof),
        "no such prefix"
    );
}

#[test]
fn arp_says_the_truth() {
    let bench = bench();
    let own = (mac(1), v4(1));
    for operation in [1, 2] {
        assert_eq!(bench.check(&arp(mac(1), operation, own, v4(2))), None);
        assert_eq!(bench.check(&arp(mac(1), operation, own, v4(1))), None, "an announcement");
        for liar in [(mac(2), v4(1)), (mac(1), v4(2)), (mac(2), v4(2))] {
            assert_eq!(bench.check(&arp(mac(1), operation, liar, v4(9))), Some(DropReason::ArpSpoof));
        }
    }
    let probe = (mac(1), Ipv4Addr::UNSPECIFIED);
    assert_eq!(bench.check(&arp(mac(1), 1, probe, v4(2))), None);
    assert_eq!(bench.check(&arp(mac(1), 2, probe, v4(2))), Some(DropReason::ArpSpoof), "no probe");
    assert!(bench.findings(&arp(mac(1), 1, own, v4(2))).is_own);
    let mut cut = arp(mac(1), 1, own, v4(2));
    cut.truncate(41);
    assert_eq!(bench.check(&cut), Some(DropReason::ArpSpoof));
    let announce = fabnic_wire::arp::rarp_announce(mac(1));
    assert_eq!(bench.check(&announce), None);
    let mut lie = announce;
    lie[37] ^= 1;
    assert_eq!(bench.check(&lie), Some(DropReason::ArpSpoof));
}

#[test]
fn neighbour_discovery_says_the_truth() {
    let bench = bench();
    let (own, others) = (v6("2001:db8::1"), v6("2001:db8::2"));
    let wrong = Some(DropReason::NdSpoof);
    assert_eq!(bench.check(&solicitation(mac(1), own, others, Some(mac(1)))), None);
    assert_eq!(
        bench.check(&solicitation(mac(1), own, others, Some(mac(2)))),
        wrong,
        "another's link address"
    );
    assert_eq!(bench.check(&solicitation(mac(1), others, own, Some(mac(1)))), wrong, "another's source");
    assert_eq!(bench.check(&advertisement(mac(1), own, own, mac(1))), None);
    assert_eq!(bench.check(&advertisement(mac(1), own, others, mac(1))), wrong);
    assert_eq!(bench.check(&advertisement(mac(1), own, own, mac(2))), wrong);
    // Duplicate address detection.
    let dad = |target, option| solicitation(mac(1), Ipv6Addr::UNSPECIFIED, target, option);
    assert_eq!(bench.check(&dad(own, None)), None);
    assert_eq!(bench.check(&dad(own, Some(mac(1)))), wrong, "RFC 4861 section 7.1.1");
    let to_all =
        icmp6(mac(1), (Ipv6Addr::UNSPECIFIED, nd::ALL_NODES), nd::kind::NEIGHBOR_SOLICITATION, |w| {
            nd::put_neighbor_solicitation(w, own);
        });
    assert_eq!(bench.check(&to_all), wrong, "not to the solicited-node group");
    assert_eq!(bench.check(&dad(v6("fe80::5"), None)), None);
    assert!(bench.bindings.lookup(Vid::DEFAULT, v6("fe80::5").into()).is_some());
    assert_eq!(bench.check(&dad(others, None)), wrong, "it may not have that at all");
    let claim = Binding {
        origin: BindingOrigin::Slaac,
        expires: Some(900),
        ..binding(2, mac(2), v6("fe80::6").into())
    };
    bench.bindings.learn(claim, 9).unwrap();
    assert_eq!(bench.check(&dad(v6("fe80::6"), None)), None, "its owner will defend it");
    assert_eq!(bench.bindings.lookup(Vid::DEFAULT, v6("fe80::6").into()).unwrap().port, PortId(2));
    let mut far = solicitation(mac(1), own, others, Some(mac(1)));
    far[21] = 254;
    assert_eq!(bench.check(&far), wrong, "hop limit");
    // Options that reach behind the private bytes cannot be vouched for.
    let long = icmp6(mac(1), (own, others), nd::kind::NEIGHBOR_SOLICITATION, |w| {
        nd::put_neighbor_solicitation(w, others);
        (0..8).for_each(|_| w.put(&[200, 1, 0, 0, 0, 0, 0, 0]));
    });
    assert_eq!(bench.check(&long), wrong);
    let rs = |from: Ipv6Addr, link: MacAddr| {
        icmp6(mac(1), (from, nd::ALL_ROUTERS), nd::kind::ROUTER_SOLICITATION, |w| {
            w.put32(0);
            nd::put_option(w, &nd::NdOption::SourceLink(link));
        })
    };
    assert_eq!(bench.check(&rs(own, mac(1))), None);
    assert_eq!(bench.check(&rs(own, mac(2))), wrong);
    assert_eq!(bench.check(&rs(Ipv6Addr::UNSPECIFIED, mac(1))), wrong);
    assert_eq!(bench.check(&rs(others, mac(1))), wrong);
}

#[test]
fn servers_and_routers() {
    let bench = bench();
    let own = v6("2001:db8::1");
    for (from, to) in [(67, 68), (9, 68), (67, 67), (67, 9)] {
        assert_eq!(bench.check(&udp4(mac(1), (v4(1), from), (v4(9), to), b"")), Some(DropReason::DhcpServer));
    }
    assert_eq!(bench.check(&udp4(mac(1), (v4(1), 68), (v4(9), 67), b"")), None);
    for (from, to) in [(547, 546), (9, 546), (547, 547)] {
        assert_eq!(bench.check(&udp6(mac(1), (own, from), (own, to), b"")), Some(DropReason::Dhcp6Server));
    }
    assert_eq!(bench.check(&udp6(mac(1), (own, 546), (own, 547), b"")), None);
    for kind in [134, 137] {
        let bytes = icmp6(mac(1), (own, nd::ALL_NODES), kind, |w| w.put(&[0; 40]));
        assert_eq!(bench.check(&bytes), Some(DropReason::RaGuard));
    }
}

/// An IPv6 packet of port 1 with these headers behind the fixed one.
fn chain(src: Ipv6Addr, ttl: u8, next: u8, behind: &[u8]) -> Vec<u8> {
    let route = Route { src, dst: nd::ALL_NODES, ttl };
    frame(|w| {
        build::ipv6(w, &link(mac(1), nd::group_mac(nd::ALL_NODES)), &route, IpProtocol(next), |w| {
            w.put(behind)
        })
    })
}

#[test]
fn hidden_router_advertisements() {
    let bench = bench();
    let own = v6("fe80::1");
    let hidden = Some(DropReason::HiddenHeaders);
    let ra = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let behind_options = [&[58, 0, 0, 0, 0, 0, 0, 0][..], &ra].concat();
    assert_eq!(bench.check(&chain(own, 255, 60, &behind_options)), Some(DropReason::RaGuard));
    // A first fragment that ends before the message (RFC 7113 section 2.2).
    let fragment = [&[60, 0, 0, 1, 0, 0, 0, 1][..], &[58, 5, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(bench.check(&chain(own, 255, 44, &fragment)), hidden);
    let first = [&[58, 0, 0, 1, 0, 0, 0, 1][..], &ra].concat();
    assert_eq!(
        bench.check(&chain(own, 255, 44, &first)),
        Some(DropReason::RaGuard),
        "all of it is in the first"
    );
    let later = [&[58, 0, 0, 9, 0, 0, 0, 1][..], &ra].concat();
    assert_eq!(bench.check(&chain(own, 255, 44, &later)), None, "harmless without the first");
    // Ten option headers.
    let many = [&[60, 0, 0, 0, 0, 0, 0, 0].repeat(9)[..], &[58, 0, 0, 0, 0, 0, 0, 0], &ra].concat();
    assert_eq!(bench.check(&chain(own, 255, 60, &many)), hidden);
    // A header that nobody knows.
    let unknown = [&[58, 0, 0, 0, 0, 0, 0, 0][..], &ra].concat();
    assert_eq!(bench.check(&chain(own, 255, 253, &unknown)), hidden);
    assert!(bench.findings(&chain(own, 255, 253, &unknown)).is_own, "the hop limit is not in the key");
    assert_eq!(bench.check(&chain(own, 64, 253, &unknown)), None, "hosts take no RA with such a hop limit");
    // 802.2 SNAP around it (CVE-2021-27854), and a third tag.
    let packet = chain(own, 255, 58, &ra);
    let len = u16::try_from(packet.len() - 14 + 8).unwrap().to_be_bytes();
    let snap = [&packet[..12], &len, &[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd], &packet[14..]].concat();
    assert_eq!(bench.check(&snap), hidden);
    let mut trunk = self::bench();
    trunk.settings.vlan = false;
    let tags = [0x81, 0, 0, 0].repeat(3);
    let tagged = [&packet[..12], &tags, &packet[12..]].concat();
    assert_eq!(trunk.check(&tagged), hidden);
    let twice = [&packet[..12], &tags[..8], &packet[12..]].concat();
    assert_eq!(trunk.check(&twice), Some(DropReason::RaGuard), "two are looked behind");
    assert_eq!(bench.check(&twice), Some(DropReason::VlanSpoof));
}

#[test]
fn tags_of_its_own_making() {
    let bench = bench();
    let packet = data4(mac(1), v4(1));
    let tagged = |tci: [u8; 2]| [&packet[..12], &[0x81, 0], &tci, &packet[12..]].concat();
    assert_eq!(bench.check(&tagged([0xe0, 0])), None, "a priority");
    assert_eq!(bench.check(&tagged([0, 1])), Some(DropReason::VlanSpoof));
    // Through a tunnel of service tags the customer's go as they are.
    let tunnel = Bench { protocol: VlanProtocol::Dot1Ad, ..self::bench() };
    let service =
        |tci: [u8; 2], inner: &[u8]| [&packet[..12], &[0x88, 0xa8], &tci, inner, &packet[12..]].concat();
    assert_eq!(tunnel.check(&tagged([0, 1])), None);
    assert_eq!(tunnel.check(&service([0, 0], &[0x81, 0, 0, 1])), None);
    assert_eq!(tunnel.check(&service([0, 1], &[])), Some(DropReason::VlanSpoof));
    assert_eq!(tunnel.check(&service([0, 0], &[0x88, 0xa8, 0, 1])), Some(DropReason::VlanSpoof));
}

#[test]
fn bridges_are_told_by_where_they_speak_to() {
    for (dst, is) in [
        ([1, 0x80, 0xc2, 0, 0, 0], true),
        ([1, 0x80, 0xc2, 0, 0, 8], true),
        ([1, 0, 0xc, 0xcc, 0xcc, 0xcd], true),
        ([1, 0x80, 0xc2, 0, 0, 0xe], false),
        ([1, 0, 0xc, 0xcc, 0xcc, 0xcc], false),
    ] {
        assert_eq!(is_bpdu(MacAddr::new(dst)), is);
    }
}

proptest! {
    /// Whatever is sent: what passes as IP comes from an address of the port's.
    #[test]
    fn nothing_strange_passes(mut bytes in prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 14..128), kind in 0..6_usize) {
        let bench = bench();
        bytes[6..12].copy_from_slice(&mac(1).octets());
        bytes[12..14].copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0], [8, 6], [0, 40], [0x80, 0x35]][kind]);
        if let Some(place) = bytes.get_mut(14) {
            *place = [0x45, 0x60, 0, 0, 0xaa, 0][kind];
        }
        let Some(fields) = Fields::of(&bytes) else { return Ok(()) };
        if bench.findings(&bytes).drop.is_none() {
            match source(&fields) {
                Some(IpAddr::V4(address)) => prop_assert!(address == v4(1) || address.is_unspecified()),
                Some(IpAddr::V6(address)) => prop_assert!(
                    address == v6("2001:db8::1") || address.is_unicast_link_local() || address.is_unspecified()
                ),
                None => prop_assert!(fields.ethertype != EtherType::IPV4 && fields.ethertype != EtherType::IPV6),
            }
        }
    }
}
