//! What configuration says of a port, in the form in which the pipeline reads it.

use std::sync::Arc;

use fabnic_wire::{EtherType, Vid};

use crate::answer::{AnswerSettings, Gateway, LldpIdentity};
use crate::conntrack::{PortTracking, ZoneSettings};
use crate::guard::GuardSettings;
use crate::meter::{MeterSettings, StormSettings};
use crate::mirror::MirrorSettings;
use crate::multicast::{PortMulticast, VlanSnooping};
use crate::needs::Needs;
use crate::priority::PrioritySettings;
use crate::receive::ReceiveFilter;
use crate::shaper::{DEFAULT_WEIGHT, PRIORITIES, Rate, ShaperSettings};
use crate::translation::VlanTranslation;

/// A set of VLANs: one bit each.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VlanSet(Arc<[u64; 64]>);

impl core::fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Vid> for VlanSet {
    fn from_iter<I: IntoIterator<Item = Vid>>(vlans: I) -> VlanSet {
        let mut bits = [0_u64; 64];
        for vid in vlans {
            if let Some(word) = bits.get_mut(usize::from(vid.get() / 64)) {
                *word |= 1 << (vid.get() % 64);
            }
        }
        VlanSet(Arc::new(bits))
    }
}

impl VlanSet {
    /// Where the set lies: clones of one set have one place.
    pub(crate) fn place(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Whether the VLAN is in the set.
    #[inline]
    pub fn contains(&self, vid: Vid) -> bool {
        self.0.get(usize::from(vid.get() / 64)).is_some_and(|word| word >> (vid.get() % 64) & 1 == 1)
    }

    /// The VLANs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Vid> + '_ {
        (1..=4094).filter_map(|vid| Vid::new(vid).ok()).filter(|vid| self.contains(*vid))
    }
}

/// Which VLANs a port carries, and how (IEEE 802.1Q, port-based classification).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VlanMode {
    /// One VLAN; the port never sees a tag.
    Access(Vid),
    /// Several VLANs, tagged.
    Trunk {
        /// The tagged ones.
        vlans: VlanSet,
        /// The one that goes untagged, if any.
        native: Option<Vid>,
    },
}

impl VlanMode {
    /// Whether the port is a member of the VLAN.
    #[inline]
    pub fn is_member(&self, vid: Vid) -> bool {
        match self {
            VlanMode::Access(access) => *access == vid,
            VlanMode::Trunk { vlans, native } => *native == Some(vid) || vlans.contains(vid),
        }
    }

    /// Whether frames of the VLAN leave the port with a tag.
    #[inline]
    pub fn leaves_tagged(&self, vid: Vid) -> bool {
        match self {
            VlanMode::Access(_) => false,
            VlanMode::Trunk { native, .. } => *native != Some(vid),
        }
    }
}

/// Which kind of tag a port's VLANs are told by (`proto` of `ip link set vf .. vlan`). A tag of the other kind is part of
/// what the frame carries, and the frame counts as untagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VlanProtocol {
    /// Customer tags, EtherType 0x8100 (IEEE 802.1Q).
    #[default]
    Dot1Q,
    /// Service tags, EtherType 0x88a8 (802.1ad, "QinQ"). The customer's own tags go through as they are: on an access port
    /// this makes a tunnel for them. A frame may be 4 bytes longer, for the customer's tag.
    Dot1Ad,
}

impl VlanProtocol {
    /// The EtherType of the tags.
    pub const fn ethertype(self) -> EtherType {
        match self {
            VlanProtocol::Dot1Q => EtherType::VLAN,
            VlanProtocol::Dot1Ad => EtherType::QINQ,
        }
    }
}

/// What configuration says of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// Administrative state: a disabled port neither sends nor receives.
    pub enabled: bool,
    /// The longest L3 packet in bytes; a frame may be 14 bytes longer, and its tag does not count.
    pub mtu: u32,
    /// Its VLANs.
    pub vlan: VlanMode,
    /// What kind of tag tells them.
    pub vlan_protocol: VlanProtocol,
    /// The numbers that VLANs have on the port's wire, where they differ from the switch's. A VLAN that has none there is
    /// not carried with a tag.
    pub vlan_translation: VlanTranslation,
    /// Which priority frames have, and how it is written.
    pub priority: PrioritySettings,
    /// Whether source addresses are learned.
    pub learning: bool,
    /// How many addresses may be learned on the port.
    pub fdb_limit: u32,
    /// Whether addresses learned here stick: as long as they live (they age as others do) no other port takes them.
    pub sticky: bool,
    /// Isolated ports do not talk to each other, only to ports that are not isolated (private VLAN; `isolated` of
    /// `bridge link`).
    pub isolated: bool,
    /// The tenant whose port it is: its rules apply to it. Tenants are numbered from 1.
    pub tenant: Option<u32>,
    /// The port is read no faster than this; what it sends beyond waits in its own ring (`max_tx_rate` of `ip link set vf`).
    pub max_tx_rate: Option<Rate>,
    /// Up to this rate the port is read before all that has no guarantee (`min_tx_rate` of `ip link set vf`).
    pub min_tx_rate: Option<Rate>,
    /// Its share of what is left, against other ports of the same priority; at least 1 ([`crate::shaper::DEFAULT_WEIGHT`]).
    pub tx_weight: u16,
    /// Ports of priority 7 are read before those of 6, and so on to 0. Strict: a lower one may starve.
    pub tx_priority: u8,
    /// Whether those that send to this port have fair shares of it, by their weights, while it is congested.
    pub fair_share: bool,
    /// What it sends beyond this meter is dropped, or marked: for senders that cannot be held. Settings that make no sense
    /// are refused before they come here.
    pub police_ingress: Option<MeterSettings>,
    /// What is sent to it beyond this meter is dropped. Nothing is marked here: copies share their bytes.
    pub police_egress: Option<MeterSettings>,
    /// How much it may flood.
    pub storm: StormSettings,
    /// Which frames the port is sent.
    pub receive: ReceiveFilter,
    /// What it is checked for.
    pub guard: GuardSettings,
    /// What the switch answers on it by itself.
    pub answer: AnswerSettings,
    /// What is known of multicast behind it, where the switch snoops.
    pub multicast: PortMulticast,
    /// How its packets are tracked, if they are.
    pub tracking: Option<PortTracking>,
}

impl PortSettings {
    /// What the scheduler reads of them.
    pub(crate) fn shaper(&self) -> ShaperSettings {
        ShaperSettings {
            max_tx_rate: self.max_tx_rate,
            min_tx_rate: self.min_tx_rate,
            weight: self.tx_weight.max(1),
            priority: self.tx_priority.min(PRIORITIES - 1),
        }
    }

    /// What of a frame they read.
    pub(crate) fn needs(&self) -> Needs {
        let metered = self.police_ingress.is_some() || self.storm != StormSettings::default();
        let plans = if metered { Needs::PLANS } else { Needs::empty() };
        let packets = Needs::TYPE | Needs::IP | Needs::PORTS | Needs::CONNECTIONS;
        let tracking = if self.tracking.is_some() { packets } else { Needs::empty() };
        self.guard.needs() | self.answer.needs() | plans | tracking
    }
}

/// A meter that rules name; shared by all that do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMeter {
    /// Its name, by which it is known from one configuration to the next.
    pub name: String,
    /// What it does.
    pub settings: MeterSettings,
    /// The meter over it, by its name: a frame must pass both, or takes tokens of neither. At most [`crate::MAX_CHAIN`] in a
    /// row, and no circle.
    pub parent: Option<String>,
}

/// What configuration says of a tenant as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Its number, from 1.
    pub tenant: u32,
    /// A meter over those of its ports: a frame must pass both, or takes tokens of neither.
    pub police_ingress: Option<MeterSettings>,
    /// All its ports together are read no faster than this. Between them priorities, guarantees and weights decide.
    pub max_tx_rate: Option<Rate>,
}

/// What a tenant may have at most, all its ports together. What there is when it is set stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantQuota {
    /// Its number, from 1.
    pub tenant: u32,
    /// Connections that are tracked.
    pub connections: u32,
    /// Addresses that are learned.
    pub fdb_entries: u32,
}

/// What configuration says of the switch as a whole, in the form in which the pipeline reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The mirrors.
    pub mirrors: Vec<MirrorSettings>,
    /// Whether each flow up to its ports is told apart and counted, also where nothing else asks for it.
    pub flow_counters: bool,
    /// Meters that rules name.
    pub meters: Vec<NamedMeter>,
    /// What all ports of a tenant together may send.
    pub tenants: Vec<TenantPolicy>,
    /// What tenants may have; without, as much as there is.
    pub quotas: Vec<TenantQuota>,
    /// Addresses that the switch has itself.
    pub gateways: Vec<Gateway>,
    /// What LLDP says of the switch.
    pub lldp: LldpIdentity,
    /// The VLANs in which the switch watches who listens to which multicast group, each at most once.
    pub multicast: Vec<VlanSnooping>,
    /// The zones that connections are tracked in whose settings are not the default, by their number.
    pub zones: Vec<(u16, ZoneSettings)>,
}

impl Policy {
    /// What of a frame it reads.
    pub(crate) fn needs(&self) -> Needs {
        let flows = Needs::FLOWS | Needs::TYPE | Needs::IP | Needs::PORTS;
        let flows = if self.flow_counters { flows } else { Needs::empty() };
        let packets = Needs::TYPE | Needs::IP | Needs::PORTS;
        let flows = if self.tenants.is_empty() { flows } else { flows | Needs::PLANS };
        let flows = if self.gateways.is_empty() { flows } else { flows | packets };
        // Messages are told from others by no more than this: they are not remembered, nor what looks like them.
        if self.multicast.is_empty() { flows } else { flows | Needs::TYPE | Needs::IP }
    }
}

impl Default for PortSettings {
    fn default() -> PortSettings {
        PortSettings {
            enabled: true,
            mtu: 1500,
            vlan: VlanMode::Access(Vid::DEFAULT),
            vlan_protocol: VlanProtocol::Dot1Q,
            vlan_translation: VlanTranslation::default(),
            priority: PrioritySettings::default(),
            learning: true,
            fdb_limit: u32::MAX,
            sticky: false,
            isolated: false,
            tenant: None,
            max_tx_rate: None,
            min_tx_rate: None,
            tx_weight: DEFAULT_WEIGHT,
            tx_priority: 0,
            fair_share: false,
            police_ingress: None,
            police_egress: None,
            storm: StormSettings::default(),
            receive: ReceiveFilter::default(),
            guard: GuardSettings::default(),
            answer: AnswerSettings::default(),
            multicast: PortMulticast::default(),
            tracking: None,
        }
    }
}
