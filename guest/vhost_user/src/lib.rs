//! vhost-user back end: messages, sessions, sockets.
//!
//! # Role
//!
//! A virtual machine monitor, or DPDK's virtio-user, shares its guest's memory and rings with us over a Unix socket
//! (QEMU, docs/interop/vhost-user.rst; we are the *back end*, it is the *front end*). This crate is that transport: it
//! knows files, messages and the life of rings, and nothing of network cards. What it carries is a [`Device`].
//!
//! ```text
//!   front end ==socket==> Connection --Message--> Session --calls--> Device (nic/virtio_net)
//!                         half messages,          what was said      features, rings, configuration space
//!                         descriptors             so far
//!                             |                                        |
//!   all sockets of all ports: Reactor, one thread            queues in the cells of a port
//! ```
//!
//! Messages and sessions are sans I/O ([`Request::parse`], [`Session::take`]); the reactor brings them to sockets.
//!
//! # For the agent
//!
//! [`Reactor::spawn`] once; [`Reactor::keep_positions_in`] once, with a directory on a tmpfs. For each port
//! [`Reactor::add`] an [`Endpoint`] with its device; the [`Handle`] answers [`Handle::status`], passes on
//! [`Handle::config_changed`], and dropped it ends the session, removes the socket's name and gives up the device before
//! it returns.
//!
//! # Life cycle of a session
//!
//! 1. A front end connects (server role) or is connected to (client role). One at a time: in the server role a second
//!    one is closed at once while the first one lives, since nobody could say whose rings the port's are. A client that
//!    died is recognised as dead when the next one knocks.
//! 2. Messages come in any order. A ring starts when its last missing piece is there: features, memory, size,
//!    addresses, base, and a kick descriptor or the word that there is none. No kick is waited for.
//! 3. GET_VRING_BASE stops a ring and answers when everything taken from it was given back. SET_STATUS 0 and
//!    RESET_DEVICE stop all.
//! 4. The socket closes, or something comes that is not vhost-user: all rings stop, descriptors and memory go, the port
//!    stays, with the reason to be read ([`Status::last_reason`]). A client is connected again within milliseconds of its
//!    return, without any polling while it is away (inotify on its directory).
//!
//! # Positions
//!
//! Where a ring goes on, after a regular stop, is what the front end says. After an irregular one it does not know:
//!
//! | ring | after GET_VRING_BASE | after a death or a closed socket |
//! |---|---|---|
//! | split | base and used index in memory agree | the used index in memory |
//! | packed | base | the noted position, kept beside the API's socket |
//!
//! Of a burst that was in work when the daemon was killed: what was not published is taken again. So frames *to* a guest
//! that were copied but not published are lost, and frames *from* a guest that were delivered but not given back are sent
//! once more; at most one burst a ring. To lose the latter instead would need the used index to move before delivery, and
//! the guest could reuse the memory that is being copied.
//!
//! # Invariants
//!
//! * Nothing here waits: not for the rest of a message, not for a front end to read, not on the back-end channel.
//! * Whatever a front end sends, memory and descriptors that it can make us hold are bounded: a payload of 4 KiB, 32
//!   descriptors a message, three for each ring, 509 regions, 16 answers that it does not read.
//! * Kick and call descriptors are eventfds in non-blocking mode. One thing is left: a front end may set its end, which
//!   is the same open file, back to blocking and fill the counter, and so hold a worker that interrupts it. The kernel
//!   has no way to write to an eventfd that rules this out.
//! * Memory comes from files that answer by themselves: FUSE and network file systems are refused.
//! * A message is refused with an answer if the front end asked for one (REPLY_ACK) and only its value was wrong; in all
//!   other cases the session ends, because the two sides would go on with different ideas of the ring.
//! * A defect of ours in one session (a panic) ends that session, not the thread.
//!
//! # Not offered
//!
//! DEVICE_STATE and HOST_NOTIFIER come with live migration. Their places: the requests in [`Request::parse`] that are
//! answered with [`Error::NotOffered`], the notifier message in the back-end channel, two bits in [`PROTOCOL_FEATURES`].
//! PAGEFAULT (post-copy), IOTLB and in-band notifications are left out.

mod back_channel;
mod device;
mod dial;
mod endpoint;
mod error;
mod inflight;
mod listen;
mod memory_file;
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
