//! Device side of split and packed virtqueues, in bursts.
//!
//! # Role
//!
//! A virtqueue is memory that a driver in a VM and a device share: the driver offers chains of buffers, the device uses
//! them and says so (virtio 1.x, section 2.6). This crate is the device's side, for whole bursts:
//!
//! ```text
//!   avail  --take-->  [Chain]  + their buffers as slices of guest memory
//!                        |
//!                     the device reads or writes the buffers
//!                        |
//!   used  <--publish-- [Chain]        one release store, one decision whether to interrupt
//!         <-give_back- the rest       as if never taken
//! ```
//!
//! Two layouts exist, [`SplitRing`] (section 2.7) and [`PackedRing`] (section 2.8). Both implement [`Ring`], over which a
//! device is generic, so that its loops are compiled once for each layout.
//!
//! # Life cycle
//!
//! 1. [`Ring::open`] checks size and addresses once, and starts from the base that the front end gave.
//! 2. Bursts: [`Ring::take`], then [`Ring::publish`] for what was used and [`Ring::give_back`] for what was not. Between
//!    two bursts nothing is in flight, so that [`Ring::position`] says all that another back end needs to go on.
//! 3. Before sleeping, [`Ring::arm`]; when polled again, [`Ring::disarm`].
//! 4. [`Ring::rebind`] moves the ring to another map of the same guest.
//!
//! # Invariants
//!
//! * Chains are used in the order in which they were taken. So the ring's state is two positions, and IN_ORDER costs
//!   nothing.
//! * Nothing that the driver writes is read twice for one purpose: an index, a head or a descriptor is loaded once, and
//!   the private copy decides.
//! * Whatever the driver writes: a call ends after at most as many steps as the ring is long times [`MAX_CHAIN`],
//!   allocates nothing beyond the caller's vectors, and gives an error ([`RingError`]) instead of a wrong chain.
//! * Used entries become visible together: split by the store of the used index, packed by the first one's flags.

mod chain;
#[cfg(any(test, feature = "driver"))]
pub mod driver;
mod error;
mod journal;
mod log;
mod packed;
mod split;

pub use chain::{Chain, MAX_CHAIN};
pub use error::{Place, RingError};
pub use journal::Journal;
pub use packed::PackedRing;
pub use split::SplitRing;

use std::sync::Arc;

use fabnic_memory::{DirtyLog, Map, Slice};

/// What a front end says of one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Number of entries: a power of two for split rings (section 2.7), anything for packed ones (section 2.8); at most
    /// 32768 for both.
    pub size: u16,
    /// RING_PACKED was negotiated.
    pub packed: bool,
    /// The descriptor area, an address in the front end's own address space, as those below.
    pub desc: u64,
    /// The driver area: the available ring, or the driver's event suppression.
    pub driver: u64,
    /// The device area: the used ring, or the device's event suppression.
    pub device: u64,
    /// EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// IN_ORDER was negotiated.
    pub in_order: bool,
    /// Where to go on, as in vhost-user's SET_VRING_BASE. Split: the next available index in the low 16 bits. Packed:
    /// bits 0 to 14 the next available position, 15 its wrap counter, 16 to 30 the next used position, 31 its wrap
    /// counter.
    pub base: u32,
}

/// The device's side of one virtqueue.
pub trait Ring: Sized + Send + 'static {
    /// Checks the configuration and reads where the ring stands.
    ///
    /// # Errors
    /// A size that the layout does not allow, areas that are not in memory or not aligned, or a position that is not in
    /// the ring.
    fn open(map: &Arc<Map>, config: &RingConfig) -> Result<Self, RingError>;

    /// How many entries wait, by one look; 0 means none. A chain of a packed ring counts once for each descriptor, and
    /// what is said of a packed ring may be less than what waits, but is not 0 then.
    fn backlog(&mut self) -> usize;

    /// Takes up to `max` chains: appends them to `chains` and their buffers, those that the device may write if
    /// `WRITABLE`, else those that it may read, to `slices`. Stops early when either vector has no room for another
    /// longest chain, so that neither grows. Hints that the buffers will be used soon. Gives the number taken.
    ///
    /// # Errors
    /// The driver broke the rules: nothing was taken and the ring must not be used any more.
    fn take<const WRITABLE: bool>(
        &mut self,
        max: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) -> Result<usize, RingError>;

    /// As [`Ring::take`], for the burst after the one in work: takes only chains of one buffer each, and only what is known
    /// to be there without a look at what the driver may be writing just now. Stops quietly before anything else, which
    /// [`Ring::take`] meets again. Neither vector grows: both need room for `max`.
    fn take_ahead<const WRITABLE: bool>(
        &mut self,
        max: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    );

    /// Gives the last chains that were taken back to be taken again.
    fn give_back(&mut self, chains: &[Chain]);

    /// Says that these chains, the first that are still in flight, are used, with [`Chain::len`] as the number of bytes
    /// written if `WRITABLE` (0 is said otherwise). Gives whether the driver wants an interrupt.
    fn publish<const WRITABLE: bool>(&mut self, chains: &[Chain]) -> bool;

    /// Asks for kicks; `true` if something waits already.
    fn arm(&mut self) -> bool;

    /// Asks for no kicks.
    fn disarm(&mut self);

    /// Where another back end has to go on, in the form of [`RingConfig::base`]. Complete when nothing is in flight.
    fn position(&self) -> u32;

    /// Whether the driver has ever made a buffer available.
    fn in_use(&mut self) -> bool;

    /// Goes on with the same ring in another map of the guest's memory.
    ///
    /// # Errors
    /// The areas are not in that map: the ring stays with the old one.
    fn rebind(&mut self, map: &Arc<Map>) -> Result<(), RingError>;

    /// Begins or ends to log what is written to guest memory. `used` is the guest-physical address at which writes to
    /// the used ring are logged; they are not if it is absent.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>, used: Option<u64>);

    /// Notes from now on where the ring stands, where a successor finds it. Nothing is noted of a split ring, whose used
    /// index tells.
    fn set_journal(&mut self, journal: Option<Journal>) {
        drop(journal);
    }

    /// Whether writes are logged.
    fn is_logging(&self) -> bool;

    /// Notes that the first `len` bytes of a buffer were written. Nothing happens while nothing is logged.
    fn log_written(&mut self, map: &Map, slice: &Slice, len: u32);
}

/// The event index test of section 2.7.10.1: whether going from `old` to `new` passes `event`. All modulo 65536.
#[inline(always)]
pub(crate) const fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
