//! A device that goes on as another one: on another host, for all that its driver knows.

use std::sync::Arc;

use fabnic_e1000::{E1000, E1000Config};
use fabnic_memory::DirtyLog;
use fabnic_pci::{Function, Reset};
use fabnic_port::{Port, PortId, PortKind};
use fabnic_testkit::e1000::{Ask, Layout, Registers, nvm, reg};
use fabnic_testkit::memory::GuestMemory;
use fabnic_testkit::packets::Packet;
use fabnic_wire::MacAddr;
use proptest::prelude::*;

use crate::guest::{Guest, forward, mac, shared_map};

fn frame(to: u8, from: u8, len: usize) -> Vec<u8> {
    Packet::ethernet(mac(to), mac(from)).size(len).build()
}

fn twin(id: u8, link_up: bool) -> (E1000, Arc<Port>) {
    let port = Arc::new(Port::new(PortId(id.into()), "twin", PortKind::E1000, 1));
    let config = E1000Config { mac: MacAddr(mac(id)), link_up, share_rings: false };
    let mut device = E1000::new(Arc::clone(&port), config).unwrap();
    device.set_running(false);
    (device, port)
}

/// Carries a guest's device over to a new one, as a transport does, and its line with it.
fn migrate(guest: &mut Guest, id: u8, link_up: bool) {
    let map = shared_map(guest.driver.memory());
    let old = guest.device();
    old.set_running(false);
    assert!(old.deadline().is_none());
    let state = old.save().unwrap();
    let (mut new, port) = twin(id, link_up);
    new.attach(Arc::clone(&guest.line) as _);
    new.restore(&state).unwrap();
    assert!(new.save().unwrap() == state || !link_up, "what was restored is what was saved");
    new.set_memory(Some(map));
    assert!(!port.ingress()[0].is_installed() && !port.egress()[0].is_installed());
    new.set_running(true);
    assert!(!guest.port.ingress()[0].is_installed());
    // The old one's end is not seen by the guest.
    let old = core::mem::replace(&mut guest.driver.registers.device, new);
    drop(old);
    guest.port = port;
}

#[test]
fn a_driver_does_not_notice() {
    let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
    let case = Packet::ethernet(mac(2), mac(1))
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
        .tcp(1, 2, 3, 4, 16)
        .payload(&[7; 500]);
    let unfinished = case.clone().partial_checksum().build();
    let ask = Ask::checksums(None, Some(((34, 50, 0), true)));
    for round in 0..10 {
        a.send(&unfinished, &[60], &ask);
        a.send(&frame(2, 1, 700), &[], &Ask::default());
        b.send(&frame(1, 2, 90), &[], &Ask::default());
        if round % 2 == 0 {
            // What waits in the rings goes on; so does an interrupt that was not taken.
            forward(&b.port, &a.port);
            assert!(a.line.is_high());
            migrate(&mut a, 1, true);
            assert!(a.line.is_high());
        } else {
            migrate(&mut b, 2, true);
        }
        forward(&a.port, &b.port);
        forward(&b.port, &a.port);
        // The context goes on too.
        a.send(&unfinished, &[], &Ask { context: None, ..ask });
        forward(&a.port, &b.port);
        let got: Vec<_> = b.driver.receive().unwrap().into_iter().map(|frame| frame.bytes).collect();
        assert_eq!(got, [case.build(), frame(2, 1, 700), case.build()], "round {round}");
        assert_eq!(a.driver.receive().unwrap()[0].bytes, frame(1, 2, 90));
        assert_eq!([a.driver.reap().unwrap(), b.driver.reap().unwrap()], [0, 0]);
        assert_eq!(a.driver.interrupt() & reg::ICR_RXT0, reg::ICR_RXT0);
        b.driver.interrupt();
    }
    assert_eq!(a.driver.registers.get(reg::GPTC), 30, "statistics go on");
}

#[test]
fn a_link_that_is_another_is_told() {
    let mut a = Guest::new(1, Layout::default());
    migrate(&mut a, 1, false);
    assert!(a.line.is_high());
    assert_eq!(a.driver.interrupt(), reg::ICR_LSC);
    assert_eq!(a.driver.registers.get(reg::STATUS) & reg::STATUS_LU, 0);
    // A negotiation that was going on ends on the other side.
    let mut b = Guest::new(2, Layout::default());
    nvm::write_phy(&mut b.driver.registers, 0, 0x1340).unwrap();
    migrate(&mut b, 2, true);
    b.driver.interrupt();
    assert!(b.driver.registers.wait_for_deadline());
    assert_eq!(b.driver.registers.get(reg::STATUS) & reg::STATUS_LU, reg::STATUS_LU);
}

/// All pages of the guest's memory.
fn pages(memory: &GuestMemory) -> Vec<(u64, Vec<u8>)> {
    let region = &memory.regions()[0];
    let page = |at: u64| {
        let mut bytes = vec![0; 4096];
        memory.read(region.guest_addr + at, &mut bytes).unwrap();
        ((region.guest_addr + at) / 4096, bytes)
    };
    (0..region.len).step_by(4096).map(page).collect()
}

#[test]
fn every_page_that_is_written_is_logged() {
    let layout = Layout { rctl: reg::RCTL_BAM | reg::RCTL_LPE, ..Layout::default() };
    let (mut a, mut b) = (Guest::new(1, layout), Guest::new(2, layout));
    let logs = [(); 2].map(|()| DirtyLog::anonymous(0x4000_0000 + (16 << 20)).unwrap());
    let is_silent = |log: &DirtyLog| (0..).map_while(|word| log.take(word, u64::MAX)).all(|bits| bits == 0);
    for (is_new, len) in [(false, 60), (false, 1514), (true, 100), (false, 9000), (true, 16_000)] {
        for (guest, log) in [&mut a, &mut b].into_iter().zip(&logs) {
            assert!(guest.device().set_log(Some(Arc::clone(log))));
            if is_new {
                // Also of queues that are made while it is on.
                let map = shared_map(guest.driver.memory());
                guest.device().set_memory(Some(map));
            }
        }
        // The driver's own writes are not the device's to log.
        for _ in 0..5 {
            assert!(a.driver.send(&frame(2, 1, len), &[], &Ask::default()));
        }
        a.driver.kick();
        let before = [pages(a.driver.memory()), pages(b.driver.memory())];
        assert_eq!(forward(&a.port, &b.port).frames, 5);
        let after = [pages(a.driver.memory()), pages(b.driver.memory())];
        let mut changed = 0;
        for ((before, after), log) in before.iter().zip(&after).zip(&logs) {
            for ((page, before), (_, after)) in before.iter().zip(after) {
                if before != after {
                    changed += 1;
                    assert_ne!(log.take((page / 64) as usize, 1 << (page % 64)), Some(0), "page {page:#x}");
                }
            }
            // What else is marked was written with what was there before.
            let _ = is_silent(log);
            assert!(!log.overrun());
        }
        assert!(changed >= 3, "{changed}");
        a.driver.reap().unwrap();
        b.driver.receive().unwrap();
    }
    for guest in [&mut a, &mut b] {
        assert!(guest.device().set_log(None));
    }
    a.send(&frame(2, 1, 60), &[], &Ask::default());
    forward(&a.port, &b.port);
    assert!(logs.iter().all(|log| is_silent(log)));
}

#[test]
fn what_is_no_state_is_refused() {
    let mut a = Guest::new(1, Layout::default());
    a.device().set_running(false);
    let state = a.device().save().unwrap();
    let (mut new, _port) = twin(1, true);
    let refused = |new: &mut E1000, bytes: &[u8]| new.restore(bytes).unwrap_err();
    assert!(refused(&mut new, b"").contains("ends too early"));
    assert!(refused(&mut new, b"E1KX\x01\0").contains("begins with something else"));
    assert!(refused(&mut new, b"E1KS\x02\0").contains("version 2, expected 1"));
    assert!(refused(&mut new, &state[..state.len() - 1]).contains("ends too early"));
    assert!(refused(&mut new, &[&state[..], &[0]].concat()).contains("1 bytes follow"));
    new.restore(&state).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_state_of_anybodys_hurts_only_its_port(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40)) {
        let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
        a.send(&frame(2, 1, 100), &[], &Ask::default());
        a.device().set_running(false);
        let mut state = a.device().save().unwrap();
        for (at, byte) in changes {
            let at = at.index(state.len());
            state[at] = byte;
        }
        // Whether it is taken or not, it can be reset and used.
        let _ = a.device().restore(&state);
        a.device().set_running(true);
        for _ in 0..3 {
            forward(&a.port, &b.port);
            b.send(&frame(1, 2, 100), &[], &Ask::default());
            forward(&b.port, &a.port);
            a.driver.registers.wait(100_000_000);
        }
        a.device().reset(Reset::Device);
        a.driver.up().unwrap();
        b.driver.receive().unwrap();
        a.send(&frame(2, 1, 100), &[], &Ask::default());
        prop_assert_eq!(forward(&a.port, &b.port).frames, 1);
    }
}
