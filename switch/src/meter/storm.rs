//! Storm control: what one port may send of frames that are copied to many.
//!
//! A broadcast costs the switch one delivery for each member of its VLAN, and each of them the handling of a frame. So
//! what a port may send of broadcast, multicast and unknown unicast is limited by a meter for each kind, in packets or in
//! bits; a port without limits has none. Known multicast counts as multicast too: it is replicated all the same.

use std::sync::Arc;

use fabnic_wire::MacAddr;

use super::{Meter, MeterError, MeterSettings, MeterStats, Unit};

/// Why a frame goes to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloodKind {
    /// To everybody (ff:ff:ff:ff:ff:ff).
    Broadcast,
    /// To a group.
    Multicast,
    /// To one station, of which it is not known where it is.
    UnknownUnicast,
}

impl FloodKind {
    /// All kinds.
    pub const ALL: [FloodKind; 3] = [FloodKind::Broadcast, FloodKind::Multicast, FloodKind::UnknownUnicast];

    /// The kind of a frame to this address; `is_known` says whether the port it is behind is known. `None` of a frame that
    /// goes to one port.
    pub fn of(dst: MacAddr, is_known: bool) -> Option<FloodKind> {
        if dst.is_broadcast() {
            Some(FloodKind::Broadcast)
        } else if dst.is_multicast() {
            Some(FloodKind::Multicast)
        } else {
            (!is_known).then_some(FloodKind::UnknownUnicast)
        }
    }
}

/// The limit of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormLimit {
    /// Bits or packets.
    pub unit: Unit,
    /// Bits or packets a second; 0 refuses the kind but for its first burst.
    pub rate: u64,
    /// Bytes or packets that may come at once ([`Unit::default_burst`] is a choice).
    pub burst: u64,
}

impl StormLimit {
    fn policer(&self) -> MeterSettings {
        MeterSettings::policer(self.unit, self.rate, self.burst)
    }
}

/// The limits of a port. None: unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StormSettings {
    /// For broadcast.
    pub broadcast: Option<StormLimit>,
    /// For multicast.
    pub multicast: Option<StormLimit>,
    /// For unknown unicast.
    pub unknown_unicast: Option<StormLimit>,
}

impl StormSettings {
    /// The limit of a kind.
    pub fn limit(&self, kind: FloodKind) -> Option<StormLimit> {
        match kind {
            FloodKind::Broadcast => self.broadcast,
            FloodKind::Multicast => self.multicast,
            FloodKind::UnknownUnicast => self.unknown_unicast,
        }
    }

    /// Whether the limits make sense.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), MeterError> {
        let mut limits = FloodKind::ALL.into_iter().filter_map(|kind| self.limit(kind));
        limits.try_for_each(|limit| limit.policer().check())
    }
}

/// The meters of one port.
#[derive(Clone, Debug, Default)]
pub(crate) struct StormControl {
    meters: [Option<Arc<Meter>>; 3],
}

impl StormControl {
    /// Meters for these limits. Where `old` has one for a kind, it is changed in place and goes on.
    ///
    /// # Errors
    /// A limit makes no sense; nothing has changed.
    pub(crate) fn new(
        settings: &StormSettings,
        old: Option<&StormControl>,
    ) -> Result<StormControl, MeterError> {
        settings.check()?;
        let mut meters = [const { None }; 3];
        for (kind, place) in FloodKind::ALL.into_iter().zip(&mut meters) {
            let Some(settings) = settings.limit(kind).map(|limit| limit.policer()) else { continue };
            *place = Some(match old.and_then(|old| old.meter(kind)) {
                Some(meter) => {
                    meter.change(settings)?;
                    Arc::clone(meter)
                }
                None => Arc::new(Meter::new(settings)?),
            });
        }
        Ok(StormControl { meters })
    }

    /// The meter of a kind, if it is limited.
    pub(crate) fn meter(&self, kind: FloodKind) -> Option<&Arc<Meter>> {
        self.meters.get(kind as usize)?.as_ref()
    }

    /// The numbers of a kind, if it is limited.
    pub(crate) fn stats(&self, kind: FloodKind) -> Option<MeterStats> {
        self.meter(kind).map(|meter| meter.stats())
    }
}
