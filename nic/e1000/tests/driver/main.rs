//! The model and its queues, driven by the driver of `fabnic-testkit` over register accesses and guest memory.
#![allow(clippy::unwrap_used, reason = "helpers fail as the tests do that use them")]

mod allocations;
mod conformance;
mod guest;
mod hostile;
mod migrate;
mod offloads;
mod probe;
mod stream;
mod threads;
mod traffic;
