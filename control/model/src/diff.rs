//! What has to change for one configuration to become another.
//!
//! The list is in the order in which it can be carried out: what goes first makes room (static FDB entries, ports),
//! then what stays is changed, then what is new comes. It is applied as one: the agent prepares everything that can
//! fail (sockets, devices, files), and only when all of it succeeded lets the workers see the new state; otherwise
//! nothing has changed.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Config, Daemon, Group, Lldp, Mac, Meter, Mirror, Object, Port, Rule, StaticFdb, Tenant, Vid, VlanTable,
    Zone,
};

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
    /// What concerns the switch as a whole changes.
    SwitchSet {
        /// The keys.
        fields: Vec<FieldChange>,
        /// All `[[vlan]]` as they will be.
        vlan: Vec<VlanTable>,
        /// The zones of connections of which something is said.
        #[serde(default)]
        zone: Vec<Zone>,
        /// `[lldp]` as it will be.
        lldp: Box<Lldp>,
    },
    /// A tenant comes.
    TenantAdd {
        /// All of the tenant.
        tenant: Box<Tenant>,
    },
    /// Keys of a tenant change.
    TenantSet {
        /// Its name.
        name: String,
        /// The keys.
        fields: Vec<FieldChange>,
        /// All of the tenant as it will be.
        tenant: Box<Tenant>,
    },
    /// A tenant goes.
    TenantDel {
        /// Its name.
        name: String,
    },
    /// A security group comes.
    GroupAdd {
        /// All of the group.
        group: Arc<Group>,
    },
    /// Keys of a security group change.
    GroupSet {
        /// Its qualified name.
        name: String,
        /// The keys.
        fields: Vec<FieldChange>,
        /// All of the group as it will be.
        group: Arc<Group>,
    },
    /// A security group goes.
    GroupDel {
        /// Its qualified name.
        name: String,
    },
    /// A meter comes.
    MeterAdd {
        /// All of the meter.
        meter: Box<Meter>,
    },
    /// Keys of a meter change.
    MeterSet {
        /// Its qualified name.
        name: String,
        /// The keys.
        fields: Vec<FieldChange>,
        /// All of the meter as it will be.
        meter: Box<Meter>,
    },
    /// A meter goes.
    MeterDel {
        /// Its qualified name.
        name: String,
    },
    /// A mirror comes.
    MirrorAdd {
        /// All of the mirror.
        mirror: Box<Mirror>,
    },
    /// Keys of a mirror change.
    MirrorSet {
        /// Its qualified name.
        name: String,
        /// The keys.
        fields: Vec<FieldChange>,
        /// All of the mirror as it will be.
        mirror: Box<Mirror>,
    },
    /// A mirror goes.
    MirrorDel {
        /// Its qualified name.
        name: String,
    },
    /// A rule comes.
    RuleAdd {
        /// All of the rule.
        rule: Arc<Rule>,
    },
    /// Keys of a rule change.
    RuleSet {
        /// Its qualified name.
        name: String,
        /// The keys.
        fields: Vec<FieldChange>,
        /// All of the rule as it will be.
        rule: Arc<Rule>,
    },
    /// A rule goes.
    RuleDel {
        /// Its qualified name.
        name: String,
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
            Self::SwitchSet { fields, .. } => {
                write!(f, "~ switch: ")?;
                write_fields(f, fields)
            }
            Self::TenantAdd { tenant } => write!(f, "+ tenant {}", tenant.name),
            Self::GroupAdd { group } => {
                write!(f, "+ group {} ({} addresses)", group.qualified(), group.addresses.len())
            }
            Self::MeterAdd { meter } => write!(f, "+ meter {} ({})", meter.qualified(), meter.rate),
            Self::MirrorAdd { mirror } => write!(f, "+ mirror {} (to {})", mirror.qualified(), mirror.to),
            Self::RuleAdd { rule } => write!(f, "+ rule {} {rule}", rule.qualified()),
            Self::TenantDel { name } => write!(f, "- tenant {name}"),
            Self::GroupDel { name } => write!(f, "- group {name}"),
            Self::MeterDel { name } => write!(f, "- meter {name}"),
            Self::MirrorDel { name } => write!(f, "- mirror {name}"),
            Self::RuleDel { name } => write!(f, "- rule {name}"),
            Self::TenantSet { name, fields, .. } => write_set(f, "tenant", name, fields),
            Self::GroupSet { name, fields, .. } => write_set(f, "group", name, fields),
            Self::MeterSet { name, fields, .. } => write_set(f, "meter", name, fields),
            Self::MirrorSet { name, fields, .. } => write_set(f, "mirror", name, fields),
            Self::RuleSet { name, fields, .. } => write_set(f, "rule", name, fields),
        }
    }
}

/// Longest list that is written out: a group can have tens of thousands of addresses.
const SHOWN: usize = 8;

fn write_set(f: &mut fmt::Formatter<'_>, what: &str, name: &str, fields: &[FieldChange]) -> fmt::Result {
    write!(f, "~ {what} {name}: ")?;
    write_fields(f, fields)
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
                for (i, value) in list.iter().take(SHOWN).enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{}", Shown(value))?;
                }
                match list.len() {
                    0 => f.write_str("none"),
                    n if n > SHOWN => write!(f, ",.. ({n})"),
                    _ => Ok(()),
                }
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
        "mac" | "vlan" | "mtu" | "state" | "learning" | "fdb_limit" | "trust" | "spoofchk" | "tenant"
        | "tenant_keys" | "proto" | "vlan_map" | "qos" | "priority" | "isolated" | "sticky" | "flood"
        | "mcast_flood" | "bcast_flood" | "unicast_filter" | "multicast_filter" | "guest_lists" | "guard"
        | "answer" | "max_tx_rate" | "min_tx_rate" | "tx_weight" | "tx_priority" | "fair_share"
        | "police" | "police_egress" | "storm" | "conntrack" | "nat" | "multicast" => Effect::Live,
        _ => Effect::Recreate,
    }
}

/// What a changed key of the daemon costs.
pub(crate) fn daemon_effect(key: &str) -> Effect {
    match key {
        "fdb_ageing" | "log" | "flow_counters" | "saved_state_interval" => Effect::Live,
        _ => Effect::Restart,
    }
}

/// What a changed key of a table costs whose every key is live.
pub(crate) const fn live(_: &str) -> Effect {
    Effect::Live
}

pub(crate) fn fields<T: Serialize>(running: &T, desired: &T, effect: fn(&str) -> Effect) -> Vec<FieldChange> {
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
    let rules = Lists::of(&running.rule, &desired.rule);
    let mirrors = Lists::of(&running.mirror, &desired.mirror);
    let meters = Lists::of(&running.meter, &desired.meter);
    let groups = Lists::of(&running.group, &desired.group);
    let tenants = Lists::of(&running.tenant, &desired.tenant);

    // What speaks of others goes before them, and comes after them.
    let mut changes = Vec::new();
    changes.extend(rules.gone.iter().map(|name| Change::RuleDel { name: name.clone() }));
    changes.extend(mirrors.gone.iter().map(|name| Change::MirrorDel { name: name.clone() }));
    changes.extend(meters.gone.iter().map(|name| Change::MeterDel { name: name.clone() }));
    changes.extend(groups.gone.iter().map(|name| Change::GroupDel { name: name.clone() }));
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
    changes.extend(tenants.gone.iter().map(|name| Change::TenantDel { name: name.clone() }));
    if running.daemon != desired.daemon {
        let fields = fields(&running.daemon, &desired.daemon, daemon_effect);
        changes.push(Change::DaemonSet { fields, daemon: Box::new(desired.daemon.clone()) });
    }
    if (&running.vlan, &running.zone, &running.lldp) != (&desired.vlan, &desired.zone, &desired.lldp) {
        let (old, new) = (SwitchPart::of(running), SwitchPart::of(desired));
        changes.push(Change::SwitchSet {
            fields: fields(&old, &new, live),
            vlan: desired.vlan.clone(),
            zone: desired.zone.clone(),
            lldp: Box::new(desired.lldp.clone()),
        });
    }
    changes.extend(tenants.changed.iter().map(|(name, old, new)| Change::tenant_set(name, old, new)));
    changes
        .extend(tenants.new.iter().map(|tenant| Change::TenantAdd { tenant: Box::new((*tenant).clone()) }));
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
    changes.extend(groups.changed.iter().map(|(name, old, new)| Change::group_set(name, old, new)));
    changes.extend(groups.new.iter().map(|group| Change::GroupAdd { group: Arc::clone(group) }));
    changes.extend(meters.changed.iter().map(|(name, old, new)| Change::meter_set(name, old, new)));
    changes.extend(meters.new.iter().map(|meter| Change::MeterAdd { meter: Box::new((*meter).clone()) }));
    changes.extend(mirrors.changed.iter().map(|(name, old, new)| Change::mirror_set(name, old, new)));
    changes
        .extend(mirrors.new.iter().map(|mirror| Change::MirrorAdd { mirror: Box::new((*mirror).clone()) }));
    changes.extend(rules.changed.iter().map(|(name, old, new)| Change::rule_set(name, old, new)));
    changes.extend(rules.new.iter().map(|rule| Change::RuleAdd { rule: Arc::clone(rule) }));
    changes
}

/// What concerns the switch as a whole.
#[derive(Serialize)]
struct SwitchPart<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    vlan: &'a [VlanTable],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    zone: &'a [Zone],
    #[serde(skip_serializing_if = "is_default")]
    lldp: &'a Lldp,
}

fn is_default(lldp: &&Lldp) -> bool {
    lldp.is_default()
}

impl<'a> SwitchPart<'a> {
    fn of(config: &'a Config) -> Self {
        Self { vlan: &config.vlan, zone: &config.zone, lldp: &config.lldp }
    }
}

/// Named things of two configurations: what goes, what changes, what comes.
struct Lists<'a, T> {
    gone: Vec<String>,
    changed: Vec<(String, &'a T, &'a T)>,
    new: Vec<&'a T>,
}

impl<'a, T: Object> Lists<'a, T> {
    fn of(running: &'a [T], desired: &'a [T]) -> Self {
        let mut lists = Self { gone: Vec::new(), changed: Vec::new(), new: Vec::new() };
        if running.is_empty() {
            lists.new.extend(desired);
            return lists;
        }
        let key = |thing: &'a T| (thing.tenant(), thing.name());
        let old: HashMap<_, &T> = running.iter().map(|thing| (key(thing), thing)).collect();
        let kept: HashSet<_> = desired.iter().map(key).collect();
        lists.gone.extend(running.iter().filter(|thing| !kept.contains(&key(thing))).map(T::qualified));
        for thing in desired {
            match old.get(&key(thing)) {
                None => lists.new.push(thing),
                Some(old) if *old != thing => lists.changed.push((thing.qualified(), old, thing)),
                Some(_) => {}
            }
        }
        lists
    }
}

impl Change {
    pub(crate) fn tenant_set(name: &str, old: &Tenant, new: &Tenant) -> Self {
        Self::TenantSet {
            name: name.to_owned(),
            fields: fields(old, new, live),
            tenant: Box::new(new.clone()),
        }
    }

    pub(crate) fn group_set(name: &str, old: &Arc<Group>, new: &Arc<Group>) -> Self {
        Self::GroupSet { name: name.to_owned(), fields: fields(old, new, live), group: Arc::clone(new) }
    }

    pub(crate) fn meter_set(name: &str, old: &Meter, new: &Meter) -> Self {
        Self::MeterSet { name: name.to_owned(), fields: fields(old, new, live), meter: Box::new(new.clone()) }
    }

    pub(crate) fn mirror_set(name: &str, old: &Mirror, new: &Mirror) -> Self {
        Self::MirrorSet {
            name: name.to_owned(),
            fields: fields(old, new, live),
            mirror: Box::new(new.clone()),
        }
    }

    pub(crate) fn rule_set(name: &str, old: &Arc<Rule>, new: &Arc<Rule>) -> Self {
        Self::RuleSet { name: name.to_owned(), fields: fields(old, new, live), rule: Arc::clone(new) }
    }
}

/// Carries the changes out on a configuration: what goes, then what changes, then what comes, which is the order of
/// [`diff`]. What a change speaks of and is not there is passed over.
#[must_use]
pub fn apply(running: &Config, changes: &[Change]) -> Config {
    let mut config = running.clone();
    apply_to(&mut config, changes);
    config
}

/// [`apply`] in place.
pub(crate) fn apply_to(config: &mut Config, changes: &[Change]) {
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
            Change::FdbAdd { entry } => config.fdb.push(entry.clone()),
            Change::PortAdd { port } => config.port.push((**port).clone()),
            Change::PortSet { name, port, .. } => {
                if let Some(slot) = places.get(name).and_then(|&index| config.port.get_mut(index)) {
                    slot.clone_from(port);
                }
            }
            Change::DaemonSet { daemon, .. } => config.daemon.clone_from(daemon),
            Change::SwitchSet { vlan, zone, lldp, .. } => {
                config.vlan.clone_from(vlan);
                config.zone.clone_from(zone);
                config.lldp.clone_from(lldp);
            }
            _ => {}
        }
    }
    edit_list(&mut config.tenant, changes, |change| match change {
        Change::TenantDel { name } => Some(Step::Del(name)),
        Change::TenantSet { name, tenant, .. } => Some(Step::Set(name, &**tenant)),
        Change::TenantAdd { tenant } => Some(Step::Add(&**tenant)),
        _ => None,
    });
    edit_list(&mut config.group, changes, |change| match change {
        Change::GroupDel { name } => Some(Step::Del(name)),
        Change::GroupSet { name, group, .. } => Some(Step::Set(name, group)),
        Change::GroupAdd { group } => Some(Step::Add(group)),
        _ => None,
    });
    edit_list(&mut config.meter, changes, |change| match change {
        Change::MeterDel { name } => Some(Step::Del(name)),
        Change::MeterSet { name, meter, .. } => Some(Step::Set(name, &**meter)),
        Change::MeterAdd { meter } => Some(Step::Add(&**meter)),
        _ => None,
    });
    edit_list(&mut config.mirror, changes, |change| match change {
        Change::MirrorDel { name } => Some(Step::Del(name)),
        Change::MirrorSet { name, mirror, .. } => Some(Step::Set(name, &**mirror)),
        Change::MirrorAdd { mirror } => Some(Step::Add(&**mirror)),
        _ => None,
    });
    edit_list(&mut config.rule, changes, |change| match change {
        Change::RuleDel { name } => Some(Step::Del(name)),
        Change::RuleSet { name, rule, .. } => Some(Step::Set(name, rule)),
        Change::RuleAdd { rule } => Some(Step::Add(rule)),
        _ => None,
    });
}

/// One change of a list of named things.
enum Step<'a, T> {
    Del(&'a str),
    Set(&'a str, &'a T),
    Add(&'a T),
}

fn edit_list<'a, T: Object + 'a>(
    list: &mut Vec<T>,
    changes: &'a [Change],
    step: impl Fn(&'a Change) -> Option<Step<'a, T>>,
) {
    let steps: Vec<Step<'a, T>> = changes.iter().filter_map(step).collect();
    if steps.is_empty() {
        return;
    }
    let gone: HashSet<&str> =
        steps.iter().filter_map(|s| if let Step::Del(name) = s { Some(*name) } else { None }).collect();
    if !gone.is_empty() {
        list.retain(|thing| !gone.contains(thing.qualified().as_str()));
    }
    let places: HashMap<String, usize> = if steps.iter().any(|step| matches!(step, Step::Set(..))) {
        list.iter().enumerate().map(|(index, thing)| (thing.qualified(), index)).collect()
    } else {
        HashMap::new()
    };
    for step in steps {
        match step {
            Step::Del(_) => {}
            Step::Add(thing) => list.push(thing.clone()),
            Step::Set(name, thing) => {
                if let Some(slot) = places.get(name).and_then(|&index| list.get_mut(index)) {
                    slot.clone_from(thing);
                }
            }
        }
    }
}
