//! Windows: short measurements that count only while both CPUs stay near each other.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use fabnic_lab::{Lab, WorkDir};
use serde::Serialize;

use super::{
    distance::{NEAR_NS, round_trip_ns},
    guests::{DpdkGuests, Ring},
    light::{Latency, LightGuests, Traffic},
    peer::{GUEST_CPU, Peer, SWITCH_CPU, Switch, Work},
};

/// Which guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GuestKind {
    /// DPDK's virtio-user, sending all the time.
    Dpdk,
    /// `fabnic-pktgen`.
    Light,
}

/// One measured situation, the same for every switch.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) guests: GuestKind,
    pub(crate) traffic: Traffic,
    /// Ports that are configured and never used (Fabnic only).
    pub(crate) idle_ports: u32,
    /// Tails of cards lie on pages that guests map.
    pub(crate) mapped: bool,
}

impl Case {
    /// Light guests and nothing else.
    pub(crate) fn light(traffic: Traffic) -> Self {
        Self { guests: GuestKind::Light, traffic, idle_ports: 0, mapped: true }
    }
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Windows to keep.
    pub(crate) windows: usize,
    /// Length of a window.
    pub(crate) seconds: f64,
}

impl Effort {
    /// Windows to try at most: a host may keep the CPUs apart for a while.
    fn tries(self) -> usize {
        3 * self.windows + 2
    }
}

/// One window.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Window {
    /// Frames delivered a second, both directions.
    pub(crate) pps: f64,
    /// Bits delivered a second.
    pub(crate) bps: f64,
    /// Cycles of the switch's CPU a packet, where the switch tells.
    pub(crate) cycles_per_packet: Option<f64>,
    pub(crate) latency_ns: Option<Latency>,
    /// Round trip of a cache line before and after, in nanoseconds.
    pub(crate) distance_ns: [u64; 2],
    /// Whether the guests wanted to send more.
    pub(crate) switch_limits: Option<bool>,
    pub(crate) lost: u64,
    /// Exits a frame that was received, where the guests tell.
    pub(crate) exits: Option<f64>,
}

impl Window {
    /// Whether both CPUs were near each other all the time, as far as one can tell.
    pub(crate) fn is_near(&self) -> bool {
        self.distance_ns.iter().all(|ns| *ns < NEAR_NS)
    }
}

/// Measures one switch in one situation; gives every window, near or not.
pub(crate) fn measure(lab: &Lab, peer: Peer, case: &Case, effort: Effort) -> Result<Vec<Window>> {
    let dir = WorkDir::new("fabnic-bench.", false)?;
    windows(lab, peer, case, effort, dir.path())
        .with_context(|| format!("{} with {:?} guests", peer.name(), case.guests))
}

/// Both guests, of either kind.
enum Guests {
    Dpdk(DpdkGuests),
    Light(LightGuests),
}

impl Guests {
    fn spawn(lab: &Lab, dir: &Path, peer: Peer, case: &Case, effort: Effort) -> Result<Self> {
        let Case { guests, traffic, .. } = case;
        let listen = peer.connects();
        Ok(match guests {
            GuestKind::Dpdk => {
                Self::Dpdk(DpdkGuests::spawn(lab, dir, listen, traffic.ring, traffic.size, traffic.flows)?)
            }
            GuestKind::Light => Self::Light(LightGuests::spawn(dir, listen, traffic, effort.seconds)?),
        })
    }

    fn begin(&mut self) -> Result<()> {
        match self {
            Self::Dpdk(guests) => guests.begin(),
            Self::Light(guests) => guests.begin(),
        }
    }

    /// One window; distance and cycles are the caller's.
    fn window(&mut self, effort: Effort) -> Result<Window> {
        let mut window = Window {
            pps: 0.0,
            bps: 0.0,
            cycles_per_packet: None,
            latency_ns: None,
            distance_ns: [0, 0],
            switch_limits: None,
            lost: 0,
            exits: None,
        };
        match self {
            Self::Dpdk(guests) => {
                guests.rates()?;
                std::thread::sleep(Duration::from_secs_f64(effort.seconds));
                let rates = guests.rates()?;
                window.pps = rates.rx_pps;
                window.bps = rates.rx_bps;
                window.switch_limits = Some(rates.switch_limits);
            }
            Self::Light(guests) => {
                let seen = guests.window()?;
                window.pps = seen.rx_frames as f64 / seen.seconds;
                window.bps = seen.rx_bytes as f64 * 8.0 / seen.seconds;
                window.latency_ns = seen.latency_ns;
                window.lost = seen.lost;
                window.exits = (seen.rx_frames > 0).then(|| seen.exits as f64 / seen.rx_frames as f64);
            }
        }
        Ok(window)
    }
}

fn windows(lab: &Lab, peer: Peer, case: &Case, effort: Effort, dir: &Path) -> Result<Vec<Window>> {
    let guests = || Guests::spawn(lab, dir, peer, case, effort);
    let start = || Switch::start(peer, lab, dir, case);
    // Who listens comes first.
    let (mut switch, mut guests) = if peer.connects() {
        let guests = guests()?;
        (start()?, guests)
    } else {
        let switch = start()?;
        let guests = guests()?;
        (switch, guests)
    };
    guests.begin().with_context(|| format!("the switch said:\n{}", switch.log_tail()))?;
    std::thread::sleep(Duration::from_millis(500));
    let mut windows: Vec<Window> = Vec::new();
    for _ in 0..effort.tries() {
        let before = round_trip_ns(GUEST_CPU, SWITCH_CPU)?;
        let work = switch.work();
        let mut window = guests.window(effort)?;
        window.cycles_per_packet = cycles(work, switch.work());
        window.distance_ns = [before, round_trip_ns(GUEST_CPU, SWITCH_CPU)?];
        switch.must_run()?;
        windows.push(window);
        if windows.iter().filter(|window| window.is_near()).count() >= effort.windows {
            break;
        }
    }
    anyhow::ensure!(
        windows.iter().any(|window| window.pps > 0.0),
        "no frame came through:\n{}",
        switch.log_tail()
    );
    Ok(windows)
}

fn cycles(before: Option<Work>, after: Option<Work>) -> Option<f64> {
    after?.cycles_per_packet_since(before?)
}

/// The median; of an even number of values, the lower of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// The windows that are compared: near ones, or all if the host never let the CPUs be near.
pub(crate) fn comparable(windows: &[Window]) -> Vec<Window> {
    let near: Vec<Window> = windows.iter().filter(|window| window.is_near()).copied().collect();
    if near.is_empty() { windows.to_vec() } else { near }
}

/// The ring's name and the frame's size, as a case is called.
pub(crate) fn case_name(guests: GuestKind, size: u32, ring: Ring) -> String {
    let guests = match guests {
        GuestKind::Dpdk => "dpdk",
        GuestKind::Light => "light",
    };
    format!("{guests}-{size}-{}", ring.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(pps: f64, before: u64, after: u64) -> Window {
        Window {
            pps,
            bps: 0.0,
            cycles_per_packet: None,
            latency_ns: None,
            distance_ns: [before, after],
            switch_limits: None,
            lost: 0,
            exits: None,
        }
    }

    #[test]
    fn windows_count_only_when_near_before_and_after() {
        let windows = [window(1.0, 100, 100), window(2.0, 100, 430), window(3.0, 430, 90)];
        let kept: Vec<f64> = comparable(&windows).iter().map(|window| window.pps).collect();
        assert_eq!(kept, [1.0]);
        assert_eq!(comparable(&windows[1..]).len(), 2, "never near: all are kept");
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median([f64::NAN, 5.0]), Some(5.0));
        assert_eq!(median([]), None);
    }
}
