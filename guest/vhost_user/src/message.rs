//! Messages: what a front end may say, parsed from bytes and file descriptors, and what is answered.
//!
//! Sans I/O. A message is a header of 12 bytes in the host's byte order (request, flags, payload size), a payload, and
//! file descriptors beside it. The payload structs and request codes are those of the `vhost` crate; its own receiving
//! side is not used, because it blocks on a half message and lacks requests that we serve. Reference:
//! QEMU, docs/interop/vhost-user.rst, "Message Specification".
//!
//! [`Request::parse`] checks everything that can be checked without knowing the session: payload lengths, descriptor
//! counts, reserved flags, arithmetic that would wrap. What it cannot parse ends the session.

use std::os::fd::{AsFd, OwnedFd};

use fabnic_memory::{MAX_REGIONS, RegionSpec};
use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserInflight, VhostUserLog, VhostUserMemory, VhostUserMemoryRegion,
    VhostUserMsgValidator, VhostUserSingleMemoryRegion, VhostUserU64, VhostUserVringAddr,
    VhostUserVringState,
};
use vm_memory::ByteValued;

use crate::error::Error;

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;
/// The longest payload that is accepted, in bytes. No message of the protocol needs more.
pub const MAX_PAYLOAD: usize = 4096;
/// The most file descriptors that one message may carry.
pub const MAX_FDS: usize = 32;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 0x3;
const REPLY: u32 = 0x4;
const NEED_REPLY: u32 = 0x8;
/// In the payload of SET_VRING_KICK, CALL and ERR: no descriptor comes with it.
const NO_FD: u64 = 0x100;
const RING_MASK: u64 = 0xff;

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked.
    pub request: FrontendReq,
    /// Whether the front end waits for an answer, if REPLY_ACK was agreed.
    pub need_reply: bool,
    /// Length of the payload in bytes, at most [`MAX_PAYLOAD`].
    pub size: usize,
}

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, Error> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        let code = u32::from_ne_bytes([a, b, c, d]);
        let flags = u32::from_ne_bytes([e, f, g, h]);
        let size = u32::from_ne_bytes([i, j, k, l]);
        let request = FrontendReq::try_from(code).map_err(|()| Error::UnknownRequest { code })?;
        if flags & VERSION_MASK != VERSION || flags & !(VERSION_MASK | NEED_REPLY) != 0 {
            return Err(Error::Flags { request, flags });
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_PAYLOAD);
        let Some(size) = size else {
            return Err(Error::TooLong { request, got: u32::from_ne_bytes([i, j, k, l]) });
        };
        Ok(Header { request, need_reply: flags & NEED_REPLY != 0, size })
    }
}

/// A whole message, not yet understood.
#[derive(Debug)]
pub struct Message {
    /// What is asked.
    pub request: FrontendReq,
    /// Whether the front end waits for an answer, if REPLY_ACK was agreed.
    pub need_reply: bool,
    /// The payload.
    pub payload: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

/// A descriptor of a ring: given, or said not to be.
#[derive(Debug)]
pub struct RingFd {
    /// The ring's number.
    pub ring: u16,
    /// The descriptor; none means "poll" for kicks and "do not signal" for calls.
    pub fd: Option<OwnedFd>,
}

/// Where a ring lies: addresses of the front end, except for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddr {
    /// The ring's number.
    pub ring: u16,
    /// Descriptor table.
    pub desc: u64,
    /// Available ring, or the driver's event structure of a packed ring.
    pub driver: u64,
    /// Used ring, or the device's event structure of a packed ring.
    pub device: u64,
    /// Guest-physical address under which writes to the used ring are logged, if they are to be.
    pub log: Option<u64>,
}

/// What a region is called by when it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionName {
    /// First guest-physical address.
    pub guest_addr: u64,
    /// First address of the front end.
    pub user_addr: u64,
    /// Length in bytes.
    pub len: u64,
}

/// An area of shared memory: of the dirty log or of the in-flight records.
#[derive(Debug)]
pub struct Area {
    /// The file.
    pub fd: OwnedFd,
    /// Length in bytes.
    pub len: u64,
    /// Where it begins in the file.
    pub offset: u64,
}

/// What a front end asks for, in terms of the session.
#[derive(Debug)]
pub enum Request {
    /// Which virtio features are offered?
    GetFeatures,
    /// These virtio features are agreed.
    SetFeatures(u64),
    /// Which protocol features are offered?
    GetProtocolFeatures,
    /// These protocol features are agreed.
    SetProtocolFeatures(u64),
    /// The session begins.
    SetOwner,
    /// Deprecated, and to be ignored.
    ResetOwner,
    /// How many rings are there?
    GetQueueNum,
    /// How many memory regions can there be?
    GetMaxMemSlots,
    /// The guest's memory, all of it.
    SetMemTable(Vec<RegionSpec>),
    /// One region more.
    AddMemReg(RegionSpec),
    /// One region less.
    RemMemReg(RegionName),
    /// The dirty log.
    SetLogBase(Area),
    /// A descriptor to signal when the log was written; nobody uses it.
    SetLogFd(OwnedFd),
    /// Size of a ring in descriptors.
    SetVringNum {
        /// The ring.
        ring: u16,
        /// Its size.
        size: u32,
    },
    /// Addresses of a ring.
    SetVringAddr(RingAddr),
    /// Position of a ring.
    SetVringBase {
        /// The ring.
        ring: u16,
        /// Split: the next available index. Packed: index and wrap bit, twice.
        base: u32,
    },
    /// Stop a ring and say where it stopped.
    GetVringBase(u16),
    /// The descriptor that kicks.
    SetVringKick(RingFd),
    /// The descriptor that interrupts.
    SetVringCall(RingFd),
    /// The descriptor that tells of errors.
    SetVringErr(RingFd),
    /// Enable or disable a ring.
    SetVringEnable {
        /// The ring.
        ring: u16,
        /// Whether.
        enabled: bool,
    },
    /// Tell the network where this MAC is now.
    SendRarp([u8; 6]),
    /// The guest's MTU, in bytes.
    SetMtu(u64),
    /// A channel for messages of ours.
    SetBackendReqFd(OwnedFd),
    /// Read the configuration space.
    GetConfig {
        /// First byte.
        offset: u32,
        /// How many.
        len: u32,
        /// Flags, given back as they are.
        flags: u32,
    },
    /// Write the configuration space.
    SetConfig {
        /// First byte.
        offset: u32,
        /// What.
        data: Vec<u8>,
    },
    /// Make an area for in-flight records.
    GetInflightFd {
        /// For how many rings.
        rings: u16,
        /// Of what size.
        size: u16,
        /// Length of the message's payload, which differs between front ends.
        payload: usize,
    },
    /// Use this area for in-flight records.
    SetInflightFd {
        /// The area.
        area: Area,
        /// For how many rings.
        rings: u16,
        /// Of what size.
        size: u16,
    },
    /// Back to the beginning, keeping memory and connection.
    ResetDevice,
    /// The virtio status byte was written.
    SetStatus(u64),
    /// Read the virtio status byte.
    GetStatus,
}

/// Fills one of the `vhost` crate's structs; `None` if the length is not its length.
fn plain<T: ByteValued + Default>(bytes: &[u8]) -> Option<T> {
    let mut value = T::default();
    let into = value.as_mut_slice();
    (into.len() == bytes.len()).then(|| into.copy_from_slice(bytes))?;
    Some(value)
}

/// What is left of a message while it is taken apart.
struct Parts {
    request: FrontendReq,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Parts {
    fn length<T>(&self, expected: usize) -> Result<T, Error> {
        Err(Error::PayloadLength { request: self.request, got: self.payload.len(), expected })
    }

    fn value(&self, got: String, expected: &'static str) -> Error {
        Error::Value { request: self.request, got, expected }
    }

    /// The payload as one struct.
    fn whole<T: ByteValued + Default>(&self) -> Result<T, Error> {
        match plain(&self.payload) {
            Some(value) => Ok(value),
            None => self.length(core::mem::size_of::<T>()),
        }
    }

    /// The payload as a number.
    fn number(&self) -> Result<u64, Error> {
        Ok(self.whole::<VhostUserU64>()?.value)
    }

    fn nothing(&self) -> Result<(), Error> {
        if self.payload.is_empty() { Ok(()) } else { self.length(0) }
    }

    fn fd_count<T>(&self, expected: &'static str) -> Result<T, Error> {
        Err(Error::Descriptors { request: self.request, got: self.fds.len(), expected })
    }

    /// No descriptor came.
    fn no_fd(&self) -> Result<(), Error> {
        if self.fds.is_empty() { Ok(()) } else { self.fd_count("none") }
    }

    /// Exactly one descriptor came.
    fn one_fd(&mut self) -> Result<OwnedFd, Error> {
        match self.fds.pop() {
            Some(fd) if self.fds.is_empty() => Ok(fd),
            Some(fd) => {
                self.fds.push(fd);
                self.fd_count("exactly one")
            }
            None => self.fd_count("exactly one"),
        }
    }

    fn ring(&self, index: u64) -> Result<u16, Error> {
        u16::try_from(index)
            .ok()
            .filter(|ring| u64::from(*ring) <= RING_MASK)
            .ok_or_else(|| self.value(format!("ring {index}"), "a ring number from 0 to 255"))
    }

    fn state(&self) -> Result<(u16, u32), Error> {
        self.no_fd()?;
        let VhostUserVringState { index, num } = self.whole()?;
        Ok((self.ring(u64::from(index))?, num))
    }

    fn ring_fd(&mut self) -> Result<RingFd, Error> {
        let value = self.number()?;
        if value & !(RING_MASK | NO_FD) != 0 {
            return Err(self.value(format!("{value:#x}"), "bits 0-7 the ring, bit 8 'no descriptor'"));
        }
        let ring = self.ring(value & RING_MASK)?;
        if value & NO_FD != 0 {
            self.no_fd()?;
            return Ok(RingFd { ring, fd: None });
        }
        Ok(RingFd { ring, fd: Some(self.one_fd()?) })
    }

    fn region(&self, region: &VhostUserMemoryRegion, file: OwnedFd) -> Result<RegionSpec, Error> {
        if !region.is_valid() {
            let (guest, len) = (region.guest_phys_addr, region.memory_size);
            return Err(self.value(
                format!("a region at {guest:#x} of {len:#x} bytes"),
                "a length above 0 and no address or offset that wraps around",
            ));
        }
        Ok(RegionSpec {
            guest_addr: region.guest_phys_addr,
            user_addr: region.user_addr,
            len: region.memory_size,
            offset: region.mmap_offset,
            file,
        })
    }

    fn mem_table(&mut self) -> Result<Vec<RegionSpec>, Error> {
        const HEAD: usize = core::mem::size_of::<VhostUserMemory>();
        const ENTRY: usize = core::mem::size_of::<VhostUserMemoryRegion>();
        let Some((head, entries)) = self.payload.split_at_checked(HEAD) else { return self.length(HEAD) };
        let Some(head) = plain::<VhostUserMemory>(head) else { return self.length(HEAD) };
        let count = usize::try_from(head.num_regions).unwrap_or(usize::MAX);
        if count > MAX_FDS {
            return Err(self.value(format!("{count} regions"), "at most 32 in one message"));
        }
        if entries.len() != count * ENTRY {
            return self.length(HEAD + count * ENTRY);
        }
        if self.fds.len() != count {
            return self.fd_count("one for each region");
        }
        let files = core::mem::take(&mut self.fds);
        let mut specs = Vec::with_capacity(count);
        for (entry, file) in entries.chunks_exact(ENTRY).zip(files) {
            let region = plain(entry).unwrap_or_default();
            specs.push(self.region(&region, file)?);
        }
        Ok(specs)
    }

    fn log_base(&mut self) -> Result<Area, Error> {
        let log: VhostUserLog = self.whole()?;
        let fd = self.one_fd()?;
        if !log.is_valid() {
            return Err(self.value(
                format!("{:#x} bytes at {:#x}", log.mmap_size, log.mmap_offset),
                "a length above 0 and an end that does not wrap around",
            ));
        }
        Ok(Area { fd, len: log.mmap_size, offset: log.mmap_offset })
    }

    fn ring_addr(&self) -> Result<RingAddr, Error> {
        self.no_fd()?;
        let addr: VhostUserVringAddr = self.whole()?;
        let (index, flags) = (addr.index, addr.flags);
        if flags > 1 {
            return Err(self.value(format!("flags {flags:#x}"), "bit 0 (log) only"));
        }
        Ok(RingAddr {
            ring: self.ring(u64::from(index))?,
            desc: addr.descriptor,
            driver: addr.available,
            device: addr.used,
            log: (flags == 1).then_some(addr.log),
        })
    }

    fn config(&self) -> Result<(VhostUserConfig, &[u8]), Error> {
        const HEAD: usize = core::mem::size_of::<VhostUserConfig>();
        self.no_fd()?;
        let Some((head, data)) = self.payload.split_at_checked(HEAD) else { return self.length(HEAD) };
        let Some(head) = plain::<VhostUserConfig>(head) else { return self.length(HEAD) };
        let (offset, size) = (head.offset, head.size);
        if !head.is_valid() {
            return Err(
                self.value(format!("{size} bytes at {offset}"), "1 to 4096 bytes of the configuration space")
            );
        }
        if usize::try_from(size).ok() != Some(data.len()) {
            return Err(
                self.value(format!("{size} bytes announced, {} there", data.len()), "the same number")
            );
        }
        Ok((head, data))
    }

    /// The structure ends in padding that some front ends send and some do not.
    fn inflight(&self) -> Result<VhostUserInflight, Error> {
        const BARE: usize = 20;
        let mut bytes = [0_u8; core::mem::size_of::<VhostUserInflight>()];
        let given = self.payload.len();
        if given != BARE && given != bytes.len() {
            return self.length(bytes.len());
        }
        for (to, from) in bytes.iter_mut().zip(&self.payload) {
            *to = *from;
        }
        let inflight: VhostUserInflight = plain(&bytes).unwrap_or_default();
        if !inflight.is_valid() {
            return Err(self.value(
                format!("{} rings of size {}", inflight.num_queues, inflight.queue_size),
                "at least one ring of at least one descriptor",
            ));
        }
        Ok(inflight)
    }
}

impl Request {
    /// Understands a message. Descriptors of a message that is refused are closed.
    pub fn parse(message: Message) -> Result<Request, Error> {
        let Message { request, need_reply: _, payload, fds } = message;
        let mut parts = Parts { request, payload, fds };
        let parsed = match request {
            FrontendReq::GET_FEATURES => parts.nothing().map(|()| Request::GetFeatures),
            FrontendReq::SET_FEATURES => parts.number().map(Request::SetFeatures),
            FrontendReq::SET_OWNER => parts.nothing().map(|()| Request::SetOwner),
            FrontendReq::RESET_OWNER => parts.nothing().map(|()| Request::ResetOwner),
            FrontendReq::SET_MEM_TABLE => parts.mem_table().map(Request::SetMemTable),
            FrontendReq::SET_LOG_BASE => parts.log_base().map(Request::SetLogBase),
            // Some front ends send a number with it that means nothing.
            FrontendReq::SET_LOG_FD => parts.one_fd().map(Request::SetLogFd),
            FrontendReq::SET_VRING_NUM => {
                parts.state().map(|(ring, size)| Request::SetVringNum { ring, size })
            }
            FrontendReq::SET_VRING_ADDR => parts.ring_addr().map(Request::SetVringAddr),
            FrontendReq::SET_VRING_BASE => {
                parts.state().map(|(ring, base)| Request::SetVringBase { ring, base })
            }
            FrontendReq::GET_VRING_BASE => parts.state().map(|(ring, _)| Request::GetVringBase(ring)),
            FrontendReq::SET_VRING_KICK => parts.ring_fd().map(Request::SetVringKick),
            FrontendReq::SET_VRING_CALL => parts.ring_fd().map(Request::SetVringCall),
            FrontendReq::SET_VRING_ERR => parts.ring_fd().map(Request::SetVringErr),
            FrontendReq::GET_PROTOCOL_FEATURES => parts.nothing().map(|()| Request::GetProtocolFeatures),
            FrontendReq::SET_PROTOCOL_FEATURES => parts.number().map(Request::SetProtocolFeatures),
            FrontendReq::GET_QUEUE_NUM => parts.nothing().map(|()| Request::GetQueueNum),
            FrontendReq::SET_VRING_ENABLE => parts.state().and_then(|(ring, on)| match on {
                0 | 1 => Ok(Request::SetVringEnable { ring, enabled: on == 1 }),
                _ => Err(parts.value(on.to_string(), "0 or 1")),
            }),
            FrontendReq::SEND_RARP => parts.number().map(|value| {
                let [a, b, c, d, e, f, _, _] = value.to_ne_bytes();
                Request::SendRarp([a, b, c, d, e, f])
            }),
            FrontendReq::NET_SET_MTU => parts.number().map(Request::SetMtu),
            // Some front ends send an empty payload, some a number that means nothing.
            FrontendReq::SET_BACKEND_REQ_FD => parts.one_fd().map(Request::SetBackendReqFd),
            FrontendReq::GET_CONFIG => parts.config().map(|(head, _)| Request::GetConfig {
                offset: head.offset,
                len: head.size,
                flags: head.flags,
            }),
            FrontendReq::SET_CONFIG => parts
                .config()
                .map(|(head, data)| Request::SetConfig { offset: head.offset, data: data.to_vec() }),
            FrontendReq::GET_INFLIGHT_FD => parts.inflight().map(|inflight| Request::GetInflightFd {
                rings: inflight.num_queues,
                size: inflight.queue_size,
                payload: parts.payload.len(),
            }),
            FrontendReq::SET_INFLIGHT_FD => parts.inflight().and_then(|inflight| {
                Ok(Request::SetInflightFd {
                    area: Area { fd: parts.one_fd()?, len: inflight.mmap_size, offset: inflight.mmap_offset },
                    rings: inflight.num_queues,
                    size: inflight.queue_size,
                })
            }),
            FrontendReq::RESET_DEVICE => parts.nothing().map(|()| Request::ResetDevice),
            FrontendReq::GET_MAX_MEM_SLOTS => parts.nothing().map(|()| Request::GetMaxMemSlots),
            FrontendReq::ADD_MEM_REG => parts.whole::<VhostUserSingleMemoryRegion>().and_then(|region| {
                let file = parts.one_fd()?;
                parts.region(&region, file).map(Request::AddMemReg)
            }),
            FrontendReq::REM_MEM_REG => parts.whole::<VhostUserSingleMemoryRegion>().map(|region| {
                // A descriptor that comes with it is closed: the region is named by its addresses.
                parts.fds.clear();
                Request::RemMemReg(RegionName {
                    guest_addr: region.guest_phys_addr,
                    user_addr: region.user_addr,
                    len: region.memory_size,
                })
            }),
            FrontendReq::SET_STATUS => parts.number().map(Request::SetStatus),
            FrontendReq::GET_STATUS => parts.nothing().map(|()| Request::GetStatus),
            // Their place: SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE come with live migration of switch state. The
            // rest belongs to protocol features that are not offered.
            FrontendReq::SET_DEVICE_STATE_FD
            | FrontendReq::CHECK_DEVICE_STATE
            | FrontendReq::IOTLB_MSG
            | FrontendReq::SET_VRING_ENDIAN
            | FrontendReq::CREATE_CRYPTO_SESSION
            | FrontendReq::CLOSE_CRYPTO_SESSION
            | FrontendReq::POSTCOPY_ADVISE
            | FrontendReq::POSTCOPY_LISTEN
            | FrontendReq::POSTCOPY_END
            | FrontendReq::GPU_SET_SOCKET
            | FrontendReq::VRING_KICK
            | FrontendReq::GET_SHARED_OBJECT
            | FrontendReq::GET_SHMEM_CONFIG => Err(Error::NotOffered { request }),
        }?;
        parts.no_fd()?;
        Ok(parsed)
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Header and payload.
    pub bytes: Vec<u8>,
    /// At most one descriptor beside it.
    pub fd: Option<OwnedFd>,
}

fn frame(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    for word in [code, flags | VERSION, size] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

impl Reply {
    /// An answer with this payload.
    pub fn new(request: FrontendReq, payload: &[u8]) -> Reply {
        Reply { bytes: frame(request.into(), REPLY, payload), fd: None }
    }

    /// An answer that is a number: also what REPLY_ACK asks for, 0 for "done".
    pub fn number(request: FrontendReq, value: u64) -> Reply {
        Reply::new(request, &value.to_ne_bytes())
    }

    /// The position of a ring.
    pub fn ring(request: FrontendReq, ring: u16, num: u32) -> Reply {
        Reply::new(request, VhostUserVringState::new(u32::from(ring), num).as_slice())
    }

    /// A part of the configuration space; nothing behind the request's own words means that it could not be read.
    pub fn config(request: FrontendReq, offset: u32, flags: u32, data: &[u8]) -> Reply {
        let size = u32::try_from(data.len()).unwrap_or(0);
        let head = VhostUserConfig { offset, size, flags };
        Reply::new(request, &[head.as_slice(), data].concat())
    }

    /// An area for in-flight records, in a payload as long as the request's.
    pub fn inflight(
        request: FrontendReq,
        area: VhostUserInflight,
        payload: usize,
        fd: impl AsFd,
    ) -> std::io::Result<Reply> {
        let bytes = area.as_slice();
        let mut reply = Reply::new(request, bytes.get(..payload).unwrap_or(bytes));
        reply.fd = Some(fd.as_fd().try_clone_to_owned()?);
        Ok(reply)
    }
}

/// A message of ours on the back-end channel that wants no answer.
pub(crate) fn notice(code: vhost::vhost_user::message::BackendReq) -> Vec<u8> {
    frame(code.into(), 0, &[])
}

/// The answer to GET_MAX_MEM_SLOTS.
pub(crate) const MEM_SLOTS: u64 = MAX_REGIONS as u64;
