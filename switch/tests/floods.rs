//! Floods over many ports: in slices, in order, to everybody once, while other traffic flows.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use fabnic_memory::{Hint, Map};
use fabnic_port::{Burst, DropReason, Egress, Fault, Ingress, Port, PortId, PortKind, Tally};
use fabnic_switch::{InlineSwitch, PortSettings, SwitchConfig, VlanMode};
use fabnic_wire::{Offload, Vid};
use parking_lot::Mutex;
use proptest::prelude::*;

type Frames = Arc<Mutex<Vec<(Vec<u8>, Offload)>>>;

/// Hands out frames from memory that is overwritten as soon as they were given back.
struct Source {
    waiting: Frames,
    map: Arc<Map>,
}

const PLACE: u64 = 0x11000;

impl Ingress for Source {
    fn backlog(&mut self) -> usize {
        self.waiting.lock().len()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(64);
        for ((frame, offload), at) in waiting.drain(..count).zip((0..).step_by(PLACE as usize)) {
            let slice = self.map.translate(at, frame.len() as u32, &mut Hint::default()).unwrap();
            self.map.write(&slice, 0, &frame);
            let first = burst.slices().len();
            burst.slices_mut().push(slice);
            burst.push(first, 1, 0, frame.len() as u32).unwrap().set_offload(offload);
        }
        Ok(())
    }

    fn complete(&mut self, burst: &Burst) -> u32 {
        // What a guest does with its buffers once it has them back.
        for slice in burst.slices() {
            self.map.write(slice, 0, &vec![0xee; slice.len() as usize]);
        }
        0
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Sink(Frames);

impl Egress for Sink {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for &pick in picks {
            let frame = &burst.frames()[usize::from(pick)];
            let (mut bytes, offload) = (vec![0; frame.len() as usize], frame.offload());
            assert_eq!(burst.copy_out(pick.into(), &mut bytes), bytes.len());
            tally.deliver(bytes.len() as u32);
            self.0.lock().push((bytes, offload));
        }
        Ok(())
    }
}

struct Bench {
    switch: InlineSwitch,
    ports: Vec<(Arc<Port>, PortSettings)>,
    waiting: BTreeMap<u32, Frames>,
    got: Vec<Frames>,
}

fn vid(vlan: u16) -> Vid {
    Vid::new(vlan).unwrap()
}

fn access(vlan: u16) -> PortSettings {
    PortSettings { vlan: VlanMode::Access(vid(vlan)), mtu: 65521, ..PortSettings::default() }
}

fn trunk(vlans: &[u16]) -> PortSettings {
    let vlans = vlans.iter().copied().map(vid).collect();
    PortSettings { vlan: VlanMode::Trunk { vlans, native: None }, mtu: 65521, ..PortSettings::default() }
}

impl Bench {
    /// Ports numbered from 0. Those in `senders` can send.
    fn new(settings: Vec<PortSettings>, senders: &[u32]) -> Bench {
        let mut bench = Bench {
            switch: InlineSwitch::new(&SwitchConfig::default()),
            ports: Vec::new(),
            waiting: BTreeMap::new(),
            got: Vec::new(),
        };
        for (settings, id) in settings.into_iter().zip(0..) {
            let port = Arc::new(Port::new(PortId(id), &format!("p{id}"), PortKind::Loopback, 1));
            let got = Frames::default();
            port.egress()[0].install(Box::new(Sink(Arc::clone(&got))));
            port.refresh_egress();
            if senders.contains(&id) {
                let (map, _) = Map::anonymous(64 * PLACE).unwrap();
                let waiting = Frames::default();
                port.ingress()[0].install(Box::new(Source { waiting: Arc::clone(&waiting), map }));
                bench.waiting.insert(id, waiting);
            }
            bench.ports.push((port, settings));
            bench.got.push(got);
        }
        bench.switch.set_ports(bench.ports.clone());
        bench
    }

    fn send(&mut self, from: u32, frames: &[Vec<u8>]) {
        let frames = frames.iter().map(|frame| (frame.clone(), Offload::PLAIN));
        self.waiting[&from].lock().extend(frames);
        while self.switch.poll(PortId(from), 0).unwrap() > 0 {}
    }

    fn drain(&mut self) {
        while self.switch.deliver_slice() > 0 {}
    }

    fn take(&self, port: usize) -> Vec<Vec<u8>> {
        core::mem::take(&mut *self.got[port].lock()).into_iter().map(|(bytes, _)| bytes).collect()
    }

    fn balance(&self) {
        let totals = self.switch.totals();
        assert!(totals.balance(), "{totals:?}");
    }
}

fn frame(dst: [u8; 6], src: u8, tag: Option<u16>, len: usize, number: u32) -> Vec<u8> {
    let mut bytes = [dst, [2, 0, 0, 0, 0, src]].concat();
    if let Some(tag) = tag {
        bytes.extend([0x81, 0]);
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend([0x88, 0xb5]);
    bytes.extend(number.to_be_bytes());
    bytes.extend((bytes.len()..len).map(|i| (i as u32 * 7 + number) as u8));
    bytes
}

const ALL: [u8; 6] = [0xff; 6];

#[test]
fn unicast_flows_while_a_broadcast_goes_to_a_thousand_ports() {
    let mut bench = Bench::new(vec![access(1); 1000], &[0, 1]);
    bench.send(1, &[frame([2, 0, 0, 0, 0, 1], 2, None, 60, 0)]);
    bench.drain();
    (0..1000).for_each(|port| drop(bench.take(port)));
    let flood: Vec<_> = (0..64).map(|n| frame(ALL, 1, None, 60 + n as usize * 20, n)).collect();
    bench.send(0, &flood);
    assert!((0..1000).all(|port| bench.got[port].lock().is_empty()), "put aside");
    let unicast = frame([2, 0, 0, 0, 0, 2], 1, None, 60, 99);
    let (mut slices, mut reached) = (0, 0);
    while reached < 999 {
        bench.send(0, std::slice::from_ref(&unicast));
        assert_eq!(bench.got[1].lock().last().unwrap().0, unicast, "at once");
        let copies = bench.switch.deliver_slice();
        assert!((64..=1024).contains(&copies), "{copies} copies in one slice");
        assert_eq!(copies % 64, 0, "whole bursts");
        reached += copies / 64;
        slices += 1;
    }
    assert!(slices > 100, "{slices} slices");
    assert_eq!(bench.switch.deliver_slice(), 0);
    assert!(bench.take(0).is_empty());
    assert_eq!(bench.take(1).into_iter().filter(|got| *got != unicast).collect::<Vec<_>>(), flood);
    assert!((2..1000).all(|port| bench.take(port) == flood));
    bench.balance();
}

#[test]
fn a_small_vlan_is_served_at_once_and_a_full_queue_says_so() {
    let mut settings = vec![access(1); 600];
    settings.extend(vec![access(2); 3]);
    settings.extend(vec![access(3); 400]);
    let mut bench = Bench::new(settings, &[0, 600, 603]);
    let burst: Vec<_> = (0..64).map(|n| frame(ALL, 1, None, 60, n)).collect();
    let mut sent = 0_u32;
    while bench.ports[0].0.rx_drops.get(DropReason::FloodQueueFull) == 0 {
        bench.send(0, &burst);
        sent += 1;
        assert!(sent < 1000, "the queue has no end");
    }
    assert_eq!(bench.ports[0].0.rx_drops.get(DropReason::FloodQueueFull), 64);
    let small: Vec<_> = (0..3).map(|n| frame(ALL, 1, None, 100, n)).collect();
    bench.send(600, &small);
    assert_eq!(bench.take(601), small, "nothing of its VLAN waits");
    bench.send(603, &small);
    assert_eq!(bench.ports[603].0.rx_drops.total(), 0, "another VLAN has room left");
    // The other VLAN's turn comes behind one job, not behind all.
    let mut copies = 0;
    while bench.got[1002].lock().is_empty() {
        copies += bench.switch.deliver_slice();
    }
    assert!(copies <= 599 * 64 + 399 * 3, "{copies}");
    bench.drain();
    assert_eq!(bench.take(1).len(), (sent as usize - 1) * 64);
    assert_eq!(bench.take(1002), small);
    bench.balance();
    // And there is room again.
    bench.send(0, &burst);
    bench.drain();
    assert_eq!(bench.take(1), burst);
}

#[test]
fn long_frames_offloads_and_tags_survive_the_wait() {
    let mut settings = vec![access(10); 40];
    settings.extend(vec![trunk(&[10, 20]); 40]);
    let mut bench = Bench::new(settings, &[0, 79]);
    let gso = Offload { gso_type: 1, hdr_len: 54, gso_size: 1400, ..Offload::PLAIN };
    let long = frame(ALL, 1, None, 65535, 7);
    let frames = [(long.clone(), gso), (frame(ALL, 1, None, 2048, 8), Offload::PLAIN)];
    bench.waiting[&0].lock().extend(frames.clone());
    bench.switch.poll(PortId(0), 0).unwrap();
    assert!(bench.got[1].lock().is_empty(), "put aside");
    bench.drain();
    assert_eq!(*bench.got[1].lock(), frames);
    let (tagged, offload) = bench.got[40].lock()[0].clone();
    assert_eq!(
        (&tagged[..12], &tagged[12..16], &tagged[16..]),
        (&long[..12], &[0x81, 0, 0, 10][..], &long[12..])
    );
    assert_eq!(offload.hdr_len, 58, "the headers are longer by the tag");
    (0..80).for_each(|port| drop(bench.take(port)));
    // From a trunk, with a priority that stays where the frame leaves tagged.
    let burst: Vec<_> = (0..64).map(|n| frame(ALL, 2, Some(0xa00a), 1500, n)).collect();
    bench.send(79, &burst);
    bench.drain();
    assert_eq!(bench.take(50), burst);
    let plain: Vec<_> = burst.iter().map(|frame| [&frame[..12], &frame[16..]].concat()).collect();
    assert_eq!(bench.take(3), plain);
    bench.balance();
}

#[derive(Clone, Debug)]
enum Step {
    Send { from: usize, frames: usize, len: usize },
    Slice(usize),
    Move { port: usize, vlan: u16 },
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_usize, 1..64_usize, prop_oneof![1 => Just(60_usize), 3 => Just(1514)])
            .prop_map(|(from, frames, len)| Step::Send { from, frames, len }),
        6 => (1..30_usize).prop_map(Step::Slice),
        2 => (4..100_usize, 1..3_u16).prop_map(|(port, vlan)| Step::Move { port, vlan }),
        1 => (4..100_usize).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// Ports 0 and 1 send in VLAN 1, 2 and 3 in VLAN 2; the others receive, move and go.
    #[test]
    fn everybody_gets_every_flood_once_and_in_order(steps in prop::collection::vec(step(), 1..20)) {
        let settings = (0..100).map(|port| access(if port % 4 < 2 { 1 } else { 2 })).collect();
        let mut bench = Bench::new(settings, &[0, 1, 2, 3]);
        let mut sent: Vec<Vec<u32>> = vec![Vec::new(); 4];
        // Ports that were in one VLAN all the time, by VLAN.
        let mut loyal: Vec<Option<u16>> = (0..100).map(|port| Some(if port % 4 < 2 { 1 } else { 2 })).collect();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Send { from, frames, len } => {
                    let burst: Vec<_> = (0..frames as u32).map(|n| frame(ALL, from as u8 + 1, None, len, number + n)).collect();
                    sent[from].extend(number..number + frames as u32);
                    number += frames as u32;
                    bench.send(from as u32, &burst);
                }
                Step::Slice(slices) => {
                    for _ in 0..slices {
                        bench.switch.deliver_slice();
                    }
                }
                Step::Move { port, vlan } => {
                    if let Some(place) = bench.ports.iter().position(|(p, _)| p.id == PortId(port as u32)) {
                        if bench.ports[place].1 != access(vlan) {
                            loyal[port] = None;
                        }
                        bench.ports[place].1 = access(vlan);
                        bench.switch.set_ports(bench.ports.clone());
                    }
                }
                Step::Remove(port) => {
                    loyal[port] = None;
                    // The order of the rest changes: indexes are others.
                    if let Some(place) = bench.ports.iter().position(|(p, _)| p.id == PortId(port as u32)) {
                        bench.ports.swap_remove(place);
                        bench.switch.set_ports(bench.ports.clone());
                    }
                }
            }
        }
        bench.drain();
        let lost: u64 = bench.ports.iter().map(|(port, _)| port.rx_drops.get(DropReason::FloodQueueFull)).sum();
        for (port, loyal) in loyal.iter().enumerate() {
            let got = bench.take(port);
            let numbers: Vec<u32> = got.iter().map(|f| u32::from_be_bytes(*f[14..].first_chunk().unwrap())).collect();
            let mut of: Vec<Vec<u32>> = vec![Vec::new(); 4];
            for (frame_got, n) in got.iter().zip(&numbers) {
                prop_assert_eq!(frame_got, &frame(ALL, frame_got[11], None, frame_got.len(), *n), "as it was sent");
                of[usize::from(frame_got[11]) - 1].push(*n);
            }
            for (from, got) in of.iter().enumerate() {
                prop_assert!(got.is_sorted_by(|a, b| a < b), "in order, and none twice");
                let vlan = if from < 2 { 1 } else { 2 };
                if lost == 0 && *loyal == Some(vlan) && port != from {
                    prop_assert_eq!(got, &sent[from], "port {} of {}", port, from);
                }
                if loyal.is_some_and(|own| own != vlan) || port == from {
                    prop_assert!(got.is_empty());
                }
            }
        }
        if bench.ports.len() == 100 {
            bench.balance();
        }
    }
}
