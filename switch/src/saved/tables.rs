//! Addresses, bindings, and clients that wait for their servers.

use std::io;

use fabnic_port::PortId;
use fabnic_saved::{self as records, Section};
use fabnic_wire::{MacAddr, Vid};

use super::{Arrival, Chunks, Lost, Put, member};
use crate::fdb::Tick;
use crate::guard::{Binding, BindingError, BindingOrigin};
use crate::switch::Shared;
use crate::topology::Topology;

/// Records of a section: each takes some 60 bytes at most.
const MOST: usize = 4096;

fn vid(number: u16) -> Result<Vid, Lost> {
    Vid::new(number).map_err(|_| Lost::Malformed)
}

/// The address of one station.
fn station(mac: [u8; 6]) -> Result<MacAddr, Lost> {
    let mac = MacAddr::new(mac);
    if mac.is_unicast() && !mac.is_zero() { Ok(mac) } else { Err(Lost::Malformed) }
}

/// What is left of a time of which this much has gone by. None of it: it is over.
fn left(seconds: u32, passed: u32) -> Result<u32, Lost> {
    seconds.checked_sub(passed).filter(|left| *left > 0).ok_or(Lost::Expired)
}

impl Shared {
    pub(super) fn save_fdb(&self, of: Option<PortId>, now: Tick, put: &mut Put<'_>) -> io::Result<()> {
        let mut chunks = Chunks::new(MOST, Section::Fdb, put);
        self.tables.fdb.save(of, now, &mut |records| chunks.extend(records))?;
        chunks.finish()
    }

    pub(super) fn restore_address(
        &self,
        topology: &Topology,
        saved: &records::FdbEntry,
        arrival: &Arrival<'_>,
        now: Tick,
    ) -> Result<(), Lost> {
        let (vlan, mac, port) = (vid(saved.vlan)?, station(saved.mac)?, arrival.port(saved.port)?);
        let member = member(topology, port)?;
        if !member.settings.vlan.is_member(vlan) {
            return Err(Lost::NoMember);
        }
        let age = saved.age_s.saturating_add(arrival.seconds());
        if self.longest_age().is_some_and(|longest| age > longest) {
            return Err(Lost::Expired);
        }
        let freeze = records::Freeze {
            left_s: saved.freeze.left_s.and_then(|seconds| left(seconds, arrival.seconds()).ok()),
            window_age_s: saved.freeze.window_age_s.saturating_add(arrival.seconds()),
            ..saved.freeze
        };
        let saved = records::FdbEntry { age_s: age, freeze, ..*saved };
        self.tables.fdb.restore((vlan, mac, port), &saved, &member.quota, now)
    }

    pub(super) fn save_bindings(&self, of: Option<PortId>, now: Tick, put: &mut Put<'_>) -> io::Result<()> {
        let mut chunks = Chunks::new(MOST, Section::Bindings, put);
        for binding in self.tables.bindings.entries() {
            let origin = match binding.origin {
                BindingOrigin::Slaac => records::BindingOrigin::Slaac,
                BindingOrigin::Dhcp => records::BindingOrigin::Dhcp,
                BindingOrigin::Dhcp6 => records::BindingOrigin::Dhcp6,
                BindingOrigin::Static => continue,
            };
            if of.is_some_and(|port| port != binding.port) {
                continue;
            }
            chunks.push(records::Binding {
                vlan: binding.vlan.get(),
                address: binding.address,
                port: binding.port.0,
                mac: binding.mac.octets(),
                origin,
                left_s: binding.expires.map(|expires| expires.saturating_sub(now)),
            })?;
        }
        chunks.finish()
    }

    pub(super) fn restore_binding(
        &self,
        topology: &Topology,
        saved: &records::Binding,
        arrival: &Arrival<'_>,
        now: Tick,
    ) -> Result<(), Lost> {
        let (vlan, mac, port) = (vid(saved.vlan)?, station(saved.mac)?, arrival.port(saved.port)?);
        if saved.address.is_unspecified() || saved.address.is_multicast() {
            return Err(Lost::Malformed);
        }
        let member = member(topology, port)?;
        if !member.settings.vlan.is_member(vlan) {
            return Err(Lost::NoMember);
        }
        let left = saved.left_s.map(|seconds| left(seconds, arrival.seconds())).transpose()?;
        let binding = Binding {
            vlan,
            address: saved.address,
            port,
            mac,
            origin: match saved.origin {
                records::BindingOrigin::Slaac => BindingOrigin::Slaac,
                records::BindingOrigin::Dhcp => BindingOrigin::Dhcp,
                records::BindingOrigin::Dhcp6 => BindingOrigin::Dhcp6,
            },
            expires: left.map(|left| now.saturating_add(left)),
        };
        match self.tables.bindings.learn_if_free(binding, member.settings.guard.max_bindings) {
            Ok(()) => Ok(()),
            Err(BindingError::Taken) => Err(Lost::Taken),
            Err(BindingError::PortFull | BindingError::TableFull) => Err(Lost::Limit),
        }
    }

    pub(super) fn save_transactions(
        &self,
        of: Option<PortId>,
        now: Tick,
        put: &mut Put<'_>,
    ) -> io::Result<()> {
        let mut chunks = Chunks::new(MOST, Section::Transactions, put);
        chunks.extend(self.tables.snooper.save(of, now))?;
        chunks.finish()
    }

    pub(super) fn restore_transaction(
        &self,
        topology: &Topology,
        saved: &records::Transaction,
        arrival: &Arrival<'_>,
        now: Tick,
    ) -> Result<(), Lost> {
        let (vlan, port) = (vid(saved.vlan)?, arrival.port(saved.port)?);
        station(saved.mac)?;
        let settings = &member(topology, port)?.settings;
        if !settings.vlan.is_member(vlan) {
            return Err(Lost::NoMember);
        }
        let left = left(saved.left_s, arrival.seconds())?;
        self.tables.snooper.restore(saved, port, now.saturating_add(left))
    }
}
