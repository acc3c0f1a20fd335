//! What is no TCP: other protocols, limits, time, threads.

use super::*;

#[test]
fn udp_becomes_a_stream() {
    let mut bed = Bed::new(&ZoneSettings::default());
    let (there, back) = (udp(A, B, (5000, 53)), udp(B, A, (53, 5000)));
    assert_eq!(bed.pass(&there), "new");
    assert_eq!(bed.pass(&there), "new", "not answered yet");
    assert_eq!(bed.only().expires, 30);
    assert_eq!(bed.pass(&back), "est+rpl");
    assert_eq!(bed.pass(&there), "est");
    assert_eq!((bed.only().expires, bed.only().assured), (30, false));
    bed.now += 3;
    assert_eq!(bed.pass(&back), "est+rpl");
    assert_eq!((bed.only().expires, bed.only().assured), (120, true));
    bed.now += 121;
    assert_eq!(bed.pass(&back), "new", "forgotten, though nothing swept: another connection, the other way");
    assert_eq!(bed.only().original.src_port, 53);
}

#[test]
fn queries_are_known_by_their_identifier() {
    let bed = Bed::new(&ZoneSettings::default());
    assert_eq!(bed.pass(&echo(B, A, false, 9)), "inv", "an answer to nothing");
    assert_eq!(bed.pass(&echo(A, B, true, 9)), "new");
    assert_eq!(bed.pass(&echo(B, A, false, 10)), "inv");
    assert_eq!(bed.pass(&echo(B, A, false, 9)), "est+rpl");
    // The other side's own query with the same identifier is another connection.
    assert_eq!(bed.pass(&echo(B, A, true, 9)), "new");
    assert_eq!(bed.ct.len(), 2);
}

#[test]
fn pages_have_each_connection_once_and_are_bounded() {
    let mut bed = Bed::new(&ZoneSettings::default());
    for port in 0..25 {
        bed.pass(&udp(A, B, (1000 + port, 53)));
    }
    let (mut seen, mut from, mut pages) = (Vec::new(), Some(0), 0);
    while let Some(at) = from {
        let page = bed.ct.page(bed.now, at, 10, |entry| entry.original.src_port != 1003);
        assert!(page.entries.len() == 10 || page.next.is_none());
        seen.extend(page.entries.iter().map(|entry| entry.original.src_port));
        (from, pages) = (page.next, pages + 1);
    }
    seen.sort_unstable();
    let expected: Vec<u16> = (1000..1025).filter(|port| *port != 1003).collect();
    assert_eq!((seen, pages), (expected, 3));
    assert_eq!(bed.ct.page(bed.now, 0, 0, |_| true).next, Some(0), "nothing fits, but there is something");
    assert_eq!(bed.ct.page(bed.now, u32::MAX, 10, |_| true), ConnectionPage::default());
    bed.now += 31;
    assert!(bed.ct.page(bed.now, 0, 100, |_| true).entries.is_empty(), "time is over, though nothing swept");
    assert_eq!(bed.ct.flush(|entry| entry.original.src_port == 1003), 1);
    assert_eq!(bed.ct.len(), 24);
}

#[test]
fn ipv6_and_other_protocols() {
    let bed = Bed::new(&ZoneSettings::default());
    assert_eq!(bed.pass(&udp6(1, 2, (1, 2))), "new");
    assert_eq!(bed.pass(&udp6(2, 1, (2, 1))), "est+rpl");
    let gre = |from, to| {
        let mut frame = udp(from, to, (1, 2));
        frame[23] = 47;
        frame
    };
    assert_eq!(bed.pass(&gre(A, B)), "new");
    assert_eq!(bed.pass(&gre(B, A)), "est+rpl");
    assert_eq!(bed.ct.entries(bed.now).iter().filter(|entry| entry.expires == 600).count(), 1);
    // Neighbour discovery and ARP go with no connection.
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6([0xfe; 16], [0xff; 16], 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &[0; 16])
        .unwrap();
    assert_eq!(bed.pass(&frame), "untracked");
    frame[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(bed.pass(&frame), "untracked");
    // What claims to be IP and is not.
    frame[12..14].copy_from_slice(&[8, 0]);
    assert_eq!(bed.pass(&frame), "inv");
}

#[test]
fn errors_are_related_to_the_connection_that_they_are_about() {
    let bed = Bed::new(&ZoneSettings::default());
    let router = [10, 9, 9, 9];
    let there = udp(A, B, (5000, 53));
    assert_eq!(bed.pass(&error_about(&there, router, A, 3, 8)), "inv", "about nothing");
    assert_eq!(bed.pass(&there), "new");
    for kind in [3, 4, 5, 11, 12] {
        assert_eq!(bed.pass(&error_about(&there, router, A, kind, 8)), "rel+rpl");
    }
    assert_eq!(bed.pass(&error_about(&there, router, B, 3, 8)), "inv", "not to whom sent it");
    assert_eq!(bed.pass(&error_about(&there, router, A, 3, 3)), "inv", "without ports");
    let back = udp(B, A, (53, 5000));
    assert_eq!(bed.pass(&error_about(&back, router, B, 3, 8)), "rel");
    let about_error = error_about(&error_about(&there, router, A, 3, 28), A, router, 3, 100);
    assert_eq!(bed.pass(&about_error), "inv", "about an error");
    assert_eq!(bed.only().packets, [1, 0], "errors keep nothing alive");
}

/// Cuts a UDP frame into its first fragment and a later one.
fn fragments(frame: &[u8], id: u16) -> [Vec<u8>; 2] {
    let (mut first, mut later) = (frame[..34 + 8].to_vec(), [&frame[..34], &frame[42..]].concat());
    for (part, offset) in [(&mut first, 0x2000_u16), (&mut later, 1)] {
        let len = (part.len() - 14) as u16;
        part[16..18].copy_from_slice(&len.to_be_bytes());
        part[18..20].copy_from_slice(&id.to_be_bytes());
        part[20..22].copy_from_slice(&offset.to_be_bytes());
        part[24..26].fill(0);
        let sum = fabnic_wire::checksum::Sum::of(&part[14..34]).checksum();
        part[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    [first, later]
}

#[test]
fn later_fragments_go_with_their_first() {
    let mut bed = Bed::new(&ZoneSettings::default());
    let [first, later] = fragments(&udp(A, B, (5000, 53)), 77);
    assert_eq!(bed.pass(&later), "inv", "before the first");
    assert_eq!(bed.pass(&first), "new");
    assert_eq!(bed.pass(&later), "new");
    assert_eq!(bed.pass(&udp(B, A, (53, 5000))), "est+rpl");
    assert_eq!(bed.pass(&later), "est");
    let [_, other] = fragments(&udp(A, B, (5000, 53)), 78);
    assert_eq!(bed.pass(&other), "inv", "of another datagram");
    bed.now += 31;
    bed.pass(&udp(A, B, (5000, 53)));
    assert_eq!(bed.pass(&later), "inv", "too late");
    // The list has an end.
    for id in 0..6000 {
        bed.pass(&fragments(&udp(A, B, (5000, 53)), id)[0]);
    }
    assert_eq!(bed.pass(&fragments(&udp(A, B, (5000, 53)), 5999)[1]), "new");
    assert_eq!(bed.pass(&fragments(&udp(A, B, (5000, 53)), 100)[1]), "inv");
}

#[test]
fn zones_are_apart() {
    let bed = Bed::new(&ZoneSettings::default());
    let other =
        Bed { zone: bed.ct.zone(8), owner: bed.ct.port(PortId(4)), ..Bed::new(&ZoneSettings::default()) };
    let (there, back) = (udp(A, B, (5000, 53)), udp(B, A, (53, 5000)));
    assert_eq!(bed.pass(&there), "new");
    let fields = Fields::of(&back).unwrap();
    let packet = Packet::new(&fields, &back, back.len() as u32);
    assert_eq!(words(bed.ct.lookup(&other.zone, &fields, &packet, bed.now).state), "new");
    assert_eq!(bed.pass(&back), "est+rpl");
}

#[test]
fn limits_hold_and_refusals_are_counted() {
    let mut bed = Bed::new(&ZoneSettings { limit: 20, ..ZoneSettings::default() });
    bed.owner.set_limit(10);
    // A flood of SYNs.
    for n in 0..1000 {
        bed.pass(&Seg { ports: (n, 80), ..seg("S", 1, 0, 0) }.frame(false));
    }
    assert_eq!((bed.ct.len(), bed.owner.used(), bed.owner.refused()), (10, 10, 990));
    // Another port still gets its share.
    bed.owner = bed.ct.port(PortId(4));
    for n in 0..100 {
        bed.pass(&udp(A, B, (n, 53)));
    }
    assert_eq!((bed.ct.len(), bed.owner.used(), bed.owner.refused()), (20, 10, 0));
    assert_eq!(bed.zone.counters().refused, 90);
    // A refused connection leaves nothing behind.
    assert_eq!(bed.commit(&udp(A, B, (500, 53)), None).unwrap_err(), Refusal::Full);
    bed.now += 31;
    assert_eq!(bed.ct.expire(bed.now, 1000), 10, "those of UDP");
    assert_eq!(bed.pass(&udp(A, B, (500, 53))), "new");
    assert_eq!((bed.owner.used(), bed.zone.counters().expired), (1, 10));
    // The table as a whole.
    bed.zone.set(&ZoneSettings::default());
    for n in 0..2000 {
        bed.pass(&udp(A, B, (n, 54)));
    }
    assert_eq!((bed.ct.len(), bed.ct.counters().refused), (1000, 1011));
    assert_eq!(bed.ct.flush(|entry| entry.port == PortId(4)), 990);
    assert_eq!((bed.ct.len(), bed.owner.used()), (10, 0));
    bed.ct.remove_port(PortId(3));
    assert!(bed.ct.is_empty());
}

#[test]
fn closing_connections_do_not_wait_for_the_wheel_to_come_round() {
    let mut bed = Bed::new(&ZoneSettings::default());
    for n in 0..500 {
        for (reply, segment) in
            [(false, seg("S", 1, 0, 0)), (true, seg("SA", 1, 2, 0)), (false, seg("A", 2, 2, 0))]
        {
            bed.pass(&Seg { ports: (n, 80), ..segment }.frame(reply));
        }
    }
    bed.now += 1;
    for n in 0..500 {
        bed.pass(&Seg { ports: (n, 80), ..seg("R", 2, 0, 0) }.frame(false));
    }
    bed.now += 14;
    assert_eq!((bed.ct.expire(bed.now, 300), bed.ct.len()), (300, 200), "a bounded piece");
    assert_eq!((bed.ct.expire(bed.now, 300), bed.ct.len()), (200, 0));
}

#[test]
fn a_cached_flow_is_told_of_what_changes() {
    let bed = Bed::new(&ZoneSettings::default());
    let (there, back) = (udp(A, B, (5000, 53)), udp(B, A, (53, 5000)));
    let absent = bed.look(&back).version;
    let versions = |frame: &[u8]| bed.look(frame).version;
    let made = bed.commit(&there, None).unwrap();
    assert_ne!(versions(&back), absent, "it is there");
    let fresh = versions(&there);
    assert_eq!(bed.track(made.handle, &there), Tracked::Valid { changed: false });
    assert_eq!(versions(&there), fresh, "packets change nothing");
    let answer = bed.look(&back).handle.unwrap();
    assert_eq!(bed.track(answer, &back), Tracked::Valid { changed: true });
    let answered = versions(&there);
    assert_ne!(answered, fresh, "established");
    let fields = Fields::of(&there).unwrap();
    let packet = Packet::new(&fields, &there, 60);
    bed.ct.commit(&bed.zone, &bed.owner, &fields, &packet, None, Some(5), bed.now).unwrap();
    let marked = versions(&there);
    assert_ne!(marked, answered, "marked");
    assert_eq!(bed.look(&back).mark, 5);
    assert_eq!(bed.ct.flush(|_| true), 1);
    assert_ne!(versions(&there), marked, "gone");
    assert_eq!(bed.track(answer, &back), Tracked::Stale);
    // The slot is used again: the old handle is still no good.
    bed.commit(&udp(A, B, (7, 7)), None).unwrap();
    assert_eq!(bed.track(answer, &back), Tracked::Stale);
}

#[test]
fn threads_make_use_and_forget() {
    let ct = Arc::new(Conntrack::new(4000, Arc::new(Versions::new())));
    let zone = ct.zone(1);
    let threads: Vec<_> = (0..4_u16)
        .map(|thread| {
            let (ct, zone) = (Arc::clone(&ct), Arc::clone(&zone));
            std::thread::spawn(move || {
                let owner = ct.port(PortId(thread.into()));
                let nat = Nat {
                    source: Some(NatRange {
                        first: "192.0.2.1".parse().unwrap(),
                        last: "192.0.2.2".parse().unwrap(),
                        ports: Some(1000..=2000),
                    }),
                    destination: None,
                };
                for round in 0..3000_u32 {
                    // Threads share tuples of odd numbers.
                    let n = (round % 50) as u16;
                    let host = if n % 2 == 1 { 9 } else { thread as u8 };
                    let frame = udp([10, 0, 1, host], B, (n, 53));
                    let fields = Fields::of(&frame).unwrap();
                    let packet = Packet::new(&fields, &frame, 60);
                    let now = round / 10;
                    let seen = ct.lookup(&zone, &fields, &packet, now);
                    let nat = n.is_multiple_of(3).then_some(&nat);
                    let handle = match seen.handle {
                        Some(handle) => Some(handle),
                        None => ct
                            .commit(&zone, &owner, &fields, &packet, nat, None, now)
                            .ok()
                            .map(|made| made.handle),
                    };
                    if let Some(handle) = handle {
                        ct.track(handle, &packet, now);
                    }
                    if round % 7 == 0 {
                        ct.expire(now, 20);
                    }
                    if round % 501 == 0 {
                        ct.flush(|entry| entry.original.src_port % 5 == 0);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let entries = ct.entries(300);
    assert_eq!((entries.len(), zone.counters().connections as usize), (ct.len(), ct.len()));
    let used: u32 = (0..4).map(|port| ct.port(PortId(port)).used()).sum();
    assert_eq!(used as usize, ct.len());
    let mut tuples: Vec<_> = entries.iter().map(|entry| format!("{:?}", entry.reply)).collect();
    tuples.sort_unstable();
    tuples.dedup();
    assert_eq!(tuples.len(), ct.len(), "no two with the same answers");
    ct.flush(|_| true);
    assert_eq!((ct.len(), zone.counters().connections), (0, 0));
    assert_eq!(ct.expire(100_000, 100_000), 0, "nothing is left in a wheel");
}

proptest::proptest! {
    /// Whatever the bytes: no panic, and the quotas add up.
    #[test]
    fn any_bytes_are_tracked_or_refused(
        frames in proptest::collection::vec(
            (0..4_usize, proptest::collection::vec(proptest::prelude::any::<u8>(), 14..140), 0..200_u32), 1..20),
    ) {
        let bed = Bed::new(&ZoneSettings::default());
        let nat = Nat {
            source: Some(NatRange { first: "192.0.2.1".parse().unwrap(), last: "192.0.2.9".parse().unwrap(), ports: None }),
            destination: None,
        };
        for (kind, mut bytes, more) in frames {
            // Something that looks like IP of a known protocol, so that it goes far.
            bytes[12..14].copy_from_slice(&[[8, 0], [0x86, 0xdd]][kind % 2]);
            if kind < 2 {
                let protocol = [6, 17, 1, 58][usize::from(bytes[0]) % 4];
                for (at, value) in [(14, [0x45, 0x60][kind]), ([23, 20][kind], protocol), (20, 0)] {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = if at == 20 && kind == 1 { protocol } else { value };
                    }
                }
            }
            let fields = Fields::of(&bytes).unwrap();
            let packet = Packet::new(&fields, &bytes, bytes.len() as u32 + more);
            let seen = bed.ct.lookup(&bed.zone, &fields, &packet, bed.now);
            let made = bed.ct.commit(&bed.zone, &bed.owner, &fields, &packet, Some(&nat), None, bed.now);
            for handle in [seen.handle, made.ok().map(|made| made.handle)].into_iter().flatten() {
                bed.ct.track(handle, &packet, bed.now);
                bed.ct.translate(handle, &fields, &mut bytes.clone(), &Offload::PLAIN);
            }
        }
        proptest::prop_assert_eq!(bed.ct.len(), bed.owner.used() as usize);
        proptest::prop_assert_eq!(bed.ct.entries(bed.now).len(), bed.ct.len());
    }
}
