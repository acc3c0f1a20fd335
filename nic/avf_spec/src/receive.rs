//! Receive descriptors: 32 bytes, four words (`iavf_txrx.h`, "Rx descriptors").
//!
//! A driver writes the address of a buffer into the first word and zero into the second; the device writes all four back,
//! the second last, whose bit 0 says that it is done.

/// Bytes of a descriptor.
pub const DESCRIPTOR: usize = 32;

/// Formats that a device writes back ("receive descriptor id").
pub mod rxdid {
    /// The format that every generation has.
    pub const LEGACY_32: u8 = 1;
    /// Flexible, "NIC": hash and time stamp.
    pub const FLEX_NIC: u8 = 2;
    /// Flexible, "comms OVS": flow id and hash.
    pub const FLEX_OVS: u8 = 22;
}

/// To whom a frame was addressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Cast {
    /// One.
    #[default]
    Unicast = 0,
    /// A group.
    Multicast = 1,
    /// All.
    Broadcast = 2,
}

/// What was found out about a frame; goes into its last descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// See [`crate::packet_type`].
    pub packet_type: u8,
    /// Network and transport checksums were looked at: the next two count.
    pub checked: bool,
    /// The IPv4 header checksum is wrong.
    pub bad_ip: bool,
    /// The transport checksum is wrong.
    pub bad_l4: bool,
    /// The frame's four bytes of FCS are in the buffer.
    pub fcs: bool,
    /// To whom.
    pub cast: Cast,
    /// The RSS hash.
    pub hash: Option<u32>,
    /// The tag that was taken out.
    pub tag: Option<u16>,
    /// The mark of a flow director rule.
    pub mark: Option<u32>,
}

const DD: u64 = 1;
const EOP: u64 = 2;

impl Found {
    /// The words of a descriptor whose buffer holds `len` bytes of a frame, in the legacy format. `last` is for its last
    /// buffer, the only one that says what was found.
    #[inline(always)]
    pub const fn legacy(&self, len: u16, last: bool) -> [u64; 4] {
        let mut words = [0, DD | (len as u64 & 0x3fff) << 38, 0, 0];
        if !last {
            return words;
        }
        let mut second = words[1] | EOP | (self.cast as u64) << 9 | (self.packet_type as u64) << 30;
        if let Some(tag) = self.tag {
            second |= 1 << 2;
            words[0] |= (tag as u64) << 16;
        }
        if self.checked {
            second |= 1 << 3 | (self.bad_ip as u64) << 22 | (self.bad_l4 as u64) << 23;
        }
        if self.fcs {
            second |= 1 << 4;
        }
        if let Some(hash) = self.hash {
            second |= 3 << 12;
            words[0] |= (hash as u64) << 32;
        }
        if let Some(mark) = self.mark {
            second |= 1 << 11;
            words[2] |= 1 << 4;
            words[3] |= (mark as u64) << 32;
        }
        words[1] = second;
        words
    }

    /// The same in a flexible format: 2 has the hash beside the status, 22 the mark there and the hash behind.
    #[inline(always)]
    pub const fn flexible(&self, format: u8, len: u16, last: bool) -> [u64; 4] {
        let first = format as u64 & 0x3f | (len as u64 & 0x3fff) << 32;
        if !last {
            return [first, DD, 0, 0];
        }
        let first = first | (self.cast as u64) << 14 | (self.packet_type as u64) << 16;
        let (mut second, mut fourth) = (DD | EOP, 0);
        if self.checked {
            second |= 1 << 3 | (self.bad_ip as u64) << 4 | (self.bad_l4 as u64) << 5;
        }
        if self.fcs {
            second |= 1 << 11;
        }
        if let Some(tag) = self.tag {
            second |= 1 << 13 | (tag as u64) << 16;
        }
        let hash = match self.hash {
            Some(hash) => {
                second |= 1 << 12;
                hash
            }
            None => 0,
        };
        if format == rxdid::FLEX_OVS {
            second |= (match self.mark {
                Some(mark) => mark,
                None => u32::MAX,
            } as u64)
                << 32;
            fourth |= hash as u64;
        } else {
            second |= (hash as u64) << 32;
        }
        [first, second, 0, fourth]
    }

    /// The same as [`Found::parse_legacy`] for a flexible format.
    pub const fn parse_flexible(words: [u64; 4]) -> Option<(u16, Option<Found>)> {
        let [first, second, _, fourth] = words;
        if second & DD == 0 {
            return None;
        }
        let len = ((first >> 32) & 0x3fff) as u16;
        if second & EOP == 0 {
            return Some((len, None));
        }
        let cast = match (first >> 14) & 3 {
            0 => Cast::Unicast,
            1 => Cast::Multicast,
            _ => Cast::Broadcast,
        };
        let checked = second & 1 << 3 != 0;
        let (beside, behind) = ((second >> 32) as u32, (fourth & 0xffff_ffff) as u32);
        let (hash, mark) = match (first & 0x3f) as u8 {
            rxdid::FLEX_OVS => (behind, if beside == u32::MAX { None } else { Some(beside) }),
            _ => (beside, None),
        };
        let found = Found {
            packet_type: ((first >> 16) & 0xff) as u8,
            checked,
            bad_ip: checked && second & 1 << 4 != 0,
            bad_l4: checked && second & 1 << 5 != 0,
            fcs: second & 1 << 11 != 0,
            cast,
            hash: if second & 1 << 12 != 0 { Some(hash) } else { None },
            tag: if second & 1 << 13 != 0 { Some(((second >> 16) & 0xffff) as u16) } else { None },
            mark,
        };
        Some((len, Some(found)))
    }

    /// Reads a descriptor that a device wrote back in the legacy format: the bytes in its buffer, and what was found if it
    /// is the frame's last. `None` while it is not done.
    pub const fn parse_legacy(words: [u64; 4]) -> Option<(u16, Option<Found>)> {
        let [first, second, third, fourth] = words;
        if second & DD == 0 {
            return None;
        }
        let len = ((second >> 38) & 0x3fff) as u16;
        if second & EOP == 0 {
            return Some((len, None));
        }
        let cast = match (second >> 9) & 3 {
            0 => Cast::Unicast,
            1 => Cast::Multicast,
            _ => Cast::Broadcast,
        };
        let checked = second & 1 << 3 != 0;
        let found = Found {
            packet_type: ((second >> 30) & 0xff) as u8,
            checked,
            bad_ip: checked && second & 1 << 22 != 0,
            bad_l4: checked && second & 1 << 23 != 0,
            fcs: second & 1 << 4 != 0,
            cast,
            hash: if (second >> 12) & 3 == 3 { Some((first >> 32) as u32) } else { None },
            tag: if second & 1 << 2 != 0 { Some(((first >> 16) & 0xffff) as u16) } else { None },
            mark: if (third >> 4) & 3 == 1 { Some((fourth >> 32) as u32) } else { None },
        };
        Some((len, Some(found)))
    }
}
