//! Which queue a frame goes to: RSS by types and by header stacks, flow director rules, VLANs, spoofed sources.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/packet.rs"]
mod packet;

use common::{Guest, MAC_A, MAC_B, forward, frame};
use fabnic_avf::{Generation, Settings};
use fabnic_avf_driver::spec::receive::{Found, rxdid};
use fabnic_avf_driver::spec::virtchnl::{
    Action, Caps, EthAddr, FdirAdd, Header, RssConfig, RssHash, Stack, Status, fdir, field, header, opcode,
};
use fabnic_avf_driver::{Error, Options};
use fabnic_port::DropReason;
use packet::{Packet, Proto, Shape};
use proptest::prelude::*;

const QUEUES: u16 = 4;

fn b(options: Options) -> Guest {
    let settings = Settings { mac: MAC_B, queues: QUEUES, ..Settings::default() };
    Guest::start(settings, Options { queues: QUEUES, ..options })
}

fn shape(v6: bool, proto: Proto, seed: u8) -> Shape {
    Shape { v6, proto, ip_options: 0, tcp_options: 0, tag: None, payload: 30, seed, tcp_flags: 0x10 }
}

/// The definition: for each set bit of the input, the 32 bits of the key from there on.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1 == 1;
    let window = |n: usize| (0..32).fold(0, |word, at| word << 1 | u32::from(bit(key, n + at)));
    (0..input.len() * 8).filter(|n| bit(input, *n)).fold(0, |hash, n| hash ^ window(n))
}

fn addresses(packet: &Packet) -> &[u8] {
    if packet.v6 {
        &packet.bytes[packet.l3 + 8..packet.l3 + 40]
    } else {
        &packet.bytes[packet.l3 + 12..packet.l3 + 20]
    }
}

fn ports(packet: &Packet) -> &[u8] {
    &packet.bytes[packet.l4..packet.l4 + 4]
}

/// Sends one frame; gives the queue that it came to, and what was found.
fn send(a: &mut Guest, b: &mut Guest, bytes: &[u8]) -> Option<(usize, Found)> {
    a.send(&[bytes]);
    forward(&a.port, &b.port);
    let mut got = Vec::new();
    for queue in 0..usize::from(QUEUES) {
        got.extend(b.received(queue).into_iter().map(|(found, received)| {
            assert_eq!(received, bytes);
            (queue, found)
        }));
    }
    assert!(got.len() <= 1);
    got.pop()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn frames_go_where_key_and_table_say(
        key in prop::collection::vec(any::<u8>(), 52),
        table in prop::collection::vec(0..QUEUES as u8, 64),
        seeds in prop::collection::vec((any::<u8>(), any::<bool>(), 0_usize..3), 10),
        symmetric in any::<bool>(),
        format in prop_oneof![Just(rxdid::LEGACY_32), Just(rxdid::FLEX_NIC), Just(rxdid::FLEX_OVS)],
    ) {
        let (mut a, mut b) = (Guest::a(), b(Options { format, ..Options::default() }));
        b.driver.set_rss(&key, &table).unwrap();
        b.driver.set_rss_algorithm(if symmetric { RssHash::SYMMETRIC } else { RssHash::TOEPLITZ }).unwrap();
        for (seed, v6, proto) in seeds {
            let proto = [Proto::Tcp, Proto::Udp, Proto::Sctp][proto];
            let packet = Packet::new(MAC_B, MAC_A, &shape(v6, proto, seed));
            let (addresses, ports) = (addresses(&packet), ports(&packet));
            let mut input = [addresses, ports].concat();
            if symmetric {
                let fold = |both: &[u8]| -> Vec<u8> {
                    let (from, to) = both.split_at(both.len() / 2);
                    let one: Vec<u8> = from.iter().zip(to).map(|(a, b)| a ^ b).collect();
                    one.repeat(2)
                };
                input = [fold(addresses), fold(ports)].concat();
            }
            let hash = toeplitz(&key, &input);
            let (queue, found) = send(&mut a, &mut b, &packet.bytes).unwrap();
            prop_assert_eq!(found.hash, Some(hash));
            prop_assert_eq!(queue, usize::from(table[(hash & 63) as usize]));
        }
        // What has no hash goes to the first queue.
        let (queue, found) = send(&mut a, &mut b, &frame(MAC_B, MAC_A, 60, 1)).unwrap();
        prop_assert_eq!((queue, found.hash), (0, None));
    }
}

#[test]
fn types_decide_what_is_hashed() {
    let (mut a, mut b) = (Guest::a(), b(Options::default()));
    let key: Vec<u8> = (0..52).map(|n| n * 4 + 1).collect();
    b.driver.set_rss(&key, &[0; 64]).unwrap();
    let packet = Packet::new(MAC_B, MAC_A, &shape(false, Proto::Udp, 7));
    let mut hash = |b: &mut Guest, packet: &Packet| send(&mut a, b, &packet.bytes).unwrap().1.hash;
    let two = toeplitz(&key, addresses(&packet));
    let four = toeplitz(&key, &[addresses(&packet), ports(&packet)].concat());
    assert_eq!(hash(&mut b, &packet), Some(four));
    b.driver.set_rss_types(1 << 35).unwrap();
    assert_eq!(hash(&mut b, &packet), Some(two), "as anything else over IPv4");
    b.driver.set_rss_types(1 << 33).unwrap();
    assert_eq!(hash(&mut b, &packet), None);
    b.driver.set_rss_types(1 << 31).unwrap();
    assert_eq!(hash(&mut b, &packet), Some(four));
    // A fragment has no ports.
    b.driver.set_rss_types(u64::MAX).unwrap();
    let mut fragment = packet.clone();
    fragment.bytes[fragment.l3 + 6] = 0x20;
    assert_eq!(hash(&mut b, &fragment), Some(two));
    b.driver.set_rss_types(0).unwrap();
    assert_eq!(hash(&mut b, &packet), None);

    // By header stacks.
    let header = |kind, fields| Header { kind, fields, bytes: [0; 64] };
    let config = |ip: u32, udp: u32, algorithm: u16| RssConfig {
        stack: Stack { tunnel_level: 0, headers: vec![header(header::IPV4, ip), header(header::UDP, udp)] },
        algorithm: algorithm.into(),
    };
    let (source, both) = (field::SOURCE, field::SOURCE | field::DESTINATION);
    b.driver.set_rss_stack(&config(both, 0, 0), true).unwrap();
    assert_eq!(hash(&mut b, &packet), Some(two));
    b.driver.set_rss_stack(&config(source, source, 0), true).unwrap();
    let half = [&addresses(&packet)[..4], &ports(&packet)[..2]].concat();
    assert_eq!(hash(&mut b, &packet), Some(toeplitz(&key, &half)));
    b.driver.set_rss_stack(&config(both, both, 0), true).unwrap();
    assert_eq!(hash(&mut b, &packet), Some(four));
    assert_eq!(hash(&mut b, &Packet::new(MAC_B, MAC_A, &shape(false, Proto::Tcp, 7))), None);
    b.driver.set_rss_stack(&config(both, both, 2), true).unwrap();
    let mut back = packet.clone();
    let (l3, l4) = (back.l3, back.l4);
    back.bytes[l3 + 12..l3 + 20].rotate_left(4);
    back.bytes[l4..l4 + 4].rotate_left(2);
    let there = hash(&mut b, &packet);
    assert_ne!(there, Some(four));
    assert_eq!(hash(&mut b, &back), there, "both directions alike");
    b.driver.set_rss_stack(&config(both, both, 2), false).unwrap();
    assert_eq!(hash(&mut b, &packet), None);
    // As DPDK asks for UDP: the innermost headers, with the protocol, which all of UDP has in common; and with a rule's tags.
    let mut innermost = config(both | field::PROTOCOL, both, 0);
    innermost.stack.tunnel_level = 1;
    b.driver.set_rss_stack(&innermost, true).unwrap();
    assert_eq!(hash(&mut b, &packet), Some(four));
    b.driver.set_rss_stack(&innermost, false).unwrap();
    innermost.stack.tunnel_level = 0;
    for (at, kind) in [header::ETH, header::S_VLAN, header::C_VLAN].into_iter().enumerate() {
        innermost.stack.headers.insert(at, header(kind, 0));
    }
    b.driver.set_rss_stack(&innermost, true).unwrap();
    assert_eq!(hash(&mut b, &packet), Some(four));
    let refused = |result| {
        assert_eq!(
            result,
            Err(Error::Refused { message: opcode::ADD_RSS_CFG, status: Status::NotSupported })
        );
    };
    let stack = |headers| RssConfig { stack: Stack { tunnel_level: 0, headers }, algorithm: 0 };
    refused(b.driver.set_rss_stack(&stack(vec![]), true));
    refused(b.driver.set_rss_stack(&stack(vec![header(header::UDP, both)]), true));
    refused(b.driver.set_rss_stack(&stack(vec![header(9, both)]), true));
    refused(b.driver.set_rss_stack(&config(both | 4, 0, 0), true));
    refused(b.driver.set_rss_stack(&stack(vec![header(header::IPV4, both | field::PROTOCOL)]), true));
    innermost.stack.tunnel_level = 2;
    refused(b.driver.set_rss_stack(&innermost, true));
    refused(b.driver.set_rss_stack(&config(both, both, 1), true));
}

#[test]
fn rules_direct_flows() {
    for format in [rxdid::LEGACY_32, rxdid::FLEX_OVS] {
        let (mut a, mut b) = (Guest::a(), b(Options { format, ..Options::default() }));
        b.driver.set_rss(&[1; 52], &[3; 64]).unwrap();
        let packet = |proto, seed| Packet::new(MAC_B, MAC_A, &shape(false, proto, seed));
        let of = |packet: &Packet, ip: u32, l4: u32, actions: &[Action]| {
            let bytes = |at: usize| {
                let mut bytes = [0; 64];
                let from = &packet.bytes[at..(at + 64).min(packet.bytes.len())];
                bytes[..from.len()].copy_from_slice(from);
                bytes
            };
            let kind = match packet.proto {
                Proto::Tcp => header::TCP,
                Proto::Udp => header::UDP,
                Proto::Sctp => header::SCTP,
            };
            FdirAdd {
                stack: Some(Stack {
                    tunnel_level: 0,
                    headers: vec![
                        Header { kind: header::ETH, fields: 0, bytes: bytes(0) },
                        Header { kind: header::IPV4, fields: ip, bytes: bytes(packet.l3) },
                        Header { kind, fields: l4, bytes: bytes(packet.l4) },
                    ],
                }),
                actions: Some(actions.to_vec()),
                ..FdirAdd::default()
            }
        };
        let (one, other) = (packet(Proto::Tcp, 1), packet(Proto::Tcp, 2));
        assert_eq!(send(&mut a, &mut b, &one.bytes).unwrap().0, 3);
        let rule = of(&one, 3, 3, &[Action::Queue(1), Action::Mark(0x1234_5678)]);
        let flow = b.driver.add_rule(&rule).unwrap();
        let (queue, found) = send(&mut a, &mut b, &one.bytes).unwrap();
        assert_eq!((queue, found.mark), (1, Some(0x1234_5678)));
        let (queue, found) = send(&mut a, &mut b, &other.bytes).unwrap();
        assert_eq!((queue, found.mark), (3, None));
        assert_eq!(b.driver.add_rule(&rule), Err(Error::Rule(fdir::EXISTS)));
        let conflict = of(&one, 3, 3, &[Action::Drop]);
        assert_eq!(b.driver.add_rule(&conflict), Err(Error::Rule(fdir::CONFLICT)));
        let udp = packet(Proto::Udp, 9);
        let drop_udp = b.driver.add_rule(&of(&udp, 0, 0, &[Action::Drop])).unwrap();
        assert_ne!(drop_udp, flow);
        assert!(send(&mut a, &mut b, &udp.bytes).is_none());
        b.driver.remove_rule(drop_udp).unwrap();
        assert!(send(&mut a, &mut b, &udp.bytes).is_some());
        assert_eq!(b.driver.remove_rule(drop_udp), Err(Error::Rule(fdir::NOT_FOUND)));
        b.driver.add_rule(&of(&other, 3, 0, &[Action::Region { first: 0, width: 1 }])).unwrap();
        let (queue, found) = send(&mut a, &mut b, &other.bytes).unwrap();
        assert_eq!(queue as u32, found.hash.unwrap() & 1);
        for impossible in [
            of(&one, 1, 1, &[]),
            of(&one, 1, 1, &[Action::Queue(4)]),
            of(&one, 1, 1, &[Action::Queue(1), Action::Drop]),
            of(&one, 1, 1, &[Action::Mark(1)]),
            of(&one, 1, 1, &[Action::Region { first: 3, width: 1 }]),
            of(&one, 1 << 5, 0, &[Action::Drop]),
            FdirAdd { stack: Some(Stack::default()), ..of(&one, 0, 0, &[Action::Drop]) },
        ] {
            assert_eq!(b.driver.add_rule(&impossible), Err(Error::Rule(fdir::INVALID)));
        }
        b.driver.remove_rule(flow).unwrap();
        for seed in 10..136 {
            b.driver.add_rule(&of(&packet(Proto::Tcp, seed), 3, 3, &[Action::Queue(2)])).unwrap();
        }
        assert_eq!(send(&mut a, &mut b, &packet(Proto::Tcp, 77).bytes).unwrap().0, 2);
        b.driver.add_rule(&of(&packet(Proto::Tcp, 200), 3, 3, &[Action::Queue(2)])).unwrap();
        let more = of(&packet(Proto::Tcp, 201), 3, 3, &[Action::Queue(2)]);
        assert_eq!(b.driver.add_rule(&more), Err(Error::Rule(fdir::NO_RESOURCE)));
        // A reset forgets them.
        b.driver.reset().unwrap();
        assert!(b.driver.was_reset());
        b.driver.reopen().unwrap();
        b.driver.start().unwrap();
        assert_eq!(b.driver.add_rule(&more).unwrap(), 1);
    }
}

#[test]
fn vlans_are_pruned_from_the_first_filter_on() {
    for generation in [Generation::Base, Generation::Second] {
        let settings = |mac| Settings { mac, generation, trust: true, ..Settings::default() };
        let mut a = Guest::start(settings(MAC_A), Options::default());
        let mut b = Guest::start(settings(MAC_B), Options::default());
        let tagged = |tag: u16| {
            let mut bytes = frame(MAC_B, MAC_A, 100, 3);
            bytes.splice(12..12, [0x81, 0, (tag >> 8) as u8, tag as u8]);
            bytes
        };
        let mut passes = |b: &mut Guest, bytes: Vec<u8>| {
            a.send(&[&bytes]);
            let tally = forward(&a.port, &b.port);
            b.received(0);
            tally.dropped_for(DropReason::Filtered) == 0
        };
        assert!(passes(&mut b, tagged(5)));
        b.driver.set_vlans(&[0], true).unwrap();
        assert!(passes(&mut b, tagged(5)));
        b.driver.set_vlans(&[5, 6], true).unwrap();
        assert!(passes(&mut b, tagged(5)) && passes(&mut b, tagged(0x6005)));
        assert!(!passes(&mut b, tagged(7)));
        assert!(passes(&mut b, tagged(0x2000)), "a tag with a priority only");
        assert!(passes(&mut b, frame(MAC_B, MAC_A, 100, 3)));
        b.driver.set_promiscuous(true, false).unwrap();
        assert!(passes(&mut b, tagged(7)));
        b.driver.set_promiscuous(false, false).unwrap();
        b.driver.set_vlans(&[5, 6], false).unwrap();
        assert!(passes(&mut b, tagged(7)));
        // As many as there are.
        for ids in (1..4095).collect::<Vec<u16>>().chunks(100) {
            b.driver.set_vlans(ids, true).unwrap();
        }
        assert!(passes(&mut b, tagged(4094)));
        for ids in (1..4095).collect::<Vec<u16>>().chunks(100) {
            b.driver.set_vlans(ids, false).unwrap();
        }
    }
}

#[test]
fn sources_are_checked() {
    let settings = Settings { mac: MAC_A, spoofchk: true, ..Settings::default() };
    let mut a = Guest::start(settings, Options::default());
    let b = Guest::b();
    let other = [2, 0, 0, 0, 0, 7];
    a.send(&[&frame(MAC_B, MAC_A, 60, 1), &frame(MAC_B, other, 60, 1)]);
    let tally = forward(&a.port, &b.port);
    assert_eq!((tally.frames, tally.dropped_for(DropReason::BadSource)), (1, 1));
    assert_eq!(a.driver.stats().unwrap().tx_discards, 1);
    a.driver.set_addresses(&[EthAddr { addr: other, kind: EthAddr::EXTRA }], true).unwrap();
    a.send(&[&frame(MAC_B, other, 60, 1)]);
    assert_eq!(forward(&a.port, &b.port).frames, 1);
    a.control.set_spoofchk(false);
    a.driver.stats().unwrap();
    a.send(&[&frame(MAC_B, [2, 0, 0, 0, 0, 8], 60, 1)]);
    assert_eq!(forward(&a.port, &b.port).frames, 1);
}

#[test]
fn an_address_that_was_had_by_trust_goes_with_it() {
    let settings =
        Settings { mac: MAC_A, fixed_mac: true, spoofchk: true, trust: true, ..Settings::default() };
    let mut a = Guest::start(settings, Options::default());
    let b = Guest::b();
    let other = [2, 0, 0, 0, 0, 7];
    a.driver.set_addresses(&[EthAddr { addr: other, kind: EthAddr::PRIMARY }], true).unwrap();
    a.send(&[&frame(MAC_B, other, 60, 1)]);
    assert_eq!(forward(&a.port, &b.port).frames, 1);
    a.control.set_trust(false);
    a.driver.stats().unwrap();
    a.send(&[&frame(MAC_B, other, 60, 2), &frame(MAC_B, MAC_A, 60, 3)]);
    let tally = forward(&a.port, &b.port);
    assert_eq!((tally.frames, tally.dropped_for(DropReason::BadSource)), (1, 1));
}

#[test]
fn one_driver_runs_on_every_generation() {
    for generation in (1..=4).filter_map(Generation::of) {
        let settings = |mac| Settings { mac, queues: 4, generation, ..Settings::default() };
        let options = Options { queues: 4, format: rxdid::FLEX_OVS, ..Options::default() };
        let mut a = Guest::start(settings(MAC_A), options);
        let mut b = Guest::start(settings(MAC_B), options);
        assert_eq!(a.driver.has(Caps::FDIR_PF), generation == Generation::Fourth);
        assert_eq!(
            b.driver.link().unwrap().mbps,
            if generation == Generation::Base { 40_000 } else { 100_000 }
        );
        // Both ways, through a storm of resets.
        for round in 0..20 {
            a.send(&[&frame(MAC_B, MAC_A, 200, round)]);
            assert_eq!(forward(&a.port, &b.port).frames, 1);
            assert_eq!(b.received(0).len(), 1);
            b.send(&[&frame(MAC_A, MAC_B, 200, round)]);
            assert_eq!(forward(&b.port, &a.port).frames, 1);
            assert_eq!(a.received(0).len(), 1);
            for guest in [&mut a, &mut b] {
                match round % 3 {
                    0 => guest.driver.reset().unwrap(),
                    1 => guest.control.reset(),
                    _ => {
                        use fabnic_avf_driver::Bus;
                        guest.driver.bus().reset();
                    }
                }
                assert!(guest.driver.was_reset());
                guest.driver.reopen().unwrap();
                guest.driver.start().unwrap();
            }
        }
    }
}
