//! Reading: section by section, whatever the bytes are.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::{DIGEST, END, Head, Kind, MAGIC, MAX_FILE, MAX_SECTION, Section, VERSION};

/// Why bytes are no saved state.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// They cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// They begin otherwise.
    #[error("this is no saved state: it does not begin with `FABSAVED`")]
    Magic,
    /// A newer program wrote them.
    #[error(
        "saved state of format {0}, which a newer version wrote (this one reads format {VERSION}); it cannot be read here"
    )]
    Newer(u32),
    /// They end too early.
    #[error("saved state ends in the middle, after {0} bytes")]
    Truncated(u64),
    /// A section, or all of them, are longer than they may be.
    #[error("section {kind} at byte {at} says that it is {len} bytes long (expected at most {MAX_SECTION})")]
    TooLong {
        /// Its number.
        kind: u16,
        /// Where it begins.
        at: u64,
        /// How long it says it is.
        len: u32,
    },
    /// All of it is longer than it may be.
    #[error("saved state is longer than {MAX_FILE} bytes")]
    File,
    /// A section's records are not what they should be.
    #[error("section `{kind}` at byte {at} cannot be read: {problem}")]
    Section {
        /// Its name.
        kind: &'static str,
        /// Where it begins.
        at: u64,
        /// What is wrong.
        problem: String,
    },
    /// The first section is another.
    #[error("the first section is not the head")]
    NoHead,
    /// The digest is another.
    #[error("the digest does not fit: bytes were changed or lost")]
    Digest,
    /// Something comes behind the end.
    #[error("there are bytes behind the end")]
    Trailing,
}

/// A section that this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unknown {
    /// Its kind.
    pub kind: u16,
    /// Its version.
    pub version: u16,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A section.
    Section(Section),
    /// One that is not known; it was skipped.
    Unknown(Unknown),
    /// All is read, and the digest fits.
    End,
}

/// Reads sections.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    digest: Sha256,
    at: u64,
    has_head: bool,
    is_done: bool,
}

impl<R: Read> Reader<R> {
    /// Begins.
    ///
    /// # Errors
    /// The bytes do not begin as they should, or are of a newer format.
    pub fn new(from: R) -> Result<Reader<R>, Malformed> {
        let mut reader = Reader { from, digest: Sha256::new(), at: 0, has_head: false, is_done: false };
        if reader.array::<8>()? != MAGIC {
            return Err(Malformed::Magic);
        }
        match u32::from_le_bytes(reader.array()?) {
            VERSION => Ok(reader),
            0 => Err(Malformed::Magic),
            newer => Err(Malformed::Newer(newer)),
        }
    }

    /// So many bytes, none of which is allocated before it is there.
    fn bytes(&mut self, len: u32) -> Result<Vec<u8>, Malformed> {
        let mut bytes = Vec::new();
        self.from.by_ref().take(len.into()).read_to_end(&mut bytes)?;
        self.at = self.at.saturating_add(bytes.len() as u64);
        if bytes.len() as u64 != u64::from(len) {
            return Err(Malformed::Truncated(self.at));
        }
        if self.at > MAX_FILE {
            return Err(Malformed::File);
        }
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.bytes(N as u32)?;
        self.digest.update(&bytes);
        bytes.try_into().map_err(|_| Malformed::Truncated(self.at))
    }

    /// The next section, or the end.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing behind it can be read.
    pub fn next_item(&mut self) -> Result<Item, Malformed> {
        if self.is_done {
            return Ok(Item::End);
        }
        let at = self.at;
        // Of all bytes before the end's own.
        let before = self.digest.clone();
        let [k0, k1, v0, v1, l0, l1, l2, l3] = self.array::<8>()?;
        let (kind, version) = (u16::from_le_bytes([k0, k1]), u16::from_le_bytes([v0, v1]));
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if kind == END {
            return self.end(before, (version, len));
        }
        if len > MAX_SECTION {
            return Err(Malformed::TooLong { kind, at, len });
        }
        let payload = self.bytes(len)?;
        self.digest.update(&payload);
        let known = Kind::of(kind).filter(|known| (1..=known.version()).contains(&version));
        if !core::mem::replace(&mut self.has_head, true) && known != Some(Kind::Head) {
            return Err(Malformed::NoHead);
        }
        let Some(known) = known else { return Ok(Item::Unknown(Unknown { kind, version })) };
        let wrong = |problem: String| Malformed::Section { kind: known.label(), at, problem };
        match Section::parse(known, &payload) {
            Ok((section, 0)) => Ok(Item::Section(section)),
            Ok((_, left)) => Err(wrong(format!("{left} bytes are left over"))),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    fn end(&mut self, before: Sha256, form: (u16, u32)) -> Result<Item, Malformed> {
        if form != (1, DIGEST as u32) || !self.has_head {
            return Err(Malformed::Digest);
        }
        let told: [u8; DIGEST] = self.array()?;
        let found: [u8; DIGEST] = before.finalize().into();
        if told != found {
            return Err(Malformed::Digest);
        }
        if self.from.read(&mut [0])? != 0 {
            return Err(Malformed::Trailing);
        }
        self.is_done = true;
        Ok(Item::End)
    }
}

/// What was found in bytes that can be read to their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What they are.
    pub head: Head,
    /// How many records of each kind there are.
    pub records: BTreeMap<Kind, u64>,
    /// Sections that this build does not know.
    pub unknown: Vec<Unknown>,
    /// How many bytes they are.
    pub bytes: u64,
}

/// Reads all of it and keeps nothing: afterwards it is known that all can be read.
///
/// # Errors
/// What is wrong with the bytes.
pub fn verify(from: impl Read) -> Result<Verified, Malformed> {
    /// Unknown sections that are named.
    const NAMED: usize = 16;
    let mut reader = Reader::new(from)?;
    let mut head = None;
    let mut records = BTreeMap::new();
    let mut unknown = Vec::new();
    loop {
        match reader.next_item()? {
            Item::Section(section) => {
                *records.entry(section.kind()).or_default() += section.len() as u64;
                if let Section::Head(first) = section {
                    head.get_or_insert(first);
                }
            }
            Item::Unknown(section) => {
                if unknown.len() < NAMED && !unknown.contains(&section) {
                    unknown.push(section);
                }
            }
            Item::End => {
                let head = head.ok_or(Malformed::NoHead)?;
                return Ok(Verified { head, records, unknown, bytes: reader.at });
            }
        }
    }
}
