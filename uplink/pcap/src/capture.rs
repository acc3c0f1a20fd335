//! Live captures: from workers to whoever reads.
//!
//! ```text
//!   worker --offer--> CaptureTap --try lock--> [blocks .............] <--swap-- CaptureStream --> pcapng bytes
//!                      | full, or busy for long                                   at the end: statistics
//!                      +--> counted as lost
//! ```
//!
//! The buffer has a fixed size and holds finished pcapng blocks. A worker that offers a frame takes the lock if it is
//! free, or soon becomes so, and copies at most `snaplen` bytes; it never sleeps. The reader swaps the full buffer for an
//! empty one, holding the lock for a few instructions.

use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use fabnic_port::{Burst, CaptureSink, Direction, Verdict};
use fabnic_wire::Offload;
use fabnic_wire::offload::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use parking_lot::{Mutex, MutexGuard};

use crate::block;

/// The longest piece of a frame that may be asked for, in bytes: what tcpdump takes for "all".
pub const MAX_SNAPLEN: u32 = 262_144;
/// Bytes of finished blocks that wait for a live capture's reader.
const LIVE_BUFFER: usize = 4 << 20;
/// The most interfaces of one capture.
const MAX_INTERFACES: usize = 65_536;
/// How often a worker tries a lock that somebody else holds: some 10 us, while another worker copies a frame.
const TRIES: u32 = 400;
/// Longest sleep of a blocking reader between two looks.
const LONGEST_NAP: Duration = Duration::from_millis(10);

/// What is to be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureOptions {
    /// Most bytes kept of a frame, 1 to [`MAX_SNAPLEN`].
    pub snaplen: u32,
    /// Which way; both unless said.
    pub direction: Option<Direction>,
    /// The capture ends after so many frames; never unless said.
    pub limit: Option<u64>,
    /// The only ports that comments may name, for a reader who is not to know of others, nor how many there are; all
    /// unless said.
    pub named: Option<HashSet<String>>,
}

impl Default for CaptureOptions {
    fn default() -> CaptureOptions {
        CaptureOptions { snaplen: MAX_SNAPLEN, direction: None, limit: None, named: None }
    }
}

#[derive(Debug, Default)]
struct Interface {
    offered: u64,
    lost: u64,
    /// Frames that found the lock taken: offered and lost as well.
    collided: Arc<AtomicU64>,
}

impl Interface {
    /// Frames that were offered, and those that were not kept.
    fn counts(&self) -> (u64, u64) {
        let collided = self.collided.load(Ordering::Relaxed);
        (self.offered + collided, self.lost + collided)
    }
}

#[derive(Debug)]
struct Buffer {
    /// Finished blocks; its capacity never changes.
    bytes: Vec<u8>,
    room: usize,
    taken: u64,
    interfaces: Vec<Interface>,
}

#[derive(Debug)]
struct Shared {
    options: CaptureOptions,
    is_active: AtomicBool,
    /// Taps that are there; the last one ends the capture.
    taps: AtomicUsize,
    started: u64,
    buffer: Mutex<Buffer>,
}

impl Shared {
    /// The lock, for everybody but workers. Never parks: a lock that is waited for in a queue is handed to who waits,
    /// and would stay taken until that thread runs again, while workers lose frames.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        loop {
            match self.buffer.try_lock() {
                Some(guard) => return guard,
                None => std::thread::sleep(Duration::from_micros(20)),
            }
        }
    }
}

/// Begins a capture of the port of this name. The tap goes to the port, the stream to whoever reads.
pub fn start(options: CaptureOptions, port: &str) -> (CaptureTap, CaptureStream) {
    start_with(options, port, LIVE_BUFFER)
}

/// As [`start`], with a buffer of `room` bytes.
pub(crate) fn start_with(options: CaptureOptions, port: &str, room: usize) -> (CaptureTap, CaptureStream) {
    let options = CaptureOptions { snaplen: options.snaplen.clamp(1, MAX_SNAPLEN), ..options };
    // A frame of the longest kind must fit beside the first blocks.
    let room = room.max(options.snaplen as usize + 4096 + block::PACKET_OVERHEAD);
    let is_over = options.limit == Some(0);
    let shared = Arc::new(Shared {
        options,
        is_active: AtomicBool::new(!is_over),
        taps: AtomicUsize::new(1),
        started: now(),
        buffer: Mutex::new(Buffer {
            bytes: Vec::with_capacity(room),
            room,
            taken: 0,
            interfaces: Vec::new(),
        }),
    });
    let tap = {
        let mut buffer = shared.lock();
        block::section(&mut buffer.bytes);
        CaptureTap::announce(&shared, &mut buffer, port)
    };
    (tap, CaptureStream { shared, spare: Vec::with_capacity(room), at: 0, ended: false })
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Takes frames of one port: the worker's end.
#[derive(Debug)]
pub struct CaptureTap {
    shared: Arc<Shared>,
    interface: u32,
    collided: Arc<AtomicU64>,
}

impl CaptureTap {
    /// Another tap of the same capture, for another port.
    ///
    /// `None` when the capture has more ports than a file should have interfaces, or its reader is so far behind that
    /// the new one cannot be announced.
    pub fn for_port(&self, port: &str) -> Option<CaptureTap> {
        let mut buffer = self.shared.lock();
        let fits = buffer.bytes.len() + port.len() + 64 <= buffer.room;
        if buffer.interfaces.len() >= MAX_INTERFACES || port.len() > 4096 || !fits {
            return None;
        }
        self.shared.taps.fetch_add(1, Ordering::Relaxed);
        Some(CaptureTap::announce(&self.shared, &mut buffer, port))
    }

    /// Writes the next interface; the caller has seen that it fits.
    fn announce(shared: &Arc<Shared>, buffer: &mut Buffer, port: &str) -> CaptureTap {
        let interface = buffer.interfaces.len() as u32;
        let collided = Arc::default();
        block::interface(&mut buffer.bytes, port, shared.options.snaplen);
        buffer.interfaces.push(Interface { collided: Arc::clone(&collided), ..Interface::default() });
        CaptureTap { shared: Arc::clone(shared), interface, collided }
    }

    /// Ends the capture; the stream gives what was taken, and then ends.
    pub fn stop(&self) {
        self.shared.is_active.store(false, Ordering::Release);
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Buffer>> {
        for _ in 0..TRIES {
            if let Some(guard) = self.shared.buffer.try_lock() {
                return Some(guard);
            }
            core::hint::spin_loop();
        }
        None
    }

    /// Takes a copy of a frame; `false` if there was no room.
    pub(crate) fn take(&self, burst: &Burst, index: usize, direction: Direction, comment: &str) -> bool {
        let Some(frame) = burst.frames().get(index) else { return false };
        let original_len = frame.len();
        let captured = original_len.min(self.shared.options.snaplen) as usize;
        let Some(mut buffer) = self.try_lock() else {
            self.collided.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let buffer = &mut *buffer;
        let Some(interface) = buffer.interfaces.get_mut(self.interface as usize) else { return false };
        if self.shared.options.limit.is_some_and(|limit| buffer.taken >= limit) {
            return false;
        }
        interface.offered += 1;
        if buffer.bytes.len() + captured + block::PACKET_OVERHEAD > buffer.room {
            interface.lost += 1;
            return false;
        }
        let info =
            block::PacketInfo { interface: self.interface, time: now(), original_len, direction, comment };
        block::packet(&mut buffer.bytes, &info, captured, |to| burst.copy_out(index, to));
        buffer.taken += 1;
        if self.shared.options.limit == Some(buffer.taken) {
            self.shared.is_active.store(false, Ordering::Release);
        }
        true
    }
}

impl Drop for CaptureTap {
    fn drop(&mut self) {
        if self.shared.taps.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stop();
        }
    }
}

impl CaptureSink for CaptureTap {
    fn is_active(&self) -> bool {
        self.shared.is_active.load(Ordering::Relaxed)
    }

    fn offer(&self, burst: &Burst, index: usize, direction: Direction, verdict: Verdict<'_>) {
        if self.shared.options.direction.is_some_and(|wanted| wanted != direction) {
            return;
        }
        let mut comment = Comment::default();
        // A comment that is too long is cut: `write_str` never fails.
        let _ = match (&self.shared.options.named, verdict) {
            (Some(named), Verdict::Forwarded(port)) if !named.contains(port) => {
                comment.write_str("forwarded")
            }
            (Some(_), Verdict::Flooded(_)) => comment.write_str("flooded"),
            _ => write!(comment, "{verdict}"),
        };
        if let Some(frame) = burst.frames().get(index) {
            let _ = comment.describe(&frame.offload());
        }
        self.take(burst, index, direction, comment.as_str());
    }
}

/// Text on the stack; what does not fit is cut.
struct Comment {
    bytes: [u8; block::MAX_COMMENT],
    len: usize,
}

impl Default for Comment {
    fn default() -> Comment {
        Comment { bytes: [0; block::MAX_COMMENT], len: 0 }
    }
}

impl Comment {
    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                bytes.get(..error.valid_up_to()).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
            }
        }
    }

    /// What the sender left to be done, so that nobody takes a partial checksum for a wrong one.
    fn describe(&mut self, offload: &Offload) -> core::fmt::Result {
        let kind = match offload.gso_kind() {
            GSO_TCPV4 => "; TSO over IPv4",
            GSO_TCPV6 => "; TSO over IPv6",
            GSO_UDP_L4 => "; USO",
            _ => "",
        };
        self.write_str(kind)?;
        if offload.is_gso() {
            write!(self, ", segments of {} bytes", offload.gso_size)?;
        }
        if offload.needs_csum() { self.write_str("; checksum not finished") } else { Ok(()) }
    }
}

impl Write for Comment {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or(&mut []);
        let n = text.len().min(room.len());
        for (to, from) in room.iter_mut().zip(text.as_bytes()) {
            *to = *from;
        }
        self.len += n;
        Ok(())
    }
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Whole pcapng blocks, in order.
    Blocks(Vec<u8>),
    /// Nothing came in the meantime.
    Idle,
    /// The capture is over and everything was given.
    End,
}

/// Gives a capture's pcapng bytes, from the first byte of the file on: the reader's end. Dropping it ends the capture.
#[derive(Debug)]
pub struct CaptureStream {
    shared: Arc<Shared>,
    /// The other buffer: empty, or being read by [`io::Read`] from `at` on.
    spare: Vec<u8>,
    at: usize,
    ended: bool,
}

impl CaptureStream {
    /// Waits at most `patience` for something to come. Zero does not wait at all.
    pub fn next_chunk(&mut self, patience: Duration) -> Chunk {
        if self.wait(patience) { self.take_rest() } else { Chunk::Idle }
    }

    /// Frames that were offered to the capture, and those of them that were not kept, so far.
    pub fn counts(&self) -> (u64, u64) {
        let buffer = self.shared.lock();
        buffer.interfaces.iter().map(Interface::counts).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    fn take_rest(&mut self) -> Chunk {
        let rest = self.spare.get(self.at..).unwrap_or(&[]).to_vec();
        self.spare.clear();
        self.at = 0;
        if rest.is_empty() { Chunk::End } else { Chunk::Blocks(rest) }
    }

    /// `true` if something is in `spare` or the end is reached.
    fn wait(&mut self, patience: Duration) -> bool {
        let begun = Instant::now();
        let mut nap = Duration::from_micros(200);
        loop {
            if self.at < self.spare.len() || self.refill() {
                return true;
            }
            let waited = begun.elapsed();
            if waited >= patience {
                return false;
            }
            std::thread::sleep(nap.min(patience - waited));
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }

    /// Takes what the workers wrote; `false` if there is nothing yet.
    fn refill(&mut self) -> bool {
        // Looked at before the swap: what an active capture took is then in the buffer.
        let over = !self.shared.is_active.load(Ordering::Acquire);
        self.spare.clear();
        self.at = 0;
        core::mem::swap(&mut self.shared.lock().bytes, &mut self.spare);
        if self.spare.is_empty() && over && !self.ended {
            self.ended = true;
            let (start, end) = (self.shared.started, now());
            let buffer = self.shared.lock();
            for (id, interface) in (0..).zip(&buffer.interfaces) {
                let (offered, lost) = interface.counts();
                block::statistics(&mut self.spare, id, start, end, offered, lost);
            }
        }
        !self.spare.is_empty() || self.ended
    }
}

impl Drop for CaptureStream {
    fn drop(&mut self) {
        self.shared.is_active.store(false, Ordering::Release);
    }
}

/// Waits for the next chunk; ends with the capture.
impl Iterator for CaptureStream {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.next_chunk(Duration::from_secs(1)) {
                Chunk::Blocks(bytes) => return Some(bytes),
                Chunk::Idle => {}
                Chunk::End => return None,
            }
        }
    }
}

/// Waits for at least one byte; 0 at the end of the capture.
impl io::Read for CaptureStream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while !self.wait(Duration::from_secs(1)) {}
        let mut rest = self.spare.get(self.at..).unwrap_or(&[]);
        let n = rest.read(to)?;
        self.at += n;
        Ok(n)
    }
}
