//! Tokens and counters of meters and rates, wherever they stand.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_saved::{self as records, MeterPlace as Place, Name, Section};

use super::{Arrival, Chunks, Lost, Put};
use crate::meter::Meter;
use crate::metering::MeterPlace;
use crate::shaper::RateLimiter;
use crate::switch::Shared;
use crate::topology::Topology;

/// Records of a section: each takes some 420 bytes at most.
const MOST: usize = 1024;

/// A meter, or a rate.
enum Metering<'a> {
    Meter(Arc<Meter>),
    Rate(&'a RateLimiter),
}

/// All meters and rates, by where they stand.
pub(super) struct Places<'a>(HashMap<Place, Metering<'a>>);

impl Shared {
    /// All of them, each with its place in records.
    fn each_meter<'a>(
        &self,
        topology: &'a Topology,
        of: Option<PortId>,
        each: &mut dyn FnMut(Place, Metering<'a>) -> io::Result<()>,
    ) -> io::Result<()> {
        if of.is_none() {
            for (place, meter) in topology.meters.all() {
                let place = match place {
                    MeterPlace::Named(name) => Place::Named(Name::fitting(&name)),
                    MeterPlace::Tenant(tenant) => Place::Tenant(tenant),
                    _ => continue,
                };
                each(place, Metering::Meter(Arc::clone(meter)))?;
            }
            let (mut last, mut nth) = (String::new(), 0_u8);
            for (name, meter) in self.tables.rules.policers() {
                nth = if name == last { nth.saturating_add(1) } else { 0 };
                each(Place::Rule(Name::fitting(&name), nth), Metering::Meter(meter))?;
                last = name;
            }
            for (tenant, rate) in topology.meters.rates() {
                each(Place::TenantHeld(tenant), Metering::Rate(rate))?;
            }
        }
        let wanted = topology.members.iter().filter(|member| of.is_none_or(|port| port == member.port.id));
        for member in wanted {
            let id = member.port.id.0;
            for (place, meter) in member.meters.all(member.port.id) {
                let place = match place {
                    MeterPlace::Ingress(_) => Place::Ingress(id),
                    MeterPlace::Egress(_) => Place::Egress(id),
                    MeterPlace::Storm(_, kind) => Place::Storm(id, kind as u8),
                    _ => continue,
                };
                each(place, Metering::Meter(Arc::clone(meter)))?;
            }
            let Some(shaper) = &member.meters.shaper else { continue };
            if let Some(rate) = shaper.max_limiter() {
                each(Place::Held(id), Metering::Rate(rate))?;
            }
            if let Some(rate) = shaper.min_limiter() {
                each(Place::Guaranteed(id), Metering::Rate(rate))?;
            }
        }
        Ok(())
    }

    pub(super) fn save_meters(
        &self,
        topology: &Topology,
        of: Option<PortId>,
        now_ns: u64,
        put: &mut Put<'_>,
    ) -> io::Result<()> {
        let mut chunks = Chunks::new(MOST, Section::Meters, put);
        self.each_meter(topology, of, &mut |place, metering| {
            chunks.push(match metering {
                Metering::Meter(meter) => meter.save(place, now_ns),
                Metering::Rate(rate) => rate.save(place, now_ns),
            })
        })?;
        chunks.finish()
    }

    /// All meters and rates, to be found by their places.
    pub(super) fn meter_places<'a>(&self, topology: &'a Topology) -> Places<'a> {
        let mut places = HashMap::new();
        // Nothing in it fails.
        let _ = self.each_meter(topology, None, &mut |place, metering| {
            places.insert(place, metering);
            Ok(())
        });
        Places(places)
    }
}

impl Places<'_> {
    pub(super) fn restore(
        &self,
        saved: &records::Meter,
        arrival: &Arrival<'_>,
        now_ns: u64,
    ) -> Result<(), Lost> {
        let tenant = |number: u32| (arrival.tenant)(number).ok_or(Lost::Unconfigured);
        let port = |number: u32| Ok(arrival.port(number)?.0);
        let place = match &saved.place {
            Place::Named(_) | Place::Rule(..) => saved.place.clone(),
            Place::Tenant(number) => Place::Tenant(tenant(*number)?),
            Place::TenantHeld(number) => Place::TenantHeld(tenant(*number)?),
            Place::Ingress(number) => Place::Ingress(port(*number)?),
            Place::Egress(number) => Place::Egress(port(*number)?),
            Place::Storm(number, kind) => Place::Storm(port(*number)?, *kind),
            Place::Held(number) => Place::Held(port(*number)?),
            Place::Guaranteed(number) => Place::Guaranteed(port(*number)?),
        };
        let (counters, passed_ns) = (arrival.counters, arrival.nanoseconds());
        match self.0.get(&place).ok_or(Lost::Unconfigured)? {
            Metering::Meter(meter) => meter.restore(saved, counters, passed_ns, now_ns),
            Metering::Rate(rate) => rate.restore(saved, counters, passed_ns, now_ns),
        }
        Ok(())
    }
}
