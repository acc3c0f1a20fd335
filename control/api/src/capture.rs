//! The pipe from a capturing port to an HTTP client.
//!
//! A worker never waits for a client: it hands over whole pcapng blocks with [`CaptureSender::try_send`], which keeps
//! them, or says that the pipe is full (then the frame is counted as missed by the capture) or that the client went
//! (then the capture ends). Blocks are kept as they come, so memory is bounded by capacity times the largest block.

use tokio::sync::mpsc;

/// The end that the capturing side writes to. Cheap to clone: a worker each.
#[derive(Clone, Debug)]
pub struct CaptureSender(mpsc::Sender<Vec<u8>>);

/// The end that the API reads and sends to the client.
#[derive(Debug)]
pub struct CaptureStream(pub(crate) mpsc::Receiver<Vec<u8>>);

/// Why bytes were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The client reads too slowly: these bytes are lost to it.
    #[error("the capture's client reads too slowly")]
    Full,
    /// The client went: the capture is over.
    #[error("the capture's client is gone")]
    Closed,
}

/// A pipe that holds up to `blocks` pcapng blocks.
#[must_use]
pub fn capture_channel(blocks: usize) -> (CaptureSender, CaptureStream) {
    let (sender, receiver) = mpsc::channel(blocks.max(1));
    (CaptureSender(sender), CaptureStream(receiver))
}

impl CaptureSender {
    /// Hands over whole pcapng blocks without waiting.
    ///
    /// # Errors
    /// When the pipe is full or nobody reads any more. The bytes are dropped.
    pub fn try_send(&self, blocks: Vec<u8>) -> Result<(), SendError> {
        self.0.try_send(blocks).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
        })
    }

    /// Hands over whole pcapng blocks and waits for room: for threads that may wait, not for a worker, and not from
    /// within an asynchronous task.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn send_blocking(&self, blocks: Vec<u8>) -> Result<(), SendError> {
        self.0.blocking_send(blocks).map_err(|_| SendError::Closed)
    }

    /// Whether nobody reads any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
