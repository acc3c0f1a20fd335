//! What configuration says of connection tracking: of a zone, and of all.
//!
//! A *zone* keeps the connections of one tenant apart from all others: the same addresses and ports in two zones are two
//! connections. Settings are kept in atomics, so that they can be changed while connections live; a connection keeps the
//! deadline that its last packet gave it.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use fabnic_port::PortId;

use super::tcp::{Keep, Strictness};

macro_rules! timeouts {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal, $seconds:expr;)*) => {
        /// A class of connections, by what is known of them, that are forgotten after the same time without packets.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Timeout {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Timeout {
            /// All classes.
            pub const ALL: &'static [Timeout] = &[$(Timeout::$name,)*];
            const COUNT: usize = Timeout::ALL.len();

            /// Its name in configuration.
            pub const fn label(self) -> &'static str {
                match self { $(Timeout::$name => $label,)* }
            }

            /// The time in seconds unless configured otherwise: that of Linux.
            pub const fn default_seconds(self) -> u32 {
                match self { $(Timeout::$name => $seconds,)* }
            }
        }
    };
}

timeouts! {
    /// TCP: a SYN was seen.
    TcpSynSent = "tcp_syn_sent", 120;
    /// TCP: the SYN was answered.
    TcpSynRecv = "tcp_syn_recv", 60;
    /// TCP: open.
    TcpEstablished = "tcp_established", 432_000;
    /// TCP: one side is closing.
    TcpFinWait = "tcp_fin_wait", 120;
    /// TCP: the first FIN was acknowledged.
    TcpCloseWait = "tcp_close_wait", 60;
    /// TCP: both sides have closed, the last acknowledgment is missing.
    TcpLastAck = "tcp_last_ack", 30;
    /// TCP: closed.
    TcpTimeWait = "tcp_time_wait", 120;
    /// TCP: reset.
    TcpClose = "tcp_close", 10;
    /// TCP: the most while one segment is sent again and again, or the window is closed.
    TcpRetransmissions = "tcp_retransmissions", 300;
    /// TCP: the most while something is not acknowledged.
    TcpUnacknowledged = "tcp_unacknowledged", 300;
    /// UDP: one way only, or for less than two seconds.
    Udp = "udp", 30;
    /// UDP: both ways, for longer.
    UdpStream = "udp_stream", 120;
    /// ICMP and ICMPv6 queries.
    Icmp = "icmp", 30;
    /// Every other protocol.
    Generic = "generic", 600;
}

/// What configuration says of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneSettings {
    /// The most connections in the zone.
    pub limit: u32,
    /// Seconds without a packet after which a connection is forgotten, where they are not the default.
    pub timeouts: Vec<(Timeout, u32)>,
    /// Connections are picked up in the middle: a TCP segment without SYN may open one. Their windows are not checked.
    pub loose: bool,
    /// TCP segments outside the window are valid, except RST.
    pub liberal: bool,
    /// Repetitions of one TCP segment after which [`Timeout::TcpRetransmissions`] holds.
    pub max_retransmissions: u8,
}

impl Default for ZoneSettings {
    fn default() -> ZoneSettings {
        ZoneSettings {
            limit: u32::MAX,
            timeouts: Vec::new(),
            loose: true,
            liberal: false,
            max_retransmissions: 3,
        }
    }
}

/// What a zone has counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneCounters {
    /// Connections now, those that are over but not yet forgotten among them.
    pub connections: u32,
    /// Connections made.
    pub created: u64,
    /// Connections forgotten because no packet came for their time.
    pub expired: u64,
    /// Connections refused because the zone was full.
    pub refused: u64,
    /// Packets that belong to no connection and open none, or contradict theirs.
    pub invalid: u64,
}

/// A zone: settings and counters that its connections share.
#[derive(Debug)]
pub struct Zone {
    /// Its number; the one in a rule's `ct_zone`.
    pub id: u16,
    pub(crate) quota: Quota,
    timeouts: [AtomicU32; Timeout::COUNT],
    loose: AtomicBool,
    liberal: AtomicBool,
    max_retransmissions: AtomicU8,
    pub(crate) created: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) invalid: AtomicU64,
}

impl Zone {
    pub(crate) fn new(id: u16, settings: &ZoneSettings) -> Zone {
        let zone = Zone {
            id,
            quota: Quota::new(PortId(0)),
            timeouts: core::array::from_fn(|_| AtomicU32::new(0)),
            loose: AtomicBool::new(false),
            liberal: AtomicBool::new(false),
            max_retransmissions: AtomicU8::new(0),
            created: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            invalid: AtomicU64::new(0),
        };
        zone.set(settings);
        zone
    }

    /// Takes settings in use. Connections that there are keep the deadline that they have until their next packet.
    pub fn set(&self, settings: &ZoneSettings) {
        self.quota.set_limit(settings.limit);
        for (place, class) in self.timeouts.iter().zip(Timeout::ALL) {
            let given = settings.timeouts.iter().rev().find(|(of, _)| of == class);
            place.store(given.map_or(class.default_seconds(), |(_, seconds)| *seconds), Ordering::Relaxed);
        }
        self.loose.store(settings.loose, Ordering::Relaxed);
        self.liberal.store(settings.liberal, Ordering::Relaxed);
        self.max_retransmissions.store(settings.max_retransmissions, Ordering::Relaxed);
    }

    /// What it has counted.
    pub fn counters(&self) -> ZoneCounters {
        ZoneCounters {
            connections: self.quota.used(),
            created: self.created.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            refused: self.quota.refused(),
            invalid: self.invalid.load(Ordering::Relaxed),
        }
    }

    /// Counters go on from what an earlier zone of the number has counted.
    pub(crate) fn go_on(&self, before: &fabnic_saved::ZoneCounts) {
        self.created.fetch_add(before.created, Ordering::Relaxed);
        self.expired.fetch_add(before.expired, Ordering::Relaxed);
        self.invalid.fetch_add(before.invalid, Ordering::Relaxed);
        self.quota.go_on(before.refused);
    }

    pub(crate) fn count_invalid(&self) {
        self.invalid.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn seconds(&self, class: Timeout) -> u32 {
        self.timeouts.get(class as usize).map_or(0, |seconds| seconds.load(Ordering::Relaxed))
    }

    pub(crate) fn keep(&self, keep: Keep) -> u32 {
        let seconds = self.seconds(keep.class);
        keep.at_most.map_or(seconds, |class| seconds.min(self.seconds(class)))
    }

    pub(crate) fn loose(&self) -> bool {
        self.loose.load(Ordering::Relaxed)
    }

    pub(crate) fn strictness(&self) -> Strictness {
        Strictness {
            liberal: self.liberal.load(Ordering::Relaxed),
            max_retransmissions: self.max_retransmissions.load(Ordering::Relaxed),
        }
    }
}

/// How many connections somebody may have, and has: a port, a tenant, a zone, or the whole table.
#[derive(Debug)]
pub struct Quota {
    /// The port, if it is a port's.
    pub port: PortId,
    /// The tenant, if it is a tenant's or that of a tenant's port.
    pub tenant: Option<u32>,
    /// What is over that of a port: its tenant's.
    pub(crate) over: Option<Arc<Quota>>,
    limit: AtomicU32,
    used: AtomicU32,
    refused: AtomicU64,
}

impl Quota {
    pub(crate) fn new(port: PortId) -> Quota {
        Quota::under(port, None)
    }

    /// That of a port of a tenant that has this one.
    pub(crate) fn under(port: PortId, over: Option<Arc<Quota>>) -> Quota {
        Quota {
            port,
            tenant: over.as_ref().and_then(|over| over.tenant),
            over,
            limit: AtomicU32::new(u32::MAX),
            used: AtomicU32::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// That of a tenant.
    pub(crate) fn of_tenant(tenant: u32) -> Quota {
        Quota { tenant: Some(tenant), ..Quota::new(PortId(0)) }
    }

    /// Sets the most connections. What there is stays, also where it is more.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Connections now.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Connections that were refused because of this limit.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Refusals go on from what was counted before.
    pub(crate) fn go_on(&self, refused: u64) {
        self.refused.fetch_add(refused, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let took = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            (used < limit).then(|| used.saturating_add(1))
        });
        if took.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        took.is_ok()
    }

    pub(crate) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a connection's port is counted.
pub(crate) type Owner = Arc<Quota>;
