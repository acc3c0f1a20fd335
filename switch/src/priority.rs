//! Priorities: which a frame has, and how it is written on the way out.
//!
//! A frame has one of eight priorities, and may be drop eligible (IEEE 802.1Q, section 6.9.3). Where it comes in, its port
//! says whom to believe: the tag's PCP, the IP header's DSCP, or nobody. Where it goes out, its port says how the priority
//! is written: into the tag, if it leaves with one, and into the DSCP, if that is wanted.
//!
//! ```text
//!   ingress port                                          egress port
//!   tag PCP ---- trust = pcp: regenerate[pcp] --\      /-- tag: to_pcp[priority], DEI
//!   IP DSCP ---- trust = dscp: from_dscp[dscp] ---> 0..7
//!   nothing ---- default ----------------------/      \-- DSCP: to_dscp[priority], ECN stays
//! ```
//!
//! A rule may say which PCP goes into the tag of a frame ([`Frame::pcp`]): that counts instead of what the receiving port's
//! map says. It is no priority: neither the DSCP nor whether it may be dropped follows it.
//!
//! All of it is looked at when a frame is written for a port that writes priorities, which an access port does not; so a
//! frame from one access port to another costs nothing. The IP header is read as it is then, behind whatever a rule has
//! changed in it.

use std::sync::Arc;

use fabnic_port::Frame;
use fabnic_wire::checksum::update;
use fabnic_wire::{EtherType, Tci};

/// Whom a port believes about the priority of frames that come from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The tag, also one that has no VLAN (802.1p). A frame without gets the default.
    #[default]
    Pcp,
    /// The DSCP of IPv4 and IPv6 packets (RFC 2474). Any other frame gets the default.
    Dscp,
    /// Nobody: all get the default.
    Nothing,
}

/// What a port says of priorities. All values are cut to their 3 (priority) or 6 bits (DSCP).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrioritySettings {
    /// The priority of frames that bring none that is believed, 0 to 7; `qos` of `ip link set vf`.
    pub default: u8,
    /// Whom to believe.
    pub trust: Trust,
    /// What a believed PCP becomes (priority regeneration table, IEEE 802.1Q, section 6.9.4).
    pub regenerate: [u8; 8],
    /// What a believed DSCP becomes.
    pub from_dscp: Arc<[u8; 64]>,
    /// The PCP that a priority leaves with, where there is a tag.
    pub to_pcp: [u8; 8],
    /// The DSCP that a priority leaves with; `None`: as it came. ECN (RFC 3168) is never touched.
    pub to_dscp: Option<[u8; 8]>,
}

/// Each value stands for itself.
pub const SAME: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

impl PrioritySettings {
    /// The class selectors of RFC 2474, section 4.2.2: a priority for each eight code points.
    pub const CLASS_SELECTORS: [u8; 64] = {
        let mut map = [0; 64];
        let mut dscp = 0;
        while dscp < 64 {
            map[dscp] = (dscp / 8) as u8;
            dscp += 1;
        }
        map
    };
}

impl Default for PrioritySettings {
    fn default() -> PrioritySettings {
        PrioritySettings {
            default: 0,
            trust: Trust::Pcp,
            regenerate: SAME,
            from_dscp: Arc::new(PrioritySettings::CLASS_SELECTORS),
            to_pcp: SAME,
            to_dscp: None,
        }
    }
}

/// A frame's priority, and whether it may be dropped first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Priority {
    value: u8,
    drop_eligible: bool,
}

fn of(map: &[u8; 8], priority: u8) -> u8 {
    map.get(usize::from(priority & 7)).map_or(0, |to| to & 7)
}

impl PrioritySettings {
    /// Whether frames that leave here must be looked at even if they leave without tag.
    pub(crate) fn marks(&self) -> bool {
        self.to_dscp.is_some()
    }

    /// The priority of a frame that came in here. `tag`: the one it came with; `tos`: its [`traffic_class`], read only if
    /// it counts.
    pub(crate) fn classify(&self, tag: Option<Tci>, tos: impl FnOnce() -> Option<u8>) -> Priority {
        let default = Priority { value: self.default & 7, drop_eligible: false };
        match (self.trust, tag) {
            (Trust::Pcp, Some(tag)) => {
                Priority { value: of(&self.regenerate, tag.pcp()), drop_eligible: tag.dei() }
            }
            (Trust::Dscp, _) => match tos().and_then(|tos| self.from_dscp.get(usize::from(tos >> 2))) {
                Some(value) => Priority { value: value & 7, drop_eligible: false },
                None => default,
            },
            (Trust::Pcp, None) | (Trust::Nothing, _) => default,
        }
    }

    /// The upper four bits of the tag that a frame of this priority leaves with, or of one that was told its PCP.
    pub(crate) fn tag_bits(&self, priority: Priority, told: Option<u8>) -> u16 {
        let pcp = told.unwrap_or_else(|| of(&self.to_pcp, priority.value));
        u16::from(pcp) << 13 | u16::from(priority.drop_eligible) << 12
    }

    /// The traffic class that a packet of this priority leaves with, if it came with `tos`.
    pub(crate) fn tos(&self, priority: Priority, tos: u8) -> u8 {
        match self.to_dscp.and_then(|map| map.get(usize::from(priority.value)).copied()) {
            Some(dscp) => (dscp & 63) << 2 | tos & 3,
            None => tos,
        }
    }
}

/// Where the IP header of a frame begins, behind the tag of its VLAN, if it has one now, and at most two of a customer;
/// and whether it is IPv6. Only of a frame that has all of the fixed header.
fn ip_header(head: &[u8], is_tagged: bool) -> Option<(usize, bool)> {
    let first = if is_tagged { 18 } else { 14 };
    for at in [first, first + 4, first + 8] {
        let [high, low] = *head.get(at - 2..)?.first_chunk::<2>()?;
        let (is_v6, len) = match EtherType(u16::from_be_bytes([high, low])) {
            EtherType::IPV4 => (false, 20),
            EtherType::IPV6 => (true, 40),
            kind if kind.is_tag() => continue,
            _ => return None,
        };
        let version = head.get(at..at + len)?.first()? >> 4;
        return (version == if is_v6 { 6 } else { 4 }).then_some((at, is_v6));
    }
    None
}

/// The byte that holds DSCP and ECN (TOS of IPv4, traffic class of IPv6), and the checksum that it is under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrafficClass {
    pub(crate) byte: u8,
    /// Of the IPv4 header; IPv6 has none.
    checksum: [u8; 2],
}

/// The traffic class of a frame, if it has an IP header. `is_tagged`: it has the tag of its VLAN now.
pub(crate) fn traffic_class(frame: &Frame, is_tagged: bool) -> Option<TrafficClass> {
    let head = frame.head();
    let (at, is_v6) = ip_header(head, is_tagged)?;
    let [first, second, _, _, _, _, _, _, _, _, high, low] = *head.get(at..)?.first_chunk()?;
    Some(match is_v6 {
        true => TrafficClass { byte: first << 4 | second >> 4, checksum: [0; 2] },
        false => TrafficClass { byte: second, checksum: [high, low] },
    })
}

/// Changes it from what the frame came with, and mends the checksum of an IPv4 header by the difference (RFC 1624). What
/// is written back is as it was, also a checksum that was wrong.
pub(crate) fn set_traffic_class(frame: &mut Frame, is_tagged: bool, came: TrafficClass, byte: u8) {
    let head = frame.head_mut();
    let Some((at, is_v6)) = ip_header(head, is_tagged) else { return };
    let Some(header) = head.get_mut(at..) else { return };
    if is_v6 {
        if let [high, low, ..] = header {
            (*high, *low) = (*high & 0xf0 | byte >> 4, *low & 0x0f | byte << 4);
        }
    } else if let [version, now, _, _, _, _, _, _, _, _, high, low, ..] = header {
        let word = |byte| u16::from_be_bytes([*version, byte]);
        let checksum = match byte == came.byte {
            true => came.checksum,
            false => update(u16::from_be_bytes(came.checksum), word(came.byte), word(byte)).to_be_bytes(),
        };
        ([*high, *low], *now) = (checksum, byte);
    }
}
