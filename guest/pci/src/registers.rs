//! Where registers lie: the standard header (PCI 3.0, section 6.1) and the capabilities that [`crate::ConfigSpace`]
//! builds. Names as in the specification, offsets in bytes.

/// Size of a conventional configuration space.
pub const CONVENTIONAL: usize = 256;
/// Size of a PCI Express configuration space.
pub const EXTENDED: usize = 4096;

pub(crate) const VENDOR: u16 = 0x00;
pub(crate) const DEVICE: u16 = 0x02;
/// Command register (PCI 3.0, section 6.2.2).
pub const COMMAND: u16 = 0x04;
/// Status register (PCI 3.0, section 6.2.3).
pub const STATUS: u16 = 0x06;
pub(crate) const REVISION: u16 = 0x08;
pub(crate) const CLASS: u16 = 0x09;
pub(crate) const CACHE_LINE: u16 = 0x0c;
pub(crate) const LATENCY: u16 = 0x0d;
/// The first base address register; five more follow, 4 bytes each.
pub const BAR0: u16 = 0x10;
pub(crate) const SUBSYSTEM_VENDOR: u16 = 0x2c;
pub(crate) const SUBSYSTEM: u16 = 0x2e;
pub(crate) const CAPABILITIES: u16 = 0x34;
pub(crate) const INTERRUPT_LINE: u16 = 0x3c;
pub(crate) const INTERRUPT_PIN: u16 = 0x3d;

/// Bits of the command register.
pub mod command {
    /// Answers to I/O accesses.
    pub const IO: u16 = 1 << 0;
    /// Answers to memory accesses.
    pub const MEMORY: u16 = 1 << 1;
    /// May access memory itself.
    pub const MASTER: u16 = 1 << 2;
    /// Parity errors are signalled.
    pub const PARITY: u16 = 1 << 6;
    /// SERR# may be asserted.
    pub const SERR: u16 = 1 << 8;
    /// INTx is not asserted.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register.
pub(crate) mod status {
    /// INTx would be asserted if it were not disabled.
    pub(crate) const INTERRUPT: u16 = 1 << 3;
    pub(crate) const CAPABILITIES: u16 = 1 << 4;
    /// Errors that were seen; each is cleared by writing 1.
    pub(crate) const ERRORS: u16 = 0xf900;
}

/// Power management (PCI PM 1.2, section 3.2), 8 bytes.
pub(crate) mod power {
    pub(crate) const ID: u8 = 0x01;
    pub(crate) const AT: u16 = 0x40;
    pub(crate) const CAPABILITIES: u16 = 2;
    pub(crate) const CONTROL: u16 = 4;
    /// Version 1.2, no D1, no D2, no PME.
    pub(crate) const VERSION: u16 = 3;
    pub(crate) const STATE: u16 = 3;
    pub(crate) const D3HOT: u16 = 3;
}

/// MSI-X (PCI 3.0, section 6.8.2), 12 bytes.
pub(crate) mod msix {
    pub(crate) const ID: u8 = 0x11;
    pub(crate) const AT: u16 = 0x70;
    pub(crate) const CONTROL: u16 = 2;
    pub(crate) const TABLE: u16 = 4;
    pub(crate) const PENDING: u16 = 8;
    pub(crate) const MASKED: u16 = 1 << 14;
    pub(crate) const ENABLED: u16 = 1 << 15;
    /// Bytes of an entry of the table: address, data, vector control.
    pub(crate) const ENTRY: u64 = 16;
}

/// PCI Express (PCIe 4.0, section 7.5.3), 60 bytes.
pub(crate) mod express {
    pub(crate) const ID: u8 = 0x10;
    pub(crate) const AT: u16 = 0xa0;
    pub(crate) const FLAGS: u16 = 0x02;
    pub(crate) const DEVICE_CAPABILITIES: u16 = 0x04;
    pub(crate) const DEVICE_CONTROL: u16 = 0x08;
    pub(crate) const DEVICE_STATUS: u16 = 0x0a;
    pub(crate) const LINK_CAPABILITIES: u16 = 0x0c;
    pub(crate) const LINK_CONTROL: u16 = 0x10;
    pub(crate) const LINK_STATUS: u16 = 0x12;
    pub(crate) const DEVICE_CAPABILITIES_2: u16 = 0x24;
    pub(crate) const DEVICE_CONTROL_2: u16 = 0x28;
    pub(crate) const LINK_CAPABILITIES_2: u16 = 0x2c;
    pub(crate) const LINK_CONTROL_2: u16 = 0x30;
    /// Function-level reset is offered.
    pub(crate) const FLR_OFFERED: u32 = 1 << 28;
    /// Written as 1 it resets the function; always reads as 0.
    pub(crate) const FLR: u16 = 1 << 15;
}

/// Advanced error reporting (PCIe 4.0, section 7.8.4), extended, 44 bytes without the root's registers.
pub(crate) mod aer {
    pub(crate) const ID: u16 = 0x0001;
    pub(crate) const AT: u16 = 0x100;
    pub(crate) const UNCORRECTABLE_STATUS: u16 = 0x04;
    pub(crate) const UNCORRECTABLE_MASK: u16 = 0x08;
    pub(crate) const UNCORRECTABLE_SEVERITY: u16 = 0x0c;
    pub(crate) const CORRECTABLE_STATUS: u16 = 0x10;
    pub(crate) const CORRECTABLE_MASK: u16 = 0x14;
    /// Uncorrectable errors that exist: those of table 7-84 up to "unsupported request".
    pub(crate) const UNCORRECTABLE: u32 = 0x001f_f030;
    /// Those that are fatal after a reset: link, flow control, overflow and malformed packets.
    pub(crate) const FATAL: u32 = 0x0006_2030;
    pub(crate) const CORRECTABLE: u32 = 0x0000_31c1;
    /// Advisory non-fatal errors are masked after a reset.
    pub(crate) const ADVISORY: u32 = 0x0000_2000;
}

/// Device serial number (PCIe 4.0, section 7.9.3), extended, 12 bytes.
pub(crate) mod serial {
    pub(crate) const ID: u16 = 0x0003;
    pub(crate) const AT: u16 = 0x140;
}
