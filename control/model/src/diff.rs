//! What has to change for one configuration to become another.
//!
//! The list is in the order in which it can be carried out: what goes first makes room (static FDB entries, ports),
//! then what stays is changed, then what is new comes. It is applied as one: the agent prepares everything that can
//! fail (sockets, devices, files), and only when all of it succeeded lets the workers see the new state; otherwise
//! nothing has changed.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{Config, Daemon, Mac, Port, StaticFdb, Vid};

/// What a change costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Traffic goes on.
    Live,
    /// The port is taken away and made again: its peer has to reconnect.
    Recreate,
    /// Takes effect when the daemon is started again.
    Restart,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Recreate => "re-create",
            Self::Restart => "restart",
        })
    }
}

/// One key that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// The key, as in the file.
    pub key: String,
    /// Value now. Absent when the key is not given.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub from: Value,
    /// Value then. Absent when the key will not be given.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub to: Value,
    /// What it costs.
    pub effect: Effect,
}

/// One step from the running to the desired configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Change {
    /// A static FDB entry goes.
    FdbDel {
        /// The entry.
        entry: StaticFdb,
    },
    /// A port goes, with what was learned on it.
    PortDel {
        /// Its name.
        name: String,
    },
    /// Keys of the daemon change.
    DaemonSet {
        /// The keys.
        fields: Vec<FieldChange>,
        /// All of `[daemon]` as it will be.
        daemon: Box<Daemon>,
    },
    /// Keys of a port change.
    PortSet {
        /// Its name.
        name: String,
        /// The costliest effect of its fields.
        effect: Effect,
        /// The keys.
        fields: Vec<FieldChange>,
        /// All of the port as it will be.
        port: Box<Port>,
    },
    /// A port comes.
    PortAdd {
        /// All of the port.
        port: Box<Port>,
    },
    /// A static FDB entry comes.
    FdbAdd {
        /// The entry.
        entry: StaticFdb,
    },
}

impl Change {
    /// What the change costs.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Self::PortSet { effect, .. } => *effect,
            Self::DaemonSet { fields, .. } => costliest(fields),
            _ => Effect::Live,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FdbDel { entry } => {
                write!(f, "- fdb {} vlan {} port {}", entry.mac, entry.vlan, entry.port)
            }
            Self::FdbAdd { entry } => {
                write!(f, "+ fdb {} vlan {} port {}", entry.mac, entry.vlan, entry.port)
            }
            Self::PortDel { name } => write!(f, "- port {name}"),
            Self::PortAdd { port } => {
                let kind = port.nic.map(crate::Nic::as_str).or(port.uplink.map(crate::Uplink::as_str));
                write!(f, "+ port {} ({}, vlan {})", port.name, kind.unwrap_or("no kind"), port.vlan)
            }
            Self::PortSet { name, fields, effect, .. } => {
                write!(f, "~ port {name}: ")?;
                write_fields(f, fields)?;
                write!(f, " ({effect})")
            }
            Self::DaemonSet { fields, .. } => {
                write!(f, "~ daemon: ")?;
                write_fields(f, fields)?;
                write!(f, " ({})", costliest(fields))
            }
        }
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[FieldChange]) -> fmt::Result {
    for (i, field) in fields.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{} {} -> {}", field.key, Shown(&field.from), Shown(&field.to))?;
    }
    Ok(())
}

/// A value as a person would say it.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("default"),
            Value::String(text) => f.write_str(text),
            Value::Object(keys) => {
                for (i, (key, value)) in keys.iter().enumerate() {
                    let space = if i == 0 { "" } else { " " };
                    write!(f, "{space}{key} {}", Shown(value))?;
                }
                Ok(())
            }
            Value::Array(list) => {
                for (i, value) in list.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{}", Shown(value))?;
                }
                if list.is_empty() { f.write_str("none") } else { Ok(()) }
            }
            other => write!(f, "{other}"),
        }
    }
}

fn costliest(fields: &[FieldChange]) -> Effect {
    fields.iter().map(|f| f.effect).max().unwrap_or(Effect::Live)
}

/// What a changed key of a port costs. What a worker looks up per packet or the peer is told by a message is live;
/// what the other side of a connection was promised when it came is not.
pub(crate) fn port_effect(key: &str) -> Effect {
    match key {
        "mac" | "vlan" | "mtu" | "state" | "learning" | "fdb_limit" | "trust" | "spoofchk" => Effect::Live,
        _ => Effect::Recreate,
    }
}

/// What a changed key of the daemon costs.
pub(crate) fn daemon_effect(key: &str) -> Effect {
    match key {
        "fdb_ageing" | "log" => Effect::Live,
        _ => Effect::Restart,
    }
}

fn fields<T: Serialize>(running: &T, desired: &T, effect: fn(&str) -> Effect) -> Vec<FieldChange> {
    let object = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        // Our own types of strings, numbers and tables with string keys always become an object.
        _ => serde_json::Map::new(),
    };
    let (running, mut desired) = (object(running), object(desired));
    let mut changes = Vec::new();
    for (key, from) in running {
        let to = desired.remove(&key).unwrap_or_default();
        if from != to {
            changes.push(FieldChange { effect: effect(&key), key, from, to });
        }
    }
    for (key, to) in desired {
        changes.push(FieldChange { effect: effect(&key), key, from: Value::Null, to });
    }
    changes
}

/// The changes from `running` to `desired`, in the order in which they can be carried out. Ports are known by name,
/// FDB entries by VLAN and address. Empty when nothing differs; the order of tables in a file is no difference.
#[must_use]
pub fn diff(running: &Config, desired: &Config) -> Vec<Change> {
    let old_ports: HashMap<&str, &Port> = running.port.iter().map(|p| (p.name.as_str(), p)).collect();
    let new_ports: HashMap<&str, &Port> = desired.port.iter().map(|p| (p.name.as_str(), p)).collect();
    let old_fdb: HashMap<(Vid, Mac), &StaticFdb> = running.fdb.iter().map(|e| ((e.vlan, e.mac), e)).collect();
    let new_fdb: HashMap<(Vid, Mac), &StaticFdb> = desired.fdb.iter().map(|e| ((e.vlan, e.mac), e)).collect();

    let mut changes = Vec::new();
    for entry in &running.fdb {
        if new_fdb.get(&(entry.vlan, entry.mac)).is_none_or(|e| *e != entry) {
            changes.push(Change::FdbDel { entry: entry.clone() });
        }
    }
    for port in &running.port {
        if !new_ports.contains_key(port.name.as_str()) {
            changes.push(Change::PortDel { name: port.name.clone() });
        }
    }
    if running.daemon != desired.daemon {
        let fields = fields(&running.daemon, &desired.daemon, daemon_effect);
        changes.push(Change::DaemonSet { fields, daemon: Box::new(desired.daemon.clone()) });
    }
    for port in &desired.port {
        if let Some(old) = old_ports.get(port.name.as_str()).filter(|old| **old != port) {
            let fields = fields(*old, port, port_effect);
            changes.push(Change::PortSet {
                name: port.name.clone(),
                effect: costliest(&fields),
                fields,
                port: Box::new(port.clone()),
            });
        }
    }
    for port in &desired.port {
        if !old_ports.contains_key(port.name.as_str()) {
            changes.push(Change::PortAdd { port: Box::new(port.clone()) });
        }
    }
    for entry in &desired.fdb {
        if old_fdb.get(&(entry.vlan, entry.mac)).is_none_or(|e| *e != entry) {
            changes.push(Change::FdbAdd { entry: entry.clone() });
        }
    }
    changes
}

/// Carries the changes out on a configuration: what goes, then what changes, then what comes, which is the order of
/// [`diff`]. What a change speaks of and is not there is passed over.
#[must_use]
pub fn apply(running: &Config, changes: &[Change]) -> Config {
    let mut config = running.clone();
    let (mut ports, mut entries) = (HashSet::new(), HashSet::new());
    for change in changes {
        match change {
            Change::PortDel { name } => drop(ports.insert(name.as_str())),
            Change::FdbDel { entry } => drop(entries.insert((entry.vlan, entry.mac))),
            _ => {}
        }
    }
    config.port.retain(|port| !ports.contains(port.name.as_str()));
    config.fdb.retain(|entry| !entries.contains(&(entry.vlan, entry.mac)));

    let places: HashMap<String, usize> =
        config.port.iter().enumerate().map(|(index, port)| (port.name.clone(), index)).collect();
    for change in changes {
        match change {
            Change::FdbDel { .. } | Change::PortDel { .. } => {}
            Change::FdbAdd { entry } => config.fdb.push(entry.clone()),
            Change::PortAdd { port } => config.port.push((**port).clone()),
            Change::PortSet { name, port, .. } => {
                if let Some(slot) = places.get(name).and_then(|&index| config.port.get_mut(index)) {
                    slot.clone_from(port);
                }
            }
            Change::DaemonSet { daemon, .. } => config.daemon.clone_from(daemon),
        }
    }
    config
}
