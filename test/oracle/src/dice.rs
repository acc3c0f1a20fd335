//! Random things made from plain bytes: each choice takes some, and when none are left, or they are 0, it is the first. So
//! one strategy makes and shrinks whatever is built by choices, to fewer and simpler ones.

use proptest::prelude::*;

/// Bytes to choose by.
#[derive(Debug)]
pub(crate) struct Dice<'a>(core::slice::Iter<'a, u8>);

/// The bytes of one thing that needs about so many.
pub(crate) fn bytes(many: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), many)
}

impl<'a> Dice<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Dice<'a> {
        Dice(bytes.iter())
    }

    /// A byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u8) -> u8 {
        self.byte() % end.max(1)
    }

    /// Yes in `times` of 8 cases.
    pub(crate) fn chance(&mut self, times: u8) -> bool {
        // The simplest choice is no.
        self.below(8) >= 8 - times.min(8)
    }

    /// One of several.
    pub(crate) fn of<T: Copy + Default>(&mut self, several: &[T]) -> T {
        let end = u8::try_from(several.len()).unwrap_or(u8::MAX);
        let at = self.below(end);
        several.get(usize::from(at)).copied().unwrap_or_default()
    }
}
