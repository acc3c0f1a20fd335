//! Where a packed ring goes on.
//!
//! A front end says it with the base, and after a regular stop that is true. After the death of a back end it may be
//! stale: QEMU has nothing in shared memory to read it from. So the base is held against the ring, and if the two
//! contradict each other, the ring tells:
//!
//! ```text
//!   AVAIL    1 1 1 1 1 1 1 1 1 1 0 0 0 0 0        boundary: where the bit changes, the driver writes next
//!   USED     1 1 1 1 0 0 0 0 0 0 0 0 0 0 0
//!                    ^used       ^boundary
//! ```

use super::{AVAIL, Areas, Position};
use crate::error::RingError;
use crate::{RingConfig, chain::NEXT};

/// Where a new ring starts.
pub(super) const FIRST: Position = Position { index: 0, wrap: true };

/// The position to take and use from; the two are the same, as nothing is in flight.
pub(super) fn find(areas: &Areas, config: &RingConfig) -> Result<Position, RingError> {
    let (size, base) = (config.size, config.base);
    let next = Position::from_bits((base & 0xffff) as u16);
    if next.index >= size {
        return Err(RingError::Base { base, position: next.index, size });
    }
    let boundary = boundary(areas, size);
    // Chains that were in flight when a back end died are taken again, if the front end knows of them.
    let used = Position::from_bits((base >> 16) as u16);
    if used.index < size
        && next.distance(used, size) < u32::from(size)
        && next != used
        && agrees(areas, used, boundary, size)
    {
        return Ok(used);
    }
    if agrees(areas, next, boundary, size) {
        return Ok(next);
    }
    Ok(behind_last_used(areas, boundary, config))
}

/// Where the driver writes next.
fn boundary(areas: &Areas, size: u16) -> Position {
    let bit = |index| areas.load(index).fourth() & AVAIL != 0;
    let lap = bit(0);
    match (1..size).find(|index| bit(*index) != lap) {
        Some(index) => Position { index, wrap: lap },
        None => Position { index: 0, wrap: !lap },
    }
}

/// Whether all between a position and the boundary is available, as it is if the position is right.
fn agrees(areas: &Areas, position: Position, boundary: Position, size: u16) -> bool {
    let count = boundary.distance(position, size);
    count <= u32::from(size) && (0..count as u16).all(|by| areas.is_available(position.forward(by, size)))
}

/// The position behind the last used entry. Behind it, descriptors of the same chain may lie that were left as the driver
/// wrote them; which ones is known of a batch that was used in order, since its last one has the id that was given back.
fn behind_last_used(areas: &Areas, boundary: Position, config: &RingConfig) -> Position {
    let size = config.size;
    let count = (1..=size).take_while(|by| areas.is_available(boundary.back(*by, size))).count() as u16;
    let used = boundary.back(count, size);
    if !config.in_order || count == size {
        return used;
    }
    let entry = areas.load(used.back(1, size).index);
    let is_end = |by: &u16| {
        let last = areas.load(used.forward(*by, size).index);
        last.fourth() & NEXT == 0 && last.third() == entry.third()
    };
    match (0..count).find(is_end) {
        Some(by) => used.forward(by + 1, size),
        None => used,
    }
}
