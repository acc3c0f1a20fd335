//! What a session looks like from outside, for people to read.

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;

/// The layout of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFormat {
    /// Descriptor table, available ring, used ring (virtio 1.x, section 2.7).
    Split,
    /// One ring of descriptors (virtio 1.x, section 2.8).
    Packed,
}

impl RingFormat {
    /// The word in output.
    pub const fn label(self) -> &'static str {
        match self {
            RingFormat::Split => "split",
            RingFormat::Packed => "packed",
        }
    }
}

/// One ring of which the front end said something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingStatus {
    /// Its number.
    pub ring: u16,
    /// Its size in descriptors; 0 if it was not said yet.
    pub size: u16,
    /// Its layout.
    pub format: RingFormat,
    /// Whether it is served.
    pub running: bool,
    /// Whether it may carry frames.
    pub enabled: bool,
    /// Why it is not served although the front end said everything.
    pub problem: Option<String>,
}

/// A vhost-user end point as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a front end is connected.
    pub connected: bool,
    /// Its process, where the kernel says so.
    pub peer_pid: Option<i32>,
    /// Virtio features that were agreed.
    pub features: Vec<String>,
    /// Protocol features that were agreed.
    pub protocol_features: Vec<String>,
    /// The virtio status byte, if the front end tells it.
    pub device_status: u8,
    /// Regions of guest memory.
    pub memory_regions: usize,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// Whether writes are logged for a migration.
    pub logging: bool,
    /// The rings.
    pub rings: Vec<RingStatus>,
    /// How many sessions there have been.
    pub sessions: u64,
    /// Why the last session ended, or why none could begin.
    pub last_reason: Option<String>,
}

/// Names of the bits that are set.
pub(crate) fn names(bits: u64, name: impl Fn(u32) -> Option<&'static str>) -> Vec<String> {
    let named = |bit| match bit {
        26 => "LOG_ALL".to_owned(),
        30 => "PROTOCOL_FEATURES".to_owned(),
        _ => name(bit).map_or_else(|| format!("bit {bit}"), str::to_owned),
    };
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(named).collect()
}

/// Names of protocol features.
pub(crate) fn protocol_names(features: Protocol) -> Vec<String> {
    features.iter_names().map(|(name, _)| name.to_owned()).collect()
}
