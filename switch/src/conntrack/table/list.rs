//! Connections for people: listed page by page, and flushed.
//!
//! ```text
//!   slot 0, 1, 2, ..  --each locked for a moment--> wanted? --> page of at most `limit`, and the slot to go on with
//! ```
//!
//! A list is no picture of one moment: connections come and go while it is made. One that lives all the time is in it
//! exactly once, because slots do not move.

use core::ops::ControlFlow;

use super::Conntrack;
use crate::conntrack::connection::{ConnectionEntry, Direction, Handle};

/// Some of the connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPage {
    /// Those that were wanted, of which time is not over.
    pub entries: Vec<ConnectionEntry>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<u32>,
}

impl Conntrack {
    /// At most `limit` connections of which `wanted` says so, from the place `from` on: 0, or [`ConnectionPage::next`] of
    /// the page before. `now` is in seconds since the start.
    pub fn page(
        &self,
        now: u32,
        from: u32,
        limit: usize,
        mut wanted: impl FnMut(&ConnectionEntry) -> bool,
    ) -> ConnectionPage {
        let mut page = ConnectionPage::default();
        page.next = self.visit(from, now, |number, _, entry| {
            if entry.expires == 0 || !wanted(&entry) {
                return ControlFlow::Continue(());
            }
            if page.entries.len() >= limit {
                return ControlFlow::Break(number);
            }
            page.entries.push(entry);
            ControlFlow::Continue(())
        });
        page
    }

    /// All connections, as they are one after the other.
    pub fn entries(&self, now: u32) -> Vec<ConnectionEntry> {
        let mut entries = Vec::with_capacity(self.len());
        self.visit(0, now, |_, _, entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        });
        entries
    }

    /// Looks at connections by their slots until `each` breaks, with no lock held; gives what it broke with.
    fn visit(
        &self,
        from: u32,
        now: u32,
        mut each: impl FnMut(u32, Handle, ConnectionEntry) -> ControlFlow<u32>,
    ) -> Option<u32> {
        for number in from..self.slab.used_ever() {
            let Some(slot) = self.slab.slot(number) else { continue };
            let inner = slot.inner.lock();
            let entry = inner.entry(&slot.timed, now);
            let handle = Handle::new(number, inner.generation, Direction::Original);
            drop(inner);
            if let (Some(handle), Some(entry)) = (handle, entry)
                && let ControlFlow::Break(at) = each(number, handle, entry)
            {
                return Some(at);
            }
        }
        None
    }

    /// Forgets all connections of which `gone` says so; gives how many.
    pub fn flush(&self, mut gone: impl FnMut(&ConnectionEntry) -> bool) -> usize {
        let mut count = 0;
        self.visit(0, 0, |_, handle, entry| {
            if gone(&entry) && self.forget(handle) {
                count += 1;
            }
            ControlFlow::Continue(())
        });
        count
    }
}
