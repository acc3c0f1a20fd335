//! Floods that are too much to be delivered in one go.
//!
//! A broadcast in a VLAN of 10,000 ports is 10,000 copies: half a millisecond in which a worker would do nothing else. So a
//! flood beyond [`AT_ONCE`] is put aside: its frames are copied once to memory of the worker's own, the sender gets its
//! buffers back, and the copies are delivered in *slices* of some [`SLICE`] units of work, one whenever the worker has
//! served a queue. Between two slices everything else flows.
//!
//! ```text
//!   flood --work <= AT_ONCE, none of its VLAN waits--> delivered now, from the sender's memory
//!     '----- else: frames -> chunks -> job --+
//!                                            v
//!   lines (one a VLAN, in turn)   10: job job    20: job    30: job job job      full: dropped, `flood_queue_full`
//!                                            |
//!   current job: burst + list of ports <-----'  --slice--slice--slice--> done: chunks are free again
//! ```
//!
//! # Invariants
//! * Memory is bounded: [`CHUNKS`] of [`CHUNK`] bytes a worker, touched only where floods lie. A VLAN gets no more of it
//!   than is left for the others (a dynamic threshold), so one VLAN's storm cannot keep the floods of all others out.
//! * Floods of one VLAN leave in the order in which they came: while one waits, none is delivered at once. VLANs have
//!   their turns job by job.
//! * So frames of one flow to one port keep their order among flooded frames. What was flooded because its destination was
//!   not known may be overtaken by what follows once the destination is known: a few frames, once (IEEE 802.1Q-2022,
//!   6.5.3, allows a negligible rate).
//! * A job goes on when the topology changes: to those of its ports that are still members of its VLAN, once to each.
//! * Nothing is allocated after [`Floods::new`] and [`Floods::adopt`].

use std::collections::VecDeque;
use std::sync::Arc;

use fabnic_memory::{Cursor, Hint, Map, MapError, Slice};
use fabnic_port::{BURST, Burst, DropReason, Frame, MAX_FRAME, PortId};
use fabnic_wire::{Offload, Vid};

use crate::topology::Topology;

/// Bytes of a chunk.
const CHUNK: u32 = 2048;
/// Chunks of a worker: 8 MiB.
const CHUNKS: u16 = 4096;
/// The most chunks of a frame.
const MOST_OF_FRAME: usize = (MAX_FRAME as usize).div_ceil(CHUNK as usize);
/// The most jobs that wait.
const JOBS: u16 = 1024;
/// Work of a flood, in units of about 15 ns, that is delivered at once.
const AT_ONCE: u64 = 4096;
/// Work of a slice: some 15 microseconds.
const SLICE: u64 = 1024;
/// What it costs to reach one more port, in the same unit: its lock, its ring.
const PORT: u64 = 4;
/// Of so few ports no flood is put aside: 64 frames of an ordinary length to each are not much.
pub(crate) const FEW_PORTS: usize = 32;
/// No chunk, no job.
const NONE: u16 = u16::MAX;

/// What one chunk holds. All but `more` is good in a frame's first chunk only.
#[derive(Clone, Copy)]
struct Stored {
    /// The next chunk of the same frame.
    more: u16,
    /// The first chunk of the job's next frame.
    next: u16,
    len: u32,
    offload: Offload,
    /// The tag that the frame came with, if it came with one.
    came: Option<u16>,
    /// What rules have marked it with.
    mark: u32,
    /// The priority that they gave its tag.
    pcp: Option<u8>,
    /// It has a tag now.
    tagged: bool,
}

/// A flood that waits.
#[derive(Clone, Copy)]
struct Job {
    /// First chunk of its first frame.
    first: u16,
    chunks: u16,
    from: PortId,
    /// The longest size among its frames.
    longest: u32,
    /// The next job of its VLAN.
    next: u16,
}

/// The jobs of one VLAN.
#[derive(Clone, Copy)]
struct Line {
    first: u16,
    last: u16,
    /// What they hold, the current job's among it.
    chunks: u16,
    jobs: u16,
}

/// A flood that is to be put aside.
pub(crate) struct Aside<'a> {
    pub(crate) vlan: Vid,
    pub(crate) from: PortId,
    /// The frames of the burst that it is about.
    pub(crate) picks: &'a [u8],
    /// Only to these ports, if not to the whole VLAN.
    pub(crate) only: Option<&'a Arc<[PortId]>>,
    /// Which frames have a tag now, one bit each.
    pub(crate) tagged: u64,
    /// The tag that a frame came with.
    pub(crate) came: &'a dyn Fn(usize) -> Option<u16>,
    /// What rules have marked a frame with.
    pub(crate) mark: &'a dyn Fn(usize) -> u32,
    /// The longest size in the burst.
    pub(crate) longest: u32,
}

/// The job in work.
#[derive(Clone, Copy)]
pub(crate) struct Current {
    pub(crate) vlan: Vid,
    /// The port that sent it.
    pub(crate) from: PortId,
    /// The longest size among its frames.
    pub(crate) longest: u32,
    /// Which frames have a tag now, one bit each.
    pub(crate) tagged: u64,
    /// Which frames came with a tag, and with which.
    pub(crate) came: u64,
    pub(crate) tags: [u16; BURST],
    /// What rules have marked them with.
    pub(crate) marks: [u32; BURST],
    /// Frames that had a copy for some port, one bit each.
    pub(crate) reached: u64,
    /// Ports of one slice.
    pub(crate) ports_a_slice: usize,
    job: u16,
}

/// One worker's floods.
pub(crate) struct Floods {
    map: Arc<Map>,
    stored: Box<[Stored]>,
    free: Vec<u16>,
    jobs: Box<[Job]>,
    /// Of each job that does not go to a whole VLAN, its ports.
    only: Box<[Option<Arc<[PortId]>>]>,
    free_jobs: Vec<u16>,
    lines: Box<[Line]>,
    /// VLANs whose jobs wait.
    turns: VecDeque<Vid>,
    /// Frames of the current job.
    pub(crate) burst: Burst,
    pub(crate) current: Option<Current>,
    /// Where the current job still goes, the last first.
    left: Vec<u32>,
    /// What the indexes in that list mean.
    ids: Arc<[PortId]>,
}

/// The work of delivering these frames to one port.
fn work<'a>(frames: impl Iterator<Item = &'a Frame>) -> u64 {
    PORT + frames.map(|frame| 1 + u64::from(frame.len() / 256)).sum::<u64>()
}

/// Whether a flood of these frames to so many ports is too much for one go.
#[inline]
pub(crate) fn is_much(burst: &Burst, picks: &[u8], ports: usize) -> bool {
    let frames = picks.iter().filter_map(|pick| burst.frames().get(usize::from(*pick)));
    work(frames).saturating_mul(ports as u64) > AT_ONCE
}

fn chunks_of(frame: &Frame) -> usize {
    (frame.len().div_ceil(CHUNK) as usize).max(1)
}

impl Floods {
    /// Room for them.
    ///
    /// # Errors
    /// When there is no memory to be had.
    pub(crate) fn new() -> Result<Floods, MapError> {
        let (map, _) = Map::anonymous(u64::from(CHUNKS) * u64::from(CHUNK))?;
        let stored = Stored {
            more: NONE,
            next: NONE,
            len: 0,
            offload: Offload::PLAIN,
            came: None,
            mark: 0,
            pcp: None,
            tagged: false,
        };
        let job = Job { first: NONE, chunks: 0, from: PortId(0), longest: 0, next: NONE };
        let line = Line { first: NONE, last: NONE, chunks: 0, jobs: 0 };
        Ok(Floods {
            map,
            stored: vec![stored; CHUNKS.into()].into(),
            free: (0..CHUNKS).rev().collect(),
            jobs: vec![job; JOBS.into()].into(),
            only: vec![None; JOBS.into()].into(),
            free_jobs: (0..JOBS).rev().collect(),
            lines: vec![line; 4096].into(),
            turns: VecDeque::with_capacity(JOBS.into()),
            burst: Burst::new(),
            current: None,
            left: Vec::new(),
            ids: Arc::from([]),
        })
    }

    /// Goes over to another topology: what is left of the current job goes to ports that are still members.
    pub(crate) fn adopt(&mut self, topology: &Topology) {
        if let Some(current) = &self.current {
            let (ids, vlan) = (Arc::clone(&self.ids), current.vlan);
            let now = |index: &u32| topology.index_of(*ids.get(*index as usize)?);
            let left = self.left.iter().filter_map(now).filter(|index| topology.is_flooded(vlan, *index));
            self.left = left.collect();
        }
        self.ids = Arc::clone(&topology.ids);
        self.left.reserve(topology.members.len().saturating_sub(self.left.len()));
    }

    /// Whether nothing waits.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_none() && self.turns.is_empty()
    }

    /// Whether a flood of this VLAN waits: others must not overtake it.
    #[inline]
    pub(crate) fn is_waiting(&self, vlan: Vid) -> bool {
        self.lines.get(usize::from(vlan.get())).is_some_and(|line| line.jobs > 0)
    }

    /// Copies frames, to be delivered later. `Err` says why they are lost.
    pub(crate) fn put_aside(&mut self, burst: &Burst, aside: &Aside<'_>) -> Result<(), DropReason> {
        let frames = || aside.picks.iter().filter_map(|pick| burst.frames().get(usize::from(*pick)));
        if frames().any(|frame| frame.len() > MAX_FRAME) {
            return Err(DropReason::Oversize);
        }
        let need: usize = frames().map(chunks_of).sum();
        let Some(line) = self.lines.get_mut(usize::from(aside.vlan.get())) else {
            return Err(DropReason::NoMember);
        };
        let fits = usize::from(line.chunks) + need <= self.free.len()
            && usize::from(line.jobs) < self.free_jobs.len();
        let Some(number) = self.free_jobs.pop_if(|_| fits) else {
            return Err(DropReason::FloodQueueFull);
        };
        let chunks = u16::try_from(need).unwrap_or(u16::MAX);
        (line.chunks, line.jobs) = (line.chunks + chunks, line.jobs + 1);
        let before = core::mem::replace(&mut line.last, number);
        if before == NONE {
            line.first = number;
            self.turns.push_back(aside.vlan);
        } else if let Some(before) = self.jobs.get_mut(usize::from(before)) {
            before.next = number;
        }
        let mut job = Job { first: NONE, chunks, from: aside.from, longest: aside.longest, next: NONE };
        let mut last = NONE;
        for &pick in aside.picks {
            let Some(first) = self.store(burst, pick.into(), aside) else { break };
            match self.stored.get_mut(usize::from(last)) {
                Some(before) => before.next = first,
                None => job.first = first,
            }
            last = first;
        }
        if let (Some(place), Some(only)) =
            (self.jobs.get_mut(usize::from(number)), self.only.get_mut(usize::from(number)))
        {
            (*place, *only) = (job, aside.only.cloned());
        }
        Ok(())
    }

    /// Copies one frame; gives its first chunk.
    fn store(&mut self, burst: &Burst, index: usize, aside: &Aside<'_>) -> Option<u16> {
        let frame = burst.frames().get(index)?;
        let count = chunks_of(frame);
        let mut room = [Slice::EMPTY; MOST_OF_FRAME];
        let (mut first, mut before) = (NONE, NONE);
        for slice in room.iter_mut().take(count) {
            let chunk = self.free.pop()?;
            *slice = self.slice(chunk, CHUNK)?;
            match self.stored.get_mut(usize::from(before)) {
                Some(before) => before.more = chunk,
                None => first = chunk,
            }
            before = chunk;
            self.stored.get_mut(usize::from(chunk))?.more = NONE;
        }
        let mut to = Cursor::new(room.get(..count)?);
        let head = to.write(&self.map, frame.head()) as u32;
        let copied = burst.source().map_or(0, |source| {
            to.copy_from(&self.map, source, &mut frame.rest(burst.slices()), frame.rest_len())
        });
        // A sender's slices hold what it said. If they did not, others' old bytes would go out in their place.
        let mut missing = frame.len().saturating_sub(head + copied) as usize;
        while missing > 0 {
            let zeros = [0; 256];
            let written = to.write(&self.map, zeros.get(..missing.min(256)).unwrap_or(&zeros));
            missing = if written == 0 { 0 } else { missing - written };
        }
        let stored = self.stored.get_mut(usize::from(first))?;
        *stored = Stored {
            more: stored.more,
            next: NONE,
            len: frame.len(),
            offload: frame.offload(),
            came: (aside.came)(index),
            mark: (aside.mark)(index),
            pcp: frame.pcp(),
            tagged: aside.tagged >> (index % BURST) & 1 == 1,
        };
        Some(first)
    }

    fn slice(&self, chunk: u16, len: u32) -> Option<Slice> {
        self.map.translate(u64::from(chunk) * u64::from(CHUNK), len, &mut Hint::default())
    }

    /// Takes the next job in work, if none is. `false` if there is none.
    pub(crate) fn begin(&mut self, topology: &Topology) -> bool {
        if self.current.is_some() {
            return true;
        }
        let Some(vlan) = self.turns.pop_front() else { return false };
        let Some(line) = self.lines.get_mut(usize::from(vlan.get())) else { return false };
        let number = line.first;
        let Some(job) = self.jobs.get(usize::from(number)).copied() else { return false };
        line.first = job.next;
        if line.first == NONE {
            line.last = NONE;
        } else {
            self.turns.push_back(vlan);
        }
        let mut current = Current {
            vlan,
            from: job.from,
            longest: job.longest,
            tagged: 0,
            came: 0,
            tags: [0; BURST],
            marks: [0; BURST],
            reached: 0,
            ports_a_slice: 0,
            job: number,
        };
        let map = Arc::clone(&self.map);
        self.burst.begin(&map);
        let mut at = job.first;
        while let Some(stored) = self.stored.get(usize::from(at)).copied() {
            if self.load(at, &stored).is_none() {
                break;
            }
            let frame = self.burst.len() - 1;
            if let (Some(came), Some(tag)) = (stored.came, current.tags.get_mut(frame)) {
                *tag = came;
                current.came |= 1 << frame;
            }
            if let Some(mark) = current.marks.get_mut(frame) {
                *mark = stored.mark;
            }
            current.tagged |= u64::from(stored.tagged) << frame;
            at = stored.next;
        }
        let each = work(self.burst.frames().iter());
        current.ports_a_slice = usize::try_from(SLICE / each).unwrap_or(1).max(1);
        let from = topology.index_of(job.from);
        let isolated = from.and_then(|from| topology.member(from)).is_some_and(|from| from.settings.isolated);
        self.left.clear();
        match self.only.get_mut(usize::from(number)).and_then(Option::take) {
            Some(only) => {
                let members = only.iter().filter_map(|id| topology.index_of(*id));
                let members = members.filter(|index| topology.is_flooded(vlan, *index));
                let may = |index: &u32| {
                    Some(*index) != from
                        && !(isolated && topology.member(*index).is_some_and(|to| to.settings.isolated))
                };
                self.left.extend(members.filter(may));
            }
            None => {
                let members = topology.flood(vlan).into_iter();
                self.left
                    .extend(members.flat_map(|all| all.reached_from(from.unwrap_or(u32::MAX), isolated)));
            }
        }
        self.left.reverse();
        self.current = Some(current);
        true
    }

    /// Puts a stored frame into the burst.
    fn load(&mut self, first: u16, stored: &Stored) -> Option<()> {
        let at = self.burst.slices().len();
        let (mut chunk, mut len, mut count) = (first, stored.len, 0);
        while count == 0 || len > 0 {
            let part = len.min(CHUNK);
            let slice = self.slice(chunk, part)?;
            self.burst.slices_mut().push(slice);
            (len, count) = (len - part, count + 1);
            chunk = self.stored.get(usize::from(chunk))?.more;
        }
        let frame = self.burst.push(at, count, 0, stored.len)?;
        frame.set_offload(stored.offload);
        if let Some(pcp) = stored.pcp {
            frame.set_pcp(pcp);
        }
        Some(())
    }

    /// The next port that the current job goes to.
    pub(crate) fn next_port(&mut self) -> Option<u32> {
        self.left.pop()
    }

    /// Whether the current job has no port left.
    pub(crate) fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// The current job is done.
    pub(crate) fn end(&mut self) {
        let Some(current) = self.current.take() else { return };
        let (Some(job), Some(line)) = (
            self.jobs.get(usize::from(current.job)).copied(),
            self.lines.get_mut(usize::from(current.vlan.get())),
        ) else {
            return;
        };
        line.chunks = line.chunks.saturating_sub(job.chunks);
        line.jobs = line.jobs.saturating_sub(1);
        let mut frame = job.first;
        while let Some(stored) = self.stored.get(usize::from(frame)).copied() {
            let mut chunk = frame;
            while let Some(part) = self.stored.get(usize::from(chunk)) {
                self.free.push(chunk);
                chunk = part.more;
            }
            frame = stored.next;
        }
        self.free_jobs.push(current.job);
        self.burst.clear();
        self.left.clear();
    }
}
