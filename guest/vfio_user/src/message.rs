//! Messages: the header, every command that a client may send, and answers.
//!
//! Layouts and numbers are those of QEMU's docs/interop/vfio-user.rst ("Header", "Commands"). What comes in is decoded
//! strictly: a payload has exactly the length that its command and its own fields say, and descriptors come only where
//! they mean something.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::error::{Error, Refusal};
use crate::fields::Fields;

/// Bytes of the header in front of every message.
pub const HEADER_LEN: usize = 16;

/// The most descriptors that one message may carry, in both directions.
pub const MAX_FDS: usize = 16;

/// The most data that one message may carry, in bytes: what the specification assumes when nothing is said.
pub const MAX_DATA: u32 = 1 << 20;

/// The longest payload: the most data, and the largest fixed part in front of it.
pub const MAX_PAYLOAD: u32 = MAX_DATA + 64;

/// The most writes in one REGION_WRITE_MULTI; QEMU sends up to 200.
const MAX_WRITES: u64 = 512;

const TYPE: u32 = 0xf;
const REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// Commands that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    GetInfo = 4,
    GetRegionInfo = 5,
    GetRegionIoFds = 6,
    GetIrqInfo = 7,
    SetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DeviceReset = 13,
    RegionWriteMulti = 15,
    DeviceFeature = 16,
    MigDataRead = 17,
    MigDataWrite = 18,
}

impl Command {
    /// The command with this number.
    pub fn from_number(number: u16) -> Option<Command> {
        use Command::{
            DeviceFeature, DeviceReset, DmaMap, DmaUnmap, GetInfo, GetIrqInfo, GetRegionInfo, GetRegionIoFds,
            MigDataRead, MigDataWrite, RegionRead, RegionWrite, RegionWriteMulti, SetIrqs, Version,
        };
        const ALL: [Command; 15] = [
            Version,
            DmaMap,
            DmaUnmap,
            GetInfo,
            GetRegionInfo,
            GetRegionIoFds,
            GetIrqInfo,
            SetIrqs,
            RegionRead,
            RegionWrite,
            DeviceReset,
            RegionWriteMulti,
            DeviceFeature,
            MigDataRead,
            MigDataWrite,
        ];
        ALL.into_iter().find(|command| *command as u16 == number)
    }
}

/// A number as a command's name, for people.
pub(crate) fn name(number: u16) -> String {
    Command::from_number(number).map_or_else(|| format!("command {number}"), |command| format!("{command:?}"))
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's; given back with the answer.
    pub id: u16,
    /// Number of the command, known or not.
    pub command: u16,
    /// Bytes of payload behind the header, at most [`MAX_PAYLOAD`].
    pub size: usize,
    /// The client waits for no answer.
    pub no_reply: bool,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// If where the message ends cannot be known, or if it is no command.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, Error> {
        let [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, ..] = *bytes;
        let id = u16::from_ne_bytes([i0, i1]);
        let command = u16::from_ne_bytes([c0, c1]);
        let announced = u32::from_ne_bytes([s0, s1, s2, s3]);
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let size = usize::try_from(announced).unwrap_or(usize::MAX).checked_sub(HEADER_LEN);
        let size = size.filter(|size| u32::try_from(*size).is_ok_and(|size| size <= MAX_PAYLOAD));
        let Some(size) = size else { return Err(Error::Size { command, size: announced }) };
        if flags & TYPE != 0 || flags & ERROR != 0 {
            return Err(Error::Flags { command, flags });
        }
        Ok(Header { id, command, size, no_reply: flags & NO_REPLY != 0 })
    }
}

/// A message as it came.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// What followed it.
    pub payload: Vec<u8>,
    /// Descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// DMA_MAP.
#[derive(Debug)]
pub struct DmaMap {
    /// The device may read.
    pub readable: bool,
    /// The device may write.
    pub writable: bool,
    /// Where the window begins in its file, in bytes.
    pub offset: u64,
    /// First bus address.
    pub iova: u64,
    /// Length in bytes.
    pub size: u64,
    /// The file; without one the memory is reached by messages only, which we do not do.
    pub file: Option<OwnedFd>,
}

/// What SET_IRQS says of each vector.
#[derive(Debug)]
pub enum IrqData {
    /// The same for each of them.
    None,
    /// Whether it is meant, for each of them.
    Bool(Vec<bool>),
    /// An eventfd for each of them, or none at all: none is there any more.
    Event(Vec<OwnedFd>),
}

/// What SET_IRQS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// Interrupts are held back.
    Mask,
    /// They come again.
    Unmask,
    /// They are sent now, or (with eventfds) from now on.
    Trigger,
}

/// SET_IRQS.
#[derive(Debug)]
pub struct SetIrqs {
    /// Kind of interrupt.
    pub index: u32,
    /// The first vector.
    pub start: u32,
    /// How many.
    pub count: u32,
    /// What is said.
    pub data: IrqData,
    /// What is done.
    pub action: IrqAction,
}

/// One write to a region.
#[derive(Debug, PartialEq, Eq)]
pub struct RegionWrite {
    /// The region.
    pub region: u32,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is written.
    pub data: Vec<u8>,
}

/// What is done with a feature (Linux's `struct vfio_device_feature`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureAction {
    /// It is read.
    Get,
    /// It is written.
    Set,
    /// It is asked whether there is such a thing, for reading or writing or both.
    Probe {
        /// For reading.
        get: bool,
        /// For writing.
        set: bool,
    },
}

/// DEVICE_FEATURE.
#[derive(Debug)]
pub struct Feature {
    /// The largest answer that the client takes, in bytes.
    pub argsz: u32,
    /// The flags as they came, for the answer.
    pub flags: u32,
    /// The feature's number.
    pub index: u16,
    /// What is done with it.
    pub action: FeatureAction,
    /// What belongs to it.
    pub data: Vec<u8>,
}

/// A command, decoded.
#[derive(Debug)]
pub enum Request {
    /// VERSION: what the client speaks, and its capabilities (JSON, without the zero behind it).
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
        /// JSON; empty if there is none.
        capabilities: Vec<u8>,
    },
    /// DMA_MAP.
    DmaMap(DmaMap),
    /// DMA_UNMAP; `None` means everything.
    DmaUnmap {
        /// Bus address and length of one window.
        window: Option<(u64, u64)>,
        /// The payload, which is echoed.
        echo: [u8; 24],
    },
    /// DEVICE_GET_INFO.
    GetInfo,
    /// DEVICE_GET_REGION_INFO.
    GetRegionInfo {
        /// The largest answer that the client takes, in bytes.
        argsz: u32,
        /// The region.
        index: u32,
    },
    /// DEVICE_GET_REGION_IO_FDS.
    GetRegionIoFds {
        /// The region.
        index: u32,
    },
    /// DEVICE_GET_IRQ_INFO.
    GetIrqInfo {
        /// Kind of interrupt.
        index: u32,
    },
    /// DEVICE_SET_IRQS.
    SetIrqs(SetIrqs),
    /// REGION_READ.
    RegionRead {
        /// The region.
        region: u32,
        /// Where in it, in bytes.
        offset: u64,
        /// How many bytes; at most [`MAX_DATA`].
        count: u32,
    },
    /// REGION_WRITE.
    RegionWrite(RegionWrite),
    /// REGION_WRITE_MULTI.
    RegionWriteMulti(Vec<RegionWrite>),
    /// DEVICE_RESET.
    Reset,
    /// DEVICE_FEATURE.
    Feature(Feature),
    /// MIG_DATA_READ.
    MigrationRead {
        /// The most bytes; at most [`MAX_DATA`].
        size: u32,
    },
    /// MIG_DATA_WRITE.
    MigrationWrite(Vec<u8>),
}

impl Request {
    /// Decodes a message.
    ///
    /// # Errors
    /// If it is no command that a client may send, or does not have the shape of one.
    pub fn parse(message: Message) -> Result<Request, Refusal> {
        let Message { header, payload, mut fds } = message;
        let Some(command) = Command::from_number(header.command) else {
            return Err(Refusal::with(
                Errno::OPNOTSUPP,
                format!("command {}", header.command),
                "one that a client may send",
            ));
        };
        let mut fields = Fields::new(&payload);
        let request = match command {
            Command::Version => version(fields)?,
            Command::DmaMap => dma_map(fields, &mut fds)?,
            Command::DmaUnmap => dma_unmap(fields)?,
            Command::GetInfo => {
                let (_argsz, _flags, _regions, _irqs) =
                    (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
                fields.end()?;
                Request::GetInfo
            }
            Command::GetRegionInfo => {
                let (argsz, _flags, index) = (fields.u32()?, fields.u32()?, fields.u32()?);
                let (_cap_offset, _size, _offset) = (fields.u32()?, fields.u64()?, fields.u64()?);
                fields.end()?;
                Request::GetRegionInfo { argsz, index }
            }
            Command::GetRegionIoFds => {
                let (_argsz, _flags, index, _count) =
                    (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
                fields.end()?;
                Request::GetRegionIoFds { index }
            }
            Command::GetIrqInfo => {
                let (_argsz, _flags, index, _count) =
                    (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
                fields.end()?;
                Request::GetIrqInfo { index }
            }
            Command::SetIrqs => Request::SetIrqs(set_irqs(fields, &mut fds)?),
            Command::RegionRead => {
                let (offset, region, count) = (fields.u64()?, fields.u32()?, fields.u32()?);
                fields.end()?;
                at_most(count)?;
                Request::RegionRead { region, offset, count }
            }
            Command::RegionWrite => {
                let (offset, region, count) = (fields.u64()?, fields.u32()?, fields.u32()?);
                let data = fields.exactly(count.into())?.to_vec();
                Request::RegionWrite(RegionWrite { region, offset, data })
            }
            Command::RegionWriteMulti => write_multi(fields)?,
            Command::DeviceReset => {
                fields.end()?;
                Request::Reset
            }
            Command::DeviceFeature => Request::Feature(feature(fields)?),
            Command::MigDataRead => {
                let (_argsz, size) = (fields.u32()?, fields.u32()?);
                fields.end()?;
                at_most(size)?;
                Request::MigrationRead { size }
            }
            Command::MigDataWrite => {
                let (_argsz, size) = (fields.u32()?, fields.u32()?);
                Request::MigrationWrite(fields.exactly(size.into())?.to_vec())
            }
        };
        if !fds.is_empty() {
            return Err(Refusal::invalid(
                format!("{} file descriptors", fds.len()),
                "none with this command",
            ));
        }
        Ok(request)
    }
}

fn at_most(count: u32) -> Result<(), Refusal> {
    if count > MAX_DATA {
        return Err(Refusal::invalid(format!("{count} bytes"), "at most 1048576 (max_data_xfer_size)"));
    }
    Ok(())
}

fn version(mut fields: Fields<'_>) -> Result<Request, Refusal> {
    let (major, minor) = (fields.u16()?, fields.u16()?);
    let capabilities = match fields.rest() {
        [] => Vec::new(),
        [json @ .., 0] if json.len() <= 4096 => json.to_vec(),
        _ => {
            return Err(Refusal::invalid(
                "capabilities without an end",
                "JSON of at most 4096 bytes, and a zero",
            ));
        }
    };
    Ok(Request::Version { major, minor, capabilities })
}

fn dma_map(mut fields: Fields<'_>, fds: &mut Vec<OwnedFd>) -> Result<Request, Refusal> {
    const READ: u32 = 1;
    const WRITE: u32 = 1 << 1;
    /// How a file is meant: mapped, or read and written; the same as no word of it where there is a file.
    const MAPPED: u32 = 1 << 2;
    const FILE_IO: u32 = 1 << 3;
    let (_argsz, flags, offset) = (fields.u32()?, fields.u32()?, fields.u64()?);
    let (iova, size) = (fields.u64()?, fields.u64()?);
    fields.end()?;
    if flags & !(READ | WRITE | MAPPED | FILE_IO) != 0 {
        return Err(Refusal::invalid(
            format!("flags {flags:#x}"),
            "read (1), write (2), mmap (4), file I/O (8)",
        ));
    }
    if fds.len() > 1 {
        return Err(Refusal::invalid(format!("{} file descriptors", fds.len()), "one, or none"));
    }
    let file = fds.pop().filter(|_| flags & FILE_IO == 0);
    let (readable, writable) = (flags & READ != 0, flags & WRITE != 0);
    Ok(Request::DmaMap(DmaMap { readable, writable, offset, iova, size, file }))
}

fn dma_unmap(mut fields: Fields<'_>) -> Result<Request, Refusal> {
    const BITMAP: u32 = 1;
    const ALL: u32 = 1 << 1;
    let echo: [u8; 24] = fields.bytes()?;
    fields.end()?;
    let mut fields = Fields::new(&echo);
    let (_argsz, flags, iova, size) = (fields.u32()?, fields.u32()?, fields.u64()?, fields.u64()?);
    match flags {
        0 => Ok(Request::DmaUnmap { window: Some((iova, size)), echo }),
        ALL if (iova, size) == (0, 0) => Ok(Request::DmaUnmap { window: None, echo }),
        ALL => Err(Refusal::invalid("unmap all of a window", "address and size 0")),
        BITMAP => Err(Refusal::with(
            Errno::OPNOTSUPP,
            "the dirty bitmap of the version 1 protocol",
            "the feature DMA_LOGGING_REPORT",
        )),
        _ => Err(Refusal::invalid(format!("flags {flags:#x}"), "0, or unmap all (2)")),
    }
}

fn set_irqs(mut fields: Fields<'_>, fds: &mut Vec<OwnedFd>) -> Result<SetIrqs, Refusal> {
    let (_argsz, flags, index) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (start, count) = (fields.u32()?, fields.u32()?);
    let data = match flags & 7 {
        1 => {
            fields.end()?;
            IrqData::None
        }
        2 => IrqData::Bool(fields.exactly(count.into())?.iter().map(|byte| *byte != 0).collect()),
        4 => {
            fields.end()?;
            IrqData::Event(core::mem::take(fds))
        }
        _ => {
            return Err(Refusal::invalid(
                format!("flags {flags:#x}"),
                "one kind of data: none (1), bool (2), eventfd (4)",
            ));
        }
    };
    let action = match flags & !7 {
        0x08 => IrqAction::Mask,
        0x10 => IrqAction::Unmask,
        0x20 => IrqAction::Trigger,
        _ => {
            return Err(Refusal::invalid(
                format!("flags {flags:#x}"),
                "one action: mask (8), unmask (16), trigger (32)",
            ));
        }
    };
    Ok(SetIrqs { index, start, count, data, action })
}

fn write_multi(mut fields: Fields<'_>) -> Result<Request, Refusal> {
    let count = fields.u64()?;
    if count > MAX_WRITES {
        return Err(Refusal::invalid(format!("{count} writes"), "at most 512"));
    }
    let mut writes = Vec::new();
    for _ in 0..count {
        let (offset, region, count) = (fields.u64()?, fields.u32()?, fields.u32()?);
        let data: [u8; 8] = fields.bytes()?;
        let data = usize::try_from(count).ok().and_then(|count| data.get(..count));
        let Some(data) = data else {
            return Err(Refusal::invalid(format!("a write of {count} bytes"), "at most 8"));
        };
        writes.push(RegionWrite { region, offset, data: data.to_vec() });
    }
    fields.end()?;
    Ok(Request::RegionWriteMulti(writes))
}

fn feature(mut fields: Fields<'_>) -> Result<Feature, Refusal> {
    const GET: u32 = 1 << 16;
    const SET: u32 = 1 << 17;
    const PROBE: u32 = 1 << 18;
    let (argsz, flags) = (fields.u32()?, fields.u32()?);
    let [low, high, ..] = flags.to_le_bytes();
    let action = match flags & !0xffff {
        GET => FeatureAction::Get,
        SET => FeatureAction::Set,
        probe if probe & PROBE != 0 && probe & !(PROBE | GET | SET) == 0 => {
            FeatureAction::Probe { get: flags & GET != 0, set: flags & SET != 0 }
        }
        _ => return Err(Refusal::invalid(format!("flags {flags:#x}"), "get, set, or probe of either")),
    };
    let index = u16::from_le_bytes([low, high]);
    Ok(Feature { argsz, flags, index, action, data: fields.rest().to_vec() })
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Header and payload.
    pub bytes: Vec<u8>,
    /// At most one descriptor beside it.
    pub fd: Option<OwnedFd>,
}

fn frame(header: &Header, flags: u32, error: u32, payload: &[u8]) -> Reply {
    let size = u32::try_from(HEADER_LEN + payload.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&header.id.to_ne_bytes());
    bytes.extend_from_slice(&header.command.to_ne_bytes());
    for word in [size, flags, error] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    Reply { bytes, fd: None }
}

impl Reply {
    /// The answer to a request that was done.
    pub fn new(header: &Header, payload: &[u8]) -> Reply {
        frame(header, REPLY, 0, payload)
    }

    /// The answer to a request that was not.
    pub fn error(header: &Header, errno: Errno) -> Reply {
        frame(header, REPLY | ERROR, u32::try_from(errno.raw_os_error()).unwrap_or(0), &[])
    }
}
