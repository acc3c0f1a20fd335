//! What the switch answers and says by itself, seen from its ports: smoltcp as the host that asks, and what is due by time.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bench::Bench;
use fabnic_port::PortId;
use fabnic_switch::{
    AnswerSettings, BoundAddress, BpduGuard, Dhcp6Settings, DhcpSettings, Gateway, GuardSettings,
    LldpIdentity, LldpMode, Policy, PortSettings, RouterSettings, SwitchConfig, VlanMode, Way,
};
use fabnic_wire::build::{self, Link, Route, Writer};
use fabnic_wire::checksum::{Verification, verify};
use fabnic_wire::lldp::LldpUnit;
use fabnic_wire::nd::{self, Prefix};
use fabnic_wire::{EtherType, MacAddr, Vid};
use proptest::prelude::*;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, icmp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpCidr,
};

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn frame(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = [0; 1514];
    let mut to = Writer::new(&mut bytes);
    write(&mut to);
    let len = to.finish().unwrap();
    bytes[..len].to_vec()
}

fn udp(src: MacAddr, from: Ipv4Addr, port: u16) -> Vec<u8> {
    let link = Link { dst: mac(9), src, tag: None };
    let route = Route { src: from, dst: v4(9), ttl: 64 };
    frame(|to| build::udp_v4(to, &link, &route, (port, 2000), |to| to.put(b"hello")))
}

/// The wire of a host: what waits for it, and what it sent.
#[derive(Default)]
struct Cable {
    rx: VecDeque<Vec<u8>>,
    tx: Vec<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.push(bytes);
        result
    }
}

impl Device for Cable {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.rx.pop_front()?;
        Some((Rx(frame), Tx(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A host on port 0.
struct Host {
    cable: Cable,
    interface: Interface,
    sockets: SocketSet<'static>,
    ms: i64,
}

impl Host {
    fn new() -> Host {
        let mut cable = Cable::default();
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac(1).octets())));
        let interface = Interface::new(config, &mut cable, Instant::from_millis(0));
        Host { cable, interface, sockets: SocketSet::new(Vec::new()), ms: 0 }
    }

    /// Lets half a second pass in steps, with the frames that go to and fro.
    fn run(&mut self, bench: &mut Bench) {
        for _ in 0..50 {
            self.ms += 10;
            bench.switch.tick_ns(self.ms as u64 * 1_000_000);
            self.interface.poll(Instant::from_millis(self.ms), &mut self.cable, &mut self.sockets);
            for sent in self.cable.tx.drain(..) {
                bench.send(0, &[sent]);
            }
            self.cable.rx.extend(bench.take(0));
        }
    }

    fn echo_socket(&mut self) -> smoltcp::iface::SocketHandle {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(7)).unwrap();
        self.sockets.add(socket)
    }
}

fn lease() -> DhcpSettings {
    DhcpSettings {
        address: v4(7),
        prefix_len: 24,
        server: (mac(0xfd), v4(253)),
        gateway: Some(v4(254)),
        dns: vec![v4(53)],
        domain: None,
        host_name: None,
        mtu: None,
        routes: Vec::new(),
        lease: 3600,
    }
}

#[test]
fn a_host_gets_an_address_and_reaches_its_gateway() {
    let answer =
        AnswerSettings { dhcp: Some(Arc::new(lease())), arp: true, nd: true, ..AnswerSettings::default() };
    // Everything is checked: what the lease gives must be bound to the port, the link-local address is claimed.
    let guarded = PortSettings { guard: GuardSettings::strict([mac(1)]), answer, ..PortSettings::default() };
    let gateway = Gateway {
        vlan: Vid::DEFAULT,
        mac: mac(0xfe),
        addresses: vec![v4(254).into(), v6("fe80::fe").into()],
    };
    let policy = Policy { gateways: vec![gateway], ..Policy::default() };
    let mut bench = Bench::new(&SwitchConfig::default(), vec![guarded, PortSettings::default()], policy);
    let mut host = Host::new();
    let dhcp = host.sockets.add(dhcpv4::Socket::new());
    let mut given = None;
    for _ in 0..20 {
        host.run(&mut bench);
        if let Some(dhcpv4::Event::Configured(config)) =
            host.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll()
        {
            given = Some((config.address, config.router, config.dns_servers[0], config.server.address));
            break;
        }
    }
    let (address, router, dns, server) = given.expect("no lease");
    assert_eq!((address.address(), address.prefix_len()), (v4(7), 24));
    assert_eq!((router, dns, server), (Some(v4(254)), v4(53), v4(253)));
    assert!(bench.take(1).is_empty(), "nobody else heard of it");
    assert_eq!(bench.switch.bindings().lookup(Vid::DEFAULT, v4(7).into()).unwrap().port, PortId(0));
    host.interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::Ipv4(address)).unwrap();
        addresses.push(IpCidr::new(v6("fe80::1").into(), 64)).unwrap();
    });
    let handle = host.echo_socket();
    let checksums = DeviceCapabilities::default().checksum;
    let socket = host.sockets.get_mut::<icmp::Socket<'_>>(handle);
    let ping = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: &[1; 900] };
    let room = socket.send(ping.buffer_len(), v4(254).into()).unwrap();
    ping.emit(&mut Icmpv4Packet::new_unchecked(room), &checksums);
    host.run(&mut bench);
    let (pong, from) = host.sockets.get_mut::<icmp::Socket<'_>>(handle).recv().expect("no echo");
    assert_eq!(from, v4(254).into());
    let pong = Icmpv4Repr::parse(&Icmpv4Packet::new_checked(pong).unwrap(), &checksums).unwrap();
    assert_eq!(pong, Icmpv4Repr::EchoReply { ident: 7, seq_no: 1, data: &[1; 900] });
    let socket = host.sockets.get_mut::<icmp::Socket<'_>>(handle);
    let ping = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 2, data: b"six" };
    let room = socket.send(ping.buffer_len(), v6("fe80::fe").into()).unwrap();
    ping.emit(&v6("fe80::1"), &v6("fe80::fe"), &mut Icmpv6Packet::new_unchecked(room), &checksums);
    // smoltcp looks for one neighbour a second.
    (0..4).for_each(|_| host.run(&mut bench));
    let (pong, from) = host.sockets.get_mut::<icmp::Socket<'_>>(handle).recv().expect("no echo");
    assert_eq!((from, pong[0]), (v6("fe80::fe").into(), 129));
    let stats = bench.switch.answer_stats(PortId(0)).unwrap();
    assert_eq!((stats.echo, stats.limited), (2, 0));
    assert!(stats.dhcp >= 2 && stats.arp >= 1 && stats.nd >= 1, "{stats:?}");
    assert!(bench.switch.totals().balance());
}

#[test]
fn whoever_is_checked_pays_for_the_first_frame_only() {
    let mut guard = GuardSettings::strict([mac(1)]);
    guard.addresses = [BoundAddress::one(v4(1).into())].into();
    let ports = vec![PortSettings { guard, ..PortSettings::default() }, PortSettings::default()];
    let mut bench = Bench::new(&SwitchConfig::default(), ports, Policy::default());
    let decided = |bench: &mut Bench, frame: Vec<u8>| {
        let before = bench.switch.decided();
        (0..10).for_each(|_| bench.send(0, &vec![frame.clone(); 8]));
        let after = bench.switch.decided();
        (after.0 - before.0, after.1 - before.1, bench.take(1).len())
    };
    assert_eq!(decided(&mut bench, udp(mac(1), v4(1), 1000)), (79, 1, 80));
    assert_eq!(decided(&mut bench, udp(mac(1), v4(1), 1001)), (79, 1, 80));
    assert_eq!(decided(&mut bench, udp(mac(1), v4(2), 1000)), (79, 1, 0));
    assert_eq!(decided(&mut bench, udp(mac(2), v4(1), 1000)), (79, 1, 0));
    // ARP is looked at each time.
    let mut arp = fabnic_wire::arp::rarp_announce(mac(1)).to_vec();
    assert_eq!(decided(&mut bench, arp.clone()), (0, 80, 80));
    arp[37] ^= 1;
    assert_eq!(decided(&mut bench, arp), (0, 80, 0));
}

#[test]
fn a_mac_address_of_its_own_needs_no_deep_look() {
    let guard = GuardSettings { mac: true, macs: [mac(1), mac(2)].into(), ..GuardSettings::default() };
    let ports = vec![PortSettings { guard, ..PortSettings::default() }, PortSettings::default()];
    let mut bench = Bench::new(&SwitchConfig::default(), ports, Policy::default());
    for (n, passes) in [(1, 3), (2, 3), (3, 0)] {
        bench.send(0, &vec![udp(mac(n), v4(9), 7); 3]);
        assert_eq!(bench.take(1).len(), passes, "from {n}");
    }
    assert_eq!(bench.reasons(), [("mac_spoof", 3)].into());
    assert_eq!(bench.switch.decided(), (6, 3));
}

#[test]
fn a_binding_that_ends_ends_the_flow() {
    let ports = vec![
        PortSettings { guard: GuardSettings::strict([mac(1)]), ..PortSettings::default() },
        PortSettings::default(),
    ];
    let mut bench = Bench::new(&SwitchConfig::default(), ports, Policy::default());
    let flow = udp(mac(1), v4(1), 1000);
    bench.send(0, std::slice::from_ref(&flow));
    assert!(bench.take(1).is_empty());
    let binding = fabnic_switch::Binding {
        vlan: Vid::DEFAULT,
        address: v4(1).into(),
        port: PortId(0),
        mac: mac(1),
        origin: fabnic_switch::BindingOrigin::Dhcp,
        expires: Some(50),
    };
    bench.switch.bindings().learn(binding, 9).unwrap();
    bench.send(0, std::slice::from_ref(&flow));
    assert_eq!(bench.take(1).len(), 1, "it began");
    bench.switch.tick(49);
    bench.send(0, std::slice::from_ref(&flow));
    assert_eq!(bench.take(1).len(), 1);
    bench.switch.tick(50);
    bench.send(0, &[flow]);
    assert!(bench.take(1).is_empty(), "it ended");
}

fn lldp(src: MacAddr, name: &str, ttl: u16) -> Vec<u8> {
    let chassis = src.octets();
    let unit = LldpUnit {
        chassis: fabnic_wire::lldp::Identifier { subtype: 4, value: &chassis },
        port: fabnic_wire::lldp::Identifier { subtype: 5, value: b"eth0" },
        ttl,
        port_description: None,
        system_name: Some(name.as_bytes()),
        // Longer than what is kept of a frame.
        system_description: Some(&[b'x'; 200]),
        capabilities: None,
        pvid: None,
        max_frame: None,
    };
    frame(|to| unit.write(to, src))
}

#[test]
fn lldp_is_heard_and_said() {
    let with = |lldp| PortSettings {
        answer: AnswerSettings { lldp, ..AnswerSettings::default() },
        ..PortSettings::default()
    };
    let trunk = VlanMode::Trunk { vlans: [Vid::new(5).unwrap()].into_iter().collect(), native: None };
    let ports = vec![
        with(LldpMode::Both),
        with(LldpMode::Off),
        PortSettings { vlan: trunk, ..with(LldpMode::Transmit) },
        with(LldpMode::Receive),
    ];
    let identity = LldpIdentity { name: "sw1".to_owned(), interval: 10, ..LldpIdentity::default() };
    let policy = Policy { lldp: identity, ..Policy::default() };
    let mut bench = Bench::new(&SwitchConfig::default(), ports, policy);
    let told = bench.switch.trace(PortId(0), &lldp(mac(1), "host", 20)).unwrap();
    assert!(matches!(told.way, Way::Dropped(reason) if reason.label() == "consumed"));
    assert!(bench.switch.lldp_neighbours().is_empty());
    (0..3).for_each(|port| bench.send(port, &[lldp(mac(1), "host", 20)]));
    let [neighbour] = &bench.switch.lldp_neighbours()[..] else { panic!("one neighbour") };
    assert_eq!(
        (neighbour.port, neighbour.name.as_str(), neighbour.description.len()),
        (PortId(0), "host", 200)
    );
    assert_eq!(bench.reasons(), [("consumed", 1), ("reserved_destination", 2)].into());
    for second in 1..=20 {
        bench.switch.tick(second);
    }
    assert!(bench.switch.lldp_neighbours().is_empty(), "it said 20 seconds");
    for (port, native) in [(0, 1), (2, 0)] {
        let said = bench.take(port);
        assert_eq!(said.len(), 2, "at 1 and 11 s");
        assert_eq!(said[0][12..14], [0x88, 0xcc], "never tagged");
        let unit = LldpUnit::parse(&said[0][14..]).unwrap();
        assert_eq!((unit.system_name, unit.ttl, unit.pvid), (Some(&b"sw1"[..]), 41, Some(native)));
        assert_eq!(unit.port.value, format!("p{port}").as_bytes());
    }
    assert!(bench.take(1).is_empty() && bench.take(3).is_empty());
    assert!(bench.switch.totals().balance());
}

#[test]
fn routers_are_advertised_in_time() {
    let router = RouterSettings {
        mac: mac(0xfb),
        lifetime: 1800,
        hop_limit: 64,
        managed: false,
        other: false,
        mtu: None,
        prefixes: vec![Prefix {
            prefix: v6("2001:db8::"),
            len: 64,
            on_link: true,
            autonomous: true,
            valid: 7200,
            preferred: 3600,
        }],
        dns: Vec::new(),
        interval: 30,
    };
    let answer = AnswerSettings { router: Some(Arc::new(router)), ..AnswerSettings::default() };
    let vlan = VlanMode::Trunk {
        vlans: [Vid::new(5).unwrap()].into_iter().collect(),
        native: Some(Vid::new(7).unwrap()),
    };
    let shown = PortSettings { vlan, answer, ..PortSettings::default() };
    let mut bench =
        Bench::new(&SwitchConfig::default(), vec![shown, PortSettings::default()], Policy::default());
    (1..=60).for_each(|second| bench.switch.tick(second));
    let said = bench.take(0);
    assert_eq!(said.len(), 2, "at 1 and 31 s");
    assert_eq!(said[0][..6], nd::group_mac(nd::ALL_NODES).0);
    assert_eq!((&said[0][12..14], said[0][54]), (&[0x86, 0xdd][..], nd::kind::ROUTER_ADVERTISEMENT));
    assert!(bench.take(1).is_empty());
    // Asked in another VLAN of the port, it answers there.
    let link = Link { dst: nd::group_mac(nd::ALL_ROUTERS), src: mac(1), tag: Some(fabnic_wire::Tci(5)) };
    let route = Route { src: v6("fe80::1"), dst: nd::ALL_ROUTERS, ttl: 255 };
    let solicitation =
        frame(|to| build::icmp_v6(to, &link, &route, (nd::kind::ROUTER_SOLICITATION, 0), |to| to.put32(0)));
    bench.send(0, &[solicitation]);
    let said = bench.take(0);
    assert_eq!((&said[0][..6], &said[0][12..16]), (&mac(1).octets()[..], &[0x81, 0, 0, 5][..]));
}

#[test]
fn spanning_tree_costs_the_port() {
    let with = |bpdu| PortSettings {
        guard: GuardSettings { bpdu, ..GuardSettings::default() },
        ..PortSettings::default()
    };
    let ports = vec![with(BpduGuard::Off), with(BpduGuard::Drop), with(BpduGuard::Stop)];
    let mut bench = Bench::new(&SwitchConfig::default(), ports, Policy::default());
    let mut bpdu = vec![0; 60];
    bpdu[..14].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 38]);
    let told = bench.switch.trace(PortId(2), &bpdu).unwrap();
    assert!(matches!(told.way, Way::Dropped(reason) if reason.label() == "bpdu_guard"));
    assert!(!bench.ports[2].is_stopped(), "a trace stops nothing");
    (0..3).for_each(|port| bench.send(port, &[bpdu.clone()]));
    assert_eq!(bench.reasons(), [("bpdu_guard", 2), ("reserved_destination", 1)].into());
    assert!(!bench.ports[0].is_stopped() && !bench.ports[1].is_stopped());
    let reason = bench.ports[2].stopped().unwrap().reason.to_string();
    assert!(reason.contains("02:00:00:00:00:01") && reason.contains("BPDU guard"), "{reason}");
    bench.ports[2].restart();
    bench.send(2, &[bpdu]);
    assert!(bench.ports[2].is_stopped(), "again");
}

#[test]
fn a_broken_message_is_not_mended() {
    let gateway = Gateway { vlan: Vid::DEFAULT, mac: mac(0xfe), addresses: vec![IpAddr::from(v4(254))] };
    let policy = Policy { gateways: vec![gateway], ..Policy::default() };
    let mut bench = Bench::new(&SwitchConfig::default(), vec![PortSettings::default(); 2], policy);
    let link = Link { dst: mac(0xfe), src: mac(1), tag: None };
    let route = Route { src: v4(1), dst: v4(254), ttl: 64 };
    let good = frame(|to| build::icmp(to, &link, &route, (8, 0), |to| to.put(&[3; 1000])));
    let mut bad = good.clone();
    bad[900] ^= 1;
    bench.send(0, &[good, bad]);
    let got = bench.take(0);
    assert_eq!(got.len(), 1);
    assert_eq!((EtherType(0x0800).0.to_be_bytes(), got[0][34]), ([got[0][12], got[0][13]], 0));
    assert_eq!(bench.take(1).len(), 1, "it goes on as any other");
}

/// A port on which everything is answered and checked.
fn everything() -> PortSettings {
    let router = RouterSettings {
        mac: mac(0xfb),
        lifetime: 1800,
        hop_limit: 64,
        managed: true,
        other: false,
        mtu: Some(1400),
        prefixes: Vec::new(),
        dns: vec![v6("2001:db8::53")],
        interval: 0,
    };
    let dhcp6 = Dhcp6Settings {
        address: Some(v6("2001:db8::7")),
        server_mac: mac(0xfc),
        dns: vec![v6("2001:db8::53")],
        preferred: 1000,
        valid: 2000,
    };
    let answer = AnswerSettings {
        arp: true,
        nd: true,
        dhcp: Some(Arc::new(lease())),
        dhcp6: Some(Arc::new(dhcp6)),
        router: Some(Arc::new(router)),
        lldp: LldpMode::Receive,
        rate: 0,
    };
    PortSettings { guard: GuardSettings::strict([mac(1)]), answer, ..PortSettings::default() }
}

/// Questions of a host with MAC address 1 that are answered.
fn questions() -> Vec<Vec<u8>> {
    let to = |dst| Link { dst, src: mac(1), tag: None };
    let from = v6("fe80::1");
    let icmp6 = |dst: Ipv6Addr, mac, kind, body: &[u8]| {
        let route = Route { src: from, dst, ttl: 255 };
        frame(|w| build::icmp_v6(w, &to(mac), &route, (kind, 0), |w| w.put(body)))
    };
    let ns = [&[0; 4][..], &v6("fe80::fe").octets(), &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
    let group = nd::solicited_node(v6("fe80::fe"));
    let mut discover = vec![0; 240];
    discover[..8].copy_from_slice(&[1, 1, 6, 0, 0, 0, 0, 7]);
    discover[28..34].copy_from_slice(&mac(1).octets());
    discover[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    let dhcp = |options: &[u8]| {
        let route = Route { src: Ipv4Addr::UNSPECIFIED, dst: Ipv4Addr::BROADCAST, ttl: 64 };
        let payload = [&discover, options].concat();
        frame(|w| build::udp_v4(w, &to(MacAddr::BROADCAST), &route, (68, 67), |w| w.put(&payload)))
    };
    let solicit = [1, 0, 0, 7, 0, 1, 0, 2, 0, 9, 0, 3, 0, 12, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    let all_servers = v6("ff02::1:2");
    let route6 = Route { src: from, dst: all_servers, ttl: 1 };
    let route4 = Route { src: v4(7), dst: v4(254), ttl: 64 };
    let mut arp = fabnic_wire::arp::rarp_announce(mac(1));
    arp[12..14].copy_from_slice(&[8, 6]);
    arp[21] = 1;
    arp[28..32].copy_from_slice(&v4(7).octets());
    arp[38..42].copy_from_slice(&v4(254).octets());
    vec![
        arp.to_vec(),
        icmp6(group, nd::group_mac(group), 135, &ns),
        icmp6(nd::ALL_ROUTERS, nd::group_mac(nd::ALL_ROUTERS), 133, &[0; 4]),
        icmp6(v6("fe80::fe"), mac(0xfe), 128, b"0007ping"),
        frame(|w| build::icmp(w, &to(mac(0xfe)), &route4, (8, 0), |w| w.put(&[9; 300]))),
        dhcp(&[53, 1, 1, 61, 3, 1, 2, 3, 255]),
        dhcp(&[53, 1, 3, 50, 4, 10, 0, 0, 7, 54, 4, 10, 0, 0, 253, 255]),
        frame(|w| {
            build::udp_v6(w, &to(nd::group_mac(all_servers)), &route6, (546, 547), |w| w.put(&solicit))
        }),
        lldp(mac(1), "host", 20),
    ]
}

fn all_on() -> Bench {
    let gateway = Gateway {
        vlan: Vid::DEFAULT,
        mac: mac(0xfe),
        addresses: vec![v4(254).into(), v6("fe80::fe").into()],
    };
    let policy = Policy { gateways: vec![gateway], ..Policy::default() };
    Bench::new(&SwitchConfig::default(), vec![everything(), PortSettings::default()], policy)
}

#[test]
fn every_question_is_answered() {
    let mut bench = all_on();
    let questions = questions();
    for question in &questions {
        bench.send(0, std::slice::from_ref(question));
        assert!(bench.take(1).is_empty(), "it went on: {question:02x?}");
    }
    assert_eq!(bench.take(0).len(), questions.len() - 1, "all but LLDP");
    assert_eq!(bench.reasons(), [("consumed", questions.len() as u64)].into());
    assert_eq!(bench.switch.open_transactions(), 0, "nobody waits for another server");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Broken questions: what is answered is answered whole and to the asker only, and the numbers add up.
    #[test]
    fn whatever_is_asked_the_numbers_add_up(
        frames in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5), 14..400_usize),
            1..40,
        ),
    ) {
        let (mut bench, questions) = (all_on(), questions());
        for (which, damage, cut) in frames {
            let mut question = which.get(&questions).clone();
            for (at, value) in damage {
                // The source stays: another one goes no further than the guard.
                let at = 12 + at.index(question.len() - 12);
                question[at] = value;
            }
            question.truncate(cut.max(18));
            let told = bench.switch.trace(PortId(0), &question).unwrap();
            bench.send(0, std::slice::from_ref(&question));
            let (answers, gone_on) = (bench.take(0), bench.take(1));
            prop_assert!(answers.len() <= 1);
            for answer in &answers {
                prop_assert!(gone_on.is_empty());
                prop_assert!(matches!(told.way, Way::Dropped(reason) if reason.label() == "consumed"));
                prop_assert_ne!(verify(answer), Verification::Bad);
                prop_assert_ne!(&answer[6..12], &mac(1).octets()[..]);
            }
            for copy in gone_on {
                prop_assert_eq!(copy, &question[..]);
            }
            prop_assert!(bench.switch.totals().balance());
        }
    }
}
