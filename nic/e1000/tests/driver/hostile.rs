//! A driver that does anything: nothing panics, loops or leaves its memory, and the other port notices nothing.

use fabnic_memory::{AddressSpace, Map, RegionSpec};
use fabnic_pci::Function;
use fabnic_port::{Burst, DropReason};
use fabnic_testkit::e1000::{Ask, Layout, Registers, reg};
use fabnic_testkit::packets::Packet;
use proptest::prelude::*;

use crate::guest::{Guest, forward, mac};

fn frame(to: u8, from: u8) -> Vec<u8> {
    Packet::ethernet(mac(to), mac(from)).size(100).build()
}

#[track_caller]
fn assert_stopped(guest: &Guest, why: &str) {
    let stopped = guest.port.stopped().unwrap().reason.0;
    assert!(stopped.contains(why), "{stopped}");
}

#[test]
fn a_tail_beyond_the_ring_stops_the_port_until_a_reset() {
    let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
    a.driver.registers.set(reg::TDT, 300);
    forward(&a.port, &b.port);
    assert_stopped(&a, "transmit ring: head 0 and tail 300, expected both below its 256 descriptors");
    a.driver.up().unwrap();
    assert!(!a.port.is_stopped());
    a.send(&frame(2, 1), &[], &Ask::default());
    assert_eq!(forward(&a.port, &b.port).frames, 1);
    // The other direction.
    b.driver.registers.set(reg::RDT, 999);
    a.send(&frame(2, 1), &[], &Ask::default());
    forward(&a.port, &b.port);
    assert_stopped(&b, "receive ring: head 1 and tail 999");
    assert!(!a.port.is_stopped());
}

#[test]
fn rings_and_buffers_outside_the_memory_stop_the_port() {
    let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
    a.driver.registers.set(reg::TDBAH, 0xdead);
    a.driver.registers.set(reg::TDT, 1);
    forward(&a.port, &b.port);
    assert_stopped(&a, "transmit ring:");
    a.driver.up().unwrap();
    assert!(a.driver.send_raw([0xdead_0000_0000, 100 | 0xb << 24]));
    a.driver.kick();
    forward(&a.port, &b.port);
    assert_stopped(&a, "descriptor 0: 100 bytes at 0xdead00000000 are not in the guest's memory");
    a.driver.up().unwrap();
    b.driver.registers.set(reg::RDBAL, 0);
    a.send(&frame(2, 1), &[], &Ask::default());
    forward(&a.port, &b.port);
    assert_stopped(&b, "receive ring:");
}

#[test]
fn a_ring_without_an_end_stops_the_port() {
    let mut a = Guest::new(1, Layout { transmit: 16, ..Layout::default() });
    let b = Guest::new(2, Layout::default());
    let at = a.driver.memory().regions()[0].guest_addr;
    for _ in 0..14 {
        assert!(a.driver.send_raw([at, 10 | 0xa << 24]));
    }
    a.driver.kick();
    forward(&a.port, &b.port);
    assert!(!a.port.is_stopped(), "its end may come");
    assert!(a.driver.send_raw([at, 10 | 0xa << 24]));
    a.driver.kick();
    forward(&a.port, &b.port);
    assert_stopped(&a, "all 16 descriptors are one packet without an end");
}

#[test]
fn a_packet_whose_end_comes_later_waits() {
    let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
    let bytes = frame(2, 1);
    let at = a.driver.memory().regions()[0].guest_addr + (1 << 20);
    a.driver.memory().write(at, &bytes).unwrap();
    a.send(&bytes, &[], &Ask::default());
    for (piece, last) in [(0, false), (40, false), (80, true)] {
        let len = if last { 20 } else { 40 };
        assert!(a.driver.send_raw([at + piece, len | 0xa << 24 | u64::from(last) << 24]));
        a.driver.kick();
        let expected = u64::from(piece == 0) + u64::from(last);
        assert_eq!(forward(&a.port, &b.port).frames, expected, "piece {piece}");
        assert_eq!(a.port.ingress()[0].lock().as_mut().unwrap().backlog(), 0, "nothing to be done");
    }
    assert!(b.driver.receive().unwrap().iter().all(|got| got.bytes == bytes));
    assert_eq!(a.driver.reap().unwrap(), 0);
}

#[test]
fn a_packet_that_is_too_long_is_passed_over() {
    let (mut a, mut b) =
        (Guest::new(1, Layout { transmit: 1024, ..Layout::default() }), Guest::new(2, Layout::default()));
    let at = a.driver.memory().regions()[0].guest_addr;
    // In many pieces, in few, and with its end far behind; a good one follows.
    for (pieces, len) in [(300, 1_u64), (3, 60_000), (900, 100)] {
        for piece in 0..pieces {
            let extended = len | 1 << 20 | 0x2a << 24 | u64::from(piece + 1 == pieces) << 24;
            assert!(a.driver.send_raw([at, extended]));
        }
        a.send(&frame(2, 1), &[], &Ask::default());
        let tally = forward(&a.port, &b.port);
        assert_eq!((tally.frames, tally.dropped_for(DropReason::Oversize)), (1, 1), "{pieces} of {len}");
        assert_eq!(a.driver.reap().unwrap(), 0);
        assert_eq!(b.driver.receive().unwrap().len(), 1);
    }
    assert!(!a.port.is_stopped());
}

#[test]
fn a_packet_of_contexts_moves_on() {
    let (mut a, mut b) =
        (Guest::new(1, Layout { transmit: 2048, ..Layout::default() }), Guest::new(2, Layout::default()));
    let at = a.driver.memory().regions()[0].guest_addr;
    // A buffer, more contexts behind it than are looked at in one go, and its end.
    assert!(a.driver.send_raw([at, 60 | 1 << 20 | 0x2a << 24]));
    for _ in 0..1500 {
        assert!(a.driver.send_raw([0, 0x28 << 24]));
    }
    assert!(a.driver.send_raw([at, 60 | 1 << 20 | 0x2b << 24]));
    a.send(&frame(2, 1), &[], &Ask::default());
    let tally = forward(&a.port, &b.port);
    assert_eq!((tally.frames, tally.dropped_for(DropReason::Oversize)), (1, 1));
    assert_eq!(a.port.ingress()[0].lock().as_mut().unwrap().backlog(), 0, "nothing to be done");
    assert_eq!(b.driver.receive().unwrap().len(), 1);
    assert!(!a.port.is_stopped());
}

#[test]
fn null_buffers_are_passed_over() {
    let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
    let base =
        u64::from(b.driver.registers.get(reg::RDBAL)) | u64::from(b.driver.registers.get(reg::RDBAH)) << 32;
    let ring = b.driver.memory().table::<[u64; 2]>(base, 256).unwrap();
    for at in [0, 1, 3] {
        ring.store(at, [0, 0]);
    }
    for _ in 0..3 {
        a.send(&frame(2, 1), &[], &Ask::default());
    }
    assert_eq!(forward(&a.port, &b.port).frames, 3);
    assert_eq!(b.driver.registers.get(reg::RDH), 6);
    let done: Vec<_> = (0..7).map(|at| ring.load(at)[1] >> 32 & 3).collect();
    assert_eq!(done, [1, 1, 3, 1, 3, 3, 0]);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u32, u32),
    Read(u32),
    Descriptor(u8, [u64; 2]),
    Tails(u8, u8),
    Memory(bool),
    Time(u32),
    Move,
    Reset,
}

/// Registers that do something, more often than any.
fn register() -> impl Strategy<Value = u32> {
    let known = prop::sample::select(vec![
        reg::CTRL,
        reg::EECD,
        reg::EERD,
        reg::MDIC,
        reg::VET,
        reg::ICR,
        reg::ITR,
        reg::ICS,
        reg::IMS,
        reg::IMC,
        reg::RCTL,
        reg::TCTL,
        reg::RDBAL,
        reg::RDBAH,
        reg::RDLEN,
        reg::RDH,
        reg::RDT,
        reg::RDTR,
        reg::RADV,
        reg::TDBAL,
        reg::TDBAH,
        reg::TDLEN,
        reg::TDH,
        reg::TDT,
        reg::TIDV,
        0x3828,
        reg::RXCSUM,
        reg::RAL,
        reg::RAH,
        reg::MTA,
        reg::VFTA,
        0x4088,
        0x408c,
    ]);
    prop_oneof![4 => known, 1 => (0_u32..0x8000).prop_map(|word| 4 * word)]
}

fn step() -> impl Strategy<Value = Step> {
    let small = prop_oneof![Just(0_u32), Just(2), Just(0x82), 0_u32..300, Just(4096), any::<u32>()];
    // Near the ring's own memory, and anywhere.
    let addr = prop_oneof![0x4000_0000_u64..0x4010_0000, Just(0_u64), any::<u64>()];
    let word = (0_u64..20_000, 0_u64..256, any::<u32>())
        .prop_map(|(len, command, high)| len | command << 24 | u64::from(high) << 32);
    let word = prop_oneof![word, any::<u64>()];
    prop_oneof![
        3 => (register(), small).prop_map(|(register, value)| Step::Write(register, value)),
        2 => register().prop_map(Step::Read),
        6 => (any::<u8>(), addr, word).prop_map(|(at, addr, word)| Step::Descriptor(at, [addr, word])),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(rdt, tdt)| Step::Tails(rdt, tdt)),
        1 => any::<bool>().prop_map(Step::Memory),
        1 => any::<u32>().prop_map(Step::Time),
        4 => Just(Step::Move),
        1 => Just(Step::Reset),
    ]
}

/// What a guest writes into ring registers that it has mapped: nobody has masked it.
fn mapped_write() -> impl Strategy<Value = (u32, u32)> {
    let register = prop::sample::select(vec![
        reg::RDBAL,
        reg::RDBAH,
        reg::RDLEN,
        reg::RDH,
        reg::RDT,
        reg::RDTR,
        reg::RADV,
        reg::TDBAL,
        reg::TDBAH,
        reg::TDLEN,
        reg::TDH,
        reg::TDT,
        0x3828,
        0x382c,
    ]);
    (register, prop_oneof![0_u32..300, Just(0x1001), Just(u32::MAX), any::<u32>()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn mapped_ring_registers_may_hold_anything(writes in prop::collection::vec(mapped_write(), 1..30)) {
        let (mut a, mut b) = (Guest::with_shared_rings(1), Guest::new(2, Layout::default()));
        let file = a.device().shared().unwrap().file;
        let spec = RegionSpec { guest_addr: 0, user_addr: 0, len: 128 << 10, offset: 0, file };
        let bar = Map::new(vec![spec]).unwrap().table::<u32>(AddressSpace::Guest, 0, 0x8000).unwrap();
        for (register, value) in writes {
            bar.store(register as usize / 4, value);
            prop_assert!(b.driver.send(&frame(1, 2), &[], &Ask::default()));
            b.driver.kick();
            if !a.port.is_stopped() {
                let _ = a.port.ingress()[0].lock().as_mut().map(|queue| queue.receive(&mut Burst::new()));
                forward(&b.port, &a.port);
            }
            a.driver.interrupt();
            a.device().deadline();
        }
        a.driver.up().unwrap();
        a.send(&frame(2, 1), &[], &Ask::default());
        b.driver.receive().unwrap();
        prop_assert_eq!(forward(&a.port, &b.port).frames, 1);
    }

    #[test]
    fn a_driver_that_does_anything_hurts_only_itself(steps in prop::collection::vec(step(), 1..80)) {
        let (mut bad, mut good) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
        let map = crate::guest::shared_map(bad.driver.memory());
        let base = |guest: &mut Guest, low, high| {
            u64::from(guest.driver.registers.get(low)) | u64::from(guest.driver.registers.get(high)) << 32
        };
        let transmit = base(&mut bad, reg::TDBAL, reg::TDBAH);
        let receive = base(&mut bad, reg::RDBAL, reg::RDBAH);
        let transmit = bad.driver.memory().table::<[u64; 2]>(transmit, 256).unwrap();
        let receive = bad.driver.memory().table::<[u64; 2]>(receive, 256).unwrap();
        for step in steps {
            let registers = &mut bad.driver.registers;
            match step {
                Step::Write(register, value) => registers.set(register, value),
                Step::Read(register) => drop(registers.get(register)),
                Step::Descriptor(at, words) => {
                    transmit.store(at.into(), words);
                    receive.store(at.into(), words);
                }
                Step::Tails(rdt, tdt) => {
                    registers.set(reg::RDT, rdt.into());
                    registers.set(reg::TDT, tdt.into());
                }
                Step::Memory(there) => registers.device.set_memory(there.then(|| map.clone())),
                Step::Time(by) => registers.wait(by.into()),
                Step::Move => {
                    forward(&bad.port, &good.port);
                    prop_assert!(good.driver.send(&frame(1, 2), &[50], &Ask::default()));
                    good.driver.kick();
                    forward(&good.port, &bad.port);
                    prop_assert_eq!(good.driver.reap().unwrap(), 0);
                    good.driver.receive().unwrap();
                }
                Step::Reset => bad.driver.up().unwrap(),
            }
        }
        prop_assert!(!good.port.is_stopped());
        // Whatever it did, after a reset it is as new.
        let registers = &mut bad.driver.registers;
        registers.device.set_memory(Some(map));
        fabnic_testkit::e1000::reset(registers).unwrap();
        fabnic_testkit::e1000::nvm::write_phy(registers, 0, 0x8140).unwrap();
        bad.driver.up().unwrap();
        bad.send(&frame(2, 1), &[], &Ask::default());
        good.driver.receive().unwrap();
        prop_assert_eq!(forward(&bad.port, &good.port).frames, 1);
        good.send(&frame(1, 2), &[], &Ask::default());
        prop_assert_eq!(forward(&good.port, &bad.port).frames, 1);
        prop_assert_eq!(&bad.driver.receive().unwrap()[0].bytes, &frame(1, 2));
    }
}
