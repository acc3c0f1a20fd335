//! Who talks most: the flows of the caches by what went through them.
//!
//! Flows are counted where they are told apart, in each worker's cache. A worker looks at a piece of its cache whenever it
//! does its housekeeping, keeps the largest flows of the pass it is in, and shows them when the pass is done; whoever asks
//! gets the last whole pass of each worker.
//!
//! # Invariants
//! * A pass holds at most [`MOST`] flows, and a piece of it is bounded: it delays no burst by more than a fraction of a
//!   millisecond.
//! * What an entry counted is gone with the entry: these are the flows that are alive, not a bill.

use core::net::IpAddr;

use fabnic_port::PortId;
use fabnic_wire::{EtherType, IpProtocol, MacAddr};

use crate::cache::{Outcome, Target};
use crate::deep::FlowCount;
use crate::deep_flows::Deep;
use crate::deep_key::DeepKey;
use crate::topology::Topology;

/// The most flows of one worker that are shown.
pub(crate) const MOST: usize = 256;
/// Sets of the cache that are looked at in one piece.
const PIECE: usize = 2048;

/// Where a flow's frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowWay {
    /// To one port.
    Port(PortId),
    /// To all of its VLAN or group.
    Flood,
    /// Nowhere.
    Drop(fabnic_port::DropReason),
}

/// A flow that is alive, with what went through it since it was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// The port that it comes from.
    pub ingress: PortId,
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// The VLAN that it is in.
    pub vlan: u16,
    /// The EtherType, if anything reads it; else 0.
    pub ethertype: EtherType,
    /// IP addresses, source first, if it is IP.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// What IP carries, if it is IP.
    pub protocol: Option<IpProtocol>,
    /// Ports, source first (of ICMP: type and code), if something reads them.
    pub ports: Option<(u16, u16)>,
    /// Where it goes.
    pub way: FlowWay,
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl FlowStats {
    fn of(key: &DeepKey, outcome: Outcome, count: FlowCount, topology: &Topology) -> Option<FlowStats> {
        let member = |index| topology.member(index).map(|member| member.port.id);
        let fields = key.fields(topology.needs);
        let way = match outcome.target() {
            Target::Port(index) => FlowWay::Port(member(index)?),
            Target::Flood => FlowWay::Flood,
            Target::Drop(reason) => FlowWay::Drop(reason),
        };
        Some(FlowStats {
            ingress: member(fields.ingress)?,
            dst: fields.dst,
            src: fields.src,
            vlan: outcome.vid(),
            ethertype: fields.ethertype,
            addresses: fields.addresses,
            protocol: fields.protocol,
            ports: fields.ports,
            way,
            frames: count.frames,
            bytes: count.bytes,
        })
    }
}

/// One worker's passes over its cache.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    at: usize,
    found: Vec<(DeepKey, Outcome, FlowCount)>,
}

impl Pass {
    /// Looks at one more piece. Gives the flows of the whole pass when it is done, the largest first.
    pub(crate) fn step(&mut self, deep: &Deep, topology: &Topology) -> Option<Vec<FlowStats>> {
        let Pass { at, found } = self;
        *at = deep.cache.visit(*at, PIECE, deep.generation, |key, outcome, count| {
            found.push((*key, outcome, count));
            // Now and then the small ones are sorted out.
            if found.len() >= 4 * MOST {
                keep_largest(found);
            }
        });
        if *at != 0 {
            return None;
        }
        keep_largest(found);
        Some(
            found
                .drain(..)
                .filter_map(|(key, outcome, count)| FlowStats::of(&key, outcome, count, topology))
                .collect(),
        )
    }

    /// Starts anew: what was found belongs to another topology.
    pub(crate) fn restart(&mut self) {
        self.at = 0;
        self.found.clear();
    }
}

fn keep_largest(found: &mut Vec<(DeepKey, Outcome, FlowCount)>) {
    found.sort_unstable_by_key(|(_, _, count)| core::cmp::Reverse((count.bytes, count.frames)));
    found.truncate(MOST);
}
