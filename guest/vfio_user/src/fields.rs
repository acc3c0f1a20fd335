//! Fields of a payload, one after the other, in the host's byte order.

use crate::error::Refusal;

/// What is left of a payload.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let Some((first, rest)) = self.0.split_first_chunk() else {
            return Err(Refusal::invalid("the payload ends within its fixed part", "all of it"));
        };
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Refusal> {
        self.take().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Refusal> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Refusal> {
        self.take().map(u64::from_ne_bytes)
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        self.take()
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// All that is left, which must be `count` bytes.
    pub(crate) fn exactly(self, count: u64) -> Result<&'a [u8], Refusal> {
        let got = self.0.len();
        if u64::try_from(got) == Ok(count) {
            return Ok(self.0);
        }
        Err(Refusal::invalid(format!("{got} bytes of data"), "as many as were announced"))
    }

    /// Nothing is left.
    pub(crate) fn end(self) -> Result<(), Refusal> {
        self.exactly(0).map(|_| ())
    }
}

/// A payload of an answer, as it is made.
#[derive(Debug, Default)]
pub(crate) struct Payload(pub(crate) Vec<u8>);

impl Payload {
    #[must_use]
    pub(crate) fn u32(mut self, value: u32) -> Payload {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    #[must_use]
    pub(crate) fn u64(mut self, value: u64) -> Payload {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    #[must_use]
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Payload {
        self.0.extend_from_slice(bytes);
        self
    }
}
