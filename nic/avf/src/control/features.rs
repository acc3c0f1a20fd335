//! Requests about RSS, about VLAN offloads of version 2, and about flow director rules.

use fabnic_avf_spec::virtchnl::{
    FdirAdd, FdirDelete, RssBytes, RssConfig, RssHash, Status, VlanCaps, VlanFilter, VlanFilters,
    VlanSetting, vlan,
};

use super::{Answer, DONE, Reply, ours, parsed};
use crate::Avf;
use crate::rss::{Hasher, SUPPORTED_HENA, Types};

/// EtherType of the tags that there are.
const TPID: u16 = 0x8100;
/// VLAN id and all other bits of a filter that may count.
const ID_MASK: u16 = 0xfff;

impl Avf {
    fn apply_rss(&mut self) -> Answer {
        self.queues.set_hasher(Hasher::new(&self.session.rss));
        DONE
    }

    pub(super) fn rss_key(&mut self, body: &[u8]) -> Answer {
        let key = parsed(RssBytes::parse(body))?;
        ours(key.vsi)?;
        self.session.rss.key = key.bytes.try_into().map_err(|_| Status::Param)?;
        self.apply_rss()
    }

    pub(super) fn rss_lut(&mut self, body: &[u8]) -> Answer {
        let lut = parsed(RssBytes::parse(body))?;
        ours(lut.vsi)?;
        if lut.bytes.iter().any(|queue| u16::from(*queue) >= self.session.queues) {
            return Err(Status::Param);
        }
        self.session.rss.lut = lut.bytes.try_into().map_err(|_| Status::Param)?;
        self.apply_rss()
    }

    pub(super) fn rss_hash(&mut self, body: &[u8]) -> Answer {
        let hash = parsed(RssHash::parse(body))?;
        ours(hash.vsi)?;
        self.session.rss.symmetric = match hash.algorithm {
            RssHash::TOEPLITZ => false,
            RssHash::SYMMETRIC => true,
            _ => return Err(Status::NotSupported),
        };
        self.apply_rss()
    }

    pub(super) fn rss_types(&mut self, body: &[u8]) -> Answer {
        let types = u64::from_le_bytes(*parsed(body.first_chunk::<8>())?);
        self.session.rss.types = Types::of_hena(types & SUPPORTED_HENA);
        self.apply_rss()
    }

    pub(super) fn rss_stack(&mut self, body: &[u8], add: bool) -> Answer {
        let config = parsed(RssConfig::parse(body))?;
        self.session.rss.types.set_stack(&config, add).ok_or(Status::NotSupported)?;
        self.apply_rss()
    }

    /// The reply is the message itself: what became of it is written in it.
    pub(super) fn add_rule(&mut self, body: &[u8]) -> Answer {
        let rule = parsed(FdirAdd::parse(body))?;
        ours(rule.vsi)?;
        let (flow, status) = self.session.director.add(&rule, self.session.queues);
        self.queues.set_director(&self.session.director);
        let mut reply = body.get(..FdirAdd::LEN).unwrap_or(&[]).to_vec();
        FdirAdd::reply(&mut reply, flow, status);
        Ok(Reply::Body(reply))
    }

    pub(super) fn remove_rule(&mut self, body: &[u8]) -> Answer {
        let rule = parsed(FdirDelete::parse(body))?;
        ours(rule.vsi)?;
        let status = self.session.director.remove(rule.flow);
        self.queues.set_director(&self.session.director);
        Ok(Reply::Body(FdirDelete { status, ..rule }.encode().to_vec()))
    }

    /// The shape of hardware that looks at one tag only: what `ice` calls single VLAN mode.
    pub(super) fn vlan_caps(&mut self) -> Answer {
        let offload = [0, vlan::ETHERTYPE_8100 | vlan::TAG_LOCATION_L2TAG1 | vlan::TOGGLE];
        let caps = VlanCaps {
            filter: [0, vlan::ETHERTYPE_8100],
            filter_init: vlan::ETHERTYPE_8100,
            max_filters: self.max_vlans(),
            strip: offload,
            insert: offload,
            offload_init: vlan::ETHERTYPE_8100,
            independent: 0,
        };
        Ok(Reply::Body(caps.encode().to_vec()))
    }

    pub(super) fn change_vlans_v2(&mut self, body: &[u8], add: bool) -> Answer {
        let (vsi, filters) = parsed(VlanFilters::parse(body))?;
        ours(vsi)?;
        let impossible = |[inner, outer]: [VlanFilter; 2]| {
            inner.tpid != TPID || outer != VlanFilter::default() || !matches!(inner.mask, 0 | ID_MASK)
        };
        if filters.clone().any(impossible) {
            return Err(Status::Param);
        }
        self.set_vlans(filters.map(|[inner, _]| inner.tci & ID_MASK), add)
    }

    /// Whether a setting names the one tag that can be handled. One that names none, as VPP's at its start, is done.
    fn vlan_setting(body: &[u8]) -> Result<bool, Status> {
        let setting = parsed(VlanSetting::parse(body))?;
        ours(setting.vsi)?;
        match (setting.outer, setting.inner) {
            (0, vlan::ETHERTYPE_8100) => Ok(true),
            (0, 0) => Ok(false),
            _ => Err(Status::Param),
        }
    }

    pub(super) fn strip_v2(&mut self, body: &[u8], on: bool) -> Answer {
        if Avf::vlan_setting(body)? { self.strip(on) } else { DONE }
    }

    pub(super) fn insert_v2(&mut self, body: &[u8], on: bool) -> Answer {
        if Avf::vlan_setting(body)? {
            self.session.insert = on;
            self.queues.set_send_rules(self.session.send_rules(&self.settings));
        }
        DONE
    }
}
