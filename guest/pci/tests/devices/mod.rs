//! Descriptions like those of the cards that are fabricated.

use fabnic_pci::{Bar, Description, Express, Msix, Pin};

/// A virtual function with registers in BAR 0 and MSI-X alone in BAR 3.
pub(crate) fn avf() -> Description {
    Description {
        id: (0x8086, 0x1889),
        subsystem: (0x8086, 0x0000),
        class: 0x02_0000,
        revision: 2,
        pin: Pin::None,
        bars: [
            Bar::Memory64 { size: 128 << 10, prefetchable: true },
            Bar::None,
            Bar::None,
            Bar::Memory64 { size: 16 << 10, prefetchable: true },
            Bar::None,
            Bar::None,
        ],
        msix: Some(Msix { vectors: 17, table: (3, 0), pending: (3, 0x2000) }),
        express: Some(Express { flr: true }),
        power: true,
        serial: Some(0x5254_00ff_ff00_0001),
    }
}

/// A conventional card: memory, I/O ports, INTA and no capability.
pub(crate) fn e1000() -> Description {
    Description {
        id: (0x8086, 0x100e),
        subsystem: (0x8086, 0x001e),
        class: 0x02_0000,
        revision: 3,
        pin: Pin::A,
        bars: [
            Bar::Memory32 { size: 128 << 10, prefetchable: false },
            Bar::Io { size: 64 },
            Bar::None,
            Bar::None,
            Bar::None,
            Bar::None,
        ],
        msix: None,
        express: None,
        power: false,
        serial: None,
    }
}
