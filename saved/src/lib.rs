//! Saved state: what a switch has learned and what runs in it, as bytes.
//!
//! # Role
//!
//! Desired state says how a switch is to be; this is what came of it: learned addresses, bindings, memberships,
//! connections, tokens of meters, counters. It outlives a restart of the daemon as a file, and follows one port to another
//! host as the answer and the body of a request. The crate knows the format and nothing of the switch: a record is plain
//! numbers, and whoever reads one checks it against what is configured.
//!
//! ```text
//!   file      "FABSAVED"  version u32   section  section  ..  end
//!   section   kind u16    version u16   length u32   payload                    all numbers little-endian
//!   payload   a list of records of one kind, as postcard writes them (https://postcard.jamesmunns.com/wire-format)
//!   end       kind 0xffff, version 1, length 32: SHA-256 of every byte before it
//! ```
//!
//! The first section is the [`Head`], then come the names ([`PortName`], [`TenantName`]) of the numbers that all others
//! speak of. A kind may come in several sections, so that nobody needs all of it in memory at once.
//!
//! # Versions
//!
//! *The file's* version says how sections are framed. A newer one is refused: nothing in it can be trusted to be found. *A
//! section's* version says what its records are made of. A newer one, and a kind that is not known, is skipped and named;
//! all others are good without it. Records are not self-describing: one that gets a field gets a new version, and the old
//! one goes on being read.
//!
//! # Time
//!
//! Records hold ages and what is left of lifetimes, never moments. [`Head::at`] is the [`Moment`] that they are counted
//! from, and [`Moment::passed`] how much of them has gone by since, however clocks jumped.
//!
//! # Invariants
//! * Bytes are hostile. A section is at most [`MAX_SECTION`] bytes, a file [`MAX_FILE`]; no list is allocated before its
//!   bytes are there, and memory is bounded by a small multiple of one section.
//! * [`Reader`] gives no end ([`Item::End`]) before the digest was compared: who must not begin what he cannot finish reads
//!   twice ([`verify`]).

mod moment;
mod name;
mod read;
mod records;
mod write;

pub use moment::{MAX_STOP, Moment};
pub use name::{MAX_NAME, Name, NameTooLong};
pub use read::{Item, Malformed, Reader, Unknown, Verified, verify};
pub use records::{
    Binding, BindingOrigin, Bucket, Connection, FdbEntry, FdbTotals, Freeze, Gone, Head, Kind, Listener,
    Meter, MeterPlace, MirrorCounts, MulticastSide, MulticastVlan, OtherQuerier, PortCounters, PortName,
    Question, QueueCounters, Router, RuleCounts, Scope, Section, Source, Tcp, TcpLast, TcpSide, TenantName,
    Totals, Transaction, TransactionName, Tuple, ZoneCounts,
};
pub use write::{Unwritten, Writer};

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"FABSAVED";
/// How sections are framed, in this build.
pub const VERSION: u32 = 1;
/// The most bytes of a section's payload.
pub const MAX_SECTION: u32 = 1 << 20;
/// The most bytes of a file: some twenty million connections.
pub const MAX_FILE: u64 = 4 << 30;

/// The kind of the last section.
const END: u16 = 0xffff;
/// Bytes of the digest.
const DIGEST: usize = 32;
