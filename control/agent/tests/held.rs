//! What the switch holds by itself (connections, tokens, members of groups), shown to whom it belongs, and flushed.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

use std::time::{Duration, Instant};

use fabnic_agent::{Agent, AgentOptions};
use fabnic_api::{Backend as _, ConnectionFilter, MdbFilter, MdbKind, MeterFilter, MeterPlace};
use fabnic_model::{Config, Domain};
use fabnic_testkit::packets::Packet;

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A pcap file of these frames.
fn recording(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1];
    header.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        [1, 0, len, len].iter().for_each(|word: &u32| bytes.extend(word.to_le_bytes()));
        bytes.extend(frame);
    }
    bytes
}

const CONFIG: &str = r#"
[daemon]
api = "DIR/api.sock"
[[tenant]]
name = "blue"
police = "1gbit burst 1m"
quota = { connections = 3, fdb_entries = 1 }
[[tenant]]
name = "red"
[[meter]]
name = "gold"
tenant = "blue"
rate = "1mbit"
burst = "2k"
[[rule]]
name = "metered"
tenant = "blue"
action = [{ meter = "gold" }, "pass"]
[[vlan]]
id = 1
snooping = true
querier = true
mdb = [{ group = "239.1.1.1", port = "sink" }, { group = "239.1.1.1", port = "source" }]
[[fdb]]
mac = "52:54:00:00:00:02"
vlan = 1
port = "sink"
[[port]]
name = "sink"
uplink = "pcap"
capture = "DIR/out.pcapng"
tenant = "red"
[port.storm]
broadcast = "1kpps burst 16p"
"#;

#[test]
fn what_the_switch_holds_is_shown_to_whom_it_belongs() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let udp = |port: u16| {
        let packet = Packet::ethernet([0x52, 0x54, 0, 0, 0, 2], [0x52, 0x54, 0, 0, 0, 1]);
        packet.ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(port, 53).size(60).build()
    };
    std::fs::write(path("in.pcap"), recording(&[udp(1000), udp(1001), udp(1002), udp(1003)])).unwrap();
    let source = r#"
        [[port]]
        name = "source"
        uplink = "pcap"
        replay = "DIR/in.pcap"
        rate = 0
        tenant = "blue"
        conntrack = { zone = 5 }
    "#;
    let config = |text: &str| -> Config {
        fabnic_model::parse(&text.replace("DIR", &dir.path().display().to_string())).unwrap()
    };
    // The source comes last, so that everybody is there when it begins.
    let first = CONFIG.replace(", { group = \"239.1.1.1\", port = \"source\" }", "");
    let agent = Agent::start(config(&first), AgentOptions::default()).unwrap();
    agent.apply(config(&format!("{CONFIG}{source}")), false).unwrap();

    let (infra, blue, red) =
        (Domain::Infrastructure, Domain::Tenant("blue".into()), Domain::Tenant("red".into()));
    let of = |domain: &Domain, filter: ConnectionFilter| agent.connections(domain, &filter).entries;
    let all = ConnectionFilter::default;
    eventually("three connections", || of(&infra, all()).len() == 3);
    assert_eq!(of(&blue, all()), of(&infra, all()), "they are blue's: its port opened them");
    assert_eq!(of(&red, all()), [], "though they come to red's port");
    let seen = &of(&blue, ConnectionFilter { address: Some("10.0.0.2".parse().unwrap()), ..all() })[0];
    assert_eq!((seen.zone, seen.port.as_str(), seen.ip_proto.as_str()), (5, "source", "udp"));
    assert_eq!((seen.original.dst_port, seen.reply.src_port), (Some(53), Some(53)));
    assert_eq!((seen.original.passed.frames, seen.reply.passed.frames), (1, 0));
    let none = [
        ConnectionFilter { zone: Some(4), ..all() },
        ConnectionFilter { port: Some("sink".into()), ..all() },
        ConnectionFilter { address: Some("10.0.0.3".parse().unwrap()), ..all() },
        ConnectionFilter { ip_proto: Some("tcp".parse().unwrap()), ..all() },
    ];
    none.into_iter().for_each(|filter| assert_eq!(of(&infra, filter.clone()), [], "{filter:?}"));
    let page = agent.connections(&infra, &ConnectionFilter { limit: Some(2), ..all() });
    assert_eq!(page.entries.len(), 2);
    let rest = agent.connections(&infra, &ConnectionFilter { from: page.next, ..all() });
    assert_eq!((rest.entries.len(), rest.next), (1, None));
    let zone = agent.conntrack().zones.into_iter().find(|zone| zone.zone == 5).unwrap();
    assert_eq!((zone.connections, zone.created), (3, 3));

    // The fourth was one too many for the tenant.
    let status = &agent.tenant_status(&blue)[0];
    assert_eq!((status.used.connections, status.refused.connections), (3, 1));
    assert_eq!((status.used.fdb_entries, status.refused.fdb_entries), (1, 0));
    assert_eq!(agent.tenant_status(&red)[0].used.connections, 0);
    eventually("the drop is counted", || agent.stats().totals.drops.get("ct_tenant_limit") == Some(&1));

    // Each meter is charged 4 frames, and has what is left of its bucket.
    let meters = agent.meters(&infra, &MeterFilter::default());
    let find = |place| meters.iter().find(|meter| meter.place == place).unwrap();
    let (gold, tenant) = (find(MeterPlace::Rule), find(MeterPlace::Tenant));
    assert_eq!((gold.id.as_str(), tenant.id.as_str()), ("blue/gold", "blue"));
    assert_eq!((gold.green.frames, gold.green.bytes), (4, 240));
    assert_eq!((gold.committed.rate, gold.committed.burst), (Some(1_000_000), 2048));
    assert!((2048 - 240..=2048).contains(&gold.committed.tokens), "{gold:?}");
    assert_eq!(tenant.green.frames, 4);
    assert_eq!(find(MeterPlace::StormBroadcast).id, "sink");
    let places = |domain: &Domain, port: Option<&str>| -> Vec<MeterPlace> {
        let filter = MeterFilter { port: port.map(str::to_owned) };
        agent.meters(domain, &filter).iter().map(|meter| meter.place).collect()
    };
    assert_eq!(places(&blue, None), [MeterPlace::Rule, MeterPlace::Tenant]);
    assert_eq!(places(&red, None), [MeterPlace::StormBroadcast]);
    assert_eq!(places(&infra, Some("sink")), [MeterPlace::StormBroadcast]);

    let members = |domain: &Domain| -> Vec<String> {
        let vlans = agent.mdb(domain, &MdbFilter::default());
        assert_eq!((vlans.len(), vlans[0].vlan), (1, 1));
        assert!(vlans[0].entries.iter().all(|entry| entry.kind == MdbKind::Static));
        assert_eq!(vlans[0].counters.is_some(), domain.tenant().is_none());
        assert!(vlans[0].igmp.querier.as_ref().unwrap().port.is_none(), "the switch itself asks");
        vlans[0].entries.iter().map(|entry| entry.port.clone()).collect()
    };
    assert_eq!(members(&infra).len(), 2);
    assert_eq!((members(&blue), members(&red)), (vec!["source".into()], vec!["sink".into()]));
    let only = MdbFilter { group: Some("239.1.1.2".parse().unwrap()), ..MdbFilter::default() };
    assert_eq!(agent.mdb(&infra, &only)[0].total, 0);

    assert_eq!(agent.connections_flush(&red, &all()), 0, "not its own");
    let two = ConnectionFilter { address: Some("10.0.0.1".parse().unwrap()), zone: Some(5), ..all() };
    assert_eq!(agent.connections_flush(&blue, &two), 3);
    assert_eq!(agent.conntrack().connections, 0);
}

#[test]
fn static_members_speak_of_snooping_vlans_and_their_ports() {
    let refusal = |vlan: &str| {
        let text = format!("[[port]]\nname = \"a\"\nuplink = \"loopback\"\n[[vlan]]\n{vlan}");
        fabnic_model::parse(&text).unwrap_err().to_string()
    };
    for (vlan, expected) in [
        (
            "id = 1\ngateway = [\"10.0.0.1\"]\nmdb = [{ group = \"239.1.1.1\", port = \"a\" }]",
            "snooping = true",
        ),
        ("id = 1\nsnooping = true\nmdb = [{ group = \"239.1.1.1\", port = \"b\" }]", "there is no port `b`"),
        ("id = 2\nsnooping = true\nmdb = [{ group = \"239.1.1.1\", port = \"a\" }]", "not in VLAN 2"),
        ("id = 1\nsnooping = true\nmdb = [{ group = \"224.0.0.5\", port = \"a\" }]", "nobody listens"),
        ("id = 1\nsnooping = true\nmdb = [{ group = \"ff02::1\", port = \"a\" }]", "nobody listens"),
        ("id = 1\nsnooping = true\nmdb = [{ group = \"10.0.0.1\", port = \"a\" }]", "nobody listens"),
        ("id = 1\nsnooping = true\nmdb = [{ grup = \"239.1.1.1\", port = \"a\" }]", "did you mean `group`?"),
    ] {
        let found = refusal(vlan);
        assert!(found.contains(expected), "{found}");
    }
}
