//! The guards of the reference switch: what a port may say of itself, slow and obvious.
//!
//! # The rules, in their order
//!
//! 1. A trusted port is not checked.
//! 2. `mac`: the source is one of the port's MAC addresses (`mac_spoof`).
//! 3. `vlan`: no tag with a VLAN on an access port, no tag behind a tag anywhere (`vlan_spoof`); on a port with service
//!    tags one of customers is no matter.
//! 4. If anything behind Ethernet is checked: no third tag, no SNAP; if ND, RA or DHCPv6 is: no IPv6 header chain that
//!    cannot be followed to its end within 128 bytes, and none on the link that ends in an unknown protocol
//!    (`hidden_headers`).
//! 5. No server or router from a port that may be none (`dhcp_server`, `dhcp6_server`, `ra_guard`).
//! 6. ARP and RARP: the sender is the frame's source and bound, or a probe (`arp_spoof`).
//! 7. ND: whole within 128 bytes, well formed, with the frame's source as link address, from a bound source, about a bound
//!    target; duplicate address detection about a target that the port has or may claim (`nd_spoof`).
//! 8. IPv4 and IPv6: the source is bound, or what a host without an address may send (`ipv4_spoof`, `ipv6_spoof`).
//! 9. Bound is what is configured for the port, what its table says, and (IPv6) what nobody has and the port may claim;
//!    then it has it.
//! 10. DHCP clients speak for themselves, for 60 seconds, 64 at a time (`dhcp_spoof`, `guard_limit`); what a trusted port's
//!     server gives to one who asked is bound.
//! 11. ARP requests and neighbour solicitations of everybody for what is bound (but not merely claimed) on another port
//!     that is up are answered, unless the asker looks for conflicts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod dhcp;

use dhcp::{associated, dhcp_options, is_dhcp};

type Mac = [u8; 6];
type Verdict = Result<(), &'static str>;

/// What a port is checked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Nothing is checked.
    pub trusted: bool,
    /// Its MAC addresses.
    pub macs: Vec<Mac>,
    /// Rule 2.
    pub mac: bool,
    /// Rule 3.
    pub vlan: bool,
    /// Rule 8.
    pub ipv4: bool,
    /// Rule 8.
    pub ipv6: bool,
    /// Rule 6.
    pub arp: bool,
    /// Rule 7.
    pub nd: bool,
    /// Rule 5.
    pub dhcp_server: bool,
    /// Rule 5.
    pub dhcp6_server: bool,
    /// Rule 5.
    pub ra: bool,
    /// Configured addresses.
    pub addresses: Vec<IpAddr>,
    /// Rule 10.
    pub learn_dhcp: bool,
    /// Rule 10.
    pub learn_dhcp6: bool,
    /// It may claim link-local addresses.
    pub claims: bool,
    /// The most learned addresses.
    pub max_bindings: usize,
    /// Rule 11, ARP.
    pub answer_arp: bool,
    /// Rule 11, solicitations.
    pub answer_nd: bool,
}

/// By what right somebody has an address; the later the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// First come.
    Claimed,
    /// By a server.
    Leased,
    /// By configuration.
    Fixed,
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The port.
    pub port: usize,
    /// With this MAC address.
    pub mac: Mac,
    /// By what right.
    pub right: Right,
    /// Until then.
    pub until: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    port: usize,
    mac: Mac,
    asked: Option<Ipv4Addr>,
    limit: usize,
    until: u64,
}

/// What the guards know.
#[derive(Clone, Debug, Default)]
pub struct Known {
    bound: BTreeMap<(u16, IpAddr), Bound>,
    waiting: BTreeMap<(u16, Vec<u8>), Waiting>,
}

/// A frame from a port, at a time.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// From which port.
    pub port: usize,
    /// Which is an access port.
    pub is_access: bool,
    /// Which has service tags.
    pub has_service_tags: bool,
    /// In which VLAN.
    pub vlan: u16,
    /// When.
    pub now: u64,
    /// The whole frame.
    pub frame: &'a [u8],
}

/// What the headers say.
#[derive(Clone, Debug, Default)]
struct Read {
    src: Mac,
    dst: Mac,
    /// EtherTypes and VLANs of the tags.
    tags: Vec<(u16, u16)>,
    ethertype: u16,
    l3: usize,
    /// Source and destination, if there is an IP header.
    ip: Option<(IpAddr, IpAddr)>,
    protocol: u8,
    ttl: u8,
    l4: Option<usize>,
    /// Ports, or type and code.
    ports: Option<(u16, u16)>,
    is_fragment: bool,
    is_later: bool,
    is_broken: bool,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn v4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn v6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

fn mac(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6)?.try_into().ok()
}

fn is_tag(ethertype: u16) -> bool {
    [0x8100, 0x88a8, 0x9100].contains(&ethertype)
}

impl Read {
    fn of(head: &[u8]) -> Read {
        let mut read = Read {
            dst: mac(head, 0).unwrap_or_default(),
            src: mac(head, 6).unwrap_or_default(),
            ethertype: be16(head, 12).unwrap_or(0),
            l3: 14,
            ..Read::default()
        };
        while is_tag(read.ethertype) && read.tags.len() < 2 {
            read.tags.push((read.ethertype, be16(head, read.l3).unwrap_or(0) & 0xfff));
            read.ethertype = be16(head, read.l3 + 2).unwrap_or(0);
            read.l3 += 4;
        }
        match read.ethertype {
            0x0800 => read.read_v4(head),
            0x86dd => read.read_v6(head),
            _ => {}
        }
        read
    }

    fn read_v4(&mut self, head: &[u8]) {
        let l3 = self.l3;
        let header = head.get(l3..l3 + 20).filter(|header| header[0] >> 4 == 4 && header[0] & 15 >= 5);
        let Some(header) = header else {
            self.is_broken = true;
            return;
        };
        self.ip = v4(header, 12).zip(v4(header, 16)).map(|(a, b)| (a.into(), b.into()));
        (self.protocol, self.ttl) = (header[9], header[8]);
        let fragment = be16(header, 6).unwrap_or(0) & 0x3fff;
        (self.is_fragment, self.is_later) = (fragment != 0, fragment & 0x1fff != 0);
        self.read_l4(head, l3 + usize::from(header[0] & 15) * 4);
    }

    fn read_v6(&mut self, head: &[u8]) {
        let l3 = self.l3;
        let header = head.get(l3..l3 + 40).filter(|header| header[0] >> 4 == 6);
        let Some(header) = header else {
            self.is_broken = true;
            return;
        };
        self.ip = v6(header, 8).zip(v6(header, 24)).map(|(a, b)| (a.into(), b.into()));
        (self.protocol, self.ttl) = (header[6], header[7]);
        let mut at = l3 + 40;
        let mut extensions = 0;
        while [0, 43, 44, 51, 60].contains(&self.protocol) && !self.is_later {
            let len = match (self.protocol, head.get(at + 1)) {
                (44, _) => 8,
                (51, Some(words)) => (usize::from(*words) + 2) * 4,
                (_, Some(words)) => (usize::from(*words) + 1) * 8,
                _ => usize::MAX / 2,
            };
            extensions += 1;
            let whole = head.get(at..at.saturating_add(len)).filter(|_| extensions <= 8);
            let Some(extension) = whole else {
                self.is_broken = true;
                return;
            };
            if self.protocol == 44 {
                let offset = be16(extension, 2).unwrap_or(0);
                self.is_later = offset & 0xfff8 != 0;
                self.is_fragment |= self.is_later || offset & 1 != 0;
            }
            self.protocol = extension[0];
            at += len;
        }
        self.read_l4(head, at);
    }

    fn read_l4(&mut self, head: &[u8], at: usize) {
        self.l4 = Some(at).filter(|at| *at <= head.len());
        if self.l4.is_none() {
            self.is_broken = true;
        }
        if self.is_later {
            return;
        }
        match self.protocol {
            6 | 17 | 132 => {
                self.ports = be16(head, at).zip(be16(head, at + 2));
                self.is_broken |= self.ports.is_none();
            }
            1 | 58 => {
                self.ports = be16(head, at).map(|both| (both >> 8, both & 0xff));
                self.is_broken |= self.ports.is_none();
            }
            _ => {}
        }
    }

    /// Whether no tag is between the packet and what told its VLAN.
    fn is_of_vlan(&self, sent: &Sent<'_>) -> bool {
        let own = if sent.has_service_tags { 0x88a8 } else { 0x8100 };
        self.tags.is_empty() || matches!(self.tags[..], [(kind, _)] if kind == own)
    }

    fn udp(&self) -> Option<(bool, u16, u16)> {
        let (from, to) = self.ports.filter(|_| self.protocol == 17)?;
        Some((self.ip?.0.is_ipv6(), from, to))
    }

    fn icmp6(&self) -> Option<u16> {
        let is_v6 = self.ip?.0.is_ipv6();
        self.ports.filter(|_| is_v6 && self.protocol == 58).map(|(kind, _)| kind)
    }

    /// From the L4 header to the end that the IP header gives.
    fn message<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let len = usize::from(match self.ip?.0 {
            IpAddr::V4(_) => be16(bytes, self.l3 + 2)?,
            IpAddr::V6(_) => be16(bytes, self.l3 + 4)?.checked_add(40)?,
        });
        bytes.get(self.l4?..self.l3 + len).filter(|_| !self.is_fragment)
    }

    fn udp_payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.udp()?;
        let datagram = self.message(bytes)?;
        datagram.get(8..usize::from(be16(datagram, 4)?))
    }
}

/// Type, target (of what has one), and options (type and bytes) of a neighbour discovery message.
struct Nd<'a> {
    kind: u8,
    target: Option<Ipv6Addr>,
    options: Vec<(u8, &'a [u8])>,
}

impl<'a> Nd<'a> {
    fn of(icmp: &'a [u8]) -> Option<Nd<'a>> {
        let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
        let fixed = match kind {
            133 => 8,
            134 => 16,
            135 | 136 => 24,
            137 => 40,
            _ => return None,
        };
        let mut rest = icmp.get(fixed..).filter(|_| code == 0)?;
        let mut options = Vec::new();
        while !rest.is_empty() {
            let len = usize::from(*rest.get(1)?) * 8;
            if len == 0 || options.len() == 64 {
                return None;
            }
            options.push((rest[0], rest.get(..len)?));
            rest = &rest[len..];
        }
        let target = if kind >= 135 { v6(icmp, 8) } else { None };
        Some(Nd { kind, target, options })
    }

    fn link_is(&self, mac: Mac) -> bool {
        self.options.iter().filter(|(kind, _)| [1, 2].contains(kind)).all(|(_, bytes)| bytes[2..] == mac)
    }
}

impl Known {
    /// Everything that is bound.
    pub fn bound(&self) -> &BTreeMap<(u16, IpAddr), Bound> {
        &self.bound
    }

    /// Clients that wait for a server.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Time passes.
    pub fn pass(&mut self, now: u64) {
        self.bound.retain(|_, bound| bound.until.is_none_or(|until| until > now));
        self.waiting.retain(|_, waiting| waiting.until > now);
    }

    /// Binds what is configured, and nothing else any more by configuration.
    pub fn fix(&mut self, ports: &[(Guard, Option<u16>)]) {
        self.bound.retain(|_, bound| bound.right != Right::Fixed);
        for (port, (guard, vlan)) in ports.iter().enumerate().rev() {
            for address in guard.addresses.iter().rev() {
                if let (Some(vlan), Some(mac)) = (vlan, guard.macs.first()) {
                    let bound = Bound { port, mac: *mac, right: Right::Fixed, until: None };
                    self.bound.insert((*vlan, *address), bound);
                }
            }
        }
    }

    fn learn(&mut self, key: (u16, IpAddr), new: Bound, limit: usize) -> Verdict {
        let held = self.bound.get(&key).copied();
        if let Some(held) = held {
            if (held.port, held.mac) == (new.port, new.mac) {
                if held.right <= new.right {
                    self.bound.insert(key, new);
                }
                return Ok(());
            }
            if held.right > new.right || new.right == Right::Claimed {
                return Err("dhcp_spoof");
            }
        }
        let learned = |(at, bound): &(&(u16, IpAddr), &Bound)| {
            **at != key && bound.port == new.port && bound.right != Right::Fixed
        };
        if self.bound.iter().filter(learned).count() >= limit {
            return Err("guard_limit");
        }
        self.bound.insert(key, new);
        Ok(())
    }

    /// Rule 9.
    fn is_bound(&mut self, guard: &Guard, sent: &Sent<'_>, mac: Mac, address: IpAddr) -> bool {
        let is_own = guard.macs.is_empty() || guard.macs.contains(&mac);
        if is_own && guard.addresses.contains(&address) {
            return true;
        }
        let claim = Bound { port: sent.port, mac, right: Right::Claimed, until: Some(sent.now + 300) };
        let key = (sent.vlan, address);
        match self.bound.get(&key) {
            Some(held) if (held.port, held.mac) == (sent.port, mac) => {
                if held.right == Right::Claimed {
                    self.bound.insert(key, claim);
                }
                true
            }
            Some(_) => false,
            None => may_claim(guard, address) && self.learn(key, claim, guard.max_bindings).is_ok(),
        }
    }

    /// Rules 1 to 10.
    ///
    /// # Errors
    /// The drop reason.
    pub fn check(&mut self, guard: &Guard, sent: &Sent<'_>) -> Verdict {
        let head = &sent.frame[..sent.frame.len().min(128)];
        let read = Read::of(head);
        if guard.trusted {
            return if read.is_of_vlan(sent) { self.servers(sent, &read) } else { Ok(()) };
        }
        if guard.mac && !guard.macs.contains(&read.src) {
            return Err("mac_spoof");
        }
        // A service tag is none of a bridge of customers' VLANs, but it is a tag.
        let good = match (&read.tags[..], sent.has_service_tags) {
            ([], _) | ([(0x8100, _)], true) => true,
            ([(_, vid)], _) | ([(0x88a8, vid), (0x8100, _)], true) => *vid == 0 || !sent.is_access,
            _ => false,
        };
        if guard.vlan && !good {
            return Err("vlan_spoof");
        }
        let chains = guard.nd || guard.ra || guard.dhcp6_server;
        if chains || guard.arp || guard.ipv4 || guard.ipv6 || guard.dhcp_server {
            let is_snap = read.ethertype < 1536 && head.get(read.l3..read.l3 + 3) == Some(&[0xaa, 0xaa, 3]);
            if is_tag(read.ethertype) || is_snap {
                return Err("hidden_headers");
            }
        }
        if chains && read.ethertype == 0x86dd {
            if read.is_broken {
                return Err("hidden_headers");
            }
            let on_link =
                matches!(read.ip, Some((IpAddr::V6(src), _)) if src.segments()[0] & 0xffc0 == 0xfe80);
            let ends = [6, 17, 58, 132, 59, 4, 33, 41, 46, 47, 50, 88, 89, 103, 112, 115, 136];
            if on_link && read.ttl == 255 && !read.is_later && !ends.contains(&read.protocol) {
                return Err("hidden_headers");
            }
        }
        match read.udp() {
            Some((false, from, to)) if guard.dhcp_server && (from == 67 || to == 68) => {
                return Err("dhcp_server");
            }
            Some((true, from, to)) if guard.dhcp6_server && (from == 547 || to == 546) => {
                return Err("dhcp6_server");
            }
            _ => {}
        }
        if guard.ra && matches!(read.icmp6(), Some(134 | 137)) {
            return Err("ra_guard");
        }
        match read.ethertype {
            0x0806 | 0x8035 if guard.arp && !self.arp(guard, sent, &read, head) => return Err("arp_spoof"),
            0x86dd
                if guard.nd
                    && matches!(read.icmp6(), Some(133..=137))
                    && self.neighbour(guard, sent, &read, head).is_none() =>
            {
                return Err("nd_spoof");
            }
            _ => {}
        }
        if guard.ipv4 && read.ethertype == 0x0800 && !self.source4(guard, sent, &read) {
            return Err("ipv4_spoof");
        }
        if guard.ipv6 && read.ethertype == 0x86dd && !self.source6(guard, sent, &read) {
            return Err("ipv6_spoof");
        }
        if !read.is_of_vlan(sent) {
            return Ok(());
        }
        match read.udp() {
            Some((false, _, 67)) if guard.learn_dhcp => self.client(guard, sent, &read),
            Some((true, _, 547)) if guard.learn_dhcp6 => self.client6(guard, sent, &read),
            _ => Ok(()),
        }
    }

    fn arp(&mut self, guard: &Guard, sent: &Sent<'_>, read: &Read, head: &[u8]) -> bool {
        let Some(packet) = head.get(read.l3..read.l3 + 28) else { return false };
        if packet[..6] != [0, 1, 8, 0, 6, 4] || mac(packet, 8) != Some(read.src) {
            return false;
        }
        if read.ethertype == 0x8035 {
            return mac(packet, 18) == Some(read.src);
        }
        let Some(sender) = v4(packet, 14) else { return false };
        if sender.is_unspecified() && packet[6..8] == [0, 1] {
            return true;
        }
        self.is_bound(guard, sent, read.src, sender.into())
    }

    fn neighbour(&mut self, guard: &Guard, sent: &Sent<'_>, read: &Read, head: &[u8]) -> Option<()> {
        let nd = Nd::of(read.message(head)?)?;
        let Some((IpAddr::V6(from), IpAddr::V6(to))) = read.ip else { return None };
        if read.ttl != 255 || !nd.link_is(read.src) {
            return None;
        }
        let has_source_link = nd.options.iter().any(|(kind, _)| *kind == 1);
        let good = match (nd.kind, nd.target) {
            (133, _) if from.is_unspecified() => !has_source_link,
            (133, _) => self.is_bound(guard, sent, read.src, from.into()),
            (135, Some(target)) if from.is_unspecified() => {
                let [.., a, b, c] = target.octets();
                let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
                !has_source_link
                    && to == group
                    && (self.is_bound(guard, sent, read.src, target.into())
                        || may_claim(guard, target.into()))
            }
            (135, Some(target)) => {
                !target.is_multicast() && self.is_bound(guard, sent, read.src, from.into())
            }
            (136, Some(target)) => self.is_bound(guard, sent, read.src, target.into()),
            _ => true,
        };
        good.then_some(())
    }

    fn source4(&mut self, guard: &Guard, sent: &Sent<'_>, read: &Read) -> bool {
        let Some((source, _)) = read.ip else { return false };
        if source.is_unspecified() {
            return read.udp() == Some((false, 68, 67)) || read.protocol == 2;
        }
        self.is_bound(guard, sent, read.src, source)
    }

    fn source6(&mut self, guard: &Guard, sent: &Sent<'_>, read: &Read) -> bool {
        let Some((source, _)) = read.ip else { return false };
        if source.is_unspecified() {
            return matches!(read.icmp6(), Some(131 | 132 | 133 | 135 | 143));
        }
        self.is_bound(guard, sent, read.src, source)
    }

    fn wait(
        &mut self,
        guard: &Guard,
        sent: &Sent<'_>,
        name: Vec<u8>,
        mac: Mac,
        asked: Option<Ipv4Addr>,
    ) -> Verdict {
        let key = (sent.vlan, name);
        if self.waiting.get(&key).is_some_and(|held| held.port != sent.port) {
            return Err("dhcp_spoof");
        }
        let open = self.waiting.values().filter(|held| held.port == sent.port).count();
        if !self.waiting.contains_key(&key) && open >= 64 {
            return Err("guard_limit");
        }
        let (port, until) = (sent.port, sent.now + 60);
        self.waiting.insert(key, Waiting { port, mac, asked, limit: guard.max_bindings, until });
        Ok(())
    }

    /// A client gives an address back.
    fn give_back(&mut self, sent: &Sent<'_>, mac: Mac, address: IpAddr) -> Verdict {
        match self.bound.get(&(sent.vlan, address)) {
            Some(held) if (held.port, held.mac) != (sent.port, mac) => Err("dhcp_spoof"),
            Some(held) if held.right != Right::Fixed => {
                self.bound.remove(&(sent.vlan, address));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The client that a server's message ends something for.
    fn take_back(&mut self, vlan: u16, address: IpAddr, waiting: &Waiting) {
        let is_its =
            |held: &Bound| (held.port, held.mac) == (waiting.port, waiting.mac) && held.right != Right::Fixed;
        if self.bound.get(&(vlan, address)).is_some_and(is_its) {
            self.bound.remove(&(vlan, address));
        }
    }

    fn client(&mut self, guard: &Guard, sent: &Sent<'_>, read: &Read) -> Verdict {
        let wrong = Err("dhcp_spoof");
        let Some(message) = read.udp_payload(sent.frame).filter(|message| is_dhcp(message)) else {
            return wrong;
        };
        let options = dhcp_options(message);
        let option = |code| options.iter().find(|(found, _)| *found == code).map(|(_, value)| value.clone());
        let client = mac(message, 28).unwrap_or_default();
        let is_relayed = message[3] != 0 || message[24..28] != [0; 4] || option(82).is_some();
        if message[0] != 1 || client != read.src || is_relayed {
            return wrong;
        }
        let ciaddr = v4(message, 12).filter(|address| !address.is_unspecified());
        let asked = option(50).filter(|value| value.len() == 4).and_then(|value| v4(&value, 0)).or(ciaddr);
        match option(53).as_deref() {
            Some([1 | 3]) => {
                let name = [&[4], &message[4..8], &client].concat();
                self.wait(guard, sent, name, client, asked)
            }
            Some([4 | 7]) => asked.map_or(Ok(()), |address| self.give_back(sent, client, address.into())),
            Some([8]) => Ok(()),
            _ => wrong,
        }
    }

    fn client6(&mut self, guard: &Guard, sent: &Sent<'_>, read: &Read) -> Verdict {
        let wrong = Err("dhcp_spoof");
        let Some(message) = read.udp_payload(sent.frame).filter(|message| message.len() >= 4) else {
            return wrong;
        };
        let Some((IpAddr::V6(from), _)) = read.ip else { return wrong };
        match message[0] {
            1 | 3 | 5 | 6 => {
                let name = [&[6], &message[1..4], &from.octets()[..]].concat();
                self.wait(guard, sent, name, read.src, None)
            }
            8 | 9 => {
                let given: Vec<_> =
                    associated(message).into_iter().map(|one| IpAddr::from(one.address)).collect();
                for address in &given {
                    let held = self.bound.get(&(sent.vlan, *address));
                    if held.is_some_and(|held| (held.port, held.mac) != (sent.port, read.src)) {
                        return wrong;
                    }
                }
                given.into_iter().try_for_each(|address| self.give_back(sent, read.src, address))
            }
            4 | 11 => Ok(()),
            _ => wrong,
        }
    }

    /// What a trusted port's servers say.
    fn servers(&mut self, sent: &Sent<'_>, read: &Read) -> Verdict {
        match read.udp() {
            Some((false, from, to)) if from == 67 || to == 68 => self.server(sent, read),
            Some((true, from, to)) if from == 547 || to == 546 => self.server6(sent, read),
            _ => Ok(()),
        }
    }

    fn server(&mut self, sent: &Sent<'_>, read: &Read) -> Verdict {
        let message = read.udp_payload(sent.frame).filter(|message| is_dhcp(message) && message[0] == 2);
        let Some(message) = message else { return Ok(()) };
        let options = dhcp_options(message);
        let option = |code| options.iter().find(|(found, _)| *found == code).map(|(_, value)| value.clone());
        let kind = option(53);
        if !matches!(kind.as_deref(), Some([5 | 6])) {
            return Ok(());
        }
        let name = [&[4], &message[4..8], &message[28..34]].concat();
        let Some(waiting) = self.waiting.remove(&(sent.vlan, name)) else { return Ok(()) };
        if kind.as_deref() == Some(&[6]) {
            if let Some(asked) = waiting.asked {
                self.take_back(sent.vlan, asked.into(), &waiting);
            }
            return Ok(());
        }
        let lease: Option<[u8; 4]> = option(51).and_then(|value| value.try_into().ok());
        let given = v4(message, 16).filter(|address| !address.is_unspecified());
        match (lease, given) {
            (Some(lease), Some(given)) => self.lease(sent, given.into(), u32::from_be_bytes(lease), &waiting),
            _ => Ok(()),
        }
    }

    fn server6(&mut self, sent: &Sent<'_>, read: &Read) -> Verdict {
        let message = read.udp_payload(sent.frame).filter(|message| message.len() >= 4 && message[0] == 7);
        let (Some(message), Some((_, IpAddr::V6(to)))) = (message, read.ip) else { return Ok(()) };
        let name = [&[6], &message[1..4], &to.octets()[..]].concat();
        let Some(waiting) = self.waiting.remove(&(sent.vlan, name)) else { return Ok(()) };
        for one in associated(message).into_iter().filter(|one| one.is_good) {
            match one.valid {
                0 => self.take_back(sent.vlan, one.address.into(), &waiting),
                valid => self.lease(sent, one.address.into(), valid, &waiting)?,
            }
        }
        Ok(())
    }

    fn lease(&mut self, sent: &Sent<'_>, address: IpAddr, seconds: u32, waiting: &Waiting) -> Verdict {
        let until = (seconds != u32::MAX).then(|| sent.now + u64::from(seconds));
        let bound = Bound { port: waiting.port, mac: waiting.mac, right: Right::Leased, until };
        self.learn((sent.vlan, address), bound, waiting.limit)
    }

    /// Rule 11: the answer, if the switch gives one.
    pub fn answer(&self, guard: &Guard, sent: &Sent<'_>, is_up: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
        let read = Read::of(&sent.frame[..sent.frame.len().min(128)]);
        let owner = |address: IpAddr| {
            let held = self.bound.get(&(sent.vlan, address)).copied()?;
            (held.port != sent.port && held.right != Right::Claimed && is_up(held.port)).then_some(held.mac)
        };
        if !read.is_of_vlan(sent) {
            return None;
        }
        if read.ethertype == 0x0806 && guard.answer_arp {
            let packet = sent.frame.get(read.l3..read.l3 + 28)?;
            let (sender, target) = (v4(packet, 14)?, v4(packet, 24)?);
            let asks = packet[..8] == [0, 1, 8, 0, 6, 4, 0, 1] && read.dst == [0xff; 6];
            if !asks || sender.is_unspecified() || sender == target {
                return None;
            }
            let mac = owner(target.into())?;
            let mut reply = [&packet[8..14], &mac, &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 2]].concat();
            reply.extend([&mac, &packet[24..28], &packet[8..18]].concat());
            return Some(reply);
        }
        if read.icmp6() == Some(135) && guard.answer_nd {
            let icmp = read.message(sent.frame)?;
            let Some((IpAddr::V6(from), IpAddr::V6(to))) = read.ip else { return None };
            let nd = Nd::of(icmp)?;
            let target = nd.target?;
            let pseudo = |len: usize| {
                [&from.octets()[..], &to.octets(), &(len as u32).to_be_bytes(), &[0, 0, 0, 58]].concat()
            };
            let is_intact = sum(&[&pseudo(icmp.len()), icmp]) == 0xffff;
            let good = read.ttl == 255 && nd.link_is(read.src) && !target.is_multicast() && is_intact;
            if !good || from.is_unspecified() || from == target || !to.is_multicast() {
                return None;
            }
            let mac = owner(target.into())?;
            // Solicited, and no override: the owner itself knows better.
            let mut body = [&[136, 0, 0, 0, 0x40, 0, 0, 0][..], &target.octets(), &[2, 1], &mac].concat();
            let pseudo = [&target.octets()[..], &from.octets(), &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
            let checksum = !sum(&[&pseudo, &body]);
            body[2..4].copy_from_slice(&checksum.to_be_bytes());
            let mut reply = [&read.src[..], &mac, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]].concat();
            reply.extend([&target.octets()[..], &from.octets(), &body].concat());
            return Some(reply);
        }
        None
    }
}

fn may_claim(guard: &Guard, address: IpAddr) -> bool {
    guard.claims && matches!(address, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}

/// The ones' complement sum of pieces of even length, but the last.
fn sum(pieces: &[&[u8]]) -> u16 {
    let all = pieces.concat();
    let mut sum: u32 = 0;
    for pair in all.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
