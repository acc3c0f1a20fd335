//! The guards, DHCP snooping, and ARP and ND suppression against the reference switch: random settings, random traffic with
//! broken bytes among it, time that passes, changes in between.
//!
//! Both get the same frames from the same ports at the same (virtual) time. What each port receives, byte for byte, the
//! reasons of all drops, and who is bound to what must be the same. Each frame is first traced, which must tell what then
//! happens and change nothing.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bench::Bench;
use fabnic_switch::{
    AnswerSettings, BindingOrigin, BoundAddress, GuardSettings, Policy, PortSettings, SwitchConfig, VlanMode,
    VlanProtocol, Way,
};
use fabnic_testkit::reference::{self, guard};
use fabnic_wire::arp::ArpPacket;
use fabnic_wire::build::{self, Link, Route, Writer};
use fabnic_wire::nd::{self, AdvertisementFlags, NdOption};
use fabnic_wire::{EtherType, IpProtocol, MacAddr, Tci, Vid};
use proptest::prelude::*;

/// The port behind which servers are, mostly.
const SERVERS: usize = 3;

fn vid(vlan: u16) -> Vid {
    Vid::new(vlan).unwrap()
}

fn settings(config: &reference::PortConfig) -> PortSettings {
    let vlan = match &config.vlan {
        reference::Vlan::Access(vlan) => VlanMode::Access(vid(*vlan)),
        reference::Vlan::Trunk { vlans, native } => {
            VlanMode::Trunk { vlans: vlans.iter().copied().map(vid).collect(), native: native.map(vid) }
        }
    };
    let of = &config.guard;
    let guard = GuardSettings {
        trusted: of.trusted,
        macs: of.macs.iter().copied().map(MacAddr::new).collect(),
        mac: of.mac,
        vlan: of.vlan,
        ipv4: of.ipv4,
        ipv6: of.ipv6,
        arp: of.arp,
        nd: of.nd,
        dhcp_server: of.dhcp_server,
        dhcp6_server: of.dhcp6_server,
        ra: of.ra,
        addresses: of.addresses.iter().copied().map(BoundAddress::one).collect(),
        learn_dhcp: of.learn_dhcp,
        learn_dhcp6: of.learn_dhcp6,
        slaac: of.claims.then(Arc::default),
        max_bindings: of.max_bindings as u32,
        ..GuardSettings::default()
    };
    // Limits are tested elsewhere: the reference does not know them.
    let answer =
        AnswerSettings { arp: of.answer_arp, nd: of.answer_nd, rate: 0, ..AnswerSettings::default() };
    let vlan_protocol = if config.service_tags { VlanProtocol::Dot1Ad } else { VlanProtocol::Dot1Q };
    PortSettings { vlan, vlan_protocol, guard, answer, ..PortSettings::default() }
}

/// Both switches, side by side.
struct Pair {
    bench: Bench,
    reference: reference::Switch,
    reasons: BTreeMap<&'static str, u64>,
    now: u32,
}

impl Pair {
    fn new(ports: Vec<reference::PortConfig>) -> Pair {
        let config = SwitchConfig { ageing: Duration::from_secs(10_000), ..SwitchConfig::default() };
        Pair {
            bench: Bench::new(&config, ports.iter().map(settings).collect(), Policy::default()),
            reference: reference::Switch::new(reference::Config {
                ports,
                ageing: 10_000,
                damping: None,
                rules: Vec::new(),
            }),
            reasons: BTreeMap::new(),
            now: 0,
        }
    }

    fn send(&mut self, port: usize, frame: &[u8]) {
        let told = self.bench.switch.trace(self.bench.ports[port].id, frame).unwrap();
        let before = self.reference.known(self.now.into()).bound().clone();
        let outcome = self.reference.input(port, frame, self.now.into());
        for reason in outcome.reasons() {
            *self.reasons.entry(reason).or_default() += 1;
        }
        let mut expected = vec![Vec::new(); self.bench.ports.len()];
        for (to, bytes) in outcome.delivered {
            expected[to].push(bytes);
        }
        self.bench.send(port, &[frame.to_vec()]);
        for (to, expected) in expected.into_iter().enumerate() {
            assert_eq!(self.bench.take(to), expected, "from {port} to {to}: {frame:02x?} ({told:#?})");
        }
        let refused = match told.way {
            Way::Dropped(reason) => Some(reason.label()),
            Way::Sent(_) => None,
        };
        // A dry walk binds nothing, and so does not see that a frame claims or is given more than there is room for.
        let has_bound = self.reference.known(self.now.into()).bound() != &before;
        if !has_bound && !matches!(outcome.refused, Some("dhcp_spoof" | "guard_limit")) {
            assert_eq!(refused, outcome.refused, "{told:#?}");
        }
        assert_eq!(self.bench.reasons(), self.reasons, "{frame:02x?} from {port}: {told:#?}");
        self.check();
    }

    fn check(&mut self) {
        let known = self.reference.known(self.now.into());
        let expected: Vec<_> = known
            .bound()
            .iter()
            .map(|((vlan, address), bound)| (*vlan, *address, bound.port as u32, bound.mac, bound.right))
            .collect();
        let waiting = known.waiting();
        let right = |origin| match origin {
            BindingOrigin::Slaac => guard::Right::Claimed,
            BindingOrigin::Dhcp | BindingOrigin::Dhcp6 => guard::Right::Leased,
            BindingOrigin::Static => guard::Right::Fixed,
        };
        let found: Vec<_> = self
            .bench
            .switch
            .bindings()
            .entries()
            .iter()
            .map(|b| (b.vlan.get(), b.address, b.port.0, b.mac.octets(), right(b.origin)))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(self.bench.switch.open_transactions(), waiting);
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Send { port, frame, times } => {
                let port = port % self.bench.ports.len();
                (0..times).for_each(|_| self.send(port, &frame));
            }
            Step::Talk { port, client, mut server } => {
                let port = port % self.bench.ports.len();
                // The server answers that client.
                match (client.get(12..14), server.get(12..14)) {
                    (Some([8, 0]), Some([8, 0])) => {
                        server[46..50].copy_from_slice(&client[46..50]);
                        server[70..76].copy_from_slice(&client[70..76]);
                    }
                    (Some([0x86, 0xdd]), Some([0x86, 0xdd])) => {
                        server[38..54].copy_from_slice(&client[22..38]);
                        server[63..66].copy_from_slice(&client[63..66]);
                    }
                    _ => {}
                }
                self.send(port, &client);
                self.send(SERVERS % self.bench.ports.len(), &server);
            }
            Step::Wait(seconds) => {
                self.now += seconds;
                self.bench.switch.tick(self.now);
                self.check();
            }
            Step::Guard { port, guard } => {
                let mut all = self.reference.config().clone();
                let port = port % all.ports.len();
                all.ports[port].guard = *guard;
                self.bench.configure(all.ports.iter().map(settings).collect());
                self.reference.configure(all);
                self.check();
            }
            Step::Restart => {
                let learned = |port: u32| {
                    let all = self.bench.switch.bindings().entries().into_iter();
                    all.filter(|b| b.port.0 == port && b.origin != BindingOrigin::Static).count()
                };
                let limits = self.reference.config().ports.iter().map(|port| port.guard.max_bindings);
                // A limit that was lowered meanwhile costs a restart what is over it.
                if limits.zip(0..).all(|(limit, port)| learned(port) <= limit) {
                    self.bench.restart(|_| ());
                    self.check();
                }
            }
        }
        assert!(self.bench.switch.totals().balance());
    }
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a test")]
enum Step {
    Send { port: usize, frame: Vec<u8>, times: usize },
    Talk { port: usize, client: Vec<u8>, server: Vec<u8> },
    Wait(u32),
    Guard { port: usize, guard: Box<guard::Guard> },
    Restart,
}

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn ipv4(n: u8) -> Ipv4Addr {
    if n == 0 { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::new(10, 0, 0, n) }
}

fn ipv6(n: u8) -> Ipv6Addr {
    match n {
        0 => Ipv6Addr::UNSPECIFIED,
        1..=3 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n.into()),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()),
    }
}

fn vlan() -> impl Strategy<Value = reference::Vlan> {
    prop_oneof![
        5 => Just(reference::Vlan::Access(1)),
        1 => Just(reference::Vlan::Access(2)),
        1 => Just(reference::Vlan::Trunk { vlans: [1, 2].into(), native: Some(1) }),
    ]
}

fn guard_of(port: usize) -> impl Strategy<Value = guard::Guard> {
    let most = || prop::bool::weighted(0.8);
    let checks = (most(), most(), most(), most(), most(), most());
    let roles = (most(), most(), most(), most(), most(), most());
    let rest = (
        prop::bool::weighted(if port == SERVERS { 0.8 } else { 0.1 }),
        most(),
        most(),
        0..4_usize,
        prop::bool::weighted(0.2),
    );
    let address = prop_oneof![
        (1..6_u8).prop_map(|n| IpAddr::from(ipv4(n))),
        (1..6_u8).prop_map(|n| IpAddr::from(ipv6(n)))
    ];
    (checks, roles, rest, prop::collection::vec(address, 0..5)).prop_map(
        move |(checks, roles, (trusted, answer_arp, answer_nd, max_bindings, anyone), addresses)| {
            guard::Guard {
                trusted,
                macs: if anyone { Vec::new() } else { vec![mac(port as u8 + 1).octets()] },
                mac: checks.0 && !anyone,
                vlan: checks.1,
                ipv4: checks.2,
                ipv6: checks.3,
                arp: checks.4,
                nd: checks.5,
                dhcp_server: roles.0,
                dhcp6_server: roles.1,
                ra: roles.2,
                learn_dhcp: roles.3,
                learn_dhcp6: roles.4,
                claims: roles.5,
                addresses,
                max_bindings,
                answer_arp,
                answer_nd,
            }
        },
    )
}

fn port_config(port: usize) -> impl Strategy<Value = reference::PortConfig> {
    (vlan(), guard_of(port), prop::bool::weighted(0.15)).prop_map(|(vlan, guard, service_tags)| {
        reference::PortConfig { vlan, guard, service_tags, ..reference::PortConfig::default() }
    })
}

fn frame(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = [0; 1514];
    let mut to = Writer::new(&mut bytes);
    write(&mut to);
    let len = to.finish().unwrap();
    bytes[..len.max(60)].to_vec()
}

/// Ethernet addresses, mostly of the port's own, and perhaps a tag.
fn link(port: usize) -> impl Strategy<Value = Link> {
    let dst = prop_oneof![4 => Just(MacAddr::BROADCAST), 1 => (1..5_u8).prop_map(mac), 1 => Just(nd::group_mac(nd::ALL_NODES))];
    let tag = prop::option::weighted(0.1, (0..3_u16).prop_map(Tci));
    let own = port as u8 + 1;
    let src = prop_oneof![6 => Just(own), 1 => 1..5_u8];
    (dst, src.prop_map(mac), tag).prop_map(|(dst, src, tag)| Link { dst, src, tag })
}

fn arp(port: usize) -> impl Strategy<Value = Vec<u8>> {
    let sender = prop_oneof![3 => Just(None), 1 => (1..5_u8).prop_map(|n| Some(mac(n)))];
    (link(port), 1..4_u16, sender, 0..6_u8, 0..6_u8, any::<bool>()).prop_map(
        |(link, operation, sender, from, about, rarp)| {
            let sender_mac = sender.unwrap_or(link.src);
            let packet = ArpPacket {
                hardware_type: 1.into(),
                protocol_type: 0x800.into(),
                hardware_len: 6,
                protocol_len: 4,
                operation: operation.into(),
                sender_mac,
                sender_ip: ipv4(from).octets(),
                target_mac: if rarp { sender_mac } else { MacAddr::ZERO },
                target_ip: ipv4(about).octets(),
            };
            let mut bytes = frame(|to| build::arp(to, &link, &packet));
            if rarp && operation == 3 && link.tag.is_none() {
                bytes[12..14].copy_from_slice(&EtherType::RARP.0.to_be_bytes());
            }
            bytes
        },
    )
}

fn neighbour(port: usize) -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![2 => Just(None), 2 => Just(Some(0)), 1 => (1..5_u8).prop_map(Some)];
    let ttl = prop_oneof![9 => Just(255_u8), 1 => Just(64_u8)];
    (link(port), 133..138_u8, (0..6_u8, 0..6_u8), option, any::<bool>(), ttl).prop_map(
        |(mut link, kind, (from, about), option, alone, ttl)| {
            let dst = match (kind, alone) {
                (_, true) => ipv6(about),
                (135, _) => nd::solicited_node(ipv6(about)),
                _ => nd::ALL_NODES,
            };
            if dst.is_multicast() {
                link.dst = nd::group_mac(dst);
            }
            let option = option.map(|n| if n == 0 { link.src } else { mac(n) });
            let route = Route { src: ipv6(from), dst, ttl };
            frame(|to| {
                build::icmp_v6(to, &link, &route, (kind, 0), |to| {
                    match kind {
                        133 => to.put32(0),
                        134 => to.put(&[0; 12]),
                        135 => nd::put_neighbor_solicitation(to, ipv6(about)),
                        136 => {
                            nd::put_neighbor_advertisement(to, AdvertisementFlags::default(), ipv6(about));
                        }
                        _ => to.put(&[0; 36]),
                    }
                    match (option, kind) {
                        (Some(mac), 136 | 137) => nd::put_option(to, &NdOption::TargetLink(mac)),
                        (Some(mac), _) => nd::put_option(to, &NdOption::SourceLink(mac)),
                        (None, _) => {}
                    }
                });
            })
        },
    )
}

fn data(port: usize) -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![3 => 1000..1002_u16, 1 => prop::sample::select(vec![67_u16, 68, 546, 547])];
    (
        link(port),
        0..6_u8,
        1..6_u8,
        any::<bool>(),
        number.clone(),
        number,
        prop::sample::select(vec![0_usize, 10, 200]),
    )
        .prop_map(|(link, from, about, v6, src, dst, len)| {
            frame(|to| match v6 {
                true => {
                    let route = Route { src: ipv6(from), dst: ipv6(about), ttl: 64 };
                    build::udp_v6(to, &link, &route, (src, dst), |to| to.put(&vec![1; len]));
                }
                false => {
                    let route = Route { src: ipv4(from), dst: ipv4(about), ttl: 64 };
                    build::udp_v4(to, &link, &route, (src, dst), |to| to.put(&vec![1; len]));
                }
            })
        })
}

/// IPv6 header chains, IGMP, and what is wrapped otherwise.
fn strange(port: usize) -> impl Strategy<Value = Vec<u8>> {
    let next = prop::sample::select(vec![0_u8, 2, 43, 44, 51, 58, 59, 60, 253]);
    let kind = prop::sample::select(vec![0x86dd_u16, 0x0800, 0x88a8, 0x0028, 0x88cc, 0x1234]);
    let ext = (next.clone(), 0..2_u8, prop_oneof![3 => Just(0_u8), 1 => any::<u8>()]);
    (
        link(port),
        0..6_u8,
        next,
        prop::collection::vec(ext, 0..10),
        prop::sample::select(vec![64_u8, 255]),
        kind,
    )
        .prop_map(|(link, from, first, extensions, ttl, kind)| {
            let route = Route { src: ipv6(from), dst: nd::ALL_NODES, ttl };
            let mut bytes = frame(|to| {
                build::ipv6(to, &link, &route, IpProtocol(first), |to| {
                    for (next, words, filler) in &extensions {
                        to.put(&[*next, *words, 0, *filler, 0, 0, 0, 0]);
                        to.put(&[0; 8][..usize::from(*words) * 8]);
                    }
                    to.put(&[134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                });
            });
            let l3 = if link.tag.is_some() { 18 } else { 14 };
            if kind != 0x86dd {
                bytes[l3 - 2..l3].copy_from_slice(&kind.to_be_bytes());
            }
            match kind {
                0x0028 => bytes[l3..l3 + 3].copy_from_slice(&[0xaa, 0xaa, 3]),
                0x0800 => bytes[l3..l3 + 20].copy_from_slice(&[
                    0x45, 0, 0, 40, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, from, 224, 0, 0, 22,
                ]),
                _ => {}
            }
            bytes
        })
}

fn dhcp(port: usize) -> impl Strategy<Value = Vec<u8>> {
    let asked = prop::option::of(1..6_u8);
    let is_client = prop::bool::weighted(if port == SERVERS { 0.1 } else { 0.95 });
    let kinds =
        prop::sample::select(vec![(1_u8, 5_u8), (3, 5), (3, 5), (3, 6), (7, 2), (4, 5), (8, 5), (9, 4)]);
    let ciaddr = prop_oneof![4 => Just(0_u8), 1 => 1..6_u8];
    let numbers = (kinds, ciaddr, 1..6_u8, 1..5_u8, 0..2_u8, 5..30_u8);
    (link(port), is_client, numbers, asked, prop::bool::weighted(0.05)).prop_map(
        |(link, client, (kinds, ciaddr, yiaddr, of, xid, lease), asked, relay)| {
            let kind = if client { kinds.0 } else { kinds.1 };
            let mut payload = vec![0; 240];
            payload[..3].copy_from_slice(&[if client { 1 } else { 2 }, 1, 6]);
            payload[7] = xid;
            payload[12..16].copy_from_slice(&ipv4(ciaddr).octets());
            payload[16..20].copy_from_slice(&ipv4(if client { 0 } else { yiaddr }).octets());
            let chaddr = if client { link.src } else { mac(of) };
            payload[28..34].copy_from_slice(&chaddr.octets());
            payload[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
            payload.extend([53, 1, kind]);
            if let Some(asked) = asked {
                payload.extend([50, 4]);
                payload.extend(ipv4(asked).octets());
            }
            if !client {
                payload.extend([51, 4, 0, 0, 0, lease]);
            }
            if relay {
                payload.extend([82, 2, 1, 0]);
            }
            payload.push(255);
            let ports = if client { (68, 67) } else { (67, 68) };
            let src = if client { ciaddr } else { 9 };
            let route = Route { src: ipv4(src), dst: Ipv4Addr::BROADCAST, ttl: 64 };
            frame(|to| build::udp_v4(to, &link, &route, ports, |to| to.put(&payload)))
        },
    )
}

fn dhcp6(port: usize) -> impl Strategy<Value = Vec<u8>> {
    let is_client = prop::bool::weighted(if port == SERVERS { 0.1 } else { 0.95 });
    let kinds = prop::sample::select(vec![
        (1_u8, 7_u8),
        (3, 7),
        (3, 7),
        (5, 7),
        (8, 2),
        (9, 7),
        (11, 10),
        (12, 13),
        (7, 1),
    ]);
    let address = (4..7_u8, prop_oneof![1 => Just(0_u8), 3 => 5..30_u8], prop::bool::weighted(0.1));
    let own = (port as u8 + 1).min(3);
    let who =
        if port == SERVERS { (1..4_u8).boxed() } else { prop_oneof![5 => Just(own), 1 => 1..4_u8].boxed() };
    let addresses = prop::collection::vec(address, 0..3);
    (link(port), is_client, kinds, who, addresses, 0..2_u8, prop::bool::weighted(0.1)).prop_map(
        |(link, client, kinds, who, addresses, xid, refused)| {
            let kind = if client { kinds.0 } else { kinds.1 };
            let mut inner = Vec::new();
            for (n, valid, bad) in addresses {
                inner.extend([0, 5, 0, if bad { 30 } else { 24 }]);
                inner.extend(ipv6(n).octets());
                inner.extend([0, 0, 0, 5, 0, 0, 0, valid]);
                if bad {
                    inner.extend([0, 13, 0, 2, 0, 2]);
                }
            }
            if refused {
                inner.extend([0, 13, 0, 2, 0, 3]);
            }
            let len = 12 + inner.len() as u8;
            let mut payload = vec![kind, 0, 0, xid, 0, 3, 0, len, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
            payload.extend(inner);
            let (from, to, ports) = match client {
                true => (ipv6(who), nd::ALL_NODES, (546, 547)),
                false => (ipv6(4), ipv6(who), (547, 546)),
            };
            let route = Route { src: from, dst: to, ttl: 64 };
            frame(|w| build::udp_v6(w, &link, &route, ports, |w| w.put(&payload)))
        },
    )
}

fn any_frame(port: usize) -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        3 => arp(port).boxed(),
        3 => neighbour(port).boxed(),
        3 => data(port).boxed(),
        1 => strange(port).boxed(),
        4 => dhcp(port).boxed(),
        3 => dhcp6(port).boxed(),
    ];
    // Sometimes a byte is another one, or the end is missing.
    let damage = prop::option::weighted(0.1, (12..120_usize, any::<u8>()));
    (good, damage, prop::option::weighted(0.03, 60..130_usize), prop::option::weighted(0.3, any::<bool>()))
        .prop_map(|(mut bytes, damage, cut, service)| {
            if let Some((at, value)) = damage
                && let Some(byte) = bytes.get_mut(at)
            {
                *byte = value;
            }
            if let (Some(kind), Some(&[0x81, 0])) = (service, bytes.get(12..14)) {
                bytes[12..14].copy_from_slice(&[0x88, 0xa8]);
                if kind {
                    bytes.splice(16..16, [0x81, 0, 0, 0]);
                }
            }
            bytes.truncate(cut.unwrap_or(bytes.len()).max(60));
            bytes
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (0..4_usize).prop_flat_map(|port| {
            (any_frame(port), 1..3_usize).prop_map(move |(frame, times)| Step::Send { port, frame, times })
        }),
        8 => (0..3_usize, any::<bool>()).prop_flat_map(|(port, v6)| {
            let both = if v6 { (dhcp6(port).boxed(), dhcp6(SERVERS).boxed()) } else { (dhcp(port).boxed(), dhcp(SERVERS).boxed()) };
            both.prop_map(move |(client, server)| Step::Talk { port, client, server })
        }),
        // Claims are prolonged when a flow is decided anew, not with each frame: the times are either short or long.
        4 => prop_oneof![10 => 0..6_u32, 1 => Just(2000_u32)].prop_map(Step::Wait),
        1 => Just(Step::Restart),
        2 => (0..4_usize).prop_flat_map(|port| guard_of(port).prop_map(move |guard| Step::Guard { port, guard: Box::new(guard) })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn the_guards_do_what_the_reference_does(
        ports in (port_config(0), port_config(1), port_config(2), port_config(3)),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut pair = Pair::new(vec![ports.0, ports.1, ports.2, ports.3]);
        for step in steps {
            pair.apply(step);
        }
    }
}
