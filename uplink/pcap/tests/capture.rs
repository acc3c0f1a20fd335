//! Captures, read back by an implementation that is not ours.
#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fabnic_memory::{Hint, Map};
use fabnic_pcap::RecordEgress;
use fabnic_pcap::capture::{CaptureOptions, CaptureStream, Chunk, start};
use fabnic_port::{Burst, CaptureSink, CaptureSlot, Direction, DropReason, Egress, Tally, Verdict};
use fabnic_wire::Offload;
use fabnic_wire::offload::{GSO_TCPV4, NEEDS_CSUM};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// What another reader finds of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    interface: u32,
    original_len: u32,
    bytes: Vec<u8>,
    comment: String,
    flags: u32,
    time: Duration,
}

#[derive(Debug, Default)]
struct Summary {
    /// Name and snaplen.
    interfaces: Vec<(String, u32)>,
    packets: Vec<Found>,
    /// Interface, received, dropped.
    statistics: Vec<(u32, u64, u64)>,
}

fn read_back(bytes: &[u8]) -> Summary {
    let mut summary = Summary::default();
    let mut reader = PcapNgReader::new(bytes).unwrap();
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                let mut name = None;
                for option in &interface.options {
                    match option {
                        InterfaceDescriptionOption::IfName(n) => name = Some(n.to_string()),
                        InterfaceDescriptionOption::IfTsResol(resolution) => assert_eq!(*resolution, 9),
                        _ => {}
                    }
                }
                summary.interfaces.push((name.unwrap(), interface.snaplen));
            }
            Block::EnhancedPacket(packet) => {
                let (mut comment, mut flags) = (String::new(), 0);
                for option in &packet.options {
                    match option {
                        EnhancedPacketOption::Comment(text) => comment = text.to_string(),
                        EnhancedPacketOption::Flags(bits) => flags = *bits,
                        _ => {}
                    }
                }
                summary.packets.push(Found {
                    interface: packet.interface_id,
                    original_len: packet.original_len,
                    bytes: packet.data.to_vec(),
                    comment,
                    flags,
                    time: packet.timestamp,
                });
            }
            Block::InterfaceStatistics(statistics) => {
                let (mut received, mut dropped) = (None, None);
                for option in &statistics.options {
                    match option {
                        InterfaceStatisticsOption::IsbIfRecv(n) => received = Some(*n),
                        InterfaceStatisticsOption::IsbIfDrop(n) => dropped = Some(*n),
                        _ => {}
                    }
                }
                summary.statistics.push((statistics.interface_id, received.unwrap(), dropped.unwrap()));
            }
            other => panic!("a block that was not expected: {other:?}"),
        }
    }
    summary
}

fn bytes_of(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + len + i / 256) as u8).collect()
}

/// A burst of frames of these lengths, in memory of their own.
fn burst_of(lens: &[usize]) -> Burst {
    let (map, _) = Map::anonymous(8 << 20).unwrap();
    let mut burst = Burst::new();
    burst.begin(&map);
    let (mut at, mut hint) = (0, Hint::default());
    for len in lens {
        let slice = map.translate(at, *len as u32, &mut hint).unwrap();
        map.write(&slice, 0, &bytes_of(*len));
        let first = burst.slices().len();
        burst.slices_mut().push(slice);
        burst.push(first, 1, 0, *len as u32).unwrap();
        at += *len as u64;
    }
    burst
}

fn all_of(mut stream: CaptureStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

#[test]
fn another_reader_finds_what_was_offered() {
    let (tap, stream) = start(CaptureOptions::default(), "vm1");
    let lens = [14, 60, 61, 62, 63, 128, 129, 1514, 65_549];
    let mut burst = burst_of(&lens);
    burst.frames_mut()[7].set_offload(Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        gso_size: 500,
        ..Offload::PLAIN
    });
    let before = since_1970();
    let verdicts = [
        (Verdict::Forwarded("vm2"), "forwarded to vm2"),
        (Verdict::Flooded(3), "flooded to 3 ports"),
        (Verdict::Dropped(DropReason::VlanNotAllowed), "dropped: vlan_not_allowed"),
        (Verdict::Delivered, "delivered"),
    ];
    for index in 0..lens.len() {
        let direction = if index % 2 == 0 { Direction::In } else { Direction::Out };
        tap.offer(&burst, index, direction, verdicts[index % 4].0);
    }
    let after = since_1970();
    tap.stop();
    assert!(!tap.is_active());
    let found = read_back(&all_of(stream));
    assert_eq!(found.interfaces, [("vm1".to_owned(), 262_144)]);
    assert_eq!(found.statistics, [(0, 9, 0)]);
    assert_eq!(found.packets.len(), lens.len());
    for (index, (packet, len)) in found.packets.iter().zip(lens).enumerate() {
        assert_eq!(packet.bytes, bytes_of(len));
        assert_eq!(packet.original_len as usize, len);
        assert_eq!(packet.flags, if index % 2 == 0 { 1 } else { 2 });
        let verdict = verdicts[index % 4].1;
        let offload =
            if index == 7 { "; TSO over IPv4, segments of 500 bytes; checksum not finished" } else { "" };
        assert_eq!(packet.comment, format!("{verdict}{offload}"));
        assert!((before..=after).contains(&packet.time), "{:?}", packet.time);
    }
}

#[test]
fn only_the_first_bytes_of_a_frame_are_kept() {
    for snaplen in [1, 2, 3, 4, 13, 64, 127, 128, 129, 1000] {
        let (tap, stream) = start(CaptureOptions { snaplen, ..CaptureOptions::default() }, "vm1");
        let lens = [14, 128, 1514];
        let burst = burst_of(&lens);
        for index in 0..3 {
            tap.offer(&burst, index, Direction::In, Verdict::Delivered);
        }
        drop(tap);
        let found = read_back(&all_of(stream));
        assert_eq!(found.packets.len(), 3);
        for (packet, len) in found.packets.iter().zip(lens) {
            assert_eq!(packet.bytes, bytes_of(len)[..len.min(snaplen as usize)]);
            assert_eq!(packet.original_len as usize, len);
        }
    }
}

#[test]
fn a_capture_of_one_direction_sees_nothing_of_the_other() {
    let options = CaptureOptions { direction: Some(Direction::Out), ..CaptureOptions::default() };
    let (tap, stream) = start(options, "vm1");
    let burst = burst_of(&[20, 30]);
    tap.offer(&burst, 0, Direction::In, Verdict::Delivered);
    tap.offer(&burst, 1, Direction::Out, Verdict::Delivered);
    drop(tap);
    let found = read_back(&all_of(stream));
    assert_eq!(found.packets.iter().map(|p| p.bytes.len()).collect::<Vec<_>>(), [30]);
    assert_eq!(found.statistics, [(0, 1, 0)]);
}

#[test]
fn comments_name_only_ports_that_the_reader_may_know() {
    let verdicts = [
        Verdict::Forwarded("mine"),
        Verdict::Forwarded("foreign"),
        Verdict::Flooded(7),
        Verdict::Dropped(DropReason::NoMember),
    ];
    let comments = |named: Option<&str>| {
        let named = named.map(|name| std::iter::once(name.to_owned()).collect());
        let (tap, stream) = start(CaptureOptions { named, ..CaptureOptions::default() }, "vm1");
        let burst = burst_of(&[20; 4]);
        for (index, verdict) in verdicts.into_iter().enumerate() {
            tap.offer(&burst, index, Direction::In, verdict);
        }
        drop(tap);
        read_back(&all_of(stream)).packets.into_iter().map(|packet| packet.comment).collect::<Vec<_>>()
    };
    let dropped = Verdict::Dropped(DropReason::NoMember).to_string();
    assert_eq!(
        comments(None),
        ["forwarded to mine", "forwarded to foreign", "flooded to 7 ports", dropped.as_str()]
    );
    assert_eq!(comments(Some("mine")), ["forwarded to mine", "forwarded", "flooded", dropped.as_str()]);
}

#[test]
fn a_capture_ends_at_its_limit() {
    let options = CaptureOptions { limit: Some(3), ..CaptureOptions::default() };
    let (tap, stream) = start(options, "vm1");
    let burst = burst_of(&[20, 21, 22, 23, 24]);
    for index in 0..5 {
        assert_eq!(tap.is_active(), index < 3);
        tap.offer(&burst, index, Direction::In, Verdict::Delivered);
    }
    // The tap is still on its port, and the stream ends nevertheless.
    let found = read_back(&all_of(stream));
    assert_eq!(found.packets.len(), 3);
}

#[test]
fn one_capture_of_several_ports_has_an_interface_each() {
    let (first, stream) = start(CaptureOptions::default(), "vm1");
    let burst = burst_of(&[20, 21]);
    first.offer(&burst, 0, Direction::In, Verdict::Delivered);
    let second = first.for_port("vm2").unwrap();
    second.offer(&burst, 1, Direction::Out, Verdict::Delivered);
    drop(first);
    assert!(second.is_active(), "one tap is still there");
    drop(second);
    let found = read_back(&all_of(stream));
    assert_eq!(found.interfaces.iter().map(|i| i.0.as_str()).collect::<Vec<_>>(), ["vm1", "vm2"]);
    assert_eq!(found.packets.iter().map(|p| p.interface).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(found.statistics, [(0, 1, 0), (1, 1, 0)]);
}

#[test]
fn what_does_not_fit_is_counted() {
    let (tap, mut stream) = start(CaptureOptions::default(), "vm1");
    let burst = burst_of(&[65_549]);
    for _ in 0..100 {
        tap.offer(&burst, 0, Direction::In, Verdict::Delivered);
    }
    let (offered, lost) = stream.counts();
    assert_eq!(offered, 100);
    assert!(lost > 0);
    // The reader makes room.
    let Chunk::Blocks(mut bytes) = stream.next_chunk(Duration::ZERO) else { panic!("nothing came") };
    assert_eq!(stream.next_chunk(Duration::ZERO), Chunk::Idle);
    tap.offer(&burst, 0, Direction::In, Verdict::Delivered);
    drop(tap);
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(stream.next_chunk(Duration::ZERO), Chunk::End);
    assert_eq!(stream.next(), None);
    let found = read_back(&bytes);
    assert_eq!(found.packets.len() as u64, 101 - lost);
    assert_eq!(found.statistics, [(0, 101, lost)]);
}

#[test]
fn a_capture_ends_when_nobody_reads() {
    let (tap, stream) = start(CaptureOptions::default(), "vm1");
    let slot = CaptureSlot::default();
    slot.add(Arc::new(tap));
    assert!(slot.is_active());
    drop(stream);
    slot.offer(&burst_of(&[20]), 0, Direction::In, Verdict::Delivered);
    slot.prune();
    assert!(!slot.is_active());
}

#[test]
fn several_workers_and_a_reader_lose_nothing_uncounted() {
    const EACH: u64 = 20_000;
    const WORKERS: u64 = 3;
    let (tap, stream) = start(CaptureOptions { snaplen: 200, ..CaptureOptions::default() }, "vm1");
    let slot = Arc::new(CaptureSlot::default());
    slot.add(Arc::new(tap));
    let go = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (slot, go) = (Arc::clone(&slot), Arc::clone(&go));
            std::thread::spawn(move || {
                let mut burst = Burst::new();
                while !go.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                for number in 0..EACH {
                    burst.release();
                    let mut frame = [0; 60];
                    frame[..8].copy_from_slice(&worker.to_le_bytes());
                    frame[8..16].copy_from_slice(&number.to_le_bytes());
                    burst.push_bytes(&frame).unwrap();
                    slot.offer(&burst, 0, Direction::In, Verdict::Delivered);
                }
            })
        })
        .collect();
    let reader = std::thread::spawn(move || stream.flatten().collect::<Vec<u8>>());
    go.store(true, Ordering::Release);
    for worker in workers {
        worker.join().unwrap();
    }
    // The last tap goes with the slot, and ends the capture.
    drop(slot);
    let found = read_back(&reader.join().unwrap());
    let (_, offered, lost) = found.statistics[0];
    assert_eq!(offered, WORKERS * EACH);
    assert_eq!(found.packets.len() as u64, offered - lost);
    let mut next = [0; WORKERS as usize];
    for packet in &found.packets {
        let worker = u64::from_le_bytes(packet.bytes[..8].try_into().unwrap()) as usize;
        let number = u64::from_le_bytes(packet.bytes[8..16].try_into().unwrap());
        assert!(number >= next[worker], "out of order");
        next[worker] = number + 1;
    }
}

#[test]
fn a_capture_port_writes_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("up0.pcapng");
    let mut egress = RecordEgress::create(&path, "up0").unwrap();
    let lens: Vec<usize> = (14..60).collect();
    let mut burst = burst_of(&lens);
    let picks: Vec<u8> = (0..lens.len() as u8).collect();
    let mut tally = Tally::default();
    for _ in 0..10 {
        egress.deliver(&mut burst, &picks, &mut tally).unwrap();
    }
    assert_eq!((tally.frames, tally.dropped()), (460, 0));
    drop(egress);
    let found = read_back(&std::fs::read(&path).unwrap());
    assert_eq!(found.interfaces[0].0, "up0");
    let expected: Vec<_> = lens.iter().cycle().take(460).map(|len| bytes_of(*len)).collect();
    assert!(found.packets.iter().map(|p| &p.bytes).eq(&expected));
    assert!(found.packets.iter().all(|p| p.flags == 2));
}

#[test]
fn a_full_disk_is_a_fault_with_the_reason() {
    let mut egress = RecordEgress::create("/dev/full".as_ref(), "up0").unwrap();
    let mut burst = burst_of(&[100]);
    let mut tally = Tally::default();
    let mut delivered = 0;
    let fault = loop {
        match egress.deliver(&mut burst, &[0], &mut tally) {
            Ok(()) => delivered += 1,
            Err(fault) => break fault,
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(fault.0.contains("/dev/full") && fault.0.contains("space"), "{fault}");
    assert_eq!(tally.frames + tally.dropped(), delivered + 1);
}
