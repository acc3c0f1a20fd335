//! Which rules changed lately, so that a cached decision need not be made anew after each change.
//!
//! A decision holds the *epoch* under which it was made. When the epoch is another one, the decision is still good if no
//! rule that came, went or changed since could match the frame: a rule that was used matched it, and one that would now be
//! used matches it. So a change of a rule costs the flows that it is about, and a few comparisons the others.
//!
//! ```text
//!   epochs    | 41 | 41 | 42 | 43 | 44 |        a decision of epoch 42 asks the rules of 43 and 44;
//!   rules     | r7 | r8 | r9 | r7 | r2 |        one of epoch 40 is made anew: too much was forgotten
//! ```
//!
//! Each side of the rules has its own list, so that who judges waits for nobody ([`super::set`]).

use std::collections::VecDeque;
use std::sync::Arc;

use super::concern::{Cells, Place};
use super::key::{Key, MARK_WORD, flag};
use super::rule::{Direction, Domain, Rule};
use crate::deep_key::About;

/// Changes that are remembered. To look through more of them would take as long as to decide anew among many rules.
const REMEMBERED: usize = 512;

/// Places of source, destination and flags in a key: [`super::key`].
const SRC: u8 = 3;
const DST: u8 = 5;
const FLAGS: u8 = 8;

/// A rule that came or went: one cache line, with what tells of most rules that they do not match without a look at the rule,
/// whose lines are in another CPU's cache.
#[derive(Debug)]
#[repr(align(64))]
struct Moved {
    epoch: u64,
    place: Place,
    /// Mask and value of the first words of both IP addresses.
    src: (u64, u64),
    dst: (u64, u64),
    rule: Arc<Rule>,
}

/// The ports of a decision as far as rules care: the tenants that they belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parties {
    /// Of the port that the frame came from.
    pub(crate) ingress: Option<u32>,
    /// Of the one port that it leaves by, if there is one.
    pub(crate) egress: Option<u32>,
}

/// The last changes of a side, oldest first.
#[derive(Debug)]
pub(crate) struct Changed {
    /// Decisions of an older epoch cannot be judged.
    floor: u64,
    epoch: u64,
    rules: VecDeque<Moved>,
}

impl Default for Changed {
    fn default() -> Changed {
        Changed { floor: 0, epoch: 1, rules: VecDeque::with_capacity(REMEMBERED) }
    }
}

impl Changed {
    /// These came or went with this epoch.
    pub(crate) fn note<'a>(&mut self, epoch: u64, rules: impl Iterator<Item = (Place, &'a Arc<Rule>)>) {
        self.epoch = epoch;
        for (place, rule) in rules {
            if self.rules.len() >= REMEMBERED
                && let Some(oldest) = self.rules.pop_front()
            {
                self.floor = oldest.epoch;
            }
            let (key, mask) = (rule.compiled.key(), Key(rule.compiled.shape().spread()));
            // Of ARP and neighbour discovery these words hold what a flow does not tell.
            let is_ip = (key.word(FLAGS) >> 48) as u16 & (flag::ARP | flag::ND) == 0;
            let word = |at| if is_ip { (mask.word(at), key.word(at)) } else { (0, 0) };
            let (src, dst) = (word(SRC), word(DST));
            self.rules.push_back(Moved { epoch, place, src, dst, rule: Arc::clone(rule) });
        }
    }

    /// Whether a decision of epoch `made` about a flow is good under epoch `now`. `key` is asked for if a rule may be about it.
    /// Marks that rules set on the way are not known any more: a rule that asks for one counts as if it had found it.
    pub(crate) fn still_good(
        &self,
        (made, now): (u64, u64),
        (flow, cells): (&About, &Cells),
        parties: Parties,
        key: impl Fn() -> Option<Key>,
    ) -> bool {
        if made < self.floor || now > self.epoch {
            return false;
        }
        let mut known = None;
        for moved in self.rules.iter().rev() {
            if moved.epoch <= made {
                break;
            }
            if !moved.place.is_of(cells) {
                continue;
            }
            let differs = |word: u64, (mask, value)| (word ^ value) & mask;
            if differs(flow.src, moved.src) | differs(flow.dst, moved.dst) != 0 {
                continue;
            }
            let Some(key) = known.or_else(&key) else { return false };
            known = Some(key);
            let rule = &moved.rule;
            let tenant = match rule.direction {
                Direction::In => parties.ingress,
                Direction::Out => parties.egress,
            };
            let concerned = match rule.identity.domain {
                Domain::Infrastructure => true,
                Domain::Tenant(number) => tenant == Some(number),
            };
            if concerned && rule.compiled.matches_but(&key, MARK_WORD) {
                return false;
            }
        }
        true
    }
}
