//! VLAN translation: the numbers that VLANs have on a port's wire, where they differ from the switch's own.
//!
//! A customer's VLAN 10 and another customer's VLAN 10 are two VLANs of the switch; each port knows its own as 10. On the
//! way in the tag's number is looked up, on the way out the number is turned back (IEEE 802.1Q, section 6.9, VID
//! translation table). What a port was not told to translate keeps its number.
//!
//! # Invariant
//! The two directions are the reverse of each other: no number on the wire means two VLANs, and no VLAN has two numbers.
//! So a number on the wire that another VLAN is translated *to* on this port, and that is not translated itself, means
//! nothing there: frames with it are refused as of a VLAN that the port does not carry.

use std::sync::Arc;

use fabnic_wire::Vid;

/// Pairs that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslationError {
    /// A number on the wire was given twice.
    #[error("VLAN {wire} on the wire is translated twice, expected once")]
    Wire {
        /// The number.
        wire: Vid,
    },
    /// Two numbers on the wire were to become one VLAN.
    #[error("two VLANs on the wire are translated to VLAN {vlan}, expected one")]
    Switch {
        /// The VLAN.
        vlan: Vid,
    },
}

/// The translations of one port. Clones share what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanTranslation(Option<Arc<Pairs>>);

#[derive(Debug, PartialEq, Eq)]
struct Pairs {
    /// On the wire, in the switch; sorted by the first.
    inward: Box<[(Vid, Vid)]>,
    /// In the switch, on the wire; sorted by the first.
    outward: Box<[(Vid, Vid)]>,
}

fn find(pairs: &[(Vid, Vid)], vid: Vid) -> Option<Vid> {
    let place = pairs.binary_search_by_key(&vid, |(from, _)| *from).ok()?;
    pairs.get(place).map(|(_, to)| *to)
}

impl VlanTranslation {
    /// From pairs: the number on the wire, and the VLAN of the switch that it stands for.
    ///
    /// # Errors
    /// A number or a VLAN that is in two pairs.
    pub fn new(pairs: impl IntoIterator<Item = (Vid, Vid)>) -> Result<VlanTranslation, TranslationError> {
        let mut inward: Vec<(Vid, Vid)> = pairs.into_iter().collect();
        if inward.is_empty() {
            return Ok(VlanTranslation::default());
        }
        let mut outward: Vec<(Vid, Vid)> = inward.iter().map(|(wire, vlan)| (*vlan, *wire)).collect();
        inward.sort_unstable();
        outward.sort_unstable();
        let twice = |pairs: &[(Vid, Vid)]| {
            pairs.windows(2).find_map(|two| match two {
                [(a, _), (b, _)] if a == b => Some(*a),
                _ => None,
            })
        };
        if let Some(wire) = twice(&inward) {
            return Err(TranslationError::Wire { wire });
        }
        if let Some(vlan) = twice(&outward) {
            return Err(TranslationError::Switch { vlan });
        }
        let pairs = Pairs { inward: inward.into_boxed_slice(), outward: outward.into_boxed_slice() };
        Ok(VlanTranslation(Some(Arc::new(pairs))))
    }

    /// The VLAN that a number on the wire stands for, if it stands for any.
    #[inline]
    pub fn inward(&self, wire: Vid) -> Option<Vid> {
        let Some(pairs) = &self.0 else { return Some(wire) };
        match find(&pairs.inward, wire) {
            Some(vlan) => Some(vlan),
            None => find(&pairs.outward, wire).is_none().then_some(wire),
        }
    }

    /// The number that a VLAN has on the wire, if it has any.
    #[inline]
    pub fn outward(&self, vlan: Vid) -> Option<Vid> {
        let Some(pairs) = &self.0 else { return Some(vlan) };
        match find(&pairs.outward, vlan) {
            Some(wire) => Some(wire),
            None => find(&pairs.inward, vlan).is_none().then_some(vlan),
        }
    }

    /// The pairs: on the wire, in the switch; ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Vid, Vid)> + '_ {
        self.0.iter().flat_map(|pairs| pairs.inward.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vid(n: u16) -> Vid {
        Vid::new(n).unwrap()
    }

    #[test]
    fn contradictions_are_refused() {
        let new = |pairs: &[(u16, u16)]| VlanTranslation::new(pairs.iter().map(|(a, b)| (vid(*a), vid(*b))));
        assert_eq!(new(&[(1, 2), (1, 3)]), Err(TranslationError::Wire { wire: vid(1) }));
        assert_eq!(new(&[(1, 3), (2, 3)]), Err(TranslationError::Switch { vlan: vid(3) }));
        let swap = new(&[(1, 2), (2, 1)]).unwrap();
        assert_eq!((swap.inward(vid(1)), swap.inward(vid(2))), (Some(vid(2)), Some(vid(1))));
        let one = new(&[(10, 100)]).unwrap();
        assert_eq!(
            (one.inward(vid(100)), one.outward(vid(10))),
            (None, None),
            "it would come back as another"
        );
        assert_eq!(new(&[]).unwrap(), VlanTranslation::default());
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_back(pairs in prop::collection::btree_map(1..20_u16, 1..20_u16, 0..8), n in 1..25_u16) {
            let Ok(map) = VlanTranslation::new(pairs.iter().map(|(a, b)| (vid(*a), vid(*b)))) else { return Ok(()) };
            if let Some(vlan) = map.inward(vid(n)) {
                prop_assert_eq!(map.outward(vlan), Some(vid(n)));
            }
            if let Some(wire) = map.outward(vid(n)) {
                prop_assert_eq!(map.inward(wire), Some(vid(n)));
            }
            if !pairs.contains_key(&n) && !pairs.values().any(|to| *to == n) {
                prop_assert_eq!(map.inward(vid(n)), Some(vid(n)));
            }
        }
    }
}
