//! A session without sockets: messages in, answers out.

#![allow(clippy::unwrap_used)] // A test may end there, also outside of its #[test] function.

mod fake;

use std::os::fd::{AsRawFd, OwnedFd};

use fabnic_vhost_user::{Error, HEADER_LEN, Message, Session};
use fake::{Fake, LOG_ALL, OFFERED, PACKED, PROTOCOL_FEATURES};
use proptest::prelude::*;
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::FrontendReq as Req;

/// Where the front end has its memory.
const USER: u64 = 0x7f00_0000_0000;
const GUEST: u64 = 0x4000_0000;
const LEN: u64 = 0x1_0000;

fn memory() -> OwnedFd {
    let file = rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, LEN).unwrap();
    file
}

fn event() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn signalled(event: &OwnedFd) -> bool {
    rustix::io::read(event, &mut [0; 8]).is_ok()
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn state(ring: u32, num: u32) -> Vec<u8> {
    [ring.to_ne_bytes(), num.to_ne_bytes()].concat()
}

fn addresses(ring: u32, log: Option<u64>) -> Vec<u8> {
    let at = USER + u64::from(ring) * 0x2000;
    let head = [ring.to_ne_bytes(), u32::from(log.is_some()).to_ne_bytes()].concat();
    [head, bytes(&[at, at + 0x1800, at + 0x1000, log.unwrap_or(0)])].concat()
}

fn region(guest: u64, len: u64, user: u64) -> Vec<u8> {
    bytes(&[guest, len, user, 0])
}

/// One front end.
struct Peer {
    device: Fake,
    session: Session,
}

impl Peer {
    fn new() -> Peer {
        let device = Fake::new(4);
        device.told().progress = 7;
        Peer { session: Session::new(&device), device }
    }

    fn ask(
        &mut self,
        request: Req,
        payload: Vec<u8>,
        fds: Vec<OwnedFd>,
        ack: bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let message = Message { request, need_reply: ack, payload, fds };
        let reply = self.session.take(&mut self.device, message)?;
        Ok(reply.map(|reply| {
            assert_eq!(reply.bytes[..4], u32::from(request).to_ne_bytes());
            reply.bytes[HEADER_LEN..].to_vec()
        }))
    }

    /// A message that is taken and has no answer.
    fn tell(&mut self, request: Req, payload: Vec<u8>) {
        assert_eq!(self.ask(request, payload, Vec::new(), false).unwrap(), None, "{request:?}");
    }

    fn give(&mut self, request: Req, payload: Vec<u8>, fd: OwnedFd) {
        assert_eq!(self.ask(request, payload, vec![fd], false).unwrap(), None, "{request:?}");
    }

    fn number(&mut self, request: Req, payload: Vec<u8>) -> u64 {
        let reply = self.ask(request, payload, Vec::new(), false).unwrap().expect("an answer");
        u64::from_ne_bytes(reply.try_into().expect("eight bytes"))
    }

    fn base(&mut self, ring: u32) -> u32 {
        let reply = self.ask(Req::GET_VRING_BASE, state(ring, 0), Vec::new(), false).unwrap().unwrap();
        assert_eq!(reply[..4], ring.to_ne_bytes());
        u32::from_ne_bytes(reply[4..].try_into().unwrap())
    }

    fn agree(&mut self, features: u64) {
        self.tell(Req::SET_FEATURES, bytes(&[features]));
    }

    fn share_memory(&mut self) {
        let table = [state(1, 0), region(GUEST, LEN, USER)].concat();
        self.give(Req::SET_MEM_TABLE, table, memory());
    }

    fn set_up(&mut self, ring: u32, base: u32) {
        self.tell(Req::SET_VRING_NUM, state(ring, 64));
        self.tell(Req::SET_VRING_BASE, state(ring, base));
        self.tell(Req::SET_VRING_ADDR, addresses(ring, None));
        self.give(Req::SET_VRING_KICK, bytes(&[u64::from(ring)]), event());
    }

    fn ready(features: u64) -> Peer {
        let mut peer = Peer::new();
        peer.agree(features);
        peer.share_memory();
        peer.set_up(0, 0);
        assert!(peer.device.told().rings.contains_key(&0));
        peer
    }

    fn runs(&self) -> Vec<u16> {
        self.device.told().rings.keys().copied().collect()
    }

    fn refused(&mut self, request: Req, payload: Vec<u8>, fds: Vec<OwnedFd>) -> String {
        self.ask(request, payload, fds, false).expect_err("refused").to_string()
    }
}

#[test]
fn questions_are_answered() {
    let mut peer = Peer::new();
    assert_eq!(peer.number(Req::GET_FEATURES, vec![]), OFFERED | LOG_ALL | PROTOCOL_FEATURES);
    let protocol = Protocol::from_bits(peer.number(Req::GET_PROTOCOL_FEATURES, vec![])).unwrap();
    assert!(protocol.contains(Protocol::MQ | Protocol::REPLY_ACK | Protocol::STATUS | Protocol::LOG_SHMFD));
    // Their place is not taken yet.
    assert!(!protocol.intersects(Protocol::DEVICE_STATE | Protocol::HOST_NOTIFIER | Protocol::PAGEFAULT));
    assert_eq!(peer.number(Req::GET_QUEUE_NUM, vec![]), 4, "rings, not pairs");
    assert_eq!(peer.number(Req::GET_MAX_MEM_SLOTS, vec![]), 509);
    peer.tell(Req::SET_OWNER, vec![]);
    peer.tell(Req::RESET_OWNER, vec![]);
    peer.tell(Req::SET_STATUS, bytes(&[11]));
    assert_eq!(peer.number(Req::GET_STATUS, vec![]), 11);
    assert_eq!(peer.base(1), 0, "a ring that never ran");
}

#[test]
fn a_ring_starts_with_its_last_missing_piece_whichever_it_is() {
    type Step = fn(&mut Peer);
    let steps: [Step; 6] = [
        |peer| peer.agree(OFFERED & !PACKED | PROTOCOL_FEATURES),
        |peer| peer.share_memory(),
        |peer| peer.tell(Req::SET_VRING_NUM, state(0, 64)),
        |peer| peer.tell(Req::SET_VRING_BASE, state(0, 0)),
        |peer| peer.tell(Req::SET_VRING_ADDR, addresses(0, None)),
        |peer| peer.give(Req::SET_VRING_KICK, bytes(&[0]), event()),
    ];
    // Rotations and their reverses put each step last, and in many places.
    for first in 0..steps.len() {
        for reverse in [false, true] {
            let mut order: Vec<Step> = steps.iter().cycle().skip(first).take(steps.len()).copied().collect();
            if reverse {
                order.reverse();
            }
            let mut peer = Peer::new();
            let (last, before) = order.split_last().unwrap();
            before.iter().for_each(|step| step(&mut peer));
            assert_eq!(peer.runs(), [0_u16; 0], "not before the last piece");
            last(&mut peer);
            assert_eq!(peer.runs(), [0]);
            assert!(!peer.device.told().rings[&0].enabled, "protocol features: enabled by message only");
        }
    }
}

#[test]
fn no_kick_is_needed_nor_a_kick_descriptor() {
    let mut peer = Peer::new();
    peer.agree(OFFERED & !PACKED);
    peer.share_memory();
    peer.tell(Req::SET_VRING_NUM, state(1, 64));
    peer.tell(Req::SET_VRING_BASE, state(1, 0));
    peer.tell(Req::SET_VRING_ADDR, addresses(1, None));
    peer.tell(Req::SET_VRING_KICK, bytes(&[0x101]));
    let told = peer.device.told();
    assert!(told.rings[&1].enabled, "without protocol features rings are enabled");
    assert!(!told.rings[&1].has_kick);
}

#[test]
fn a_stopped_ring_says_where_and_goes_on_there() {
    let mut peer = Peer::ready(OFFERED & PACKED | PROTOCOL_FEATURES);
    // Virtio-user leaves the used side 0: the available side counts.
    assert_eq!(peer.base(0), 7);
    assert_eq!(peer.runs(), [0_u16; 0]);
    assert_eq!(peer.base(0), 7, "asked again");
    peer.tell(Req::SET_VRING_BASE, state(0, 0x8005_8005));
    peer.give(Req::SET_VRING_KICK, bytes(&[0]), event());
    assert_eq!(peer.device.told().rings[&0].base, 0x8005_8005);
    assert_eq!(peer.base(0), 0x8005_800c);
    // Without a new base it goes on where it stopped.
    peer.device.told().progress = 0;
    peer.tell(Req::SET_VRING_BASE, state(0, 0x8000));
    peer.give(Req::SET_VRING_KICK, bytes(&[0]), event());
    assert_eq!(peer.device.told().rings[&0].base, 0x8000_8000);
}

#[test]
fn the_used_index_in_memory_wins_over_a_stale_base() {
    let mut peer = Peer::new();
    peer.agree(OFFERED & !PACKED);
    let ram = memory();
    rustix::io::pwrite(&ram, &0x1234_u16.to_le_bytes(), 0x1802).unwrap();
    let table = [state(1, 0), region(GUEST, LEN, USER)].concat();
    peer.give(Req::SET_MEM_TABLE, table, ram);
    let call = event();
    peer.give(Req::SET_VRING_CALL, bytes(&[0]), call.try_clone().unwrap());
    peer.set_up(0, 0x1200);
    assert_eq!(peer.device.told().rings[&0].base, 0x1234);
    assert!(signalled(&call), "the interrupt of what was used before may be lost");
}

#[test]
fn logging_begins_and_ends_without_resetting_rings() {
    let mut peer = Peer::ready(OFFERED & !PACKED | PROTOCOL_FEATURES);
    let base = peer.device.told().rings[&0].base;
    let log = [LEN / 4096 / 8 + 8, 0];
    let reply = peer.ask(Req::SET_LOG_BASE, bytes(&log), vec![memory()], false).unwrap().unwrap();
    assert_eq!(reply, bytes(&log), "an answer, though none was asked for");
    assert!(peer.device.told().rings[&0].logs_to.is_none());
    peer.give(Req::SET_LOG_FD, vec![], event());
    peer.agree(OFFERED & !PACKED | PROTOCOL_FEATURES | LOG_ALL);
    peer.tell(Req::SET_VRING_ADDR, addresses(0, Some(0x1800)));
    {
        let told = peer.device.told();
        let ring = &told.rings[&0];
        assert!(ring.logs_to.is_some());
        assert_eq!((ring.log_used, ring.base), (Some(0x1800), base));
        assert_eq!(ring.features & LOG_ALL, 0, "not the device's");
    }
    // A ring that starts meanwhile logs from the beginning.
    peer.set_up(1, 0);
    assert!(peer.device.told().rings[&1].logs_to.is_some());
    peer.agree(OFFERED & !PACKED | PROTOCOL_FEATURES);
    assert!(peer.device.told().rings[&0].logs_to.is_none());
    assert_eq!(peer.base(0), base + 7, "the ring was never stopped in between");
}

#[test]
fn memory_changes_while_rings_run() {
    let mut peer = Peer::ready(OFFERED & !PACKED);
    let before = peer.device.told().rings[&0].map.id();
    peer.give(Req::ADD_MEM_REG, [bytes(&[0]), region(GUEST * 2, LEN, USER * 2)].concat(), memory());
    assert_eq!(peer.device.told().rings[&0].map.regions(), 2);
    assert_ne!(peer.device.told().rings[&0].map.id(), before);
    peer.tell(Req::REM_MEM_REG, [bytes(&[0]), region(GUEST * 2, LEN, USER * 2)].concat());
    assert_eq!(peer.device.told().rings[&0].map.regions(), 1);
    // The region that the ring lies in goes: the ring stops, and comes back with it where it was.
    let own = [bytes(&[0]), region(GUEST, LEN, USER)].concat();
    peer.tell(Req::REM_MEM_REG, own.clone());
    assert_eq!(peer.runs(), [0_u16; 0]);
    let ram = memory();
    rustix::io::pwrite(&ram, &7_u16.to_le_bytes(), 0x1802).unwrap();
    peer.give(Req::ADD_MEM_REG, own, ram);
    assert_eq!(peer.runs(), [0]);
    assert_eq!(peer.device.told().rings[&0].base, 7);
}

#[test]
fn a_ring_outside_memory_is_told_and_retried() {
    let mut peer = Peer::new();
    peer.agree(OFFERED & !PACKED);
    peer.share_memory();
    let err = event();
    peer.give(Req::SET_VRING_ERR, bytes(&[0]), err.try_clone().unwrap());
    peer.tell(Req::SET_VRING_NUM, state(0, 64));
    peer.tell(Req::SET_VRING_BASE, state(0, 0));
    peer.tell(Req::SET_VRING_ADDR, [state(0, 0), bytes(&[16, 32, 64, 0])].concat());
    peer.give(Req::SET_VRING_KICK, bytes(&[0]), event());
    assert_eq!(peer.runs(), [0_u16; 0]);
    assert!(signalled(&err));
    peer.tell(Req::SET_VRING_ADDR, addresses(0, None));
    assert_eq!(peer.runs(), [0]);
}

#[test]
fn enabling_is_passed_on() {
    let mut peer = Peer::ready(OFFERED & !PACKED | PROTOCOL_FEATURES);
    for on in [1, 0, 1] {
        peer.tell(Req::SET_VRING_ENABLE, state(0, on));
        assert_eq!(peer.device.told().rings[&0].enabled, on == 1);
    }
    // Said before the ring is there.
    peer.tell(Req::SET_VRING_ENABLE, state(1, 1));
    peer.set_up(1, 0);
    assert!(peer.device.told().rings[&1].enabled);
}

#[test]
fn a_reset_stops_rings_and_keeps_positions_for_old_front_ends() {
    let mut peer = Peer::ready(OFFERED & !PACKED);
    peer.tell(Req::SET_STATUS, bytes(&[0]));
    assert_eq!(peer.runs(), [0_u16; 0]);
    assert_eq!(peer.base(0), 7, "QEMU before 8.1 asks after the reset");
    let mut peer = Peer::ready(OFFERED & !PACKED);
    peer.tell(Req::RESET_DEVICE, vec![]);
    assert_eq!(peer.runs(), [0_u16; 0]);
    // Memory stays, everything else is said again.
    peer.agree(OFFERED & PACKED);
    peer.set_up(0, 0x8000_8000);
    assert_eq!(peer.device.told().rings[&0].features, PACKED);
}

#[test]
fn other_features_restart_rings_where_they_are() {
    let mut peer = Peer::ready(OFFERED & PACKED);
    peer.agree(OFFERED & PACKED | OFFERED & 1 << 35);
    let told = peer.device.told();
    assert_eq!(told.rings[&0].features & 1 << 35, 1 << 35);
    assert_eq!(told.rings[&0].base, 0x0007_0007);
}

#[test]
fn acknowledgements_are_given_when_agreed_and_asked_for() {
    let mut peer = Peer::new();
    let mtu = |mtu| bytes(&[mtu]);
    assert_eq!(peer.ask(Req::NET_SET_MTU, mtu(1500), vec![], true).unwrap(), None, "not agreed yet");
    peer.tell(Req::SET_PROTOCOL_FEATURES, bytes(&[Protocol::REPLY_ACK.bits()]));
    assert_eq!(peer.ask(Req::NET_SET_MTU, mtu(1400), vec![], false).unwrap(), None, "not asked for");
    assert_eq!(peer.ask(Req::NET_SET_MTU, mtu(1300), vec![], true).unwrap(), Some(bytes(&[0])));
    assert_eq!(peer.device.told().mtu, Some(1300));
    assert_eq!(peer.ask(Req::NET_SET_MTU, mtu(9001), vec![], true).unwrap(), Some(bytes(&[1])), "refused");
    let short = [bytes(&[0]), region(GUEST, 2 * LEN, USER)].concat();
    assert_eq!(peer.ask(Req::ADD_MEM_REG, short.clone(), vec![memory()], true).unwrap(), Some(bytes(&[1])));
    // Who does not listen for the answer must not believe that all is well.
    let reason = peer.refused(Req::ADD_MEM_REG, short, vec![memory()]);
    assert!(reason.contains("0x20000") && reason.contains("0x10000"), "{reason}");
}

#[test]
fn the_configuration_space_is_served() {
    let mut peer = Peer::new();
    peer.device.told().config[6] = 1;
    let ask = |offset: u32, data: &[u8]| {
        let head = [offset, data.len() as u32, 0].map(u32::to_ne_bytes).concat();
        [head, data.to_vec()].concat()
    };
    let reply = peer.ask(Req::GET_CONFIG, ask(6, &[0; 2]), vec![], false).unwrap().unwrap();
    assert_eq!(reply[12..], [1, 0]);
    let reply = peer.ask(Req::GET_CONFIG, ask(1000, &[0; 4]), vec![], false).unwrap().unwrap();
    assert_eq!(reply.len(), 12, "no bytes: there are none");
    peer.tell(Req::SET_CONFIG, ask(20, &[9; 4]));
    assert_eq!(peer.device.told().config[20..], [9; 4]);
    assert!(peer.refused(Req::SET_CONFIG, ask(0, &[9; 4]), vec![]).contains("cannot be written"));
}

#[test]
fn changes_are_told_on_the_back_end_channel_and_never_waited_for() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut peer = Peer::new();
    peer.session.config_changed();
    peer.give(Req::SET_BACKEND_REQ_FD, vec![], theirs.into());
    ours.set_nonblocking(true).unwrap();
    peer.session.config_changed();
    let mut message = [0; 64];
    let got = rustix::io::read(&ours, &mut message).unwrap();
    let expected = [2_u32, 1, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(message[..got], expected, "CONFIG_CHANGE_MSG, no answer wanted");
    // The front end does not read: nothing waits, and in the end it hears of a change once more.
    for _ in 0..100_000 {
        peer.session.config_changed();
    }
    while rustix::io::read(&ours, &mut message).is_ok() {}
    peer.session.flush_back_channel();
    let mut got = 0;
    while let Ok(more) = rustix::io::read(&ours, &mut message) {
        got += more;
    }
    assert_eq!(got % 12, 0);
    // Hung up: nothing happens.
    drop(ours);
    peer.session.config_changed();
    peer.session.config_changed();
}

#[test]
fn in_flight_records_say_that_nothing_is() {
    let mut peer = Peer::new();
    peer.agree(OFFERED & !PACKED);
    let numbers = [[0_u8; 16].to_vec(), 2_u16.to_ne_bytes().to_vec(), 64_u16.to_ne_bytes().to_vec()].concat();
    for padding in [0, 4] {
        let ask = [numbers.clone(), vec![0; padding]].concat();
        let message =
            Message { request: Req::GET_INFLIGHT_FD, need_reply: false, payload: ask, fds: Vec::new() };
        let reply = peer.session.take(&mut peer.device, message).unwrap().unwrap();
        let payload = reply.bytes[HEADER_LEN..].to_vec();
        assert_eq!(payload.len(), 20 + padding);
        let fd = reply.fd.unwrap();
        assert_eq!(payload[..8], u64::to_ne_bytes(2 * 1088));
        peer.give(Req::SET_INFLIGHT_FD, payload, fd.try_clone().unwrap());
        peer.share_memory();
        peer.set_up(1, 0);
        assert_eq!(peer.base(1), 7);
        let mut header = [0; 16];
        rustix::io::pread(&fd, &mut header, 1088).unwrap();
        let words: Vec<u16> = header[8..].chunks(2).map(|w| u16::from_ne_bytes([w[0], w[1]])).collect();
        assert_eq!(words, [1, 64, 0, 7], "version, size, no last batch, used index");
    }
}

#[test]
fn rarp_is_passed_on() {
    let mut peer = Peer::new();
    peer.tell(Req::SEND_RARP, vec![0x52, 0x54, 0, 1, 2, 3, 0, 0]);
    assert_eq!(peer.device.told().announced, [[0x52, 0x54, 0, 1, 2, 3]]);
}

#[test]
fn what_is_wrong_is_said() {
    let cases: Vec<(Req, Vec<u8>, Vec<OwnedFd>, &str)> = vec![
        (Req::SET_FEATURES, bytes(&[1 << 34 | 1]), vec![], "bit 0 (0x1) beyond the offer"),
        (Req::SET_FEATURES, vec![0; 7], vec![], "7 bytes of payload, expected 8"),
        (Req::SET_PROTOCOL_FEATURES, bytes(&[1 << 19]), vec![], "protocol features 0x80000"),
        (Req::SET_VRING_NUM, state(4, 64), vec![], "ring 4 of 4"),
        (Req::SET_VRING_NUM, state(0, 0), vec![], "size 0"),
        (Req::SET_VRING_NUM, state(0, 65536), vec![], "size 65536"),
        (Req::SET_VRING_NUM, state(0, 64), vec![event()], "1 file descriptors, expected none"),
        (Req::SET_VRING_KICK, bytes(&[0]), vec![], "0 file descriptors, expected exactly one"),
        (Req::SET_VRING_KICK, bytes(&[0]), vec![event(), event()], "2 file descriptors"),
        (Req::SET_VRING_KICK, bytes(&[0x100]), vec![event()], "expected none"),
        (Req::SET_VRING_KICK, bytes(&[0x200]), vec![event()], "bit 8"),
        (Req::SET_VRING_CALL, bytes(&[0]), vec![memory()], "no eventfd"),
        (Req::SET_VRING_ENABLE, state(0, 2), vec![], "expected 0 or 1"),
        (Req::SET_VRING_ADDR, addresses(0, None)[..39].to_vec(), vec![], "39 bytes of payload, expected 40"),
        (
            Req::SET_MEM_TABLE,
            [state(2, 0), region(0, LEN, 0)].concat(),
            vec![memory()],
            "40 bytes of payload",
        ),
        (Req::SET_MEM_TABLE, [state(1, 0), region(0, LEN, 0)].concat(), vec![], "one for each region"),
        (Req::SET_MEM_TABLE, state(u32::MAX, 0), vec![], "regions"),
        (Req::ADD_MEM_REG, [bytes(&[0]), region(0, 0, 0)].concat(), vec![memory()], "length above 0"),
        (Req::ADD_MEM_REG, [bytes(&[0]), region(u64::MAX, 2, 0)].concat(), vec![memory()], "wraps around"),
        (Req::REM_MEM_REG, [bytes(&[0]), region(5, 5, 5)].concat(), vec![], "no memory region at 0x5"),
        (Req::SET_LOG_BASE, bytes(&[0, 0]), vec![memory()], "length above 0"),
        (Req::SET_LOG_BASE, bytes(&[2 * LEN, 0]), vec![memory()], "which has"),
        (Req::SET_STATUS, bytes(&[256]), vec![], "0x100"),
        (Req::GET_INFLIGHT_FD, [bytes(&[0, 0]), vec![5, 0, 64, 0]].concat(), vec![], "5 rings of 64"),
        (Req::GET_INFLIGHT_FD, [bytes(&[0, 0]), vec![1, 0, 0xff, 0xff]].concat(), vec![], "of 65535"),
        (Req::GET_INFLIGHT_FD, bytes(&[0, 0]), vec![], "16 bytes of payload"),
        (Req::SET_DEVICE_STATE_FD, bytes(&[0]), vec![event()], "not offered"),
        (Req::IOTLB_MSG, vec![], vec![], "not offered"),
    ];
    for (request, payload, fds, expected) in cases {
        let reason = Peer::new().refused(request, payload, fds);
        assert!(reason.contains(expected) && reason.contains(&format!("{request:?}")), "{reason}");
    }
}

#[test]
fn a_call_descriptor_is_made_non_blocking() {
    let call = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let mut peer = Peer::new();
    peer.give(Req::SET_VRING_CALL, bytes(&[0]), call.try_clone().unwrap());
    assert!(rustix::fs::fcntl_getfl(&call).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
}

/// Descriptors of this process that are not others tests': those above the highest one so far would be hard to tell, so
/// the test that counts runs in a process of its own (cargo nextest) or takes the numbers of its own files.
fn is_open(fd: i32) -> bool {
    std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok()
}

#[test]
fn descriptors_are_closed_with_the_session_and_when_replaced() {
    let mut peer = Peer::ready(OFFERED & !PACKED);
    let (first, second) = (event(), event());
    let (a, b) = (first.as_raw_fd(), second.as_raw_fd());
    peer.give(Req::SET_VRING_ERR, bytes(&[0]), first);
    assert!(is_open(a));
    peer.give(Req::SET_VRING_ERR, bytes(&[0]), second);
    assert!(!is_open(a) && is_open(b));
    let wrong = event();
    let c = wrong.as_raw_fd();
    peer.refused(Req::SET_OWNER, vec![], vec![wrong]);
    assert!(!is_open(c));
    peer.session.end(&mut peer.device, "end");
    assert!(!is_open(b));
}

/// Any message of a front end that is not entirely mad.
fn some_message() -> impl Strategy<Value = (u32, Vec<u8>, u8, bool)> {
    let ring = 0_u32..6;
    let payload = prop_oneof![
        Just(Vec::new()),
        any::<u64>().prop_map(|n| bytes(&[n])),
        (0_u64..3).prop_map(|n| bytes(&[n])),
        Just(bytes(&[OFFERED & !PACKED])),
        Just(bytes(&[OFFERED | PROTOCOL_FEATURES])),
        Just(bytes(&[OFFERED | LOG_ALL | PROTOCOL_FEATURES])),
        Just(bytes(&[Protocol::REPLY_ACK.bits()])),
        (ring.clone(), prop_oneof![Just(64_u32), Just(0), Just(1), Just(0x8000_8000), any::<u32>()])
            .prop_map(|(ring, num)| state(ring, num)),
        (ring.clone(), any::<bool>()).prop_map(|(ring, log)| addresses(ring, log.then_some(0x1800))),
        (ring).prop_map(|ring| bytes(&[u64::from(ring) | 0x100])),
        Just([state(1, 0), region(GUEST, LEN, USER)].concat()),
        Just([bytes(&[0]), region(GUEST, LEN, USER)].concat()),
        Just([bytes(&[0]), region(GUEST * 2, LEN, USER * 2)].concat()),
        Just(bytes(&[0x1000, 0])),
        prop::collection::vec(any::<u8>(), 0..64),
    ];
    (1_u32..46, payload, 0_u8..4, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever order messages come in: no panic, the device's promises hold (the fake device checks them), and when the
    /// session has ended nothing runs. A session that refuses a message is begun anew, as a front end would.
    #[test]
    fn any_order_is_survived(messages in prop::collection::vec(some_message(), 1..60)) {
        let mut peer = Peer::new();
        for (code, payload, fds, ack) in messages {
            let Ok(request) = Req::try_from(code) else { continue };
            let fds = (0..fds.min(2)).map(|n| if n + fds == 1 { memory() } else { event() }).collect();
            if peer.ask(request, payload, fds, ack).is_err() {
                let device = peer.device.clone();
                peer.session.end(&mut device.clone(), "refused");
                prop_assert!(device.told().rings.is_empty());
                peer = Peer { session: Session::new(&device), device };
            }
        }
        peer.session.end(&mut peer.device, "end");
        prop_assert!(peer.device.told().rings.is_empty());
    }

    /// The same for a front end that says all the right things in any order and any number of times: every ring of which
    /// all was said runs.
    #[test]
    fn what_is_complete_runs(order in prop::collection::vec((0_u32..7, 0_u32..2), 1..60)) {
        let mut peer = Peer::new();
        let mut said = [[false; 4]; 2];
        let (mut features, mut has_memory) = (false, false);
        for (what, ring) in order {
            let mine = &mut said[ring as usize];
            match what {
                0 => { peer.agree(OFFERED & !PACKED); features = true }
                1 => { peer.share_memory(); has_memory = true }
                2 => { peer.tell(Req::SET_VRING_NUM, state(ring, 64)); mine[0] = true }
                3 => { peer.tell(Req::SET_VRING_BASE, state(ring, 0)); mine[1] = true }
                4 => { peer.tell(Req::SET_VRING_ADDR, addresses(ring, None)); mine[2] = true }
                5 => { peer.give(Req::SET_VRING_KICK, bytes(&[u64::from(ring)]), event()); mine[3] = true }
                _ => {
                    let _ = peer.base(ring);
                    // It is asked for again with a kick; the base stays known if it ever was.
                    let ran = features && has_memory && mine.iter().all(|said| *said);
                    mine[3] = false;
                    mine[1] |= ran;
                }
            }
            for (ring, said) in (0_u16..).zip(&said) {
                let complete = features && has_memory && said.iter().all(|said| *said);
                prop_assert_eq!(peer.device.told().rings.contains_key(&ring), complete);
            }
        }
    }
}
