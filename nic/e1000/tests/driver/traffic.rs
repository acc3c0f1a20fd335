//! Frames through both rings, and the interrupts that tell of them.

use std::sync::atomic::Ordering;

use fabnic_memory::{AddressSpace, Map, RegionSpec};
use fabnic_pci::Function;
use fabnic_port::DropReason;
use fabnic_testkit::e1000::{Ask, Layout, Registers, nvm, reg};
use fabnic_testkit::packets::{BROADCAST, Packet, udp};

use crate::guest::{Guest, forward, mac};

fn frame(to: u8, from: u8, len: usize) -> Vec<u8> {
    let mut frame = udp(mac(to), mac(from), 7, len);
    (42..frame.len()).for_each(|at| frame[at] = (at * 31) as u8);
    frame
}

fn pair() -> (Guest, Guest) {
    (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()))
}

#[test]
fn frames_pass_both_ways_and_interrupt_once() {
    let (mut a, mut b) = pair();
    for round in 0..40 {
        for len in [60, 61, 128, 129, 1000, 1514] {
            a.send(&frame(2, 1, len), &[], &Ask::default());
        }
        let tally = forward(&a.port, &b.port);
        assert_eq!((tally.frames, tally.dropped(), tally.calls), (6, 0, 2), "round {round}");
        assert!(a.line.is_high() && b.line.is_high());
        assert_eq!(a.driver.interrupt(), reg::ICR_TXDW | reg::ICR_TXQE);
        assert_eq!(b.driver.interrupt(), reg::ICR_RXT0);
        assert_eq!(a.driver.reap().unwrap(), 0);
        let got = b.driver.receive().unwrap();
        let expected: Vec<_> = [60, 61, 128, 129, 1000, 1514].iter().map(|len| frame(2, 1, *len)).collect();
        assert_eq!(got.iter().map(|frame| frame.bytes.clone()).collect::<Vec<_>>(), expected);
        assert!(got.iter().all(|frame| frame.status == 0b111 && frame.tag.is_none()), "{got:?}");
        b.send(&frame(1, 2, 300), &[14, 20], &Ask::default());
        assert_eq!(forward(&b.port, &a.port).frames, 1);
        assert_eq!(a.driver.receive().unwrap()[0].bytes, frame(1, 2, 300));
        assert_eq!(b.driver.reap().unwrap(), 0);
        a.driver.interrupt();
        b.driver.interrupt();
    }
}

#[test]
fn short_frames_are_padded() {
    let (mut a, mut b) = pair();
    let short = frame(2, 1, 42);
    a.send(&short, &[], &Ask::default());
    forward(&a.port, &b.port);
    let got = b.driver.receive().unwrap().remove(0).bytes;
    assert_eq!(got.len(), 60);
    assert_eq!(got[..42], short);
    assert!(got[42..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_is_not_for_the_station_is_filtered() {
    let (mut a, mut b) = pair();
    let group = [1, 0, 0x5e, 0, 0, 1];
    let send = |a: &mut Guest, b: &mut Guest, to: [u8; 6]| {
        a.send(&Packet::ethernet(to, mac(1)).payload(b"x").build(), &[], &Ask::default());
        let tally = forward(&a.port, &b.port);
        a.driver.reap().unwrap();
        b.driver.receive().unwrap();
        assert_eq!(tally.frames + u64::from(tally.dropped_for(DropReason::Filtered)), 1);
        // What the switch is told beforehand is the same.
        let taken =
            b.port.guest_filter.look(|filter| filter.is_some_and(|filter| filter.takes(to.into(), true)));
        assert_eq!(taken, tally.frames == 1, "{to:?}");
        tally.frames == 1
    };
    assert!(send(&mut a, &mut b, BROADCAST) && send(&mut a, &mut b, mac(2)));
    assert!(!send(&mut a, &mut b, mac(3)) && !send(&mut a, &mut b, group));
    let rctl = b.driver.registers.get(reg::RCTL);
    b.driver.registers.set(reg::RCTL, rctl | reg::RCTL_UPE);
    assert!(send(&mut a, &mut b, mac(3)) && !send(&mut a, &mut b, group));
    b.driver.registers.set(reg::RCTL, rctl | reg::RCTL_MPE);
    assert!(!send(&mut a, &mut b, mac(3)) && send(&mut a, &mut b, group));
    b.driver.registers.set(reg::RCTL, rctl & !reg::RCTL_BAM);
    assert!(!send(&mut a, &mut b, BROADCAST));
}

#[test]
fn without_buffers_frames_are_lost_and_counted() {
    let mut a = Guest::new(1, Layout::default());
    let mut b = Guest::new(2, Layout { receive: 8, ..Layout::default() });
    for _ in 0..10 {
        a.send(&frame(2, 1, 60), &[], &Ask::default());
    }
    let tally = forward(&a.port, &b.port);
    assert_eq!((tally.frames, tally.dropped_for(DropReason::RingFull)), (7, 3));
    let causes = b.driver.interrupt();
    assert_eq!(causes, reg::ICR_RXT0 | reg::ICR_RXDMT0 | reg::ICR_RXO);
    assert_eq!([reg::MPC, reg::RNBC, reg::GPRC].map(|register| b.driver.registers.get(register)), [3, 3, 7]);
    assert_eq!(b.driver.registers.get(reg::MPC), 0, "a read clears");
    assert_eq!(b.driver.receive().unwrap().len(), 7);
    assert_eq!(a.driver.registers.get(reg::GPTC), 10);
}

#[test]
fn interrupts_are_throttled_and_none_is_lost() {
    let (mut a, mut b) = pair();
    b.driver.registers.set(reg::ITR, 1000);
    let send = |a: &mut Guest, b: &Guest| {
        a.send(&frame(2, 1, 60), &[], &Ask::default());
        forward(&a.port, &b.port);
        a.driver.reap().unwrap();
    };
    send(&mut a, &b);
    assert!(b.line.is_high());
    b.driver.interrupt();
    send(&mut a, &b);
    send(&mut a, &b);
    assert!(!b.line.is_high(), "too early");
    let before = b.driver.registers.now;
    assert!(b.driver.registers.wait_for_deadline());
    assert!(b.line.is_high());
    assert!(b.driver.registers.now - before > 200_000, "of 256 us");
    assert_eq!(b.line.edges.load(Ordering::SeqCst), 2);
    assert_eq!(b.driver.interrupt() & reg::ICR_RXT0, reg::ICR_RXT0);
    assert_eq!(b.driver.receive().unwrap().len(), 3);
}

#[test]
fn transmit_delays_count_where_descriptors_ask_for_them() {
    let (mut a, b) = pair();
    a.driver.registers.set(reg::TIDV + 0xc, 100);
    for (ide, is_held) in [(true, true), (false, false)] {
        a.send(&frame(2, 1, 60), &[], &Ask { ide, ..Ask::default() });
        forward(&a.port, &b.port);
        assert!(a.line.is_high());
        a.driver.interrupt();
        assert_eq!(a.driver.registers.wait_for_deadline(), is_held, "IDE {ide}");
    }
}

/// Ring registers that the guest has mapped: nobody is told of a tail.
#[test]
fn a_mapped_tail_is_polled() {
    let (mut a, mut b) = (Guest::with_shared_rings(1), Guest::new(2, Layout::default()));
    let shared = a.device().shared().unwrap();
    assert_eq!((shared.bar, shared.areas), (0, vec![(0x2000, 0x1000), (0x3000, 0x1000)]));
    assert!(b.device().shared().is_none());
    let len = 128 << 10;
    let spec = RegionSpec { guest_addr: 0, user_addr: 0, len, offset: 0, file: shared.file };
    let bar = Map::new(vec![spec]).unwrap().table::<u32>(AddressSpace::Guest, 0, 0x8000).unwrap();
    for tail in 1..=3 {
        assert!(a.driver.send(&frame(2, 1, 60), &[], &Ask::default()));
        bar.store_release(reg::TDT as usize / 4, tail);
        assert!(a.port.ingress()[0].lock().as_ref().unwrap().wake().is_none());
        assert_eq!(forward(&a.port, &b.port).frames, 1);
        assert_eq!(bar.load(reg::TDH as usize / 4), tail);
    }
    assert_eq!(a.driver.registers.get(reg::TDT), 3, "the register is the same word");
    assert_eq!(a.driver.reap().unwrap(), 0);
    b.send(&frame(1, 2, 60), &[], &Ask::default());
    assert_eq!(forward(&b.port, &a.port).frames, 1);
    assert_eq!(bar.load(reg::RDH as usize / 4), 1);
}

/// The loopback test of `ethtool -t`: nothing goes out, everything comes back.
#[test]
fn loopback_gives_back_what_is_sent() {
    for in_mac in [false, true] {
        let (mut a, mut b) = pair();
        match in_mac {
            false => nvm::loop_phy(&mut a.driver.registers).unwrap(),
            true => {
                let rctl = a.driver.registers.get(reg::RCTL);
                a.driver.registers.set(reg::RCTL, rctl | reg::RCTL_LBM_MAC);
            }
        }
        let frame = Packet::ethernet(BROADCAST, mac(1)).size(1024).build();
        for _ in 0..5 {
            for _ in 0..64 {
                a.send(&frame, &[], &Ask::default());
            }
            assert_eq!(forward(&a.port, &b.port).frames, 0, "nothing goes out");
            assert_eq!(a.driver.reap().unwrap(), 0);
            let got = a.driver.receive().unwrap();
            assert!(got.len() == 64 && got.iter().all(|got| got.bytes == frame));
        }
        b.send(&Packet::ethernet(BROADCAST, mac(2)).size(60).build(), &[], &Ask::default());
        assert_eq!(forward(&b.port, &a.port).dropped_for(DropReason::NotReady), 1, "nothing comes in");
        nvm::write_phy(&mut a.driver.registers, 0, 0x1340).unwrap();
        a.driver.registers.set(reg::RCTL, reg::RCTL_EN | reg::RCTL_BAM);
        a.driver.registers.wait_for_deadline();
        b.send(&Packet::ethernet(BROADCAST, mac(2)).size(60).build(), &[], &Ask::default());
        assert_eq!(forward(&b.port, &a.port).frames, 1);
    }
}
