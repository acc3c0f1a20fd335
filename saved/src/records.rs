//! The records: what is kept of each kind of state.
//!
//! Ports and tenants are numbers here; [`PortName`] and [`TenantName`] say whose. Times are seconds or milliseconds as the
//! field's name says: `age` before the moment of saving, `left` and `in` after it.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Moment, Name};

macro_rules! sections {
    ($($(#[doc = $doc:literal])+ $kind:ident($what:ty) = $number:literal, version $version:literal, $label:literal;)*) => {
        /// A kind of section.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind = $number,)*
        }

        impl Kind {
            /// All kinds that this build knows.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// The kind with this number.
            #[must_use]
            pub fn of(number: u16) -> Option<Kind> {
                match number { $($number => Some(Kind::$kind),)* _ => None }
            }

            /// The newest version of its records that this build knows; all from 1 on are read.
            #[must_use]
            pub const fn version(self) -> u16 {
                match self { $(Kind::$kind => $version,)* }
            }

            /// Its name in output.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Kind::$kind => $label,)* }
            }
        }

        /// A section.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Section {
            $($(#[doc = $doc])+ $kind($what),)*
        }

        impl Section {
            /// Its kind.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self { $(Section::$kind(_) => Kind::$kind,)* }
            }

            /// Its payload.
            pub(crate) fn payload(&self) -> postcard::Result<Vec<u8>> {
                match self { $(Section::$kind(what) => postcard::to_allocvec(what),)* }
            }

            /// A section of this kind, of the newest version, out of its payload.
            pub(crate) fn parse(kind: Kind, payload: &[u8]) -> postcard::Result<(Section, usize)> {
                match kind {
                    $(Kind::$kind => {
                        let (what, rest) = postcard::take_from_bytes::<$what>(payload)?;
                        Ok((Section::$kind(what), rest.len()))
                    })*
                }
            }
        }
    };
}

sections! {
    /// What the bytes are.
    Head(Head) = 1, version 1, "head";
    /// Names of ports.
    Ports(Vec<PortName>) = 2, version 1, "ports";
    /// Names of tenants.
    Tenants(Vec<TenantName>) = 3, version 1, "tenants";
    /// Counters of the switch as a whole.
    Totals(Totals) = 4, version 1, "totals";
    /// Counters of ports.
    PortCounters(Vec<PortCounters>) = 5, version 1, "port_counters";
    /// Learned addresses.
    Fdb(Vec<FdbEntry>) = 6, version 1, "fdb";
    /// Learned bindings of addresses.
    Bindings(Vec<Binding>) = 7, version 1, "bindings";
    /// Clients that wait for the answer of a DHCP server.
    Transactions(Vec<Transaction>) = 8, version 1, "transactions";
    /// Who asks, and where routers are, in VLANs in which multicast is watched.
    Multicast(Vec<MulticastVlan>) = 9, version 1, "multicast";
    /// Members of multicast groups.
    Listeners(Vec<Listener>) = 10, version 1, "listeners";
    /// Counters of zones.
    Zones(Vec<ZoneCounts>) = 11, version 1, "zones";
    /// Tracked connections.
    Connections(Vec<Connection>) = 12, version 1, "connections";
    /// Tokens and counters of meters and rates.
    Meters(Vec<Meter>) = 13, version 1, "meters";
    /// Counters of rules.
    Rules(Vec<RuleCounts>) = 14, version 1, "rules";
    /// Counters of mirrors.
    Mirrors(Vec<MirrorCounts>) = 15, version 1, "mirrors";
}

impl Section {
    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Section::Head(_) | Section::Totals(_) => 1,
            Section::Ports(list) => list.len(),
            Section::Tenants(list) => list.len(),
            Section::PortCounters(list) => list.len(),
            Section::Fdb(list) => list.len(),
            Section::Bindings(list) => list.len(),
            Section::Transactions(list) => list.len(),
            Section::Multicast(list) => list.len(),
            Section::Listeners(list) => list.len(),
            Section::Zones(list) => list.len(),
            Section::Connections(list) => list.len(),
            Section::Meters(list) => list.len(),
            Section::Rules(list) => list.len(),
            Section::Mirrors(list) => list.len(),
        }
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whose state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// A switch's.
    Switch,
    /// One port's, to be taken into another switch.
    Port,
}

/// What the bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose state.
    pub scope: Scope,
    /// Who wrote it: program and version, for people.
    pub written_by: Name,
    /// When it was saved.
    pub at: Moment,
    /// Nothing moved any more when it was: what is known of connections is all that there is to know.
    pub is_still: bool,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortName {
    /// The number that records have for it.
    pub number: u32,
    /// Its name.
    pub name: Name,
    /// The tenant whose port it is.
    pub tenant: Option<Name>,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantName {
    /// The number that records have for it.
    pub number: u32,
    /// Its name.
    pub name: Name,
}

/// Counters of the switch as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Copies made beyond the first of each frame, and frames of the switch's own.
    pub replicated: u64,
    /// What was counted on ports that are gone.
    pub gone: Gone,
    /// What the forwarding database did.
    pub fdb: FdbTotals,
    /// Connections refused because the table was full.
    pub connections_refused: u64,
    /// Connections refused because no address and port were left to translate them to.
    pub connections_exhausted: u64,
}

/// What was counted on ports that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Frames received.
    pub received: u64,
    /// Copies delivered.
    pub delivered: u64,
    /// Drops by reason, either direction.
    pub drops: Vec<(Name, u64)>,
}

/// What the forwarding database did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbTotals {
    /// Addresses that were learned.
    pub learned: u64,
    /// Moves.
    pub moves: u64,
    /// Addresses that were frozen.
    pub freezes: u64,
    /// Addresses that aged out.
    pub aged: u64,
    /// Times an address was not learned, by cause.
    pub refused: Vec<(Name, u64)>,
}

/// What a queue moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounters {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bursts.
    pub bursts: u64,
    /// Interrupts.
    pub calls: u64,
    /// Kicks.
    pub kicks: u64,
}

/// Counters of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// The port.
    pub port: u32,
    /// Queues that it sends by, from number 0 on.
    pub rx: Vec<QueueCounters>,
    /// Queues that it is sent by.
    pub tx: Vec<QueueCounters>,
    /// Drops of what it sent, by reason.
    pub rx_drops: Vec<(Name, u64)>,
    /// Drops of what was sent to it.
    pub tx_drops: Vec<(Name, u64)>,
    /// What was answered on it: ARP, ND, DHCP, DHCPv6, router, echo, beyond the limit.
    pub answers: [u64; 7],
    /// Addresses that were not learned because it had as many as it may.
    pub fdb_refused: u64,
    /// Addresses that were not learned on it, by cause.
    pub fdb_refusals: Vec<(Name, u64)>,
    /// Connections refused because it had as many as it may.
    pub connections_refused: u64,
}

/// A learned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The VLAN.
    pub vlan: u16,
    /// The address.
    pub mac: [u8; 6],
    /// The port it is behind.
    pub port: u32,
    /// Seconds since it was last seen.
    pub age_s: u32,
    /// It was learned on a port whose addresses stick.
    pub sticky: bool,
    /// How often it changed its port.
    pub moves: u32,
    /// What damping knows of it.
    pub freeze: Freeze,
}

/// What move damping knows of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Seconds for which it is held still.
    pub left_s: Option<u32>,
    /// Moves in the window that runs.
    pub moves: u32,
    /// Seconds since that began.
    pub window_age_s: u32,
}

/// How a binding came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindingOrigin {
    /// By who used it first.
    Slaac,
    /// By a DHCP server.
    Dhcp,
    /// By a DHCPv6 server.
    Dhcp6,
}

/// A learned binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The VLAN.
    pub vlan: u16,
    /// The address of the internet.
    pub address: IpAddr,
    /// The port.
    pub port: u32,
    /// The MAC address.
    pub mac: [u8; 6],
    /// How it came to be.
    pub origin: BindingOrigin,
    /// What is left of the lease; `None`: it does not end.
    pub left_s: Option<u32>,
}

/// What tells a transaction from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionName {
    /// DHCP: number, and the client's MAC address.
    Dhcp(u32, [u8; 6]),
    /// DHCPv6: number, and the address that the client sent from.
    Dhcp6(u32, core::net::Ipv6Addr),
}

/// A client that waits for the answer of a DHCP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The VLAN.
    pub vlan: u16,
    /// Which one.
    pub name: TransactionName,
    /// The client's port.
    pub port: u32,
    /// The client.
    pub mac: [u8; 6],
    /// What the client asked for or had.
    pub asked: Option<core::net::Ipv4Addr>,
    /// The port's limit of bindings when it asked.
    pub limit: u32,
    /// Seconds for which its answer is waited for.
    pub left_s: u32,
}

/// A VLAN in which multicast is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastVlan {
    /// The VLAN.
    pub vlan: u16,
    /// IGMP, MLD.
    pub sides: [MulticastSide; 2],
    /// Queries, reports, leaves, signs of routers, other messages, own queries, refused; then malformed by reason.
    pub counts: Vec<u64>,
}

/// What IGMP or MLD knows of a VLAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastSide {
    /// Ports with routers behind them that were not configured.
    pub routers: Vec<Router>,
    /// Who asks, if it is another.
    pub other: Option<OtherQuerier>,
    /// When the switch asks next, if it does.
    pub next_in_ms: u64,
    /// How many of its queries still come in quick succession.
    pub startup: u8,
    /// In how many milliseconds hosts have had their time to answer; `None`: nobody asks.
    pub known_in_ms: Option<u64>,
}

/// A port with a router behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// The port.
    pub port: u32,
    /// For how long it counts as one.
    pub left_ms: u64,
}

/// A querier that is not the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherQuerier {
    /// Its address.
    pub address: IpAddr,
    /// The port it is behind.
    pub port: u32,
    /// For how long it counts as being there.
    pub left_ms: u64,
    /// Its robustness variable; 0: not said.
    pub robustness: u8,
    /// Its query interval; 0: not said.
    pub interval_s: u32,
    /// Its query response interval.
    pub max_response_ms: u32,
}

/// Hosts behind one port that listen to one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The VLAN.
    pub vlan: u16,
    /// The group.
    pub group: IpAddr,
    /// The port.
    pub port: u32,
    /// The sources are the unwanted ones.
    pub excludes: bool,
    /// For how long it does.
    pub left_ms: u64,
    /// The sources.
    pub sources: Vec<Source>,
    /// For how long there are hosts of IGMPv1.
    pub v1_left_ms: u64,
    /// For how long there are hosts of IGMPv2 or MLDv1.
    pub v2_left_ms: u64,
    /// Queries of the group that are to come.
    pub group_question: Question,
    /// Queries of sources that are to come.
    pub source_question: Question,
}

/// A source of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its address.
    pub address: IpAddr,
    /// For how long it is wanted; `None`: it is not.
    pub left_ms: Option<u64>,
}

/// Queries that are to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// How many.
    pub left: u8,
    /// When the next.
    pub next_in_ms: u64,
    /// Of which sources.
    pub sources: Vec<IpAddr>,
}

/// What a zone has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneCounts {
    /// Its number.
    pub zone: u16,
    /// Connections made.
    pub created: u64,
    /// Connections whose time was over.
    pub expired: u64,
    /// Connections refused because it was full.
    pub refused: u64,
    /// Packets that were invalid.
    pub invalid: u64,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuple {
    /// Source address; IPv4 in the first four bytes, zeros behind.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Source port; identifier of ICMP.
    pub src_port: u16,
    /// Destination port; type (high byte) and code of ICMP.
    pub dst_port: u16,
}

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its zone.
    pub zone: u16,
    /// The port whose limit it counts in.
    pub port: u32,
    /// Protocol behind IP.
    pub protocol: u8,
    /// Whether the addresses are IPv6.
    pub v6: bool,
    /// Packets as the first one.
    pub original: Tuple,
    /// The answers, as they come: with the translation.
    pub reply: Tuple,
    /// Bits: 1 something came in the reply direction, 2 it was alive both ways, 4 the source is translated, 8 the destination.
    pub bits: u8,
    /// Its mark.
    pub mark: u32,
    /// Seconds since its first packet.
    pub age_s: u32,
    /// Seconds until it is forgotten if no packet comes.
    pub left_s: u32,
    /// Packets, original and reply.
    pub packets: [u64; 2],
    /// Bytes of their frames.
    pub bytes: [u64; 2],
    /// What is known of TCP.
    pub tcp: Option<Tcp>,
}

/// What is known of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcp {
    /// Its state: 0 SYN_SENT, 1 SYN_SENT2, 2 SYN_RECV, 3 ESTABLISHED, 4 FIN_WAIT, 5 CLOSE_WAIT, 6 LAST_ACK, 7 TIME_WAIT,
    /// 8 CLOSE.
    pub state: u8,
    /// Its sides, original and reply.
    pub sides: [TcpSide; 2],
    /// The last segment that was let through.
    pub last: TcpLast,
}

/// What is known of one side, as a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpSide {
    /// Behind the highest sequence number that it has sent.
    pub end: u32,
    /// Behind the highest that the other side's window lets it send.
    pub max_end: u32,
    /// The largest window that it has offered, scaled.
    pub max_window: u32,
    /// The highest acknowledgment that it has sent.
    pub max_ack: u32,
    /// Its window scale, 0 to 14.
    pub scale: u8,
    /// What else: 1 it scales, 2 SACK, 4 closed first, 8 windows are not checked, 16 something is not acknowledged,
    /// 32 `max_ack` is good.
    pub flags: u8,
}

/// The last segment of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpLast {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment.
    pub ack: u32,
    /// Behind its last byte.
    pub end: u32,
    /// Window.
    pub window: u32,
    /// 0 none, 1 SYN, 2 SYN+ACK, 3 FIN, 4 ACK, 5 RST.
    pub kind: u8,
    /// It went in the reply direction.
    pub reply: bool,
    /// Window scale, 0 to 14.
    pub scale: u8,
    /// As of [`TcpSide::flags`]; 64 a challenge ACK may come, 128 both sides opened.
    pub flags: u8,
    /// How often it was repeated.
    pub repeated: u8,
}

/// Where a meter or a rate stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeterPlace {
    /// A meter that rules name.
    Named(Name),
    /// The meter of a rule's own, and which of those that it has.
    Rule(Name, u8),
    /// Over what all ports of a tenant send.
    Tenant(u32),
    /// Over what a port sends.
    Ingress(u32),
    /// Over what is sent to a port.
    Egress(u32),
    /// Over what a port floods: 0 broadcast, 1 multicast, 2 unknown unicast.
    Storm(u32, u8),
    /// The rate that a port is held to.
    Held(u32),
    /// The rate that a port is guaranteed.
    Guaranteed(u32),
    /// The rate that all ports of a tenant are held to.
    TenantHeld(u32),
}

/// Tokens of a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Tokens, in bytes or packets; less than none is a debt.
    pub tokens: i64,
    /// What has come of the next one: bits in 8,000,000,000 parts of a byte, packets in 1,000,000,000 of one.
    pub remainder: u64,
}

/// Tokens and counters of a meter or a rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Where it stands.
    pub place: MeterPlace,
    /// What its tokens are: 0 a rate's credit, 1 single rate, 2 two rates, 3 two rates, efficient; 16 more if it counts
    /// packets.
    pub algorithm: u8,
    /// Committed and other bucket; `None`: it was not used yet. The remainder of an overflow bucket is 0.
    pub buckets: Option<[Bucket; 2]>,
    /// Of a rate: its credit was used up, and there is not a batch yet.
    pub is_waiting: bool,
    /// Packets and bytes that were green, yellow, red, refused by another meter; of a rate, all in the first.
    pub counts: [(u64, u64); 4],
}

/// What a rule has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounts {
    /// Whose it is; `None`: infrastructure's.
    pub tenant: Option<u32>,
    /// Its number: where it is looked for first.
    pub number: u64,
    /// Its name.
    pub name: Name,
    /// Frames that it matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seconds since it last matched.
    pub used_age_s: Option<u32>,
}

/// What a mirror has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorCounts {
    /// Its name.
    pub name: Name,
    /// Frames that it was shown.
    pub seen: u64,
    /// Copies that it sent.
    pub copied: u64,
}
