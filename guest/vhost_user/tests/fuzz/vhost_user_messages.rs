//! Any messages, in any order, with any descriptors, to a whole session.
//!
//! The input is a list of records: request code, a byte whose bit 0 is "need reply" and whose bits 4-7 are the number of
//! descriptors, a byte that says what they are, the payload's length (one byte), and the payload. A record that begins
//! with 0 is instead a raw header of 12 bytes.
//!
//! What must hold, whatever comes: no panic, the promises to the device (see the fake device), answers are well-formed
//! and only to requests that have one, and no descriptor is left when the session has ended.

#[path = "../fake/mod.rs"]
mod fake;

use std::os::fd::OwnedFd;

use fabnic_vhost_user::{HEADER_LEN, Header, MAX_PAYLOAD, Message, Session};
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use vhost::vhost_user::message::FrontendReq;

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
    let device = fake::Fake::new(u16::from(setup % 8) * 2);
    device.told().progress = u32::from(setup >> 4);
    let Ok(shared) = rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC) else { return 0 };
    if rustix::fs::ftruncate(&shared, FILE).is_err() {
        return 0;
    }
    let mut session = Session::new(&device);
    let mut taken = 0;
    let mut reason = "end of input".to_owned();
    while let (Some(code), true) = (input.byte(), taken < 256) {
        if code == 0 {
            let mut raw = [0; HEADER_LEN];
            let bytes = input.bytes(HEADER_LEN);
            raw[..bytes.len()].copy_from_slice(&bytes);
            if let Ok(header) = Header::parse(&raw) {
                assert!(header.size <= MAX_PAYLOAD);
            }
            continue;
        }
        let Ok(request) = FrontendReq::try_from(u32::from(code)) else { continue };
        let (flags, kinds, len) =
            (input.byte().unwrap_or(0), input.byte().unwrap_or(0), input.byte().unwrap_or(0));
        let fds =
            (0..flags >> 4).filter_map(|n| descriptor(kinds.rotate_right(u32::from(n)), &shared)).collect();
        let need_reply = flags & 1 != 0;
        let message = Message { request, need_reply, payload: input.bytes(usize::from(len)), fds };
        taken += 1;
        match session.take(&mut device.clone(), message) {
            Ok(None) => {}
            Ok(Some(reply)) => {
                let (head, payload) = reply.bytes.split_at(HEADER_LEN);
                assert_eq!(head[..4], u32::from(code).to_ne_bytes());
                assert_eq!(head[4..8], 5_u32.to_ne_bytes(), "version 1, reply");
                assert_eq!(head[8..], (payload.len() as u32).to_ne_bytes());
                assert!(payload.len() <= MAX_PAYLOAD + 12);
            }
            Err(error) => {
                reason = error.to_string();
                assert!(!reason.is_empty());
                break;
            }
        }
    }
    session.end(&mut device.clone(), &reason);
    assert!(device.told().rings.is_empty());
    assert_eq!(device.told().disconnected, [reason]);
    taken
}
