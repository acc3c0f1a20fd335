//! The front end of vhost-user: what a VMM says to a back end.
//!
//! [`FrontEnd`] has one method for each message of the protocol and keeps no opinion on their order: tests send them in
//! any. The orders that real front ends use are in [`Sequence`] and are followed by [`crate::guest::Session`].
//!
//! ```text
//!   connect / accept
//!        |
//!   negotiate        GET_FEATURES, GET/SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_MAX_MEM_SLOTS, SET_OWNER ...
//!        |
//!   set_features, share (SET_MEM_TABLE or ADD_MEM_REG)
//!        |
//!   start_ring (NUM, BASE, ADDR, CALL, KICK), enable_ring, set_status   <--+
//!        |                                                                  |
//!   stop_ring (GET_VRING_BASE) ---------------------------------------------+
//! ```
//!
//! Once REPLY_ACK is agreed, every message that has no answer of its own asks for one, so that an error is seen where it
//! was made; [`FrontEnd::set_acknowledged`] turns that off.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::features::{protocol, virtio};
use crate::memory::{GuestMemory, Region};

mod channel;
pub mod request;

pub use channel::{Channel, MAX_FDS, Message};

/// What goes wrong between a front end and a back end.
#[derive(Debug, thiserror::Error)]
pub enum FrontEndError {
    /// The socket failed.
    #[error("the vhost-user socket failed")]
    Socket(#[source] io::Error),
    /// Nobody answered at the path in time.
    #[error("no vhost-user peer at {path} within {waited:?}")]
    NoPeer {
        /// Where.
        path: String,
        /// How long was waited.
        waited: Duration,
        /// The last attempt's error.
        source: io::Error,
    },
    /// The back end closed the connection.
    #[error("the back end closed the vhost-user connection")]
    Closed,
    /// No answer in time.
    #[error("the back end did not answer in time")]
    Timeout,
    /// Another message than the awaited answer came.
    #[error("expected the answer to vhost-user request {expected}, got request {got} with flags {flags:#x}")]
    NotTheReply {
        /// What was asked.
        expected: u32,
        /// What came.
        got: u32,
        /// Its flags.
        flags: u32,
    },
    /// An answer with fewer bytes than its kind has.
    #[error("the answer to vhost-user request {request} has {have} bytes, {need} are needed")]
    ShortReply {
        /// Which request.
        request: u32,
        /// Bytes needed.
        need: usize,
        /// Bytes that came.
        have: usize,
    },
    /// An answer longer than any.
    #[error("the answer to vhost-user request {request} claims {size} bytes, at most 4096 are possible")]
    LongReply {
        /// Which request.
        request: u32,
        /// The claim.
        size: u32,
    },
    /// The back end said no.
    #[error("the back end refused vhost-user request {request} with {code}")]
    Refused {
        /// Which request.
        request: u32,
        /// Its code.
        code: u64,
    },
    /// The back end's answer came without the descriptor that belongs to it.
    #[error("the answer to vhost-user request {request} has no file descriptor")]
    NoDescriptor {
        /// Which request.
        request: u32,
    },
    /// More descriptors than fit a message.
    #[error("{got} file descriptors do not fit one message, at most {MAX_FDS} do")]
    TooManyFds {
        /// How many there were.
        got: usize,
    },
    /// The back end does not offer what the guest insists on.
    #[error("the back end offers features {offered:#x}, {missing:#x} are missing")]
    Missing {
        /// What it offers.
        offered: u64,
        /// What is missing.
        missing: u64,
    },
}

/// In whose order the messages are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequence {
    /// DPDK's virtio-user: one pass, memory before rings, pairs enabled at the end.
    #[default]
    VirtioUser,
    /// QEMU: negotiates again for each queue pair, call descriptors first, then everything at DRIVER_OK.
    Qemu,
    /// Cloud Hypervisor: features, memory, all ring sizes, then each ring's addresses, call before kick, enables last.
    CloudHypervisor,
}

/// Where a ring lies, in guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlace {
    /// Descriptors (packed: the ring).
    pub descriptors: u64,
    /// Available ring (packed: driver area).
    pub driver: u64,
    /// Used ring (packed: device area).
    pub device: u64,
}

/// What a back end has and what was agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// virtio features offered.
    pub offered: u64,
    /// virtio features agreed, PROTOCOL_FEATURES included.
    pub features: u64,
    /// Protocol features offered.
    pub protocol_offered: u64,
    /// Protocol features agreed.
    pub protocol: u64,
    /// Answer to GET_QUEUE_NUM, if it was asked.
    pub queues: Option<u64>,
    /// Answer to GET_MAX_MEM_SLOTS, if it was asked.
    pub slots: Option<u64>,
}

impl Negotiated {
    /// Whether all these virtio features are agreed.
    pub fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    /// Whether all these protocol features are agreed.
    pub fn speaks(&self, features: u64) -> bool {
        self.protocol & features == features
    }
}

/// Listens where a back end in client role connects to. An old socket file at the path is replaced.
pub fn listen(path: &Path) -> Result<UnixListener, FrontEndError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FrontEndError::Socket(error)),
        _ => {}
    }
    UnixListener::bind(path).map_err(FrontEndError::Socket)
}

/// The front end's end of one connection.
#[derive(Debug)]
pub struct FrontEnd {
    channel: Channel,
    /// Ask for an answer to everything.
    acknowledged: bool,
    protocol: u64,
}

impl FrontEnd {
    /// On a connected socket.
    pub fn new(stream: UnixStream) -> Result<FrontEnd, FrontEndError> {
        Ok(FrontEnd { channel: Channel::new(stream)?, acknowledged: true, protocol: 0 })
    }

    /// Connects to a back end that listens at `path`; tries again until it is there.
    pub fn connect(path: &Path, patience: Duration) -> Result<FrontEnd, FrontEndError> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return FrontEnd::new(stream),
                Err(source) if start.elapsed() >= patience => {
                    let path = path.display().to_string();
                    return Err(FrontEndError::NoPeer { path, waited: patience, source });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Waits for a back end to connect to `listener`.
    pub fn accept(listener: &UnixListener, patience: Duration) -> Result<FrontEnd, FrontEndError> {
        let start = Instant::now();
        listener.set_nonblocking(true).map_err(FrontEndError::Socket)?;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(FrontEndError::Socket)?;
                    return FrontEnd::new(stream);
                }
                Err(source) if start.elapsed() >= patience => {
                    let address = listener.local_addr().ok();
                    let path = address.and_then(|a| a.as_pathname().map(|p| p.display().to_string()));
                    let path = path.unwrap_or_default();
                    return Err(FrontEndError::NoPeer { path, waited: patience, source });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// The connection itself, for messages no front end should send.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether to ask for an answer to every message, once REPLY_ACK is agreed. On from the start.
    pub fn set_acknowledged(&mut self, on: bool) {
        self.acknowledged = on;
    }

    /// Whether the back end has closed the connection.
    pub fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let fd = self.channel.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::RDHUP)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        ready.is_ok() && fds.iter().any(|fd| fd.revents().intersects(gone))
    }

    /// The opening every front end makes: owner, features, protocol features, limits. `want` is what to take of what is
    /// offered, `need` what there must be.
    pub fn negotiate(
        &mut self,
        want: u64,
        need: u64,
        want_protocol: u64,
        sequence: Sequence,
    ) -> Result<Negotiated, FrontEndError> {
        if sequence != Sequence::Qemu {
            self.set_owner()?;
        }
        let offered = self.get_features()?;
        if offered & need != need {
            return Err(FrontEndError::Missing { offered, missing: need & !offered });
        }
        let mut agreed = Negotiated { offered, features: offered & (want | need), ..Negotiated::default() };
        if offered & virtio::PROTOCOL_FEATURES != 0 {
            agreed.features |= virtio::PROTOCOL_FEATURES;
            agreed.protocol_offered = self.get_protocol_features()?;
            agreed.protocol = agreed.protocol_offered & want_protocol;
            self.set_protocol_features(agreed.protocol)?;
            if agreed.speaks(protocol::MQ) && sequence != Sequence::VirtioUser {
                agreed.queues = Some(self.get_queue_num()?);
            }
            if agreed.speaks(protocol::CONFIGURE_MEM_SLOTS) {
                agreed.slots = Some(self.get_max_mem_slots()?);
            }
        }
        if sequence == Sequence::Qemu {
            self.set_owner()?;
            self.get_features()?;
        }
        Ok(agreed)
    }

    /// Tells the back end of the whole memory: by table, or region by region where slots are agreed and there are more
    /// regions than a table holds.
    pub fn share(&mut self, memory: &GuestMemory) -> Result<(), FrontEndError> {
        let regions = memory.regions();
        if self.protocol & protocol::CONFIGURE_MEM_SLOTS != 0 && regions.len() > 8 {
            return regions.iter().try_for_each(|region| self.add_mem_reg(region));
        }
        self.set_mem_table(regions)
    }

    /// Everything one ring needs before it is enabled, in the order of `sequence`.
    #[expect(clippy::too_many_arguments, reason = "it is what a ring has")]
    pub fn start_ring(
        &mut self,
        sequence: Sequence,
        index: u32,
        size: u32,
        base: u32,
        place: RingPlace,
        memory: &GuestMemory,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<(), FrontEndError> {
        let user = RingPlace {
            descriptors: memory.user_address(place.descriptors),
            driver: memory.user_address(place.driver),
            device: memory.user_address(place.device),
        };
        match sequence {
            Sequence::VirtioUser => {
                self.set_vring_num(index, size)?;
                self.set_vring_base(index, base)?;
                self.set_vring_addr(index, 0, user, 0)?;
                self.set_vring_kick(index, Some(kick))
            }
            Sequence::Qemu => {
                self.set_vring_num(index, size)?;
                self.set_vring_base(index, base)?;
                self.set_vring_addr(index, 0, user, 0)?;
                self.set_vring_kick(index, Some(kick))?;
                self.set_vring_call(index, Some(call))
            }
            Sequence::CloudHypervisor => {
                self.set_vring_addr(index, 0, user, 0)?;
                self.set_vring_base(index, base)?;
                self.set_vring_call(index, Some(call))?;
                self.set_vring_kick(index, Some(kick))
            }
        }
    }

    // --- The messages, in the order of their numbers ---

    /// GET_FEATURES.
    pub fn get_features(&mut self) -> Result<u64, FrontEndError> {
        self.ask_u64(request::GET_FEATURES)
    }

    /// SET_FEATURES.
    pub fn set_features(&mut self, features: u64) -> Result<(), FrontEndError> {
        self.tell(request::SET_FEATURES, &features.to_ne_bytes(), &[])
    }

    /// SET_OWNER.
    pub fn set_owner(&mut self) -> Result<(), FrontEndError> {
        self.tell(request::SET_OWNER, &[], &[])
    }

    /// SET_MEM_TABLE.
    pub fn set_mem_table(&mut self, regions: &[Region]) -> Result<(), FrontEndError> {
        let mut payload = Vec::new();
        payload.extend_from_slice(&u32::try_from(regions.len()).unwrap_or(u32::MAX).to_ne_bytes());
        payload.extend_from_slice(&[0; 4]);
        for region in regions {
            payload.extend_from_slice(&region_bytes(region));
        }
        let fds: Vec<_> = regions.iter().map(|region| region.file.as_fd()).collect();
        self.tell(request::SET_MEM_TABLE, &payload, &fds)
    }

    /// SET_LOG_BASE: `len` bytes of `file` from `offset` on. Answered always where LOG_SHMFD is agreed.
    pub fn set_log_base(&mut self, len: u64, offset: u64, file: BorrowedFd<'_>) -> Result<(), FrontEndError> {
        let mut payload = len.to_ne_bytes().to_vec();
        payload.extend_from_slice(&offset.to_ne_bytes());
        self.channel.send(request::SET_LOG_BASE, false, &payload, &[file])?;
        if self.protocol & protocol::LOG_SHMFD != 0 {
            self.channel.reply(request::SET_LOG_BASE)?;
        }
        Ok(())
    }

    /// SET_LOG_FD.
    pub fn set_log_fd(&mut self, file: BorrowedFd<'_>) -> Result<(), FrontEndError> {
        self.tell(request::SET_LOG_FD, &[], &[file])
    }

    /// SET_VRING_NUM.
    pub fn set_vring_num(&mut self, index: u32, size: u32) -> Result<(), FrontEndError> {
        self.tell(request::SET_VRING_NUM, &state_bytes(index, size), &[])
    }

    /// SET_VRING_ADDR, in the front end's addresses. Bit 0 of `flags`: log writes to the used ring at `log`.
    pub fn set_vring_addr(
        &mut self,
        index: u32,
        flags: u32,
        place: RingPlace,
        log: u64,
    ) -> Result<(), FrontEndError> {
        let mut payload = state_bytes(index, flags).to_vec();
        for address in [place.descriptors, place.device, place.driver, log] {
            payload.extend_from_slice(&address.to_ne_bytes());
        }
        self.tell(request::SET_VRING_ADDR, &payload, &[])
    }

    /// SET_VRING_BASE: split 16 bits, packed 32 (avail index and wrap, used index and wrap).
    pub fn set_vring_base(&mut self, index: u32, base: u32) -> Result<(), FrontEndError> {
        self.tell(request::SET_VRING_BASE, &state_bytes(index, base), &[])
    }

    /// GET_VRING_BASE: stops the ring.
    pub fn get_vring_base(&mut self, index: u32) -> Result<u32, FrontEndError> {
        let message = self.ask(request::GET_VRING_BASE, &state_bytes(index, 0), &[])?;
        message.u32(4)
    }

    /// SET_VRING_KICK; without a descriptor the back end is to poll.
    pub fn set_vring_kick(&mut self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), FrontEndError> {
        self.tell_ring_fd(request::SET_VRING_KICK, index, fd)
    }

    /// SET_VRING_CALL; without a descriptor nobody is to be called.
    pub fn set_vring_call(&mut self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), FrontEndError> {
        self.tell_ring_fd(request::SET_VRING_CALL, index, fd)
    }

    /// SET_VRING_ERR.
    pub fn set_vring_err(&mut self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), FrontEndError> {
        self.tell_ring_fd(request::SET_VRING_ERR, index, fd)
    }

    /// GET_PROTOCOL_FEATURES.
    pub fn get_protocol_features(&mut self) -> Result<u64, FrontEndError> {
        self.ask_u64(request::GET_PROTOCOL_FEATURES)
    }

    /// SET_PROTOCOL_FEATURES; what is set here is in force from the next message on.
    pub fn set_protocol_features(&mut self, features: u64) -> Result<(), FrontEndError> {
        self.channel.send(request::SET_PROTOCOL_FEATURES, false, &features.to_ne_bytes(), &[])?;
        self.protocol = features;
        Ok(())
    }

    /// GET_QUEUE_NUM.
    pub fn get_queue_num(&mut self) -> Result<u64, FrontEndError> {
        self.ask_u64(request::GET_QUEUE_NUM)
    }

    /// SET_VRING_ENABLE.
    pub fn set_vring_enable(&mut self, index: u32, on: bool) -> Result<(), FrontEndError> {
        self.tell(request::SET_VRING_ENABLE, &state_bytes(index, u32::from(on)), &[])
    }

    /// SEND_RARP.
    pub fn send_rarp(&mut self, mac: [u8; 6]) -> Result<(), FrontEndError> {
        let [a, b, c, d, e, f] = mac;
        self.tell(request::SEND_RARP, &[a, b, c, d, e, f, 0, 0], &[])
    }

    /// NET_SET_MTU.
    pub fn net_set_mtu(&mut self, mtu: u64) -> Result<(), FrontEndError> {
        self.tell(request::NET_SET_MTU, &mtu.to_ne_bytes(), &[])
    }

    /// SET_BACKEND_REQ_FD: gives our end of the second channel.
    pub fn set_backend_req_fd(&mut self) -> Result<Channel, FrontEndError> {
        let (ours, theirs) = UnixStream::pair().map_err(FrontEndError::Socket)?;
        self.tell(request::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()])?;
        Channel::new(ours)
    }

    /// GET_CONFIG: `len` bytes of the device configuration from `offset` on.
    pub fn get_config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>, FrontEndError> {
        let payload = config_bytes(offset, &vec![0; len as usize]);
        let message = self.ask(request::GET_CONFIG, &payload, &[])?;
        if message.payload.is_empty() {
            return Err(FrontEndError::Refused { request: request::GET_CONFIG, code: 0 });
        }
        message.payload.get(12..).map(<[u8]>::to_vec).ok_or(FrontEndError::ShortReply {
            request: request::GET_CONFIG,
            need: 12,
            have: message.payload.len(),
        })
    }

    /// SET_CONFIG.
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FrontEndError> {
        self.tell(request::SET_CONFIG, &config_bytes(offset, bytes), &[])
    }

    /// GET_INFLIGHT_FD: length, offset and file of the in-flight region for so many rings of that size.
    pub fn get_inflight_fd(&mut self, rings: u16, size: u16) -> Result<(u64, u64, OwnedFd), FrontEndError> {
        let message = self.ask(request::GET_INFLIGHT_FD, &inflight_bytes(0, 0, rings, size), &[])?;
        let (len, offset) = (message.u64(0)?, message.u64(8)?);
        let fd = message.fds.into_iter().next();
        let fd = fd.ok_or(FrontEndError::NoDescriptor { request: request::GET_INFLIGHT_FD })?;
        Ok((len, offset, fd))
    }

    /// SET_INFLIGHT_FD.
    pub fn set_inflight_fd(
        &mut self,
        len: u64,
        offset: u64,
        rings: u16,
        size: u16,
        fd: BorrowedFd<'_>,
    ) -> Result<(), FrontEndError> {
        self.tell(request::SET_INFLIGHT_FD, &inflight_bytes(len, offset, rings, size), &[fd])
    }

    /// RESET_DEVICE.
    pub fn reset_device(&mut self) -> Result<(), FrontEndError> {
        self.tell(request::RESET_DEVICE, &[], &[])
    }

    /// GET_MAX_MEM_SLOTS.
    pub fn get_max_mem_slots(&mut self) -> Result<u64, FrontEndError> {
        self.ask_u64(request::GET_MAX_MEM_SLOTS)
    }

    /// ADD_MEM_REG.
    pub fn add_mem_reg(&mut self, region: &Region) -> Result<(), FrontEndError> {
        let mut payload = vec![0; 8];
        payload.extend_from_slice(&region_bytes(region));
        self.tell(request::ADD_MEM_REG, &payload, &[region.file.as_fd()])
    }

    /// REM_MEM_REG.
    pub fn rem_mem_reg(&mut self, region: &Region) -> Result<(), FrontEndError> {
        let mut payload = vec![0; 8];
        payload.extend_from_slice(&region_bytes(region));
        self.tell(request::REM_MEM_REG, &payload, &[])
    }

    /// SET_STATUS: the device status byte.
    pub fn set_status(&mut self, status: u64) -> Result<(), FrontEndError> {
        self.tell(request::SET_STATUS, &status.to_ne_bytes(), &[])
    }

    /// GET_STATUS.
    pub fn get_status(&mut self) -> Result<u64, FrontEndError> {
        self.ask_u64(request::GET_STATUS)
    }

    // --- How they are sent ---

    /// A message without an answer of its own; waits for the acknowledgement where one can be had.
    pub fn tell(
        &mut self,
        request: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        let acknowledged = self.acknowledged && self.protocol & protocol::REPLY_ACK != 0;
        self.channel.send(request, acknowledged, payload, fds)?;
        if acknowledged {
            let code = self.channel.reply(request)?.u64(0)?;
            if code != 0 {
                return Err(FrontEndError::Refused { request, code });
            }
        }
        Ok(())
    }

    /// A message that has an answer.
    pub fn ask(
        &mut self,
        request: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Message, FrontEndError> {
        self.channel.send(request, false, payload, fds)?;
        self.channel.reply(request)
    }

    fn ask_u64(&mut self, request: u32) -> Result<u64, FrontEndError> {
        self.ask(request, &[], &[])?.u64(0)
    }

    fn tell_ring_fd(
        &mut self,
        request: u32,
        index: u32,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), FrontEndError> {
        // Bit 8 says that no descriptor comes with it.
        let value = u64::from(index) | if fd.is_none() { 0x100 } else { 0 };
        self.tell(request, &value.to_ne_bytes(), fd.as_slice())
    }
}

fn state_bytes(index: u32, value: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (index.to_ne_bytes(), value.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

fn region_bytes(region: &Region) -> Vec<u8> {
    [region.guest_addr, region.len, region.user_addr, 0].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn config_bytes(offset: u32, bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut payload: Vec<u8> = [offset, size, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    payload.extend_from_slice(bytes);
    payload
}

fn inflight_bytes(len: u64, offset: u64, rings: u16, size: u16) -> Vec<u8> {
    let mut payload: Vec<u8> = [len, offset].iter().flat_map(|word| word.to_ne_bytes()).collect();
    payload.extend_from_slice(&rings.to_ne_bytes());
    payload.extend_from_slice(&size.to_ne_bytes());
    // The record is padded to the alignment of its first words.
    payload.extend_from_slice(&[0; 4]);
    payload
}

#[cfg(test)]
mod tests;
