//! A session, message by message, without any socket.

#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

mod toy;

use std::os::fd::OwnedFd;

use fabnic_pci::Reset;
use fabnic_vfio_user::{Error, HEADER_LEN, Header, Message, Reply, Session, Settings};
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use toy::Toy;

const EINVAL: i32 = Errno::INVAL.raw_os_error();
const EEXIST: i32 = Errno::EXIST.raw_os_error();
const ENOENT: i32 = Errno::NOENT.raw_os_error();
const COMMAND: u64 = 4;

/// Numbers as bytes.
macro_rules! payload {
    ($($field:expr),* $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend_from_slice(&$field.to_ne_bytes());)*
        bytes
    }};
}

struct Client {
    toy: Toy,
    session: Session,
    id: u16,
}

impl Client {
    fn unnegotiated(toy: Toy, settings: Settings) -> Client {
        let session = Session::new(&mut toy.clone(), settings).unwrap();
        Client { toy, session, id: 7 }
    }

    fn of(toy: Toy, settings: Settings) -> Client {
        let mut client = Client::unnegotiated(toy, settings);
        let json = br#"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576}}"#;
        let answer = client.ask(1, [&payload![0_u16, 0_u16], &json[..], &[0]].concat()).unwrap();
        assert!(answer.starts_with(b"\0\0\0\0{\"capabilities\":{\"max_msg_fds\":16"), "{answer:?}");
        assert!(answer.len() <= 4 + json.len() + 1, "QEMU's buffer");
        client
    }

    fn new() -> Client {
        Client::of(Toy::new(), Settings::default())
    }

    fn send(&mut self, header: Header, payload: Vec<u8>, fds: Vec<OwnedFd>) -> Result<Option<Reply>, Error> {
        self.id = self.id.wrapping_add(1);
        self.session.take(&mut self.toy, Message { header, payload, fds }, 1000)
    }

    /// The payload of the answer and its descriptor, or the error number.
    fn ask_fds(
        &mut self,
        command: u16,
        payload: Vec<u8>,
        fds: Vec<OwnedFd>,
    ) -> Result<(Vec<u8>, Option<OwnedFd>), i32> {
        let header = Header { id: self.id, command, size: payload.len(), no_reply: false };
        let reply = self.send(header, payload, fds).unwrap().unwrap();
        let word = |at: usize| u32::from_ne_bytes(*reply.bytes[at..].first_chunk().unwrap());
        assert_eq!(word(0), u32::from(header.id) | u32::from(command) << 16);
        assert_eq!(word(4) as usize, reply.bytes.len());
        match word(8) {
            1 => Ok((reply.bytes[HEADER_LEN..].to_vec(), reply.fd)),
            0x21 => {
                assert_eq!(reply.bytes.len(), HEADER_LEN, "an error is a bare header");
                assert!(word(12) != 0);
                Err(word(12) as i32)
            }
            flags => panic!("flags {flags:#x}"),
        }
    }

    fn ask(&mut self, command: u16, payload: Vec<u8>) -> Result<Vec<u8>, i32> {
        self.ask_fds(command, payload, Vec::new()).map(|(payload, fd)| {
            assert!(fd.is_none());
            payload
        })
    }

    fn map(&mut self, iova: u64, size: u64, flags: u32, file: Option<OwnedFd>) -> Result<(), i32> {
        let payload = payload![32_u32, flags, 0_u64, iova, size];
        self.ask_fds(2, payload, file.into_iter().collect()).map(|(payload, _)| assert!(payload.is_empty()))
    }

    fn unmap(&mut self, iova: u64, size: u64) -> Result<(), i32> {
        let payload = payload![24_u32, 0_u32, iova, size];
        self.ask(3, payload.clone()).map(|answer| assert_eq!(answer, payload, "the request, echoed"))
    }

    fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, i32> {
        let head = payload![offset, region, count];
        self.ask(9, head.clone()).map(|answer| {
            assert_eq!(answer[..16], head[..]);
            assert_eq!(answer.len(), 16 + count as usize);
            answer[16..].to_vec()
        })
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), i32> {
        let head = payload![offset, region, data.len() as u32];
        self.ask(10, [&head, data].concat()).map(|answer| assert_eq!(answer, head))
    }

    fn irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: Vec<OwnedFd>) -> Result<(), i32> {
        let payload = payload![20_u32, flags, index, start, count];
        self.ask_fds(8, payload, fds).map(|(payload, _)| assert!(payload.is_empty()))
    }
}

fn ram(size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    file
}

fn event() -> (OwnedFd, OwnedFd) {
    let ours = rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    (ours.try_clone().unwrap(), ours)
}

fn count(fd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(fd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

#[test]
fn version_comes_first_and_once() {
    let mut early = Client::unnegotiated(Toy::new(), Settings::default());
    let header = Header { id: 0, command: 4, size: 16, no_reply: false };
    let error = early.send(header, vec![0; 16], Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "GetInfo came first, expected VERSION once, as the first message");
    let mut twice = Client::new();
    let header = Header { id: 0, command: 1, size: 4, no_reply: false };
    assert!(matches!(twice.send(header, vec![0; 4], Vec::new()), Err(Error::Order { .. })));
    let mut later = Client::unnegotiated(Toy::new(), Settings::default());
    assert_eq!(later.ask(1, payload![1_u16, 0_u16]), Err(EINVAL), "another major version");
    assert!(later.ask(1, payload![0_u16, 9_u16]).is_ok(), "and then the right one");
}

#[test]
fn what_the_device_is() {
    let mut client = Client::new();
    assert_eq!(
        client.ask(4, payload![16_u32, 0_u32, 0_u32, 0_u32]),
        Ok(payload![16_u32, 3_u32, 9_u32, 5_u32])
    );
    // Cloud Hypervisor counts its header, too.
    assert!(client.ask(4, payload![32_u32, 0_u32, 0_u32, 0_u32]).is_ok());
    let sizes = [4096_u64, 0, 16, 16 << 10, 0, 0, 0, 4096, 0];
    for (index, size) in (0_u32..).zip(sizes) {
        let answer = client.ask(5, payload![32_u32, 0_u32, index, 0_u32, 0_u64, 0_u64]).unwrap();
        let flags = if size > 0 { 3_u32 } else { 0 };
        assert_eq!(answer, payload![32_u32, flags, index, 0_u32, size, 0_u64]);
        let answer = client.ask(6, payload![16_u32, 0_u32, index, 0_u32]).unwrap();
        assert_eq!(answer, payload![16_u32, 0_u32, index, 0_u32]);
    }
    assert_eq!(client.ask(5, payload![32_u32, 0_u32, 9_u32, 0_u32, 0_u64, 0_u64]), Err(EINVAL));
    for (index, (flags, count)) in (0_u32..).zip([(7_u32, 1_u32), (0, 0), (1, 5), (1, 1), (1, 1)]) {
        let answer = client.ask(7, payload![16_u32, 0_u32, index, 0_u32]).unwrap();
        assert_eq!(answer, payload![16_u32, flags, index, count]);
    }
    assert_eq!(client.ask(7, payload![16_u32, 0_u32, 5_u32, 0_u32]), Err(EINVAL));
}

#[test]
fn shared_pages_are_offered_if_configured() {
    let info = |argsz: u32| payload![argsz, 0_u32, 0_u32, 0_u32, 0_u64, 0_u64];
    let mut off = Client::of(Toy::shared(), Settings::default());
    assert_eq!(off.ask(5, info(64)), Ok(payload![32_u32, 3_u32, 0_u32, 0_u32, 4096_u64, 0_u64]));
    let mut on = Client::of(Toy::shared(), Settings { mmap: true });
    let (short, fd) = on.ask_fds(5, info(32), Vec::new()).unwrap();
    assert_eq!(short, payload![64_u32, 15_u32, 0_u32, 32_u32, 4096_u64, 0_u64]);
    assert!(fd.is_none(), "the client asks again");
    let (long, fd) = on.ask_fds(5, info(64), Vec::new()).unwrap();
    let caps = payload![1_u16, 1_u16, 0_u32, 1_u32, 0_u32, 0_u64, 4096_u64];
    assert_eq!(long, [payload![64_u32, 15_u32, 0_u32, 32_u32, 4096_u64, 0_u64], caps].concat());
    assert_eq!(rustix::fs::fstat(fd.unwrap()).unwrap().st_size, 4096);
}

#[test]
fn registers_are_reached_in_aligned_pieces() {
    let mut client = Client::new();
    client.write(0, 0, &[1, 2, 3, 4]).unwrap();
    assert_eq!(client.read(0, 0, 4), Ok(vec![1, 2, 3, 4]));
    assert_eq!(client.read(0, 1, 2), Ok(vec![2, 3]));
    client.read(0, 0, 16).unwrap();
    assert_eq!(client.read(0, 4096, 0), Ok(vec![]));
    let accesses = client.toy.told().accesses.clone();
    let expected = [(0, 0, 4, true), (0, 0, 4, false), (0, 1, 1, false), (0, 2, 1, false)];
    assert_eq!(accesses[..4], expected);
    assert_eq!(accesses[4..].iter().map(|a| a.2).collect::<Vec<_>>(), [4; 4]);
    for (region, offset, count) in
        [(0, 4095, 2), (0, u64::MAX, 1), (1, 0, 1), (2, 16, 1), (8, 0, 1), (9, 0, 1)]
    {
        assert_eq!(client.read(region, offset, count), Err(EINVAL), "{region} {offset} {count}");
        assert_eq!(client.write(region, offset, &vec![0; count as usize]), Err(EINVAL));
    }
    assert_eq!(client.ask(9, payload![0_u64, 0_u32, u32::MAX]), Err(EINVAL), "a flood");
    assert_eq!(client.ask(10, payload![0_u64, 0_u32, 9_u32, 0_u32]), Err(EINVAL), "less data than announced");
}

#[test]
fn posted_writes_have_no_answer() {
    let mut client = Client::new();
    let payload = payload![0_u64, 0_u32, 4_u32, 5_u32];
    let header = Header { id: 0, command: 10, size: payload.len(), no_reply: true };
    assert!(client.send(header, payload, Vec::new()).unwrap().is_none());
    assert_eq!(client.read(0, 0, 4), Ok(vec![5, 0, 0, 0]));
    // Not even an error.
    let payload = payload![0_u64, 99_u32, 4_u32, 5_u32];
    assert!(client.send(header, payload, Vec::new()).unwrap().is_none());
}

#[test]
fn many_writes_in_one_message() {
    let mut client = Client::new();
    let payload = payload![2_u64, 0_u64, 0_u32, 2_u32, 0x1234_u64, 2_u64, 0_u32, 1_u32, 0x77_u64];
    assert_eq!(client.ask(15, payload), Ok(payload![2_u64]));
    assert_eq!(client.toy.told().accesses, [(0, 0, 2, true), (0, 2, 1, true)]);
    // All or nothing.
    let payload = payload![2_u64, 0_u64, 0_u32, 2_u32, 0x1234_u64, 0_u64, 1_u32, 1_u32, 0x77_u64];
    assert_eq!(client.ask(15, payload), Err(EINVAL));
    assert_eq!(client.toy.told().accesses.len(), 2);
    assert_eq!(client.ask(15, payload![1_u64, 0_u64, 0_u32, 9_u32, 0_u64]), Err(EINVAL), "9 bytes in 8");
    assert_eq!(client.ask(15, payload![u64::MAX]), Err(EINVAL));
}

#[test]
fn memory_follows_windows_bus_mastering_and_power() {
    let mut client = Client::new();
    client.map(0x10000, 0x4000, 3, Some(ram(0x4000))).unwrap();
    assert!(client.toy.told().memory.is_none(), "no bus mastering");
    client.write(7, COMMAND, &[6, 0]).unwrap();
    assert_eq!(client.toy.told().memory.as_ref().unwrap().bytes(), 0x4000);
    // The device reaches it.
    client.write(0, 16, &0x10ffc_u64.to_le_bytes()).unwrap();
    client.write(0, 24, &5_u32.to_le_bytes()).unwrap();
    assert_eq!(client.read(0, 28, 4), Ok(vec![0; 4]));
    let memories = client.toy.told().memories;
    client.write(7, COMMAND, &[6, 0]).unwrap();
    assert_eq!(client.toy.told().memories, memories, "nothing new is not said again");
    // Sleep, and the way back: everything is lost.
    client.write(7, 0x44, &[3]).unwrap();
    assert!(client.toy.told().memory.is_none());
    assert_eq!(client.read(0, 0, 4), Ok(vec![0xff; 4]), "registers do not answer");
    client.write(7, 0x44, &[0]).unwrap();
    assert_eq!(client.toy.told().resets, [Reset::FunctionLevel]);
    assert!(client.toy.told().memory.is_none(), "bus mastering was lost");
    client.write(7, COMMAND, &[6, 0]).unwrap();
    assert!(client.toy.told().memory.is_some(), "windows were not");
    client.unmap(0x10000, 0x4000).unwrap();
    assert!(client.toy.told().memory.is_none());
    client.write(0, 16, &0x10000_u64.to_le_bytes()).unwrap();
    client.write(0, 24, &5_u32.to_le_bytes()).unwrap();
    assert_eq!(client.read(0, 28, 4), Ok(vec![1, 0, 0, 0]), "a fault, counted");
}

#[test]
fn windows_are_exact() {
    let mut client = Client::new();
    client.write(7, COMMAND, &[6, 0]).unwrap();
    client.map(0x10000, 0x4000, 3, Some(ram(0x4000))).unwrap();
    for (iova, size) in
        [(0x10000, 0x4000), (0xf000, 0x2000), (0x13000, 0x1000), (0x12000, 0x10000), (0, 0x20000)]
    {
        assert_eq!(client.map(iova, size, 3, Some(ram(size))), Err(EEXIST), "{iova:#x} {size:#x}");
        assert_eq!(client.map(iova, size, 3, None), Err(EEXIST), "without a file, too");
    }
    for (iova, size) in [(0x20001, 0x1000), (0x20000, 0), (0x20000, 0x1001), (u64::MAX - 0xfff, 0x2000)] {
        assert_eq!(client.map(iova, size, 3, None), Err(EINVAL), "{iova:#x} {size:#x}");
    }
    assert_eq!(client.map(0x20000, 0x1000, 3, Some(ram(0xfff))), Err(EINVAL), "a short file");
    assert_eq!(client.map(0x20000, 0x1000, 0x10, None), Err(EINVAL), "a flag that nobody knows");
    // Up to the last byte, and beside each other.
    client.map(u64::MAX - 0xfff, 0x1000, 3, None).unwrap();
    client.map(0x14000, 0x1000, 3, Some(ram(0x1000))).unwrap();
    assert_eq!(client.toy.told().memory.as_ref().unwrap().bytes(), 0x5000);
    for (iova, size) in [
        (0x10000, 0x1000),
        (0x11000, 0x1000),
        (0xf000, 0x2000),
        (0x13000, 0x2000),
        (0, 0),
        (u64::MAX - 0xfff, 0x2000),
    ] {
        assert_eq!(client.unmap(iova, size), Err(ENOENT), "{iova:#x} {size:#x}");
    }
    client.unmap(0x10000, 0x4000).unwrap();
    // Nothing is there, and nothing has to be.
    client.unmap(0x10000, 0x4000).unwrap();
    client.unmap(u64::MAX - 0xfff, 0x1000).unwrap();
    assert_eq!(client.toy.told().memory.as_ref().unwrap().bytes(), 0x1000);
    let all = payload![24_u32, 2_u32, 0_u64, 0_u64];
    assert_eq!(client.ask(3, all.clone()), Ok(all));
    assert!(client.toy.told().memory.is_none());
}

#[test]
fn a_range_takes_away_all_windows_in_it() {
    let mut client = Client::new();
    client.write(7, COMMAND, &[6, 0]).unwrap();
    for page in [1, 2, 5, 9] {
        client.map(page * 0x1000, 0x1000, 3, Some(ram(0x1000))).unwrap();
    }
    client.map(0x6000, 0x1000, 3, None).unwrap();
    client.unmap(0x2000, 0x6000).unwrap();
    assert_eq!(client.toy.told().memory.as_ref().unwrap().bytes(), 0x2000);
    client.map(0x4000, 0x4000, 3, Some(ram(0x4000))).unwrap();
    client.unmap(0, 0x10_0000).unwrap();
    assert!(client.toy.told().memory.is_none());
}

#[test]
fn windows_that_hold_no_memory_are_taken() {
    let mut client = Client::new();
    client.write(7, COMMAND, &[6, 0]).unwrap();
    client.map(0xf000_0000, 0x1_0000, 3, None).unwrap();
    client.map(0xe0000, 0x2_0000, 1, Some(ram(0x2_0000))).unwrap();
    assert!(client.toy.told().memory.is_none());
    client.map(0, 0xa0000, 3, Some(ram(0xa0000))).unwrap();
    assert_eq!(client.toy.told().memory.as_ref().unwrap().bytes(), 0xa0000);
    client.unmap(0xe0000, 0x2_0000).unwrap();
    client.unmap(0xf000_0000, 0x1_0000).unwrap();
}

#[test]
fn there_are_only_so_many_windows() {
    let mut client = Client::new();
    for index in 0..509 {
        client.map(index * 0x2000, 0x1000, 3, None).unwrap();
    }
    assert_eq!(client.map(0x1000, 0x1000, 3, None), Err(Errno::NOSPC.raw_os_error()));
    client.unmap(0, 0x1000).unwrap();
    client.map(0x1000, 0x1000, 3, None).unwrap();
}

#[test]
fn vectors_are_what_descriptors_say() {
    const TRIGGER: u32 = 0x24;
    let mut client = Client::new();
    let raise = |client: &mut Client, vector: u32| client.write(0, 4, &vector.to_le_bytes()).unwrap();
    // QEMU: on, with vector 0 and no descriptor; then one for each that the guest unmasks.
    client.irqs(2, TRIGGER, 0, 1, vec![]).unwrap();
    raise(&mut client, 1);
    let (given, seen) = event();
    client.irqs(2, TRIGGER, 1, 1, vec![given]).unwrap();
    assert_eq!(count(&seen), 1, "was pending");
    raise(&mut client, 1);
    assert_eq!(count(&seen), 1);
    // Another descriptor takes over, and none masks.
    let (given, other) = event();
    client.irqs(2, TRIGGER, 1, 1, vec![given]).unwrap();
    raise(&mut client, 1);
    assert_eq!((count(&seen), count(&other)), (0, 1));
    client.irqs(2, TRIGGER, 1, 1, vec![]).unwrap();
    raise(&mut client, 1);
    assert_eq!(count(&other), 0);
    assert_eq!(client.read(3, 0x2000, 8), Ok(vec![2, 0, 0, 0, 0, 0, 0, 0]), "pending");
    // Cloud Hypervisor: all at once.
    let (given, seen): (Vec<_>, Vec<_>) = (0..5).map(|_| event()).unzip();
    client.irqs(2, TRIGGER, 0, 5, given).unwrap();
    assert_eq!(seen.iter().map(count).collect::<Vec<_>>(), [0, 1, 0, 0, 0]);
    // The client fires them itself: all, or some.
    client.irqs(2, 0x21, 3, 2, vec![]).unwrap();
    client.ask(8, [payload![20_u32, 0x22_u32, 2_u32, 1_u32, 2_u32], vec![0, 1]].concat()).unwrap();
    assert_eq!(seen.iter().map(count).collect::<Vec<_>>(), [0, 0, 1, 1, 1]);
    client.irqs(2, 0x21, 0, 0, vec![]).unwrap();
    raise(&mut client, 2);
    assert_eq!(count(&seen[2]), 0, "all off");
}

#[test]
fn the_line_is_automasked() {
    let mut client = Client::new();
    let (line, seen) = event();
    client.irqs(0, 0x24, 0, 1, vec![line]).unwrap();
    client.write(0, 8, &[1, 0, 0, 0]).unwrap();
    assert_eq!(count(&seen), 1);
    assert_eq!(client.read(7, 6, 2).unwrap()[0] & 8, 8, "shown in the status register");
    client.irqs(0, 0x11, 0, 1, vec![]).unwrap();
    assert_eq!(count(&seen), 1, "unmasked and still asserted");
    client.write(0, 8, &[0, 0, 0, 0]).unwrap();
    client.irqs(0, 0x11, 0, 1, vec![]).unwrap();
    assert_eq!(count(&seen), 0);
    // The driver forbids it.
    client.write(7, COMMAND, &[0, 4]).unwrap();
    client.write(0, 8, &[1, 0, 0, 0]).unwrap();
    assert_eq!(count(&seen), 0);
    client.write(7, COMMAND, &[0, 0]).unwrap();
    assert_eq!(count(&seen), 1);
    // Unmasked by a descriptor.
    let (resample, kvm) = event();
    client.irqs(0, 0x14, 0, 1, vec![resample]).unwrap();
    assert!(client.session.resample().is_some());
    rustix::io::write(&kvm, &1_u64.to_ne_bytes()).unwrap();
    client.session.resampled();
    assert_eq!(count(&seen), 1);
    client.irqs(0, 0x21, 0, 0, vec![]).unwrap();
    assert!(client.session.resample().is_none());
}

#[test]
fn interrupts_that_cannot_be() {
    let mut client = Client::new();
    let file = || vec![ram(1)];
    let events = |n| (0..n).map(|_| event().0).collect::<Vec<_>>();
    assert_eq!(client.irqs(2, 0x24, 4, 2, events(2)), Err(EINVAL), "behind the last");
    assert_eq!(client.irqs(2, 0x24, u32::MAX, 2, events(2)), Err(EINVAL));
    assert_eq!(client.irqs(2, 0x24, 0, 3, events(2)), Err(EINVAL), "too few");
    assert_eq!(client.irqs(2, 0x24, 0, 1, file()), Err(EINVAL), "no eventfd");
    let set = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    assert_eq!(client.irqs(0, 0x14, 0, 1, vec![set]), Err(EINVAL), "no file either, and no eventfd");
    assert_eq!(client.irqs(2, 0x14, 0, 1, events(1)), Err(EINVAL), "no resampling there");
    assert_eq!(client.irqs(2, 0x11, 0, 1, vec![]), Err(EINVAL), "not maskable");
    assert_eq!(client.irqs(1, 0x24, 0, 1, events(1)), Err(EINVAL), "no MSI");
    assert_eq!(client.irqs(5, 0x21, 0, 0, vec![]), Err(EINVAL));
    assert_eq!(client.irqs(0, 0x27, 0, 1, vec![]), Err(EINVAL), "all kinds of data");
    assert_eq!(client.irqs(0, 0x04, 0, 1, events(1)), Err(EINVAL), "no action");
    assert_eq!(client.irqs(0, 0x21, 0, 1, events(1)), Err(EINVAL), "descriptors without meaning");
    assert_eq!(client.irqs(0, 0x24, 0, 0, vec![]), Err(EINVAL), "no vector");
    assert_eq!(client.ask(8, payload![20_u32, 0x22_u32, 2_u32, 0_u32, u32::MAX]), Err(EINVAL), "no bools");
    // What nobody sends, but is asked for.
    client.irqs(3, 0x24, 0, 1, events(1)).unwrap();
    client.irqs(4, 0x24, 0, 1, events(1)).unwrap();
}

#[test]
fn resets_of_all_kinds() {
    let mut client = Client::new();
    client.map(0, 0x4000, 3, Some(ram(0x4000))).unwrap();
    let (given, seen) = event();
    client.irqs(2, 0x24, 0, 1, vec![given]).unwrap();
    client.write(7, COMMAND, &[6, 0]).unwrap();
    client.write(0, 0, &[9, 9, 9, 9]).unwrap();
    client.write(7, 0xa8, &[0, 0x80]).unwrap();
    assert_eq!(client.read(0, 0, 4), Ok(vec![0; 4]));
    assert!(client.toy.told().memory.is_none());
    client.write(7, COMMAND, &[6, 0]).unwrap();
    assert_eq!(client.ask(13, vec![]), Ok(vec![]));
    assert!(client.toy.told().memory.is_none());
    assert_eq!(client.read(7, COMMAND, 2), Ok(vec![0, 0]));
    client.write(0, 4, &[0; 4]).unwrap();
    assert_eq!(count(&seen), 1, "descriptors stay");
    client.write(7, COMMAND, &[6, 0]).unwrap();
    assert!(client.toy.told().memory.is_some(), "windows stay");
    let toy = client.toy.clone();
    client.session.end(&mut client.toy);
    assert_eq!(toy.told().resets, [Reset::FunctionLevel, Reset::Device, Reset::Disconnect]);
    drop(seen);
}

const GET: u32 = 1 << 16;
const SET: u32 = 1 << 17;
const PROBE: u32 = 1 << 18;

impl Client {
    fn state(&mut self, state: u32) -> Result<(), i32> {
        let payload = payload![16_u32, 2 | SET, state, 0_u32];
        self.ask(16, payload.clone()).map(|answer| assert_eq!(answer, payload, "echoed"))
    }

    fn current(&mut self) -> u32 {
        let answer = self.ask(16, payload![16_u32, 2 | GET]).unwrap();
        u32::from_ne_bytes(answer[8..12].try_into().unwrap())
    }

    fn pull(&mut self, size: u32) -> Result<Vec<u8>, i32> {
        self.ask(17, payload![size + 8, size]).map(|answer| {
            assert_eq!(answer[4..8], (answer.len() as u32 - 8).to_ne_bytes());
            answer[8..].to_vec()
        })
    }

    fn push(&mut self, data: &[u8]) -> Result<(), i32> {
        let len = data.len() as u32;
        self.ask(18, [&payload![len + 8, len], data].concat()).map(|answer| assert!(answer.is_empty()))
    }
}

#[test]
fn features_can_be_probed() {
    let mut client = Client::new();
    assert_eq!(client.ask(16, payload![16_u32, 1 | GET]), Ok(payload![16_u32, 1 | GET, 5_u64]));
    for (flags, is_there) in [
        (1 | PROBE | GET, true),
        (1 | PROBE | SET, false),
        (2 | PROBE | GET | SET, true),
        (6 | PROBE | SET, true),
        (8 | PROBE, true),
        (3 | PROBE, false),
        (0xffff | PROBE | GET, false),
    ] {
        let asked = payload![8_u32, flags];
        let expected = if is_there { Ok(asked.clone()) } else { Err(EINVAL) };
        assert_eq!(client.ask(16, asked), expected, "{flags:#x}");
    }
    assert_eq!(client.ask(16, payload![8_u32, 1 | SET]), Err(EINVAL));
    assert_eq!(client.ask(16, payload![8_u32, 1 | GET | SET]), Err(EINVAL));
    // One that cannot be migrated has none of it.
    client.toy.told().stays = true;
    assert_eq!(client.ask(16, payload![16_u32, 1 | GET]), Err(EINVAL));
    assert_eq!(client.state(1), Err(EINVAL));
}

#[test]
fn a_function_moves_to_its_twin() {
    let mut source = Client::new();
    source.map(0, 0x4000, 3, Some(ram(0x4000))).unwrap();
    source.write(7, COMMAND, &[6, 0]).unwrap();
    source.write(0, 0, &[1, 2, 3, 4]).unwrap();
    source.write(0, 8, &[1, 0, 0, 0]).unwrap();
    source.write(3, 16, &[5; 4]).unwrap();
    assert_eq!(source.current(), 2);
    source.state(6).unwrap();
    assert_eq!(source.pull(100), Ok(vec![]), "nothing yet");
    assert!(source.toy.told().running.is_empty(), "it runs");
    source.state(3).unwrap();
    assert_eq!(source.toy.told().running, [false]);
    // In pieces, the last of which is short.
    let mut stream = Vec::new();
    loop {
        let piece = source.pull(1000).unwrap();
        stream.extend_from_slice(&piece);
        if piece.len() < 1000 {
            break;
        }
    }
    assert_eq!(source.pull(1000), Ok(vec![]));
    assert_eq!(source.state(6), Err(EINVAL), "there is no way back to pre-copy");
    source.state(2).unwrap();
    assert_eq!(source.toy.told().running, [false, true]);

    let mut target = Client::new();
    target.map(0, 0x4000, 3, Some(ram(0x4000))).unwrap();
    let (line, seen) = event();
    target.irqs(0, 0x24, 0, 1, vec![line]).unwrap();
    assert_eq!(target.push(&stream), Err(EINVAL), "not now");
    target.state(4).unwrap();
    assert_eq!(target.pull(1), Err(EINVAL));
    for piece in stream.chunks(777) {
        target.push(piece).unwrap();
    }
    target.state(2).unwrap();
    assert_eq!(target.current(), 2);
    assert_eq!(target.toy.told().running, [false, true]);
    assert_eq!(target.read(0, 0, 4), Ok(vec![1, 2, 3, 4]));
    assert_eq!(target.read(7, 0, 256), source.read(7, 0, 256));
    assert_eq!(target.read(3, 16, 4), Ok(vec![5; 4]));
    assert!(target.toy.told().memory.is_some(), "bus mastering came along");
    assert_eq!(count(&seen), 1, "and so did the line");
}

#[test]
fn states_that_are_none_end_in_error() {
    let mut source = Client::new();
    source.state(3).unwrap();
    let stream = source.pull(1 << 20).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut stream = stream.clone();
        stream[at] = byte;
        stream
    };
    for (what, bad) in [
        ("nothing", vec![]),
        ("no magic", changed(0, 0)),
        ("another version", changed(4, 9)),
        ("another device", changed(8, 9)),
        ("a long run", changed(13, 0xff)),
        ("too short", stream[..stream.len() - 1].to_vec()),
        ("too long", [&stream[..], &[0]].concat()),
    ] {
        let mut target = Client::new();
        target.write(0, 0, &[7; 4]).unwrap();
        target.state(4).unwrap();
        if !bad.is_empty() {
            target.push(&bad).unwrap();
        }
        assert_eq!(target.state(2), Err(EINVAL), "{what}");
        assert_eq!(target.current(), 0, "{what}");
        assert_eq!(target.state(2), Err(EINVAL), "only a reset leaves it");
        assert_eq!(target.ask(13, vec![]), Ok(vec![]));
        assert_eq!(target.current(), 2);
        assert_eq!(target.toy.told().running, [false, true], "{what}");
    }
    let mut target = Client::new();
    target.state(4).unwrap();
    for _ in 0..16 {
        target.push(&vec![0; 1 << 20]).unwrap();
    }
    assert_eq!(target.push(&[0]), Err(Errno::NOSPC.raw_os_error()));
    // A reset in the middle of a migration leaves the state alone.
    let mut source = Client::new();
    source.state(6).unwrap();
    source.ask(13, vec![]).unwrap();
    assert_eq!(source.current(), 6);
    for number in [0, 5, 7, 8, u32::MAX] {
        assert_eq!(source.state(number), Err(EINVAL), "{number}");
    }
    let toy = source.toy.clone();
    source.state(3).unwrap();
    source.session.end(&mut source.toy);
    assert_eq!(toy.told().running, [false, true], "the next client finds it running");
}

#[test]
fn writes_are_logged() {
    let mut client = Client::new();
    client.write(7, COMMAND, &[6, 0]).unwrap();
    client.map(0x10000, 0x10000, 3, Some(ram(0x10000))).unwrap();
    let report = |client: &mut Client, page: u64| {
        let asked = payload![64_u32, 8 | GET, 0x10000_u64, 0x10000_u64, page];
        client.ask(16, asked.clone()).map(|answer| {
            assert_eq!(answer[..4], 40_u32.to_ne_bytes());
            assert_eq!(answer[4..32], asked[4..]);
            u64::from_le_bytes(answer[32..].try_into().unwrap())
        })
    };
    assert_eq!(report(&mut client, 4096), Err(EINVAL), "not yet");
    client.ask(16, payload![40_u32, 6 | SET, 4096_u64, 1_u32, 0_u32, 0x10000_u64, 0x10000_u64]).unwrap();
    assert_eq!(client.ask(16, payload![24_u32, 6 | SET, 4096_u64, 0_u32, 0_u32]), Err(EINVAL), "twice");
    client.write(0, 16, &0x1_2ff0_u64.to_le_bytes()).unwrap();
    client.write(0, 24, &[1, 0, 0, 0]).unwrap();
    assert_eq!(report(&mut client, 4096), Ok(1 << 2));
    assert_eq!(report(&mut client, 4096), Ok(0));
    client.write(0, 24, &[1, 0, 0, 0]).unwrap();
    assert_eq!(report(&mut client, 0x4000), Ok(1));
    // Without room for the bitmap, the size that is needed.
    let asked = payload![32_u32, 8 | GET, 0x10000_u64, 0x10000_u64, 4096_u64];
    assert_eq!(client.ask(16, asked.clone()), Ok([payload![40_u32], asked[4..].to_vec()].concat()));
    client.ask(16, payload![8_u32, 7 | SET]).unwrap();
    assert!(client.toy.told().log.is_none());
    assert_eq!(client.ask(16, payload![8_u32, 7 | SET]), Err(EINVAL), "twice");
}

#[test]
fn commands_that_are_none() {
    let mut client = Client::new();
    for command in [0, 11, 12, 14, 19, 0xffff] {
        assert_eq!(client.ask(command, vec![0; 64]), Err(Errno::OPNOTSUPP.raw_os_error()), "{command}");
    }
    for command in [2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 18] {
        assert_eq!(client.ask(command, vec![]), Err(EINVAL), "{command} without anything");
        assert!(client.ask(command, vec![0xff; 77]).is_err(), "{command} with nonsense");
    }
    assert_eq!(client.ask(13, vec![0]), Err(EINVAL));
    assert_eq!(
        client.ask_fds(13, vec![], vec![ram(1)]).map(|_| ()),
        Err(EINVAL),
        "a descriptor without meaning"
    );
    let header = |flags: u32, size: u32| {
        let mut bytes = [0; HEADER_LEN];
        bytes[2..4].copy_from_slice(&9_u16.to_ne_bytes());
        bytes[4..8].copy_from_slice(&size.to_ne_bytes());
        bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
        Header::parse(&bytes)
    };
    assert!(header(0x10, 16).unwrap().no_reply);
    assert!(matches!(header(1, 16), Err(Error::Flags { .. })), "a reply to nothing");
    assert!(matches!(header(0, 15), Err(Error::Size { size: 15, .. })));
    assert!(matches!(header(0, u32::MAX), Err(Error::Size { .. })));
    assert_eq!(header(0, (1 << 20) + 32).unwrap().size, (1 << 20) + 16);
}
