//! Messages on a socket: the header, the payload, the file descriptors beside it (vhost-user, "Message specification").
//!
//! Nothing is checked that a test could want to get wrong: any request number, any payload, any descriptors. What the
//! back end answers *is* checked.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::FrontEndError;

/// Version in bits 0 and 1 of the flags.
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
const HEADER: usize = 12;
/// No message of the protocol is longer than a page.
const MAX_PAYLOAD: usize = 4096;
/// Most descriptors that go with one message; QEMU and DPDK take 8, rust-vmm 32.
pub const MAX_FDS: usize = 32;

/// A message that came in.
#[derive(Debug)]
pub struct Message {
    /// Request number.
    pub request: u32,
    /// Flags as they came.
    pub flags: u32,
    /// Payload.
    pub payload: Vec<u8>,
    /// Descriptors beside it.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// The 64-bit number at `at`.
    pub fn u64(&self, at: usize) -> Result<u64, FrontEndError> {
        let bytes = self.payload.get(at..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map(|b| u64::from_ne_bytes(*b)).ok_or(self.short(at + 8))
    }

    /// The 32-bit number at `at`.
    pub fn u32(&self, at: usize) -> Result<u32, FrontEndError> {
        let bytes = self.payload.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|b| u32::from_ne_bytes(*b)).ok_or(self.short(at + 4))
    }

    fn short(&self, need: usize) -> FrontEndError {
        FrontEndError::ShortReply { request: self.request, need, have: self.payload.len() }
    }
}

/// One end of a vhost-user connection.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
}

impl Channel {
    /// On a connected socket. Answers are waited for 10 s, unless [`Channel::set_timeout`] says otherwise.
    pub fn new(stream: UnixStream) -> Result<Channel, FrontEndError> {
        let channel = Channel { stream };
        channel.set_timeout(Duration::from_secs(10))?;
        Ok(channel)
    }

    /// How long an answer is waited for.
    pub fn set_timeout(&self, timeout: Duration) -> Result<(), FrontEndError> {
        self.stream.set_read_timeout(Some(timeout)).map_err(FrontEndError::Socket)
    }

    /// The socket, for polling.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends one message.
    pub fn send(
        &self,
        request: u32,
        need_reply: bool,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        let flags = VERSION | if need_reply { NEED_REPLY } else { 0 };
        self.send_raw(request, flags, payload, fds)
    }

    /// As [`Channel::send`] with any flags.
    pub fn send_raw(
        &self,
        request: u32,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        for word in [request, flags, size] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(payload);
        self.send_bytes(&bytes, fds)
    }

    /// Sends any bytes at all, with any descriptors: for half messages and garbage.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), FrontEndError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(FrontEndError::TooManyFds { got: fds.len() });
        }
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            let n = rustix::net::sendmsg(
                &self.stream,
                &[IoSlice::new(rest)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
            .map_err(|error| FrontEndError::Socket(error.into()))?;
            // The descriptors went with the first byte.
            ancillary.clear();
            sent += n;
        }
        Ok(())
    }

    /// Waits for one message.
    pub fn receive(&self) -> Result<Message, FrontEndError> {
        let mut fds = Vec::new();
        let mut header = [0; HEADER];
        self.fill(&mut header, &mut fds)?;
        let word = |i: usize| {
            header.get(4 * i..).and_then(|rest| rest.first_chunk::<4>()).map_or(0, |b| u32::from_ne_bytes(*b))
        };
        let (request, flags, size) = (word(0), word(1), word(2));
        let len = usize::try_from(size).ok().filter(|len| *len <= MAX_PAYLOAD);
        let len = len.ok_or(FrontEndError::LongReply { request, size })?;
        let mut payload = vec![0; len];
        self.fill(&mut payload, &mut fds)?;
        Ok(Message { request, flags, payload, fds })
    }

    /// Waits for the answer to `request`.
    pub fn reply(&self, request: u32) -> Result<Message, FrontEndError> {
        let message = self.receive()?;
        if message.request != request || message.flags & 7 != VERSION | REPLY {
            return Err(FrontEndError::NotTheReply {
                expected: request,
                got: message.request,
                flags: message.flags,
            });
        }
        Ok(message)
    }

    fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(), FrontEndError> {
        let mut done = 0;
        while done < buffer.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let rest = buffer.get_mut(done..).unwrap_or(&mut []);
            let received = rustix::net::recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(rest)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            let received = match received {
                Ok(received) => received,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return Err(FrontEndError::Timeout),
                Err(error) => return Err(FrontEndError::Socket(error.into())),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            if received.bytes == 0 {
                return Err(FrontEndError::Closed);
            }
            done += received.bytes;
        }
        Ok(())
    }
}
