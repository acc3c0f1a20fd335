//! The reactor over real sockets: the `vfio_user` crate's client (Cloud Hypervisor's) as an independent peer, and peers
//! that misbehave.
//!
//! Waiting is always for something to happen, never for a time to pass.

#![allow(clippy::unwrap_used)] // A test may end there, also outside of its #[test] function.

mod toy;

use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fabnic_pci::Reset;
use fabnic_vfio_user::{Endpoint, EndpointError, Handle, Reactor, Settings, Status};
use rustix::fs::MemfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use toy::{DEFECT, Toy};
use vfio_user::Client;
use vmm_sys_util::eventfd::EventFd;

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < patience, "{what} never happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Rig {
    dir: tempfile::TempDir,
    reactor: Reactor,
}

impl Rig {
    fn new() -> Rig {
        Rig { dir: tempfile::tempdir().unwrap(), reactor: Reactor::spawn().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn add(&self, name: &str, toy: &Toy, settings: Settings) -> Handle {
        let endpoint = Endpoint { name: name.to_owned(), socket: self.path(name), settings };
        self.reactor.add(endpoint, Box::new(toy.clone())).unwrap()
    }

    fn client(&self, name: &str) -> Client {
        Client::new(&self.path(name)).unwrap()
    }

    fn raw(&self, name: &str) -> UnixStream {
        UnixStream::connect(self.path(name)).unwrap()
    }
}

fn ram(size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    file
}

fn header(command: u16, size: u32, flags: u32) -> Vec<u8> {
    let mut bytes = [[7, 0], command.to_ne_bytes()].concat();
    for word in [size, flags, 0] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes
}

const VERSION: [u8; 4] = [0; 4];

fn closed(stream: &mut UnixStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn disconnected(handle: &Handle, sessions: u64) -> Status {
    until("the end of a session", || {
        Some(handle.status()).filter(|status| !status.connected && status.sessions >= sessions)
    })
}

#[test]
fn cloud_hypervisors_client_does_everything_it_can() {
    let rig = Rig::new();
    let toy = Toy::shared();
    let handle = rig.add("toy", &toy, Settings { mmap: true });
    let mut client = rig.client("toy");
    let region = client.region(0).unwrap();
    assert_eq!((region.size, region.flags, region.sparse_areas.len()), (4096, 15, 1));
    assert!(region.file_offset.is_some());
    assert_eq!(client.region(3).unwrap().size, 16 << 10);
    assert_eq!(client.region(8).unwrap().size, 0);
    assert_eq!(client.get_irq_info(2).unwrap().count, 5);
    client.reset().unwrap();

    // The size of BAR 0, as Cloud Hypervisor finds it.
    client.region_write(7, 0x10, &u32::MAX.to_le_bytes()).unwrap();
    let mut dword = [0; 4];
    client.region_read(7, 0x10, &mut dword).unwrap();
    assert_eq!(u32::from_le_bytes(dword), 0xffff_f000);

    let memory = ram(0x10000);
    rustix::io::pwrite(&memory, &41_u32.to_ne_bytes(), 0x800).unwrap();
    client.dma_map(0, 0x4_0000, 0x10000, memory.as_raw_fd()).unwrap();
    client.region_write(7, 4, &[6, 0]).unwrap();
    client.region_write(0, 16, &0x4_0800_u64.to_le_bytes()).unwrap();
    client.region_write(0, 24, &1_u32.to_le_bytes()).unwrap();
    let mut word = [0; 4];
    rustix::io::pread(&memory, &mut word, 0x800).unwrap();
    assert_eq!(u32::from_ne_bytes(word), 42, "the device reached the client's memory");

    let events: Vec<EventFd> = (0..5).map(|_| EventFd::new(0).unwrap()).collect();
    let fds: Vec<_> = events.iter().map(AsRawFd::as_raw_fd).collect();
    client.set_irqs(2, 0x24, 0, 5, &fds).unwrap();
    client.region_write(0, 4, &3_u32.to_le_bytes()).unwrap();
    assert_eq!(events[3].read().unwrap(), 1);

    let status = handle.status();
    assert!(status.connected && status.bus_master && status.shared);
    assert_eq!((status.windows, status.memory_windows, status.memory_bytes), (1, 1, 0x10000));
    assert_eq!(status.vectors, (5, 5));
    assert_eq!(status.peer_pid, Some(std::process::id().cast_signed()));
    client.dma_unmap(0x4_0000, 0x10000).unwrap();
    assert!(toy.told().memory.is_none());
    drop(client);
    let status = disconnected(&handle, 1);
    assert_eq!(status.last_reason.as_deref(), Some("the client hung up"));
    assert_eq!(toy.told().resets, [Reset::Device, Reset::Disconnect]);
}

#[test]
fn the_line_is_unmasked_by_a_descriptor() {
    let rig = Rig::new();
    let toy = Toy::new();
    let _handle = rig.add("toy", &toy, Settings::default());
    let mut client = rig.client("toy");
    let (line, resample) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    client.set_irqs(0, 0x24, 0, 1, &[line.as_raw_fd()]).unwrap();
    client.set_irqs(0, 0x14, 0, 1, &[resample.as_raw_fd()]).unwrap();
    client.region_write(0, 8, &[1, 0, 0, 0]).unwrap();
    assert_eq!(line.read().unwrap(), 1);
    for _ in 0..3 {
        resample.write(1).unwrap();
        // Still asserted: it comes again, by the reactor's own doing.
        until("the line", || line.read().ok());
    }
    // Descriptors that were watched are not any more when they are replaced.
    client.set_irqs(0, 0x14, 0, 1, &[]).unwrap();
    client.region_write(0, 8, &[0; 4]).unwrap();
    drop(client);
    resample.write(1).unwrap();
    let mut again = rig.client("toy");
    again.reset().unwrap();
}

#[test]
fn one_client_at_a_time() {
    let rig = Rig::new();
    let toy = Toy::new();
    let handle = rig.add("toy", &toy, Settings::default());
    let mut first = rig.client("toy");
    for turned_away in 1..4 {
        assert!(closed(&mut rig.raw("toy")));
        until("the count", || (handle.status().turned_away == turned_away).then_some(()));
    }
    first.reset().unwrap();
    // One that died is not in the way, even if nobody noticed yet.
    for session in 2..20 {
        drop(first);
        first = rig.client("toy");
        first.reset().unwrap();
        assert_eq!(handle.status().sessions, session);
        assert_eq!(toy.told().attached, u32::try_from(session).unwrap());
    }
}

#[test]
fn time_goes_on_for_functions() {
    let rig = Rig::new();
    let toy = Toy::new();
    let handle = rig.add("toy", &toy, Settings::default());
    let mut client = rig.client("toy");
    client.region_write(0, 12, &1_000_000_u32.to_le_bytes()).unwrap();
    until("the deadline", || (toy.told().expired == 1).then_some(()));
    // A worker that begins to wait has the reactor look.
    toy.wake_at(1);
    until("the worker's deadline", || (toy.told().expired == 2).then_some(()));
    drop(client);
    disconnected(&handle, 1);
    toy.wake_at(1);
    until("a deadline without a client", || (toy.told().expired == 3).then_some(()));
}

#[test]
fn a_slow_client_delays_nobody() {
    let rig = Rig::new();
    let (slow, other) = (Toy::new(), Toy::new());
    let handle = rig.add("slow", &slow, Settings::default());
    let _other = rig.add("other", &other, Settings::default());
    let mut half = rig.raw("slow");
    half.write_all(&header(1, 16 + 4, 0)[..7]).unwrap();
    rig.client("other").reset().unwrap();
    half.write_all(&header(1, 16 + 4, 0)[7..]).unwrap();
    half.write_all(&VERSION[..3]).unwrap();
    rig.client("other").reset().unwrap();
    half.write_all(&VERSION[3..]).unwrap();
    let mut answer = [0; 16];
    half.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [7, 0, 1, 0]);
    // In the middle of a message.
    half.write_all(&header(9, 16 + 16, 0)).unwrap();
    drop(half);
    let status = disconnected(&handle, 1);
    assert_eq!(status.last_reason.as_deref(), Some("the client hung up after 16 of 32 bytes of a message"));

    // One that asks and does not read: it is stopped from asking, and everybody else goes on.
    let mut deaf = rig.raw("slow");
    deaf.write_all(&[header(1, 20, 0), VERSION.to_vec()].concat()).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let ask = [
        header(9, 32, 0),
        0_u64.to_ne_bytes().to_vec(),
        7_u32.to_ne_bytes().to_vec(),
        4096_u32.to_ne_bytes().to_vec(),
    ];
    let ask = ask.concat();
    let mut asked = 0;
    while deaf.write(&ask).is_ok_and(|n| n == ask.len()) {
        asked += 1;
        assert!(asked < 1_000_000, "it is never stopped");
    }
    rig.client("other").reset().unwrap();
    drop(deaf);
    disconnected(&handle, 2);
}

#[test]
fn what_is_no_vfio_user_ends_the_session() {
    let rig = Rig::new();
    let toy = Toy::new();
    let handle = rig.add("toy", &toy, Settings::default());
    let mut sessions = 0;
    let mut send = |bytes: &[u8]| {
        let mut stream = rig.raw("toy");
        stream.write_all(bytes).unwrap();
        assert!(closed(&mut stream));
        sessions += 1;
        disconnected(&handle, sessions).last_reason.unwrap()
    };
    assert_eq!(
        send(&header(1, 15, 0)),
        "command 1: a message of 15 bytes was announced, expected 16 to 1048656"
    );
    assert!(send(&header(1, u32::MAX, 0)).contains("4294967295 bytes"));
    assert!(send(&header(9, 16, 1)).contains("flags 0x1"));
    assert!(send(&header(9, 16, 0)).starts_with("RegionRead came first"));
    assert!(send(b"GET / HTTP/1.1\r\n\r\n").contains("bytes was announced"));

    // Descriptors beyond all measure.
    let stream = rig.raw("toy");
    let file = ram(1);
    let fds: Vec<_> = (0..17).map(|_| file.as_fd()).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(17))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(&stream, &[IoSlice::new(&header(1, 20, 0))], &mut control, SendFlags::empty()).unwrap();
    let status = disconnected(&handle, sessions + 1);
    assert!(status.last_reason.unwrap().starts_with("more than 16 file descriptors"));
}

#[test]
fn a_defect_ends_its_own_session_only() {
    let rig = Rig::new();
    let (toy, other) = (Toy::new(), Toy::new());
    let handle = rig.add("toy", &toy, Settings::default());
    let _other = rig.add("other", &other, Settings::default());
    let mut bystander = rig.client("other");
    let mut client = rig.client("toy");
    assert!(client.region_write(0, 0, &DEFECT.to_le_bytes()).is_err());
    assert!(disconnected(&handle, 1).last_reason.unwrap().contains("defect"));
    bystander.reset().unwrap();
    rig.client("toy").reset().unwrap();
}

#[test]
fn a_removed_end_point_leaves_nothing() {
    let rig = Rig::new();
    let toy = Toy::new();
    let handle = rig.add("toy", &toy, Settings::default());
    let endpoint = Endpoint { name: "b".to_owned(), socket: rig.path("toy"), settings: Settings::default() };
    let again = rig.reactor.add(endpoint.clone(), Box::new(toy.clone()));
    assert!(matches!(again, Err(EndpointError::InUse { .. })), "{again:?}");
    let mut client = rig.client("toy");
    client.dma_map(0, 0, 0x1000, ram(0x1000).as_raw_fd()).unwrap();
    drop(handle);
    assert!(client.reset().is_err());
    // Whoever tried whether the socket is in use was a client, too.
    assert!(toy.told().resets.iter().all(|reset| *reset == Reset::Disconnect));
    assert_eq!(toy.told().resets.len(), 2);
    assert!(!rig.path("toy").exists());
    // A socket that a killed daemon left behind is taken over.
    drop(std::os::unix::net::UnixListener::bind(rig.path("toy")).unwrap());
    let handle = rig.reactor.add(endpoint, Box::new(toy)).unwrap();
    rig.client("toy").reset().unwrap();
    let Rig { reactor, dir } = rig;
    drop(reactor);
    assert!(!handle.status().connected);
    drop((handle, dir));
}
