//! Split rings (virtio 1.x, section 2.7).
//!
//! ```text
//!   desc    16 bytes each: addr u64, len u32, flags u16, next u16
//!   driver  flags u16 | idx u16 | ring[size] u16        | used_event u16
//!   device  flags u16 | idx u16 | ring[size] id+len u32 | avail_event u16
//! ```
//!
//! # Where a ring begins
//!
//! The used index in memory is what the driver has seen, so it is where the ring goes on, whatever the base says. The
//! two differ only after a back end died with chains in flight: those are taken again, so that a burst may be sent
//! twice but none is lost. Chains are always used in order, which makes the entries behind the used index exactly the
//! ones in flight.

use core::sync::atomic::{Ordering, fence};
use std::sync::Arc;

use fabnic_memory::{AddressSpace, DirtyLog, Hint, Map, Slice, Table};

use crate::chain::{
    Chain, DESCRIPTOR, Descriptor, GROUP, Gather, INDIRECT, MAX_CHAIN, NEXT, SMALL_GROUP, WRITE, close, open,
    prefetch_buffer, translate_table,
};
use crate::error::{Place, RingError};
use crate::log::Log;
use crate::{Ring, RingConfig, passes};

/// `avail->flags`: the driver wants no interrupts.
const NO_INTERRUPT: u16 = 1;
/// `used->flags`: the device wants no kicks.
const NO_NOTIFY: u16 = 1;
/// Place of the index in the driver and device areas, in 16-bit words.
const IDX: usize = 1;
/// Place of the entries in the driver area, in 16-bit words.
const ENTRIES: usize = 2;

/// Descriptors that are asked for ahead of the one in work: two cache lines. Most drivers give them in order.
const AHEAD: usize = 8;

/// The areas of a ring in one map.
#[derive(Debug)]
struct Areas {
    desc: Table<[u64; 2]>,
    /// Flags, index, entries, used_event.
    avail: Table<u16>,
    /// Flags and index of the used ring.
    used_head: Table<u16>,
    /// Entries of the used ring: id and length.
    used: Table<[u32; 2]>,
    /// avail_event, with EVENT_IDX.
    avail_event: Option<Table<u16>>,
}

impl Areas {
    fn new(map: &Arc<Map>, config: &RingConfig) -> Result<Areas, RingError> {
        let size = usize::from(config.size);
        let user = AddressSpace::User;
        let area = |area| move |source| RingError::Area { area, source };
        let event = usize::from(config.event_idx);
        let used = "used ring";
        // An address near the end of the space is outside of every map, as any other that is.
        let entries = config.device.saturating_add(4);
        let avail_event = entries.saturating_add(8 * u64::from(config.size));
        Ok(Areas {
            desc: map.table(user, config.desc, size).map_err(area("descriptor table"))?,
            avail: map.table(user, config.driver, ENTRIES + size + event).map_err(area("available ring"))?,
            used_head: map.table(user, config.device, ENTRIES).map_err(area(used))?,
            used: map.table(user, entries, size).map_err(area(used))?,
            avail_event: match config.event_idx {
                true => Some(map.table(user, avail_event, 1).map_err(area(used))?),
                false => None,
            },
        })
    }
}

/// The device's side of a split ring.
#[derive(Debug)]
pub struct SplitRing {
    areas: Areas,
    map: Arc<Map>,
    hint: Hint,
    size: u16,
    in_order: bool,
    /// The next available index to take.
    next: u16,
    /// The available index as last seen; at most `size` ahead of `next`.
    seen: u16,
    /// The used index as last published.
    used: u16,
    /// Whether `used` was ever compared with used_event.
    has_signalled: bool,
    in_use: bool,
    log: Log,
    log_used: Option<u64>,
    config: RingConfig,
}

impl SplitRing {
    /// Place of the entry for an index.
    #[inline(always)]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// Reads the available index. Gives how many chains wait.
    #[inline(always)]
    fn look(&mut self) -> Result<u16, RingError> {
        let index = u16::from_le(self.areas.avail.load_acquire(IDX));
        let ahead = index.wrapping_sub(self.next);
        if ahead > self.size {
            return Err(RingError::Jump { index, next: self.next, ahead, size: self.size });
        }
        self.seen = index;
        Ok(ahead)
    }

    /// One chain that is more than one buffer of the wanted kind.
    #[inline(never)]
    fn chain<const WRITABLE: bool>(
        &mut self,
        head: u16,
        first: Descriptor,
        slices: &mut Vec<Slice>,
    ) -> Result<Chain, RingError> {
        let limit = MAX_CHAIN.min(usize::from(self.size));
        let mut gather = Gather::new(&self.map, &mut self.hint, slices, Place::Descriptor(head));
        let (mut index, mut descriptor) = (head, first);
        for _ in 0..limit {
            let (place, flags) = (Place::Descriptor(index), descriptor.third());
            if flags & INDIRECT != 0 {
                if flags & NEXT != 0 {
                    return Err(RingError::Nested { place });
                }
                indirect::<WRITABLE>(&mut gather, index, descriptor)?;
                return Ok(gather.finish(head, 1));
            }
            gather.add::<WRITABLE>(flags, place, descriptor)?;
            if flags & NEXT == 0 {
                return Ok(gather.finish(head, 1));
            }
            index = descriptor.fourth();
            if index >= self.size {
                return Err(RingError::Index { place, index, limit: u32::from(self.size) });
            }
            descriptor = Descriptor::new(self.areas.desc.load(usize::from(index)));
        }
        Err(RingError::TooLong { place: Place::Descriptor(head), limit })
    }

    #[inline(always)]
    fn take_all<const WRITABLE: bool>(
        &mut self,
        count: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) -> Result<(), RingError> {
        let (mut left, mut group) = (count, GROUP);
        while left > 0 {
            if slices.capacity() - slices.len() < MAX_CHAIN && !slices.is_empty() {
                return Ok(());
            }
            let (taken, stopped_at) = self.take_plain::<WRITABLE>(left.min(group), slices, chains);
            left -= taken;
            // Chains are alike: behind one that is not plain no place for a whole group is made.
            group = if taken == 0 { SMALL_GROUP } else { GROUP };
            if let Some((head, descriptor)) = stopped_at {
                self.take_other::<WRITABLE>(head, descriptor, slices, chains)?;
                left -= 1;
            }
        }
        Ok(())
    }

    /// Takes up to `count` chains, at most [`GROUP`], of one buffer of the wanted kind, as long as they are such, and asks
    /// for the buffers. Gives how many; and head and descriptor of the one that is not such.
    #[inline(never)]
    fn take_plain<const WRITABLE: bool>(
        &mut self,
        count: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) -> (usize, Option<(u16, Descriptor)>) {
        let window = self.map.window(&self.hint);
        let Areas { desc, avail, .. } = &self.areas;
        let mask = self.size - 1;
        let (mut next, mut stopped_at) = (self.next, None);
        let (mut at, places) = open(count, slices, chains);
        for (slice, chain) in places {
            let head = u16::from_le(avail.load(ENTRIES + usize::from(next & mask)));
            let index = usize::from(head);
            // One that does not exist is loaded as zeros: it has no bytes.
            let descriptor = Descriptor::new(desc.load(index));
            desc.prefetch(index + AHEAD);
            let is_plain = descriptor.third() & (NEXT | INDIRECT | WRITE) == if WRITABLE { WRITE } else { 0 };
            let Some(found) = window.slice(descriptor.addr(), descriptor.len()).filter(|_| is_plain) else {
                stopped_at = Some((head, descriptor));
                break;
            };
            prefetch_buffer::<WRITABLE>(&self.map, &found);
            *slice = found;
            *chain = Chain { id: head, entries: 1, count: 1, len: found.len(), first: at };
            at += 1;
            next = next.wrapping_add(1);
        }
        let taken = usize::from(next.wrapping_sub(self.next));
        close(count - taken, slices, chains);
        self.next = next;
        (taken, stopped_at)
    }

    /// Takes a chain that is not plain.
    #[inline(never)]
    fn take_other<const WRITABLE: bool>(
        &mut self,
        head: u16,
        descriptor: Descriptor,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) -> Result<(), RingError> {
        if head >= self.size {
            let place = Place::Available(self.next);
            return Err(RingError::Index { place, index: head, limit: u32::from(self.size) });
        }
        let chain = self.chain::<WRITABLE>(head, descriptor, slices)?;
        chains.push(chain);
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Marks a write to the device area and lets the log have it.
    #[inline(always)]
    fn log_used(&mut self, offset: u64, len: u64) {
        if self.log.is_on() {
            self.log.mark(self.log_used, offset, len);
            self.log.flush();
        }
    }

    /// Offset of avail_event in the device area, in bytes.
    fn avail_event_offset(&self) -> u64 {
        4 + 8 * u64::from(self.size)
    }
}

/// The descriptors of a table (section 2.7.5.3), which is the last of its chain.
fn indirect<const WRITABLE: bool>(
    gather: &mut Gather<'_>,
    of: u16,
    descriptor: Descriptor,
) -> Result<(), RingError> {
    let (table, count) = translate_table(gather, of, descriptor)?;
    let mut index = 0;
    for _ in 0..count {
        let place = Place::Indirect { of, index };
        let entry = Descriptor::read(gather.map, &table, index);
        let flags = entry.third();
        if flags & INDIRECT != 0 {
            return Err(RingError::Nested { place });
        }
        gather.add::<WRITABLE>(flags, place, entry)?;
        if flags & NEXT == 0 {
            return Ok(());
        }
        index = entry.fourth();
        if usize::from(index) >= count {
            return Err(RingError::Index { place, index, limit: table.len() / DESCRIPTOR as u32 });
        }
    }
    Err(RingError::TooLong { place: gather.head, limit: count })
}

impl Ring for SplitRing {
    fn open(map: &Arc<Map>, config: &RingConfig) -> Result<SplitRing, RingError> {
        let size = config.size;
        if !size.is_power_of_two() {
            return Err(RingError::Size { size, expected: "a power of two from 1 to 32768 (split ring)" });
        }
        let areas = Areas::new(map, config)?;
        let used = u16::from_le(areas.used_head.load(IDX));
        let next = if u16::from_le(areas.avail.load(IDX)).wrapping_sub(used) <= size {
            used
        } else {
            // Nonsense in memory. With the base it is at least what the front end said; taking will tell.
            (config.base & 0xffff) as u16
        };
        Ok(SplitRing {
            areas,
            map: Arc::clone(map),
            hint: Hint::default(),
            size,
            in_order: config.in_order,
            next,
            seen: next,
            used: next,
            has_signalled: false,
            in_use: next != 0,
            log: Log::default(),
            log_used: None,
            config: *config,
        })
    }

    #[inline]
    fn backlog(&mut self) -> usize {
        let index = u16::from_le(self.areas.avail.load(IDX));
        // An index that jumped counts too, so that the ring is looked at and the error found.
        usize::from(index.wrapping_sub(self.next).min(self.size))
    }

    #[inline]
    fn take<const WRITABLE: bool>(
        &mut self,
        max: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) -> Result<usize, RingError> {
        let mut ready = self.seen.wrapping_sub(self.next);
        if usize::from(ready) < max {
            ready = self.look()?;
        }
        let room = chains.capacity() - chains.len();
        let count = usize::from(ready).min(max).min(room);
        if count == 0 {
            return Ok(0);
        }
        let before = (self.next, slices.len(), chains.len());
        if let Err(error) = self.take_all::<WRITABLE>(count, slices, chains) {
            self.next = before.0;
            slices.truncate(before.1);
            chains.truncate(before.2);
            return Err(error);
        }
        Ok(chains.len() - before.2)
    }

    #[inline]
    fn take_ahead<const WRITABLE: bool>(
        &mut self,
        max: usize,
        slices: &mut Vec<Slice>,
        chains: &mut Vec<Chain>,
    ) {
        let known = usize::from(self.seen.wrapping_sub(self.next));
        self.take_plain::<WRITABLE>(known.min(max).min(GROUP), slices, chains);
    }

    #[inline]
    fn give_back(&mut self, chains: &[Chain]) {
        self.next = self.next.wrapping_sub(chains.len() as u16);
    }

    #[inline]
    fn publish<const WRITABLE: bool>(&mut self, chains: &[Chain]) -> bool {
        let Some(last) = chains.last() else { return false };
        let (old, new) = (self.used, self.used.wrapping_add(chains.len() as u16));
        // What was written to buffers is in the log before the driver can know of it.
        self.log.flush();
        if self.in_order && !WRITABLE {
            // One entry for all, in the first one's place (section 2.7.9). Its length would be the last one's only, so
            // this is not done for buffers that were written.
            let at = self.slot(old);
            self.areas.used.store(at, [u32::from(last.id).to_le(), 0]);
            self.log_used(4 + 8 * at as u64, 8);
        } else {
            let (used, mask) = (&self.areas.used, self.size - 1);
            let mut index = old;
            for chain in chains {
                let len = if WRITABLE { chain.len.to_le() } else { 0 };
                used.store(usize::from(index & mask), [u32::from(chain.id).to_le(), len]);
                index = index.wrapping_add(1);
            }
            if self.log.is_on() {
                let (first, size) = (self.slot(old) as u64, u64::from(self.size));
                let behind = (first + chains.len() as u64).saturating_sub(size);
                self.log_used(4 + 8 * first, 8 * (chains.len() as u64 - behind));
                self.log_used(4, 8 * behind);
            }
        }
        self.used = new;
        self.areas.used_head.store_release(IDX, new.to_le());
        self.log_used(2, 2);
        // The index must be seen before we look whether an interrupt is wanted (section 2.7.7.2).
        fence(Ordering::SeqCst);
        if self.areas.avail_event.is_some() {
            let event = u16::from_le(self.areas.avail.load(ENTRIES + usize::from(self.size)));
            let first = !core::mem::replace(&mut self.has_signalled, true);
            first || passes(event, new, old)
        } else {
            u16::from_le(self.areas.avail.load(0)) & NO_INTERRUPT == 0
        }
    }

    fn arm(&mut self) -> bool {
        match &self.areas.avail_event {
            Some(event) => {
                event.store(0, self.next.to_le());
                self.log_used(self.avail_event_offset(), 2);
            }
            None => {
                self.areas.used_head.store(0, 0);
                self.log_used(0, 2);
            }
        }
        // The request must be seen before we look for the last time (section 2.7.10).
        fence(Ordering::SeqCst);
        self.backlog() > 0
    }

    fn disarm(&mut self) {
        // With EVENT_IDX there is nothing to do: the event stays behind, where it is passed once in 65536 entries.
        if self.areas.avail_event.is_none() {
            self.areas.used_head.store(0, NO_NOTIFY.to_le());
            self.log_used(0, 2);
        }
    }

    fn position(&self) -> u32 {
        u32::from(self.next)
    }

    fn in_use(&mut self) -> bool {
        self.in_use |= self.next != 0 || u16::from_le(self.areas.avail.load(IDX)) != 0;
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
        self.log_used = used;
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
