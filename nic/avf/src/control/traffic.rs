//! Requests about what is received: addresses, promiscuous modes, VLANs; and statistics.

use std::sync::Arc;

use fabnic_avf_spec::virtchnl::{Caps, EthAddr, EthAddrs, Promiscuous, QueueSelect, Stats, Status, VlanIds};

use super::{Answer, DONE, Reply, ours, parsed};
use crate::Avf;
use crate::filter::VlanSet;

/// Addresses that an untrusted driver may have (`ICE_MAX_MACADDR_PER_VF`), and a trusted one.
const ADDRESSES: usize = 18;
const ADDRESSES_TRUSTED: usize = 256;
/// VLANs, likewise.
pub(super) const VLANS: u16 = 8;
pub(super) const VLANS_TRUSTED: u16 = 4096;

const BROADCAST: [u8; 6] = [0xff; 6];

fn is_multicast(addr: &[u8; 6]) -> bool {
    addr.first().is_some_and(|first| first & 1 != 0)
}

impl Avf {
    /// Addresses that mean something: zero and broadcast need no filter.
    fn wanted(entry: &EthAddr) -> bool {
        entry.addr != [0; 6] && entry.addr != BROADCAST
    }

    pub(super) fn add_addresses(&mut self, body: &[u8]) -> Answer {
        let (vsi, list) = parsed(EthAddrs::parse(body))?;
        ours(vsi)?;
        if list.clone().next().is_none() {
            return Err(Status::Param);
        }
        let fixed = self.settings.fixed_mac && !self.settings.trust;
        let mut addresses = self.session.addresses.clone();
        let mut mac = self.session.mac;
        let most = if self.settings.trust { ADDRESSES_TRUSTED } else { ADDRESSES };
        for entry in list.filter(Avf::wanted) {
            let unicast = !is_multicast(&entry.addr);
            if unicast && fixed && entry.addr != self.settings.mac {
                return Err(Status::AdminQueue);
            }
            if unicast && (entry.kind == EthAddr::PRIMARY || mac == [0; 6]) {
                mac = entry.addr;
            }
            if !addresses.contains(&entry.addr) {
                if addresses.len() >= most {
                    return Err(Status::NoMemory);
                }
                addresses.push(entry.addr);
            }
        }
        // The own address first: it is what most frames have.
        if let Some(at) = addresses.iter().position(|addr| *addr == mac) {
            addresses.swap(0, at);
        }
        (self.session.addresses, self.session.mac) = (addresses, mac);
        self.apply_addresses();
        DONE
    }

    pub(super) fn remove_addresses(&mut self, body: &[u8]) -> Answer {
        let (vsi, list) = parsed(EthAddrs::parse(body))?;
        ours(vsi)?;
        let mut any = false;
        for entry in list {
            any = true;
            self.session.addresses.retain(|addr| *addr != entry.addr);
        }
        if !any {
            return Err(Status::Param);
        }
        self.apply_addresses();
        DONE
    }

    fn apply_addresses(&mut self) {
        self.queues.set_filter(self.session.filter());
        self.queues.set_send_rules(self.session.send_rules(&self.settings));
    }

    pub(super) fn promiscuous(&mut self, body: &[u8]) -> Answer {
        let mode = parsed(Promiscuous::parse(body))?;
        ours(mode.vsi)?;
        // Hardware tells an untrusted driver that it succeeded, and does nothing.
        if self.settings.trust {
            (self.session.all_unicast, self.session.all_multicast) = (mode.unicast, mode.multicast);
            self.queues.set_filter(self.session.filter());
        }
        DONE
    }

    pub(super) fn change_vlans(&mut self, body: &[u8], add: bool) -> Answer {
        let (vsi, ids) = parsed(VlanIds::parse(body))?;
        ours(vsi)?;
        self.set_vlans(ids, add)
    }

    /// Adds or removes VLANs. The first one makes all others unwanted; untagged frames always pass.
    pub(super) fn set_vlans(&mut self, ids: impl Iterator<Item = u16> + Clone, add: bool) -> Answer {
        if ids.clone().next().is_none() || ids.clone().any(|id| id >= 4096) {
            return Err(Status::Param);
        }
        let mut set = match &self.session.vlans {
            Some(vlans) => VlanSet::clone(vlans),
            None => VlanSet::EMPTY,
        };
        let before = set.clone();
        ids.filter(|id| *id != 0).for_each(|id| set.set(id, add));
        if set == before {
            return DONE;
        }
        if set.len() > usize::from(self.max_vlans()) {
            return Err(Status::NoMemory);
        }
        self.session.vlans = (set.len() > 0).then(|| Arc::new(set));
        self.queues.set_filter(self.session.filter());
        DONE
    }

    pub(super) fn max_vlans(&self) -> u16 {
        if self.settings.trust { VLANS_TRUSTED } else { VLANS }
    }

    pub(super) fn strip(&mut self, on: bool) -> Answer {
        self.session.strip = on;
        self.queues.set_strip(on);
        DONE
    }

    pub(super) fn stats(&mut self, body: &[u8]) -> Answer {
        let select = parsed(QueueSelect::parse(body))?;
        ours(select.vsi)?;
        debug_assert!(self.session.caps.contains(Caps::L2));
        let (receive, transmit) = self.queues.counts();
        let stats = Stats {
            rx_bytes: receive.bytes,
            rx_casts: receive.casts,
            rx_discards: receive.discards,
            tx_bytes: transmit.bytes,
            tx_casts: transmit.casts,
            tx_discards: transmit.discards,
            tx_errors: transmit.errors,
        };
        Ok(Reply::Body(stats.encode().to_vec()))
    }
}
