//! The function's queues: what the driver configured, which run, and how they come into and out of the port's cells.
//!
//! ```text
//!             configure            enable                 bus mastering off
//!   (nothing) ---------> configured ------> running, in its cell ------> running, without memory
//!                            ^                 |         ^                     |
//!                            +-----------------+         +---------------------+
//!                                 disable                   memory is back
//! ```
//!
//! A queue is changed with its cell's lock held, so between two bursts. When it was taken out nothing of it is in
//! flight: that is what a driver's DISABLE_QUEUES and a transport's `set_memory(None)` wait for.

use core::any::Any;
use std::sync::Arc;

use fabnic_memory::Map;
use fabnic_port::{Egress, Fault, Port};

use crate::director::Director;
use crate::doorbell::Doorbells;
use crate::filter::Filter;
use crate::interrupts::Vectors;
use crate::receive::{Receive, ReceiveRules};
use crate::receive_ring::{ReceiveConfig, Ring};
use crate::rss::Hasher;
use crate::stats::{Counters, Counts};
use crate::transmit::{SendRules, Transmit, TransmitSetup};
use crate::usual::FlowCache;

/// Queue pairs of a function.
pub(crate) const MAX_QUEUES: usize = fabnic_avf_spec::MAX_QUEUE_PAIRS as usize;

/// Queues, one a bit.
pub(crate) fn each(mask: u32) -> impl Iterator<Item = usize> {
    (0..MAX_QUEUES).filter(move |queue| mask & 1 << queue != 0)
}

#[derive(Debug)]
struct One<C> {
    config: Option<C>,
    running: bool,
    /// Where it goes on.
    position: u16,
    counters: Arc<Counters>,
}

impl<C> Default for One<C> {
    fn default() -> One<C> {
        One { config: None, running: false, position: 0, counters: Arc::default() }
    }
}

/// A transmit ring, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransmitConfig {
    pub(crate) ring: u64,
    pub(crate) len: u16,
}

/// All queues of a function.
#[derive(Debug)]
pub(crate) struct Queues {
    port: Arc<Port>,
    doorbells: Arc<Doorbells>,
    vectors: Arc<Vectors>,
    map: Option<Arc<Map>>,
    transmit: [One<TransmitConfig>; MAX_QUEUES],
    receive: [One<ReceiveConfig>; MAX_QUEUES],
    send_rules: SendRules,
    filter: Filter,
    hasher: Arc<Hasher>,
    strip: bool,
    director: Option<Arc<Director>>,
}

/// The receive queues, if that is what is in the cell.
fn as_receive(queue: &mut dyn Egress) -> Option<&mut Receive> {
    let queue: &mut dyn Any = queue;
    queue.downcast_mut()
}

impl Queues {
    pub(crate) fn new(
        port: Arc<Port>,
        doorbells: Arc<Doorbells>,
        vectors: Arc<Vectors>,
        filter: Filter,
        hasher: Hasher,
    ) -> Queues {
        Queues {
            port,
            doorbells,
            vectors,
            map: None,
            transmit: core::array::from_fn(|_| One::default()),
            receive: core::array::from_fn(|_| One::default()),
            send_rules: SendRules::default(),
            filter,
            hasher: Arc::new(hasher),
            strip: false,
            director: None,
        }
    }

    /// Says where a transmit ring is. A queue that runs is stopped.
    pub(crate) fn configure_transmit(&mut self, queue: usize, config: Option<TransmitConfig>) {
        self.disable(0, 1 << queue);
        self.doorbells.clear_transmit(queue);
        if let Some(one) = self.transmit.get_mut(queue) {
            one.config = config;
        }
    }

    /// Says where a receive ring is. A queue that runs is stopped. Its tail stays: drivers write it first.
    pub(crate) fn configure_receive(&mut self, queue: usize, config: Option<ReceiveConfig>) {
        self.stop_receive(queue);
        if let Some(one) = self.receive.get_mut(queue) {
            one.running = false;
            one.config = config;
        }
    }

    /// Starts queues from the beginning of their rings. Those that run go on. On an error nothing is started that did not
    /// run.
    ///
    /// # Errors
    /// A queue has no ring, or it is not in the guest's memory.
    pub(crate) fn enable(&mut self, receive: u32, transmit: u32) -> Result<(), Fault> {
        let missing = |what, queue| Fault(format!("{what} queue {queue} has no ring"));
        for queue in each(receive) {
            if self.receive.get(queue).is_none_or(|one| one.config.is_none()) {
                return Err(missing("receive", queue));
            }
        }
        for queue in each(transmit) {
            if self.transmit.get(queue).is_none_or(|one| one.config.is_none()) {
                return Err(missing("transmit", queue));
            }
        }
        let (mut new_receive, mut new_transmit) = (0, 0);
        for queue in each(receive) {
            if let Some(one) = self.receive.get_mut(queue).filter(|one| !one.running) {
                (one.running, one.position) = (true, 0);
                new_receive |= 1 << queue;
            }
        }
        for queue in each(transmit) {
            if let Some(one) = self.transmit.get_mut(queue).filter(|one| !one.running) {
                (one.running, one.position) = (true, 0);
                new_transmit |= 1 << queue;
            }
        }
        let result = self.start(new_receive, new_transmit);
        if result.is_err() {
            self.disable(new_receive, new_transmit);
        }
        result
    }

    /// Stops queues. When this returns nothing of them is in flight.
    pub(crate) fn disable(&mut self, receive: u32, transmit: u32) {
        for queue in each(receive) {
            self.stop_receive(queue);
            self.doorbells.clear_receive(queue);
            if let Some(one) = self.receive.get_mut(queue) {
                one.running = false;
            }
        }
        for queue in each(transmit) {
            self.stop_transmit(queue);
            self.doorbells.clear_transmit(queue);
            if let Some(one) = self.transmit.get_mut(queue) {
                one.running = false;
            }
        }
    }

    /// All queues gone, with their configuration.
    pub(crate) fn reset(&mut self) {
        self.disable(u32::MAX, u32::MAX);
        for queue in 0..MAX_QUEUES {
            self.configure_transmit(queue, None);
            self.configure_receive(queue, None);
        }
    }

    /// Other memory, or none. When this returns nothing uses what was before; queues that run go on in the new one.
    ///
    /// # Errors
    /// A ring is not in the new memory.
    pub(crate) fn set_memory(&mut self, map: Option<Arc<Map>>) -> Result<(), Fault> {
        for queue in 0..MAX_QUEUES {
            self.stop_receive(queue);
            self.stop_transmit(queue);
        }
        self.map = map;
        let bits = |running: &mut dyn Iterator<Item = bool>| {
            running.enumerate().fold(0, |bits, (queue, running)| bits | u32::from(running) << queue)
        };
        let receive = bits(&mut self.receive.iter().map(|one| one.running));
        let transmit = bits(&mut self.transmit.iter().map(|one| one.running));
        self.start(receive, transmit)
    }

    /// Puts queues that run into their cells, if there is memory.
    fn start(&mut self, receive: u32, transmit: u32) -> Result<(), Fault> {
        let Some(map) = self.map.clone() else { return Ok(()) };
        for queue in each(transmit) {
            let Some(one) = self.transmit.get(queue) else { continue };
            let Some(config) = one.config else { continue };
            let open = Transmit::open(TransmitSetup {
                queue,
                map: Arc::clone(&map),
                ring: config.ring,
                len: config.len,
                next: one.position,
                rules: self.send_rules.clone(),
                doorbells: Arc::clone(&self.doorbells),
                vectors: Arc::clone(&self.vectors),
                counters: Arc::clone(&one.counters),
            })?;
            if let Some(cell) = self.port.ingress().get(queue) {
                drop(cell.install(Box::new(open)));
            }
        }
        let mut rings = Vec::new();
        for queue in each(receive) {
            let Some(one) = self.receive.get(queue) else { continue };
            let Some(config) = one.config else { continue };
            rings.push((queue, Ring::open(queue, &map, config, one.position, Arc::clone(&one.counters))?));
        }
        if rings.is_empty() {
            return Ok(());
        }
        let Some(cell) = self.port.egress().first() else { return Ok(()) };
        if !cell.is_installed() {
            let rules = ReceiveRules {
                filter: self.filter.clone(),
                hasher: Arc::clone(&self.hasher),
                flows: FlowCache::new(),
                strip: self.strip,
                director: self.director.clone(),
            };
            let queue = Receive::new(map, rules, Arc::clone(&self.doorbells), Arc::clone(&self.vectors));
            drop(cell.install(Box::new(queue)));
            self.publish_filter();
        }
        cell.with(|egress| {
            if let Some(all) = as_receive(egress) {
                for (queue, ring) in rings {
                    drop(all.set_ring(queue, Some(ring)));
                }
            }
        });
        self.port.refresh_egress();
        Ok(())
    }

    /// Takes a ring out of the cell and remembers where it stands.
    fn stop_receive(&mut self, queue: usize) {
        let Some(cell) = self.port.egress().first() else { return };
        let stopped = cell.with(|egress| {
            let all = as_receive(egress)?;
            let ring = all.set_ring(queue, None)?;
            Some((ring.position(), all.is_empty()))
        });
        let Some(Some((position, is_last))) = stopped else { return };
        if let Some(one) = self.receive.get_mut(queue) {
            one.position = position;
        }
        if is_last {
            drop(cell.remove());
            self.port.refresh_egress();
            self.port.guest_filter.set(None);
        }
    }

    /// Takes a ring out of its cell and remembers where it stands.
    fn stop_transmit(&mut self, queue: usize) {
        let Some(cell) = self.port.ingress().get(queue) else { return };
        let Some(taken) = cell.remove() else { return };
        let taken: Box<dyn Any> = taken;
        if let (Ok(taken), Some(one)) = (taken.downcast::<Transmit>(), self.transmit.get_mut(queue)) {
            one.position = taken.position();
        }
    }

    /// Other rules for what is sent.
    pub(crate) fn set_send_rules(&mut self, rules: SendRules) {
        if rules == self.send_rules {
            return;
        }
        for queue in 0..MAX_QUEUES {
            let Some(cell) = self.port.ingress().get(queue) else { break };
            cell.with(|ingress| {
                let ingress: &mut dyn Any = ingress;
                if let Some(transmit) = ingress.downcast_mut::<Transmit>() {
                    transmit.rules = rules.clone();
                }
            });
        }
        self.send_rules = rules;
    }

    fn with_rules(&self, change: impl FnOnce(&mut ReceiveRules)) {
        if let Some(cell) = self.port.egress().first() {
            cell.with(|egress| {
                if let Some(all) = as_receive(egress) {
                    change(&mut all.rules);
                }
            });
        }
    }

    /// Another filter.
    pub(crate) fn set_filter(&mut self, filter: Filter) {
        self.with_rules(|rules| rules.filter = filter.clone());
        self.filter = filter;
        if self.port.egress().first().is_some_and(|cell| cell.is_installed()) {
            self.publish_filter();
        }
    }

    /// Tells the port what is taken, so that nothing else is brought.
    fn publish_filter(&self) {
        self.port.guest_filter.set(Some(self.filter.as_guest_filter()));
    }

    /// Another key, table or set of types.
    pub(crate) fn set_hasher(&mut self, hasher: Hasher) {
        self.hasher = Arc::new(hasher);
        self.with_rules(|rules| {
            rules.hasher = Arc::clone(&self.hasher);
            // What was computed with another key is worth nothing.
            rules.flows = FlowCache::new();
        });
    }

    /// Other flow director rules.
    pub(crate) fn set_director(&mut self, director: &Director) {
        self.director = (!director.is_empty()).then(|| Arc::new(director.clone()));
        self.with_rules(|rules| rules.director = self.director.clone());
    }

    /// Whether tags are taken out.
    pub(crate) fn set_strip(&mut self, strip: bool) {
        self.strip = strip;
        self.with_rules(|rules| rules.strip = strip);
    }

    /// Accesses outside of the guest's memory that were refused.
    pub(crate) fn faults(&self) -> u64 {
        let receive = self.receive.iter().map(|one| one.counters.faults());
        receive.chain(self.transmit.iter().map(|one| one.counters.faults())).sum()
    }

    /// Frames that these queues received and sent so far.
    pub(crate) fn passed(&self, receive: u32, transmit: u32) -> u64 {
        let receive = each(receive).filter_map(|queue| self.receive.get(queue).map(|one| &one.counters));
        let transmit = each(transmit).filter_map(|queue| self.transmit.get(queue).map(|one| &one.counters));
        receive.chain(transmit).fold(0, |sum, counters| sum.wrapping_add(counters.frames()))
    }

    /// Waits until the bursts that are in work are through: what they wrote was told of then.
    pub(crate) fn wait_for_bursts(&self) {
        self.port.ingress().iter().for_each(|cell| drop(cell.lock()));
        self.port.egress().iter().for_each(|cell| drop(cell.lock()));
    }

    /// What all queues received and sent.
    pub(crate) fn counts(&self) -> (Counts, Counts) {
        let (mut receive, mut transmit) = (Counts::default(), Counts::default());
        self.receive.iter().for_each(|one| receive.add(&one.counters.get()));
        self.transmit.iter().for_each(|one| transmit.add(&one.counters.get()));
        (receive, transmit)
    }
}
