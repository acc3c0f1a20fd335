//! The switch without threads: the same engine, polled by the caller under a time of the caller's.
//!
//! For property tests, for counting instructions and allocations, and for simulations; the daemon uses
//! [`crate::Switch`].

use std::sync::Arc;

use fabnic_port::{Burst, Fault, Port, PortId};

use crate::engine::{Engine, Moment};
use crate::fdb::Fdb;
use crate::settings::PortSettings;
use crate::stats::SwitchTotals;
use crate::switch::{Shared, SwitchConfig};
use crate::topology::Topology;

/// A switch that moves frames when it is told to.
pub struct InlineSwitch {
    shared: Shared,
    engine: Engine,
    topology: Arc<Topology>,
    burst: Burst,
    now: u32,
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
        InlineSwitch { shared, engine, topology, burst: Burst::new(), now: 0 }
    }

    /// Makes these the switch's ports, as [`crate::Switch::set_ports`] does.
    pub fn set_ports(&mut self, ports: Vec<(Arc<Port>, PortSettings)>) {
        let (topology, _gone) = self.shared.publish(ports);
        self.engine.adopt(&topology);
        self.topology = topology;
    }

    /// Moves the time, in seconds since the start, and forgets addresses that are due.
    pub fn tick(&mut self, now: u32) {
        self.now = now;
        self.shared.age(now);
        self.engine.housekeeping();
    }

    /// Receives one burst from a port's queue, and delivers it. Gives the number of frames.
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
        let at = Moment { topology: &self.topology, fdb: &self.shared.fdb, now: self.now };
        let (frames, received) = self.engine.serve(&at, index, cell, ingress.as_mut(), &mut self.burst);
        received.map(|()| frames)
    }

    /// The forwarding database.
    pub fn fdb(&self) -> &Fdb {
        &self.shared.fdb
    }

    /// Sums over all present ports.
    pub fn totals(&self) -> SwitchTotals {
        SwitchTotals::sum(
            self.topology.members.iter().map(|member| &*member.port),
            self.engine.counters.replicated,
        )
    }
}
