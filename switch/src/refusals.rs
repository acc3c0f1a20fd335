//! Why addresses are not learned, counted: of the whole table and of each port.
//!
//! A frame whose source is not learned goes on all the same, so these are no drops. What is counted are decisions: a flow
//! that goes on counts when it is decided on, and now and then, not for each frame.

use core::sync::atomic::{AtomicU64, Ordering};

/// Why a source address was not learned on the port that it was seen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FdbRefusal {
    /// The port has learned as many as it may.
    PortLimit,
    /// The ports of its tenant have.
    TenantLimit,
    /// The table is full.
    TableFull,
    /// It is on another port, where it sticks.
    Sticky,
    /// It is held on another port, because it moved too often.
    Frozen,
    /// It is on another port by configuration.
    Static,
}

impl FdbRefusal {
    /// All of them.
    pub const ALL: &'static [FdbRefusal] = &[
        FdbRefusal::PortLimit,
        FdbRefusal::TenantLimit,
        FdbRefusal::TableFull,
        FdbRefusal::Sticky,
        FdbRefusal::Frozen,
        FdbRefusal::Static,
    ];

    /// Its name in the API and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            FdbRefusal::PortLimit => "port_limit",
            FdbRefusal::TenantLimit => "tenant_limit",
            FdbRefusal::TableFull => "table_full",
            FdbRefusal::Sticky => "sticky",
            FdbRefusal::Frozen => "frozen",
            FdbRefusal::Static => "static",
        }
    }
}

/// Refusals by cause, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbRefusals([u64; FdbRefusal::ALL.len()]);

impl FdbRefusals {
    /// For this cause.
    pub fn get(&self, cause: FdbRefusal) -> u64 {
        self.0.get(cause as usize).copied().unwrap_or(0)
    }

    /// All causes, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (FdbRefusal, u64)> + '_ {
        FdbRefusal::ALL.iter().map(|cause| (*cause, self.get(*cause)))
    }

    /// For all causes together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Counters that any thread may raise.
#[derive(Debug, Default)]
pub(crate) struct Refused([AtomicU64; FdbRefusal::ALL.len()]);

impl Refused {
    pub(crate) fn count(&self, cause: FdbRefusal) {
        if let Some(counter) = self.0.get(cause as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counters go on from what was counted before, by the names of causes.
    pub(crate) fn go_on(&self, before: &[(fabnic_saved::Name, u64)]) {
        for (name, count) in before {
            let cause = FdbRefusal::ALL.iter().find(|cause| cause.label() == name.as_str());
            if let Some(counter) = cause.and_then(|cause| self.0.get(*cause as usize)) {
                counter.fetch_add(*count, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn read(&self) -> FdbRefusals {
        let mut read = FdbRefusals::default();
        for (to, from) in read.0.iter_mut().zip(&self.0) {
            *to = from.load(Ordering::Relaxed);
        }
        read
    }
}
