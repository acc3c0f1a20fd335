//! The light guest: what is left of a driver when everything that can be done once is done once.
//!
//! ```text
//!   transmit   a static ring full of pre-built frames; what the device has used is made available again, unread
//!   receive    a static ring of buffers; of each frame one cache line is read (its header), then it goes back
//! ```
//!
//! With two of them on one CPU the switch between them is the limit: that is what they are for. They keep to the rules
//! of virtio all the same, so any back end can be measured with them. A device that uses transmit chains out of order
//! would find static rings re-posted wrongly; it is counted ([`Counts::disorder`]), and a measurement with a count there
//! is void. The receive side follows such a device.
//!
//! Rings are looked at eagerly but *touched* in batches: a driver on the device's heels shares the cache lines that the
//! device is writing and slows both. A ring with fewer than `gather` used entries is left alone, unless it is asked to
//! take what is there ([`LightReceive::poll`], [`LightTransmit::poll`]: `force`).

use fabnic_memory::Table;

use super::packed::{AVAIL, USED, word};
use super::{DESC_NEXT, DESC_WRITE, RingOptions, passes_event, place_ring};
use crate::front_end::RingPlace;
use crate::guest::RingStart;
use crate::memory::{GuestMemory, MemoryError};

mod flows;

pub use flows::{FlowFields, flow_mac, flow_ports};

use flows::Walk;

/// Bytes of the virtio-net header before each frame.
const HEADER: u32 = 12;
/// Most entries handled in one poll.
const MOST: u16 = 256;
/// How many first lines of frames are under way at a time: about as many as a core can wait for.
const AHEAD: u16 = 16;

/// What a light ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames.
    pub frames: u64,
    /// Bytes of frames, without virtio-net headers.
    pub bytes: u64,
    /// Used entries that were not in ring order.
    pub disorder: u64,
    /// Kicks the device asked for.
    pub kicks: u64,
    /// Polls at which the device had used every chain: it was faster than the guest.
    pub starved: u64,
}

/// The distance of buffers of `len` bytes: whole cache lines, an odd number of them, so that the first lines of all
/// buffers spread over all sets of a cache.
pub fn stride(len: u32) -> u32 {
    (len.div_ceil(64) | 1) * 64
}

/// What the two formats have in common for both directions: the ring of one kind and where it stands.
#[derive(Debug)]
enum Format {
    Split {
        /// flags, idx, ring[size], used_event
        available: Table<u16>,
        /// flags, idx
        used: Table<u16>,
        /// id, len; twice size
        elements: Table<u32>,
        avail_event: Table<u16>,
        /// The device's used index up to which everything is handled.
        seen: u16,
        kicked: u16,
        /// Where `seen` was when the event index was last moved.
        event: u16,
    },
    Packed {
        /// Address word and flags word of each descriptor.
        words: Table<u64>,
        device_event: Table<u16>,
        slot: u16,
        wrap: bool,
        /// Chains were made available since the last kick.
        fresh: bool,
        /// Chains from `slot` on that are known to be used, though their descriptors do not say so: what a limit left
        /// of a batch.
        known: u16,
    },
}

impl Format {
    fn new(memory: &GuestMemory, options: &RingOptions, place: RingPlace) -> Result<Format, MemoryError> {
        let size = usize::from(options.size);
        if options.packed {
            let driver_event: Table<u16> = memory.table(place.driver, 2)?;
            driver_event.store(1, 1);
            return Ok(Format::Packed {
                words: memory.table(place.descriptors, 2 * size)?,
                device_event: memory.table(place.device, 2)?,
                slot: 0,
                wrap: true,
                fresh: true,
                known: 0,
            });
        }
        let available: Table<u16> = memory.table(place.driver, 3 + size)?;
        available.store(0, 1);
        // The event index as far away as can be; it is moved along whenever the counters come near.
        available.store(2 + size, 0x8000);
        Ok(Format::Split {
            available,
            used: memory.table(place.device, 2)?,
            elements: memory.table(place.device + 4, 2 * size)?,
            avail_event: memory.table(place.device + 4 + 8 * size as u64, 1)?,
            seen: 0,
            kicked: 0,
            event: 0,
        })
    }

    /// Where the ring stands, for a person who wonders why nothing moves.
    fn describe(&self) -> String {
        match self {
            Format::Split { available, used, seen, kicked, avail_event, .. } => format!(
                "available index {}, used index {} (handled to {seen}), device flags {:#x}, avail_event {}, last kick at {kicked}",
                available.load(1),
                used.load(1),
                used.load(0),
                avail_event.load(0),
            ),
            Format::Packed { words, device_event, slot, wrap, fresh, .. } => format!(
                "slot {slot} (wrap {}), its flags {:#06x}, device event {:#06x} {:#x}, {} since the last kick",
                u8::from(*wrap),
                words.load(2 * usize::from(*slot) + 1) >> 48,
                device_event.load(0),
                device_event.load(1),
                if *fresh { "made available" } else { "nothing new" },
            ),
        }
    }

    /// Where a device begins that follows one which has gone, when everything used is handled.
    fn base(&self) -> u32 {
        match self {
            Format::Split { used, .. } => u32::from(used.load_acquire(1)),
            Format::Packed { slot, wrap, .. } => {
                let position = u32::from(*slot) | u32::from(*wrap) << 15;
                position << 16 | position
            }
        }
    }

    /// Whether the device wants a kick for what is available. Polled, so no fence: an answer that comes too early is
    /// corrected by the next one.
    #[inline]
    fn wants_kick(&mut self, options: &RingOptions, published: u16) -> bool {
        match self {
            Format::Split { used, avail_event, kicked, .. } => {
                if published == *kicked {
                    return false;
                }
                let wanted = if options.event_idx {
                    passes_event(avail_event.load(0), published, *kicked)
                } else {
                    used.load(0) & 1 == 0
                };
                if wanted {
                    *kicked = published;
                }
                wanted
            }
            Format::Packed { device_event, fresh, .. } => {
                // Being kicked at another descriptor than the one asked for is allowed, so no arithmetic here.
                let wanted = *fresh && device_event.load(1) & 3 != 1;
                if wanted {
                    *fresh = false;
                }
                wanted
            }
        }
    }
}

/// The transmit half of a light guest.
#[derive(Debug)]
pub struct LightTransmit {
    options: RingOptions,
    place: RingPlace,
    format: Format,
    /// Chains in the ring, each of `pieces` descriptors.
    chains: u16,
    pieces: u16,
    /// Descriptors as they are made available, flags without wrap bits; packed only.
    templates: Vec<[u64; 2]>,
    frame_bytes: Vec<u32>,
    walk: Option<Walk>,
    stride: u32,
    gather: u16,
    running: bool,
    counts: Counts,
}

/// A frame to be sent over and over: its virtio-net header and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prebuilt {
    /// Header as it goes before the frame.
    pub header: [u8; 12],
    /// The frame.
    pub bytes: Vec<u8>,
}

impl LightTransmit {
    /// A ring of frames in buffers of at most `piece` bytes each. `frame` builds the frame for each place in the ring.
    /// With more `flows` than there are frames, fields are rewritten as frames go out.
    pub fn new(
        memory: &mut GuestMemory,
        options: RingOptions,
        piece: u32,
        flows: u32,
        fields: FlowFields,
        mut frame: impl FnMut(u32) -> Prebuilt,
    ) -> Result<LightTransmit, MemoryError> {
        let place = place_ring(memory, &options)?;
        let first = frame(0);
        let longest = u32::try_from(first.bytes.len()).unwrap_or(u32::MAX).saturating_add(HEADER);
        let pieces = longest.div_ceil(piece).max(1);
        let pieces = u16::try_from(pieces).unwrap_or(u16::MAX).min(options.size);
        // A power of two, so that the available ring of a split queue can stay as it is for ever.
        let chains = 1_u16 << (options.size / pieces).max(1).ilog2();
        let stride = stride(longest);
        let base = memory.allocate(u64::from(stride) * u64::from(chains), 4096)?;
        let format = Format::new(memory, &options, place)?;
        let descriptors: Table<[u64; 2]> = memory.table(place.descriptors, usize::from(options.size))?;
        let mut templates = Vec::new();
        let mut frame_bytes = Vec::new();
        for chain in 0..chains {
            let built = frame(u32::from(chain));
            let at = base + u64::from(chain) * u64::from(stride);
            memory.write(at, &built.header)?;
            memory.write(at + u64::from(HEADER), &built.bytes)?;
            let bytes = u32::try_from(built.bytes.len()).unwrap_or(u32::MAX).min(longest - HEADER);
            frame_bytes.push(bytes);
            let mut left = bytes + HEADER;
            for i in 0..pieces {
                let slot = chain * pieces + i;
                let len = if i + 1 == pieces { left } else { left.min(piece) };
                left -= len;
                let addr = at + u64::from(i) * u64::from(piece);
                let more = if i + 1 < pieces { DESC_NEXT } else { 0 };
                if options.packed {
                    templates.push([addr, word(len, chain * pieces, more)]);
                } else {
                    let next = u64::from(slot + 1) << 48;
                    let entry = next | u64::from(more) << 32 | u64::from(len);
                    descriptors.store(usize::from(slot), [addr, entry]);
                }
            }
        }
        if let Format::Split { available, .. } = &format {
            for entry in 0..options.size {
                available.store(2 + usize::from(entry), entry % chains * pieces);
            }
        }
        let walk = (flows > u32::from(chains))
            .then(|| -> Result<Walk, MemoryError> {
                let halves = memory.table(base, (stride / 2) as usize * usize::from(chains))?;
                Ok(Walk::new(halves, fields, flows, u32::from(chains)))
            })
            .transpose()?;
        Ok(LightTransmit {
            options,
            place,
            format,
            chains,
            pieces,
            templates,
            frame_bytes,
            walk,
            stride,
            gather: (chains / 4).clamp(1, MOST),
            running: false,
            counts: Counts::default(),
        })
    }

    /// Where the ring lies.
    pub fn place(&self) -> RingPlace {
        self.place
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Where the ring stands, in words.
    pub fn describe(&self) -> String {
        self.format.describe()
    }

    /// Chains in the ring.
    pub fn chains(&self) -> u16 {
        self.chains
    }

    /// Touch the ring only when that many chains are used.
    pub fn set_gather(&mut self, gather: u16) {
        self.gather = gather.clamp(1, self.chains);
    }

    /// Makes the whole ring available. Once.
    pub fn start(&mut self) {
        if self.running {
            return;
        }
        self.running = true;
        match &self.format {
            Format::Split { available, .. } => available.store_release(1, self.chains),
            Format::Packed { .. } => self.repost(self.chains, true),
        }
    }

    /// Makes used chains available again. Gives how many frames that were; at most `limit` (a pace). Taken even if they
    /// are few when `force` is set.
    #[inline]
    pub fn poll(&mut self, limit: u16, force: bool) -> u16 {
        if !self.running || limit == 0 {
            return 0;
        }
        let threshold = if force { 1 } else { self.gather };
        let used = self.used(threshold);
        if used < threshold {
            return 0;
        }
        self.counts.starved += u64::from(used >= self.chains.min(MOST) && self.is_starving(used));
        let n = used.min(limit);
        self.take(n);
        if let Format::Packed { known, .. } = &mut self.format
            && self.options.in_order
        {
            *known = used - n;
        }
        n
    }

    /// Whether the device has used every chain, when at least `used` of them are known to be.
    #[cold]
    fn is_starving(&self, used: u16) -> bool {
        match &self.format {
            Format::Packed { words, slot, wrap, .. } if used < self.chains => {
                let (at, turn) = self.ahead(*slot, *wrap, self.chains - 1);
                used_word(words.load_acquire(2 * usize::from(at) + 1), turn)
            }
            _ => used >= self.chains,
        }
    }

    /// How many chains are used and not re-posted; may say 0 for fewer than `threshold`.
    #[inline]
    fn used(&self, threshold: u16) -> u16 {
        match &self.format {
            Format::Split { used, seen, .. } => used.load_acquire(1).wrapping_sub(*seen).min(self.chains),
            Format::Packed { words, slot, wrap, known, .. } => {
                if self.options.in_order {
                    return self.used_in_order(words, *slot, *wrap, *known);
                }
                let is_used = |n: u16| {
                    let (slot, wrap) = self.ahead(*slot, *wrap, n);
                    used_word(words.load_acquire(2 * usize::from(slot) + 1), wrap)
                };
                // The one at the threshold is only a hint that it is worth looking: a device may write the first
                // descriptor of a batch last, so each counts only if all before it do.
                if threshold > 1 && !is_used(threshold - 1) {
                    return 0;
                }
                let mut n = 0;
                while n < self.chains.min(MOST) && is_used(n) {
                    n += 1;
                }
                n
            }
        }
    }

    /// With IN_ORDER a used descriptor may stand for several chains: its id is the last one's.
    fn used_in_order(&self, words: &Table<u64>, slot: u16, wrap: bool, known: u16) -> u16 {
        let mut n = known;
        while n < self.chains.min(MOST) {
            let (at, turn) = self.ahead(slot, wrap, n);
            let bits = words.load_acquire(2 * usize::from(at) + 1);
            if !used_word(bits, turn) {
                break;
            }
            let last = (bits >> 32) as u16 / self.pieces % self.chains;
            n += (last + self.chains - at / self.pieces) % self.chains + 1;
        }
        n.min(self.chains)
    }

    /// The place `n` chains further on.
    #[inline]
    fn ahead(&self, slot: u16, wrap: bool, n: u16) -> (u16, bool) {
        // The ring may have more entries than the chains need: those at its end would be dead, so a ring of chains has
        // no more entries than that (see `ring_size`).
        let (slot, size) = (slot + n * self.pieces, self.chains * self.pieces);
        if slot >= size { (slot - size, !wrap) } else { (slot, wrap) }
    }

    #[inline]
    fn take(&mut self, n: u16) {
        let first = match &self.format {
            Format::Split { seen, .. } => *seen & (self.chains - 1),
            Format::Packed { slot, .. } => *slot / self.pieces,
        };
        let mask = usize::from(self.chains - 1);
        let same = self.frame_bytes.first().copied().unwrap_or_default();
        self.counts.frames += u64::from(n);
        self.counts.bytes += u64::from(n) * u64::from(same);
        if let Some(walk) = &mut self.walk {
            for i in 0..usize::from(n) {
                walk.step(((usize::from(first) + i) & mask) * self.stride as usize);
            }
        }
        self.repost(n, false);
    }

    /// Makes `n` chains available, at the `start` for the first time: nothing was used then.
    #[inline]
    fn repost(&mut self, n: u16, start: bool) {
        let (options, chains, pieces) = (self.options, self.chains, self.pieces);
        match &mut self.format {
            Format::Split { available, elements, seen, event, .. } => {
                // The last one stands for the batch: reading all ids would cost lines that nobody needs.
                let last = seen.wrapping_add(n).wrapping_sub(1);
                let id = elements.load(2 * usize::from(last & (options.size - 1)));
                let expected = u32::from((last & (chains - 1)) * pieces);
                self.counts.disorder += u64::from(id != expected && !options.in_order);
                *seen = seen.wrapping_add(n);
                available.store_release(1, seen.wrapping_add(chains));
                if options.event_idx && seen.wrapping_sub(*event) > 0x1000 {
                    *event = *seen;
                    available.store(2 + usize::from(options.size), seen.wrapping_sub(0x8000));
                }
            }
            Format::Packed { words, slot, wrap, fresh, .. } => {
                let total = chains * pieces;
                // Last chain first: the device sees none of the batch before all of it is there.
                for i in (0..n * pieces).rev() {
                    let mut at = *slot + i;
                    let mut turn = *wrap;
                    if at >= total {
                        at -= total;
                        turn = !turn;
                    }
                    // What is used in this turn of the ring is made available for the next one.
                    let turn = if start { turn } else { !turn };
                    let flags = u64::from(if turn { AVAIL } else { USED }) << 48;
                    let Some([addr, entry]) = self.templates.get(usize::from(at)) else { continue };
                    words.store(2 * usize::from(at), *addr);
                    words.store_release(2 * usize::from(at) + 1, entry | flags);
                }
                *fresh = true;
                if start {
                    return;
                }
                *slot += n * pieces;
                if *slot >= total {
                    *slot -= total;
                    *wrap = !*wrap;
                }
            }
        }
    }

    /// Whether the device wants a kick.
    #[inline]
    pub fn wants_kick(&mut self) -> bool {
        let published = match &self.format {
            Format::Split { seen, .. } => seen.wrapping_add(self.chains),
            Format::Packed { .. } => 0,
        };
        let wanted = self.running && self.format.wants_kick(&self.options, published);
        self.counts.kicks += u64::from(wanted);
        wanted
    }

    /// Entries that the ring must be given as its size: in the packed format the chains fill it to the last entry.
    pub fn ring_size(&self) -> u16 {
        if self.options.packed { self.chains * self.pieces } else { self.options.size }
    }
}

/// The receive half of a light guest.
#[derive(Debug)]
pub struct LightReceive {
    options: RingOptions,
    place: RingPlace,
    format: Format,
    base: u64,
    buffer: u32,
    stride: u32,
    /// All receive buffers.
    words: Table<u64>,
    /// Buffers that still belong to the frame whose first one was seen.
    left: u16,
    /// The device has left the order of the ring: the available ring is written.
    disordered: bool,
    gather: u16,
    /// A mix of all first lines: what was read is used for something.
    digest: u64,
    counts: Counts,
}

impl LightReceive {
    /// A ring of buffers of `buffer` bytes each, virtio-net header included.
    pub fn new(
        memory: &mut GuestMemory,
        options: RingOptions,
        buffer: u32,
    ) -> Result<LightReceive, MemoryError> {
        let place = place_ring(memory, &options)?;
        let stride = stride(buffer);
        let size = options.size;
        let base = memory.allocate(u64::from(stride) * u64::from(size), 4096)?;
        let format = Format::new(memory, &options, place)?;
        let descriptors: Table<[u64; 2]> = memory.table(place.descriptors, usize::from(size))?;
        for slot in 0..size {
            let addr = base + u64::from(slot) * u64::from(stride);
            let entry = if options.packed {
                word(buffer, slot, DESC_WRITE | AVAIL)
            } else {
                u64::from(DESC_WRITE) << 32 | u64::from(buffer)
            };
            descriptors.store_release(usize::from(slot), [addr, entry]);
        }
        if let Format::Split { available, .. } = &format {
            for slot in 0..size {
                available.store(2 + usize::from(slot), slot);
            }
            available.store_release(1, size);
        }
        Ok(LightReceive {
            options,
            place,
            format,
            base,
            buffer,
            stride,
            words: memory.table(base, (stride / 8) as usize * usize::from(size))?,
            left: 0,
            disordered: false,
            gather: (size / 4).clamp(1, MOST),
            digest: 0,
            counts: Counts::default(),
        })
    }

    /// Where the ring lies.
    pub fn place(&self) -> RingPlace {
        self.place
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Where the ring stands, in words.
    pub fn describe(&self) -> String {
        self.format.describe()
    }

    /// A mix of the first lines of all frames.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Touch the ring only when that many buffers are used.
    pub fn set_gather(&mut self, gather: u16) {
        self.gather = gather.clamp(1, self.options.size);
    }

    /// Takes used buffers, reads a line of each frame, makes them available again. Gives how many buffers that were.
    /// Taken even if they are few when `force` is set.
    #[inline]
    pub fn poll(&mut self, force: bool) -> u16 {
        let threshold = if force { 1 } else { self.gather };
        match &self.format {
            Format::Split { .. } => self.poll_split(threshold),
            Format::Packed { .. } => self.poll_packed(threshold),
        }
    }

    #[inline]
    fn poll_split(&mut self, threshold: u16) -> u16 {
        let Format::Split { available, used, elements, seen, event, .. } = &mut self.format else { return 0 };
        let size = self.options.size;
        let there = used.load_acquire(1).wrapping_sub(*seen);
        if there < threshold {
            return 0;
        }
        self.counts.starved += u64::from(there >= size);
        let n = there.min(MOST);
        let words_each = (self.stride / 8) as usize;
        let fetch = |i: u16| {
            let slot = seen.wrapping_add(i) & (size - 1);
            self.words.prefetch(elements.load(2 * usize::from(slot)) as usize * words_each + 1);
        };
        (0..n.min(AHEAD)).for_each(fetch);
        for i in 0..n {
            if i + AHEAD < n {
                fetch(i + AHEAD);
            }
            let slot = seen.wrapping_add(i) & (size - 1);
            let at = 2 * usize::from(slot);
            let (id, len) = (elements.load(at), elements.load(at + 1));
            let first = self.words.load(id as usize * words_each + 1);
            count(&mut self.counts, &mut self.left, &mut self.digest, first, len);
            if self.disordered || id != u32::from(slot) {
                self.disordered = true;
                self.counts.disorder += u64::from(id != u32::from(slot));
                // As many entries further on as there are in the ring is the same entry.
                available.store(2 + usize::from(slot), id as u16);
            }
        }
        *seen = seen.wrapping_add(n);
        available.store_release(1, seen.wrapping_add(size));
        if self.options.event_idx && seen.wrapping_sub(*event) > 0x1000 {
            *event = *seen;
            available.store(2 + usize::from(size), seen.wrapping_sub(0x8000));
        }
        n
    }

    #[inline]
    fn poll_packed(&mut self, threshold: u16) -> u16 {
        let Format::Packed { words, slot, wrap, fresh, .. } = &mut self.format else { return 0 };
        let size = self.options.size;
        let place = |n: u16| {
            let at = *slot + n;
            if at >= size { (at - size, !*wrap) } else { (at, *wrap) }
        };
        let load = |n: u16| {
            let (at, turn) = place(n);
            let bits = words.load_acquire(2 * usize::from(at) + 1);
            used_word(bits, turn).then_some(bits)
        };
        if threshold > 1 && !self.options.in_order && load(threshold - 1).is_none() {
            return 0;
        }
        let words_each = (self.stride / 8) as usize;
        let mut ids = [0_u16; MOST as usize];
        let mut n = 0_u16;
        // Buffers are where they were in a ring that is used in order; elsewhere the hint is wrong and does no harm. Only
        // as far as the ring is known to be used: behind that the device is writing.
        let fetch = |n: u16| self.words.prefetch(usize::from(place(n).0) * words_each + 1);
        (0..threshold.min(AHEAD)).for_each(fetch);
        while n < MOST.min(size) {
            let Some(bits) = load(n) else { break };
            if n + AHEAD < threshold {
                fetch(n + AHEAD);
            }
            let last = (bits >> 32) as u16;
            let (at, _) = place(n);
            // With IN_ORDER a used descriptor may stand for several buffers; only the last one's length is known.
            let batch = if self.options.in_order { (last + size - at) % size + 1 } else { 1 };
            if usize::from(n + batch) > ids.len() {
                break;
            }
            for i in 0..batch {
                let (id, len) = if i + 1 == batch { (last, bits as u32) } else { (place(n).0, HEADER) };
                let first = self.words.load(usize::from(id) * words_each + 1);
                count(&mut self.counts, &mut self.left, &mut self.digest, first, len);
                if let Some(entry) = ids.get_mut(usize::from(n)) {
                    *entry = id;
                }
                n += 1;
            }
        }
        if n >= MOST.min(size) {
            self.counts.starved += u64::from(load(size - 1).is_some());
        }
        for i in (0..n).rev() {
            let (at, turn) = place(i);
            let id = ids.get(usize::from(i)).copied().unwrap_or_default();
            self.counts.disorder += u64::from(id != at);
            let flags = DESC_WRITE | if turn { USED } else { AVAIL };
            words.store(2 * usize::from(at), self.base + u64::from(id) * u64::from(self.stride));
            words.store_release(2 * usize::from(at) + 1, word(self.buffer, id, flags));
        }
        if n > 0 {
            (*slot, *wrap) = place(n);
            *fresh = true;
        }
        n
    }

    /// Whether the device wants a kick.
    #[inline]
    pub fn wants_kick(&mut self) -> bool {
        let published = match &self.format {
            Format::Split { seen, .. } => seen.wrapping_add(self.options.size),
            Format::Packed { .. } => 0,
        };
        let wanted = self.format.wants_kick(&self.options, published);
        self.counts.kicks += u64::from(wanted);
        wanted
    }
}

/// Whether the flags in a descriptor's second word say used, for a device in this turn of the ring.
#[inline(always)]
fn used_word(bits: u64, wrap: bool) -> bool {
    let flags = (bits >> 48) as u16;
    (flags & USED != 0) == wrap && (flags & AVAIL != 0) == wrap
}

/// Counts a buffer. `first` holds bytes 8 to 15 of it: in a frame's first buffer num_buffers and the destination.
#[inline(always)]
fn count(counts: &mut Counts, left: &mut u16, digest: &mut u64, first: u64, len: u32) {
    if *left == 0 {
        *left = (u64::from_le(first) >> 16) as u16;
        *left = (*left).saturating_sub(1);
        counts.frames += 1;
        counts.bytes += u64::from(len.saturating_sub(HEADER));
        *digest = digest.rotate_left(5) ^ first;
    } else {
        *left -= 1;
        counts.bytes += u64::from(len);
    }
}

impl LightTransmit {
    /// How a back end is to start the ring: where the last one left it.
    pub fn ring_start(&mut self) -> RingStart {
        while self.poll(u16::MAX, true) > 0 {}
        RingStart { place: self.place, size: self.ring_size(), base: self.format.base() }
    }
}

impl LightReceive {
    /// How a back end is to start the ring: where the last one left it. Takes what the last one left behind.
    pub fn ring_start(&mut self) -> RingStart {
        while self.poll(true) > 0 {}
        // The rest of a frame that was being written is lost with its writer.
        self.left = 0;
        RingStart { place: self.place, size: self.options.size, base: self.format.base() }
    }
}
