//! Listeners, as records and back.

use core::net::IpAddr;

use fabnic_port::PortId;
use fabnic_saved as records;
use fabnic_wire::Vid;

use super::{FilterMode, Listener, Millis, Question};
use crate::multicast::saved::{later, until};

impl Question {
    fn save(&self, now: Millis) -> records::Question {
        match self.left {
            0 => records::Question::default(),
            left => {
                records::Question { left, next_in_ms: until(self.next, now), sources: self.sources.clone() }
            }
        }
    }

    fn restored(saved: &records::Question, passed: Millis, now: Millis) -> Question {
        match saved.left {
            0 => Question::default(),
            left => Question {
                // Queries that were due meanwhile are asked now, one after the other.
                left: left.min(super::super::MOST_QUESTIONS),
                next: later(saved.next_in_ms, passed, now),
                sources: saved.sources.clone(),
            },
        }
    }
}

impl Listener {
    /// What was reported; nothing of what is configured only.
    pub(crate) fn save(
        &self,
        (vlan, group, port): (Vid, IpAddr, PortId),
        now: Millis,
    ) -> Option<records::Listener> {
        let excludes = self.mode == FilterMode::Exclude;
        let source = |(address, timer): (&IpAddr, &Millis)| records::Source {
            address: *address,
            left_ms: (*timer != 0).then(|| until(*timer, now)),
        };
        (excludes || !self.sources.is_empty()).then(|| records::Listener {
            vlan: vlan.get(),
            group,
            port: port.0,
            excludes,
            left_ms: if excludes { until(self.timer, now) } else { 0 },
            sources: self.sources.iter().map(source).collect(),
            v1_left_ms: until(self.v1_until, now),
            v2_left_ms: until(self.v2_until, now),
            group_question: self.group_question.save(now),
            source_question: self.source_question.save(now),
        })
    }

    /// Takes over what was reported, so much later. What has run out meanwhile has.
    pub(crate) fn restore(&mut self, saved: &records::Listener, passed: Millis, now: Millis) {
        let runs = |left: u64| left > passed;
        let excludes = saved.excludes && runs(saved.left_ms);
        self.mode = if excludes { FilterMode::Exclude } else { FilterMode::Include };
        self.timer = if excludes { later(saved.left_ms, passed, now) } else { 0 };
        let timer = |source: &records::Source| match source.left_ms.filter(|left| runs(*left)) {
            Some(left) => Some((source.address, later(left, passed, now).max(1))),
            None => excludes.then_some((source.address, 0)),
        };
        self.sources = saved.sources.iter().filter_map(timer).collect();
        let old_hosts = |left: u64| if runs(left) { later(left, passed, now) } else { 0 };
        (self.v1_until, self.v2_until) = (old_hosts(saved.v1_left_ms), old_hosts(saved.v2_left_ms));
        self.group_question = Question::restored(&saved.group_question, passed, now);
        self.source_question = Question::restored(&saved.source_question, passed, now);
    }
}
