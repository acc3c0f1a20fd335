//! The switch without threads: the same engine, polled by the caller under a time of the caller's.
//!
//! For property tests, for counting instructions and allocations, and for simulations; the daemon uses
//! [`crate::Switch`].

use core::sync::atomic::Ordering;
use std::sync::Arc;

use fabnic_port::{BURST, Burst, Fault, Port, PortId};
use fabnic_wire::Vid;

use crate::answer::{AnswerStats, LldpNeighbour};
use crate::conntrack::Conntrack;
use crate::engine::{Engine, Moment};
use crate::fdb::Fdb;
use crate::guard::Bindings;
use crate::mirror::Mirror;
use crate::multicast::MulticastVlan;
use crate::rules::{Change, Rules, TransactionError};
use crate::saved::{Arrival, Put, Restored};
use crate::settings::{Policy, PortSettings};
use crate::shaper::Scheduler;
use crate::stats::SwitchTotals;
use crate::switch::{Shared, SwitchConfig};
use crate::topology::Topology;
use crate::trace::Trace;
use crate::worker::{BURSTS_A_VISIT, charge_of};

/// A switch that moves frames when it is told to.
pub struct InlineSwitch {
    shared: Shared,
    engine: Engine,
    topology: Arc<Topology>,
    burst: Burst,
    now: u32,
    now_ns: u64,
    scheduler: Scheduler,
    /// Port and queue of each slot of the scheduler.
    slots: Vec<(PortId, usize)>,
}

impl core::fmt::Debug for InlineSwitch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("InlineSwitch").field("now", &self.now).finish_non_exhaustive()
    }
}

impl InlineSwitch {
    /// A switch without ports. The configuration's workers are not used.
    pub fn new(config: &SwitchConfig) -> InlineSwitch {
        let shared = Shared::new(config);
        let engine = shared.engine();
        let topology = shared.topology.load_full();
        InlineSwitch {
            shared,
            engine,
            topology,
            burst: Burst::new(),
            now: 0,
            now_ns: 0,
            scheduler: Scheduler::default(),
            slots: Vec::new(),
        }
    }

    /// Makes these the switch's ports, as [`crate::Switch::set_ports`] does.
    pub fn set_ports(&mut self, ports: Vec<(Arc<Port>, PortSettings)>) {
        self.change(ports, None);
    }

    /// As [`crate::Switch::configure`].
    pub fn configure(&mut self, ports: Vec<(Arc<Port>, PortSettings)>, policy: Policy) {
        self.change(ports, Some(policy));
    }

    fn change(&mut self, ports: Vec<(Arc<Port>, PortSettings)>, policy: Option<Policy>) {
        let (topology, _gone) = self.shared.publish(ports, policy);
        self.engine.adopt(&topology);
        self.scheduler = Scheduler::default();
        self.slots.clear();
        for member in &topology.members {
            for queue in 0..member.port.ingress().len() {
                self.scheduler.add(member.port.id.0, member.meters.shaper.clone());
                self.slots.push((member.port.id, queue));
            }
        }
        self.topology = topology;
    }

    /// Moves the time, in seconds since the start, and forgets addresses that are due.
    pub fn tick(&mut self, now: u32) {
        self.now = now;
        self.now_ns = self.now_ns.max(u64::from(now) * 1_000_000_000);
        self.shared.tick.store(now, Ordering::Relaxed);
        self.shared.age(now);
        self.shared.announce(now);
        self.shared.ask_listeners(self.now_ns);
        self.engine.housekeeping(&self.shared.tables, now);
    }

    /// The fine time, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Moves the fine time, in nanoseconds since the start, and with it the time in seconds.
    pub fn tick_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        let now = u32::try_from(now_ns / 1_000_000_000).unwrap_or(u32::MAX);
        if now != self.now {
            self.tick(now);
        } else {
            self.shared.ask_listeners(now_ns);
        }
    }

    /// As [`crate::Switch::save`], with connections and rules told of all that went through their flows.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn save(&mut self, of: Option<PortId>, put: &mut Put<'_>) -> std::io::Result<()> {
        self.engine.flows.deep.settle(&self.shared.tables.conntrack, None, usize::MAX);
        self.engine.housekeeping(&self.shared.tables, self.now);
        let copies = self.engine.counters.replicated;
        self.shared.save(of, self.now, self.now_ns, &mut |mut section| {
            if let fabnic_saved::Section::Totals(totals) = &mut section {
                totals.replicated += copies;
            }
            put(section)
        })
    }

    /// As [`crate::Switch::restore`].
    pub fn restore(&self, section: &fabnic_saved::Section, arrival: &Arrival<'_>, report: &mut Restored) {
        self.shared.restore(section, arrival, (self.now, self.now_ns), report);
    }

    /// As [`crate::Switch::inject`].
    pub fn inject(&self, port: PortId, vlan: Vid, bytes: &[u8]) -> bool {
        self.shared.inject(port, vlan, bytes)
    }

    /// As [`crate::Switch::trace`].
    pub fn trace(&self, port: PortId, bytes: &[u8]) -> Option<Trace> {
        self.shared.trace(port, bytes, self.now, self.now_ns)
    }

    /// As [`crate::Switch::change_rules`].
    ///
    /// # Errors
    /// Which change is refused, and why.
    pub fn change_rules(&mut self, changes: &[Change]) -> Result<u64, TransactionError> {
        let mut widened = false;
        let rules = Arc::clone(&self.shared.tables.rules);
        let result = rules.apply(changes, |_| widened = true);
        if widened {
            // Nobody looks between the two: there is one thread.
            self.change(self.shared.ports(), None);
        }
        result
    }

    /// As [`crate::Switch::rules`].
    pub fn rules(&self) -> Rules<'_> {
        Rules(&self.shared.tables.rules)
    }

    /// The mirrors that run.
    pub fn mirrors(&self) -> Vec<Arc<Mirror>> {
        self.topology.mirrors.all.clone()
    }

    /// Receives one burst from a port's queue, and delivers it, whoever's turn it is. Gives the number of frames.
    ///
    /// # Errors
    /// The queue's fault; the caller decides whether the port stops.
    pub fn poll(&mut self, port: PortId, queue: usize) -> Result<usize, Fault> {
        let Some(index) = self.topology.index_of(port) else { return Ok(0) };
        let Some(cell) = self.topology.member(index).and_then(|member| member.port.ingress().get(queue))
        else {
            return Ok(0);
        };
        let mut guard = cell.lock();
        let Some(ingress) = guard.as_mut() else { return Ok(0) };
        let at = Moment {
            topology: &self.topology,
            tables: &self.shared.tables,
            now: self.now,
            now_ns: self.now_ns,
        };
        let (frames, received) = self.engine.serve(&at, index, cell, ingress.as_mut(), &mut self.burst);
        received.map(|()| frames)
    }

    /// A worker's round over all queues, at this moment: rates are kept, and what is read of whom is decided by
    /// guarantees, priorities, weights and shares. Gives the number of frames; a queue with a fault is passed over.
    pub fn round(&mut self) -> usize {
        let mut total = 0;
        let mut scheduler = core::mem::take(&mut self.scheduler);
        scheduler.begin(self.now_ns);
        while let Some(slot) = scheduler.next(self.now_ns) {
            let Some((port, queue)) = self.slots.get(slot).copied() else { break };
            let mut is_drained = false;
            for _ in 0..BURSTS_A_VISIT {
                let wanted = scheduler.allowance(slot, self.now_ns);
                if wanted == 0 {
                    break;
                }
                self.burst.set_wanted(wanted);
                let frames = self.poll(port, queue).unwrap_or(0);
                if frames > 0 {
                    scheduler.charge(slot, self.now_ns, charge_of(&self.burst), frames);
                    scheduler.heads(slot, self.engine.take_toward(), frames);
                }
                total += frames;
                is_drained = frames < wanted;
                if is_drained {
                    break;
                }
            }
            scheduler.end_turn(slot, self.now_ns, is_drained);
        }
        self.burst.set_wanted(BURST);
        self.scheduler = scheduler;
        total
    }

    /// As [`crate::Switch::multicast`].
    pub fn multicast(&self, vlan: Vid) -> Option<MulticastVlan> {
        self.shared.tables.multicast.snapshot(vlan)
    }

    /// Delivers one slice of the floods that were too much for one go, as a worker does whenever it has served a queue.
    /// Gives the number of copies; 0 if nothing waits.
    pub fn deliver_slice(&mut self) -> u64 {
        // Of ports that are no receivers of the frames there is no copy.
        loop {
            let copies = self.engine.deliver_slice(&self.topology, self.now);
            if copies > 0 || !self.engine.has_floods() {
                return copies;
            }
        }
    }

    /// The forwarding database.
    pub fn fdb(&self) -> &Fdb {
        &self.shared.tables.fdb
    }

    /// Frames decided by the flow cache, and by a walk of the stages.
    pub fn decided(&self) -> (u64, u64) {
        (self.engine.counters.hits, self.engine.counters.misses)
    }

    /// The connections that are tracked, told of all that went through their flows.
    pub fn conntrack(&mut self) -> &Conntrack {
        self.engine.flows.deep.settle(&self.shared.tables.conntrack, None, usize::MAX);
        &self.shared.tables.conntrack
    }

    /// Who has which address of the internet.
    pub fn bindings(&self) -> &Bindings {
        &self.shared.tables.bindings
    }

    /// As [`crate::Switch::open_transactions`].
    pub fn open_transactions(&self) -> usize {
        self.shared.tables.snooper.len()
    }

    /// As [`crate::Switch::lldp_neighbours`].
    pub fn lldp_neighbours(&self) -> Vec<LldpNeighbour> {
        self.shared.tables.neighbours.entries()
    }

    /// As [`crate::Switch::answer_stats`].
    pub fn answer_stats(&self, port: PortId) -> Option<AnswerStats> {
        self.shared.answer_stats(port)
    }

    /// Sums over all present ports.
    pub fn totals(&self) -> SwitchTotals {
        SwitchTotals::sum(
            self.topology.members.iter().map(|member| &*member.port),
            self.engine.counters.replicated + self.shared.originated.load(Ordering::Relaxed),
        )
    }
}
