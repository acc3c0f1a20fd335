//! The back-end channel: messages of ours to the front end (SET_BACKEND_REQ_FD).
//!
//! Nothing here waits. Messages are sent without asking for an answer, because a front end that is itself waiting for
//! one of ours would not give it; what the socket does not take now is kept, in so far as it still means something: of
//! many configuration changes one is enough.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use vhost::vhost_user::message::BackendReq;

use crate::message::notice;

/// The channel, and what waits to be sent on it.
///
/// VRING_HOST_NOTIFIER_MSG will have its place here.
#[derive(Debug)]
pub(crate) struct BackChannel {
    socket: OwnedFd,
    /// Of a message that was sent in part: the rest, to go first.
    rest: Vec<u8>,
    config_changed: bool,
}

impl BackChannel {
    pub(crate) fn new(socket: OwnedFd) -> rustix::io::Result<BackChannel> {
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(BackChannel { socket, rest: Vec::new(), config_changed: false })
    }

    pub(crate) fn config_changed(&mut self) {
        self.config_changed = true;
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        if !self.send_rest() {
            return;
        }
        if core::mem::take(&mut self.config_changed) {
            self.rest = notice(BackendReq::CONFIG_CHANGE_MSG);
            self.send_rest();
        }
    }

    /// Sends what is left of a message; `false` if something still is.
    fn send_rest(&mut self) -> bool {
        while !self.rest.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let mut none = SendAncillaryBuffer::default();
            match sendmsg(&self.socket, &[IoSlice::new(&self.rest)], &mut none, flags) {
                Ok(sent) => drop(self.rest.drain(..sent.min(self.rest.len()))),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(error) => {
                    tracing::debug!(%error, "back-end channel");
                    self.rest.clear();
                }
            }
        }
        true
    }
}
