//! The meters of a configuration, where the data path asks for them: those of ports, of tenants and those that rules name.
//!
//! Buckets and counters outlive a configuration: a meter that is there again is changed in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use fabnic_port::PortId;

use crate::meter::{
    FloodKind, MAX_CHAIN, Meter, MeterChain, MeterSettings, MeterStats, Metered, StormControl,
};
use crate::settings::{NamedMeter, PortSettings, TenantPolicy};
use crate::shaper::{FairShare, PortShaper, Rate, RateLimiter};

/// The meters that rules name, and those of tenants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    named: BTreeMap<String, Named>,
    tenants: Vec<(u32, Arc<Meter>)>,
    /// What the ports of a tenant may send together.
    groups: Vec<(u32, Arc<RateLimiter>)>,
}

/// A meter that rules name.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    meter: Arc<Meter>,
    /// It and those over it; what a rule charges.
    pub(crate) chain: Arc<MeterChain>,
}

/// The meters of a port.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortMeters {
    own: Option<Arc<Meter>>,
    /// Its own meter, and its tenant's over it.
    pub(crate) ingress: Option<Arc<MeterChain>>,
    pub(crate) egress: Option<Arc<Meter>>,
    pub(crate) storm: StormControl,
    /// When it is read.
    pub(crate) shaper: Option<Arc<PortShaper>>,
    /// What senders may send to it while it is congested.
    pub(crate) share: Option<Arc<FairShare>>,
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
    /// What of it its guaranteed rate paid for.
    pub guaranteed: Option<Metered>,
    /// While it is congested: what each sender may send to it, in bytes a second (256 bytes more for each packet), at the
    /// default weight.
    pub share: Option<u64>,
}

/// Where a meter stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeterPlace {
    /// In rules that name it.
    Named(String),
    /// In a rule of this name, as the rule's own.
    Rule(String),
    /// Over what all ports of a tenant send.
    Tenant(u32),
    /// Over what a port sends.
    Ingress(PortId),
    /// Over what is sent to a port.
    Egress(PortId),
    /// Over what a port floods, of one kind.
    Storm(PortId, FloodKind),
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

/// A chain of these meters: the old one, if it is of the same, so that flows that hold it go on.
fn renew_chain(old: Option<&Arc<MeterChain>>, meters: Vec<Arc<Meter>>) -> Option<Arc<MeterChain>> {
    let same = |old: &&Arc<MeterChain>| {
        let pairs = old.meters().iter().zip(&meters);
        old.meters().len() == meters.len() && pairs.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
    };
    match old.filter(same) {
        Some(same) => Some(Arc::clone(same)),
        None => MeterChain::new(meters).map(Arc::new).ok(),
    }
}

impl Meters {
    pub(crate) fn new(named: &[NamedMeter], policies: &[TenantPolicy], old: &Meters) -> Meters {
        let meters: BTreeMap<&str, (Arc<Meter>, Option<&str>)> = named
            .iter()
            .filter_map(|meter| {
                let before = old.named.get(&meter.name).map(|named| &named.meter);
                let parent = meter.parent.as_deref();
                Some((meter.name.as_str(), (renew(before, meter.settings)?, parent)))
            })
            .collect();
        let chained = meters.iter().filter_map(|(name, (meter, parent))| {
            let (mut chain, mut next) = (vec![Arc::clone(meter)], *parent);
            while let Some((over, parent)) = next.and_then(|name| meters.get(name)) {
                // Longer ones, and circles, were refused before they came here.
                if chain.len() >= MAX_CHAIN {
                    return None;
                }
                chain.push(Arc::clone(over));
                next = *parent;
            }
            let before = old.named.get(*name).map(|named| &named.chain);
            let chain = renew_chain(before, chain)?;
            Some(((*name).to_owned(), Named { meter: Arc::clone(meter), chain }))
        });
        let named = chained.collect();
        let tenants = policies.iter().filter_map(|policy| {
            Some((policy.tenant, renew(old.tenant(policy.tenant), policy.police_ingress?)?))
        });
        let groups = policies.iter().filter_map(|policy| {
            Some((policy.tenant, limiter(old.group(policy.tenant), policy.max_tx_rate?)))
        });
        Meters { named, tenants: tenants.collect(), groups: groups.collect() }
    }

    /// All of them, with where they stand.
    pub(crate) fn all(&self) -> impl Iterator<Item = (MeterPlace, &Arc<Meter>)> {
        let named = self.named.iter().map(|(name, named)| (MeterPlace::Named(name.clone()), &named.meter));
        named.chain(self.tenants.iter().map(|(number, meter)| (MeterPlace::Tenant(*number), meter)))
    }

    /// What tenants' ports may send together.
    pub(crate) fn rates(&self) -> impl Iterator<Item = (u32, &RateLimiter)> {
        self.groups.iter().map(|(tenant, rate)| (*tenant, &**rate))
    }

    /// What a rule charges that names this meter: it, and those over it.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<MeterChain>> {
        self.named.get(name).map(|named| &named.chain)
    }

    fn group(&self, number: u32) -> Option<&Arc<RateLimiter>> {
        self.groups.iter().find(|(known, _)| *known == number).map(|(_, group)| group)
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
        let before = old.and_then(|old| old.ingress.as_ref());
        let ingress = if chain.is_empty() { None } else { renew_chain(before, chain) };
        let egress =
            settings.police_egress.and_then(|meter| renew(old.and_then(|old| old.egress.as_ref()), meter));
        let storm = StormControl::new(&settings.storm, old.map(|old| &old.storm)).unwrap_or_default();
        let groups = settings.tenant.and_then(|number| meters.group(number)).into_iter().cloned();
        let before = old.and_then(|old| old.shaper.as_deref());
        let shaper = PortShaper::new(settings.shaper(), groups.collect(), before);
        let shaper = (!shaper.is_plain()).then(|| Arc::new(shaper));
        let share = || old.and_then(|old| old.share.clone()).unwrap_or_default();
        let share = settings.fair_share.then(share);
        PortMeters { own, ingress, egress, storm, shaper, share }
    }

    /// Whether there is something to be done with what is sent to it.
    pub(crate) fn at_egress(&self) -> bool {
        self.egress.is_some() || self.share.is_some()
    }

    /// Whether senders are to be read in turns because of it.
    pub(crate) fn is_shaped(&self) -> bool {
        self.share.is_some() || self.shaper.is_some()
    }

    /// All of them, with where they stand.
    pub(crate) fn all(&self, port: PortId) -> impl Iterator<Item = (MeterPlace, &Arc<Meter>)> {
        let own = self.own.iter().map(move |meter| (MeterPlace::Ingress(port), meter));
        let egress = self.egress.iter().map(move |meter| (MeterPlace::Egress(port), meter));
        let kinds = FloodKind::ALL.into_iter();
        let storm =
            kinds.filter_map(move |kind| Some((MeterPlace::Storm(port, kind), self.storm.meter(kind)?)));
        own.chain(egress).chain(storm)
    }

    /// What they have seen.
    pub(crate) fn stats(&self) -> PortMeterStats {
        PortMeterStats {
            ingress: self.own.as_ref().map(|meter| meter.stats()),
            egress: self.egress.as_ref().map(|meter| meter.stats()),
            storm: FloodKind::ALL.map(|kind| self.storm.stats(kind)),
            held: self.shaper.as_ref().and_then(|shaper| Some(shaper.max_limiter()?.charged())),
            guaranteed: self.shaper.as_ref().and_then(|shaper| Some(shaper.min_limiter()?.charged())),
            share: self.share.as_ref().and_then(|share| share.common_rate()),
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
