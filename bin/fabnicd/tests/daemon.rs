//! The daemon as a process: what it says, what it leaves behind, what it takes up again.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fabnic_testkit::driver::{NetDriver, NetLayout};
use fabnic_testkit::front_end::FrontEnd;
use fabnic_testkit::guest::{Session, Wishes};
use fabnic_testkit::memory::{Backing, GuestMemory};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a configuration in it.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new(config: &str) -> Host {
        let host = Host { dir: tempfile::tempdir().unwrap() };
        host.configure(config);
        host
    }

    /// `DIR` in the text becomes this host's directory.
    fn configure(&self, config: &str) {
        let head = format!("[daemon]\napi = \"{}\"\n", self.path("run/api.sock").display());
        let config = format!("{head}{config}").replace("DIR", &self.dir.path().display().to_string());
        fs::write(self.path("fabnic.toml"), config).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fabnicd"));
        command.arg("--config").arg(self.path("fabnic.toml")).args(arguments).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env_remove("STATE_DIRECTORY").env_remove("NOTIFY_SOCKET");
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(&self, arguments: &[&str]) -> Daemon<'_> {
        self.spawn(self.command(arguments))
    }

    fn spawn(&self, mut command: Command) -> Daemon<'_> {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        let daemon = Daemon { host: self, child };
        // A socket that a killed daemon left is there, but nobody answers.
        eventually("the API answers", || UnixStream::connect(self.path("run/api.sock")).is_ok());
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }
}

struct Daemon<'a> {
    host: &'a Host,
    child: Child,
}

impl Daemon<'_> {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends SIGTERM and waits; gives the exit code.
    fn end(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code()
    }

    fn kill(mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }

    /// One request, in plain HTTP, so that nothing here depends on what is tested.
    fn ask(&self, request: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let bytes = self.ask_bytes(&format!(
            "{request} HTTP/1.1\r\nHost: fabnic\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn ask_bytes(&self, request: &str) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.host.path("run/api.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    fn port_names(&self) -> Vec<String> {
        let (status, ports) = self.ask("GET /v1/ports", None);
        assert_eq!(status, 200);
        ports.as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap().to_owned()).collect()
    }

    fn add_port(&self, name: &str) -> (u16, Value) {
        let socket = self.host.path(&format!("run/{name}.sock"));
        let port = json!({ "name": name, "nic": "virtio-net", "vhost_user": { "socket": socket } });
        self.ask("POST /v1/ports", Some(&port))
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // Gone already when the test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.host.log());
        }
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const VM1: &str = r#"
[[port]]
name = "vm1"
nic = "virtio-net"
vhost_user = { socket = "DIR/run/vm1.sock" }
"#;

#[test]
fn check_says_what_is_wrong_and_where() {
    let host = Host::new(VM1);
    let output = host.output(&["--check"]);
    assert!(output.status.success());
    let said = text(&output.stdout);
    assert!(said.ends_with("fabnic.toml: correct, 1 port, 0 static FDB entries, 1 worker\n"), "{said}");
    assert!(!host.path("run").exists(), "checking touches nothing");

    host.configure("workers = [1023]\n[[port]]\nname = \"vm1\"\nnik = \"virtio-net\"\n");
    let output = host.output(&["--check"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("line 6") && said.contains("did you mean `nic`"), "{said}");

    host.configure("workers = [1023]\n");
    let said = text(&host.output(&["--check"]).stderr);
    assert!(said.contains("daemon.workers[0]: CPU 1023 cannot be used here, expected one of 0"), "{said}");

    fs::remove_file(host.path("fabnic.toml")).unwrap();
    let said = text(&host.output(&["--check"]).stderr);
    assert!(said.starts_with("fabnicd: cannot read") && said.contains("No such file"), "{said}");
}

#[test]
fn starts_serves_and_leaves_nothing() {
    let host = Host::new(VM1);
    let daemon = host.start(&[]);
    assert_eq!(daemon.port_names(), ["vm1"]);
    assert_eq!(daemon.ask("GET /v1/health", None).1["healthy"], true);
    assert_eq!(daemon.add_port("vm2").0, 201);
    assert!(UnixStream::connect(host.path("run/vm2.sock")).is_ok());
    assert_eq!(daemon.end(), Some(0));
    let left = fs::read_dir(host.path("run")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    // Where rings stood is kept for the next daemon.
    let left: Vec<_> = left.filter(|name| !name.ends_with(".rings")).collect();
    assert_eq!(left, ["api.sock.lock"]);
    let log = host.log();
    for said in
        ["ready: 1 ports", "landlock", "capabilities are dropped", "seccomp", "SIGTERM", "fabnicd ended"]
    {
        assert!(log.contains(said), "`{said}` is missing in\n{log}");
    }
}

#[test]
fn a_second_daemon_is_refused() {
    let host = Host::new(VM1);
    let first = host.start(&[]);
    let second = host.output(&[]);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(said.contains(&format!("fabnicd with process ID {} serves", first.child.id())), "{said}");

    // Another API socket, but a port's socket that the first one listens on.
    let config = fs::read_to_string(host.path("fabnic.toml")).unwrap();
    fs::write(host.path("fabnic.toml"), config.replace("api.sock", "other.sock")).unwrap();
    let third = host.output(&[]);
    assert_eq!(third.status.code(), Some(1));
    let said = text(&third.stderr);
    assert!(said.contains("port[vm1].vhost_user.socket") && said.contains("vm1.sock"), "{said}");
    assert_eq!(first.port_names(), ["vm1"], "the first one is not disturbed");
    assert!(UnixStream::connect(host.path("run/vm1.sock")).is_ok());
}

#[test]
fn what_was_accepted_survives_kill_9() {
    let host = Host::new(VM1);
    let state = host.path("state.toml");
    let arguments = ["--state", state.to_str().unwrap()];
    let daemon = host.start(&arguments);
    assert_eq!(daemon.add_port("vm2").0, 201);
    daemon.kill();
    for socket in ["api.sock", "vm1.sock", "vm2.sock"] {
        assert!(host.path("run").join(socket).exists(), "{socket} was left behind");
    }

    let daemon = host.start(&arguments);
    assert_eq!(daemon.port_names(), ["vm1", "vm2"]);
    for socket in ["vm1.sock", "vm2.sock"] {
        assert!(UnixStream::connect(host.path("run").join(socket)).is_ok(), "{socket} is served again");
    }
    assert_eq!(daemon.end(), Some(0));

    // Whoever edits the configuration file has the last word.
    host.configure("[[port]]\nname = \"lo\"\nuplink = \"loopback\"\n");
    let daemon = host.start(&arguments);
    assert_eq!(daemon.port_names(), ["lo"]);
    assert!(host.log().contains("the configuration file was changed since the state was saved"));
    assert!(host.path("state.toml.old").exists());
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn without_a_state_changes_end_with_the_daemon() {
    let host = Host::new(VM1);
    let daemon = host.start(&[]);
    assert_eq!(daemon.add_port("vm2").0, 201);
    daemon.kill();
    let daemon = host.start(&[]);
    assert_eq!(daemon.port_names(), ["vm1"]);
    assert!(host.log().contains("changes at run time end with the daemon"));
}

#[test]
fn hang_up_reads_the_configuration_again() {
    let host = Host::new(VM1);
    let daemon = host.start(&[]);
    assert_eq!(daemon.add_port("vm2").0, 201);
    host.configure(&format!("{VM1}[[port]]\nname = \"lo\"\nuplink = \"loopback\"\n"));
    daemon.signal(Signal::HUP);
    eventually("the file is in force", || daemon.port_names() == ["vm1", "lo"]);

    host.configure("nonsense = 1\n");
    daemon.signal(Signal::HUP);
    eventually("the fault is said", || host.log().contains("SIGHUP: nothing has changed"));
    assert!(host.log().contains("nonsense"));
    assert_eq!(daemon.port_names(), ["vm1", "lo"]);
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn tells_the_service_manager() {
    let host = Host::new(VM1);
    let manager = UnixDatagram::bind(host.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 4096];
        let n = manager.recv(&mut bytes).unwrap();
        text(&bytes[..n])
    };
    let hear_of = |what: &str| {
        let mut heard = hear();
        while !heard.contains(what) {
            heard = hear();
        }
        heard
    };
    let mut command = host.command(&[]);
    command.env("NOTIFY_SOCKET", host.path("notify")).env("WATCHDOG_USEC", "100000");
    let daemon = host.spawn(command);
    let ready = hear();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=1 ports"), "{ready}");
    hear_of("WATCHDOG=1");
    daemon.signal(Signal::HUP);
    let reloading = hear_of("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    hear_of("READY=1");
    daemon.signal(Signal::INT);
    hear_of("STOPPING=1");
}

#[test]
fn the_sandbox_is_in_force_unless_left_out() {
    let host = Host::new(VM1);
    let status = |daemon: &Daemon<'_>| {
        // Every thread, the workers too.
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap()).collect::<Vec<_>>()
    };
    let daemon = host.start(&[]);
    eventually("the sandbox is complete", || host.log().contains("ready: "));
    let threads = status(&daemon);
    assert!(threads.len() >= 3, "main, vhost-user and a worker");
    for thread in &threads {
        for line in
            ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
        {
            assert!(thread.contains(line), "`{line}` is missing in\n{thread}");
        }
    }
    // A directory that the configuration does not speak of is out of reach, and the answer says so.
    let apart = tempfile::tempdir().unwrap();
    let socket = apart.path().join("vm9.sock");
    let port = json!({ "name": "vm9", "nic": "virtio-net", "vhost_user": { "socket": socket } });
    if host.log().contains("(landlock), in force") {
        let (code, answer) = daemon.ask("POST /v1/ports", Some(&port));
        assert_eq!(code, 409, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("ermission denied"), "{answer}");
    }
    assert_eq!(daemon.end(), Some(0));

    let daemon = host.start(&["--allow-dir", apart.path().to_str().unwrap()]);
    assert_eq!(daemon.ask("POST /v1/ports", Some(&port)).0, 201);
    assert_eq!(daemon.end(), Some(0));

    let daemon = host.start(&["--without", "syscalls,capabilities"]);
    eventually("ready", || host.log().matches("ready: ").count() == 3);
    assert!(status(&daemon).iter().all(|thread| thread.contains("Seccomp:\t0")));
    assert!(host.log().contains("capabilities are kept, as asked for"));
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn runs_without_root() {
    if !rustix::process::geteuid().is_root() {
        // Then all the other tests here say it.
        return;
    }
    let host = Host::new(VM1);
    std::os::unix::fs::chown(host.dir.path(), Some(65534), Some(65534)).unwrap();
    let program = host.path("fabnicd");
    fs::copy(env!("CARGO_BIN_EXE_fabnicd"), &program).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(host.path("fabnic.toml")).uid(65534).gid(65534).current_dir("/");
    let daemon = host.spawn(command);
    assert_eq!(daemon.port_names(), ["vm1"]);
    assert_eq!(daemon.add_port("vm2").0, 201);
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn captures_over_the_api_what_passes() {
    let host = Host::new("");
    // One broadcast frame a millisecond, for ever.
    let mut recording = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1, 1, 0, 60, 60] {
        recording.extend(word.to_le_bytes());
    }
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0, 1, 1, 0x88, 0xb5]);
    frame.resize(60, 0xaa);
    recording.extend(&frame);
    fs::write(host.path("in.pcap"), recording).unwrap();
    host.configure(&format!(
        "{VM1}[[port]]\nname = \"source\"\nuplink = \"pcap\"\nreplay = \"DIR/in.pcap\"\nrate = 1000\nloop = true\n\
         [[port]]\nname = \"lo\"\nuplink = \"loopback\"\nvlan = {{ access = 2 }}\n"
    ));
    let daemon = host.start(&[]);
    let request = |port: &str, count: u32| {
        format!(
            "GET /v1/capture?port={port}&count={count} HTTP/1.1\r\nHost: fabnic\r\nConnection: close\r\n\r\n"
        )
    };
    let answer = daemon.ask_bytes(&request("source", 3));
    let contains = |bytes: &[u8]| answer.windows(bytes.len()).filter(|window| *window == bytes).count();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", text(&answer[..60]));
    assert_eq!(contains(&frame), 3);
    assert_eq!(contains(&[0x0a, 0x0d, 0x0d, 0x0a]), 1, "the section header of a pcapng file");
    assert!(contains(b"flooded") + contains(b"forwarded") == 3, "each with its verdict");

    let dropped = daemon.ask_bytes(&request("vm1", 1));
    assert!(text(&dropped).contains("dropped: not_ready"), "{}", text(&dropped));

    assert!(daemon.ask_bytes(&request("vm7", 1)).starts_with(b"HTTP/1.1 404"));
    // A capture of nothing ends with its client, and does not keep the daemon from ending.
    let mut idle = UnixStream::connect(host.path("run/api.sock")).unwrap();
    idle.write_all(request("lo", 1).as_bytes()).unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn memory_that_vanishes_costs_its_own_port() {
    let host = Host::new(VM1);
    let daemon = host.start(&[]);
    let front_end = FrontEnd::connect(&host.path("run/vm1.sock"), PATIENCE).unwrap();
    let mut session = Session::open(front_end, Wishes::default()).unwrap();
    let layout = NetLayout::default();
    let mut memory = GuestMemory::new(layout.bytes(), Backing::Ordinary).unwrap();
    let driver = NetDriver::new(&mut memory, layout).unwrap();
    session.start(&memory, &driver.ring_starts()).unwrap();
    let port = || daemon.ask("GET /v1/ports/vm1", None).1;
    eventually("up", || port()["link"] == "up");
    // The driver is not used any more: its own view of the memory is gone as well.
    rustix::fs::ftruncate(memory.file(0).unwrap(), 0).unwrap();
    session.kick(1);
    eventually("stopped", || port()["reason"].is_string());
    assert_eq!(port()["link"], "down");
    assert_eq!(daemon.ask("GET /v1/health", None).1["healthy"], true);
    drop(session);

    let front_end = FrontEnd::connect(&host.path("run/vm1.sock"), PATIENCE).unwrap();
    let mut session = Session::open(front_end, Wishes::default()).unwrap();
    let mut memory = GuestMemory::new(layout.bytes(), Backing::Ordinary).unwrap();
    let driver = NetDriver::new(&mut memory, layout).unwrap();
    session.start(&memory, &driver.ring_starts()).unwrap();
    eventually("up again", || port()["link"] == "up");
    assert_eq!(daemon.end(), Some(0));
}

/// A namespace of the network for the daemon alone, which ends with it.
#[test]
fn tap_devices_come_and_go_in_the_sandbox() {
    if !rustix::process::geteuid().is_root() {
        // Making devices is root's, or needs a device made beforehand.
        return;
    }
    let host = Host::new("[[port]]\nname = \"up0\"\nuplink = \"tap\"\ndevice = \"fabt0\"\n");
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_fabnicd"), "--config"]).arg(host.path("fabnic.toml"));
    let daemon = host.spawn(command);
    let devices = || {
        let table = fs::read_to_string(format!("/proc/{}/net/dev", daemon.child.id())).unwrap();
        let names =
            table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
        names.filter(|name| name.starts_with("fabt")).collect::<Vec<_>>()
    };
    eventually("ready", || host.log().contains("ready: "));
    assert_eq!(devices(), ["fabt0"]);
    let up1 = json!({ "name": "up1", "uplink": "tap", "device": "fabt1", "queues": 2 });
    assert_eq!(daemon.ask("POST /v1/ports", Some(&up1)).0, 201, "CAP_NET_ADMIN was kept");
    // On the same device, so that the old port must let go of it first.
    let (code, answer) = daemon.ask("PATCH /v1/ports/up1", Some(&json!({ "queues": 1 })));
    assert_eq!(code, 200, "{answer}");
    assert_eq!(devices(), ["fabt0", "fabt1"]);
    // The device's own MTU follows.
    assert_eq!(daemon.ask("PATCH /v1/ports/up1", Some(&json!({ "mtu": 9000 }))).0, 200);
    assert!(!host.log().contains("keeps its MTU"));
    let (code, answer) = daemon.ask("PATCH /v1/ports/up1", Some(&json!({ "device": "lo" })));
    assert_eq!(code, 409, "{answer}");
    assert_eq!(answer["where"], "port[up1].device");
    assert_eq!(devices(), ["fabt0", "fabt1"], "what was there is there");
    assert_eq!(daemon.ask("DELETE /v1/ports/up1", None).0, 200);
    eventually("gone", || devices() == ["fabt0"]);
    assert_eq!(daemon.end(), Some(0));
}

/// A recording of these frames, a millisecond apart.
fn recording(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut recording = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        recording.extend(word.to_le_bytes());
    }
    for (frame, at) in frames.iter().zip(1_u32..) {
        let len = u32::try_from(frame.len()).unwrap();
        for word in [1, at * 1000, len, len] {
            recording.extend(word.to_le_bytes());
        }
        recording.extend(frame);
    }
    recording
}

/// UDP from 10.0.0.n to 10.0.0.200, from a station of the same number to one that nobody knows.
fn datagram(n: u8) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 9, 9, 0x52, 0x54, 0, 0, 1, n, 8, 0];
    let mut ip = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, n, 10, 0, 0, 200];
    let sum: u32 = ip.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend([0x13, 0x88, 0, 53, 0, 16, 0, 0]);
    frame.extend([7; 8]);
    frame.resize(60, 0);
    frame
}

/// A port that sends what was recorded, tracked, and one that takes it.
const RECORDED: &str = "saved_state_interval = INTERVAL\n\
    [[port]]\nname = \"source\"\nuplink = \"pcap\"\nreplay = \"DIR/in.pcap\"\nrate = 1000\nconntrack = { zone = 7 }\n\
    [[port]]\nname = \"sink\"\nuplink = \"pcap\"\ncapture = \"DIR/out.pcapng\"\n";

impl Daemon<'_> {
    fn addresses(&self) -> Vec<String> {
        let entries = self.ask("GET /v1/fdb", None).1["entries"].as_array().unwrap().clone();
        entries.iter().map(|entry| entry["mac"].as_str().unwrap().to_owned()).collect()
    }

    fn connections(&self) -> Vec<(String, String)> {
        let entries = self.ask("GET /v1/connections", None).1["entries"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        entries.iter().map(|entry| (text(&entry["port"]), text(&entry["original"]["src_ip"]))).collect()
    }

    fn received(&self, port: &str) -> u64 {
        self.ask(&format!("GET /v1/stats?port={port}"), None).1["ports"][0]["rx_frames"].as_u64().unwrap()
    }

    fn totals_balance(&self) -> bool {
        let totals = self.ask("GET /v1/stats", None).1["totals"].clone();
        let of = |key: &str| totals[key].as_u64().unwrap();
        of("received") + of("replicated") == of("delivered") + of("dropped")
    }
}

#[test]
fn what_was_learned_survives_the_end_and_moves_to_another_host() {
    let host = Host::new("");
    fs::write(host.path("in.pcap"), recording(&[datagram(1), datagram(2)])).unwrap();
    host.configure(&RECORDED.replace("INTERVAL", "0"));
    let arguments = ["--state", &host.path("state.toml").display().to_string()];
    let daemon = host.start(&arguments);
    eventually("it learns", || daemon.connections().len() == 2 && daemon.addresses().len() == 2);
    let exported = {
        let answer =
            daemon.ask_bytes("GET /v1/ports/source/state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        answer[end + 4..].to_vec()
    };
    let frames = daemon.received("source");
    assert_eq!(daemon.end(), Some(0));
    let file = host.path("switch.state");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);

    // What is replayed now teaches nothing of that, and the sink is gone.
    fs::write(host.path("in.pcap"), recording(&[datagram(3)])).unwrap();
    let config = RECORDED.replace("INTERVAL", "0").replace("\"sink\"", "\"other\"");
    host.configure(&config);
    let daemon = host.start(&arguments);
    eventually("the third came", || daemon.connections().len() == 3);
    let mut known = daemon.addresses();
    known.sort();
    assert_eq!(known, ["52:54:00:00:01:01", "52:54:00:00:01:02", "52:54:00:00:01:03"]);
    assert!(daemon.connections().iter().all(|(port, _)| port == "source"));
    assert_eq!(daemon.received("source"), frames + 1, "counters go on");
    assert!(daemon.totals_balance(), "with those of the port that is gone");
    let state = daemon.ask("GET /v1/state", None).1;
    assert_eq!(state["restored"]["restored"]["connections"], 2, "{state}");
    assert_eq!(state["restored"]["lost"]["port_counters"]["unconfigured"], 1, "{state}");
    assert!(host.log().contains("saved state is restored"));
    assert!(host.log().contains("not all of the saved state fits what is configured"));

    // Another daemon has a port for it.
    let there = Host::new("[[port]]\nname = \"vm7\"\nuplink = \"loopback\"\nconntrack = { zone = 7 }\n");
    let elsewhere = there.start(&[]);
    let put = |body: &[u8]| {
        let mut stream = UnixStream::connect(there.path("run/api.sock")).unwrap();
        let head = format!(
            "PUT /v1/ports/vm7/state HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        text(&answer)
    };
    let refused = put(&fs::read(&file).unwrap());
    assert!(
        refused.starts_with("HTTP/1.1 422") && refused.contains("the state of a whole switch"),
        "{refused}"
    );
    assert!(put(b"FABSAVED").contains("ends in the middle"));
    let taken = put(&exported);
    assert!(taken.starts_with("HTTP/1.1 200") && taken.contains("\"connections\":2"), "{taken}");
    let mut moved = elsewhere.connections();
    moved.sort();
    assert_eq!(moved, [("vm7".into(), "10.0.0.1".into()), ("vm7".into(), "10.0.0.2".into())]);
    assert_eq!(elsewhere.addresses().len(), 2);
    assert_eq!(elsewhere.received("vm7"), 0, "what it moved elsewhere was not moved here");
    assert_eq!(elsewhere.end(), Some(0));

    // A file that cannot be read is put aside, and the daemon starts without.
    assert_eq!(daemon.end(), Some(0));
    let mut broken = fs::read(&file).unwrap();
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    fs::write(&file, &broken).unwrap();
    let daemon = host.start(&arguments);
    eventually("it is said", || host.log().contains("saved state cannot be restored: starting without"));
    assert_eq!(fs::read(host.path("switch.state.bad")).unwrap(), broken);
    eventually("it learns again", || daemon.addresses() == ["52:54:00:00:01:03"]);
    assert!(daemon.ask("GET /v1/state", None).1["restored"]["problem"].is_string());
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn a_killed_daemon_comes_back_with_what_was_saved_last() {
    let host = Host::new("");
    fs::write(host.path("in.pcap"), recording(&[datagram(1), datagram(2)])).unwrap();
    host.configure(&format!("saved_state = \"DIR/kept/it\"\n{}", RECORDED.replace("INTERVAL", "1")));
    fs::create_dir(host.path("kept")).unwrap();
    let daemon = host.start(&[]);
    eventually("all of it is saved", || {
        let saved = daemon.ask("GET /v1/state", None).1["saved"]["records"].clone();
        saved["connections"] == 2 && saved["fdb"] == 2
    });
    daemon.kill();
    fs::write(host.path("in.pcap"), recording(&[datagram(3)])).unwrap();
    // Of a daemon that was killed while it wrote.
    fs::write(host.path("kept/it.new"), "half").unwrap();
    let daemon = host.start(&[]);
    eventually("the third came", || daemon.connections().len() == 3 && daemon.addresses().len() == 3);
    let (code, saved) = daemon.ask("POST /v1/state/save", None);
    assert_eq!((code, &saved["records"]["connections"]), (200, &json!(3)), "{saved}");
    assert!(!host.path("kept/it.new").exists());
    // It cannot be written: said, and the old one is there.
    let before = fs::read(host.path("kept/it")).unwrap();
    fs::create_dir(host.path("kept/it.new")).unwrap();
    let (code, refused) = daemon.ask("POST /v1/state/save", None);
    assert_eq!((code, &refused["where"]), (409, &json!("daemon.saved_state")), "{refused}");
    assert_eq!(fs::read(host.path("kept/it")).unwrap(), before);
    eventually("it is known", || daemon.ask("GET /v1/state", None).1["failures"].as_u64() > Some(0));
    fs::remove_dir(host.path("kept/it.new")).unwrap();
    assert_eq!(daemon.end(), Some(0));
}
