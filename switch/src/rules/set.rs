//! All rules of a switch, changed in transactions under traffic.
//!
//! ```text
//!   apply --> check, compile --> side B changed --> active = B, epoch + 1 --> side A changed the same way
//!                |                   ^ refused: undone, nobody has seen it
//!                '-- refused: nothing happened
//!   find  --> the active side, or the other while that is written: never waits for a transaction
//! ```
//!
//! There are two copies of the tables, both with the same rules behind counted pointers (left-right). A transaction is one
//! flip of which of them is read: readers see all of it or nothing.
//!
//! Both are behind locks that nobody sleeps on. A worker takes the side that is free. A transaction tries again until a side
//! that it may write is: did it sleep instead, a worker would have to wake it, by a system call between two packets.
//!
//! # Invariants
//! * Writers are one at a time. A side is written only while the other is the active one.
//! * [`RuleSet::epoch`] is raised behind the flip, and behind the cells of [`Concerns`]: who reads an epoch and then looks up sees at least the rules of that epoch.
//! * What rules read of a frame ([`RuleSet::settle_needs`]) is never less than the rules on the active side need.
//!
//! # Memory
//! A rule with one match takes some 400 bytes with all that the allocator adds (`measure.rs`, 100,000 and a million of five
//! fields): the match, name and counters, a place in both copies, its number. Masks and equal lists of actions are shared.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::changed::{Changed, Parties};
use super::classifier::{Classifier, ClassifierShape};
use super::compile::{Reads, compile};
use super::concern::{Cells, Concerns};
use super::key::{Key, Shape};
use super::rule::{
    Action, Direction, Do, Domain, Identity, MAX_GROUP, MAX_MATCHES, Rank, Rule, RuleCounts, RuleError,
    RuleId, RuleSpec, policers, prepare,
};
use crate::deep_key::About;
use crate::meter::Meter;
use crate::needs::Needs;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new rule.
    Add(RuleSpec),
    /// A rule in the place of the one with its id, or a new one. Statistics go on.
    Put(RuleSpec),
    /// A rule less.
    Remove {
        /// Whose.
        domain: Domain,
        /// Which.
        id: RuleId,
    },
}

impl Change {
    fn key(&self) -> (Domain, RuleId) {
        match self {
            Change::Add(spec) | Change::Put(spec) => (spec.domain, spec.id),
            Change::Remove { domain, id } => (*domain, *id),
        }
    }
}

/// Why a transaction is refused; nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change {index} (rule {} of {domain}): {source}", .id.0)]
pub struct TransactionError {
    /// Which change, from 0.
    pub index: usize,
    /// Whose rule.
    pub domain: Domain,
    /// Which rule.
    pub id: RuleId,
    /// Why.
    pub source: RuleError,
}

/// A rule as it is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleView {
    /// Whose.
    pub domain: Domain,
    /// Which.
    pub id: RuleId,
    /// Its name.
    pub name: String,
    /// At which side of forwarding.
    pub direction: Direction,
    /// Its group.
    pub group: u8,
    /// Its priority.
    pub priority: u32,
    /// How many matches it has.
    pub matches: usize,
    /// What it has seen. Workers hand over what they counted some 50 times a second.
    pub counts: RuleCounts,
}

type Place = (Domain, Direction, u8);

/// One copy of the tables.
#[derive(Debug, Default)]
pub(crate) struct Side {
    groups: HashMap<Place, Classifier>,
    changed: Changed,
}

impl Side {
    /// The first rule of a group that matches, behind the one with rank `after`.
    pub(crate) fn find(
        &self,
        domain: Domain,
        direction: Direction,
        group: u8,
        key: &Key,
        after: Option<Rank>,
    ) -> Option<&Arc<Rule>> {
        self.groups.get(&(domain, direction, group))?.find(key, after)
    }

    /// Whether the domain has rules where frames come in.
    pub(crate) fn has(&self, domain: Domain, direction: Direction) -> bool {
        self.groups.contains_key(&(domain, direction, 0))
    }

    fn insert(&mut self, rule: &Arc<Rule>, secret: [u64; 2]) -> Result<(), RuleError> {
        let place = place_of(rule);
        let classifier = self.groups.entry(place).or_insert_with(|| Classifier::new(secret));
        let inserted = classifier.insert(Arc::clone(rule));
        if classifier.is_empty() {
            self.groups.remove(&place);
        }
        inserted
    }

    fn remove(&mut self, rule: &Arc<Rule>) {
        let place = place_of(rule);
        if let Some(classifier) = self.groups.get_mut(&place) {
            let removed = classifier.remove(rule);
            debug_assert!(removed, "a rule that is held is in the tables");
            if classifier.is_empty() {
                self.groups.remove(&place);
            }
        }
    }

    /// Makes all changes, or none.
    fn apply(&mut self, steps: &[Swap], secret: [u64; 2]) -> Result<(), (usize, RuleError)> {
        for (index, step) in steps.iter().enumerate() {
            step.old.iter().for_each(|rule| self.remove(rule));
            for (added, rule) in step.new.iter().enumerate() {
                if let Err(error) = self.insert(rule, secret) {
                    step.new.iter().take(added).for_each(|rule| self.remove(rule));
                    self.restore(step, secret);
                    for step in steps.iter().take(index).rev() {
                        step.new.iter().for_each(|rule| self.remove(rule));
                        self.restore(step, secret);
                    }
                    return Err((step.index, error));
                }
            }
        }
        Ok(())
    }

    fn restore(&mut self, step: &Swap, secret: [u64; 2]) {
        for rule in &step.old {
            // They were there before; at worst in another table, which may take a step more.
            if self.insert(rule, secret).is_err() {
                tracing::error!(rule = rule.identity.id.0, "a rule could not be put back");
            }
        }
    }
}

fn place_of(rule: &Rule) -> Place {
    (rule.identity.domain, rule.direction, rule.group)
}

/// Waits, awake, until nobody reads the side.
fn write(side: &RwLock<Side>) -> RwLockWriteGuard<'_, Side> {
    let mut tries = 0_u32;
    loop {
        if let Some(guard) = side.try_write() {
            return guard;
        }
        tries += 1;
        match tries % 64 {
            // Its reader may be waiting for this very CPU.
            0 => std::thread::yield_now(),
            _ => core::hint::spin_loop(),
        }
    }
}

/// What one change does to the tables.
struct Swap {
    index: usize,
    old: Vec<Arc<Rule>>,
    new: Vec<Arc<Rule>>,
}

/// A rule's matches, nearly always one.
#[derive(Clone, Debug)]
enum Matches {
    One(Arc<Rule>),
    Many(Box<[Arc<Rule>]>),
}

/// A rule that is held.
#[derive(Clone, Debug)]
struct Held {
    matches: Matches,
    reads: Reads,
}

impl Held {
    fn as_slice(&self) -> &[Arc<Rule>] {
        match &self.matches {
            Matches::One(rule) => core::slice::from_ref(rule),
            Matches::Many(rules) => rules,
        }
    }
}

/// What the writer knows.
#[derive(Debug, Default)]
struct Book {
    rules: HashMap<(Domain, RuleId), Held>,
    /// Matches of each domain, and how many it may have.
    domains: HashMap<Domain, (u32, u32)>,
    /// How many rules read each field; the last two: ARP's and ND's contents.
    readers: [u32; 18],
    /// Matches of direction out.
    outs: u32,
    shapes: Shared<Shape, Shape>,
    actions: Shared<Vec<Action>, [Do]>,
}

/// Things that many rules have the same of, held once.
#[derive(Debug)]
struct Shared<K, V: ?Sized> {
    known: HashMap<K, Arc<V>>,
    /// When it has become as large as this, what nobody uses any more is forgotten.
    sweep_at: usize,
}

impl<K, V: ?Sized> Default for Shared<K, V> {
    fn default() -> Shared<K, V> {
        Shared { known: HashMap::new(), sweep_at: 1024 }
    }
}

impl<K: core::hash::Hash + Eq, V: ?Sized> Shared<K, V> {
    fn keep(&mut self, key: K, value: Arc<V>) -> Arc<V> {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, value| Arc::strong_count(value) > 1);
            self.sweep_at = (self.known.len() * 2).max(1024);
        }
        Arc::clone(self.known.entry(key).or_insert(value))
    }
}

const ARP: u32 = 1 << 16;
const ND: u32 = 1 << 17;

impl Book {
    fn bits(reads: Reads) -> u32 {
        let also = |is: bool, bit: u32| if is { bit } else { 0 };
        u32::from(reads.needs.bits()) | also(reads.arp, ARP) | also(reads.nd, ND)
    }

    /// Everything that some rule reads.
    fn needs(&self) -> u32 {
        self.readers
            .iter()
            .zip(0..)
            .filter(|(count, _)| **count > 0)
            .fold(0, |bits, (_, bit)| bits | 1 << bit)
    }

    /// Puts a rule in the place of another and gives that; either may be none.
    fn swap(&mut self, key: (Domain, RuleId), new: Option<Held>) -> Option<Held> {
        let (added, added_reads) =
            new.as_ref().map_or((0, 0), |held| (held.as_slice().len(), Book::bits(held.reads)));
        let old = match new {
            Some(held) => self.rules.insert(key, held),
            None => self.rules.remove(&key),
        };
        let (removed, removed_reads) =
            old.as_ref().map_or((0, 0), |held| (held.as_slice().len(), Book::bits(held.reads)));
        let (count, _) = self.domains.entry(key.0).or_insert((0, u32::MAX));
        *count = count.wrapping_add(added as u32).wrapping_sub(removed as u32);
        let outs = |held: Option<&Held>| {
            let matches = held.map_or(&[][..], Held::as_slice);
            matches.iter().filter(|rule| rule.direction == Direction::Out).count() as u32
        };
        self.outs = self.outs.wrapping_add(outs(self.rules.get(&key))).wrapping_sub(outs(old.as_ref()));
        for (readers, bit) in self.readers.iter_mut().zip(0..) {
            *readers += added_reads >> bit & 1;
            *readers -= removed_reads >> bit & 1;
        }
        old
    }

    fn compile(&mut self, spec: &RuleSpec) -> Result<Held, RuleError> {
        if spec.domain == Domain::Tenant(0) {
            return Err(RuleError::NoTenant);
        }
        if spec.group > MAX_GROUP {
            return Err(RuleError::Group(spec.group));
        }
        match spec.matches.len() {
            0 => return Err(RuleError::NoMatch),
            many @ MAX_MATCHES.. if many > MAX_MATCHES => return Err(RuleError::ManyMatches(many)),
            _ => {}
        }
        let old = self.rules.get(&(spec.domain, spec.id)).and_then(|held| held.as_slice().first().cloned());
        let mut actions = prepare(spec, old.as_ref().map_or(&[], |old| &*old.actions))?;
        let mut reads = Reads { needs: Needs::PLANS, ..Reads::default() };
        for what in actions.iter() {
            match what {
                Do::Rewrite(rewrite) if rewrite.reads_ttl() => {
                    reads.needs |= Needs::TYPE | Needs::IP | Needs::TTL;
                }
                Do::Ct(_) => {
                    reads.needs |= Needs::TYPE | Needs::IP | Needs::PORTS | Needs::CONNECTIONS;
                }
                _ => {}
            }
        }
        // Each rule that samples counts for itself, and one that polices has a meter of its own.
        let is_own = |action: &Action| matches!(action, Action::Sample { .. } | Action::Police(_));
        if !spec.actions.iter().any(is_own) {
            actions = self.actions.keep(spec.actions.clone(), actions);
        }
        let identity = Identity::of(spec, old.as_ref().map(|rule| &rule.identity));
        let mut rules = Vec::with_capacity(spec.matches.len());
        for matched in &spec.matches {
            let mut intern = |shape| self.shapes.keep(shape, Arc::new(shape));
            let (compiled, also) = compile(matched, spec.direction, &mut intern)?;
            reads.needs |= also.needs;
            reads.arp |= also.arp;
            reads.nd |= also.nd;
            rules.push(Arc::new(Rule {
                compiled,
                actions: Arc::clone(&actions),
                identity: Arc::clone(&identity),
                priority: spec.priority,
                direction: spec.direction,
                group: spec.group,
            }));
        }
        let matches = match rules.as_slice() {
            [one] => Matches::One(Arc::clone(one)),
            _ => Matches::Many(rules.into_boxed_slice()),
        };
        Ok(Held { matches, reads })
    }

    /// Makes one change; gives what it was before, and what it does.
    fn change(&mut self, change: &Change) -> Result<(Option<Held>, Option<Held>), RuleError> {
        let key = change.key();
        let new = match change {
            Change::Add(_) if self.rules.contains_key(&key) => return Err(RuleError::Exists),
            Change::Remove { .. } if !self.rules.contains_key(&key) => return Err(RuleError::Unknown),
            Change::Add(spec) | Change::Put(spec) => Some(self.compile(spec)?),
            Change::Remove { .. } => None,
        };
        let old = self.swap(key, new.clone());
        let (count, limit) = self.domains.get(&key.0).copied().unwrap_or((0, u32::MAX));
        if count > limit && new.is_some() {
            self.swap(key, old);
            return Err(RuleError::Quota { domain: key.0, limit });
        }
        Ok((old, new))
    }
}

/// The rules of a switch. See the page.
#[derive(Debug)]
pub(crate) struct RuleSet {
    sides: [RwLock<Side>; 2],
    active: AtomicUsize,
    epoch: AtomicU64,
    /// [`Needs`], [`ARP`], [`ND`].
    reads: AtomicU32,
    /// What flows are told apart by for the sake of rules: never less than `reads`.
    told_apart: Mutex<u32>,
    /// Matches of direction out.
    outs: AtomicU32,
    concerns: Concerns,
    book: Mutex<Book>,
    secret: [u64; 2],
}

impl RuleSet {
    /// No rules. The secret keeps who chooses rules and frames from choosing where they fall.
    pub(crate) fn new(secret: [u64; 2]) -> RuleSet {
        RuleSet {
            sides: Default::default(),
            active: AtomicUsize::new(0),
            epoch: AtomicU64::new(1),
            reads: AtomicU32::new(0),
            told_apart: Mutex::new(0),
            outs: AtomicU32::new(0),
            concerns: Concerns::new(secret.map(|half| half | 1)),
            book: Mutex::default(),
            secret,
        }
    }

    /// Raised by each transaction.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What changed, by what it can concern.
    #[inline(always)]
    pub(crate) fn concerns(&self) -> &Concerns {
        &self.concerns
    }

    /// What rules read of a frame.
    #[cfg(test)]
    pub(crate) fn needs(&self) -> Needs {
        Needs::from_bits_truncate(self.reads.load(Ordering::Acquire) as u16)
    }

    /// What rules read of a frame, for a topology that is about to be published. What only rules that are gone have read is
    /// left out from now on.
    pub(crate) fn settle_needs(&self) -> Needs {
        let mut told_apart = self.told_apart.lock();
        *told_apart = self.reads.load(Ordering::Acquire);
        Needs::from_bits_truncate(*told_apart as u16)
    }

    /// Whether there is a rule of direction out.
    #[inline(always)]
    pub(crate) fn has_out(&self) -> bool {
        self.outs.load(Ordering::Acquire) > 0
    }

    /// Whether rules read what is in ARP packets.
    pub(crate) fn reads_arp(&self) -> bool {
        self.reads.load(Ordering::Acquire) & ARP != 0
    }

    /// Whether rules read what is in neighbour discovery.
    pub(crate) fn reads_nd(&self) -> bool {
        self.reads.load(Ordering::Acquire) & ND != 0
    }

    /// The tables, as they are now.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Side> {
        let [left, right] = &self.sides;
        loop {
            let sides = match self.active.load(Ordering::Acquire) {
                0 => [left, right],
                _ => [right, left],
            };
            // The second only while a transaction that began in between writes the first: then it is the newer one.
            if let Some(guard) = sides.into_iter().find_map(RwLock::try_read) {
                return guard;
            }
            core::hint::spin_loop();
        }
    }

    /// Whether a decision of an older epoch is good: [`Changed::still_good`].
    pub(crate) fn still_good(
        &self,
        epochs: (u64, u64),
        flow: (&About, &Cells),
        parties: Parties,
        key: impl Fn() -> Option<Key>,
    ) -> bool {
        self.read().changed.still_good(epochs, flow, parties, key)
    }

    /// The meters of rules' own, with the rules' names.
    pub(crate) fn policers(&self) -> Vec<(String, Arc<Meter>)> {
        let book = self.book.lock();
        let rules = book.rules.values().filter_map(|held| held.as_slice().first());
        let of_rule = |rule: &Arc<Rule>| {
            let name = rule.identity.name.to_string();
            policers(&rule.actions).map(move |meter| (name.clone(), Arc::clone(meter))).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = rules.flat_map(of_rule).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Makes all changes, or none. `widen` is told what rules will read before they are used, if it is more than now.
    pub(crate) fn apply(
        &self,
        changes: &[Change],
        widen: impl FnOnce(Needs),
    ) -> Result<u64, TransactionError> {
        let mut book = self.book.lock();
        let book = &mut *book;
        let mut undo = Vec::with_capacity(changes.len());
        let mut swaps = Vec::with_capacity(changes.len());
        let mut refused = None;
        for (index, change) in changes.iter().enumerate() {
            match book.change(change) {
                Ok((old, new)) => {
                    let list = |held: &Option<Held>| {
                        held.as_ref().map(|held| held.as_slice().to_vec()).unwrap_or_default()
                    };
                    swaps.push(Swap { index, old: list(&old), new: list(&new) });
                    undo.push((change.key(), old));
                }
                Err(error) => {
                    refused = Some((index, error));
                    break;
                }
            }
        }
        let active = self.active.load(Ordering::Acquire);
        let [left, right] = &self.sides;
        let (first, second) = if active == 0 { (right, left) } else { (left, right) };
        if refused.is_none() {
            refused = write(first).apply(&swaps, self.secret).err();
        }
        if let Some((index, source)) = refused {
            for (key, old) in undo.into_iter().rev() {
                book.swap(key, old);
            }
            let (domain, id) = changes.get(index).map_or((Domain::Infrastructure, RuleId(0)), Change::key);
            return Err(TransactionError { index, domain, id, source });
        }
        let (before, after) = (self.reads.load(Ordering::Acquire), book.needs());
        // A field that was read before, and not since, costs nothing: else whoever adds and removes the only rule that reads
        // one would have all flows of everybody decided anew each time.
        let is_new = {
            let mut told_apart = self.told_apart.lock();
            self.reads.store(before | after, Ordering::Release);
            let is_new = after & !*told_apart != 0;
            *told_apart |= after;
            is_new
        };
        if is_new {
            widen(Needs::from_bits_truncate((before | after) as u16));
        }
        self.outs.fetch_max(book.outs, Ordering::Release);
        let epoch = self.epoch() + 1;
        let moved = swaps.iter().flat_map(|swap| swap.old.iter().chain(&swap.new));
        let moved = moved.map(|rule| (self.concerns.place(rule), rule));
        write(first).changed.note(epoch, moved.clone());
        self.concerns.begin(epoch);
        self.active.store(1 - active, Ordering::SeqCst);
        self.concerns.count(moved.clone().map(|(place, _)| place));
        self.epoch.store(epoch, Ordering::Release);
        self.reads.store(after, Ordering::Release);
        self.outs.store(book.outs, Ordering::Release);
        let mut second = write(second);
        second.changed.note(epoch, moved);
        if let Err((index, error)) = second.apply(&swaps, self.secret) {
            // The two sides may hold rules in different tables, but what one takes the other takes.
            tracing::error!(index, %error, "the second copy of the rules refused what the first took");
        }
        Ok(epoch)
    }

    /// How many matches the rules of a domain may have in all. Those that are there stay.
    pub(crate) fn set_limit(&self, domain: Domain, limit: u32) {
        self.book.lock().domains.entry(domain).or_insert((0, limit)).1 = limit;
    }

    /// How many matches the rules of a domain have.
    pub(crate) fn count(&self, domain: Domain) -> u32 {
        self.book.lock().domains.get(&domain).map_or(0, |(count, _)| *count)
    }

    /// A rule's counters go on from what it has seen before, if it has this name. Whether it has.
    pub(crate) fn go_on(
        &self,
        key: (Domain, RuleId),
        name: &str,
        before: &fabnic_saved::RuleCounts,
        used: Option<u32>,
    ) -> bool {
        let book = self.book.lock();
        let rule = book.rules.get(&key).and_then(|held| held.as_slice().first());
        let Some(rule) = rule.filter(|rule| *rule.identity.name == *name) else { return false };
        rule.identity.stats.go_on(before.packets, before.bytes, used);
        true
    }

    /// One rule.
    pub(crate) fn get(&self, domain: Domain, id: RuleId) -> Option<RuleView> {
        self.book.lock().rules.get(&(domain, id)).and_then(view)
    }

    /// The rules of one domain or of all, by domain, direction, group and rank.
    pub(crate) fn list(&self, domain: Option<Domain>) -> Vec<RuleView> {
        let book = self.book.lock();
        let wanted = book.rules.iter().filter(|((of, _), _)| domain.is_none_or(|domain| *of == domain));
        let mut views: Vec<_> = wanted.filter_map(|(_, held)| view(held)).collect();
        drop(book);
        views.sort_by_key(|view| (view.domain, view.direction, view.group, view.priority, view.id));
        views
    }

    /// All matches of a domain's rules, in the order of their rank.
    #[cfg(test)]
    pub(crate) fn rules_of(&self, domain: Domain) -> Vec<Arc<Rule>> {
        let book = self.book.lock();
        let mine = book.rules.values().flat_map(|held| held.as_slice().iter());
        let mut mine: Vec<_> = mine.filter(|rule| rule.identity.domain == domain).cloned().collect();
        mine.sort_by_key(|rule| rule.rank());
        mine
    }

    /// What the tables of a group are made of.
    pub(crate) fn shape(&self, domain: Domain, direction: Direction, group: u8) -> ClassifierShape {
        self.read().groups.get(&(domain, direction, group)).map(Classifier::shape).unwrap_or_default()
    }
}

fn view(held: &Held) -> Option<RuleView> {
    let rules = held.as_slice();
    let rule = rules.first()?;
    Some(RuleView {
        domain: rule.identity.domain,
        id: rule.identity.id,
        name: rule.identity.name.to_string(),
        direction: rule.direction,
        group: rule.group,
        priority: rule.priority,
        matches: rules.len(),
        counts: rule.identity.stats.read(),
    })
}
