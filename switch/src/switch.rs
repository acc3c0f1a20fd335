//! The switch as a whole: topology, workers, the keeper of time.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fabnic_memory::clock;
use fabnic_port::{Port, PortId, Token};
use parking_lot::{Condvar, Mutex};

use crate::engine::Engine;
use crate::fdb::{Fdb, Tick};
use crate::settings::PortSettings;
use crate::stats::{SwitchTotals, WorkerStats};
use crate::topology::{Member, Topology};
use crate::worker::{Worker, WorkerShared};

/// How the switch is made.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// A worker for each; the number of the CPU that it is pinned to. None: one worker that is not pinned.
    pub workers: Vec<usize>,
    /// The most entries in the forwarding database.
    pub fdb_max: u32,
    /// The most flows that each worker remembers.
    pub flow_cache_max: usize,
    /// How long a learned address is kept after its last frame; in seconds, rounded up. Zero: for ever.
    pub ageing: Duration,
}

impl Default for SwitchConfig {
    fn default() -> SwitchConfig {
        SwitchConfig {
            workers: vec![0],
            fdb_max: 1 << 20,
            flow_cache_max: 1 << 21,
            ageing: Duration::from_secs(300),
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

/// What workers and the switch share.
pub(crate) struct Shared {
    pub(crate) topology: ArcSwap<Topology>,
    pub(crate) fdb: Fdb,
    /// Seconds since the start.
    pub(crate) tick: AtomicU32,
    flow_cache_max: usize,
    /// In seconds; 0 for ever.
    ageing: AtomicU32,
}

impl Shared {
    pub(crate) fn new(config: &SwitchConfig) -> Shared {
        Shared {
            topology: ArcSwap::from_pointee(Topology::new(1, Vec::new())),
            fdb: Fdb::new(config.fdb_max),
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
        use std::hash::{BuildHasher, RandomState};
        let secret = |n: u8| RandomState::new().hash_one(n) | 1;
        Engine::new(self.flow_cache_max, [secret(0), secret(1)], self.refresh())
    }

    /// Forgets addresses that were not seen for long enough.
    pub(crate) fn age(&self, now: Tick) -> usize {
        match self.ageing.load(Ordering::Relaxed) {
            0 => 0,
            // A source may have been seen up to `refresh - 1` ticks after its entry says so.
            ageing => self.fdb.age(now, ageing.saturating_add(self.refresh() - 1)),
        }
    }

    /// Makes and publishes the topology of these ports; gives it, and the ports that are no more.
    pub(crate) fn publish(&self, ports: Vec<(Arc<Port>, PortSettings)>) -> (Arc<Topology>, Vec<Arc<Port>>) {
        let old = self.topology.load_full();
        let members = ports.into_iter().map(|(port, settings)| {
            let quota = self.fdb.quota(port.id);
            quota.set_limit(settings.fdb_limit);
            Member { port, settings, quota }
        });
        let new = Arc::new(Topology::new(old.generation + 1, members.collect()));
        self.topology.store(Arc::clone(&new));
        let mut gone = Vec::new();
        for member in &old.members {
            let id = member.port.id;
            match new.index_of(id).and_then(|index| new.member(index)) {
                None => {
                    self.fdb.remove_port(id);
                    gone.push(Arc::clone(&member.port));
                }
                // What was learned in VLANs that the port has left is wrong now.
                Some(now) if now.settings.vlan != member.settings.vlan => {
                    self.fdb.remove_where(|entry| {
                        entry.port == id
                            && entry.kind == crate::FdbKind::Learned
                            && !now.settings.vlan.is_member(entry.vlan)
                    });
                }
                Some(_) => {}
            }
        }
        (new, gone)
    }
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
    change: Mutex<usize>,
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
        let keeper = Arc::new(Keeper::default());
        let mut switch =
            Switch { shared: Arc::clone(&shared), workers: Vec::new(), keeper: None, change: Mutex::new(0) };
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
        let mut next = self.change.lock();
        let old = self.shared.topology.load_full();
        let fresh: Vec<_> = ports
            .iter()
            .map(|(port, _)| Arc::clone(port))
            .filter(|port| old.index_of(port.id).is_none())
            .collect();
        let (new, _gone) = self.shared.publish(ports);
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
        &self.shared.fdb
    }

    /// Seconds since the start: the unit of [`crate::FdbEntry::seen`].
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
        let replicated = self.workers.iter().map(|(worker, _)| worker.counters.replicated.get()).sum();
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
        let tick = u32::try_from(start.elapsed().as_secs()).unwrap_or(u32::MAX);
        shared.tick.store(tick, Ordering::Relaxed);
        if tick != last {
            last = tick;
            shared.age(tick);
        }
        for member in &shared.topology.load().members {
            let port = &member.port;
            if port.egress().len() > 1 && port.egress_in_use() > 0 {
                port.refresh_egress();
            }
        }
    }
}
