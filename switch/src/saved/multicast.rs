//! Groups, their listeners, routers and queriers.

use std::io;

use fabnic_port::PortId;
use fabnic_saved::{self as records, Section};
use fabnic_wire::Vid;

use super::{Arrival, Chunks, Lost, Put, member};
use crate::multicast::RouterPort;
use crate::switch::Shared;
use crate::topology::Topology;

/// Listeners of a section: each takes some 4.5 KB at most, with 64 IPv6 sources of which all are asked for. A VLAN is a
/// section of its own: there may be a router behind each of 10,000 ports.
const MOST: usize = 200;

impl Shared {
    pub(super) fn save_multicast(&self, of: Option<PortId>, put: &mut Put<'_>) -> io::Result<()> {
        for vlan in self.tables.multicast.snooped() {
            let Some((vlan, listeners)) = self.tables.multicast.save(vlan, of) else { continue };
            // Of a port behind which there is no router there is nothing to say.
            if of.is_none() || vlan.sides.iter().any(|side| *side != records::MulticastSide::default()) {
                put(Section::Multicast(vec![vlan]))?;
            }
            let mut chunks = Chunks::new(MOST, Section::Listeners, put);
            chunks.extend(listeners)?;
            chunks.finish()?;
        }
        Ok(())
    }

    pub(super) fn restore_vlan(
        &self,
        topology: &Topology,
        saved: &records::MulticastVlan,
        arrival: &Arrival<'_>,
    ) -> Result<(), Lost> {
        let vlan = Vid::new(saved.vlan).map_err(|_| Lost::Malformed)?;
        let port = |number: u32| {
            let port = (arrival.port)(number)?;
            let settings = &member(topology, port).ok()?.settings;
            let may = settings.multicast.router != RouterPort::Never && settings.vlan.is_member(vlan);
            may.then_some(port)
        };
        self.tables.multicast.restore(vlan, saved, port, arrival.milliseconds())
    }

    pub(super) fn restore_listener(
        &self,
        topology: &Topology,
        saved: &records::Listener,
        arrival: &Arrival<'_>,
    ) -> Result<(), Lost> {
        let vlan = Vid::new(saved.vlan).map_err(|_| Lost::Malformed)?;
        let port = arrival.port(saved.port)?;
        let settings = &member(topology, port)?.settings;
        if !settings.vlan.is_member(vlan) {
            return Err(Lost::NoMember);
        }
        let port = (port, &settings.multicast);
        self.tables.multicast.restore_listener(vlan, port, saved, arrival.milliseconds())
    }
}
