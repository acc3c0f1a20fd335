//! The ports as they are at one moment: immutable, published whole, with a generation.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use fabnic_port::{Port, PortId};
use fabnic_wire::Vid;

use crate::answer::{Gateway, LldpIdentity, PortAnswers};
use crate::fdb::PortQuota;
use crate::mirror::{Mirror, Mirrors};
use crate::needs::Needs;
use crate::settings::{PortSettings, VlanMode};

/// A port with what the pipeline needs to know of it.
pub(crate) struct Member {
    pub(crate) port: Arc<Port>,
    pub(crate) settings: PortSettings,
    /// What the port may still learn; outlives the topology.
    pub(crate) quota: Arc<PortQuota>,
    /// What was answered on the port; outlives the topology.
    pub(crate) answers: Arc<PortAnswers>,
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
    /// Addresses that the switch has itself.
    pub(crate) gateways: Box<[Gateway]>,
    /// What LLDP says of the switch.
    pub(crate) lldp: LldpIdentity,
    /// What of a frame is read beyond addresses and VLAN.
    pub(crate) needs: Needs,
    /// The same, for the words of a deep key.
    pub(crate) mask: [u64; 8],
    by_id: HashMap<PortId, u32>,
    /// The ports by index.
    pub(crate) ids: Arc<[PortId]>,
    /// Per VLAN, the enabled members, ascending; found when the VLAN is first flooded.
    flood: Box<[OnceLock<Box<[u32]>>]>,
}

impl Topology {
    pub(crate) fn new(generation: u32, members: Vec<Member>, mirrors: Mirrors, needs: Needs) -> Topology {
        let ids: Arc<[PortId]> = members.iter().map(|member| member.port.id).collect();
        let by_id = ids.iter().copied().zip(0..).collect();
        Topology {
            generation,
            members: members.into_boxed_slice(),
            mirrors,
            gateways: Box::default(),
            lldp: LldpIdentity::default(),
            needs,
            mask: needs.mask(),
            by_id,
            ids,
            flood: (0..4096).map(|_| OnceLock::new()).collect(),
        }
    }

    #[inline(always)]
    pub(crate) fn member(&self, index: u32) -> Option<&Member> {
        self.members.get(index as usize)
    }

    pub(crate) fn index_of(&self, id: PortId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Whether what is flooded in this VLAN goes to the port with this index.
    pub(crate) fn is_flooded(&self, vid: Vid, index: u32) -> bool {
        let is_member = |member: &Member| member.settings.enabled && member.settings.vlan.is_member(vid);
        self.member(index).is_some_and(is_member)
    }

    /// The ports that a frame of this VLAN is flooded to, the sender included.
    pub(crate) fn flood(&self, vid: Vid) -> &[u32] {
        let Some(slot) = self.flood.get(usize::from(vid.get())) else { return &[] };
        slot.get_or_init(|| {
            let is_member = |member: &Member| member.settings.enabled && member.settings.vlan.is_member(vid);
            self.members
                .iter()
                .zip(0..)
                .filter(|(member, _)| is_member(member))
                .map(|(_, index)| index)
                .collect()
        })
    }
}

impl Member {
    /// The VLAN of an untagged frame.
    pub(crate) fn untagged_vlan(&self) -> Option<Vid> {
        match &self.settings.vlan {
            VlanMode::Access(vid) => Some(*vid),
            VlanMode::Trunk { native, .. } => *native,
        }
    }
}
