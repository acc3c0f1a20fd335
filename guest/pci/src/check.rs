//! Whether a description can be a function at all.

use crate::registers::msix;
use crate::{Bar, Description};

/// Why a description cannot be a function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// A BAR of a size that the register cannot say.
    #[error("BAR {bar} has {size} bytes, expected a power of two, {expected}")]
    BarSize {
        /// Which BAR.
        bar: u8,
        /// Its size.
        size: u64,
        /// What is possible.
        expected: &'static str,
    },
    /// A 64-bit BAR whose upper half is not free.
    #[error("BAR {bar} is 64 bits wide, expected BAR {bar}+1 to exist and to be free")]
    BarWidth {
        /// Which BAR.
        bar: u8,
    },
    /// More or less vectors than the register can say.
    #[error("{vectors} MSI-X vectors, expected 1 to 2048")]
    Vectors {
        /// How many.
        vectors: u16,
    },
    /// The MSI-X table or its pending bits are not inside a memory BAR.
    #[error("MSI-X {what} at {offset:#x} of BAR {bar}, expected {bytes} bytes of a memory BAR, aligned to 8")]
    MsixPlace {
        /// `table` or `pending bits`.
        what: &'static str,
        /// The BAR.
        bar: u8,
        /// The offset in it.
        offset: u32,
        /// Bytes that it needs.
        bytes: u64,
    },
}

impl Description {
    /// Whether this can be a function.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> Result<(), DescriptionError> {
        for (index, bar) in (0_u8..).zip(self.bars) {
            let (least, most, expected) = match bar {
                Bar::None => continue,
                Bar::Io { .. } => (4, 256, "4 to 256"),
                Bar::Memory32 { .. } => (16, 1 << 31, "16 to 2^31"),
                Bar::Memory64 { .. } => (16, 1 << 63, "16 to 2^63"),
            };
            let size = bar.size();
            if !size.is_power_of_two() || !(least..=most).contains(&size) {
                return Err(DescriptionError::BarSize { bar: index, size, expected });
            }
            if matches!(bar, Bar::Memory64 { .. })
                && self.bars.get(usize::from(index) + 1) != Some(&Bar::None)
            {
                return Err(DescriptionError::BarWidth { bar: index });
            }
        }
        let Some(table) = self.msix else { return Ok(()) };
        let vectors = table.vectors;
        if !(1..=2048).contains(&vectors) {
            return Err(DescriptionError::Vectors { vectors });
        }
        let bytes = u64::from(vectors) * msix::ENTRY;
        let pending = u64::from(vectors).div_ceil(64) * 8;
        self.check_place("table", table.table, bytes)?;
        self.check_place("pending bits", table.pending, pending)
    }

    fn check_place(
        &self,
        what: &'static str,
        (bar, offset): (u8, u32),
        bytes: u64,
    ) -> Result<(), DescriptionError> {
        let size = match self.bars.get(usize::from(bar)) {
            Some(bar @ (Bar::Memory32 { .. } | Bar::Memory64 { .. })) => bar.size(),
            _ => 0,
        };
        if offset % 8 != 0 || u64::from(offset) + bytes > size {
            return Err(DescriptionError::MsixPlace { what, bar, offset, bytes });
        }
        Ok(())
    }
}
