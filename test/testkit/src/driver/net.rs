//! The network driver: frames in and out of queue pairs.

use std::sync::Arc;

use fabnic_memory::{Map, Slice};
use fabnic_wire::Offload;

use super::light::stride;
use super::{Piece, Ring, RingError, RingOptions, Used};
use crate::guest::{RingStart, Session};
use crate::memory::{GuestMemory, MemoryError};

/// Bytes of the virtio-net header.
const HEADER: u32 = 12;
/// Longest frame: 64 KiB and the headers before them.
const LONGEST: usize = 65550;

/// How a driver lays out its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetLayout {
    /// Queue pairs.
    pub pairs: u16,
    /// The rings, all alike.
    pub ring: RingOptions,
    /// Bytes of a receive buffer, header included.
    pub rx_buffer: u32,
    /// Frames may be spread over several receive buffers (MRG_RXBUF).
    pub mergeable: bool,
    /// Most bytes of one descriptor of a receive chain; 0: a buffer is one descriptor. With it, a buffer of 64 KiB is
    /// what drivers without MRG_RXBUF make for large frames.
    pub rx_piece: u32,
    /// Longest frame to be sent.
    pub tx_frame: u32,
    /// Most bytes of one descriptor of a transmit chain.
    pub tx_piece: u32,
    /// The header goes into a descriptor of its own, as old drivers do it.
    pub header_apart: bool,
}

impl Default for NetLayout {
    fn default() -> NetLayout {
        NetLayout {
            pairs: 1,
            ring: RingOptions::default(),
            rx_buffer: 2048,
            mergeable: true,
            rx_piece: 0,
            tx_frame: 2036,
            tx_piece: 65536,
            header_apart: false,
        }
    }
}

impl NetLayout {
    /// How much memory the driver needs.
    pub fn bytes(&self) -> u64 {
        let entries = u64::from(self.ring.size);
        let buffers = u64::from(stride(self.rx_buffer)) + u64::from(stride(self.tx_frame + HEADER));
        let tables = 2 * 16 * u64::from(self.ring.indirect);
        u64::from(self.pairs) * (entries * (buffers + tables + 64) + 16 * 4096) + (1 << 20)
    }
}

/// A frame that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Queue pair.
    pub pair: u16,
    /// What is left to do on it.
    pub offload: Offload,
    /// Receive buffers it took.
    pub buffers: u16,
    /// Its length.
    pub len: usize,
    /// Its bytes, or the first of them ([`NetDriver::set_look`]).
    pub frame: &'a [u8],
}

/// What a driver gives up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The rings are broken.
    #[error("queue {queue} is broken")]
    Ring {
        /// Ring number.
        queue: u32,
        /// How.
        source: RingError,
    },
    /// A frame that cannot be one.
    #[error("queue {queue}: a frame of {len} bytes in {buffers} buffers, the header says {claimed} buffers")]
    Frame {
        /// Ring number.
        queue: u32,
        /// Bytes, header included.
        len: u32,
        /// Buffers that came.
        buffers: u16,
        /// num_buffers.
        claimed: u16,
    },
}

/// One direction of a pair: a ring and its buffers.
#[derive(Debug)]
struct Half {
    ring: Ring,
    base: u64,
    stride: u32,
    slices: Vec<Slice>,
    /// Buffers that are free; transmit only.
    idle: Vec<u32>,
}

impl Half {
    fn new(memory: &mut GuestMemory, options: RingOptions, buffer: u32) -> Result<Half, MemoryError> {
        let ring = Ring::new(memory, options)?;
        let stride = stride(buffer);
        let base = memory.allocate(u64::from(stride) * u64::from(options.size), 4096)?;
        let slices = (0..u64::from(options.size))
            .map(|i| memory.slice(base + i * u64::from(stride), buffer))
            .collect::<Result<_, _>>()?;
        Ok(Half { ring, base, stride, slices, idle: (0..u32::from(options.size)).rev().collect() })
    }

    fn addr(&self, buffer: u32) -> u64 {
        self.base + u64::from(buffer) * u64::from(self.stride)
    }
}

#[derive(Debug)]
struct Pair {
    receive: Half,
    transmit: Half,
}

/// A driver with its queue pairs.
#[derive(Debug)]
pub struct NetDriver {
    layout: NetLayout,
    map: Arc<Map>,
    pairs: Vec<Pair>,
    /// A frame, header included, while it is put together.
    assembly: Vec<u8>,
    /// Bytes of each frame that are read, header included.
    look: usize,
    pieces: Vec<Piece>,
}

impl NetDriver {
    /// Lays out rings and buffers and fills the receive rings.
    pub fn new(memory: &mut GuestMemory, layout: NetLayout) -> Result<NetDriver, MemoryError> {
        let mut pairs = Vec::new();
        for _ in 0..layout.pairs {
            let receive = Half::new(memory, layout.ring, layout.rx_buffer)?;
            let transmit = Half::new(memory, layout.ring, layout.tx_frame + HEADER)?;
            pairs.push(Pair { receive, transmit });
        }
        let map = Arc::clone(memory.map());
        let mut driver =
            NetDriver { layout, map, pairs, assembly: Vec::new(), look: usize::MAX, pieces: Vec::new() };
        for pair in 0..driver.pairs.len() {
            driver.fill(pair);
        }
        Ok(driver)
    }

    /// How it is laid out.
    pub fn layout(&self) -> &NetLayout {
        &self.layout
    }

    /// Read only the first `bytes` of each frame that comes in.
    pub fn set_look(&mut self, bytes: usize) {
        self.look = bytes.saturating_add(HEADER as usize);
    }

    /// Writes the same bytes, header first, into all buffers of a transmit ring. They stay there: a frame that is sent
    /// with [`NetDriver::send_with`] needs only be changed where it differs.
    pub fn prefill(&mut self, pair: u16, bytes: &[u8]) {
        if let Some(Pair { transmit, .. }) = self.pairs.get(usize::from(pair)) {
            for slice in &transmit.slices {
                self.map.write(slice, 0, bytes);
            }
        }
    }

    /// What a back end is told of the rings: fresh, or where they stand once everything used is taken.
    pub fn ring_starts(&self) -> Vec<RingStart> {
        let size = self.layout.ring.size;
        let rings = self.pairs.iter().flat_map(|pair| [&pair.receive.ring, &pair.transmit.ring]);
        rings.map(|ring| RingStart { place: ring.place(), size, base: ring.base() }).collect()
    }

    /// A ring, by its number.
    pub fn ring(&mut self, index: u32) -> Option<&mut Ring> {
        let pair = self.pairs.get_mut(index as usize / 2)?;
        Some(if index.is_multiple_of(2) { &mut pair.receive.ring } else { &mut pair.transmit.ring })
    }

    /// Gives all receive buffers to the device.
    fn fill(&mut self, pair: usize) {
        let Some(Pair { receive, .. }) = self.pairs.get_mut(pair) else { return };
        while let Some(buffer) = receive.idle.pop() {
            rx_pieces(&mut self.pieces, &self.layout, receive.addr(buffer));
            if !receive.ring.add(&self.pieces, buffer) {
                receive.idle.push(buffer);
                break;
            }
        }
        receive.ring.publish();
    }

    /// Puts frames into a transmit ring, as many as there is room for, and kicks. Gives how many.
    pub fn send(
        &mut self,
        session: &Session,
        pair: u16,
        frames: &[(Offload, &[u8])],
    ) -> Result<usize, NetError> {
        let mut sent = 0;
        for (offload, frame) in frames {
            let filled = self.send_with(pair, frame.len(), |write| {
                write(0, &offload.encode(0));
                write(HEADER, frame);
            })?;
            if !filled {
                break;
            }
            sent += 1;
        }
        self.flush(session, pair);
        Ok(sent)
    }

    /// Puts one frame of `len` bytes into a transmit ring; `fill` writes it, the 12 bytes of its header first, at offsets
    /// into the buffer. `false` if there is no room. The device sees it at the next [`NetDriver::flush`].
    pub fn send_with(
        &mut self,
        pair: u16,
        len: usize,
        fill: impl FnOnce(&mut dyn FnMut(u32, &[u8])),
    ) -> Result<bool, NetError> {
        let queue = 2 * u32::from(pair) + 1;
        let Some(Pair { transmit, .. }) = self.pairs.get_mut(usize::from(pair)) else { return Ok(false) };
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if len > self.layout.tx_frame {
            return Ok(false);
        }
        if transmit.idle.is_empty() || transmit.ring.free() < transmit.ring.options().size / 2 {
            while let Some(used) =
                transmit.ring.next_used().map_err(|source| NetError::Ring { queue, source })?
            {
                transmit.idle.push(used.token);
            }
        }
        let Some(buffer) = transmit.idle.pop() else { return Ok(false) };
        let Some(slice) = transmit.slices.get(buffer as usize) else { return Ok(false) };
        tx_pieces(&mut self.pieces, &self.layout, transmit.addr(buffer), len);
        let map = &self.map;
        fill(&mut |at, bytes| {
            map.write(slice, at, bytes);
        });
        let added = transmit.ring.add(&self.pieces, buffer);
        if !added {
            transmit.idle.push(buffer);
        }
        Ok(added)
    }

    /// Shows the device what was put into a transmit ring, and kicks it if it wants to be.
    pub fn flush(&mut self, session: &Session, pair: u16) {
        if let Some(Pair { transmit, .. }) = self.pairs.get_mut(usize::from(pair))
            && transmit.ring.publish()
        {
            session.kick(2 * u32::from(pair) + 1);
        }
    }

    /// Chains of a transmit ring that the device still has.
    pub fn pending(&mut self, pair: u16) -> Result<u16, NetError> {
        let queue = 2 * u32::from(pair) + 1;
        let Some(Pair { transmit, .. }) = self.pairs.get_mut(usize::from(pair)) else { return Ok(0) };
        while let Some(used) = transmit.ring.next_used().map_err(|source| NetError::Ring { queue, source })? {
            transmit.idle.push(used.token);
        }
        Ok(transmit.ring.outstanding())
    }

    /// Takes up to `most` frames from a receive ring and gives their buffers back. Gives how many frames.
    pub fn receive(
        &mut self,
        session: &Session,
        pair: u16,
        most: usize,
        mut each: impl FnMut(&Received<'_>),
    ) -> Result<usize, NetError> {
        let queue = 2 * u32::from(pair);
        let Some(Pair { receive, .. }) = self.pairs.get_mut(usize::from(pair)) else { return Ok(0) };
        let ring_error = |source| NetError::Ring { queue, source };
        let mut frames = 0;
        while frames < most {
            let Some(first) = receive.ring.next_used().map_err(ring_error)? else { break };
            self.assembly.clear();
            let mut len = first.len;
            read(&self.map, &receive.slices, first, self.look, &mut self.assembly);
            receive.idle.push(first.token);
            let Some(header) = self.assembly.first_chunk::<12>() else {
                return Err(NetError::Frame { queue, len: first.len, buffers: 1, claimed: 0 });
            };
            let offload = Offload::decode(header);
            let [.., low, high] = *header;
            let claimed = u16::from_le_bytes([low, high]);
            let wanted = if self.layout.mergeable { claimed } else { 1 };
            let mut buffers = 1;
            while buffers < wanted {
                // A frame's buffers are made used together (virtio 1.x, section 5.1.6.4).
                let next = receive.ring.next_used().map_err(ring_error)?;
                let Some(next) = next.filter(|_| len as usize <= LONGEST) else {
                    return Err(NetError::Frame { queue, len, buffers, claimed });
                };
                len = len.saturating_add(next.len);
                read(&self.map, &receive.slices, next, self.look, &mut self.assembly);
                receive.idle.push(next.token);
                buffers += 1;
            }
            if claimed == 0 && self.layout.mergeable {
                return Err(NetError::Frame { queue, len, buffers, claimed });
            }
            let len = len.saturating_sub(HEADER) as usize;
            let frame = self.assembly.get(HEADER as usize..).unwrap_or_default();
            each(&Received { pair, offload, buffers, len, frame });
            frames += 1;
        }
        while let Some(buffer) = receive.idle.pop() {
            rx_pieces(&mut self.pieces, &self.layout, receive.addr(buffer));
            if !receive.ring.add(&self.pieces, buffer) {
                receive.idle.push(buffer);
                break;
            }
        }
        if receive.ring.publish() {
            session.kick(queue);
        }
        Ok(frames)
    }
}

/// Appends what a used buffer holds, until `to` holds `most` bytes.
fn read(map: &Map, slices: &[Slice], used: Used, most: usize, to: &mut Vec<u8>) {
    let Some(slice) = slices.get(used.token as usize) else { return };
    let start = to.len();
    let len = used.len.min(slice.len()) as usize;
    to.resize(start + len.min(most.saturating_sub(start)), 0);
    map.read(slice, 0, to.get_mut(start..).unwrap_or_default());
}

fn cut(pieces: &mut Vec<Piece>, mut addr: u64, mut len: u32, most: u32, writable: bool) {
    while len > 0 {
        let n = if most == 0 { len } else { len.min(most) };
        pieces.push(Piece { addr, len: n, writable });
        addr += u64::from(n);
        len -= n;
    }
}

fn rx_pieces(pieces: &mut Vec<Piece>, layout: &NetLayout, addr: u64) {
    pieces.clear();
    let apart = if layout.header_apart { HEADER } else { 0 };
    cut(pieces, addr, apart, 0, true);
    cut(pieces, addr + u64::from(apart), layout.rx_buffer - apart, layout.rx_piece, true);
}

fn tx_pieces(pieces: &mut Vec<Piece>, layout: &NetLayout, addr: u64, len: u32) {
    pieces.clear();
    let apart = if layout.header_apart { HEADER } else { 0 };
    cut(pieces, addr, apart, 0, false);
    cut(pieces, addr + u64::from(apart), len + HEADER - apart, layout.tx_piece, false);
}
