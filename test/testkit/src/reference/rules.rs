//! Rules in the reference switch: asked one after the other, on bytes.
//!
//! All rules are in one list. Those of the infrastructure (tenant 0) and of the tenant of a port are asked by priority, then
//! by number, each from its first match to its last. What is set is written into the frame at once, and its checksums are
//! summed up anew.

use std::collections::BTreeMap;

use super::{be16, connections::Nat, mac, meters::Meter};

/// How many frames each rule decided on, by tenant and number.
pub type Hits = BTreeMap<(u32, u64), u64>;

/// Something that a rule can read, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Field {
    Ingress,
    Egress,
    Vlan,
    Mark,
    DstMac,
    SrcMac,
    EtherType,
    Tagged,
    TagVid,
    TagPcp,
    InnerVid,
    Protocol,
    Src4,
    Dst4,
    Src6,
    Dst6,
    Tos,
    Ttl,
    /// 0: none, 1: first, 2: later.
    Fragment,
    SrcPort,
    DstPort,
    TcpFlags,
    IcmpType,
    IcmpCode,
    /// The bits of [`super::connections::State`]'s words.
    CtState,
    CtZone,
    CtMark,
    ArpOperation,
    ArpSender,
    ArpTarget,
    NdTarget,
}

/// The field is there, and after masking between two numbers, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which.
    pub field: Field,
    /// Bits that count.
    pub mask: u128,
    /// The least.
    pub min: u128,
    /// The most.
    pub max: u128,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action {
    Drop,
    Pass,
    Redirect(usize),
    Goto(u8),
    Continue,
    Mark(u32),
    SetDstMac([u8; 6]),
    SetSrcMac([u8; 6]),
    SetVlan(u16),
    SetPcp(u8),
    SetSrc4([u8; 4]),
    SetDst4([u8; 4]),
    SetDst6([u8; 16]),
    SetTos(u8),
    DecTtl,
    SetSrcPort(u16),
    SetDstPort(u16),
    /// The meter of this number, and those over it.
    Meter(usize),
    /// A meter of the rule's own.
    Police(Meter),
    Ct(Ct),
}

/// What a rule says of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ct {
    /// The zone that the packet is looked up in.
    pub zone: Option<u16>,
    /// It makes a connection.
    pub commit: bool,
    /// The connection's mark.
    pub mark: Option<u32>,
    /// How it is translated.
    pub nat: Option<Nat>,
}

/// What rules see of a packet's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The bits; none: it is no matter of connections.
    pub bits: u8,
    /// The zone.
    pub zone: u16,
    /// The connection's mark.
    pub mark: u32,
}

/// A meter that a rule charges a frame to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// By its number, with those over it.
    Named(usize),
    /// The so manieth of the rule's own, by tenant and number.
    Own(u32, u64, usize),
}

/// What rules ask while they are asked.
pub struct Aside<'a> {
    /// What the packet is in a zone.
    pub look: &'a dyn Fn(u16) -> Seen,
    /// Whether a meter lets the frame go on.
    pub charge: &'a mut dyn FnMut(Charged, &[u8]) -> bool,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub id: u64,
    /// Whose; 0 is the infrastructure.
    pub tenant: u32,
    /// Behind forwarding.
    pub out: bool,
    /// Its group.
    pub group: u8,
    /// The lowest first.
    pub priority: u32,
    /// It matches if all keys of one of these hold.
    pub any: Vec<Vec<Key>>,
    /// In order.
    pub actions: Vec<Action>,
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As it is now.
    pub frame: Vec<u8>,
    /// Where it came from.
    pub ingress: usize,
    /// Where it leaves, if that is known.
    pub egress: Option<usize>,
    /// Its VLAN.
    pub vlan: u16,
    /// Its mark.
    pub mark: u32,
    /// The tag it came with, of whatever kind, and that behind it.
    pub tags: Vec<u16>,
    /// The priority that its tag leaves with, if a rule said so.
    pub pcp: Option<u8>,
    /// The zone that it is looked up in, if any.
    pub zone: Option<u16>,
    /// A rule said which, not the port.
    pub other_zone: bool,
    /// What it is there.
    pub seen: Seen,
    /// What is to become of its connection.
    pub commit: Option<Ct>,
}

/// What rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go.
    Pass,
    /// It may not, and why.
    Drop(&'static str),
    /// It goes there.
    Redirect(usize),
}

/// Where the packet begins, and its EtherType, behind up to two tags.
fn packet(frame: &[u8]) -> Option<(usize, u16, Vec<u16>)> {
    let (mut at, mut kind, mut tags) = (14, be16(frame, 12)?, Vec::new());
    while matches!(kind, 0x8100 | 0x88a8 | 0x9100) && tags.len() < 2 {
        tags.push(be16(frame, at)?);
        kind = be16(frame, at + 2)?;
        at += 4;
    }
    Some((at, kind, tags))
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn part(frame: &[u8], at: usize, len: usize) -> Option<u128> {
    frame.get(at..at + len).map(number)
}

/// Of an IP packet: version, where its payload begins, protocol, fragment (0, 1, 2).
fn ip(frame: &[u8], at: usize, kind: u16) -> Option<(u8, usize, u8, u8)> {
    match kind {
        0x0800 if frame.len() >= at + 20 && frame[at] >> 4 == 4 && frame[at] & 15 >= 5 => {
            let bits = be16(frame, at + 6)?;
            let fragment = if bits & 0x1fff != 0 { 2 } else { u8::from(bits & 0x2000 != 0) };
            Some((4, at + usize::from(frame[at] & 15) * 4, frame[at + 9], fragment))
        }
        // Extension headers are for other tests.
        0x86dd if frame.len() >= at + 40 && frame[at] >> 4 == 6 => Some((6, at + 40, frame[at + 6], 0)),
        _ => None,
    }
}

impl Asked {
    fn read(&self, field: Field) -> Option<u128> {
        let frame = &self.frame;
        let (at, kind, _) = packet(frame)?;
        let ip = ip(frame, at, kind);
        let of = |version: u8, offset: usize, len: usize| {
            ip.filter(|ip| ip.0 == version).and_then(|_| part(frame, at + offset, len))
        };
        let l4 = |protocols: &[u8], offset: usize, len: usize| {
            let (_, l4, protocol, fragment) = ip?;
            // As much as there must be to tell the ports.
            let there = fragment != 2 && frame.len() >= l4 + if matches!(protocol, 1 | 58) { 2 } else { 4 };
            if protocols.contains(&protocol) && there { part(frame, l4 + offset, len) } else { None }
        };
        let arp = |offset: usize, len: usize| {
            let head = [0, 1, 8, 0, 6, 4];
            let is = kind == 0x0806 && frame.len() >= at + 28 && frame[at..at + 6] == head;
            if is { part(frame, at + offset, len) } else { None }
        };
        let tag = |place: usize| self.tags.get(place).map(|tci| u128::from(*tci));
        match field {
            Field::Ingress => Some(self.ingress as u128),
            Field::Egress => self.egress.map(|port| port as u128),
            Field::Vlan => Some(self.vlan.into()),
            Field::Mark => Some(self.mark.into()),
            Field::DstMac => part(frame, 0, 6),
            Field::SrcMac => part(frame, 6, 6),
            Field::EtherType => Some(kind.into()),
            Field::Tagged => Some(u128::from(!self.tags.is_empty())),
            Field::TagVid => tag(0).map(|tci| tci & 0xfff),
            Field::TagPcp => tag(0).map(|tci| tci >> 13),
            Field::InnerVid => tag(1).map(|tci| tci & 0xfff),
            Field::Protocol => ip.map(|ip| ip.2.into()),
            Field::Src4 => of(4, 12, 4),
            Field::Dst4 => of(4, 16, 4),
            Field::Src6 => of(6, 8, 16),
            Field::Dst6 => of(6, 24, 16),
            Field::Tos => of(4, 1, 1).or_else(|| of(6, 0, 2).map(|word| word >> 4 & 0xff)),
            Field::Ttl => of(4, 8, 1).or_else(|| of(6, 7, 1)),
            Field::Fragment => ip.map(|ip| ip.3.into()),
            Field::SrcPort => l4(&[6, 17, 132], 0, 2),
            Field::DstPort => l4(&[6, 17, 132], 2, 2),
            Field::TcpFlags => l4(&[6], 13, 1),
            Field::IcmpType => l4(&[1, 58], 0, 1),
            Field::IcmpCode => l4(&[1, 58], 1, 1),
            Field::CtState => (self.seen.bits != 0).then_some(self.seen.bits.into()),
            Field::CtZone => (self.seen.bits != 0).then_some(self.seen.zone.into()),
            Field::CtMark => (self.seen.bits != 0).then_some(self.seen.mark.into()),
            Field::ArpOperation => arp(6, 2),
            Field::ArpSender => arp(14, 4),
            Field::ArpTarget => arp(24, 4),
            Field::NdTarget => {
                let kind = l4(&[58], 0, 1)?;
                if matches!(kind, 135 | 136) { l4(&[58], 8, 16) } else { None }
            }
        }
    }

    fn matches(&self, rule: &Rule) -> bool {
        let holds = |key: &Key| {
            self.read(key.field).is_some_and(|value| (key.min..=key.max).contains(&(value & key.mask)))
        };
        rule.any.iter().any(|keys| keys.iter().all(holds))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.frame[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes a field of the packet, if it has it, and sums up its checksums anew.
    fn set(&mut self, action: Action) {
        match action {
            Action::SetDstMac(mac) => return self.put(0, &mac),
            Action::SetSrcMac(mac) => return self.put(6, &mac),
            Action::SetVlan(vlan) => {
                self.vlan = vlan;
                return;
            }
            Action::SetPcp(pcp) => {
                self.pcp = Some(pcp);
                return;
            }
            _ => {}
        }
        let Some((at, kind, _)) = packet(&self.frame) else { return };
        let Some((version, l4, protocol, fragment)) = ip(&self.frame, at, kind) else { return };
        let has_ports = matches!(protocol, 6 | 17) && fragment != 2 && self.frame.len() >= l4 + 4;
        match (action, version) {
            (Action::SetSrc4(ip), 4) => self.put(at + 12, &ip),
            (Action::SetDst4(ip), 4) => self.put(at + 16, &ip),
            (Action::SetDst6(ip), 6) => self.put(at + 24, &ip),
            (Action::SetTos(tos), 4) => self.put(at + 1, &[tos]),
            (Action::SetTos(tos), 6) => {
                let (first, second) = (self.frame[at], self.frame[at + 1]);
                self.put(at, &[first & 0xf0 | tos >> 4, second & 15 | tos << 4]);
            }
            (Action::DecTtl, 4) => self.frame[at + 8] -= 1,
            (Action::DecTtl, 6) => self.frame[at + 7] -= 1,
            (Action::SetSrcPort(port), _) if has_ports => self.put(l4, &port.to_be_bytes()),
            (Action::SetDstPort(port), _) if has_ports => self.put(l4 + 2, &port.to_be_bytes()),
            _ => return,
        }
        self.sum_up(at, version, l4, protocol, fragment);
    }

    fn sum_up(&mut self, at: usize, version: u8, l4: usize, protocol: u8, fragment: u8) {
        let sum = |bytes: &[u8]| {
            bytes
                .chunks(2)
                .map(|two| u64::from(two[0]) << 8 | u64::from(*two.get(1).unwrap_or(&0)))
                .sum::<u64>()
        };
        let fold = |mut sum: u64| {
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            !(sum as u16)
        };
        if version == 4 {
            self.put(at + 10, &[0, 0]);
            let header = fold(sum(&self.frame[at..l4]));
            self.put(at + 10, &header.to_be_bytes());
        }
        let field = match protocol {
            6 => l4 + 16,
            17 => l4 + 6,
            58 => l4 + 2,
            _ => return,
        };
        let payload = match version {
            4 => usize::from(be16(&self.frame, at + 2).unwrap_or(0)) + at,
            _ => usize::from(be16(&self.frame, at + 4).unwrap_or(0)) + l4,
        };
        // Of what is fragmented, the sum of the whole is not known here.
        if fragment != 0 || field + 2 > payload || payload > self.frame.len() {
            return;
        }
        if protocol == 17 && be16(&self.frame, field) == Some(0) {
            return;
        }
        self.put(field, &[0, 0]);
        let addresses = if version == 4 { at + 12..at + 20 } else { at + 8..at + 40 };
        let pseudo = sum(&self.frame[addresses]) + u64::from(protocol) + (payload - l4) as u64;
        let whole = fold(pseudo + sum(&self.frame[l4..payload]));
        let whole = if protocol == 17 && whole == 0 { 0xffff } else { whole };
        self.put(field, &whole.to_be_bytes());
    }

    /// Asks the rules of one tenant, or of the infrastructure, on one side. `hits` counts each rule that decides.
    pub fn ask(
        &mut self,
        rules: &[Rule],
        (tenant, out): (u32, bool),
        hits: &mut Hits,
        aside: &mut Aside<'_>,
    ) -> Verdict {
        let mut mine: Vec<&Rule> =
            rules.iter().filter(|rule| rule.tenant == tenant && rule.out == out).collect();
        mine.sort_by_key(|rule| (rule.priority, rule.id));
        let why = if tenant == 0 { "rule_infrastructure" } else { "rule_tenant" };
        let (mut group, mut from) = (0, 0);
        for _ in 0..256 {
            let next = mine
                .iter()
                .enumerate()
                .skip(from)
                .find(|(_, rule)| rule.group == group && self.matches(rule));
            let Some((place, rule)) = next else { return Verdict::Pass };
            *hits.entry((rule.tenant, rule.id)).or_default() += 1;
            let (mut on, mut own) = (None, 0);
            for action in &rule.actions {
                match *action {
                    Action::Drop => return Verdict::Drop(why),
                    Action::Pass => return Verdict::Pass,
                    Action::Redirect(port) => return Verdict::Redirect(port),
                    Action::Goto(to) => on = Some((to, 0)),
                    Action::Continue => on = Some((group, place + 1)),
                    Action::Mark(mark) => self.mark = mark,
                    Action::Meter(number) => {
                        if !(aside.charge)(Charged::Named(number), &self.frame) {
                            return Verdict::Drop("metered");
                        }
                    }
                    Action::Police(_) => {
                        if !(aside.charge)(Charged::Own(rule.tenant, rule.id, own), &self.frame) {
                            return Verdict::Drop("metered");
                        }
                        own += 1;
                    }
                    Action::Ct(ct) => self.track(&ct, aside.look),
                    Action::DecTtl if self.read(Field::Ttl).is_some_and(|ttl| ttl <= 1) => {
                        return Verdict::Drop("ttl_exceeded");
                    }
                    other => self.set(other),
                }
            }
            match on {
                Some(there) => (group, from) = there,
                None => return Verdict::Pass,
            }
        }
        Verdict::Drop(why)
    }

    /// Looks the packet up in the zone that a rule says, and keeps what it says of the connection.
    fn track(&mut self, ct: &Ct, look: &dyn Fn(u16) -> Seen) {
        let zone = ct.zone.or(self.zone).unwrap_or(0);
        if self.zone != Some(zone) {
            (self.zone, self.other_zone, self.commit, self.seen) = (Some(zone), true, None, look(zone));
        }
        if ct.commit {
            self.commit = Some(*ct);
        }
    }

    /// Gives an IPv4 packet other addresses and ports, or another identifier of ICMP echo.
    pub(super) fn readdress(&mut self, (src, src_port): ([u8; 4], u16), (dst, dst_port): ([u8; 4], u16)) {
        let Some((at, kind, _)) = packet(&self.frame) else { return };
        let Some((4, l4, protocol, fragment)) = ip(&self.frame, at, kind) else { return };
        self.put(at + 12, &src);
        self.put(at + 16, &dst);
        if matches!(protocol, 6 | 17) {
            self.put(l4, &src_port.to_be_bytes());
            self.put(l4 + 2, &dst_port.to_be_bytes());
        }
        self.sum_up(at, 4, l4, protocol, fragment);
    }

    /// A frame that has just come in.
    pub fn new(frame: &[u8], ingress: usize, vlan: u16) -> Asked {
        let tags = packet(frame).map(|(_, _, tags)| tags).unwrap_or_default();
        Asked {
            frame: frame.to_vec(),
            ingress,
            egress: None,
            vlan,
            mark: 0,
            tags,
            pcp: None,
            zone: None,
            other_zone: false,
            seen: Seen::default(),
            commit: None,
        }
    }

    /// Its addresses now: destination, source.
    pub fn addresses(&self) -> ([u8; 6], [u8; 6]) {
        (mac(&self.frame, 0).unwrap_or_default(), mac(&self.frame, 6).unwrap_or_default())
    }
}
