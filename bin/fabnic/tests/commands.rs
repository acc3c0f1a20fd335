//! The program as people run it, against a daemon that is not there: what it prints is kept word for word.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

#[path = "../../../control/api/tests/fake/mod.rs"]
mod fake;

use std::{
    io::{BufRead as _, Write as _},
    process::{Command, Output, Stdio},
};

/// Runs `fabnic` with these words and shows what came: words, output, errors, exit code.
fn run(served: &fake::Served, words: &str) -> String {
    let output = program(served).args(words.split_whitespace()).output().unwrap();
    shown(served, words, &output)
}

fn program(served: &fake::Served) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fabnic"));
    command.env("FABNIC_API", &served.socket).env("COLUMNS", "100").stdin(Stdio::null());
    command
}

fn shown(served: &fake::Served, words: &str, output: &Output) -> String {
    let socket = served.socket.display().to_string();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&socket, "SOCKET");
    let mut shown = format!("$ fabnic {words}\n{}{}", text(&output.stdout), text(&output.stderr));
    if !output.status.success() {
        shown.push_str(&format!("[exit {}]\n", output.status.code().unwrap()));
    }
    shown.push('\n');
    shown
}

fn session(commands: &[&str]) -> String {
    let served = fake::serve();
    commands.iter().map(|words| run(&served, words)).collect()
}

#[test]
fn shows() {
    insta::assert_snapshot!(session(&[
        "status",
        "port show",
        "port show vm1",
        "port show vm2",
        "port show up0",
        "fdb show",
        "fdb show vlan 10 learned",
        "fdb show dev vm2",
        "fdb show --limit 2",
        "fdb stats",
        "vlan show",
        "vlan show vlan 20",
        "stats show",
        "stats show vm2 --queues",
        "worker show",
        "config show",
        "rule show",
        "rule show blue/no-telnet",
        "group show",
        "group show web",
        "mirror show",
        "tenant show",
        "binding show",
        "lldp show",
        "flow show",
        "conn show",
        "conn show zone 2 --limit 1",
        "conn stats",
        "meter show",
        "meter show vm2",
        "mdb show",
        "mdb show vlan 10 --limit 1",
        "mdb show vlan 11",
        "mdb stats",
        "state save",
        "state export --port vm1",
        "trace vm1 ip_proto tcp dst_ip 10.0.0.2 dst_port 80",
        "why vm1",
    ]));
}

#[test]
fn policy_changes() {
    insta::assert_snapshot!(session(&[
        "rule add ssh port vm1 ingress prio 5 ip_proto tcp dst_port 22 action count action pass --dry-run",
        "rule add ssh port vm1 ingress prio 5 ip_proto tcp dst_port 22 action count action pass",
        "rule add blue/mine port vm2 src_ip 10.0.0.0/8 action drop",
        "rule set ssh port vm1 prio 6 ip_proto tcp dst_port 22 tcp_flags syn/syn+ack action drop",
        "rule del ssh blue/mine",
        "group add db 10.2.0.0/24",
        "group set db +10.2.1.1 -10.2.0.0/24",
        "mirror add m2 to up0 port vm1,vm2 ingress snaplen 128",
        "mirror set m2 sample 10 snaplen default",
        "mirror del m2",
        "group del db",
        "binding del port vm1",
        "rule add nat port vm1 ip_proto udp ct_mark 5/0xff action ct commit zone 7 ct_mark 5 snat 203.0.113.1:1024-2047 action police 10mbit burst 64k action pass",
        "meter add gold2 rate 1mbit parent gold",
        "conn flush port vm1",
        "conn flush all",
        "meter add silver rate 5mbit burst 64k yellow 10 --dry-run",
        "meter add silver rate 5mbit burst 64k yellow 10",
        "meter set silver peak_rate 9mbit burst default",
        "meter del silver",
        "mdb add 239.2.2.2 port vm1 vlan 10",
        "mdb del port vm1",
        "port set vm2 tenant_keys mtu,state guard.arp on guard.ip 10.0.0.5",
    ]));
}

#[test]
fn policy_refusals() {
    insta::assert_snapshot!(session(&[
        "rule add x dst_prot 80 drop",
        "rule add x dst_port 80",
        "rule add x port none action drop",
        "rule add web action drop",
        "rule add x ip_proto icmp dst_port 80 action drop",
        "rule add x action drop action pass",
        "rule add blue/x port vm1 action drop",
        "rule set none action drop",
        "rule del none",
        "group set web 10.0.0.1",
        "group del web",
        "mirror add m to",
        "trace vm1 dst_prot 80",
        "why none",
        "binding del port vm2",
        "conn flush",
        "conn flush zon 3",
        "rule add x action ct ct_mark 5",
        "rule add x egress action ct commit",
        "rule add blue/x action ct commit snat 203.0.113.1",
        "meter add x rate 1mbit parent gild",
        "conn show zone big",
        "conn show port none",
        "state export --port none",
        "state import --port vm1",
        "state export --port vm1 --json",
        "meter add x rate 5kpps burst 64k",
        "meter set none rate 5mbit",
        "meter add x rat 5mbit",
        "mdb add 224.0.0.9 port vm1 vlan 10",
        "mdb add 239.1.1.1 port up0 vlan 10",
        "mdb add 239.1.1.1 port vm1 vlan 20",
        "mdb add 239.1.1.1 port vm1",
        "mdb del port vm1",
        "--token blue-and-secret conn show",
        "--token blue-and-secret conn show port vm1",
        "--token blue-and-secret conn flush zone 1",
        "--token blue-and-secret conn stats",
        "--token blue-and-secret mdb add 239.1.1.1 port vm2 vlan 10",
        "--token wrong port show",
        "--token blue-and-secret port show",
        "--token blue-and-secret worker show",
    ]));
}

/// The part of the log that does not change from run to run.
#[test]
fn the_audit_log_says_who_and_what() {
    let served = fake::serve();
    run(&served, "rule add ssh action pass");
    run(&served, "rule del none");
    let text = run(&served, "audit");
    assert!(text.contains(" infrastructure uid "), "{text}");
    assert!(
        text.contains(": POST /v1/rules ssh: 1 change\n    + rule ssh ingress prio 1000 action pass\n"),
        "{text}"
    );
    assert!(text.contains(": DELETE /v1/rules/none: refused, "), "{text}");
}

/// A frame of a capture file is sent with its whole length, and errors say what is wrong with the file.
#[test]
fn a_frame_of_a_file_is_traced() {
    let served = fake::serve();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two.pcap");
    let mut bytes = Vec::new();
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1];
    header.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    for kept in [60_u32, 20] {
        [1, 0, kept, 60].iter().for_each(|word: &u32| bytes.extend(word.to_le_bytes()));
        bytes.resize(bytes.len() + kept as usize, 7);
    }
    std::fs::write(&file, bytes).unwrap();
    let trace = |rest: &str| {
        let words = format!("trace vm1 --pcap {} {rest}", file.display());
        run(&served, &words).replace(&file.display().to_string(), "FILE")
    };
    assert!(trace("").contains("to port vm2, in VLAN 10"), "{}", trace(""));
    assert!(trace("--nth 2").contains("to port vm2"), "cut frames have their length");
    let beyond = trace("--nth 3");
    assert!(beyond.contains("FILE: the file has 2 frames, and number 3 is asked for\n[exit 1]"), "{beyond}");
    std::fs::write(&file, b"no capture").unwrap();
    assert!(trace("").contains("FILE: at byte 0: the file begins with"), "{}", trace(""));
    assert!(trace("--hex 00").contains("cannot be used with"), "one way at a time");
}

#[test]
fn shows_as_json() {
    insta::assert_snapshot!(session(&[
        "status --json",
        "--json port show vm1",
        "fdb show static --json",
        "vlan show port up0 --json",
        "worker show --json",
        "stats show vm2 --json",
        "state show --json",
        "port set vm1 mtu 9000 --json --dry-run",
    ]));
}

#[test]
fn changes() {
    insta::assert_snapshot!(session(&[
        "port add vm3 nic virtio-net socket /run/fabnic/vm3.sock vlan 10 --dry-run",
        "port add vm3 nic virtio-net socket /run/fabnic/vm3.sock vlan 10",
        "port add up1 uplink tap device tap1 vlan trunk 10,20-29 native 1 offloads off",
        "port set vm3 mtu 9000 state disable vlan trunk 10",
        "port set vm3 role client queues 4",
        "port set vm3 mtu default vlan default",
        "port set vm3 mtu 1500",
        "fdb add 52:54:00:00:00:77 dev vm1 vlan 10",
        "fdb del 52:54:00:00:00:77 vlan 10",
        "fdb del port vm2 learned",
        "port del vm3",
        "port del up0",
        "port show",
    ]));
}

#[test]
fn refusals() {
    insta::assert_snapshot!(session(&[
        "port show none",
        "port add vm1 nic virtio-net socket /run/x.sock",
        "port add x nic virtio-ent socket /run/x.sock",
        "port add x nic avf",
        "port add x uplink tap device busy0",
        "port add x uplink tap",
        "port set vm1 vlna 10",
        "port set vm1 vlan 4095",
        "port set vm1 mtu 10",
        "port set vm1 socket",
        "port del none",
        "fdb add 52:54:00:00:00:77",
        "fdb add 52:54:00:00:00:77 dev none vlan 10",
        "fdb del 52:54:00:00:00:aa vlan 10",
        "fdb show vlan 0",
        "vlan show static",
        "stats show none",
        "capture none -w -",
        "top",
        "apply /does/not/exist.toml",
        "--api /does/not/exist.sock port show",
    ]));
}

#[test]
fn applies_a_file_or_says_where_it_is_wrong() {
    let served = fake::serve();
    let apply = |words: &str, text: &str| {
        let mut child = program(&served)
            .args(words.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        shown(&served, words, &child.wait_with_output().unwrap())
    };
    let other = fake::START
        .replace("workers = [1]", "workers = [0, 1]\nfdb_ageing = 60")
        .replace("access = 10", "access = 11")
        .replace("tap0", "tap1")
        .replace("name = \"vm2\"", "name = \"vm4\"")
        .replace("queues = 2", "");
    let mut text = apply("apply -", fake::START);
    text += &apply("apply - --dry-run", &other);
    text += &apply("apply -", &other);
    text += &apply("apply -", &other);
    text += &apply("apply -", &other.replace("vhost_user", "vhost-user"));
    text += &apply("apply -", &other.replace("tap1", "busy0"));
    text += &apply("apply -", "[[port]\n");
    insta::assert_snapshot!(text);
}

#[test]
fn config_show_is_a_file_that_applies_to_nothing_new() {
    let served = fake::serve();
    let output = program(&served).args(["config", "show"]).output().unwrap();
    assert_eq!(
        fabnic_model::parse(&String::from_utf8(output.stdout).unwrap()).unwrap(),
        fabnic_model::parse(fake::START).unwrap()
    );
}

#[test]
fn captures_to_a_file_and_to_a_pipe() {
    let served = fake::serve();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.pcapng");
    let expected = [b"HEAD".as_slice(), &b"BLOCK".repeat(5)].concat();

    let status = program(&served).args(["capture", "vm1", "-c", "5", "-w"]).arg(&file).status().unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read(&file).unwrap(), expected);

    let output = program(&served).args(["capture", "vm1", "--count", "5", "-w", "-"]).output().unwrap();
    assert_eq!(output.stdout, expected);

    // A refused capture leaves an older file alone.
    let status =
        program(&served).args(["capture", "none", "-w"]).arg(&file).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(std::fs::read(&file).unwrap(), expected);
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let served = fake::serve();
    let mut child = program(&served)
        .args(["capture", "vm1", "-c", "1000000", "-w", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn watching_goes_on() {
    let served = fake::serve();
    for (words, at_least) in [("stats show --watch=0.1", 2 * 6), ("stats show -w 0.1 --json", 3)] {
        let mut child =
            program(&served).args(words.split_whitespace()).stdout(Stdio::piped()).spawn().unwrap();
        let lines: Vec<String> = std::io::BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .take(at_least)
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(lines.len(), at_least, "{words}: {lines:#?}");
        if words.contains("json") {
            assert!(lines.iter().all(|l| serde_json::from_str::<fabnic_api::Stats>(l).is_ok()));
        } else {
            // Nothing moves in the fake: every rate is zero.
            assert_eq!(lines[0], "received 0/s, replicated 0/s, delivered 0/s, dropped 0/s");
            assert!(lines[1].starts_with("PORT") && lines[2].starts_with("vm1"), "{lines:#?}");
        }
    }
}

#[test]
fn completions_are_made_for_each_shell() {
    let served = fake::serve();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = program(&served).args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("capture"), "{shell}");
    }
}
