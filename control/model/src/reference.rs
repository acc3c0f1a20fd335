//! `docs/configuration.md`, made from the types.
//!
//! What a key means stands beside the key, as the doc comment of its field. This page puts those texts in order;
//! a key that is in no group below appears among those of every port, so none can be forgotten.

use std::fmt::Write as _;

use serde_json::Value;

use crate::parse::{resolve, schema};

/// Keys that only some kinds of port have: heading, sentence, keys.
const GROUPS: [(&str, &str, &[&str]); 5] = [
    (
        "Keys of `nic = \"virtio-net\"`",
        "A VM's own virtio driver, reached over vhost-user.",
        &["vhost_user", "mac", "queues", "queue_size"],
    ),
    (
        "Keys of `nic = \"avf\"`",
        "A virtual function that current systems have a driver for, over vfio-user (see vfio-user.md). `mac` and `queues` \
         as above.",
        &["vfio_user", "generation"],
    ),
    (
        "Keys of `nic = \"e1000\"`",
        "A card that every operating system has a driver for, over vfio-user. `vfio_user` and `mac` as above.",
        &[],
    ),
    (
        "Keys of `uplink = \"tap\"`",
        "A TAP device of the host's kernel. `queues` as above.",
        &["device", "offloads"],
    ),
    (
        "Keys of `uplink = \"pcap\"`",
        "Files instead of a wire. At least one of `replay` and `capture` is needed.",
        &["replay", "rate", "loop", "capture"],
    ),
];
/// Keys of every port that come first.
const FIRST: [&str; 3] = ["name", "nic", "uplink"];
const INTRODUCTION: &str = r#"# Configuration

One TOML file says what `fabnicd` shall be: `fabnicd --config FILE` starts with it, `fabnicd --config FILE --check` only
checks it, `fabnic apply FILE` compares it with what runs and changes just what differs, all or nothing, and
`fabnic apply FILE --dry-run` says what that would be. Unknown keys are refused, with their line and what was probably
meant.

```toml
[daemon]
api = "/run/fabnic/api.sock"
workers = [1]                       # a CPU each

[[port]]
name = "vm1"
nic = "virtio-net"
vhost_user = { socket = "/run/fabnic/vm1.sock", role = "server" }
mac = "52:54:00:00:00:01"
vlan = { access = 10 }

[[port]]
name = "up0"
uplink = "tap"
device = "tap0"
vlan = { trunk = [10, "20-29"], native = 1 }

[[fdb]]
mac = "52:54:00:00:00:99"
vlan = 10
port = "up0"
```

The last column says what a change of the key costs when it is applied to a running daemon: *live* (traffic goes on),
*re-create* (the port is taken away and made again, its peer has to reconnect), *restart* (it takes effect when the
daemon is started again).
"#;

/// The whole page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    let root = schema();
    table(&mut page, "## `[daemon]`", &describe(&root["properties"]["daemon"]), "Daemon", None);

    let port = &root["$defs"]["Port"];
    let all: Vec<&str> =
        port["properties"].as_object().into_iter().flatten().map(|(k, _)| k.as_str()).collect();
    let of_every_port: Vec<&str> = FIRST
        .into_iter()
        .chain(all.iter().copied().filter(|key| {
            let grouped = GROUPS.iter().any(|(_, _, keys)| keys.contains(key));
            !FIRST.contains(key) && !grouped
        }))
        .collect();
    table(&mut page, "## `[[port]]`", &describe(port), "Port", Some(&of_every_port));
    for (heading, sentence, keys) in GROUPS {
        table(&mut page, &format!("### {heading}"), sentence, "Port", Some(keys));
        if keys.contains(&"vhost_user") {
            table(&mut page, "#### `vhost_user`", &describe(&root["$defs"]["VhostUser"]), "VhostUser", None);
        }
        if keys.contains(&"vfio_user") {
            table(&mut page, "#### `vfio_user`", &describe(&root["$defs"]["VfioUser"]), "VfioUser", None);
        }
    }
    let sentence =
        "Every frame that is delivered to the port comes back from it. It has the keys of every port only.";
    let _ = write!(page, "\n### `uplink = \"loopback\"`\n\n{sentence}\n");
    let sentence = "`uplink = \"xdp\"` is known and refused: it is not in this build.";
    let _ = write!(page, "\n### Kinds to come\n\n{sentence}\n");
    table(&mut page, "### `vlan`", "Exactly one of the two shapes.", "Vlan", None);
    table(&mut page, "### `priority`", &describe(&root["$defs"]["Priority"]), "Priority", None);
    table(&mut page, "### `conntrack`", &describe(&root["$defs"]["Conntrack"]), "Conntrack", None);
    table(&mut page, "### `nat`", &describe(&root["$defs"]["PortNat"]), "PortNat", None);
    table(&mut page, "### `multicast`", &describe(&root["$defs"]["Multicast"]), "Multicast", None);
    table(&mut page, "### `storm`", &describe(&root["$defs"]["Storm"]), "Storm", None);
    table(&mut page, "### `guard`", &describe(&root["$defs"]["Guard"]), "Guard", None);
    table(&mut page, "### `answer`", &describe(&root["$defs"]["Answer"]), "Answer", None);
    table(&mut page, "#### `answer.dhcp`", &describe(&root["$defs"]["Dhcp"]), "Dhcp", None);
    table(&mut page, "#### `answer.dhcp6`", &describe(&root["$defs"]["Dhcp6"]), "Dhcp6", None);
    table(&mut page, "#### `answer.ra`", &describe(&root["$defs"]["Router"]), "Router", None);
    table(&mut page, "### `mac_damping`", &describe(&root["$defs"]["MacDamping"]), "MacDamping", None);
    table(&mut page, "## `[[vlan]]`", &describe(&root["properties"]["vlan"]), "VlanTable", None);
    table(&mut page, "### `vlan.multicast`", &describe(&root["$defs"]["Snooping"]), "Snooping", None);
    table(&mut page, "### `mdb`", &describe(&root["$defs"]["StaticMember"]), "StaticMember", None);
    table(&mut page, "## `[[zone]]`", &describe(&root["properties"]["zone"]), "Zone", None);
    table(&mut page, "### `timeouts`", &describe(&root["$defs"]["Timeouts"]), "Timeouts", None);
    table(&mut page, "## `[lldp]`", &describe(&root["properties"]["lldp"]), "Lldp", None);
    table(&mut page, "## `[[fdb]]`", &describe(&root["properties"]["fdb"]), "StaticFdb", None);
    table(&mut page, "## `[[tenant]]`", &describe(&root["properties"]["tenant"]), "Tenant", None);
    table(&mut page, "### `quota`", &describe(&root["$defs"]["Quota"]), "Quota", None);
    table(&mut page, "## `[[group]]`", &describe(&root["properties"]["group"]), "Group", None);
    table(&mut page, "## `[[meter]]`", &describe(&root["properties"]["meter"]), "Meter", None);
    table(&mut page, "## `[[mirror]]`", &describe(&root["properties"]["mirror"]), "Mirror", None);
    table(&mut page, "## `[[rule]]`", &describe(&root["properties"]["rule"]), "Rule", None);
    table(&mut page, "### `match`", &describe(&root["$defs"]["Match"]), "Match", None);
    actions(&mut page);
    table(&mut page, "#### `set`", &describe(&root["$defs"]["Set"]), "Set", None);
    table(&mut page, "#### `sample`", &describe(&root["$defs"]["Sample"]), "Sample", None);
    table(&mut page, "#### `ct`", &describe(&root["$defs"]["Ct"]), "Ct", None);
    page
}

/// What a rule can do: words, and words with a value.
fn actions(page: &mut String) {
    let action = &schema()["$defs"]["Action"];
    // Writing to a string does not fail.
    let _ = write!(page, "\n### `action`\n\n{}\n\n| action | meaning |\n| --- | --- |\n", describe(action));
    for variant in action["oneOf"].as_array().into_iter().flatten() {
        let key = variant["properties"].as_object().and_then(|keys| keys.keys().next());
        let written = match key {
            Some(key) => format!("{{ {key} = .. }}"),
            None => format!("\"{}\"", variant["const"].as_str().unwrap_or_default()),
        };
        let _ = writeln!(page, "| `{written}` | {} |", describe(variant).replace('|', "\\|"));
    }
}

fn table(page: &mut String, heading: &str, sentence: &str, name: &str, keys: Option<&[&str]>) {
    let Some(properties) = schema()["$defs"][name]["properties"].as_object() else { return };
    // Writing to a string does not fail.
    let _ = write!(page, "\n{heading}\n\n{sentence}\n\n");
    let effect: Option<fn(&str) -> crate::Effect> = match name {
        "Daemon" => Some(crate::diff::daemon_effect),
        "Port" => Some(crate::diff::port_effect),
        _ => None,
    };
    if keys.is_some_and(<[&str]>::is_empty) {
        page.truncate(page.trim_end().len());
        page.push('\n');
        return;
    }
    let (head, rule) = if effect.is_some() { (" change |", " --- |") } else { ("", "") };
    let _ = write!(page, "| key | value | default | meaning |{head}\n| --- | --- | --- | --- |{rule}\n");
    let all: Vec<&str> = properties.keys().map(String::as_str).collect();
    for &key in keys.unwrap_or(&all) {
        let property = &properties[key];
        let is_required =
            schema()["$defs"][name]["required"].as_array().is_some_and(|list| list.iter().any(|k| k == key));
        let default = match property.get("default") {
            Some(value) => format!("`{}`", toml_like(value)),
            None if is_required => "needed".to_owned(),
            None => String::new(),
        };
        let (value, meaning) = (type_of(property), describe(property).replace('|', "\\|"));
        let _ = write!(page, "| `{key}` | {value} | {default} | {meaning} |");
        if let Some(effect) = effect {
            let cost = if key == "name" { "another port".to_owned() } else { effect(key).to_string() };
            let _ = write!(page, " {cost} |");
        }
        page.push('\n');
    }
}

fn describe(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ")
}

fn type_of(property: &Value) -> String {
    let schema = resolve(property);
    if let Some(words) = schema["oneOf"].as_array() {
        let words: Vec<String> =
            words.iter().filter_map(|w| w["const"].as_str()).map(|w| format!("`\"{w}\"`")).collect();
        return words.join(", ");
    }
    let name = match &schema["type"] {
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).find(|n| *n != "null").unwrap_or_default()
        }
        name => name.as_str().unwrap_or_default(),
    };
    match name {
        "string" if schema["format"] == "mac" => "MAC address".into(),
        "string" if schema["format"] == "names" => "name or list of names".into(),
        "integer" => "number".into(),
        "boolean" => "true or false".into(),
        "array" if schema["items"]["$ref"].as_str().is_some_and(|name| name.ends_with("/Action")) => {
            "list of actions".into()
        }
        "array" if schema["items"]["$ref"].as_str().is_some_and(|name| name.ends_with("/Prefix")) => {
            "list of prefixes".into()
        }
        "array" if schema["items"]["type"] == "string" => "list of names".into(),
        "array" if schema["items"]["type"].is_array() => "list of numbers and ranges".into(),
        "array" => "list of numbers".into(),
        "object" => "table".into(),
        other => other.into(),
    }
}

fn toml_like(value: &Value) -> String {
    match value {
        Value::Object(keys) => {
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k} = {}", toml_like(v))).collect();
            format!("{{ {} }}", keys.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_in_the_repository_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == markdown(), "docs/configuration.md differs: run `cargo run -p fabnic -- gen docs`");
    }

    #[test]
    fn every_key_has_a_text() {
        let page = markdown();
        for (name, definition) in schema()["$defs"].as_object().unwrap() {
            for (key, property) in definition["properties"].as_object().into_iter().flatten() {
                assert!(!describe(property).is_empty(), "{name}.{key} says nothing");
                let is_there = page.contains(&format!("`{key}`"));
                assert!(is_there, "{name}.{key} is not on the page");
            }
        }
    }

    #[test]
    fn example_is_a_configuration() {
        let toml = INTRODUCTION.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let config = crate::parse(toml).unwrap();
        assert_eq!(config.port.len(), 2);
    }
}
