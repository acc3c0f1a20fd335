//! Light guests against devices that do what devices may do.

use fabnic_wire::Offload;

use super::*;
use crate::driver::light::{FlowFields, LightReceive, LightTransmit, Prebuilt, flow_mac, flow_ports};
use crate::packets::Packet;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn options() -> Vec<RingOptions> {
    all_options().into_iter().filter(|options| options.indirect == 0).collect()
}

fn frame(fields: FlowFields, flow: u32, size: usize) -> Prebuilt {
    let (mac, ip) = if fields == FlowFields::Mac { (flow, 0) } else { (0, flow) };
    let (source, destination) = flow_ports(ip);
    let packet = Packet::ethernet(flow_mac(B, mac), flow_mac(A, mac))
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
        .udp(source, destination);
    let mut bytes = packet.size(size).build();
    bytes[40..42].fill(0);
    Prebuilt { header: Offload::PLAIN.encode(0), bytes }
}

fn bytes(memory: &GuestMemory, seen: &Seen) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in &seen.pieces {
        assert!(!piece.writable);
        let mut part = vec![0; piece.len as usize];
        memory.read(piece.addr, &mut part).unwrap();
        all.extend(part);
    }
    all.split_off(12)
}

/// All flows go by, in their order, as often as the device asks for.
#[test]
fn transmit_shows_all_flows() {
    for options in options() {
        for fields in [FlowFields::Ip, FlowFields::Mac] {
            for (flows, size, piece) in [(4, 64, 4096), (100, 64, 4096), (8, 3000, 1000)] {
                let mut memory = GuestMemory::new(4 << 20, Backing::Ordinary).unwrap();
                let mut light = LightTransmit::new(&mut memory, options, piece, flows, fields, |i| {
                    frame(fields, i % flows, size)
                })
                .unwrap();
                let ring = RingOptions { size: light.ring_size(), ..options };
                let mut device = Device::new(&memory, &ring, light.place());
                assert_eq!(device.take(), None, "nothing before the start");
                light.start();
                let mut flow = 0;
                for burst in (1..=4).cycle().take(200) {
                    for _ in 0..burst.min(light.chains()) {
                        let seen = device.take().expect("never starving");
                        let expected = frame(fields, flow, size).bytes;
                        assert_eq!(bytes(&memory, &seen), expected, "{options:?} {fields:?} {flows} {flow}");
                        device.give(&seen, 0);
                        flow = (flow + 1) % flows;
                    }
                    while light.poll(u16::MAX, true) > 0 {}
                }
                assert_eq!((light.counts().disorder, light.counts().bytes % size as u64), (0, 0));
            }
        }
    }
}

#[test]
fn transmit_keeps_to_its_pace() {
    for options in options() {
        let mut memory = GuestMemory::new(4 << 20, Backing::Ordinary).unwrap();
        let build = |flow| frame(FlowFields::Ip, flow, 64);
        let mut light = LightTransmit::new(&mut memory, options, 4096, 16, FlowFields::Ip, build).unwrap();
        let mut device = Device::new(&memory, &options, light.place());
        light.start();
        let seen: Vec<Seen> = std::iter::from_fn(|| device.take()).collect();
        assert_eq!(seen.len(), 16);
        seen.iter().for_each(|seen| device.give(seen, 0));
        assert_eq!(light.poll(0, true), 0);
        assert_eq!(light.poll(3, true), 3);
        assert_eq!(std::iter::from_fn(|| device.take()).count(), 3, "{options:?}");
        assert_eq!(light.counts().starved, 1);
    }
}

/// Frames of one buffer and of three, used in order and (where that is allowed) out of it.
#[test]
fn receive_counts_frames_and_gives_all_buffers_back() {
    for options in options() {
        for shuffle in [false, true] {
            if shuffle && options.in_order {
                continue;
            }
            let mut memory = GuestMemory::new(4 << 20, Backing::Ordinary).unwrap();
            let mut light = LightReceive::new(&mut memory, options, 500).unwrap();
            let mut device = Device::new(&memory, &options, light.place());
            let (mut frames, mut count) = (0, 0);
            for round in 0..100 {
                let mut seen: Vec<Seen> = std::iter::from_fn(|| device.take()).collect();
                assert_eq!(seen.len(), 16, "{options:?}: all buffers are there again");
                let mut addresses: Vec<u64> = seen.iter().map(|seen| seen.pieces[0].addr).collect();
                addresses.sort_unstable();
                addresses.dedup();
                assert_eq!(addresses.len(), 16, "{options:?}: each once");
                if shuffle {
                    seen.rotate_left(round % 16);
                    seen.swap(3, 7);
                }
                for (i, seen) in seen.iter().enumerate() {
                    // Buffers 0..10 are a frame each, 10..13 and 13..16 are frames of three.
                    let in_frame = if i < 10 { 0 } else { (i - 10) % 3 };
                    if in_frame == 0 {
                        let buffers = if i < 10 { 1 } else { 3 };
                        memory.write(seen.pieces[0].addr, &Offload::PLAIN.encode(buffers)).unwrap();
                        frames += 1;
                        count += 100 - 12;
                    } else {
                        count += 100;
                    }
                    device.give(seen, 100);
                }
                while light.poll(true) > 0 {}
            }
            let counts = light.counts();
            assert_eq!((counts.frames, counts.bytes), (frames, count), "{options:?} {shuffle}");
            assert_eq!(counts.disorder > 0, shuffle);
        }
    }
}

#[test]
fn few_are_left_alone_unless_forced() {
    for options in options().into_iter().filter(|options| !options.in_order) {
        let mut memory = GuestMemory::new(4 << 20, Backing::Ordinary).unwrap();
        let mut light = LightReceive::new(&mut memory, options, 500).unwrap();
        light.set_gather(4);
        let mut device = Device::new(&memory, &options, light.place());
        let mut give = |n| {
            (0..n).for_each(|_| {
                let seen = device.take().unwrap();
                device.give(&seen, 60)
            })
        };
        give(3);
        assert_eq!(light.poll(false), 0, "{options:?}");
        assert_eq!(light.poll(true), 3);
        give(4);
        assert_eq!(light.poll(false), 4, "{options:?}");
    }
}

/// A limit that cuts a batch with one used descriptor in two loses nothing of it.
#[test]
fn a_pace_within_a_batch() {
    let options = RingOptions { size: 16, packed: true, in_order: true, ..RingOptions::default() };
    let mut memory = GuestMemory::new(4 << 20, Backing::Ordinary).unwrap();
    let build = |flow| frame(FlowFields::Ip, flow, 64);
    let mut light = LightTransmit::new(&mut memory, options, 4096, 16, FlowFields::Ip, build).unwrap();
    let mut device = Device::new(&memory, &options, light.place());
    light.start();
    for _ in 0..50 {
        let seen: Vec<Seen> = std::iter::from_fn(|| device.take()).take(7).collect();
        let Device::Packed(packed) = &mut device else { panic!("packed was asked for") };
        packed.give_batch(&seen, 0);
        assert_eq!([2, 4, 9].map(|limit| light.poll(limit, true)), [2, 4, 1]);
    }
}

/// A batch whose first descriptor is written last is not touched before that, however much of it can be seen.
#[test]
fn a_batch_that_appears_from_its_end() {
    let options = RingOptions { size: 16, packed: true, ..RingOptions::default() };
    let mut memory = GuestMemory::new(4 << 20, Backing::Ordinary).unwrap();
    let build = |flow| frame(FlowFields::Ip, flow, 64);
    let mut transmit = LightTransmit::new(&mut memory, options, 4096, 16, FlowFields::Ip, build).unwrap();
    let mut receive = LightReceive::new(&mut memory, options, 500).unwrap();
    transmit.set_gather(4);
    receive.set_gather(4);
    let mut devices = [transmit.place(), receive.place()].map(|at| Device::new(&memory, &options, at));
    transmit.start();
    for _ in 0..50 {
        for (i, device) in devices.iter_mut().enumerate() {
            let seen: Vec<(Seen, u32)> =
                std::iter::from_fn(|| device.take()).take(5).map(|s| (s, 0)).collect();
            assert_eq!(seen.len(), 5);
            let Device::Packed(packed) = device else { panic!("packed was asked for") };
            let mut poll = || if i == 0 { transmit.poll(u16::MAX, false) } else { receive.poll(false) };
            let finish = packed.give_first_last(&seen);
            assert_eq!(poll(), 0);
            finish();
            assert_eq!(poll(), 5);
        }
    }
}
