//! Addresses that keep moving between ports: a loop, a duplicate, or somebody who pretends.
//!
//! Each move raises versions and makes workers decide flows anew, so an address that is seen on two ports in turn costs
//! everybody something. With damping on, its moves are counted from the first one on for `window` seconds; one more than
//! `moves` freezes it: it stays on its port for `hold` seconds, whatever is seen elsewhere, and then begins anew. It is
//! the MAC duplication detection of RFC 7432, section 15.1, with its defaults for `moves` and `window`; there the
//! operator ends it, here time does.
//!
//! ```text
//!   moves   1  2  3  4  5  6th: frozen            free again
//!   time  --|--|--|--|--|--|----- hold ----------->|--
//!           |<--------- window --------->|
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use core::sync::atomic::{AtomicU64, Ordering};
use fabnic_port::PortId;
use fabnic_wire::{MacAddr, Vid};
use parking_lot::{Mutex, RwLock};

use crate::fdb::Tick;
use crate::refusals::Refused;
use crate::stats::FdbStats;

/// How many reports of frozen addresses are kept.
pub const FREEZES_KEPT: usize = 64;

/// When an address that keeps moving is held where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveDamping {
    /// Moves that are allowed within the window; the next one freezes the address.
    pub moves: u32,
    /// Seconds, from the first move on.
    pub window: u32,
    /// Seconds for which it stays frozen.
    pub hold: u32,
}

impl Default for MoveDamping {
    fn default() -> MoveDamping {
        MoveDamping { moves: 5, window: 180, hold: 60 }
    }
}

/// An address was frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// Its VLAN.
    pub vlan: Vid,
    /// The address.
    pub mac: MacAddr,
    /// The port it stays on.
    pub port: PortId,
    /// The port that it was seen on.
    pub wanted: PortId,
    /// When: second since the start.
    pub at: u32,
    /// Until when: second since the start.
    pub until: u32,
}

/// An address's moves within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    /// When the window began; means nothing while `count` is 0.
    since: Tick,
    count: u32,
}

impl Moves {
    /// So many, of a window that began then.
    pub(crate) fn of(count: u32, since: Tick) -> Moves {
        Moves { since, count }
    }

    /// How many, and when the window began.
    pub(crate) fn parts(self) -> (u32, Tick) {
        (self.count, self.since)
    }
}

/// A counter that any thread may raise.
#[derive(Debug, Default)]
pub(crate) struct Events(AtomicU64);

impl Events {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The rule, who is frozen, and what was counted.
#[derive(Debug, Default)]
pub(crate) struct Damping {
    rule: RwLock<Option<MoveDamping>>,
    /// Until when, and which entry; at most one for each entry and freeze, gone when its time has come.
    frozen: Mutex<BinaryHeap<Reverse<(Tick, u64)>>>,
    reports: Mutex<VecDeque<Freeze>>,
    pub(crate) learned: Events,
    moves: Events,
    freezes: Events,
    pub(crate) aged: Events,
    pub(crate) refused: Refused,
}

impl Damping {
    pub(crate) fn set(&self, rule: Option<MoveDamping>) {
        *self.rule.write() = rule;
    }

    /// Asks whether the next move is one too many; gives until when the address, an entry's key, is to be frozen.
    pub(crate) fn judge(&self, moves: &mut Moves, key: u64, now: Tick) -> Option<Tick> {
        let rule = (*self.rule.read())?;
        if now.saturating_sub(moves.since) >= rule.window {
            moves.count = 0;
        }
        if moves.count < rule.moves {
            return None;
        }
        moves.count = 0;
        let until = now.saturating_add(rule.hold);
        self.frozen.lock().push(Reverse((until, key)));
        self.freezes.add(1);
        Some(until)
    }

    /// An address, by its entry's key, is frozen until then.
    pub(crate) fn hold(&self, until: Tick, key: u64) {
        self.frozen.lock().push(Reverse((until, key)));
    }

    /// Counters go on from what an earlier switch has counted.
    pub(crate) fn go_on(&self, before: &fabnic_saved::FdbTotals) {
        self.learned.add(before.learned);
        self.moves.add(before.moves);
        self.freezes.add(before.freezes);
        self.aged.add(before.aged);
        self.refused.go_on(&before.refused);
    }

    /// Notes a move.
    pub(crate) fn moved(&self, moves: &mut Moves, now: Tick) {
        self.moves.add(1);
        if moves.count == 0 {
            moves.since = now;
        }
        moves.count = moves.count.saturating_add(1);
    }

    pub(crate) fn report(&self, freeze: Freeze) {
        let mut reports = self.reports.lock();
        if reports.len() >= FREEZES_KEPT {
            reports.pop_front();
        }
        reports.push_back(freeze);
    }

    /// An address that is free again at this time, once.
    pub(crate) fn due(&self, now: Tick) -> Option<u64> {
        let mut frozen = self.frozen.lock();
        match frozen.peek() {
            Some(Reverse((until, _))) if *until <= now => frozen.pop().map(|Reverse((_, key))| key),
            _ => None,
        }
    }

    pub(crate) fn freezes(&self) -> Vec<Freeze> {
        self.reports.lock().iter().copied().collect()
    }

    pub(crate) fn stats(&self) -> FdbStats {
        FdbStats {
            learned: self.learned.get(),
            moves: self.moves.get(),
            freezes: self.freezes.get(),
            aged: self.aged.get(),
            refused: self.refused.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_move_too_many_freezes_and_time_frees() {
        let damping = Damping::default();
        let mut moves = Moves::default();
        for now in 0..100 {
            assert_eq!(damping.judge(&mut moves, 9, now), None, "off");
            damping.moved(&mut moves, now);
        }
        damping.set(Some(MoveDamping { moves: 3, window: 10, hold: 5 }));
        let mut moves = Moves::default();
        for now in [100, 103, 109] {
            assert_eq!(damping.judge(&mut moves, 9, now), None);
            damping.moved(&mut moves, now);
        }
        assert_eq!(damping.judge(&mut moves, 9, 109), Some(114));
        assert_eq!((damping.due(113), damping.due(114), damping.due(114)), (None, Some(9), None));
        assert_eq!(damping.judge(&mut moves, 9, 114), None, "it begins anew");
    }

    #[test]
    fn moves_that_are_rare_enough_are_free() {
        let damping = Damping::default();
        damping.set(Some(MoveDamping { moves: 1, window: 10, hold: 5 }));
        let mut moves = Moves::default();
        for now in (0..1000).step_by(10) {
            assert_eq!(damping.judge(&mut moves, 9, now), None);
            damping.moved(&mut moves, now);
        }
        assert_eq!(damping.judge(&mut moves, 9, 999), Some(1004));
        assert_eq!(damping.stats(), FdbStats { moves: 100, freezes: 1, ..FdbStats::default() });
    }

    #[test]
    fn reports_are_bounded() {
        let damping = Damping::default();
        for at in 0..1000 {
            let (vlan, mac) = (Vid::DEFAULT, MacAddr::new([2, 0, 0, 0, 0, 1]));
            damping.report(Freeze { vlan, mac, port: PortId(1), wanted: PortId(2), at, until: at + 1 });
        }
        let kept = damping.freezes();
        assert_eq!((kept.len(), kept[0].at), (FREEZES_KEPT, 1000 - FREEZES_KEPT as u32));
    }
}
