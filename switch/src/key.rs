//! What tells one flow from another, as far as the stages look.
//!
//! The stages of today read the ingress port, both addresses and the tag; so that is the key, 20 bytes. A stage that
//! reads more will widen it.

use core::num::Wrapping;

use fabnic_port::Frame;
use fabnic_wire::Tci;

/// Set in [`Key::tag`] when the frame has a tag, so that VLAN 0 differs from none.
const TAGGED: u32 = 1 << 16;

/// Whether a frame that begins like this has a VLAN tag of this EtherType.
#[inline(always)]
pub(crate) fn has_tag(first: &[u8; 16], tpid: [u8; 2]) -> bool {
    let [.., kind_high, kind_low, _, _] = *first;
    [kind_high, kind_low] == tpid
}

/// The two words of the key of a frame without tag; `ingress` is the port's index, shifted to its place.
#[inline(always)]
pub(crate) fn halves(first: &[u8; 16], ingress: u64) -> (u64, u64) {
    let first = u128::from_le_bytes(*first);
    (first as u64, (first >> 64) as u64 & 0xffff_ffff | ingress)
}

#[inline(always)]
pub(crate) fn hash(front: u64, back: u64, secret: &[u64; 2]) -> u64 {
    let product = u128::from(front ^ secret[0]) * u128::from(back ^ secret[1]);
    let folded = (product >> 64) as u64 ^ product as u64;
    folded ^ (folded >> 29)
}

/// The exact key of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    /// Destination, and the first two bytes of the source.
    pub(crate) front: u64,
    /// The other four bytes of the source, and the index of the ingress port above them.
    pub(crate) back: u64,
    /// VLAN bits of the tag, and whether there is one.
    pub(crate) tag: u32,
}

impl Key {
    /// The key of a frame without tag.
    #[inline(always)]
    pub(crate) fn untagged(first: &[u8; 16], ingress: u32) -> Key {
        let (front, back) = halves(first, u64::from(ingress) << 32);
        Key { front, back, tag: 0 }
    }

    /// Reads the key of any frame that came by a port whose tags have this EtherType. `None` for a runt. The second value is
    /// the whole tag as it came.
    pub(crate) fn read(frame: &Frame, ingress: u32, tpid: [u8; 2]) -> Option<(Key, u16)> {
        // Short frames go a longer way.
        let first = match frame.head().first_chunk() {
            Some(first) => *first,
            None => Key::pad(frame.head())?,
        };
        let mut key = Key::untagged(&first, ingress);
        let mut tci = 0;
        if has_tag(&first, tpid) {
            let [.., high, low] = first;
            tci = u16::from_be_bytes([high, low]);
            // The EtherType behind the tag must be there too.
            frame.head().get(16..18)?;
            key.tag = TAGGED | u32::from(tci & Tci::VID_MASK);
        }
        Some((key, tci))
    }

    #[cold]
    fn pad(head: &[u8]) -> Option<[u8; 16]> {
        let mut bytes = [0; 16];
        let head = head.get(..14)?;
        bytes.get_mut(..14)?.copy_from_slice(head);
        Some(bytes)
    }

    /// Whether there is a tag.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        self.tag & TAGGED != 0
    }

    /// A hash with a secret: whoever chooses addresses cannot choose where they fall.
    #[inline(always)]
    pub(crate) fn hash(&self, secret: &[u64; 2]) -> u64 {
        hash(self.front, (Wrapping(self.back) + Wrapping(u64::from(self.tag) << 40)).0, secret)
    }
}

#[cfg(test)]
mod tests {
    use fabnic_memory::Map;
    use fabnic_port::Burst;

    use super::*;

    fn key(bytes: &[u8]) -> Option<(Key, u16)> {
        let (map, _) = Map::anonymous(4096).unwrap();
        let mut burst = Burst::new();
        burst.begin(&map);
        Key::read(burst.push_bytes(bytes)?, 7, [0x81, 0])
    }

    #[test]
    fn reads_addresses_and_tags() {
        let mut frame = [0_u8; 60];
        frame[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        frame[6..12].copy_from_slice(&[7, 8, 9, 10, 11, 12]);
        let (plain, tci) = key(&frame).unwrap();
        assert_eq!(plain.front.to_le_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(plain.back.to_le_bytes(), [9, 10, 11, 12, 7, 0, 0, 0]);
        assert!(!plain.is_tagged());
        assert_eq!(tci, 0);
        frame[12..16].copy_from_slice(&[0x81, 0x00, 0x60, 0x0a]);
        let (tagged, tci) = key(&frame).unwrap();
        assert_eq!((tagged.tag & 0xfff, tci), (10, 0x600a));
        frame[14..16].copy_from_slice(&[0, 0]);
        let (priority, _) = key(&frame).unwrap();
        assert!(priority.is_tagged() && priority != plain);
        assert_eq!(key(&frame[..17]), None, "a tag without what it tags");
        assert!(key(&frame[..18]).is_some());
        frame[12] = 8;
        assert_eq!(key(&frame[..13]), None);
        assert_eq!(key(&frame[..14]).unwrap().0.front, plain.front);
    }
}
