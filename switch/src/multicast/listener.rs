//! What is known of the hosts behind one port and one group: the router's side of IGMPv3 and MLDv2 (RFC 3376, section 6;
//! RFC 3810, section 7), for a port in the place of an interface.
//!
//! ```text
//!   INCLUDE(A)     frames of the sources A are wanted, each as long as its timer runs
//!   EXCLUDE(X,Y)   frames of all sources are wanted but of Y; those of X by their timers, so that they may go over to
//!                  INCLUDE(X) when the group's timer, which holds the mode, has run out
//! ```
//!
//! Reports of older versions are EXCLUDE with no sources, and hold a timer of their own meanwhile: what they cannot say
//! must not be believed of others (section 7.3.2).
//!
//! # Invariants
//! * A source with timer 0 is one of Y; it occurs in EXCLUDE only.
//! * Times are milliseconds; a timer is the moment at which it has run out.

use core::net::IpAddr;
use std::collections::BTreeMap;

use fabnic_wire::membership::RecordKind;

mod saved;

/// Milliseconds since some moment before the start.
pub(crate) type Millis = u64;

/// Whether listed sources are the wanted or the unwanted ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterMode {
    /// Only listed sources are wanted.
    Include,
    /// All but the listed ones.
    Exclude,
}

/// How long what lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) now: Millis,
    /// Group membership interval (section 8.4).
    pub(crate) membership: Millis,
    /// Last member query time (section 8.10).
    pub(crate) last_member: Millis,
    /// Last member query interval (section 8.8).
    pub(crate) last_member_interval: Millis,
    /// Last member query count (section 8.9).
    pub(crate) last_member_count: u8,
    /// The switch is the querier: it asks, and shortens timers when it does.
    pub(crate) asks: bool,
}

/// Questions that are asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Question {
    /// How often still.
    left: u8,
    /// When next.
    next: Millis,
    sources: Vec<IpAddr>,
}

/// What is to be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// About these sources; none: about the group.
    pub(crate) sources: Vec<IpAddr>,
    /// Routers need not shorten their timers: somebody answered already.
    pub(crate) suppress: bool,
}

/// Hosts behind one port that listen to one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) mode: FilterMode,
    /// Holds EXCLUDE.
    pub(crate) timer: Millis,
    pub(crate) sources: BTreeMap<IpAddr, Millis>,
    /// By configuration, whatever else is known.
    pub(crate) is_static: bool,
    /// There are hosts of IGMPv1, of IGMPv2 or MLDv1, up to then.
    v1_until: Millis,
    v2_until: Millis,
    group_question: Question,
    source_question: Question,
}

/// What decides whether a frame goes to the port.
#[derive(PartialEq, Eq)]
pub(crate) struct Wants {
    is_static: bool,
    mode: FilterMode,
    /// The listed sources that decide: all of INCLUDE, Y of EXCLUDE.
    sources: Vec<IpAddr>,
}

impl Listener {
    /// Nobody, yet.
    pub(crate) fn new() -> Listener {
        Listener {
            mode: FilterMode::Include,
            timer: 0,
            sources: BTreeMap::new(),
            is_static: false,
            v1_until: 0,
            v2_until: 0,
            group_question: Question::default(),
            source_question: Question::default(),
        }
    }

    /// Whether nobody listens.
    pub(crate) fn is_nobody(&self) -> bool {
        !self.is_static && self.mode == FilterMode::Include && self.sources.is_empty()
    }

    /// Whether a frame of this source is wanted.
    pub(crate) fn takes(&self, source: IpAddr) -> bool {
        let listed = self.sources.get(&source).copied();
        self.is_static
            || match self.mode {
                FilterMode::Include => listed.is_some(),
                FilterMode::Exclude => listed != Some(0),
            }
    }

    /// Whether the answer of [`Listener::takes`] is yes for all sources.
    pub(crate) fn takes_all(&self) -> bool {
        self.is_static || (self.mode == FilterMode::Exclude && self.sources.values().all(|timer| *timer != 0))
    }

    pub(crate) fn wants(&self) -> Wants {
        let decides = |timer: &Millis| self.mode == FilterMode::Include || *timer == 0;
        let sources = self.sources.iter().filter(|(_, timer)| decides(timer)).map(|(source, _)| *source);
        Wants { is_static: self.is_static, mode: self.mode, sources: sources.collect() }
    }

    /// What it takes of the limits: one, and one for each source.
    pub(crate) fn cost(&self) -> u32 {
        1 + u32::try_from(self.sources.len()).unwrap_or(u32::MAX - 1)
    }

    /// The version of the oldest hosts: 1 to 3 of IGMP.
    pub(crate) fn version(&self, now: Millis) -> u8 {
        match (self.v1_until > now, self.v2_until > now) {
            (true, _) => 1,
            (_, true) => 2,
            _ => 3,
        }
    }

    /// A report of IGMPv1, IGMPv2 or MLDv1 (which counts as 2).
    pub(crate) fn old_report(&mut self, version: u8, times: &Times) {
        let until = times.now + times.membership;
        if version == 1 {
            self.v1_until = until
        } else {
            self.v2_until = until
        }
        self.record(RecordKind::IsExclude, &[], false, times);
    }

    /// A leave of IGMPv2 or MLDv1.
    pub(crate) fn leave(&mut self, fast: bool, times: &Times) {
        self.record(RecordKind::ToInclude, &[], fast, times);
    }

    /// A record of a report. `fast`: there is one host only, and it is as it says.
    pub(crate) fn record(&mut self, kind: RecordKind, named: &[IpAddr], fast: bool, times: &Times) {
        let mut named = named.to_vec();
        match (kind, self.version(times.now)) {
            (RecordKind::Block, 1 | 2) | (RecordKind::ToInclude, 1) => return,
            (RecordKind::ToExclude, 1 | 2) => named.clear(),
            _ => {}
        }
        named.sort_unstable();
        named.dedup();
        if fast && matches!(kind, RecordKind::ToInclude | RecordKind::ToExclude | RecordKind::Block) {
            return self.believe(kind, &named, times);
        }
        match self.mode {
            FilterMode::Include => self.record_in_include(kind, &named, times),
            FilterMode::Exclude => self.record_in_exclude(kind, &named, times),
        }
    }

    /// The one host says what it wants.
    fn believe(&mut self, kind: RecordKind, named: &[IpAddr], times: &Times) {
        (self.group_question, self.source_question) = (Question::default(), Question::default());
        match kind {
            RecordKind::Block if self.mode == FilterMode::Exclude => {
                self.sources.extend(named.iter().map(|source| (*source, 0)));
            }
            RecordKind::Block => self.sources.retain(|source, _| !named.contains(source)),
            RecordKind::ToExclude => {
                (self.mode, self.timer) = (FilterMode::Exclude, times.now + times.membership);
                self.sources = named.iter().map(|source| (*source, 0)).collect();
            }
            _ => {
                self.mode = FilterMode::Include;
                let until = times.now + times.membership;
                self.sources = named.iter().map(|source| (*source, until)).collect();
            }
        }
    }

    /// Section 6.4, the rows that begin with INCLUDE (A).
    fn record_in_include(&mut self, kind: RecordKind, named: &[IpAddr], times: &Times) {
        let until = times.now + times.membership;
        match kind {
            RecordKind::IsInclude | RecordKind::Allow | RecordKind::ToInclude => {
                let others = self.unnamed(named, |_| true);
                self.sources.extend(named.iter().map(|source| (*source, until)));
                if kind == RecordKind::ToInclude {
                    self.ask_sources(others, times);
                }
            }
            RecordKind::IsExclude | RecordKind::ToExclude => {
                self.sources.retain(|source, _| named.contains(source));
                let both: Vec<IpAddr> = self.sources.keys().copied().collect();
                for source in named {
                    self.sources.entry(*source).or_insert(0);
                }
                (self.mode, self.timer) = (FilterMode::Exclude, until);
                if kind == RecordKind::ToExclude {
                    self.ask_sources(both, times);
                }
            }
            RecordKind::Block => {
                let both = named.iter().filter(|source| self.sources.contains_key(source)).copied();
                let both = both.collect();
                self.ask_sources(both, times);
            }
        }
    }

    /// The rows that begin with EXCLUDE (X,Y).
    fn record_in_exclude(&mut self, kind: RecordKind, named: &[IpAddr], times: &Times) {
        let until = times.now + times.membership;
        match kind {
            RecordKind::IsInclude | RecordKind::Allow | RecordKind::ToInclude => {
                let others = self.unnamed(named, |timer| timer != 0);
                self.sources.extend(named.iter().map(|source| (*source, until)));
                if kind == RecordKind::ToInclude {
                    self.ask_sources(others, times);
                    self.ask_group(times);
                }
            }
            RecordKind::IsExclude | RecordKind::ToExclude => {
                self.sources.retain(|source, _| named.contains(source));
                let new = if kind == RecordKind::IsExclude { until } else { self.timer };
                for source in named {
                    self.sources.entry(*source).or_insert(new);
                }
                self.timer = until;
                if kind == RecordKind::ToExclude {
                    let running = self.sources.iter().filter(|(_, timer)| **timer != 0);
                    let running = running.map(|(source, _)| *source).collect();
                    self.ask_sources(running, times);
                }
            }
            RecordKind::Block => {
                for source in named {
                    self.sources.entry(*source).or_insert(self.timer);
                }
                let running = |source: &&IpAddr| self.sources.get(source).is_some_and(|timer| *timer != 0);
                let running = named.iter().filter(running).copied().collect();
                self.ask_sources(running, times);
            }
        }
    }

    /// Known sources that are not named and whose timers are such.
    fn unnamed(&self, named: &[IpAddr], such: impl Fn(Millis) -> bool) -> Vec<IpAddr> {
        let others = self.sources.iter().filter(|(source, timer)| such(**timer) && !named.contains(source));
        others.map(|(source, _)| *source).collect()
    }

    /// Send Q(G,S): section 6.6.3.2.
    fn ask_sources(&mut self, sources: Vec<IpAddr>, times: &Times) {
        if !times.asks || sources.is_empty() {
            return;
        }
        self.shorten_sources(&sources, times);
        let mut all = core::mem::take(&mut self.source_question.sources);
        all.extend(sources);
        all.sort_unstable();
        all.dedup();
        self.source_question = Question { left: times.last_member_count, next: times.now, sources: all };
    }

    /// Send Q(G): section 6.6.3.1.
    fn ask_group(&mut self, times: &Times) {
        if times.asks {
            self.shorten(times);
            self.group_question =
                Question { left: times.last_member_count, next: times.now, sources: Vec::new() };
        }
    }

    /// A query for the group was sent or seen: who listens has to answer now.
    pub(crate) fn shorten(&mut self, times: &Times) {
        if self.mode == FilterMode::Exclude {
            self.timer = self.timer.min(times.now + times.last_member);
        }
    }

    /// The same of sources.
    pub(crate) fn shorten_sources(&mut self, sources: &[IpAddr], times: &Times) {
        for source in sources {
            if let Some(timer) = self.sources.get_mut(source) {
                *timer = (*timer).min(times.now + times.last_member);
            }
        }
    }

    /// Lets timers run out, and gives what is to be asked now.
    pub(crate) fn advance(&mut self, times: &Times) -> Vec<Ask> {
        let now = times.now;
        match self.mode {
            FilterMode::Include => self.sources.retain(|_, timer| *timer > now),
            FilterMode::Exclude if self.timer <= now => {
                self.mode = FilterMode::Include;
                self.sources.retain(|_, timer| *timer > now);
            }
            FilterMode::Exclude => {
                self.sources.values_mut().filter(|timer| **timer <= now).for_each(|timer| *timer = 0);
            }
        }
        let mut asks = Vec::new();
        let soon = now + times.last_member;
        if self.group_question.is_due(times) {
            let suppress = self.mode == FilterMode::Exclude && self.timer > soon;
            asks.push(Ask { sources: Vec::new(), suppress });
        }
        // Only sources that are still listed are asked for; those that somebody answered for, with the flag.
        let known = &self.sources;
        self.source_question.sources.retain(|source| known.get(source).is_some_and(|timer| *timer != 0));
        if self.source_question.sources.is_empty() {
            self.source_question.left = 0;
        }
        if self.source_question.is_due(times) {
            let (answered, open): (Vec<IpAddr>, Vec<IpAddr>) = self
                .source_question
                .sources
                .iter()
                .partition(|source| known.get(*source).is_some_and(|timer| *timer > soon));
            let of =
                |sources: Vec<IpAddr>, suppress| (!sources.is_empty()).then_some(Ask { sources, suppress });
            asks.extend(of(answered, true));
            asks.extend(of(open, false));
        }
        asks
    }

    /// When something is due next.
    pub(crate) fn due(&self) -> Millis {
        let mode = if self.mode == FilterMode::Exclude { self.timer } else { Millis::MAX };
        let sources = self.sources.values().filter(|timer| **timer != 0).min().copied();
        [Some(mode), sources, self.group_question.due(), self.source_question.due()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Millis::MAX)
    }
}

impl Question {
    fn due(&self) -> Option<Millis> {
        (self.left > 0).then_some(self.next)
    }

    /// Whether it is to be asked now; if so, it has been.
    fn is_due(&mut self, times: &Times) -> bool {
        let due = times.asks && self.left > 0 && self.next <= times.now;
        if due {
            self.left -= 1;
            self.next = times.now + times.last_member_interval;
        }
        if !times.asks {
            self.left = 0;
        }
        due
    }
}
