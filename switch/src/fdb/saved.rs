//! Learned addresses, taken out and put in again.

use std::io;

use fabnic_port::PortId;
use fabnic_saved as records;
use fabnic_wire::{MacAddr, Vid};
use hashbrown::hash_table::Entry as Slot;

use super::{Fdb, FdbEntry, FdbKind, NoRoom, PortQuota, Tick, key};
use crate::damping::Moves;
use crate::saved::Lost;

impl Fdb {
    /// Hands on what was learned, on one port or on all, a shard at a time.
    pub(crate) fn save(
        &self,
        of: Option<PortId>,
        now: Tick,
        each: &mut dyn FnMut(Vec<records::FdbEntry>) -> io::Result<()>,
    ) -> io::Result<()> {
        let is_wanted =
            |entry: &&FdbEntry| entry.kind != FdbKind::Static && of.is_none_or(|port| port == entry.port);
        for shard in &self.shards {
            let learned = shard.lock().iter().filter(is_wanted).copied().collect::<Vec<_>>();
            each(learned.iter().map(|entry| record(entry, now)).collect())?;
        }
        Ok(())
    }

    /// Puts an address in where there is none.
    pub(crate) fn restore(
        &self,
        (vlan, mac, port): (Vid, MacAddr, PortId),
        saved: &records::FdbEntry,
        quota: &PortQuota,
        now: Tick,
    ) -> Result<(), Lost> {
        let key = key(vlan, mac);
        let hash = self.hash(key);
        let mut shard = self.shard(hash).lock();
        let slot = match shard.entry(hash, |held| held.key() == key, |held| self.hash(held.key())) {
            Slot::Occupied(_) => return Err(Lost::Taken),
            Slot::Vacant(slot) => slot,
        };
        quota.take(None).map_err(|no: NoRoom| match no {
            NoRoom::OnPort | NoRoom::OfTenant | NoRoom::InTable => Lost::Limit,
        })?;
        if !self.count.take() {
            quota.give_back(None);
            return Err(Lost::Limit);
        }
        let seen = now.saturating_sub(saved.age_s);
        let kind = if saved.sticky { FdbKind::Sticky } else { FdbKind::Learned };
        let frozen_until = saved.freeze.left_s.map(|left| now.saturating_add(left));
        slot.insert(FdbEntry {
            moves: saved.moves,
            frozen_until,
            lately: Moves::of(saved.freeze.moves, now.saturating_sub(saved.freeze.window_age_s)),
            ..FdbEntry::new(vlan, mac, port, kind, seen)
        });
        if let Some(until) = frozen_until {
            self.damping.hold(until, key);
        }
        self.versions.raise(hash);
        Ok(())
    }

    /// Counters go on.
    pub(crate) fn go_on(&self, totals: &records::FdbTotals) {
        self.damping.go_on(totals);
    }
}

fn record(entry: &FdbEntry, now: Tick) -> records::FdbEntry {
    let (moves, since) = entry.lately.parts();
    records::FdbEntry {
        vlan: entry.vlan.get(),
        mac: entry.mac.octets(),
        port: entry.port.0,
        age_s: now.saturating_sub(entry.seen),
        sticky: entry.kind == FdbKind::Sticky,
        moves: entry.moves,
        freeze: records::Freeze {
            left_s: entry.frozen_until.and_then(|until| until.checked_sub(now)).filter(|left| *left > 0),
            moves,
            window_age_s: if moves == 0 { 0 } else { now.saturating_sub(since) },
        },
    }
}
