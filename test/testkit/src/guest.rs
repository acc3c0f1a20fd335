//! One guest's connection to a back end: the front end and the life of its rings, in the order of a real front end.
//!
//! ```text
//!   Session::open      negotiate, features                      rings can be laid out: split or packed is known
//!   Session::start     memory, rings, enable, DRIVER_OK         traffic flows
//!   Session::stop      GET_VRING_BASE for each ring             bases come back, start can be called again
//! ```
//!
//! A back end that went away is met again by opening a new session and starting it with the same memory and rings.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::features::{protocol, status, virtio};
use crate::front_end::{Channel, FrontEnd, FrontEndError, Negotiated, RingPlace, Sequence};
use crate::memory::GuestMemory;

/// What to take of what a back end offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// The order of messages.
    pub sequence: Sequence,
    /// virtio features to take if they are offered.
    pub want: u64,
    /// virtio features without which the guest does not go on.
    pub need: u64,
    /// Protocol features to take if they are offered.
    pub protocol: u64,
    /// Queue pairs that will be used.
    pub pairs: u16,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes {
            sequence: Sequence::VirtioUser,
            want: virtio::MRG_RXBUF | virtio::INDIRECT_DESC | virtio::MQ,
            need: virtio::VERSION_1,
            protocol: protocol::MQ | protocol::REPLY_ACK | protocol::STATUS | protocol::CONFIGURE_MEM_SLOTS,
            pairs: 1,
        }
    }
}

/// A ring to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingStart {
    /// Where it lies.
    pub place: RingPlace,
    /// Its entries.
    pub size: u16,
    /// Where the back end is to begin.
    pub base: u32,
}

impl RingStart {
    /// A ring that was never used. `packed` rings begin with both wrap counters set.
    pub fn fresh(place: RingPlace, size: u16, packed: bool) -> RingStart {
        RingStart { place, size, base: if packed { 0x8000_8000 } else { 0 } }
    }
}

/// A guest's connection. Ring 2n is receive of pair n, ring 2n + 1 transmit (virtio 1.x, section 5.1.2).
#[derive(Debug)]
pub struct Session {
    front_end: FrontEnd,
    negotiated: Negotiated,
    wishes: Wishes,
    kicks: Vec<OwnedFd>,
    calls: Vec<OwnedFd>,
    /// Our end of the second channel, where that is agreed.
    back: Option<Channel>,
    running: bool,
}

impl Session {
    /// Negotiates with the back end at the other end of `front_end`.
    pub fn open(mut front_end: FrontEnd, wishes: Wishes) -> Result<Session, FrontEndError> {
        let sequence = wishes.sequence;
        let negotiated = front_end.negotiate(wishes.want, wishes.need, wishes.protocol, sequence)?;
        let rings = 2 * usize::from(wishes.pairs);
        let events = || -> Result<Vec<OwnedFd>, FrontEndError> {
            (0..rings)
                .map(|_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))
                .map(|fd| fd.map_err(|error| FrontEndError::Socket(error.into())))
                .collect()
        };
        let (kicks, calls) = (events()?, events()?);
        let mut session = Session { front_end, negotiated, wishes, kicks, calls, back: None, running: false };
        match sequence {
            Sequence::VirtioUser => {
                session.status(0)?;
                session.status(status::ACKNOWLEDGE | status::DRIVER)?;
                for index in 0..session.rings() {
                    session.set_call(index)?;
                }
                session.front_end.set_features(session.negotiated.features)?;
                session.status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK)?;
            }
            Sequence::Qemu => {
                if session.negotiated.speaks(protocol::BACKEND_REQ) {
                    session.back = Some(session.front_end.set_backend_req_fd()?);
                }
                // Every pair after the first opens with the same questions; the call descriptors are ones that nobody
                // looks at yet.
                for pair in 0..wishes.pairs {
                    if pair > 0 {
                        session.front_end.get_features()?;
                        if session.negotiated.has(virtio::PROTOCOL_FEATURES) {
                            session.front_end.get_protocol_features()?;
                            session.front_end.set_protocol_features(session.negotiated.protocol)?;
                        }
                        session.front_end.get_features()?;
                    }
                    for index in [2 * u32::from(pair), 2 * u32::from(pair) + 1] {
                        session.set_call(index)?;
                        session.front_end.set_vring_err(index, None)?;
                    }
                }
            }
            Sequence::CloudHypervisor => {
                session.front_end.set_features(session.negotiated.features)?;
            }
        }
        Ok(session)
    }

    /// What was agreed.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// The front end, for messages beside the usual ones.
    pub fn front_end(&mut self) -> &mut FrontEnd {
        &mut self.front_end
    }

    /// The second channel, on which the back end sends; only in QEMU's order and where BACKEND_REQ is agreed.
    pub fn back_channel(&self) -> Option<&Channel> {
        self.back.as_ref()
    }

    /// RESET_DEVICE: the back end forgets rings and features, and keeps owner and memory. Start with fresh rings.
    pub fn reset(&mut self) -> Result<(), FrontEndError> {
        self.front_end.reset_device()?;
        self.running = false;
        self.front_end.set_features(self.negotiated.features)
    }

    /// Number of rings: two for each pair.
    pub fn rings(&self) -> u32 {
        2 * u32::from(self.wishes.pairs)
    }

    /// Whether the back end has gone.
    pub fn is_closed(&self) -> bool {
        self.front_end.is_closed()
    }

    fn set_call(&mut self, index: u32) -> Result<(), FrontEndError> {
        let call = self.calls.get(index as usize).map(AsFd::as_fd);
        self.front_end.set_vring_call(index, call)
    }

    fn status(&mut self, status: u64) -> Result<(), FrontEndError> {
        if self.negotiated.speaks(protocol::STATUS) { self.front_end.set_status(status) } else { Ok(()) }
    }

    /// Shares the memory, starts all rings and enables them. Rings are in the order of their numbers.
    pub fn start(&mut self, memory: &GuestMemory, rings: &[RingStart]) -> Result<(), FrontEndError> {
        let features = self.negotiated.features;
        let ready = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        match self.wishes.sequence {
            Sequence::VirtioUser => {
                self.front_end.share(memory)?;
                self.start_rings(memory, rings)?;
                self.enable(true)?;
                self.status(ready)?;
            }
            Sequence::Qemu => {
                self.enable(true)?;
                self.front_end.set_features(features)?;
                self.status(ready & !status::DRIVER_OK)?;
                self.front_end.share(memory)?;
                self.start_rings(memory, rings)?;
                self.status(ready)?;
                self.enable(true)?;
            }
            Sequence::CloudHypervisor => {
                self.front_end.share(memory)?;
                for (index, ring) in (0..).zip(rings) {
                    self.front_end.set_vring_num(index, u32::from(ring.size))?;
                }
                if self.negotiated.speaks(protocol::INFLIGHT_SHMFD) {
                    let count = u16::try_from(rings.len()).unwrap_or(u16::MAX);
                    let size = rings.iter().map(|ring| ring.size).max().unwrap_or(0);
                    let (len, offset, file) = self.front_end.get_inflight_fd(count, size)?;
                    self.front_end.set_inflight_fd(len, offset, count, size, file.as_fd())?;
                }
                self.start_rings(memory, rings)?;
                self.enable(true)?;
            }
        }
        self.running = true;
        Ok(())
    }

    fn start_rings(&mut self, memory: &GuestMemory, rings: &[RingStart]) -> Result<(), FrontEndError> {
        let events = self.kicks.iter().zip(&self.calls);
        for ((index, ring), (kick, call)) in (0..).zip(rings).zip(events) {
            self.front_end.start_ring(
                self.wishes.sequence,
                index,
                u32::from(ring.size),
                ring.base,
                ring.place,
                memory,
                kick.as_fd(),
                call.as_fd(),
            )?;
        }
        Ok(())
    }

    /// Enables or disables all rings.
    pub fn enable(&mut self, on: bool) -> Result<(), FrontEndError> {
        // Without protocol features rings are enabled from the start.
        if self.negotiated.has(virtio::PROTOCOL_FEATURES) {
            for index in 0..self.rings() {
                self.front_end.set_vring_enable(index, on)?;
            }
        }
        Ok(())
    }

    /// Stops all rings; gives their bases in the order of their numbers. Nothing is used after this.
    pub fn stop(&mut self) -> Result<Vec<u32>, FrontEndError> {
        if self.wishes.sequence != Sequence::Qemu {
            self.enable(false)?;
        }
        let bases = (0..self.rings()).map(|index| self.front_end.get_vring_base(index)).collect();
        self.status(0)?;
        self.running = false;
        bases
    }

    /// Whether rings are started.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Kicks a ring.
    pub fn kick(&self, ring: u32) {
        if let Some(fd) = self.kicks.get(ring as usize) {
            // A full counter means that the kick is pending anyway.
            let _ = rustix::io::write(fd, &1_u64.to_ne_bytes());
        }
    }

    /// The descriptor on which a ring's calls come.
    pub fn call(&self, ring: u32) -> Option<BorrowedFd<'_>> {
        self.calls.get(ring as usize).map(AsFd::as_fd)
    }

    /// Takes a ring's pending calls: how many were written since the last time.
    pub fn take_calls(&self, ring: u32) -> u64 {
        let mut count = [0; 8];
        match self.calls.get(ring as usize).map(|fd| rustix::io::read(fd, &mut count)) {
            Some(Ok(8)) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }

    /// Waits for a call on any of these rings and takes their calls; `false` if none comes in time.
    pub fn wait_calls(&self, rings: &[u32], timeout: std::time::Duration) -> bool {
        let calls = rings.iter().filter_map(|ring| self.calls.get(*ring as usize));
        let mut fds: Vec<PollFd<'_>> = calls.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let called = matches!(poll(&mut fds, Some(&timeout)), Ok(n) if n > 0);
        called && rings.iter().map(|ring| self.take_calls(*ring)).sum::<u64>() > 0
    }
}

#[cfg(test)]
mod tests;
