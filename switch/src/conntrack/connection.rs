//! One connection, shared by the table and by all workers.
//!
//! ```text
//!   Slot (256 bytes, and some 25 for its places in table and wheel)
//!     timed      deadline, place in the wheel      atomics
//!     inner      tuples, bits, mark, TCP state, counters     behind a lock of its own, held for a packet
//! ```
//!
//! # Life cycle
//!
//! A slot is taken by [`super::Conntrack::commit`], moved on by [`Inner::packet`], and given back when its deadline has
//! passed, when its tuple is opened anew, or by [`super::Conntrack::flush`]. Slots are never freed, only used again: a
//! [`Handle`] is good while its slot is in the same generation.
//!
//! # Invariants
//! - Tuples never change while a slot is live. The reply's is not the reverse where addresses are translated.
//! - Whoever holds a slot's lock takes no other.

use core::num::NonZeroU32;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use fabnic_port::{Frame, PortId};
use fabnic_wire::{Fields, FlowFlags, IpProtocol};
use parking_lot::Mutex;

use super::related::is_error;
use super::segment::{Segment, l4_of};
use super::settings::{Owner, Timeout, Zone};
use super::state::CtState;
use super::tcp::{Effect, Known, Tcp, TcpState};
use super::tuple::Tuple;
use super::wheel::Timed;

mod saved;

pub(crate) use saved::Sensible;

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the first packet.
    Original,
    /// As the answers.
    Reply,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn other(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }
}

/// What a cached flow remembers of its connection: slot, generation of the slot, direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(NonZeroU32);

/// Slots that there can be.
pub(crate) const MAX_SLOTS: u32 = (1 << 25) - 1;
const GENERATIONS: u32 = 1 << 6;

impl Handle {
    pub(crate) fn new(slot: u32, generation: u8, direction: Direction) -> Option<Handle> {
        let reply = u32::from(direction == Direction::Reply) << 31;
        let generation = (u32::from(generation) % GENERATIONS) << 25;
        NonZeroU32::new(reply | generation | (slot.checked_add(1)? & MAX_SLOTS)).map(Handle)
    }

    /// As a number; never 0.
    pub(crate) fn get(self) -> u32 {
        self.0.get()
    }

    /// From a number.
    #[inline]
    pub(crate) fn from_number(number: u32) -> Option<Handle> {
        NonZeroU32::new(number).map(Handle)
    }

    #[inline]
    pub(crate) fn slot(self) -> u32 {
        (self.0.get() & MAX_SLOTS).wrapping_sub(1)
    }

    #[inline]
    pub(crate) fn is_of(self, generation: u8) -> bool {
        (self.0.get() >> 25) % GENERATIONS == u32::from(generation) % GENERATIONS
    }

    #[inline]
    pub(crate) fn direction(self) -> Direction {
        if self.0.get() >> 31 == 0 { Direction::Original } else { Direction::Reply }
    }
}

/// A packet came in the reply direction.
const REPLIED: u8 = 1;
/// Known to be alive both ways.
const ASSURED: u8 = 2;
/// The source address or port is translated.
pub(crate) const SNAT: u8 = 4;
/// The destination address or port is translated.
pub(crate) const DNAT: u8 = 8;

/// Seconds that a UDP connection goes both ways before it is a stream.
const STREAM_AFTER: u32 = 2;

/// A place for a connection: four cache lines, of which packets touch the first two.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) timed: Timed,
    pub(crate) inner: Mutex<Inner>,
}

/// A connection. See the page.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Inner {
    /// Counts the connections that the slot has held.
    pub(crate) generation: u8,
    bits: u8,
    /// There, and not being forgotten.
    pub(crate) live: Option<Live>,
}

/// What there is of a connection while it lives; what packets touch is first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Live {
    tcp: Option<Tcp>,
    /// Tick of its making.
    created: u32,
    packets: [u64; 2],
    bytes: [u64; 2],
    pub(crate) zone: Arc<Zone>,
    pub(crate) owner: Owner,
    pub(crate) mark: u32,
    pub(crate) original: Tuple,
    pub(crate) reply: Tuple,
}

/// What became of a packet on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracked {
    /// It belongs to it.
    Valid {
        /// Something that rules see has changed.
        changed: bool,
    },
    /// It contradicts it.
    Invalid,
    /// It belongs to it, and nothing will come after it.
    Last,
    /// The connection is no more, or this packet opens another one in its place.
    Stale,
}

impl Inner {
    /// Puts a connection in. What it is made of begins without packets.
    pub(crate) fn begin(&mut self, timed: &Timed, what: Beginning, now: u32) {
        let Beginning { original, reply, zone, owner, tcp, bits, mark, past } = what;
        let past = past.unwrap_or_else(|| Past {
            created: now,
            deadline: now.saturating_add(zone.seconds(first_class(&original))),
            packets: [0; 2],
            bytes: [0; 2],
        });
        timed.deadline.store(past.deadline, Ordering::Relaxed);
        self.bits = bits;
        self.live = Some(Live {
            original,
            reply,
            zone,
            owner,
            tcp,
            created: past.created,
            mark,
            packets: past.packets,
            bytes: past.bytes,
        });
    }

    /// Takes the connection out.
    pub(crate) fn end(&mut self) -> Option<Live> {
        let live = self.live.take()?;
        self.generation = self.generation.wrapping_add(1);
        Some(live)
    }

    /// Whether packets are to be translated.
    pub(crate) fn is_translated(&self) -> bool {
        self.bits & (SNAT | DNAT) != 0
    }

    /// What a rule sees in a valid packet of this direction.
    pub(crate) fn state(&self, direction: Direction) -> CtState {
        let seen = match direction {
            Direction::Original if self.bits & REPLIED == 0 => CtState::NEW,
            Direction::Original => CtState::ESTABLISHED,
            Direction::Reply => CtState::ESTABLISHED | CtState::REPLY,
        };
        seen | CtState::TRACKED | self.translation()
    }

    /// The bits of its translation.
    pub(crate) fn translation(&self) -> CtState {
        let mut state = CtState::empty();
        state.set(CtState::SNAT, self.bits & SNAT != 0);
        state.set(CtState::DNAT, self.bits & DNAT != 0);
        state
    }

    fn known(&self) -> Known {
        Known { replied: self.bits & REPLIED != 0, assured: self.bits & ASSURED != 0 }
    }

    /// What a packet would do, if it were tracked now.
    pub(crate) fn peek(&self, direction: Direction, packet: &Packet<'_>) -> Tracked {
        let Some(live) = &self.live else { return Tracked::Stale };
        let Some(mut tcp) = live.tcp else { return Tracked::Valid { changed: false } };
        if packet.kind == PacketKind::FirstFragment {
            tcp.relax();
        }
        let Some(segment) = packet.segment() else { return Tracked::Invalid };
        match tcp.packet(direction, &segment, live.zone.strictness(), self.known()) {
            Effect::Valid { .. } | Effect::Ignored => Tracked::Valid { changed: false },
            Effect::Invalid(_) => Tracked::Invalid,
            Effect::Over => Tracked::Last,
            Effect::Reopen => Tracked::Stale,
        }
    }

    /// Takes a packet into account.
    #[inline(always)]
    pub(crate) fn packet(
        &mut self,
        timed: &Timed,
        direction: Direction,
        packet: &Packet<'_>,
        now: u32,
    ) -> Tracked {
        let known = self.known();
        let Some(live) = &mut self.live else { return Tracked::Stale };
        if timed.deadline.load(Ordering::Relaxed) <= now {
            return Tracked::Stale;
        }
        match packet.kind {
            PacketKind::Whole | PacketKind::FirstFragment => {}
            PacketKind::LaterFragment => {
                live.count(direction, 1, packet.frame_len.into());
                return Tracked::Valid { changed: false };
            }
            PacketKind::Error => return Tracked::Valid { changed: false },
        }
        let mut set = u8::from(direction == Direction::Reply) * REPLIED;
        let mut last = false;
        let seconds = match &mut live.tcp {
            Some(tcp) => {
                if packet.kind == PacketKind::FirstFragment {
                    tcp.relax();
                }
                let Some(segment) = packet.segment() else { return Tracked::Invalid };
                match tcp.packet(direction, &segment, live.zone.strictness(), known) {
                    Effect::Valid { keep, assured } => {
                        set |= u8::from(assured) * ASSURED;
                        Some(live.zone.keep(keep))
                    }
                    Effect::Ignored => None,
                    Effect::Invalid(_) => return Tracked::Invalid,
                    Effect::Reopen => return Tracked::Stale,
                    Effect::Over => {
                        last = true;
                        None
                    }
                }
            }
            None => {
                let streams = now.saturating_sub(live.created) >= STREAM_AFTER;
                let is_udp = live.original.protocol == IpProtocol::UDP;
                let class = if is_udp && known.replied && (streams || known.assured) {
                    set |= ASSURED;
                    Timeout::UdpStream
                } else {
                    first_class(&live.original)
                };
                Some(live.zone.seconds(class))
            }
        };
        live.count(direction, 1, packet.frame_len.into());
        if let Some(seconds) = seconds {
            timed.deadline.store(now.saturating_add(seconds), Ordering::Relaxed);
        }
        let changed = set & !self.bits & REPLIED != 0;
        self.bits |= set;
        if last { Tracked::Last } else { Tracked::Valid { changed } }
    }

    /// Takes frames of one flow into account, one behind the other, up to the first with which more is to be done: gives
    /// how many came before that one, and what it did. Ends at a packet that is not plain, too, unless `all_plain` says that
    /// there is none.
    #[inline]
    pub(crate) fn run<'f>(
        &mut self,
        timed: &Timed,
        direction: Direction,
        (frames, all_plain): (&'f [Frame], bool),
        now: u32,
    ) -> (usize, Option<(Tracked, Packet<'f>)>) {
        let plain = |frame: &'f Frame| {
            let plain = frame.marked().is_none().then(|| Packet::of_plain(frame.head(), frame.len()));
            plain.flatten()
        };
        for (valid, frame) in frames.iter().enumerate() {
            let Some(packet) = plain(frame) else { return (valid, None) };
            let tracked = self.packet(timed, direction, &packet, now);
            if tracked != (Tracked::Valid { changed: false }) || timed.is_misplaced() {
                return (valid, Some((tracked, packet)));
            }
            if let Some(live) = self.live.as_mut().filter(|live| live.tcp.is_none()) {
                // Without a state of its own, a protocol's second packet of a moment does nothing that the first has not done.
                let left = frames.get(valid + 1..).unwrap_or(&[]);
                let alike = match all_plain {
                    true => left.len(),
                    false => left.iter().take_while(|frame| plain(frame).is_some()).count(),
                };
                let bytes = left.iter().take(alike).map(|frame| u64::from(frame.len())).sum();
                live.count(direction, alike as u64, bytes);
                return (valid + 1 + alike, None);
            }
        }
        (frames.len(), None)
    }

    /// Counts packets and bytes, and nothing else.
    #[inline]
    pub(crate) fn credit(&mut self, direction: Direction, (packets, bytes): (u64, u64)) {
        if packets > 0
            && let Some(live) = &mut self.live
        {
            live.count(direction, packets, bytes);
        }
    }

    /// Whether its protocol has no state that packets move: within a second all packets of one direction are as the first.
    #[inline]
    pub(crate) fn is_stateless(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.tcp.is_none())
    }

    /// What it looks like at this moment.
    pub(crate) fn entry(&self, timed: &Timed, now: u32) -> Option<ConnectionEntry> {
        let live = self.live.as_ref()?;
        let deadline = timed.deadline.load(Ordering::Relaxed);
        Some(ConnectionEntry {
            zone: live.zone.id,
            port: live.owner.port,
            original: live.original,
            reply: live.reply,
            tcp: live.tcp.map(|tcp| tcp.state()),
            state: self.state(Direction::Original),
            assured: self.bits & ASSURED != 0,
            mark: live.mark,
            expires: deadline.saturating_sub(now),
            age: now.saturating_sub(live.created),
            packets: live.packets,
            bytes: live.bytes,
        })
    }
}

impl Live {
    #[inline]
    fn count(&mut self, direction: Direction, packets: u64, bytes: u64) {
        let at = usize::from(direction == Direction::Reply);
        self.packets[at] += packets;
        self.bytes[at] += bytes;
    }

    /// Which direction of it this tuple is, if any.
    #[inline]
    pub(crate) fn direction_of(&self, tuple: &Tuple) -> Option<Direction> {
        if self.original == *tuple {
            Some(Direction::Original)
        } else if self.reply == *tuple {
            Some(Direction::Reply)
        } else {
            None
        }
    }

    /// The tuple of packets in this direction, as they arrive.
    pub(crate) fn tuple(&self, direction: Direction) -> &Tuple {
        match direction {
            Direction::Original => &self.original,
            Direction::Reply => &self.reply,
        }
    }

    /// What packets of this direction are to leave as.
    pub(crate) fn translated(&self, direction: Direction) -> Tuple {
        self.tuple(direction.other()).reversed()
    }
}

/// How long a connection is kept after its first packet.
fn first_class(tuple: &Tuple) -> Timeout {
    match tuple.protocol {
        IpProtocol::TCP => Timeout::TcpSynSent,
        IpProtocol::UDP => Timeout::Udp,
        protocol if protocol.is_icmp() => Timeout::Icmp,
        _ => Timeout::Generic,
    }
}

/// What a connection is made of.
pub(crate) struct Beginning {
    pub(crate) original: Tuple,
    pub(crate) reply: Tuple,
    pub(crate) zone: Arc<Zone>,
    pub(crate) owner: Owner,
    pub(crate) tcp: Option<Tcp>,
    /// [`SNAT`], [`DNAT`]; of one with a past, all.
    pub(crate) bits: u8,
    pub(crate) mark: u32,
    /// Of one that was tracked before, elsewhere.
    pub(crate) past: Option<Past>,
}

/// What a connection brings with it.
pub(crate) struct Past {
    /// Tick of its making.
    pub(crate) created: u32,
    pub(crate) deadline: u32,
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
}

/// A connection at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEntry {
    /// Its zone.
    pub zone: u16,
    /// The port whose limit it counts in: that of its first packet.
    pub port: PortId,
    /// Packets as the first one.
    pub original: Tuple,
    /// The answers, as they come; the original's reverse unless addresses are translated.
    pub reply: Tuple,
    /// Where TCP is.
    pub tcp: Option<TcpState>,
    /// `new` or `est`, `snat`, `dnat`.
    pub state: CtState,
    /// It was alive both ways.
    pub assured: bool,
    /// Its mark.
    pub mark: u32,
    /// Seconds until it is forgotten if no packet comes.
    pub expires: u32,
    /// Seconds since its first packet.
    pub age: u32,
    /// Packets, original and reply. All but those of TCP may be counted two seconds later.
    pub packets: [u64; 2],
    /// Bytes of their frames, original and reply.
    pub bytes: [u64; 2],
}

/// A packet as tracking sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) head: &'a [u8],
    /// Offset of the network header.
    pub(crate) l3: usize,
    /// Length of the frame in bytes.
    pub(crate) frame_len: u32,
    pub(crate) kind: PacketKind,
}

/// What tracking can tell by a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketKind {
    Whole,
    /// The first of several fragments: more follows that is not seen.
    FirstFragment,
    /// A fragment without a header.
    LaterFragment,
    /// An ICMP error: it belongs to its connection, but is no packet of it.
    Error,
}

impl<'a> Packet<'a> {
    /// A packet whose fields have been read.
    pub(crate) fn new(fields: &Fields, head: &'a [u8], frame_len: u32) -> Packet<'a> {
        let kind = if fields.flow.flags.has(FlowFlags::LATER) {
            PacketKind::LaterFragment
        } else if is_error(fields) {
            PacketKind::Error
        } else if fields.flow.flags.has(FlowFlags::FRAGMENT) {
            PacketKind::FirstFragment
        } else {
            PacketKind::Whole
        };
        Packet { head, l3: usize::from(fields.l3), frame_len, kind }
    }

    /// The packet of a frame on a cached flow.
    #[inline]
    pub(crate) fn of_frame(head: &'a [u8], frame_len: u32) -> Option<Packet<'a>> {
        match Packet::of_plain(head, frame_len) {
            Some(plain) => Some(plain),
            None => Some(Packet::new(&Fields::of(head)?, head, frame_len)),
        }
    }

    /// The packet of a frame that is TCP or UDP over IPv4, not a fragment, or over IPv6 without extension headers; with one
    /// tag or none.
    #[inline(always)]
    pub(crate) fn of_plain(head: &'a [u8], frame_len: u32) -> Option<Packet<'a>> {
        let l3 = match head.get(12..14)? {
            [0x81, 0] | [0x88, 0xa8] => 18,
            _ => 14,
        };
        let plain = match head.get(l3 - 2..)?.first_chunk::<12>()? {
            [8, 0, 0x45..=0x4f, _, _, _, _, _, flags, offset, _, 6 | 17] => {
                (*flags & 0x3f, *offset) == (0, 0)
            }
            [0x86, 0xdd, _, _, _, _, _, _, 6 | 17, ..] => true,
            _ => false,
        };
        plain.then_some(Packet { head, l3, frame_len, kind: PacketKind::Whole })
    }

    /// Its TCP segment.
    #[inline(always)]
    pub(crate) fn segment(&self) -> Option<Segment<'a>> {
        Segment::read(self.head, self.l3, l4_of(self.head, self.l3)?, self.frame_len)
    }
}
