//! Guest memory: maps it from file descriptors and gives the rest of the house *safe* ways to reach it.
//!
//! # Role
//!
//! A VM's RAM reaches us as file descriptors with a table that says which guest addresses they hold. This crate maps
//! them, translates addresses, and offers four ways to touch the bytes, all safe to call:
//!
//! ```text
//!                      Map  (regions of one guest at one moment, immutable, shared by Arc)
//!                       |
//!      +----------------+-----------------+--------------------+
//!      |                |                 |                    |
//!   Table<T>          Slice            read / write         copy, copy_sum
//!   ring indexes,     a checked run    private bytes        guest to guest, one pass,
//!   descriptors       of guest bytes   <-> guest bytes      with or without checksum
//! ```
//!
//! Everything unsafe of the data path lives here. The crates above it hold none.
//!
//! # Life cycle
//!
//! 1. [`Map::new`] maps the regions of a memory table. [`Map::with_region`] and [`Map::without_region`] make the next
//!    map from this one, sharing what stays.
//! 2. Rings are set up once with [`Map::table`]: bounds and alignment are checked there, not per access.
//! 3. Per buffer, [`Map::translate`] gives a [`Slice`]; slices are `Copy`, carry the identity of their map, and are
//!    useless with any other map.
//! 4. A map is unmapped when its last `Arc` goes. Queues hold one, and a burst in flight holds one, so a table can be
//!    swapped while traffic runs.
//!
//! # Invariants
//!
//! * A `Slice` was inside a region of the map whose id it carries, and ids are never used twice. A map never changes and
//!   unmaps nothing while it lives. So `map.id == slice.map` makes the pointer valid.
//! * Guest bytes change at any moment. Nothing here hands out a Rust reference to them; they are copied in and out, and
//!   words of rings are accessed as atomics.
//! * A file that is truncated while it is mapped raises SIGBUS in the thread that touches it. [`fault`] replaces the
//!   lost region by zero pages and raises the map's flag ([`Map::faulted`]), so that only the port which uses it ends.
#![allow(unsafe_code)] // This is the crate that exists to hold it; see layers.toml.

pub mod clock;
mod dirty;
pub mod fault;
mod io;
mod kernel;
mod map;
mod slice;
mod table;
mod zeroed;

pub use dirty::{DirtyCache, DirtyLog};
pub use map::{AddressSpace, Hint, MAX_REGIONS, Map, MapError, RegionSpec, Window};
pub use slice::{Cursor, MAX_SLICE, Reach, Slice, copy, copy_sum};
pub use table::{Plain, Table};
pub use zeroed::Zeroed;

/// Hints that `value` will be read soon. For tables of our own; guest bytes have [`Map::prefetch`].
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    kernel::prefetch_read(core::ptr::from_ref(value).cast());
}
