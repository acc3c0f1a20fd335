//! Making a connection: its places in quotas, slab, table and wheel, and the translation that it gets.
//!
//! ```text
//!   commit --> there already: mark it            (found)
//!          --> quotas of port, zone, table --> slot --> both tuples, under the locks of both shards --> versions raised
//! ```
//!
//! # Invariants
//! - A tuple is in the table once. Of two workers that commit the same one, the second finds what the first has made.
//! - What was taken of quotas is given back where nothing comes of it.

use core::hash::BuildHasher;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use fabnic_wire::Fields;

use super::{Conntrack, Locked, is_housekeeping};
use crate::conntrack::connection::{Beginning, Direction, Handle, Packet, Tracked};
use crate::conntrack::nat::{Nat, TRIES};
use crate::conntrack::settings::{Owner, Quota, Zone};
use crate::conntrack::tcp::Tcp;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::{Connected, Refusal};

/// What became of an attempt to put a connection into the table.
pub(super) enum Placed {
    Here(Connected),
    /// There is one with this original tuple.
    Original,
    /// There is one with this tuple of the answers.
    Answers,
}

/// Places taken in quotas, given back unless they are kept.
pub(super) struct Taken<'a> {
    quotas: [Option<&'a Quota>; 4],
    kept: bool,
}

impl<'a> Taken<'a> {
    pub(super) fn take(quotas: [Option<&'a Quota>; 4]) -> Result<Taken<'a>, Refusal> {
        for (index, quota) in quotas.iter().enumerate() {
            if let Some(quota) = quota.filter(|quota| !quota.take()) {
                quotas.iter().take(index).flatten().for_each(|quota| quota.give_back());
                // That of a port has one, too.
                let is_of_tenant = quota.tenant.is_some() && quota.over.is_none();
                return Err(if is_of_tenant { Refusal::TenantFull } else { Refusal::Full });
            }
        }
        Ok(Taken { quotas, kept: false })
    }

    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.quotas.iter().flatten().for_each(|quota| quota.give_back());
        }
    }
}

impl Conntrack {
    /// Makes a connection of a packet that is `new`, and gives it a mark and a translation; of a packet whose connection is
    /// there, changes the mark.
    #[expect(clippy::too_many_arguments, reason = "what a rule says, and the packet")]
    pub(crate) fn commit(
        &self,
        zone: &Arc<Zone>,
        owner: &Owner,
        fields: &Fields,
        packet: &Packet<'_>,
        nat: Option<&Nat>,
        mark: Option<u32>,
        now: u32,
    ) -> Result<Connected, Refusal> {
        if is_housekeeping(fields) {
            return Err(Refusal::Invalid);
        }
        let original = Tuple::of(fields, packet.head, zone.id).ok_or(Refusal::Invalid)?;
        // What was there may have to go first.
        for _ in 0..2 {
            match self.found(&original, packet, mark, now) {
                Some(Ok(committed)) => return Ok(committed),
                Some(Err(refusal)) => return Err(refusal),
                None => {}
            }
            let tcp = self.opens(zone, &original, packet).ok_or(Refusal::Invalid)?;
            if let Some(made) = self.make(zone, owner, &original, tcp, nat, mark, now)? {
                return Ok(made);
            }
        }
        Err(Refusal::Full)
    }

    /// What a commit says to a connection that is there already. `None` if there is none, or none any more.
    fn found(
        &self,
        original: &Tuple,
        packet: &Packet<'_>,
        mark: Option<u32>,
        now: u32,
    ) -> Option<Result<Connected, Refusal>> {
        let hash = self.hash(original);
        let shard = self.shard(Conntrack::shard_of(hash)).lock();
        let (number, direction) = self.find(&shard, hash, original)?;
        let slot = self.slab.slot(number)?;
        let mut inner = slot.inner.lock();
        drop(shard);
        let tracked = match slot.timed.deadline.load(Ordering::Relaxed) > now {
            true => inner.peek(direction, packet),
            false => Tracked::Stale,
        };
        let handle = Handle::new(number, inner.generation, direction)?;
        match tracked {
            Tracked::Stale => {
                drop(inner);
                self.forget(handle);
                None
            }
            Tracked::Invalid => Some(Err(Refusal::Invalid)),
            Tracked::Valid { .. } | Tracked::Last => {
                let translated = inner.is_translated();
                if let (Some(live), Some(mark)) = (&mut inner.live, mark)
                    && live.mark != mark
                {
                    live.mark = mark;
                    let tuples = (live.original, live.reply);
                    drop(inner);
                    self.changed(&tuples.0, &tuples.1);
                }
                Some(Ok(Connected { handle, translated, version: None }))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the second half of `commit`")]
    fn make(
        &self,
        zone: &Arc<Zone>,
        owner: &Owner,
        original: &Tuple,
        tcp: Option<Tcp>,
        nat: Option<&Nat>,
        mark: Option<u32>,
        now: u32,
    ) -> Result<Option<Connected>, Refusal> {
        let quotas = [Some(&**owner), owner.over.as_deref(), Some(&zone.quota), Some(&self.quota)];
        let taken = Taken::take(quotas)?;
        let number = self.slab.take().ok_or(Refusal::Full)?;
        let beginning = |reply, bits| Beginning {
            original: *original,
            reply,
            zone: Arc::clone(zone),
            owner: Arc::clone(owner),
            tcp,
            bits,
            mark: mark.unwrap_or(0),
            past: None,
        };
        let placed = match nat {
            None => self.place(number, beginning(original.reversed(), 0), now),
            Some(nat) => {
                let spread = self.hasher.hash_one(original.src);
                let start = self.hash(original);
                let mut placed = Placed::Answers;
                for attempt in 0..TRIES {
                    let Some((reply, bits)) = nat.answers(original, spread, start, attempt) else { break };
                    placed = self.place(number, beginning(reply, bits), now);
                    if !matches!(placed, Placed::Answers) {
                        break;
                    }
                }
                placed
            }
        };
        match placed {
            Placed::Here(committed) => {
                taken.keep();
                zone.created.fetch_add(1, Ordering::Relaxed);
                Ok(Some(committed))
            }
            Placed::Original => {
                self.slab.give_back(number);
                Ok(None)
            }
            Placed::Answers => {
                self.slab.give_back(number);
                self.exhausted.fetch_add(1, Ordering::Relaxed);
                Err(Refusal::Exhausted)
            }
        }
    }

    /// Puts a connection into the slot and both its tuples into the table, unless one of them is there.
    pub(super) fn place(&self, number: u32, what: Beginning, now: u32) -> Placed {
        let (original, reply, bits) = (what.original, what.reply, what.bits);
        let (hash, answers) = (self.hash(&original), self.hash(&reply));
        let Some(slot) = self.slab.slot(number) else { return Placed::Answers };
        let Locked { mut one, mut other } = self.lock_both(hash, answers);
        if self.find(&one, hash, &original).is_some() {
            return Placed::Original;
        }
        if self.find(other.as_deref().unwrap_or(&one), answers, &reply).is_some() {
            return Placed::Answers;
        }
        let mut inner = slot.inner.lock();
        inner.begin(&slot.timed, what, now);
        let generation = inner.generation;
        drop(inner);
        one.insert(hash, number);
        if answers != hash {
            match &mut other {
                Some(other) => other.insert(answers, number),
                None => one.insert(answers, number),
            }
        }
        one.wheel.add(number, &self.slab);
        drop((one, other));
        self.versions.raise(hash);
        if answers != hash {
            self.versions.raise(answers);
        }
        let Some(handle) = Handle::new(number, generation, Direction::Original) else {
            return Placed::Answers;
        };
        let version = Some(self.versions.of(hash));
        Placed::Here(Connected { handle, translated: bits != 0, version })
    }
}
