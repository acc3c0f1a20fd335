//! Packed rings (virtio 1.x, section 2.8).
//!
//! ```text
//!   desc    16 bytes each: addr u64, len u32, id u16, flags u16
//!   driver  off_wrap u16, flags u16      when the driver wants interrupts
//!   device  off_wrap u16, flags u16      when the device wants kicks
//! ```
//!
//! Driver and device write into the same descriptors, lap after lap. A lap has a wrap counter, 1 in the first one; the
//! AVAIL and USED bits of a descriptor say how far it is in which lap:
//!
//! ```text
//!   AVAIL == lap, USED != lap    available
//!   AVAIL == lap, USED == lap    used
//! ```
//!
//! A chain takes up as many descriptors as it has; its used entry is written over the first one, the others are left.

use core::sync::atomic::{Ordering, fence};
use std::sync::Arc;

use fabnic_memory::{AddressSpace, DirtyLog, Hint, Map, Slice, Table};

use crate::chain::{
    Chain, Descriptor, GROUP, Gather, INDIRECT, MAX_CHAIN, NEXT, SMALL_GROUP, WRITE, close, open,
    prefetch_buffer, translate_table,
};
use crate::error::{Place, RingError};
use crate::log::Log;
use crate::{Journal, Ring, RingConfig, passes};

/// Flag of a descriptor: the driver's wrap counter.
pub(crate) const AVAIL: u16 = 1 << 7;
/// Flag of a descriptor: the device's wrap counter, or not the driver's while the descriptor is available.
pub(crate) const USED: u16 = 1 << 15;

/// Event suppression: notify always.
const ENABLE: u16 = 0;
/// Event suppression: never notify.
const DISABLE: u16 = 1;
/// Event suppression: notify when the position in `off_wrap` is reached.
const DESC: u16 = 2;

/// Descriptors in a cache line.
const LINE: usize = 4;
/// Descriptors that are asked for at the least: two cache lines.
const AHEAD: u16 = 8;

/// A place in a ring, in a lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    fn from_bits(bits: u16) -> Position {
        Position { index: bits & 0x7fff, wrap: bits & 0x8000 != 0 }
    }

    #[inline(always)]
    fn bits(self) -> u16 {
        self.index | (u16::from(self.wrap) << 15)
    }

    /// `by` is at most the ring's size.
    #[inline(always)]
    fn forward(self, by: u16, size: u16) -> Position {
        let index = u32::from(self.index) + u32::from(by);
        match index.checked_sub(u32::from(size)) {
            Some(index) => Position { index: index as u16, wrap: !self.wrap },
            None => Position { index: index as u16, wrap: self.wrap },
        }
    }

    /// `by` is at most the ring's size.
    fn back(self, by: u16, size: u16) -> Position {
        match self.index.checked_sub(by) {
            Some(index) => Position { index, wrap: self.wrap },
            None => Position { index: size - (by - self.index), wrap: !self.wrap },
        }
    }

    /// How far it is from `other` to here, modulo two laps.
    fn distance(self, other: Position, size: u16) -> u32 {
        let lap = |p: Position| u32::from(p.index) + if p.wrap { 0 } else { u32::from(size) };
        let round = 2 * u32::from(size);
        (lap(self) + round - lap(other)) % round
    }

    /// The AVAIL and USED bits of an available descriptor in this lap.
    #[inline(always)]
    fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// The AVAIL and USED bits of a used descriptor in this lap.
    #[inline(always)]
    fn used(self) -> u16 {
        if self.wrap { AVAIL | USED } else { 0 }
    }
}

/// What is written to say that a chain is used: the second word of its first descriptor, with length, id and flags.
#[inline(always)]
fn used_word<const WRITABLE: bool>(at: Position, id: u16, len: u32) -> u64 {
    let (flags, len) = if WRITABLE { (at.used() | WRITE, len) } else { (at.used(), 0) };
    u64::from(len) | (u64::from(id) << 32) | (u64::from(flags) << 48)
}

/// The areas of a ring in one map.
#[derive(Debug)]
struct Areas {
    desc: Table<[u64; 2]>,
    /// The same memory; the second word of each descriptor is the one that is written.
    words: Table<u64>,
    driver: Table<u32>,
    device: Table<u32>,
    /// Guest-physical addresses of what is written, for the log.
    desc_guest: Option<u64>,
    device_guest: Option<u64>,
}

impl Areas {
    fn new(map: &Arc<Map>, config: &RingConfig) -> Result<Areas, RingError> {
        let size = usize::from(config.size);
        let user = AddressSpace::User;
        let area = |area| move |source| RingError::Area { area, source };
        Ok(Areas {
            desc: map.table(user, config.desc, size).map_err(area("descriptor ring"))?,
            words: map.table(user, config.desc, 2 * size).map_err(area("descriptor ring"))?,
            driver: map.table(user, config.driver, 1).map_err(area("driver event suppression"))?,
            device: map.table(user, config.device, 1).map_err(area("device event suppression"))?,
            desc_guest: map.user_to_guest(config.desc),
            device_guest: map.user_to_guest(config.device),
        })
    }

    /// One look at a descriptor; what is read afterwards is read afterwards.
    #[inline(always)]
    fn load(&self, index: u16) -> Descriptor {
        Descriptor::new(self.desc.load_acquire(usize::from(index)))
    }

    #[inline(always)]
    fn is_available(&self, at: Position) -> bool {
        self.load(at.index).fourth() & (AVAIL | USED) == at.available()
    }
}

/// The device's side of a packed ring.
#[derive(Debug)]
pub struct PackedRing {
    areas: Areas,
    map: Arc<Map>,
    hint: Hint,
    size: u16,
    event_idx: bool,
    in_order: bool,
    /// The next descriptor to take.
    next: Position,
    /// The next descriptor to use.
    used: Position,
    has_signalled: bool,
    in_use: bool,
    /// Descriptors that are available from `next` on, as far as [`Ring::backlog`] saw.
    known: u16,
    log: Log,
    is_used_logged: bool,
    journal: Option<Journal>,
    config: RingConfig,
}

impl PackedRing {
    /// A chain that is more than one buffer of the wanted kind.
    #[inline(never)]
    fn chain<const WRITABLE: bool>(
        &mut self,
        first: Descriptor,
        slices: &mut Vec<Slice>,
    ) -> Result<Chain, RingError> {
        let limit = self.size.min(MAX_CHAIN as u16);
        let head = Place::Descriptor(self.next.index);
        let mut gather = Gather::new(&self.map, &mut self.hint, slices, head);
        let (mut at, mut descriptor) = (self.next, first);
        for entries in 1..=limit {
            let (place, flags) = (Place::Descriptor(at.index), descriptor.fourth());
            if flags & INDIRECT != 0 {
                // A table stands alone (section 2.8.19).
                if flags & NEXT != 0 || entries > 1 {
                    return Err(RingError::Nested { place });
                }
                indirect::<WRITABLE>(&mut gather, at.index, descriptor)?;
                return Ok(gather.finish(descriptor.third(), entries));
            }
            gather.add::<WRITABLE>(flags, place, descriptor)?;
            if flags & NEXT == 0 {
                return Ok(gather.finish(descriptor.third(), entries));
            }
            at = at.forward(1, self.size);
            descriptor = self.areas.load(at.index);
        }
        Err(RingError::TooLong { place: head, limit: usize::from(limit) })
    }

    /// Descriptors that may be taken: no more than one lap can be in flight, or descriptors that we hold would look
    /// available again.
    #[inline(always)]
    fn free(&self) -> usize {
        let in_flight = self.next.distance(self.used, self.size);
        u32::from(self.size).saturating_sub(in_flight) as usize
    }

    /// Asks for the lines of the next `count` descriptors. They will be written too, when the chains are used: a line is
    /// fetched from the driver's CPU once instead of twice.
    #[inline(always)]
    fn ask_for<const WRITABLE: bool>(&self, count: usize) {
        for ahead in (0..count.min(usize::from(self.size))).step_by(LINE) {
            let at = usize::from(self.next.forward(ahead as u16, self.size).index);
            // With IN_ORDER one entry is written for a burst.
            match self.in_order && !WRITABLE {
                true => self.areas.desc.prefetch(at),
                false => self.areas.desc.prefetch_write(at),
            }
        }
    }

    #[inline(always)]
    fn take_all<const WRITABLE: bool>(
        &mut self,
        count: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) -> Result<(), RingError> {
        let (wanted, mut group) = (chains.len() + count, GROUP);
        // Buffers to receive into were given long ago. What is being transmitted may still be written in these lines:
        // no more of them than is known to be there.
        let sure = if WRITABLE { count } else { count.min(usize::from(self.known.max(AHEAD))) };
        self.ask_for::<WRITABLE>(sure);
        while chains.len() < wanted {
            if slices.capacity() - slices.len() < MAX_CHAIN && !slices.is_empty() {
                return Ok(());
            }
            let run = usize::from(self.size - self.next.index).min(wanted - chains.len()).min(group);
            let before = chains.len();
            let Some(descriptor) = self.take_plain::<WRITABLE>(run, slices, chains) else { continue };
            // Chains are alike: behind one that is not plain no place for a whole group is made.
            group = if chains.len() == before { SMALL_GROUP } else { GROUP };
            if descriptor.fourth() & (AVAIL | USED) != self.next.available() {
                return Ok(());
            }
            let chain = self.chain::<WRITABLE>(descriptor, slices)?;
            chains.push(chain);
            self.next = self.next.forward(chain.entries, self.size);
        }
        Ok(())
    }

    /// Takes chains of one buffer of the wanted kind, as long as they are such, and asks for the buffers: at most `run`,
    /// which does not go beyond the ring's end. Gives the descriptor of the first that is not such.
    #[inline(never)]
    fn take_plain<const WRITABLE: bool>(
        &mut self,
        run: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) -> Option<Descriptor> {
        let window = self.map.window(&self.hint);
        let wanted = self.next.available() | if WRITABLE { WRITE } else { 0 };
        let (mut taken, mut stopped_at) = (0, None);
        let (first, places) = open(run, slices, chains);
        for (slice, chain) in places {
            let descriptor = self.areas.load(self.next.index + taken as u16);
            let is_plain = descriptor.fourth() & (AVAIL | USED | NEXT | INDIRECT | WRITE) == wanted;
            let Some(found) = window.slice(descriptor.addr(), descriptor.len()).filter(|_| is_plain) else {
                stopped_at = Some(descriptor);
                break;
            };
            prefetch_buffer::<WRITABLE>(&self.map, &found);
            *slice = found;
            let id = descriptor.third();
            *chain = Chain { id, entries: 1, count: 1, len: found.len(), first: first + taken };
            taken += 1;
        }
        close(run - taken as usize, slices, chains);
        self.next = self.next.forward(taken as u16, self.size);
        stopped_at
    }

    /// Writes one used entry.
    #[inline(always)]
    fn write_used<const WRITABLE: bool>(&self, at: Position, id: u16, len: u32, order: Ordering) {
        let word = used_word::<WRITABLE>(at, id, len).to_le();
        let place = 2 * usize::from(at.index) + 1;
        match order {
            Ordering::Release => self.areas.words.store_release(place, word),
            _ => self.areas.words.store(place, word),
        }
    }

    /// Writes used entries side by side. Gives where the next one goes.
    #[inline(always)]
    fn write_others<const WRITABLE: bool>(&self, mut at: Position, chains: &[Chain]) -> Position {
        let (words, mut left) = (&self.areas.words, chains);
        while !left.is_empty() {
            // Up to the ring's end, and as long as chains take up one entry each, nothing but the place changes.
            let run = usize::from(self.size - at.index).min(left.len());
            let mut place = 2 * usize::from(at.index) + 1;
            let mut written = 0;
            for chain in left.iter().take(run) {
                words.store(place, used_word::<WRITABLE>(at, chain.id, chain.len).to_le());
                place += 2;
                written += 1;
                if chain.entries != 1 {
                    at = at.forward(chain.entries - 1, self.size);
                    break;
                }
            }
            at = at.forward(written as u16, self.size);
            left = left.get(written..).unwrap_or(&[]);
        }
        at
    }

    /// Writes the used entries of a burst, the first one last.
    #[inline(always)]
    fn write_burst<const WRITABLE: bool>(&mut self, chains: &[Chain]) {
        let [first, others @ ..] = chains else { return };
        let old = self.used;
        // What was written to buffers is in the log before the driver can know of it.
        self.log.flush();
        let as_one = self.in_order && !WRITABLE;
        // One entry for all (section 2.8.17): where the first one is, with the last one's id.
        let id = if as_one { chains.last().map_or(first.id, |chain| chain.id) } else { first.id };
        if let Some(journal) = &self.journal {
            let entries = chains.iter().map(|chain| chain.entries).fold(0, u16::saturating_add);
            let new = old.forward(entries.min(self.size), self.size);
            journal.note(old.bits(), new.bits(), used_word::<WRITABLE>(old, id, first.len));
        }
        let mut at = old.forward(first.entries, self.size);
        if as_one || self.is_used_logged {
            for chain in others {
                if !as_one {
                    self.write_used::<WRITABLE>(at, chain.id, chain.len, Ordering::Relaxed);
                    self.log_used(at);
                }
                at = at.forward(chain.entries, self.size);
            }
        } else {
            at = self.write_others::<WRITABLE>(at, others);
        }
        // The driver looks at them one after the other: with the first all become visible.
        self.write_used::<WRITABLE>(old, id, first.len, Ordering::Release);
        self.used = at;
        if self.log.is_on() {
            self.log_used(old);
            self.log.flush();
        }
    }

    fn log_used(&mut self, at: Position) {
        if self.is_used_logged {
            self.log.mark(self.areas.desc_guest, 16 * u64::from(at.index), 16);
        }
    }

    /// Says when kicks are wanted.
    fn write_event(&mut self, flags: u16) {
        let mut event = u32::from(self.next.bits()) | (u32::from(flags) << 16);
        if event == 0 {
            // The position means nothing with this flag; a ring that we serve never has a zero here (see the journal).
            event = 1;
        }
        self.areas.device.store(0, event.to_le());
        if self.is_used_logged {
            self.log.mark(self.areas.device_guest, 0, 4);
            self.log.flush();
        }
    }
}

/// The descriptors of a table (section 2.8.7): all of them, in their order; only WRITE means something there.
fn indirect<const WRITABLE: bool>(
    gather: &mut Gather<'_>,
    of: u16,
    descriptor: Descriptor,
) -> Result<(), RingError> {
    let (table, count) = translate_table(gather, of, descriptor)?;
    for index in 0..u16::try_from(count).unwrap_or(0) {
        let place = Place::Indirect { of, index };
        let entry = Descriptor::read(gather.map, &table, index);
        let flags = entry.fourth();
        if flags & INDIRECT != 0 {
            return Err(RingError::Nested { place });
        }
        gather.add::<WRITABLE>(flags, place, entry)?;
    }
    Ok(())
}

impl Ring for PackedRing {
    fn open(map: &Arc<Map>, config: &RingConfig) -> Result<PackedRing, RingError> {
        let size = config.size;
        if size == 0 || size > 32768 {
            return Err(RingError::Size { size, expected: "1 to 32768 (packed ring)" });
        }
        let areas = Areas::new(map, config)?;
        let next = start::find(&areas, config)?;
        let in_use = next != start::FIRST;
        Ok(PackedRing {
            areas,
            map: Arc::clone(map),
            hint: Hint::default(),
            size,
            event_idx: config.event_idx,
            in_order: config.in_order,
            next,
            used: next,
            has_signalled: false,
            in_use,
            known: 0,
            log: Log::default(),
            is_used_logged: false,
            journal: None,
            config: *config,
        })
    }

    #[inline]
    fn backlog(&mut self) -> usize {
        if !self.areas.is_available(self.next) {
            return 0;
        }
        // Gallop: what is far ahead was either written long ago, or was last written by us and is in our cache.
        let mut known = 1_u16;
        while known <= self.size / 2 && self.areas.is_available(self.next.forward(2 * known - 1, self.size)) {
            known *= 2;
        }
        self.known = known;
        usize::from(known)
    }

    #[inline]
    fn take<const WRITABLE: bool>(
        &mut self,
        max: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) -> Result<usize, RingError> {
        let count = max.min(chains.capacity() - chains.len()).min(self.free());
        let before = (self.next, slices.len(), chains.len());
        if let Err(error) = self.take_all::<WRITABLE>(count, slices, chains) {
            self.next = before.0;
            slices.truncate(before.1);
            chains.truncate(before.2);
            return Err(error);
        }
        let taken = chains.len() - before.2;
        self.known = self.known.saturating_sub(taken as u16);
        Ok(taken)
    }

    #[inline]
    fn take_ahead<const WRITABLE: bool>(
        &mut self,
        max: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) {
        // Buffers to receive into were given long ago.
        let known = if WRITABLE { self.free() } else { self.free().min(usize::from(self.known)) };
        let run = usize::from(self.size - self.next.index).min(known).min(max).min(GROUP);
        let before = chains.len();
        self.take_plain::<WRITABLE>(run, slices, chains);
        let taken = chains.len() - before;
        self.known = self.known.saturating_sub(taken as u16);
        // The lines of the burst behind come meanwhile.
        self.ask_for::<WRITABLE>(known.saturating_sub(taken).min(GROUP));
    }

    #[inline]
    fn give_back(&mut self, chains: &[Chain]) {
        let entries: u32 = chains.iter().map(|chain| u32::from(chain.entries)).sum();
        self.next = self.next.back(entries.min(u32::from(self.size)) as u16, self.size);
    }

    #[inline]
    fn publish<const WRITABLE: bool>(&mut self, chains: &[Chain]) -> bool {
        let old = self.used;
        // A journal can tell what became of a burst whose chains have one descriptor each, which is the rule.
        let is_noted_whole = || (self.in_order && !WRITABLE) || chains.iter().all(|chain| chain.entries == 1);
        if chains.is_empty() {
            return false;
        } else if self.journal.is_none() || is_noted_whole() {
            self.write_burst::<WRITABLE>(chains);
        } else {
            chains.chunks(1).for_each(|chain| self.write_burst::<WRITABLE>(chain));
        }
        let at = self.used;
        // The entries must be seen before we look whether an interrupt is wanted (section 2.8.23.2).
        fence(Ordering::SeqCst);
        let event = u32::from_le(self.areas.driver.load(0));
        let is_first = !core::mem::replace(&mut self.has_signalled, true);
        match ((event >> 16) & 3) as u16 {
            DISABLE => false,
            DESC if self.event_idx && !is_first => {
                let event = Position::from_bits((event & 0xffff) as u16);
                let new = at.index;
                let same_lap = |index: u16, same| if same { index } else { index.wrapping_sub(self.size) };
                let old = same_lap(old.index, new > old.index);
                passes(same_lap(event.index, event.wrap == at.wrap), new, old)
            }
            _ => true,
        }
    }

    fn arm(&mut self) -> bool {
        self.write_event(if self.event_idx { DESC } else { ENABLE });
        // The request must be seen before we look for the last time.
        fence(Ordering::SeqCst);
        self.areas.is_available(self.next)
    }

    fn disarm(&mut self) {
        self.write_event(DISABLE);
    }

    fn position(&self) -> u32 {
        u32::from(self.next.bits()) | (u32::from(self.used.bits()) << 16)
    }

    fn in_use(&mut self) -> bool {
        self.in_use = self.in_use || self.areas.is_available(self.next);
        self.in_use
    }

    fn rebind(&mut self, map: &Arc<Map>) -> Result<(), RingError> {
        self.areas = Areas::new(map, &self.config)?;
        self.map = Arc::clone(map);
        self.hint = Hint::default();
        Ok(())
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>, used: Option<u64>) {
        self.log.set(log);
        // Front ends give the address of the device area here; what is written lies in the descriptor ring, which is
        // looked up in the memory table.
        self.is_used_logged = self.log.is_on() && used.is_some();
    }

    fn set_journal(&mut self, journal: Option<Journal>) {
        if let Some(journal) = &journal {
            journal.begin(self.used.bits());
        }
        self.journal = journal;
    }

    #[inline(always)]
    fn is_logging(&self) -> bool {
        self.log.is_on()
    }

    #[inline(always)]
    fn log_written(&mut self, map: &Map, slice: &Slice, len: u32) {
        self.log.mark_slice(map, slice, len);
    }
}

mod start;
