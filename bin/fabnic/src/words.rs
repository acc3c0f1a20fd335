//! Pairs of words, as in `ip link set` and `bridge fdb`: `mac 52:54:00:00:00:01 vlan trunk 10,20-29 native 1`.

use fabnic_api::{BindingFilter, ConnectionFilter, FdbFilter, FdbKind, MdbFilter};
use fabnic_model::{Mac, Vid, VlanSet, refusal::nearest};
use serde_json::{Map, Value, json};

use crate::client::Failure;

/// Kinds of value.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Switch,
}

/// Keys of a port whose value is one word.
const KEYS: [(&str, Kind); 34] = [
    ("tenant", Kind::Text),
    ("nic", Kind::Text),
    ("uplink", Kind::Text),
    ("mac", Kind::Text),
    ("queues", Kind::Number),
    ("queue_size", Kind::Number),
    ("generation", Kind::Number),
    ("trust", Kind::Switch),
    ("spoofchk", Kind::Switch),
    ("device", Kind::Text),
    ("offloads", Kind::Switch),
    ("replay", Kind::Text),
    ("capture", Kind::Text),
    ("rate", Kind::Number),
    ("loop", Kind::Switch),
    ("mtu", Kind::Number),
    ("state", Kind::Text),
    ("learning", Kind::Switch),
    ("fdb_limit", Kind::Number),
    ("proto", Kind::Text),
    ("qos", Kind::Number),
    ("isolated", Kind::Switch),
    ("sticky", Kind::Switch),
    ("flood", Kind::Switch),
    ("mcast_flood", Kind::Switch),
    ("bcast_flood", Kind::Switch),
    ("guest_lists", Kind::Switch),
    ("max_tx_rate", Kind::Text),
    ("min_tx_rate", Kind::Text),
    ("tx_weight", Kind::Number),
    ("tx_priority", Kind::Number),
    ("fair_share", Kind::Switch),
    ("police", Kind::Text),
    ("police_egress", Kind::Text),
];
/// Words that are no keys of the file by themselves.
const OTHERS: [&str; 10] =
    ["tenant_keys", "socket", "vhost_user", "role", "vfio_user", "mmap", "vlan", "access", "trunk", "native"];

fn wrong(text: impl Into<String>) -> Failure {
    Failure::Usage(text.into())
}

fn unknown(word: &str, known: &[&str]) -> Failure {
    let hint = match nearest(word, known.iter().copied()) {
        Some(hint) => format!("did you mean `{hint}`?"),
        None => format!("expected one of {}", known.join(", ")),
    };
    wrong(format!("`{word}` says nothing here: {hint}"))
}

/// The keys of a port as the API takes them. `default` becomes `null`.
pub(crate) fn port(words: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut keys = Map::new();
    let mut words = words.iter().map(String::as_str);
    let mut repeated = None;
    while let Some(word) = repeated.take().or_else(|| words.next()) {
        let mut value = || words.next().ok_or_else(|| wrong(format!("`{word}` needs a value")));
        match word {
            "vlan" => {
                let next = value()?;
                match next {
                    "access" | "trunk" | "native" => repeated = Some(next),
                    "default" => drop(keys.insert("vlan".into(), Value::Null)),
                    _ => vlan_key(&mut keys, "access", json!(vid(next)?))?,
                }
            }
            "access" | "native" => {
                let vid = vid(value()?)?;
                vlan_key(&mut keys, word, json!(vid))?;
            }
            "trunk" => {
                let set: VlanSet = value()?.parse().map_err(|e| wrong(format!("trunk: {e}")))?;
                vlan_key(&mut keys, word, json!(set))?;
            }
            "tenant_keys" => {
                let list = match value()? {
                    "default" => Value::Null,
                    list => json!(list.split(',').collect::<Vec<_>>()),
                };
                if keys.insert(word.into(), list).is_some() {
                    return Err(wrong("`tenant_keys` is given twice"));
                }
            }
            "socket" | "vhost_user" | "role" => {
                let (key, value) = (if word == "role" { "role" } else { "socket" }, value()?);
                let table = keys.entry("vhost_user").or_insert_with(|| json!({}));
                insert_once(table, word, key, json!(value))?;
            }
            "vfio_user" | "mmap" => {
                let value = match word {
                    "mmap" => read("mmap", Kind::Switch, value()?)?,
                    _ => json!(value()?),
                };
                let table = keys.entry("vfio_user").or_insert_with(|| json!({}));
                insert_once(table, word, if word == "mmap" { "mmap" } else { "socket" }, value)?;
            }
            _ if word.split_once('.').is_some_and(|(table, _)| TABLES.contains(&table)) => {
                let value = nested(word, value()?);
                put_nested(&mut keys, word, value)?;
            }
            _ => {
                let Some((key, kind)) = KEYS.iter().find(|(key, _)| *key == word) else {
                    let known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).chain(OTHERS).collect();
                    return Err(unknown(word, &known));
                };
                let value = read(key, *kind, value()?)?;
                if keys.insert((*key).into(), value).is_some() {
                    return Err(wrong(format!("`{key}` is given twice")));
                }
            }
        }
    }
    Ok(keys)
}

/// The keys of a mirror as the API takes them. `default` becomes `null`.
pub(crate) fn mirror(words: &[String]) -> Result<Map<String, Value>, Failure> {
    const KNOWN: [&str; 6] = ["to", "port", "direction", "vlan", "snaplen", "sample"];
    let mut keys = Map::new();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| wrong(format!("`{word}` needs a value")));
        let (key, value) = match word {
            "ingress" | "egress" | "both" => ("direction", json!(word)),
            "to" | "direction" => (word, read(word, Kind::Text, value()?)?),
            "snaplen" | "sample" => (word, read(word, Kind::Number, value()?)?),
            "port" => match value()? {
                "default" => (word, Value::Null),
                names => (word, json!(names.split(',').collect::<Vec<_>>())),
            },
            "vlan" => match value()? {
                "default" => (word, Value::Null),
                list => {
                    let set: VlanSet = list.parse().map_err(|e| wrong(format!("vlan: {e}")))?;
                    (word, json!(set))
                }
            },
            _ => return Err(unknown(word, &KNOWN)),
        };
        if keys.insert(key.into(), value).is_some() {
            return Err(wrong(format!("`{key}` is given twice")));
        }
    }
    Ok(keys)
}

/// Keys of a port that are tables, whose keys are written with a dot: `guard.arp on`.
const TABLES: [&str; 8] =
    ["guard", "answer", "priority", "vlan_map", "storm", "conntrack", "nat", "multicast"];
/// Keys of those that are lists.
const LISTS: [&str; 9] =
    ["mac", "ip", "slaac", "dns", "routes", "prefixes", "regenerate", "to_pcp", "to_dscp"];

/// A value of a table's key, as what it looks like.
fn nested(word: &str, text: &str) -> Value {
    let one = |text: &str| match text {
        "on" | "true" => json!(true),
        "off" | "false" => json!(false),
        text => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
    };
    let is_list =
        word.rsplit_once('.').is_some_and(|(_, key)| LISTS.contains(&key)) && word != "answer.ra.mac";
    match text {
        "default" => Value::Null,
        "none" if is_list => json!([]),
        list if is_list => list.split(',').map(one).collect(),
        one_word => one(one_word),
    }
}

fn put_nested(keys: &mut Map<String, Value>, word: &str, value: Value) -> Result<(), Failure> {
    let twice = || wrong(format!("`{word}` is given twice"));
    let mut path: Vec<&str> = word.split('.').collect();
    let Some(last) = path.pop() else { return Ok(()) };
    let mut table = keys;
    for step in path {
        let inner = table.entry(step).or_insert_with(|| json!({}));
        table = inner.as_object_mut().ok_or_else(twice)?;
    }
    if table.insert(last.into(), value).is_some() { Err(twice()) } else { Ok(()) }
}

fn read(key: &str, kind: Kind, text: &str) -> Result<Value, Failure> {
    if text == "default" {
        return Ok(Value::Null);
    }
    match kind {
        Kind::Text => Ok(json!(text)),
        Kind::Number => {
            text.parse::<u64>().map(|n| json!(n)).map_err(|_| wrong(format!("{key}: `{text}` is no number")))
        }
        Kind::Switch => match text {
            "on" | "true" | "yes" => Ok(json!(true)),
            "off" | "false" | "no" => Ok(json!(false)),
            _ => Err(wrong(format!("{key}: `{text}` is neither on nor off"))),
        },
    }
}

fn vlan_key(keys: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), Failure> {
    let table = keys.entry("vlan").or_insert_with(|| json!({}));
    insert_once(table, key, key, value)
}

fn insert_once(table: &mut Value, word: &str, key: &str, value: Value) -> Result<(), Failure> {
    match table.as_object_mut() {
        Some(table) if !table.contains_key(key) => {
            table.insert(key.into(), value);
            Ok(())
        }
        _ => Err(wrong(format!("`{word}` is given twice"))),
    }
}

fn vid(text: &str) -> Result<Vid, Failure> {
    text.parse().map_err(|e| wrong(format!("vlan: {e}")))
}

/// Which FDB entries are meant: `[MAC] [port|dev NAME] [vlan N] [static|learned]`.
pub(crate) fn fdb(words: &[String]) -> Result<FdbFilter, Failure> {
    let mut filter = FdbFilter::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| wrong(format!("`{word}` needs a value")));
        let twice = match word {
            "port" | "dev" => filter.port.replace(value()?.to_owned()).is_some(),
            "vlan" => filter.vlan.replace(vid(value()?)?).is_some(),
            "static" => filter.kind.replace(FdbKind::Static).is_some(),
            "learned" | "dynamic" => filter.kind.replace(FdbKind::Learned).is_some(),
            "mac" | "lladdr" => filter.mac.replace(mac(value()?)?).is_some(),
            _ if word.contains([':', '-']) => filter.mac.replace(mac(word)?).is_some(),
            _ => return Err(unknown(word, &["port", "vlan", "static", "learned", "mac"])),
        };
        if twice {
            return Err(wrong(format!("`{word}` is given twice")));
        }
    }
    Ok(filter)
}

/// Which bindings are meant: `[ADDRESS] [port|dev NAME] [vlan N]`.
pub(crate) fn binding(words: &[String]) -> Result<BindingFilter, Failure> {
    let mut filter = BindingFilter::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| wrong(format!("`{word}` needs a value")));
        let twice = match word {
            "port" | "dev" => filter.port.replace(value()?.to_owned()).is_some(),
            "vlan" => filter.vlan.replace(vid(value()?)?).is_some(),
            _ => match word.parse() {
                Ok(address) => filter.address.replace(address).is_some(),
                Err(_) => return Err(unknown(word, &["port", "vlan"])),
            },
        };
        if twice {
            return Err(wrong(format!("`{word}` is given twice")));
        }
    }
    Ok(filter)
}

/// Which connections are meant: `[ADDRESS] [port|dev NAME] [zone N] [ip_proto P]`.
pub(crate) fn connection(words: &[String]) -> Result<ConnectionFilter, Failure> {
    let mut filter = ConnectionFilter::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| wrong(format!("`{word}` needs a value")));
        let twice = match word {
            "port" | "dev" => filter.port.replace(value()?.to_owned()).is_some(),
            "zone" => {
                let text = value()?;
                let zone =
                    text.parse().map_err(|_| wrong(format!("zone: `{text}` is no number to 65535")))?;
                filter.zone.replace(zone).is_some()
            }
            "ip_proto" | "proto" => {
                let protocol = value()?.parse().map_err(|e| wrong(format!("{word}: {e}")))?;
                filter.ip_proto.replace(protocol).is_some()
            }
            _ => match word.parse() {
                Ok(address) => filter.address.replace(address).is_some(),
                Err(_) => return Err(unknown(word, &["port", "zone", "ip_proto"])),
            },
        };
        if twice {
            return Err(wrong(format!("`{word}` is given twice")));
        }
    }
    Ok(filter)
}

/// Which members of groups are meant: `[GROUP] [port|dev NAME] [vlan N]`, and as `bridge mdb` says it, `grp` and `vid`.
pub(crate) fn mdb(words: &[String]) -> Result<MdbFilter, Failure> {
    let mut filter = MdbFilter::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| wrong(format!("`{word}` needs a value")));
        let twice = match word {
            "port" | "dev" => filter.port.replace(value()?.to_owned()).is_some(),
            "vlan" | "vid" => filter.vlan.replace(vid(value()?)?).is_some(),
            "group" | "grp" => {
                let text = value()?;
                let group = text.parse().map_err(|_| wrong(format!("{word}: `{text}` is no address")))?;
                filter.group.replace(group).is_some()
            }
            _ => match word.parse() {
                Ok(group) => filter.group.replace(group).is_some(),
                Err(_) => return Err(unknown(word, &["port", "vlan", "group"])),
            },
        };
        if twice {
            return Err(wrong(format!("`{word}` is given twice")));
        }
    }
    Ok(filter)
}

/// The keys of a meter as the API takes them. `default` becomes `null`.
pub(crate) fn meter(words: &[String]) -> Result<Map<String, Value>, Failure> {
    const KNOWN: [(&str, Kind); 11] = [
        ("rate", Kind::Text),
        ("burst", Kind::Text),
        ("peak_rate", Kind::Text),
        ("excess_rate", Kind::Text),
        ("excess_burst", Kind::Text),
        ("yellow", Kind::Text),
        ("red", Kind::Text),
        ("parent", Kind::Text),
        ("overhead", Kind::Number),
        ("color_aware", Kind::Switch),
        ("color_from", Kind::Text),
    ];
    let mut keys = Map::new();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let Some((key, kind)) = KNOWN.iter().find(|(key, _)| *key == word) else {
            return Err(unknown(word, &KNOWN.map(|(key, _)| key)));
        };
        let value = words.next().ok_or_else(|| wrong(format!("`{word}` needs a value")))?;
        if keys.insert((*key).into(), read(key, *kind, value)?).is_some() {
            return Err(wrong(format!("`{key}` is given twice")));
        }
    }
    Ok(keys)
}

fn mac(text: &str) -> Result<Mac, Failure> {
    text.parse().map_err(|e| wrong(format!("{e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn port_words_become_keys() {
        let keys = port(&words(
            "nic virtio-net socket /run/a.sock role client mac 52:54:00:00:00:01 vlan trunk 10,20-29 native 1 \
             mtu 9000 learning off queues default",
        ))
        .unwrap();
        assert_eq!(
            Value::Object(keys),
            json!({
                "nic": "virtio-net",
                "vhost_user": { "socket": "/run/a.sock", "role": "client" },
                "mac": "52:54:00:00:00:01",
                "vlan": { "trunk": [10, "20-29"], "native": 1 },
                "mtu": 9000,
                "learning": false,
                "queues": null,
            })
        );
    }

    #[test]
    fn a_vfio_user_port() {
        let keys = port(&words("nic e1000 vfio_user /run/b.sock mmap on")).unwrap();
        let expected = json!({ "nic": "e1000", "vfio_user": { "socket": "/run/b.sock", "mmap": true } });
        assert_eq!(Value::Object(keys), expected);
    }

    #[test]
    fn tables_have_dots() {
        let keys = port(&words(
            "proto 802.1ad isolated on guard.arp on guard.ip 10.0.0.5,10.1.0.0/16 guard.max_bindings 9 \
             answer.dhcp.address 10.0.0.5 answer.ra.mac 02:00:00:00:00:01 vlan_map.10 110 priority default",
        ));
        assert!(keys.unwrap_err().to_string().contains("priority"), "a table has keys");
        let keys = port(&words(
            "proto 802.1ad isolated on guard.arp on guard.ip 10.0.0.5,10.1.0.0/16 guard.max_bindings 9 \
             answer.dhcp.address 10.0.0.5 answer.ra.mac 02:00:00:00:00:01 vlan_map.10 110 guard.slaac none",
        ));
        let expected = json!({
            "proto": "802.1ad",
            "isolated": true,
            "guard": { "arp": true, "ip": ["10.0.0.5", "10.1.0.0/16"], "max_bindings": 9, "slaac": [] },
            "answer": { "dhcp": { "address": "10.0.0.5" }, "ra": { "mac": "02:00:00:00:00:01" } },
            "vlan_map": { "10": 110 },
        });
        assert_eq!(Value::Object(keys.unwrap()), expected);
    }

    #[test]
    fn tables_of_multicast_and_connections() {
        let keys = port(&words("multicast.router never multicast.fast_leave on multicast.limit 9")).unwrap();
        let expected = json!({ "multicast": { "router": "never", "fast_leave": true, "limit": 9 } });
        assert_eq!(Value::Object(keys), expected);
        let keys = port(&words("conntrack.zone 3 nat.inside 10.0.0.5 nat.outside 203.0.113.5")).unwrap();
        let nat = json!({ "inside": "10.0.0.5", "outside": "203.0.113.5" });
        assert_eq!(Value::Object(keys), json!({ "conntrack": { "zone": 3 }, "nat": nat }));
    }

    #[test]
    fn vlan_has_short_forms() {
        for (text, vlan) in [
            ("vlan 10", json!({ "access": 10 })),
            ("vlan access 10", json!({ "access": 10 })),
            ("vlan native 3", json!({ "native": 3 })),
            ("vlan default", Value::Null),
        ] {
            assert_eq!(port(&words(text)).unwrap()["vlan"], vlan, "{text}");
        }
    }

    #[test]
    fn slips_are_named() {
        for (text, message) in [
            ("vlna 10", "`vlna` says nothing here: did you mean `vlan`?"),
            ("mtu", "`mtu` needs a value"),
            ("mtu big", "mtu: `big` is no number"),
            ("learning maybe", "learning: `maybe` is neither on nor off"),
            ("mtu 1500 mtu 1400", "`mtu` is given twice"),
            ("vlan 4095", "vlan: `4095` is not a VLAN, expected a number from 1 to 4094"),
        ] {
            assert_eq!(port(&words(text)).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn fdb_words_become_a_filter() {
        let filter = fdb(&words("52:54:00:00:00:01 dev vm1 vlan 10 static")).unwrap();
        assert_eq!(filter.port.as_deref(), Some("vm1"));
        assert_eq!(filter.kind, Some(FdbKind::Static));
        assert!(fdb(&words("potr vm1")).unwrap_err().to_string().contains("did you mean `port`?"));
    }
}
