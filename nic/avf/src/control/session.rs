//! What a driver and this device agreed on, and what the driver asked for since.

use fabnic_avf_spec::receive::rxdid;
use fabnic_avf_spec::registers::VECTORS;
use fabnic_avf_spec::virtchnl::{Caps, RSS_KEY_LEN, RSS_LUT_LEN, Resources, Status, VSI_ID, Version};
use std::sync::Arc;

use super::{Answer, Reply};
use crate::Avf;
use crate::director::Director;
use crate::filter::{Filter, VlanSet, number};
use crate::rss::Rss;
use crate::settings::Settings;
use crate::transmit::SendRules;

/// Formats of receive descriptors, one a bit.
pub(super) const FORMATS: u64 = 1 << rxdid::LEGACY_32 | 1 << rxdid::FLEX_NIC | 1 << rxdid::FLEX_OVS;

/// What a longest frame has besides its payload: an Ethernet header, two tags, an FCS (drivers subtract it again).
const OVERHEAD: u16 = 26;
/// The longest frame that drivers accept to be told of.
const LONGEST: u16 = 16382;

/// State of the control side.
#[derive(Debug)]
pub(crate) struct Session {
    version: Version,
    /// What was granted; nothing before GET_VF_RESOURCES.
    pub(crate) caps: Caps,
    /// The function's own address. A driver may change it; that outlives a reset.
    pub(crate) mac: [u8; 6],
    /// Queue pairs that were asked for. That outlives a reset, too.
    pub(crate) queues: u16,
    /// Addresses that are received.
    pub(super) addresses: Vec<[u8; 6]>,
    pub(super) all_unicast: bool,
    pub(super) all_multicast: bool,
    pub(super) vlans: Option<Arc<VlanSet>>,
    /// Tags are taken out, put in.
    pub(crate) strip: bool,
    pub(super) insert: bool,
    pub(crate) rss: Rss,
    pub(crate) director: Director,
}

impl Session {
    /// Nothing agreed on.
    pub(crate) fn new(settings: &Settings) -> Session {
        let mut session = Session {
            version: Version::V1_1,
            caps: Caps::empty(),
            mac: settings.mac,
            queues: settings.queues,
            addresses: Vec::new(),
            all_unicast: false,
            all_multicast: false,
            vlans: None,
            strip: false,
            insert: false,
            rss: Rss::new(settings.queues),
            director: Director::default(),
        };
        session.reset(settings);
        session
    }

    /// As after a reset of the function.
    pub(crate) fn reset(&mut self, settings: &Settings) {
        self.version = Version::V1_1;
        self.caps = Caps::empty();
        self.queues = self.queues.clamp(1, settings.queues);
        if settings.fixed_mac && !settings.trust {
            // One that it had while it was trusted.
            self.mac = settings.mac;
        }
        self.addresses.clear();
        if self.mac != [0; 6] {
            self.addresses.push(self.mac);
        }
        (self.all_unicast, self.all_multicast) = (false, false);
        self.vlans = None;
        (self.strip, self.insert) = (false, false);
        self.rss = Rss::new(self.queues);
        self.director = Director::default();
    }

    /// What only a trusted driver may have ends with its trust.
    pub(crate) fn follow_trust(&mut self, settings: &Settings) {
        self.all_unicast &= settings.trust;
        self.all_multicast &= settings.trust;
        if settings.fixed_mac && !settings.trust {
            self.mac = settings.mac;
            self.addresses.retain(|addr| addr[0] & 1 != 0 || *addr == settings.mac);
        }
    }

    /// What is received.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            addresses: self.addresses.iter().copied().map(number).collect(),
            all_unicast: self.all_unicast,
            all_multicast: self.all_multicast,
            vlans: self.vlans.clone(),
        }
    }

    /// What may be sent.
    pub(crate) fn send_rules(&self, settings: &Settings) -> SendRules {
        let unicast = |addr: &&[u8; 6]| addr.first().is_some_and(|first| first & 1 == 0);
        SendRules {
            sources: settings
                .spoofchk
                .then(|| self.addresses.iter().filter(unicast).copied().map(number).collect()),
            insert: self.insert,
            uso: self.caps.contains(Caps::USO),
        }
    }
}

/// The longest frame of a function.
pub(super) fn max_frame(settings: &Settings) -> u16 {
    settings.mtu.saturating_add(OVERHEAD).min(LONGEST)
}

impl Avf {
    pub(super) fn version(&mut self, body: &[u8]) -> Answer {
        let asked = Version::parse(body).ok_or(Status::Param)?;
        // A driver of version 1.0 gets what it knows; what a newer one does with 1.1 is its own affair.
        let ours = match asked {
            Version { major: 1, minor: 0 } => asked,
            _ => Version::V1_1,
        };
        self.session.version = ours;
        Ok(Reply::Body(ours.encode().to_vec()))
    }

    pub(super) fn resources(&mut self, body: &[u8]) -> Answer {
        let offered = self.settings.generation.caps();
        let asked = match (self.session.version.minor, body.first_chunk::<4>()) {
            (0, _) => Caps::BASE,
            (_, Some(bits)) => Caps::from_bits_truncate(u32::from_le_bytes(*bits)),
            (_, None) => return Err(Status::Param),
        };
        let mut granted = offered & asked | Caps::L2;
        // Never both: drivers would take the positions of tags from one and the settings from the other.
        if granted.contains(Caps::VLAN_V2) {
            granted.remove(Caps::VLAN);
        }
        self.session.caps = granted;
        // The first version of VLAN offloads begins with stripping, and needs no word for insertion.
        self.session.strip = granted.contains(Caps::VLAN);
        self.session.insert = granted.contains(Caps::VLAN);
        self.apply_rules();
        let resources = Resources {
            queue_pairs: self.session.queues,
            vectors: VECTORS,
            max_frame: max_frame(&self.settings),
            caps: granted,
            rss_key: u32::try_from(RSS_KEY_LEN).unwrap_or(0),
            rss_lut: u32::try_from(RSS_LUT_LEN).unwrap_or(0),
            vsi: VSI_ID,
            mac: self.session.mac,
        };
        Ok(Reply::Body(resources.encode().to_vec()))
    }
}
