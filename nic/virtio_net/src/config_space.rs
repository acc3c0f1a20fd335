//! The device configuration space (virtio 1.x, section 5.1.4), little endian.

use crate::Features;
use crate::model::{Told, VirtioNetConfig};

/// The smallest MTU that a device may tell (section 5.1.4.1).
pub(crate) const MTU_MIN: u16 = 68;

/// The status field's bit for a link that is up.
const LINK_UP: u16 = 1;

/// Linux reads 1 as full duplex; the specification says both 0 and 1.
const FULL_DUPLEX: u8 = 1;

/// Length of the space, up to and including `supported_hash_types`: where drivers stop reading without RSS.
const LEN: usize = 24;

/// The space as it is now. Fields that belong to features that are not offered are zero.
pub(crate) fn bytes(config: &VirtioNetConfig, offered: Features, told: Told) -> [u8; LEN] {
    let when = |feature, value: u16| if offered.contains(feature) { value } else { 0 };
    let [m0, m1, m2, m3, m4, m5] = told.mac.octets();
    let [s0, s1] = when(Features::STATUS, if told.link_up { LINK_UP } else { 0 }).to_le_bytes();
    let [p0, p1] = when(Features::MQ, config.queue_pairs).to_le_bytes();
    let [u0, u1] = when(Features::MTU, told.mtu).to_le_bytes();
    let [v0, v1, v2, v3] = config.speed.to_le_bytes();
    [m0, m1, m2, m3, m4, m5, s0, s1, p0, p1, u0, u1, v0, v1, v2, v3, FULL_DUPLEX, 0, 0, 0, 0, 0, 0, 0]
}
