//! What a benchmark says: a table for people, JSON for programs.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    measure::{Effort, Window, comparable, median},
    peer::Peer,
};

/// Everything that was measured.
pub(crate) struct Report {
    rounds: usize,
    effort: Effort,
    pub(crate) cases: Vec<CaseReport>,
    /// Figures that compare Fabnic with something else than a peer.
    pub(crate) figures: Vec<Figure>,
}

/// One situation.
pub(crate) struct CaseReport {
    pub(crate) name: String,
    pub(crate) peers: Vec<PeerReport>,
}

/// One switch in one situation.
pub(crate) struct PeerReport {
    pub(crate) peer: Peer,
    pub(crate) rounds: Vec<Vec<Window>>,
    pub(crate) failures: Vec<String>,
}

/// One figure with its unit and what it is to be compared with.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) note: String,
}

impl PeerReport {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, rounds: Vec::new(), failures: Vec::new() }
    }

    /// The median over all comparable windows.
    pub(crate) fn median(&self, value: impl Fn(&Window) -> Option<f64>) -> Option<f64> {
        let all: Vec<Window> = self.rounds.iter().flatten().copied().collect();
        median(comparable(&all).iter().filter_map(value))
    }

    /// The windows of a round in which both CPUs were near, or all of it.
    fn round(&self, round: usize, near_only: bool) -> Option<f64> {
        let windows = self.rounds.get(round)?.iter().filter(|window| window.is_near() || !near_only);
        median(windows.map(|window| window.pps))
    }

    fn near(&self) -> (usize, usize) {
        let all = self.rounds.iter().flatten();
        (all.clone().filter(|window| window.is_near()).count(), all.count())
    }
}

impl CaseReport {
    /// How many times as fast Fabnic is as `other`: the median over rounds. Like is compared with like: a round in
    /// which only one of them had both CPUs near each other gives no ratio.
    fn ratio(&self, other: &PeerReport) -> Option<f64> {
        let fabnic = self.peers.iter().find(|report| report.peer == Peer::Fabnic)?;
        median((0..fabnic.rounds.len()).filter_map(|round| {
            let (ours, theirs) = match (fabnic.round(round, true), other.round(round, true)) {
                (Some(ours), Some(theirs)) => (ours, theirs),
                (None, None) => (fabnic.round(round, false)?, other.round(round, false)?),
                _ => return None,
            };
            (theirs > 0.0).then(|| ours / theirs)
        }))
    }
}

impl Report {
    pub(crate) fn new(rounds: usize, effort: Effort) -> Self {
        Self { rounds, effort, cases: Vec::new(), figures: Vec::new() }
    }

    /// Prints the tables.
    pub(crate) fn print(&self) {
        if !self.cases.is_empty() {
            println!(
                "\n{:<22} {:<11} {:>9} {:>9} {:>10} {:>13} {:>9}",
                "case", "switch", "Mpps", "Gb/s", "cycles/pkt", "fabnic is", "windows"
            );
        }
        for case in &self.cases {
            for report in &case.peers {
                let (near, all) = report.near();
                let ratio = match report.peer {
                    Peer::Fabnic => String::new(),
                    _ => case.ratio(report).map_or_else(String::new, |ratio| format!("{ratio:.2} x")),
                };
                println!(
                    "{:<22} {:<11} {:>9} {:>9} {:>10} {:>13} {:>9}",
                    case.name,
                    report.peer.name(),
                    cell(report.median(|window| Some(window.pps / 1e6)), 2),
                    cell(report.median(|window| Some(window.bps / 1e9)), 1),
                    cell(report.median(|window| window.cycles_per_packet), 0),
                    ratio,
                    format!("{near}/{all}"),
                );
            }
        }
        if !self.figures.is_empty() {
            println!("\n{:<44} {:>12} {:<8} note", "figure", "value", "unit");
        }
        for figure in &self.figures {
            println!("{:<44} {:>12.2} {:<8} {}", figure.name, figure.value, figure.unit, figure.note);
        }
    }

    /// Writes everything as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let cases: Vec<Value> = self
            .cases
            .iter()
            .map(|case| {
                let peers: Vec<Value> = case
                    .peers
                    .iter()
                    .map(|report| {
                        json!({
                            "switch": report.peer,
                            "median_pps": report.median(|window| Some(window.pps)),
                            "median_bps": report.median(|window| Some(window.bps)),
                            "median_cycles_per_packet": report.median(|window| window.cycles_per_packet),
                            "fabnic_ratio": (report.peer != Peer::Fabnic).then(|| case.ratio(report)).flatten(),
                            "rounds": report.rounds,
                            "failures": report.failures,
                        })
                    })
                    .collect();
                json!({ "name": case.name, "switches": peers })
            })
            .collect();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| json!({ "name": figure.name, "value": figure.value, "unit": figure.unit, "note": figure.note }))
            .collect();
        let whole = json!({
            "rounds": self.rounds,
            "windows": self.effort.windows,
            "window_seconds": self.effort.seconds,
            "cpu": cpu_model(),
            "cases": cases,
            "figures": figures,
        });
        let text = serde_json::to_string_pretty(&whole).context("cannot write JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

pub(super) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

pub(super) fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(pps: f64) -> Window {
        Window {
            pps,
            bps: 0.0,
            cycles_per_packet: None,
            latency_ns: None,
            distance_ns: [100, 100],
            switch_limits: None,
            lost: 0,
            exits: None,
        }
    }

    #[test]
    fn ratios_are_of_neighbours_in_a_round() {
        let mut fabnic = PeerReport::new(Peer::Fabnic);
        let mut testpmd = PeerReport::new(Peer::Testpmd);
        // The machine was twice as fast in the second round; the ratio was the same.
        fabnic.rounds = vec![vec![window(20.0)], vec![window(40.0)], vec![window(44.0)]];
        testpmd.rounds = vec![vec![window(10.0)], vec![window(20.0)], vec![window(20.0)]];
        let case = CaseReport { name: String::new(), peers: vec![fabnic, testpmd] };
        assert_eq!(case.ratio(&case.peers[1]), Some(2.0));
    }

    #[test]
    fn near_is_not_compared_with_far() {
        let far = |pps| Window { distance_ns: [420, 100], ..window(pps) };
        let mut fabnic = PeerReport::new(Peer::Fabnic);
        let mut testpmd = PeerReport::new(Peer::Testpmd);
        fabnic.rounds = vec![vec![window(20.0)], vec![far(10.0)]];
        testpmd.rounds = vec![vec![far(1.0)], vec![far(5.0)]];
        let case = CaseReport { name: String::new(), peers: vec![fabnic, testpmd] };
        assert_eq!(case.ratio(&case.peers[1]), Some(2.0), "only the second round counts");
    }

    #[test]
    fn a_peer_that_failed_gives_no_ratio() {
        let mut fabnic = PeerReport::new(Peer::Fabnic);
        let mut testpmd = PeerReport::new(Peer::Testpmd);
        fabnic.rounds = vec![vec![window(20.0)]];
        testpmd.rounds = vec![Vec::new()];
        let case = CaseReport { name: String::new(), peers: vec![fabnic, testpmd] };
        assert_eq!(case.ratio(&case.peers[1]), None);
    }
}
