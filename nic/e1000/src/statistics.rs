//! Statistics registers (SDM 13.7): counted by workers, cleared by whoever reads them.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::spec::register::statistics::{
    BPRC, BPTC, COUNT, GORC, GOTC, GPRC, GPTC, MPRC, MPTC, PAIRS, PRC64, PTC64, TOR, TOT, TPR, TPT,
};
use crate::spec::{FCS_LEN, SHORTEST_FRAME};
use crate::state::{Reader, StateError, Writer};

/// All of them; pairs of 64 bits are in the place of their lower half.
#[derive(Debug)]
pub(crate) struct Statistics([AtomicU64; COUNT]);

impl Default for Statistics {
    fn default() -> Statistics {
        Statistics([const { AtomicU64::new(0) }; COUNT])
    }
}

impl Statistics {
    /// Adds to one. Any thread may.
    #[inline]
    pub(crate) fn add(&self, which: usize, n: u64) {
        if n > 0
            && let Some(counter) = self.0.get(which)
        {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn take(&self, which: usize) -> u64 {
        self.0.get(which).map_or(0, |counter| counter.swap(0, Ordering::Relaxed))
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        self.0.iter().for_each(|counter| to.u64(counter.load(Ordering::Relaxed)));
    }

    pub(crate) fn restore(&self, from: &mut Reader<'_>) -> Result<(), StateError> {
        for counter in &self.0 {
            counter.store(from.u64()?, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Everything is zero again.
    pub(crate) fn reset(&self) {
        for counter in &self.0 {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// The side of the registers: keeps a pair of 64 bits together between the reads of its halves.
#[derive(Debug, Default)]
pub(crate) struct StatisticsReader {
    /// For each pair what its lower half was read of.
    held: [Option<u64>; PAIRS.len()],
}

impl StatisticsReader {
    /// A read of the register that is `word` words behind the first.
    pub(crate) fn read(&mut self, statistics: &Statistics, word: usize) -> u32 {
        for (pair, held) in PAIRS.iter().zip(&mut self.held) {
            if word == *pair {
                // Both halves are of one moment. Read twice, it has what came meanwhile too.
                let value = held.unwrap_or(0).saturating_add(statistics.take(word));
                *held = Some(value);
                return (value & 0xffff_ffff) as u32;
            }
            if word == pair + 1 {
                let value = held.take().unwrap_or_else(|| statistics.take(*pair));
                return (value >> 32) as u32;
            }
        }
        // They stick at the end and do not wrap.
        u32::try_from(statistics.take(word)).unwrap_or(u32::MAX)
    }
}

impl StatisticsReader {
    pub(crate) fn save(&self, to: &mut Writer) {
        for held in &self.held {
            to.flag(held.is_some());
            to.u64(held.unwrap_or(0));
        }
    }

    pub(crate) fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        for held in &mut self.held {
            let is_held = from.flag()?;
            *held = Some(from.u64()?).filter(|_| is_held);
        }
        Ok(())
    }
}

/// Which way frames went.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Received,
    Transmitted,
}

/// What the frames of a burst add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    frames: u64,
    octets: u64,
    broadcast: u64,
    multicast: u64,
    sizes: [u64; 6],
}

impl Traffic {
    /// Counts `n` frames of `len` bytes each, without FCS, to the address that `frame` begins with.
    #[inline]
    pub(crate) fn count(&mut self, frame: &[u8], len: u32, n: u64) {
        match frame.first_chunk::<6>() {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => self.broadcast += n,
            Some([first, ..]) if first & 1 == 1 => self.multicast += n,
            _ => {}
        }
        self.count_unicast(len, n);
    }

    /// The same if they are not to a group.
    #[inline(always)]
    pub(crate) fn count_unicast(&mut self, len: u32, n: u64) {
        let len = len.max(SHORTEST_FRAME) + FCS_LEN;
        self.frames += n;
        self.octets += u64::from(len) * n;
        // Up to 64; then each register has twice as many lengths as the one before; from 1024 on.
        let size = if len <= 64 { 0 } else { (len.ilog2() - 5).min(5) };
        if let Some(count) = self.sizes.get_mut(size as usize) {
            *count += n;
        }
    }

    /// Adds everything to the registers, and starts anew.
    #[inline]
    pub(crate) fn settle(&mut self, statistics: &Statistics, way: Way) {
        if self.frames == 0 {
            return;
        }
        let [good, good_octets, total, total_octets, broadcast, multicast, sizes] = match way {
            Way::Received => [GPRC, GORC, TPR, TOR, BPRC, MPRC, PRC64],
            Way::Transmitted => [GPTC, GOTC, TPT, TOT, BPTC, MPTC, PTC64],
        };
        for which in [good, total] {
            statistics.add(which, self.frames);
        }
        for which in [good_octets, total_octets] {
            statistics.add(which, self.octets);
        }
        statistics.add(broadcast, self.broadcast);
        statistics.add(multicast, self.multicast);
        for (which, n) in (sizes..).zip(self.sizes) {
            statistics.add(which, n);
        }
        *self = Traffic::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::register::statistics::MPC;

    #[test]
    fn each_length_has_its_register() {
        let lens = [(60, 0), (61, 1), (123, 1), (124, 2), (251, 2), (252, 3), (507, 3), (508, 4), (1019, 4)];
        for (len, size) in lens.into_iter().chain([(0, 0), (1020, 5), (1514, 5), (16000, 5)]) {
            let mut traffic = Traffic::default();
            traffic.count_unicast(len, 1);
            assert_eq!(traffic.sizes.iter().position(|n| *n == 1), Some(size), "{len}");
        }
    }

    #[test]
    fn a_read_clears_and_nothing_wraps() {
        let (statistics, mut reader) = (Statistics::default(), StatisticsReader::default());
        statistics.add(MPC, 7);
        assert_eq!([reader.read(&statistics, MPC), reader.read(&statistics, MPC)], [7, 0]);
        statistics.add(MPC, 1 << 40);
        assert_eq!(reader.read(&statistics, MPC), u32::MAX);
    }

    #[test]
    fn both_halves_of_a_pair_are_of_one_moment() {
        let (statistics, mut reader) = (Statistics::default(), StatisticsReader::default());
        statistics.add(GORC, 0x5_ffff_fff0);
        assert_eq!(reader.read(&statistics, GORC), 0xffff_fff0);
        statistics.add(GORC, 0x20);
        assert_eq!(reader.read(&statistics, GORC + 1), 5);
        assert_eq!([reader.read(&statistics, GORC), reader.read(&statistics, GORC + 1)], [0x20, 0]);
        // The upper half alone clears both.
        statistics.add(GORC, 0x1_0000_0001);
        assert_eq!([reader.read(&statistics, GORC + 1), reader.read(&statistics, GORC)], [1, 0]);
    }

    #[test]
    fn frames_are_counted_as_on_the_wire() {
        let (statistics, mut reader) = (Statistics::default(), StatisticsReader::default());
        let mut traffic = Traffic::default();
        traffic.count(&[0xff; 6], 14, 1);
        traffic.count(&[1, 0, 0, 0, 0, 0], 60, 1);
        traffic.count(&[2, 0, 0, 0, 0, 0], 1514, 2);
        traffic.settle(&statistics, Way::Received);
        let mut read = |which| reader.read(&statistics, which);
        assert_eq!([read(GPRC), read(TPR), read(BPRC), read(MPRC)], [4, 4, 1, 1]);
        assert_eq!([read(GORC), read(PRC64), read(PRC64 + 5)], [64 + 64 + 2 * 1518, 2, 2]);
    }
}
