//! Tokens and counters of a meter, as a record and back.

use fabnic_saved as records;

use super::{Color, Meter, Metered, REFUSED};

impl Meter {
    /// What it is at a time, which it is not moved on to.
    pub(crate) fn save(&self, place: records::MeterPlace, now_ns: u64) -> records::Meter {
        let (settings, mut buckets, last) = {
            let state = self.state.lock();
            (state.settings, state.buckets, state.last)
        };
        buckets.fill(last.map_or(0, |last| now_ns.saturating_sub(last)));
        let count = |place: usize| {
            let Metered { packets, bytes } = self.tallies.read(place);
            (packets, bytes)
        };
        let colors = [Color::Green as usize, Color::Yellow as usize, Color::Red as usize, REFUSED];
        records::Meter {
            place,
            algorithm: settings.algorithm.number(settings.unit),
            buckets: last.map(|_| buckets.save()),
            is_waiting: false,
            counts: colors.map(count),
        }
    }

    /// Goes on from there, so many nanoseconds later. With another algorithm or unit the buckets stay as they are.
    pub(crate) fn restore(&self, saved: &records::Meter, counters: bool, passed_ns: u64, now_ns: u64) {
        let mut state = self.state.lock();
        if let Some(buckets) = &saved.buckets
            && saved.algorithm == state.settings.algorithm.number(state.settings.unit)
        {
            state.buckets.restore(buckets);
            state.buckets.fill(passed_ns);
            state.last = Some(now_ns);
        }
        if counters {
            // The lock of the buckets is the one writer's.
            for (place, (packets, bytes)) in saved.counts.iter().enumerate() {
                self.tallies.go_on(place, *packets, *bytes);
            }
        }
    }
}
