//! Connections, taken out and put in again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fabnic_saved as records;

use super::Conntrack;
use super::commit::{Placed, Taken};
use crate::conntrack::connection::{Beginning, Past, Sensible};
use crate::conntrack::settings::Owner;
use crate::conntrack::tcp::TcpState;
use crate::saved::Lost;

impl Conntrack {
    /// Hands on connections whose time is not over, each as it is at the moment when its turn comes.
    pub(crate) fn save(
        &self,
        now: u32,
        each: &mut dyn FnMut(records::Connection) -> io::Result<()>,
    ) -> io::Result<()> {
        for number in 0..self.slab.used_ever() {
            let Some(slot) = self.slab.slot(number) else { continue };
            let saved = slot.inner.lock().save(&slot.timed, now);
            saved.map_or(Ok(()), &mut *each)?;
        }
        Ok(())
    }

    /// Puts a connection in, of whoever `owner` says, if there is none with one of its tuples. `is_still`: nothing has moved
    /// since it was saved.
    pub(crate) fn restore(
        &self,
        saved: &records::Connection,
        owner: &Owner,
        is_still: bool,
        now: u32,
    ) -> Result<(), Lost> {
        let Sensible { original, reply, mut tcp, bits } = Sensible::of(saved).ok_or(Lost::Malformed)?;
        if let Some(tcp) = tcp.as_mut().filter(|_| !is_still) {
            if matches!(tcp.state(), TcpState::SynSent | TcpState::SynSent2) {
                return Err(Lost::Stale);
            }
            tcp.relax();
        }
        let zone = self.zone(saved.zone);
        let quotas = [Some(&**owner), owner.over.as_deref(), Some(&zone.quota), Some(&self.quota)];
        let taken = Taken::take(quotas).map_err(|_| Lost::Limit)?;
        let number = self.slab.take().ok_or(Lost::Limit)?;
        let past = Past {
            created: now.saturating_sub(saved.age_s),
            deadline: now.saturating_add(saved.left_s),
            packets: saved.packets,
            bytes: saved.bytes,
        };
        let beginning = Beginning {
            original,
            reply,
            zone: Arc::clone(&zone),
            owner: Arc::clone(owner),
            tcp,
            bits,
            mark: saved.mark,
            past: Some(past),
        };
        match self.place(number, beginning, now) {
            Placed::Here(_) => {
                taken.keep();
                Ok(())
            }
            Placed::Original | Placed::Answers => {
                self.slab.give_back(number);
                Err(Lost::Taken)
            }
        }
    }

    /// Counters go on from what an earlier table has counted.
    pub(crate) fn go_on(&self, refused: u64, exhausted: u64) {
        self.quota.go_on(refused);
        self.exhausted.fetch_add(exhausted, Ordering::Relaxed);
    }
}
