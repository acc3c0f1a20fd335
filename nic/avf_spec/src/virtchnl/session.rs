//! Who talks to whom, and what there is.

use super::Caps;
use crate::bytes::{array, put, u16_at, u32_at};

/// The only VSI that a virtual function has. Opaque to drivers; `ice` says 1.
pub const VSI_ID: u16 = 1;
/// Type of that VSI (`VIRTCHNL_VSI_SRIOV`).
pub const VSI_SRIOV: i32 = 6;

/// VERSION, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 1.
    pub major: u32,
    /// 0 or 1.
    pub minor: u32,
}

impl Version {
    /// What this is.
    pub const V1_1: Version = Version { major: 1, minor: 1 };

    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<Version> {
        Some(Version { major: u32_at(bytes, 0)?, minor: u32_at(bytes, 4)? })
    }

    /// The message.
    pub fn encode(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        put(&mut bytes, 0, &self.major.to_le_bytes());
        put(&mut bytes, 4, &self.minor.to_le_bytes());
        bytes
    }
}

/// The reply to GET_VF_RESOURCES; the request is a [`Caps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Queue pairs.
    pub queue_pairs: u16,
    /// MSI-X vectors, that of the mailbox included.
    pub vectors: u16,
    /// Longest frame in bytes; 0 says nothing.
    pub max_frame: u16,
    /// What is granted.
    pub caps: Caps,
    /// Bytes of the RSS key.
    pub rss_key: u32,
    /// Entries of the RSS look-up table.
    pub rss_lut: u32,
    /// The VSI.
    pub vsi: u16,
    /// The function's address, zero if the driver may choose one.
    pub mac: [u8; 6],
}

impl Resources {
    /// Bytes of the message with its one VSI.
    pub const LEN: usize = 36;

    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<Resources> {
        if u16_at(bytes, 0)? == 0 {
            return None;
        }
        Some(Resources {
            queue_pairs: u16_at(bytes, 2)?,
            vectors: u16_at(bytes, 4)?,
            max_frame: u16_at(bytes, 6)?,
            caps: Caps::from_bits_retain(u32_at(bytes, 8)?),
            rss_key: u32_at(bytes, 12)?,
            rss_lut: u32_at(bytes, 16)?,
            vsi: u16_at(bytes, 20)?,
            mac: array(bytes, 30)?,
        })
    }

    /// The message.
    pub fn encode(&self) -> [u8; Resources::LEN] {
        let mut bytes = [0; Resources::LEN];
        put(&mut bytes, 0, &1_u16.to_le_bytes());
        put(&mut bytes, 2, &self.queue_pairs.to_le_bytes());
        put(&mut bytes, 4, &self.vectors.to_le_bytes());
        put(&mut bytes, 6, &self.max_frame.to_le_bytes());
        put(&mut bytes, 8, &self.caps.bits().to_le_bytes());
        put(&mut bytes, 12, &self.rss_key.to_le_bytes());
        put(&mut bytes, 16, &self.rss_lut.to_le_bytes());
        put(&mut bytes, 20, &self.vsi.to_le_bytes());
        put(&mut bytes, 22, &self.queue_pairs.to_le_bytes());
        put(&mut bytes, 24, &VSI_SRIOV.to_le_bytes());
        put(&mut bytes, 30, &self.mac);
        bytes
    }
}
