//! BAR0 of a virtual function (IDPF, "Register Definitions"; `iavf_register.h`).
//!
//! All registers are 32 bits wide and accessed as such. Names are those of the datasheet without `VF` prefixes.

/// Bytes of BAR0: as an E810's virtual function has it.
pub const BAR0_SIZE: u64 = 0x2_0000;
/// Bytes of BAR3, which holds the MSI-X table at 0 and the pending bits at [`MSIX_PENDING`].
pub const BAR3_SIZE: u64 = 0x4000;
/// Where in BAR3 the pending bits are.
pub const MSIX_PENDING: u32 = 0x2000;
/// MSI-X vectors: one for the mailbox, 16 for queues.
pub const VECTORS: u16 = 17;

/// QTX_TAIL\[q\]: 4 bytes a queue. Index of the first descriptor that the device does not own.
pub const QTX_TAIL: u64 = 0x0000;
/// QRX_TAIL\[q\].
pub const QRX_TAIL: u64 = 0x2000;
/// Tail registers of each kind.
pub const TAILS: u64 = 256;
/// ITRN\[i\]\[v\]: 0x40 bytes an index (0 to 2), 4 a vector (0 is vector 1). Interval in units of 2 microseconds.
pub const ITRN: u64 = 0x2800;
/// DYN_CTLN\[v\]: 4 bytes a vector, from vector 1 on.
pub const DYN_CTLN: u64 = 0x3800;
/// ICR01: causes of vector 0, cleared by reading.
pub const ICR01: u64 = 0x4800;
/// ITR01\[i\]: intervals of vector 0.
pub const ITR01: u64 = 0x4c00;
/// ICR0_ENA1: which causes interrupt on vector 0.
pub const ICR0_ENA1: u64 = 0x5000;
/// DYN_CTL01: control of vector 0.
pub const DYN_CTL01: u64 = 0x5c00;
/// ARQBAH, upper half of the base of the ring that the device sends messages on.
pub const ARQBAH: u64 = 0x6000;
/// ATQH: head of the ring that the driver sends messages on.
pub const ATQH: u64 = 0x6400;
/// ATQLEN.
pub const ATQLEN: u64 = 0x6800;
/// ARQBAL.
pub const ARQBAL: u64 = 0x6c00;
/// ARQT.
pub const ARQT: u64 = 0x7000;
/// ARQH.
pub const ARQH: u64 = 0x7400;
/// ATQBAH.
pub const ATQBAH: u64 = 0x7800;
/// ATQBAL.
pub const ATQBAL: u64 = 0x7c00;
/// ARQLEN.
pub const ARQLEN: u64 = 0x8000;
/// ATQT: the mailbox's doorbell.
pub const ATQT: u64 = 0x8400;
/// VFGEN_RSTAT: where a reset is.
pub const RSTAT: u64 = 0x8800;
/// VFQF_HENA\[2\].
pub const HENA: u64 = 0xc400;
/// VFQF_HKEY\[13\].
pub const HKEY: u64 = 0xcc00;
/// VFQF_HLUT\[16\].
pub const HLUT: u64 = 0xd000;

/// Bits of ATQLEN and ARQLEN.
pub mod len {
    /// Number of descriptors.
    pub const COUNT: u32 = 0x3ff;
    /// Overflow.
    pub const OVERFLOW: u32 = 1 << 29;
    /// The ring cannot be used: its memory is not there.
    pub const CRITICAL: u32 = 1 << 30;
    /// The ring is enabled.
    pub const ENABLE: u32 = 1 << 31;
}

/// Bits of DYN_CTL01 and DYN_CTLN (IDPF, "Interrupt Enable Procedure").
pub mod dyn_ctl {
    /// Interrupts are enabled. Cleared by the device when it sends one.
    pub const INTENA: u32 = 1;
    /// Clear the pending bit.
    pub const CLEARPBA: u32 = 1 << 1;
    /// Trigger an interrupt.
    pub const SWINT_TRIG: u32 = 1 << 2;
    /// Which ITR the interval goes to; 3 leaves them alone.
    pub const ITR_INDX_SHIFT: u32 = 3;
    /// No ITR.
    pub const ITR_NONE: u32 = 3;
    /// Interval in units of 2 microseconds, 12 bits.
    pub const INTERVAL_SHIFT: u32 = 5;
    /// The software interrupt has an ITR index of its own.
    pub const SW_ITR_INDX_ENA: u32 = 1 << 24;
    /// Write back without interrupting.
    pub const WB_ON_ITR: u32 = 1 << 30;
    /// Ignore INTENA in this write.
    pub const INTENA_MSK: u32 = 1 << 31;

    /// What a write says of the ITR: index and interval.
    pub const fn itr(value: u32) -> (u32, u16) {
        ((value >> ITR_INDX_SHIFT) & 3, ((value >> INTERVAL_SHIFT) & 0xfff) as u16)
    }
}

/// Bits of ICR01 and ICR0_ENA1.
pub mod icr {
    /// A queue that is mapped to vector 0 has a cause.
    pub const QUEUE_0: u32 = 1 << 1;
    /// The link changed.
    pub const LINK: u32 = 1 << 25;
    /// The mailbox has a message.
    pub const ADMINQ: u32 = 1 << 30;
}

/// Values of VFGEN_RSTAT.
pub mod rstat {
    /// A reset is going on.
    pub const IN_PROGRESS: u32 = 0;
    /// It is over.
    pub const COMPLETED: u32 = 1;
    /// The function is ready to use.
    pub const ACTIVE: u32 = 2;
    /// The bits that say it.
    pub const MASK: u32 = 3;
}
