//! Who listens to which group: IGMP and MLD snooping (RFC 4541), with a querier.
//!
//! # Role
//!
//! Without it, frames to groups go to the whole VLAN. In a VLAN in which the switch snoops, it reads what hosts tell
//! routers (IGMP, RFC 1112, 2236, 3376, 9776; MLD, RFC 2710, 3810), keeps who listens to which group and sources behind
//! which port, and delivers frames to a group to those ports and to the routers. If there is no router that asks, the
//! switch can be the querier.
//!
//! ```text
//!   IGMP, MLD --stage `multicast`--> VlanState: groups -> ports -> Listener     routers     querier
//!                                       ^                                                     |
//!   keeper, 5 times a second -----------'--- timers run out; queries are due -> sent ---------'
//!   data to a group --stage `multicast`--> Recipients (list of ports) -> the flow's plan -> cached
//! ```
//!
//! * `settings`: what configuration says
//! * `listener`: one port and one group: the state machine of RFC 3376, section 6
//! * `querier`: election, times
//! * `vlan`: all of one VLAN
//!
//! # Invariants
//! * Frames are told apart by IP, where they are IP: two groups that share a MAC address (32 of IPv4 do) are two groups.
//!   A listener gets frames of the sources that it asked for only.
//! * A cached decision depends on the group's version and on that of the VLAN's routers; both are raised when anything
//!   changes that it was made from, not when a timer is only refreshed.
//! * Everything is bounded: entries of a port and of a VLAN by settings, of the switch by [`MOST_ENTRIES`].
//! * While no querier is known, or hosts have not had their time to answer it, groups go to the whole VLAN.

mod listener;
mod querier;
mod saved;
mod settings;
pub(crate) mod vlan;

use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::hash::BuildHasher;
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::membership::{Packet, QueryFrame, Refusal};
use fabnic_wire::{MacAddr, Vid};
use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::topology::Topology;
use crate::versions::{Version, Versions};
pub use listener::FilterMode;
use listener::Millis;
pub use settings::{PortMulticast, QuerierSettings, RouterPort, StaticGroup, Unregistered, VlanSnooping};
use vlan::{Change, Family, From, Send, VlanState};

/// The most listeners and sources of the switch.
pub const MOST_ENTRIES: u32 = 1 << 20;
/// The most queries of one kind that a listener is asked in a row: the largest robustness variable.
const MOST_QUESTIONS: u8 = 7;
/// How long a port counts as a router's after a sign of one, in milliseconds.
const ROUTER_MS: Millis = 255_000;

/// Who gets frames of a group, in one topology.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recipients {
    /// By number, ascending.
    pub(crate) ids: Arc<[PortId]>,
    /// Their indexes in the topology.
    pub(crate) indexes: Box<[u32]>,
    pub(crate) generation: u32,
}

impl Recipients {
    fn new(mut ids: Vec<PortId>, vlan: Vid, topology: &Topology) -> Recipients {
        ids.sort_unstable();
        ids.dedup();
        let indexes = ids.iter().filter_map(|id| topology.index_of(*id));
        let indexes = indexes.filter(|index| topology.is_flooded(vlan, *index)).collect();
        Recipients { ids: ids.into(), indexes, generation: topology.generation }
    }
}

/// Entries of the switch.
#[derive(Debug, Default)]
pub(crate) struct Quota(AtomicU32);

impl Quota {
    /// Takes so many. `always`: whether there is room or not.
    fn take(&self, more: u32, always: bool) -> bool {
        let take = |used: u32| used.checked_add(more).filter(|used| always || *used <= MOST_ENTRIES);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, less: u32) {
        // Never more than was taken.
        self.0.fetch_sub(less, Ordering::Relaxed);
    }
}

/// What was heard and said in a VLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MulticastStats {
    /// Queries received.
    pub queries: u64,
    /// Reports received.
    pub reports: u64,
    /// Leaves received.
    pub leaves: u64,
    /// Signs of routers: PIM Hello, multicast router discovery.
    pub routers: u64,
    /// Messages of types that are not known.
    pub other: u64,
    /// Queries of the switch's own.
    pub queries_sent: u64,
    /// Records and reports that would have gone over a limit.
    pub refused: u64,
    /// Messages not believed, by [`Refusal`].
    pub malformed: [u64; Refusal::ALL.len()],
}

/// One port that gets a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastMember {
    /// The port.
    pub port: PortId,
    /// By configuration.
    pub is_static: bool,
    /// Whether the sources are the wanted or the unwanted ones.
    pub mode: FilterMode,
    /// Milliseconds until the mode falls back to the sources alone; of the mode `Exclude` only.
    pub expires_ms: Option<u64>,
    /// The sources; each with the milliseconds for which it is wanted still, or `None` if it is not wanted.
    pub sources: Vec<(IpAddr, Option<u64>)>,
    /// The version of the oldest host, of IGMP; of MLD one more than that.
    pub version: u8,
}

/// A group that somebody listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastGroup {
    /// The group.
    pub group: IpAddr,
    /// Its listeners.
    pub members: Vec<MulticastMember>,
}

/// Who asks in a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuerierState {
    /// Nobody.
    Nobody,
    /// The switch, with this address.
    Own(IpAddr),
    /// Another.
    Other {
        /// Its address.
        address: IpAddr,
        /// The port it is behind.
        port: PortId,
        /// Milliseconds until it counts as gone.
        expires_ms: u64,
    },
}

/// What one of the two protocols knows of a VLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastSide {
    /// Who asks.
    pub querier: QuerierState,
    /// Whether groups go to their listeners only: a querier is there, and hosts have had their time to answer.
    pub restricts: bool,
    /// Ports with routers behind them, and the milliseconds for which they count as such; `None`: by configuration.
    pub routers: Vec<(PortId, Option<u64>)>,
}

/// A VLAN in which the switch snoops, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastVlan {
    /// The VLAN.
    pub vlan: Vid,
    /// The groups, ascending.
    pub groups: Vec<MulticastGroup>,
    /// IGMP.
    pub igmp: MulticastSide,
    /// MLD.
    pub mld: MulticastSide,
    /// What was heard and said.
    pub stats: MulticastStats,
}

/// How much one of the two protocols knows of a VLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MulticastCount {
    /// Groups that somebody listens to.
    pub groups: u64,
    /// Ports that listen to them, each once for each group.
    pub members: u64,
    /// Ports with routers behind them.
    pub routers: u64,
    /// Whether groups go to their listeners only.
    pub restricts: bool,
    /// Whether the switch asks.
    pub asks: bool,
}

/// The numbers of a VLAN in which the switch snoops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MulticastNumbers {
    /// The VLAN.
    pub vlan: Vid,
    /// IGMP.
    pub igmp: MulticastCount,
    /// MLD.
    pub mld: MulticastCount,
    /// What was heard and said.
    pub stats: MulticastStats,
}

/// Where a frame to a group goes, with the versions that this depends on.
pub(crate) struct Answer {
    /// `None`: to the whole VLAN.
    pub(crate) members: Option<Arc<Recipients>>,
    pub(crate) of_group: Version,
    pub(crate) of_side: Version,
}

/// A query that is to be sent, with the ports that it goes to.
pub(crate) struct OwnQuery {
    pub(crate) vlan: Vid,
    /// `None`: to the whole VLAN.
    pub(crate) port: Option<PortId>,
    pub(crate) bytes: Vec<u8>,
}

/// All VLANs. Shared by all workers; off the fast path.
pub(crate) struct Multicast {
    vlans: Box<[Mutex<Option<Box<VlanState>>>]>,
    /// VLANs that have a state, so that nobody asks the others.
    snooped: Mutex<Vec<Vid>>,
    versions: Arc<Versions>,
    hasher: RandomState,
    quota: Quota,
    /// The time that it was told last.
    now: AtomicU64,
}

impl Multicast {
    pub(crate) fn new(versions: Arc<Versions>) -> Multicast {
        Multicast {
            vlans: (0..4096).map(|_| Mutex::new(None)).collect(),
            snooped: Mutex::default(),
            versions,
            hasher: RandomState::default(),
            quota: Quota::default(),
            now: AtomicU64::new(0),
        }
    }

    fn group_hash(&self, vlan: Vid, group: IpAddr) -> u64 {
        self.hasher.hash_one((vlan.get(), group))
    }

    fn side_hash(&self, vlan: Vid, family: Family) -> u64 {
        self.hasher.hash_one((vlan.get(), family == Family::Igmp))
    }

    /// Looks at a VLAN's state, if there is one; and makes known what changed.
    fn with<R>(&self, vlan: Vid, look: impl FnOnce(&mut VlanState, &Quota) -> R) -> Option<R> {
        let mut place = self.vlans.get(usize::from(vlan.get()))?.lock();
        let state = place.as_deref_mut()?;
        let result = look(state, &self.quota);
        for change in state.changes.drain(..) {
            self.versions.raise(match change {
                Change::Group(group) => self.group_hash(vlan, group),
                Change::Side(family) => self.side_hash(vlan, family),
            });
        }
        Some(result)
    }

    /// Takes over the settings, and the ports as they are now.
    pub(crate) fn configure(&self, settings: &[VlanSnooping], topology: &Topology) {
        let now = self.now.load(Ordering::Relaxed);
        let mut snooped = self.snooped.lock();
        if settings.is_empty() && snooped.is_empty() {
            return;
        }
        for gone in snooped.iter().filter(|vlan| settings.iter().all(|set| set.vlan != **vlan)) {
            if let Some(place) = self.vlans.get(usize::from(gone.get()))
                && let Some(mut state) = place.lock().take()
            {
                state.clear(&self.quota);
            }
        }
        for settings in settings {
            let vlan = settings.vlan;
            let stays =
                |port: PortId| topology.index_of(port).is_some_and(|index| topology.is_flooded(vlan, index));
            let is_router = |index: u32| {
                let member = topology.member(index)?;
                let is_router = member.settings.multicast.router == RouterPort::Always
                    || settings.routers.contains(&member.port.id);
                is_router.then_some(member.port.id)
            };
            let routers: Vec<PortId> = {
                let all = topology.flood(vlan).into_iter();
                all.flat_map(|all| all.reached_from(u32::MAX, false)).filter_map(is_router).collect()
            };
            if let Some(place) = self.vlans.get(usize::from(vlan.get())) {
                place.lock().get_or_insert_with(|| Box::new(VlanState::new(settings.clone())));
            }
            self.with(vlan, |state, quota| state.configure(settings.clone(), &routers, stays, quota, now));
        }
        *snooped = settings.iter().map(|settings| settings.vlan).collect();
    }

    /// Where a frame goes. `None`: the switch does not snoop in this VLAN.
    pub(crate) fn answer(
        &self,
        vlan: Vid,
        group: IpAddr,
        source: IpAddr,
        topology: &Topology,
    ) -> Option<Answer> {
        // Read before the state.
        let of_group = self.versions.of(self.group_hash(vlan, group));
        let of_side = self.versions.of(self.side_hash(vlan, Family::of(group)));
        let members = self.with(vlan, |state, _| state.members(group, source, topology))?;
        Some(Answer { members, of_group, of_side })
    }

    /// The ports with routers behind them.
    pub(crate) fn routers(&self, vlan: Vid, family: Family, topology: &Topology) -> Option<Arc<Recipients>> {
        self.with(vlan, |state, _| state.routers(family, topology))
    }

    /// A message came from a port; why it was not believed, if so.
    pub(crate) fn heard(
        &self,
        vlan: Vid,
        port: PortId,
        settings: &PortMulticast,
        packet: Result<&Packet<'_>, Refusal>,
        now: Millis,
    ) {
        self.with(vlan, |state, quota| match packet {
            Ok(packet) => state.heard(From { port, settings }, packet, quota, now),
            Err(refusal) => state.refused(refusal),
        });
    }

    /// Lets time pass; gives the queries that are due.
    pub(crate) fn advance(&self, now: Millis) -> Vec<OwnQuery> {
        self.now.store(now, Ordering::Relaxed);
        let vlans = self.snooped.lock().clone();
        let mut queries = Vec::new();
        for vlan in vlans {
            self.with(vlan, |state, quota| {
                for send in state.advance(quota, now) {
                    queries.extend(write(state, vlan, &send));
                }
            });
        }
        queries
    }

    /// One VLAN as it is.
    pub(crate) fn snapshot(&self, vlan: Vid) -> Option<MulticastVlan> {
        let now = self.now.load(Ordering::Relaxed);
        self.with(vlan, |state, _| snapshot(state, vlan, now))
    }

    /// The numbers of one VLAN. Copies nothing.
    pub(crate) fn numbers(&self, vlan: Vid) -> Option<MulticastNumbers> {
        self.with(vlan, |state, _| {
            let [igmp, mld] = Family::ALL.map(|family| {
                let side = state.side(family);
                let of_family = state.groups.iter().filter(|(group, _)| Family::of(**group) == family);
                let mut count = MulticastCount {
                    routers: side.routers.len() as u64,
                    restricts: side.is_known,
                    asks: side.querier.is_own(),
                    ..MulticastCount::default()
                };
                for (_, group) in of_family {
                    count.groups += 1;
                    count.members += group.ports.len() as u64;
                }
                count
            });
            MulticastNumbers { vlan, igmp, mld, stats: state.stats }
        })
    }

    /// The VLANs in which the switch snoops.
    pub(crate) fn snooped(&self) -> Vec<Vid> {
        self.snooped.lock().clone()
    }
}

fn write(state: &VlanState, vlan: Vid, send: &Send) -> Option<OwnQuery> {
    let own = state.settings.querier.as_ref()?;
    let (source, version) = match send.family {
        Family::Igmp => (own.v4?.into(), own.igmp_version),
        Family::Mld => (own.v6?.into(), own.mld_version),
    };
    let settings = &state.settings;
    let max_response_ms = match send.group {
        None => settings.max_response_ms,
        Some(_) => settings.last_member_interval_ms,
    };
    let query = QueryFrame {
        mac: own.mac,
        source,
        version,
        group: send.group,
        sources: &send.ask.sources,
        max_response_ms,
        suppress: send.ask.suppress,
        robustness: settings.robustness,
        interval_s: settings.query_interval_s,
    };
    Some(OwnQuery { vlan, port: send.port, bytes: query.to_bytes() })
}

fn snapshot(state: &VlanState, vlan: Vid, now: Millis) -> MulticastVlan {
    let left = |until: Millis| until.saturating_sub(now);
    let side = |family: Family| {
        let side = state.side(family);
        let querier = match (side.querier.other, side.querier.own) {
            (Some(other), _) => QuerierState::Other {
                address: other.address,
                port: other.port,
                expires_ms: left(other.until),
            },
            (None, Some(own)) => QuerierState::Own(own),
            (None, None) => QuerierState::Nobody,
        };
        let routers = side.routers.iter();
        let routers = routers.map(|(port, until)| (*port, (*until != Millis::MAX).then(|| left(*until))));
        MulticastSide { querier, restricts: side.is_known, routers: routers.collect() }
    };
    let mut groups: Vec<MulticastGroup> = state
        .groups
        .iter()
        .map(|(group, entry)| MulticastGroup {
            group: *group,
            members: entry
                .ports
                .iter()
                .map(|(port, listener)| MulticastMember {
                    port: *port,
                    is_static: listener.is_static,
                    mode: listener.mode,
                    expires_ms: (listener.mode == FilterMode::Exclude).then(|| left(listener.timer)),
                    sources: listener
                        .sources
                        .iter()
                        .map(|(source, until)| (*source, (*until != 0).then(|| left(*until))))
                        .collect(),
                    version: listener.version(now),
                })
                .collect(),
        })
        .collect();
    groups.sort_unstable_by_key(|group| group.group);
    MulticastVlan { vlan, groups, igmp: side(Family::Igmp), mld: side(Family::Mld), stats: state.stats }
}

/// Whether frames to this address can be of a group that is snooped: the Ethernet addresses of IP groups.
pub(crate) fn is_ip_group(to: MacAddr) -> bool {
    matches!(to.octets(), [1, 0, 0x5e, 0..=0x7f, ..] | [0x33, 0x33, ..])
}
