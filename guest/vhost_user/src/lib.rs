//! vhost-user back end: messages, sessions, sockets.

mod back_channel;
mod device;
mod dial;
mod endpoint;
mod error;
mod inflight;
mod listen;
mod message;
mod positions;
mod reactor;
mod ring;
mod session;
mod socket;
mod status;

pub use device::{Device, RingSetup};
pub use endpoint::{Endpoint, Role};
pub use error::Error;
pub use listen::EndpointError;
pub use message::{Area, RegionName, RingAddr, RingFd};
pub use message::{HEADER_LEN, Header, MAX_FDS, MAX_PAYLOAD, Message, Reply, Request};
pub use reactor::{Handle, Reactor};
pub use session::{MAX_RINGS, PROTOCOL_FEATURES, Session};
pub use status::{RingFormat, RingStatus, Status};
