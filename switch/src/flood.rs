//! Who gets a frame that goes to all of its VLAN.
//!
//! With 4,094 VLANs and thousands of trunks, a list for each VLAN written out would be hundreds of megabytes, and finding
//! one by asking every port would take longer than the frame that asks may wait. So ports are sorted once, when the
//! topology is made: access ports by their VLAN, trunks into classes that carry the same VLANs. A VLAN's members are put
//! together from those when it is first flooded, and kept as a list while they are few, as one bit a port when they are
//! many.
//!
//! ```text
//!   access   (vlan, isolated, port) sorted: a VLAN's ports lie side by side
//!   classes  {10,20,30} -> trunks 3, 7, 9       {1..4094} -> trunks 0, 1, 2
//!                    \__ a VLAN asks each class once, not each trunk
//!   members  [vlan 1] [vlan 2] ...  open: list or bits   isolated: list or bits
//! ```
//!
//! # Invariants
//! * Only enabled ports are here: a disabled one is a member of nothing.
//! * The members of one VLAN take at most one bit for each port, in each of the two halves; nothing is kept for a VLAN
//!   that was never flooded.
//! * An isolated sender reaches the open half only (private VLAN; `isolated` of `bridge link`).

use std::collections::HashMap;
use std::sync::OnceLock;

use fabnic_wire::Vid;

use crate::settings::{PortSettings, VlanMode};

/// Trunks that carry the same VLANs and are alike in being isolated.
struct Class {
    vlan: VlanMode,
    isolated: bool,
    ports: Vec<u32>,
}

/// All that is known of who is in which VLAN.
pub(crate) struct FloodLists {
    access: Box<[(Vid, bool, u32)]>,
    classes: Vec<Class>,
    /// How many ports there are, disabled ones too.
    ports: usize,
    members: Box<[OnceLock<Members>]>,
}

/// The members of one VLAN.
pub(crate) struct Members {
    open: PortSet,
    isolated: PortSet,
}

/// Ports by index, in the smaller of two forms.
enum PortSet {
    List(Box<[u32]>),
    Bits(Box<[u64]>, usize),
}

impl PortSet {
    fn new(mut ports: Vec<u32>, of: usize) -> PortSet {
        if ports.len().saturating_mul(32) <= of {
            ports.sort_unstable();
            return PortSet::List(ports.into_boxed_slice());
        }
        let count = ports.len();
        let mut bits = vec![0_u64; of.div_ceil(64)].into_boxed_slice();
        for port in ports {
            if let Some(word) = bits.get_mut(port as usize / 64) {
                *word |= 1 << (port % 64);
            }
        }
        PortSet::Bits(bits, count)
    }

    fn len(&self) -> usize {
        match self {
            PortSet::List(ports) => ports.len(),
            PortSet::Bits(_, count) => *count,
        }
    }

    fn iter(&self) -> PortIter<'_> {
        match self {
            PortSet::List(ports) => PortIter::List(ports.iter()),
            PortSet::Bits(bits, _) => PortIter::Bits { words: bits.iter(), word: 0, next: 0 },
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        match self {
            PortSet::List(ports) => size_of_val::<[u32]>(ports),
            PortSet::Bits(bits, _) => size_of_val::<[u64]>(bits),
        }
    }
}

enum PortIter<'a> {
    List(core::slice::Iter<'a, u32>),
    Bits {
        words: core::slice::Iter<'a, u64>,
        /// What is left of the word in work.
        word: u64,
        /// The index behind its last bit.
        next: u32,
    },
}

impl Iterator for PortIter<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            PortIter::List(ports) => ports.next().copied(),
            PortIter::Bits { words, word, next } => {
                while *word == 0 {
                    *word = *words.next()?;
                    *next += 64;
                }
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                Some(*next - 64 + bit)
            }
        }
    }
}

impl Members {
    /// How many a sender reaches, itself among them.
    pub(crate) fn reach(&self, sender_is_isolated: bool) -> usize {
        self.open.len() + if sender_is_isolated { 0 } else { self.isolated.len() }
    }

    /// Who gets a frame of `sender`, ascending but for isolated ports, which come last.
    pub(crate) fn reached_from(
        &self,
        sender: u32,
        sender_is_isolated: bool,
    ) -> impl Iterator<Item = u32> + Clone + '_ {
        let isolated = (!sender_is_isolated).then_some(&self.isolated);
        [Some(&self.open), isolated]
            .into_iter()
            .flatten()
            .flat_map(|set| set.iter())
            .filter(move |port| *port != sender)
    }
}

impl Clone for PortIter<'_> {
    fn clone(&self) -> Self {
        match self {
            PortIter::List(ports) => PortIter::List(ports.clone()),
            PortIter::Bits { words, word, next } => {
                PortIter::Bits { words: words.clone(), word: *word, next: *next }
            }
        }
    }
}

impl FloodLists {
    /// Sorts the ports, given in the order of their indexes.
    pub(crate) fn new<'a>(ports: impl Iterator<Item = &'a PortSettings>) -> FloodLists {
        let mut access = Vec::new();
        let mut classes: Vec<Class> = Vec::new();
        // By what a mode says; and first by where its set lies, because ports that were configured alike often share it.
        let mut by_mode: HashMap<(VlanMode, bool), usize> = HashMap::new();
        let mut by_place: HashMap<(usize, Option<Vid>, bool), usize> = HashMap::new();
        let mut count = 0;
        for (settings, index) in ports.zip(0_u32..) {
            count += 1;
            if !settings.enabled {
                continue;
            }
            let isolated = settings.isolated;
            let (vlans, native) = match &settings.vlan {
                VlanMode::Access(vid) => {
                    access.push((*vid, isolated, index));
                    continue;
                }
                VlanMode::Trunk { vlans, native } => (vlans, *native),
            };
            let class = *by_place.entry((vlans.place(), native, isolated)).or_insert_with(|| {
                *by_mode.entry((settings.vlan.clone(), isolated)).or_insert_with(|| {
                    classes.push(Class { vlan: settings.vlan.clone(), isolated, ports: Vec::new() });
                    classes.len() - 1
                })
            });
            if let Some(class) = classes.get_mut(class) {
                class.ports.push(index);
            }
        }
        access.sort_unstable();
        FloodLists {
            access: access.into_boxed_slice(),
            classes,
            ports: count,
            members: (0..4096).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The members of a VLAN, found when it is first asked for. `None` of a number that is no VLAN.
    pub(crate) fn of(&self, vid: Vid) -> Option<&Members> {
        Some(self.members.get(usize::from(vid.get()))?.get_or_init(|| self.find(vid)))
    }

    fn find(&self, vid: Vid) -> Members {
        let half = |wanted: bool| {
            let from = self.access.partition_point(|(of, isolated, _)| (*of, *isolated) < (vid, wanted));
            let own = self.access.get(from..).unwrap_or(&[]).iter();
            let own = own.take_while(|(of, isolated, _)| (*of, *isolated) == (vid, wanted));
            let mut ports: Vec<u32> = own.map(|(_, _, port)| *port).collect();
            for class in self.classes.iter().filter(|class| class.isolated == wanted) {
                if class.vlan.is_member(vid) {
                    ports.extend_from_slice(&class.ports);
                }
            }
            PortSet::new(ports, self.ports)
        };
        Members { open: half(false), isolated: half(true) }
    }

    /// Bytes that the members found so far take.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let found = self.members.iter().filter_map(OnceLock::get);
        found.map(|members| members.open.bytes() + members.isolated.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::VlanSet;

    fn vid(n: u16) -> Vid {
        Vid::new(n).unwrap()
    }

    fn all_vlans() -> VlanSet {
        (1..=4094).map(vid).collect()
    }

    fn reached(lists: &FloodLists, vlan: u16, sender: u32, isolated: bool) -> Vec<u32> {
        lists.of(vid(vlan)).unwrap().reached_from(sender, isolated).collect()
    }

    #[test]
    fn ten_thousand_access_ports_and_all_trunks_take_a_bit_each() {
        let every = all_vlans();
        let trunk =
            PortSettings { vlan: VlanMode::Trunk { vlans: every, native: None }, ..PortSettings::default() };
        let access = (0..10_000_u16)
            .map(|n| PortSettings { vlan: VlanMode::Access(vid(n % 4094 + 1)), ..PortSettings::default() });
        let ports: Vec<_> = std::iter::repeat_n(trunk, 4096).chain(access).collect();
        let lists = FloodLists::new(ports.iter());
        assert_eq!(lists.classes.len(), 1, "trunks that carry the same are one class");
        assert_eq!(lists.bytes(), 0, "nothing is kept of VLANs that were never flooded");
        for vlan in 1..=4094 {
            let wanted = 4096 + (0..10_000).filter(|n| n % 4094 + 1 == vlan).count();
            assert_eq!(lists.of(vid(vlan)).unwrap().reached_from(u32::MAX, false).count(), wanted);
        }
        assert!(lists.bytes() <= 4094 * 14_096_usize.div_ceil(64) * 8, "{} bytes", lists.bytes());
    }

    #[test]
    fn equal_sets_that_lie_apart_are_one_class() {
        let ports: Vec<_> = (0..100)
            .map(|n| PortSettings {
                vlan: VlanMode::Trunk { vlans: all_vlans(), native: (n % 2 == 0).then(|| vid(7)) },
                ..PortSettings::default()
            })
            .collect();
        assert_eq!(FloodLists::new(ports.iter()).classes.len(), 2);
    }

    fn settings() -> impl Strategy<Value = PortSettings> {
        let vlan = prop_oneof![
            (1..5_u16).prop_map(|n| VlanMode::Access(vid(n))),
            (
                prop::collection::vec((1..6_u16).prop_map(vid), 0..4),
                prop::option::of((1..6_u16).prop_map(vid))
            )
                .prop_map(|(vlans, native)| VlanMode::Trunk { vlans: vlans.into_iter().collect(), native }),
        ];
        (any::<bool>(), any::<bool>(), vlan).prop_map(|(enabled, isolated, vlan)| PortSettings {
            enabled,
            isolated,
            vlan,
            ..PortSettings::default()
        })
    }

    proptest! {
        #[test]
        fn it_reaches_whom_asking_each_port_would(
            ports in prop::collection::vec(settings(), 0..200),
            vlan in 1..7_u16,
            sender in 0..200_u32,
        ) {
            let lists = FloodLists::new(ports.iter());
            for isolated in [false, true] {
                let mut expected = Vec::new();
                for (index, port) in ports.iter().enumerate() {
                    let kept_apart = isolated && port.isolated;
                    if port.enabled && port.vlan.is_member(vid(vlan)) && index as u32 != sender && !kept_apart {
                        expected.push(index as u32);
                    }
                }
                let mut got = reached(&lists, vlan, sender, isolated);
                got.sort_unstable();
                prop_assert_eq!(got, expected);
            }
        }
    }
}
