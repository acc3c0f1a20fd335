//! What can go wrong.

use fabnic_avf_spec::virtchnl::Status;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device does not come out of its reset.
    #[error("the function does not become active, VFGEN_RSTAT is {0}")]
    NotActive(u32),
    /// The device does not answer.
    #[error("no answer to virtchnl message {0}")]
    NoAnswer(u32),
    /// The device answers something else.
    #[error("answer to virtchnl message {0} is malformed or not the one that was expected")]
    BadAnswer(u32),
    /// The device refuses.
    #[error("virtchnl message {message} was refused: {status:?}")]
    Refused {
        /// The message.
        message: u32,
        /// Why.
        status: Status,
    },
    /// The device refuses a flow director rule.
    #[error("flow director rule refused with status {0}")]
    Rule(i32),
    /// The device speaks a version that this driver does not know.
    #[error("virtchnl version {0}.{1}, expected 1.1")]
    Version(u32, u32),
    /// There is not enough DMA memory.
    #[error("no DMA memory left for {0} bytes")]
    NoMemory(u64),
    /// The DMA memory cannot be used as it must be.
    #[error("DMA memory: {0}")]
    Memory(String),
    /// The device has fewer queues, or the ring is not possible.
    #[error("{0}")]
    Setup(&'static str),
}
