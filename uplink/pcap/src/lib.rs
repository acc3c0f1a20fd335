//! pcap and pcapng: replay, capture files and streams.
//!
//! # Role
//!
//! Three things that have to do with files of frames:
//!
//! ```text
//!   live capture   port.captures --offer--> CaptureTap  --> [pcapng bytes] --> CaptureStream --> control, tcpdump -r -
//!   capture port   Egress::deliver -------> RecordEgress --> [pcapng bytes] --> thread --> file
//!   replay port    file --Recording::load--> memory --> ReplayIngress::receive --> switch
//! ```
//!
//! The two captures are one mechanism: frames are written as pcapng blocks into a buffer of a fixed size, under a lock
//! that nobody holds for long and that a worker never waits for; a reader takes the whole buffer from time to time. What
//! does not fit is counted, and told in the file itself (interface statistics).
//!
//! # Life cycle
//!
//! * A capture begins with [`capture::start`], is put on a port ([`fabnic_port::CaptureSlot::add`]), and ends when its
//!   limit is reached, its stream is dropped, or its last tap is.
//! * A replay is read as a whole when it is opened: bad bytes are refused then and not while traffic runs, and workers
//!   never wait for a disk.
//! * [`PcapPort::attach`] puts both into the cells of a port.
//!
//! # Invariants
//!
//! * Nothing here waits or allocates on a worker's path.
//! * Bytes of files are not trusted: every length is checked against what is there and against a bound.

mod block;
pub mod capture;
mod port;
mod read;
mod record;
mod replay;

pub use port::{PcapConfig, PcapError, PcapPort};
pub use read::{Format, MAX_PACKET, Packet, ReadError, Reader};
pub use record::RecordEgress;
pub use replay::{LoadError, MAX_FILE, MAX_PACKETS, Pace, Recording, ReplayIngress};
