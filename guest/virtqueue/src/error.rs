//! What a driver or a front end did wrong.

use fabnic_memory::MapError;

/// A ring that cannot be used, or not any more: what was wrong, where, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// A size that the layout does not allow.
    #[error("ring size {size}: expected {expected}")]
    Size {
        /// The size that was given.
        size: u16,
        /// What is possible.
        expected: &'static str,
    },
    /// An area of the ring is not in memory as it must be.
    #[error("{area}: {source}")]
    Area {
        /// Which one.
        area: &'static str,
        /// Why.
        source: MapError,
    },
    /// A base outside the ring.
    #[error("ring base {base:#x}: position {position} of a ring of {size}")]
    Base {
        /// The base that was given.
        base: u32,
        /// The position in it.
        position: u16,
        /// The ring's size.
        size: u16,
    },
    /// The available index went further than the ring is long.
    #[error("available index {index}: {ahead} ahead of {next}, expected at most {size}")]
    Jump {
        /// The driver's index.
        index: u16,
        /// The index that we were at.
        next: u16,
        /// The difference.
        ahead: u16,
        /// The ring's size.
        size: u16,
    },
    /// A descriptor that does not exist.
    #[error("{place}: descriptor {index}, expected one below {limit}")]
    Index {
        /// Where it was named.
        place: Place,
        /// The descriptor's number.
        index: u16,
        /// How many there are.
        limit: u32,
    },
    /// A chain that is longer than it may be: a loop, or a driver without measure.
    #[error("{place}: the chain has more than {limit} descriptors")]
    TooLong {
        /// Where the chain begins.
        place: Place,
        /// How many it may have.
        limit: usize,
    },
    /// A buffer outside the guest's memory.
    #[error("{place}: {len} bytes at {addr:#x} are not in the guest's memory")]
    Outside {
        /// The descriptor.
        place: Place,
        /// The buffer's guest-physical address.
        addr: u64,
        /// The buffer's length.
        len: u32,
    },
    /// A table of descriptors whose length is impossible.
    #[error("{place}: a table of {len} bytes, expected a multiple of 16 from 16 to {limit}")]
    Table {
        /// The descriptor that refers to the table.
        place: Place,
        /// The table's length in bytes.
        len: u32,
        /// The longest.
        limit: usize,
    },
    /// A table of descriptors where none may be: in a table, or in a chain that goes on.
    #[error("{place}: a table of descriptors, expected a buffer")]
    Nested {
        /// The descriptor.
        place: Place,
    },
}

/// A place in a ring, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An entry of the available ring.
    Available(u16),
    /// A descriptor of the ring.
    Descriptor(u16),
    /// A descriptor of a table.
    Indirect {
        /// The descriptor that refers to the table.
        of: u16,
        /// The place in the table.
        index: u16,
    },
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Place::Available(index) => write!(f, "available entry {index}"),
            Place::Descriptor(index) => write!(f, "descriptor {index}"),
            Place::Indirect { of, index } => write!(f, "indirect descriptor {index} of {of}"),
        }
    }
}
