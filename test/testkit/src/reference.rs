//! The reference switch: what the real one must do, slow and obvious.
//!
//! It owns no code of the real switch and takes no short cut: no cache, no burst, no index. It reads a frame from its
//! first byte to its last decision in the order of the sentences below, and property tests hold the real switch against
//! it. Time is a number of seconds that the caller gives.
//!
//! # The rules, in their order
//!
//! 1. A frame without a whole Ethernet header, or whose 802.1Q tag is cut off, is a `runt`.
//! 2. A disabled port sends nothing: `ingress_disabled`.
//! 3. A source that is multicast or zero is no station: `bad_source`.
//! 4. 01:80:c2:00:00:00 to 0f stays on its link: `reserved_destination`.
//! 5. A tag is EtherType 0x8100 with a VLAN other than 0; with VLAN 0 it carries a priority and the frame counts as
//!    untagged. A tagged frame needs its port to be a member of the VLAN (`vlan_not_allowed`), an untagged one needs the
//!    port to have an access or native VLAN (`untagged_not_allowed`).
//! 6. What is behind the untagged Ethernet header may not be longer than the sending port's MTU (`ingress_mtu`); of a
//!    frame to be segmented, the longest segment counts.
//!     Then the guards of the port (the rules of [`guard`]); what they drop is not learned from.
//! 7. The source is learned on the port, unless learning is off, the address is static, or the port has as many as it
//!    may have. An address seen on another port moves there under the same conditions.
//!     ARP requests and neighbour solicitations that the switch answers end here: `consumed`.
//! 8. Multicast, broadcast and unknown unicast go to all other enabled members of the VLAN; to none of them is
//!    `no_member`. Known unicast goes to its port: if it is the sending one `same_port`, if it is no member of the VLAN
//!    `no_member`, if it is disabled `egress_disabled`.
//! 9. Each copy that is too long for its port's MTU is dropped for itself: `egress_mtu`.
//! 10. A copy leaves tagged by a trunk, unless the VLAN is the native one, and untagged by an access port. A tag that
//!     goes on keeps its priority and drop eligibility, whatever its VLAN was; a new one has none.

use std::collections::{BTreeMap, BTreeSet};

pub mod guard;

use guard::{Guard, Known, Sent};

/// Which VLANs a port takes part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vlan {
    /// One VLAN, untagged.
    Access(u16),
    /// Several VLANs, tagged, and perhaps one untagged.
    Trunk {
        /// The tagged ones.
        vlans: BTreeSet<u16>,
        /// The untagged one; a member whether it is listed or not.
        native: Option<u16>,
    },
}

impl Vlan {
    /// Whether the port carries the VLAN.
    pub fn is_member(&self, vid: u16) -> bool {
        match self {
            Vlan::Access(access) => *access == vid,
            Vlan::Trunk { vlans, native } => vlans.contains(&vid) || *native == Some(vid),
        }
    }

    fn untagged(&self) -> Option<u16> {
        match self {
            Vlan::Access(access) => Some(*access),
            Vlan::Trunk { native, .. } => *native,
        }
    }

    fn leaves_tagged(&self, vid: u16) -> bool {
        match self {
            Vlan::Access(_) => false,
            Vlan::Trunk { native, .. } => *native != Some(vid),
        }
    }
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Administrative state.
    pub enabled: bool,
    /// Bytes behind the untagged Ethernet header.
    pub mtu: usize,
    /// Its VLANs.
    pub vlan: Vlan,
    /// Sources are learned.
    pub learning: bool,
    /// Most addresses learned here.
    pub fdb_limit: usize,
    /// What the port is checked for, and what is answered on it.
    pub guard: Guard,
}

impl Default for PortConfig {
    fn default() -> PortConfig {
        PortConfig {
            enabled: true,
            mtu: 1500,
            vlan: Vlan::Access(1),
            learning: true,
            fdb_limit: 65536,
            guard: Guard::default(),
        }
    }
}

/// The switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The ports; they are numbered from 0.
    pub ports: Vec<PortConfig>,
    /// Seconds after which an address that was not seen is forgotten.
    pub ageing: u64,
}

/// An address the switch knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The port it is behind.
    pub port: usize,
    /// By configuration.
    pub is_static: bool,
    /// When it was last a source.
    pub seen: u64,
}

/// What became of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Copies that left, by port, in the order of the ports.
    pub delivered: Vec<(usize, Vec<u8>)>,
    /// Copies that did not, with the port they were for.
    pub dropped: Vec<(usize, &'static str)>,
    /// Why there were no copies at all.
    pub refused: Option<&'static str>,
}

impl Outcome {
    fn refused(reason: &'static str) -> Outcome {
        Outcome { refused: Some(reason), ..Outcome::default() }
    }

    /// Every reason that was counted, in order: of the frame, or of its copies.
    pub fn reasons(&self) -> Vec<&'static str> {
        self.refused.iter().copied().chain(self.dropped.iter().map(|(_, reason)| *reason)).collect()
    }
}

/// The switch and what it has learned.
#[derive(Clone, Debug)]
pub struct Switch {
    config: Config,
    /// By VLAN and address.
    fdb: BTreeMap<(u16, [u8; 6]), Entry>,
    known: Known,
}

impl Switch {
    /// With an empty forwarding database.
    pub fn new(config: Config) -> Switch {
        let mut switch = Switch { config, fdb: BTreeMap::new(), known: Known::default() };
        switch.fix();
        switch
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the configuration; what was learned stays.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
        self.fix();
    }

    fn fix(&mut self) {
        let ports = &self.config.ports;
        let guards: Vec<_> = ports.iter().map(|port| (port.guard.clone(), port.vlan.untagged())).collect();
        self.known.fix(&guards);
    }

    /// What the guards know at a time.
    pub fn known(&mut self, now: u64) -> &Known {
        self.known.pass(now);
        &self.known
    }

    /// Makes a static entry, in the place of any other.
    pub fn add_static(&mut self, vlan: u16, mac: [u8; 6], port: usize) {
        self.fdb.insert((vlan, mac), Entry { port, is_static: true, seen: 0 });
    }

    /// Forgets an address, static or not.
    pub fn remove(&mut self, vlan: u16, mac: [u8; 6]) -> Option<Entry> {
        self.fdb.remove(&(vlan, mac))
    }

    /// Forgets all that was learned.
    pub fn flush(&mut self) {
        self.fdb.retain(|_, entry| entry.is_static);
    }

    /// What is known at a time: entries that have aged out are not.
    pub fn entries(&mut self, now: u64) -> &BTreeMap<(u16, [u8; 6]), Entry> {
        self.age(now);
        &self.fdb
    }

    fn age(&mut self, now: u64) {
        let ageing = self.config.ageing;
        self.fdb.retain(|_, entry| entry.is_static || now.saturating_sub(entry.seen) <= ageing);
    }

    fn learn(&mut self, vlan: u16, mac: [u8; 6], port: usize, now: u64) {
        let Some(config) = self.config.ports.get(port) else { return };
        if !config.learning {
            return;
        }
        let learned = self.fdb.values().filter(|e| !e.is_static && e.port == port).count();
        let room = learned < config.fdb_limit;
        match self.fdb.get_mut(&(vlan, mac)) {
            Some(entry) if entry.is_static => {}
            Some(entry) if entry.port == port => entry.seen = now,
            _ if room => {
                self.fdb.insert((vlan, mac), Entry { port, is_static: false, seen: now });
            }
            _ => {}
        }
    }

    /// The frame ends at the switch, and its answer goes back.
    fn answered(&self, port: usize, vlan: u16, answer: Vec<u8>) -> Outcome {
        let mut outcome = Outcome::refused("consumed");
        let Some(asker) = self.config.ports.get(port) else { return outcome };
        if answer.len() > asker.mtu + 14 {
            outcome.dropped.push((port, "egress_mtu"));
            return outcome;
        }
        let tag = [&[0x81, 0][..], &vlan.to_be_bytes()].concat();
        let tag = if asker.vlan.leaves_tagged(vlan) { &tag[..] } else { &[] };
        outcome.delivered.push((port, [&answer[..12], tag, &answer[12..]].concat()));
        outcome
    }

    /// A frame from a port, whole.
    pub fn input(&mut self, port: usize, frame: &[u8], now: u64) -> Outcome {
        self.input_segments(port, frame, frame.len(), now)
    }

    /// A frame from a port that may still have to be segmented: `longest` is the length of its longest segment with all
    /// headers (hdr_len + gso_size; the frame's own length if it is not to be segmented).
    pub fn input_segments(&mut self, port: usize, frame: &[u8], longest: usize, now: u64) -> Outcome {
        self.age(now);
        let (Some(dst), Some(src), Some(ethertype)) = (mac(frame, 0), mac(frame, 6), be16(frame, 12)) else {
            return Outcome::refused("runt");
        };
        let tci = match (ethertype, be16(frame, 14), be16(frame, 16)) {
            (0x8100, Some(tci), Some(_)) => Some(tci),
            (0x8100, _, _) => return Outcome::refused("runt"),
            _ => None,
        };
        let Some(ingress) = self.config.ports.get(port).cloned() else {
            return Outcome::refused("ingress_disabled");
        };
        if !ingress.enabled {
            return Outcome::refused("ingress_disabled");
        }
        if src[0] & 1 == 1 || src == [0; 6] {
            return Outcome::refused("bad_source");
        }
        if dst[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && dst[5] <= 0x0f {
            return Outcome::refused("reserved_destination");
        }
        let vlan = match tci.map(|tci| tci & 0x0fff) {
            Some(vid) if vid != 0 => {
                if !ingress.vlan.is_member(vid) {
                    return Outcome::refused("vlan_not_allowed");
                }
                vid
            }
            _ => match ingress.vlan.untagged() {
                Some(vid) => vid,
                None => return Outcome::refused("untagged_not_allowed"),
            },
        };
        let tag_len = if tci.is_some() { 4 } else { 0 };
        let payload = longest.saturating_sub(tag_len + 14);
        if payload > ingress.mtu {
            return Outcome::refused("ingress_mtu");
        }
        let sent = Sent { port, is_access: matches!(ingress.vlan, Vlan::Access(_)), vlan, now, frame };
        self.known.pass(now);
        if let Err(reason) = self.known.check(&ingress.guard, &sent) {
            return Outcome::refused(reason);
        }
        self.learn(vlan, src, port, now);
        let is_up = |port: usize| self.config.ports.get(port).is_some_and(|port| port.enabled);
        if let Some(answer) = self.known.answer(&ingress.guard, &sent, is_up) {
            return self.answered(port, vlan, answer);
        }

        let known = if dst[0] & 1 == 1 { None } else { self.fdb.get(&(vlan, dst)) };
        let targets = match known {
            Some(entry) if entry.port == port => return Outcome::refused("same_port"),
            Some(entry) => match self.config.ports.get(entry.port) {
                Some(target) if !target.vlan.is_member(vlan) => return Outcome::refused("no_member"),
                Some(target) if !target.enabled => return Outcome::refused("egress_disabled"),
                Some(_) => vec![entry.port],
                None => return Outcome::refused("no_member"),
            },
            None => {
                let ports = self.config.ports.iter().enumerate();
                let others =
                    ports.filter(|(i, other)| *i != port && other.enabled && other.vlan.is_member(vlan));
                let others: Vec<usize> = others.map(|(i, _)| i).collect();
                if others.is_empty() {
                    return Outcome::refused("no_member");
                }
                others
            }
        };
        let mut outcome = Outcome::default();
        for target in targets {
            let Some(egress) = self.config.ports.get(target) else { continue };
            if payload > egress.mtu {
                outcome.dropped.push((target, "egress_mtu"));
                continue;
            }
            let mut copy = frame[..12].to_vec();
            if egress.vlan.leaves_tagged(vlan) {
                let priority = tci.unwrap_or(0) & 0xf000;
                copy.extend_from_slice(&0x8100_u16.to_be_bytes());
                copy.extend_from_slice(&(priority | vlan).to_be_bytes());
            }
            copy.extend_from_slice(&frame[12 + tag_len..]);
            outcome.delivered.push((target, copy));
        }
        outcome
    }
}

fn mac(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..)?.first_chunk().copied()
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
