//! The state of a device as bytes, for its twin on another host.
//!
//! ```text
//!   "E1KS" version(u16)  registers  EEPROM  PHY  line  filter  ring registers  statistics  contexts
//! ```
//!
//! Little endian, nothing optional, nothing behind the end. Guest memory is not in it, and neither is what configuration
//! says of a port. Whoever wrote the bytes, they only become what a driver could have written into registers too.

/// Begins every state.
pub(crate) const MAGIC: [u8; 4] = *b"E1KS";
/// What follows is understood by devices of this version only.
pub(crate) const VERSION: u16 = 1;

/// Puts values one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Writer {
        let mut writer = Writer::default();
        writer.0.extend_from_slice(&MAGIC);
        writer.u16(VERSION);
        writer
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.0.push(value.into());
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Takes them apart again.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

/// Why a state cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    #[error("it begins with something else than {MAGIC:?}")]
    Magic,
    #[error("it is of version {0}, expected {VERSION}")]
    Version(u16),
    #[error("it ends too early")]
    Short,
    #[error("{0} bytes follow its end")]
    Long(usize),
    #[error("a flag is {0}, expected 0 or 1")]
    Flag(u8),
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Reader<'a>, StateError> {
        let mut reader = Reader(bytes);
        if reader.take::<4>()? != MAGIC {
            return Err(StateError::Magic);
        }
        match reader.u16()? {
            VERSION => Ok(reader),
            other => Err(StateError::Version(other)),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(StateError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, StateError> {
        match self.take::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(StateError::Flag(other)),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, StateError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, StateError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, StateError> {
        self.take().map(u64::from_le_bytes)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), StateError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(StateError::Long(left)),
        }
    }
}
