//! What holds for every configuration.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

use fabnic_model::VlanTable;
use fabnic_model::conntrack::{Timeouts, Zone};
use fabnic_model::multicast::{Snooping, Unregistered};
use fabnic_model::{
    AdminState, Config, Daemon, Mac, Port, Role, StaticFdb, Vid, Vlan, VlanSet, apply, config_from_json,
    diff, parse, port_from_json,
};
use proptest::prelude::*;

fn vid() -> impl Strategy<Value = Vid> {
    (1u16..=4094).prop_map(|id| Vid::new(id).unwrap())
}

fn vlan() -> impl Strategy<Value = Vlan> {
    prop_oneof![
        vid().prop_map(Vlan::Access),
        (prop::collection::vec((vid(), vid()), 1..5), prop::option::of(vid()))
            .prop_map(|(ranges, native)| Vlan::Trunk { allowed: VlanSet::from_ranges(ranges), native }),
        vid().prop_map(|vid| Vlan::Trunk { allowed: VlanSet::default(), native: Some(vid) }),
    ]
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 5]>().prop_map(|b| Mac([2, b[0], b[1], b[2], b[3], b[4]]))
}

/// A port that the number alone tells from others.
fn port(number: u8) -> impl Strategy<Value = Port> {
    let name = format!("p{number}");
    let role = prop_oneof![Just(Role::Server), Just(Role::Client)];
    let nic = {
        let name = name.clone();
        (role, prop::option::of(mac()), prop::option::of(1u16..=128), prop::option::of(6u32..=15)).prop_map(
            move |(role, mac, queues, size)| Port {
                mac,
                queues,
                queue_size: size.map(|bits| 1 << bits),
                ..Port::virtio_net(name.clone(), format!("/run/{name}.sock"), role)
            },
        )
    };
    let tap = {
        let name = name.clone();
        (prop::option::of(any::<bool>()), prop::option::of(1u16..=128)).prop_map(move |(offloads, queues)| {
            Port { offloads, queues, ..Port::tap(name.clone(), format!("tap{number}")) }
        })
    };
    let pcap = (prop::option::of(0u64..=1 << 40), prop::option::of(any::<bool>())).prop_map(
        move |(rate, repeat)| Port {
            uplink: Some(fabnic_model::Uplink::Pcap),
            replay: Some("/tmp/a b.pcap".into()),
            rate,
            repeat,
            ..Port::named(name.clone())
        },
    );
    let state = prop_oneof![Just(AdminState::Auto), Just(AdminState::Enable), Just(AdminState::Disable)];
    (prop_oneof![nic, tap, pcap], vlan(), 68u16.., state, any::<bool>(), any::<u32>()).prop_map(
        |(port, vlan, mtu, state, learning, fdb_limit)| Port {
            vlan,
            mtu,
            state,
            learning,
            fdb_limit,
            ..port
        },
    )
}

fn daemon() -> impl Strategy<Value = Daemon> {
    (prop::sample::subsequence(vec![0u32, 1, 2, 3], 0..=4), 0u32..=1_000_000, 64u32..=1 << 24).prop_map(
        |(workers, fdb_ageing, flow_entries)| Daemon {
            workers,
            fdb_ageing,
            flow_entries,
            ..Daemon::default()
        },
    )
}

fn snooping() -> impl Strategy<Value = Snooping> {
    let unregistered =
        prop::sample::select(vec![Unregistered::Routers, Unregistered::Flood, Unregistered::Drop]);
    (unregistered, 1u8..=7, 30u32..=31744, 100u32..=25500, prop::option::of(any::<[u8; 3]>())).prop_map(
        |(unregistered, robustness, query_interval, max_response_ms, ip)| Snooping {
            unregistered,
            robustness,
            query_interval,
            max_response_ms,
            querier_ip: ip.map(|[a, b, c]| [10, a, b, c].into()),
            ..Snooping::default()
        },
    )
}

prop_compose! {
    fn config()(
        daemon in daemon(),
        ports in prop::sample::subsequence((0u8..6).collect::<Vec<_>>(), 0..=6)
            .prop_flat_map(|numbers| numbers.into_iter().map(port).collect::<Vec<_>>())
            .prop_shuffle(),
        macs in prop::collection::btree_set(mac(), 0..4),
        vlans in prop::collection::btree_map(vid(), prop::option::of(snooping()), 0..3),
        zones in prop::collection::btree_map(any::<u16>(), (prop::option::of(any::<u32>()), any::<bool>(), prop::option::of(1u32..1000)), 0..3),
    ) -> Config {
        let vlans = vlans.into_iter().map(|(id, multicast)| VlanTable {
            id,
            gateway: Vec::new(),
            gateway_mac: None,
            snooping: true,
            querier: multicast.is_some(),
            multicast,
            mdb: Vec::new(),
        });
        let vlans = vlans.collect();
        let zones = zones.into_iter().map(|(id, (limit, loose, udp))| Zone {
            id,
            limit,
            loose,
            liberal: !loose,
            max_retransmissions: None,
            timeouts: Timeouts { udp, ..Timeouts::default() },
        });
        let zones = zones.collect();
        // Each entry points to a port and a VLAN of it that exist.
        let fdb = macs
            .into_iter()
            .zip(ports.iter().cycle())
            .map(|(mac, port)| {
                let vlan = port.vlan.pvid().or_else(|| port.vlan.tagged().iter().next()).unwrap();
                StaticFdb { mac, vlan, port: port.name.clone() }
            })
            .collect();
        Config { daemon, port: ports, fdb, vlan: vlans, zone: zones, ..Config::default() }
    }
}

/// Without the order of tables, which says nothing.
fn sorted(mut config: Config) -> Config {
    config.port.sort_by(|a, b| a.name.cmp(&b.name));
    config.fdb.sort_by_key(|e| (e.vlan, e.mac));
    config
}

proptest! {
    #[test]
    fn toml_and_json_give_back_what_was_written(config in config()) {
        prop_assert!(config.check().is_ok(), "{}", config.check().unwrap_err());
        prop_assert_eq!(&parse(&config.to_toml().unwrap()).unwrap(), &config);
        let json = serde_json::to_value(&config).unwrap();
        prop_assert_eq!(&config_from_json(json.to_string().as_bytes()).unwrap(), &config);
        for port in &config.port {
            prop_assert_eq!(&port_from_json(serde_json::to_value(port).unwrap()).unwrap(), port);
            prop_assert!(port.kind().is_ok());
        }
    }

    #[test]
    fn applying_the_difference_gives_what_was_desired(running in config(), desired in config()) {
        let changes = diff(&running, &desired);
        prop_assert_eq!(sorted(apply(&running, &changes)), sorted(desired.clone()));
        prop_assert_eq!(changes.is_empty(), sorted(running) == sorted(desired));
        let json = serde_json::to_string(&changes).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<fabnic_model::Change>>(&json).unwrap(), changes);
    }

    #[test]
    fn every_step_on_the_way_is_consistent(running in config(), desired in config()) {
        // Entries go before their ports do and come after; no name is there twice in between.
        let mut config = running.clone();
        for change in diff(&running, &desired) {
            config = apply(&config, &[change]);
            for entry in &config.fdb {
                prop_assert!(config.find_port(&entry.port).is_some(), "{entry:?}");
            }
            let mut names: Vec<_> = config.port.iter().map(|p| &p.name).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), config.port.len());
        }
    }

    #[test]
    fn no_difference_to_oneself(config in config()) {
        prop_assert_eq!(diff(&config, &config), vec![]);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        if let Err(refused) = parse(&text) {
            prop_assert!(!refused.0.is_empty());
        }
    }

    #[test]
    fn broken_files_are_read_or_refused(
        config in config(),
        at in any::<prop::sample::Index>(),
        length in 0usize..20,
        patch in "[\\[\\]{}=\",.0-9a-z\\n-]{0,12}",
    ) {
        let mut text = config.to_toml().unwrap();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        if text.is_char_boundary(start) && text.is_char_boundary(end) {
            text.replace_range(start..end, &patch);
        }
        match parse(&text) {
            Ok(config) => prop_assert!(config.port.iter().all(|p| p.kind().is_ok())),
            Err(refused) => {
                let lines = text.lines().count() + 1;
                for refusal in &refused.0 {
                    prop_assert!(refusal.line.is_some_and(|l| l <= lines), "{refusal}");
                    prop_assert!(!refusal.problem.is_empty());
                }
            }
        }
    }
}

/// Thousands of mistakes: found in one look at the text, not in one look each.
#[test]
fn every_mistake_in_a_long_file_has_its_line() {
    let names: String =
        (0..500).map(|i| format!("[[port]]\nname = \"p{i}\"\nuplink = \"loopback\"\n")).collect();
    let entries = "[[fdb]]\nmac = \"52:54:00:00:00:01\"\nvlan = 9\nport = \"nowhere\"\n".repeat(4_000);
    let refused = parse(&(names + &entries)).unwrap_err();
    // Each entry points nowhere, and all but the first are there already.
    assert_eq!(refused.0.len(), 7_999);
    assert_eq!(refused.0.last().unwrap().line, Some(3 * 500 + 4 * 4_000));
}

proptest! {
    /// The rules of a group are found by an index: the same that a look at all rules finds, whatever was changed and undone.
    #[test]
    fn the_rules_of_a_group_are_those_that_speak_of_it(
        steps in prop::collection::vec((0_u8..6, 0_u8..5, 0_u8..4, any::<bool>()), 1..40),
    ) {
        let mut desired = fabnic_model::Desired::new(Config::default());
        let rule = |name: u8, speaks: u8| {
            let words: &[&str] = match speaks {
                0 => &["dst_ip", "group:a", "action", "drop"],
                1 => &["src_ip", "group:b", "action", "drop"],
                2 => &["src_ip", "group:a", "dst_ip", "group:b", "action", "drop"],
                _ => &["action", "drop"],
            };
            std::sync::Arc::new(fabnic_model::Rule::of_words(&format!("r{name}"), words).unwrap())
        };
        for (name, speaks, kind, undone) in steps {
            let rule = rule(name, speaks);
            let old = desired.find_rule(&rule.name).cloned();
            let change = match (kind, old) {
                (0 | 1, None) => fabnic_model::Change::RuleAdd { rule },
                (0 | 1, Some(old)) => fabnic_model::Change::RuleSet {
                    name: old.name.clone(),
                    fields: Vec::new(),
                    rule,
                },
                (2, Some(old)) => fabnic_model::Change::RuleDel { name: old.name.clone() },
                (2, None) => continue,
                // All of it, as when a file is applied.
                _ => {
                    desired = desired.next(desired.config().clone());
                    continue;
                }
            };
            let undo = desired.reverse(&change).unwrap();
            desired.carry_out(&change);
            if undone {
                desired.undo(undo);
            }
            for group in ["a", "b"] {
                let found: Vec<u64> = desired.rules_of_group(group).map(|(number, _)| number).collect();
                let speaks = |rule: &fabnic_model::Rule| rule.groups().any(|name| name == group);
                let expected: Vec<u64> = desired
                    .numbered_rules()
                    .filter(|(_, rule)| speaks(rule))
                    .map(|(number, _)| number)
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
