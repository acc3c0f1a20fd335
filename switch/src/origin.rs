//! Frames that the switch itself sends: answers, queries, announcements.
//!
//! They lie in memory of the switch's own and leave as any other frame does: with the receiving port's state, MTU and tag.
//! A worker has one such place for the answers that its walks gave, the keeper another for what is due by time.
//!
//! # Invariants
//! * Nothing is allocated after [`Origin::new`]; what does not fit is not sent, and said so by `false`.
//! * Each frame that was sent is counted as delivered or dropped at its port, and in what [`Origin::send`] gives, so that
//!   the numbers add up: received + replicated = delivered + dropped.

use std::sync::Arc;

use fabnic_memory::{Hint, Map, MapError};
use fabnic_port::{BURST, Burst, DropReason, Tally};
use fabnic_wire::{Vid, flow_hash};

use crate::engine::hand_over;
use crate::fdb::Tick;
use crate::stage::egress;
use crate::topology::Topology;

/// The longest frame that the switch sends of its own, in bytes.
pub const LONGEST: usize = 2048;

/// A frame that waits to be sent.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Index of the port that it leaves by.
    to: u32,
    /// In this VLAN; `None`: as it is, without a look at the port's VLANs and MTU.
    vlan: Option<Vid>,
}

/// Frames of the switch's own, up to a burst.
pub(crate) struct Origin {
    map: Arc<Map>,
    burst: Burst,
    waiting: Vec<Waiting>,
    tally: Tally,
}

impl Origin {
    /// Room for a burst.
    ///
    /// # Errors
    /// When there is no memory to be had.
    pub(crate) fn new() -> Result<Origin, MapError> {
        let (map, _) = Map::anonymous((BURST * LONGEST) as u64)?;
        let mut burst = Burst::new();
        burst.begin(&map);
        Ok(Origin { map, burst, waiting: Vec::with_capacity(BURST), tally: Tally::default() })
    }

    /// Whether nothing waits.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds an untagged frame that is to leave by the port with this index, in this VLAN. `false` if it is longer than
    /// [`LONGEST`] or as many wait as there is room for.
    pub(crate) fn push(&mut self, to: u32, vlan: Vid, bytes: &[u8]) -> bool {
        self.add(Waiting { to, vlan: Some(vlan) }, bytes)
    }

    /// Adds a frame that is to leave by the port with this index as it is: the copy of a mirror.
    pub(crate) fn push_as_is(&mut self, to: u32, bytes: &[u8]) -> bool {
        self.add(Waiting { to, vlan: None }, bytes)
    }

    fn add(&mut self, waiting: Waiting, bytes: &[u8]) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        let at = self.waiting.len();
        if bytes.len() > LONGEST || at >= BURST {
            return false;
        }
        let place = (at * LONGEST) as u64;
        let Some(slice) = self.map.translate(place, len, &mut Hint::default()) else { return false };
        self.map.write(&slice, 0, bytes);
        let first = self.burst.slices().len();
        self.burst.slices_mut().push(slice);
        if self.burst.push(first, 1, 0, len).is_none() {
            return false;
        }
        self.waiting.push(waiting);
        true
    }

    /// Sends what waits. Gives how many frames there were.
    pub(crate) fn send(&mut self, topology: &Topology, now: Tick) -> u64 {
        let mut sent = 0;
        for index in 0..self.waiting.len() {
            let Some(Waiting { to, vlan }) = self.waiting.get(index).copied() else { break };
            let (Some(member), Ok(pick)) = (topology.member(to), u8::try_from(index)) else { continue };
            let Some(frame) = self.burst.frames_mut().get_mut(index) else { continue };
            sent += 1;
            let port = &member.port;
            let refused = match egress::closed(member) {
                Some(reason) => Some(reason),
                None if vlan.is_some() && frame.len() > member.longest => Some(DropReason::EgressMtu),
                None if port.egress_in_use() == 0 => Some(DropReason::NotReady),
                None => None,
            };
            if let Some(reason) = refused {
                port.tx_drops.add(reason, 1);
                continue;
            }
            if let Some(vlan) = vlan {
                egress::set_tag(frame, false, member.tpid, egress::tag(member, vlan, 0));
            }
            let queues = port.egress_in_use() as u64;
            let queue = (u64::from(flow_hash(frame.head())) * queues) >> 32;
            hand_over(&mut self.tally, now, port, queue as usize, &[pick], &mut self.burst);
        }
        self.waiting.clear();
        let map = Arc::clone(&self.map);
        self.burst.begin(&map);
        sent
    }
}
