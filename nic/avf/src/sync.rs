//! Atomics, by a name that `tests/interleavings.rs` can give to loom's.

pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
