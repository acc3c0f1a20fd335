//! Finds the first rule that matches, without asking one after the other.
//!
//! Tuple space search with merging (Daly et al., "TupleMerge", IEEE/ACM ToN 2019). Plain tuple space search has a hash
//! table for each combination of masks that rules have: some hundreds of look-ups for one frame. Here a table's *mask* has
//! fewer bits than those of the rules in it, so that rules with different masks share it, and a candidate is compared in
//! full. Where too many rules fall on one place, a table with more bits takes them over.
//!
//! ```text
//!   tables, by the best rule in each:   [src/16 dst/24] [dst/24] [src/8] [proto]
//!   look-up:  hash key & mask --> chain, by rank --> first that matches in full
//!             ends at the first table whose best rule comes after the one found
//! ```
//!
//! # Invariants
//! * The mask of a table is part of the shape of each rule in it.
//! * A chain is ordered by rank: (priority, id), lowest first. Matches of one rule have the same rank.
//! * The *steps* of a look-up, one for each table and one for each rule of its longest chain, are at most [`MAX_STEPS`]: a
//!   rule that would make it more is refused. So rules of different masks without end, or all in one chain, cost their owner
//!   and nobody else.

use std::sync::Arc;

use hashbrown::HashTable;

use super::key::{Key, Shape, WORDS};
use super::rule::{Rank, Rule, RuleError};

/// The most steps of a look-up: see the page.
pub(crate) const MAX_STEPS: u32 = 2048;
/// Rules on one place before a table with more bits is made.
const CROWDED: usize = 4;
/// Tables that may be there before crowded places are put up with.
const MANY_TABLES: usize = 64;

/// The rules of one place.
#[derive(Clone, Debug)]
#[expect(clippy::box_collection, reason = "nearly all places hold one rule: a place is 16 bytes smaller so")]
enum List {
    One(Arc<Rule>),
    Many(Box<Vec<Arc<Rule>>>),
}

impl List {
    #[inline(always)]
    fn as_slice(&self) -> &[Arc<Rule>] {
        match self {
            List::One(rule) => core::slice::from_ref(rule),
            List::Many(rules) => rules,
        }
    }
}

#[derive(Clone, Debug)]
struct Chain {
    /// Upper half of the place's hash. Another place may have the same: candidates are compared in full.
    tag: u32,
    /// The priority of its first rule.
    best: u32,
    list: List,
}

#[derive(Clone, Debug)]
struct Table {
    mask: Shape,
    chains: HashTable<Chain>,
    rules: usize,
    /// No rule comes before it. After removals it may say too little, until it is looked for anew.
    best: Rank,
    /// Rules removed since `best` was looked for.
    removed: usize,
    /// How many chains there are of each length; from it the longest is known.
    lengths: Vec<u32>,
}

impl Table {
    fn new(mask: Shape) -> Table {
        Table {
            mask,
            chains: HashTable::new(),
            rules: 0,
            best: (u32::MAX, u64::MAX),
            removed: 0,
            lengths: Vec::new(),
        }
    }

    fn longest(&self) -> usize {
        self.lengths.len()
    }

    fn steps(&self) -> u32 {
        1 + u32::try_from(self.longest()).unwrap_or(u32::MAX - 1)
    }

    fn moved(&mut self, from: usize, to: usize) {
        if let Some(count) = from.checked_sub(1).and_then(|place| self.lengths.get_mut(place)) {
            *count = count.saturating_sub(1);
        }
        if to > self.lengths.len() {
            self.lengths.resize(to, 0);
        }
        if let Some(count) = to.checked_sub(1).and_then(|place| self.lengths.get_mut(place)) {
            *count += 1;
        }
        while self.lengths.last() == Some(&0) {
            self.lengths.pop();
        }
    }

    #[inline(always)]
    fn chain(&self, hash: u64) -> Option<&Chain> {
        let tag = (hash >> 32) as u32;
        self.chains.find(spread(tag), |chain| chain.tag == tag)
    }

    /// Rules on the place of this key.
    fn crowd(&self, hash: u64) -> usize {
        self.chain(hash).map_or(0, |chain| chain.list.as_slice().len())
    }

    fn insert(&mut self, hash: u64, rule: Arc<Rule>) {
        let (tag, rank) = ((hash >> 32) as u32, rule.rank());
        self.best = self.best.min(rank);
        self.rules += 1;
        let Some(chain) = self.chains.find_mut(spread(tag), |chain| chain.tag == tag) else {
            let chain = Chain { tag, best: rule.priority, list: List::One(rule) };
            self.chains.insert_unique(spread(tag), chain, |chain| spread(chain.tag));
            self.moved(0, 1);
            return;
        };
        let len = match &mut chain.list {
            List::One(first) => {
                let pair = if first.rank() <= rank {
                    vec![Arc::clone(first), rule]
                } else {
                    vec![rule, Arc::clone(first)]
                };
                chain.list = List::Many(Box::new(pair));
                1
            }
            List::Many(rules) => {
                let at = rules.partition_point(|other| other.rank() <= rank);
                rules.insert(at, rule);
                rules.len() - 1
            }
        };
        chain.best = chain.best.min(rank.0);
        self.moved(len, len + 1);
    }

    /// Takes a rule out. `false` if it is not there.
    fn remove(&mut self, hash: u64, rule: &Arc<Rule>) -> bool {
        let tag = (hash >> 32) as u32;
        let Ok(mut found) = self.chains.find_entry(spread(tag), |chain| chain.tag == tag) else {
            return false;
        };
        let chain = found.get_mut();
        let len = match &mut chain.list {
            List::One(only) if Arc::ptr_eq(only, rule) => {
                found.remove();
                1
            }
            List::One(_) => return false,
            List::Many(rules) => {
                let Some(at) = rules.iter().position(|other| Arc::ptr_eq(other, rule)) else { return false };
                rules.remove(at);
                let len = rules.len() + 1;
                chain.best = rules.first().map_or(u32::MAX, |first| first.priority);
                if let [last] = rules.as_slice() {
                    chain.list = List::One(Arc::clone(last));
                } else if rules.capacity() > 2 * rules.len() {
                    rules.shrink_to_fit();
                }
                len
            }
        };
        self.moved(len, len - 1);
        self.rules -= 1;
        self.removed += 1;
        // Looked for so seldom that it costs a few steps for each removal.
        if rule.rank() == self.best && self.removed > self.rules / 4 {
            self.removed = 0;
            let firsts = self.chains.iter().filter_map(|chain| chain.list.as_slice().first());
            self.best = firsts.map(|rule| rule.rank()).min().unwrap_or((u32::MAX, u64::MAX));
        }
        if self.chains.capacity() > 64 && self.chains.len() < self.chains.capacity() / 8 {
            self.chains.shrink_to_fit(|chain| spread(chain.tag));
        }
        true
    }
}

/// A tag as a hash: hash tables want the upper bits too.
#[inline(always)]
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What a classifier is made of, for people and benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassifierShape {
    /// Matches of rules.
    pub rules: usize,
    /// Hash tables.
    pub tables: usize,
    /// Steps of a look-up in the worst case.
    pub steps: u32,
}

/// The rules of one group.
#[derive(Clone, Debug)]
pub(crate) struct Classifier {
    /// By the best rule in each.
    tables: Vec<Table>,
    secret: [u64; 2],
    /// Tables are merged; without it this is plain tuple space search, to compare with.
    merge: bool,
}

impl Classifier {
    pub(crate) fn new(secret: [u64; 2]) -> Classifier {
        Classifier { tables: Vec::new(), secret: secret.map(|half| half | 1), merge: true }
    }

    /// One table for each combination of masks, as the field has it: to compare with.
    #[cfg(test)]
    pub(crate) fn unmerged(secret: [u64; 2]) -> Classifier {
        Classifier { merge: false, ..Classifier::new(secret) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    pub(crate) fn shape(&self) -> ClassifierShape {
        ClassifierShape {
            rules: self.tables.iter().map(|table| table.rules).sum(),
            tables: self.tables.len(),
            steps: self.tables.iter().map(Table::steps).sum(),
        }
    }

    /// The first rule that matches; behind the one with rank `after`, if one is given.
    #[inline]
    pub(crate) fn find(&self, key: &Key, after: Option<Rank>) -> Option<&Arc<Rule>> {
        let mut found: Option<&Arc<Rule>> = None;
        let mut best = (u32::MAX, u64::MAX);
        for table in &self.tables {
            if found.is_some() && best < table.best {
                break;
            }
            let Some(chain) = table.chain(table.mask.hash(key, &self.secret)) else { continue };
            if found.is_some() && best.0 < chain.best {
                continue;
            }
            for rule in chain.list.as_slice() {
                let rank = rule.rank();
                if found.is_some() && rank >= best {
                    break;
                }
                if after.is_none_or(|after| rank > after) && rule.compiled.matches(key) {
                    (found, best) = (Some(rule), rank);
                    break;
                }
            }
        }
        found
    }

    /// Adds a rule's match.
    ///
    /// # Errors
    /// It would make a look-up too long; nothing has changed.
    pub(crate) fn insert(&mut self, rule: Arc<Rule>) -> Result<(), RuleError> {
        let (key, mask) = (rule.compiled.key(), rule.compiled.shape().spread());
        let mut place = self.place(&key, &mask);
        if place.is_none() {
            // No table could hold it without being crowded: one with the bits of the rule, or fewer of them.
            let bits = match self.merge {
                true => relax(&mask),
                false => mask,
            };
            let wanted = [bits, mask].map(|mask| Shape::of(&mask));
            let new = wanted.into_iter().find(|shape| !self.tables.iter().any(|table| table.mask == *shape));
            place = match new {
                Some(shape) if !self.merge || self.tables.len() < MANY_TABLES => {
                    self.tables.push(Table::new(shape));
                    let new = self.tables.len() - 1;
                    self.relieve(new, &key, &mask);
                    Some(new)
                }
                _ => self.least_crowded(&key, &mask),
            };
        }
        let Some(place) = place else {
            // Every shape of its own, and not even one bit in common with any: a table of no bits takes all.
            self.tables.push(Table::new(Shape::of(&[0; WORDS])));
            return self.put(self.tables.len() - 1, &key, rule);
        };
        self.put(place, &key, rule)
    }

    fn put(&mut self, place: usize, key: &Key, rule: Arc<Rule>) -> Result<(), RuleError> {
        let secret = self.secret;
        let before: u32 = self.tables.iter().map(Table::steps).sum();
        let Some(table) = self.tables.get_mut(place) else { return Ok(()) };
        let hash = table.mask.hash(key, &secret);
        let longer = u32::from(table.crowd(hash) + 1 > table.longest());
        if self.merge && before + longer > MAX_STEPS {
            if table.rules == 0 {
                self.tables.remove(place);
            }
            return Err(RuleError::Irregular { steps: before + longer, limit: MAX_STEPS });
        }
        table.insert(hash, rule);
        self.tables.sort_by_key(|table| table.best);
        Ok(())
    }

    /// The table with the most bits that can hold a rule with this mask and is not crowded where it falls.
    fn place(&self, key: &Key, mask: &[u64; WORDS]) -> Option<usize> {
        if !self.merge {
            let shape = Shape::of(mask);
            return self.tables.iter().position(|table| table.mask == shape);
        }
        let fits = |(_, table): &(usize, &Table)| {
            is_part(&table.mask, mask) && table.crowd(table.mask.hash(key, &self.secret)) < CROWDED
        };
        let tables = self.tables.iter().enumerate().filter(fits);
        tables.max_by_key(|(_, table)| bits(&table.mask)).map(|(index, _)| index)
    }

    fn least_crowded(&self, key: &Key, mask: &[u64; WORDS]) -> Option<usize> {
        let tables = self.tables.iter().enumerate().filter(|(_, table)| is_part(&table.mask, mask));
        let crowd = |table: &Table| table.crowd(table.mask.hash(key, &self.secret));
        tables.min_by_key(|(_, table)| crowd(table)).map(|(index, _)| index)
    }

    /// Moves rules to a new table from the places that were too crowded for the rule that it was made for.
    fn relieve(&mut self, new: usize, key: &Key, mask: &[u64; WORDS]) {
        let secret = self.secret;
        let Some(target) = self.tables.get(new).map(|table| table.mask) else { return };
        let mut moving = Vec::new();
        for table in self.tables.iter_mut().filter(|table| is_part(&table.mask, mask)) {
            let hash = table.mask.hash(key, &secret);
            if table.mask == target || table.crowd(hash) < CROWDED {
                continue;
            }
            let rules = table.chain(hash).map_or(&[][..], |chain| chain.list.as_slice());
            let fit = |rule: &&Arc<Rule>| is_part(&target, &rule.compiled.shape().spread());
            let fit: Vec<_> = rules.iter().filter(fit).cloned().collect();
            for rule in fit {
                table.remove(hash, &rule);
                moving.push(rule);
            }
        }
        if let Some(table) = self.tables.get_mut(new) {
            for rule in moving {
                table.insert(table.mask.hash(&rule.compiled.key(), &secret), rule);
            }
        }
    }

    /// Takes a rule's match out. `false` if it is not there.
    pub(crate) fn remove(&mut self, rule: &Arc<Rule>) -> bool {
        let (key, mask) = (rule.compiled.key(), rule.compiled.shape().spread());
        let secret = self.secret;
        let fits = self.tables.iter_mut().enumerate().filter(|(_, table)| is_part(&table.mask, &mask));
        for (index, table) in fits {
            if table.remove(table.mask.hash(&key, &secret), rule) {
                if table.rules == 0 {
                    self.tables.remove(index);
                } else {
                    self.tables.sort_by_key(|table| table.best);
                }
                return true;
            }
        }
        false
    }
}

/// Whether all bits of a table are bits of a rule.
fn is_part(table: &Shape, rule: &[u64; WORDS]) -> bool {
    table.iter().all(|(at, mask)| rule.get(usize::from(at)).is_some_and(|rule| mask & !rule == 0))
}

fn bits(shape: &Shape) -> u32 {
    shape.iter().map(|(_, mask)| mask.count_ones()).sum()
}

/// Enough bits to tell places apart without more.
const ENOUGH: u32 = 16;

/// Fewer bits than a rule has, such that rules with other masks fit too: prefixes are shortened to multiples of eight, and
/// what tells little apart is left out where there is enough without it.
fn relax(mask: &[u64; WORDS]) -> [u64; WORDS] {
    let [w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12] = *mask;
    let mac = |word: u64| if word >> 16 == 0xffff_ffff_ffff { word & !0xffff } else { 0 };
    let port = |word: u64, half: u64| if word & half == half { half } else { 0 };
    let shorten = |word: u64| {
        let len = word.leading_ones() / 8 * 8;
        u64::MAX.checked_shl(64 - len).unwrap_or(0)
    };
    // An IPv4 prefix ends in the middle of its word.
    let prefix = |high: u64, low: u64| {
        if high == u64::MAX { (high, shorten(low)) } else { (shorten(high), 0) }
    };
    let (src, dst) = (prefix(w3, w4), prefix(w5, w6));
    let ports = port(w2, 0xffff_ffff << 32) | port(w2, 0xffff_ffff);
    let mut relaxed =
        [mac(w0), mac(w1), ports, src.0, src.1, dst.0, dst.1, 0, 0, shorten(w9), shorten(w10), 0, 0];
    let count = |words: &[u64; WORDS]| words.iter().map(|word| word.count_ones()).sum::<u32>();
    let add = |relaxed: &mut [u64; WORDS], at: usize, bits: u64| {
        if count(relaxed) < ENOUGH
            && let Some(word) = relaxed.get_mut(at)
        {
            *word |= bits;
        }
    };
    add(&mut relaxed, 7, port(w7, 0xffff << 32));
    add(&mut relaxed, 7, port(w7, 0xffff << 48));
    add(&mut relaxed, 8, w8 & 0x0fff_0fff_0fff);
    add(&mut relaxed, 7, w7 & (0xff << 24));
    add(&mut relaxed, 0, w0 & 0xffff);
    for (at, word) in [(7, w7), (1, w1), (0, w0), (8, w8), (11, w11), (12, w12)] {
        add(&mut relaxed, at, word);
    }
    relaxed
}
