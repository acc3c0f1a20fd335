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

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabnic_port::PortId;
use fabnic_wire::{EtherType, FlowFlags, IpProtocol, MacAddr};

use crate::cache::{Outcome, Target};
use crate::deep::{DeepKey, FlowCount};
use crate::deep_flows::Deep;
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
        let [front, back, third, a, b, c, d, last] = key.0;
        let [d0, d1, d2, d3, d4, d5, s0, s1] = front.to_le_bytes();
        let [s2, s3, s4, s5, i0, i1, i2, i3] = back.to_le_bytes();
        let member = |index| topology.member(index).map(|member| member.port.id);
        let flags = FlowFlags((last >> 48) as u8);
        let is_ip = flags.has(FlowFlags::IP);
        let address = |low: u64, high: u64| {
            let bytes = (u128::from(low) | u128::from(high) << 64).to_ne_bytes();
            let [a, b, c, d, ..] = bytes;
            match flags.has(FlowFlags::V6) {
                true => IpAddr::V6(Ipv6Addr::from(bytes)),
                false => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            }
        };
        let way = match outcome.target() {
            Target::Port(index) => FlowWay::Port(member(index)?),
            Target::Flood => FlowWay::Flood,
            Target::Drop(reason) => FlowWay::Drop(reason),
        };
        Some(FlowStats {
            ingress: member(u32::from_le_bytes([i0, i1, i2, i3]))?,
            dst: MacAddr::new([d0, d1, d2, d3, d4, d5]),
            src: MacAddr::new([s0, s1, s2, s3, s4, s5]),
            vlan: outcome.vid(),
            ethertype: EtherType(third as u16),
            addresses: is_ip.then(|| (address(a, b), address(c, d))),
            protocol: is_ip.then_some(IpProtocol((last >> 32) as u8)),
            ports: flags.has(FlowFlags::PORTS).then_some((last as u16, (last >> 16) as u16)),
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
