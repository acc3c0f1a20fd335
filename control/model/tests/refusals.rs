//! What people read when their file is refused: each text is kept word for word.

use fabnic_model::parse;

/// The refusal of a text, as the daemon prints it.
fn refused(text: &str) -> String {
    parse(text).expect_err("the text should be refused").to_string()
}

/// The refusals of several texts, each below the lines that caused it.
fn all_refused(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{}\n  {}\n\n", text.trim_end(), refused(text))).collect()
}

#[test]
fn syntax() {
    insta::assert_snapshot!(all_refused(&[
        "[daemon]\nworkers = [1\n\n[[port]]\n",
        "[daemon]\nlog = \"info\"\nlog = \"warn\"\n",
    ]));
}

#[test]
fn unknown_keys_are_all_named_with_hints() {
    insta::assert_snapshot!(refused(
        r#"
[deamon]
workers = [1]

[[port]]
name = "vm1"
nic = "virtio-net"
vhost-user = { socket = "/run/a.sock" }

[[port]]
name = "vm2"
nic = "virtio-net"
vhost_user = { socket = "/run/b.sock", rolle = "client" }
vlan = { acces = 10 }
colour = "red"
"#
    ));
}

#[test]
fn wrong_types_and_words() {
    insta::assert_snapshot!(all_refused(&[
        "[daemon]\nworkers = 1\n",
        "[[port]]\nname = \"a\"\n[[port]]\nname = \"b\"\nmtu = \"big\"\n",
        "[[port]]\nname = \"a\"\nnic = \"virtio_net\"\n",
        "[[port]]\nname = \"a\"\nstate = \"up\"\n",
        "[[port]]\nnic = \"virtio-net\"\n",
        "[[port]]\nname = \"a\"\nmac = \"52:54:00\"\n",
        "[[port]]\nname = \"a\"\nmtu = 70000\n",
        "[[port]]\nname = \"a\"\nnic = \"virtio-net\"\nvhost_user = { role = \"client\" }\n",
        "port = 3\n",
    ]));
}

#[test]
fn wrong_vlans() {
    let vlans = [
        "{ access = 0 }",
        "{ access = 4095 }",
        "{ access = 10, trunk = [20] }",
        "{ trunk = [] }",
        "{ trunk = [10, \"20-10\"] }",
        "{ trunk = [10, 5000] }",
        "{ trunk = [true] }",
        "{ }",
        "10",
    ];
    let refusals: String = vlans
        .iter()
        .map(|vlan| {
            let text = format!("[[port]]\nname = \"a\"\nuplink = \"loopback\"\nvlan = {vlan}\n");
            format!("vlan = {vlan}\n  {}\n\n", refused(&text))
        })
        .collect();
    insta::assert_snapshot!(refusals);
}

#[test]
fn kinds_that_come_later_are_known() {
    insta::assert_snapshot!(refused(
        r#"
[[port]]
name = "vf7"
nic = "avf"
vfio_user = { socket = "/run/fabnic/vf7.sock" }

[[port]]
name = "old"
nic = "e1000"

[[port]]
name = "up1"
uplink = "xdp"
device = "eth1"
"#
    ));
}

#[test]
fn kinds_have_their_keys() {
    insta::assert_snapshot!(refused(
        r#"
[[port]]
name = "a"

[[port]]
name = "b"
nic = "virtio-net"
uplink = "tap"

[[port]]
name = "c"
nic = "virtio-net"
device = "tap0"

[[port]]
name = "d"
uplink = "tap"
mac = "52:54:00:00:00:01"

[[port]]
name = "e"
uplink = "pcap"
rate = 10

[[port]]
name = "f"
uplink = "loopback"
vhost_user = { socket = "/run/f.sock" }
"#
    ));
}

#[test]
fn values_are_in_range_and_not_twice() {
    insta::assert_snapshot!(refused(
        r#"
[daemon]
api = "/run/a.sock"
workers = [1, 2, 1, 5000]
fdb_entries = 0
fdb_ageing = 2000000
flow_entries = 1
log = "chatty"

[[port]]
name = "vm 1"
nic = "virtio-net"
vhost_user = { socket = "/run/a.sock" }
mac = "ff:ff:ff:ff:ff:ff"
queues = 129
queue_size = 1000
mtu = 60

[[port]]
name = "vm2"
nic = "virtio-net"
vhost_user = { socket = "/run/b.sock" }

[[port]]
name = "vm2"
nic = "virtio-net"
vhost_user = { socket = "/run/b.sock", role = "client" }

[[port]]
name = "up0"
uplink = "tap"
device = "a-name-that-is-too-long"

[[port]]
name = "up1"
uplink = "tap"
device = "tap0"

[[port]]
name = "up2"
uplink = "tap"
device = "tap0"

[[port]]
name = "file"
uplink = "pcap"
replay = "/tmp/x.pcapng"
capture = "/tmp/x.pcapng"
"#
    ));
}

#[test]
fn static_entries_point_to_ports_and_vlans_that_are_there() {
    insta::assert_snapshot!(refused(
        r#"
[[port]]
name = "up0"
uplink = "loopback"
vlan = { trunk = ["10-19"] }

[[fdb]]
mac = "52:54:00:00:00:01"
vlan = 10
port = "up1"

[[fdb]]
mac = "01:00:5e:00:00:01"
vlan = 20
port = "up0"

[[fdb]]
mac = "52:54:00:00:00:02"
vlan = 10
port = "up0"

[[fdb]]
mac = "52:54:00:00:00:02"
vlan = 10
port = "up0"
"#
    ));
}

#[test]
fn settings_of_multicast_make_sense() {
    insta::assert_snapshot!(refused(
        r#"
[[port]]
name = "up0"
uplink = "loopback"
vlan = { trunk = ["10-19"] }
multicast = { router = "never", limit = 2000000 }

[[vlan]]
id = 10
snooping = true
multicast = { routers = ["up0", "up1", "up0"], robustness = 0, query_interval = 10, max_response_ms = 10000, igmp_version = 1 }

[[vlan]]
id = 20
gateway = ["10.0.0.1"]
multicast = { unregistered = "drop", routers = ["up0"], querier_ip = "224.0.0.1", querier_ip6 = "2001:db8::1" }
"#
    ));
}

#[test]
fn settings_of_zones_and_translation_make_sense() {
    insta::assert_snapshot!(refused(
        r#"
[[port]]
name = "a"
uplink = "loopback"
nat = { inside = "10.0.0.5", outside = "203.0.113.5" }

[[port]]
name = "b"
uplink = "loopback"
conntrack = { zone = 1 }
nat = { inside = "10.0.0.5", outside = "2001:db8::5" }

[[port]]
name = "c"
uplink = "loopback"
conntrack = { zone = 1 }
nat = { inside = "0.0.0.0", outside = "0.0.0.0" }

[[zone]]
id = 1
max_retransmissions = 0
timeouts = { udp = 0, tcp_established = 99999999 }

[[zone]]
id = 1
"#
    ));
}

#[test]
fn cpus_are_those_of_the_host() {
    let config = parse("[daemon]\nworkers = [0, 7]\n").unwrap();
    assert!(config.check_cpus(&[0, 7]).is_ok());
    insta::assert_snapshot!(config.check_cpus(&[0, 1]).unwrap_err().to_string());
}

#[test]
fn foreign_text_in_messages_is_short_and_harmless() {
    let long = "x".repeat(10_000);
    for text in [
        format!("\"\\u001b[2J{long}\" = 1\n"),
        format!("[[port]]\nname = \"\\u001b[2J{long}\"\n"),
        format!("[[port]]\nname = \"a\"\nmac = \"\\u001b[2J{long}\"\n"),
        format!("[[port]]\nname = \"a\"\nnic = \"\\u001b[2J{long}\"\n"),
    ] {
        let message = refused(&text);
        assert!(message.len() < 2000, "{} bytes", message.len());
        assert!(!message.contains('\u{1b}'), "{message:?}");
    }
}
