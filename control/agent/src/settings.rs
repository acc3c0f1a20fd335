//! From the words of the configuration to those of the switch.

use fabnic_model::{AdminState, Port, Vlan};
use fabnic_switch::{PortSettings, VlanMode};
use fabnic_wire::{MacAddr, Vid};

/// A VLAN as the packet world has it. Both types hold 1 to 4094, so that nothing is lost.
pub(crate) fn vid(vid: fabnic_model::Vid) -> Vid {
    Vid::new(vid.get()).unwrap_or(Vid::DEFAULT)
}

/// A VLAN as the configuration has it.
pub(crate) fn model_vid(vid: Vid) -> fabnic_model::Vid {
    fabnic_model::Vid::new(vid.get()).unwrap_or(fabnic_model::Vid::DEFAULT)
}

/// An address as the packet world has it.
pub(crate) fn mac(mac: fabnic_model::Mac) -> MacAddr {
    MacAddr::new(mac.0)
}

/// An address as the configuration has it.
pub(crate) fn model_mac(mac: MacAddr) -> fabnic_model::Mac {
    fabnic_model::Mac(mac.octets())
}

/// What the switch must know of a port.
pub(crate) fn of_port(port: &Port) -> PortSettings {
    PortSettings {
        enabled: port.state != AdminState::Disable,
        mtu: u32::from(port.mtu),
        vlan: match &port.vlan {
            Vlan::Access(access) => VlanMode::Access(vid(*access)),
            Vlan::Trunk { allowed, native } => {
                VlanMode::Trunk { vlans: allowed.iter().map(vid).collect(), native: native.map(vid) }
            }
        },
        learning: port.learning,
        fdb_limit: port.fdb_limit,
        ..PortSettings::default()
    }
}

/// Whether the guest is to see its link up.
pub(crate) fn link_is_up(port: &Port) -> bool {
    port.state != AdminState::Disable
}
