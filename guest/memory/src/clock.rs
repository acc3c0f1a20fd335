//! The cheap clock: the CPU's time stamp counter, some 20 cycles a reading where `clock_gettime` costs 60 and more.
//!
//! It is here, in the crate that may hold unsafe, because reading the counter is an intrinsic. Workers measure busy and
//! idle cycles with it, the traffic generator paces and stamps with it. Counters of different CPUs agree on machines
//! that have an invariant TSC, which is every x86 server of this century; nothing that must be correct may depend on it.

use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

/// The time stamp counter, now. Counts at [`tsc_hz`]; not ordered against the memory accesses around it.
///
/// Elsewhere than on x86-64 it is the monotonic clock in nanoseconds.
#[inline(always)]
pub fn tsc() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        // SAFETY: RDTSC reads a counter and touches no memory. Linux leaves it enabled for user space unless the
        // process asks for the opposite (PR_SET_TSC).
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        monotonic()
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn monotonic() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // 2^64 ns are 584 years.
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// How many counts of [`tsc`] make a second. The first call takes some 20 ms, later ones nothing.
///
/// CPUID says the exact figure on some machines; it is believed where a measurement agrees with it, else the measurement
/// counts, which is good to about one part in a hundred thousand.
pub fn tsc_hz() -> u64 {
    static HZ: OnceLock<u64> = OnceLock::new();
    *HZ.get_or_init(|| {
        let measured = measure();
        reported().filter(|reported| agrees(*reported, measured)).unwrap_or(measured)
    })
}

/// `counts` of [`tsc`] as nanoseconds.
#[inline]
pub fn nanoseconds(counts: u64) -> u64 {
    let ns = u128::from(counts) * 1_000_000_000 / u128::from(tsc_hz());
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// A duration in counts of [`tsc`].
pub fn counts(duration: Duration) -> u64 {
    let counts = duration.as_nanos().saturating_mul(u128::from(tsc_hz())) / 1_000_000_000;
    u64::try_from(counts).unwrap_or(u64::MAX)
}

/// Within half a percent: more than a measurement errs, less than what CPUID is off by when it is wrong.
fn agrees(reported: u64, measured: u64) -> bool {
    reported.abs_diff(measured) < measured / 200
}

/// Counts over 20 ms. Both ends take the best of several readings, so that being moved off the CPU between the two
/// clocks does not count.
fn measure() -> u64 {
    let (start, start_count) = read_both();
    let mut now = Instant::now();
    while now - start < Duration::from_millis(20) {
        core::hint::spin_loop();
        now = Instant::now();
    }
    let (end, end_count) = read_both();
    let ns = (end - start).as_nanos().max(1);
    let hz = u128::from(end_count.saturating_sub(start_count)) * 1_000_000_000 / ns;
    u64::try_from(hz).unwrap_or(u64::MAX).max(1)
}

/// Both clocks at the same moment, as near as eight attempts bring them.
fn read_both() -> (Instant, u64) {
    let mut best = (Instant::now(), tsc());
    let mut least = u64::MAX;
    for _ in 0..8 {
        let before = tsc();
        let at = Instant::now();
        let took = tsc().saturating_sub(before);
        if took < least {
            (best, least) = ((at, before + took / 2), took);
        }
    }
    best
}

/// What CPUID says: leaf 0x15 (Intel SDM, "Time Stamp Counter and Nominal Core Crystal Clock"), else the hypervisors'
/// leaf 0x4000_0010 (kHz).
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn reported() -> Option<u64> {
    use core::arch::x86_64::__cpuid;
    if __cpuid(0).eax >= 0x15 {
        let leaf = __cpuid(0x15);
        let (denominator, numerator, crystal) =
            (u64::from(leaf.eax), u64::from(leaf.ebx), u64::from(leaf.ecx));
        if denominator != 0 && numerator != 0 && crystal != 0 {
            return Some(crystal * numerator / denominator);
        }
    }
    let virtualised = __cpuid(1).ecx >> 31 != 0;
    if virtualised && __cpuid(0x4000_0000).eax >= 0x4000_0010 {
        let khz = u64::from(__cpuid(0x4000_0010).eax);
        return (khz != 0).then_some(khz * 1000);
    }
    None
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn reported() -> Option<u64> {
    Some(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_forward() {
        let mut last = tsc();
        for _ in 0..1000 {
            let now = tsc();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn units_are_inverse() {
        assert!(tsc_hz() > 1_000_000);
        let second = counts(Duration::from_secs(1));
        assert_eq!(second, tsc_hz());
        assert_eq!(nanoseconds(second), 1_000_000_000);
        assert_eq!(nanoseconds(0), 0);
    }

    #[test]
    fn a_report_that_disagrees_is_not_believed() {
        assert!(agrees(2_100_000_000, 2_100_100_000));
        assert!(!agrees(1_000_000_000, 2_100_000_000));
        assert!(!agrees(2_100_000_000, 2_000_000_000));
    }
}
