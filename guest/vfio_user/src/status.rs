//! What a session looks like from outside, for people to read.

use fabnic_pci::SoftwareInterrupts;

/// Accesses to BARs that came as messages: each is an exit of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traps {
    /// Reads; the guest waits for them.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl Traps {
    /// These and those.
    #[must_use]
    pub(crate) fn plus(self, other: Traps) -> Traps {
        Traps {
            reads: self.reads.saturating_add(other.reads),
            writes: self.writes.saturating_add(other.writes),
        }
    }
}

/// A vfio-user end point as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a client is connected.
    pub connected: bool,
    /// Its process, where the kernel says so.
    pub peer_pid: Option<i32>,
    /// Whether the driver lets the function access memory.
    pub bus_master: bool,
    /// Whether the driver put it to sleep (D3hot).
    pub asleep: bool,
    /// DMA windows.
    pub windows: usize,
    /// Those of them that hold memory which the function reaches.
    pub memory_windows: usize,
    /// Bytes in them.
    pub memory_bytes: u64,
    /// MSI-X vectors, and those that the guest has unmasked.
    pub vectors: (u16, usize),
    /// Whether pages of a BAR are offered to be mapped.
    pub shared: bool,
    /// Whether writes are logged for a migration.
    pub logging: bool,
    /// Accesses of the function outside of the windows, since the port was made.
    pub faults: u64,
    /// Reads and writes of registers that the guest was trapped for, since the port was made.
    pub traps: Traps,
    /// Interrupts that drivers asked for, and lost ones among them.
    pub software_interrupts: SoftwareInterrupts,
    /// Requests that were refused in this session.
    pub refused: u64,
    /// The last one of them.
    pub last_refusal: Option<String>,
    /// How many sessions there have been.
    pub sessions: u64,
    /// Clients that were turned away because one was there.
    pub turned_away: u64,
    /// Why the last session ended, or why none could begin.
    pub last_reason: Option<String>,
}
