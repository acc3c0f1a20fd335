//! Numbers in payloads: what was sent, what came, in which order.

use fabnic_testkit::driver::light::{flow_mac, flow_ports};

use crate::options::Fields;
use crate::port::Identity;

/// Begins each payload of ours.
const MAGIC: u16 = 0xfab1;
/// Bytes of a [`Stamp`]: a frame of 64 bytes has just room for it behind Ethernet, IPv4 and UDP.
pub(crate) const STAMP: usize = 22;

/// What each frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Number of the flow, counted over all ports.
    pub(crate) flow: u32,
    /// Number of the frame in its flow.
    pub(crate) sequence: u64,
    /// Clock at which it was sent.
    pub(crate) sent: u64,
}

impl Stamp {
    pub(crate) fn encode(&self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        let parts = MAGIC.to_be_bytes().into_iter().chain(self.flow.to_be_bytes());
        let parts = parts.chain(self.sequence.to_be_bytes()).chain(self.sent.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        bytes
    }

    /// From the bytes of a frame: IPv4 and UDP or TCP, tagged or not.
    pub(crate) fn find(frame: &[u8]) -> Option<Stamp> {
        let l3 = if frame.get(12..14)? == [0x81, 0x00] { 18 } else { 14 };
        let first = frame.get(l3)?;
        let l4 = l3 + usize::from(first & 0x0f) * 4;
        let payload = match frame.get(l3 + 9)? {
            17 => l4 + 8,
            6 => l4 + usize::from(frame.get(l4 + 12)? >> 4) * 4,
            _ => return None,
        };
        let (magic, rest) = frame.get(payload..)?.split_first_chunk::<2>()?;
        let (flow, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let sent = rest.first_chunk::<8>()?;
        (u16::from_be_bytes(*magic) == MAGIC).then_some(Stamp {
            flow: u32::from_be_bytes(*flow),
            sequence: u64::from_be_bytes(*sequence),
            sent: u64::from_be_bytes(*sent),
        })
    }
}

/// Places in a frame that differ from flow to flow, with what goes there.
pub(crate) fn patches(fields: Fields, who: &Identity, flow: u32, l4: u32) -> [(u32, [u8; 6], usize); 2] {
    match fields {
        Fields::Ip => {
            let (source, destination) = flow_ports(flow);
            let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
            [(l4, [a, b, c, d, 0, 0], 4), (0, [0; 6], 0)]
        }
        Fields::Mac => {
            let (dst, src) = (flow_mac(who.peer.octets(), flow), flow_mac(who.mac.octets(), flow));
            [(0, dst, 6), (6, src, 6)]
        }
    }
}

/// What has come of one flow.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The next number.
    next: u64,
    /// Which of the last 64 numbers came, the latest in bit 0.
    came: u64,
}

/// What has come of all flows.
#[derive(Debug)]
pub(crate) struct Ledger {
    flows: Vec<Progress>,
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    pub(crate) duplicates: u64,
}

impl Ledger {
    pub(crate) fn new(flows: usize) -> Ledger {
        Ledger { flows: vec![Progress::default(); flows], lost: 0, reordered: 0, duplicates: 0 }
    }

    /// Enters a frame. `false` if there is no such flow.
    pub(crate) fn enter(&mut self, flow: u32, sequence: u64) -> bool {
        let Some(progress) = self.flows.get_mut(flow as usize) else { return false };
        if sequence >= progress.next {
            let gap = sequence - progress.next;
            self.lost += gap;
            progress.came = if gap >= 63 { 1 } else { (progress.came << (gap + 1)) | 1 };
            progress.next = sequence + 1;
            return true;
        }
        // Numbers further back than is remembered count as late: they were counted as lost.
        let back = progress.next - 1 - sequence;
        let bit = 1_u64.checked_shl(u32::try_from(back).unwrap_or(u32::MAX)).unwrap_or(0);
        if progress.came & bit != 0 {
            self.duplicates += 1;
        } else {
            progress.came |= bit;
            self.reordered += 1;
            self.lost = self.lost.saturating_sub(1);
        }
        true
    }

    /// How many of the first `sent` frames of a flow are behind the last that came: lost, if nothing comes any more.
    pub(crate) fn missing(&self, flow: u32, sent: u64) -> u64 {
        self.flows.get(flow as usize).map_or(0, |progress| sent.saturating_sub(progress.next))
    }
}

#[cfg(test)]
mod tests {
    use fabnic_testkit::packets::{Packet, tcp};

    use super::*;

    fn ledger(numbers: &[u64]) -> (u64, u64, u64) {
        let mut ledger = Ledger::new(1);
        assert!(numbers.iter().all(|n| ledger.enter(0, *n)));
        (ledger.lost, ledger.reordered, ledger.duplicates)
    }

    #[test]
    fn losses_late_ones_and_doubles() {
        assert_eq!(ledger(&[0, 1, 2, 3]), (0, 0, 0));
        assert_eq!(ledger(&[0, 1, 4]), (2, 0, 0));
        assert_eq!(ledger(&[0, 2, 1, 3]), (0, 1, 0));
        assert_eq!(ledger(&[0, 1, 1, 0]), (0, 0, 2));
        assert_eq!(ledger(&[0, 200, 201, 150, 150]), (198, 1, 1));
        assert_eq!(ledger(&[0, 100, 10, 101]), (98, 1, 0));
    }

    #[test]
    fn the_end_is_counted_too() {
        let mut ledger = Ledger::new(2);
        ledger.enter(1, 0);
        assert_eq!((ledger.missing(1, 5), ledger.missing(0, 3)), (4, 3));
        assert!(!ledger.enter(2, 0));
    }

    #[test]
    fn stamps_are_found() {
        let stamp = Stamp { flow: 7, sequence: 1 << 40, sent: 12345 };
        let packet = Packet::ethernet([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
        let udp = packet.clone().udp(1, 2).payload(&stamp.encode());
        assert_eq!(udp.clone().build().len(), 64);
        assert_eq!(Stamp::find(&udp.clone().build()), Some(stamp));
        assert_eq!(Stamp::find(&udp.vlan(5, 0).build()), Some(stamp));
        let tcp = packet.tcp(1, 2, 3, 4, tcp::ACK).tcp_options(&[1; 12]).payload(&stamp.encode());
        assert_eq!(Stamp::find(&tcp.clone().build()), Some(stamp));
        assert_eq!(Stamp::find(&tcp.payload(&[0; 22]).build()), None);
        assert_eq!(Stamp::find(&[0x81; 20]), None);
    }
}
