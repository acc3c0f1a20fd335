//! Priorities in the reference switch (rules 11 and 12).

/// Whom a port believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Believes {
    /// The tag.
    Tag,
    /// The DSCP.
    Dscp,
    /// Nobody.
    Nobody,
}

/// What a port says of priorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priority {
    /// Of frames that bring none.
    pub default: u8,
    /// Whom it believes.
    pub believes: Believes,
    /// By PCP.
    pub regenerate: [u8; 8],
    /// By DSCP.
    pub from_dscp: Vec<u8>,
    /// PCP by priority.
    pub to_pcp: [u8; 8],
    /// DSCP by priority, if it is written at all.
    pub to_dscp: Option<[u8; 8]>,
}

impl Default for Priority {
    fn default() -> Priority {
        let same = [0, 1, 2, 3, 4, 5, 6, 7];
        let from_dscp = (0..64).map(|dscp| dscp / 8).collect();
        Priority {
            default: 0,
            believes: Believes::Tag,
            regenerate: same,
            from_dscp,
            to_pcp: same,
            to_dscp: None,
        }
    }
}

/// Where the IP header begins and how long its fixed part is, if the frame has one: behind its own tag, if `is_tagged`, and
/// at most two others.
fn ip(frame: &[u8], is_tagged: bool) -> Option<(usize, usize)> {
    let mut at = if is_tagged { 16 } else { 12 };
    for _ in 0..3 {
        let kind = u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]);
        at += 2;
        let len = match kind {
            0x0800 => 20,
            0x86dd => 40,
            0x8100 | 0x88a8 | 0x9100 => {
                at += 2;
                continue;
            }
            _ => return None,
        };
        let version = frame.get(at)? >> 4;
        let whole = frame.len() >= at + len && version == if len == 20 { 4 } else { 6 };
        return whole.then_some((at, len));
    }
    None
}

fn dscp(frame: &[u8], is_tagged: bool) -> Option<u8> {
    let (at, len) = ip(frame, is_tagged)?;
    // Six bits: the upper ones of IPv4's second byte, or of IPv6's bits 4 to 11.
    Some(if len == 20 { frame[at + 1] >> 2 } else { (frame[at] & 15) << 2 | frame[at + 1] >> 6 })
}

/// The priority of a frame as it came, and whether it is drop eligible.
pub(super) fn of(frame: &[u8], tci: Option<u16>, port: &Priority) -> (u8, bool) {
    match (port.believes, tci) {
        (Believes::Tag, Some(tci)) => (port.regenerate[usize::from(tci >> 13)], tci & 0x1000 != 0),
        (Believes::Dscp, _) => match dscp(frame, tci.is_some()) {
            Some(dscp) => (port.from_dscp[usize::from(dscp)], false),
            None => (port.default, false),
        },
        _ => (port.default, false),
    }
}

/// Writes the DSCP that a port wants, and the header checksum that fits if the one before did.
pub(super) fn write_dscp(frame: &mut [u8], is_tagged: bool, priority: u8, port: &Priority) {
    let (Some(map), Some((at, len))) = (&port.to_dscp, ip(frame, is_tagged)) else { return };
    let dscp = map[usize::from(priority)];
    if len == 40 {
        frame[at] = 0x60 | dscp >> 2;
        frame[at + 1] = frame[at + 1] & 0x3f | dscp << 6;
        return;
    }
    let old = frame[at + 1];
    frame[at + 1] = old & 3 | dscp << 2;
    // RFC 1624: HC' = ~(~HC + ~m + m'), in ones' complement. Nothing happens if m' = m.
    if old != frame[at + 1] {
        let mut sum = u64::from(!u16::from_be_bytes([frame[at + 10], frame[at + 11]]));
        sum += u64::from(!u16::from_be_bytes([frame[at], old]));
        sum += u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        frame[at + 10..at + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}
