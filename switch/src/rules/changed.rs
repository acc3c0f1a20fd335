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

use std::collections::VecDeque;
use std::sync::Arc;

use super::concern::{Cells, Place};
use super::key::{Key, MARK_WORD};
use super::rule::{Direction, Domain, Rule};

/// Changes that are remembered.
const REMEMBERED: usize = 2048;

/// The ports of a decision as far as rules care: the tenants that they belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parties {
    /// Of the port that the frame came from.
    pub(crate) ingress: Option<u32>,
    /// Of the one port that it leaves by, if there is one.
    pub(crate) egress: Option<u32>,
}

/// The last changes, oldest first.
#[derive(Debug)]
pub(crate) struct Changed {
    /// Decisions of an older epoch cannot be judged.
    floor: u64,
    epoch: u64,
    /// With what they can concern, which is looked at before the rule is: its lines are in another CPU's cache.
    rules: VecDeque<(u64, Place, Arc<Rule>)>,
}

impl Changed {
    pub(crate) fn new() -> Changed {
        Changed { floor: 0, epoch: 1, rules: VecDeque::with_capacity(REMEMBERED) }
    }

    /// These came or went with this epoch.
    pub(crate) fn note<'a>(&mut self, epoch: u64, rules: impl Iterator<Item = (Place, &'a Arc<Rule>)>) {
        self.epoch = epoch;
        for (place, rule) in rules {
            if self.rules.len() >= REMEMBERED
                && let Some((oldest, ..)) = self.rules.pop_front()
            {
                self.floor = oldest;
            }
            self.rules.push_back((epoch, place, Arc::clone(rule)));
        }
    }

    /// Whether a decision of epoch `made` about a flow is good, and up to which epoch. `key` is asked for if a rule may be about
    /// it. Marks that rules set on the way are not known any more: a rule that asks for one counts as if it had found it.
    pub(crate) fn still_good(
        &self,
        made: u64,
        cells: &Cells,
        parties: Parties,
        key: impl Fn() -> Option<Key>,
    ) -> Option<u64> {
        if made < self.floor {
            return None;
        }
        for (epoch, place, rule) in self.rules.iter().rev() {
            if *epoch <= made {
                break;
            }
            if !place.is_of(cells) {
                continue;
            }
            let tenant = match rule.direction {
                Direction::In => parties.ingress,
                Direction::Out => parties.egress,
            };
            let concerned = match rule.identity.domain {
                Domain::Infrastructure => true,
                Domain::Tenant(number) => tenant == Some(number),
            };
            if concerned && rule.compiled.matches_but(&key()?, MARK_WORD) {
                return None;
            }
        }
        Some(self.epoch)
    }
}
