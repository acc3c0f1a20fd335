//! Random rules, given to `tc flower` at the ports of a bridge and to the switch, and random packets: where each goes, and
//! its bytes.
//!
//! ```text
//!   port 0 --> rules of direction in --> bridge, static entries --+--> rules of direction out --> port 1, port 2
//!              drop, pass, continue, goto, set,    |              '--------------------------> port 3
//!              redirect to 1, 2, 3 ----------------'                     copies ---------------^
//! ```
//!
//! Rules say only what both can say; what the two understand differently by the same words is told in
//! docs/switch-oracle.md, and left out here by construction:
//!
//! * keys of L4 come with `ip_flags nofrag`: flower does not look for ports in a first fragment;
//! * what changes addresses and ports is asked of whole packets only: `act_csum` writes a first fragment a checksum of its
//!   own bytes;
//! * nothing of the IP header is set behind two tags: `act_pedit` counts from the inner tag there;
//! * rules behind a change of the VLAN ask for addresses only, and copy nothing: the switch's keys and copies are of the
//!   tag as it came, because a tag is written when a frame leaves.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use fabnic_switch::{
    Action, Change, Direction, Domain, Fragmented, Match, MirrorSettings, Policy, RuleId, RuleSpec, Set,
    SwitchConfig, Term, prefix4, prefix6,
};
use fabnic_wire::{EtherType, IpProtocol, MacAddr, Vid};
use proptest::prelude::*;

use crate::dice::{Dice, bytes};
use crate::packets::{PRIORITIES, Tags, Theme, frame, ip4, ip6, port, station};
use crate::tc::Filters;
use crate::verdict::{Verdict, compare, same};
use crate::vlans::settings;
use crate::{Bridge, BridgePort, Fabric, Filtering, Inside};

/// Port 0 sends, 1 and 2 have rules on the way out, 3 gets copies too.
const PORTS: usize = 4;
const MIRROR: &str = "copies";

/// A rule in both languages.
#[derive(Clone, Debug, Default)]
struct Rule {
    /// Of direction out, of this port; else of direction in, of port 0.
    out: Option<u8>,
    group: u8,
    /// The words of flower, in their order.
    protocol: String,
    keys: String,
    terms: Vec<Term>,
    actions: String,
    own: Vec<Action>,
}

/// What of a frame a rule speaks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Layer3 {
    #[default]
    Any,
    V4,
    V6,
    Arp,
}

/// One random configuration.
#[derive(Clone, Copy, Debug)]
struct Shape {
    tags: Tags,
    /// Rules change the VLAN.
    retag: bool,
    theme: Theme,
}

impl Rule {
    fn key(&mut self, words: &str, term: Term) {
        self.keys.push(' ');
        self.keys.push_str(words);
        self.terms.push(term);
    }

    fn new(dice: &mut Dice<'_>, shape: Shape) -> Rule {
        let mut rule = Rule::default();
        let shape = Shape { theme: shape.theme.vary(dice), ..shape };
        if dice.chance(2) {
            rule.out = Some(1 + dice.below(2));
        } else {
            rule.group = if dice.chance(2) { 1 + dice.below(2) } else { 0 };
        }
        // Behind a change of the VLAN, only addresses.
        let blind = shape.retag && (rule.out.is_some() || rule.group > 0);
        let (tagged, layer3) = rule.ether(dice, shape, blind);
        rule.addresses(dice);
        let whole = rule.network(dice, layer3);
        let protocol = if whole { rule.transport(dice, shape.theme.protocol) } else { 0 };
        rule.sets(dice, shape, layer3, whole, protocol);
        rule.end(dice, shape, tagged);
        rule
    }

    /// Tags and EtherType. Gives whether there is a tag for sure, and what follows.
    fn ether(&mut self, dice: &mut Dice<'_>, shape: Shape, blind: bool) -> (Option<bool>, Layer3) {
        if blind || dice.chance(1) {
            self.protocol = "all".to_owned();
            return (None, Layer3::Any);
        }
        let tagged = shape.theme.tagged;
        let (layer3, word, ether) = match dice.below(12) {
            0..11 if shape.theme.v6 => (Layer3::V6, "ipv6", EtherType::IPV6),
            0..11 => (Layer3::V4, "ip", EtherType::IPV4),
            _ => (Layer3::Arp, "arp", EtherType::ARP),
        };
        self.terms.push(Term::Tagged(tagged));
        if !tagged {
            self.protocol = word.to_owned();
            self.terms.push(Term::EtherType(ether));
            return (Some(false), layer3);
        }
        self.protocol = "802.1Q".to_owned();
        if dice.chance(2) {
            let vid = u16::from(2 + dice.below(3));
            self.key(&format!("vlan_id {vid}"), Term::TagVid(vid));
        }
        if dice.chance(2) {
            let pcp = dice.of(&PRIORITIES);
            self.key(&format!("vlan_prio {pcp}"), Term::TagPcp(pcp));
        }
        if shape.tags == Tags::One {
            // Without a word of what follows, a rule about tags alone.
            if dice.chance(1) {
                return (Some(true), Layer3::Any);
            }
            self.key(&format!("vlan_ethtype {word}"), Term::EtherType(ether));
            return (Some(true), layer3);
        }
        self.keys.push_str(" vlan_ethtype 802.1Q");
        if dice.chance(3) {
            let vid = u16::from(1 + dice.below(3));
            self.key(&format!("cvlan_id {vid}"), Term::InnerVid(vid));
        }
        if dice.chance(2) {
            let pcp = dice.of(&PRIORITIES);
            self.key(&format!("cvlan_prio {pcp}"), Term::InnerPcp(pcp));
        }
        self.key(&format!("cvlan_ethtype {word}"), Term::EtherType(ether));
        (Some(true), layer3)
    }

    fn addresses(&mut self, dice: &mut Dice<'_>) {
        const MASKS: [[u8; 6]; 3] = [[0xff; 6], [0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], [1, 0, 0, 0, 0, 0]];
        for name in ["dst_mac", "src_mac"] {
            if !dice.chance(1) {
                continue;
            }
            let (value, mask) = (MacAddr::new(station(dice.below(5))), MacAddr::new(dice.of(&MASKS)));
            let term = match name {
                "dst_mac" => Term::DstMac { value, mask },
                _ => Term::SrcMac { value, mask },
            };
            self.key(&format!("{name} {value}/{mask}"), term);
        }
    }

    /// Gives whether it matches whole packets only, in whose L4 header more can be asked for.
    fn network(&mut self, dice: &mut Dice<'_>, layer3: Layer3) -> bool {
        match layer3 {
            Layer3::Any => return false,
            Layer3::Arp => {
                self.arp(dice);
                return false;
            }
            Layer3::V4 | Layer3::V6 => {}
        }
        for name in ["src_ip", "dst_ip"] {
            if !dice.chance(1) {
                continue;
            }
            let n = dice.below(5);
            if layer3 == Layer3::V4 {
                let (value, prefix) = (ip4(n), 20 + dice.below(13));
                let mask = prefix4(prefix);
                let term = match name {
                    "src_ip" => Term::SrcIp4 { value, mask },
                    _ => Term::DstIp4 { value, mask },
                };
                self.key(&format!("{name} {}/{prefix}", core::net::Ipv4Addr::from(value)), term);
            } else {
                let (value, prefix) = (ip6(n), 50 + dice.below(79));
                let mask = prefix6(prefix);
                let term = match name {
                    "src_ip" => Term::SrcIp6 { value, mask },
                    _ => Term::DstIp6 { value, mask },
                };
                self.key(&format!("{name} {}/{prefix}", core::net::Ipv6Addr::from(value)), term);
            }
        }
        if dice.chance(1) {
            let (value, mask) = (dice.of(&[0_u8, 0x28, 0x2e]), dice.of(&[0xff_u8, 0xfc, 0x0f]));
            let value = value & mask;
            self.key(&format!("ip_tos {value:#x}/{mask:#x}"), Term::Tos { value, mask });
        }
        if dice.chance(1) {
            let ttl = dice.of(&[64_u8, 1, 255]);
            self.key(&format!("ip_ttl {ttl}"), Term::Ttl { min: ttl, max: ttl });
        }
        match dice.below(8) {
            0..5 => self.key("ip_flags nofrag", Term::Fragment(Fragmented::No)),
            5 => self.key("ip_flags frag", Term::Fragment(Fragmented::Any)),
            6 => self.key("ip_flags frag/firstfrag", Term::Fragment(Fragmented::First)),
            _ => return false,
        }
        self.terms.contains(&Term::Fragment(Fragmented::No))
    }

    fn arp(&mut self, dice: &mut Dice<'_>) {
        if dice.chance(4) {
            let operation = 1 + dice.below(2);
            let word = if operation == 1 { "request" } else { "reply" };
            self.key(&format!("arp_op {word}"), Term::ArpOperation(operation.into()));
        }
        for name in ["arp_sip", "arp_tip"] {
            if !dice.chance(3) {
                continue;
            }
            let (value, prefix) = (ip4(dice.below(5)), 20 + dice.below(13));
            let mask = prefix4(prefix);
            let term = match name {
                "arp_sip" => Term::ArpSenderIp { value, mask },
                _ => Term::ArpTargetIp { value, mask },
            };
            self.key(&format!("{name} {}/{prefix}", core::net::Ipv4Addr::from(value)), term);
        }
        if dice.chance(2) {
            let value = MacAddr::new(station(dice.below(5)));
            let term = Term::ArpSenderMac { value, mask: MacAddr::BROADCAST };
            self.key(&format!("arp_sha {value}"), term);
        }
    }

    /// Gives the protocol that is asked for, or 0.
    fn transport(&mut self, dice: &mut Dice<'_>, protocol: u8) -> u8 {
        if dice.chance(1) {
            return 0;
        }
        let word = match protocol {
            6 => "tcp",
            17 => "udp",
            1 => "icmp",
            _ => "icmpv6",
        };
        self.key(&format!("ip_proto {word}"), Term::Protocol(IpProtocol(protocol)));
        if matches!(protocol, 1 | 58) {
            let kind = if protocol == 1 { dice.of(&[8_u8, 0, 3]) } else { dice.of(&[128_u8, 129, 1]) };
            if dice.chance(4) {
                self.key(&format!("type {kind}"), Term::IcmpType { min: kind, max: kind });
            }
            if dice.chance(3) {
                let code = dice.below(2);
                self.key(&format!("code {code}"), Term::IcmpCode { min: code, max: code });
            }
            return protocol;
        }
        for name in ["src_port", "dst_port"] {
            if !dice.chance(2) {
                continue;
            }
            let min = port(dice.below(4));
            let max = min + if dice.chance(5) { 1 + u16::from(dice.below(3)) } else { 0 };
            let word = if min == max { format!("{name} {min}") } else { format!("{name} {min}-{max}") };
            self.key(
                &word,
                if name == "src_port" { Term::SrcPort { min, max } } else { Term::DstPort { min, max } },
            );
        }
        if protocol == 6 && dice.chance(2) {
            let mask = dice.of(&[0x02_u8, 0x12, 0x3f, 0x05]);
            let value = dice.byte() & mask;
            self.key(&format!("tcp_flags {value:#x}/{mask:#x}"), Term::TcpFlags { value, mask });
        }
        protocol
    }

    fn act(&mut self, words: &str, action: Action) {
        write!(self.actions, " action {words}").ok();
        self.own.push(action);
    }

    fn set(&mut self, munge: &str, csum: &str, set: Set) {
        self.act(&format!("pedit ex munge {munge} pipe"), Action::Set(set));
        if !csum.is_empty() {
            write!(self.actions, " action csum {csum} pipe").ok();
        }
    }

    fn sets(&mut self, dice: &mut Dice<'_>, shape: Shape, layer3: Layer3, whole: bool, protocol: u8) {
        for _ in 0..dice.below(3) {
            let inside = shape.tags == Tags::One && matches!(layer3, Layer3::V4 | Layer3::V6);
            let v4 = layer3 == Layer3::V4;
            let (ip, sums) =
                if v4 { ("ip", "ip and tcp and udp and icmp") } else { ("ip6", "tcp and udp and icmp") };
            match dice.below(8) {
                0 if !inside || dice.chance(2) => {
                    let mac = MacAddr::new(station(dice.below(5)));
                    self.set(&format!("eth dst set {mac}"), "", Set::DstMac(mac));
                }
                1 if !inside || dice.chance(2) => {
                    let mac = MacAddr::new(station(dice.below(5)));
                    self.set(&format!("eth src set {mac}"), "", Set::SrcMac(mac));
                }
                2 | 3 if inside && whole => {
                    let (side, n) = (dice.of(&["src", "dst"]), dice.below(5));
                    let (address, set) = if v4 {
                        let set = if side == "src" { Set::SrcIp4(ip4(n)) } else { Set::DstIp4(ip4(n)) };
                        (core::net::Ipv4Addr::from(ip4(n)).to_string(), set)
                    } else {
                        let set = if side == "src" { Set::SrcIp6(ip6(n)) } else { Set::DstIp6(ip6(n)) };
                        (core::net::Ipv6Addr::from(ip6(n)).to_string(), set)
                    };
                    self.set(&format!("{ip} {side} set {address}"), sums, set);
                }
                4 | 5 if inside && matches!(protocol, 6 | 17) => {
                    let number = port(dice.below(6));
                    let (side, set) = dice_port(dice.chance(4), number);
                    let l4 = if protocol == 6 { "tcp" } else { "udp" };
                    self.set(&format!("{l4} {side} set {number}"), l4, set);
                }
                6 if inside => {
                    let (value, mask) = (dice.of(&[0x28_u8, 0, 0xff]), dice.of(&[0xff_u8, 0xfc]));
                    let value = value & mask;
                    let field = if v4 { "tos" } else { "traffic_class" };
                    let csum = if v4 { "ip" } else { "" };
                    self.set(
                        &format!("{ip} {field} set {value:#x} retain {mask:#x}"),
                        csum,
                        Set::Tos { value, mask },
                    );
                }
                7 if inside => self.set_ttl(dice, ip, v4),
                _ => {}
            }
        }
    }

    fn set_ttl(&mut self, dice: &mut Dice<'_>, ip: &str, v4: bool) {
        let (field, csum) = if v4 { ("ttl", "ip") } else { ("hoplimit", "") };
        // One that ends is dropped by the switch, and 255 for pedit.
        let certain = self.terms.iter().any(|term| matches!(term, Term::Ttl { min: 64 | 255, .. }));
        if certain && !self.own.iter().any(|own| matches!(own, Action::Set(Set::Ttl(_) | Set::DecTtl))) {
            self.set(&format!("{ip} {field} add 0xff"), csum, Set::DecTtl);
        } else {
            let ttl = dice.of(&[7_u8, 64]);
            self.set(&format!("{ip} {field} set {ttl}"), csum, Set::Ttl(ttl));
        }
    }

    fn end(&mut self, dice: &mut Dice<'_>, shape: Shape, tagged: Option<bool>) {
        if self.out.is_none() && !shape.retag && dice.chance(2) {
            self.act("mirred egress mirror dev tap3", Action::Mirror(MIRROR.to_owned()));
        }
        let retag = shape.retag && self.out.is_none() && self.group == 0 && dice.chance(4);
        let retag = tagged.filter(|_| retag);
        if let Some(tagged) = retag {
            let vid = u16::from(2 + dice.below(3));
            let how = if tagged { "modify" } else { "push" };
            let vlan = Vid::new(vid).unwrap_or(Vid::DEFAULT);
            self.act(&format!("vlan {how} id {vid} pipe"), Action::Set(Set::Vlan(vlan)));
        }
        match dice.below(8) {
            0 | 1 => self.act("pass", Action::Pass),
            2 => self.act("drop", Action::Drop),
            // The next rule of the group may ask for the tag.
            3 | 4 if retag.is_none() => self.act("continue", Action::Continue),
            5 | 6 if self.out.is_none() => {
                let to = 1 + dice.below(3);
                self.act(
                    &format!("mirred egress redirect dev tap{to}"),
                    Action::Redirect(fabnic_port::PortId(to.into())),
                );
            }
            7 if self.out.is_none() && self.group < 2 => {
                let group = self.group + 1;
                self.act(&format!("goto chain {group}"), Action::Goto(group));
            }
            _ => self.act("pass", Action::Pass),
        }
    }

    fn filter(&self, place: usize) -> String {
        let Rule { group, protocol, keys, actions, .. } = self;
        let (device, side) = match self.out {
            None => (0, "ingress"),
            Some(port) => (port, "egress"),
        };
        format!(
            "tap{device} {side} protocol {protocol} pref {} chain {group} flower{keys}{actions}",
            place + 1
        )
    }

    fn spec(&self, place: u32) -> RuleSpec {
        let at = match self.out {
            None => Term::Ingress(fabnic_port::PortId(0)),
            Some(port) => Term::Egress(fabnic_port::PortId(port.into())),
        };
        RuleSpec {
            id: RuleId(place.into()),
            domain: Domain::Infrastructure,
            direction: if self.out.is_some() { Direction::Out } else { Direction::In },
            group: self.group,
            priority: place,
            name: String::new(),
            matches: vec![Match::new(self.terms.iter().copied().chain([at]))],
            actions: self.own.clone(),
        }
    }
}

fn dice_port(source: bool, number: u16) -> (&'static str, Set) {
    if source { ("sport", Set::SrcPort(number)) } else { ("dport", Set::DstPort(number)) }
}

#[derive(Clone, Debug)]
struct Case {
    rules: Vec<Rule>,
    frames: Vec<Vec<u8>>,
}

fn case() -> impl Strategy<Value = Case> {
    let rules = prop::collection::vec(bytes(48), 1..8);
    let frames = prop::collection::vec(bytes(72), 60..160);
    (any::<bool>(), any::<bool>(), bytes(4), rules, frames).prop_map(|(two, retag, theme, rules, frames)| {
        let tags = if two { Tags::Two } else { Tags::One };
        let theme = Theme::new(&mut Dice::new(&theme));
        let shape = Shape { tags, retag, theme };
        Case {
            rules: rules.iter().map(|bytes| Rule::new(&mut Dice::new(bytes), shape)).collect(),
            frames: frames.iter().map(|bytes| frame(&mut Dice::new(bytes), tags, theme)).collect(),
        }
    })
}

/// The kernel's bridge and the filters at its ports.
struct Kernel {
    bridge: Bridge,
    filters: Filters,
    ports: Vec<BridgePort>,
}

/// Stations that everybody knows, each at its port.
fn known() -> impl Iterator<Item = (MacAddr, Vid, usize)> {
    (0..PORTS).flat_map(|port| {
        (1..5)
            .flat_map(Vid::new)
            .map(move |vlan| (MacAddr::new(station(u8::try_from(port).unwrap_or(0))), vlan, port))
    })
}

impl Kernel {
    fn new(inside: &Inside) -> Result<Kernel> {
        let mut bridge = Bridge::new(inside, PORTS)?;
        let port = BridgePort {
            tagged: (1..5).flat_map(Vid::new).collect(),
            pvid: Some(Vid::DEFAULT),
            learning: false,
            isolated: false,
            flooded: [true; 3],
        };
        let ports = vec![port; PORTS];
        bridge.configure(Filtering::Dot1Q, 300, &ports)?;
        for (mac, vlan, port) in known() {
            bridge.pin(mac, Some(vlan), port)?;
        }
        let filters = Filters::new((0..3).map(|port| format!("tap{port}")).collect())?;
        Ok(Kernel { bridge, filters, ports })
    }

    /// The switch of the same configuration.
    fn fabric(&self, rules: &[Rule]) -> Result<Fabric> {
        let settings = self.ports.iter().map(|port| settings(port, Filtering::Dot1Q)).collect();
        let mirror = MirrorSettings {
            name: MIRROR.to_owned(),
            target: fabnic_port::PortId(3),
            ingress: Vec::new(),
            egress: Vec::new(),
            vlans: Vec::new(),
            snap: None,
            sample: 1,
        };
        let policy = Policy { mirrors: vec![mirror], ..Policy::default() };
        let mut fabric = Fabric::with_policy(&SwitchConfig::default(), settings, policy)?;
        for (mac, vlan, port) in known() {
            fabric.switch.fdb().add_static(vlan, mac, fabnic_port::PortId(u32::try_from(port)?))?;
        }
        let changes: Vec<_> = (0..).zip(rules).map(|(place, rule)| Change::Add(rule.spec(place))).collect();
        fabric.switch.change_rules(&changes)?;
        Ok(fabric)
    }

    fn run(&mut self, case: &Case, verdict: &mut Verdict) -> Result<()> {
        let filters: Vec<String> =
            case.rules.iter().enumerate().map(|(place, rule)| rule.filter(place)).collect();
        self.filters.replace(&filters)?;
        let mut fabric = self.fabric(&case.rules)?;
        for frame in &case.frames {
            let kernel = self.bridge.send(0, frame)?;
            verdict.count(&kernel);
            let what = || {
                let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("frame {hex}\n {}", filters.join("\n "))
            };
            same(fabric.send(0, frame)?, kernel, what)?;
        }
        // Workers hand over what they counted now and then.
        fabric.switch.tick(1);
        let hits = self.filters.hits()?;
        for view in fabric.switch.rules().list(None) {
            let place = usize::try_from(view.id.0)?;
            let kernel = hits.get(&(place + 1)).copied();
            let filter = filters.get(place).map_or("", String::as_str);
            ensure!(
                kernel == Some(view.counts.packets),
                "{} frames matched, {kernel:?} in the kernel: {filter}\n of {}",
                view.counts.packets,
                filters.join("\n ")
            );
            verdict.hits += view.counts.packets;
        }
        Ok(())
    }
}

/// # Errors
/// If the two differ, with the smallest case in which they do.
pub fn compare_rules(inside: &Inside, cases: u32) -> Result<Verdict> {
    let mut kernel = Kernel::new(inside)?;
    compare(cases, &case(), |case, verdict| kernel.run(&case, verdict))
}
