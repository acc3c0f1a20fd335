//! What the reference switch knows of multicast listeners in one VLAN: written from RFC 3376, section 6, and RFC 4541, slow
//! and obvious. Addresses are numbers, times are milliseconds.
//!
//! # The rules, in their order
//!
//! 1. A query (not of address 0) makes its port a router's, and its sender the querier if there is none or its address is
//!    not higher; a switch with an address of its own gives way to lower ones only. Whoever is silent for robustness x
//!    interval + half the response time is querier no longer, and its port no router's.
//! 2. A response time after there is a querier for the first time, listeners are known. Before, and while there is none,
//!    every group goes everywhere.
//! 3. Each port has, for each group, a filter: INCLUDE some sources or EXCLUDE some; reports change it by the tables of
//!    section 6.4.
//! 4. If the switch is the querier it asks after whoever left, and what is not answered in robustness x last member
//!    interval is gone. If another is, its query about the group does the same.
//! 5. A frame goes to the ports whose filter takes its source, and to routers; of a group that nobody listens to, to
//!    routers, to nobody or everywhere, as is said.
//! 6. Ports that are said to be routers' are so whatever is heard, and nobody else's silence changes that.

use std::collections::{BTreeMap, BTreeSet};

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MODE_IS_INCLUDE.
    IsIn,
    /// MODE_IS_EXCLUDE.
    IsEx,
    /// CHANGE_TO_INCLUDE_MODE.
    ToIn,
    /// CHANGE_TO_EXCLUDE_MODE.
    ToEx,
    /// ALLOW_NEW_SOURCES.
    Allow,
    /// BLOCK_OLD_SOURCES.
    Block,
}

/// One port's filter for one group.
#[derive(Clone, Debug, Default)]
struct Filter {
    /// If EXCLUDE: when the group's timer runs out.
    exclude: Option<u64>,
    /// Sources with a timer: A of INCLUDE, X of EXCLUDE.
    timed: BTreeMap<u32, u64>,
    /// Y of EXCLUDE.
    blocked: BTreeSet<u32>,
    v2_until: u64,
}

/// Where frames go to groups that nobody listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregistered {
    /// To routers.
    Routers,
    /// Everywhere.
    Everywhere,
    /// To nobody.
    Nobody,
}

/// The VLAN.
#[derive(Clone, Debug)]
pub struct Vlan {
    /// The switch's own address, if it is to ask.
    pub own: Option<u32>,
    /// Ports behind which there is one host each.
    pub fast: BTreeSet<usize>,
    /// Seconds between two general queries.
    pub interval: u64,
    /// Ports that are routers' by configuration.
    pub fixed: BTreeSet<usize>,
    /// Where frames go to groups that nobody listens to.
    pub unregistered: Unregistered,
    /// Messages that may be lost: robustness - 1.
    pub robustness: u64,
    /// Milliseconds that hosts may take to answer the switch.
    pub response: u64,
    /// Milliseconds between two questions to those who are left when somebody left.
    pub last_interval: u64,
    filters: BTreeMap<(u32, usize), Filter>,
    routers: BTreeMap<usize, u64>,
    other: Option<(u32, u64)>,
    known_from: Option<u64>,
    known: bool,
}

impl Vlan {
    /// With nobody in it, at time 0.
    pub fn new(own: Option<u32>, fast: BTreeSet<usize>, interval: u64) -> Vlan {
        Vlan {
            own,
            fast,
            interval,
            fixed: BTreeSet::new(),
            unregistered: Unregistered::Routers,
            robustness: 2,
            response: 10_000,
            last_interval: 1_000,
            filters: BTreeMap::new(),
            routers: BTreeMap::new(),
            other: None,
            known_from: own.map(|_| 10_000),
            known: false,
        }
    }

    fn membership(&self) -> u64 {
        self.robustness * self.interval * 1000 + self.response
    }

    /// Time passes.
    pub fn advance(&mut self, now: u64) {
        if self.other.is_some_and(|(_, until)| until <= now) {
            self.other = None;
            if self.own.is_none() {
                self.known_from = None;
            }
        }
        self.routers.retain(|_, until| *until > now);
        self.known = self.known_from.is_some_and(|from| from <= now);
        for filter in self.filters.values_mut() {
            let out: Vec<u32> = filter.timed.iter().filter(|(_, t)| **t <= now).map(|(s, _)| *s).collect();
            for source in out {
                filter.timed.remove(&source);
                if filter.exclude.is_some() {
                    filter.blocked.insert(source);
                }
            }
            if filter.exclude.is_some_and(|until| until <= now) {
                filter.exclude = None;
                filter.blocked.clear();
            }
        }
        self.filters.retain(|_, filter| filter.exclude.is_some() || !filter.timed.is_empty());
    }

    /// A query of the version 2 or 3 with a response time of 10 s, or of 1 s about a group.
    pub fn query(&mut self, port: usize, from: u32, group: Option<u32>, now: u64) {
        let wins = match (self.other, self.own) {
            (Some((other, _)), _) if other == from => true,
            (Some((other, _)), _) => from != 0 && (other == 0 || from < other),
            (None, Some(own)) => from != 0 && (own == 0 || from < own),
            (None, None) => true,
        };
        let until = now + self.robustness * self.interval * 1000 + self.response / 2;
        if wins {
            self.other = Some((from, until));
            self.known_from.get_or_insert(now + self.response);
        }
        if from != 0 {
            // The sender of a query that did not win is a router all the same.
            let until = if wins { until } else { now + 255_000 };
            let held = self.routers.entry(port).or_insert(until);
            *held = (*held).max(until);
        }
        for ((of, _), filter) in &mut self.filters {
            if Some(*of) == group
                && let Some(timer) = &mut filter.exclude
            {
                *timer = (*timer).min(now + self.robustness * 1000);
            }
        }
    }

    /// A report of version 2.
    pub fn report_v2(&mut self, port: usize, group: u32, now: u64) {
        let until = now + self.membership();
        self.record(port, Kind::IsEx, group, &BTreeSet::new(), now);
        if let Some(filter) = self.filters.get_mut(&(group, port)) {
            filter.v2_until = until;
        }
    }

    /// A leave of version 2.
    pub fn leave(&mut self, port: usize, group: u32, now: u64) {
        if self.filters.contains_key(&(group, port)) {
            self.record(port, Kind::ToIn, group, &BTreeSet::new(), now);
        }
    }

    /// A record of a report of version 3.
    pub fn record(&mut self, port: usize, kind: Kind, group: u32, named: &BTreeSet<u32>, now: u64) {
        let gmi = now + self.membership();
        let asks = self.own.is_some() && self.other.is_none();
        let last = now + self.robustness * self.last_interval;
        let fast = self.fast.contains(&port);
        let filter = self.filters.entry((group, port)).or_default();
        let mut b = named.clone();
        if filter.v2_until > now {
            match kind {
                Kind::Block => return,
                Kind::ToEx => b.clear(),
                _ => {}
            }
        }
        let timed: BTreeSet<u32> = filter.timed.keys().copied().collect();
        let mut asked: BTreeSet<u32> = BTreeSet::new();
        let mut ask_group = false;
        match (filter.exclude, kind) {
            (_, Kind::ToIn) if fast => {
                *filter = Filter { v2_until: filter.v2_until, ..Filter::default() };
                filter.timed = b.iter().map(|s| (*s, gmi)).collect();
            }
            (_, Kind::ToEx) if fast => {
                *filter = Filter { v2_until: filter.v2_until, exclude: Some(gmi), ..Filter::default() };
                filter.blocked = b;
            }
            (Some(_), Kind::Block) if fast => {
                filter.timed.retain(|s, _| !b.contains(s));
                filter.blocked.extend(b);
            }
            (None, Kind::Block) if fast => filter.timed.retain(|s, _| !b.contains(s)),
            (None, Kind::IsIn | Kind::Allow | Kind::ToIn) => {
                filter.timed.extend(b.iter().map(|s| (*s, gmi)));
                if kind == Kind::ToIn {
                    asked = &timed - &b;
                }
            }
            (None, Kind::IsEx | Kind::ToEx) => {
                filter.blocked = &b - &timed;
                filter.timed.retain(|s, _| b.contains(s));
                filter.exclude = Some(gmi);
                if kind == Kind::ToEx {
                    asked = &timed & &b;
                }
            }
            (None, Kind::Block) => asked = &timed & &b,
            (Some(_), Kind::IsIn | Kind::Allow | Kind::ToIn) => {
                filter.blocked = &filter.blocked - &b;
                filter.timed.extend(b.iter().map(|s| (*s, gmi)));
                if kind == Kind::ToIn {
                    asked = &timed - &b;
                    ask_group = true;
                }
            }
            (Some(timer), Kind::IsEx | Kind::ToEx) => {
                let new = &(&b - &timed) - &filter.blocked;
                filter.timed.retain(|s, _| b.contains(s));
                filter.blocked = &filter.blocked & &b;
                let until = if kind == Kind::IsEx { gmi } else { timer };
                filter.timed.extend(new.iter().map(|s| (*s, until)));
                filter.exclude = Some(gmi);
                if kind == Kind::ToEx {
                    asked = &b - &filter.blocked;
                }
            }
            (Some(timer), Kind::Block) => {
                let new = &(&b - &timed) - &filter.blocked;
                filter.timed.extend(new.iter().map(|s| (*s, timer)));
                asked = &b - &filter.blocked;
            }
        }
        if asks {
            for (_, timer) in filter.timed.iter_mut().filter(|(s, _)| asked.contains(s)) {
                *timer = (*timer).min(last);
            }
            if let Some(timer) = filter.exclude.as_mut().filter(|_| ask_group) {
                *timer = (*timer).min(last);
            }
        }
        if filter.exclude.is_none() && filter.timed.is_empty() {
            self.filters.remove(&(group, port));
        }
    }

    /// The ports that a frame goes to, the sender perhaps among them; `None`: to all.
    pub fn goes_to(&self, group: u32, source: u32) -> Option<BTreeSet<usize>> {
        if !self.known {
            return None;
        }
        let takes = |filter: &Filter| match filter.exclude {
            Some(_) => !filter.blocked.contains(&source),
            None => filter.timed.contains_key(&source),
        };
        if !self.filters.keys().any(|(of, _)| *of == group) {
            return match self.unregistered {
                Unregistered::Routers => Some(self.routers()),
                Unregistered::Everywhere => None,
                Unregistered::Nobody => Some(BTreeSet::new()),
            };
        }
        let listeners = self.filters.iter().filter(|((of, _), filter)| *of == group && takes(filter));
        Some(listeners.map(|((_, port), _)| *port).chain(self.routers()).collect())
    }

    /// The ports with routers behind them.
    pub fn routers(&self) -> BTreeSet<usize> {
        self.routers.keys().copied().chain(self.fixed.iter().copied()).collect()
    }
}
