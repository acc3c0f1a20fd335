//! The rules that types cannot say.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use crate::{
    Config, Group, MAX_AVF_GENERATION, MAX_AVF_QUEUES, MAX_QUEUES, Meter, Nic, Object, Port, Refusal,
    Refused, StaticMember, Tenant, Uplink, VlanTable,
    group::MAX_ADDRESSES,
    meter,
    multicast::RouterPort,
    parse::shortened,
    refusal::{Path, Step},
    rule::check::Names,
    tenant::TENANT_KEYS,
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
        self.check_switch(&mut check);
        self.check_objects(&mut check);
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

    fn check_switch(&self, check: &mut Check) {
        let mut seen = HashSet::new();
        for (index, vlan) in self.vlan.iter().enumerate() {
            let key = |name: &str| -> Path {
                vec![Step::Key("vlan".into()), Step::Element(index, None), Step::Key(name.into())]
            };
            if !seen.insert(vlan.id) {
                check.refuse(key("id"), format!("VLAN {} has a table already", vlan.id), "each VLAN once");
            }
            if (vlan.gateway.is_empty() && !vlan.snooping) || vlan.gateway.len() > 64 {
                let problem = format!("{} addresses are given", vlan.gateway.len());
                check.refuse(key("gateway"), problem, "1 to 64, or none where `snooping` is on");
            }
            if vlan.querier && !vlan.snooping {
                check.refuse(key("querier"), "nobody listens to the answers", "`snooping = true` with it");
            }
            self.check_mdb(check, vlan, &key("mdb"));
            self.check_multicast(check, vlan, &key("multicast"));
            let odd = |address: &&std::net::IpAddr| address.is_multicast() || address.is_unspecified();
            if let Some(address) = vlan.gateway.iter().find(odd) {
                check.refuse(key("gateway"), format!("nobody can have {address}"), "unicast addresses");
            }
            if let Some(mac) = vlan.gateway_mac.filter(|mac| !mac.is_station()) {
                check.refuse(
                    key("gateway_mac"),
                    format!("{mac} cannot be a station's address"),
                    "a unicast address",
                );
            }
        }
        let mut seen = HashSet::new();
        for (index, zone) in self.zone.iter().enumerate() {
            let at = [Step::Key("zone".into()), Step::Element(index, None)];
            if !seen.insert(zone.id) {
                let key = at.iter().cloned().chain([Step::Key("id".into())]).collect::<Path>();
                check.refuse(key, format!("zone {} has a table already", zone.id), "each zone once");
            }
            zone.check(&at, &mut check.found);
        }
        let key = |name: &str| -> Path { vec![Step::Key("lldp".into()), Step::Key(name.into())] };
        check.range(key("interval"), self.lldp.interval.into(), 1, 3600);
        for (name, text) in [("name", &self.lldp.name), ("description", &self.lldp.description)] {
            if text.len() > 255 || text.contains(char::is_control) {
                check.refuse(
                    key(name),
                    format!("`{}` cannot be told", shortened(text)),
                    "at most 255 bytes, none a control",
                );
            }
        }
        if !self.lldp.chassis.is_station() {
            check.refuse(
                key("chassis"),
                format!("{} cannot be a chassis", self.lldp.chassis),
                "a unicast address",
            );
        }
    }

    /// How a VLAN is snooped in.
    fn check_multicast(&self, check: &mut Check, vlan: &VlanTable, at: &[Step]) {
        let Some(multicast) = &vlan.multicast else { return };
        if !vlan.snooping {
            check.refuse(at.to_vec(), "groups go to the whole VLAN", "`snooping = true` with it");
        }
        multicast.check(at, &mut check.found);
        let routers: Path = at.iter().cloned().chain([Step::Key("routers".into())]).collect();
        let mut seen = HashSet::new();
        for name in &multicast.routers {
            if !seen.insert(name) {
                let problem = format!("port `{}` is named twice", shortened(name));
                check.refuse(routers.clone(), problem, "each port once");
            }
            match self.find_port(name) {
                None => {
                    let problem = format!("there is no port `{}`", shortened(name));
                    check.refuse(routers.clone(), problem, "the names of [[port]]s");
                }
                Some(port) if !port.vlan.is_member(vlan.id) => {
                    let problem = format!("port `{}` is not in VLAN {}", shortened(name), vlan.id);
                    check.refuse(routers.clone(), problem, "ports of the VLAN");
                }
                Some(port) if port.multicast.as_ref().is_some_and(|it| it.router == RouterPort::Never) => {
                    let problem = format!("port `{}` never has a router behind it", shortened(name));
                    check.refuse(routers.clone(), problem, "ports without multicast.router = \"never\"");
                }
                Some(_) => {}
            }
        }
    }

    /// Static members of groups in a VLAN.
    fn check_mdb(&self, check: &mut Check, vlan: &VlanTable, at: &[Step]) {
        if vlan.mdb.is_empty() {
            return;
        }
        if !vlan.snooping {
            check.refuse(at.to_vec(), "groups go to the whole VLAN", "`snooping = true` with it");
        }
        if vlan.mdb.len() > StaticMember::MOST {
            let problem = format!("{} are given", vlan.mdb.len());
            check.refuse(at.to_vec(), problem, format!("at most {}", StaticMember::MOST));
            return;
        }
        let ports: HashMap<&str, &Port> = self.port.iter().map(|p| (p.name.as_str(), p)).collect();
        let mut seen = HashSet::new();
        for (index, member) in vlan.mdb.iter().enumerate() {
            let key = |name: &str| -> Path {
                at.iter().cloned().chain([Step::Element(index, None), Step::Key(name.into())]).collect()
            };
            if !member.is_of_listeners() {
                let problem = format!("nobody listens to {}", member.group);
                check.refuse(key("group"), problem, "a multicast address that is not the link's own");
            }
            match ports.get(member.port.as_str()) {
                None => {
                    let problem = format!("there is no port `{}`", shortened(&member.port));
                    let mut refusal = Refusal::at(key("port"), problem, "the name of a [[port]]");
                    if check.found.len() < HINTS {
                        refusal.hint =
                            crate::refusal::nearest(&member.port, ports.keys().copied()).map(str::to_owned);
                    }
                    check.found.push(refusal);
                }
                Some(port) if !port.vlan.is_member(vlan.id) => {
                    let problem = format!("port `{}` is not in VLAN {}", shortened(&member.port), vlan.id);
                    check.refuse(key("port"), problem, "a port of the VLAN");
                }
                Some(_) => {}
            }
            if !seen.insert((member.group, member.port.as_str())) {
                let problem = format!("port `{}` has {} already", shortened(&member.port), member.group);
                check.refuse(key("group"), problem, "each group once for a port");
            }
        }
    }

    fn check_daemon(&self, check: &mut Check) {
        let daemon = &self.daemon;
        check.socket(daemon_key("api", None), &daemon.api);
        check.range(daemon_key("fdb_entries", None), daemon.fdb_entries.into(), 1, 1 << 24);
        check.range(daemon_key("fdb_ageing", None), daemon.fdb_ageing.into(), 0, 1_000_000);
        check.range(daemon_key("flow_entries", None), daemon.flow_entries.into(), 64, 1 << 24);
        if let Some(file) = daemon.audit.as_deref() {
            check.file(daemon_key("audit", None), file);
        }
        if let Some(file) = daemon.saved_state.as_deref() {
            check.file(daemon_key("saved_state", None), file);
        }
        check.range(daemon_key("saved_state_interval", None), daemon.saved_state_interval.into(), 0, 86_400);
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
            check.range(key("qos"), port.qos.into(), 0, 7);
            check.range(key("tx_priority"), port.tx_priority.into(), 0, 7);
            check.range(key("tx_weight"), port.tx_weight.unwrap_or(1).into(), 1, 65535);
            if let Err(problem) = crate::priority::translation(&port.vlan_map) {
                check.refuse(key("vlan_map"), problem, "{ NUMBER_ON_THE_WIRE = VLAN }, each once");
            }
            if let Some(priority) = &port.priority {
                priority.check(&key, &mut check.found);
            }
            if let Some(nat) = &port.nat {
                nat.check(port.conntrack.is_some(), &key("nat"), &mut check.found);
            }
            if let Some(multicast) = &port.multicast {
                multicast.check(&key("multicast"), &mut check.found);
            }
            if let Some(answer) = &port.answer {
                answer.check(&key, &mut check.found);
            }
            port.guard.clone().unwrap_or_default().check(port, &key, &mut check.found);
            let lists = [
                ("unicast_filter", &port.unicast_filter, false),
                ("multicast_filter", &port.multicast_filter, true),
            ];
            for (name, list, is_group) in lists {
                if let Some(mac) = list.iter().flatten().find(|mac| mac.is_multicast() != is_group) {
                    let expected = if is_group { "addresses of groups" } else { "unicast addresses" };
                    check.refuse(key(name), format!("{mac} is of the other kind"), expected);
                }
            }
            for (place, left) in port.tenant_keys.iter().enumerate() {
                if !TENANT_KEYS.contains(&left.as_str()) {
                    let path = key("tenant_keys").into_iter().chain([Step::Element(place, None)]).collect();
                    let problem = format!("`{}` cannot be left to a tenant", shortened(left));
                    check.refuse(path, problem, format!("one of {}", TENANT_KEYS.join(", ")));
                }
            }
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

/// The names of a configuration.
struct ByName<'a> {
    ports: HashMap<&'a str, Option<&'a str>>,
    tenants: HashMap<&'a str, &'a Tenant>,
    groups: HashMap<(Option<&'a str>, &'a str), &'a Group>,
    meters: HashMap<(Option<&'a str>, &'a str), &'a Meter>,
    mirrors: HashSet<(Option<&'a str>, &'a str)>,
}

impl Names for ByName<'_> {
    fn port(&self, name: &str) -> Option<Option<&str>> {
        self.ports.get(name).copied()
    }

    fn has_tenant(&self, name: &str) -> bool {
        self.tenants.contains_key(name)
    }

    fn has_group(&self, tenant: Option<&str>, name: &str) -> bool {
        self.groups.contains_key(&(tenant, name))
    }

    fn has_meter(&self, tenant: Option<&str>, name: &str) -> bool {
        self.meters.contains_key(&(tenant, name))
    }

    fn has_mirror(&self, tenant: Option<&str>, name: &str) -> bool {
        self.mirrors.contains(&(tenant, name))
    }
}

/// Where a named thing stands in the file.
fn place<T: Object>(index: usize, thing: &T) -> Vec<Step> {
    vec![Step::Key(T::KIND.into()), Step::Element(index, Some(shortened(thing.name())))]
}

fn under(at: &[Step], key: &str) -> Path {
    at.iter().cloned().chain([Step::Key(key.into())]).collect()
}

/// Names that are none, are there twice, or stand in a domain that is not there.
fn check_names<T: Object>(check: &mut Check, list: &[T], names: &ByName<'_>) {
    let mut seen = HashSet::with_capacity(list.len());
    for (index, thing) in list.iter().enumerate() {
        let (name, tenant) = (thing.name(), thing.tenant());
        if !seen.insert((tenant, name)) {
            let problem = format!("there is a {} `{}` already", T::KIND, shortened(name));
            check.refuse(under(&place(index, thing), "name"), problem, "each name once in a domain");
        }
        // Rules look after themselves.
        if T::KIND == "rule" {
            continue;
        }
        if !is_name(name) {
            let problem = format!("`{}` is no name for a {}", shortened(name), T::KIND);
            check.refuse(under(&place(index, thing), "name"), problem, "1 to 63 of a-z A-Z 0-9 _ . -");
        }
        if let Some(tenant) = tenant.filter(|tenant| !names.has_tenant(tenant)) {
            let problem = format!("there is no tenant `{}`", shortened(tenant));
            check.refuse(under(&place(index, thing), "tenant"), problem, "the name of a [[tenant]]");
        }
    }
}

impl Config {
    fn check_objects(&self, check: &mut Check) {
        let names = ByName {
            ports: self.port.iter().map(|p| (p.name.as_str(), p.tenant.as_deref())).collect(),
            tenants: self.tenant.iter().map(|t| (t.name.as_str(), t)).collect(),
            groups: self.group.iter().map(|g| ((g.tenant(), g.name()), &**g)).collect(),
            meters: self.meter.iter().map(|m| ((m.tenant(), m.name()), m)).collect(),
            mirrors: self.mirror.iter().map(|m| (m.tenant(), m.name())).collect(),
        };
        for (index, port) in self.port.iter().enumerate() {
            if let Some(tenant) = port.tenant.as_deref().filter(|tenant| !names.has_tenant(tenant)) {
                let at = [Step::Key("port".into()), Step::Element(index, Some(shortened(&port.name)))];
                let problem = format!("there is no tenant `{}`", shortened(tenant));
                check.refuse(under(&at, "tenant"), problem, "the name of a [[tenant]]");
            }
        }
        self.check_tenants(check, &names);
        check_names(check, &self.group, &names);
        check_names(check, &self.meter, &names);
        check_names(check, &self.mirror, &names);
        check_names(check, &self.rule, &names);
        for (index, group) in self.group.iter().enumerate() {
            if group.addresses.len() > MAX_ADDRESSES {
                let problem = format!("{} addresses are given", group.addresses.len());
                check.refuse(
                    under(&place(index, group), "addresses"),
                    problem,
                    format!("at most {MAX_ADDRESSES}"),
                );
            }
        }
        for (index, meter) in self.meter.iter().enumerate() {
            let at = place(index, meter);
            meter.check(&at, &mut check.found);
            check_chain(check, &at, meter, &names);
        }
        self.check_mirrors(check, &names);
        for (index, rule) in self.rule.iter().enumerate() {
            // Most are right: the way to a key is made for those that are not.
            let before = check.found.len();
            rule.check(&[], &names, &mut check.found);
            if check.found.len() > before {
                let at = place(index, rule);
                check.found.truncate(before);
                rule.check(&at, &names, &mut check.found);
            }
        }
        self.check_quotas(check);
    }

    fn check_tenants(&self, check: &mut Check, names: &ByName<'_>) {
        check_names(check, &self.tenant, names);
        let mut sockets: HashSet<&str> = HashSet::from([self.daemon.api.as_str()]);
        let of_port = |p: &'_ Port| {
            let vhost = p.vhost_user.as_ref().map(|v| v.socket.clone());
            vhost.into_iter().chain(p.vfio_user.as_ref().map(|v| v.socket.clone())).collect::<Vec<_>>()
        };
        let of_ports: HashSet<String> = if self.tenant.is_empty() {
            HashSet::new()
        } else {
            self.port.iter().flat_map(of_port).collect()
        };
        for (index, tenant) in self.tenant.iter().enumerate() {
            let at = place(index, tenant);
            if let Some(socket) = tenant.socket.as_deref() {
                check.socket(under(&at, "socket"), socket);
                if !sockets.insert(socket) || of_ports.contains(socket) {
                    let problem = format!("socket `{}` belongs to something else already", shortened(socket));
                    check.refuse(under(&at, "socket"), problem, "another socket");
                }
                if tenant.uids.is_empty() && tenant.token.is_none() {
                    let problem = "nobody can be the tenant on its socket";
                    check.refuse(under(&at, "socket"), problem, "`uids`, `token` or both");
                }
            } else if !tenant.uids.is_empty() {
                let problem = "`uids` are about the tenant's socket, which is not given";
                check.refuse(under(&at, "uids"), problem, "socket = \"/run/fabnic/NAME.sock\"");
            }
        }
    }

    fn check_mirrors(&self, check: &mut Check, names: &ByName<'_>) {
        for (index, mirror) in self.mirror.iter().enumerate() {
            let at = place(index, mirror);
            let is_there = |port: &str| {
                names
                    .port(port)
                    .is_some_and(|owner| mirror.tenant.is_none() || owner == mirror.tenant.as_deref())
            };
            for (key, port) in
                [("to", &mirror.to)].into_iter().chain(mirror.port.0.iter().map(|port| ("port", port)))
            {
                if !is_there(port) {
                    let problem = format!("there is no port `{}`", shortened(port));
                    check.refuse(under(&at, key), problem, "the name of a [[port]] of the mirror's domain");
                }
            }
            if mirror.port.0.contains(&mirror.to) {
                check.refuse(under(&at, "to"), "a port cannot be mirrored to itself", "another port");
            }
            if mirror.tenant.is_some() && !mirror.vlan.is_empty() {
                let problem = "a tenant cannot mirror VLANs: others' packets are in them";
                check.refuse(under(&at, "vlan"), problem, "ports of the tenant's");
            }
            if let Some(length) = mirror.snaplen {
                check.range(under(&at, "snaplen"), length.into(), 14, 65535);
            }
            if mirror.sample == Some(0) {
                check.refuse(under(&at, "sample"), "one in 0 cannot be copied", "a number from 1 up");
            }
        }
    }

    fn check_quotas(&self, check: &mut Check) {
        if self.tenant.is_empty() {
            return;
        }
        let mut used: HashMap<&str, [usize; 5]> = HashMap::new();
        for tenant in self.rule.iter().filter_map(|rule| rule.tenant()) {
            used.entry(tenant).or_default()[0] += 1;
        }
        for group in &self.group {
            if let Some(tenant) = group.tenant() {
                let used = used.entry(tenant).or_default();
                used[1] += 1;
                used[2] += group.addresses.len();
            }
        }
        for tenant in self.meter.iter().filter_map(Object::tenant) {
            used.entry(tenant).or_default()[3] += 1;
        }
        for tenant in self.mirror.iter().filter_map(Object::tenant) {
            used.entry(tenant).or_default()[4] += 1;
        }
        for (index, tenant) in self.tenant.iter().enumerate() {
            let quota = tenant.quota;
            let limits = [
                ("rules", quota.rules),
                ("groups", quota.groups),
                ("addresses", quota.addresses),
                ("meters", quota.meters),
                ("mirrors", quota.mirrors),
            ];
            let used = used.get(tenant.name.as_str()).copied().unwrap_or_default();
            for ((what, limit), used) in limits.into_iter().zip(used) {
                if used > usize::try_from(limit).unwrap_or(usize::MAX) {
                    let path = under(&under(&place(index, tenant), "quota"), what);
                    let problem = format!("tenant {} would have {used} {what}", shortened(&tenant.name));
                    check.refuse(path, problem, format!("at most {limit}, its quota"));
                }
            }
        }
    }
}

/// Meters that ask meters: known ones, not in a circle, not too many.
fn check_chain(check: &mut Check, at: &[Step], meter: &Meter, names: &ByName<'_>) {
    let mut next = meter.parent.as_deref();
    for _ in 1..meter::MAX_CHAIN {
        let Some(name) = next else { return };
        match names.meters.get(&(meter.tenant(), name)) {
            Some(parent) => next = parent.parent.as_deref(),
            // Said where it stands.
            None if next != meter.parent.as_deref() => return,
            None => {
                let problem = format!("there is no meter `{}`", shortened(name));
                check.refuse(under(at, "parent"), problem, "the name of a [[meter]] of the same domain");
                return;
            }
        }
    }
    if next.is_some() {
        let expected = format!("at most {} meters in a row, and none twice", meter::MAX_CHAIN);
        check.refuse(under(at, "parent"), "too many meters ask one another", expected);
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
    let given: [(&str, bool, &[&str]); 12] = [
        ("vhost_user", port.vhost_user.is_some(), &[VIRTIO_NET]),
        ("vfio_user", port.vfio_user.is_some(), &vfio),
        ("queues", port.queues.is_some(), &[VIRTIO_NET, "avf", "tap", "xdp"]),
        ("queue_size", port.queue_size.is_some(), &[VIRTIO_NET]),
        ("generation", port.generation.is_some(), &["avf"]),
        ("trust", port.trust.is_some(), &[VIRTIO_NET, "avf", "e1000"]),
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
