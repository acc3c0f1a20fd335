//! Any messages, in any order, with any descriptors, to a whole session.
//!
//! The input is a byte that says how the session is set up (bit 0: shared pages; bit 1: VERSION was said), and a list of
//! records: command, a byte whose bit 0 is "no reply" and whose bits 4-7 are the number of descriptors, a byte that says
//! what they are, the payload's length (one byte), and the payload. A record that begins with 0xff is instead a raw
//! header of 16 bytes.
//!
//! What must hold, whatever comes: no panic, the promises to the device (see the toy), answers are well-formed and come
//! for what wants one, and the device reaches nothing when the session has ended.

#[path = "../toy/mod.rs"]
mod toy;

use std::os::fd::OwnedFd;

use fabnic_vfio_user::{HEADER_LEN, Header, MAX_PAYLOAD, Message, Session, Settings};
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use toy::Toy;

/// Bytes of each memory file.
const FILE: u64 = 1 << 16;

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

fn descriptor(kind: u8, shared: &OwnedFd) -> Option<OwnedFd> {
    match kind % 4 {
        0 => rustix::event::eventfd(0, EventfdFlags::CLOEXEC).ok(),
        1 => shared.try_clone().ok(),
        2 => rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).ok().map(|(_, write)| write),
        _ => rustix::fs::memfd_create("short", MemfdFlags::CLOEXEC).ok(),
    }
}

/// Messages until one ends the session; gives how many were taken.
pub(crate) fn run(data: &[u8]) -> usize {
    let mut input = Input(data);
    let Some(setup) = input.byte() else { return 0 };
    let mut device = if setup & 1 == 1 { Toy::shared() } else { Toy::new() };
    let Ok(shared) = rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC) else { return 0 };
    if rustix::fs::ftruncate(&shared, FILE).is_err() {
        return 0;
    }
    let mut session =
        Session::new(&mut device, Settings { mmap: setup & 1 == 1 }).expect("a sound description");
    if setup & 2 == 2 {
        let header = Header { id: 0, command: 1, size: 4, no_reply: false };
        let message = Message { header, payload: vec![0; 4], fds: Vec::new() };
        session.take(&mut device, message, 0).expect("VERSION");
    }
    let mut taken = 0;
    while let (Some(command), true) = (input.byte(), taken < 256) {
        if command == 0xff {
            let mut raw = [0; HEADER_LEN];
            let bytes = input.bytes(HEADER_LEN);
            raw[..bytes.len()].copy_from_slice(&bytes);
            if let Ok(header) = Header::parse(&raw) {
                assert!(header.size <= MAX_PAYLOAD as usize);
            }
            continue;
        }
        let (flags, kinds, len) =
            (input.byte().unwrap_or(0), input.byte().unwrap_or(0), input.byte().unwrap_or(0));
        let fds =
            (0..flags >> 4).filter_map(|n| descriptor(kinds.rotate_right(u32::from(n)), &shared)).collect();
        let payload = input.bytes(usize::from(len));
        taken += 1;
        let header = Header {
            id: u16::from(flags) << 8 | u16::from(len),
            command: u16::from(command),
            size: payload.len(),
            no_reply: flags & 1 == 1,
        };
        match session.take(&mut device, Message { header, payload, fds }, taken as u64) {
            Ok(None) => assert!(header.no_reply),
            Ok(Some(reply)) => {
                assert!(!header.no_reply);
                let word =
                    |at: usize| u32::from_ne_bytes(*reply.bytes[at..].first_chunk().expect("a whole header"));
                assert_eq!(word(0), u32::from(header.id) | u32::from(header.command) << 16);
                assert_eq!(word(4) as usize, reply.bytes.len());
                assert!(reply.bytes.len() <= HEADER_LEN + MAX_PAYLOAD as usize);
                match word(8) {
                    1 => assert_eq!(word(12), 0),
                    0x21 => assert!(word(12) != 0 && reply.bytes.len() == HEADER_LEN && reply.fd.is_none()),
                    flags => panic!("flags {flags:#x}"),
                }
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
        session.resampled();
    }
    session.end(&mut device);
    assert!(device.told().memory.is_none() && device.told().log.is_none());
    taken
}
