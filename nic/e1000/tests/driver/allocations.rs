//! Nothing is allocated while frames move.

use fabnic_port::{Burst, Tally};
use fabnic_testkit::e1000::{Ask, Layout, reg};
use fabnic_testkit::packets::{Packet, tcp};

use crate::guest::{Guest, mac};

/// Moves one burst; gives its frames.
fn step(a: &Guest, b: &Guest, burst: &mut Burst, tally: &mut Tally) -> usize {
    let mut guard = a.port.ingress()[0].lock();
    let ingress = guard.as_mut().unwrap();
    ingress.receive(burst).unwrap();
    let mut picks = [0; fabnic_port::BURST];
    (0..burst.len()).for_each(|index| picks[index] = index as u8);
    b.port.egress()[0].lock().as_mut().unwrap().deliver(burst, &picks[..burst.len()], tally).unwrap();
    ingress.complete(burst);
    burst.len()
}

#[test]
fn moving_frames_allocates_nothing() {
    let segments = |payload: u32| {
        let packet = Packet::ethernet(mac(2), mac(1))
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
            .tcp(1, 2, 3, 4, tcp::ACK)
            .payload(&vec![7; payload as usize])
            .partial_checksum();
        let ask = Ask::segments((14, 24, 33), (34, 50, 0), true, true, 54, 1448, payload);
        (packet.build(), ask)
    };
    let plain = |len| (Packet::ethernet(mac(2), mac(1)).size(len).build(), Ask::default());
    let checked = {
        let (frame, _) = segments(1000);
        (frame, Ask::checksums(Some((14, 24, 33)), Some(((34, 50, 0), true))))
    };
    let tagged = {
        let (frame, ask) = plain(900);
        (frame, Ask { tag: Some(10), ..ask })
    };
    let cases = [plain(60), plain(1514), checked, tagged, segments(30_000), segments(60_000)];
    let layout = Layout { ctrl: reg::CTRL_VME, receive: 1024, arena: 4 << 20, ..Layout::default() };
    let (mut a, mut b) = (Guest::new(1, layout), Guest::new(2, layout));
    let (mut burst, mut tally) = (Burst::new(), Tally::default());
    let mut round = |a: &mut Guest, b: &mut Guest, (frame, ask): &(Vec<u8>, Ask)| {
        for _ in 0..10 {
            assert!(a.driver.send(frame, &[100, 500], ask));
        }
        a.driver.kick();
        let mut frames = 0;
        let allocations =
            allocation_counter::measure(|| frames = step(a, b, &mut burst, &mut tally)).count_total;
        assert_eq!((frames, tally.dropped()), (10, 0));
        tally.clear();
        a.driver.reap().unwrap();
        b.driver.receive().unwrap();
        a.driver.interrupt();
        b.driver.interrupt();
        allocations
    };
    for case in &cases {
        // The first one finds the rings.
        round(&mut a, &mut b, case);
        for _ in 0..10 {
            assert_eq!(round(&mut a, &mut b, case), 0, "{} bytes, {:?}", case.0.len(), case.1);
        }
    }
}
