use std::net::Ipv4Addr;
use std::sync::Arc;

use fabnic_wire::arp::ArpPacket;
use fabnic_wire::build::{self, Route};
use fabnic_wire::checksum::{Verification, verify};
use fabnic_wire::dhcp::{DhcpMessage, DhcpType, option};
use fabnic_wire::dhcp6::{self, Dhcp6Message, Dhcp6Type};
use fabnic_wire::nd::{AdvertisementFlags, NdMessage, NdOption, Prefix};

use super::*;
use crate::guard::packets::*;
use crate::guard::{Binding, BindingOrigin};
use crate::versions::Versions;

/// The asker is port 1. Port 2 has 10.0.0.2 and 2001:db8::2, the gateway of VLAN 1 is 10.0.0.254 and fe80::fe.
struct Bench {
    settings: AnswerSettings,
    bindings: Bindings,
    gateways: Vec<Gateway>,
    port: PortAnswers,
    now_ns: u64,
    dry: bool,
}

fn bench() -> Bench {
    let bindings = Bindings::new(100, Arc::new(Versions::new()));
    let binding = |port, n: u8, address| Binding {
        vlan: Vid::DEFAULT,
        address,
        port: PortId(port),
        mac: mac(n),
        origin: BindingOrigin::Static,
        expires: None,
    };
    bindings.configure([
        binding(1, 1, v4(1).into()),
        binding(2, 2, v4(2).into()),
        binding(2, 2, v6("2001:db8::2").into()),
        binding(3, 3, v4(3).into()),
    ]);
    let claimed = Binding { origin: BindingOrigin::Slaac, ..binding(2, 2, v6("fe80::2").into()) };
    bindings.learn(claimed, 9).unwrap();
    let gateway = Gateway {
        vlan: Vid::DEFAULT,
        mac: mac(0xfe),
        addresses: vec![v4(254).into(), v6("fe80::fe").into()],
    };
    Bench {
        settings: AnswerSettings { arp: true, nd: true, ..AnswerSettings::default() },
        bindings,
        gateways: vec![gateway],
        port: PortAnswers::default(),
        now_ns: 1 << 40,
        dry: false,
    }
}

impl Bench {
    fn answer(&self, bytes: &[u8]) -> (Answer, Vec<u8>) {
        let fields = Fields::of(bytes).unwrap();
        if !may_concern(&self.settings, &self.gateways, &fields) {
            return (Answer::NotOurs, Vec::new());
        }
        let settings = &self.settings;
        let question =
            Question { port: PortId(1), settings, vlan: Vid::DEFAULT, fields: &fields, frame: bytes };
        let answers = Answers {
            bindings: &self.bindings,
            gateways: &self.gateways,
            now_ns: self.now_ns,
            dry: self.dry,
        };
        let mut out = [0; LONGEST];
        // Port 3 is down.
        let answer = answers.answer(&question, &self.port, |port| port != PortId(3), &mut out);
        let len = if let Answer::Reply(_, len) = answer { len } else { 0 };
        (answer, out[..len].to_vec())
    }

    fn reply(&self, bytes: &[u8]) -> Vec<u8> {
        let (answer, reply) = self.answer(bytes);
        assert!(matches!(answer, Answer::Reply(..)), "{answer:?}");
        let fields = Fields::of(&reply).unwrap();
        if fields.ethertype != EtherType::ARP {
            assert_eq!(verify(&reply), Verification::Good);
        }
        reply
    }

    fn silent(&self, bytes: &[u8]) -> bool {
        matches!(self.answer(bytes).0, Answer::Silence(_))
    }

    fn goes_on(&self, bytes: &[u8]) -> bool {
        self.answer(bytes).0 == Answer::NotOurs
    }
}

#[test]
fn arp_is_answered_for_the_owner() {
    let bench = bench();
    let own = (mac(1), v4(1));
    let reply = bench.reply(&arp(mac(1), 1, own, v4(2)));
    let fields = Fields::of(&reply).unwrap();
    let packet = fields.arp.unwrap();
    assert_eq!((fields.dst, fields.src, packet.operation), (mac(1), mac(2), ArpPacket::REPLY));
    assert_eq!((packet.sender_mac, packet.sender_ip), (mac(2), v4(2).octets()));
    assert_eq!((packet.target_mac, packet.target_ip), (mac(1), v4(1).octets()));
    for (why, bytes) in [
        ("nobody has it", arp(mac(1), 1, own, v4(7))),
        ("its owner is on the asker's port", arp(mac(1), 1, (mac(5), v4(5)), v4(1))),
        ("its owner is down", arp(mac(1), 1, own, v4(3))),
        ("an announcement", arp(mac(1), 1, (mac(1), v4(2)), v4(2))),
        ("a probe", arp(mac(1), 1, (mac(1), Ipv4Addr::UNSPECIFIED), v4(2))),
        ("a reply", arp(mac(1), 2, own, v4(2))),
    ] {
        assert!(bench.goes_on(&bytes), "{why}");
    }
    let mut unicast = arp(mac(1), 1, own, v4(2));
    unicast[..6].copy_from_slice(&mac(2).octets());
    assert!(bench.goes_on(&unicast), "asked of the owner itself");
    assert_eq!(bench.port.stats(), AnswerStats { arp: 1, ..AnswerStats::default() });
    let mut off = self::bench();
    off.settings.arp = false;
    assert!(off.goes_on(&arp(mac(1), 1, own, v4(2))));
    // The switch's own address is answered all the same, also to who looks for conflicts.
    for sender in [v4(1), Ipv4Addr::UNSPECIFIED, v4(254)] {
        let reply = off.reply(&arp(mac(1), 1, (mac(1), sender), v4(254)));
        assert_eq!(Fields::of(&reply).unwrap().arp.unwrap().sender_mac, mac(0xfe));
    }
}

#[test]
fn solicitations_are_answered_for_the_owner() {
    let bench = bench();
    let (own, target) = (v6("2001:db8::1"), v6("2001:db8::2"));
    let reply = bench.reply(&solicitation(mac(1), own, target, Some(mac(1))));
    let fields = Fields::of(&reply).unwrap();
    assert_eq!((fields.dst, fields.src, fields.ttl), (mac(1), mac(2), 255));
    let (message, mut options) = NdMessage::parse(&reply[54..]).unwrap();
    let flags = AdvertisementFlags { router: false, solicited: true, override_known: false };
    assert_eq!(message, NdMessage::NeighborAdvertisement { flags, target });
    assert_eq!(options.next(), Some(NdOption::TargetLink(mac(2))));
    assert!(bench.goes_on(&solicitation(mac(1), Ipv6Addr::UNSPECIFIED, target, None)), "looks for conflicts");
    assert!(bench.goes_on(&solicitation(mac(1), own, v6("2001:db8::7"), None)));
    assert!(bench.goes_on(&solicitation(mac(1), own, v6("fe80::2"), None)), "merely claimed");
    assert!(bench.goes_on(&solicitation(mac(1), own, target, Some(mac(3)))), "another's link address");
    let unicast = icmp6(mac(1), (own, target), nd::kind::NEIGHBOR_SOLICITATION, |w| {
        nd::put_neighbor_solicitation(w, target);
    });
    assert!(bench.goes_on(&unicast), "asks whether the owner is there");
    // The gateway is a router, and defends its address.
    let reply = bench.reply(&solicitation(mac(1), Ipv6Addr::UNSPECIFIED, v6("fe80::fe"), None));
    let fields = Fields::of(&reply).unwrap();
    assert_eq!(fields.dst, MacAddr::new([0x33, 0x33, 0, 0, 0, 1]));
    let flags = AdvertisementFlags { router: true, solicited: false, override_known: true };
    let (message, _) = NdMessage::parse(&reply[54..]).unwrap();
    assert_eq!(message, NdMessage::NeighborAdvertisement { flags, target: v6("fe80::fe") });
}

fn lease() -> DhcpSettings {
    DhcpSettings {
        address: v4(1),
        prefix_len: 24,
        server: (mac(0xfd), v4(253)),
        gateway: Some(v4(254)),
        dns: vec![v4(53)],
        domain: Some("example.org".to_owned()),
        host_name: Some("vm1".to_owned()),
        mtu: Some(1400),
        routes: vec![(Ipv4Addr::new(10, 9, 0, 0), 16, v4(9))],
        lease: 3600,
    }
}

fn read_dhcp(bytes: &[u8]) -> DhcpMessage<'_> {
    DhcpMessage::parse(&bytes[42..]).unwrap()
}

#[test]
fn dhcp_is_answered_from_the_settings() {
    let mut bench = bench();
    bench.settings.dhcp = Some(Arc::new(lease()));
    let none = Ipv4Addr::UNSPECIFIED;
    let offer = bench.reply(&dhcp_client(mac(1), 7, none, &[53, 1, 1]));
    let message = read_dhcp(&offer);
    assert_eq!((message.message_type(), message.header.xid.get()), (Some(DhcpType::OFFER), 7));
    assert_eq!((message.header.yiaddr, message.lease_time()), (v4(1).octets(), Some(3600)));
    let fields = Fields::of(&offer).unwrap();
    assert_eq!((fields.dst, fields.src), (mac(1), mac(0xfd)), "unicast to whom it is for");
    assert_eq!((&fields.flow.dst[..4], fields.flow.dst_port), (&v4(1).octets()[..], 68));
    for (code, value) in [
        (option::MASK, &[255, 255, 255, 0][..]),
        (option::SERVER, &[10, 0, 0, 253]),
        (option::ROUTERS, &[10, 0, 0, 254]),
        (option::DNS, &[10, 0, 0, 53]),
        (option::MTU, &[5, 120]),
        (option::DOMAIN, b"example.org"),
        (option::HOST_NAME, b"vm1"),
        (option::CLASSLESS_ROUTES, &[0, 10, 0, 0, 254, 16, 10, 9, 10, 0, 0, 9]),
    ] {
        assert_eq!(message.option(code), Some(value), "option {code}");
    }
    let mut broadcasts = dhcp_client(mac(1), 7, none, &[53, 1, 1]);
    broadcasts[42 + 10] = 0x80;
    assert_eq!(Fields::of(&bench.reply(&broadcasts)).unwrap().dst, MacAddr::BROADCAST);
    let rapid = bench.reply(&dhcp_client(mac(1), 7, none, &[53, 1, 1, 80, 0]));
    assert_eq!(read_dhcp(&rapid).message_type(), Some(DhcpType::ACK));
    assert_eq!(read_dhcp(&rapid).option(option::RAPID_COMMIT), Some(&[][..]));
    let request = |ciaddr, options: &[u8]| dhcp_client(mac(1), 8, ciaddr, options);
    let kind = |bytes: &[u8]| read_dhcp(&bench.reply(bytes)).message_type();
    let selecting = [53, 1, 3, 50, 4, 10, 0, 0, 1, 54, 4, 10, 0, 0, 253];
    assert_eq!(kind(&request(none, &selecting)), Some(DhcpType::ACK));
    assert_eq!(kind(&request(v4(1), &[53, 1, 3])), Some(DhcpType::ACK), "renews");
    assert_eq!(kind(&request(v4(2), &[53, 1, 3])), Some(DhcpType::NAK));
    let nak = bench.reply(&request(none, &[53, 1, 3, 50, 4, 10, 0, 0, 9]));
    assert_eq!((read_dhcp(&nak).message_type(), read_dhcp(&nak).lease_time()), (Some(DhcpType::NAK), None));
    assert_eq!(Fields::of(&nak).unwrap().dst, MacAddr::BROADCAST);
    let inform = bench.reply(&request(v4(1), &[53, 1, 8]));
    assert_eq!((read_dhcp(&inform).header.yiaddr, read_dhcp(&inform).lease_time()), ([0; 4], None));
    assert!(
        bench.silent(&request(none, &[53, 1, 3, 50, 4, 10, 0, 0, 1, 54, 4, 10, 0, 0, 9])),
        "another server"
    );
    assert!(bench.silent(&request(v4(1), &[53, 1, 7])), "a release");
    assert!(bench.silent(&udp4(mac(1), (none, 68), (Ipv4Addr::BROADCAST, 67), b"junk")));
    let mut other = request(none, &[53, 1, 1]);
    other[11] = 9;
    assert!(bench.silent(&other), "not for itself");
    // The server's address is there, and can be pinged.
    let reply = bench.reply(&arp(mac(1), 1, (mac(1), v4(1)), v4(253)));
    assert_eq!(Fields::of(&reply).unwrap().arp.unwrap().sender_mac, mac(0xfd));
    assert!(self::bench().goes_on(&request(none, &[53, 1, 1])), "without a lease it is the network's");
}

/// A DHCPv6 message of the client with DUID 9.
fn message6(kind: u8, server: bool, options: &[u8]) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 7];
    if kind != 11 {
        payload.extend([0, 1, 0, 2, 0, 9]);
    }
    if server {
        payload.extend([0, 2, 0, 10]);
        payload.extend(dhcp6::duid(mac(0xfc)));
    }
    payload.extend_from_slice(options);
    udp6(mac(1), (v6("fe80::1"), 546), (dhcp6::ALL_SERVERS, 547), &payload)
}

const IA: &[u8] = &[0, 3, 0, 12, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
const RAPID: &[u8] = &[0, 14, 0, 0];

/// IA 5 with the address 2001:db8::n.
fn ia_with(n: u8) -> Vec<u8> {
    let mut address = v6("2001:db8::").octets();
    address[15] = n;
    [&[0, 3, 0, 40, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24][..], &address, &[0; 8]].concat()
}

#[test]
fn dhcp6_is_answered_from_the_settings() {
    let mut bench = bench();
    let given = v6("2001:db8::1");
    bench.settings.dhcp6 = Some(Arc::new(Dhcp6Settings {
        address: Some(given),
        server_mac: mac(0xfc),
        dns: vec![v6("2001:db8::53")],
        preferred: 1000,
        valid: 2000,
    }));
    let addresses = |bytes: &[u8]| -> Vec<_> {
        let message = Dhcp6Message::parse(&bytes[62..]).unwrap();
        message
            .associations()
            .flat_map(|ia| ia.addresses())
            .map(|a| (a.address, a.preferred, a.valid))
            .collect()
    };
    let kind = |bytes: &[u8]| Dhcp6Message::parse(&bytes[62..]).unwrap().kind;
    let status = |bytes: &[u8]| Dhcp6Message::parse(&bytes[62..]).unwrap().options().status();
    let advertise = bench.reply(&message6(1, false, IA));
    let message = Dhcp6Message::parse(&advertise[62..]).unwrap();
    assert_eq!((message.kind, message.transaction), (Dhcp6Type::ADVERTISE, 7));
    assert_eq!(message.option(1), Some(&[0, 9][..]));
    assert_eq!(message.option(2), Some(&dhcp6::duid(mac(0xfc))[..]));
    assert_eq!(message.option(23), Some(&v6("2001:db8::53").octets()[..]));
    assert_eq!(addresses(&advertise), [(given, 1000, 2000)]);
    let fields = Fields::of(&advertise).unwrap();
    assert_eq!((fields.src, fields.dst, fields.flow.dst_port), (mac(0xfc), mac(1), 546));
    assert_eq!(Ipv6Addr::from(fields.flow.src), nd::link_local(mac(0xfc)));
    let rapid = bench.reply(&message6(1, false, &[IA, RAPID].concat()));
    assert_eq!((kind(&rapid), addresses(&rapid)), (Dhcp6Type::REPLY, vec![(given, 1000, 2000)]));
    let request = bench.reply(&message6(3, true, IA));
    assert_eq!((kind(&request), addresses(&request).len()), (Dhcp6Type::REPLY, 1));
    let renew = bench.reply(&message6(5, true, &ia_with(9)));
    assert_eq!(addresses(&renew), [(given, 1000, 2000), (v6("2001:db8::9"), 0, 0)], "the other ends");
    let two = bench.reply(&message6(6, false, &[IA, IA].concat()));
    let message = Dhcp6Message::parse(&two[62..]).unwrap();
    let statuses: Vec<_> = message.associations().map(|ia| ia.options.clone().status()).collect();
    assert_eq!(statuses, [dhcp6::status::SUCCESS, dhcp6::status::NO_ADDRESSES]);
    assert_eq!(status(&bench.reply(&message6(4, false, &ia_with(1)))), dhcp6::status::SUCCESS);
    assert_eq!(status(&bench.reply(&message6(4, false, &ia_with(9)))), dhcp6::status::NOT_ON_LINK);
    assert_eq!(kind(&bench.reply(&message6(8, true, &ia_with(1)))), Dhcp6Type::REPLY);
    let information = bench.reply(&message6(11, false, &[]));
    assert_eq!((kind(&information), addresses(&information).len()), (Dhcp6Type::REPLY, 0));
    for (why, bytes) in [
        ("a request without a server", message6(3, false, IA)),
        ("a solicitation with one", message6(1, true, IA)),
        ("no address to confirm", message6(4, false, IA)),
        ("a server's message", message6(7, true, IA)),
        ("a relay's", message6(12, false, IA)),
    ] {
        assert!(bench.silent(&bytes), "{why}");
    }
}

#[test]
fn a_router_is_shown() {
    let mut bench = bench();
    let prefix = Prefix {
        prefix: v6("2001:db8::"),
        len: 64,
        on_link: true,
        autonomous: false,
        valid: 7200,
        preferred: 3600,
    };
    let router = RouterSettings {
        mac: mac(0xfb),
        lifetime: 1800,
        hop_limit: 64,
        managed: true,
        other: false,
        mtu: Some(1400),
        prefixes: vec![prefix],
        dns: vec![v6("2001:db8::53")],
        interval: 600,
    };
    let solicit = |from: Ipv6Addr| {
        icmp6(mac(1), (from, nd::ALL_ROUTERS), nd::kind::ROUTER_SOLICITATION, |w| w.put32(0))
    };
    assert!(bench.goes_on(&solicit(v6("fe80::1"))));
    bench.settings.router = Some(Arc::new(router.clone()));
    let reply = bench.reply(&solicit(v6("fe80::1")));
    let fields = Fields::of(&reply).unwrap();
    assert_eq!((fields.dst, fields.src, fields.ttl), (mac(1), mac(0xfb), 255));
    assert_eq!(Ipv6Addr::from(fields.flow.src), nd::link_local(mac(0xfb)));
    let (message, options) = NdMessage::parse(&reply[54..]).unwrap();
    let NdMessage::RouterAdvertisement(advertisement) = message else { panic!("{message:?}") };
    assert_eq!((advertisement.lifetime, advertisement.managed, advertisement.other), (1800, true, false));
    let options: Vec<_> = options.collect();
    assert_eq!(
        options[..3],
        [NdOption::SourceLink(mac(0xfb)), NdOption::Mtu(1400), NdOption::Prefix(prefix)]
    );
    let reply = bench.reply(&solicit(Ipv6Addr::UNSPECIFIED));
    assert_eq!(Ipv6Addr::from(Fields::of(&reply).unwrap().flow.dst), nd::ALL_NODES);
    let mut far = solicit(v6("fe80::1"));
    far[21] = 254;
    assert!(bench.goes_on(&far), "from behind another router");
    let mut out = [0; LONGEST];
    let len = super::router::unsolicited(&router, &mut out).unwrap();
    assert_eq!(verify(&out[..len]), Verification::Good);
    assert_eq!(out[..6], nd::group_mac(nd::ALL_NODES).0);
    // Its link-local address is there.
    let local = nd::link_local(mac(0xfb));
    let reply = bench.reply(&solicitation(mac(1), v6("fe80::1"), local, Some(mac(1))));
    assert_eq!(Fields::of(&reply).unwrap().src, mac(0xfb));
}

#[test]
fn echo_comes_back() {
    let bench = bench();
    let link = |dst| build::Link { dst, src: mac(1), tag: None };
    let echo4 = |dst, to, kind| {
        let route = Route { src: v4(1), dst: to, ttl: 9 };
        frame(|w| build::icmp(w, &link(dst), &route, (kind, 0), |w| w.put(&[7; 1400])))
    };
    let reply = bench.reply(&echo4(mac(0xfe), v4(254), 8));
    let fields = Fields::of(&reply).unwrap();
    assert_eq!((fields.dst, fields.src, fields.flow.src_port, fields.ttl), (mac(1), mac(0xfe), 0, 64));
    assert_eq!(&reply[38..], &[7; 1400]);
    assert!(bench.goes_on(&echo4(mac(2), v4(254), 8)), "to another MAC address");
    assert!(bench.goes_on(&echo4(mac(0xfe), v4(2), 8)), "to another address");
    assert!(bench.goes_on(&echo4(mac(0xfe), v4(254), 13)), "a timestamp");
    let route = Route { src: v6("fe80::1"), dst: v6("fe80::fe"), ttl: 9 };
    let bytes = frame(|w| build::icmp_v6(w, &link(mac(0xfe)), &route, (128, 0), |w| w.put(b"ping")));
    let reply = bench.reply(&bytes);
    assert_eq!((reply[54], &reply[58..]), (129, &b"ping"[..]));
    let mut fragment = echo4(mac(0xfe), v4(254), 8);
    fragment[20] = 0x20;
    assert!(bench.goes_on(&fragment));
}

#[test]
fn whoever_asks_too_often_is_not_answered() {
    let mut bench = bench();
    bench.settings.rate = 10;
    let question = arp(mac(1), 1, (mac(1), v4(1)), v4(2));
    let given = (0..100).filter(|_| matches!(bench.answer(&question).0, Answer::Reply(..))).count();
    assert_eq!(given, 32);
    assert_eq!(bench.port.stats(), AnswerStats { arp: 32, limited: 68, ..AnswerStats::default() });
    bench.dry = true;
    assert_eq!(bench.answer(&question).0, Answer::TooOften);
    bench.now_ns += 100_000_000;
    assert!(matches!(bench.answer(&question).0, Answer::Reply(..)));
    assert_eq!(bench.port.stats().arp, 32, "a dry look is not counted");
}

#[test]
fn neighbours_are_kept_and_forgotten() {
    use lldp::{Heard, MAX_NEIGHBOURS, Neighbours};

    let neighbours = Neighbours::default();
    let mut out = [0; LONGEST];
    let identity = LldpIdentity { name: "sw\u{7}1".to_owned(), ..LldpIdentity::default() };
    let mut unit = |port: &str, ttl| {
        let len = lldp::announcement(&identity, (port, Some(Vid::MAX), 1500), ttl, &mut out).unwrap();
        out[14..len].to_vec()
    };
    assert_eq!(neighbours.hear(PortId(1), &unit("eth0", 100), 50), Heard::Noted);
    let [one] = &neighbours.entries()[..] else { panic!("one neighbour") };
    assert_eq!((one.port, one.expires, one.native_vlan), (PortId(1), 150, Some(4094)));
    assert_eq!(
        (one.port_id.to_string(), one.chassis.to_string()),
        ("eth0".into(), "02:fa:b0:00:00:01".into())
    );
    assert_eq!(one.name, "sw\u{fffd}1", "nothing that moves a cursor");
    assert_eq!(neighbours.hear(PortId(1), &unit("eth0", 100), 60), Heard::Noted);
    assert_eq!(neighbours.entries().len(), 1, "the same again");
    assert_eq!(neighbours.hear(PortId(1), &unit("eth0", 0), 60), Heard::Gone);
    assert!(neighbours.entries().is_empty());
    assert_eq!(neighbours.hear(PortId(1), &unit("eth0", 9)[1..], 60), Heard::Broken);
    for n in 0..MAX_NEIGHBOURS {
        assert_eq!(neighbours.hear(PortId(1), &unit(&format!("eth{n}"), 100), 60), Heard::Noted);
    }
    assert_eq!(neighbours.hear(PortId(1), &unit("more", 100), 60), Heard::TooMany);
    assert_eq!(neighbours.hear(PortId(2), &unit("more", 10), 60), Heard::Noted);
    neighbours.expire(70);
    assert_eq!(neighbours.entries().len(), MAX_NEIGHBOURS);
    neighbours.remove_port(PortId(1));
    assert!(neighbours.entries().is_empty());
}
