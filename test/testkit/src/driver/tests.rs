//! The rings against a device: `virtio-queue` for the split format, the model in `packed_device` for the packed one.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use fabnic_memory::Map;
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::memory::Backing;

mod light_rings;
mod packed_device;

use packed_device::PackedDevice;

/// A chain as the device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What it is given back with: head or id, and (packed) its descriptors.
    pub(crate) id: u16,
    pub(crate) slots: u16,
    pub(crate) pieces: Vec<Piece>,
}

/// The other half of a ring.
pub(crate) enum Device {
    Split(Box<Queue>, GuestMemoryMmap),
    Packed(PackedDevice),
}

impl Device {
    fn new(memory: &GuestMemory, options: &RingOptions, place: RingPlace) -> Device {
        let files = memory.regions().iter().map(|r| (r.guest_addr, r.len, r.file.as_fd()));
        Device::on(memory.map(), files, options, place)
    }

    /// On memory that is mapped, and made of these files from their first bytes on.
    pub(crate) fn on<'a>(
        map: &Arc<Map>,
        files: impl Iterator<Item = (u64, u64, BorrowedFd<'a>)>,
        options: &RingOptions,
        place: RingPlace,
    ) -> Device {
        if options.packed {
            return Device::Packed(PackedDevice::new(map, options, place));
        }
        let mut queue = Queue::new(options.size).unwrap();
        queue.try_set_desc_table_address(GuestAddress(place.descriptors)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(place.driver)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(place.device)).unwrap();
        queue.set_event_idx(options.event_idx);
        queue.set_ready(true);
        let ranges = files.map(|(addr, len, file)| {
            let file = File::from(file.try_clone_to_owned().unwrap());
            (GuestAddress(addr), len as usize, Some(FileOffset::new(file, 0)))
        });
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        assert!(queue.is_valid(&memory));
        Device::Split(Box::new(queue), memory)
    }

    /// The next chain that the driver made available.
    pub(crate) fn take(&mut self) -> Option<Seen> {
        match self {
            Device::Split(queue, memory) => {
                let chain = queue.pop_descriptor_chain(&*memory)?;
                let id = chain.head_index();
                let pieces =
                    chain.map(|d| Piece { addr: d.addr().0, len: d.len(), writable: d.is_write_only() });
                Some(Seen { id, slots: 0, pieces: pieces.collect() })
            }
            Device::Packed(device) => device.take(),
        }
    }

    pub(crate) fn give(&mut self, seen: &Seen, len: u32) {
        match self {
            Device::Split(queue, memory) => queue.add_used(memory, seen.id, len).unwrap(),
            Device::Packed(device) => device.give(seen, len),
        }
    }

    /// Gives several chains back so that the driver sees all or none of them, as a frame's buffers must be (virtio 1.x,
    /// section 5.1.6.4).
    pub(crate) fn give_together(&mut self, chains: &[(Seen, u32)]) {
        match self {
            Device::Split(queue, memory) => {
                let (at, size) = (queue.next_used(), queue.size());
                let Some(((last, last_len), before)) = chains.split_last() else { return };
                for (i, (seen, len)) in (0..).zip(before) {
                    let place = queue.used_ring() + 4 + 8 * u64::from(at.wrapping_add(i) % size);
                    memory.write_obj(u32::from(seen.id), GuestAddress(place)).unwrap();
                    memory.write_obj(*len, GuestAddress(place + 4)).unwrap();
                }
                queue.set_next_used(at.wrapping_add(before.len() as u16));
                queue.add_used(memory, last.id, *last_len).unwrap();
            }
            Device::Packed(device) => device.give_first_last(chains)(),
        }
    }

    /// Where it stands, as vhost-user has it.
    pub(crate) fn base(&self) -> u32 {
        match self {
            Device::Split(queue, _) => u32::from(queue.next_avail()),
            Device::Packed(device) => device.base(),
        }
    }

    /// Goes on from there.
    pub(crate) fn start_at(&mut self, base: u32) {
        match self {
            Device::Split(queue, _) => {
                queue.set_next_avail(base as u16);
                queue.set_next_used(base as u16);
            }
            Device::Packed(device) => device.start_at(base),
        }
    }

    /// Whether the driver wants to be called.
    pub(crate) fn wants_call(&mut self) -> bool {
        match self {
            // virtio-queue does not look at the flag, which is legal: it is a hint.
            Device::Split(queue, memory) if !queue.event_idx_enabled() => {
                memory.read_obj::<u16>(GuestAddress(queue.avail_ring())).unwrap() & 1 == 0
            }
            Device::Split(queue, memory) => queue.needs_notification(memory).unwrap(),
            Device::Packed(device) => device.wants_call(),
        }
    }

    pub(crate) fn ask_kicks(&mut self, on: bool) {
        match self {
            Device::Split(queue, memory) if on => {
                queue.enable_notification(memory).unwrap();
            }
            Device::Split(queue, memory) => queue.disable_notification(memory).unwrap(),
            Device::Packed(device) => device.ask_kicks(on),
        }
    }
}

fn ring_and_device(options: RingOptions) -> (GuestMemory, Ring, Device) {
    let mut memory = GuestMemory::new(8 << 20, Backing::Ordinary).unwrap();
    let ring = Ring::new(&mut memory, options).unwrap();
    let device = Device::new(&memory, &options, ring.place());
    (memory, ring, device)
}

fn all_options() -> Vec<RingOptions> {
    let mut all = Vec::new();
    for packed in [false, true] {
        for event_idx in [false, true] {
            for in_order in [false, true] {
                for indirect in [0, 8] {
                    all.push(RingOptions { size: 16, packed, event_idx, in_order, indirect });
                }
            }
        }
    }
    all
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<(u32, bool)>),
    Publish,
    Take,
    Give(prop::sample::Index, u32),
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((1_u32..5000, any::<bool>()), 1..6).prop_map(|mut pieces| {
            // Readable pieces come before writable ones (virtio 1.x, section 2.7.4.2).
            pieces.sort_by_key(|(_, writable)| *writable);
            Step::Add(pieces)
        }),
        2 => Just(Step::Publish),
        4 => Just(Step::Take),
        4 => (any::<prop::sample::Index>(), 0_u32..3000).prop_map(|(i, n)| Step::Give(i, n)),
        3 => Just(Step::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is added comes out at the device as it was, in order and only once published; whatever the device gives
    /// back comes out at the driver with its token and its length; nothing is lost and nothing leaks.
    #[test]
    fn a_ring_is_what_its_device_sees(
        options in prop::sample::select(all_options()),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let (_memory, mut ring, mut device) = ring_and_device(options);
        let (mut token, mut hidden) = (0_u32, 0);
        let mut added: VecDeque<(u32, Vec<Piece>)> = VecDeque::new();
        let mut at_device: VecDeque<(u32, Seen)> = VecDeque::new();
        let mut given: VecDeque<Used> = VecDeque::new();
        for step in steps {
            match step {
                Step::Add(pieces) => {
                    let addr = |i: usize| 0x4000_0000 + u64::from(token) * 0x10000 + 0x1000 * i as u64;
                    let piece = |(i, (len, writable))| Piece { addr: addr(i), len, writable };
                    let pieces: Vec<Piece> = pieces.into_iter().enumerate().map(piece).collect();
                    let needs = if options.indirect > 0 && pieces.len() > 1 { 1 } else { pieces.len() };
                    let fits = needs <= usize::from(ring.free());
                    prop_assert_eq!(ring.add(&pieces, token), fits);
                    if fits {
                        added.push_back((token, pieces));
                        hidden += 1;
                        token += 1;
                    }
                }
                Step::Publish => {
                    ring.publish();
                    hidden = 0;
                }
                Step::Take => {
                    let visible = added.len() - hidden;
                    match device.take() {
                        None => prop_assert_eq!(visible, 0),
                        Some(seen) => {
                            prop_assert!(visible > 0, "seen before it was published");
                            let (token, pieces) = added.pop_front().unwrap();
                            prop_assert_eq!(&seen.pieces, &pieces);
                            at_device.push_back((token, seen));
                        }
                    }
                }
                Step::Give(which, len) => {
                    if at_device.is_empty() {
                        continue;
                    }
                    let index = if options.in_order { 0 } else { which.index(at_device.len()) };
                    let (token, seen) = at_device.remove(index).unwrap();
                    let room: u32 = seen.pieces.iter().filter(|p| p.writable).map(|p| p.len).sum();
                    device.give(&seen, len.min(room));
                    given.push_back(Used { token, len: len.min(room) });
                }
                Step::Collect => {
                    let used = ring.next_used().unwrap();
                    prop_assert_eq!(used, given.pop_front());
                }
            }
            let outstanding = added.len() + at_device.len() + given.len();
            prop_assert_eq!(usize::from(ring.outstanding()), outstanding);
        }
        while let Some(expected) = given.pop_front() {
            prop_assert_eq!(ring.next_used().unwrap(), Some(expected));
        }
        prop_assert_eq!(ring.next_used().unwrap(), None);
        if ring.outstanding() == 0 {
            prop_assert_eq!(ring.free(), options.size);
        }
    }
}

const PIECE: Piece = Piece { addr: 0x4010_0000, len: 100, writable: true };

#[test]
fn kicks_and_calls_are_given_when_asked_for() {
    for options in all_options() {
        let (_memory, mut ring, mut device) = ring_and_device(options);
        device.ask_kicks(false);
        assert!(ring.add(&[PIECE], 0));
        // Event indexes have no way to say never, only "not here": the split device's index stands at 0.
        let _ = ring.publish();
        let first = device.take().unwrap();
        device.ask_kicks(true);
        assert!(ring.add(&[PIECE], 1));
        assert!(ring.publish(), "{options:?}: asked for a kick");
        assert!(!ring.wants_kick(), "{options:?}: once");

        assert!(!ring.enable_calls());
        device.give(&first, 10);
        assert!(device.wants_call(), "{options:?}: asked for a call");
        assert!(ring.enable_calls(), "{options:?}: one is there already");
        assert_eq!(ring.next_used(), Ok(Some(Used { token: 0, len: 10 })));
        ring.disable_calls();
        let second = device.take().unwrap();
        device.give(&second, 10);
        assert!(!device.wants_call(), "{options:?}: asked for none");
    }
}

#[test]
fn lies_of_the_device_are_found() {
    for options in all_options() {
        let (_memory, mut ring, mut device) = ring_and_device(options);
        ring.add(&[PIECE], 0);
        ring.add(&[PIECE], 1);
        ring.publish();
        let (first, second) = (device.take().unwrap(), device.take().unwrap());
        device.give(&first, 101);
        let too_long = RingError::TooLong { id: u32::from(first.id), len: 101, room: 100 };
        assert_eq!(ring.next_used(), Err(too_long), "{options:?}");

        let (_memory, mut ring, mut device) = ring_and_device(options);
        ring.add(&[PIECE], 0);
        ring.add(&[PIECE], 1);
        ring.publish();
        let _ = (device.take(), device.take());
        device.give(&Seen { id: 13, ..second.clone() }, 1);
        assert_eq!(ring.next_used(), Err(RingError::NotGiven { id: 13 }), "{options:?}");
    }
}

/// A device with IN_ORDER may use a batch with one entry: the id of its last chain, at the place of its first.
#[test]
fn batches_used_in_order() {
    for packed in [false, true] {
        let options = RingOptions { size: 16, packed, in_order: true, ..RingOptions::default() };
        let (memory, mut ring, mut device) = ring_and_device(options);
        for round in 0..20 {
            for token in 0..5 {
                assert!(ring.add(&[PIECE], 100 * round + token));
            }
            ring.publish();
            let seen: Vec<Seen> = (0..5).map(|_| device.take().unwrap()).collect();
            match &mut device {
                Device::Packed(device) => device.give_batch(&seen, 77),
                Device::Split(..) => {
                    let used: Table<u16> = memory.table(ring.place().device, 2).unwrap();
                    let elements: Table<u32> = memory.table(ring.place().device + 4, 32).unwrap();
                    let at = used.load(1);
                    elements.store(2 * usize::from(at % 16), u32::from(seen[4].id));
                    elements.store(2 * usize::from(at % 16) + 1, 77);
                    used.store_release(1, at.wrapping_add(5));
                }
            }
            let used: Vec<Used> = std::iter::from_fn(|| ring.next_used().unwrap()).collect();
            let len = |token| if token == 4 { 77 } else { 0 };
            let expected: Vec<Used> =
                (0..5).map(|token| Used { token: 100 * round + token, len: len(token) }).collect();
            assert_eq!(used, expected);
            assert_eq!(ring.free(), 16);
        }
    }
}

#[test]
fn a_ring_goes_on_from_its_base() {
    for options in all_options() {
        let (memory, mut ring, mut device) = ring_and_device(options);
        for token in 0..21 {
            assert!(ring.add(&[PIECE], token));
            ring.publish();
            let seen = device.take().unwrap();
            device.give(&seen, 1);
            ring.next_used().unwrap().unwrap();
        }
        let mut successor = Device::new(&memory, &options, ring.place());
        successor.start_at(ring.base());
        assert!(ring.add(&[PIECE], 99));
        ring.publish();
        let seen = successor.take().expect("the next chain");
        successor.give(&seen, 2);
        assert_eq!(ring.next_used(), Ok(Some(Used { token: 99, len: 2 })), "{options:?}");
    }
}

#[test]
fn events() {
    // Moving from 10 to 12 passes 10 and 11, not 12; and so around the end.
    assert!(passes_event(10, 12, 10) && passes_event(11, 12, 10));
    assert!(!passes_event(12, 12, 10) && !passes_event(9, 12, 10));
    assert!(passes_event(0xffff, 1, 0xffff) && passes_event(0, 1, 0xffff));
    assert!(!passes_event(1, 1, 0xffff));
    let mut seen = BTreeMap::new();
    for event in 0..=u16::MAX {
        *seen.entry(passes_event(event, 5, 2)).or_insert(0) += 1;
    }
    assert_eq!(seen[&true], 3);
}
