//! Replay: frames of a file as if they came from a wire.

use core::time::Duration;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use fabnic_memory::{Hint, Map, MapError, Slice};
use fabnic_port::{Burst, DropReason, Fault, Ingress, MAX_FRAME};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::read::{ReadError, Reader};

/// The longest file that is replayed, in bytes: it is held in memory.
pub const MAX_FILE: u64 = 4 << 30;
/// The most packets of a file that is replayed.
pub const MAX_PACKETS: usize = 1 << 26;
const MIN_FRAME: u32 = 14;
const NANOS: u64 = 1_000_000_000;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened.
    #[error("{path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Not a file that can be read as a whole.
    #[error("{path}: {problem}, expected a file of at most {MAX_FILE} bytes")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Its bytes are wrong.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What and where.
        source: ReadError,
    },
    /// Nothing to replay.
    #[error("{path}: no packets in it, expected at least one")]
    Empty {
        /// The file.
        path: String,
    },
    /// There is no memory to hold it.
    #[error("{path}: {source}")]
    Memory {
        /// The file.
        path: String,
        /// What went wrong.
        source: MapError,
    },
    /// There is no timer.
    #[error("{path}: no timer: {source}")]
    Timer {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    offset: u64,
    len: u32,
    /// Nanoseconds since the first packet; never less than that of the packet before.
    due: u64,
}

/// A file's packets, in memory.
#[derive(Debug)]
pub struct Recording {
    path: String,
    map: Arc<Map>,
    packets: Vec<Stored>,
}

impl Recording {
    /// Reads a pcap or pcapng file as a whole.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(path: &Path) -> Result<Recording, LoadError> {
        let name = || path.display().to_string();
        let open = |source| LoadError::Open { path: name(), source };
        let file = File::open(path).map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        let problem = |problem| LoadError::File { path: name(), problem };
        if !metadata.is_file() {
            return Err(problem("not a regular file".to_owned()));
        }
        if metadata.len() > MAX_FILE {
            return Err(problem(format!("{} bytes long", metadata.len())));
        }
        let read = |source| LoadError::Read { path: name(), source };
        // Each packet's bytes are in the file once, so they fit.
        let room = metadata.len().next_multiple_of(4096).max(4096);
        let (map, _) = Map::anonymous(room).map_err(|source| LoadError::Memory { path: name(), source })?;
        let mut reader = Reader::new(BufReader::with_capacity(1 << 16, file)).map_err(read)?;
        let (mut packets, mut hint, mut offset) = (Vec::new(), Hint::default(), 0_u64);
        let (mut first, mut due) = (None, 0);
        while let Some(packet) = reader.next_packet().map_err(read)? {
            if packets.len() >= MAX_PACKETS {
                return Err(problem(format!("more than {MAX_PACKETS} packets")));
            }
            // Times may be missing or go backwards; order counts more.
            due = packet.time.saturating_sub(*first.get_or_insert(packet.time)).max(due);
            let len = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
            if len > 0 {
                let slice = map.translate(offset, len, &mut hint);
                let slice = slice.ok_or_else(|| problem("growing while it is read".to_owned()))?;
                map.write(&slice, 0, packet.bytes);
            }
            packets.push(Stored { offset, len, due });
            offset += u64::from(len);
        }
        if packets.is_empty() {
            return Err(LoadError::Empty { path: name() });
        }
        Ok(Recording { path: name(), map, packets })
    }

    /// How many packets it has.
    pub fn packets(&self) -> usize {
        self.packets.len()
    }

    /// From the first packet to the last.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.packets.last().map_or(0, |packet| packet.due))
    }

    /// Time from the first packet to the first of the next round: one mean gap behind the last.
    fn round(&self) -> u64 {
        let (span, gaps) =
            (self.packets.last().map_or(0, |packet| packet.due), self.packets.len() as u64 - 1);
        span + span.checked_div(gaps).unwrap_or(0).max(1)
    }
}

/// How fast frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as they are taken.
    Fastest,
    /// So many a second; 0 is as fast as they are taken.
    Rate(u64),
    /// At the times in the file.
    Recorded,
}

/// Replays a recording, from the moment when it is first asked for frames.
///
/// A switch that does not keep up gets what is due later, in order, and nothing is left out.
#[derive(Debug)]
pub struct ReplayIngress {
    recording: Recording,
    pace: Pace,
    repeat: bool,
    next: usize,
    /// Rounds that are over.
    rounds: u64,
    started: Option<Instant>,
    timer: OwnedFd,
    hint: Hint,
}

impl ReplayIngress {
    /// Replays `recording` once, or again and again.
    ///
    /// # Errors
    /// The system has no timer left.
    pub fn new(recording: Recording, pace: Pace, repeat: bool) -> Result<ReplayIngress, LoadError> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(|errno| LoadError::Timer { path: recording.path.clone(), source: errno.into() })?;
        let pace = if pace == Pace::Rate(0) { Pace::Fastest } else { pace };
        Ok(ReplayIngress {
            recording,
            pace,
            repeat,
            next: 0,
            rounds: 0,
            started: None,
            timer,
            hint: Hint::default(),
        })
    }

    /// Whether the last frame was given.
    pub fn is_over(&self) -> bool {
        self.next >= self.recording.packets.len()
    }

    fn elapsed(&mut self) -> u64 {
        let since = self.started.get_or_insert_with(Instant::now).elapsed();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// When the frame `ahead` of the next one is due, in nanoseconds since the start; `None` behind the end.
    fn due(&self, ahead: usize) -> Option<u64> {
        let count = self.recording.packets.len();
        let position = self.next.checked_add(ahead)?;
        if self.is_over() || (position >= count && !self.repeat) {
            return None;
        }
        let round = self.rounds.saturating_add((position / count) as u64);
        let position = position % count;
        Some(match self.pace {
            Pace::Fastest => 0,
            Pace::Rate(rate) => {
                let number = u128::from(round) * count as u128 + position as u128;
                let at = number * u128::from(NANOS) / u128::from(rate.max(1));
                u64::try_from(at).unwrap_or(u64::MAX)
            }
            Pace::Recorded => {
                let packet = self.recording.packets.get(position)?;
                round.saturating_mul(self.recording.round()).saturating_add(packet.due)
            }
        })
    }

    fn push(&mut self, burst: &mut Burst) {
        let Some(packet) = self.recording.packets.get(self.next).copied() else { return };
        let slice = self.recording.map.translate(packet.offset, packet.len, &mut self.hint);
        let first = burst.slices().len();
        burst.slices_mut().push(slice.unwrap_or(Slice::EMPTY));
        if let Some(frame) = burst.push(first, 1, 0, packet.len) {
            match packet.len {
                ..MIN_FRAME => frame.mark(DropReason::Runt),
                MIN_FRAME..=MAX_FRAME => {}
                _ => frame.mark(DropReason::Oversize),
            }
        }
        self.next += 1;
        if self.repeat && self.is_over() {
            self.next = 0;
            self.rounds += 1;
        }
    }
}

impl Ingress for ReplayIngress {
    fn backlog(&mut self) -> usize {
        let now = self.elapsed();
        let due = |ahead| self.due(ahead).is_some_and(|at| at <= now);
        // Whether a burst is full matters more than how full it is: two looks tell it.
        if due(fabnic_port::BURST - 1) { fabnic_port::BURST } else { usize::from(due(0)) }
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.recording.map);
        let now = self.elapsed();
        while burst.room() > 0 && self.due(0).is_some_and(|at| at <= now) {
            self.push(burst);
        }
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        let now = self.elapsed();
        let Some(at) = self.due(0) else { return false };
        if at <= now {
            return true;
        }
        let wait = at - now;
        let it_value =
            Timespec { tv_sec: (wait / NANOS).cast_signed(), tv_nsec: (wait % NANOS).cast_signed() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // A timer that cannot be set is one that nobody would wake by: better not to sleep.
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_err()
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.timer.as_fd())
    }
}
