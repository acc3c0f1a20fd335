//! Several meters for one frame: a rule's over its port's over its tenant's.
//!
//! ```text
//!   frame --> [port: 1 Gb/s] --> [tenant: 5 Gb/s, shared by its ports] --> passes only if none drops it
//!             '---------- all locked, in one fixed order, frame by frame -------------'
//! ```
//!
//! The meters are asked from the innermost to the outermost; a color-aware one sees the worst color so far. Only when
//! *none* of them drops the frame are the tokens taken, of all. So a frame that the tenant's meter refuses does not use up
//! its port's rate, and a port that is over its own rate does not use up its tenant's: each meter's tokens go to frames
//! that really pass. (To take at each meter as a frame passes it would let one port that is refused by its tenant's meter
//! count against itself, and one that is refused by its own count nowhere; which of the two happens would depend on
//! the order.) The price is that all meters of the chain are locked at once, for one burst.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Charge, Color, ColorAction, Marking, Meter, MeterError, REFUSED, State};

/// The most meters that a frame can pass.
pub const MAX_CHAIN: usize = 4;

/// Meters from the innermost to the outermost.
#[derive(Clone, Debug)]
pub(crate) struct MeterChain {
    meters: Box<[Arc<Meter>]>,
    /// Indexes into `meters`, in the order of the meters' addresses: the order in which everybody locks them.
    lock_order: Box<[usize]>,
}

impl MeterChain {
    /// A chain of at most [`MAX_CHAIN`] different meters.
    ///
    /// # Errors
    /// Too many, or one is there twice.
    pub(crate) fn new(meters: Vec<Arc<Meter>>) -> Result<MeterChain, MeterError> {
        if meters.len() > MAX_CHAIN {
            return Err(MeterError::ChainLength(meters.len()));
        }
        let mut order: Vec<(*const Meter, usize)> =
            meters.iter().enumerate().map(|(index, meter)| (Arc::as_ptr(meter), index)).collect();
        order.sort_by_key(|(meter, _)| *meter);
        let is_same = |pair: &[(*const Meter, usize)]| matches!(pair, [one, other] if one.0 == other.0);
        if order.windows(2).any(is_same) {
            return Err(MeterError::Twice);
        }
        Ok(MeterChain {
            meters: meters.into_boxed_slice(),
            lock_order: order.into_iter().map(|(_, index)| index).collect(),
        })
    }

    /// The meters, innermost first.
    pub(crate) fn meters(&self) -> &[Arc<Meter>] {
        &self.meters
    }

    /// Whether the colors of DSCPs count to one of them.
    pub(crate) fn reads_dscp(&self) -> bool {
        self.meters.iter().any(|meter| meter.reads_dscp())
    }

    /// Charges frames as a whole, as [`Meter::charge_green`] does: if all are green to all meters.
    pub(crate) fn charge_green(&self, now_ns: u64, total: Charge) -> bool {
        if let [only] = &*self.meters {
            return only.charge_green(now_ns, total);
        }
        let mut states = self.lock(now_ns);
        let good = states.iter().flatten().all(|state| state.has_for_all(total));
        if good {
            for (meter, state) in self.meters.iter().zip(states.iter_mut().flatten()) {
                meter.take_green(state, total);
            }
        }
        good
    }

    /// The meters' states, in their order in the chain.
    #[inline]
    fn lock(&self, now_ns: u64) -> [Option<MutexGuard<'_, State>>; MAX_CHAIN] {
        let mut states: [Option<MutexGuard<'_, State>>; MAX_CHAIN] = [const { None }; MAX_CHAIN];
        for &index in &self.lock_order {
            if let (Some(meter), Some(place)) = (self.meters.get(index), states.get_mut(index)) {
                let state = place.insert(meter.state.lock());
                state.refill(now_ns);
            }
        }
        states
    }

    /// Charges frames one after the other, as [`Meter::charge_run`] does: each passes all meters, or takes nothing.
    pub(crate) fn charge_run(&self, now_ns: u64, charges: &[Charge], markings: &mut [Marking]) {
        if let [only] = &*self.meters {
            return only.charge_run(now_ns, charges, markings);
        }
        let mut states = self.lock(now_ns);
        for (charge, marking) in charges.iter().zip(markings) {
            if !marking.is_dropped {
                self.charge_one(&mut states, *charge, marking);
            }
        }
    }

    fn charge_one(
        &self,
        states: &mut [Option<MutexGuard<'_, State>>; MAX_CHAIN],
        charge: Charge,
        marking: &mut Marking,
    ) {
        let mut said = [(Color::Green, ColorAction::Pass, 0); MAX_CHAIN];
        for (state, said) in states.iter().flatten().zip(&mut said) {
            *said = state.look(charge, marking);
            marking.apply(said.0, said.1);
        }
        for ((meter, state), (color, action, tokens)) in
            self.meters.iter().zip(states.iter_mut().flatten()).zip(said)
        {
            let refused_by_other = marking.is_dropped && action != ColorAction::Drop;
            if !marking.is_dropped {
                state.buckets.take(color, tokens);
            }
            let place = if refused_by_other { REFUSED } else { color as usize };
            meter.tallies.add(place, charge, state.settings.overhead);
        }
    }
}
