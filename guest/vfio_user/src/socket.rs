//! Messages over a Unix socket, without ever waiting.
//!
//! The kernel hands out the descriptors of a message together with its first bytes, and never in front of them. So no
//! read goes beyond the message that is being read: first the header, then as many bytes as it announces. What came is
//! kept when the socket has no more, and a half message holds up nobody.

use core::mem::MaybeUninit;
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::error::Error;
use crate::message::{HEADER_LEN, Header, MAX_FDS, Message, Reply};

/// Bytes of answers that may wait because the client does not read them. While as many do, nothing more is read.
const MAX_WAITING: usize = 64 << 10;
/// The most answers that may wait for a client to read them.
const MAX_WAITING_ANSWERS: usize = 64;

/// Bytes that are read at once: memory grows with what comes, not with what is announced.
const CHUNK: usize = 4096;

/// One connected socket.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    /// The message that is being read: header and payload.
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    header: Option<Header>,
    waiting: VecDeque<Reply>,
    waiting_bytes: usize,
}

impl Connection {
    /// The socket must be non-blocking.
    pub(crate) fn new(socket: OwnedFd) -> Connection {
        Connection {
            socket,
            bytes: Vec::with_capacity(HEADER_LEN),
            fds: Vec::new(),
            header: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next whole message, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let wanted = HEADER_LEN + self.header.map_or(0, |header| header.size);
            if self.bytes.len() < wanted {
                if !self.read(wanted)? {
                    return Ok(None);
                }
                continue;
            }
            let Some(header) = self.header else {
                let head: [u8; HEADER_LEN] = self.bytes.first_chunk().copied().unwrap_or_default();
                self.header = Some(Header::parse(&head)?);
                continue;
            };
            self.header = None;
            let mut payload = core::mem::take(&mut self.bytes);
            payload.drain(..HEADER_LEN.min(payload.len()));
            return Ok(Some(Message { header, payload, fds: core::mem::take(&mut self.fds) }));
        }
    }

    /// Reads once, up to `wanted` bytes altogether; `false` if nothing is there now.
    fn read(&mut self, wanted: usize) -> Result<bool, Error> {
        let have = self.bytes.len();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut chunk = [0_u8; CHUNK];
        let room = chunk.get_mut(..(wanted - have).min(CHUNK)).unwrap_or_default();
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = match recvmsg(&self.socket, &mut [IoSliceMut::new(room)], &mut control, flags) {
            Ok(got) => got,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            // What a peer that was killed leaves behind.
            Err(Errno::CONNRESET | Errno::PIPE) => return Err(self.end(wanted)),
            Err(source) => return Err(Error::Socket { doing: "reading a message", source }),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > MAX_FDS {
            return Err(Error::DescriptorFlood);
        }
        if got.bytes == 0 {
            return Err(self.end(wanted));
        }
        self.bytes.extend_from_slice(chunk.get(..got.bytes).unwrap_or_default());
        Ok(true)
    }

    fn end(&self, wanted: usize) -> Error {
        match self.bytes.len() {
            0 => Error::HungUp,
            got => Error::HalfMessage { got, expected: wanted },
        }
    }

    /// Sends an answer, or keeps it until the client reads.
    pub(crate) fn send(&mut self, reply: Reply) -> Result<(), Error> {
        self.waiting_bytes = self.waiting_bytes.saturating_add(reply.bytes.len());
        self.waiting.push_back(reply);
        self.flush()
    }

    /// Sends what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        while let Some(reply) = self.waiting.front_mut() {
            let fds: Vec<BorrowedFd<'_>> = reply.fd.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(&reply.bytes)], &mut control, flags) {
                Ok(sent) if sent < reply.bytes.len() => {
                    // The descriptor went with the first byte.
                    reply.fd = None;
                    reply.bytes.drain(..sent);
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(sent);
                }
                Ok(sent) => {
                    self.waiting.pop_front();
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(sent);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(Error::HungUp),
                Err(source) => return Err(Error::Socket { doing: "sending an answer", source }),
            }
        }
        Ok(())
    }

    /// Whether too many answers wait for the client to read.
    pub(crate) fn is_stuck(&self) -> bool {
        // Each may hold a descriptor.
        self.waiting_bytes >= MAX_WAITING || self.waiting.len() >= MAX_WAITING_ANSWERS
    }

    /// Whether anything waits to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
