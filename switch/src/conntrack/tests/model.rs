//! The table against a slow and obvious one: a list of connections that is walked for every packet.
//!
//! The model knows nothing of hashes, slots, wheels and versions; TCP has its own tests: traces, and two
//! stacks over a lossy link.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Known {
    client: (u8, u16),
    server: (u8, u16),
    kind: Kind,
    answered: bool,
    since: u32,
    deadline: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp,
    Echo,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Packet { kind: Kind, from: (u8, u16), to: (u8, u16), answer: bool },
    Wait(u32),
    Sweep,
    Flush(u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let end = (0..3_u8, 0..3_u16);
    let kind = prop_oneof![Just(Kind::Udp), Just(Kind::Echo)];
    let packet = (kind, end.clone(), end, any::<bool>()).prop_map(|(kind, from, to, answer)| Event::Packet {
        kind,
        from,
        to,
        answer,
    });
    let event = prop_oneof![
        20 => packet,
        4 => (0..40_u32).prop_map(Event::Wait),
        1 => (100..500_u32).prop_map(Event::Wait),
        3 => Just(Event::Sweep),
        1 => (0..3_u8).prop_map(Event::Flush),
    ];
    prop::collection::vec(event, 1..120)
}

fn host(n: u8) -> [u8; 4] {
    [10, 0, 0, n]
}

proptest! {
    #[test]
    fn is_what_a_list_would_say(events in events()) {
        let mut bed = Bed::new(&ZoneSettings { limit: 8, ..ZoneSettings::default() });
        let mut list: Vec<Known> = Vec::new();
        for event in events {
            match event {
                Event::Wait(seconds) => bed.now += seconds,
                Event::Sweep => {
                    // Slots of two seconds: what has just ended may stay for a moment.
                    bed.ct.expire(bed.now, 1000);
                    list.retain(|known| {
                        known.deadline > bed.now || (known.deadline + 5 > bed.now && !swept(&bed, known))
                    });
                }
                Event::Flush(client) => {
                    bed.ct.flush(|entry| entry.original.src[3] == client);
                    list.retain(|known| known.client.0 != client);
                }
                Event::Packet { kind, from, to, answer } => {
                    let frame = match kind {
                        Kind::Udp => udp(host(from.0), host(to.0), (from.1, to.1)),
                        // The identifier is the port of both.
                        Kind::Echo => echo(host(from.0), host(to.0), !answer, from.1),
                    };
                    let (from, to) = match kind {
                        Kind::Udp => (from, to),
                        Kind::Echo => (from, (to.0, from.1)),
                    };
                    let now = bed.now;
                    let live = |known: &&mut Known| known.kind == kind && known.deadline > now;
                    let asks = |known: &Known| {
                        (known.client, known.server) == (from, to) && (kind == Kind::Udp || !answer)
                    };
                    let answers = |known: &Known| {
                        (known.server, known.client) == (from, to) && (kind == Kind::Udp || answer)
                    };
                    let by_asking = list.iter_mut().filter(live).position(|known| asks(known));
                    let expected = if let Some(at) = by_asking {
                        let known = list.iter_mut().filter(live).nth(at).unwrap();
                        refresh(known, now, false);
                        if known.answered { "est" } else { "new" }
                    } else if let Some(known) = list.iter_mut().filter(live).find(|known| answers(known)) {
                        refresh(known, now, true);
                        "est+rpl"
                    } else if kind == Kind::Echo && answer {
                        "inv"
                    } else {
                        // One that is over makes room for another one with its tuple, at once.
                        list.retain(|known| known.deadline > now || known.kind != kind || !(asks(known) || answers(known)));
                        if list.len() < 8 {
                            list.push(Known { client: from, server: to, kind, answered: false, since: now, deadline: now + 30 });
                        }
                        "new"
                    };
                    prop_assert_eq!(bed.pass(&frame), expected, "{:?} at {}", event, now);
                }
            }
            prop_assert_eq!(bed.ct.len(), list.len(), "after {:?} at {}", event, bed.now);
            let alive = bed.ct.entries(bed.now).iter().filter(|entry| entry.expires > 0).count();
            prop_assert_eq!(alive, list.iter().filter(|known| known.deadline > bed.now).count());
        }
        bed.now += 10_000;
        bed.ct.expire(bed.now, 1000);
        prop_assert!(bed.ct.is_empty());
        prop_assert_eq!((bed.owner.used(), bed.zone.counters().connections), (0, 0));
    }
}

/// A packet keeps a connection: a stream for longer.
fn refresh(known: &mut Known, now: u32, answer: bool) {
    let stream = known.kind == Kind::Udp && known.answered && now - known.since >= 2;
    known.deadline = now + if stream { 120 } else { 30 };
    known.answered |= answer;
}

/// Whether the table has forgotten it.
fn swept(bed: &Bed, known: &Known) -> bool {
    !bed.ct.entries(bed.now).iter().any(|entry| {
        (entry.original.src[3], entry.original.src_port) == known.client
            && entry.original.dst[3] == known.server.0
            && (entry.original.protocol == fabnic_wire::IpProtocol::UDP) == (known.kind == Kind::Udp)
            && (known.kind == Kind::Echo || entry.original.dst_port == known.server.1)
    })
}
