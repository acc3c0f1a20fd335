//! Rules: what a frame is asked on its way, and what is done with it.
//!
//! ```text
//!   RuleSpec --compile--> Rule --insert--> Classifier of (domain, direction, group)   x 2, left and right
//!     terms (Match)        values, shape     tables of merged tuples                       |
//!     actions              Do...                                                           v
//!                                              frame --Key--> find --> first by rank --> actions, next group
//! ```
//!
//! `terms` says what can be matched, and is what a rule means; `compile` and `key` make bits of it; `classifier` finds the
//! first rule that matches; `set` holds all rules and changes them under traffic; `changed` tells which cached decisions a
//! change concerns; `rewrite` sets fields. The stages that use them are in `stage/rules.rs`.

mod changed;
mod classifier;
mod compile;
mod concern;
mod key;
mod rewrite;
mod rule;
mod set;
mod terms;

pub(crate) use changed::Parties;
pub use classifier::ClassifierShape;
pub(crate) use concern::Concerns;
pub(crate) use key::Key;
pub(crate) use rewrite::Rewrite;
pub use rule::CtAction;
pub use rule::{
    Action, Direction, Domain, MAX_ACTIONS, MAX_GROUP, MAX_MATCHES, RuleCounts, RuleError, RuleId, RuleSpec,
    Set,
};
pub(crate) use rule::{Do, Identity, Sampler};
pub(crate) use set::RuleSet;
pub use set::{Change, RuleView, TransactionError};
pub use terms::{Connection, Fragmented, Input, Match, Term, prefix4, prefix6};

/// The rules of a switch, to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a>(pub(crate) &'a RuleSet);

impl Rules<'_> {
    /// The rules of one domain or of all, by domain, direction, group, priority and number.
    pub fn list(&self, domain: Option<Domain>) -> Vec<RuleView> {
        self.0.list(domain)
    }

    /// One rule.
    pub fn get(&self, domain: Domain, id: RuleId) -> Option<RuleView> {
        self.0.get(domain, id)
    }

    /// How many matches the rules of a domain have in all.
    pub fn count(&self, domain: Domain) -> u32 {
        self.0.count(domain)
    }

    /// How many they may have in all. Those that are there stay.
    pub fn set_limit(&self, domain: Domain, limit: u32) {
        self.0.set_limit(domain, limit);
    }

    /// What the tables of a group are made of.
    pub fn shape(&self, domain: Domain, direction: Direction, group: u8) -> ClassifierShape {
        self.0.shape(domain, direction, group)
    }

    /// Grows by one with each transaction.
    pub fn epoch(&self) -> u64 {
        self.0.epoch()
    }
}

#[cfg(test)]
mod tests;
