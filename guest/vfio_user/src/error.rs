//! Why a session ended, or a request was refused.

use rustix::io::Errno;

use crate::message::{MAX_FDS, MAX_PAYLOAD};

/// What ends a session: the stream cannot be followed any further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client closed its socket, or died.
    #[error("the client hung up")]
    HungUp,
    /// It did so in the middle of a message.
    #[error("the client hung up after {got} of {expected} bytes of a message")]
    HalfMessage {
        /// Bytes that came.
        got: usize,
        /// Bytes that were announced; 16 if not even the header was complete.
        expected: usize,
    },
    /// The socket failed.
    #[error("{doing}: {source}")]
    Socket {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// A message that is shorter than its header, or longer than any may be.
    #[error("command {command}: a message of {size} bytes was announced, expected 16 to {}", 16 + MAX_PAYLOAD)]
    Size {
        /// The command.
        command: u16,
        /// The size that was announced.
        size: u32,
    },
    /// A reply, although nothing was asked, or no known type of message.
    #[error("command {command}: flags {flags:#x}, expected a command (0), maybe without reply (0x10)")]
    Flags {
        /// The command.
        command: u16,
        /// The flags.
        flags: u32,
    },
    /// More descriptors than any message may have, or more than the process may have open.
    #[error(
        "more than {MAX_FDS} file descriptors with one message, or none left in the process (RLIMIT_NOFILE)"
    )]
    DescriptorFlood,
    /// Anything before VERSION, or VERSION a second time.
    #[error("{command} came {when}, expected VERSION once, as the first message")]
    Order {
        /// What came.
        command: String,
        /// When.
        when: &'static str,
    },
    /// A defect of ours; the message is in the log of panics.
    #[error("a defect of this program: serving the client panicked")]
    Panicked,
    /// Removed from the configuration, or the daemon ends.
    #[error("the port was removed")]
    Removed,
}

/// Why a request was answered with an error. The session goes on: where a message ends is known.
#[derive(Debug, thiserror::Error)]
#[error("{got}, expected {expected}")]
pub struct Refusal {
    /// What the client is told.
    pub errno: Errno,
    /// What was wrong.
    pub got: String,
    /// What is possible.
    pub expected: &'static str,
}

impl Refusal {
    /// An invalid request (EINVAL).
    pub(crate) fn invalid(got: impl Into<String>, expected: &'static str) -> Refusal {
        Refusal { errno: Errno::INVAL, got: got.into(), expected }
    }

    /// With another error number.
    pub(crate) fn with(errno: Errno, got: impl Into<String>, expected: &'static str) -> Refusal {
        Refusal { errno, got: got.into(), expected }
    }
}
