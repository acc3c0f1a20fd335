//! Bindings of addresses, and neighbours by LLDP, as the API shows them.

use fabnic_api::{BindingFilter, BindingStatus, LldpStatus};
use fabnic_model::Domain;
use fabnic_switch::{Binding, BindingOrigin};

use crate::agent::{Agent, Running};
use crate::settings::{model_mac, vid};

/// Whether a binding is meant.
fn is_meant(filter: &BindingFilter, binding: &Binding, ports: &Running) -> bool {
    filter.vlan.is_none_or(|vlan| vid(vlan) == binding.vlan)
        && filter.address.is_none_or(|address| address == binding.address)
        && filter.port.as_ref().is_none_or(|name| ports.port_id(name) == Some(binding.port))
}

impl Agent {
    pub(crate) fn show_bindings(&self, domain: &Domain, filter: &BindingFilter) -> Vec<BindingStatus> {
        let (running, now) = (self.running(), self.switch.now());
        let mut list = Vec::new();
        for binding in self.switch.bindings().entries() {
            // A port that is gone by now had bindings until then.
            let Some(entry) = running.by_id(binding.port) else { continue };
            if !domain.sees(entry.config.tenant.as_deref()) || !is_meant(filter, &binding, &running) {
                continue;
            }
            list.push(BindingStatus {
                vlan: binding.vlan.get(),
                address: binding.address.to_string(),
                port: entry.config.name.clone(),
                mac: model_mac(binding.mac),
                origin: match binding.origin {
                    BindingOrigin::Static => "static",
                    BindingOrigin::Dhcp => "dhcp",
                    BindingOrigin::Dhcp6 => "dhcp6",
                    BindingOrigin::Slaac => "slaac",
                }
                .to_owned(),
                expires_seconds: binding.expires.map(|at| at.saturating_sub(now).into()),
            });
        }
        list
    }

    pub(crate) fn forget_bindings(&self, filter: &BindingFilter) -> u64 {
        let running = self.running();
        let gone = self.switch.bindings().remove_where(|binding| is_meant(filter, binding, &running));
        u64::try_from(gone).unwrap_or(u64::MAX)
    }

    pub(crate) fn show_lldp(&self) -> Vec<LldpStatus> {
        let (running, now) = (self.running(), self.switch.now());
        let shown = self.switch.lldp_neighbours().into_iter().filter_map(|neighbour| {
            Some(LldpStatus {
                port: running.by_id(neighbour.port)?.config.name.clone(),
                chassis: neighbour.chassis.to_string(),
                port_id: neighbour.port_id.to_string(),
                port_description: neighbour.port_description,
                name: neighbour.name,
                description: neighbour.description,
                expires_seconds: neighbour.expires.saturating_sub(now).into(),
            })
        });
        shown.collect()
    }
}
