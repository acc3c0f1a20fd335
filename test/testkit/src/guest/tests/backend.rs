//! The back end: takes any message in any order, and loops frames from each transmit ring to the receive ring of its pair.

use super::*;
use crate::driver::Piece;
use crate::driver::tests::{Device, Seen};

#[derive(Default)]
struct RingState {
    size: u16,
    base: u32,
    user: Option<[u64; 3]>,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    enabled: bool,
    device: Option<Device>,
}

pub(super) struct Backend {
    channel: Channel,
    features: u64,
    protocol: u64,
    regions: Vec<Region>,
    map: Option<Arc<Map>>,
    rings: Vec<RingState>,
}

/// As the front end tells of them.
struct Region {
    guest: u64,
    user: u64,
    len: u64,
    file: OwnedFd,
}

impl Backend {
    pub(super) fn new(stream: UnixStream) -> Backend {
        Backend {
            channel: Channel::new(stream).unwrap(),
            features: 0,
            protocol: 0,
            regions: Vec::new(),
            map: None,
            rings: (0..4).map(|_| RingState::default()).collect(),
        }
    }

    /// Until the front end goes.
    pub(super) fn run(mut self) {
        loop {
            let fd = self.channel.as_fd();
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000 })).unwrap();
            if !fds[0].revents().is_empty() {
                let Ok(message) = self.channel.receive() else { return };
                self.message(message);
            }
            self.loop_frames(0);
            self.loop_frames(2);
        }
    }

    fn answer(&self, message: &Message, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        self.channel.send_raw(message.request, 5, payload, fds).unwrap();
    }

    fn message(&mut self, mut message: Message) {
        let first = message.u64(0).unwrap_or(0);
        let index = (first & 0xff) as usize;
        let value = message.u32(4).unwrap_or(0);
        let fd = message.fds.pop();
        match message.request {
            request::GET_FEATURES => return self.answer(&message, &FEATURES.to_ne_bytes(), &[]),
            request::GET_PROTOCOL_FEATURES => return self.answer(&message, &PROTOCOL.to_ne_bytes(), &[]),
            request::GET_QUEUE_NUM => return self.answer(&message, &4_u64.to_ne_bytes(), &[]),
            request::GET_MAX_MEM_SLOTS => return self.answer(&message, &32_u64.to_ne_bytes(), &[]),
            request::GET_INFLIGHT_FD => {
                let file = rustix::fs::memfd_create("inflight", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
                let payload = [4096_u64.to_ne_bytes(), [0; 8], [4, 0, 0, 0, 0, 0, 0, 0]].concat();
                return self.answer(&message, &payload, &[file.as_fd()]);
            }
            request::GET_VRING_BASE => {
                let ring = &mut self.rings[index];
                if let Some(device) = ring.device.take() {
                    ring.base = device.base();
                }
                ring.kick = None;
                let payload = [(index as u32).to_ne_bytes(), ring.base.to_ne_bytes()].concat();
                return self.answer(&message, &payload, &[]);
            }
            request::RESET_DEVICE => {
                let calls = self.rings.iter_mut().map(|ring| ring.call.take());
                self.rings = calls.map(|call| RingState { call, ..RingState::default() }).collect();
                self.features = 0;
            }
            request::SET_FEATURES => self.features = first,
            request::SET_PROTOCOL_FEATURES => self.protocol = first,
            request::SET_MEM_TABLE => {
                message.fds.extend(fd);
                let files = std::mem::take(&mut message.fds);
                self.regions = (0..)
                    .zip(files)
                    .map(|(i, file)| {
                        let word = |n: usize| message.u64(8 + 32 * i + 8 * n).unwrap();
                        Region { guest: word(0), len: word(1), user: word(2), file }
                    })
                    .collect();
                self.map_regions();
            }
            request::SET_VRING_NUM => self.rings[index].size = value as u16,
            request::SET_VRING_BASE => self.rings[index].base = value,
            request::SET_VRING_ADDR => {
                let word = |n: usize| message.u64(8 + 8 * n).unwrap();
                self.rings[index].user = Some([word(0), word(2), word(1)]);
            }
            request::SET_VRING_KICK => self.rings[index].kick = fd,
            request::SET_VRING_CALL => self.rings[index].call = fd,
            request::SET_VRING_ENABLE => self.rings[index].enabled = value != 0,
            _ => {}
        }
        if message.flags & 8 != 0 {
            self.answer(&message, &0_u64.to_ne_bytes(), &[]);
        }
        (0..4).for_each(|ring| self.start(ring));
    }

    fn map_regions(&mut self) {
        let specs = self.regions.iter().map(|region| RegionSpec {
            guest_addr: region.guest,
            user_addr: region.user,
            len: region.len,
            offset: 0,
            file: region.file.try_clone().unwrap(),
        });
        self.map = Some(Map::new(specs.collect()).unwrap());
    }

    fn guest_address(&self, user: u64) -> u64 {
        self.map.as_ref().unwrap().user_to_guest(user).expect("an address of the table")
    }

    /// Starts a ring once all of it is known.
    fn start(&mut self, index: usize) {
        let ring = &self.rings[index];
        let (true, Some(user), Some(map)) = (ring.kick.is_some(), ring.user, &self.map) else { return };
        if ring.device.is_some() {
            return;
        }
        let has = |feature| self.features & feature != 0;
        let [descriptors, driver, device] = user.map(|at| self.guest_address(at));
        let place = RingPlace { descriptors, driver, device };
        let options = RingOptions {
            size: ring.size,
            packed: has(virtio::RING_PACKED),
            event_idx: has(virtio::EVENT_IDX),
            in_order: has(virtio::IN_ORDER),
            indirect: 0,
        };
        let files = self.regions.iter().map(|region| (region.guest, region.len, region.file.as_fd()));
        let mut device = Device::on(map, files, &options, place);
        device.start_at(ring.base);
        device.ask_kicks(true);
        self.rings[index].device = Some(device);
    }

    fn bytes(&self, pieces: &[Piece]) -> Vec<u8> {
        let map = self.map.as_ref().unwrap();
        let mut bytes = Vec::new();
        for piece in pieces {
            let slice = map.translate(piece.addr, piece.len, &mut Default::default()).unwrap();
            let at = bytes.len();
            bytes.resize(at + piece.len as usize, 0);
            map.read(&slice, 0, &mut bytes[at..]);
        }
        bytes
    }

    /// Writes as much as fits; gives what is left.
    fn put<'a>(&self, pieces: &[Piece], mut bytes: &'a [u8]) -> &'a [u8] {
        let map = self.map.as_ref().unwrap();
        for piece in pieces.iter().filter(|piece| piece.writable) {
            let slice = map.translate(piece.addr, piece.len, &mut Default::default()).unwrap();
            let n = map.write(&slice, 0, bytes);
            bytes = &bytes[n..];
        }
        bytes
    }

    fn loop_frames(&mut self, receive: usize) {
        let mergeable = self.features & virtio::MRG_RXBUF != 0;
        if !self.rings[receive].enabled || !self.rings[receive + 1].enabled {
            return;
        }
        while let Some(sent) = self.take(receive + 1) {
            let mut frame = self.bytes(&sent.pieces);
            // Buffers first, for the header says how many they are.
            let (mut buffers, mut room) = (Vec::new(), 0);
            while room < frame.len() {
                assert!(mergeable || buffers.is_empty(), "{} bytes in a buffer of {room}", frame.len());
                let seen = loop {
                    match self.take(receive) {
                        Some(seen) => break seen,
                        // The driver gives them back when it has looked at what it has.
                        None => std::thread::yield_now(),
                    }
                };
                room += seen.pieces.iter().map(|piece| piece.len as usize).sum::<usize>();
                buffers.push(seen);
            }
            frame[10..12].copy_from_slice(&(buffers.len() as u16).to_le_bytes());
            let mut rest = frame.as_slice();
            let used: Vec<(Seen, u32)> = buffers
                .into_iter()
                .map(|seen| {
                    let left = self.put(&seen.pieces, rest);
                    let len = (rest.len() - left.len()) as u32;
                    rest = left;
                    (seen, len)
                })
                .collect();
            self.rings[receive].device.as_mut().unwrap().give_together(&used);
            self.rings[receive + 1].device.as_mut().unwrap().give(&sent, 0);
            for index in [receive, receive + 1] {
                let ring = &mut self.rings[index];
                if ring.device.as_mut().unwrap().wants_call()
                    && let Some(call) = &ring.call
                {
                    rustix::io::write(call, &1_u64.to_ne_bytes()).unwrap();
                }
            }
        }
    }

    fn take(&mut self, ring: usize) -> Option<Seen> {
        self.rings[ring].device.as_mut()?.take()
    }
}
