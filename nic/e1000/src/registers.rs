//! Registers that are only stored: what a driver writes it reads again, and nothing else happens.

use crate::spec::register::{
    AIT, CTRL_EXT, FCAH, FCAL, FCT, FCTTV, FLA, LEDCTL, MANC, PBA, TIPG, TXCW, WUC, WUFC, WUS,
};

use crate::state::{Reader, StateError, Writer};

/// A stored register: its offset, the bits that can be written, its value after reset.
struct Kept {
    offset: u32,
    bits: u32,
    reset: u32,
}

const fn kept(offset: u32, bits: u32, reset: u32) -> Kept {
    Kept { offset, bits, reset }
}

const KEPT: [Kept; 15] = [
    kept(CTRL_EXT, u32::MAX, 0),
    kept(FLA, u32::MAX, 0),
    kept(FCAL, u32::MAX, 0),
    kept(FCAH, 0xffff, 0),
    kept(FCT, 0xffff, 0),
    kept(FCTTV, 0xffff, 0),
    kept(TXCW, 0xc000_ffff, 0),
    kept(TIPG, 0x3fff_ffff, 0),
    kept(AIT, 0xffff, 0),
    kept(LEDCTL, u32::MAX, 0x0706_8302),
    kept(PBA, 0xffff, 0x0010_0030),
    kept(WUC, u32::MAX, 0),
    kept(WUFC, u32::MAX, 0),
    kept(WUS, u32::MAX, 0),
    kept(MANC, u32::MAX, 0),
];

/// Their values.
#[derive(Debug)]
pub(crate) struct StoredRegisters([u32; KEPT.len()]);

impl Default for StoredRegisters {
    fn default() -> StoredRegisters {
        StoredRegisters(KEPT.each_ref().map(|kept| kept.reset))
    }
}

impl StoredRegisters {
    pub(crate) fn save(&self, to: &mut Writer) {
        self.0.iter().for_each(|value| to.u32(*value));
    }

    pub(crate) fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        for (kept, place) in KEPT.iter().zip(&mut self.0) {
            *place = kept.reset & !kept.bits | from.u32()? & kept.bits;
        }
        Ok(())
    }

    /// The register's value; one that does not exist is zero.
    pub(crate) fn read(&self, offset: u32) -> u32 {
        let found = KEPT.iter().zip(&self.0).find(|(kept, _)| kept.offset == offset);
        found.map_or(0, |(_, value)| *value)
    }

    /// Bits that can be written change.
    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        if let Some((kept, place)) = KEPT.iter().zip(&mut self.0).find(|(kept, _)| kept.offset == offset) {
            *place = *place & !kept.bits | value & kept.bits;
        }
    }
}

/// Where a register of the 82542 is here: these parts answer at its offsets too (SDM 13.3).
pub(crate) const fn canonical(offset: u32) -> u32 {
    match offset {
        0x0004 => 0x0000,
        // RA, MTA and VFTA.
        0x0040..=0x00bc => offset + 0x53c0,
        0x0200..=0x03fc => offset + 0x5000,
        0x0600..=0x07fc => offset + 0x5000,
        // RDTR; RDBAL to RDT.
        0x0108 => 0x2820,
        0x0110..=0x0128 => offset + 0x26f0,
        0x0160 | 0x0168 => offset + 0x2000,
        // TDBAL to TDT; TIDV.
        0x0420..=0x0438 => offset + 0x33e0,
        0x0440 => 0x3820,
        _ => offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut stored = StoredRegisters::default();
        assert_eq!(stored.read(PBA), 0x0010_0030);
        stored.write(PBA, 0xffff_0020);
        assert_eq!(stored.read(PBA), 0x0010_0020);
        stored.write(0x5ff0, 1);
        assert_eq!(stored.read(0x5ff0), 0);
    }

    #[test]
    fn old_offsets_name_the_same_registers() {
        let pairs = [
            (0x40, 0x5400),
            (0xbc, 0x547c),
            (0x110, 0x2800),
            (0x128, 0x2818),
            (0x420, 0x3800),
            (0x438, 0x3818),
        ];
        for (old, new) in
            pairs.into_iter().chain([(0x200, 0x5200), (0x3fc, 0x53fc), (0x600, 0x5600), (0xc0, 0xc0)])
        {
            assert_eq!(canonical(old), new, "{old:#x}");
        }
    }
}
