//! Writing: sections one after the other, then the digest.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::{END, MAGIC, MAX_SECTION, Section, VERSION};

/// Why a section was not written.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    /// What is written to did not take it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A section is longer than one may be.
    #[error("a section `{0}` of {1} bytes (expected at most {MAX_SECTION})")]
    TooLong(&'static str, usize),
    /// A record could not be written.
    #[error("a section `{0}` cannot be written: {1}")]
    Record(&'static str, postcard::Error),
}

/// Writes sections.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins.
    ///
    /// # Errors
    /// The first bytes could not be written.
    pub fn new(to: W) -> Result<Writer<W>, Unwritten> {
        let mut writer = Writer { to, digest: Sha256::new(), bytes: 0 };
        writer.write(&MAGIC)?;
        writer.write(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(self.to.write_all(bytes)?)
    }

    fn head(kind: u16, version: u16, len: u32) -> [u8; 8] {
        let [k0, k1] = kind.to_le_bytes();
        let [v0, v1] = version.to_le_bytes();
        let [l0, l1, l2, l3] = len.to_le_bytes();
        [k0, k1, v0, v1, l0, l1, l2, l3]
    }

    /// Writes a section.
    ///
    /// # Errors
    /// It is too long, or could not be written: then nothing good can come of what was.
    pub fn put(&mut self, section: &Section) -> Result<(), Unwritten> {
        let kind = section.kind();
        let payload = section.payload().map_err(|error| Unwritten::Record(kind.label(), error))?;
        let too_long = Unwritten::TooLong(kind.label(), payload.len());
        let len = u32::try_from(payload.len()).ok().filter(|len| *len <= MAX_SECTION).ok_or(too_long)?;
        self.write(&Self::head(kind as u16, kind.version(), len))?;
        self.write(&payload)
    }

    /// Writes the end. Gives what was written to, and how many bytes.
    ///
    /// # Errors
    /// It could not be written.
    pub fn finish(mut self) -> Result<(W, u64), Unwritten> {
        let digest: [u8; crate::DIGEST] = self.digest.finalize_reset().into();
        self.write(&Self::head(END, 1, crate::DIGEST as u32))?;
        self.write(&digest)?;
        self.to.flush()?;
        Ok((self.to, self.bytes))
    }
}
