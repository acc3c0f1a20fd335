//! Frames of few stations, addresses and ports, so that rules often match, with everything that rules look at.

use fabnic_testkit::packets::{BROADCAST, Packet};
use fabnic_wire::checksum::Sum;

use crate::dice::Dice;

pub(crate) fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

pub(crate) fn ip4(n: u8) -> [u8; 4] {
    [10, 0, n / 2, n]
}

pub(crate) fn ip6(n: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, n / 2, 0, 0, 0, 0, 0, 0, 0, n]
}

/// Priorities of tags.
pub(crate) const PRIORITIES: [u8; 3] = [0, 5, 7];

/// Ports that frames use.
pub(crate) fn port(n: u8) -> u16 {
    1000 + u16::from(n)
}

/// Which 802.1Q tags frames have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// None, or one.
    One,
    /// None, or two.
    Two,
}

/// What most frames and rules of a case are about, so that they meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    pub(crate) tagged: bool,
    pub(crate) v6: bool,
    /// TCP, UDP, or ICMP of the version.
    pub(crate) protocol: u8,
}

impl Theme {
    pub(crate) fn new(dice: &mut Dice<'_>) -> Theme {
        let (tagged, v6) = (dice.chance(4), dice.chance(4));
        let protocol = dice.of(&[6, 17, if v6 { 58 } else { 1 }]);
        Theme { tagged, v6, protocol }
    }

    /// Its own, or another one.
    pub(crate) fn vary(self, dice: &mut Dice<'_>) -> Theme {
        if dice.chance(3) { Theme::new(dice) } else { self }
    }
}

/// A frame.
pub(crate) fn frame(dice: &mut Dice<'_>, tags: Tags, theme: Theme) -> Vec<u8> {
    let theme = theme.vary(dice);
    let dst = match dice.below(12) {
        n @ 0..8 => station(n % 5),
        8 | 9 => BROADCAST,
        10 => [1, 0, 0x5e, 1, 2, 3],
        _ => [0x33, 0x33, 0, 0, 0, 0x17],
    };
    let mut packet = Packet::ethernet(dst, station(dice.below(5)));
    if theme.tagged {
        packet = packet.vlan(u16::from(2 + dice.below(3)), dice.of(&PRIORITIES));
        if tags == Tags::Two {
            packet = packet.vlan(u16::from(1 + dice.below(3)), dice.of(&PRIORITIES));
        }
    }
    let (from, to) = (dice.below(5), dice.below(5));
    match dice.below(16) {
        0..14 if theme.v6 => internet(dice, packet.ipv6(ip6(from), ip6(to)), theme),
        0..14 => internet(dice, packet.ipv4(ip4(from), ip4(to)), theme),
        14 => arp(dice, packet, from, to),
        _ => packet.ethertype(0x88b5).payload(&[1; 46]).build(),
    }
}

fn arp(dice: &mut Dice<'_>, packet: Packet, from: u8, to: u8) -> Vec<u8> {
    let operation = 1 + dice.below(2);
    let body =
        [&[0, 1, 8, 0, 6, 4, 0, operation][..], &station(from), &ip4(from), &station(to), &ip4(to)].concat();
    packet.ethertype(0x0806).payload(&body).pad_to(64).build()
}

fn internet(dice: &mut Dice<'_>, packet: Packet, theme: Theme) -> Vec<u8> {
    let v6 = theme.v6;
    let (from, to) = (port(dice.below(5)), port(dice.below(5)));
    let word = u32::from_be_bytes([dice.byte(), dice.byte(), dice.byte(), dice.byte()]);
    let packet = match theme.protocol {
        6 => packet.tcp(from, to, word, !word, dice.byte()),
        17 => packet.udp(from, to),
        _ => {
            let kind = if v6 { dice.of(&[128, 129, 1]) } else { dice.of(&[8, 0, 3]) };
            packet.icmp(kind, dice.below(2), word)
        }
    };
    let payload: Vec<u8> = (0..dice.below(40)).map(|_| dice.byte()).collect();
    let packet = packet.payload(&payload);
    let (l3, l4) = (packet.l3(), packet.l4());
    let mut bytes = packet.build();
    let protocol = bytes.get(l3 + if v6 { 6 } else { 9 }).copied();
    // UDP may come without a checksum.
    if protocol == Some(17)
        && !v6
        && dice.chance(1)
        && let Some(checksum) = bytes.get_mut(l4 + 6..l4 + 8)
    {
        checksum.fill(0);
    }
    let (tos, ttl) = (dice.of(&[0_u8, 1, 0x28, 0x2e, 0xff]), dice.of(&[64_u8, 64, 1, 255]));
    let (fragment, extension) = (if dice.chance(1) { 1 + dice.below(2) } else { 0 }, dice.chance(1));
    if v6 {
        dress6(&mut bytes, l3, tos, ttl, fragment, extension);
    } else {
        dress4(&mut bytes, l3, tos, ttl, fragment, extension);
    }
    if bytes.len() < 64 {
        bytes.resize(64, 0);
    }
    bytes
}

/// `fragment`: 0 for none, 1 for a first, 2 for a later one. `options`: with four bytes of them.
fn dress4(bytes: &mut Vec<u8>, l3: usize, tos: u8, ttl: u8, fragment: u8, options: bool) {
    let mut len = 20;
    if options
        && let Some(total) = bytes.len().checked_sub(l3).and_then(|total| u16::try_from(total + 4).ok())
    {
        bytes.splice(l3 + 20..l3 + 20, [1, 1, 1, 0]);
        len = 24;
        if let Some(header) = bytes.get_mut(l3..l3 + 4) {
            header[0] = 0x46;
            header[2..4].copy_from_slice(&total.to_be_bytes());
        }
    }
    let Some(header) = bytes.get_mut(l3..l3 + len) else { return };
    header[1] = tos;
    header[6..8]
        .copy_from_slice(&[0_u16, 0x2000, 0x2010].map(u16::to_be_bytes)[usize::from(fragment.min(2))]);
    header[8] = ttl;
    header[10..12].fill(0);
    let sum = Sum::of(header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// `options`: with a header of options for the destination.
fn dress6(bytes: &mut Vec<u8>, l3: usize, tos: u8, ttl: u8, fragment: u8, options: bool) {
    let mut insert = |kind: u8, body: [u8; 7]| {
        let Some(next) = bytes.get_mut(l3 + 6) else { return };
        let behind = core::mem::replace(next, kind);
        let [a, b, c, d, e, f, g] = body;
        bytes.splice(l3 + 40..l3 + 40, [behind, a, b, c, d, e, f, g]);
    };
    if fragment > 0 {
        let offset = if fragment == 1 { 1 } else { 0x11 };
        insert(44, [0, 0, offset, 0, 0, 0, 7]);
    }
    if options {
        insert(60, [0, 1, 4, 0, 0, 0, 0]);
    }
    let Some(len) = bytes.len().checked_sub(l3 + 40).and_then(|len| u16::try_from(len).ok()) else { return };
    let Some(header) = bytes.get_mut(l3..l3 + 8) else { return };
    header[0] = 0x60 | tos >> 4;
    header[1] = header[1] & 0x0f | tos << 4;
    header[4..6].copy_from_slice(&len.to_be_bytes());
    header[7] = ttl;
}
