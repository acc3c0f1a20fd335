//! The ports as they are at one moment: immutable, published whole, with a generation.

use std::collections::HashMap;
use std::sync::Arc;

use fabnic_port::{Port, PortId};
use fabnic_wire::{MacAddr, Vid};

use crate::answer::{Gateway, LldpIdentity, PortAnswers};
use crate::conntrack::Tracking;
use crate::deep_key::KeyMask;
use crate::fdb::PortQuota;
use crate::flood::{FloodLists, Members};
use crate::metering::{Meters, PortMeters};
use crate::mirror::{Mirror, Mirrors};
use crate::multicast::Recipients;
use crate::needs::Needs;
use crate::rules::Concerns;
use crate::settings::{PortSettings, VlanMode, VlanProtocol, VlanSet};
use crate::translation::VlanTranslation;

/// A port with what the pipeline needs to know of it.
pub(crate) struct Member {
    pub(crate) port: Arc<Port>,
    pub(crate) settings: PortSettings,
    /// What the port may still learn; outlives the topology.
    pub(crate) quota: Arc<PortQuota>,
    /// The longest frame, without the tag that tells its VLAN, that may enter or leave.
    pub(crate) longest: u32,
    /// The EtherType of the tags that tell VLANs, as it lies in a frame.
    pub(crate) tpid: [u8; 2],
    /// Whether frames that come untagged may have to be changed before they leave here.
    pub(crate) writes: bool,
    /// Whether configuration filters what the port is sent.
    pub(crate) filters: bool,
    /// What was answered on the port; outlives the topology.
    pub(crate) answers: Arc<PortAnswers>,
    /// Its meters, and the rate at which it is read.
    pub(crate) meters: PortMeters,
    /// How its packets are tracked.
    pub(crate) tracking: Option<Tracking>,
    /// Mirrors that take what the port sends.
    pub(crate) mirror_ingress: Box<[Arc<Mirror>]>,
    /// Mirrors that take what is delivered to it.
    pub(crate) mirror_egress: Box<[Arc<Mirror>]>,
}

/// One moment's ports.
///
/// Inside it a port is known by its *index*, which is only good with this topology; a cached decision carries the
/// generation for that reason.
pub(crate) struct Topology {
    pub(crate) generation: u32,
    pub(crate) members: Box<[Member]>,
    pub(crate) mirrors: Mirrors,
    pub(crate) meters: Meters,
    /// Senders are read in turns and at rates, because of some port.
    pub(crate) is_shaped: bool,
    /// Addresses that the switch has itself.
    pub(crate) gateways: Box<[Gateway]>,
    /// What LLDP says of the switch.
    pub(crate) lldp: LldpIdentity,
    /// VLANs in which multicast groups are watched.
    pub(crate) snooped: Option<VlanSet>,
    /// What of a frame is read beyond addresses and VLAN.
    pub(crate) needs: Needs,
    /// The same, for the words of a deep key.
    pub(crate) mask: KeyMask,
    by_id: HashMap<PortId, u32>,
    /// The ports by index.
    pub(crate) ids: Arc<[PortId]>,
    /// For each port, the cells that count changes of rules about what leaves by it.
    pub(crate) egress_cells: Box<[[u32; 2]]>,
    flood: FloodLists,
}

impl Topology {
    pub(crate) fn new(
        generation: u32,
        members: Vec<Member>,
        mirrors: Mirrors,
        meters: Meters,
        needs: Needs,
    ) -> Topology {
        let ids: Arc<[PortId]> = members.iter().map(|member| member.port.id).collect();
        let by_id = ids.iter().copied().zip(0..).collect();
        let flood = FloodLists::new(members.iter().map(|member| &member.settings));
        let egress_cells = members
            .iter()
            .map(|member| Concerns::egress_cells(member.port.id, member.settings.tenant))
            .collect();
        let is_shaped = members.iter().any(|member| member.meters.is_shaped());
        Topology {
            generation,
            members: members.into_boxed_slice(),
            mirrors,
            is_shaped,
            meters,
            gateways: Box::default(),
            lldp: LldpIdentity::default(),
            snooped: None,
            needs,
            mask: KeyMask::of(needs),
            by_id,
            ids,
            egress_cells,
            flood,
        }
    }

    #[inline(always)]
    pub(crate) fn member(&self, index: u32) -> Option<&Member> {
        self.members.get(index as usize)
    }

    pub(crate) fn index_of(&self, id: PortId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Whether multicast groups are watched in this VLAN.
    pub(crate) fn is_snooped(&self, vid: Vid) -> bool {
        self.snooped.as_ref().is_some_and(|vlans| vlans.contains(vid))
    }

    /// Whether what is flooded in this VLAN goes to the port with this index.
    pub(crate) fn is_flooded(&self, vid: Vid, index: u32) -> bool {
        let is_member = |member: &Member| member.settings.enabled && member.settings.vlan.is_member(vid);
        self.member(index).is_some_and(is_member)
    }

    /// The ports that a frame from `sender` to an unknown address, or to many, is flooded to. A copy may still be filtered.
    pub(crate) fn flooded(
        &self,
        (sender, index): (&Member, u32),
        vlan: Vid,
        to: MacAddr,
        only: Option<&Recipients>,
    ) -> impl Iterator<Item = (u32, &Member)> {
        let reached = self.reached((sender, index), vlan, only);
        let members = reached.filter_map(|port| Some((port, self.member(port)?)));
        members.filter(move |(_, member)| member.settings.receive.is_flooded(to))
    }

    /// The ports of a VLAN that a frame from `sender` may reach; of these `only`, if it is confined.
    pub(crate) fn reached(
        &self,
        (sender, index): (&Member, u32),
        vlan: Vid,
        only: Option<&Recipients>,
    ) -> impl Iterator<Item = u32> {
        let isolated = sender.settings.isolated;
        let all = if only.is_none() { self.flood(vlan) } else { None };
        let may = move |port: &u32| {
            *port != index && !(isolated && self.member(*port).is_some_and(|member| member.settings.isolated))
        };
        let confined = only.map(|only| only.indexes.iter().copied().filter(may));
        let all = all.map(|all| all.reached_from(index, isolated));
        confined.into_iter().flatten().chain(all.into_iter().flatten())
    }

    /// The ports of a VLAN.
    pub(crate) fn flood(&self, vid: Vid) -> Option<&Members> {
        self.flood.of(vid)
    }
}

impl Member {
    pub(crate) fn new(port: Arc<Port>, mut settings: PortSettings, quota: Arc<PortQuota>) -> Member {
        // A VLAN that has no number on the wire cannot leave with a tag.
        if let VlanMode::Trunk { vlans, .. } = &mut settings.vlan
            && settings.vlan_translation != VlanTranslation::default()
        {
            *vlans = vlans.iter().filter(|vid| settings.vlan_translation.outward(*vid).is_some()).collect();
        }
        let customer_tag = if settings.vlan_protocol == VlanProtocol::Dot1Ad { 4 } else { 0 };
        Member {
            longest: settings.mtu.saturating_add(14 + customer_tag),
            tpid: settings.vlan_protocol.ethertype().0.to_be_bytes(),
            writes: !matches!(settings.vlan, VlanMode::Access(_)) || settings.priority.marks(),
            filters: !settings.receive.is_open(),
            port,
            settings,
            quota,
            answers: Arc::default(),
            meters: PortMeters::default(),
            tracking: None,
            mirror_ingress: Box::default(),
            mirror_egress: Box::default(),
        }
    }

    /// Whether what is flooded to the port must be looked at.
    #[inline]
    pub(crate) fn is_choosy(&self) -> bool {
        let asks = self.tracking.as_ref().is_some_and(Tracking::asks);
        asks || self.filters || (self.port.guest_filter.is_set() && self.settings.receive.guest_lists)
    }

    /// The VLAN of an untagged frame.
    pub(crate) fn untagged_vlan(&self) -> Option<Vid> {
        match &self.settings.vlan {
            VlanMode::Access(vid) => Some(*vid),
            VlanMode::Trunk { native, .. } => *native,
        }
    }
}
