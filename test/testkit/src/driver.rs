//! The virtio driver: the guest's half of the rings.
//!
//! ```text
//!   NetDriver          frames in and out, queue pairs, mergeable and chained buffers, kicks
//!      |
//!   Ring               chains of buffers in, tokens out; one of
//!      |-- SplitRing   virtio 1.x section 2.7
//!      '-- PackedRing  virtio 1.x section 2.8
//!
//!   LightPort          no driver at all in the usual sense: static rings, re-posted as they are used up
//! ```
//!
//! The rings do what a careful driver does, on shared memory that a device writes at the same time: one release store
//! makes a batch available, the decision to kick is taken behind a full fence, and what the device claims is checked
//! against what was given to it ([`RingError`]): this is the oracle for our own device side.

use fabnic_memory::Table;

use crate::front_end::RingPlace;
use crate::memory::{GuestMemory, MemoryError};

pub mod light;
mod net;
mod packed;
mod split;

pub use net::{NetDriver, NetError, NetLayout, Received};
pub use packed::PackedRing;
pub use split::SplitRing;

/// The descriptor continues in the next one.
pub const DESC_NEXT: u16 = 1;
/// The device writes the buffer.
pub const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes it (else it reads it).
    pub writable: bool,
}

/// A chain that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What [`Ring::add`] was given.
    pub token: u32,
    /// Bytes that the device says it wrote.
    pub len: u32,
}

/// What a device did that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// It used a chain that it was not given, or twice.
    #[error("the device used chain {id}, which it does not have")]
    NotGiven {
        /// The id.
        id: u32,
    },
    /// It used more chains than it was given.
    #[error("the device's used index {used} is {ahead} entries ahead, only {given} were given")]
    TooMany {
        /// Its index.
        used: u16,
        /// How far it went.
        ahead: u16,
        /// How many it had.
        given: u16,
    },
    /// It wrote more than there was room.
    #[error("the device says it wrote {len} bytes to chain {id}, which has room for {room}")]
    TooLong {
        /// The id.
        id: u32,
        /// Its claim.
        len: u32,
        /// The room.
        room: u32,
    },
}

/// How a ring is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Entries.
    pub size: u16,
    /// Packed instead of split.
    pub packed: bool,
    /// Event indexes (EVENT_IDX) instead of flags.
    pub event_idx: bool,
    /// Chains are used in order (IN_ORDER).
    pub in_order: bool,
    /// Chains of more than one buffer go into an indirect table of at most this many entries; 0: never.
    pub indirect: u16,
}

impl Default for RingOptions {
    fn default() -> RingOptions {
        RingOptions { size: 256, packed: false, event_idx: false, in_order: false, indirect: 0 }
    }
}

/// Makes room for a ring and says where it lies. The areas of a split ring lie as Linux lays them: descriptors and
/// available ring together, the used ring on the next page.
pub fn place_ring(memory: &mut GuestMemory, options: &RingOptions) -> Result<RingPlace, MemoryError> {
    let size = u64::from(options.size);
    let descriptors = memory.allocate(16 * size, 4096)?;
    if options.packed {
        let driver = memory.allocate(4, 64)?;
        let device = memory.allocate(4, 64)?;
        return Ok(RingPlace { descriptors, driver, device });
    }
    let driver = memory.allocate(6 + 2 * size, 2)?;
    let device = memory.allocate(6 + 8 * size, 4096)?;
    Ok(RingPlace { descriptors, driver, device })
}

/// Private tables for indirect chains: one for each entry of the ring.
#[derive(Debug)]
struct Indirect {
    base: u64,
    entries: u16,
    table: Table<[u64; 2]>,
}

impl Indirect {
    fn new(memory: &mut GuestMemory, options: &RingOptions) -> Result<Option<Indirect>, MemoryError> {
        if options.indirect == 0 {
            return Ok(None);
        }
        let items = usize::from(options.size) * usize::from(options.indirect);
        let base = memory.allocate(16 * items as u64, 4096)?;
        Ok(Some(Indirect { base, entries: options.indirect, table: memory.table(base, items)? }))
    }

    fn address(&self, slot: u16) -> u64 {
        self.base + 16 * u64::from(slot) * u64::from(self.entries)
    }

    fn index(&self, slot: u16, entry: usize) -> usize {
        usize::from(slot) * usize::from(self.entries) + entry
    }
}

/// Whether going from `old` to `new` passes `event` (virtio 1.x, section 2.7.10).
pub fn passes_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// A ring of either format.
#[derive(Debug)]
pub enum Ring {
    /// Split.
    Split(SplitRing),
    /// Packed.
    Packed(PackedRing),
}

macro_rules! either {
    ($self:ident, $ring:ident => $call:expr) => {
        match $self {
            Ring::Split($ring) => $call,
            Ring::Packed($ring) => $call,
        }
    };
}

impl Ring {
    /// A fresh ring, everything zero.
    pub fn new(memory: &mut GuestMemory, options: RingOptions) -> Result<Ring, MemoryError> {
        let place = place_ring(memory, &options)?;
        Ok(if options.packed {
            Ring::Packed(PackedRing::new(memory, options, place)?)
        } else {
            Ring::Split(SplitRing::new(memory, options, place)?)
        })
    }

    /// Where it lies.
    pub fn place(&self) -> RingPlace {
        either!(self, ring => ring.place())
    }

    /// How it is driven.
    pub fn options(&self) -> &RingOptions {
        either!(self, ring => ring.options())
    }

    /// Descriptors that are free.
    pub fn free(&self) -> u16 {
        either!(self, ring => ring.free())
    }

    /// Chains that the device has, published or not.
    pub fn outstanding(&self) -> u16 {
        either!(self, ring => ring.outstanding())
    }

    /// Adds a chain; the device sees it at the next [`Ring::publish`]. `false` if there is no room.
    pub fn add(&mut self, pieces: &[Piece], token: u32) -> bool {
        either!(self, ring => ring.add(pieces, token))
    }

    /// Shows the device all that was added. Says whether it wants to be kicked.
    pub fn publish(&mut self) -> bool {
        either!(self, ring => ring.publish())
    }

    /// Whether the device wants a kick for what was published since the last one. Cheap, without a fence: for drivers
    /// that poll anyway and ask again soon. Counts as kicked when it says yes.
    pub fn wants_kick(&mut self) -> bool {
        either!(self, ring => ring.wants_kick())
    }

    /// The next chain that the device is done with.
    pub fn next_used(&mut self) -> Result<Option<Used>, RingError> {
        either!(self, ring => ring.next_used())
    }

    /// Asks the device not to call.
    pub fn disable_calls(&mut self) {
        either!(self, ring => ring.disable_calls());
    }

    /// Asks the device to call at the next used chain. `true` if one is there already, so that waiting would be wrong.
    pub fn enable_calls(&mut self) -> bool {
        either!(self, ring => ring.enable_calls())
    }

    /// The base that a back end must be given to go on with this ring as it is, if it has used all it was given.
    pub fn base(&self) -> u32 {
        either!(self, ring => ring.base())
    }
}

#[cfg(test)]
pub(crate) mod tests;
