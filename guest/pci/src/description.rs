//! What a function is, as data: identity, BARs, capabilities.

/// The interrupt pin of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    /// No INTx, as virtual functions have it.
    #[default]
    None,
    /// INTA.
    A,
}

/// A base address register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bar {
    /// Not there; also the upper half of a 64-bit one.
    #[default]
    None,
    /// I/O ports.
    Io {
        /// Bytes; a power of two from 4 to 256.
        size: u32,
    },
    /// Memory below 4 GiB.
    Memory32 {
        /// Bytes; a power of two, at least 16.
        size: u32,
        /// Reads have no side effects that matter to a bridge.
        prefetchable: bool,
    },
    /// Memory anywhere; takes this register and the next.
    Memory64 {
        /// Bytes; a power of two, at least 16.
        size: u64,
        /// Reads have no side effects that matter to a bridge.
        prefetchable: bool,
    },
}

impl Bar {
    /// Bytes, 0 if it is not there.
    pub const fn size(self) -> u64 {
        match self {
            Bar::None => 0,
            Bar::Io { size } | Bar::Memory32 { size, .. } => size as u64,
            Bar::Memory64 { size, .. } => size,
        }
    }
}

/// The MSI-X capability (PCI 3.0, section 6.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// Vectors, 1 to 2048.
    pub vectors: u16,
    /// BAR and offset of the table, 16 bytes a vector.
    pub table: (u8, u32),
    /// BAR and offset of the pending bits.
    pub pending: (u8, u32),
}

/// The PCI Express capability (PCIe 4.0, section 7.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Express {
    /// Function-level reset is offered.
    pub flr: bool,
}

/// A function as its VMM and driver see it before any register is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Vendor and device.
    pub id: (u16, u16),
    /// Subsystem vendor and subsystem.
    pub subsystem: (u16, u16),
    /// Class, subclass and programming interface: `0x020000` is an Ethernet controller.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Legacy interrupt.
    pub pin: Pin,
    /// BARs 0 to 5.
    pub bars: [Bar; 6],
    /// MSI-X, if there is.
    pub msix: Option<Msix>,
    /// PCI Express, if it is such: its configuration space then has 4096 bytes, else 256.
    pub express: Option<Express>,
    /// The power management capability (D0 and D3hot).
    pub power: bool,
    /// Device serial number (PCIe 4.0, section 7.9.3), if it shows one.
    pub serial: Option<u64>,
}
