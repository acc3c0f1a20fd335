//! LLDP (IEEE 802.1AB): what the neighbours of ports say of themselves, and what the switch says of itself.
//!
//! # Invariants
//! * A port has at most [`MAX_NEIGHBOURS`] neighbours; what they say is good for the time they say, and texts are kept up
//!   to 255 bytes.

use std::collections::HashMap;

use fabnic_port::PortId;
use fabnic_wire::build::Writer;
use fabnic_wire::lldp::{CAPABILITY_BRIDGE, Identifier, LldpUnit};
use fabnic_wire::{MacAddr, Vid};
use parking_lot::Mutex;

use super::settings::LldpIdentity;
use crate::fdb::Tick;

/// The most neighbours of a port: one on a link, several where something forwards LLDP.
pub(crate) const MAX_NEIGHBOURS: usize = 8;

/// An identifier of a chassis or a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LldpId {
    /// What it is (IEEE 802.1AB, tables 8-2 and 8-3).
    pub subtype: u8,
    /// Its bytes.
    pub value: Vec<u8>,
}

impl LldpId {
    fn of(id: &Identifier<'_>) -> LldpId {
        LldpId { subtype: id.subtype, value: id.value.to_vec() }
    }

    fn is(&self, id: &Identifier<'_>) -> bool {
        (self.subtype, &self.value[..]) == (id.subtype, id.value)
    }
}

impl core::fmt::Display for LldpId {
    /// MAC addresses as such, text as text, all else in hex.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match (<[u8; 6]>::try_from(&self.value[..]), core::str::from_utf8(&self.value)) {
            // Of a chassis 4, of a port 3; as the other's kind (an interface's name, a port's component) six bytes of text.
            (Ok(mac), text) if matches!(self.subtype, 3 | 4) && text.is_err() => {
                write!(f, "{}", MacAddr::new(mac))
            }
            (_, Ok(text)) if !text.chars().any(char::is_control) => f.write_str(text),
            (Ok(mac), _) => write!(f, "{}", MacAddr::new(mac)),
            _ => self.value.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// A neighbour of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LldpNeighbour {
    /// The port.
    pub port: PortId,
    /// The neighbour's chassis.
    pub chassis: LldpId,
    /// Its port.
    pub port_id: LldpId,
    /// Description of its port.
    pub port_description: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// What it can be and what of that it is (IEEE 802.1AB, table 8-4).
    pub capabilities: Option<(u16, u16)>,
    /// VLAN of its port's untagged frames.
    pub native_vlan: Option<u16>,
    /// Second since the start at which this ends.
    pub expires: u32,
}

/// What became of a data unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Kept.
    Noted,
    /// The neighbour said that it goes.
    Gone,
    /// The port has as many neighbours as it may have.
    TooMany,
    /// It is none.
    Broken,
}

/// The neighbours of all ports.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(Mutex<HashMap<PortId, Vec<LldpNeighbour>>>);

fn text(bytes: Option<&[u8]>) -> String {
    let bytes = bytes.unwrap_or(&[]);
    let text = String::from_utf8_lossy(bytes.get(..255).unwrap_or(bytes));
    // What is shown to people must not move their cursor.
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

impl Neighbours {
    /// Takes what follows the EtherType of a frame from a port.
    pub(crate) fn hear(&self, port: PortId, payload: &[u8], now: Tick) -> Heard {
        let Some(unit) = LldpUnit::parse(payload) else { return Heard::Broken };
        let mut ports = self.0.lock();
        let neighbours = ports.entry(port).or_default();
        neighbours.retain(|held| {
            let is_same = held.chassis.is(&unit.chassis) && held.port_id.is(&unit.port);
            !is_same && held.expires > now
        });
        if unit.ttl == 0 {
            return Heard::Gone;
        }
        if neighbours.len() >= MAX_NEIGHBOURS {
            return Heard::TooMany;
        }
        neighbours.push(LldpNeighbour {
            port,
            chassis: LldpId::of(&unit.chassis),
            port_id: LldpId::of(&unit.port),
            port_description: text(unit.port_description),
            name: text(unit.system_name),
            description: text(unit.system_description),
            capabilities: unit.capabilities,
            native_vlan: unit.native_vlan().map(Vid::get),
            expires: now.saturating_add(unit.ttl.into()),
        });
        Heard::Noted
    }

    /// Forgets what is not good any more.
    pub(crate) fn expire(&self, now: Tick) {
        self.0.lock().retain(|_, neighbours| {
            neighbours.retain(|held| held.expires > now);
            !neighbours.is_empty()
        });
    }

    /// Forgets a port's.
    pub(crate) fn remove_port(&self, port: PortId) {
        self.0.lock().remove(&port);
    }

    /// All, by port.
    pub(crate) fn entries(&self) -> Vec<LldpNeighbour> {
        let mut all: Vec<_> = self.0.lock().values().flatten().cloned().collect();
        all.sort_by_key(|neighbour| neighbour.port);
        all
    }
}

/// The announcement of a port: its name, the VLAN of its untagged frames, and its longest frame.
pub(crate) fn announcement(
    identity: &LldpIdentity,
    (port, native, mtu): (&str, Option<Vid>, u32),
    ttl: u16,
    out: &mut [u8],
) -> Option<usize> {
    let chassis = identity.chassis.octets();
    // An identifier has at least one byte.
    let name = if port.is_empty() { "-" } else { port };
    let unit = LldpUnit {
        chassis: Identifier { subtype: 4, value: &chassis },
        // Locally assigned: a port's name is the configuration's.
        port: Identifier { subtype: 7, value: name.as_bytes() },
        ttl,
        port_description: Some(name.as_bytes()),
        system_name: Some(identity.name.as_bytes()),
        system_description: Some(identity.description.as_bytes()),
        capabilities: Some((CAPABILITY_BRIDGE, CAPABILITY_BRIDGE)),
        pvid: Some(native.map_or(0, Vid::get)),
        // With header, tag and FCS.
        max_frame: u16::try_from(mtu.saturating_add(22)).ok(),
    };
    let mut to = Writer::new(out);
    unit.write(&mut to, identity.chassis);
    to.finish()
}

/// How long an announcement is good, in seconds.
pub(crate) fn time_to_live(identity: &LldpIdentity) -> u16 {
    // IEEE 802.1AB section 9.2.5.22: four intervals and one second.
    identity.interval.saturating_mul(4).saturating_add(1)
}
