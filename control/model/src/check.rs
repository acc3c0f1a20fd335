//! The rules that types cannot say.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    Config, MAX_AVF_GENERATION, MAX_AVF_QUEUES, MAX_QUEUES, Nic, Port, Refusal, Refused, Uplink,
    parse::shortened,
    refusal::{Path, Step},
};

/// Longest path of a Unix socket: `sun_path` has 108 bytes and ends with a zero (unix(7)).
const MAX_SOCKET: usize = 107;
/// Longest name of a network device: `IFNAMSIZ` is 16 with its zero (netdevice(7)).
const MAX_DEVICE: usize = 15;
/// CPUs that an affinity mask can name (`CPU_SETSIZE`, sched_setaffinity(2)).
const CPUS: u32 = 1024;
/// More workers than this are taken for a slip.
const MAX_WORKERS: usize = 128;

/// Most reasons that get a hint which is searched for among ports.
const HINTS: usize = 10;

/// Where the reader stands, and what was found.
struct Check {
    found: Vec<Refusal>,
}

impl Check {
    fn refuse(&mut self, path: Path, problem: impl Into<String>, expected: impl Into<String>) {
        self.found.push(Refusal::at(path, problem, expected));
    }

    fn range(&mut self, path: Path, value: u64, low: u64, high: u64) {
        if !(low..=high).contains(&value) {
            self.refuse(path, format!("{value} is out of range"), format!("{low} to {high}"));
        }
    }

    fn socket(&mut self, path: Path, socket: &str) {
        if socket.is_empty() || socket.len() > MAX_SOCKET || socket.contains('\0') {
            let problem = format!("`{}` is no path for a Unix socket", shortened(socket));
            self.refuse(path, problem, format!("1 to {MAX_SOCKET} bytes without a zero"));
        }
    }

    fn file(&mut self, path: Path, file: &str) {
        if file.is_empty() || file.len() > 4095 || file.contains('\0') {
            self.refuse(
                path,
                format!("`{}` is no path of a file", shortened(file)),
                "1 to 4095 bytes without a zero",
            );
        }
    }
}

/// Whether `name` can be a port's: 1 to 63 of `a-z A-Z 0-9 _ . -`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl Config {
    /// Checks all rules that go across keys.
    ///
    /// # Errors
    /// Every rule that is broken, without line numbers: [`crate::parse()`] adds them.
    pub fn check(&self) -> Result<(), Refused> {
        let mut check = Check { found: Vec::new() };
        self.check_daemon(&mut check);
        self.check_ports(&mut check);
        self.check_fdb(&mut check);
        if check.found.is_empty() { Ok(()) } else { Err(Refused(check.found)) }
    }

    /// Checks that the workers' CPUs are among those that this host lets the daemon use.
    ///
    /// # Errors
    /// One reason for each CPU that is not.
    pub fn check_cpus(&self, usable: &[u32]) -> Result<(), Refused> {
        let found: Vec<_> = self
            .daemon
            .workers
            .iter()
            .enumerate()
            .filter(|(_, cpu)| !usable.contains(cpu))
            .map(|(i, cpu)| {
                let usable: Vec<_> = usable.iter().map(u32::to_string).collect();
                Refusal::at(
                    daemon_key("workers", Some(i)),
                    format!("CPU {cpu} cannot be used here"),
                    format!("one of {}", usable.join(", ")),
                )
            })
            .collect();
        if found.is_empty() { Ok(()) } else { Err(Refused(found)) }
    }

    fn check_daemon(&self, check: &mut Check) {
        let daemon = &self.daemon;
        check.socket(daemon_key("api", None), &daemon.api);
        check.range(daemon_key("fdb_entries", None), daemon.fdb_entries.into(), 1, 1 << 24);
        check.range(daemon_key("fdb_ageing", None), daemon.fdb_ageing.into(), 0, 1_000_000);
        check.range(daemon_key("flow_entries", None), daemon.flow_entries.into(), 64, 1 << 24);
        if !is_log_filter(&daemon.log) {
            let problem = format!("`{}` says nothing about logging", shortened(&daemon.log));
            let expected =
                "error, warn, info, debug, trace or off, or a list such as info,fabnic_switch=debug";
            check.refuse(daemon_key("log", None), problem, expected);
        }
        if daemon.workers.len() > MAX_WORKERS {
            let problem = format!("{} workers are given", daemon.workers.len());
            check.refuse(daemon_key("workers", None), problem, format!("at most {MAX_WORKERS}"));
            return;
        }
        for (i, &cpu) in daemon.workers.iter().enumerate() {
            if cpu >= CPUS {
                check.range(daemon_key("workers", Some(i)), cpu.into(), 0, u64::from(CPUS) - 1);
            } else if daemon.workers.iter().take(i).any(|&c| c == cpu) {
                check.refuse(
                    daemon_key("workers", Some(i)),
                    format!("CPU {cpu} has a worker already"),
                    "each CPU once",
                );
            }
        }
    }

    fn check_ports(&self, check: &mut Check) {
        let mut names: HashMap<&str, usize> = HashMap::new();
        let mut sockets: HashMap<&str, &str> = HashMap::new();
        let mut devices: HashMap<&str, &str> = HashMap::new();
        let mut captures: HashMap<&str, &str> = HashMap::new();
        sockets.insert(&self.daemon.api, "the daemon's API");
        for (index, port) in self.port.iter().enumerate() {
            let at = [Step::Key("port".into()), Step::Element(index, Some(shortened(&port.name)))];
            let key = |name: &str| -> Path { at.iter().cloned().chain([Step::Key(name.into())]).collect() };
            let within = |table: &str, name: &str| -> Path {
                at.iter().cloned().chain([Step::Key(table.into()), Step::Key(name.into())]).collect()
            };

            if !is_name(&port.name) {
                let problem = format!("`{}` is no name for a port", shortened(&port.name));
                check.refuse(key("name"), problem, "1 to 63 of a-z A-Z 0-9 _ . -");
            }
            match names.entry(&port.name) {
                Entry::Occupied(first) => check.refuse(
                    key("name"),
                    format!(
                        "`{}` is the name of port {} of the file already",
                        shortened(&port.name),
                        first.get() + 1
                    ),
                    "each name once",
                ),
                Entry::Vacant(free) => {
                    free.insert(index);
                }
            }
            check_keys_of_kind(check, port, &key);
            if let Err(Refused(refusals)) = port.kind_at(&at) {
                check.found.extend(refusals);
            }

            let taken = |check: &mut Check, path: Path, value: &'_ str, what: &str, by: Option<&str>| {
                if let Some(by) = by {
                    let problem = format!("{what} `{}` belongs to {by} already", shortened(value));
                    check.refuse(path, problem, format!("another {what}"));
                }
            };
            let own = port.name.as_str();
            for (table, socket) in [
                ("vhost_user", port.vhost_user.as_ref().map(|v| v.socket.as_str())),
                ("vfio_user", port.vfio_user.as_ref().map(|v| v.socket.as_str())),
            ] {
                let Some(socket) = socket else { continue };
                check.socket(within(table, "socket"), socket);
                let by = sockets.insert(socket, own);
                taken(check, within(table, "socket"), socket, "socket", by);
            }
            if let Some(device) = port.device.as_deref() {
                let fits = (1..=MAX_DEVICE).contains(&device.len())
                    && device.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
                    && device != "."
                    && device != "..";
                if !fits {
                    let problem = format!("`{}` is no name for a network device", shortened(device));
                    check.refuse(
                        key("device"),
                        problem,
                        format!("1 to {MAX_DEVICE} printable bytes without / : %"),
                    );
                }
                let by = devices.insert(device, own);
                taken(check, key("device"), device, "device", by);
            }
            if let Some(file) = port.capture.as_deref() {
                check.file(key("capture"), file);
                if port.replay.as_deref() == Some(file) {
                    check.refuse(key("capture"), "the file is the one that is replayed", "another file");
                }
                let by = captures.insert(file, own);
                taken(check, key("capture"), file, "file", by);
            }
            if let Some(file) = port.replay.as_deref() {
                check.file(key("replay"), file);
            } else if port.uplink == Some(Uplink::Pcap) {
                for (name, given) in [("rate", port.rate.is_some()), ("loop", port.repeat.is_some())] {
                    if given {
                        check.refuse(
                            key(name),
                            format!("`{name}` is about `replay`, which is not given"),
                            "replay = \"FILE\"",
                        );
                    }
                }
            }
            if let Some(mac) = port.mac.filter(|mac| !mac.is_station()) {
                check.refuse(
                    key("mac"),
                    format!("{mac} cannot be a card's address"),
                    "a unicast address that is not all zero",
                );
            }
            if let Some(queues) = port.queues {
                let most = if port.nic == Some(Nic::Avf) { MAX_AVF_QUEUES } else { MAX_QUEUES };
                check.range(key("queues"), queues.into(), 1, most.into());
            }
            if let Some(generation) = port.generation {
                check.range(key("generation"), generation.into(), 1, MAX_AVF_GENERATION.into());
            }
            if let Some(size) = port.queue_size.filter(|s| !s.is_power_of_two() || !(64..=32768).contains(s))
            {
                check.refuse(
                    key("queue_size"),
                    format!("{size} is no ring size"),
                    "a power of two from 64 to 32768",
                );
            }
            check.range(key("mtu"), port.mtu.into(), 68, 65535);
        }
    }

    fn check_fdb(&self, check: &mut Check) {
        let ports: HashMap<&str, &Port> = self.port.iter().map(|p| (p.name.as_str(), p)).collect();
        let mut seen: HashMap<_, usize> = HashMap::new();
        for (index, entry) in self.fdb.iter().enumerate() {
            let key = |name: &str| -> Path {
                vec![Step::Key("fdb".into()), Step::Element(index, None), Step::Key(name.into())]
            };
            if !entry.mac.is_station() {
                check.refuse(
                    key("mac"),
                    format!("{} cannot be a station's address", entry.mac),
                    "a unicast address that is not all zero",
                );
            }
            match ports.get(entry.port.as_str()) {
                None => {
                    let mut refusal = Refusal::at(
                        key("port"),
                        format!("there is no port `{}`", shortened(&entry.port)),
                        "the name of a [[port]]",
                    );
                    // Looking through all names takes time, and nobody reads more than a few hints.
                    if check.found.len() < HINTS {
                        refusal.hint =
                            crate::refusal::nearest(&entry.port, ports.keys().copied()).map(str::to_owned);
                    }
                    check.found.push(refusal);
                }
                Some(port) if !port.vlan.is_member(entry.vlan) => check.refuse(
                    key("vlan"),
                    format!("port `{}` is not in VLAN {}", shortened(&entry.port), entry.vlan),
                    format!("a VLAN of the port ({})", port.vlan),
                ),
                Some(_) => {}
            }
            if let Some(first) = seen.insert((entry.vlan, entry.mac), index) {
                check.refuse(
                    key("mac"),
                    format!("{} in VLAN {} is [[fdb]] entry {} already", entry.mac, entry.vlan, first + 1),
                    "each address once a VLAN",
                );
            }
        }
    }
}

/// Refuses keys that say nothing about a port of this kind: they would be silently without effect.
fn check_keys_of_kind(check: &mut Check, port: &Port, key: &dyn Fn(&str) -> Path) {
    const VIRTIO_NET: &str = "virtio-net";
    let kind = match (port.nic, port.uplink) {
        (Some(nic), None) => nic.as_str(),
        (None, Some(uplink)) => uplink.as_str(),
        _ => return,
    };
    let vfio = [Nic::Avf.as_str(), Nic::E1000.as_str()];
    let given: [(&str, bool, &[&str]); 13] = [
        ("vhost_user", port.vhost_user.is_some(), &[VIRTIO_NET]),
        ("vfio_user", port.vfio_user.is_some(), &vfio),
        ("queues", port.queues.is_some(), &[VIRTIO_NET, "avf", "tap", "xdp"]),
        ("queue_size", port.queue_size.is_some(), &[VIRTIO_NET]),
        ("generation", port.generation.is_some(), &["avf"]),
        ("trust", port.trust.is_some(), &["avf"]),
        ("spoofchk", port.spoofchk.is_some(), &["avf"]),
        ("mac", port.mac.is_some(), &[VIRTIO_NET, "avf", "e1000"]),
        ("device", port.device.is_some(), &["tap", "xdp"]),
        ("offloads", port.offloads.is_some(), &["tap"]),
        ("replay", port.replay.is_some(), &["pcap"]),
        ("capture", port.capture.is_some(), &["pcap"]),
        ("rate", port.rate.is_some(), &["pcap"]),
    ];
    for (name, is_given, kinds) in given.into_iter().chain([("loop", port.repeat.is_some(), &["pcap"][..])]) {
        if is_given && !kinds.contains(&kind) {
            check.refuse(
                key(name),
                format!("`{name}` says nothing about a port of kind {kind}"),
                format!("`{name}` only with {}", kinds.join(", ")),
            );
        }
    }
}

fn daemon_key(name: &str, element: Option<usize>) -> Path {
    let mut path = vec![Step::Key("daemon".into()), Step::Key(name.into())];
    path.extend(element.map(|i| Step::Element(i, None)));
    path
}

/// `LEVEL` or `TARGET=LEVEL`, comma-separated.
fn is_log_filter(text: &str) -> bool {
    text.len() <= 1024
        && text.split(',').all(|directive| {
            let (target, level) = directive.rsplit_once('=').unwrap_or(("all", directive));
            !target.is_empty()
                && target.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
                && matches!(level, "error" | "warn" | "info" | "debug" | "trace" | "off")
        })
}
