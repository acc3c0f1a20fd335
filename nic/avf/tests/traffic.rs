//! Frames from one driver through two functions to another.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Guest, MAC_A, MAC_B, forward, frame};
use fabnic_avf::Settings;
use fabnic_avf_driver::spec::packet_type;
use fabnic_avf_driver::spec::receive::Cast;
use fabnic_avf_driver::{Link, Options};
use fabnic_port::DropReason;

#[test]
fn a_driver_comes_up() {
    let mut guest = Guest::a();
    assert_eq!(guest.driver.link(), Some(Link { up: true, mbps: 100_000 }));
    assert_eq!(guest.driver.resources().mac, MAC_A);
    assert_eq!(guest.port.egress_in_use(), 1);
    guest.driver.stop().unwrap();
    assert_eq!(guest.port.egress_in_use(), 0);
    assert!(!guest.port.ingress()[0].is_installed());
    guest.driver.start().unwrap();
    assert_eq!(guest.port.egress_in_use(), 1);
}

#[test]
fn frames_of_all_lengths_arrive_in_order() {
    let settings = |mac| Settings { mac, mtu: 9000, ..Settings::default() };
    let options = Options { buffer_len: 1536, ..Options::default() };
    let mut a = Guest::start(settings(MAC_A), options);
    let mut b = Guest::start(settings(MAC_B), options);
    let lengths = (14..300).chain([1500, 1514, 1535, 1536, 1537, 3071, 3072, 3073, 9014, 9018]);
    let frames: Vec<_> = lengths.map(|len| frame(MAC_B, MAC_A, len, len)).collect();
    for some in frames.chunks(25) {
        a.send(&some.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let tally = forward(&a.port, &b.port);
        assert_eq!(tally.frames as usize, some.len());
        let got = b.received(0);
        assert_eq!(got.len(), some.len());
        for ((found, bytes), sent) in got.iter().zip(some) {
            assert_eq!(bytes, sent);
            assert_eq!(found.packet_type, packet_type::L2);
            assert_eq!(found.cast, Cast::Unicast);
            assert!(!found.checked);
            assert_eq!(found.hash, None);
        }
    }
    let sent = frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
    let stats = b.driver.stats().unwrap();
    assert_eq!((stats.rx_bytes, stats.rx_casts), (sent, [frames.len() as u64, 0, 0]));
    let stats = a.driver.stats().unwrap();
    assert_eq!((stats.tx_bytes, stats.tx_casts), (sent, [frames.len() as u64, 0, 0]));
}

#[test]
fn rings_go_round_and_full_ones_drop() {
    let (mut a, mut b) = (Guest::a(), Guest::b());
    let frames: Vec<_> = (0..200).map(|n| frame(MAC_B, MAC_A, 60 + n, n)).collect();
    let views: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    for _ in 0..20 {
        a.send(&views);
        assert_eq!(forward(&a.port, &b.port).frames, 200);
        assert_eq!(b.received(0).len(), 200);
    }
    a.send(&views);
    assert_eq!(forward(&a.port, &b.port).frames, 200);
    a.send(&views);
    let tally = forward(&a.port, &b.port);
    // 255 descriptors may be posted, in steps of 8.
    assert_eq!(tally.frames + u64::from(tally.dropped_for(DropReason::RingFull)), 200);
    assert!((40..60).contains(&tally.frames), "{tally:?}");
    assert_eq!(b.received(0).len() as u64, 200 + tally.frames);
    assert_eq!(b.driver.stats().unwrap().rx_discards, 200 - tally.frames);
}

#[test]
fn filters_decide() {
    let (mut a, mut b) = (Guest::a(), Guest::b());
    let group = [0x33, 0x33, 0, 0, 0, 1];
    let other = [2, 0, 0, 0, 0, 9];
    let mut passes = |b: &mut Guest, to: [u8; 6]| {
        a.send(&[&frame(to, MAC_A, 64, 1)]);
        let tally = forward(&a.port, &b.port);
        assert_eq!(tally.frames + u64::from(tally.dropped_for(DropReason::Filtered)), 1);
        assert_eq!(b.received(0).len() as u64, tally.frames);
        // What the switch is told beforehand is the same.
        let taken =
            b.port.guest_filter.look(|filter| filter.is_some_and(|filter| filter.takes(to.into(), true)));
        assert_eq!(taken, tally.frames == 1, "{to:?}");
        tally.frames == 1
    };
    use fabnic_avf_driver::spec::virtchnl::EthAddr;
    assert!(passes(&mut b, MAC_B));
    assert!(passes(&mut b, [0xff; 6]));
    assert!(!passes(&mut b, group));
    assert!(!passes(&mut b, other));
    let extra =
        [EthAddr { addr: group, kind: EthAddr::EXTRA }, EthAddr { addr: other, kind: EthAddr::EXTRA }];
    b.driver.set_addresses(&extra, true).unwrap();
    assert!(passes(&mut b, group) && passes(&mut b, other));
    b.driver.set_addresses(&extra, false).unwrap();
    assert!(!passes(&mut b, group) && !passes(&mut b, other));
    // Not trusted: it is told that it worked.
    b.driver.set_promiscuous(true, true).unwrap();
    assert!(!passes(&mut b, group) && !passes(&mut b, other));
    b.control.set_trust(true);
    b.driver.set_promiscuous(true, false).unwrap();
    assert!(!passes(&mut b, group) && passes(&mut b, other));
    b.driver.set_promiscuous(false, true).unwrap();
    assert!(passes(&mut b, group) && !passes(&mut b, other));
    b.control.set_trust(false);
    b.driver.poll();
    b.driver.stats().unwrap();
    assert!(!passes(&mut b, group), "promiscuity ends with trust");
}

#[test]
fn interrupts_come_once_for_what_was_asked() {
    let (mut a, mut b) = (Guest::a(), Guest::b());
    a.driver.bus().function();
    let mut go = |b: &mut Guest, n: usize| {
        let frames: Vec<_> = (0..n).map(|n| frame(MAC_B, MAC_A, 60, n)).collect();
        a.send(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let tally = forward(&a.port, &b.port);
        assert_eq!(tally.frames as usize, n);
    };
    use fabnic_avf_driver::Bus;
    assert_eq!(b.driver.bus().take_interrupts(1), 0);
    go(&mut b, 3);
    assert_eq!(b.driver.bus().take_interrupts(1), 0, "not enabled");
    b.driver.enable_interrupt(1);
    assert_eq!(b.driver.bus().take_interrupts(1), 1, "what happened before is told now");
    go(&mut b, 10);
    assert_eq!(b.driver.bus().take_interrupts(1), 0, "sending disables");
    assert_eq!(b.received(0).len(), 13);
    b.driver.enable_interrupt(1);
    assert_eq!(b.driver.bus().take_interrupts(1), 1);
    b.driver.enable_interrupt(1);
    assert_eq!(b.driver.bus().take_interrupts(1), 0);
    go(&mut b, 1);
    assert_eq!(b.driver.bus().take_interrupts(1), 1);
}
