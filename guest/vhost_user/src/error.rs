//! Why a session ended, or a request was refused.

use fabnic_memory::MapError;
use fabnic_port::Fault;
use vhost::vhost_user::message::FrontendReq;

use crate::message::MAX_PAYLOAD;

/// What was wrong, where, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The front end closed its socket, or died.
    #[error("the front end hung up")]
    HungUp,
    /// It did so in the middle of a message.
    #[error("the front end hung up after {got} of {expected} bytes of a message")]
    HalfMessage {
        /// Bytes that came.
        got: usize,
        /// Bytes that were announced; 12 if not even the header was complete.
        expected: usize,
    },
    /// The socket failed.
    #[error("{doing}: {source}")]
    Socket {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// A request code that the protocol does not have.
    #[error("request {code} is not known, expected 1 to 44")]
    UnknownRequest {
        /// The code.
        code: u32,
    },
    /// Flags that a request cannot have.
    #[error("{request:?}: flags {flags:#x}, expected version 1, no reply flag and no reserved bit")]
    Flags {
        /// The request.
        request: FrontendReq,
        /// The flags.
        flags: u32,
    },
    /// A payload beyond what any message needs.
    #[error("{request:?}: a payload of {got} bytes was announced, at most {MAX_PAYLOAD} are possible")]
    TooLong {
        /// The request.
        request: FrontendReq,
        /// The length that was announced.
        got: u32,
    },
    /// A payload of another length than the request has.
    #[error("{request:?}: {got} bytes of payload, expected {expected}")]
    PayloadLength {
        /// The request.
        request: FrontendReq,
        /// How many came.
        got: usize,
        /// How many belong there.
        expected: usize,
    },
    /// Another number of descriptors than the request has.
    #[error("{request:?}: {got} file descriptors, expected {expected}")]
    Descriptors {
        /// The request.
        request: FrontendReq,
        /// How many came.
        got: usize,
        /// How many belong there.
        expected: &'static str,
    },
    /// More descriptors than any message has, or more than the process may have open.
    #[error(
        "more than {expected} file descriptors with one message, or none left in the process (RLIMIT_NOFILE)"
    )]
    DescriptorFlood {
        /// How many are possible.
        expected: usize,
    },
    /// A value that is not possible.
    #[error("{request:?}: {got}, expected {expected}")]
    Value {
        /// The request.
        request: FrontendReq,
        /// What came.
        got: String,
        /// What is possible.
        expected: &'static str,
    },
    /// A request of a protocol feature that is not offered.
    #[error("{request:?} belongs to a protocol feature that is not offered")]
    NotOffered {
        /// The request.
        request: FrontendReq,
    },
    /// Memory that cannot be mapped.
    #[error("{request:?}: {source}")]
    Memory {
        /// The request.
        request: FrontendReq,
        /// Why.
        source: MapError,
    },
    /// The device refused.
    #[error("{request:?}: {source}")]
    Device {
        /// The request.
        request: FrontendReq,
        /// Why.
        source: Fault,
    },
    /// A defect of ours; the message is in the log of panics.
    #[error("a defect of this program: serving the front end panicked")]
    Panicked,
    /// Removed from the configuration, or the daemon ends.
    #[error("the port was removed")]
    Removed,
}

impl Error {
    /// Whether the request can be answered with "no" and the session go on; otherwise the two sides do not agree on what
    /// was said, and nothing after it can be trusted.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Error::Value { .. } | Error::Memory { .. } | Error::Device { .. })
    }
}
