//! The exact order of registers and messages of drivers that exist: Linux, DPDK, VPP, OpenBSD.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/raw.rs"]
mod raw;

use common::MAC_A;
use fabnic_avf::{Generation, Settings};
use fabnic_pci::{Function, Reset};
use raw::{
    ARQLEN, ATQLEN, ATQT, DYN_CTL01, ICR0_ENA1, ICR01, RSTAT, Raw, Style, config_queues, halves, pair, words,
};

const L2: u32 = 1;
const WB_ON_ITR: u32 = 1 << 5;
const REQ_QUEUES: u32 = 1 << 6;
const ADV_LINK_SPEED: u32 = 1 << 7;
const CRC: u32 = 1 << 10;
const VLAN_V2: u32 = 1 << 15;
const VLAN: u32 = 1 << 16;
const RSS_PF: u32 = 1 << 19;
const USO: u32 = 1 << 25;
const RX_FLEX_DESC: u32 = 1 << 26;

fn bits(bits: &[u32]) -> u32 {
    bits.iter().fold(0, |all, bit| all | 1 << bit)
}

fn settings(queues: u16) -> Settings {
    Settings { mac: MAC_A, queues, ..Settings::default() }
}

fn address(addr: [u8; 6], kind: u8, padded: bool) -> Vec<u8> {
    let mut body = halves(&[1, 1]);
    body.extend(addr);
    body.extend([kind, 0]);
    if padded {
        body.extend([0; 8]);
    }
    body
}

fn irq_map(entries: &[[u16; 6]], padded: bool) -> Vec<u8> {
    let mut body = halves(&[entries.len() as u16]);
    entries.iter().for_each(|entry| body.extend(halves(entry)));
    if padded {
        body.extend([0; 12]);
    }
    body
}

fn rss(bytes: &[u8]) -> Vec<u8> {
    let mut body = halves(&[1, bytes.len() as u16]);
    body.extend(bytes);
    body.push(0);
    body
}

fn select(queues: u32) -> Vec<u8> {
    words(&[1, queues, queues])
}

fn link_event(raw: &mut Raw, speed: u32) {
    let event = raw.next().expect("a link event");
    assert_eq!((event.opcode, event.status), (17, 0));
    assert_eq!(event.body, words(&[1, speed, 1, 0]));
}

/// Start of Linux: the probe, `ip link set up`, statistics, down, up again, module removal.
fn linux(caps: u32, newer: bool) {
    let mut raw = Raw::new(settings(4));
    assert_eq!(raw.read(RSTAT) & 3, 2);
    raw.open(Style::Linux);
    let granted = raw.negotiate(caps);
    assert_ne!(granted & VLAN_V2, 0);
    assert_eq!(granted & VLAN, 0, "never both");
    assert_eq!(granted & !caps, 0, "only what was asked for");
    let vlan = raw.must(51, &[]);
    let c8100 = 0x8000_0101_u32;
    assert_eq!(
        vlan,
        [words(&[0, 1, 1, 8, 0, c8100, 0, c8100, 1]), vec![0, 0, 0, 0]].concat(),
        "the shape of single VLAN mode"
    );
    if newer {
        assert_ne!(granted & RX_FLEX_DESC, 0);
        assert_eq!(raw.must(44, &[]), (1_u64 << 1 | 1 << 2 | 1 << 22).to_le_bytes());
    }
    // Vector 0, then the first requests of the watchdog.
    raw.write(DYN_CTL01, 1 | 3 << 3);
    raw.write(ICR0_ENA1, 1 << 30);
    assert_eq!(raw.interrupts(0), 1, "what was polled until now");
    assert_ne!(raw.read(ICR01) & 1 << 30, 0);
    raw.write(DYN_CTL01, 1 | 3 << 3);
    raw.write(ICR0_ENA1, 1 << 30);
    raw.post_request(
        7,
        &irq_map(&[[1, 1, 1, 1, 0, 1], [1, 2, 2, 2, 0, 1], [1, 3, 4, 4, 0, 1], [1, 4, 8, 8, 0, 1]], true),
    );
    assert_eq!(raw.interrupts(0), 1, "the reply interrupts");
    assert_ne!(raw.read(ICR01) & 1 << 30, 0);
    assert_eq!(raw.read(ICR01), 0, "reading clears");
    let reply = raw.next().unwrap();
    assert_eq!((reply.opcode, reply.status, reply.body.len()), (7, 0, 0));
    raw.must(23, &rss(&[0x5a; 52]));
    raw.must(24, &rss(&(0..64).map(|n| n % 4).collect::<Vec<_>>()));
    if newer {
        raw.must(18, &words(&[1, 0]));
    }
    // `ip link set up`: tails first.
    for _ in 0..3 {
        for queue in 0..4 {
            raw.write(0x2000 + 4 * queue, 511);
        }
        raw.must(10, &address(MAC_A, 1, true));
        raw.must(10, &address([0x33, 0x33, 0, 0, 0, 1], 2, true));
        raw.must(52, &[halves(&[1, 1, 0, 0]), halves(&[0, 0, 0x8100]), vec![0; 26]].concat());
        let pairs: Vec<_> = (0..4).map(|id| pair(id, 512, 512, 2048, 1534, 1)).collect();
        raw.must(6, &config_queues(&pairs, false));
        raw.post_request(8, &select(0xf));
        let reply = raw.next().unwrap();
        assert_eq!((reply.opcode, reply.status), (8, 0));
        link_event(&mut raw, 100_000);
        assert_eq!(raw.read(0x2000), 511, "the tail that was written before is still there");
        assert!((0..4).all(|queue| raw.port.ingress()[queue].is_installed()));
        for vector in 0..4 {
            raw.write(0x3800 + 4 * vector, 1 | 3 << 3);
        }
        // The hang check triggers an interrupt by software, and it comes.
        raw.interrupts(1);
        raw.write(0x3800, 1 | 3 << 3 | 1 << 2 | 1 << 24);
        assert_eq!(raw.interrupts(1), 1);
        raw.must(14, &halves(&[1, 0]));
        let stripping = words(&[0, 1, 1, 0]);
        raw.must(54, &stripping);
        raw.must(56, &stripping);
        assert_eq!(raw.must(15, &words(&[1, 0, 0])).len(), 96);
        // `ip link set down`.
        raw.must(11, &address([0x33, 0x33, 0, 0, 0, 1], 2, true));
        raw.must(11, &address(MAC_A, 1, true));
        raw.must(9, &select(0xf));
        assert!((0..4).all(|queue| !raw.port.ingress()[queue].is_installed()));
        assert!(!raw.port.egress()[0].is_installed());
        assert_eq!(raw.read(0x2000), 0);
    }
    // MTU, rings, channels: a reset each. Then all over again.
    raw.post_request(2, &[]);
    assert_eq!(raw.read(ARQLEN), 0);
    assert_eq!(raw.read(ATQLEN), 0);
    assert_eq!(raw.read(RSTAT) & 3, 2);
    raw.open(Style::Linux);
    assert_eq!(raw.negotiate(caps), granted);
}

#[test]
fn linux_6_1() {
    linux(bits(&[0, 3, 4, 5, 6, 7, 15, 16, 18, 19, 20, 21, 23, 25, 27, 28]), false);
}

#[test]
fn linux_6_12() {
    linux(bits(&[0, 3, 4, 5, 6, 7, 10, 11, 15, 16, 18, 19, 20, 21, 23, 25, 27, 28]), false);
}

#[test]
fn linux_7_x() {
    linux(bits(&[0, 3, 4, 5, 6, 7, 10, 11, 15, 16, 18, 19, 20, 21, 23, 25, 26, 27, 28, 29, 31]), true);
}

#[test]
fn dpdk() {
    let mut raw = Raw::new(settings(4));
    raw.open(Style::Linux);
    let caps = bits(&[0, 5, 6, 7, 9, 10, 14, 15, 16, 17, 19, 25, 26, 27, 28, 29, 31]);
    let granted = raw.negotiate(caps);
    assert_eq!(granted & WB_ON_ITR, WB_ON_ITR);
    raw.must(44, &[]);
    raw.must(51, &[]);
    raw.must(26, &[0; 8]);
    raw.must(15, &words(&[1, 0, 0]));
    // Another number of queues: announced, reset, and it is told.
    raw.post_request(29, &halves(&[2]));
    assert_eq!(raw.read(ARQLEN), 0);
    raw.open(Style::Linux);
    raw.must(1, &words(&[1, 1]));
    let resources = raw.must(3, &words(&[caps]));
    assert_eq!(resources[2..4], [2, 0]);
    assert_eq!(resources[22..24], [2, 0]);
    assert_eq!(raw.must(29, &halves(&[9])), halves(&[4]), "what there could be");
    let setting = words(&[0, 1, 1, 0]);
    raw.must(55, &setting);
    raw.must(57, &setting);
    raw.must(24, &rss(&(0..64).map(|n| n % 2).collect::<Vec<_>>()));
    raw.must(23, &rss(&[7; 52]));
    raw.must(26, &(1_u64 << 33 | 1 << 31).to_le_bytes());
    let pairs: Vec<_> = (0..2).map(|id| pair(id, 1024, 1024, 2048, 1518, 22)).collect();
    raw.must(6, &config_queues(&pairs, false));
    raw.must(7, &irq_map(&[[1, 1, 3, 0, 0, 0]], true));
    raw.must(10, &address(MAC_A, 1, true));
    raw.must(14, &halves(&[1, 0]));
    for queue in 0..2_u32 {
        raw.write(0x2000 + 4 * u64::from(queue), 1023);
        raw.must(8, &words(&[1, 1 << queue, 0]));
        raw.must(8, &words(&[1, 0, 1 << queue]));
    }
    assert!(raw.port.egress()[0].is_installed());
    // Polled: nothing interrupts.
    raw.write(0x3800, 1 << 30 | 2 << 5);
    for queue in 0..2_u32 {
        raw.must(9, &words(&[1, 0, 1 << queue]));
        raw.must(9, &words(&[1, 1 << queue, 0]));
    }
    assert!(!raw.port.egress()[0].is_installed());
    // Without write back on ITR it uses vector 0.
    raw.must(7, &irq_map(&[[1, 0, 3, 3, 0, 0]], true));
}

#[test]
fn vpp() {
    let mut raw = Raw::new(settings(2));
    raw.open(Style::Vpp);
    // It resets first, and believes RSTAT at once.
    raw.post_request(2, &[]);
    assert_eq!(raw.read(RSTAT) & 3, 2);
    raw.open(Style::Vpp);
    let granted = raw.negotiate(bits(&[0, 5, 6, 7, 9, 15, 16, 17, 19, 27, 28]));
    assert_ne!(granted & VLAN_V2, 0);
    raw.must(51, &[]);
    raw.must(55, &words(&[0, 0, 1, 0]));
    raw.must(55, &words(&[0, 1, 1, 0]));
    raw.must(10, &address(MAC_A, 1, false));
    raw.must(24, &rss(&[0; 64]));
    raw.must(23, &rss(&[1; 52]));
    let pairs = [pair(0, 32, 32, 2048, 1522, 0), pair(1, 0, 0, 0, 64, 0)];
    raw.must(6, &config_queues(&pairs, true));
    raw.must(7, &irq_map(&[[1, 1, 1, 1, 0, 0]], false));
    raw.write(0x2000, 24);
    raw.must(8, &select(1));
    raw.must(14, &halves(&[1, 0]));
    raw.must(9, &select(1));
}

#[test]
fn openbsd() {
    for generation in (1..=4).filter_map(Generation::of) {
        let mut raw = Raw::new(Settings { generation, ..settings(1) });
        raw.open(Style::OpenBsd);
        assert_eq!(raw.negotiate(L2 | VLAN | RSS_PF), L2 | VLAN | RSS_PF);
        raw.must(26, &[0; 8]);
        raw.must(7, &irq_map(&[[1, 0, 1, 1, 0, 0]], true));
        raw.write(0x2000, 100);
        raw.must(10, &address(MAC_A, 0, true));
        raw.must(6, &config_queues(&[pair(0, 1024, 1024, 2048, 1518, 0)], false));
        raw.must(8, &select(1));
        raw.read(ICR01);
        raw.write(ICR0_ENA1, 1 << 30);
        raw.write(DYN_CTL01, 1 | 2 | 3 << 3);
        assert_eq!(raw.interrupts(0), 0);
        // Its one queue is on vector 0 and told by ICR01, which it reads after it enabled the vector again.
        let mut burst = fabnic_port::Burst::new();
        let frame = [&[0xff; 6][..], &MAC_A, &[0x88, 0xb5], &[0; 50]].concat();
        burst.push_bytes(&frame);
        raw.poke(0x108_0000, &0x20_0000_u64.to_le_bytes());
        let mut tally = fabnic_port::Tally::default();
        raw.port.egress()[0].lock().as_mut().unwrap().deliver(&mut burst, &[0], &mut tally).unwrap();
        assert_eq!((tally.frames, tally.calls), (1, 1));
        assert_eq!(raw.interrupts(0), 1);
        raw.write(DYN_CTL01, 1 | 2 | 3 << 3);
        assert_eq!(raw.read(ICR01) & 2, 2);
        assert_eq!(raw.peek(0x20_0000, 64), frame);
    }
}

#[test]
fn version_1_0_gets_the_base() {
    let mut raw = Raw::new(settings(4));
    raw.open(Style::Linux);
    assert_eq!(raw.must(1, &words(&[1, 0])), words(&[1, 0]));
    let resources = raw.must(3, &[]);
    assert_eq!(resources[8..12], (L2 | VLAN | RSS_PF).to_le_bytes());
}

#[test]
fn generations_offer_what_they_say() {
    let offers = [
        (Generation::Base, L2 | VLAN | RSS_PF),
        (Generation::Second, L2 | RSS_PF | WB_ON_ITR | REQ_QUEUES | ADV_LINK_SPEED | VLAN_V2 | USO | 1 << 17),
        (
            Generation::Third,
            L2 | RSS_PF
                | (WB_ON_ITR | REQ_QUEUES | ADV_LINK_SPEED | VLAN_V2 | USO | 1 << 17)
                | (CRC | RX_FLEX_DESC),
        ),
        (
            Generation::Fourth,
            L2 | RSS_PF
                | (WB_ON_ITR | REQ_QUEUES | ADV_LINK_SPEED | VLAN_V2 | USO | 1 << 17)
                | (CRC | RX_FLEX_DESC | 1 << 27 | 1 << 28),
        ),
    ];
    for (generation, offer) in offers {
        let mut raw = Raw::new(Settings { generation, ..settings(1) });
        raw.open(Style::Linux);
        assert_eq!(raw.negotiate(u32::MAX), offer, "{generation:?}");
        assert_eq!(raw.negotiate(!VLAN_V2) & VLAN, VLAN);
    }
    // The speed is told as it was agreed.
    let mut raw = Raw::new(Settings { generation: Generation::Base, ..settings(1) });
    raw.open(Style::Linux);
    raw.must(1, &words(&[1, 1]));
    raw.post_request(3, &words(&[L2]));
    raw.next().unwrap();
    link_event(&mut raw, 0x10);
}

#[test]
fn refusals_are_those_of_hardware() {
    const PARAM: i32 = -5;
    const NOT_SUPPORTED: i32 = -64;
    let mut raw = Raw::new(Settings { fixed_mac: true, generation: Generation::Third, ..settings(2) });
    raw.open(Style::Linux);
    for opcode in [4, 6, 7, 8, 9, 10, 15, 23, 44, 51, 99, u32::MAX] {
        assert_eq!(raw.ask(opcode, &[0; 12]).0, NOT_SUPPORTED, "opcode {opcode} before resources");
    }
    raw.negotiate(!CRC);
    let bad_ring = |tx, rx, buffer, max, rxdid| config_queues(&[pair(0, tx, rx, buffer, max, rxdid)], false);
    let mut other_vsi = config_queues(&[pair(0, 512, 512, 2048, 1518, 1)], false);
    other_vsi[0] = 2;
    let mut write_back = config_queues(&[pair(0, 512, 512, 2048, 1518, 1)], false);
    write_back[14] = 1;
    let mut crc = config_queues(&[pair(0, 512, 512, 2048, 1518, 1)], false);
    crc[8 + 24 + 20] = 1;
    let mut crossed = config_queues(&[pair(0, 512, 512, 2048, 1518, 1)], false);
    crossed[8 + 26] = 1;
    let refused: Vec<(u32, Vec<u8>)> = vec![
        (6, vec![]),
        (6, halves(&[1, 0, 0, 0])),
        (6, config_queues(&[], false)),
        (6, config_queues(&[pair(2, 512, 512, 2048, 1518, 1)], false)),
        (6, halves(&[1, 500, 0, 0])),
        (6, bad_ring(8192, 512, 2048, 1518, 1)),
        (6, bad_ring(513, 512, 2048, 1518, 1)),
        (6, bad_ring(512, 8168, 2048, 1518, 1)),
        (6, bad_ring(512, 512, 100, 1518, 1)),
        (6, bad_ring(512, 512, 0, 1518, 1)),
        (6, bad_ring(512, 512, 16384, 1518, 1)),
        (6, bad_ring(512, 512, 2048, 63, 1)),
        (6, bad_ring(512, 512, 2048, 16384, 1)),
        (6, bad_ring(512, 512, 2048, 1518, 3)),
        (6, bad_ring(512, 512, 2048, 1518, 255)),
        (6, other_vsi),
        (6, write_back),
        (6, crc),
        (6, crossed),
        (7, irq_map(&[], true)),
        (7, irq_map(&[[1, 17, 1, 1, 0, 0]], true)),
        (7, irq_map(&[[1, 1, 4, 0, 0, 0]], true)),
        (7, irq_map(&[[2, 1, 1, 0, 0, 0]], true)),
        (8, select(0)),
        (8, select(4)),
        (8, select(1)),
        (9, words(&[2, 1, 1])),
        (10, vec![]),
        (10, halves(&[1, 0])),
        (14, halves(&[2, 0])),
        (15, halves(&[1])),
        (23, rss(&[0; 40])),
        (24, rss(&[2; 64])),
        (24, rss(&[0; 63])),
        (26, vec![0; 7]),
        (52, [halves(&[1, 1, 0, 0]), halves(&[5, 0, 0x88a8]), vec![0; 26]].concat()),
        (52, [halves(&[1, 1, 0, 0]), halves(&[5, 1, 0x8100]), vec![0; 26]].concat()),
        (54, words(&[1, 0, 1, 0])),
        (29, vec![]),
    ];
    for (opcode, body) in refused {
        assert_eq!(raw.ask(opcode, &body), (PARAM, vec![]), "opcode {opcode} {body:?}");
    }
    for opcode in [4, 5, 12, 13, 20, 27, 28, 34, 37, 45, 47, 60, 66, 107, 112, 999] {
        assert_eq!(raw.ask(opcode, &[0; 64]).0, NOT_SUPPORTED, "opcode {opcode}");
    }
    assert_eq!(raw.ask(10, &address([2, 9, 9, 9, 9, 9], 1, true)).0, -53, "the administrator's address");
    raw.must(10, &address(MAC_A, 1, true));
    for n in 0..17 {
        raw.must(10, &address([1, 0, 0, 0, 0, n], 2, true));
    }
    assert_eq!(raw.ask(10, &address([1, 0, 0, 0, 1, 0], 2, true)).0, -18);
    raw.must(10, &address([1, 0, 0, 0, 0, 3], 2, true));
    raw.must(11, &address([9; 6], 2, true));
    let vlan = |id: u16| [halves(&[1, 1, 0, 0]), halves(&[id, 0, 0x8100]), vec![0; 26]].concat();
    (0..9).for_each(|id| drop(raw.must(52, &vlan(id))));
    assert_eq!(raw.ask(52, &vlan(9)).0, -18);
    raw.must(53, &vlan(4));
    raw.must(52, &vlan(9));
}

#[test]
fn a_ring_outside_memory_is_refused_and_one_that_leaves_stops_the_port() {
    let mut raw = Raw::new(settings(1));
    raw.open(Style::Linux);
    raw.negotiate(L2);
    let mut outside = config_queues(&[pair(0, 512, 512, 2048, 1518, 1)], false);
    outside[16..24].copy_from_slice(&0xffff_ffff_ff00_u64.to_le_bytes());
    raw.must(6, &outside);
    assert_eq!(raw.ask(8, &select(1)).0, -5);
    assert!(!raw.port.egress()[0].is_installed());
    raw.must(6, &config_queues(&[pair(0, 512, 512, 2048, 1518, 1)], false));
    raw.must(8, &select(1));
    // Without memory nothing runs; with it the queues go on.
    let map = std::sync::Arc::clone(&raw.map);
    raw.function.set_memory(None);
    assert!(!raw.port.egress()[0].is_installed() && !raw.port.ingress()[0].is_installed());
    raw.function.set_memory(Some(map));
    assert!(raw.port.egress()[0].is_installed() && raw.port.ingress()[0].is_installed());
    // Nor while it is stopped.
    raw.function.set_running(false);
    assert!(!raw.port.egress()[0].is_installed() && !raw.port.ingress()[0].is_installed());
    raw.function.set_running(true);
    assert!(raw.port.egress()[0].is_installed() && raw.port.ingress()[0].is_installed());
    assert_eq!(raw.function.faults(), 1);
    let (small, _) = fabnic_memory::Map::anonymous(0x10_0000).unwrap();
    raw.function.set_memory(Some(small));
    assert!(raw.port.is_stopped());
    raw.function.reset(Reset::FunctionLevel);
    assert!(!raw.port.is_stopped());
}

#[test]
fn a_mailbox_outside_memory_says_so() {
    let mut raw = Raw::new(settings(1));
    raw.open(Style::Linux);
    raw.write(raw::ATQBAH, 0x77);
    raw.write(ATQT, 1);
    assert_ne!(raw.read(ATQLEN) & 1 << 30, 0, "critical");
    assert_eq!(raw.read(raw::ATQH), 0);
}

#[test]
fn answers_wait_for_buffers_and_requests_for_answers() {
    let mut raw = Raw::new(settings(1));
    raw.open(Style::Linux);
    raw.negotiate(L2);
    // No buffers: tail at head.
    let head = raw.read(raw::ARQH);
    raw.write(raw::ARQT, head);
    for _ in 0..31 {
        raw.post_request(15, &words(&[1, 0, 0]));
    }
    assert!(raw.next().is_none());
    // The driver gives its buffers, and everything comes.
    raw.write(raw::ARQT, (head + 31) % 32);
    for _ in 0..31 {
        assert_eq!(raw.next().unwrap().opcode, 15);
    }
    assert!(raw.next().is_none());
}

#[test]
fn what_changes_outside_is_told() {
    let mut raw = Raw::new(settings(1));
    raw.open(Style::Linux);
    raw.control.set_link(false, 100_000);
    raw.read(RSTAT);
    assert!(raw.next().is_none(), "nothing was agreed on yet");
    raw.control.set_link(true, 100_000);
    raw.negotiate(L2 | ADV_LINK_SPEED);
    raw.control.set_link(false, 25_000);
    let event = raw.next().expect("an event");
    assert_eq!(event.body, words(&[1, 25_000, 0, 0]));
    // An administrator's reset is announced.
    raw.read(ICR01);
    raw.write(ICR0_ENA1, 1 << 30);
    raw.write(DYN_CTL01, 1);
    assert_eq!(raw.interrupts(0), 0);
    raw.control.reset();
    raw.function.expire(0);
    assert_eq!(raw.interrupts(0), 1);
    assert_eq!(raw.read(ARQLEN), 0);
    assert_eq!(raw.read(RSTAT) & 3, 2);
    raw.open(Style::Linux);
    raw.control.set_mac([2, 7, 7, 7, 7, 7]);
    raw.read(RSTAT);
    raw.open(Style::Linux);
    raw.must(1, &words(&[1, 1]));
    let resources = raw.must(3, &words(&[L2]));
    assert_eq!(resources[30..36], [2, 7, 7, 7, 7, 7]);
}

#[test]
fn registers_are_read_by_any_width() {
    let mut raw = Raw::new(settings(1));
    raw.write(0x2000, 0x1234);
    let mut bytes = [0; 8];
    raw.function.read(0, 0x2000, &mut bytes);
    assert_eq!(bytes, [0x34, 0x12, 0, 0, 0, 0, 0, 0]);
    let mut byte = [0];
    raw.function.read(0, 0x2001, &mut byte);
    assert_eq!(byte, [0x12]);
    raw.function.write(0, 0x2001, &[1]);
    assert_eq!(raw.read(0x2000), 0x1234);
    raw.function.read(3, 0, &mut bytes);
    assert_eq!(bytes, [0; 8]);
    assert_eq!(raw.read(0x1_fffc), 0);
}

#[test]
fn pending_interrupts_are_held_for_the_interval() {
    let mut raw = Raw::new(settings(1));
    raw.open(Style::Linux);
    raw.negotiate(L2);
    raw.must(7, &irq_map(&[[1, 1, 1, 1, 0, 1]], true));
    raw.must(6, &config_queues(&[pair(0, 512, 512, 2048, 1534, 1)], false));
    raw.write(0x2000, 511);
    raw.must(8, &select(1));
    (0..512).for_each(|n| raw.poke(0x108_0000 + n * 32, &0x20_0000_u64.to_le_bytes()));
    let deliver = |raw: &Raw| {
        let mut burst = fabnic_port::Burst::new();
        burst.push_bytes(&[&[0xff; 6][..], &MAC_A, &[0x88, 0xb5], &[0; 50]].concat());
        let mut tally = fabnic_port::Tally::default();
        raw.port.egress()[0].lock().as_mut().unwrap().deliver(&mut burst, &[0], &mut tally).unwrap();
        assert_eq!(tally.frames, 1);
    };
    let at = |raw: &mut Raw, now: u64| raw.function.expire(now);
    // NAPI's end: enabled, ITR 0, 50 us.
    let enable = |raw: &mut Raw| raw.function.write(0, 0x3800, &(1_u32 | 25 << 5).to_le_bytes());
    at(&mut raw, 1_000_000);
    enable(&mut raw);
    assert_eq!(raw.function.deadline(), None);
    deliver(&raw);
    assert_eq!(raw.interrupts(1), 1, "an idle driver is told at once");
    deliver(&raw);
    at(&mut raw, 1_010_000);
    enable(&mut raw);
    assert_eq!(raw.interrupts(1), 1, "the first that the register side sends");
    deliver(&raw);
    at(&mut raw, 1_020_000);
    enable(&mut raw);
    assert_eq!(raw.interrupts(1), 0);
    assert_eq!(raw.function.deadline(), Some(1_060_000));
    deliver(&raw);
    at(&mut raw, 1_059_999);
    assert_eq!(raw.interrupts(1), 0);
    at(&mut raw, 1_060_000);
    assert_eq!(raw.interrupts(1), 1);
    assert_eq!(raw.function.deadline(), None);
    // Held, then triggered by software: obeyed at once.
    deliver(&raw);
    at(&mut raw, 1_070_000);
    enable(&mut raw);
    assert_eq!(raw.interrupts(1), 0);
    raw.function.write(0, 0x3800, &(1_u32 | 3 << 3 | 1 << 2 | 1 << 24).to_le_bytes());
    assert_eq!(raw.interrupts(1), 1);
    // Held, then disabled: kept, not sent.
    deliver(&raw);
    enable(&mut raw);
    raw.function.write(0, 0x3800, &0_u32.to_le_bytes());
    at(&mut raw, 2_000_000);
    assert_eq!(raw.interrupts(1), 0);
    enable(&mut raw);
    assert_eq!(raw.interrupts(1), 1);
    assert_eq!(raw.read(0x2800), 25, "the interval is in its register");
}
