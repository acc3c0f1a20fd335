//! The reactor over real sockets: the `vhost` crate's front end as an independent peer, and peers that misbehave.
//!
//! Waiting is always for something to happen, never for a time to pass.

#![allow(clippy::unwrap_used)] // A test may end there, also outside of its #[test] function.

mod fake;

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fabnic_vhost_user::{Endpoint, EndpointError, Handle, Reactor, RingFormat, Role, Status};
use fake::{DEFECT, Fake, LOG_ALL, OFFERED, PACKED, PROTOCOL_FEATURES};
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

const LEN: u64 = 0x1_0000;
const USER: u64 = 0x7f00_0000_0000;

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < patience, "still not: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Bench {
    dir: tempfile::TempDir,
    reactor: Reactor,
}

impl Bench {
    fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap(), reactor: Reactor::spawn().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn serve(&self, name: &str) -> (Fake, Handle) {
        self.add(name, Role::Server).unwrap()
    }

    fn add(&self, name: &str, role: Role) -> Result<(Fake, Handle), EndpointError> {
        let device = Fake::new(4);
        let endpoint = Endpoint { socket: self.path(name), role };
        let handle = self.reactor.add(endpoint, Box::new(device.clone()))?;
        Ok((device, handle))
    }
}

fn gone(handle: &Handle) -> Status {
    until("the session's end", || Some(handle.status()).filter(|s| !s.connected && s.last_reason.is_some()))
}

fn header(code: u32, flags: u32, size: u32) -> Vec<u8> {
    [code, flags | 1, size].map(u32::to_ne_bytes).concat()
}

/// Asks for the features: proof that the session is served.
fn is_served(mut stream: &UnixStream) {
    stream.write_all(&header(1, 0, 0)).unwrap();
    let mut reply = [0; 20];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], 1_u32.to_ne_bytes());
}

fn memory() -> OwnedFd {
    let file = rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, LEN).unwrap();
    file
}

fn region(guest: u64, file: &OwnedFd) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: guest,
        memory_size: LEN,
        userspace_addr: USER + guest,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

/// What a virtual machine monitor does, with the `vhost` crate's front end, to a ring of 64.
fn drive(front: &mut Frontend, features: u64) -> (EventFd, EventFd) {
    front.set_owner().unwrap();
    assert_eq!(front.get_features().unwrap(), OFFERED | LOG_ALL | PROTOCOL_FEATURES);
    front.set_features(features | PROTOCOL_FEATURES).unwrap();
    let offered = front.get_protocol_features().unwrap();
    front.set_protocol_features(offered).unwrap();
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(front.get_queue_num().unwrap(), 4);
    assert_eq!(front.get_max_mem_slots().unwrap(), 509);
    let ram = memory();
    front.set_mem_table(&[region(0, &ram)]).unwrap();
    front.set_vring_num(0, 64).unwrap();
    let addresses = VringConfigData {
        queue_max_size: 64,
        queue_size: 64,
        flags: 0,
        desc_table_addr: USER,
        used_ring_addr: USER + 0x1000,
        avail_ring_addr: USER + 0x2000,
        log_addr: None,
    };
    front.set_vring_addr(0, &addresses).unwrap();
    front.set_vring_base(0, 0).unwrap();
    let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    front.set_vring_call(0, &call).unwrap();
    front.set_vring_kick(0, &kick).unwrap();
    front.set_vring_enable(0, true).unwrap();
    (kick, call)
}

#[test]
fn an_independent_front_end_is_served() {
    let bench = Bench::new();
    let (device, handle) = bench.serve("a.sock");
    let mut front = Frontend::connect(bench.path("a.sock"), 4).unwrap();
    let _events = drive(&mut front, OFFERED & !PACKED);
    let status = handle.status();
    assert!(status.connected);
    assert_eq!(status.peer_pid, Some(rustix::process::getpid().as_raw_nonzero().get()));
    assert_eq!(status.memory_bytes, LEN);
    assert_eq!(status.rings.len(), 1);
    let ring = &status.rings[0];
    assert_eq!((ring.size, ring.format, ring.running, ring.enabled), (64, RingFormat::Split, true, true));
    assert!(status.features.contains(&"PROTOCOL_FEATURES".to_owned()));
    assert!(status.protocol_features.contains(&"REPLY_ACK".to_owned()));

    let more = memory();
    front.add_mem_region(&region(LEN, &more)).unwrap();
    assert_eq!(handle.status().memory_regions, 2);
    front.remove_mem_region(&region(LEN, &more)).unwrap();
    let log = memory();
    let area = VhostUserDirtyLogRegion { mmap_size: 4096, mmap_offset: 0, mmap_handle: log.as_raw_fd() };
    front.set_log_base(0, Some(area)).unwrap();
    front.set_features(OFFERED & !PACKED | PROTOCOL_FEATURES | LOG_ALL).unwrap();
    assert!(handle.status().logging && device.told().rings[&0].logs_to.is_some());
    device.told().config[6] = 1;
    let (_, data) = front.get_config(6, 2, VhostUserConfigFlags::empty(), &[0; 2]).unwrap();
    assert_eq!(data, [1, 0]);
    front.set_config(20, VhostUserConfigFlags::WRITABLE, &[7; 4]).unwrap();
    assert!(front.set_config(0, VhostUserConfigFlags::WRITABLE, &[7; 4]).is_err(), "refused, and said so");
    let numbers = VhostUserInflight::new(0, 0, 2, 64);
    let (area, file) = front.get_inflight_fd(&numbers).unwrap();
    front.set_inflight_fd(&area, file.as_raw_fd()).unwrap();
    device.told().progress = 3;
    assert_eq!(front.get_vring_base(0).unwrap(), 3);
    front.reset_device().unwrap();
    drop(front);
    assert_eq!(gone(&handle).last_reason.as_deref(), Some("the front end hung up"));
    assert_eq!(device.told().disconnected, ["the front end hung up"]);
}

#[test]
fn a_session_follows_another_with_other_features() {
    let bench = Bench::new();
    let (device, handle) = bench.serve("a.sock");
    for (n, features) in [OFFERED & !PACKED, OFFERED & PACKED, 0].into_iter().enumerate() {
        let mut front = Frontend::connect(bench.path("a.sock"), 4).unwrap();
        let _events = drive(&mut front, features);
        assert_eq!(device.told().rings[&0].features, features);
        drop(front);
        until("the session's end", || (device.told().disconnected.len() == n + 1).then_some(()));
        assert!(device.told().rings.is_empty());
    }
    assert_eq!(handle.status().sessions, 3);
}

/// What QEMU does with a packed ring after its back end is gone: it says the base that it knew, and the ring's memory is
/// what it was.
fn drive_packed(front: &mut Frontend, ram: &OwnedFd, base: u16) {
    front.set_owner().unwrap();
    front.get_features().unwrap();
    front.set_features(OFFERED).unwrap();
    front.set_mem_table(&[region(0, ram)]).unwrap();
    front.set_vring_num(0, 64).unwrap();
    let addresses = VringConfigData {
        queue_max_size: 64,
        queue_size: 64,
        flags: 0,
        desc_table_addr: USER,
        used_ring_addr: USER + 0x1000,
        avail_ring_addr: USER + 0x2000,
        log_addr: None,
    };
    front.set_vring_addr(0, &addresses).unwrap();
    front.set_vring_base(0, base).unwrap();
    front.set_vring_kick(0, &EventFd::new(0).unwrap()).unwrap();
}

#[test]
fn packed_rings_go_on_where_they_were_whoever_died() {
    const FIRST: u16 = 0x8000;
    let bench = Bench::new();
    let ram = memory();
    let kept = bench.path("kept");
    std::fs::create_dir(&kept).unwrap();
    bench.reactor.keep_positions_in(kept.clone());
    let (device, handle) = bench.serve("a.sock");
    let started_at =
        |device: &Fake| until("the ring's start", || device.told().rings.get(&0).map(|ring| ring.base));
    let connect = |base| {
        let mut front = Frontend::connect(bench.path("a.sock"), 4).unwrap();
        drive_packed(&mut front, &ram, base);
        front
    };
    let work = |device: &Fake, position| {
        // What the data path does: it says when it wants kicks, and notes where it is.
        rustix::io::pwrite(&ram, &(1_u32 << 16).to_le_bytes(), 0x1000).unwrap();
        device.told().rings[&0].journal.as_ref().unwrap().begin(position);
    };

    let front = connect(FIRST);
    assert_eq!(started_at(&device), 0x8000_8000);
    work(&device, 0x8005);
    drop(front);
    gone(&handle);
    let front = connect(FIRST);
    assert_eq!(started_at(&device), 0x8005_8005, "the connection was lost");
    work(&device, 0x0003);
    drop((front, handle));

    // Another daemon.
    let reactor = Reactor::spawn().unwrap();
    reactor.keep_positions_in(kept);
    let device = Fake::new(4);
    let endpoint = Endpoint { socket: bench.path("a.sock"), role: Role::Server };
    let handle = reactor.add(endpoint, Box::new(device.clone())).unwrap();
    let front = connect(FIRST);
    assert_eq!(started_at(&device), 0x0003_0003);

    // Asked for its position, the ring is the front end's again.
    assert_eq!(front.get_vring_base(0).unwrap(), 0x0003_0003);
    drop(front);
    gone(&handle);
    let front = connect(FIRST);
    assert_eq!(started_at(&device), 0x8000_8000);
    work(&device, 0x8009);
    drop(front);
    until("the second session's end", || (device.told().disconnected.len() == 2).then_some(()));

    // The guest rebooted meanwhile: its ring is blank.
    rustix::io::pwrite(&ram, &[0; 0x3000], 0).unwrap();
    let _front = connect(FIRST);
    assert_eq!(started_at(&device), 0x8000_8000);
}

#[test]
fn a_second_front_end_is_turned_away_while_the_first_lives() {
    let bench = Bench::new();
    let (_device, handle) = bench.serve("a.sock");
    let first = UnixStream::connect(bench.path("a.sock")).unwrap();
    is_served(&first);
    let mut second = UnixStream::connect(bench.path("a.sock")).unwrap();
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "closed");
    is_served(&first);
    // The first one dies and another one knocks at once: whatever is noticed first, it is let in.
    drop(first);
    let third = UnixStream::connect(bench.path("a.sock")).unwrap();
    is_served(&third);
    assert_eq!(handle.status().sessions, 2);
}

#[test]
fn half_a_message_holds_up_nobody() {
    let bench = Bench::new();
    let (_first, slow) = bench.serve("slow.sock");
    let (_second, _quick) = bench.serve("quick.sock");
    let mut half = UnixStream::connect(bench.path("slow.sock")).unwrap();
    half.write_all(&header(2, 0, 8)).unwrap();
    half.write_all(&[0; 5]).unwrap();
    is_served(&UnixStream::connect(bench.path("quick.sock")).unwrap());
    // Byte by byte is fine.
    half.write_all(&[0; 3]).unwrap();
    for byte in header(1, 0, 0) {
        half.write_all(&[byte]).unwrap();
    }
    half.read_exact(&mut [0; 20]).unwrap();
    half.write_all(&header(2, 0, 8)[..7]).unwrap();
    drop(half);
    let reason = gone(&slow).last_reason.unwrap();
    assert_eq!(reason, "the front end hung up after 7 of 12 bytes of a message");
}

#[test]
fn a_front_end_that_does_not_read_stalls_itself_only() {
    let bench = Bench::new();
    let (_first, deaf) = bench.serve("deaf.sock");
    let (_second, _other) = bench.serve("other.sock");
    let mut stream = UnixStream::connect(bench.path("deaf.sock")).unwrap();
    stream.set_nonblocking(true).unwrap();
    let questions = header(1, 0, 0).repeat(100);
    // Until the socket takes no more questions: then the session has stopped reading.
    let mut full = 0;
    until("both directions are full", || {
        full = if stream.write(&questions).is_ok() { 0 } else { full + 1 };
        (full > 50).then_some(())
    });
    is_served(&UnixStream::connect(bench.path("other.sock")).unwrap());
    // It reads again: the session goes on.
    let mut bytes = 0;
    let mut answers = [0; 4096];
    until("answers to all questions", || {
        while let Ok(more) = stream.read(&mut answers) {
            assert_ne!(more, 0);
            bytes += more;
        }
        let idle = deaf.status().connected;
        (idle && bytes > 20_000).then_some(())
    });
}

fn send_with_fds(stream: &UnixStream, bytes: &[u8], count: usize) {
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let fds = vec![event.as_fd(); count];
    let mut space = vec![core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(stream, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// Descriptors of this process that lead to an eventfd, beside those of the reactor and of the test.
fn eventfds() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("eventfd")))
        .count()
}

#[test]
fn garbage_and_floods_end_their_session_with_a_reason_and_leave_nothing_open() {
    let bench = Bench::new();
    let (_device, handle) = bench.serve("bad.sock");
    let (_other, _good) = bench.serve("good.sock");
    let good = UnixStream::connect(bench.path("good.sock")).unwrap();
    is_served(&good);
    let before = eventfds();
    type Case = (fn(&mut UnixStream), &'static str);
    let cases: [Case; 7] = [
        (|s| s.write_all(&[0xff; 12]).unwrap(), "request 4294967295 is not known, expected 1 to 44"),
        (|s| s.write_all(&header(1, 2, 0)).unwrap(), "GET_FEATURES: flags 0x3"),
        (
            |s| s.write_all(&header(5, 0, 4097)).unwrap(),
            "a payload of 4097 bytes was announced, at most 4096",
        ),
        (|s| send_with_fds(s, &header(3, 0, 0), 33), "more than 32 file descriptors"),
        (|s| send_with_fds(s, &header(3, 0, 0), 253), "more than 32 file descriptors"),
        // A flood in small pieces: each byte of a message with thirty of them.
        (|s| header(3, 0, 0).iter().take(2).for_each(|b| send_with_fds(s, &[*b], 30)), "more than 32"),
        (|s| send_with_fds(s, &header(3, 0, 0), 32), "SET_OWNER: 32 file descriptors, expected none"),
    ];
    for (n, (mischief, expected)) in cases.into_iter().enumerate() {
        let mut stream = UnixStream::connect(bench.path("bad.sock")).unwrap();
        mischief(&mut stream);
        let reason = until("its end", || {
            let status = handle.status();
            (status.sessions == n as u64 + 1 && !status.connected).then_some(status.last_reason?)
        });
        assert!(reason.contains(expected), "{reason}");
        is_served(&good);
    }
    assert_eq!(eventfds(), before);
}

#[test]
fn a_defect_costs_one_session() {
    let bench = Bench::new();
    let (device, handle) = bench.serve("bad.sock");
    let (_other, _good) = bench.serve("good.sock");
    let good = UnixStream::connect(bench.path("good.sock")).unwrap();
    is_served(&good);
    let mut stream = UnixStream::connect(bench.path("bad.sock")).unwrap();
    let mut front = Frontend::from_stream(stream.try_clone().unwrap(), 4);
    let _events = drive(&mut front, OFFERED & !PACKED);
    stream.write_all(&[header(20, 0, 8), DEFECT.to_ne_bytes().to_vec()].concat()).unwrap();
    assert!(gone(&handle).last_reason.unwrap().contains("a defect of this program"));
    assert!(device.told().rings.is_empty());
    is_served(&good);
    is_served(&UnixStream::connect(bench.path("bad.sock")).unwrap());
}

#[test]
fn sockets_are_taken_over_from_the_dead_only() {
    let bench = Bench::new();
    // A daemon that was killed leaves its name behind.
    drop(UnixListener::bind(bench.path("a.sock")).unwrap());
    let (_device, handle) = bench.serve("a.sock");
    is_served(&UnixStream::connect(bench.path("a.sock")).unwrap());
    assert!(matches!(bench.add("a.sock", Role::Server), Err(EndpointError::InUse { .. })));
    std::fs::write(bench.path("file"), "precious").unwrap();
    assert!(matches!(bench.add("file", Role::Server), Err(EndpointError::NotASocket { .. })));
    let missing = bench.add("no/such/dir.sock", Role::Server).unwrap_err();
    assert!(missing.to_string().contains("no/such/dir.sock: binding"), "{missing}");
    let long = bench.add(&"x".repeat(120), Role::Client).unwrap_err();
    assert!(long.to_string().contains("at most 107 bytes"), "{long}");
    // Removed, its name goes; but not when it is somebody else's by then.
    drop(handle);
    assert!(!bench.path("a.sock").exists());
    let (_device, handle) = bench.serve("a.sock");
    std::fs::remove_file(bench.path("a.sock")).unwrap();
    let other = UnixListener::bind(bench.path("a.sock")).unwrap();
    drop(handle);
    assert!(bench.path("a.sock").exists());
    drop(other);
}

#[test]
fn removal_ends_the_session_before_it_returns() {
    let bench = Bench::new();
    let (device, handle) = bench.serve("a.sock");
    let mut front = Frontend::connect(bench.path("a.sock"), 4).unwrap();
    let _events = drive(&mut front, OFFERED & !PACKED);
    drop(handle);
    assert!(device.told().rings.is_empty());
    assert_eq!(device.told().disconnected, ["the port was removed"]);
    // The name is free at once.
    let (device, _handle) = bench.serve("a.sock");
    let mut front = Frontend::connect(bench.path("a.sock"), 4).unwrap();
    let _events = drive(&mut front, OFFERED & !PACKED);
    drop(bench);
    assert!(device.told().rings.is_empty(), "the reactor's end is the sessions' end");
}

fn accept(listener: &UnixListener) -> UnixStream {
    listener.accept().unwrap().0
}

#[test]
fn a_client_connects_when_the_front_end_appears_and_again() {
    let bench = Bench::new();
    let (_device, handle) = bench.add("a.sock", Role::Client).unwrap();
    until("a first attempt", || handle.status().last_reason);
    for _ in 0..5 {
        let listener = UnixListener::bind(bench.path("a.sock")).unwrap();
        let stream = accept(&listener);
        is_served(&stream);
        // Dies with its socket, as a killed process does; the name stays.
        drop((stream, listener));
        gone(&handle);
        std::fs::remove_file(bench.path("a.sock")).unwrap();
    }
    // A front end that only drops the connection is connected to again.
    let listener = UnixListener::bind(bench.path("a.sock")).unwrap();
    for _ in 0..5 {
        is_served(&accept(&listener));
    }
    assert!(handle.status().sessions >= 10);
}

#[test]
fn a_client_waits_for_its_directory_and_for_renamed_sockets() {
    let bench = Bench::new();
    let (_device, _handle) = bench.add("later/a.sock", Role::Client).unwrap();
    std::fs::create_dir(bench.path("later")).unwrap();
    let listener = UnixListener::bind(bench.path("later/a.sock")).unwrap();
    is_served(&accept(&listener));
    drop(listener);
    std::fs::remove_dir_all(bench.path("later")).unwrap();
    std::fs::create_dir(bench.path("later")).unwrap();
    let listener = UnixListener::bind(bench.path("later/tmp")).unwrap();
    std::fs::rename(bench.path("later/tmp"), bench.path("later/a.sock")).unwrap();
    is_served(&accept(&listener));
}

#[test]
fn a_client_tries_again_until_a_bound_socket_listens() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let bench = Bench::new();
    let (_device, handle) = bench.add("a.sock", Role::Client).unwrap();
    let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&bound, &SocketAddrUnix::new(bench.path("a.sock")).unwrap()).unwrap();
    until("an attempt that is refused", || handle.status().last_reason.filter(|why| why.contains("refused")));
    listen(&bound, 1).unwrap();
    is_served(&accept(&UnixListener::from(bound)));
}

#[test]
fn ten_thousand_end_points_are_served() {
    let bench = Bench::new();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    // Where the hard limit allows no more, fewer must do.
    let count = usize::try_from(limit.saturating_sub(200)).unwrap_or(usize::MAX).min(10_000) / 2;
    let mut handles = Vec::new();
    for n in 0..count {
        handles.push(bench.serve(&format!("s{n}")).1);
        handles.push(bench.add(&format!("c{n}"), Role::Client).unwrap().1);
    }
    is_served(&UnixStream::connect(bench.path(&format!("s{}", count - 1))).unwrap());
    let last = UnixListener::bind(bench.path(&format!("c{}", count - 1))).unwrap();
    is_served(&accept(&last));
}
