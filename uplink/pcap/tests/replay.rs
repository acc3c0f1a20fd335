//! Reading and replaying files, written by an implementation that is not ours or by hand.
#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use fabnic_pcap::{
    Format, LoadError, MAX_PACKET, Pace, PcapConfig, PcapError, PcapPort, ReadError, Reader, Recording,
    ReplayIngress,
};
use fabnic_port::{Burst, DropReason, Ingress, LinkState, Port, PortId, PortKind};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
use pcap_file::{DataLink, Endianness, TsResolution};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

type Owned = (u64, u32, Vec<u8>);

fn read_all(bytes: &[u8]) -> Result<Vec<Owned>, ReadError> {
    let mut reader = Reader::new(bytes)?;
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet()? {
        packets.push((packet.time, packet.original_len, packet.bytes.to_vec()));
    }
    Ok(packets)
}

fn pcap(packets: &[Owned], endianness: Endianness, nanoseconds: bool) -> Vec<u8> {
    let ts_resolution = if nanoseconds { TsResolution::NanoSecond } else { TsResolution::MicroSecond };
    let header = PcapHeader { endianness, ts_resolution, snaplen: MAX_PACKET, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for (time, original_len, bytes) in packets {
        let packet = PcapPacket::new(Duration::from_nanos(*time), *original_len, bytes);
        writer.write_packet(&packet).unwrap();
    }
    writer.into_writer()
}

fn pcapng(packets: &[Owned], endianness: Endianness) -> Vec<u8> {
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), endianness).unwrap();
    let options = vec![
        InterfaceDescriptionOption::IfName(Cow::Borrowed("eth0")),
        InterfaceDescriptionOption::IfTsResol(9),
    ];
    let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
    interface.options = options;
    writer.write_pcapng_block(interface).unwrap();
    for (time, original_len, bytes) in packets {
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(*time),
            original_len: *original_len,
            data: Cow::Borrowed(bytes),
            options: vec![EnhancedPacketOption::Comment(Cow::Borrowed("a comment"))],
        };
        writer.write_pcapng_block(packet).unwrap();
    }
    writer.into_inner()
}

fn packets() -> impl Strategy<Value = Vec<Owned>> {
    let packet =
        (0_u64..4_000_000_000_000_000_000, prop::collection::vec(any::<u8>(), 0..200), 0_u32..70_000);
    prop::collection::vec(
        packet.prop_map(|(time, bytes, more)| (time, bytes.len() as u32 + more, bytes)),
        0..20,
    )
}

proptest! {
    #[test]
    fn what_another_writer_wrote_is_read(packets in packets(), big in any::<bool>(), nanos in any::<bool>()) {
        let endianness = if big { Endianness::Big } else { Endianness::Little };
        let unit = if nanos { 1 } else { 1000 };
        let expected: Vec<Owned> = packets.iter().map(|p| (p.0 / unit * unit, p.1, p.2.clone())).collect();
        prop_assert_eq!(read_all(&pcap(&packets, endianness, nanos)).unwrap(), expected);
    }

    #[test]
    fn what_another_writer_wrote_as_pcapng_is_read(packets in packets(), big in any::<bool>()) {
        let endianness = if big { Endianness::Big } else { Endianness::Little };
        prop_assert_eq!(read_all(&pcapng(&packets, endianness)).unwrap(), packets);
    }

    #[test]
    fn damaged_files_end_in_an_error_or_in_packets(
        packets in packets(), ng in any::<bool>(), big in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let endianness = if big { Endianness::Big } else { Endianness::Little };
        let mut bytes = if ng { pcapng(&packets, endianness) } else { pcap(&packets, endianness, true) };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(found) = read_all(&bytes) {
            let total: usize = found.iter().map(|p| p.2.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }

    #[test]
    fn random_bytes_are_no_file(head in 0_usize..6, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let magics: [&[u8]; 6] = [
            b"", b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00", b"\xa1\xb2\x3c\x4d\x00\x02\x00\x04",
            b"\x0a\x0d\x0d\x0a\x1c\x00\x00\x00\x4d\x3c\x2b\x1a\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x1c\x00\x00\x00",
            b"\x0a\x0d\x0d\x0a\x00\x00\x00\x1c\x1a\x2b\x3c\x4d\x00\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x1c",
            b"\x0a\x0d\x0d\x0a",
        ];
        let mut all = magics[head].to_vec();
        all.extend(bytes);
        let _ = read_all(&all);
    }
}

/// A pcapng block, little-endian.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() + 12) as u32;
    [&kind.to_le_bytes()[..], &len.to_le_bytes(), body, &len.to_le_bytes()].concat()
}

fn section() -> Vec<u8> {
    let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    body.extend([1, 0, 0, 0]);
    body.extend([0xff; 8]);
    block(0x0a0d_0d0a, &body)
}

fn interface(link_type: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
    block(1, &[&link_type.to_le_bytes()[..], &[0, 0], &snaplen.to_le_bytes(), options].concat())
}

fn enhanced(interface: u32, time: u64, captured: u32, bytes: &[u8]) -> Vec<u8> {
    let high = ((time >> 32) as u32).to_le_bytes();
    let low = (time as u32).to_le_bytes();
    let len = captured.to_le_bytes();
    block(6, &[&interface.to_le_bytes()[..], &high, &low, &len, &len, bytes].concat())
}

#[test]
fn times_are_converted_as_the_interface_says() {
    let cases: [(&[u8], u64, u64); 7] = [
        (&[], 1_500_000, 1_500_000_000),
        (&[9, 0, 1, 0, 9, 0, 0, 0], 77, 77),
        (&[9, 0, 1, 0, 3, 0, 0, 0], 1500, 1_500_000_000),
        (&[9, 0, 1, 0, 12, 0, 0, 0], 5_000_000, 5000),
        (&[9, 0, 1, 0, 0x80 | 10, 0, 0, 0], 1536, 1_500_000_000),
        (&[9, 0, 1, 0, 0, 0, 0, 0], 3, 3_000_000_000),
        (&[14, 0, 8, 0, 2, 0, 0, 0, 0, 0, 0, 0], 1, 2_000_001_000),
    ];
    for (options, time, expected) in cases {
        let file = [section(), interface(1, 0, options), enhanced(0, time, 4, b"abcd")].concat();
        assert_eq!(read_all(&file).unwrap(), [(expected, 4, b"abcd".to_vec())], "{options:?}");
    }
}

#[test]
fn old_and_simple_blocks_are_read_and_unknown_ones_skipped() {
    let old = block(
        2,
        &[&[1, 0, 9, 9][..], &[0; 4], &[5, 0, 0, 0], &[3, 0, 0, 0], &[8, 0, 0, 0], b"old "].concat(),
    );
    let simple = block(3, &[&[9, 0, 0, 0][..], b"simp"].concat());
    let unknown = block(0x0bad, &[7; 1 << 20]);
    let file = [
        section(),
        interface(1, 4, &[]),
        interface(1, 0, &[]),
        unknown,
        old,
        simple,
        section(),
        interface(1, 0, &[]),
    ]
    .concat();
    let found = read_all(&file).unwrap();
    assert_eq!(found, [(5000, 8, b"old".to_vec()), (0, 9, b"simp".to_vec())]);
}

#[test]
fn other_simple_packets_of_another_writer_are_read() {
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)).unwrap();
    writer.write_pcapng_block(SimplePacketBlock { original_len: 5, data: Cow::Borrowed(b"hello") }).unwrap();
    assert_eq!(read_all(&writer.into_inner()).unwrap(), [(0, 5, b"hello".to_vec())]);
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let head = [section(), interface(1, 0, &[])].concat();
    let after = |more: Vec<u8>| [head.clone(), more].concat();
    let mut trailer = enhanced(0, 0, 4, b"abcd");
    *trailer.last_mut().unwrap() = 1;
    let mut long = pcap(&[(0, 4, b"abcd".to_vec())], Endianness::Little, false);
    long[32..36].copy_from_slice(&(MAX_PACKET + 1).to_le_bytes());
    let mut version = pcap(&[], Endianness::Big, false);
    version[7] = 3;
    let mut link = pcap(&[], Endianness::Little, false);
    link[20] = 113;
    let mut order = section();
    order[8] = 0;
    let cases: [(Vec<u8>, &str); 14] = [
        (b"hello world".to_vec(), "at byte 0: the file begins with 0x6c6c6568, expected pcap"),
        (Vec::new(), "at byte 0: the file ends within its magic number"),
        (version, "at byte 4: version 2.3, expected 2.4"),
        (link, "at byte 20: link type 113, expected 1 (Ethernet)"),
        (long, "at byte 32: a packet of 262145 bytes, expected 262144 at most"),
        (order, "at byte 8: byte-order magic 0x1a2b3c00"),
        ([section(), interface(113, 0, &[])].concat(), "at byte 36: link type 113"),
        (after(enhanced(1, 0, 0, &[])), "at byte 56: a packet of interface 1, the section has 1"),
        (
            after(enhanced(0, 0, 5, b"abcd")),
            "at byte 68: a packet of 5 bytes, expected 262144 at most, within",
        ),
        (after(trailer), "at byte 48: a block of 36 bytes says"),
        (after(vec![6, 0, 0, 0, 13, 0, 0, 0]), "at byte 52: a block of 13 bytes, expected a multiple of 4"),
        (after(vec![6, 0, 0, 0, 0, 0, 0, 0x10]), "at byte 52: a block of 268435456 bytes"),
        (after(vec![6, 0]), "at byte 48: the file ends within a block's type"),
        (
            [section(), interface(1, 0, &[9, 0, 1, 0, 77, 0, 0, 0])].concat(),
            "at byte 28: times in units of 10^-77 s",
        ),
    ];
    for (bytes, expected) in cases {
        let error = read_all(&bytes).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{error:?} does not begin with {expected:?}");
    }
}

#[test]
fn the_format_is_told() {
    assert_eq!(Reader::new(&section()[..]).unwrap().format(), Format::Pcapng);
    assert_eq!(Reader::new(&pcap(&[], Endianness::Big, true)[..]).unwrap().format(), Format::Pcap);
}

/// A file in a directory that goes with the value.
fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

/// Frames of 14, 15, 16, ... bytes, `gap` nanoseconds apart.
fn frames(count: usize, gap: u64) -> Vec<Owned> {
    (0..count).map(|i| (1_000_000_000 + i as u64 * gap, 14 + i as u32, vec![i as u8; 14 + i])).collect()
}

fn replay(packets: &[Owned], pace: Pace, repeat: bool) -> ReplayIngress {
    let (_directory, path) = file(&pcapng(packets, Endianness::Little));
    ReplayIngress::new(Recording::load(&path).unwrap(), pace, repeat).unwrap()
}

fn take(ingress: &mut ReplayIngress, burst: &mut Burst) -> Vec<Vec<u8>> {
    ingress.receive(burst).unwrap();
    let frames = (0..burst.len())
        .map(|index| {
            let mut bytes = vec![0; burst.frames()[index].len() as usize];
            assert_eq!(burst.copy_out(index, &mut bytes), bytes.len());
            bytes
        })
        .collect();
    ingress.complete(burst);
    frames
}

#[test]
fn a_file_is_replayed_once_in_order() {
    let expected = frames(150, 1000);
    let mut ingress = replay(&expected, Pace::Fastest, false);
    let mut burst = Burst::new();
    let mut got = Vec::new();
    for full in [64, 64, 22] {
        assert_eq!(ingress.backlog(), if full == 64 { 64 } else { 1 });
        assert!(ingress.arm());
        let some = take(&mut ingress, &mut burst);
        assert_eq!(some.len(), full);
        got.extend(some);
    }
    assert!(got.iter().eq(expected.iter().map(|p| &p.2)));
    assert!(ingress.is_over());
    assert_eq!(ingress.backlog(), 0);
    assert!(take(&mut ingress, &mut burst).is_empty());
    assert!(!ingress.arm(), "nothing to wait for");
}

#[test]
fn a_file_is_replayed_again_and_again() {
    let expected = frames(5, 1000);
    let mut ingress = replay(&expected, Pace::Rate(0), true);
    let mut burst = Burst::new();
    let got: Vec<_> = (0..3).flat_map(|_| take(&mut ingress, &mut burst)).collect();
    assert_eq!(got.len(), 3 * 64);
    assert!(got.iter().eq(expected.iter().map(|p| &p.2).cycle().take(192)));
}

/// Waits by the timer for each frame, and gives how many came before they were due.
fn paced(mut ingress: ReplayIngress, count: usize, due: impl Fn(usize) -> Duration) {
    let started = std::time::Instant::now();
    let (mut burst, mut got) = (Burst::new(), 0);
    while got < count {
        while ingress.arm() {
            // Counted from before the replay began: never early, late as the machine likes.
            let some = take(&mut ingress, &mut burst).len();
            assert!(some > 0, "armed, and nothing there");
            got += some;
            assert!(started.elapsed() >= due(got - 1), "frame {got} came early");
        }
        if got < count {
            let mut fds = [PollFd::from_borrowed_fd(ingress.wake().unwrap(), PollFlags::IN)];
            let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
            assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "the timer did not come");
        }
    }
    assert!(got == count && !ingress.arm());
}

#[test]
fn frames_come_at_their_rate() {
    paced(replay(&frames(40, 0), Pace::Rate(2000), false), 40, |i| Duration::from_micros(500 * i as u64));
}

#[test]
fn frames_come_at_their_times_even_if_those_go_backwards() {
    let mut packets = frames(10, 3_000_000);
    packets.swap(3, 7);
    paced(replay(&packets, Pace::Recorded, false), 10, |i| match i {
        ..3 => Duration::from_millis(3 * i as u64),
        3..8 => Duration::from_millis(21),
        _ => Duration::from_millis(3 * i as u64),
    });
}

#[test]
fn a_file_without_times_is_replayed_at_once() {
    let simple = |bytes: &[u8; 16]| block(3, &[&[16, 0, 0, 0][..], bytes].concat());
    let (_directory, path) =
        file(&[section(), interface(1, 0, &[]), simple(&[1; 16]), simple(&[2; 16])].concat());
    let mut ingress = ReplayIngress::new(Recording::load(&path).unwrap(), Pace::Recorded, false).unwrap();
    assert_eq!(take(&mut ingress, &mut Burst::new()), [[1; 16], [2; 16]]);
}

#[test]
fn frames_that_are_none_are_marked() {
    let packets = [(0, 0, vec![]), (0, 13, vec![0; 13]), (0, 14, vec![0; 14]), (0, 70_000, vec![0; 70_000])];
    let mut ingress = replay(&packets, Pace::Fastest, false);
    let mut burst = Burst::new();
    ingress.receive(&mut burst).unwrap();
    let marks: Vec<_> = burst.frames().iter().map(|frame| frame.marked()).collect();
    assert_eq!(marks, [Some(DropReason::Runt), Some(DropReason::Runt), None, Some(DropReason::Oversize)]);
}

#[test]
fn files_that_cannot_be_replayed_are_refused_by_name() {
    let (_directory, empty) = file(&section());
    let error = Recording::load(&empty).unwrap_err();
    assert!(matches!(error, LoadError::Empty { .. }), "{error}");
    let error = Recording::load("/dev/null".as_ref()).unwrap_err();
    assert!(matches!(error, LoadError::File { .. }), "{error}");
    let error = Recording::load("/nowhere/file".as_ref()).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/file: "), "{error}");
    let (_directory, broken) = file(b"hello world");
    let error = Recording::load(&broken).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "{error}");
}

#[test]
fn a_port_of_files_has_the_queues_that_were_asked_for() {
    let (directory, path) = file(&pcapng(&frames(3, 0), Endianness::Little));
    let recording = directory.path().join("out.pcapng");
    let port = Port::new(PortId(1), "files", PortKind::Pcap, 1);
    let config =
        PcapConfig { replay: Some(path), pace: Pace::Fastest, repeat: false, capture: Some(recording) };
    PcapPort::open(&config, "files").unwrap().attach(&port);
    assert_eq!(port.link(), LinkState::Up);
    assert!(port.ingress()[0].is_installed());

    let only_in = Port::new(PortId(2), "in", PortKind::Pcap, 1);
    PcapPort::open(&PcapConfig { capture: None, ..config.clone() }, "in").unwrap().attach(&only_in);
    assert_eq!(only_in.link(), LinkState::Down);

    let nowhere = PcapConfig { capture: Some("/nowhere/file".into()), ..config };
    let error = PcapPort::open(&nowhere, "files").unwrap_err();
    assert!(matches!(error, PcapError::Create { .. }), "{error}");
}
