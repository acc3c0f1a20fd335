//! TCP, segment by segment: what each is seen as, and where the connection is afterwards.

use super::*;

/// One line of a trace: `>` as the first segment, `<` an answer.
type Line<'a> = (char, Seg<'a>, &'a str, Option<TcpState>);

fn run(bed: &mut Bed, lines: &[Line<'_>]) {
    for (number, (way, segment, expected, state)) in lines.iter().enumerate() {
        let frame = segment.frame(*way == '<');
        let seen = bed.pass(&frame);
        assert_eq!((seen.as_str(), bed.tcp()), (*expected, *state), "line {number}: {segment:?}");
    }
}

const SS: Option<TcpState> = Some(TcpState::SynSent);
const S2: Option<TcpState> = Some(TcpState::SynSent2);
const SR: Option<TcpState> = Some(TcpState::SynRecv);
const ES: Option<TcpState> = Some(TcpState::Established);
const FW: Option<TcpState> = Some(TcpState::FinWait);
const CW: Option<TcpState> = Some(TcpState::CloseWait);
const LA: Option<TcpState> = Some(TcpState::LastAck);
const TW: Option<TcpState> = Some(TcpState::TimeWait);
const CL: Option<TcpState> = Some(TcpState::Close);

fn open(bed: &mut Bed) {
    run(
        bed,
        &[
            ('>', seg("S", 100, 0, 0), "new", SS),
            ('<', seg("SA", 500, 101, 0), "est+rpl", SR),
            ('>', seg("A", 101, 501, 0), "est", ES),
        ],
    );
    assert!(bed.only().assured);
}

#[test]
fn opens_and_closes() {
    let mut bed = Bed::new(&ZoneSettings::default());
    open(&mut bed);
    assert_eq!(bed.only().expires, 432_000);
    run(
        &mut bed,
        &[
            ('>', seg("PA", 101, 501, 10), "est", ES),
            ('<', seg("A", 501, 111, 0), "est+rpl", ES),
            ('<', seg("PA", 501, 111, 900), "est+rpl", ES),
            ('>', seg("FA", 111, 1401, 0), "est", FW),
            ('<', seg("A", 1401, 112, 0), "est+rpl", CW),
            ('<', seg("FA", 1401, 112, 0), "est+rpl", LA),
            ('>', seg("A", 112, 1402, 0), "est", TW),
        ],
    );
    let entry = bed.only();
    assert_eq!((entry.packets, entry.expires), ([5, 5], 120));
    // Forgotten after its time.
    bed.now += 119;
    assert_eq!(bed.ct.expire(bed.now, 100), 0);
    bed.now += 5;
    assert_eq!((bed.ct.expire(bed.now, 100), bed.ct.len()), (1, 0));
}

#[test]
fn closes_from_the_other_side_and_at_once() {
    let mut bed = Bed::new(&ZoneSettings::default());
    open(&mut bed);
    run(
        &mut bed,
        &[
            // Half closed: the client still sends.
            ('<', seg("FA", 501, 101, 0), "est+rpl", FW),
            ('>', seg("A", 101, 502, 0), "est", CW),
            ('>', seg("PA", 101, 502, 500), "est", CW),
            ('<', seg("A", 502, 601, 0), "est+rpl", CW),
            ('>', seg("FA", 601, 502, 0), "est", LA),
            ('<', seg("A", 502, 602, 0), "est+rpl", TW),
        ],
    );
    let mut bed = Bed::new(&ZoneSettings::default());
    open(&mut bed);
    run(
        &mut bed,
        &[
            // Both at once: both FINs, then both ACKs.
            ('>', seg("FA", 101, 501, 0), "est", FW),
            ('<', seg("FA", 501, 101, 0), "est+rpl", LA),
            ('>', seg("A", 102, 502, 0), "est", TW),
            ('<', seg("A", 502, 102, 0), "est+rpl", TW),
        ],
    );
}

#[test]
fn opens_from_both_sides() {
    let mut bed = Bed::new(&ZoneSettings::default());
    run(
        &mut bed,
        &[
            ('>', seg("S", 100, 0, 0), "new", SS),
            ('<', seg("S", 500, 0, 0), "est+rpl", S2),
            ('>', seg("SA", 100, 501, 0), "est", SR),
            ('<', seg("SA", 500, 101, 0), "est+rpl", SR),
            ('>', seg("A", 101, 501, 0), "est", ES),
            ('<', seg("PA", 501, 101, 50), "est+rpl", ES),
        ],
    );
}

#[test]
fn a_reset_ends_it_only_with_the_right_number() {
    let mut bed = Bed::new(&ZoneSettings::default());
    open(&mut bed);
    run(
        &mut bed,
        &[
            ('<', seg("A", 501, 101, 0), "est+rpl", ES),
            // Acknowledged already: a guess, or old.
            ('>', seg("R", 90, 0, 0), "inv", ES),
            // Behind the window.
            ('>', seg("R", 60000, 0, 0), "inv", ES),
            // In the window, but not what is expected: let through, to be challenged (RFC 5961).
            ('>', seg("R", 150, 0, 0), "est", ES),
            ('>', seg("R", 101, 0, 0), "est", CL),
        ],
    );
    assert_eq!(bed.only().expires, 10);
    // A reset connection may be opened anew at once.
    let again = seg("S", 9000, 0, 0).frame(false);
    assert_eq!((bed.pass(&again).as_str(), bed.tcp(), bed.ct.len()), ("new", SS, 1));
}

#[test]
fn a_refused_connection_is_forgotten_at_once() {
    let mut bed = Bed::new(&ZoneSettings::default());
    run(
        &mut bed,
        &[
            ('>', seg("S", 100, 0, 0), "new", SS),
            // Resets that do not answer the SYN.
            ('<', seg("RA", 0, 77, 0), "inv", SS),
            ('<', seg("R", 0, 0, 0), "inv", SS),
            ('<', seg("RA", 0, 101, 0), "est+rpl", None),
        ],
    );
    assert!(bed.ct.is_empty());
    assert_eq!((bed.owner.used(), bed.zone.counters().connections), (0, 0));
}

#[test]
fn a_closed_connection_is_opened_anew() {
    let mut bed = Bed::new(&ZoneSettings::default());
    open(&mut bed);
    run(
        &mut bed,
        &[
            ('>', seg("FA", 101, 501, 0), "est", FW),
            ('<', seg("FA", 501, 102, 0), "est+rpl", LA),
            ('>', seg("A", 102, 502, 0), "est", TW),
            ('>', seg("S", 90_000, 0, 0), "new", SS),
            ('<', seg("SA", 70_000, 90_001, 0), "est+rpl", SR),
            ('>', seg("A", 90_001, 70_001, 0), "est", ES),
        ],
    );
    assert_eq!(bed.only().packets, [2, 1]);
}

#[test]
fn a_crashed_client_comes_back_while_we_hold_the_old_connection() {
    let mut bed = Bed::new(&ZoneSettings::default());
    open(&mut bed);
    run(
        &mut bed,
        &[
            // The SYN is let through and remembered; the server's challenge (an ACK) changes nothing.
            ('>', seg("S", 700_000, 0, 0), "est", ES),
            ('<', seg("A", 501, 101, 0), "est+rpl", ES),
            // The client answers the challenge with a reset: the server is free, and so are we.
            ('>', seg("R", 101, 0, 0), "est", CL),
            ('>', seg("S", 700_000, 0, 0), "new", SS),
        ],
    );
    // A server that has lost the connection too answers the SYN: we get into step.
    let mut bed = Bed::new(&ZoneSettings::default());
    open(&mut bed);
    run(
        &mut bed,
        &[
            ('>', seg("S", 700_000, 0, 0), "est", ES),
            ('<', seg("SA", 900_000, 700_001, 0), "est+rpl", SR),
            ('>', seg("A", 700_001, 900_001, 0), "est", ES),
            ('>', seg("PA", 700_001, 900_001, 100), "est", ES),
        ],
    );
}

#[test]
fn what_is_out_of_the_window_is_invalid() {
    let mut bed = Bed::new(&ZoneSettings::default());
    open(&mut bed);
    let lines: &[Line<'_>] = &[
        // Rule 1: the window is 1000.
        ('>', seg("PA", 101 + 999, 501, 1), "est", ES),
        // Too much, by more than another window.
        ('>', seg("PA", 101 + 1001, 501, 1000), "inv", ES),
        ('>', seg("PA", 101 + 3000, 501, 1), "inv", ES),
        // By less: it may be taken, and what is acknowledged then was sent.
        ('<', seg("A", 501, 101 + 1011, 0), "inv", ES),
        ('>', seg("PA", 101 + 1001, 501, 10), "est", ES),
        ('<', seg("A", 501, 101 + 1011, 0), "est+rpl", ES),
        // Rule 2: acknowledges what was never sent.
        ('>', seg("A", 1112, 502, 0), "inv", ES),
        // Rules 3 and 4: older than a window, acknowledges what is long gone. Let through, and nothing is learned from it.
        ('>', seg("PA", 60, 501, 10), "est", ES),
        ('>', seg("A", 1112, 501_u32.wrapping_sub(66_001), 0), "est", ES),
        // Also a segment without data has its place.
        ('>', seg("A", 1112 + 5000, 501, 0), "inv", ES),
    ];
    run(&mut bed, lines);
    let before = bed.zone.counters().invalid;
    // On a cached flow it is found while it is tracked.
    let handle = bed.look(&seg("PA", 101, 501, 1).frame(false)).handle.unwrap();
    assert_eq!(bed.track(handle, &seg("PA", 5000, 501, 1).frame(false)), Tracked::Invalid);
    assert_eq!(bed.zone.counters().invalid, before + 1);
    // Liberal zones let all of it through, but no reset.
    let mut bed = Bed::new(&ZoneSettings { liberal: true, ..ZoneSettings::default() });
    open(&mut bed);
    run(&mut bed, &[('>', seg("PA", 60_000, 501, 10), "est", ES), ('>', seg("R", 60_000, 0, 0), "inv", ES)]);
}

#[test]
fn windows_are_scaled_if_both_sides_say_so() {
    const SCALE_7: &[u8] = &[1, 3, 3, 7];
    for both in [true, false] {
        let mut bed = Bed::new(&ZoneSettings::default());
        run(
            &mut bed,
            &[
                ('>', Seg { options: SCALE_7, ..seg("S", 100, 0, 0) }, "new", SS),
                (
                    '<',
                    Seg { options: if both { SCALE_7 } else { &[] }, ..seg("SA", 500, 101, 0) },
                    "est+rpl",
                    SR,
                ),
                ('>', seg("A", 101, 501, 0), "est", ES),
                // Now the window is 128000.
                ('<', seg("A", 501, 101, 0), "est+rpl", ES),
                ('>', seg("PA", 101 + 50_000, 501, 1), if both { "est" } else { "inv" }, ES),
            ],
        );
    }
}

#[test]
fn a_selective_acknowledgment_counts() {
    const PERMITTED: &[u8] = &[4, 2, 1, 1];
    let mut bed = Bed::new(&ZoneSettings::default());
    // Two blocks: up to 701, up to 1051 (the second is higher).
    let mut blocks = vec![1, 1, 5, 18];
    for edge in [601_u32, 701, 1001, 1051] {
        blocks.extend(edge.to_be_bytes());
    }
    run(
        &mut bed,
        &[
            ('>', Seg { options: PERMITTED, ..seg("S", 100, 0, 0) }, "new", SS),
            ('<', Seg { options: PERMITTED, ..seg("SA", 500, 101, 0) }, "est+rpl", SR),
            ('>', seg("A", 101, 501, 0), "est", ES),
            ('<', seg("PA", 1001, 101, 50), "est+rpl", ES),
            ('>', Seg { options: &blocks, ..seg("A", 101, 501, 0) }, "est", ES),
            // The right edge of the window has moved with the highest block.
            ('<', seg("PA", 2040, 101, 10), "est+rpl", ES),
            // A block of what was never sent.
            (
                '>',
                Seg { options: &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 99, 0], ..seg("A", 101, 501, 0) },
                "inv",
                ES,
            ),
        ],
    );
}

#[test]
fn large_frames_count_as_a_whole() {
    let mut bed = Bed::new(&ZoneSettings::default());
    run(
        &mut bed,
        &[
            ('>', Seg { window: 65535, ..seg("S", 100, 0, 0) }, "new", SS),
            ('<', Seg { window: 65535, ..seg("SA", 500, 101, 0) }, "est+rpl", SR),
            ('>', seg("A", 101, 501, 0), "est", ES),
            ('>', seg("PA", 101, 501, 60_000), "est", ES),
            ('<', Seg { window: 65535, ..seg("A", 501, 60_101, 0) }, "est+rpl", ES),
        ],
    );
    // Only the head is in hand, the length is the frame's.
    let frame = seg("PA", 60_101, 501, 40_000).frame(false);
    let handle = bed.look(&frame).handle.unwrap();
    let fields = Fields::of(&frame[..128]).unwrap();
    let packet = Packet::new(&fields, &frame[..128], frame.len() as u32);
    assert_eq!(bed.ct.track(handle, &packet, bed.now), Tracked::Valid { changed: false });
    run(&mut bed, &[('<', seg("A", 501, 100_101, 0), "est+rpl", ES)]);
    // Padding is no payload.
    let mut short = seg("A", 100_101, 501, 0).frame(false);
    short.resize(60, 0);
    assert_eq!(bed.pass(&short), "est");
    run(&mut bed, &[('<', seg("A", 501, 100_102, 0), "inv", ES)]);
}

#[test]
fn connections_are_picked_up_in_the_middle_where_that_is_allowed() {
    let mut bed = Bed::new(&ZoneSettings::default());
    run(
        &mut bed,
        &[
            ('>', seg("PA", 5000, 9000, 100), "new", ES),
            // The scale is not known: a window of any size may have been meant.
            ('<', seg("A", 9000, 5100, 0), "est+rpl", ES),
            ('>', seg("PA", 205_100, 9000, 100), "est", ES),
        ],
    );
    let strict = Bed::new(&ZoneSettings { loose: false, ..ZoneSettings::default() });
    assert_eq!(strict.pass(&seg("PA", 5000, 9000, 100).frame(false)), "inv");
    for never in ["SA", "FA", "R", "RA"] {
        let bed = Bed::new(&ZoneSettings::default());
        assert_eq!(bed.pass(&seg(never, 1, 1, 0).frame(false)), "inv", "{never}");
        assert!(bed.ct.is_empty());
    }
}

#[test]
fn impossible_flags_and_broken_headers_are_invalid() {
    let bed = Bed::new(&ZoneSettings::default());
    for flags in ["", "SF", "SR", "SAF", "FR", "F", "SARF", "P", "U"] {
        assert_eq!(bed.pass(&seg(flags, 1, 1, 0).frame(false)), "inv", "{flags}");
    }
    let mut frame = seg("S", 1, 0, 0).frame(false);
    frame[46] = 0x40;
    assert_eq!(bed.pass(&frame), "inv", "data offset below 20");
    frame[46] = 0xf0;
    assert_eq!(bed.pass(&frame), "inv", "options behind the packet");
    assert!(bed.ct.is_empty());
}

#[test]
fn hostile_options_are_read_in_bounded_time_and_mean_nothing() {
    for options in [
        &[3, 0, 7, 0][..],
        &[3, 1, 3, 1],
        &[3, 3, 200, 0],
        &[4, 40, 0, 0],
        &[1, 1, 1, 3],
        &[5, 2, 5, 2],
        &[5, 3, 0, 0],
        &[253, 2, 253, 2],
        &[0, 3, 3, 7],
        &[2, 2, 3, 3, 255, 1, 1, 1],
    ] {
        let bed = Bed::new(&ZoneSettings::default());
        assert_eq!(bed.pass(&Seg { options, ..seg("S", 100, 0, 0) }.frame(false)), "new");
        assert_eq!(bed.pass(&Seg { options, ..seg("SA", 500, 101, 0) }.frame(true)), "est+rpl");
        assert_eq!(bed.pass(&Seg { options, ..seg("A", 101, 501, 0) }.frame(false)), "est");
    }
}

#[test]
fn timeouts_follow_what_is_known() {
    let mut bed = Bed::new(&ZoneSettings {
        timeouts: vec![(Timeout::TcpEstablished, 1000), (Timeout::TcpRetransmissions, 40)],
        ..ZoneSettings::default()
    });
    open(&mut bed);
    assert_eq!(bed.only().expires, 1000);
    // Not acknowledged.
    run(&mut bed, &[('>', seg("PA", 101, 501, 10), "est", ES)]);
    assert_eq!(bed.only().expires, 300);
    run(&mut bed, &[('<', seg("A", 501, 111, 0), "est+rpl", ES)]);
    assert_eq!(bed.only().expires, 1000);
    // Again and again.
    for _ in 0..4 {
        run(&mut bed, &[('>', seg("PA", 111, 501, 10), "est", ES)]);
    }
    assert_eq!(bed.only().expires, 40);
}
