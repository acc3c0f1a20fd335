//! What the frames of a burst wear now: tag and priority, which differ from port to port.
//!
//! A frame is delivered to several ports from one private head, so what was written for one port must be written anew, or
//! taken back, for the next. This keeps what each frame came with and what is in its head at the moment, one bit a frame.
//! While no frame of the burst differs from an untagged one that nothing was written to, and the receiving port writes
//! nothing, nobody comes here.

use fabnic_port::{BURST, Burst, Frame};
use fabnic_wire::{Tci, Vid};

use crate::priority::{PrioritySettings, TrafficClass, set_traffic_class, traffic_class};
use crate::stage::egress;
use crate::topology::Member;

/// State of a burst's heads.
#[derive(Debug)]
pub(crate) struct Dress {
    /// Which frames have a tag now.
    tagged: u64,
    /// Which frames have a traffic class that they did not come with.
    marked: u64,
    /// Either of the two.
    pub(crate) differs: u64,
    /// What the marked frames came with.
    came_with: Box<[TrafficClass; BURST]>,
}

impl Default for Dress {
    fn default() -> Dress {
        Dress { tagged: 0, marked: 0, differs: 0, came_with: Box::new([TrafficClass::default(); BURST]) }
    }
}

fn bit(frame: u8) -> u64 {
    1 << (usize::from(frame) % BURST)
}

impl Dress {
    /// Begins a burst of which these frames came with a tag.
    #[inline(always)]
    pub(crate) fn begin(&mut self, tagged: u64) {
        (self.tagged, self.marked, self.differs) = (tagged, 0, tagged);
    }

    /// What is in the heads now, to be given to [`Dress::restore`] when they are as they were.
    pub(crate) fn state(&self) -> [u64; 3] {
        [self.tagged, self.marked, self.differs]
    }

    /// The heads are as they were.
    pub(crate) fn restore(&mut self, [tagged, marked, differs]: [u64; 3]) {
        (self.tagged, self.marked, self.differs) = (tagged, marked, differs);
    }

    /// Which frames have a tag now.
    pub(crate) fn tagged(&self) -> u64 {
        self.tagged
    }

    /// Gives the frames of the burst the traffic class that they came with.
    pub(crate) fn take_off(&mut self, burst: &mut Burst) {
        if self.marked == 0 {
            return;
        }
        for (place, frame) in burst.frames_mut().iter_mut().enumerate() {
            if self.marked & 1 << (place % BURST) != 0
                && let Some(came) = self.came_with.get(place).copied()
            {
                self.mark(frame, place, came, came.byte);
            }
        }
        self.differs = self.tagged | self.marked;
    }

    /// The traffic class that a frame came with, whatever was written since; none where it has no IP header.
    pub(crate) fn tos(&self, frame: &Frame, index: u8) -> Option<u8> {
        let class = match self.marked & bit(index) {
            0 => traffic_class(frame, self.is_tagged(index)),
            _ => self.came_with.get(usize::from(index)).copied(),
        };
        class.map(|class| class.byte)
    }

    /// Whether a frame has a tag now.
    pub(crate) fn is_tagged(&self, frame: u8) -> bool {
        self.tagged & bit(frame) != 0
    }

    /// Makes a frame as it is to leave: `from` whom and with which tag it came, `to` whom it goes and in which VLAN.
    pub(crate) fn put_on(
        &mut self,
        frame: &mut Frame,
        index: u8,
        (from, tag): (&PrioritySettings, Option<Tci>),
        (to, vlan): (&Member, Vid),
    ) {
        let (bit, place) = (bit(index), usize::from(index));
        let is_marked = self.marked & bit != 0;
        let is_tagged = self.tagged & bit != 0;
        let marks = to.settings.priority.marks();
        let mut tag_bits = 0;
        if marks || is_marked || to.settings.vlan.leaves_tagged(vlan) {
            let came_with = self.came_with.get(place).copied().filter(|_| is_marked);
            let came_with = |frame: &Frame| came_with.or_else(|| traffic_class(frame, is_tagged));
            let priority = from.classify(tag, || came_with(frame).map(|class| class.byte));
            tag_bits = to.settings.priority.tag_bits(priority, frame.pcp());
            if let Some(came) = came_with(frame).filter(|_| marks || is_marked) {
                self.mark(frame, place, came, to.settings.priority.tos(priority, came.byte));
            }
        }
        let wanted = egress::tag(to, vlan, tag_bits);
        if egress::set_tag(frame, is_tagged, to.tpid, wanted) {
            self.tagged = if wanted.is_some() { self.tagged | bit } else { self.tagged & !bit };
        }
        self.differs = self.tagged | self.marked;
    }

    /// Gives a frame the traffic class `wanted`; it came with `came`.
    fn mark(&mut self, frame: &mut Frame, place: usize, came: TrafficClass, wanted: u8) {
        let bit = 1 << (place % BURST);
        let is_tagged = self.tagged & bit != 0;
        set_traffic_class(frame, is_tagged, came, wanted);
        self.marked = if wanted == came.byte { self.marked & !bit } else { self.marked | bit };
        if let Some(noted) = self.came_with.get_mut(place) {
            *noted = came;
        }
    }
}
