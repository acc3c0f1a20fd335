//! The meters of a configuration, where the data path asks for them: those of ports, of tenants and those that rules name.
//!
//! Buckets and counters outlive a configuration: a meter that is there again is changed in place.

use std::sync::Arc;

use crate::meter::{FloodKind, Meter, MeterChain, MeterSettings, MeterStats, Metered, StormControl};
use crate::settings::{NamedMeter, PortSettings, TenantPolicy};
use crate::shaper::{Rate, RateLimiter};

/// The meters that rules name, and those of tenants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    pub(crate) named: Vec<(String, Arc<Meter>)>,
    tenants: Vec<(u32, Arc<Meter>)>,
}

/// The meters of a port.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortMeters {
    own: Option<Arc<Meter>>,
    /// Its own meter, and its tenant's over it.
    pub(crate) ingress: Option<Arc<MeterChain>>,
    pub(crate) egress: Option<Arc<Meter>>,
    pub(crate) storm: StormControl,
    pub(crate) max_rate: Option<Arc<RateLimiter>>,
}

/// What the meters of a port have seen; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortMeterStats {
    /// Of what it sends.
    pub ingress: Option<MeterStats>,
    /// Of what is sent to it.
    pub egress: Option<MeterStats>,
    /// Of what it floods: broadcast, multicast, unknown unicast.
    pub storm: [Option<MeterStats>; 3],
    /// What was read from it while it was held to its rate.
    pub held: Option<Metered>,
}

/// A meter with these settings: the old one, changed, if there is one. `None` where they make no sense, which whoever made
/// the configuration was told.
fn renew(old: Option<&Arc<Meter>>, settings: MeterSettings) -> Option<Arc<Meter>> {
    match old {
        Some(old) if old.settings() == settings => Some(Arc::clone(old)),
        Some(old) => old.change(settings).ok().map(|()| Arc::clone(old)),
        None => Meter::new(settings).map(Arc::new).ok(),
    }
}

impl Meters {
    pub(crate) fn new(named: &[NamedMeter], tenants: &[TenantPolicy], old: &Meters) -> Meters {
        let named = named
            .iter()
            .filter_map(|meter| Some((meter.name.clone(), renew(old.named(&meter.name), meter.settings)?)));
        let tenants = tenants.iter().filter_map(|policy| {
            Some((policy.tenant, renew(old.tenant(policy.tenant), policy.police_ingress?)?))
        });
        Meters { named: named.collect(), tenants: tenants.collect() }
    }

    /// The meter of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Meter>> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, meter)| meter)
    }

    fn tenant(&self, number: u32) -> Option<&Arc<Meter>> {
        self.tenants.iter().find(|(known, _)| *known == number).map(|(_, meter)| meter)
    }
}

impl PortMeters {
    /// The meters of a port with these settings.
    pub(crate) fn new(settings: &PortSettings, meters: &Meters, old: Option<&PortMeters>) -> PortMeters {
        let own =
            settings.police_ingress.and_then(|meter| renew(old.and_then(|old| old.own.as_ref()), meter));
        let tenant = settings.tenant.and_then(|number| meters.tenant(number));
        let chain: Vec<_> = own.iter().chain(tenant).cloned().collect();
        let same = |old: &&Arc<MeterChain>| {
            old.meters().len() == chain.len()
                && old.meters().iter().zip(&chain).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let ingress = match old.and_then(|old| old.ingress.as_ref()).filter(same) {
            Some(same) => Some(Arc::clone(same)),
            None if chain.is_empty() => None,
            None => MeterChain::new(chain).map(Arc::new).ok(),
        };
        let egress =
            settings.police_egress.and_then(|meter| renew(old.and_then(|old| old.egress.as_ref()), meter));
        let storm = StormControl::new(&settings.storm, old.map(|old| &old.storm)).unwrap_or_default();
        let max_rate =
            settings.max_tx_rate.map(|rate| limiter(old.and_then(|old| old.max_rate.as_ref()), rate));
        PortMeters { own, ingress, egress, storm, max_rate }
    }

    /// What they have seen.
    pub(crate) fn stats(&self) -> PortMeterStats {
        PortMeterStats {
            ingress: self.own.as_ref().map(|meter| meter.stats()),
            egress: self.egress.as_ref().map(|meter| meter.stats()),
            storm: FloodKind::ALL.map(|kind| self.storm.stats(kind)),
            held: self.max_rate.as_ref().map(|limiter| limiter.charged()),
        }
    }
}

fn limiter(old: Option<&Arc<RateLimiter>>, rate: Rate) -> Arc<RateLimiter> {
    match old {
        Some(old) => {
            if old.rate() != rate {
                old.change(rate);
            }
            Arc::clone(old)
        }
        None => Arc::new(RateLimiter::new(rate)),
    }
}
