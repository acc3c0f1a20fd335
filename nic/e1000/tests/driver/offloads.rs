//! Every offload against frames that were put together in software: checksums, segments, tags, odd splits over
//! descriptors, all sizes of buffers. What one guest asks its device for, the other receives, finished.

use fabnic_pci::Function;
use fabnic_port::{Burst, DropReason};
use fabnic_testkit::e1000::{Ask, Layout, Place, Received, Registers, reg};
use fabnic_testkit::packets::{Packet, tcp};
use fabnic_wire::Offload;
use fabnic_wire::checksum::{Sum, Verification, ipv4_header_is_valid, verify};
use fabnic_wire::offload::{GSO_ECN, NEEDS_CSUM};
use proptest::prelude::*;

use crate::guest::{Guest, forward, mac};

/// A frame to be sent, as a driver thinks of it.
#[derive(Clone, Debug)]
struct Case {
    v6: bool,
    tcp: bool,
    /// Bytes of TCP options.
    options: usize,
    /// A tag in the frame itself.
    inner: Option<u16>,
    /// A tag that the device inserts.
    inserted: Option<u16>,
    payload: usize,
    cuts: Vec<usize>,
}

/// How the receiver is set up.
#[derive(Clone, Copy, Debug)]
struct Receiver {
    buffer: u32,
    secrc: bool,
    strip: bool,
}

const TCP_FLAGS: u8 = tcp::ACK | tcp::PSH | tcp::FIN | 0x80;

impl Case {
    fn packet(&self, payload: &[u8], seq: u32, flags: u8) -> Packet {
        let mut packet = Packet::ethernet(mac(2), mac(1));
        if let Some(tci) = self.inner {
            packet = packet.tag(0x8100, tci);
        }
        packet = match self.v6 {
            false => packet.ipv4([10, 0, 0, 1], [10, 0, 0, 2]),
            true => packet.ipv6([0xfd; 16], [0xfe; 16]),
        };
        packet = match self.tcp {
            true => packet.tcp(1000, 2000, seq, 7, flags).tcp_options(&vec![1; self.options]),
            false => packet.udp(1000, 2000),
        };
        packet.payload(payload)
    }

    fn payload(&self) -> Vec<u8> {
        (0..self.payload).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn whole(&self) -> Packet {
        self.packet(&self.payload(), 0xffff_ff00, TCP_FLAGS)
    }

    /// Where the checksums are: of the IP header, and of the L4 header.
    fn places(&self) -> (Option<Place>, Place) {
        let packet = self.whole();
        let (l3, l4) = (packet.l3() as u8, packet.l4() as u8);
        let ip = (!self.v6).then_some((l3, l3 + 10, u16::from(l4) - 1));
        (ip, (l4, l4 + if self.tcp { 16 } else { 6 }, 0))
    }

    /// The frame with its checksums left to the device: the pseudo header's sum, and nothing in the IP header.
    fn unfinished(&self) -> Vec<u8> {
        let mut bytes = self.whole().partial_checksum().build();
        if let (Some((_, field, _)), _) = self.places() {
            bytes[usize::from(field)..][..2].fill(0);
        }
        bytes
    }

    /// As [`Case::unfinished`], with all lengths left to the device too.
    fn unsegmented(&self) -> Vec<u8> {
        let mut bytes = self.unfinished();
        let (_, (l4, field, _)) = self.places();
        let (l3, l4, field) = (self.whole().l3(), usize::from(l4), usize::from(field));
        let seed = Sum::from_word(u16::from_be_bytes([bytes[field], bytes[field + 1]]));
        let seed = seed - Sum::from_word((bytes.len() - l4) as u16);
        bytes[field..][..2].copy_from_slice(&seed.word().to_be_bytes());
        let length = l3 + if self.v6 { 4 } else { 2 };
        bytes[length..][..2].fill(0);
        bytes
    }

    /// What must arrive of a frame that is segmented.
    fn segments(&self, mss: usize) -> Vec<Vec<u8>> {
        let payload = self.payload();
        let last = payload.len().div_ceil(mss).saturating_sub(1);
        let segment = |(number, part): (usize, &[u8])| {
            let mut flags = TCP_FLAGS;
            if number > 0 {
                flags &= !0x80;
            }
            if number < last {
                flags &= !(tcp::PSH | tcp::FIN);
            }
            let seq = 0xffff_ff00_u32.wrapping_add((number * mss) as u32);
            let mut bytes = self.packet(part, seq, flags).build();
            if let (Some((l3, field, end)), _) = self.places() {
                let (l3, field) = (usize::from(l3), usize::from(field));
                bytes[l3 + 4..][..2].copy_from_slice(&(number as u16).to_be_bytes());
                bytes[field..][..2].fill(0);
                let sum = Sum::of(&bytes[l3..=usize::from(end)]).checksum();
                bytes[field..][..2].copy_from_slice(&sum.to_be_bytes());
            }
            bytes
        };
        payload.chunks(mss).enumerate().map(segment).collect()
    }
}

/// What must arrive: padded, with the inserted tag in it, or stripped.
fn expected(mut bytes: Vec<u8>, case: &Case, receiver: &Receiver) -> (Vec<u8>, Option<u16>) {
    if let Some(tci) = case.inserted {
        let [a, b] = tci.to_be_bytes();
        bytes.splice(12..12, [0x81, 0, a, b]);
    }
    if bytes.len() < 60 {
        bytes.resize(60, 0);
    }
    if !receiver.strip || bytes[12..14] != [0x81, 0] {
        return (bytes, None);
    }
    let tci = u16::from_be_bytes([bytes[14], bytes[15]]);
    bytes.drain(12..16);
    (bytes, Some(tci))
}

/// Sends the frame, with what is asked for, and gives what arrives.
#[track_caller]
fn exchange(case: &Case, receiver: &Receiver, frame: &[u8], mut ask: Ask) -> Vec<Received> {
    ask.tag = case.inserted;
    let mut a = Guest::new(1, Layout { ctrl: reg::CTRL_VME, ..Layout::default() });
    let mut rctl = reg::RCTL_BAM | reg::RCTL_LPE;
    if receiver.secrc {
        rctl |= reg::RCTL_SECRC;
    }
    let count = (128 * 4096 / receiver.buffer).clamp(256, 2048);
    let layout = Layout {
        buffer: receiver.buffer,
        receive: count,
        rctl,
        ctrl: if receiver.strip { reg::CTRL_VME } else { 0 },
        ..Layout::default()
    };
    let mut b = Guest::new(2, layout);
    a.send(frame, &case.cuts, &ask);
    let tally = forward(&a.port, &b.port);
    assert_eq!((a.port.stopped(), b.port.stopped()), (None, None));
    assert_eq!((tally.frames, tally.dropped()), (1, 0));
    assert_eq!(a.driver.reap().unwrap(), 0);
    b.driver.receive().unwrap()
}

#[track_caller]
fn assert_arrived(got: &[Received], frames: Vec<Vec<u8>>, case: &Case, receiver: &Receiver) {
    assert_eq!(got.len(), frames.len(), "{case:?}");
    for (number, (got, frame)) in got.iter().zip(frames).enumerate() {
        let (bytes, tag) = expected(frame, case, receiver);
        assert_eq!((got.bytes.len(), got.tag), (bytes.len(), tag), "frame {number} of {case:?}");
        let differs = got.bytes.iter().zip(&bytes).position(|(a, b)| a != b);
        assert_eq!(differs, None, "frame {number} of {case:?}");
    }
}

fn cases(payload: impl Strategy<Value = usize>) -> impl Strategy<Value = Case> {
    let tags = (prop::option::of(0_u16..), prop::option::of(0_u16..));
    let cuts = prop::collection::vec(prop_oneof![1_usize..64, 1_usize..5000], 0..6);
    (any::<[bool; 2]>(), 0_usize..10, tags, payload, cuts).prop_map(
        |([v6, tcp], options, (inner, inserted), payload, cuts)| Case {
            v6,
            tcp,
            options: 4 * options,
            inner,
            inserted,
            payload,
            cuts,
        },
    )
}

fn receivers() -> impl Strategy<Value = Receiver> {
    let buffers = prop::sample::select(vec![256_u32, 512, 1024, 2048, 4096, 8192, 16384]);
    (buffers, any::<[bool; 2]>()).prop_map(|(buffer, [secrc, strip])| Receiver { buffer, secrc, strip })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 128 }))]

    #[test]
    fn checksums_are_finished(case in cases(0_usize..9000), receiver in receivers(), with_ip: bool) {
        let (ip, l4) = case.places();
        let mut frame = case.unfinished();
        let finished = case.whole().build();
        let ip = ip.filter(|_| with_ip);
        if let (Some((_, field, _)), false) = (case.places().0, with_ip) {
            // The driver did that one.
            let field = usize::from(field);
            frame[field..field + 2].copy_from_slice(&finished[field..field + 2]);
        }
        let got = exchange(&case, &receiver, &frame, Ask::checksums(ip, Some((l4, case.tcp))));
        assert_arrived(&got, vec![finished], &case, &receiver);
        prop_assert!(got[0].is_checked(), "{:?}", got[0].status);
    }

    #[test]
    fn legacy_checksums_are_finished(case in cases(0_usize..3000), receiver in receivers()) {
        let (_, (l4, field, _)) = case.places();
        let mut frame = case.whole().partial_checksum().build();
        let finished = case.whole().build();
        if let (Some((_, field, _)), _) = case.places() {
            let field = usize::from(field);
            frame[field..field + 2].copy_from_slice(&finished[field..field + 2]);
        }
        let ask = Ask { checksum: Some((l4, field)), ..Ask::default() };
        let got = exchange(&case, &receiver, &frame, ask);
        assert_arrived(&got, vec![finished], &case, &receiver);
    }

    #[test]
    fn large_frames_are_segmented(
        case in cases(prop_oneof![1_usize..3000, 1_usize..60_000]),
        receiver in receivers(),
        mss in 100_u16..9000,
    ) {
        // So many that they fit the receiver's ring.
        let mss = mss.max((case.payload / 120) as u16).max(receiver.buffer.min(256) as u16);
        let (ip, l4) = case.places();
        let place = ip.unwrap_or((case.whole().l3() as u8, 0, 0));
        let headers = case.whole().headers() as u8;
        let ask = Ask::segments(place, l4, case.tcp, !case.v6, headers, mss, case.payload as u32);
        let got = exchange(&case, &receiver, &case.unsegmented(), ask);
        assert_arrived(&got, case.segments(mss.into()), &case, &receiver);
        for got in got {
            prop_assert!(got.is_checked());
            prop_assert_eq!(verify(&got.bytes), Verification::Good);
            let l3 = if got.bytes[12..14] == [0x81, 0] { 18 } else { 14 };
            if !case.v6 && got.bytes[l3 - 2..l3] == [8, 0] {
                prop_assert!(ipv4_header_is_valid(&got.bytes[l3..l3 + 20]));
            }
        }
    }

    #[test]
    fn plain_frames_pass_as_they_are(case in cases(0_usize..16_000), receiver in receivers(), extended: bool) {
        let frame = case.whole().build();
        prop_assume!(frame.len() + 4 <= 16_380);
        let ask = Ask { options: extended.then_some(0), ..Ask::default() };
        let got = exchange(&case, &receiver, &frame, ask);
        assert_arrived(&got, vec![frame], &case, &receiver);
        prop_assert!(!got[0].is_checked(), "nobody has looked at it");
    }

    /// Sums over other places than any protocol's: what cannot be said in offload metadata is computed by the device.
    #[test]
    fn odd_sums_are_computed(
        len in 60_usize..2000,
        cuts in prop::collection::vec(1_usize..200, 0..4),
        place in (0_u8..200, 14_u8..190, 0_u16..2100),
        is_tcp: bool,
    ) {
        let (start, field, end) = place;
        let case =
            Case { v6: false, tcp: is_tcp, options: 0, inner: None, inserted: None, payload: 0, cuts };
        let receiver = Receiver { buffer: 2048, secrc: false, strip: false };
        let mut frame = case.packet(&[], 0, 0).size(len).build();
        (42..len).for_each(|at| frame[at] = (at * 13) as u8);
        let ask = Ask { options: Some(2), ..Ask::checksums(None, Some((place, is_tcp))) };
        let got = exchange(&case, &receiver, &frame, ask);
        let last = if end == 0 { len } else { len.min(usize::from(end) + 1) };
        let (start, field) = (usize::from(start), usize::from(field));
        let mut finished = frame.clone();
        if start < last && field + 2 <= len {
            let sum = Sum::of(&frame[start..last]);
            // By its place a checksum is that of UDP for the house, by the context's bit for the part.
            let is_udp = !is_tcp || field == start + 6;
            let value = if is_udp { sum.udp_checksum() } else { sum.checksum() };
            finished[field..field + 2].copy_from_slice(&value.to_be_bytes());
        }
        assert_arrived(&got, vec![finished], &case, &receiver);
    }
}

#[test]
fn a_frame_with_its_own_fcs_loses_it() {
    let receiver = Receiver { buffer: 2048, secrc: false, strip: false };
    let case =
        Case { v6: false, tcp: false, options: 0, inner: None, inserted: None, payload: 100, cuts: vec![] };
    let frame = case.whole().build();
    let with_fcs = [&frame[..], &[1, 2, 3, 4]].concat();
    let got = exchange(&case, &receiver, &with_fcs, Ask { own_fcs: true, ..Ask::default() });
    assert_arrived(&got, vec![frame], &case, &receiver);
}

/// What the switch, and a receiver that takes it, get of a large frame: the whole of it, with nothing computed.
#[test]
fn large_frames_go_on_untouched() {
    for (v6, tcp, inserted, gso_type) in
        [(false, true, None, 1), (true, true, Some(5), 4), (false, false, None, 5), (true, false, Some(5), 5)]
    {
        let options = if tcp { 12 } else { 0 };
        let case = Case { v6, tcp, options, inner: None, inserted, payload: 60_000, cuts: vec![54, 20_000] };
        let (ip, l4) = case.places();
        let headers = case.whole().headers() as u8;
        let ask = Ask::segments(ip.unwrap_or((14, 0, 0)), l4, tcp, !v6, headers, 1000, 60_000);
        let mut a = Guest::new(1, Layout { ctrl: reg::CTRL_VME, ..Layout::default() });
        a.send(&case.unsegmented(), &case.cuts, &Ask { tag: inserted, ..ask });
        let mut burst = Burst::new();
        let mut guard = a.port.ingress()[0].lock();
        guard.as_mut().unwrap().receive(&mut burst).unwrap();
        let tag = if inserted.is_some() { 4 } else { 0 };
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: gso_type | if tcp { GSO_ECN } else { 0 },
            hdr_len: u16::from(headers) + tag,
            gso_size: 1000,
            csum_start: u16::from(l4.0) + tag,
            csum_offset: u16::from(l4.1 - l4.0),
        };
        assert_eq!((burst.len(), burst.frames()[0].offload()), (1, offload));
        // As a driver of virtio-net would have written it.
        let mut expected = case.whole().partial_checksum().build();
        if let Some(tci) = inserted {
            let [a, b] = tci.to_be_bytes();
            expected.splice(12..12, [0x81, 0, a, b]);
        }
        let mut bytes = vec![0; burst.frames()[0].len() as usize];
        burst.copy_out(0, &mut bytes);
        assert!(bytes == expected, "{case:?}");
    }
}

#[test]
fn contexts_are_kept_apart_and_kept() {
    let (mut a, mut b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
    let case =
        Case { v6: false, tcp: true, options: 0, inner: None, inserted: None, payload: 3000, cuts: vec![] };
    let (ip, l4) = case.places();
    let small = Case { payload: 100, ..case.clone() };
    let segments = Ask::segments(ip.unwrap(), l4, true, true, 54, 1000, 3000);
    let checksum = Ask::checksums(ip, Some((l4, true)));
    let without = |ask: Ask| Ask { context: None, ..ask };
    a.send(&case.unsegmented(), &[54], &segments);
    a.send(&small.unfinished(), &[], &checksum);
    // Both go on without being said again, also over a change of the map.
    a.send(&case.unsegmented(), &[54], &without(segments));
    assert_eq!(forward(&a.port, &b.port).frames, 3);
    let map = crate::guest::shared_map(a.driver.memory());
    a.device().set_memory(Some(map));
    a.send(&small.unfinished(), &[], &without(checksum));
    a.send(&case.unsegmented(), &[54], &without(segments));
    assert_eq!(forward(&a.port, &b.port).frames, 2);
    let got = b.driver.receive().unwrap();
    assert_eq!(got.len(), 3 + 1 + 3 + 1 + 3);
    assert!(got.iter().all(|frame| verify(&frame.bytes) == Verification::Good));
    assert_eq!(a.driver.reap().unwrap(), 0);
}

#[test]
fn segments_without_meaning_are_dropped_with_a_reason() {
    let case =
        Case { v6: false, tcp: true, options: 0, inner: None, inserted: None, payload: 3000, cuts: vec![] };
    let (ip, l4) = case.places();
    let ip = ip.unwrap();
    let asks = [
        Ask::segments(ip, l4, true, true, 54, 0, 3000),
        Ask::segments(ip, l4, true, false, 54, 1000, 3000),
        Ask::segments(ip, l4, false, true, 54, 1000, 3000),
        Ask::segments(ip, (200, 216, 0), true, true, 255, 1000, 3000),
        Ask::segments(ip, (34, 33, 0), true, true, 54, 1000, 3000),
        Ask::segments((250, 255, 0), l4, true, true, 54, 1000, 3000),
        Ask::segments(ip, l4, true, true, 54, 1, 3000),
    ];
    for (number, ask) in asks.into_iter().enumerate() {
        let (mut a, b) = (Guest::new(1, Layout::default()), Guest::new(2, Layout::default()));
        a.send(&case.unsegmented(), &[], &ask);
        let tally = forward(&a.port, &b.port);
        assert_eq!((tally.frames, tally.dropped_for(DropReason::BadOffload)), (0, 1), "ask {number}");
        assert_eq!(a.driver.reap().unwrap(), 0, "its descriptors come back");
        assert_eq!(a.driver.registers.get(0x40fc), 1);
        assert!(!a.port.is_stopped());
    }
}

#[test]
fn long_frames_need_lpe() {
    for (lpe, len, passes) in
        [(false, 1518, true), (false, 1519, false), (true, 16_380, true), (true, 16_381, false)]
    {
        let rctl = reg::RCTL_BAM | if lpe { reg::RCTL_LPE } else { 0 };
        let (mut a, mut b) =
            (Guest::new(1, Layout::default()), Guest::new(2, Layout { rctl, ..Layout::default() }));
        a.send(&Packet::ethernet(mac(2), mac(1)).size(len).build(), &[9000], &Ask::default());
        let tally = forward(&a.port, &b.port);
        assert_eq!(tally.frames == 1, passes, "{len}");
        assert_eq!(b.driver.registers.get(reg::ROC) == 0, passes);
        let got = b.driver.receive().unwrap();
        assert_eq!(got.iter().map(|frame| frame.bytes.len()).sum::<usize>(), if passes { len } else { 0 });
    }
}

#[test]
fn vlans_that_are_not_in_the_table_are_filtered() {
    let (mut a, mut b) = (
        Guest::new(1, Layout { ctrl: reg::CTRL_VME, ..Layout::default() }),
        Guest::new(
            2,
            Layout { ctrl: reg::CTRL_VME, rctl: reg::RCTL_BAM | reg::RCTL_VFE, ..Layout::default() },
        ),
    );
    b.driver.registers.set(reg::VFTA + 4 * (100 / 32), 1 << (100 % 32));
    let frame = Packet::ethernet(mac(2), mac(1)).size(100).build();
    for (tag, passes) in [(Some(100), true), (Some(0xe064), true), (Some(101), false), (None, true)] {
        a.send(&frame, &[], &Ask { tag, ..Ask::default() });
        assert_eq!(forward(&a.port, &b.port).frames == 1, passes, "{tag:?}");
        let got = b.driver.receive().unwrap();
        if passes {
            assert_eq!((got[0].tag, &got[0].bytes), (tag, &frame));
        }
    }
}
