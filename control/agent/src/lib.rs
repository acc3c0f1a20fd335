//! Makes the running daemon equal to the desired state.
//!
//! # Role
//!
//! The agent owns everything that runs: the switch with its workers, the control thread of the vhost-user connections,
//! the open TAP devices and files. It takes a whole desired state ([`Agent::apply`]), finds what differs from the one
//! that runs, and changes just that: all of it, or nothing. To the API it is the [`Backend`](fabnic_api::Backend).
//!
//! ```text
//!   desired state ── diff ──► what goes, changes, comes
//!                               │
//!        prepare everything that can fail:  open devices and files, bind sockets, write the new state beside the old
//!                               │                                              │
//!                               ▼ all succeeded                                ▼ one failed
//!        publish: one new topology to the workers, static                undo: what was prepared goes,
//!        FDB entries, the state file renamed                             what was taken away comes back
//! ```
//!
//! # Life cycle of a port
//!
//! A port is made when it is configured, and gets a number that is never used again while the daemon lives. It keeps
//! its counters and addresses while VMs come and go, and while its VLANs, MTU or state change. It goes when it is
//! configured away, or re-created when what its peer was promised changes (its socket, its queues): first the workers
//! let go of it, then its peer is sent away, then what its counters counted is added to the totals of ports that are
//! gone, so that nothing is ever missing from the sum.
//!
//! # Invariants
//!
//! * One change at a time; whoever reads sees the state before or after it, never between.
//! * The running configuration, the switch's topology and the state file say the same whenever no change is under way.
//! * Workers are never waited for while they could wait for us: the agent holds no queue's lock when it publishes.

mod agent;
mod announce;
mod attachment;
mod backend;
mod bindings;
mod capture;
mod card;
mod connections;
mod doors;
mod journal;
mod log;
mod mdb;
mod meters;
mod packet;
mod pci_card;
mod policy;
mod reactors;
mod replace;
mod rules;
mod saved;
mod settings;
mod state;
mod stats;
mod trace;
mod upkeep;

pub use agent::{Agent, AgentOptions, SetLog};
pub use log::LogLimit;
pub use saved::boot_id;
pub use state::{Found, Prepared, StateFile};

/// CPUs that this process may run on, ascending.
#[must_use]
pub fn usable_cpus() -> Vec<u32> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .filter_map(|cpu| u32::try_from(cpu).ok())
            .collect(),
        // Without an answer nothing is refused here; pinning says what is wrong.
        Err(_) => (0..1024).collect(),
    }
}
