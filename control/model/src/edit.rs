//! Changes of one thing in a configuration: what the API's and the command line's `add`, `set` and `del` come to.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Config, Mac, Object as _, Port, Refusal, Refused, StaticFdb, StaticMember, Vid,
    parse::{of_message, range_of, resolve, schema, shortened},
    refusal::{Path, Step, nearest, render},
};

/// Why an edit cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// There is one already.
    #[error("there is a {0} already")]
    Exists(String),
    /// What is asked for cannot be.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// It could be, but not by who asks.
    #[error("{0}")]
    Forbidden(Box<Refusal>),
}

/// Reads a port from JSON, with hints at misspelt keys.
///
/// # Errors
/// When a key is unknown or has a value of the wrong type.
pub fn port_from_json(value: Value) -> Result<Port, Refused> {
    from_json("port", "Port", value)
}

/// Reads a table of the kind `what` from JSON, whose keys are those of `definition` in the schema.
pub(crate) fn from_json<T: DeserializeOwned>(
    what: &str,
    definition: &str,
    value: Value,
) -> Result<T, Refused> {
    let properties = &resolve(&schema()["$defs"][definition])["properties"];
    let name = value.get("name").and_then(Value::as_str).map(shortened).unwrap_or_default();
    let key =
        |key: &str| if name.is_empty() { format!("{what}.{key}") } else { format!("{what}[{name}].{key}") };
    if let (Some(given), Some(known)) = (value.as_object(), properties.as_object())
        && let Some(unknown) = given.keys().find(|k| !known.contains_key(*k))
    {
        let words: Vec<&str> = known.keys().map(String::as_str).collect();
        let mut refusal = Refusal::new(
            key(&shortened(unknown)),
            format!("unknown key `{}`", shortened(unknown)),
            format!("one of {}", words.join(", ")),
        );
        refusal.hint = nearest(unknown, words).map(str::to_owned);
        return Err(refusal.into());
    }
    serde_path_to_error::deserialize(value).map_err(|e| {
        let named = if name.is_empty() { None } else { Some(name.clone()) };
        of_json(&e, vec![Step::Key(what.into()), Step::Element(0, named)])
    })
}

/// Reads a configuration from JSON and checks it.
///
/// # Errors
/// As [`crate::parse()`], without lines; of unknown keys and wrong types only the first is told.
pub fn config_from_json(json: &[u8]) -> Result<Config, Refused> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let config: Config =
        serde_path_to_error::deserialize(&mut reader).map_err(|e| of_json(&e, Path::new()))?;
    reader.end().map_err(|e| Refused::from(of_message("", &e.to_string())))?;
    config.check()?;
    Ok(config)
}

fn of_json(error: &serde_path_to_error::Error<serde_json::Error>, mut path: Path) -> Refused {
    use serde_path_to_error::Segment;
    path.extend(error.path().iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Step::Element(*index, None)),
        Segment::Map { key } => Some(Step::Key(shortened(key))),
        Segment::Enum { variant } => Some(Step::Key(shortened(variant))),
        Segment::Unknown => None,
    }));
    let mut refusal = of_message(&render(&path), &error.inner().to_string());
    if let Some(expected) = range_of(&path) {
        refusal.expected = expected;
    }
    refusal.into()
}

/// JSON merge patch (RFC 7396): `null` removes, tables merge, anything else replaces.
pub(crate) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Some(target) = target.as_object_mut() {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(&key);
            } else if key == "vlan" || key == "vlan_map" || key == "match" {
                // Access and trunk exclude each other, and what a rule looks at is one sentence: half of the old value is
                // never what is meant.
                target.insert(key, value);
            } else {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
    }
}

impl Config {
    /// The port with this name.
    #[must_use]
    pub fn find_port(&self, name: &str) -> Option<&Port> {
        self.port.iter().find(|p| p.name == name)
    }

    /// Adds a port.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_port(&mut self, port: Port) -> Result<(), EditError> {
        if self.find_port(&port.name).is_some() {
            return Err(EditError::Exists(format!("port `{}`", shortened(&port.name))));
        }
        self.port.push(port);
        Ok(())
    }

    /// Changes keys of a port: the keys in `patch` replace the port's, `null` takes a key back to its default.
    ///
    /// # Errors
    /// When there is no such port, a key is unknown or has a value of the wrong type, or the name would change.
    pub fn set_port(&mut self, name: &str, patch: Value) -> Result<(), EditError> {
        let not_found = || EditError::NotFound(format!("port `{}`", shortened(name)));
        let port = self.port.iter_mut().find(|p| p.name == name).ok_or_else(not_found)?;
        if !patch.is_object() {
            return Err(EditError::Refused(Refused::one(
                "port",
                "the change is no table",
                "a JSON object of keys",
            )));
        }
        if patch.get("name").is_some_and(|n| n != name) {
            return Err(EditError::Refused(Refused::one(
                format!("port[{name}].name"),
                "a port's name cannot change",
                "the same name, or none",
            )));
        }
        let mut value = serde_json::to_value(&*port)
            .map_err(|e| EditError::Refused(of_message("port", &e.to_string()).into()))?;
        merge(&mut value, patch);
        *port = port_from_json(value).map_err(EditError::Refused)?;
        Ok(())
    }

    /// Removes a port, and the static FDB entries, static members of groups and router ports that speak of it.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn del_port(&mut self, name: &str) -> Result<(), EditError> {
        let before = self.port.len();
        self.port.retain(|p| p.name != name);
        if self.port.len() == before {
            return Err(EditError::NotFound(format!("port `{}`", shortened(name))));
        }
        self.fdb.retain(|e| e.port != name);
        for vlan in &mut self.vlan {
            vlan.mdb.retain(|member| member.port != name);
            if let Some(multicast) = &mut vlan.multicast {
                multicast.routers.retain(|port| port != name);
            }
        }
        Ok(())
    }

    /// Makes a port a static member of a multicast group.
    ///
    /// # Errors
    /// When it is one, or the VLAN has no table: groups have members only where the switch snoops.
    pub fn add_mdb(&mut self, vlan: Vid, member: StaticMember) -> Result<(), EditError> {
        let Some(table) = self.vlan.iter_mut().find(|table| table.id == vlan) else {
            return Err(EditError::NotFound(format!(
                "table of VLAN {vlan} (a [[vlan]] with snooping = true)"
            )));
        };
        if table.mdb.contains(&member) {
            let what =
                format!("static member {} of {} in VLAN {vlan}", shortened(&member.port), member.group);
            return Err(EditError::Exists(what));
        }
        table.mdb.push(member);
        Ok(())
    }

    /// Adds a static FDB entry.
    ///
    /// # Errors
    /// When the address has a static entry in that VLAN.
    pub fn add_fdb(&mut self, entry: StaticFdb) -> Result<(), EditError> {
        if self.fdb.iter().any(|e| (e.vlan, e.mac) == (entry.vlan, entry.mac)) {
            return Err(EditError::Exists(format!("static entry {} in VLAN {}", entry.mac, entry.vlan)));
        }
        self.fdb.push(entry);
        Ok(())
    }

    /// Removes a static FDB entry; false when there is none.
    pub fn del_fdb(&mut self, vlan: Vid, mac: Mac) -> bool {
        let before = self.fdb.len();
        self.fdb.retain(|e| (e.vlan, e.mac) != (vlan, mac));
        self.fdb.len() != before
    }

    /// What a tenant sees of it: what is its own, and nothing of the daemon.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Self {
        let own = |owner: Option<&str>| owner == Some(tenant);
        Self {
            daemon: crate::Daemon::default(),
            port: self.port.iter().filter(|p| own(p.tenant.as_deref())).cloned().collect(),
            fdb: Vec::new(),
            vlan: Vec::new(),
            zone: Vec::new(),
            lldp: crate::Lldp::default(),
            tenant: Vec::new(),
            group: self.group.iter().filter(|g| own(g.tenant())).cloned().collect(),
            meter: self.meter.iter().filter(|m| own(m.tenant())).cloned().collect(),
            mirror: self.mirror.iter().filter(|m| own(m.tenant())).cloned().collect(),
            rule: self.rule.iter().filter(|r| own(r.tenant())).cloned().collect(),
        }
    }

    /// The configuration as a file.
    ///
    /// # Errors
    /// When a value cannot be written as TOML: a number above `i64::MAX`.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let Self { daemon, port, fdb, vlan, zone, lldp, tenant, group, meter, mirror, rule } = self;
        let single = Self { daemon: daemon.clone(), lldp: lldp.clone(), ..Self::default() };
        let mut text = toml::to_string(&single)?;
        append(&mut text, "port", port)?;
        append(&mut text, "fdb", fdb)?;
        append(&mut text, "vlan", vlan)?;
        append(&mut text, "zone", zone)?;
        append(&mut text, "tenant", tenant)?;
        append(&mut text, "group", group)?;
        append(&mut text, "meter", meter)?;
        append(&mut text, "mirror", mirror)?;
        append(&mut text, "rule", rule)?;
        Ok(text)
    }
}

/// Appends a list of tables to a file, some at a time: for each table, the writer moves all that it has written.
fn append<T: Serialize>(text: &mut String, name: &str, list: &[T]) -> Result<(), toml::ser::Error> {
    const AT_ONCE: usize = 32;
    for some in list.chunks(AT_ONCE) {
        text.push('\n');
        text.push_str(&toml::to_string(&BTreeMap::from([(name, some)]))?);
    }
    Ok(())
}
