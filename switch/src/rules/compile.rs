//! From terms to what is compared with a key: bits, and three ranges.
//!
//! Everything but ranges is a value and a mask over the words of a [`Key`]. Of a range, the bits that both its ends share
//! are a value and a mask too, which the classifier can hash by; only what these do not say is compared as a range.
//! Values are held one by one, masks are shared by all rules that have the same ([`Shape`]).

use std::sync::Arc;

use fabnic_wire::MacAddr;

use super::key::{Key, Shape, WORDS, flag, halves};
use super::rule::{Direction, RuleError};
use super::terms::{Fragmented, Match, Term};
use crate::conntrack::CtState;
use crate::needs::Needs;

/// What is compared as a range, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    src_port: (u16, u16),
    dst_port: (u16, u16),
    ttl: (u8, u8),
}

impl Ranges {
    const ANY: Ranges = Ranges { src_port: (0, u16::MAX), dst_port: (0, u16::MAX), ttl: (0, u8::MAX) };
}

/// Values in a compiled rule without further memory.
const INLINE: usize = 4;

/// A match in the form that the classifier holds.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    shape: Arc<Shape>,
    values: [u64; INLINE],
    more: Option<Box<[u64]>>,
    ranges: Ranges,
}

impl Compiled {
    /// Whether a frame with this key matches.
    #[inline(always)]
    pub(crate) fn matches(&self, key: &Key) -> bool {
        self.matches_but(key, u8::MAX)
    }

    /// The same, but for the words from `but` on, which count as equal.
    #[inline(always)]
    pub(crate) fn matches_but(&self, key: &Key, but: u8) -> bool {
        let values = self.values.iter().chain(self.more.iter().flat_map(|more| more.iter()));
        if !self
            .shape
            .iter()
            .zip(values)
            .all(|((at, mask), value)| at >= but || key.word(at) & mask == *value)
        {
            return false;
        }
        if self.ranges == Ranges::ANY {
            return true;
        }
        let (src_port, dst_port, ttl) = key.ranged();
        let within = |(min, max): (u16, u16), value: u16| min <= value && value <= max;
        within(self.ranges.src_port, src_port)
            && within(self.ranges.dst_port, dst_port)
            && self.ranges.ttl.0 <= ttl
            && ttl <= self.ranges.ttl.1
    }

    /// Its bits.
    pub(crate) fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// A key that has its values.
    pub(crate) fn key(&self) -> Key {
        let mut key = Key::default();
        let values = self.values.iter().chain(self.more.iter().flat_map(|more| more.iter()));
        for ((at, _), value) in self.shape.iter().zip(values) {
            if let Some(word) = key.0.get_mut(usize::from(at)) {
                *word = *value;
            }
        }
        key
    }
}

/// What else a match reads: ARP's and ND's contents, which are in no flow's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    /// Fields that flows are told apart by.
    pub(crate) needs: Needs,
    /// The contents of ARP packets.
    pub(crate) arp: bool,
    /// The contents of neighbour discovery.
    pub(crate) nd: bool,
}

/// Collects bits and ranges.
struct Build {
    value: [u64; WORDS],
    mask: [u64; WORDS],
    ranges: Ranges,
    reads: Reads,
}

impl Build {
    fn bits(&mut self, at: usize, mask: u64, value: u64) -> Result<(), RuleError> {
        let (Some(to_value), Some(to_mask)) = (self.value.get_mut(at), self.mask.get_mut(at)) else {
            return Ok(());
        };
        let value = value & mask;
        if (*to_value ^ value) & *to_mask & mask != 0 {
            return Err(RuleError::Contradiction);
        }
        *to_value |= value;
        *to_mask |= mask;
        Ok(())
    }

    fn flags(&mut self, mask: u16, value: u16) -> Result<(), RuleError> {
        self.bits(8, u64::from(mask) << 48, u64::from(value) << 48)
    }

    fn mac(&mut self, at: usize, value: MacAddr, mask: MacAddr) -> Result<(), RuleError> {
        self.bits(at, mask.to_u64() << 16, value.to_u64() << 16)
    }

    fn ip4(&mut self, at: usize, value: [u8; 4], mask: [u8; 4]) -> Result<(), RuleError> {
        let high = |bytes| u64::from(u32::from_be_bytes(bytes)) << 32;
        self.bits(at, high(mask), high(value))
    }

    fn ip6(&mut self, at: usize, value: [u8; 16], mask: [u8; 16]) -> Result<(), RuleError> {
        let (mask, value) = (halves(mask), halves(value));
        self.bits(at, mask.0, value.0)?;
        self.bits(at + 1, mask.1, value.1)
    }

    fn term(&mut self, term: &Term, direction: Direction) -> Result<(), RuleError> {
        let both = |needs: Needs| Needs::TYPE | needs;
        let ip = both(Needs::IP);
        self.reads.needs |= match term {
            Term::Ingress(_) | Term::Egress(_) | Term::Vlan(_) | Term::Mark { .. } => Needs::empty(),
            Term::CtState { .. } | Term::CtZone(_) | Term::CtMark { .. } => Needs::empty(),
            Term::DstMac { .. } | Term::SrcMac { .. } | Term::TagVid(_) | Term::Tagged(_) => Needs::empty(),
            Term::TagPcp(_) => Needs::PRIORITY,
            Term::EtherType(_) | Term::InnerVid(_) | Term::InnerPcp(_) | Term::ArpOperation(_) => Needs::TYPE,
            Term::ArpSenderIp { .. } | Term::ArpTargetIp { .. } => Needs::TYPE,
            Term::ArpSenderMac { .. } | Term::ArpTargetMac { .. } => Needs::TYPE,
            Term::Protocol(_) | Term::Fragment(_) => ip,
            Term::SrcIp4 { .. } | Term::DstIp4 { .. } | Term::SrcIp6 { .. } | Term::DstIp6 { .. } => ip,
            Term::Tos { .. } => ip | Needs::TOS,
            Term::Ttl { .. } => ip | Needs::TTL,
            Term::SrcPort { .. } | Term::DstPort { .. } => ip | Needs::PORTS,
            Term::IcmpType { .. } | Term::IcmpCode { .. } | Term::NdTarget { .. } => ip | Needs::PORTS,
            Term::TcpFlags { .. } => ip | Needs::PORTS | Needs::TCP_FLAGS,
        };
        match *term {
            Term::Ingress(port) => self.bits(2, 0xffff_ffff << 32, u64::from(port.0) << 32),
            Term::Egress(_) if direction == Direction::In => Err(RuleError::EgressInDirectionIn),
            Term::Egress(port) => {
                self.flags(flag::EGRESS, flag::EGRESS)?;
                self.bits(2, 0xffff_ffff, u64::from(port.0))
            }
            Term::Vlan(vlan) => self.bits(8, 0xffff, u64::from(vlan.get())),
            Term::Mark { value, mask } => self.bits(11, u64::from(mask), u64::from(value)),
            Term::CtState { value, mask } => {
                self.bits(11, u64::from(mask.bits()) << 32, u64::from(value.bits()) << 32)
            }
            Term::CtZone(zone) => {
                let tracked = u64::from(CtState::TRACKED.bits()) << 32;
                self.bits(11, 0xffff << 40 | tracked, u64::from(zone) << 40 | tracked)
            }
            Term::CtMark { value, mask } => {
                let tracked = u64::from(CtState::TRACKED.bits()) << 32;
                self.bits(11, tracked, tracked)?;
                self.bits(12, u64::from(mask), u64::from(value))
            }
            Term::DstMac { value, mask } => self.mac(0, value, mask),
            Term::SrcMac { value, mask } => self.mac(1, value, mask),
            Term::EtherType(kind) => self.bits(0, 0xffff, u64::from(kind.0)),
            Term::Tagged(tagged) => self.flags(flag::TAG, if tagged { flag::TAG } else { 0 }),
            Term::TagVid(vid) => {
                check_max(vid, 4095, "VLAN of a tag")?;
                self.flags(flag::TAG, flag::TAG)?;
                self.bits(8, 0x0fff << 32, u64::from(vid) << 32)
            }
            Term::TagPcp(pcp) => {
                check_max(pcp.into(), 7, "priority")?;
                self.flags(flag::TAG, flag::TAG)?;
                self.bits(8, 0xe000 << 32, u64::from(pcp) << 45)
            }
            Term::InnerVid(vid) => {
                check_max(vid, 4095, "VLAN of a tag")?;
                self.flags(flag::INNER, flag::INNER)?;
                self.bits(8, 0x0fff << 16, u64::from(vid) << 16)
            }
            Term::InnerPcp(pcp) => {
                check_max(pcp.into(), 7, "priority")?;
                self.flags(flag::INNER, flag::INNER)?;
                self.bits(8, 0xe000 << 16, u64::from(pcp) << 29)
            }
            Term::Protocol(protocol) => {
                self.flags(flag::IP, flag::IP)?;
                self.bits(7, 0xff << 24, u64::from(protocol.0) << 24)
            }
            Term::SrcIp4 { value, mask } => {
                self.flags(flag::V4, flag::V4)?;
                self.ip4(3, value, mask)
            }
            Term::DstIp4 { value, mask } => {
                self.flags(flag::V4, flag::V4)?;
                self.ip4(5, value, mask)
            }
            Term::SrcIp6 { value, mask } => {
                self.flags(flag::V6, flag::V6)?;
                self.ip6(3, value, mask)
            }
            Term::DstIp6 { value, mask } => {
                self.flags(flag::V6, flag::V6)?;
                self.ip6(5, value, mask)
            }
            Term::Tos { value, mask } => {
                self.flags(flag::IP, flag::IP)?;
                self.bits(7, u64::from(mask) << 16, u64::from(value) << 16)
            }
            Term::Ttl { min, max } => {
                self.flags(flag::IP, flag::IP)?;
                let (low, high) =
                    narrow((self.ranges.ttl.0.into(), self.ranges.ttl.1.into()), (min.into(), max.into()))?;
                self.ranges.ttl = (low as u8, high as u8);
                Ok(())
            }
            Term::Fragment(kind) => {
                let (mask, value) = match kind {
                    Fragmented::No => (flag::FRAGMENT, 0),
                    Fragmented::Any => (flag::FRAGMENT, flag::FRAGMENT),
                    Fragmented::First => (flag::FRAGMENT | flag::LATER, flag::FRAGMENT),
                    Fragmented::Later => (flag::LATER, flag::LATER),
                };
                self.flags(flag::IP | mask, flag::IP | value)
            }
            Term::SrcPort { min, max } => self.src_port(flag::PORTS, min, max),
            Term::DstPort { min, max } => self.dst_port(flag::PORTS, min, max),
            Term::TcpFlags { value, mask } => {
                self.flags(flag::TCP, flag::TCP)?;
                self.bits(7, u64::from(mask), u64::from(value))
            }
            Term::IcmpType { min, max } => self.src_port(flag::ICMP, min.into(), max.into()),
            Term::IcmpCode { min, max } => self.dst_port(flag::ICMP, min.into(), max.into()),
            Term::ArpOperation(operation) => {
                self.arp()?;
                self.bits(1, 0xffff, u64::from(operation))
            }
            Term::ArpSenderIp { value, mask } => {
                self.arp()?;
                self.ip4(3, value, mask)
            }
            Term::ArpTargetIp { value, mask } => {
                self.arp()?;
                self.ip4(5, value, mask)
            }
            Term::ArpSenderMac { value, mask } => {
                self.arp()?;
                self.mac(9, value, mask)
            }
            Term::ArpTargetMac { value, mask } => {
                self.arp()?;
                self.mac(10, value, mask)
            }
            Term::NdTarget { value, mask } => {
                self.reads.nd = true;
                self.flags(flag::ND, flag::ND)?;
                self.ip6(9, value, mask)
            }
        }
    }

    fn arp(&mut self) -> Result<(), RuleError> {
        self.reads.arp = true;
        // Never ARP and IP: fields that share a place do not contradict each other, they never meet.
        self.flags(flag::ARP | flag::IP | flag::V4 | flag::V6 | flag::ND, flag::ARP)
    }

    fn src_port(&mut self, flag: u16, min: u16, max: u16) -> Result<(), RuleError> {
        self.flags(flag, flag)?;
        self.ranges.src_port = narrow(self.ranges.src_port, (min, max))?;
        Ok(())
    }

    fn dst_port(&mut self, flag: u16, min: u16, max: u16) -> Result<(), RuleError> {
        self.flags(flag, flag)?;
        self.ranges.dst_port = narrow(self.ranges.dst_port, (min, max))?;
        Ok(())
    }
}

fn check_max(value: u16, max: u16, what: &'static str) -> Result<(), RuleError> {
    if value <= max { Ok(()) } else { Err(RuleError::TooLarge { what, value, max }) }
}

/// What two ranges have in common.
fn narrow(a: (u16, u16), b: (u16, u16)) -> Result<(u16, u16), RuleError> {
    let (min, max) = (a.0.max(b.0), a.1.min(b.1));
    if min <= max { Ok((min, max)) } else { Err(RuleError::EmptyRange { min, max }) }
}

/// The bits that both ends of a range of `width` bits share, and whether they say all of it.
fn common(min: u16, max: u16, width: u32) -> (u16, bool) {
    let all = u16::MAX >> (16 - width);
    let differing = 16 - (min ^ max).leading_zeros();
    let mask = all & !(u16::MAX.checked_shr(16 - differing).unwrap_or(0));
    (mask, min & !mask == 0 && max | mask == all)
}

/// Compiles a match. `intern` gives the shared copy of a shape.
pub(crate) fn compile(
    matched: &Match,
    direction: Direction,
    intern: &mut impl FnMut(Shape) -> Arc<Shape>,
) -> Result<(Compiled, Reads), RuleError> {
    let mut build =
        Build { value: [0; WORDS], mask: [0; WORDS], ranges: Ranges::ANY, reads: Reads::default() };
    for term in &matched.terms {
        build.term(term, direction)?;
    }
    let Ranges { src_port, dst_port, ttl } = build.ranges;
    let (src_mask, src_all) = common(src_port.0, src_port.1, 16);
    let (dst_mask, dst_all) = common(dst_port.0, dst_port.1, 16);
    let (ttl_mask, ttl_all) = common(ttl.0.into(), ttl.1.into(), 8);
    let place =
        |src: u16, dst: u16, ttl: u16| u64::from(src) << 48 | u64::from(dst) << 32 | u64::from(ttl) << 8;
    build.bits(7, place(src_mask, dst_mask, ttl_mask), place(src_port.0, dst_port.0, ttl.0.into()))?;
    let any = Ranges::ANY;
    let ranges = Ranges {
        src_port: if src_all { any.src_port } else { src_port },
        dst_port: if dst_all { any.dst_port } else { dst_port },
        ttl: if ttl_all { any.ttl } else { ttl },
    };
    let shape = Shape::of(&build.mask);
    let values = shape.iter().map(|(at, _)| build.value.get(usize::from(at)).copied().unwrap_or(0));
    let mut inline = [0; INLINE];
    for (place, value) in inline.iter_mut().zip(values) {
        *place = value;
    }
    let more = (shape.words() > INLINE).then(|| {
        let all = shape.iter().map(|(at, _)| build.value.get(usize::from(at)).copied().unwrap_or(0));
        all.skip(INLINE).collect()
    });
    Ok((Compiled { shape: intern(shape), values: inline, more, ranges }, build.reads))
}
