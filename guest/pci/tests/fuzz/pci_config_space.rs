//! Any accesses to the configuration space of two functions.
//!
//! The input is a list of records: offset (two bytes), length (one byte, modulo 9) and that many bytes to write.
//!
//! What must hold, whatever is written: no panic; identity, class, pin, capability chain and what is behind the BARs'
//! sizes never change; what effects say agrees with what the registers say.

#[path = "../devices/mod.rs"]
pub(crate) mod devices;

use fabnic_pci::{ConfigSpace, Effects, PowerState};

/// Bytes that nobody may change: header without command, BARs and interrupt line; heads of capabilities.
fn fixed(space: &ConfigSpace) -> Vec<u8> {
    let bytes = space.bytes();
    let mut fixed = Vec::new();
    for range in [0..4, 8..12, 14..16, 0x28..0x3c, 0x3d..0x40, 0x40..0x44, 0x70..0x72, 0x74..0x7c, 0xa0..0xa8]
    {
        fixed.extend_from_slice(&bytes[range]);
    }
    if bytes.len() > 256 {
        fixed.extend_from_slice(&bytes[0x100..0x104]);
        fixed.extend_from_slice(&bytes[0x140..0x1000]);
    }
    fixed
}

fn state(space: &ConfigSpace) -> (bool, bool, bool, bool, PowerState) {
    (
        space.may_master(),
        space.intx_disabled(),
        space.msix_enabled(),
        space.msix_masked(),
        space.power_state(),
    )
}

/// Accesses until the input ends; gives how many there were.
pub(crate) fn run(data: &[u8]) -> usize {
    let mut count = 0;
    for description in [devices::avf(), devices::e1000()] {
        let mut space = ConfigSpace::new(&description).expect("a sound description");
        let before = fixed(&space);
        let mut input = data;
        while let [low, high, len, rest @ ..] = input {
            let offset = u64::from(u16::from_le_bytes([*low, *high])) % 0x1100;
            let (written, rest) = rest.split_at(usize::from(len % 9).min(rest.len()));
            input = rest;
            let was = state(&space);
            let effects = space.write(offset, written);
            let is = state(&space);
            assert_eq!(effects.contains(Effects::MASTER), was.0 != is.0);
            assert_eq!(effects.contains(Effects::INTX), was.1 != is.1);
            assert_eq!(effects.contains(Effects::MSIX), (was.2, was.3) != (is.2, is.3));
            assert_eq!(effects.contains(Effects::POWER), was.4 != is.4);
            assert_eq!(fixed(&space), before);
            let mut back = [0; 8];
            space.read(offset, &mut back);
            for (bar, kind) in (0_u8..).zip(description.bars) {
                if let Some(address) = space.bar_address(bar) {
                    assert_eq!(address % kind.size(), 0, "BAR {bar} is aligned to its size");
                }
            }
            count += 1;
        }
    }
    count
}
