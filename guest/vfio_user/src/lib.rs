//! vfio-user server: messages, sessions, sockets.
//!
//! # Role
//!
//! A virtual machine monitor gives its guest a PCI device that lives in another process: it sends the guest's accesses
//! to registers over a Unix socket, shares the guest's memory by file descriptors, and takes interrupts by eventfds
//! (QEMU, docs/interop/vfio-user.rst; we are the *server*, the monitor is the *client*). This crate is that server: it
//! knows files, messages and configuration space, and nothing of network cards. What it carries is a
//! [`fabnic_pci::Function`].
//!
//! ```text
//!   client ==socket==> Connection --Message--> Session -----calls-----> Function (nic/avf, nic/e1000)
//!                      half messages,          configuration space,     BARs, reset, memory
//!                      descriptors             DMA windows, eventfds        |
//!                          |                         ^                      |
//!   all sockets of all ports: Reactor, one thread    +--- Interrupts <------+--- queues, on workers
//! ```
//!
//! Messages and sessions are sans I/O ([`Request::parse`], [`Session::take`]); the reactor brings them to sockets.
//!
//! # For the agent
//!
//! [`Reactor::spawn`] once. For each port [`Reactor::add`] an [`Endpoint`] with its function; the [`Handle`] answers
//! [`Handle::status`], and dropped it ends the session, removes the socket's name and gives up the function before it
//! returns.
//!
//! # Life cycle of a session
//!
//! 1. A client connects: one at a time. A second one is closed at once while the first one lives; a client that died is
//!    recognised as dead when the next one knocks. The function is attached.
//! 2. VERSION comes first, and once. Then anything, in any order; each request is done entirely before its answer.
//! 3. DMA_MAP and DMA_UNMAP make the function's IOMMU. The function reaches it while bus mastering is on and the
//!    power is (D0). An unmap is answered when the function has let go of what was there.
//! 4. A reset comes from the driver (a function-level reset, the way back from D3hot) or from the client (DEVICE_RESET).
//!    DMA windows and eventfds are the client's and stay.
//! 5. The socket closes, or something comes that is not vfio-user: the function is reset and reaches nothing,
//!    descriptors and memory go, the port stays, with the reason to be read ([`Status::last_reason`]).
//!
//! # Migration
//!
//! A function that says it can ([`fabnic_pci::Function::is_migratable`]) has the features of Linux VFIO's migration
//! version 2 and DMA logging. No client uses them yet: QEMU 11.1 migrates a VM without the device's state and does not say
//! so, Cloud Hypervisor as well.
//!
//! # Invariants
//!
//! * Nothing here waits: not for the rest of a message, not for a client to read. A slow client delays itself only.
//! * Whatever a client sends, memory and descriptors that it can make us hold are bounded: a message of 1 MiB, of which
//!   only what came is held; 16 descriptors a message; 509 windows; one eventfd for each vector; 64 KiB of answers that
//!   it does not read, and the one that is beyond that.
//! * An answer is one `sendmsg`, with its descriptor. Its shape is what QEMU 11.1 and Cloud Hypervisor expect: never
//!   longer than QEMU's buffer, never a bare error where Cloud Hypervisor waits for more, unless the request itself is
//!   one that neither makes.
//! * The function sees accesses of 1, 2, 4 or 8 bytes, aligned, inside of its BARs. MSI-X table and pending bits are
//!   served here, and configuration space.
//! * Eventfds are in non-blocking mode. One thing is left: a client may set its end, which is the same open file, back
//!   to blocking and fill the counter, and so hold a worker that interrupts it. The kernel has no way to write to an
//!   eventfd that rules this out.
//! * Memory comes from files that answer by themselves: FUSE and network file systems are refused.
//! * A defect of ours in one session (a panic) ends that session, not the thread.
//!
//! # Not done
//!
//! Windows that the device may only read are not reached, so a guest behind a virtual IOMMU must map its memory as a whole.
//! DMA by messages (DMA_READ, DMA_WRITE): a window without a file is outside of the map. QEMU's client serves such
//! messages under its big lock, and Cloud Hypervisor not at all. Doorbells as eventfds (GET_REGION_IO_FDS answers that
//! there are none): no client asks. The twin socket: no client offers it.

mod dirty;
mod dma;
mod endpoint;
mod error;
mod fields;
mod interrupts;
mod listen;
mod memory_file;
mod message;
mod migration;
mod msix_table;
mod reactor;
mod regions;
mod session;
mod socket;
mod status;
mod version;

pub use endpoint::Endpoint;
pub use error::{Error, Refusal};
pub use listen::EndpointError;
pub use message::{
    Command, DmaMap, Feature, FeatureAction, HEADER_LEN, Header, IrqAction, IrqData, MAX_DATA, MAX_FDS,
    MAX_PAYLOAD, Message, RegionWrite, Reply, Request, SetIrqs,
};
pub use reactor::{Handle, Reactor};
pub use session::{Session, Settings};
pub use status::{Status, Traps};
