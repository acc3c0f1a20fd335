//! As much of a host as ping needs: answers ARP and ICMP echo, asks for both.
//!
//! No state beyond its addresses and what it was told by ARP: frames in, frames out.

use std::collections::BTreeMap;

use fabnic_wire::checksum::{Sum, ipv4_header_is_valid};

use crate::packets::{Packet, arp_reply, arp_request};

/// A host on an Ethernet.
#[derive(Clone, Debug)]
pub struct Endpoint {
    mac: [u8; 6],
    ip: [u8; 4],
    neighbours: BTreeMap<[u8; 4], [u8; 6]>,
}

/// What a frame was to an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing for it.
    Nothing,
    /// A question; the frame that answers it.
    Answer(Vec<u8>),
    /// Somebody's address; it is known from now on.
    Neighbour([u8; 4]),
    /// An answer to an echo request.
    EchoReply {
        /// Who answered.
        from: [u8; 4],
        /// Identifier of the request.
        id: u16,
        /// Number of the request.
        sequence: u16,
        /// What was sent along.
        payload: Vec<u8>,
    },
}

impl Endpoint {
    /// With its addresses.
    pub fn new(mac: [u8; 6], ip: [u8; 4]) -> Endpoint {
        Endpoint { mac, ip, neighbours: BTreeMap::new() }
    }

    /// Asks who has an address.
    pub fn who_has(&self, ip: [u8; 4]) -> Vec<u8> {
        arp_request(self.mac, self.ip, ip)
    }

    /// The MAC address of a neighbour, if it was heard.
    pub fn neighbour(&self, ip: [u8; 4]) -> Option<[u8; 6]> {
        self.neighbours.get(&ip).copied()
    }

    /// An echo request, if the neighbour is known.
    pub fn echo_request(&self, to: [u8; 4], id: u16, sequence: u16, payload: &[u8]) -> Option<Vec<u8>> {
        let mac = self.neighbour(to)?;
        let rest = u32::from(id) << 16 | u32::from(sequence);
        Some(
            Packet::ethernet(mac, self.mac)
                .ipv4(self.ip, to)
                .icmp(8, 0, rest)
                .payload(payload)
                .pad_to(60)
                .build(),
        )
    }

    /// A frame that came in.
    pub fn hear(&mut self, frame: &[u8]) -> Heard {
        self.parse(frame).unwrap_or(Heard::Nothing)
    }

    fn parse(&mut self, frame: &[u8]) -> Option<Heard> {
        let dst = frame.first_chunk::<6>()?;
        if *dst != self.mac && dst[0] & 1 == 0 {
            return None;
        }
        match frame.get(12..14)? {
            [0x08, 0x06] => self.parse_arp(frame.get(14..)?),
            [0x08, 0x00] => self.parse_ipv4(frame),
            _ => None,
        }
    }

    fn parse_arp(&mut self, arp: &[u8]) -> Option<Heard> {
        let arp = arp.first_chunk::<28>()?;
        let (head, rest) = arp.split_first_chunk::<6>()?;
        if *head != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let target_ip = rest.get(6..)?.first_chunk::<4>()?;
        if *target_ip != self.ip || sender_mac[0] & 1 == 1 {
            return None;
        }
        self.neighbours.insert(*sender_ip, *sender_mac);
        match operation {
            [0, 1] => Some(Heard::Answer(arp_reply(*sender_mac, self.mac, self.ip, *sender_ip))),
            [0, 2] => Some(Heard::Neighbour(*sender_ip)),
            _ => None,
        }
    }

    fn parse_ipv4(&mut self, frame: &[u8]) -> Option<Heard> {
        let src_mac = frame.get(6..12)?.first_chunk::<6>()?;
        let ip = frame.get(14..)?;
        let header = ip.first_chunk::<20>()?;
        // Options, fragments and other protocols are not for pinging.
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        if header[0] != 0x45 || header[9] != 1 || fragment != 0 || !ipv4_header_is_valid(header) {
            return None;
        }
        let from = header.get(12..16)?.first_chunk::<4>()?;
        if header.get(16..20)? != self.ip {
            return None;
        }
        let icmp = ip.get(20..total)?;
        if !Sum::of(icmp).is_valid() {
            return None;
        }
        let (head, payload) = icmp.split_first_chunk::<8>()?;
        let (id, sequence) = (u16::from_be_bytes([head[4], head[5]]), u16::from_be_bytes([head[6], head[7]]));
        match head {
            [8, 0, ..] => {
                let rest = u32::from(id) << 16 | u32::from(sequence);
                let answer = Packet::ethernet(*src_mac, self.mac).ipv4(self.ip, *from);
                Some(Heard::Answer(answer.icmp(0, 0, rest).payload(payload).pad_to(60).build()))
            }
            [0, 0, ..] => Some(Heard::EchoReply { from: *from, id, sequence, payload: payload.to_vec() }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 1], [10, 0, 0, 1]);
    const B: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 2], [10, 0, 0, 2]);

    fn answer(heard: Heard) -> Vec<u8> {
        let Heard::Answer(frame) = heard else { panic!("expected an answer, got {heard:?}") };
        frame
    }

    #[test]
    fn two_of_them_ping_each_other() {
        let (mut a, mut b) = (Endpoint::new(A.0, A.1), Endpoint::new(B.0, B.1));
        assert_eq!(a.echo_request(B.1, 1, 1, b""), None, "not known yet");
        let reply = answer(b.hear(&a.who_has(B.1)));
        assert_eq!(a.hear(&reply), Heard::Neighbour(B.1));
        let reply = answer(b.hear(&a.echo_request(B.1, 7, 9, b"hello").unwrap()));
        let expected = Heard::EchoReply { from: B.1, id: 7, sequence: 9, payload: b"hello".to_vec() };
        assert_eq!(a.hear(&reply), expected);
        assert_eq!(b.neighbour(A.1), Some(A.0), "learned from the question");
    }

    #[test]
    fn what_is_broken_or_for_others_is_not_heard() {
        let (mut a, mut b) = (Endpoint::new(A.0, A.1), Endpoint::new(B.0, B.1));
        a.hear(&answer(b.hear(&a.who_has(B.1))));
        let request = a.echo_request(B.1, 7, 9, b"hello").unwrap();
        for at in 14..47 {
            let mut broken = request.clone();
            broken[at] ^= 0x10;
            assert_eq!(b.hear(&broken), Heard::Nothing, "byte {at}");
        }
        for len in 0..request.len().min(47) {
            assert_eq!(b.hear(&request[..len]), Heard::Nothing, "{len} bytes");
        }
        let mut other = Endpoint::new([2, 0, 0, 0, 0, 3], B.1);
        assert_eq!(other.hear(&request), Heard::Nothing);
    }
}
