//! Windows: what was counted between two moments, and how it is printed.

use std::io::Write;

use fabnic_memory::clock;
use serde::Serialize;

/// What has been counted since the start, over all ports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) tx_frames: u64,
    pub(crate) rx_frames: u64,
    pub(crate) rx_bytes: u64,
    /// Known losses: sequence numbers that never came. In light mode what was sent and not received.
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    pub(crate) duplicates: u64,
    /// Frames that are not ours.
    pub(crate) foreign: u64,
    /// Polls at which a transmit ring had nothing left for the switch.
    pub(crate) tx_starved: u64,
    /// Polls at which a receive ring had no buffer left for the switch.
    pub(crate) rx_starved: u64,
    pub(crate) disorder: u64,
    pub(crate) kicks: u64,
    /// Accesses by which a guest in a VM would leave it: kicks, register accesses.
    pub(crate) exits: u64,
    pub(crate) reconnects: u64,
    /// Clock counts of turns in which there was something to do.
    pub(crate) busy: u64,
}

impl Totals {
    fn since(&self, start: &Totals) -> Totals {
        Totals {
            tx_frames: self.tx_frames - start.tx_frames,
            rx_frames: self.rx_frames - start.rx_frames,
            rx_bytes: self.rx_bytes - start.rx_bytes,
            lost: self.lost.saturating_sub(start.lost),
            reordered: self.reordered - start.reordered,
            duplicates: self.duplicates - start.duplicates,
            foreign: self.foreign - start.foreign,
            tx_starved: self.tx_starved - start.tx_starved,
            rx_starved: self.rx_starved - start.rx_starved,
            disorder: self.disorder - start.disorder,
            kicks: self.kicks - start.kicks,
            exits: self.exits - start.exits,
            reconnects: self.reconnects - start.reconnects,
            busy: self.busy - start.busy,
        }
    }
}

/// Percentiles of the one-way latency, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

/// One window as it is printed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Window {
    window: u32,
    pub(crate) seconds: f64,
    pub(crate) tx_frames: u64,
    pub(crate) rx_frames: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    duplicates: u64,
    foreign: u64,
    tx_starved: u64,
    rx_starved: u64,
    disorder: u64,
    kicks: u64,
    exits: u64,
    reconnects: u64,
    rx_mpps: f64,
    rx_gbps: f64,
    /// Share of the time in which the guests had something to do: near 1 they may be the limit.
    guest_busy: f64,
    latency_ns: Option<Latency>,
}

impl Window {
    pub(crate) fn new(
        window: u32,
        seconds: f64,
        before: &Totals,
        after: &Totals,
        latency_ns: Option<Latency>,
    ) -> Window {
        let counted = after.since(before);
        let per_second = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        Window {
            window,
            seconds,
            tx_frames: counted.tx_frames,
            rx_frames: counted.rx_frames,
            rx_bytes: counted.rx_bytes,
            lost: counted.lost,
            reordered: counted.reordered,
            duplicates: counted.duplicates,
            foreign: counted.foreign,
            tx_starved: counted.tx_starved,
            rx_starved: counted.rx_starved,
            disorder: counted.disorder,
            kicks: counted.kicks,
            exits: counted.exits,
            reconnects: counted.reconnects,
            rx_mpps: per_second(counted.rx_frames) / 1e6,
            rx_gbps: per_second(counted.rx_bytes) * 8.0 / 1e9,
            guest_busy: per_second(counted.busy) / clock::tsc_hz() as f64,
            latency_ns,
        }
    }
}

/// All windows together.
#[derive(Clone, Copy, Debug, Serialize)]
struct Summary {
    windows: u32,
    seconds: f64,
    tx_frames: u64,
    rx_frames: u64,
    rx_bytes: u64,
    lost: u64,
    /// Frames that had not come when everything was over; not in `lost`.
    missing: u64,
    reordered: u64,
    duplicates: u64,
    tx_starved: u64,
    rx_starved: u64,
    reconnects: u64,
    /// The median of the windows.
    rx_mpps: f64,
    /// The median of the windows.
    rx_gbps: f64,
    /// The median of the windows.
    guest_busy: f64,
    /// Percentiles over all windows.
    latency_ns: Option<Latency>,
}

/// Prints windows as they come and the summary at the end.
pub(crate) struct Report {
    json: bool,
    windows: Vec<Window>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Report {
        Report { json, windows: Vec::new() }
    }

    pub(crate) fn window(&mut self, window: Window) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&window)?)?;
        } else {
            if self.windows.is_empty() {
                writeln!(
                    out,
                    "{:>6} {:>7} {:>9} {:>9} {:>9} {:>6} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
                    "window",
                    "s",
                    "tx Mpps",
                    "rx Mpps",
                    "rx Gb/s",
                    "busy",
                    "lost",
                    "reorder",
                    "p50 us",
                    "p99 us",
                    "p99.9",
                    "max"
                )?;
            }
            let us = |pick: fn(&Latency) -> u64| {
                window.latency_ns.as_ref().map_or("-".into(), |l| format!("{:.1}", pick(l) as f64 / 1e3))
            };
            writeln!(
                out,
                "{:>6} {:>7.3} {:>9.3} {:>9.3} {:>9.3} {:>6.2} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
                window.window,
                window.seconds,
                window.tx_frames as f64 / window.seconds / 1e6,
                window.rx_mpps,
                window.rx_gbps,
                window.guest_busy,
                window.lost,
                window.reordered,
                us(|l| l.p50),
                us(|l| l.p99),
                us(|l| l.p999),
                us(|l| l.max),
            )?;
        }
        out.flush()?;
        self.windows.push(window);
        Ok(())
    }

    /// `missing`: frames that had not come when everything was over, beside those that the windows count as lost.
    pub(crate) fn finish(&self, missing: u64, latency_ns: Option<Latency>) -> anyhow::Result<()> {
        let sum = |pick: fn(&Window) -> u64| self.windows.iter().map(pick).sum::<u64>();
        let median = |pick: fn(&Window) -> f64| {
            let mut values: Vec<f64> = self.windows.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let summary = Summary {
            windows: u32::try_from(self.windows.len()).unwrap_or(u32::MAX),
            seconds: self.windows.iter().map(|w| w.seconds).sum(),
            tx_frames: sum(|w| w.tx_frames),
            rx_frames: sum(|w| w.rx_frames),
            rx_bytes: sum(|w| w.rx_bytes),
            lost: sum(|w| w.lost),
            missing,
            reordered: sum(|w| w.reordered),
            duplicates: sum(|w| w.duplicates),
            tx_starved: sum(|w| w.tx_starved),
            rx_starved: sum(|w| w.rx_starved),
            reconnects: sum(|w| w.reconnects),
            rx_mpps: median(|w| w.rx_mpps),
            rx_gbps: median(|w| w.rx_gbps),
            guest_busy: median(|w| w.guest_busy),
            latency_ns,
        };
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::json!({ "summary": summary }))?;
        } else {
            writeln!(
                out,
                "median {:.3} Mpps, {:.3} Gb/s received; {} sent, {} received, {} lost, {} missing at the end, {} reordered, {} duplicates",
                summary.rx_mpps,
                summary.rx_gbps,
                summary.tx_frames,
                summary.rx_frames,
                summary.lost,
                summary.missing,
                summary.reordered,
                summary.duplicates,
            )?;
        }
        Ok(())
    }
}
