//! What the reference switch knows of connections: a list that is walked for every packet.
//!
//! # The rules
//!
//! 1. A packet is that of IPv4 without options and not in fragments. ARP and the like belong to no connection, and are let
//!    through; of IPv4, what is none of the following is `inv`.
//! 2. A connection has a zone, a protocol and two ends, the one that asked first. UDP and TCP: address and port; ICMP echo:
//!    address and identifier, and only a request asks; every other protocol: addresses.
//! 3. A packet that goes as the first did is `new` until there was an answer, then `est`; one that goes the other way is
//!    `est`. An ICMP error about a packet of a connection, to where that packet came from, is `rel`.
//! 4. TCP has the states of [`TURNS`]. What a state does not allow is `inv`. Windows are not looked at.
//! 5. A packet of no connection that may ask is `new`, any other is `inv`.
//! 6. Packets that are `inv` are dropped (`ct_invalid`) where the port says so, of the sender's port and the receiver's.
//! 7. A port that takes answers only takes `est` and `rel` (`ct_unsolicited`), what belongs to no connection, IGMP, and what
//!    DHCP servers send.
//! 8. A packet that goes on makes a connection if it is `new`: in the zone of its sender, and in that of its receiver if
//!    that is another and the packet is not flooded. A rule may look the packet up in another zone than its sender's; there
//!    it makes a connection only if a rule commits it. It counts on the port whose zone it is, which may have so many
//!    (`ct_limit`), and on the tenant of that port, whose ports together may have so many (`ct_tenant_limit`).
//! 9. A rule that commits gives the connection a mark, new or not, and may give a new one other addresses, as a port's own
//!    translation may: a connection from its inside address gets the outside one, and one to its outside address goes to
//!    the inside one. What a packet leaves as is the reverse of what answers come as. Ports stay; where the answers would be
//!    another connection's the reference does not know which port the switch takes, and is `unsure`.
//! 10. A connection is forgotten after the time of its protocol without packets: see [`seconds`].

use super::rules::Seen;

/// What configuration says of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// The zone.
    pub zone: u16,
    /// The most connections.
    pub limit: usize,
    /// The tenant of the port, and the most connections of all ports of the tenant.
    pub tenant: Option<(u32, usize)>,
    /// Only answers come in.
    pub answers_only: bool,
    /// What is `inv` is dropped.
    pub drop_invalid: bool,
    /// Address inside and address outside: connections of the one are translated to the other.
    pub nat: Option<([u8; 4], [u8; 4])>,
}

/// Addresses that a connection gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// Its source becomes this.
    pub source: Option<[u8; 4]>,
    /// Its destination becomes this.
    pub destination: Option<[u8; 4]>,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is no matter of connections.
    Untracked,
    /// It asks.
    New,
    /// It belongs to a connection that was answered.
    Established,
    /// It is an error about one.
    Related,
    /// It belongs to nothing.
    Invalid,
}

/// One end: address and port.
pub(super) type End = ([u8; 4], u16);

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its zone.
    pub zone: u16,
    /// The port that it counts on.
    pub owner: usize,
    /// And its tenant.
    pub tenant: Option<u32>,
    /// Protocol behind IP.
    pub protocol: u8,
    /// Who asked.
    pub asker: End,
    /// Who was asked.
    pub asked: End,
    /// From where, and to where, answers come.
    pub answers: (End, End),
    /// What a rule gave it.
    pub mark: u32,
    /// There was an answer.
    pub answered: bool,
    /// Packets of both ways.
    pub packets: [u64; 2],
    /// State of TCP.
    pub tcp: &'static str,
    since: u64,
    deadline: u64,
    /// The last segment: whether it was an answer, and its flags.
    last: (bool, &'static str),
    /// Both sides have sent SYN, and nothing was ignored since.
    crossed: bool,
    /// A SYN was ignored while the last acknowledgment was awaited: the next acknowledgment may be about that.
    challenged: bool,
}

/// All connections.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    list: Vec<Connection>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const IGMP: u8 = 2;

/// Which state a segment leads to, by who sends it and its flags; by states:
/// `SS` SYN sent, `S2` by both, `SR` answered, `ES` open, `FW` `CW` `LA` `TW` closing.
/// `..`: let through, nothing changes. `--`: cannot be. `ne`: another connection.
#[rustfmt::skip]
pub const TURNS: [(bool, &str, [&str; 8]); 8] = [
    //              SS    S2    SR    ES    FW    CW    LA    TW
    (false, "S",  ["SS", "S2", "..", "..", "..", "..", "..", "ne"]),
    (false, "SA", ["--", "SR", "SR", "--", "--", "--", "--", "--"]),
    (false, "A",  ["--", "--", "ES", "ES", "CW", "CW", "TW", "TW"]),
    (false, "FA", ["--", "--", "FW", "FW", "LA", "LA", "LA", "TW"]),
    (true,  "S",  ["S2", "S2", "--", "--", "--", "--", "--", "ne"]),
    (true,  "SA", ["SR", "SR", "..", "..", "..", "..", "..", ".."]),
    (true,  "A",  ["..", "..", "SR", "ES", "CW", "CW", "TW", "TW"]),
    (true,  "FA", ["--", "--", "FW", "FW", "LA", "LA", "LA", "TW"]),
];

const STATES: [&str; 8] = ["SS", "S2", "SR", "ES", "FW", "CW", "LA", "TW"];

/// Seconds that a connection is kept after a packet: those of TCP in whatever state, as the test configures them.
pub fn seconds(protocol: u8, stream: bool) -> u64 {
    match (protocol, stream) {
        (TCP, _) => 115,
        (UDP, true) => 120,
        (UDP | ICMP, _) => 30,
        _ => 600,
    }
}

/// A packet, as far as connections go.
#[derive(Clone, Debug)]
struct Packet {
    protocol: u8,
    from: End,
    to: End,
    /// Flags of TCP.
    flags: &'static str,
    may_ask: bool,
    may_answer: bool,
}

fn flags(byte: u8) -> Option<&'static str> {
    match byte & 0x17 {
        0x02 => Some("S"),
        0x12 => Some("SA"),
        0x10 => Some("A"),
        0x11 => Some("FA"),
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a packet that begins with its IP header. Nothing if it belongs to no connection and opens none.
fn read(ip: &[u8]) -> Option<Packet> {
    let protocol = *ip.get(9)?;
    let (src, dst) = (*ip.get(12..)?.first_chunk()?, *ip.get(16..)?.first_chunk()?);
    let mut packet =
        Packet { protocol, from: (src, 0), to: (dst, 0), flags: "", may_ask: true, may_answer: true };
    match protocol {
        TCP | UDP => {
            (packet.from.1, packet.to.1) = (be16(ip, 20)?, be16(ip, 22)?);
            if protocol == TCP
                && let Some(byte) = ip.get(33)
            {
                packet.flags = flags(*byte)?;
            }
        }
        ICMP => {
            let kind = *ip.get(20)?;
            (packet.from.1, packet.to.1) = (be16(ip, 24)?, be16(ip, 24)?);
            (packet.may_ask, packet.may_answer) = (kind == 8, kind == 0);
            if kind != 8 && kind != 0 {
                return None;
            }
        }
        _ => {}
    }
    Some(packet)
}

/// The IP packet in a frame, if it is IP.
fn ip_of(frame: &[u8]) -> Option<&[u8]> {
    match be16(frame, 12)? {
        0x0800 => frame.get(14..),
        0x8100 | 0x88a8 if be16(frame, 16)? == 0x0800 => frame.get(18..),
        _ => None,
    }
}

/// Whether a port that takes answers only takes it all the same.
fn is_control(ip: &[u8]) -> bool {
    match ip.get(9) {
        Some(&IGMP) => true,
        Some(&UDP) => be16(ip, 20) == Some(67) && be16(ip, 22) == Some(68),
        _ => false,
    }
}

/// What was found of a packet.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is.
    pub state: State,
    /// The connection it is a packet of, in the list.
    at: Option<usize>,
    is_answer: bool,
    packet: Option<Packet>,
    /// The mark of the connection.
    mark: u32,
}

impl Found {
    /// What rules see.
    pub(super) fn seen(&self, zone: u16) -> Seen {
        // trk is 0x20, new 1, est 2, rel 4, rpl 8, inv 0x10.
        let bits = match self.state {
            State::Untracked => return Seen::default(),
            State::New => 0x21,
            State::Established => 0x22,
            State::Related => 0x24,
            State::Invalid => 0x30,
        };
        Seen { bits: bits | if self.is_answer { 8 } else { 0 }, zone, mark: self.mark }
    }

    /// The addresses that it has, if it is a packet that has some.
    pub(super) fn ends(&self) -> Option<([u8; 4], [u8; 4])> {
        self.packet.as_ref().map(|packet| (packet.from.0, packet.to.0))
    }

    /// Whether it is a packet of a connection.
    pub(super) fn is_known(&self) -> bool {
        self.at.is_some()
    }
}

impl Connections {
    /// Forgets what is over.
    pub fn pass(&mut self, now: u64) {
        self.list.retain(|connection| connection.deadline > now);
    }

    /// Those that there are.
    pub fn all(&self) -> &[Connection] {
        &self.list
    }

    /// What a frame is in a zone.
    pub fn look(&self, zone: u16, frame: &[u8]) -> Found {
        let mut found = Found { state: State::Untracked, at: None, is_answer: false, packet: None, mark: 0 };
        let Some(ip) = ip_of(frame) else { return found };
        found.state = State::Invalid;
        if ip.get(9) == Some(&ICMP) && matches!(ip.get(20), Some(3 | 4 | 5 | 11 | 12)) {
            let Some(carried) = ip.get(28..) else { return found };
            // It came from where the error goes.
            let is_to_sender = ip.get(16..20) == carried.get(12..16);
            let is_error = carried.get(9) == Some(&ICMP) && !matches!(carried.get(20), Some(0 | 8));
            if let (Some(packet), true, false) = (read(carried), is_to_sender, is_error)
                && let Some((at, is_answer)) = self.find(zone, &packet)
            {
                (found.state, found.is_answer) = (State::Related, !is_answer);
                found.mark = self.list.get(at).map_or(0, |connection| connection.mark);
            }
            return found;
        }
        let Some(packet) = read(ip) else { return found };
        found.packet = Some(packet.clone());
        if let Some((at, is_answer)) = self.find(zone, &packet)
            && let Some(connection) = self.list.get(at)
        {
            match connection.turn(is_answer, packet.flags) {
                "--" => {
                    found.mark = connection.mark;
                    return found;
                }
                "ne" => {}
                _ => {
                    (found.at, found.is_answer, found.mark) = (Some(at), is_answer, connection.mark);
                    let answered = is_answer || connection.answered;
                    found.state = if answered { State::Established } else { State::New };
                    return found;
                }
            }
        }
        let opens = packet.protocol != TCP || matches!(packet.flags, "S");
        if packet.may_ask && opens {
            found.state = State::New;
        }
        found
    }

    fn find(&self, zone: u16, packet: &Packet) -> Option<(usize, bool)> {
        let ends = (packet.from, packet.to);
        let of = |connection: &Connection| connection.zone == zone && connection.protocol == packet.protocol;
        let asks = self.list.iter().position(|c| packet.may_ask && of(c) && (c.asker, c.asked) == ends);
        let answers = self.list.iter().position(|c| packet.may_answer && of(c) && c.answers == ends);
        asks.map(|at| (at, false)).or(answers.map(|at| (at, true)))
    }

    /// A frame that was found so makes a connection on a port, if it asks.
    ///
    /// # Errors
    /// The port, or its tenant, has as many as it may have.
    pub fn make(
        &mut self,
        zone: u16,
        (owner, tracking): (usize, &Tracking),
        found: &Found,
        (nat, mark): (Nat, u32),
        now: u64,
    ) -> Result<(), &'static str> {
        let (Some(packet), State::New, None) = (&found.packet, found.state, found.at) else { return Ok(()) };
        // What is opened anew was there until now.
        if let Some((at, _)) = self.find(zone, packet) {
            self.list.remove(at);
        }
        if self.list.iter().filter(|connection| connection.owner == owner).count() >= tracking.limit {
            return Err("ct_limit");
        }
        if let Some((tenant, limit)) = tracking.tenant
            && self.list.iter().filter(|connection| connection.tenant == Some(tenant)).count() >= limit
        {
            return Err("ct_tenant_limit");
        }
        let other = |end: End, address: Option<[u8; 4]>| (address.unwrap_or(end.0), end.1);
        let answers = (other(packet.to, nat.destination), other(packet.from, nat.source));
        // An echo reply is no request, whoever's identifier it has.
        let asks = |c: &Connection| packet.protocol != ICMP && (c.asker, c.asked) == answers;
        let is_taken = |c: &Connection| {
            c.zone == zone && c.protocol == packet.protocol && (asks(c) || c.answers == answers)
        };
        if self.list.iter().any(is_taken) {
            return Err("unsure");
        }
        self.list.push(Connection {
            zone,
            owner,
            tenant: tracking.tenant.map(|(tenant, _)| tenant),
            protocol: packet.protocol,
            asker: packet.from,
            asked: packet.to,
            answers,
            mark,
            answered: false,
            packets: [0; 2],
            tcp: if packet.protocol == TCP { "SS" } else { "" },
            since: now,
            deadline: now + seconds(packet.protocol, false),
            last: (false, ""),
            crossed: false,
            challenged: false,
        });
        Ok(())
    }

    /// Marks the connection of a packet.
    pub(super) fn mark(&mut self, found: &Found, mark: u32) {
        if let Some(connection) = found.at.and_then(|at| self.list.get_mut(at)) {
            connection.mark = mark;
        }
    }

    /// The ends that a packet of a connection leaves with, if they are others than it came with.
    pub(super) fn leaves(&self, zone: u16, frame: &[u8]) -> Option<(End, End)> {
        let found = self.look(zone, frame);
        let connection = self.list.get(found.at?)?;
        let as_it_came = |ends: (End, End)| found.packet.as_ref().is_some_and(|p| (p.from, p.to) == ends);
        let ends = match found.is_answer {
            true => (connection.asked, connection.asker),
            false => (connection.answers.1, connection.answers.0),
        };
        (!as_it_came(ends)).then_some(ends)
    }

    /// A frame goes on: it counts on its connection.
    pub fn count(&mut self, zone: u16, frame: &[u8], now: u64) {
        let found = self.look(zone, frame);
        if let (Some(packet), Some(at)) = (found.packet, found.at)
            && let Some(connection) = self.list.get_mut(at)
        {
            connection.packet(found.is_answer, packet.flags, now);
        }
    }
}

impl Connection {
    /// What a segment does.
    fn turn(&self, is_answer: bool, flags: &str) -> &'static str {
        if self.protocol != TCP {
            return "";
        }
        let place = STATES.iter().position(|state| *state == self.tcp);
        let row = TURNS.iter().find(|(answer, of, _)| (*answer, *of) == (is_answer, flags));
        let (Some(place), Some((_, _, row))) = (place, row) else { return "--" };
        row.get(place).copied().unwrap_or("--")
    }

    /// Takes a packet that may be.
    fn packet(&mut self, is_answer: bool, flags: &'static str, now: u64) {
        let turn = self.turn(is_answer, flags);
        let was_answered = self.answered;
        let stream = self.protocol == UDP && was_answered && now - self.since >= 2;
        self.answered |= is_answer;
        self.packets[usize::from(is_answer)] += 1;
        let about_syn = self.challenged
            && self.tcp == "LA"
            && flags == "A"
            && self.last.1 == "S"
            && self.last.0 != is_answer;
        if about_syn {
            self.challenged = false;
            return;
        }
        if turn == ".." {
            if flags == "S" {
                self.challenged = self.tcp == "LA";
                self.crossed = false;
            }
            self.last = (is_answer, flags);
            return;
        }
        if self.protocol == TCP {
            self.crossed |= turn == "S2";
            let both = self.crossed && is_answer && flags == "A" && was_answered;
            self.tcp = if turn == "SR" && both { "ES" } else { turn };
            self.last = (is_answer, flags);
        }
        self.deadline = now + seconds(self.protocol, stream);
    }
}

impl Tracking {
    /// How its own translation changes a connection that it opens: from the address inside.
    pub(super) fn opened(&self, found: &Found) -> Nat {
        let source = self.nat.filter(|(inside, _)| found.ends().is_some_and(|(from, _)| from == *inside));
        Nat { source: source.map(|(_, outside)| outside), destination: None }
    }

    /// And one that is opened to it: to the address outside.
    pub(super) fn opened_to(&self, found: &Found) -> Nat {
        let to = self.nat.filter(|(_, outside)| found.ends().is_some_and(|(_, to)| to == *outside));
        Nat { source: None, destination: to.map(|(inside, _)| inside) }
    }

    /// Whether the port takes a frame that is this.
    pub fn takes(&self, state: State, frame: &[u8]) -> bool {
        !self.answers_only
            || matches!(state, State::Untracked | State::Established | State::Related)
            || ip_of(frame).is_some_and(is_control)
    }
}
