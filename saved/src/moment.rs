//! When state was saved, and how much time has gone by since.
//!
//! The wall clock is set while machines start, and by people. So a moment also says which boot of the host it was in, and
//! how long after it: within one boot that clock alone counts, which nobody sets and which goes on in sleep.

use core::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest time that is believed to have gone by; more is a clock that was set.
pub const MAX_STOP: Duration = Duration::from_secs(30 * 24 * 3600);

/// A moment, by two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// Which boot of which host; zeros: not known.
    pub boot: [u8; 16],
    /// Milliseconds since that boot.
    pub since_boot_ms: u64,
}

impl Moment {
    /// The time from this moment until `now`; nothing if clocks went back, and at most [`MAX_STOP`].
    #[must_use]
    pub fn passed(&self, now: &Moment) -> Duration {
        let same_boot = self.boot == now.boot && self.boot != [0; 16];
        let ms = if same_boot {
            now.since_boot_ms.saturating_sub(self.since_boot_ms)
        } else {
            now.wall_ms.saturating_sub(self.wall_ms)
        };
        Duration::from_millis(ms).min(MAX_STOP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_by_whatever_the_wall_clock_says() {
        let saved = Moment { wall_ms: 1_000_000, boot: [1; 16], since_boot_ms: 5_000 };
        let now = |wall_ms, boot, since_boot_ms| Moment { wall_ms, boot: [boot; 16], since_boot_ms };
        assert_eq!(saved.passed(&now(0, 1, 7_000)), Duration::from_secs(2), "set back within a boot");
        assert_eq!(saved.passed(&now(u64::MAX, 1, 7_000)), Duration::from_secs(2), "or forth");
        assert_eq!(saved.passed(&now(1_060_000, 2, 9)), Duration::from_secs(60), "another boot");
        assert_eq!(saved.passed(&now(999_999, 2, 9)), Duration::ZERO, "set back between two boots");
        assert_eq!(saved.passed(&now(u64::MAX, 2, 9)), MAX_STOP, "far forth");
        let unknown = Moment { boot: [0; 16], ..saved };
        assert_eq!(
            unknown.passed(&now(1_001_000, 0, 0)),
            Duration::from_secs(1),
            "no boot is not the same boot"
        );
    }
}
