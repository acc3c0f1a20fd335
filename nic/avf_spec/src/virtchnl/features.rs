//! What is negotiated on top: RSS, VLAN offloads, link events.

use crate::bytes::{elements, put, u8_at, u16_at, u32_at};

/// Bytes of the RSS key.
pub const RSS_KEY_LEN: usize = 52;
/// Entries of the RSS look-up table.
pub const RSS_LUT_LEN: usize = 64;

/// CONFIG_RSS_KEY and CONFIG_RSS_LUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RssBytes<'a> {
    /// VSI.
    pub vsi: u16,
    /// Key or entries.
    pub bytes: &'a [u8],
}

impl<'a> RssBytes<'a> {
    /// Reads the message.
    pub fn parse(bytes: &'a [u8]) -> Option<RssBytes<'a>> {
        let len = usize::from(u16_at(bytes, 2)?);
        let list = bytes.get(4..)?;
        // Historically one byte longer, and padded.
        if list.len() > len + 4 {
            return None;
        }
        Some(RssBytes { vsi: u16_at(bytes, 0)?, bytes: list.get(..len)? })
    }

    /// The message, in its historical length.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.vsi.to_le_bytes().to_vec();
        bytes.extend(u16::try_from(self.bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(self.bytes);
        bytes.push(0);
        bytes
    }
}

/// CONFIG_RSS_HFUNC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RssHash {
    /// VSI.
    pub vsi: u16,
    /// 0 Toeplitz, 2 Toeplitz with both directions alike.
    pub algorithm: u16,
}

impl RssHash {
    /// Toeplitz.
    pub const TOEPLITZ: u16 = 0;
    /// Toeplitz, source and destination folded together.
    pub const SYMMETRIC: u16 = 2;

    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<RssHash> {
        Some(RssHash { vsi: u16_at(bytes, 0)?, algorithm: u16_at(bytes, 2)? })
    }

    /// The message.
    pub fn encode(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        put(&mut bytes, 0, &self.vsi.to_le_bytes());
        put(&mut bytes, 2, &self.algorithm.to_le_bytes());
        bytes
    }
}

/// Bits of VLAN capabilities and settings (`VIRTCHNL_VLAN_*`).
pub mod vlan {
    /// EtherType 8100.
    pub const ETHERTYPE_8100: u32 = 1;
    /// EtherType 88A8.
    pub const ETHERTYPE_88A8: u32 = 2;
    /// The tag is in L2TAG1.
    pub const TAG_LOCATION_L2TAG1: u32 = 0x100;
    /// The driver may switch it.
    pub const TOGGLE: u32 = 1 << 31;
}

/// The reply to GET_OFFLOAD_VLAN_V2_CAPS. Each pair is for outer and inner tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanCaps {
    /// Filters.
    pub filter: [u32; 2],
    /// EtherTypes that are filtered at the start.
    pub filter_init: u32,
    /// How many filters.
    pub max_filters: u16,
    /// Taking tags out.
    pub strip: [u32; 2],
    /// Putting tags in.
    pub insert: [u32; 2],
    /// EtherTypes of offloads at the start.
    pub offload_init: u32,
    /// 1 if stripping and insertion may be of different EtherTypes.
    pub independent: u8,
}

impl VlanCaps {
    /// Bytes of the message.
    pub const LEN: usize = 40;

    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<VlanCaps> {
        let pair = |at| Some([u32_at(bytes, at)?, u32_at(bytes, at + 4)?]);
        Some(VlanCaps {
            filter: pair(0)?,
            filter_init: u32_at(bytes, 8)?,
            max_filters: u16_at(bytes, 12)?,
            strip: pair(16)?,
            insert: pair(24)?,
            offload_init: u32_at(bytes, 32)?,
            independent: u8_at(bytes, 36)?,
        })
    }

    /// The message.
    pub fn encode(&self) -> [u8; VlanCaps::LEN] {
        let mut bytes = [0; VlanCaps::LEN];
        for (at, [outer, inner]) in [(0, self.filter), (16, self.strip), (24, self.insert)] {
            put(&mut bytes, at, &outer.to_le_bytes());
            put(&mut bytes, at + 4, &inner.to_le_bytes());
        }
        put(&mut bytes, 8, &self.filter_init.to_le_bytes());
        put(&mut bytes, 12, &self.max_filters.to_le_bytes());
        put(&mut bytes, 32, &self.offload_init.to_le_bytes());
        put(&mut bytes, 36, &[self.independent]);
        bytes
    }
}

/// A tag in a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanFilter {
    /// VLAN id and priority.
    pub tci: u16,
    /// Which bits count; 0 means the id.
    pub mask: u16,
    /// EtherType; 0 if there is no such tag.
    pub tpid: u16,
}

/// ADD_VLAN_V2 and DEL_VLAN_V2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanFilters {
    /// VSI.
    pub vsi: u16,
    /// Inner and outer tags.
    pub list: Vec<[VlanFilter; 2]>,
}

const FILTER: usize = 32;

impl VlanFilters {
    /// Reads the message: VSI, and inner and outer tags.
    pub fn parse(bytes: &[u8]) -> Option<(u16, impl Iterator<Item = [VlanFilter; 2]> + Clone)> {
        let list = elements(bytes, 8, u16_at(bytes, 2)?, FILTER)?;
        let tag = |entry: &[u8], at| {
            Some(VlanFilter {
                tci: u16_at(entry, at)?,
                mask: u16_at(entry, at + 2)?,
                tpid: u16_at(entry, at + 4)?,
            })
        };
        Some((u16_at(bytes, 0)?, list.filter_map(move |entry| Some([tag(entry, 0)?, tag(entry, 8)?]))))
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        put(&mut bytes, 0, &self.vsi.to_le_bytes());
        put(&mut bytes, 2, &u16::try_from(self.list.len()).unwrap_or(u16::MAX).to_le_bytes());
        for tags in &self.list {
            let mut entry = [0; FILTER];
            for (at, tag) in [0, 8].into_iter().zip(tags) {
                put(&mut entry, at, &tag.tci.to_le_bytes());
                put(&mut entry, at + 2, &tag.mask.to_le_bytes());
                put(&mut entry, at + 4, &tag.tpid.to_le_bytes());
            }
            bytes.extend(entry);
        }
        bytes
    }
}

/// ENABLE and DISABLE of VLAN_STRIPPING_V2 and VLAN_INSERTION_V2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanSetting {
    /// EtherType of outer tags, one bit.
    pub outer: u32,
    /// EtherType of inner tags, one bit.
    pub inner: u32,
    /// VSI.
    pub vsi: u16,
}

impl VlanSetting {
    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<VlanSetting> {
        Some(VlanSetting { outer: u32_at(bytes, 0)?, inner: u32_at(bytes, 4)?, vsi: u16_at(bytes, 8)? })
    }

    /// The message.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        put(&mut bytes, 0, &self.outer.to_le_bytes());
        put(&mut bytes, 4, &self.inner.to_le_bytes());
        put(&mut bytes, 8, &self.vsi.to_le_bytes());
        bytes
    }
}

/// How fast a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkSpeed {
    /// In Mbit/s, with `ADV_LINK_SPEED`.
    Mbps(u32),
    /// One of the bits that there are, without.
    Bit(u32),
}

impl LinkSpeed {
    /// Speeds that have a bit, and the bit.
    const BITS: [(u32, u32); 8] = [
        (100, 0x2),
        (1000, 0x4),
        (2500, 0x1),
        (5000, 0x80),
        (10_000, 0x8),
        (20_000, 0x20),
        (25_000, 0x40),
        (40_000, 0x10),
    ];

    /// The bit for a speed: the fastest that is not faster.
    pub fn bit(mbps: u32) -> u32 {
        LinkSpeed::BITS.iter().rev().find(|(speed, _)| *speed <= mbps).map_or(0, |(_, bit)| *bit)
    }

    /// In Mbit/s; 0 if unknown.
    pub fn mbps(self) -> u32 {
        match self {
            LinkSpeed::Mbps(mbps) => mbps,
            LinkSpeed::Bit(bit) => {
                LinkSpeed::BITS.iter().find(|(_, b)| *b == bit).map_or(0, |(speed, _)| *speed)
            }
        }
    }
}

/// EVENT, from the device only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link came or went; the number is as the driver asked for it.
    Link {
        /// Whether it is up.
        up: bool,
        /// See [`LinkSpeed`].
        speed: u32,
    },
    /// The function is about to be reset.
    ResetImpending,
    /// The device's own driver goes away.
    Close,
}

impl Event {
    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<Event> {
        Some(match u32_at(bytes, 0)? {
            1 => Event::Link { up: u8_at(bytes, 8)? != 0, speed: u32_at(bytes, 4)? },
            2 => Event::ResetImpending,
            3 => Event::Close,
            _ => return None,
        })
    }

    /// The message.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (event, severity) = match self {
            Event::Link { up, speed } => {
                put(&mut bytes, 4, &speed.to_le_bytes());
                put(&mut bytes, 8, &[u8::from(*up)]);
                (1_u32, 0_u32)
            }
            Event::ResetImpending => (2, 255),
            Event::Close => (3, 255),
        };
        put(&mut bytes, 0, &event.to_le_bytes());
        put(&mut bytes, 12, &severity.to_le_bytes());
        bytes
    }
}
