//! TAP devices against the kernel: its stack is on the other side of every frame.
#![allow(unsafe_code)] // To enter a network namespace and to ask a socket for UDP segmentation.
#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

mod namespace;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fabnic_port::{BURST, Burst, DropReason, Egress, Ingress, LinkState, Port, PortId, PortKind, Tally};
use fabnic_tap::{Tap, TapConfig, TapError, TapIngress};
use fabnic_wire::checksum::{Sum, Verification, finish, verify};
use fabnic_wire::offload::{GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM};
use fabnic_wire::{MacAddr, Offload};
use namespace::ip;

const PATIENCE: Duration = Duration::from_secs(20);
const HOST: &str = "02:00:00:00:00:01";
const PEER: &str = "02:00:00:00:00:02";

fn open(config: TapConfig) -> Tap {
    Tap::open(&config).unwrap_or_else(|error| panic!("{error}"))
}

/// `tap0` with an address, and a neighbour that needs no ARP.
fn tap_with_addresses(config: TapConfig) -> Tap {
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").unwrap();
    let tap = open(config);
    ip("addr add 10.9.0.1/24 dev tap0");
    ip(&format!("neigh add 10.9.0.2 lladdr {PEER} dev tap0"));
    ip("-6 addr add fd09::1/64 dev tap0 nodad");
    ip(&format!("-6 neigh add fd09::2 lladdr {PEER} dev tap0"));
    tap
}

fn host_config() -> TapConfig {
    TapConfig { mac: Some(HOST.parse::<MacAddr>().unwrap()), ..TapConfig::new("tap0") }
}

/// Receives until a frame for the peer comes; gives it with what was left to be done.
fn next_for_peer(ingress: &mut TapIngress, burst: &mut Burst) -> (Vec<u8>, Offload) {
    let peer = PEER.parse::<MacAddr>().unwrap().octets();
    let deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while found.is_empty() {
        assert!(Instant::now() < deadline, "nothing came");
        ingress.receive(burst).unwrap();
        for (index, frame) in burst.frames().iter().enumerate() {
            assert_eq!(frame.marked(), None);
            let mut bytes = vec![0; frame.len() as usize];
            assert_eq!(burst.copy_out(index, &mut bytes), bytes.len());
            if bytes[..6] == peer {
                found.push((bytes, frame.offload()));
            }
        }
        ingress.complete(burst);
    }
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_datagram_leaves_with_a_partial_checksum_that_finishes_well() {
    namespace::run(|| {
        let tap = tap_with_addresses(host_config());
        assert!(tap.created());
        assert!(tap.accepts().tso4);
        let (mut ingress, _egress) = tap.pair(0).unwrap();
        let mut burst = Burst::new();
        for (from, to) in [("10.9.0.1:1000", "10.9.0.2:2000"), ("[fd09::1]:1000", "[fd09::2]:2000")] {
            let socket = UdpSocket::bind(from).unwrap();
            for len in [1, 2, 77, 1000, 1400] {
                let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
                socket.send_to(&payload, to).unwrap();
                let (mut frame, offload) = next_for_peer(&mut ingress, &mut burst);
                assert_eq!(frame[frame.len() - len..], payload);
                assert!(offload.needs_csum() && !offload.is_gso(), "{offload:?}");
                assert_eq!(verify(&frame), Verification::Bad, "it is not finished yet");
                finish(&mut frame, &offload, Sum::ZERO).unwrap();
                assert_eq!(verify(&frame), Verification::Good);
            }
        }
    });
}

#[test]
fn without_offloads_checksums_are_complete() {
    namespace::run(|| {
        let tap = tap_with_addresses(TapConfig { offloads: false, ..host_config() });
        let (mut ingress, _egress) = tap.pair(0).unwrap();
        let socket = UdpSocket::bind("10.9.0.1:1000").unwrap();
        socket.send_to(&[9; 500], "10.9.0.2:2000").unwrap();
        let (frame, offload) = next_for_peer(&mut ingress, &mut Burst::new());
        assert_eq!(offload, Offload::PLAIN);
        assert_eq!(verify(&frame), Verification::Good);
    });
}

#[test]
fn several_datagrams_leave_as_one_frame() {
    namespace::run(|| {
        let tap = tap_with_addresses(host_config());
        if !tap.accepts().uso4 {
            eprintln!("SKIPPED, NOTHING WAS TESTED: this kernel has no USO on TAP devices");
            return;
        }
        let (mut ingress, _egress) = tap.pair(0).unwrap();
        let socket = UdpSocket::bind("10.9.0.1:1000").unwrap();
        let size: libc::c_int = 1000;
        // SAFETY: UDP_SEGMENT reads one int, which lives for the call.
        let set = unsafe {
            libc::setsockopt(
                std::os::fd::AsRawFd::as_raw_fd(&socket),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                std::ptr::from_ref(&size).cast(),
                4,
            )
        };
        assert_eq!(set, 0);
        socket.send_to(&[5; 9500], "10.9.0.2:2000").unwrap();
        let (frame, offload) = next_for_peer(&mut ingress, &mut Burst::new());
        assert_eq!(frame.len(), 14 + 20 + 8 + 9500);
        assert_eq!((offload.gso_type, offload.gso_size, offload.hdr_len), (GSO_UDP_L4, 1000, 42));
    });
}

/// Moves everything that waits in `from` to `to`; gives how many frames and how many of them were large.
fn forward(from: &mut dyn Ingress, to: &mut dyn Egress, burst: &mut Burst) -> (usize, usize) {
    if from.backlog() == 0 {
        return (0, 0);
    }
    from.receive(burst).unwrap();
    let picks: Vec<u8> = (0..burst.len()).map(|i| i as u8).collect();
    let large = burst.frames().iter().filter(|frame| frame.offload().gso_kind() == GSO_TCPV4).count();
    let mut tally = Tally::default();
    to.deliver(burst, &picks, &mut tally).unwrap();
    assert_eq!(tally.frames + tally.dropped(), picks.len() as u64);
    assert_eq!(tally.dropped(), 0, "{tally:?}");
    from.complete(burst);
    (picks.len(), large)
}

fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[test]
fn tcp_between_two_kernels_passes_in_large_frames() {
    tcp_between_two_kernels(true, 32 << 20);
}

#[test]
fn tcp_to_a_kernel_without_offloads_is_segmented_on_the_way() {
    tcp_between_two_kernels(false, 8 << 20);
}

/// The client's kernel gives large frames; the server's takes them, or not.
fn tcp_between_two_kernels(offloads: bool, len: usize) {
    namespace::run(move || {
        let server_tap = open(TapConfig { offloads, ..host_config() });
        ip("addr add 10.9.0.1/24 dev tap0");
        let listener = TcpListener::bind("10.9.0.1:5000").unwrap();

        let (give, take) = mpsc::channel();
        let client = std::thread::spawn(move || {
            assert!(namespace::enter());
            let tap = open(TapConfig { mac: Some(PEER.parse().unwrap()), ..TapConfig::new("tap0") });
            ip("addr add 10.9.0.2/24 dev tap0");
            give.send(tap).unwrap();
            let address = SocketAddr::from(([10, 9, 0, 1], 5000));
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
            stream.write_all(&pattern(len)).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut echo = [0; 8];
            stream.read_exact(&mut echo).unwrap();
            echo
        });
        let client_tap = take.recv().unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let forwarder = std::thread::spawn({
            let done = Arc::clone(&done);
            let (mut left_in, mut left_out) = server_tap.pair(0).unwrap();
            let (mut right_in, mut right_out) = client_tap.pair(0).unwrap();
            move || {
                let (mut burst, mut large) = (Burst::new(), 0);
                while !done.load(Ordering::Relaxed) {
                    let there = forward(&mut right_in, &mut left_out, &mut burst);
                    let back = forward(&mut left_in, &mut right_out, &mut burst);
                    large += there.1 + back.1;
                    if there.0 + back.0 == 0 {
                        std::thread::yield_now();
                    }
                }
                large
            }
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = Vec::with_capacity(len);
        stream.read_to_end(&mut got).unwrap();
        assert!(got == pattern(len), "{} bytes came, not those that were sent", got.len());
        stream.write_all(b"received").unwrap();
        assert_eq!(&client.join().unwrap(), b"received");
        done.store(true, Ordering::Relaxed);
        let large = forwarder.join().unwrap();
        assert!(large >= len / 65536, "{large} large frames for {len} bytes");
    });
}

/// An IPv4/UDP frame from the peer to the host, checksum left partial.
fn datagram(payload: &[u8]) -> (Vec<u8>, Offload) {
    let builder = etherparse::PacketBuilder::ethernet2(
        PEER.parse::<MacAddr>().unwrap().octets(),
        HOST.parse::<MacAddr>().unwrap().octets(),
    )
    .ipv4([10, 9, 0, 2], [10, 9, 0, 1], 64)
    .udp(2000, 1000);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    let pseudo = fabnic_wire::checksum::pseudo_header_v4(
        [10, 9, 0, 2],
        [10, 9, 0, 1],
        fabnic_wire::IpProtocol::UDP,
        (payload.len() + 8) as u16,
    );
    frame[40..42].copy_from_slice(&pseudo.word().to_be_bytes());
    (frame, Offload { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..Offload::PLAIN })
}

/// A burst of one frame in `pieces` pieces of memory.
fn burst_of(frame: &[u8], offload: Offload, pieces: usize) -> Burst {
    use fabnic_memory::{Hint, Map};
    let (map, _) = Map::anonymous(1 << 18).unwrap();
    let mut burst = Burst::new();
    burst.begin(&map);
    let mut hint = Hint::default();
    for (at, piece) in frame.chunks(frame.len().div_ceil(pieces)).enumerate() {
        let slice = map.translate(at as u64 * 2048, piece.len() as u32, &mut hint).unwrap();
        map.write(&slice, 0, piece);
        burst.slices_mut().push(slice);
    }
    let count = burst.slices().len();
    burst.push(0, count, 0, frame.len() as u32).unwrap().set_offload(offload);
    burst
}

#[test]
fn the_kernel_receives_what_is_delivered_however_it_lies_in_memory() {
    for offloads in [true, false] {
        namespace::run(move || {
            let tap = tap_with_addresses(TapConfig { offloads, ..host_config() });
            let (_ingress, mut egress) = tap.pair(0).unwrap();
            let socket = UdpSocket::bind("10.9.0.1:1000").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for len in [1, 80, 86, 87, 88, 500, 1472] {
                for pieces in [1, 2, 3, 17, 62, 63, 64, 65, 100] {
                    let payload: Vec<u8> = (0..len).map(|i| (i * 3 + pieces) as u8).collect();
                    let (frame, offload) = datagram(&payload);
                    let mut burst = burst_of(&frame, offload, pieces);
                    let mut tally = Tally::default();
                    egress.deliver(&mut burst, &[0], &mut tally).unwrap();
                    assert_eq!((tally.frames, tally.bytes, tally.dropped()), (1, frame.len() as u64, 0));
                    let mut got = [0; 2000];
                    let n = socket.recv(&mut got).unwrap();
                    assert_eq!(got[..n], payload, "{len} bytes in {pieces} pieces, offloads {offloads}");
                }
            }
        });
    }
}

#[test]
fn a_large_frame_is_taken_apart_by_the_kernel() {
    a_large_frame_becomes_several_datagrams(true);
}

#[test]
fn a_large_frame_is_taken_apart_for_a_kernel_without_offloads() {
    a_large_frame_becomes_several_datagrams(false);
}

fn a_large_frame_becomes_several_datagrams(offloads: bool) {
    namespace::run(move || {
        let tap = tap_with_addresses(TapConfig { offloads, ..host_config() });
        let (_ingress, mut egress) = tap.pair(0).unwrap();
        let socket = UdpSocket::bind("10.9.0.1:1000").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let payload = pattern(3500);
        let (frame, offload) = datagram(&payload);
        let offload = Offload { gso_type: GSO_UDP_L4, gso_size: 1000, hdr_len: 42, ..offload };
        let mut burst = burst_of(&frame, offload, 5);
        let mut tally = Tally::default();
        egress.deliver(&mut burst, &[0], &mut tally).unwrap();
        assert_eq!(tally.dropped(), 0, "{tally:?}");
        for part in payload.chunks(1000) {
            let mut got = [0; 4000];
            let n = socket.recv(&mut got).unwrap();
            assert_eq!(got[..n], *part);
        }
    });
}

#[test]
fn what_the_kernel_refuses_is_counted_and_the_rest_goes_on() {
    namespace::run(|| {
        let tap = tap_with_addresses(host_config());
        let (_ingress, mut egress) = tap.pair(0).unwrap();
        let socket = UdpSocket::bind("10.9.0.1:1000").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut burst = Burst::new();
        let (frame, _) = datagram(b"hello");
        burst.push_bytes(&frame[..13]).unwrap();
        let offload = Offload { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..Offload::PLAIN };
        burst.push_bytes(&frame).unwrap().set_offload(offload);
        let mut tally = Tally::default();
        egress.deliver(&mut burst, &[0, 1], &mut tally).unwrap();
        assert_eq!((tally.frames, tally.dropped_for(DropReason::Refused)), (1, 1));
        let mut got = [0; 64];
        assert_eq!(socket.recv(&mut got).unwrap(), 5);

        ip("link set tap0 down");
        egress.deliver(&mut burst, &[1, 1, 1], &mut tally).unwrap();
        assert_eq!(tally.dropped_for(DropReason::NotReady), 3);
    });
}

#[test]
fn a_device_that_goes_is_a_fault_of_both_sides() {
    namespace::run(|| {
        let tap = open(host_config());
        let (mut ingress, mut egress) = tap.pair(0).unwrap();
        let mut burst = Burst::new();
        ingress.receive(&mut burst).unwrap();
        ip("link del tap0");
        assert!(ingress.arm(), "there is something to say");
        let fault = ingress.receive(&mut burst).unwrap_err();
        assert!(fault.0.contains("tap0"), "{fault}");
        let (frame, offload) = datagram(b"hello");
        let mut tally = Tally::default();
        let mut burst = burst_of(&frame, offload, 1);
        let fault = egress.deliver(&mut burst, &[0, 0], &mut tally).unwrap_err();
        assert!(fault.0.contains("tap0"), "{fault}");
        assert_eq!(tally.dropped_for(DropReason::Stopped), 2, "counted all the same");
    });
}

#[test]
fn a_port_has_as_many_queues_as_the_device() {
    namespace::run(|| {
        let tap = tap_with_addresses(TapConfig { queues: 4, ..host_config() });
        let port = Port::new(PortId(1), "up0", PortKind::Tap, 4);
        assert_eq!(port.link(), LinkState::Down);
        tap.attach(&port).unwrap();
        assert_eq!(port.egress_in_use(), 4);
        assert_eq!(port.link(), LinkState::Up);
        // The kernel spreads flows over all queues: none may be lost.
        let sockets: Vec<_> = (0..64).map(|_| UdpSocket::bind("10.9.0.1:0").unwrap()).collect();
        for socket in &sockets {
            socket.send_to(b"hello", "10.9.0.2:2000").unwrap();
        }
        let (mut burst, mut frames, mut queues) = (Burst::new(), 0, 0);
        for cell in port.ingress() {
            let mut guard = cell.lock();
            let queue = guard.as_mut().unwrap();
            queue.receive(&mut burst).unwrap();
            let datagrams = burst.frames().iter().filter(|f| f.len() == 47).count();
            frames += datagrams;
            queues += usize::from(datagrams > 0);
        }
        assert_eq!(frames, 64);
        assert!(queues > 1, "64 flows in one queue");
        let small = Port::new(PortId(2), "up1", PortKind::Tap, 2);
        assert!(matches!(tap.attach(&small), Err(TapError::PortQueues { .. })));
        tap.detach(&port);
        assert_eq!(port.link(), LinkState::Down);
    });
}

#[test]
fn an_existing_device_is_opened_as_it_was_made() {
    namespace::run(|| {
        ip("tuntap add tap0 mode tap");
        ip("tuntap add tap1 mode tap multi_queue");
        ip("link add dummy0 type bridge");
        let one = open(TapConfig::new("tap0"));
        assert!(!one.created());
        let error = Tap::open(&TapConfig { queues: 2, ..TapConfig::new("tap1") }).map(|tap| tap.queues());
        assert_eq!(error.unwrap(), 2);
        drop(one);
        let error = Tap::open(&TapConfig { queues: 2, ..TapConfig::new("tap0") }).unwrap_err();
        assert!(error.to_string().contains("multi_queue"), "{error}");
        let error = Tap::open(&TapConfig::new("dummy0")).unwrap_err();
        assert!(error.to_string().contains("not a TAP"), "{error}");
        // Made before, so they are still there.
        ip("link del tap0");
        ip("link del tap1");
    });
}

#[test]
fn a_device_of_ours_goes_with_us_and_has_what_was_asked_for() {
    namespace::run(|| {
        let config = TapConfig { mtu: Some(9000), ..host_config() };
        let tap = open(config);
        let output = std::process::Command::new("ip").args(["link", "show", "tap0"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("mtu 9000") && text.contains(HOST) && text.contains(",UP"), "{text}");
        drop(tap);
        let output = std::process::Command::new("ip").args(["link", "show", "tap0"]).output().unwrap();
        assert!(!output.status.success());
    });
}

#[test]
fn an_idle_queue_wakes_its_watcher() {
    use rustix::event::{Timespec, epoll};
    namespace::run(|| {
        let tap = tap_with_addresses(host_config());
        let (mut ingress, _egress) = tap.pair(0).unwrap();
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(
            &watch,
            ingress.wake().unwrap(),
            epoll::EventData::new_u64(7),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )
        .unwrap();
        let mut burst = Burst::new();
        let socket = UdpSocket::bind("10.9.0.1:1000").unwrap();
        for round in 0..20 {
            while ingress.backlog() > 0 || ingress.arm() {
                ingress.receive(&mut burst).unwrap();
                ingress.complete(&burst);
            }
            // What came before is known; edges that are left over must not hide the next one.
            let mut events = Vec::with_capacity(4);
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&watch, rustix::buffer::spare_capacity(&mut events), Some(&now)).unwrap();
            socket.send_to(&[round; 9], "10.9.0.2:2000").unwrap();
            events.clear();
            let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
            let n =
                epoll::wait(&watch, rustix::buffer::spare_capacity(&mut events), Some(&patience)).unwrap();
            assert_eq!(n, 1, "no edge in round {round}");
            ingress.disarm();
            assert!(ingress.backlog() > 0);
            let (frame, _) = next_for_peer(&mut ingress, &mut burst);
            assert_eq!(frame[frame.len() - 9..], [round; 9]);
        }
        assert!(burst.len() <= BURST);
    });
}
