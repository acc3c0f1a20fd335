//! Meters, as the API shows them.

use fabnic_api::{MeterFilter, MeterPlace, MeterStatus, Passed, TokenBucket};
use fabnic_model::{Domain, Object as _};
use fabnic_switch::{Algorithm, FloodKind, MeterPlace as Place, MeterState, Metered, Unit};

use crate::agent::Agent;

fn shown(id: String, place: MeterPlace, state: &MeterState) -> MeterStatus {
    let bucket = |rate, burst, tokens| TokenBucket { rate, burst, tokens };
    let (committed, peak, excess) = match state.settings.algorithm {
        Algorithm::SingleRate { cir, cbs, ebs } => {
            let excess = (ebs > 0).then(|| bucket(None, ebs, state.other));
            (bucket(Some(cir), cbs, state.committed), None, excess)
        }
        Algorithm::TwoRate { cir, cbs, pir, pbs } => {
            let peak = bucket(Some(pir), pbs, state.other);
            (bucket(Some(cir), cbs, state.committed), Some(peak), None)
        }
        Algorithm::TwoRateEfficient { cir, cbs, eir, ebs } => {
            let excess = bucket(Some(eir), ebs, state.other);
            (bucket(Some(cir), cbs, state.committed), None, Some(excess))
        }
    };
    let passed = |metered: Metered| Passed { frames: metered.packets, bytes: metered.bytes };
    MeterStatus {
        id,
        place,
        packets: state.settings.unit == Unit::Packets,
        committed,
        peak,
        excess,
        green: passed(state.stats.green),
        yellow: passed(state.stats.yellow),
        red: passed(state.stats.red),
        refused_by_other: passed(state.stats.refused_by_other),
    }
}

impl Agent {
    pub(crate) fn show_meters(&self, domain: &Domain, filter: &MeterFilter) -> Vec<MeterStatus> {
        let running = self.running();
        let desired = self.desired.read();
        let mut list = Vec::new();
        for (place, state) in self.switch.meter_states() {
            let (port, place) = match place {
                Place::Named(name) => {
                    let sees = desired.find_meter(&name).is_some_and(|meter| domain.sees(meter.tenant()));
                    if sees && filter.port.is_none() {
                        list.push(shown(name, MeterPlace::Rule, &state));
                    }
                    continue;
                }
                Place::Rule(name) => {
                    let sees = desired.find_rule(&name).is_some_and(|rule| domain.sees(rule.tenant()));
                    if sees && filter.port.is_none() {
                        list.push(shown(name, MeterPlace::RulePolice, &state));
                    }
                    continue;
                }
                Place::Tenant(number) => {
                    let name = running.tenants.iter().find(|(_, known)| **known == number);
                    let seen = name.filter(|(name, _)| domain.sees(Some(name)) && filter.port.is_none());
                    list.extend(seen.map(|(name, _)| shown(name.clone(), MeterPlace::Tenant, &state)));
                    continue;
                }
                Place::Ingress(port) => (port, MeterPlace::Police),
                Place::Egress(port) => (port, MeterPlace::PoliceEgress),
                Place::Storm(port, FloodKind::Broadcast) => (port, MeterPlace::StormBroadcast),
                Place::Storm(port, FloodKind::Multicast) => (port, MeterPlace::StormMulticast),
                Place::Storm(port, FloodKind::UnknownUnicast) => (port, MeterPlace::StormUnknownUnicast),
            };
            // A port that is gone by now had meters until then.
            let Some(config) = running.by_id(port).map(|entry| &entry.config) else { continue };
            let is_meant = filter.port.as_ref().is_none_or(|name| *name == config.name);
            if is_meant && domain.sees(config.tenant.as_deref()) {
                list.push(shown(config.name.clone(), place, &state));
            }
        }
        list
    }
}
