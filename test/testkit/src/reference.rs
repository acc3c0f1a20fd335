//! The reference switch: what the real one must do, slow and obvious.
//!
//! It owns no code of the real switch and takes no short cut: no cache, no burst, no index. It reads a frame from its
//! first byte to its last decision in the order of the sentences below, and property tests hold the real switch against
//! it. Time is a number of seconds that the caller gives.
//!
//! # The rules, in their order
//!
//! 1. A frame without a whole Ethernet header, or whose tag is cut off, is a `runt`.
//! 2. A disabled port sends nothing: `ingress_disabled`.
//! 3. A source that is multicast or zero is no station: `bad_source`.
//! 4. 01:80:c2:00:00:00 to 0f stays on its link: `reserved_destination`.
//! 5. A tag is EtherType 0x8100, or 0x88a8 on a port with service tags, with a VLAN other than 0; with VLAN 0 it carries a
//!    priority and the frame counts as untagged. Its number is one on the wire: the port may translate it to a VLAN. A
//!    number that is not translated, but that another is translated to, stands for no VLAN. A tagged frame needs its port
//!    to be a member of the VLAN (`vlan_not_allowed`), an untagged one needs the port to have an access or native VLAN
//!    (`untagged_not_allowed`).
//! 6. What is behind the untagged Ethernet header may not be longer than the sending port's MTU (`ingress_mtu`), or 4 bytes
//!    more on a port with service tags; of a frame to be segmented, the longest segment counts.
//!    Then the guards of the port (the rules of [`guard`]); what they drop is not learned from.
//!    Then its connections, of ports that track them (the rules of [`connections`]): an invalid packet ends here, and what
//!    rule 8 lets go may still be refused. Then the rules of the way in (of [`rules`]), infrastructure's and the tenant's.
//!    Then its meters (the rules of [`meters`]); what they drop is learned from all the same.
//! 7. The source is learned on the port, unless learning is off, the address is static, or the port has as many as it
//!    may have. An address seen on another port moves there under the same conditions, unless it is sticky (learned on a
//!    port whose addresses stick) or frozen. With damping on, its moves are counted from the first one on; when the window
//!    has passed, they begin anew. If there were as many as are allowed, the next is none: the address is frozen.
//!    ARP requests and neighbour solicitations that the switch answers end here: `consumed`.
//! 8. Multicast, broadcast and unknown unicast go to all other enabled members of the VLAN; to none of them is
//!    `no_member`. Isolated ports do not reach isolated ports, and a port may be none of those that broadcast, multicast or
//!    unknown unicast goes to. A copy that the port's lists do not name, or that its guest does not want, is `filtered`.
//!    Known unicast goes to its port: if it is the sending one `same_port`, if it is no member of the VLAN `no_member`, if
//!    its list does not name it `filtered`, if both ports are isolated `isolated`, if it is disabled `egress_disabled`.
//! 9. Each copy that is too long for its port's MTU is dropped for itself: `egress_mtu`.
//! 10. A copy leaves tagged by a trunk, unless the VLAN is the native one, and untagged by an access port. A trunk does
//!     not carry a VLAN that has no number on its wire.
//! 11. The sending port says what a frame's priority is: by its tag, also one with VLAN 0, by its DSCP, or by default. Drop
//!     eligible is only what a tag that is believed says so of.
//! 12. The receiving port says which PCP goes into the tag, if there is one and no rule said it before, and which DSCP, if it
//!     writes one.

use std::collections::{BTreeMap, BTreeSet};

pub use connections::Tracking;
use connections::{Connections, State};
use guard::{Guard, Known, Sent};
use meters::{Meters, Place};
pub use priority::{Believes, Priority};
use rules::{Action, Asked, Charged, Hits, Rule, Verdict};

mod admit;
pub mod connections;
pub mod guard;
pub mod meters;
pub mod multicast;
mod priority;
pub mod rules;

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
    /// The tenant whose port it is.
    pub tenant: Option<u32>,
    /// Addresses learned here stick.
    pub sticky: bool,
    /// It does not talk to others of its kind.
    pub isolated: bool,
    /// Tags are 802.1ad.
    pub service_tags: bool,
    /// VLANs of the switch by their number on the wire; no VLAN twice.
    pub translation: BTreeMap<u16, u16>,
    /// Priorities.
    pub priority: Priority,
    /// Unknown unicast, multicast and broadcast are flooded here.
    pub flooded: [bool; 3],
    /// Unicast addresses and groups that may come here, if not all may.
    pub lists: [Option<BTreeSet<[u8; 6]>>; 2],
    /// What the guest's NIC takes of what is flooded, if it says so.
    pub guest: Option<Guest>,
    /// The guest may be promiscuous.
    pub trust: bool,
    /// Its packets are tracked.
    pub tracking: Option<Tracking>,
}

/// What a guest's NIC takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// Stations and groups.
    pub addresses: BTreeSet<[u8; 6]>,
    /// All unicast.
    pub promiscuous: bool,
    /// All groups.
    pub all_multicast: bool,
}

impl PortConfig {
    /// The VLAN that a number on the wire stands for.
    fn inward(&self, wire: u16) -> Option<u16> {
        match self.translation.get(&wire) {
            Some(vlan) => Some(*vlan),
            None if self.translation.values().any(|vlan| *vlan == wire) => None,
            None => Some(wire),
        }
    }

    /// The number of a VLAN on the wire.
    fn outward(&self, vlan: u16) -> Option<u16> {
        match self.translation.iter().find(|(_, to)| **to == vlan) {
            Some((wire, _)) => Some(*wire),
            None if self.translation.contains_key(&vlan) => None,
            None => Some(vlan),
        }
    }

    /// Whether the port carries a VLAN.
    pub fn carries(&self, vlan: u16) -> bool {
        let has_number = !self.vlan.leaves_tagged(vlan) || self.outward(vlan).is_some();
        self.vlan.is_member(vlan) && has_number
    }

    /// The longest payload behind an untagged Ethernet header.
    fn longest_payload(&self) -> usize {
        if self.service_tags { self.mtu + 4 } else { self.mtu }
    }

    /// Whether frames to this address are flooded to the port.
    fn is_flooded(&self, dst: [u8; 6]) -> bool {
        let [unicast, multicast, broadcast] = self.flooded;
        if dst == [0xff; 6] {
            broadcast
        } else if dst[0] & 1 == 1 {
            multicast
        } else {
            unicast
        }
    }

    /// Whether its lists name an address.
    fn lists_name(&self, dst: [u8; 6]) -> bool {
        let list = &self.lists[usize::from(dst[0] & 1)];
        dst == [0xff; 6] || list.as_ref().is_none_or(|list| list.contains(&dst))
    }

    /// Whether its guest wants a frame that is flooded.
    fn guest_wants(&self, dst: [u8; 6]) -> bool {
        let Some(guest) = &self.guest else { return true };
        let by_mode = if dst[0] & 1 == 1 { guest.all_multicast } else { guest.promiscuous && self.trust };
        dst == [0xff; 6] || by_mode || guest.addresses.contains(&dst)
    }
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
            tenant: None,
            sticky: false,
            isolated: false,
            service_tags: false,
            translation: BTreeMap::new(),
            priority: Priority::default(),
            flooded: [true; 3],
            lists: [None, None],
            guest: None,
            trust: false,
            tracking: None,
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
    /// When addresses that move are frozen.
    pub damping: Option<Damping>,
    /// The rules, in any order.
    pub rules: Vec<Rule>,
}

/// When addresses that move are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// Moves allowed in a window.
    pub moves: u64,
    /// Seconds from the first move on.
    pub window: u64,
    /// Seconds that an address stays frozen.
    pub hold: u64,
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
    /// It does not move.
    pub is_sticky: bool,
    /// Until when it does not move either.
    pub frozen_until: u64,
    /// Moves since when, and how many.
    pub moves: (u64, u64),
}

impl Entry {
    fn new(port: usize, is_static: bool, seen: u64) -> Entry {
        Entry { port, is_static, seen, is_sticky: false, frozen_until: 0, moves: (0, 0) }
    }
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
    freezes: u64,
    refusals: BTreeMap<(usize, &'static str), u64>,
    connections: Connections,
    hits: Hits,
    meters: Meters,
}

impl Switch {
    /// With an empty forwarding database.
    pub fn new(config: Config) -> Switch {
        let (fdb, known, connections) = (BTreeMap::new(), Known::default(), Connections::default());
        let mut switch = Switch {
            config,
            fdb,
            known,
            freezes: 0,
            refusals: BTreeMap::new(),
            connections,
            hits: Hits::new(),
            meters: Meters::default(),
        };
        switch.fix();
        switch
    }

    /// The meters; the configuration has none.
    pub fn meters(&mut self) -> &mut Meters {
        &mut self.meters
    }

    /// How often an address was frozen.
    pub fn freezes(&self) -> u64 {
        self.freezes
    }

    /// How often a source was not learned where it was seen, by port and cause.
    pub fn refusals(&self) -> &BTreeMap<(usize, &'static str), u64> {
        &self.refusals
    }

    /// The connections at a time.
    pub fn connections(&mut self, now: u64) -> &Connections {
        self.connections.pass(now);
        &self.connections
    }

    /// How many frames each rule decided on, by tenant and number.
    pub fn hits(&self) -> &Hits {
        &self.hits
    }

    /// Where a rule sends a frame, if it may.
    fn redirected(&self, tenant: u32, from: usize, to: usize, vlan: u16) -> Result<usize, &'static str> {
        let Some(port) = self.config.ports.get(to) else { return Err("rule_target") };
        if tenant != 0 && (port.tenant != Some(tenant) || !port.carries(vlan)) {
            return Err("rule_target");
        }
        if to == from { Err("same_port") } else { Ok(to) }
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
        let mut own = BTreeMap::new();
        for rule in &self.config.rules {
            let police = rule.actions.iter().filter_map(|action| match action {
                Action::Police(meter) => Some(*meter),
                _ => None,
            });
            let place = |nth: usize| Place::Rule(rule.tenant, rule.id, nth);
            own.extend(police.enumerate().map(|(nth, meter)| (place(nth), meter)));
        }
        self.meters.set_of_rules(&own);
    }

    /// What a rule charges a frame of so many bytes, with this DSCP, to.
    fn charge(meters: &mut Meters, charged: Charged, bytes: usize, dscp: Option<u8>) -> bool {
        let places = match charged {
            Charged::Named(number) => meters.chain(number),
            Charged::Own(tenant, id, nth) => vec![Place::Rule(tenant, id, nth)],
        };
        meters.pass(&places, bytes, dscp).is_ok()
    }

    /// What the guards know at a time.
    pub fn known(&mut self, now: u64) -> &Known {
        self.known.pass(now);
        &self.known
    }

    /// Makes a static entry, in the place of any other.
    pub fn add_static(&mut self, vlan: u16, mac: [u8; 6], port: usize) {
        self.fdb.insert((vlan, mac), Entry::new(port, true, 0));
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
        let mut refuse = |cause| *self.refusals.entry((port, cause)).or_default() += 1;
        match self.fdb.get_mut(&(vlan, mac)) {
            Some(entry) if entry.is_static && entry.port != port => refuse("static"),
            Some(entry) if entry.is_static => {}
            Some(entry) if entry.port == port => (entry.seen, entry.is_sticky) = (now, config.sticky),
            Some(entry) if entry.is_sticky => refuse("sticky"),
            Some(_) if !room => refuse("port_limit"),
            Some(entry) if now < entry.frozen_until => refuse("frozen"),
            Some(entry) => {
                if let Some(damping) = self.config.damping {
                    if now - entry.moves.0 >= damping.window {
                        entry.moves.1 = 0;
                    }
                    if entry.moves.1 >= damping.moves {
                        (entry.frozen_until, entry.moves.1) = (now + damping.hold, 0);
                        self.freezes += 1;
                        return refuse("frozen");
                    }
                }
                let since = if entry.moves.1 == 0 { now } else { entry.moves.0 };
                entry.moves = (since, entry.moves.1 + 1);
                (entry.port, entry.seen, entry.is_sticky) = (port, now, config.sticky);
            }
            None if room => {
                let entry = Entry { is_sticky: config.sticky, ..Entry::new(port, false, now) };
                self.fdb.insert((vlan, mac), entry);
            }
            None => refuse("port_limit"),
        }
    }

    /// The frame ends at the switch, and its answer goes back.
    fn answered(&self, port: usize, vlan: u16, answer: Vec<u8>) -> Outcome {
        let mut outcome = Outcome::refused("consumed");
        let Some(asker) = self.config.ports.get(port) else { return outcome };
        if answer.len() > asker.longest_payload() + 14 {
            outcome.dropped.push((port, "egress_mtu"));
            return outcome;
        }
        let tag_kind: u16 = if asker.service_tags { 0x88a8 } else { 0x8100 };
        let number = asker.outward(vlan).unwrap_or(0);
        let tag = [tag_kind.to_be_bytes(), number.to_be_bytes()].concat();
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
        let Some(ingress) = self.config.ports.get(port).cloned() else {
            return Outcome::refused("ingress_disabled");
        };
        let tag_kind = if ingress.service_tags { 0x88a8 } else { 0x8100 };
        let tci = match (ethertype == tag_kind, be16(frame, 14), be16(frame, 16)) {
            (false, _, _) => None,
            (true, Some(tci), Some(_)) => Some(tci),
            (true, _, _) => return Outcome::refused("runt"),
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
            Some(wire) if wire != 0 => match ingress.inward(wire).filter(|vid| ingress.carries(*vid)) {
                Some(vid) => vid,
                None => return Outcome::refused("vlan_not_allowed"),
            },
            _ => match ingress.vlan.untagged() {
                Some(vid) => vid,
                None => return Outcome::refused("untagged_not_allowed"),
            },
        };
        let tag_len = if tci.is_some() { 4 } else { 0 };
        let payload = longest.saturating_sub(tag_len + 14);
        if payload > ingress.longest_payload() {
            return Outcome::refused("ingress_mtu");
        }
        let sent = Sent {
            port,
            is_access: matches!(ingress.vlan, Vlan::Access(_)),
            has_service_tags: ingress.service_tags,
            vlan,
            now,
            frame,
        };
        self.known.pass(now);
        if let Err(reason) = self.known.check(&ingress.guard, &sent) {
            return Outcome::refused(reason);
        }
        self.connections.pass(now);
        let tracked = ingress.tracking.as_ref().map(|it| (it, self.connections.look(it.zone, frame)));
        if let Some((tracking, found)) = &tracked
            && found.state == State::Invalid
            && tracking.drop_invalid
        {
            return Outcome::refused("ct_invalid");
        }
        let mut asked = Asked::new(frame, port, vlan);
        asked.zone = ingress.tracking.as_ref().map(|it| it.zone);
        asked.seen = tracked.map(|(it, found)| found.seen(it.zone)).unwrap_or_default();
        // Meters are charged when all is decided, and have the first word on what becomes of the frame.
        let mut charges = Vec::new();
        let (mut redirect, mut refused) = (None, None);
        for tenant in [Some(0), ingress.tenant].into_iter().flatten() {
            match self.ask_later(&mut asked, (tenant, false), frame, &mut charges) {
                Verdict::Pass => {}
                Verdict::Drop(why) => refused = Some(why),
                Verdict::Redirect(to) => match self.redirected(tenant, port, to, asked.vlan) {
                    Ok(to) => redirect = redirect.or(Some(to)),
                    Err(why) => refused = Some(why),
                },
            }
            if refused.is_some() {
                break;
            }
        }
        let mut metered = self.settle(&mut charges);
        if let Some(why) = refused {
            return Outcome::refused(metered.unwrap_or(why));
        }
        let ((dst, src), vlan) = (asked.addresses(), asked.vlan);
        let tenant = ingress.tenant.map(Place::Tenant);
        let places: Vec<_> = [Some(Place::Ingress(port)), tenant].into_iter().flatten().collect();
        if metered.is_none() {
            match self.meters.pass(&places, asked.frame.len(), meters::dscp_of(&asked.frame)) {
                Err(()) => metered = Some("metered"),
                Ok(None) => {}
                Ok(Some(dscp)) => meters::set_dscp(&mut asked.frame, dscp),
            }
        }
        self.learn(vlan, src, port, now);
        let is_up = |port: usize| self.config.ports.get(port).is_some_and(|port| port.enabled);
        if let Some(answer) = self.known.answer(&ingress.guard, &sent, is_up) {
            return self.answered(port, vlan, answer);
        }
        let known = if dst[0] & 1 == 1 { None } else { self.fdb.get(&(vlan, dst)) };
        let is_flooded = known.is_none() && redirect.is_none();
        if is_flooded {
            let (kind, reason) = match dst {
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => (0, "storm_broadcast"),
                _ if dst[0] & 1 == 1 => (1, "storm_multicast"),
                _ => (2, "storm_unknown_unicast"),
            };
            let storm = [Place::Storm(port, kind)];
            if metered.is_none() && self.meters.pass(&storm, asked.frame.len(), None).is_err() {
                metered = Some(reason);
            }
        }
        let targets = match known {
            _ if redirect.is_some() => redirect.into_iter().collect(),
            Some(entry) if entry.port == port => return Outcome::refused(metered.unwrap_or("same_port")),
            Some(entry) => match self.config.ports.get(entry.port) {
                Some(target) if !target.carries(vlan) => {
                    return Outcome::refused(metered.unwrap_or("no_member"));
                }
                Some(target) if !target.lists_name(dst) => {
                    return Outcome::refused(metered.unwrap_or("filtered"));
                }
                Some(target) if target.isolated && ingress.isolated => {
                    return Outcome::refused(metered.unwrap_or("isolated"));
                }
                Some(target) if !target.enabled => {
                    return Outcome::refused(metered.unwrap_or("egress_disabled"));
                }
                Some(_) => vec![entry.port],
                None => return Outcome::refused(metered.unwrap_or("no_member")),
            },
            None => {
                let ports = self.config.ports.iter().enumerate();
                let is_reached = |other: &PortConfig| {
                    let apart = other.isolated && ingress.isolated;
                    other.enabled && other.carries(vlan) && !apart && other.is_flooded(dst)
                };
                let others = ports.filter(|(i, other)| *i != port && is_reached(other));
                let others: Vec<usize> = others.map(|(i, _)| i).collect();
                if others.is_empty() {
                    return Outcome::refused(metered.unwrap_or("no_member"));
                }
                others
            }
        };
        if !is_flooded {
            let Some(target) = targets.first().copied() else { return Outcome::default() };
            let decided = self.decide_out((port, &ingress, frame), &mut asked, target, &mut charges, now);
            let metered = metered.or_else(|| self.settle(&mut charges));
            return match (metered, decided) {
                (_, Err("unsure")) => Outcome::refused("unsure"),
                (Some(why), _) | (None, Err(why)) => Outcome::refused(why),
                (None, Ok(target)) => {
                    let mut outcome = Outcome::default();
                    self.leave((&ingress, tci), &asked, target, payload, &mut outcome);
                    outcome
                }
            };
        }
        let seen = match self.admit((port, &ingress, frame), &mut asked, None, now) {
            Ok(()) => asked.frame.clone(),
            Err("unsure") => return Outcome::refused("unsure"),
            Err(why) => return Outcome::refused(metered.unwrap_or(why)),
        };
        if let Some(why) = metered {
            return Outcome::refused(why);
        }
        let mut outcome = Outcome::default();
        for target in targets {
            let Some(egress) = self.config.ports.get(target).cloned() else { continue };
            if !(egress.lists_name(dst) && egress.guest_wants(dst)) {
                outcome.dropped.push((target, "filtered"));
                continue;
            }
            let mut asked = Asked { egress: Some(target), seen: rules::Seen::default(), ..asked.clone() };
            if let Some(tracking) = &egress.tracking {
                let found = self.connections.look(tracking.zone, &seen);
                if !tracking.takes(found.state, &seen) {
                    outcome.dropped.push((target, "ct_unsolicited"));
                    continue;
                }
                asked.seen = found.seen(tracking.zone);
            }
            match self.ask_now(&mut asked, (port, target, egress.tenant), vlan) {
                Ok(target) => self.leave((&ingress, tci), &asked, target, payload, &mut outcome),
                Err(why) => outcome.dropped.push((target, why)),
            }
        }
        outcome
    }

    /// A copy leaves by a port, or does not; `payload`: bytes behind the untagged Ethernet header.
    fn leave(
        &mut self,
        (ingress, tci): (&PortConfig, Option<u16>),
        asked: &Asked,
        target: usize,
        payload: usize,
        outcome: &mut Outcome,
    ) {
        let Some(egress) = self.config.ports.get(target) else { return };
        if !egress.enabled {
            return outcome.dropped.push((target, "egress_disabled"));
        }
        let (frame, tag_len) = (&asked.frame, if tci.is_some() { 4 } else { 0 });
        let bytes = frame.len() - tag_len;
        if self.meters.pass(&[Place::Egress(target)], bytes, meters::dscp_of(frame)).is_err() {
            return outcome.dropped.push((target, "metered"));
        }
        let (priority, drop_eligible) = priority::of(frame, tci, &ingress.priority);
        if payload > egress.longest_payload() {
            return outcome.dropped.push((target, "egress_mtu"));
        }
        let mut copy = frame[..12].to_vec();
        let leaves_tagged = egress.vlan.leaves_tagged(asked.vlan);
        if leaves_tagged {
            let tag_kind: u16 = if egress.service_tags { 0x88a8 } else { 0x8100 };
            let pcp = u16::from(asked.pcp.unwrap_or(egress.priority.to_pcp[usize::from(priority)]));
            let number = egress.outward(asked.vlan).unwrap_or(0);
            copy.extend_from_slice(&tag_kind.to_be_bytes());
            copy.extend_from_slice(&(pcp << 13 | u16::from(drop_eligible) << 12 | number).to_be_bytes());
        }
        copy.extend_from_slice(&frame[12 + tag_len..]);
        priority::write_dscp(&mut copy, leaves_tagged, priority, &egress.priority);
        outcome.delivered.push((target, copy));
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
