//! Random joins and leaves of IPv4 and IPv6 groups, given to the kernel's bridge with `mcast_snooping` and to the switch:
//! where what is sent to the groups goes.
//!
//! ```text
//!   port 0: the querier, a router       ports 1 to 3: hosts that join, leave and send; port 3 leaves at once
//! ```
//!
//! What takes time is left out: no time passes in a case, but for the moment that a querier must have been there.
//! Compared are data, queries and reports of IGMPv1, IGMPv2 and MLDv1. What differs by intent (docs/switch-oracle.md) is
//! sent to both and not compared: reports of the versions with sources, leaves, and messages that need a timer to have an
//! effect (a leave of a port that does not leave at once, sources that are taken back).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;
use fabnic_switch::{Policy, PortMulticast, PortSettings, SwitchConfig, VlanSnooping};
use fabnic_wire::Vid;
use fabnic_wire::checksum::{Sum, pseudo_header_v6};
use fabnic_wire::ip::IpProtocol;

use crate::dice::{Dice, bytes};
use crate::packets::station;
use crate::verdict::{Verdict, compare, same};
use crate::vlans::settings;
use crate::{Bridge, BridgePort, Fabric, Filtering, Inside};

const PORTS: usize = 4;
/// The host behind it is the only one, and leaves at once.
const FAST: usize = 3;
/// Tenths of a second that hosts may take to answer the query of a case's beginning.
const RESPONSE: u8 = 1;

fn host(v6: bool, n: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(n) + 1).into()
    } else {
        Ipv4Addr::new(10, 0, 0, n + 1).into()
    }
}

/// A group. The first two of IPv4 share an Ethernet address; one is of the link and is flooded.
fn group(v6: bool, n: u8) -> IpAddr {
    match (v6, n) {
        (false, 0) => Ipv4Addr::new(239, 1, 1, 1).into(),
        (false, 1) => Ipv4Addr::new(238, 129, 1, 1).into(),
        (false, 2) => Ipv4Addr::new(239, 1, 1, 2).into(),
        (false, _) => Ipv4Addr::new(224, 0, 0, 9).into(),
        (true, 0) => Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 1, 1).into(),
        (true, 1) => Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 1, 1, 1).into(),
        (true, 2) => Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 2).into(),
        (true, _) => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// A packet in its frame; with the router alert that IGMP and MLD have.
fn packet(from: IpAddr, to: IpAddr, port: usize, protocol: u8, alert: bool, payload: &[u8]) -> Vec<u8> {
    let source = station(u8::try_from(port).unwrap_or(0));
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let options: &[u8] = if alert { &[0x94, 4, 0, 0] } else { &[] };
            let len = u16::try_from(20 + options.len() + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
            let first = if alert { 0x46 } else { 0x45 };
            let fields = [first, 0, len[0], len[1], 0, 0, 0, 0, 1, protocol];
            let addresses = [&from.octets()[..], &to.octets(), options].concat();
            let sum = Sum::of(&[&fields[..], &[0, 0], &addresses].concat()).checksum().to_be_bytes();
            let [_, a, b, c] = to.octets();
            let ethernet = [&[1, 0, 0x5e, a & 0x7f, b, c][..], &source, &[8, 0]].concat();
            [&ethernet[..], &fields, &sum, &addresses, payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let options: &[u8] = if alert { &[protocol, 0, 5, 2, 0, 0, 1, 0] } else { &[] };
            let len = u16::try_from(options.len() + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
            let next = if alert { 0 } else { protocol };
            let header = [0x60, 0, 0, 0, len[0], len[1], next, 1];
            let [.., a, b, c, d] = to.octets();
            let ethernet = [&[0x33, 0x33, a, b, c, d][..], &source, &[0x86, 0xdd]].concat();
            [&ethernet[..], &header, &from.octets(), &to.octets(), options, payload].concat()
        }
        _ => Vec::new(),
    }
}

/// A message of IGMP or MLD, whose checksum is in its third and fourth byte.
fn message(from: IpAddr, to: IpAddr, port: usize, mut body: Vec<u8>) -> Vec<u8> {
    let (protocol, pseudo) = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = u32::try_from(body.len()).unwrap_or(0);
            (58, pseudo_header_v6(from.octets(), to.octets(), IpProtocol(58), len))
        }
        _ => (2, Sum::ZERO),
    };
    let sum = (pseudo + Sum::of(&body)).checksum().to_be_bytes();
    if let Some(field) = body.get_mut(2..4) {
        field.copy_from_slice(&sum);
    }
    packet(from, to, port, protocol, true, &body)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The general query.
fn query(v6: bool) -> Vec<u8> {
    let from = host(v6, 0);
    if v6 {
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into();
        let milliseconds = u16::from(RESPONSE) * 100;
        let body = [&[130, 0, 0, 0][..], &milliseconds.to_be_bytes(), &[0; 18]].concat();
        message(from, all, 0, body)
    } else {
        message(from, Ipv4Addr::new(224, 0, 0, 1).into(), 0, vec![0x11, RESPONSE, 0, 0, 0, 0, 0, 0])
    }
}

/// A report or leave of the versions without sources.
fn plain(v6: bool, kind: u8, from: IpAddr, to: IpAddr, about: IpAddr, port: usize) -> Vec<u8> {
    let body = if v6 {
        [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &octets(about)].concat()
    } else {
        [&[kind, 0, 0, 0][..], &octets(about)].concat()
    };
    message(from, to, port, body)
}

/// A report with one record of the versions with sources.
fn record(v6: bool, kind: u8, from: IpAddr, about: IpAddr, sources: &[IpAddr], port: usize) -> Vec<u8> {
    let (report, to) = if v6 {
        (143, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16).into())
    } else {
        (0x22, Ipv4Addr::new(224, 0, 0, 22).into())
    };
    let many = u8::try_from(sources.len()).unwrap_or(0);
    let mut body = [&[report, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, many][..], &octets(about)].concat();
    sources.iter().for_each(|source| body.extend(octets(*source)));
    message(from, to, port, body)
}

/// A frame from a port, and whether where it goes is compared.
#[derive(Clone, Debug)]
struct Step {
    what: String,
    from: usize,
    frame: Vec<u8>,
    compared: bool,
}

fn step(dice: &mut Dice<'_>) -> Step {
    let v6 = dice.chance(3);
    let port = dice.below(3) + 1;
    // The bridge keeps no common account of hosts that tell of sources and such that cannot: each have their groups.
    let which = dice.of(&[0_u8, 1, 2, 2]);
    let tells_sources = which == 2;
    let (from, about) = (host(v6, port), group(v6, which));
    let sources: Vec<IpAddr> = (0..1 + dice.below(2)).map(|_| host(v6, 10 + dice.below(3))).collect();
    let at = usize::from(port);
    let leaves = at == FAST;
    let (what, frame, compared) = match dice.below(16) {
        0..6 if !tells_sources => {
            let kind = if v6 { 131 } else { dice.of(&[0x16_u8, 0x12]) };
            ("report", plain(v6, kind, from, about, about, at), true)
        }
        0 => ("joins with sources", record(v6, 4, from, about, &[], at), false),
        1 => ("listens with sources", record(v6, 2, from, about, &[], at), false),
        2..4 => ("allows sources", record(v6, 5, from, about, &sources, at), false),
        4 | 5 => ("listens to sources", record(v6, 1, from, about, &sources, at), false),
        6..9 if leaves && tells_sources => {
            ("leaves with sources", record(v6, 3, from, about, &[], at), false)
        }
        6..9 if leaves => {
            let (kind, to) = if v6 {
                (132, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).into())
            } else {
                (0x17, Ipv4Addr::new(224, 0, 0, 2).into())
            };
            ("leaves", plain(v6, kind, from, to, about, at), false)
        }
        9 => return Step { what: "general query".to_owned(), from: 0, frame: query(v6), compared: true },
        _ => {
            let (from, to) = (host(v6, 10 + dice.below(4)), group(v6, dice.below(4)));
            let sender = dice.below(4);
            let frame = packet(from, to, sender.into(), 253, false, &[1; 40]);
            return Step { what: format!("data {from} -> {to}"), from: sender.into(), frame, compared: true };
        }
    };
    Step { what: format!("{what} {about} {sources:?}"), from: at, frame, compared }
}

/// # Errors
/// If the two differ, with the smallest case in which they do.
pub fn compare_groups(inside: &Inside, cases: u32) -> Result<Verdict> {
    let mut bridge = Bridge::new(inside, PORTS)?;
    let port =
        BridgePort { tagged: Vec::new(), pvid: None, learning: false, isolated: false, flooded: [true; 3] };
    let plain = settings(&port, Filtering::Off);
    let strategy = proptest::collection::vec(bytes(12), 10..60);
    compare(cases, &strategy, |bytes, verdict| {
        bridge.configure(Filtering::Off, 300, &vec![port.clone(); PORTS])?;
        bridge.snoop(FAST)?;
        let ports = (0..PORTS).map(|n| {
            let multicast = PortMulticast { fast_leave: n == FAST, ..PortMulticast::default() };
            PortSettings { multicast, ..plain.clone() }
        });
        let policy = Policy { multicast: vec![VlanSnooping::new(Vid::DEFAULT)], ..Policy::default() };
        let mut fabric = Fabric::with_policy(&SwitchConfig::default(), ports.collect(), policy)?;
        let begin = [false, true].map(|v6| Step {
            what: "first query".to_owned(),
            from: 0,
            frame: query(v6),
            compared: true,
        });
        let steps: Vec<Step> =
            begin.into_iter().chain(bytes.iter().map(|bytes| step(&mut Dice::new(bytes)))).collect();
        for (at, step) in steps.iter().enumerate() {
            let kernel = bridge.send(step.from, &step.frame)?;
            let own = fabric.send(step.from, &step.frame)?;
            if at == 1 {
                // Hosts have had the time to answer.
                std::thread::sleep(Duration::from_millis(u64::from(RESPONSE) * 100 + 50));
                fabric.switch.tick_ns(1_000_000_000);
            }
            if !step.compared {
                continue;
            }
            verdict.count(&kernel);
            let own_ports: Vec<usize> = own.iter().map(Vec::len).collect();
            let kernel_ports: Vec<usize> = kernel.iter().map(Vec::len).collect();
            same(own, kernel, || {
                let told = steps.iter().take(at + 1).enumerate();
                let story: String =
                    told.map(|(n, step)| format!("\n {n}: from {}: {}", step.from, step.what)).collect();
                format!("{story}\n the switch sends {own_ports:?}, the kernel {kernel_ports:?}")
            })?;
        }
        Ok(())
    })
}
