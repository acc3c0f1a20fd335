//! The driver's transmit queue.

use std::sync::Arc;

use fabnic_avf_spec::registers::QTX_TAIL;
use fabnic_avf_spec::transmit::{Context, Data, cmd, context_cmd, dtype};
use fabnic_memory::{Map, Slice, Table};

use crate::arena::Arena;
use crate::repeat::Again;
use crate::{Bus, Error};

/// The network header of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpHeader {
    /// None that matters.
    #[default]
    None,
    /// IPv4 whose checksum is right.
    V4,
    /// IPv4 whose checksum the device computes.
    V4Checksum,
    /// IPv6.
    V6,
}

/// The transport header whose checksum the device computes. Its field holds the sum of the pseudo header: with the
/// length, or without it if the device segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportHeader {
    /// None.
    #[default]
    None,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, whose field may hold anything.
    Sctp,
}

/// What the device is to do with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Network header.
    pub ip: IpHeader,
    /// Transport header.
    pub transport: TransportHeader,
    /// Bytes of the Ethernet header, of the network header and of the transport header.
    pub lens: [u16; 3],
    /// Payload of each segment of a large frame.
    pub mss: Option<u16>,
    /// VLAN tag to be put in.
    pub tag: Option<u16>,
}

impl Work {
    pub(crate) fn cmd(&self) -> u16 {
        let ip = match self.ip {
            IpHeader::None => 0,
            IpHeader::V4 => cmd::IPV4,
            IpHeader::V4Checksum => cmd::IPV4_CSUM,
            IpHeader::V6 => cmd::IPV6,
        };
        let transport = match self.transport {
            TransportHeader::None => 0,
            TransportHeader::Tcp => cmd::TCP,
            TransportHeader::Udp => cmd::UDP,
            TransportHeader::Sctp => cmd::SCTP,
        };
        ip | transport | cmd::ICRC | if self.tag.is_some() { cmd::IL2TAG1 } else { 0 }
    }
}

/// A transmit ring with a buffer for each descriptor.
#[derive(Debug)]
pub struct Transmit {
    queue: u16,
    pub(crate) map: Arc<Map>,
    pub(crate) ring: u64,
    pub(crate) descriptors: Table<[u64; 2]>,
    pub(crate) buffers: Vec<(u64, Slice)>,
    pub(crate) len: u16,
    pub(crate) buffer_len: u16,
    /// The next descriptor to be written, and the first that was not given back.
    pub(crate) next: u16,
    pub(crate) clean: u16,
    /// What is sent again and again.
    pub(crate) again: Option<Again>,
    /// Last descriptors of packets that are not given back, in order.
    ends: std::collections::VecDeque<u16>,
}

impl Transmit {
    pub(crate) fn new(arena: &mut Arena, queue: u16, len: u16, buffer_len: u16) -> Result<Transmit, Error> {
        let (ring, descriptors) = arena.table(usize::from(len))?;
        let buffers = arena.buffers(len, buffer_len)?;
        let map = Arc::clone(arena.map());
        for at in 0..usize::from(len) {
            descriptors.store(at, [0, 0]);
        }
        Ok(Transmit {
            queue,
            map,
            ring,
            descriptors,
            buffers,
            len,
            buffer_len,
            next: 0,
            clean: 0,
            again: None,
            ends: std::collections::VecDeque::with_capacity(usize::from(len)),
        })
    }

    /// Descriptors that are free. One is always kept.
    pub fn room(&self) -> u16 {
        let used =
            if self.next >= self.clean { self.next - self.clean } else { self.next + self.len - self.clean };
        self.len - 1 - used
    }

    /// Takes back what the device has done. Gives the number of packets.
    pub fn clean(&mut self) -> usize {
        let mut done = 0;
        while let Some(end) = self.ends.front().copied() {
            if u64::from_le(self.descriptors.load_acquire(usize::from(end))[1]) & 0xf != dtype::DONE {
                break;
            }
            self.clean = self.after(end);
            self.ends.pop_front();
            done += 1;
        }
        done
    }

    fn after(&self, at: u16) -> u16 {
        if at + 1 >= self.len { 0 } else { at + 1 }
    }

    /// Writes a frame to the ring, in pieces of these lengths and a last one with what is left. The device sees it with
    /// [`Transmit::ring`]. `false` if there is no room.
    pub fn push(&mut self, frame: &[u8], work: &Work, cuts: &[usize]) -> bool {
        let most = usize::from(self.buffer_len);
        // How many descriptors, before any is written.
        let (mut left, mut pieces, mut cut) = (frame.len(), 0_usize, cuts.iter());
        while left > 0 {
            left -= cut.next().copied().unwrap_or(most).clamp(1, most).min(left);
            pieces += 1;
        }
        let context = work.mss.is_some();
        if pieces == 0 || pieces + usize::from(context) > usize::from(self.room()) {
            return false;
        }
        if let Some(mss) = work.mss {
            let headers: u32 = work.lens.iter().map(|len| u32::from(*len)).sum();
            let payload = u32::try_from(frame.len()).unwrap_or(0).saturating_sub(headers);
            let context = Context { cmd: context_cmd::TSO, payload, mss, ..Context::default() };
            self.put(context.encode());
        }
        let [mac_len, ip_len, l4_len] = work.lens;
        let (mut at, mut cut) = (0, cuts.iter());
        while at < frame.len() {
            let len = cut.next().copied().unwrap_or(most).clamp(1, most).min(frame.len() - at);
            let Some((addr, place)) = self.buffers.get(usize::from(self.next)).copied() else { return false };
            self.map.write(&place, 0, frame.get(at..at + len).unwrap_or(&[]));
            at += len;
            let last = at == frame.len();
            let end = if last { cmd::EOP | cmd::RS } else { 0 };
            if last {
                self.ends.push_back(self.next);
            }
            let data = Data {
                cmd: work.cmd() | end,
                mac_len,
                ip_len,
                l4_len,
                len: u16::try_from(len).unwrap_or(0),
                tag: work.tag.unwrap_or(0),
            };
            self.put([addr, data.encode()]);
        }
        true
    }

    pub(crate) fn put(&mut self, words: [u64; 2]) {
        self.descriptors.store(usize::from(self.next), words.map(u64::to_le));
        self.next = self.after(self.next);
    }

    /// Tells the device what was pushed.
    pub fn ring(&self, bus: &mut dyn Bus) {
        bus.write(QTX_TAIL + 4 * u64::from(self.queue), self.next.into());
    }
}
