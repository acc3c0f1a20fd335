//! Mirrors: copies of what passes, sent to a port.
//!
//! A mirror takes what comes in from some ports, what goes out to some ports, what is in some VLANs, or what a rule says,
//! and sends a copy to its target: a port of the switch, which may be an uplink or one that writes a pcapng file. What came
//! in is copied as it came, before anything is decided or rewritten; what goes out as it leaves, with the tag that it
//! leaves with; by a rule, as it is when the rule has its turn.
//!
//! # Invariants
//! * A mirror never takes a frame away, and never slows the mirrored port: what the target has no room for is dropped
//!   there and counted there.
//! * A copy is not mirrored again, and the target's VLANs and MTU do not apply to it.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::Vid;

/// What configuration says of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Its name, by which it is known from one configuration to the next.
    pub name: String,
    /// Where copies go.
    pub target: PortId,
    /// Ports of which it takes what they send.
    pub ingress: Vec<PortId>,
    /// Ports of which it takes what is delivered to them.
    pub egress: Vec<PortId>,
    /// VLANs of which it takes what comes in, from whatever port.
    pub vlans: Vec<Vid>,
    /// The most bytes of a frame that are copied; `None` for all.
    pub snap: Option<u32>,
    /// One frame of so many is copied; 0 and 1 for each.
    pub sample: u32,
}

/// What a mirror has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorStats {
    /// Frames that it was shown.
    pub seen: u64,
    /// Copies sent to the target, whether the target had room for them or not.
    pub copied: u64,
}

/// A mirror that runs. It outlives configurations that leave it as it is.
#[derive(Debug)]
pub struct Mirror {
    /// As configured.
    pub settings: MirrorSettings,
    seen: AtomicU64,
    copied: AtomicU64,
}

impl Mirror {
    pub(crate) fn new(settings: MirrorSettings) -> Mirror {
        Mirror { settings, seen: AtomicU64::new(0), copied: AtomicU64::new(0) }
    }

    /// What it has done.
    pub fn stats(&self) -> MirrorStats {
        MirrorStats { seen: self.seen.load(Ordering::Relaxed), copied: self.copied.load(Ordering::Relaxed) }
    }

    /// Takes over the numbers of the mirror of the same name that it replaces.
    pub(crate) fn take_over(&self, old: &Mirror) {
        let stats = old.stats();
        self.seen.store(stats.seen, Ordering::Relaxed);
        self.copied.store(stats.copied, Ordering::Relaxed);
    }

    /// Numbers go on from what an earlier mirror of the name has counted.
    pub(crate) fn go_on(&self, seen: u64, copied: u64) {
        self.seen.fetch_add(seen, Ordering::Relaxed);
        self.copied.fetch_add(copied, Ordering::Relaxed);
    }

    /// It is shown `frames` more. Gives the position among them of the first that it takes, and the distance from one to the
    /// next.
    pub(crate) fn show(&self, frames: u64) -> (usize, usize) {
        let before = self.seen.fetch_add(frames, Ordering::Relaxed);
        let every = u64::from(self.settings.sample.max(1));
        let first = (every - before % every) % every;
        (usize::try_from(first).unwrap_or(usize::MAX), usize::try_from(every).unwrap_or(usize::MAX))
    }

    pub(crate) fn sent(&self, copies: u64) {
        self.copied.fetch_add(copies, Ordering::Relaxed);
    }
}

/// The mirrors of one moment, where the data path asks for them.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    pub(crate) all: Vec<Arc<Mirror>>,
    pub(crate) by_vlan: Vec<(Vid, Arc<Mirror>)>,
    /// Each port's, in the order of the configuration.
    by_ingress: HashMap<PortId, Vec<Arc<Mirror>>>,
    by_egress: HashMap<PortId, Vec<Arc<Mirror>>>,
}

impl Mirrors {
    /// Makes the mirrors of a configuration; those that stay as they are stay themselves.
    pub(crate) fn new(settings: &[MirrorSettings], old: &Mirrors) -> Mirrors {
        let mut mirrors = Mirrors::default();
        for settings in settings {
            let before = old.all.iter().find(|mirror| mirror.settings.name == settings.name);
            let mirror = match before {
                Some(same) if same.settings == *settings => Arc::clone(same),
                other => {
                    let mirror = Mirror::new(settings.clone());
                    if let Some(old) = other {
                        mirror.take_over(old);
                    }
                    Arc::new(mirror)
                }
            };
            mirrors.by_vlan.extend(settings.vlans.iter().map(|vlan| (*vlan, Arc::clone(&mirror))));
            for (ports, of_port) in
                [(&settings.ingress, &mut mirrors.by_ingress), (&settings.egress, &mut mirrors.by_egress)]
            {
                for port in ports {
                    let of_port = of_port.entry(*port).or_default();
                    // A port that is named twice is mirrored once.
                    if !of_port.last().is_some_and(|last| Arc::ptr_eq(last, &mirror)) {
                        of_port.push(Arc::clone(&mirror));
                    }
                }
            }
            mirrors.all.push(mirror);
        }
        mirrors
    }

    /// Those that take what this port sends.
    pub(crate) fn of_ingress(&self, port: PortId) -> Box<[Arc<Mirror>]> {
        self.by_ingress.get(&port).cloned().unwrap_or_default().into()
    }

    /// Those that take what is delivered to this port.
    pub(crate) fn of_egress(&self, port: PortId) -> Box<[Arc<Mirror>]> {
        self.by_egress.get(&port).cloned().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(sample: u32) -> MirrorSettings {
        MirrorSettings {
            name: "m".to_owned(),
            target: PortId(9),
            ingress: vec![PortId(1)],
            egress: Vec::new(),
            vlans: Vec::new(),
            snap: None,
            sample,
        }
    }

    #[test]
    fn one_of_so_many_is_taken_however_they_come() {
        let mirror = Mirror::new(settings(3));
        let mut taken = Vec::new();
        let mut at = 0;
        for frames in [1, 5, 2, 64, 1, 1, 1] {
            let (first, every) = mirror.show(frames);
            taken.extend((0..frames as usize).skip(first).step_by(every).map(|index| at + index));
            at += frames as usize;
        }
        assert_eq!(taken, (0..at).step_by(3).collect::<Vec<_>>());
        assert_eq!(Mirror::new(settings(0)).show(7), (0, 1));
    }

    #[test]
    fn numbers_survive_a_change() {
        let old = Mirrors::new(&[settings(2)], &Mirrors::default());
        old.all[0].show(5);
        old.all[0].sent(3);
        let same = Mirrors::new(&[settings(2)], &old);
        assert!(Arc::ptr_eq(&same.all[0], &old.all[0]));
        let other = Mirrors::new(&[settings(4)], &old);
        assert_eq!(other.all[0].stats(), MirrorStats { seen: 5, copied: 3 });
    }

    #[test]
    fn each_port_has_its_mirrors_in_order_and_once() {
        let named = |name: &str, ingress: &[u32]| MirrorSettings {
            name: name.to_owned(),
            ingress: ingress.iter().copied().map(PortId).collect(),
            egress: vec![PortId(7)],
            ..settings(1)
        };
        let mirrors = Mirrors::new(&[named("a", &[1, 2, 1]), named("b", &[2])], &Mirrors::default());
        let names = |of: Box<[Arc<Mirror>]>| -> Vec<String> {
            of.iter().map(|mirror| mirror.settings.name.clone()).collect()
        };
        assert_eq!(names(mirrors.of_ingress(PortId(1))), ["a"]);
        assert_eq!(names(mirrors.of_ingress(PortId(2))), ["a", "b"]);
        assert_eq!(names(mirrors.of_egress(PortId(7))), ["a", "b"]);
        assert!(mirrors.of_egress(PortId(1)).is_empty());
    }
}
