//! Sessions and drivers against a back end of a few lines: what goes out by a pair comes back by the same pair.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fabnic_memory::{Map, RegionSpec};
use fabnic_wire::Offload;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::driver::{NetDriver, NetLayout, RingOptions};
use crate::features::{protocol, virtio};
use crate::front_end::{Channel, Message, request};
use crate::memory::Backing;
use crate::packets::Packet;

mod backend;

use backend::Backend;

const FEATURES: u64 = virtio::VERSION_1
    | virtio::PROTOCOL_FEATURES
    | virtio::MRG_RXBUF
    | virtio::RING_PACKED
    | virtio::EVENT_IDX
    | virtio::IN_ORDER
    | virtio::INDIRECT_DESC
    | virtio::MQ;
const PROTOCOL: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::STATUS
    | protocol::BACKEND_REQ
    | protocol::RESET_DEVICE
    | protocol::INFLIGHT_SHMFD
    | protocol::CONFIGURE_MEM_SLOTS;

fn wishes(layout: &NetLayout, sequence: Sequence) -> Wishes {
    let mut need = virtio::VERSION_1;
    need |= if layout.ring.packed { virtio::RING_PACKED } else { 0 };
    need |= if layout.ring.event_idx { virtio::EVENT_IDX } else { 0 };
    need |= if layout.ring.in_order { virtio::IN_ORDER } else { 0 };
    need |= if layout.ring.indirect > 0 { virtio::INDIRECT_DESC } else { 0 };
    need |= if layout.mergeable { virtio::MRG_RXBUF } else { 0 };
    Wishes { sequence, want: 0, need, protocol: PROTOCOL, pairs: layout.pairs }
}

fn layouts() -> Vec<NetLayout> {
    let mut all = Vec::new();
    for packed in [false, true] {
        for in_order in [false, true] {
            for (indirect, event_idx, mergeable, header_apart) in [
                (0, false, true, false),
                (20, true, true, true),
                (0, true, false, true),
                (20, false, false, false),
            ] {
                let ring = RingOptions { size: 128, packed, event_idx, in_order, indirect };
                all.push(NetLayout {
                    pairs: 2,
                    ring,
                    mergeable,
                    rx_buffer: if mergeable { 600 } else { 9100 },
                    rx_piece: if mergeable { 0 } else { 4096 },
                    tx_frame: 9000,
                    tx_piece: 1500,
                    header_apart,
                });
            }
        }
    }
    all
}

struct Set {
    backend: Option<std::thread::JoinHandle<()>>,
    session: Session,
    driver: NetDriver,
    memory: GuestMemory,
}

fn connect(layout: &NetLayout, sequence: Sequence) -> (std::thread::JoinHandle<()>, Session) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let backend = std::thread::spawn(move || Backend::new(theirs).run());
    let session = Session::open(FrontEnd::new(ours).unwrap(), wishes(layout, sequence)).unwrap();
    (backend, session)
}

fn set(layout: NetLayout, sequence: Sequence) -> Set {
    let (backend, mut session) = connect(&layout, sequence);
    let regions = [layout.bytes() / 2, layout.bytes(), layout.bytes()];
    let mut memory = GuestMemory::with_regions(&regions, Backing::Ordinary).unwrap();
    let driver = NetDriver::new(&mut memory, layout).unwrap();
    session.start(&memory, &driver.ring_starts()).unwrap();
    (0..session.rings()).for_each(|ring| session.kick(ring));
    Set { backend: Some(backend), session, driver, memory }
}

impl Set {
    /// Sends frames of many sizes on both pairs; all come back, whole, in order, with their headers.
    fn exchange(&mut self, rounds: u32) {
        let end = Instant::now() + Duration::from_secs(60);
        for pair in 0..2 {
            for round in 0..rounds {
                let frames: Vec<Vec<u8>> = (0..8)
                    .map(|i| {
                        let size = 60 + ((round * 8 + i) * 997 % 8900) as usize;
                        Packet::ethernet([2; 6], [4; 6]).payload(&vec![(round + i) as u8; size - 14]).build()
                    })
                    .collect();
                let offload = Offload { flags: 1, csum_start: 34, csum_offset: 6, ..Offload::PLAIN };
                let (mut sent, mut received) = (0, 0);
                while received < frames.len() {
                    let burst: Vec<_> = frames[sent..].iter().map(|f| (offload, f.as_slice())).collect();
                    sent += self.driver.send(&self.session, pair, &burst).unwrap();
                    self.driver
                        .receive(&self.session, pair, 64, |frame| {
                            assert_eq!(frame.offload, offload);
                            assert!(frame.frame == frames[received], "frame {received} of round {round}");
                            received += 1;
                        })
                        .unwrap();
                    assert!(Instant::now() < end, "{received} of {} frames of round {round}", frames.len());
                    std::thread::yield_now();
                }
            }
            while self.driver.pending(pair).unwrap() > 0 {
                assert!(Instant::now() < end, "the back end keeps frames");
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.take().filter(|_| !std::thread::panicking()) {
            let (ours, _) = UnixStream::pair().unwrap();
            *self.session.front_end() = FrontEnd::new(ours).unwrap();
            backend.join().unwrap();
        }
    }
}

#[test]
fn frames_come_back_whole_whatever_the_layout() {
    for layout in layouts() {
        set(layout, Sequence::VirtioUser).exchange(12);
    }
}

#[test]
fn every_order_of_messages_works_again_and_again() {
    for sequence in [Sequence::VirtioUser, Sequence::Qemu, Sequence::CloudHypervisor] {
        for layout in layouts().into_iter().step_by(5) {
            let mut set = set(layout, sequence);
            for _ in 0..3 {
                set.exchange(2);
                let bases = set.session.stop().unwrap();
                assert!(!set.session.is_running());
                let starts = set.driver.ring_starts();
                assert_eq!(starts.len(), bases.len());
                for (ring, (start, base)) in starts.iter().zip(bases).enumerate() {
                    // Transmit rings are empty: the back end stands where the driver stands. Receive rings have
                    // buffers outstanding, of which the back end has used as many as the driver has seen.
                    assert_eq!(start.base, base, "ring {ring} {sequence:?} {layout:?}");
                }
                set.session.start(&set.memory, &starts).unwrap();
            }
        }
    }
}

#[test]
fn a_driver_goes_on_with_another_back_end() {
    for layout in layouts().into_iter().step_by(3) {
        let mut set = set(layout, Sequence::VirtioUser);
        for _ in 0..3 {
            set.exchange(2);
            let (backend, session) = connect(&layout, Sequence::VirtioUser);
            set.session = session;
            let before = set.backend.replace(backend);
            before.unwrap().join().unwrap();
            set.session.start(&set.memory, &set.driver.ring_starts()).unwrap();
        }
    }
}

#[test]
fn a_reset_device_starts_anew() {
    for layout in layouts().into_iter().step_by(5) {
        let mut set = set(layout, Sequence::Qemu);
        assert!(set.session.back_channel().is_some());
        set.exchange(2);
        set.session.reset().unwrap();
        set.memory = GuestMemory::new(layout.bytes(), Backing::Ordinary).unwrap();
        set.driver = NetDriver::new(&mut set.memory, layout).unwrap();
        set.session.start(&set.memory, &set.driver.ring_starts()).unwrap();
        set.exchange(2);
    }
}

#[test]
fn calls_come_when_they_are_asked_for() {
    for layout in layouts().into_iter().step_by(3) {
        let mut set = set(layout, Sequence::VirtioUser);
        let ring = set.driver.ring(0).unwrap();
        assert!(!ring.enable_calls());
        let frame = Packet::ethernet([2; 6], [4; 6]).size(60).build();
        set.driver.send(&set.session, 0, &[(Offload::PLAIN, &frame)]).unwrap();
        assert!(set.session.wait_calls(&[0], Duration::from_secs(20)), "{layout:?}");
        let mut came = 0;
        set.driver.receive(&set.session, 0, 64, |_| came += 1).unwrap();
        assert_eq!(came, 1);
    }
}

#[test]
fn what_is_needed_must_be_offered() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let backend = std::thread::spawn(move || Backend::new(theirs).run());
    let wishes = Wishes { need: virtio::HOST_USO, ..Wishes::default() };
    let refused = Session::open(FrontEnd::new(ours).unwrap(), wishes);
    assert!(matches!(refused, Err(FrontEndError::Missing { missing: virtio::HOST_USO, .. })));
    backend.join().unwrap();
}
