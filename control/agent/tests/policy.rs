//! Rules, groups, mirrors and tenants: changed one at a time, and there again after the daemon died.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use fabnic_agent::{Agent, AgentOptions, Found, StateFile};
use fabnic_api::{ApplyError, Backend as _, TenantDoor, TraceRequest};
use fabnic_model::{Config, Domain, Edit, EditError, Kind, Mirror, Port, Uplink, tenant::Tenant};
use serde_json::json;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn config(&self, text: &str) -> Config {
        let text = format!("[daemon]\napi = \"{}\"\n{text}", self.path("api.sock"));
        fabnic_model::parse(&text.replace("DIR", &self.dir.path().display().to_string())).unwrap()
    }

    fn state(&self) -> StateFile {
        StateFile::new(self.path("state.toml"), Path::new("c"), "text")
    }

    fn start(&self, config: Config) -> Arc<Agent> {
        Agent::start(config, AgentOptions { state: Some(self.state()), ..AgentOptions::default() }).unwrap()
    }

    /// What the next daemon would start with.
    fn found(&self) -> Config {
        match self.state().find().unwrap() {
            Found::Current { config, problem: None } => *config,
            other => panic!("{other:?}"),
        }
    }
}

const PORTS: &str = r#"
[[port]]
name = "a"
uplink = "loopback"
[[port]]
name = "b"
uplink = "loopback"
tenant = "blue"
[[tenant]]
name = "blue"
socket = "DIR/blue.sock"
uids = [0]
"#;

fn add(value: serde_json::Value) -> Edit {
    Edit::Add { kind: Kind::Rule, value }
}

const WHO: Domain = Domain::Infrastructure;

#[test]
fn what_is_edited_is_there_after_the_daemon_died() {
    let bench = Bench::new();
    let agent = bench.start(bench.config(PORTS));
    let group = json!({ "name": "web", "addresses": ["10.0.0.1"] });
    agent.edit(&WHO, &[Edit::Add { kind: Kind::Group, value: group }], false).unwrap();
    for number in 0..20 {
        let name = format!("r{number}");
        let rule =
            json!({ "name": name, "port": "a", "match": { "dst_ip": "group:web" }, "action": ["drop"] });
        let changes = agent.edit(&WHO, &[add(rule)], false).unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(bench.found(), agent.config(), "after rule {number}");
    }
    let del = |name: &str| Edit::Del { kind: Kind::Rule, name: name.into() };
    let set = Edit::Set { kind: Kind::Rule, name: "r3".into(), patch: json!({ "priority": 7 }) };
    let more = vec!["10.1.0.0/16".parse().unwrap()];
    let members = Edit::Members { name: "web".into(), add: more, del: Vec::new() };
    agent.edit(&WHO, &[del("r0"), set, members], false).unwrap();
    assert_eq!(bench.found(), agent.config());
    assert_eq!(agent.config().rule[0].name, "r1", "the order in which they came stays");

    // The whole configuration is written once, and changes are appended again.
    let mut whole = agent.config();
    whole.port.push(Port { uplink: Some(Uplink::Loopback), ..Port::named("c") });
    agent.apply(whole, false).unwrap();
    agent.edit(&WHO, &[del("r1")], false).unwrap();
    assert_eq!(bench.found(), agent.config());
    let names: Vec<_> =
        std::fs::read_dir(bench.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(
        names.iter().filter(|name| name.to_string_lossy().contains("journal")).count(),
        1,
        "{names:?}"
    );
}

#[test]
fn edits_are_made_as_one_or_not_at_all() {
    let bench = Bench::new();
    let agent = bench.start(bench.config(PORTS));
    agent.edit(&WHO, &[add(json!({ "name": "there", "action": ["pass"] }))], false).unwrap();
    let before = agent.config();
    let new = || add(json!({ "name": "new", "action": ["pass"] }));
    let gone = || Edit::Del { kind: Kind::Rule, name: "there".into() };
    for wrong in [
        add(json!({ "name": "there2", "port": "nowhere", "action": ["pass"] })),
        add(json!({ "name": "new", "action": ["drop"] })),
        Edit::Del { kind: Kind::Rule, name: "never".into() },
        Edit::Set { kind: Kind::Rule, name: "there".into(), patch: json!({ "priority": 1 }) },
    ] {
        assert!(agent.edit(&WHO, &[new(), gone(), wrong], false).is_err());
        assert_eq!(agent.config(), before);
        assert_eq!(bench.found(), before);
    }
    let changes = agent.edit(&WHO, &[new(), gone()], true).unwrap();
    assert_eq!((changes.len(), agent.config()), (2, before.clone()));
    // A group that a rule speaks of cannot go, whichever way it is asked.
    let group = Edit::Add { kind: Kind::Group, value: json!({ "name": "web" }) };
    let user = add(json!({ "name": "user", "match": { "src_ip": "group:web" }, "action": ["pass"] }));
    agent.edit(&WHO, &[group, user], false).unwrap();
    let error = agent.edit(&WHO, &[Edit::Del { kind: Kind::Group, name: "web".into() }], false).unwrap_err();
    assert!(error.to_string().contains("there is no group `web`"), "{error}");
}

#[test]
fn a_tenant_changes_its_own_within_its_quota() {
    let bench = Bench::new();
    let mut config = bench.config(PORTS);
    config.tenant[0].quota.rules = 2;
    let agent = bench.start(config);
    let blue = Domain::Tenant("blue".into());
    let rule = |name: &str, port: &str| add(json!({ "name": name, "port": port, "action": ["drop"] }));
    agent.edit(&blue, &[rule("one", "b"), rule("two", "b")], false).unwrap();
    for (wrong, expected) in [
        (rule("three", "b"), "quota.rules"),
        (rule("foreign", "a"), "there is no port `a` of tenant blue"),
        (Edit::Del { kind: Kind::Rule, name: "red/one".into() }, "there is no rule"),
        (Edit::Del { kind: Kind::Tenant, name: "blue".into() }, "tenants are infrastructure's"),
    ] {
        let error = agent.edit(&blue, &[wrong], false).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    agent
        .edit(&blue, &[Edit::Del { kind: Kind::Rule, name: "one".into() }, rule("three", "b")], false)
        .unwrap();
    // Infrastructure's rules of the same names are others.
    agent.edit(&WHO, &[rule("two", "a")], false).unwrap();
    assert_eq!((agent.rules(&blue).len(), agent.rules(&WHO).len()), (2, 3));
    assert!(agent.rule(&blue, "two").unwrap().rule.tenant.is_some());

    // What it may not do by the whole configuration either.
    let mut whole = agent.config();
    whole.rule.retain(|rule| rule.tenant.is_some());
    match Agent::edit(&agent, &blue, &[Edit::Del { kind: Kind::Rule, name: "two".into() }], true) {
        Ok(changes) => assert_eq!(changes[0].to_string(), "- rule blue/two"),
        Err(error) => panic!("{error}"),
    }
    let error = fabnic_api::Backend::apply(&*agent, &blue, whole, false).unwrap_err();
    assert!(matches!(error, ApplyError::Edit(EditError::Forbidden(_))), "{error}");
}

#[test]
fn a_tenant_s_socket_comes_and_goes_with_it() {
    let bench = Bench::new();
    let agent = bench.start(bench.config(PORTS));
    let mut doors = agent.tenant_doors().unwrap();
    assert!(agent.tenant_doors().is_none(), "once");
    let Ok(TenantDoor::Open { tenant, listener }) = doors.try_recv() else { panic!("not open") };
    assert_eq!(tenant, "blue");
    UnixStream::connect(bench.path("blue.sock")).unwrap();
    drop(listener);

    // A change that fails leaves it, and makes no other.
    let mut config = agent.config();
    config.tenant[0].socket = Some(bench.path("other.sock"));
    config.tenant.push(Tenant {
        name: "red".into(),
        socket: Some("/nonexistent/red.sock".into()),
        ..config.tenant[0].clone()
    });
    let error = agent.apply(config.clone(), false).unwrap_err();
    assert!(error.to_string().contains("tenant[red].socket"), "{error}");
    assert!(Path::new(&bench.path("blue.sock")).exists() && !Path::new(&bench.path("other.sock")).exists());

    config.tenant.pop();
    agent.apply(config, false).unwrap();
    assert!(matches!(doors.try_recv(), Ok(TenantDoor::Closed { tenant }) if tenant == "blue"));
    assert!(matches!(doors.try_recv(), Ok(TenantDoor::Open { tenant, .. }) if tenant == "blue"));
    assert!(!Path::new(&bench.path("blue.sock")).exists());
    drop((agent, doors));
    // A thread of the agent's may just hold it, and be the last to let it go.
    let gone = || !Path::new(&bench.path("other.sock")).exists();
    let begun = std::time::Instant::now();
    while !gone() && begun.elapsed().as_secs() < 30 {
        std::thread::yield_now();
    }
    assert!(gone(), "it goes with the daemon");
}

#[test]
fn mirrors_guards_and_gateways_reach_the_switch() {
    let bench = Bench::new();
    let mut config = bench.config(&format!(
        "{PORTS}\n[[vlan]]\nid = 1\ngateway = [\"10.0.0.1\"]\n[[mirror]]\nname = \"tap\"\nto = \"b\"\nport = \"a\"\n"
    ));
    config.port[0].isolated = true;
    config.port[0].guard = Some(serde_json::from_value(json!({ "ipv4": true, "ip": ["10.0.0.5"] })).unwrap());
    let agent = bench.start(config.clone());
    let mirror = &agent.mirrors(&WHO)[0];
    assert_eq!((mirror.id.as_str(), mirror.copied), ("tap", 0));
    let trace = |source: &str| {
        let packet = json!({ "src_ip": source, "dst_ip": "10.0.0.9", "ip_proto": "udp" });
        let packet = Some(serde_json::from_value(packet).unwrap());
        agent.trace(&TraceRequest { port: "a".into(), packet, hex: None }).unwrap()
    };
    assert_eq!(trace("10.0.0.5").to[0].port, "b");
    let dropped = trace("10.0.0.6").dropped.unwrap();
    assert!(dropped.reason.contains("ip"), "{dropped:?}");
    let reason = agent.trace(&TraceRequest { port: "none".into(), packet: None, hex: Some("00".repeat(60)) });
    assert!(reason.unwrap_err().to_string().contains("there is no port"));

    let meters = "[[meter]]\nname = \"gold\"\nrate = \"10mbit\"\npeak_rate = \"20mbit\"\nyellow = 10\n";
    config.meter = fabnic_model::parse(meters).unwrap().meter;
    config.port[0].storm = Some(serde_json::from_value(json!({ "broadcast": "1kpps" })).unwrap());
    config.port[0].max_tx_rate = Some("1gbit".parse().unwrap());
    config.port[0].police = Some("10mbit burst 64k".parse().unwrap());
    agent.apply(config.clone(), false).unwrap();
    let metered = json!({ "name": "metered", "port": "a", "action": [{ "meter": "gold" }, "pass"] });
    agent.edit(&WHO, &[add(metered)], false).unwrap();
    let operations = trace("10.0.0.5").operations.join("; ");
    assert!(operations.contains("; meter"), "{operations}");
    config = agent.config();

    config.port[1].isolated = true;
    config.mirror = vec![Mirror {
        to: "a".into(),
        port: fabnic_model::rule::PortNames(vec!["b".into()]),
        ..config.mirror[0].clone()
    }];
    agent.apply(config, false).unwrap();
    assert!(trace("10.0.0.5").dropped.is_some(), "isolated ports do not talk to each other");
    assert_eq!(agent.mirrors(&WHO)[0].mirror.to, "a");
}

#[test]
fn rules_reach_the_switch_and_go_with_what_they_speak_of() {
    let bench = Bench::new();
    let agent = bench.start(bench.config(PORTS));
    let to = |address: &str| {
        let packet = json!({ "dst_ip": address, "ip_proto": "tcp", "dst_port": 80 });
        let packet = Some(serde_json::from_value(packet).unwrap());
        let report = agent.trace(&TraceRequest { port: "a".into(), packet, hex: None }).unwrap();
        report.dropped.map(|dropped| dropped.reason)
    };
    assert_eq!(to("10.0.0.1"), None);
    let group = Edit::Add { kind: Kind::Group, value: json!({ "name": "web" }) };
    let rule =
        json!({ "name": "no-web", "port": "a", "match": { "dst_ip": "group:web" }, "action": ["drop"] });
    agent.edit(&WHO, &[group, add(rule)], false).unwrap();
    assert_eq!(to("10.0.0.1"), None, "the group is empty");
    let members = |add: &[&str], del: &[&str]| Edit::Members {
        name: "web".into(),
        add: add.iter().map(|address| address.parse().unwrap()).collect(),
        del: del.iter().map(|address| address.parse().unwrap()).collect(),
    };
    agent.edit(&WHO, &[members(&["10.0.0.0/24", "10.0.2.1"], &[])], false).unwrap();
    let dropped = to("10.0.0.1").unwrap();
    assert!(dropped.contains("rule"), "{dropped}");
    assert_eq!((to("10.0.2.1"), to("10.0.2.2")), (Some(dropped.clone()), None));
    agent.edit(&WHO, &[members(&[], &["10.0.2.1"])], false).unwrap();
    assert_eq!((to("10.0.0.1"), to("10.0.2.1")), (Some(dropped.clone()), None));

    // An older rule comes first, also after the whole configuration was applied.
    let pass = add(json!({ "name": "a-pass", "port": "a", "action": ["pass"] }));
    agent.edit(&WHO, &[pass], false).unwrap();
    let mut whole = agent.config();
    whole.rule.reverse();
    assert_eq!(agent.apply(whole, false).unwrap(), []);
    assert_eq!(to("10.0.0.1"), Some(dropped.clone()));
    let priority =
        |n: u32| Edit::Set { kind: Kind::Rule, name: "a-pass".into(), patch: json!({ "priority": n }) };
    agent.edit(&WHO, &[priority(1)], false).unwrap();
    assert_eq!(to("10.0.0.1"), None);
    // What is only tried, or fails, leaves the switch as it is.
    agent.edit(&WHO, &[priority(2000)], true).unwrap();
    let nothing = Edit::Del { kind: Kind::Rule, name: "none".into() };
    agent.edit(&WHO, &[Edit::Del { kind: Kind::Rule, name: "a-pass".into() }, nothing], false).unwrap_err();
    assert_eq!(to("10.0.0.1"), None);
    agent.edit(&WHO, &[Edit::Del { kind: Kind::Rule, name: "a-pass".into() }], false).unwrap();
    assert_eq!(to("10.0.0.1"), Some(dropped.clone()));

    // A port that is made again has its rules under its new number.
    let mut whole = agent.config();
    let before = agent.port("a").unwrap().id;
    whole.port[0] =
        Port { uplink: Some(Uplink::Pcap), capture: Some(bench.path("a.pcapng")), ..Port::named("a") };
    agent.apply(whole, false).unwrap();
    assert_ne!(agent.port("a").unwrap().id, before);
    assert_eq!(to("10.0.0.1"), Some(dropped));
    let mut whole = agent.config();
    whole.rule.clear();
    agent.apply(whole, false).unwrap();
    assert_eq!(to("10.0.0.1"), None);
    assert!(agent.rules(&WHO).is_empty());
}

#[test]
fn what_is_said_of_multicast_reaches_the_switch() {
    let bench = Bench::new();
    let vlans = r#"
[[vlan]]
id = 1
snooping = true
querier = true
multicast = { routers = ["a"], querier_ip = "10.0.0.7", unregistered = "drop" }
"#;
    let agent = bench.start(bench.config(&format!("{PORTS}{vlans}")));
    let status = |agent: &Agent| agent.multicast().pop().unwrap();
    assert_eq!((status(&agent).igmp.routers, status(&agent).igmp.asks), (1, true));
    let shown = agent.mdb(&WHO, &fabnic_api::MdbFilter::default());
    let querier = shown[0].igmp.querier.as_ref().unwrap();
    assert_eq!((querier.address.to_string(), querier.port.as_ref()), ("10.0.0.7".to_owned(), None));
    assert_eq!(shown[0].igmp.routers[0].port, "a");

    // A port is a router's in all of its VLANs, or never; a port that goes is no router's either.
    let mut whole = agent.config();
    whole.vlan[0].multicast = None;
    whole.port[1].multicast = serde_json::from_value(json!({ "router": "always" })).unwrap();
    agent.apply(whole, false).unwrap();
    assert_eq!(agent.mdb(&WHO, &fabnic_api::MdbFilter::default())[0].igmp.routers[0].port, "b");
    let mut whole = agent.config();
    whole.vlan[0].multicast = serde_json::from_value(json!({ "routers": ["a", "b"] })).unwrap();
    whole.del_port("a").unwrap();
    agent.apply(whole, false).unwrap();
    assert_eq!(status(&agent).igmp.routers, 1);
}

#[test]
fn zones_and_a_ports_own_translation_reach_the_switch() {
    let bench = Bench::new();
    let more = "[[zone]]\nid = 4\nlimit = 0\n[[zone]]\nid = 5\ntimeouts = { udp = 77 }\n";
    let agent = bench.start(bench.config(&format!("{PORTS}{more}")));
    let mut whole = agent.config();
    whole.port[0].conntrack = serde_json::from_value(json!({ "zone": 4 })).unwrap();
    whole.port[0].guard = serde_json::from_value(json!({ "mac": ["02:00:00:00:00:05"] })).unwrap();
    whole.port[0].nat =
        serde_json::from_value(json!({ "inside": "10.0.0.5", "outside": "203.0.113.5" })).unwrap();
    agent.apply(whole, false).unwrap();
    assert_eq!(bench.found(), agent.config(), "it is there again");
    // The outside address is the port's as well: neighbours are answered for it.
    let bound = agent.bindings(&WHO, &fabnic_api::BindingFilter::default());
    assert_eq!(bound.iter().map(|b| b.address.as_str()).collect::<Vec<_>>(), ["203.0.113.5"]);
    let mut whole = agent.config();
    whole.zone.remove(0);
    let changes = agent.apply(whole, true).unwrap();
    assert_eq!(changes.len(), 1);
    assert!(changes[0].to_string().starts_with("~ switch: zone"), "{}", changes[0]);
}

#[test]
fn connections_meters_and_translation_of_rules_reach_the_switch() {
    let bench = Bench::new();
    let meters = r#"
[[meter]]
name = "inner"
rate = "10mbit"
parent = "outer"
[[meter]]
name = "outer"
rate = "5kpps"
"#;
    let agent = bench.start(bench.config(&format!("{PORTS}{meters}")));
    let rule = |name: &str, action: serde_json::Value| {
        add(json!({ "name": name, "port": "a", "match": { "ip_proto": "udp" }, "action": action }))
    };
    let ct =
        json!({ "ct": { "commit": true, "zone": 4, "ct_mark": 3, "snat": "192.0.2.1-192.0.2.9:1024-2047" } });
    let all = json!([ct, { "meter": "inner" }, { "police": "1mbit burst 8k" }, "pass"]);
    agent.edit(&WHO, &[rule("nat", all)], false).unwrap();
    let packet = json!({ "src_ip": "10.0.0.1", "dst_ip": "10.0.0.2", "ip_proto": "udp", "dst_port": 53 });
    let packet = Some(serde_json::from_value(packet).unwrap());
    let report = agent.trace(&TraceRequest { port: "a".into(), packet, hex: None }).unwrap();
    let notes: Vec<_> = report.steps.iter().flat_map(|step| step.notes.clone()).collect();
    assert!(notes.iter().any(|note| note == "zone 4: +trk+new"), "{notes:?}");
    let operations = report.operations.join("; ");
    assert!(operations.contains("2 meters one over the other; meter, and drop"), "{operations}");
    let meters = agent.meters(&WHO, &fabnic_api::MeterFilter::default());
    let shown: Vec<_> = meters.iter().map(|meter| (meter.id.as_str(), meter.place.as_str())).collect();
    assert_eq!(shown, [("inner", "rule"), ("outer", "rule"), ("nat", "rule_police")]);
    assert_eq!((meters[2].committed.rate, meters[2].committed.tokens), (Some(1_000_000), 8192));

    // What makes no sense is refused with its place.
    let egress = json!({ "name": "e", "direction": "egress", "action": [{ "ct": { "commit": true } }] });
    let both = json!({ "ct": { "commit": true, "snat": "192.0.2.1", "dnat": "2001:db8::1" } });
    let tenants = |ct: serde_json::Value| json!({ "name": "t", "tenant": "blue", "action": [{ "ct": ct }] });
    for (wrong, expected) in [
        (add(egress), "connections are made where packets come in"),
        (rule("b", json!([both])), "from one kind of IP to the other"),
        (rule("m", json!([{ "ct": { "ct_mark": 1 } }])), "ct commit"),
        (add(tenants(json!({ "commit": true, "zone": 9 }))), "in the zone of the port"),
        (add(tenants(json!({ "commit": true, "snat": "192.0.2.1" }))), "cannot change the source"),
        (
            add(json!({ "name": "v", "action": [{ "set": { "vlan_prio": 8 } }] })),
            "VLAN priority is out of range",
        ),
        (
            add(json!({ "name": "v", "tenant": "blue", "action": [{ "set": { "vlan_prio": 5 } }] })),
            "cannot change the VLAN priority",
        ),
    ] {
        let error = agent.edit(&WHO, &[wrong], false).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let gone = agent.edit(&WHO, &[Edit::Del { kind: Kind::Meter, name: "outer".into() }], false).unwrap_err();
    assert!(gone.to_string().contains("meter[inner].parent"), "{gone}");
    let circle = Edit::Set { kind: Kind::Meter, name: "outer".into(), patch: json!({ "parent": "inner" }) };
    assert!(agent.edit(&WHO, &[circle], false).unwrap_err().to_string().contains("too many meters"));
}
