//! Which frames of a burst: a list of indexes, and one list for each target.

use fabnic_port::BURST;

/// Frame indexes, up to a burst.
#[derive(Clone, Copy)]
pub(crate) struct Picks {
    frames: [u8; BURST],
    pub(crate) len: usize,
}

impl Picks {
    pub(crate) const NONE: Picks = Picks { frames: [0; BURST], len: 0 };

    /// Every frame of a full burst.
    const ALL: Picks = {
        let mut all = Picks { frames: [0; BURST], len: BURST };
        let mut index = 0;
        while index < BURST {
            all.frames[index] = index as u8;
            index += 1;
        }
        all
    };

    /// The first ones of a burst.
    #[inline(always)]
    pub(crate) fn first(len: usize) -> Picks {
        Picks { len, ..Picks::ALL }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, frame: usize) {
        if let Some(place) = self.frames.get_mut(self.len) {
            *place = frame as u8;
            self.len += 1;
        }
    }

    /// One bit for each frame.
    pub(super) fn mask(&self) -> u64 {
        self.as_slice().iter().fold(0, |mask, frame| mask | 1 << (usize::from(*frame) % BURST))
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.frames.get(..self.len).unwrap_or(&[])
    }
}

/// The frames of a burst by target.
pub(super) struct Groups {
    /// For each port index, the number of its group plus one while a burst is grouped; else 0.
    pub(super) of_port: Vec<u8>,
    pub(super) ports: [u32; BURST],
    pub(super) picks: Box<[Picks; BURST]>,
    pub(super) used: usize,
}

impl Groups {
    pub(super) fn clear(&mut self) {
        for port in self.ports.iter().take(self.used) {
            if let Some(group) = self.of_port.get_mut(*port as usize) {
                *group = 0;
            }
        }
        self.used = 0;
    }

    #[inline(always)]
    pub(super) fn push(&mut self, port: u32, frame: usize) {
        let Some(group) = self.of_port.get_mut(port as usize) else { return };
        if *group == 0
            && let (Some(slot), Some(picks)) = (self.ports.get_mut(self.used), self.picks.get_mut(self.used))
        {
            *slot = port;
            picks.len = 0;
            self.used += 1;
            *group = self.used as u8;
        }
        if let Some(picks) = self.picks.get_mut(usize::from(*group).wrapping_sub(1)) {
            picks.push(frame);
        }
    }
}
