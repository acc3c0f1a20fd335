//! The two directions of one queue of a TAP device.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_memory::clock::{counts, tsc};
use fabnic_memory::{Hint, Map, Slice};
use fabnic_port::finish::{Accepts, CannotFinish, finish};
use fabnic_port::{Burst, DropReason, Egress, Fault, Frame, Ingress, MAX_FRAME, Tally};
use fabnic_wire::offload::HEADER_LEN;
use fabnic_wire::{Offload, OffloadError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Room for one packet: the virtio-net header, the longest frame, and one byte by which a longer one shows.
const ROOM: u32 = (HEADER_LEN as u32 + MAX_FRAME + 1).next_multiple_of(64);
/// Packets are read one behind the other into so many bytes, so that bursts of small frames stay in the cache; a burst
/// of 64 KiB frames ends after sixteen.
const GATHER: u64 = 1 << 20;
/// Size of the memory of one queue; pages that were never read into cost nothing.
pub(crate) const ARENA: u64 = (GATHER + ROOM as u64).next_multiple_of(4096);
/// The shortest frame: an Ethernet header.
const MIN_FRAME: u32 = 14;
/// Pieces of one `writev` (fabnic_memory's limit), one of them for header and head.
const MAX_PIECES: usize = 63;

/// After a look that found nothing, the next follows no sooner than that; the time doubles with each such look.
const FIRST_PAUSE: Duration = Duration::from_micros(4);
const LAST_PAUSE: Duration = Duration::from_micros(20);

/// What is known about whether something can be read.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// So many frames at least, or a fault to be told.
    Waiting(usize),
    /// Nothing when looked at, in counts of the time stamp counter; not to be looked at again for `pause`.
    Nothing { at: u64, pause: u64 },
}

/// What the kernel sends on the device.
#[derive(Debug)]
pub struct TapIngress {
    device: Arc<str>,
    fd: Arc<OwnedFd>,
    arena: Arc<Map>,
    hint: Hint,
    known: Known,
    first_pause: u64,
    last_pause: u64,
}

impl TapIngress {
    pub(crate) fn new(device: Arc<str>, fd: Arc<OwnedFd>, arena: Arc<Map>) -> TapIngress {
        TapIngress {
            device,
            fd,
            arena,
            hint: Hint::default(),
            known: Known::Waiting(1),
            first_pause: counts(FIRST_PAUSE),
            last_pause: counts(LAST_PAUSE),
        }
    }

    /// One system call: whether a read would give something, be it an error.
    fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An error here (out of memory) is nothing to act upon: the next look may succeed.
        matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }

    fn fault(&self, problem: core::fmt::Arguments<'_>) -> Fault {
        Fault(format!("TAP device {}: {problem}", self.device))
    }

    /// Reads one packet to `at` of the arena; gives its slice.
    fn read(&mut self, at: u64) -> io::Result<Slice> {
        let room = self.arena.translate(at, ROOM, &mut self.hint).ok_or(io::ErrorKind::StorageFull)?;
        let n = self.arena.read_from(self.fd.as_fd(), &mut [], &[room])?;
        Ok(room.part(0, u32::try_from(n).unwrap_or(ROOM)))
    }
}

impl Ingress for TapIngress {
    fn backlog(&mut self) -> usize {
        match self.known {
            Known::Waiting(n) => n,
            Known::Nothing { at, pause } => {
                let now = tsc();
                if now.wrapping_sub(at) < pause {
                    return 0;
                }
                if self.is_readable() {
                    self.known = Known::Waiting(1);
                    return 1;
                }
                self.known = Known::Nothing { at: now, pause: (pause * 2).min(self.last_pause) };
                0
            }
        }
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.arena);
        let mut at = 0;
        while burst.room() > 0 && at < GATHER {
            let slice = match self.read(at) {
                Ok(slice) => slice,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => {
                    let pause = match self.known {
                        Known::Nothing { pause, .. } if burst.is_empty() => pause,
                        _ => self.first_pause,
                    };
                    self.known = Known::Nothing { at: tsc(), pause };
                    return Ok(());
                }
                // What was read before is forwarded first; the next call meets the same error.
                Err(_) if !burst.is_empty() => break,
                Err(error) => return Err(self.fault(format_args!("gone, or it cannot be read: {error}"))),
            };
            let Some(len) = slice.len().checked_sub(HEADER_LEN as u32) else {
                let n = slice.len();
                return Err(self.fault(format_args!(
                    "read {n} bytes, expected the {HEADER_LEN} of a virtio-net header at least"
                )));
            };
            at += u64::from(slice.len().next_multiple_of(64));
            let first = burst.slices().len();
            burst.slices_mut().push(slice);
            burst.push(first, 1, HEADER_LEN, len);
            let last = burst.len().saturating_sub(1);
            if let Some((frame, slices, source)) = burst.frame_and_source(last) {
                accept(frame, slices, source);
            }
        }
        self.known = Known::Waiting(burst.len().max(1));
        Ok(())
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        if matches!(self.known, Known::Nothing { .. }) && self.is_readable() {
            self.known = Known::Waiting(1);
        }
        matches!(self.known, Known::Waiting(_))
    }

    fn disarm(&mut self) {
        // The kernel wakes whoever watches the descriptor, wanted or not; here it only means to look soon.
        if let Known::Nothing { at, .. } = self.known {
            self.known = Known::Nothing { at, pause: 0 };
        }
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}

/// Decodes the header that the kernel gave, or says why the frame must not go on.
fn accept(frame: &mut Frame, slices: &[Slice], source: &Map) {
    let len = frame.len();
    if len < MIN_FRAME {
        frame.mark(DropReason::Runt);
        return;
    }
    if len > MAX_FRAME {
        frame.mark(DropReason::Oversize);
        return;
    }
    let given = Offload::decode(frame.sender_header());
    let mut checked = given.validate(len as usize, frame.head());
    if matches!(checked, Err(OffloadError::Headers { .. } | OffloadError::ChecksumBeyond { .. })) {
        // Headers with many options go on behind the private bytes.
        frame.pull(usize::MAX, source, slices);
        checked = given.validate(len as usize, frame.head());
    }
    match checked {
        Ok(offload) => frame.set_offload(offload),
        Err(_) => frame.mark(DropReason::BadOffload),
    }
}

/// What the kernel receives on the device.
#[derive(Debug)]
pub struct TapEgress {
    device: Arc<str>,
    fd: Arc<OwnedFd>,
    accepts: Accepts,
    /// Header and whole frame, for frames that cannot be written from where they lie.
    bounce: Box<[u8]>,
    /// The memory of frames that have none.
    none: Arc<Map>,
}

/// What became of one frame.
enum Written {
    /// All of it.
    Whole,
    /// Not for this reason.
    Not(DropReason),
    /// Nor will the next one be, for this reason.
    NoMore(DropReason),
    /// The device is gone.
    Gone(io::Error),
}

impl From<CannotFinish> for Written {
    fn from(_: CannotFinish) -> Written {
        Written::Not(DropReason::CannotSegment)
    }
}

impl TapEgress {
    pub(crate) fn new(device: Arc<str>, fd: Arc<OwnedFd>, accepts: Accepts, none: Arc<Map>) -> TapEgress {
        let bounce = vec![0; HEADER_LEN + MAX_FRAME as usize].into_boxed_slice();
        TapEgress { device, fd, accepts, bounce, none }
    }

    fn deliver_one(&mut self, burst: &mut Burst, index: usize) -> Written {
        let Some(frame) = burst.frames_mut().get_mut(index) else { return Written::Not(DropReason::Refused) };
        let (len, offload, accepts) = (frame.len(), frame.offload(), self.accepts);
        if !accepts.takes(&offload, frame.head()) {
            return self.write_finished(burst, index, &accepts);
        }
        let header = offload.encode(0);
        let written = if frame.rest_len() == 0 {
            rustix::io::write(&self.fd, frame.with_header(&header)).map_err(io::Error::from)
        } else {
            let Some((frame, slices, source)) = burst.frame_and_source(index) else {
                return Written::Not(DropReason::Refused);
            };
            let (rest, skip) = frame.rest_slices(slices);
            let bytes: u64 = rest.iter().map(|slice| u64::from(slice.len())).sum();
            if rest.len() > MAX_PIECES || bytes != u64::from(skip) + u64::from(frame.rest_len()) {
                return self.write_finished(burst, index, &Accepts::ALL);
            }
            source.write_to(self.fd.as_fd(), frame.with_header(&header), rest, skip)
        };
        judge(written, len as usize)
    }

    /// Writes a frame by way of private memory, as one frame or several that `accepts` allows.
    fn write_finished(&mut self, burst: &Burst, index: usize, accepts: &Accepts) -> Written {
        let Some(frame) = burst.frames().get(index) else { return Written::Not(DropReason::Refused) };
        let source = burst.source().unwrap_or(&self.none);
        let (fd, bounce) = (&self.fd, &mut self.bounce);
        let result = finish(frame, burst.slices(), source, accepts, |piece| {
            let too_long = || Written::Not(DropReason::Oversize);
            let whole = bounce.get_mut(..HEADER_LEN + piece.len()).ok_or_else(too_long)?;
            let (header, out) = whole.split_first_chunk_mut::<HEADER_LEN>().ok_or_else(too_long)?;
            let (headers, payload) = out.split_at_mut_checked(piece.header_len()).ok_or_else(too_long)?;
            // Less than the frame said: its sender's memory is gone.
            let sum = piece.read_payload(payload).ok_or(Written::Not(DropReason::Refused))?;
            *header = piece.write_headers(headers, sum)?.encode(0);
            match judge(rustix::io::write(fd, whole).map_err(io::Error::from), piece.len()) {
                Written::Whole => Ok(()),
                other => Err(other),
            }
        });
        match result {
            Ok(()) => Written::Whole,
            Err(written) => written,
        }
    }
}

/// Turns the kernel's answer (drivers/net/tun.c, tun_get_user) into what it means for the frame.
fn judge(answer: io::Result<usize>, len: usize) -> Written {
    let error = match answer {
        Ok(n) if n == HEADER_LEN + len => return Written::Whole,
        Ok(_) => return Written::Not(DropReason::Refused),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Written::NoMore(DropReason::RingFull),
        // The device is there and set down.
        Some(libc::EIO) => Written::NoMore(DropReason::NotReady),
        Some(libc::EBADFD | libc::EBADF | libc::ENODEV | libc::ENXIO) => Written::Gone(error),
        _ => Written::Not(DropReason::Refused),
    }
}

impl Egress for TapEgress {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for (done, pick) in picks.iter().enumerate() {
            let index = usize::from(*pick);
            let len = burst.frames().get(index).map_or(0, Frame::len);
            match self.deliver_one(burst, index) {
                Written::Whole => tally.deliver(len),
                Written::Not(reason) => tally.drop(reason, 1),
                Written::NoMore(reason) => {
                    tally.drop(reason, picks.len() - done);
                    break;
                }
                Written::Gone(error) => {
                    tally.drop(DropReason::Stopped, picks.len() - done);
                    return Err(Fault(format!(
                        "TAP device {}: gone, or it cannot be written: {error}",
                        self.device
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fabnic_memory::{Hint, Map};
    use fabnic_port::{Burst, DropReason, Frame, HEAD, MAX_FRAME};
    use fabnic_wire::Offload;
    use fabnic_wire::offload::{GSO_TCPV4, HEADER_LEN, NEEDS_CSUM};

    use super::accept;

    /// What becomes of bytes that were read with this header.
    fn accepted(header: Offload, frame: &[u8]) -> Frame {
        let (map, _) = Map::anonymous(1 << 17).unwrap();
        let mut burst = Burst::new();
        burst.begin(&map);
        let bytes = [&header.encode(0)[..], frame].concat();
        let slice = map.translate(0, bytes.len() as u32, &mut Hint::default()).unwrap();
        map.write(&slice, 0, &bytes);
        burst.slices_mut().push(slice);
        burst.push(0, 1, HEADER_LEN, frame.len() as u32).unwrap();
        let (frame, slices, source) = burst.frame_and_source(0).unwrap();
        accept(frame, slices, source);
        burst.frames()[0].clone()
    }

    /// IPv4 and TCP with all the options that they can have, behind two tags: 142 bytes of headers.
    fn longest_headers(payload: usize) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xa8, 0, 10, 0x81, 0, 0, 20, 8, 0];
        frame.extend([0x4f, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([1; 40]);
        frame.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0xf0, 0x10, 0, 0, 0, 0, 0, 0]);
        frame.extend([1; 40]);
        frame.extend(vec![7; payload]);
        frame
    }

    #[test]
    fn headers_behind_the_private_bytes_are_looked_at() {
        let header = Offload {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 0,
            gso_size: 1000,
            csum_start: 82,
            csum_offset: 16,
        };
        let frame = accepted(header, &longest_headers(5000));
        assert_eq!(frame.marked(), None);
        assert_eq!(frame.offload(), Offload { hdr_len: 142, ..header });
        assert!(frame.head().len() >= 142 && HEAD < 142);
    }

    #[test]
    fn a_header_that_contradicts_its_frame_is_refused() {
        let good = Offload { flags: NEEDS_CSUM, csum_start: 82, csum_offset: 16, ..Offload::PLAIN };
        assert_eq!(accepted(good, &longest_headers(10)).marked(), None);
        for bad in [
            Offload { csum_start: 22, ..good },
            Offload { csum_start: 60_000, ..good },
            Offload { gso_type: 3, gso_size: 100, ..good },
            Offload { gso_type: GSO_TCPV4, gso_size: 0, ..good },
            Offload { gso_type: GSO_TCPV4, gso_size: 100, ..Offload::PLAIN },
        ] {
            assert_eq!(
                accepted(bad, &longest_headers(3000)).marked(),
                Some(DropReason::BadOffload),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn frames_that_are_none_are_marked() {
        assert_eq!(accepted(Offload::PLAIN, &[0; 13]).marked(), Some(DropReason::Runt));
        assert_eq!(accepted(Offload::PLAIN, &[]).marked(), Some(DropReason::Runt));
        assert_eq!(accepted(Offload::PLAIN, &[0; 14]).marked(), None);
        assert_eq!(accepted(Offload::PLAIN, &vec![0; MAX_FRAME as usize]).marked(), None);
        assert_eq!(
            accepted(Offload::PLAIN, &vec![0; MAX_FRAME as usize + 1]).marked(),
            Some(DropReason::Oversize)
        );
    }
}
