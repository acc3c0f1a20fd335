//! The switch as a whole: topology, workers, the keeper of time.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fabnic_memory::clock;
use fabnic_port::{DropReason, Port, PortId, Token};
use fabnic_wire::{MacAddr, Vid};
use parking_lot::{Condvar, Mutex};

use crate::answer::lldp::Neighbours;
use crate::answer::{AnswerStats, LldpNeighbour, PortAnswers};
use crate::body::Body;
use crate::cache::Target;
use crate::conntrack::{Conntrack, Tracking};
use crate::damping::MoveDamping;
use crate::engine::{Engine, Moment};
use crate::fdb::{Fdb, FdbKind, Tick};
use crate::guard::snoop::Snooper;
use crate::guard::{Binding, Bindings};
use crate::meter::{MeterState, MeterStats};
use crate::metering::{MeterPlace, Meters, PortMeterStats, PortMeters};
use crate::mirror::{Mirror, Mirrors};
use crate::multicast::{Multicast, MulticastNumbers, MulticastVlan};
use crate::needs::Needs;
use crate::origin::Origin;
use crate::periodic::Periodic;
use crate::receive::Flooded;
use crate::rules::{Change, RuleSet, Rules, TransactionError};
use crate::saved::{Arrival, FIRST_TICK, Put, Restored};
use crate::settings::{Policy, PortSettings};
use crate::stage::{self, Left, Seen, egress};
use crate::stats::{SwitchTotals, WorkerStats};
use crate::talkers::FlowStats;
use crate::topology::{Member, Topology};
use crate::trace::{Steps, Trace, Way};
use crate::versions::Versions;
use crate::worker::{Worker, WorkerShared};

/// Connections that are looked at in a second, at most, to find those that are over: more than can come.
const EXPIRE_A_SECOND: usize = 4_000_000;

/// How the switch is made.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// A worker for each; the number of the CPU that it is pinned to. None: one worker that is not pinned.
    pub workers: Vec<usize>,
    /// The most entries in the forwarding database.
    pub fdb_max: u32,
    /// The most bindings of addresses that are learned.
    pub bindings_max: u32,
    /// The most connections that are tracked; each takes some 280 bytes.
    pub connections_max: u32,
    /// The most flows that each worker remembers.
    pub flow_cache_max: usize,
    /// How long a learned address is kept after its last frame; in seconds, rounded up. Zero: for ever.
    pub ageing: Duration,
    /// When an address that keeps moving between ports is held on one; `None`: never.
    pub damping: Option<MoveDamping>,
}

impl Default for SwitchConfig {
    fn default() -> SwitchConfig {
        SwitchConfig {
            workers: vec![0],
            fdb_max: 1 << 20,
            bindings_max: 1 << 18,
            connections_max: 1 << 20,
            flow_cache_max: 1 << 21,
            ageing: Duration::from_secs(300),
            damping: None,
        }
    }
}

/// Why the switch could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system refused something.
    #[error("worker {worker} could not be started: {source}")]
    Worker {
        /// Its number.
        worker: usize,
        /// Why.
        source: std::io::Error,
    },
}

/// What stages read and write besides the topology: shared by all workers, and outlives every configuration.
pub(crate) struct Tables {
    /// What cached decisions depend on.
    pub(crate) versions: Arc<Versions>,
    pub(crate) fdb: Fdb,
    /// Who has which address of the internet.
    pub(crate) bindings: Bindings,
    /// DHCP clients that wait for their servers.
    pub(crate) snooper: Snooper,
    /// Who is at the other end of links, by LLDP.
    pub(crate) neighbours: Neighbours,
    /// Rules of infrastructure and tenants.
    pub(crate) rules: Arc<RuleSet>,
    /// Who listens to which multicast group.
    pub(crate) multicast: Multicast,
    /// The connections that are tracked.
    pub(crate) conntrack: Arc<Conntrack>,
}

impl Tables {
    fn new(config: &SwitchConfig) -> Tables {
        let versions = Arc::new(Versions::new());
        let fdb = Fdb::with_versions(config.fdb_max, Arc::clone(&versions));
        fdb.set_damping(config.damping);
        Tables {
            fdb,
            bindings: Bindings::new(config.bindings_max as usize, Arc::clone(&versions)),
            snooper: Snooper::default(),
            neighbours: Neighbours::default(),
            rules: Arc::new(RuleSet::new([secret(2), secret(3)])),
            multicast: Multicast::new(Arc::clone(&versions)),
            conntrack: Arc::new(Conntrack::new(config.connections_max, Arc::clone(&versions))),
            versions,
        }
    }
}

/// What workers and the switch share.
pub(crate) struct Shared {
    pub(crate) topology: ArcSwap<Topology>,
    pub(crate) tables: Tables,
    /// What configuration says of the switch as a whole.
    policy: Mutex<Policy>,
    /// Frames that the switch sends by itself, from threads that are no workers.
    origin: Mutex<Option<Origin>>,
    /// Such frames sent so far.
    pub(crate) originated: AtomicU64,
    /// The bindings that configuration made last.
    configured: Mutex<Vec<Binding>>,
    /// What was answered on each port.
    answers: Mutex<HashMap<PortId, Arc<PortAnswers>>>,
    /// When the switch speaks next by itself.
    pub(crate) periodic: Periodic,
    /// Seconds since the start.
    pub(crate) tick: AtomicU32,
    flow_cache_max: usize,
    /// In seconds; 0 for ever.
    ageing: AtomicU32,
}

impl Shared {
    pub(crate) fn new(config: &SwitchConfig) -> Shared {
        Shared {
            topology: ArcSwap::from_pointee(Topology::new(
                1,
                Vec::new(),
                Mirrors::default(),
                Meters::default(),
                Needs::empty(),
            )),
            tables: Tables::new(config),
            policy: Mutex::default(),
            origin: Mutex::default(),
            originated: AtomicU64::new(0),
            configured: Mutex::default(),
            answers: Mutex::default(),
            periodic: Periodic::default(),
            tick: AtomicU32::new(0),
            flow_cache_max: config.flow_cache_max,
            ageing: AtomicU32::new(in_ticks(config.ageing)),
        }
    }

    /// How often a live flow refreshes its source: a tenth of the ageing time, so that refreshing costs next to nothing
    /// with a million flows.
    pub(crate) fn refresh(&self) -> Tick {
        match self.ageing.load(Ordering::Relaxed) {
            0 => 30,
            ageing => (ageing / 10).clamp(1, 30),
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        let rules = Arc::clone(&self.tables.rules);
        Engine::new(self.flow_cache_max, [secret(0), secret(1)], self.refresh(), rules)
    }

    /// The age at which a learned address is forgotten; `None`: never. A source may have been seen up to `refresh - 1` ticks
    /// after its entry says so.
    pub(crate) fn longest_age(&self) -> Option<Tick> {
        match self.ageing.load(Ordering::Relaxed) {
            0 => None,
            ageing => Some(ageing.saturating_add(self.refresh() - 1)),
        }
    }

    /// Forgets addresses that were not seen for long enough, and lets frozen ones move whose time has come.
    pub(crate) fn age(&self, now: Tick) -> usize {
        self.tables.conntrack.expire(now, EXPIRE_A_SECOND);
        self.tables.bindings.expire(now);
        self.tables.snooper.expire(now);
        self.tables.neighbours.expire(now);
        self.tables.fdb.thaw(now);
        self.longest_age().map_or(0, |longest| self.tables.fdb.age(now, longest))
    }

    /// Makes and publishes the topology of these ports, with this policy or the one that was; gives it, and the ports that
    /// are no more.
    pub(crate) fn publish(
        &self,
        ports: Vec<(Arc<Port>, PortSettings)>,
        policy: Option<Policy>,
    ) -> (Arc<Topology>, Vec<Arc<Port>>) {
        let old = self.topology.load_full();
        let mut kept = self.policy.lock();
        if let Some(policy) = policy {
            *kept = policy;
        }
        let mirrors = Mirrors::new(&kept.mirrors, &old.mirrors);
        let meters = Meters::new(&kept.meters, &kept.tenants, &old.meters);
        let needs =
            ports.iter().fold(kept.needs() | self.tables.rules.settle_needs(), |needs, (_, settings)| {
                needs | settings.needs()
            });
        self.tables.conntrack.set_zones(&kept.zones);
        self.tables.conntrack.set_tenants(kept.quotas.iter().map(|quota| (quota.tenant, quota.connections)));
        self.tables.fdb.set_tenants(kept.quotas.iter().map(|quota| (quota.tenant, quota.fdb_entries)));
        let (gateways, lldp) = (kept.gateways.clone().into_boxed_slice(), kept.lldp.clone());
        let multicast = kept.multicast.clone();
        drop(kept);
        let members = ports.into_iter().map(|(port, settings)| {
            let quota = self.tables.fdb.quota(port.id);
            quota.set_limit(settings.fdb_limit);
            quota.set_sticky(settings.sticky);
            self.tables.fdb.set_tenant(&quota, settings.tenant);
            let (mirror_ingress, mirror_egress) = (mirrors.of_ingress(port.id), mirrors.of_egress(port.id));
            let answers = Arc::clone(self.answers.lock().entry(port.id).or_default());
            let before = old.index_of(port.id).and_then(|index| old.member(index));
            let own = PortMeters::new(&settings, &meters, before.map(|member| &member.meters));
            let conntrack = &self.tables.conntrack;
            let tracking =
                settings.tracking.as_ref().map(|it| Tracking::new(it, conntrack, port.id, settings.tenant));
            Member {
                answers,
                tracking,
                mirror_ingress,
                mirror_egress,
                meters: own,
                ..Member::new(port, settings, quota)
            }
        });
        let members: Vec<_> = members.collect();
        let mut new = Topology::new(old.generation + 1, members, mirrors, meters, needs);
        (new.gateways, new.lldp) = (gateways, lldp);
        if !multicast.is_empty() {
            new.snooped = Some(multicast.iter().map(|snooping| snooping.vlan).collect());
        }
        let new = Arc::new(new);
        self.bind(&new);
        self.tables.multicast.configure(&multicast, &new);
        self.topology.store(Arc::clone(&new));
        let (mut gone, mut left) = (Vec::new(), HashSet::new());
        for member in &old.members {
            let id = member.port.id;
            match new.index_of(id).and_then(|index| new.member(index)) {
                None => {
                    self.tables.bindings.remove_port(id);
                    self.tables.neighbours.remove_port(id);
                    self.tables.conntrack.remove_port(id);
                    self.answers.lock().remove(&id);
                    gone.push(Arc::clone(&member.port));
                }
                Some(now) if now.settings.vlan != member.settings.vlan => {
                    left.insert(id);
                    self.tables.bindings.remove_where(|binding| {
                        binding.port == id && !now.settings.vlan.is_member(binding.vlan)
                    });
                }
                Some(_) => {}
            }
        }
        // What was learned in VLANs that a port has left is wrong now. One pass, however many ports changed.
        if !left.is_empty() {
            self.tables.fdb.remove_where(|entry| {
                let member = || new.index_of(entry.port).and_then(|index| new.member(index));
                entry.kind != FdbKind::Static
                    && left.contains(&entry.port)
                    && member().is_some_and(|member| !member.settings.vlan.is_member(entry.vlan))
            });
        }
        let ids: HashSet<PortId> = gone.iter().map(|port| port.id).collect();
        self.tables.fdb.remove_ports(&ids);
        (new, gone)
    }
}

impl Shared {
    /// Makes the bindings that the settings of ports say.
    fn bind(&self, topology: &Topology) {
        let of_member = |member: &Member| {
            let addresses = member.settings.guard.bindings(member.port.id, member.untagged_vlan());
            let given = member.settings.answer.bindings(
                member.port.id,
                member.untagged_vlan(),
                member.settings.guard.macs.first().copied(),
            );
            addresses.chain(given).collect::<Vec<_>>()
        };
        let wanted: Vec<Binding> = topology.members.iter().flat_map(of_member).collect();
        let mut configured = self.configured.lock();
        if *configured != wanted {
            self.tables.bindings.configure(wanted.iter().copied());
            *configured = wanted;
        }
    }

    /// What was answered on a port.
    pub(crate) fn answer_stats(&self, port: PortId) -> Option<AnswerStats> {
        self.answers.lock().get(&port).map(|answers| answers.stats())
    }

    /// Sends an untagged frame from the switch to a port, in this VLAN. `false` if there is no such port, or the frame is
    /// longer than [`crate::LONGEST_OWN_FRAME`].
    pub(crate) fn inject(&self, port: PortId, vlan: Vid, bytes: &[u8]) -> bool {
        self.originate(port, |origin, index| origin.push(index, vlan, bytes))
    }

    /// The same without a look at the port's VLANs: for what stays on the link.
    pub(crate) fn inject_as_is(&self, port: PortId, bytes: &[u8]) -> bool {
        self.originate(port, |origin, index| origin.push_as_is(index, bytes))
    }

    /// The place of own frames, made when it is first needed.
    fn place(place: &mut Option<Origin>) -> Option<&mut Origin> {
        if place.is_none() {
            *place =
                Origin::new().inspect_err(|error| tracing::warn!(%error, "no memory for own frames")).ok();
        }
        place.as_mut()
    }

    fn originate(&self, port: PortId, push: impl FnOnce(&mut Origin, u32) -> bool) -> bool {
        let topology = self.topology.load_full();
        let Some(index) = topology.index_of(port) else { return false };
        let mut place = self.origin.lock();
        let Some(origin) = Shared::place(&mut place) else { return false };
        let pushed = push(origin, index);
        self.originated
            .fetch_add(origin.send(&topology, self.tick.load(Ordering::Relaxed)), Ordering::Relaxed);
        pushed
    }

    /// The ports of this moment, with their settings.
    pub(crate) fn ports(&self) -> Vec<(Arc<Port>, PortSettings)> {
        let topology = self.topology.load();
        topology.members.iter().map(|member| (Arc::clone(&member.port), member.settings.clone())).collect()
    }

    /// Sends an untagged frame from the switch to all ports of a VLAN.
    pub(crate) fn inject_everywhere(&self, vlan: Vid, bytes: &[u8]) {
        let topology = self.topology.load_full();
        let mut place = self.origin.lock();
        let Some(origin) = Shared::place(&mut place) else { return };
        let tick = self.tick.load(Ordering::Relaxed);
        for index in topology.flood(vlan).into_iter().flat_map(|all| all.reached_from(u32::MAX, false)) {
            if !origin.push(index, vlan, bytes) {
                self.originated.fetch_add(origin.send(&topology, tick), Ordering::Relaxed);
                origin.push(index, vlan, bytes);
            }
        }
        self.originated.fetch_add(origin.send(&topology, tick), Ordering::Relaxed);
    }

    /// What would become of a frame that a port sends now.
    pub(crate) fn trace(&self, port: PortId, bytes: &[u8], now: Tick, now_ns: u64) -> Option<Trace> {
        let topology = self.topology.load_full();
        let index = topology.index_of(port)?;
        let member = topology.member(index)?;
        let at = Moment { topology: &topology, tables: &self.tables, now, now_ns };
        let mut left = Left { steps: Some(Steps::default()), ..Left::default() };
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let tag_len = if bytes.get(12..14) == Some(&member.tpid) { 4 } else { 0 };
        let seen = Seen {
            head: bytes.get(..fabnic_port::HEAD).unwrap_or(bytes),
            len,
            body: Body::Bytes(bytes),
            is_unfinished: false,
            too_long: len.saturating_sub(tag_len) > member.longest,
        };
        if bytes.len() < 14 + tag_len as usize {
            return Some(Trace {
                steps: Vec::new(),
                vlan: Vid::DEFAULT,
                operations: Vec::new(),
                way: Way::Dropped(DropReason::Runt),
            });
        }
        let decision = stage::decide(&at, (member, index), &seen, &mut left, true);
        let size = len.saturating_sub(tag_len);
        let leaves = |to: u32| {
            let member = topology.member(to)?;
            let too_long = (size > member.longest).then_some(DropReason::EgressMtu);
            let not_ready = (member.port.egress_in_use() == 0).then_some(DropReason::NotReady);
            let flooded = decision.target == Target::Flood;
            let asked = member.tracking.as_ref().filter(|_| flooded);
            let refused = asked
                .filter(|tracking| !tracking.takes_copy(seen.head, len, now))
                .map(|_| DropReason::CtUnsolicited);
            Some((member.port.id, refused.or(egress::closed(member)).or(too_long).or(not_ready)))
        };
        let way = match decision.target {
            Target::Drop(reason) => Way::Dropped(reason),
            Target::Port(to) => Way::Sent(leaves(to).into_iter().collect()),
            Target::Flood => {
                let to = bytes.first_chunk().map_or(MacAddr::ZERO, |to| MacAddr(*to));
                let only = left.ops.iter().find_map(crate::plan::Op::recipients);
                let others = topology.flooded((member, index), decision.vlan, to, only.map(|only| &**only));
                let others = others.filter_map(|(port, member)| {
                    let filtered = member.settings.receive.judge(&member.port, to) == Flooded::Filtered;
                    let (id, refused) = leaves(port)?;
                    Some((id, filtered.then_some(DropReason::Filtered).or(refused)))
                });
                let others: Vec<_> = others.collect();
                if others.is_empty() { Way::Dropped(DropReason::NoMember) } else { Way::Sent(others) }
            }
        };
        let outcome = match &way {
            Way::Dropped(reason) => format!("dropped: {reason}"),
            Way::Sent(to) if decision.target == Target::Flood => format!("flooded to {} ports", to.len()),
            Way::Sent(to) => format!("sent to {} port", to.len()),
        };
        Some(Trace {
            steps: left.steps.unwrap_or_default().end(outcome),
            vlan: decision.vlan,
            operations: left.ops.iter().map(crate::plan::Op::describe).collect(),
            way,
        })
    }
}

/// A secret of a switch's own.
fn secret(n: u8) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(n) | 1
}

/// Whole seconds, rounded up.
fn in_ticks(time: Duration) -> Tick {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The switch, running.
pub struct Switch {
    shared: Arc<Shared>,
    workers: Vec<(Arc<WorkerShared>, Option<JoinHandle<()>>)>,
    keeper: Option<(Arc<Keeper>, JoinHandle<()>)>,
    /// Changes of the topology, one at a time; and the worker that the next new queue goes to.
    changes: Mutex<usize>,
}

impl core::fmt::Debug for Switch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Switch").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Keeper {
    stop: Mutex<bool>,
    told: Condvar,
}

impl Switch {
    /// Starts the workers. There are no ports yet.
    pub fn start(config: SwitchConfig) -> Result<Switch, StartError> {
        let shared = Arc::new(Shared::new(&config));
        shared.tick.store(FIRST_TICK, Ordering::Relaxed);
        shared.ask_listeners(clock::nanoseconds(clock::tsc()));
        let keeper = Arc::new(Keeper::default());
        let mut switch =
            Switch { shared: Arc::clone(&shared), workers: Vec::new(), keeper: None, changes: Mutex::new(0) };
        let pinned = config.workers.iter().copied().map(Some);
        let cpus = if config.workers.is_empty() { vec![None] } else { pinned.collect() };
        for (id, cpu) in cpus.into_iter().enumerate() {
            let failed = |source: std::io::Error| StartError::Worker { worker: id, source };
            let worker = Arc::new(WorkerShared::new(id, cpu).map_err(|error| failed(error.into()))?);
            let (own, common) = (Arc::clone(&worker), Arc::clone(&shared));
            let thread = std::thread::Builder::new()
                .name(format!("worker-{id}"))
                .spawn(move || Worker::new(own, common).run())
                .map_err(failed)?;
            switch.workers.push((worker, Some(thread)));
        }
        let (for_thread, shared) = (Arc::clone(&keeper), Arc::clone(&shared));
        let thread =
            std::thread::Builder::new().name("keeper".to_owned()).spawn(move || keep(&shared, &for_thread));
        let thread = thread.map_err(|source| StartError::Worker { worker: 0, source })?;
        switch.keeper = Some((keeper, thread));
        Ok(switch)
    }

    /// Makes these the switch's ports, all at once: traffic sees the old set or the new one. New ports' queues are given
    /// to workers in turn. When it returns, no worker uses a port that is not in the list, and cached flows of the old
    /// set are decided anew when they are next hit.
    pub fn set_ports(&self, ports: Vec<(Arc<Port>, PortSettings)>) {
        self.change(ports, None, || ());
    }

    /// As [`Switch::set_ports`], together with the policy of the switch as a whole.
    pub fn configure(&self, ports: Vec<(Arc<Port>, PortSettings)>, policy: Policy) {
        self.change(ports, Some(policy), || ());
    }

    /// As [`Switch::configure`]. `before` is called when the ports are there, and before anything is received from those
    /// that are new: the moment to restore their state.
    pub fn configure_then(
        &self,
        ports: Vec<(Arc<Port>, PortSettings)>,
        policy: Policy,
        before: impl FnOnce(),
    ) {
        self.change(ports, Some(policy), before);
    }

    /// Hands all state that was learned and that runs to `put`, or that of one port, section by section. What runs goes on,
    /// and no lock of the data path is held while `put` is called.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn save(&self, of: Option<PortId>, put: &mut Put<'_>) -> std::io::Result<()> {
        let copies: u64 = self.workers.iter().map(|(worker, _)| worker.counters.replicated.get()).sum();
        let now_ns = clock::nanoseconds(clock::tsc());
        self.shared.save(of, self.now(), now_ns, &mut |mut section| {
            if let fabnic_saved::Section::Totals(totals) = &mut section {
                totals.replicated += copies;
            }
            put(section)
        })
    }

    /// Restores the records of a section that was saved, here or elsewhere, as far as they fit what is configured now. What
    /// is there already stays.
    pub fn restore(&self, section: &fabnic_saved::Section, arrival: &Arrival<'_>, report: &mut Restored) {
        let now = (self.now(), clock::nanoseconds(clock::tsc()));
        self.shared.restore(section, arrival, now, report);
    }

    /// Publishes the ports that there are once more.
    fn set_again(&self) {
        let members = self.shared.ports();
        self.change(members, None, || ());
    }

    fn change(&self, ports: Vec<(Arc<Port>, PortSettings)>, policy: Option<Policy>, before: impl FnOnce()) {
        let mut next = self.changes.lock();
        let old = self.shared.topology.load_full();
        let fresh: Vec<_> = ports
            .iter()
            .map(|(port, _)| Arc::clone(port))
            .filter(|port| old.index_of(port.id).is_none())
            .collect();
        let (new, _gone) = self.shared.publish(ports, policy);
        before();
        for (worker, _) in &self.workers {
            worker.wake();
        }
        for port in fresh {
            for (cell, queue) in port.ingress().iter().zip(0..) {
                let Some((worker, _)) = self.workers.get(*next % self.workers.len()) else { continue };
                cell.assign(Token { port: port.id, queue }, Arc::clone(worker) as _);
                *next = next.wrapping_add(1);
            }
        }
        for (worker, thread) in &self.workers {
            while worker.adopted.load(Ordering::Acquire) < new.generation
                && thread.as_ref().is_some_and(|thread| !thread.is_finished())
            {
                worker.wake();
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// The forwarding database.
    pub fn fdb(&self) -> &Fdb {
        &self.shared.tables.fdb
    }

    /// The connections that are tracked.
    pub fn conntrack(&self) -> &Conntrack {
        &self.shared.tables.conntrack
    }

    /// Who has which address of the internet.
    pub fn bindings(&self) -> &Bindings {
        &self.shared.tables.bindings
    }

    /// DHCP and DHCPv6 clients that wait for an answer of their servers.
    pub fn open_transactions(&self) -> usize {
        self.shared.tables.snooper.len()
    }

    /// What neighbours say of themselves by LLDP.
    pub fn lldp_neighbours(&self) -> Vec<LldpNeighbour> {
        self.shared.tables.neighbours.entries()
    }

    /// The VLANs in which the switch watches who listens to which multicast group.
    pub fn snooped_vlans(&self) -> Vec<Vid> {
        self.shared.tables.multicast.snooped()
    }

    /// How many listen to how many groups in each VLAN in which the switch watches that, and what it heard and said there.
    pub fn multicast_numbers(&self) -> Vec<MulticastNumbers> {
        let multicast = &self.shared.tables.multicast;
        multicast.snooped().into_iter().filter_map(|vlan| multicast.numbers(vlan)).collect()
    }

    /// Who listens to which group in a VLAN, as of a moment ago; `None` if that is not watched.
    pub fn multicast(&self, vlan: Vid) -> Option<MulticastVlan> {
        self.shared.tables.multicast.snapshot(vlan)
    }

    /// What the switch answered on a port by itself.
    pub fn answer_stats(&self, port: PortId) -> Option<AnswerStats> {
        self.shared.answer_stats(port)
    }

    /// Sends an untagged frame from the switch to a port, in this VLAN, with the tag that the port has for it. From any
    /// thread. `false` if there is no such port, or the frame is longer than [`crate::LONGEST_OWN_FRAME`].
    pub fn inject(&self, port: PortId, vlan: Vid, bytes: &[u8]) -> bool {
        self.shared.inject(port, vlan, bytes)
    }

    /// What would become of a frame that this port sends now, without sending it; `bytes` begin with its destination
    /// address. `None` if there is no such port.
    pub fn trace(&self, port: PortId, bytes: &[u8]) -> Option<Trace> {
        self.shared.trace(port, bytes, self.now(), clock::nanoseconds(clock::tsc()))
    }

    /// The flows of all workers that most went through, the largest first: those that are told apart up to their ports,
    /// which is so while [`Policy::flow_counters`] is set. As of each worker's last look, at most some seconds ago.
    pub fn flows(&self) -> Vec<FlowStats> {
        let shown = |(worker, _): &(Arc<WorkerShared>, _)| worker.talkers.lock().clone();
        let mut flows: Vec<FlowStats> = self.workers.iter().flat_map(shown).collect();
        flows.sort_by_key(|flow| core::cmp::Reverse((flow.bytes, flow.frames)));
        flows
    }

    /// Changes rules: all of these changes, or none. Traffic goes on, and sees all of it or nothing.
    ///
    /// # Errors
    /// Which change is refused, and why.
    pub fn change_rules(&self, changes: &[Change]) -> Result<u64, TransactionError> {
        // Before a rule reads what nothing read before, flows are told apart by it.
        self.shared.tables.rules.apply(changes, |_| self.set_again())
    }

    /// The rules, with what they have seen.
    pub fn rules(&self) -> Rules<'_> {
        Rules(&self.shared.tables.rules)
    }

    /// The meters that rules name, with what they have seen.
    pub fn meters(&self) -> Vec<(String, MeterStats)> {
        let topology = self.shared.topology.load();
        let named = topology.meters.all().filter_map(|(place, meter)| match place {
            MeterPlace::Named(name) => Some((name, meter.stats())),
            _ => None,
        });
        named.collect()
    }

    /// All meters at this moment, with where they stand: those that rules name, those of tenants, rules' own, and those of
    /// ports.
    pub fn meter_states(&self) -> Vec<(MeterPlace, MeterState)> {
        let topology = self.shared.topology.load();
        let now_ns = clock::nanoseconds(clock::tsc());
        let of_rules = self.shared.tables.rules.policers();
        let of_ports = topology.members.iter().flat_map(|member| member.meters.all(member.port.id));
        let of_rules = of_rules.iter().map(|(name, meter)| (MeterPlace::Rule(name.clone()), meter));
        let all = topology.meters.all().chain(of_rules).chain(of_ports);
        all.map(|(place, meter)| (place, meter.state(now_ns))).collect()
    }

    /// What the meters of a port have seen. `None` if there is no such port.
    pub fn port_meters(&self, port: PortId) -> Option<PortMeterStats> {
        let topology = self.shared.topology.load();
        let member = topology.index_of(port).and_then(|index| topology.member(index))?;
        Some(member.meters.stats())
    }

    /// The mirrors that run.
    pub fn mirrors(&self) -> Vec<Arc<Mirror>> {
        self.shared.topology.load().mirrors.all.clone()
    }

    /// Seconds, of which [`FIRST_TICK`] was the one of the start: the unit of [`crate::FdbEntry::seen`].
    pub fn now(&self) -> u32 {
        self.shared.tick.load(Ordering::Relaxed)
    }

    /// Changes how long learned addresses are kept; zero for ever.
    pub fn set_ageing(&self, ageing: Duration) {
        self.shared.ageing.store(in_ticks(ageing), Ordering::Relaxed);
    }

    /// A port's settings as they are in force.
    pub fn settings(&self, id: PortId) -> Option<PortSettings> {
        let topology = self.shared.topology.load();
        topology.index_of(id).and_then(|index| topology.member(index)).map(|member| member.settings.clone())
    }

    /// What each worker did.
    pub fn workers(&self) -> Vec<WorkerStats> {
        self.workers.iter().map(|(worker, _)| WorkerStats::read(worker, clock::tsc_hz())).collect()
    }

    /// Sums over all present ports.
    pub fn totals(&self) -> SwitchTotals {
        let topology = self.shared.topology.load();
        let copies: u64 = self.workers.iter().map(|(worker, _)| worker.counters.replicated.get()).sum();
        let replicated = copies + self.shared.originated.load(Ordering::Relaxed);
        SwitchTotals::sum(topology.members.iter().map(|member| &*member.port), replicated)
    }

    /// Ends the workers and waits for them.
    pub fn stop(&mut self) {
        if let Some((keeper, thread)) = self.keeper.take() {
            *keeper.stop.lock() = true;
            keeper.told.notify_all();
            let _ = thread.join();
        }
        for (worker, _) in &self.workers {
            worker.stop.store(true, Ordering::SeqCst);
            worker.wake();
        }
        for (_, thread) in &mut self.workers {
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Moves the tick, ages addresses, and notices queues that drivers began to fill.
fn keep(shared: &Shared, keeper: &Keeper) {
    let start = Instant::now();
    let mut last = 0;
    let mut stop = keeper.stop.lock();
    while !*stop {
        keeper.told.wait_for(&mut stop, Duration::from_millis(200));
        let passed = u32::try_from(start.elapsed().as_secs()).unwrap_or(u32::MAX);
        let tick = FIRST_TICK.saturating_add(passed);
        shared.tick.store(tick, Ordering::Relaxed);
        shared.ask_listeners(clock::nanoseconds(clock::tsc()));
        if tick != last {
            last = tick;
            shared.age(tick);
            shared.announce(tick);
        }
        for member in &shared.topology.load().members {
            let port = &member.port;
            if port.egress().len() > 1 && port.egress_in_use() > 0 {
                port.refresh_egress();
            }
        }
    }
}
