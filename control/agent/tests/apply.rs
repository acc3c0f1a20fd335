//! From one desired state to the next: all of it, or nothing.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fabnic_agent::{Agent, AgentOptions, Found, StateFile};
use fabnic_api::{ApplyError, Backend as _, FdbFilter, FdbKind, LinkState};
use fabnic_model::{AdminState, Config, Effect, Port, Role, StaticFdb, Uplink, Vid, Vlan};

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

    fn vm(&self, name: &str) -> Port {
        Port::virtio_net(name, self.path(&format!("{name}.sock")), Role::Server)
    }

    fn config(&self, ports: &[Port]) -> Config {
        let mut config = Config { port: ports.to_vec(), ..Config::default() };
        config.daemon.api = self.path("api.sock");
        config
    }

    fn connect(&self, name: &str) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(self.path(&format!("{name}.sock")))?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

/// A VMM that is connected hears nothing; one that was sent away hears the end.
fn is_connected(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(config: Config) -> std::sync::Arc<Agent> {
    Agent::start(config, AgentOptions::default()).unwrap()
}

fn failed(result: Result<Vec<fabnic_model::Change>, ApplyError>) -> (String, String) {
    match result.unwrap_err() {
        ApplyError::Failed { key, problem, .. } => (key, problem),
        ApplyError::Edit(error) => panic!("{error}"),
        ApplyError::Refused(refused) => panic!("refused: {refused}"),
    }
}

/// A port that cannot be made: its socket's directory is not there.
fn impossible(name: &str) -> Port {
    Port::virtio_net(name, format!("/nonexistent/{name}.sock"), Role::Server)
}

#[test]
fn one_port_that_fails_undoes_all_others() {
    let bench = Bench::new();
    let state_file = || StateFile::new(bench.path("state.toml"), Path::new("c"), "text");
    let before = bench.config(&[bench.vm("vm1"), bench.vm("vm2")]);
    let options = AgentOptions { state: Some(state_file()), ..AgentOptions::default() };
    let agent = Agent::start(before.clone(), options).unwrap();
    let mut vmm = bench.connect("vm1").unwrap();
    eventually("connected", || agent.port("vm1").unwrap().peer.unwrap().connected);
    let ports = agent.ports();

    let mut vm2 = bench.vm("vm2");
    vm2.vlan = Vlan::Access(Vid::new(7).unwrap());
    let mut desired = bench.config(&[vm2, bench.vm("vm3"), impossible("vm4"), bench.vm("vm5")]);
    desired.fdb.push(StaticFdb {
        mac: "52:54:00:00:00:01".parse().unwrap(),
        vlan: Vid::new(7).unwrap(),
        port: "vm2".into(),
    });
    let (key, problem) = failed(agent.apply(desired.clone(), false));
    assert_eq!(key, "port[vm4].vhost_user.socket");
    assert!(problem.contains("/nonexistent/vm4.sock"), "{problem}");

    assert_eq!(agent.config(), before);
    assert_eq!(agent.ports(), ports);
    assert_eq!(agent.fdb(&FdbFilter::default()).total, 0);
    assert!(is_connected(&mut vmm), "the port that was to go kept its VMM");
    for name in ["vm3", "vm5"] {
        assert!(!Path::new(&bench.path(&format!("{name}.sock"))).exists(), "{name}: its socket went again");
    }
    assert!(matches!(state_file().find().unwrap(), Found::Nothing), "nothing was saved");

    desired.port.retain(|port| port.name != "vm4");
    let changes = agent.apply(desired.clone(), false).unwrap();
    assert_eq!(changes.len(), 5, "{changes:?}");
    assert_eq!(agent.config(), desired);
    eventually("sent away", || !is_connected(&mut vmm));
    assert!(bench.connect("vm1").is_err(), "its socket is gone");
    assert!(bench.connect("vm3").is_ok());
    assert_eq!(agent.fdb(&FdbFilter::default()).entries[0].port, "vm2");
    let Found::Current { config: saved, problem: None } = state_file().find().unwrap() else {
        panic!("not saved")
    };
    assert_eq!(*saved, desired);
}

#[test]
fn what_gave_way_to_a_port_that_failed_comes_back() {
    let bench = Bench::new();
    let mut files = Port::named("files");
    files.uplink = Some(Uplink::Pcap);
    files.capture = Some(bench.path("out.pcapng"));
    let before = bench.config(&[bench.vm("vm1"), files.clone()]);
    let agent = start(before.clone());
    let ids: Vec<_> = agent.ports().iter().map(|port| port.id).collect();

    // Both need what their predecessors hold, and the second one fails.
    let mut vm1 = bench.vm("vm1");
    vm1.queues = Some(2);
    files.replay = Some(bench.path("missing.pcap"));
    let (key, _) = failed(agent.apply(bench.config(&[vm1.clone(), files.clone()]), false));
    assert_eq!(key, "port[files].replay");
    assert_eq!(agent.config(), before);
    assert_eq!(agent.ports().iter().map(|port| port.id).collect::<Vec<_>>(), ids);
    let mut vmm = bench.connect("vm1").unwrap();
    eventually("the old port is served again", || agent.port("vm1").unwrap().peer.unwrap().connected);
    assert_eq!(agent.port("vm1").unwrap().queues.configured, 8);
    assert_eq!(agent.port("files").unwrap().link, LinkState::Up, "files are open again");

    files.replay = None;
    agent.apply(bench.config(&[vm1, files]), false).unwrap();
    eventually("re-creating sends the peer away", || !is_connected(&mut vmm));
    bench.connect("vm1").unwrap();
    let vm1 = agent.port("vm1").unwrap();
    assert_eq!(vm1.queues.configured, 2);
    assert!(!ids.contains(&vm1.id), "a number is never used again");
}

#[test]
fn a_dry_run_only_looks() {
    let bench = Bench::new();
    let agent = start(bench.config(&[bench.vm("vm1")]));
    let before = agent.ports();
    let mut vm1 = bench.vm("vm1");
    vm1.queues = Some(1);
    let changes = agent.apply(bench.config(&[vm1, bench.vm("vm2")]), true).unwrap();
    assert_eq!(changes.iter().map(|c| c.effect()).collect::<Vec<_>>(), [Effect::Recreate, Effect::Live]);
    assert_eq!(agent.ports(), before);
    assert!(bench.connect("vm2").is_err());
}

#[test]
fn live_changes_keep_port_and_peer() {
    let bench = Bench::new();
    let agent = start(bench.config(&[bench.vm("vm1")]));
    let mut vmm = bench.connect("vm1").unwrap();
    let id = agent.port("vm1").unwrap().id;
    let mut vm1 = bench.vm("vm1");
    vm1.vlan = Vlan::Trunk { allowed: "10,20-29".parse().unwrap(), native: Some(Vid::DEFAULT) };
    vm1.mtu = 9000;
    vm1.state = AdminState::Disable;
    vm1.fdb_limit = 3;
    agent.apply(bench.config(&[vm1.clone()]), false).unwrap();
    let now = agent.port("vm1").unwrap();
    assert_eq!(
        (now.id, now.mtu, now.state, now.fdb_limit, &now.vlan),
        (id, 9000, AdminState::Disable, 3, &vm1.vlan)
    );
    assert_eq!(now.link, LinkState::Down);
    assert!(is_connected(&mut vmm));
}

#[test]
fn static_entries_follow_their_port() {
    let bench = Bench::new();
    let entry = |port: &str| StaticFdb {
        mac: "52:54:00:00:00:01".parse().unwrap(),
        vlan: Vid::DEFAULT,
        port: port.into(),
    };
    let mut config = bench.config(&[bench.vm("vm1"), bench.vm("vm2")]);
    config.fdb.push(entry("vm1"));
    let agent = start(config.clone());
    let shown = || {
        let page = agent.fdb(&FdbFilter { kind: Some(FdbKind::Static), ..FdbFilter::default() });
        page.entries.into_iter().map(|entry| entry.port).collect::<Vec<_>>()
    };
    assert_eq!(shown(), ["vm1"]);
    // Re-created: another number, the same name.
    config.port[0].queues = Some(1);
    agent.apply(config.clone(), false).unwrap();
    assert_eq!(shown(), ["vm1"]);
    config.fdb[0].port = "vm2".into();
    agent.apply(config.clone(), false).unwrap();
    assert_eq!(shown(), ["vm2"]);
    config.fdb.clear();
    agent.apply(config, false).unwrap();
    assert!(shown().is_empty());
}

/// A pcap file of `count` broadcast frames with distinct sources.
fn recording(path: &Path, count: u8) {
    let mut bytes = Vec::new();
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1];
    header.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    for n in 0..count {
        let mut frame = vec![0xff; 6];
        frame.extend([0x52, 0x54, 0, 0, 1, n, 0x88, 0xb5]);
        frame.resize(60, n);
        [1, u32::from(n), 60, 60].iter().for_each(|word: &u32| bytes.extend(word.to_le_bytes()));
        bytes.extend(frame);
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn frames_pass_from_port_to_port_and_the_books_balance() {
    let bench = Bench::new();
    let input = PathBuf::from(bench.path("in.pcap"));
    recording(&input, 100);
    let mut source = Port::named("source");
    source.uplink = Some(Uplink::Pcap);
    source.replay = Some(input.display().to_string());
    source.rate = Some(0);
    let mut sink = Port::named("sink");
    sink.uplink = Some(Uplink::Pcap);
    sink.capture = Some(bench.path("out.pcapng"));
    let mut apart = sink.clone();
    apart.name = "apart".into();
    apart.capture = Some(bench.path("apart.pcapng"));
    apart.vlan = Vlan::Access(Vid::new(2).unwrap());

    // The source comes last, so that everybody is there when it begins.
    let agent = start(bench.config(&[sink.clone(), apart.clone(), bench.vm("vm1")]));
    agent.apply(bench.config(&[sink.clone(), apart, bench.vm("vm1"), source.clone()]), false).unwrap();
    let port = |name: &str| agent.stats().ports.into_iter().find(|port| port.name == name).unwrap().counters;
    eventually("delivered", || port("sink").tx_frames == 100);
    assert_eq!(port("source").rx_frames, 100);
    assert_eq!(port("apart").tx_frames, 0, "another VLAN");
    assert_eq!(port("vm1").tx_drops.get("not_ready"), Some(&100), "nobody is there");
    eventually("the copies are counted", || agent.stats().totals.replicated == 100);
    let totals = agent.stats().totals;
    assert_eq!(totals.in_flight(), 0, "{totals:?}");
    assert_eq!(totals.drops.values().sum::<u64>(), totals.dropped);

    let learned = agent.fdb(&FdbFilter { port: Some("source".into()), ..FdbFilter::default() });
    assert_eq!((learned.total, learned.entries.len()), (100, 100));
    assert_eq!(agent.port("source").unwrap().fdb_learned, 100);
    let first = agent.fdb(&FdbFilter { limit: Some(1), ..FdbFilter::default() });
    assert_eq!((first.total, first.entries.len()), (100, 1));
    assert_eq!(first.entries[0].mac.to_string(), "52:54:00:00:01:00");
    let one = FdbFilter { mac: Some(first.entries[0].mac), ..FdbFilter::default() };
    assert_eq!(agent.fdb_forget(&one), 1);
    assert_eq!(agent.fdb(&FdbFilter::default()).total, 99);

    // Ports go; what they counted stays in the sums, what was learned on them does not.
    agent.apply(bench.config(&[sink]), false).unwrap();
    let after = agent.stats().totals;
    assert_eq!((after.received, after.in_flight()), (100, 0), "{after:?}");
    assert_eq!(agent.fdb(&FdbFilter::default()).total, 0);
    agent.apply(bench.config(&[]), false).unwrap();
    let written = fs::metadata(bench.path("out.pcapng")).unwrap().len();
    assert!(written > 100 * 60, "{written} bytes: the file is complete when its port is gone");
}

#[test]
fn what_the_host_does_not_have_is_refused() {
    let bench = Bench::new();
    let mut config = bench.config(&[]);
    config.daemon.workers = vec![1023];
    let error = Agent::start(config, AgentOptions::default()).unwrap_err();
    assert!(matches!(&error, ApplyError::Refused(_)) && error.to_string().contains("1023"), "{error}");
}

#[test]
fn the_log_filter_is_handed_on() {
    let bench = Bench::new();
    let (tell, told) = std::sync::mpsc::channel();
    let set_log = move |filter: &str| match filter {
        "debug" => Err("not today".to_owned()),
        filter => tell.send(filter.to_owned()).map_err(|e| e.to_string()),
    };
    let options = AgentOptions { set_log: Some(Box::new(set_log)), ..AgentOptions::default() };
    let agent = Agent::start(bench.config(&[]), options).unwrap();
    let with = |log: &str| {
        let mut config = bench.config(&[bench.vm("vm1")]);
        config.daemon.log = log.into();
        config
    };
    let (key, problem) = failed(agent.apply(with("debug"), false));
    assert_eq!((key.as_str(), problem.as_str()), ("daemon.log", "not today"));
    assert!(agent.ports().is_empty());
    agent.apply(with("warn"), false).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["warn"]);
}

#[test]
fn a_thousand_ports_come_and_go() {
    let bench = Bench::new();
    let ports: Vec<_> = (0..1000).map(|n| bench.vm(&format!("vm{n}"))).collect();
    let agent = start(bench.config(&ports));
    assert_eq!(agent.health().ports, 1000);
    assert!(bench.connect("vm999").is_ok());
    agent.apply(bench.config(&ports[..1]), false).unwrap();
    let left = fs::read_dir(bench.dir.path()).unwrap().map(|e| e.unwrap().path());
    assert_eq!(
        left.filter(|path| path.extension().is_some_and(|e| e == "sock")).count(),
        1,
        "their sockets went"
    );
}
